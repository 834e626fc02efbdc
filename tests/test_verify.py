"""`verify` and `inspect`: a sound data set passes, and one fault at a time fails the check that is about it."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from ingest.errors import JobError, UsageError
from ingest.jobs import Engine
from render import ImageConfig, renderer
from shards import __main__ as command
from shards.build import build
from shards.encoding import ENCODINGS
from shards.examine import Spread
from shards.format import LABELS, NPY_HEADER_BYTES, Manifest, ShardConfig, ShardRecord, key
from shards.inspect import COLUMNS, inspect
from shards.tar import TarWriter, read_index
from shards.verify import Check, verify

HERE = Engine(workers=0)


@pytest.fixture(scope="module")
def sets(spectra_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Encoding -> a sound data set of it, built once."""
    made: dict[str, Path] = {}

    def of(encoding: str) -> Path:
        if encoding not in made:
            made[encoding] = tmp_path_factory.mktemp("sets") / encoding
            config = ShardConfig(encoding=encoding, samples_per_shard=60)
            build(config, spectra_folder, made[encoding], engine=HERE)
        return made[encoding]

    return of


@dataclass
class Copy:
    """A data set to damage, and the tools for it."""

    folder: Path

    @property
    def manifest(self) -> Manifest:
        return Manifest.load(self.folder)

    def record(self, split: str = "train", number: int = 0) -> ShardRecord:
        return self.manifest.split(split)[number]

    def edit_manifest(self, change: Callable[[dict[str, Any]], None]) -> None:
        path = self.folder / "manifest.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    def flip(self, path: Path, offset: int) -> None:
        content = bytearray(path.read_bytes())
        content[offset] ^= 1
        path.write_bytes(content)

    def sign(self) -> None:
        """Make the manifest's checksums and sizes those of the files: the damage is of a faulty writer."""

        def change(content: dict[str, Any]) -> None:
            for shard in content["shards"]:
                tar = self.folder / shard["name"]
                shard["bytes"] = tar.stat().st_size
                names = {"sha256": ".tar", "index_sha256": ".idx", "sidecar_sha256": ".parquet"}
                for field, suffix in names.items():
                    shard[field] = hashlib.sha256(tar.with_suffix(suffix).read_bytes()).hexdigest()

        self.edit_manifest(change)

    def sample(self, record: ShardRecord, number: int) -> dict[str, tuple[int, int, str]]:
        return read_index(record.index(self.folder))[number]

    def rewrite(self, record: ShardRecord, number: int, change: Callable[[dict[str, Any], np.ndarray], None]) -> None:
        """Write a shard again, in order and signed, with the sidecar's row and the labels of one sample changed."""
        tar, sidecar = record.path(self.folder), record.sidecar(self.folder)
        content, lines, table = tar.read_bytes(), read_index(record.index(self.folder)), pq.read_table(sidecar)
        rows = table.to_pylist()
        with TarWriter(tar) as writer:
            for place, (members, row) in enumerate(zip(lines, rows, strict=True)):
                payloads = {name: content[offset : offset + size] for name, (offset, size, _) in members.items()}
                labels = np.frombuffer(payloads["npy"], "<f8", offset=NPY_HEADER_BYTES).copy()
                if place == number:
                    change(row, labels)
                payloads["npy"] = payloads["npy"][:NPY_HEADER_BYTES] + labels.tobytes()
                writer.add(row["key"], list(payloads.items()))
        pq.write_table(pa.Table.from_pylist(rows, table.schema), sidecar)
        self.sign()


@pytest.fixture
def copy(sets: Callable[[str], Path], tmp_path: Path) -> Copy:
    shutil.copytree(sets("png"), tmp_path / "set")
    return Copy(tmp_path / "set")


def failed(checks: tuple[Check, ...]) -> dict[str, str]:
    assert all("\n" not in check.detail and check.detail for check in checks)
    return {check.name: check.detail for check in checks if not check.passed}


