"""A sweep's job keeps its state in its folder: it may have to begin, to continue, or to be left alone.

This holds for this project's launcher and for Hydra's launchers for clusters.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from neurona.config.interpolations import masked
from neurona.devices import launch
from neurona.errors import ConfigError, RunError
from neurona.runs import configuration
from neurona.runs.folder import RunFolder, is_held, read_metrics

SEARCH = "search.yaml"
"""In the folder of a sweep that is a search: its settings."""

ONLY_FITS = "cannot be used in a sweep (-m), whose jobs are fits"
FINAL_STATUSES = ("finished", "pruned")

PATIENCE_SECONDS = launch.PATIENCE_SECONDS + 10
"""How long a job waits for a process that still holds its folder: one that outlived a killed launcher ends by then."""

LEFTOVER_FILES = ("metrics.json", "train.log", ".lock", ".metrics.json.tmp", ".overrides.yaml.tmp")
"""What a job that ended before it was a run may have left."""

CHANGEABLE_KEYS = ("folder", "quiet", "retry_failed", "run", "threads")
"""Keys that may change when a sweep is continued."""


def number_of(folder: Path) -> int | None:
    """The number of the job whose folder this is, by its name: ``3`` or ``3_relu_seed0``. None for another folder."""
    match = re.fullmatch(r"([0-9]+)(_[a-zA-Z0-9_.+-]*)?", folder.name)
    return int(match[1]) if match else None


def folders(sweep: Path) -> dict[int, Path]:
    """The folders of a sweep's jobs, by number and in its order."""
    paths = sorted((path for path in sweep.glob("[0-9]*") if path.is_dir()), reverse=True)
    numbered = {index: path for path in paths if (index := number_of(path)) is not None}
    return dict(sorted(numbered.items()))


def callbacks(folder: Path) -> dict[str, Any]:
    """The callbacks, as nodes, that a search wants in a run, which is one of its trials."""
    settings = folder.parent / SEARCH
    if number_of(folder) is None or not settings.is_file():
        return {}
    stored = configuration.load(settings)
    return stored.get("callbacks", {})


def take_up(cfg: DictConfig, folder: Path, overrides: Sequence[str]) -> dict[str, Any] | None:
    """Has a job's configuration name its folder, or be that of the run that is there already.

    Returns the figures of a job that is over; None for one that is to be run. Raises ConfigError as ``check_same``.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while is_held(folder) and time.monotonic() < deadline:
        time.sleep(0.1)
    if not check_same(folder, overrides):
        cfg.folder = str(folder)
        with contextlib.suppress(OSError):
            for name in LEFTOVER_FILES:
                (folder / name).unlink(missing_ok=True)
            folder.rmdir()
        return None
    if is_over(figures := read_metrics(folder), cfg.retry_failed):
        return figures
    configuration.take_over(cfg, folder)
    return None


def is_over(figures: dict[str, Any], retry_failed: bool) -> bool:
    """Whether a job with these figures is not to be run again."""
    return figures.get("status") in (*FINAL_STATUSES, *(() if retry_failed else ("failed",)))


def check_same(folder: Path, overrides: Sequence[str]) -> bool:
    """Whether a job has begun in this folder. Raises ConfigError if it was one with other overrides, or something else
    is in the folder.
    """
    try:
        before = configuration.origin(folder, "hydra.sweep.dir").overrides
    except FileNotFoundError:
        if folder.is_dir() and (others := {path.name for path in folder.iterdir()}.difference(LEFTOVER_FILES)):
            problem = f"should be a job's folder, but has {min(others)} and no run in it; give another folder"
            raise ConfigError("hydra.sweep.dir", folder, problem) from None
        return False
    now, then = (
        sorted(line for line in lines if line.split("=")[0] not in CHANGEABLE_KEYS) for lines in (overrides, before)
    )
    if now != then:
        problem = f"was begun with {' '.join(then)}, not {' '.join(now)}; give the same command, or another folder"
        raise ConfigError("hydra.sweep.dir", folder, problem)
    return True


def mark_failed(folder: Path, error: str, overrides: Sequence[str]) -> dict[str, Any]:
    """Notes the failure of a job that could not do so itself, if the disk allows it. Returns its figures.

    A job that has failed before it was a run becomes one, which can be begun.
    """
    failed = {"status": "failed", "error": masked(error, " ".join(overrides))}
    with contextlib.suppress(ConfigError, RunError, OSError):
        folder.mkdir(parents=True, exist_ok=True)
        with RunFolder(folder) as held:  # one that is held is still at work
            if held.metrics().get("status") in FINAL_STATUSES:
                return failed
            held.write_metrics({"stage": "fit", **held.metrics(), **failed}, "fit")
            if not (folder / "overrides.yaml").exists():
                held.write_overrides(overrides, {})
    return read_metrics(folder) | failed
