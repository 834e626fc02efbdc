"""What models said of every object of the test split: `answers.parquet`, one row an object, picture and task.

set        name of the data set that the model was trained and tested on
task       classify, redshift, teff, logg, feh
picture    simple, overlap, map2d or mega of the vision transformer; forest, svm, sequence: methods without a picture
truth, answer     a number in the label's unit; of classify the position in STAR, GALAXY, QSO
crps       of redshift: of the predicted distribution, in ln(1 + z); null for other tasks and where there is none
class, survey, object_id, source_file, ra, dec     of the object; class is null where it has none
sn_survey, sn_median     the survey's own S/N, by which the paper's bins go, and ours
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from specshards.common.errors import JobError, shortened
from specshards.common.files import replacing
from specshards.common.identity import id_hashes
from specshards.common.spectrum import CLASSES
from specshards.train.evaluation.witnesses import visits
from specshards.train.tasks.coded import Coded
from specshards.train.tasks.metrics import BoolArray, FloatArray, IntArray
from specshards.train.tasks.transforms import TRANSFORMS

FILE = "answers.parquet"
SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("set", "task", "picture", "survey", "object_id", "source_file", "class")),
        *((name, pa.float64()) for name in ("ra", "dec", "sn_survey", "sn_median", "truth", "answer", "crps")),
    ]
)
#: Columns of a sidecar that every row has.
OF_OBJECT = ("survey", "object_id", "source_file", "class", "ra", "dec", "sn_survey", "sn_median")


@dataclass(frozen=True)
class Block:
    """The answers of one method to one task on one set; N objects with a truth and an answer.

    Attributes:
        true, answer, crps: float64 `(N,)`.
        classes: positions in `CLASSES`, NaN = none. sn: `sn_survey`, NaN = missing.
        objects: int `(N,)`, which rows are visits of one object; None where they are not known.
        surveys: names, object `(N,)`.
    """

    true: FloatArray
    answer: FloatArray
    crps: FloatArray
    classes: FloatArray
    sn: FloatArray
    objects: IntArray | None = None
    surveys: npt.NDArray[Any] = field(default_factory=lambda: np.empty(0, object))

    @classmethod
    def of(cls, table: pa.Table) -> Block:
        """Of the rows of a table of `SCHEMA`."""
        columns = {name: floats(table[name]) for name in ("truth", "answer", "crps", "sn_survey", "ra", "dec")}
        classes = class_positions(table["class"])
        known = np.isfinite(columns["truth"]) & np.isfinite(columns["answer"])
        objects = visits(columns["ra"], columns["dec"], id_hashes(table["survey"], table["object_id"]))
        block = cls(columns["truth"], columns["answer"], columns["crps"], classes, columns["sn_survey"], objects,
                    Coded.of(table["survey"]).names())  # fmt: skip
        return block.rows(known)

    def __len__(self) -> int:
        """N."""
        return len(self.true)

    def rows(self, which: BoolArray | IntArray) -> Block:
        """Some of the objects, by a mask or by places."""
        objects = None if self.objects is None else self.objects[which]
        return Block(self.true[which], self.answer[which], self.crps[which], self.classes[which], self.sn[which],
                     objects, self.surveys[which])  # fmt: skip

    def of_class(self, *names: str) -> Block:
        """The objects of these classes."""
        return self.rows(np.isin(self.classes, [CLASSES.index(name) for name in names]))

    @property
    def residuals(self) -> FloatArray:
        """Answer - truth."""
        return self.answer - self.true

    def of_survey(self, name: str) -> Block:
        """The objects of this survey."""
        return self.rows(np.asarray(self.surveys == name))

    def with_answer(self, value: float | FloatArray) -> Block:
        """Every object with this answer, one for all or `(N,)`; its CRPS is that of a point in ln(1 + z)."""
        flat = np.broadcast_to(np.asarray(value, np.float64), len(self))
        return replace(self, answer=flat, crps=log_error(self.true, flat))


def log_error(true: FloatArray, answer: FloatArray) -> FloatArray:
    """|ln(1 + answer) - ln(1 + true)|, float64 `(N,)`: the CRPS of a point in ln(1 + z)."""
    log = TRANSFORMS["log1p"].forward
    return np.abs(log(answer) - log(true))


class Answers:
    """The content of an `answers.parquet`."""

    def __init__(self, table: pa.Table) -> None:
        """Of a table of `SCHEMA`."""
        self.table = table
        self._blocks: dict[tuple[str, str, str], Block] = {}
        names = [Coded.of(table[name]) for name in ("set", "task", "picture")]
        shape = [len(each.texts) + 1 for each in names]
        # Of each block its rows, in the order in which blocks begin; a null has the last code of its column.
        block = np.zeros(len(table), np.int64)
        for each, n in zip(names, shape, strict=True):
            block = block * n + each.codes % n
        found, first, counts = np.unique(block, return_index=True, return_counts=True)
        order = np.argsort(block, kind="stable")
        ends = np.cumsum(counts)
        self._places: dict[tuple[str, str, str], IntArray] = {}
        for i in np.argsort(first):
            codes = np.unravel_index(found[i], shape)
            data_set, task, picture = ([*each.texts, ""][code] for each, code in zip(names, codes, strict=True))
            self._places[data_set, task, picture] = order[ends[i] - counts[i] : ends[i]]

    @property
    def sets(self) -> list[str]:
        """Names of the data sets, in the order of the rows."""
        return list(dict.fromkeys(key[0] for key in self._places))

    def pictures(self, data_set: str, task: str) -> list[str]:
        """What answered a task on a set."""
        return [key[2] for key in self._places if key[:2] == (data_set, task)]

    def block(self, data_set: str, task: str, picture: str) -> Block | None:
        """The answers, or None where nothing answered."""
        key = (data_set, task, picture)
        if key not in self._places:
            return None
        if key not in self._blocks:
            self._blocks[key] = Block.of(self.table.take(self._places[key]))
        return self._blocks[key]

    def write(self, path: Path) -> None:
        """As Parquet."""
        with replacing(path) as temporary:
            pq.write_table(self.table, temporary, compression="zstd")

    @classmethod
    def read(cls, path: Path) -> Answers:
        """The inverse of `write`.

        Raises:
            JobError: not such a file.
        """
        try:
            return cls(pq.read_table(path).select(SCHEMA.names).cast(SCHEMA))
        except (pa.ArrowException, OSError, KeyError) as error:
            raise JobError(f"{path}: not answers of this program ({shortened(error)}); remove it") from error


def rows(
    data_set: str, task: str, picture: str, sidecar: pa.Table, truth: FloatArray, answer: FloatArray,
    crps: FloatArray | None = None,
) -> pa.Table:  # fmt: skip
    """A table of `SCHEMA` from the answers of one method, float64 `(N,)`, in the order of the sidecar's rows."""
    n = sidecar.num_rows
    columns = {name: pa.array([value] * n, pa.string())
               for name, value in (("set", data_set), ("task", task), ("picture", picture))}  # fmt: skip
    for name in OF_OBJECT:
        there = name in sidecar.column_names
        columns[name] = sidecar[name] if there else pa.nulls(n, SCHEMA.field(name).type)
    missing = pa.nulls(n, pa.float64())
    columns |= {"truth": pa.array(truth, from_pandas=True), "answer": pa.array(answer, from_pandas=True)}
    columns["crps"] = missing if crps is None else pa.array(crps, from_pandas=True)
    return pa.table([columns[name] for name in SCHEMA.names], SCHEMA.names).cast(SCHEMA)


def together(parts: Sequence[pa.Table]) -> Answers:
    """The answers of several methods."""
    return Answers(pa.concat_tables(parts) if parts else SCHEMA.empty_table())


def class_positions(column: pa.ChunkedArray) -> FloatArray:
    """Of names of classes their positions in `CLASSES`, float64 `(N,)`, NaN where it is another or none."""
    positions = {name: float(i) for i, name in enumerate(CLASSES)}
    return Coded.of(column).numbers(lambda name: positions.get(name, np.nan))


def floats(column: pa.ChunkedArray) -> FloatArray:
    """Float64 `(N,)`, NaN where it is null."""
    return np.asarray(column.cast(pa.float64()).fill_null(float("nan")).to_numpy(), np.float64)
