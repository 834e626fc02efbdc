"""Files damaged at random: every one ends as spectra or as refusals of one plain line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from specshards.common.errors import BadObjectError
from specshards.common.spectrum import Spectrum
from specshards.ingest.surveys import open_file

BLOCK = 2880


def outcome(path: Path) -> list[Spectrum | BadObjectError]:
    """What the readers make of a file."""
    try:
        return list(open_file(path).objects())
    except BadObjectError as error:
        return [error]


def variants(content: bytes, flips: int = 60, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """Cut at many lengths, bytes flipped, blocks zeroed, cards lost."""
    rng = np.random.default_rng(seed)
    for cut in sorted({*range(0, len(content), max(BLOCK, len(content) // 25)), len(content) - 1, len(content) // 2}):
        yield f"cut at {cut}", content[:cut]
    for _ in range(flips):
        damaged, at = bytearray(content), int(rng.integers(len(content)))
        damaged[at] ^= int(rng.integers(1, 256))
        yield f"flip at {at}", bytes(damaged)
    for _ in range(flips // 4):
        damaged, at = bytearray(content), BLOCK * int(rng.integers(len(content) // BLOCK))
        damaged[at : at + BLOCK] = bytes(BLOCK)
        yield f"zero block {at}", bytes(damaged)
    cards = [at for at in range(0, min(len(content), 8 * BLOCK), 80) if content[at + 8 : at + 10] == b"= "]
    for at in cards[:: max(1, len(cards) // 40)]:
        yield f"lost card {content[at : at + 8].decode()}", content[:at] + b" " * 80 + content[at + 80 :]


def wrong(path: Path, scratch: Path, flips: int = 60) -> list[str]:
    """What is wrong with the readings of damaged copies of a file; none is right.

    Every copy ends as spectra or as refusals of one line; what lost bytes at its end as the whole.
    """
    content, found = path.read_bytes(), []
    whole = [item for item in outcome(path) if isinstance(item, Spectrum)]
    copy = scratch / f"damaged-{path.name}"
    for name, damaged in variants(content, flips):
        copy.write_bytes(damaged)
        try:
            items = outcome(copy)
        except Exception as error:
            found.append(f"{name}: {type(error).__name__}: {error}")
            continue
        if any("\n" in item.reason for item in items if isinstance(item, BadObjectError)):
            found.append(f"{name}: a reason of several lines")
        spectra = [item for item in items if isinstance(item, Spectrum)]
        if name.startswith("cut") and spectra and not same(spectra, whole):
            found.append(f"{name}: other values than the whole file's")
    copy.unlink(missing_ok=True)
    return found


def same(ours: list[Spectrum], theirs: list[Spectrum]) -> bool:
    """Whether the pixels are the same to the bit, spectrum by spectrum."""
    return len(ours) == len(theirs) and all(
        np.array_equal(a.flux, b.flux, equal_nan=True)
        and np.array_equal(a.ivar, b.ivar)
        and np.array_equal(a.wavelength, b.wavelength)
        and np.array_equal(a.mask, b.mask)
        for a, b in zip(ours, theirs, strict=True)
    )
