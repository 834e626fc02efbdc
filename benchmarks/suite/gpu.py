"""`benchmarks/gpu.sh`: what only a GPU can show, in parts that each leave a record; on a CPU the same code, tiny.

`pixels`   DALI's batches on the device against the plain ones on the CPU, every encoding: how many pixels differ.
`formats`  what DALI's image decoder makes of files that others wrote, and how fast; Huffman codes of JPEG on the GPU.
`load`     the loader alone, img/s, every encoding, by threads.
`train`    steps of a ViT with the loader and with cached batches, eager and compiled; waiting, TFLOP/s, MFU.
`resume`   the second half of an epoch from a saved position, batch for batch.
`tune`     two epochs of a fine-tune by the command line, and its metrics.
"""

from __future__ import annotations

import io
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from specshards.benchmarks.kit.records import Record, interleave
from specshards.benchmarks.kit.report import LOCAL, Draft, recording
from specshards.common.errors import UsageError, make_folder
from specshards.common.jobs import Engine, cores
from specshards.render import ImageConfig

IMAGES = ("map2d", "overlap")


@dataclass(frozen=True)
class Setup:
    """What a part works with; `tiny` sizes show that it runs, and nothing else."""

    scratch: Path
    device: str
    backbone: str
    tiny: bool
    until: float = float("inf")

    @property
    def batch(self) -> int:
        """Samples a batch."""
        return 4 if self.tiny else 256

    def shards(self, image: str, encoding: str) -> Path:
        """Shards of mock spectra, made where they are not there yet."""
        from specshards.ingest.mock.scale.config import ScaleConfig
        from specshards.ingest.mock.scale.job import write_parquet_survey
        from specshards.shards.format.manifest import ShardConfig
        from specshards.shards.write.build import build

        engine = Engine(workers=0) if self.tiny else None
        spectra = self.scratch / ("tiny" if self.tiny else "full")
        if not (spectra / "done").exists():
            write_parquet_survey(ScaleConfig("lamost", n=60 if self.tiny else 20_000), spectra, engine=engine)
            (spectra / "done").touch()
        folder = spectra / f"{image}-{encoding}"
        if not (folder / "manifest.json").exists():
            build(ShardConfig(ImageConfig(image=image), encoding), spectra / "spectra", folder, engine=engine)
        return folder


def tried(setup: Setup, group: str, name: str, work: Callable[[], list[Record]]) -> list[Record]:
    """What `work` measures; one row that says why where it fails or has no time, for the others to go on."""
    print(f"  {name} ...", flush=True)
    try:
        if time.perf_counter() > setup.until:
            raise TimeoutError("no time left in this call; remove the record, and give this part alone")
        found = work()
    except Exception as error:  # whatever a driver, a decoder or a compiler throws
        lines = str(error).strip().splitlines() or ["no reason"]
        found = [Record(group, name, (), note=f"failed: {type(error).__name__}: {lines[0][:300]}")]
    for r in found:
        values = f"{r.median * r.kind.scale:.4g} {r.kind.label}" if r.values else ""
        print(f"    {r.group}: {r.name}: {values} {r.note}", flush=True)
    return found


def pixels(setup: Setup, draft: Draft) -> None:
    """Share of pixels that differ, and by how much at most."""
    from specshards.shards import loader
    from specshards.shards.format.encoding import ENCODINGS

    def compare(image: str, encoding: str) -> list[Record]:
        folder, unequal, total, largest = setup.shards(image, encoding), 0, 0, 0
        options: dict[str, Any] = {"seed": 1, "verify": False}
        with (
            loader.open(folder, "train", setup.batch, backend="dali", device=setup.device, **options) as ours,
            loader.open(folder, "train", setup.batch, backend="plain", device="cpu", **options) as plain,
        ):
            for a, b in itertools.islice(zip(ours, plain, strict=True), 20):
                if a["key"] != b["key"]:
                    raise ValueError("the two backends give other samples")
                difference = (a["pixel_values"].cpu().int() - b["pixel_values"].int()).abs()
                unequal, total = unequal + int((difference > 0).sum()), total + difference.numel()
                largest = max(largest, int(difference.max()))
        note = f"largest difference {largest} of 255"
        return [Record(group, f"{image}, {encoding}", (unequal / total,), "share", note)]

    group = f"pixels that differ: DALI on {setup.device}, plain on the CPU"
    for image, encoding in itertools.product(IMAGES, ENCODINGS):
        draft.records += tried(setup, group, f"{image}, {encoding}", partial(compare, image, encoding))


