"""Is a shard folder whole and sound? Fast: what the manifest says is there. Deep: every byte read and compared.

Each check gives one `Check`, passed or not, so that a report can be printed, counted or stored. What a failed check
says names the file, and the sample and byte where there is one, and what mends it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from specshards.common.errors import JobError, UsageError, is_environment
from specshards.common.files import is_remote
from specshards.common.jobs import Engine, run_tasks
from specshards.common.remote import opened, patiently, read_bytes
from specshards.shards.check.dataset import Overall
from specshards.shards.check.result import RERUN, Check, first
from specshards.shards.check.shard import CheckTask, examine
from specshards.shards.format.manifest import MANIFEST, SPLITS, Manifest, ShardRecord
from specshards.shards.format.nearby import listed
from specshards.shards.write.card import INFO, timm_info

__all__ = ["Check", "verify"]

#: Requests at a time, to where a data set lies elsewhere.
_THREADS = 16


def verify(folder: Path, *, deep: bool = False, engine: Engine | None = None) -> tuple[Check, ...]:
    """Check a shard folder; nothing in it is changed.

    A fast check opens footers and first lines: seconds for millions of samples. A deep one also reads every byte of
    every shard that the fast one found whole, one task a shard; this process keeps 35 bytes a sample. Of a data set
    elsewhere (a URL) the fast check lists the folders and reads indices and footers, the deep one copies each shard.

    Raises:
        UsageError: no such folder. JobError: a worker or the environment failed.
    """
    if not is_remote(folder) and not folder.is_dir():
        raise UsageError(f"{folder}: no such folder; name the folder of a data set, with {MANIFEST} in it")
    try:
        manifest = Manifest.load(folder)
    except (UsageError, JobError) as error:
        return (Check("manifest", False, str(error)),)
    about = f"format version {manifest.format_version}, {len(manifest.shards):,} shards"
    files, whole = _files(folder, manifest)
    checks = [
        Check("manifest", True, about + (", MOCK data" if manifest.mock else "")),
        _account(folder, manifest), files, _strays(folder, manifest), _classes(manifest), _info(folder, manifest),
    ]  # fmt: skip
    if deep:
        checks += _deep(folder, manifest, whole, engine or Engine())
    return (*checks, _balance(manifest))


def _account(folder: Path, manifest: Manifest) -> Check:
    """Every object is a sample or a quarantine row."""
    samples, quarantined, name = manifest.samples(), manifest.quarantined, "account"
    text = f"{manifest.objects:,} objects = {samples:,} samples + {quarantined:,} quarantined"
    if manifest.left_out:
        text += f" + {manifest.left_out:,} left out"
    if samples + quarantined + manifest.left_out != manifest.objects:
        return Check(name, False, f"{MANIFEST}: not true that {text}; {RERUN}")
    rows, fault = _rows(folder / "quarantine.parquet")
    if fault or rows != quarantined:
        why = fault or f"{rows:,} rows where the manifest says {quarantined:,}"
        return Check(name, False, f"quarantine.parquet: {why}; {RERUN}")
    return Check(name, True, text)


def _files(folder: Path, manifest: Manifest) -> tuple[Check, list[ShardRecord]]:
    """Every shard's three files are there, of the right size; and the shards of which that is true."""
    faults, whole = [], []
    sizes = _sizes(folder, manifest)
    # What lies elsewhere is waited for, not computed.
    with ThreadPoolExecutor(_THREADS if is_remote(folder) else 1) as pool:
        found = pool.map(lambda record: _incomplete(folder, record, sizes(record)), manifest.shards)
        for record, fault in zip(manifest.shards, found, strict=True):
            if fault is None:
                whole.append(record)
            else:
                faults.append(fault)
    total = sum(record.bytes for record in manifest.shards)
    text = f"{len(manifest.shards):,} tars ({total / 1e6:,.1f} MB) with index and sidecar, of the right length"
    return Check("files", not faults, first(faults, "shards", RERUN) if faults else text), whole


def _sizes(folder: Path, manifest: Manifest) -> Callable[[ShardRecord], int | None]:
    """What gives the bytes of a tar, None where it is missing; elsewhere from lists of the folders, if possible."""
    parents = {record.path(folder).parent for record in manifest.shards} if is_remote(folder) else ()
    lists = {parent: listed(parent) for parent in parents}

    def size(record: ShardRecord) -> int | None:
        path = record.path(folder)
        if (names := lists.get(path.parent)) is not None:
            return names.get(path.name)
        try:
            return patiently(path, path.stat).st_size if is_remote(path) else path.stat().st_size
        except FileNotFoundError:
            return None

    return size


def _incomplete(folder: Path, record: ShardRecord, size: int | None) -> str | None:
    """What is wrong with a shard's files, the tar being of `size` bytes; None where nothing is."""
    stem = record.name.removesuffix(".tar")
    if size is None:
        return f"{record.name}: missing"
    if size != record.bytes:
        return f"{record.name}: {size:,} bytes where the manifest says {record.bytes:,}"
    try:
        content = read_bytes(record.index(folder))
    except FileNotFoundError:
        return f"{stem}.idx: missing"
    if content.partition(b"\n")[0] != b"v1.2 %d" % record.samples or content.count(b"\n") != record.samples + 1:
        return f"{stem}.idx: not a whole DALI index v1.2 of {record.samples} samples"
    rows, fault = _rows(record.sidecar(folder))
    if fault or rows != record.samples:
        return f"{stem}.parquet: {fault or f'{rows} rows where the manifest says {record.samples} samples'}"
    return None


