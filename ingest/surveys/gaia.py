"""Gaia: sampled BP and RP spectra (XP), mean spectra of the radial-velocity spectrometer (RVS), XP coefficients.

Sources: the data model of Gaia DR3 (`xp_sampled_mean_spectrum`, `rvs_mean_spectrum`, `xp_continuous_mean_spectrum`),
whose tables DataLink serves as CSV, ECSV, FITS and VOTable, and the files of GaiaXPy, which samples coefficients.

- RAW tables have a row a source, flux and its error as lists and no wavelengths: XP is from 336 to 1020 nm in steps
  of 2 (343 samples), RVS from 846 to 870 nm in steps of 0.01 (2,401). INDIVIDUAL and COMBINED ones have a row a
  sample, the source's id in a parameter, or in the file's name alone.
- XP flux is in W / m2 / nm, observed frame. RVS is over its continuum and at rest; its velocity is in `gaia_source`.
- Wavelengths are in vacuum.
- `xp_continuous_mean_spectrum` has coefficients of base functions: `gaiaxpy`, where it is installed, samples them.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from specshards.common.errors import BadObjectError, shortened
from specshards.common.spectrum import Spectrum
from specshards.ingest.archives import split
from specshards.ingest.fits.direct import FitsFile
from specshards.ingest.ids import id_text
from specshards.ingest.limits import check_pixels
from specshards.ingest.listing import open_input, size_of
from specshards.ingest.plain import PlainTable
from specshards.ingest.plain.cells import numbers_in
from specshards.ingest.surveys.common import GridLimits, checked, number, position, text
from specshards.ingest.surveys.flux import RELATIVE, cgs_factor, declared_unit, inverse_variance
from specshards.ingest.surveys.survey import Reader, Survey, register

SURVEY = "gaia"
XP, RVS, COEFFICIENTS = "gaia-xp-sampled", "gaia-rvs", "gaia-xp-continuous"
#: W / m2 / nm, as astropy writes it.
XP_UNIT = "W / (nm m2)"

#: nm.
XP_GRID = np.arange(336.0, 1021.0, 2.0)
RVS_GRID = np.round(846.0 + 0.01 * np.arange(2401), 2)
_GRIDS = {len(XP_GRID): (XP, XP_GRID), len(RVS_GRID): (RVS, RVS_GRID)}
_LIMITS = {XP: GridLimits(3_000.0, 11_000.0, 1e-5, 2e-2), RVS: GridLimits(8_400.0, 8_750.0, 5e-6, 5e-5)}

_ROW, _SAMPLES = {"source_id", "flux", "flux_error"}, {"wavelength", "flux", "flux_error"}
_OF_COEFFICIENTS = {"source_id", "bp_coefficients", "rp_coefficients"}
_IN_NAME = re.compile(r"(?:gaia[ _+-]*e?dr\d[ _+-]*|source_id[ _=+-]*)(\d{1,19})(?!\d)", re.I)
#: Further labels of `gaia_source`.
LABELS = {
    "mh_gspphot": "dex", "azero_gspphot": "mag", "ag_gspphot": "mag", "ebpminrp_gspphot": "mag",
    "distance_gspphot": "pc", "parallax": "mas", "parallax_error": "mas", "radial_velocity": "km / s",
    "radial_velocity_error": "km / s", "phot_g_mean_mag": "mag", "bp_rp": "mag", "ruwe": "",
}  # fmt: skip


class _Source(NamedTuple):
    """One source as a file has it.

    Attributes:
        name: its source_id. flux, error: `(N,)`. wavelength: nm, None for the survey's grid. unit: of flux, declared.
    """

    name: Any
    ra: Any
    dec: Any
    flux: Any
    error: Any
    wavelength: Any = None
    unit: str | None = None


def _row(columns: Mapping[str, Any], at: int, grid: Any, unit: str | None) -> _Source:
    """Of a table with a row a source."""
    values = {name: column[at] for name, column in columns.items()}
    wave = values.get("wavelength")
    return _Source(
        values["source_id"], values.get("ra"), values.get("dec"), values["flux"], values["flux_error"],
        grid if wave is None else wave, unit,
    )  # fmt: skip


def _samples(name: Any, ra: Any, dec: Any, columns: Mapping[str, Any], unit: str | None) -> _Source:
    """Of a table with a row a sample."""
    return _Source(name, ra, dec, columns["flux"], columns["flux_error"], columns["wavelength"], unit)


def recognise(file: FitsFile) -> str | None:
    """The layout of an open FITS file, or None."""
    for index in range(1, min(len(file), 3)):
        if (names := file[index].names) >= _OF_COEFFICIENTS:
            return COEFFICIENTS
        if names >= _ROW and file[index].shape[0] >= 1:
            length = np.size(file[index].column("flux")[0])
            return _of_length(length) or (XP if _sampling(file[index].header.get("SAMPLING")) is not None else None)
        if names >= _SAMPLES and len(names) <= 4:
            return _of_wavelengths(file[index].column("wavelength"))
    return None


def recognise_plain(table: PlainTable) -> str | None:
    """The layout of a table of text or a VOTable, or None."""
    names = {name.lower() for name in table.names}
    if names >= _OF_COEFFICIENTS:
        return COEFFICIENTS
    if names >= _ROW:
        first = next(iter(table.slices(1)), None)
        if first is None:
            return None
        try:
            length = len(numbers_in(_columns(first)["flux"][0]))
        except BadObjectError:
            return None
        return _of_length(length) or (XP if _sampling(table.meta.get("sampling")) is not None else None)
    is_small = size_of(table.path) < 1 << 22
    return _of_wavelengths(table.column(_named(table, "wavelength"))) if names == _SAMPLES and is_small else None


def _of_length(n: int) -> str | None:
    return _GRIDS[n][0] if n in _GRIDS else None


def _of_wavelengths(values: Any) -> str | None:
    """The layout of a table with a row a sample: its wavelengths are exactly the survey's."""
    values = np.asarray(values)
    if values.dtype.kind not in "fiu" or len(values) not in _GRIDS:
        return None
    layout, grid = _GRIDS[len(values)]
    return layout if np.allclose(values, grid, rtol=0, atol=1e-3) else None


