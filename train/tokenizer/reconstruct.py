"""Drawing spectra from their tokens: bad pixels filled in, other wavelength grids, and how odd each object is."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor
from tqdm import tqdm

from specshards.common.errors import UsageError, make_folder
from specshards.common.files import replacing
from specshards.common.messages import LOGGER
from specshards.common.quarantine import write_quarantine
from specshards.ingest.tables import UNSTATED, Stated
from specshards.shards.loader.stack import stacked
from specshards.train.accelerator import make_accelerator
from specshards.train.models.layers import patches, spectra_of
from specshards.train.models.tokenizer.model import Tokenizer
from specshards.train.models.tokenizer.pixels import chi2, per_object, scaled, seen_as, without
from specshards.train.tokenizer.config import PretrainConfig
from specshards.train.tokenizer.pretrain import open_run
from specshards.train.use.inputs import KNOWN, nothing_read, stated_for
from specshards.train.use.pictures import spectra

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = npt.NDArray[np.float32]
#: Passes in which each patch is hidden once, so that what is drawn there comes from the others alone.
FOLDS = 4
#: A grid of more pixels than this is a slip of the keyboard.
_LONGEST = 200_000
TABLE, SHEET = "reconstructions.parquet", "reconstructions.png"
_SCHEMA = pa.schema(
    [*KNOWN, ("pixels", pa.int64()), ("chi2", pa.float64()), ("chi2_hidden", pa.float64()), ("anomaly", pa.float64()),
     ("wavelength", pa.list_(pa.float32())), ("flux", pa.list_(pa.float32())), ("imputed", pa.list_(pa.bool_())),
     ("flux_unit", pa.string()), ("flux_scale", pa.float64()), ("model", pa.string()),
     ("trained_on_mock", pa.bool_())]
)  # fmt: skip


@dataclass(frozen=True)
class Redrawn:
    """One object.

    Attributes:
        row: what is known of it.
        flux, ivar, wavelength: as observed, float32 `(n,)`; ivar 0 = bad.
        drawn: flux at the same pixels, in the unit and scale of `flux`, float32 `(n,)`.
        chi2, chi2_hidden: mean squared residual over the good pixels in units of their variance, float: of what the
            model saw, and of patches that it did not; NaN without a good pixel.
        at, there: wavelengths `(m,)`, Angstrom, and flux `(m,)` on the grid asked for, NaN where it is not known.
        imputed: bool `(m,)`: no good pixel lies there.
    """

    row: dict[str, Any]
    flux: Floats
    ivar: Floats
    wavelength: Floats
    drawn: Floats
    chi2: float
    chi2_hidden: float
    at: Floats
    there: Floats
    imputed: npt.NDArray[np.bool_]


def parse_grid(text: str) -> npt.NDArray[np.float64] | None:
    """The wavelengths of `first:last:step`, Angstrom, float64 `(M,)`; a step with `dex` is one in log10.

    Returns:
        None for `own`.

    Raises:
        UsageError: not a grid, or one that is too long.
    """
    if text.strip() == "own":
        return None
    wrong = UsageError(f"--grid {text}: give own, or first:last:step in Angstrom such as 3800:9200:1 (or 1e-4dex)")
    try:
        first, last, step = (float(part) for part in text.removesuffix("dex").split(":"))
    except ValueError as error:
        raise wrong from error
    if not (0 < first < last < np.inf and 0 < step < np.inf):
        raise wrong
    width = np.log10(last / first) if text.endswith("dex") else last - first
    count = int(width / step * (1 + 1e-9)) + 1
    if count > _LONGEST:
        raise UsageError(f"--grid {text}: {count:,} pixels; give at most {_LONGEST:,}")
    steps = step * np.arange(count, dtype=np.float64)
    return np.asarray(first * 10.0**steps if text.endswith("dex") else first + steps, np.float64)


def reconstruct(
    run: Path, inputs: Path, *, grid: str = "own", out: Path | None = None, limit: int = 8, batch_size: int = 64,
    device: str = "auto", stated: Stated = UNSTATED,
) -> Path:  # fmt: skip
    """Draw every object of `inputs` from its tokens.

    Args:
        run: folder of a pretrained tokenizer.
        inputs: a FITS file, a folder or glob of them, or spectra Parquet.
        grid: see `parse_grid`. A tokenizer that was trained with `regrid` draws there; what another one draws on
            the spectrum's own pixels is interpolated, and nothing is said beyond their ends.
        out: folder; `<run>/reconstructions` by default.
        stated: of spectra whose files do not say it; see `train.use.inputs.stated_for`.
        limit: most objects in the picture: the first ones of every survey in turn.

    Returns:
        `out`, with `reconstructions.png` and `reconstructions.parquet`, one row an object: object_id, survey,
        source_file, ra, dec; `pixels`: good ones; `chi2`, `chi2_hidden` (see `Redrawn`); `anomaly`: the second where
        the tokenizer learnt to draw what is hidden, else the first; `wavelength`, `flux` and `imputed` on the grid;
        `model` (sha256 of the weights, 16 digits) and `trained_on_mock`. What cannot be read goes to
        `quarantine.parquet` there.

    Raises:
        UsageError: no such tokenizer or input, or not a grid. JobError: nothing could be read.
    """
    at = parse_grid(grid)
    if limit < 0:
        raise UsageError(f"--limit {limit}: give 0 or more")
    model, config, card = open_run(run)
    stated = stated_for(card.get("data", ()), stated)
    model = model.to(make_accelerator(device).device).eval()
    out = out or run / "reconstructions"
    make_folder(out)
    quarantine: list[dict[str, Any]] = []
    kept: dict[str, list[Redrawn]] = {}
    count = 0
    with replacing(out / TABLE) as temporary, pq.ParquetWriter(temporary, _SCHEMA, compression="zstd") as writer:
        for batch in _redraw(model, config, inputs, at, batch_size, quarantine, stated):
            writer.write_table(_table(batch, config, card))
            count += len(batch)
            for one in batch:
                shown = kept.setdefault(str(one.row.get("survey")), [])
                if len(shown) < limit:
                    shown.append(one)
        if not count:
            raise nothing_read(inputs, quarantine)
    (out / "quarantine.parquet").unlink(missing_ok=True)
    if quarantine:
        write_quarantine(quarantine, out / "quarantine.parquet")
    (out / SHEET).unlink(missing_ok=True)
    chosen = [one for turn in range(limit) for shown in kept.values() for one in shown[turn : turn + 1]][:limit]
    if chosen:
        with replacing(out / SHEET) as temporary:
            draw(chosen, card["mock"]).savefig(temporary, dpi=110, format="png", metadata={"Software": None})
    LOGGER.info(f"{out}: {count + len(quarantine):,} objects = {count:,} drawn + {len(quarantine):,} in quarantine")
    return out


def _redraw(
    model: Tokenizer, config: PretrainConfig, inputs: Path, at: npt.NDArray[np.float64] | None, batch_size: int,
    quarantine: list[dict[str, Any]], stated: Stated,
) -> Iterator[list[Redrawn]]:  # fmt: skip
    device = model.draw.weight.device
    bar = tqdm(unit="obj", desc="reconstruct", file=sys.stderr, delay=1)
    with bar:
        for found in spectra(inputs, "observed", batch_size, stated=stated):
            quarantine += found.quarantine
            if not found.rows:
                continue
            arrays = stacked(found.spectra)
            flux, ivar, wavelength, length = (arrays[name] for name in ("flux", "ivar", "wavelength", "length"))
            batch = {name: torch.from_numpy(values).to(device) for name, values in spectra_of(arrays).items()}
            with torch.inference_mode():
                drawn, seen, unseen, there = _answers(model, config, batch, at)
            yield [
                _one(row, (flux[i, :n], ivar[i, :n], wavelength[i, :n], drawn[i, :n]), (seen[i], unseen[i]), at,
                     None if there is None else there[i])
                for i, (row, n) in enumerate(zip(found.rows, length, strict=True))
            ]  # fmt: skip
            bar.update(len(found.rows))


def _answers(
    model: Tokenizer, config: PretrainConfig, batch: dict[str, Tensor], at: npt.NDArray[np.float64] | None
) -> tuple[Any, Any, Any, Any]:
    """Drawn flux, both chi-squares, and flux on another grid where the tokenizer draws there itself."""
    pixels = scaled(batch["flux"], batch["ivar"])
    drawn = model(batch)
    patch = model.config.patch
    number = (torch.arange(patches(drawn, patch).shape[1], device=drawn.device) % FOLDS).repeat_interleave(patch)
    squared = torch.zeros_like(drawn)
    for fold in range(FOLDS):
        mine = (number == fold)[: drawn.shape[1]]
        given = without(batch, mine & pixels.good)
        found = chi2(model(given), seen_as(batch, given), config.floor)
        # Of a spectrum of one patch nothing is left to draw from.
        found = torch.where((given["ivar"] > 0).any(dim=1, keepdim=True), found, torch.nan)
        squared = torch.where(mine, found, squared)
    scores = []
    for values in (chi2(drawn, pixels, config.floor), squared):
        mean, some = per_object(values, pixels.good)
        scores.append(torch.where(some, mean, torch.nan).double().cpu().numpy())
    there = None
    if at is not None and config.regrid:
        target = torch.from_numpy(at).float().to(drawn.device).expand(len(drawn), -1)
        there = (model(batch, target=target) * pixels.scale).cpu().numpy()
    return (drawn * pixels.scale).cpu().numpy(), *scores, there


def _one(
    row: dict[str, Any], arrays: tuple[Floats, Floats, Floats, Floats], scores: tuple[float, float],
    at: npt.NDArray[np.float64] | None, there: Floats | None,
) -> Redrawn:  # fmt: skip
    _, ivar, wavelength, drawn = arrays
    if at is None:
        grid, values, imputed = wavelength, drawn, ivar <= 0
    else:
        grid = at.astype(np.float32)
        known = there if there is not None else np.interp(at, wavelength, drawn, np.nan, np.nan)
        values = known.astype(np.float32)
        imputed = np.interp(at, wavelength, (ivar > 0).astype(np.float64), 0, 0) < 0.5
    seen, unseen = map(float, scores)
    return Redrawn(row, *arrays, seen, unseen, grid, values, imputed)


def _table(objects: list[Redrawn], config: PretrainConfig, card: dict[str, Any]) -> pa.Table:
    rows = []
    for one in objects:
        rows.append(
            {
                **{name: one.row.get(name) for name in KNOWN.names}, "pixels": int((one.ivar > 0).sum()),
                "chi2": one.chi2, "chi2_hidden": one.chi2_hidden,
                "anomaly": one.chi2_hidden if config.masked else one.chi2,
                "wavelength": one.at, "flux": one.there, "imputed": one.imputed,
                "flux_unit": one.row.get("flux_unit"), "flux_scale": one.row.get("flux_scale"),
                "model": card["model"][:16],
                "trained_on_mock": card["mock"],
            }
        )  # fmt: skip
    return pa.Table.from_pylist(rows, _SCHEMA)


def draw(objects: list[Redrawn], mock: bool) -> Figure:
    """A row for each object: spectrum and reconstruction at the left, residual over error at the right."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 0.6 + 2.1 * len(objects)), layout="constrained")
    axes = figure.subplots(len(objects), 2, squeeze=False, width_ratios=(1.7, 1))
    for (left, right), one in zip(axes, objects, strict=True):
        good = one.ivar > 0
        seen = np.where(good, one.flux, np.nan)
        left.plot(one.wavelength, seen, color="#9aa7b5", lw=0.6, label="observed")
        left.plot(one.at, one.there, color="#b3402a", lw=0.7, label="reconstructed")
        gaps = np.where(one.imputed, one.there, np.nan)
        left.plot(one.at, gaps, color="#1b7f79", lw=1.2, label="reconstructed, nothing observed")
        shown = np.concatenate([seen[good], one.there[np.isfinite(one.there)]])
        low, high = np.percentile(shown, [0.5, 99.5]) if len(shown) else (0.0, 1.0)
        room = 0.1 * (high - low) or 1.0
        left.set(ylim=(low - room, high + room), ylabel="flux")
        residual = np.where(good, (one.flux - one.drawn) * np.sqrt(one.ivar), np.nan)
        right.plot(one.wavelength, residual, color="#0d2740", lw=0.4)
        right.axhline(0, color="#b3402a", lw=0.6)
        right.set(ylim=(-6, 6), ylabel="residual / error")
        name = f"{one.row.get('survey')} {one.row.get('object_id')}"
        known = [str(one.row[key]) for key in ("class", "subclass") if one.row.get(key)]
        title = f"{name}  {' '.join(known)}  chi2 {one.chi2:.3g} seen, {one.chi2_hidden:.3g} hidden"
        left.set_title(
            "".join(c if c.isprintable() else " " for c in title), fontsize=8, loc="left", parse_math=False
        )
    axes[0, 0].legend(fontsize=7, loc="upper right")
    for right in axes[-1]:
        right.set_xlabel("wavelength (Å, vacuum, observed frame)")
    if mock:
        figure.suptitle("tokenizer trained with MOCK data", fontsize=9)
    return figure
