"""Baselines from the spectra themselves: nearest neighbours, a random forest and support vectors, by scikit-learn.

    baselines = fit_classical(tasks, ["data/lamost/shards/map2d"])     # shards made with ENCODING=flux
    baselines.predict("val")["forest"]["teff"]                         # float64, in the order of the sidecar

Each spectrum is brought to one grid in log wavelength, divided by its median, clipped, and projected on principal
components; what that needs is learnt on the train split, and what is to be chosen is chosen on validation. Only
predictions are stored, never a model: those of scikit-learn can be kept by pickle alone.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.svm import SVC, SVR

from specshards.common.errors import UsageError
from specshards.common.files import location
from specshards.common.jobs import cores
from specshards.common.messages import LOGGER
from specshards.shards import loader as shard_loader
from specshards.shards.format.manifest import Manifest
from specshards.shards.loader.batch import SpectraBatch
from specshards.shards.loader.stack import log_bins
from specshards.train.evaluation import predictions
from specshards.train.evaluation.features import Features, Places, Projection, normalised
from specshards.train.tasks.metrics import FloatArray
from specshards.train.tasks.task import OF_DISTRIBUTIONS, Task

#: What is tried on validation, by the name of the baseline. Components are divided by their standard deviation to the
#: power of `power`: 0 lets the continuum rule, 1 makes every component alike, noise and all.
GRIDS: dict[str, list[dict[str, Any]]] = {
    "knn": [{"power": p, "n_neighbors": k} for p, k in itertools.product((0.0, 0.5, 1.0), (5, 15, 40))],
    "forest": [{"power": 0.0, "min_samples_leaf": leaf} for leaf in (1, 4)],
    "svm": [{"power": p, "C": c} for p, c in itertools.product((0.0, 0.5), (1.0, 10.0, 100.0))],
}
#: Support vectors cost more than the square of their number.
MOST_FOR_SVM = 10_000
#: Width of a bin in log10 wavelength: three pixels of SDSS and LAMOST, 207 km/s.
STEP = 3e-4
#: The grid reaches over what this share of the train objects of every survey has good pixels of, at either end.
REACH = 0.95
#: A survey that has fewer objects than this share of the largest one does not narrow the grid.
LEAST_SHARE = 0.05
TREES = 200
#: Objects of validation that the choice rests on at most, and of a split that are answered beside a model.
MOST_TO_CHOOSE = 20_000
MOST_ANSWERED = 100_000
_BATCH = 256
_ANSWERED = 16_384  # spectra that are answered at a time


@dataclass
class Classical:
    """Fitted baselines of some tasks.

    Attributes:
        folders: of the shards with spectra.
        record: JSON-able: data, grid, components, counts, what was tried and chosen, seconds.
    """

    tasks: tuple[Task, ...]
    folders: tuple[str, ...]
    record: dict[str, Any]
    _projection: Projection
    _threads: int
    _models: dict[tuple[str, str], _Fitted] = field(default_factory=dict)

    def features(self, split: str, rows: Places | None = None) -> Features:
        """Components of spectra of a split, float32 `(rows, k)`.

        Args:
            rows: places in the sidecar; all by default, in its order.
        """
        with _open(self.folders, split, self._threads) as loader:
            rows = np.arange(loader.samples) if rows is None else rows
            found = np.empty((len(rows), int(self._projection.pca.n_components_)), np.float32)

            def take(batch: SpectraBatch, inside: Places, places: Places) -> None:
                found[places] = self._projection(normalised(batch, inside, self._projection.edges)[0])

            _visit(loader, rows, take)
        return found

    def predict(self, split: str, rows: Places | None = None) -> dict[str, dict[str, FloatArray]]:
        """Baseline -> task -> answers float64 `(rows,)`: a class's position, or a number in the label's unit.

        Spectra are answered as they are read: of each its answers stay.

        Args:
            rows: places in the sidecar; all by default, in its order.

        Raises:
            UsageError: an unknown or empty split.
        """
        with _open(self.folders, split, self._threads) as loader:
            rows = np.arange(loader.samples) if rows is None else rows
            answers = {name: {task.name: np.empty(len(rows)) for task in self.tasks} for name in GRIDS}
            waiting: list[tuple[Places, Features]] = []

            def answer() -> None:
                places, features = (np.concatenate(parts) for parts in zip(*waiting, strict=True))
                waiting.clear()
                for name, by_task in answers.items():
                    for task in self.tasks:
                        by_task[task.name][places] = self._models[name, task.name].predict(task, features)

            def take(batch: SpectraBatch, inside: Places, places: Places) -> None:
                flux, _ = normalised(batch, inside, self._projection.edges)
                waiting.append((places, self._projection(flux)))
                if sum(len(places) for places, _ in waiting) >= _ANSWERED:
                    answer()

            _visit(loader, rows, take)
            if waiting:
                answer()
        return answers

    def sidecar(self, split: str, columns: Sequence[str]) -> pa.Table:
        """Columns of the split's table, one row a prediction; `key` is the first."""
        with _open(self.folders, split, self._threads) as loader:
            return loader.sidecar(columns)

    def write(self, run: Path, splits: Sequence[str] = ("val", "test")) -> Path:
        """Predict splits that are not empty and write `run/baselines.parquet`; `train.evaluation.predictions`.

        Of a split of more than `MOST_ANSWERED` objects as many are answered, drawn by the seed; it is said, also in
        the record as `answered`.
        """
        manifests = [Manifest.load(location(folder)) for folder in self.folders]
        answered: dict[str, dict[str, int]] = {}
        parts = {}
        for split in splits:
            if not (count := sum(manifest.samples(split) for manifest in manifests)):
                continue
            rows = _sample(count, MOST_ANSWERED, self.record["seed"])
            table = self.sidecar(split, predictions.IDENTITY)
            if len(rows) < count:
                answered[split], table = {"objects": count, "answered": len(rows)}, table.take(rows)
                LOGGER.info(
                    f"answered: {len(rows):,} of {count:,} {split} spectra, drawn by seed {self.record['seed']}"
                )
            parts[split] = table, self.predict(split, rows)
        return predictions.write(run, parts, {**self.record, **({"answered": answered} if answered else {})})


