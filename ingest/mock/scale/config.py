"""What decides the spectra of the mock survey at scale."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from specshards.common.errors import UsageError
from specshards.ingest.mock.objects import SURVEYS


@dataclass(frozen=True)
class ScaleConfig:
    """What decides the spectra, and nothing else (no paths, no worker counts).

    Attributes:
        survey: which to imitate: `lamost` or `sdss`.
        n: number of spectra. A larger one leaves the full parts of a smaller one as they are.
        seed: of everything random.
        repeat_fraction: share of the objects that have a second visit.
        templates: stars in the template bank; half as many galaxies and quasars each.
        part_rows: rows of one Parquet file.
        row_group_rows: rows of one of its row groups.
    """

    survey: str = "lamost"
    n: int = 10_000
    seed: int = 0
    repeat_fraction: float = 0.1
    templates: int = 2048
    part_rows: int = 4096
    row_group_rows: int = 128

    def __post_init__(self) -> None:
        """Check the fields."""
        if self.survey not in SURVEYS:
            raise UsageError(f"unknown SURVEY={self.survey}: choose {' or '.join(SURVEYS)}")
        if not 1 <= self.n <= 100_000_000:
            raise UsageError(f"N={self.n}: give a number of spectra from 1 to 100,000,000")
        if self.seed < 0:
            raise UsageError(f"seed {self.seed}: give 0 or a positive number")
        if not 0.0 <= self.repeat_fraction <= 0.5:
            raise UsageError(f"repeat_fraction {self.repeat_fraction}: give 0 to 0.5")
        if self.templates < 2 or self.part_rows < 1 or self.row_group_rows < 1:
            raise UsageError("templates must be 2 or more, part_rows and row_group_rows 1 or more")

    def without_n(self) -> dict[str, Any]:
        """The fields that a part depends on, by name: what its file metadata carries."""
        return {key: value for key, value in asdict(self).items() if key != "n"}

    @property
    def parts(self) -> int:
        """Number of Parquet files."""
        return -(-self.n // self.part_rows)
