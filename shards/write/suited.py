"""The picture that suits the spectra, in what nobody has said of it: its window, and how a map is cut into cells.

A survey brings a window of its own (`Survey.default_image`); that of spectra whose survey brings none is what they
reach themselves. Several surveys share the union of their windows, on the log grid where these differ, so that a cell
is one wavelength in all of them. What holds none, or not all, of the pixels of most spectra of a survey gives way: a
smaller block, then the log grid.

The spectra looked at are the first of every survey and layout in some row groups, the same ones whatever the workers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from specshards.ingest.spectra.blocks import read_blocks
from specshards.ingest.spectra.folder import SpectraFolder
from specshards.ingest.surveys.survey import OPTICAL, survey_of
from specshards.render import ImageConfig, RenderError
from specshards.render.frame import framed
from specshards.render.prepare import blocks_for, rounded
from specshards.render.registry import RENDERERS

Window = tuple[float, float]

#: Row groups looked at, evenly over all of them.
GROUPS = 32


class Pixels(NamedTuple):
    """Where the pixels of one spectrum lie.

    Attributes:
        wavelength: of all, `(n,)`, Angstrom. first, last: of those that are good.
    """

    wavelength: npt.NDArray[np.floating]
    first: float
    last: float

    def inside(self, window: Window) -> int:
        """How many there are from one end to the other."""
        return int(((self.wavelength >= window[0]) & (self.wavelength <= window[1])).sum())

    def width(self, window: Window) -> float:
        """Of a pixel in it, in ln(wavelength): the median, which no gap counts in; 0 where there are none."""
        inside = self.wavelength[(self.wavelength >= max(window[0], 1e-9)) & (self.wavelength <= window[1])]
        steps = np.abs(np.diff(np.log(inside.astype(np.float64))))
        return float(np.median(steps)) if len(steps) else 0.0

    def shares(self, window: Window) -> bool:
        """Whether something good can be in it."""
        return self.first < window[1] and self.last > window[0]


def suited(source: SpectraFolder, image: ImageConfig, said: Collection[str]) -> tuple[ImageConfig, tuple[str, ...]]:
    """The picture for all spectra of `source`, and what is to be said of it, a line each; none where it is `image`.

    Args:
        said: fields of `image` that stay as they are.

    Raises:
        UsageError: what was said does not go with what suits the spectra. JobError: a damaged file.
    """
    found = _pixels(source, image.frame)
    wanted = {name: _default(name) for name in source.surveys}
    windows = {name: _window(wanted[name], found.get(name, ())) for name in wanted}
    changes: dict[str, Any] = {"window": _union(list(windows.values()))}
    changes |= _agreed(list(wanted.values()))
    if len(set(windows.values())) > 1:
        changes |= {"grid": "log", "block": min(each.get("block", ImageConfig.block) for each in wanted.values())}
    takes = RENDERERS[image.image].options
    is_map = "grid" in takes
    config = _changed(image, {k: v for k, v in changes.items() if is_map or k not in ("grid", "block")}, said)
    if is_map:
        known = any("block" in each or each.get("window") == OPTICAL for each in wanted.values())
        config = _held(config, found, said, may_grow=not known)
    return config, () if config == image else _lines(config, found, is_map)


def suits_all(image: ImageConfig, surveys: Sequence[str], said: Collection[str]) -> ImageConfig:
    """The picture for surveys of which no spectrum is at hand yet: as `suited`, of what they bring themselves."""
    wanted = [_default(name) for name in surveys]
    windows = [tuple(each["window"]) for each in wanted if "window" in each]
    changes: dict[str, Any] = {"window": _union(windows)} if windows else {}
    changes |= _agreed(wanted)
    if "grid" not in RENDERERS[image.image].options:
        changes = {k: v for k, v in changes.items() if k not in ("grid", "block")}
    elif len(set(windows)) > 1:
        changes |= {"grid": "log", "block": min(each.get("block", ImageConfig.block) for each in wanted)}
    return _changed(image, changes, said)


def _pixels(source: SpectraFolder, frame: str) -> dict[str, list[Pixels]]:
    """By survey."""
    found: dict[str, list[Pixels]] = {}
    places = np.unique(np.linspace(0, len(source.groups) - 1, min(GROUPS, len(source.groups))).astype(int))
    for group in (source.groups[i] for i in places):
        block = next(read_blocks(source.folder, group, source.surveys))
        kinds: set[tuple[str, str]] = set()
        names = block.meta["survey"].to_pylist()
        layouts = block.meta["layout"].to_pylist() if "layout" in block.meta.column_names else [""] * len(block)
        for i, kind in enumerate(zip(names, layouts, strict=True)):
            if kind in kinds:
                continue
            try:
                arrays, _ = framed(
                    frame, block.arrays(i), block.grid(i), block.redshift(i), block.frame(i), block.velocity(i)
                )
            except RenderError:
                continue  # which the job says of it
            good = arrays.wavelength[arrays.good() & (arrays.wavelength > 0)]
            if len(good) > 1:
                kinds.add(kind)
                one = Pixels(arrays.wavelength, float(good.min()), float(good.max()))
                found.setdefault(kind[0], []).append(one)
    return found


def _default(name: str) -> Mapping[str, Any]:
    survey = survey_of(name)
    return {} if survey is None else survey.default_image


def _window(wanted: Mapping[str, Any], spectra: Sequence[Pixels]) -> Window:
    """Of one survey: what it brings, unless most of its spectra have nothing there; else what they reach."""
    own = wanted.get("window")
    if own is not None and not _most(spectra, lambda one: not one.shares(own)):
        return own[0], own[1]
    if not spectra:
        return OPTICAL
    low = np.quantile([one.first for one in spectra], 0.1, method="lower")
    high = np.quantile([one.last for one in spectra], 0.9, method="higher")
    return rounded(float(low), float(high), 4)


def _union(windows: Sequence[Window]) -> Window:
    return min(low for low, _ in windows), max(high for _, high in windows)


def _agreed(wanted: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What all surveys want alike, but for the window."""
    first, *others = wanted
    return {k: v for k, v in first.items() if k != "window" and all(k in o and o[k] == v for o in others)}


