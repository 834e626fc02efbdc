"""How many processes were started together, and whether they see each other."""

from __future__ import annotations

import os

from specshards.common.errors import UsageError

#: By which variable a launcher says how many it started: torchrun; SLURM's srun, of the step (a batch script is one
#: process, whatever the job's tasks); mpirun of Open MPI, of MPICH and Intel MPI, of MVAPICH.
_COUNTS = {
    "WORLD_SIZE": "torchrun", "SLURM_STEP_NUM_TASKS": "srun", "OMPI_COMM_WORLD_SIZE": "mpirun",
    "PMI_SIZE": "mpirun", "MV2_COMM_WORLD_SIZE": "mpirun",
}  # fmt: skip
#: What torchrun tells each process, and torch needs to find the others.
_MEETING = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def launched() -> tuple[int, str]:
    """How many processes were started together, 1 for this one alone, and the variable that says so."""
    counts = {name: os.environ.get(name, "") for name in _COUNTS}
    return max(((int(count), name) for name, count in counts.items() if count.isdecimal()), default=(1, ""))


def alone(command: str, instead: str = "") -> None:
    """Refuse to run a command of one process in several, which would each do all of it and write the same files.

    Args:
        instead: a further word on what to do.

    Raises:
        UsageError: names the variable that says how many were started.
    """
    count, name = launched()
    if count > 1:
        more = f"; {instead}" if instead else ""
        raise UsageError(
            f"{command} is one process, and {name}={count}: start it without {_COUNTS[name]}, or unset {name}{more}"
        )


def can_meet() -> None:
    """Refuse a launch whose processes have not been told where to find each other.

    Raises:
        UsageError: names the variable that says how many were started, what is missing, and the mend.
    """
    count, _ = launched()
    _check_tasks()
    missing = [each for each in _MEETING if not os.environ.get(each)]
    if count > 1 and missing:
        raise unseen(f"no {', '.join(missing)}")


def _check_tasks() -> None:
    """Of torchruns that a scheduler started each must know of the others."""
    groups = os.environ.get("GROUP_WORLD_SIZE", "")
    for name, text in ((name, os.environ.get(name, "")) for name in _COUNTS if name != "WORLD_SIZE"):
        if groups.isdecimal() and text.isdecimal() and int(text) > int(groups):
            raise UsageError(
                f"{name}={text}: so many torchruns were started by {_COUNTS[name]}, and this one knows of {groups}; "
                f"give each --nnodes {text}, a common --rdzv-endpoint and --rdzv-backend c10d"
            )


def unseen(why: str) -> UsageError:
    """The error for processes that do not see each other: each would do all of the work, in one folder."""
    count, name = launched()
    return UsageError(
        f"{name}={count}: so many processes were started by {_COUNTS[name]} and do not see each other ({why}); start "
        f"them by `torchrun --nproc-per-node N -m specshards ...`, one torchrun a machine; for one alone unset {name}"
    )
