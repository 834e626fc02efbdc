"""Samples of a data set for people: the picture as a model sees it, the spectrum it came from, the labels.

And, from the same spectra and more of them at random, which wavelengths they cover.
"""

from __future__ import annotations

from base64 import b64encode
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from specshards.common.errors import JobError
from specshards.render import RenderError, renderer
from specshards.shards.format.encoding import ENCODINGS, Encoding
from specshards.shards.format.flux import Arrays
from specshards.shards.format.manifest import Manifest
from specshards.shards.format.png import encode_compact
from specshards.shards.format.tar import read_entries
from specshards.shards.report.sources import Origin
from specshards.shards.report.statistics import Pick, rows_of

#: Bytes of all pictures together, as text in the page, from which on no more samples are shown; some always are.
_MOST_BYTES, _ALWAYS = 1_000_000, 12
#: Spectra that are looked at of each block of Parquet: those around one that is shown cost hardly more.
_BESIDE = 32
#: Angstrom: width of the bins in which a spectrum has, or has not, a usable pixel.
STEP = 50


@dataclass
class Example:
    """A sample that is shown.

    Attributes:
        row: of the sidecar. picture: a data URL, or None; why: not.
        spectrum: flux, ivar, wavelength and mask, `(N,)` each; None where it cannot be had.
    """

    split: str
    row: dict[str, Any]
    picture: str | None = None
    why: str = ""
    spectrum: Arrays | None = None


