"""Pictures that are not what the manifest says are refused by their header, before a decoder makes room for them."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from specshards.common.errors import JobError
from specshards.common.jobs import Engine
from specshards.ingest.spectra.schema import to_table, write_parquet
from specshards.render import ImageConfig, renderer
from specshards.shards import loader
from specshards.shards.format.encoding import ENCODINGS
from specshards.shards.format.manifest import Manifest, ShardConfig, label_npy
from specshards.shards.format.tar import TarWriter, read_index
from specshards.shards.loader.dali import dali_is_here
from specshards.shards.report.make import write_page
from specshards.shards.write.build import build
from tests.conftest import make_spectrum
from tests.oracles.faults import Copy

BACKENDS = [
    pytest.param("dali", marks=pytest.mark.skipif(not dali_is_here(), reason="NVIDIA DALI exists for Linux only")),
    "plain",
]
SIZE = 74


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, depth: int = 8, colour: int = 0, interlaced: int = 0, lines: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(lines)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def saved(image: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "png", **options)
    return buffer.getvalue()


def with_chunk(payload: bytes, kind: bytes, content: bytes) -> bytes:
    return payload[:33] + chunk(kind, content) + payload[33:]


#: Exif that says: turn this picture by 90 degrees.
TURNED = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0"
GOOD = png(SIZE, SIZE, lines=bytes((SIZE + 1) * SIZE))
PNGS = {
    "bomb": (png(30_000, 30_000, lines=bytes(1000)), "30000 x 30000 pixels, 8 bits, gray instead of 74 x 74"),
    "gigantic": (png(2**31 - 1, 2**31 - 1), "2147483647 x 2147483647"),
    "rgb": (saved(np.zeros((SIZE, SIZE, 3), np.uint8)), "RGB instead of"),
    "16 bits": (saved(np.zeros((SIZE, SIZE), np.uint16)), "16 bits"),
    "1 bit": (png(SIZE, SIZE, 1, lines=bytes(SIZE * 11)), "1 bits"),
    "palette": (png(SIZE, SIZE, 8, 3, lines=bytes((SIZE + 1) * SIZE)), "palette"),
    "alpha": (saved(np.zeros((SIZE, SIZE, 4), np.uint8)), "RGB with alpha"),
    "interlaced": (png(SIZE, SIZE, interlaced=1, lines=bytes((SIZE + 8) * SIZE)), "interlaced"),
    "other size": (png(SIZE, SIZE - 1, lines=bytes((SIZE + 1) * SIZE)), "74 x 73 pixels"),
    "turned": (
        with_chunk(GOOD, b"eXIf", b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"),
        "chunks that",
    ),
    "profile": (with_chunk(GOOD, b"iCCP", b"x\0\0" + zlib.compress(bytes(10**7))), "chunks that"),
    "more after the end": (GOOD + b"\0" * 12, "chunks that"),
    "cut": (GOOD[:60], "not a readable PNG"),
    "empty": (b"", "not a readable PNG"),
    "jpeg": (simplejpeg.encode_jpeg(np.zeros((SIZE, SIZE, 3), np.uint8)), "not a readable PNG"),
}


def put(copy: Copy, payload: bytes) -> str:
    """Write a shard of the val split again with another first picture, and sign it; the sample's name."""
    record = copy.record("val")
    tar = record.path(copy.folder)
    content, samples = tar.read_bytes(), read_index(record.index(copy.folder))
    extension = next(name for name in samples[0] if name != "npy")
    with TarWriter(tar) as writer:
        for place, members in enumerate(samples):
            pieces = {name: content[at : at + size] for name, (at, size, _) in members.items()}
            if place == 0:
                pieces[extension] = payload
            writer.add(members["npy"][2].partition(".")[0], list(pieces.items()))
    copy.sign()
    return samples[0][extension][2]


@pytest.fixture
def copies(sets: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Copy]:
    import shutil

    def of(encoding: str) -> Copy:
        shutil.copytree(sets(encoding), tmp_path / encoding)
        return Copy(tmp_path / encoding)

    return of


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_png_that_is_not_the_picture_is_refused_by_name(copies: Callable[[str], Copy], backend: str) -> None:
    copy = copies("png")
    good = copy.record("val").path(copy.folder).read_bytes(), copy.record("val").index(copy.folder).read_bytes()
    for payload, said in PNGS.values():
        name = put(copy, payload)
        with (
            loader.open(copy.folder, "val", 8, backend=backend, threads=1) as batches,
            pytest.raises(JobError, match=rf"val-000000\.tar: {name} at byte 512: .*{said}") as error,
        ):
            list(batches)
        assert "\n" not in str(error.value)
        for path, content in zip((copy.record("val").path, copy.record("val").index), good, strict=True):
            path(copy.folder).write_bytes(content)
        copy.sign()


def jpeg(height: int, width: int, sampling: str = "444", **options: object) -> bytes:
    image = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    return simplejpeg.encode_jpeg(image, colorspace="RGB", colorsubsampling=sampling, **options)


