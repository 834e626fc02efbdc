"""LZ4: frames that other readers open, blocks that cannot lead astray, the road to a GPU with its device stood in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from specshards.common.errors import JobError
from specshards.common.jobs import Engine
from specshards.render import ImageConfig, renderer
from specshards.shards import loader
from specshards.shards.format import lz4
from specshards.shards.format.encoding import ENCODINGS
from specshards.shards.format.manifest import Manifest, ShardConfig
from specshards.shards.loader import dali
from specshards.shards.loader.augment import Augment
from specshards.shards.write.build import build

HERE = Engine(workers=0)


def raw(block: Any) -> bytes:
    """A block inflated by the slow road: sequence by sequence, as the format's description says."""
    data, out, at = bytes(block), bytearray(), 0

    def number(start: int) -> int:
        nonlocal at
        total = start
        while start == 15:
            total, at = total + data[at], at + 1
            if data[at - 1] != 255:
                break
        return total

    while True:
        token, at = data[at], at + 1
        literals = number(token >> 4)
        out, at = out + data[at : at + literals], at + literals
        if at == len(data):
            return bytes(out)
        back, at = int.from_bytes(data[at : at + 2], "little"), at + 2
        for _ in range(number(token & 15) + 4):
            out.append(out[-back])


@settings(deadline=None)
@given(st.binary(max_size=40), st.integers(0, 700), st.binary(max_size=40))
def test_a_frame_opens_anywhere_and_its_block_is_plain_lz4(start: bytes, times: int, end: bytes) -> None:
    content = start * times + end
    payload = lz4.pack(content)
    assert payload == lz4.pack(content)
    assert pa.CompressedInputStream(pa.BufferReader(payload), "lz4").read() == content
    frame = np.frombuffer(payload, np.uint8)
    assert lz4.unpack(frame, len(content)).tobytes() == content
    assert raw(lz4.block(frame, len(content))) == content


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_damage_is_refused_or_gives_as_many_bytes_as_were_asked_for(data: st.DataObject) -> None:
    content = bytes(np.cumsum(np.arange(600) % 7).astype(np.uint8)) + bytes(300)
    payload = bytearray(lz4.pack(content))
    for _ in range(data.draw(st.integers(1, 3))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    payload = payload[: data.draw(st.sampled_from([len(payload)] * 3 + [len(payload) - 1, 11, 5, 0]))]
    frame = np.frombuffer(bytes(payload), np.uint8)
    try:
        found = lz4.unpack(frame, len(content))
    except ValueError as error:
        assert str(error)
    else:
        assert len(found) == len(content) and raw(lz4.block(frame, len(content))) == found.tobytes()


def test_a_block_of_another_length_is_refused_before_it_is_inflated() -> None:
    payload = np.frombuffer(lz4.pack(bytes(10**6)), np.uint8)
    for size in (10**6 - 1, 10**6 + 1, 0):
        with pytest.raises(ValueError, match=f"1000000 bytes instead of {size}"):
            lz4.unpack(payload, size)
    with pytest.raises(ValueError, match="4 MiB"):
        lz4.pack(bytes((1 << 22) + 1))
    ENCODINGS["lz4"](renderer(ImageConfig(image="overlap", size=1024)))  # the largest picture fits


class _Pipeline:
    """What DALI does on a GPU, on the CPU: memory that the next run overwrites."""

    def __init__(self, size: int, batch_size: int, threads: int, device_id: int) -> None:
        self.memory, self.runs = np.zeros((batch_size, size), np.uint8), 0
        self.blocks: list[Any] = []

    def feed_input(self, name: str, blocks: list[Any]) -> None:
        assert name == "block"
        self.blocks = blocks

    def run(self) -> tuple[Any]:
        self.runs += 1
        for row, block in zip(self.memory, self.blocks, strict=False):
            row[:] = np.frombuffer(raw(block), np.uint8)
        pipeline = self

        class Inflated:
            def as_tensor(self) -> Any:
                return torch.from_numpy(pipeline.memory[: len(pipeline.blocks)])

        return (Inflated(),)


@pytest.fixture
def inflater(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dali.DaliInflater]:
    monkeypatch.setattr(dali, "inflating", _Pipeline)
    return lambda encoding, count: dali.DaliInflater(encoding, count, 1, "cuda:0")


@pytest.mark.parametrize(
    "config", [ImageConfig(), ImageConfig(image="simple"), ImageConfig(image="overlap", size=64)]
)
def test_the_road_of_a_gpu_gives_the_same_codes(config: ImageConfig, inflater: Callable[..., Any]) -> None:
    encoding = ENCODINGS["lz4"](renderer(config))
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 9, (2, 5, *encoding.drawer.code_shape), dtype=np.uint8)
    decode = inflater(encoding, 5)
    results = []
    for batch in codes:
        payloads = [np.frombuffer(encoding.encode(picture, None, None), np.uint8) for picture in batch]
        stored, wrong = decode(payloads)
        assert isinstance(stored, torch.Tensor) and not wrong
        results.append(stored)
    np.testing.assert_array_equal(torch.stack(results).numpy(), codes)  # the second run left the first alone
    # One that is damaged, or is another picture: the plain road says which.
    other = ENCODINGS["pnm"](renderer(config)).encode(codes[0, 0], None, None).replace(b"P", b"Q", 1)
    for bad in (lz4.pack(other), lz4.pack(b"x"), b"", payloads[0].tobytes()[:-3]):
        stored, wrong = decode([*payloads[:2], np.frombuffer(bad, np.uint8)])
        assert list(wrong) == [2] and wrong[2]
        np.testing.assert_array_equal(stored[:2], codes[1, :2])
    decode.close()