@pytest.mark.parametrize("encoding", sorted(ENCODINGS))
def test_a_sound_set_passes_every_check(sets: Callable[[str], Path], encoding: str) -> None:
    folder = sets(encoding)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    fast, deep = verify(folder), verify(folder, deep=True, engine=HERE)
    assert failed(fast) == failed(deep) == {}
    names = ["manifest", "account", "files", "strays", "classes"]
    assert [check.name for check in fast] == [*names, "balance"]
    names += ["checksums", "tar", "index", "images", "labels", "keys", "sky", "statistics", "mixing", "balance"]
    assert [check.name for check in deep] == names
    assert [check.name for check in deep if check.note] == ["mixing", "balance"]
    details = {check.name: check.detail for check in deep}
    assert details["account"] == "300 objects = 297 samples + 3 quarantined"
    assert details["keys"] == "297 keys, no two alike"
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_workers_find_what_this_process_finds(copy: Copy) -> None:
    for record in copy.manifest.shards[::2]:
        copy.flip(record.path(copy.folder), copy.sample(record, 1)["png"][0] + 50)
    checks = verify(copy.folder, deep=True, engine=HERE)
    assert verify(copy.folder, deep=True, engine=Engine(2)) == checks
    assert re.search(r"manifest \(and \d more shards\); run the same", failed(checks)["checksums"])


# A fault, the checks that it fails in a fast and in a deep run, and what their details name.
Fault = Callable[[Copy], None]
FAULTS: dict[str, tuple[Fault, list[str], list[str], str]] = {}


def fault(fast: str, deep: str, names: str) -> Callable[[Fault], Fault]:
    def keep(function: Fault) -> Fault:
        FAULTS[function.__name__] = (function, fast.split(), deep.split(), names)
        return function

    return keep


@fault("files", "files", r"train/train-000000\.tar: [\d,]+ bytes where .*; run the same `make shards`")
def truncated_tar(copy: Copy) -> None:
    path = copy.record().path(copy.folder)
    path.write_bytes(path.read_bytes()[:-10240])


@fault("files", "files", r"^train/train-000001\.idx: missing; run the same")
def missing_index(copy: Copy) -> None:
    copy.record(number=1).index(copy.folder).unlink()


@fault("files", "files", r"^train/train-000000\.tar: missing \(and 1 more shards\)")
def missing_tars(copy: Copy) -> None:
    for record in (copy.record(), copy.record("val")):
        record.path(copy.folder).unlink()


@fault("files", "files", r"train-000000\.parquet: damaged Parquet")
def broken_sidecar(copy: Copy) -> None:
    copy.record().sidecar(copy.folder).write_bytes(b"PAR1")


@fault("files", "files", r"train-000000\.idx: not a whole DALI index")
def cut_index(copy: Copy) -> None:
    path = copy.record().index(copy.folder)
    path.write_text(path.read_text()[:-40])


@fault(
    "", "checksums images", r"^train/train-000000\.tar: .*(sha256 is not that|\d{10}\.png at byte \d+: not a read)"
)
def flipped_byte_in_an_image(copy: Copy) -> None:
    copy.flip(copy.record().path(copy.folder), copy.sample(copy.record(), 3)["png"][0] + 100)


@fault("", "checksums labels", r"sha256|z at byte \d+ is .*, in train-000000\.parquet ")
def flipped_byte_in_a_label(copy: Copy) -> None:
    offset = copy.sample(copy.record(), 3)["npy"][0] + NPY_HEADER_BYTES + 8 * LABELS.index("z")
    copy.flip(copy.record().path(copy.folder), offset)


@fault("", "labels", r"^train/train-000000\.tar: \d{10}\.npy: feh at byte \d+ is -?\d.*; remove this file and")
def label_written_wrong(copy: Copy) -> None:
    offset = copy.sample(copy.record(), 3)["npy"][0] + NPY_HEADER_BYTES + 8 * LABELS.index("feh")
    content = bytearray(copy.record().path(copy.folder).read_bytes())
    content[offset : offset + 8] = np.float64(-1).tobytes()
    copy.record().path(copy.folder).write_bytes(content)
    copy.sign()
    copy.edit_manifest(
        lambda content: content["label_stats"]["feh"].update(count=1, mean=-1, std=0, min=-1, max=-1)
    )  # the statistics agree with the vectors


@fault("", "labels", r"0\.npy at byte \d+: not a vector of 14 float64")
def label_header_written_wrong(copy: Copy) -> None:
    record = copy.record("val")
    offset = next(s["npy"][0] for s in read_index(record.index(copy.folder)) if s["npy"][2].endswith("0.npy"))
    copy.flip(record.path(copy.folder), offset + 70)
    copy.sign()


