"""The default run of this version beside that of another: ``python benchmarks/versions.py FOLDER [--rounds 9]``.

FOLDER: a checkout of the other version, as ``git worktree add FOLDER COMMIT`` makes it. The two take turns, each run in
a process of its own with everything imported, on one thread. Prints, of this version and as ratios to the other, the
median (least-most) of the wall time of ``neurona.run(["quiet=true"])``, of its CPU time, and of its fit and test alone.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

CHILD = """
import time
import neurona
import neurona.stages.execute, neurona.stages.fit
import torch.utils.tensorboard
from lightning.pytorch import Trainer

taken = []

def timed(method):
    def call(*arguments, **keywords):
        started = time.perf_counter()
        result = method(*arguments, **keywords)
        taken.append(time.perf_counter() - started)
        return result
    return call

Trainer.fit, Trainer.test = timed(Trainer.fit), timed(Trainer.test)
wall, cpu = time.perf_counter(), time.process_time()
figures = neurona.run(["quiet=true", "threads=1"])
print(time.perf_counter() - wall, time.process_time() - cpu, sum(taken), figures["test/accuracy"])
"""
COLUMNS = ("whole call", "its CPU time", "fit and test")


def run(checkout: Path) -> list[float]:
    """The seconds of each column, and the test accuracy."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.environ | {"PYTHONPATH": str(checkout / "src")}
        command = [sys.executable, "-c", CHILD]
        printed = subprocess.run(command, cwd=folder, env=path, check=True, stdout=subprocess.PIPE, text=True).stdout
    return [float(word) for word in printed.split()[-4:]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="a checkout of the other version")
    parser.add_argument("--rounds", type=int, default=9)
    asked = parser.parse_args()
    here = Path(__file__).resolve().parents[1]
    rounds = [(run(here), run(asked.folder.resolve())) for _ in range(asked.rounds)]
    print("| | seconds | ratio |\n| --- | ---: | ---: |")
    for column, name in enumerate(COLUMNS):
        seconds = statistics.median(ours[column] for ours, _ in rounds)
        ratios = sorted(ours[column] / others[column] for ours, others in rounds)
        print(f"| {name} | {seconds:.2f} | {statistics.median(ratios):.2f} ({ratios[0]:.2f}–{ratios[-1]:.2f}) |")
    accuracies = [{each[index][-1] for each in rounds} for index in range(2)]
    print(f"\ntest accuracy: {accuracies[0]} here, {accuracies[1]} there; {asked.rounds} rounds")


if __name__ == "__main__":
    main()
