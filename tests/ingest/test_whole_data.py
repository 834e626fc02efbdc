"""Files whose data are whole though their form is unusual: a short last block, images in compressed tiles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from specshards.common.errors import BadObjectError
from specshards.common.spectrum import Spectrum
from specshards.ingest.fits.direct import FitsFile, _SurpriseError
from specshards.ingest.surveys import open_file, read_file
from tests.oracles.oracle import differences, readings
from tests.oracles.survey_files import WAVE, desi_coadd, lamost_image, sdss_spec

DR5 = "Flux, Inverse, Wavelength, Andmask, Ormask"


def same(one: Spectrum, other: Spectrum) -> bool:
    return all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in ("flux", "ivar", "wavelength", "mask")
    )


@pytest.mark.parametrize("parser", ["direct", "astropy"])
@pytest.mark.parametrize("has_sum", [False, True])
def test_the_fill_of_the_last_block_may_be_short(
    tmp_path: Path, parser: str, has_sum: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = lamost_image(tmp_path / "a.fits", DR5, WAVE)
    if has_sum:
        with fits.open(path) as hdus:
            hdus.writeto(path, overwrite=True, checksum=True)
    whole, content = read_file(path), path.read_bytes()
    end = len(content) - (-5 * len(WAVE) * 4) % 2880
    assert end < len(content)
    if parser == "astropy":

        def surprised(self: FitsFile) -> None:
            raise _SurpriseError

        monkeypatch.setattr(FitsFile, "_walk", surprised)
    for keep in (len(content) - 1, len(content) - 80, end + 1, end):
        path.write_bytes(content[:keep])
        assert same(read_file(path), whole)
    for keep in (end - 1, end - 4, end - 2880):
        path.write_bytes(content[:keep])
        with pytest.raises(BadObjectError, match="cut short"):
            read_file(path)
    if has_sum:
        damaged = bytearray(content[:end])
        damaged[end - 1] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(BadObjectError, match="DATASUM"):
            read_file(path)


def test_a_real_file_with_a_short_last_block(real_data: Path) -> None:
    path = real_data / "faults" / "short_fill.fits"
    assert not differences(read_file(path), readings(path, path)[0])


def test_a_table_that_ends_with_its_data(tmp_path: Path) -> None:
    path = sdss_spec(tmp_path / "spec.fits")
    whole, content = read_file(path), path.read_bytes()
    path.write_bytes(content.rstrip(b"\0"))
    if len(path.read_bytes()) % 4 == 0:
        assert same(read_file(path), whole)


@pytest.mark.parametrize("kind", ["RICE_1", "GZIP_1", "GZIP_2"])
def test_masks_in_compressed_tiles(tmp_path: Path, kind: str) -> None:
    """As DESI writes them in `spectra-*.fits`: read through astropy, and the same to the bit as plain ones."""
    plain = desi_coadd(tmp_path / "coadd-plain.fits")
    packed = desi_coadd(tmp_path / "coadd-packed.fits", compression=kind)
    with fits.open(packed, disable_image_compression=True) as hdus:
        assert hdus["B_MASK"].header["ZIMAGE"]
    one, other = open_file(plain), open_file(packed)
    found = list(zip(one.objects(), other.objects(), strict=True))
    assert len(found) == 3 and (one.parser, other.parser) == ("direct", "astropy")
    expected = readings(packed, packed)
    for (ours, theirs), reading in zip(found, expected, strict=True):
        assert isinstance(ours, Spectrum) and isinstance(theirs, Spectrum) and same(ours, theirs)
        assert not differences(theirs, reading) and theirs.mask.sum() == 3


def test_damaged_tiles_are_refused_or_astropys(tmp_path: Path) -> None:
    path = desi_coadd(tmp_path / "coadd-packed.fits", compression="GZIP_1")
    content = path.read_bytes()
    with fits.open(path, disable_image_compression=True) as hdus:
        info = hdus["B_MASK"].fileinfo()
    for at in range(info["hdrLoc"], info["datLoc"] + 600, 37):
        damaged = bytearray(content)
        damaged[at] ^= 1 << at % 8
        path.write_bytes(damaged)
        try:
            items = list(open_file(path).objects())
        except BadObjectError:
            continue
        for item, reading in zip(items, readings(path, path), strict=True):
            assert isinstance(item, BadObjectError) or not differences(item, reading)


def test_a_real_file_with_compressed_masks(real_data: Path) -> None:
    (path,) = (real_data / "layouts" / "desi_spectra_compressed_mask").glob("*.fits")
    opened = open_file(path)
    items = list(opened.objects())
    spectra = [item for item in items if isinstance(item, Spectrum)]
    assert opened.parser == "astropy" and len(items) == 5 and len(spectra) == 1
    assert all(isinstance(item, Spectrum) or item.selected_out for item in items)
    with fits.open(path) as hdus:
        row = spectra[0].row
        total, weight = np.zeros(7781), np.zeros(7781)
        for arm, start in (("B", 3600.0), ("R", 5760.0), ("Z", 7520.0)):
            flux, ivar = hdus[f"{arm}_FLUX"].data[row].astype("f8"), hdus[f"{arm}_IVAR"].data[row].astype("f8")
            ivar[hdus[f"{arm}_MASK"].data[row] != 0] = 0
            first = round((start - 3600.0) / 0.8)
            total[first : first + len(flux)] += flux * ivar
            weight[first : first + len(flux)] += ivar
    np.testing.assert_array_equal(spectra[0].ivar, weight.astype("f4"))
    good = weight > 0
    np.testing.assert_array_equal(spectra[0].flux[good], (total[good] / weight[good]).astype("f4"))
