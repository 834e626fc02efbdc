"""The folder that a job writes: one writer at a time, made from one thing, and a record of every finished task.

    folder = Folder(out, claim="ingest/config.json", lock="ingest/lock", holds="spectra")
    with folder.locked():
        if folder.is_foreign(asked, force):
            ...  # remove what is there
        folder.sweep("spectra")
        folder.write_claim(asked)
        results = Ledger(tasks, "parts").run(function, engine, describe="ingest", unit="file")

A task writes its files whole and its record after them. Whatever ended a job, the same command goes on from there.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Generic, Protocol, TypeVar

from specshards.common.errors import JobError, UsageError, make_folder
from specshards.common.files import is_remote, write_text
from specshards.common.jobs import Engine, run_tasks
from specshards.common.json import parse
from specshards.common.messages import LOGGER

Result = TypeVar("Result", bound="LedgerRecord")
Work = TypeVar("Work", bound="LedgerTask[Any]")


@dataclass(frozen=True)
class Folder:
    """A folder that one job at a time writes, on a local disk or in an object store.

    Attributes:
        out: the folder.
        claim, lock: names of their files within it.
        holds: what is in it, for errors.
        mend: what replaces that, for errors.
        work: patterns of the files that a finished task leaves, where it gave anything.
    """

    out: Path
    claim: str
    lock: str
    holds: str
    mend: str = "FORCE=1 to replace them"
    work: tuple[str, ...] = ()

    def locked(self) -> AbstractContextManager[None]:
        """Keep other writers out; see the function `locked`."""
        return locked(self.out / self.lock, self.out)

    def claimed(self) -> dict[str, Any] | None:
        """What the folder is made from; None where nothing is claimed.

        Raises:
            JobError: the claim cannot be read.
        """
        path = self.out / self.claim
        try:
            content = parse(path.read_text(encoding="utf-8"), nan=True)
        except FileNotFoundError:
            return None
        except ValueError:
            content = None
        if not isinstance(content, dict):
            raise JobError(f"{path}: not what this program writes; choose another OUT, or {self.mend}")
        return content

    def is_foreign(self, asked: Mapping[str, Any], force: bool) -> bool:
        """Whether the folder is made from something else than `asked`.

        A claim of which nothing came refuses nobody: a mistake must not stand in the way of the right command.

        Raises:
            UsageError: it is, and `force` does not say to replace it. JobError: nobody can tell, likewise.
        """
        try:
            changed = changes(self.claimed(), asked)
        except JobError:
            if not force:
                raise
            return True
        if changed and not force and self.has_work():
            raise self.refusal(changed)
        return bool(changed)

    def has_work(self) -> bool:
        """Whether any task gave something; True where `work` does not say what that would be."""
        return not self.work or any(True for pattern in self.work for _ in self.out.glob(pattern))

    def write_claim(self, content: Mapping[str, Any]) -> None:
        """Write down what the folder is made from."""
        if not is_remote(self.out):
            make_folder((self.out / self.claim).parent)
        write_text(self.out / self.claim, json.dumps(content, indent=1) + "\n")

    def unclaim(self) -> None:
        """Forget what the folder is made from: another command may make it anew. Hold the lock."""
        (self.out / self.claim).unlink(missing_ok=True)

    def refusal(self, changed: Sequence[str]) -> UsageError:
        """The error where it is made from something else; `changed` is of the function `changes`."""
        return UsageError(
            f"{self.out}: holds {self.holds} made otherwise ({', '.join(changed)}); choose another OUT, or "
            f"{self.mend}"
        )

    def sweep(self, *names: str) -> None:
        """Remove the temporary files that a killed writer left in it and in folders of these names. Hold the lock."""
        for folder in (self.out, *(self.out / name for name in names)):
            if not is_remote(folder):
                for path in folder.glob(".*.tmp"):
                    path.unlink(missing_ok=True)


@contextmanager
def locked(path: Path, out: Path) -> Iterator[None]:
    """Only one process at a time holds the file `path`. The lock goes with the process, however that ends.

    Nothing is checked in an object store, and on a file system without locks.

    Args:
        path: made, and removed at the end; so are its folders, where they are new and nothing else is in them.
        out: what the error names.

    Raises:
        JobError: another process holds it, or a folder cannot be made.
    """
    if is_remote(path) or sys.platform == "win32":
        yield
        return
    new = [folder for folder in path.parents if not folder.exists()]
    if out in new:
        make_folder(out)  # an error names this one, not one within
    while (file := _lock(path, out)) is None:
        pass
    with file:
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            for folder in new:
                with suppress(OSError):
                    folder.rmdir()


def _lock(path: Path, out: Path) -> IO[str] | None:
    """The locked file; None where its last holder removed it before it was locked."""
    import fcntl

    make_folder(path.parent)
    try:
        file = path.open("w")
    except FileNotFoundError:  # the folder, likewise
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(path.stat(), os.fstat(file.fileno())):
            return file
    except BlockingIOError:
        file.close()
        raise JobError(f"{out}: another process is writing there; wait for it, or choose another OUT") from None
    except FileNotFoundError:
        pass
    except OSError:  # a file system without locks
        return file
    file.close()
    return None


def changes(before: Mapping[str, Any] | None, asked: Mapping[str, Any]) -> list[str]:
    """The fields that differ, as `name: before -> asked`, in alphabetical order; of a mapping within, its fields.

    Args:
        before: a claim, None for none. asked: JSON-able, as `before` is.
    """
    if before is None:
        return []
    old, new = (_fields(json.loads(json.dumps(content))) for content in (before, asked))
    names = sorted({*old, *new})
    return [
        f"{name}: {old.get(name, 'unset')} -> {new.get(name, 'unset')}"
        for name in names
        if old.get(name) != new.get(name)
    ]


def _fields(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in content.items():
        fields |= _fields(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return fields


class LedgerRecord(Protocol):
    """What a finished task came to. Its file is in the ledger."""

    @property
    def number(self) -> int:
        """The task's."""
        ...

    @property
    def fingerprint(self) -> str:
        """The task's, when it was done."""
        ...


