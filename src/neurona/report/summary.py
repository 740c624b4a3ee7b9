"""The short table of one sweep's jobs. Imports neither torch nor matplotlib nor scipy."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from neurona.report import runs
from neurona.report.page import Table, aligned
from neurona.runs.jobs import folders

FIGURES = {"test/accuracy": ".4f", "val/loss": "#.4g", "seconds": ".1f"}


def summary(folder: Path) -> str:
    """A line for each job of a sweep: number, the overrides in which the jobs differ (all of a single job), status,
    figures, folder and the first line of the error.
    """
    numbered = {number: path for number, path in folders(folder).items() if runs.is_run(path)}
    jobs = [runs.read(path, []) for path in numbered.values()]
    counts = Counter(override for job in jobs for override in set(job.overrides))
    described = sum(bool(job.overrides) for job in jobs)
    rows = []
    for number, job in zip(numbered, jobs, strict=True):
        differing = " ".join(override for override in job.overrides if counts[override] < described or described == 1)
        figures = [f"{job.figures[name]:{form}}" if name in job.figures else "–" for name, form in FIGURES.items()]
        rows.append([str(number), differing, job.status, *figures, str(job.folder), job.error])
    return aligned(Table(["job", "overrides", "status", *FIGURES, "folder", "error"], rows, numbers=range(3, 6)))
