"""The ingest job: survey files in, `spectra/part-*.parquet` out, every object accounted for.

Files are taken in a seeded random order, cut into parts, and each part is one pure task: read its files, write one
Parquet file, then one ledger record. A rerun keeps every part whose record still matches its input files, so it reads
only what is new or changed, and an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from contextlib import suppress
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from specshards.common.errors import BadObjectError, JobError, UsageError, make_folder
from specshards.common.files import write_text
from specshards.common.folder import Folder
from specshards.common.further import further_name
from specshards.common.identity import Repeats
from specshards.common.impossible import Impossible
from specshards.common.jobs import Engine
from specshards.common.messages import LOGGER
from specshards.common.quarantine import merge_quarantine
from specshards.ingest.catalogue import labels
from specshards.ingest.catalogue import prepared as catalogues
from specshards.ingest.catalogue.cuts import extra_columns
from specshards.ingest.catalogue.further import Wish, named
from specshards.ingest.files import list_files, nothing_in
from specshards.ingest.job.config import MOST_FILES as MOST_FILES
from specshards.ingest.job.config import IngestConfig as IngestConfig
from specshards.ingest.job.part import quarantine_of, record_of
from specshards.ingest.job.plan import make_plan
from specshards.ingest.job.summary import Summary
from specshards.ingest.job.tasks import Account, Tasks
from specshards.ingest.listing_names import NameList
from specshards.ingest.spectra.ended import CLAIM, SUMMARY, WORK
from specshards.ingest.spectra.folder import SpectraFolder
from specshards.ingest.spectra.repeats import find_repeats
from specshards.ingest.spectra.schema import SCHEMA
from specshards.ingest.surveys import SURVEYS, open_file, takes_text
from specshards.ingest.surveys import multimodal_universe as mmu
from specshards.ingest.surveys.survey import foreign
from specshards.ingest.tables import Stated, TableFile, is_table

_TABLES_CHECKED = 20


def build(
    config: IngestConfig,
    data: str,
    out: Path,
    *,
    catalogue: Path | None = None,
    engine: Engine | None = None,
    max_bad_fraction: float = 0.05,
    force: bool = False,
    trust_names: bool = False,
) -> Summary:
    """Ingest survey files into `out/spectra/part-*.parquet`.

    Beside them go `out/ingest/quarantine.parquet` (one row per object that gave no sample), the plan, the ledger and
    `out/ingest/summary.json`.

    Args:
        data: folder, glob or file.
        catalogue: label table joined on the survey's key.
        max_bad_fraction: the job fails when more than this share of objects is bad (sky fibres and cuts are not bad).
        force: replace what an earlier run with another configuration left in `out`.
        trust_names: a file that is known by its name is as it was: no look is taken at its size and time.

    Raises:
        UsageError: wrong arguments. JobError: too many bad objects, or the environment failed.
    """
    files = find(config, data)
    _check_units(config, files)
    with folder_of(out).locked():
        return ingest_files(config, files, out, catalogue, engine or Engine(), max_bad_fraction, force, trust_names)


class Files(NamedTuple):
    """Survey files: what a user names them by, their folder, and their names within it."""

    data: str
    root: Path
    names: NameList


def folder_of(out: Path) -> Folder:
    """The folder of an ingest job."""
    return Folder(out, claim=CLAIM, lock="ingest/lock", holds="spectra", work=WORK)


def find(config: IngestConfig, data: str) -> Files:
    """The files to take; UsageError where there are none."""
    root, found = list_files(data, text=takes_text(config.survey))
    names = NameList(found)
    if not len(names):
        raise UsageError(nothing_in(data, text=takes_text(config.survey)))
    if config.limit is not None:
        chosen = np.random.default_rng(config.seed).permutation(len(names))[: config.limit]
        names = names.take(np.sort(chosen))
    return Files(data, root, names)


def _check_units(config: IngestConfig, files: Files) -> None:
    """UsageError where nobody can tell the unit of a table's wavelengths: before anything is claimed.

    Only where there is nothing but such tables, by the first few of them; beside others, their rows go to quarantine.
    """
    stated = Stated.of(config.to_dict())
    if not all(map(is_table, files.names.unsorted())):
        return
    doubts = []
    for name in files.names.first(_TABLES_CHECKED):
        try:
            opened = open_file(files.root / name, config.survey, stated=stated, parts=config.parts)
            if isinstance(opened.file, TableFile) and (columns := mmu.Columns.of(opened.file)) is not None:
                mmu.check_unit(opened.file, columns)
            return
        except mmu.UnknownUnitError as error:
            doubts.append(f"{files.root / name}: {error}")
        except BadObjectError:
            return  # the job accounts for it
    raise UsageError(doubts[0])


def ingest_files(
    config: IngestConfig, files: Files, out: Path, catalogue: Path | None, engine: Engine, max_bad_fraction: float,
    force: bool, trust_names: bool = False,
) -> Summary:  # fmt: skip
    """What `build` does once it has the files, and the lock of `out`."""
    root, ledger = files.root, out / "ingest"
    # A command that was wrong must not leave a claim that refuses the right one.
    folder_of(out).is_foreign(_identity(config, root, catalogue), force)
    prepared = prepare(config, catalogue, ledger, files)
    claim(out, config, root, catalogue, force)
    plan = make_plan(
        root, files.names, ledger / "plan.parquet", files_per_part=config.files_per_part, seed=config.seed,
        trust_names=trust_names,
    )  # fmt: skip
    tasks = Tasks(config, root, plan, prepared, out, files.names.repeats)
    tasks.drop_stale()
    tasks.run(engine, f"ingest {config.survey or 'files'}")
    account = Account(tasks.results())
    summary = Summary(
        survey=config.survey, layouts=account.layouts, matched=None if catalogue is None else account.matched,
        reasons=dict(account.reasons), conflicts=dict(account.conflicts), impossible=account.impossible,
        columns=None if prepared is None else catalogues.columns_of(prepared),
        unread=Impossible() if prepared is None else catalogues.unread(prepared),
        repeats=find_repeats(SpectraFolder.scan(out / "spectra")) if account.has_spectra else Repeats(),
        converted=dict(account.converted),
    )  # fmt: skip
    quarantine = (quarantine_of(record_of(out, number)) for number in account.quarantined)
    merge_quarantine(quarantine, ledger / "quarantine.parquet")
    LOGGER.info(summary.table())
    refused = None
    try:
        _judge(summary, files, ledger, max_bad_fraction, config)
        if catalogue is not None:
            labels.check_matches(summary.matched or 0, summary.samples, catalogue, account.unmatched)
    except JobError as error:
        refused = str(error)
        if _is_mistake(summary):
            folder_of(out).unclaim()  # which must not refuse the right command
        raise
    finally:
        content = {**asdict(summary), "files": summary.files, "samples": summary.samples, "refused": refused}
        content["repeats"] = None if summary.repeats is None else summary.repeats.to_dict()
        write_text(out / SUMMARY, json.dumps(content, indent=1) + "\n")
    return summary


def _is_mistake(summary: Summary) -> bool:
    """Whether a job was refused for a wrong survey, filter or catalogue, or for an option that it advises."""
    bad = Counter(summary.reasons).most_common(1)
    advised = bool(bad) and re.search(r" --[a-z]", bad[0][0]) is not None
    foreign = summary.matched is not None and labels.is_foreign(summary.matched, summary.samples)
    return not summary.samples or foreign or advised


def claim(out: Path, config: IngestConfig, root: Path, catalogue: Path | None, force: bool) -> None:
    """Record what `out` is made from; refuse to mix it with something else, or with `force` clear it first.

    Hold the lock.

    Raises:
        UsageError: it holds something else, and `force` is not given.
    """
    folder, ledger, identity = folder_of(out), out / "ingest", _identity(config, root, catalogue)
    if folder.is_foreign(identity, force):
        (ledger / "plan.parquet").unlink(missing_ok=True)
        shutil.rmtree(ledger / "parts", ignore_errors=True)
    for name in ("ingest/parts", "spectra"):
        make_folder(out / name)
    folder.sweep("ingest", "ingest/parts", "spectra")
    (out / SUMMARY).unlink(missing_ok=True)  # until the job has ended
    folder.write_claim(identity)


def _identity(config: IngestConfig, root: Path, catalogue: Path | None) -> dict[str, Any]:
    identity = {**config.to_dict(), "data": str(root.resolve())}
    return identity if catalogue is None else {**identity, "catalogue": str(catalogue.resolve())}


def _labels_of(config: IngestConfig, files: Files | None) -> set[str]:
    """Names of further labels that the first object of any of the first files has."""
    found: set[str] = set()
    if files is None:
        return found
    for name in files.names.first(_TABLES_CHECKED):
        with suppress(BadObjectError):
            stated = Stated.of(asdict(config))
            opened = open_file(files.root / name, config.survey, name, stated, config.max_file_size, config.parts)
            for item in islice(opened.objects(), 3):
                found |= set() if isinstance(item, BadObjectError) else set(map(further_name, item.labels))
    return found


def prepare(config: IngestConfig, catalogue: Path | None, ledger: Path, files: Files | None = None) -> Path | None:
    """The catalogue as workers read it; checks that a cut's columns, and the labels to keep, exist somewhere."""
    cut = config.cut()
    if config.listed_only and catalogue is None:
        raise UsageError("--listed-only: needs a --catalog that lists objects")
    prepared = None
    usual = dict(SURVEYS[config.survey].labels) if config.survey is not None else {}
    in_files = _labels_of(config, files) if named(config.labels) or cut is not None else set()
    if catalogue is not None:
        wish = Wish(config.labels, usual, {*in_files, *usual})
        prepared = catalogues.prepare(
            catalogue, config.survey, ledger, None if cut is None else cut.kinds, () if cut is None else cut.exact,
            wish, 1 if files is None else files.names.repeats.depth,
        )  # fmt: skip
    elif missing := [name for name in named(config.labels) if name not in {*in_files, *usual} and files is not None]:
        raise UsageError(f"--labels {missing[0]}: no such label in the spectra; a --catalog may have it")
    if cut is not None:
        known = {*SCHEMA.names, *extra_columns(), *in_files, *usual} - {"spectrum", "lsf_sigma"}
        known |= set() if prepared is None else set(labels.open_catalogue(prepared).columns)
        cut.check_columns(known, f" in the spectra{'' if catalogue is None else ' or the catalogue'}")
    return prepared


