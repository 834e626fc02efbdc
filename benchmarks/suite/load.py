"""`make bench-load`: one epoch of batches, ours beside other people's loaders and beside what no loader can beat.

Everyone delivers the same pictures as shuffled torch batches, uint8 (64, 3, 224, 224), with the label vector of each;
their pixels are compared once, before the clock runs. Ours store what `shards` writes. Others store the full-size RGB
picture as their users would: `PNG` as PIL writes it, `JPEG` the very bytes of our `jpeg` shards, `raw` plain arrays;
PIL decodes for all of them. They run in processes of their own, and keep their workers from epoch to epoch. All is
read from the page cache. Bytes are those of all files that a data set is made of, for each of its samples.

The ceilings deliver less than a loader: ready batches; a loop that decodes payloads held in memory, in one thread and
without labels, order or files; all bytes of the archives read from front to back.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import cv2
import numba
import numpy as np
import torch
import typer

from specshards.benchmarks.kit.records import Record, interleave
from specshards.benchmarks.kit.report import LOCAL, Quick, Rounds, recording
from specshards.benchmarks.peers import worker
from specshards.benchmarks.peers.worker import Check
from specshards.benchmarks.suite.load_data import BATCH, Data, make_data, rows_of
from specshards.benchmarks.suite.load_startup import startup_records
from specshards.common.errors import JobError, UsageError
from specshards.common.jobs import cores
from specshards.render import ImageConfig, renderer
from specshards.shards import loader
from specshards.shards.format.encoding import ENCODINGS
from specshards.shards.loader.dali import dali_is_here

#: dB below which a JPEG is not the same picture: 4:2:0 gives 32 to 35, 4:4:4 at quality 95 over 40.
LEAST_PSNR = 37.0
TITLES = {"webdataset": "webdataset", "loose": "loose files", "litdata": "litdata", "streaming": "MosaicML streaming"}
FORMS = {"png": "RGB PNG", "jpeg": "RGB JPEG", "raw": "raw RGB"}
WORKER, REQUIREMENTS = Path(worker.__file__), Path(worker.__file__).with_name("requirements.txt")


@dataclass
class Contender:
    """Something that delivers epochs. `work` does one and returns its samples; `check` compares it, if it can be.

    Attributes:
        bytes: of the data set's files, for each sample.
        about: numbers that it holds for; see `Record`.
    """

    name: str
    work: Callable[[], int]
    check: Callable[[], dict[str, float]] | None = None
    lossless: bool = True
    note: str = ""
    bytes: float | None = None
    about: dict[str, float] = field(default_factory=dict)

    def compared(self) -> Contender:
        """Itself with what the comparison found in the note.

        Raises:
            JobError: its pictures are not ours.
        """
        if self.check is None:
            return self
        result = self.check()
        if result["missing"] or (result["unequal"] if self.lossless else result["psnr"] < LEAST_PSNR):
            raise JobError(f"{self.name}: other pictures than ours ({result}); its times would not compare")
        pixels = "pixels equal" if not result["unequal"] else f"PSNR {result['psnr']:.1f} dB"
        repeats = f", {result['repeated']:.0f} samples repeated" if result["repeated"] else ""
        return replace(self, note="; ".join(filter(None, [self.note, pixels + repeats])))


def ours(data: Data, stack: ExitStack, threads: int) -> Iterator[Contender]:
    """The loader, every encoding and backend; the default comes first."""
    about = {"threads": float(threads), "batch": float(BATCH)}
    for encoding in ENCODINGS:
        for backend in ("dali", "plain") if dali_is_here() else ("plain",):
            opened = loader.open(data.shards(encoding), "train", BATCH, backend=backend, threads=threads)
            batches = stack.enter_context(opened)

            def work(batches: loader.Loader = batches) -> int:
                for _ in batches:
                    pass
                return batches.samples

            def check(batches: loader.Loader = batches) -> dict[str, float]:
                comparison = Check(data.source)
                for batch in batches:
                    comparison.add(batch["pixel_values"][batch["valid"]], rows_of(batch))
                return comparison.result()

            stored = _size(data.tars(encoding)) / batches.samples
            name = f"specshards {backend}, {encoding}"
            yield Contender(name, work, check, encoding != "jpeg", bytes=stored, about=about)


class Peer:
    """A process of `peer_worker`, which answers one line with one line."""

    def __init__(self, python: Path, arguments: Sequence[str | Path], scratch: Path) -> None:
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            _command(python, "serve", *arguments), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            stderr=self._errors, env=_environment(scratch),
        )  # fmt: skip
        self.about: str = self._answer()["about"]

    def ask(self, line: str) -> dict[str, float]:
        """Send a line and wait for the answer."""
        assert self._process.stdin
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            self._errors.seek(0)
            lines = self._errors.read().strip().splitlines() or ["nothing"]
            raise JobError(f"{' '.join(map(str, self._process.args[2:]))} ended: {lines[-1]}")  # type: ignore[index]
        return json.loads(line)

    def close(self) -> None:
        """End the process, and wait for it."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._errors.close()


