"""Signals: noted while they are deferred, else an end at once; ignored ones stay ignored."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from forks import forked
from lightning.pytorch.utilities.exceptions import SIGTERMException

from neurona.devices import preemption
from neurona.devices.preemption import SIGNALS, Preemption


@pytest.fixture(autouse=True)
def requeued(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The jobs that Slurm is asked to start again; this process is in none unless a test says so."""
    jobs: list[str] = []
    monkeypatch.setattr(preemption.scheduler, "slurm_job", lambda: None)
    monkeypatch.setattr(preemption.scheduler, "requeue", jobs.append)
    return jobs


@pytest.fixture(autouse=True)
def _handlers_come_back() -> Iterator[None]:
    before = [signal.getsignal(number) for number in SIGNALS]
    yield
    assert [signal.getsignal(number) for number in SIGNALS] == before


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_a_stage_at_once(number: signal.Signals) -> None:
    with Preemption() as noted, pytest.raises((KeyboardInterrupt, SystemExit)) as end:
        signal.raise_signal(number)
    assert end.type is (KeyboardInterrupt if number == signal.SIGINT else SIGTERMException)
    assert (noted.received, noted.name) == (number, number.name)


def test_one_that_is_deferred_is_noted_the_first_of_several() -> None:
    with Preemption() as noted:
        noted.deferred = True
        assert (noted.received, noted.name) == (0, "")
        signal.raise_signal(signal.SIGUSR1)
        signal.raise_signal(signal.SIGTERM)
        assert noted.name == "SIGUSR1"


def test_ctrl_c_is_answered_and_again_ends_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    with Preemption() as noted:
        noted.deferred = True
        signal.raise_signal(signal.SIGINT)
        assert capfd.readouterr().err == "\nstopping at the next step; Ctrl-C again stops at once\n"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_what_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    try:
        with Preemption() as noted:
            signal.raise_signal(signal.SIGUSR2)
            assert noted.received == 0
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_outside_the_main_thread_nothing_is_handled() -> None:
    handlers: list[Any] = []

    def enter() -> None:
        with Preemption():
            handlers.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert handlers == [before]


def test_a_process_forked_from_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    with Preemption() as noted:
        monkeypatch.setattr(os, "getpid", lambda: -1)
        signal.raise_signal(signal.SIGTERM)
        assert noted.received == 0


STUCK = """
import hashlib, os, signal, sys, threading
from neurona.devices import preemption

preemption.scheduler.slurm_job = lambda: "7"
preemption.scheduler.requeue = lambda job: print("requeued", flush=True)
preemption.STUCK_SECONDS = 0.3
with preemption.Preemption() as noted:
    noted.is_expendable = sys.argv[1] != "recorded"
    if sys.argv[1] == "forked" and os.fork() == 0:
        signal.raise_signal(signal.SIGUSR1)
        os._exit(0)
    if sys.argv[1] != "forked":
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1)).start()
    try:
        hashlib.pbkdf2_hmac("sha256", b"", b"", 2_000_000)  # more than a second, all of it out of Python
    finally:
        print("back", flush=True)
"""


@pytest.mark.parametrize(
    ("case", "status", "said"),
    [("expendable", 143, "requeued\n"), ("recorded", 143, "back\nrequeued\n"), ("forked", 0, "back\n")],
)
def test_python_kept_from_handling_a_signal_is_ended_where_nothing_is_lost(
    tmp_path: Path, case: str, status: int, said: str
) -> None:
    with forked(tmp_path, "-c", STUCK, case) as process:
        assert process.wait() == status, process.err.read_text()
    assert sorted(process.out.read_text().splitlines()) == sorted(said.splitlines())


def test_a_validation_is_overdue_a_second_after_the_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(preemption, "time", SimpleNamespace(monotonic=lambda: now))
    with Preemption() as noted:
        noted.deferred = True
        now += 60
        assert not noted.is_overdue
        signal.raise_signal(signal.SIGTERM)
        now += 0.9
        assert not noted.is_overdue
        now += 0.2
        assert noted.is_overdue


def lose_worker(number: int = 0) -> None:
    """Fails as torch does, after a signal to the whole process group or without one."""
    if number:
        signal.raise_signal(number)
    raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Terminated.")


def test_workers_that_the_signal_has_ended_too_are_no_error_of_their_own() -> None:
    before = signal.getsignal(signal.SIGCHLD)
    with Preemption() as noted:
        noted.deferred = True
        with pytest.raises(RuntimeError, match="worker"), noted.kept_from_workers():
            lose_worker()
        with pytest.raises(SIGTERMException), noted.kept_from_workers():
            lose_worker(signal.SIGTERM)
    signal.signal(signal.SIGCHLD, before)


@pytest.mark.parametrize(
    ("number", "job", "expected"),
    [(signal.SIGUSR1, "7_2", ["7_2"]), (signal.SIGUSR2, None, []), (signal.SIGTERM, "7_2", [])],
)
def test_slurm_is_asked_for_the_signals_that_announce_a_preemption(
    monkeypatch: pytest.MonkeyPatch, requeued: list[str], number: signal.Signals, job: str | None, expected: list[str]
) -> None:
    monkeypatch.setattr(preemption.scheduler, "slurm_job", lambda: job)
    barriers: list[str] = []
    trainer: Any = SimpleNamespace(strategy=SimpleNamespace(barrier=barriers.append))
    with pytest.raises(SIGTERMException):
        Preemption().leave(number, trainer)
    assert requeued == expected
    assert barriers == ["requeue"] * len(expected)  # no rank leaves before the job is requeued


def test_ranks_agree_on_the_signal_that_any_has_received() -> None:
    noted, others = Preemption(), 15
    reduce = lambda tensor, reduce_op: {"max": torch.maximum}[reduce_op](tensor, torch.tensor(others))  # noqa: E731
    trainer: Any = SimpleNamespace(strategy=SimpleNamespace(root_device="cpu", reduce=reduce))
    assert noted.agreed(trainer) == 15
