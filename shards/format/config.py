"""What decides the bytes of a shard folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from specshards.common.errors import UsageError
from specshards.common.text import printable
from specshards.ingest.surveys.wavelengths import MEDIA, UNITS, check_stated
from specshards.render import ImageConfig
from specshards.shards.format.encoding import ENCODINGS

#: What goes into one split as a whole.
SPLIT_BY = {
    "sky": "a cell of the sky, so that visits of an object, and an object in two surveys, fall together; without a "
    "position an object goes by its id",
    "object": "each object by itself, with all its visits",
    "row": "each spectrum by itself, as the published code does: visits of one object fall into different splits",
}
#: Fields that came later, and their defaults, which are not written.
_LATER: dict[str, Any] = {
    "best_of": None,
    "wavelength_unit": None,
    "medium": None,
    "split_by": "sky",
    "group": None,
    "lsf": False,
}


@dataclass(frozen=True)
class ShardConfig:
    """What decides the bytes of a shard folder.

    Attributes:
        image: which picture, at which size, through which window and scale.
        encoding: how a sample is stored.
        jpeg_quality: of `encoding="jpeg"`, 90 to 100.
        samples_per_shard: samples aimed at in one tar; whole row groups make a shard, so that each is read once.
        split: shares of train, val and test over what `split_by` names.
        split_by: what goes into one split as a whole.
        split_nside: HEALPix nside of the cells of `split_by="sky"` (64: 0.92 degrees). Finer ones are taken where
            these do not give every split its share, as in a single deep field.
        group: a column, such as plate, field or site: all spectra of one value go into one split, whatever their
            position. In place of split_by.
        seed: of the split, of the order of row groups and of rows.
        best_of: `object` keeps one visit of each, that of the highest S/N, and leaves out the others; an object is
            one id of a survey, or what lies within two arcseconds.
        wavelength_unit: of tables that are drawn as they are and do not say it, or say what their range contradicts.
        medium: of the wavelengths of such tables: `vacuum`, or `air`, which is converted.
        lsf: keep the width of each pixel's line-spread function, where the survey gives it, beside the flux; of
            encoding flux alone. For tokenizers pretrained with --lsf.
    """

    image: ImageConfig = field(default_factory=ImageConfig)
    encoding: str = field(
        default="png", metadata={"values": lambda: {name: kind.about for name, kind in ENCODINGS.items()}}
    )
    jpeg_quality: int = 95
    samples_per_shard: int = 8192
    split: tuple[float, float, float] = (0.8, 0.1, 0.1)
    split_by: str = field(default="sky", metadata={"values": lambda: SPLIT_BY})
    split_nside: int = 64
    group: str | None = None
    seed: int = 0
    best_of: str | None = None
    wavelength_unit: str | None = field(default=None, metadata={"values": lambda: UNITS})
    medium: str | None = field(default=None, metadata={"values": lambda: MEDIA})
    lsf: bool = False

    def __post_init__(self) -> None:
        """Check the fields; UsageError names the field and what is allowed."""
        check_stated(self.wavelength_unit, self.medium)
        if self.best_of not in (None, "object"):
            raise UsageError(f"best_of={self.best_of}: give `object`, or nothing for every visit")
        if ENCODINGS.choose(self.encoding).needs_picture and self.lsf:
            raise UsageError(
                f"lsf: a picture ({self.encoding}) has no place for it; make the shards with ENCODING=flux"
            )
        if not 90 <= self.jpeg_quality <= 100:
            raise UsageError(f"jpeg_quality={self.jpeg_quality}: give 90 to 100; less blurs the lines of a spectrum")
        if (
            len(self.split) != 3
            or not all(0 <= share <= 1 for share in self.split)
            or abs(sum(self.split) - 1) > 1e-9
        ):
            raise UsageError(f"split={self.split}: give three shares, train, val, test, that add up to 1")
        if not 1 <= self.samples_per_shard < 2**40:
            raise UsageError(f"samples_per_shard={self.samples_per_shard}: give a positive number")
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"seed={self.seed}: give a whole number from 0 on")
        if self.split_by not in SPLIT_BY:
            raise UsageError(f"split_by={self.split_by}: choose {', '.join(SPLIT_BY)}")
        if self.split_by != "sky" and self.split_nside != ShardConfig.split_nside:
            raise UsageError(f"split_nside={self.split_nside}: of split_by=sky, not of {self.split_by}; leave it out")
        if self.group is not None and not self.group.strip():
            raise UsageError("group: give the name of a column")
        if self.group is not None and (self.split_by != "sky" or self.split_nside != ShardConfig.split_nside):
            raise UsageError(
                f"group={printable(self.group)}: takes the place of split_by and split_nside; leave those out"
            )
        if not 1 <= self.split_nside <= 2**29 or self.split_nside & (self.split_nside - 1):
            raise UsageError(f"split_nside={self.split_nside}: give a power of two")

    @property
    def rule(self) -> str:
        """What goes into one split as a whole: `sky`, `object`, `row`, or the column of the group."""
        return self.split_by if self.group is None else printable(self.group)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able content, without later fields that nobody asked for: data sets of before are known again."""
        content = {**asdict(self), "image": self.image.to_dict(), "split": list(self.split)}
        return {k: v for k, v in content.items() if k not in _LATER or v != _LATER[k]}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> ShardConfig:
        """The inverse of `to_dict`."""
        return cls(**{**content, "image": ImageConfig.from_dict(content["image"]), "split": tuple(content["split"])})
