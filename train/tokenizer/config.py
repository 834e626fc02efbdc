"""What decides a run without labels: one frozen record, written beside every tokenizer."""

from __future__ import annotations

from dataclasses import dataclass

from specshards.common.errors import UsageError
from specshards.train.config import LoopConfig

#: See `train.models.tokenizer.config`.
TOKENIZER_SIZES = ("base", "tiny")


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(LoopConfig):
    """What decides the weights of a tokenizer. The defaults are the paper's, where it says what it did.

    Attributes:
        size: `base` (the paper's, 37.9 M parameters) or `tiny` (1.0 M).
        masked: share of the good patches hidden from the encoder while training: it learns to fill gaps. 0 is the
            paper's choice.
        huber: residuals of more than so many standard deviations, such as 5, count linearly, not squared; by default
            none do, as in the paper.
        floor: error that no pixel is better than, as a share of the spectrum's scale, such as 0.02, added in
            quadrature: without it, the few brightest spectra rule the loss. 0 is the paper's choice.
        regrid: draw on pixels that begin elsewhere and are up to three times as wide, so that the decoder learns to
            draw on any grid; not in the paper.
        lsf: read the line-spread function, too, where shards made with --lsf have it; not in the paper.
    """

    size: str = "base"
    weight_decay: float = 0.01
    masked: float = 0.0
    huber: float | None = None
    floor: float = 0.0
    regrid: bool = False
    lsf: bool = False

    def __post_init__(self) -> None:
        """Check the fields; UsageError names the field and what is allowed."""
        super().__post_init__()
        if self.size not in TOKENIZER_SIZES:
            raise UsageError(f"unknown SIZE={self.size}: choose {' or '.join(TOKENIZER_SIZES)}")
        if not 0 <= self.masked < 1 or not 0 <= self.floor < 1:
            raise UsageError("masked and floor are shares: give 0 to below 1")
        if self.huber is not None and not self.huber > 0:
            raise UsageError(f"huber={self.huber}: give a positive number of standard deviations")

    @property
    def peak_lr(self) -> float:
        """`lr`, or the default that suits the size."""
        if self.lr is not None:
            return self.lr
        return 1e-3 if self.size == "tiny" else 1e-4