@fault("", "images", r"\d{10}\.png at byte \d+: not a readable PNG; remove this file")
def image_written_wrong(copy: Copy) -> None:
    copy.flip(copy.record("val").path(copy.folder), copy.sample(copy.record("val"), 0)["png"][0] + 100)
    copy.sign()


@fault("", "index", r"^train/train-000000\.idx: line 4, \d{10}\.png: says '7 .*the tar has '\d{4,} ")
def offset_written_wrong(copy: Copy) -> None:
    path = copy.record().index(copy.folder)
    lines = path.read_text().splitlines()
    words = lines[3].split(" ")
    lines[3] = " ".join([words[0], "7", *words[2:]])
    path.write_text("\n".join(lines) + "\n")
    copy.sign()


@fault("", "index", r"\.idx: not a whole DALI index")
def index_without_words(copy: Copy) -> None:
    path = copy.record().index(copy.folder)
    path.write_text("\n".join([path.read_text().splitlines()[0], *["png 1"] * copy.record().samples]) + "\n")
    copy.sign()


@fault("", "labels", r"teff at byte \d+ is nan, in train-000000\.parquet 5000\.0; remove")
def sidecar_value_changed(copy: Copy) -> None:
    path = copy.record().sidecar(copy.folder)
    table = pq.read_table(path)
    at = table.column_names.index("teff")
    values = pa.array([5000.0] + [None] * (len(table) - 1), table.schema.field(at).type)
    pq.write_table(table.set_column(at, table.schema.field(at), values), path)
    copy.sign()


@fault("", "labels", r"^val/val-000000\.parquet: row 0 is \d{10} .*, the tar has \d{10} there")
def sidecar_in_another_order(copy: Copy) -> None:
    path = copy.record("val").sidecar(copy.folder)
    table = pq.read_table(path)
    pq.write_table(table.take(list(range(len(table)))[::-1]), path)
    copy.sign()


@fault("account", "account", r"^quarantine\.parquet: 2 rows where the manifest says 3; run the same")
def row_missing_from_quarantine(copy: Copy) -> None:
    path = copy.folder / "quarantine.parquet"
    pq.write_table(pq.read_table(path).slice(1), path)


@fault("account", "account", r"^manifest\.json: not true that 301 objects = 297 samples \+ 3")
def object_lost(copy: Copy) -> None:
    copy.edit_manifest(lambda content: content.update(objects=301))


@fault("strays", "strays", r"^train/train-000099\.tar: not of this data set \(and 1 more files\); remove it")
def stray_tar(copy: Copy) -> None:
    shutil.copy(copy.record().path(copy.folder), copy.folder / "train" / "train-000099.tar")
    (copy.folder / "val" / "deeper").mkdir()
    (copy.folder / "val" / "deeper" / "x.tar").write_bytes(b"")


@fault("classes", "classes", r"class counts of train/train-000000\.tar: they are not \d+ samples")
def classes_do_not_add_up(copy: Copy) -> None:
    copy.edit_manifest(lambda content: content["shards"][0]["classes"].update(STAR=1000))


@fault("manifest", "manifest", "format version 99, this program reads up to")
def newer_version(copy: Copy) -> None:
    copy.edit_manifest(lambda content: content.update(format_version=99))


@fault("manifest", "manifest", "no manifest.json there; run `make shards`")
def unfinished(copy: Copy) -> None:
    (copy.folder / "manifest.json").unlink()


@fault("manifest", "manifest", r"'\.\./secret\.tar' is not the name of a shard")
def name_that_leads_out(copy: Copy) -> None:
    copy.edit_manifest(lambda content: content["shards"][0].update(name="../secret.tar"))


@fault("", "statistics", r"label_stats of z: .* in train; run the same")
def statistics_of_something_else(copy: Copy) -> None:
    copy.edit_manifest(lambda content: content["label_stats"]["z"].update(mean=0.5))


@fault("", "sky", r"^train/train-000000\.tar \d{10} and val/val-000000\.tar \d{10}: 1 pairs within 1\" lie in diff")
def close_objects_in_two_splits(copy: Copy) -> None:
    first = pq.read_table(copy.record().sidecar(copy.folder)).slice(2, 1).to_pylist()[0]

    def move(row: dict[str, Any], labels: np.ndarray) -> None:
        row["ra"], row["dec"] = first["ra"], first["dec"] - 0.5 / 3600
        labels[LABELS.index("ra")], labels[LABELS.index("dec")] = row["ra"], row["dec"]

    copy.rewrite(copy.record("val"), 1, move)


