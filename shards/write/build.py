"""The shard job: spectra Parquet in; tar shards, indices, sidecars, quarantine and, last of all, the manifest out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from specshards.common.files import absolute, location
from specshards.common.further import Further, with_further
from specshards.common.jobs import Engine
from specshards.common.messages import LOGGER
from specshards.common.quarantine import quarantine_row
from specshards.ingest.spectra.blocks import SpectraBlock, content_of, read_blocks
from specshards.ingest.spectra.ended import check_ended
from specshards.ingest.spectra.folder import RowGroup, SpectraFolder
from specshards.ingest.spectra.repeats import group_columns
from specshards.ingest.tables import Stated
from specshards.render import RenderError, renderer
from specshards.render.frame import framed
from specshards.render.prepare import check
from specshards.shards.format.encoding import ENCODINGS
from specshards.shards.format.manifest import Manifest, ShardConfig
from specshards.shards.write.cells import fine_enough
from specshards.shards.write.job import Claim, begun, earlier, folder_of, locked, publish, run, start
from specshards.shards.write.marked import Marked, joined
from specshards.shards.write.plan import cut_tasks, fingerprint
from specshards.shards.write.repeats import decide, reasons, refuse_too_many, within
from specshards.shards.write.split import group_column, read_rows
from specshards.shards.write.suited import suited
from specshards.shards.write.task import LEDGER, Portion, SetAside, ShardTask, TaskResult
from specshards.shards.write.visits import moved_rows


@dataclass(frozen=True)
class DrawTask(ShardTask):
    """Draw the spectra of some row groups."""

    spectra: str
    groups: tuple[RowGroup, ...]
    surveys: tuple[str, ...]
    further: Further = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Rows of the groups."""
        return sum(group.rows for group in self.groups)

    @property
    def rows(self) -> npt.NDArray[np.int64]:
        """The numbers of the groups' rows."""
        return np.concatenate([group.first_row + np.arange(group.rows) for group in self.groups])

    def read(self, account: SetAside) -> Iterator[Portion]:
        """Blocks of the row groups, drawn and encoded."""
        aside = reasons(self.aside)
        for group in self.groups:
            content = content_of(location(self.spectra), group, lsf=self.config.lsf)
            if content is not None:
                account.content[f"{group.file}:{group.group}"] = content
            for block in read_blocks(location(self.spectra), group, self.surveys, lsf=self.config.lsf):
                account.impossible.update(block.impossible)
                account.quarantine.extend(quarantine_row(f, row, "read", error) for f, row, error in block.bad)
                wanted = []
                for i, row in enumerate(block.rows.tolist()):
                    if (why := aside.get(row)) is None:
                        wanted.append(i)
                    else:
                        account.take(row, why, block.meta["object_id"][i].as_py(), block.place(i))
                drawn, payloads = _draw(block, wanted, self.config, account.quarantine)
                meta = with_further(block.meta.take(drawn), self.further)
                yield Portion(block.rows[drawn], payloads, block.labels[drawn], meta)


