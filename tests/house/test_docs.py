"""What the Markdown files show is run: every command, every snippet, at small size, page by page in a scratch folder.

Commands run in this process, through the applications that `specshards` starts; `make` is asked with `-n` what it
would start. `SMALL` makes them small (mock surveys of 100 objects, one epoch, the `tiny` backbone), `PLACES` is what
stands for the paths of a page. What cannot be run here is in `NOT_RUN` with its reason; of such a command it is
checked that its options exist and take the page's values. A command that prose names without options must exist.
"""

from __future__ import annotations

import contextlib
import csv
import importlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import typer.main
from astropy.table import Table

from specshards.__main__ import ROOMS
from specshards.ingest.surveys import SURVEYS
from specshards.render.registry import RENDERERS
from tests.conftest import ROOT

FOLDERS = (ROOT, ROOT / "docs", ROOT / "benchmarks")
PAGES = [path.relative_to(ROOT).as_posix() for folder in FOLDERS for path in sorted(folder.glob("*.md"))]

#: Commands of `specshards bench` that measure; pages show the others as `make bench-...`.
MEASURES = ("encode", "shards", "load", "several", "scale", "whole", "survey", "remote")
#: How a command begins -> why it is not run; the longest beginning that fits counts.
NOT_RUN = {
    "make test": "it would run this test",
    "make format": "it writes to the checkout",
    "make fuzz": "minutes; tests/fuzz/test_fuzz.py runs a slice",
    "make .venv/.made": "network",
    "make paper": "minutes; tests/train/test_paper.py runs it",
    "make bench": "minutes; tests/benchmarks/test_suite.py runs all at small size",
    "make shards SURVEY=apogee DATA=/data/apogee": "no mock; tests/ingest/test_apogee.py makes files",
    "make shards SURVEY=table DATA=/data/soil.csv": "docs/outside-astronomy.md is run",
    "make train TASK=organic_carbon SHARDS=data/mysoil": "docs/outside-astronomy.md is run",
    "make shards SCHEDULER": "a cluster; tests/common/test_jobs.py starts schedulers and workers",
    "specshards shards build --scheduler": "a cluster, a bucket; tests/shards/test_remote.py has both",
    "specshards train pareto": "a list of runs; tests/train/test_pareto.py trains one",
    "specshards train export": "ten seconds; tests/train/test_export.py runs it",
    "specshards ingest download": "network; tests/ingest/test_download.py has a server on loopback",
    **{f"specshards bench {name}": "minutes" for name in MEASURES},
    "specshards bench compare": "two records; tests/benchmarks/test_suite.py has some",
    "specshards bench figures": "it writes the pages' tables anew",
    "python -m pytest": "it is what runs this",
    "specshards bench compare-matplotlib": "minutes of matplotlib; tests/render/test_renderers.py asks how alike",
    "specshards bench compare-published": "a clone of other code; tests/benchmarks/test_published.py has one",
    "python docs/pictures.py": "it draws the pages' pictures anew",
    "python cluster.py": "SLURM",
    "dask scheduler": "a cluster",
    "dask worker": "a cluster",
    "torchrun": "several processes; tests/train/test_options.py starts two",
    "pip install": "network",
}

#: What a page's words stand for here. The longest that fits is replaced first.
PLACES = {
    "/data/lamost/dr10": "files/lamost", "dr10_stellar.csv": "files/lamost/mock_catalogue.csv",
    "/data/sdss": "files/sdss", "/data/mmu/sdss.parquet": "files/mmu.parquet", "/data/everything": "files",
    "specObj-dr17.fits": "files/specobj.fits", "data/dr10/spectra": "data/lamost/spectra",
    "FILE|PARQUET": "spectrum.fits", "FILE|FOLDER": "spectrum.fits", "FILES|SHARDS": "data/lamost/shards/map2d",
    "FLUX_SHARDS": "data/flux/shards/map2d", "s3://bucket/lamost/map2d": "data/lamost/shards/map2d",
    "/scratch/": "scratch/", "1000000": "40", "sdss|lamost": "sdss",
}  # fmt: skip
#: Words that stand for something only as a whole.
WORDS = {"RUN": "runs/first", "FILES": "spectrum.fits", "FOLDER": "files/lamost", "folder": "data/sdss/spectra"}
#: What `...` between a command and its options stands for.
REST = {
    "ingest build": "--survey lamost --data files/lamost --catalog files/lamost/mock_catalogue.csv --out data/rest",
    "train fit": "--task classify --shards data/lamost/shards/map2d --out runs/rest",
}