def _sampling(said: Any) -> npt.NDArray[np.float64] | None:
    """The wavelengths that GaiaXPy writes beside its spectra: nm."""
    if said is None:
        return None
    try:
        return numbers_in(np.atleast_1d(said) if not isinstance(said, str) else said)
    except BadObjectError:
        return None


def _named(table: PlainTable, name: str) -> str:
    return next(column for column in table.names if column.lower() == name)


def _columns(rows: Any) -> dict[str, Any]:
    """Of some rows of a plain table, what is read: by name in lower case."""
    names = {name.lower(): name for name in rows.table.names}
    wanted = [name for name in ("ra", "dec", "flux", "flux_error", "wavelength") if name in names]
    return {name: rows.column(names[name]) for name in wanted} | {"source_id": rows.text(names["source_id"])}


def read(file: FitsFile, layout: str, source_file: str) -> Iterator[Spectrum | BadObjectError]:
    """Every source of a FITS file.

    Raises:
        BadObjectError: nothing in it can be read.
    """
    if layout == COEFFICIENTS:
        yield from _calibrated(file.path, source_file)
        return
    row = 0
    for index in range(1, len(file)):
        hdu = file[index]
        units = {text(hdu.header.get(f"TTYPE{i}")): text(hdu.header.get(f"TUNIT{i}")) for i in range(1, 200)}
        if hdu.names >= _ROW:
            columns = {
                name: hdu.column(name) for name in (*sorted(_ROW | _SAMPLES), "ra", "dec") if name in hdu.names
            }
            grid = _sampling(hdu.header.get("SAMPLING"))
            for at in range(hdu.shape[0]):
                source = _row(columns, at, grid, units.get("flux"))
                yield _item(source, layout, source_file, row)
                row += 1
        elif hdu.names >= _SAMPLES:
            header = hdu.header
            name = header.get("SOURCE_ID") or file[0].header.get("SOURCE_ID") or _of_name(file.path)
            samples = {part: hdu.column(part) for part in _SAMPLES}
            source = _samples(name, header.get("RA"), header.get("DEC"), samples, units.get("flux"))
            yield _item(source, layout, source_file, row)
            row += 1


def read_plain(table: PlainTable, layout: str, source_file: str) -> Iterator[Spectrum | BadObjectError]:
    """Every source of a table of text or of a VOTable, in slices of rows.

    Raises:
        BadObjectError: nothing in it can be read.
    """
    if layout == COEFFICIENTS:
        yield from _calibrated(table.path, source_file)
        return
    if table.kind == "votable":
        for row, source in enumerate(_of_votable(table.path)):
            yield _item(source, layout, source_file, row)
        return
    if "source_id" not in {name.lower() for name in table.names}:
        name = table.meta.get("source_id") or _of_name(table.path)
        ra, dec = (table.meta.get(key) for key in ("ra", "dec"))
        samples = {part: table.column(_named(table, part)) for part in _SAMPLES}
        unit = table.units.get(_named(table, "flux"))
        yield _item(_samples(name, ra, dec, samples, unit), layout, source_file, 0)
        return
    unit, grid = table.units.get(_named(table, "flux")), _sampling(table.meta.get("sampling"))
    for rows in table.slices(256):
        columns = _columns(rows)
        for at in range(rows.rows):
            yield _item(_row(columns, at, grid, unit), layout, source_file, rows.first + at)


def _of_votable(path: Path) -> Iterator[_Source]:
    """The sources of every table of a VOTable: DataLink's COMBINED has one of each."""
    from astropy.io.votable import parse

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its style
        with open_input(path) as file:
            votable = parse(file, verify="ignore")
        resources = [(resource, table) for resource in votable.resources for table in resource.tables]
    for resource, table in resources:
        fields = {field.name.lower(): field for field in table.fields}
        params = {param.name.lower(): param.value for param in (*resource.params, *table.params)}
        if not fields.keys() >= {"flux", "flux_error"}:
            continue
        data = {name: table.array[field.ID or field.name] for name, field in fields.items()}
        unit = None if fields["flux"].unit is None else str(fields["flux"].unit)
        if "source_id" in data:
            grid = _sampling(params.get("sampling"))
            for at in range(len(table.array)):
                yield _row(data, at, grid, unit)
        elif "wavelength" in data:
            name = params.get("source_id") or _of_name(path)
            yield _samples(name, params.get("ra"), params.get("dec"), data, unit)


