"""`specshards render`: look at pictures before a million of them are drawn.

The renderers know no files; this command, which stands on top of the other rooms, reads them.
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from specshards.common.cli import application, run_app
from specshards.common.errors import UsageError
from specshards.render.registry import RENDERERS


def gallery(
    inputs: Annotated[Path, typer.Argument(help="A survey file, a folder of them, a glob, or spectra Parquet.")],
    out: Annotated[Path, typer.Option(help="The PNG.")] = Path("gallery.png"),
    image: Annotated[
        str | None, typer.Option(help=f"Only this image type: {', '.join(RENDERERS)}. Default: every one.")
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="default, paper, robust, lines, ... (see docs/images.md); without --image of all that have it. "
            "Default: those worth a look."
        ),
    ] = None,
    count: Annotated[int, typer.Option(help="Spectra shown.")] = 10,
    among: Annotated[int, typer.Option(help="Spectra read; the ones shown differ in class and S/N.")] = 500,
    size: Annotated[int, typer.Option(help="Side of each picture, pixels.")] = 224,
) -> None:
    """A contact sheet: rows of spectra in every image type, or many spectra in one.

    The spectra shown are chosen among the first --among: the classes in turn, each from low to high S/N. One that
    cannot be drawn in some image type shows the reason in its place.
    """
    import cv2

    from specshards import render
    from specshards.render.contact_sheet import every_image, sheet, spread, table

    if count < 1 or among < 1:
        raise UsageError(f"count={count}, among={among}: give positive numbers")
    try:
        one = None if image is None else replace(render.preset(preset or "default", image), size=size)
        images = every_image(size, preset) if image is None else []
    except ValueError as error:
        raise UsageError(str(error)) from error
    found, bad = _read(inputs, among)
    if not found:
        raise UsageError(f"{inputs}: no spectrum there ({bad[0] if bad else 'nothing found'})")
    chosen = spread([(str(meta.get("class") or "unlabelled"), _sn(meta)) for meta, _ in found], count)
    spectra = [(_caption(found[i][0]), found[i][1]) for i in chosen]
    page = table(spectra, images) if one is None else sheet(spectra, one)
    out.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(out), page[..., ::-1]):
        raise UsageError(f"{out}: cannot be written as a picture; give a name that ends in .png")
    aside = f", {len(bad)} could not be read" if bad else ""
    print(f"{len(spectra)} of {len(found)} spectra{aside}: {out}")


def _read(inputs: Path, among: int) -> tuple[list[tuple[dict[str, Any], tuple[Any, ...]]], list[str]]:
    from specshards.ingest.spectra.objects import objects

    quarantine: list[dict[str, Any]] = []
    found = [(meta, tuple(arrays)) for meta, arrays in islice(objects(inputs, quarantine), among)]
    return found, [str(row["reason"]) for row in quarantine]


def _sn(meta: dict[str, Any]) -> float:
    value = meta.get("sn_median")
    return math.nan if value is None else float(value)


def _caption(meta: dict[str, Any]) -> str:
    redshift = meta.get("z")
    parts = [str(meta.get("survey") or ""), str(meta.get("class") or "unlabelled")]
    if redshift is not None and math.isfinite(redshift):
        parts.append(f"z {redshift:.3f}")
    if math.isfinite(_sn(meta)):
        parts.append(f"S/N {_sn(meta):.1f}")
    return ", ".join(part for part in parts if part)


app = application("Spectra as pictures: see what each image type and option shows.", {"gallery": gallery})

if __name__ == "__main__":
    run_app(app)
