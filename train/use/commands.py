"""Commands of `specshards train` beside fit, evaluate and predict: explain, embed, export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from specshards.common.arguments import configured
from specshards.common.errors import UsageError
from specshards.train.launch import alone
from specshards.train.options import Device, MaxFileSize, Model, Said, Workers, given, most_bytes


@configured
def explain(
    model: Model,
    input: Annotated[str, typer.Option(help="FITS file, folder or glob of them, or spectra Parquet.")],
    stated: Said,
    out: Annotated[Path | None, typer.Option(help="Folder of the pictures [MODEL/explain].")] = None,
    limit: Annotated[int, typer.Option(help="Most objects to draw.")] = 8,
    lines: Annotated[bool, typer.Option(help="Mark strong lines at the known or predicted redshift.")] = True,
    picture: Annotated[
        str | None, typer.Option(help="Of a model of several pictures, the one to look at [the first].")
    ] = None,
    device: Device = "auto",
    max_file_size: MaxFileSize = None,
) -> None:
    """Draw where a model looks: attention along the spectrum, and on the picture where it reads one."""
    alone("train explain")
    from specshards.train.use.explain import explain as run

    run(
        model, given(input), out=out, limit=limit, lines=lines, device=device, most_bytes=most_bytes(max_file_size),
        picture=picture, stated=stated,
    )  # fmt: skip


@configured
def embed(
    model: Model,
    input: Annotated[str, typer.Option(help="FITS files, spectra Parquet, or a folder of shards.")],
    stated: Said,
    split: Annotated[str, typer.Option(help="Of shards: train, val or test.")] = "val",
    reference: Annotated[
        Path | None, typer.Option(help="Look up neighbours in this table of an earlier embed, not in INPUT.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Parquet to write [MODEL/embeddings.parquet].")] = None,
    neighbours: Annotated[int, typer.Option(help="Nearest objects to list for each.")] = 5,
    exact: Annotated[
        bool | None,
        typer.Option(help="Compare every pair; no: let an index name candidates. Default: every pair up to 200,000."),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Objects at once.")] = 64,
    device: Device = "auto",
    workers: Workers = None,
    max_file_size: MaxFileSize = None,
) -> None:
    """Write every object's vector, its nearest neighbours, and how far it stands from them."""
    alone("train embed")
    from specshards.train.use.embed import embed as run

    run(
        model, given(input, address=True), split=split, reference=reference, out=out, neighbours=neighbours,
        batch_size=batch_size, device=device, threads=workers, most_bytes=most_bytes(max_file_size), stated=stated,
        exact=exact,
    )  # fmt: skip


def export(
    model: Model,
    to: Annotated[str, typer.Option(help="onnx: one file for other runtimes. hub: a folder for the model hub.")],
    out: Annotated[Path | None, typer.Option(help="[MODEL/model.onnx, MODEL/hub]")] = None,
    check: Annotated[bool, typer.Option(help="Compare the ONNX file with torch.")] = True,
) -> None:
    """Write a model for other programs."""
    alone("train export")
    from specshards.train.use.export import export_hub, export_onnx

    if to not in ("onnx", "hub"):
        raise UsageError(f"unknown --to {to}: choose onnx or hub")
    if to == "onnx":
        export_onnx(model, out, check=check)
    else:
        export_hub(model, out or model / "hub")
