"""How a sample lies in a tar: an open registry of encodings behind one interface.

`png`   the renderer's code array, lossless: one pixel per flux bin for map2d, the picture itself for the line images.
`pnm`   the same array behind a header of fixed length, for loading without a decoder.
`lz4`   `pnm` in one LZ4 block, which DALI inflates on a GPU and any processor in microseconds.
`jpeg`  the full-size RGB picture, 4:4:4, for hardware decoders and for other people's tools.
`flux`  the spectrum itself; the loader draws any picture of it.
"""

from __future__ import annotations

import struct
import zlib
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg

from specshards.common.registry import Registry
from specshards.common.spectrum import Arrays, Grid
from specshards.render import Renderer
from specshards.shards.format import flux, lz4
from specshards.shards.format.png import encode_png

Codes = npt.NDArray[np.uint8]
Payload = bytes | Codes


class Encoding(ABC):
    """One encoding of one picture; made once, used for many samples, also from several threads.

    Attributes:
        about: one line for people.
        needs_picture: it stores the picture; else the spectrum itself, and codes are not looked at.
        lossless: `decode` gives what was encoded, bit for bit.
        full_size: `decode` gives the RGB picture; else what the renderer's `expand` makes it from.
        dali: DALI's image decoder reads it to the same bits as `decode`; else only `decode` does.
        inflates: `block` gives LZ4 that a GPU inflates to `head` and the array.
        media_type: under which a browser shows a full-size picture as it is stored; None where it cannot.
        extension: of the sample's member.
        shape: of the uint8 array that `decode` gives; None where it gives a spectrum, still to be drawn.
        header: what comes before the array's own bytes, the same in every sample; None where they must be decoded.
    """

    about: ClassVar[str]
    needs_picture: ClassVar[bool] = True
    lossless: ClassVar[bool] = True
    full_size: ClassVar[bool] = False
    dali: ClassVar[bool] = False
    inflates: ClassVar[bool] = False
    media_type: ClassVar[str | None] = None
    extension: str
    shape: tuple[int, ...] | None
    header: bytes | None = None
    head: bytes = b""

    def __init__(self, drawer: Renderer, quality: int = 95) -> None:
        """For the pictures of `drawer`; `quality` is that of JPEG, 90 to 100."""
        self.drawer, self.quality = drawer, quality
        self.shape = drawer.code_shape if self.needs_picture else None
        if self.full_size:
            self.shape = (drawer.config.size, drawer.config.size, 3)

    @classmethod
    def becomes(cls, other: type[Encoding]) -> bool:
        """Whether samples can be stored in another encoding: only what is not lost can be encoded anew."""
        if cls is other or not cls.needs_picture:
            return True
        return other.needs_picture and cls.lossless and not cls.full_size

    @abstractmethod
    def encode(self, codes: Codes, spectrum: Arrays, grid: Grid | None) -> bytes:
        """A sample's bytes.

        Args:
            codes: uint8 of the renderer's `code_shape`, drawn from `spectrum`; anything unless `needs_picture`.
            spectrum: flux, ivar, wavelength and mask, `(N,)` each (see `SpectraBlock.arrays`), with a line-spread
                function where that is to be kept; anything where it `needs_picture`.
            grid: coefficients that give the wavelengths, where there are some.
        """

    @abstractmethod
    def decode(self, payload: Payload) -> Any:
        """What was encoded: uint8 of `shape`, or `Arrays` for `shape` None.

        Raises:
            ValueError: not a payload of this encoding and picture; the message is the reason.
        """

    def check(self, payload: Payload) -> None:  # noqa: B027 - most have nothing to look at
        """Look at a header before any decoder does, which would make room for whatever size that says.

        Raises:
            ValueError: not a payload of this encoding and picture; the message is the reason.
        """

    def block(self, payload: Codes) -> Codes:
        """Of one that `inflates`: a raw LZ4 block, which gives `head` and the array and nothing else.

        Raises:
            ValueError: not a payload of this encoding and picture; the message is the reason.
        """
        raise NotImplementedError

    def _checked(self, array: Codes) -> Codes:
        if array.shape != self.shape:
            raise ValueError(f"a picture of {_size(array.shape)} instead of {_size(self.shape or ())}")
        return array


