"""A job that writes a data set: claim the folder, run what is not there yet, check the account, publish.

What is claimed is written down in `.ledger/plan.json`: the configuration, and the inputs in the order in which their
rows are numbered. A rerun keeps every shard whose record and checksums still match. Inputs that were added since are
a generation of their own: they get new shards, and those before stay as they are.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from specshards.common.errors import JobError, UsageError
from specshards.common.files import is_remote, readable, remove_tree, write_text
from specshards.common.folder import Folder, Ledger, changes
from specshards.common.further import Further, as_json
from specshards.common.identity import id_hashes
from specshards.common.impossible import Impossible
from specshards.common.jobs import Engine
from specshards.common.json import fits
from specshards.common.messages import LOGGER
from specshards.common.quarantine import write_quarantine
from specshards.common.spectrum import CLASSES, LABELS
from specshards.shards.format.counts import SplitCounts
from specshards.shards.format.leaks import Leaks
from specshards.shards.format.manifest import MANIFEST, PAGE, SPLITS, Manifest, ShardConfig, combine_stats
from specshards.shards.write import card, job_log
from specshards.shards.write.cells import MEND
from specshards.shards.write.marked import Marked, plain
from specshards.shards.write.repeats import Aside
from specshards.shards.write.split import columns, goes_by_id, split_keys
from specshards.shards.write.task import LEDGER, ShardTask, TaskResult, write_shard


@dataclass(frozen=True)
class Claim:
    """What a data set is made from.

    Attributes:
        inputs: generations of inputs, each name -> digest, in the order of their rows.
        surveys: in the order in which the `survey` label counts.
        moved: rows whose split is not that of their cell.
        aside: rows that give no sample, by why; notes: what was found of rows with one id (`shards.write.repeats`).
        coarsest: the `split_nside` that was asked for, where finer cells were taken.
        suited: fields of the picture that nobody has said, and that suit the spectra (`shards.write.suited`).
    """

    config: ShardConfig
    inputs: tuple[dict[str, str], ...]
    surveys: tuple[str, ...]
    moved: Mapping[int, int] = field(default_factory=Marked)
    aside: Aside = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    coarsest: int | None = None
    suited: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        content = {
            "config": self.config.to_dict(), "inputs": self.inputs, "surveys": self.surveys,
            "moved": plain(self.moved), "aside": {why: rows.tolist() for why, rows in self.aside.items()},
            "notes": self.notes,
        }  # fmt: skip
        later = {"coarsest": self.coarsest, "suited": list(self.suited)}
        return {**content, **{name: value for name, value in later.items() if value}}

    @classmethod
    def load(cls, out: Path) -> Claim | None:
        """The claim of a folder, if it has one that can be read."""
        try:
            content = folder_of(out).claimed() or {}
            fits(content, _ClaimContent)
            claim = cls(
                ShardConfig.from_dict(content["config"]), tuple(content["inputs"]), tuple(content["surveys"]),
                _moved(content["moved"]),
                {why: np.asarray(rows, np.int64) for why, rows in content.get("aside", {}).items()},
                tuple(content.get("notes", ())), content.get("coarsest"), tuple(content.get("suited", ())),
            )  # fmt: skip
            return claim
        except (JobError, UsageError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
            return None


def _moved(content: dict[str, int]) -> Marked:
    """What numbers rows and names splits must be what some job can have meant; ValueError for anything else."""
    splits = np.array(list(content.values()), np.int64)
    if ((splits < 0) | (splits >= len(SPLITS))).any():
        raise ValueError("moved: no such split")
    return Marked(list(map(int, content)), splits)


@dataclass(frozen=True)
class _ClaimContent:
    """`plan.json`."""

    config: ShardConfig
    inputs: tuple[dict[str, str], ...]
    surveys: tuple[str, ...]
    moved: dict[str, int]
    aside: dict[str, list[int]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    coarsest: int | None = None
    suited: tuple[str, ...] = ()


def folder_of(out: Path) -> Folder:
    """The folder of a data set."""
    work = (MANIFEST, *(f"{name}/[!.]*" for name in SPLITS))
    return Folder(out, claim=f"{LEDGER}/plan.json", lock=f"{LEDGER}/lock", holds="shards", work=work)


def locked(out: Path) -> AbstractContextManager[None]:
    """Only one writer in a data set's folder at a time; see `common.folder.locked`."""
    return folder_of(out).locked()


