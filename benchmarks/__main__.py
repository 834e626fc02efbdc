"""`python -m benchmarks` (`make bench`): the road from spectrum to batch, stage by stage, beside the usual ways."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.records import Record, interleave, save, table
from ingest.errors import UsageError, run_app

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
GROUPS = ("render", "encode", "load", "train")


def load_records(rounds: int, scratch: Path, objects: int) -> list[Record]:
    """One epoch of batches of 64 as RGB tensors: DALI, the plain reader, and webdataset + PIL."""
    import webdataset as wds

    from ingest.build import IngestConfig
    from ingest.build import build as ingest
    from ingest.mock import MockConfig, write
    from shards import loader
    from shards.build import build
    from shards.decode import dali_is_here
    from shards.encoding import ENCODINGS
    from shards.format import Manifest, ShardConfig

    mock = write(MockConfig(survey="lamost", n_files=objects), scratch / "mock")
    ingest(IngestConfig("lamost"), str(mock.folder), scratch)
    contenders: dict[str, Callable[[], int]] = {}
    for encoding in ENCODINGS:
        folder = scratch / encoding
        build(ShardConfig(encoding=encoding), scratch / "spectra", folder)
        for backend in ("dali", "plain") if dali_is_here() else ("plain",):
            batches = loader.open(folder, "train", 64, backend=backend)

            def epoch(batches=batches) -> int:  # type: ignore[no-untyped-def]
                for _ in batches:
                    pass
                return batches.samples

            contenders[f"{backend}, {encoding}"] = epoch
        if encoding == "flux":
            continue  # others read its spectra, but draw no pictures of them
        shards = Manifest.load(folder).split("train")
        tars = [str(record.path(folder)) for record in shards]

        def peer(tars=tars, count=sum(record.samples for record in shards)) -> int:  # type: ignore[no-untyped-def]
            for _ in wds.WebDataset(tars, shardshuffle=False).decode("rgb8").batched(64):
                pass
            return count

        contenders[f"webdataset + PIL, {encoding} (not expanded)"] = peer
    return interleave("load map2d", contenders, rounds)


@app.command()
def main(
    out: Annotated[Path, typer.Option(help="The JSON record.")] = Path("benchmarks/results/local/bench.json"),
    only: Annotated[str, typer.Option(help=f"Some of {', '.join(GROUPS)}, with commas.")] = ",".join(GROUPS),
    objects: Annotated[int, typer.Option(help="Mock objects for the loaders.")] = 2000,
    rounds: Annotated[int, typer.Option(help="Counted rounds; one more warms up.")] = 5,
) -> None:
    """Time every stage, interleaved; print a table and write the records as JSON."""
    groups = only.split(",")
    unknown = sorted(set(groups) - set(GROUPS))
    if unknown:
        raise UsageError(f"unknown group {', '.join(unknown)}: choose {', '.join(GROUPS)}")
    records: list[Record] = []
    if "render" in groups:
        from benchmarks.render import measure

        records += measure(rounds)
    if "encode" in groups:
        from benchmarks.encode import encode_records, made_up_spectra

        records += encode_records(rounds, made_up_spectra(32))
    with tempfile.TemporaryDirectory() as scratch:
        if "load" in groups:
            records += load_records(rounds, Path(scratch), objects)
    save(records, out, " ".join(["python -m benchmarks", *sys.argv[1:]]))
    print(table(records))
    print(out)
    if "train" in groups:
        from benchmarks import train

        train.main(out.with_name("train.json"))


if __name__ == "__main__":
    run_app(app)
