"""Which runs the tables ask for, of which data sets; and in words why a number cannot be put beside the paper's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from specshards.common.errors import UsageError
from specshards.common.files import location
from specshards.common.spectrum import CLASSES
from specshards.common.text import count
from specshards.render.config import preset as preset_of
from specshards.shards.format.encoding import ENCODINGS
from specshards.shards.format.manifest import SPLITS, Manifest
from specshards.shards.loader.mixing import agreed
from specshards.shards.loader.pictures import asked
from specshards.train.config import PRESETS, TrainConfig
from specshards.train.evaluation.classical import MOST_FOR_SVM
from specshards.train.joint import check_distinct
from specshards.train.paper import published
from specshards.train.paper.config import PaperConfig
from specshards.train.paper.names import PICTURES
from specshards.train.paper.objects import STELLAR, Objects

#: Tasks that a table, by its key, is made from.
_TASKS: Mapping[str, tuple[str, ...]] = {
    "accuracy": ("classify",), "r2": ("redshift",), "sn": ("redshift",), "crps": ("redshift",),
    "classifiers": ("classify",), "estimators": ("redshift",), **{task: (task,) for task in STELLAR},
}  # fmt: skip
_LABEL = {"classify": "class", "redshift": "z"}


@dataclass(frozen=True)
class DataSet:
    """What one model is trained and tested on: one shard set, or several together.

    Attributes:
        name: its surveys; of folders too.
    """

    name: str
    folders: tuple[str, ...]
    manifests: tuple[Manifest, ...]

    @property
    def holds_spectra(self) -> bool:
        """Whether any picture can be drawn."""
        return not ENCODINGS[self.manifests[0].config.encoding].needs_picture

    @property
    def picture(self) -> str:
        """The picture that it was made for."""
        return self.manifests[0].config.image.image

    def drawn(self, picture: str, preset: str) -> tuple[str, ...]:
        """The pictures of a run, as `TrainConfig.images` names them; none where the shards hold them."""
        if not self.holds_spectra:
            return ()
        names = [name for name in PICTURES if name != "mega"] if picture == "mega" else [picture]
        return tuple(f"{name}:{preset}" for name in names)

    def check(self, config: PaperConfig) -> None:
        """Raise UsageError where a split is empty, or the sets do not fit together or not to a picture."""
        wanted = [picture for picture in PICTURES if picture in (config.pictures or PICTURES)]
        names = dict.fromkeys(name for each in wanted for name in self.drawn(each, config.picture_preset))
        agreed(tuple(map(location, self.folders)), self.manifests, asked(names, self.manifests[0].config.image))
        for split in SPLITS:
            if not any(manifest.samples(split) for manifest in self.manifests):
                raise UsageError(
                    f"{', '.join(self.folders)}: the {split} split is empty; use more objects, or another SPLIT"
                )


@dataclass(frozen=True)
class PaperRun:
    """One model.

    Attributes:
        data_set: name of the set. picture: or `sequence`, which reads spectra.
        config: of the training.
    """

    data_set: str
    task: str
    picture: str
    config: TrainConfig

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.data_set}-{self.task}-{self.picture}"


@dataclass(frozen=True)
class Plan:
    """All that is done.

    Attributes:
        runs: in their order.
        classical: the sets on which a forest and support vectors are fitted, by name, and to which tasks.
        absent: why something is not trained; see `study.Study`.
    """

    runs: tuple[PaperRun, ...]
    classical: Mapping[str, tuple[str, ...]]
    absent: Mapping[tuple[str, str, str], str]


def data_sets(folders: Sequence[str], config: PaperConfig) -> list[DataSet]:
    """Each shard set alone, and all together, as `config.sets` says.

    Raises:
        UsageError: no shards there, an empty split, or sets that cannot be trained on together.
    """
    sets = config.sets
    manifests = [Manifest.load(location(folder)) for folder in folders]
    check_distinct(folders, manifests)
    found = []
    if len(folders) == 1 or sets in ("all", "each"):
        found += [DataSet("", (folder,), (manifest,)) for folder, manifest in zip(folders, manifests, strict=True)]
    if len(folders) > 1 and sets in ("all", "joint"):
        found.append(DataSet("", tuple(folders), tuple(manifests)))
    for each in found:
        each.check(config)
    named: list[DataSet] = []
    for each in found:
        base = "+".join(sorted({survey for manifest in each.manifests for survey in manifest.surveys}))
        taken = sum(other.name.partition(" ")[0] == base for other in named)
        more = " together" if len(each.folders) > 1 else f" {taken + 1}"
        named.append(DataSet(f"{base}{more}" if taken else base, each.folders, each.manifests))
    return named


def plan(config: PaperConfig, sets: Sequence[DataSet], objects: Mapping[str, Objects]) -> Plan:
    """What the tables that are wanted ask for, of what the sets hold."""
    tasks = [task for task in ("classify", "redshift", *STELLAR)
             if any(task in _TASKS.get(key, ()) for key in config.wanted)]  # fmt: skip
    absent: dict[tuple[str, str, str], str] = {}
    runs: list[PaperRun] = []
    classical: dict[str, tuple[str, ...]] = {}
    for each in sets:
        pictures = _pictures(config, each, absent)
        here = [task for task in tasks if _can_learn(each, task, objects[each.name], absent)]
        runs += [_run(config, each, task, picture) for task in here for picture in pictures]
        beside = tuple(
            task
            for key in ("classifiers", "estimators")
            if key in config.wanted
            for task in _TASKS[key]
            if task in here
        )
        if not each.holds_spectra:
            why = "reads spectra, and the shards hold pictures; make them with ENCODING=flux"
            absent |= {(each.name, "", method): why for method in ("svm", "forest", "sequence")}
        elif beside:
            runs += [_sequence(config, each, task) for task in beside]
            classical[each.name] = beside
    return Plan(tuple(runs), classical, absent)


def _pictures(config: PaperConfig, each: DataSet, absent: dict[tuple[str, str, str], str]) -> list[str]:
    asked = config.pictures or tuple(PICTURES)
    absent |= {(each.name, "", picture): "not asked for" for picture in PICTURES if picture not in asked}
    if each.holds_spectra:
        return [picture for picture in PICTURES if picture in asked]
    why = f"the shards hold pictures of {each.picture}; make them with ENCODING=flux"
    absent |= {(each.name, "", picture): why for picture in asked if picture != each.picture}
    return [each.picture] if each.picture in asked else []


def _can_learn(each: DataSet, task: str, objects: Objects, absent: dict[tuple[str, str, str], str]) -> bool:
    """Whether the train, val and test split each have the label, of stars for the stellar ones."""
    label = _LABEL.get(task, task)
    known = np.isfinite(objects.classes if label == "class" else objects.numbers[label])
    if task in STELLAR:
        known &= objects.is_class("STAR")
    for split in SPLITS:
        if not (known & (objects.splits == split)).any():
            what = f"star of the {split} split has a {label}" if task in STELLAR else f"{split} object has a {label}"
            absent[each.name, task, ""] = f"no {what}"
            return False
    return True


def _run(config: PaperConfig, each: DataSet, task: str, picture: str) -> PaperRun:
    changes: dict[str, Any] = {"task": task, "shards": each.folders, "only": "STAR" if task in STELLAR else ""}
    if each.holds_spectra:
        changes["images"] = each.drawn(picture, config.picture_preset)
    return PaperRun(each.name, task, picture, config.training(**changes))


def _sequence(config: PaperConfig, each: DataSet, task: str) -> PaperRun:
    """The 1-D transformer, from scratch: at its own learning rate, and with no picture to normalise."""
    backbone = "sequence-tiny" if config.backbone == "tiny" else "sequence"
    changes: dict[str, Any] = {"normalise": "backbone", "lr": None, "drop_path": 0.0, "images": ()}
    return PaperRun(
        each.name, task, "sequence",
        config.training(task=task, shards=each.folders, backbone=backbone, **changes),
    )  # fmt: skip


def notes(config: PaperConfig, each: DataSet, objects: Objects) -> dict[tuple[str, str], tuple[str, ...]]:
    """What is not comparable with the paper; see `study.Study.notes`."""
    scopes = {
        "data": _of_data(each, objects), "picture": _of_pictures(config, each), "training": _of_training(config),
        "regression": _of_regression(config),
        "sequence": (_SEQUENCE, *_of_training(config, _OWN)),
        "classical": (
            f"on 50 principal components of at most {config.limit:,} train spectra; support vectors of at most "
            f"{min(config.limit, MOST_FOR_SVM):,}",
        ),
    }  # fmt: skip
    return {(each.name, scope): tuple(lines) for scope, lines in scopes.items()}


_SEQUENCE = "from scratch, at its own learning rate; how the paper cuts a spectrum into tokens is not public"
#: What of the training is the 1-D transformer's own; see `_sequence`.
_OWN = ("normalise", "lr")


def _of_data(each: DataSet, objects: Objects) -> Iterator[str]:
    if objects.mock:
        yield "mock data: a simulator made the spectra and their labels"
    yield "other objects than the paper's"
    yield from _of_split(each, objects)
    if not np.isfinite(objects.numbers["sn_survey"]).any():
        yield "no object has an snMedian"
    counts = {kind: int(objects.is_class(kind).sum()) for kind in CLASSES}
    if min(counts.values()) == 0:
        yield f"no object of class {', '.join(kind for kind, n in counts.items() if not n)}"


def _of_split(each: DataSet, objects: Objects) -> Iterator[str]:
    """What lies on two sides was counted over all sets together, whatever rule each was split by."""
    rules = sorted({manifest.config.split_by for manifest in each.manifests})
    rule = f"split by {' and '.join(rules)}" + (", as published" if rules == ["row"] else "")
    joint = objects.joint
    if joint is None:
        yield rule
    elif joint.leaks.divided or "row" in rules:
        seen, tests = joint.leaks.test_seen, joint.leaks.test
        yield f"{rule}: {seen:,} of {tests:,} test spectra are of an object of the train split"
    else:
        yield (
            f"{rule}: no object is on two sides; the published code splits by row, so that visits of one object "
            "can be"
        )
    if joint is not None and joint.shared:
        yield f"{count(joint.shared, 'spectrum has', 'spectra have')} an id that several of the sets have"
    for split in sorted({manifest.config.split for manifest in each.manifests}):
        if not np.allclose(split, published.SPLIT):
            yield f"split {', '.join(f'{share:g}' for share in split)}; the published code takes 0.6, 0.2, 0.2"


def _of_pictures(config: PaperConfig, each: DataSet) -> Iterator[str]:
    if config.backbone != published.BACKBONE:
        yield f"backbone {config.backbone}; the published code fine-tunes {published.BACKBONE}"
    image = each.manifests[0].config.image
    if each.holds_spectra and config.picture_preset != "paper":
        yield f"pictures of preset {config.picture_preset}, not as published"
    if not each.holds_spectra and image != preset_of("paper", image.image):
        yield "the shards' pictures are not those of preset paper"


def _of_training(config: PaperConfig, but: Sequence[str] = ()) -> Iterator[str]:
    paper = {**PRESETS["paper"], "max_steps": None, "overfit_batches": None, "augment": "", "ema": None}
    other = {name: value for name, value in paper.items() if name not in but and getattr(config, name) != value}
    if other:
        words = (
            f"{name} {getattr(config, name)}" + (f", not {value}" if value else "") for name, value in other.items()
        )
        yield f"trained otherwise: {'; '.join(words)}"


def _of_regression(config: PaperConfig) -> Iterator[str]:
    if config.target == "max":
        yield (
            "labels are divided by the largest of the train split; the published code takes the largest of all "
            "splits, the test split too"
        )
