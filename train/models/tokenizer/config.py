"""Sizes of the tokenizer."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedConfig


class TokenizerConfig(PreTrainedConfig):
    """Size of the network; `config.json` of a folder that `from_pretrained` opens. The defaults are the paper's.

    Attributes:
        width: of a token; even, and a multiple of `heads`.
        layers, decoder_layers: of encoder and decoder.
        expansion: of the MLP between two attentions.
        patch: pixels a token.
        shortest, longest: wavelengths, Angstrom, of the sinusoids that encode a wavelength, evenly spaced in log.
        lsf: read the line-spread function, too.
        pool: of a classifier on the encoder: the `mean` of the tokens, or a learnt `attention`.
    """

    model_type = "spectral-tokenizer"

    width: int = 512
    layers: int = 6
    decoder_layers: int = 6
    heads: int = 8
    expansion: int = 4
    patch: int = 32
    shortest: float = 0.1
    longest: float = 1e6
    lsf: bool = False
    pool: str = "mean"

    def to_dict(self) -> dict[str, Any]:
        """JSON-able content, without `lsf` where it is off: as it was written before."""
        content: dict[str, Any] = super().to_dict()
        return {name: value for name, value in content.items() if name != "lsf" or value}


#: `base` is the published size (37.9 M parameters here); `tiny` learns on a CPU within an hour.
SIZES: dict[str, dict[str, Any]] = {
    "base": {}, "tiny": {"width": 128, "layers": 3, "decoder_layers": 2, "heads": 4},
}  # fmt: skip
