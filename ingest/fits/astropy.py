"""The slow and sure parser: FITS through astropy, with the checks that it does not make itself."""

from __future__ import annotations

import mmap
import re
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt

from specshards.common.errors import BadObjectError
from specshards.ingest.fits.hdu import BLOCK, CARD, IMAGE_DTYPES, Content, Hdu, HeaderLike, is_empty
from specshards.ingest.limits import check_array

#: Number of the HDU, where its data start, their bytes, the header's DATASUM.
CheckData = Callable[[int, int, int, Any], None]

_CUT_SHORT = "file cut short: fewer bytes than its headers promise"
_ENDLESS = re.compile(rb"(?:NAXIS|TFIELDS) *= *\d{4,}|(?:NAXIS\d*|[PG]COUNT|TFIELDS) *= *-\d+")


def open_with_astropy(content: Content, check_data: CheckData) -> list[Hdu]:
    """The HDUs of a FITS file as astropy sees them.

    Args:
        check_data: called once for each HDU whose data are read.

    Raises:
        BadObjectError: cut short, or with a header that contradicts the file.
    """
    from astropy.io import fits
    from astropy.utils.exceptions import AstropyUserWarning

    # Over such headers astropy loops for ever: it goes through all axes and columns promised (the standard allows
    # 999) and, where a size is negative, back to the header that it has just read.
    for match in _ENDLESS.finditer(content):
        if match.start() % CARD == 0:
            raise BadObjectError(f"impossible header: {' '.join(match[0].decode().split())}")
    length = len(content)
    stream: Any = content
    if length % BLOCK or not isinstance(content, mmap.mmap):
        check_array(length)
        stream = BytesIO(content if length % BLOCK == 0 else bytes(content).ljust(length + -length % BLOCK, b"\0"))
    stream.seek(0)
    with quiet_astropy():
        # A file cut short still opens with only this warning; its missing pixels must not read as data.
        warnings.filterwarnings("error", message=".*may have been truncated.*")
        try:
            # Compressed images as the tables that they are stored as: these are what a header's sizes are of.
            hdus = fits.open(stream, memmap=False, lazy_load_hdus=False, disable_image_compression=True)
        except AstropyUserWarning as error:
            raise BadObjectError(_CUT_SHORT) from error
    for index, hdu in enumerate(hdus):
        header = hdu.header
        is_table = header.get("XTENSION") == "BINTABLE"
        if (
            header["BITPIX"] not in IMAGE_DTYPES
            or header.get("GCOUNT", 1) != 1
            or (header.get("PCOUNT", 0) and not is_table)
        ):
            # Such a header swallows the HDUs behind it, and nobody would miss a mask.
            raise BadObjectError(f"HDU {index}: impossible BITPIX, PCOUNT or GCOUNT")
    last = hdus[-1].fileinfo()
    size = _data_size(hdus[-1])
    if size and last["datLoc"] + size > length:
        raise BadObjectError(_CUT_SHORT)
    if not is_empty(content, last["datLoc"] + last["datSpan"]):
        raise BadObjectError(f"no header after HDU {len(hdus) - 1}: one of its sizes is wrong")

    def unpacked(index: int) -> Any:
        """The HDU as the image that it is a compressed form of."""
        stream.seek(0)
        return fits.open(stream, memmap=False)[index]

    return [AstropyHdu(index, hdu, check_data, unpacked) for index, hdu in enumerate(hdus)]


