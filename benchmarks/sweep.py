"""What a sweep costs: twenty default jobs, one at a time, beyond one start, against the sum of their own seconds.

A start is a single run's wall time less its own ``seconds``. Then the same sweep with as many jobs at a time as it
takes by itself. Asked in turn: single run, one at a time, by itself …
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import harness

TO_REACH = 1.15


def wall(*arguments: str) -> float:
    """Wall seconds of one ``train.py``."""
    started = time.perf_counter()
    done = subprocess.run([sys.executable, str(harness.ROOT / "train.py"), *arguments], capture_output=True, text=True)
    taken = time.perf_counter() - started
    if done.returncode:
        raise RuntimeError(f"{arguments} exited with {done.returncode}:\n{done.stderr[-4000:]}")
    return taken


def own_seconds(folder: Path) -> float:
    """The sum of ``seconds`` over the runs below a folder."""
    files = folder.rglob("metrics.json")
    return float(sum(json.loads(file.read_text(encoding="utf-8"))["seconds"] for file in files))


def measure(jobs: int) -> dict[str, float]:
    """One repeat of all."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sweep = ["-m", f"seed=range({jobs})"]
        start = wall(f"folder={folder / 'run'}") - own_seconds(folder / "run")
        one = wall(*sweep, f"hydra.sweep.dir={folder / 'one'}", "hydra.launcher.jobs=1")
        several = wall(*sweep, f"hydra.sweep.dir={folder / 'several'}")
        own = own_seconds(folder / "one")
    times = {"start": start, "jobs' own": own, "one at a time": one, "by itself": several}
    ratios = {f"({name} - start) / jobs' own": (times[name] - start) / own for name in ("one at a time", "by itself")}
    return times | ratios


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one repeat of two jobs: does it run?")
    parser.add_argument("--json", type=Path, help="file for every repeat's figures")
    options = parser.parse_args()
    jobs, repeats = (2, 1) if options.quick else (options.jobs, options.repeats)

    found = harness.environment()
    harness.introduce(found, f"{jobs} jobs, median of {repeats} repeats")
    measured = [measure(jobs) for _ in range(repeats)]
    rows = [[name, harness.spread([repeat[name] for repeat in measured])] for name in measured[0]]
    print(harness.table(("", "seconds, ratios"), rows))
    print(f"\nto reach: {TO_REACH}")
    harness.save(options.json, {"environment": found, "repeats": measured})


if __name__ == "__main__":
    main()
