"""`make bench-ingest`: reading survey files against a plain astropy loop, Parquet encodings, whole jobs, and memory.

Times are per file; those of reading and writing hold for one core. The astropy loop opens each file with
`astropy.io.fits` and copies out what a spectrum needs (flux, ivar, wavelengths, mask, labels); ours does the same
with every check that `ingest` makes, and `ingest` beside it writes the Parquet as well. Jobs are
`specshards ingest build` as a user types it, start of the workers included, over links to the same few files: they
read from the page cache.
"""

from __future__ import annotations

import io
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow.parquet as pq
import typer

from specshards.benchmarks.kit.process import Job, job_records, memory_record, room_command, worker_counts
from specshards.benchmarks.kit.records import Record, interleave
from specshards.benchmarks.kit.report import LOCAL, Out, Quick, Rounds, recording
from specshards.common.errors import BadObjectError
from specshards.common.jobs import Engine
from specshards.common.spectrum import Spectrum
from specshards.ingest.files import find_files
from specshards.ingest.job.build import IngestConfig, build
from specshards.ingest.spectra.schema import PARQUET_OPTIONS, to_table
from specshards.ingest.surveys import open_file

REAL = Path(os.environ.get("SPECSHARDS_REAL_DATA", "../shared/data"))
#: Files that jobs read, again and again: more than a row group has rows, or its pages would hold a file twice.
DISTINCT = 200
_KEYS = ("OBSID", "RA", "DEC", "CLASS", "SUBCLASS", "Z", "Z_ERR", "SNRU", "SNRG", "SNRR", "SNRI", "SNRZ")
_LABELS = ("specobjid", "plug_ra", "plug_dec", "class", "subclass", "z", "z_err", "zwarning", "sn_median_all")


def astropy_lamost(path: Path) -> Any:
    """What a LAMOST table-layout spectrum needs, the usual way."""
    from astropy.io import fits

    with fits.open(path) as hdus:
        header, row = hdus[0].header, hdus[1].data[0]
        arrays = [row[name].astype("f4") for name in ("FLUX", "IVAR", "WAVELENGTH", "ANDMASK")]
        return arrays, [header.get(key) for key in _KEYS]


def astropy_sdss(path: Path) -> Any:
    """What an SDSS spectrum needs, the usual way."""
    from astropy.io import fits

    with fits.open(path) as hdus:
        pixels, row = hdus[1].data, hdus[2].data
        names = {name.lower(): name for name in pixels.names}
        arrays = [pixels[names[name]].astype(kind) for name, kind in
                  (("flux", "f4"), ("ivar", "f4"), ("loglam", "f8"), ("and_mask", "i8"))]  # fmt: skip
        labels = {name.lower(): name for name in row.names}
        return arrays, [row[labels[name]][0] for name in _LABELS if name in labels]


def read_records(files: dict[str, list[Path]], rounds: int) -> list[Record]:
    """Reading, file by file, in one process."""
    loops = {"LAMOST gz": astropy_lamost, "SDSS": astropy_sdss}
    records = []
    for survey, paths in files.items():

        def read(paths: Sequence[Path] = paths) -> int:
            for path in paths:
                list(open_file(path).objects())
            return len(paths)

        def read_plainly(paths: Sequence[Path] = paths, loop: Callable[[Path], Any] = loops[survey]) -> int:
            for path in paths:
                loop(path)
            return len(paths)

        records += interleave(f"read {survey}", {"ours": read, "astropy loop": read_plainly}, rounds)
    return records


def whole_records(files: dict[str, list[Path]], rounds: int, scratch: Path) -> list[Record]:
    """The whole job in one process, Parquet included, against the astropy loop that writes nothing."""
    records = []
    for survey, paths in files.items():
        folder = linked(paths, len(paths), scratch / survey.replace(" ", "_"))
        number = 0

        def job(folder: Path = folder, count: int = len(paths)) -> int:
            nonlocal number
            number += 1
            silence = io.StringIO()
            with redirect_stdout(silence), redirect_stderr(silence):
                build(IngestConfig(), str(folder), folder / f"../{number}-{folder.name}", engine=Engine(workers=0))
            return count

        records += interleave(f"ingest {survey}", {"ours, Parquet written": job}, rounds)
    return records


def encoding_records(group: str, spectra: list[Spectrum], rounds: int, scratch: Path) -> list[Record]:
    """Parquet options for these spectra: time to write, bytes, and time to read in the note."""
    table = to_table(spectra)
    chosen = {**PARQUET_OPTIONS}
    plain = {name: value for name, value in chosen.items() if name != "column_encoding"}
    options: dict[str, dict[str, Any]] = {
        "BYTE_STREAM_SPLIT + zstd 1 (ours)": chosen,
        "BYTE_STREAM_SPLIT + zstd 3": {**chosen, "compression_level": 3},
        "BYTE_STREAM_SPLIT + zstd 6": {**chosen, "compression_level": 6},
        "BYTE_STREAM_SPLIT + lz4": {**chosen, "compression": "lz4", "compression_level": None},
        "plain + zstd 1": plain,
        "pyarrow's defaults": {},
    }
    notes, sizes = {}, {}
    contenders: dict[str, Callable[[], int]] = {}
    for number, (name, chosen_options) in enumerate(options.items()):
        path = scratch / f"{number}.parquet"

        def write(path: Path = path, chosen_options: dict[str, Any] = chosen_options) -> int:
            pq.write_table(table, path, row_group_size=128, **chosen_options)
            return table.num_rows

        write()
        started = time.perf_counter()
        for _ in range(3):
            pq.ParquetFile(path).read(columns=["spectrum.flux", "spectrum.ivar", "spectrum.mask"], use_threads=False)
        micros = (time.perf_counter() - started) / 3 / table.num_rows * 1e6
        notes[name], sizes[name] = f"read {micros:.0f} us", path.stat().st_size / table.num_rows
        contenders[name] = write
    records = interleave(group, contenders, rounds)
    return [replace(r, note=notes[r.name], bytes=sizes[r.name]) for r in records]


