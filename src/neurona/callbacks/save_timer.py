"""When the last checkpoint of a fit is due: by steps, by the clock, at the end of an epoch, or because of a signal."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator

PAUSE_SECONDS = 1.0
SHARE_OF_TIME = 0.01
"""From one checkpoint to that of a later epoch there is at least a second, and so much time that writing takes no more
than this share of it.
"""


class SaveTimer:
    """It is told of steps, requests and what is written, and knows nothing of a Trainer.

    every_n_steps: optimiser steps after which one is due, null for never. every_seconds: longest time without one.
    clock: tells seconds; where it begins makes no difference.
    """

    def __init__(
        self, every_n_steps: int | None, every_seconds: float, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.every_n_steps, self.every_seconds, self.clock = every_n_steps, every_seconds, clock
        self.is_due = False
        """Whether one is to be written as soon as there is a state to go on from."""
        self.signal = 0
        """The number of the signal after which the fit is to end, once it is written; 0 for none."""

    def start(self, step: int) -> None:
        """A fit begins, or goes on, at this step."""
        self._step, self._saved_at = step, self.clock()
        self._pause_seconds = PAUSE_SECONDS
        self.is_due, self.signal = False, 0

    def count(self, step: int) -> None:
        """So many steps are taken. A step may be told of more than once, as accumulated mini-batches do."""
        if self.every_n_steps and step % self.every_n_steps == 0 and step != self._step:
            self._step, self.is_due = step, True

    def is_time(self, *, at_epoch_end: bool = False) -> bool:
        """Whether the clock asks for one; sooner at the end of an epoch."""
        elapsed = self.clock() - self._saved_at
        return elapsed >= min(self.every_seconds, self._pause_seconds if at_epoch_end else math.inf)

    def request(self, signal: int = 0) -> None:
        """One is due, whatever the steps; with a signal, the fit ends with it."""
        self.is_due, self.signal = True, signal

    def is_due_at_epoch_end(self, epoch: int, *, is_over: bool) -> bool:
        """Whether one is due at the end of this epoch: always of the first, from 0, and where the fit is over."""
        return self.is_due or is_over or epoch == 0

    @contextlib.contextmanager
    def saving(self) -> Iterator[None]:
        """Within, one is written; what that takes says how soon the next epoch may have one."""
        started = self.clock()
        yield
        self.is_due, self._saved_at = False, self.clock()
        self._pause_seconds = max(PAUSE_SECONDS, (self._saved_at - started) / SHARE_OF_TIME)