def begun(out: Path) -> Claim | None:
    """The claim of `out` where something came of it."""
    return Claim.load(out) if folder_of(out).has_work() else None


def earlier(
    out: Path, config: ShardConfig, inputs: dict[str, str], force: bool, *, grows: bool = True
) -> Claim | None:
    """The claim of `out` where this job goes on with it; None for a new start, also where nothing came of the claim.

    Args:
        grows: inputs may have been added.

    Raises:
        UsageError: it holds something else, and `force` is not given.
    """
    claim = Claim.load(out)
    foreign = not is_remote(out) and out.exists() and any(path.name != LEDGER for path in out.iterdir())
    if claim is None:
        if (foreign or (out / LEDGER / "plan.json").exists()) and not force:
            raise UsageError(f"{out}: is not empty and not a shard folder of this version; choose another OUT")
        return None
    if claim.coarsest == config.split_nside:
        config = replace(config, split_nside=claim.config.split_nside)
    changed = changes(asdict(claim.config), asdict(config))  # with the defaults that `to_dict` leaves out
    before = {name: digest for generation in claim.inputs for name, digest in generation.items()}
    same = {name: inputs.get(name) for name in before} == before if grows else inputs == before
    if not changed and not same:
        changed = ["the input changed"]
    if not changed:
        return claim
    if not force and folder_of(out).has_work():
        raise folder_of(out).refusal(changed)
    return None


def start(out: Path, claim: Claim, anew: bool) -> None:
    """Write the claim down. From here to the end of the job the folder is not finished: it has no manifest."""
    if anew:
        for name in SPLITS:
            remove_tree(out / name)
        for path in (out / LEDGER).glob("*.json"):
            path.unlink()
        for path in (out / LEDGER / job_log.RUNS, out / PAGE, out / "quarantine.parquet"):
            path.unlink(missing_ok=True)
    folder_of(out).sweep(LEDGER, *SPLITS)
    (out / MANIFEST).unlink(missing_ok=True)
    folder_of(out).write_claim(claim.to_dict())


def run(tasks: Sequence[ShardTask], engine: Engine, describe: str) -> tuple[list[TaskResult], job_log.JobRun]:
    """The results of all tasks, in order; those of an earlier run are kept where their files are whole.

    Returns:
        And how long those took that were run.
    """
    ledger: Ledger[ShardTask, TaskResult] = Ledger(tasks, "shards")
    written = sum(shard.bytes for record in ledger.done.values() for shard in record.shards)

    def note(result: TaskResult) -> str:
        nonlocal written
        written += sum(shard.bytes for shard in result.shards)
        return f"{written / 1e6:.0f} MB"

    started = time.perf_counter()
    results = ledger.run(write_shard, engine, describe=describe, unit="img", note=note)
    seconds = time.perf_counter() - started
    workers = engine.workers if engine.scheduler is None else None
    objects = sum(task.size for task in ledger.todo)
    return results, job_log.JobRun(objects, seconds, len(ledger.todo), len(tasks), workers)


