"""`report.html` of a data set: when it is made, and that no job fails over it. `shards.report.page` is its text."""

from __future__ import annotations

from pathlib import Path

from specshards.common.errors import JobError, UsageError, shortened
from specshards.common.files import is_remote, is_web, location, write_text
from specshards.common.messages import LOGGER
from specshards.shards.format.manifest import PAGE, Manifest


def make_page(out: str | Path) -> None:
    """Make the page at the end of a job, unless the one there is of these very shards.

    The data set is finished before: whatever goes wrong here is told in one line, and nothing is raised.
    """
    folder = location(out)
    try:
        if not is_remote(folder) and is_current(folder):
            return
        LOGGER.info(write_page(folder))
    except Exception as error:  # a finished data set must not fail of its page
        why = shortened(error, 300) or type(error).__name__
        LOGGER.warning(f"no {folder / PAGE}: {why}")


def is_current(folder: Path) -> bool:
    """Whether there is a page, of the data set that is in the folder now."""
    try:
        with (folder / PAGE).open(encoding="utf-8") as file:
            return Manifest.load(folder).fingerprint() in file.read(4096)
    except (OSError, UnicodeDecodeError, UsageError, JobError):
        return False


def write_page(folder: Path, spectra: Path | None = None, out: Path | None = None) -> Path:
    """Write the page, and return its path. One of other shards is gone even where that fails.

    Args:
        folder: the data set; of one elsewhere the tables beside the tars pass through the cache (`common.cache`).
        spectra: where the Parquet is that pictures were drawn from; where it was, unless given.
        out: the page; `report.html` in the folder unless given.

    Raises:
        UsageError: no data set there. JobError: it is damaged, or its folder cannot be written to.
    """
    # What draws takes its time to import: only where a page is made.
    from specshards.shards.report.page import page

    manifest = Manifest.load(folder)
    if out is None and is_web(folder):
        raise UsageError(f"{folder}: a web server takes no page; say with --out where it is to be")
    out = out or folder / PAGE
    try:
        if not is_remote(folder) and not is_current(folder):
            (folder / PAGE).unlink(missing_ok=True)
        text = page(folder, manifest, spectra)
        write_text(out, text)
    except PermissionError as error:
        raise JobError(f"{out}: {shortened(error)}; give another place with --out") from error
    return out
