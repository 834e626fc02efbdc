"""Damaged files: each ends as right values or as a quarantine row, never as a wrong value, a hang or another error.

`right` means: for a file that lost bytes, or whose sizes are wrong, what the whole file holds; for a file with a
flipped byte, what astropy reads from those very bytes.
"""

from __future__ import annotations

import gzip
import io
import re
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from specshards.common.errors import BadObjectError
from specshards.common.spectrum import Spectrum
from specshards.ingest.surveys import open_file
from tests.oracles.oracle import Reading, differences, readings

BLOCK = 2880
FILES = (
    "lamost/dr10/spec-59522-EG224840N075042B03_sp03-194.fits.gz",
    "lamost/dr8_repeat_visits/*",
    "lamost/dr1/*",
    "sdss/boss_galaxies/*",
    "sdss/dr8_galaxies/*",
    "sdss/dr7_spSpec/*",
    "desi/picca/coadd-1-80693-thru20210204.fits",
)
Variant = tuple[str, bytes]


class Checked:
    """One real file and what becomes of its damaged variants."""

    def __init__(self, path: Path, scratch: Path) -> None:
        raw = path.read_bytes()
        self.content = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
        # Without the labels beside a coadd: here it is the file that is looked at.
        self.path = scratch / path.name.removesuffix(".gz")
        self.path.write_bytes(self.content)
        self.expected = readings(io.BytesIO(self.content), self.path)
        self.wrong: list[str] = []
        self.count = 0
        self.read = 0

    def outcome(self, damaged: bytes) -> list[Spectrum | BadObjectError]:
        self.count += 1
        self.path.write_bytes(damaged)
        started = time.perf_counter()
        try:
            items = list(open_file(self.path).objects())
        except BadObjectError as error:
            items = [error]
        assert time.perf_counter() - started < 20
        assert all("\n" not in item.reason for item in items if isinstance(item, BadObjectError))
        self.read += any(isinstance(item, Spectrum) for item in items)
        return items

    def of_these_bytes(self, damaged: bytes) -> list[Reading]:
        """What astropy reads from damaged bytes; from the whole file where a card is lost that we can do without."""
        try:
            return readings(io.BytesIO(damaged), self.path)
        except Exception:
            return self.expected

    def check(self, name: str, damaged: bytes, expected: Callable[[], list[Reading]]) -> None:
        try:
            items = self.outcome(damaged)
        except Exception as error:
            self.wrong.append(f"{name}: {type(error).__name__}: {error}")
            return
        if all(isinstance(item, BadObjectError) for item in items):
            return
        truth = expected()
        if len(items) != len(truth):
            self.wrong.append(f"{name}: {len(items)} objects for {len(truth)}")
            return
        for item, reading in zip(items, truth, strict=True):
            if isinstance(item, Spectrum) and (found := differences(item, reading)):
                self.wrong.append(f"{name}: {found}")


@pytest.fixture(params=FILES)
def checked(request: pytest.FixtureRequest, real_data: Path, tmp_path: Path) -> Checked:
    return Checked(sorted(real_data.glob(request.param))[0], tmp_path)


def headers(content: bytes) -> Iterator[tuple[int, int]]:
    """Where each header begins and ends, in a whole file."""
    at = 0
    while at < len(content):
        end = at
        while content[end : end + 80].rstrip() != b"END":
            end += 80
        cards = content[at:end].decode("ascii")
        bitpix, naxis = (int(re.search(rf"{name} *= *(-?\d+)", cards)[1]) for name in ("BITPIX", "NAXIS"))
        # LAMOST's table layout has NAXIS1 and NAXIS2 in a primary header of NAXIS = 0.
        sizes = [int(n) for n in re.findall(r"NAXIS\d *= *(\d+)", cards)][:naxis]
        yield at, end
        end += 80
        data = end + -(end - at) % BLOCK
        size = abs(bitpix) // 8 * int(np.prod(sizes)) if sizes else 0
        at = data + size + -size % BLOCK


def with_card(content: bytes, start: int, keyword: str, value: str) -> bytes:
    return content[:start] + f"{keyword:<8}= {value:>20}".ljust(80).encode() + content[start + 80 :]


