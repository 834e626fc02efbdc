"""One variant: what the readers make of it, and whether that is what the bytes say."""

from __future__ import annotations

import resource
import warnings
from contextlib import suppress
from functools import lru_cache
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from specshards.common.errors import BadObjectError, JobError, UsageError
from specshards.common.spectrum import Spectrum
from specshards.ingest.spectra.objects import objects
from specshards.ingest.surveys import open_file
from tests.fuzz.truth import Reading, readings

#: Layout of what this program writes itself, which is sealed.
OWN = "spectra-parquet"
MOST_MEMORY = 1 << 30


class Verdict(NamedTuple):
    """What became of a variant.

    Attributes:
        outcome: `sample`, `refused`, `wrong`, `crash` or `memory`; whoever watches adds `hang`.
        why: the reason of a refusal, or what is wrong.
        memory: peak bytes while it was read.
    """

    outcome: str
    why: str
    memory: int


def judge(path: Path, layout: str, original: Path) -> Verdict:
    """Read a variant of `original`, a file of `layout`.

    Args:
        path: of a redrock file, the coadd that it lies beside.
    """
    _forget_peak()
    before = peak()  # of a process that may have loaded much else
    try:
        outcome, why = (_own if layout == OWN else _survey)(path, original)
    except (BadObjectError, JobError, UsageError) as error:
        outcome, why = "refused", str(error)
    except MemoryError as error:
        return Verdict("memory", repr(error), peak())
    except Exception as error:
        return Verdict("crash", f"{type(error).__name__}: {error}"[:300], peak())
    memory = _read_peak.pop() if _read_peak else peak()
    if memory - before > MOST_MEMORY or "MemoryError" in why:
        return Verdict("memory", f"{memory / 1e6:.0f} MB; {outcome} {why}", memory)
    if outcome == "refused" and "\n" in why:
        return Verdict("crash", f"a reason of several lines: {why!r}", memory)
    return Verdict(outcome, why, memory)


_read_peak: list[int] = []


def _survey(path: Path, original: Path) -> tuple[str, str]:
    opened = open_file(path)
    items = list(opened.objects())
    _read_peak[:] = [peak()]  # before the independent reading, which has no bounds
    spectra = [item for item in items if isinstance(item, Spectrum)]
    if not spectra:
        return "refused", str(items[0]) if items else "no objects"
    why = _unlike(items, path, opened.layout)
    if why and _unlike(items, original, opened.layout):
        return "wrong", why
    return "sample", f"{len(spectra)} of {len(items)}"


def _unlike(items: list[Spectrum | BadObjectError], path: Path, layout: str) -> str:
    """Why the items are not what the file holds; empty where they are."""
    try:
        truth = readings(path, layout)
    except Exception as error:
        return " ".join(f"no independent reading: {type(error).__name__}: {error}".split())[:200]
    if len(items) != len(truth):
        return f"{len(items)} objects for {len(truth)}"
    found = [difference(item, one) for item, one in zip(items, truth, strict=True) if isinstance(item, Spectrum)]
    return next(filter(None, found), "")


def difference(spectrum: Spectrum, truth: Reading) -> str:
    """What of a spectrum is not what an independent reading gives; empty where all is."""
    ours, theirs = spectrum.flux.astype("f8") * spectrum.flux_scale, truth["flux"]
    if len(ours) != len(theirs):
        return f"{len(ours)} pixels for {len(theirs)}"
    wave = spectrum.wavelength.astype("f8")
    with np.errstate(all="ignore"):
        if not any(_close(wave, truth["wave"] * unit, 2e-7) for unit in _units(spectrum)):
            return "wavelengths"
        known = np.isfinite(theirs)
        if not _close(ours[known], theirs[known], 3e-7, 2e-38 * spectrum.flux_scale):
            return "flux"
        if np.isfinite(ours[~known]).any():
            return "flux where there is none"
        if (truth["ivar"] is None) == spectrum.has_ivar:
            return "has_ivar"
        if truth["ivar"] is None:
            return "" if np.array_equal(spectrum.mask, truth["mask"]) else "mask"
        weight, given = spectrum.ivar.astype("f8") / spectrum.flux_scale**2, truth["ivar"]
        used = weight > 0
        # Of a bad pixel ivar may be too small for float32 to hold all its digits.
        if not _close(weight[used], given[used], 3e-7, 2e-38 / spectrum.flux_scale**2):
            return "ivar"
        good = known & np.isfinite(given) & (given > 0) & ~truth["mask"]
        if good.any() and (given[good & ~used] > 1e-30 * np.median(given[good])).any():
            return "ivar: information is lost"
        if not np.array_equal(spectrum.mask, truth["mask"] | ~used):
            return "mask"
    return _labels(spectrum, truth)


