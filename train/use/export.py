"""A trained model for other programs: an ONNX file, or a folder ready for the model hub."""

from __future__ import annotations

import json
import logging
import shutil
import warnings
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from specshards.common.errors import JobError, UsageError, make_folder
from specshards.common.files import replacing, write_text
from specshards.common.json import signed
from specshards.common.messages import LOGGER
from specshards.shards import loader as shard_loader
from specshards.train.network import file_checksums, open_model
from specshards.train.report.modelcard import metrics_of, modelcard, public_name
from specshards.train.run import CARD, METRICS, Card

#: Largest difference of an output to torch's, relative to the largest output.
TOLERANCE = 1e-4
_README = "README.md"
_ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_LARGEST = 2**31 - 2**20  # bytes of a protocol buffer, with room for the graph


def export_onnx(run: Path, out: Path | None = None, *, check: bool = True) -> Path:
    """Write the model of a run as ONNX: uint8 pictures `(B, 3, S, S)` in, logits float32 `(B, outputs)` out, any B.

    A model of several pictures is given one after another: its answer is the mean of the logits over them, as the
    message says.

    The normalisation is inside. What the outputs mean (tasks, classes, scaling, image, mock or not) is in the file's
    metadata under `specshards`, as in `specshards.json`.

    Args:
        out: file; `<run>/model.onnx` by default.
        check: compare with torch on random pictures and, where the data set that the model was validated on is still
            there, on real ones; a file that differs is not kept.

    Raises:
        UsageError: no such model, or packages are missing. JobError: too large for one file, or it differs from torch
        by more than 1e-4 of the largest output.
    """
    missing = [name for name in _ONNX_PACKAGES[: 3 if check else 2] if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"ONNX needs {', '.join(missing)}: `.venv/bin/pip install -c constraints.txt -e '.[export]'` here"
        )
    out = out or run / "model.onnx"
    card, model = open_model(run, "onnx")
    weights = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    if weights > _LARGEST:
        raise JobError(f"{run}: {weights / 2**30:.1f} GiB of weights do not fit one ONNX file; take a smaller one")
    make_folder(out.parent)
    with replacing(out) as temporary:
        _write_onnx(card, model.cpu().eval(), temporary)
        said = _compare(card, model, temporary) if check else "not checked"
    size, mock = card.image["size"], "model of MOCK data: " if card.mock else ""
    several = f"; average the logits over {', '.join(card.several)}" if card.several else ""
    LOGGER.info(f"{mock}{out}: uint8 (B, 3, {size}, {size}) to {_outputs(card)} logits; {said}{several}")
    return out


def export_hub(run: Path, out: Path) -> Path:
    """A folder for `huggingface_hub.upload_folder`: model, preprocessing, what it learnt, metrics, figures, and card.

    Folders of this machine are named without their path there. Nothing is sent anywhere.

    Raises:
        UsageError: no such model, no metrics of it, or `out` holds other files. JobError: damaged.
    """
    card, _ = open_model(run)
    content = metrics_of(run, card)
    if out.resolve() == run.resolve():
        raise UsageError(f"--out {out}: is the run itself; choose another folder")
    if out.is_dir() and any(out.iterdir()) and not (out / CARD).is_file():
        raise UsageError(f"--out {out}: holds other files; choose an empty folder")
    make_folder(out)
    (out / _README).unlink(missing_ok=True)  # last in: a folder without it is not finished
    for name in ("preprocessor_config.json", "model.safetensors", *_figures(run)):
        (out / name).parent.mkdir(exist_ok=True)
        with replacing(out / name) as temporary:
            shutil.copyfile(run / name, temporary)
    config = json.loads((run / "config.json").read_text())
    config.pop("_name_or_path", None)
    write_text(out / "config.json", json.dumps(config, indent=2, sort_keys=True) + "\n")
    write_text(out / CARD, replace(_without_paths(card), files=file_checksums(out)).dumps())
    content["data"] = [_without_path(record) for record in content["data"]]
    write_text(out / METRICS, json.dumps(signed(content), indent=1) + "\n")
    write_text(out / _README, modelcard(run, out.resolve().name))
    LOGGER.info(f"{out}: ready for `hf upload NAME {out}`; read its {_README} first")
    return out


def _write_onnx(card: Card, model: nn.Module, path: Path) -> None:
    size = card.image["size"]
    example = torch.zeros(2, 3, size, size, dtype=torch.uint8)
    level = logging.getLogger("torch.onnx").level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of deprecations inside torch and onnxscript
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        try:
            program: Any = torch.onnx.export(
                model, (example,), dynamo=True, input_names=["pixel_values"], output_names=["logits"],
                dynamic_shapes=({0: torch.export.Dim("batch")},), verbose=False,
            )  # fmt: skip
        except Exception as error:  # the exporter raises many kinds
            raise JobError(
                f"{card.config.backbone}: cannot be written as ONNX: torch's exporter does not know all of its "
                f"operations ({_first_line(error)})"
            ) from error
        finally:
            logging.getLogger("torch.onnx").setLevel(level)
        program.model.metadata_props["specshards"] = _without_paths(card).dumps()
        program.save(str(path), external_data=False)


def _compare(card: Card, model: nn.Module, path: Path) -> str:
    """Whether the file says what the model says, in words."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    size = card.image["size"]
    rng = np.random.default_rng(0)
    random = [rng.integers(0, 256, (n, 3, size, size), np.uint8) for n in (1, 4)]
    real = _real_pictures(card)
    worst = worst_share = 0.0
    for pixels in (*random, *real):
        with torch.inference_mode():
            expected = model(torch.from_numpy(pixels)).numpy()
        difference = float(np.abs(session.run(None, {"pixel_values": pixels})[0] - expected).max())
        share = difference / max(float(np.abs(expected).max()), 1e-30)
        worst, worst_share = max(worst, difference), max(worst_share, share)
    counts = f"{sum(map(len, random))} random and {sum(map(len, real))} real pictures"
    said = f"largest difference to torch {worst:.2g}, {worst_share:.1g} of the largest output, over {counts}"
    if not worst_share <= TOLERANCE:
        raise JobError(f"{path.name}: {said}: more than {TOLERANCE:g}; the ONNX file was not kept")
    return said


def _real_pictures(card: Card) -> Sequence[npt.NDArray[np.uint8]]:
    """A few pictures of the validation split, uint8 `(8, 3, S, S)`; none where the data set is gone or changed."""
    try:
        with shard_loader.open(
            [record["folder"] for record in card.data], "val", 8, backend="plain", threads=1, images=card.pictures
        ) as loader:
            there = [manifest.fingerprint() for manifest in loader.manifests]
            if there != [record["fingerprint"] for record in card.data]:
                return []
            return [next(iter(loader))["pixel_values"].numpy().copy()]
    except (UsageError, JobError, OSError):
        return []


def _outputs(card: Card) -> int:
    return sum(task.head_size for task in card.tasks)


def _without_paths(card: Card) -> Card:
    """The card with folders of this machine by their last name."""
    config = card.config
    shards = tuple(Path(folder).name for folder in config.shards)
    config = replace(config, backbone=public_name(config.backbone), shards=shards)
    return replace(card, config=config, data=tuple(_without_path(record) for record in card.data), files={})


def _without_path(record: dict[str, Any]) -> dict[str, Any]:
    return {**record, "folder": Path(record["folder"]).name}


def _figures(run: Path) -> list[str]:
    """Names below the run, in order."""
    found = [*run.glob("figure_*.png"), *(run / "figures").glob("*.png")]
    return sorted(path.relative_to(run).as_posix() for path in found)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
