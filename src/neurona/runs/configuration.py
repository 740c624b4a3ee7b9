"""A run's stored configuration: ``config.yaml``, which is written once, and ``changes.yaml``, which holds the changes
of later sessions.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf, open_dict

from neurona.config.overrides import in_shell
from neurona.errors import ConfigError
from neurona.runs.files import read_yaml

OF_PROCESS = ("run", "stage", "folder", "quiet", "allow", "retry_failed")
"""Root keys that belong to one session, not to the run."""

CHANGEABLE = ("trainer", "logger", "inspect", "threads")
"""Root keys of which a session that goes on may change something."""


class Origin(NamedTuple):
    """The contents of ``overrides.yaml``. absolute: absolute paths of data and weights, by key. choices: of groups."""

    overrides: list[str]
    absolute: dict[str, str]
    choices: dict[str, Any]


def origin(folder: Path, key: str = "run") -> Origin:
    """How a run was begun. Raises FileNotFoundError, or ConfigError for ``key`` if the file is damaged."""
    with _readable(folder / "overrides.yaml", key) as stored:
        absolute = {str(name): str(path) for name, path in stored.get("absolute", {}).items()}
        return Origin([str(line) for line in stored["overrides"]], absolute, dict(stored.get("choices", {})))


def overrides(folder: Path) -> list[str]:
    """The overrides with which a run was begun, then those of later sessions, in order."""
    since = (str(line) for entry in changes(folder) for line in entry["overrides"])
    return without_run([*origin(folder).overrides, *since])


def without_run(lines: Iterable[str]) -> list[str]:
    """Overrides without ``run=``."""
    return [line for line in lines if not line.lstrip("+").startswith("run=")]


def changes(folder: Path) -> list[dict[str, Any]]:
    """The entries of ``changes.yaml``: ``time``, ``overrides`` of the session, and ``changes``, by dotted keys.

    Raises ConfigError if they are damaged.
    """
    file = folder / "changes.yaml"
    if not file.exists():
        return []
    with _readable(file) as entries:
        return [{**one, "overrides": list(one["overrides"]), "changes": dict(one["changes"])} for one in entries]


def read(folder: Path) -> dict[str, Any]:
    """The configuration of a run, plain, with the interpolations that are kept. Raises ConfigError if it is missing or
    damaged.
    """
    since = changes(folder)
    for key in (key for entry in since for key in entry["changes"] if key.partition(".")[0] not in CHANGEABLE):
        problem = f"its changes.yaml changes {key}, which stays as it was when the run began; take that out"
        raise ConfigError("run", folder, problem)
    if not (folder / "config.yaml").exists():
        problem = "has no config.yaml, as it ended before it had begun: give the command it was begun with again"
        raise ConfigError("run", folder, f"{problem} (of a sweep's job, the sweep's with retry_failed=true)")
    with _readable(folder / "config.yaml") as config:
        config["trainer"]["max_epochs"]
        return overlaid(config, since)


@contextlib.contextmanager
def _readable(file: Path, key: str = "run") -> Iterator[Any]:
    """The contents of a yaml file of a run. Raises ConfigError for ``key`` if it cannot be read or used."""
    try:
        yield load(file)
    except FileNotFoundError:
        raise
    except Exception as error:
        problem = f"its {file.name} is damaged ({type(error).__name__}); start a new run"
        raise ConfigError(key, file.parent, f"{problem} with {in_shell('init_from', file.parent)}") from error


def load(file: Path) -> Any:
    """The contents of a yaml file as plain values, interpolations as they are."""
    return OmegaConf.to_container(OmegaConf.create(read_yaml(file)))


def overlaid(config: Mapping[str, Any], entries: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """A copy of a plain configuration with the values of entries of ``changes.yaml`` in their places, in order."""
    config = dict(config)
    for entry in entries:
        for key, value in entry["changes"].items():
            put(config, key, value)
    return config


def put(config: dict[str, Any], key: str, value: Any) -> None:
    """Sets a dotted key to a value; mappings on the way are copied."""
    *parents, name = key.split(".")
    for parent in parents:
        config[parent] = config = dict(config.get(parent) or {})
    config[name] = value


def at(config: Any, key: str, default: Any = None) -> Any:
    """The value of a plain configuration at a dotted key, or the default."""
    for name in key.split("."):
        config = config.get(name, default) if isinstance(config, dict) else default
    return config


def differences(before: Any, now: Any, key: str = "") -> dict[str, Any]:
    """The values that differ now, by dotted key; a whole mapping if a key is gone or contains a dot."""
    are_mappings = isinstance(before, dict) and isinstance(now, dict)
    if are_mappings and before.keys() <= now.keys() and not any("." in str(name) for name in now):
        pairs = ((f"{key}.{name}" if key else str(name), before.get(name), now[name]) for name in now)
        return {name: value for path, one, other in pairs for name, value in differences(one, other, path).items()}
    return {} if type(before) is type(now) and before == now else {key: now}


def take_over(cfg: DictConfig, folder: Path) -> None:
    """Replaces a configuration, in place, by that of the run in a folder, whatever was edited since, and sets ``run``.
    Keys that belong to the session stay.
    """
    stored = read(folder) if (folder / "config.yaml").is_file() else {}
    with open_dict(cfg):
        for key in stored.keys() - {*OF_PROCESS, "threads"}:
            cfg[key] = stored[key]
        cfg.run = str(folder)
