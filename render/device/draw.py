"""Spectra to codes where the model is: the kernels of this package again, as torch operations on whole batches.

The codes are those of `Renderer.codes`, bit for bit, on any device with float64. What that takes:

- the kernels' operations, one by one, in their order and at their precision; nothing here may be fused, since a
  compiler would contract a product and a sum to one rounding (so no `torch.compile`, `addcmul` or `lerp`);
- no division of a tensor by a Python number, which CUDA turns into a product with the reciprocal, and no division of
  a number by a tensor, which torch does so everywhere: `like` makes the other one a tensor;
- no root of torch's own, which on a CPU is off by a bit: `square_root`;
- ink in whole numbers, whose sum is the same in any order.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from specshards.render.base import Renderer
from specshards.render.config import ImageConfig
from specshards.render.device.values import (
    Values,
    fill_gaps,
    gradient,
    like,
    percentiles,
    select,
    square_root,
    stretch,
    to_bins,
    to_centres,
)
from specshards.render.grid import MapSettings
from specshards.render.lines import FULL, LONGEST, STEPS
from specshards.render.overlap import COLOURS
from specshards.render.scale import FAR, Scale
from specshards.render.simple import LineSettings

#: Running sums and medians round by their order, which a GPU does not keep.
ON_CPU = ("roi", "residual", "significance")
#: Memory that one part of a batch may take, bytes.
BUDGET = 1 << 30


def supports(config: ImageConfig) -> str | None:
    """None where `DeviceRenderer` draws this configuration, else why not."""
    left = [name for name in config.channels if name in ON_CPU]
    if left:
        return f"channels {', '.join(left)}: sums whose rounding depends on their order are drawn on the CPU only"
    return None


class DeviceRenderer(torch.nn.Module):
    """A renderer for padded batches on the device it was moved to: `DeviceRenderer(drawer).to("cuda")`.

    Its tables are float64 and float32 for a reason: move it, but do not convert it.

    Raises:
        ValueError: a configuration that is drawn on the CPU only; see `supports`.
    """

    levels: Tensor
    curve: Tensor
    edges: Tensor
    centres: Tensor
    order: Tensor

    def __init__(self, drawer: Renderer) -> None:
        super().__init__()
        reason = supports(drawer.config)
        if reason is not None:
            raise ValueError(reason)
        self.config, self.code_shape = drawer.config, drawer.code_shape
        self._coloured = len(self.config.channels) == 1
        self._scale = Scale.of(self.config, 256 if self._coloured else 255)
        self._lines, self._map = LineSettings.of(self.config), MapSettings.of(self.config, self._scale)
        #: Channels that are stored: gray codes where there is flux alone.
        self._channels = self.config.channels if self._coloured or len(self.code_shape) == 3 else ("flux",)
        cells = self.config.cells**2
        # The value that each cell shows; `place` is the cell of each value.
        order = np.argsort(self._map.place) if len(self._map.place) else np.arange(cells)
        for name, table in (
            ("levels", self._scale.levels), ("curve", self._scale.curve), ("edges", self._map.edges),
            ("centres", self._map.centres), ("order", order),
        ):  # fmt: skip
            self.register_buffer(name, torch.from_numpy(table), persistent=False)

    def codes(
        self, flux: Tensor, ivar: Tensor, wavelength: Tensor, mask: Tensor, has_ivar: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Draw B spectra.

        Args:
            flux, ivar: float32 `(B, N)`.
            wavelength: float64 `(B, N)`, Angstrom, increasing along each row; what is not positive is padding, and
                stands behind all pixels.
            mask: bool `(B, N)`, True = bad.
            has_ivar: bool `(B,)`; False where the ivar of a spectrum says nothing.

        Returns:
            Codes uint8 `(B, *code_shape)`, and bool `(B,)`, whether each was drawn. One that was not is 0, and
            `Renderer.codes` knows why; it also draws rows whose wavelengths fall.
        """
        count = max(1, BUDGET // self._bytes(flux.shape[1]))
        parts = [
            self._codes(*part)
            for part in zip(*(x.split(count) for x in (flux, ivar, wavelength, mask, has_ivar)), strict=True)
        ]
        return torch.cat([codes for codes, _ in parts]), torch.cat([drawn for _, drawn in parts])

    def _bytes(self, pixels: int) -> int:
        """Memory that one spectrum takes, roughly: what is alive at once of values, and of canvases."""
        size = self.config.size
        if self.config.image == "map2d":
            return 160 * max(pixels, len(self.order))
        lines = 1 if self.config.image == "simple" else 3
        return 160 * (pixels + 4 * lines * size) + 24 * lines * size * size

    def _codes(
        self, flux: Tensor, ivar: Tensor, wavelength: Tensor, mask: Tensor, has_ivar: Tensor
    ) -> tuple[Tensor, Tensor]:
        if len(flux) == 0 or flux.shape[1] < 2:
            return flux.new_zeros((len(flux), *self.code_shape), dtype=torch.uint8), torch.zeros_like(has_ivar)
        pixels, drawn = select(flux, ivar, wavelength, mask, has_ivar, *self.config.window)
        if self.config.image == "map2d":
            codes, fits = self._draw_map(pixels, has_ivar)
            drawn = drawn & fits
        else:
            codes = self._draw_lines(pixels)
        return torch.where(drawn.view(-1, *[1] * (codes.ndim - 1)), codes, 0), drawn

    def _limits(self, flux: Tensor, good: Tensor, fixed: bool) -> tuple[Tensor, Tensor]:
        """Where each spectrum's scale begins and ends, float64 `(B, 1)`: `render.scale.limits`."""
        if fixed:
            low = flux.new_full((len(flux), 1), self._scale.low, dtype=torch.float64)
            return low, torch.full_like(low, self._scale.high)
        low = torch.where(good, flux, math.inf).amin(1, keepdim=True).double()
        high = torch.where(good, flux, -math.inf).amax(1, keepdim=True).double()
        if self.config.limits != "percentile":
            return low, high
        inner_low, inner_high = percentiles(flux, good, self._scale.low, self._scale.high)
        wide = inner_high > inner_low
        return torch.where(wide, inner_low, low), torch.where(wide, inner_high, high)

    # Maps

    def _draw_map(self, pixels: Values, has_ivar: Tensor) -> tuple[Tensor, Tensor]:
        """Codes, and which spectra fit the grid: `render.channels.draw_channels`, and `render.map2d.draw_map`."""
        cells, native = len(self.order), self.config.grid == "native"
        if self.config.grid == "stretch":
            values = stretch(pixels, cells)
            fits = values.good.sum(1) >= 2
        elif native:
            values, fits = pixels, (pixels.end - pixels.first)[:, 0] <= cells
        else:
            conserve = self.config.resample == "flux"
            values = to_bins(pixels, self.edges, self.centres) if conserve else to_centres(pixels, self.centres)
            fits = values.good.sum(1) >= 2
        if self.config.grid != "stretch":  # which has none left
            values = values._replace(flux=fill_gaps(values.flux, values.good))
        source = self.order + (values.first if native else torch.zeros_like(values.first))
        known = (source >= values.first) & (source < values.end)
        source = source.clamp(max=values.flux.shape[1] - 1)
        channels = []
        for kind in self._channels:
            blank = 255 if kind == "mask" else self._map.empty
            channels.append(torch.where(known, self._channel(kind, values, has_ivar).gather(1, source), blank))
        return torch.stack(channels, -1).view(-1, *self.code_shape), fits

    def _channel(self, kind: str, values: Values, has_ivar: Tensor) -> Tensor:
        """Codes of one channel, uint8 `(B, L)`."""
        flux, good = values.flux, values.good
        if kind == "none":
            return torch.zeros_like(flux, dtype=torch.uint8)
        if kind == "mask":
            if values.share is None:
                return torch.where(good, 0, 255).to(torch.uint8)
            return (255.5 - values.share.clamp(max=1).double() * 255).to(torch.uint8)
        if kind == "snr":
            ratio = torch.where(good & has_ivar[:, None], flux * square_root(values.ivar), 0)
            return (square_root(ratio.clamp(0, 100)) * 25.5).to(torch.uint8)
        if kind in ("derivative", "curvature"):
            flux = gradient(values, flux)
        if kind == "curvature":
            flux = gradient(values, flux)
        low, high = self._limits(flux, good, self.config.limits == "fixed" and kind == "flux")
        return self._scaled(flux, low, high)

    def _scaled(self, flux: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """Flux float32 `(B, L)` to codes: `render.scale.colour_codes`, and `channel_codes` for RGB."""
        span = high - low
        if len(self.levels):
            share = ((flux - low) / span).float().clamp(0, 1)
            code = torch.bucketize(share, self.levels, right=True, out_int32=True)
        elif self._coloured:
            level = ((flux - low).float().double() / span).float() * 256
            code = torch.where(span > 0, level, 0).clamp(0, 255).int()
        else:
            level = (flux - low) * 255 / span
            code = torch.where(span > 0, level, 0).clamp(0, 255).int()
        return torch.where(span > 0, code, 0).to(torch.uint8)

    # Lines

    def _draw_lines(self, pixels: Values) -> Tensor:
        """Codes of `simple` or `overlap`: `render.simple.draw_simple`, and `render.overlap.draw_overlap`."""
        size, lines = self.config.size, 1 if self.config.image == "simple" else 3
        x, y = self._points(pixels, lines * size)
        at = pixels.good.flatten().nonzero()[:, 0]
        x, y = x.flatten()[at], y.flatten()[at]
        canvas = at // pixels.flux.shape[1] * lines
        if lines == 3:
            third = (x >= size).int() + (x >= 2 * size).int()
            x, canvas = x - (third * size).float(), canvas + third
        ink = torch.zeros((len(pixels.flux) * lines, size + 2, size + 4), dtype=torch.int32, device=x.device)
        draw(*pieces(x, y, canvas), self._lines.width, ink)
        ink = ink.view(-1, lines, size + 2, size + 4)[:, :, :size, 1 : size + 1]
        filled = ink.cumsum(2, dtype=torch.int32).clamp_(0, FULL).float()
        if lines == 1:
            return (255.5 - filled[:, 0] * float(np.float32(255 / FULL))).to(torch.uint8)
        a, b, c = (filled * float(np.float32(self._lines.alpha) / np.float32(FULL))).unbind(1)
        red = (1 - b) * (1 - c) * 255
        rest = red * (1 - a)
        green = rest + b * (1 - c) * float(COLOURS[1][1])
        return torch.stack([red + 0.5, green + 0.5, rest + c * 255 + 0.5], -1).to(torch.uint8)

    def _points(self, pixels: Values, stretch: int) -> tuple[Tensor, Tensor]:
        """Every pixel's place, x and y float32 `(B, N)`: `render.simple.polyline`; bad ones anywhere."""
        low, high = self._limits(pixels.flux, pixels.good, fixed=False)
        span, settings = high - low, self._lines
        share = torch.where(span > 0, (torch.where(pixels.good, pixels.flux, 0) - low) / span, 0.5)
        steps = len(self.curve) - 1
        if steps > 0:
            place = share.clamp(0, 1) * steps
            k = place.long()
            k = k - (k == steps).long()
            share = self.curve[k] + (self.curve[k + 1] - self.curve[k]) * (place - k)
        share = share.clamp(-FAR, FAR)
        size = float(settings.size)
        bottom, height = np.float32(size * (1 - settings.free)), np.float32(size * (1 - 2 * settings.free))
        y = float(bottom) - share.float() * float(height)
        x = (pixels.wavelength - settings.low) * (stretch / (settings.high - settings.low))
        return x.float(), y


def pieces(x: Tensor, y: Tensor, canvas: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Segments between points that follow one another on one canvas, none longer in x than `render.lines.LONGEST`.

    Args:
        x, y: float32 `(K,)`, pixels; canvas: int64 `(K,)`, rising.

    Returns:
        x and y where each segment begins, where it ends, and its canvas: `render.lines.pieces`.
    """
    here = (canvas[1:] == canvas[:-1]).nonzero()[:, 0]
    x, y, x_end, y_end = x[here], y[here], x[here + 1], y[here + 1]
    wide, high = x_end - x, y_end - y
    # A power of two: the product is the quotient.
    cuts = torch.where(wide > LONGEST, (wide * (1 / LONGEST)).long() + 1, 1)
    segment = torch.repeat_interleave(cuts)
    cut = torch.arange(len(segment), device=x.device) - (cuts.cumsum(0) - cuts)[segment]
    cuts = cuts[segment]
    share, last = cut.float() / cuts.float(), cut + 1 == cuts
    x, y = x[segment] + wide[segment] * share, y[segment] + high[segment] * share
    x_end, y_end = torch.where(last, x_end[segment], x.roll(-1)), torch.where(last, y_end[segment], y.roll(-1))
    return x, y, x_end, y_end, canvas[here][segment]


def draw(x: Tensor, y: Tensor, x_end: Tensor, y_end: Tensor, canvas: Tensor, width: float, ink: Tensor) -> None:
    """Add the strokes of segments to canvases, int32 `(C, S + 2, S + 4)`: `render.lines.draw`, `_boxes`, `_put`."""
    size, pitch, pen = ink.shape[1] - 2, ink.shape[2], np.float32(width)
    least, flat, canvas = float(np.float32(1e-6)), ink.view(-1), canvas * ink[0].numel()
    dx, dy = x_end - x, (y_end - y).abs()
    length = square_root(dx * dx + dy * dy).clamp(min=least)
    per_length = like(length, float(pen)) / length
    across, down = (dx + per_length * dy).clamp(min=least), (dy + per_length * dx).clamp(min=least)
    thick = (length * float(np.float32(FULL) * pen) / (across * down)).clamp(max=FULL)
    middle, reach = (y + y_end) * 0.5, down * 0.5
    top, bottom = ((edge * STEPS).clamp(0, size * STEPS).int() for edge in (middle - reach, middle + reach))
    parts = math.ceil(width + LONGEST)
    across_part = across / like(across, parts)
    for part in range(parts):
        start = ((x + x_end - across) * 0.5 + across_part * part).clamp(-1, size + 0.5)
        first = torch.floor(start)
        share = torch.minimum(first + 1 - start, across_part)
        inks = (thick * share + 0.5).int(), (thick * (across_part - share) + 0.5).int()
        column = canvas + first.long() + 1
        for edge, sign in ((top, 1), (bottom, -1)):
            place = column + (edge >> 8).long() * pitch
            for next_column, amount in enumerate(inks):
                beyond = (amount * (edge & (STEPS - 1))) >> 8
                flat.index_add_(0, place + next_column, amount - beyond, alpha=sign)
                flat.index_add_(0, place + pitch + next_column, beyond, alpha=sign)
