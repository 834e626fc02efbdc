"""A second reading of survey files, straight from astropy and the data models, to compare the readers with."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

SDSS_BAD = sum(1 << bit for bit in (18, 22, 23, 24, 25, 26, 27, 28))
CLASSES = ("STAR", "GALAXY", "QSO")
Reading = dict[str, Any]


def readings(source: Any, path: Path) -> list[Reading]:
    """Every object of a file: flux, ivar, wave (float32), mask, and the labels that it has."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with fits.open(source, memmap=False) as hdus:
            if "FIBERMAP" in hdus and "REDSHIFTS" not in hdus:
                return desi(hdus, path)
            if hdus[0].data is not None:
                return [legacy(hdus[0]) if "SPEC_CLN" in hdus[0].header else lamost(hdus[0].header, hdus[0].data)]
            if "FLUX" in hdus[1].columns.names and "WAVELENGTH" in hdus[1].columns.names:
                row = hdus[1].data[0]
                return [lamost(hdus[0].header, [row[n] for n in ("FLUX", "IVAR", "WAVELENGTH", "ANDMASK")])]
            return [sdss(hdus)]


def cleaned(flux: Any, ivar: Any, wave: Any, mask: Any, **labels: Any) -> Reading:
    """float32 arrays under the schema's rules: no information where anything is not finite, and then a mask."""
    flux, ivar, wave = (np.asarray(values).astype("f4") for values in (flux, ivar, wave))
    ivar = np.where(np.isfinite(flux) & np.isfinite(ivar) & (ivar > 0), ivar, np.float32(0))
    return {"flux": flux, "ivar": ivar, "wave": wave, "mask": np.asarray(mask) | (ivar == 0), **labels}


def lamost(header: Any, rows: Any) -> Reading:
    wave = rows[2]
    if "EXTEN0" in header and "avelength" not in header["EXTEN0"]:
        wave = 10.0 ** (header["COEFF0"] + header["COEFF1"] * np.arange(len(rows[0])))
    known = header["CLASS"].strip() in CLASSES
    return cleaned(
        rows[0], rows[1], wave, np.asarray(rows[3]) != 0, ra=header["RA"], dec=header["DEC"],
        label=header["CLASS"].strip() if known else None, z=header["Z"] if header["Z"] > -999 else None,
        snrg=header.get("SNRG", header.get("SN_G")), object_id=str(header.get("OBSID")),
    )  # fmt: skip


def sdss(hdus: Any) -> Reading:
    pixels = {name.lower(): hdus[1].data[name] for name in hdus[1].data.names}
    row = {name.lower(): hdus[2].data[name][0] for name in hdus[2].data.names}
    return cleaned(
        pixels["flux"], pixels["ivar"], 10.0 ** pixels["loglam"].astype("f8"), (pixels["and_mask"] & SDSS_BAD) != 0,
        ra=row["plug_ra"], dec=row["plug_dec"], label=row["class"].strip(), z=row["z"], zwarning=row["zwarning"],
        object_id=str(row["specobjid"]).strip(), subclass=row["subclass"].strip() or None,
    )  # fmt: skip


def legacy(hdu: Any) -> Reading:
    header, (flux, _, sigma, mask, _) = hdu.header, hdu.data.astype("f8")
    with np.errstate(divide="ignore"):
        ivar = np.where(sigma > 0, 1 / sigma**2, 0)
    wave = 10.0 ** (header["COEFF0"] + header["COEFF1"] * np.arange(flux.size))
    kinds = {1: "STAR", 2: "GALAXY", 3: "QSO", 4: "QSO", 6: "STAR", 7: "GALAXY"}
    return cleaned(
        flux, ivar, wave, (mask.astype("i8") & SDSS_BAD) != 0, ra=header["RAOBJ"], dec=header["DECOBJ"],
        label=kinds.get(header["SPEC_CLN"]), z=header["Z"], zwarning=header["Z_WARNIN"],
        object_id=f"{header['PLATEID']}-{header['MJD']}-{header['FIBERID']}",
    )  # fmt: skip


def desi(hdus: Any, path: Path) -> list[Reading]:
    fibermap, labels = hdus["FIBERMAP"].data, {}
    beside = path.with_name(path.name.replace("coadd-", "redrock-"))
    if beside.exists() and beside != path:
        labels = {row["TARGETID"]: row for row in fits.getdata(beside, "REDSHIFTS")}
    grid = np.arange(7781)
    found = []
    for i, targetid in enumerate(fibermap["TARGETID"]):
        total, weight = np.zeros(7781), np.zeros(7781)
        for arm, start in (("B", 3600.0), ("R", 5760.0), ("Z", 7520.0)):
            flux, ivar = hdus[f"{arm}_FLUX"].data[i].astype("f8"), hdus[f"{arm}_IVAR"].data[i].astype("f8")
            ivar[hdus[f"{arm}_MASK"].data[i] != 0] = 0
            first = round((start - 3600.0) / 0.8)
            total[first : first + len(flux)] += flux * ivar
            weight[first : first + len(flux)] += ivar
        flux = np.where(weight > 0, total / np.where(weight > 0, weight, 1), 0)
        row = labels.get(targetid)
        found.append(
            cleaned(
                flux, weight, 3600.0 + 0.8 * grid, weight == 0, object_id=str(targetid),
                label=None if row is None else row["SPECTYPE"].strip(), z=None if row is None else row["Z"],
                ra=fibermap["TARGET_RA"][i] if "TARGET_RA" in fibermap.names else np.nan,
                dec=fibermap["TARGET_DEC"][i] if "TARGET_DEC" in fibermap.names else np.nan,
            )
        )  # fmt: skip
    return found


def differences(spectrum: Any, reading: Reading) -> list[str]:
    """What of a `Spectrum` is not what astropy reads; arrays to the bit, but for NaN and the DESI mean's last bit."""
    wrong = []
    ours = {"flux": spectrum.flux, "ivar": spectrum.ivar, "wave": spectrum.wavelength, "mask": spectrum.mask}
    for name, values in ours.items():
        if values.dtype != reading[name].dtype or not np.array_equal(values, reading[name], equal_nan=name == "flux"):
            wrong.append(name)
    scalars = {"ra": spectrum.ra, "dec": spectrum.dec, "label": spectrum.labels["class"] if spectrum.labels else None}
    scalars |= {"z": spectrum.labels.get("z"), "zwarning": spectrum.labels.get("zwarning")}
    scalars |= {"snrg": spectrum.survey_sn.get("snrg"), "object_id": spectrum.object_id}
    scalars |= {"subclass": spectrum.labels.get("subclass")}
    for name, value in scalars.items():
        if name in reading and not _same(value, reading[name]):
            wrong.append(f"{name}: {value!r} for {reading[name]!r}")
    return wrong


def _same(ours: Any, theirs: Any) -> bool:
    if ours is None or isinstance(ours, str):
        # LAMOST's -9999 is missing; an id that is missing or negative is made of others.
        is_missing = isinstance(theirs, (float, int, np.number)) and theirs <= -999
        return ours == theirs or is_missing or theirs in ("None", "") or str(theirs).startswith("-")
    return bool(ours == theirs or (np.isnan(ours) and np.isnan(theirs)) or ours == theirs % 360.0)
