"""The clock of a repeat."""

from __future__ import annotations

import time


class Clock:
    """Wall seconds of the timed epochs, those of their steps alone, and CPU seconds of all the process's threads.

    pause and resume do nothing before ``start``, so that the untimed first epoch needs no case of its own.
    """

    def __init__(self) -> None:
        self.seconds = self.step_seconds = self.cpu_seconds = 0.0
        self._is_running = False
        self._resumed: float | None = None

    def start(self) -> None:
        self._is_running = True
        self._cpu = time.process_time()
        self._started = self._resumed = time.perf_counter()

    def pause(self) -> None:
        """The steps of an epoch are done; validation, checkpoints and what else ends an epoch follow."""
        if self._resumed is not None:
            self.step_seconds += time.perf_counter() - self._resumed
            self._resumed = None

    def resume(self) -> None:
        if self._is_running and self._resumed is None:
            self._resumed = time.perf_counter()

    def stop(self) -> None:
        self.pause()
        self.seconds = time.perf_counter() - self._started
        self.cpu_seconds = time.process_time() - self._cpu
        self._is_running = False