def _rows(path: Path) -> tuple[int, str | None]:
    """Rows of a Parquet file by its footer, or what is wrong with it."""
    try:
        with opened(path) as file:
            return pq.read_metadata(file).num_rows, None
    except FileNotFoundError:
        return 0, "missing"
    except (pa.ArrowException, OSError) as error:
        if is_environment(error):
            raise
        return 0, "damaged Parquet"


def _strays(folder: Path, manifest: Manifest) -> Check:
    """Readers that take every tar of a folder must find ours alone; hidden temporaries are only worth knowing."""
    known = {path.relative_to(folder).as_posix() for record in manifest.shards for path in record.files(folder)}
    if is_remote(folder):
        lists = {split: listed(folder / split) for split in SPLITS}
        if None in lists.values():
            return Check("strays", True, "there are no lists of what lies there", note=True)
        names = [f"{split}/{name}" for split, found in lists.items() for name in sorted(found or ())]
    else:
        paths = [path for split in SPLITS for path in sorted((folder / split).rglob("*")) if path.is_file()]
        names = [path.relative_to(folder).as_posix() for path in paths]
    strange = [name for name in names if name not in known]
    visible = [name for name in strange if not Path(name).name.startswith(".")]
    if visible:
        mend = "remove it: readers that take every file of a folder would read it"
        return Check("strays", False, first([f"{visible[0]}: not of this data set", *visible[1:]], "files", mend))
    if strange:
        left = first([f"{strange[0]}: left by a job that was stopped", *strange[1:]], "hidden files")
        return Check("strays", True, left, note=True)
    return Check("strays", True, "no file in the split folders that the manifest does not name")


def _classes(manifest: Manifest) -> Check:
    """The counts per class are of known classes and add up to the samples."""
    for record in manifest.shards:
        unknown = set(record.classes) - {*manifest.classes, "unlabelled"}
        if unknown or sum(record.classes.values()) != record.samples:
            why = f"unknown {sorted(unknown)[0]}" if unknown else f"they are not {record.samples} samples"
            return Check("classes", False, f"{MANIFEST}: class counts of {record.name}: {why}; {RERUN}")
    counts = {name: sum(record.classes.get(name, 0) for record in manifest.shards) for name in _names(manifest)}
    return Check("classes", True, ", ".join(f"{n:,} {name}" for name, n in counts.items() if n) or "none")


def _info(folder: Path, manifest: Manifest) -> Check:
    """What is told other people's readers is what the manifest says."""
    try:
        content = read_bytes(folder / INFO)
    except FileNotFoundError:
        return Check("info", True, f"no {INFO}: timm's reader would need it", note=True)
    if content != timm_info(manifest).encode():
        return Check("info", False, f"{INFO}: names other shards or lengths than {MANIFEST}; {RERUN}")
    return Check("info", True, f"{INFO} names the shards of {MANIFEST}")


def _balance(manifest: Manifest) -> Check:
    """The classes' shares in each split, and the shard or split that differs most from the whole.

    In units of the standard deviation that drawing each sample at random would give. Objects of one class lie
    together in many inputs, so that this is for reading, and nothing to fail.
    """
    names, n = _names(manifest), max(1, manifest.samples())
    share = {name: sum(record.classes.get(name, 0) for record in manifest.shards) / n for name in names}
    lines, groups = [], []
    for split in SPLITS:
        counts, samples = manifest.class_counts(split), manifest.samples(split)
        groups.append((split, samples, counts))
        shares = " ".join(f"{name} {counts.get(name, 0) / max(1, samples):.1%}" for name in names if share[name])
        lines.append(f"{split} {shares}")
    groups += [(record.name, record.samples, record.classes) for record in manifest.shards]
    worst = (0.0, "")
    for where, samples, counts in groups:
        for name, p in share.items():
            if 0 < p < 1 and samples:
                k = counts.get(name, 0)
                sigma = (k - samples * p) / np.sqrt(samples * p * (1 - p))
                text = f"{where} has {k:,} {name} where {samples * p:,.0f} are expected ({sigma:+.1f} sigma)"
                worst = max(worst, (abs(sigma), text))
    if worst[1]:
        lines.append(f"most unlike the whole: {worst[1]}")
    return Check("balance", True, "; ".join(lines), note=True)


def _names(manifest: Manifest) -> list[str]:
    return [*manifest.classes, "unlabelled"]


def _deep(folder: Path, manifest: Manifest, whole: Sequence[ShardRecord], engine: Engine) -> list[Check]:
    """Read every whole shard, and judge each of them, and all together."""
    shared = (manifest.config, manifest.objects, manifest.classes, manifest.surveys, manifest.labels)
    tasks = [CheckTask(str(folder), record, *shared) for record in whole]
    overall = Overall(folder, manifest, whole)
    sizes = [record.samples for record in whole]
    for found in run_tasks(examine, tasks, engine, describe="verify", unit="img", sizes=sizes):
        overall.take(found)
    return overall.checks()
