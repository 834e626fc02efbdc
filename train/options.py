"""What the commands of `train` and `train.tokenizer` have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from specshards.common.arguments import Fields, option
from specshards.common.errors import UsageError
from specshards.common.files import is_remote, location
from specshards.ingest.said import Stated
from specshards.train.config import RunOptions

Device = Annotated[str, option(RunOptions, "device")]
Workers = Annotated[int | None, option(RunOptions, "threads")]
MaxFileSize = Annotated[str | None, typer.Option(help="Of a FITS file, uncompressed, such as 2GB.")]
#: What a user says of spectra whose files do not say it, as in `ingest build`; else what was said of the model's own.
Said = Annotated[Stated, Fields("Files that do not say it")]
Model = Annotated[Path, typer.Option(help="Folder of a trained run.")]


def folders(text: str) -> tuple[str, ...]:
    """The names of a list with commas."""
    return tuple(part for part in (piece.strip() for piece in text.split(",")) if part)


def given(text: str, address: bool = False) -> Path:
    """INPUT as a path, of shards also as an address; UsageError where there is none."""
    if not text.strip():
        raise UsageError("no INPUT given: name a FITS file, a folder or glob of them, or spectra Parquet")
    path = location(text)
    if is_remote(path) and not address:
        raise UsageError(f"INPUT={text}: an address, where a path of this machine belongs; copy the files here")
    return path


def most_bytes(size: str | None) -> int | None:
    """What `--max-file-size` stands for; None where it is not given."""
    from specshards.ingest.limits import parse_size

    return None if size is None else parse_size(size)
