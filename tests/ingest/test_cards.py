"""Header cards: the direct parser reads each as astropy does, or leaves it to astropy."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
from astropy.io import fits
from astropy.io.fits.card import Undefined
from hypothesis import example, given, settings
from hypothesis import strategies as st

from specshards.common.errors import BadObjectError
from specshards.ingest.fits.direct import FitsFile, Header, _SurpriseError
from specshards.ingest.surveys import read_file
from tests.oracles.survey_files import WAVE, lamost_image

KEYS = ("Z", "COEFF0", "CLASS", "EXTNAME")
PRINTABLE = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=70)
ANY_ASCII = st.text(st.characters(min_codepoint=0, max_codepoint=127), max_size=70)
NUMBERS = st.one_of(
    st.integers().map(str), st.floats(allow_nan=True).map(str), st.floats().map(lambda x: str(x).replace("e", "D")),
    st.floats().map(lambda x: f"{x:E}"),
    st.sampled_from(["T", "F", "1.", ".5", "+5", "- 5", "1 2", "007", "(1, 2)", "1_0"]),
)  # fmt: skip
STRINGS = st.one_of(
    PRINTABLE.map(lambda text: "'" + text.replace("'", "''") + "'"),
    st.sampled_from(["'abc", "'it''s'", "'a/b' / c", "''", "'   '", "'long&'", "' led'", "'''", "'a' b"]),
)
FIELDS = st.one_of(st.builds(lambda text, width: text.rjust(width), NUMBERS, st.integers(0, 22)), STRINGS, ANY_ASCII)
CARDS = st.one_of(
    st.builds(
        lambda key, sign, field, comment: key + sign + field + comment,
        st.sampled_from(
            [f"{key:<8}" for key in KEYS] + ["z       ", "Coeff0  ", " Z      ", "HIERARCH Z ", "HIERARCH COEFF0"]
        ),
        st.sampled_from(["= ", "= ", "= ", "=", "  ", " =", "=  "]),
        FIELDS,
        st.one_of(st.just(""), st.just(" / a comment"), st.just("/x"), PRINTABLE.map(lambda text: f" / {text}")),
    ),
    STRINGS.map(lambda text: f"CONTINUE  {text}"),
    PRINTABLE.map(lambda text: f"COMMENT {text}"),
    ANY_ASCII,
)  # fmt: skip
NOTHING = object()


def of_astropy(header: fits.Header, key: str) -> Any:
    """NOTHING where astropy cannot read it."""
    try:
        value = header.get(key)
    except Exception:
        return NOTHING
    return None if isinstance(value, Undefined) else value


def same(ours: Any, theirs: Any) -> bool:
    return type(ours) is type(theirs) and (ours == theirs or (ours != ours and theirs != theirs))


@settings(max_examples=600, deadline=None)
@given(st.lists(CARDS, min_size=1, max_size=5))
@example(["Z       =0.5"])
@example(["Z       =T"])
@example(["HIERARCH Z = 0.5"])
@example(["Z       = 'abc'", "CONTINUE  'def'"])
@example(["Z       = 1", "Z       = 2"])
@example(["Z       =                    5 / \0"])
def test_a_value_is_astropys_or_left_to_it(cards: list[str]) -> None:
    content = "".join(card[:80].ljust(80) for card in cards)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = fits.Header.fromstring(content)
        header = Header(content.encode("ascii"))
        for key in KEYS:
            try:
                ours = header.get(key)
            except _SurpriseError:
                continue
            assert same(ours, of_astropy(theirs, key)), (key, cards)


@settings(max_examples=150, deadline=None)
@given(st.lists(CARDS, min_size=1, max_size=4))
@example(["END     = 5"])
@example(["END x"])
def test_a_file_too(cards: list[str]) -> None:
    """Whatever else is refused, what is read of a whole file is what astropy reads."""
    first = [f"{'SIMPLE':<8}= {'T':>20}", f"{'BITPIX':<8}= {8:>20}", f"{'NAXIS':<8}= {0:>20}"]
    content = "".join(card[:80].ljust(80) for card in [*first, *cards, "END"])
    content = content.ljust(-(-len(content) // 2880) * 2880)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            theirs = fits.Header.fromstring(content)
            ours = FitsFile(content.encode("ascii"))[0].header
            values = {key: ours.get(key) for key in KEYS}
        except Exception:
            return
        for key, value in values.items():
            assert same(value, of_astropy(theirs, key)), (key, cards)


def test_mandatory_cards_are_what_they_must_be(tmp_path: Path) -> None:
    """SIMPLE = 1 is no FITS, and a second NAXIS1 makes astropy give up: found by `make fuzz`."""
    path = lamost_image(tmp_path / "a.fits", "Flux, Inverse, Wavelength, Andmask, Ormask", WAVE)
    content = path.read_bytes()
    assert read_file(path).object_id == "701002"
    path.write_bytes(f"{'SIMPLE':<8}= {1:>20}".ljust(80).encode() + content[80:])
    with pytest.raises(BadObjectError, match="No SIMPLE card"):
        read_file(path)
    at = content.index(b"SUBCLASS")
    path.write_bytes(content[:at] + f"{'NAXIS1':<8}= 'FLUX    '".ljust(80).encode() + content[at + 80 :])
    with pytest.raises(BadObjectError):
        read_file(path)
