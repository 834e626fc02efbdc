"""The encodings: what goes in comes out, in our readers and in other people's."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest
import webdataset as wds
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from specshards.benchmarks.suite.encode import IMAGES, fidelity
from specshards.common.jobs import Engine
from specshards.common.spectrum import log_grid
from specshards.render import RENDERERS, ImageConfig, RenderError, preset, renderer
from specshards.shards.format.encoding import ENCODINGS, Jpeg, Png, Pnm
from specshards.shards.format.flux import HEADER_BYTES, pack, parse
from specshards.shards.format.manifest import Manifest, ShardConfig
from specshards.shards.format.png import encode_png
from specshards.shards.write.build import build
from tests.conftest import make_spectrum

CONFIGS = [
    *(ImageConfig(image=image, size=32) for image in ("simple", "overlap")),
    *(replace(IMAGES[name], size=32) for name in ("map2d", "map2d derivatives")),
]
COEFFICIENTS = (3.5682, 1e-4)


def spectrum(seed: int = 0, n: int = 3909) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Flux, ivar, wavelength and mask with everything a survey writes for a bad pixel."""
    rng = np.random.default_rng(seed)
    made = make_spectrum(seed, rng, n=n)
    flux, ivar, mask = made.flux.copy(), rng.uniform(0.1, 2, n).astype(np.float32), rng.random(n) < 0.02
    flux[rng.random(n) < 0.01] = np.nan
    flux[100] = np.inf
    ivar[rng.random(n) < 0.05] = 0
    ivar[200:204] = np.nan, np.inf, -1, 1e-45
    return flux, ivar, log_grid(*COEFFICIENTS, n), mask


def configurations() -> Iterator[ImageConfig]:
    for image, kind in RENDERERS.items():
        yield from (preset(name, image) for name in kind.presets)


@st.composite
def pictures(draw: st.DrawFn) -> np.ndarray:
    """Gray and RGB arrays: noise, slopes, level lines, and all of one value."""
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=2, max_side=40)) + draw(st.sampled_from([(), (3,)]))
    image = draw(hnp.arrays(np.uint8, shape, elements=st.integers(0, draw(st.sampled_from([1, 9, 255])))))
    level = draw(hnp.arrays(np.bool_, shape[0]))
    image[level] = image[level][:, :1]
    return image


@settings(deadline=None)  # the first calls load compiled kernels
@given(pictures(), st.booleans())
def test_png_is_lossless_in_every_reader(image: np.ndarray, noisy: bool) -> None:
    payload = encode_png(image, noisy=noisy)
    flag = cv2.IMREAD_GRAYSCALE if image.ndim == 2 else cv2.IMREAD_COLOR_RGB
    np.testing.assert_array_equal(cv2.imdecode(np.frombuffer(payload, np.uint8), flag), image)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(payload))), image)


def test_png_of_counts_that_would_need_codes_of_more_than_15_bits() -> None:
    counts = [1, 1]
    while len(counts) < 24:
        counts.append(counts[-1] + counts[-2])  # Fibonacci numbers make the deepest tree
    rng = np.random.default_rng(0)
    image = rng.permutation(np.repeat(np.arange(24, dtype=np.uint8), counts))[None].cumsum(axis=1, dtype=np.uint8)
    payload = encode_png(image, noisy=True)
    decoded = cv2.imdecode(np.frombuffer(payload, np.uint8), cv2.IMREAD_GRAYSCALE)
    np.testing.assert_array_equal(decoded, image)
    assert len(payload) < 40_200  # entropy 38,112 bytes; cutting the deepest codes short costs 5%


def test_png_chunks_are_those_of_the_specification() -> None:
    payload = encode_png(np.zeros((3, 5), np.uint8), noisy=True)
    assert payload[:8] == b"\x89PNG\r\n\x1a\n"
    kinds, at = [], 8
    while at < len(payload):
        size, kind = struct.unpack(">I4s", payload[at : at + 8])
        data = payload[at + 8 : at + 8 + size]
        assert zlib.crc32(kind + data) == struct.unpack(">I", payload[at + 8 + size : at + 12 + size])[0]
        kinds.append(kind)
        at += 12 + size
    assert kinds == [b"IHDR", b"IDAT", b"IEND"]


@pytest.mark.parametrize("config", CONFIGS, ids=list(IMAGES))
@pytest.mark.parametrize("name", ["png", "pnm", "lz4"])
@settings(deadline=None)
@given(data=st.data())
def test_codes_come_back_as_they_were(config: ImageConfig, name: str, data: st.DataObject) -> None:
    encoding = ENCODINGS[name](renderer(config))
    codes = data.draw(hnp.arrays(np.uint8, encoding.drawer.code_shape))
    payload = encoding.encode(codes, spectrum(), None)
    np.testing.assert_array_equal(encoding.decode(payload), codes)


