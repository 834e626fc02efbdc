"""The survey `table`: spectra in tables that nobody has a reader for.

Asked last but one. Which form a table has, its columns tell: one spectrum a file (columns of wavelength and flux),
one a row (lists or vectors of them), or wide (one column a wavelength). What nobody can tell is refused, and says
which option tells it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from specshards.common.errors import BadObjectError
from specshards.common.spectrum import LIMITS, Spectrum
from specshards.common.text import escaped
from specshards.ingest.fits.direct import FitsFile
from specshards.ingest.generic.fitstable import FitsTable
from specshards.ingest.generic.meaning import NAME, Meaning, labels_of, value_of
from specshards.ingest.generic.pixels import Pixels
from specshards.ingest.generic.roles import (
    IDS,
    SEE,
    AmbiguousColumnsError,
    Roles,
    by_place,
    is_plain_error,
    roles_of,
    simple,
    unread,
)
from specshards.ingest.generic.rows import PARTS, further_units, is_vector, of_lists, of_wide
from specshards.ingest.generic.wide import Wide, names_wavelength, unit_said
from specshards.ingest.plain import PlainTable
from specshards.ingest.surveys.survey import Reader, Survey, register

_ENDS = re.compile(
    r"(\.(fits?|gz|csv|tsv|txt|dat|ascii|asc|ecsv|vot|votable|xml|npz|parquet|hdf5|h5))+\Z", re.IGNORECASE
)
_KEY_VALUE = re.compile(r"[#%!/\s]*([A-Za-z][A-Za-z0-9_ -]{0,30}?)\s*[:=]\s*(\S.*?)\s*\Z")
_ASTRONOMICAL = {"ivar", "flux_ivar", "loglam", "log_lambda", "redshift", "teff", "logg", "airmass"}
_FEWEST = 8  # pixels of a spectrum whose columns have no names


class Form(NamedTuple):
    """How a table holds its spectra: `table`, `rows` or `wide`, with the columns."""

    name: str
    roles: Roles
    wide: Wide | None = None


def form_of(table: Any) -> Form | None:
    """The form of a table; None for one without spectra.

    Args:
        table: a `PlainTable` or `FitsTable`.

    Raises:
        BadObjectError: a column that the user names is not there, or one half of a spectrum is.
    """
    stated = table.stated.columns
    if stated is None and table.is_named and (wide := _wide(table)) is not None:
        samples = set(wide.columns)
        return Form("wide", _of_others([name for name in table.names if name not in samples]), wide)
    if not table.is_named:
        roles = by_place(table.names, stated)
        return Form("table", roles) if stated is not None or _looks_right(table, roles) else None
    roles = roles_of(table.names, stated)
    if not roles.has("flux"):
        left = [name for name in roles.others if name != roles.columns.get("id")]
        if not roles.has("wavelength") or table.kind == "fits":
            return None
        if len(left) != 1 or len(table.names) > 2:
            raise BadObjectError(
                f"wavelengths in {roles.columns['wavelength']}, and no column that is called flux: it has "
                f"{', '.join(table.names[:12])}; --columns says which is which; {SEE}",
                kind=f"a table with wavelengths and no column that is called flux; {SEE}",
            )
        roles = Roles({**roles.columns, "flux": left[0]}, {**roles.how, "flux": "guessed"}, roles.said, ())
    if _is_of_vectors(table, roles.columns["flux"]):
        if roles.has("wavelength"):
            return Form("rows", roles)
        if table.stated.wavelengths is not None:
            return Form("rows", roles)
        if table.kind == "fits":
            return None
        raise BadObjectError(
            f"spectra in {roles.columns['flux']} without wavelengths: --wavelengths first:last:step says them, or "
            f"--columns says their column; {SEE}",
            kind=f"spectra without wavelengths; {SEE}",
        )
    return Form("table", roles) if roles.has("wavelength") else None


def _wide(table: Any) -> Wide | None:
    try:
        return Wide.of(table.names, table.stated.wavelengths)
    except BadObjectError as fault:
        roles = roles_of(table.names)
        if not fault.selected_out or not roles.has("wavelength") or roles.has("flux"):
            raise
        wave, first = roles.columns["wavelength"], roles.others[0]
        raise BadObjectError(
            f"wavelengths in {wave}, and a column for each of many samples: --columns {wave},{first} reads one of "
            f"them; turned about, one sample a row, the table is read whole; {SEE}",
            kind=f"one column for each of many samples; {SEE}",
        ) from None


def _of_others(names: list[str]) -> Roles:
    """Roles of the columns that are no wavelengths; an id may share its cell with the word for those."""
    roles = roles_of(names)
    if "id" not in roles.columns:
        shared = next(
            (n for n in names if "/" in n and simple(n.partition("/")[0]) in IDS and names_wavelength(n)), None
        )
        if shared is not None:
            rest = tuple(name for name in roles.others if name != shared)
            return Roles({**roles.columns, "id": shared}, {**roles.how, "id": "named"}, roles.said, rest)
    return roles


def _looks_right(table: PlainTable, roles: Roles) -> bool:
    """Whether columns without names can be wavelength, flux and error: numbers, the first in order."""
    if not roles.has("wavelength", "flux") or len(table.names) > 5:
        return False
    wave = table.column(roles.columns["wavelength"])
    columns = [table.column(roles.columns[part]) for part in ("flux", "error") if part in roles.columns]
    if wave.dtype.kind not in "iuf" or any(values.dtype.kind not in "iuf" for values in columns):
        return False
    steps = np.diff(wave[np.isfinite(wave)])
    return len(steps) >= _FEWEST and bool((steps > 0).all() or (steps < 0).all())


def _is_of_vectors(table: Any, flux: str) -> bool:
    if table.kind == "npz":
        return bool(table.column(flux).ndim == 2)
    if table.kind in ("fits", "votable"):
        values = table.column(flux)
        return values.ndim == 2 or (values.dtype.kind == "O" and len(values) > 0 and is_vector(values[0]))
    rows = next(table.slices(1), None)
    return rows is not None and is_vector(rows.text(flux)[0])


def recognise_text(file: PlainTable) -> str | None:
    """`table-csv`, `rows-ecsv`, `wide-csv`, ...; None for a table without spectra."""
    form = form_of(file)
    return None if form is None else f"{form.name}-{file.kind}"


def recognise_fits(file: FitsFile) -> str | None:
    """`table-fits` or `rows-fits`, of the first table that holds spectra."""
    try:
        return None if (found := _first(file)) is None else f"{found[1].name}-fits"
    except AmbiguousColumnsError:
        raise
    except BadObjectError:
        if file.stated.columns is not None:
            raise
        return None


def _first(file: FitsFile) -> tuple[FitsTable, Form] | None:
    """The first table of a file that holds spectra, and its form."""
    doubt: AmbiguousColumnsError | None = None
    for table in FitsTable.all_of(file):
        try:
            if (form := form_of(table)) is not None:
                return table, form
        except AmbiguousColumnsError as fault:
            doubt = doubt or fault
    if doubt is not None:
        raise doubt
    return None


def read_text(file: PlainTable, layout: str, source_file: str) -> Iterator[Spectrum | BadObjectError]:
    """Every spectrum of a plain table."""
    form = form_of(file)
    assert form is not None  # `recognise_text` has seen it
    yield from _read(file, form, layout, source_file)


def read_fits(file: FitsFile, layout: str, source_file: str) -> Iterator[Spectrum | BadObjectError]:
    """Every spectrum of the first table of a FITS file that holds any."""
    if (found := _first(file)) is not None:
        count = sum(_form_or_none(table) is not None for table in FitsTable.all_of(file))
        remarks = (f"are of the first of {count} tables of spectra in their file",) if count > 1 else ()
        yield from _read(*found, layout, source_file, remarks)


def _form_or_none(table: FitsTable) -> Form | None:
    try:
        return form_of(table)
    except BadObjectError:
        return None


def _read(
    table: Any, form: Form, layout: str, source_file: str, remarks: tuple[str, ...] = ()
) -> Iterator[Spectrum | BadObjectError]:
    said = _said(table)
    unit = None if form.wide is None else form.wide.unit or _unit_of_wide(table, form)
    meaning = Meaning.of(form.roles, table.units, said, table.stated, layout, source_file, unit,
                         is_astronomical=_is_astronomical(table, form))  # fmt: skip
    if form.wide is not None:
        count = (
            f"{len(form.wide.columns):,} columns, {form.wide.columns[0]} to {form.wide.columns[-1]} ({form.wide.how})"
        )
        meaning = replace(meaning, how={**meaning.how, "wavelength": count})
    elif not form.roles.has("wavelength"):
        meaning = replace(meaning, how={**meaning.how, "wavelength": f"{table.stated.wavelengths} (stated)"})
    meaning = replace(meaning, remarks=(*meaning.remarks, *remarks))
    stem = escaped(_ENDS.sub("", table.path.name)) or "spectrum"
    if form.wide is not None:
        yield from of_wide(table, form.wide, form.roles, meaning, stem)
    elif form.name == "rows":
        yield from of_lists(table, form.roles, meaning, stem)
    else:
        yield from _long(table, form.roles, meaning, said, stem)


def _unit_of_wide(table: Any, form: Form) -> str | None:
    """What the other headings and the comments of a wide table say."""
    assert form.wide is not None
    if table.stated.wavelength_unit is not None:
        return None
    samples = set(form.wide.columns)
    heads = [name if name not in table.units else f"{name} ({table.units[name]})" for name in table.names
             if name not in samples]  # fmt: skip
    return unit_said([*heads, *map(str, table.meta.get("comments") or ())], table.names[0])


def _is_astronomical(table: Any, form: Form) -> bool:
    """Whether anything says that a table is an astronomer's, whose wavelengths without a unit are in Angstrom."""
    if table.kind in ("fits", "votable", "ecsv"):
        return True
    if form.wide is not None:
        return False
    names = {simple(name) for name in table.names}
    flux = simple(form.roles.columns["flux"])
    # Columns of blanks without names are the way of IRAF and of published spectra.
    return (
        bool(names & _ASTRONOMICAL)
        or flux.startswith(
            ("flux", "flam", "fnu", "f_lam", "f_nu", "norm_flux", "normali", "rel_flux", "relative_flux")
        )
        or {"ra", "dec"} <= names
        or (table.kind == "ascii" and not table.is_named)
    )


