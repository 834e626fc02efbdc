"""The independent reading of a file: astropy, pyarrow and h5py alone, by the data models."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

SDSS_BAD = sum(1 << bit for bit in (18, 22, 23, 24, 25, 26, 27, 28))
_PARTS = ("flux", "ivar", "lambda", "mask")
#: flux, ivar (None where there is none), wave: float64; mask: bool; and what is said of the object.
Reading = dict[str, Any]


def readings(path: Path, layout: str) -> list[Reading]:
    """Every object of a file in its order; raises whatever the libraries raise."""
    if layout.startswith("mmu"):
        return tables(path, layout)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with fits.open(path, memmap=False) as hdus:
            if layout in ("sdss-spplate", "iraf-onedspec"):  # the latter of one that lost what tells it
                return plate(hdus)
            if layout.startswith("desi"):
                return columns(hdus) if layout == "desi-columns" else desi(hdus)
            read = {"lamost-mrs": mrs, "sdss-spspec": legacy, "sdss-spec": sdss, "sdss-spec-lite": sdss}.get(
                layout, lamost
            )
            return [read(hdus)]


def floats(values: Any) -> Any:
    return np.asarray(values, np.float64).reshape(-1)


def named_columns(hdu: Any) -> dict[str, Any]:
    """The columns of a table by lower-case name, but for those without one: with such, astropy reads none."""
    for i in range(hdu.header["TFIELDS"]):
        if not hdu.header.get(f"TTYPE{i + 1}"):
            hdu.columns[i].name = f"unnamed {i}"
    return {name.lower(): hdu.data[name] for name in hdu.columns.names if not name.startswith("unnamed ")}


def lamost(hdus: Any) -> Reading:
    header = hdus[0].header
    if hdus[0].data is not None and np.ndim(hdus[0].data) == 2:
        rows = hdus[0].data
        flux, ivar, wave, mask = (floats(row) for row in rows[:4])
        if "avelength" not in header["EXTEN0"] and "AVELENGTH" not in header["EXTEN0"].upper():
            wave = 10.0 ** (header["COEFF0"] + header["COEFF1"] * np.arange(len(flux)))
    else:
        row = hdus[1].data[0]
        flux, ivar, wave, mask = (floats(row[name]) for name in ("FLUX", "IVAR", "WAVELENGTH", "ANDMASK"))
    obsid = header.get("OBSID")
    known = isinstance(obsid, int) and obsid > 0
    return {
        "flux": flux, "ivar": ivar, "wave": wave, "mask": mask != 0, "object_id": str(obsid) if known else None,
        "ra": header.get("RA"), "dec": header.get("DEC"), "z": header.get("Z"), "class": header.get("CLASS"),
    }  # fmt: skip


def sdss(hdus: Any) -> Reading:
    pixels = named_columns(hdus[1])
    # A vector is no label.
    row = {name: values[0] for name, values in named_columns(hdus[2]).items() if np.ndim(values[0]) == 0}
    mask = (np.asarray(pixels["and_mask"]).astype(np.int64) & SDSS_BAD) != 0
    with np.errstate(over="ignore"):
        wave = 10.0 ** floats(pixels["loglam"])
    identifier = str(row.get("specobjid", "")).strip()
    return {
        "flux": floats(pixels["flux"]), "ivar": floats(pixels["ivar"]), "wave": wave, "mask": mask.reshape(-1),
        "object_id": identifier if identifier.isdigit() else None, "ra": row.get("plug_ra"),
        "dec": row.get("plug_dec"), "z": row.get("z"), "class": row.get("class"),
    }  # fmt: skip


def legacy(hdus: Any) -> Reading:
    header, rows = hdus[0].header, hdus[0].data
    flux, sigma, mask = floats(rows[0]), floats(rows[2]), floats(rows[3])
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        ivar = np.where(sigma > 0, 1 / sigma**2, 0.0)
    return {
        "flux": flux, "ivar": ivar, "mask": (mask.astype(np.int64) & SDSS_BAD) != 0,
        "wave": 10.0 ** (header["COEFF0"] + header["COEFF1"] * np.arange(flux.size)),
        "object_id": None, "ra": header["RAOBJ"], "dec": header["DECOBJ"], "z": header.get("Z"), "class": None,
    }  # fmt: skip


def mrs(hdus: Any) -> Reading:
    arms = [named_columns(hdus[f"COADD_{arm}"]) for arm in "BR" if f"COADD_{arm}" in hdus]
    flux, ivar, mask = (np.concatenate([floats(arm[name]) for arm in arms]) for name in ("flux", "ivar", "andmask"))
    with np.errstate(over="ignore"):
        wave = [10.0 ** floats(arm["loglam"]) if "loglam" in arm else floats(arm["wavelength"]) for arm in arms]
    header = hdus[0].header
    obsid = header.get("OBSID")
    known = isinstance(obsid, int) and obsid > 0
    return {
        "flux": flux, "ivar": ivar, "wave": np.concatenate(wave), "mask": mask != 0,
        "object_id": str(obsid) if known else None, "ra": header.get("RA"), "dec": header.get("DEC"),
        "z": header.get("Z"), "class": header.get("CLASS"),
    }  # fmt: skip


def plate(hdus: Any) -> list[Reading]:
    header, flux = hdus[0].header, hdus[0].data
    grid = ("COEFF0", "COEFF1") if "COEFF0" in header else ("CRVAL1", "CD1_1")
    wave = 10.0 ** (header[grid[0]] + header[grid[1]] * np.arange(flux.shape[1]))
    whole = len(hdus) > 1
    target = named_columns(hdus[5]) if whole else {}
    return [
        {
            "flux": floats(flux[i]), "ivar": floats(hdus[1].data[i]) if whole else None, "wave": wave,
            "mask": (hdus[2].data[i].astype(np.int64) & SDSS_BAD) != 0 if whole else ~np.isfinite(flux[i]),
            "object_id": None, "ra": target["ra"][i] if whole else None, "dec": target["dec"][i] if whole else None,
            "z": None, "class": None,
        }
        for i in range(len(flux))
    ]  # fmt: skip


def columns(hdus: Any) -> list[Reading]:
    table = named_columns(hdus[1])
    wave = floats(table["wavelength"])
    first = np.flatnonzero(np.diff(wave, prepend=-1) > 0.4)
    count = np.diff(first, append=len(wave))
    means = {name: np.add.reduceat(floats(values), first) / count for name, values in table.items()}
    return [
        {
            "flux": means[name], "ivar": None, "wave": wave[first], "mask": ~np.isfinite(means[name]),
            "object_id": name[6:], "ra": None, "dec": None, "z": None, "class": None,
        }
        for name in sorted(set(table) - {"wavelength"}, key=lambda name: int(name[6:]))
    ]  # fmt: skip


def desi(hdus: Any) -> list[Reading]:
    fibermap = hdus["FIBERMAP"].data
    arms = []
    for arm in "BRZ":
        if f"{arm}_WAVELENGTH" in hdus:
            parts = [hdus[f"{arm}_{part}"].data for part in ("WAVELENGTH", "FLUX", "IVAR")]
            arms.append((*parts, hdus[f"{arm}_MASK"].data if f"{arm}_MASK" in hdus else np.zeros_like(parts[1])))
    start, step = min(wave[0] for wave, *_ in arms), float(np.median(np.diff(arms[0][0])))
    grid: dict[int, float] = {}
    for wave, *_ in arms:
        grid.update(zip((round((w - start) / step) for w in wave.tolist()), wave.tolist(), strict=True))
    places = {index: place for place, index in enumerate(sorted(grid))}
    found = []
    for i, targetid in enumerate(fibermap["TARGETID"]):
        total, weight = np.zeros((2, len(grid)))
        for wave, flux, ivar, mask in arms:
            at = [places[round((w - start) / step)] for w in wave.tolist()]
            values, weights = flux[i].astype("f8"), ivar[i].astype("f8")
            good = np.isfinite(values) & np.isfinite(weights) & (weights > 0) & (mask[i] == 0)
            total[at] += np.where(good, values, 0) * np.where(good, weights, 0)
            weight[at] += np.where(good, weights, 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = np.where(weight > 0, total / weight, 0)
        found.append(
            {
                "flux": mean, "ivar": weight, "wave": np.array([grid[index] for index in sorted(grid)]),
                "mask": weight == 0, "object_id": str(targetid),
                "ra": fibermap["TARGET_RA"][i] if "TARGET_RA" in fibermap.names else None,
                "dec": fibermap["TARGET_DEC"][i] if "TARGET_DEC" in fibermap.names else None, "z": None,
                "class": None,
            }
        )  # fmt: skip
    return found


def tables(path: Path, layout: str) -> list[Reading]:
    return _hdf5(path) if layout.startswith("mmu-hdf5") else _parquet(path)


def _hdf5(path: Path) -> list[Reading]:
    import h5py

    with h5py.File(path) as file:
        lower = {name.lower(): name for name in file}
        columns = {name: file[spelled][...] for name, spelled in lower.items() if hasattr(file[spelled], "shape")}
    rows = [{name: values[i] for name, values in columns.items()} for i in range(len(columns["object_id"]))]
    return [_row(row, {part: row.get(f"spectrum_{part}") for part in _PARTS}) for row in rows]


def _parquet(path: Path) -> list[Reading]:
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path)
    leaves = [file.schema.column(i).path for i in range(len(file.schema))]
    # A column that nobody asks for may be damaged.
    wanted = [leaf for leaf in leaves if not leaf.lower().startswith("spectrum") or _part(leaf)]
    found = []
    for row in file.read(columns=wanted, use_threads=False).to_pylist():
        lower = {name.lower(): value for name, value in row.items()}
        nested = lower.get("spectrum")
        if isinstance(nested, list):
            nested = {name: [pixel[name] for pixel in nested] for name in (nested[0] if nested else {})}
        parts = nested or {part: lower.get(f"spectrum_{part}") for part in _PARTS}
        found.append(_row(lower, {name.lower(): values for name, values in parts.items()}))
    return found


def _part(leaf: str) -> str:
    """Which part of a spectrum a leaf such as `spectrum.list.element.flux` or `spectrum_flux.list.element` is."""
    names = [name for name in leaf.lower().replace("spectrum_", "").split(".")]
    return next((name for name in names if name in _PARTS), "")


def _row(row: dict[str, Any], parts: dict[str, Any]) -> Reading:
    wave = floats(parts["lambda"])
    real = np.flatnonzero(wave > 0)
    inside = slice(real[0], real[-1] + 1) if len(real) else slice(0, 0)
    flux = np.array([np.nan if value is None else value for value in parts["flux"]], np.float64)[inside]
    ivar, mask = parts.get("ivar"), parts.get("mask")
    weights = None if ivar is None else np.array([np.nan if v is None else v for v in ivar], np.float64)[inside]
    bad = np.zeros(len(flux), bool) if mask is None else np.array([v is None or bool(v) for v in mask])[inside]
    return {
        "flux": flux, "ivar": weights, "wave": wave[inside], "mask": bad, "object_id": None, "ra": row.get("ra"),
        "dec": row.get("dec"), "z": row.get("z"), "class": row.get("class"),
    }  # fmt: skip
