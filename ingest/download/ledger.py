"""What became of every row of a catalogue: the record of a download, its counts, its progress line."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from specshards.common.errors import JobError
from specshards.common.files import publish
from specshards.common.messages import LOGGER
from specshards.ingest.download.fetch import Outcome

_FLUSH_ROWS = 10_000
#: Failures in a row after which the server is taken to be in trouble.
_STREAK = 50
#: Files asked for without a single one being there, after which the address is taken to be wrong.
_NONE_THERE = 1000


class DownloadLedger:
    """The record, the counts and the progress line of one job.

    Used in a `with`: at its end the record appears whole, or not at all when an exception ends it.

    Args:
        path: of the record; the files of its rows lie beside and below it.
        total: rows of the catalogue, where known.
        limit: rows wanted of them.
        config: goes into the metadata of the record; never a token.

    Attributes:
        counts: rows by status.
        reasons: rows by why they are missing or failed.
    """

    def __init__(
        self, path: Path, survey: str, total: int | None, limit: int | None, config: Mapping[str, Any]
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self._path, self._survey, self._config = path, survey, config
        self._total = limit if total is None else min(total, limit or total)
        self._buffer: list[dict[str, Any]] = []
        self._streak, self._asked, self._good, self._last = 0, 0, False, ""
        self._started = time.monotonic()

    def __enter__(self) -> DownloadLedger:
        """Open the record under a temporary name, and show the progress line."""
        self._schema = pa.schema(
            [
                pa.field("row", pa.int64(), nullable=False), ("id", pa.string()), ("path", pa.string()),
                pa.field("status", pa.string(), nullable=False), ("bytes", pa.int64()), ("reason", pa.string()),
            ],
            metadata={f"specshards.{name}": str(value) for name, value in self._config.items()},
        )  # fmt: skip
        self._temporary = self._path.with_name(f".{self._path.name}.tmp")
        self._writer = pq.ParquetWriter(self._temporary, self._schema, compression="zstd")
        self._bar = tqdm(
            total=self._total, desc=f"download {self._survey}", unit="file", smoothing=0.1, file=sys.stderr,
            mininterval=0.2 if sys.stderr.isatty() else 10.0,
        )  # fmt: skip
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        """Publish the record, or remove it when the job did not come to its end."""
        self._bar.close()
        try:
            if kind is None:
                self._flush()
            self._writer.close()
            if kind is None:
                publish(self._temporary, self._path)
        finally:
            self._temporary.unlink(missing_ok=True)

    def enter(
        self, row: int, key: str | None, status: str, path: Path | None = None, size: int | None = None,
        reason: str | None = None,
    ) -> None:  # fmt: skip
        """One row of the catalogue is accounted for."""
        relative = None if path is None else path.relative_to(self._path.parent).as_posix()
        self._buffer.append(
            {"row": row, "id": key, "path": relative, "status": status, "bytes": size, "reason": reason}
        )
        self.counts[status] += 1
        self._good = self._good or status in ("done", "kept")
        if reason:
            # Numbers apart, many reasons are one; the table at the end must stay short.
            self.reasons[reason if len(self.reasons) < 1000 else "other"] += 1
        if len(self._buffer) >= _FLUSH_ROWS:
            self._flush()
        self._bar.update()

    def enter_outcome(self, named: Sequence[tuple[int, str]], outcome: Outcome, received: int) -> None:
        """A file is settled, and with it every row that names it.

        Args:
            named: number and key of these rows.
            received: bytes that the job has received so far.
        """
        self._asked += 1
        self._streak = self._streak + 1 if outcome.status == "failed" else 0
        self._last = outcome.reason
        size, reason = (outcome.size if outcome.path else None), outcome.reason or None
        again = "kept" if outcome.status == "done" else outcome.status
        for status, (row, key) in zip(chain([outcome.status], repeat(again)), named, strict=False):
            self.enter(row, key, status, outcome.path, size, reason)
        rate = received / 1e6 / max(1e-3, time.monotonic() - self._started)
        trouble = "".join(f", {self.counts[name]} {name}" for name in ("missing", "failed") if self.counts[name])
        self._bar.set_postfix_str(f"{rate:.2f} MB/s{trouble}", refresh=False)

    def check_server(self) -> None:
        """Stop rather than ask a server in trouble, or at a wrong address, for millions of files.

        Raises:
            JobError: too many failures in a row, or nothing there at all.
        """
        if self._streak >= _STREAK:
            raise JobError(
                f"the last {self._streak} files all failed ({self._last}); run the same command again later, "
                "or with --max-bad-fraction 1 to go on regardless"
            )
        if not self._good and self._asked >= _NONE_THERE:
            raise JobError(
                f"none of the first {self._asked} files is there ({self._last}); check --release, --base and the "
                "token, or go on regardless with --max-bad-fraction 1"
            )

    def print_summary(self, received: int, out: Path) -> None:
        """Counts that add up to the rows of the catalogue, and why rows are missing or failed."""
        for reason, count in self.reasons.most_common(10):
            LOGGER.info(f"{count:>10,}  {reason}")
        parts = " + ".join(f"{self.counts[name]:,} {name}" for name in ("done", "kept", "missing", "failed"))
        LOGGER.info(
            f"{self.counts.total():,} rows = {parts}; {received / 1e6:,.1f} MB in {out}, record {self._path.name}"
        )

    def _flush(self) -> None:
        self._writer.write_table(pa.Table.from_pylist(self._buffer, self._schema))
        self._buffer = []
