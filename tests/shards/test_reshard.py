"""Data sets made from data sets: nothing lost, labels and pixels as they were, split anew by sky."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from specshards.common.errors import JobError, UsageError
from specshards.common.jobs import Engine
from specshards.ingest.spectra.schema import to_table, write_parquet
from specshards.render import ImageConfig
from specshards.shards import __main__ as command
from specshards.shards import loader
from specshards.shards.check.verify import verify
from specshards.shards.format.manifest import SPLITS, Manifest, ShardConfig
from specshards.shards.write.build import build
from specshards.shards.write.reshard import remake
from tests.conftest import make_spectrum
from tests.oracles.data_sets import tree

HERE = Engine(workers=0)


@pytest.fixture(scope="module")
def made(spectra_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two surveys with some objects in common, each as shards of several encodings."""
    folder = tmp_path_factory.mktemp("remake")
    rng = np.random.default_rng(7)
    first = [make_spectrum(i, rng) for i in range(300)]
    rng = np.random.default_rng(8)
    other = [make_spectrum(i, rng, survey="mock-sdss", n=3700) for i in range(90)]
    for i in range(60):
        other[i] = replace(other[i], ra=first[i].ra, dec=first[i].dec + 0.7 / 3600)
    other[3].mask[:] = True
    (folder / "sdss").mkdir()
    write_parquet(to_table(other), folder / "sdss" / "a.parquet", {}, row_group_rows=20)
    for encoding in ("png", "flux", "jpeg"):
        config = ShardConfig(encoding=encoding, samples_per_shard=60)
        build(config, spectra_folder, folder / f"lamost-{encoding}", engine=HERE)
        build(config, folder / "sdss", folder / f"sdss-{encoding}", engine=HERE)
    return {path.name: path for path in folder.iterdir()}


def samples(folder: Path) -> dict[int, tuple[bytes, bytes, str, dict[str, object]]]:
    """Row -> picture, labels, split and sidecar row."""
    found = {}
    for split in SPLITS:
        for tar in sorted((folder / split).glob("*.tar")):
            from specshards.shards.format.tar import read_index

            content = tar.read_bytes()
            table = pq.read_table(tar.with_suffix(".parquet")).to_pylist()
            for entry, row in zip(read_index(tar.with_suffix(".idx")), table, strict=True):
                picture, labels = (content[o : o + n] for o, n, _ in entry.values())
                found[row["source_row"]] = (picture, labels, split, row)
    return found


def clean(folder: Path) -> None:
    assert [check for check in verify(folder, deep=True, engine=HERE) if not check.passed] == []


def test_another_size_and_split_of_the_same_samples(made: dict[str, Path], tmp_path: Path) -> None:
    changes = {"samples_per_shard": 25, "split": (0.5, 0.25, 0.25), "seed": 4}
    new = remake([made["lamost-png"]], tmp_path / "out", engine=HERE, **changes)  # type: ignore[arg-type]
    before, after = samples(made["lamost-png"]), samples(tmp_path / "out")
    assert (new.objects, new.samples(), new.quarantined) == (300, 297, 3) and len(new.shards) > 30
    assert before.keys() == after.keys() and all(before[row][:2] == after[row][:2] for row in before)
    assert Counter(split for *_, split, _ in after.values())["train"] < 200
    clean(tmp_path / "out")
    remake([made["lamost-png"]], tmp_path / "two", engine=Engine(workers=2), **changes)  # type: ignore[arg-type]
    assert tree(tmp_path / "two") == tree(tmp_path / "out")


@pytest.mark.parametrize("encoding", ["png", "pnm", "lz4", "jpeg"])
def test_other_encodings_have_the_pixels_of_a_build(
    made: dict[str, Path], spectra_folder: Path, tmp_path: Path, encoding: str
) -> None:
    build(ShardConfig(encoding=encoding, samples_per_shard=60), spectra_folder, tmp_path / "built", engine=HERE)
    built = samples(tmp_path / "built")
    for name in ("lamost-png", "lamost-flux"):
        remake([made[name]], tmp_path / name, encoding=encoding, engine=HERE)
        assert {row: found[:2] for row, found in samples(tmp_path / name).items()} == {
            row: found[:2] for row, found in built.items()
        }
    clean(tmp_path / "lamost-flux")


def test_spectra_become_any_picture(made: dict[str, Path], spectra_folder: Path, tmp_path: Path) -> None:
    image = ImageConfig(image="simple", size=64)
    remake([made["lamost-flux"]], tmp_path / "a", encoding="png", image=image, engine=HERE)
    build(ShardConfig(image=image, samples_per_shard=60), spectra_folder, tmp_path / "b", engine=HERE)
    a, b = samples(tmp_path / "a"), samples(tmp_path / "b")
    assert a.keys() == b.keys() and all(a[row][0] == b[row][0] for row in a)


def test_a_filter_counts_what_it_leaves_out(made: dict[str, Path], tmp_path: Path) -> None:
    new = remake([made["lamost-png"]], tmp_path / "out", where="class == 'QSO' and z > 0.22", engine=HERE)
    found = samples(tmp_path / "out")
    assert found and all(row["class"] == "QSO" and row["z"] > 0.22 for *_, row in found.values())
    assert new.samples() + new.left_out + new.quarantined == new.objects == 300 and new.left_out == 297 - len(found)
    clean(tmp_path / "out")
    with pytest.raises(UsageError, match=r"the input changed.*FORCE=1"):
        remake([made["lamost-png"]], tmp_path / "out", engine=HERE)
    with pytest.raises(UsageError, match="no column colour; there are"):
        remake([made["lamost-png"]], tmp_path / "o", where="colour > 3", engine=HERE)