def _command(python: Path, *arguments: str | Path) -> list[str]:
    # -P: the worker's own folder holds modules with names that others may import.
    return [str(python), "-P", str(WORKER), *map(str, arguments)]


def _environment(scratch: Path) -> dict[str, str]:
    # MosaicML streaming leaves locks in the folder for temporary files.
    quiet = {"LITDATA_DISABLE_VERSION_CHECK": "1", "PYTHONWARNINGS": "ignore"}
    return {**os.environ, **quiet, "TMPDIR": str(scratch)}


def others(data: Data, stack: ExitStack, workers: Sequence[int], forms: dict[str, Sequence[str]], python: Path,
          ) -> Iterator[Contender]:  # fmt: skip
    """Other people's loaders: `forms` of each kind, all of them in the environment of `python`."""
    scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    for kind, stored_as in forms.items():
        for form in stored_as:
            folder = data.source if kind == "loose" else data.folder / f"{kind}-{form}"
            if not folder.exists():
                _prepare(_command(python, "prepare", kind, form, data.source), folder, scratch)
            files = list((folder / form if kind == "loose" else folder).rglob("*"))
            stored = _size(files) / data.samples
            for count in workers:
                # One after the other: MosaicML streaming counts on it when it names its shared memory.
                arguments: list[str | Path] = [kind, form, folder, "--workers", str(count), "--batch", str(BATCH)]
                peer = Peer(python, arguments, scratch)
                stack.callback(peer.close)

                def work(peer: Peer = peer) -> int:
                    return int(peer.ask("epoch")["samples"])

                def check(peer: Peer = peer) -> dict[str, float]:
                    return peer.ask(f"check {data.source}")

                name = _peer_name(kind, form, count)
                yield Contender(name, work, check, form != "jpeg", peer.about, stored)


def _size(paths: Sequence[Path]) -> int:
    return sum(path.stat().st_size for path in paths if path.is_file())


def _peer_name(kind: str, form: str, workers: int) -> str:
    return f"{TITLES[kind]}, {FORMS[form]}, {workers} workers"


