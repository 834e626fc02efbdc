"""What decides the spectra of an ingest job."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from specshards.common.errors import UsageError
from specshards.ingest.catalogue.cuts import Cut, cut_for
from specshards.ingest.limits import parse_size
from specshards.ingest.surveys import SURVEYS, check_survey
from specshards.ingest.surveys.stated import check_spectra_stated
from specshards.ingest.surveys.wavelengths import FRAMES, MEDIA, UNITS, check_stated
from specshards.ingest.tables import Stated

#: Files that a command can be asked for by number.
MOST_FILES = 1_000_000
#: Of a configuration, where nobody said it.
_LEFT_OUT = ("joint", "wavelength_unit", "medium", "columns", "unit", "frame", "name", "labels", "wavelengths")


@dataclass(frozen=True)
class IngestConfig:
    """What decides the bytes of the output, and nothing else (no paths, no worker counts).

    Attributes:
        survey: whose files to take: `lamost`, `sdss` or `desi`; None for any that are known.
        limit: files: of the mock survey (2000), or a random choice of those that are given.
        mock_files: the size of the mock survey that the files are of, if they are.
        cuts: selection cuts by name: `paper` (of the published training sets).
        where: a filter, as: snrg > 10 and class in ('STAR', 'QSO') and teff is not null
        listed_only: set aside what the catalogue does not list.
        joint: the joint survey that is made, of which `survey` is a part: what is of its other parts is set aside.
        wavelength_unit: of tables that do not say it, or say what their range contradicts.
        medium: of the wavelengths of tables that do not say it: `vacuum`, or `air`, which is converted.
        columns: of files whose columns nobody knows: names or numbers (from 1) of wavelength, flux and error, as
            wl,flam,err; or wavelength=wl,flux=flam,ivar=iv,mask=bad,id=name.
        unit: of the flux of files that do not say it, as "erg/s/cm2/AA", mJy, or relative.
        frame: of the wavelengths of files that do not say it: `observed`, or `rest`.
        labels: further columns of the catalogue to keep beside the labels, as: mg_fe,stellar_mass; or all. Of the
            files' own further labels, these are kept then, too, and no others.
        name: the survey's name, of spectra that do not say whose they are.
        wavelengths: of tables whose pixels are only numbered, first:last:step, as 1100:2298:2.
        files_per_part: files of one task, at most.
        row_group_rows: rows of one Parquet row group, the unit that `shards` reads and mixes.
        seed: of the random file order.
        max_file_size: how large a FITS file may be, uncompressed, such as 2GB. By default 512 MiB; for a plain DESI
            coadd, which is mapped, 16 GiB.
    """

    survey: str | None = None
    limit: int | None = field(default=None, metadata={"option": "n"})
    mock_files: int | None = field(default=None, metadata={"option": False})
    cuts: str | None = None
    where: str | None = None
    listed_only: bool = False
    joint: str | None = field(default=None, metadata={"option": False})
    wavelength_unit: str | None = field(default=None, metadata={"values": lambda: UNITS})
    medium: str | None = field(default=None, metadata={"values": lambda: MEDIA})
    columns: str | None = None
    unit: str | None = None
    frame: str | None = field(default=None, metadata={"values": lambda: FRAMES})
    name: str | None = None
    labels: str | None = None
    wavelengths: str | None = None
    files_per_part: int = 512
    row_group_rows: int = 128
    seed: int = 0
    max_file_size: int | None = field(default=None, metadata={"parse": parse_size})

    def __post_init__(self) -> None:
        """Check the fields."""
        check_survey(self.survey)
        check_stated(self.wavelength_unit, self.medium)
        check_spectra_stated(Stated.of(asdict(self)), self.survey)
        if self.survey is not None:  # cuts are a survey's
            self.cut()
        if self.limit is not None and self.limit < 1:
            raise UsageError(f"N={self.limit}: give a number of files from 1 to {MOST_FILES:,}")
        for name in ("files_per_part", "row_group_rows"):
            if not 1 <= getattr(self, name) <= MOST_FILES:
                raise UsageError(f"{name}={getattr(self, name)}: give a number from 1 to {MOST_FILES:,}")
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"seed={self.seed}: give 0 or a positive number")

    def to_dict(self) -> dict[str, Any]:
        """JSON-able content, without what nobody said: so a folder of an earlier version is known again."""
        content = asdict(self)
        return {k: v for k, v in content.items() if v is not None or k not in _LEFT_OUT}

    @property
    def parts(self) -> tuple[str, ...]:
        """The surveys of `joint`."""
        return () if self.joint is None else SURVEYS[self.joint].parts

    def cut(self) -> Cut | None:
        """Both filters as one, None without any."""
        return cut_for(self.cuts, self.where, self.survey)
