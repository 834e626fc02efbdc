"""A manifest of a stranger: it is read as it was written, or refused in one line that names the field."""

from __future__ import annotations

import copy
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from specshards.common.errors import JobError, UsageError
from specshards.common.json import fits, parse
from specshards.shards import loader
from specshards.shards.format.manifest import Manifest
from specshards.shards.write.reshard import remake


@pytest.fixture(scope="module")
def good(sets: Callable[[str], Path]) -> dict[str, Any]:
    return json.loads((sets("png") / "manifest.json").read_text())


def load(folder: Path, content: Any) -> Manifest:
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / "manifest.json").write_text(text)
    return Manifest.load(folder)


def refusal(folder: Path, content: Any) -> str:
    with pytest.raises(JobError) as caught:
        load(folder, content)
    said = str(caught.value)
    assert "\n" not in said and said.startswith(str(folder / "manifest.json")) and len(said) < 600
    return said


def put(content: Any, place: str, value: Any) -> Any:
    """A copy with `value` at `a.0.b`."""
    changed = copy.deepcopy(content)
    *way, last = place.split(".")
    part = changed
    for step in way:
        part = part[int(step) if isinstance(part, list) else step]
    part[int(last) if isinstance(part, list) else last] = value
    return changed


WRONG: list[tuple[str, Any, str]] = [
    ("shards.0.name", "../outside/x.tar", r"shards[0].name: '../outside/x.tar' is not the name"),
    ("shards.0.name", "/etc/train-000000.tar", "shards[0].name"),
    ("shards.0.name", "train/../train/train-000000.tar", "shards[0].name"),
    ("shards.0.name", "val/val-000000.tar", "shards[0].name"),
    ("shards.0.name", "train/train-00000\N{ARABIC-INDIC DIGIT ONE}.tar", "shards[0].name"),
    ("shards.0.name", 5, "shards[0].name: 5 is not text"),
    ("shards.0.split", "training", "shards[0].split"),
    ("shards.0.samples", -1, "shards[0]: -1 samples"),
    ("shards.0.samples", 0, "shards[0]: 0 samples"),
    ("shards.0.samples", 10**18, "shards[0]: 1000000000000000000 samples"),
    ("shards.0.samples", None, "shards[0].samples: None is not a whole number"),
    ("shards.0.samples", True, "shards[0].samples: True is not a whole number"),
    ("shards.0.samples", 1.0, "shards[0].samples: 1.0 is not a whole number"),
    ("shards.0.bytes", 10**19, "shards[0].bytes"),
    ("shards.0.sha256", "0" * 63, "shards[0].sha256"),
    ("shards.0.index_sha256", None, "shards[0].index_sha256"),
    ("shards.0.classes", {"STAR": -1}, "shards[0].classes"),
    ("shards.0.classes", {"PLANET": 1}, "shards[0].classes"),
    ("shards.0", [], "shards[0]: [] is not an object"),
    ("shards", {}, "shards: {} is not a list"),
    ("objects", -1, "objects: -1"),
    ("objects", 10**18, "objects: 1000000000000000000"),
    ("objects", math.nan, "NaN is no number"),
    ("quarantined", "3", "quarantined: '3' is not a whole number"),
    ("labels", ["z", "z"], "labels: 'z' is there twice"),
    ("labels", ["z"], "labels: class is missing"),
    ("classes", ["STAR\n"], "classes: 'STAR\\n' is not a name"),
    ("surveys", ["a", "a"], "surveys: 'a' is there twice"),
    ("surveys", "lamost", "surveys: 'lamost' is not a list"),
    ("surveys", ["\x1b[2J"], "surveys: '\\x1b[2J' is not a name"),
    ("mock", 1, "mock: 1 is not true or false"),
    ("mock", False, "mock: is false, with spectra of mock-lamost"),
    ("format_version", 0, "format_version: 0"),
    ("format_version", "1", "format_version: '1'"),
    ("format_version", True, "format_version: True"),
    ("format_version", 10**50, "format version"),
    ("label_stats.z.std", -1.0, "label_stats.z: are not the statistics"),
    ("label_stats.z.count", -1, "label_stats.z: are not the statistics"),
    ("label_stats.z.min", 1e9, "label_stats.z: are not the statistics"),
    ("label_stats.z.mean", "0", "label_stats.z.mean: '0' is not a number"),
    ("label_stats.z.mean", None, "label_stats.z: are not the statistics"),
    ("label_stats.colour", {"count": 0, "mean": None, "std": None, "min": None, "max": None}, "label_stats.colour"),
    ("config", None, "config: None is not an object"),
    ("config", [None], "config: [None] is not an object"),
    ("config.image", [1], "config.image: [1] is not an object"),
    ("label_stats", [1], "label_stats: [1] is not an object"),
    ("label_stats.z", 5, "label_stats.z: 5 is not an object"),
    ("shards", [None], "shards[0]: None is not an object"),
    ("config.encoding", "gif", "ENCODING=gif is of a package"),
    ("config.encoding", ["png"], "config.encoding"),
    ("config.seed", -1, "seed=-1"),
    ("config.split", [0.8, 0.1], "config.split"),
    ("config.split", [2.0, -0.5, -0.5], "split="),
    ("config.split_nside", 63, "split_nside=63"),
    ("config.split_nside", 2**40, "split_nside"),
    ("config.split_nside", 0, "split_nside"),
    ("config.samples_per_shard", 0, "samples_per_shard=0"),
    ("config.jpeg_quality", 95.5, "config.jpeg_quality"),
    ("config.image.image", "cube", "IMAGE=cube is of a package"),
    ("config.image.image", {}, "config.image.image"),
    ("config.image.size", 10**9, "size=1000000000"),
    ("config.image.window", [5000, "x"], "config.image.window[1]: 'x' is not a number"),
    ("config.image.window", [1, 2, 3], "config.image.window"),
    ("config.image.channels", [1], "config.image.channels[0]"),
    ("config.image.colormap", "../../x", "colormap=../../x"),
    ("config.image.colormap", 7, "config.image.colormap"),
    ("config.split_by", "star", "split_by=star"),
    ("config.split_by", "row", "leaks: are those of a split by row"),
    ("leaks", {"visited": 1}, "leaks.divided: is missing"),
    ("leaks", dict.fromkeys(("visited", "divided", "val", "val_seen", "test", "test_seen"), 0), "leaks: are those"),
    ("made_from", [1], "made_from[0]"),
    ("program_version", None, "program_version"),
]