def _changed(image: ImageConfig, changes: Mapping[str, Any], said: Collection[str]) -> ImageConfig:
    return replace(image, **{name: value for name, value in changes.items() if name not in said})


def _held(
    config: ImageConfig, found: Mapping[str, Sequence[Pixels]], said: Collection[str], *, may_grow: bool
) -> ImageConfig:
    """A block and a grid that hold all pixels; larger blocks, too, where no survey says which (`may_grow`)."""
    pixels = max((one.inside(config.window) for many in found.values() for one in many), default=0)
    too_many = any(_most(many, lambda one: one.inside(config.window) > config.cells**2) for many in found.values())
    if config.grid != "native" or not pixels or not (too_many or may_grow):
        return config
    blocks = blocks_for(config, pixels)
    if blocks and "block" not in said:
        return replace(config, block=blocks[-1])
    return replace(config, grid="log") if too_many and "grid" not in said else config


def _most(spectra: Sequence[Pixels], what: Callable[[Pixels], bool]) -> bool:
    return 2 * sum(map(what, spectra)) > len(spectra)


def _lines(config: ImageConfig, found: Mapping[str, Sequence[Pixels]], is_map: bool) -> tuple[str, ...]:
    """The window, and what a cell or a column is."""
    low, high = config.window
    line = f"picture of {low:,.6g} to {high:,.6g} A, as suits {' and '.join(sorted(found)) or 'the spectra'}"
    if not is_map:
        return (f"{line}; another window with --window",)
    cells = config.cells**2
    line += f": {config.cells} x {config.cells} cells of {config.block} x {config.block} pixels"
    if config.grid != "log":
        return (f"{line}, a pixel of the spectrum in each; --window, --block and --grid choose others",)
    step = np.log(high / low) / cells
    middle = float(np.sqrt(low * high))
    shares = []
    for name, many in sorted(found.items()):
        per_cell = [step / width for one in many if (width := one.width(config.window)) > 0]
        if per_cell:
            shares.append(f"{np.median(per_cell):.2g} of {name}")
    return (
        f"{line}, each one wavelength for every survey ({middle * step:.2g} A at {middle:,.0f} A), with so many "
        f"pixels of a spectrum in it: {', '.join(shares) or 'none'}; --window, --block and --grid choose others",
    )