@fault("", "keys", r"^train/train-000000\.tar and val/val-000000\.tar: key \d{10} is there twice; make the shards")
def duplicated_key(copy: Copy) -> None:
    row = pq.read_table(copy.record().sidecar(copy.folder))["source_row"][0].as_py()
    copy.rewrite(copy.record("val"), 0, lambda sample, _: sample.update(key=key(row), source_row=row))


@fault("", "keys", r"^val/val-000000\.tar: key \d{10} is there twice")
def duplicated_key_in_one_shard(copy: Copy) -> None:
    row = pq.read_table(copy.record("val").sidecar(copy.folder))["source_row"][1].as_py()
    copy.rewrite(copy.record("val"), 0, lambda sample, _: sample.update(key=key(row), source_row=row))


@fault(
    "", "tar", r"^val/val-000000\.tar: member 'etc/passwd' at byte \d+: not KEY\.png, KEY being 10 digits below 300"
)
def member_that_leads_out(copy: Copy) -> None:
    path = copy.record("val").path(copy.folder)
    name = copy.sample(copy.record("val"), 1)["png"][2].encode()
    content = path.read_bytes().replace(name, b"etc/passwd".ljust(len(name), b"\0"))
    at = content.index(b"etc/passwd")
    header = bytearray(content[at : at + 512])
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    path.write_bytes(content[:at] + header + content[at + 512 :])
    copy.sign()


@fault("", "checksums tar", r"sha256|val-000000\.tar: 4 members up to byte \d+, where \d+ samples have \d+")
def header_overwritten(copy: Copy) -> None:
    record = copy.record("val")
    copy.flip(record.path(copy.folder), copy.sample(record, 2)["png"][0] - 512 + 150)


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_fails_its_check_and_no_other(copy: Copy, name: str) -> None:
    damage, fast, deep, names = FAULTS[name]
    damage(copy)
    found = failed(verify(copy.folder))
    assert list(found) == fast, found
    found = failed(verify(copy.folder, deep=True, engine=HERE))
    assert list(found) == deep, found
    for detail in found.values():
        assert re.search(names, detail), detail


def test_a_rerun_mends_damage(copy: Copy, spectra_folder: Path) -> None:
    truncated_tar(copy)
    missing_index(copy)
    row_missing_from_quarantine(copy)
    flipped = copy.record("val")
    copy.flip(flipped.path(copy.folder), copy.sample(flipped, 0)["png"][0])
    assert list(failed(verify(copy.folder, deep=True, engine=HERE))) == ["account", "files", "checksums", "images"]
    build(copy.manifest.config, spectra_folder, copy.folder, engine=HERE)
    assert failed(verify(copy.folder, deep=True, engine=HERE)) == {}


def test_temporaries_are_noted_and_damaged_shards_left_out(copy: Copy) -> None:
    (copy.folder / "train" / ".train-000001.tar.tmp").write_bytes(b"x")
    copy.record().path(copy.folder).unlink()
    checks = {check.name: check for check in verify(copy.folder, deep=True, engine=HERE)}
    assert checks["strays"].passed and checks["strays"].note and ".train-000001.tar.tmp" in checks["strays"].detail
    assert checks["labels"].passed and "damaged shards not read: 1" in checks["labels"].detail
    assert checks["statistics"].note and "not every train shard" in checks["statistics"].detail


def test_spread_is_one_for_the_order_of_the_input_and_small_for_a_random_one() -> None:
    rng = np.random.default_rng(0)
    n = 40_960

    def spread(rows: np.ndarray) -> Spread:
        return sum((Spread.of(part, n) for part in np.split(rows, 10)), Spread())

    random = spread(rng.permutation(n))
    assert random.random == pytest.approx(1 / 256, rel=0.01) and random.share == pytest.approx(1 / 256, rel=0.3)
    assert spread(np.arange(n)).share > 0.999
    # Stretches of four pieces of the input each.
    pieces = rng.permutation(np.arange(n).reshape(-1, 64)).reshape(-1)
    assert spread(pieces).share == pytest.approx(1 / 4, rel=0.2)


