"""What decides a subset."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from specshards.common.errors import UsageError

# Commands are listed and helped without what reads tables.
if TYPE_CHECKING:
    from specshards.ingest.catalogue.cuts import Cut

#: Spectromer (A&A 709, A122): at most so many objects of each class of each survey.
SIZES = {"medium": 200_000, "small": 30_000}
SIZES_HELP = f"a number, {' or '.join(f'{name} ({size:,})' for name, size in SIZES.items())}"


def number_of(per_class: str | None) -> int | None:
    """Objects of each class, by name or as a number.

    Raises:
        UsageError: neither.
    """
    if per_class is None or per_class in SIZES:
        return SIZES.get(per_class or "")
    try:
        return int(per_class)
    except ValueError:
        raise UsageError(f"--per-class {per_class}: give {SIZES_HELP}") from None


@dataclass(frozen=True)
class SelectConfig:
    """What decides which objects are chosen.

    Attributes:
        per_class: at most so many of each class of each survey: a number, medium (200,000) or small (30,000). None
            takes all, those without a class too.
        cuts: selection cuts by name: `paper` (of the published training sets).
        where: a filter, as: snrg > 10 and class in ('STAR', 'QSO') and teff is not null
        survey: whose catalogue it is (`lamost`, `sdss`, `desi`), even if it has a column `survey`: with SDSS and DESI
            that holds their own programmes (`boss`, `main`). None goes by that column. Of spectra, take only these.
        seed: of the choice.
    """

    per_class: int | None = field(default=None, metadata={"parse": number_of})
    cuts: str | None = None
    where: str | None = None
    survey: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the fields."""
        from specshards.ingest.surveys.survey import check_survey

        check_survey(self.survey)
        if self.per_class is not None and self.per_class < 1:
            raise UsageError(f"--per-class {self.per_class}: give {SIZES_HELP}; it must be positive")
        if self.seed < 0:
            raise UsageError(f"seed {self.seed}: give 0 or a positive number")
        self.cut()

    def cut(self) -> Cut | None:
        """Both filters as one, None without any."""
        from specshards.ingest.catalogue.cuts import cut_for

        return cut_for(self.cuts, self.where, self.survey)
