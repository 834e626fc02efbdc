"""From the name of a survey to its spectra Parquet: the user's files, or a mock survey where there are none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from specshards.common.errors import UsageError
from specshards.common.jobs import Engine
from specshards.ingest.catalogue.columns import key_rank
from specshards.ingest.catalogue.rows import open_rows
from specshards.ingest.job.build import MOST_FILES, IngestConfig, build, claim, find, folder_of, ingest_files, prepare
from specshards.ingest.job.summary import Summary
from specshards.ingest.surveys import SURVEYS
from specshards.ingest.surveys.survey import MOCK_CATALOGUE, with_files

MOCK_FILES = 2000


def ingest_survey(
    config: IngestConfig,
    out: Path,
    *,
    data: str | None = None,
    catalogue: Path | None = None,
    engine: Engine | None = None,
    max_bad_fraction: float = 0.05,
    force: bool = False,
    trust_names: bool = False,
) -> Summary:
    """Ingest `data`, or without it a mock survey written to `out/mock`, into `out/spectra`.

    Args:
        config: of any survey only where there are `data`; its `limit` is the number of files of a mock survey, too.

    Raises:
        UsageError: wrong arguments. JobError: too many bad files, or the environment failed.
    """
    if config.limit is not None and config.limit > MOST_FILES:
        raise UsageError(f"N={config.limit}: give a number of files from 1 to {MOST_FILES:,}")
    if config.seed < 0:
        raise UsageError(f"seed {config.seed}: give 0 or a positive number")
    survey = config.survey
    if data is None:
        mocks = {entry.name: entry.mock for entry in with_files() if entry.mock is not None}
        if survey not in mocks:
            raise UsageError(f"DATA: name a folder of spectra; a mock survey is only of {' or '.join(mocks)}")
        folder, n = out / "mock", config.limit or MOCK_FILES
        config = replace(config, limit=None, mock_files=n)
        _try(config, catalogue, mocks[survey])
        data, catalogue = str(folder), catalogue or folder / MOCK_CATALOGUE
        engine = engine or Engine()
        with folder_of(out).locked():
            # Before the mock survey of an earlier run is replaced, not after.
            claim(out, config, folder, catalogue, force)
            mocks[survey](folder, n, config.seed, engine.workers if engine.scheduler is None else None)
            return ingest_files(config, find(config, data), out, catalogue, engine, max_bad_fraction, force)
    return build(
        config, data, out, catalogue=catalogue, engine=engine, max_bad_fraction=max_bad_fraction, force=force,
        trust_names=trust_names,
    )  # fmt: skip


def catalogues_of(parts: Sequence[str], catalogue: Path | None) -> dict[str, Path]:
    """Of each part of a joint survey its catalogue, the one that has its key; a part without one is left out.

    Args:
        catalogue: one, or several with commas.

    Raises:
        UsageError: not a table, one that no part can take, or two for one part.
    """
    if catalogue is None:
        return {}
    names = [str(catalogue)] if catalogue.is_file() else str(catalogue).split(",")
    found: dict[str, list[tuple[int, Path]]] = {part: [] for part in parts}
    for path in [Path(name.strip()).expanduser() for name in names if name.strip()]:
        columns = open_rows(path).columns
        ranks = {part: rank for part in parts if (rank := key_rank(columns, part)) is not None}
        if not ranks:
            keys = ", ".join(f"{part} ({' or '.join(SURVEYS[part].keys)})" for part in parts)
            raise UsageError(f"{path}: no key column of any of {keys}: found {', '.join(columns[:12])}")
        for part, rank in ranks.items():
            found[part].append((rank, path))
    chosen = {part: sorted(many) for part, many in found.items() if many}
    for part, (first, *others) in chosen.items():
        if others and others[0][0] == first[0]:
            key = SURVEYS[part].keys[first[0]]
            raise UsageError(f"CATALOG: {first[1]} and {others[0][1]} both have {key}, of {part}; give one of them")
    return {part: many[0][1] for part, many in chosen.items()}


def _try(config: IngestConfig, catalogue: Path | None, mock: Callable[[Path, int, int, int | None], object]) -> None:
    """Find a mistake in the catalogue or the filter before there is a folder: the mock survey takes its time."""
    with TemporaryDirectory(prefix="specshards-") as scratch:
        folder = Path(scratch)
        if catalogue is None:
            mock(folder / "mock", 1, config.seed, 0)
            catalogue = folder / "mock" / MOCK_CATALOGUE
        prepare(config, catalogue, folder)
