"""The training loop: reads top to bottom, stops at any moment, and goes on where it stopped."""

from __future__ import annotations

import math
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn
from tqdm import tqdm

from shards import loader as shard_loader
from shards.format import Manifest
from train import checkpoint, evaluate, figures
from train.baselines import Baselines
from train.config import TrainConfig
from train.model import SpectrumModel, build, parameter_groups
from train.run import CARD, Card, claim, data_record, save_model, write_record
from train.scoring import finite, judge, make_accelerator, score
from train.tasks import Classification, check_task, make_task, masked_loss

_AGREE_EVERY = 10  # steps between the questions among processes whether one of them wants to stop


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
    checkpoint_minutes: float = 10,
) -> Path:
    """Train, keep the best epoch by validation, write its model, `metrics.json` and report to `out`.

    Args:
        resume: `auto` goes on with an unfinished run of the same configuration and data; `never` replaces it.
        threads, backend, on_error: of the loader; what it skips counts nowhere, and is said at the end.
        checkpoint_minutes: between checkpoints inside an epoch; there is one after every epoch anyhow.

    Returns:
        `out`.

    Raises:
        UsageError: the configuration, the shards or `out` do not fit. JobError: hub, disk or a checkpoint failed.
        KeyboardInterrupt: on Ctrl-C, after a checkpoint.
    """
    check_task(config.task)
    manifests = [Manifest.load(Path(folder)) for folder in config.shards]
    accelerator = make_accelerator(device)
    data = data_record(config.shards, manifests)
    if accelerator.is_main_process:
        claim(out, config, data, resume)
    accelerator.wait_for_everyone()
    record = claim(out, config, data, "auto")
    if record["status"] == "complete":
        accelerator.print(f"{out}: this run is complete; nothing to do. --resume never trains it again")
        return out
    set_seed(config.seed)
    task = make_task(config, manifests)
    where = {
        "rank": accelerator.process_index, "world_size": accelerator.num_processes, "seed": config.seed,
        "device": str(accelerator.device), "threads": threads, "backend": backend,
        "on_error": on_error,
    }  # fmt: skip
    image = manifests[0].config.image
    names = task.classes if isinstance(task, Classification) else None
    model = build(config.backbone, task.head_size, image.size, names)
    train = shard_loader.open(config.shards, "train", config.batch_size, **where)
    val = shard_loader.open(config.shards, "val", config.batch_size, **where)
    baselines = Baselines.learn(task, train.sidecar(["survey", task.label]))
    card = Card(task, config, image.to_dict(), data, any(m.mock for m in manifests), baselines)
    trainer = _Trainer(card, out, accelerator, model, train, val, record, checkpoint_minutes)
    try:
        trainer.run()
    finally:
        if train.skipped + val.skipped:
            total = train.skipped + val.skipped
            accelerator.print(f"damaged samples skipped, over all epochs: {total} ({train.skipped} of train)")
        train.close()
        val.close()
    if accelerator.is_main_process:
        summary = trainer.summary()
        print(evaluate.write(out, trainer.card, {}, training=summary))
        write_record(out, {**record, "status": "complete", **summary})
        checkpoint.remove(out)
    accelerator.wait_for_everyone()
    return out


