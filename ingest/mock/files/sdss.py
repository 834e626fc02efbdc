"""SDSS spec-lite files in the layouts of its releases, from a simulated visit."""

from __future__ import annotations

from typing import Any

import numpy as np

from specshards.ingest.mock.files.fitsbytes import Card, Number, header, table
from specshards.ingest.mock.instrument import LOG_STEP, median_sn
from specshards.ingest.mock.lines import GALAXY_EMISSION
from specshards.ingest.mock.objects import Entry, Visit

CATALOGUE = ("specobjid", "class", "subclass", "z", "teff", "logg", "feh", "ra", "dec")

# Bits of and_mask and or_mask (SDSS spectroscopic bitmask SPPIXMASK).
FULLREJECT, PARTIALREJECT, NOSKY, BRIGHTSKY, NODATA, COMBINEREJ = (1 << b for b in (18, 19, 22, 23, 24, 25))

_RUN2D = {"specobj": "26", "specobj-boss": "v5_7_0", "spall": "v5_13_2", "upper": "v5_13_0"}
_SKY, _SMALL_DELTA_CHI2, _NEGATIVE_MODEL = 1, 4, 8  # bits of ZWARNING


def _run2d_number(run2d: str) -> int:
    if run2d.isdigit():
        return int(run2d)
    n, m, p = (int(part) for part in run2d.removeprefix("v").split("_"))
    return (n - 5) * 10_000 + m * 100 + p


def specobjid(entry: Entry) -> int:
    """SDSS's 64-bit id: plate, fibre, MJD - 50000 and RUN2D in bits 50, 38, 24, 10. Unsigned: it passes
    int64."""
    run2d = _run2d_number(_RUN2D[entry.layout])
    return (9000 + entry.plate) << 50 | entry.fibre << 38 | (entry.mjd - 50000) << 24 | run2d << 10


def _primary(visit: Visit) -> bytes:
    entry, e, rng = visit.entry, visit.exposure, visit.rng
    plate_dec = float(np.clip(visit.dec + rng.uniform(-1.0, 1.0), -89.0, 89.0))
    plate_ra = (visit.ra + rng.uniform(-1.0, 1.0) / np.cos(np.deg2rad(visit.dec))) % 360.0
    cards: list[Card] = [
        ("SIMPLE", True, "conforms to FITS standard"),
        ("BITPIX", 8, "array data type"),
        ("NAXIS", 0, "number of array dimensions"),
        ("EXTEND", True, ""),
        ("ORIGIN", "specshards mock", "Not an observation: a simulated spectrum"),
        ("TELESCOP", "MOCK", "No telescope"),
        ("FLAVOR", "science", "exposure type, SDSS spectro style"),
        ("MJD", entry.mjd, "MJD of observation"),
        ("NAME", f"{9000 + entry.plate}-{entry.mjd}-01", "The name of the currently loaded plate"),
        ("PLATEID", 9000 + entry.plate, "The currently loaded plate"),
        ("RA", Number(f"{plate_ra:.6f}"), "RA of telescope boresight (deg)"),
        ("DEC", Number(f"{plate_dec:.6f}"), "Dec of telescope boresight (deg)"),
        ("EQUINOX", Number("2000.00"), ""),
        ("RADECSYS", "FK5", ""),
        ("RUN2D", _RUN2D[entry.layout], "Spectro-2D reduction name"),
        ("HELIO_RV", Number("0.0"), "Heliocentric correction (added to velocities)"),
        ("VACUUM", True, "Wavelengths are in vacuum"),
        ("NWORDER", 2, "Linear-log10 coefficients"),
        ("WFITTYPE", "LOG-LINEAR", "Linear-log10 dispersion"),
        ("COEFF0", Number(f"{e.coeff0:.4f}"), "Central wavelength (log10) of first pixel"),
        ("COEFF1", Number(f"{LOG_STEP:.6f}"), "Log10 dispersion per pixel"),
        ("DC-FLAG", 1, "Log-linear flag"),
        ("BUNIT", "1E-17 erg/cm^2/s/Ang", ""),
        ("PLUG_RA", Number(f"{visit.ra:.6f}"), "RA of object [deg]"),
        ("PLUG_DEC", Number(f"{visit.dec:.6f}"), "dec of object [deg]"),
        ("FIBERID", entry.fibre, "Fiber number (1-1000)"),
    ]
    return header(cards)