@dataclass(frozen=True)
class _Fitted:
    """An estimator and what its features are divided by."""

    estimator: Any
    scale: Features

    def predict(self, task: Task, features: Features) -> FloatArray:
        return task.from_estimator(np.asarray(self.estimator.predict(features / self.scale), np.float64))


def fit_classical(
    tasks: Sequence[Task],
    folders: Sequence[str],
    *,
    seed: int = 0,
    limit: int = 20_000,
    threads: int | None = None,
) -> Classical:
    """Fit every baseline to every task on the train split, choosing between `GRIDS` on validation.

    The choice falls by the metric that chooses the best epoch of a model. Rows without the label are left out.

    Args:
        folders: shards made with ENCODING=flux.
        limit: train objects at most, drawn by `seed` from those that have any of the labels; for support vectors,
            `MOST_FOR_SVM` of them. What the cap is goes to standard error and to the record.
        threads: of the loader and of scikit-learn; all cores by default.

    Raises:
        UsageError: the shards hold pictures, no range is common to all surveys, or fewer than two train objects have
            a label of a task. JobError: damaged shards.
    """
    began = time.perf_counter()
    if limit < 2:
        raise UsageError(f"limit {limit}: give at least 2 train objects")
    threads, folders = threads or cores(), tuple(map(str, folders))
    labels = sorted({name for task in tasks for name in task.columns})
    with _open(folders, "train", threads) as loader:
        table = loader.sidecar(["survey", *labels])
        targets = {task.name: task.targets(table) for task in tasks}
        for task in tasks:
            if np.isfinite(targets[task.name]).sum() < 2:
                raise UsageError(
                    f"{', '.join(folders)}: fewer than two train objects{task.whose} have a {task.label}"
                )
        rows = _choose(np.any([np.isfinite(column) for column in targets.values()], axis=0), limit, seed)
        surveys = np.asarray(table["survey"].take(rows).to_pylist(), object)
        edges, ranges = _grid(loader, rows, surveys, ", ".join(folders))
        flux, outside = _read(loader, rows, edges)
        manifests = loader.manifests
    projection = Projection.learn(flux, edges)
    features = projection(flux)
    record: dict[str, Any] = {
        "mock": any(manifest.mock for manifest in manifests), "seed": seed, "limit": limit,
        "data": [{"folder": f, "fingerprint": m.fingerprint()} for f, m in zip(folders, manifests, strict=True)],
        "train_objects": table.num_rows, "train_used": len(rows), "without_good_bin": outside,
        "grid": {"low": float(edges[0]), "high": float(edges[-1]), "bins": len(edges) - 1, "step_dex": STEP,
                 "ranges": ranges},
        "pca": {"components": int(projection.pca.n_components_),
                "explained_variance": [float(v) for v in projection.pca.explained_variance_ratio_]},
        "choices": {},
    }  # fmt: skip
    fitted = Classical(tuple(tasks), folders, record, projection, threads)
    LOGGER.info(
        f"{'MOCK data: ' if record['mock'] else ''}classical baselines on {len(rows):,} of {table.num_rows:,} train "
        f"spectra (limit {limit:,}; support vectors {MOST_FOR_SVM:,})"
    )
    val = _validation(fitted, manifests, labels)
    for task in tasks:
        for name in GRIDS:
            target = targets[task.name][rows]
            _fit_one(fitted, name, task, features, target, val, seed)
    record["seconds"] = time.perf_counter() - began
    return fitted


