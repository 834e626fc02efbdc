"""A USTAR writer for shards, with its DALI index: contiguous samples, fixed metadata, bytes that never vary.

Python's `tarfile` spends a third of the pipeline's time on headers and writes the clock into them. Members here have
mode 0644, mtime 0, uid = gid = 0 and no names of users, so that equal samples give equal archives.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from ingest.files import write_text

BLOCK = 512
_RECORD = 20 * BLOCK  # tar pads an archive to whole records


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
    block = bytearray(BLOCK)
    block[0 : len(encoded)] = encoded
    block[100:108] = b"0000644\0"
    block[108:116] = b"0000000\0"
    block[116:124] = b"0000000\0"
    block[124:136] = b"%011o\0" % size
    block[136:148] = b"00000000000\0"
    block[148:156] = b" " * 8  # the checksum is summed as if it were blanks
    block[156] = ord("0")
    block[257:265] = b"ustar\x0000"
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


class TarWriter:
    """Write samples to `path` and remember where each member lies.

    Nothing appears under the final name before `close`, which fsyncs the tar, writes the index and renames both; on
    an exception inside `with`, nothing is left.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.index_path = path.with_suffix(".idx")
        self._temporary = path.with_name(f".{path.name}.tmp")
        self._file = self._temporary.open("wb", buffering=1 << 20)
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
        entries = []
        for extension, payload in members:
            name = f"{key}.{extension}"
            self._write(header(name, len(payload)))
            entries.append(f"{extension} {self._offset} {len(payload)} {name}")
            self._write(payload)
            self._write(bytes(-len(payload) % BLOCK))
        self._lines.append(" ".join(entries))

    def close(self) -> None:
        """Finish the archive, make it durable, give tar and index their final names."""
        self._write(bytes(2 * BLOCK))
        self._write(bytes(-self._offset % _RECORD))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self.sha256 = self._digest.hexdigest()
        # DALI index v1.2: a count, then per sample `extension offset size name` for every member.
        index = "\n".join([f"v1.2 {len(self._lines)}", *self._lines]) + "\n"
        self.index_sha256 = hashlib.sha256(index.encode()).hexdigest()
        write_text(self.index_path, index)
        os.replace(self._temporary, self.path)

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self._offset += len(data)

    def __enter__(self) -> TarWriter:
        """The writer itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close, or remove what was begun when an exception passes."""
        if kind is None:
            self.close()
        else:
            self._file.close()
            self._temporary.unlink(missing_ok=True)


def read_index(path: Path) -> list[dict[str, tuple[int, int, str]]]:
    """The samples of a DALI index: for each, extension -> (offset, size, member name).

    Raises:
        ValueError: not an index of version 1.2, or cut short.
    """
    lines = path.read_text().splitlines()
    version, _, count = (lines[0] if lines else "").partition(" ")
    if version != "v1.2" or not count.isdigit() or int(count) != len(lines) - 1:
        raise ValueError(f"{path}: not a whole DALI index v1.2; make the shards again")
    samples = []
    for line in lines[1:]:
        words = line.split(" ")
        samples.append(
            {words[i]: (int(words[i + 1]), int(words[i + 2]), words[i + 3]) for i in range(0, len(words), 4)}
        )
    return samples
