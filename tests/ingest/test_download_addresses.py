"""From a row of a catalogue to the address and the path of its file."""

from __future__ import annotations

import gzip
import hashlib
import re
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from specshards.common.errors import BadObjectError, UsageError
from specshards.ingest.catalogue import rows
from specshards.ingest.catalogue.checksums import Checksums
from specshards.ingest.download.addresses import choose
from specshards.ingest.surveys import sdss_addresses
from specshards.ingest.surveys.sdss_addresses import split_specobjid
from tests.oracles.file_server import LAMOST, LAMOST_PATH, spec

SDSS_ROWS = [
    ({"plate": 266, "mjd": 51602, "fiberid": 1, "run2d": 26}, spec(1)),
    ({"plate": "3586", "mjd": "55181", "fiberid": "0001", "run2d": b"v5_13_2 "},
     "v5_13_2/spectra/lite/3586/spec-3586-55181-0001.fits"),
    ({"plate": 10000.0, "mjd": 57346, "fiberid": 1000, "run2d": "v5_13_2"},
     "v5_13_2/spectra/lite/10000/spec-10000-57346-1000.fits"),
    ({"field": 15143, "mjd": 59205, "catalogid": 4544940698, "run2d": "v6_0_4"},
     "v6_0_4/spectra/lite/15143p/59205/spec-15143-59205-04544940698.fits"),
    ({"field": 15000, "mjd": 59146, "catalogid": 4375924756, "run2d": "v6_1_3"},
     "v6_1_3/spectra/lite/015000/59146/spec-015000-59146-4375924756.fits"),
    ({"field": "allepoch", "mjd": 60000, "catalogid": 27021598054114233, "run2d": "v6_1_3"},
     "v6_1_3/spectra/lite/allepoch/60000/spec-allepoch-60000-27021598054114233.fits"),
    ({"field": 15000, "mjd": 59146, "catalogid": 4375924756, "run2d": "v6_2_1"},
     "v6_2_1/spectra/daily/lite/015XXX/015000/59146/spec-015000-59146-4375924756.fits"),
    ({"plate": 1, "mjd": 51602, "fiberid": 1, "run2d": 26, "field": 7, "catalogid": 9},
     "26/spectra/lite/0001/spec-0001-51602-0001.fits"),
]  # fmt: skip


@pytest.mark.parametrize(("row", "path"), SDSS_ROWS)
def test_sdss_paths_are_those_of_the_data_model(row: dict[str, Any], path: str) -> None:
    assert choose("sdss", list(row), base="http://h/b/").address(row).path == path
    assert choose("sdss", list(row), base="http://h/b/").address(row).url == f"http://h/b/{path}"


@pytest.mark.parametrize(
    ("number", "row"),
    [
        # Of real files, and the example in the documentation of pydl's sdss_specobjid.
        ("299492975510054912", {"plate": 266, "mjd": 51602, "fiberid": 13, "run2d": "26"}),
        (10838091580906428416, {"plate": 9626, "mjd": 57875, "fiberid": 651, "run2d": "v5_13_2"}),
        (4565636362342690816, {"plate": 4055, "mjd": 55359, "fiberid": 408, "run2d": "v5_7_0"}),
    ],
)
def test_a_specobjid_alone_names_the_file(number: object, row: dict[str, Any]) -> None:
    assert split_specobjid(number) == row
    given_id = choose("sdss", ["SpecObjID"]).address({"specobjid": number})
    assert given_id == choose("sdss", list(row)).address(row)


def test_a_specobjid_that_a_float_has_rounded_is_refused() -> None:
    with pytest.raises(BadObjectError, match="rounded"):
        split_specobjid(float(4565636362342690816))


