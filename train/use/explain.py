"""Where a model looks: each spectrum with the attention along its wavelengths, and on its picture patch by patch.

Attention says which parts of an input reached the answer, not what they did there (Jain & Wallace 2019): a start for
a question to the model, not an answer of it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import nn

from specshards.common.errors import UsageError, make_folder
from specshards.common.files import replacing
from specshards.common.messages import LOGGER
from specshards.common.spectrum import Arrays
from specshards.ingest.spectra.plots import flux_limits, strong_lines
from specshards.ingest.tables import UNSTATED, Stated
from specshards.render import ImageConfig, renderer
from specshards.shards.loader.stack import stacked
from specshards.train.accelerator import make_accelerator
from specshards.train.models.attention import AttentionSpread, per_angstrom, per_token
from specshards.train.models.layers import spectra_of
from specshards.train.network import open_any
from specshards.train.run import Card
from specshards.train.tasks.metrics import FloatArray
from specshards.train.tasks.multitask import split_logits
from specshards.train.tasks.text import quantity
from specshards.train.use.inputs import nothing_read, stated_for
from specshards.train.use.pictures import ObjectBatch, PictureBatch, pictures, spectra

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Pictures whose attention is in memory at once: that of a ViT-B/16 at 224 pixels takes 22 MB.
_AT_ONCE = 8
TABLE = "attention.parquet"


def explain(
    run: Path, inputs: Path, *, out: Path | None = None, limit: int = 8, lines: bool = True, device: str = "auto",
    most_bytes: int | None = None, picture: str | None = None, stated: Stated = UNSTATED,
) -> Path:  # fmt: skip
    """Draw, for the first objects of `inputs`, what the model attended to.

    Args:
        run: folder of a trained model with a CLS token, such as a ViT, or of one that reads spectra.
        inputs: a FITS file, a folder or glob of them, or spectra Parquet.
        out: folder; `<run>/explain` by default. Pictures of an earlier call go.
        limit: most objects to draw.
        lines: mark strong lines at the redshift that is known, else at the one that is predicted.
        most_bytes: of one survey file; see `ingest.surveys.open_file`.
        stated: of spectra whose files do not say it; see `train.use.inputs.stated_for`.
        picture: which one of a model of several, by its name; the first by default. Attention and prediction are then
            those of this picture alone, as the title says.

    Returns:
        `out`, with a PNG for every object and `attention.parquet`: object_id, survey, `wavelength` (Angstrom),
        `attention` (share of it per Angstrom), `relative` (1 = even over the picture, or over the tokens that have a
        good pixel), `blank` (share on pixels that show no wavelength) and `picture`: its name in the run's `images`,
        or its image type where the shards were made for it; null where the model reads spectra.

    Raises:
        UsageError: no such model or input, or a model without such attention. JobError: nothing could be read.
    """
    if limit < 1:
        raise UsageError(f"--limit {limit}: give a positive number")
    out = out or run / "explain"
    card, model = open_any(run)
    image, stated = _chosen(card, picture), stated_for(card.data, stated)
    model = model.to(make_accelerator(device).device).eval()
    make_folder(out)
    if (out / TABLE).is_file():
        for old in out.glob("[0-9][0-9][0-9]_*.png"):
            old.unlink()
    sights: list[Sight] = []
    quarantine: list[dict[str, Any]] = []
    count, reads_pictures = min(limit, _AT_ONCE), card.config.view == "picture"
    for batch in (
        pictures(inputs, image, count, most_bytes, stated=stated)
        if reads_pictures
        else spectra(inputs, image.frame, count, most_bytes, stated=stated)
    ):
        quarantine += batch.quarantine
        if batch.rows:
            for sight in look(card, model, image, batch)[: limit - len(sights)]:
                _save(draw(sight, card.mock, lines), out / f"{len(sights):03d}_{_file_name(sight)}.png")
                sights.append(sight)
        if len(sights) == limit:
            break
    if not sights:
        raise nothing_read(inputs, quarantine)
    with replacing(out / TABLE) as temporary:
        pq.write_table(_table(sights, card), temporary, compression="zstd")
    beside = f"; {len(quarantine):,} objects could not be drawn" if quarantine else ""
    alone = f"; the model answers from {sights[0].alone}" if card.several else ""
    LOGGER.info(f"{out}: {len(sights):,} pictures and {TABLE}{beside}{alone}")
    return out


def _chosen(card: Card, picture: str | None) -> ImageConfig:
    """The picture to look at; UsageError where the model has none of that name."""
    names = card.several
    if picture is None:
        return card.pictures[0]
    if picture not in names:
        has = f"has {', '.join(names)}" if names else "has learnt from one kind of input; leave it out"
        raise UsageError(f"--picture {picture}: the model {has}")
    return card.pictures[names.index(picture)]


@dataclass(frozen=True)
class Sight:
    """What a model saw of one object.

    Attributes:
        row: what is known of the object, as in `train.use.pictures`.
        spectrum: flux, ivar, wavelength, mask.
        picture: uint8 `(S, S, 3)`; weights: attention on its patches `(p, p)`. None where the model reads spectra.
        spread: the attention along the wavelengths.
        said: the prediction of each label, in words.
        kind, z: predicted class and redshift, None where the model has no such task.
        frame: of the wavelengths, `observed` or `rest`.
        name: of the picture, as in the table; None where the model reads spectra.
        alone: which picture alone it is, of a model of several; empty for one.
    """

    row: dict[str, Any]
    spectrum: Arrays
    picture: npt.NDArray[np.uint8] | None
    weights: FloatArray | None
    spread: AttentionSpread
    said: dict[str, str]
    kind: str | None
    z: float | None
    frame: str
    name: str | None
    alone: str = ""


def look(card: Card, model: nn.Module, image: ImageConfig, batch: ObjectBatch) -> list[Sight]:
    """The model's predictions and attention for every object of a batch: one of pictures for a model of those."""
    seen: list[tuple[npt.NDArray[np.uint8] | None, FloatArray | None, AttentionSpread]]
    backbone = card.config.architecture
    if backbone.view == "picture":
        assert isinstance(batch, PictureBatch)
        pixels = torch.from_numpy(batch.pixel_values).permute(0, 3, 1, 2)
        logits, weights = backbone.attend(model, pixels)
        seen = [
            (picture, mine, per_angstrom(mine, renderer(image).wavelengths(spectrum.wavelength, spectrum.flux)))
            for picture, mine, spectrum in zip(batch.pixel_values, weights.cpu().numpy(), batch.spectra, strict=True)
        ]
    else:
        arrays = spectra_of(stacked(batch.spectra))
        logits, weights, ends = backbone.attend(
            model, {name: torch.from_numpy(part) for name, part in arrays.items()}
        )
        both = zip(weights.cpu().numpy(), ends.cpu().numpy(), strict=True)
        seen = [(None, None, per_token(mine, there)) for mine, there in both]
    parts = split_logits(card.tasks, logits)
    decoded = [(task, task.decode(part)) for task, part in zip(card.tasks, parts, strict=True)]
    values = {task.label: task.values(columns["point"]).to_pylist() for task, columns in decoded}
    nothing = [None] * len(batch.rows)
    names = card.config.drawn or (image.image,)
    name = names[card.pictures.index(image)] if backbone.view == "picture" else None
    alone = f"{name} alone, 1 of {len(card.several)} pictures" if card.several else ""
    objects = zip(batch.rows, batch.spectra, seen, strict=True)
    return [
        Sight(
            row, spectrum, *what, {task.label: task.describe(columns, i) for task, columns in decoded},
            values.get("class", nothing)[i], values.get("z", nothing)[i], image.frame, name, alone,
        )
        for i, (row, spectrum, what) in enumerate(objects)
    ]  # fmt: skip


