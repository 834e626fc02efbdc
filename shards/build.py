"""The shard job: spectra Parquet in; tar shards, indices, sidecars, quarantine and, last of all, the manifest out."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ingest.errors import JobError, UsageError, make_folder, naming
from ingest.files import replacing, write_text
from ingest.jobs import Engine, run_tasks
from ingest.quarantine import quarantine_row, write_quarantine
from ingest.schema import CLASSES
from render import RenderError, renderer
from shards import card
from shards.encoding import ENCODINGS
from shards.format import (
    LABELS,
    MANIFEST,
    SPLITS,
    LabelStats,
    Manifest,
    ShardConfig,
    ShardRecord,
    combine_stats,
    key,
    label_npy,
)
from shards.plan import Plan, assign_splits, make_plan, row_order
from shards.spectra import RowGroup, SpectraBlock, SpectraFolder, read_blocks
from shards.tar import TarWriter

_LEDGER = ".ledger"


@dataclass(frozen=True)
class _Task:
    shard: int
    spectra: str
    groups: tuple[RowGroup, ...]
    surveys: tuple[str, ...]
    config: ShardConfig
    fingerprint: str
    out: str


@dataclass(frozen=True)
class TaskResult:
    """What one shard number came to; also its ledger record."""

    shard: int
    fingerprint: str
    objects: int
    shards: tuple[ShardRecord, ...]
    train_stats: dict[str, LabelStats]
    quarantine: list[dict[str, Any]]

    def dumps(self) -> str:
        """JSON; NaN statistics are written as such and read back by `loads`."""
        return json.dumps(asdict(self), indent=1, sort_keys=True) + "\n"

    @classmethod
    def loads(cls, text: str) -> TaskResult:
        """The inverse of `dumps`."""
        content = json.loads(text)
        content["shards"] = tuple(ShardRecord(**record) for record in content["shards"])
        content["train_stats"] = {k: LabelStats(**v) for k, v in content["train_stats"].items()}
        return cls(**content)


@dataclass(frozen=True)
class _Sample:
    row: int
    payload: bytes
    labels: npt.NDArray[np.float64]
    block: int
    index: int


def build(
    config: ShardConfig,
    spectra: Path,
    out: Path,
    *,
    survey: str | None = None,
    engine: Engine | None = None,
    max_bad_fraction: float = 0.05,
    force: bool = False,
) -> Manifest:
    """Draw every spectrum of the Parquet in or below `spectra` and write them to `out` as shards.

    The Parquet is our own or MultimodalUniverse's (see `shards.spectra`). A rerun keeps every shard whose ledger
    record matches the plan and whose bytes match its checksum, and writes the rest; the result is the same byte for
    byte, whatever was interrupted and however many workers there were.

    Args:
        survey: refuse the spectra of others; it names those that do not say whose they are.

    Raises:
        UsageError: nothing to draw, no positions to split it by, another survey's spectra, or `out` holds shards of
            another input or configuration (unless `force`).
        JobError: too many objects could not be drawn, or the environment failed.
    """
    source = SpectraFolder.scan(spectra, survey)
    _placed(source)
    plan = make_plan(source, config)
    _claim(out, plan, config, force)
    tasks = [
        _Task(number, str(source.folder), groups, source.surveys, config, plan.fingerprint, str(out))
        for number, groups in enumerate(plan.tasks)
    ]
    done = {task.shard: record for task in tasks if (record := _kept(task)) is not None}
    todo = [task for task in tasks if task.shard not in done]
    if done:
        print(f"resuming: {len(done)} of {len(tasks)} shards are done already")
    written = sum(shard.bytes for record in done.values() for shard in record.shards)

    def note(result: TaskResult) -> str:
        nonlocal written
        written += sum(shard.bytes for shard in result.shards)
        return f"{written / 1e6:.0f} MB"

    started = time.perf_counter()
    for result in run_tasks(
        write_shard, todo, engine or Engine(), describe=f"draw {config.image.image}", unit="img",
        sizes=[sum(group.rows for group in task.groups) for task in todo], note=note,
    ):  # fmt: skip
        done[result.shard] = result
    seconds = time.perf_counter() - started
    manifest = _publish([done[task.shard] for task in tasks], source, config, out, max_bad_fraction)
    drawn = sum(group.rows for task in todo for group in task.groups)
    print(_summary(manifest, out) + (f", {drawn / seconds:,.0f} objects/s" if drawn else ""))
    return manifest


def write_shard(task: _Task) -> TaskResult:
    """Draw the spectra of one shard number and write its tar for every split, then its ledger record."""
    blocks: list[pa.Table] = []
    samples: list[list[_Sample]] = [[] for _ in SPLITS]
    quarantine: list[dict[str, Any]] = []
    for group in task.groups:
        for block in read_blocks(Path(task.spectra), group, task.surveys):
            quarantine += [quarantine_row(file, row, "read", error) for file, row, error in block.bad]
            split_of = assign_splits(block.meta["_healpix_29"].to_numpy(), task.config)
            for index, payload in _draw(block, task.config, quarantine):
                sample = _Sample(int(block.rows[index]), payload, block.labels[index], len(blocks), index)
                samples[split_of[index]].append(sample)
            blocks.append(block.meta)
    # Row `i` of the task, in reading order, goes to place `rank[i]`; rows that were not drawn leave no gap.
    rows = [group.first_row + index for group in task.groups for index in range(group.rows)]
    rank = dict(zip(rows, row_order(task.config, task.shard, len(rows)).tolist(), strict=True))
    records = []
    for split, members in zip(SPLITS, samples, strict=True):
        members.sort(key=lambda sample: rank[sample.row])
        if members:
            with naming(task.out):
                records.append(_write_split(task, split, members, blocks))
    train = np.array([sample.labels for sample in samples[0]]).reshape(-1, len(LABELS))
    result = TaskResult(
        task.shard, task.fingerprint, len(rows), tuple(records), _statistics(train), quarantine,
    )  # fmt: skip
    write_text(_record_path(task), result.dumps())
    return result


def _draw(block: SpectraBlock, config: ShardConfig, quarantine: list[dict[str, Any]]) -> list[tuple[int, bytes]]:
    drawer = renderer(config.image)
    encoding = ENCODINGS[config.encoding](drawer, config.jpeg_quality)
    codes = np.empty(drawer.code_shape, np.uint8)
    drawn = []
    for index in range(len(block)):
        try:
            spectrum = block.arrays(index)
            # Also where the spectrum itself is stored: what cannot be drawn is set aside now, not met while loading.
            drawer.codes(*spectrum, out=codes)
            drawn.append((index, encoding.encode(codes, spectrum, block.grid(index))))
        except RenderError as error:
            quarantine.append(quarantine_row(*block.place(index), "render", error))
    return drawn


def _write_split(task: _Task, split: str, samples: Sequence[_Sample], blocks: Sequence[pa.Table]) -> ShardRecord:
    name = f"{split}/{split}-{task.shard:06d}.tar"
    path = Path(task.out) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    extension = ENCODINGS[task.config.encoding](renderer(task.config.image)).extension
    with TarWriter(path) as tar:
        for sample in samples:
            tar.add(key(sample.row), [(extension, sample.payload), ("npy", label_npy(sample.labels))])
    sidecar = _write_sidecar(path.with_suffix(".parquet"), samples, blocks)
    classes = Counter(
        "unlabelled" if np.isnan(code) else CLASSES[int(code)] for code in (s.labels[0] for s in samples)
    )
    return ShardRecord(
        split, name, len(samples), tar.size, tar.sha256, tar.index_sha256, sidecar, dict(sorted(classes.items())),
    )  # fmt: skip


def _write_sidecar(path: Path, samples: Sequence[_Sample], blocks: Sequence[pa.Table]) -> str:
    """One row per sample, in the tar's order: key, global row, and every column of the spectra but the spectrum."""
    starts = np.concatenate([[0], np.cumsum([block.num_rows for block in blocks])])
    table = pa.concat_tables([_plain(block) for block in blocks])
    table = table.take(pa.array([int(starts[s.block]) + s.index for s in samples]))
    rows = [sample.row for sample in samples]
    table = table.add_column(0, "key", pa.array([key(row) for row in rows], pa.string()))
    table = table.add_column(1, "source_row", pa.array(rows, pa.int64()))
    with replacing(path) as temporary:
        pq.write_table(table.replace_schema_metadata(None), temporary, compression="zstd")
        return _sha256(temporary)