#: Put behind the options of a page, of which the last one counts.
SMALL = {
    "shards make": "--workers 0 --force", "shards build": "--workers 0", "shards verify": "--workers 0",
    "shards reshard": "--workers 0", "shards merge": "--workers 0", "ingest build": "--workers 0 --force",
    "ingest mock": "--workers 0",
    "train fit": "--backbone tiny --epochs 1 --batch-size 16 --device cpu --workers 1 --tracker none",
    "train evaluate": "--device cpu --workers 1", "train predict": "--device cpu", "train embed": "--device cpu",
    "train explain": "--device cpu --limit 1", "train baselines": "--workers 1",
    "tokenizer pretrain": "--epochs 1 --batch-size 32 --device cpu --workers 1 --tracker none",
    "tokenizer reconstruct": "--device cpu --limit 1", "tokenizer compare": "--device cpu --workers 1",
}  # fmt: skip
MOCK_SIZE = "--n 100"

#: Snippets that are not run as they stand: what is in them -> why.
ELSEWHERE = {
    "dask_jobqueue": "SLURM; it is compiled",
    "import polars": "no dependency; run below where it is installed",
}

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.S | re.M)
COMMAND = re.compile(r"(?:srun )?(?:\.venv/bin/)?(make|specshards|python|torchrun|pip|dask)\s")
#: A command that prose only names.
NAMED = re.compile(r"make [^=\s]+|(\.venv/bin/)?(specshards \w+( \w+)?|python (-m \S+|\S+\.py))|dask \w+|torchrun")
#: Other lines of the shell's.
SHELL = re.compile(r"#|cd |\w+=|until |$")
MAKEFILE = (ROOT / "Makefile").read_text()


def items(page: str) -> Iterator[tuple[str, str]]:
    """What a page shows, in order: `run` and a command, `named` and a command of prose, or a language and code."""
    text = (ROOT / page).read_text()
    for found in re.finditer(FENCE.pattern + r"|`([^`\n]+)`", text, re.S | re.M):
        language, code, span = found.groups()
        if span is not None:
            if COMMAND.match(span):
                yield ("run" if NAMED.fullmatch(span) is None else "named"), span
        elif language in ("bash", "") and any(map(COMMAND.match, code.splitlines())):
            for line in code.replace("\\\n", " ").splitlines():
                if COMMAND.match(line):
                    yield "run", line
                else:
                    assert SHELL.match(line), f"{page}: what is `{line}`?"
            yield "bash", code
        elif language:
            yield language, code


def plain(command: str) -> list[str]:
    """The words of a command, without comments, environments and what starts it elsewhere."""
    words = shlex.split(command, comments=True)
    words = [word for word in words if word not in ("srun", "&")]
    return [words[0].removeprefix(".venv/bin/"), *words[1:]]


def excused(words: list[str]) -> str | None:
    """Why a command is not run."""
    line = " ".join(words)
    fitting = []
    for beginning in NOT_RUN:
        head, _, last = beginning.rpartition(" ")
        is_option = last.startswith("--") or last.isupper()
        fits = line.startswith(head) and f" {last}" in line if is_option else line.startswith(beginning)
        fitting += [beginning] if fits else []
    return max(fitting, key=len, default=None)


def placed(word: str) -> str:
    for name in sorted(PLACES, key=len, reverse=True):
        word = word.replace(name, PLACES[name])
    return WORDS.get(word, word)


def made(words: list[str]) -> list[list[str]]:
    """The commands that `make` starts."""
    variables = [word.partition("=")[0] for word in words[1:] if "=" in word]
    unknown = [name for name in variables if not re.search(rf"^(\w+: *)?{name} *\?=", MAKEFILE, re.M)]
    assert not unknown, f"the Makefile has no {', '.join(unknown)}"
    command = ["make", "--no-print-directory", "-n", "-o", ".venv/.made", *words[1:]]
    # What `make test` was given is not meant for them.
    apart = {name: value for name, value in os.environ.items() if name not in ("ARGS", "MAKEFLAGS", "MAKEOVERRIDES")}
    done = subprocess.run(command, cwd=ROOT, env=apart, capture_output=True, text=True, check=True)
    lines = [line for line in done.stdout.replace("\\\n", " ").splitlines() if COMMAND.match(line)]
    if not any('"$' in line for line in lines):
        return [plain(line) for line in lines]
    # Values come through the environment: ask what the commands are given.
    tell = f"SPECSHARDS={shlex.quote(sys.executable)} -c 'import json, sys; print(json.dumps(sys.argv[1:]))'"
    done = subprocess.run(
        ["make", "--no-print-directory", "-o", ".venv/.made", tell, *words[1:]],
        cwd=ROOT,
        env=apart,
        capture_output=True,
        text=True,
        check=True,
    )
    return [["python", "-m", "specshards", *json.loads(line)] for line in done.stdout.splitlines()]