@dataclass
class Coverage:
    """The wavelengths of some spectra of one survey.

    Attributes:
        bins: number of the bin, wavelength / `STEP` rounded down -> spectra with a usable pixel in it.
        first, last: usable wavelength of each, Angstrom. pixels: of each; usable: share of them.
    """

    bins: Counter[int] = field(default_factory=Counter)
    first: list[float] = field(default_factory=list)
    last: list[float] = field(default_factory=list)
    pixels: list[int] = field(default_factory=list)
    usable: list[float] = field(default_factory=list)

    def add(self, spectrum: Arrays) -> None:
        """Count one spectrum; one without usable pixels counts as none."""
        good = usable(spectrum)
        wavelength = np.asarray(spectrum[2], np.float64)[good]
        if len(wavelength):
            self.bins.update(np.unique(wavelength // STEP).astype(int).tolist())
            self.first.append(float(wavelength.min()))
            self.last.append(float(wavelength.max()))
            self.pixels.append(len(good))
            self.usable.append(float(good.mean()))


@dataclass(frozen=True)
class Examples:
    """What was found: samples by survey, class and S/N; coverage by survey."""

    shown: list[Example]
    coverage: dict[str, Coverage]


def usable(spectrum: Arrays) -> npt.NDArray[np.bool_]:
    """Pixels with a finite flux that are not masked and have an ivar above 0, where the survey gives one."""
    flux, ivar, wavelength, mask = spectrum
    good = np.isfinite(flux) & np.isfinite(wavelength) & ~mask
    return good if ivar is None else good & (ivar > 0)


def collect(
    folder: Path, manifest: Manifest, shown: Sequence[Pick], drawn: Sequence[Pick], origins: Sequence[Origin]
) -> Examples:
    """Read the samples `shown`, and the spectra of those `drawn` for the coverage.

    Spectra are those of the shards where these hold them, else those of `origins`. A sample that is damaged is shown
    as such.

    Raises:
        JobError: a sidecar is missing or damaged.
    """
    encoding = ENCODINGS[manifest.config.encoding](renderer(manifest.config.image))
    coverage = {name: Coverage() for name in manifest.surveys}
    found: dict[Pick, Example] = {}
    stored = _payloads(folder, manifest, shown, encoding)
    room = _MOST_BYTES
    for pick in shown:
        example = Example(manifest.shards[pick.record].split, {})
        _fill(example, encoding, stored[pick])
        room -= len(example.picture or "")
        if room < 0 and len(found) >= _ALWAYS:
            break
        found[pick] = example
    for pick, row in rows_of(folder, manifest, list(found)):
        found[pick].row = row
    if encoding.shape is None:
        more = _payloads(folder, manifest, drawn, encoding)
        for pick in drawn:
            spectrum = _decoded(encoding, more[pick])
            if not isinstance(spectrum, str):
                coverage[manifest.surveys[pick.survey]].add(spectrum)
    else:
        frame = manifest.config.image.frame
        _from_origins({pick.row: example for pick, example in found.items()}, origins, coverage, frame)
    examples = sorted(found.items(), key=lambda item: _order(manifest, *item))
    return Examples([example for _, example in examples], {k: v for k, v in coverage.items() if v.first})


def _order(manifest: Manifest, pick: Pick, example: Example) -> tuple[int, int, float, int]:
    kind, sn = example.row.get("class"), example.row.get("sn_median")
    number = manifest.classes.index(kind) if kind in manifest.classes else len(manifest.classes)
    return pick.survey, number, float("inf") if sn is None else float(sn), pick.row


def _payloads(folder: Path, manifest: Manifest, picks: Sequence[Pick], encoding: Encoding) -> dict[Pick, bytes | str]:
    """The stored bytes of each pick, or why there are none; every index and tar is opened once."""
    found: dict[Pick, bytes | str] = {}
    for number in sorted({pick.record for pick in picks}):
        record = manifest.shards[number]
        mine = [pick for pick in picks if pick.record == number]
        try:
            entries = read_entries(record.index(folder), [pick.place for pick in mine])
            with record.path(folder).open("rb") as tar:
                for pick, members in zip(mine, entries, strict=True):
                    offset, size, _ = members[encoding.extension]
                    tar.seek(offset)
                    found[pick] = tar.read(size)
        except (OSError, ValueError, LookupError):
            why = f"{record.name} or its index cannot be read"
            found |= {pick: why for pick in mine if pick not in found}
    return found


def _decoded(encoding: Encoding, payload: bytes | str) -> Any:
    """What the sample holds, or in words why nothing."""
    if isinstance(payload, str):
        return payload
    try:
        return encoding.decode(payload)
    except Exception as error:  # decoders have errors of their own for damaged data
        return f"damaged: {' '.join(str(error).split())[:100]}"


def _fill(example: Example, encoding: Encoding, payload: bytes | str) -> None:
    content = _decoded(encoding, payload)
    if isinstance(content, str):
        example.why = content
        return
    if encoding.full_size and isinstance(payload, bytes):
        example.picture = _url("jpeg", payload)
        return
    try:
        if encoding.shape is None:
            example.spectrum = content
            content = encoding.drawer.codes(*content)
        example.picture = _url("png", encode_compact(encoding.drawer.expand(content)))
    except RenderError as error:
        example.why = f"cannot be drawn: {error}"


def _url(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{b64encode(content).decode()}"


def _from_origins(
    examples: dict[int, Example], origins: Sequence[Origin], coverage: dict[str, Coverage], frame: str
) -> None:
    for spectrum, meta, row in _spectra(examples, origins, frame):
        if row in examples and meta["object_id"] == examples[row].row.get("object_id"):
            # Copies: a view would keep the whole block in memory.
            flux, ivar, wave, mask = spectrum
            examples[row].spectrum = flux.copy(), None if ivar is None else ivar.copy(), wave.copy(), mask.copy()
        if meta["survey"] in coverage:
            coverage[meta["survey"]].add(spectrum)


def _spectra(
    examples: dict[int, Example], origins: Sequence[Origin], frame: str
) -> Iterator[tuple[Arrays, dict[str, Any], int]]:
    """The spectra of the examples' rows, and some of those that were read with them."""
    for origin in origins:
        try:
            for block in origin.blocks(examples):
                rows = block.rows.tolist()
                beside = {*np.linspace(0, len(rows) - 1, min(len(rows), _BESIDE)).round().astype(int).tolist()}
                taken = sorted(beside | {i for i, row in enumerate(rows) if row in examples})
                meta = block.meta.select(["object_id", "survey"]).take(taken).to_pylist()
                for i, known in zip(taken, meta, strict=True):
                    try:
                        spectrum, _ = block.framed(i, frame)
                    except RenderError:
                        continue  # it is in the quarantine
                    yield spectrum, known, rows[i]
        except (JobError, pa.ArrowException, OSError):
            continue  # they are counted as missing
