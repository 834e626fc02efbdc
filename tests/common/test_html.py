"""Pages from templates: names stay text, contents name their sections, nothing may be missing."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from specshards.common.html import Table, Templates

PAGE = """{% extends "page.html" %}{% from "parts.html" import listing, pairs, section, table with context %}
{% block main %}{% call section("A & B") %}{{ table(numbers) }}{% endcall %}
{% call section("Rest") %}{{ pairs(facts) }}{{ listing(text, "code") }}{% endcall %}{% endblock %}"""
HOSTILE = '"><script>alert(1)</script>'


@pytest.fixture
def templates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Templates:
    folder = tmp_path / "pages_of_a_test" / "templates"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    (folder / "one.html").write_text(PAGE)
    (folder / "code.js").write_text('"use strict"; // 1 < 2')
    monkeypatch.syspath_prepend(str(tmp_path))
    return Templates("pages_of_a_test")


def test_values_are_text_and_a_script_is_allowed_by_its_hash(templates: Templates) -> None:
    rows = [["", HOSTILE], [HOSTILE, "1.5 [1, 2]"]]
    numbers = Table(rows, HOSTILE, links={HOSTILE: f"#{HOSTILE}"})
    page = templates.page("one.html", HOSTILE, mock=HOSTILE, script="code.js", numbers=numbers,
                          facts=[(HOSTILE, HOSTILE)], text=f"  {HOSTILE}\n\n  end\n")  # fmt: skip
    assert page.count("<script>") == 1 and page.count("&lt;script&gt;") == 11 and '""' not in page
    digest = base64.b64encode(hashlib.sha256(b'"use strict"; // 1 < 2').digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page and "// 1 < 2</script>" in page
    assert [*re.findall(r'href="(#part\d)">([^<]*)<', page)] == [("#part0", "A &amp; B"), ("#part1", "Rest")]
    assert re.findall(r'<h2 id="(part\d)">([^<]*)<', page) == [
        ("part0", "A &amp; B (MOCK data)"), ("part1", "Rest (MOCK data)"),
    ]  # fmt: skip
    assert "<td>1.5 <span>[1, 2]</span></td>" in page and ">  &#34;" in page and "\n\n  end\n</pre>" in page


def test_what_a_template_names_must_be_given(templates: Templates) -> None:
    with pytest.raises(UndefinedError, match="facts"):
        templates.page("one.html", "", numbers=Table([["", ""]], ""), text="")
