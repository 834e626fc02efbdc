"""What another package might add: an image type with a torch module or without, in the fewest lines that work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from specshards.common.registry import Registry
from specshards.render.base import Renderer
from specshards.render.device.draw import DeviceRenderer
from specshards.render.device.values import percentiles
from specshards.render.prepare import DRAWN, select
from specshards.render.scale import Scale


@contextmanager
def registered(registry: Registry[Any], name: str, thing: Any) -> Iterator[None]:
    """As if a package with `thing` were installed."""
    list(registry)
    registry.register(name)(thing)
    try:
        yield
    finally:
        del registry._things[name]


class Bars(Renderer):
    """Eight bars as high as the share of good pixels above the median in each eighth of the spectrum, gray."""

    presets = MappingProxyType({"default": {}, "wide": {"window": (3000.0, 11000.0)}})
    gallery = ("default", "wide")

    def __init__(self, config):
        super().__init__(config)
        self.code_shape, self.block = (8, 8), config.size // 8

    def _draw(self, spectrum, out):
        status, flux, _, _, good = select(*spectrum, *self.config.window, False)
        if status == DRAWN:
            above = good & (flux > np.median(flux[good]))
            for column, part in enumerate(np.array_split(above, 8)):
                out[:, column] = np.where(np.arange(8)[::-1] < 8 * part.mean(), 40 * column + 10, 0)
        return status, len(flux)

    def _wavelengths(self, flux, ivar, inside, good):
        where = np.full((1, self.config.size, self.config.size), np.nan)
        middles = [part.mean() for part in np.array_split(inside, 8)]
        where[..., : 8 * self.block] = np.repeat(middles, self.block)
        return where


class LevelOnDevice(DeviceRenderer):
    def _bytes(self, pixels):
        return 16 * pixels

    def _draw(self, pixels, has_ivar):
        _, high = percentiles(pixels.flux, pixels.good, 50.0, 50.0)
        return torch.where(high > 0, 200, 100).to(torch.uint8)[:, :, None].expand(-1, 8, 8), True


class Level(Bars):
    """All of it light or dark, by the sign of the median; a device draws it, too."""

    presets = MappingProxyType({"default": {}})
    gallery = ()

    def _draw(self, spectrum, out):
        status, flux, _, _, good = select(*spectrum, *self.config.window, False)
        if status == DRAWN:
            out[...] = 200 if np.median(flux[good]) > 0 else 100
        return status, len(flux)

    def device(self):
        return LevelOnDevice(self, Scale.of(self.config, 256))