def _plain(table: pa.Table) -> pa.Table:
    # Dictionaries differ from block to block; a sidecar is small, and plain strings open anywhere.
    return table.cast(
        pa.schema([pa.field(f.name, pa.string() if pa.types.is_dictionary(f.type) else f.type) for f in table.schema])
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _statistics(labels: npt.NDArray[np.float64]) -> dict[str, LabelStats]:
    result = {}
    for column, name in enumerate(LABELS):
        values = labels[:, column]
        values = values[~np.isnan(values)]
        if len(values):
            stats = LabelStats(len(values), *map(float, (values.mean(), values.std(), values.min(), values.max())))
        else:
            stats = combine_stats([])
        result[name] = stats
    return result


def _placed(source: SpectraFolder) -> None:
    """Say what the input lacks; refuse one that cannot be split by sky before anything is read."""
    for note in source.notes:
        print(note)
    if source.unplaced:
        raise UsageError(
            f"{source.folder / source.unplaced[0]}: no columns ra and dec, so repeat visits of an object could fall "
            "into train and test; take the HATS catalogue of the same data, which has them"
        )


def _claim(out: Path, plan: Plan, config: ShardConfig, force: bool) -> None:
    """Say what this folder is being made from; refuse to mix it with something else."""
    claim = out / _LEDGER / "plan.json"
    if claim.exists():
        theirs = json.loads(claim.read_text())
        if theirs["fingerprint"] != plan.fingerprint and not force:
            changed = [k for k, v in config.to_dict().items() if theirs["config"].get(k) != v] or [
                "the input spectra"
            ]
            raise UsageError(
                f"{out}: holds shards made otherwise ({', '.join(changed)} changed); "
                "choose another OUT, or FORCE=1 to replace them"
            )
        if theirs["fingerprint"] != plan.fingerprint:
            _clear(out)
    elif out.exists() and any(out.iterdir()) and not force:
        raise UsageError(f"{out}: is not empty and not a shard folder; choose another OUT")
    # A manifest stands for a finished folder; from here to the end of the job this one is not.
    (out / MANIFEST).unlink(missing_ok=True)
    make_folder(claim.parent)
    content = {"fingerprint": plan.fingerprint, "config": config.to_dict()}
    write_text(claim, json.dumps(content, indent=1, sort_keys=True) + "\n")


def _clear(out: Path) -> None:
    for name in (*SPLITS, _LEDGER):
        shutil.rmtree(out / name, ignore_errors=True)


def _record_path(task: _Task) -> Path:
    return Path(task.out) / _LEDGER / f"{task.shard:06d}.json"


def _kept(task: _Task) -> TaskResult | None:
    """The record of a finished task whose files are all there with the right checksums, else None."""
    try:
        record = TaskResult.loads(_record_path(task).read_text())
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    if record.fingerprint != task.fingerprint:
        return None
    out = Path(task.out)
    for shard in record.shards:
        sums = ((shard.path, shard.sha256), (shard.index, shard.index_sha256), (shard.sidecar, shard.sidecar_sha256))
        for where, expected in sums:
            try:
                if _sha256(where(out)) != expected:
                    return None
            except FileNotFoundError:
                return None
    return record


def _publish(
    results: Sequence[TaskResult], source: SpectraFolder, config: ShardConfig, out: Path, max_bad_fraction: float
) -> Manifest:
    """Check the account, write quarantine, card and `_info.json`, and the manifest after them."""
    quarantine = [row for result in results for row in result.quarantine]
    shards = tuple(shard for split in SPLITS for result in results for shard in result.shards if shard.split == split)
    manifest = Manifest(
        config=config,
        input_fingerprint=source.fingerprint,
        objects=source.rows,
        quarantined=len(quarantine),
        classes=CLASSES,
        surveys=source.surveys,
        shards=shards,
        label_stats={name: combine_stats([r.train_stats[name] for r in results]) for name in LABELS},
        mock=any(name.startswith("mock") for name in source.surveys),
    )
    if manifest.samples() + manifest.quarantined != source.rows:
        raise JobError(
            f"{out}: the account does not add up: {source.rows} spectra, {manifest.samples()} samples, "
            f"{manifest.quarantined} quarantined; run again with FORCE=1"
        )
    write_quarantine(quarantine, out / "quarantine.parquet")
    if manifest.quarantined > max_bad_fraction * source.rows:
        reason, count = Counter(str(row["reason"]) for row in quarantine).most_common(1)[0]
        raise JobError(
            f"{out}: {manifest.quarantined} of {source.rows} spectra could not be drawn, more than "
            f"--max-bad-fraction {max_bad_fraction:g}; {count} times: {reason}; all in {out}/quarantine.parquet"
        )
    write_text(out / "_info.json", card.timm_info(manifest))
    write_text(out / "README.md", card.dataset_card(manifest))
    write_text(out / MANIFEST, manifest.dumps())
    return manifest


def _summary(manifest: Manifest, out: Path) -> str:
    lines = [card.counts_table(manifest)]
    total = sum(shard.bytes for shard in manifest.shards)
    lines.append(
        f"{manifest.objects:,} spectra = {manifest.samples():,} samples + {manifest.quarantined:,} quarantined; "
        f"{len(manifest.shards)} shards, {total / 1e6:.1f} MB, "
        f"{total / max(1, manifest.samples()):,.0f} bytes a sample"
    )
    lines.append(f"{'MOCK data: ' if manifest.mock else ''}{out}/{MANIFEST}")
    return "\n".join(lines)
