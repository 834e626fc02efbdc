"""What the checksums of spectra Parquet cost: ingest of survey files and shards, each with a seal and without.

In this process on one core, in turn, in seconds of that core, which hold on a busy machine too. Without a seal, files
are as schema version 1 had them: no page checksums, and nothing to check.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow.parquet as pq

from specshards.benchmarks.kit.records import Record
from specshards.common.errors import BadObjectError
from specshards.common.jobs import Engine
from specshards.ingest.mock import MockConfig, write_with_progress
from specshards.ingest.seal import digest_of, is_intact
from specshards.ingest.spectra.schema import PARQUET_OPTIONS, SCHEMA, spectra_writer, to_table
from specshards.ingest.surveys import open_file
from specshards.shards.format.manifest import ShardConfig
from specshards.shards.write.build import build

_ROWS = 128


def seal_records(folder: Path, rounds: int, count: int) -> list[Record]:
    """Seconds a spectrum, and of the whole check of a file that a rerun of ingest makes."""
    write_with_progress(MockConfig(survey="lamost", n_files=count), folder / "files", 1)
    files = sorted((folder / "files").rglob("*.fits*"))
    with_seal, without = folder / "sealed", folder / "plain"
    for place in (with_seal, without):
        place.mkdir(exist_ok=True)
    here = Engine(workers=0)

    def draw(spectra: Path) -> int:
        return build(ShardConfig(), spectra, folder / "out", engine=here, force=True, max_bad_fraction=1).objects

    def check() -> int:
        path = with_seal / "part.parquet"
        if not is_intact(path, digest_of(path)):
            raise AssertionError(f"{path}: damaged")
        return pq.read_metadata(path).num_rows

    ingest = {
        "with a seal": lambda: _ingest(files, with_seal / "part.parquet", True),
        "without": lambda: _ingest(files, without / "part.parquet", False),
    }
    shards = {"with a seal": lambda: draw(with_seal), "without": lambda: draw(without)}
    return [
        *_interleaved("seal: ingest", ingest, rounds), *_interleaved("seal: shards", shards, rounds),
        *_interleaved("seal: check of a part", {"whole file": check}, rounds),
    ]  # fmt: skip


def _interleaved(group: str, contenders: Mapping[str, Callable[[], int]], rounds: int) -> list[Record]:
    """As `benchmarks.kit.records.interleave`, in CPU time."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, work in contenders.items():
            start = time.process_time()
            count = work()
            if number:
                seconds[name].append((time.process_time() - start) / count)
    return [Record(group, name, tuple(values)) for name, values in seconds.items()]


def _ingest(files: list[Path], path: Path, sealed: bool) -> int:
    """Read survey files, write their Parquet."""
    spectra = []
    for file in files:
        try:
            spectra += [item for item in open_file(file).objects() if not isinstance(item, BadObjectError)]
        except BadObjectError:
            continue  # the mock survey has some, as surveys do
    groups = [spectra[first : first + _ROWS] for first in range(0, len(spectra), _ROWS)]
    if sealed:
        with spectra_writer(path, {}) as writer:
            for group in groups:
                writer.write_table(to_table(group))
    else:
        schema = SCHEMA.with_metadata({"specshards.schema_version": "1"})
        with pq.ParquetWriter(path, schema, **{**PARQUET_OPTIONS, "write_page_checksum": False}) as writer:
            for group in groups:
                writer.write_table(to_table(group))
    return len(spectra)
