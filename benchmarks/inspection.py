"""What TensorBoard's inspection costs a run: whole processes of ``train.py`` with inspect=none, standard and full.

Asked in turn, A B C A B C …; the ratios are to inspect=none of the same round.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import harness

CHOICES = ("none", "standard", "full")
FIGURES = ("wall", "CPU", "fit and test")


def seconds(choice: str, overrides: list[str]) -> tuple[float, float, float]:
    """Wall and CPU seconds of one process, and the ``seconds`` of its metrics.json."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        train = [str(harness.ROOT / "train.py"), f"inspect={choice}", f"folder={run}", *overrides]
        started = time.perf_counter()
        process = subprocess.Popen([sys.executable, *train], stdout=subprocess.DEVNULL, cwd=harness.ROOT)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        taken = time.perf_counter() - started
        if process.returncode:
            raise RuntimeError(f"{train} exited with {process.returncode}")
        figures = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
        return taken, usage.ru_utime + usage.ru_stime, figures["seconds"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("overrides", nargs="*", help="of the run; none: the default run")
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--quick", action="store_true", help="one short repeat: does it run?")
    parser.add_argument("--json", type=Path, help="file for every repeat's figures")
    options = parser.parse_args()
    repeats = 1 if options.quick else options.repeats
    overrides = [*options.overrides, *(["trainer.max_epochs=1"] if options.quick else [])]

    found = harness.environment()
    harness.introduce(found, f"median of {repeats} repeats, after one untimed")
    times: dict[str, list[tuple[float, float, float]]] = {choice: [] for choice in CHOICES}
    for index in range(repeats + 1):
        for choice in CHOICES:
            taken = seconds(choice, overrides)
            if index:  # the first fills the caches of the file system and of compiled Python
                times[choice].append(taken)
    rows = []
    for choice in CHOICES:
        columns = [*zip(*times[choice], strict=True)], [*zip(*times["none"], strict=True)]
        spreads = [harness.spread(values) for values in columns[0]]
        ratios = [harness.ratios(values, base) for values, base in zip(*columns, strict=True)]
        rows.append([f"inspect={choice}", *spreads, *ratios])
    print(harness.table(("", *(f"{name}, s" for name in FIGURES), *(f"{name}, ratio" for name in FIGURES)), rows))
    harness.save(options.json, {"environment": found, "seconds": times})


if __name__ == "__main__":
    main()
