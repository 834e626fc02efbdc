"""How fine the cells of the sky are by which a data set is split: fine enough that every split gets its share.

A survey is spread over thousands of cells of the usual size, one deep field over one or two, all of which may fall to
`train`. Then finer cells are taken, until they divide the field as `split` says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from specshards.common.errors import UsageError
from specshards.common.messages import LOGGER
from specshards.shards.format.manifest import SPLITS, ShardConfig
from specshards.shards.write.split import FINEST as FINEST
from specshards.shards.write.split import cell_nside, splits_of

_INTS = npt.NDArray[np.int64]

_DEGREES = np.degrees(np.sqrt(np.pi / 3))

MEND = "use more objects, leave the split out (--split 1,0,0), or say --allow-empty-split"


def fine_enough(
    config: ShardConfig, tables: Callable[[], Iterator[pa.Table]], name: str, allow_empty: bool = False
) -> ShardConfig:
    """The configuration with cells as coarse as its own, or finer where these leave a split short.

    A split is short when it has less than half of its share, or less than chance may leave of a small one, or
    nothing. What was chosen is said in one line. Of a split by object or by row there is nothing to choose: it is
    only refused where it leaves a split without objects.

    Args:
        tables: gives the columns that `splits_of` needs, some objects at a time; called up to twice.
        name: of the data, for the error.
        allow_empty: take the cells as they are.

    Raises:
        UsageError: no cells give every split an object.
    """
    if allow_empty or config.group is not None:  # a group's few values are shared out (`shards.write.visits`)
        return config
    counts = _counts([config], tables)[0]
    if not left_short(counts, config):
        return config
    finer = [replace(config, split_nside=n) for n in _finer(cell_nside(config))] if config.split_by == "sky" else []
    found = _counts(finer, tables)
    wide_enough = [(i, each) for i, each in enumerate(finer) if not left_short(found[i], each)]
    full = [(i, each) for i, each in enumerate(finer) if not _empty(found[i], each)]
    total = int(counts.sum())
    if not wide_enough and not full:
        if not (empty := _empty(counts, config)):
            return config
        raise UsageError(f"{name}: the {empty} split of {total:,} objects would be empty; {MEND}")
    number, chosen = (wide_enough or full)[0]
    short = left_short(counts, config)
    split = SPLITS.index(short)
    LOGGER.info(
        f"split by cells of {width(chosen)} (HEALPix nside {chosen.split_nside}): those of {width(config)} would "
        f"give {short} {counts[split]:,} of {total:,} objects, these {found[number][split]:,}"
    )
    return chosen


def width(config: ShardConfig) -> str:
    """How wide the cells are, for people."""
    degrees = float(_DEGREES / config.split_nside)
    return f"{degrees:.2f} degrees" if degrees >= 0.1 else f"{60 * degrees:.2g} arcminutes"


def _finer(nside: int) -> list[int]:
    return [2 * nside << power for power in range(30) if 2 * nside << power <= FINEST]


def _counts(configs: Sequence[ShardConfig], tables: Callable[[], Iterator[pa.Table]]) -> _INTS:
    """Objects by configuration and split: int64 `(configs, 3)`."""
    counts = np.zeros((len(configs), len(SPLITS)), np.int64)
    for table in tables() if configs else ():
        for row, config in zip(counts, configs, strict=True):
            row += np.bincount(splits_of(table, config), minlength=len(SPLITS))
    return counts


def left_short(counts: _INTS, config: ShardConfig) -> str:
    """The first split that has too few objects; empty where none has."""
    wanted = int(counts.sum()) * np.asarray(config.split)
    # Each object of its own, the counts would scatter by the square root: that is no fault of the cells.
    least = np.maximum(np.minimum(wanted / 2, wanted - 3 * np.sqrt(wanted)), np.asarray(config.split) > 0)
    return next((name for name, n, needed in zip(SPLITS, counts, least, strict=True) if n < needed), "")


def _empty(counts: _INTS, config: ShardConfig) -> str:
    """The first split that has a share, and no object; empty where there is none."""
    return next((s for s, n, share in zip(SPLITS, counts, config.split, strict=True) if share > 0 and not n), "")
