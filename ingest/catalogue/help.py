"""Help texts that name the surveys and the cuts of other packages too.

The registry is loaded when help is asked for, so that no command starts slower for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from typer.core import TyperCommand, TyperOption


class SurveyCommand(TyperCommand):
    """A command whose help of `--survey` and `--cuts` ends with the names that its text does not have."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help."""
        from specshards.ingest.catalogue.cuts import cut_names
        from specshards.ingest.surveys.survey import with_files

        names = {"survey": [survey.name for survey in with_files()], "cuts": cut_names()}
        for option in self.params:
            if isinstance(option, TyperOption) and option.help:
                more = [name for name in names.get(option.name or "", ()) if name not in option.help]
                option.help += f" Also: {', '.join(more)}." if more else ""
        super().format_help(ctx, formatter)


def naming_surveys(command: Callable[..., None]) -> Callable[..., None]:
    """A decorator of a command whose help shall name them."""
    vars(command)["command_class"] = SurveyCommand
    return command
