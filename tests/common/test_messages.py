"""What a job tells people: lines of a command, silence for a library's user who asks for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from specshards.common.messages import LOGGER


def test_a_command_shows_what_happened_and_warns_beside_it(capsys: pytest.CaptureFixture[str]) -> None:
    LOGGER.info("100% of 5 are done")
    LOGGER.warning("every label is 3")
    assert capsys.readouterr() == ("100% of 5 are done\n", "warning: every label is 3\n")


@pytest.mark.parametrize(("level", "said"), [("NOTSET", "versions differ\n"), ("ERROR", "")])
def test_a_library_is_silent_but_for_warnings_and_they_can_be_silenced(tmp_path: Path, level: str, said: str) -> None:
    code = (
        "import logging\n"
        f"logging.getLogger('specshards').setLevel(logging.{level})\n"
        "from specshards.common.messages import LOGGER\n"
        "LOGGER.info('resuming')\n"
        "LOGGER.warning('versions differ')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", said)
