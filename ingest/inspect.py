"""`specshards ingest inspect`: what a file or a folder of spectra holds, in words, in a table and in one picture.

Files are opened by the readers that `build` uses, so what is said here is what an ingest job would find; spectra
Parquet that this program wrote is opened besides.
"""

from __future__ import annotations

import random
import re
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from math import inf, isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from specshards.common.errors import BadObjectError, JobError, UsageError, make_folder
from specshards.common.files import replacing
from specshards.common.text import aligned, escaped
from specshards.ingest.facts import facts
from specshards.ingest.job.summary import UNKNOWN, LayoutCount
from specshards.ingest.limits import parse_size

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from specshards.common.spectrum import Spectrum
    from specshards.ingest.surveys import Opened
    from specshards.ingest.tables import Stated, TableFile

#: Layout of the Parquet files that `build` and `mock` write, and the columns that only those have.
OWN = "spectra-parquet"
_OWN_COLUMNS = (
    "release", "layout", "label_source", "wave_coeff0", "wave_coeff1", "source_file", "flux_unit", "flux_scale",
    "wave_source", "frame",
)  # fmt: skip

_SHOWN = 5  # objects of one file
_SHOWN_REASONS = 12
_MOST_DRAWN = 60
_KNOWN = ("class", "z", "teff", "logg", "feh", "position")


def command(
    what: Annotated[str, typer.Argument(metavar="FILE|FOLDER|GLOB", help="Survey files or spectra; quote a glob.")],
    png: Annotated[Path | None, typer.Option(help="Picture to write. Default: NAME.png in this folder.")] = None,
    row: Annotated[int | None, typer.Option(help="Of a file of many: only this object, counted from 0.")] = None,
    n: Annotated[int, typer.Option("--n", help="Of a folder: so many random spectra in the picture; 0: none.")] = 12,
    max_files: Annotated[int, typer.Option(help="Of a folder: look at a random choice of so many files.")] = 2000,
    seed: Annotated[int, typer.Option(help="Of the random choices.")] = 0,
    max_file_size: Annotated[str | None, typer.Option(help="Of a FITS file, uncompressed, such as 2GB.")] = None,
    columns: Annotated[str | None, typer.Option(help="As of build: wavelength, flux, error.")] = None,
    wavelengths: Annotated[str | None, typer.Option(help="As of build: first:last:step.")] = None,
    wavelength_unit: Annotated[str | None, typer.Option(help="As of build.")] = None,
    unit: Annotated[str | None, typer.Option(help="As of build: of the flux.")] = None,
    medium: Annotated[str | None, typer.Option(help="As of build: vacuum or air.")] = None,
    frame: Annotated[str | None, typer.Option(help="As of build: observed or rest.")] = None,
    name: Annotated[str | None, typer.Option(help="As of build: of the survey.")] = None,
) -> None:
    """Say what a file of spectra is, or what a folder of them holds, and draw it."""
    from specshards.ingest.surveys.stated import check_spectra_stated
    from specshards.ingest.surveys.wavelengths import check_stated
    from specshards.ingest.tables import Stated

    path = Path(what).expanduser()
    if png is not None and png.suffix.lower() != ".png":
        raise UsageError(f"--png {png}: give a name that ends in .png")
    if row is not None and (row < 0 or not path.is_file()):
        raise UsageError(f"--row {row}: rows are counted from 0, in one file")
    if not 0 <= n <= _MOST_DRAWN:
        raise UsageError(f"--n {n}: give a number of spectra from 0 to {_MOST_DRAWN}")
    if max_files < 1 or seed < 0:
        raise UsageError(f"--max-files {max_files} --seed {seed}: give at least one file, and a seed of 0 or more")
    most_bytes = None if max_file_size is None else parse_size(max_file_size)
    stated = Stated(wavelength_unit, medium, columns, unit, frame, name, wavelengths)
    check_stated(wavelength_unit, medium)
    check_spectra_stated(stated)
    if path.is_file():
        inspect_file(path, png, row, most_bytes, stated)
    else:
        inspect_folder(what, png, n, max_files, seed, most_bytes, stated)


