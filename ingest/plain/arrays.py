"""VOTable and npz files as arrays by name."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from specshards.common.errors import BadObjectError, shortened
from specshards.ingest.limits import check_array, too_large
from specshards.ingest.listing import open_input

#: How a VOTable and a zip start.
XML, ZIP = b"<", b"PK\x03\x04"


@dataclass(frozen=True)
class Arrays:
    """What a file holds.

    Attributes:
        columns: name -> `(rows,)`, `(rows, n)`, or any shape (of npz); native byte order, masked floats NaN, masked
            others None in an array of objects.
        units, meta: see `PlainTable`.
    """

    columns: Mapping[str, npt.NDArray[Any]]
    units: Mapping[str, str] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)


def read_npz(path: Path, most_bytes: int) -> Arrays:
    """The arrays of an npz file.

    Raises:
        BadObjectError: damaged, too large, or with Python objects, which are not opened: that can run any program.
    """
    columns: dict[str, npt.NDArray[Any]] = {}
    try:
        with open_input(path) as file, zipfile.ZipFile(file) as archive:
            if sum(member.file_size for member in archive.infolist()) > most_bytes:
                raise too_large("it holds", most_bytes)
        with open_input(path) as file, np.load(file, allow_pickle=False) as archive:
            for name in archive.files:
                columns[name] = _native(np.asarray(archive[name]))
    except ValueError as error:
        if "pickle" in str(error) or "Object arrays" in str(error):
            raise BadObjectError(
                "an npz of Python objects (pickle), which are not opened: they can run any program. Save numbers and "
                "text as arrays of numbers and text; see docs/any-spectrum.md"
            ) from error
        raise BadObjectError(f"damaged npz: {shortened(error)}") from error
    except (zipfile.BadZipFile, EOFError, KeyError, NotImplementedError, RuntimeError, MemoryError) as error:
        raise BadObjectError(f"damaged npz: {shortened(error)}") from error
    return Arrays(columns)


def read_votable(file: IO[bytes], most_bytes: int) -> Arrays:
    """The first table with rows of a VOTable.

    Raises:
        BadObjectError: no VOTable, damaged, or without rows.
    """
    from astropy.io.votable import parse

    content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise too_large("it has", most_bytes)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its style
            votable = parse(BytesIO(content), verify="ignore")
            tables = [table for table in votable.iter_tables() if len(table.array)]
    except Exception as error:  # of a parser that raises whatever its content makes it raise
        raise BadObjectError(f"no VOTable that can be read: {type(error).__name__}: {shortened(error)}") from error
    if not tables:
        raise BadObjectError("a VOTable without rows", selected_out=True)
    table = tables[0]
    columns = {}
    for its_field, name in zip(table.fields, table.array.dtype.names, strict=True):
        check_array(table.array[name].nbytes)
        columns[its_field.name or name] = _native(table.array[name])
    units = {its_field.name: str(its_field.unit) for its_field in table.fields if its_field.unit is not None}
    meta = {param.name: param.value for param in votable.iter_fields_and_params() if hasattr(param, "value")}
    meta["ucds"] = {its_field.name: its_field.ucd for its_field in table.fields if its_field.ucd}
    return Arrays(columns, units, meta)


def _native(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """In native byte order; what is masked is NaN where the type has it, else None among objects."""
    if isinstance(values, np.ma.MaskedArray):
        mask = np.ma.getmaskarray(values)
        if values.dtype.kind == "f":
            values = np.ma.filled(values, np.nan)
        elif values.dtype.kind in "iub" and values.ndim > 1 and mask.any():
            values = np.ma.filled(values.astype(np.float64), np.nan)
        elif values.dtype.kind != "O" and mask.any() and values.ndim == 1:
            found = values.data.astype(object)
            found[mask] = None
            values = found
        else:
            values = np.asarray(values.data)
    kind = values.dtype
    if kind.kind == "S":
        return np.char.decode(values, "utf-8", "replace").astype(object)
    return values.astype(object) if kind.kind == "U" else np.asarray(values, kind.newbyteorder("="))
