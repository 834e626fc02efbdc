"""One file over HTTP, politely and whole: resumed, checked, and only then under its final name.

Beside a file on its way lie `NAME.part`, the bytes so far, and `NAME.part.from`, the server's name for this version
of the file (its ETag or date), without which a part cannot be continued.
"""

from __future__ import annotations

import email.utils
import gzip
import hashlib
import logging
import random
import re
import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, quote_plus, urlsplit

import httpx2

from specshards.common.errors import JobError, make_folder, naming
from specshards.common.files import publish
from specshards.ingest.catalogue.checksums import ALGORITHMS
from specshards.ingest.limits import MOST_BYTES, too_large
from specshards.ingest.spectra.schema import PROGRAM_VERSION

USER_AGENT = f"specshards/{PROGRAM_VERSION}"
_MISSING = (401, 403, 404, 410)
_LATER = (408, 425, 429, 500, 502, 503, 504)
_FITS, _GZIP, _FITS_BLOCK = b"SIMPLE  =", b"\x1f\x8b", 2880
_RANGE = re.compile(r"bytes ([0-9]+)-([0-9]+)/([0-9]+|\*)")
_LONGEST_WAIT = 3600.0
_LONGEST_BACKOFF = 60.0


@dataclass(frozen=True)
class Policy:
    """How a server is treated.

    Attributes:
        parallel: connections at a time.
        retries: further attempts after a cut connection or a server error.
        timeout: seconds without a byte after which an attempt is given up.
        connect_timeout: seconds to wait for a connection.
        whole_timeout: seconds that one attempt at one file may take, however many bytes still drip.
        pause: least seconds between the starts of two requests.
        backoff: seconds before the first retry; each further one waits twice as long.
        max_file_size: bytes of one file, as sent and uncompressed.
    """

    parallel: int = 4
    retries: int = 4
    timeout: float = 30.0
    connect_timeout: float = 15.0
    whole_timeout: float = 600.0
    pause: float = 0.0
    backoff: float = 1.0
    max_file_size: int = MOST_BYTES


@dataclass(frozen=True)
class Outcome:
    """What became of one file.

    Attributes:
        status: `done`, `kept`, `missing` or `failed`.
        path: the file, where there is one.
        size: its bytes.
        reason: one line, where there is none.
    """

    status: str
    path: Path | None = None
    size: int = 0
    reason: str = ""


class StoppedError(Exception):
    """The job is being stopped; what has arrived stays in its part."""


class BadBodyError(Exception):
    """What arrived is not the file."""


class _AgainError(Exception):
    """This attempt failed and another may not."""


def check_file(path: Path, digest: str | None, most_bytes: int = MOST_BYTES) -> bool:
    """Whether `path` is gzipped, after checking that it is a whole FITS file (or gzipped one) with this checksum.

    A gzip file is read to its end, so that every member's own checksum is compared; FITS files come in blocks of
    2,880 bytes (FITS standard 4.0, section 3.1).

    Raises:
        BadBodyError: it is not.
    """
    with path.open("rb") as source:
        head = source.read(len(_FITS))
        packed = head.startswith(_GZIP)
        if not packed and head != _FITS:
            raise BadBodyError("not a FITS file but a web page" if head.lstrip()[:1] == b"<" else "not a FITS file")
        source.seek(0)
        if digest is not None:
            name = ALGORITHMS[len(digest)]
            if hashlib.file_digest(source, name).hexdigest() != digest:
                raise BadBodyError(f"its {name} is not the one listed")
            source.seek(0)
        try:
            with gzip.GzipFile(fileobj=source) if packed else nullcontext(source) as content:
                begin = content.read(len(_FITS))
                size = len(begin)
                while block := content.read(1 << 20):
                    size += len(block)
                    if size > most_bytes:
                        raise BadBodyError(str(too_large("uncompressed, it has", most_bytes)))
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise BadBodyError(f"damaged gzip: {error}") from error
    if begin != _FITS:
        raise BadBodyError("gzip of something that is not a FITS file")
    if size % _FITS_BLOCK:
        raise BadBodyError(f"a FITS file of {size} bytes, not whole blocks of {_FITS_BLOCK}")
    return packed


def existing(path: Path) -> Path | None:
    """The finished file of this name, gzipped or not, if there is one."""
    bare = path.with_name(path.name.removesuffix(".gz"))
    return next((p for p in (path, bare, bare.with_name(f"{bare.name}.gz")) if p.is_file()), None)


