"""How many jobs at a time, and on what."""

from __future__ import annotations

import pytest

from neurona.sweep import launcher
from neurona.sweep.launcher import Processes


@pytest.mark.parametrize(
    ("jobs", "gpus", "per_job", "slots", "of_each"),
    [
        (None, "", 1, 8, [None, None]),
        (None, "", 2, 4, [None, None]),
        (None, "", 16, 1, [None, None]),
        (3, "", 1, 3, [None, None]),
        (None, "2,5", 1, 2, ["2", "5"]),
        (None, "0,1,2,3", 2, 2, ["0,1", "2,3"]),
        (4, "0,1", 1, 4, ["0", "1", "0", "1"]),
        (None, "-1", 1, 8, [None, None]),
    ],
)
def test_slots_share_out_what_there_is(
    monkeypatch: pytest.MonkeyPatch, jobs: int | None, gpus: str, per_job: int, slots: int, of_each: list[str | None]
) -> None:
    """On a machine of eight cores."""
    monkeypatch.setattr(launcher, "_cores", lambda: 8)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    processes = Processes(jobs=jobs, timeout_minutes=None, fail_fast=False)
    processes._per_job = per_job
    assert processes._slots == slots
    assert [processes._gpus(slot) for slot in range(len(of_each))] == of_each


def test_the_first_job_tells_how_many_there_can_be() -> None:
    processes = Processes(jobs=4, timeout_minutes=None, fail_fast=False)
    processes._per_job = 0
    assert processes._slots == 1