def application(words: list[str]) -> tuple[Any, list[str], str] | None:
    """The application that a command starts, its arguments, and its name with that of the command."""
    if words[:2] == ["torchrun", "--nproc-per-node"]:
        words = ["python", *words[3:]]
    if words[0] == "dask":
        return importlib.import_module(f"distributed.cli.dask_{words[1]}").main, words[2:], "dask"
    if words[:3] == ["python", "-m", "specshards"]:
        words = words[2:]
    if words[0] != "specshards" or len(words) == 1 or words[1] not in ROOMS:
        return None
    app = importlib.import_module(ROOMS[words[1]][0]).app
    return typer.main.get_command(app), words[2:], " ".join(words[1:3])


def parse(command: Any, arguments: list[str]) -> None:
    """Raise what the command raises for arguments that it does not know, without running it."""
    if (known := getattr(command, "commands", None)) and arguments and not arguments[0].startswith("-"):
        assert arguments[0] in known, f"there is no command {arguments[0]}"
        command, arguments = known[arguments[0]], arguments[1:]
    try:
        command.make_context("command", list(arguments))
    except RuntimeError as error:  # of click, or of the one that typer brings
        if type(error).__name__ != "Exit":  # which ends --help
            raise


def perform(command: str) -> None:
    """Run a command of a page, or check it where it is excused."""
    words = plain(command)
    for real in made(words) if words[0] == "make" else [words]:
        found = application(real)
        if found is None:
            if excused(words) is None:
                script(real)
            continue
        app, arguments, name = found
        rest = REST.get(name, "").split()
        arguments = [new for word in arguments for new in (rest if word == "..." else [placed(word)])]
        if excused(words) is None and "--help" not in arguments:
            arguments += shlex.split(SMALL.get(name, ""))
            if name in ("shards make", "ingest build") and "--data" not in arguments:
                arguments += MOCK_SIZE.split()
        parse(app, arguments)
        if excused(words) is None:
            app.main(arguments, prog_name=name, standalone_mode=False)


def script(words: list[str]) -> None:
    """A script of the pages themselves."""
    done = subprocess.run([sys.executable, str(ROOT / words[1]), *map(placed, words[2:])], capture_output=True)
    assert done.returncode == 0 and done.stdout, done.stderr.decode()


