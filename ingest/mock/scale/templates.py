"""A bank of noiseless rest-frame spectra on log grids, made with `ingest.mock.physics`, for the mock survey at scale.

Redshift is a shift in log wavelength, so a template is computed once, at the survey's resolution, and shifted for
every object that shows it. Each template's own parameters are the labels of those objects, so labels are exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from specshards.common.files import replacing
from specshards.ingest.mock.instrument import LOG_STEP, LSF_KMS, SITE_FIRST, SITE_LAST
from specshards.ingest.mock.objects import SURVEYS, draw_galaxy, draw_quasar, draw_star, spectral_type
from specshards.ingest.mock.physics import Galaxy, Quasar, Star, galaxy_flux, quasar_flux, star_flux

KINDS = ("STAR", "GALAXY", "QSO")
"""Classes by their code in the kernels: the order of `common.spectrum.CLASSES`."""

#: First and last pixel that any object of a survey has, as log10(wavelength / Angstrom) / 1e-4.
PIXELS = {"lamost": (35682, 35682 + 3909), "sdss": (35510, 35535 + 4600)}

REDSHIFTS = ((-0.002, 0.002), (0.01, 0.6), (0.2, 4.0))
"""Redshifts of each class that the templates are long enough for."""

# Template pixels in one survey pixel. Stellar lines are barely wider than a survey pixel and would lose depth in
# linear interpolation; the narrowest line of a quasar is four of them wide.
_FINENESS = (2, 2, 1)
_STREAM = 3  # beside the streams of `ingest.mock.objects`


class Bank(NamedTuple):
    """Where each class's templates lie in one array; a NamedTuple, because the kernels take it.

    `flux` float32 `(total,)`, read-only; for class k, `number[k]` templates of `size[k]` pixels each begin at
    `start[k]`; their first pixel is at log10(wavelength) = `log0[k]`; `fineness[k]` of them make one survey pixel.
    """

    flux: npt.NDArray[np.float32]
    start: npt.NDArray[np.int64]
    number: npt.NDArray[np.int64]
    size: npt.NDArray[np.int64]
    log0: npt.NDArray[np.float64]
    fineness: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Models:
    """The parameters behind the templates of each class, and the subclass a survey would name."""

    star: tuple[Star, ...]
    galaxy: tuple[Galaxy, ...]
    quasar: tuple[Quasar, ...]
    subclass: tuple[tuple[str, ...], ...]

    @cached_property
    def labels(self) -> npt.NDArray[np.float32]:
        """Teff (K), log g (dex), [Fe/H] (dex) of each stellar template: float32 `(stars, 3)`."""
        return np.array([(s.teff, s.logg, s.feh) for s in self.star], np.float32)

    @cached_property
    def subclass_codes(self) -> tuple[list[str], list[npt.NDArray[np.int32]]]:
        """All subclass names, sorted, and for each class and template the place among them; -1 for ""."""
        names = sorted({name for one in self.subclass for name in one if name})
        place = {name: i for i, name in enumerate(names)}
        return names, [np.array([place.get(name, -1) for name in one], np.int32) for one in self.subclass]


@lru_cache(maxsize=4)
def models(survey: str, seed: int, count: int) -> Models:
    """Draw `count` stars, and half as many galaxies and quasars, as the FITS mock draws them."""
    rng = np.random.default_rng([seed, SURVEYS.index(survey), _STREAM])
    stars = tuple(draw_star(rng) for _ in range(count))
    galaxies = [draw_galaxy(rng) for _ in range(count // 2)]
    quasars = [draw_quasar(rng) for _ in range(count // 2)]
    subclass = (
        tuple(spectral_type(star, survey) for star in stars),
        tuple(name for _, name in galaxies),
        tuple(name for _, name in quasars),
    )
    return Models(stars, tuple(g for g, _ in galaxies), tuple(q for q, _ in quasars), subclass)


def _layout(survey: str, count: int) -> Bank:
    """The bank without its flux."""
    first, last = PIXELS[survey]
    low = np.array([first * LOG_STEP - np.log10(1.0 + z_max) for _, z_max in REDSHIFTS])
    high = np.array([last * LOG_STEP - np.log10(1.0 + z_min) for z_min, _ in REDSHIFTS])
    fineness = np.array(_FINENESS)
    step = LOG_STEP / fineness
    log0 = np.floor(low / step - 1.0) * step  # whole steps, as on the grid that `physics` computes stars on
    size = np.ceil((high - log0) / step).astype(np.int64) + 4
    counts = np.array([count, count // 2, count // 2])
    start = np.concatenate(([0], np.cumsum(counts * size)[:-1]))
    return Bank(np.zeros(0, np.float32), start, counts, size, log0, fineness)


def _fill(flux: npt.NDArray[np.float32], survey: str, seed: int, count: int) -> None:
    layout, drawn, lsf = _layout(survey, count), models(survey, seed, count), LSF_KMS[survey]
    for kind in range(len(KINDS)):
        step, size = LOG_STEP / layout.fineness[kind], int(layout.size[kind])
        wave = 10.0 ** (layout.log0[kind] + step * np.arange(size))
        for i in range(int(layout.number[kind])):
            if kind == 0:
                made = star_flux(drawn.star[i], 0.0, wave, lsf)
            elif kind == 1:
                made = galaxy_flux(drawn.galaxy[i], 0.0, wave, lsf)
            else:  # at z = 0 the forest lies outside; the kernel adds it where the object's redshift puts it
                made = quasar_flux(drawn.quasar[i], 0.0, wave, lsf)
            begin = int(layout.start[kind]) + i * size
            flux[begin : begin + size] = made / np.median(made)


@lru_cache(maxsize=2)
def in_memory(survey: str, seed: int, count: int) -> Bank:
    """The bank, computed here and kept (90 KB for each of `count`, 1.5 ms each)."""
    layout = _layout(survey, count)
    flux = np.empty(int(np.sum(layout.number * layout.size)), np.float32)
    _fill(flux, survey, seed, count)
    flux.setflags(write=False)
    return layout._replace(flux=flux)


def on_disk(path: Path, survey: str, seed: int, count: int) -> Path:
    """Write the bank's flux to the `.npy` file `path`, for every process of a machine to map, unless it is there."""
    if not path.exists():
        layout = _layout(survey, count)
        with replacing(path) as temporary:
            flux = np.lib.format.open_memmap(
                temporary, mode="w+", dtype=np.float32, shape=(int(np.sum(layout.number * layout.size)),)
            )
            _fill(flux, survey, seed, count)
            flux.flush()
            del flux
    return path


@lru_cache(maxsize=1)
def opened(path: str, survey: str, count: int) -> Bank:
    """The bank of `on_disk`, mapped read-only and shared with the other processes that map it."""
    flux = np.load(path, mmap_mode="r", allow_pickle=False)
    return _layout(survey, count)._replace(flux=flux.view(np.ndarray))


assert PIXELS["sdss"][0] > SITE_FIRST and PIXELS["sdss"][1] < SITE_LAST
