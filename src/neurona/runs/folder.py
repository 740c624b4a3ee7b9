"""What a run leaves behind, and how an existing run is found again.

config.yaml · changes.yaml · overrides.yaml · provenance.json · metrics.json ·
checkpoints/{best,last,previous}.ckpt · TensorBoard events · train.log
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import math
import os
import time
import weakref
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError

from neurona.config.check import MAX_THREADS
from neurona.config.interpolations import storable
from neurona.config.overrides import in_shell
from neurona.devices import scheduler
from neurona.devices.launch import rank
from neurona.errors import ConfigError, did_you_mean
from neurona.runs import configuration
from neurona.runs.files import as_csv, is_below, make_new, read_json, write_atomically
from neurona.runs.provenance import now, provenance

log = logging.getLogger(__name__)

PREVIOUS = "previous.ckpt"
"""The ``last.ckpt`` before the present one."""


class RunFolder:
    """A run's folder, held by one run at a time: of several processes, the one of rank 0 writes.

    Raises ConfigError for ``key`` if another run works on it, it cannot be written, or has a link out of it.
    """

    def __init__(self, path: Path, key: str = "run") -> None:
        self.path, self.key = path, key
        self.is_written = rank() == 0
        self._lock: IO[str] | None = None
        if not self.is_written:
            return
        if not os.access(path, os.W_OK):
            raise ConfigError(self.key, path, "cannot be written; copy the folder and give the copy")
        for file in path.rglob("*"):
            if file.is_symlink() and not is_below(file, path):
                problem = "is a link out of the run's folder, which writing would follow; replace it by the file itself"
                raise ConfigError(self.key, file, problem)
        self._lock = (path / ".lock").open("a")
        weakref.finalize(self, self._lock.close)
        for _ in range(3):
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            time.sleep(0.05)  # another may only have looked at whether it is held
        raise ConfigError(self.key, path, "another process is working on it; wait for it or stop it")

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *error: object) -> None:
        if self._lock is not None:
            self._lock.close()

    @classmethod
    def create(cls, path: Path) -> RunFolder:
        """Makes the folder, as ``make_new`` does."""
        return cls(make_new(path))

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """An existing run's folder. Raises ConfigError if it is not one."""
        require_run(path, "run")
        return cls(path)

    @property
    def is_gone(self) -> bool:
        """Whether the folder that is held has been removed or moved, though there may be another in its place."""
        if self._lock is None:
            return not self.path.is_dir()
        try:
            return not os.path.samestat(os.fstat(self._lock.fileno()), os.stat(self.path / ".lock"))
        except OSError:
            return True

    @property
    def last_checkpoint(self) -> Path:
        return self.path / "checkpoints" / "last.ckpt"

    @property
    def best_checkpoint(self) -> Path:
        """The best checkpoint, or the last while there is no best. Raises ConfigError as ``best_checkpoint``."""
        return best_checkpoint(self.path)

    def metrics(self) -> dict[str, Any]:
        """The contents of ``metrics.json``; nothing if it is missing or damaged."""
        return read_metrics(self.path)

    def threads(self) -> int | None:
        """The number of CPU threads with which the run began; None if it is unknown."""
        threads = self.begun_with("hardware", "threads")
        return threads if isinstance(threads, int) and 0 < threads <= MAX_THREADS else None

    def begun_with(self, part: str, name: str) -> Any:
        """What ``provenance.json`` has under a name in one of its parts; None if it is missing or damaged."""
        return configuration.at(read_json(self.path / "provenance.json"), f"{part}.{name}")

    def has_data(self, path: str) -> bool:
        """Whether a ``data.path`` is the one that the run was fitted on, as it was given then or absolute."""
        with contextlib.suppress(InterpolationResolutionError):  # a variable that was its name is gone
            if path == OmegaConf.select(self.settings(), "data.path"):
                return True
        return _absolute(path) == configuration.origin(self.path).absolute.get("data.path")

    def settings(self) -> DictConfig:
        """The configuration as the run was last started with. Raises ConfigError if it is missing or damaged."""
        return OmegaConf.create({**configuration.read(self.path), "folder": str(self.path)})

    def write_metrics(self, figures: Mapping[str, Any], stage: str) -> None:
        """``metrics.json`` for fitting, ``metrics_<stage>.json`` for the other stages; flat, sorted as given."""
        name = "metrics.json" if stage == "fit" else f"metrics_{stage}.json"
        unknown = {k: None for k, v in figures.items() if isinstance(v, float) and not math.isfinite(v)}
        self._write(name, json.dumps({**figures, **unknown}, indent=2) + "\n")  # JSON has no NaN

    def write_confusion(self, part: str, class_names: Sequence[str], matrix: Sequence[Sequence[int]]) -> None:
        """``confusion_matrix_<part>.csv``: a row per target, a column per prediction, in numbers of samples; no file
        without a matrix.
        """
        if not matrix:
            return
        rows = [[name, *counts] for name, counts in zip(class_names, matrix, strict=True)]
        self._write(f"confusion_matrix_{part}.csv", as_csv([["target", *class_names], *rows]))

    def write_card(self, card: Mapping[str, Any], text: str) -> None:
        """``data_card.json`` and ``data_card.txt``."""
        self._write("data_card.json", json.dumps(card, indent=2, ensure_ascii=False) + "\n")
        self._write("data_card.txt", text + "\n")

    def describe(self, cfg: DictConfig, overrides: Sequence[str], choices: Mapping[str, Any]) -> list[str]:
        """Writes what is needed to understand the run and to go on with it. What is there of a run that goes on stays
        as it is; what this session changes of its configuration is added to ``changes.yaml``.

        overrides: of the run, then of this session. Returns the keys whose texts from the environment are not stored.
        """
        settings, kept = storable(cfg)
        lines = configuration.without_run(overrides)
        if not (self.path / "config.yaml").exists():
            of_groups = {str(group): choice for group, choice in choices.items() if not group.startswith("hydra/")}
            self.write_overrides(lines, absolute_paths(cfg, kept), of_groups)  # first: it can be begun again with them
            self._write("config.yaml", OmegaConf.to_yaml(OmegaConf.create(settings)))
        elif changed := self._changed(settings):
            before = configuration.read(self.path)
            for key in (key for key in changed if not key.startswith(("logger", "inspect"))):
                log.info("%s: %s before, %s from now on", key, configuration.at(before, key), changed[key])
            given = lines[len(configuration.overrides(self.path)) :]
            entry = {"time": now(), "overrides": given, "changes": changed}
            entries = [*configuration.changes(self.path), entry]
            self._write("changes.yaml", OmegaConf.to_yaml(OmegaConf.create(entries)))
        if self.is_written and not (self.path / "provenance.json").exists():
            self._write("provenance.json", json.dumps(provenance(cfg.seed), indent=2) + "\n")
        return kept

    def _changed(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """What is other in these settings than in those stored, and may be."""
        before = configuration.read(self.path)
        found = configuration.differences(before, {**before, **settings})
        return {key: value for key, value in found.items() if key.partition(".")[0] in configuration.CHANGEABLE}

    def write_overrides(
        self, overrides: Sequence[str], absolute: Mapping[str, str], choices: Mapping[str, Any] | None = None
    ) -> None:
        stored = {"overrides": list(overrides), "absolute": dict(absolute), "choices": dict(choices or {})}
        self._write("overrides.yaml", OmegaConf.to_yaml(OmegaConf.create(stored)))

    def _write(self, name: str, text: str) -> None:
        if self.is_written:
            write_atomically(self.path / name, text)


def is_held(folder: Path) -> bool:
    """Whether a process of this machine uses a run's folder."""
    if not (folder / ".lock").is_file():
        return False
    try:
        with (folder / ".lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    return False


def best_checkpoint(folder: Path, key: str = "run") -> Path:
    """The best checkpoint of a run's folder, or the last while there is no best.

    Raises ConfigError for ``key`` if the folder is not a run's, has no checkpoint, or has lost the best.
    """
    require_run(folder, key)
    best, last = folder / "checkpoints" / "best.ckpt", folder / "checkpoints" / "last.ckpt"
    if best.is_file():
        return best
    if read_metrics(folder).get("status") == "finished":
        raise ConfigError(key, folder, "has lost its checkpoints/best.ckpt; put it back, or train again")
    if last.is_file():
        return last
    raise ConfigError(
        key, folder, f"has no checkpoint yet; continue it first: python train.py {in_shell('run', folder)}"
    )


def is_range_test(folder: Path) -> bool:
    """Whether a folder is that of ``stage=lr_find``, in which there is no network."""
    return (folder / "metrics_lr_find.json").is_file()


def require_run(folder: Path, key: str) -> None:
    """Raises ConfigError for ``key`` where a folder is not that of a run with a network, naming what may be meant."""
    if is_range_test(folder):
        problem = "is a learning-rate range test, which leaves no network; fit one with the optimizer.lr it suggests"
        raise ConfigError(key, folder, problem)
    if not (folder / "overrides.yaml").is_file():
        raise ConfigError(key, folder, f"is not a run folder: it has no overrides.yaml{_meant(folder)}")


def _meant(folder: Path) -> str:
    """Which run may be meant by a folder that is not one: the latest in it, the job of a sweep whose number it is, or
    one beside it of a similar name.
    """
    inside = sorted(path.parent.name for path in folder.glob("*/overrides.yaml") if not is_range_test(path.parent))
    if inside:
        return f"; the latest run in it is {folder / inside[-1]}"
    if folder.name.isdecimal() and (jobs := sorted(folder.parent.glob(f"{folder.name}_*/overrides.yaml"))):
        return f"; did you mean {jobs[0].parent}?"
    return did_you_mean(folder.name, [path.parent.name for path in folder.parent.glob("*/overrides.yaml")])


def begun_before(folder: Path, overrides: Sequence[str]) -> Path | None:
    """The newest run beside ``folder`` that this job began with the same overrides; None unless it was restarted.

    torchrun does not count a restart for a host that has joined or left: an unfinished run of its ``--rdzv-id`` tells.
    """
    restarted = scheduler.was_restarted()
    if not (restarted or scheduler.has_own_id()) or (job := scheduler.job()) is None:
        return None
    runs: dict[int, Path] = {}
    for file in folder.parent.glob("*/provenance.json"):
        with contextlib.suppress(Exception):  # it is damaged, or not a run's
            if read_json(file)["job"] == job:
                is_open = restarted or read_metrics(file.parent).get("status") != "finished"
                if configuration.origin(file.parent).overrides == list(overrides) and is_open:
                    runs[file.stat().st_mtime_ns] = file.parent
    return runs[max(runs)] if runs else None


def read_metrics(folder: Path) -> dict[str, Any]:
    """The contents of ``metrics.json``; nothing if it is missing or damaged."""
    return read_json(folder / "metrics.json")


def absolute_paths(cfg: DictConfig, kept: Collection[str] = ()) -> dict[str, str]:
    """The paths of the configuration (``init_from``, ``data.root``, ``data.*path``), made absolute. kept: keys whose
    texts are not to be written down.
    """
    names = ["init_from", *(f"data.{key}" for key in map(str, cfg.data) if key == "root" or key.endswith("path"))]
    paths = {name: OmegaConf.select(cfg, name) for name in names if name not in kept}
    return {name: _absolute(path) for name, path in paths.items() if isinstance(path, str)}


def _absolute(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))
