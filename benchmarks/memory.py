"""Peak memory of a run above what its imports take, against the size of its data.

Each size is a process of its own: data made, split and scaled, a few steps, validation, a checkpoint, a test.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import harness
from networks import Network

ITEM_SIZE = {"float32": 4, "uint8": 1}
TARGET_SIZE = 8


def sizes(num_features: int, dtype: Literal["float32", "uint8"], *counts: int) -> list[Network]:
    return [Network(num_features, (64, 64), 32, count, dtype, epochs=1) for count in counts]


SIZES = [
    *sizes(100, "float32", 100_000, 1_000_000, 10_000_000),
    *sizes(784, "uint8", 60_000, 600_000, 3_000_000),
]


def data_bytes(network: Network) -> int:
    """Of features and targets, all parts."""
    return network.num_samples * (network.num_features * ITEM_SIZE[network.dtype] + TARGET_SIZE)


def peak_bytes() -> int:
    """Most memory this process has held at any time."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def child(request: dict[str, Any]) -> None:
    sys.modules["tensorflow"] = None  # type: ignore[assignment]  # TensorBoard would import it if it is there
    import torch.utils.tensorboard  # noqa: F401

    import neurona

    neurona.run  # noqa: B018  # imports what every run does
    imported = peak_bytes()
    neurona.run(request["overrides"])
    print("\n" + json.dumps({"imported": imported, "peak": peak_bytes()}))


def measure(network: Network, given: list[str]) -> dict[str, int]:
    """The peaks before and after a short run, in bytes."""
    with tempfile.TemporaryDirectory() as folder:
        overrides = [
            *network.overrides,
            "trainer=cpu",
            "trainer.max_epochs=1",
            "trainer.limit_train_batches=100",
            "trainer.limit_val_batches=2",
            "trainer.limit_test_batches=2",
            "quiet=true",
            f"folder={folder}/run",
            *given,
        ]
        return harness.ask("memory.py", {"overrides": overrides})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("overrides", nargs="*", help="for every run, such as compile=true")
    parser.add_argument("--quick", action="store_true", help="data below 1 GB only")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--child", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child)
        return

    found = harness.environment()
    harness.introduce(found)
    results = []
    rows = []
    for network in SIZES:
        size = data_bytes(network)
        if options.quick and size > 1e9:
            continue
        peaks = measure(network, options.overrides)
        results.append({**asdict(network), "data": size, **peaks})
        used = peaks["peak"] - peaks["imported"]
        megabytes = [f"{value / 1e6:,.0f}" for value in (size, peaks["imported"], used, used - size)]
        name = f"{network.num_samples:,} × {network.num_features} {network.dtype}"
        rows.append([name, *megabytes, f"{used / size:.2f}"])
    print(harness.table(("data", "its MB", "imports, MB", "peak above them, MB", "beyond the data, MB", "ratio"), rows))
    harness.save(options.json, {"environment": found, "sizes": results})


if __name__ == "__main__":
    main()
