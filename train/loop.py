"""The training loop: reads top to bottom, stops at any moment, and goes on where it stopped.

What is learnt is an `Objective`.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from specshards.common.files import location
from specshards.common.json import finite, fits
from specshards.common.messages import LOGGER
from specshards.shards import loader as shard_loader
from specshards.shards.format.manifest import Manifest
from specshards.shards.loader.augment import parse_augment
from specshards.shards.loader.loader import Loader
from specshards.train import checkpoint
from specshards.train.accelerator import keep_freed_memory, make_accelerator, seeing_others
from specshards.train.config import LoopConfig, RunOptions
from specshards.train.meter import Meter, stop_on_interrupt
from specshards.train.models.parameters import parameter_groups
from specshards.train.objective import Objective, Start
from specshards.train.run import claim, counted_together, data_record, folder_of, leaks, leaving_nothing, write_record
from specshards.train.schedule import share_of_peak

_AGREE_EVERY = 10  # windows between the questions among processes whether one of them wants to stop


@dataclass
class Progress:
    """Where the loop stands; in every checkpoint.

    Attributes:
        step: optimiser steps done, over all epochs.
        epoch: epochs whose validation is done.
        batch: batches done of the epoch after them, by each of the processes that the run was begun on.
        best: of validation so far: epoch, metric, value.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    best: dict[str, Any] | None = None
    history: list[dict[str, Any]] = field(default_factory=list)


def train(config: LoopConfig, out: Path, make: Callable[[Start], Objective], options: RunOptions) -> Path:
    """Train, and keep the best epoch by validation in `out`, which is returned.

    Raises:
        UsageError: the configuration, the shards or `out` do not fit. JobError: hub, disk or a checkpoint failed.
        KeyboardInterrupt: on Ctrl-C, after a checkpoint.
    """
    parse_augment(config.augment)  # a mistake is told before there is a folder
    manifests = [Manifest.load(location(folder)) for folder in config.shards]
    accelerator = make_accelerator(options.device, config.precision, options.tracker, out)
    with (
        folder_of(out).locked() if accelerator.is_main_process else nullcontext(),
        leaving_nothing(out) if accelerator.is_main_process else nullcontext(),
        seeing_others(accelerator),
    ):
        return _train(config, out, make, options, manifests, accelerator)


def _train(
    config: LoopConfig, out: Path, make: Callable[[Start], Objective], options: RunOptions,
    manifests: Sequence[Manifest], accelerator: Accelerator,
) -> Path:  # fmt: skip
    """`train` in a folder whose lock is held."""
    augment = parse_augment(config.augment)
    data = data_record(config.shards, manifests)
    if accelerator.is_main_process:
        claim(out, config.to_dict(), data, options.resume, options.again, accelerator.num_processes)
    accelerator.wait_for_everyone()
    record = claim(out, config.to_dict(), data, "auto", options.again, accelerator.num_processes)
    if record["status"] == "complete":
        _tell(accelerator, f"{out}: this run is complete; nothing to do. To train it again: {options.again}")
        return out
    if accelerator.is_main_process:
        data = counted_together(data, config.shards, manifests)
    for line in leaks(data):
        _tell(accelerator, line)
    if accelerator.device.type == "cpu":
        keep_freed_memory()
    set_seed(config.seed)
    where = {
        "rank": accelerator.process_index, "world_size": accelerator.num_processes, "seed": config.seed,
        "device": str(accelerator.device), "threads": options.threads, "backend": options.backend,
        "on_error": options.on_error, "view": config.view, "verify": options.verify, "images": config.drawn,
    }  # fmt: skip
    with (
        shard_loader.open(
            config.shards, "train", config.batch_size, augment=augment, per_step=record["ranks"], **where
        ) as train,
        shard_loader.open(config.shards, "val", config.batch_size, together=True, **where) as val,
    ):
        objective = make(Start(train, val, data))
        trainer = _Trainer(config, objective, out, accelerator, train, val, record)
        trainer.interval = 60 * options.checkpoint_minutes
        try:
            trainer.run()
        finally:
            if total := train.skipped + val.skipped:
                _tell(accelerator, f"damaged samples skipped, over all epochs: {total} ({train.skipped} of train)")
            for tracker in accelerator.trackers:  # not end_training: the processes have more to say to each other
                tracker.finish()
    if accelerator.is_main_process:
        summary = trainer.summary()
        if options.on_error != "stop":  # a model that may have learnt from what was damaged says so
            summary |= {"on_error": options.on_error, "skipped": train.skipped + val.skipped}
        LOGGER.info(objective.finish(summary))
        write_record(out, {**record, "status": "complete", **summary})
        checkpoint.remove(out)
    accelerator.wait_for_everyone()
    return out


def _tell(accelerator: Accelerator, message: str) -> None:
    """One line, whatever the number of processes."""
    if accelerator.is_main_process:
        LOGGER.info(message)


