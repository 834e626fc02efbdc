"""`make bench-shards`: from spectra Parquet to shards, stage by stage, as whole jobs, and beside the reference road.

Stages run in this process on one core: decoding Parquet into arrays, drawing, encoding, the tar with its labels and
index (fsync included). Jobs are `python -m shards build` as a user types it, start of the workers included. The
reference reads one csv.gz a spectrum (pyarrow's reader, the fastest there is) and saves one matplotlib figure as PNG.
Peak memory is that of the largest process of a job.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import typer

from benchmarks.matplotlib_reference import figure
from benchmarks.process import build_command, measured
from benchmarks.records import Record, interleave, save, table
from ingest.errors import run_app
from ingest.mock.scale import ScaleConfig, write_parquet_survey
from render import ImageConfig, renderer
from shards.blocks import SpectraBlock, iter_blocks
from shards.encoding import ENCODINGS
from shards.flux import Arrays
from shards.format import key, label_npy
from shards.spectra import SpectraFolder
from shards.tar import TarWriter

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
#: What is timed as a job: picture and encoding.
KINDS = (("map2d", "png"), ("map2d", "pnm"), ("map2d", "jpeg"), ("map2d", "flux"), ("simple", "png"),
         ("overlap", "png"), ("overlap", "jpeg"))  # fmt: skip


def stage_records(spectra: Path, rounds: int, scratch: Path, count: int = 2048) -> list[Record]:
    """One core, microseconds of each stage."""
    source = SpectraFolder.scan(spectra)
    blocks: list[SpectraBlock] = []
    for _, block in iter_blocks(source):
        blocks.append(block)
        if sum(map(len, blocks)) >= count:
            break
    arrays = [block.arrays(i) for block in blocks for i in range(len(block))]
    grids = [block.grid(i) for block in blocks for i in range(len(block))]
    labels = np.concatenate([block.labels for block in blocks])
    contenders: dict[str, Callable[[], int]] = {"read Parquet": lambda: _read(source, len(arrays))}
    for image in ("map2d", "simple", "overlap"):
        contenders[f"draw {image}"] = lambda image=image: _draw(arrays, image)  # type: ignore[misc]
    for image, encoding in KINDS:
        drawer = renderer(ImageConfig(image=image))
        coder = ENCODINGS[encoding](drawer)
        codes = [drawer.codes(*spectrum).copy() for spectrum in arrays[:256]]

        def encode(coder=coder, codes=codes) -> int:  # type: ignore[no-untyped-def]
            for picture, spectrum, grid in zip(codes, arrays, grids, strict=False):
                coder.encode(picture, spectrum, grid)
            return len(codes)

        contenders[f"encode {image} {encoding}"] = encode
        if image == "map2d":
            payloads = [coder.encode(*item) for item in zip(codes, arrays, grids, strict=False)]

            def tar(payloads=payloads, coder=coder, encoding=encoding) -> int:  # type: ignore[no-untyped-def]
                with TarWriter(scratch / f"{encoding}.tar") as writer:
                    for i in range(8192):
                        members = [(coder.extension, payloads[i % len(payloads)])]
                        writer.add(key(i), [*members, ("npy", label_npy(labels[i % len(labels)]))])
                return 8192

            contenders[f"tar {encoding}"] = tar
    return interleave("stage", contenders, rounds)


def _read(source: SpectraFolder, count: int) -> int:
    done = 0
    for _, block in iter_blocks(source):
        for i in range(len(block)):
            block.arrays(i)
        done += len(block)
        if done >= count:
            break
    return done


def _draw(arrays: Sequence[Arrays], image: str) -> int:
    drawer = renderer(ImageConfig(image=image))
    out = np.empty(drawer.code_shape, np.uint8)
    for spectrum in arrays:
        drawer.codes(*spectrum, out=out)
    return len(arrays)


def reference_records(spectra: Path, rounds: int, scratch: Path, count: int = 12) -> list[Record]:
    """csv.gz in, figure out, an object at a time: what the reference code of the paper does."""
    block = next(iter_blocks(SpectraFolder.scan(spectra)))[1]
    for i in range(count):
        flux, ivar, wavelength, _ = block.arrays(i)
        columns = pa.table({"wavelength": wavelength, "flux": flux, "ivar": ivar})
        with pa.CompressedOutputStream(str(scratch / f"{i}.csv.gz"), "gzip") as file:
            pa_csv.write_csv(columns, file)

    def road(image: str) -> Callable[[], int]:
        config = ImageConfig(image=image)

        def work() -> int:
            for i in range(count):
                columns = pa_csv.read_csv(scratch / f"{i}.csv.gz")
                wave, flux, ivar = (columns[name].to_numpy() for name in ("wavelength", "flux", "ivar"))
                figure((flux.astype(np.float32), ivar, wave, np.zeros(len(flux), np.bool_)), config)
            return count

        return work

    return interleave("reference", {image: road(image) for image in ("map2d", "simple", "overlap")}, min(rounds, 3))


def job_records(spectra: Path, objects: int, rounds: int, scratch: Path) -> list[Record]:
    """Whole jobs with one worker and with two, and one of each other picture and encoding with two."""

    def job(workers: int, image: str = "map2d", encoding: str = "png") -> Callable[[], int]:
        def work() -> int:
            with tempfile.TemporaryDirectory(dir=scratch) as out:
                command = build_command(
                    "shards", spectra=spectra, out=Path(out) / "x", workers=workers, image=image, encoding=encoding
                )
                subprocess.run(command, check=True, capture_output=True)
            return objects

        return work

    records = interleave(f"job, {objects:,} objects", {"map2d png, 1 worker": job(1), "map2d png, 2 workers": job(2)},
                         rounds)  # fmt: skip
    others = {f"{image} {encoding}, 2 workers": job(2, image, encoding) for image, encoding in KINDS[1:]}
    return records + interleave(f"job, {objects:,} objects", others, 1)


def memory_records(sizes: Sequence[int], scratch: Path) -> list[Record]:
    """Peak resident memory of the largest process of a job, by number of objects."""
    records = []
    for size in sorted(sizes):
        spectra = mock(size, scratch)
        with tempfile.TemporaryDirectory(dir=scratch) as out:
            command = build_command("shards", spectra=spectra, out=Path(out) / "x", workers=2)
            _, peak = measured(command, quiet=True)
        print(f"peak memory of the largest process, {size:,} objects: {peak:.0f} MB", flush=True)
        records.append(Record("peak memory", f"{size:,} objects", (peak,), "MB"))
    return records


def mock(objects: int, scratch: Path) -> Path:
    """Spectra of a mock survey, kept in `scratch` for the next run."""
    out = scratch / f"mock-{objects}"
    write_parquet_survey(ScaleConfig("lamost", n=objects), out)
    return out / "spectra"


def compare(records: Sequence[Record]) -> list[str]:
    """The ratios that matter, a line each."""
    found = {f"{r.group.partition(',')[0]} {r.name}": r.median for r in records if not r.group.startswith("peak")}
    one, two = found["job map2d png, 1 worker"], found["job map2d png, 2 workers"]
    ratio = found["reference map2d"] / one
    lines = [
        f"map2d png: {1 / one:,.0f} objects/s on one worker, {ratio:,.0f} times the reference; "
        f"{1 / two:,.0f} on two, {one / two:.2f} times one"
    ]
    for image, encoding in KINDS:
        mine = found[f"job {image} {encoding}, 2 workers"]
        theirs = found[f"reference {image}"]
        lines.append(
            f"{image} {encoding}: {1 / mine:,.0f} objects/s on two workers, the reference {1 / theirs:,.1f} on one: "
            f"{theirs / mine:,.0f} times, {theirs / mine / 2:,.0f} times a core"
        )
    return lines


@app.command()
def main(
    out: Annotated[Path, typer.Option(help="The JSON record.")] = Path("benchmarks/results/local/shards.json"),
    scratch: Annotated[Path | None, typer.Option(help="Folder that keeps the mock survey for the next run.")] = None,
    objects: Annotated[int, typer.Option(help="Mock objects of a job.")] = 200_000,
    largest: Annotated[int, typer.Option(help="Objects of the largest job whose memory is measured.")] = 200_000,
    rounds: Annotated[int, typer.Option(help="Counted rounds of stages and of jobs; one more warms up.")] = 3,
) -> None:
    """Time stages and jobs, interleaved; print a table and write the records as JSON."""
    with tempfile.TemporaryDirectory() as name:
        folder = scratch or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        spectra = mock(objects, folder)
        records = stage_records(spectra, rounds, folder) + reference_records(spectra, rounds, folder)
        print(table(records), flush=True)
        jobs = job_records(spectra, objects, rounds, folder)
        print(table(jobs), flush=True)
        records += jobs
        lines = compare(records)
        print("\n".join(lines), flush=True)
        records += memory_records(sorted({largest // 20, largest // 2, largest}), folder)
    save(records, out, " ".join(["python -m benchmarks.shards", *sys.argv[1:]]))
    print(out)


if __name__ == "__main__":
    run_app(app)
