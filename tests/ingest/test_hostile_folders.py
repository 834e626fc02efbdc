"""What may lie in a folder of survey files: each name is one row of the account, and nothing stops the job."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from specshards.common.jobs import Engine
from specshards.common.text import escaped
from specshards.ingest.files import find_files
from specshards.ingest.job.build import IngestConfig, build
from specshards.ingest.listing import walk
from specshards.ingest.spectra.objects import objects
from tests.conftest import ROOT
from tests.oracles.hostile import CLOSED, NO_FILES, ODD_NAMES, hostile_folder

SAMPLES = sorted([*ODD_NAMES.values(), "deep.fits/one.fits", "linked/two.fits"])


def account(out: Path) -> tuple[list[str], dict[str, str]]:
    """Names of the samples, and of what is in quarantine with its reason."""
    quarantine = pq.read_table(out / "ingest" / "quarantine.parquet").to_pylist()
    spectra = pq.read_table(out / "spectra", columns=["source_file"])
    names = [row["file"] for row in quarantine]
    assert len(set(names)) == len(names)
    return sorted(spectra["source_file"].to_pylist()), {row["file"]: row["reason"] for row in quarantine}


@pytest.mark.parametrize("workers", [0, 2])
def test_every_name_is_one_row(tmp_path: Path, workers: int) -> None:
    data, out = hostile_folder(tmp_path / "data"), tmp_path / "out"
    summary = build(IngestConfig(), str(data), out, engine=Engine(workers=workers), max_bad_fraction=1.0)
    samples, quarantine = account(out)
    assert samples == SAMPLES
    assert quarantine.keys() == NO_FILES.keys()
    assert all(quarantine[name].startswith(reason) for name, reason in NO_FILES.items())
    assert summary.files == len(SAMPLES) + len(NO_FILES)
    # The same command again finds nothing to do, and a name that can be read now is read.
    records = {path: path.stat().st_mtime_ns for path in (out / "ingest" / "parts").iterdir()}
    build(IngestConfig(), str(data), out, engine=Engine(workers=0), max_bad_fraction=1.0)
    assert {path: path.stat().st_mtime_ns for path in (out / "ingest" / "parts").iterdir()} == records
    (data / "nothing.fits").write_bytes((data / "deep.fits" / "one.fits").read_bytes())
    build(IngestConfig(), str(data), out, engine=Engine(workers=0), max_bad_fraction=1.0)
    assert "dangling.fits" in account(out)[0] and "dangling.fits" not in account(out)[1]
    json.loads((out / "ingest" / "summary.json").read_text(encoding="utf-8"))


def test_whoever_is_not_root_cannot_open_a_closed_file(tmp_path: Path) -> None:
    data, out = hostile_folder(tmp_path / "data", closed=True), tmp_path / "out"
    out.mkdir()
    if os.geteuid() != 0:
        build(IngestConfig(), str(data), out, engine=Engine(workers=0), max_bad_fraction=1.0)
    else:
        # Once as root, for whoever is nobody may be unable to read the program's own modules.
        code = (
            "import os, sys; from pathlib import Path; from specshards.common.jobs import Engine;"
            "from specshards.ingest.job.build import IngestConfig, build;"
            "job = lambda out: build(IngestConfig(), sys.argv[1], Path(out), engine=Engine(workers=0),"
            " max_bad_fraction=1.0);"
            "job(sys.argv[3]); os.setgroups([]); os.setgid(65534); os.setuid(65534); job(sys.argv[2])"
        )
        out.chmod(0o777)
        for folder in (data, data.parent, *data.parent.parents):
            if folder.owner() == "root" and folder.is_relative_to("/tmp/pytest-of-root"):
                folder.chmod(0o755)
        done = subprocess.run(
            [sys.executable, "-c", code, str(data), str(out), str(tmp_path / "root")],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
        )
        assert done.returncode == 0, done.stderr
    samples, quarantine = account(out)
    assert samples == SAMPLES
    expected = {**NO_FILES, **CLOSED}
    assert quarantine.keys() == expected.keys()
    assert all(quarantine[name].startswith(reason) for name, reason in expected.items())


def test_commands_on_hostile_folders(tmp_path: Path) -> None:
    data = hostile_folder(tmp_path / "data")
    (data / "below" / "more.fits").write_bytes(b"no FITS")
    environment = {**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "specshards", *map(str, arguments)]
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False, cwd=tmp_path, env=environment
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done

    done = run("ingest", "inspect", data)
    assert done.returncode == 0 and f"{len(SAMPLES)} usable, 0 set aside, {len(NO_FILES) + 1} bad" in done.stdout
    done = run("ingest", "inspect", data / os.fsdecode(b"latin-\xe9\xff.fits"), "--png", "one.png")
    assert done.returncode == 0, done.stderr
    done = run("ingest", "inspect", data / "pipe.fits")
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr


def test_objects_for_prediction_are_as_many(tmp_path: Path) -> None:
    quarantine: list[dict[str, object]] = []
    found = list(objects(hostile_folder(tmp_path / "data"), quarantine))
    assert sorted(meta["source_file"] for meta, _ in found) == SAMPLES
    assert sorted(str(row["file"]) for row in quarantine) == sorted(NO_FILES)


def test_globs_find_the_same(tmp_path: Path) -> None:
    data = hostile_folder(tmp_path / "data")
    root, names = find_files(str(data / "**" / "*.fits"))
    assert root == data
    own = {name for name in NO_FILES if name.endswith(".fits") and "/" not in name}
    assert {escaped(name) for name in names} == {*SAMPLES, *own}


def test_deep_folders_are_walked(tmp_path: Path) -> None:
    folder = tmp_path
    for _ in range(300):
        folder = folder / "deeper"
    folder.mkdir(parents=True)
    (folder / "x.fits").touch()
    assert any(entry.name.endswith("x.fits") for entry in walk(tmp_path))


@given(st.lists(st.binary(min_size=1).filter(lambda name: b"\0" not in name and b"/" not in name), max_size=5))
def test_names_are_shown_one_to_one(names: list[bytes]) -> None:
    shown = {name: escaped(os.fsdecode(name)) for name in names}
    assert len(set(shown.values())) == len(shown)
    for text in shown.values():
        assert text.isprintable() and text.encode().decode() == text
