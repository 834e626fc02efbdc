"""Which picture, and how it is scaled: one frozen, checked configuration for every renderer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

IMAGES = ("simple", "overlap", "map2d")
LIMITS = ("minmax", "fixed")


class RenderError(ValueError):
    """This spectrum cannot be drawn with this configuration; the message is the reason, one line."""


@dataclass(frozen=True)
class ImageConfig:
    """What decides the bytes of a picture.

    The defaults are those of Spectromer (A&A 709, A122, and its public plotting code) but for one: the scale of
    `map2d` is each spectrum's own, because fixed flux limits made for SDSS saturate LAMOST's relative flux.

    Attributes:
        image: `simple`, `overlap` or `map2d`.
        size: side of the square picture, pixels.
        window: wavelengths drawn, Angstrom, observed frame.
        limits: flux limits of `map2d`: `minmax` of the good pixels of each spectrum, or `fixed`.
        flux_min, flux_max: the fixed limits, in the survey's flux unit.
        block: side of one flux value's square in `map2d`, pixels.
        colormap: matplotlib's name; `viridis` in the paper.
        line_width: of `simple` and `overlap`, pixels (0.5 points at 100 dots per inch).
        margin: share of the flux range left free above and below a line (matplotlib's default).
        alpha: opacity of each of the three lines of `overlap`.
    """

    image: str = "map2d"
    size: int = 224
    window: tuple[float, float] = (3536.7, 10413.6)
    limits: str = "minmax"
    flux_min: float = -1.13
    flux_max: float = 144.97
    block: int = 3
    colormap: str = "viridis"
    line_width: float = 0.5 * 100 / 72
    margin: float = 0.05
    alpha: float = 0.5

    def __post_init__(self) -> None:
        """Check the fields; ValueError names the field, its value and what is allowed."""
        _check(self.image in IMAGES, f"unknown IMAGE={self.image}: choose {', '.join(IMAGES)}")
        _check(self.limits in LIMITS, f"limits={self.limits}: choose {' or '.join(LIMITS)}")
        for name in ("size", "block"):
            _check(type(getattr(self, name)) is int, f"{name}={getattr(self, name)!r}: give a whole number of pixels")
        _check(16 <= self.size <= 1024, f"size={self.size}: give 16 to 1024 pixels")
        _check(1 <= self.block <= self.size, f"block={self.block}: give 1 to {self.size} pixels")
        low, high = self.window
        _check(0 < low < high < math.inf, f"window={self.window}: give two increasing wavelengths in Angstrom")
        _check(self.flux_min < self.flux_max, f"flux_min={self.flux_min}: must lie below flux_max={self.flux_max}")
        _check(0 < self.line_width <= 16, f"line_width={self.line_width}: give up to 16 pixels")
        _check(0 <= self.margin < 0.5, f"margin={self.margin}: give 0 to 0.5")
        _check(0 < self.alpha <= 1, f"alpha={self.alpha}: give a number up to 1")

    @classmethod
    def paper(cls, image: str) -> ImageConfig:
        """The paper's picture: for `map2d` with its fixed flux limits, which suit SDSS flux (1e-17 erg/s/cm2/A)."""
        return cls(image=image, limits="fixed" if image == "map2d" else "minmax")

    def to_dict(self) -> dict[str, Any]:
        """JSON-able content."""
        return {**asdict(self), "window": list(self.window)}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> ImageConfig:
        """The inverse of `to_dict`; ValueError for a key that this version does not know."""
        unknown = sorted(set(content) - {field.name for field in fields(cls)})
        _check(not unknown, f"unknown image option {', '.join(unknown)}: written by a newer version?")
        return cls(**{**content, "window": tuple(content.get("window", cls.window))})


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)
