"""The training loop: reads top to bottom, stops at any moment, and goes on where it stopped."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from shards import loader as shard_loader
from shards.augment import parse_augment
from shards.format import Manifest
from train import checkpoint, evaluate, figures
from train.baselines import Baselines
from train.config import TrainConfig
from train.conformal import calibrate
from train.judgement import judge
from train.meter import Meter, stop_on_interrupt
from train.model import freeze, output_names, parameter_groups
from train.run import CARD, Card, build_any, claim, data_record, save_model, write_record
from train.scoring import add_labels, finite, make_accelerator, model_input, score
from train.tasks import check_tasks, make_tasks, masked_loss, split_logits

_AGREE_EVERY = 10  # windows between the questions among processes whether one of them wants to stop


@dataclass
class Progress:
    """Where the loop stands; in every checkpoint.

    Attributes:
        step: optimiser steps done, over all epochs.
        epoch: epochs whose validation is done.
        batch: batches done of the epoch after them.
        best: of validation so far: epoch, metric, value.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    best: dict[str, Any] | None = None
    history: list[dict[str, Any]] = field(default_factory=list)


def fit(
    config: TrainConfig,
    out: Path,
    *,
    resume: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    backend: str | None = None,
    on_error: str = "stop",
    log: str = "tensorboard",
    checkpoint_minutes: float = 10,
) -> Path:
    """Train, keep the best epoch by validation, write its model, `metrics.json` and report to `out`.

    Args:
        resume: `auto` goes on with an unfinished run of the same configuration and data; `never` replaces it.
        threads, backend, on_error: of the loader; what it skips counts nowhere, and is said at the end.
        log: `tensorboard` (in `out/tensorboard`), `wandb` or `none`.
        checkpoint_minutes: between checkpoints inside an epoch; there is one after every epoch anyhow.

    Returns:
        `out`.

    Raises:
        UsageError: the configuration, the shards or `out` do not fit. JobError: hub, disk or a checkpoint failed.
        KeyboardInterrupt: on Ctrl-C, after a checkpoint.
    """
    check_tasks(config)
    augment = parse_augment(config.augment)
    manifests = [Manifest.load(Path(folder)) for folder in config.shards]
    accelerator = make_accelerator(device, config.precision, log, out)
    data = data_record(config.shards, manifests)
    if accelerator.is_main_process:
        claim(out, config, data, resume)
    accelerator.wait_for_everyone()
    record = claim(out, config, data, "auto")
    if record["status"] == "complete":
        accelerator.print(f"{out}: this run is complete; nothing to do. --resume never trains it again")
        return out
    set_seed(config.seed)
    where = {
        "rank": accelerator.process_index, "world_size": accelerator.num_processes, "seed": config.seed,
        "device": str(accelerator.device), "threads": threads, "backend": backend, "on_error": on_error,
        "view": config.view,
    }  # fmt: skip
    with (
        shard_loader.open(config.shards, "train", config.batch_size, augment=augment, **where) as train,
        shard_loader.open(config.shards, "val", config.batch_size, **where) as val,
    ):
        trainer = _trainer(config, out, accelerator, train, val, record, data)
        trainer.interval = 60 * checkpoint_minutes
        try:
            trainer.run()
        finally:
            if total := train.skipped + val.skipped:
                accelerator.print(f"damaged samples skipped, over all epochs: {total} ({train.skipped} of train)")
            for tracker in accelerator.trackers:  # not end_training: the processes have more to say to each other
                tracker.finish()
    if accelerator.is_main_process:
        summary = trainer.summary()
        print(evaluate.write(out, trainer.card, {}, training=summary))
        write_record(out, {**record, "status": "complete", **summary})
        checkpoint.remove(out)
    accelerator.wait_for_everyone()
    return out


def _trainer(
    config: TrainConfig, out: Path, accelerator: Accelerator, train: Any, val: Any, record: dict[str, Any],
    data: tuple[dict[str, Any], ...],
) -> _Trainer:  # fmt: skip
    tasks = make_tasks(config, train.manifests, train.sidecar)
    for loader in (train, val):
        add_labels(tasks, loader)
    labels = train.sidecar(["survey", *(task.label for task in tasks)])
    baselines = {task.name: Baselines.learn(task, labels) for task in tasks}
    mock = any(manifest.mock for manifest in train.manifests)
    return _Trainer(Card(tasks, config, train.image.to_dict(), data, mock, baselines), out, accelerator, train, val,
                    record)  # fmt: skip


