"""The columns of a table of spectra, MultimodalUniverse's or alike: what they are called, and what they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from specshards.common.errors import BadObjectError
from specshards.common.further import FurtherColumn
from specshards.common.spectrum import NO_IVAR, NUMERIC_LABELS, SN_SURVEY, SURVEY_SN
from specshards.ingest.surveys import elodie, mmu_extras, spellings
from specshards.ingest.surveys.declared import Declared
from specshards.ingest.surveys.errors import errors_of
from specshards.ingest.surveys.further import further_columns
from specshards.ingest.surveys.survey import with_files
from specshards.ingest.tables import TableFile

UNKNOWN = "unknown"
STRUCT = "mmu-struct"
LIST = "mmu-list"  # of structs
FLAT = "mmu-flat"
HDF5 = "mmu-hdf5"

#: Part of a layout's name that says what its spectra lack: without ivar every pixel with a finite flux is drawn.
NO_MASK = "-no-mask"

_OWN = b"specshards.schema_version"
_PARTS = {"flux": ("flux",), "ivar": ("ivar",), "lambda": ("lambda", "wavelength", "loglam"), "mask": ("mask",)}
_NAMES = {
    "object_id": ("object_id", "specobjid", "targetid", "obsid"),
    "survey": ("survey",),
    "ra": ("ra", "target_ra", "plug_ra"),
    "dec": ("dec", "target_dec", "plug_dec"),
    "class": ("class", "spectype"),
    "subclass": ("subclass", "subtype"),
    "z": ("z", "redshift"),
    "z_err": ("z_err", "zerr"),
    "zwarning": ("zwarning", "zwarn"),
    SN_SURVEY: (SN_SURVEY, "snmedian"),
    "flux_unit": ("flux_unit",),
    "flux_scale": ("flux_scale",),
    "frame": ("frame", "restframe"),
    **{f"elodie_{name}": (f"elodie_{name}", f"elodie{name}") for name in (*elodie.NAMES, "dof")},
    **{name + end: (name + end,) for name in ("teff", "logg", "feh") for end in ("", "_err")},
}
_LABEL_NAMES = [name for name in _NAMES if name in ("class", "subclass", *NUMERIC_LABELS)]
_NOTHING = Declared()
_OF_HATS = {"_healpix_29", "_hipscat_index"}  # columns


@dataclass(frozen=True)
class Columns:
    """What a table calls what we need.

    Attributes:
        layout: one of the layouts above, with `NO_IVAR` and `NO_MASK` where they apply.
        nested: the column of structs, or None where every part is a column of its own.
        parts: flux, ivar, lambda, mask -> field or column; without those that the table lacks. For ivar it may be one
            of errors of another kind, as its name says.
        labels: our name -> column.
        survey: whose rows these are, by the columns; `unknown` where they do not say.
        true_is_good: the sense of a boolean `zwarning`; None where nobody can tell.
        declared: what the table says of its units, medium and frame.
        more: further labels: name -> column. further: what is known of them.
        lsf: the field or column with the line-spread function; None without.
        medium: of the wavelengths where the table says nothing, by its fields.
    """

    layout: str
    nested: str | None
    parts: dict[str, str]
    labels: dict[str, str]
    survey: str
    true_is_good: bool | None
    declared: Declared = field(default=_NOTHING, repr=False)  # `repr` is part of old fingerprints
    more: dict[str, str] = field(default_factory=dict, repr=False)
    further: dict[str, FurtherColumn] = field(default_factory=dict, repr=False)
    lsf: str | None = field(default=None, repr=False)
    medium: str | None = field(default=None, repr=False)

    @property
    def read(self) -> tuple[str, ...]:
        """The columns to read."""
        return (*((self.nested,) if self.nested else self.parts.values()), *self.labels.values())

    @property
    def all(self) -> tuple[str, ...]:
        """`read`, and the columns of further labels and of the line-spread function."""
        lsf = [] if self.nested or self.lsf is None else [self.lsf]
        return tuple(dict.fromkeys([*self.read, *self.more.values(), *lsf]))

    @property
    def all_inside(self) -> tuple[str, ...]:
        """`inside`, and the line-spread function."""
        return (*self.inside, *((self.lsf,) if self.nested and self.lsf else ()))

    @property
    def inside(self) -> tuple[str, ...]:
        """The fields to read of the column of structs."""
        return tuple(self.parts.values()) if self.nested else ()

    @classmethod
    def of(cls, file: TableFile) -> Columns | None:
        """Find them, whatever the case of their names; None for a table without ids, flux or wavelengths."""
        names = _by_lower_case(file.schema.names)
        nested, layout, parts, others = _parts(file, names)
        labels = {our: names[their] for our, many in _NAMES.items() if (their := _first(many, names))}
        labels |= {our: names[their] for our, their in spellings.of_stars(names).items()}
        labels |= {name: names[name] for name in SURVEY_SN if name in names}
        if not {"flux", "lambda"} <= parts.keys() or "object_id" not in labels:
            return None
        _refuse_two(file.schema.names)
        for name in labels.values():
            if pa.types.is_struct(kind := file.schema.field(name).type) or pa.types.is_map(kind):
                raise BadObjectError(f"column {name} holds {kind}, where one number or text a row belongs")
        missing = (NO_IVAR if "ivar" not in parts else "") + (NO_MASK if "mask" not in parts else "")
        true_is_good = _true_is_good(file, labels.get("zwarning"))
        declared = Declared("angstrom", medium="vacuum") if is_own(file) else Declared.of(file, nested, parts)
        more, further = further_columns(file.schema, _taken(labels))
        survey = _survey_by_columns(names)
        lsf, medium = others.get(mmu_extras.LSF), None if is_own(file) else mmu_extras.medium(others)
        return cls(
            layout + missing, nested, parts, labels, survey, true_is_good, declared, more, further, lsf, medium
        )


def _taken(labels: dict[str, str]) -> set[str]:
    """The columns that are labels, and nothing further; `fe_h`, which is taken for feh, stays under its own name."""
    return {name for our, name in labels.items() if our not in spellings.OF_STARS or name.lower() == our}


def _true_is_good(file: TableFile, name: str | None) -> bool | None:
    if name is None or name.lower() != "zwarn":
        return False
    if not pa.types.is_boolean(file.schema.field(name).type):
        return not file.in_hats  # not asked for, but part of old fingerprints
    in_hats = file.in_hats or not _OF_HATS.isdisjoint(map(str.lower, file.schema.names))
    of_hugging_face = b"huggingface" in file.metadata
    return None if in_hats == of_hugging_face else of_hugging_face


def is_own(file: TableFile) -> bool:
    """Whether this program wrote the file."""
    return _OWN in file.metadata


def _survey_by_columns(names: dict[str, str]) -> str:
    surest = max(with_files(), key=lambda survey: survey.table_evidence(names))
    return surest.name if surest.table_evidence(names) else UNKNOWN


def _parts(file: TableFile, names: dict[str, str]) -> tuple[str | None, str, dict[str, str], dict[str, str]]:
    """The column of structs (or None), the layout, part -> field or column, and all of them by name in lower case."""
    nested = names.get("spectrum")
    if nested is not None:
        kind = file.schema.field(nested).type
        layout, fields = STRUCT, kind
        if _is_list(kind):
            layout, fields = LIST, kind.value_type
        if not pa.types.is_struct(fields):
            return None, layout, {}, {}
        inner = {field.name: field.type for field in fields}
        lists = {name for name, its_type in inner.items() if layout == LIST or _is_list(its_type)}
        low = _by_lower_case(sorted(lists))
        return nested, layout, _named(low, ""), low
    lists = {name for name in file.schema.names if _is_list(file.schema.field(name).type)}
    low = _by_lower_case(sorted(lists))
    others = {name.removeprefix("spectrum_"): column for name, column in low.items() if name.startswith("spectrum_")}
    return None, HDF5 if file.parser == "hdf5" else FLAT, _named(low, "spectrum_"), others


def _named(names: dict[str, str], prefix: str) -> dict[str, str]:
    found = {part: _first([prefix + name for name in many], names) for part, many in _PARTS.items()}
    parts = {part: names[name] for part, name in found.items() if name}
    if "ivar" not in parts and "flux" in parts:  # errors of another kind, which become inverse variances
        inside = {name.removeprefix(prefix): column for name, column in names.items() if name.startswith(prefix)}
        if (errors := errors_of("flux", inside)) is not None:
            parts["ivar"] = inside[errors[1]]
    return parts


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _by_lower_case(names: Sequence[str]) -> dict[str, str]:
    """Lower-case name -> name; where two differ by case alone, the lower-case one."""
    found: dict[str, str] = {}
    for name in sorted(names):
        if name.lower() not in found or name.islower():
            found[name.lower()] = name
    return found


def _refuse_two(names: Sequence[str]) -> None:
    """BadObjectError where two columns mean one label: `Z` beside `z` may be a metallicity, or a magnitude."""
    for our in _LABEL_NAMES:
        found = [name for name in names if name.lower() in _NAMES[our]]
        if len(found) > 1:
            raise BadObjectError(f"columns {' and '.join(found)} both mean {our}; rename or drop all but one")


def _first(many: Sequence[str], names: dict[str, str]) -> str | None:
    return next((name for name in many if name in names), None)
