"""Our pictures beside matplotlib's drawing of the same: one PNG to look at, and how alike they are.

specshards bench compare-matplotlib --data FOLDER --out compare.png
specshards bench compare-matplotlib --readme docs/images/three-images.png     # from a made-up spectrum
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from specshards.benchmarks.kit.samples import made_up_galaxy, read_spectra
from specshards.benchmarks.peers.matplotlib_reference import IMAGES, draw
from specshards.common.errors import UsageError
from specshards.common.spectrum import Arrays
from specshards.render import ImageConfig, renderer


def likeness(spectra: list[Arrays], image: str) -> dict[str, float]:
    """Correlation, structural similarity and mean absolute difference (gray levels) of our pictures and matplotlib's.

    `worst` is the number of the spectrum with the lowest correlation.
    """
    import torch
    from torchmetrics.functional.image import structural_similarity_index_measure as ssim

    drawer = renderer(ImageConfig(image=image))
    correlations, similarities, differences = [], [], []
    for spectrum in spectra:
        ours = drawer.expand(drawer.codes(*spectrum)).astype(float)
        reference = draw(spectrum, drawer.config).astype(float)
        correlations.append(np.corrcoef(ours.ravel(), reference.ravel())[0, 1])
        differences.append(np.abs(ours - reference).mean())
        pair = [torch.from_numpy(picture).permute(2, 0, 1)[None] for picture in (ours, reference)]
        similarities.append(float(ssim(*pair, data_range=255.0)))
    return {
        "spectra": len(spectra), "median_correlation": float(np.median(correlations)),
        "lowest_correlation": float(np.min(correlations)), "median_ssim": float(np.median(similarities)),
        "lowest_ssim": float(np.min(similarities)), "mean_absolute_difference": float(np.mean(differences)),
        "worst": int(np.argmin(correlations)),
    }  # fmt: skip


def contact_sheet(spectra: list[Arrays], out: Path) -> None:
    """One row a spectrum: each image type, ours at the left and matplotlib's at the right of it."""
    import cv2

    gap, label = 6, 22
    side = 224
    width = 2 * len(IMAGES) * (side + gap)
    sheet = np.full((label + len(spectra) * (side + gap), width, 3), 200, np.uint8)
    for column, image in enumerate(IMAGES):
        drawer = renderer(ImageConfig(image=image))
        for half, who in enumerate(("ours", "matplotlib")):
            x = (2 * column + half) * (side + gap)
            cv2.putText(
                sheet, f"{image}: {who}", (x + 4, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA
            )
            for row, spectrum in enumerate(spectra):
                y = label + row * (side + gap)
                ours = drawer.expand(drawer.codes(*spectrum))
                sheet[y : y + side, x : x + side] = draw(spectrum, drawer.config) if half else ours
    cv2.imwrite(str(out), sheet[..., ::-1])


def three_images(out: Path) -> None:
    """The three images of one made-up spectrum side by side, with their names."""
    import cv2

    side, gap, label = 224, 16, 26
    sheet = np.full((side + label, 3 * side + 2 * gap, 3), 255, np.uint8)
    for column, image in enumerate(IMAGES):
        x = column * (side + gap)
        drawer = renderer(ImageConfig(image=image))
        sheet[label:, x : x + side] = drawer.expand(drawer.codes(*made_up_galaxy()))
        cv2.putText(sheet, image, (x + 2, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (60, 60, 60), 1, cv2.LINE_AA)
        sheet[label, x : x + side] = sheet[-1, x : x + side] = 190
        sheet[label:, x] = sheet[label:, x + side - 1] = 190
    out.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(out), sheet[..., ::-1])


def main(
    data: Annotated[Path | None, typer.Option(help="Folder of survey files.")] = None,
    out: Annotated[Path, typer.Option(help="The PNG.")] = Path("compare.png"),
    count: Annotated[int, typer.Option(help="Spectra in the PNG.")] = 10,
    compare: Annotated[int, typer.Option(help="Spectra in the figures of likeness.")] = 200,
    readme: Annotated[Path | None, typer.Option(help="Only make the README's picture, there.")] = None,
) -> None:
    """Draw real spectra with both, side by side, and print how alike the pictures are."""
    if readme is not None:
        three_images(readme)
        return
    if data is None:
        raise UsageError("give --data, a folder of survey files, or --readme, a PNG")
    spectra = read_spectra(data, compare)
    worst = []
    for image in IMAGES:
        numbers = likeness(spectra, image)
        worst.append(int(numbers["worst"]))
        print(image, json.dumps(numbers))
    contact_sheet([spectra[i] for i in dict.fromkeys([*worst, *range(min(count, len(spectra)))])], out)
    print(f"{out}: the least alike of each image first")