def build(
    config: ShardConfig,
    spectra: str | Path,
    out: str | Path,
    *,
    survey: str | None = None,
    said: Collection[str] | None = None,
    engine: Engine | None = None,
    max_bad_fraction: float = 0.05,
    allow_empty_split: bool = False,
    force: bool = False,
) -> Manifest:
    """Draw every spectrum of the Parquet in or below `spectra` and write them to `out` as shards.

    The Parquet is our own or MultimodalUniverse's (see `ingest.spectra.folder`). A rerun keeps every shard whose
    ledger record matches the plan and whose bytes match its checksum, and writes the rest; the result is the same
    byte for byte, whatever was interrupted and however many workers there were. Files that were added to `spectra`
    since the last run get shards of their own; those that are there stay as they are.

    Args:
        spectra, out: paths or URLs that fsspec knows, such as `s3://bucket/folder`.
        survey: refuse the spectra of others; it names those that do not say whose they are.
        said: the fields of the picture that are to stay as they are; the others may become what suits the spectra
            (see `shards.write.suited`). None: all stay.
        allow_empty_split: take the cells of the sky as they are, also where they leave a split without objects.

    Raises:
        UsageError: nothing to draw, a split that would be empty, no such column of the group, another survey's
            spectra, or `out` holds shards of another input or configuration (unless `force`).
        JobError: too many objects could not be used, a split is left empty by that, another process writes to
            `out`, or the environment failed.
    """
    where, out = (absolute(location(path)) for path in (spectra, out))
    source = SpectraFolder.scan(where, survey, Stated(config.wavelength_unit, config.medium))
    check_ended(source.folder / name for name in source.digests)
    if config.group is not None:
        config = replace(config, group=group_column(group_columns(source), config.group, where))
    for note in source.notes:
        LOGGER.info(note)
    with locked(out):
        config, by_survey = _suited(source, config, said, None if force else begun(out))
        old = earlier(out, config, source.digests, force)
        if old is not None and (changed := _changed(source, out, config.lsf)) is not None:
            if not force:
                raise folder_of(out).refusal([f"the input changed: {changed}"])
            old = None
        if old is not None:
            # The rows that have shards keep their numbers, and the surveys theirs.
            known = [name for generation in old.inputs for name in generation]
            source = source.after(known, old.surveys)
        asked = config.split_nside
        if old is None:
            config = fine_enough(config, lambda: _tables(source, config), str(where), allow_empty_split)
        else:
            config, asked = old.config, old.coarsest or old.config.split_nside
        claim = replace(
            _claim(source, config, old, max_bad_fraction, allow_empty_split),
            coarsest=None if asked == config.split_nside else asked,
        )
        if old is None:
            claim = replace(claim, suited=by_survey)
        for note in claim.notes:
            LOGGER.info(note)
        start(out, claim, anew=old is None)
        tasks = plan_tasks(source, claim, out)
        results, job = run(tasks, engine or Engine(), f"draw {config.image.image}")
        return publish(
            results, claim, out, objects=source.rows, input_fingerprint=_fingerprint(source, results),
            job=replace(job, spectra=str(where), survey=survey),
            mock=any(name.startswith("mock") for name in source.surveys), max_bad_fraction=max_bad_fraction,
            allow_empty=allow_empty_split, further=source.further,
            stated=[each.to_dict() for each in source.stated],
        )  # fmt: skip


def _changed(source: SpectraFolder, out: Path, lsf: bool) -> str | None:
    """A file of no seal that is not what shards were made of, by their records: its footer may be what it was."""
    unsealed = {f"{group.file}:{group.group}": group for group in source.groups if not group.is_sealed}
    drawn: dict[str, int] = {}
    for path in (out / LEDGER).glob("[0-9]*.json") if unsealed else ():
        try:
            drawn |= TaskResult.loads(path.read_text(encoding="utf-8")).content
        except (ValueError, KeyError, TypeError):
            continue  # not a record any more: its shards are made again
    for name in sorted(drawn.keys() & unsealed.keys()):
        if content_of(source.folder, unsealed[name], lsf=lsf) != drawn[name]:
            return unsealed[name].file
    return None


def _fingerprint(source: SpectraFolder, results: Sequence[TaskResult]) -> str:
    """Of the input: names, sizes, footers and seals; and of what has no seal, the content that was read."""
    content = {name: checksum for result in results for name, checksum in result.content.items()}
    if not content:
        return source.fingerprint
    return hashlib.sha256(json.dumps([source.fingerprint, content], sort_keys=True).encode()).hexdigest()


def _claim(
    source: SpectraFolder, config: ShardConfig, old: Claim | None, max_bad_fraction: float, allow_empty: bool
) -> Claim:
    """What the folder is to be made from: what it was, and what is new as one more generation."""
    generations = list(old.inputs) if old is not None else []
    known = {name for generation in generations for name in generation}
    new = {name: digest for name, digest in source.digests.items() if name not in known}
    moved = Marked.of(old.moved if old is not None else {})
    aside, notes = (old.aside, old.notes) if old is not None else ({}, ())
    if new:
        first = min(group.first_row for group in source.groups if group.file in new)
        found = decide(source, config, first)
        refuse_too_many(found, source.rows, max_bad_fraction, source.folder)
        aside = {why: joined([aside.get(why, ()), rows]) for why, rows in found.aside.items()}
        notes = found.notes
        moved |= moved_rows(_numbered(source, config), config, moved, first, found.repeats, allow_empty)
        if generations:
            LOGGER.info(f"{len(new)} new files of spectra: the shards that are there stay as they are")
        generations.append(new)
    given = old.suited if old is not None else ()
    return Claim(config, tuple(generations), source.surveys, moved, aside, notes, suited=given)