def publish(
    results: Sequence[TaskResult], claim: Claim, out: Path, *, objects: int, input_fingerprint: str, mock: bool,
    max_bad_fraction: float, job: job_log.JobRun, quarantine: Sequence[dict[str, Any]] = (), left_out: int = 0,
    made_from: Sequence[dict[str, Any]] = (), allow_empty: bool = False, further: Further | None = None,
    stated: Sequence[dict[str, str]] = (),
) -> Manifest:  # fmt: skip
    """Check the account, write quarantine, card and `_info.json`, and the manifest after them.

    Args:
        objects: that the job was given; quarantine, left_out: of those, what gave no sample before it began.
        job: how long it took, and what it read.
        further: further columns of the sidecars. stated: see `Manifest`.
        allow_empty: a split that is to have a share of the objects may have none.

    Raises:
        JobError: objects are missing, too many are bad, or a split is empty.
    """
    bad = [*quarantine, *(row for result in results for row in result.quarantine)]
    manifest = Manifest(
        config=claim.config,
        input_fingerprint=input_fingerprint,
        objects=objects,
        quarantined=len(bad),
        left_out=left_out + sum(result.left_out for result in results),
        classes=CLASSES,
        surveys=claim.surveys,
        shards=tuple(s for split in SPLITS for result in results for s in result.shards if s.split == split),
        label_stats={name: combine_stats([r.train_stats[name] for r in results]) for name in LABELS},
        mock=mock,
        made_from=tuple(made_from),
        further=as_json(further or {}),
        stated=tuple(map(dict, dict.fromkeys(tuple(sorted(said.items())) for said in stated))),
    )
    if manifest.samples() + manifest.quarantined + manifest.left_out != objects:
        raise JobError(
            f"{out}: the account does not add up: {objects} spectra, {manifest.samples()} samples, "
            f"{manifest.quarantined} quarantined, {manifest.left_out} left out; run again with FORCE=1"
        )
    write_quarantine(bad, out / "quarantine.parquet")
    new = len(bad) - len(quarantine)
    if new > max_bad_fraction * objects:
        reason, count = Counter(str(row["reason"]) for row in bad).most_common(1)[0]
        raise JobError(
            f"{out}: {new} of {objects} spectra could not be used, more than --max-bad-fraction "
            f"{max_bad_fraction:g}; {count} times: {reason}; all in {out}/quarantine.parquet"
        )
    for line in Impossible.sum(result.impossible for result in results).lines():
        LOGGER.info(line)
    empty = [
        name for name, share in zip(SPLITS, claim.config.split, strict=True) if share and not manifest.samples(name)
    ]
    if empty and not allow_empty:
        raise JobError(f"{out}: the {empty[0]} split of {manifest.samples():,} samples is empty; {MEND}")
    leaks, counts = _together(results, claim.config, out)
    manifest = replace(manifest, leaks=leaks, split_counts=counts)
    if leaks is not None or counts is not None:
        LOGGER.info(card.split_by(manifest))
    job_log.note(out, job)
    write_text(out / card.INFO, card.timm_info(manifest))
    write_text(out / "README.md", card.dataset_card(manifest))
    write_text(out / MANIFEST, manifest.dumps())
    LOGGER.info(card.summary(manifest, out) + (f", {job.rate:,.0f} objects/s" if job.rate else ""))
    return manifest


def _together(
    results: Sequence[TaskResult], config: ShardConfig, out: Path
) -> tuple[Leaks | None, SplitCounts | None]:
    """What of one object is in several splits, and what goes by id or group: of splits that are not by sky alone."""
    by_id = sum(result.by_id for result in results)
    if config.split_by != "row" and config.group is None:
        return None, SplitCounts(by_id) if by_id else None
    found, groups = [], [np.empty(0, np.uint64)]
    for record in (record for result in results for record in result.shards):
        names = dict.fromkeys(["ra", "dec", *columns(config)])
        table = pq.read_table(readable(record.sidecar(out)), columns=list(names))
        split = np.full(len(table), SPLITS.index(record.split), np.int8)
        ids = id_hashes(table["survey"], table["object_id"])
        found.append((table["ra"].to_numpy(), table["dec"].to_numpy(), ids, split))
        if config.group is not None:
            groups.append(np.unique(split_keys(table, config)[~goes_by_id(table, config)]))
    leaks = Leaks(0, 0, 0, 0, 0, 0)
    if found:
        leaks = Leaks.count(*(np.concatenate(part) for part in zip(*found, strict=True)))
    if config.group is None:
        return leaks, None
    samples = sum(record.samples for result in results for record in result.shards)
    return leaks, SplitCounts(by_id, samples - by_id, len(np.unique(np.concatenate(groups))))
