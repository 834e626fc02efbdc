"""Which rank works on which batch of an epoch: the next batch goes to the next rank, turn by turn.

The batches of an epoch are numbered over all ranks, so that a position is one number, whatever the number of ranks:
two ranks with batches of 16 see together what one rank with batches of 32 sees.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Deal:
    """How the batches of one epoch are dealt.

    Attributes:
        samples: of the epoch. size: of a batch.
        ranks: how many work at once.
        per_step: batches that belong together: no rank is given one of the next before these are dealt.
        stretches: 0, or the ranks of a state that was saved when each still had a stretch of the epoch of its own;
            such an epoch goes on in that order.
    """

    samples: int
    size: int
    ranks: int
    per_step: int
    stretches: int = 0

    @property
    def batches(self) -> int:
        """Of the epoch, over all ranks."""
        each = self.stretches or 1
        return each * -(-self.samples // (self.size * each))

    def __len__(self) -> int:
        """Turns of the epoch: batches of every rank, the same number on each."""
        steps, rest = divmod(self.batches, self.per_step)
        return steps * -(-self.per_step // self.ranks) + -(-rest // self.ranks)

    def after(self, done: int) -> int:
        """Batches done after the next turn, in which rank r has batch `done + r` or, beyond this number, none."""
        return min(done + self.ranks, (done // self.per_step + 1) * self.per_step, self.batches)

    def span(self, number: int) -> tuple[int, int]:
        """The positions of a batch in the epoch's order: first, and one beyond the last."""
        begin, end = 0, self.samples
        if self.stretches:
            number, rank = divmod(number, self.stretches)
            begin, end = (self.samples * r // self.stretches for r in (rank, rank + 1))
        start = min(begin + number * self.size, end)
        return start, min(start + self.size, end)