class AstropyHdu:
    """An `Hdu` as astropy reads it."""

    def __init__(self, index: int, hdu: Any, check_data: CheckData, unpacked: Callable[[int], Any]) -> None:
        self._index, self._stored, self._check_data = index, hdu, check_data
        self._is_packed = hdu.header.get("ZIMAGE") is True
        with quiet_astropy():
            self._hdu = unpacked(index) if self._is_packed else hdu
        self.header: HeaderLike = self
        self._is_table = self._hdu.header.get("XTENSION") in ("BINTABLE", "TABLE")
        self._checked = False

    def get(self, key: str, default: Any = None) -> Any:
        """See `HeaderLike`."""
        from astropy.io.fits.card import Undefined

        value = self._hdu.header.get(key, default)
        return None if isinstance(value, Undefined) else value

    @property
    def shape(self) -> tuple[int, ...]:
        """See `Hdu`."""
        return (int(self.get("NAXIS2", 0)),) if self._is_table else tuple(getattr(self._hdu, "shape", ()))

    @property
    def names(self) -> frozenset[str]:
        """See `Hdu`."""
        if not self._is_table:
            return frozenset()
        fields = self.get("TFIELDS", 0)  # FITS standard 4.0, section 7.3.1
        if not isinstance(fields, int) or not 0 <= fields <= 999:
            raise BadObjectError(f"HDU {self._index}: TFIELDS = {fields!r}; a table has 999 columns at most")
        found = (self.get(f"TTYPE{i + 1}") for i in range(fields))
        return frozenset(str(name).lower() for name in found if name is not None)

    def image(self) -> npt.NDArray[Any]:
        """See `Hdu`; BadObjectError without one."""
        with quiet_astropy():
            if self._is_table or not self.shape:
                raise BadObjectError(f"HDU {self._index} has no image")
            self._check()
            return np.asarray(self._hdu.data)

    def column(self, name: str) -> npt.NDArray[Any]:
        """See `Hdu`."""
        with quiet_astropy():
            if name.lower() not in self.names:
                raise KeyError(name)
            self._check()
            if self._hdu.data is None:
                raise KeyError(name)
            values = np.asarray(self._hdu.data[name])
            absent = masked(self._hdu.data, self._hdu.columns[name])
            return values if absent is None else np.ma.MaskedArray(values, absent)

    def _check(self) -> None:
        if not self._checked:
            info, header = self._stored.fileinfo(), self._stored.header
            size = _data_size(self._stored)
            # Astropy takes a copy, and 64-bit floats for scaled integers; a compressed image has what it promises.
            check_array(size)
            if self._is_packed:
                most = 8 * int(np.prod(self.shape, dtype=object))
                check_array(most)
                _check_tiles(self._stored, most)
            if header.get("XTENSION") == "BINTABLE" and header["NAXIS1"] != self._stored.columns.dtype.itemsize:
                raise BadObjectError(f"HDU {self._index}: NAXIS1 is not the width of its columns")
            self._check_data(self._index, info["datLoc"], size, header.get("DATASUM"))
            self._checked = True


def masked(rows: Any, column: Any) -> npt.NDArray[np.bool_] | None:
    """Where a table column says that it has no value; None: nowhere. astropy's rows have 999999 and False there.

    Args:
        rows: a `FITS_rec`. column: its `fits.Column`: TNULL counts for integers as they are stored, 0 for truths.
    """
    is_truth = column.format.lstrip("0123456789").startswith("L")
    if not is_truth and (not isinstance(column.null, int | np.integer) or isinstance(column.null, bool)):
        return None
    stored = rows.view(np.ndarray)[column.name]
    if stored.dtype.kind not in "iu":
        return None
    absent = np.asarray(stored == (0 if is_truth else int(column.null)), np.bool_)
    return absent if absent.any() else None


@contextmanager
def quiet_astropy() -> Iterator[None]:
    """An odd header is no news to the user: what cannot be read from it has a reason of its own."""
    from astropy.utils.exceptions import AstropyWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyWarning)
        yield


def _check_tiles(stored: Any, most: int) -> None:
    """BadObjectError where a tile unpacks to more than the whole image: astropy would have it all in memory."""
    for name in {"COMPRESSED_DATA", "GZIP_COMPRESSED_DATA"} & set(stored.columns.names):
        for tile in map(bytes, stored.data[name]):
            if tile.startswith(b"\x1f\x8b") and len(zlib.decompressobj(31).decompress(tile, most + 1)) > most:
                raise BadObjectError("a compressed image has a tile that is larger than all of it")


def _data_size(hdu: Any) -> int:
    header = hdu.header
    axes = [int(header[f"NAXIS{i + 1}"]) for i in range(int(header["NAXIS"]))]
    pixels = int(np.prod(axes, dtype=object)) if axes else 0
    return abs(int(header["BITPIX"])) // 8 * int(header.get("GCOUNT", 1)) * (pixels + int(header.get("PCOUNT", 0)))