def _choose(known: npt.NDArray[np.bool_], limit: int, seed: int) -> Places:
    """At most `limit` of the rows that are known, in a random order."""
    return np.random.default_rng(seed).permutation(np.flatnonzero(known))[:limit]


def _sample(count: int, limit: int, seed: int) -> Places:
    """At most `limit` of so many rows, in their order."""
    return np.sort(_choose(np.ones(count, np.bool_), limit, seed))


def _grid(
    loader: shard_loader.Loader, rows: npt.NDArray[np.int64], surveys: npt.NDArray[np.object_], where: str
) -> tuple[npt.NDArray[np.float64], dict[str, list[float]]]:
    """Edges of the bins over the range that all surveys share, and each survey's own range.

    A survey's range begins where `REACH` of its spectra have begun and ends where as many still go on, from the first
    to the last good pixel.
    """
    ends = np.full((len(rows), 2), np.nan)

    def look(batch: SpectraBatch, inside: Places, places: Places) -> None:
        good, wavelength = batch["ivar"].numpy()[inside] > 0, batch["wavelength"].numpy()[inside]
        ends[places, 0] = np.where(good, wavelength, np.inf).min(axis=1)
        ends[places, 1] = np.where(good, wavelength, -np.inf).max(axis=1)

    _visit(loader, rows, look)
    ranges, low, high = {}, 0.0, np.inf
    most = max(np.unique(surveys, return_counts=True)[1])
    for survey in sorted(set(surveys)):
        own = ends[(surveys == survey) & np.isfinite(ends).all(axis=1)]
        if not len(own):
            continue
        first, last = np.quantile(own[:, 0], REACH), np.quantile(own[:, 1], 1 - REACH)
        ranges[str(survey)] = [float(first), float(last)]
        if (surveys == survey).sum() >= LEAST_SHARE * most:
            low, high = max(low, first), min(high, last)
    if not 0 < low * 10 ** (2 * STEP) < high < np.inf:
        spoken = ", ".join(f"{name} {first:.0f} to {last:.0f} A" for name, (first, last) in ranges.items())
        raise UsageError(f"{where}: the surveys share no range of wavelengths ({spoken}); give shards that do")
    return log_bins(low, high, STEP), ranges


def _read(
    loader: shard_loader.Loader, rows: npt.NDArray[np.int64], edges: npt.NDArray[np.float64]
) -> tuple[Features, int]:
    """Normalised spectra of some rows, float32 `(len(rows), bins)`, and how many have no good bin."""
    flux = np.empty((len(rows), len(edges) - 1), np.float32)
    empty = 0

    def take(batch: SpectraBatch, inside: Places, places: Places) -> None:
        nonlocal empty
        flux[places], without = normalised(batch, inside, edges)
        empty += without

    _visit(loader, rows, take)
    return flux, empty


def _visit(loader: shard_loader.Loader, rows: npt.NDArray[np.int64], work: Callable[[Any, Any, Any], None]) -> None:
    """One pass in the order of the sidecar: `work(batch, places in it, places in rows)` where it holds some."""
    place = np.full(loader.samples, -1, np.int32)
    place[rows] = np.arange(len(rows))
    for number, batch in enumerate(loader.spectra()):
        here = place[number * _BATCH : (number + 1) * _BATCH]
        inside = np.flatnonzero(here >= 0)
        if len(inside):
            work(batch, inside, here[inside].astype(np.int64))


