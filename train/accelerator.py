"""One process's share of the machine: device, precision, trackers, memory."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, is_initialized

from specshards.common.errors import JobError, UsageError
from specshards.train.launch import can_meet, launched, unseen
from specshards.train.meeting import meet

LOGS = ("tensorboard", "wandb", "none")
#: glibc's mallopt: what it is asked to keep, and the bytes.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _KEPT = -1, -3, 1 << 30


def make_accelerator(
    device: str = "auto", precision: str = "auto", log: str = "none", out: Path | None = None
) -> Accelerator:
    """One process's share of the machine. Those that were started together find each other.

    Args:
        precision: `fp32`, `bf16`, or `auto`: bf16 on a GPU that has it, float32 elsewhere.
        log: `tensorboard`, into `out`, `wandb` or `none`.

    Raises:
        UsageError: a device or a way to log that this machine does not have; processes that cannot see each other.
        JobError: they did not find each other.
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
    count, _ = launched()
    can_meet()
    # Without the word accelerate lets several processes find each other on a GPU only: each would be alone.
    cpu = device == "cpu" or not torch.accelerator.is_available() or (device == "auto" and here["mps"] and count > 1)
    on_gpus = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if here["cuda"] and not cpu else 0
    if count > 1 and on_gpus > torch.cuda.device_count():
        raise UsageError(
            f"{on_gpus} processes on a machine of {torch.cuda.device_count()} GPU(s): start one for each, or give "
            "device cpu"
        )
    try:
        if count > 1:  # accelerate then finds the group made
            meet("gloo" if cpu else "nccl")
        made = Accelerator(
            mixed_precision=rounding, cpu=cpu, log_with=None if log == "none" else log, project_dir=out
        )
    except (RuntimeError, ValueError) as error:
        if count == 1:
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise JobError(
            f"the {count} processes did not find each other ({reason}); start all of them again"
        ) from error
    if made.num_processes < count:
        raise unseen(f"device {made.device}")
    return made


@contextmanager
def seeing_others(accelerator: Accelerator) -> Iterator[None]:
    """Make what torch raises in the processes that are left, when another one ends, one line.

    Raises:
        JobError: another process has ended.
    """
    try:
        yield
    except RuntimeError as error:
        if accelerator.num_processes == 1 or not (
            isinstance(error, torch.distributed.DistBackendError) or "gloo/transport" in str(error)
        ):
            raise
        raise JobError("another process of this run has ended; the same command goes on") from error


def keep_freed_memory() -> None:
    """For a process that trains on a CPU: let glibc keep what one step frees for the next one.

    It would give tensors of more than 32 MB back to the system, which hands them out again page by page, zeroed: a
    seventh of the CPU time of fine-tuning a ViT-S in batches of 32. With another allocator nothing is done.
    """
    with suppress(OSError, AttributeError, TypeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP_THRESHOLD, _KEPT)
        libc.mallopt(_TRIM_THRESHOLD, _KEPT)
