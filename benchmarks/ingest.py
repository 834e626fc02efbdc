"""`make bench-ingest`: reading survey files against a plain astropy loop, Parquet encodings, workers, and memory.

Times hold per core of the machine that the record names. The astropy loop opens each file with `astropy.io.fits` and
copies out what a spectrum needs (flux, ivar, wavelengths, mask, labels); ours does the same with every check that
`ingest` makes, and `ingest` beside it writes the Parquet as well.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow.parquet as pq
import typer

from benchmarks.process import build_command, measured
from benchmarks.records import Record, interleave, save, table
from ingest.build import IngestConfig, build
from ingest.errors import BadObjectError, run_app
from ingest.jobs import Engine
from ingest.plan import find_files
from ingest.schema import PARQUET_OPTIONS, Spectrum, to_table
from ingest.surveys import open_file

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
_FLOATS = [f"spectrum.{name}.list.element" for name in ("flux", "ivar", "lambda")]
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

        def ours(paths: Sequence[Path] = paths) -> int:
            for path in paths:
                list(open_file(path).objects())
            return len(paths)

        def theirs(paths: Sequence[Path] = paths, loop: Callable[[Path], Any] = loops[survey]) -> int:
            for path in paths:
                loop(path)
            return len(paths)

        records += interleave(f"read {survey}", {"ours": ours, "astropy loop": theirs}, rounds)
    return records


def job_records(files: dict[str, list[Path]], rounds: int, scratch: Path) -> list[Record]:
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


def encoding_records(spectra: list[Spectrum], rounds: int, scratch: Path) -> list[Record]:
    """Parquet options for real spectra: write time, with size and read time in the name."""
    whole = to_table(spectra)
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
    notes = {}
    contenders: dict[str, Callable[[], int]] = {}
    for number, (name, chosen_options) in enumerate(options.items()):
        path = scratch / f"{number}.parquet"

        def write(path: Path = path, chosen_options: dict[str, Any] = chosen_options) -> int:
            pq.write_table(whole, path, row_group_size=128, **chosen_options)
            return whole.num_rows

        write()
        started = time.perf_counter()
        for _ in range(3):
            pq.ParquetFile(path).read(columns=["spectrum.flux", "spectrum.ivar", "spectrum.mask"], use_threads=False)
        micros = (time.perf_counter() - started) / 3 / whole.num_rows * 1e6
        notes[name] = f"{name}: {path.stat().st_size / whole.num_rows:,.0f} B, read {micros:.0f} us"
        contenders[name] = write
    found = interleave("Parquet", contenders, rounds)
    return [Record(r.group, notes[r.name], r.values) for r in found]


def worker_records(paths: list[Path], objects: int, scratch: Path) -> list[Record]:
    """One worker process against two, the same command, start of the workers included; three rounds."""
    folder = linked(paths, objects, scratch / "links")
    number = 0

    def job(workers: int) -> Callable[[], int]:
        def work() -> int:
            nonlocal number
            number += 1
            command(folder, scratch / f"w-{number}", workers)
            return objects

        return work

    return interleave(f"workers, {objects:,} files", {"1 worker": job(1), "2 workers": job(2)}, 3)


def memory(paths: list[Path], sizes: Sequence[int], scratch: Path) -> dict[str, float]:
    """Peak resident memory (MB) of the largest process of `ingest build`, by number of files."""
    peaks = {}
    for size in sorted(set(sizes)):
        folder = linked(paths, size, scratch / f"links-{size}")
        job = build_command("ingest", data=folder, out=scratch / f"m-{size}", workers=2)
        _, peaks[f"{size} files"] = measured(job, quiet=True)
        print(f"peak memory of the largest process, {size:,} files: {peaks[f'{size} files']:.0f} MB", flush=True)
    return peaks


def command(folder: Path, out: Path, workers: int) -> None:
    """Run an ingest job as a user does."""
    job = build_command("ingest", data=folder, out=out, workers=workers)
    subprocess.run(job, check=True, capture_output=True)


def linked(paths: Sequence[Path], count: int, folder: Path) -> Path:
    """A folder of `count` links to the files, each as often as it takes."""
    for i in range(count):
        source = paths[i % len(paths)].resolve()
        link = folder / f"{i // 1000:04d}" / f"{i:07d}-{source.name}"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(source)
    return folder


def usable(folder: Path, layouts: set[str], count: int) -> list[Path]:
    """Files of a folder that hold one good spectrum of one of the layouts."""
    found: list[Path] = []
    if folder.is_dir():
        root, names = find_files(str(folder))
        for index in np.random.default_rng(0).permutation(len(names)):
            try:
                opened = open_file(root / names[index])
                good = all(isinstance(item, Spectrum) for item in opened.objects())
            except BadObjectError:
                continue
            if good and opened.layout in layouts:
                found.append(root / names[index])
            if len(found) == count:
                break
    return found


def inputs(data: Path, scratch: Path, count: int) -> dict[str, list[Path]]:
    """Real files where there are some, else a mock survey's."""
    from ingest.mock import MockConfig, write

    found = {}
    for name, survey, layouts in (("LAMOST gz", "lamost", {"lamost-table"}),
                                  ("SDSS", "sdss", {"sdss-spec-lite"})):  # fmt: skip
        paths = [p for p in usable(data / survey, layouts, count) if survey == "sdss" or p.suffix == ".gz"]
        if not paths:
            folder = write(
                MockConfig(survey, n_files=2 * count, damaged_fraction=0.0), scratch / f"mock-{survey}"
            ).folder
            paths = [p for p in usable(folder, layouts, count) if survey == "sdss" or p.suffix == ".gz"]
        found[name] = paths
    return found


@app.command()
def main(
    data: Annotated[Path, typer.Option(help="Folder of real files; without one, a mock survey.")] = Path(
        os.environ.get("SPECSHARDS_REAL_DATA", "../shared/data")
    ),
    out: Annotated[Path, typer.Option(help="The JSON record.")] = Path("benchmarks/results/local/ingest.json"),
    files: Annotated[int, typer.Option(help="Files of each survey for the timings.")] = 200,
    objects: Annotated[int, typer.Option(help="Files for the comparison of one worker with two.")] = 40_000,
    largest: Annotated[int, typer.Option(help="Files of the largest job whose memory is measured.")] = 50_000,
    rounds: Annotated[int, typer.Option(help="Counted rounds; one more warms up.")] = 7,
) -> None:
    """Time ingest, interleaved; print a table and write the records as JSON."""
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        paths = inputs(data, scratch, files)
        records = read_records(paths, rounds) + job_records(paths, rounds, scratch)
        for survey, its in paths.items():
            spectra = [item for path in its for item in open_file(path).objects() if isinstance(item, Spectrum)]
            records += [Record(f"{r.group} {survey}", r.name, r.values)
                        for r in encoding_records(spectra, rounds, scratch)]  # fmt: skip
        print(table(records), flush=True)
        lamost = paths["LAMOST gz"]
        workers = worker_records(lamost, objects, scratch)
        print(table(workers), flush=True)
        peaks = memory(lamost, (1000, largest // 5, largest), scratch)
    records += workers
    records += [Record("peak memory", size, (peak,), "MB") for size, peak in peaks.items()]
    save(records, out, " ".join(["python -m benchmarks.ingest", *sys.argv[1:]]))
    print(out)


if __name__ == "__main__":
    run_app(app)
