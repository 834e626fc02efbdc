"""Jobs that are stopped in the middle: killed, on a full disk, without permission. `python -m tests.kills --help`."""
