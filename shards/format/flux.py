"""A spectrum as one .npy record of fixed header length: what the `flux` encoding stores, and what the loader draws.

<key>.flux.npy = 256 bytes of .npy header, then one record:
    wave_coeff0, wave_coeff1   float64: wavelength i is 10^(coeff0 + coeff1 i) Angstrom; NaN where `lambda` is there
    flux                       float32 (N,), as the survey gave it, also where it is not finite
    ivar                       float32 (N,), 0 = bad pixel: masked, or without information
    lambda                     float32 or float64 (N,), Angstrom; only where no coefficients give the wavelengths
    lsf_sigma                  float32 (N,), sigma of the line-spread function, Angstrom, NaN = unknown; only where
                               the shards were made with --lsf and the survey gives one
    has_ivar                   bool; False: the survey gives no ivar, and `ivar` is 1 (good) or 0 (masked)

Mask and ivar are one array because a renderer asks of a bad pixel only that it is bad. float32, because the loader
must give the very pixels that were drawn from the survey's own numbers.
"""

from __future__ import annotations

import re
import struct
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from specshards.common.spectrum import Arrays, Grid, good_pixels, log_grid

HEADER_BYTES = 256
_MAGIC = b"\x93NUMPY\x01\x00"
#: What differs between two headers: the number of pixels, and how wavelengths are stored where they are.
_LENGTH, _OWN = re.compile(rb"'flux', '<f4', \((\d{1,9}),\)"), re.compile(rb"'lambda', '(<f[48])'")
_LSF = b"'lsf_sigma'"


def pack(
    flux: npt.NDArray[Any],
    ivar: npt.NDArray[Any] | None,
    wavelength: npt.NDArray[Any],
    mask: npt.NDArray[Any] | None,
    grid: Grid | None = None,
    lsf_sigma: npt.NDArray[Any] | None = None,
) -> bytes:
    """One spectrum as a .npy file; see the module.

    Args:
        flux, ivar, wavelength, mask: `(N,)` each; flux and ivar float32, mask True = bad.
        grid: coefficients from which `log_grid` gives `wavelength`; without them it is stored.
        lsf_sigma: `(N,)`, kept where it is given.

    Raises:
        ValueError: lengths that differ.
    """
    n = len(flux)
    for name, values in (("ivar", ivar), ("wavelength", wavelength), ("mask", mask), ("lsf_sigma", lsf_sigma)):
        if values is not None and len(values) != n:
            raise ValueError(f"lengths differ: flux {n}, {name} {len(values)}")
    own = "" if grid is not None else "<f4" if wavelength.dtype == np.float32 else "<f8"
    header, dtype = _layout(n, own, lsf_sigma is not None)
    record = np.zeros((), dtype)
    record["wave_coeff0"], record["wave_coeff1"] = grid or (np.nan, np.nan)
    record["has_ivar"] = ivar is not None
    record["flux"] = flux
    weight = record["ivar"]
    weight[...] = 1 if ivar is None else ivar
    weight[~good_pixels(weight, weight, mask)] = 0  # a flux that is not finite says so itself
    if own:
        record["lambda"] = wavelength
    if lsf_sigma is not None:
        record["lsf_sigma"] = lsf_sigma
    return header + record.tobytes()


def parse(payload: bytes | npt.NDArray[np.uint8]) -> Arrays:
    """The inverse of `pack`: `(flux, ivar, wavelength, mask)`, `(N,)` each; ivar is None where the survey gives none.

    They carry the line-spread function where the record has one (`Arrays.lsf_sigma`).

    Args:
        payload: the file; bytes after its end are left alone (a batch is filled up to its longest member).

    Raises:
        ValueError: not such a file, or cut short.
    """
    head = bytes(payload[:HEADER_BYTES])
    dtype = _dtype(head)
    if len(payload) < HEADER_BYTES + dtype.itemsize:
        raise ValueError(f"{len(payload)} bytes of a spectrum of {HEADER_BYTES + dtype.itemsize}")
    record = np.frombuffer(payload, dtype, 1, HEADER_BYTES)[0]
    if not record["flux"].flags.aligned:  # kernels are compiled for aligned arrays; a row of a batch begins anywhere
        record = record.copy()
    flux, ivar = record["flux"], record["ivar"]
    wavelength = (
        record["lambda"]
        if "lambda" in (dtype.names or ())
        else log_grid(float(record["wave_coeff0"]), float(record["wave_coeff1"]), len(flux))
    )
    known = Arrays(flux, ivar if record["has_ivar"] else None, wavelength, ivar == 0)
    return known.with_lsf(record["lsf_sigma"]) if "lsf_sigma" in (dtype.names or ()) else known


def has_lsf(payload: bytes | npt.NDArray[np.uint8]) -> bool:
    """Whether a record has a line-spread function, from its header."""
    return _LSF in bytes(payload[:HEADER_BYTES])


@lru_cache(maxsize=4096)
def _layout(n: int, wavelength: str, lsf: bool = False) -> tuple[bytes, np.dtype[np.void]]:
    """Header and dtype of a spectrum of `n` pixels; `wavelength` is its dtype, or empty where a grid gives it."""
    # Wide fields first and the flag last: everything is aligned without gaps.
    fields: list[Any] = [("wave_coeff0", "<f8"), ("wave_coeff1", "<f8"), ("flux", "<f4", (n,)), ("ivar", "<f4", (n,))]
    if wavelength:
        fields.append(("lambda", wavelength, (n,)))
    if lsf:
        fields.append(("lsf_sigma", "<f4", (n,)))
    dtype = np.dtype([*fields, ("has_ivar", "|b1")])
    text = repr({"descr": dtype.descr, "fortran_order": False, "shape": ()}).encode("ascii")
    room = HEADER_BYTES - len(_MAGIC) - 2
    return _MAGIC + struct.pack("<H", room) + text.ljust(room - 1) + b"\n", dtype


@lru_cache(maxsize=4096)
def _dtype(head: bytes) -> np.dtype[np.void]:
    """The record's dtype from the header alone; ValueError where it is not one that `_layout` makes."""
    length, own = _LENGTH.search(head), _OWN.search(head)
    if length is None:
        raise ValueError("not a spectrum record")
    # The header is not evaluated but written again: one of anything else differs.
    expected, known = _layout(int(length[1]), own[1].decode() if own else "", _LSF in head)
    if expected != head:
        raise ValueError("not a spectrum record")
    return known
