"""Samples of a data set: the picture as a model sees it, the spectrum it came from, the labels.

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

from specshards.common.errors import JobError, shortened
from specshards.common.remote import opened
from specshards.common.spectrum import Arrays
from specshards.render import RenderError, renderer
from specshards.render.frame import framed
from specshards.shards.format.encoding import ENCODINGS, Encoding
from specshards.shards.format.manifest import Manifest
from specshards.shards.format.png import encode_compact
from specshards.shards.format.tar import read_entries
from specshards.shards.report.sources import Source
from specshards.shards.report.statistics import ChosenSample, by_shard, sidecar_rows

#: Bytes of all pictures together, as text in the page, from which on no more samples are shown; some always are.
_MOST_BYTES, _ALWAYS = 1_000_000, 12
#: Spectra that are looked at of each block of Parquet: those around one that is shown cost hardly more.
_BESIDE = 32
#: Angstrom: width of the bins in which a spectrum has, or has not, a usable pixel.
STEP = 50


@dataclass
class GallerySample:
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
        wavelength = np.asarray(spectrum.wavelength, np.float64)[good]
        if len(wavelength):
            self.bins.update(np.unique(wavelength // STEP).astype(int).tolist())
            self.first.append(float(wavelength.min()))
            self.last.append(float(wavelength.max()))
            self.pixels.append(len(good))
            self.usable.append(float(good.mean()))


@dataclass(frozen=True)
class Samples:
    """Samples of the gallery, by survey, class and S/N; coverage by survey."""

    gallery: list[GallerySample]
    coverage: dict[str, Coverage]


def usable(spectrum: Arrays) -> npt.NDArray[np.bool_]:
    """Good pixels that have a wavelength."""
    return spectrum.good() & np.isfinite(spectrum.wavelength)


def read_samples(
    folder: Path,
    manifest: Manifest,
    gallery: Sequence[ChosenSample],
    random: Sequence[ChosenSample],
    sources: Sequence[Source],
) -> Samples:
    """Read the samples of the gallery, and the spectra of those at random for the coverage.

    Spectra are those of the shards where these hold them, else those of `sources`. A sample that is damaged is shown
    as such.

    Raises:
        JobError: a sidecar is missing or damaged.
    """
    encoding = ENCODINGS[manifest.config.encoding](renderer(manifest.config.image))
    coverage = {name: Coverage() for name in manifest.surveys}
    samples: dict[ChosenSample, GallerySample] = {}
    payloads = _payloads(folder, manifest, gallery, encoding)
    room = _MOST_BYTES
    for chosen in gallery:
        sample = GallerySample(manifest.shards[chosen.shard].split, {})
        _fill(sample, encoding, payloads[chosen])
        room -= len(sample.picture or "")
        if room < 0 and len(samples) >= _ALWAYS:
            break
        samples[chosen] = sample
    for chosen, row in sidecar_rows(folder, manifest, list(samples)):
        samples[chosen].row = row
    if encoding.shape is None:
        payloads = _payloads(folder, manifest, random, encoding)
        for chosen in random:
            spectrum = _decoded(encoding, payloads[chosen])
            if not isinstance(spectrum, str):
                coverage[manifest.surveys[chosen.survey]].add(spectrum)
    else:
        frame = manifest.config.image.frame
        _from_sources({chosen.row: sample for chosen, sample in samples.items()}, sources, coverage, frame)
    ordered = sorted(samples.items(), key=lambda item: _order(manifest, *item))
    return Samples([sample for _, sample in ordered], {k: v for k, v in coverage.items() if v.first})


def _order(manifest: Manifest, chosen: ChosenSample, sample: GallerySample) -> tuple[int, int, float, int]:
    kind, sn = sample.row.get("class"), sample.row.get("sn_median")
    number = manifest.classes.index(kind) if kind in manifest.classes else len(manifest.classes)
    return chosen.survey, number, float("inf") if sn is None else float(sn), chosen.row


def _payloads(
    folder: Path, manifest: Manifest, samples: Sequence[ChosenSample], encoding: Encoding
) -> dict[ChosenSample, bytes | str]:
    """The stored bytes of each sample, or why there are none; every index and tar is opened once."""
    payloads: dict[ChosenSample, bytes | str] = {}
    for number, members in by_shard(samples):
        record = manifest.shards[number]
        try:
            entries = read_entries(record.index(folder), [sample.index for sample in members])
            with opened(record.path(folder)) as tar:
                for sample, entry in zip(members, entries, strict=True):
                    offset, size, _ = entry[encoding.extension]
                    if not 0 <= offset <= offset + size <= record.bytes:
                        raise ValueError("outside the archive")
                    tar.seek(offset)
                    payloads[sample] = tar.read(size)
        except (OSError, ValueError, LookupError):
            why = f"{record.name} or its index cannot be read"
            payloads |= {sample: why for sample in members if sample not in payloads}
    return payloads


def _decoded(encoding: Encoding, payload: bytes | str) -> Any:
    """What the sample holds, or in words why nothing."""
    if isinstance(payload, str):
        return payload
    try:
        return encoding.decode(payload)
    except Exception as error:  # decoders have errors of their own for damaged data
        return f"damaged: {shortened(error, 100)}"


def _fill(sample: GallerySample, encoding: Encoding, payload: bytes | str) -> None:
    content = _decoded(encoding, payload)
    if isinstance(content, str):
        sample.why = content
        return
    if encoding.media_type is not None and isinstance(payload, bytes):
        sample.picture = _url(encoding.media_type, payload)
        return
    try:
        if encoding.shape is None:
            sample.spectrum = content
            content = encoding.drawer.codes(*content)
        picture = content if encoding.full_size else encoding.drawer.expand(content)
        sample.picture = _url("image/png", encode_compact(picture))
    except RenderError as error:
        sample.why = f"cannot be drawn: {error}"


def _url(media_type: str, content: bytes) -> str:
    return f"data:{media_type};base64,{b64encode(content).decode()}"


def _from_sources(
    samples: dict[int, GallerySample], sources: Sequence[Source], coverage: dict[str, Coverage], frame: str
) -> None:
    for arrays, meta, row in _spectra(samples, sources, frame):
        if row in samples and meta["object_id"] == samples[row].row.get("object_id"):
            # Copies: a view would keep the whole block in memory.
            samples[row].spectrum = Arrays._make(None if part is None else part.copy() for part in arrays)
        if meta["survey"] in coverage:
            coverage[meta["survey"]].add(arrays)


def _spectra(
    samples: dict[int, GallerySample], sources: Sequence[Source], frame: str
) -> Iterator[tuple[Arrays, dict[str, Any], int]]:
    """The spectra of the samples' rows, and some of those that were read with them."""
    for source in sources:
        try:
            for block in source.blocks(samples):
                rows = block.rows.tolist()
                spread = {*np.linspace(0, len(rows) - 1, min(len(rows), _BESIDE)).round().astype(int).tolist()}
                taken = sorted(spread | {i for i, row in enumerate(rows) if row in samples})
                metas = block.meta.select(["object_id", "survey"]).take(taken).to_pylist()
                for i, meta in zip(taken, metas, strict=True):
                    try:
                        arrays, _ = framed(
                            frame,
                            block.arrays(i),
                            block.grid(i),
                            block.redshift(i),
                            block.frame(i),
                            block.velocity(i),
                        )
                    except RenderError:
                        continue  # it is in the quarantine
                    yield arrays, meta, rows[i]
        except (JobError, pa.ArrowException, OSError):
            continue  # they are counted as missing
