"""Data sets of shards: what is in one, and one with a damaged sample."""

from __future__ import annotations

import hashlib
from pathlib import Path

from specshards.shards.format.tar import read_index


def tree(folder: Path) -> dict[str, str]:
    """Checksum of every file that is not the ledger, or the page, which tells how long a run took."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".ledger" not in path.parts and path.name != "report.html"
    }


def damage(folder: Path, extension: str, member: str) -> tuple[Path, str, int]:
    """Overwrite one sample's picture or label vector in the middle of the first train tar."""
    tar = sorted((folder / "train").glob("*.tar"))[0]
    samples = read_index(tar.with_suffix(".idx"))
    sample = samples[len(samples) // 2]
    offset = sample[member][0]
    content = bytearray(tar.read_bytes())
    content[offset : offset + 24] = b"not what should be here!"
    tar.write_bytes(content)
    return tar, sample[extension][2].partition(".")[0], sample[extension][0]
