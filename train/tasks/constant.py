"""What can be had without looking at a picture: the majority class or the mean label, over all or by survey.

A model that only tells surveys apart is no better than the survey-only baseline.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from specshards.train.tasks.classification import Classification
from specshards.train.tasks.metrics import FloatArray
from specshards.train.tasks.task import Task


@dataclass(frozen=True)
class Baselines:
    """Constant answers learnt on the train split.

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
        """From the sidecar of the train split: columns `survey` and the task's label."""
        surveys = np.asarray(train["survey"].to_pylist(), dtype=object)
        values = task.targets(train)
        known = np.isfinite(values)
        surveys, values = surveys[known], values[known]
        counts = {"all": len(values)}
        counts |= {f"survey {s}": int((surveys == s).sum()) for s in sorted(set(surveys))}
        if isinstance(task, Classification):
            counts |= {f"class {name}": int((values == i).sum()) for i, name in enumerate(task.classes)}
        return cls(
            _answer(task, values), {str(s): _answer(task, values[surveys == s]) for s in sorted(set(surveys))}, counts
        )

    def predict(self, surveys: Sequence[str]) -> dict[str, FloatArray]:
        """Answers float `(N,)` of both baselines for objects of these surveys; unknown surveys get the constant."""
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
        return cls(**content)


def _answer(task: Task, values: FloatArray) -> float:
    if isinstance(task, Classification):
        return float(np.bincount(values.astype(int)).argmax())
    return float(values.mean())
