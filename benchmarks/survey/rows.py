"""Spectra Parquet of millions of rows in minutes: a few thousand short spectra, with ids and places of their own.

    python -m specshards.benchmarks.survey.rows ROWS FOLDER WORKERS

Files, row groups and columns are as ingest makes them; spectra have 64 pixels, of few values, so that a row takes
about a hundred bytes. A row depends on its number alone: a longer survey begins with a shorter one. One row in eleven
is another visit of an earlier one's place.
"""

from __future__ import annotations

import sys
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from tqdm import tqdm

from specshards.common.errors import make_folder
from specshards.ingest.spectra.schema import SCHEMA, SPECTRUM_TYPE, healpix_29, spectra_writer

PIXELS = 64
#: As `ingest build` makes them.
PART_ROWS, GROUP_ROWS = 4096, 128
#: Different spectra.
BANK = 4096
CLASSES = ("STAR", "GALAXY", "QSO")
_FIRST, _STEP = 3.57, 0.0063  # of the grid, log10(Angstrom)
_REPEATS = 1 / 11
_PLACE, _VISIT, _LABEL = 1, 2, 3  # purposes of random words

Words = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]


class Bank(NamedTuple):
    """The spectra: class numbers `(n,)`, redshifts `(n,)`, fluxes float32 `(n, PIXELS)`."""

    kind: npt.NDArray[np.int64]
    z: Floats
    flux: npt.NDArray[np.float32]


@cache
def bank() -> Bank:
    """All of them: a slope and a line whose place follows from the redshift."""
    rng = np.random.default_rng(0)
    kind = rng.choice(3, BANK, p=(0.6, 0.25, 0.15))
    z = np.choose(kind, (rng.normal(0, 2e-4, BANK), rng.uniform(0.01, 0.6, BANK), rng.uniform(0.2, 4.0, BANK)))
    x = np.linspace(0, 1, PIXELS)
    slope, height, width = (np.array(values)[kind][:, None] for values in ((-40, 40, -70), (-30, 50, 60),
                                                                           (0.02, 0.02, 0.06)))  # fmt: skip
    place = (0.2 + np.log1p(z) / 2)[:, None]
    flux = 100 + slope * (x - 0.5) + height * np.exp(-0.5 * ((x - place) / width) ** 2) + rng.normal(0, 2, (BANK, 1))
    # Halves: of 24 bits of a mantissa 15 are nothing, which takes no room.
    return Bank(kind, z, (np.round(2 * (flux + rng.normal(0, 2, flux.shape))) / 2).astype(np.float32))


def words(purpose: int, numbers: Words, which: int = 0) -> Words:
    """A random word of each number: the finaliser of splitmix64 (Steele, Lea & Flood 2014, OOPSLA)."""
    x = numbers * np.uint64(0x9E3779B97F4A7C15) + np.uint64((purpose << 40) + (which << 32) + 1)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    return x ^ (x >> np.uint64(31))


def uniform(purpose: int, numbers: Words, which: int = 0) -> Floats:
    """A number from 0 to 1 of each, float64."""
    return np.asarray((words(purpose, numbers, which) >> np.uint64(11)) * 2.0**-53, np.float64)


def places(rows: Words) -> tuple[Floats, Floats]:
    """Right ascension and declination of rows, degrees; visits of one place lie within an arc second."""
    earlier = (uniform(_VISIT, rows, 1) * rows).astype(np.uint64)
    place = np.where(uniform(_VISIT, rows) < _REPEATS, earlier, rows)
    low, high = np.sin(np.deg2rad((-10.0, 60.0)))
    dec = np.rad2deg(np.arcsin(low + (high - low) * uniform(_PLACE, place, 1)))
    return 360 * uniform(_PLACE, place), dec + (uniform(_VISIT, rows, 2) - 0.5) * 0.2 / 3600


