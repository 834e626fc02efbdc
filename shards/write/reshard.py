"""Data sets made from data sets: `reshard` one (size, encoding, split, filter), or `merge` several into one.

Nothing is drawn again but spectra. A stored picture is copied as it is, or decoded and encoded anew where that loses
nothing. Rows keep their numbers, which in a merged set follow those of the sets before; all are split anew together.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from specshards.common.errors import UsageError
from specshards.common.files import absolute, location
from specshards.common.further import Further, of_json, united, with_further
from specshards.common.identity import among, id_hashes, judge, repeated
from specshards.common.jobs import Engine
from specshards.common.label_columns import sifted
from specshards.common.messages import LOGGER
from specshards.common.quarantine import quarantine_row, read_quarantine
from specshards.common.spectrum import CLASSES, LABELS, Arrays
from specshards.ingest.catalogue import cuts
from specshards.render import ImageConfig, RenderError, renderer
from specshards.shards.format.archive import Archive, check_codes, labels_of, not_said
from specshards.shards.format.encoding import ENCODINGS, Encoding
from specshards.shards.format.manifest import Manifest, ShardConfig, ShardRecord
from specshards.shards.write.cells import fine_enough
from specshards.shards.write.job import Claim, earlier, locked, publish, run, start
from specshards.shards.write.marked import Marked
from specshards.shards.write.plan import fingerprint, pack, task_size
from specshards.shards.write.repeats import decided, reasons, refuse_too_many, within
from specshards.shards.write.sidecar import sidecar
from specshards.shards.write.sources import check_whole
from specshards.shards.write.split import columns, group_column
from specshards.shards.write.task import Portion, SetAside, ShardTask
from specshards.shards.write.visits import moved_rows

#: A task takes its samples from about this many places, so that the data sets and their shards mix.
_PLACES = 8
_SMALLEST_PIECE = 16
#: Samples that are read at a time.
_AT_ONCE = 1024
_NO_CODES = np.empty(0, np.uint8)


@dataclass(frozen=True)
class DataSet:
    """One of the data sets.

    Attributes:
        base: what is added to its row numbers.
        surveys: position of each of its surveys among those of the new set; names: theirs.
    """

    folder: str
    config: ShardConfig
    base: int
    surveys: tuple[int, ...]
    names: tuple[str, ...]


@dataclass(frozen=True)
class Piece:
    """Samples `start` to `stop` of one tar of source number `source`."""

    source: int
    record: ShardRecord
    start: int
    stop: int


@dataclass(frozen=True)
class CopyTask(ShardTask):
    """Copy, or encode anew, pieces of tars."""

    sources: tuple[DataSet, ...]
    pieces: tuple[Piece, ...]
    where: str | None
    further: Further = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Samples of the pieces."""
        return sum(piece.stop - piece.start for piece in self.pieces)

    @property
    def rows(self) -> npt.NDArray[np.int64]:
        """Their numbers in the new set."""
        found = []
        for piece in self.pieces:
            source = self.sources[piece.source]
            column = sidecar(source.folder, piece.record, ["source_row"])["source_row"].to_numpy()
            found.append(column[piece.start : piece.stop] + source.base)
        return np.concatenate(found).astype(np.int64)

    def read(self, account: SetAside) -> Iterator[Portion]:
        """One portion a piece."""
        for piece in self.pieces:
            yield self._portion(piece, account)

    def _portion(self, piece: Piece, account: SetAside) -> Portion:
        source = self.sources[piece.source]
        table = sidecar(source.folder, piece.record).slice(piece.start, piece.stop - piece.start)
        meta, impossible = sifted(table)
        account.impossible.update(impossible)
        rows = meta["source_row"].to_numpy() + source.base
        chosen = np.arange(len(rows))
        if self.where is not None:
            chosen = np.flatnonzero(_chosen(self.where, meta))
            account.left_out.extend(np.delete(rows, chosen).tolist())
        tar = location(source.folder) / piece.record.name
        old = ENCODINGS[source.config.encoding](renderer(source.config.image), source.config.jpeg_quality)
        new = ENCODINGS[self.config.encoding](renderer(self.config.image), self.config.jpeg_quality)
        aside = reasons(self.aside)
        for i in chosen.tolist():
            if (why := aside.get(int(rows[i]))) is not None:
                place = str(meta["source_file"][i].as_py()), int(rows[i])
                account.take(int(rows[i]), why, meta["object_id"][i].as_py(), place)
        chosen = np.array([i for i in chosen.tolist() if int(rows[i]) not in aside], np.int64)
        said = labels_of(table.take(chosen), LABELS, CLASSES, source.names)
        labels = labels_of(meta.take(chosen), LABELS, CLASSES, source.names)
        column = LABELS.index("survey")
        known = ~np.isnan(labels[:, column])
        labels[known, column] = np.asarray(source.surveys)[labels[known, column].astype(np.intp)]
        archive = Archive([tar], [piece.record.samples], old.extension, LABELS)
        kept, payloads = [], []
        for first in range(0, len(chosen), _AT_ONCE):
            stored = archive.read(piece.start + chosen[first : first + _AT_ONCE])
            vectors, damaged = archive.vectors(stored)
            wrong = not_said(vectors, said[first : first + _AT_ONCE]) | damaged
            wrong |= check_codes(vectors, LABELS, len(CLASSES), len(source.surveys))
            for i, payload in enumerate(stored.payloads, first):
                try:
                    if i - first in wrong:
                        raise ValueError(wrong[i - first])
                    payloads.append(_encoded(payload, old, new))
                    kept.append(i)
                except (RenderError, ValueError) as error:
                    stage = "render" if isinstance(error, RenderError) else "read"
                    file = str(meta["source_file"][int(chosen[i])].as_py())
                    account.quarantine.append(quarantine_row(file, int(rows[chosen[i]]), stage, error))
        archive.close()
        meta = with_further(meta.drop_columns(["key", "source_row"]).take(chosen[kept]), self.further)
        return Portion(rows[chosen[kept]], payloads, labels[kept], meta)


