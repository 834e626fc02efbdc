"""`make shards`: from the name of a survey to its data set, by way of spectra where there are none yet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from specshards.ingest.job.survey import ingest_survey
from specshards.ingest.spectra.folder import holds_spectra
from specshards.ingest.surveys import SURVEYS, check_survey
from specshards.shards.format.manifest import Manifest, ShardConfig
from specshards.shards.report.make import make_page
from specshards.shards.write.build import build
from specshards.shards.write.reshard import remake


def make(survey: str, out: Path, config: ShardConfig, choice: dict[str, Any]) -> Manifest:
    """Make the data set of a survey, and its page, in `out/shards/IMAGE`.

    Args:
        out: the spectra go to `out/spectra`; of a joint survey each part has a folder in `out`.
        choice: arguments of `ingest_survey`: data, catalogue, n, cuts, where, listed_only, seed, engine,
            max_bad_fraction, force.

    Raises:
        UsageError: wrong arguments. JobError: too many bad objects, or the environment failed.
    """
    shards = out / "shards" / config.image.image
    parts = SURVEYS[survey].parts if survey in SURVEYS else ()
    if parts:
        # Parquet may hold several surveys already, and says of each row which.
        if not _is_drawn(choice):
            for part in parts:
                print(f"--- {part}")
                make(part, out / part, config, choice)
            print(f"--- {survey}")
            folders = [out / part / "shards" / config.image.image for part in parts]
            return _reported(remake(folders, shards, engine=choice["engine"], force=choice["force"]), shards)
    else:
        check_survey(survey)
    draw = {name: choice[name] for name in ("engine", "max_bad_fraction", "force")}
    if _is_drawn(choice):
        where = Path(choice["data"]).expanduser()
        whose = None if parts else survey
        return _reported(build(config, where, shards, survey=whose, **draw), shards)
    ingest_survey(survey, out, **choice)
    return _reported(build(config, out / "spectra", shards, **draw), shards)


def _reported(manifest: Manifest, folder: Path) -> Manifest:
    make_page(folder)
    return manifest


def _is_drawn(choice: dict[str, Any]) -> bool:
    """Whether DATA is spectra Parquet that can be drawn as it is: nothing is to be chosen of it, or joined to it."""
    selects = any(choice[name] is not None for name in ("catalogue", "n", "cuts", "where"))
    return choice["data"] is not None and not selects and holds_spectra(Path(choice["data"]).expanduser())
