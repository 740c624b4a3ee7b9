"""A sweep's folder, named before Hydra composes anything: two sweeps of one second are not to share it."""

from __future__ import annotations

import contextlib
import json
import shlex
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.types import Override

from neurona import scheduler
from neurona.run_folder import make_new, read_metrics, write_atomically
from neurona.sweep import jobs

FILE = "sweep.json"


def claim(overrides: Sequence[Override]) -> Path:
    """Makes ``logs/<experiment or data>/<date and time>``, or finds the sweep of this job that Slurm has restarted."""
    named = {override.key_or_group: override for override in overrides if not override.is_sweep_override()}
    choice = named.get("experiment") or named.get("data")
    swept = any(override.key_or_group == "data" for override in overrides if override.is_sweep_override())
    name = str(choice.value()) if choice else "sweep" if swept else "digits"
    parent = Path("logs", name)
    lines = [str(override.input_line) for override in overrides]
    job = scheduler.job()
    if job and scheduler.was_restarted():
        for file in sorted(parent.glob(f"*/{FILE}"), reverse=True):
            with contextlib.suppress(OSError, ValueError, KeyError):  # it is damaged
                stored = json.loads(file.read_text(encoding="utf-8"))
                if (stored["job"], stored["overrides"]) == (job, lines):
                    return file.parent
    folder = make_new(parent / time.strftime("%Y-%m-%d_%H-%M-%S"), "hydra.sweep.dir")
    write_atomically(folder / FILE, json.dumps({"overrides": lines, "job": job}, indent=2) + "\n")
    return folder


def conclude(folder: Path, arguments: Sequence[str], status: int) -> int:
    """Shows the jobs of a sweep that has ended with ``status``. Returns its exit status, 1 if a job is not over; a
    search goes on without those that fail, and its other workers may still be at theirs.

    arguments: those the sweep was begun with. A folder in which no job has begun is removed.
    """
    if not folder.is_dir():
        return status
    figures = {file.parent: read_metrics(file.parent) for file in sorted(folder.glob("*/metrics.json"))}
    if not figures:
        if {path.name for path in folder.iterdir()} <= {FILE, ".lock", ".search.lock", "multirun.yaml"}:
            shutil.rmtree(folder, ignore_errors=True)
            with contextlib.suppress(OSError):
                folder.parent.rmdir()  # of an experiment that there is not
        return status
    if status == 2:  # the command, not the sweep, is at fault
        return status
    from neurona.report.summary import summary

    print(f"\n{summary(folder)}")
    undone = [path for path, found in figures.items() if found.get("status") not in jobs.OVER]
    if (folder / "search.yaml").is_file():
        undone = []
    if undone or status:
        given = list(arguments)
        if not any(argument.startswith("hydra.sweep.dir=") for argument in arguments):
            given.append(f"hydra.sweep.dir={folder}")
        if any(found.get("status") == "failed" for found in figures.values()):
            given.append("retry_failed=true")
        print(f"\nto continue: python train.py {shlex.join(dict.fromkeys(given))}")
    return status or int(bool(undone))
