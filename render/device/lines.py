"""`render.simple` and `render.overlap` as torch operations; `render.device.draw` says what gives the same bits."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from specshards.render.base import Renderer
from specshards.render.device.draw import DeviceRenderer
from specshards.render.device.values import Values, like, square_root
from specshards.render.lines import COLOURS, FULL, LONGEST, STEPS, LineSettings
from specshards.render.scale import FAR, Scale


class DeviceLines(DeviceRenderer):
    """One line, or three coloured ones over each other; `lines` is 1 or 3."""

    curve: Tensor

    def __init__(self, drawer: Renderer, lines: int) -> None:
        super().__init__(drawer, Scale.of(drawer.config, 256))
        self._lines, self._settings = lines, LineSettings.of(self.config)
        self.register_buffer("curve", torch.from_numpy(self._scale.curve), persistent=False)

    def _bytes(self, pixels: int) -> int:
        size, lines = self.config.size, self._lines
        return 160 * (pixels + 4 * lines * size) + 24 * lines * size * size

    def _draw(self, pixels: Values, has_ivar: Tensor) -> tuple[Tensor, bool]:
        """Codes of `simple` or `overlap`: `render.simple.draw_simple`, and `render.overlap.draw_overlap`."""
        size, lines = self.config.size, self._lines
        x, part = self._across(pixels)
        y = self._heights(pixels)
        at = pixels.good.flatten().nonzero()[:, 0]
        x, y, part = x.flatten()[at], y.flatten()[at], part.flatten()[at]
        canvas = at // pixels.flux.shape[1] * lines + part
        ink = torch.zeros((len(pixels.flux) * lines, size + 2, size + 4), dtype=torch.int32, device=x.device)
        draw(*pieces(x, y, canvas), self._settings.width, ink)
        ink = ink.view(-1, lines, size + 2, size + 4)[:, :, :size, 1 : size + 1]
        filled = ink.cumsum(2, dtype=torch.int32).clamp_(0, FULL).float()
        if lines == 1:
            return (255.5 - filled[:, 0] * float(np.float32(255 / FULL))).to(torch.uint8), True
        a, b, c = (filled * float(np.float32(self._settings.alpha) / np.float32(FULL))).unbind(1)
        red = (1 - b) * (1 - c) * 255
        rest = red * (1 - a)
        green = rest + b * (1 - c) * float(COLOURS[1][1])
        return torch.stack([red + 0.5, green + 0.5, rest + c * 255 + 0.5], -1).to(torch.uint8), True

    def _across(self, pixels: Values) -> tuple[Tensor, Tensor]:
        """Every pixel's x on its line, float32, and which line that is, int64; `(B, N)`.

        As `render.simple.polylines` has it.
        """
        settings, lines, wavelength = self._settings, self._lines, pixels.wavelength
        if not settings.spectrum:
            x = (wavelength - settings.low) * (lines * float(settings.size) / (settings.high - settings.low))
            x = x.float()
            part = sum((x >= k * settings.size).long() for k in range(1, lines)) + torch.zeros_like(x).long()
            return x - (part * settings.size).float(), part
        last = wavelength.shape[1] - 1
        count, at = pixels.end - pixels.first, torch.arange(last + 1, device=wavelength.device)
        ends = [pixels.first + k * (count // lines) + (count % lines).clamp(max=k) for k in range(lines + 1)]
        part = sum((at >= end).long() for end in ends[1:-1]) + torch.zeros_like(wavelength).long()
        first, final = torch.cat(ends[:-1], 1), torch.cat(ends[1:], 1) - 1
        low, high = (wavelength.gather(1, place.clamp(0, last)) for place in (first, final))
        left, width = settings.size * settings.free, settings.size * (1 - 2 * settings.free)
        reach = high - low
        share = (wavelength - low.gather(1, part)) / reach.gather(1, part)
        # Of a part of a single pixel not finite: it makes no line.
        counts = pixels.flux.isfinite() & (at >= pixels.first) & (at < pixels.end) & share.isfinite()
        begin = torch.where(counts, share, math.inf).amin(1, keepdim=True)
        stop = torch.where(counts, share, -math.inf).amax(1, keepdim=True)
        start, step = low + begin * reach, like(low, width) / (reach * (stop - begin))
        return ((wavelength - start.gather(1, part)) * step.gather(1, part) + left).float(), part

    def _heights(self, pixels: Values) -> Tensor:
        """Every pixel's y, float32 `(B, N)`; bad ones anywhere."""
        low, high = self._limits(pixels.flux, pixels.good, fixed=False)
        span, settings = high - low, self._settings
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
        return float(bottom) - share.float() * float(height)


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
