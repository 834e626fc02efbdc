"""The files of a shard on this machine: where they lie, or copies of them where they lie elsewhere."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specshards.common.cache import Cache, Remote, shared_cache
from specshards.common.errors import JobError
from specshards.common.files import is_remote, is_web
from specshards.common.remote import patiently

if TYPE_CHECKING:
    from specshards.shards.format.manifest import ShardRecord


def remote_tar(record: ShardRecord, folder: Path) -> tuple[Remote, Remote]:
    """A tar elsewhere, and the index that is put beside its copy, as the loader and DALI expect it."""
    name = Path(record.name).stem
    return (
        Remote(record.path(folder), record.sha256, f"{name}.tar", record.bytes),
        Remote(record.index(folder), record.index_sha256, f"{name}.idx", beside=record.sha256),
    )


@contextmanager
def nearby_tar(record: ShardRecord, folder: Path, cache: Cache | None = None) -> Iterator[Path]:
    """The tar on this machine, with its index beside it; a copy is not removed within the block.

    Raises:
        JobError: a copy cannot be had, or is not what the manifest says.
    """
    if not is_remote(folder):
        yield record.path(folder)
        return
    tar, index = remote_tar(record, folder)
    cache = cache or shared_cache()
    with cache.holding(index), cache.holding(tar) as path:
        yield path


def nearby_sidecar(record: ShardRecord, folder: Path, cache: Cache | None = None) -> AbstractContextManager[Path]:
    """The table beside the tar, likewise."""
    path = record.sidecar(folder)
    if not is_remote(folder):
        return nullcontext(path)
    name = f"{Path(record.name).stem}.parquet"
    return (cache or shared_cache()).holding(Remote(path, record.sidecar_sha256, name))


#: What web servers answer who are asked for a folder.
_NO_LIST = (400, 401, 403, 404, 405, 501)


@contextmanager
def fetched(record: ShardRecord, folder: Path) -> Iterator[Path]:
    """A folder on this machine with a shard's three files as they are, whatever the manifest says of them.

    It is gone after the block; of a data set on this machine it is that itself.

    Raises:
        JobError: the network; names the object. A file that is not there is none here, either.
    """
    if not is_remote(folder):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="specshards-") as name:
        here = Path(name)
        for there, copy in zip(record.files(folder), record.files(here), strict=True):
            copy.parent.mkdir(exist_ok=True)
            with suppress(FileNotFoundError):
                patiently(there, lambda there=there, copy=copy: there.fs.get_file(there.path, str(copy)))  # type: ignore[misc]
        yield here


def listed(folder: Path) -> Mapping[str, int] | None:
    """Name -> bytes of what is in a folder elsewhere; None where that has no lists, or gives them to others only."""
    system = folder.fs  # type: ignore[attr-defined]
    on_web = is_web(folder)

    def look() -> list[dict[str, Any]] | None:
        system.invalidate_cache()  # what was there when this process looked before may not be now
        try:
            return system.ls(folder.path, detail=True)  # type: ignore[attr-defined]
        except PermissionError:
            return None
        except Exception as error:
            if on_web and getattr(error, "status", None) in _NO_LIST:
                return None
            raise

    try:
        found = patiently(folder, look)
    except FileNotFoundError:
        found = []
    if found is None or (on_web and not found) or any(entry.get("size") is None for entry in found):
        return None
    return {entry["name"].rstrip("/").rpartition("/")[2]: int(entry["size"]) for entry in found}


def check_listed(tar: Path, size: int, found: Mapping[str, int] | None) -> None:
    """JobError where a list says that a tar or its index is not there, or the tar not of its size."""
    if found is None:
        return
    if tar.name not in found or tar.with_suffix(".idx").name not in found:
        raise JobError(f"{tar}: the archive or its .idx is missing; copy or make it again")
    if found[tar.name] != size:
        raise JobError(f"{tar}: {found[tar.name]} bytes, the manifest says {size}; copy or make it again")


def has_sidecars(records: Sequence[ShardRecord], folder: Path) -> bool:
    """Whether the tables beside some tars are there."""
    paths = [record.sidecar(folder) for record in records]
    if not is_remote(folder):
        return all(path.exists() for path in paths)
    lists = {parent: listed(parent) for parent in dict.fromkeys(path.parent for path in paths)}
    return all(patiently(p, p.exists) if (names := lists[p.parent]) is None else p.name in names for p in paths)
