"""The objects of survey files or of spectra Parquet, one at a time: each spectrum and what is known of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from specshards.common.errors import BadObjectError
from specshards.common.messages import LOGGER
from specshards.common.quarantine import quarantine_row
from specshards.common.spectrum import Arrays
from specshards.common.text import escaped
from specshards.ingest.files import find_files
from specshards.ingest.spectra.blocks import iter_blocks
from specshards.ingest.spectra.ended import check_ended
from specshards.ingest.spectra.folder import SpectraFolder, holds_spectra
from specshards.ingest.stems import repeated, with_folder
from specshards.ingest.surveys import open_file, takes_text
from specshards.ingest.tables import UNSTATED, Stated

#: Kinds of remarks that are shown.
_MOST_TOLD = 40
_KNOWN = ("object_id", "survey", "ra", "dec", "source_file", "row", "flux_unit", "flux_scale", "frame", "velocity")
Object = tuple[dict[str, Any], Arrays]


def objects(
    inputs: Path, quarantine: list[dict[str, Any]], most_bytes: int | None = None, stated: Stated = UNSTATED
) -> Iterator[Object]:
    """Every spectrum of a survey file, a folder of them, a glob, or Parquet (ours or MultimodalUniverse's).

    Args:
        quarantine: what cannot be read is added to it as a row.
        most_bytes: of one survey file; see `ingest.surveys.open_file`.
        stated: what the user says of spectra whose files do not say it. What is guessed of them is logged at the end.

    Yields:
        A dictionary with object_id, survey, ra, dec, source_file, row, sn_median, sn_survey and the labels
        that are known; and the pixels as observed.

    Raises:
        UsageError: nothing there.
    """
    if holds_spectra(inputs):
        yield from _from_parquet(inputs, quarantine, stated)
    else:
        yield from _from_files(inputs, quarantine, most_bytes, stated)


def _from_files(
    inputs: Path, quarantine: list[dict[str, Any]], most_bytes: int | None, stated: Stated
) -> Iterator[Object]:
    told: Counter[str] = Counter()
    try:
        yield from _read(inputs, quarantine, most_bytes, stated, told)
    finally:  # also where whoever asks has had enough
        for what, n in told.most_common(_MOST_TOLD):
            LOGGER.info(f"of {n:,} spectra {what}")


def _read(
    inputs: Path, quarantine: list[dict[str, Any]], most_bytes: int | None, stated: Stated, told: Counter[str]
) -> Iterator[Object]:
    root, files = find_files(str(inputs), "INPUT", text=takes_text(None))
    again = repeated(files)
    for file in files:
        name = escaped(file)
        try:
            opened = open_file(root / file, source_file=name, most_bytes=most_bytes, stated=stated)
            for item in opened.objects():
                if isinstance(item, BadObjectError):
                    quarantine.append(quarantine_row(name, item.row, "read", item))
                    continue
                if file in again and opened.is_generic:
                    item.object_id = with_folder(item.object_id, name)
                told.update(item.told())
                meta = {key: getattr(item, key) for key in _KNOWN}
                yield (
                    {**meta, "sn_median": item.sn_median(), "sn_survey": item.sn_survey(), **item.labels},
                    item.arrays(),
                )
        except BadObjectError as error:
            quarantine.append(quarantine_row(name, error.row, "read", error))


def _from_parquet(inputs: Path, quarantine: list[dict[str, Any]], stated: Stated) -> Iterator[Object]:
    # Nothing is split here, so an object without a position is as good as any.
    source = SpectraFolder.scan(inputs, stated=stated)
    check_ended(source.folder / name for name in source.digests)
    for _, block in iter_blocks(source, lsf=True):
        quarantine += [quarantine_row(file, row, "read", error) for file, row, error in block.bad]
        for index, meta in enumerate(block.meta.to_pylist()):
            yield {**meta, "row": block.place(index)[1]}, block.arrays(index)
