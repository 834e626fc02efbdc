"""A task's head on the tokenizer's encoder: linear probe, attention pooling or full fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from specshards.common.errors import JobError, UsageError
from specshards.shards.format.manifest import Manifest
from specshards.train.models.attention import through
from specshards.train.models.backbone import BACKBONES, Backbone, Plan
from specshards.train.models.foreign import check_folder
from specshards.train.models.layers import arrays, ends, line_spread
from specshards.train.models.picture import quiet
from specshards.train.models.tokenizer.config import TokenizerConfig
from specshards.train.models.tokenizer.model import Encoder, Parts, Tokenizer, Tokens
from specshards.train.models.tokenizer.pixels import scaled
from specshards.train.models.tokenizer.resolution import told


class SpectrumClassifier(Parts):
    """Logits of spectra on their own wavelengths.

    Attributes:
        encoder: of a `Tokenizer`.
        pool: None for the mean over the used tokens, or an `AttentionPool`.
        head: the last layer.
    """

    base_model_prefix = "encoder"
    main_input_name = "flux"

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__(config)
        self.encoder = Encoder(config)
        self.pool = AttentionPool(config.width, config.heads) if config.pool == "attention" else None
        self.head = nn.Linear(config.width, config.num_labels)
        self.post_init()

    def forward(self, batch: Mapping[str, Any]) -> Tensor:
        """Logits `(B, num_labels)` of a batch with `flux`, `ivar` and `wavelength`, moved to the model's device."""
        logits: Tensor = self.head(self.represent(batch))
        return logits

    def represent(self, batch: Mapping[str, Any]) -> Tensor:
        """What the head is given, `(B, width)`; see `train.models.layers.SpectraModel`."""
        device = self.head.weight.device
        return self._pooled(self.encoder(*arrays(batch, device), line_spread(batch, device)))

    @torch.inference_mode()
    def attend(self, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, weights of the tokens and their ends; see `train.models.layers.SpectraModel`."""
        flux, ivar, wavelength = arrays(batch, self.head.weight.device)
        encoder, pool = self.encoder, self.pool
        tokens = encoder.embed(scaled(flux, ivar), wavelength, line_spread(batch, flux.device))
        by_pool = None if pool is None else lambda last: pool.weights(encoder.norm(last), tokens.used).mean(dim=2)
        last, weights = through(encoder.layers, tokens.values, tokens.used, by_pool)
        logits: Tensor = self.head(self._pooled(tokens._replace(values=encoder.norm(last))))
        return logits.float(), weights, ends(wavelength, self.config.patch)

    def _pooled(self, tokens: Tokens) -> Tensor:
        if self.pool is not None:
            pooled: Tensor = self.pool(tokens.values, tokens.used)
            return pooled
        return (tokens.values * tokens.used[..., None]).sum(dim=1) / tokens.used.sum(dim=1, keepdim=True)

    def save(self, folder: Path) -> None:
        """Write `config.json` and `model.safetensors`, which `from_pretrained` opens."""
        quiet()
        self.save_pretrained(folder)


class AttentionPool(nn.Module):
    """One learnt query that attends to the tokens (Lee et al. 2019, "pooling by multihead attention", one seed)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, heads)
        self.value = nn.Linear(width, width)

    def forward(self, tokens: Tensor, used: Tensor) -> Tensor:
        """`(B, T, width)` to `(B, width)`."""
        values = self.value(tokens).unflatten(2, (self.heads, -1))
        return (self.weights(tokens, used)[..., None] * values).sum(dim=1).flatten(1)

    def weights(self, tokens: Tensor, used: Tensor) -> Tensor:
        """What each head takes of each token: `(B, T, heads)`, sums to 1 over the used tokens."""
        return self.query(tokens).masked_fill(~used[..., None], -torch.inf).softmax(dim=1)


@BACKBONES.register("tokenizer")
class PretrainedTokenizer(Backbone):
    """`tokenizer:folder`: the encoder of a tokenizer."""

    view = "spectra"
    has_argument = True
    shows_attention = True

    def build(self, plan: Plan) -> SpectrumClassifier:
        """See `classifier`."""
        return classifier(Path(self.argument), len(plan.outputs), plan.pool)

    def remarks(self, folders: Sequence[str], manifests: Sequence[Manifest]) -> list[str]:
        """Where it reads line-spread functions, what is known of them."""
        reads = open_tokenizer(Path(self.argument)).config.lsf
        return [line] if reads and (line := told(folders, manifests)) is not None else []

    def save(self, network: nn.Module, folder: Path) -> None:
        """See `SpectrumClassifier.save`."""
        assert isinstance(network, SpectrumClassifier)
        network.save(folder)

    def load(self, folder: Path, plan: Plan) -> SpectrumClassifier:
        """See `load_classifier`."""
        return load_classifier(folder)


def classifier(folder: Path, head_size: int, pool: str) -> SpectrumClassifier:
    """A fresh head of `head_size` outputs on the encoder that `make pretrain` left in `folder`.

    Raises:
        UsageError: no tokenizer there.
    """
    tokenizer = open_tokenizer(folder)
    config = TokenizerConfig(**{**tokenizer.config.to_dict(), "pool": pool, "num_labels": head_size})
    model = SpectrumClassifier(config)
    model.encoder.load_state_dict(tokenizer.encoder.state_dict())
    return model


def open_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a folder that `make pretrain` wrote.

    Raises:
        UsageError: no tokenizer there.
    """
    if not (folder / "config.json").is_file():
        raise UsageError(f"{folder}: no tokenizer there; name the OUT of a `make pretrain`")
    return _open(Tokenizer, folder, "pretrain it again")


def load_classifier(folder: Path) -> SpectrumClassifier:
    """The model that `SpectrumClassifier.save` wrote.

    Raises:
        JobError: the files are not whole.
    """
    return _open(SpectrumClassifier, folder, "train it again")


def _open(kind: Any, folder: Path, mend: str) -> Any:
    quiet()
    try:
        check_folder(folder)
        model, info = kind.from_pretrained(
            folder, local_files_only=True, output_loading_info=True, use_safetensors=True
        )
    except Exception as error:  # what transformers raises of a configuration that it cannot use is of many kinds
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise JobError(f"{folder}: the model there cannot be read ({reason}); {mend}") from error
    if info["missing_keys"] or info["mismatched_keys"] or info["unexpected_keys"]:
        raise JobError(f"{folder}: model.safetensors does not hold this model and nothing else; {mend}")
    return model
