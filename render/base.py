"""What every image type does: check the arrays, draw into a checked one, expand what was stored."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
from numba import get_num_threads

from specshards.render import expand
from specshards.render.config import ImageConfig, RenderError
from specshards.render.prepare import (
    DRAWN,
    PARALLEL,
    Floats,
    Flux,
    Good,
    KernelArrays,
    Places,
    as_arrays,
    as_columns,
    one_of,
    reason,
    select,
    target,
)

if TYPE_CHECKING:
    from specshards.render.device.draw import DeviceRenderer

Codes = npt.NDArray[np.uint8]


class Renderer(ABC):
    """One image type with its configuration; made once, used for many spectra, cheap to send to a worker.

    Drawing is in two halves, so that a loader can do the second: spectrum to codes, which a shard stores, and codes
    to RGB. Both are pure functions, release the GIL, and may be called from several threads.

    What codes expand to follows from `lut`, `block` and `empty` alone, on the CPU as in `render.device.expand`.

    Attributes:
        presets: name -> what it changes of the default `ImageConfig`; `default` is always there.
        gallery: names of the presets that a sheet of every image type shows.
        limits: the values of `ImageConfig.limits` that it takes.
        options: which of `channels`, `order`, `grid`, `derivative`, `axis` and `line_colour` it reads; they are
            refused for the others.
        noisy: codes hardly repeat, so that looking for repeats costs time and saves no bytes of a PNG.
        code_shape: of the stored array: `(h, w)` or `(h, w, 3)`, uint8.
        lut: uint8 `(256, 3)`, RGB of every code, or None where codes are gray levels or RGB already.
        block: side of one code's square in the picture.
        empty: code of the strip that whole blocks leave free at the right and at the bottom.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"default": {}}
    gallery: ClassVar[Sequence[str]] = ("default",)
    limits: ClassVar[Sequence[str]] = ("minmax", "percentile")
    options: ClassVar[Sequence[str]] = ()
    noisy: ClassVar[bool] = False
    code_shape: tuple[int, ...]
    lut: Codes | None = None
    block = 1
    empty = 0

    def __init__(self, config: ImageConfig) -> None:
        self.config = config
        self._local = threading.local()

    def codes(
        self,
        flux: npt.NDArray[Any],
        ivar: npt.NDArray[Any] | None,
        wavelength: npt.NDArray[Any],
        mask: npt.NDArray[Any] | None,
        out: Codes | None = None,
    ) -> Codes:
        """Draw one spectrum: uint8 of `code_shape`, into `out` where it is given.

        Args:
            flux, ivar, wavelength, mask: `(N,)` each; wavelength in Angstrom, mask True = bad. Without ivar or mask
                every pixel of finite flux is good.

        Raises:
            RenderError: it cannot be drawn; the message is the reason. ValueError: `out` does not fit.
        """
        spectrum = as_arrays(flux, ivar, wavelength, mask)
        if self.config.bad_pixels == "draw":
            spectrum = as_arrays(spectrum[0], None, spectrum[2], None)
        out = target(out, self.code_shape)
        status, pixels = self._draw(spectrum, out)
        if status != DRAWN:
            raise reason(status, self.config, pixels, spectrum[2])
        return out

    def codes_batch(
        self,
        flux: npt.NDArray[Any],
        ivar: npt.NDArray[Any],
        wavelength: npt.NDArray[Any],
        mask: npt.NDArray[Any],
        offsets: npt.NDArray[Any],
        has_ivar: npt.NDArray[Any] | None = None,
        waves: npt.NDArray[Any] | None = None,
        out: Codes | None = None,
    ) -> tuple[Codes, dict[int, RenderError]]:
        """Draw B spectra that lie end to end in the arrays, on as many threads as Numba is allowed.

        Args:
            flux, ivar, mask: `(N,)` each, as for `codes`.
            wavelength: `(N,)`, or `(M,)` with `waves`.
            offsets: `(B + 1,)`; spectrum i is `[offsets[i]:offsets[i + 1]]`.
            has_ivar: bool `(B,)`; False where the ivar of a spectrum says nothing.
            waves: `(B,)`, where the wavelengths of each spectrum begin, so that spectra of one grid may share them.
            out: uint8 `(B, *code_shape)` to draw into.

        Returns:
            The codes, and why not for each spectrum that could not be drawn; its codes are then undefined.

        Raises:
            ValueError: places that are not in the arrays, or `out` does not fit.
        """
        flux, ivar, mask = as_columns(flux, ivar, mask)
        wavelength = np.ascontiguousarray(wavelength, np.float64)
        offsets = np.ascontiguousarray(offsets, np.int64)
        sizes = np.diff(offsets)
        count = len(sizes)
        waves = offsets[:-1] if waves is None else np.ascontiguousarray(waves, np.int64)
        weighted = np.ones(count, np.bool_) if has_ivar is None else np.ascontiguousarray(has_ivar, np.bool_)
        if len(waves) != count or len(weighted) != count:
            raise ValueError(f"{count} spectra, but {len(waves)} places of wavelengths, {len(weighted)} of has_ivar")
        outside = (waves < 0).any() or (waves + sizes > len(wavelength)).any()
        if offsets[0] < 0 or (sizes < 0).any() or offsets[-1] > len(flux) or outside:
            raise ValueError("offsets must rise from 0 to at most the number of pixels, of wavelengths too")
        if self.config.bad_pixels == "draw":
            weighted, mask = np.zeros(count, np.bool_), np.zeros(len(flux), np.bool_)
        out = target(out, (count, *self.code_shape))
        states = np.zeros(count, np.int64)
        places = Places(offsets, waves, weighted)
        with PARALLEL:
            self._draw_batch((flux, ivar, wavelength, mask), places, out, states)
        errors = {}
        for i in np.flatnonzero(states):
            f, v, w, m = one_of.py_func(int(i), flux, ivar, wavelength, mask, places)
            try:
                self.codes(f, v if weighted[i] else None, w, m)
            except RenderError as error:
                errors[int(i)] = error
        return out, errors

    def wavelengths(self, wavelength: npt.NDArray[Any], flux: npt.NDArray[Any] | None = None) -> Floats:
        """Wavelengths that each pixel of a spectrum's picture shows, Angstrom: float64 `(k, size, size)`.

        NaN where it shows none. k is above 1 where pixels show several wavelengths at once, the bluest first.

        Args:
            wavelength: `(N,)`, Angstrom, as for `codes`. Bad pixels do not matter: they are drawn over.
            flux: `(N,)`, with `axis="spectrum"`, where pixels that are not finite set no limit; by default all are.

        Raises:
            RenderError: the picture of a spectrum with these wavelengths cannot be drawn.
        """
        shown = np.ones(np.shape(wavelength), np.float32)
        if flux is not None and self.config.axis == "spectrum":
            shown = as_arrays(flux, None, wavelength, None)[0]
        spectrum = as_arrays(shown, None, wavelength, None)
        status, shown, ivar, inside, good = select(*spectrum, *self.config.window, True)
        if status != DRAWN:
            raise reason(status, self.config, len(inside), spectrum[2])
        return self._wavelengths(shown, ivar, inside, good)

    def device(self) -> DeviceRenderer | str:
        """A torch module that draws the same codes where it is moved to, or why this is drawn on the CPU only."""
        return f"{self.config.image} has no torch module"

    def expand(self, codes: Codes) -> Codes:
        """One stored array to RGB, uint8 `(size, size, 3)`; codes that are the picture come back themselves."""
        if self.block == 1 and codes.ndim == 3:
            return codes
        size = self.config.size
        out = np.empty((size, size, 3), np.uint8)
        if self.block == 1 and self.lut is None:
            expand.gray(codes.ravel(), out.reshape(-1))
        elif self.block == 1:
            expand.coloured(codes.ravel(), self._colours, out.reshape(-1))
        else:
            blank = self._colours[self.empty]
            expand.blocks(np.ascontiguousarray(codes), self._colours, self.block, blank, out.reshape(size, -1))
        return out

    def expand_batch(self, codes: Codes, out: Codes | None = None) -> Codes:
        """B stored arrays to RGB, uint8 `(B, size, size, 3)`, into `out` where it is given.

        Raises:
            ValueError: `out` does not fit.
        """
        count, size = len(codes), self.config.size
        out = target(out, (count, size, size, 3))
        codes = np.ascontiguousarray(codes)
        with PARALLEL:
            if self.block == 1 and codes.ndim == 4:
                out[...] = codes
            elif self.block == 1 and self.lut is None:
                expand.gray_batch(codes.reshape(count, size**2), out.reshape(count, 3 * size**2))
            elif self.block == 1:
                expand.coloured_batch(codes.reshape(count, size**2), self._colours, out.reshape(count, 3 * size**2))
            else:
                pictures, blank = out.reshape(count, size, 3 * size), self._colours[self.empty]
                expand.blocks_batch(codes, self._colours, self.block, blank, pictures)
        return out

    @cached_property
    def _colours(self) -> npt.NDArray[np.uint32]:
        """RGB of every code, red in the lowest byte: uint32 `(256,)`."""
        colours = np.zeros((256, 4), np.uint8)
        colours[:, :3] = np.arange(256)[:, None] if self.lut is None else self.lut
        return colours.view("<u4").ravel().astype(np.uint32)

    @abstractmethod
    def _draw(self, spectrum: KernelArrays, out: Codes) -> tuple[int, int]:
        """Draw into `out`: the status (see `render.prepare`), and the number of pixels in the window."""

    def _draw_batch(self, spectra: KernelArrays, places: Places, out: Codes, states: Any) -> None:
        """Draw B spectra into `out` and their statuses into `states`, int64 `(B,)`; one by one unless overridden."""
        for i in range(len(states)):
            states[i], _ = self._draw(one_of.py_func(i, *spectra, places), out[i])

    @abstractmethod
    def _wavelengths(self, flux: Flux, ivar: Flux, inside: Floats, good: Good) -> Floats:
        """`wavelengths` of what `render.prepare.select` gives of a spectrum."""

    def _chunks(self, count: int) -> int:
        """In how many parts `count` spectra are drawn at a time: each has a canvas, and a thread takes several."""
        return min(count, 4 * get_num_threads())

    def _scratch(self, make: Callable[[], npt.NDArray[np.int32]]) -> npt.NDArray[np.int32]:
        """This thread's canvas, made once: kernels leave it empty."""
        found = getattr(self._local, "canvas", None)
        if found is None:
            found = self._local.canvas = make()
        return found

    def __getstate__(self) -> dict[str, Any]:
        """Without the threads' canvases."""
        return {name: value for name, value in vars(self).items() if name != "_local"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """With new ones."""
        vars(self).update(state, _local=threading.local())