def draw(sight: Sight, mock: bool, lines: bool) -> Figure:
    """Spectrum over attention, and the picture, where there is one, without and with its patches' attention."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5.6), layout="constrained")
    relative = sight.spread.relative
    heat = relative[relative > 0] if sight.weights is None else sight.weights * sight.weights.size
    reach = max(0.5, float(np.abs(heat - 1).max()))
    colours: dict[str, Any] = {"cmap": "PuOr_r", "vmin": 1 - reach, "vmax": 1 + reach}
    if sight.picture is None:
        flux, share = figure.subplots(2, 1)
    else:
        (flux, top), (share, bottom) = figure.subplots(2, 2, width_ratios=(3.2, 1))
        top.imshow(sight.picture)
        top.set_title("what the model sees", fontsize=9)
        bar = figure.colorbar(bottom.imshow(heat, **colours), ax=bottom, location="bottom", fraction=0.05, pad=0.03)
        bar.ax.set_xlim(max(0.0, 1 - reach), 1 + reach)
        bottom.set_title(f"attention on {len(heat)} × {len(heat)} patches, 1 = even", fontsize=9)
        for axes in (top, bottom):
            axes.set_axis_off()
    _plot_attention(flux, share, sight, colours)
    if lines:
        _mark_lines(flux, share, sight)
    figure.suptitle(_title(sight, mock), fontsize=10, parse_math=False)
    return figure


def _plot_attention(flux: Axes, share: Axes, sight: Sight, colours: dict[str, Any]) -> None:
    spread = sight.spread
    _plot_flux(flux, sight)
    flux.pcolormesh(
        spread.edges, [0, 1], spread.relative[None], transform=flux.get_xaxis_transform(), alpha=0.6, zorder=0,
        **colours,
    )  # fmt: skip
    share.stairs(spread.relative, spread.edges, fill=True, color="#8a5a1c", lw=0)
    share.axhline(1, color="black", lw=0.6, ls=":")
    flux.tick_params(labelbottom=False)
    share.set(xlim=flux.get_xlim(), ylim=(0, None), ylabel="attention, 1 = even")
    nowhere = f"; {100 * spread.blank:.0f}% of the attention where none is shown" if sight.picture is not None else ""
    share.set_xlabel(f"wavelength (Å, vacuum, {sight.frame} frame){nowhere}")


def _plot_flux(axes: Axes, sight: Sight) -> None:
    spectrum = sight.spectrum
    axes.plot(spectrum.wavelength, np.where(spectrum.good(), spectrum.flux, np.nan), color="#0d2740", lw=0.6)
    low, high, _ = flux_limits(spectrum)
    axes.set(xlim=sight.spread.edges[[0, -1]], ylim=(low, high), ylabel="flux (unit of the file)")


def _mark_lines(flux: Axes, share: Axes, sight: Sight) -> None:
    """Strong lines of the class at the redshift, known before predicted; a star without one is taken at rest."""
    kind = _known(sight.row.get("class")) or sight.kind
    z = _known(sight.row.get("z"))
    z = sight.z if z is None else z
    if z is None and kind != "STAR":
        return
    moved = 1 + (z or 0.0) if sight.frame == "observed" else 1.0
    left, right = flux.get_xlim()
    for name, rest in strong_lines(kind):
        at = rest * moved
        if left < at < right:
            for axes in (flux, share):
                axes.axvline(at, color="#1b7f79", lw=0.7, ls=":")
            flux.text(
                at, 1.01, name, transform=flux.get_xaxis_transform(), rotation=55, fontsize=7, color="#1b7f79",
                ha="left", va="bottom",
            )  # fmt: skip


def _title(sight: Sight, mock: bool) -> str:
    row = sight.row
    survey = str(row.get("survey") or "")
    first = f"{survey.removeprefix('mock-')} {row.get('object_id')}"
    true = []
    for label in sight.said:
        value = _known(row.get(label))
        if value is not None:
            true.append(value if isinstance(value, str) else quantity(label, float(value)))
    made = [text for text, said in (("MOCK data", survey.startswith("mock-")), ("model of MOCK data", mock)) if said]
    whence = f" from {sight.alone}" if sight.alone else ""
    text = [", ".join([*made, first]), f"predicted{whence}: {', '.join(sight.said.values())}"]
    return "\n".join(map(_plain, [*text, f"known: {', '.join(true) or 'nothing'}"]))


def _known(value: Any) -> Any:
    return None if value is None or (isinstance(value, float) and np.isnan(value)) else value


def _plain(text: str) -> str:
    """One line of what can be printed: names in files may be anything."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _file_name(sight: Sight) -> str:
    return re.sub(r"[^A-Za-z0-9-]+", "_", str(sight.row.get("object_id")))[:60]


def _save(figure: Figure, path: Path) -> None:
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png", metadata={"Software": None})


def _table(sights: Sequence[Sight], card: Card) -> pa.Table:
    return pa.table(
        {
            "object_id": pa.array([str(sight.row.get("object_id")) for sight in sights], pa.string()),
            "survey": pa.array([sight.row.get("survey") for sight in sights], pa.string()),
            "wavelength": pa.array([sight.spread.wavelength for sight in sights], pa.list_(pa.float64())),
            "attention": pa.array([sight.spread.density for sight in sights], pa.list_(pa.float64())),
            "relative": pa.array([sight.spread.relative for sight in sights], pa.list_(pa.float64())),
            "blank": pa.array([sight.spread.blank for sight in sights], pa.float64()),
            "picture": pa.array([sight.name for sight in sights], pa.string()),
            "model": pa.array([card.model[:16]] * len(sights), pa.string()),
            "trained_on_mock": pa.array([card.mock] * len(sights), pa.bool_()),
        }
    )
