"""Checksums of files, from lists as `sha1sum` and `md5sum` write them, or from a column of a catalogue."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from specshards.common.errors import UsageError

#: Names of a column of digests, in any case, and the algorithm by the number of hexadecimal digits.
DIGEST_COLUMNS = ("sha256sum", "sha256", "sha1sum", "sha1", "md5sum", "md5")
ALGORITHMS = {32: "md5", 40: "sha1", 64: "sha256"}
_DIGEST = re.compile(r"[0-9a-fA-F]+")
_SUM_LINE = re.compile(r"\\?([0-9a-fA-F]+)[ \t]+\*?(.+)")


def digest(text: object) -> str | None:
    """A checksum in lower case, None for a missing one.

    Raises:
        ValueError: it is not the hexadecimal text of an md5, sha1 or sha256.
    """
    value = "" if text is None else str(text).strip().lower()
    if not value or value == "nan":
        return None
    if len(value) not in ALGORITHMS or not _DIGEST.fullmatch(value):
        raise ValueError(f"{value[:70]!r} is no md5, sha1 or sha256")
    return value


class Checksums:
    """Checksums by file, from lists in the format of `sha1sum` and `md5sum`.

    A list may lie anywhere in the tree, so its paths may be shorter or longer than ours: names are compared from
    their end. Kept sorted in Arrow arrays, a few tens of bytes a file.

    Raises:
        UsageError: no such list, or a line that is not `CHECKSUM  PATH`.
    """

    def __init__(self, lists: Sequence[Path] = ()) -> None:
        parts = [_read_sums(path) for path in lists]
        table = pa.concat_tables(parts).sort_by("name").combine_chunks() if parts else None
        self._size = 0 if table is None else table.num_rows
        if table is not None and self._size:
            self._names, self._paths, self._sums = (table[i].chunk(0) for i in range(3))

    def of(self, path: str) -> str | None:
        """The checksum of a relative path, None where no list has it."""
        name = path.rsplit("/", 1)[-1]
        at = bisect_left(range(self._size), name, key=lambda i: self._names[i].as_py())
        best: tuple[int, str | None] = (0, None)
        while at < self._size and self._names[at].as_py() == name:
            listed = self._paths[at].as_py()
            if f"/{path}".endswith(f"/{listed}") or f"/{listed}".endswith(f"/{path}"):
                best = max(best, (len(listed), self._sums[at].as_py()), key=lambda pair: pair[0])
            at += 1
        return best[1]


def _read_sums(path: Path) -> pa.Table:
    if not path.is_file():
        raise UsageError(f"{path}: no such list of checksums")
    schema = pa.schema([("name", pa.string()), ("path", pa.string()), ("sum", pa.string())])
    tables, rows = [], []
    with path.open(encoding="utf-8", errors="replace") as source:
        for number, line in enumerate(source, 1):
            if not (text := line.strip()) or text.startswith("#"):
                continue
            match = _SUM_LINE.fullmatch(text)
            if match is None or len(match[1]) not in ALGORITHMS:
                raise UsageError(f"{path}, line {number}: expected CHECKSUM  PATH, as sha1sum and md5sum write")
            listed = match[2].removeprefix("./").lstrip("/")
            rows.append({"name": listed.rsplit("/", 1)[-1], "path": listed, "sum": match[1].lower()})
            if len(rows) >= 100_000:
                tables.append(pa.Table.from_pylist(rows, schema))
                rows = []
    return pa.concat_tables([*tables, pa.Table.from_pylist(rows, schema)])