def test_two_surveys_become_one_data_set(made: dict[str, Path], tmp_path: Path) -> None:
    both = [made["sdss-png"], made["lamost-png"]]
    new = remake(both, tmp_path / "out", samples_per_shard=128, engine=HERE)
    parts = [Manifest.load(folder) for folder in both]
    assert new.objects == 390 and new.quarantined == 4 and new.surveys == ("mock-lamost", "mock-sdss")
    assert new.samples() == sum(part.samples() for part in parts)
    assert [origin["fingerprint"] for origin in new.made_from] == [part.fingerprint() for part in parts]
    found = samples(tmp_path / "out")
    before = {
        row + base: item for base, folder in zip((0, 90), both, strict=True) for row, item in samples(folder).items()
    }
    assert found.keys() == before.keys() and all(found[row][0] == before[row][0] for row in found)
    # What gave no sample is numbered with the samples: its number is nobody else's.
    lost = pq.read_table(tmp_path / "out" / "quarantine.parquet")["row"].to_pylist()
    assert sorted([*found, *lost]) == list(range(390)) and sorted(lost) == [3, 90 + 5, 90 + 120, 90 + 299]
    # A star in both surveys is in one split, whatever it was in before.
    splits: dict[tuple[float, float], set[str]] = {}
    for *_, split, row in found.values():
        splits.setdefault((round(row["ra"], 6), round(row["dec"], 2)), set()).add(split)
    assert all(len(each) == 1 for each in splits.values())
    # Shards hold both surveys, in nearly every one.
    mixed = [set(pq.read_table(tmp_path / "out" / s.name.replace(".tar", ".parquet"))["survey"].to_pylist())
             for s in new.split("train")]  # fmt: skip
    assert np.mean([len(names) == 2 for names in mixed]) >= 0.6
    with loader.open(tmp_path / "out", "train", 32) as batches:
        assert batches.surveys == ("mock-lamost", "mock-sdss") and sum(
            int(b["valid"].sum()) for b in batches
        ) == new.samples("train")
    clean(tmp_path / "out")


def test_what_cannot_be_made_is_said(made: dict[str, Path], tmp_path: Path) -> None:
    for name, options, message in (
        ("lamost-jpeg", {"encoding": "png"}, "of which no png can be made"),
        ("lamost-png", {"encoding": "flux"}, "of which no flux can be made"),
        ("lamost-png", {"image": ImageConfig(size=64)}, "another one needs shards with ENCODING=flux"),
        ("lamost-png", {"encoding": "gif"}, "unknown ENCODING=gif"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=message):
            remake([made[name]], tmp_path / "out", engine=HERE, **options)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="another encoding than"):
        remake([made["lamost-png"], made["sdss-jpeg"]], tmp_path / "out", engine=HERE)
    with pytest.raises(UsageError, match="is one of the sources"):
        remake([made["lamost-png"]], made["lamost-png"], engine=HERE)
    assert not (tmp_path / "out").exists()


def test_damage_gets_no_checksum_of_its_own(spectra_folder: Path, tmp_path: Path) -> None:
    build(ShardConfig(), spectra_folder, tmp_path / "in", engine=HERE)
    tar = sorted((tmp_path / "in" / "val").glob("*.tar"))[0]
    content = bytearray(tar.read_bytes())
    content[3000] ^= 1
    tar.write_bytes(content)
    with pytest.raises(JobError, match=rf"^{tar}: is not what the manifest says; run the command"):
        remake([tmp_path / "in"], tmp_path / "out", engine=HERE)
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_slomost_is_sdss_and_lamost_in_one(tmp_path: Path) -> None:
    command.make_survey("slomost", tmp_path, n=40, workers=0)
    both = Manifest.load(tmp_path / "shards" / "map2d")
    parts = [Manifest.load(tmp_path / name / "shards" / "map2d") for name in ("sdss", "lamost")]
    assert both.surveys == ("mock-lamost", "mock-sdss") and both.mock
    assert both.samples() == sum(part.samples() for part in parts) > 60
    # Spectra that are Parquet already are drawn in one go, whoever's they are.
    spectra = tmp_path / "spectra"
    spectra.mkdir()
    for name in ("sdss", "lamost"):
        for path in (tmp_path / name / "spectra").glob("*.parquet"):
            (spectra / f"{name}-{path.name}").write_bytes(path.read_bytes())
    command.make_survey("slomost", tmp_path / "direct", data=str(spectra), workers=0)
    assert Manifest.load(tmp_path / "direct" / "shards" / "map2d").samples() == both.samples()


def test_the_commands_say_what_they_were_not_given(made: dict[str, Path], tmp_path: Path) -> None:
    out = str(tmp_path / "a")
    command.reshard(str(made["lamost-png"]), out, split="0.5,0.3,0.2", samples_per_shard=50, workers=0)
    assert Manifest.load(tmp_path / "a").config.split == (0.5, 0.3, 0.2)
    command.merge([str(made["lamost-png"]), str(made["sdss-png"])], str(tmp_path / "b"), workers=0)
    assert Manifest.load(tmp_path / "b").objects == 390
    with pytest.raises(UsageError, match=r"give 3 numbers, as .* shares of train, val and test"):
        command.reshard(str(made["lamost-png"]), out, split="0.5,0.5", workers=0)
