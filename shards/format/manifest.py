"""The shard format, version 1: sample, label vector, manifest. `docs/shard-format.md` says it for other readers.

<folder>/manifest.json                     written last; a folder without it is not finished
<folder>/<split>/<split>-000000.tar        samples: <key>.<extension of the encoding>, then <key>.npy
<folder>/<split>/<split>-000000.idx        DALI index v1.2
<folder>/<split>/<split>-000000.parquet    one row per sample, in the tar's order
<folder>/quarantine.parquet                one row per object that gave no sample
<folder>/report.html                       all of it for people; no reader needs it
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from specshards.common.errors import JobError, UsageError
from specshards.common.files import is_remote, sha256
from specshards.common.further import of_json
from specshards.common.json import fits, parse, shown
from specshards.common.remote import read_bytes
from specshards.common.spectrum import LABELS
from specshards.ingest.said import Stated
from specshards.ingest.spectra.schema import PROGRAM_VERSION
from specshards.render import ImageConfig
from specshards.render.registry import RENDERERS
from specshards.shards.format.config import SPLIT_BY as SPLIT_BY
from specshards.shards.format.config import ShardConfig as ShardConfig
from specshards.shards.format.counts import SplitCounts
from specshards.shards.format.encoding import ENCODINGS
from specshards.shards.format.layout import KEY_DIGITS as KEY_DIGITS
from specshards.shards.format.layout import SPLITS as SPLITS
from specshards.shards.format.layout import check_content, check_links
from specshards.shards.format.leaks import Leaks

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
PAGE = "report.html"

NPY_HEADER_BYTES = 128


def key(row: int) -> str:
    """The sample key of global row number `row`: zero-padded, no dots."""
    return f"{row:0{KEY_DIGITS}d}"


def label_npy(labels: npt.NDArray[np.float64]) -> bytes:
    """`labels`, float64 `(len(LABELS),)`, as a .npy file whose header is exactly `NPY_HEADER_BYTES` long.

    The fixed length lets a DALI pipeline slice the header off without parsing it.
    """
    return _npy_header(len(labels)) + np.ascontiguousarray(labels, dtype="<f8").tobytes()


@lru_cache
def _npy_header(n: int) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.zeros(n, "<f8"), version=(1, 0), allow_pickle=False)
    header = buffer.getvalue()[: -8 * n]
    if len(header) != NPY_HEADER_BYTES:
        raise AssertionError("numpy no longer writes a 128-byte header for a short float64 vector")
    return header


@dataclass(frozen=True)
class ShardRecord:
    """One tar: `name` is relative to the data set's folder, such as `train/train-000003.tar`.

    Attributes:
        at_rest: samples whose files gave them in the rest frame.
        with_lsf: samples with a line-spread function (`ShardConfig.lsf`).
    """

    split: str
    name: str
    samples: int
    bytes: int
    sha256: str
    index_sha256: str
    sidecar_sha256: str
    classes: dict[str, int] = field(default_factory=dict)
    at_rest: int = 0
    with_lsf: int = 0

    def to_dict(self) -> dict[str, Any]:
        """JSON-able content, without the later counts where they are 0: as it was written before."""
        return {name: value for name, value in asdict(self).items() if name not in ("at_rest", "with_lsf") or value}

    def path(self, folder: Path) -> Path:
        """The tar."""
        return folder / self.name

    def index(self, folder: Path) -> Path:
        """The DALI index beside the tar."""
        return (folder / self.name).with_suffix(".idx")

    def sidecar(self, folder: Path) -> Path:
        """The Parquet file beside the tar."""
        return (folder / self.name).with_suffix(".parquet")

    def files(self, folder: Path) -> tuple[Path, Path, Path]:
        """The tar and what lies beside it."""
        return self.path(folder), self.index(folder), self.sidecar(folder)

    def damaged(self, folder: Path) -> Path | None:
        """The first of its three files that is missing or not that of its checksum; None where all are whole."""
        sums = (self.sha256, self.index_sha256, self.sidecar_sha256)
        for path, expected in zip(self.files(folder), sums, strict=True):
            try:
                if sha256(path) != expected:
                    return path
            except FileNotFoundError:
                return path
        return None


@dataclass(frozen=True)
class LabelStats:
    """Statistics of one label over the objects of the **train split** that have it (NaN where none has)."""

    count: int
    mean: float
    std: float
    min: float
    max: float

    @classmethod
    def from_dict(cls, content: Mapping[str, float | None], name: str = "") -> LabelStats:
        """Of JSON, where NaN is null; ValueError where it is not that of statistics."""
        fits({k: 0.0 if v is None and k != "count" else v for k, v in content.items()}, cls, name)
        return cls(**{k: float("nan") if v is None else v for k, v in content.items()})  # type: ignore[arg-type]


@dataclass(frozen=True)
class Manifest:
    """`manifest.json`: all that a reader must know, written when everything else is in place.

    Attributes:
        input_fingerprint: sha256 over the spectra files' names, sizes, footers and seals; see docs/shard-format.md.
        objects: rows of the input; samples over all splits + quarantined + left_out = objects.
        left_out: objects that a filter did not choose, or of which another visit is the best.
        label_stats: of the train split only.
        mock: True when any object is of a mock survey.
        made_from: for a data set made from others: their fingerprints, objects and filter.
        further: further columns of the sidecars: name -> `kind`, `number` or `text`, and `unit` or None.
        leaks: what of one object is in several splits, where the split is by row or by a group.
        stated: what a user said of spectra whose files do not say it; no part of the fingerprint.
        split_counts: how many samples went by their id or by a group; None where all went by the sky, or by row.
    """

    config: ShardConfig
    input_fingerprint: str
    objects: int
    quarantined: int
    classes: tuple[str, ...]
    surveys: tuple[str, ...]
    shards: tuple[ShardRecord, ...]
    label_stats: dict[str, LabelStats]
    mock: bool
    left_out: int = 0
    made_from: tuple[dict[str, Any], ...] = ()
    leaks: Leaks | None = None
    further: dict[str, dict[str, str | None]] = field(default_factory=dict)
    split_counts: SplitCounts | None = None
    stated: tuple[dict[str, str], ...] = ()
    labels: tuple[str, ...] = LABELS
    format_version: int = FORMAT_VERSION
    program_version: str = PROGRAM_VERSION

    def split(self, name: str) -> tuple[ShardRecord, ...]:
        """The shards of one split, in order."""
        return tuple(shard for shard in self.shards if shard.split == name)

    def samples(self, split: str | None = None) -> int:
        """Number of samples of one split, or of all."""
        return sum(shard.samples for shard in self.shards if split in (None, shard.split))

    @property
    def at_rest(self) -> int:
        """Number of samples whose files gave them in the rest frame."""
        return sum(shard.at_rest for shard in self.shards)

    @property
    def with_lsf(self) -> int:
        """Number of samples with a line-spread function."""
        return sum(shard.with_lsf for shard in self.shards)

    def class_counts(self, split: str) -> dict[str, int]:
        """Objects per class name in a split (`unlabelled` for those without one), from the shards' records."""
        counts: dict[str, int] = {}
        for shard in self.split(split):
            for name, n in shard.classes.items():
                counts[name] = counts.get(name, 0) + n
        return counts

    def fingerprint(self) -> str:
        """sha256 of the content: equal for equal data sets, wherever they lie."""
        return hashlib.sha256(replace(self, stated=()).dumps().encode()).hexdigest()

    def dumps(self) -> str:
        """The JSON text, with a fixed order and layout. NaN statistics become null."""
        shards = [shard.to_dict() for shard in self.shards]
        content = {**asdict(self), "config": self.config.to_dict(), "shards": shards}
        for name in ("leaks", "split_counts", "further", "stated"):
            if not content[name]:  # as it was written before
                del content[name]
        content["label_stats"] = {
            name: {k: (None if isinstance(v, float) and np.isnan(v) else v) for k, v in asdict(stats).items()}
            for name, stats in self.label_stats.items()
        }
        return json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n"

    @classmethod
    def load(cls, folder: Path) -> Manifest:
        """Read `folder/manifest.json`.

        Raises:
            UsageError: no manifest there. JobError: not one that this version can read, or no way to it.
        """
        path = folder / MANIFEST
        try:
            if not is_remote(path) and not path.is_file():
                raise FileNotFoundError
            text = read_bytes(path)
        except FileNotFoundError:
            missing = f"{folder}: no {MANIFEST} there; run `make shards` first, or name its folder"
            raise UsageError(missing) from None
        try:
            content = parse(text.decode("utf-8"))
            if not isinstance(content, dict):
                raise ValueError("not an object")
            _refuse_newer(path, content)
            said: Any = content.get("label_stats")
            fits(said, dict[str, dict[str, float | None]], "label_stats")
            stats = {name: LabelStats.from_dict(values, f"label_stats.{name}") for name, values in said.items()}
            fits({**content, "label_stats": {}}, cls)
            _refuse_unregistered(path, content["config"])
            del content["label_stats"]
            shards = tuple(ShardRecord(**record) for record in content.pop("shards"))
            config = ShardConfig.from_dict(content.pop("config"))
            for name in ("classes", "surveys", "labels", "made_from", "stated"):
                content[name] = tuple(content.get(name, getattr(cls, name, ())))
            for name, kind in (("leaks", Leaks), ("split_counts", SplitCounts)):
                content[name] = None if content.get(name) is None else kind(**content[name])
            manifest = cls(config=config, shards=shards, label_stats=stats, **content)
            check_content(manifest)
            of_json(manifest.further), [Stated(**each) for each in manifest.stated]  # so that they are sound
            check_links(folder, shards)
        except (KeyError, TypeError, ValueError, UsageError) as error:
            why = " ".join(str(error).split())
            raise JobError(f"{path}: not a manifest of this program ({why}); make the shards again") from error
        return manifest


