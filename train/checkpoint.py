"""Checkpoints of a run under way: written whole or not at all, read back without pickle's powers.

<run>/checkpoints/step-00001200-0003/model.safetensors     weights
                                     average.safetensors   of the averaged model, where there is one
                                     optimizer.pt          read with weights_only=True
                                     rank-0.pt             random states of each process, and the loader's position
                                     state.json            where the loop stands; checksums of the others
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from specshards.common.errors import JobError, one_line
from specshards.common.files import sha256
from specshards.common.json import fits, parse

CHECKPOINTS, _STATE = "checkpoints", "state.json"


class Stateful(Protocol):
    """What can save and restore its position: the loader."""

    def state_dict(self) -> dict[str, Any]: ...  # noqa: D102

    def load_state_dict(self, state: dict[str, Any]) -> None: ...  # noqa: D102


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Make what torch and safetensors raise on a full disk the one line that everything else says.

    Raises:
        JobError: names the folder and the mend.
    """
    try:
        yield
    except (SafetensorError, RuntimeError, OSError) as error:
        if isinstance(error, OSError):
            reason = one_line(error)
        elif _is_full(folder):
            raise JobError(one_line(OSError(errno.ENOSPC, "", str(folder)))) from error
        else:
            reason = str(error).strip().splitlines()[0]
        raise JobError(
            f"{folder}: cannot be written ({reason}); free some space or choose another OUT, then run again"
        ) from error


def _is_full(folder: Path) -> bool:
    """Whether a disk has no room left: torch and safetensors do not say which error of the system they met."""
    place = next(path for path in (folder, *folder.parents) if path.is_dir())
    return shutil.disk_usage(place).free < 1 << 20


def latest(run: Path) -> Path | None:
    """The newest finished checkpoint of a run folder."""
    found = sorted((run / CHECKPOINTS).glob("step-*[0-9]"))
    return found[-1] if found else None


def save(
    run: Path,
    state: Mapping[str, Any],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loader: Stateful,
    accelerator: Accelerator,
    average: nn.Module | None = None,
) -> None:
    """Write `step-<step>-<epochs validated>`, unless it is there, and remove older ones.

    Every process calls it; the folder is shared by all.

    Args:
        state: JSON-able, with `step` and `epoch`.
    """
    final = run / CHECKPOINTS / f"step-{state['step']:08d}-{state['epoch']:04d}"
    if final.is_dir():
        return
    folder = final.with_suffix(".tmp")
    if accelerator.is_main_process:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    accelerator.wait_for_everyone()
    mine = {"torch": torch.get_rng_state(), "loader": loader.state_dict()}
    if torch.cuda.is_available():
        mine["cuda"] = torch.cuda.get_rng_state()
    with writing(folder):
        torch.save(mine, folder / f"rank-{accelerator.process_index}.pt")
    if accelerator.is_main_process:
        with writing(folder):
            save_file(_weights(model), folder / "model.safetensors")
            if average is not None:
                save_file(_weights(average), folder / "average.safetensors")
            torch.save(optimizer.state_dict(), folder / "optimizer.pt")
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        with writing(folder):
            files = {path.name: sha256(path) for path in sorted(folder.iterdir())}
            (folder / _STATE).write_text(json.dumps({**state, "files": files}, indent=1) + "\n")
        for file in folder.iterdir():
            _sync(file)
        os.replace(folder, final)
        _sync(final.parent)
        for old in (run / CHECKPOINTS).iterdir():
            if old != final:
                shutil.rmtree(old, ignore_errors=True)
    accelerator.wait_for_everyone()


def restore(
    checkpoint: Path, model: nn.Module, optimizer: torch.optim.Optimizer, loader: Stateful, rank: int,
    average: nn.Module | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Put everything back as `save` found it, and return its `state`.

    A process beyond those that saved it has the same position, and draws of its own.

    Raises:
        JobError: the checkpoint is damaged. UsageError: it is of other data (from the loader).
    """
    try:
        state = parse((checkpoint / _STATE).read_text(encoding="utf-8"), nan=True)
        fits(state, dict[str, Any])
        files = state.pop("files", {})
        fits(files, dict[str, str], "files")
        for name, checksum in files.items():
            if Path(name).name != name or sha256(checkpoint / name) != checksum:
                raise ValueError(f"{name}: not the file that was written")
        model.load_state_dict(load_file(checkpoint / "model.safetensors"))
        if average is not None:
            average.load_state_dict(load_file(checkpoint / "average.safetensors"))
        optimizer.load_state_dict(torch.load(checkpoint / "optimizer.pt", weights_only=True, map_location="cpu"))
        is_new = f"rank-{rank}.pt" not in files
        mine = torch.load(checkpoint / f"rank-{0 if is_new else rank}.pt", weights_only=True, map_location="cpu")
        position = mine["loader"]
        fits(position, dict[str, Any], "loader")
        for name in ("epoch", "batch"):
            fits(position[name], int, f"loader.{name}")
        fits(position["fingerprint"], str, "loader.fingerprint")
        if is_new:
            torch.manual_seed((state["step"] << 16) + rank)
        else:
            torch.set_rng_state(mine["torch"])
            if "cuda" in mine and torch.cuda.is_available():
                torch.cuda.set_rng_state(mine["cuda"])
    except Exception as error:  # torch and safetensors raise many kinds, of a pickle that asks for code among them
        raise damaged(checkpoint, (str(error).splitlines() or [type(error).__name__])[0][:150]) from error
    loader.load_state_dict(position)
    return state


def damaged(checkpoint: Path, reason: str) -> JobError:
    """The error for a checkpoint that cannot be used."""
    return JobError(f"{checkpoint}: damaged ({reason}); remove that folder to start afresh")


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}


def remove(run: Path) -> None:
    """Remove all checkpoints of a run."""
    shutil.rmtree(run / CHECKPOINTS, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
