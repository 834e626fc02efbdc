"""How a loader reads: what `loader.open` was asked for, checked."""

from __future__ import annotations

from dataclasses import dataclass

from specshards.common.errors import UsageError
from specshards.shards.format.manifest import SPLITS
from specshards.shards.loader.dali import dali_is_here

BACKENDS = ("dali", "plain")
ON_ERROR = ("stop", "skip")
VIEWS = ("picture", "spectra")


@dataclass(frozen=True)
class LoaderOptions:
    """The arguments of `loader.open` beside data sets, pictures and augmentation; see there."""

    split: str
    batch_size: int
    seed: int
    rank: int
    world_size: int
    view: str
    device: str
    backend: str
    shuffle: bool
    weights: tuple[float, ...] | None
    balance: str | None
    on_error: str
    threads: int
    verify: bool
    together: bool = False
    per_step: int | None = None

    def __post_init__(self) -> None:
        """Check the fields; UsageError names the field and what is allowed."""
        if self.split not in SPLITS:
            raise UsageError(f"unknown split {self.split}: choose {', '.join(SPLITS)}")
        if self.backend not in BACKENDS:
            raise UsageError(f"unknown backend {self.backend}: choose {' or '.join(BACKENDS)}")
        if self.backend == "dali" and not dali_is_here():
            raise UsageError("NVIDIA DALI is not installed (it exists for Linux only); choose backend plain")
        if self.on_error not in ON_ERROR:
            raise UsageError(f"unknown on_error {self.on_error}: choose {' or '.join(ON_ERROR)}")
        if self.view not in VIEWS:
            raise UsageError(f"unknown view {self.view}: choose {' or '.join(VIEWS)}")
        if min(self.batch_size, self.per_step or 1) < 1 or not 0 <= self.rank < self.world_size:
            raise UsageError(
                f"batch_size {self.batch_size}, rank {self.rank}, world_size {self.world_size}: not a possible loader"
            )
