"""What a run shows while it goes on: one progress line, TensorBoard or Weights & Biases, and the rates at its end."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import LoggerType
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from specshards.common.messages import LOGGER

#: Dense bf16 peak of GPUs with float32 accumulation, FLOP/s, from NVIDIA's data sheets.
PEAKS = {
    "RTX 4090": 165.2e12, "RTX 3090": 71e12, "A100": 312e12, "L40S": 362e12, "H100": 989.4e12, "H200": 989.4e12,
}  # fmt: skip
#: Names that hold one of these and are GPUs with another peak.
OTHERS = ("H100 PCIe", "H100 NVL", "H200 NVL", "4090 D", "4090 Laptop")

#: Of the spectrum that the arithmetic of a model is counted on: LAMOST's 3,909, rounded up as a loader does.
PIXELS = 3936


class Meter:
    """Counts images, the time spent waiting for them, and the arithmetic done on them.

    A training image costs three forward passes: one forward, two backward (`flops`); an answer costs `whole`. MFU is
    the share of the device's peak; it is known for the GPUs in `PEAKS` only.
    """

    def __init__(self, accelerator: Accelerator, model: nn.Module, view: str, size: int, title: str) -> None:
        self.accelerator, self.title = accelerator, title
        self.unit = "img" if view == "picture" else "spec"
        self._view, self._size = view, size
        self.whole = forward_flops(model, size, accelerator.device, view)
        self.flops = 3 * self.whole
        self.peak = None
        if accelerator.device.type == "cuda":
            self.peak = peak_of(torch.cuda.get_device_name(accelerator.device))
        self.seen, self.waited, self.busy = 0, 0.0, 0.0
        self._since: float | None = None  # when the batch that is worked on was asked for
        self.line: tqdm[Any]

    def count(self, model: Any) -> None:
        """Count anew the arithmetic of a model that from now on reads less, or more, while it trains."""
        model.fewer.always = True
        try:
            self.flops = 3 * forward_flops(model, self._size, self.accelerator.device, self._view)
        finally:
            model.fewer.always = False

    @contextmanager
    def open(self, images: int, done: int, step: int) -> Iterator[None]:
        """Show the line; log from `step` on: what an interrupted run logged after it is dropped."""
        # TensorBoard takes the name for a folder of the run, Weights & Biases for a project.
        name = "specshards" if LoggerType.WANDB in self.accelerator.log_with else "tensorboard"
        self.accelerator.init_trackers(name, init_kwargs={"tensorboard": {"purge_step": step}})
        self.line = tqdm(
            total=images, initial=done, unit=self.unit, desc=self.title, smoothing=0.1,
            disable=not self.accelerator.is_main_process, file=sys.stderr,
            mininterval=0.3 if sys.stderr.isatty() else 10.0,
        )  # fmt: skip
        with self.line:
            yield

    def timed(self, batches: Iterable[Any]) -> Iterator[Any]:
        """The batches; the time spent waiting for them is counted."""
        source = iter(batches)
        while True:
            self._since = began = time.perf_counter()
            try:
                batch = next(source, None)
                self.waited += time.perf_counter() - began
                if batch is None:
                    return
                yield batch
            finally:
                self.busy, self._since = self.busy + time.perf_counter() - began, None

    def note(self, step: int, loss: Tensor, optimizer: Any, samples: int, *, last: bool) -> None:
        """Count a step, of so many samples over all processes; say and log how it goes, where the line is due."""
        self.seen += samples
        due = time.monotonic() - self.line.last_print_t > self.line.mininterval if not self.line.disable else False
        if due or last:  # reading the loss waits for the device: not at every step
            rates = self.rates()
            wait = f"data wait {100 * (rates['data_wait'] or 0.0):.0f}%"
            mfu = rates["mfu"]
            rate = f", MFU {100 * mfu:.0f}%" if mfu is not None else ""
            self.line.set_postfix_str(f"loss {float(loss):.4f}, {wait}{rate}", refresh=False)
            shown = {"loss": float(loss), "lr": max(group["lr"] for group in optimizer.param_groups), **rates}
            self.log({f"train/{name}": value for name, value in shown.items() if value is not None}, step)
        self.line.update(samples)

    def epoch(self, step: int, text: str, values: Mapping[str, Any]) -> None:
        """Say and log a validation."""
        self.line.set_description_str(f"{self.title} {text}")
        self.log({f"val/{name}": v for name, v in values.items() if isinstance(v, float)}, step)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """To the trackers, on the main process."""
        self.accelerator.log(dict(values), step=step)

    def rates(self) -> dict[str, float | None]:
        """Images a second, share of the time spent waiting for data, TFLOP/s a process, MFU."""
        running = 0.0 if self._since is None else time.perf_counter() - self._since
        seconds = max(1e-9, self.busy + running)
        done = self.seen / self.accelerator.num_processes * self.flops / seconds
        return {
            "samples_per_second": self.seen / seconds, "data_wait": self.waited / seconds, "tflops": done / 1e12,
            "mfu": done / self.peak if self.peak else None,
        }  # fmt: skip

    def close(self) -> None:
        """Leave the line as it is."""
        self.line.close()


def peak_of(gpu: str) -> float | None:
    """Dense bf16 peak of a GPU by its name, FLOP/s; None where it is not known."""
    if any(other in gpu for other in OTHERS):
        return None
    return next((peak for name, peak in PEAKS.items() if name in gpu), None)


def forward_flops(model: nn.Module, size: int, device: torch.device, view: str = "picture") -> float:
    """Floating-point operations of a forward pass on one picture of `size` pixels a side; a multiply-add is two.

    A model that reads spectra is given one of `PIXELS` pixels.
    """
    training = model.training
    example: Any = torch.zeros(1, 3, size, size, dtype=torch.uint8, device=device)
    if view == "spectra":
        example = {name: torch.ones(1, PIXELS, device=device) for name in ("flux", "ivar", "wavelength")}
    # The counter knows attention as plain matrix products only, not the CPU's fused kernel.
    devices = [] if device.type == "cpu" else [device]
    with (
        FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH),
        torch.random.fork_rng(devices),
    ):  # fmt: skip
        model.eval()(example)
    model.train(training)
    return float(counter.get_total_flops())


@contextmanager
def stop_on_interrupt() -> Iterator[threading.Event]:
    """The first Ctrl-C or SIGTERM sets the event, so that a step is never cut in half; the second stops at once."""
    event = threading.Event()

    def ask(*_: object) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        event.set()
        LOGGER.warning("stopping after this step; Ctrl-C again stops at once")

    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
