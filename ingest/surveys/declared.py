"""What a table says of its own spectra: units, medium and frame, wherever its writer put that.

Looked at, in this order: metadata of the Arrow field (`unit`, `medium`), of its extension type, the description that
astropy keeps in Parquet (`table_meta_yaml`), metadata of the table (`wavelength_unit`, `flux_unit`, `medium`,
`frame`), and pandas' `attrs` of the same names. Attributes of an HDF5 array count as metadata of its field.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from specshards.ingest.tables import TableFile

_UNIT = ("unit", "units")
_LOGARITHMS = ("loglam",)  # names of wavelengths that say what they are


@dataclass(frozen=True)
class Declared:
    """As it is written; None where nothing is said.

    Attributes:
        wavelength_unit, flux_unit: of all spectra of the table.
        medium: of the wavelengths, `air` or `vacuum`. frame: `observed` or `rest`.
    """

    wavelength_unit: str | None = None
    flux_unit: str | None = None
    medium: str | None = None
    frame: str | None = None

    @classmethod
    def of(cls, file: TableFile, nested: str | None, parts: Mapping[str, str]) -> Declared:
        """What a table says.

        Args:
            nested: the column of structs, if any. parts: flux and lambda -> its field or column.
        """
        general = _general(file)
        wave, flux = (_field(file.schema, nested, parts[part]) for part in ("lambda", "flux"))
        described = _astropy(file)
        its_wave, its_flux = _said(wave), _said(flux)
        unit = _first(its_wave, *_UNIT) or described.get(nested or wave.name) or general.get("wavelength_unit")
        if unit is None and wave.name.lower().removeprefix("spectrum_") in _LOGARITHMS:
            unit = "log10"
        return cls(
            unit,
            _first(its_flux, *_UNIT) or (None if nested else described.get(flux.name)) or general.get("flux_unit"),
            _lower(_first(its_wave, "medium") or general.get("medium"), ("air", "vacuum")),
            _lower(_first(its_wave, "frame") or general.get("frame"), ("observed", "rest")),
        )


def _field(schema: pa.Schema, nested: str | None, name: str) -> pa.Field:
    if nested is None:
        return schema.field(name)
    kind = schema.field(nested).type
    return (kind if pa.types.is_struct(kind) else kind.value_type).field(name)


def _said(field: pa.Field) -> dict[str, str]:
    said = _texts(field.metadata)
    inside = said.get("ARROW:extension:metadata", "")
    return {**_json(inside), **said}


def _general(file: TableFile) -> dict[str, str]:
    said = _texts(file.metadata)
    return {**_json(said.get("PANDAS_ATTRS", "")), **said}


def _texts(metadata: Mapping[bytes, bytes] | None) -> dict[str, str]:
    return {
        name.decode("utf-8", "replace"): text.decode("utf-8", "replace") for name, text in (metadata or {}).items()
    }


def _json(text: str) -> dict[str, str]:
    try:
        content = json.loads(text)
    except ValueError:
        return {}
    return (
        {name: value for name, value in content.items() if isinstance(value, str)}
        if isinstance(content, dict)
        else {}
    )


def _astropy(file: TableFile) -> dict[str, str]:
    """Units by column, as astropy writes them beside a table."""
    text = (file.metadata or {}).get(b"table_meta_yaml")
    if text is None:
        return {}
    from astropy.table.meta import get_header_from_yaml

    try:
        header: dict[str, Any] = get_header_from_yaml(text.decode("utf-8", "replace").splitlines())
        return {str(c["name"]): str(c["unit"]) for c in header["datatype"] if c.get("unit") is not None}
    except Exception:  # of somebody else's damaged or odd text; then nothing is declared
        return {}


def _first(said: Mapping[str, str], *names: str) -> str | None:
    return next((said[name].strip() for name in names if said.get(name, "").strip()), None)


def _lower(text: str | None, known: tuple[str, ...]) -> str | None:
    name = (text or "").strip().lower()
    return name if name in known else None