def jobs(paths: dict[str, list[Path]], sizes: Sequence[int], scratch: Path) -> list[Job]:
    """Every survey, size and number of workers."""
    all_jobs = []
    for survey, files in paths.items():
        for size in sizes:
            folder = linked(files, size, scratch / f"{survey.replace(' ', '_')}-{size}")
            stored = sum(files[i % len(files)].stat().st_size for i in range(size)) / size
            for workers in worker_counts():

                def command(out: Path, folder: Path = folder, workers: int = workers) -> list[str]:
                    return room_command("ingest", "build", data=folder, out=out, workers=workers)

                all_jobs.append(Job(survey, "files", size, workers, command, rows, (("input_bytes", stored),)))
    return all_jobs


def rows(out: Path) -> int:
    """Spectra that a job left in its Parquet."""
    return sum(pq.ParquetFile(path).metadata.num_rows for path in (out / "spectra").glob("*.parquet"))


def memory_records(paths: list[Path], sizes: Sequence[int], scratch: Path) -> list[Record]:
    """Peak resident memory (MB) of the largest process of a job with two workers, by number of files."""
    records = []
    for size in sorted(set(sizes)):
        folder = linked(paths, size, scratch / f"links-{size}")
        job = room_command("ingest", "build", data=folder, out=scratch / f"m-{size}", workers=2)
        records.append(memory_record(f"{size} files", size, job))
    return records


def linked(paths: Sequence[Path], count: int, folder: Path) -> Path:
    """A folder of `count` links to the files, each as often as it takes."""
    for i in range(count):
        source = paths[i % len(paths)].resolve()
        link = folder / f"{i // 1000:04d}" / f"{i:07d}-{source.name}"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(source)
    return folder


def usable(folder: Path, layout: str, suffix: str, count: int) -> list[Path]:
    """At most `count` files of a folder that hold one good spectrum in this layout; a seeded random choice."""
    paths: list[Path] = []
    if folder.is_dir():
        root, names = find_files(str(folder))
        names = [name for name in names if str(name).endswith(suffix)]
        for index in np.random.default_rng(0).permutation(len(names)):
            try:
                opened = open_file(root / names[index])
                good = all(isinstance(item, Spectrum) for item in opened.objects())
            except BadObjectError:
                continue
            if good and opened.layout == layout:
                paths.append(root / names[index])
            if len(paths) == count:
                break
    return paths


def inputs(data: Path, scratch: Path, count: int) -> tuple[dict[str, list[Path]], dict[str, str]]:
    """Real files of each survey where there are some, else a mock survey's; and which of the two they are."""
    from specshards.ingest.mock import MockConfig, write

    files, kinds = {}, {}
    for name, survey, layout, suffix in (("LAMOST gz", "lamost", "lamost-table", ".gz"),
                                         ("SDSS", "sdss", "sdss-spec-lite", ".fits")):  # fmt: skip
        paths = usable(data / survey, layout, suffix, count)
        kinds[name] = "real" if paths else "mock"
        if not paths:
            config = MockConfig(survey, n_files=3 * count, damaged_fraction=0.0)
            paths = usable(write(config, scratch / f"mock-{survey}").folder, layout, suffix, count)
        files[name] = paths
    return files, kinds


def main(
    out: Out = LOCAL / "ingest.json",
    data: Annotated[Path, typer.Option(help="Folder of real files; without one, a mock survey.")] = REAL,
    files: Annotated[int, typer.Option(help="Files of each survey that are read, again and again.", min=2)] = 100,
    objects: Annotated[int, typer.Option(help="Files of a large job; a small one has a quarter.", min=8)] = 4000,
    largest: Annotated[int, typer.Option(help="Files of the largest job whose memory is measured.", min=1)] = 10_000,
    rounds: Rounds = 5,
    job_rounds: Annotated[int, typer.Option(help="Counted rounds of whole jobs.", min=1)] = 3,
    quick: Quick = False,
) -> None:
    """Time ingest, interleaved: reading, writing, whole jobs; and weigh its memory."""
    with recording("ingest", out, quick) as draft, tempfile.TemporaryDirectory() as name:
        if quick:
            files, objects, largest, rounds, job_rounds = 4, 16, 16, 1, 1
        scratch = Path(name)
        paths, kinds = inputs(data, scratch, files if quick else max(files, DISTINCT))
        draft.data = "real" if set(kinds.values()) == {"real"} else "mock"
        draft.notes += [f"{survey}: {len(chosen)} {kinds[survey]} files" for survey, chosen in paths.items()]
        draft.notes += [f"{survey}: bytes of large jobs are too few, fewer than {DISTINCT} files are repeated"
                        for survey, chosen in paths.items() if len(chosen) < min(objects, DISTINCT)]  # fmt: skip
        few = {survey: chosen[:files] for survey, chosen in paths.items()}
        draft.records = read_records(few, rounds) + whole_records(few, rounds, scratch)
        for survey, chosen in few.items():
            spectra = [item for path in chosen for item in open_file(path).objects() if isinstance(item, Spectrum)]
            draft.records += encoding_records(f"Parquet {survey}", spectra, rounds, scratch)
        lamost = paths["LAMOST gz"]
        all_jobs = jobs(paths, (objects // 4, objects), scratch)
        draft.records += job_records(all_jobs[: 1 if quick else None], job_rounds, scratch, warm=not quick)
        draft.records += memory_records(lamost, (largest,) if quick else (1000, largest // 5, largest), scratch)