def wrong_sizes(content: bytes) -> Iterator[Variant]:
    for at, end in headers(content):
        for start in range(at, end, 80):
            card = content[start : start + 80]
            keyword = card[:8].decode().strip()
            if not re.fullmatch(r"NAXIS\d?|BITPIX|PCOUNT|GCOUNT|TFIELDS|TFORM[1-6]", keyword):
                continue
            if keyword.startswith("TFORM"):
                for form in ("'E       '", "'3J      '", "'D       '", "'X       '", "'1PE(9)  '", "'0E      '"):
                    if form.strip("' ") not in card.decode():
                        yield f"{keyword}={form} at {start}", with_card(content, start, keyword, form)
                continue
            value = int(card[10:30])
            others = {value + d for d in (-100, -2, -1, 1, 2, 7, 100)} | {0, -1, 1, 2 * value, value // 2, 10**12}
            for other in sorted(others - {value}):
                yield f"{keyword}={other} at {start}", with_card(content, start, keyword, str(other))


def test_wrong_sizes(checked: Checked) -> None:
    content = checked.content
    variants = list(wrong_sizes(content))
    rng = np.random.default_rng(1)
    for index in rng.permutation(len(variants))[:120]:
        name, damaged = variants[index]
        checked.check(name, damaged, lambda: checked.expected)
    assert not checked.wrong
    assert checked.count > 40


def test_cut_at_every_block(checked: Checked) -> None:
    content = checked.content
    for keep in range(0, len(content), BLOCK):
        for cut in {keep, min(keep + 1000, len(content) - 1)}:
            checked.check(f"cut at {cut}", content[:cut], lambda: checked.expected)
    assert not checked.wrong
    assert checked.read <= 20  # cut between two HDUs, where those that are lost were not needed


def flipped(content: bytes, count: int, seed: int) -> Iterator[Variant]:
    rng = np.random.default_rng(seed)
    header_bytes = np.concatenate([np.arange(at, end) for at, end in headers(content)])
    for number in range(count):
        at = int(rng.choice(header_bytes) if number % 2 else rng.integers(len(content)))
        damaged = bytearray(content)
        damaged[at] ^= 1 << int(rng.integers(8)) if number % 3 else int(rng.integers(1, 256))
        yield f"flip at {at} ({content[at - at % 80 : at - at % 80 + 30]!r})", bytes(damaged)


def test_flipped_bytes(checked: Checked) -> None:
    for name, damaged in flipped(checked.content, 120, seed=3):
        checked.check(name, damaged, partial(checked.of_these_bytes, damaged))
    assert not checked.wrong
    assert checked.count == 120 and checked.read > 48


def test_lost_repeated_and_swapped_cards(checked: Checked) -> None:
    rng = np.random.default_rng(5)
    content = checked.content
    cards = [start for at, end in headers(content) for start in range(at, end, 80)]
    for number in range(60):
        one, two = (int(value) for value in rng.choice(cards, 2, replace=False))
        damaged = bytearray(content)
        if number % 3 == 0:
            damaged[one : one + 80] = b" " * 80
        elif number % 3 == 1:
            damaged[two : two + 80] = content[one : one + 80]
        else:
            damaged[one : one + 80], damaged[two : two + 80] = content[two : two + 80], content[one : one + 80]
        changed = bytes(damaged)
        checked.check(f"cards {one} {two} {number % 3}", changed, partial(checked.of_these_bytes, changed))
    assert not checked.wrong


@pytest.mark.parametrize("level", [1, 9])
def test_damaged_gzip(checked: Checked, level: int) -> None:
    content = checked.content[: 120 * BLOCK] if len(checked.content) > 400 * BLOCK else checked.content
    packed = gzip.compress(content, level, mtime=0)
    checked.path = checked.path.with_name(checked.path.name + ".gz")
    rng = np.random.default_rng(level)
    for _ in range(40):
        damaged = bytearray(packed)
        damaged[int(rng.integers(len(packed)))] ^= int(rng.integers(1, 256))
        checked.check("gzip flip", bytes(damaged), lambda: checked.expected)
        checked.check("gzip cut", packed[: int(rng.integers(len(packed)))], lambda: checked.expected)
    assert not checked.wrong
    # Only the ten bytes of its own header, time and system, may be flipped without harm.
    assert checked.read <= 3
