"""`render.map2d` as torch operations; `render.device.draw` says what it takes to give the same bits."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from specshards.render.base import Renderer
from specshards.render.device.draw import DeviceRenderer
from specshards.render.device.values import (
    Values,
    fill_gaps,
    gradient,
    square_root,
    stretch,
    to_bins,
    to_centres,
)
from specshards.render.grid import MapSettings
from specshards.render.scale import Scale


class DeviceMap(DeviceRenderer):
    """Maps whose channels need no sums that depend on their order."""

    levels: Tensor
    edges: Tensor
    centres: Tensor
    order: Tensor

    def __init__(self, drawer: Renderer) -> None:
        coloured = len(drawer.config.channels) == 1
        super().__init__(drawer, Scale.of(drawer.config, 256 if coloured else 255))
        self._coloured, self._map = coloured, MapSettings.of(self.config, self._scale)
        #: Channels that are stored: gray codes where there is flux alone.
        self._channels = self.config.channels if self._coloured or len(self.code_shape) == 3 else ("flux",)
        # The value that each cell shows; `place` is the cell of each value.
        order = np.argsort(self._map.place) if len(self._map.place) else np.arange(self.config.cells**2)
        for name, table in (
            ("levels", self._scale.levels), ("edges", self._map.edges), ("centres", self._map.centres),
            ("order", order),
        ):  # fmt: skip
            self.register_buffer(name, torch.from_numpy(table), persistent=False)

    def _bytes(self, pixels: int) -> int:
        return 160 * max(pixels, len(self.order))

    def _draw(self, pixels: Values, has_ivar: Tensor) -> tuple[Tensor, Tensor]:
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
        if self._map.per_pixel:
            values = values._replace(wavelength=torch.arange(flux.shape[1], device=flux.device).double()[None])
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