def _long(
    table: Any, roles: Roles, meaning: Meaning, said: Mapping[str, Any], stem: str
) -> Iterator[Spectrum | BadObjectError]:
    """The spectrum of a table of one row a pixel, or those of the objects that its column of ids tells apart."""
    if _is_list(table, roles):
        raise BadObjectError(
            f"a list, of lines perhaps, not a spectrum: every row has a name of its own in {roles.columns['id']}",
            selected_out=True, kind="a list, of lines perhaps, not a spectrum: every row has a name of its own",
        )  # fmt: skip
    pixels = {}
    for part in PARTS:
        if part in roles.columns:
            values = table.column(roles.columns[part])
            if values.ndim != 1 or values.dtype.kind not in "iufb":
                raise BadObjectError(f"column {roles.columns[part]} holds what is no number; {SEE}")
            pixels[part] = values
    labels = {our: value_of(our, said[key]) for key, our in labels_of(tuple(said)).items() if _is_label(our)}
    ours = {column: our for column, our in labels_of(roles.others).items() if _is_label(our)}
    columns = {our: table.column(column) for column, our in ours.items()}
    remarks = unread(
        (name for name in roles.others if name not in ours and _is_of_pixels(name, table.column(name))),
        has_errors=bool({"error", "ivar", "variance"} & pixels.keys()), has_mask="mask" in pixels,
    )  # fmt: skip
    if not table.has_end:
        remarks += ("do not end with the end of a line, and may have been cut there",)
    objects = _objects(table, roles)
    for name, rows in objects:
        try:
            own = {our: value_of(our, values[0]) for our, all_of in columns.items()
                   if len(values := all_of[rows]) and all(v == values[0] for v in values)}  # fmt: skip
            spectrum = meaning.spectrum(
                Pixels(**{part: values[rows] for part, values in pixels.items()}), name or _id_of(stem),
                labels | own, further_units(table), None if len(objects) == 1 else int(rows[0]),
            )  # fmt: skip
            spectrum.remarks += remarks
            yield spectrum
        except BadObjectError as fault:
            if len(objects) == 1:
                raise
            fault.row, fault.layout = int(rows[0]), meaning.layout
            yield fault