def inspect_file(
    path: Path, png: Path | None = None, row: int | None = None, most_bytes: int | None = None,
    stated: Stated | None = None,
) -> None:  # fmt: skip
    """Print what `path` is and what its first objects are, and draw the first usable one; or all that of `row`.

    Raises:
        JobError: nothing in it (or not that row) can be used, and why. UsageError: it has no such row.
    """
    from specshards.ingest.spectra import plots

    contents = Contents(most_bytes=most_bytes, stated=stated)
    opened = contents.look(path, row, few=True)
    ((layout, of_layout),) = contents.layouts.items()
    if row is not None and contents.rows and not contents.shown:
        raise UsageError(f"--row {row}: {path} has rows 0 to {contents.rows - 1}")
    usable = [(number, item) for number, item in contents.shown if not isinstance(item, BadObjectError)]
    if opened is None or not usable:
        which = "nothing in it can be used" if row is None else f"row {row}"
        why = "; ".join(f"{n:,} x {why}" if n > 1 else why for why, n in contents.reasons.most_common(3))
        raise JobError(f"{path}: {layout}: {which}: {why or 'no objects'}")
    number, spectrum = usable[0]
    count, many = of_layout.count, contents.rows > 1
    looked = "" if count.objects == contents.rows else f"; of the {count.objects:,} looked at"
    print(f"file        {path}, {path.stat().st_size:,} bytes, {opened.parser} parser")
    print(f"what        {opened.survey}, layout {layout}, release {spectrum.release or 'not said'}")
    print(f"objects     {contents.rows:,}{looked}: {_counts(count)}")
    print("\n".join([*contents.why(), *_about(contents.shown)]))
    figure = plots.one(spectrum, f" (row {number})" if many else "")
    _save(figure, png or _default_png(path.name), f"row {number}")


def inspect_folder(
    what: str, png: Path | None, n: int, max_files: int, seed: int, most_bytes: int | None = None,
    stated: Stated | None = None,
) -> None:  # fmt: skip
    """Print what the files of a folder or glob hold, by layout, and draw `n` random spectra of them.

    Raises:
        JobError: nothing in them can be used. UsageError: no files there.
    """
    from tqdm import tqdm

    from specshards.ingest.files import find_files
    from specshards.ingest.spectra import plots
    from specshards.ingest.surveys import takes_text

    root, names = find_files(what, "PATH", text=takes_text(None))
    if len(names) > max_files:
        print(f"a random {max_files:,} of {len(names):,} files (seed {seed}; more with --max-files)")
        names = sorted(random.Random(seed).sample(names, max_files))
    contents = Contents(n, seed, most_bytes, stated)
    for name in tqdm(names, desc="inspect", unit="file", disable=None):
        contents.look(root / name)
    print("\n".join([*contents.tables(), *contents.why()]))
    total = contents.total()
    print(f"{total.files:,} files, {total.objects:,} objects: {_counts(total)}")
    if not total.samples:
        raise JobError(f"{what}: nothing in its {len(names):,} files can be used")
    if contents.drawn:
        where = escaped(root.resolve().name) or "spectra"
        title = f"{len(contents.drawn)} random spectra of {total.samples:,} in {where}"
        _save(plots.many(contents.drawn, title), png or _default_png(where), title)


def _counts(count: LayoutCount) -> str:
    return f"{count.samples:,} usable, {count.set_aside:,} set aside, {count.bad:,} bad"


def _read_rows(file: TableFile, layout: str, source_file: str, first: int = 0) -> Iterator[Spectrum | BadObjectError]:
    """Every row of a table, our own kind too, from `first` on; row groups that end before it are not decoded.

    Blocks of `ingest.spectra.blocks` would not do: they are of numbers and of whole row groups, and have neither the
    release, layout and label source of a row, nor an order between good rows and bad ones.
    """
    from specshards.ingest.surveys import multimodal_universe as mmu

    columns = mmu.Columns.of(file)
    if columns is None:
        raise BadObjectError("lacks the columns of spectra")
    kept = [name for name in _OWN_COLUMNS if layout == OWN and name in file.names]
    stop = 0
    for group, rows in enumerate(file.groups):
        start, stop = stop, stop + rows
        number = max(start, first)
        if number >= stop:
            continue
        for table in file.slices({*columns.all, *kept}, columns.inside, group, number - start):
            values = table.select(kept).to_pylist()
            for index, item in enumerate(mmu.spectra(table, columns, source_file, number)):
                for name in kept if not isinstance(item, BadObjectError) else ():
                    setattr(item, name, values[index][name])
                yield item
            number += len(table)