def formats(setup: Setup, draft: Draft) -> None:
    """Files of others through `decoders.image`, and LZ4 through `decoders.inflate`, with their payloads in memory."""
    import cv2
    import simplejpeg
    from PIL import Image

    from specshards.benchmarks.kit.samples import made_up_galaxy
    from specshards.render import renderer

    def pillow(picture: Any) -> bytes:
        out = io.BytesIO()
        Image.fromarray(picture).save(out, "JPEG2000", irreversible=False)
        return out.getvalue()

    def opencv(picture: Any, extension: str = ".tiff") -> bytes:
        coded = picture if picture.ndim == 2 else np.ascontiguousarray(picture[..., ::-1])
        return cv2.imencode(extension, coded)[1].tobytes()

    for image in IMAGES:
        drawer = renderer(ImageConfig(image=image))
        codes = [drawer.codes(*made_up_galaxy(i)).copy() for i in range(setup.batch)]
        rgb = [np.ascontiguousarray(drawer.expand(c)) for c in codes]
        group = f"decode {image} by DALI for {setup.device}, payloads in memory"
        coders: dict[str, tuple[Any, Any, dict[str, Any]]] = {
            "PNG": (codes, partial(opencv, extension=".png"), {}),
            "JPEG 2000, lossless": (codes, pillow, {}),
            "TIFF, LZW": (codes, opencv, {}),
        }
        jpeg = partial(simplejpeg.encode_jpeg, quality=95, colorspace="RGB", colorsubsampling="444")
        ways: tuple[dict[str, Any], ...] = ({},) if setup.device == "cpu" else (
            {}, {"hybrid_huffman_threshold": 0}, {"hw_decoder_load": 0.0}, {"hw_decoder_load": 1.0})  # fmt: skip
        for options in ways:
            words = "".join(f", {name}={value}" for name, value in options.items())
            coders[f"JPEG 4:4:4{words}"] = (rgb, jpeg, options)
        for name, (pictures, code, options) in coders.items():
            work = partial(_decoded, group, name, pictures, code, options, setup)
            draft.records += tried(setup, group, name, work)
        draft.records += tried(setup, group, "LZ4", partial(_inflated, group, drawer, codes, setup))


def _decoded(group: str, name: str, pictures: Sequence[Any], code: Any, options: Any, setup: Setup) -> list[Record]:
    import nvidia.dali.fn as fn
    from nvidia.dali import pipeline_def, types

    payloads = [np.frombuffer(code(picture), np.uint8) for picture in pictures]
    gray, on_cpu = pictures[0].ndim == 2, setup.device == "cpu"

    @pipeline_def
    def pipeline() -> Any:
        payload = fn.external_source(name="payload", dtype=types.UINT8, ndim=1)
        kind = types.GRAY if gray else types.RGB
        return fn.decoders.image(payload, device="cpu" if on_cpu else "mixed", output_type=kind, **options)

    built = pipeline(batch_size=len(payloads), num_threads=cores(), device_id=None if on_cpu else 0,
                     prefetch_queue_depth=1)  # fmt: skip
    built.build()

    def run() -> Any:
        built.feed_input("payload", payloads)
        (found,) = built.run()
        return found if on_cpu else found.as_cpu()

    found = np.array(run().as_tensor()).reshape(len(pictures), *pictures[0].shape)
    unequal = float(np.mean(found != np.stack(pictures)))
    note = "the same bits" if unequal == 0 else f"{100 * unequal:.1f}% of the values differ"
    return _timed(group, name, lambda: run() and len(payloads), payloads, note, setup)


