"""Which split a spectrum takes, by a hash of what the split belongs to: the same everywhere, for any order of files.

sky       a cell of the sky: what lies together falls together
object    the finest cells: nearly every object by itself, with all its visits
row       the spectrum: survey, id and name of the file; visits of one object fall apart, as in the published code
a group   the value of a column: a plate, a field, a site

By sky and by object a spectrum without a position goes by its survey and id, and by a group one without a value.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from specshards.common.errors import UsageError
from specshards.common.further import TEXT, as_column, further_name
from specshards.common.identity import Hashes, id_hashes
from specshards.common.text import printable
from specshards.ingest.spectra.folder import SpectraFolder, read_positions
from specshards.ingest.spectra.repeats import read_names
from specshards.ingest.spectra.schema import HEALPIX_ORDER
from specshards.shards.format.manifest import ShardConfig

Splits = npt.NDArray[np.int8]

#: The finest cells are 13 arcseconds wide: six times what visits of one object may lie apart.
FINEST = 16_384


def columns(config: ShardConfig) -> list[str]:
    """The columns of a sidecar that `splits_of` needs."""
    if config.group is not None:
        return list(dict.fromkeys(["survey", "object_id", config.group]))
    return ["_healpix_29", "survey", "object_id", *(["source_file"] if config.split_by == "row" else [])]


def splits_of(table: pa.Table, config: ShardConfig) -> Splits:
    """The split of each row of a table with `columns`, as a position in `SPLITS`: int8 `(n,)`."""
    return chosen(split_keys(table, config), config)


def split_keys(table: pa.Table, config: ShardConfig) -> Hashes:
    """What the split of each row belongs to, as a number: uint64 `(n,)`."""
    if config.group is None and config.split_by == "row":
        # The path of a file depends on where the data lie, its name does not.
        names = pc.replace_substring_regex(table["source_file"].cast(pa.string()), "^.*/", "")
        return id_hashes(table["survey"], pc.binary_join_element_wise(table["object_id"], names, "\0"))
    if config.group is not None:
        texts = _group(table, config.group)
        keys = id_hashes(pa.chunked_array([pa.repeat(config.group, len(texts))]), texts)
    else:
        keys = _cells(cells_of(table), config)
    if (by_id := goes_by_id(table, config)).any():
        keys = np.where(by_id, id_hashes(table["survey"], table["object_id"]), keys)
    return keys


def goes_by_id(table: pa.Table, config: ShardConfig) -> npt.NDArray[np.bool_]:
    """Which rows have nothing but their id to be split by: no position, or no value of the group; bool `(n,)`."""
    if config.group is not None:
        return np.asarray(_group(table, config.group).is_null().to_numpy(), np.bool_)
    if config.split_by == "row":
        return np.zeros(len(table), np.bool_)
    return cells_of(table) < 0


def cells_of(table: pa.Table) -> npt.NDArray[np.int64]:
    """The HEALPix index of each row at order 29, -1 where there is no position: int64 `(n,)`."""
    return np.asarray(table["_healpix_29"].fill_null(-1).to_numpy(), np.int64)


def group_column(names: list[str], group: str, where: object) -> str:
    """The column that a group names.

    Raises:
        UsageError: there is none, with those that there are.
    """
    if group in names:
        return group
    if further_name(group) in names:  # as the catalogue spells it
        return further_name(group)
    shown = ", ".join(printable(name) for name in names)
    raise UsageError(f"{where}: --group {printable(group)}: there is no such column; there are {shown}")


def _group(table: pa.Table, name: str) -> pa.ChunkedArray:
    """The values of a group's column as text, a number as `5` or `0.25`; null where there is none."""
    if name not in table.column_names:  # a further column is not in every file
        return pa.chunked_array([pa.nulls(len(table), pa.string())])
    texts = as_column(table[name], TEXT)
    return pc.if_else(pc.is_in(texts, value_set=pa.array(["", "nan", "inf", "-inf"])), None, texts)


def assign_splits(healpix_29: npt.NDArray[np.int64], config: ShardConfig) -> Splits:
    """The split of each object by the cell that it lies in, as a position in `SPLITS`: int8, the shape of the input.

    A split belongs to a cell of the sky, not to an object, so that repeated visits of a star, and the same star in
    two surveys, fall together (but for stars within an arcsecond of a cell's border).
    """
    return chosen(_cells(healpix_29, config), config)


def chosen(keys: Hashes, config: ShardConfig) -> Splits:
    """The split of each key: int8, the shape of the input."""
    fraction = splitmix64(keys, config.seed) / 2.0**64
    edges = np.cumsum(config.split)[:-1]
    return np.asarray(np.searchsorted(edges, fraction, side="right"), dtype=np.int8)


def read_rows(source: SpectraFolder, file: str, config: ShardConfig) -> pa.Table:
    """`columns`, `ra` and `dec` of the rows of a file of spectra.

    Raises:
        JobError: the file is damaged. UsageError: ids that are none.
    """
    ra, dec, healpix = read_positions(source.folder, file)
    places = {"ra": ra, "dec": dec, "_healpix_29": healpix}
    by_cell = config.group is None and config.split_by == "sky" and bool((healpix >= 0).all())
    names = {} if by_cell else read_names(source, file, config.group)
    return pa.table({**places, **names})


def cell_nside(config: ShardConfig) -> int:
    """HEALPix nside of the cells."""
    return FINEST if config.split_by == "object" else config.split_nside


def _cells(healpix_29: npt.NDArray[np.int64], config: ShardConfig) -> Hashes:
    order = int(cell_nside(config)).bit_length() - 1
    return (healpix_29 >> (2 * (HEALPIX_ORDER - order))).astype(np.uint64)


def splitmix64(values: npt.NDArray[np.uint64], seed: int) -> npt.NDArray[np.float64]:
    """A hash of values and seed (Steele, Lea & Flood 2014), as float64: the same everywhere, unlike `hash()`."""
    with np.errstate(over="ignore"):
        x = values + np.uint64(0x9E3779B97F4A7C15) * np.uint64(seed + 1)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x ^= x >> np.uint64(31)
    return x.astype(np.float64)