def test_a_loader_paints_and_augments_what_was_inflated(
    inflater: Callable[..., Any], spectra_folder: Path, tmp_path: Path
) -> None:
    for name in ("lz4", "png"):
        build(ShardConfig(encoding=name), spectra_folder, tmp_path / name, engine=HERE)
    with loader.open(tmp_path / "png", "val", 8, augment=Augment(mask=0.3)) as expected:
        wanted = [batch["pixel_values"].clone() for batch in expected]
    with loader.open(tmp_path / "lz4", "val", 8, augment=Augment(mask=0.3)) as batches:
        batches._decoder = inflater(batches._decoder._encoding, 8)
        for batch, want in zip(batches, wanted, strict=True):
            assert torch.equal(batch["pixel_values"], want)
        assert batches._decoder._pipeline.runs
    again = tmp_path / "again"
    build(ShardConfig(encoding="lz4"), spectra_folder, again, engine=HERE)
    shards = [[s.sha256 for s in Manifest.load(folder).shards] for folder in (tmp_path / "lz4", again)]
    assert shards[0] == shards[1]
    assert isinstance(dali.make_decoder(batches._decoder._encoding, "dali", 8, 1, "cuda:0"), dali.DaliInflater)
    assert not isinstance(dali.make_decoder(batches._decoder._encoding, "dali", 8, 1, "cpu"), dali.DaliInflater)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_on_a_gpu_dali_inflates_to_the_same_codes() -> None:
    encoding = ENCODINGS["lz4"](renderer(ImageConfig(image="overlap")))
    codes = np.random.default_rng(0).integers(0, 9, (6, *encoding.drawer.code_shape), dtype=np.uint8)
    decode = dali.make_decoder(encoding, "dali", 4, 1, "cuda:0")
    for batch in (codes[:4], codes[4:]):
        stored, wrong = decode([np.frombuffer(encoding.encode(c, None, None), np.uint8) for c in batch])
        assert isinstance(stored, torch.Tensor) and stored.is_cuda and not wrong
        np.testing.assert_array_equal(stored.cpu().numpy(), batch)


def test_a_damaged_sample_stops_a_loader_by_name(spectra_folder: Path, tmp_path: Path) -> None:
    from tests.oracles.faults import Copy
    from tests.shards.test_hostile_pictures import put

    build(ShardConfig(encoding="lz4"), spectra_folder, tmp_path / "set", engine=HERE)
    copy = Copy(tmp_path / "set")
    name = put(copy, lz4.pack(b"P5\n0074 0075\n255\n" + bytes(74 * 75)))
    assert name.endswith(".pgm.lz4")
    with (
        loader.open(copy.folder, "val", 8) as batches,
        pytest.raises(JobError, match=rf"val-000000\.tar: {name} at byte 512: .*5567 bytes instead of 5493"),
    ):
        list(batches)