@pytest.mark.parametrize("config", [replace(c, size=size) for c in CONFIGS for size in (16, 224, 1024)])
def test_a_pnm_has_a_header_of_fixed_length_and_opens_anywhere(config: ImageConfig) -> None:
    encoding = Pnm(renderer(config))
    codes = np.random.default_rng(0).integers(0, 256, encoding.drawer.code_shape, dtype=np.uint8)
    payload = encoding.encode(codes, spectrum(), None)
    assert len(encoding.header) == 17 and len(payload) == 17 + codes.size
    assert encoding.extension == ("pgm" if codes.ndim == 2 else "ppm")
    with Image.open(io.BytesIO(payload)) as image:
        np.testing.assert_array_equal(np.asarray(image), codes)
    flag = cv2.IMREAD_GRAYSCALE if codes.ndim == 2 else cv2.IMREAD_COLOR_RGB
    np.testing.assert_array_equal(cv2.imdecode(np.frombuffer(payload, np.uint8), flag), codes)


@pytest.mark.parametrize("config", list(configurations()), ids=lambda c: f"{c.image} {c.limits} {c.grid} {c.order}")
@pytest.mark.parametrize("case", ["grid", "float32", "float64", "no ivar", "no mask", "falling", "padded"])
def test_what_is_drawn_from_a_flux_record_is_what_was_drawn_at_first(config: ImageConfig, case: str) -> None:
    flux, ivar, wavelength, mask = spectrum()
    grid = COEFFICIENTS if case in ("grid", "no ivar") else None
    if case == "float32":
        wavelength = wavelength.astype(np.float32)
    if case == "falling":
        flux, ivar, wavelength, mask = flux[::-1], ivar[::-1], wavelength[::-1], mask[::-1]
    if case == "padded":
        wavelength = np.where(np.arange(len(flux)) > 3800, -1, wavelength)
    original = (flux, None if case == "no ivar" else ivar, wavelength, None if case == "no mask" else mask)
    drawer = renderer(config)
    expected = drawer.codes(*original)
    np.testing.assert_array_equal(drawer.codes(*parse(pack(*original, grid))), expected)


@settings(deadline=None)
@given(
    flux=hnp.arrays(np.float32, 50), ivar=st.none() | hnp.arrays(np.float32, 50), mask=hnp.arrays(np.bool_, 50),
    shift=st.integers(0, 8),
)  # fmt: skip
def test_a_flux_record_keeps_the_spectrum_and_which_pixels_are_good(flux, ivar, mask, shift: int) -> None:
    payload = pack(flux, ivar, np.arange(50.0), mask)
    # As a row of a batch: somewhere in memory, and filled up.
    row = np.frombuffer(bytes(shift) + payload + bytes(7), np.uint8)[shift:]
    for form in (payload, row):
        back_flux, back_ivar, wavelength, back_mask = parse(form)
        assert back_flux.tobytes() == flux.tobytes() and back_flux.flags.aligned
        np.testing.assert_array_equal(wavelength, np.arange(50.0))
        bad = mask if ivar is None else mask | ~(np.isfinite(ivar) & (ivar > 0))
        np.testing.assert_array_equal(back_mask, bad)
        if ivar is None:
            assert back_ivar is None
        else:
            np.testing.assert_array_equal(back_ivar, np.where(bad, 0, ivar))


def test_a_flux_record_is_plain_npy_with_a_header_of_fixed_length() -> None:
    flux, ivar, wavelength, mask = spectrum()
    for n in (2, 3909):
        record = np.load(io.BytesIO(pack(flux[:n], ivar[:n], wavelength[:n], mask[:n], COEFFICIENTS)))
        assert record.shape == () and record["has_ivar"] and "lambda" not in record.dtype.names
        np.testing.assert_array_equal(record["flux"], flux[:n])
        assert (record["wave_coeff0"], record["wave_coeff1"]) == COEFFICIENTS
    payload = pack(flux, None, wavelength, mask)
    record = np.load(io.BytesIO(payload), allow_pickle=False)
    assert len(payload) == HEADER_BYTES + record.dtype.itemsize and np.isnan(record["wave_coeff0"])
    np.testing.assert_array_equal(record["lambda"], wavelength)
    np.testing.assert_array_equal(record["ivar"], ~mask)


def test_a_grid_is_computed_once_and_cannot_be_changed() -> None:
    first, again = log_grid(3.58, 1e-4, 4000), log_grid(3.58, 1e-4, 4000)
    assert first is again and not first.flags.writeable
    np.testing.assert_array_equal(first, 10.0 ** (3.58 + 1e-4 * np.arange(4000)))


