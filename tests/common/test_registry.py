"""Names of what can be added: looked up, listed, refused twice, and found in other packages."""

from __future__ import annotations

import logging
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from specshards.common import registry
from specshards.common.errors import UsageError
from specshards.common.registry import Registry


def test_names_are_chosen_listed_and_refused() -> None:
    shapes: Registry[type] = Registry("SHAPE", "specshards.shapes")

    @shapes.register("ball")
    class Ball:
        pass

    @shapes.register("cube")
    class Cube:
        pass

    assert shapes.choose("ball") is Ball and list(shapes) == ["ball", "cube"] and len(shapes) == 2
    with pytest.raises(UsageError, match="unknown SHAPE=cone: choose ball, cube"):
        shapes.choose("cone")
    assert shapes.register("ball")(Ball) is Ball  # a module that is imported again
    with pytest.raises(UsageError, match="SHAPE=ball is registered twice"):
        shapes.register("ball")(Cube)


def test_other_packages_are_found_and_a_broken_one_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shapes: Registry[type] = Registry("SHAPE", "specshards.shapes", ["tests_own_shapes"])
    monkeypatch.setattr(sys.modules[__name__], "SHAPES", shapes, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    template = "from tests.common.test_registry import SHAPES\n@SHAPES.register('{0}')\nclass Shape:\n    pass\n"
    (tmp_path / "tests_own_shapes.py").write_text(template.format("ball"))
    (tmp_path / "tests_other_shapes.py").write_text(template.format("cone"))
    (tmp_path / "tests_broken_shapes.py").write_text("import there_is_no_such_module\n")
    points = [EntryPoint(name, f"tests_{name}_shapes", "specshards.shapes") for name in ("other", "broken")]
    monkeypatch.setattr(registry, "entry_points", lambda group: points if group == "specshards.shapes" else [])
    with caplog.at_level(logging.WARNING, "specshards"):
        assert list(shapes) == ["ball", "cone"]
    assert "tests_broken_shapes" in caplog.text and "there_is_no_such_module" in caplog.text
    with pytest.raises(UsageError, match="choose ball, cone; tests_broken_shapes could not be loaded"):
        shapes.choose("cube")