def _objects(table: Any, roles: Roles) -> list[tuple[str | None, Any]]:
    """Name and rows of every object of a table of one row a pixel; an id that most rows have alone counts pixels."""
    everything: list[tuple[str | None, Any]] = [(None, slice(None))]
    if "id" not in roles.columns:
        return everything
    found: dict[Any, list[int]] = {}
    for row, name in enumerate(table.text(roles.columns["id"])):
        found.setdefault(name, []).append(row)
    if len(found) == 1:
        return [(next(iter(found)), slice(None))]
    if not 1 < len(found) <= sum(map(len, found.values())) / 2:
        return everything
    if None in found:
        raise BadObjectError(
            f"{len(found[None]):,} rows without an id in {roles.columns['id']}, which tells objects apart; {SEE}"
        )
    return [(name, np.array(rows)) for name, rows in found.items()]


def _is_list(table: Any, roles: Roles) -> bool:
    """Whether the rows of a table have names (not numbers, which may count pixels), nearly each its own."""
    if "id" not in roles.columns or roles.how["id"] == "stated":
        return False
    values = table.column(roles.columns["id"])
    if values.ndim != 1 or values.dtype.kind in "iufb" or len(values) < 2:
        return False
    return len({str(value) for value in values if value is not None}) > len(values) / 2


