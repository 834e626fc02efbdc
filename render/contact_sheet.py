"""Contact sheets: one spectrum in every image type, or many spectra in one."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from specshards.render import RENDERERS, ImageConfig, Renderer, RenderError, preset, renderer
from specshards.render.config import presets

Picture = npt.NDArray[np.uint8]
#: A caption, and flux, ivar, wavelength, mask as `Renderer.codes` takes them.
Titled = tuple[str, tuple[Any, ...]]

_GAP, _LINE = 8, 18
_PAPER, _INK, _EDGE = 255, (60, 60, 60), 190


def every_image(size: int, only: str | None = None) -> list[tuple[str, ImageConfig]]:
    """Every image type in its presets that are worth a look, or in the preset `only` if it has it, with its name.

    Raises:
        ValueError: no image type has it.
    """
    images = [
        (image, name)
        for image, kind in RENDERERS.items()
        for name in (kind.gallery if only is None else [only] if only in kind.presets else [])
    ]
    if not images:
        raise ValueError(f"unknown PRESET={only}: choose {', '.join(presets())}")
    # Drawings before maps; among each, what is default before the others.
    images.sort(key=lambda one: (RENDERERS[one[0]].noisy, one[1] != "default"))
    return [
        (image if name == "default" else f"{image}, {name}", replace(preset(name, image), size=size))
        for image, name in images
    ]


def table(spectra: Sequence[Titled], images: Sequence[tuple[str, ImageConfig]]) -> Picture:
    """One row a spectrum, one column an image type: uint8 `(H, W, 3)`, RGB."""
    side = images[0][1].size
    height = _LINE + len(spectra) * (side + _LINE + _GAP)
    sheet = np.full((height, len(images) * (side + _GAP) - _GAP, 3), _PAPER, np.uint8)
    for column, (title, config) in enumerate(images):
        x, drawer = column * (side + _GAP), renderer(config)
        _write(sheet, title, x, _LINE - 5)
        for row, (caption, spectrum) in enumerate(spectra):
            y = _LINE + row * (side + _LINE + _GAP)
            if column == 0:
                _write(sheet, caption, 0, y + _LINE - 5)
            _paste(sheet, drawn(drawer, spectrum), x, y + _LINE)
    return sheet


def sheet(spectra: Sequence[Titled], config: ImageConfig, columns: int = 5) -> Picture:
    """Spectra in one image type, left to right and down: uint8 `(H, W, 3)`, RGB."""
    drawer = renderer(config)
    return contact([(caption, drawn(drawer, spectrum)) for caption, spectrum in spectra], columns)


def contact(pictures: Sequence[tuple[str, Picture]], columns: int = 5) -> Picture:
    """Captioned RGB pictures of one size, left to right and down: uint8 `(H, W, 3)`, RGB."""
    side, columns = len(pictures[0][1]), min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    page = np.full((rows * (side + _LINE + _GAP), columns * (side + _GAP) - _GAP, 3), _PAPER, np.uint8)
    for i, (caption, picture) in enumerate(pictures):
        x, y = i % columns * (side + _GAP), i // columns * (side + _LINE + _GAP)
        _write(page, caption, x, y + _LINE - 5)
        _paste(page, picture, x, y + _LINE)
    return page


def spread(found: Sequence[tuple[str, float]], count: int) -> list[int]:
    """`count` places in a list of (class, S/N), as different as may be: of each class from low to high S/N.

    A class with fewer objects leaves its turns to the others.
    """
    by_class: dict[str, list[int]] = {}
    for i in sorted(range(len(found)), key=lambda i: (np.nan_to_num(found[i][1], nan=-1.0), i)):
        by_class.setdefault(found[i][0], []).append(i)
    share = dict.fromkeys(sorted(by_class), 0)
    while sum(share.values()) < min(count, len(found)):
        open_ = [name for name in share if share[name] < len(by_class[name])]
        share[min(open_, key=lambda name: share[name])] += 1
    chosen = []
    for name, n in share.items():
        places = np.linspace(0, len(by_class[name]) - 1, n).round().astype(int)
        chosen += [by_class[name][k] for k in places]
    return chosen


def drawn(drawer: Renderer, spectrum: tuple[Any, ...]) -> Picture:
    """The picture of flux, ivar, wavelength and mask, or why there is none, written on gray: uint8 RGB."""
    size = drawer.config.size
    try:
        return drawer.expand(drawer.codes(*spectrum))
    except RenderError as error:
        blank = np.full((size, size, 3), 225, np.uint8)
        for number, line in enumerate(textwrap.wrap(str(error), max(8, size // 8))):
            _write(blank, line, 4, (number + 1) * _LINE)
        return blank


def _paste(sheet: Picture, picture: Picture, x: int, y: int) -> None:
    sheet[y : y + len(picture), x : x + picture.shape[1]] = picture
    cv2.rectangle(sheet, (x, y), (x + picture.shape[1] - 1, y + len(picture) - 1), (_EDGE,) * 3, 1)


def _write(sheet: Picture, text: str, x: int, y: int) -> None:
    readable = text.encode("ascii", "replace").decode()  # OpenCV's letters are ASCII
    cv2.putText(sheet, readable, (x + 1, y), cv2.FONT_HERSHEY_SIMPLEX, 0.42, _INK, 1, cv2.LINE_AA)
