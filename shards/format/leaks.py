"""What a split by row, or by a group, tears apart: spectra of one object in several splits.

A test is then in part of what was learnt.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from specshards.common.identity import SAME_ARCSEC, Floats, Hashes, separation
from specshards.common.sky import groups
from specshards.common.text import count
from specshards.shards.format.layout import SPLITS


@dataclass(frozen=True)
class Leaks:
    """Counts of a data set that is split by row or by a group, or of several data sets together.

    An object is what one id of a survey names, and all within two arcseconds of it, in another survey too.

    Attributes:
        visited: objects with several spectra; divided: those of them that have spectra in several splits.
        val, test: spectra of the split; val_seen, test_seen: those of an object that train has a spectrum of.
    """

    visited: int
    divided: int
    val: int
    val_seen: int
    test: int
    test_seen: int

    @classmethod
    def count(cls, ra: Floats, dec: Floats, ids: Hashes, splits: npt.NDArray[np.int8]) -> Leaks:
        """Of samples: all `(n,)`, in any order.

        Args:
            ra, dec: degrees, NaN where there is none.
            ids: hashes of survey and id (`common.identity.id_hashes`). splits: positions in `SPLITS`.
        """
        order = np.lexsort((np.isnan(ra), ids))  # of one id, what has a position first
        one, next_one = order[:-1], order[1:]
        near = ~(separation(ra[one], dec[one], ra[next_one], dec[next_one]) > SAME_ARCSEC)
        linked = (ids[one] == ids[next_one]) & near
        objects = groups(ra, dec, links=(one[linked], next_one[linked]))
        spectra = np.bincount(len(SPLITS) * objects + splits, minlength=len(SPLITS) * len(objects))
        spectra = spectra.reshape(-1, len(SPLITS))
        is_seen = spectra[objects, 0] > 0
        in_split = [splits == position for position in range(len(SPLITS))]
        return cls(
            int((spectra.sum(axis=1) > 1).sum()), int(((spectra > 0).sum(axis=1) > 1).sum()),
            *(int(n) for members in in_split[1:] for n in (members.sum(), (members & is_seen).sum())),
        )  # fmt: skip

    @property
    def text(self) -> str:
        """One line on a data set that is split by row."""
        return self.said("row")

    def said(self, rule: str) -> str:
        """One line on a data set that is split by `rule`."""
        return f"split by {rule}: {self.what}"

    @property
    def what(self) -> str:
        """The counts in words, whatever the rule of the split."""
        if not self.divided:
            return "no object has spectra in more than one split"
        objects = count(self.visited, "object", "objects")
        return (
            f"{self.divided:,} of {objects} with several spectra have them in more than one split; "
            f"{self.test_seen:,} of {self.test:,} test spectra and {self.val_seen:,} of {self.val:,} val spectra "
            "have another of their object in train, which flatters what is measured on them"
        )

    def check(self) -> None:
        """ValueError for counts that cannot be."""
        pairs = ((self.divided, self.visited), (self.val_seen, self.val), (self.test_seen, self.test))
        if not all(0 <= part <= whole for part, whole in pairs):
            raise ValueError(f"leaks: {asdict(self)} are not possible")
