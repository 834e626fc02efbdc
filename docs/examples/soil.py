"""MOCK near-infrared spectra of soil, as a laboratory would write them: `python soil.py soil.csv`.

One sample a row: `sample`, `site`, `organic_carbon` (percent of the mass), `clay` (percent), and the reflectance
at 350, 360, ... 2500 nm in columns of those names. The bands are where soils have them, their depths follow what a
sample is made of, and everything else (grain size, water, noise) is chance:

- organic matter darkens the visible and leaves the near infrared bright;
- iron oxides absorb around 500 and 880 nm, water at 1414 and 1915 nm, clay minerals (Al-OH) at 2207 nm;
- an air-dried sample holds the more water, the more clay it has.

Samples of one site are alike, as in nature: a split must keep a site on one side.
"""

import sys
from pathlib import Path

import numpy as np

#: Centre and width (one sigma) of a band, nm.
IRON, EDGE, WATER, WET, CLAY = (880, 70), (500, 60), (1414, 25), (1915, 35), (2207, 18)


def band(wavelength, centre, width):
    """An absorption band of depth 1."""
    return np.exp(-0.5 * ((wavelength - centre) / width) ** 2)


def make(path, sites=40, samples=10, seed=0):
    """Write a CSV of `sites * samples` rows."""
    rng = np.random.default_rng(seed)
    wavelength = np.arange(350, 2501, 10)
    lines = [",".join(["sample", "site", "organic_carbon", "clay", *map(str, wavelength)])]
    for site in range(sites):
        carbon_here, clay_here, iron_here = rng.uniform(0.5, 5), rng.uniform(8, 45), rng.uniform(0.05, 0.25)
        for number in range(samples):
            carbon = max(0.1, carbon_here + rng.normal(0, 0.5))
            clay = min(60, max(2, clay_here + rng.normal(0, 4)))
            water, grain = 0.05 + 0.004 * clay + rng.uniform(0, 0.1), rng.normal(1, 0.05)
            reflectance = grain * (0.10 + 0.45 * (1 - np.exp(-(wavelength - 300) / 450)))
            reflectance *= np.exp(-0.25 * carbon * np.exp(-(wavelength - 350) / 700))
            for depth, (centre, width) in (
                (iron_here, IRON),
                (iron_here, EDGE),
                (water, WATER),
                (1.6 * water, WET),
                (0.010 * clay, CLAY),
            ):
                reflectance *= 1 - depth * band(wavelength, centre, width)
            reflectance += rng.normal(0, 0.002, len(wavelength))
            numbers = [f"{carbon:.2f}", f"{clay:.1f}", *(f"{r:.4f}" for r in reflectance)]
            lines.append(",".join([f"s{site:02d}-{number:02d}", f"field-{site:02d}", *numbers]))
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{path}: MOCK spectra of {sites * samples} soil samples from {sites} fields")


if __name__ == "__main__":
    make(sys.argv[1] if len(sys.argv) > 1 else "soil.csv")