@pytest.mark.parametrize("name", list(ENCODINGS))
def test_damaged_payloads_are_refused(name: str) -> None:
    encoding = ENCODINGS[name](renderer(ImageConfig()))
    drawn = encoding.drawer.codes(*spectrum())
    good = encoding.encode(drawn, spectrum(), COEFFICIENTS)
    other = ENCODINGS[name](renderer(ImageConfig(size=32)))
    broken = [b"", b"x", bytes(len(good)), bytes(300) + good[300:]]
    broken += [good[: len(good) // 2]] if name in ("pnm", "lz4", "flux") else []  # others fill up what is missing
    for payload in broken:
        with pytest.raises(ValueError):
            encoding.decode(payload)
    if other.shape is not None:
        with pytest.raises(ValueError, match=r"74 x 74|224 x 224|not a PNM of 10 x 10|5493 bytes instead of 117"):
            other.decode(good)


def sampling_factors(jpeg: bytes) -> list[tuple[int, int]]:
    """Horizontal and vertical sampling of each component, from the frame header of a baseline JPEG (SOF0)."""
    at = 2
    while jpeg[at : at + 2] != b"\xff\xc0":
        at += 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
    components = jpeg[at + 9]
    return [(jpeg[at + 11 + 3 * k] >> 4, jpeg[at + 11 + 3 * k] & 15) for k in range(components)]


@pytest.mark.parametrize("title", list(IMAGES))
def test_jpeg_keeps_full_chroma_and_nearly_every_value(title: str) -> None:
    drawer = renderer(IMAGES[title])
    codes = drawer.codes(*spectrum())
    payload = Jpeg(drawer, 95).encode(codes, spectrum(), None)
    assert sampling_factors(payload) == [(1, 1)] * 3
    psnr, exact = fidelity(drawer, codes, Jpeg(drawer).decode(payload))
    print(f"{title}: PSNR {psnr:.1f} dB, {100 * exact:.0f}% of the codes exact")
    assert psnr > 35 and exact > 0.4
    halved = cv2.imencode(".jpg", drawer.expand(codes)[..., ::-1], [
        cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
    ])[1].tobytes()  # fmt: skip
    assert sampling_factors(halved)[0] == (2, 2)
    if title == "map2d":
        opened = cv2.imdecode(np.frombuffer(halved, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
        assert fidelity(drawer, codes, opened)[1] < exact - 0.2
        with pytest.raises(ValueError, match="at full resolution"):  # not what this program writes
            Jpeg(drawer).decode(halved)


def test_fidelity_of_the_picture_itself_is_perfect() -> None:
    for config in IMAGES.values():
        drawer = renderer(config)
        codes = drawer.codes(*spectrum())
        assert fidelity(drawer, codes, drawer.expand(codes)) == (float("inf"), 1.0)


@pytest.mark.parametrize("image", ["map2d", "overlap"])
@pytest.mark.parametrize("name", list(ENCODINGS))
def test_webdataset_and_the_card_read_every_encoding(
    spectra_folder: Path, tmp_path: Path, name: str, image: str
) -> None:
    config = ShardConfig(image=ImageConfig(image=image, size=64, block=1), encoding=name)
    build(config, spectra_folder, tmp_path, engine=Engine(workers=0))
    encoding = ENCODINGS[name](renderer(config.image))
    assert f"`<key>.{encoding.extension}`" in (tmp_path / "README.md").read_text()
    tars = [str(record.path(tmp_path)) for record in Manifest.load(tmp_path).split("val")]
    count = 0
    for sample in wds.WebDataset(tars, shardshuffle=False).decode("rgb8"):
        content = sample[encoding.extension]
        if name == "lz4":  # webdataset leaves it as bytes
            content = pa.CompressedInputStream(pa.BufferReader(content), "lz4").read()
            content = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
        if name == "flux":
            assert content.shape == () and content["flux"].shape == (3909,)
        else:
            assert content.shape == (64, 64, 3) and content.dtype == np.uint8
        assert sample["npy"].shape == (len(Manifest.load(tmp_path).labels),)
        count += 1
    assert count == Manifest.load(tmp_path).samples("val") > 0


def test_what_cannot_be_drawn_is_set_aside_whatever_the_encoding(spectra_folder: Path, tmp_path: Path) -> None:
    for name in ("png", "flux"):
        build(ShardConfig(encoding=name), spectra_folder, tmp_path / name, engine=Engine(workers=0))
    first, second = (Manifest.load(tmp_path / name) for name in ("png", "flux"))
    assert first.quarantined == second.quarantined == 3
    quarantine = "quarantine.parquet"
    assert (tmp_path / "png" / quarantine).read_bytes() == (tmp_path / "flux" / quarantine).read_bytes()


def test_a_flux_record_of_an_undrawable_spectrum_is_undrawable() -> None:
    flux, ivar, wavelength, mask = spectrum()
    drawer = renderer(ImageConfig())
    with pytest.raises(RenderError, match="masked"):
        drawer.codes(*parse(pack(flux, ivar, wavelength, np.ones_like(mask))))


def test_png_of_a_map_takes_no_more_room_than_opencvs_allowing_for_a_fifth() -> None:
    for config in IMAGES.values():
        drawer = renderer(config)
        codes = drawer.codes(*spectrum())
        ours = len(Png(drawer).encode(codes, spectrum(), None))
        assert ours < 1.2 * len(cv2.imencode(".png", codes)[1])