def _encoded(payload: npt.NDArray[np.uint8], old: Encoding, new: Encoding) -> bytes:
    """A sample's bytes in the new encoding; the same ones, after a look, where nothing changes."""
    content = old.decode(payload)
    if type(old) is type(new):
        return payload.tobytes()
    if old.needs_picture:
        none = np.empty(0, np.float32)
        return new.encode(content, Arrays(none, None, none, np.empty(0, np.bool_)), None)
    return new.encode(new.drawer.codes(*content) if new.needs_picture else _NO_CODES, content, None)


def _chosen(where: str, meta: pa.Table) -> npt.NDArray[np.bool_]:
    cut = cuts.parse(where)
    names = {name.lower(): name for name in meta.column_names}
    cut.check_columns(names, "")
    return cut.keeps({name: meta[names[name]] for name in cut.columns}, len(meta))


def remake(
    folders: Sequence[str | Path],
    out: str | Path,
    *,
    encoding: str | None = None,
    image: ImageConfig | None = None,
    samples_per_shard: int | None = None,
    split: tuple[float, float, float] | None = None,
    split_by: str | None = None,
    group: str | None = None,
    seed: int | None = None,
    where: str | None = None,
    engine: Engine | None = None,
    max_bad_fraction: float = 0.05,
    allow_empty_split: bool = False,
    force: bool = False,
) -> Manifest:
    """Make one data set of one or several; what is None stays as it is in the first of them.

    Args:
        folders: data sets of one picture and encoding; paths or URLs.
        encoding: `png`, `pnm` and `jpeg` can be made from `png` and `pnm`; all of them, and any `image`, from `flux`.
        split: shares of train, val and test; split_by, group: what goes into one of them as a whole.
        where: take only samples that pass this filter over the sidecars' columns (see `ingest.catalogue.cuts`); the
            others are counted as left out.
        allow_empty_split: take the cells of the sky as they are, also where they leave a split without objects.

    Raises:
        UsageError: data sets that do not fit, a split that would be empty, an encoding that cannot be made from
            theirs, or `out` holds another.
        JobError: a damaged source, or the environment failed.
    """
    folders = [str(absolute(location(folder))) for folder in folders]
    manifests = [Manifest.load(location(folder)) for folder in folders]
    config = _config(folders, manifests, encoding, image, samples_per_shard, split, split_by, group, seed)
    out = absolute(location(out))
    if out in [location(folder) for folder in folders]:
        raise UsageError(f"{out}: is one of the sources; choose another OUT")
    surveys = tuple(sorted({name for each in manifests for name in each.surveys}))
    bases = np.cumsum([0, *(manifest.objects for manifest in manifests)])
    renamed = [tuple(surveys.index(name) for name in manifest.surveys) for manifest in manifests]
    sources = tuple(
        DataSet(str(folder), manifest.config, int(base), places, manifest.surveys)
        for folder, manifest, base, places in zip(folders, manifests, bases, renamed, strict=False)
    )
    further = united((of_json(manifest.further) for manifest in manifests), str(out))
    inputs = {str(i): manifest.fingerprint() for i, manifest in enumerate(manifests)}
    if where is not None:
        _chosen(where, sidecar(folders[0], manifests[0].shards[0]))  # before anything is written
        inputs["where"] = hashlib.sha256(where.encode()).hexdigest()
    if config.group is not None:
        there = {name for _, table in _sidecars(sources, manifests, None) for name in table.column_names}
        theirs = sorted(there - {"key", "source_row", "_healpix_29"})
        config = replace(config, group=group_column(theirs, config.group, out))
    with locked(out):
        old = earlier(out, config, inputs, force, grows=False)
        check_whole(folders, manifests, engine or Engine())
        asked = config.split_nside
        if old is None:
            tables = partial(_tables, sources, manifests, config, where)
            config = fine_enough(config, tables, str(out), allow_empty_split)
            claim = _claim(sources, manifests, config, inputs, surveys, max_bad_fraction, out, allow_empty_split)
            claim = replace(claim, coarsest=None if asked == config.split_nside else asked)
        else:
            claim = old
        for note in claim.notes:
            LOGGER.info(note)
        start(out, claim, anew=old is None)
        tasks = _tasks(sources, manifests, claim, where, further, out)
        results, job = run(tasks, engine or Engine(), "copy")
        return publish(
            results, claim, out, objects=int(bases[-1]),
            input_fingerprint=hashlib.sha256(json.dumps(inputs).encode()).hexdigest(),
            mock=any(manifest.mock for manifest in manifests), max_bad_fraction=max_bad_fraction,
            job=replace(job, sources=tuple(map(str, folders))),
            quarantine=_quarantine(sources), left_out=sum(manifest.left_out for manifest in manifests),
            made_from=[_origin(manifest, where) for manifest in manifests], allow_empty=allow_empty_split,
            further=further, stated=[said for manifest in manifests for said in manifest.stated],
        )  # fmt: skip


