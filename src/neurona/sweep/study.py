"""An Optuna study that any number of processes work on: each claims a trial, runs it, and tells how it has ended.

A trial's number is its job's and its folder's. What shows that a trial is at work is a lock, which no death leaves
behind: on ``<sweep>/.trial-<number>.lock``. A trial that is running in the study while no one holds its lock belonged
to a process that is gone, and the next to claim takes it up. Where the processes share a database but no folder,
Optuna's heartbeats tell instead.
"""

from __future__ import annotations

import contextlib
import fcntl
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import optuna
from omegaconf import OmegaConf
from optuna.exceptions import UpdateFinishedTrialError
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState

from neurona.errors import ConfigError
from neurona.runs.files import write_atomically
from neurona.runs.jobs import SEARCH, number_of
from neurona.sweep.space import Space

JOURNAL = "study.journal"
LEAST_FAILURES = 10
HEARTBEAT_SECONDS, STALE_SECONDS = 30, 120
PRUNERS: dict[str, tuple[str, dict[str, Any]]] = {
    "none": ("NopPruner", {}),
    "median": ("MedianPruner", {}),
    "percentile": ("PercentilePruner", {"percentile": 25.0}),
    "hyperband": ("HyperbandPruner", {}),
}

optuna.logging.set_verbosity(optuna.logging.ERROR)


def pruner(name: str, arguments: Mapping[str, Any]) -> optuna.pruners.BasePruner:
    """Raises ConfigError for arguments that Optuna's class does not take."""
    kind, defaults = PRUNERS[name]
    try:
        return getattr(optuna.pruners, kind)(**defaults | dict(arguments))
    except (TypeError, ValueError) as error:
        raise ConfigError("hydra.sweeper.pruner_arguments", dict(arguments), str(error)) from error


class Worker:
    """One of the processes that work on a study.

    settings: ``study``, its name, or None for the one that the folder holds, a new one named after it if there is none;
    ``storage``, a URL as it is written, or None for a journal in the folder; ``metric``, ``direction``; ``pruner`` and
    its arguments, for the runs. fixed: the overrides that all trials share.
    Raises ConfigError if the storage cannot be used, or if it or the folder holds a search that was begun with another
    command.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], space: Space, fixed: Sequence[str]) -> None:
        self.folder, self.space, self.metric = folder, space, str(settings["metric"])
        self._locks: dict[int, IO[bytes]] = {}
        self._left: set[int] = set()
        self._over = threading.Event()
        self._pulse = threading.Thread(target=self._beat_on, daemon=True)
        folder.mkdir(parents=True, exist_ok=True)
        with self.alone():
            stored = _settings(folder) if (folder / SEARCH).exists() else {}
            self.settings = settings = {**settings, "study": settings["study"] or stored.get("study") or str(folder)}
            place = {key: settings[key] for key in ("study", "storage")}
            _require_same(folder, {key: (stored or settings)[key] for key in place}, place)
            self._storage, self.study = _open(folder, settings)
            search = {f"space of {key}": str(distribution) for key, distribution in space.items()}
            search |= {"command": " ".join(sorted(fixed)), "metric": self.metric, "direction": settings["direction"]}
            _require_same(folder, self.study.user_attrs.get("search", search), search)
            self.study.set_user_attr("search", search)
            write_atomically(folder / SEARCH, OmegaConf.to_yaml(OmegaConf.create(settings)))

    def claim(
        self, total: int, points: float, sampler: Callable[[int], BaseSampler]
    ) -> tuple[int, dict[str, Any]] | None:
        """The number and parameters of a trial to run; None where there are as many as there are to be.

        total: trials that are at work or have ended well; the search also ends when as many have failed, but not fewer
        than LEAST_FAILURES. points: those of a grid. sampler: makes the one for the trial of a number.
        """
        with self.alone(), _without_warnings():
            for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                if trial.number not in self._left and self._adopt(trial.number):
                    return trial.number, trial.params
            optuna.storages.fail_stale_trials(self.study)
            trials = self.study.get_trials(deepcopy=False)
            failed = sum(trial.state == TrialState.FAIL for trial in trials)
            if len(trials) - failed >= total or failed >= max(total, LEAST_FAILURES) or len(trials) >= points:
                return None
            # Asked of a copy in memory: a worker that is killed leaves a trial with all its parameters, or none.
            copy = optuna.create_study(sampler=sampler(len(trials)), direction=self.study.direction)
            copy.add_trials(trials)
            copy.ask(dict(self.space))
            study_id = self._storage.get_study_id_from_name(self.study.study_name)
            trial = self._storage.get_trial(self._storage.create_new_trial(study_id, copy.trials[-1]))
            self._locks[trial.number] = _locked(self._lock(trial.number), "ab")
            self._beat(trial.number)
            return trial.number, trial.params

    def tell(self, number: int, figures: Mapping[str, Any]) -> None:
        """Tells how a trial has ended; one that can go on is left for the next worker.

        figures: the run's ``metrics.json``. Raises ConfigError if a run that has finished lacks the objective.
        """
        status, value = figures.get("status"), figures.get(self.metric)
        if status == "finished" and value is not None:
            self._end(number, values=value)
        elif status == "pruned":
            self._end(number, state=TrialState.PRUNED)
        elif status in ("finished", "failed"):
            self._end(number, figures.get("error", f"no {self.metric}"), state=TrialState.FAIL)
            if status == "finished" and self.metric not in figures:
                others = ", ".join(name for name in figures if name.startswith("val/")) or "no validation"
                raise ConfigError("hydra.sweeper.metric", self.metric, f"the runs do not have it; they have {others}")
        else:
            self._left.add(number)
            self._locks.pop(number).close()

    @property
    def best(self) -> FrozenTrial | None:
        """The best of the trials that have finished."""
        with contextlib.suppress(ValueError):
            return self.study.best_trial
        return None

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """While no other worker claims a trial."""
        with _locked(self.folder / ".search.lock", "ab", fcntl.LOCK_EX):
            yield

    def __enter__(self) -> Worker:
        """Sends heartbeats for the trials of this worker, where the storage is one for them, until it leaves."""
        self._pulse.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._pulse.join()
        for lock in self._locks.values():
            lock.close()

    def _beat_on(self) -> None:
        while not self._over.wait(HEARTBEAT_SECONDS):
            for number in list(self._locks):
                self._beat(number)

    def _beat(self, number: int) -> None:
        if isinstance(self._storage, RDBStorage):
            self._storage.record_heartbeat(_trial_id(self._storage, self.study, number))

    def _lock(self, number: int) -> Path:
        return self.folder / f".trial-{number}.lock"

    def _adopt(self, number: int) -> bool:
        """Takes a running trial's lock, unless another worker holds it or has just told its end."""
        with contextlib.suppress(BlockingIOError, FileNotFoundError):
            # In a database, a trial without a lock may belong to a worker elsewhere.
            lock = _locked(self._lock(number), "r+b" if isinstance(self._storage, RDBStorage) else "ab")
            if self.study.get_trials(deepcopy=False)[number].state == TrialState.RUNNING:
                self._locks[number] = lock
                return True
            lock.close()
        return False

    def _end(self, number: int, error: str = "", **end: Any) -> None:
        with contextlib.suppress(UpdateFinishedTrialError):  # another worker took it for dead
            if error:
                self._storage.set_trial_user_attr(_trial_id(self._storage, self.study, number), "error", error)
            self.study.tell(number, skip_if_finished=True, **end)
        self._lock(number).unlink(missing_ok=True)
        self._locks.pop(number).close()


