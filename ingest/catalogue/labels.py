"""Label tables, joined on the survey's key: of a prepared catalogue (`prepared`) every worker maps the same pages.

Where a catalogue has a value it wins over the file's header (they differ in places: subclass, |dz| up to 2e-3), its
error goes with it, and `label_source` records the choice.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from specshards.common.errors import BadObjectError, JobError
from specshards.common.identity import SAME_ARCSEC, separation
from specshards.common.spectrum import SN_SURVEY, Spectrum, sift, survey_sn_of
from specshards.ingest.catalogue.columns import ERRORS, LABELS, POSITION, SN
from specshards.ingest.catalogue.prepared import bucket_of
from specshards.ingest.stems import stem_of


class Catalogue:
    """A prepared catalogue, opened by memory map."""

    def __init__(self, path: Path) -> None:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        # Stays in the mapped file: as Python strings the keys would cost each worker a hundred bytes a row.
        self._buckets = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        self.columns = tuple(name for name in reader.schema.names if name != "key")
        # Of what a file may know to be of a failed fit; see `prepared`.
        metadata = {field.name: field.metadata or {} for field in reader.schema}
        self._fitted = {name: said[b"column"].decode() for name, said in metadata.items() if b"column" in said}
        self._further = {name: said[b"further"].decode() for name, said in metadata.items() if b"further" in said}
        self._units = {name: unit for name, unit in self._further.items() if unit}
        said = (reader.schema.metadata or {}).get(b"stem", b"").decode()
        self._depth = 1 if said == "yes" else int(said or 0)  # of names of files; 0: of other keys
        self._doubt = (reader.schema.metadata or {}).get(b"doubt", b"").decode()

    def __len__(self) -> int:
        """Number of rows."""
        return sum(bucket.num_rows for bucket in self._buckets)

    def lookup(self, key: str) -> dict[str, Any] | None:
        """The row of one object, missing values as None; None where the object is not listed."""
        bucket = self._buckets[bucket_of(key, len(self._buckets))]
        keys = bucket.column("key")
        at = bisect_left(range(len(keys)), key, key=lambda i: keys[i].as_py())
        if at == len(keys) or keys[at].as_py() != key:
            return None
        return {name: bucket.column(name)[at].as_py() for name in self.columns}

    def apply(self, spectrum: Spectrum) -> bool:
        """Overwrite the labels of `spectrum` where the catalogue has a value; False where it lists no such object.

        What no object can have is no value; it is told in `Spectrum.impossible`. Nor is what is of a fit that failed,
        as the file tells (`Spectrum.fit`).

        A position fills in where the file has none; the other columns, kept for selection cuts, become `extra`. What
        the file itself says of the class stays there too, as `file_class` and `file_subclass`.

        Raises:
            BadObjectError: the catalogue has this id at another place than the file: one of them has a wrong id.
        """
        row = self.lookup(spectrum.object_id)
        if row is None and self._depth:
            names = [spectrum.object_id, *([spectrum.source_file] if spectrum.row is None else [])]
            # A name without its folder is nobody's where it is that of files in two folders.
            depths = (self._depth,) if "/" in spectrum.object_id or self._depth == 1 else (self._depth, 1)
            row = next(filter(None, (self.lookup(stem_of(name, d) or "") for d in depths for name in names)), None)
        if row is None:
            return False
        fit = spectrum.fit
        if fit is not None and fit.failed is not None:
            row |= dict.fromkeys(name for name, column in self._fitted.items() if column in fit.columns)
        impossible = sift(row)
        known = {name: value for name, value in row.items() if value is not None}
        if known.keys() >= set(POSITION):
            ra, dec = known["ra"] % 360.0, known["dec"]
            if math.isnan(spectrum.ra):
                spectrum.ra, spectrum.dec = ra, dec
            elif (apart := float(separation(ra, dec, spectrum.ra, spectrum.dec))) > SAME_ARCSEC:
                raise BadObjectError(
                    f"{spectrum.object_id} is at {spectrum.ra:.4f} {spectrum.dec:+.4f}, in the catalogue at {ra:.4f} "
                    f"{dec:+.4f}, {apart / 3600:.2g} degrees from there: its labels are another object's",
                    kind="at another place than in the catalogue: its labels are another object's",
                )
        labels = self._labels(known)
        if "class" in impossible:  # its subclass is not one of the file's class
            labels.pop("subclass", None)
        signal = {name: value for name, value in known.items() if name in SN}
        if (sn := survey_sn_of(signal)) is not None:
            signal[SN_SURVEY] = sn
            spectrum.survey_sn |= signal
        else:
            signal = {}
        for name in (*labels, *signal):  # the file's may have been impossible; it is not needed any more
            spectrum.impossible.pop(name, None)
        spectrum.impossible |= impossible
        for name in ("class", "subclass"):
            if (said := spectrum.labels.get(name)) is not None:
                spectrum.extra[f"file_{name}"] = said
        ours = spectrum.labels.get("class")
        if ours not in (None, labels.get("class", ours)) and spectrum.labels.get("subclass") is not None:
            labels.setdefault("subclass", None)  # the file's is one of another class
        if self._doubt and fit is None and any(labels.get(name) is not None for name in self._fitted):
            spectrum.remarks += (self._doubt,)
        spectrum.labels.update(labels)
        if more := {name: known[name] for name in self._further if name in known}:
            spectrum.labels.update(more)
            spectrum.units = {**spectrum.units, **self._units}
            labels |= more
        spectrum.extra.update({name: value for name, value in known.items() if name not in LABELS})
        if any(value is not None for value in labels.values()):
            spectrum.label_source = "catalogue"
        return True

    def _labels(self, known: Mapping[str, Any]) -> dict[str, Any]:
        """What replaces the file's labels. A value and its error are of one source, and None replaces an error, too.

        The file's error stays only where the catalogue has no such column: cuts ask for errors (LAMOST's `paper`).
        """
        labels = {name: value for name, value in known.items() if name in LABELS}
        for value, error in ERRORS.items():
            if value not in labels:
                labels.pop(error, None)
            elif error in self.columns:
                labels[error] = known.get(error)
        return labels


def conflict(spectrum: Spectrum) -> str | None:
    """How the catalogue's class, or else its spectral type (the subclass's first letter), differs from the file's.

    Both may be right: a pipeline's later version, a border between types. A star that is K in its file and A in the
    catalogue is a sign of a wrong join or a wrong row.
    """
    for name, told in (("class", str), ("subclass", lambda value: str(value).strip()[:1])):
        theirs, ours = spectrum.extra.get(f"file_{name}"), spectrum.labels.get(name)
        if theirs and ours and told(theirs) != told(ours):
            what = "class" if name == "class" else "type"
            return f"{what} {told(theirs)} in the file, {told(ours)} in the catalogue"
    return None


@lru_cache(maxsize=1)
def open_catalogue(path: Path) -> Catalogue:
    """The prepared catalogue at `path`, opened once a process."""
    return Catalogue(path)


def is_foreign(matched: int, objects: int) -> bool:
    """Whether a catalogue lists so few of the objects that it must be another one's."""
    return objects > 0 and matched < objects / 2


def check_matches(matched: int, objects: int, catalogue: Path, examples: Sequence[str]) -> None:
    """Refuse a join that matched under half of the objects: the key is probably another one.

    Raises:
        JobError: with examples of keys that were not found.
    """
    if is_foreign(matched, objects):
        raise JobError(
            f"{catalogue}: lists only {matched} of {objects} objects (missing, for example, "
            f"{', '.join(examples[:3])}); give the catalogue of this release, or none"
        )