class _Trainer:
    def __init__(
        self, config: LoopConfig, objective: Objective, out: Path, accelerator: Accelerator, train: Loader,
        val: Loader, record: dict[str, Any],
    ) -> None:  # fmt: skip
        self.config, self.objective, self.out, self.accelerator = config, objective, out, accelerator
        self.train, self.val, self.record = train, val, record
        self.progress = Progress()
        # A step is of the batches of as many processes as the run was begun on; each one here takes some in turns.
        self.ranks, self.turns = record["ranks"], math.ceil(record["ranks"] / accelerator.num_processes)
        self.per_epoch = min(math.ceil(len(train) / self.turns), config.overfit_batches or sys.maxsize)
        a_step = math.ceil(self.per_epoch / config.accumulate)
        self.steps = min(config.epochs * a_step, config.max_steps or sys.maxsize)
        self.epochs = math.ceil(self.steps / a_step)
        self.plain = objective.build(accelerator.device)
        groups = parameter_groups(self.plain, config.weight_decay, config.layer_decay, config.decay)
        fused = accelerator.device.type in ("cuda", "cpu")
        optimizer = torch.optim.AdamW(groups, lr=config.peak_lr, betas=(0.9, 0.999), fused=fused)
        self.average = self.averaged()
        runner = torch.compile(self.plain) if config.compile else self.plain
        self.model: nn.Module
        self.model, self.optimizer = accelerator.prepare(runner, optimizer)
        if accelerator.process_index:  # the same weights as all, other units dropped and patches hidden
            torch.manual_seed(config.seed + accelerator.process_index)
        self.interval, self.saved_at = 600.0, time.monotonic()
        self.few: list[Any] | None = None
        self.meter = Meter(accelerator, self.plain, config.view, train.image.size, objective.title)

    def averaged(self) -> AveragedModel | None:
        """The moving average of the weights, where it is asked for."""
        if self.config.ema is None:
            return None
        return AveragedModel(self.plain, multi_avg_fn=get_ema_multi_avg_fn(self.config.ema))

    @property
    def best_model(self) -> Any:
        """What is validated and kept."""
        return self.plain if self.average is None else self.average.module

    def run(self) -> None:
        """From the newest checkpoint, if there is one, to the last step."""
        self.resume()
        self.say_what()
        progress, batch = self.progress, self.config.batch_size * self.ranks
        images = min(self.epochs * self.per_epoch, self.steps * self.config.accumulate) * batch
        done = (progress.epoch * self.per_epoch + progress.batch) * batch
        with stop_on_interrupt() as self.stop, self.meter.open(images, done, progress.step):
            while progress.epoch < self.epochs:
                if progress.batch < self.per_epoch and progress.step < self.steps:
                    self.train_epoch()
                self.validate()

    def resume(self) -> None:
        found = checkpoint.latest(self.out)
        if found is None:
            return
        rank = self.accelerator.process_index
        state = checkpoint.restore(found, self.plain, self.optimizer, self.train, rank, self.average)
        try:
            fits(state, Progress)
        except ValueError as error:
            raise checkpoint.damaged(found, str(error)) from error
        self.progress = Progress(**state)
        here = self.accelerator.num_processes
        same = f" with steps of {self.ranks} batches, as begun, on {here}" if here != self.ranks else ""
        _tell(self.accelerator, f"resuming {self.out} after step {self.progress.step} of {self.steps}{same}")
        if self.progress.best:
            self.objective.restore()

    def train_epoch(self) -> None:
        """Train on what is left of the epoch; checkpoint now and then."""
        progress = self.progress
        self.model.train()
        if (fewer := getattr(self.plain, "fewer", None)) is not None:
            fewer.begin_epoch(progress.epoch, self.epochs)
            self.meter.count(self.plain)
        batches = self.meter.timed(self.batches())
        while window := list(islice(batches, self.config.accumulate * self.turns)):
            loss = self.step(window)
            done = math.ceil(len(window) / self.turns)
            progress.batch += done
            self.meter.note(progress.step, loss, self.optimizer, done * self.config.batch_size * self.ranks,
                            last=progress.step == self.steps)  # fmt: skip
            if progress.step >= self.steps:
                return
            # After the last batch the loader first turns to its next epoch; `validate` checkpoints then.
            if progress.batch < self.per_epoch and (wish := self.wish()):
                self.save(stop=wish > 1)

    def batches(self) -> Iterator[Any]:
        """The rest of the epoch."""
        if self.config.overfit_batches is None:
            yield from self.train
            return
        if self.few is None:
            state = self.train.state_dict()
            self.few = list(islice(self.train, self.per_epoch * self.turns))
            self.train.load_state_dict(state)
        yield from self.few[self.progress.batch * self.turns :]

    def step(self, window: list[Any]) -> Tensor:
        """One optimiser step on some batches: the sum over the terms of the mean loss over the samples that count.

        The means are over all batches of the step and all processes, however unevenly the labels are spread.
        """
        share = share_of_peak(self.config, self.steps, self.progress.step)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.peak_lr * group["lr_scale"] * share
        known = [sum(term) for term in zip(*map(self.objective.counts, window), strict=True)]
        # Processes average their gradients, so each one's sum is divided by the mean count, not by its own.
        counts = torch.tensor(known, device=self.accelerator.device, dtype=torch.float32)
        counts = self.accelerator.reduce(counts, reduction="mean").clamp_min(1 / self.accelerator.num_processes)
        whole = torch.zeros((), device=self.accelerator.device)
        for i, batch in enumerate(window):
            with self.accelerator.no_sync(self.model) if i + 1 < len(window) else nullcontext():
                totals = self.objective.totals(self.model, batch, self.accelerator)
                loss = (torch.stack(list(totals)) / counts).sum()
                self.accelerator.backward(loss)
                whole += loss.detach()
        self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update_parameters(self.plain)
        self.progress.step += 1
        return whole

    def validate(self) -> None:
        """Score the validation split, keep the model if it is the best so far, checkpoint."""
        progress = self.progress

        def check() -> None:
            if self.accelerator.num_processes == 1 and self.stop.is_set():
                self.save(stop=True)

        model = self.model if self.average is None else self.average.module
        verdict = self.objective.validate(model, self.val, self.accelerator, check)
        self.verified()
        samples = progress.batch * self.config.batch_size * self.ranks  # computed, with what fills up the last ones
        progress.epoch, progress.batch = progress.epoch + 1, 0
        # That of the last step.
        rate = self.config.peak_lr * share_of_peak(self.config, self.steps, max(0, progress.step - 1))
        entry = {"epoch": progress.epoch, "step": progress.step, "learning_rate": rate,
                 verdict.metric: verdict.value, **verdict.entry, "samples": samples,
                 "gflop": self.meter.flops / 1e9}  # fmt: skip
        progress.history.append(finite(entry))
        text = f"{progress.epoch}/{self.epochs} val {verdict.metric} {verdict.value:.4f}"
        self.meter.epoch(progress.step, text, entry)
        if verdict.beats(progress.best):
            progress.best = {"epoch": progress.epoch, "metric": verdict.metric, "value": finite(verdict.value)}
            if self.accelerator.is_main_process:
                self.objective.keep(self.best_model, verdict, progress.best)
        self.save(stop=self.wish() > 1 and progress.epoch < self.epochs)

    def save(self, stop: bool) -> None:
        """Checkpoint; on `stop` say how to go on and leave."""
        self.verified()
        self.saved_at = time.monotonic()
        checkpoint.save(self.out, asdict(self.progress), self.plain, self.optimizer, self.train, self.accelerator,
                        self.average)  # fmt: skip
        if self.accelerator.is_main_process:
            write_record(self.out, {**self.record, "history": self.progress.history})
        if stop:
            self.meter.close()
            steps = f"{self.progress.step} of {self.steps}"
            _tell(self.accelerator, f"stopped after step {steps}; the same command goes on from there")
            raise KeyboardInterrupt

    def verified(self) -> None:
        """Nothing is kept that was learnt from shards that are not what their manifest says."""
        for loader in (self.train, self.val):
            loader.verified()

    def wish(self) -> int:
        """What any process wants: 0 nothing, 1 a checkpoint, 2 to stop."""
        mine = 2 if self.stop.is_set() else int(time.monotonic() - self.saved_at > self.interval)
        if self.accelerator.num_processes == 1:
            return mine
        if self.progress.step % _AGREE_EVERY and self.progress.batch:
            return 0
        everyone = self.accelerator.gather(torch.tensor([mine], device=self.accelerator.device))
        return int(everyone.max())

    def say_what(self) -> None:
        parameters = sum(p.numel() for p in self.plain.parameters())
        _tell(
            self.accelerator,
            f"{self.objective.describe()}, {parameters / 1e6:.1f} M parameters, {self.steps:,} steps of "
            f"{self.config.batch_size} x {self.config.accumulate} x {self.ranks} on "
            f"{self.accelerator.device}, {self.accelerator.mixed_precision.replace('no', 'fp32')}",
        )

    def summary(self) -> dict[str, Any]:
        """What the run was, for `metrics.json`; rates are of the last uninterrupted part."""
        return {
            "epochs": self.progress.epoch, "steps": self.progress.step, "best": self.progress.best,
            "history": self.progress.history, "device": str(self.accelerator.device), **self.meter.rates(),
            "gflop_per_object": self.meter.whole / 1e9,
            "petaflop": sum(entry.get("samples", 0) * entry.get("gflop", 0) for entry in self.progress.history) / 1e6,
        }  # fmt: skip
