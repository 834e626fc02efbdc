"""Predictions for spectra that need no labels: survey files or spectra Parquet in, a table out."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import torch
from tqdm import tqdm

from ingest.errors import JobError, UsageError, make_folder
from ingest.files import replacing
from render import ImageConfig
from shards.pictures import pictures
from train.run import Card, open_model
from train.scoring import make_accelerator
from train.tasks import Classification

_KNOWN = {"object_id": pa.string(), "survey": pa.string(), "source_file": pa.string(), "ra": pa.float64(),
          "dec": pa.float64()}  # fmt: skip
_QUARANTINE = {"file": pa.string(), "row": pa.int64(), "stage": pa.string(), "reason": pa.string(),
               "exception": pa.string()}  # fmt: skip


def predict(
    run: Path, inputs: Path, *, out: Path | None = None, batch_size: int = 64, device: str = "auto"
) -> pa.Table:
    """Predict every object of `inputs` and write `out`; what cannot be drawn goes to `<out>_quarantine.parquet`.

    Args:
        run: folder of a trained model.
        inputs: a FITS file, a folder or glob of them, or spectra Parquet.
        out: `.parquet` or `.csv`; `<run>/predictions.parquet` by default.

    Returns:
        One row an object, in the order of the input: object_id, survey, source_file, ra, dec; then `predicted_class`
        and `p_<class>`, or `<label>`, `<label>_std` and its quantiles; `model` (sha256 of the weights, 16 digits) and
        `trained_on_mock`.

    Raises:
        UsageError: no such model or input, or an `out` of another kind. JobError: nothing could be read.
    """
    out = out or run / "predictions.parquet"
    if out.suffix not in (".parquet", ".csv"):
        raise UsageError(f"--out {out}: give a name that ends in .parquet or .csv")
    card, model = open_model(run)
    make_folder(out.parent)
    _check_writable(out)
    accelerator = make_accelerator(device)
    network = accelerator.prepare(model.to(accelerator.device)).eval()
    parts: list[pa.Table] = []
    quarantine: list[dict[str, Any]] = []
    with tqdm(unit="obj", desc="predict", file=sys.stderr, delay=1) as bar, torch.inference_mode():
        for batch in pictures(inputs, ImageConfig.from_dict(card.image), batch_size):
            quarantine += batch.quarantine
            if not batch.rows:
                continue
            pixels = torch.from_numpy(batch.pixel_values).permute(0, 3, 1, 2).to(accelerator.device)
            with accelerator.autocast():
                logits = network(pixels)
            parts.append(_table(card, batch.rows, logits.float()))
            bar.update(len(batch.rows))
    if not parts:
        why = f"{quarantine[0]['file']}: {quarantine[0]['reason']}" if quarantine else "nothing in it"
        raise JobError(f"INPUT={inputs}: no object of {len(quarantine)} could be read ({why})")
    table = pa.concat_tables(parts)
    _write(table, out)
    print(_summary(card, table, quarantine, out))
    return table


def _table(card: Card, rows: list[dict[str, Any]], logits: torch.Tensor) -> pa.Table:
    task = card.task
    answers = task.decode(logits)
    point = answers.pop("point")
    columns = {name: pa.array([row.get(name) for row in rows], kind) for name, kind in _KNOWN.items()}
    if isinstance(task, Classification):
        columns["predicted_class"] = pa.array([task.classes[int(i)] for i in point], pa.string())
    else:
        columns[task.label] = pa.array(point)
    # A head that gives no width leaves its columns null, not NaN.
    columns |= {name: pa.array(values, from_pandas=True) for name, values in answers.items()}
    columns["model"] = pa.array([card.model[:16]] * len(rows))
    columns["trained_on_mock"] = pa.array([card.mock] * len(rows))
    return pa.table(columns)


def _write(table: pa.Table, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        if path.suffix == ".csv":
            pa_csv.write_csv(table, temporary)
        else:
            pq.write_table(table, temporary, compression="zstd")


def _check_writable(path: Path) -> None:
    """Find out before hours of work, not after them, that the table cannot be written there."""
    probe = path.with_name(f".{path.name}.probe")
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise JobError(f"--out {path}: cannot be written ({error.strerror}); choose another place") from error


def _summary(card: Card, table: pa.Table, quarantine: list[dict[str, Any]], out: Path) -> str:
    beside = out.with_name(f"{out.stem}_quarantine.parquet")
    beside.unlink(missing_ok=True)
    total = table.num_rows + len(quarantine)
    lines = ["the model learnt from MOCK data: do not use these numbers for science"] if card.mock else []
    lines += [f"{out}: {total:,} objects = {table.num_rows:,} predicted + {len(quarantine):,} in quarantine"]
    if isinstance(card.task, Classification):
        counts = Counter(table["predicted_class"].to_pylist())
        lines.append(", ".join(f"{name} {n:,}" for name, n in counts.most_common()))
    if quarantine:
        columns = {name: pa.array([row.get(name) for row in quarantine], kind) for name, kind in _QUARANTINE.items()}
        _write(pa.table(columns), beside)
        reasons = Counter(str(row["reason"]) for row in quarantine)
        lines += [f"  {n:,} x {reason}" for reason, n in reasons.most_common(5)] + [f"  listed in {beside}"]
    shown = [name for name in table.column_names if name not in ("model", "trained_on_mock", "ra", "dec")]
    for row in table.select(shown).slice(0, 5).to_pylist():
        cells = (f"{k} {v:.4f}" if isinstance(v, float) else str(v) for k, v in row.items() if v is not None)
        lines.append("  " + "  ".join(cells))
    return "\n".join(lines)