class _Part:
    """The bytes of a file so far, and which version of the file they are of."""

    def __init__(self, final: Path) -> None:
        self.path = final.with_name(f"{final.name}.part")
        self._source = final.with_name(f"{final.name}.part.from")

    def version(self) -> str:
        return self._source.read_text(encoding="latin-1") if self._source.is_file() else ""

    def size(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0

    def drop(self) -> None:
        self.path.unlink(missing_ok=True)
        self._source.unlink(missing_ok=True)

    def begin(self, version: str) -> None:
        # In this order a kill at any moment leaves no bytes beside another version's name.
        self.drop()
        if version:
            self._source.write_text(version, encoding="latin-1")

    def finish(self, final: Path) -> None:
        publish(self.path, final)
        self._source.unlink(missing_ok=True)


class _Gate:
    """When the next request may start: the pause between two, and what the server asked us to wait."""

    def __init__(self, pause: float, stop: threading.Event) -> None:
        self._pause, self._stop = pause, stop
        self._lock, self._next = threading.Lock(), 0.0

    def enter(self) -> None:
        while not self._stop.is_set():
            with self._lock:
                wait = self._next - time.monotonic()
                if wait <= 0:
                    self._next = time.monotonic() + self._pause
                    return
            self._stop.wait(wait)
        raise StoppedError

    def hold(self, seconds: float) -> None:
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)