def _of_name(path: Path | None) -> str | None:
    """The source_id in a name such as `XP_SAMPLED-Gaia DR3 5853498713190525696.csv`."""
    match = None if path is None else _IN_NAME.search(path.name)
    return None if match is None else match[1]


def _item(source: _Source, layout: str, source_file: str, row: int) -> Spectrum | BadObjectError:
    try:
        return _spectrum(source, layout, source_file, row)
    except BadObjectError as fault:
        fault.row, fault.layout = row, layout
        return fault


def _spectrum(source: _Source, layout: str, source_file: str, row: int) -> Spectrum:
    name = id_text(source.name, "source_id")
    if name is None:
        raise BadObjectError("no source_id, neither in the table nor in the file's name")
    flux, sigma = numbers_in(source.flux), numbers_in(source.error)
    check_pixels(len(flux))
    wave = None if source.wavelength is None else numbers_in(source.wavelength)
    if wave is None:
        if _of_length(len(flux)) != layout:
            raise BadObjectError(f"{len(flux)} samples without wavelengths, where {layout} has {_size(layout)}")
        wave = _GRIDS[len(flux)][1]
    ivar = np.zeros(len(sigma)) if len(sigma) != len(flux) else inverse_variance(sigma)
    ra, dec = position(_plain(source.ra), _plain(source.dec), is_exact=True)
    return checked(
        Spectrum(
            object_id=name,
            survey=SURVEY,
            release=None,
            ra=ra,
            dec=dec,
            flux=flux,
            ivar=ivar if len(sigma) == len(flux) else np.zeros(len(sigma)),
            wavelength=wave.copy(),
            mask=~np.isfinite(flux),
            layout=layout,
            source_file=source_file,
            row=row,
            flux_unit=_unit(source.unit, layout),
            wavelength_unit="nm",
            frame="rest" if layout == RVS else "observed",
            units=LABELS,
        ),
        _LIMITS[layout],
    )


def _size(layout: str) -> int:
    return next(n for n, (name, _) in _GRIDS.items() if name == layout)


def _plain(value: Any) -> float | None:
    return None if value is None or value is np.ma.masked else number(value)


def _unit(declared: str | None, layout: str) -> str:
    """The unit of flux: what is declared, in the survey's own words where it is the same."""
    usual = RELATIVE if layout == RVS else XP_UNIT
    unit = declared_unit(declared) if (declared or "").strip() not in ("", "-", "None") else None
    return usual if unit is None or (usual != RELATIVE and cgs_factor(unit) == cgs_factor(usual)) else unit


def _calibrated(path: Path | None, source_file: str) -> Iterator[Spectrum | BadObjectError]:
    """XP spectra on the survey's grid, of a file of coefficients, through `gaiaxpy`.

    Raises:
        BadObjectError: it is not installed (`selected_out`), or cannot read the file.
    """
    try:
        from gaiaxpy import calibrate  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        raise BadObjectError(
            "coefficients of XP spectra, which gaiaxpy samples: pip install gaiaxpy, or download XP_SAMPLED in place "
            "of XP_CONTINUOUS",
            selected_out=True,
        ) from None
    if path is not None and split(path) is not None:
        raise BadObjectError("coefficients of XP spectra within an archive, which gaiaxpy cannot open: unpack it")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with redirect_stdout(StringIO()), redirect_stderr(StringIO()):  # it tells of its progress
                spectra, sampling = calibrate(str(path), sampling=XP_GRID, save_file=False)
    except Exception as error:  # of a library that raises whatever a damaged file makes it raise
        raise BadObjectError(f"gaiaxpy cannot sample it: {type(error).__name__}: {shortened(error)}") from error
    for row, (_, one) in enumerate(spectra.iterrows()):
        values: Mapping[str, Any] = one
        source = _Source(int(values["source_id"]), None, None, values["flux"], values["flux_error"], sampling)
        item = _item(source, XP, source_file, row)
        item.layout = COEFFICIENTS
        yield item


def _table_evidence(names: Mapping[str, str]) -> int:
    return 3 * int("source_id" in names and ("flux_error" in names or "phot_g_mean_mag" in names))


register(
    Survey(
        SURVEY,
        (Reader(recognise, read), Reader(recognise_plain, read_plain, takes="text")),
        labels=LABELS,
        keys=("source_id", "dr3_source_id", "object_id"),
        table_evidence=_table_evidence,
        # XP: 343 pixels in 400 cells. RVS has more, and gets smaller ones.
        default_image={"window": (3_360.0, 10_200.0), "block": 11},
    )
)
