"""A copy of a data set to damage, and the faults that `verify` has to find, one at a time."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from specshards.common.spectrum import LABELS
from specshards.shards.format.manifest import NPY_HEADER_BYTES, Manifest, ShardRecord, key
from specshards.shards.format.tar import TarWriter, read_index


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


@fault("info", "info", r"^_info\.json: names other shards or lengths than manifest\.json; run the same")
def lengths_told_to_others(copy: Copy) -> None:
    path = copy.folder / "_info.json"
    path.write_text(path.read_text().replace('"num_samples": ', '"num_samples": 1'))


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
