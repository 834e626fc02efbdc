"""LAMOST low-resolution files, in three layouts of its releases, from a simulated visit."""

from __future__ import annotations

import datetime
import gzip

import numpy as np

from specshards.ingest.mock.files.fitsbytes import Card, Number, header, padded, table
from specshards.ingest.mock.instrument import LOG_STEP, median_sn
from specshards.ingest.mock.lines import Array
from specshards.ingest.mock.objects import Entry, Visit

CATALOGUE = ("obsid", "class", "subclass", "snrg", "teff", "logg", "feh", "ra", "dec", "z")

_BANDS = {"U": (3700, 3960), "G": (4000, 5400), "R": (5600, 6900), "I": (6950, 8150), "Z": (8250, 9050)}
_MISSING = -9999.0


def obsid(entry: Entry) -> int:
    """LAMOST's number of a spectrum: plan, spectrograph and fibre in decimal digits."""
    return (9000 + entry.plate) * 100_000 + entry.spectrograph * 1000 + entry.fibre


def _release(entry: Entry) -> str:
    if entry.layout == "table":
        return f"MOCK DR{9 + entry.index % 3}"
    return f"MOCK DR{5 + entry.index % 4}"


def _designation(ra: float, dec: float) -> str:
    seconds = round(ra / 15.0 * 3600.0, 2) % 86400.0
    arc = round(abs(dec) * 3600.0, 1)
    east = f"{int(seconds // 3600):02d}{int(seconds // 60) % 60:02d}{seconds % 60:05.2f}"
    north = f"{int(arc // 3600):02d}{int(arc // 60) % 60:02d}{arc % 60:04.1f}"
    return f"LAMOST J{east}{'-' if dec < 0 else '+'}{north}"


def band_sn(visit: Visit) -> dict[str, float]:
    """Median S/N per pixel in the bands U, G, R, I, Z, as the mock pipeline states it."""
    e = visit.exposure
    result = {}
    for band, (low, high) in _BANDS.items():
        part = (e.wave > low) & (e.wave < high)
        result[band] = max(round(median_sn(e.flux[part], e.ivar[part]), 2), 0.0)
    return result


def _cards(visit: Visit, first: list[Card], snr: dict[str, float], has_norm: bool) -> list[Card]:
    """The primary header, keys and order as in the releases; `first` are the mandatory cards of the
    layout."""
    old = visit.entry.layout == "dr1"
    return [
        *first, *_file_cards(visit.entry, old, has_norm), *_observation_cards(visit, old),
        *_reduction_cards(visit.exposure.coeff0), *_result_cards(visit, old, snr),
    ]  # fmt: skip


def _file_cards(entry: Entry, old: bool, has_norm: bool) -> list[Card]:
    stem = entry.name.rsplit("/", 1)[-1].split(".fits")[0]
    cards: list[Card] = [("COMMENT", "", "--------FILE INFORMATION"), ("FILENAME", f"{stem}.fits", "")]
    if not old:
        cards.append(("OBSID", obsid(entry), "Unique number ID of this spectrum"))
    cards.append(("AUTHOR", "specshards mock", "Who compiled the information"))
    if not old:
        cards.append(("DATA_V", _release(entry), "Data release version"))
    if old:
        cards += [("N_EXTEN", 1, "The extension number")]
        cards += [("EXTEN0", "Flux Inverse Subcontinuum Andmask Ormask", "")]
    elif entry.layout == "table":
        cards += [("N_EXTEN", 2, "The amount of extension")]
        cards += [("NORM", int(has_norm), "1 if there exists a normalized spectrum")]
    else:
        cards += [("EXTEN0", "Flux, Inverse, Wavelength, Andmask, Ormask", "")]
        cards += [("N_EXTEN", 1, "The extension number"), ("EXTNAME", "Flux", "The extension name")]
    return [
        *cards,
        ("ORIGIN", "specshards mock", "Not an observation: a simulated spectrum"),
        ("DATE", "2000-01-01T00:00:00", "Time when this HDU is created (UTC)"),
    ]


