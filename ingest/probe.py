"""Whether pyarrow can be asked about the column chunks of a Parquet footer.

Where the footer says of a chunk what its schema contradicts, pyarrow's reader raises an error, but pyarrow's metadata
ends the process: an error of C++ that nobody catches. A footer that no seal vouches for is therefore shown to another
process first, one for each process that asks, which ends with it.
"""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
from threading import Lock

from specshards.common.errors import JobError

_ASK = """
import sys
import pyarrow as pa, pyarrow.parquet as pq
read, write = sys.stdin.buffer.read, sys.stdout.buffer
while True:
    write.write(b".")
    write.flush()
    size = read(4)
    if len(size) < 4:
        break
    footer = read(int.from_bytes(size, "little"))
    try:
        metadata = pq.read_metadata(pa.BufferReader(b"PAR1" + footer + size + b"PAR1"))
        for group in range(metadata.num_row_groups):
            chunks = metadata.row_group(group)
            for number in range(chunks.num_columns):
                chunks.column(number)
    except Exception:  # what pyarrow says is for who reads the file
        pass
"""
_lock = Lock()
# And the process that started it: one that was forked from it has none.
_process: tuple[subprocess.Popen[bytes], int] | None = None


def can_be_asked(footer: bytes) -> bool:
    """Whether pyarrow survives the footer (without the eight bytes behind it)."""
    global _process
    with _lock:
        if _process is None or _process[1] != os.getpid():
            _process = _started(), os.getpid()
        asked = _process[0]
        assert asked.stdin is not None
        try:
            asked.stdin.write(len(footer).to_bytes(4, "little") + footer)
            asked.stdin.flush()
            survived = _answer(asked) == b"."
        except BrokenPipeError:
            survived = False
        if not survived:
            _process = None
            _end(asked)
        return survived


def _started() -> subprocess.Popen[bytes]:
    # -P: what lies in the folder of a command is the user's own, whatever its name.
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", _ASK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    if _answer(process) != b".":
        raise JobError(f"{sys.executable}: cannot be started once more, or has no pyarrow; mend the installation")
    atexit.register(_end, process)
    return process


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()


def _answer(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    return process.stdout.read(1)
