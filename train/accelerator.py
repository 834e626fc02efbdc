"""One process's share of the machine: device, precision, trackers, memory."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, is_initialized

from specshards.common.errors import UsageError

LOGS = ("tensorboard", "wandb", "none")
#: glibc's mallopt: what it is asked to keep, and the bytes.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _KEPT = -1, -3, 1 << 30


def make_accelerator(
    device: str = "auto", precision: str = "auto", log: str = "none", out: Path | None = None
) -> Accelerator:
    """One process's share of the machine.

    Args:
        precision: `fp32`, `bf16`, or `auto`: bf16 on a GPU that has it, float32 elsewhere.
        log: `tensorboard`, into `out`, `wandb` or `none`.

    Raises:
        UsageError: a device or a way to log that this machine does not have.
    """
    if log not in LOGS:
        raise UsageError(f"unknown tracker {log}: choose {', '.join(LOGS)}")
    if log == "wandb" and find_spec("wandb") is None:
        raise UsageError("tracker wandb: Weights & Biases is not installed; `.venv/bin/pip install wandb`")
    here = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device != "auto" and not here.get(device):
        raise UsageError(
            f"device {device}: not on this machine; choose auto or {' or '.join(k for k in here if here[k])}"
        )
    suits = device in ("auto", "cuda") and here["cuda"] and torch.cuda.is_bf16_supported()
    bf16 = precision == "bf16" or (precision == "auto" and suits)
    rounding = "bf16" if bf16 else "no"
    if is_initialized() and AcceleratorState().mixed_precision != rounding:
        # accelerate knows one precision a process; here models of two may answer, one after the other.
        AcceleratorState._reset_state()
    # Without the word accelerate lets several processes find each other on a GPU only: each would be alone.
    cpu = device == "cpu" or not torch.accelerator.is_available()
    return Accelerator(mixed_precision=rounding, cpu=cpu, log_with=None if log == "none" else log, project_dir=out)


def keep_freed_memory() -> None:
    """For a process that trains on a CPU: let glibc keep what one step frees for the next one.

    It would give tensors of more than 32 MB back to the system, which hands them out again page by page, zeroed: a
    seventh of the CPU time of fine-tuning a ViT-S in batches of 32. With another allocator nothing is done.
    """
    with suppress(OSError, AttributeError, TypeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP_THRESHOLD, _KEPT)
        libc.mallopt(_TRIM_THRESHOLD, _KEPT)