@pytest.mark.parametrize(("place", "value", "said"), WRONG, ids=[f"{p}={str(v)[:20]}" for p, v, _ in WRONG])
def test_a_wrong_field_is_named(good: dict[str, Any], tmp_path: Path, place: str, value: Any, said: str) -> None:
    assert said in refusal(tmp_path, put(good, place, value))


def test_what_is_no_manifest_at_all_is_refused(good: dict[str, Any], tmp_path: Path) -> None:
    text = json.dumps(good)
    for wrong in ("", "{", "[]", "null", "7", "[" * 5000 + "]" * 5000, text[:-1], '{"a": ' * 60 + "1" + "}" * 60):
        refusal(tmp_path, wrong)
    assert "'objects' is there twice" in refusal(tmp_path, text[:-1] + ', "objects": 5}')
    assert "not text" in refusal(tmp_path, put(good, "surveys.0", "\ud800"))
    for name in good:
        if name not in ("left_out", "made_from", "labels", "format_version", "program_version"):
            assert f"{name}: " in refusal(tmp_path, {key: value for key, value in good.items() if key != name})
    twice = put(good, "shards", [good["shards"][0]] * 2)
    assert "train/train-000000.tar is there twice" in refusal(tmp_path, twice)
    (tmp_path / "manifest.json").write_bytes(b"\xff\xfe")
    with pytest.raises(JobError, match="not a manifest"):
        Manifest.load(tmp_path)


def test_links_that_lead_out_of_the_folder_are_not_followed(
    good: dict[str, Any], sets: Callable[[str], Path], tmp_path: Path
) -> None:
    folder, name = tmp_path / "set", good["shards"][0]["name"]
    (folder / "train").mkdir(parents=True)
    (folder / name).symlink_to(sets("png") / name)
    assert f"{name}: leads to" in refusal(folder, good)
    (folder / name).unlink()
    (folder / "train").rmdir()
    (folder / "train").symlink_to(sets("png") / "train")
    assert "train: leads to" in refusal(folder, good)
    (folder / "train").unlink()
    (folder / "train").mkdir()
    os.mkfifo(folder / name)  # whoever opens it waits for ever
    assert f"{name}: is not a file" in refusal(folder, good)


def test_no_reader_follows_a_name_out_of_the_folder(good: dict[str, Any], tmp_path: Path) -> None:
    content = put(good, "shards.0.name", "../outside/train-000000.tar")
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    for read in (
        lambda: loader.open(tmp_path, "train", 4),
        lambda: remake([tmp_path], tmp_path / "out"),
    ):
        with pytest.raises(JobError, match="outside/train-000000"):
            read()


def places(content: Any, way: str = "") -> list[str]:
    if isinstance(content, dict | list):
        pairs = content.items() if isinstance(content, dict) else enumerate(content)
        below = [place for key, value in pairs for place in places(value, f"{way}.{key}" if way else str(key))]
        return ([way] if way else []) + below
    return [way]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.integers(10**18, 10**30) | st.floats() | st.text()
    | st.sampled_from(["../x", "/etc/passwd", "\x00", "NaN", -1, 0, 2**63, 1e308, "png", "STAR"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@settings(deadline=None, max_examples=500, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_changed_manifest_is_read_as_it_says_or_refused(good: dict[str, Any], tmp_path: Path, data: Any) -> None:
    changed = copy.deepcopy(good)
    for _ in range(data.draw(st.integers(1, 2))):
        changed = put(changed, data.draw(st.sampled_from(places(changed))), data.draw(VALUES))
    try:
        read = load(tmp_path, changed)
    except (JobError, UsageError) as error:
        assert "\n" not in str(error)
    else:
        found, given = json.loads(read.dumps()), json.loads(json.dumps(changed))
        # An option that a picture's record does not have is at its default.
        image = found["config"].pop("image")
        assert given["config"].pop("image").items() <= image.items()
        assert found == given


@settings(deadline=None, max_examples=200)
@given(VALUES)
def test_whatever_is_written_is_read_again_or_refused(value: Any) -> None:
    text = json.dumps(value)
    try:
        again = parse(text)
    except ValueError:
        return
    assert json.dumps(again) == text
    try:
        fits(again, dict[str, int | None] | list[str] | float)
    except ValueError as error:
        assert "\n" not in str(error)
