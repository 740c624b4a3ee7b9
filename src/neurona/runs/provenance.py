"""Where a run comes from: command, code, versions, hardware and seed."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from neurona.devices import scheduler

PACKAGES = ("torch", "lightning", "hydra-core", "omegaconf", "torchmetrics", "numpy", "tensorboard")


def provenance(seed: int) -> dict[str, Any]:
    """Command, code, versions, hardware and seed of this process."""
    import torch

    return {
        "command": sys.argv,
        "folder": os.getcwd(),
        "time": now(),
        "seed": seed,
        "job": scheduler.job(),
        "git": checkout(),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in PACKAGES},
            "torch": torch.__version__,  # with its build
        },
        "hardware": {
            "machine": platform.machine(),
            "system": platform.platform(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        },
    }


def now() -> str:
    """Date, time and zone."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


@functools.cache
def checkout() -> dict[str, Any] | None:
    """The commit of this source and whether it had uncommitted changes; None outside a checkout or without git."""

    def git(*arguments: str) -> str:
        here = Path(__file__).parent
        return subprocess.run(["git", *arguments], cwd=here, check=True, capture_output=True, text=True).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return None
