"""Signals: a fit that takes steps ends after the next whole one, with a checkpoint; everything else ends at once."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any, NoReturn

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import SIGTERMException

from neurona.devices import launch, scheduler
from neurona.devices.scheduler import REQUEUE_SIGNALS

SIGNALS = launch.FORWARDED
VALIDATION_SECONDS = 1.0
"""How long a validation may go on after a signal: cut off, it costs all that was trained since the last checkpoint."""
STUCK_SECONDS = 1.5
"""How long a library's code may keep this process from ending as a signal asks, where nothing is lost."""

os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))  # a child's signals are not this process's


class Preemption:
    """Handles ``SIGNALS`` while it is entered; does nothing outside the main thread.

    A signal raises KeyboardInterrupt (SIGINT) or SIGTERMException, an exit with 143. While ``deferred`` it is only
    noted in ``received``, for the one who has deferred it to see and to ``leave``; a second SIGINT raises all the same.
    """

    def __init__(self) -> None:
        self.deferred = False
        self.is_expendable = True
        """Whether nothing is lost if the process just ends."""
        self.received = 0
        """Number of the first signal, 0 before."""
        self._since = 0.0
        self._is_requeued = False
        self._before: dict[int, Any] = {}
        self._on_exit = contextlib.ExitStack()
        self._has_ended = threading.Event()

    def __enter__(self) -> Preemption:
        self._process = os.getpid()
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) not in (None, signal.SIG_IGN):  # nohup and background jobs ignore some
                    self._before[number] = signal.signal(number, self._handle)
            heard, told = os.pipe()
            os.set_blocking(told, False)
            self._on_exit.callback(os.close, told)
            self._on_exit.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(told, warn_on_full_buffer=False))
            threading.Thread(target=self._watch, args=(heard,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._has_ended.set()
        self._on_exit.close()
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _watch(self, heard: int) -> None:
        """Ends the process for a signal while the main thread stays in a library's code, as in polars' that unpacks a
        file: until it returns to Python, nothing is handled. A notebook is not ended for Ctrl-C.
        """
        is_notebook = not hasattr(sys.modules["__main__"], "__file__")
        while arrived := os.read(heard, 1):
            number = arrived[0]
            if number not in self._before or (is_notebook and number == signal.SIGINT):
                continue
            # In parts, as on a machine that is busy all of them last longer.
            if not any(self._has_ended.wait(STUCK_SECONDS / 10) for _ in range(10)) and self.is_expendable:
                with contextlib.suppress(SIGTERMException, KeyboardInterrupt):
                    self.leave(number)
                os._exit(130 if number == signal.SIGINT else 143)
        os.close(heard)

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
        """Whether a validation has to end now."""
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
        if number in REQUEUE_SIGNALS and not self._is_requeued and (job := scheduler.slurm_job()):
            self._is_requeued = True
            if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
                scheduler.requeue(job)
            if trainer is not None:
                trainer.strategy.barrier("requeue")
        raise KeyboardInterrupt if number == signal.SIGINT else SIGTERMException(143)
