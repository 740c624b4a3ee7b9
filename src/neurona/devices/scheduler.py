"""The scheduler that has started this process: Slurm, or torchelastic (torchrun)."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
from types import FrameType

from neurona.devices.launch import LIFELINE, rank

log = logging.getLogger(__name__)

REQUEUE_SIGNALS = (signal.SIGUSR1, signal.SIGUSR2)
"""What Slurm's ``--signal`` and submitit send ahead of a time limit or a preemption."""

PATIENCE_SECONDS = 30
"""How long Slurm may take to answer: less than the other processes of a run wait for this one."""


def slurm_job() -> str | None:
    """The id of this Slurm job as ``scontrol`` takes it, ``<job>`` or ``<array job>_<task>``; None outside one."""
    if array := os.environ.get("SLURM_ARRAY_JOB_ID"):
        return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ.get("SLURM_JOB_ID")


def job() -> str | None:
    """What identifies this process's job, the same after a restart by the scheduler; None where there is none."""
    env = os.environ
    if slurm := slurm_job():
        return f"slurm {slurm}"
    run = env.get("TORCHELASTIC_RUN_ID")
    if run is None or LIFELINE in env:
        return None
    return f"torchelastic {env.get('MASTER_ADDR')}:{env.get('MASTER_PORT')}" if run == "none" else f"torchelastic {run}"


def has_own_id() -> bool:
    """Whether the job has an id that its user chose, torchrun's ``--rdzv-id``."""
    run = os.environ.get("TORCHELASTIC_RUN_ID", "none")
    return run != "none" and slurm_job() is None and LIFELINE not in os.environ


def was_restarted() -> bool:
    """Whether the scheduler says that it has started this job before."""
    return any(int(os.environ.get(f"{name}_RESTART_COUNT") or 0) for name in ("SLURM", "TORCHELASTIC"))


def requeue_early() -> None:
    """Until a stage handles them, signals that ask for a requeue have the job started again, and end it with 143."""

    def leave(number: int, frame: FrameType | None) -> None:
        if (job := slurm_job()) and rank() == 0:
            requeue(job)
        os._exit(143)

    for number in REQUEUE_SIGNALS:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, leave)


def requeue(job: str) -> None:
    """Has Slurm start the job again, in its turn; one that it refuses is an error in the log."""
    try:
        command = ["scontrol", "requeue", job]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
        problem = answer.stderr.strip() or f"status {answer.returncode}" if answer.returncode else ""
    except (OSError, subprocess.SubprocessError) as error:
        problem = str(error)
    if problem:
        log.error("Slurm has not requeued job %s: %s", job, problem)
    else:
        log.info("Slurm has requeued job %s", job)