@dataclass
class Fetcher:
    """Fetches files from one server; safe to use from many threads.

    Args:
        token: sent with every request, and never shown or written anywhere.
    """

    policy: Policy
    token: str | None = field(default=None, repr=False)
    stop: threading.Event = field(default_factory=threading.Event)
    received: int = 0

    def __post_init__(self) -> None:
        """Open the pool of connections."""
        # At a talkative level these print whole addresses, the token in them.
        for name in ("httpx2", "httpcore2"):
            logging.getLogger(name).setLevel(logging.WARNING)
        policy = self.policy
        self._client = httpx2.Client(
            # A body packed for the way would have another length and checksum than the file.
            headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
            timeout=httpx2.Timeout(policy.timeout, connect=policy.connect_timeout, pool=None),
            limits=httpx2.Limits(max_connections=policy.parallel, max_keepalive_connections=policy.parallel),
            follow_redirects=True,
            max_redirects=5,
        )
        self._gate = _Gate(policy.pause, self.stop)
        self._answered = False
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def fetch(self, url: str, final: Path, digest: str | None = None) -> Outcome:
        """Bring `url` to `final`, which appears whole or not at all.

        The name gains or loses `.gz` when the server sends the file the other way round.

        Args:
            digest: md5, sha1 or sha256 that the file must have.

        Raises:
            JobError: the server cannot be reached, or asks to be left alone for long.
            StoppedError: the job is being stopped.
            OSError: the disk is full and the like.
        """
        reason = ""
        make_folder(final.parent)
        for attempt in range(self.policy.retries + 1):
            if attempt:
                wait = min(_LONGEST_BACKOFF, self.policy.backoff * 2 ** (attempt - 1)) * random.uniform(0.5, 1.5)
                if self.stop.wait(wait):
                    raise StoppedError
            self._gate.enter()
            try:
                return self._attempt(url, final, digest, hopeful=attempt < min(1, self.policy.retries))
            except _AgainError as error:
                reason = str(error)
        return Outcome("failed", reason=self._without_token(f"{reason}, {self.policy.retries + 1} times"))

    def _attempt(self, url: str, final: Path, digest: str | None, *, hopeful: bool) -> Outcome:
        part = _Part(final)
        headers = {}
        if (offset := part.size()) and (version := part.version()):
            headers = {"Range": f"bytes={offset}-", "If-Range": version}
        with self._transport(url, hopeful), self._client.stream(
            "GET", url, params={"token": self.token} if self.token else None, headers=headers
        ) as response:  # fmt: skip
            self._answered = True
            if response.status_code == 200:
                part.begin(_version(response.headers))
                total = _number(response.headers.get("Content-Length"))
            elif response.status_code == 206 and headers:
                total = _continued(response.headers, offset, part)
            else:
                return self._refused(response, part)
            try:
                self._receive(response, part, total)
            except BadBodyError as error:
                part.drop()
                return Outcome("failed", reason=str(error))
        return self._finish(part, final, digest)

    @contextmanager
    def _transport(self, url: str, hopeful: bool) -> Iterator[None]:
        """Turn the library's errors into ours; their own texts are not used, for they may hold the address.

        A server that has never answered is given up after one more attempt (`hopeful`), before the next file.
        """
        try:
            yield
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError) as error:
            if not self._answered and not hopeful:
                host = urlsplit(url).hostname
                raise JobError(
                    f"{host} cannot be reached ({type(error).__name__}); check the network, --base, "
                    "or the proxy in HTTPS_PROXY"
                ) from None
            raise _AgainError("no connection") from None
        except httpx2.TimeoutException:
            raise _AgainError(f"no byte for {self.policy.timeout:g} s") from None
        except httpx2.TooManyRedirects:
            raise _AgainError("redirected in circles") from None
        except (httpx2.HTTPError, httpx2.StreamError, httpx2.InvalidURL):
            raise _AgainError("connection cut") from None

    def _refused(self, response: httpx2.Response, part: _Part) -> Outcome:
        status = response.status_code
        if (_number(response.headers.get("Content-Length")) or 1 << 20) < 1 << 16:
            response.read()  # read to the end, the connection can serve the next file
        if status in _LATER:
            if (wait := _retry_after(response.headers.get("Retry-After"))) > _LONGEST_WAIT:
                raise JobError(f"the server asks to wait {wait:.0f} s (HTTP {status}); run the command again then")
            self._gate.hold(wait)
            raise _AgainError(f"HTTP {status}")
        part.drop()
        if status in (206, 416):  # a range that does not fit: what we have is of something else
            raise _AgainError(f"HTTP {status} for a range")
        return Outcome("missing" if status in _MISSING else "failed", reason=f"HTTP {status}")

    def _receive(self, response: httpx2.Response, part: _Part, total: int | None) -> None:
        started, size, most = time.monotonic(), part.size(), self.policy.max_file_size
        if total is not None and total > most:
            raise BadBodyError(str(too_large("it has", most)))
        with naming(part.path), part.path.open("ab") as sink:
            # Raw: what a server calls the encoding of a .fits.gz is the file itself.
            for chunk in response.iter_raw():
                sink.write(chunk)
                size += len(chunk)
                if size > most:
                    raise BadBodyError(str(too_large("it has", most)))
                with self._lock:
                    self.received += len(chunk)
                if self.stop.is_set():
                    raise StoppedError
                if time.monotonic() - started > self.policy.whole_timeout:
                    raise _AgainError(f"not whole after {self.policy.whole_timeout:g} s")
        if total is not None and part.size() != total:
            if part.size() > total:
                part.drop()
            raise _AgainError(f"{part.size()} of {total} bytes")

    def _finish(self, part: _Part, final: Path, digest: str | None) -> Outcome:
        try:
            packed = check_file(part.path, digest, self.policy.max_file_size)
        except BadBodyError as error:
            part.drop()
            # A page will be a page again, and what is too large as large.
            if "not a FITS file" in str(error) or "--max-file-size" in str(error):
                return Outcome("failed", reason=str(error))
            raise _AgainError(str(error)) from None
        bare = final.with_name(final.name.removesuffix(".gz"))
        final = bare.with_name(f"{bare.name}.gz") if packed else bare
        size = part.size()
        part.finish(final)
        return Outcome("done", final, size)

    def _without_token(self, text: str) -> str:
        for secret in {self.token, quote(self.token), quote_plus(self.token)} if self.token else ():
            text = text.replace(secret, "***")
        return text


def _version(headers: Mapping[str, str]) -> str:
    """What If-Range can name: a strong ETag, else the date; a weak ETag does not promise the same bytes."""
    tag = headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified", "")


def _continued(headers: Mapping[str, str], offset: int, part: _Part) -> int | None:
    """The whole size that a 206 tells, when it continues our part of the same version."""
    match = _RANGE.fullmatch(headers.get("Content-Range", "").strip())
    if match is None or int(match[1]) != offset or _version(headers) not in ("", part.version()):
        part.drop()
        raise _AgainError("another range than asked for")
    return _number(match[3])


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() else None


def _retry_after(text: str | None) -> float:
    """Seconds that a Retry-After asks for, given as seconds or as a date; 0 without one."""
    if (seconds := _number(text)) is not None:
        return float(seconds)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text or "").timestamp() - time.time())
    except (TypeError, ValueError):
        return 0.0