class LedgerTask(Protocol[Result]):
    """A frozen argument of a pure function that writes files, and its record after them."""

    @property
    def number(self) -> int:
        """Its place among the tasks."""
        ...

    @property
    def fingerprint(self) -> str:
        """Of all that decides its files."""
        ...

    @property
    def size(self) -> int:
        """How many objects it is given, for the progress line."""
        ...

    @property
    def record(self) -> Path:
        """The file of its record."""
        ...

    def loads(self, text: str) -> Result:
        """A record from that file's text; ValueError, KeyError or TypeError where it is none."""
        ...

    def is_whole(self, record: Result) -> bool:
        """Whether the files that the record speaks of are there as it says."""
        ...


def finished(task: LedgerTask[Result]) -> Result | None:
    """The record of a task that is done, and whose files are whole, else None."""
    try:
        record = task.loads(task.record.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return record if record.fingerprint == task.fingerprint and task.is_whole(record) else None


class Ledger(Generic[Work, Result]):
    """The tasks of a job: those that are done, by their records, and those that are not.

    Attributes:
        done: number -> record.
        todo: the other tasks, in order.
    """

    def __init__(self, tasks: Sequence[Work], what: str) -> None:
        """Look at every task's record and files; say how many are done, `what` being the plural of a task."""
        self._tasks = tasks
        self.done: dict[int, Result] = {
            task.number: record for task in tasks if (record := finished(task)) is not None
        }
        self.todo = [task for task in tasks if task.number not in self.done]
        if self.done:
            LOGGER.info(f"resuming: {len(self.done)} of {len(tasks)} {what} are done already")

    def run(
        self,
        function: Callable[[Work], Result],
        engine: Engine,
        *,
        describe: str,
        unit: str,
        note: Callable[[Result], str] | None = None,
        name: Callable[[Work], str] | None = None,
    ) -> list[Result]:
        """Do what is left, and return the records of all tasks, in order; see `common.jobs.run_tasks`."""
        sizes = [task.size for task in self.todo]
        for record in run_tasks(
            function, self.todo, engine, describe=describe, unit=unit, sizes=sizes, note=note, name=name
        ):
            self.done[record.number] = record
        return [self.done[task.number] for task in self._tasks]
