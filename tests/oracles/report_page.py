"""The page of a data set as a reader of HTML finds it, and the sidecars that its numbers come from."""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from specshards.shards.format.manifest import SPLITS


class Page(HTMLParser):
    """Tags with their attributes, text, and every table by its label."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.articles: dict[str, list[str]] = {}
        self._label, self._article, self._cell = "", "", False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.tags.append((tag, found))
        if found.get("role") == "region":
            self._label = found["aria-label"]
            self.tables[self._label] = []
        elif tag == "tr" and self._label:
            self.tables[self._label].append([])
        elif tag in ("th", "td") and self._label:
            self.tables[self._label][-1].append("")
            self._cell = True
        elif tag == "article":
            self._article = found["id"]
            self.articles[self._article] = []

    def handle_endtag(self, tag: str) -> None:
        if tag == "table":
            self._label = ""
        elif tag in ("th", "td"):
            self._cell = False
        elif tag == "article":
            self._article = ""

    def handle_data(self, data: str) -> None:
        self.text.append(data)
        if self._cell and self._label:
            self.tables[self._label][-1][-1] += data
        if self._article:
            self.articles[self._article].append(data)

    def numbers(self, label: str) -> dict[tuple[str, str], int]:
        """The counts of a table by the heads of row and column."""
        head, *rows = self.tables[label]
        return {
            (row[0], name): int(n.replace(",", "")) for row in rows for name, n in zip(head[1:], row[1:], strict=True)
        }


def sidecars(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for split in SPLITS:
        for path in sorted((folder / split).glob("*.parquet")):
            for row in pq.read_table(path).to_pylist():
                yield split, row