def test_an_unmixed_order_fails(tmp_path: Path) -> None:
    from shards.examine import Findings
    from shards.overall import Overall

    config, rows = ShardConfig(), 256
    records = [ShardRecord("train", f"train/train-{n:06d}.tar", rows, 1, "", "", "") for n in range(10)]
    manifest = Manifest(config, "", 10 * rows, 0, (), (), tuple(records), {}, False)
    for order, passed in ((np.arange(2560), False), (np.random.default_rng(0).permutation(2560), True)):
        overall = Overall(manifest, records)
        for record, part in zip(records, np.split(order, 10), strict=True):
            overall.take(Findings(record, rows=part, spread=Spread.of(part, 2560)))
        check = {check.name: check for check in overall.checks()}["mixing"]
        assert check.passed == passed and ("not mixed" in check.detail) != passed


def test_the_command_prints_a_line_a_check_and_fails_with_them(copy: Copy) -> None:
    run = CliRunner().invoke
    done = run(command.app, ["verify", str(copy.folder), "--deep", "--workers", "0"])
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert sum(line.startswith(("ok    ", "note  ")) for line in lines) == 15 and "15 checks passed" in lines[-1]
    missing_index(copy)
    done = run(command.app, ["verify", str(copy.folder)])
    assert isinstance(done.exception, JobError) and "1 of 6 checks failed: files" in str(done.exception)
    assert "FAIL  files     train/train-000001.idx: missing" in done.output
    done = run(command.app, ["verify", str(copy.folder), "--deep", "--memory", "1KB"])
    assert isinstance(done.exception, UsageError) and "memory of one worker" in str(done.exception)
    with pytest.raises(UsageError, match="no such folder"):
        verify(copy.folder / "nowhere")


@pytest.mark.parametrize("encoding", sorted(ENCODINGS))
def test_inspect_shows_samples_as_table_and_pictures(
    sets: Callable[[str], Path], tmp_path: Path, encoding: str
) -> None:
    folder = sets(encoding)
    head = inspect(folder, count=7, out=tmp_path / "new" / "a.png")
    record = Manifest.load(folder).split("train")[0]
    sidecar = pq.read_table(record.sidecar(folder)).slice(0, 7).to_pylist()
    assert [row["key"] for row in head.rows] == [row["key"] for row in sidecar]
    assert all(row[name] == side[name] for row, side in zip(head.rows, sidecar, strict=True) for name in ("z", "ra"))
    lines = list(head.lines())
    assert lines[0].split() == list(COLUMNS)
    assert len(lines) == 8 and sidecar[0]["object_id"] in lines[1]
    sheet: Any = cv2.imread(str(tmp_path / "new" / "a.png"))
    assert sheet.shape == (2 * 250, 5 * 232 - 8, 3)
    drawer = renderer(ImageConfig())
    decode = ENCODINGS[encoding](drawer).decode
    content = record.path(folder).read_bytes()
    first = decode(content[head.rows[0]["offset"] :][: head.rows[0]["bytes"]])
    picture = first if encoding == "jpeg" else drawer.expand(drawer.codes(*first) if encoding == "flux" else first)
    np.testing.assert_array_equal(sheet[19:241, 1:223], picture[1:-1, 1:-1, ::-1])


def test_inspect_names_what_is_wrong(copy: Copy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(command.app, ["inspect", str(copy.folder), "--count", "3"])
    assert done.exit_code == 0 and "3 of" in done.output and (tmp_path / "train-000000.png").is_file()
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"shard": 77}, "no shard 77 of train; there are"),
        ({"split": "dev"}, "unknown split dev"),
        ({"count": 0}, "count=0"),
        ({"out": tmp_path / "a.jpg"}, "ends in .png"),
    ]
    for arguments, message in wrong:
        with pytest.raises(UsageError, match=message):
            inspect(copy.folder, **arguments)
    copy.flip(copy.record().path(copy.folder), copy.sample(copy.record(), 0)["png"][0])
    with pytest.raises(JobError, match=r"train-000000\.tar: damaged .*verify"):
        inspect(copy.folder)
    missing_index(copy)
    with pytest.raises(JobError, match="damaged"):
        inspect(copy.folder, shard=1)
