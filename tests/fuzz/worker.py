"""A process that judges variants as they are named to it, a line of JSON each; it may crash, and is watched."""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

from tests.fuzz.judge import judge

#: Address space, so that a bomb ends this process and not the machine.
MOST_SPACE = 12 << 30


def main() -> None:
    """Answer each line of standard input."""
    resource.setrlimit(resource.RLIMIT_AS, (MOST_SPACE, MOST_SPACE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answers = sys.stdout
    sys.stdout = sys.stderr
    for line in sys.stdin:
        asked = json.loads(line)
        verdict = judge(Path(asked["path"]), asked["layout"], Path(asked["original"]))
        print(json.dumps(verdict), file=answers, flush=True)


if __name__ == "__main__":
    main()
