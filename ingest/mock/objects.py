"""What a mock survey consists of: which file holds which object, seen when, in which layout, and what truth.

Everything follows from the config. A file's content depends on (seed, survey, object) and (seed, survey,
file) alone, so files can be written in any order by any number of processes and come out the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from specshards.ingest.mock.instrument import LSF_KMS, Exposure, calibration, expose, grid
from specshards.ingest.mock.lines import Array
from specshards.ingest.mock.physics import Galaxy, Quasar, Star, extinction, galaxy_flux, quasar_flux, star_flux

CLASS_SHARES: Final[dict[str, dict[str, float]]] = {
    "lamost": {"STAR": 0.60, "GALAXY": 0.25, "QSO": 0.15},
    "sdss": {"STAR": 0.40, "GALAXY": 0.345, "QSO": 0.25, "SKY": 0.005},
}

SURVEYS: Final = tuple(CLASS_SHARES)
"""The place of a survey's name is part of every seed: a new one goes last."""

LAYOUT_SHARES: Final[dict[str, dict[str, float]]] = {
    "lamost": {"table": 0.70, "image.gz": 0.12, "image": 0.08, "dr1": 0.10},
    "sdss": {"specobj": 0.35, "specobj-boss": 0.15, "spall": 0.25, "upper": 0.25},
}
"""LAMOST: one-row table (DR9 on), image of five rows (gzipped or not), image of the DR1 era. SDSS: SPECOBJ
with string ids (SDSS and BOSS spectrographs), SPALL with uint64 ids, and unnamed HDUs with upper-case
columns."""

DAMAGES: Final = ("truncated", "empty", "primary only", "all NaN", "no ivar", "text")

_PER_PLAN = 400


@dataclass(frozen=True)
class MockConfig:
    """What to write.

    Attributes:
        survey: which to imitate: `lamost` or `sdss`.
        n_files: every file counts, damaged ones too.
        seed: of everything random.
        damaged_fraction: share of the files that are damaged on purpose; at least three of 100 or more.
        repeat_fraction: share of the objects that have a second visit.

    Raises:
        ValueError: one line, for a value out of range.
    """

    survey: str = "lamost"
    n_files: int = 2000
    seed: int = 0
    damaged_fraction: float = 0.005
    repeat_fraction: float = 0.1

    def __post_init__(self) -> None:
        """Check the fields."""
        if self.survey not in SURVEYS:
            raise ValueError(f"survey must be one of {', '.join(SURVEYS)}, not {self.survey!r}")
        if not 1 <= self.n_files <= 1_000_000:
            raise ValueError(f"n_files must be 1 to 1,000,000, not {self.n_files}")
        if self.seed < 0:
            raise ValueError(f"seed must be 0 or more, not {self.seed}")
        for name in ("damaged_fraction", "repeat_fraction"):
            if not 0.0 <= getattr(self, name) <= 0.5:
                raise ValueError(f"{name} must be 0 to 0.5, not {getattr(self, name)}")

    def as_dict(self) -> dict[str, str | int | float]:
        """The fields by name, for `mock.json`."""
        return asdict(self)


@dataclass(frozen=True)
class Entry:
    """One file: `kind` is the true class (or SKY), `damage` None or one of `DAMAGES`, `name` its path in the
    folder.

    `visit` is 1 or 2; the two visits of an object share `object_index`. `plate` counts observing plans from
    1.
    """

    index: int
    object_index: int
    visit: int
    kind: str
    layout: str
    damage: str | None
    plate: int
    spectrograph: int
    fibre: int
    mjd: int
    name: str


@dataclass(frozen=True)
class MockSource:
    """An object of the mock sky with its true labels: RA, Dec in degrees (ICRS), K, dex, dex; NaN = not a
    star.

    `subclass` as a survey would name it, "" for none; `z` redshift; `sn` typical signal-to-noise of a visit.
    """

    kind: str
    subclass: str
    z: float
    teff: float
    logg: float
    feh: float
    ra: float
    dec: float
    sn: float
    ebv: float
    model: Star | Galaxy | Quasar | None


