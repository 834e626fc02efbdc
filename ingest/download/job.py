"""`specshards ingest download`: the spectra of a catalogue from the survey's own server, nothing lost.

Threads fetch (`ingest.download.fetch`), this module decides what and keeps the books: every catalogue row ends as one
row of `OUT/download.parquet`. The files themselves are the memory of an interrupted job: a finished one is there
under its final name, and nothing else is.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from specshards.common.errors import BadObjectError, JobError, UsageError
from specshards.common.folder import locked

if TYPE_CHECKING:
    from specshards.ingest.catalogue.checksums import Checksums
    from specshards.ingest.catalogue.rows import Rows
    from specshards.ingest.download.fetch import Fetcher, Outcome, Policy
    from specshards.ingest.download.ledger import DownloadLedger
    from specshards.ingest.surveys.addresses import Scheme

TOKEN_VARIABLE = "SPECSHARDS_LAMOST_TOKEN"
RECORD = "download.parquet"
_MOST_PARALLEL = 32


def command(
    survey: Annotated[str, typer.Option(help="Whose spectra: lamost or sdss.")],
    catalog: Annotated[Path, typer.Option(help="The spectra wanted: CSV (also with |), FITS or Parquet.")],
    out: Annotated[Path, typer.Option(help="Folder for the files, in the survey's own tree, and the record.")],
    release: Annotated[
        str | None, typer.Option(help="Data release, such as dr17 or dr10/v2.0. Default: that of the reduction.")
    ] = None,
    base: Annotated[str | None, typer.Option(help="Address of a mirror that the survey's paths are below.")] = None,
    token: Annotated[
        str | None,
        typer.Option(envvar=TOKEN_VARIABLE, help="Your LAMOST token. Best given in the environment."),
    ] = None,
    parallel: Annotated[int, typer.Option(help="Connections at a time; be kind to the server.")] = 4,
    limit: Annotated[int | None, typer.Option(help="Only the first rows of the catalogue.")] = None,
    checksums: Annotated[
        list[Path] | None, typer.Option(help="List as sha1sum or md5sum write; give it again for more lists.")
    ] = None,
    verify: Annotated[bool, typer.Option(help="Check the files that are there already, and mend them.")] = False,
    pause: Annotated[float, typer.Option(help="Least seconds between two requests.")] = 0.0,
    retries: Annotated[int, typer.Option(help="Further attempts after a server error or a cut connection.")] = 4,
    timeout: Annotated[float, typer.Option(help="Seconds without a byte before an attempt is given up.")] = 30.0,
    max_file_size: Annotated[
        str | None, typer.Option(help="Of one file, uncompressed, such as 2GB. [512MiB]")
    ] = None,
    max_bad_fraction: Annotated[
        float, typer.Option(help="Fail when more than this share of rows is missing or failed; 1 never stops.")
    ] = 0.05,
) -> None:
    """Download the spectra that a catalogue lists, from the survey's server.

    SDSS needs the columns plate, mjd, fiberid, run2d (or specobjid); SDSS-V
    field, mjd, catalogid, run2d; LAMOST obsdate, planid, lmjd, spid, fiberid,
    or obsid; in any case. Run the same command again and it goes on: finished
    files are kept, cut ones are continued. OUT/download.parquet has one row
    for every row of the catalogue.

    specshards ingest download --survey sdss --catalog specObj-dr17.fits
    --out data/sdss --limit 10000 --checksums lite.sha1sum

    SPECSHARDS_LAMOST_TOKEN=... specshards ingest download --survey lamost
    --catalog stellar.csv --release dr10/v2.0 --out data/lamost

    Then: specshards ingest build --survey sdss --data data/sdss --out OUT
    """
    from specshards.ingest.download.fetch import Policy
    from specshards.ingest.limits import MOST_BYTES, parse_size

    if not 1 <= parallel <= _MOST_PARALLEL:
        raise UsageError(f"PARALLEL={parallel}: give 1 to {_MOST_PARALLEL} connections")
    if limit is not None and limit < 1:
        raise UsageError(f"LIMIT={limit}: give a number of rows")
    if pause < 0 or retries < 0 or timeout <= 0:
        raise UsageError("PAUSE and RETRIES cannot be negative, TIMEOUT must be above 0")
    download(
        survey, catalog, out, release=release, base=base, token=token or None, limit=limit,
        checksums=checksums or (), verify=verify, max_bad_fraction=max_bad_fraction,
        policy=Policy(
            parallel=parallel, retries=retries, timeout=timeout, pause=pause,
            max_file_size=MOST_BYTES if max_file_size is None else parse_size(max_file_size),
        ),
    )  # fmt: skip


@dataclass
class DownloadJob:
    """One file on its way.

    Attributes:
        rows: number (from 0) and key of each catalogue row that names the file.
        path: where the file will be.
        digest: the checksum it must have.
        there: the finished file to check first (`--verify`).
    """

    rows: list[tuple[int, str]]
    url: str
    path: Path
    digest: str | None
    there: Path | None = None


def download(
    survey: str,
    catalogue: Path,
    out: Path,
    *,
    policy: Policy,
    release: str | None = None,
    base: str | None = None,
    token: str | None = None,
    limit: int | None = None,
    checksums: tuple[Path, ...] | list[Path] = (),
    verify: bool = False,
    max_bad_fraction: float = 0.05,
) -> Counter[str]:
    """Download the files that the rows of `catalogue` name; return the number of rows by status.

    Statuses: `done` now, `kept` from before, `missing` on the server (HTTP 401, 403, 404, 410), `failed`.

    Raises:
        UsageError: wrong arguments, or a catalogue without the columns or with ids that may have been rounded.
        JobError: the server cannot be reached or is in trouble, or too many rows are missing or failed.
    """
    from specshards.ingest.catalogue.checksums import DIGEST_COLUMNS, Checksums
    from specshards.ingest.catalogue.rows import open_rows
    from specshards.ingest.download.addresses import choose
    from specshards.ingest.download.fetch import Fetcher
    from specshards.ingest.download.ledger import DownloadLedger
    from specshards.ingest.spectra.schema import PROGRAM_VERSION

    rows = open_rows(catalogue)
    scheme = choose(survey, rows.columns, base=base, release=release, token=token is not None)
    digests = [c for name in DIGEST_COLUMNS for c in rows.columns if c.strip().lower() == name][:1]
    listed = Checksums(list(checksums))
    _check_ids(rows, scheme, catalogue, limit)
    config = {
        "survey": survey, "catalogue": str(catalogue), "layout": scheme.layout, "base": base, "release": release,
        "program_version": PROGRAM_VERSION,
    }  # fmt: skip
    fetcher = Fetcher(policy, token if scheme.takes_token else None)
    with (
        locked(out / ".download.lock", out),
        DownloadLedger(out / RECORD, survey, rows.total, limit, config) as record,
    ):
        jobs = _jobs(rows, scheme, digests, listed, out, limit, verify, record)
        _run(jobs, fetcher, record, patient=max_bad_fraction >= 1)
    record.print_summary(fetcher.received, out)
    total, bad = record.counts.total(), record.counts["missing"] + record.counts["failed"]
    if not total:
        raise UsageError(f"{catalogue}: no rows")
    if bad > max_bad_fraction * total:
        raise JobError(
            f"{bad} of {total} rows are missing or failed, over --max-bad-fraction {max_bad_fraction:g} "
            f"(mostly: {record.reasons.most_common(1)[0][0]}); see {out / RECORD}"
        )
    return record.counts


#: Columns of a catalogue whose numbers are too long for a float.
_LONG = ("specobjid", "catalogid", "obsid")


def _check_ids(rows: Rows, scheme: Scheme, catalogue: Path, limit: int | None) -> None:
    """Before anything is fetched: a rounded id is the address of another object."""
    from specshards.ingest.ids import id_texts

    columns = [spelling for name, spelling in scheme.columns.items() if name in _LONG]
    seen = 0
    for table in rows.tables(columns) if columns else ():
        for name in columns:
            id_texts(table[name][: None if limit is None else limit - seen], name, catalogue)
        seen += len(table)
        if limit is not None and seen >= limit:
            return


def _jobs(
    rows: Rows, scheme: Scheme, digests: list[str], listed: Checksums, out: Path, limit: int | None, verify: bool,
    record: DownloadLedger,
) -> Iterator[DownloadJob]:  # fmt: skip
    """The rows that need the network; the others go to the books at once."""
    from specshards.ingest.catalogue.checksums import digest
    from specshards.ingest.download.fetch import existing

    for number, values in enumerate(islice(_each(rows, scheme, digests), limit)):
        try:
            address = scheme.address(values)
            wanted = digest(values["digest"]) or listed.of(address.path)
        except BadObjectError as error:
            record.enter(number, None, "failed", reason=error.reason)
            continue
        except ValueError as error:
            record.enter(number, None, "failed", reason=f"checksum {error}")
            continue
        path = out / address.path
        there = existing(path)
        if there is not None and not verify:
            record.enter(number, address.key, "kept", there, there.stat().st_size)
        else:
            yield DownloadJob([(number, address.key)], address.url, path, wanted, there)


def _each(rows: Rows, scheme: Scheme, digests: list[str]) -> Iterator[dict[str, Any]]:
    names = {**scheme.columns, **({"digest": digests[0]} if digests else {})}
    for batch in rows.batches(list(dict.fromkeys(names.values()))):
        columns = [batch[spelling] for spelling in names.values()]
        for values in zip(*columns, strict=True):
            yield {"digest": None, **dict(zip(names, values, strict=True))}


def _run(jobs: Iterator[DownloadJob], fetcher: Fetcher, record: DownloadLedger, *, patient: bool) -> None:
    """Let threads work off the jobs; return when the books have every row.

    Args:
        patient: go on however many files are missing or failed.
    """
    crew = _Crew(fetcher)
    under_way: dict[Path, DownloadJob] = {}

    def collect() -> None:
        job, outcome = crew.next()
        del under_way[job.path]
        record.enter_outcome(job.rows, outcome, fetcher.received)
        if not patient:
            record.check_server()

    try:
        for job in jobs:
            if (twin := under_way.get(job.path)) is not None:  # two threads must not write one file
                twin.rows += job.rows
                continue
            while len(under_way) >= 2 * fetcher.policy.parallel:
                collect()
            under_way[job.path] = job
            crew.give(job)
        while under_way:
            collect()
    finally:
        crew.dismiss()


class _Crew:
    """Threads that fetch. Daemons, so that one that waits for a silent server does not hold up the end."""

    def __init__(self, fetcher: Fetcher) -> None:
        self._fetcher = fetcher
        self._todo: queue.SimpleQueue[DownloadJob | None] = queue.SimpleQueue()
        self._finished: queue.SimpleQueue[tuple[DownloadJob, Outcome | BaseException]] = queue.SimpleQueue()
        count = fetcher.policy.parallel
        self._threads = [threading.Thread(target=self._work, daemon=True, name=f"fetch-{i}") for i in range(count)]
        for thread in self._threads:
            thread.start()

    def give(self, job: DownloadJob) -> None:
        self._todo.put(job)

    def next(self) -> tuple[DownloadJob, Outcome]:
        job, outcome = self._finished.get()
        if isinstance(outcome, BaseException):
            raise outcome
        return job, outcome

    def dismiss(self) -> None:
        """Stop the threads; those in the middle of a file leave its part."""
        self._fetcher.stop.set()
        for _ in self._threads:
            self._todo.put(None)
        deadline = time.monotonic() + 2
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        if not any(thread.is_alive() for thread in self._threads):
            self._fetcher.close()

    def _work(self) -> None:
        from specshards.ingest.download.fetch import StoppedError

        while (job := self._todo.get()) is not None:
            try:
                self._finished.put((job, self._one(job)))
            except StoppedError:
                return
            except BaseException as error:
                self._finished.put((job, error))
                return

    def _one(self, job: DownloadJob) -> Outcome:
        from specshards.ingest.download.fetch import BadBodyError, Outcome, check_file

        if job.there is not None:
            try:
                check_file(job.there, job.digest)
                return Outcome("kept", job.there, job.there.stat().st_size)
            except BadBodyError:
                job.there.unlink()
        return self._fetcher.fetch(job.url, job.path, job.digest)
