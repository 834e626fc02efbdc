"""How many samples were split by what, where that is not the sky alone."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from specshards.common.text import count, printable


@dataclass(frozen=True)
class SplitCounts:
    """Counts of a data set of which some samples have no position, or that is split by a group.

    Attributes:
        by_id: samples that go by survey and object_id: without a position, or without a value of the group.
        by_group: samples that go by the value of the group's column; groups: how many values those have.
    """

    by_id: int
    by_group: int = 0
    groups: int = 0

    def by_position(self, samples: int) -> str:
        """What of a split by sky or by object goes by id, in words."""
        if self.by_id == samples:
            return "no sample has a position: all go by object_id, and those of one id fall together"
        has = "sample has" if self.by_id == 1 else "samples have"
        return f"{self.by_id:,} of {samples:,} {has} no position, and go by object_id"

    def by_value(self, group: str) -> str:
        """What of a split by a group goes by its values, in words."""
        values = count(self.groups, "value", "values")
        text = (
            f"split by {printable(group)}: {count(self.by_group, 'sample', 'samples')} of {values}, each in one split"
        )
        if self.by_id:
            text += f"; {count(self.by_id, 'sample', 'samples')} without a value by object_id"
        return text

    def check(self, samples: int, group: str | None) -> None:
        """ValueError for counts that cannot be."""
        whole = self.by_id + self.by_group == samples if group is not None else 0 < self.by_id <= samples
        if min(asdict(self).values()) < 0 or not whole or not self.groups <= self.by_group * (group is not None):
            raise ValueError(f"split_counts: {asdict(self)} of {samples} samples are not possible")
