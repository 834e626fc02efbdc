"""Answers that nobody gave: objects and predictions whose numbers can be computed by hand."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from specshards.train.paper.answers import Answers, rows, together
from specshards.train.paper.objects import Objects
from specshards.train.paper.study import Study

CLASSES = ("STAR", "GALAXY", "QSO")
SPLITS = ("train", "val", "test")


def made_up(n: int = 900, seed: int = 3, sets: tuple[str, ...] = ("sdss", "sdss + lamost")) -> Study:
    """A study of two sets, one of them of two surveys, with every task and picture, and other methods of two."""
    rng = np.random.default_rng(seed)
    objects, parts = {}, []
    for place, name in enumerate(sets):
        m = n * (1 + place)
        classes = rng.choice([0.0, 1.0, 2.0, np.nan], m, p=[0.5, 0.3, 0.18, 0.02])
        z = np.where(classes == 1, rng.gamma(2, 0.15, m), np.where(classes == 2, rng.uniform(0.3, 3.5, m), 0.0))
        z = z + rng.normal(0, 2e-4, m)
        sn = np.where(rng.random(m) < 0.03, np.nan, rng.gamma(1.5, 12, m))
        stellar = {"teff": rng.normal(5600, 700, m), "logg": rng.normal(3.9, 0.6, m), "feh": rng.normal(-0.4, 0.4, m)}
        stellar = {label: np.where(classes == 0, values, np.nan) for label, values in stellar.items()}
        surveys = np.where(np.arange(m) < n, "sdss", "lamost").astype(object)
        splits = rng.choice(SPLITS, m, p=[0.6, 0.2, 0.2]).astype(object)
        objects[name] = Objects(surveys, splits, classes, {"z": z, **stellar, "sn_survey": sn, "sn_median": sn / 2})
        test = splits == "test"
        k = int(test.sum())
        kinds = [None if np.isnan(c) else CLASSES[int(c)] for c in classes[test]]
        sidecar = pa.table({
            "survey": surveys[test].tolist(), "object_id": [f"{name}-{i}" for i in range(k)],
            "source_file": ["made-up"] * k, "class": pa.array(kinds, pa.string()),
            # Every tenth object is a second visit of the one before it.
            "ra": np.linspace(10, 200, k) - np.where(np.arange(k) % 10 == 9, 190 / (k - 1), 0), "dec": np.zeros(k),
            "sn_survey": pa.array(sn[test], from_pandas=True), "sn_median": pa.array(sn[test] / 2, from_pandas=True),
        })  # fmt: skip
        truth = {"classify": classes[test], "redshift": z[test], **{t: v[test] for t, v in stellar.items()}}
        for method in ("simple", "overlap", "map2d", "mega", "svm", "forest", "sequence"):
            for task, true in truth.items():
                if method in ("svm", "forest", "sequence") and task not in ("classify", "redshift"):
                    continue
                if task == "classify":
                    answer = np.where(rng.random(k) < 0.9, true, rng.integers(0, 3, k))
                elif task == "redshift":
                    width = np.where(truth["classify"] == 2, 0.02, 0.002) * (1 + true)
                    answer = true + rng.standard_t(2, k) * width
                else:
                    answer = true + rng.normal(0, 0.4 * np.nanstd(true), k)
                crps = None
                if task == "redshift" and method not in ("svm", "forest"):
                    crps = np.abs(np.log1p(answer) - np.log1p(true))
                parts.append(rows(name, task, method, sidecar, true, answer, crps))
    return Study(together(parts), objects, {(name, "data"): ("other objects",) for name in sets})


def again(study: Study, table: pa.Table) -> Study:
    """The same with other answers."""
    return Study(Answers(table), study.objects, study.notes, study.absent, study.chosen, study.runs)
