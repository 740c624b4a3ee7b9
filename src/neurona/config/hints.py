"""Suggestions for keys and values that do not exist."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import yaml

NOT_GLOBAL = "its yaml must begin with the line # @package _global_, so that its keys are the root's"
CONFIG_DIR = Path(__file__).parents[3] / "configs"

ELSEWHERE = {  # what other libraries call a key, and its name here
    "epochs": "trainer.max_epochs",
    "num_epochs": "trainer.max_epochs",
    "gpus": "trainer.devices",
    "batch_size": "data.batch_size",
    "learning_rate": "optimizer.lr",
    "units": "model.hidden",
    "hidden_layer_sizes": "model.hidden",
    "validation_split": "data.val_fraction",
    "gradient_clip_val": "optimizer.clip_norm",
    "gradient_clip_algorithm": "optimizer.clip_value",
    "accumulate_grad_batches": "optimizer.accumulate",
    "resume": "run",
    "ckpt_path": "run",
    "resume_from_checkpoint": "run",
    "log_dir": "folder",
    "default_root_dir": "folder",
    "logger": "logger",
}

COMMON = {  # the same, of names that a class of one's own may well have
    "width": "model.hidden",
    "layers": "model.hidden",
    "momentum": "optimizer.momentum",
    "random_state": "seed",
    "name": "folder",
}

NO_KEY = {  # what is no key at all here, and what there is in its place
    "loss": "a loss of your own is a classifier: docs/extending.md#a-loss",
    "num_workers": "none are needed, as the data are in memory; leave it out",
    "verbose": "quiet=true prints errors only",
    "validation_data": "rows of your own to validate on go to neurona.fit as X_val= and y_val=",
    "sample_weights": "weights of rows are data.weight=<column>, or sample_weight= of neurona.fit",
    "optimizer.groups": "patterns for names are a mapping, in quotes: 'optimizer.groups={head.*:{lr:1e-4}}'",
}

OF_ONES_OWN = {  # how one's own gets there, where a dotted path alone does not do it
    "model.activation": "one of your own is an entry in ACTIVATIONS: docs/extending.md#an-activation-function",
    "optimizer": "any other of torch's, or of your own, is a yaml: docs/extending.md#an-optimiser",
    "optimizer.schedule": "a function that returns a neurona.schedule.Schedule makes it, with any scheduler of torch's:"
    " docs/extending.md#a-learning-rate-schedule",
}

COMPONENTS = ("trainer.callbacks", "logger")
"""Mappings of any names to nodes with a ``_target_``."""

OF_PYTHON = ("arrays", "images")
"""Choices of data that ``neurona.fit`` makes, of X and y in memory."""

ATTRIBUTES = ("_target_", "_partial_", "_recursive_", "_convert_", "_args_")
"""What Hydra reads of a node that makes an object."""


def key_paths(mapping: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The dotted path of every key of a nested mapping."""
    for key, value in mapping.items():
        if key not in ATTRIBUTES:
            yield f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from key_paths(value, f"{prefix}{key}.")


def unknown_key(key: str, declared: Collection[str], *, is_of_yaml: bool = False) -> str:
    """The message for a key that does not exist, with the most similar one that does. is_of_yaml: whether the yaml of
    the choice that is made has it.
    """
    parent, _, leaf = key.rpartition(".")
    if not is_of_yaml and (belongs := other_choice(key)):
        return belongs
    here = (ELSEWHERE | COMMON).get(leaf)
    if here and here != key and ("." in here or parent in ("", "trainer")):  # none of a part's is at the root
        if here in declared:
            return f"no such key; here it is {here}"
        if choices := _having(here):
            return f"no such key; here it is {here}, with {choices}"
    siblings = {name.rpartition(".")[2]: name for name in declared if name.rpartition(".")[0] == parent}
    if not parent:
        siblings |= {file.parent.name: file.parent.name for file in sorted(CONFIG_DIR.glob("[!h]*/*.yaml"))}
    for name, text in NO_KEY.items():
        if leaf == name or (not siblings and key.startswith(f"{name}.")):
            return f"no such key; {text}"
    leaves = {name.rpartition(".")[2]: name for name in reversed(list(declared))}
    before = next((name for name in _above(key) if name in declared), "")
    inside = f"{before}." if before else ""
    within = [name for name in declared if name.startswith(inside) and not key.startswith(name)]
    paths = {name.removeprefix(inside): name for name in within}
    known = ((leaf, siblings, 0.65), (key.removeprefix(inside), paths, 0.65), (leaf, leaves, 0.8))
    for word, names, least in known:  # what is elsewhere must be nearer
        small = {name.casefold(): path for name, path in names.items()}
        if close := get_close_matches(word.casefold(), small, n=1, cutoff=least):
            found = small[close[0]]
            is_group = key.count(".") <= found.count(".") and (CONFIG_DIR / found.replace(".", "/")).is_dir()
            return f"no such key; did you mean {found.replace('.', '/') if is_group else found}?"
    owner = parent if siblings else before
    there = siblings or [name for name in paths if "." not in name]
    return f"no such key; {owner or 'the configuration'} has {', '.join(there) or 'none'}"


def _above(key: str) -> Iterator[str]:
    """The keys that a key is in, the nearest first."""
    while key := key.rpartition(".")[0]:
        yield key


def nested(key: str, value: Any) -> str:
    """A dotted key and its value as a yaml has them, in one line: ``model: {hidden: [32]}``."""
    for name in reversed(key.split(".")):
        value = {name: value}
    return yaml.safe_dump(value, default_flow_style=True, width=math.inf, allow_unicode=True).strip()[1:-1]


def other_choice(key: str) -> str:
    """Which choices of the group of a key ``group.name`` have it, or nothing. Of a group within
    another the key is ``optimizer.schedule.name``, and a choice ``optimizer/schedule=cosine``.
    """
    choices = _having(key)
    return f"no such key here; it belongs to {choices}" if choices else ""


def _having(key: str) -> str:
    """The choices that have a key: of its group, else of data, which bring settings of other groups too."""
    group, names = Path(), key.split(".")
    for name in names[:-1]:
        if not (CONFIG_DIR / group / name).is_dir():
            break
        group /= name
    having = (_choices(group, names) or _choices(Path("data"), names)) if group.parts else []
    *others, last = having or [""]
    return f"{', '.join(others)} and {last}" if others else last


def _choices(group: Path, names: Sequence[str]) -> list[str]:
    """Those of a group whose yaml has the key of these names, left out those for Python alone."""
    having = []
    for file in sorted((CONFIG_DIR / group).glob("*.yaml")):
        if str(group) == "data" and file.stem in OF_PYTHON:
            continue
        with suppress(Exception):  # nobody has chosen it
            text = file.read_text(encoding="utf-8")
            node: Any = yaml.safe_load(text)
            if not text.startswith("# @package _global_"):
                node = reduce(lambda inner, name: {name: inner}, reversed(group.parts), node)
            reduce(getitem, names, node)  # a value of ??? counts
            having.append(f"{group.as_posix()}={file.stem}")
    return having


def choice(key: str, value: object) -> str:
    """How to choose from a group, if a key is a group's and its value the name of a choice."""
    group = key.replace(".", "/")
    there = [file.stem for file in CONFIG_DIR.glob(f"{group}/*.yaml")]
    near = get_close_matches(str(value), there, n=1)
    return f"; a choice is made with a slash: {group}={near[0]}" if near else ""
