"""The jobs that write a folder, each as its user types it, and what two runs of it must have in common."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.oracles.file_server import Server

#: Files of a run that is told apart by its time: TensorBoard names them so.
CLOCKS = ("tensorboard/",)


@dataclass(frozen=True)
class Job:
    """A command that writes a folder.

    Attributes:
        name: for the table.
        arguments: of `specshards`; `{out}` is the folder, `{work}` the one of the inputs, `{url}` a file server.
        copies: a folder of `work` that `{out}` begins as a copy of, where the command changes one.
    """

    name: str
    arguments: str
    copies: str | None = None

    def command(self, work: Path, out: Path, url: str) -> list[str]:
        filled = [word.format(work=work, out=out, url=url) for word in self.arguments.split()]
        return [sys.executable, "-m", "specshards", *filled]


_DRAWN = "--spectra {work}/spectra --samples-per-shard 40 --workers 2 --out {out}"
_TRAINED = "--shards {work}/flux --device cpu --epochs 3 --batch-size 16 --checkpoint-minutes 0.001 --out {out}"
JOBS = (
    Job("ingest", "ingest build --data {work}/survey --survey lamost --files-per-part 20 --workers 2 --out {out}"),
    Job("ingest mock", "ingest mock 3000 --workers 2 --out {out}"),
    Job("ingest select", "ingest select --from {work}/spectra --per-class 30 --out {out}"),
    Job("ingest download", "ingest download --survey sdss --catalog {work}/plates.csv --base {url} --out {out}"),
    Job("shards build", f"shards build {_DRAWN}"),
    Job("shards build, flux", f"shards build {_DRAWN} --encoding flux"),
    Job("shards reshard", "shards reshard {work}/flux --encoding png --samples-per-shard 30 --workers 2 --out {out}"),
    Job("shards merge", "shards merge {work}/flux {work}/more --samples-per-shard 30 --workers 2 --out {out}"),
    Job("shards report", "shards report {out}", copies="flux"),
    Job("train fit", f"train fit --task classify --backbone sequence-tiny {_TRAINED}"),
    Job("tokenizer pretrain", f"tokenizer pretrain --size tiny {_TRAINED}"),
)


def prepare(work: Path, server: Server) -> None:
    """Write the inputs of all jobs: a mock survey, its spectra, two data sets, and files to download."""
    common = "--split 0.6,0.2,0.2 --samples-per-shard 60 --encoding flux --workers 2"
    for line in (
        f"ingest mock 300 --as fits --survey lamost --out {work}/survey",
        f"ingest build --data {work}/survey --survey lamost --files-per-part 60 --workers 2 --out {work}/ingested",
        f"shards build --spectra {work}/ingested/spectra {common} --out {work}/flux",
        f"ingest mock 150 --seed 3 --workers 2 --out {work}/second",
        f"shards build --spectra {work}/second/spectra {common} --out {work}/more",
    ):
        run([sys.executable, "-m", "specshards", *line.split()])
    (work / "spectra").symlink_to(work / "ingested" / "spectra")
    fibers = range(1, 61)
    rows = [f"266,51602,{fiber},26" for fiber in fibers]
    (work / "plates.csv").write_text("\n".join(["plate,mjd,fiberid,run2d", *rows]) + "\n")
    for fiber in fibers:
        head = b"SIMPLE  =                    T".ljust(2880)
        server.files[f"26/spectra/lite/0266/spec-0266-51602-{fiber:04d}.fits"] = head + bytes([fiber]) * 28800
    server.delay = 0.02


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    """The finished command."""
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, env=QUIET)


QUIET = {**os.environ, "OMP_NUM_THREADS": "1"}


def digests(out: Path) -> dict[str, str]:
    """sha256 of every file of a folder that a reader may open; no locks, no clocks."""
    found = {}
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        if path.is_file() and path.stat().st_size and not name.startswith(CLOCKS) and not name.endswith("lock"):
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


@dataclass(frozen=True)
class Reference:
    """What an undisturbed run leaves.

    Attributes:
        files: name -> sha256, of those that two undisturbed runs have in common.
        clocks: names of those that differ between them, because they say how long it took.
        seconds: how long it took.
    """

    files: dict[str, str]
    clocks: frozenset[str]
    seconds: float

    def differences(self, out: Path) -> list[str]:
        """Files of `out` that are not what they would have been; empty where all is well."""
        ours = {name: value for name, value in digests(out).items() if name not in self.clocks}
        return sorted(name for name in ours.keys() | self.files.keys() if ours.get(name) != self.files.get(name))
