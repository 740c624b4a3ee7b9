"""Reads run folders: settings from ``config.yaml``, figures from ``metrics.json``. Imports no torch."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from neurona.config.make import is_within
from neurona.errors import ConfigError
from neurona.runs import configuration
from neurona.runs.files import read_json, read_text, read_yaml
from neurona.runs.folder import is_held, is_range_test

Setting = bool | int | float | str

UNFINISHED_STATUSES = ("failed", "lost", "damaged", "interrupted")
EXCLUDED_KEYS = (
    *("folder", "run", "stage", "seed", "quiet", "tags", "threads", "allow", "retry_failed", "debugging"),
    *("logger", "inspect", "lr_find", "data.root", "data.eval_batch_size"),
    *("trainer.callbacks.progress", "trainer.callbacks.checkpoints.keep_last"),
)
"""Keys that do not decide what a run comes to, or, as the seed, are what the runs of a group differ in."""

LARGEST = 3.4e38
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Run:
    """A run folder, read.

    status: that of ``metrics.json``; lost, if it is running but no process holds the folder; damaged, if a file of
    the folder is. settings: dotted keys; a component stands for itself with its class. figures: numbers only.
    is_debug: of a choice of ``debug=``. written: when ``metrics.json`` was, in seconds.
    """

    folder: Path
    status: str
    seed: int | None
    settings: dict[str, Setting]
    figures: dict[str, float]
    error: str
    overrides: tuple[str, ...]
    is_debug: bool
    written: float

    @property
    def command(self) -> str:
        """The command that makes a run like it."""
        return shlex.join(["python", "train.py", *self.overrides])


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a fit."""
    is_one = any((folder / name).is_file() for name in ("overrides.yaml", "metrics.json"))
    return is_one and not is_range_test(folder)


def find(paths: Iterable[Path]) -> list[Path]:
    """The run folders at or below the paths, each once, numbers in their order.

    Raises ConfigError if a path does not exist or there are no runs.
    """
    folder_of: dict[str, Path] = {}
    for path in paths:
        if not path.is_dir():
            raise ConfigError("path", path, "is not a folder; give run or sweep folders, or logs for all of them")
        for name, folders, _ in os.walk(path):
            if is_run(Path(name)):
                folder_of.setdefault(os.path.realpath(name), Path(name))
                folders.clear()
    if not folder_of:
        raise ConfigError(
            "path", " ".join(map(str, paths)), "holds no runs; give a folder that train.py has made, such as logs"
        )
    return sorted(folder_of.values(), key=in_order)


def in_order(path: Path) -> list[str | tuple[int, str]]:
    """A key that sorts folder 9 before folder 10."""
    return [part.zfill(20) if part.isdigit() else part for part in re.split(r"(\d+)", str(path))]


def read(folder: Path, damaged: list[Path]) -> Run:
    """damaged: receives the files that cannot be read, or have a figure that is no number to reckon with."""
    metrics = folder / "metrics.json"
    figures = _read(metrics, json.loads, damaged)
    status = str(figures.get("status", "damaged"))
    if status == "running" and not is_held(folder):
        figures = _read(metrics, json.loads, damaged)  # it may have ended since
        status = str(figures.get("status", "damaged"))
        status = "lost" if status == "running" else status
    config = _config(folder, damaged if status == "finished" else [])
    if status == "finished" and not config:
        status = "damaged"
    settings = {}
    for key, value in flat(config):
        # Texts of the folder, as earlier versions stored them too, and of the environment say nothing of what was made.
        kept = ("${", *([str(config["folder"])] if "folder" in config else []))
        if not (isinstance(value, str) and any(text in value for text in kept)) and not is_within(key, EXCLUDED_KEYS):
            settings[key] = value
    seed = config.get("seed")
    if isinstance(seed, str):  # of the environment
        seed = read_json(folder / "provenance.json").get("seed")
    if seed is not None and not isinstance(seed, int):
        damaged.append(folder / "config.yaml")
        status, seed = "damaged", None
    numbers = {name: value for name, value in figures.items() if _is_number(value)}
    finite = {name: value for name, value in numbers.items() if is_finite(value)}
    if len(finite) < len(numbers):
        damaged.append(metrics)
    if settings.get("data.shuffle_seed", seed) == seed and seed is not None:
        settings["data.shuffle_seed"] = "${seed}"
    if settings.get("init_from", "null") != "null":  # runs of one sweep count as one origin
        settings["init_from"] = os.path.dirname(str(settings["init_from"]))
    return Run(
        folder=folder,
        status=status,
        seed=seed,
        settings=settings,
        figures=finite,
        error=_first_line(figures.get("error", "")) if status in UNFINISHED_STATUSES else "",
        overrides=overrides(folder),
        is_debug=config.get("debugging") is True,
        written=metrics.stat().st_mtime if metrics.exists() else 0.0,
    )


def _config(folder: Path, damaged: list[Path]) -> dict[str, Any]:
    """What a run has been fitted with: as it began, and what those who went on with it have changed."""
    config, file = _read(folder / "config.yaml", _yaml, damaged), folder / "changes.yaml"

    def laid_over(text: str) -> Any:
        try:
            return configuration.overlaid(config, _yaml(text))
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(file) from error

    return _read(file, laid_over, damaged) if file.exists() else config


def overrides(folder: Path) -> tuple[str, ...]:
    """The overrides that a run was started, and gone on, with, less its folder; none if they cannot be read."""
    try:
        lines = configuration.overrides(folder)
    except (ConfigError, OSError, TypeError, KeyError):
        return ()
    return tuple(line for line in lines if not line.startswith("folder="))


def flat(node: Any, key: str = "") -> Iterator[tuple[str, Setting]]:
    """The leaves of nested mappings with their dotted keys; a mapping's own key has its ``_target_``."""
    if isinstance(node, dict) and node:
        for name, child in node.items():
            yield from [(key, child)] if name == "_target_" else flat(child, f"{key}.{name}" if key else str(name))
    else:
        is_plain = isinstance(node, bool | str) or (isinstance(node, int | float) and is_finite(node))
        yield key, node if is_plain else json.dumps(node, default=str)


def _read(file: Path, parse: Any, damaged: list[Path]) -> dict[str, Any]:
    try:
        contents = printable(parse(read_yaml(file) if file.suffix == ".yaml" else read_text(file)))
    except FileNotFoundError:
        contents = None
    except Exception:  # whatever a parser, or its depth, makes of what is in there
        damaged.append(file)
        contents = None
    if contents is not None and not isinstance(contents, dict):
        damaged.append(file)
    return contents if isinstance(contents, dict) else {}


def _yaml(text: str) -> Any:
    return yaml.load(text, _Loader)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_finite(value: float) -> bool:
    """Whether a number is one that can be reckoned with: neither NaN nor beyond what a figure, of float32, can be."""
    return abs(value) <= LARGEST


def printable(value: Any) -> Any:
    """A plain value whose texts, and those within it, have nothing that a terminal, a picture or a file chokes on."""
    if isinstance(value, str):
        return (
            value if value.isprintable() else "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in value)
        )
    if isinstance(value, dict):
        return {printable(key): printable(child) for key, child in value.items()}
    return [printable(child) for child in value] if isinstance(value, list) else value


def _first_line(text: Any) -> str:
    return (str(text).strip().splitlines() or [""])[0]
