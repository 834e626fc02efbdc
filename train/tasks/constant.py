"""What can be had without looking at a picture: the majority class or the mean label, over all or by survey.

A model that only tells surveys apart is no better than the survey-only baseline.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from specshards.common.json import fits
from specshards.train.tasks.coded import Coded
from specshards.train.tasks.metrics import FloatArray
from specshards.train.tasks.task import Task


@dataclass(frozen=True)
class Baselines:
    """Constant predictions learnt on the train split.

    Attributes:
        constant: majority class (its position) or mean label over all surveys.
        by_survey: the same within each survey that has labelled objects.
        counts: labelled train objects in all and by survey, and by class where the task has classes.
    """

    constant: float
    by_survey: dict[str, float]
    counts: dict[str, int] = field(default_factory=dict)

    @classmethod
    def learn(cls, task: Task, train: pa.Table) -> Baselines:
        """From the sidecar of the train split: column `survey` and the task's `columns`."""
        surveys, values = Coded.of(train["survey"]), task.targets(train)
        labelled = np.isfinite(values)
        of_each = surveys.counts(labelled)
        by_survey = {s: task.constant(values[labelled & surveys.among([s])]) for s in sorted(of_each)}
        values = values[labelled]
        counts = {"all": len(values)} | {f"survey {s}": of_each[s] for s in by_survey}
        counts |= task.counts(values) | task.left_out(train)
        return cls(task.constant(values), by_survey, counts)

    def predict(self, surveys: Sequence[str]) -> dict[str, FloatArray]:
        """Predictions float `(N,)` of both for objects of these surveys; an unknown survey gets the constant."""
        return {
            "constant": np.full(len(surveys), self.constant),
            "survey_only": np.array([self.by_survey.get(s, self.constant) for s in surveys], dtype=np.float64),
        }

    def to_dict(self) -> dict[str, Any]:
        """JSON-able content."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Baselines:
        """The inverse of `to_dict`."""
        fits(content, cls, "baselines")
        return cls(**content)