def _observation_cards(visit: Visit, old: bool) -> list[Card]:
    entry = visit.entry
    night = datetime.date(1858, 11, 17) + datetime.timedelta(days=entry.mjd)
    return [
        ("COMMENT", "", "--------TELESCOPE PARAMETERS"),
        ("TELESCOP", "MOCK", "No telescope"),
        ("COMMENT", "", "--------OBSERVATION PARAMETERS"),
        ("DATE-OBS", f"{night.isoformat()}T12:00:00", "The observation median UTC"),
        ("LMJD", entry.mjd, "Local Modified Julian Day"),
        ("MJD", entry.mjd - 1, "Modified Julian Day"),
        ("PLANID", f"MOCK{entry.plate:04d}", "Plan ID in use"),
        ("RA", Number(f"{visit.ra:.6f}"), "[deg] Right ascension of object"),
        ("DEC", Number(f"{visit.dec:.6f}"), "[deg] Declination of object"),
        ("DESIG", _designation(visit.ra, visit.dec), "Designation of LAMOST target"),
        ("FIBERID", entry.fibre, "Fiber ID of Object"),
        ("OBJNAME", f"MOCK{entry.object_index:07d}", "Name of object"),
        ("FIBERTYP" if old else "FIB_TYPE", "Obj", "Fiber type of object"),
        ("OBS_TYPE", "OBJ", "The type of target (OBJ, FLAT, ARC or BIAS)"),
        ("RADECSYS", "FK5", "Equatorial coordinate system"),
        ("EQUINOX", Number("2000.00"), "Equinox in years"),
        ("COMMENT", "", "--------SPECTROGRAPH PARAMETERS"),
        ("SPID", entry.spectrograph, "Spectrograph ID"),
    ]


def _reduction_cards(coeff0: float) -> list[Card]:
    return [
        ("COMMENT", "", "--------DATA REDUCTION PARAMETERS"),
        ("HELIO", True, "Heliocentric correction"),
        ("HELIO_RV", Number("0.00000"), "[km/s] Heliocentric correction"),
        ("VACUUM", True, "Wavelengths are in vacuum"),
        ("NWORDER", 2, "Number of linear-log10 coefficients"),
        ("WFITTYPE", "LOG-LINEAR", "Linear-log10 dispersion"),
        ("COEFF0", Number(f"{coeff0:.4f}"), "Central wavelength (log10) of first pixel"),
        ("COEFF1", Number(f"{LOG_STEP:.4f}"), "Log10 dispersion per pixel"),
        ("WAT0_001", "system=linear", ""),
        ("WAT1_001", "wtype=linear label=Wavelength units=Angstroms", ""),
        ("CRVAL1", Number(f"{coeff0:.4f}"), "Central wavelength (log10) of first pixel"),
        ("CD1_1", Number(f"{LOG_STEP:.4f}"), "Log10 dispersion per pixel"),
        ("CRPIX1", 1, "Starting pixel (1-indexed)"),
        ("CTYPE1", "LINEAR", ""),
        ("DC-FLAG", 1, "Log-linear flag"),
    ]


def _result_cards(visit: Visit, old: bool, snr: dict[str, float]) -> list[Card]:
    target, known = visit.source, visit.known
    kind = target.kind if known else "Unknown"
    subclass = target.subclass if known and target.kind == "STAR" else "Non"
    z, z_err = (visit.z, visit.z_err) if known else (_MISSING, _MISSING)
    cards: list[Card] = [
        ("COMMENT", "", "--------SPECTRA ANALYSIS RESULTS"),
        ("VERSPIPE", "mock", "Version of Pipeline"),
        ("CLASS", kind, "Class of object"),
        ("SUBCLASS", subclass, "Subclass of object"),
        ("Z", Number(f"{z:.8f}"), "Redshift of object"),
        ("Z_ERR", Number(f"{z_err:.8f}"), "Redshift error of object"),
    ]
    for band, value in snr.items():
        shown = min(value, 99.0) if old else value
        key = f"SN_{band}" if old else f"SNR{band}"
        cards.append((key, Number(f"{shown:.2f}"), f"SNR of {band.lower()} filter"))
    return cards


