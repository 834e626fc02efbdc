"""`make shards`: from the name of a survey to its data set, by way of spectra where there are none yet."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from specshards.common.errors import UsageError
from specshards.common.jobs import Engine
from specshards.common.messages import LOGGER
from specshards.ingest.job.build import IngestConfig
from specshards.ingest.job.survey import catalogues_of, ingest_survey
from specshards.ingest.spectra.folder import holds_spectra
from specshards.ingest.surveys import SURVEYS, check_survey
from specshards.shards.format.manifest import Manifest, ShardConfig
from specshards.shards.report.make import make_page
from specshards.shards.write.build import build
from specshards.shards.write.reshard import remake
from specshards.shards.write.suited import suits_all


@dataclass(frozen=True)
class SurveyInput:
    """What a data set is made from.

    Attributes:
        data: folder, glob or file of spectra; None makes a mock survey.
        catalogue: label table that is joined to them; of a joint survey several with commas, each part taking the one
            that has its key.
        chosen: what of them; its survey does not count.
    """

    data: str | None = None
    catalogue: Path | None = None
    chosen: IngestConfig = field(default_factory=IngestConfig)

    @property
    def drawn(self) -> Path | None:
        """The spectra Parquet that can be drawn as it is, because nothing is to be chosen of it, or joined to it."""
        chosen = self.chosen
        options = (self.catalogue, chosen.limit, chosen.cuts, chosen.where, chosen.joint, chosen.labels)
        selects = any(option is not None for option in options)
        if self.data is None or selects:
            return None
        folder = Path(self.data).expanduser()
        return folder if holds_spectra(folder) else None

    def of_parts(self, joint: str, parts: Sequence[str]) -> dict[str, SurveyInput]:
        """What each part of a joint survey is made from: the same data, of which it sets aside what is of the others.

        Raises:
            UsageError: a catalogue that no part can take, or two for one part.
        """
        catalogues = catalogues_of(parts, self.catalogue)
        if self.chosen.listed_only and (without := [part for part in parts if part not in catalogues]):
            raise UsageError(f"--listed-only: needs a --catalog of {' and '.join(without)}, too")
        # A mock is of its survey alone.
        chosen = self.chosen if self.data is None else replace(self.chosen, joint=joint)
        return {part: SurveyInput(self.data, catalogues.get(part), chosen) for part in parts}


def make(
    survey: str, source: SurveyInput, out: Path, config: ShardConfig, *, said: Collection[str] | None = None,
    engine: Engine | None = None, max_bad_fraction: float = 0.05, allow_empty_split: bool = False,
    force: bool = False,
) -> Manifest:  # fmt: skip
    """Make the data set of a survey, and its page, in `out/shards/IMAGE`.

    Args:
        out: the spectra go to `out/spectra`; of a joint survey each part has a folder in `out`.
        said: the fields of the picture that are to stay as they are; the others may become what suits the survey
            (see `shards.write.suited`). None: all stay.
        max_bad_fraction: the job fails when more than this share of objects is bad.
        allow_empty_split: a split that is to have a share of the objects may have none.
        force: replace what another input or configuration left in `out`.

    Raises:
        UsageError: wrong arguments. JobError: too many bad objects, or the environment failed.
    """
    image, spectra = config.image.image, source.drawn
    shards = out / "shards" / image
    parts = SURVEYS[survey].parts if survey in SURVEYS else ()
    if not parts:
        check_survey(survey)
    if spectra is None and parts:
        if config.best_of is not None:
            raise UsageError(
                f"--best-of {config.best_of}: SURVEY={survey} is merged from {' and '.join(parts)}, each of which "
                "has its own best visits; draw the spectra of all of them at once with `shards build --spectra`"
            )
        of_parts = source.of_parts(survey, parts)
        if said is not None:
            config = replace(config, image=suits_all(config.image, parts, said))
        for part in parts:
            LOGGER.info(f"--- {part}")
            make(part, of_parts[part], out / part, config, engine=engine, max_bad_fraction=max_bad_fraction,
                 allow_empty_split=True, force=force)  # fmt: skip
        LOGGER.info(f"--- {survey}")
        folders = [out / part / "shards" / image for part in parts]
        manifest = remake(folders, shards, allow_empty_split=allow_empty_split, engine=engine, force=force)
    else:
        # Parquet of a joint survey may hold several surveys already, and says of each row which.
        whose = None if spectra is None or parts else survey
        if spectra is None:
            chosen = replace(
                source.chosen, survey=survey, wavelength_unit=config.wavelength_unit, medium=config.medium
            )
            config = replace(config, wavelength_unit=None, medium=None)  # what is ingested is in Angstrom
            ingest_survey(chosen, out, data=source.data, catalogue=source.catalogue, engine=engine,
                          max_bad_fraction=max_bad_fraction, force=force)  # fmt: skip
            spectra = out / "spectra"
        manifest = build(config, spectra, shards, survey=whose, said=said, engine=engine,
                         max_bad_fraction=max_bad_fraction, allow_empty_split=allow_empty_split,
                         force=force)  # fmt: skip
    make_page(shards)
    return manifest