ENCODINGS: Registry[type[Encoding]] = Registry("ENCODING", "specshards.encodings", [__name__])


@ENCODINGS.register("png")
class Png(Encoding):
    """Lossless and small."""

    about, extension, dali = "lossless, compact, drawn once", "png", True

    def __init__(self, drawer: Renderer, quality: int = 95) -> None:
        super().__init__(drawer, quality)
        height, width, *channels = drawer.code_shape
        self._beginning = _PNG + _chunk(
            b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2 if channels else 0, 0, 0, 0)
        )

    def check(self, payload: Payload) -> None:
        """The three chunks that `docs/shard-format.md` promises, of the size, depth and colours of the codes."""
        head, end, total = bytes(payload[:_PNG_HEAD]), bytes(payload[-len(_IEND) :]), len(payload)
        if not head.startswith(self._beginning):
            raise ValueError(_other_png(head, self._beginning))
        if head[37:] != b"IDAT" or int.from_bytes(head[33:37], "big") != total - 57 or end != _IEND:
            raise ValueError("not a readable PNG: cut short, or with chunks that do not belong there")

    def encode(self, codes: Codes, spectrum: Arrays, grid: Grid | None) -> bytes:
        """A PNG of the codes."""
        return encode_png(codes, noisy=self.drawer.noisy)

    def decode(self, payload: Payload) -> Codes:
        """The codes."""
        self.check(payload)
        gray = len(self.drawer.code_shape) == 2
        flag = cv2.IMREAD_GRAYSCALE if gray else cv2.IMREAD_COLOR_RGB
        image = cv2.imdecode(np.frombuffer(payload, np.uint8), flag)
        if image is None:
            raise ValueError("not a readable PNG")
        return self._checked(np.asarray(image, dtype=np.uint8))


@ENCODINGS.register("pnm")
class Pnm(Encoding):
    """Lossless and nothing to decode: binary PGM (P5) for gray codes, PPM (P6) for RGB ones, as Netpbm defines them.

    Netpbm allows leading zeros, so that the header of every size up to 9999 pixels has one length.
    """

    about, dali = "lossless, not compressed: loads fastest, meant for map2d", True
    header: bytes

    def __init__(self, drawer: Renderer, quality: int = 95) -> None:
        super().__init__(drawer, quality)
        height, width, *channels = drawer.code_shape
        self.extension = "ppm" if channels else "pgm"
        self.header = b"P%d\n%04d %04d\n255\n" % (6 if channels else 5, width, height)

    def encode(self, codes: Codes, spectrum: Arrays, grid: Grid | None) -> bytes:
        """The header and the codes."""
        return self.header + codes.tobytes()

    def decode(self, payload: Payload) -> Codes:
        """The codes, a view of the payload."""
        if bytes(payload[: len(self.header)]) != self.header:
            raise ValueError(f"not a PNM of {_size(self.drawer.code_shape)}")
        array: Codes = np.frombuffer(payload, np.uint8, offset=len(self.header))
        if array.size != np.prod(self.drawer.code_shape):
            raise ValueError("cut short, or too long")
        return array.reshape(self.drawer.code_shape)


@ENCODINGS.register("lz4")
class Lz4(Encoding):
    """`pnm` as an LZ4 frame of one block: `lz4 -d` gives the picture file."""

    about, inflates = "lossless, light to decode, on a GPU too: line images load fastest", True

    def __init__(self, drawer: Renderer, quality: int = 95) -> None:
        super().__init__(drawer, quality)
        self._pnm = Pnm(drawer)
        self.head, self.extension = self._pnm.header, f"{self._pnm.extension}.lz4"
        self._size = len(self.head) + int(np.prod(drawer.code_shape))

    def encode(self, codes: Codes, spectrum: Arrays, grid: Grid | None) -> bytes:
        """The frame of `pnm`'s bytes."""
        return lz4.pack(self._pnm.encode(codes, spectrum, grid))

    def block(self, payload: Codes) -> Codes:
        """The one block of the frame, walked through."""
        return lz4.block(payload, self._size)

    def decode(self, payload: Payload) -> Codes:
        """The codes."""
        return self._pnm.decode(lz4.unpack(np.frombuffer(payload, np.uint8), self._size))


