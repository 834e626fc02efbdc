"""The index of an archive: where each of its samples lies, 24 bytes of memory for each."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from specshards.common.errors import JobError, is_environment, one_line, shortened
from specshards.shards.format.handles import Handle, Identity
from specshards.shards.format.layout import KEY_DIGITS
from specshards.shards.format.tar import BLOCK

_INTS = npt.NDArray[np.int64]
_KEY = f"^[0-9]{{{KEY_DIGITS}}}$"
#: Bytes of a line of an index that no encoding's extension makes longer.
_LONGEST_LINE = 1024


def end_of(start: _INTS, size: _INTS) -> _INTS:
    """Where the next member's header begins, of members of `size` bytes from `start` on."""
    return start + size + -size % BLOCK


@dataclass(frozen=True)
class ShardIndex:
    """Where the n samples of one tar lie.

    Attributes:
        table: int64 `(n, 3)`: where each picture (or spectrum) begins, its bytes, and its key as a number. The label
            vector is the next member.
        identity: the tar that this was found to be true of.
    """

    table: _INTS
    identity: Identity

    @classmethod
    def open(cls, path: Path, tar: Handle, samples: int, extension: str, label_bytes: int) -> ShardIndex:
        """Parse the index at `path`: 0.5 us a sample.

        Args:
            label_bytes: size of a label vector's member.

        Raises:
            JobError: it does not describe `samples` pairs of members, one after another, that fill the tar.
        """
        try:
            if path.stat().st_size > _LONGEST_LINE * (samples + 1):
                raise ValueError(f"{path.stat().st_size:,} bytes for {samples} samples")
            content = path.read_bytes()
            first, _, body = content.partition(b"\n")
            if first.split() != [b"v1.2", str(samples).encode()]:
                raise ValueError(f"begins with {first[:40].decode('ascii', 'replace')!r}, not v1.2 {samples}")
            table = _parse(body)
            if table.num_rows != samples or set(table["f0"].unique().to_pylist()) != {extension}:
                raise ValueError(f"{table.num_rows} lines of {table['f0'].unique().to_pylist()}")
            offset, size, labels = (table[name].to_numpy() for name in ("f1", "f2", "f5"))
            rows = _keys(table, extension)
            _check_places(offset, size, labels, table["f6"].to_numpy(), label_bytes, tar.identity.size)
        except (OSError, ValueError, pa.ArrowException) as error:
            if is_environment(error):
                assert isinstance(error, OSError)
                raise JobError(one_line(error)) from None
            what = shortened(error, 150)
            raise JobError(f"{path}: not the index of its archive ({what}); run `make shards` again") from None
        return cls(np.column_stack([offset, size, rows]), tar.identity)


def _keys(table: pa.Table, extension: str) -> _INTS:
    """The keys as numbers; ValueError where the two members of a sample are not named alike, as they should be."""
    names = pc.utf8_slice_codeunits(table["f7"], 0, KEY_DIGITS)
    for column, suffix in (("f3", extension), ("f7", "npy")):
        if not pc.all(pc.equal(table[column], pc.binary_join_element_wise(names, suffix, "."))).as_py():
            raise ValueError(f"a member is not named KEY.{suffix}")
    if set(table["f4"].unique().to_pylist()) != {"npy"} or not pc.all(pc.match_substring_regex(names, _KEY)).as_py():
        raise ValueError("not pairs of a sample and its labels")
    return np.asarray(names.cast(pa.int64()).to_numpy())


def _check_places(offset: _INTS, size: _INTS, labels: _INTS, label_size: _INTS, label_bytes: int, total: int) -> None:
    """ValueError unless the members lie one after another from the first byte on, and inside the archive."""
    if not len(size):
        return
    if size.min() < 0 or size.max() > total or (label_size != label_bytes).any():
        raise ValueError("members of an impossible size")
    lengths = np.column_stack([size, label_size])
    ends = np.cumsum(BLOCK + lengths + -lengths % BLOCK).reshape(-1, 2)
    if (ends - lengths - -lengths % BLOCK != np.column_stack([offset, labels])).any() or ends[-1, 1] > total:
        raise ValueError("members that do not follow one another")


def _parse(body: bytes) -> pa.Table:
    """The lines of a DALI index as columns f0 to f7: extension, offset, size, name, twice."""
    names = [f"f{i}" for i in range(8)]
    types = {name: pa.int64() if i % 4 in (1, 2) else pa.string() for i, name in enumerate(names)}
    return pa_csv.read_csv(
        io.BytesIO(body),
        read_options=pa_csv.ReadOptions(column_names=names, use_threads=False),
        parse_options=pa_csv.ParseOptions(delimiter=" ", quote_char=False),
        convert_options=pa_csv.ConvertOptions(column_types=types),
    )
