"""Pretraining without labels: draw every spectrum again, weighed by what is known of its noise."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from specshards.common.errors import JobError, UsageError, shortened
from specshards.common.files import sha256, write_text
from specshards.common.json import fits, parse, shown
from specshards.common.messages import LOGGER
from specshards.common.text import count
from specshards.shards.loader.batch import SpectraBatch
from specshards.shards.loader.loader import Loader
from specshards.train import loop
from specshards.train.config import RunOptions
from specshards.train.models.layers import model_input
from specshards.train.models.picture import quiet
from specshards.train.models.tokenizer.classifier import open_tokenizer
from specshards.train.models.tokenizer.config import SIZES, TokenizerConfig
from specshards.train.models.tokenizer.model import Tokenizer
from specshards.train.models.tokenizer.pixels import chi2, hide, per_object, regridded, seen_as, without
from specshards.train.models.tokenizer.resolution import told
from specshards.train.network import file_checksums, replace_files
from specshards.train.objective import Start, Verdict
from specshards.train.run import MODEL_FILES, DataContent
from specshards.train.tokenizer.config import PretrainConfig

CARD = "tokenizer.json"
#: Share of the good patches that validation hides, whatever training does: what is drawn there was not seen.
HIDDEN = 0.25


def pretrain(config: PretrainConfig, out: Path, options: RunOptions = RunOptions()) -> Path:
    """Train a tokenizer, keep the best epoch by validation, and write it to `out` as `from_pretrained` opens it.

    Args:
        options: how it runs, which does not change the weights.

    Returns:
        `out`.

    Raises:
        UsageError: the configuration, the shards or `out` do not fit. JobError: disk or a checkpoint failed.
        KeyboardInterrupt: on Ctrl-C, after a checkpoint.
    """
    return loop.train(config, out, lambda start: Pretraining.of(config, out, start), options)


def open_run(run: Path) -> tuple[Tokenizer, PretrainConfig, dict[str, Any]]:
    """The tokenizer that `pretrain` left in a folder, its configuration, and the card with both of them in it.

    Raises:
        UsageError: no tokenizer there. JobError: a damaged one, or weights that the card does not speak of.
    """
    path, weights = run / CARD, run / "model.safetensors"
    if not path.is_file() or not weights.is_file():
        raise UsageError(f"{run}: no tokenizer there; name the OUT of a `make pretrain`")
    try:
        card = parse(path.read_text(encoding="utf-8"), nan=True)
        fits(card, _CardContent)
        config = PretrainConfig.from_dict(card["config"])
    except (ValueError, KeyError, TypeError, UsageError) as error:
        why = shortened(error, 200)
        raise JobError(f"{path}: not a card of this program ({why}); pretrain it again") from error
    if sha256(weights) != card["model"]:
        raise JobError(f"{weights}: not the weights that {CARD} speaks of (checksum); pretrain it again")
    for name, checksum in card.get("files", {}).items():
        if name not in MODEL_FILES or not (run / name).is_file() or sha256(run / name) != checksum:
            raise JobError(f"{path}: {shown(name)} is not the file that it speaks of; pretrain it again")
    return open_tokenizer(run), config, card


@dataclass(frozen=True)
class _CardContent:
    """`tokenizer.json`."""

    config: PretrainConfig
    data: list[DataContent]
    mock: bool
    model: str
    best: dict[str, int | float | str | None] | None
    files: dict[str, str] = field(default_factory=dict)


class Pretraining:
    """The objective: the weighted squared error of what is drawn. See `train.objective`."""

    def __init__(self, config: PretrainConfig, out: Path, card: dict[str, Any], samples: tuple[int, int]) -> None:
        """With the record that will stand beside the model; `samples` of the train and the validation split."""
        self.config, self.card = config, card
        self._out, self._samples = out, samples

    @classmethod
    def of(cls, config: PretrainConfig, out: Path, start: Start) -> Pretraining:
        """For the data of a run; UsageError for spectra in the rest frame."""
        for folder, manifest in zip(config.shards, start.train.manifests, strict=True):
            if manifest.config.image.frame != "observed":
                raise UsageError(
                    f"{folder}: spectra in the rest frame; a tokenizer reads those as they were observed"
                )
        if at_rest := sum(manifest.at_rest for manifest in start.train.manifests):
            LOGGER.info(
                f"{count(at_rest, 'spectrum is', 'spectra are')} of files in the rest frame: moved back by velocity "
                "or redshift where one is known, else as they are"
            )
        if config.lsf and (line := told(config.shards, start.train.manifests)) is not None:
            LOGGER.info(line)
        mock = any(manifest.mock for manifest in start.train.manifests)
        card = {"config": config.to_dict(), "data": list(start.data), "mock": mock, "model": "", "best": None}
        return cls(config, out, card, (start.train.samples, start.val.samples))

    @property
    def title(self) -> str:
        """In the progress line."""
        return "tokenizer"

    def build(self, device: torch.device) -> nn.Module:
        """A tokenizer from scratch."""
        return Tokenizer(TokenizerConfig(**SIZES[self.config.size], lsf=self.config.lsf)).to(device)

    def counts(self, batch: Any) -> list[int]:
        """Spectra with a good pixel."""
        return [int(self._counted(batch).sum())]

    def totals(self, model: nn.Module, batch: Any, accelerator: Accelerator) -> list[Tensor]:
        """The mean over each spectrum's good pixels, hidden or not, summed over the spectra."""
        given = model_input(batch)
        if self.config.masked:
            given = without(batch, hide(batch, TokenizerConfig.patch, self.config.masked))
        pixels, target = seen_as(batch, given), None
        if self.config.regrid:
            first, factor = (int(torch.randint(low, high, ())) for low, high in ((0, TokenizerConfig.patch), (1, 4)))
            pixels, target = regridded(pixels, batch["wavelength"], first, factor)
        with accelerator.autocast():
            drawn = model(given, target)
        mean, _ = per_object(chi2(drawn, pixels, self.config.floor, self.config.huber), pixels.good)
        return [torch.where(self._counted(batch), mean, 0).sum() + 0.0 * drawn.sum()]

    def validate(
        self, model: nn.Module, loader: Loader, accelerator: Accelerator, check: Callable[[], None]
    ) -> Verdict:
        """The loss of training on the whole split, and what the same loss is where patches are hidden.

        The patches hidden are the same at every epoch. Where training hides none, the epoch is chosen by what is
        seen, else by what is hidden.
        """
        model.eval()
        generator = torch.Generator().manual_seed(0)
        sums = torch.zeros(2, 2, dtype=torch.float64)
        options = (self.config.floor, self.config.huber)
        with torch.inference_mode():
            for batch in loader.spectra():
                hidden = hide(batch, TokenizerConfig.patch, HIDDEN, generator)
                trials = ((model_input(batch), batch["ivar"] > 0), (without(batch, hidden), hidden))
                for i, (given, where) in enumerate(trials):
                    with accelerator.autocast():
                        drawn = model(given)
                    pixels = seen_as(batch, given)
                    mean, some = per_object(chi2(drawn, pixels, *options), where)
                    some &= batch["valid"].to(some.device)
                    sums[i] += torch.stack([mean[some].double().sum(), some.sum().double()]).cpu()
                check()
        if accelerator.num_processes > 1:
            sums = accelerator.reduce(sums.to(accelerator.device)).cpu()
        seen, unseen_loss = (float(total / count) if count else float("nan") for total, count in sums)
        entry = {"loss": seen, "loss_hidden": unseen_loss}
        if self.config.masked:
            return Verdict("loss_hidden", unseen_loss, more=False, entry=entry)
        return Verdict("loss", seen, more=False, entry=entry)

    def keep(self, model: Any, verdict: Verdict, best: dict[str, Any]) -> None:
        """The tokenizer, and its card, which comes last and carries the weights' checksum."""
        quiet()
        checksum = replace_files(self._out, model.save_pretrained)
        files = {name: sum_ for name, sum_ in file_checksums(self._out).items() if name != CARD}
        self.card = {**self.card, "best": best, "model": checksum, "files": files}
        write_text(self._out / CARD, json.dumps(self.card, indent=1, sort_keys=True) + "\n")

    def restore(self) -> None:
        """The card of the best model so far."""
        self.card = json.loads((self._out / CARD).read_text())

    def describe(self) -> str:
        """Spectra and size."""
        train, val = self._samples
        mock = "with MOCK data: " if self.card["mock"] else ""
        return f"{mock}{train:,} train spectra, {val:,} val spectra\ntokenizer {self.config.size}"

    def finish(self, summary: dict[str, Any]) -> str:
        """What the best epoch reached."""
        entry = next(e for e in summary["history"] if e["epoch"] == summary["best"]["epoch"])
        return (
            f"epoch {entry['epoch']}: mean squared residual in variances {entry['loss']:.4g} of what was seen, "
            f"{entry['loss_hidden']:.4g} of hidden patches\n"
            f"{self._out}: the tokenizer; `make train MODEL=tokenizer:{self._out} TASK=...` goes on from it"
        )

    @staticmethod
    def _counted(batch: SpectraBatch) -> Tensor:
        return (batch["ivar"] > 0).any(dim=1) & batch["valid"].to(batch["ivar"].device)
