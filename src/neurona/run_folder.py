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
import platform
import shutil
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

import torch
from omegaconf import DictConfig, OmegaConf

from neurona import scheduler
from neurona.config import ConfigError, RunError
from neurona.distributed import rank

PACKAGES = ("torch", "lightning", "hydra-core", "omegaconf", "torchmetrics", "numpy", "tensorboard")
PREVIOUS = "previous.ckpt"
"""The ``last.ckpt`` before the present one."""


class RunFolder:
    """A run's folder, held by one run at a time: of several processes, the one of rank 0 writes.

    Raises ConfigError if another run works on it or it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_written = rank() == 0
        self._lock: IO[str] | None = None
        if self.is_written:
            self._hold()

    def _hold(self) -> None:
        path = self.path
        if not os.access(path, os.W_OK):
            raise ConfigError("run", path, "cannot be written; copy the folder and give the copy")
        self._lock = (path / ".lock").open("a")
        weakref.finalize(self, self._lock.close)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError("run", path, "another process is working on this run; wait for it or stop it") from None

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *error: object) -> None:
        if self._lock is not None:
            self._lock.close()

    @classmethod
    def create(cls, path: Path) -> RunFolder:
        """Makes the folder, with a number behind its name if it is taken."""
        if path.name in ("", ".."):
            raise ConfigError("folder", path, "must name a folder of the run's own")
        if os.path.exists(path) and not os.path.isdir(path):
            raise ConfigError("folder", path, "is a file; name a folder")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError("folder", path, f"cannot be made: {error.strerror}") from error
        number, free = 1, path
        while True:
            try:
                free.mkdir()
                return cls(free)
            except FileExistsError:
                number += 1
                free = path.with_name(f"{path.name}-{number}")
            except OSError as error:
                raise ConfigError("folder", path, f"cannot be made: {error.strerror}") from error

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """An existing run's folder. Raises ConfigError if it is not one."""
        if not (path / "overrides.yaml").is_file():
            raise ConfigError("run", path, "is not a run folder: it has no overrides.yaml")
        return cls(path)

    @property
    def last_checkpoint(self) -> Path:
        return self.path / "checkpoints" / "last.ckpt"

    @property
    def best_checkpoint(self) -> Path:
        """The best checkpoint, or the last while there is no best. Raises ConfigError as ``best_checkpoint``."""
        return best_checkpoint(self.path)

    def metrics(self) -> dict[str, Any]:
        """The contents of ``metrics.json``; nothing if it is missing or damaged."""
        return _metrics(self.path)

    def settings(self) -> DictConfig:
        """The configuration as the run was last started with. Raises ConfigError if it is missing or damaged."""
        try:
            stored: Any = OmegaConf.load(self.path / "config.yaml")
            stored.trainer.max_epochs  # noqa: B018
        except Exception as error:
            problem = f"its config.yaml cannot be read ({type(error).__name__}); start a new run with init_from="
            raise ConfigError("run", self.path, problem) from None
        return stored

    def write_metrics(self, figures: Mapping[str, Any], stage: str) -> None:
        """``metrics.json`` for fitting, ``metrics_<stage>.json`` for the other stages; flat, sorted as given."""
        name = "metrics.json" if stage == "fit" else f"metrics_{stage}.json"
        known = {  # JSON has no NaN
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in figures.items()
        }
        self._write(name, json.dumps(known, indent=2) + "\n")

    def write_confusion(self, part: str, class_names: Sequence[str], matrix: Sequence[Sequence[int]]) -> None:
        """``confusion_matrix_<part>.csv``: a row per target, a column per prediction, in numbers of samples."""
        text = io.StringIO()
        rows = [[name, *counts] for name, counts in zip(class_names, matrix, strict=True)]
        csv.writer(text, lineterminator="\n").writerows([["target", *class_names], *rows])
        self._write(f"confusion_matrix_{part}.csv", text.getvalue())

    def describe(self, cfg: DictConfig, overrides: Sequence[str]) -> None:
        """Writes what is needed to understand the run and to go on with it; its provenance is where it began."""
        self._write("config.yaml", OmegaConf.to_yaml(masked(cfg)))
        stored = {"overrides": list(overrides), "absolute": absolute_paths(cfg)}
        self._write("overrides.yaml", OmegaConf.to_yaml(OmegaConf.create(stored)))
        if self.is_written and not (self.path / "provenance.json").exists():
            self._write("provenance.json", json.dumps(provenance(cfg.seed), indent=2) + "\n")

    def _write(self, name: str, text: str) -> None:
        if self.is_written:
            write_atomically(self.path / name, text)