def _continuum(flux: Array, reach: int = 150) -> Array:
    """Running mean over 2 `reach` + 1 pixels, kept off zero."""
    total = np.concatenate(([0.0], np.cumsum(flux)))
    at = np.arange(flux.size)
    low, high = np.maximum(at - reach, 0), np.minimum(at + reach + 1, flux.size)
    mean = (total[high] - total[low]) / (high - low)
    return np.where(np.abs(mean) > 1e-3, mean, 1e-3)


def build(visit: Visit) -> tuple[bytes, dict[str, object] | None]:
    """The file's bytes (gzipped where its name says so) and its catalogue row, None when it cannot have one.

    No row for a file without OBSID (DR1 layout) nor for one whose class the mock pipeline did not find.
    """
    entry, e, rng = visit.entry, visit.exposure, visit.rng
    snr = band_sn(visit)
    true_snrg = snr["G"]
    if rng.random() < 0.02:
        snr["UGRIZ"[int(rng.integers(5))]] = _MISSING
    flux = np.full_like(e.flux, np.nan) if entry.damage == "all NaN" else e.flux
    ivar = np.zeros_like(e.ivar) if entry.damage == "no ivar" else e.ivar
    andmask, ormask = (e.hit | (ivar == 0)).astype(np.float64), e.rejected.astype(np.float64)
    ormask = np.maximum(andmask, ormask)
    size = flux.size
    first: list[Card] = [("SIMPLE", True, "Primary Header created by specshards mock")]
    if entry.layout == "table":
        has_norm = bool(rng.random() >= 0.02)
        normal = flux / _continuum(flux) if has_norm else np.full(size, _MISSING)
        first += [("BITPIX", 16, ""), ("NAXIS", 0, "Number of array dimensions"), ("EXTEND", True, "")]
        columns = {
            "FLUX": flux, "IVAR": ivar, "WAVELENGTH": e.wave,
            "ANDMASK": andmask, "ORMASK": ormask, "NORMALIZATION": normal,
        }  # fmt: skip
        row = np.zeros(1, dtype=[(name, ">f4", (size,)) for name in columns])
        for name, values in columns.items():
            row[name][0] = values
        head = header(_cards(visit, first, snr, has_norm))
        data = b"" if entry.damage == "primary only" else table(row, "COADD")
    else:
        if entry.layout == "dr1":
            third = flux / _continuum(flux)
            if rng.random() < 0.2:
                third[int(rng.integers(size))] = 3000.0 + 1000.0 * rng.random()
        else:
            third = e.wave
        empty = entry.damage == "primary only"
        axes: list[Card] = [("NAXIS1", size, ""), ("NAXIS2", 5, "")]
        first += [("BITPIX", -32, ""), ("NAXIS", 0 if empty else 2, "Number of array dimensions")]
        first += [*([] if empty else axes), ("EXTEND", True, "")]
        head = header(_cards(visit, first, snr, False))
        rows = np.stack([flux, ivar, third, andmask, ormask]).astype(">f4")
        data = b"" if empty else padded(rows.tobytes())
    content = head + data
    if entry.name.endswith(".gz"):
        content = gzip.compress(content, 1, mtime=0)
    if entry.layout == "dr1" or not visit.known or entry.damage:
        return content, None
    target = visit.source
    return content, {
        "obsid": obsid(entry), "class": target.kind,
        "subclass": target.subclass if target.kind == "STAR" else "Non", "snrg": f"{true_snrg:.2f}",
        "teff": target.teff, "logg": target.logg, "feh": target.feh,
        "ra": visit.ra, "dec": visit.dec, "z": target.z,
    }  # fmt: skip
