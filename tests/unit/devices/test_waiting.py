"""How threads wait for one another; what it costs is seen in the processor's time, whatever else the machine does."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from neurona.devices import waiting

LOOPS_SECONDS = 1e-3
"""Of libgomp's active waiting: 300,000 rounds take 3 to 10 ms; a hundred rounds and two wake-ups some 0.1 ms."""

adapts = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or waiting.cores() < 2 or bool(os.environ.keys() & {*waiting.VARIABLES}),
    reason="waits as it does",
)


COSTS = """
import time, torch
from neurona.devices import waiting

def cost_of_waiting():
    began = time.process_time()
    for _ in range(10):
        numbers.add_(1)
        time.sleep(0.05)
    return (time.process_time() - began) / 10

torch.set_num_threads(2)
numbers = torch.zeros(100_000)
before = cost_of_waiting()
with waiting.crowded():
    within = cost_of_waiting()
print(before, within, cost_of_waiting())
"""
"""Processor seconds for a short sum on two threads and for waiting after it."""


@adapts
def test_libgomps_threads_wait_in_long_loops_unless_there_are_more_of_them_than_cores() -> None:
    done = subprocess.run([sys.executable, "-c", COSTS], capture_output=True, text=True, check=True)
    before, within, after = map(float, done.stdout.split())
    assert within < LOOPS_SECONDS < min(before, after)


@pytest.fixture
def crowd(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], int]]:
    """Asks how many crowds there are at the moment, in place of threads."""
    present: list[None] = []

    class Counted:
        def __enter__(self) -> None:
            present.append(None)

        def __exit__(self, *_: object) -> None:
            present.pop()

    monkeypatch.setattr(waiting, "crowded", Counted)
    monkeypatch.setattr(waiting, "PERIOD_SECONDS", 0.01)
    monkeypatch.setattr(waiting, "CALM_SECONDS", 0.1)
    yield lambda: len(present)
    assert not present


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@adapts
def test_a_crowd_stays_while_this_thread_lacks_a_core(
    crowd: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    share = 0.0
    monkeypatch.setattr(waiting, "_waited", lambda delays: share * time.monotonic())
    with waiting.adapted():
        time.sleep(0.1)
        assert crowd() == 0
        assert not waiting.is_busy()
        share = 0.5
        wait_until(lambda: crowd() == 1 and waiting.is_busy())
        time.sleep(0.2)
        assert crowd() == 1
        share = 0.0
        wait_until(lambda: crowd() == 0 and not waiting.is_busy())
        share = 0.5
        wait_until(lambda: crowd() == 1 and waiting.is_busy())
    assert not waiting.is_busy()


@adapts
def test_a_thread_has_waited_while_others_had_its_core(tmp_path: Path) -> None:
    """``schedstat`` holds nanoseconds at work and nanoseconds of waiting."""
    (tmp_path / "schedstat").write_text("12000000000 1500000000 77\n")
    assert waiting._waited(tmp_path / "schedstat") == 1.5
    here = Path(f"/proc/self/task/{threading.get_native_id()}/schedstat")
    assert waiting._waited(here) >= 0


@pytest.mark.parametrize("name", waiting.VARIABLES)
def test_who_has_said_how_to_wait_is_left_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "passive" if name == "OMP_WAIT_POLICY" else "1000")
    with waiting.adapted():
        assert not watches()


@adapts
@pytest.mark.parametrize("cores", [1, 2])
def test_one_core_has_nobody_to_wait_for(cores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "cores", lambda: cores)
    with waiting.adapted():
        assert watches() == (cores > 1)
    assert not watches()


def watches() -> bool:
    return any(thread.name == "neurona-waiting" for thread in threading.enumerate())