@dataclass(frozen=True)
class Visit:
    """One observation: entry, object, position as measured in this visit (degrees), S/N aimed at, what came
    out.

    `z` and `z_err` are what the mock pipeline measured; `known` is False where it found no class.
    """

    entry: Entry
    source: MockSource
    ra: float
    dec: float
    sn: float
    z: float
    z_err: float
    known: bool
    exposure: Exposure
    rng: np.random.Generator


def _rng(config: MockConfig, *stream: int) -> np.random.Generator:
    return np.random.default_rng([config.seed, SURVEYS.index(config.survey), *stream])


def _deal(shares: Mapping[str, float], count: int, rng: np.random.Generator) -> npt.NDArray[np.str_]:
    """`count` names in random order, their numbers as near the shares as whole numbers allow."""
    edges = np.cumsum(list(shares.values())) / sum(shares.values())
    dealt = np.searchsorted(edges, (np.arange(count) + 0.5) / max(count, 1))
    return np.asarray(np.array(list(shares))[rng.permutation(dealt)])


@lru_cache(maxsize=8)
def plan(config: MockConfig) -> tuple[Entry, ...]:
    """Every file of the mock survey, in the order of their indices 0 ... n_files - 1."""
    rng = _rng(config, 0)
    n = config.n_files
    n_damaged = round(n * config.damaged_fraction)
    if config.damaged_fraction > 0.0 and n >= 100:
        n_damaged = max(n_damaged, 3)
    n_repeat = round(config.repeat_fraction * (n - n_damaged) / (1.0 + config.repeat_fraction))
    n_objects = n - n_repeat

    kinds = _deal(CLASS_SHARES[config.survey], n_objects, rng)
    layouts = _deal(LAYOUT_SHARES[config.survey], n, rng)
    order = rng.permutation(n_objects)
    damages = {int(o): DAMAGES[i % len(DAMAGES)] for i, o in enumerate(order[:n_damaged])}
    repeats = rng.permutation(order[n_damaged:])[:n_repeat]
    # Second visits go on plates, and nights, of their own.
    first_repeat_slot = -(-n_objects // _PER_PLAN) * _PER_PLAN
    entries = []
    for index in range(n):
        first = index < n_objects
        target = index if first else int(repeats[index - n_objects])
        slot = index if first else first_repeat_slot + index - n_objects
        damage = damages.get(target)
        entries.append(_entry(config.survey, index, target, 1 if first else 2, str(kinds[target]),
                              str(layouts[index]), damage, slot))  # fmt: skip
    return tuple(entries)


def _entry(
    survey: str, index: int, target: int, visit: int, kind: str, layout: str, damage: str | None, slot: int
) -> Entry:
    plate, place = slot // _PER_PLAN + 1, slot % _PER_PLAN
    if survey == "lamost":
        mjd = 55862 + 11 * (plate - 1)
        spectrograph, fibre = 1 + place // 25, 1 + 10 * (place % 25) + plate % 10
        suffix = "" if damage == "text" or layout in ("image", "dr1") else ".gz"
        stem = f"MOCK{plate:04d}/spec-{mjd}-MOCK{plate:04d}_sp{spectrograph:02d}-{fibre:03d}"
        name = f"{stem}.fits{suffix}"
    else:
        mjd = 55555 + 7 * (plate - 1)
        spectrograph, fibre = 1 + place // 200, 1 + place
        name = f"mock-{9000 + plate}/spec-{9000 + plate}-{mjd}-{fibre:04d}.fits"
    return Entry(index, target, visit, kind, layout, damage, plate, spectrograph, fibre, mjd, name)


# Effective temperature of dwarfs (Pecaut & Mamajek 2013) and number of the type: 10 for B0, 20 for A0 ...
_TYPES = (
    (3100, 64.0), (3250, 63.0), (3430, 62.0), (3650, 61.0), (3850, 60.0), (4050, 57.0), (4440, 55.0),
    (4840, 53.0), (5270, 50.0), (5660, 45.0), (5770, 42.0), (5930, 40.0), (6550, 35.0), (7220, 30.0),
    (8080, 25.0), (9700, 20.0), (10700, 19.0), (12500, 18.0),
)  # fmt: skip


def spectral_type(star: Star, survey: str) -> str:
    """The subclass that a survey would give a star: O to M and a digit; LAMOST tells dwarfs and giants of M apart."""
    number = int(np.interp(star.teff, *np.array(_TYPES).T))
    name = f"{'OBAFGKM'[number // 10]}{number % 10}"
    if survey == "lamost" and name[0] == "M":
        return ("d" if star.logg > 3.5 else "g") + name
    return name


def draw_star(rng: np.random.Generator) -> Star:
    """A random star: mostly FGK dwarfs, some M and A, giants among the cool ones."""
    draw = rng.random()
    if draw < 0.68:
        teff = rng.normal(5650.0, 650.0)
    elif draw < 0.84:
        teff = rng.uniform(3500.0, 4700.0)
    else:
        teff = float(np.exp(rng.uniform(np.log(6800.0), np.log(12000.0))))
    teff = float(np.clip(teff, 3500.0, 12000.0))
    if teff < 5400.0 and rng.random() < 0.4:
        logg = 1.0 + 2.4 * (np.clip((teff - 3500.0) / 1700.0, 0.0, 1.0)) + rng.normal(0.0, 0.3)
    else:
        logg = float(np.interp(teff, (3500.0, 5000.0, 6200.0, 12000.0), (4.85, 4.55, 4.2, 3.95)))
        logg += rng.normal(0.0, 0.15)
    feh = rng.normal(-0.25, 0.4) if rng.random() < 0.93 else rng.uniform(-2.4, -0.8)
    return Star(teff, float(np.clip(logg, 0.5, 5.0)), float(np.clip(feh, -2.5, 0.5)))


def draw_galaxy(rng: np.random.Generator) -> tuple[Galaxy, str]:
    """A random galaxy and its subclass: passive (""), star-forming, or an AGN."""
    mass, dispersion = rng.normal(), float(np.clip(rng.lognormal(5.05, 0.3), 70.0, 330.0))
    feh = float(np.clip(-0.15 + 0.15 * mass, -0.6, 0.2))
    draw = rng.random()
    if draw < 0.45:
        return Galaxy(rng.uniform(0.0, 0.03), feh, dispersion, 0.0, 0.0, 0.0, 0.0), ""
    gas = float(np.clip(rng.normal(120.0, 40.0), 50.0, 280.0))
    if draw < 0.9:
        young = rng.uniform(0.12, 0.7)
        width = float(np.clip(rng.lognormal(np.log(60.0 * young), 0.5), 3.0, 150.0))
        nitrogen = float(np.clip(0.35 * 10.0 ** (0.2 * mass), 0.05, 0.6))
        excitation = float(np.clip(0.25 / nitrogen + 0.3 * rng.random(), 0.2, 5.0))
        return Galaxy(young, feh, 0.7 * dispersion, width, gas, excitation, nitrogen), (
            "STARBURST" if width > 50.0 else "STARFORMING"
        )
    galaxy = Galaxy(
        rng.uniform(0.02, 0.2), feh, dispersion, rng.uniform(5.0, 25.0), 1.5 * gas,
        rng.uniform(4.0, 11.0), rng.uniform(0.7, 1.3),
    )  # fmt: skip
    return galaxy, "AGN"


def draw_quasar(rng: np.random.Generator) -> tuple[Quasar, str]:
    """A random quasar and its subclass."""
    slope = float(np.clip(rng.normal(-1.5, 0.35), -2.4, -0.2))
    forest_seed = int(rng.integers(2**31))
    strength, width, iron = (float(value) for value in rng.lognormal((0.0, -0.15, 0.0), (0.25, 0.25, 0.4)))
    return Quasar(slope, strength, width, iron, forest_seed), "BROADLINE"


def source(config: MockConfig, entry: Entry) -> MockSource:
    """The object that a file shows: the same for both of its visits."""
    rng = _rng(config, 1, entry.object_index)
    ra = float(rng.uniform(0.0, 360.0))
    low, high = np.sin(np.deg2rad((-10.0, 60.0)))
    dec = float(np.rad2deg(np.arcsin(rng.uniform(low, high))))
    sn = float(np.clip(rng.lognormal(np.log(16.0), 0.75), 3.0, 80.0))
    ebv = float(min(rng.exponential(0.05), 0.5))
    nan = float("nan")
    if entry.kind == "STAR":
        star = draw_star(rng)
        z = float(rng.normal(0.0, 2e-4))
        subclass = spectral_type(star, config.survey)
        return MockSource("STAR", subclass, z, star.teff, star.logg, star.feh, ra, dec, sn, ebv, star)
    if entry.kind == "GALAXY":
        galaxy, subclass = draw_galaxy(rng)
        far = config.survey == "sdss" and rng.random() < 0.4
        z = float(rng.normal(0.45, 0.09) if far else 0.01 + rng.gamma(2.2, 0.055))
        z = float(np.clip(z, 0.01, 0.6))
        return MockSource("GALAXY", subclass, z, nan, nan, nan, ra, dec, sn, ebv, galaxy)
    if entry.kind == "QSO":
        quasar, subclass = draw_quasar(rng)
        z = float(0.2 + 3.8 * rng.beta(1.7, 2.3))
        return MockSource("QSO", subclass, z, nan, nan, nan, ra, dec, sn, ebv, quasar)
    return MockSource("SKY", "", nan, nan, nan, nan, ra, dec, sn, ebv, None)


def _noiseless(survey: str, target: MockSource, wave: Array) -> Array:
    """Flux (N,) with median one; zero for a sky fibre."""
    lsf, model = LSF_KMS[survey], target.model
    if isinstance(model, Star):
        flux = star_flux(model, target.z, wave, lsf)
    elif isinstance(model, Galaxy):
        flux = galaxy_flux(model, target.z, wave, lsf)
    elif isinstance(model, Quasar):
        flux = quasar_flux(model, target.z, wave, lsf)
    else:
        return np.zeros_like(wave)
    flux = flux * extinction(wave, target.ebv)
    return np.asarray(flux / np.median(flux))


def _grid(survey: str, layout: str, rng: np.random.Generator) -> tuple[float, int]:
    if survey == "lamost":
        return 3.5682, 3909 if rng.random() < 0.75 else int(rng.integers(3900, 3909))
    if layout == "specobj":
        return int(rng.integers(35790, 35812)) / 1e4, int(rng.integers(3800, 3856))
    return int(rng.integers(35510, 35536)) / 1e4, int(rng.integers(4540, 4601))


def observe(config: MockConfig, entry: Entry) -> Visit:
    """Simulate one visit, noise and all; damage to the file is not part of it."""
    target = source(config, entry)
    rng = _rng(config, 2, entry.index)
    jitter = rng.uniform(-0.15, 0.15, 2) / 3600.0  # two visits stay within 0.5 arcsec
    ra = (target.ra + float(jitter[0]) / np.cos(np.deg2rad(target.dec))) % 360.0
    dec = target.dec + float(jitter[1])
    sn = float(np.clip(target.sn * rng.lognormal(0.0, 0.25), 3.0, 80.0))
    coeff0, size = _grid(config.survey, entry.layout, rng)
    wave = grid(coeff0, size)
    shape = _noiseless(config.survey, target, wave) * calibration(config.survey, wave, rng)
    if target.model is not None:
        shape /= np.median(shape)
    if config.survey == "lamost":
        scale = 25.0 * sn * 10.0 ** rng.normal(0.0, 0.45)  # relative flux: only the shape means something
    else:
        scale = 0.45 * sn * (1.0 + sn / 25.0) * 10.0 ** rng.normal(0.0, 0.05)  # 1e-17 erg/s/cm2/A
    exposure = expose(config.survey, coeff0, shape, scale, sn, rng)
    z_err = {"STAR": 2e-5, "GALAXY": 5e-5, "QSO": 4e-4, "SKY": 0.9}[target.kind]
    z_err *= (1.0 + 10.0 / sn) * float(rng.uniform(0.8, 1.25))
    z = float(rng.uniform(0.0, 7.0)) if target.kind == "SKY" else float(rng.normal(target.z, z_err))
    known = config.survey != "lamost" or rng.random() >= 0.01
    return Visit(entry, target, float(ra), float(dec), sn, z, z_err, known, exposure, rng)
