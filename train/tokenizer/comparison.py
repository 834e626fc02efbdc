"""What a tokenizer's reconstruction is worth beside simple ones, on spectra that none of them learnt from.

The number is the loss of pretraining without `huber`: the mean over a spectrum's pixels of the squared residual in
units of the variance, then mean and median over the spectra. Three columns ask three questions:

- `seen`: everything is given, and every good pixel counts. This rewards copying: the flux itself scores 0, the true
  spectrum 1. What noise a method draws again is counted to its credit.
- `hidden`: a quarter of the good patches are given as bad pixels to every method, and they alone count. The noise
  there cannot be known: the true spectrum scores 1, and nothing is below it but by luck.
- `noise`: noise n', drawn anew from each pixel's own error, is added to the flux y = s + n (s the true spectrum, n
  its noise) and the ivar is halved to match; what is drawn of that is held against y - n', whose variance is twice
  that of y. The noises n + n' of the one and n - n' of the other are independent where errors are Gaussian and right,
  as if the object had been observed twice (Pang et al. 2021, "recorrupted-to-recorrupted"): the true spectrum scores
  1, a copy 2, and no mixture of the two less than 1. Against y itself truth and copy would both score 1, and the
  middle between them 0.5. Where errors are k times as large as given, the truth scores (k^2 + 1) / 2, a copy still 2.
  Spectra without errors are left out.

These expectations are for a floor of 0; with a floor all are smaller. The simple methods learn, and the window of the
median is chosen, on the train split. The components are as many as the tokenizer's pooled vector is wide; the
tokenizer itself draws from as many numbers for every patch.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from tqdm import tqdm

from specshards.common.errors import UsageError
from specshards.common.files import location, write_text
from specshards.common.json import finite
from specshards.common.messages import LOGGER
from specshards.shards import loader as shard_loader
from specshards.shards.format.manifest import Manifest
from specshards.shards.loader.batch import SpectraBatch, Stack
from specshards.train.accelerator import make_accelerator
from specshards.train.models.layers import model_input, spectra_of
from specshards.train.models.tokenizer.pixels import Pixels, chi2, hide, per_object, scaled
from specshards.train.models.tokenizer.resolution import told
from specshards.train.run import data_record
from specshards.train.tasks.metrics import FloatArray
from specshards.train.tokenizer.baselines import Constant, Drawer, Principal, RunningMedian, copy
from specshards.train.tokenizer.pretrain import HIDDEN, open_run

SPLITS = ("val", "test")
COLUMNS = ("seen", "hidden", "noise")
WINDOWS = (5, 15, 51, 151)
#: Train spectra that the window of the median is chosen on.
CHOOSING = 500
_BATCH = 64

#: Column -> method -> the mean squared residual of each spectrum, float64 `(n,)`, NaN where it does not count.
Values = dict[str, dict[str, FloatArray]]


class Trial(NamedTuple):
    """What the methods are given, and what their answers are held against.

    Attributes:
        given: spectra; the flux of a bad pixel is 0.
        target: the flux that counts, and its error. scored: where, bool `(B, N)`.
    """

    given: Stack
    target: Pixels
    scored: Tensor


def compare(
    run: Path,
    *,
    shards: Sequence[str] = (),
    split: str = "val",
    device: str = "auto",
    threads: int | None = None,
    limit: int = 5000,
    floor: float | None = None,
) -> dict[str, Any]:
    """Measure the tokenizer of `run` and the simple methods on one split, print a table, and write it all.

    Args:
        run: folder that `train.tokenizer.pretrain` wrote.
        shards: folders to measure on, and whose train split the simple methods learn from; those of the pretraining
            by default.
        split: `val`, or `test`, which is touched only where it is named.
        limit: train spectra at most for the components, from every data set its share, and one at least.
        floor: of the errors, see `PretrainConfig`; that of the pretraining by default. Tokenizers that learnt with
            different ones compare with one.

    Returns:
        The content of `<run>/comparison_<split>.json`: data, methods, and `scores`: group (`all`, `survey <name>`)
        -> column -> `count` and by method `mean` and `median`; neither where no spectrum counts, None where a method
        gave no numbers.

    Raises:
        UsageError: no such tokenizer, split or shards. JobError: a damaged tokenizer or damaged shards.
    """
    if split not in SPLITS:
        raise UsageError(f"unknown split {split}: choose {' or '.join(SPLITS)}")
    if limit < 2:
        raise UsageError(f"limit {limit}: give at least 2 train spectra")
    if floor is not None and not 0 <= floor < 1:
        raise UsageError(f"floor {floor}: give a share, 0 to below 1")
    model, config, card = open_run(run)
    floor = config.floor if floor is None else floor
    folders = [str(folder) for folder in shards] or [record["folder"] for record in card["data"]]
    manifests = [Manifest.load(location(folder)) for folder in folders]
    if config.lsf and (line := told(folders, manifests)) is not None:
        LOGGER.info(line)
    accelerator = make_accelerator(device, config.precision)
    train = [(folder, manifest.samples("train")) for folder, manifest in zip(folders, manifests, strict=True)]
    if not any(size for _, size in train):
        raise UsageError(f"{', '.join(folders)}: the train split is empty; use more objects")
    where: dict[str, Any] = {"view": "spectra", "shuffle": False, "threads": threads}
    with shard_loader.open(folders, split, config.batch_size, **where) as loader:
        surveys = np.asarray(loader.sidecar(["survey"])["survey"].to_pylist(), object)
        network = _Network(accelerator.prepare(model.to(accelerator.device)).eval(), accelerator)
        patch, width = model.config.patch, model.config.width
        methods, record = _methods(network, train, limit, threads, patch, width, floor)
        values = measure(_shown(map(_valid, loader.spectra()), loader.samples), methods, patch, floor)
    data = data_record(folders, manifests)
    content = finite({
        "split": split, "mock": card["mock"] or any(manifest.mock for manifest in manifests), "model": card["model"],
        "best": card["best"], "size": config.size, "masked": config.masked, "floor": floor,
        "hidden_share": HIDDEN, "data": data,
        "other_data": [d["fingerprint"] for d in data] != [d["fingerprint"] for d in card["data"]],
        "methods": {**record, "tokenizer": {"width": width, "patch": patch}},
        "scores": {
            "all": summary(values),
            **{f"survey {name}": summary(values, surveys == name) for name in sorted(set(surveys))},
        },
    })  # fmt: skip
    write_text(run / f"comparison_{split}.json", json.dumps(content, indent=1, sort_keys=True) + "\n")
    LOGGER.info(table(content))
    return content


def trials(batch: Stack, patch: int, hiding: torch.Generator, noise: torch.Generator) -> dict[str, Trial]:
    """By the name of the column; see the module."""
    pixels = scaled(batch["flux"], batch["ivar"])
    good, ivar = pixels.good, batch["ivar"]
    flux = torch.where(good, batch["flux"], 0)
    hidden = hide(batch, patch, HIDDEN, hiding)
    draw = torch.randn(flux.shape, generator=noise)
    error = torch.where(good, ivar.clamp_min(torch.finfo(ivar.dtype).tiny).rsqrt(), 0)
    against = pixels._replace(flux=pixels.flux - draw * pixels.error, error=2**0.5 * pixels.error)

    def given(flux: Tensor, ivar: Tensor) -> Stack:
        return cast(Stack, {**spectra_of(batch), "flux": flux, "ivar": ivar, "length": batch["length"]})

    return {
        "seen": Trial(given(flux, ivar), pixels, good),
        "hidden": Trial(given(flux.where(~hidden, 0), ivar.where(~hidden, 0)), pixels, hidden),
        "noise": Trial(given(flux + draw * error, ivar / 2), against, good & (pixels.error > 0)),
    }


def measure(
    batches: Iterable[Stack], methods: Mapping[str, Mapping[str, Drawer]], patch: int, floor: float
) -> Values:
    """Let every method draw every spectrum; the same patches are hidden, and the same noise added, every time.

    Args:
        methods: column -> name -> method.
    """
    hiding, noise = (torch.Generator().manual_seed(seed) for seed in (0, 1))
    found: dict[str, dict[str, list[Tensor]]] = {
        column: {name: [] for name in by_name} for column, by_name in methods.items()
    }
    for batch in batches:
        for column, trial in trials(batch, patch, hiding, noise).items():
            for name, method in methods[column].items():
                drawn = method(trial.given) / trial.target.scale
                mean, some = per_object(chi2(drawn, trial.target, floor).double(), trial.scored)
                # What is no number is as wrong as can be, and must not be left out.
                found[column][name].append(torch.where(some, mean.nan_to_num(torch.inf, torch.inf), torch.nan))
    return {column: {name: torch.cat(parts).numpy() for name, parts in by_name.items()}
            for column, by_name in found.items()}  # fmt: skip


def summary(values: Values, which: Any = slice(None)) -> dict[str, dict[str, Any]]:
    """Column -> `count` and method -> mean and median over the spectra of `which`, nothing where none counts."""
    entries: dict[str, dict[str, Any]] = {}
    for column, by_method in values.items():
        chosen = {name: each[which][~np.isnan(each[which])] for name, each in by_method.items()}
        entries[column] = {"count": max(map(len, chosen.values()))}
        for name, each in chosen.items():
            known = {"mean": float(each.mean()), "median": float(np.median(each))} if len(each) else {}
            entries[column][name] = known
    return entries


def table(content: Mapping[str, Any]) -> str:
    """What there is to read: a block for all, and one a survey where there are several."""
    pca, window = content["methods"]["pca"], content["methods"]["median"]["window"]
    lines = ["MOCK data"] if content["mock"] else []
    if content["other_data"]:
        lines.append("other data than the tokenizer learnt from; the simple methods learnt from their train split")
    lines.append(f"{content['split']}: squared residual in variances, mean (median) over the spectra")
    groups = dict(content["scores"])
    if len(groups) == 2:
        del groups["all"]
    for group, columns in groups.items():
        counts = "".join(f"{name + ', ' + format(columns[name]['count'], ','):>22}" for name in COLUMNS)
        lines.append(f"{group.removeprefix('survey '):<12}{counts}")
        for method in columns["seen"]:
            if method != "count":
                lines.append(f"  {method:<10}" + "".join(_cell(columns[name].get(method)) for name in COLUMNS))
    spoken = ", ".join(f"{window[name]} for {name}" for name in COLUMNS)
    less = " (less with a floor)" if content["floor"] else ""
    if not content["masked"]:
        lines.append("this tokenizer was taught without hidden patches: that column asks for what it never learnt")
    lines += [
        f"median of {spoken} pixels; {pca['components']:,} components of {pca['train_objects']:,} train spectra",
        f"expected where errors are right{less}: the true spectrum 1 everywhere, a copy 0 in seen and 2 in noise",
    ]
    return "\n".join(lines)


class _Network:
    """The tokenizer as a method."""

    def __init__(self, model: nn.Module, accelerator: Accelerator) -> None:
        self._model, self._accelerator = model, accelerator

    def __call__(self, batch: Stack) -> Tensor:
        with torch.inference_mode(), self._accelerator.autocast():
            drawn: Tensor = self._model(model_input(batch)).float().cpu()
        return drawn * scaled(batch["flux"], batch["ivar"]).scale


def _methods(
    network: Drawer, train: Sequence[tuple[str, int]], limit: int, threads: int | None, patch: int, width: int,
    floor: float,
) -> tuple[dict[str, dict[str, Drawer]], dict[str, Any]]:  # fmt: skip
    """Column -> name -> method, those that learn fitted to the train split; and what they learnt, JSON-able."""
    ways: dict[str, Drawer] = {str(window): RunningMedian(window) for window in WINDOWS}
    some = _read(train, min(limit, CHOOSING), threads)
    tried = summary(measure(some, dict.fromkeys(COLUMNS, ways), patch, floor))
    # A column that no train spectrum counts in has no best window.
    best = {c: min(ways, key=lambda window: by_window[window].get("mean", 0)) for c, by_window in tried.items()}
    pca = Principal.learn(lambda: _read(train, limit, threads), width, floor)
    record = {
        "median": {"window": {column: int(window) for column, window in best.items()}, "tried": tried},
        "pca": {"components": len(pca.variance), "train_objects": pca.objects, "limit": limit,
                "bins": len(pca.mean), "low": pca.edges[0], "high": pca.edges[-1], "bins_filled": pca.missing},
    }  # fmt: skip
    methods: dict[str, dict[str, Drawer]] = {
        column: {"constant": Constant(floor), "median": ways[best[column]], "pca": pca, "tokenizer": network}
        for column in COLUMNS
    }
    return {**methods, **{c: {**methods[c], "copy": copy} for c in ("seen", "noise")}}, record


def _read(train: Sequence[tuple[str, int]], limit: int, threads: int | None) -> Iterator[Stack]:
    """`limit` train spectra, of each data set (folder and size) its share, one at least; the same every time."""
    total = sum(size for _, size in train)
    for folder, size in train:
        wanted = min(size, max(1, limit * size // total))
        if not wanted:
            continue
        # Every shard mixes its whole data set, so that the beginning of a shuffled epoch is a fair sample of it.
        with shard_loader.open(folder, "train", _BATCH, view="spectra", shuffle=True, threads=threads) as loader:
            for batch in loader.spectra():
                part = _valid(batch, wanted)
                yield part
                wanted -= len(part["flux"])
                if not wanted:
                    break
            loader.verified()


def _valid(batch: SpectraBatch, most: int | None = None) -> Stack:
    """The samples that count, the first `most` of them."""
    keep = torch.nonzero(batch["valid"])[:most, 0]
    return cast(
        Stack, {name: values[keep] for name, values in {**spectra_of(batch), "length": batch["length"]}.items()}
    )


def _shown(batches: Iterable[Stack], total: int) -> Iterator[Stack]:
    """The batches, with a bar on standard error."""
    with tqdm(total=total, unit="obj", desc="compare", file=sys.stderr, delay=1) as bar:
        for batch in batches:
            yield batch
            bar.update(len(batch["flux"]))


def _cell(entry: Mapping[str, float | None] | None) -> str:
    if not entry:
        return f"{'-':>22}"
    mean, median = (f"{v:,.4g}" if v is not None else "infinite" for v in map(entry.get, ("mean", "median")))
    return f"{mean + ' (' + median + ')':>22}"
