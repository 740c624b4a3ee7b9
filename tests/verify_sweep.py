"""Proves on this machine that a sweep cannot be lost: ``python tests/verify_sweep.py [--kills 20] [overrides …]``.

A sweep runs once undisturbed. Then it is started anew, killed in random ways at random moments and continued with
``hydra.sweep.dir=<folder> retry_failed=true`` until all its jobs are finished; anew until there were so many kills.
The jobs, their weights, figures and TensorBoard's curves must equal the undisturbed sweep's to the bit, and no process
may be left. Exit status: 0 if so every time, else 1.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGTERM
from typing import Any

sys.path.append(str(Path(__file__).parent))

from verify_resume import TRAIN, differences, outcome

SWEEP = ["seed=0,1,2", "model.activation=relu,tanh", "model.dropout=0.2", "trainer.max_epochs=80"]
KEPT = "trainer.callbacks.checkpoints.keep_last=true"

WAYS = {
    "launcher": (SIGKILL, (-SIGKILL,)),
    "group": (SIGKILL, (-SIGKILL,)),  # of the launcher, with the server of the jobs
    "everything": (SIGKILL, (-SIGKILL,)),
    "job": (SIGKILL, (0, 1)),  # one that had done all has not failed
    "server": (SIGKILL, (0, 1)),  # another takes its place
    "SIGINT": (SIGINT, (130, -SIGINT)),
    "SIGTERM": (SIGTERM, (143, -SIGTERM)),
}
"""What is killed, or the signal that the launcher's process group gets; how the launcher may end."""

PATIENCE_SECONDS = 300.0
MARK = "VERIFY_SWEEP"
"""A variable in the environment of every process of a sweep."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a line for each sweep, and the sum. Returns the exit status."""
    parser = argparse.ArgumentParser("python tests/verify_sweep.py", description="Proves that a sweep cannot be lost.")
    parser.add_argument("--kills", type=int, default=20, help="0 compares two undisturbed sweeps")
    parser.add_argument("--seed", type=int, default=0, help="of the ways and moments")
    parser.add_argument("--folder", type=Path, help="where sweeps are kept")
    parser.add_argument("overrides", nargs="*", default=SWEEP, help="a sweep of yours instead, as for train.py -m")
    options = parser.parse_args(arguments)
    folder = (options.folder or Path(tempfile.mkdtemp(prefix="verify_sweep-"))).resolve()
    rng = random.Random(options.seed)
    begun = time.monotonic()
    reference = Sweep(folder / "undisturbed", options.overrides)
    status = reference.start().wait()
    seconds = time.monotonic() - begun
    expected = reference.outcome()
    problems = [f"the undisturbed sweep ended with status {status}"] if status or not expected else []
    kills: Counter[str] = Counter()
    number = 0
    while not problems and (number == 0 or kills.total() < options.kills):
        number += 1
        sweep = Sweep(folder / str(number), options.overrides)
        begun = time.monotonic()
        own_kills = sweep.carry_through(rng, seconds, options.kills - kills.total())
        if not own_kills:  # the machine has become quieter
            seconds = min(seconds, time.monotonic() - begun)
        kills += own_kills
        problems += sweep.problems
        if not sweep.problems and (different := differences(expected, sweep.outcome())):
            problems.append(f"{sweep.folder} differs from the undisturbed sweep in {', '.join(different)}")
        words = ", ".join(f"{count} {way}" for way, count in sorted(own_kills.items()))
        print(
            f"sweep {number}: {own_kills.total()} kills ({words}): {'; '.join(problems) or 'identical'}",
            flush=True,
        )
        if not problems:
            shutil.rmtree(sweep.folder)
    print(f"{kills.total()} kills of {number} sweeps: {'a difference' if problems else 'the same results every time'}")
    if problems or options.folder:
        print(*problems, f"the sweeps are in {folder}", sep="\n")
    else:
        shutil.rmtree(folder)
    return int(bool(problems))


class Sweep:
    """A sweep, killed and continued until it is finished."""

    def __init__(self, folder: Path, overrides: Sequence[str]) -> None:
        self.folder = folder
        self.command = [sys.executable, str(TRAIN), "-m", KEPT, *overrides, f"hydra.sweep.dir={folder}"]
        self.problems: list[str] = []

    def start(self) -> subprocess.Popen[bytes]:
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with open(f"{self.folder}.log", "ab") as log:
            return subprocess.Popen(
                [*self.command, "retry_failed=true"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, MARK: str(self.folder)},
                start_new_session=True,
            )

    def carry_through(self, rng: random.Random, seconds: float, wanted: int) -> Counter[str]:
        """Kills it up to ``wanted`` times. Returns how often it was killed in which way.

        seconds: how long it takes undisturbed.
        """
        kills: Counter[str] = Counter()
        while True:
            process = self.start()
            way = rng.choice(list(WAYS)) if kills.total() < wanted else ""
            try:
                status = process.wait(rng.uniform(0, seconds) if way else PATIENCE_SECONDS)
                if status:
                    self.problems.append(f"it ended with status {status}, see {self.folder}.log")
                break
            except subprocess.TimeoutExpired:
                if not way:
                    self.problems.append(f"it hangs, see {self.folder}.log")
                    self._kill("everything", process)
                    break
            if not self._kill(way, process):
                process.kill()
                way = "launcher"
            kills[way] += 1
            try:
                status = process.wait(PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                self.problems.append(f"{way} did not end it, see {self.folder}.log")
                self._kill("everything", process)
                break
            if status not in WAYS[way][1]:
                self.problems.append(f"{way} ended it with status {status}, see {self.folder}.log")
                break
        deadline = time.monotonic() + 30
        while (left := self._processes()) and time.monotonic() < deadline:
            time.sleep(0.1)
        if left:
            self.problems.append(f"processes {left} are left")
        return kills

    def _kill(self, way: str, process: subprocess.Popen[bytes]) -> bool:
        """False if there is none of that kind at the moment."""
        number = WAYS[way][0]
        if way == "launcher":
            process.kill()
            return True
        if way in ("group", "SIGINT", "SIGTERM"):
            os.killpg(process.pid, number)
            return True
        mine = self._processes()
        # The launcher, the server and the resource tracker share a group; each job has its own.
        jobs = [pid for pid, group in mine.items() if group == pid != process.pid]
        servers = [pid for pid, group in mine.items() if group == process.pid and _is_server(pid)]
        chosen = {"everything": list(mine), "job": jobs[:1], "server": servers}[way]
        for pid in chosen:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        return bool(chosen)

    def _processes(self) -> dict[int, int]:
        """The process group of each process of this sweep, by its id."""
        groups = {}
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if f"{MARK}={self.folder}\0".encode() in path.read_bytes():
                    groups[int(path.parent.name)] = os.getpgid(int(path.parent.name))
        return groups

    def outcome(self) -> dict[str, Any]:
        """Everything that must be the same, by name."""
        contents: dict[str, Any] = {}
        for job in sorted(path for path in self.folder.iterdir() if path.is_dir()):
            contents |= {f"{job.name}: {name}": value for name, value in outcome(job).items()}
        return contents | {f"{file.name}": "" for file in self.folder.glob("*.log")}


def _is_server(pid: int) -> bool:
    return b"forkserver" in Path(f"/proc/{pid}/cmdline").read_bytes()


if __name__ == "__main__":
    signal.signal(SIGINT, signal.default_int_handler)  # a background job ignores it, and so would the sweeps
    sys.exit(main())
