"""Seconds that a whole process takes: ``train.py`` to its first optimiser step, ``--help`` and a typo.

Against a process that only imports what any project on Lightning and Hydra does. Asked in turn, A B C A B C …
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import harness

FIRST_STEP = 42  # callbacks.ExitAtFirstStep.STATUS, which would import Lightning
IMPORTS = "import lightning, hydra, os; os._exit(0)"


def commands(folder: Path) -> dict[str, tuple[list[str], int]]:
    """The arguments of each process, and the exit status it is to have."""
    train = str(harness.ROOT / "train.py")
    first_step = [
        f"folder={folder}",
        "trainer.max_epochs=1",
        "allow=[callbacks]",
        "+trainer.callbacks.exit._target_=callbacks.ExitAtFirstStep",
    ]
    return {
        "import torch": (["-c", "import torch, os; os._exit(0)"], 0),
        "import lightning, hydra": (["-c", IMPORTS], 0),
        "train.py to its first step": ([train, *first_step], FIRST_STEP),
        "train.py --help": ([train, "--help"], 0),
        "train.py optimizer.lrr=1 (a typo)": ([train, "optimizer.lrr=1"], 2),
    }


def seconds(arguments: list[str], status: int) -> float:
    """Wall seconds of one process."""
    environment = {**os.environ, "PYTHONPATH": str(harness.HERE)}
    started = time.perf_counter()
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment)
    taken = time.perf_counter() - started
    if done.returncode != status:
        raise RuntimeError(f"{arguments} exited with {done.returncode}, not {status}:\n{done.stderr[-4000:]}")
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--quick", action="store_true", help="two repeats: does it run?")
    parser.add_argument("--json", type=Path, help="file for every repeat's figures")
    options = parser.parse_args()
    repeats = 2 if options.quick else options.repeats

    found = harness.environment()
    remarks = [f"median of {repeats} repeats, after one untimed"]
    if find_spec("tensorflow"):
        remarks.append("TensorFlow is installed here: TensorBoard's writer imports it, which takes seconds")
    harness.introduce(found, *remarks)
    times: dict[str, list[float]] = {}
    for index in range(repeats + 1):
        with tempfile.TemporaryDirectory() as folder:
            for name, (arguments, status) in commands(Path(folder) / "run").items():
                taken = seconds(arguments, status)
                if index:  # the first fills the caches of the file system and of compiled Python
                    times.setdefault(name, []).append(taken)
    base = median(times["import lightning, hydra"])
    rows = [[name, f"{harness.spread(values)}", f"{median(values) - base:+.2f}"] for name, values in times.items()]
    print(harness.table(("process", "seconds", "beyond import lightning, hydra"), rows))
    harness.save(options.json, {"environment": found, "seconds": times})


if __name__ == "__main__":
    main()
