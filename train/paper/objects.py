"""What a data set holds, over all its splits: labels, classes, S/N, survey. From the tables beside its shards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from specshards.common.spectrum import CLASSES
from specshards.shards.format.archive import read_sidecars
from specshards.shards.format.manifest import SPLITS, Manifest
from specshards.train.joint import Joint
from specshards.train.paper.answers import class_positions, floats
from specshards.train.tasks import metrics
from specshards.train.tasks.coded import Coded
from specshards.train.tasks.metrics import FloatArray

STELLAR = ("teff", "logg", "feh")
_NUMBERS = ("z", *STELLAR, "sn_survey", "sn_median")


@dataclass(frozen=True)
class Objects:
    """N objects of a data set.

    Attributes:
        surveys, splits: names, object `(N,)`. classes: positions in `CLASSES`, float64, NaN = none.
        numbers: `z`, `teff`, `logg`, `feh`, `sn_survey`, `sn_median`, float64 `(N,)`, NaN = missing.
        mock: whether any is of a mock survey.
        joint: which spectra are of one object, in all sets together; None where it was not counted.
    """

    surveys: npt.NDArray[Any]
    splits: npt.NDArray[Any]
    classes: FloatArray
    numbers: dict[str, FloatArray]
    mock: bool = False
    joint: Joint | None = None
    _constants: dict[tuple[str, str, tuple[str, ...], str], float] = field(
        default_factory=dict, compare=False, init=False
    )

    @classmethod
    def read(cls, folders: Sequence[Path], manifests: Sequence[Manifest]) -> Objects:
        """Of all splits that are not empty.

        Raises:
            JobError: a table is missing or damaged.
        """
        tables, splits = [], []
        for split in SPLITS:
            if any(manifest.samples(split) for manifest in manifests):
                tables.append(read_sidecars(folders, manifests, split, ["survey", "class", *_NUMBERS]))
                splits += [split] * tables[-1].num_rows
        table = pa.concat_tables(tables, promote_options="default")
        return cls(
            Coded.of(table["survey"]).names(), np.array(splits, object),
            class_positions(table["class"]),
            {name: _numbers(table, name) for name in _NUMBERS}, any(manifest.mock for manifest in manifests),
            Joint.count(folders, manifests),
        )  # fmt: skip

    def __len__(self) -> int:
        """N."""
        return len(self.surveys)

    def is_class(self, name: str) -> npt.NDArray[np.bool_]:
        """Which objects have this class."""
        return np.asarray(self.classes == CLASSES.index(name))

    def labelled(self, label: str) -> str:
        """How many stars have a stellar label, in words, by survey: in the train and in the test split."""
        known = np.isfinite(self.numbers[label]) & self.is_class("STAR")
        counts = (
            f"{survey} {(known & here & self.is_train).sum():,} in train, "
            f"{(known & here & (self.splits == 'test')).sum():,} in test"
            for survey in sorted(set(self.surveys)) for here in [self.surveys == survey]
        )  # fmt: skip
        return "; ".join(counts)

    @property
    def is_train(self) -> npt.NDArray[np.bool_]:
        """Which objects are of the train split."""
        return np.asarray(self.splits == "train")

    @property
    def is_of_several_surveys(self) -> bool:
        """Whether a model could do well by telling surveys apart."""
        return len(set(self.surveys)) > 1

    def constant_of_each(
        self, task: str, metric: str, classes: Sequence[str], surveys: npt.NDArray[Any]
    ) -> FloatArray:
        """The constant of each object's own survey, float64 like `surveys` `(n,)`; that of all where it has none."""
        found = np.full(len(surveys), self.constant(task, metric, classes))
        for survey in set(surveys):
            value = self.constant(task, metric, classes, survey)
            found[surveys == survey] = value if np.isfinite(value) else found[surveys == survey]
        return found

    def constant(self, task: str, metric: str, classes: Sequence[str] = CLASSES, survey: str = "") -> float:
        """The constant answer that is the best for a metric on the train split, NaN where it has no label.

        Args:
            metric: `accuracy`: the commonest class; `r2`, `std`: the mean; `crps`: the median; `mad`: see
                `metrics.least_median_deviation`; `crps_gaussian_z`: of mean and median the better;
                `non_catastrophic`: see `metrics.most_non_catastrophic`.
            classes: of the objects that count; those of the stellar labels are stars.
            survey: of this one alone.
        """
        key = task, metric, tuple(classes), survey
        if key not in self._constants:
            self._constants[key] = self._constant(*key)
        return self._constants[key]

    def _constant(self, task: str, metric: str, classes: Sequence[str], survey: str) -> float:
        here = self.is_train & (self.surveys == survey) if survey else self.is_train
        chosen = here & np.any([self.is_class(name) for name in classes], axis=0)
        if task == "classify":
            counts = [int((here & self.is_class(name)).sum()) for name in CLASSES]
            return float(np.argmax(counts)) if any(counts) else float("nan")
        if task in STELLAR:
            chosen = here & self.is_class("STAR")
        elif set(classes) == set(CLASSES) and metric != "non_catastrophic":
            chosen = here  # an object without a class has a redshift, too
        values = self.numbers["z" if task == "redshift" else task]
        known = chosen & np.isfinite(values)
        if not known.any():
            return float("nan")
        if metric == "non_catastrophic":
            return metrics.most_non_catastrophic(values[known], self.classes[known])
        values = values[known]
        if metric == "mad":
            return metrics.least_median_deviation(values)
        mean, median = float(np.mean(values)), float(np.median(values))
        if metric == "crps_gaussian_z":
            costs = {c: metrics.crps_gaussian_z(values, np.full(len(values), c)).mean() for c in (mean, median)}
            return min(costs, key=lambda c: float(costs[c]))
        return mean if metric in ("r2", "std") else median


def _numbers(table: pa.Table, name: str) -> FloatArray:
    if name not in table.column_names:
        return np.full(table.num_rows, np.nan)
    return floats(table[name])
