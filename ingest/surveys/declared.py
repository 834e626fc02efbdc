"""What a table says of its own spectra: units, medium and frame, wherever its writer put that.

Looked at, in this order: metadata of the Arrow field (`unit`, `medium`), of its extension type, the description that
astropy keeps in Parquet (`table_meta_yaml`), metadata of the table (`wavelength_unit`, `flux_unit`, `medium`,
`frame`), and pandas' `attrs` of the same names. Attributes of an HDF5 array count as metadata of its field. The case
of a key does not matter, and common synonyms are known; what they say is understood or refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from specshards.common.errors import BadObjectError
from specshards.ingest.surveys.common import text
from specshards.ingest.tables import TableFile

_UNIT = ("unit", "units", "tunit", "cunit", "bunit")
_WAVE = ("wavelength", "wave", "lambda", "loglam", "spectral")
_WAVE_UNIT = (*(f"{name}{end}" for name in _WAVE for end in ("_unit", "_units", "unit", "units")), "cunit1", "wunit")
_FLUX_UNIT = ("flux_unit", "flux_units", "fluxunit", "fluxunits", "bunit")
_MEDIUM = ("medium", "wavelength_medium", "wave_medium", "airorvac", "air_or_vac", "air_or_vacuum", "vacuum")
_FRAME = ("frame", "restframe", "rest_frame", "wavelength_frame", "is_rest", "is_restframe", "is_rest_frame")
#: Answers to a key or column such as `restframe` or `VACUUM`, in lower case.
TRUE, FALSE = ("1", "true", "t", "yes", "y"), ("0", "false", "f", "no", "n")
_REST = {*TRUE, "rest", "restframe", "restwavelength", "restwavelengths", "emitted", "emittedframe", "emission",
         "source", "sourceframe"}  # fmt: skip
_OBSERVED = {*FALSE, "observed", "observedframe", "obs", "obsframe", "observer", "observerframe", "observersframe",
             *(name + end for name in ("heliocent", "barycent", "topocent", "geocent") for end in ("", "ric")),
             "heliocentricframe", "barycentricframe"}  # fmt: skip
_OF_POSITIONS = {"icrs", "fk4", "fk5", "galactic"}  # what else a frame may be
_LOGARITHMS = ("loglam",)  # names of wavelengths that say what they are


@dataclass(frozen=True)
class Declared:
    """As it is written; None where nothing is said.

    Attributes:
        wavelength_unit, flux_unit, flux_scale: of all spectra of the table.
        medium: of the wavelengths, for `wavelengths.medium_of`. frame: for `frame_of`.
    """

    wavelength_unit: str | None = None
    flux_unit: str | None = None
    medium: str | None = None
    frame: str | None = None
    flux_scale: str | None = field(default=None, repr=False)  # `repr` is part of old fingerprints

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
        unit = (
            _first(its_wave, *_UNIT, *_WAVE_UNIT)
            or described.get(nested or wave.name)
            or _first(general, *_WAVE_UNIT)
        )
        if unit is None and wave.name.lower().removeprefix("spectrum_") in _LOGARITHMS:
            unit = "log10"
        its_unit = _first(its_flux, *_UNIT, *_FLUX_UNIT) or (None if nested else described.get(flux.name))
        return cls(
            unit, its_unit or _first(general, *_FLUX_UNIT), _medium(its_wave) or _medium(general),
            _first(its_wave, *_FRAME) or _first(general, *_FRAME),
            _first(its_flux, "flux_scale", "scale") or _first(general, "flux_scale"),
        )  # fmt: skip


def frame_of(value: Any) -> str | None:
    """`observed` or `rest`, as a column or metadata say it: in words, or true for the rest frame; None: nothing said.

    Raises:
        BadObjectError: it says something else.
    """
    said = text(value)
    if said is None:
        return None
    letters = re.sub(r"[^a-z0-9]", "", said.removesuffix(".0").lower())
    if letters in _OF_POSITIONS:
        return None
    if letters in _REST or letters in _OBSERVED:
        return "rest" if letters in _REST else "observed"
    raise BadObjectError(f"the frame of the wavelengths is {value!r}, neither rest nor observed: say one of them")


def _medium(said: Mapping[str, str]) -> str | None:
    name = next((name for name in _MEDIUM if said.get(name, "").strip()), None)
    if name == "vacuum" and (answer := said[name].strip().lower()) in (*TRUE, *FALSE):
        return "vacuum" if answer in TRUE else "air"
    return None if name is None else said[name].strip()


def _field(schema: pa.Schema, nested: str | None, name: str) -> pa.Field:
    if nested is None:
        return schema.field(name)
    kind = schema.field(nested).type
    return (kind if pa.types.is_struct(kind) else kind.value_type).field(name)


def _said(field: pa.Field) -> dict[str, str]:
    said = _texts(field.metadata)
    inside = said.get("arrow:extension:metadata", "")
    return {**_json(inside), **said}


def _general(file: TableFile) -> dict[str, str]:
    said = _texts(file.metadata)
    return {**_json(said.get("pandas_attrs", "")), **said}


def _texts(metadata: Mapping[bytes, bytes] | None) -> dict[str, str]:
    return _lower_keys(
        {name.decode("utf-8", "replace"): text.decode("utf-8", "replace") for name, text in (metadata or {}).items()}
    )


def _json(text: str) -> dict[str, str]:
    try:
        content = json.loads(text)
    except ValueError:
        return {}
    if not isinstance(content, dict):
        return {}
    return _lower_keys({name: str(value) for name, value in content.items() if isinstance(value, str | int | float)})


def _lower_keys(said: Mapping[str, str]) -> dict[str, str]:
    """By keys in lower case and words joined by _; a key that is written so wins."""
    return {re.sub(r"[ \-]+", "_", name.strip().lower()): value for name, value in said.items()} | {
        name: value for name, value in said.items() if name == name.lower()
    }


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
