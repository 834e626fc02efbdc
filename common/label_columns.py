"""Columns of labels without what no object can have; `common.spectrum.sift` does the same for one object."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from specshards.common.impossible import Impossible
from specshards.common.spectrum import (
    CLASSES,
    LIMITS,
    MISSING_UP_TO,
    NUMBERS,
    POSITION,
    SN_SURVEY,
    SURVEY_SN,
    BoolArray,
    Range,
)


def sifted(table: pa.Table) -> tuple[pa.Table, Impossible]:
    """A table of spectra or samples without the labels that no object can have: null is in their place.

    An error whose value is missing is null, too, and is not counted. Positions stay: the rows are split by them.
    """
    found, names = Impossible(), set(table.column_names)
    for place, name in enumerate(table.column_names):
        lost, counted = _outside(name, table[name])
        if not lost.any():
            continue
        for row in np.flatnonzero(counted).tolist():
            who = table["object_id"][row].as_py() if "object_id" in table.column_names else f"row {row}"
            found.add(name, table[name][row].as_py(), str(who))
        table = table.set_column(place, table.schema.field(name), _without(table[name], lost))
    for label in NUMBERS:
        value, error = label.columns[0], label.columns[-1]
        if not label.has_error or not {value, error} <= names or table[error].null_count == len(table):
            continue
        if table[value].null_count:
            alone = table[value].is_null().to_numpy() & table[error].is_valid().to_numpy()
            if alone.any():
                place = table.column_names.index(error)
                table = table.set_column(place, table.schema.field(error), _without(table[error], alone))
    return table, found


def with_sn_survey(table: pa.Table) -> pa.Table:
    """A table of spectra or samples with the column `sn_survey`, float32; earlier ones do not have it.

    It is made of the survey's own columns, row by row as `common.spectrum.survey_sn_of` does; null where these do not
    tell.
    """
    names = table.column_names
    if SN_SURVEY in names:
        return table
    n = len(table)
    own = {name: _numbers(table, name) for name in SURVEY_SN}
    total = np.zeros(n)
    for name in SURVEY_SN[:5]:
        total += own[name] ** 2
    values = np.where(np.isnan(own["sn_median_all"]), np.sqrt(total), own["sn_median_all"]).astype(np.float32)
    place = names.index(SURVEY_SN[-1]) + 1 if SURVEY_SN[-1] in names else len(names)
    return table.add_column(place, pa.field(SN_SURVEY, pa.float32()), pa.array(values, mask=np.isnan(values)))


def _numbers(table: pa.Table, name: str) -> npt.NDArray[np.float64]:
    """A column of numbers, NaN where there is none: float64 `(rows,)`."""
    if name not in table.column_names:
        return np.full(len(table), np.nan)
    return np.asarray(table[name].cast(pa.float64()).to_numpy(), np.float64)


def possible_numbers(name: str, values: npt.NDArray[np.float64]) -> BoolArray:
    """Which values of a label, or of any other column, an object can have: bool, shape of `values`."""
    limits = _LIMITS.get(name)
    return np.ones(values.shape, np.bool_) if limits is None else limits.holds(values)


def only_possible(vectors: npt.NDArray[np.float64], names: tuple[str, ...]) -> None:
    """Make NaN, in label vectors of these names, what no object can have.

    Args:
        vectors: float64 `(n, len(names))`, written to.
    """
    low, high, special = _bounds(names)
    # NaN is written over NaN, too.
    vectors[~((vectors >= low) & (vectors <= high))] = np.nan
    for place, name in special:
        values = vectors[:, place]
        values[~possible_numbers(name, values)] = np.nan


@lru_cache(maxsize=8)
def _bounds(names: tuple[str, ...]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], list[tuple[int, str]]]:
    limits = [_LIMITS.get(name, Range(-np.inf, np.inf)) for name in names]
    special = [(i, name) for i, name in enumerate(names) if limits[i].never or limits[i].is_whole]
    return np.array([each.low for each in limits]), np.array([each.high for each in limits]), special


_LIMITS = {name: limits for name, limits in LIMITS.items() if name not in {label.name for label in POSITION}}


def _outside(name: str, column: pa.ChunkedArray) -> tuple[BoolArray, BoolArray]:
    """What is to be null in a column, and what of that is to be counted: bool `(rows,)`."""
    none = np.zeros(len(column), np.bool_)
    if column.null_count == len(column):
        return none, none
    if name == "class":
        is_encoded = pa.types.is_dictionary(column.type)
        said = [chunk.dictionary.to_pylist() if is_encoded else chunk.unique().to_pylist() for chunk in column.chunks]
        if all(value in CLASSES or value is None for values in said for value in values):
            return none, none
        lost = np.array([value not in (*CLASSES, None) for value in column.to_pylist()], np.bool_)
        return lost, lost
    if name not in _LIMITS or not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
        return none, none
    values = np.asarray(column.to_numpy(), np.float64)  # null is NaN, and so is missing
    lost = ~possible_numbers(name, values)
    if not lost.any():
        return none, none
    lost &= column.is_valid().to_numpy()
    return lost, lost & (values > MISSING_UP_TO)


def _without(column: pa.ChunkedArray, lost: BoolArray) -> pa.ChunkedArray:
    return pc.if_else(pa.array(lost), pa.scalar(None, column.type), column)
