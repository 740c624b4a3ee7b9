"""Signals: a fit that takes steps ends after the next whole one, with a checkpoint; everything else ends at once."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any, NoReturn

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import SIGTERMException

from neurona.devices import scheduler
from neurona.devices.scheduler import REQUEUE_SIGNALS

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
VALIDATION_SECONDS = 1.0
"""How long a validation may go on after a signal: cut off, it costs all that was trained since the last checkpoint."""


class Preemption:
    """Handles SIGINT, SIGTERM, SIGUSR1 and SIGUSR2 while it is entered; does nothing outside the main thread.

    A signal raises KeyboardInterrupt (SIGINT) or SIGTERMException, an exit with 143. While ``deferred`` it is only
    noted in ``received``, for the one who has deferred it to see and to ``leave``; a second SIGINT raises all the same.
    """

    def __init__(self) -> None:
        self.deferred = False
        self.received = 0
        """Number of the first signal, 0 before."""
        self._since = 0.0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Preemption:
        self._process = os.getpid()
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) not in (None, signal.SIG_IGN):  # nohup and background jobs ignore some
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a process forked from this one
            return
        again = number == signal.SIGINT and self.received
        if not self.received:
            self.received, self._since = number, time.monotonic()
        if again or not self.deferred:
            self.deferred = True  # whatever follows is not to disturb what is written at the end
            self.leave(number)
        if number == signal.SIGINT:
            with contextlib.suppress(OSError):
                os.write(2, b"\nstopping at the next step; Ctrl-C again stops at once\n")

    @contextlib.contextmanager
    def kept_from_workers(self) -> Iterator[None]:
        """A signal to the whole process group ends a DataLoader's workers too, which torch reports as an error of its
        own, wherever the process is: here it becomes the end that the signal asks for.
        """
        try:
            yield
        except RuntimeError as error:
            if not (self.received and "DataLoader worker" in str(error)):
                raise
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch would report the other workers
            self.leave(self.received)

    @property
    def name(self) -> str:
        """Of the signal received, as SIGTERM; empty before."""
        return signal.Signals(self.received).name if self.received else ""

    @property
    def is_overdue(self) -> bool:
        """Whether a validation is to be cut off."""
        return self.received != 0 and time.monotonic() - self._since > VALIDATION_SECONDS

    def agreed(self, trainer: Trainer) -> int:
        """The signal that any rank has received, 0 if none has; every rank must ask."""
        received = torch.tensor(self.received, device=trainer.strategy.root_device)
        return int(trainer.strategy.reduce(received, reduce_op="max"))

    def leave(self, number: int, trainer: Trainer | None = None) -> NoReturn:
        """Ends the stage as the signal asks, after having Slurm start its job again.

        trainer: given where every rank is to leave at this point.
        """
        self.received = self.received or number  # another rank may have got it
        if number in REQUEUE_SIGNALS and (job := scheduler.slurm_job()):
            if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
                scheduler.requeue(job)
            if trainer is not None:
                trainer.strategy.barrier("requeue")
        raise KeyboardInterrupt if number == signal.SIGINT else SIGTERMException(143)
