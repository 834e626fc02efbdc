"""Rest wavelengths of spectral lines and sky lines, in Angstrom.

Sources: emission lines of galaxies from the SDSS line table (classic.sdss.org/dr6/algorithms/linestable.html,
vacuum); quasar lines from Vanden Berk et al. 2001 (AJ 122, 549, table 2: laboratory wavelengths in vacuum,
and equivalent widths and profile widths rounded from there); stellar lines from the NIST Atomic Spectra
Database (air); TiO and CaH band heads from Kirkpatrick et al. 1991 (ApJS 77, 417, air); night-sky lines from
Osterbrock et al. 1996 (PASP 108, 277, air). Strengths of stellar lines are relative optical depths chosen by
eye against real spectra: good enough to train a pipeline, not to measure abundances.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

H_ALPHA = 6564.61
"""Vacuum wavelength of H-alpha, Angstrom."""


def air_to_vacuum(wave: Array | float) -> Array:
    """Vacuum wavelength for an air wavelength, both in Angstrom and of any shape (Ciddor 1996; above 2000
    A)."""
    air = np.asarray(wave, dtype=np.float64)
    s2 = (1e4 / air) ** 2
    return air * (1.0 + 5.792105e-2 / (238.0185 - s2) + 1.67917e-3 / (57.362 - s2))


# Galaxy emission: name, vacuum wavelength. Strengths follow from the kind of galaxy (see `physics.galaxy`).
GALAXY_EMISSION: dict[str, float] = {
    "[OII]a": 3727.092,
    "[OII]b": 3729.875,
    "[NeIII]": 3869.857,
    "Hdelta": 4102.89,
    "Hgamma": 4341.68,
    "Hbeta": 4862.68,
    "[OIII]a": 4960.295,
    "[OIII]b": 5008.240,
    "[OI]": 6302.046,
    "[NII]a": 6549.85,
    "Halpha": H_ALPHA,
    "[NII]b": 6585.27,
    "[SII]a": 6718.29,
    "[SII]b": 6732.67,
}

# Quasar emission: name, vacuum wavelength, rest equivalent width, rest Gaussian sigma (both Angstrom), broad?
QUASAR_EMISSION: tuple[tuple[str, float, float, float, bool], ...] = (
    ("OVI", 1033.82, 9.6, 7.8, True),
    ("Lyalpha", 1215.67, 50.0, 15.0, True),
    ("Lyalpha core", 1215.67, 9.0, 4.0, True),
    ("NV", 1240.14, 10.0, 7.0, True),
    ("OI", 1304.35, 2.0, 5.5, True),
    ("CII", 1335.30, 0.8, 4.0, True),
    ("SiIV+OIV]", 1398.33, 8.1, 14.0, True),
    ("CIV", 1549.06, 24.0, 14.3, True),
    ("HeII", 1640.42, 2.5, 9.0, True),
    ("AlIII", 1857.40, 1.5, 9.0, True),
    ("CIII]", 1908.73, 21.0, 22.0, True),
    ("CII]", 2326.44, 2.0, 15.0, True),
    ("MgII", 2798.75, 32.0, 33.0, True),
    ("[NeV]", 3426.84, 1.2, 6.0, False),
    ("[OII]", 3728.48, 1.6, 3.3, False),
    ("[NeIII]", 3869.85, 1.4, 5.0, False),
    ("Hdelta", 4102.89, 5.0, 18.0, True),
    ("Hgamma", 4341.68, 12.6, 20.0, True),
    ("Hbeta", 4862.68, 46.0, 40.0, True),
    ("[OIII]a", 4960.30, 3.9, 4.8, False),
    ("[OIII]b", 5008.24, 12.0, 4.8, False),
    ("HeI", 5877.29, 5.0, 23.0, True),
    ("Halpha", H_ALPHA, 190.0, 47.0, True),
    ("[NII]", 6585.27, 3.0, 5.0, False),
)

# Iron emission of quasars as smooth blends (after Vestergaard & Wilkes 2001, Boroson & Green 1992): centre
# and sigma in Angstrom, height over the continuum
QUASAR_IRON: tuple[tuple[float, float, float], ...] = (
    (2080.0, 60.0, 0.06),
    (2490.0, 90.0, 0.16),
    (2960.0, 60.0, 0.08),
    (3200.0, 110.0, 0.08),
    (4570.0, 70.0, 0.13),
    (5270.0, 70.0, 0.12),
)

LYMAN_SERIES: tuple[tuple[float, float], ...] = ((1215.67, 1.0), (1025.72, 0.35), (972.54, 0.17))
"""Lyman lines (vacuum Angstrom) and the optical depth of their forest against Lyman alpha."""

# Stars. Balmer and Paschen lines in vacuum by the Rydberg formula for hydrogen.
_RYDBERG_H = 109677.5834  # 1/cm


def hydrogen(lower: int, upper: int) -> float:
    """Vacuum wavelength in Angstrom of the hydrogen line between two principal quantum numbers."""
    return 1e8 / (_RYDBERG_H * (1.0 / lower**2 - 1.0 / upper**2))


# Air wavelengths and relative optical depth, by group.
STELLAR_AIR: dict[str, tuple[tuple[float, float], ...]] = {
    "CaHK": ((3933.66, 1.0), (3968.47, 0.8)),
    "CaI": ((4226.73, 1.0),),
    "MgB": ((5167.32, 0.6), (5172.68, 0.9), (5183.60, 1.0)),
    "NaD": ((5889.95, 1.0), (5895.92, 0.8), (8183.26, 0.25), (8194.82, 0.35)),
    "CaT": ((8498.02, 0.5), (8542.09, 1.0), (8662.14, 0.8)),
    "KI": ((7664.90, 1.0), (7698.96, 0.8)),
    "HeI": ((4026.19, 0.8), (4471.48, 1.0), (4921.93, 0.5), (5875.62, 0.8), (6678.15, 0.6)),
    "metals": (
        # Fe I, with Mn, Cr, Ti, Sr, Ba, Ca and Mg lines that show at R = 2000
        (3719.94, 1.0), (3734.86, 1.0), (3749.49, 0.9), (3758.23, 0.8), (3815.84, 0.8), (3820.43, 1.0),
        (3825.88, 0.9), (3834.22, 0.8), (3859.91, 1.0), (3886.28, 0.8), (3905.52, 0.6), (4030.75, 0.9),
        (4045.81, 1.0), (4063.59, 0.9), (4071.74, 0.8), (4077.71, 0.6), (4132.06, 0.6), (4143.87, 0.7),
        (4202.03, 0.6), (4215.52, 0.4), (4250.79, 0.6), (4254.35, 0.7), (4271.76, 0.8), (4274.80, 0.6),
        (4289.72, 0.6), (4325.76, 0.9), (4383.55, 1.0), (4404.75, 0.8), (4415.12, 0.6), (4455.89, 0.5),
        (4481.23, 0.3), (4528.61, 0.5), (4554.03, 0.4), (4668.14, 0.3), (4702.99, 0.4), (4871.32, 0.4),
        (4891.49, 0.4), (4920.50, 0.5), (4957.60, 0.6), (5015.00, 0.4), (5041.07, 0.4), (5110.41, 0.3),
        (5204.51, 0.4), (5206.04, 0.5), (5208.42, 0.6), (5227.19, 0.6), (5269.54, 0.9), (5328.04, 0.8),
        (5371.49, 0.6), (5397.13, 0.4), (5405.77, 0.5), (5429.70, 0.5), (5446.92, 0.5), (5455.61, 0.5),
        (5528.41, 0.4), (5586.76, 0.3), (5615.64, 0.4), (5709.38, 0.3), (5857.45, 0.3), (6102.72, 0.3),
        (6122.22, 0.5), (6141.72, 0.3), (6162.17, 0.5), (6191.56, 0.3), (6230.72, 0.3), (6252.56, 0.3),
        (6393.60, 0.3), (6439.08, 0.4), (6462.57, 0.4), (6494.98, 0.5), (6678.00, 0.2), (7511.02, 0.2),
        (8468.41, 0.3), (8514.07, 0.2), (8688.63, 0.3), (8806.76, 0.35), (8824.22, 0.3),
    ),
}  # fmt: skip

# Molecular bands, air: blue edge, red edge, relative optical depth.
TIO_BANDS: tuple[tuple[float, float, float], ...] = (
    (4584.0, 4750.0, 0.4), (4761.0, 4940.0, 0.8), (4954.0, 5160.0, 1.0), (5167.0, 5400.0, 1.1),
    (5448.0, 5590.0, 0.7), (5598.0, 5750.0, 0.5), (5847.0, 6050.0, 0.9), (6158.0, 6400.0, 1.0),
    (6651.0, 6900.0, 0.7), (7053.0, 7320.0, 1.2), (7589.0, 7750.0, 0.3), (8206.0, 8420.0, 0.2),
    (8432.0, 8600.0, 0.3), (8859.0, 9060.0, 0.25),
)  # fmt: skip
CAH_BANDS: tuple[tuple[float, float, float], ...] = ((6382.0, 6420.0, 0.4), (6750.0, 7050.0, 0.4))
CH_BANDS: tuple[tuple[float, float, float], ...] = ((4286.0, 4315.0, 1.0),)
CN_BANDS: tuple[tuple[float, float, float], ...] = ((3850.0, 3884.0, 1.2), (4144.0, 4216.0, 1.0))
MGH_BANDS: tuple[tuple[float, float, float], ...] = ((5030.0, 5211.0, 1.0),)

# Night sky, air: wavelength and relative strength of residuals.
SKY_LINES: tuple[tuple[float, float], ...] = (
    (4358.34, 0.8), (5460.75, 1.0), (5577.34, 8.0), (5889.95, 1.5), (5895.92, 1.0), (6300.30, 3.0),
    (6363.78, 1.2), (6498.73, 0.4), (6533.04, 0.5), (6553.62, 0.5), (6863.96, 0.8), (6923.22, 0.9),
    (7240.98, 0.8), (7276.41, 1.5), (7316.28, 1.6), (7340.89, 1.8), (7369.37, 0.9), (7401.86, 1.0),
    (7523.93, 0.9), (7571.75, 1.0), (7712.00, 1.2), (7750.64, 2.0), (7794.11, 2.2), (7821.50, 1.8),
    (7853.24, 1.4), (7913.71, 2.4), (7949.20, 1.2), (7964.65, 2.2), (7993.33, 2.2), (8025.81, 1.6),
    (8062.28, 0.9), (8344.60, 2.2), (8382.39, 1.8), (8399.17, 2.4), (8415.23, 1.2), (8430.17, 2.2),
    (8452.27, 1.8), (8465.36, 1.8), (8493.39, 1.6), (8504.63, 1.2), (8761.22, 1.0), (8767.91, 2.2),
    (8778.33, 1.8), (8791.19, 1.8), (8827.10, 2.4), (8836.02, 1.4), (8850.28, 1.8), (8867.66, 1.6),
    (8885.85, 2.6), (8903.11, 1.6), (8919.64, 2.6), (8943.40, 2.0), (8957.90, 2.0), (8988.37, 1.6),
    (9001.11, 1.2), (9037.95, 1.2), (9049.23, 1.0), (9313.10, 1.8), (9337.85, 2.2), (9375.96, 2.2),
    (9419.73, 2.0), (9439.65, 2.4), (9476.84, 2.0), (9502.81, 1.8), (9519.18, 2.2), (9552.53, 1.8),
    (9567.58, 1.6), (9607.73, 1.6), (9620.63, 1.4), (9655.00, 1.2), (9699.63, 1.2), (9719.86, 1.4),
    (9740.58, 1.0), (9791.35, 1.8), (9802.37, 1.4), (9872.13, 2.2), (9914.70, 2.2), (10010.51, 1.6),
    (10082.44, 1.8), (10124.00, 1.4), (10213.30, 1.2), (10286.00, 1.4),
)  # fmt: skip

TELLURIC_BANDS: tuple[tuple[float, float, float], ...] = (
    (6868.0, 6945.0, 0.25), (7165.0, 7340.0, 0.15), (7594.0, 7690.0, 0.55), (8130.0, 8345.0, 0.18),
    (8930.0, 9250.0, 0.25), (9280.0, 9800.0, 0.45),
)  # fmt: skip
"""Telluric O2 and H2O bands (air): blue edge, red edge, share of light lost."""
