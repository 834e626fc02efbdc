"""A survey of another package: its own layout, key column, unit of flux, cut, catalogue and mock survey."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from astropy.io import fits

from specshards.common.errors import BadObjectError
from specshards.common.spectrum import Spectrum
from specshards.ingest.fits.direct import FitsFile
from specshards.ingest.surveys import Reader, Survey, register
from specshards.ingest.surveys.common import checked, native, position, text
from specshards.ingest.surveys.survey import MOCK_CATALOGUE


def recognise(file: FitsFile) -> str | None:
    """One table of three columns."""
    return "mysky-1" if len(file) > 1 and file[1].names == {"w", "f", "s"} else None


def read(file: FitsFile, layout: str, source_file: str) -> Iterator[Spectrum]:
    """Nanometres, mJy, and a sigma."""
    header, table = file[0].header, file[1]
    name = text(header.get("NAME"))
    if name is None:
        raise BadObjectError("no NAME")
    sigma = native(table.column("S"), np.float32)
    ra, dec = position(header.get("RA"), header.get("DEC"))
    yield checked(
        Spectrum(
            object_id=name, survey="mysky", release=None, ra=ra, dec=dec, layout=layout, source_file=source_file,
            flux=native(table.column("F"), np.float32), ivar=sigma**-2, mask=sigma > 9,
            wavelength=10 * native(table.column("W"), np.float32), extra={"grade": text(header.get("GRADE"))},
        )
    )  # fmt: skip


def mock(folder: Path, files: int, seed: int, workers: int | None = None) -> None:
    """Every third of grade C; the catalogue's columns are the survey's own."""
    folder.mkdir(parents=True)
    noise = np.random.default_rng(seed)
    rows = []
    for i in range(files):
        wave = np.linspace(380, 900, 2000)
        columns = {"W": wave, "F": 100 + noise.normal(0, 2, 2000), "S": np.full(2000, 2.0)}
        table = fits.BinTableHDU.from_columns([fits.Column(n, "E", array=v) for n, v in columns.items()])
        primary = fits.PrimaryHDU()
        primary.header.update({"NAME": f"s{i}", "RA": 7.0 * i, "DEC": -5.0, "GRADE": "ABC"[i % 3]})
        fits.HDUList([primary, table]).writeto(folder / f"s{i}.fits")
        rows.append({"sky_name": f"s{i}", "kind": "star", "heat": 5000 + i})
    with (folder / MOCK_CATALOGUE).open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


register(
    Survey(
        "mysky",
        (Reader(recognise, read),),
        keys=("sky_name",),
        aliases={"kind": "class", "heat": "teff"},
        flux_unit="mJy",
        cuts={"good": "grade in ('A', 'B') and teff > 5000"},
        columns={"grade": "text"},
        companions=lambda name: (name.replace(".fits", ".txt"),),
        mock=mock,
    )
)