def test_lamost_paths_and_addresses() -> None:
    by_path = choose("lamost", [*LAMOST, "obsid"], release="dr5/v3").address({**LAMOST, "obsid": 7})
    # The address of a real file of DR5.
    assert (by_path.key, by_path.url) == ("7", f"https://dr5.lamost.org/v3/sas/fits/{LAMOST_PATH}")
    assert by_path.path == LAMOST_PATH
    by_obsid = choose("lamost", [*LAMOST, "obsid"], token=True).address({**LAMOST, "obsid": "437513049"})
    assert by_obsid.url == "https://www.lamost.org/dr10/v2.0/spectrum/fits/437513049"
    assert by_obsid.path == LAMOST_PATH
    alone = choose("lamost", ["ObsID"]).address({"obsid": 437513049})
    assert alone.path == "4375/437513049.fits.gz"


@pytest.mark.parametrize(
    ("run2d", "release", "root"),
    [
        ("26", None, "https://data.sdss.org/sas/dr17/sdss/spectro/redux"),
        ("v5_13_2", None, "https://data.sdss.org/sas/dr17/eboss/spectro/redux"),
        ("v5_7_0", "dr12", "https://data.sdss.org/sas/dr12/boss/spectro/redux"),
        ("v5_13_2", "dr18", "https://data.sdss.org/sas/dr18/spectro/sdss/redux"),
        ("v6_0_4", None, "https://data.sdss.org/sas/dr18/spectro/boss/redux"),
        ("v6_1_3", None, "https://data.sdss.org/sas/dr19/spectro/boss/redux"),
    ],
)
def test_the_root_follows_reduction_and_release(run2d: str, release: str | None, root: str) -> None:
    assert sdss_addresses.root(run2d, release) == root


VALUES = st.one_of(
    st.none(), st.integers(), st.floats(), st.text(max_size=12), st.binary(max_size=6), st.dates(),
    st.sampled_from(["..", "../..", "/etc", "a/b", "%2e%2e", "v6_0_4", "v6_1_3", "26", "2013-11-11", "٣", "1\n"]),
)  # fmt: skip
NAMES = ("plate", "mjd", "fiberid", "run2d", "field", "catalogid", "obsdate", "planid", "lmjd", "spid", "obsid")


@given(st.sampled_from(["sdss", "lamost"]), st.booleans(), st.fixed_dictionaries(dict.fromkeys(NAMES, VALUES)))
def test_no_row_leads_out_of_the_folder(survey: str, token: bool, row: dict[str, Any]) -> None:
    try:
        address = choose(survey, NAMES, base="http://h/b", token=token).address(row)
    except BadObjectError as error:
        assert "\n" not in error.reason
        return
    assert re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9_.+-]*/)+[A-Za-z0-9][A-Za-z0-9_.+-]*\.fits(\.gz)?", address.path)
    assert ".." not in PurePosixPath(address.path).parts
    assert address.url.startswith("http://h/b/") and address.url.isascii()


@given(
    st.integers(1, 99_999), st.integers(10_000, 99_999), st.integers(1, 9_999),
    st.sampled_from(["26", "v5_13_2"]), st.sampled_from([int, str, float]),
)  # fmt: skip
def test_a_path_holds_its_row(plate: int, mjd: int, fiber: int, run2d: str, kind: type) -> None:
    row = {"plate": kind(plate), "mjd": kind(mjd), "fiberid": kind(fiber), "run2d": run2d}
    match = re.fullmatch(r"(\w+)/spectra/lite/(\d{4,5})/spec-(\d{4,5})-(\d{5})-(\d{4})\.fits",
                         choose("sdss", list(row)).address(row).path)  # fmt: skip
    assert match is not None
    assert (match[1], int(match[2]), int(match[3]), int(match[4]), int(match[5])) == (run2d, plate, plate, mjd, fiber)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"survey": "desi", "columns": ["a"]}, "unknown SURVEY=desi: choose lamost or sdss"),
        ({"survey": "sdss", "columns": ["obsid", "z"]}, "found obsid, z; this looks like a LAMOST catalogue"),
        ({"survey": "lamost", "columns": ["plate", "z"]}, "this looks like an SDSS catalogue: --survey sdss"),
        ({"survey": "sdss", "columns": ["plate", "mjd"]}, "expected plate, mjd, fiberid, run2d, or field"),
        ({"survey": "sdss", "columns": ["specobjid"], "release": "v5"}, "RELEASE=v5: give an SDSS release"),
        ({"survey": "lamost", "columns": ["obsid"], "release": "../x"}, "RELEASE=../x: give a LAMOST release"),
        ({"survey": "sdss", "columns": ["specobjid"], "base": "ftp://x/y"}, "BASE: give an address"),
        ({"survey": "sdss", "columns": ["specobjid"], "base": "https://me:pw@x/y"}, "BASE: give an address"),
        ({"survey": "sdss", "columns": ["specobjid"], "base": "https://x/y?token=1"}, "BASE: give an address"),
    ],
)
def test_mistakes_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)) as caught:
        choose(**arguments)
    assert "pw@" not in str(caught.value) and "\n" not in str(caught.value)


