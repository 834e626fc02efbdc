"""`specshards ingest select`: a filtered, class-balanced subset of a catalogue or of spectra Parquet.

What is asked and what the answer says; `ingest.catalogue.subset` does it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from specshards.common import options
from specshards.common.errors import UsageError
from specshards.common.text import aligned

if TYPE_CHECKING:
    from specshards.ingest.catalogue.cuts import Cut

#: Spectromer (A&A 709, A122): at most so many objects of each class of each survey.
SIZES = {"medium": 200_000, "small": 30_000}
_SIZES = f"a number, {' or '.join(f'{name} ({size:,})' for name, size in SIZES.items())}"


def command(
    source: Annotated[
        Path, typer.Option("--from", help="Catalogue (CSV, FITS, Parquet), or folder of spectra Parquet.")
    ],
    out: Annotated[Path, typer.Option(help="Parquet file for a catalogue; folder for spectra.")],
    survey: Annotated[
        str | None, typer.Option(help="Whose catalogue it is (lamost, sdss, desi); of spectra, take only these.")
    ] = None,
    cuts: options.Cuts = None,
    where: options.Where = None,
    per_class: Annotated[
        str | None, typer.Option(help=f"At most so many of each class and survey: {_SIZES}.")
    ] = None,
    seed: options.Seed = 0,
    force: Annotated[bool, typer.Option(help="Replace OUT; of a folder, its part-*.parquet.")] = False,
) -> None:
    """Choose what to train on: the objects within a cut, at most so many of each class.

    From a catalogue, before anything is downloaded; or from spectra that are there already. The same seed chooses the
    same objects whatever the order of the rows, and a larger number keeps those of a smaller one.
    """
    from specshards.ingest.catalogue.subset import select

    account = select(source, out, SelectConfig(number_of(per_class), cuts, where, survey, seed), force=force)
    print(f"{out}: {account.selected:,} rows")


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
        raise UsageError(f"--per-class {per_class}: give {_SIZES}") from None


@dataclass(frozen=True)
class SelectConfig:
    """What decides which objects are chosen.

    Attributes:
        per_class: at most so many of each class of each survey; None takes all, those without a class too.
        cuts: a named preset of selection cuts (`paper`); where: a filter of one's own (see `ingest.catalogue.cuts`).
        survey: whose catalogue it is, even if it has a column `survey`: with SDSS and DESI that holds their own
            programmes (`boss`, `main`). None goes by that column. Of spectra, take only this survey's.
        seed: of the choice.
    """

    per_class: int | None = None
    cuts: str | None = None
    where: str | None = None
    survey: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the fields."""
        from specshards.ingest.surveys import check_survey

        check_survey(self.survey)
        if self.per_class is not None and self.per_class < 1:
            raise UsageError(f"--per-class {self.per_class}: give {_SIZES}; it must be positive")
        if self.seed < 0:
            raise UsageError(f"seed {self.seed}: give 0 or a positive number")
        self.cut()

    def cut(self) -> Cut | None:
        """Both filters as one, None without any."""
        from specshards.ingest.catalogue.cuts import cut_for

        return cut_for(self.cuts, self.where, self.survey)


@dataclass(frozen=True)
class Account:
    """What became of every row: `listed == selected + not_selected`.

    Attributes:
        groups: by survey and class (None: it has none), the rows listed, within the cut, and selected.
        reasons: rows that were not selected, by why.
        per_class: how many of a class were asked for.
    """

    groups: Mapping[tuple[str, str | None], tuple[int, int, int]]
    reasons: Mapping[str, int]
    per_class: int | None

    @property
    def listed(self) -> int:
        """Rows of the input."""
        return sum(counts[0] for counts in self.groups.values())

    @property
    def selected(self) -> int:
        """Rows of the output."""
        return sum(counts[2] for counts in self.groups.values())

    @property
    def not_selected(self) -> int:
        """Rows for which there is a reason not to be in the output."""
        return sum(self.reasons.values())

    def table(self) -> str:
        """Plain text: a row a survey and class, then the reasons, then the sum."""
        rows = [["survey", "class", "listed", "passed the cut", "selected", ""]]
        for (survey, kind), counts in self.groups.items():
            is_short = self.per_class is not None and kind is not None and counts[1] < self.per_class
            note = f"all of them, fewer than {self.per_class:,}" if is_short else ""
            rows.append([survey, kind or "none", *(f"{n:,}" for n in counts), note])
        totals = map(sum, zip(*self.groups.values(), strict=True)) if self.groups else (0, 0, 0)
        rows.append(["total", "", *(f"{n:,}" for n in totals), ""])
        lines = aligned(rows, (0, 1, 5))
        lines += [f"not selected {n:>10,}  {reason}" for reason, n in self.reasons.items()]
        lines.append(f"{self.listed:,} rows = {self.selected:,} selected + {self.not_selected:,} not selected")
        return "\n".join(lines)
