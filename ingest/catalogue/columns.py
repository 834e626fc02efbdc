"""Which columns of a catalogue are taken, and what is said of the others.

Of two columns that mean the same (`surveys.spellings`), that of our own name is taken, which is said; two others are
refused. An error is taken for the value that it is named after.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from specshards.common.errors import UsageError
from specshards.common.spectrum import NUMBERS, NUMERIC_LABELS, SN_SURVEY, SURVEY_SN, tells_sn_survey
from specshards.common.text import escaped
from specshards.ingest.catalogue.further import Wish
from specshards.ingest.catalogue.rows import by_meaning, check_once, the_one
from specshards.ingest.spectra.schema import SCHEMA
from specshards.ingest.surveys.spellings import ALIASES, ALL_METALS, STEM_OF
from specshards.ingest.surveys.survey import SURVEYS

POSITION = ("ra", "dec")
LABELS = ("class", "subclass", *NUMERIC_LABELS)
SN = (*SURVEY_SN, SN_SURVEY)
ERRORS = {label.name: label.columns[1] for label in NUMBERS if label.has_error}

_SHOWN = 20


@dataclass(frozen=True)
class ColumnAccount:
    """What became of the columns of a catalogue.

    Attributes:
        taken: our name -> its column, where that is called otherwise.
        unused: the first few that nothing is made of; more: how many there are besides.
        notes: what a user should know.
    """

    taken: dict[str, str]
    unused: tuple[str, ...]
    more: int = 0
    notes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Plain text."""
        lines = [f"catalogue: {theirs} is taken for {ours}" for ours, theirs in self.taken.items()]
        if self.unused:
            n, rest = len(self.unused) + self.more, f" and {self.more} more" if self.more else ""
            shown = ", ".join(self.unused)
            lines.append(f"catalogue: {n} columns are not used: {shown}{rest}; keep them with --labels")
        return [*lines, *(f"catalogue: {note}" for note in self.notes)]


@dataclass(frozen=True)
class Choice:
    """Which columns of a catalogue are taken.

    Attributes:
        key: the column to join on.
        names: our name -> column: labels, S/N where it is whole, positions, and what a cut asks for.
        compared: our names of columns that a cut asks for, and of which the spectra keep what their files say.
        account: of all columns.
        further: name -> column, of further labels.
    """

    key: str
    names: dict[str, str]
    compared: tuple[str, ...]
    account: ColumnAccount
    further: dict[str, str] = field(default_factory=dict)


#: Keys of spectra of nobody known, and beside the `object_id` of a survey: names of objects, or of files.
FILE_KEYS = ("spectrum", "file", "filename", "file_name", "source_file")
_ANY_KEYS = ("object_id", *FILE_KEYS, "id", "name")


def keys_of(survey: str | None) -> tuple[str, ...]:
    """Columns of catalogues that name the object, in the order of preference."""
    own = SURVEYS[survey].keys if survey is not None else ("object_id",)
    return own if "object_id" not in own else tuple(dict.fromkeys([*own, *_ANY_KEYS]))


def choose(
    path: Path, columns: Sequence[str], survey: str | None, asked: Collection[str] = (), wish: Wish | None = None
) -> Choice:
    """The columns of a catalogue that are taken.

    Args:
        survey: whose spectra it lists; None for those of any.
        asked: by a cut, in lower case.
        wish: for further labels.

    Raises:
        UsageError: no key, no label, or two columns of one meaning.
    """
    aliases = SURVEYS[survey].aliases if survey is not None else {}
    meant, keys = by_meaning(columns, {**ALIASES, **aliases}), keys_of(survey)
    found = {
        name: the_one(path, name, many)
        for name, many in meant.items()
        if name in {*keys, *LABELS, *SN, *POSITION, *asked} and name not in ERRORS.values()
    }
    for value, error in ERRORS.items():
        if many := [column for column in meant.get(error, ()) if _is_error_of(column, error, found.get(value))]:
            found[error] = the_one(path, error, many)
    key = next((found[name] for name in keys if name in found), None)
    if key is None:
        raise UsageError(
            f"{path}: no key column for {survey or 'these spectra'}: expected {' or '.join(keys)}, found "
            f"{', '.join(columns[:12])}"
        )
    signal = [name for name in SN if name in found]
    # One band alone says nothing of the whole, and the file's own may be of another reduction: all or none.
    taken = [*LABELS, *(signal if tells_sn_survey(signal) else ())]
    names = {name: found[name] for name in (*taken, *POSITION) if name in found}
    check_once(path, columns, [key, *names.values()])
    further = (wish or Wish()).chosen(path, columns, {key, *names.values()})
    is_placing = survey is None or keys[0] in _ANY_KEYS
    if not names.keys() & {*LABELS, *SN} and not further and not (is_placing and names.keys() >= set(POSITION)):
        raise UsageError(
            f"{path}: no label column; expected any of class, subclass, {', '.join(NUMERIC_LABELS)}, or others that "
            "--labels names"
        )
    exact = by_meaning(columns, {})
    for name in asked:  # a cut may ask for `fe_h` by that name, too
        if same := [found[name]] if name in found else exact.get(name, []):
            names[name] = the_one(path, name, same)
    compared = tuple(name for name in asked if name in names and name in SCHEMA.names and name not in taken)
    account = _account(columns, key, {**further, **names}, compared, survey)
    return Choice(key, names, compared, account, further)


def key_rank(columns: Sequence[str], survey: str) -> int | None:
    """Which key of a survey a catalogue has, 0 for the one that is preferred; None where it has none."""
    known = SURVEYS[survey]
    meant = by_meaning(columns, {**ALIASES, **known.aliases})
    return next((rank for rank, name in enumerate(known.keys) if name in meant), None)


def unsaid_columns(columns: Sequence[str], names: Mapping[str, str], survey: str | None) -> dict[str, str]:
    """By name in lower case, each column that `Survey.unsaid` looks at, where any of them is taken for a label."""
    unsaid = SURVEYS[survey].unsaid if survey is not None else None
    if unsaid is None:
        return {}
    found = {low: column for column in columns if (low := column.strip().lower()) in unsaid.columns}
    return found if set(found.values()) & set(names.values()) else {}


def _is_error_of(column: str, error: str, value: str | None) -> bool:
    """Whether a column is the error of the column `value`, and not of another one of that meaning."""
    name = column.strip().lower()
    return name == error or name not in STEM_OF or (value is not None and STEM_OF[name] == value.strip().lower())


def _account(
    columns: Sequence[str],
    key: str,
    names: Mapping[str, str],
    compared: Collection[str],
    survey: str | None,
) -> ColumnAccount:
    used = {key, *names.values(), *unsaid_columns(columns, names, survey).values()}
    unused = [column for column in columns if column not in used]
    notes = [
        f"{column} is [M/H], of all metals, which is not taken for [Fe/H]; name it feh to do that"
        for column in unused
        if column.strip().lower() in ALL_METALS and "feh" not in names
    ]
    notes += [
        f"its {escaped(names[name])} is what the filter compares, where it gives one; the spectra keep the {name} of "
        "their files"
        for name in compared
    ]
    taken = {ours: escaped(theirs) for ours, theirs in names.items() if theirs.strip().lower() != ours}
    shown = tuple(map(escaped, unused[:_SHOWN]))
    return ColumnAccount(taken, shown, len(unused) - len(shown), tuple(notes))
