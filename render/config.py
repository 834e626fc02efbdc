"""What a picture is: the frozen, checked configuration that travels with every output."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

IMAGES: tuple[str, ...] = ("simple", "overlap", "map2d")
LIMITS: tuple[str, ...] = ("minmax", "fixed")

# The fields that change the picture, by image type; the others are set back to their defaults, so that two
# configurations which draw the same picture are equal and have the same fingerprint.
_COMMON = ("image", "size", "window")
_USED = {
    "simple": (*_COMMON, "line_width"),
    "overlap": (*_COMMON, "line_width"),
    "map2d": (*_COMMON, "block", "limits", "flux_min", "flux_max", "colormap"),
}


@dataclass(frozen=True)
class ImageConfig:
    """The choice of picture; fields without a meaning for `image` are set back to their defaults.

    Attributes:
        image: `simple` (one line), `overlap` (three thirds in red, green, blue) or `map2d` (cells of colour).
        size: side of the square picture, pixels.
        window: first and last wavelength drawn, Angstrom, both included.
        block: side of a map2d cell, pixels.
        limits: map2d flux at the two ends of the colour map: `minmax` of this spectrum's good pixels, or `fixed`.
            The scale is per spectrum by default because LAMOST flux is relative (hundreds to tens of thousands)
            where SDSS and DESI flux is 1 to 100: a fixed range saturates one of them.
        flux_min: lower limit if `limits` is `fixed`, in the flux unit of the survey.
        flux_max: upper limit likewise.
        colormap: a matplotlib colour map of 256 entries.
        line_width: full width of a drawn line, pixels.
    """

    image: str = "map2d"
    size: int = 224
    window: tuple[float, float] = (3536.7, 10413.6)
    block: int = 3
    limits: str = "minmax"
    # Limits and line width as in the public code of the paper (github.com/astromer-science/spectromer,
    # spectra_plotter.py): vmin, vmax of its map2d; lines of 0.5 points in a figure of 100 dots per inch.
    flux_min: float = -1.13
    flux_max: float = 144.97
    colormap: str = "viridis"
    line_width: float = round(0.5 * 100 / 72, 4)

    def __post_init__(self) -> None:
        if self.image not in IMAGES:
            raise ValueError(f"unknown IMAGE {self.image!r}: choose simple, overlap or map2d")
        self._reset_unused()
        _check_int("size", self.size, 8, 4096)
        _check_int("block", self.block, 1, self.size)
        self._check_window()
        if self.limits not in LIMITS:
            raise ValueError(f"unknown limits {self.limits!r}: choose minmax or fixed")
        if not (_is_number(self.flux_min) and _is_number(self.flux_max) and self.flux_min < self.flux_max):
            raise ValueError(f"flux_min {self.flux_min} must be finite and below flux_max {self.flux_max}")
        if not (_is_number(self.line_width) and 0.1 <= self.line_width <= 32):
            raise ValueError(f"line_width {self.line_width} is not a number of pixels from 0.1 to 32")
        _check_colormap(self.colormap)

    def _reset_unused(self) -> None:
        used = set(_USED[self.image])
        if self.limits == "minmax":
            used -= {"flux_min", "flux_max"}
        for field in fields(self):
            # A block must fit the picture whatever its size; where it is unused it says nothing.
            if field.name not in used:
                object.__setattr__(self, field.name, field.default)

    def _check_window(self) -> None:
        try:
            low, high = self.window
        except (TypeError, ValueError):
            raise ValueError(f"window {self.window!r} is not a pair of wavelengths in Angstrom") from None
        if not (_is_number(low) and _is_number(high) and 0 < low < high):
            raise ValueError(f"window {self.window!r} must be two increasing positive wavelengths in Angstrom")
        object.__setattr__(self, "window", (float(low), float(high)))

    @classmethod
    def paper(cls, image: str) -> ImageConfig:
        """The choices of Strano Moraes et al. 2026 (A&A 709, A122); they differ from ours in map2d's fixed limits.

        Its limits suit SDSS flux (1e-17 erg/s/cm2/A); relative LAMOST flux saturates.
        """
        return cls(image=image, limits="fixed") if image == "map2d" else cls(image=image)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able fields, those that shape the picture only."""
        used = _USED[self.image]
        if self.limits == "minmax":
            used = tuple(name for name in used if name not in ("flux_min", "flux_max"))
        content = {name: getattr(self, name) for name in used}
        return {**content, "window": list(self.window)}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> ImageConfig:
        """The inverse of `to_dict`; unknown keys are refused, because they would change nothing in silence."""
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(content) - known)
        if unknown:
            raise ValueError(f"unknown image settings {', '.join(unknown)}: choose from {', '.join(sorted(known))}")
        values = dict(content)
        if isinstance(values.get("window"), list):
            values["window"] = tuple(values["window"])
        return cls(**values)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check_int(name: str, value: object, low: int, high: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"{name} {value!r} is not a whole number from {low} to {high}")


def _check_colormap(name: str) -> None:
    if name == "viridis":  # the everyday case must not wait for matplotlib
        return
    from matplotlib import colormaps

    if name not in colormaps or colormaps[name].N != 256:
        raise ValueError(f"colormap {name!r} is not a matplotlib colour map of 256 entries, such as viridis")
