"""From the name of a survey to its spectra Parquet: the user's files, or a mock survey where there are none."""

from __future__ import annotations

from pathlib import Path

from ingest.build import IngestConfig, Summary, build, claim
from ingest.errors import UsageError
from ingest.jobs import Engine
from ingest.surveys import reader

MOCK_FILES = 2000


def ingest_survey(
    survey: str,
    out: Path,
    *,
    data: str | None = None,
    catalogue: Path | None = None,
    n: int | None = None,
    seed: int = 0,
    engine: Engine | None = None,
    max_bad_fraction: float = 0.05,
    force: bool = False,
) -> Summary:
    """Ingest `data`, or without it a mock survey of `n` files written to `out/mock`, into `out/spectra`.

    Args:
        n: number of files: of the mock survey, or a seeded random choice of `data`.

    Raises:
        UsageError: wrong arguments. JobError: too many bad files, or the environment failed.
    """
    reader(survey)
    if n is not None and not 1 <= n <= 1_000_000:
        raise UsageError(f"N={n}: give a number of files from 1 to 1,000,000")
    if seed < 0:
        raise UsageError(f"seed {seed}: give 0 or a positive number")
    if data is None:
        from ingest.mock import CATALOGUE, MockConfig, write_with_progress

        folder = out / "mock"
        data, catalogue = str(folder), catalogue or folder / CATALOGUE
        config = IngestConfig(survey, mock_files=n or MOCK_FILES, seed=seed)
        # Before the mock survey of an earlier run is replaced, not after.
        claim(out, config, folder, catalogue, force)
        write_with_progress(MockConfig(survey=survey, n_files=n or MOCK_FILES, seed=seed), folder)
    else:
        config = IngestConfig(survey, limit=n, seed=seed)
    return build(
        config, data, out, catalogue=catalogue, engine=engine, max_bad_fraction=max_bad_fraction, force=force
    )