def execute(code: str, page: str, patch: pytest.MonkeyPatch) -> None:
    """Run a snippet; a survey that it registers is known from then on, until the test ends."""
    for name in sorted(PLACES, key=len, reverse=True):
        code = code.replace(name, PLACES[name])
    patch.setattr(SURVEYS, "_things", dict(SURVEYS))
    exec(compile(code, page, "exec"), types.ModuleType("snippet").__dict__)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    """What the pages take for granted: survey files, two data sets, a trained model."""
    folder = tmp_path_factory.mktemp("base")
    with contextlib.chdir(folder):
        for survey in ("lamost", "sdss"):
            perform(f"make shards SURVEY={survey}")
            shutil.copytree(f"data/{survey}/mock", f"files/{survey}")
        perform("make train TASK=classify OUT=runs/first")
        shutil.copy(next(Path("files/sdss").glob("*/spec-*.fits")), "spectrum.fits")
        with tarfile.open("plates.tar", "w") as archive:
            for path in sorted(Path("files/sdss").glob("*/spec-*.fits")):
                archive.add(path)
        names = ["object_id", "survey", "ra", "dec", "class", "z", "spectrum"]
        table = ds.dataset("data/sdss/spectra").to_table(columns=names)
        pq.write_table(table.replace_schema_metadata(None), "files/mmu.parquet")
        with Path("files/sdss/mock_catalogue.csv").open() as file:
            rows = [
                {"specobjid": row["specobjid"], "class": row["class"], "z": row["z"]} for row in csv.DictReader(file)
            ]
        passed = {"zwarning": 0, "instrument": "BOSS", "targettype": "SCIENCE"}  # what the paper's cut asks for
        Table([{**row, **passed} for row in rows]).write("files/specobj.fits")
    return folder


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_shows_runs(
    page: str, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = dict.fromkeys(items(page))
    if any(kind in ("run", "python") for kind, _ in shown):
        shutil.copytree(base, tmp_path / "here")
        monkeypatch.chdir(tmp_path / "here")
    for kind, content in shown:
        try:
            if kind == "run":
                perform(content)
            elif kind == "named":
                named(content)
            elif kind == "python":
                compile(content, page, "exec")
                if not any(word in content for word in ELSEWHERE):
                    execute(content, page, monkeypatch)
            elif kind == "bash":
                subprocess.run(["bash", "-n"], input=content, text=True, check=True)
        except (Exception, SystemExit) as error:
            raise AssertionError(f"{page}: {content.strip()}\n{capsys.readouterr().out[-2000:]}") from error


def named(command: str) -> None:
    """A command that prose names exists."""
    words = plain(command)
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", MAKEFILE, re.M) or excused(words), command
    elif (found := application(words)) is not None:
        app, arguments, _ = found
        parse(app, [*arguments, "--help"])
    else:
        assert excused(words) or (ROOT / words[1]).is_file(), command


def test_what_is_not_run_is_in_a_page() -> None:
    commands = [plain(command) for page in PAGES for kind, command in items(page) if kind in ("run", "named")]
    assert {excused(words) for words in commands} - {None} == NOT_RUN.keys()


#: Files that only the pages' own commands and readers make.
MADE = ("data/lamost/shards/map2d/manifest.json", "ingest/config.json")


def test_what_pages_name_exists() -> None:
    """Links, tests, and Python names."""
    missing = []
    for page in PAGES:
        text = (ROOT / page).read_text()
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", re.sub(r"`[^`\n]+`", "", text)):
            if not (ROOT / page).parent.joinpath(link).exists():
                missing.append(f"{page}: {link}")
        for file, name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text):
            if f"def {name}(" not in (ROOT / file).read_text():
                missing.append(f"{page}: {file}::{name}")
        for path in re.findall(r"`((?:\w+/)+\w+\.(?:py|json|md))`", text):
            if not (ROOT / path).is_file() and path not in MADE:
                missing.append(f"{page}: {path}")
        for name in re.findall(r"`((?:ingest|render|shards|train)(?:\.\w+)+)`", text):
            missing += [f"{page}: {name}"] if not found(name) else []
        for file in re.findall(r"`(\d-core-\S+\.json)`", text):
            if not (ROOT / "benchmarks" / "results" / file).is_file():
                missing.append(f"{page}: {file}")
    assert not missing, "\n".join(missing)


def test_pages_name_the_folders_that_make_shards_leaves() -> None:
    """`OUT/shards/IMAGE`, whatever the encoding; what a page makes under another name says `--out`."""
    for page in PAGES:
        text = (ROOT / page).read_text()
        given = set(re.findall(r"--out[ =](\S+)", text))
        for path, image in re.findall(r"(data/[\w-]+/shards/([\w-]+))", text):
            assert image in RENDERERS or path in given, f"{page}: {path}"


def found(name: str) -> bool:
    """Whether a dotted name, written without `specshards.`, is a module, or something in one."""
    name = f"specshards.{name}"
    module, _, rest = name.rpartition(".")
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        return "." in name and hasattr(importlib.import_module(module), rest)
    return True


def test_every_option_that_prose_names_exists() -> None:
    known = {"--help"}
    for module, _ in ROOMS.values():
        app = typer.main.get_command(importlib.import_module(module).app)
        for command in [app, *getattr(app, "commands", {}).values()]:
            known |= {option for one in command.params for option in (*one.opts, *one.secondary_opts)}
    for name in ("scheduler", "worker"):
        command = importlib.import_module(f"distributed.cli.dask_{name}").main
        known |= {option for parameter in command.params for option in parameter.opts}
    for page in PAGES:
        for option in re.findall(r"`(--[a-z][a-z-]+)[^`\n]*`", (ROOT / page).read_text()):
            assert option in known, f"{page}: {option}"
