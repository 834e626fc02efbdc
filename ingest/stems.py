"""Names of files as names of objects: without their ends, and with their folders where they would repeat."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

_ENDS = re.compile(r"(\.(gz|fits?|fts|csv|tsv|txt|dat|ascii|ecsv|vot|xml|npz|parquet|hdf5|h5))+$", re.IGNORECASE)
_KNOWN_ENDS = frozenset(
    (
        "gz",
        "fit",
        "fits",
        "fts",
        "csv",
        "tsv",
        "txt",
        "dat",
        "ascii",
        "ecsv",
        "vot",
        "xml",
        "npz",
        "parquet",
        "hdf5",
        "h5",
    )
)
#: Folders of a name that are compared.
DEEPEST = 9


def stem_of(name: str | None, depth: int = 1) -> str | None:
    """The name of a file without its ends, and with the last `depth` - 1 of its folders, joined by `/`."""
    if name is None:
        return None
    if depth == 1 and "\\" not in name:
        name = name[name.rfind("/") + 1 :]
    else:
        name = "/".join(re.split(r"[/\\]", name)[-depth:])
    if not name.isascii() or not name.isprintable():
        return _ENDS.sub("", name)
    # The same, several times as fast: there are millions of names.
    while (dot := name.rfind(".")) >= 0 and name[dot + 1 :].lower() in _KNOWN_ENDS:
        name = name[:dot]
    return name


def depth_of(files: Sequence[str]) -> int:
    """The least `depth` at which no `stem_of` stands for files in two folders; 1 where none does."""
    whole = len({stem_of(file, DEEPEST) for file in files})
    return next((d for d in range(1, DEEPEST) if len({stem_of(file, d) for file in files}) == whole), DEEPEST)


def repeated(files: Sequence[str]) -> frozenset[str]:
    """The files whose name alone is that of a file in another folder, too: `s1/spectrum.csv`, `s2/spectrum.csv`."""
    counts = Counter(stem_of(whole) for whole in {stem_of(file, DEEPEST) for file in files})
    return frozenset(file for file in files if counts[stem_of(file)] > 1)


def with_folder(object_id: str, file: str) -> str:
    """The id of an object that is named by its file, with the folder: `s1/spectrum`; another id as it is.

    Args:
        file: its path below DATA.
    """
    folder, _, _ = file.rpartition("/")
    stem = stem_of(file) or ""
    is_named = object_id == stem or re.fullmatch(re.escape(stem) + r"-\d+", object_id) is not None
    return f"{folder}/{object_id}" if folder and is_named else object_id
