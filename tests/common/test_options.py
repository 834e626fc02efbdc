"""Options of commands: every field of every configuration can be set from one, arrives, and is explained."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, get_args

import pytest
import typer
from typer.testing import CliRunner

from specshards.common.arguments import configured, documented, option, options
from specshards.common.cli import application
from specshards.common.errors import UsageError
from specshards.common.jobs import Engine
from specshards.ingest import __main__ as ingest
from specshards.ingest.catalogue import select
from specshards.ingest.catalogue.config import SelectConfig
from specshards.ingest.job.build import IngestConfig
from specshards.ingest.mock import MockConfig
from specshards.ingest.mock import command as mock
from specshards.ingest.mock.scale.config import ScaleConfig
from specshards.render.config import ImageConfig, Wanted
from specshards.shards import __main__ as shards
from specshards.shards.format.manifest import ShardConfig
from specshards.train import __main__ as train
from specshards.train.config import RunOptions, TrainConfig
from specshards.train.tokenizer import __main__ as tokenizer
from specshards.train.tokenizer.config import PretrainConfig

#: What another value of a field is called on a command line, and is.
OTHER: dict[str, tuple[str, Any]] = {
    "image": ("simple", "simple"), "frame": ("rest", "rest"), "limits": ("percentile", "percentile"),
    "scale": ("asinh", "asinh"), "order": ("boustrophedon", "boustrophedon"), "grid": ("log", "log"),
    "resample": ("linear", "linear"), "roi_unit": ("flux", "flux"), "colormap": ("magma", "magma"),
    "channels": ("quality", ("flux", "mask", "snr")), "window": ("3000, 9000", (3000.0, 9000.0)),
    "percentiles": ("1,99", (1.0, 99.0)), "flux_max": ("99", 99.0), "encoding": ("flux", "flux"),
    "split": ("0.5,0.3,0.2", (0.5, 0.3, 0.2)), "split_nside": ("32", 32), "jpeg_quality": ("92", 92),
    "best_of": ("object", "object"), "split_by": ("row", "row"), "group": ("plate", "plate"),
    "axis": ("spectrum", "spectrum"), "bad_pixels": ("draw", "draw"), "line_colour": ("tab:blue", "tab:blue"),
    "derivative": ("pixel", "pixel"),
    "survey": ("sdss", "sdss"), "cuts": ("paper", "paper"), "where": ("z > 1", "z > 1"), "n": ("7", 7),
    "shards": ("a, b", ("a", "b")), "task": ("teff", "teff"), "schedule": ("constant", "constant"),
    "decay": ("trainer", "trainer"), "normalise": ("0.5", "0.5"), "target": ("max", "max"),
    "select": ("r2,accuracy", "r2,accuracy"), "only": ("STAR", "STAR"),
    "categories": ("x", "x"),
    "precision": ("fp32", "fp32"), "balance": ("logits", "logits"), "freeze": ("backbone", "backbone"),
    "pool": ("attention", "attention"), "head": ("mse", "mse"), "augment": ("noise=1", "noise=1"),
    "backbone": ("tiny", "tiny"), "tracker": ("none", "none"), "resume": ("never", "never"),
    "on_error": ("skip", "skip"), "device": ("cpu", "cpu"), "backend": ("plain", "plain"),
    "per_class": ("small", 30_000), "memory": ("2GiB", 2 << 30), "max_file_size": ("2GiB", 2 << 30),
    "scheduler": ("tcp://a:1", "tcp://a:1"),
    "images": ("simple:paper, overlap", ("simple:paper", "overlap")), "views": ("each", "each"),
    "wavelength_unit": ("nm", "nm"), "medium": ("air", "air"),
    "columns": ("wl,flux", "wl,flux"),
    "wavelengths": ("1100:2298:2", "1100:2298:2"), "unit": ("mJy", "mJy"),
    "name": ("soil", "soil"), "labels": ("a,b", "a,b"), "sizes": ("112,224", (112, 224)),
}  # fmt: skip
COMMANDS: list[tuple[Callable[..., None], type]] = [
    (shards.build, ImageConfig), (shards.build, ShardConfig), (shards.build, Engine),
    (shards.make_survey, ImageConfig), (shards.make_survey, ShardConfig), (shards.make_survey, IngestConfig),
    (ingest.build, IngestConfig), (ingest.build, Engine), (select.command, SelectConfig),
    (mock.command, ScaleConfig), (mock.command, MockConfig), (train.fit, TrainConfig), (train.fit, RunOptions),
    (tokenizer.pretrain, PretrainConfig), (tokenizer.pretrain, RunOptions),
]  # fmt: skip
#: Fields that no option sets alone: a configuration in another, what a command is given as an argument or works out.
APART = {
    (ShardConfig, "image"), (IngestConfig, "mock_files"), (IngestConfig, "joint"), (Engine, "patience"),
    (ScaleConfig, "n"), (MockConfig, "n_files"), (RunOptions, "again"),
}  # fmt: skip


#: Of `shards make`: what another option says already.
OF_SHARDS = ("survey", "wavelength_unit", "medium", "frame")


def words(kind: type, field: str) -> tuple[list[str], Any]:
    """An option that sets a field to another value, and the value."""
    (one,) = (each for each in options(kind) if each.field == field)
    if one.kind is bool:
        return ([f"--no-{one.flag[2:]}"], False) if one.default else ([one.flag], True)
    if (kind, field) == (PretrainConfig, "size"):
        return ["--size", "tiny"], "tiny"
    text, value = OTHER.get(one.name) or (
        (str(one.default + 1), one.default + 1) if one.kind is int and one.default is not None
        else ("0.25", 0.25) if one.kind is float else ("3", 3)
    )  # fmt: skip
    return [one.flag, text], value


def received(command: Callable[..., None], kind: type, arguments: list[str]) -> Any:
    """The configuration that a command is given for these arguments."""
    inner = inspect.unwrap(command)
    got: dict[str, Any] = {}

    def stand_in(**values: Any) -> None:
        got.update(values)

    vars(stand_in)["__signature__"] = inspect.signature(inner, eval_str=True)
    app = application("", {"run": configured(stand_in), "other": configured(stand_in)})
    needed = []
    for parameter in inspect.signature(command).parameters.values():
        info = next(note for note in get_args(parameter.annotation)[1:] if hasattr(note, "param_decls"))
        if parameter.default is inspect.Parameter.empty:
            value = "5" if parameter.name == "n" else "lamost" if parameter.name == "survey" else "x"
            name = info.default if isinstance(info.default, str) else f"--{parameter.name}"
            needed += [value] if isinstance(info, typer.models.ArgumentInfo) else [name, value]
    done = CliRunner().invoke(app, ["run", *needed, *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    values = [value.config if isinstance(value, Wanted) else value for value in got.values()]
    return next(value for value in values if isinstance(value, kind))


@pytest.mark.parametrize(
    ("command", "kind", "field"),
    [
        pytest.param(command, kind, field.name, id=f"{command.__module__.split('.')[1]}-{kind.__name__}-{field.name}")
        for command, kind in COMMANDS
        for field in fields(kind)
        if (kind, field.name) not in APART
        and not (command is shards.make_survey and kind is IngestConfig and field.name in OF_SHARDS)
    ],
)
def test_every_field_arrives(command: Callable[..., None], kind: type, field: str) -> None:
    arguments, value = words(kind, field)
    if field == "cuts":
        arguments += ["--survey", "lamost"]
    if field in ("axis", "line_colour"):
        arguments += ["--image", "simple"]
    if (kind, field) == (ShardConfig, "lsf"):
        arguments += ["--encoding", "flux"]
    config = received(command, kind, arguments)
    assert getattr(config, field) == value != getattr(received(command, kind, []), field)


def test_a_preset_of_training_gives_what_is_not_given() -> None:
    config = received(train.fit, TrainConfig, ["--preset", "paper", "--epochs", "3"])
    assert (config.lr, config.schedule, config.epochs) == (1e-5, "linear", 3)
    with pytest.raises(UsageError, match="unknown PRESET=best: choose paper or modern"):
        received(train.fit, TrainConfig, ["--preset", "best"])


@pytest.mark.parametrize("kind", list(dict.fromkeys(kind for _, kind in COMMANDS)))
def test_every_field_is_explained_and_shows_its_default(kind: type) -> None:
    assert documented(kind).keys() >= {field.name for field in fields(kind)}
    for one in options(kind):
        text = one.parse(one.shown) if one.shown and one.kind is not bool else one.default
        assert text == (pytest.approx(one.default, rel=1e-5) if isinstance(one.default, float) else one.default)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "big"], "--size big: give a whole number, as 224"),
        (["--window", "3000"], "--window 3000: give 2 numbers, as 3536.7,10413.6: wavelengths drawn"),
        (["--window", "3000,b"], "--window 3000,b: give 2 numbers"),
        (["--split", "0.5,0.5"], "--split 0.5,0.5: give 3 numbers, as 0.8,0.1,0.1: shares of train, val and test"),
        (["--size", "8"], "size=8: give 16 to 1024 pixels"),
        (["--channels", "flux,teff,snr"], "unknown channel teff"),
        (["--jpeg-quality", "10"], "jpeg_quality=10: give 90 to 100"),
        (["--preset", "best"], "unknown PRESET=best"),
        (["--memory", "64MiB"], "--memory '64MiB': give the memory of one worker"),
    ],
)
def test_a_wrong_value_names_the_option_and_the_mend(arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError) as error:
        received(shards.build, ShardConfig, arguments)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_what_is_given_wins_over_the_preset() -> None:
    assert received(shards.build, ImageConfig, ["--preset", "lines"]).channels[0] == "residual"
    config = received(shards.build, ImageConfig, ["--preset", "lines", "--channels", "roi", "--limits", "minmax"])
    assert config == ImageConfig(channels=("flux", "roi", "none"), grid="log")


def test_fields_of_one_name_are_one_option() -> None:
    for kind in (ShardConfig, IngestConfig):
        assert received(shards.make_survey, kind, ["--seed", "4"]).seed == 4
    assert list(inspect.signature(shards.make_survey).parameters).count("seed") == 1


@pytest.mark.parametrize(
    ("arguments", "of_files", "of_picture"),
    [
        (["--survey", "sdss", "--frame", "rest"], None, "rest"),
        (["--survey", "table", "--frame", "rest"], "rest", "rest"),
        (["--survey", "table", "--frame", "rest", "--spectra-frame", "observed"], "observed", "rest"),
        (["--survey", "table"], None, "observed"),
    ],
)
def test_the_frame_of_pictures_is_that_of_files_of_nobody_known(
    arguments: list[str], of_files: str | None, of_picture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    got: list[Any] = []
    monkeypatch.setattr("specshards.shards.make.make", lambda *args, **_: got.extend(args))
    app = application("", {"run": shards.make_survey, "other": shards.build})
    done = CliRunner().invoke(app, ["run", *arguments, "--out", str(tmp_path)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    _, source, _, config = got
    assert (source.chosen.frame, config.image.frame) == (of_files, of_picture)


def test_what_a_survey_says_itself_is_not_stated() -> None:
    for name, value in {"columns": "wl,flux", "unit": "mJy", "frame": "rest", "name": "soil"}.items():
        with pytest.raises(UsageError, match=f"{name}={value}: is for files of no survey .* those of sdss say it"):
            IngestConfig("sdss", **{name: value})
        assert getattr(IngestConfig("table", **{name: value}), name) == value


def test_one_option_alone_and_a_field_that_nobody_explains() -> None:
    got: list[Any] = []

    def command(split: Annotated[tuple[float, float, float] | None, option(ShardConfig, "split")] = None) -> None:
        got.append(split)

    app = typer.Typer()
    app.command()(configured(command))
    assert CliRunner().invoke(app, ["--split", "0.6,0.2,0.2"]).exit_code == 0
    assert CliRunner().invoke(app, []).exit_code == 0 and got == [(0.6, 0.2, 0.2), None]
    with pytest.raises(UsageError, match=r"--split 1: give 3 numbers, as 0\.8,0\.1,0\.1"):
        CliRunner().invoke(app, ["--split", "1"], catch_exceptions=False)
    bare = type("Bare", (), {"__annotations__": {"x": int}, "x": 1})
    with pytest.raises(TypeError, match=r"Bare\.x: its class does not say"):
        list(options(dataclass(frozen=True)(bare)))
