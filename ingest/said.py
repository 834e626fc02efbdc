"""What a user says of spectra whose files do not say it; `ingest.surveys.stated` checks it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Stated:
    """What a user says of spectra where their files do not say it themselves. None says nothing.

    Attributes:
        wavelength_unit, medium: see `ingest.surveys.wavelengths`.
        columns: which are which: `wl,flam,err` (wavelength, flux, error), names or numbers from 1, or
            `wavelength=wl,flux=flam,ivar=iv`.
        unit: of the flux, as `ingest.surveys.flux.unit_of` reads it.
        frame: of the wavelengths, `observed` or `rest`.
        name: of the survey, of spectra that do not say whose they are.
    """

    wavelength_unit: str | None = None
    medium: str | None = None
    columns: str | None = None
    unit: str | None = None
    frame: str | None = None
    name: str | None = None

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Stated:
        """What an `IngestConfig.to_dict` states."""
        return cls(**{field.name: config.get(field.name) for field in fields(cls)})


UNSTATED = Stated()
