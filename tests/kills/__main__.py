"""Stop every job in the middle, start it again, and compare what it leaves with an undisturbed run.

    python -m tests.kills --kills 40 --seed 0          (behind `make kills`)

Three ways to stop one: SIGKILL at a random moment, to the process or to it and its workers; a disk that is full at a
random point (needs root, which may mount one); and, as a user who is not root, an input or an OUT without permission.
A job that was stopped says so in one line, without a traceback, and its rerun ends in the very same bytes.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.kills.jobs import JOBS, QUIET, Job, Reference, digests, prepare, run
from tests.oracles.file_server import running

#: Root without the right to pass over permissions.
AS_A_USER = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search") if os.geteuid() == 0 else ()


class Trial:
    """The jobs, their inputs and what undisturbed runs of them leave."""

    def __init__(self, work: Path, url: str, chance: random.Random) -> None:
        self.work, self.url, self.chance, self.faults = work, url, chance, 0

    def fresh(self, job: Job, out: Path) -> Path:
        shutil.rmtree(out, ignore_errors=True)
        if job.copies:
            shutil.copytree(self.work / job.copies, out)
        return out

    def reference(self, job: Job) -> Reference:
        """Two undisturbed runs, in the folder in which all others are made: some files hold its name."""
        found, seconds = [], 0.0
        for _ in range(2):
            out = self.fresh(job, self.work / "out")
            started = time.monotonic()
            done = run(job.command(self.work, out, self.url))
            seconds = time.monotonic() - started
            if done.returncode:
                raise SystemExit(f"{job.name}: does not end: {done.stderr.strip()[-300:]}")
            found.append(digests(out))
        one, two = found
        clocks = frozenset(name for name in one.keys() | two.keys() if one.get(name) != two.get(name))
        return Reference({name: one[name] for name in one if name not in clocks}, clocks, seconds)

    def judge(self, job: Job, reference: Reference, out: Path, how: str) -> None:
        """Start the job again, and compare."""
        done = run(job.command(self.work, out, self.url))
        wrong = [f"rerun: {done.stderr.strip()[-200:]}"] if done.returncode else reference.differences(out)
        wrong += [f"left behind: {path.name}" for path in out.rglob("*.tmp")]
        self.say(job, how, wrong)

    def say(self, job: Job, how: str, wrong: list[str]) -> None:
        self.faults += bool(wrong)
        print(f"{job.name:22} {how:44} {'WRONG: ' + '; '.join(wrong[:4]) if wrong else 'equal'}", flush=True)

    def kill(self, job: Job, reference: Reference, times: int) -> None:
        """SIGKILL after a random share of the job's time, `times` times in one folder; then a rerun."""
        out, moments = self.fresh(job, self.work / "out"), []
        for _ in range(times):
            group = self.chance.random() < 0.5
            process = subprocess.Popen(
                job.command(self.work, out, self.url), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                start_new_session=True, env=QUIET,
            )  # fmt: skip
            # Starting up takes most of a small job's time, and nothing can go wrong then.
            after = reference.seconds * self.chance.uniform(0.35, 1.0)
            try:
                process.wait(after)
            except subprocess.TimeoutExpired:
                moments.append(f"{after:.1f} s{' with workers' if group else ''}")
            if process.poll() is None:
                (os.killpg if group else os.kill)(process.pid, signal.SIGKILL)
            process.wait()
            if not group:  # workers whose parent is gone end by themselves
                time.sleep(1.0)
        self.judge(
            job, reference, out, f"killed after {', '.join(moments) or 'it had ended'} of {reference.seconds:.1f}"
        )

    def full(self, job: Job, reference: Reference) -> None:
        """A disk that fills up in the middle: one line; then with room, a rerun."""
        total = sum(path.stat().st_size for path in (self.work / "out").rglob("*") if path.is_file())
        start = self.work / job.copies if job.copies else None
        before = sum(path.stat().st_size for path in start.rglob("*") if path.is_file()) if start else 0
        kilobytes = int((before + (total - before) * self.chance.uniform(0.05, 0.9)) / 1000) + 60
        with disk(self.work / "out", kilobytes) as out:
            if job.copies:
                shutil.copytree(self.work / job.copies, out, dirs_exist_ok=True)
            done = run(job.command(self.work, out, self.url))
            how = f"disk of {kilobytes} kB, {total // 1000} kB needed"
            if done.returncode:
                wrong = one_line(done, "disk is full")
                if wrong:
                    self.say(job, how, wrong)
            subprocess.run(["mount", "-o", "remount,size=400m", str(out)], check=True)
            self.judge(job, reference, out, how + (": one line" if done.returncode else ": it fitted"))

    def denied(self, job: Job) -> None:
        """By someone who may not write OUT; root may do that everywhere, so it gives that right away."""
        with tempfile.TemporaryDirectory(prefix="denied-") as folder:
            place = Path(folder) / "closed"
            place.mkdir()
            if job.copies:
                shutil.copytree(self.work / job.copies, place / "out")
                (place / "out").chmod(0o555)
            place.chmod(0o555)
            before = digests(place)
            done = run([*AS_A_USER, *job.command(self.work, place / "out", self.url)])
            changed = [] if digests(place) == before else ["something was written"]
            self.say(job, "OUT without permission: one line", one_line(done, "no permission") + changed)
            for path in (place, *place.iterdir()):
                path.chmod(0o755)


def one_line(done: subprocess.CompletedProcess[str], wanted: str) -> list[str]:
    """What is wrong with the last words of a job that could not go on."""
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    wrong = ["a traceback"] if "Traceback" in done.stderr else []
    if done.returncode != 1 or len(errors) != 1 or wanted not in errors[0]:
        wrong.append(f"exit {done.returncode}, said {' | '.join(errors) or done.stderr.strip()[-200:]}")
    return wrong


@contextmanager
def disk(folder: Path, kilobytes: int) -> Iterator[Path]:
    """A file system of that size on `folder`."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.kills", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--kills", type=int, default=40, help="how many, over all jobs")
    parser.add_argument("--full", type=int, default=2, help="full disks for each job")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--only", default="", help="jobs whose name has this in it")
    options = parser.parse_args()
    chance = random.Random(options.seed)
    jobs = [job for job in JOBS if options.only in job.name]
    root = os.geteuid() == 0
    with tempfile.TemporaryDirectory(prefix="kills-") as folder, running() as server:
        work = Path(folder)
        prepare(work, server)
        trial = Trial(work, server.url, chance)
        killed = 0
        for number, job in enumerate(jobs):
            reference = trial.reference(job)
            for _ in range(options.full if root else 0):
                trial.full(job, reference)
                trial.fresh(job, work / "out")
                run(job.command(work, work / "out", server.url))
            share = options.kills * (number + 1) // len(jobs) - killed
            while share > 0:
                times = min(share, chance.randint(1, 3))
                trial.kill(job, reference, times)
                share, killed = share - times, killed + times
            if root:
                trial.denied(job)
        print(
            f"{killed} kills over {len(jobs)} jobs, {trial.faults} wrong" + ("" if root else "; no disks: not root")
        )
        return int(trial.faults > 0)


if __name__ == "__main__":
    sys.exit(main())
