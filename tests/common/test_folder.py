"""The claimed folder: what is refused and by what name, who holds it, what a rerun does again."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from specshards.common.errors import JobError, UsageError
from specshards.common.folder import Folder, Ledger, changes, locked
from specshards.common.jobs import Engine
from tests.oracles import commands


def folder_of(out: Path) -> Folder:
    return Folder(out, claim="books/claim.json", lock="books/lock", holds="numbers")


def test_changes_name_the_fields() -> None:
    before = {"seed": 0, "image": {"size": 224, "grid": "own"}, "split": [0.8, 0.2], "gone": 1, "same": None}
    asked = {"seed": 1, "image": {"size": 80, "grid": "own"}, "split": (0.8, 0.2), "new": "a", "same": None}
    assert changes(before, asked) == ["gone: 1 -> unset", "image.size: 224 -> 80", "new: unset -> a", "seed: 0 -> 1"]
    assert changes(None, asked) == [] == changes(before, before)


def test_another_claim_is_refused_unless_forced(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    assert folder.claimed() is None and not folder.is_foreign({"seed": 0}, force=False)
    folder.write_claim({"seed": 0})
    assert folder.claimed() == {"seed": 0} and not folder.is_foreign({"seed": 0}, force=False)
    with pytest.raises(UsageError) as refused:
        folder.is_foreign({"seed": 1}, force=False)
    assert str(refused.value) == (
        f"{tmp_path}: holds numbers made otherwise (seed: 0 -> 1); choose another OUT, or FORCE=1 to replace them"
    )
    assert folder.is_foreign({"seed": 1}, force=True)
    for damaged in ("", "{", "[1]"):
        (tmp_path / "books" / "claim.json").write_text(damaged)
        with pytest.raises(JobError, match=r"claim\.json: not what this program writes; .* FORCE=1"):
            folder.is_foreign({"seed": 0}, force=False)
        assert folder.is_foreign({"seed": 0}, force=True)


def test_the_lock_is_one_writers_and_leaves_nothing(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "out")
    with folder.locked():
        with pytest.raises(JobError, match="out: another process is writing there"), folder.locked():
            raise AssertionError("two writers")
        with pytest.raises(JobError, match="another process"), folder.locked():  # the refused one took nothing away
            raise AssertionError("two writers")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ZeroDivisionError), folder.locked():
        raise ZeroDivisionError
    with folder.locked():
        (tmp_path / "out" / "work").touch()
    assert list((tmp_path / "out").iterdir()) == [tmp_path / "out" / "work"]


def test_the_lock_goes_with_the_process(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    script = (
        "import time; from pathlib import Path; from specshards.common.folder import locked\n"
        f"with locked(Path({str(lock)!r}), Path('out')):\n    print('held', flush=True); time.sleep(60)\n"
    )
    with commands.start(commands.script(script), output=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(JobError, match="another process"), locked(lock, tmp_path):
            raise AssertionError("two writers")
        holder.kill()
    assert lock.exists()
    with locked(lock, tmp_path):
        pass
    assert not lock.exists()


def test_two_writers_never_hold_a_lock_that_its_holders_keep_removing(tmp_path: Path) -> None:
    """Many processes in turn: each counts in a file, which only one may do at a time."""
    counter = tmp_path / "counter"
    counter.write_text("0")
    script = f"""
import time
from pathlib import Path
from specshards.common.errors import JobError
from specshards.common.folder import locked
counter, done = Path({str(counter)!r}), 0
while done < 200:
    try:
        with locked(Path({str(tmp_path / "new" / "lock")!r}), counter):
            number = int(counter.read_text())
            time.sleep(0)
            counter.write_text(str(number + 1))
        done += 1
    except JobError:
        pass
"""
    processes = [commands.start(commands.script(script)) for _ in range(3)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0, 0]
    assert counter.read_text() == "600"


def test_sweeping_takes_temporary_files_alone(tmp_path: Path) -> None:
    for name in (".a.0badcafe.tmp", "parts/.b.tmp", "parts/c.tmp", "parts/d", "other/.e.tmp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    folder_of(tmp_path).sweep("parts", "absent")
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"parts/c.tmp", "parts/d", "other/.e.tmp"} and not (tmp_path / "absent").exists()


@dataclass(frozen=True)
class Square:
    """A record: the square of a number."""

    number: int
    fingerprint: str
    square: int


@dataclass(frozen=True)
class SquareTask:
    """Writes the square of a number to a file."""

    number: int
    fingerprint: str
    out: str
    size: int = 1

    @property
    def file(self) -> Path:
        return Path(self.out) / str(self.number)

    @property
    def record(self) -> Path:
        return Path(self.out) / f"{self.number}.record"

    def loads(self, text: str) -> Square:
        number, fingerprint, square = text.split()
        return Square(int(number), fingerprint, int(square))

    def is_whole(self, record: Square) -> bool:
        return self.file.is_file() and self.file.read_text() == str(record.square)


def square(task: SquareTask) -> Square:
    task.file.write_text(str(task.number**2))
    task.record.write_text(f"{task.number} {task.fingerprint} {task.number**2}")
    return Square(task.number, task.fingerprint, task.number**2)


def test_a_rerun_does_what_is_missing_damaged_or_of_another_fingerprint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks = [SquareTask(number, "a", str(tmp_path)) for number in (3, 1, 2, 7, 5)]

    def run(tasks: list[SquareTask]) -> list[int]:
        ledger: Ledger[SquareTask, Square] = Ledger(tasks, "squares")
        todo = [task.number for task in ledger.todo]
        records = ledger.run(square, Engine(workers=0), describe="square", unit="number")
        assert [(record.number, record.square) for record in records] == [(t.number, t.number**2) for t in tasks]
        return todo

    assert run(tasks) == [3, 1, 2, 7, 5] and capsys.readouterr().out == ""
    (tmp_path / "1").unlink()
    (tmp_path / "2").write_text("5")
    (tmp_path / "7.record").write_text("half a rec")
    (tmp_path / "5.record").unlink()
    assert run(tasks) == [1, 2, 7, 5] and capsys.readouterr().out == "resuming: 1 of 5 squares are done already\n"
    assert run(tasks) == []
    assert run([SquareTask(3, "b", str(tmp_path)), *tasks[1:]]) == [3]
