"""Runs the jobs of a sweep as processes of their own, several at a time; none can harm the others or the sweep.

Each is forked from a server that has imported torch once (the standard library's ``forkserver``); the launcher itself
imports no torch. A job's console output goes to ``<sweep>/<number>.log``, which stays where the job failed.
"""

from __future__ import annotations

import contextlib
import copy
import math
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import connection, forkserver, resource_tracker
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, filter_overrides, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from neurona.config.check import Unread
from neurona.config.check import check as check_config
from neurona.config.explain import REFUSALS, explain, show
from neurona.config.make import targets
from neurona.devices import launch, scheduler
from neurona.errors import ConfigError, JobFailed, RunError, UserError
from neurona.runs import jobs
from neurona.runs.folder import RunFolder, read_metrics
from neurona.stages import job, processes
from neurona.sweep.names import SUBDIR, folder_of

MAX_CHECKED_JOBS = 100
"""Jobs composed and checked before the first begins, unless more of them bring a new word: enough for most sweeps."""

GRACE_SECONDS = 10.0
"""Time a job has to end by itself once it is late."""

LOOK_SECONDS = 0.5
"""How often deadlines are looked at, which a signal moves."""


@dataclass
class Running:
    """A running job."""

    number: int
    overrides: Sequence[str]
    folder: Path
    process: BaseProcess
    slot: int
    deadline: float
    is_late: bool = False


