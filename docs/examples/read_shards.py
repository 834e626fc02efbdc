"""Read a data set by docs/shard-format.md alone, with numpy: `python read_shards.py FOLDER [train|val|test]`."""

import io
import json
import sys
import tarfile
import zlib
from pathlib import Path

import numpy as np


def decode(kind, data):
    """Codes, uint8 (H, W, 1 or 3), of png, pgm and ppm; arrays by name of flux.npy; the bytes of a jpg."""
    if kind == "flux.npy":
        record = np.load(io.BytesIO(data), allow_pickle=False)
        grid = 10 ** (record["wave_coeff0"] + record["wave_coeff1"] * np.arange(record["flux"].size))
        return {"lambda": grid} | {name: record[name] for name in record.dtype.names}  # a stored lambda wins
    if kind in ("pgm", "ppm"):
        return np.frombuffer(data, np.uint8, offset=17).reshape(int(data[8:12]), int(data[3:7]), -1)
    if kind == "png":
        lines = np.frombuffer(zlib.decompress(data[41:-16]), np.uint8).reshape(int.from_bytes(data[20:24]), -1)
        codes = lines[:, 1:].reshape(len(lines), -1, 3 if data[25] == 2 else 1)
        return np.where(lines[:, :1, None] == 1, codes.cumsum(axis=1, dtype=np.uint8), codes)
    return data


def samples(folder, split="train"):
    """Key, content and labels by name (NaN: missing) of each sample of a split, in the order of the tars."""
    about = json.loads(Path(folder, "manifest.json").read_text())
    assert about["format_version"] == 1, "this reads format version 1"
    for shard in (shard for shard in about["shards"] if shard["split"] == split):
        with tarfile.open(Path(folder, split, Path(shard["name"]).name), "r:") as tar:
            members = [(member.name.partition("."), tar.extractfile(member).read()) for member in tar]
        for ((key, _, kind), data), (_, npy) in zip(members[::2], members[1::2], strict=True):
            yield key, decode(kind, data), dict(zip(about["labels"], np.load(io.BytesIO(npy)).tolist(), strict=True))


if __name__ == "__main__":
    sys.stdout.writelines(f"{key} {labels}\n{content}\n" for key, content, labels in samples(*sys.argv[1:3]))