def best_checkpoint(folder: Path, key: str = "run") -> Path:
    """The best checkpoint of a run's folder, or the last while there is no best.

    Raises ConfigError for ``key`` if the folder is not a run's, has no checkpoint, or has lost the best.
    """
    if not (folder / "overrides.yaml").is_file():
        raise ConfigError(key, folder, "is not a run folder: it has no overrides.yaml")
    best, last = folder / "checkpoints" / "best.ckpt", folder / "checkpoints" / "last.ckpt"
    if best.is_file():
        return best
    if _metrics(folder).get("status") == "finished":
        raise ConfigError(key, folder, "has lost its checkpoints/best.ckpt; bring it back, or train anew")
    if last.is_file():
        return last
    raise ConfigError(key, folder, "has no checkpoint yet; continue it first: python train.py run=<folder>")


def begun_before(folder: Path, overrides: Sequence[str]) -> Path | None:
    """The newest run beside ``folder`` that this job began with the same overrides; None unless it was restarted.

    torchrun does not count a restart for a host that has joined or left: an unfinished run of its ``--rdzv-id`` tells.
    """
    restarted = scheduler.was_restarted()
    if not (restarted or scheduler.has_own_id()) or (job := scheduler.job()) is None:
        return None
    found = {}
    for file in folder.parent.glob("*/provenance.json"):
        with contextlib.suppress(Exception):  # it is damaged, or not a run's
            if json.loads(file.read_text(encoding="utf-8"))["job"] == job:
                stored: Any = OmegaConf.to_container(OmegaConf.load(file.parent / "overrides.yaml"), resolve=False)
                is_open = restarted or _metrics(file.parent).get("status") != "finished"
                if stored["overrides"] == list(overrides) and is_open:
                    found[file.stat().st_mtime_ns] = file.parent
    return found[max(found)] if found else None


def write_atomically(path: Path, text: str) -> None:
    """Writes a whole file or, whatever happens, leaves the one there as it was. Raises RunError as ``replacing``."""
    with replacing(path) as file:
        file.write(text.encode())


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes the place of ``path`` once it is whole and on the disk, or not at all.

    Raises RunError if it cannot be written.
    """
    temporary = _temporary(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        for cause in (error, error.__context__):  # torch reports a failure of its own while handling the disk's
            if isinstance(cause, OSError):
                raise unwritable(path, cause) from error
        raise


def link(source: Path, target: Path) -> None:
    """Makes ``target`` another name of ``source``'s contents, or a copy of them where a file has one name only.

    Whole or not at all. Raises RunError as ``replacing``.
    """
    if target.exists() and target.samefile(source):  # renaming would do nothing, and leave the temporary name
        return
    temporary = _temporary(target)
    try:
        temporary.unlink(missing_ok=True)
        os.link(source, temporary)
        temporary.replace(target)
    except OSError:
        with replacing(target) as file, source.open("rb") as contents:
            shutil.copyfileobj(contents, file)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.tmp")


def unwritable(path: Path, error: OSError) -> RunError:
    """What to raise where the disk refuses a file."""
    reason = error.strerror or str(error)
    return RunError(f"{path}: cannot be written ({reason}); make room, or give another place with folder=…")


def _metrics(folder: Path) -> dict[str, Any]:
    try:
        figures = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return figures if isinstance(figures, dict) else {}


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


def provenance(seed: int) -> dict[str, Any]:
    """Command, code, versions, hardware and seed of this process."""
    return {
        "command": sys.argv,
        "folder": os.getcwd(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "seed": seed,
        "job": scheduler.job(),
        "git": _git(),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "hardware": {
            "machine": platform.machine(),
            "system": platform.platform(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        },
    }


def _git() -> dict[str, Any] | None:
    """The commit of this source and whether it had uncommitted changes; None outside a checkout or without git."""

    def git(*arguments: str) -> str:
        here = Path(__file__).parent
        return subprocess.run(["git", *arguments], cwd=here, check=True, capture_output=True, text=True).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return None
