"""What the scheduler says of a job, and having Slurm start one again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from neurona.devices import scheduler


@pytest.fixture(autouse=True)
def environment(monkeypatch) -> pytest.MonkeyPatch:
    """Without any scheduler's variables."""
    for name in list(os.environ):
        if name.startswith(("SLURM_", "TORCHELASTIC_")):
            monkeypatch.delenv(name)
    return monkeypatch


def test_outside_a_scheduler_there_is_no_job():
    assert (scheduler.slurm_job(), scheduler.job(), scheduler.was_restarted()) == (None, None, False)


def test_slurm_comes_before_the_torchrun_within_it(environment):
    environment.setenv("SLURM_JOB_ID", "12")
    environment.setenv("TORCHELASTIC_RUN_ID", "none")
    assert (scheduler.slurm_job(), scheduler.job()) == ("12", "slurm 12")
    environment.setenv("SLURM_ARRAY_JOB_ID", "10")
    environment.setenv("SLURM_ARRAY_TASK_ID", "2")
    assert (scheduler.slurm_job(), scheduler.job()) == ("10_2", "slurm 10_2")


def test_two_torchruns_without_an_id_differ_in_their_port(environment):
    environment.setenv("TORCHELASTIC_RUN_ID", "none")
    environment.setenv("MASTER_ADDR", "localhost")
    jobs = []
    for port in ("29500", "29501"):
        environment.setenv("MASTER_PORT", port)
        jobs.append(scheduler.job())
    assert jobs == ["torchelastic localhost:29500", "torchelastic localhost:29501"]


@pytest.mark.parametrize("name", ["SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT"])
@pytest.mark.parametrize(("count", "expected"), [("", False), ("0", False), ("1", True), ("12", True)])
def test_a_count_tells_of_a_restart(environment, name, count, expected):
    environment.setenv(name, count)
    assert scheduler.was_restarted() is expected


@pytest.fixture
def messages(monkeypatch) -> list[tuple[str, str]]:
    noted: list[tuple[str, str]] = []
    for level in ("info", "error"):
        monkeypatch.setattr(
            scheduler.log, level, lambda text, *values, level=level: noted.append((level, text % values))
        )
    return noted


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ('echo "$@" > asked', [("info", "Slurm has requeued job 10_2")]),
        ("echo no such job >&2; exit 1", [("error", "Slurm has not requeued job 10_2: no such job")]),
        ("exit 3", [("error", "Slurm has not requeued job 10_2: status 3")]),
    ],
)
def test_what_slurm_answers_is_said(environment, tmp_path, messages, script, expected):
    environment.chdir(tmp_path)
    environment.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    Path("scontrol").write_text(f"#!/bin/sh\n{script}\n")
    Path("scontrol").chmod(0o755)
    scheduler.requeue("10_2")
    assert messages == expected
    if expected[0][0] == "info":
        assert Path("asked").read_text() == "requeue 10_2\n"


def test_a_slurm_that_cannot_be_asked_is_an_error(environment, tmp_path, messages):
    environment.setenv("PATH", str(tmp_path))
    scheduler.requeue("7")
    ((level, text),) = messages
    assert level == "error"
    assert "job 7: " in text
    assert "scontrol" in text


@pytest.mark.parametrize(("rank", "asked"), [("0", "requeue 12\n"), ("1", "")])
def test_a_signal_before_the_stage_has_the_job_started_again_by_rank_zero(tmp_path, environment, rank, asked):
    (tmp_path / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    (tmp_path / "scontrol").chmod(0o755)
    environment.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    for name, value in {"JOB_ID": "12", "STEP_ID": "0", "STEP_NUM_TASKS": "2", "PROCID": rank}.items():
        environment.setenv(f"SLURM_{name}", value)
    code = (
        "import signal; from neurona.devices import scheduler;"
        " scheduler.requeue_early(); signal.raise_signal(signal.SIGUSR1)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 143
    (tmp_path / "asked").touch()
    assert (tmp_path / "asked").read_text() == asked