def _suited(
    source: SpectraFolder, config: ShardConfig, said: Collection[str] | None, old: Claim | None
) -> tuple[ShardConfig, tuple[str, ...]]:
    """The configuration with a picture that suits the spectra, and the fields of it that nobody has said.

    What suited the spectra that a data set began with stays when others join them.
    """
    if said is None:
        return config, ()
    if old is not None:
        names = tuple(name for name in old.suited if name not in said)
        image = replace(config.image, **{name: getattr(old.config.image, name) for name in names})
    else:
        image, lines = suited(source, config.image, said)
        names = tuple(f.name for f in fields(image) if getattr(image, f.name) != getattr(config.image, f.name))
        for line in lines:
            LOGGER.info(line)
    return replace(config, image=image), names


def _tables(source: SpectraFolder, config: ShardConfig) -> Iterator[pa.Table]:
    return (table for _, table in _numbered(source, config))


def _numbered(source: SpectraFolder, config: ShardConfig) -> Iterator[tuple[npt.NDArray[np.int64], pa.Table]]:
    """Numbers of all rows, and what decides their split, a file at a time."""
    starts: dict[str, int] = {}
    for group in source.groups:
        starts.setdefault(group.file, group.first_row)
    for file, first in starts.items():
        table = read_rows(source, file, config)
        yield first + np.arange(len(table)), table


def plan_tasks(source: SpectraFolder, claim: Claim, out: Path) -> list[ShardTask]:
    """The tasks of all shard numbers, each with its row groups, and those of its rows that are moved or set aside."""
    tasks: list[ShardTask] = []
    moved = Marked.of(claim.moved)
    for number, generation in enumerate(claim.inputs):
        groups = [group for group in source.groups if group.file in generation]
        if not groups:
            continue
        # All inputs up to here: they decide the numbers of rows, shards and surveys, and what was moved.
        so_far = [list(inputs.items()) for inputs in claim.inputs[: number + 1]]
        version = max(source.versions[name] for inputs in claim.inputs[: number + 1] for name in inputs)
        mark = fingerprint(claim.config.to_dict(), so_far, schema_version=version)
        for pieces in cut_tasks(groups, claim.config, len(tasks)):
            rows = [(piece.first_row, piece.first_row + piece.rows) for piece in pieces]
            tasks.append(
                DrawTask(
                    len(tasks), str(out), claim.config, mark, moved.within(rows), within(claim.aside, rows),
                    str(source.folder), pieces, source.surveys, source.further,
                )
            )  # fmt: skip
    return tasks


def _draw(
    block: SpectraBlock, wanted: Sequence[int], config: ShardConfig, quarantine: list[dict[str, Any]]
) -> tuple[npt.NDArray[np.int64], list[bytes]]:
    """Of the `wanted` places those that could be drawn, or used where spectra are stored; and their payloads."""
    drawer = renderer(config.image)
    encoding = ENCODINGS[config.encoding](drawer, config.jpeg_quality)
    codes = np.empty(drawer.code_shape, np.uint8)
    drawn: list[int] = []
    payloads: list[bytes] = []
    for index in wanted:
        try:
            observed, grid = block.arrays(index), block.grid(index)
            spectrum, grid = framed(
                config.image.frame, observed, grid, block.redshift(index), block.frame(index), block.velocity(index)
            )
            if not encoding.needs_picture or config.image.bad_pixels == "draw":
                check(*spectrum)  # without a good pixel there is no object, whatever is drawn of it
            if encoding.needs_picture:
                drawer.codes(*spectrum, out=codes)
            payloads.append(encoding.encode(codes, spectrum, grid))
            drawn.append(index)
        except RenderError as error:
            quarantine.append(quarantine_row(*block.place(index), "render", error))
    return np.array(drawn, np.int64), payloads
