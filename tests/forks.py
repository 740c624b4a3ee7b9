"""Processes that have imported torch, Lightning and neurona as they start: forks of a server that did so once. On
macOS, whose libraries do not survive a fork, they are started anew.

What such a process shows is what one started by the command line shows, but for the seconds that imports take.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

PRELOADED = ["neurona.stages.fit", "neurona.stages.job", "neurona.cli.command", "lightning.pytorch", "tensorboard"]


@dataclass(frozen=True)
class Fork:
    """A process and the files that its output goes to."""

    process: BaseProcess
    out: Path
    err: Path

    def wait(self, seconds: float = 60) -> int:
        """Its exit status, as ``subprocess`` has it."""
        self.process.join(seconds)
        assert self.process.exitcode is not None, "it has not ended"
        return self.process.exitcode


@contextmanager
def forked(
    folder: Path, *command: str, environment: Mapping[str, str] | None = None, name: str = "fork"
) -> Iterator[Fork]:
    """``python command …`` in a folder, the first being a file, or after ``-c`` Python itself; killed in the end.

    environment: added to this process's. name: of its output, beside the folder.
    """
    context: Any = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
    context.set_forkserver_preload(PRELOADED)
    files = [folder.with_name(f"{folder.name}-{name}.{kind}") for kind in ("out", "err")]
    inherited = {key: value for key, value in os.environ.items() if key != "HYDRA_FULL_ERROR"}
    arguments = (str(folder), command, {**inherited, **(environment or {})}, *map(str, files))
    process = context.Process(target=_run, args=arguments)
    process.start()
    try:
        yield Fork(process, *files)
    finally:
        process.kill()
        process.join()


@contextmanager
def ranks(number: int, folder: Path, *command: str) -> Iterator[list[Fork]]:
    """The same in so many processes, which torchrun would have started."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"WORLD_SIZE": str(number), "LOCAL_WORLD_SIZE": str(number), "GROUP_RANK": "0", "MASTER_PORT": port}
    common |= {"MASTER_ADDR": "127.0.0.1", "TORCHELASTIC_RUN_ID": "none"}
    with ExitStack() as on_exit:
        yield [
            on_exit.enter_context(
                forked(
                    folder,
                    *command,
                    environment={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                    name=f"rank{rank}",
                )
            )
            for rank in range(number)
        ]


def _run(folder: str, command: tuple[str, ...], environment: dict[str, str], out: str, err: str) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for descriptor, file in ((1, out), (2, err)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())  # a sweep starts the server with some blocked
    if command[0] == "-c":
        sys.argv = ["-c", *command[2:]]
        exec(compile(command[1], "-c", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = list(command)
        sys.path.insert(0, str(Path(command[0]).parent))
        runpy.run_path(command[0], run_name="__main__")
