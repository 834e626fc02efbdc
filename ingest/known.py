"""`specshards ingest surveys`: what SURVEY= takes, and what is known of each."""

from __future__ import annotations


def command() -> None:
    """List the surveys whose files are read: what SURVEY= and --survey take, also those of other packages."""
    from specshards.common.text import aligned
    from specshards.ingest.surveys.survey import SURVEYS

    rows = [("survey", "its catalogues join on", "flux", "mock")]
    for survey in sorted(SURVEYS.values(), key=lambda one: (-one.priority, one.name)):
        if survey.parts:
            rows.append((survey.name, f"of {' and '.join(survey.parts)}, merged", "", "yes"))
        else:
            keys = " or ".join(survey.keys[:3]) + (" or ..." if survey.keys[3:] else "")
            has_mock = "yes" if survey.mock is not None else ""
            rows.append((survey.name, keys, survey.flux_unit or "as the file says", has_mock))
    print("\n".join(aligned(rows, left=range(4))))
    print("Layouts: docs/layouts.md. Without a survey, a file is taken for what is in it.")
