"""The spectra Parquet that a data set was drawn from, found again where its ledger says it was, or beside it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from specshards.common.errors import JobError, UsageError
from specshards.common.files import is_remote, location
from specshards.ingest.spectra.blocks import SpectraBlock, read_blocks
from specshards.ingest.spectra.ended import read_summary
from specshards.ingest.spectra.folder import RowGroup, SpectraFolder
from specshards.ingest.tables import Stated
from specshards.shards.format.manifest import Manifest
from specshards.shards.write import job_log
from specshards.shards.write.job import Claim

#: Spectra decoded at most to show some of them: Parquet has no way into the middle of a row group.
_MOST_ROWS = 100_000


@dataclass(frozen=True)
class Source:
    """Spectra Parquet whose row 0 is row `first_row` of the data set."""

    first_row: int
    spectra: SpectraFolder

    def blocks(self, rows: Iterable[int]) -> Iterator[SpectraBlock]:
        """Blocks in which some of `rows` are, in the data set's numbers; those that would cost too much are left out.

        Raises:
            JobError: a file is damaged.
        """
        groups = sorted(self.spectra.groups, key=lambda group: group.first_row)
        starts = [group.first_row for group in groups]
        last_rows: dict[RowGroup, int] = {}
        for row in sorted(row - self.first_row for row in rows if 0 <= row - self.first_row < self.spectra.rows):
            last_rows[groups[bisect_right(starts, row) - 1]] = row
        budget = _MOST_ROWS
        for group, last in sorted(last_rows.items(), key=lambda item: (item[0].rows, item[0].first_row)):
            budget -= group.rows
            if budget < 0:
                return
            for block in read_blocks(self.spectra.folder, group, self.spectra.surveys):
                yield replace(block, rows=block.rows + self.first_row)
                if len(block) and block.rows[-1] >= last:
                    break

    def ingested(self) -> tuple[int, int, dict[str, int]] | None:
        """What `ingest` says in its folder beside the spectra: files, samples of them, and why others gave none.

        None where it says nothing that can be read.
        """
        try:
            content = read_summary(self.spectra.folder.parent) or {}
            reasons = {str(reason): int(n) for reason, n in content["reasons"].items()}
            return int(content["files"]), int(content["samples"]), reasons
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
            return None


def find_sources(folder: Path, manifest: Manifest, spectra: Path | None = None) -> tuple[list[Source], list[str]]:
    """Where the spectra of a data set are, of a merged one those of each of its sources; and why not, a line each.

    A folder counts only when the names, sizes and footers of its files are those of the ledger.

    Args:
        spectra: look there alone.

    Raises:
        UsageError: `spectra` is given, of a data set that was made from others.
    """
    jobs = job_log.load(folder)
    if manifest.made_from:
        if spectra is not None:
            raise UsageError(f"{folder}: was made from data sets, not from spectra; leave --spectra out")
        return _merged_sources(manifest, jobs[-1].sources if jobs else ())
    claim = Claim.load(folder)
    if claim is None:
        return [], [f"{folder} has no ledger that says what the spectra were"]
    survey = jobs[-1].survey if jobs else None
    stated = Stated(claim.config.wavelength_unit, claim.config.medium)
    digests = {name: digest for generation in claim.inputs for name, digest in generation.items()}
    faults = []
    for place in [spectra] if spectra is not None else _places(folder, jobs):
        if is_remote(place):
            faults.append(f"{place} is not on this machine")
            continue
        try:
            scanned = SpectraFolder.scan(place, survey, stated).after(list(digests), claim.surveys)
        except (UsageError, JobError, OSError, ValueError, pa.ArrowException):
            faults.append(f"no spectra Parquet in {place}" if place.exists() else f"{place} is not there")
            continue
        if {name: scanned.digests.get(name) for name in digests} == digests:
            return [Source(0, scanned)], []
        faults.append(f"the Parquet in {place} is not what these shards were made from")
    return [], faults[:1] or ["the ledger does not say where the spectra were, and they are not beside the data set"]


def _places(folder: Path, jobs: list[job_log.JobRun]) -> list[Path]:
    """Where the last job read, and where `make shards` keeps spectra: the whole may have been moved."""
    recorded = [location(jobs[-1].spectra)] if jobs and jobs[-1].spectra else []
    beside = [] if is_remote(folder) else [parent / "spectra" for parent in folder.absolute().parents[:2]]
    return [*recorded, *(place for place in beside if place.is_dir() and place not in recorded)]


def _merged_sources(manifest: Manifest, folders: tuple[str, ...]) -> tuple[list[Source], list[str]]:
    sources: list[Source] = []
    faults = []
    first_row = 0
    for made, name in zip(manifest.made_from, folders or ("",) * len(manifest.made_from), strict=False):
        folder = location(name)
        try:
            if not name or is_remote(folder):
                raise JobError("it was made from data sets of which it does not know where they are")
            merged = Manifest.load(folder)
            if merged.fingerprint() != made["fingerprint"]:
                raise JobError(f"{folder} is not the data set any more that this one was made from")
            inner, reasons = find_sources(folder, merged)
            sources += [replace(source, first_row=source.first_row + first_row) for source in inner]
            faults += reasons
        except (UsageError, JobError) as error:
            faults.append(str(error))
        first_row += int(made["objects"])
    return sources, list(dict.fromkeys(faults))