def progressive() -> bytes:
    return cv2.imencode(".jpg", np.zeros((224, 224, 3), np.uint8), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_jpeg_that_is_not_the_picture_is_refused_by_name(copies: Callable[[str], Copy], backend: str) -> None:
    copy = copies("jpeg")
    good = copy.record("val").path(copy.folder).read_bytes(), copy.record("val").index(copy.folder).read_bytes()
    turned = (
        b"\xff\xd8\xff\xe1\x00\x1eExif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0"
        + jpeg(224, 224)[2:]
    )
    large = bytearray(jpeg(224, 224))
    at = bytes(large).index(b"\xff\xc0")
    large[at + 5 : at + 9] = struct.pack(">HH", 65_500, 65_500)
    for payload, said in (
        (jpeg(224, 225), "224 x 225 x 3 instead of 224 x 224 x 3"), (bytes(large), "65500 x 65500"),
        (jpeg(224, 224, "420"), "full resolution"), (progressive(), "baseline"), (turned, "nothing else"),
        (b"", "baseline"), (b"\xff\xd8", "baseline"), (GOOD, "baseline"),
    ):  # fmt: skip
        name = put(copy, payload)
        with (
            loader.open(copy.folder, "val", 8, backend=backend, threads=1) as batches,
            pytest.raises(JobError, match=rf"val-000000\.tar: {name} at byte 512: .*{said}"),
        ):
            list(batches)
        for path, content in zip((copy.record("val").path, copy.record("val").index), good, strict=True):
            path(copy.folder).write_bytes(content)
        copy.sign()


def test_pnm_and_spectra_of_another_size_are_refused(copies: Callable[[str], Copy]) -> None:
    pnm = b"P5\n%04d %04d\n255\n"
    for encoding, payloads in (
        ("pnm", [pnm % (9999, 9999), pnm % (74, 75) + bytes(74 * 75), b"P6\n0074 0074\n255\n" + bytes(3 * 74 * 74)]),
        ("flux", [flux_header(10**12), flux_header(2**62), b"", b"\x93NUMPY\x01\x00"]),
    ):
        copy = copies(encoding)
        for payload in payloads:
            name = put(copy, payload)
            with (
                loader.open(copy.folder, "val", 8, backend="plain", threads=1) as batches,
                pytest.raises(JobError, match=rf"{name} at byte 512: "),
            ):
                list(batches)


def flux_header(n: int) -> bytes:
    fields = [("wave_coeff0", "<f8"), ("wave_coeff1", "<f8"), ("flux", "<f4", (n,)), ("ivar", "<f4", (n,))]
    text = repr({"descr": [*fields, ("has_ivar", "|b1")], "fortran_order": False, "shape": ()}).encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", 246) + text.ljust(245) + b"\n"


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(["png", "jpeg", "pnm", "lz4", "flux"]), st.data())
def test_any_header_is_decoded_or_refused(name: str, data: st.DataObject) -> None:
    drawer = renderer(ImageConfig(size=48))
    encoding = ENCODINGS[name](drawer)
    if name == "flux":
        payload = bytearray(flux_header(16) + bytes(8 * 2 + 4 * 32 + 1))
    else:
        codes = np.zeros(drawer.code_shape, np.uint8)
        from specshards.common.spectrum import Arrays

        none = np.empty(0, np.float32)
        payload = bytearray(encoding.encode(codes, Arrays(none, None, none, np.empty(0, bool)), None))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, min(len(payload), 300) - 1))
        payload[place] = data.draw(st.integers(0, 255))
    payload = payload[: data.draw(st.sampled_from([len(payload), len(payload) // 2, 40, 0]))]
    try:
        content = encoding.decode(bytes(payload))
    except ValueError as error:
        assert str(error)
    else:
        assert name == "flux" or content.shape == encoding.shape


def test_an_index_may_not_claim_what_the_tar_has_not(sets: Callable[[str], Path], tmp_path: Path) -> None:
    import shutil

    shutil.copytree(sets("png"), tmp_path / "set")
    record = Manifest.load(tmp_path / "set").split("val")[0]
    index = record.index(tmp_path / "set")
    good = index.read_text().splitlines()
    words = good[1].split(" ")
    assert len(label_npy(np.zeros(14))) == int(words[6])
    changes = {1: "513", 2: "-1", 3: "9999999999.png", 4: "txt", 5: str(2**62), 6: "241", 7: "x.npy", 0: "jpg"}
    for place, word in {**changes, 22: str(2**63 - 1)}.items():
        changed = [word if i == place % 20 else each for i, each in enumerate(words)]
        index.write_text("\n".join([good[0], " ".join(changed), *good[2:]]) + "\n")
        with (
            loader.open(tmp_path / "set", "val", 8) as batches,
            pytest.raises(JobError, match="not the index of its"),
        ):
            list(batches)
    with index.open("wb") as file:
        file.truncate(10**12)  # sparse: it takes no room on the disk, and would take all of the memory
    with loader.open(tmp_path / "set", "val", 8) as batches, pytest.raises(JobError, match="1,000,000,000,000 bytes"):
        list(batches)


def test_names_from_data_are_text_in_a_page(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    names = {"survey": "<script>alert(1)</script> $\\frac{", "source_file": "<svg onload=x>"}
    made = [make_spectrum(i, rng, n=800, object_id=f"<img src=x onerror=alert({i})>", **names) for i in range(30)]
    made[0].mask[:] = True  # one in the quarantine
    write_parquet(to_table(made), tmp_path / "a.parquet", {}, row_group_rows=10)
    build(ShardConfig(encoding="flux"), tmp_path / "a.parquet", tmp_path / "out", engine=Engine(workers=0))
    text = write_page(tmp_path / "out").read_text(encoding="utf-8")
    assert "&lt;script&gt;alert(1)" in text and "&lt;img src=x" in text
    assert not any(name in text for name in ("<script>alert", "<img src=x", "<svg onload"))