class _Trainer:
    def __init__(
        self, card: Card, out: Path, accelerator: Accelerator, model: SpectrumModel, train: Any, val: Any,
        record: dict[str, Any], checkpoint_minutes: float,
    ) -> None:  # fmt: skip
        self.card, self.out, self.accelerator, self.train, self.val = card, out, accelerator, train, val
        self.config, self.task, self.record = card.config, card.task, record
        self.progress = Progress()
        self.per_epoch = len(train)
        self.steps = min(self.config.epochs * self.per_epoch, self.config.max_steps or sys.maxsize)
        self.epochs = math.ceil(self.steps / self.per_epoch)
        self.plain = model.to(accelerator.device)
        groups = parameter_groups(model, self.config.weight_decay, self.config.layer_decay)
        fused = accelerator.device.type in ("cuda", "cpu")
        optimizer = torch.optim.AdamW(groups, lr=self.config.peak_lr, betas=(0.9, 0.999), fused=fused)
        runner = torch.compile(model) if self.config.compile else model
        self.model: nn.Module
        self.model, self.optimizer = accelerator.prepare(runner, optimizer)
        self.interval = 60 * checkpoint_minutes
        self.saved_at = self.started = time.monotonic()
        self.seen, self.waited, self.busy = 0, 0.0, 0.0

    def run(self) -> None:
        """From the newest checkpoint, if there is one, to the last step."""
        self.resume()
        self.say_what()
        with _stop_on_interrupt() as self.stop, self.bar() as self.line:
            while self.progress.epoch < self.epochs:
                if self.progress.batch < self.per_epoch and self.progress.step < self.steps:
                    self.train_epoch()
                self.validate()

    def resume(self) -> None:
        found = checkpoint.latest(self.out)
        if found is None:
            return
        rank = self.accelerator.process_index
        self.progress = Progress(**checkpoint.restore(found, self.plain, self.optimizer, self.train, rank))
        self.accelerator.print(f"resuming {self.out} after step {self.progress.step} of {self.steps}")
        if self.progress.best:
            self.card = Card.loads((self.out / CARD).read_text())

    def train_epoch(self) -> None:
        """Train on what is left of the epoch; checkpoint now and then."""
        progress = self.progress
        self.model.train()
        for batch in self.timed(self.train):
            self.step(batch)
            progress.batch += 1
            if progress.step >= self.steps:
                return
            # After the last batch the loader first turns to its next epoch; `validate` checkpoints then.
            if progress.batch < self.per_epoch and (wish := self.wish()):
                self.save(stop=wish > 1)

    def step(self, batch: Any) -> None:
        """One optimiser step on the mean loss over the labelled samples of all processes."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.peak_lr * group["lr_scale"] * self.schedule(self.progress.step)
        with self.accelerator.autocast():
            logits = self.model(batch["pixel_values"])
        total, count = masked_loss(self.task, logits, batch["labels"][self.task.label], batch["valid"])
        # Processes average their gradients, so each one's sum is divided by the mean count, not by its own.
        mean_count = self.accelerator.reduce(count.float(), reduction="mean").clamp_min(
            1 / self.accelerator.num_processes
        )
        loss = total / mean_count
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.progress.step += 1
        self.note(loss, len(batch["valid"]) * self.accelerator.num_processes)

    def schedule(self, step: int) -> float:
        """Share of the peak learning rate: linear warm-up, then a cosine down to 1%."""
        warmup = max(1, round(self.config.warmup * self.steps))
        if step < warmup:
            return (step + 1) / warmup
        share = (step - warmup) / max(1, self.steps - warmup)
        return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share))

    def validate(self) -> None:
        """Score the validation split, keep the model if it is the best so far, checkpoint."""
        progress = self.progress

        def check() -> None:
            if self.accelerator.num_processes == 1 and self.stop.is_set():
                self.save(stop=True)

        scored = score(self.model, self.task, self.val, self.accelerator, check)
        scores = judge(self.task, scored, self.card.baselines)
        progress.epoch, progress.batch = progress.epoch + 1, 0
        metric, more = self.task.best
        value = scores["all"][metric]
        progress.history.append(
            finite({"epoch": progress.epoch, "step": progress.step, "loss": scores["loss"], metric: value})
        )
        self.line.set_description_str(f"{self.task.name} {progress.epoch}/{self.epochs} val {metric} {value:.4f}")
        if self.better(value, more):
            progress.best = {"epoch": progress.epoch, "metric": metric, "value": finite(value)}
            if self.accelerator.is_main_process:
                self.card = save_model(self.out, self.plain, self.card, progress.best)
                evaluate.write(self.out, self.card, {"val": scores})
                figures.draw(self.out, self.task, scored, "val", self.card.mock)
        self.save(stop=self.wish() > 1 and progress.epoch < self.epochs)

    def better(self, value: float, more: bool) -> bool:
        """Whether this is the best validation so far; a run without a defined metric keeps its last epoch."""
        best = None if self.progress.best is None else self.progress.best["value"]
        if best is None:
            return True
        return math.isfinite(value) and (value > best if more else value < best)

    def save(self, stop: bool) -> None:
        """Checkpoint; on `stop` say how to go on and leave."""
        self.saved_at = time.monotonic()
        checkpoint.save(self.out, asdict(self.progress), self.plain, self.optimizer, self.train, self.accelerator)
        if self.accelerator.is_main_process:
            write_record(self.out, {**self.record, "history": self.progress.history})
        if stop:
            self.line.close()
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
        if self.progress.batch % _AGREE_EVERY:
            return 0
        everyone = self.accelerator.gather(torch.tensor([mine], device=self.accelerator.device))
        return int(everyone.max())

    def timed(self, loader: Any) -> Iterator[Any]:
        """The loader's batches; the time spent waiting for them is counted."""
        batches = iter(loader)
        while True:
            began = time.perf_counter()
            batch = next(batches, None)
            self.waited += time.perf_counter() - began
            if batch is None:
                return
            yield batch
            self.busy += time.perf_counter() - began

    def note(self, loss: Tensor, samples: int) -> None:
        self.seen += samples
        due = time.monotonic() - self.line.last_print_t > self.line.mininterval if not self.line.disable else False
        if due or self.progress.step == self.steps:  # reading the loss waits for the device: not at every step
            wait = 100 * self.waited / max(1e-9, self.busy)
            self.line.set_postfix_str(f"loss {float(loss.detach()):.4f}, data wait {wait:.0f}%", refresh=False)
        self.line.update(samples)

    def bar(self) -> tqdm[Any]:
        size = self.config.batch_size * self.accelerator.num_processes
        return tqdm(
            total=self.steps * size, initial=self.progress.step * size, unit="img", desc=self.task.name,
            smoothing=0.1, disable=not self.accelerator.is_main_process, file=sys.stderr,
            mininterval=0.3 if sys.stderr.isatty() else 10.0,
        )  # fmt: skip

    def say_what(self) -> None:
        counts = self.card.baselines.counts
        parameters = sum(p.numel() for p in self.plain.parameters())
        self.accelerator.print(
            f"{'MOCK data: ' if self.card.mock else ''}{self.task.name} on {self.train.samples:,} train images "
            f"({counts['all']:,} labelled: {', '.join(f'{k} {v:,}' for k, v in counts.items() if k != 'all')}), "
            f"{self.val.samples:,} val images\n{self.config.backbone}, {parameters / 1e6:.1f} M parameters, "
            f"{self.steps:,} steps of {self.config.batch_size} x {self.accelerator.num_processes} on "
            f"{self.accelerator.device}"
        )

    def summary(self) -> dict[str, Any]:
        """What the run was, for `metrics.json`; times are of the last uninterrupted part."""
        seconds = max(1e-9, self.busy)
        return {
            "epochs": self.progress.epoch, "steps": self.progress.step, "best": self.progress.best,
            "history": self.progress.history, "device": str(self.accelerator.device),
            "samples_per_second": self.seen / seconds, "data_wait": self.waited / seconds,
        }  # fmt: skip


@contextmanager
def _stop_on_interrupt() -> Iterator[threading.Event]:
    """The first Ctrl-C sets the event, so that a step is never cut in half; the second one stops at once."""
    event = threading.Event()

    def ask(*_: object) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        event.set()
        print("\nstopping after this step; Ctrl-C again stops at once", file=sys.stderr)

    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = signal.signal(signal.SIGINT, ask)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, before)