def _judge(summary: Summary, files: Files, ledger: Path, max_bad_fraction: float, config: IngestConfig) -> None:
    data, expected = files.data, len(files.names)
    if summary.files != expected or summary.objects != summary.samples + summary.quarantined:
        raise JobError(
            f"the account does not add up: {expected} files given, {summary.files} counted, {summary.samples} samples"
            f" and {summary.quarantined} quarantined; remove {ledger} and run again"
        )
    where = f"reasons in {ledger}/quarantine.parquet"
    own, bad = summary.own
    if summary.foreign and not own:
        found = " or ".join(part for part in config.parts if part != config.survey)
        raise JobError(
            f"DATA={data}: nothing of {config.survey} is in it, and SURVEY={config.joint} is "
            f"{' and '.join(config.parts)}: add files of {config.survey}, or take SURVEY={found}"
        )
    if summary.samples == 0:
        reasons = {why: n for why, n in summary.reasons.items() if not why.endswith(foreign(config.survey))}
        often = Counter(reasons).most_common(1)
        why = f" (mostly: {often[0][0]})" if often else ""
        raise JobError(f"DATA={data}: no usable {summary.survey or ''} spectrum{why}; {where}".replace("  ", " "))
    if summary.bad > max_bad_fraction * summary.objects:
        raise JobError(
            f"DATA={data}: {summary.bad} of {summary.objects} objects are bad, more than --max-bad-fraction "
            f"{max_bad_fraction:g}; {where}"
        )
    if bad > max_bad_fraction * own:
        raise JobError(
            f"DATA={data}: {bad} of {own} objects of {config.survey} are bad, more than --max-bad-fraction "
            f"{max_bad_fraction:g}; {where}"
        )
    repeats = summary.repeats or Repeats()
    if bad + len(repeats.apart) > max_bad_fraction * own:
        raise JobError(
            f"DATA={data}: {repeats.shown()}: with "
            f"{bad} bad objects more than --max-bad-fraction {max_bad_fraction:g} of {own:,}; "
            "give each object an id of its own"
        )