def _units(spectrum: Spectrum) -> tuple[float, ...]:
    # Tables may be in nm and so on, which is told by the range.
    return (1.0, 10.0, 1e4, 1e10) if spectrum.layout.startswith("mmu") else (1.0,)


def _labels(spectrum: Spectrum, truth: Reading) -> str:
    """A label that is missing is not wrong."""
    z, label = spectrum.labels.get("z"), spectrum.labels.get("class")
    try:
        if z is not None and truth["z"] is not None and not _close(float(z), float(truth["z"]), 1e-6):
            return f"z {z} for {truth['z']}"
        # Where a table has lost one of its columns, the header has the position too.
        if not np.isnan(spectrum.ra) and truth["ra"] is not None and truth["dec"] is not None:
            if not _close(spectrum.ra, float(truth["ra"]) % 360.0, 1e-12):
                return f"ra {spectrum.ra} for {truth['ra']}"
            if not _close(spectrum.dec, float(truth["dec"]), 1e-12):
                return f"dec {spectrum.dec} for {truth['dec']}"
    except (TypeError, ValueError) as error:
        return f"labels: {error}"
    if label is not None and truth["class"] is not None:
        said = truth["class"].decode() if isinstance(truth["class"], bytes) else str(truth["class"])
        if said.strip().upper() != label:
            return f"class {label} for {said}"
    if truth["object_id"] is not None and spectrum.object_id.split("-")[0] != truth["object_id"]:
        return f"object_id {spectrum.object_id} for {truth['object_id']}"
    return ""


def _close(ours: Any, theirs: Any, relative: float, absolute: float = 0.0) -> bool:
    return bool(np.all((ours == theirs) | (np.abs(ours - theirs) <= relative * np.abs(theirs) + absolute)))


def _own(path: Path, original: Path) -> tuple[str, str]:
    """A sealed file: any damage is refused, or changes nothing."""
    found = list(_objects(path))
    _read_peak[:] = [peak()]
    if found and found[0][0] == "bad":
        return "refused", found[0][1]
    for number, (ours, theirs) in enumerate(zip_longest(found, _originals(original))):
        if ours != theirs:
            return "wrong", f"object {number} is another one"
    return "sample", str(len(found))


@lru_cache(maxsize=8)
def _originals(path: Path) -> tuple[Any, ...]:
    return tuple(_objects(path))


def _objects(path: Path) -> list[Any]:
    bad: list[dict[str, Any]] = []
    found: list[Any] = []
    for meta, arrays in objects(path, bad):
        values = [None if value is None else value.tobytes() for value in arrays]
        found.append((repr(sorted((k, v) for k, v in meta.items() if k != "source_file")), values))
    return [("bad", str(bad[0]["reason"]))] if bad else found


def peak() -> int:
    """Most bytes in memory since `_forget_peak`."""
    try:
        return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) << 10
    except (OSError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _forget_peak() -> None:
    _read_peak.clear()
    warnings.simplefilter("ignore")
    with suppress(OSError):  # not on every system: there the peak is that of all variants so far
        Path("/proc/self/clear_refs").write_text("5")
