"""The joint data set of SDSS and LAMOST (Spectromer, A&A 709, A122, section 2)."""

from __future__ import annotations

from specshards.ingest.surveys.survey import Survey, register

register(Survey("slomost", parts=("sdss", "lamost")))
