"""The account of an ingest job: by layout, class and reason, and that it adds up."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from specshards.common.impossible import Impossible
from specshards.common.text import aligned

if TYPE_CHECKING:  # its arrays are nothing that the help of a command needs
    from specshards.common.identity import Repeats
    from specshards.ingest.catalogue.columns import ColumnAccount

#: Where a file could not be recognised.
UNKNOWN = "unrecognised"
_SHOWN_REASONS = 25
_SHOWN_CONFLICTS = 10
_SHOWN_REMARKS = 40


@dataclass
class LayoutCount:
    """Files and objects of one layout.

    Attributes:
        files: input files; `parsers` splits the recognised ones by what parsed them (`direct`, `astropy`, `parquet`).
        classes: samples by class, `unlabelled` where there is none.
        set_aside: objects that are whole but not wanted (sky, cuts); bad: objects that cannot be used.
    """

    files: int = 0
    parsers: dict[str, int] = field(default_factory=dict)
    classes: dict[str, int] = field(default_factory=dict)
    set_aside: int = 0
    bad: int = 0

    def add(self, other: LayoutCount) -> None:
        """Add the counts of `other`."""
        self.files += other.files
        self.parsers = dict(Counter(self.parsers) + Counter(other.parsers))
        self.classes = dict(Counter(self.classes) + Counter(other.classes))
        self.set_aside += other.set_aside
        self.bad += other.bad

    @property
    def samples(self) -> int:
        """Objects that became samples."""
        return sum(self.classes.values())

    @property
    def objects(self) -> int:
        """All objects; a file that could not be opened counts as one."""
        return self.samples + self.set_aside + self.bad


@dataclass(frozen=True)
class Summary:
    """The whole job's account: `objects == samples + set_aside + bad`, and every file is in one layout's row.

    Attributes:
        survey: as asked for; None for any.
        matched: samples that the catalogue lists; None without a catalogue.
        reasons: of what gave no sample, `stage: reason`.
        conflicts: samples whose file says otherwise than the catalogue, by what they say; see `catalog.conflict`.
        impossible: labels that no object can have and that are missing therefore, of all objects that were read.
        unread: values of the catalogue that are no numbers where a number belongs, and are missing therefore.
        columns: what became of the columns of the catalogue; None without one.
        repeats: samples that have one id; None where nobody has looked.
        converted: samples whose numbers are not those of the file, or whose survey is a guess, by what was done.
    """

    survey: str | None
    layouts: dict[str, LayoutCount]
    matched: int | None
    reasons: dict[str, int]
    conflicts: dict[str, int] = field(default_factory=dict)
    impossible: Impossible = field(default_factory=Impossible)
    unread: Impossible = field(default_factory=Impossible)
    columns: ColumnAccount | None = None
    repeats: Repeats | None = None
    converted: dict[str, int] = field(default_factory=dict)

    @property
    def files(self) -> int:
        """Input files."""
        return sum(count.files for count in self.layouts.values())

    @property
    def objects(self) -> int:
        """Objects in them."""
        return sum(count.objects for count in self.layouts.values())

    @property
    def samples(self) -> int:
        """Objects that became samples."""
        return sum(count.samples for count in self.layouts.values())

    @property
    def set_aside(self) -> int:
        """Objects that are whole but not wanted."""
        return sum(count.set_aside for count in self.layouts.values())

    @property
    def bad(self) -> int:
        """Objects that cannot be used."""
        return sum(count.bad for count in self.layouts.values())

    @property
    def foreign(self) -> int:
        """Of what is set aside, the objects of other parts of a joint survey."""
        from specshards.ingest.surveys.survey import foreign  # help is given without what reads files

        return sum(n for reason, n in self.reasons.items() if reason.endswith(foreign(self.survey)))

    @property
    def own(self) -> tuple[int, int]:
        """Objects that are not `foreign`, and the bad ones of them.

        Beside foreign ones a file that was not recognised counts as neither: it may be of the other part, and the
        smaller one would be refused for it.
        """
        nobodys = self.layouts.get(UNKNOWN, LayoutCount()).bad if self.foreign else 0
        return self.objects - self.foreign - nobodys, self.bad - nobodys

    @property
    def quarantined(self) -> int:
        """Rows of the quarantine file."""
        return self.set_aside + self.bad

    def table(self) -> str:
        """Plain text: a row a layout, then the reasons, then the sums."""
        classes = sorted({name for count in self.layouts.values() for name in count.classes})
        head = ["layout", "files", *classes, "samples", "set aside", "bad", "parsed by"]
        rows = [head]
        for layout, count in sorted(self.layouts.items(), key=lambda item: (item[0] == UNKNOWN, item[0])):
            parsers = ", ".join(f"{name} {n:,}" for name, n in sorted(count.parsers.items()))
            numbers = [count.files, *(count.classes.get(name, 0) for name in classes)]
            numbers += [count.samples, count.set_aside, count.bad]
            rows.append([layout, *(f"{n:,}" for n in numbers), parsers])
        totals = [self.files, *(sum(c.classes.get(name, 0) for c in self.layouts.values()) for name in classes)]
        rows.append(["total", *(f"{n:,}" for n in (*totals, self.samples, self.set_aside, self.bad)), ""])
        lines = aligned(rows, (0, len(head) - 1))
        lines += self._reasons()
        if self.matched is not None:
            lines.append(f"catalogue lists {self.matched:,} of {self.samples:,} samples")
        lines += [] if self.columns is None else self.columns.lines()
        lines += [f"conflict {n:>9,}  {what}" for what, n in Counter(self.conflicts).most_common(_SHOWN_CONFLICTS)]
        if (more := len(self.conflicts) - _SHOWN_CONFLICTS) > 0:
            lines.append(f"... and {more} more kinds of conflict in summary.json")
        lines += self.impossible.lines()
        lines += [
            f"no number  {n:>7,}  {name} of the catalogue, missing therefore: "
            f"{', '.join(value for value, _ in self.unread.examples[name])}{', ...' if n > 3 else ''}"
            for name, n in sorted(self.unread.counts.items())
        ]
        lines += [] if self.repeats is None else self.repeats.lines()
        if self.repeats is not None and self.repeats.ambiguous:
            lines[-1] += "; `shards build` sets them aside"
        lines += self._remarks()
        what = f"{self.files:,} files" + ("" if self.objects == self.files else f", {self.objects:,} objects")
        lines.append(f"{what} = {self.samples:,} samples + {self.quarantined:,} quarantined")
        return "\n".join(lines)

    def _remarks(self) -> list[str]:
        """Whatever makes a number another than that of the file, or a guess: all of it, guesses first if need be."""
        remarks = Counter(self.converted)
        if len(remarks) > _SHOWN_REMARKS:  # of many files, those that differ in a number or a name alone
            remarks = Counter()
            for what, n in self.converted.items():
                remarks[re.sub(r"\d[\d.e+-]*", "#", re.sub(r"\([^)]*\)|'[^']*'", "(...)", what))] += n
        order = remarks.most_common()
        if len(order) > _SHOWN_REMARKS:
            order.sort(key=lambda item: "guess" not in item[0])
        lines = [f"of {n:,} samples {what}" for what, n in order[:_SHOWN_REMARKS]]
        more = len(order) - len(lines)
        return [*lines, f"... and {more} more remarks in summary.json"] if more > 0 else lines

    def _reasons(self) -> list[str]:
        reasons = Counter(self.reasons)
        if len(reasons) > _SHOWN_REASONS:
            reasons = Counter()
            for reason, n in self.reasons.items():
                reasons[re.sub(r"\d[\d.e+-]*", "#", reason)] += n
        lines = [f"quarantined {n:>6,}  {reason}" for reason, n in reasons.most_common(_SHOWN_REASONS)]
        more = len(reasons) - len(lines)
        return [*lines, f"... and {more} more reasons in quarantine.parquet"] if more > 0 else lines


def add_up(parts: Iterable[dict[str, LayoutCount]]) -> dict[str, LayoutCount]:
    """The counts of all parts by layout."""
    total: dict[str, LayoutCount] = {}
    for part in parts:
        for layout, count in part.items():
            total.setdefault(layout, LayoutCount()).add(count)
    return total
