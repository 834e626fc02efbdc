"""Make the pictures of docs/images.md from mock spectra: `python docs/pictures.py`."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from specshards.benchmarks.kit.samples import made_up_galaxy  # noqa: E402
from specshards.benchmarks.peers.matplotlib_comparison import three_images  # noqa: E402
from specshards.render import ImageConfig, preset  # noqa: E402
from specshards.render.config import CHANNEL_SETS  # noqa: E402
from specshards.render.contact_sheet import every_image, spread, table  # noqa: E402

Spectrum = tuple[Any, ...]


def options() -> dict[str, tuple[list[tuple[str, Spectrum]], list[tuple[str, ImageConfig]]]]:
    """For each option: the spectra that show it (rows) and the pictures without and with it (columns)."""
    plain, usual = made_up_galaxy(), ("as it is", ImageConfig())
    spike = (plain[0].copy(), *plain[1:])
    spike[0][2900] *= 12
    gaps = (*plain[:3], plain[3].copy())
    for start in (300, 1200, 2900):
        gaps[3][start : start + 130] = True
    wavelength = 10.0 ** (3.58 + 1e-4 * np.arange(4300))
    sdss = (np.interp(wavelength, plain[2], plain[0]).astype(np.float32), None, wavelength, None)
    row = [("", plain)]

    def against(config: ImageConfig, name: str, rows: Any = None) -> Any:
        return (rows or row, [usual, (name, config)])

    red = ImageConfig(channels=CHANNEL_SETS["red"])
    return {
        "percentile": against(ImageConfig(limits="percentile"), "limits=percentile", [("one spike", spike)]),
        "asinh": against(ImageConfig(scale="asinh"), "scale=asinh"),
        "log": against(
            ImageConfig(grid="log"), "grid=log", [("on LAMOST's pixels", plain), ("on SDSS's pixels", sdss)]
        ),
        "stretch": against(ImageConfig(grid="stretch"), "grid=stretch"),
        "boustrophedon": against(ImageConfig(order="boustrophedon"), "order=boustrophedon"),
        "patch": against(preset("patch", "map2d"), "order=patch, block=2, grid=log"),
        "block": against(ImageConfig(size=160, block=2), "size=160, block=2"),
        "red": against(red, "channels=red"),
        "derivatives": (
            row,
            [("channels=red", red), ("derivatives", ImageConfig(channels=CHANNEL_SETS["derivatives"]))],
        ),
        "roi": (row, [("channels=red", red), ("roi", preset("paper-roi", "map2d"))]),
        "quality": (
            [("three masked stretches", gaps)],
            [("as it is", replace(preset("survey-free", "map2d"))), ("quality", preset("quality", "map2d"))],
        ),
        "lines": (row, [("grid=log", preset("survey-free", "map2d")), ("lines", preset("lines", "map2d"))]),
        "robust-line": (
            [("one spike", spike)],
            [
                ("simple", ImageConfig(image="simple")),
                ("limits=percentile", ImageConfig(image="simple", limits="percentile")),
            ],
        ),
    }


def gallery(out: Path) -> None:
    """Ten mock spectra of different classes and S/N in every image type, at half size."""
    from specshards.ingest.mock import MockConfig, write
    from specshards.ingest.spectra.objects import objects

    with tempfile.TemporaryDirectory() as scratch:
        write(MockConfig(survey="lamost", n_files=400, seed=1), Path(scratch))
        found = list(objects(Path(scratch), []))
    chosen = spread([(meta.get("class") or "unlabelled", meta["sn_median"]) for meta, _ in found], 10)
    rows = []
    for i in chosen:
        meta, arrays = found[i]
        what = f"mock {meta.get('class') or 'unlabelled'}, z {meta.get('z') or 0:.3f}, S/N {meta['sn_median']:.1f}"
        rows.append((what, arrays))
    page = table(rows, every_image(224))
    half = cv2.resize(page, (page.shape[1] // 2, page.shape[0] // 2), interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(out), half[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])


def main() -> None:
    """Write everything."""
    folder = HERE / "images" / "options"
    folder.mkdir(parents=True, exist_ok=True)
    for name, (spectra, images) in options().items():
        cv2.imwrite(str(folder / f"{name}.png"), table(spectra, images)[..., ::-1])
    three_images(HERE / "images" / "three-images.png")
    gallery(HERE / "images" / "gallery.jpg")


if __name__ == "__main__":
    main()
