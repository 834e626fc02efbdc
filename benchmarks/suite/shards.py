"""`make bench-shards`: from spectra Parquet to shards, stage by stage, as whole jobs, and beside the reference road.

Stages run in this process on one core: decoding Parquet into arrays, drawing, encoding, the tar with its labels and
index (fsync included). Jobs are `specshards shards build` as a user types it, start of the workers included. The
reference reads one csv.gz a spectrum (pyarrow's reader, the fastest there is) and saves one matplotlib figure as PNG.
Peak memory is that of the largest process of a job.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import typer

from specshards.benchmarks.kit.process import GROUP, Job, job_records, memory_record, room_command, worker_counts
from specshards.benchmarks.kit.records import Record, interleave
from specshards.benchmarks.kit.report import LOCAL, Quick, recording
from specshards.benchmarks.peers.matplotlib_reference import figure
from specshards.benchmarks.suite.seal import seal_records
from specshards.common.spectrum import Arrays
from specshards.ingest.mock.scale.config import ScaleConfig
from specshards.ingest.mock.scale.job import write_parquet_survey
from specshards.ingest.spectra.blocks import SpectraBlock, iter_blocks
from specshards.ingest.spectra.folder import SpectraFolder
from specshards.render import ImageConfig, renderer
from specshards.shards.format.encoding import ENCODINGS
from specshards.shards.format.manifest import Manifest, key, label_npy
from specshards.shards.format.tar import TarWriter

#: What is timed as a job: picture and encoding.
KINDS = (("map2d", "png"), ("map2d", "pnm"), ("map2d", "lz4"), ("map2d", "jpeg"), ("map2d", "flux"),
         ("simple", "png"), ("overlap", "png"))  # fmt: skip


def stage_records(spectra: Path, rounds: int, scratch: Path, count: int = 2048, tarred: int = 8192) -> list[Record]:
    """Each stage on one core; `tarred` samples make an archive."""
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
                    for i in range(tarred):
                        members = [(coder.extension, payloads[i % len(payloads)])]
                        writer.add(key(i), [*members, ("npy", label_npy(labels[i % len(labels)]))])
                return tarred

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
                figure(Arrays(flux.astype(np.float32), ivar, wave, np.zeros(len(flux), np.bool_)), config)
            return count

        return work

    return interleave("reference", {image: road(image) for image in ("map2d", "simple", "overlap")}, min(rounds, 3))


def jobs(spectra: dict[int, Path]) -> list[Job]:
    """`map2d` as PNG by size and number of workers; every other picture and encoding at the largest of both.

    Args:
        spectra: by how many there are.
    """
    large, workers = max(spectra), worker_counts()
    kinds = [(*KINDS[0], size, count) for size in sorted(spectra) for count in workers]
    kinds += [(*kind, large, workers[-1]) for kind in KINDS[1:]]
    all_jobs = []
    for image, encoding, size, count in kinds:

        def command(out: Path, options: tuple[object, ...] = (spectra[size], count, image, encoding)) -> list[str]:
            names = ("spectra", "workers", "image", "encoding")
            return room_command("shards", "build", out=out, **dict(zip(names, options, strict=True)))

        all_jobs.append(Job(f"{image} {encoding}", "objects", size, count, command, drawn))
    return all_jobs


def drawn(out: Path) -> int:
    """Spectra that a job has drawn, or set aside."""
    manifest = Manifest.load(out)
    return manifest.samples() + manifest.quarantined


def memory_records(sizes: Collection[int], scratch: Path) -> list[Record]:
    """Peak resident memory of the largest process of a job with two workers, by number of objects."""
    records = []
    for size in sorted(sizes):
        spectra = mock(size, scratch)
        with tempfile.TemporaryDirectory(dir=scratch) as out:
            command = room_command("shards", "build", spectra=spectra, out=Path(out) / "x", workers=2)
            records.append(memory_record(f"{size:,} objects", size, command))
    return records


def mock(objects: int, scratch: Path) -> Path:
    """Spectra of a mock survey, kept in `scratch` for the next run."""
    out = scratch / f"mock-{objects}"
    write_parquet_survey(ScaleConfig("lamost", n=objects), out)
    return out / "spectra"


def summary(records: Sequence[Record], objects: int) -> list[str]:
    """The ratios that matter, a line each."""
    reference = {r.name: r.median for r in records if r.group == "reference"}
    times = {(r.name.partition(",")[0], int(r.about["workers"])): r.median
             for r in records if r.group == GROUP and r.about["objects"] == objects}  # fmt: skip
    lines = []
    for (title, workers), seconds in sorted(times.items()):
        slow = reference[title.partition(" ")[0]]
        lines.append(
            f"{title}: {1 / seconds:,.0f} objects/s on {workers} worker{'s' * (workers != 1)}, the reference "
            f"{1 / slow:,.1f} on one core: {slow / seconds:,.0f} times, {slow / seconds / workers:,.0f} times a core"
        )
    return lines


def main(
    out: Annotated[Path | None, typer.Option(help="The JSON record; table and plot go beside it.")] = None,
    scratch: Annotated[Path | None, typer.Option(help="Folder that keeps the mock survey for the next run.")] = None,
    objects: Annotated[int, typer.Option(help="Objects of a large job; a small one has a quarter.", min=40)] = 20_000,
    largest: Annotated[int, typer.Option(help="Objects of the largest job whose memory is measured.")] = 20_000,
    rounds: Annotated[int, typer.Option(help="Counted rounds of stages and of jobs.", min=1)] = 3,
    seal: Annotated[bool, typer.Option("--seal", help="Instead: what checksums cost, in ingest and shards.")] = False,
    quick: Quick = False,
) -> None:
    """Time stages and whole jobs, interleaved, beside the reference road; and weigh the memory."""
    out = out or LOCAL / f"shards{'-seal' if seal else ''}.json"
    with recording("shards", out, quick) as draft, tempfile.TemporaryDirectory() as name:
        if quick:
            objects, largest, rounds = 80, 80, 1
        folder = scratch or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        if seal:
            draft.records = seal_records(folder / "seal", rounds, min(objects, 1024))
            return
        spectra = {size: mock(size, folder) for size in (objects // 4, objects)}
        draft.records = stage_records(spectra[objects], rounds, folder, tarred=64 if quick else 8192)
        draft.records += reference_records(spectra[objects], rounds, folder, 1 if quick else 12)
        draft.records += job_records(jobs(spectra)[: 1 if quick else None], rounds, folder, warm=not quick)
        draft.notes += summary(draft.records, objects)
        if not quick:
            draft.records += memory_records({largest // 20, largest // 2, largest}, folder)