def _prepare(command: list[str], folder: Path, scratch: Path) -> None:
    unfinished = folder.with_name(f".{folder.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    done = subprocess.run([*command, str(unfinished)], capture_output=True, text=True, env=_environment(scratch))
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no reason"]
        raise JobError(f"writing {folder.name} failed: {lines[-1]}")
    unfinished.rename(folder)


def peers_python(folder: Path) -> Path:
    """The interpreter of an environment with `peers/requirements.txt`, made where it is missing or out of date."""
    python, stamp = folder / "bin" / "python", folder / "requirements.txt"
    if not stamp.exists() or stamp.read_text() != REQUIREMENTS.read_text():
        print(f"making {folder}: the packages of {REQUIREMENTS.name} (some minutes the first time)", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        (folder / ".gitignore").write_text("*\n")
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        for what in (["--upgrade", "pip"], ["-r", str(REQUIREMENTS)]):  # older ones cannot read some metadata
            if subprocess.run([*pip, *what]).returncode:
                raise JobError(f"{folder}: installing {REQUIREMENTS} failed; leave --peers out, or see above")
        shutil.copy(REQUIREMENTS, stamp)
    return python


def ceilings(data: Data, image: str) -> Iterator[Contender]:
    """What a loader of these pictures cannot beat."""
    drawer = renderer(ImageConfig(image=image))
    count = data.samples
    ready = torch.zeros((BATCH, 3, drawer.config.size, drawer.config.size), dtype=torch.uint8)

    def cached() -> Iterator[torch.Tensor]:
        for _ in range(0, count, BATCH):
            yield ready

    yield Contender("ceiling: cached batches", lambda: sum(1 for _ in cached()) and count)
    for name in ("png", "pnm", "lz4", "jpeg"):
        encoding = ENCODINGS[name](drawer)
        expand = None if encoding.full_size else drawer.expand_batch
        yield Contender(
            f"ceiling: decode loop, {name}", _decode_loop(data.payloads(name), encoding.decode, expand)
        )  # fmt: skip
    files = sorted((data.source / "png").iterdir())
    yield Contender(
        "ceiling: decode loop, RGB PNG", _decode_loop({i: p.read_bytes() for i, p in enumerate(files)}, _opencv, None)
    )  # fmt: skip
    for name in ENCODINGS:
        tars = data.tars(name)

        def read(tars: list[Path] = tars) -> int:
            for path in tars:
                with path.open("rb", buffering=0) as file:
                    while file.read(1 << 20):
                        pass
            return count

        yield Contender(f"ceiling: read through, {name}", read)


def _opencv(payload: bytes) -> Any:
    return cv2.imdecode(np.frombuffer(payload, np.uint8), cv2.IMREAD_COLOR_RGB)


def _decode_loop(
    payloads: dict[int, bytes], decode: Callable[[bytes], Any], expand: Callable[[Any], Any] | None
) -> Callable[[], int]:
    many = list(payloads.values())

    def work() -> int:
        threads = numba.get_num_threads()
        numba.set_num_threads(1)
        for start in range(0, len(many), BATCH):
            stored = np.stack([decode(payload) for payload in many[start : start + BATCH]])
            torch.from_numpy(expand(stored) if expand else stored).permute(0, 3, 1, 2)
        numba.set_num_threads(threads)
        return len(many)

    return work


def lasting(work: Callable[[], int], seconds: float) -> Callable[[], int]:
    """`work` again and again until so long has passed: short epochs give no steady times."""

    def turn() -> int:
        start, count = time.perf_counter(), work()
        while time.perf_counter() - start < seconds:
            count += work()
        return count

    return turn


OWN_FORMS: dict[str, Sequence[str]] = {"webdataset": ("png", "jpeg"), "loose": ("png", "jpeg")}
PEER_FORMS: dict[str, Sequence[str]] = {"litdata": ("png", "jpeg", "raw"), "streaming": ("png", "jpeg", "raw")}


def measure(
    data: Data, image: str, rounds: int, seconds: float, workers: Sequence[int], peers_in: Path | None,
    threads: int | None = None, forms: dict[str, Sequence[str]] = OWN_FORMS,
) -> list[Record]:  # fmt: skip
    """Every contender, compared once and then timed in turn; those that were not run have no seconds, and say so."""
    group = f"load {image}"
    with ExitStack() as stack:
        contenders = list(ours(data, stack, threads or cores()))
        contenders += others(data, stack, workers, forms, Path(sys.executable))
        if peers_in is not None:
            contenders += others(data, stack, workers, PEER_FORMS, peers_in)
        contenders = [contender.compared() for contender in [*contenders, *ceilings(data, image)]]
        turns = {contender.name: lasting(contender.work, seconds) for contender in contenders}
        records = interleave(group, turns, rounds)
    records = [
        replace(r, note=c.note, bytes=c.bytes, about=c.about) for r, c in zip(records, contenders, strict=True)
    ]
    if peers_in is None:
        peers = [(kind, form) for kind, stored_as in PEER_FORMS.items() for form in stored_as]
        names = [_peer_name(*peer, count) for peer in peers for count in workers]
        records += [Record(group, name, (), note="not run: without --peers") for name in names]
    return records


def main(
    out: Annotated[
        Path | None, typer.Option(help=f"The JSON record; table and plot go beside it. [{LOCAL / 'load.json'}]")
    ] = None,
    scratch: Annotated[Path | None, typer.Option(help="Keep the data here, for the next run.")] = None,
    image: Annotated[str, typer.Option(help="The picture.")] = "map2d",
    objects: Annotated[int, typer.Option(help="Mock objects; four fifths of them are loaded.", min=40)] = 4000,
    rounds: Rounds = 3,
    seconds: Annotated[float, typer.Option(help="Least length of a turn; short epochs are repeated.")] = 1.0,
    threads: Annotated[int | None, typer.Option(help="Of our loader. [all cores]", min=1)] = None,
    workers: Annotated[str, typer.Option(help="Worker processes of the other loaders, with commas.")] = "2,0",
    peers: Annotated[bool, typer.Option("--peers", help="Also litdata and MosaicML streaming.")] = False,
    peers_venv: Annotated[Path, typer.Option(help="The environment made for --peers.")] = Path(".venv-peers"),
    startup: Annotated[
        bool, typer.Option("--startup", help="Instead: opening a million samples, time and memory.")
    ] = False,
    quick: Quick = False,
) -> None:
    """Time the loaders, interleaved, beside webdataset, loose files and ceilings."""
    counts = workers.split(",")
    if not all(count.isdigit() for count in counts):
        raise UsageError(f"--workers {workers}: give numbers, such as 2,0")
    out = out or LOCAL / f"load{'-startup' if startup else ''}.json"
    with recording("load", out, quick) as draft, tempfile.TemporaryDirectory() as temporary:
        if quick:
            objects, rounds, seconds, counts = 60, 1, 0.0, ["0"]
        base = scratch or Path(temporary)
        if startup:
            draft.records = startup_records(base / "startup", rounds)
            return
        python = peers_python(peers_venv) if peers else None
        data = make_data((base / f"{image}-{objects}").resolve(), image, objects)
        forms: dict[str, Sequence[str]] = {"webdataset": ("png",)} if quick else OWN_FORMS
        draft.records = measure(data, image, rounds, seconds, list(map(int, counts)), python, threads, forms)
