"""Which picture, and how it is scaled: one frozen, checked configuration for every renderer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from specshards.common.errors import UsageError
from specshards.render.registry import RENDERERS, having

LIMITS = ("minmax", "percentile", "fixed")
SCALES = ("linear", "asinh")
GRIDS = ("native", "stretch", "log")
RESAMPLINGS = ("flux", "linear")
FRAMES = ("observed", "rest")
ORDERS = ("rows", "boustrophedon", "patch")
AXES = ("window", "spectrum")
BAD_PIXELS = ("skip", "draw")
DERIVATIVES = ("angstrom", "pixel")
#: What a channel of `map2d` can hold. `none` is black.
CHANNELS = ("flux", "derivative", "curvature", "roi", "residual", "significance", "mask", "snr", "none")
#: Names for sets of channels, for command lines.
CHANNEL_SETS = {
    "flux": ("flux",),
    "red": ("flux", "none", "none"),
    "derivatives": ("flux", "derivative", "curvature"),
    "roi": ("flux", "roi", "none"),
    "quality": ("flux", "mask", "snr"),
    "lines": ("residual", "derivative", "significance"),
}
#: What the published pictures have in common: the window that Spectromer cuts, and every pixel as it is.
PUBLISHED = {"window": (3536.714, 10413.58), "bad_pixels": "draw"}
#: Fields of `ImageConfig` that came after the first data sets were written.
_LATER = ("frame", "axis", "bad_pixels", "line_colour", "derivative")
#: Side of a patch of the usual vision transformers (ViT-B/16), pixels.
PATCH = 16


class RenderError(ValueError):
    """This spectrum cannot be drawn with this configuration; the message is the reason, one line."""


@dataclass(frozen=True)
class ImageConfig:
    """What decides the bytes of a picture.

    The defaults take the three pictures of Spectromer (A&A 709, A122) and change what a place in them means: a column
    of a line is a wavelength, and the scale of `map2d` is each spectrum's own. The pictures as its public plotting
    code draws them are the preset `paper`.

    Attributes:
        image: the image type.
        size: side of the square picture, pixels.
        window: wavelengths drawn, Angstrom, in `frame`.
        frame: of the wavelengths that a renderer is given: `observed`, or `rest`, for which `shards` divides them by
            1 + z first. A picture in the rest frame knows its redshift.
        limits: where the flux scale begins and ends: `minmax` or `percentile` of each spectrum's good pixels, or
            `fixed` (of the flux channel of `map2d`).
        flux_min, flux_max: the fixed limits, in the survey's flux unit.
        percentiles: of `limits="percentile"`; what lies outside is cut off at the limit.
        scale: between the limits: `linear`, or `asinh`(x / softening) / asinh(1 / softening) for x from 0 to 1.
        softening: of `asinh`: below it the scale is nearly linear.
        axis: of `simple` and `overlap`: `window` (a column is a wavelength; the thirds of `overlap` are those of the
            window), or `spectrum` (each line goes from its first to its last pixel, whatever their wavelengths; the
            thirds of `overlap` are of equal numbers of pixels: as published).
        bad_pixels: `skip`, or `draw`: mask and ivar are not looked at, as published; what is not finite is skipped.
        margin: share of the flux range left free above and below a line, and beside it for `axis="spectrum"`
            (matplotlib's default).
        line_width: of `simple` and `overlap`, pixels (0.5 points at 100 dots per inch).
        line_colour: of `simple`: matplotlib's name; `tab:blue` as published.
        alpha: opacity of each of the three lines of `overlap`.
        block: side of one value's square in `map2d`, pixels.
        order: of the values of `map2d`: `rows`, `boustrophedon` (every other row backwards), or `patch`: each patch
            of 16 x 16 pixels holds one piece of the spectrum, row by row.
        channels: of `map2d`: one, shown through `colormap`, or three for red, green and blue, out of flux,
            derivative, curvature, roi, residual, significance, mask, snr, none; or the name of a set.
        derivative: of the channels `derivative` and `curvature`: per `angstrom`, or per `pixel`, as published.
        colormap: matplotlib's name; `viridis` in the paper.
        grid: of `map2d`: `native` (value i is pixel i), `stretch` (interpolated to fill every cell, linear in
            wavelength from the spectrum's first to its last pixel: the paper's option), or `log` (as many equal steps
            in log wavelength over the window as there are cells: a cell is a wavelength, whatever the survey).
        resample: to the `log` grid: `flux` (mean over the bin, conserves flux) or `linear` (value at its centre).
        roi_threshold: deviation from the running median that makes a region of interest, in `roi_unit`.
        roi_unit: `sigma` (robust scatter of the deviation) or `flux` (the paper's: 1.5 flux units).
        continuum_width: of the running mean that `residual` and `significance` subtract, Angstrom.
        line_width_kms: of the box that `significance` sums over, km/s.
    """

    image: str = field(default="map2d", metadata={"values": lambda: dict.fromkeys(RENDERERS)})
    size: int = 224
    window: tuple[float, float] = (3536.7, 10413.6)
    frame: str = "observed"
    limits: str = "minmax"
    flux_min: float = -1.13
    flux_max: float = 144.97
    percentiles: tuple[float, float] = (0.5, 99.5)
    scale: str = "linear"
    softening: float = 0.1
    axis: str = "window"
    bad_pixels: str = "skip"
    margin: float = 0.05
    line_width: float = 0.5 * 100 / 72
    line_colour: str = "black"
    alpha: float = 0.5
    block: int = 3
    order: str = "rows"
    channels: tuple[str, ...] = field(default=("flux",), metadata={"values": lambda: CHANNEL_SETS})
    derivative: str = "angstrom"
    colormap: str = "viridis"
    grid: str = "native"
    resample: str = "flux"
    roi_threshold: float = 3.0
    roi_unit: str = "sigma"
    continuum_width: float = 200.0
    line_width_kms: float = 500.0

    def __post_init__(self) -> None:
        """Check the fields; ValueError names the field, its value and what is allowed."""
        for name, allowed in (
            ("limits", LIMITS), ("scale", SCALES), ("order", ORDERS), ("grid", GRIDS), ("resample", RESAMPLINGS),
            ("roi_unit", ("sigma", "flux")), ("frame", FRAMES), ("axis", AXES), ("bad_pixels", BAD_PIXELS),
            ("derivative", DERIVATIVES),
        ):  # fmt: skip
            value = getattr(self, name)
            _check(value in allowed, f"{name}={value}: choose {', '.join(allowed[:-1])} or {allowed[-1]}")
        try:
            kind = RENDERERS.choose(self.image)
        except UsageError as error:
            raise ValueError(str(error)) from error
        for name in ("size", "block"):
            _check(type(getattr(self, name)) is int, f"{name}={getattr(self, name)!r}: give a whole number of pixels")
        _check(16 <= self.size <= 1024, f"size={self.size}: give 16 to 1024 pixels")
        _check(1 <= self.block <= self.size // 2, f"block={self.block}: give 1 to {self.size // 2} pixels")
        low, high = self.window
        _check(0 < low < high < math.inf, f"window={self.window}: give two increasing wavelengths in Angstrom")
        fixed = -math.inf < self.flux_min < self.flux_max < math.inf
        _check(fixed, f"flux_min={self.flux_min}: must lie below flux_max={self.flux_max}")
        low, high = self.percentiles
        _check(0 <= low < high <= 100, f"percentiles={self.percentiles}: give two increasing numbers from 0 to 100")
        _check(0.01 <= self.softening <= 10, f"softening={self.softening}: give 0.01 to 10")
        _check(0 < self.line_width <= 16, f"line_width={self.line_width}: give up to 16 pixels")
        _check(0 <= self.margin < 0.5, f"margin={self.margin}: give 0 to 0.5")
        _check(0 < self.alpha <= 1, f"alpha={self.alpha}: give a number up to 1")
        for name in ("roi_threshold", "continuum_width", "line_width_kms"):
            _check(0 < getattr(self, name) < math.inf, f"{name}={getattr(self, name)}: give a positive number")
        _check(
            self.line_colour == ImageConfig.line_colour or _is_colour(self.line_colour),
            f"line_colour={self.line_colour}: matplotlib has no such opaque colour; choose black, tab:blue, ...",
        )
        _check(
            self.colormap == ImageConfig.colormap or _is_colour_map(self.colormap),
            f"colormap={self.colormap}: matplotlib has no such colour map; choose viridis, cividis, gray, ...",
        )
        self._check_map()
        limits = [name for name in LIMITS if name in kind.limits]
        others = having("limits", self.limits)
        _check(
            self.limits in limits, f"limits={self.limits} is for {others}; {self.image} takes {' or '.join(limits)}"
        )
        for name in ("channels", "order", "grid", "axis", "line_colour", "derivative"):
            value, others = getattr(self, name), having("options", name)
            _check(
                name in kind.options or value == getattr(ImageConfig, name),
                f"{name}={value} is for {others}; leave it out for {self.image}",
            )

    def _check_map(self) -> None:
        wrong = [name for name in self.channels if name not in CHANNELS]
        _check(not wrong, f"unknown channel {', '.join(map(str, wrong))}: choose among {', '.join(CHANNELS)}")
        _check(
            len(self.channels) in (1, 3), f"channels={','.join(self.channels)}: give one (coloured) or three (RGB)"
        )
        _check(set(self.channels) != {"none"}, "channels=none: give at least one with content")
        if self.order == "patch":
            _check(
                PATCH % self.block == 0 and self.size % PATCH == 0,
                f"order=patch with block={self.block}, size={self.size}: the block must divide {PATCH} and "
                f"{PATCH} the size; take block=2",
            )

    @property
    def cells(self) -> int:
        """Values along each side of a `map2d`."""
        return self.size // self.block

    def to_dict(self) -> dict[str, Any]:
        """JSON-able content; without the fields of `_LATER` where they are what was drawn before they came."""
        content = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        return {k: v for k, v in content.items() if k not in _LATER or v != getattr(ImageConfig, k)}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> ImageConfig:
        """The inverse of `to_dict`; ValueError for a key that this version does not know."""
        unknown = sorted(set(content) - {field.name for field in fields(cls)})
        _check(not unknown, f"unknown image option {', '.join(unknown)}: written by a newer version?")
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in content.items()}
        return cls(**values)


def presets() -> tuple[str, ...]:
    """Names of the presets of all image types: those of the default one first."""
    kinds = [RENDERERS[ImageConfig.image], *RENDERERS.values()]
    return tuple(dict.fromkeys(name for kind in kinds for name in kind.presets))


def preset(name: str, image: str) -> ImageConfig:
    """The configuration `name` of `image`.

    Raises:
        ValueError: no such preset, or none for this image.
    """
    config = ImageConfig(image=image)
    own = RENDERERS[image].presets
    _check(name in presets(), f"unknown PRESET={name}: for {image} choose {', '.join(own)}")
    _check(name in own, f"PRESET={name} is for {having('presets', name)}; for {image} choose {', '.join(own)}")
    return replace(config, **own[name])


@dataclass(frozen=True)
class Wanted:
    """A picture that somebody asked for.

    Attributes:
        said: the fields of `config` that were asked for, by name or by a preset; the others are only defaults, and
            may be what suits the spectra.
    """

    config: ImageConfig
    said: frozenset[str]

    @classmethod
    def of(cls, preset_name: str, image: str, **changes: Any) -> Wanted:
        """A preset of an image type, and what is changed of it; errors as of `preset` and `ImageConfig`."""
        config = replace(preset(preset_name, image), **changes)
        return cls(config, frozenset(changes) | frozenset(RENDERERS[image].presets[preset_name]))


def _is_colour(name: str) -> bool:
    """Whether matplotlib knows an opaque colour of that name, which no setting of its changes as that of `C0`."""
    from matplotlib.colors import is_color_like, to_rgba

    return isinstance(name, str) and name[:1] != "C" and is_color_like(name) and to_rgba(name)[3] == 1


def _is_colour_map(name: str) -> bool:
    import matplotlib as mpl

    return name in mpl.colormaps


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)
