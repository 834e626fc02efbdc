"""Several data sets as one: what no manifest can know, because each counts its own samples alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from specshards.common.errors import UsageError
from specshards.common.files import location
from specshards.common.identity import among, id_hashes, repeated
from specshards.common.text import count
from specshards.shards.format.archive import read_sidecars
from specshards.shards.format.leaks import Leaks
from specshards.shards.format.manifest import SPLITS, Manifest


def check_distinct(folders: Sequence[str | Path], manifests: Sequence[Manifest]) -> None:
    """Raise UsageError where one data set is there twice, in one folder or in a copy of it."""
    seen: dict[str, str | Path] = {}
    for folder, manifest in zip(folders, manifests, strict=True):
        mark = manifest.fingerprint()
        if mark in seen:
            where = "is there twice" if str(seen[mark]) == str(folder) else f"holds the same data set as {seen[mark]}"
            raise UsageError(f"{folder}: {where}, and every spectrum would count twice; name it once")
        seen[mark] = folder


@dataclass(frozen=True)
class Joint:
    """Counts over all samples of one data set or several.

    Attributes:
        leaks: what of one object is in several splits, in whichever set.
        shared: spectra under an id that several of the sets have.
    """

    leaks: Leaks
    shared: int

    @classmethod
    def count(cls, folders: Sequence[str | Path], manifests: Sequence[Manifest]) -> Joint:
        """From positions and ids beside the shards.

        Raises:
            JobError: a damaged table.
        """
        ra, dec, splits, ids = [], [], [], []
        rows = 0
        for folder, manifest in zip(folders, manifests, strict=True):
            own = [np.empty(0, np.uint64)]
            for place, split in enumerate(SPLITS):
                if not manifest.samples(split):
                    continue
                names = ["ra", "dec", "survey", "object_id"]
                table = read_sidecars([location(folder)], [manifest], split, names, verify=False)
                own.append(id_hashes(table["survey"], table["object_id"], rows))
                ra.append(table["ra"].to_numpy())
                dec.append(table["dec"].to_numpy())
                splits.append(np.full(len(table), place, np.int8))
                rows += len(table)
            ids.append(np.concatenate(own))
        hashes = np.concatenate(ids)
        if not len(hashes):
            return cls(Leaks(0, 0, 0, 0, 0, 0), 0)
        leaks = Leaks.count(np.concatenate(ra), np.concatenate(dec), hashes, np.concatenate(splits))
        return cls(leaks, int(among(hashes, repeated([np.unique(own) for own in ids])).sum()))

    @property
    def lines(self) -> list[str]:
        """What is to be said of sets that are taken together; nothing where all is well."""
        found = [f"together: {self.leaks.what}"] if self.leaks.divided else []
        if self.shared:
            spectra = count(self.shared, "spectrum has", "spectra have")
            found.append(f"together: {spectra} an id that another of the data sets has too, and may count twice")
        return found
