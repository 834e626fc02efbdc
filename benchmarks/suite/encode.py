"""`specshards bench encode`: a sample's bytes, and the time to make and to read them, beside OpenCV's.

Each encoding and each image against OpenCV's PNG of the same array and its JPEG of the same picture, over several
spectra, in turn. Ratios are to OpenCV's PNG with its default settings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import numpy.typing as npt
import typer

from specshards.benchmarks.kit.records import Record, interleave
from specshards.benchmarks.kit.report import LOCAL, Out, Quick, Rounds, recording
from specshards.benchmarks.kit.samples import made_up_galaxy, read_spectra
from specshards.common.spectrum import Arrays
from specshards.render import ImageConfig, Renderer, renderer
from specshards.render.config import CHANNEL_SETS
from specshards.shards.format.encoding import ENCODINGS, Encoding, Jpeg

Codes = npt.NDArray[np.uint8]
IMAGES = {
    "simple": ImageConfig(image="simple"),
    "overlap": ImageConfig(image="overlap"),
    "map2d": ImageConfig(image="map2d"),
    "map2d derivatives": ImageConfig(image="map2d", channels=CHANNEL_SETS["derivatives"]),
}
QUALITY = 95


def made_up_spectra(count: int) -> list[Arrays]:
    """`count` spectra of a made-up galaxy, each with noise and a redshift of its own."""
    galaxy = made_up_galaxy()
    rng = np.random.default_rng(0)
    spectra: list[Arrays] = []
    for _ in range(count):
        shifted = np.interp(galaxy.wavelength, galaxy.wavelength * rng.uniform(0.95, 1.05), galaxy.flux)
        noise = rng.normal(0, rng.uniform(0, 2) / np.sqrt(galaxy.weight()))
        spectra.append(galaxy._replace(flux=(shifted + noise).astype(np.float32)))
    return spectra


def fidelity(drawer: Renderer, codes: Codes, decoded: Codes) -> tuple[float, float]:
    """How well a lossy picture keeps what was drawn: PSNR in dB, and the share of codes that it still tells exactly.

    A code of a map is read from the mean colour of its square: the nearest one of the colour table, or the mean
    itself where the map is RGB. A line image's codes are its pixels.

    Args:
        codes: what `drawer` drew.
        decoded: the full-size picture to judge, uint8 `(size, size, 3)`.
    """
    picture = drawer.expand(codes)
    error = float(np.mean((picture.astype(np.float64) - decoded) ** 2))
    psnr = float("inf") if error == 0 else 10 * float(np.log10(255**2 / error))
    if drawer.block == 1:
        return psnr, float(np.mean(picture == decoded))
    cells, block = drawer.config.cells, drawer.config.block
    square = decoded[: cells * block, : cells * block].astype(np.float64)
    means = square.reshape(cells, block, cells, block, 3).mean(axis=(1, 3))
    if drawer.lut is None:
        return psnr, float(np.mean(np.rint(means) == codes))
    colours = np.asarray(drawer.lut, np.float64)
    nearest = ((means[:, :, None] - colours) ** 2).sum(axis=-1).argmin(axis=-1)
    # Some neighbouring codes have one colour; which of them it was no picture says.
    return psnr, float(np.mean((colours[nearest] == colours[codes]).all(axis=-1)))


def encode_records(rounds: int, spectra: Sequence[Arrays]) -> list[Record]:
    """Time every encoding of every image, and OpenCV's, over `spectra`: first encoding, then decoding."""
    records: list[Record] = []
    for title, config in IMAGES.items():
        drawer = renderer(config)
        codes = [drawer.codes(*spectrum) for spectrum in spectra]
        rgb = [np.ascontiguousarray(drawer.expand(c)) for c in codes]
        gray = len(drawer.code_shape) == 2
        writers: dict[str, Callable[[int], bytes]] = {
            "OpenCV PNG": partial(_opencv_png, codes), "OpenCV PNG, level 1": partial(_opencv_png, codes, level=1),
            "OpenCV JPEG 4:4:4 of RGB": partial(_opencv_jpeg, rgb),
        }  # fmt: skip
        plain = cv2.IMREAD_GRAYSCALE if gray else cv2.IMREAD_COLOR_RGB
        readers: dict[str, Callable[[bytes], Any]] = {
            "OpenCV PNG": partial(_read, plain), "OpenCV PNG, level 1": partial(_read, plain),
            "OpenCV JPEG 4:4:4 of RGB": partial(_read, cv2.IMREAD_COLOR_RGB),
        }  # fmt: skip
        for name, kind in ENCODINGS.items():
            encoding = kind(drawer, QUALITY)
            writers[name] = partial(_encode, encoding, codes, spectra)
            readers[name] = encoding.decode
        payloads = {name: [write(i) for i in range(len(spectra))] for name, write in writers.items()}
        sizes = {name: float(np.mean([len(payload) for payload in many])) for name, many in payloads.items()}
        note = jpeg_note(drawer, codes, payloads["jpeg"])
        encoding_work: dict[str, Callable[[], int]] = {
            name: partial(_each, write, range(len(spectra))) for name, write in writers.items()
        }
        decoding_work: dict[str, Callable[[], int]] = {
            name: partial(_each, read, payloads[name]) for name, read in readers.items()
        }
        for what, contenders in (("encode", encoding_work), ("decode", decoding_work)):
            for r in interleave(f"{what} {title}", contenders, rounds):
                records.append(replace(r, bytes=sizes[r.name], note=note if r.name == "jpeg" else ""))
    return records


