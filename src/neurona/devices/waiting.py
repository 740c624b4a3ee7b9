"""How torch's threads wait for one another: actively while the cores are theirs, asleep while others use them too.

GNU's OpenMP, with which torch computes on Linux, has a thread wait in a loop of some milliseconds before it sleeps,
several times in each step. Where another process has the core of the thread that is waited for, the loop uses up this
one's time in vain, and a step takes a hundred times as long. To sleep at once is right there, but waking up costs a
small step a third of its time where nothing else runs. How long the loop is, is settled when torch is imported, with
one exception (libgomp's manual, GOMP_SPINCOUNT): it is short while there are more OpenMP threads than cores. So there
are, while the machine is busy.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import torch

VARIABLES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
"""With either, the user has decided how threads wait."""

PERIOD_SECONDS = 0.1

BUSY_SHARE = 0.1
"""Of a period, in which a thread could have run but had no core, from which on the machine is busy."""

CALM_SECONDS = 1.0
"""Without such a period, after which it is no longer."""

_busy = threading.Event()


def is_busy() -> bool:
    """Whether other processes use the cores too, at present, as far as ``adapted`` has seen."""
    return _busy.is_set()


@contextlib.contextmanager
def adapted() -> Iterator[None]:
    """Has the threads that compute with this one wait as is best at the time. It changes no bit of any result, and does
    nothing where OpenMP isn't GNU's, on one core, or where the environment says how to wait.
    """
    delays = Path(f"/proc/self/task/{threading.get_native_id()}/schedstat")  # see proc_pid_schedstat(5)
    ended = threading.Event()
    watch = threading.Thread(target=_watch, args=(delays, ended), name="neurona-waiting", daemon=True)
    if delays.exists() and cores() > 1 and not os.environ.keys() & {*VARIABLES} and hasattr(_openmp(), "GOMP_parallel"):
        watch.start()
    try:
        yield
    finally:
        ended.set()
        if watch.ident is not None:
            watch.join()


def cores() -> int:
    """Those that libgomp counts: this process's."""
    return len(os.sched_getaffinity(0))


def _watch(delays: Path, ended: threading.Event) -> None:
    """Lets a crowd in while the machine is busy."""
    with contextlib.ExitStack() as on_calm:
        now, waited, busy = time.monotonic(), _waited(delays), -CALM_SECONDS
        while not ended.wait(PERIOD_SECONDS):
            since, before = now, waited
            now, waited = time.monotonic(), _waited(delays)
            was_busy = now - busy <= CALM_SECONDS
            if not was_busy:
                on_calm.close()
            if waited - before > BUSY_SHARE * (now - since):
                if not was_busy:
                    on_calm.enter_context(crowded())
                    _busy.set()
                    on_calm.callback(_busy.clear)
                busy = now


def _waited(delays: Path) -> float:
    """Seconds in which a thread could have run but had no core, since it began."""
    return int(delays.read_text().split()[1]) / 1e9


@contextlib.contextmanager
def crowded() -> Iterator[None]:
    """Within, there are more OpenMP threads than cores: one thread has a team of so many of its own, which sleeps."""
    over, here = threading.Event(), threading.Event()

    def crowd() -> None:
        nothing = ctypes.CDLL(None).free  # of NULL; what each of them is to call
        _openmp().GOMP_parallel(nothing, None, cores() + 1, 0)
        here.set()
        over.wait()

    thread = threading.Thread(target=crowd, daemon=True)
    thread.start()
    here.wait()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _openmp() -> ctypes.CDLL:
    """torch's library for the CPU, which gives access to its OpenMP, whatever that one's file is called."""
    path = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    return ctypes.CDLL(str(path) if path.exists() else None)
