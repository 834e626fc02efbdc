"""What the commands of `train` and `train.tokenizer` have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from specshards.common.arguments import option
from specshards.common.errors import UsageError
from specshards.train.config import RunOptions

Device = Annotated[str, option(RunOptions, "device")]
Workers = Annotated[int | None, option(RunOptions, "threads")]
Model = Annotated[Path, typer.Option(help="Folder of a trained run.")]


def folders(text: str) -> tuple[str, ...]:
    """The names of a list with commas."""
    return tuple(part for part in (piece.strip() for piece in text.split(",")) if part)


def given(text: str) -> Path:
    """INPUT as a path; UsageError where there is none."""
    if not text.strip():
        raise UsageError("no INPUT given: name a FITS file, a folder or glob of them, or spectra Parquet")
    return Path(text)