# Catalogues and lists


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "bars.csv", "parquet", "fits"])
def test_every_kind_of_catalogue_gives_the_same_rows_in_batches(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from astropy.table import Table

    monkeypatch.setattr(rows, "BATCH", 3)
    columns = {name.upper(): [value] * 8 for name, value in LAMOST.items()}
    columns["FIBERID"] = list(range(1, 9))
    columns["OBSID"] = [2**62 + 1 + i for i in range(8)]  # a float would round these
    path = tmp_path / f"catalogue.{kind}"
    if "csv" in kind:
        mark = "|" if kind == "bars.csv" else ","
        lines = [mark.join(map(str, values)) for values in zip(*columns.values(), strict=True)]
        text = "\n".join([mark.join(columns), *lines]).encode()
        path.write_bytes(gzip.compress(text) if kind.endswith("gz") else text)
    elif kind == "parquet":
        pq.write_table(pa.table({**columns, "EXTRA": [0] * 8}), path)
    else:
        Table(columns).write(path)
    opened = rows.open_rows(path)
    assert opened.total == (None if kind == "csv.gz" else 8)
    scheme = choose("lamost", opened.columns)
    batches = list(opened.batches(list(scheme.columns.values())))
    assert max(len(batch["FIBERID"]) for batch in batches) == 3 and "EXTRA" not in batches[0]
    values = [dict(zip(scheme.columns, v, strict=True)) for b in batches for v in zip(*b.values(), strict=True)]
    found = [
        scheme.address(dict(zip(scheme.columns, [row[n] for n in scheme.columns], strict=True))) for row in values
    ]
    assert [a.path for a in found] == [LAMOST_PATH.replace("092", f"{i:03d}") for i in range(1, 9)]
    assert [a.key for a in found] == [str(2**62 + 1 + i) for i in range(8)]


def test_what_is_no_catalogue_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no")
    (tmp_path / "a.xls").write_bytes(b"")
    for name, message in [("a.parquet", "not a readable table"), ("a.xls", "unknown kind"), ("b.csv", "no such")]:
        with pytest.raises(UsageError, match=message):
            rows.open_rows(tmp_path / name)


def test_checksums_are_found_by_the_end_of_the_path(tmp_path: Path) -> None:
    a, b, c = (hashlib.sha1(text).hexdigest() for text in (b"a", b"b", b"c"))
    (tmp_path / "x.sha1sum").write_text(f"# list\n{a}  ./0266/spec-0266-51602-0001.fits\n{b.upper()} *{spec(2)}\n")
    (tmp_path / "y.sha1sum").write_text(f"{c}  redux/v5_13_2/spectra/lite/0266/spec-0266-51602-0001.fits\n")
    listed = Checksums([tmp_path / "x.sha1sum", tmp_path / "y.sha1sum"])
    assert (listed.of(spec(1)), listed.of(spec(2)), listed.of(spec(3))) == (a, b, None)
    assert listed.of(spec(1).replace("26/", "v5_13_2/", 1)) == c
    (tmp_path / "z").write_text("no list\n")
    with pytest.raises(UsageError, match="z, line 1: expected CHECKSUM  PATH"):
        Checksums([tmp_path / "z"])
