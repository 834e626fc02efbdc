"""Images with wavelengths of nobody known: FITS axes, IRAF's multispec, and specutils at last."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from hypothesis import given, settings
from hypothesis import strategies as st

from specshards.common.errors import BadObjectError
from specshards.common.spectrum import Spectrum
from specshards.ingest.generic import multispec
from specshards.ingest.surveys import open_file
from specshards.ingest.surveys.wavelengths import vacuum_of_air
from tests.conftest import REAL

N = 600
RNG = np.random.default_rng(5)
FLUX = (100 + RNG.normal(0, 2, N)).astype(np.float32)


def spectra(path: Path) -> list[Spectrum]:
    found = list(open_file(path).objects())
    assert all(isinstance(one, Spectrum) for one in found), found
    return found  # type: ignore[return-value]


def image(path: Path, data: np.ndarray, *beside: fits.ImageHDU, **cards: object) -> Path:
    primary = fits.PrimaryHDU(data)
    primary.header.update({key.replace("__", "-"): value for key, value in cards.items()})
    fits.HDUList([primary, *beside]).writeto(path)
    return path


def test_an_axis_is_read_as_the_standard_and_iraf_have_it(tmp_path: Path) -> None:
    index = np.arange(N)
    linear = {"CRVAL1": 5000.0, "CDELT1": 2.0, "CRPIX1": 11.0, "CUNIT1": "Angstrom"}
    cases = {
        "vacuum": ({**linear, "CTYPE1": "WAVE"}, 5000 + 2.0 * (index - 10), None, ""),
        "air": ({**linear, "CTYPE1": "AWAV"}, vacuum_of_air(5000 + 2.0 * (index - 10)), "air", ""),
        "guess": ({**linear, "CTYPE1": "LINEAR"}, 5000 + 2.0 * (index - 10), None, "vacuum is a guess"),
        "nm": ({"CRVAL1": 500.0, "CD1_1": 0.2, "CRPIX1": 1.0, "CUNIT1": "nm", "CTYPE1": "WAVE"}, 5000 + 2.0 * index,
               "nm", ""),
        "log": ({"CRVAL1": 3.6, "CDELT1": 1e-4, "CRPIX1": 1.0, "DC__FLAG": 1, "CTYPE1": "WAVE-LOG"},
                10 ** (3.6 + 1e-4 * index), None, ""),
        "iraf": ({"CRVAL1": 5000.0, "CDELT1": 2.0, "CRPIX1": 1.0, "WAT0_001": "system=equispec", "CTYPE1": "LINEAR",
                  "WAT1_001": "wtype=linear label=Wavelength units=Angstroms"}, vacuum_of_air(5000 + 2.0 * index),
                 "air", "air is a guess"),
    }  # fmt: skip
    for name, (cards, expected, source, remark) in cases.items():
        (one,) = spectra(image(tmp_path / f"{name}.fits", FLUX, **cards))
        np.testing.assert_array_equal(one.wavelength, np.asarray(expected, np.float32), err_msg=name)
        np.testing.assert_array_equal(one.flux, FLUX)
        assert (one.object_id, one.survey, one.wave_source, one.has_ivar) == (name, "spectrum1d", source, False)
        assert remark in " ".join(one.remarks) and ("guess" in " ".join(one.remarks)) == bool(remark), name
    # FITS' own logarithmic axis, by astropy's WCS.
    path = image(tmp_path / "standard.fits", FLUX, CRVAL1=5000.0, CDELT1=2.0, CRPIX1=1.0, CTYPE1="WAVE-LOG",
                 CUNIT1="Angstrom")  # fmt: skip
    own = WCS(fits.getheader(path)).pixel_to_world_values(np.arange(N)) * 1e10
    np.testing.assert_allclose(spectra(path)[0].wavelength, own, rtol=1e-6)


def test_errors_beside_an_image_and_bands_of_iraf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    axis = {"CRVAL1": 5000.0, "CDELT1": 2.0, "CRPIX1": 1.0, "CTYPE1": "WAVE", "CUNIT1": "Angstrom", "BUNIT": "Jy"}
    error = np.full(N, 2.0, np.float32)
    error[3] = 0
    bad = np.zeros(N, np.int16)
    bad[7] = 4
    for name, values in (("ERR", error), ("VARIANCE", error**2), ("IVAR", np.where(error > 0, 0.25, 0).astype("f4"))):
        path = image(tmp_path / f"{name}.fits", FLUX, fits.ImageHDU(values, name=name), fits.ImageHDU(bad, name="DQ"),
                     **axis)  # fmt: skip
        (one,) = spectra(path)
        assert one.flux_unit == "Jy" and one.has_ivar and one.ivar[0] == 0.25 and one.ivar[3] == 0
        assert np.flatnonzero(~one.good()).tolist() == [3, 7]
    cube = np.stack([np.stack([FLUX, FLUX + 1]), np.stack([FLUX * 0, FLUX * 0]), np.full((2, N), 2.0)]).astype("f4")
    cards = {"BANDID1": "spectrum - background fit, weights variance", "BANDID2": "background - background fit",
             "BANDID3": "sigma - background fit", "WAT0_001": "system=equispec", "APNUM1": "1 1",
             "APNUM2": "2 2"}  # fmt: skip
    one, two = spectra(image(tmp_path / "cube.fits", cube, **axis, **cards))
    assert (one.object_id, two.object_id) == ("cube-1", "cube-2") and set(one.ivar) == {0.25}
    np.testing.assert_array_equal(two.flux, FLUX + 1)
    with pytest.raises(BadObjectError, match="DQ has shape"):
        spectra(image(tmp_path / "odd.fits", FLUX, fits.ImageHDU(bad[:-1], name="DQ"), **axis))
    for cards, reason in (
        ({"CTYPE1": "FREQ"}, "axis of frequencies.*any-spectrum"), ({"CD1_1": 3.0}, "contradict each other"),
        ({"CUNIT1": "furlong"}, "furlong"),
    ):  # fmt: skip
        path = image(tmp_path / f"bad-{len(list(tmp_path.iterdir()))}.fits", FLUX, **{**axis, **cards})
        with pytest.raises(BadObjectError, match=reason):
            spectra(path)
    sky = image(tmp_path / "sky.fits", np.ones((50, 50), "f4"), CTYPE1="RA---TAN", CRVAL1=10.0, CDELT1=1.0)
    with pytest.raises(BadObjectError, match=r"no known layout: .*; see docs/any-spectrum.md$"):
        open_file(sky)
    with monkeypatch.context() as patch:
        for module in ("specshards.ingest.surveys", "specshards.ingest.generic.specutils"):
            patch.setattr(sys.modules[module], "find_spec", lambda name: None)
        with pytest.raises(BadObjectError, match=r'specutils may know it: pip install "specshards\[specutils\]"$'):
            open_file(sky)


def slow(spec: str, pixels: int) -> np.ndarray:
    """The formulae of the help of `specwcs`, a pixel at a time."""
    word = [float(one) for one in spec.split()]
    kind, first, step, count, z = int(word[2]), word[3], word[4], int(word[5]), word[6]
    found = []
    for p in range(1, count + 1):
        if kind < 2:
            found.append(first + step * (p - 1) if kind == 0 else 10 ** (first + step * (p - 1)))
            continue
        weight, zero, function, order, low, high = word[9:15]
        c, n = word[15:], (p - (low + high) / 2) / ((high - low) / 2)
        if function in (1, 2):
            x = [1.0, n]
            for i in range(2, int(order)):
                x.append(2 * n * x[-1] - x[-2] if function == 1 else ((2 * i - 1) * n * x[-1] - (i - 1) * x[-2]) / i)
            value = sum(a * b for a, b in zip(c, x, strict=False))
        else:
            s = (p - low) / (high - low) * order
            j = min(int(s), int(order) - 1)
            a, b = j + 1 - s, s - j
            if function == 4:
                value = c[j] * a + c[j + 1] * b
            else:
                x = [a**3, 1 + 3 * a * (1 + a * b), 1 + 3 * b * (1 + a * b), b**3]
                value = sum(c[i + j] * x[i] for i in range(4))
        found.append(weight * (zero + value))
    return np.array(found) / (1 + z)


def cards(specs: list[str]) -> dict[str, object]:
    text = "wtype=multispec " + " ".join(f'spec{i + 1} = "{spec}"' for i, spec in enumerate(specs))
    found: dict[str, object] = {"WAT0_001": "system=multispec", "CTYPE1": "MULTISPE", "CTYPE2": "MULTISPE",
                                "WAT1_001": "wtype=multispec label=Wavelength units=angstroms"}  # fmt: skip
    return found | {f"WAT2_{i // 68 + 1:03d}": text[i : i + 68] for i in range(0, len(text), 68)}


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([1, 2, 3, 4]), st.integers(2, 6), st.integers(0, 2**32 - 1), st.sampled_from([0.0, 1e-4]))
def test_multispec_functions_are_iraf_s(function: int, order: int, seed: int, z: float) -> None:
    rng, n = np.random.default_rng(seed), 64
    terms = order + {1: 0, 2: 0, 3: 3, 4: 1}[function]
    numbers = (
        [5000.0, 40.0, *rng.normal(0, 0.5, terms)][:terms] if function < 3 else 5000 + np.cumsum(rng.random(terms))
    )
    if function == 3:
        numbers = np.asarray(numbers) / 6  # the four parts of a cubic spline sum to 6
    tail = f"1. 0. {function} {order} 1. {n}. " + " ".join(repr(float(one)) for one in numbers)
    first = slow(f"1 1 2 0 0 {n} 0. 0 0 {tail}", n)
    spec = f"1 1 2 {float(first[0])!r} {float(first[1] - first[0])!r} {n} {z!r} 0. 0. {tail}"
    header = {key: value for key, value in cards([spec]).items()}
    (found,) = multispec.orders_of(header, n)  # type: ignore[arg-type]
    np.testing.assert_allclose(found.wavelength, slow(spec, n), rtol=1e-12)


def test_orders_are_joined_and_apertures_are_not(tmp_path: Path) -> None:
    data = np.arange(3 * N, dtype=np.float32).reshape(3, N) + 1
    echelle = [f"{i + 1} {90 - i} 0 {5000 + 400 * i} 1.0 {N} 0. 0. 0." for i in range(3)]
    (one,) = spectra(image(tmp_path / "echelle.fits", data, **cards(echelle)))
    # 5000 to 5599, 5400 to 5999, 5800 to 6399: cut at 5499.5 and 5899.5.
    np.testing.assert_array_equal(one.flux, np.concatenate([data[0, :500], data[1, 100:500], data[2, 100:]]))
    assert (np.diff(one.wavelength) > 0).all() and "3 orders of an echelle joined" in " ".join(one.remarks)
    same = [f"{i + 7} 1 0 5000.0 1.0 {N} 0. 0. 0." for i in range(3)]
    found = spectra(image(tmp_path / "fibres.fits", data, **cards(same)))
    assert [one.object_id for one in found] == ["fibres-7", "fibres-8", "fibres-9"]
    down = [f"{i + 1} {90 - i} 1 {4.0 - 0.02 * i} -1e-5 {N} 0. 0. 0." for i in range(3)]
    (one,) = spectra(image(tmp_path / "down.fits", data, **cards(down)))
    assert len(one.flux) == 3 * N and (np.diff(one.wavelength) > 0).all() and one.flux[0] == data[2, -1]
    for spec, reason in (
        ("1 1 2 5000. 1. 600 0. 0. 0. 1. 0. 1 3 1. 600. 5300. 300.", "not whole"),
        ("1 1 2 4000. 1. 600 0. 0. 0. 1. 0. 1 2 1. 600. 5300. 300.", "begins at 5000.*damaged"),
        ("1 1 -1 1. 1. 600 0. 0. 0.", "no wavelengths"), ("1 1 0 5000.", "not whole"),
        ("1 1 2 5000. 1. 600 0. 0. 0. 1. 0. 9 2 1. 600. 1. 2.", "unknown type 9"),
    ):  # fmt: skip
        path = tmp_path / f"bad-{len(list(tmp_path.iterdir()))}.fits"
        image(path, data[:1], **cards([spec]))
        with pytest.raises(BadObjectError, match=reason):
            spectra(path)


def test_specutils_is_asked_last(tmp_path: Path) -> None:
    pytest.importorskip("specutils", reason="specutils is not installed")
    cube = np.stack([np.stack([FLUX]), np.stack([FLUX / 2])])
    path = image(tmp_path / "lrg.fits", cube, MSTITLE="2dF-SDSS LRG/QSO survey", CRVAL1=6000.0, CD1_1=1.5, CRPIX1=1.0)
    science, sky = spectra(path)
    assert (science.survey, science.layout, science.object_id) == ("specutils", "specutils-2slaq-lrg", "lrg-1")
    np.testing.assert_array_equal(science.flux, FLUX)
    np.testing.assert_array_equal(sky.flux, FLUX / 2)
    np.testing.assert_allclose(science.wavelength, 6000 + 1.5 * np.arange(N), rtol=1e-7)


@pytest.mark.skipif(not (REAL / "layouts").is_dir(), reason="no real files of layouts")
def test_real_echelles_are_at_iraf_s_wavelengths() -> None:
    for name in ("aao_2df_old/AAO.fits", "iraf_multispec/TRES.fits", "tls_echelle/TV00002.fits"):
        path = REAL / "layouts" / name
        with fits.open(io.BytesIO(path.read_bytes()), output_verify="silentfix") as hdus:
            header, data = hdus[0].header, hdus[0].data
            text = "".join(str(header[f"WAT2_{i:03d}"]).ljust(68) for i in range(1, 999) if f"WAT2_{i:03d}" in header)
        specs = re.findall(r"spec\d+\s*=\s*\"([^\"]*)\"", text)
        (one,) = spectra(path)
        flux_of: dict[float, set[float]] = {}  # neighbouring orders may have the same wavelength
        for spec, line in zip(specs, data, strict=True):
            air = slow(spec.replace("D", "E"), len(line))
            for wave, flux in zip(vacuum_of_air(air).astype(np.float32).tolist(), line.tolist(), strict=True):
                flux_of.setdefault(wave, set()).add(flux)
        assert len(one.flux) > 50_000 and (np.diff(one.wavelength) > 0).all()
        shared = [wave for wave in one.wavelength.tolist() if wave in flux_of]
        assert len(shared) > 0.98 * len(one.wavelength)  # two ways to sum differ in the last digit of few
        here = dict(zip(one.wavelength.tolist(), one.flux.tolist(), strict=True))
        assert all(here[wave] in flux_of[wave] for wave in shared)


@pytest.mark.skipif(not (REAL / "layouts").is_dir(), reason="no real files of layouts")
def test_a_real_line_that_says_it_is_logarithmic_and_is_not_is_damage() -> None:
    path = REAL / "layouts/iraf_multispec/evega.0039.rs.ec.dispcor.fits"  # its data are garbage from order 8 on
    with pytest.raises(BadObjectError, match=r"WAT2: line 2 is declared logarithmic, .* damaged"):
        spectra(path)


def test_what_no_flux_can_be_is_damage(tmp_path: Path) -> None:
    lines = [f"{i + 1} {90 - i} {int(i == 1)} {5000 + 400 * i} 1.0 {N} 0. 0. 0." for i in range(3)]
    data = np.arange(3 * N, dtype=np.float32).reshape(3, N) + 1
    with pytest.raises(BadObjectError, match="line 2 is declared logarithmic"):
        spectra(image(tmp_path / "log.fits", data, **cards(lines)))
    axis = {"CRVAL1": 5000.0, "CDELT1": 1.0, "CRPIX1": 1.0}
    garbage = np.random.default_rng(5).integers(0, 2**32, N, np.uint32).view(np.float32)
    for name, values in (("all", garbage), ("some", np.where(np.arange(N) < 0.2 * N, garbage, data[0]))):
        (bad,) = open_file(image(tmp_path / f"{name}.fits", values.astype("f4"), **axis)).objects()
        assert isinstance(bad, BadObjectError) and re.match(r"flux goes up to \S+e\+3\d, .*: damaged$", str(bad))
    orders = [f"{i + 1} {90 - i} 0 {5000 + 400 * i} 1.0 {N} 0. 0. 0." for i in range(3)]
    data[2, 450:] = garbage[450:]
    with pytest.raises(BadObjectError, match="damaged"):
        spectra(image(tmp_path / "orders.fits", data, **cards(orders)))
    # A luminosity, and a spectrum with zeros and a cosmic ray, are none.
    luminous = np.random.default_rng(1).normal(1e40, 1e39, N)
    luminous[3] = 1e30
    assert len(spectra(image(tmp_path / "luminous.fits", luminous, **axis))) == 1
    ray = np.where(np.arange(N) < 300, 0, 1e-17)
    ray[400] = 1
    assert len(spectra(image(tmp_path / "ray.fits", ray, **axis))) == 1
