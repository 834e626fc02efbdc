"""One way of others to load pictures, in a process of its own: `benchmarks.suite.load` starts it and asks for epochs.

It imports nothing of this project, so that it also runs in the environment of `benchmarks/peers/requirements.txt`.

    python peer_worker.py prepare KIND FORM SOURCE FOLDER    write the pictures of SOURCE as KIND stores them
    python peer_worker.py serve KIND FORM FOLDER --workers 2 --batch 64

KIND is `webdataset`, `loose`, `litdata` or `streaming`; FORM is how a picture is stored: `png` and `jpeg` are files
of the full-size RGB picture, `raw` its plain bytes. SOURCE holds `png/<row>.png`, `jpeg/<row>.jpg`, `pictures.npy`,
uint8 `(N, S, S, 3)`, and `labels.npy`, float64 `(N, 1 + L)`, whose first column is the row.

`serve` prints one JSON line when it is ready, and one for each line on standard input: `epoch` is answered with the
seconds and samples of one epoch of batches, `check SOURCE` with how they compare to its pictures.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import sys
import time
import types
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from importlib.machinery import ModuleSpec
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

EXTENSIONS = {"png": "png", "jpeg": "jpg"}
Batches = Iterable[tuple[torch.Tensor, torch.Tensor]]
Array = npt.NDArray[Any]


def picture_path(source: Path, form: str, row: int) -> Path:
    """Where a picture lies as a file of its own."""
    return source / form / f"{row:010d}.{EXTENSIONS[form]}"


class Check:
    """How the batches of one epoch compare to the pictures that they should hold."""

    def __init__(self, source: Path) -> None:
        self._pictures = np.load(source / "pictures.npy", mmap_mode="r")
        rows = np.load(source / "labels.npy")[:, 0].astype(int).tolist()
        self._where = {row: i for i, row in enumerate(rows)}
        self._seen = np.zeros(len(rows), int)
        self._unequal, self._error = 0, 0.0

    def add(self, pixels: torch.Tensor, rows: Iterable[int]) -> None:
        """Compare a batch, uint8 `(B, 3, S, S)`, with the pictures of these rows."""
        if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[1] != 3:
            raise ValueError(f"a batch of {pixels.dtype} {tuple(pixels.shape)}, not uint8 (B, 3, S, S)")
        for picture, row in zip(pixels.permute(0, 2, 3, 1).numpy(), rows, strict=True):
            place = self._where[int(row)]
            self._seen[place] += 1
            difference = picture.astype(np.int32) - self._pictures[place]
            error = float(np.mean(difference**2))
            self._unequal += error > 0
            self._error += error

    def result(self) -> dict[str, float]:
        """Samples, how many of them were missing, repeated or not equal, and the PSNR in dB over all."""
        samples = int(self._seen.sum())
        mean = self._error / max(samples, 1)
        psnr = 10 * math.log10(255**2 / mean) if mean else math.inf
        missing, repeated = int((self._seen == 0).sum()), int((self._seen > 1).sum())
        return {"samples": samples, "missing": missing, "repeated": repeated, "unequal": self._unequal, "psnr": psnr}


def _pil(payload: bytes) -> Array:
    # Neither `convert` nor a transform: the least that PIL can do.
    return np.array(Image.open(io.BytesIO(payload)))


def _samples(source: Path, form: str) -> Iterator[tuple[int, Array, Any]]:
    """Row, labels, and the picture: its file for `png` and `jpeg`, its array for `raw`."""
    pictures = np.load(source / "pictures.npy", mmap_mode="r")
    for i, labels in enumerate(np.load(source / "labels.npy")):
        row = int(labels[0])
        yield row, labels, np.array(pictures[i]) if form == "raw" else picture_path(source, form, row)


# webdataset: a tar of files, shuffled through a buffer.


def _prepare_webdataset(form: str, source: Path, folder: Path) -> None:
    from webdataset import ShardWriter

    folder.mkdir(parents=True)
    # Several shards for each worker, however small the set: a worker without one is an error.
    count = math.ceil(len(np.load(source / "labels.npy")) / 8)
    with ShardWriter(f"{folder}/%06d.tar", maxcount=count, verbose=0) as shards:
        for row, labels, picture in _samples(source, form):
            shards.write({"__key__": f"{row:010d}", EXTENSIONS[form]: picture.read_bytes(), "npy": labels})


def _open_webdataset(form: str, folder: Path, workers: int, size: int) -> Any:
    from webdataset import WebDataset, WebLoader

    tars = sorted(str(path) for path in folder.glob("*.tar"))
    data = WebDataset(tars, shardshuffle=len(tars), seed=0).shuffle(1000).decode("rgb8")
    batches = data.to_tuple(EXTENSIONS[form], "npy").batched(size)
    return WebLoader(batches, batch_size=None, num_workers=workers, persistent_workers=workers > 0)


# Loose files and a Dataset of ten lines.


class _Files(Dataset[tuple[Array, Array]]):
    def __init__(self, form: str, source: Path) -> None:
        self._labels = np.load(source / "labels.npy")
        self._paths = [str(picture_path(source, form, int(labels[0]))) for labels in self._labels]

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, i: int) -> tuple[Array, Array]:
        with Image.open(self._paths[i]) as image:
            return np.array(image), self._labels[i]


def _open_loose(form: str, folder: Path, workers: int, size: int) -> Any:
    files = _Files(form, folder)
    return DataLoader(files, size, shuffle=True, num_workers=workers, persistent_workers=workers > 0)


# litdata: chunks of serialized samples, indexed and mapped.


def _litdata_item(source: str, form: str, i: int) -> dict[str, Any]:
    labels = np.load(f"{source}/labels.npy", mmap_mode="r")[i]
    if form == "raw":
        image: Any = np.array(np.load(f"{source}/pictures.npy", mmap_mode="r")[i])
    else:
        image = picture_path(Path(source), form, int(labels[0])).read_bytes()
    return {"image": image, "labels": np.array(labels)}


def _prepare_litdata(form: str, source: Path, folder: Path) -> None:
    from litdata import optimize  # type: ignore[import-not-found]

    count = len(np.load(source / "labels.npy"))
    item = partial(_litdata_item, str(source), form)
    optimize(item, list(range(count)), str(folder), num_workers=1, chunk_bytes="16MB", verbose=False)


def _open_litdata(form: str, folder: Path, workers: int, size: int) -> Any:
    from litdata import StreamingDataLoader, StreamingDataset

    class Pictures(StreamingDataset):
        def __getitem__(self, index: Any) -> tuple[Any, Any]:
            item = super().__getitem__(index)
            return (item["image"] if form == "raw" else _pil(item["image"])), item["labels"]

    data = Pictures(str(folder), shuffle=True, drop_last=False)
    return StreamingDataLoader(data, batch_size=size, num_workers=workers, persistent_workers=workers > 0)


# MosaicML streaming: MDS shards.


def _prepare_streaming(form: str, source: Path, folder: Path) -> None:
    _stand_in_for_torchvision()
    from streaming import MDSWriter  # type: ignore[import-not-found]

    first = np.load(source / "pictures.npy", mmap_mode="r")
    labels = np.load(source / "labels.npy", mmap_mode="r")
    kind = f"ndarray:uint8:{','.join(map(str, first.shape[1:]))}" if form == "raw" else form
    columns = {"image": kind, "labels": f"ndarray:float64:{labels.shape[1]}"}
    with MDSWriter(out=str(folder), columns=columns, size_limit="16mb") as writer:
        for _, vector, picture in _samples(source, form):
            if form == "raw":
                writer.write({"image": picture, "labels": vector})
            else:
                with Image.open(picture) as image:
                    writer.write({"image": image, "labels": vector})


def _open_streaming(form: str, folder: Path, workers: int, size: int) -> Any:
    _stand_in_for_torchvision()
    from streaming import StreamingDataset

    class Pictures(StreamingDataset):
        def __getitem__(self, at: Any) -> tuple[Any, Any]:
            item = super().__getitem__(at)
            return np.array(item["image"]), item["labels"]

    data = Pictures(local=str(folder), shuffle=True, batch_size=size)
    return DataLoader(data, size, num_workers=workers, persistent_workers=workers > 0)


def _stand_in_for_torchvision() -> None:
    """Let MosaicML streaming be imported where torchvision was built for another torch, and cannot be.

    It imports two names of it for data sets that nothing here uses.
    """
    try:
        import torchvision  # type: ignore[import-not-found]  # noqa: F401
    except (ImportError, RuntimeError):
        for name, attribute in (("", ""), (".datasets", "VisionDataset"), (".transforms", ""),
                                (".transforms.functional", "to_tensor")):  # fmt: skip
            module = types.ModuleType(f"torchvision{name}")
            module.__spec__, module.__path__ = ModuleSpec(module.__name__, None), []
            setattr(module, attribute or "nothing", object)
            sys.modules[module.__name__] = module


PREPARE: dict[str, Callable[[str, Path, Path], None]] = {
    "webdataset": _prepare_webdataset, "litdata": _prepare_litdata, "streaming": _prepare_streaming,
}  # fmt: skip
OPEN: dict[str, Callable[[str, Path, int, int], Any]] = {
    "webdataset": _open_webdataset, "loose": _open_loose, "litdata": _open_litdata, "streaming": _open_streaming,
}  # fmt: skip
PACKAGES = {"webdataset": "webdataset", "loose": "pillow", "litdata": "litdata", "streaming": "mosaicml-streaming"}


def batches_of(loader: Any) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """One epoch of uint8 `(B, 3, S, S)` and labels `(B, 1 + L)`."""
    for pictures, labels in loader:
        yield torch.as_tensor(pictures).permute(0, 3, 1, 2), torch.as_tensor(labels)


def answer(line: str, loader: Any) -> dict[str, float]:
    """Do what a line asks for."""
    command, _, argument = line.strip().partition(" ")
    if command == "check":
        check = Check(Path(argument))
        for pixels, labels in batches_of(loader):
            check.add(pixels, labels[:, 0].long().tolist())
        return check.result()
    if command != "epoch":
        raise ValueError(f"unknown command {command}")
    start, samples = time.perf_counter(), 0
    for pixels, _labels in batches_of(loader):
        samples += len(pixels)
    return {"seconds": time.perf_counter() - start, "samples": samples}


def serve(loader: Any, kind: str) -> None:
    """Answer the lines of standard input, until it ends."""
    # Some libraries print; the answers have the real standard output for themselves.
    with os.fdopen(os.dup(1), "w", buffering=1) as out:
        os.dup2(2, 1)
        print(json.dumps({"about": f"{PACKAGES[kind]} {version(PACKAGES[kind])}"}), file=out)
        for line in sys.stdin:
            print(json.dumps(answer(line, loader)), file=out)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Load pictures as others do.")
    commands = parser.add_subparsers(dest="command", required=True)
    preparing, serving = commands.add_parser("prepare"), commands.add_parser("serve")
    for command, kinds in ((preparing, list(PREPARE)), (serving, list(OPEN))):
        command.add_argument("kind", choices=kinds)
        command.add_argument("form", choices=("png", "jpeg", "raw"))
    preparing.add_argument("source", type=Path)
    for command in (preparing, serving):
        command.add_argument("folder", type=Path)
    serving.add_argument("--workers", type=int, default=0)
    serving.add_argument("--batch", type=int, default=64)
    given = parser.parse_args()
    if given.command == "prepare":
        PREPARE[given.kind](given.form, given.source, given.folder)
    else:
        serve(OPEN[given.kind](given.form, given.folder, given.workers, given.batch), given.kind)


if __name__ == "__main__":
    main()
