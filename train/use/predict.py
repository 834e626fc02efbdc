"""Predictions for spectra that need no labels: survey files, spectra Parquet or shards in, a table out.

from train.use.predict import Predictor
model = Predictor.open("runs/classify")
table = model("spectra/*.fits")     # pyarrow.Table, one row an object
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from torch import nn
from tqdm import tqdm

from specshards.common.errors import JobError, UsageError, make_folder
from specshards.common.files import is_remote, location, replacing
from specshards.common.messages import LOGGER
from specshards.common.quarantine import write_quarantine
from specshards.ingest.tables import UNSTATED, Stated
from specshards.shards.format.manifest import MANIFEST, SPLITS, Manifest
from specshards.train.accelerator import make_accelerator
from specshards.train.evaluation.conformal import intervals
from specshards.train.evaluation.evaluate import check_pictures
from specshards.train.models.views import over_pictures
from specshards.train.network import open_any
from specshards.train.run import Card
from specshards.train.tasks.multitask import split_logits
from specshards.train.use.inputs import KNOWN, Source, cut, from_shards, from_spectra, nothing_read

#: Rows of a row group of the table: the list of all groups is in memory, and groups of a batch each would fill it.
_ROWS = 1 << 14


@dataclass
class PredictionCounts:
    """What became of the objects: how many were predicted, the quarantine rows, and the classes predicted."""

    predicted: int = 0
    quarantine: list[dict[str, Any]] = field(default_factory=list)
    classes: dict[str, Counter[str]] = field(default_factory=dict)
    first: list[dict[str, Any]] = field(default_factory=list)


class Predictor:
    """A trained model, ready to answer.

    Attributes:
        card: what it learnt, from what; its fingerprint is `card.model`.
    """

    def __init__(self, card: Card, network: nn.Module, accelerator: Accelerator, batch_size: int) -> None:
        """See `open`."""
        self.card, self._network, self._accelerator, self._batch = card, network, accelerator, batch_size

    @classmethod
    def open(cls, run: str | Path, *, batch_size: int = 64, device: str = "auto") -> Predictor:
        """The model of a run folder.

        Raises:
            UsageError: no such model or device. JobError: a damaged model.
        """
        card, model = open_any(Path(run))
        accelerator = make_accelerator(device, card.config.precision)
        return cls(card, accelerator.prepare(model.to(accelerator.device)).eval(), accelerator, batch_size)

    def __call__(self, inputs: str | Path) -> pa.Table:
        """All predictions for `inputs` in one table; see `batches`.

        Raises:
            JobError: no object of them could be read.
        """
        account = PredictionCounts()
        parts = list(self.batches(inputs, account))
        if not parts:
            raise nothing_read(inputs, account.quarantine)
        return pa.concat_tables(parts)

    def batches(
        self, inputs: str | Path, account: PredictionCounts, most_bytes: int | None = None,
        stated: Stated = UNSTATED,
    ) -> Iterator[pa.Table]:  # fmt: skip
        """Predictions, a batch at a time, in the order of the input; what cannot be drawn goes to `account`.

        Args:
            inputs: a FITS file, a folder or glob of them, spectra Parquet, or a folder of shards (all its splits).
            most_bytes: of one survey file; see `ingest.surveys.open_file`.
            stated: of spectra whose files do not say it; see `train.use.inputs.stated_for`.

        Yields:
            One row an object: object_id, survey, source_file, ra, dec (and `split`, from shards). A classification
            gives `predicted_class` (or `_subclass`), `p_<class>` and the conformal sets; a regression `<label>`,
            `<label>_std`, its quantiles and conformal intervals `<label>_lo68`, `_hi68`. Then `model` (sha256 of the
            weights, 16 digits) and `trained_on_mock`. The outputs of a model of several pictures are averaged over
            them before anything else is made of them.

        Raises:
            UsageError: nothing there, or shards of other pictures.
        """
        for rows, given in self._source(location(inputs), account, most_bytes, stated):
            with torch.inference_mode(), self._accelerator.autocast():
                logits = over_pictures(self._network, send_to_device(given, self._accelerator.device))
            table = self._table(rows, logits.float())
            account.predicted += len(table)
            if len(account.first) < 5:
                account.first += table.slice(0, 5 - len(account.first)).to_pylist()
            for task in self.card.tasks:
                column = table[task.column]
                if pa.types.is_string(column.type):
                    account.classes.setdefault(task.name, Counter()).update(column.to_pylist())
            yield table

    def _source(self, inputs: Path, account: PredictionCounts, most_bytes: int | None, stated: Stated) -> Source:
        if not is_remote(inputs) and not (inputs / MANIFEST).is_file():
            yield from from_spectra(self.card, inputs, self._batch, account.quarantine, most_bytes, stated)
            return
        manifest = Manifest.load(inputs)
        check_pictures(self.card, manifest, [str(inputs)])
        for split in filter(manifest.samples, SPLITS):
            for rows, given in from_shards(self.card, inputs, split, self._batch, str(self._accelerator.device)):
                yield rows.append_column("split", pa.array([split] * len(rows))), given

    def _table(self, rows: pa.Table, logits: torch.Tensor) -> pa.Table:
        columns: dict[str, Any] = {name: rows[name] for name in rows.column_names}
        for task, part in zip(self.card.tasks, split_logits(self.card.tasks, logits), strict=True):
            decoded = task.decode(part)
            more = intervals(task, self.card.conformal.get(task.name), decoded)
            columns[task.column] = task.values(decoded.pop("point"))
            # A head that gives no width leaves its columns null, not NaN.
            columns |= {name: pa.array(values, from_pandas=True) for name, values in {**decoded, **more}.items()}
        columns["model"] = pa.array([self.card.model[:16]] * len(logits))
        columns["trained_on_mock"] = pa.array([self.card.mock] * len(logits))
        return pa.table(columns)


def predict(
    run: Path, inputs: Path, *, out: Path | None = None, batch_size: int = 64, device: str = "auto",
    most_bytes: int | None = None, stated: Stated = UNSTATED,
) -> PredictionCounts:  # fmt: skip
    """Predict every object of `inputs` and write `out`; what cannot be drawn goes to `<out>_quarantine.parquet`.

    Args:
        run: folder of a trained model.
        inputs: see `Predictor.batches`.
        most_bytes: of one survey file; see `ingest.surveys.open_file`.
        stated: of spectra whose files do not say it; see `train.use.inputs.stated_for`.
        out: `.parquet` or `.csv`; `<run>/predictions.parquet` by default. It is written as the predictions come.

    Raises:
        UsageError: no such model or input, or an `out` of another kind. JobError: nothing could be read.
    """
    out = out or run / "predictions.parquet"
    if out.suffix not in (".parquet", ".csv"):
        raise UsageError(f"--out {out}: give a name that ends in .parquet or .csv")
    model = Predictor.open(run, batch_size=batch_size, device=device)
    make_folder(out.parent)
    _check_writable(out)
    account = PredictionCounts()
    batches = model.batches(inputs, account, most_bytes, stated)
    first = next(batches, None)
    if first is None:
        raise nothing_read(inputs, account.quarantine)
    with tqdm(unit="obj", desc="predict", file=sys.stderr, delay=1) as bar, _writer(out, first.schema) as writer:
        for table in cut(_told(bar, chain([first], batches)), _ROWS):
            writer.write_table(table.combine_chunks())
    LOGGER.info(_summary(model.card, account, out))
    return account


def _told(bar: Any, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The tables, counted as they come."""
    for table in tables:
        bar.update(len(table))
        yield table


