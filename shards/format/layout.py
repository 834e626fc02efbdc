"""What a data set's folder can look like: splits, names, numbers. A manifest that says otherwise is not believed."""

from __future__ import annotations

import re
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from specshards.common.files import is_remote
from specshards.common.json import different, shown
from specshards.render import renderer

if TYPE_CHECKING:
    from specshards.shards.format.manifest import Manifest, ShardRecord

SPLITS = ("train", "val", "test")
KEY_DIGITS = 10
#: Bytes of a tar that any sample takes: two headers, and a block of labels.
_LEAST_BYTES = 3 * 512


def check_content(manifest: Manifest) -> None:
    """ValueError that names the first field whose value no writer can have meant.

    Names are about to be opened: none may lead out of the folder. That counts add up is for `verify` to say.
    """
    for name in ("objects", "quarantined", "left_out"):
        value = getattr(manifest, name)
        if not 0 <= value <= 10**KEY_DIGITS:
            raise ValueError(f"{name}: {value} is not a number of objects")
    for name, needed in (("labels", ("class", "survey")), ("classes", ()), ("surveys", ())):
        names = getattr(manifest, name)
        if (twice := different(names)) is not None:
            raise ValueError(f"{name}: {shown(twice)} is there twice")
        strange = [each for each in names if not 0 < len(each) <= 200 or not each.isprintable()]
        if strange:
            raise ValueError(f"{name}: {shown(strange[0])} is not a name")
        if missing := [each for each in needed if each not in names]:
            raise ValueError(f"{name}: {missing[0]} is missing")
    mock = [name for name in manifest.surveys if name.startswith("mock")]
    if mock and not manifest.mock:
        raise ValueError(f"mock: is false, with spectra of {mock[0]}")
    for place, record in enumerate(manifest.shards):
        check_record(record, manifest.classes, f"shards[{place}]")
    if (twice := different(record.name for record in manifest.shards)) is not None:
        raise ValueError(f"shards: {twice} is there twice")
    for label, stats in manifest.label_stats.items():
        where = f"label_stats.{shown(label)[1:-1]}"
        if label not in manifest.labels:
            raise ValueError(f"{where}: is no label")
        numbers = (stats.mean, stats.std, stats.min, stats.max)
        known = stats.min <= stats.max and stats.std >= 0 and not np.isnan(stats.mean)
        possible = known if stats.count else all(map(np.isnan, numbers))
        if not 0 <= stats.count <= manifest.objects or not possible:
            raise ValueError(f"{where}: are not the statistics of {stats.count} numbers")
    group = manifest.config.group
    if (manifest.leaks is not None) != (manifest.config.split_by == "row" or group is not None):
        raise ValueError("leaks: are those of a split by row or by a group, and only of that")
    if manifest.leaks is not None:
        manifest.leaks.check()
    if group is not None and manifest.split_counts is None:
        raise ValueError("split_counts: is missing of a split by a group")
    if manifest.split_counts is not None:
        if manifest.config.split_by == "row":
            raise ValueError("split_counts: are not of a split by row")
        manifest.split_counts.check(sum(record.samples for record in manifest.shards), group)
    renderer(manifest.config.image)


def check_record(record: ShardRecord, classes: Sequence[str], where: str = "shard") -> None:
    """ValueError for the record of a shard that no writer can have meant."""
    if record.split not in SPLITS:
        raise ValueError(f"{where}.split: {shown(record.split)} is none of {', '.join(SPLITS)}")
    if re.fullmatch(rf"{record.split}/{record.split}-[0-9]{{6,18}}\.tar", record.name) is None:
        raise ValueError(f"{where}.name: {shown(record.name)} is not the name of a shard")
    if record.samples < 1 or record.samples * _LEAST_BYTES > record.bytes:
        raise ValueError(f"{where}: {record.samples} samples in {record.bytes} bytes are not possible")
    for name in ("at_rest", "with_lsf"):
        if not 0 <= (number := getattr(record, name)) <= record.samples:
            raise ValueError(f"{where}.{name}: {number} of {record.samples} samples are not possible")
    for name in ("sha256", "index_sha256", "sidecar_sha256"):
        if re.fullmatch("[0-9a-f]{64}", getattr(record, name)) is None:
            raise ValueError(f"{where}.{name}: {shown(getattr(record, name))} is no checksum")
    for name, count in record.classes.items():
        if name not in (*classes, "unlabelled") or count < 0:
            raise ValueError(f"{where}.classes: {count} of {shown(name)} are not possible")


def check_links(folder: Path, shards: Sequence[ShardRecord]) -> None:
    """ValueError where a split's folder, or one of its files, leads out of the data set."""
    if is_remote(folder):
        return
    home = folder.resolve()
    for split in dict.fromkeys(record.split for record in shards):
        if not (folder / split).resolve().is_relative_to(home):
            raise ValueError(f"{split}: leads to {(folder / split).resolve()}, out of the folder")
    for record in shards:
        for path in (record.path(folder), record.index(folder), record.sidecar(folder)):
            try:
                mode = path.lstat().st_mode
            except FileNotFoundError:
                continue  # which is said by whoever needs it
            if stat.S_ISLNK(mode) and not path.resolve().is_relative_to(home):
                raise ValueError(f"{path.relative_to(folder)}: leads to {path.resolve()}, out of the folder")
            if not stat.S_ISREG(mode) and not path.is_file():
                raise ValueError(f"{path.relative_to(folder)}: is not a file")