def _is_of_pixels(name: str, values: Any) -> bool:
    """Whether numbers are one a pixel: they vary, or are errors, which may all be the same."""
    if values.ndim != 1 or values.dtype.kind not in "iuf" or not len(values):
        return False
    return bool((values != values[0]).any()) or is_plain_error(name)


def _is_label(name: str) -> bool:
    return name in LIMITS or name in ("class", "subclass", "ra", "dec")


def _id_of(stem: str) -> str:
    """An object's id from its file's name; of Spectromer's `spec-sdss-CLASS-SUBCLASS-SPECOBJID`, the last."""
    match = re.match(r"spec-sdss-.*-([0-9]{6,})\Z", stem)
    return match[1] if match else stem


def _said(table: Any) -> dict[str, Any]:
    """What a file says besides its columns: keys in lower case."""
    found: dict[str, Any] = {}
    for comment in table.meta.get("comments") or ():
        if (match := _KEY_VALUE.match(str(comment))) is not None:
            found[re.sub(r"[ -]+", "_", match[1].strip().lower())] = match[2].strip("'\"")
    for key, value in table.meta.items():
        if isinstance(value, str | int | float | np.generic) and not isinstance(value, bool):
            found[str(key).lower()] = value
        elif isinstance(value, bool):
            found[str(key).lower()] = "T" if value else "F"
    return found


#: Columns of catalogues that name an object of such a table, or its file.
_KEYS = ("object_id", *(name for name in IDS if name != "object_id"))

register(
    Survey(
        NAME, (Reader(recognise_text, read_text, takes="text"), Reader(recognise_fits, read_fits)), keys=_KEYS,
        priority=-1,
    )
)  # fmt: skip