def table(first: int, count: int) -> pa.Table:
    """Rows from `first` on, in the schema of `ingest.spectra.schema`."""
    rows = np.arange(first, first + count, dtype=np.uint64)
    which = (words(_LABEL, rows) % np.uint64(BANK)).astype(np.int64)
    kind, (ra, dec) = bank().kind[which], places(rows)
    spread = uniform(_LABEL, rows, 1)
    columns: dict[str, pa.Array] = {
        "object_id": pa.array([f"mock-survey-{row:010d}" for row in rows.tolist()], pa.string()),
        "survey": _constant("mock-lamost", count),
        "release": _constant("mock", count),
        "layout": _constant("mock-parquet", count),
        "label_source": _constant("truth", count),
        "flux_unit": _constant("relative", count),
        "frame": _constant("observed", count),
        "source_file": pa.array(["mock"] * count, pa.string()),
        "ra": pa.array(ra),
        "dec": pa.array(dec),
        "_healpix_29": pa.array(healpix_29(ra, dec)),
        "spectrum": _spectra(bank().flux[which]),
        "wave_coeff0": pa.array(np.full(count, _FIRST)),
        "wave_coeff1": pa.array(np.full(count, _STEP)),
        "flux_scale": pa.array(np.ones(count)),
        "class": pa.DictionaryArray.from_arrays(kind.astype(np.int32), list(CLASSES)),
        "z": pa.array((bank().z[which] + 1e-4 * spread).astype(np.float32)),
        "sn_median": pa.array((3 + 60 * spread).astype(np.float32)),
    }
    for number, (name, low, width) in enumerate((("teff", 4000, 4000), ("logg", 1, 4), ("feh", -2, 2.5))):
        values = low + width * uniform(_LABEL, rows, 2 + number)
        columns[name] = pa.array(values.astype(np.float32), mask=kind != 0)
    return pa.table(
        [columns[f.name] if f.name in columns else pa.nulls(count, f.type) for f in SCHEMA], schema=SCHEMA
    )


def _constant(value: str, count: int) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(np.zeros(count, np.int32), [value])


def _spectra(flux: npt.NDArray[np.float32]) -> pa.StructArray:
    count = len(flux)
    wavelength = np.tile((10.0 ** (_FIRST + _STEP * np.arange(PIXELS))).astype(np.float32), count)
    values: list[npt.NDArray[Any]] = [
        flux.ravel(), np.full(flux.size, 0.25, np.float32), wavelength, np.zeros(flux.size, np.bool_)
    ]  # fmt: skip
    offsets = pa.array(np.arange(count + 1, dtype=np.int32) * PIXELS)
    children = [
        pa.ListArray.from_arrays(offsets, pa.array(each), type=field.type)
        for field, each in zip(SPECTRUM_TYPE, values, strict=True)
    ]
    return pa.StructArray.from_arrays(children, fields=list(SPECTRUM_TYPE))


def write_part(number: int, rows: int, folder: Path) -> int:
    """Write a file of the survey where it is not there; returns its rows."""
    first = number * PART_ROWS
    count = min(PART_ROWS, rows - first)
    path = folder / f"part-{number:05d}.parquet"
    if not path.exists():
        with spectra_writer(path, {"mock": "specshards mock survey, not observations", "first": first}) as writer:
            writer.write_table(table(first, count), row_group_size=GROUP_ROWS)
    return count


def write(rows: int, folder: Path, workers: int = 1) -> None:
    """Write a survey of so many rows to a folder; files that are there stay."""
    make_folder(folder)
    parts = range(-(-rows // PART_ROWS))
    with (
        ProcessPoolExecutor(workers, get_context("spawn")) as pool,
        tqdm(total=rows, unit="row", desc="rows", file=sys.stderr, delay=1) as line,
    ):
        for count in pool.map(write_part, parts, [rows] * len(parts), [folder] * len(parts), chunksize=4):
            line.update(count)


if __name__ == "__main__":
    write(int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
