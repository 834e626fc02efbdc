"""What a user says of spectra whose files do not say it; `ingest.surveys.stated` checks it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Stated:
    """What a user says of spectra where their files do not say it themselves. None says nothing.

    Attributes:
        wavelength_unit: of tables that do not say it, or say what their range contradicts, as nm or cm-1.
        medium: of the wavelengths of files that do not say it: `vacuum`, or `air`, which is converted.
        columns: of files whose columns nobody knows: names or numbers (from 1) of wavelength, flux and error, as
            wl,flam,err; or wavelength=wl,flux=flam,ivar=iv,mask=bad,id=name.
        unit: of the flux of files that do not say it, as "erg/s/cm2/AA", mJy, or relative.
        frame: of the wavelengths of files that do not say it: `observed`, or `rest`.
        name: the survey's name, of spectra that do not say whose they are.
        wavelengths: of tables whose pixels are only numbered, first:last:step, as 1100:2298:2.
    """

    wavelength_unit: str | None = None
    medium: str | None = None
    columns: str | None = None
    unit: str | None = None
    frame: str | None = None
    name: str | None = None
    wavelengths: str | None = None

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Stated:
        """What an `IngestConfig.to_dict` states."""
        return cls(**{field.name: config.get(field.name) for field in fields(cls)})

    def to_dict(self) -> dict[str, str]:
        """What is stated, JSON-able; `of` is the inverse."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def typed(self) -> str:
        """As options of a command."""
        return " ".join(f"--{name.replace('_', '-')} {shlex.quote(value)}" for name, value in self.to_dict().items())


UNSTATED = Stated()