def _coadd(visit: Visit) -> bytes:
    entry, e, rng = visit.entry, visit.exposure, visit.rng
    names = ["flux", "loglam", "ivar", "and_mask", "or_mask", "wdisp", "sky", "model"]
    if entry.layout == "upper":
        names = [name.upper() for name in names]
    types = ("f4", "f4", "f4", "i4", "i4", "f4", "f4", "f4")
    size = e.flux.size
    lost = e.ivar == 0
    and_mask = np.zeros(size, dtype=np.int32)
    for pixels, bit in ((e.hit, FULLREJECT), (lost & ~e.hit, NODATA), (e.bright, BRIGHTSKY)):
        and_mask[pixels] |= bit
    or_mask = and_mask.copy()
    or_mask[e.rejected] |= PARTIALREJECT | COMBINEREJ
    if entry.kind == "SKY" or rng.random() < 0.3:
        edge = int(rng.integers(5, 60))
        and_mask[:edge] |= NOSKY
        or_mask[:edge] |= NOSKY
    rows = np.zeros(size, dtype=list(zip(names, types, strict=True)))
    flux = np.full(size, np.nan) if entry.damage == "all NaN" else e.flux
    ivar = np.zeros(size) if entry.damage == "no ivar" else e.ivar
    wdisp = 0.9 + 0.1 * np.sin(np.arange(size) / size * 6.0)
    for name, values in zip(
        names, (flux, np.log10(e.wave), ivar, and_mask, or_mask, wdisp, e.sky, e.truth), strict=True
    ):
        rows[name] = values
    return table(rows, None if entry.layout == "upper" else "COADD")


def _one_row(columns: dict[str, tuple[str, object]]) -> np.ndarray[Any, np.dtype[np.void]]:
    row = np.zeros(1, dtype=[(name, kind) for name, (kind, _) in columns.items()])
    for name, (kind, value) in columns.items():
        if kind[0] == "S":  # the surveys pad with spaces
            row[name] = str(value).ljust(int(kind[1:])).encode("ascii")
        else:
            row[name] = value
    return row


