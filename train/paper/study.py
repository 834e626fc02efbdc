"""All that the tables and figures are made from: answers, objects, and what is not comparable."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from specshards.common.spectrum import CLASSES
from specshards.train.paper.answers import Answers, Block
from specshards.train.paper.cells import Cell, Metric, measured, missing
from specshards.train.paper.names import CLASSICAL, PICTURES
from specshards.train.paper.objects import Objects


def _all(block: Block) -> Block:
    return block


@dataclass(frozen=True)
class Study:
    """What was learnt, and on what.

    Attributes:
        objects: of each data set, by its name, in the order of the tables.
        notes: what is not comparable with the paper: (set, scope) -> lines. The scope is `data` (of every cell of the
            set), `picture` and `training` (of vision transformers), `regression` (of runs on a number), `sequence` or
            `classical` (of the methods beside them).
        absent: why a picture of a set has no answers: (set, task, picture), where a task of "" stands for all.
        chosen: (set, task) -> the picture that was best on validation: what is shown where one is.
        runs: a record of every run, for the page.
        folders: of each data set, where there are several.
    """

    answers: Answers
    objects: Mapping[str, Objects]
    notes: Mapping[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    absent: Mapping[tuple[str, str, str], str] = field(default_factory=dict)
    chosen: Mapping[tuple[str, str], str] = field(default_factory=dict)
    runs: Sequence[Mapping[str, Any]] = ()
    folders: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def mock(self) -> bool:
        """Whether any object is of a mock survey."""
        return any(objects.mock for objects in self.objects.values())

    @property
    def sets(self) -> list[str]:
        """Names of the data sets."""
        return list(self.objects)

    @property
    def widest(self) -> str:
        """The set of the most objects."""
        return max(self.objects, key=lambda name: len(self.objects[name]))

    def picture(self, data_set: str, task: str = "redshift") -> str | None:
        """The picture of a set that is shown: by validation, or else the first that answered; None without any."""
        there = self.answers.pictures(data_set, task)
        first = next((picture for picture in PICTURES if picture in there), None)
        chosen = self.chosen.get((data_set, task))
        return chosen if chosen in there else first

    def cell(
        self, data_set: str, task: str, method: str, metric: Metric, kind: str, *, more: bool,
        choose: Callable[[Block], Block] = _all, classes: Sequence[str] = CLASSES, survey: str = "",
    ) -> Cell:  # fmt: skip
        """A metric of what one method answered.

        Args:
            kind: names the best constant, see `Objects.constant`; empty for none.
            choose: which objects count. classes: theirs, for the constant.
            survey: objects of this one alone, and its own constant; empty for all.
        """
        block = self.answers.block(data_set, task, method)
        if block is None:
            keys = ((data_set, task, method), (data_set, "", method), (data_set, task, ""))
            return missing(next((self.absent[key] for key in keys if key in self.absent), "not trained"))
        objects, picked = self.objects[data_set], choose(block.of_survey(survey) if survey else block)
        constant = objects.constant(task, kind, classes, survey) if kind else None
        of_survey = None
        if kind and not survey and objects.is_of_several_surveys:
            of_survey = objects.constant_of_each(task, kind, classes, picked.surveys)
        found = measured(metric, picked, more=more, constant=constant, of_survey=of_survey)
        return found.noted(*self.about(data_set, task, method)) if found.count else found

    def about(self, data_set: str, task: str, method: str) -> tuple[str, ...]:
        """The lines of `notes` that hold for what a method says of a task."""
        if method in CLASSICAL:
            scopes = ["data", "classical"]
        else:
            scopes = ["data", "sequence"] if method == "sequence" else ["data", "picture", "training"]
            scopes += ["regression"] if task != "classify" else []
        return tuple(line for scope in scopes for line in self.notes.get((data_set, scope), ()))
