"""From the name of a survey to its spectra Parquet: the user's files, or a mock survey where there are none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from specshards.common.errors import UsageError
from specshards.common.jobs import Engine
from specshards.ingest.job.build import IngestConfig, build, claim, find, folder_of, ingest_files
from specshards.ingest.job.summary import Summary
from specshards.ingest.surveys.survey import MOCK_CATALOGUE, check_survey, with_files

MOCK_FILES = 2000


def ingest_survey(
    survey: str | None,
    out: Path,
    *,
    data: str | None = None,
    catalogue: Path | None = None,
    n: int | None = None,
    cuts: str | None = None,
    where: str | None = None,
    listed_only: bool = False,
    seed: int = 0,
    engine: Engine | None = None,
    max_bad_fraction: float = 0.05,
    force: bool = False,
) -> Summary:
    """Ingest `data`, or without it a mock survey of `n` files written to `out/mock`, into `out/spectra`.

    Args:
        survey: whose files; None for any, which needs `data`.
        n: number of files: of the mock survey, or a seeded random choice of `data`.
        cuts, where, listed_only: what to select (see `IngestConfig`).

    Raises:
        UsageError: wrong arguments. JobError: too many bad files, or the environment failed.
    """
    check_survey(survey)
    if n is not None and not 1 <= n <= 1_000_000:
        raise UsageError(f"N={n}: give a number of files from 1 to 1,000,000")
    if seed < 0:
        raise UsageError(f"seed {seed}: give 0 or a positive number")
    config = IngestConfig(survey, cuts=cuts, where=where, listed_only=listed_only, seed=seed)
    if data is None:
        mocks = {entry.name: entry.mock for entry in with_files() if entry.mock is not None}
        if survey not in mocks:
            raise UsageError(f"DATA: name a folder of spectra; a mock survey is only of {' or '.join(mocks)}")
        folder = out / "mock"
        data, catalogue = str(folder), catalogue or folder / MOCK_CATALOGUE
        config = replace(config, mock_files=n or MOCK_FILES)
        engine = engine or Engine()
        with folder_of(out).locked():
            # Before the mock survey of an earlier run is replaced, not after.
            claim(out, config, folder, catalogue, force)
            mocks[survey](folder, n or MOCK_FILES, seed, engine.workers if engine.scheduler is None else None)
            return ingest_files(config, find(config, data), out, catalogue, engine, max_bad_fraction, force)
    return build(
        replace(config, limit=n), data, out, catalogue=catalogue, engine=engine, max_bad_fraction=max_bad_fraction,
        force=force,
    )  # fmt: skip
