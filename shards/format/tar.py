"""A USTAR writer for shards, with its DALI index: contiguous samples, fixed metadata, bytes that never vary.

Python's `tarfile` spends a third of the pipeline's time on headers and writes the clock into them. Members here have
mode 0644, mtime 0, uid = gid = 0 and no names of users, so that equal samples give equal archives.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from specshards.common.files import replacing, write_text
from specshards.common.remote import read_bytes

BLOCK = 512
_RECORD = 20 * BLOCK  # tar pads an archive to whole records
_PADDING = bytes(BLOCK)


def _template() -> bytes:
    block = bytearray(BLOCK)
    block[100:108] = b"0000644\0"
    block[108:116] = b"0000000\0"
    block[116:124] = b"0000000\0"
    block[136:148] = b"00000000000\0"
    block[148:156] = b" " * 8  # the checksum is summed as if it were blanks
    block[156] = ord("0")
    block[257:265] = b"ustar\x0000"
    return bytes(block)


_BEFORE, _AFTER = _template()[100:124], _template()[156:]
_FIXED_SUM = sum(_template())


def header(name: str, size: int) -> bytes:
    """The 512-byte USTAR header (POSIX.1-1988) of a regular file.

    Raises:
        ValueError: a name that is not 1 to 100 plain ASCII characters, or a size of 8 GiB and more.
    """
    encoded = name.encode("ascii")
    if not 0 < len(encoded) <= 100:
        raise ValueError(f"tar member name {name!r} must have 1 to 100 characters")
    if not 0 <= size < 8**11:
        raise ValueError(f"{name}: {size} bytes do not fit a USTAR member")
    length = b"%011o\0" % size
    total = _FIXED_SUM + sum(encoded) + sum(length)
    return b"%b%b%b00000000000\0%06o\0 %b" % (encoded.ljust(100, b"\0"), _BEFORE, length, total, _AFTER)


class TarWriter:
    """Write samples to `path` and remember where each member lies.

    To be used in a `with` block. Nothing appears under the final name before its end, where the tar is made durable,
    the index written, and both renamed (or uploaded); on an exception inside, nothing is left.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.index_path = path.with_suffix(".idx")
        self._digest = hashlib.sha256()
        self._lines: list[str] = []
        self._offset = 0
        self.sha256 = self.index_sha256 = ""

    @property
    def samples(self) -> int:
        """Samples written so far."""
        return len(self._lines)

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self._offset

    def add(self, key: str, members: Sequence[tuple[str, bytes]]) -> None:
        """Append one sample: `(extension, payload)` members named `<key>.<extension>`, one after another."""
        pieces, entries = [], []
        for extension, payload in members:
            name, size = f"{key}.{extension}", len(payload)
            entries.append(f"{extension} {self._offset + BLOCK} {size} {name}")
            pieces += [header(name, size), payload, _PADDING[: -size % BLOCK]]
            self._offset += BLOCK + size + -size % BLOCK
        self._write(b"".join(pieces))
        self._lines.append(" ".join(entries))

    def _finish(self) -> None:
        """Finish the archive and write the index, which is never without an archive of its samples for long."""
        ending = bytes(2 * BLOCK)
        ending += bytes(-(self._offset + len(ending)) % _RECORD)
        self._write(ending)
        self._offset += len(ending)
        self.sha256 = self._digest.hexdigest()
        # DALI index v1.2: a count, then per sample `extension offset size name` for every member.
        index = "\n".join([f"v1.2 {len(self._lines)}", *self._lines]) + "\n"
        self.index_sha256 = hashlib.sha256(index.encode()).hexdigest()
        write_text(self.index_path, index)

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)

    def __enter__(self) -> TarWriter:
        """The writer itself."""
        with ExitStack() as stack:
            temporary = stack.enter_context(replacing(self.path))
            self._file = stack.enter_context(temporary.open("wb", buffering=1 << 20))
            self._files = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish and publish, or remove what was begun when an exception passes."""
        if kind is None:
            with self._files:
                self._finish()
        else:
            self._files.__exit__(kind, error, trace)


def read_index(path: Path) -> list[dict[str, tuple[int, int, str]]]:
    """The samples of a DALI index: for each, extension -> (offset, size, member name).

    Raises:
        ValueError: not an index of version 1.2, or cut short.
    """
    lines = read_bytes(path).decode().splitlines()
    version, _, count = (lines[0] if lines else "").partition(" ")
    if version != "v1.2" or not count.isdigit() or int(count) != len(lines) - 1:
        raise ValueError(f"{path}: not a whole DALI index v1.2; make the shards again")
    return [_members(line) for line in lines[1:]]


def read_entries(path: Path, places: Sequence[int]) -> list[dict[str, tuple[int, int, str]]]:
    """What `read_index` says of some samples; the other lines are not parsed.

    Raises:
        ValueError: damaged lines. IndexError: a place that is not there.
    """
    lines = read_bytes(path).decode().splitlines()
    return [_members(lines[1 + place]) for place in places]


def _members(line: str) -> dict[str, tuple[int, int, str]]:
    words = line.split(" ")
    return {words[i]: (int(words[i + 1]), int(words[i + 2]), words[i + 3]) for i in range(0, len(words), 4)}
