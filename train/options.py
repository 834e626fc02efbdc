"""What the commands of `train` and `train.tokenizer` have in common."""

from __future__ import annotations

import typer

DEVICE = typer.Option(help="auto, cpu, cuda or mps.")
WORKERS = typer.Option(help="Decoding threads of the loader. Default: all cores.")


def folders(text: str) -> tuple[str, ...]:
    """The names of a list with commas."""
    return tuple(part for part in (piece.strip() for piece in text.split(",")) if part)
