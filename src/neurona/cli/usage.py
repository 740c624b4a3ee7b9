"""``python train.py --help``: the groups with their choices, and the main keys with what the yamls' comments say."""

from __future__ import annotations

import json
import re
import shutil
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from neurona.cli.composing import composed, composing
from neurona.config.nodes import leaves

GROUPS = ("data", "model", "classifier", "optimizer", "trainer")
"""Those whose keys are shown; of the root, what is no mapping."""

START = """neurona: python train.py [group=choice ...] [key=value ...]

A run fits a network, tests its best epoch and leaves a folder in logs. -m key=a,b,c makes a sweep of runs; run=<folder>
goes on with one. --cfg job prints every key, --help with choices, as in model=tabm --help, those that they bring.
"""
COLUMN = 44
"""Where comments begin."""


def usage(name: str, overrides: Sequence[str], config_dir: Path) -> str:
    """What ``--help`` prints for a configuration, composed with overrides."""
    with composing(config_dir):
        cfg, hydra = composed(name, overrides)
        loader = GlobalHydra.instance().config_loader()
        choices = [f"  {group}: {', '.join(loader.get_group_options(group))}" for group in _groups(loader)]
    places = [Path(place.path) for place in hydra.runtime.config_sources if place.schema == "file"]
    config: Any = OmegaConf.to_container(cfg)
    comments = _comments("train", places)
    for group in GROUPS:
        comments |= _comments(f"{group}/{hydra.runtime.choices.get(group)}", places, group)
    shown = {group: config.pop(group, {}) for group in GROUPS}
    shown |= {key: value for key, value in config.items() if not isinstance(value, dict)}
    lines = [_line(key, value, comments[key]) for key, value in leaves(shown, into_lists=False) if key in comments]
    return "\n".join([START, "groups and their choices:", *sorted(choices), "", "keys, and their values here:", *lines])


def _groups(loader: Any, parent: str = "") -> Iterator[str]:
    """The project's groups, and those within them."""
    for name in loader.list_groups(parent):
        group = f"{parent}/{name}".lstrip("/")
        if group != "hydra":
            if loader.get_group_options(group):
                yield group
            yield from _groups(loader, group)


def _comments(name: str, places: Sequence[Path], prefix: str = "") -> dict[str, str]:
    """What the comments of a yaml, and of those in its defaults, say of keys."""
    file = next((file for place in places if (file := place / f"{name}.yaml").is_file()), None)
    if file is None:
        return {}
    text = file.read_text(encoding="utf-8")
    group = name.rpartition("/")[0]
    comments: dict[str, str] = {}
    for entry in (yaml.safe_load(text) or {}).get("defaults") or ():
        if isinstance(entry, str) and entry != "_self_" and group:
            comments |= _comments(f"{group}/{entry}", places, prefix)
    above = [] if text.startswith("# @package _global_") or not prefix else [(-1, prefix)]
    for line in text.splitlines():
        if match := re.match(r"( *)(\w+):(.*)", line):
            depth = len(match[1])
            above = [(level, key) for level, key in above if level < depth]
            above.append((depth, match[2]))
            if comment := match[3].partition(" # ")[2]:
                comments[".".join(key for _, key in above)] = comment
    return comments


def _line(key: str, value: Any, comment: str) -> str:
    """``  key=value   comment``, wrapped."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    start = f"  {key}={text}"
    width = max(80, shutil.get_terminal_size((120, 0)).columns)
    lines = textwrap.wrap(comment, width - COLUMN)
    if len(start) <= COLUMN - 2:
        start = f"{start:<{COLUMN}}{lines.pop(0)}"
    return "\n".join([start, *(" " * COLUMN + line for line in lines)])