@contextmanager
def _writer(path: Path, schema: pa.Schema) -> Iterator[Any]:
    with replacing(path) as temporary:
        kind = pa_csv.CSVWriter if path.suffix == ".csv" else pq.ParquetWriter
        with kind(temporary, schema) as writer:
            yield writer


def _check_writable(path: Path) -> None:
    """Find out before hours of work, not after them, that the table cannot be written there."""
    probe = path.with_name(f".{path.name}.probe")
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise JobError(f"--out {path}: cannot be written ({error.strerror}); choose another place") from error


def _summary(card: Card, account: PredictionCounts, out: Path) -> str:
    beside = out.with_name(f"{out.stem}_quarantine.parquet")
    beside.unlink(missing_ok=True)
    bad = account.quarantine
    lines = ["the model learnt from MOCK data: do not use these numbers for science"] if card.mock else []
    lines += [
        f"{out}: {account.predicted + len(bad):,} objects = {account.predicted:,} predicted + {len(bad):,} in "
        "quarantine"
    ]
    for counts in account.classes.values():
        lines.append(", ".join(f"{name} {n:,}" for name, n in counts.most_common()))
    if bad:
        write_quarantine(bad, beside)
        reasons = Counter(str(row["reason"]) for row in bad)
        lines += [f"  {n:,} x {reason}" for reason, n in reasons.most_common(5)] + [f"  listed in {beside}"]
    for row in account.first:
        shown = {k: v for k, v in row.items() if k not in ("model", "trained_on_mock", "ra", "dec") and v is not None}
        words = (f"{k} {v:.4f}" if isinstance(v, float) else str(v) if k in KNOWN.names else f"{k} {v}"
                 for k, v in shown.items())  # fmt: skip
        lines.append("  " + "  ".join(words))
    return "\n".join(lines)
