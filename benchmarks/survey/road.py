"""The stages: every command of the road, as a user types it, on one survey."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from specshards.benchmarks.kit.process import room_command
from specshards.benchmarks.survey.rows import PART_ROWS
from specshards.benchmarks.survey.watch import Watched, watch
from specshards.common.errors import JobError, UsageError, shortened
from specshards.common.files import write_text
from specshards.common.jobs import cores

#: Of the pictures: 8 x 8 values, the whole of a spectrum of `rows`, and no more.
PICTURE = {"size": 16, "block": 2}
STEPS = 100
_BATCH = 512
_HERE = "specshards.benchmarks.survey"


@dataclass(frozen=True)
class Row:
    """What one stage came to, or one part of it; see `watch.Watched`.

    Attributes:
        objects: that it went through.
        seconds: None where it failed.
        bytes: that it left on disk.
        error: why it failed.
    """

    stage: str
    name: str
    objects: int
    seconds: float | None = None
    largest: float = 0.0
    together: float = 0.0
    own: float = 0.0
    handles: int = 0
    bytes: int = 0
    note: str = ""
    error: str = ""


@dataclass
class Road:
    """One survey in a folder, and what its stages came to.

    Attributes:
        minutes: that a stage may take; then it is stopped, and its row says so.
        megabytes: of memory, likewise, without pages of files.
        done: rows by stage; they are kept in the folder as they come.
    """

    objects: int
    folder: Path
    workers: int = field(default_factory=cores)
    minutes: float = 60.0
    megabytes: float = float("inf")
    done: dict[str, list[Row]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Read what an earlier run left."""
        self.done = {
            name: [Row(**row) for row in json.loads(path.read_text())]
            for name in STAGES
            if (path := self._file(name)).exists()
        }

    def run(self, stages: list[str]) -> Iterator[Row]:
        """Run the stages that have not been run, in the order of the road."""
        for name in (name for name in STAGES if name in stages and name not in self.done):
            try:
                rows = list(STAGES[name](self))
            except (UsageError, JobError, OSError) as error:  # in what a stage makes ready
                rows = [Row(name, name, self.objects, error=shortened(error))]
            self._file(name).parent.mkdir(parents=True, exist_ok=True)
            write_text(self._file(name), json.dumps([asdict(row) for row in rows], indent=1) + "\n")
            self.done[name] = rows
            yield from rows

    def rows(self) -> list[Row]:
        """All there are, in the order of the road."""
        return [row for name in STAGES for row in self.done.get(name, [])]

    def _file(self, stage: str) -> Path:
        return self.folder / "stages" / f"{stage}.json"

    @property
    def spectra(self) -> Path:
        """The Parquet."""
        return self.folder / "spectra"

    @property
    def shards(self) -> Path:
        """The data set."""
        return self.folder / "shards"

    @property
    def model(self) -> Path:
        """The run."""
        return self.folder / "run"

    def watched(
        self, stage: str, name: str, command: list[str], *, objects: int = 0, made: Path | None = None,
        until: Callable[[], bool] = lambda: False,
    ) -> tuple[Row, Watched]:  # fmt: skip
        """A row of a command; `made` is weighed."""
        found = watch(command, most_seconds=60 * self.minutes, most_megabytes=self.megabytes, until=until)
        error = found.error or f"exit code {found.code}" if found.code else ""
        if found.stopped:
            error = "" if found.stopped == "killed" else found.stopped
        row = Row(
            stage, name, objects or self.objects, None if error else found.seconds, found.largest, found.together,
            found.own, found.handles, _weight(made) if made and not error else 0, error=error.removeprefix("error: "),
        )  # fmt: skip
        return row, found


def _weight(path: Path) -> int:
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())


def _replaced(row: Row, **changes: Any) -> Row:
    return Row(**{**asdict(row), **changes})


