"""What a run leaves behind, and how an existing run is found again.

config.yaml · overrides.yaml · provenance.json · metrics.json · checkpoints/{best,last}.ckpt · TensorBoard events ·
train.log
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import subprocess
import sys
import time
import weakref
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.resolvers import oc

from neurona.config import ConfigError

PACKAGES = ("torch", "lightning", "hydra-core", "omegaconf", "torchmetrics", "numpy", "tensorboard")


class RunFolder:
    """A run's folder, held by one process at a time.

    Raises ConfigError if another process works on it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = (path / ".lock").open("a")
        weakref.finalize(self, self._lock.close)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError("run", path, "another process is working on this run; wait for it or stop it") from None

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *error: object) -> None:
        self._lock.close()

    @classmethod
    def create(cls, path: Path) -> RunFolder:
        """Makes the folder, with a number behind its name if it is taken."""
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
        """The best checkpoint, or the last while there is no best. Raises ConfigError if there is neither."""
        return best_checkpoint(self.path)

    def metrics(self) -> dict[str, Any]:
        """The contents of ``metrics.json``."""
        return json.loads((self.path / "metrics.json").read_text(encoding="utf-8"))

    def write_metrics(self, figures: Mapping[str, Any], stage: str) -> None:
        """``metrics.json`` for fitting, ``metrics_<stage>.json`` for the other stages; flat, sorted as given."""
        name = "metrics.json" if stage == "fit" else f"metrics_{stage}.json"
        known = {key: None if value != value else value for key, value in figures.items()}  # JSON has no NaN
        write_atomically(self.path / name, json.dumps(known, indent=2) + "\n")

    def describe(self, cfg: DictConfig, overrides: Sequence[str]) -> None:
        """Writes what is needed to understand the run and to go on with it; its provenance is where it began."""
        write_atomically(self.path / "config.yaml", OmegaConf.to_yaml(masked(cfg)))
        stored = {"overrides": list(overrides), "absolute": absolute_paths(cfg)}
        write_atomically(self.path / "overrides.yaml", OmegaConf.to_yaml(OmegaConf.create(stored)))
        if not (self.path / "provenance.json").exists():
            write_atomically(self.path / "provenance.json", json.dumps(provenance(cfg.seed), indent=2) + "\n")


def best_checkpoint(folder: Path, key: str = "run") -> Path:
    """The best checkpoint of a run's folder, or the last while there is no best.

    Raises ConfigError for ``key`` if the folder is not a run's or has no checkpoint.
    """
    if not (folder / "overrides.yaml").is_file():
        raise ConfigError(key, folder, "is not a run folder: it has no overrides.yaml")
    for name in ("best.ckpt", "last.ckpt"):
        if (path := folder / "checkpoints" / name).is_file():
            return path
    raise ConfigError(key, folder, "has no checkpoint yet; continue it first: python train.py run=<folder>")


def write_atomically(path: Path, text: str) -> None:
    """Writes a whole file or, whatever happens, leaves the one there as it was."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def masked(cfg: DictConfig) -> DictConfig:
    """The configuration with every interpolation resolved, except that values from the environment are left out."""
    OmegaConf.register_new_resolver("oc.env", lambda name, default=None: f"<environment variable {name}>", replace=True)
    try:
        resolved = OmegaConf.to_container(cfg, resolve=True)
    finally:
        OmegaConf.register_new_resolver("oc.env", oc.env, replace=True)
    return OmegaConf.create(resolved)  # type: ignore[return-value]


def absolute_paths(cfg: DictConfig) -> dict[str, str]:
    """The data paths of the configuration (``data.root``, ``data.*path``) that are relative, made absolute."""
    names = [key for key in map(str, cfg.data) if key == "root" or key.endswith("path")]
    return {f"data.{name}": os.path.abspath(cfg.data[name]) for name in names if isinstance(cfg.data[name], str)}


def provenance(seed: int) -> dict[str, Any]:
    """Command, code, versions, hardware and seed of this process."""
    return {
        "command": sys.argv,
        "folder": os.getcwd(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "seed": seed,
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
