"""MultimodalUniverse tables: Parquet (HATS and Hugging Face) and the raw HDF5 files, one spectrum a row.

The same normalising serves `ingest`, which writes spectra Parquet, and `shards`, which draws straight from tables.

Sources, read for names and meaning: the `build_parent_sample.py` and data set scripts of sdss, desi and lamost in
github.com/MultimodalUniverse/MultimodalUniverse (padding, masks, labels, text of object ids), the HATS cards of
UniverseTBD/mmu_desi_edr_sv3 and mmu_sdss_sdss, and the HATS 1.x directory layout of hats-import. What they hold:

- A column `spectrum`, a struct of lists or a list of structs, or columns `spectrum_flux` and so on; LAMOST calls its
  wavelengths `spectrum_wavelength` and has neither ivar nor mask. Padding to one length: lambda -1 (LAMOST: 0).
- SDSS `ZWARNING`, as bool, is True for a warning. DESI `ZWARN`, as bool, is True for **no** warning in the Hugging
  Face data set (its script negates it) and True for a warning in HATS (converted from HDF5 without negation; the
  card's example, a bright galaxy with z_err 5e-5, has False). HATS files have a column `_healpix_29`, those of
  Hugging Face the metadata `huggingface`; a flag in a file with neither or both is null, and counted as impossible.
- SDSS ids are byte strings with blanks, often as the text of a bytes literal: "b' 4820503933...'".
- SDSS' `survey`, where there is one, is a programme (boss, eboss, segue1); DESI's too (sv3, main).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from specshards.common.errors import BadObjectError
from specshards.common.further import FurtherColumn
from specshards.common.spectrum import NO_IVAR as NO_IVAR
from specshards.common.spectrum import NUMERIC_LABELS, SN_SURVEY, SURVEY_SN, Spectrum
from specshards.ingest.ids import exact_ids, id_text, is_text, refuse_multiples
from specshards.ingest.surveys import elodie, mmu_extras, spellings
from specshards.ingest.surveys.common import checked, error, label, number, position, positive, said_class, text
from specshards.ingest.surveys.declared import Declared, frame_of
from specshards.ingest.surveys.flux import declared_unit
from specshards.ingest.surveys.further import further_columns, said
from specshards.ingest.surveys.lists import Lists
from specshards.ingest.surveys.survey import Reader, with_files
from specshards.ingest.surveys.wavelengths import UnknownUnitError as UnknownUnitError
from specshards.ingest.surveys.wavelengths import medium_of, settled
from specshards.ingest.tables import UNSTATED, Stated, TableFile

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
        parts: flux, ivar, lambda, mask -> field or column; without those that the table lacks.
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


def recognise(file: TableFile) -> str | None:
    """The layout of a table, or None.

    Raises:
        BadObjectError: it is this program's own spectra Parquet, in which there is nothing to ingest.
    """
    if is_own(file):
        raise BadObjectError("spectra Parquet already: draw it with `specshards shards build --spectra`")
    columns = Columns.of(file)
    return None if columns is None else columns.layout


def is_own(file: TableFile) -> bool:
    """Whether this program wrote the file."""
    return _OWN in file.metadata


def survey_of(file: TableFile) -> str:
    """Whose spectra a recognised table holds: one name, several joined by " and ", or `unknown`."""
    columns = Columns.of(file)
    return UNKNOWN if columns is None else " and ".join(surveys(file, columns))


def surveys(file: TableFile, columns: Columns) -> tuple[str, ...]:
    """Every survey in a table, sorted; reads the column `survey` where there is one."""
    inferred = columns.survey if columns.survey != UNKNOWN else file.survey or UNKNOWN
    if "survey" not in columns.labels:
        return (inferred,)
    name = columns.labels["survey"]
    found = {value for table in file.slices([name]) for value in table[name].unique().to_pylist()}
    return tuple(sorted({_survey(value, inferred) for value in found})) or (inferred,)


def refuse_rounded_ids(file: TableFile, name: str) -> None:
    """Look at all ids, in column `name`, before anything is made of a table.

    Raises:
        BadObjectError: they may have been rounded; the whole table is bad, because nobody can tell which of them.
    """
    is_named = is_text(file.schema.field(name).type)
    for table in file.slices([name]):
        refuse_multiples(table[name], name)
        if not is_named:
            exact_ids(table[name], name)


def read(file: TableFile, layout: str, source_file: str) -> Iterator[Spectrum | BadObjectError]:
    """Every row of a table, in order: a spectrum, or why it is none.

    Raises:
        BadObjectError: ids that may have been rounded.
    """
    columns = Columns.of(file)
    assert columns is not None and columns.layout == layout  # `recognise` has seen it
    refuse_rounded_ids(file, columns.labels["object_id"])
    first = 0
    for table in file.slices(columns.all, columns.all_inside):
        yield from spectra(table, columns, source_file, first, file.survey, file.stated)
        first += len(table)


def spectra(
    table: pa.Table,
    columns: Columns,
    source_file: str,
    first_row: int,
    survey: str | None = None,
    stated: Stated = UNSTATED,
) -> Iterator[Spectrum | BadObjectError]:
    """Exactly one item for each row of a slice: a spectrum without its padding, or why there is none.

    Args:
        first_row: number of the slice's first row in its file.
        survey: whose rows these are where neither they nor their columns say so.
        stated: of the wavelengths, by the user.
    """
    arrays = {part: Lists.of(table, columns.nested, columns.parts[part], part == "mask") for part in columns.parts}
    lsf = None if columns.lsf is None else Lists.of(table, columns.nested, columns.lsf)
    rows = table.select(list(dict.fromkeys(columns.labels.values()))).to_pylist()
    more = {name: table[column].to_pylist() for name, column in columns.more.items()}
    units = {name: column.unit for name, column in columns.further.items() if column.unit is not None}
    named = table[columns.labels["object_id"]]
    # A text that is no id is that row's fault.
    ids = (named if is_text(named.type) else exact_ids(named, columns.labels["object_id"])).to_pylist()
    inferred = columns.survey if columns.survey != UNKNOWN else survey or UNKNOWN
    for index, row in enumerate(rows):
        values = {our: row[name] for our, name in columns.labels.items()}
        try:
            if (name := id_text(ids[index], columns.labels["object_id"])) is None:
                raise BadObjectError("no object_id")
            values["object_id"] = name
            spectrum = _spectrum(
                arrays, index, values, columns, inferred, source_file, first_row + index, stated, lsf
            )
            for name, column in more.items():
                spectrum.labels[name] = said(column[index], columns.further[name].kind)
            if spectrum.frame == "rest":
                spectrum.velocity = mmu_extras.velocity(spectrum.labels)
            spectrum.units = units
            yield spectrum
        except BadObjectError as fault:
            fault.row, fault.layout = first_row + index, columns.layout
            yield fault


def _spectrum(
    arrays: dict[str, Lists], index: int, values: dict[str, Any], columns: Columns, inferred: str, source: str,
    row: int, stated: Stated, lsf: Lists | None = None,
) -> Spectrum:  # fmt: skip
    flux, ivar, wavelength, mask, inside = _pixels(arrays, index)
    survey = _survey(values.get("survey"), inferred)
    frame = _frame(values.get("frame"), columns.declared)
    if values.get("frame") is None and columns.declared.frame is None:
        frame = mmu_extras.frame(survey, "frame" in columns.labels) or frame
    sigma = None if lsf is None or not lsf.valid[index] else lsf.row(index)[inside]
    ra, dec = position(values.get("ra"), values.get("dec"), is_exact=True)
    spectrum = checked(
        Spectrum(
            object_id=values["object_id"], survey=survey, release=None,
            ra=ra, dec=dec, flux=flux, ivar=np.ones_like(flux) if ivar is None else ivar, wavelength=wavelength,
            mask=~np.isfinite(flux) if mask is None else mask, layout=columns.layout, source_file=source,
            label_source="table", labels=_labels(values, columns.true_is_good), row=row,
            survey_sn={name: number(values.get(name)) for name in (*SURVEY_SN, SN_SURVEY)}, has_ivar=ivar is not None,
            flux_unit=declared_unit(text(values.get("flux_unit")) or columns.declared.flux_unit),
            flux_scale=_scale(values.get("flux_scale"), columns.declared), frame=frame,
            wavelength_unit=_unit(wavelength, columns.declared, stated, frame),
            medium=medium_of(columns.declared.medium, stated.medium or columns.medium),
            lsf_sigma=None if sigma is None else mmu_extras.lsf_sigma(sigma, wavelength, survey),
        )
    )  # fmt: skip
    if ivar is None:
        # The ones above were for `checked`; in a file they would pass for a measurement.
        spectrum.ivar = np.full_like(spectrum.flux, np.nan)
    return spectrum


def _scale(value: Any, declared: Declared) -> float:
    """What a flux is to be multiplied by; 1 where row and table say nothing. BadObjectError: no number above 0."""
    value = declared.flux_scale if value is None else value
    if value is None:
        return 1.0
    scale = positive(number(value))
    if scale is None or isinstance(value, bool):
        raise BadObjectError(f"flux_scale is {value!r}, no number above 0: null stands for 1")
    return scale


def _frame(value: Any, declared: Declared) -> str:
    """`observed` or `rest`, by a row's own word or its table's."""
    return frame_of(value) or frame_of(declared.frame) or "observed"


def _unit(wavelength: npt.NDArray[Any], declared: Declared, stated: Stated, frame: str) -> str:
    low, high = sorted((float(wavelength[0]), float(wavelength[-1])))
    return settled(low, high, declared.wavelength_unit, stated.wavelength_unit, is_rest=frame == "rest")


def check_unit(file: TableFile, columns: Columns) -> str:
    """The unit of the wavelengths of a table, by its first spectrum; their medium is looked at as well.

    Raises:
        BadObjectError: nobody can tell.
    """
    medium_of(columns.declared.medium, file.stated.medium)
    of_wavelengths = replace(columns, parts={"lambda": columns.parts["lambda"]})
    where = of_wavelengths.nested or columns.parts["lambda"]
    frames = [name for our, name in columns.labels.items() if our == "frame"]
    for table in file.slices([where, *frames], of_wavelengths.inside, 0 if file.parser == "parquet" else None, 0, 1):
        lists = Lists.of(table, columns.nested, columns.parts["lambda"])
        real = lists.row(0) if lists.valid[0] else np.empty(0)
        real = real[real > 0]
        if len(real):
            value = table[frames[0]][0].as_py() if frames else None
            return _unit(real, columns.declared, file.stated, _frame(value, columns.declared))
    return "angstrom"


def _pixels(arrays: dict[str, Lists], index: int) -> tuple[Any, Any, Any, Any, slice]:
    """Flux, ivar (or None), wavelength and mask (or None) of a row, cut to what lies between the padding; and where
    that is."""
    found = {part: lists.row(index) for part, lists in arrays.items()}
    lengths = {part: len(values) for part, values in found.items()}
    if len(set(lengths.values())) != 1:
        raise BadObjectError("inconsistent lengths: " + ", ".join(f"{part} {n}" for part, n in lengths.items()))
    real = np.flatnonzero(found["lambda"] > 0)
    if not len(real):
        raise BadObjectError("no wavelengths: nothing but padding")
    inside = slice(real[0], real[-1] + 1)
    # Copies: `checked` writes to them, and a few rows kept must not keep a whole slice of the file.
    flux, wavelength = found["flux"][inside].copy(), found["lambda"][inside].copy()
    ivar = found["ivar"][inside].copy() if "ivar" in found else None
    return flux, ivar, wavelength, found["mask"][inside].copy() if "mask" in found else None, inside


def _labels(values: dict[str, Any], true_is_good: bool | None) -> dict[str, Any]:
    labels = {
        "class": said_class(values.get("class")),
        "subclass": text(values.get("subclass")),
        "zwarning": _zwarning(values.get("zwarning"), true_is_good),
    }
    for name in ("z", "teff", "logg", "feh"):
        labels |= {name: label(values.get(name)), f"{name}_err": error(values.get(f"{name}_err"))}
    of_star = elodie.labels(values.get, labels["class"])[0]  # where the table has no other
    return labels | {name: value for name, value in of_star.items() if labels[name] is None}


def _zwarning(value: Any, true_is_good: bool | None) -> Any:
    """The survey's bits, or 0 and 1 (good and bad) where only a flag is left of them; the flag itself, which `sift`
    takes away and counts, where nobody can tell its sense."""
    return int(value != true_is_good) if isinstance(value, bool) and true_is_good is not None else label(value)


def _survey(value: Any, inferred: str) -> str:
    name = (text(value) or "").lower()
    return next((survey.name for survey in with_files() if name in survey.programmes), name) or inferred


def survey_names(column: pa.ChunkedArray, inferred: str) -> pa.ChunkedArray:
    """The survey of each row, from a column of programmes; `inferred` where it does not say."""
    said = column.combine_chunks().dictionary_encode()
    said = said.combine_chunks() if isinstance(said, pa.ChunkedArray) else said
    names = pa.array([_survey(value, inferred) for value in said.dictionary.to_pylist()], pa.string())
    return pa.chunked_array([names.take(said.indices).fill_null(inferred)])


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
    return {part: names[name] for part, name in found.items() if name}


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


READER = Reader(recognise, read, takes="table", survey_of=survey_of)
