"""Telling kinds of objects apart: the three classes, or the spectral types that the train split holds."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
import torch.nn.functional as F
from torch import Tensor

from specshards.train.tasks import metrics
from specshards.train.tasks.metrics import FloatArray

_TYPES = "OBAFGKMLT"
#: A spectral type with fewer objects in the train split is not learnt, and counts as missing.
FEWEST = 10


@dataclass(frozen=True)
class Classification:
    """One of several classes, by cross-entropy.

    Attributes:
        classes: names; `subclass` has the spectral types of the train split.
        shares: of each class among the labelled objects of the train split.
        balance: `none`; `weights` lets each class count alike in the loss; `logits` adds the log of the shares to the
            logits while training, which aims at balanced accuracy (Menon et al. 2021).
    """

    classes: tuple[str, ...]
    name: str = "classify"
    shares: tuple[float, ...] = ()
    balance: str = "none"
    unit: ClassVar[str] = ""
    best: ClassVar[tuple[str, bool]] = ("macro_f1", True)
    filler: ClassVar[float] = 0.0

    @property
    def label(self) -> str:
        """`class` or `subclass`."""
        return "class" if self.name == "classify" else self.name

    @property
    def head_size(self) -> int:
        """One output per class."""
        return len(self.classes)

    def targets(self, sidecar: pa.Table) -> FloatArray:
        """Positions in `classes`, float64 `(N,)`, of a sidecar's rows; NaN where it has none of them."""
        places = {name: float(i) for i, name in enumerate(self.classes)}
        read = spectral_type if self.name == "subclass" else str
        known: dict[str | None, float] = {None: float("nan")}
        texts = sidecar[self.label].to_pylist()
        for text in set(texts) - {None}:
            known[text] = places.get(read(text) or "", float("nan"))
        return np.array([known[text] for text in texts], np.float64)

    def sample_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy of every sample, balanced as asked for."""
        shares = torch.tensor(self.shares, device=logits.device, dtype=logits.dtype)
        if self.balance == "logits":
            logits = logits + shares.clamp_min(1e-6).log()
        loss = F.cross_entropy(logits, target.long(), reduction="none")
        if self.balance == "weights":
            weights = torch.where(shares > 0, 1 / (shares * (shares > 0).sum()).clamp_min(1e-6), 0.0)
            loss = loss * weights[target.long()]
        return loss

    def decode(self, logits: Tensor) -> dict[str, FloatArray]:
        """`point`: position of the likeliest class; `p_<class>`: probabilities that add up to 1."""
        probabilities = logits.cpu().double().softmax(dim=1).numpy()
        columns = {f"p_{name}": probabilities[:, i] for i, name in enumerate(self.classes)}
        return {"point": probabilities.argmax(axis=1).astype(np.float64), **columns}

    def calibration(self, logits: Tensor, label: FloatArray) -> dict[str, FloatArray]:
        """Nothing: what is needed is in the probabilities."""
        return {}

    def measure(self, columns: Mapping[str, FloatArray], labels: Mapping[str, FloatArray]) -> dict[str, Any]:
        """Accuracy, macro F1, and recall, precision, F1 and count of each class; confusion[true][predicted].

        With probabilities also the negative log likelihood and the expected calibration error.
        """
        true = labels[self.label].astype(int)
        result = metrics.classification(true, columns["point"].astype(int), self.classes)
        if f"p_{self.classes[0]}" in columns:
            probabilities = np.column_stack([columns[f"p_{name}"] for name in self.classes])
            result |= metrics.probabilistic(true, probabilities)
        return result

    def to_dict(self) -> dict[str, Any]:
        """JSON-able content."""
        return {"name": self.name, "classes": list(self.classes), "shares": list(self.shares),
                "balance": self.balance}  # fmt: skip


def spectral_type(subclass: str) -> str | None:
    """The coarse type in a survey's subclass: `F` of `F5`, `dM3` or `A1V`; other kinds by their first word.

    A luminosity prefix (d, g, sd, esd, usd) is dropped. `WD`, `Carbon`, `STARFORMING`, `AGN` and the like are types
    of their own; None for an empty text and for LAMOST's `Non`.
    """
    text = subclass.strip()
    found = re.match(rf"(?:[ud]?s?d|esd|g)?([{_TYPES}])(?=[\d\sIV.:(+/em]|$)", text)
    if found:
        return found.group(1)
    word = re.match(r"[A-Za-z]+", text)
    return word.group(0).upper() if word and word.group(0) != "Non" else None


def types_present(subclasses: npt.NDArray[np.object_] | Sequence[str | None]) -> dict[str, int]:
    """Types with at least `FEWEST` objects and how many, hot stars first, what is no star's type after them."""
    counts: Counter[str] = Counter()
    for text, n in Counter(text for text in subclasses if text is not None).items():
        if kind := spectral_type(text):
            counts[kind] += n

    def order(kind: str) -> tuple[int, str]:
        return (_TYPES.index(kind) if len(kind) == 1 and kind in _TYPES else len(_TYPES), kind)

    return {kind: counts[kind] for kind in sorted(counts, key=order) if counts[kind] >= FEWEST}