def _refuse_unregistered(path: Path, config: Mapping[str, Any]) -> None:
    for registry, name in ((RENDERERS, config["image"].get("image")), (ENCODINGS, config.get("encoding"))):
        if name is not None and name not in registry:
            word = name if re.fullmatch(r"[\w.-]{1,60}", name, re.ASCII) else shown(name)
            raise JobError(f"{path}: {registry.kind}={word} is of a package that is not installed here; install it")


def _refuse_newer(path: Path, content: dict[str, Any]) -> None:
    """JobError for a version, or that names the first key of a manifest, that this version does not know."""
    version = content.get("format_version")
    if type(version) is not int or version < 1:
        raise ValueError(f"format_version: {shown(version)} is not a whole number from 1 on")
    if version > FORMAT_VERSION:
        raise JobError(
            f"{path}: format version {shown(version)}, this program reads up to {FORMAT_VERSION}; update it"
        )
    config = content.get("config")
    image = config.get("image") if isinstance(config, dict) else None
    shards, stats = (_parts(content.get(name)) for name in ("shards", "label_stats"))
    for prefix, kind, parts in (
        ("", Manifest, [content]),
        ("config.", ShardConfig, [config]),
        ("config.image.", ImageConfig, [image]),
        ("shards.", ShardRecord, shards),
        ("label_stats.", LabelStats, stats),
    ):
        known = {item.name for item in fields(kind)}
        for name in sorted({name for part in parts if isinstance(part, dict) for name in part} - known):
            raise JobError(
                f"{path}: {prefix}{name if name.isidentifier() else shown(name)} is a key of a newer version "
                f"(written by {_version(content)}, this is {PROGRAM_VERSION}); update this program"
            )


def _parts(content: Any) -> list[Any]:
    """What is in an object or a list."""
    if isinstance(content, dict):
        return list(content.values())
    return content if isinstance(content, list) else []


def _version(content: Mapping[str, Any]) -> str:
    said = str(content.get("program_version"))
    return said if re.fullmatch(r"[\w.+-]{1,40}", said) else shown(said)


def combine_stats(many: Sequence[LabelStats]) -> LabelStats:
    """Statistics of the union of disjoint sets, from their statistics."""
    filled = [stats for stats in many if stats.count]
    count = sum(stats.count for stats in filled)
    if not count:
        return LabelStats(0, *([float("nan")] * 4))
    mean = sum(s.count * s.mean for s in filled) / count
    variance = sum(s.count * (s.std**2 + (s.mean - mean) ** 2) for s in filled) / count
    return LabelStats(count, mean, float(np.sqrt(variance)), min(s.min for s in filled), max(s.max for s in filled))