def reporter(folder: Path) -> Reporter | None:
    """For a run's folder; None where no search is waiting for the run."""
    try:
        _locked(folder.parent / f".trial-{number_of(folder)}.lock", "r+b").close()
    except BlockingIOError:
        return Reporter(folder)
    except FileNotFoundError:
        pass
    return None


class Reporter:
    """What a run tells of itself, while it trains, to the study of its search. folder: the run's."""

    def __init__(self, folder: Path) -> None:
        settings = _settings(folder.parent)
        self.metric = settings["metric"]
        self._storage, self._study = _open(folder.parent, settings)
        self._pruner = pruner(settings["pruner"], settings["pruner_arguments"])
        self._id = _trial_id(self._storage, self._study, number_of(folder) or 0)

    def is_hopeless(self, value: float, epoch: int) -> bool:
        """Notes the objective after an epoch, counted from 0. Returns whether the run is to be pruned."""
        self._storage.set_trial_intermediate_value(self._id, epoch, value)
        return self._pruner.prune(self._study, self._storage.get_trial(self._id))


def _open(folder: Path, settings: Mapping[str, Any]) -> tuple[BaseStorage, optuna.Study]:
    url = OmegaConf.create({"url": settings["storage"]}).url
    try:
        if url is None:
            path = str(folder / JOURNAL)
            lock = JournalFileOpenLock(path)
            _cut_torn_line(folder / JOURNAL, lock)
            storage: BaseStorage = JournalStorage(JournalFileBackend(path, lock_obj=lock))
        else:
            with _without_warnings():
                storage = RDBStorage(url, heartbeat_interval=HEARTBEAT_SECONDS, grace_period=STALE_SECONDS)
        study = optuna.create_study(
            storage=storage, study_name=settings["study"], direction=settings["direction"], load_if_exists=True
        )
    except Exception as error:  # a driver's own, its absence, a URL that cannot be read
        reason = " ".join(str(error.__cause__ or error).split())[:200]  # the driver's own words, or which is missing
        problem = f"cannot be used: {reason}; give another, or another hydra.sweep.dir"
        raise ConfigError("hydra.sweeper.storage", settings["storage"] or folder / JOURNAL, problem) from error
    return storage, study


def _cut_torn_line(journal: Path, lock: JournalFileOpenLock) -> None:
    """Takes off what a worker that was cut short while it wrote has left: the next line would be added to it."""
    if not journal.exists():
        return
    lock.acquire()
    try:
        contents = journal.read_bytes()
        if not contents.endswith(b"\n"):
            with journal.open("r+b") as file:
                file.truncate(contents.rfind(b"\n") + 1)
    finally:
        lock.release()


def _settings(folder: Path) -> dict[str, Any]:
    """Those of the search that a sweep's folder holds."""
    return OmegaConf.to_container(OmegaConf.load(folder / SEARCH))  # type: ignore[return-value]


def _require_same(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    for key in {**before, **now}:
        if before.get(key) != now.get(key):
            problem = f"holds a search whose {key} is {before.get(key)}, not {now.get(key)}; give the same command"
            raise ConfigError("hydra.sweep.dir", folder, f"{problem} again, or another folder")


def _trial_id(storage: BaseStorage, study: optuna.Study, number: int) -> int:
    return storage.get_trial_id_from_study_id_trial_number(storage.get_study_id_from_name(study.study_name), number)


def _locked(path: Path, mode: str, operation: int = fcntl.LOCK_EX | fcntl.LOCK_NB) -> IO[bytes]:
    """The open file, locked until it is closed. Raises BlockingIOError where another has the lock and none waits."""
    file = path.open(mode)
    try:
        fcntl.flock(file, operation)
    except BaseException:
        file.close()
        raise
    return file


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Of Optuna, which takes heartbeats apart from its own loop for an experiment."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