def _config(
    folders: Sequence[str | Path], manifests: Sequence[Manifest], encoding: str | None, image: ImageConfig | None,
    samples_per_shard: int | None, split: tuple[float, float, float] | None, split_by: str | None,
    group: str | None, seed: int | None,
) -> ShardConfig:  # fmt: skip
    """The new configuration, once the sources agree in what one data set can hold."""
    first = manifests[0]
    theirs = first.config.encoding
    for folder, manifest in zip(folders, manifests, strict=True):
        for what, here, there in (
            ("encoding", manifest.config.encoding, theirs), ("labels", manifest.labels, LABELS),
            ("classes", manifest.classes, CLASSES),
            ("picture", manifest.config.image, first.config.image if image is None else manifest.config.image),
            ("split_by (which --split-by would say anew)", split_by or group or manifest.config.rule,
             split_by or group or first.config.rule),
        ):  # fmt: skip
            if here != there:
                raise UsageError(f"{folder}: another {what} than {folders[0]}; make both alike")
    wanted = encoding or theirs
    old, new = ENCODINGS[theirs], ENCODINGS.choose(wanted)
    if image not in (None, first.config.image) and old.needs_picture:
        raise UsageError(f"{folders[0]}: holds drawn pictures; another one needs shards with ENCODING=flux")
    if not old.becomes(new):
        raise UsageError(
            f"{folders[0]}: holds {theirs}, of which no {wanted} can be made; make it from the spectra with "
            f"`shards build --encoding {wanted}`"
        )
    # Of several data sets, each with the best visits of its own, nobody has chosen the best.
    base = first.config if len(manifests) == 1 else replace(first.config, best_of=None)
    # Records are copied as they are; a picture has no place for what came with them.
    base = replace(base, lsf=not new.needs_picture and any(manifest.config.lsf for manifest in manifests))
    changes: dict[str, Any] = {
        "encoding": encoding, "image": image, "samples_per_shard": samples_per_shard, "split": split,
        "split_by": split_by, "seed": seed,
    }  # fmt: skip
    if group is not None and split_by is None:
        changes["split_by"] = ShardConfig.split_by
    if split_by is not None:
        base = replace(base, split_by=split_by, group=None, split_nside=ShardConfig.split_nside)
    # The coarsest cells that any of them has: finer ones are taken again where they are needed.
    coarsest = min(manifest.config.split_nside for manifest in manifests)
    changes["group"] = group if group is not None else base.group
    is_by_sky = changes["group"] is None and (split_by or first.config.split_by) == "sky"
    changes["split_nside"] = coarsest if is_by_sky else ShardConfig.split_nside
    return replace(base, **{name: value for name, value in changes.items() if value is not None})


