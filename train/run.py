"""A run folder: the best model so far, the card beside it, and the record of the run.

<run>/config.json, model.safetensors, preprocessor_config.json    opens with `from_pretrained`
<run>/tokenizer.json                                               of a tokenizer, in place of the next one
<run>/specshards.json                                              task, scaling, classes, image, data, baselines
<run>/run.json                                                     configuration, data, history, status
<run>/checkpoints/                                                 only while the run is not complete
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from specshards.common.errors import JobError, UsageError, shortened
from specshards.common.folder import Folder, changes
from specshards.common.json import different, fits, parse, signed, unsigned
from specshards.render import ImageConfig
from specshards.shards.format.manifest import Manifest
from specshards.train import checkpoint
from specshards.train.config import AGAIN, TrainConfig
from specshards.train.joint import Joint, check_distinct
from specshards.train.tasks.constant import Baselines
from specshards.train.tasks.multitask import task_from_dict
from specshards.train.tasks.task import Task

CARD, RUN, METRICS, REPORT, PAGE = "specshards.json", "run.json", "metrics.json", "report.md", "report.html"
LOCK = ".lock"
MODEL_FILES = (
    "config.json", "preprocessor_config.json", "sequence.json", "tokenizer.json", "model.safetensors",
)  # fmt: skip


@dataclass(frozen=True)
class Card:
    """`specshards.json`: what a model needs to be used and judged.

    Attributes:
        tasks: in the order of the model's outputs.
        image: the picture that it was trained on (`render.ImageConfig` content), or the first of several.
        images: all of them, where there are several; `config.images` names them.
        data: folder, fingerprint and surveys of every data set.
        mock: True when any of the training data are mock.
        model: sha256 of the weights. files: of the other files of the model, by name.
        best: epoch, metric and value on validation.
        baselines: by the name of the task. conformal: the same; see `train.evaluation.conformal`.
    """

    tasks: tuple[Task, ...]
    config: TrainConfig
    image: dict[str, Any]
    data: tuple[dict[str, Any], ...]
    mock: bool
    baselines: dict[str, Baselines]
    model: str = ""
    best: dict[str, Any] | None = None
    conformal: dict[str, dict[str, Any]] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    images: tuple[dict[str, Any], ...] = ()

    @property
    def pictures(self) -> tuple[ImageConfig, ...]:
        """The pictures of each object, at least one."""
        return tuple(map(ImageConfig.from_dict, self.images or (self.image,)))

    @property
    def several(self) -> tuple[str, ...]:
        """The names of the pictures, where there are several."""
        return self.config.images if self.images else ()

    @property
    def title(self) -> str:
        """The names of the tasks."""
        return ", ".join(task.name for task in self.tasks)

    def dumps(self) -> str:
        """The JSON text; its keys keep their order, so that reports of a card that was read back keep theirs."""
        content = {
            "tasks": [task.to_dict() for task in self.tasks], "config": self.config.to_dict(), "image": self.image,
            "data": self.data, "mock": self.mock, "model": self.model, "best": self.best, "conformal": self.conformal,
            "baselines": {name: baselines.to_dict() for name, baselines in self.baselines.items()},
            "files": self.files, **({"images": self.images} if self.images else {}),
        }  # fmt: skip
        return json.dumps(signed(content), indent=1) + "\n"

    @classmethod
    def loads(cls, text: str) -> Card:
        """The inverse of `dumps`.

        Raises:
            ValueError, KeyError or TypeError: anything else, which it says. UsageError: of a task or backbone that is
                not here.
        """
        stored = parse(text, nan=True)
        fits(stored, dict[str, Any])
        fits({name: value for name, value in stored.items() if name != "checksum"}, _CardContent)
        content = unsigned(stored)
        return cls(
            tasks=tuple(map(task_from_dict, content["tasks"])), config=TrainConfig.from_dict(content["config"]),
            image=ImageConfig.from_dict(content["image"]).to_dict(), data=tuple(content["data"]),
            mock=content["mock"],
            baselines={name: Baselines.from_dict(b) for name, b in content["baselines"].items()},
            model=content["model"], best=content["best"], conformal=content["conformal"],
            files=content.get("files", {}),
            images=tuple(ImageConfig.from_dict(image).to_dict() for image in content.get("images", ())),
        )  # fmt: skip

    @classmethod
    def read(cls, path: Path) -> Card:
        """Of a file.

        Raises:
            JobError: not a card of this program.
        """
        try:
            card = cls.loads(path.read_text(encoding="utf-8"))
            if not card.tasks or different(task.name for task in card.tasks) is not None:
                raise ValueError("tasks: none, or one that is there twice")
            if card.images and (len(card.images) != len(card.config.images) or card.images[0] != card.image):
                raise ValueError("images: not those of the configuration")
            if missing := {task.name for task in card.tasks} - set(card.baselines):
                raise ValueError(f"baselines: {min(missing)} is missing")
            return card
        except UsageError as error:  # of a package that is not installed, or no value that a run can have
            raise JobError(f"{path}: {error}") from error
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise JobError(
                f"{path}: not a card of this program ({shortened(error, 200)}); train the model again"
            ) from error


@dataclass(frozen=True)
class DataContent:
    """A data set in a card, in `run.json`, in `metrics.json`."""

    folder: str
    fingerprint: str
    surveys: list[str]
    leaks: str = ""
    together: list[str] = field(default_factory=list)
    stated: list[dict[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class _ConformalContent:
    count: int
    kind: str
    scores: dict[str, float | None]
    by: str = ""
    groups: int | None = None


@dataclass(frozen=True)
class _CardContent:
    """`specshards.json`; a task reads its own record."""

    tasks: list[dict[str, Any]]
    config: TrainConfig
    image: ImageConfig
    data: list[DataContent]
    mock: bool
    model: str
    best: dict[str, int | float | str | None] | None
    conformal: dict[str, _ConformalContent]
    baselines: dict[str, Baselines]
    files: dict[str, str] = field(default_factory=dict)
    images: list[ImageConfig] = field(default_factory=list)


def read_metrics(path: Path) -> dict[str, Any]:
    """The content of a `metrics.json`.

    Raises:
        JobError: not one of this program.
    """
    try:
        content: dict[str, Any] = parse(path.read_text(encoding="utf-8"))
        fits(content, dict[str, Any])
        for name, kind in (
            ("tasks", list[str]), ("mock", bool), ("model", str), ("data", list[DataContent]),
            ("splits", dict[str, dict[str, dict[str, Any]]]), ("training", dict[str, Any] | None),
        ):  # fmt: skip
            fits(content.get(name) if name == "training" else content[name], kind, name)
        content = unsigned(content)
    except (ValueError, KeyError) as error:
        raise JobError(
            f"{path}: not readable as metrics ({shortened(error)}); remove it and evaluate again"
        ) from error
    return content


def data_record(folders: Sequence[str], manifests: Sequence[Manifest]) -> tuple[dict[str, Any], ...]:
    """What the data of a run are, JSON-able; `leaks` only of those that are split by row or by a group,
    `stated` where a user said something of their spectra.

    Raises:
        UsageError: one data set is there twice.
    """
    check_distinct(folders, manifests)
    return tuple(
        {"folder": folder, "fingerprint": manifest.fingerprint(), "surveys": list(manifest.surveys),
         **({} if (leaks := manifest.leaks) is None or not leaks.divided
            else {"leaks": leaks.said(manifest.config.rule)}),
         **({"stated": list(manifest.stated)} if manifest.stated else {})}
        for folder, manifest in zip(folders, manifests, strict=True)
    )  # fmt: skip


def counted_together(
    data: Sequence[Mapping[str, Any]], folders: Sequence[str], manifests: Sequence[Manifest]
) -> tuple[dict[str, Any], ...]:
    """The records of `data_record`; the last of several says as `together` what the sets have in common.

    Raises:
        JobError: a damaged table.
    """
    lines = Joint.count(folders, manifests).lines if len(manifests) > 1 else []
    return (*map(dict, data[:-1]), {**data[-1], **({"together": lines} if lines else {})})


def leaks(data: Sequence[Mapping[str, Any]]) -> list[str]:
    """What objects in several splits do to numbers that are measured on some data, a line each."""
    names = [Path(each["folder"]).name for each in data]
    if len(set(names)) < len(names):  # of many, each is `shards/map2d`
        names = [each["folder"] for each in data]
    own = [f"{name}: {each['leaks']}" for name, each in zip(names, data, strict=True) if each.get("leaks")]
    return own + [line for each in data for line in each.get("together", ())]


def changed(card: Card, data: Sequence[Mapping[str, Any]]) -> list[str]:
    """Data sets that are not what a model of that card learnt from, though they have the same place; a line each."""
    learnt = {each["folder"]: each["fingerprint"] for each in card.data}
    return [
        f"{each['folder']}: not the data set any more that this model learnt from; its splits may be others, so that "
        "objects scored here may have been learnt"
        for each in data
        if learnt.get(each["folder"], each["fingerprint"]) != each["fingerprint"]
    ]


def folder_of(run: Path, again: str = AGAIN) -> Folder:
    """The folder of a run; `again` is what replaces it."""
    return Folder(run, RUN, LOCK, "a run", f"{again} to replace it")


def claim(
    run: Path, config: Mapping[str, Any], data: Sequence[Mapping[str, Any]], resume: str, again: str = AGAIN,
    ranks: int = 1,
) -> dict[str, Any]:  # fmt: skip
    """The record of the run to do in this folder: a new one, or the unfinished or complete one that is there.

    Args:
        resume: `auto` goes on with what is there; `never` replaces it.
        again: see `RunOptions`.
        ranks: processes of a new run. A step is of so many batches from then on, however many go on with it.

    Raises:
        UsageError: the folder holds a run of another configuration or data that has saved something, or other files.
    """
    folder, record = folder_of(run, again), None
    asked = {"config": dict(config), "data": [dict(each) for each in data]}
    if resume == "never":
        clear(run)
    elif (record := folder.claimed()) is not None:
        try:
            for name, kind in (("config", dict[str, Any]), ("data", list[DataContent]), ("status", str),
                               ("history", list[dict[str, Any]])):  # fmt: skip
                fits(record[name], kind, name)
            record["ranks"] = _ranks(run, record, ranks)
            changed, is_empty = _changes(record, asked), not record["history"] and checkpoint.latest(run) is None
        except (KeyError, TypeError, ValueError) as error:
            raise JobError(
                f"{run / RUN}: not of a run ({shortened(error)}); choose another OUT, or {again} to replace it"
            ) from error
        if changed and not is_empty:
            raise folder.refusal(changed)
        if not changed:
            return record
    elif run.is_dir() and any(path.name != LOCK for path in run.iterdir()):
        raise UsageError(f"OUT={run}: is not empty and not a run; choose another OUT")
    record = {**asked, "status": "running", "history": [], "ranks": ranks}
    write_record(run, record)
    return record


def _ranks(run: Path, record: Mapping[str, Any], here: int) -> int:
    """Processes that a run was begun on. Records of old do not say it, but their checkpoints have a file of each."""
    found = checkpoint.latest(run)
    ranks = record.get("ranks", here if found is None else max(1, len(list(found.glob("rank-*.pt")))))
    fits(ranks, int, "ranks")
    if ranks < 1:
        raise ValueError(f"ranks: {ranks}, not a number of processes")
    return int(ranks)


def write_record(run: Path, record: Mapping[str, Any]) -> None:
    """Write `run.json`."""
    folder_of(run).write_claim(record)


@contextmanager
def leaving_nothing(run: Path) -> Iterator[None]:
    """A mistake that shows when shards or a backbone are opened leaves no claim on a folder that was free."""
    is_new = not (run / RUN).exists()
    try:
        yield
    except (UsageError, JobError):
        record = (folder_of(run).claimed() or {}) if is_new else {}
        if is_new and not record.get("history") and not (run / CARD).exists() and checkpoint.latest(run) is None:
            folder_of(run).unclaim()
        raise


def clear(run: Path) -> None:
    """Remove what a run wrote, and nothing else."""
    checkpoint.remove(run)
    for name in (RUN, CARD, METRICS, REPORT, PAGE, *MODEL_FILES):
        (run / name).unlink(missing_ok=True)
    for name in ("figures", "tensorboard", "explain", "hub", "reconstructions"):
        shutil.rmtree(run / name, ignore_errors=True)
    for name in ("baselines.parquet", "embeddings.parquet", "predictions.parquet", "model.onnx",
                 "comparison_val.json", "comparison_test.json"):  # fmt: skip
        (run / name).unlink(missing_ok=True)
    for figure in run.glob("figure_*.png"):
        figure.unlink()


def _changes(before: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """What differs, in words; the folders' names do not matter where their content is the same."""
    configs = [{**record["config"], "shards": None} for record in (before, asked)]
    changed = changes(*configs)
    if [data["fingerprint"] for data in before["data"]] != [data["fingerprint"] for data in asked["data"]]:
        old, new = (" + ".join(data["folder"] for data in record["data"]) for record in (before, asked))
        changed.append(f"shards: {old} -> {new}" if old != new else f"the shards in {old} have changed")
    return changed
