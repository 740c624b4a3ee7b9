"""What a run leaves behind, and how an existing run is found again.

config.yaml · overrides.yaml · provenance.json · metrics.json · checkpoints/{best,last,previous}.ckpt · TensorBoard
events · train.log
"""

from __future__ import annotations

import contextlib
import csv
import fcntl
import io
import json
import math
import os
import time
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from omegaconf import DictConfig, OmegaConf

from neurona.devices import scheduler
from neurona.devices.launch import rank
from neurona.errors import ConfigError, did_you_mean
from neurona.runs.files import is_below, make_new, read_json, read_yaml, write_atomically
from neurona.runs.provenance import provenance

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
                problem = "is a link out of the run's folder, which would be written to; put what it names in its place"
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
        """CPU threads that the run was begun with; None if that is not known."""
        try:
            threads = read_json(self.path / "provenance.json")["hardware"]["threads"]
        except (TypeError, KeyError):
            return None
        return threads if isinstance(threads, int) and threads > 0 else None

    def has_data(self, path: str) -> bool:
        """Whether a ``data.path`` is the one that the run was fitted on, as it was given then or absolute."""
        absolute = OmegaConf.select(OmegaConf.create(read_yaml(self.path / "overrides.yaml")), "absolute") or {}
        stored = OmegaConf.select(self.settings(), "data.path")
        return path == stored or os.path.abspath(os.path.expanduser(path)) == absolute.get("data.path")

    def settings(self) -> DictConfig:
        """The configuration as the run was last started with. Raises ConfigError if it is missing or damaged."""
        try:
            stored: Any = OmegaConf.create(read_yaml(self.path / "config.yaml"))
            stored.trainer.max_epochs  # noqa: B018
        except Exception as error:
            problem = f"its config.yaml cannot be read ({type(error).__name__}); start a new run with init_from="
            raise ConfigError("run", self.path, problem) from None
        return stored

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
        text = io.StringIO()
        rows = [[name, *counts] for name, counts in zip(class_names, matrix, strict=True)]
        csv.writer(text, lineterminator="\n").writerows([["target", *class_names], *rows])
        self._write(f"confusion_matrix_{part}.csv", text.getvalue())

    def write_card(self, card: Mapping[str, Any], text: str) -> None:
        """``data_card.json`` and ``data_card.txt``."""
        self._write("data_card.json", json.dumps(card, indent=2, ensure_ascii=False) + "\n")
        self._write("data_card.txt", text + "\n")

    def describe(self, cfg: DictConfig, overrides: Sequence[str]) -> None:
        """Writes what is needed to understand the run and to go on with it; its provenance is where it began."""
        self.write_overrides(overrides, absolute_paths(cfg))  # first: with them a run can be begun again
        self._write("config.yaml", OmegaConf.to_yaml(masked(cfg)))
        if self.is_written and not (self.path / "provenance.json").exists():
            self._write("provenance.json", json.dumps(provenance(cfg.seed), indent=2) + "\n")

    def write_overrides(self, overrides: Sequence[str], absolute: Mapping[str, str]) -> None:
        stored = {"overrides": list(overrides), "absolute": dict(absolute)}
        self._write("overrides.yaml", OmegaConf.to_yaml(OmegaConf.create(stored)))

    def _write(self, name: str, text: str) -> None:
        if self.is_written:
            write_atomically(self.path / name, text)


def is_held(folder: Path) -> bool:
    """Whether a process works on a run's folder, as far as this machine can see."""
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
        raise ConfigError(key, folder, "has lost its checkpoints/best.ckpt; bring it back, or train anew")
    if last.is_file():
        return last
    raise ConfigError(key, folder, "has no checkpoint yet; continue it first: python train.py run=<folder>")


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
    """Which run may be meant by a folder that is not one: the latest in it, or one beside it of a similar name."""
    inside = sorted(path.parent.name for path in folder.glob("*/overrides.yaml") if not is_range_test(path.parent))
    if inside:
        return f"; the latest run in it is {folder / inside[-1]}"
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
                text = read_yaml(file.parent / "overrides.yaml")
                stored: Any = OmegaConf.to_container(OmegaConf.create(text), resolve=False)
                is_open = restarted or read_metrics(file.parent).get("status") != "finished"
                if stored["overrides"] == list(overrides) and is_open:
                    runs[file.stat().st_mtime_ns] = file.parent
    return runs[max(runs)] if runs else None


def read_metrics(folder: Path) -> dict[str, Any]:
    """The contents of ``metrics.json``; nothing if it is missing or damaged."""
    return read_json(folder / "metrics.json")


def masked(cfg: DictConfig) -> DictConfig:
    """The configuration with every interpolation resolved, except that values from the environment are left out."""

    def hide(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: hide(child) for key, child in value.items()}
        if isinstance(value, list):
            return [hide(child) for child in value]
        return "<from the environment>" if isinstance(value, str) and "${oc.env:" in value else value

    hidden = OmegaConf.create(hide(OmegaConf.to_container(cfg)))
    return OmegaConf.create(OmegaConf.to_container(hidden, resolve=True))  # type: ignore[return-value]


def absolute_paths(cfg: DictConfig) -> dict[str, str]:
    """The paths of the configuration (``init_from``, ``data.root``, ``data.*path``), made absolute."""
    names = [f"data.{key}" for key in map(str, cfg.data) if key == "root" or key.endswith("path")]
    paths = {name: OmegaConf.select(cfg, name) for name in ("init_from", *names)}
    return {k: os.path.abspath(os.path.expanduser(path)) for k, path in paths.items() if isinstance(path, str)}
