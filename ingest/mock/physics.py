"""Noiseless spectra of stars, galaxies and quasars from a handful of physical parameters.

Flux is per unit wavelength, scaled to a median near one; wavelengths are vacuum Angstrom. The stars are black
bodies with line opacity on top, the galaxies sums of such stars with emission lines, the quasars power laws
with broad lines and a Lyman-alpha forest. That is cruder than a model atmosphere, but lines sit where they
should and their strengths move with temperature, gravity and metallicity the way they should, so a label can
be learned.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from specshards.ingest.mock import lines
from specshards.ingest.mock.lines import Array, air_to_vacuum

LIGHT_SPEED = 299792.458
"""km/s."""

_STEP = 5e-5
_CORE = 0.08  # light left in the core of the strongest lines
_KMS_PER_STEP = LIGHT_SPEED * np.log(10.0) * _STEP
_LOG_REST: Array = np.asarray(3.33 + _STEP * np.arange(14400))
_REST: Array = np.asarray(10.0**_LOG_REST)
_FOREST_LOG = 3.50 + 1e-4 * np.arange(3200)


@dataclass(frozen=True)
class Star:
    """Effective temperature in K, log10 surface gravity (cgs), metallicity [Fe/H] in dex."""

    teff: float
    logg: float
    feh: float


@dataclass(frozen=True)
class Galaxy:
    """Stellar mix and gas. `young`: share of the 5500 A light; widths in km/s; equivalent width in Angstrom.

    `excitation` is [OIII]5008 / H-beta, `nitrogen` is [NII]6585 / H-alpha.
    """

    young: float
    feh: float
    dispersion: float
    halpha_width: float
    gas_dispersion: float
    excitation: float
    nitrogen: float


@dataclass(frozen=True)
class Quasar:
    """Power-law index in wavelength, scale factors of line strength and line width, iron strength, forest
    seed."""

    slope: float
    strength: float
    width: float
    iron: float
    forest_seed: int


def planck(wave: Array, teff: float) -> Array:
    """Black-body shape per unit wavelength at `wave` (Angstrom) for `teff` (K), equal to one at 5500 A."""
    hc_k = 1.43877688e8  # Angstrom K
    shape: Array = (5500.0 / wave) ** 5 * np.expm1(hc_k / (5500.0 * teff)) / np.expm1(hc_k / (wave * teff))
    return shape


def extinction(wave: Array, ebv: float) -> Array:
    """Transmission of dust with colour excess `ebv` (mag) at `wave` (Angstrom): R_V = 3.1, a power law of
    1.2."""
    transmission: Array = 10.0 ** (-0.4 * 3.1 * ebv * (5500.0 / wave) ** 1.2)
    return transmission


def _sigmoid(x: Array | float) -> Array:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(x, -60.0, 60.0))))


def _window(low: float, high: float) -> slice:
    first, last = np.searchsorted(_REST, (low, high))
    return slice(int(first), int(last))


def _opacity(table: tuple[tuple[float, float], ...], sigma: float, damping: float = 0.0) -> Array:
    """Optical depth of lines (air wavelength, depth): Gaussian of `sigma` km/s, or Lorentzian of `damping`
    km/s."""
    tau = np.zeros_like(_REST)
    for air, depth in table:
        centre = float(air_to_vacuum(air))
        reach = 5.0 * sigma + 40.0 * damping
        part = _window(centre * (1.0 - reach / LIGHT_SPEED), centre * (1.0 + reach / LIGHT_SPEED))
        velocity = LIGHT_SPEED * (_REST[part] / centre - 1.0)
        if damping:
            tau[part] += depth / (1.0 + (velocity / damping) ** 2)
        else:
            tau[part] += depth * np.exp(-0.5 * (velocity / sigma) ** 2)
    return tau


def _bands(table: tuple[tuple[float, float, float], ...], degraded: bool) -> Array:
    tau = np.zeros_like(_REST)
    for low, high, depth in table:
        blue, red = float(air_to_vacuum(low)), float(air_to_vacuum(high))
        inside = _sigmoid((_REST - blue) / 2.5) * _sigmoid((red - _REST) / (0.05 * (red - blue)))
        fall = np.exp(-np.clip(_REST - blue, 0.0, None) / (0.6 * (red - blue))) if degraded else 1.0
        tau += depth * inside * fall
    return tau


@lru_cache(maxsize=1)
def _templates() -> dict[str, Array]:
    """Optical depth of each group of lines on the rest grid, for strength one."""
    air = lines.STELLAR_AIR
    rng = np.random.default_rng(19)  # the unresolved lines: always the same, denser towards the blue
    weak_wave = 2300.0 - 800.0 * np.log1p(-rng.random(2600) * 0.9997)
    weak = tuple(zip(weak_wave.tolist(), (0.11 * rng.exponential(size=2600)).tolist(), strict=True))
    return {
        "CaHK": _opacity(air["CaHK"], 60.0, 240.0),
        "CaI": _opacity(air["CaI"], 60.0, 90.0),
        "MgB": _opacity(air["MgB"], 60.0, 90.0),
        "NaD": _opacity(air["NaD"], 60.0, 70.0),
        "KI": _opacity(air["KI"], 60.0, 70.0),
        "CaT": _opacity(air["CaT"], 60.0, 70.0),
        "HeI": _opacity(air["HeI"], 90.0),
        "metals": _opacity(air["metals"], 60.0) + _opacity(tuple(w for w in weak if w[0] < 9500.0), 50.0),
        "blanket": _sigmoid((4350.0 - _REST) / 220.0) + _sigmoid((3400.0 - _REST) / 250.0),
        "TiO": _bands(lines.TIO_BANDS, True),
        "CaH": _bands(lines.CAH_BANDS, False),
        "CH": _bands(lines.CH_BANDS, False),
        "CN": _bands(lines.CN_BANDS, False),
        "MgH": _bands(lines.MGH_BANDS, False),
    }


def _hydrogen(teff: float, logg: float) -> Array:
    """Optical depth of the Balmer and Paschen lines: strongest near 9300 K, broadened by pressure in
    dwarfs."""
    bell = float(np.exp(-0.5 * (np.log(teff / 9300.0) / 0.24) ** 2))
    depth = 0.4 * float(np.clip((teff - 3500.0) / 2000.0, 0.1, 1.0)) + 0.65 * bell
    width = 1.2 + 5.5 * bell * 10.0 ** (0.2 * (logg - 4.0))
    tau = np.zeros_like(_REST)
    for lower, last, share in ((2, 18, 1.0), (3, 18, 0.3 * bell)):
        for upper in range(lower + 1, last + 1):
            centre = lines.hydrogen(lower, upper)
            fade = 0.93 ** (upper - 4) if lower == 2 else 0.95 ** (upper - 11)
            if lower == 3 and centre > 11000.0:
                continue
            part = _window(centre - 40.0 * width, centre + 40.0 * width)
            tau[part] += share * depth * fade / (1.0 + ((_REST[part] - centre) / width) ** 2) ** 1.25
    return tau


def star_rest(star: Star) -> Array:
    """Rest-frame flux of a star on the internal grid (14,400 points, 2138 to 11220 A), one near 5500 A.

    At the intrinsic width of the lines: an instrument's resolution is applied by `observe`.
    """
    t, g, m = star.teff, star.logg - 4.0, star.feh
    sun = 5800.0 / t
    cool = float(_sigmoid((8300.0 - t) / 650.0))
    bell_ch = float(np.exp(-0.5 * ((t - 5200.0) / 800.0) ** 2))
    bell_cn = float(np.exp(-0.5 * ((t - 4700.0) / 500.0) ** 2))
    molecules = float(np.clip((4200.0 - t) / 500.0, 0.0, 3.0) ** 1.2)
    bell_jump = float(np.exp(-0.5 * (np.log(t / 9300.0) / 0.25) ** 2))
    strength = {
        "metals": 0.85 * cool * min(sun**2.2, 2.0) * 10.0 ** (0.45 * m),
        "blanket": 0.38 * cool * min(sun**3, 2.2) * 10.0 ** (0.35 * m),
        "CaHK": 6.0 * cool * sun**2 * 10.0 ** (0.5 * m),
        "CaI": min(0.35 * sun**6 * 10.0 ** (0.5 * m + 0.1 * g), 8.0) * cool,
        "MgB": 0.65 * cool * min(sun**4.5, 3.5) * 10.0 ** (0.45 * m + 0.15 * g),
        "NaD": 0.45 * cool * min(sun**4.5, 3.5) * 10.0 ** (0.5 * m + 0.2 * g),
        "KI": 0.1 * cool * min(sun**5.5, 5.0) * 10.0 ** (0.5 * m + 0.15 * g),
        "CaT": 0.95 * float(_sigmoid((9500.0 - t) / 800.0)) * sun**0.8 * 10.0 ** (0.35 * m - 0.12 * g),
        "CH": 0.55 * bell_ch * 10.0 ** (0.4 * m),
        "CN": 0.28 * bell_cn * 10.0 ** (0.6 * m - 0.12 * g),
        "MgH": 0.25 * float(np.exp(-0.5 * ((t - 4300.0) / 450.0) ** 2)) * 10.0 ** (0.3 * m + 0.25 * g),
        "TiO": 0.45 * molecules * 10.0 ** (0.25 * m),
        "CaH": 0.5 * molecules * 10.0 ** (0.2 * m + 0.25 * g),
        "HeI": 0.5 * float(_sigmoid((t - 11500.0) / 500.0)),
    }
    templates = _templates()
    tau = _hydrogen(t, star.logg)
    for name, value in strength.items():
        if value > 1e-3 and name != "blanket":
            tau += value * templates[name]
    jump = 10.0 ** (-0.45 * bell_jump * _sigmoid((3690.0 - _REST) / 12.0))
    blanket = np.exp(-strength["blanket"] * templates["blanket"])
    flux: Array = planck(_REST, t) * jump * blanket * (_CORE + (1.0 - _CORE) * np.exp(-tau))
    return flux


@lru_cache(maxsize=16)
def _population(young: bool, feh: float) -> Array:
    parts = (
        ((0.45, Star(9500.0, 4.0, feh)), (0.30, Star(12000.0, 4.0, feh)), (0.25, Star(7000.0, 4.2, feh)))
        if young
        else ((0.55, Star(4600.0, 2.3, feh)), (0.35, Star(5600.0, 4.3, feh)), (0.10, Star(3700.0, 1.5, feh)))
    )
    total = np.zeros_like(_REST)
    for share, star in parts:
        flux = star_rest(star)
        total += share * flux / np.median(flux[_window(5400.0, 5600.0)])
    return total


def observe(flux: Array, z: float, wave: Array, sigma: float) -> Array:
    """A spectrum on the internal rest grid, smoothed, redshifted and sampled.

    `flux` (14400,) from `star_rest` or a sum of such; `wave` (N,) observed vacuum Angstrom; `sigma` the
    Gaussian width in km/s of everything that broadens lines. Returns (N,).
    """
    spread = sigma / _KMS_PER_STEP
    reach = int(4.0 * spread) + 1
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / spread) ** 2)
    smooth = np.convolve(flux, kernel / kernel.sum(), mode="same")
    return np.asarray(np.interp(np.log10(wave) - np.log10(1.0 + z), _LOG_REST, smooth))


def _gaussian_line(total: Array, wave: Array, centre: float, sigma: float, area: float) -> None:
    first, last = np.searchsorted(wave, (centre - 6.0 * sigma, centre + 6.0 * sigma))
    part = wave[first:last]
    total[first:last] += area / (sigma * np.sqrt(2.0 * np.pi)) * np.exp(-0.5 * ((part - centre) / sigma) ** 2)


def star_flux(star: Star, z: float, wave: Array, lsf: float) -> Array:
    """Observed flux of a star; `z` its radial velocity over c, `wave` (N,) Angstrom, `lsf` km/s. Returns
    (N,)."""
    return observe(star_rest(star), z, wave, float(np.hypot(lsf, 25.0)))


def galaxy_flux(galaxy: Galaxy, z: float, wave: Array, lsf: float) -> Array:
    """Observed flux of a galaxy at redshift `z`: stars with a 4000 A break, then emission lines. Returns
    (N,).

    `wave` (N,) observed vacuum Angstrom; `lsf` the instrument's Gaussian width in km/s.
    """
    metal = float(np.clip(galaxy.feh, -0.6, 0.2))
    weight = (metal + 0.6) / 0.8
    rest = np.zeros_like(_REST)
    for young, share in ((True, galaxy.young), (False, 1.0 - galaxy.young)):
        rest += share * ((1.0 - weight) * _population(young, -0.6) + weight * _population(young, 0.2))
    flux = observe(rest, z, wave, float(np.hypot(lsf, galaxy.dispersion)))
    if galaxy.halpha_width <= 0.0:
        return flux
    level = float(np.interp(np.log10(lines.H_ALPHA), _LOG_REST, rest)) / (1.0 + z)
    halpha = galaxy.halpha_width * (1.0 + z) * level * (1.0 + z)  # observed line flux
    hbeta = halpha / 3.3
    oiii, nii = hbeta * galaxy.excitation, halpha * galaxy.nitrogen
    sii = 0.13 * halpha * (1.0 + galaxy.nitrogen)
    oii = 2.2 * hbeta / (1.0 + 0.8 * galaxy.nitrogen)
    area = {
        "[OII]a": 0.45 * oii, "[OII]b": 0.55 * oii, "[NeIII]": 0.08 * oiii, "Hdelta": 0.22 * hbeta,
        "Hgamma": 0.44 * hbeta, "Hbeta": hbeta, "[OIII]a": oiii / 3.0, "[OIII]b": oiii, "[OI]": 0.03 * halpha,
        "[NII]a": nii / 3.0, "Halpha": halpha, "[NII]b": nii, "[SII]a": 0.57 * sii, "[SII]b": 0.43 * sii,
    }  # fmt: skip
    width = float(np.hypot(lsf, galaxy.gas_dispersion)) / LIGHT_SPEED
    for name, centre in lines.GALAXY_EMISSION.items():
        _gaussian_line(flux, wave, centre * (1.0 + z), centre * (1.0 + z) * width, area[name])
    return flux


def forest(z: float, seed: int, wave: Array) -> Array:
    """Transmission (N,) of the intergalactic medium before a quasar at `z`, at observed `wave` (N,),
    Angstrom.

    Mean optical depth after Faucher-Giguere et al. 2008 (ApJ 681, 831): 0.0018 (1+z)^3.92; around it a
    log-normal field. The field depends on `seed` and on wavelength alone, so a second visit sees the same
    clouds.
    """
    observed = 10.0**_FOREST_LOG
    field = np.random.default_rng(seed).standard_normal(_FOREST_LOG.size)
    kernel = np.exp(-0.5 * (np.arange(-6, 7) / 1.7) ** 2)
    field = np.convolve(field, kernel / np.sqrt(np.sum(kernel**2)), mode="same")
    clouds = np.exp(1.5 * field) / 1.7  # mean transmission then comes close to exp(-tau_eff)
    tau = np.zeros_like(observed)
    for line, share in lines.LYMAN_SERIES:
        absorber = observed / line
        tau += np.where(absorber < 1.0 + z, share * 0.0018 * absorber**3.92 * clouds, 0.0)
    tau += np.where(observed < 911.75 * (1.0 + z), 1.2 + 0.3 * (911.75 * (1.0 + z) / observed - 1.0), 0.0)
    return np.asarray(np.interp(np.log10(wave), _FOREST_LOG, np.exp(-tau)))


def quasar_flux(quasar: Quasar, z: float, wave: Array, lsf: float) -> Array:
    """Observed flux of a quasar at redshift `z`: power law, iron, lines, forest. Returns (N,), median near
    one.

    `wave` (N,) observed vacuum Angstrom; `lsf` the instrument's Gaussian width in km/s, for the narrow lines.
    """
    rest = wave / (1.0 + z)
    base = (rest / 2500.0) ** quasar.slope
    flux = np.where(rest < 5200.0, base, base * (rest / 5200.0) ** 1.1)  # the host and hot dust in the red
    bumps = np.ones_like(rest)
    for centre, sigma, height in lines.QUASAR_IRON:
        bumps += quasar.iron * height * np.exp(-0.5 * ((rest - centre) / sigma) ** 2)
    bumps += 0.12 * _sigmoid((3700.0 - rest) / 40.0) * np.exp((np.minimum(rest, 3700.0) - 3700.0) / 700.0)
    flux *= bumps
    added = np.zeros_like(flux)
    for _, centre, strength, sigma, broad in lines.QUASAR_EMISSION:
        level = (centre / 2500.0) ** quasar.slope * (max(centre / 5200.0, 1.0) ** 1.1)
        narrow = max(centre * 350.0 / LIGHT_SPEED, 0.5 * sigma)
        own = sigma * quasar.width if broad else narrow
        width = float(np.hypot(own, centre * lsf / LIGHT_SPEED))
        _gaussian_line(added, rest, centre, width, strength * quasar.strength * level)
    return (flux + added) * forest(z, quasar.forest_seed, wave)
