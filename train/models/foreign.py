"""Folders of models that others made: nothing in one is executed.

Weights are read from safetensors alone: a pickle (`pytorch_model.bin`, `.pt`, `.ckpt`) may run any program when it is
opened. Code that comes with a model (`auto_map`), or that its configuration asks the hub for, is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from specshards.common.json import fits, parse, shown

SAFE = ("model.safetensors", "model.safetensors.index.json")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".h5", ".msgpack")


def check_folder(folder: Path) -> None:
    """Look at the files of a folder before transformers does.

    Raises:
        ValueError: what is wrong with it, in one line.
    """
    check_config(read_object(folder / "config.json"), folder / "config.json")
    if not any((folder / name).is_file() for name in SAFE):
        pickles = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLES)
        held = f"holds its weights as {pickles[0]}, which may run any program when it is opened; " if pickles else ""
        raise ValueError(f"{held}give a folder with model.safetensors")
    index = folder / SAFE[1]
    if index.is_file():
        names: Any = read_object(index).get("weight_map")
        fits(names, dict[str, str], f"{index.name}: weight_map")
        for name in sorted(set(names.values())):
            if Path(name).name != name or not name.endswith(".safetensors"):
                raise ValueError(f"{index.name}: {shown(name)} is not the name of a file of weights")


def check_config(config: Mapping[str, Any], path: Path) -> None:
    """ValueError where a model's configuration asks for code that is not that of transformers."""
    if "auto_map" in config:
        raise ValueError(f"{path.name}: auto_map asks for program code of its own, which is not run")
    for name in (
        "attn_implementation",
        "_attn_implementation",
        "_attn_implementation_internal",
        "experts_implementation",
    ):
        if "/" in str(config.get(name, "")):
            raise ValueError(f"{path.name}: {name} asks for program code of the hub, which is not run")


def read_object(path: Path) -> dict[str, Any]:
    """The content of a JSON file.

    Raises:
        ValueError: missing, or not one object.
    """
    try:
        content = parse(path.read_text(encoding="utf-8"), nan=True)
    except OSError as error:
        raise ValueError(f"{path.name}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path.name}: {shown(content)} is not an object")
    return content