def open_any(path: Path, first: int = 0, most_bytes: int | None = None, stated: Stated | None = None) -> Opened:
    """Open a file that `build` reads, or spectra Parquet that it wrote.

    Args:
        first: of a table, the first row to read.
        most_bytes, stated: see `ingest.surveys.open_file`.

    Raises:
        BadObjectError: damaged, empty or foreign. OSError: the environment (permission).
    """
    from specshards.ingest.surveys import Opened, open_file
    from specshards.ingest.surveys import multimodal_universe as mmu
    from specshards.ingest.tables import UNSTATED

    try:
        opened = open_file(path, stated=stated or UNSTATED, most_bytes=most_bytes)
    except BadObjectError:
        own = _own(path)
        if own is None:
            raise
        opened = Opened(own[1], OWN, own[0], mmu.READER, str(path))
    if opened.reader is mmu.READER:
        opened.reader = replace(mmu.READER, read=partial(_read_rows, first=first))
    elif opened.reader.takes == "table":
        read = opened.reader.read
        opened.reader = replace(opened.reader, read=lambda *of_file: islice(read(*of_file), first, None))
    return opened


def _own(path: Path) -> tuple[TableFile, str] | None:
    """Spectra Parquet of this program and whose spectra it holds; None for any other file."""
    from pyarrow import ArrowException

    from specshards.ingest.surveys import multimodal_universe as mmu
    from specshards.ingest.tables import TableFile

    try:
        file = TableFile.open(path) if path.is_file() and TableFile.is_parquet(path) else None
        return None if file is None or not mmu.is_own(file) else (file, mmu.survey_of(file))
    except (ArrowException, OSError) as error:
        raise BadObjectError(f"unreadable file: {type(error).__name__}: {str(error)[:200]}") from error


@dataclass
class _Layout:
    """What there is of one layout; `sn` takes 4 bytes an object, and nothing else grows."""

    count: LayoutCount = field(default_factory=LayoutCount)
    surveys: set[str] = field(default_factory=set)
    wave: tuple[float, float] = (inf, -inf)
    pixels: tuple[float, float] = (inf, -inf)
    sn: array[float] = field(default_factory=lambda: array("f"))
    known: Counter[str] = field(default_factory=Counter)

    def take(self, spectrum: Spectrum) -> None:
        label, wave, n = spectrum.labels.get("class") or "unlabelled", spectrum.wavelength, len(spectrum.flux)
        self.count.classes[label] = self.count.classes.get(label, 0) + 1
        self.surveys.add(spectrum.survey)
        self.wave = min(self.wave[0], float(wave[0])), max(self.wave[1], float(wave[-1]))
        self.pixels = min(self.pixels[0], n), max(self.pixels[1], n)
        values = {**spectrum.labels, "position": None if isnan(spectrum.ra) else spectrum.ra}
        self.known.update(name for name in _KNOWN if values.get(name) is not None)
        if (sn := spectrum.sn_median()) is not None:
            self.sn.append(sn)

    def ranges(self) -> list[str]:
        """Coverage, pixels, S/N quartiles."""
        from numpy import percentile

        if not self.surveys:
            return ["", "", ""]
        quartiles = " / ".join(f"{q:.1f}" for q in percentile(self.sn, [25, 50, 75])) if self.sn else "no ivar"
        return [f"{self.wave[0]:.1f} to {self.wave[1]:.1f}", f"{self.pixels[0]:,} to {self.pixels[1]:,}", quartiles]