def _tasks(
    sources: tuple[DataSet, ...],
    manifests: Sequence[Manifest],
    claim: Claim,
    where: str | None,
    further: Further,
    out: Path,
) -> list[CopyTask]:
    target = task_size(sum(manifest.samples() for manifest in manifests), claim.config)
    size = max(_SMALLEST_PIECE, -(-target // _PLACES))
    pieces = [
        Piece(number, record, start, min(start + size, record.samples))
        for number, manifest in enumerate(manifests)
        for record in manifest.shards
        for start in range(0, record.samples, size)
    ]
    mark = fingerprint(claim.config.to_dict(), claim.inputs, list(claim.surveys))
    # Every task is told all that was moved or set aside: a piece does not know its rows before it is read, and they
    # are few.
    moved, aside = Marked.of(claim.moved), within(claim.aside, [(0, sum(m.objects for m in manifests))])
    return [
        CopyTask(number, str(out), claim.config, mark, moved, aside, sources, chosen, where, further)
        for number, chosen in enumerate(pack(pieces, [p.stop - p.start for p in pieces], claim.config, target))
    ]


def _tables(
    sources: Sequence[DataSet], manifests: Sequence[Manifest], config: ShardConfig, where: str | None
) -> Iterator[pa.Table]:
    """What decides the split of the samples that are taken, a shard at a time."""
    for _, table in _sidecars(sources, manifests, columns(config) if where is None else None, config.group):
        yield table if where is None else table.filter(pa.array(_chosen(where, table)))


def _claim(
    sources: Sequence[DataSet], manifests: Sequence[Manifest], config: ShardConfig, inputs: dict[str, str],
    surveys: tuple[str, ...], max_bad_fraction: float, out: Path, allow_empty: bool,
) -> Claim:  # fmt: skip
    """What is moved and set aside, from the sidecars: 32 bytes a sample."""
    found = []
    names = ["source_row", "ra", "dec"]
    for source, table in _sidecars(sources, manifests, [*names, "survey", "object_id"]):
        rows, ra, dec = (table[name].to_numpy() for name in names)
        found.append((rows + source.base, ra, dec, id_hashes(table["survey"], table["object_id"])))
    rows, ra, dec, hashes = (np.concatenate(part) for part in zip(*found, strict=True))
    same = among(hashes, repeated([hashes]))
    repeats = judge(hashes[same], rows[same], ra[same], dec[same], lambda wanted: _names(sources, manifests, wanted))
    decision = decided(repeats)
    refuse_too_many(decision, len(rows), max_bad_fraction, out)
    names = list(dict.fromkeys(["source_row", "ra", "dec", *columns(config)]))
    tables = (
        (table["source_row"].to_numpy() + source.base, table)
        for source, table in _sidecars(sources, manifests, names, config.group)
    )
    moved = moved_rows(tables, config, {}, 0, repeats, allow_empty)
    return Claim(config, (inputs,), surveys, moved, decision.aside, decision.notes)


def _names(
    sources: Sequence[DataSet], manifests: Sequence[Manifest], rows: npt.NDArray[np.int64]
) -> list[tuple[str, str]]:
    """Survey and id of some samples."""
    wanted, found = np.sort(rows), {}
    for source, table in _sidecars(sources, manifests, ["source_row", "survey", "object_id"]):
        numbers = table["source_row"].to_numpy() + source.base
        at = np.flatnonzero(np.isin(numbers, wanted))
        for row, one in zip(numbers[at].tolist(), table.take(pa.array(at)).to_pylist(), strict=True):
            found[row] = (one["survey"], one["object_id"])
    return [found[row] for row in rows.tolist()]


def _sidecars(
    sources: Sequence[DataSet], manifests: Sequence[Manifest], names: list[str] | None, group: str | None = None
) -> Iterator[tuple[DataSet, pa.Table]]:
    for source, manifest in zip(sources, manifests, strict=True):
        for record in manifest.shards:
            yield source, sidecar(source.folder, record, names, group)


def _quarantine(sources: Sequence[DataSet]) -> list[dict[str, Any]]:
    """What gave no sample in the sources, under its number in the new set; a row of a table keeps its place there."""
    rows = []
    for source in sources:
        for row in read_quarantine(location(source.folder) / "quarantine.parquet").to_pylist():
            rows.append(row if row["file"].endswith(".parquet") else {**row, "row": row["row"] + source.base})
    return rows


def _origin(manifest: Manifest, where: str | None) -> dict[str, Any]:
    content = {"fingerprint": manifest.fingerprint(), "objects": manifest.objects}
    return {**content, "surveys": list(manifest.surveys), "where": where}
