"""Whether an ingest has ended well: its spectra are used only then.

A job takes the summary of an earlier one away when it begins, and writes its own when it has judged what it made.
What was refused says so in it. Parquet that lies elsewhere, without an ingest folder beside it, is its user's.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from specshards.common.errors import UsageError
from specshards.common.files import is_remote
from specshards.common.json import parse

#: Of an ingest's output: what it is made from, what it came to, and the files of its parts.
CLAIM, SUMMARY, WORK = "ingest/config.json", "ingest/summary.json", ("spectra/[!.]*",)


def read_summary(out: Path) -> dict[str, Any] | None:
    """The content of a summary; None where there is none that can be read."""
    try:
        content = parse((out / SUMMARY).read_text(encoding="utf-8"), nan=True)
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def check_ended(files: Iterable[Path]) -> None:
    """Refuse spectra Parquet in the output of an ingest that was refused, was killed, or is at work.

    Raises:
        UsageError: names the folder.
    """
    for folder in sorted({file.parent.resolve() for file in files if not is_remote(file)}):
        out = folder.parent
        if folder.name != "spectra" or not any((out / name).exists() for name in (CLAIM, "ingest/plan.parquet")):
            continue
        summary = read_summary(out)
        if summary is None:
            raise UsageError(f"{folder}: the ingest in {out} did not end: run it again")
        if (why := summary.get("refused")) is not None or not (out / CLAIM).exists():
            words = f" ({str(why)[:200]})" if why is not None else ""
            raise UsageError(f"{folder}: the ingest in {out} was refused{words}: mend that and run it again")
