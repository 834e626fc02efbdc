"""A file damaged in many ways: a reader refuses it in one line, or reads what astropy alone reads of the bytes."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from specshards.common.errors import BadObjectError
from specshards.ingest.surveys import open_file

BLOCK = 2880
#: Of the bytes of a file: flux and wavelengths (Angstrom, vacuum) of its first spectrum.
Oracle = Callable[[Path], tuple[Any, Any]]


def variants(content: bytes, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """Damaged copies: cut, flipped, zeroed, without an HDU or a keyword."""
    rng = np.random.default_rng(seed)
    for length in sorted({0, 1, 80, BLOCK, *rng.integers(BLOCK, len(content), 8).tolist()}):
        yield f"cut at {length}", content[:length]
    headers = [i for i in range(0, len(content), BLOCK) if content[i : i + 6] in (b"SIMPLE", b"XTENSI")]
    for at in (*rng.choice(headers, 24) + rng.integers(0, 1600, 24), *rng.integers(0, len(content), 12)):
        flipped = bytearray(content)
        flipped[min(int(at), len(content) - 1)] ^= 1 << int(rng.integers(0, 7))
        yield f"flipped at {at}", bytes(flipped)
    for at in rng.integers(0, len(content) // BLOCK, 6) * BLOCK:
        yield f"zeroed at {at}", content[:at] + bytes(BLOCK) + content[at + BLOCK :]
    for number, start in enumerate(headers[1:], 1):
        end = headers[number + 1] if number + 1 < len(headers) else len(content)
        yield f"without HDU {number}", content[:start] + content[end:]
    for keyword in (b"CRVAL1  ", b"CDELT1  ", b"OBJID   ", b"RA      ", b"TTYPE5  ", b"NAXIS1  "):
        yield f"without {keyword.decode()}", content.replace(keyword + b"=", b"XX" + keyword[2:] + b"=")


def check(path: Path, oracle: Oracle, scratch: Path, survey: str) -> int:
    """Read every variant of a file under its own name, in a job of its survey; how many of them were read.

    Raises:
        AssertionError: one was read otherwise than `oracle` reads it, or ended as no BadObjectError of one line.
    """
    warnings.simplefilter("ignore")  # astropy's, of what it reads all the same
    damaged, read = scratch / path.name, 0
    for what, content in variants(path.read_bytes()):
        damaged.write_bytes(content)
        try:
            items = list(open_file(damaged, survey).objects())
        except BadObjectError as error:
            items = [error]
        for item in items[:1]:
            if isinstance(item, BadObjectError):
                assert str(item) and "\n" not in str(item), what
                continue
            flux, wave = oracle(damaged)
            read += 1
            np.testing.assert_allclose(item.flux * np.float64(item.flux_scale), flux, rtol=2e-7, err_msg=what)
            np.testing.assert_allclose(item.wavelength, wave, rtol=1.2e-7, err_msg=what)
    return read


def image(path: Path, index: int) -> Any:
    """An image as astropy reads it."""
    with fits.open(path, ignore_missing_end=True) as hdus:
        return np.array(hdus[index].data)
