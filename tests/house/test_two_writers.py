"""Two jobs in one folder: the second is refused in one line, the first does not notice."""

from __future__ import annotations

import fcntl
import signal
import subprocess
import time
from importlib import import_module
from pathlib import Path

import pytest

from specshards.__main__ import ROOMS
from specshards.common.errors import JobError
from specshards.common.jobs import Engine
from specshards.ingest.mock import MockConfig, write
from specshards.shards.format.manifest import ShardConfig
from specshards.shards.write.build import build
from tests.oracles import commands
from tests.shards.test_build import tree
from tests.shards.test_grow import spectra_file

REFUSED = "another process is writing there; wait for it, or choose another OUT"


def test_a_second_ingest_is_refused_and_the_first_ends_as_if_alone(tmp_path: Path) -> None:
    data = write(MockConfig("lamost", n_files=60), tmp_path / "data", workers=1).folder
    ingest = commands.program("ingest", "build", "--survey", "lamost", "--data", data, "--workers", "0", "--out")
    assert commands.run([*ingest, str(tmp_path / "alone")]).returncode == 0
    out = tmp_path / "out"
    with commands.start([*ingest, str(out)], output=subprocess.PIPE, errors=subprocess.STDOUT) as first:
        while not list(out.glob("spectra/.*.tmp")) and first.poll() is None:
            time.sleep(0.001)
        first.send_signal(signal.SIGSTOP)  # its file stays open for as long as the second takes
        second = commands.run([*ingest, str(out)])
        first.send_signal(signal.SIGCONT)
        said, _ = first.communicate(timeout=120)
    assert first.returncode == 0, said
    assert second.returncode == 1 and second.stderr == f"error: {out}: {REFUSED}\n"
    assert tree(out) == tree(tmp_path / "alone")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the commands below read: `spectra`, shards of them in `shards` and `more`, `survey`, `list.csv`."""
    folder = tmp_path_factory.mktemp("work")
    spectra_file(folder / "spectra" / "a.parquet", range(40))
    for name in ("shards", "more"):
        build(ShardConfig(encoding="flux"), folder / "spectra", folder / name, engine=Engine(workers=0))
    survey = write(MockConfig("sdss", n_files=10), folder / "survey", workers=1)
    (folder / "list.csv").write_text(survey.catalogue.read_text())
    return folder


JOBS = {
    "ingest build": ("ingest build --data survey --survey sdss --workers 0", "ingest/lock"),
    "ingest build of a mock": ("ingest build --survey sdss --n 10 --workers 0", "ingest/lock"),
    "ingest mock": ("ingest mock 10 --workers 0", "ingest/lock"),
    "ingest mock, FITS": ("ingest mock 10 --as fits --workers 0", ".mock.lock"),
    "ingest select, spectra": ("ingest select --from spectra --per-class 3", ".select-lock"),
    "ingest select, catalogue": ("ingest select --from list.csv --survey sdss --per-class 3", "../.out.parquet.lock"),
    "ingest download": ("ingest download --survey sdss --catalog plates.csv", ".download.lock"),
    "shards make": ("shards make --survey lamost --data spectra --workers 0", "shards/map2d/.ledger/lock"),
    "shards build": ("shards build --spectra spectra --workers 0", ".ledger/lock"),
    "shards reshard": ("shards reshard shards --encoding png --workers 0", ".ledger/lock"),
    "shards merge": ("shards merge shards more --workers 0", ".ledger/lock"),
    "train fit": ("train fit --task classify --shards shards --backbone sequence-tiny --device cpu", ".lock"),
    "tokenizer pretrain": ("tokenizer pretrain --shards shards --size tiny --device cpu", ".lock"),
}


@pytest.mark.parametrize("name", JOBS)
def test_a_job_refuses_a_folder_where_another_one_writes(
    name: str, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(work)
    (work / "plates.csv").write_text("plate,mjd,fiberid,run2d\n266,51630,1,26\n")
    command, lock = JOBS[name]
    room, *arguments = command.split()
    out = tmp_path / ("out.parquet" if "catalogue" in name else "out")
    path = tmp_path / Path(lock).name if lock.startswith("..") else out / lock
    path.parent.mkdir(parents=True, exist_ok=True)
    app = import_module(ROOMS[room][0]).app
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # of this open file: another one in this process has to wait, too
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(JobError, match=REFUSED):
            app([*arguments, "--out", str(out)], standalone_mode=False)
        assert sorted(tmp_path.rglob("*")) == before