def _inflated(group: str, drawer: Any, codes: Sequence[Any], setup: Setup) -> list[Record]:
    from specshards.shards.format.encoding import ENCODINGS
    from specshards.shards.loader.dali import make_decoder

    encoding = ENCODINGS["lz4"](drawer)
    payloads = [np.frombuffer(encoding.encode(c, None, None), np.uint8) for c in codes]  # type: ignore[arg-type]
    decode = make_decoder(encoding, "dali", len(codes), cores(), setup.device)
    stored, wrong = decode(payloads)
    there = type(stored).__module__ == "torch"
    found = stored.cpu().numpy() if there else stored
    same = "the same bits" if not wrong and np.array_equal(found, np.stack(codes)) else "OTHER CODES"
    note = f"{same}, {'inflated on the GPU' if there else 'inflated on the CPU by Arrow'}"
    return _timed(group, "LZ4", lambda: len(decode(payloads)[0]), payloads, note, setup)


def _timed(group: str, name: str, work: Callable[[], int], payloads: Any, note: str, setup: Setup) -> list[Record]:
    def turn() -> int:
        return sum(work() for _ in range(1 if setup.tiny else 20))

    (record,) = interleave(group, {name: turn}, 1 if setup.tiny else 3)
    return [replace(record, note=note, bytes=float(np.mean([len(p) for p in payloads])))]


def load(setup: Setup, draft: Draft) -> None:
    """The loader alone: batches as they arrive on the device, and nothing done with them."""
    from specshards.shards import loader
    from specshards.shards.format.encoding import ENCODINGS

    def alone(image: str, encoding: str, threads: int) -> list[Record]:
        folder, steps = setup.shards(image, encoding), 2 if setup.tiny else 40
        options: dict[str, Any] = {"threads": threads, "verify": False}
        with loader.open(folder, "train", setup.batch, device=setup.device, **options) as opened:
            batches = itertools.chain.from_iterable(itertools.repeat(opened))

            def turn() -> int:
                count = sum(len(batch["key"]) for batch in itertools.islice(batches, steps))
                _wait(setup.device)
                return count

            (record,) = interleave(group, {f"{image}, {encoding}, threads {threads}": turn}, 1 if setup.tiny else 3)
        return [replace(record, about={"threads": float(threads), "batch": float(setup.batch)})]

    group = f"load on {setup.device}"
    counts = [1] if setup.tiny else sorted({1, 2, 4, cores()})
    for image, encoding, threads in itertools.product(IMAGES, ENCODINGS, counts):
        draft.records += tried(
            setup, group, f"{image}, {encoding}, threads {threads}", partial(alone, image, encoding, threads)
        )


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize()


def train(setup: Setup, draft: Draft) -> None:
    """What `make bench-train` measures, over the shards of these parts."""
    from specshards.benchmarks.suite.train import training_records
    from specshards.train.accelerator import make_accelerator

    def steps() -> list[Record]:
        accelerator = make_accelerator(setup.device)
        rounds, count = (1, 1) if setup.tiny else (3, 30)
        return training_records(setup.shards("map2d", "png"), setup.batch, rounds, count, accelerator)

    draft.records += tried(setup, f"train on {setup.device}", "steps", steps)


