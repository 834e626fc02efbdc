"""What of the paper is made again, and how its models are trained."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Self

from specshards.common.errors import UsageError
from specshards.train.config import TrainConfig, configure
from specshards.train.paper.names import NUMBERS, PICTURES, TABLE_KEYS

SETS = ("all", "each", "joint")
#: What --quick takes where nothing else is given: enough to see every table and figure, not to learn much.
QUICK: dict[str, Any] = {
    "backbone": "tiny", "epochs": 2, "max_steps": 60, "batch_size": 16, "lr": 1e-3, "sets": "joint", "limit": 2000,
}  # fmt: skip
_QUICK_MOCK = 600


@dataclass(frozen=True, kw_only=True)
class PaperConfig(TrainConfig):
    """The training of `TrainConfig`, preset paper, and what is trained with it.

    Attributes:
        shards: folders of shards (ENCODING=flux for all pictures), with commas; without any a mock SLOMOST is made in
            OUT/mock.
        pictures: which, with commas: simple, overlap, map2d, mega (the three in one training). By default all that
            the shards can give.
        picture_preset: of the pictures: paper are the published ones.
        tables: which, with commas: 1 or counts, 5 or sn, 6 or teff, 7 or logg, 8 or feh, 9 or crps; by name alone, as
            their numbers in the paper are not known here, accuracy, r2, classifiers, estimators. By default all.
        sets: of several shard sets train on each and on all together (`all`), on `each` alone, or on all together
            alone (`joint`).
        limit: train objects at most of the random forest; of support vectors 10,000.
        mock_files: of each survey of the mock, where no shards are given.
        quick: a small pass over everything: a tiny model, two epochs of 60 steps together at most, 600 mock
            files of each survey, several sets together alone. What is given beside it wins.
    """

    task: str = field(default="classify", metadata={"option": False})
    shards: tuple[str, ...] = ("",)
    pictures: tuple[str, ...] = ()
    picture_preset: str = "paper"
    tables: tuple[str, ...] = ()
    sets: str = "all"
    limit: int = 20_000
    mock_files: int = 6000
    quick: bool = False

    def __post_init__(self) -> None:
        """Check the fields; UsageError names the field and what is allowed."""
        super().__post_init__()
        if unknown := set(self.pictures) - set(PICTURES):
            raise UsageError(f"unknown --pictures {min(unknown)}: choose {', '.join(PICTURES)}")
        if unknown := {name for name in self.tables if NUMBERS.get(name, name) not in TABLE_KEYS}:
            known = ", ".join([*NUMBERS, *TABLE_KEYS])
            raise UsageError(f"unknown --tables {min(unknown)}: choose {known}")
        if self.sets not in SETS:
            raise UsageError(f"unknown --sets {self.sets}: choose {', '.join(SETS)}")
        if self.limit < 2 or self.mock_files < 1:
            raise UsageError("limit and mock_files are positive numbers of objects; limit is 2 at least")

    @classmethod
    def configure(cls, preset: str | None = None, **given: Any) -> Self:
        """With the values of a training preset (`paper`) and of `quick`, where nothing else is given."""
        if given.get("quick"):
            given = {**QUICK, "mock_files": _QUICK_MOCK, **given}
        names = {one.name for one in fields(TrainConfig)}
        own = {name: value for name, value in given.items() if name not in names}
        training = {"shards": ("",), "task": "classify", **{k: v for k, v in given.items() if k in names}}
        return cls(**vars(configure(preset or "paper", **training)), **own)

    @property
    def is_mock(self) -> bool:
        """Whether a mock is made, for want of shards."""
        return self.shards == ("",)

    @property
    def wanted(self) -> tuple[str, ...]:
        """The keys of the tables, in their order."""
        asked = {NUMBERS.get(name, name) for name in self.tables}
        return tuple(key for key in TABLE_KEYS if not asked or key in asked)

    def training(self, **changes: Any) -> TrainConfig:
        """The configuration of one run."""
        values = {one.name: getattr(self, one.name) for one in fields(TrainConfig)}
        return TrainConfig(**{**values, **changes})
