"""What checkpoints cost: the time of each ``last.ckpt`` of a run that writes one every few steps, and its share of a
minute.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import harness
from networks import NETWORKS, Network

import neurona
from neurona.callbacks.checkpoints import BestAndLast

EVERY_STEPS = 10


def seconds_of_checkpoints(network: Network, number: int, folder: Path) -> list[float]:
    """Wall seconds of each of ``number`` checkpoints, the training stopped while they are written."""
    taken: list[float] = []
    save = BestAndLast._save_last

    def timed(self: BestAndLast, *arguments: Any, **options: Any) -> None:
        started = time.perf_counter()
        save(self, *arguments, **options)
        taken.append(time.perf_counter() - started)

    BestAndLast._save_last = timed  # type: ignore[method-assign]
    try:
        settings = [
            "quiet=true",
            f"folder={folder}",
            "trainer.max_epochs=-1",
            f"trainer.max_steps={EVERY_STEPS * (number + 1)}",
            f"trainer.callbacks.checkpoints.every_n_steps={EVERY_STEPS}",
        ]
        neurona.run([*network.overrides, *settings])
    finally:
        BestAndLast._save_last = save  # type: ignore[method-assign]
    return taken[1 : number + 1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--number", type=int, default=12, help="checkpoints of each network")
    parser.add_argument("--quick", action="store_true", help="two checkpoints: does it run?")
    parser.add_argument("--json", type=Path, help="file for every checkpoint's time")
    options = parser.parse_args()
    number = 2 if options.quick else options.number

    found = harness.environment()
    harness.introduce(found, f"median of {number} checkpoints; a minute is the interval they are compared with")
    times: dict[str, list[float]] = {}
    rows = []
    for name in options.network:
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder) / "run"
            times[name] = seconds_of_checkpoints(NETWORKS[name], number, run)
            megabytes = (run / "checkpoints" / "last.ckpt").stat().st_size / 1e6
        milliseconds = harness.spread(1e3 * value for value in times[name])
        share = 100 * median(times[name]) / 60
        rows.append([name, f"{NETWORKS[name].num_parameters:,}", f"{megabytes:.1f}", milliseconds, f"{share:.3f} %"])
    print(harness.table(("network", "parameters", "MB", "ms", "of a minute"), rows))
    harness.save(options.json, {"environment": found, "seconds": times})


if __name__ == "__main__":
    main()
