"""`specshards bench render` (`make bench-render`): drawing on one core, beside a memset of the picture's bytes.

The floor is what it costs to write the 150,528 bytes of one picture of a batch that no cache holds (`memset`); the
renderers write to the same memory. The same memset into one picture that stays in the cache stands beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numba
import numpy as np
import typer

from specshards.benchmarks.kit.records import Record, interleave
from specshards.benchmarks.kit.report import LOCAL, Out, Quick, Rounds, recording
from specshards.benchmarks.kit.samples import made_up_galaxy, read_spectra
from specshards.benchmarks.peers.matplotlib_reference import IMAGES, figure
from specshards.render import ImageConfig, preset, renderer
from specshards.render.prepare import as_arrays

Work = Callable[[], int]
#: Pictures of the batch that is written to: 154 MB.
PICTURES = 1024
SIZE = 224
#: Batches in a row: caches hold what the contender before left, and a second core takes milliseconds to wake up.
REPEATS = 10
#: Targets as ratios to the memset, of the median over rounds.
TARGETS = {"map2d codes": 0.8, "map2d RGB": 2.5, "simple codes": 5.0, "overlap codes": 12.0}


def end_to_end(spectra: list[Any]) -> dict[str, Any]:
    """Spectra as `Renderer.codes_batch` takes them; those of one grid share its wavelengths, as in a shard."""
    arrays = [as_arrays(*spectrum) for spectrum in spectra]
    grids: dict[bytes, int] = {}
    wavelengths: list[Any] = []
    waves = []
    for _, _, wavelength, _ in arrays:
        if wavelength.tobytes() not in grids:
            grids[wavelength.tobytes()] = sum(map(len, wavelengths))
            wavelengths.append(wavelength)
        waves.append(grids[wavelength.tobytes()])
    return {
        "flux": np.concatenate([one[0] for one in arrays]), "ivar": np.concatenate([one[1] for one in arrays]),
        "wavelength": np.concatenate(wavelengths), "mask": np.concatenate([one[3] for one in arrays]),
        "offsets": np.cumsum([0, *(len(one[0]) for one in arrays)]), "waves": np.array(waves),
    }  # fmt: skip


def memsets(pictures: Any) -> dict[str, Work]:
    """The two floors."""
    warm = pictures[0]

    def batch() -> int:
        for picture in pictures:
            picture.fill(7)
        return len(pictures)

    def cached() -> int:
        for _ in range(len(pictures)):
            warm.fill(7)
        return len(pictures)

    return {"memset": batch, "memset, in cache": cached}


def drawers(spectra: list[Any], pictures: Any, published: bool = False) -> dict[str, Work]:
    """Each image's codes and RGB over a batch of spectra, and each preset's codes; or each as published and not."""
    batch = end_to_end(spectra)
    contenders: dict[str, Work] = {}

    def add(name: str, config: ImageConfig, rgb: bool) -> None:
        drawer, count = renderer(config), len(spectra)
        # Codes are pictures already for the lines: they go to the pictures' memory too.
        space = pictures.reshape(-1)[: count * int(np.prod(drawer.code_shape))]
        codes = (
            space.reshape(count, *drawer.code_shape) if not rgb else np.empty((count, *drawer.code_shape), np.uint8)
        )
        out = pictures[:count].reshape(count, SIZE, SIZE, 3)

        def draw() -> int:
            for _ in range(REPEATS):
                drawer.codes_batch(**batch, out=codes)
                if rgb:
                    drawer.expand_batch(codes, out=out)
            return REPEATS * count

        contenders[name] = draw

    if published:
        for image in IMAGES:
            for name in ("default", "paper"):
                add(f"{image}, {name}, codes", preset(name, image), False)
                add(f"{image}, {name}, RGB", preset(name, image), True)
        return contenders
    for image in ("map2d", "simple", "overlap"):
        add(f"{image} codes", ImageConfig(image=image), False)
        add(f"{image} RGB", ImageConfig(image=image), True)
    for name in ("paper-derivatives", "robust", "survey-free", "quality", "patch", "lines"):
        add(f"map2d, preset {name}, codes", preset(name, "map2d"), False)
    return contenders


def threads(spectra: list[Any]) -> dict[str, dict[str, Work]]:
    """Each image's codes with one thread and with two."""
    batch = end_to_end(spectra)
    groups: dict[str, dict[str, Work]] = {}
    for image in IMAGES:
        drawer = renderer(ImageConfig(image=image))
        codes = np.empty((len(spectra), *drawer.code_shape), np.uint8)

        def draw(count: int, drawer: Any = drawer, codes: Any = codes) -> int:
            numba.set_num_threads(count)
            for _ in range(REPEATS):
                drawer.codes_batch(**batch, out=codes)
            numba.set_num_threads(1)
            return REPEATS * len(spectra)

        groups[image] = {f"{image}, {n} thread{'s' * (n > 1)}": partial(draw, n) for n in (1, 2)}
    return groups