def _labels(visit: Visit) -> bytes:
    """HDU 2: the columns of SPECOBJ or SPALL that matter, in their order, with their types."""
    entry, e, rng, target = visit.entry, visit.exposure, visit.rng, visit.source
    legacy = entry.layout.startswith("specobj")
    sky = target.kind == "SKY"
    kind = "QSO" if sky else target.kind  # the real pipeline too names a class for a sky fibre
    warning = _SKY | _SMALL_DELTA_CHI2 if sky else 0
    z, subclass = visit.z, target.subclass
    if not sky and rng.random() < 0.02:
        warning = _SMALL_DELTA_CHI2 if rng.random() < 0.7 else _NEGATIVE_MODEL
        if kind != "STAR" and rng.random() < 0.5:
            z = float(rng.uniform(0.0, 5.0))  # a catastrophic redshift, flagged as such
    sn = median_sn(e.flux, e.ivar)
    # Truth is in the catalogue; the ELODIE columns hold a fit, or 0.0 = missing, as in the real files.
    fitted = kind == "STAR" and rng.random() < 0.8
    elodie = rng.normal((target.teff, target.logg, target.feh), (60.0, 0.1, 0.06)) if fitted else np.zeros(3)
    text = legacy or entry.layout == "spall"  # upper-case files have strings just as long as their content
    wide = {"CLASS": 6, "SUBCLASS": 21, "OBJTYPE": 16, "RUN2D": 7, "PROGRAMNAME": 23}

    def string(name: str, value: str) -> tuple[str, object]:
        return f"S{wide[name] if text else max(len(value), 1)}", value

    columns: dict[str, tuple[str, object]] = {}
    if legacy:
        columns["SURVEY"] = ("S6", "mock")
        columns["INSTRUMENT"] = ("S4", "BOSS" if entry.layout == "specobj-boss" else "SDSS")
    columns["PROGRAMNAME"] = string("PROGRAMNAME", "specshards mock")
    if legacy:
        columns["TARGETTYPE"] = ("S8", "SKY" if sky else "SCIENCE")
    columns["SPECPRIMARY"] = ("u1", 1 if entry.visit == 1 else 0)
    columns["SPECOBJID"] = ("S22", f"{specobjid(entry):>22d}") if legacy else ("u8", specobjid(entry))
    columns |= {
        "RUN2D": string("RUN2D", _RUN2D[entry.layout]),
        "PLUG_RA": ("f8", visit.ra),
        "PLUG_DEC": ("f8", visit.dec),
        "PLATE": ("i4", 9000 + entry.plate),
        "MJD": ("i4", entry.mjd),
        "FIBERID": ("i4", entry.fibre),
        "OBJTYPE": string("OBJTYPE", "SKY" if sky else "NA"),
        "CLASS": string("CLASS", kind),
        "SUBCLASS": string("SUBCLASS", "" if sky else subclass),
        "Z": ("f4", z),
        "Z_ERR": ("f4", visit.z_err),
        "ZWARNING": ("i4", warning),
        "SN_MEDIAN_ALL": ("f4", sn),
        "Z_NOQSO": ("f4", 0.0 if entry.layout == "specobj" else z),
        "ELODIE_TEFF": ("f4", elodie[0]),
        "ELODIE_LOGG": ("f4", elodie[1]),
        "ELODIE_FEH": ("f4", elodie[2]),
    }
    name = {"specobj": "SPECOBJ", "specobj-boss": "SPECOBJ", "spall": "SPALL"}.get(entry.layout)
    return table(_one_row(columns), name)


def _spzline(visit: Visit) -> bytes:
    """HDU 3, minimal: one row a line, nothing measured (area 0, error -1)."""
    dtype = [
        ("PLATE", "i4"), ("MJD", "i4"), ("FIBERID", "i4"), ("LINENAME", "S13"), ("LINEWAVE", "f8"),
        ("LINEZ", "f4"), ("LINEAREA", "f4"), ("LINEAREA_ERR", "f4"),
    ]  # fmt: skip
    rows = np.zeros(len(GALAXY_EMISSION), dtype=dtype)
    rows["PLATE"], rows["MJD"], rows["FIBERID"] = 9000 + visit.entry.plate, visit.entry.mjd, visit.entry.fibre
    rows["LINENAME"] = [name.encode("ascii") for name in GALAXY_EMISSION]
    rows["LINEWAVE"] = list(GALAXY_EMISSION.values())
    rows["LINEAREA_ERR"] = -1.0
    return table(rows, None if visit.entry.layout == "upper" else "SPZLINE")


def build(visit: Visit) -> tuple[bytes, dict[str, object] | None]:
    """The file's bytes and its catalogue row, None for a sky fibre or a damaged file."""
    entry, target = visit.entry, visit.source
    content = _primary(visit)
    if entry.damage != "primary only":
        content += _coadd(visit) + _labels(visit) + _spzline(visit)
    if target.kind == "SKY" or entry.damage:
        return content, None
    return content, {
        "specobjid": specobjid(entry), "class": target.kind, "subclass": target.subclass, "z": target.z,
        "teff": target.teff, "logg": target.logg, "feh": target.feh, "ra": visit.ra, "dec": visit.dec,
    }  # fmt: skip
