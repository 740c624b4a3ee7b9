"""What the benchmarks share: where they ran, medians and ratios, tables."""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

HERE = Path(__file__).parent
ROOT = HERE.parent
PACKAGES = ("torch", "lightning", "torchmetrics", "hydra-core", "numpy", "scikit-learn", "keras", "tensorflow-cpu")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Spread(NamedTuple):
    """Of a figure over the repeats."""

    median: float
    least: float
    most: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.least:.2f}–{self.most:.2f})"


def spread(values: Iterable[float]) -> Spread:
    values = list(values)
    return Spread(median(values), min(values), max(values))


def ratios(values: Sequence[float], baseline: Sequence[float]) -> Spread:
    """Of each repeat's value to the baseline's in the same repeat: what slows the machine for a while slows both."""
    return spread(value / base for value, base in zip(values, baseline, strict=True))


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """In Markdown; the first column is text, the others are figures."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def environment() -> dict[str, Any]:
    """Command, date, versions and hardware."""
    return {
        "command": shlex.join(["python", *map(str, sys.argv)]),
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "commit": _commit(),
        "python": platform.python_version(),
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "thread_variables": {name: os.environ[name] for name in THREAD_VARIABLES if name in os.environ},
    }


def introduce(found: dict[str, Any], *remarks: str) -> None:
    """Prints an environment and what else the reader must know."""
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    variables = " ".join(f"{name}={value}" for name, value in found["thread_variables"].items())
    print(f"{found['command']}   ({found['date']}, commit {found['commit']})")
    print(
        f"{found['processor']}, {found['cores']} cores, load before {found['load']}; {variables or 'no OMP variables'}"
    )
    print(f"Python {found['python']}, {versions}")
    for remark in remarks:
        print(remark)
    print(flush=True)


def save(path: Path | None, results: dict[str, Any]) -> None:
    if path is not None:
        path.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def ask(script: str, request: dict[str, Any]) -> dict[str, Any]:
    """Has one of these scripts answer a request in a process of its own; the answer is its last line."""
    command = [sys.executable, script, "--child", json.dumps(request)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=HERE)
    if done.returncode:
        raise RuntimeError(f"{shlex.join(command)} failed:\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _commit() -> str:
    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True).stdout.strip()

    return (git("rev-parse", "--short", "HEAD") or "unknown") + (" + changes" if git("status", "--porcelain") else "")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
