"""A run's configuration as it is stored: ``config.yaml``, written once, and over it the entries of ``changes.yaml``,
what the sessions that went on with the run have changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf, open_dict

from neurona.config.nodes import leaves
from neurona.config.registry import current
from neurona.errors import ConfigError
from neurona.runs.files import read_yaml

OF_PROCESS = ("run", "stage", "folder", "quiet", "allow", "retry_failed")
"""Root keys that belong to one session, not to the run."""

CHANGEABLE = ("trainer", "logger", "inspect", "threads")
"""Root keys of which a session that goes on may change something."""

MASK = "<from the environment>"
"""What configurations of earlier versions have in the place of a value from the environment."""


class Origin(NamedTuple):
    """What ``overrides.yaml`` tells. absolute: paths of data and weights, made absolute, by their keys. choices: of
    groups; None of a run of an earlier version, whose ``config.yaml`` was written anew by every session.
    """

    overrides: list[str]
    absolute: dict[str, str]
    choices: dict[str, Any] | None


def origin(folder: Path, key: str = "run") -> Origin:
    """What the run in a folder was begun with. Raises ConfigError for ``key`` if that is damaged; FileNotFoundError."""
    try:
        stored = load(folder / "overrides.yaml")
        absolute = {str(name): str(path) for name, path in stored.get("absolute", {}).items()}
        choices = dict(stored["choices"]) if "choices" in stored else None
        return Origin([str(line) for line in stored["overrides"]], absolute, choices)
    except FileNotFoundError:
        raise
    except Exception as error:
        raise ConfigError(key, folder, f"its overrides.yaml is damaged ({type(error).__name__})") from error


def overrides(folder: Path) -> list[str]:
    """Those that the run was begun with, and those that it was gone on with since, in their order."""
    since = (str(line) for entry in changes(folder) for line in entry["overrides"])
    return without_run([*origin(folder).overrides, *since])


def without_run(lines: Iterable[str]) -> list[str]:
    """Overrides but for ``run=``."""
    return [line for line in lines if not line.lstrip("+").startswith("run=")]


def changes(folder: Path) -> list[dict[str, Any]]:
    """The entries of ``changes.yaml``: ``time``, ``overrides`` of the session, and ``changes``, by dotted keys.

    Raises ConfigError if they are damaged.
    """
    file = folder / "changes.yaml"
    try:
        entries = load(file) if file.exists() else []
        return [
            {**entry, "overrides": list(entry["overrides"]), "changes": dict(entry["changes"])} for entry in entries
        ]
    except Exception as error:
        raise ConfigError("run", folder, f"its changes.yaml is damaged ({type(error).__name__})") from error


def read(folder: Path) -> dict[str, Any]:
    """The configuration of a run, plain, with the interpolations that are kept. Raises ConfigError if it is missing or
    damaged.
    """
    try:
        config = load(folder / "config.yaml")
        changed = [key for entry in changes(folder) for key in entry["changes"] if at(config, key) != MASK]
        if wrong := [key for key in changed if key.partition(".")[0] not in CHANGEABLE]:
            problem = f"its changes.yaml changes {wrong[0]}, which stays as it was when the run began; take that out"
            raise ConfigError("run", folder, problem)
        config = overlaid(config, changes(folder))
        config["trainer"]["max_epochs"]
        is_old = origin(folder).choices is None
        return _of_today(config, str(config["folder"])) if is_old else config
    except ConfigError:
        raise
    except Exception as error:
        problem = f"its config.yaml cannot be read ({type(error).__name__}); start a new run with init_from="
        raise ConfigError("run", folder, problem) from None


def _of_today(value: Any, folder: str) -> Any:
    """What an earlier version has stored: with the classes where they are now, and in the folder where the run is."""
    if isinstance(value, dict):
        moved = {"_target_": current(value["_target_"])} if isinstance(value.get("_target_"), str) else {}
        return {key: _of_today(child, folder) for key, child in {**value, **moved}.items()}
    if isinstance(value, list):
        return [_of_today(child, folder) for child in value]
    is_within = isinstance(value, str) and f"{value}/".startswith(f"{folder}/")
    return "${folder}" + value.removeprefix(folder) if is_within else value


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
    """Puts a value at a dotted key, in the place of what is there; mappings on the way are copied."""
    *parents, name = key.split(".")
    for parent in parents:
        config[parent] = config = dict(config.get(parent) or {})
    config[name] = value


def at(config: Any, key: str) -> Any:
    """What a plain configuration has at a dotted key, or None."""
    for name in key.split("."):
        config = config.get(name) if isinstance(config, dict) else None
    return config


def differences(before: Any, now: Any, key: str = "") -> dict[str, Any]:
    """The values that are other now, by dotted keys; a mapping as a whole where a key is gone or has a dot in it."""
    are_mappings = isinstance(before, dict) and isinstance(now, dict)
    if are_mappings and before.keys() <= now.keys() and not any("." in str(name) for name in now):
        pairs = ((f"{key}.{name}" if key else str(name), before.get(name), now[name]) for name in now)
        return {name: value for path, one, other in pairs for name, value in differences(one, other, path).items()}
    return {} if type(before) is type(now) and before == now else {key: now}


def take_over(cfg: DictConfig, folder: Path) -> None:
    """Makes a configuration, in place, that of the run in a folder, and has it name that run: whatever has been edited
    since it began is as it was. What belongs to the session stays.
    """
    stored = read(folder) if (folder / "config.yaml").is_file() else {}
    now: Any = OmegaConf.to_container(cfg)
    with open_dict(cfg):
        for key, value in stored.items():
            if key not in (*OF_PROCESS, "threads"):
                cfg[key] = _filled(value, now.get(key))
        cfg.run = str(folder)


def _filled(value: Any, now: Any) -> Any:
    """A stored value, with what is not stored of it as it is now."""
    if isinstance(value, dict) and isinstance(now, dict):
        return {key: _filled(child, now.get(key)) for key, child in value.items()}
    return now if MASK in (child for _, child in leaves(value)) else value
