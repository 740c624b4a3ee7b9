"""Starts the processes of a run on several devices of this machine, and ends them together.

``trainer=ddp trainer.devices=4`` makes the process of the command line start four, one per device, and wait for them.
It imports no torch and trains nothing itself. Under torchrun or srun the processes are there already. Lightning's own
launcher takes the first process for rank 0 and starts the others with the command line, sweeps included, again; a rank
that dies makes it kill its parent.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import IO, Any

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
LIFELINE = "NEURONA_LIFELINE"
"""In a started process: the descriptor of a pipe that is closed when the process that started it is gone."""

GRACE_SECONDS = 30.0
"""Time the processes have to end by themselves once one of them has failed: a second, unless the machine is busy."""

PATIENCE_SECONDS = 60.0
"""Time they have to write a checkpoint and end once a signal has told them to."""

PREEMPTED = (130, 143)
"""Exit statuses of processes that a signal has ended: they all do, in their own time."""


def open_streams() -> None:
    """Gives a process without standard input, output or error ones that lead nowhere: what is opened next would get
    their numbers, and what is meant for them be written into it.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115


def is_launched() -> bool:
    """Whether this process is one of several that torchrun, srun or ``start`` has started."""
    return in_torchrun() or in_slurm_step()


def in_torchrun() -> bool:
    """Whether torchrun, or ``start`` in its place, has started this process."""
    return {"TORCHELASTIC_RUN_ID", "RANK"} <= os.environ.keys()


def in_slurm_step() -> bool:
    """Whether srun has started this process as one of several tasks."""
    return "SLURM_STEP_ID" in os.environ and int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1


def rank() -> int:
    """This process's number among all of its run, 0 for the one that writes."""
    return int(os.environ["RANK" if in_torchrun() else "SLURM_PROCID"]) if is_launched() else 0


def start(number: int, command: Sequence[str]) -> int:
    """Runs the command in ``number`` processes, as torchrun's ranks, until all have ended. Returns the exit status.

    Signals are handed on to all. A process that fails ends the others, and what it wrote is shown, or, where rank 0 was
    killed, what another did; otherwise only rank 0 is heard.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    lifeline, held = os.pipe()
    environment = {
        **os.environ,
        "WORLD_SIZE": str(number),
        "LOCAL_WORLD_SIZE": str(number),
        "GROUP_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": f"neurona-{os.getpid()}",
        LIFELINE: str(lifeline),
    }
    processes: list[subprocess.Popen[bytes]] = []
    with contextlib.ExitStack() as on_exit:
        on_exit.callback(os.close, held)
        signals = on_exit.enter_context(handed_on(lambda signum: _send(signum, processes)))
        errors = [on_exit.enter_context(tempfile.TemporaryFile()) for _ in range(number)]
        for rank in range(number):
            process = subprocess.Popen(
                command,
                env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                pass_fds=[lifeline],
                start_new_session=True,  # Ctrl-C reaches this process alone, which hands it on
                stdout=subprocess.DEVNULL if rank else None,
                stderr=errors[rank] if rank else None,
            )
            processes.append(process)
        os.close(lifeline)
        failed = _wait(processes)
        if failed is None:
            return 0
        status = processes[failed].returncode
        if -status in signals:  # it came before the process could handle it
            return 130 if -status == signal.SIGINT else 143
        _explain(failed, processes, errors)
        return 1 if status < 0 else status


def _explain(failed: int, processes: Sequence[subprocess.Popen[Any]], errors: Sequence[IO[bytes]]) -> None:
    """Says which rank ended the run and how, after its own output, unless rank 0 has already said so."""
    status = processes[failed].returncode
    has_told = failed == 0 and status > 0
    if has_told or processes[0].returncode in (2, *PREEMPTED):
        return
    speaker = 1 if failed == 0 else failed  # rank 0's words are on the screen; where it was killed, another tells more
    errors[speaker].seek(0)
    sys.stderr.write(errors[speaker].read().decode(errors="replace"))
    ending = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
    print(f"process {failed} of {len(processes)} {ending}, which ended the run", file=sys.stderr)


@contextlib.contextmanager
def handed_on(send: Callable[[int], None]) -> Iterator[set[int]]:
    """Signals go to other processes, by ``send``, instead of ending this one. Yields those that have come."""
    received: set[int] = set()

    def hand_on(signum: int, frame: FrameType | None) -> None:
        received.add(signum)
        send(signum)

    before = {}
    if threading.current_thread() is threading.main_thread():
        heard = [signum for signum in FORWARDED if signal.getsignal(signum) is not signal.SIG_IGN]  # as nohup's are not
        before = {signum: signal.signal(signum, hand_on) for signum in heard}
    try:
        yield received
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _send(signum: int, processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        if process.poll() is None:
            process.send_signal(signum)


def _wait(processes: Sequence[subprocess.Popen[Any]]) -> int | None:
    """Waits for all; those that outlive a failed one by ``GRACE_SECONDS`` are killed. Returns the first that failed."""
    failed: int | None = None
    deadline = float("inf")
    while any(process.poll() is None for process in processes):
        if failed is None and (failed := _first_failed(processes)) is not None:
            was_signalled = processes[failed].returncode in PREEMPTED
            deadline = time.monotonic() + (PATIENCE_SECONDS if was_signalled else GRACE_SECONDS)
        if time.monotonic() > deadline:
            for process in processes:
                if process.poll() is None:
                    process.kill()
        time.sleep(0.02)
    return failed if failed is not None else _first_failed(processes)


def _first_failed(processes: Sequence[subprocess.Popen[Any]]) -> int | None:
    return next((rank for rank, process in enumerate(processes) if process.poll()), None)


def end_with_parent() -> None:
    """In a process that ``start`` has started: ends it, as SIGTERM does, once the one that started it is gone."""
    if lifeline := os.environ.get(LIFELINE):
        end_with(int(lifeline))


def end_with(descriptor: int) -> None:
    """Ends this process, as SIGTERM does, once the other end of a pipe is closed; in the end by force."""

    def wait() -> None:
        os.read(descriptor, 1)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(PATIENCE_SECONDS)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait, daemon=True).start()
