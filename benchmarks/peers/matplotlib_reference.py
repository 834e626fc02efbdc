"""The paper's pictures drawn by matplotlib itself: the reference that the kernels are compared with."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from specshards.common.spectrum import Arrays
from specshards.render import ImageConfig
from specshards.render.prepare import prepare

#: What is drawn here.
IMAGES = ("simple", "overlap", "map2d")
Picture = npt.NDArray[np.uint8]


def draw(spectrum: Arrays, config: ImageConfig) -> Picture:
    """`spectrum` as `config` says, by matplotlib: uint8 `(size, size, 3)`, RGB."""
    spectrum = Arrays(*spectrum)
    if config.bad_pixels == "draw":
        spectrum = Arrays(spectrum.flux, None, spectrum.wavelength, np.zeros(len(spectrum.flux), np.bool_))
    if config.image == "map2d":
        return _map2d(spectrum, config)
    inside = prepare(*spectrum, config.window)
    if config.axis == "spectrum":
        return _spanning(*inside, config)
    x, y = _points(*inside, config)
    if config.image == "simple":
        return _lines([(x, y, config.line_colour)], config, 1.0)
    thirds = [(x >= third / 3) & (x < (third + 1) / 3) for third in range(3)]
    thirds[2] |= x == 1
    lines = [
        (3 * x[k] - i, y[k], colour)
        for i, (k, colour) in enumerate(zip(thirds, ("red", "green", "blue"), strict=True))
    ]
    return _lines(lines, config, config.alpha)


def _spanning(
    flux: npt.NDArray[np.float32],
    wavelength: npt.NDArray[np.float64],
    good: npt.NDArray[np.bool_],
    config: ImageConfig,
) -> Picture:
    """`axis="spectrum"`: the pixels in as many parts as there are lines, within matplotlib's own margins."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(config.size / 100, config.size / 100), dpi=100)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    colours = ("red", "green", "blue") if config.image == "overlap" else (config.line_colour,)
    parts = np.array_split(np.arange(len(flux)), len(colours))
    across = [(w - w[0]) / (np.ptp(w) or np.nan) if len(w) else w for w in (wavelength[part] for part in parts)]
    # The limits are of all pixels of finite flux, also of those that make no line.
    within = np.concatenate(across)[np.isfinite(flux)]
    axes.plot([np.nanmin(within), np.nanmax(within)], [flux[good].min(), flux[good].max()], alpha=0)
    axes.margins(config.margin)
    for x, part, colour in zip(across, parts, colours, strict=True):
        if len(part) > 1:
            here = good[part]
            alpha = config.alpha if config.image == "overlap" else 1.0
            width = config.line_width * 72 / 100
            axes.plot(x[here], flux[part][here].astype(float), color=colour, linewidth=width, alpha=alpha)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def figure(spectrum: Arrays, config: ImageConfig) -> Picture:
    """The road of the paper's plotting code: a pyplot figure, saved as PNG in memory, read back as RGB."""
    import io

    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt
    from PIL import Image

    plt.figure(figsize=(config.size / 100, config.size / 100))
    if config.image == "map2d":
        grid = np.zeros((config.size, config.size))
        flux, cells = spectrum[0], config.size // config.block
        for i, value in enumerate(flux[: cells * cells]):
            row, column = (i // cells) * config.block, (i % cells) * config.block
            grid[row : row + config.block, column : column + config.block] = value
        plt.imshow(grid, cmap=config.colormap)
    else:
        wavelength, flux = spectrum[2], spectrum[0]
        parts = np.array_split(np.arange(len(flux)), 3 if config.image == "overlap" else 1)
        for part, colour in zip(parts, ("red", "green", "blue"), strict=False):
            x = (wavelength[part] - wavelength[part[0]]) / np.ptp(wavelength[part])
            plt.plot(x, flux[part], color=colour, linewidth=0.5, alpha=config.alpha)
    plt.axis("off")
    buffer = io.BytesIO()
    plt.savefig(buffer, format="png", dpi=100)
    plt.close()
    return np.asarray(Image.open(buffer).convert("RGB"))


def _points(
    flux: npt.NDArray[np.float32],
    wavelength: npt.NDArray[np.float64],
    good: npt.NDArray[np.bool_],
    config: ImageConfig,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The good pixels in float64: x from 0 (left) to 1 over the window, y from 0 (top) to 1."""
    values = flux[good].astype(np.float64)
    x = (wavelength[good] - config.window[0]) / (config.window[1] - config.window[0])
    if config.limits == "percentile":
        low, high = np.percentile(values, config.percentiles)
    else:
        low, high = values.min(), values.max()
    if not high > low:
        return x, np.full(len(x), 0.5)
    free = config.margin / (1 + 2 * config.margin)
    height = (values - low) / (high - low)
    if config.scale == "asinh":
        from astropy.visualization import AsinhStretch

        height = AsinhStretch(config.softening)(height, clip=True)
    return x, 1 - free - (1 - 2 * free) * height


def _lines(
    lines: list[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], str]], config: ImageConfig, alpha: float
) -> Picture:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(config.size / 100, config.size / 100), dpi=100)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, 1)
    axes.set_ylim(1, 0)
    for x, y, colour in lines:
        axes.plot(x, y, color=colour, linewidth=config.line_width * 72 / 100, alpha=alpha)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _map2d(spectrum: Arrays, config: ImageConfig) -> Picture:
    """Normalize, colour map and nearest blocks, written out with numpy and matplotlib's own classes."""
    import matplotlib as mpl
    from matplotlib.colors import Normalize

    flux, _, wavelength, mask = spectrum
    inside = (wavelength >= config.window[0]) & (wavelength <= config.window[1])
    flux, good = flux[inside], (~mask & (spectrum.weight() > 0) & np.isfinite(flux))[inside]
    pixels = np.arange(len(flux))
    filled = np.interp(pixels, pixels[good], flux[good].astype(np.float64)).astype(np.float32)
    if config.limits == "fixed":
        norm, blank = Normalize(config.flux_min, config.flux_max), np.float32(0)
    else:
        norm, blank = Normalize(flux[good].min(), flux[good].max()), flux[good].min()
    cells = config.size // config.block
    grid = np.full(cells * cells, blank, np.float32)
    grid[: len(filled)] = filled
    picture = np.full((config.size, config.size), blank, np.float32)
    side = cells * config.block
    picture[:side, :side] = np.kron(grid.reshape(cells, cells), np.ones((config.block, config.block), np.float32))
    return np.asarray(mpl.colormaps[config.colormap](norm(picture), bytes=True))[..., :3]
