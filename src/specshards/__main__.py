"""`specshards`: the one command, which holds those of all rooms. Only the room that is asked for is imported."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import NoReturn

from specshards import __version__
from specshards.common.cli import run_app

#: Room -> the module with its `app`, and what it does.
ROOMS = {
    "ingest": ("specshards.ingest.__main__", "survey files to spectra Parquet"),
    "render": ("specshards.shards.gallery", "spectra as pictures, to look at"),
    "shards": ("specshards.shards.__main__", "spectra Parquet to tar shards; verify, merge, reshard"),
    "train": ("specshards.train.__main__", "fine-tune, evaluate, predict, explain, embed, export"),
    "tokenizer": ("specshards.train.tokenizer.__main__", "a self-supervised model of spectra on their own grids"),
    "bench": ("specshards.benchmarks.__main__", "measure each step, compare records, plan a survey"),
}


def main() -> NoReturn:
    """Run the command of a room: `specshards ROOM COMMAND ...`. Ends the process; exit code 2 for an unknown room."""
    room, *arguments = sys.argv[1:] or ["--help"]
    if room in ROOMS:
        run_app(import_module(ROOMS[room][0]).app, arguments, f"specshards {room}")
    if room == "--version":
        print(f"specshards {__version__}")
    elif room in ("--help", "-h", "help"):
        print("Usage: specshards ROOM COMMAND [OPTIONS]\n\nRooms:")
        for name, (_, about) in ROOMS.items():
            print(f"  {name:<10} {about}")
        print("\n`specshards ROOM --help` lists a room's commands, `specshards ROOM COMMAND --help` their options.")
    else:
        print(f"error: there is no room {room}; choose {', '.join(ROOMS)}", file=sys.stderr)
        sys.exit(2)
    sys.exit(0)


if __name__ == "__main__":
    main()