class Processes(Launcher):
    """jobs: at a time; None: one per GPU, where there are, else one per core. timeout_minutes: a job that takes longer
    is ended and has failed. fail_fast: the first job that fails ends the sweep.
    """

    def __init__(self, *, jobs: int | None, timeout_minutes: float | None, fail_fast: bool) -> None:
        if jobs is not None and not (type(jobs) is int and jobs > 0):
            raise ConfigError("hydra.launcher.jobs", jobs, "must be 1 or more, or null for one per GPU or core")
        if timeout_minutes is not None and not (isinstance(timeout_minutes, int | float) and timeout_minutes > 0):
            raise ConfigError("hydra.launcher.timeout_minutes", timeout_minutes, "must be above 0, or null")
        if type(fail_fast) is not bool:
            raise ConfigError("hydra.launcher.fail_fast", fail_fast, "must be true or false")
        self.jobs = jobs
        self.timeout_seconds = math.inf if timeout_minutes is None else 60 * timeout_minutes
        self.fail_fast = fail_fast

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        subdir = OmegaConf.to_container(config.hydra.sweep)["subdir"]  # type: ignore[call-overload,index]
        if subdir != "${hydra:job.num}":
            raise ConfigError(SUBDIR, subdir, "stays as it is: the sweep names the folders of its jobs")
        self.config = config
        self.loader = hydra_context.config_loader
        self.sweep = Path(str(config.hydra.sweep.dir))
        self._composed: dict[int, tuple[DictConfig, Unread]] = {}
        self._per_job = 0
        """Devices of a job, as the first one tells."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Runs them all. The return value of each is its figures."""
        numbered = list(enumerate(job_overrides, initial_job_idx))
        with RunFolder(self.sweep, "hydra.sweep.dir"):
            self._check_all(numbered)
            announce(self.config)
            figures = dict(self.stream(numbered))
        return [
            JobReturn(overrides=list(overrides), status=JobStatus.COMPLETED, _return_value=figures.get(number))
            for number, overrides in numbered
        ]

    def stream(self, entries: Iterable[tuple[int, Sequence[str]]]) -> Iterator[tuple[int, dict[str, Any]]]:
        """Runs jobs, given as their number and overrides, and yields the number and figures of each as it ends.

        The next is asked for when there is room for it. A signal is handed on to the jobs, which have
        ``launch.PATIENCE_SECONDS`` to end, and no more are begun; it leaves with KeyboardInterrupt or 143 once all have
        ended. Raises RunError if ``fail_fast`` has ended the sweep, JobFailed where the fault is this launcher's.
        """
        try:
            yield from self._stream(entries)
        except (UserError, RunError):
            raise
        except Exception as error:
            raise JobFailed("the launcher of the sweep has failed") from error

    def _stream(self, entries: Iterable[tuple[int, Sequence[str]]]) -> Iterator[tuple[int, dict[str, Any]]]:
        waiting = iter(entries)
        running: list[Running] = []
        failed: tuple[int, str] | None = None
        with contextlib.ExitStack() as on_exit:
            on_exit.callback(_stop, running)
            received = on_exit.enter_context(launch.handed_on(lambda signum: _send(signum, running)))
            while True:
                while (
                    not (received or failed)
                    and len(running) < self._slots
                    and (entry := next(waiting, None)) is not None
                ):
                    figures = self._begin(*entry, running)
                    for signum in received:  # it came while the job was being started
                        _send(signum, running)
                    if figures is not None:
                        yield entry[0], figures
                if not running:
                    break
                for ended in _ended(running):
                    figures = self._outcome(ended, is_told=bool(received or failed))
                    self._tell(ended.number, figures)
                    if self.fail_fast and figures.get("status") == "failed" and failed is None:
                        failed = ended.number, str(figures.get("error"))
                        _send(signal.SIGTERM, running)
                    yield ended.number, figures
        if received:
            if received & {signal.SIGUSR1, signal.SIGUSR2} and (slurm := scheduler.slurm_job()):
                scheduler.requeue(slurm)
            raise KeyboardInterrupt if signal.SIGINT in received else SystemExit(143)
        if failed:
            raise RunError(f"job {failed[0]} has failed, which ended the sweep (hydra.launcher.fail_fast): {failed[1]}")

    def check(self, overrides: Sequence[str], number: int = 0) -> tuple[DictConfig, Unread]:
        """Composes a job, its node ``hydra`` included, and checks it. Returns it with what ``config.check`` leaves.

        Raises UserError for a mistake.
        """
        try:
            composed = self.loader.load_sweep_config(self.config, list(overrides))
            with open_dict(composed), read_write(composed.hydra.runtime):
                composed.hydra.job.id = composed.hydra.job.num = number
                HydraConfig.instance().set_config(composed)  # what ${hydra:…} in it refers to
                composed.hydra.runtime.output_dir = str(folder_of(self.sweep, number, overrides))
        except REFUSALS as error:
            raise explain(error, overrides) from error
        return composed, check_config(_task(composed), composed.hydra.runtime.choices)

    def _check_all(self, entries: Sequence[tuple[int, Sequence[str]]]) -> None:
        """Checks the jobs that will run and have a value that no job before them has: first every word, before anything
        imports torch, then numbers.
        """
        pending: dict[int, tuple[Sequence[str], set[str]]] = {}
        for number, overrides in entries:
            folder, lines = folder_of(self.sweep, number, overrides), filter_overrides(overrides)
            jobs.check_same(folder, lines)
            if not jobs.is_over(read_metrics(folder), self.config.retry_failed):
                pending[number] = overrides, set(lines)
        seen: set[str] = set()

        def check(number: int) -> None:
            self._composed[number] = self.check(pending[number][0], number)
            seen.update(pending[number][1])

        for number, (_, values) in pending.items():
            if any(_is_word(line) for line in values - seen):
                check(number)
        for number, (_, values) in pending.items():
            if len(self._composed) < MAX_CHECKED_JOBS and values - seen:
                check(number)
                _start_server(self._composed[number][0])  # it imports while the rest is checked

    def _begin(self, number: int, overrides: Sequence[str], running: list[Running]) -> dict[str, Any] | None:
        """Starts a job. Returns the figures of one that is over, or cannot be started."""
        folder = folder_of(self.sweep, number, overrides)
        try:
            jobs.check_same(folder, filter_overrides(overrides))
        except UserError as error:  # the folder is another job's, and stays as it is
            return {"status": "failed", "error": str(error)}
        try:
            figures = read_metrics(folder)
            if jobs.is_over(figures, self.config.retry_failed):
                if figures["status"] in jobs.FINAL_STATUSES:  # without this launcher, after another was killed
                    self._log(number).unlink(missing_ok=True)
                return figures
            composed, unread = self._composed.pop(number) if number in self._composed else self.check(overrides, number)
        except UserError as error:
            return jobs.mark_failed(folder, str(error), filter_overrides(overrides))
        self._per_job = self._per_job or processes.count(_task(composed)) or 1
        slot = min(set(range(self._slots)) - {other.slot for other in running})
        _start_server(composed)
        process = multiprocessing.get_context("forkserver").Process(
            target=_work,
            args=(composed, unread, self._gpus(slot), max(1, _cores() // self._slots), self._log(number)),
        )
        self.sweep.mkdir(parents=True, exist_ok=True)
        try:
            process.start()
        except (EOFError, OSError):  # the server has been killed: with another
            process.start()
        deadline = time.monotonic() + self.timeout_seconds
        running.append(Running(number, filter_overrides(overrides), folder, process, slot, deadline))
        return None

    @property
    def _slots(self) -> int:
        """Jobs at a time; one until the first has told its devices."""
        if not self._per_job:
            return 1
        return self.jobs or max(1, (len(_gpus()) or _cores()) // self._per_job)

    def _gpus(self, slot: int) -> str | None:
        """Those of the jobs in a slot, as CUDA_VISIBLE_DEVICES names them; None where there are none."""
        gpus = _gpus()
        first = slot * self._per_job % max(1, len(gpus))
        return ",".join(gpus[first : first + self._per_job]) or None

    def _log(self, number: int) -> Path:
        return self.sweep / f"{number}.log"

    def _outcome(self, ended: Running, is_told: bool) -> dict[str, Any]:
        """The figures of a job that has ended, its failure noted where it could not do so itself.

        is_told: whether it may have ended because it was told to.
        """
        status = ended.process.exitcode
        assert status is not None
        ended.process.close()
        figures = read_metrics(ended.folder)
        log_file = self._log(ended.number)
        goes_on = status in launch.PREEMPTED and not ended.is_late  # it may have had a signal from elsewhere
        if figures.get("status") in jobs.FINAL_STATUSES or goes_on or (is_told and status < 0):
            log_file.unlink(missing_ok=True)
            return figures or {"status": "interrupted"}
        if ended.is_late:
            problem = f"took longer than hydra.launcher.timeout_minutes={self.timeout_seconds / 60:g}"
        elif figures.get("status") == "failed":
            return figures
        elif status < 0:
            problem = f"was killed by {signal.Signals(-status).name}"
            problem += "; the machine may have run out of memory" if -status == signal.SIGKILL else ""
        else:
            lines = log_file.read_text(errors="replace").splitlines() if status in (1, 2) and log_file.exists() else []
            problem = next((line for line in reversed(lines) if line.strip()), f"ended with status {status}")
        return jobs.mark_failed(ended.folder, problem, ended.overrides)

    def _tell(self, number: int, figures: dict[str, Any]) -> None:
        if not self.config.quiet:
            print(f"job {number}: {figures.get('status')}", flush=True)


def announce(config: DictConfig) -> None:
    """Says where a sweep is that has passed its checks."""
    if not config.quiet:
        print(f"sweep in {config.hydra.sweep.dir}", flush=True)


def checked(loader: Any, config: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """A job's configuration without Hydra's node, checked. Raises UserError for a mistake."""
    try:
        composed: DictConfig = loader.load_sweep_config(config, list(overrides))
    except REFUSALS as error:
        raise explain(error, overrides) from error
    check_config(task := _task(composed), composed.hydra.runtime.choices)
    return task


def _is_word(override: str) -> bool:
    """Whether the value of an override is anything but a number, so that it may be misspelled."""
    try:
        float(override.partition("=")[2])
    except ValueError:
        return True
    return False


def _task(composed: DictConfig) -> DictConfig:
    """What Hydra hands to a task: the configuration without its own node."""
    task = copy.copy(composed)
    with open_dict(task):
        del task["hydra"]
    return task


def _start_server(composed: DictConfig) -> None:
    """Starts the process from which jobs are forked; it imports what this job needs, as most others will."""
    components = targets("", OmegaConf.to_container(_task(composed)))
    modules = {str(node["_target_"]).rpartition(".")[0] for _, node in components}
    forkserver.set_forkserver_preload(
        [
            "neurona.sweep.server",
            "neurona.stages.execute",
            "neurona.stages.fit",
            "torch.utils.tensorboard",
            *sorted(modules),
        ]
    )
    resource_tracker.ensure_running()  # the server would start it, and that unblocks signals
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, launch.FORWARDED)  # a group's are the launcher's to hand on
    forkserver.ensure_running()
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _ended(running: list[Running]) -> list[Running]:
    """Waits until a job ends, and takes those that have out of the running; ends those that are late."""
    ready = connection.wait([one.process.sentinel for one in running], LOOK_SECONDS)
    for one in running:
        if time.monotonic() >= one.deadline:
            _kill(one, signal.SIGKILL if one.is_late else signal.SIGTERM)
            one.is_late, one.deadline = True, time.monotonic() + GRACE_SECONDS
    ended = [one for one in running if one.process.sentinel in ready]
    for one in ended:
        one.process.join()
        running.remove(one)
    return ended


def _send(signum: int, running: Sequence[Running]) -> None:
    """Tells jobs to end. The launcher itself, not each of them, has Slurm start them again."""
    for one in running:
        one.deadline = min(one.deadline, time.monotonic() + launch.PATIENCE_SECONDS)
        _kill(one, signum if signum == signal.SIGINT else signal.SIGTERM)


def _kill(one: Running, signum: int) -> None:
    assert one.process.pid is not None
    with contextlib.suppress(ProcessLookupError):
        os.kill(one.process.pid, signum)


def _stop(running: list[Running]) -> None:
    """Ends the jobs that a launcher which fails would leave behind."""
    _send(signal.SIGTERM, running)
    for one in running:
        one.process.join(GRACE_SECONDS)
        one.process.kill()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _gpus() -> list[str]:
    """The NVIDIA GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name not in ("", "-1")]
    return [str(index) for index, _ in enumerate(Path("/proc/driver/nvidia/gpus").glob("*"))]


def _work(composed: DictConfig, unread: Unread, gpus: str | None, cores: int, log_file: Path) -> None:
    """Runs in the process of a job, in a session of its own, so that only the launcher gets Ctrl-C."""
    os.setsid()
    multiprocessing.set_start_method(None, force=True)  # a DataLoader's workers start as in any other process
    with log_file.open("ab") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    parent = multiprocessing.parent_process()
    assert parent is not None
    launch.end_with(parent.sentinel)
    if gpus is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus
    os.environ["OMP_NUM_THREADS"] = str(cores)  # of processes that the job starts
    import torch

    from neurona.devices import cpu

    cpu.cores = cores
    torch.set_num_threads(cores)
    setup_globals()
    HydraConfig.instance().set_config(composed)
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, launch.FORWARDED)  # what has come in the meantime as well
        job.run(_task(composed), unread)
    except (UserError, RunError) as error:
        sys.exit(show(error))
    except KeyboardInterrupt:
        sys.exit(130)