def figures(spectra: list[Any]) -> dict[str, Work]:
    """matplotlib's own road: figure, axes, PNG in memory, decoded again, as the paper's code goes it."""

    def through(image: str) -> Work:
        def work() -> int:
            for spectrum in spectra[:3]:
                figure(spectrum, ImageConfig(image=image))
            return 3

        return work

    return {f"{image}, matplotlib figure": through(image) for image in IMAGES}


def summary(records: Sequence[Record]) -> list[str]:
    """The ratios that matter, a line each."""
    of = {record.name: record.median for record in records}
    lines = []
    for image in IMAGES:
        for what in ("codes", "RGB"):
            usual, paper = (of[f"{image}, {name}, {what}"] for name in ("default", "paper"))
            lines.append(f"{image}, {what}: as published {paper / usual:.2f} times the default")
    if "memset" not in of:
        return lines
    lines += [f"{name}: {of[name] / of['memset']:.2f} times the memset; the target is {target:g}"
             for name, target in TARGETS.items()]  # fmt: skip
    for image in IMAGES:
        slow, ours = of[f"{image}, matplotlib figure"], of[f"{image} RGB"]
        lines.append(f"{image}: RGB {slow / ours:,.0f} times faster than matplotlib's figure")
        if f"{image}, 2 threads" in of:
            ratio = of[f"{image}, 1 thread"] / of[f"{image}, 2 threads"]
            lines.append(f"{image}: two threads {ratio:.2f} times one")
    return lines


def measure(rounds: int, count: int, data: Path | None = None, only_published: bool = False) -> list[Record]:
    """All records: one core first, then two against one. `data`: a folder of survey files; else made-up spectra."""
    spectra = read_spectra(data, count) if data else [made_up_galaxy(seed) for seed in range(count)]
    pictures = np.ones((PICTURES, SIZE * SIZE * 3), np.uint8)
    most = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        records = interleave("as published", drawers(spectra, pictures, published=True), rounds)
        if only_published:
            return records
        records += interleave(
            "render", {**memsets(pictures), **drawers(spectra, pictures), **figures(spectra)}, rounds
        )
        for image, group in threads(spectra).items() if most > 1 else ():
            records += interleave(f"threads, {image}", group, rounds)
    finally:
        numba.set_num_threads(most)
    return records


def main(
    out: Out = LOCAL / "render.json",
    data: Annotated[Path | None, typer.Option(help="Survey files to draw; without it, made-up spectra.")] = None,
    count: Annotated[int, typer.Option(help="Spectra in the batch.", min=1, max=PICTURES)] = 256,
    rounds: Rounds = 9,
    published: Annotated[bool, typer.Option("--published", help="Only the preset paper beside the default.")] = False,
    quick: Quick = False,
) -> None:
    """Time every renderer on one core, interleaved with a memset of the picture; then with two."""
    with recording("render", out, quick) as draft:
        if quick:
            count, rounds = 4, 1
        draft.data = "mock" if data is None else "real"
        draft.records = measure(rounds, count, data, published)
        draft.notes += summary(draft.records)