def make_rows(road: Road) -> Iterator[Row]:
    """The survey itself: no command of the road."""
    command = [sys.executable, "-m", f"{_HERE}.rows", str(road.objects), str(road.spectra), str(road.workers or 1)]
    row, _ = road.watched("rows", "(make spectra)", command, made=road.spectra)
    yield _replaced(row, note="not of the road: rows made up for it")


def build(road: Road) -> Iterator[Row]:
    """Shards: killed half-way with all its processes, begun again, and once more when nothing is left to do."""
    tasks = max(4, -(-road.objects // (2 * PART_ROWS)))
    ledger = road.shards / ".ledger"
    command = room_command("shards", "build", spectra=road.spectra, out=road.shards, workers=road.workers, **PICTURE)

    if not road.workers:  # to see that it runs
        yield road.watched("build", "build", command, made=road.shards)[0]
        return

    def half() -> bool:
        return sum(1 for _ in ledger.glob("[0-9]*.json")) >= tasks // 2 if ledger.is_dir() else False

    killed, _ = road.watched("build", "build, killed half-way", command, until=half)
    there = sum(1 for _ in ledger.glob("[0-9]*.json"))
    if killed.error:
        yield killed
        return
    yield _replaced(killed, note=f"{there:,} of {tasks:,} tasks were done when all its processes were killed")
    row, _ = road.watched("build", "build, the rest", command, made=road.shards)
    yield row
    if not row.error:
        yield road.watched("build", "build, nothing left to do", command)[0]


def verify(road: Road) -> Iterator[Row]:
    """Verify, fast."""
    yield road.watched("verify", "verify", room_command("shards", "verify", road.shards, workers=road.workers))[0]


def report(road: Road) -> Iterator[Row]:
    """The page."""
    page = road.shards / "report.html"
    yield road.watched("report", "report", room_command("shards", "report", road.shards), made=page)[0]


def inspect(road: Road) -> Iterator[Row]:
    """The first samples of a shard."""
    command = room_command("shards", "inspect", road.shards, out=road.folder / "sheet.png")
    yield road.watched("inspect", "inspect", command)[0]


def manifest(road: Road) -> Iterator[Row]:
    """The manifest, read and checked."""
    code = (
        "import sys, time; from pathlib import Path; from specshards.shards.format.manifest import Manifest; "
        "began = time.perf_counter(); found = Manifest.load(Path(sys.argv[1])); "
        "print(time.perf_counter() - began, len(found.shards), found.samples())"
    )
    row, found = road.watched("manifest", "manifest, read", [sys.executable, "-c", code, str(road.shards)])
    if row.error:
        yield row
        return
    seconds, shards, samples = found.said.split()
    size = (road.shards / "manifest.json").stat().st_size
    note = f"{int(shards):,} shards, {int(samples):,} samples; without the start of the process"
    yield _replaced(row, seconds=float(seconds), bytes=size, note=note)


def loading(road: Road) -> Iterator[Row]:
    """The loader of each backend: an epoch, and going on in one; then with 256 open files at most."""
    from specshards.benchmarks.suite.load_startup import link_many
    from specshards.shards.loader.dali import dali_is_here

    warm = road.folder / "warm"
    link_many(road.shards, warm, 1)
    for backend in ("plain", *(("dali",) if dali_is_here() else ())):
        for handles in (0, 256):
            state = road.folder / f"state-{backend}-{handles}.json"
            state.unlink(missing_ok=True)
            # One whole epoch, with the limit; the others have the same order, files and memory.
            seconds = 60 * road.minutes if backend == "plain" and handles else 30
            yield from _loading(road, warm, state, backend, handles, seconds)


def _loading(road: Road, warm: Path, state: Path, backend: str, handles: int, seconds: float) -> Iterator[Row]:
    title = f"loader {backend}" + (f", {handles} files" if handles else "")
    words = [str(warm), str(road.shards), str(state), backend, str(handles)]
    command = [sys.executable, "-m", f"{_HERE}.loading", *words]
    row, found = road.watched("loader", title, [*command, str(seconds)])
    if row.error:
        yield row
        return
    said = json.loads(found.said.splitlines()[-1])
    samples, seen, memory = said["samples"], said["seen"], said["memory"]
    for what, key in (("open", "open"), ("open, first batch", "first")):
        note = f"{said[f'{key}_memory']:.0f} MB were added by then"
        yield Row("loader", f"{title}: {what}", samples, said[key], note=note)
    over = f"; at each tenth {', '.join(f'{value:.0f}' for value in memory)} MB were added" if memory else ""
    whole = (
        "every sample once" if seen == said["different"] == samples else f"{said['different']:,} different samples"
    )
    note = f"{seen:,} of {samples:,} samples, {whole}{over}"
    wrong = seen != said["different"] or (len(memory) == 10 and seen != samples)
    part = "" if seen == samples else ", a part"
    yield _replaced(row, name=f"{title}: epoch{part}", objects=seen, note=note,
                    seconds=None if wrong else said["epoch"],
                    error=f"not every sample once: {note}" if wrong else "")  # fmt: skip
    row, found = road.watched("loader", f"{title}: resumed", [*command, "0"])
    if not row.error:
        said = json.loads(found.said.splitlines()[-1])
        wrong = "" if said["same"] else "another batch than the next one"
        row = _replaced(row, objects=samples, seconds=None if wrong else said["first"], error=wrong,
                        note=f"from opening to the very next batch; {said['memory']:.0f} MB were added")  # fmt: skip
    yield row


def train(road: Road) -> Iterator[Row]:
    """Some steps of a model that takes no time, with its validation."""
    nano = road.folder / "nano"
    _make_nano(nano)
    shutil.rmtree(road.model, ignore_errors=True)
    command = room_command(
        "train", "fit", "--no-compile", task="classify,redshift", shards=road.shards, backbone=nano, out=road.model,
        epochs=1, tracker="none", device="cpu", **{"batch-size": _BATCH, "max-steps": STEPS},
    )  # fmt: skip
    row, _ = road.watched("train", "train, validate", command, made=road.model)
    yield _replaced(row, note=f"{STEPS} steps of {_BATCH}, then the whole of the validation split")


def _make_nano(folder: Path) -> None:
    from transformers import ViTConfig, ViTForImageClassification

    size = PICTURE["size"]
    config = ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=1, intermediate_size=16,
                       image_size=size, patch_size=size, num_labels=3)  # fmt: skip
    ViTForImageClassification(config).save_pretrained(folder)


def evaluate(road: Road) -> Iterator[Row]:
    """Scores of the validation split."""
    command = room_command(
        "train", "evaluate", model=road.model, splits="val", device="cpu", **{"batch-size": _BATCH}
    )
    yield road.watched("evaluate", "evaluate val", command)[0]


def predict(road: Road) -> Iterator[Row]:
    """An answer for every object."""
    out = road.folder / "predictions.parquet"
    command = room_command(
        "train", "predict", model=road.model, input=road.shards, out=out, device="cpu", **{"batch-size": _BATCH}
    )
    yield road.watched("predict", "predict", command, made=out)[0]


def embed(road: Road) -> Iterator[Row]:
    """Vectors and neighbours of the validation split."""
    out = road.folder / "embeddings.parquet"
    command = room_command(
        "train", "embed", model=road.model, input=road.shards, split="val", out=out, device="cpu",
        **{"batch-size": _BATCH},
    )  # fmt: skip
    yield road.watched("embed", "embed val, neighbours", command, made=out)[0]


#: In the order of the road.
STAGES: dict[str, Callable[[Road], Iterator[Row]]] = {
    "rows": make_rows, "build": build, "manifest": manifest, "verify": verify, "report": report, "inspect": inspect,
    "loader": loading, "train": train, "evaluate": evaluate, "predict": predict, "embed": embed,
}  # fmt: skip