def jpeg_note(drawer: Renderer, codes: Sequence[Codes], payloads: Sequence[bytes]) -> str:
    """Fidelity of JPEGs of `codes`, in words: medians over the pictures."""
    decode = Jpeg(drawer).decode
    both = [fidelity(drawer, c, decode(payload)) for c, payload in zip(codes, payloads, strict=True)]
    psnr, exact = np.median(both, axis=0)
    return f"PSNR {psnr:.1f} dB, {100 * exact:.0f}% of the codes exact"


def _encode(encoding: Encoding, codes: Sequence[Codes], spectra: Sequence[Arrays], i: int) -> bytes:
    # Any coefficients do for the timing; with them no wavelengths are stored.
    return encoding.encode(codes[i], spectra[i], (3.5682, 1e-4))


def _opencv_png(codes: Sequence[Codes], i: int, level: int | None = None) -> bytes:
    options = [] if level is None else [cv2.IMWRITE_PNG_COMPRESSION, level]
    return cv2.imencode(".png", codes[i], options)[1].tobytes()


def _opencv_jpeg(rgb: Sequence[Codes], i: int) -> bytes:
    options = [cv2.IMWRITE_JPEG_QUALITY, QUALITY,
               cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]  # fmt: skip
    return cv2.imencode(".jpg", cv2.cvtColor(rgb[i], cv2.COLOR_RGB2BGR), options)[1].tobytes()


def _read(flag: int, payload: bytes) -> Any:
    return cv2.imdecode(np.frombuffer(payload, np.uint8), flag)


def _each(work: Callable[[Any], Any], items: Sequence[Any], repeat: int = 5) -> int:
    for _ in range(repeat):
        for item in items:
            work(item)
    return repeat * len(items)


def main(
    out: Out = LOCAL / "encode.json",
    data: Annotated[Path | None, typer.Option(help="Folder of survey files; without it, a made-up galaxy.")] = None,
    count: Annotated[int, typer.Option(help="Spectra.", min=1)] = 32,
    rounds: Rounds = 9,
    quick: Quick = False,
) -> None:
    """Time and weigh the encodings, interleaved, beside OpenCV's PNG and JPEG."""
    with recording("encode", out, quick) as draft:
        if quick:
            count, rounds = 2, 1
        draft.data = "mock" if data is None else "real"
        spectra = made_up_spectra(count) if data is None else read_spectra(data, count)
        draft.records = encode_records(rounds, spectra)
