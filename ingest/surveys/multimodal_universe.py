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

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from specshards.common.errors import BadObjectError
from specshards.common.spectrum import NO_IVAR as NO_IVAR
from specshards.common.spectrum import SN_SURVEY, SURVEY_SN, Spectrum
from specshards.ingest.ids import exact_ids, id_text, is_text, refuse_multiples
from specshards.ingest.surveys import elodie, mmu_extras
from specshards.ingest.surveys.common import checked, error, label, number, position, positive, said_class, text
from specshards.ingest.surveys.declared import Declared, frame_of
from specshards.ingest.surveys.errors import errors_in, ivar_of
from specshards.ingest.surveys.flux import declared_unit
from specshards.ingest.surveys.further import said
from specshards.ingest.surveys.lists import Lists
from specshards.ingest.surveys.mmu_columns import HDF5 as HDF5
from specshards.ingest.surveys.mmu_columns import NO_MASK as NO_MASK
from specshards.ingest.surveys.mmu_columns import STRUCT as STRUCT
from specshards.ingest.surveys.mmu_columns import UNKNOWN as UNKNOWN
from specshards.ingest.surveys.mmu_columns import Columns as Columns
from specshards.ingest.surveys.mmu_columns import is_own as is_own
from specshards.ingest.surveys.survey import Reader, with_files
from specshards.ingest.surveys.wavelengths import UnknownUnitError as UnknownUnitError
from specshards.ingest.surveys.wavelengths import medium_of, settled
from specshards.ingest.tables import UNSTATED, Stated, TableFile


def recognise(file: TableFile) -> str | None:
    """The layout of a table, or None.

    Raises:
        BadObjectError: it is this program's own spectra Parquet, in which there is nothing to ingest.
    """
    if is_own(file):
        raise BadObjectError("spectra Parquet already: draw it with `specshards shards build --spectra`")
    columns = Columns.of(file)
    return None if columns is None else columns.layout


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
    errors = errors_in(columns.parts.get("ivar", "").lower().removeprefix("spectrum_"))
    if errors is not None and errors.kind != "ivar":
        weights = ivar_of(errors.kind, arrays["ivar"].values.astype(np.float64))
        arrays["ivar"] = replace(arrays["ivar"], values=weights)
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


READER = Reader(recognise, read, takes="table", survey_of=survey_of)