class _Trainer:
    def __init__(
        self, card: Card, out: Path, accelerator: Accelerator, train: Any, val: Any, record: dict[str, Any]
    ) -> None:
        self.card, self.out, self.accelerator, self.train, self.val = card, out, accelerator, train, val
        self.config, self.tasks, self.record = card.config, card.tasks, record
        self.progress = Progress()
        config = self.config
        self.per_epoch = min(len(train), config.overfit_batches or sys.maxsize)
        a_step = math.ceil(self.per_epoch / config.accumulate)
        self.steps = min(config.epochs * a_step, config.max_steps or sys.maxsize)
        self.epochs = math.ceil(self.steps / a_step)
        names = output_names(self.tasks)
        self.plain = build_any(config, train.image.size, names)
        self.plain.to(accelerator.device)
        if config.freeze == "backbone":
            freeze(self.plain)
        groups = parameter_groups(self.plain, config.weight_decay, config.layer_decay)
        fused = accelerator.device.type in ("cuda", "cpu")
        optimizer = torch.optim.AdamW(groups, lr=config.peak_lr, betas=(0.9, 0.999), fused=fused)
        self.average = self.averaged()
        runner = torch.compile(self.plain) if config.compile else self.plain
        self.model: nn.Module
        self.model, self.optimizer = accelerator.prepare(runner, optimizer)
        self.interval, self.saved_at = 600.0, time.monotonic()
        self.few: list[Any] | None = None
        self.meter = Meter(accelerator, self.plain, train.image.size, card.title)

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
        progress, batch = self.progress, self.config.batch_size * self.accelerator.num_processes
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
        self.progress = Progress(**state)
        self.accelerator.print(f"resuming {self.out} after step {self.progress.step} of {self.steps}")
        if self.progress.best:
            self.card = Card.loads((self.out / CARD).read_text())

    def train_epoch(self) -> None:
        """Train on what is left of the epoch; checkpoint now and then."""
        progress = self.progress
        self.model.train()
        batches = self.meter.timed(self.batches())
        while window := list(islice(batches, self.config.accumulate)):
            loss = self.step(window)
            progress.batch += len(window)
            self.meter.note(progress.step, loss, self.optimizer, len(window) * self.config.batch_size,
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
            self.few = list(islice(self.train, self.per_epoch))
            self.train.load_state_dict(state)
        yield from self.few[self.progress.batch :]

    def step(self, window: list[Any]) -> Tensor:
        """One optimiser step on some batches: the sum over tasks of the mean loss over their labelled samples.

        The means are over all batches of the step and all processes, however unevenly the labels are spread.
        """
        share = self.schedule(self.progress.step)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.peak_lr * group["lr_scale"] * share
        known = [
            sum(int((torch.isfinite(b["labels"][task.label]) & b["valid"].cpu()).sum()) for b in window)
            for task in self.tasks
        ]
        # Processes average their gradients, so each one's sum is divided by the mean count, not by its own.
        counts = torch.tensor(known, device=self.accelerator.device, dtype=torch.float32)
        counts = self.accelerator.reduce(counts, reduction="mean").clamp_min(1 / self.accelerator.num_processes)
        whole = torch.zeros((), device=self.accelerator.device)
        for i, batch in enumerate(window):
            with self.accelerator.no_sync(self.model) if i + 1 < len(window) else nullcontext():
                with self.accelerator.autocast():
                    logits = self.model(model_input(batch))
                loss = torch.zeros((), device=self.accelerator.device)
                for task, part, count in zip(self.tasks, split_logits(self.tasks, logits), counts, strict=True):
                    total, _ = masked_loss(task, part, batch["labels"][task.label], batch["valid"])
                    loss = loss + total / count
                self.accelerator.backward(loss)
                whole += loss.detach()
        self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update_parameters(self.plain)
        self.progress.step += 1
        return whole

    def schedule(self, step: int) -> float:
        """Share of the peak learning rate: linear warm-up, then constant or a cosine down to 1%."""
        warmup = max(1, round(self.config.warmup * self.steps)) if self.config.warmup else 0
        if step < warmup:
            return (step + 1) / warmup
        if self.config.schedule == "constant":
            return 1.0
        share = (step - warmup) / max(1, self.steps - warmup)
        return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share))

    def validate(self) -> None:
        """Score the validation split, keep the model if it is the best so far, checkpoint."""
        progress = self.progress

        def check() -> None:
            if self.accelerator.num_processes == 1 and self.stop.is_set():
                self.save(stop=True)

        model = self.model if self.average is None else self.average.module
        scored = score(model, self.tasks, self.val, self.accelerator, check)
        scores = {task.name: judge(task, scored[task.name], self.card.baselines[task.name]) for task in self.tasks}
        progress.epoch, progress.batch = progress.epoch + 1, 0
        metric, value, more = self.criterion(scores)
        entry = {"epoch": progress.epoch, "step": progress.step, metric: value}
        entry |= {f"loss_{name}": found["loss"] for name, found in scores.items()}
        entry |= {f"{task.name}_{task.best[0]}": scores[task.name]["all"][task.best[0]] for task in self.tasks}
        progress.history.append(finite(entry))
        self.meter.epoch(progress.step, f"{progress.epoch}/{self.epochs} val {metric} {value:.4f}", entry)
        if self.better(value, more):
            progress.best = {"epoch": progress.epoch, "metric": metric, "value": finite(value)}
            if self.accelerator.is_main_process:
                card = replace(self.card, best=progress.best, conformal=calibrate(self.tasks, scored))
                self.card = save_model(self.out, self.best_model, card)
                for task in self.tasks:
                    figures.draw(self.out, task, scored[task.name], "val", self.card.mock)
                evaluate.write(self.out, self.card, {"val": scores}, page=False)
        self.save(stop=self.wish() > 1 and progress.epoch < self.epochs)

    def criterion(self, scores: Mapping[str, Mapping[str, Any]]) -> tuple[str, float, bool]:
        """Metric, value and whether more is better: the task's own, or the mean skill where there are several.

        The skill of a classification is its macro F1, that of a regression 1 - error / error of the mean label.
        """
        if len(self.tasks) == 1:
            metric, more = self.tasks[0].best
            return metric, scores[self.tasks[0].name]["all"][metric], more
        skills = []
        for task in self.tasks:
            metric, more = task.best
            mine, constant = (scores[task.name][k] for k in ("all", "baselines"))
            skills.append(mine[metric] if more else 1 - mine[metric] / constant["constant"][metric])
        known = [skill for skill in skills if math.isfinite(skill)]
        return "mean_skill", sum(known) / len(known) if known else math.nan, True

    def better(self, value: float, more: bool) -> bool:
        """Whether this is the best validation so far; a run without a defined metric keeps its last epoch."""
        best = None if self.progress.best is None else self.progress.best["value"]
        if best is None:
            return True
        return math.isfinite(value) and (value > best if more else value < best)

    def save(self, stop: bool) -> None:
        """Checkpoint; on `stop` say how to go on and leave."""
        self.saved_at = time.monotonic()
        checkpoint.save(self.out, asdict(self.progress), self.plain, self.optimizer, self.train, self.accelerator,
                        self.average)  # fmt: skip
        if self.accelerator.is_main_process:
            write_record(self.out, {**self.record, "history": self.progress.history})
        if stop:
            self.meter.close()
            self.accelerator.print(
                f"stopped after step {self.progress.step} of {self.steps}; the same command goes on from there",
                flush=True,
            )
            raise KeyboardInterrupt

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
        counted = {name: dict(baselines.counts) for name, baselines in self.card.baselines.items()}
        counts = "; ".join(
            f"{name} {numbers.pop('all'):,} labelled ({', '.join(f'{k} {n:,}' for k, n in numbers.items())})"
            for name, numbers in counted.items()
        )
        parameters = sum(p.numel() for p in self.plain.parameters())
        self.accelerator.print(
            f"{'MOCK data: ' if self.card.mock else ''}{self.train.samples:,} train images, {self.val.samples:,} val "
            f"images; {counts}\n{self.config.backbone}, {parameters / 1e6:.1f} M parameters, {self.steps:,} steps of "
            f"{self.config.batch_size} x {self.config.accumulate} x {self.accelerator.num_processes} on "
            f"{self.accelerator.device}, {self.accelerator.mixed_precision.replace('no', 'fp32')}"
        )

    def summary(self) -> dict[str, Any]:
        """What the run was, for `metrics.json`; rates are of the last uninterrupted part."""
        return {
            "epochs": self.progress.epoch, "steps": self.progress.step, "best": self.progress.best,
            "history": self.progress.history, "device": str(self.accelerator.device), **self.meter.rates(),
        }  # fmt: skip