@ENCODINGS.register("jpeg")
class Jpeg(Encoding):
    """The picture as others want it, nearly lossless.

    4:2:0 would halve the colour's resolution, and cost a map of real spectra 8 to 10 dB.
    """

    about, extension, media_type = "full-size RGB, 4:4:4, nearly lossless", "jpg", "image/jpeg"
    lossless, full_size, dali = False, True, True

    def encode(self, codes: Codes, spectrum: Arrays, grid: Grid | None) -> bytes:
        """A baseline JPEG of the expanded picture, with the colour at full resolution."""
        picture = np.ascontiguousarray(self.drawer.expand(codes))
        return simplejpeg.encode_jpeg(picture, quality=self.quality, colorspace="RGB", colorsubsampling="444")

    def check(self, payload: Payload) -> None:
        """Baseline, three components without subsampling, of the picture's size, and nothing that turns it round."""
        place, known = 2, bytes(payload[:2]) == b"\xff\xd8"
        size, layout = None, None
        while known and size is None:
            marker, length = (
                bytes(payload[place : place + 2]),
                int.from_bytes(bytes(payload[place + 2 : place + 4]), "big"),
            )
            if marker == b"\xff\xc0":
                frame = bytes(payload[place + 4 : place + 2 + length])
                size, layout = (frame[1:3], frame[3:5]), (frame[:1], frame[5:6], frame[7::3])
            known = marker in _JPEG_SEGMENTS and length >= 2
            place += 2 + length
        if not known or size is None or layout != (b"\x08", b"\x03", b"\x11\x11\x11"):
            raise ValueError("not a baseline JPEG of three components at full resolution, and nothing else")
        height, width = (int.from_bytes(part, "big") for part in size)
        if (height, width, 3) != self.shape:
            raise ValueError(f"a picture of {_size((height, width, 3))} instead of {_size(self.shape or ())}")

    def decode(self, payload: Payload) -> Codes:
        """The picture, RGB."""
        self.check(payload)
        return self._checked(simplejpeg.decode_jpeg(payload, colorspace="RGB"))


@ENCODINGS.register("flux")
class Flux(Encoding):
    """The spectrum: one data set for every picture."""

    about, extension = "the spectrum itself: any picture, drawn while loading", "flux.npy"
    needs_picture = False

    def encode(self, codes: Codes, spectrum: Arrays, grid: Grid | None) -> bytes:
        """The record of `shards.format.flux`."""
        return flux.pack(*spectrum, grid, getattr(spectrum, "lsf_sigma", None))  # which a plain tuple has not

    def decode(self, payload: Payload) -> Arrays:
        """Flux, ivar, wavelength and mask; bytes after the record's end are left alone."""
        return flux.parse(payload)


def _chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG: length, kind, content, CRC."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


_PNG, _IEND = b"\x89PNG\r\n\x1a\n", _chunk(b"IEND", b"")
#: Up to the name of the chunk after IHDR.
_PNG_HEAD = 41
#: Application data of JFIF, tables, restart interval, comment, baseline frame.
_JPEG_SEGMENTS = {b"\xff" + bytes([code]) for code in (0xE0, 0xDB, 0xC4, 0xDD, 0xFE, 0xC0)}


def _other_png(head: bytes, wanted: bytes) -> str:
    """What a PNG is that does not begin as it should."""
    if len(head) < 33 or head[:16] != wanted[:16] or head[:33] != _PNG + _chunk(b"IHDR", head[16:29]):
        return "not a readable PNG"

    def words(header: bytes) -> str:
        width, height, depth, colour, *_, interlaced = struct.unpack(">IIBBBBB", header[16:29])
        kind = {0: "gray", 2: "RGB", 3: "palette", 4: "gray with alpha", 6: "RGB with alpha"}.get(colour, "no")
        return f"{width} x {height} pixels, {depth} bits, {kind}" + (", interlaced" if interlaced else "")

    return f"a PNG of {words(head)} instead of {words(wanted)}"


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