def resume(setup: Setup, draft: Draft) -> None:
    """Batches after a saved position, in a loader opened anew, against those of the loader that went on."""
    from specshards.shards import loader
    from specshards.shards.format.encoding import ENCODINGS

    def go_on(encoding: str) -> list[Record]:
        folder, unequal, total = setup.shards("map2d", encoding), 0, 0
        options: dict[str, Any] = {"device": setup.device, "seed": 3, "verify": False}
        with (
            loader.open(folder, "train", setup.batch, **options) as first,
            loader.open(folder, "train", setup.batch, **options) as second,
        ):
            iterator = iter(first)
            for _ in range(len(first) // 2):
                next(iterator)
            second.load_state_dict(json.loads(json.dumps(first.state_dict())))
            for a, b in itertools.islice(zip(iterator, second, strict=True), 10):
                same = a["key"] == b["key"] and bool((a["pixel_values"] == b["pixel_values"]).all())
                unequal, total = unequal + (not same), total + 1
        return [Record(group, encoding, (unequal / total,), "share", f"of {total} batches")]

    group = f"batches that differ after a resume, {setup.device}"
    for encoding in ENCODINGS:
        draft.records += tried(setup, group, encoding, partial(go_on, encoding))


def tune(setup: Setup, draft: Draft) -> None:
    """A fine-tune as a user types it: seconds of a training image over all, and its metrics in the notes."""

    def fit() -> list[Record]:
        out = setup.scratch / f"run-{time.time_ns()}"
        folder = setup.shards("map2d", "png")
        words = ["--task", "classify", "--shards", str(folder), "--out", str(out), "--epochs", "2", "--device",
                 setup.device, "--backbone", setup.backbone, "--batch-size", str(min(setup.batch, 64)),
                 "--tracker", "none"]  # fmt: skip
        start = time.perf_counter()
        command = [sys.executable, "-m", "specshards", "train", "fit", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=400)
        took = time.perf_counter() - start
        if done.returncode:
            raise RuntimeError((done.stderr.strip().splitlines() or ["no reason"])[-1])
        training = json.loads((out / "metrics.json").read_text())["training"]
        history = training.pop("history")
        draft.notes.append(f"tune: {json.dumps(training)[:600]}")
        draft.notes.extend(f"tune, epoch {i}: {json.dumps(entry)[:600]}" for i, entry in enumerate(history, 1))
        from specshards.shards.format.manifest import Manifest

        seen = len(history) * Manifest.load(folder).samples("train")
        return [
            Record(group, setup.backbone, (took / seen,), note=f"{len(history)} epochs, start and validation too")
        ]

    group = f"fine-tune on {setup.device}, mock spectra"
    draft.records += tried(setup, group, setup.backbone, fit)


#: What it does, and about how many minutes it takes on a GPU: guessed, nobody has run it there.
PARTS: dict[str, tuple[Callable[[Setup, Draft], None], float]] = {
    "pixels": (pixels, 3.0), "formats": (formats, 1.0), "load": (load, 4.0), "train": (train, 4.0),
    "resume": (resume, 0.5), "tune": (tune, 4.0),
}  # fmt: skip


def main(
    parts: Annotated[str, typer.Option(help="Some of them, with commas.")] = ",".join(PARTS),
    out: Annotated[Path, typer.Option(help="Folder of the records, one a part.")] = LOCAL / "gpu",
    scratch: Annotated[Path, typer.Option(help="Folder that keeps the shards for the next call.")] = LOCAL
    / "gpu-data",
    device: Annotated[str, typer.Option(help="auto, cuda or cpu; a CPU takes tiny sizes: a dry run.")] = "auto",
    backbone: Annotated[str, typer.Option(help="Of `tune`: a folder or a name on the model hub.")] = "tiny",
    minutes: Annotated[float, typer.Option(help="No part begins that would not end by then.", min=0)] = 7.5,
) -> None:
    """Measure what only a GPU can show; a part that has its record is skipped, so call it again for the rest."""
    names = list(dict.fromkeys(name.strip() for name in parts.split(",")))
    if unknown := sorted(set(names) - set(PARTS)):
        raise UsageError(f"--parts: no part {', '.join(unknown)}; choose {', '.join(PARTS)}")
    if device == "auto":
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
    make_folder(out)
    start, tiny = time.perf_counter(), device == "cpu"
    setup = Setup(scratch, device, backbone, tiny, float("inf") if tiny else start + 60 * minutes)
    left: list[str] = []
    begun = False
    for name in names:
        work, about = PARTS[name]
        path = out / f"{name}.json"
        if path.exists():
            print(f"{name}: {path} is there; remove it to measure again")
        elif left or (not setup.tiny and begun and time.perf_counter() - start > 60 * (minutes - about)):
            left.append(name)
        else:
            begun = True
            print(f"{name}: on {device}", flush=True)
            with recording(f"gpu-{name}", path, setup.tiny) as draft:
                work(setup, draft)
    if left:
        print(f"no time for {', '.join(left)}: the same command again does the rest")
