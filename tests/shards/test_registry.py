"""An encoding, and a picture, of another package in data sets: written, loaded by every backend, made anew, shown."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from specshards.benchmarks.kit.samples import made_up_galaxy
from specshards.common.errors import UsageError
from specshards.common.jobs import Engine
from specshards.ingest.spectra.blocks import iter_blocks
from specshards.ingest.spectra.folder import SpectraFolder
from specshards.render import RENDERERS, ImageConfig, renderer
from specshards.shards import loader
from specshards.shards.format.encoding import ENCODINGS, Encoding
from specshards.shards.format.manifest import Manifest, ShardConfig
from specshards.shards.loader import paint
from specshards.shards.loader.dali import dali_is_here, make_decoder
from specshards.shards.loader.decode import PlainDecoder
from specshards.shards.report.make import write_page
from specshards.shards.write.build import build
from specshards.shards.write.reshard import remake
from tests.oracles.other_package import Bars, Level, registered

BACKENDS = ["plain", *(["dali"] if dali_is_here() else [])]
HERE = Engine(workers=0)


class Deflated(Encoding):
    """The codes, deflated."""

    about, extension = "codes, deflated", "zz"

    def encode(self, codes, spectrum, grid):
        return zlib.compress(codes.tobytes())

    def decode(self, payload):
        try:
            return np.frombuffer(zlib.decompress(bytes(payload)), np.uint8).reshape(self.shape)
        except zlib.error as error:
            raise ValueError(str(error)) from error


class Whole(Deflated):
    """The whole picture, deflated."""

    about, extension, full_size = "RGB, deflated", "rgb.zz", True

    def encode(self, codes, spectrum, grid):
        return zlib.compress(self.drawer.expand(codes).tobytes())


@pytest.fixture
def others() -> Iterator[None]:
    with (
        registered(ENCODINGS, "deflated", Deflated),
        registered(ENCODINGS, "whole", Whole),
        registered(RENDERERS, "bars", Bars),
    ):
        yield


def pictures(folder: Path, backend: str, **options: object) -> dict[str, torch.Tensor]:
    with loader.open(folder, "train", 16, backend=backend, shuffle=False, **options) as batches:
        return {k: p for b in batches for k, p, v in zip(b["key"], b["pixel_values"], b["valid"], strict=True) if v}


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys() and len(found) > 100
    assert all(torch.equal(found[key], expected[key]) for key in expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_encoding_is_written_and_loaded_to_the_same_pixels(
    others: None, spectra_folder: Path, sets: Callable[[str], Path], tmp_path: Path, backend: str
) -> None:
    for name in ("deflated", "whole"):
        build(ShardConfig(encoding=name), spectra_folder, tmp_path / name, engine=HERE)
        expected = pictures(sets("png"), backend)
        assert_same(pictures(tmp_path / name, backend), expected)
        write_page(tmp_path / name)
        assert "deflated" in (tmp_path / name / "report.html").read_text()


def test_what_dali_cannot_decode_is_not_given_to_it(others: None) -> None:
    for name in ("deflated", "whole", "pnm", "flux"):
        encoding = ENCODINGS[name](renderer(ImageConfig()))
        decoder = make_decoder(encoding, "dali", 8, 1, "cpu")
        assert isinstance(decoder, PlainDecoder)
        decoder.close()


def test_data_sets_are_made_anew_where_nothing_is_lost(
    others: None, sets: Callable[[str], Path], tmp_path: Path
) -> None:
    for source, encoding in (("png", "deflated"), ("flux", "whole")):
        remake([sets(source)], tmp_path / encoding, encoding=encoding, engine=HERE)
        assert_same(pictures(tmp_path / encoding, "plain"), pictures(sets("png"), "plain"))
    remake([tmp_path / "deflated"], tmp_path / "back", encoding="pnm", engine=HERE)
    assert_same(pictures(tmp_path / "back", "plain"), pictures(sets("png"), "plain"))
    with pytest.raises(UsageError, match="holds whole, of which no png can be made"):
        remake([tmp_path / "whole"], tmp_path / "x", encoding="png", engine=HERE)
    with pytest.raises(UsageError, match=r"unknown ENCODING=webp: choose png, pnm, lz4, jpeg, .*deflated, whole"):
        remake([sets("png")], tmp_path / "x", encoding="webp", engine=HERE)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_picture_is_stored_and_drawn_while_loading_to_the_same_pixels(
    others: None, spectra_folder: Path, sets: Callable[[str], Path], tmp_path: Path, backend: str
) -> None:
    image = ImageConfig(image="bars", size=64)
    build(ShardConfig(image=image), spectra_folder, tmp_path / "bars", engine=HERE)
    assert Manifest.load(tmp_path / "bars").config.image == image
    found = pictures(tmp_path / "bars", backend)
    assert_same(pictures(sets("flux"), backend, image=image), found)
    drawer, source = renderer(image), SpectraFolder.scan(spectra_folder)
    for _, block in iter_blocks(source):
        for i, row in enumerate(block.rows.tolist()):
            key = f"0/{row:010d}"
            if key in found:
                expected = drawer.expand(drawer.codes(*block.arrays(i)))
                np.testing.assert_array_equal(found[key].permute(1, 2, 0).numpy(), expected)


def test_on_a_device_it_is_drawn_by_its_own_module_or_on_the_cpu(
    others: None, caplog: pytest.LogCaptureFixture
) -> None:
    spectra = [made_up_galaxy(), made_up_galaxy(1)]
    with registered(RENDERERS, "level", Level), caplog.at_level("INFO", "specshards"):
        for name in ("level", "simple", "overlap", "map2d"):
            drawer = renderer(ImageConfig(image=name))
            module = paint.torch_module(drawer)
            assert module is not None
            codes = paint.draw_on_device(module, drawer, spectra, ["0/a", "0/b"], "cpu")
            np.testing.assert_array_equal(codes.numpy(), paint.render_batch(drawer, spectra, ["0/a", "0/b"]))
        assert paint.torch_module(renderer(ImageConfig(image="bars"))) is None
    assert caplog.messages == ["bars has no torch module; it is drawn on the CPU"]
