"""Microseconds per step, alone and while two other processes keep the cores busy: ``python benchmarks/busy.py``.

The default run beside ``threads=1`` and ``threads=2``, each in a process of its own, asked in turn for one epoch after
an untimed one, with and without endless loops of Python beside it. ``active`` is two threads that wait for each other
as OpenMP has them do by itself, ``asleep`` two that never wait actively. Ratios are taken within a round, to the faster
of ``threads=1`` and ``threads=2``.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import harness
from networks import NETWORKS, Network
from throughput import Worker

SIZES = {
    "lesson": NETWORKS["lesson"],
    "table": Network(108, (256, 256), 256, 20_000, "float32", epochs=1, dropout=0.2),
    "medium": replace(NETWORKS["medium"], num_samples=20_000),
    "wide": replace(NETWORKS["wide"], num_samples=10_000),
}
"""Of the usual sizes, and the default network of a table such as Adult; fewer rows, as busy cores are slow."""


class Variant(NamedTuple):
    threads: int | None
    environment: dict[str, str]


VARIANTS = {
    "default": Variant(None, {}),
    "threads=1": Variant(1, {}),
    "threads=2": Variant(2, {}),
    "active": Variant(2, {"GOMP_SPINCOUNT": "300000"}),
    "asleep": Variant(2, {"GOMP_SPINCOUNT": "0"}),
}


@contextlib.contextmanager
def busy_cores(number: int) -> Iterator[None]:
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def measure(network: Network, names: list[str], repeats: int) -> dict[str, dict[str, list[float]]]:
    """Microseconds per step of each variant, a figure a round: with no other process, and with two."""
    found: dict[str, dict[str, list[float]]] = {"alone": {}, "busy": {}}
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as on_exit:
        workers = {}
        for name in names:
            folder = Path(scratch, name.replace("=", ""))
            folder.mkdir()
            request: dict[str, Any] = {"contender": "neurona", "network": asdict(network), "folder": str(folder)}
            request |= {"threads": VARIANTS[name].threads, "device": "cpu"}
            workers[name] = Worker(request, os.environ | VARIANTS[name].environment)
            on_exit.callback(workers[name].close)
        for worker in workers.values():
            worker.answer()
        for _ in range(repeats):
            for state, number in (("alone", 0), ("busy", 2)):
                with busy_cores(number):
                    for name, worker in workers.items():
                        done = worker.repeat(1)
                        found[state].setdefault(name, []).append(1e6 * done["seconds"] / done["steps"])
    return found


def rows(state: str, timed: dict[str, list[float]]) -> list[list[str]]:
    """A line for each variant: state, name, microseconds, ratio."""
    best = [min(pair) for pair in zip(timed["threads=1"], timed["threads=2"], strict=True)]
    return [
        [f"{state}, `{name}`", f"{median(values):,.0f}", f"{min(values):,.0f}", str(harness.ratios(values, best))]
        for name, values in timed.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--also", nargs="+", choices=("active", "asleep"), default=[], help="where busy, for minutes")
    parser.add_argument("--repeats", type=int, default=5, help="rounds")
    parser.add_argument("--json", type=Path, help="file for every repeat's figures")
    options = parser.parse_args()
    environment = harness.environment()
    harness.introduce(environment, f"median and least of {options.repeats} repeats, ratios (least–most)")
    names = ["default", "threads=1", "threads=2", *options.also]
    results: dict[str, Any] = {}
    for name in options.network:
        results[name] = measure(SIZES[name], names, options.repeats)
        lines = [row for state, timed in results[name].items() for row in rows(state, timed)]
        print(harness.table((name, "µs per step", "least", "ratio to the better"), lines), end="\n\n", flush=True)
        harness.save(options.json, {"environment": environment, "networks": results})


if __name__ == "__main__":
    main()
