"""Labels that no object can have: what was taken away, counted with examples.

`common.spectrum.LIMITS` says what is possible, `common.spectrum.sift` and `common.label_columns` take it away.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

_EXAMPLES = 3
_WORD = 40


@dataclass
class Impossible:
    """An account of labels that were taken away.

    Attributes:
        counts: by label.
        examples: of each, the first few as pairs of value and object.
    """

    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[list[str]]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self.counts)

    def add(self, name: str, value: Any, object_id: str) -> None:
        """Count one value."""
        self.counts[name] = self.counts.get(name, 0) + 1
        shown = self.examples.setdefault(name, [])
        if len(shown) < _EXAMPLES:
            word = f"{value:.7g}" if isinstance(value, float) else " ".join(str(value).split())
            shown.append([word[:_WORD], object_id])

    def update(self, other: Impossible) -> None:
        """Add the counts of `other`, and its examples where there is room."""
        for name, n in other.counts.items():
            self.counts[name] = self.counts.get(name, 0) + n
            shown = self.examples.setdefault(name, [])
            shown.extend(other.examples.get(name, ())[: _EXAMPLES - len(shown)])

    def lines(self) -> list[str]:
        """Plain text, a line a label."""
        return [
            f"impossible {n:>7,}  {name}, now missing: "
            f"{', '.join(f'{value} ({who})' for value, who in self.examples.get(name, ()))}"
            f"{', ...' if n > _EXAMPLES else ''}; possible: {_possible(name)}"
            for name, n in sorted(self.counts.items())
        ]

    @classmethod
    def sum(cls, accounts: Iterable[Impossible]) -> Impossible:
        """All together."""
        total = cls()
        for account in accounts:
            total.update(account)
        return total

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Impossible:
        """From the `asdict` of one, as JSON gives it back."""
        return cls(dict(content.get("counts", {})), {k: list(v) for k, v in content.get("examples", {}).items()})


def _possible(name: str) -> str:
    from specshards.common.spectrum import CLASSES, LIMITS  # numpy, which help and lists of commands do without

    return {"class": ", ".join(CLASSES), "subclass": "text"}.get(name) or str(LIMITS[name])
