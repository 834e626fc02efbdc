"""A folder of survey files as it may lie on a disk: links, pipes, closed files and names that are no text."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from tests.oracles.survey_files import lamost_table

#: Names of good files that a terminal, JSON, Parquet or HTML may stumble over, and how they are shown.
ODD_NAMES = {
    b"latin-\xe9\xff.fits": "latin-\\xe9\\xff.fits",
    b"two\nlines.fits": "two\\nlines.fits",
    b"100%s %d.fits": "100%s %d.fits",
    b"red\x1b[31m.fits": "red\\x1b[31m.fits",
    b"<script>alert(1)<&.fits": "<script>alert(1)<&.fits",
    b"back\\slash.fits": "back\\\\slash.fits",
    "h\u00e9\u202e\u00a0.fits".encode(): "h\u00e9\\u202e\\u00a0.fits",
    b"-n --help.fits": "-n --help.fits",
    b'$a$ "quoted".fits': '$a$ "quoted".fits',
}

#: What is no file, or cannot be read, and why.
NO_FILES = {
    "notes.txt": "a link that leads nowhere",
    "loop.fits": "a link that cannot be followed",
    "circle": "a link that cannot be followed",
    "dangling.fits": "a link that leads nowhere",
    "unmounted": "a link that leads nowhere",
    "pipe.fits": "a pipe, not a file",
    "plug.fits": "a socket, not a file",
    "empty_folder.fits": "a folder, not a file",
    "below/back": "a link back to a folder that it lies in",
    "below/up": "a link back to a folder that it lies in",
    "gone.parquet": "a link that leads nowhere",
    "pipe.parquet": "a pipe, not a file",
}
#: Only for who is not root.
CLOSED = {"closed.fits": "no permission to read it", "closed_folder": "a folder that cannot be listed"}


def hostile_folder(folder: Path, closed: bool = False) -> Path:
    """Good files under `ODD_NAMES`, in `deep.fits/` and behind a link; and all of `NO_FILES`.

    Args:
        closed: and what is `CLOSED`.
    """
    folder.mkdir()
    for number, name in enumerate(ODD_NAMES):
        _good(folder / os.fsdecode(name), number)
    (folder / "below").mkdir()
    (folder / "deep.fits").mkdir()
    _good(folder / "deep.fits" / "one.fits", 100)
    elsewhere = folder.with_name(f"{folder.name}_elsewhere")
    elsewhere.mkdir()
    _good(elsewhere / "two.fits", 101)
    (folder / "linked").symlink_to(elsewhere)
    (folder / "loop.fits").symlink_to("loop.fits")
    (folder / "circle").symlink_to("circle")
    (folder / "dangling.fits").symlink_to("nothing.fits")
    (folder / "gone.parquet").symlink_to("nothing.parquet")
    (folder / "unmounted").symlink_to("nothing")
    (folder / "notes.txt").symlink_to("nothing.txt")
    (folder / "below" / "back").symlink_to("..")
    (folder / "below" / "up").symlink_to("../..")
    (folder / "empty_folder.fits").mkdir()
    os.mkfifo(folder / "pipe.fits")
    os.mkfifo(folder / "pipe.parquet")
    here = Path.cwd()
    os.chdir(folder)  # the path of a socket has 107 bytes at most
    try:
        with socket.socket(socket.AF_UNIX) as plug:
            plug.bind("plug.fits")
    finally:
        os.chdir(here)
    if closed:
        _good(folder / "closed.fits", 102)
        (folder / "closed.fits").chmod(0)
        (folder / "closed_folder").mkdir()
        _good(folder / "closed_folder" / "never.fits", 103)
        (folder / "closed_folder").chmod(0)
    return folder


def _good(path: Path, number: int) -> None:
    lamost_table(path, OBSID=800_000 + number, RA=10.0 + number)
