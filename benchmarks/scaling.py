"""Microseconds per sample as rows, features, width, depth and batch grow, each alone.

Each point is a process of its own: a default run (threads included) over a fixed number of optimiser steps. The figure
is the median over the chunks of steps after the first fifth, reading the data not included; the time to draw an epoch's
order, divided by its rows, is measured apart, as an epoch is longer than the steps taken here.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import harness
from networks import Network

BASE = Network(100, (64, 64), 32, 200_000, "float32", epochs=1)
WORK = 2e11
"""Operations of a measurement, a few seconds, within the limits of STEPS."""
STEPS = (300, 3000)


def sweep(name: str) -> dict[str, Network]:
    """The points of one sweep, by what is shown of them."""

    def varied(**fields: Any) -> Network:
        return Network(**{**vars(BASE), **fields})

    match name:
        case "rows":
            return {f"{rows:,}": varied(num_samples=rows) for rows in (10_000, 100_000, 1_000_000, 10_000_000)}
        case "features":
            return {
                str(count): varied(num_features=count, num_samples=max(10_000, 20_000_000 // count))
                for count in (10, 100, 1000, 10_000)
            }
        case "width":
            return {str(width): varied(hidden=(width, width)) for width in (16, 64, 256, 1024, 2048)}
        case "depth":
            return {str(depth): varied(hidden=(64,) * depth) for depth in (1, 2, 4, 8, 16)}
        case "batch":
            return {str(size): varied(batch_size=size) for size in (1, 8, 32, 128, 512, 2048)}
    raise ValueError(name)


SWEEPS = ("rows", "features", "width", "depth", "batch")


def child(request: dict[str, Any]) -> None:
    sys.modules["tensorflow"] = None  # type: ignore[assignment]  # TensorBoard would import it if it is there
    from callbacks import ChunkClock

    import neurona

    neurona.run(request["overrides"])
    answer = {
        "notes": ChunkClock.notes,
        "order_us": 1e6 * ChunkClock.order_seconds / ChunkClock.num_rows,
        "threads": ChunkClock.threads,
    }
    print("\n" + json.dumps(answer))


def microseconds_per_step(notes: list[list[float]]) -> tuple[float, float]:
    """Wall time (median over chunks) and CPU time (mean) between the ends of chunks of the same epoch.

    notes: (epoch, steps taken, wall clock, CPU clock) at the end of every chunk.
    """
    chunks = [
        (now[1] - before[1], now[2] - before[2], now[3] - before[3])
        for before, now in pairwise(notes[len(notes) // 5 :])
        if now[0] == before[0]
    ]
    steps, _, cpu = (sum(column) for column in zip(*chunks, strict=True))
    return 1e6 * median(wall / count for count, wall, _ in chunks), 1e6 * cpu / steps


def measure(network: Network, steps: int, given: list[str]) -> dict[str, float]:
    """Microseconds per sample of one point."""
    with tempfile.TemporaryDirectory() as folder:
        overrides = [
            *network.overrides,
            "+trainer.callbacks.chunks._target_=callbacks.ChunkClock",
            "trainer=cpu",
            "trainer.max_epochs=-1",
            f"trainer.max_steps={steps}",
            "trainer.limit_val_batches=0",
            "trainer.limit_test_batches=1",
            "quiet=true",
            f"folder={folder}/run",
            *given,
        ]
        answer = harness.ask("scaling.py", {"overrides": overrides})
    wall, cpu = (value / network.batch_size for value in microseconds_per_step(answer["notes"]))
    return {"steps": wall, "order": answer["order_us"], "cpu": cpu, "threads": answer["threads"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("overrides", nargs="*", help="for every run, such as compile=true")
    parser.add_argument("--sweep", nargs="+", choices=SWEEPS, default=SWEEPS)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one repeat of few steps: does it run?")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--child", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child)
        return

    found = harness.environment()
    repeats = 1 if options.quick else options.repeats
    harness.introduce(found, f"median of {repeats} repeats; {' '.join(options.overrides) or 'the default run'}")
    least, most = (300, 300) if options.quick else STEPS
    results: dict[str, Any] = {}
    for name in options.sweep:
        points = sweep(name)
        measured: dict[str, list[dict[str, float]]] = {point: [] for point in points}
        for _ in range(repeats):
            for point, network in points.items():
                steps = round(min(max(WORK / network.flops_per_step, least), most))
                measured[point].append(measure(network, steps, options.overrides))
        rows = []
        for point, network in points.items():
            steps_us, order, cpu = (median(one[key] for one in measured[point]) for key in ("steps", "order", "cpu"))
            rate = network.flops_per_step / network.batch_size / steps_us / 1e3
            threads = measured[point][-1]["threads"]
            figures = (f"{steps_us + order:.3f}", f"{steps_us:.3f}", f"{order:.4f}", f"{cpu:.3f}", f"{rate:,.1f}")
            rows.append([point, *figures, str(threads)])
        header = (name, "µs per sample", "steps", "order", "CPU µs", "GFLOP/s", "threads")
        print(harness.table(header, rows), end="\n\n", flush=True)
        results[name] = measured
        harness.save(options.json, {"environment": found, "sweeps": results})


if __name__ == "__main__":
    main()
