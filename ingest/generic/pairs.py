"""Spectra whose 1-sigma errors are an image in a file of its own, beside theirs: `X_f.fits` and `X_e.fits`.

Source: T. Barlow's MAKEE and the tools around it (linetools, XIDL) write flux and error so; in copies the last letter
is a capital, `XF.fits` and `XE.fits`. That names alone say so is too little: the two have one axis, and the second
says in its header that it holds errors, or names the same object and holds numbers as large as the flux scatters.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from specshards.common.errors import BadObjectError
from specshards.ingest.fits.direct import FitsFile
from specshards.ingest.fits.hdu import Hdu, HeaderLike
from specshards.ingest.limits import check_pixels
from specshards.ingest.listing import beside
from specshards.ingest.surveys.axis import steps
from specshards.ingest.surveys.common import text

_FLUX = re.compile(r"(_f|F)(?=\.(fits?|fts)(\.gz)?\Z)")
_ERROR = re.compile(r"(_e|E)(?=\.(fits?|fts)(\.gz)?\Z)")
_LETTERS = {"_f": "_e", "F": "E", "_e": "_f", "E": "F"}
# A star may be called sigma Orionis.
_SAID = re.compile(
    r"\b(errors?|variances?|ivar|noise|uncertaint(y|ies)|1[ -]?sigma|sigma (spectrum|array|image))\b"
    r"|\(sigma\)|\Asigma\Z",
    re.IGNORECASE,
)
#: How far the scatter of a flux may be from its errors. Resampled fluxes scatter less.
_ALIKE = (0.05, 5.0)


def companions(name: str) -> tuple[str, ...]:
    """The names of the other half: of a spectrum its errors, of errors their spectrum."""
    for pattern in (_FLUX, _ERROR):
        if (match := pattern.search(name)) is not None:
            return (f"{name[: match.start()]}{_LETTERS[match[1]]}{name[match.end() :]}",)
    return ()


def errors_said(header: HeaderLike) -> str | None:
    """The words by which a header says that an image holds errors, None where it does not."""
    for key in ("OBJECT", "TITLE", "EXTNAME", "BUNIT", "IMAGETYP"):
        said = text(header.get(key))
        if said is not None and _SAID.search(said.replace("_", " ")):
            return f"{key} = {said[:60]}"
    return None


def refused_or_errors(file: FitsFile, hdu: Hdu) -> npt.NDArray[Any] | None:
    """The 1-sigma errors beside an image: `(N,)`; None without any.

    Raises:
        BadObjectError: the image holds errors itself (`selected_out`), or those beside it are unreadable.
    """
    if len(hdu.shape) != 1:
        return None
    said, path = errors_said(hdu.header), file.path
    name = "" if path is None else path.name
    if _ERROR.search(name) and path is not None and (other := beside(path, companions(path.name))) is not None:
        flux = _image(other, hdu, is_mine=False)
        if flux is not None and (said is not None or _fit(flux, hdu)):
            raise BadObjectError(f"errors of the spectrum {other.name}, read with it", selected_out=True,
                                 kind="errors of a spectrum, read with it")  # fmt: skip
    if said is not None:
        raise BadObjectError(f"an image of errors, not of flux ({said})", selected_out=True,
                             kind="an image of errors, not of flux")  # fmt: skip
    if not _FLUX.search(name) or path is None or (other := beside(path, companions(path.name))) is None:
        return None
    errors = _image(other, hdu, is_mine=True)
    if errors is None or not (errors_said(errors.header) is not None or _fit(hdu, errors)):
        return None
    return errors.image()


def _image(path: Path, mine: Hdu, *, is_mine: bool) -> Hdu | None:
    """The image of another file, where it has the shape and the axis of this one.

    Raises:
        BadObjectError: it is unreadable, and `is_mine`: the errors of this one.
    """
    try:
        other = FitsFile.open(path)[0]
        if other.names or other.shape != mine.shape:
            return None
        check_pixels(other.shape[-1])
        its, own = steps(other.header), steps(mine.header)
        is_same = its is not None and own is not None and np.allclose(its, own, rtol=1e-9, atol=0)
        other.image()
        return other if is_same else None
    except (BadObjectError, KeyError, IndexError) as fault:
        if not is_mine:
            return None
        raise BadObjectError(f"its errors in {path.name} are unreadable: {fault}") from fault


def _fit(flux: Hdu, errors: Hdu) -> bool:
    """Whether an image of the same object can hold the errors of a flux, by its numbers."""
    mine, its = text(flux.header.get("OBJECT")), text(errors.header.get("OBJECT"))
    if mine is None or mine != its:
        return False
    values, sigma = (np.asarray(hdu.image(), np.float64) for hdu in (flux, errors))
    # A pixel against the mean of its neighbours, which varies by 1.5 of the variance of one.
    scatter = np.abs(values[1:-1] - (values[:-2] + values[2:]) / 2) / np.sqrt(1.5)
    known = np.isfinite(scatter) & np.isfinite(sigma[1:-1]) & (sigma[1:-1] > 0)
    if np.count_nonzero(known) < 16 or np.count_nonzero(known) < 0.1 * len(known):
        return False
    ratio = 1.4826 * np.median(scatter[known] / sigma[1:-1][known])
    return bool(_ALIKE[0] <= ratio <= _ALIKE[1])