def _validation(
    fitted: Classical, manifests: Sequence[Manifest], labels: Sequence[str]
) -> tuple[Features, dict[str, FloatArray]] | None:
    """Features and targets of the validation split, or of a sample of it; None where it is empty."""
    if not any(manifest.samples("val") for manifest in manifests):
        return None
    table = fitted.sidecar("val", labels)
    rows = _sample(table.num_rows, MOST_TO_CHOOSE, fitted.record["seed"])
    fitted.record["validation"] = {"objects": table.num_rows, "used": len(rows)}
    if len(rows) < table.num_rows:
        LOGGER.info(f"chosen on {len(rows):,} of {table.num_rows:,} validation spectra, drawn by the seed")
        table = table.take(rows)
    return fitted.features("val", rows), {task.name: task.targets(table) for task in fitted.tasks}


def _fit_one(
    fitted: Classical, name: str, task: Task, features: Features, target: FloatArray,
    val: tuple[Features, dict[str, FloatArray]] | None, seed: int,
) -> None:  # fmt: skip
    """Fit every entry of a grid, keep the best on validation, and write down what was tried."""
    began = time.perf_counter()
    known = np.flatnonzero(np.isfinite(target))[: MOST_FOR_SVM if name == "svm" else None]
    x, y = features[known], task.to_estimator(target[known])
    metric, more = task.criterion
    if metric in OF_DISTRIBUTIONS:  # of which these have none
        metric, more = task.best
    tried: list[dict[str, Any]] = []
    models: list[_Fitted] = []
    for options in GRIDS[name]:
        scale = x.std(axis=0) ** np.float32(options["power"])
        scale[scale == 0] = 1
        estimator = _estimator(name, task, y, options, seed, fitted._threads).fit(x / scale, y)
        models.append(_Fitted(estimator, scale))
        tried.append({**options, metric: _measure(task, metric, models[-1], val)})
    values = [entry[metric] for entry in tried]
    ranked = [(-v if more else v) if v is not None else np.inf for v in values]
    best = int(np.argmin(ranked))
    fitted._models[name, task.name] = models[best]
    fitted.record["choices"].setdefault(name, {})[task.name] = {
        "chosen": GRIDS[name][best], "by": f"{metric} on validation" if values[best] is not None else "the first",
        "tried": tried, "train_used": len(known), "seconds": time.perf_counter() - began,
    }  # fmt: skip


def _measure(
    task: Task, metric: str, model: _Fitted, val: tuple[Features, dict[str, FloatArray]] | None
) -> float | None:
    if val is None:
        return None
    features, targets = val
    known = np.isfinite(targets[task.name])
    labels = {"class": np.full(known.sum(), np.nan), task.target: targets[task.name][known]}
    value = task.measure({"point": model.predict(task, features[known])}, labels)[metric] if known.any() else np.nan
    return float(value) if np.isfinite(value) else None


def _estimator(name: str, task: Task, y: FloatArray, options: Mapping[str, Any], seed: int, threads: int) -> Any:
    """An estimator of scikit-learn, not fitted yet."""
    numbers = task.estimator == "regressor"
    if not numbers and len(np.unique(y)) < 2:
        return DummyClassifier(strategy="most_frequent")
    if name == "knn":
        knn = KNeighborsRegressor if numbers else KNeighborsClassifier
        return knn(min(options["n_neighbors"], len(y)), weights="distance", n_jobs=threads)
    if name == "forest":
        forest = RandomForestRegressor if numbers else RandomForestClassifier
        return forest(
            TREES, max_features=1 / 3, min_samples_leaf=options["min_samples_leaf"], random_state=seed, n_jobs=threads
        )
    return SVR(C=options["C"], epsilon=0.05) if numbers else SVC(C=options["C"])


def _open(folders: Sequence[str], split: str, threads: int) -> shard_loader.Loader:
    """Every spectrum of a split once, in the order of the sidecar."""
    return shard_loader.open(folders, split, _BATCH, view="spectra", shuffle=False, threads=threads)
