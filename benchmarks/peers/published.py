"""Our pictures beside those of the paper's public code, drawn by that code itself from the same real spectra.

specshards bench compare-published --plotter CLONE --data sdss,lamost --out benchmarks/results/published-pictures.json
specshards bench compare-published --plotter CLONE --example docs/images/published.png    # a made-up spectrum

CLONE is a clone of github.com/astromer-science/spectromer, whose `spectra_plotter.py` is run as it is: no part of it
is in this project. As its builder does, the spectrum is cut to 3536.714 < wavelength < 10413.580 A first; as its
training does, the picture is made RGB and 224 x 224 pixels. The flux is the file's, in the observed frame.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections import Counter
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import typer

from specshards.benchmarks.kit.records import Record
from specshards.benchmarks.kit.report import recording
from specshards.benchmarks.kit.samples import made_up_galaxy
from specshards.common.errors import BadObjectError, UsageError, make_folder
from specshards.common.spectrum import Arrays
from specshards.ingest.files import find_files
from specshards.ingest.surveys import read_file
from specshards.render import RenderError, preset, renderer

Picture = npt.NDArray[np.uint8]
#: Of each image type the presets that are compared: name -> the option of the published program that draws what it is
#: compared with; none of them for `simple`.
PRESETS = {
    "simple": {"paper": "", "aligned": ""},
    "overlap": {"paper": "overlapsplit", "aligned": "overlapsplit"},
    "map2d": {
        "paper": "map2d",
        "default": "map2d",
        "paper-red": "map2dnormal",
        "paper-derivatives": "map2dnormaldev",
    },
}
_OPTIONS = ("overlapsplit", "map2d", "map2dnormal", "map2dnormaldev", "map2droi")
SIDE = 224
WINDOW = (3536.714, 10413.580)


class _Column(np.ndarray[Any, np.dtype[np.float64]]):
    """A column of a table, as far as the plotter asks: an array that has `values`."""

    @property
    def values(self) -> npt.NDArray[np.float64]:
        return np.asarray(self)


class Real(NamedTuple):
    """A real spectrum, the survey that it is of, and the folder that its file lies in."""

    survey: str
    folder: str
    spectrum: Arrays


def plotter(clone: Path) -> Callable[[Arrays, str], Picture]:
    """What draws a spectrum with an option of the published code: uint8 `(224, 224, 3)`, RGB.

    Raises:
        UsageError: there is no such code in the folder, or it cannot be imported.
    """
    import matplotlib as mpl

    mpl.use("agg")
    path = clone / "spectra_plotter.py"
    if not path.is_file():
        raise UsageError(f"--plotter {clone}: no {path.name} there; give a clone of astromer-science/spectromer")
    spec = importlib.util.spec_from_file_location("spectromer_spectra_plotter", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        made = module.SpectraPlotter
    except Exception as error:  # whatever a stranger's code does
        raise UsageError(f"{path}: cannot be used ({type(error).__name__}: {error})") from error

    def draw(spectrum: Arrays, option: str) -> Picture:
        from PIL import Image

        options = SimpleNamespace(
            **{name: name == option for name in _OPTIONS}, blocksize=3, fillorder="standard", interpolate=False
        )
        inside = (spectrum.wavelength > WINDOW[0]) & (spectrum.wavelength < WINDOW[1])
        table = {
            name: np.asarray(values[inside], np.float64).view(_Column)
            for name, values in (("wavelength", spectrum.wavelength), ("flux", spectrum.flux))
        }
        picture = made(options).plot_spectra(table).convert("RGB")
        return np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR))

    return draw


def real_spectra(folders: Sequence[Path], count: int, seed: int = 0) -> list[Real]:
    """At most `count` spectra of each folder in `folders`, from the folders in it in turn, seeded.

    Raises:
        UsageError: one has none.
    """
    found = []
    for folder in folders:
        root, files = find_files(str(folder))
        by_place: dict[str, list[str]] = {}
        for index in np.random.default_rng(seed).permutation(len(files)):
            by_place.setdefault(str(Path(files[index]).parent), []).append(files[index])
        turns = [
            (place, names[k])
            for k in range(max(map(len, by_place.values()), default=0))
            for place, names in sorted(by_place.items())
            if k < len(names)
        ]
        here: list[Real] = []
        for place, name in turns:
            try:
                read = read_file(root / name)
            except BadObjectError:
                continue
            here.append(Real(read.survey, place, read.arrays()))
            if len(here) == count:
                break
        if not here:
            raise UsageError(f"{folder}: no spectra there")
        found += here
    return found


def ours(spectrum: Arrays, image: str, name: str) -> Picture:
    """Our picture of a preset: uint8 `(224, 224, 3)`, RGB."""
    drawer = renderer(preset(name, image))
    return drawer.expand(drawer.codes(*spectrum))


def alike(mine: Picture, theirs: Picture) -> tuple[float, float]:
    """Correlation of all, and structural similarity (Wang et al. 2004, IEEE TIP 13, 600; 11 x 11, sigma 1.5)."""
    import cv2

    def mean(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        blurred = cv2.GaussianBlur(values, (11, 11), 1.5)[5:-5, 5:-5]  # without windows that reach over the edge
        return np.asarray(blurred, np.float64)

    a, b = mine.astype(np.float64), theirs.astype(np.float64)
    ma, mb = mean(a), mean(b)
    va, vb, both = mean(a * a) - ma * ma, mean(b * b) - mb * mb, mean(a * b) - ma * mb
    light, contrast = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    similar = (2 * ma * mb + light) * (2 * both + contrast)
    similar /= (ma * ma + mb * mb + light) * (va + vb + contrast)
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1]), float(similar.mean())


def measure(spectra: Sequence[Real], draw: Callable[[Arrays, str], Picture]) -> tuple[list[Record], list[int]]:
    """A record for each image type, preset and survey; and the numbers of the least alike spectra, of `paper`."""
    records, worst = [], []
    surveys = list(dict.fromkeys(one.survey for one in spectra))
    for image, presets in PRESETS.items():
        found: dict[tuple[str, str], list[tuple[float, float, int]]] = {}
        left_out: Counter[str] = Counter()
        for number, (survey, _, spectrum) in enumerate(spectra):
            try:
                pictures = {name: ours(spectrum, image, name) for name in presets}
            except RenderError as error:
                left_out[f"{survey}: {error}"] += 1
                continue
            theirs = {option: draw(spectrum, option) for option in dict.fromkeys(presets.values())}
            for name, mine in pictures.items():
                found.setdefault((name, survey), []).append((*alike(mine, theirs[presets[name]]), number))
        note = "; ".join(f"{n} left out, {why}" for why, n in left_out.items())
        for name in presets:
            for survey in surveys:
                values = found.get((name, survey), [])
                about = {"ssim_median": float(np.median([s for _, s, _ in values])),
                         "ssim_least": min(s for _, s, _ in values)} if values else {}  # fmt: skip
                correlations = tuple(c for c, _, _ in values)
                records.append(Record(f"{image}, {survey}", name, correlations, "correlation", note, about=about))
                if name == "paper":
                    worst += [number for _, _, number in sorted(values)[:2]]
    return records, worst


def sheet(rows: Sequence[tuple[str, Arrays]], draw: Callable[[Arrays, str], Picture]) -> Picture:
    """A row for each captioned spectrum: of each image type ours, the published one, and ours as it is by default."""
    from specshards.render.contact_sheet import contact

    pictures = []
    for caption, spectrum in rows:
        for image, presets in PRESETS.items():
            first, second, *_ = presets
            pictures += [
                (f"{image}, {first} {caption}", ours(spectrum, image, first)),
                ("the published code", draw(spectrum, presets[first])),
                (f"{image}, {second}", ours(spectrum, image, second)),
            ]
    return contact(pictures, 3 * len(PRESETS))


def example(draw: Callable[[Arrays, str], Picture]) -> Picture:
    """Of the docs: a made-up spectrum as we draw the published pictures, as their own code does, and our default."""
    from specshards.render.contact_sheet import contact

    galaxy, rows = made_up_galaxy(), []
    for image, presets in PRESETS.items():
        first, second, *_ = presets
        rows.append([
            (f"{image}: PRESET={first}", ours(galaxy, image, first)),
            (f"{image}: the published code", draw(galaxy, presets[first])),
            (f"{image}: {second}", ours(galaxy, image, second)),
        ])  # fmt: skip
    return contact([one for column in zip(*rows, strict=True) for one in column], len(rows))


def main(
    clone: Annotated[Path, typer.Option("--plotter", help="A clone of astromer-science/spectromer.")],
    data: Annotated[str, typer.Option(help="Folders of survey files, with commas.")] = "",
    out: Annotated[Path, typer.Option(help="The JSON record; table and plot go beside it.")] = Path("published.json"),
    count: Annotated[int, typer.Option(help="Spectra of each folder.", min=1)] = 120,
    look: Annotated[Path | None, typer.Option("--sheet", help="A PNG of the least alike and of others.")] = None,
    docs: Annotated[Path | None, typer.Option("--example", help="A PNG of a made-up spectrum.")] = None,
) -> None:
    """Draw real spectra with the published code and with ours, and keep how alike the pictures are."""
    draw = plotter(clone)
    if docs is not None:
        _save(example(draw), docs)
    if not data:
        if docs is None:
            raise UsageError("give --data, folders of survey files, or --example, a PNG")
        return
    with recording("published-pictures", out) as draft:
        spectra = real_spectra([Path(folder.strip()) for folder in data.split(",")], count)
        draft.data = "mock" if any(one.survey.startswith("mock") for one in spectra) else "real"
        places = Counter(f"{one.survey}: {one.folder}" for one in spectra)
        draft.records, worst = measure(spectra, draw)
        digest = hashlib.sha256((clone / "spectra_plotter.py").read_bytes()).hexdigest()
        draft.notes += [
            f"the published code: spectra_plotter.py of sha256 {digest}, with matplotlib {version('matplotlib')}",
            "spectra by folder: " + ", ".join(f"{place} {n}" for place, n in sorted(places.items())),
        ]
    if look is not None:
        chosen = list(dict.fromkeys([*worst, *range(0, len(spectra), max(1, len(spectra) // 8))]))
        _save(sheet([(f"({spectra[i].survey})", spectra[i].spectrum) for i in chosen], draw), look)


def _save(picture: Picture, path: Path) -> None:
    import cv2

    make_folder(path.parent)
    cv2.imwrite(str(path), picture[..., ::-1])
    print(path)
