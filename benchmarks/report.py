"""Seconds that a report of many runs takes, and the table at the end of their sweep.

Copies one run's folder, trained here, with other seeds, rates and figures: 50 settings of as many seeds as it takes.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import harness

SUMMARY = "from pathlib import Path; from neurona.report.summary import summary; print(summary(Path('logs/sweep')))"


def make_runs(folder: Path, count: int) -> None:
    """``logs/sweep/<number>``, all but ``logs/sweep/0`` made up."""
    first = folder / "logs" / "sweep" / "0"
    train = [sys.executable, str(harness.ROOT / "train.py"), "quiet=true", "folder=logs/sweep/0"]
    subprocess.run(train, cwd=folder, check=True)
    config, metrics = ((first / name).read_text(encoding="utf-8") for name in ("config.yaml", "metrics.json"))
    chance = random.Random(0)
    for number in range(1, count):
        seed, rate = number // 50, 10 ** (-4 + number % 50 / 16)
        copy = first.with_name(str(number))
        shutil.copytree(first, copy, ignore=shutil.ignore_patterns("checkpoints"))
        text = config.replace("seed: 0", f"seed: {seed}").replace("lr: 0.001", f"lr: {rate:.3e}")
        (copy / "config.yaml").write_text(text.replace("logs/sweep/0", f"logs/sweep/{number}"), encoding="utf-8")
        figures = json.loads(metrics) | {"test/accuracy": chance.gauss(0.95, 0.01)}
        (copy / "metrics.json").write_text(json.dumps(figures), encoding="utf-8")
        overrides = f"overrides:\n- seed={seed}\n- optimizer.lr={rate:.3e}\nabsolute: {{}}\n"
        (copy / "overrides.yaml").write_text(overrides, encoding="utf-8")


def seconds(*arguments: str, folder: Path) -> float:
    """Of a whole process."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_runs(folder, given.runs)
        print(f"{given.runs} runs")
        for what, command in (("report", ["-m", "neurona.report", "logs"]), ("summary", ["-c", SUMMARY])):
            print(f"{what:<8} {min(seconds(*command, folder=folder) for _ in range(3)):6.2f} s")


if __name__ == "__main__":
    main()