class Contents:
    """What files hold: every file in one layout's row, every object usable, set aside or bad.

    Attributes:
        drawn: a uniform random choice of `n` of the usable spectra.
        shown: row and object of the first few and of the first usable one; no other spectrum is kept.
        rows: objects in the file looked at last.
    """

    def __init__(
        self, n: int = 0, seed: int = 0, most_bytes: int | None = None, stated: Stated | None = None
    ) -> None:
        self.layouts: dict[str, _Layout] = {}
        self.reasons: Counter[str] = Counter()
        self.drawn: list[Spectrum] = []
        self.shown: list[tuple[int, Spectrum | BadObjectError]] = []
        self.rows = self._usable = 0
        self._n, self._random, self._most_bytes, self._stated = n, random.Random(seed), most_bytes, stated

    def look(self, path: Path, row: int | None = None, few: bool = False) -> Opened | None:
        """Take in a file, or only its `row`; with `few`, of a table no more rows than `shown` needs.

        Returns None for a file that cannot be opened. OSError: the environment (permission).
        """
        opened, self.rows = None, 0
        try:
            opened = open_any(path, row or 0, self._most_bytes, self._stated)
            name, is_table = opened.layout, opened.reader.takes == "table"
            for number, item in enumerate(opened.objects(), (row or 0) if is_table else 0):
                self.rows = number + 1
                if row in (None, number):
                    self._take(number, item, name)
                # A table knows its number of rows; a FITS file is read to its end to count them.
                if is_table and (row == number or (few and self._usable and len(self.shown) >= _SHOWN)):
                    break
        except BadObjectError as error:
            name = opened.layout if opened else error.layout or UNKNOWN
            self._take(self.rows, error, name)
        if opened and opened.reader.takes == "table":
            self.rows = opened.file.rows
        self.layouts.setdefault(name, _Layout()).count.files += 1
        return opened

    def _take(self, number: int, item: Spectrum | BadObjectError, name: str) -> None:
        layout = self.layouts.setdefault(name, _Layout())
        if isinstance(item, BadObjectError):
            layout.count.set_aside += item.selected_out
            layout.count.bad += not item.selected_out
            # Numbers apart, many reasons are one; memory must not grow with them.
            why = _verdict(item)
            self.reasons[why if len(self.reasons) < 1000 else re.sub(r"\d[\d.e+-]*", "#", why)] += 1
        else:
            layout.take(item)
            self._usable += 1
            if len(self.drawn) < self._n:
                self.drawn.append(item)
            elif (place := self._random.randrange(self._usable)) < self._n:
                self.drawn[place] = item
        if len(self.shown) < _SHOWN or (self._usable == 1 and not isinstance(item, BadObjectError)):
            self.shown.append((number, item))

    def total(self) -> LayoutCount:
        """The counts of all layouts together."""
        total = LayoutCount()
        for layout in self.layouts.values():
            total.add(layout.count)
        return total

    def why(self) -> list[str]:
        """A line for each reason of what cannot be used, the most frequent first."""
        lines = [f"  {n:>7,}   {why}" for why, n in self.reasons.most_common(_SHOWN_REASONS)]
        more = len(self.reasons) - len(lines)
        return [*lines, f"            and {more:,} more reasons"] if more > 0 else lines

    def tables(self) -> list[str]:
        """By layout: files, objects and classes; then coverage in Angstrom, pixels, S/N and what is known."""
        classes = sorted({name for layout in self.layouts.values() for name in layout.count.classes})
        counts = [["layout", "files", "objects", *classes, "set aside", "bad", "survey"]]
        ranges = [["layout", "Angstrom", "pixels", "S/N quartiles", *(f"with {name}" for name in _KNOWN)]]
        for title, layout in [*sorted(self.layouts.items()), ("total", _Layout(self.total()))]:
            count = layout.count
            numbers = [count.files, count.objects, *(count.classes.get(c, 0) for c in classes)]
            numbers += [count.set_aside, count.bad]
            counts.append([title, *(f"{n:,}" for n in numbers), ", ".join(sorted(layout.surveys))])
            if layout.surveys:
                ranges.append([title, *layout.ranges(), *(f"{layout.known[name]:,}" for name in _KNOWN)])
        return [*aligned(counts), "", *(aligned(ranges) if len(ranges) > 1 else ()), ""]


def _verdict(error: BadObjectError) -> str:
    return f"{'set aside' if error.selected_out else 'bad'}: {error.reason}"


def _about(shown: Sequence[tuple[int, Spectrum | BadObjectError]]) -> Iterator[str]:
    for number, item in shown:
        if isinstance(item, BadObjectError):
            yield f"\nrow {number:<8}{_verdict(item)}"
        else:
            yield f"\nrow {number:<8}object {item.object_id}"
            yield from (f"  {name:<9} {value}" for name, value in facts(item).items())


def _default_png(name: str) -> Path:
    stem = re.sub(r"(\.(fits?|gz|parquet|hdf5|h5))+$", "", name, flags=re.IGNORECASE)
    return Path(f"{stem or 'spectra'}.png")


def _save(figure: Figure, png: Path, what: str) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    make_folder(png.parent)
    with replacing(png) as temporary:
        FigureCanvasAgg(figure).print_png(temporary, metadata={"Software": None})
    print(f"\ndrawn       {what}, in {png}")
