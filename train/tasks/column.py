"""Any column of a data set as a task: numbers are learnt by regression, texts as classes.

What a column holds and its unit are in the manifest (`further`), or else in the type of the column beside the shards.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from matplotlib.figure import Figure

from specshards.common.errors import UsageError
from specshards.common.further import further_name
from specshards.common.json import fits
from specshards.common.spectrum import LIMITS, NUMBERS, POSITION
from specshards.common.text import count, printable
from specshards.ingest.surveys.common import SENTINELS
from specshards.shards.format.manifest import LabelStats, Manifest, combine_stats
from specshards.train.config import TrainConfig
from specshards.train.tasks import metrics, plots
from specshards.train.tasks.classification import FEWEST, Classification
from specshards.train.tasks.coded import Coded
from specshards.train.tasks.metrics import FloatArray
from specshards.train.tasks.regression import Regression
from specshards.train.tasks.task import TASKS, Task, TrainSplit, numbers

Sidecar = Callable[[Sequence[str]], pa.Table]

#: More classes than these are names of things, not kinds of them.
MOST_CLASSES = 1000
#: Columns that say which spectrum it is, and nothing of its object.
_IDENTITY = {"key", "source_row", "object_id", "source_file", "_healpix_29", "wave_coeff0", "wave_coeff1"}
#: Columns that a table of predictions has anyhow.
TAKEN = frozenset({"object_id", "survey", "source_file", "ra", "dec", "split", "model", "trained_on_mock"})
_UNITS = {name: label.unit for label in (*NUMBERS, *POSITION) for name in label.columns}
_MOST_NAMED = 20
_MOST_DRAWN = 30  # classes of a confusion matrix


@dataclass(frozen=True)
class Column:
    """A column of labels: its name, `number` or `text`, and the unit, empty where it is not known."""

    name: str
    kind: str
    unit: str = ""


class Numbers(Regression):
    """The numbers of a column. Infinities, and what surveys write for a missing value (-9999), are missing."""

    kind: ClassVar[str] = "number"

    @classmethod
    def read(cls, sidecar: pa.Table) -> FloatArray:
        """The labels, float64 `(N,)`, NaN = missing or not possible."""
        return _possible(cls.label, numbers(sidecar, cls.label))

    @classmethod
    def statistics(cls, train: TrainSplit) -> LabelStats:
        """From the column itself; UsageError where it is the same number throughout."""
        stats = statistics(cls.read(train.sidecar([cls.label])))
        if stats.count and stats.min == stats.max:
            raise UsageError(
                f"{train}: every {printable(cls.label)} of the train split is {stats.min:g}: nothing to learn"
            )
        return stats

    @property
    def is_stored(self) -> bool:
        """Read from the sidecar, where what is not possible can be told."""
        return False

    @property
    def target(self) -> str:
        """No name of a label that the shards hold."""
        return super().target if self.only else f"column {self.name}"

    @property
    def column(self) -> str:
        """The label, or `predicted_<label>` where a table of predictions has a column of that name."""
        return f"predicted_{self.label}" if self.label in TAKEN else self.label

    def left_out(self, sidecar: pa.Table) -> dict[str, int]:
        """Numbers that stand for none."""
        said = self.known(numbers(sidecar, self.label), sidecar)
        lost = int((np.isfinite(said) & np.isnan(_possible(self.label, said))).sum())
        found = {"not a value (-9999 and the like)": lost, "infinite": int(np.isinf(said).sum())}
        return {why: n for why, n in found.items() if n}

    def conflict(self, other: Task) -> str | None:
        """Another column, unit or axis."""
        return None if of_column(other) == of_column(self) else f"learns {_described(other)}, not {_described(self)}"

    def to_dict(self) -> dict[str, Any]:
        """With what the column holds, by which it is known again."""
        return {**super().to_dict(), "kind": self.kind, "unit": self.unit}


class Texts(Classification):
    """The texts of a column, those that have `FEWEST` objects in the train split; two to `MOST_CLASSES` of them."""

    kind: ClassVar[str] = "text"
    between: ClassVar[str] = "; "

    @classmethod
    def coded(cls, sidecar: pa.Table) -> Coded:
        """Texts; whole numbers without a point, yes and no as `true` and `false`."""
        return Coded.of(sidecar[cls.label], _word)

    @classmethod
    def count(cls, train: TrainSplit) -> dict[str, int]:
        """The classes of the train split; UsageError where there are too few or too many of them."""
        found = super().count(train)
        what = f"{train}: {printable(cls.label)} has {count(len(found), 'class', 'classes')}"
        if len(found) == 1:
            raise UsageError(f"{what} with {FEWEST} objects in the train split: there is nothing to tell apart")
        if len(found) > MOST_CLASSES:
            raise UsageError(f"{what}, and at most {MOST_CLASSES:,} can be learnt: are they names of objects?")
        return found

    @property
    def target(self) -> str:
        """No name of a label that the shards hold."""
        return super().target if self.only else f"column {self.name}"

    def left_out(self, sidecar: pa.Table) -> dict[str, int]:
        """Objects of classes that are too rare in the train split to be learnt."""
        rows = Coded.of(sidecar["class"]).among(self.only) if self.only else None
        others: Counter[str] = Counter()
        for text, n in self.coded(sidecar).counts(rows).items():
            if text and (kind := self.read(text)) and kind not in self.classes:
                others[kind] += n
        return {f"of {count(len(others), 'other class', 'other classes')}": others.total()} if others else {}

    def conflict(self, other: Task) -> str | None:
        """Another column or other classes."""
        if of_column(other) != of_column(self):
            return f"learns {_described(other)}, not {_described(self)}"
        return super().conflict(other) if type(other) is type(self) or self.classes != _classes(other) else None

    def draw(self, true: FloatArray, point: FloatArray, classes: FloatArray) -> Figure:
        """The confusion matrix; of many classes that of the most numerous, and all others together."""
        if len(self.classes) <= _MOST_DRAWN:
            return super().draw(true, point, classes)
        most = np.sort(
            np.argsort(-np.bincount(true.astype(int), minlength=len(self.classes)), kind="stable")[:_MOST_DRAWN]
        )
        place = np.full(len(self.classes), _MOST_DRAWN)
        place[most] = np.arange(_MOST_DRAWN)
        names = [*(self.classes[i] for i in most), "others"]
        counted = metrics.classification(place[true.astype(int)], place[point.astype(int)], names)
        return plots.confusion(counted["confusion"], names)

    def to_dict(self) -> dict[str, Any]:
        """With the column, by which it is known again."""
        return {**super().to_dict(), "label": self.label, "kind": self.kind}


def task_of(column: Column) -> type[Numbers] | type[Texts]:
    """The task that learns a column."""
    content = {"label": column.name, "__module__": __name__}
    if column.kind == "number":
        return type(f"Numbers[{column.name}]", (Numbers,), {**content, "unit": column.unit})
    return type(f"Texts[{column.name}]", (Texts,), {**content, "prefix": f"p_{column.name}_"})


def recorded(content: Mapping[str, Any]) -> tuple[type[Numbers] | type[Texts], dict[str, Any]]:
    """The task of a record with `kind`, and the rest of it; ValueError for no such record."""
    rest = dict(content)
    kind, unit = rest.pop("kind"), rest.pop("unit", "")
    label = rest["label"] if kind == "number" else rest.pop("label")
    for name, value in (("label", label), ("unit", unit)):
        fits(value, str, name)
    if kind not in ("number", "text"):
        raise ValueError(f"{content['name']}: of no kind that a column has")
    return task_of(Column(label, kind, unit)), rest


def find(name: str, folders: Sequence[str], manifests: Sequence[Manifest], sidecar: Sidecar) -> Column:
    """What a column of some data sets holds.

    Args:
        sidecar: columns of the tables beside the shards, one row a sample.

    Raises:
        UsageError: no set has it, it says nothing that can be learnt, or it is one thing here and another there.
    """
    said = {folder: m.further[name] for folder, m in zip(folders, manifests, strict=True) if name in m.further}
    try:
        values = None if name in _IDENTITY else sidecar([name])[name]
    except (UsageError, KeyError):
        values = None
    except pa.ArrowException as error:
        raise UsageError(f"{', '.join(folders)}: {printable(name)} is a number in one and a text in another of them; "
                         "give it one name for each when they are ingested") from error  # fmt: skip
    if values is None:
        raise UsageError(_unknown(name, folders, manifests))
    kinds = {entry["kind"] for entry in said.values()} | ({_kind(name, values.type)} - {None})
    if len(kinds) > 1:
        raise UsageError(f"{', '.join(folders)}: {printable(name)} is a number in one and a text in another of them; "
                         "give it one name for each when they are ingested")  # fmt: skip
    units = {folder: entry["unit"] for folder, entry in said.items() if entry["unit"]}
    first = str(next(iter(units.values()), _UNITS.get(name, "")))
    for folder, unit in units.items():
        if not same_unit(unit, first):
            other = next(iter(units))
            raise UsageError(f"{printable(name)} is in {first} in {other} and in {unit} in {folder}; "
                             "bring them to one unit before they are ingested")  # fmt: skip
    return Column(name, str(kinds.pop()) if kinds else "number", first)


def spelled(config: TrainConfig, manifests: Sequence[Manifest]) -> TrainConfig:
    """The configuration with the names of columns as the data sets have them: `pH` is `ph`, `SOC (%)` is `soc`."""
    there = {name for manifest in manifests for name in manifest.further}
    ours = {
        name: further_name(name)
        for name in config.tasks
        if name not in TASKS and name not in there and further_name(name) in there
    }
    if not ours:
        return config
    target = config.target
    for name, column in ours.items():
        target = re.sub(rf"\(\s*{re.escape(name)}\s*\)", f"({column})", target)
    task, categories = (
        ",".join(dict.fromkeys(ours.get(name, name) for name in names))
        for names in (config.tasks, config.category_columns)
    )
    return replace(config, task=task, categories=categories, target=target)


def check_frames(config: TrainConfig, manifests: Sequence[Manifest]) -> None:
    """Raise UsageError where a redshift is to be learnt of spectra that show none."""
    for name in config.tasks if not config.only_classes else ():
        if name in TASKS and TASKS[name].label == "z":
            for folder, manifest in zip(config.shards, manifests, strict=True):
                _refuse_rest(name, folder, manifest)


def _refuse_rest(name: str, folder: str, manifest: Manifest) -> None:
    if manifest.at_rest:
        n = count(manifest.at_rest, "spectrum is", "spectra are")
        raise UsageError(f"{folder}: {n} in the rest frame, where no redshift shows for TASK={name}")


def check_sets(tasks: Sequence[Task], folders: Sequence[str], manifests: Sequence[Manifest]) -> None:
    """Raise UsageError where a column is of another unit or kind than was learnt, or where no redshift shows."""
    for task in tasks:
        for folder, manifest in zip(folders, manifests, strict=True):
            if task.label == "z" and not task.only:
                _refuse_rest(task.name, folder, manifest)
        if not isinstance(task, Numbers | Texts):
            continue
        for folder, manifest in zip(folders, manifests, strict=True):
            entry = manifest.further.get(task.label)
            if entry is None:
                continue
            if isinstance(task, Numbers) and entry["kind"] != "number":
                raise UsageError(
                    f"{folder}: {printable(task.label)} is a text there; TASK={task.name} learnt a number"
                )
            if task.unit and entry["unit"] and not same_unit(entry["unit"], task.unit):
                raise UsageError(
                    f"{folder}: {printable(task.label)} is in {entry['unit']} there; TASK={task.name} learnt it in "
                    f"{task.unit}"
                )


def check_told(tasks: Sequence[Task]) -> None:
    """Raise UsageError where two tasks would fill one column of a table of predictions."""
    import torch

    whose: dict[str, str] = {}
    for task in tasks:
        told = [task.column, *task.decode(torch.zeros(1, task.head_size))]
        for name in told:
            if name == "point":
                continue
            other = whose.setdefault(name, task.name)
            if other != task.name or name in TAKEN:
                rest = f"TASK={other} too" if other != task.name else "every table of predictions has"
                raise UsageError(f"TASK={task.name}: would fill the column {name}, which {rest}; train them apart")


def statistics(values: FloatArray) -> LabelStats:
    """Of numbers, NaN = missing."""
    values = values[np.isfinite(values)]
    if not len(values):
        return combine_stats([])
    return LabelStats(len(values), *(float(f(values)) for f in (np.mean, np.std, np.min, np.max)))


def same_unit(one: str, other: str) -> bool:
    """Whether two units are the same, as astropy reads them, or else as they are written."""
    if one == other:
        return True
    from astropy import units

    try:
        return bool(units.Unit(one) == units.Unit(other))
    except (ValueError, TypeError):
        return False


def of_column(task: Task) -> tuple[object, ...]:
    """What two tasks on columns have in common where their answers can stand side by side."""
    transform = getattr(task, "transform", None)
    return (getattr(task, "kind", ""), task.label, task.unit, getattr(transform, "name", ""))


def _classes(task: Task) -> tuple[str, ...]:
    return task.classes if isinstance(task, Classification) else ()


def _described(task: Task) -> str:
    return f"{task.label}{f' in {task.unit}' if task.unit else ''}"


def _possible(label: str, values: FloatArray) -> FloatArray:
    """NaN in place of infinities and of what stands for a missing number; a column with limits has been looked at."""
    lost = np.isinf(values)
    if label not in LIMITS:
        lost |= np.isin(values, np.fromiter(SENTINELS, np.float64))
    return np.where(lost, np.nan, values)


def _kind(name: str, kind: pa.DataType) -> str | None:
    """`number` or `text`, None for a column without a value; UsageError for anything else."""
    if pa.types.is_null(kind):
        return None
    if pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind):
        return "number"
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_boolean(kind):
        return "text"
    raise UsageError(f"{printable(name)} holds {kind}: neither numbers nor texts, so that no task can learn it")


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return value
    number = float(value)
    return str(int(number)) if number.is_integer() else repr(number)


def _unknown(name: str, folders: Sequence[str], manifests: Sequence[Manifest]) -> str:
    there = sorted({column for manifest in manifests for column in manifest.further})
    shown = [printable(column) for column in there[:_MOST_NAMED]]
    more = f" and {len(there) - _MOST_NAMED:,} more" if len(there) > _MOST_NAMED else ""
    columns = f", or a further column of {', '.join(folders)}: {', '.join(shown)}{more}" if there else ""
    near = difflib.get_close_matches(further_name(name), [*TASKS, *there], 1)
    hint = f" (did you mean {printable(near[0])}?)" if near else ""
    mend = "" if near else f"; a column of a catalogue comes in with LABELS={printable(name)} at ingest"
    return f"unknown TASK={printable(name)}{hint}: choose {', '.join(TASKS)}{columns}{mend}"
