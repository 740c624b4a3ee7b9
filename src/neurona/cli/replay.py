"""``run=``: the stored configuration of a run takes the place of the one that today's yamls give."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from neurona.cli.composing import composed, composing
from neurona.config.check import DELTAS, OF_RUN
from neurona.config.make import is_within
from neurona.config.nodes import leaves
from neurona.config.overrides import check_single, in_shell, key, parse, root, value
from neurona.config.places import leads_out
from neurona.errors import ConfigError
from neurona.runs import configuration
from neurona.runs.configuration import OF_PROCESS, at, put
from neurona.runs.folder import require_run

TRAIN = "train"

BESIDE_RUN = ("run", "stage", "quiet", "threads", "inspect", "logger", "allow", "hydra")
"""Root keys that may be given with run=, beside those that the stage frees."""

FITS = ("fit", "refit")
GROUPS = ("trainer", "data", "logger", "inspect")
DEVICES = ("accelerator", "devices", "num_nodes", "strategy")
WRITING = ("trainer", "logger")
"""Root keys that may say where files go."""


class Yamls(NamedTuple):
    """The yamls of today: their folder, and the overrides that name further folders to Hydra."""

    folder: Path
    searched: Sequence[str] = ()

    def compose(self, overrides: Sequence[str] = ()) -> tuple[dict[str, Any], dict[str, Any]]:
        """The plain configuration that they give, interpolations as they are, and the choices of groups."""
        with composing(self.folder):
            cfg, hydra = composed(TRAIN, [*self.searched, *overrides])
        return OmegaConf.to_container(cfg), dict(hydra.runtime.choices)  # type: ignore[return-value]


def replay(overrides: list[str], yamls: Yamls) -> tuple[str, list[str]]:
    """The name of the configuration to compose, and the overrides to compose it with: without ``run=``, today's with
    those given; with it, that of the run, which Hydra is given here, with those that change it.

    Raises ConfigError if one given has several values, if the folder is not a run's, if one given changes what belongs
    to the run, or if a stored setting could make this run write elsewhere.
    """
    by_key = {key(override): override for override in parse(overrides)}  # the last of each key counts
    check_single(by_key.values())
    if "retry_failed" in by_key and by_key["retry_failed"].value():
        problem = "is for a sweep that goes on (-m); a run that has failed goes on by run=<its folder>"
        raise ConfigError("retry_failed", value(by_key["retry_failed"]), problem)
    if "run" not in by_key or not by_key["run"].value():
        return TRAIN, overrides
    folder = Path(str(by_key["run"].value()))
    require_run(folder, "run")
    today: dict[str, Any] = configuration.load(yamls.folder / f"{TRAIN}.yaml")
    config, choices, lines = _stored(folder, yamls, today)
    is_fit = "stage" not in by_key or by_key["stage"].value() in FITS
    free = ("trainer", *(() if is_fit else ("data",)), *BESIDE_RUN)
    by_key = {name: o for name, o in by_key.items() if root(o) in free or o.input_line not in lines}

    def changing() -> list[Override]:
        """The overrides that differ from the run's own settings."""
        return [override for override in by_key.values() if not _is_given(override, config, choices)]

    for override in changing():
        if root(override) not in free and root(override) in {*config, *(name.partition("/")[0] for name in choices)}:
            problem = f"belongs to the run in {folder} and stays as it is; run= takes"
            problem += f" {', '.join(name for name in free if name not in ('run', 'hydra'))} beside it."
            problem += f" For a new run from its weights give {in_shell('init_from', folder)} instead of run="
            raise ConfigError(str(override.key_or_group), value(override), problem)
    if not is_fit:
        config |= {name: unused for name, unused in (("init_from", None), ("logger", {})) if name in config}
    _check_places(config, by_key, folder, yamls)
    _use_absolute(config, folder, by_key)
    groups = [o for o in changing() if o.key_or_group in GROUPS and not o.is_delete()]
    _choose(config, choices, groups, yamls)
    hydra_node = {
        "overrides": {"task": [*lines, *(str(o.input_line) for o in groups)]},
        "runtime": {"choices": choices},
    }
    defaults = ["_self_", *(entry for entry in today["defaults"] if "override hydra/" in str(entry))]
    node = {**config, "defaults": defaults, "hydra": {**today.get("hydra", {}), **hydra_node}}
    ConfigStore.instance().store(OF_RUN, node)
    return OF_RUN, [_written(override, config) for override in changing()]


def _stored(folder: Path, yamls: Yamls, today: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """The configuration of a run, the choices it was composed from, and its overrides. What it lacks, as there was no
    such thing when it began, is today's, and told of.
    """
    lines = configuration.overrides(folder)
    config, choices = configuration.read(folder), configuration.origin(folder).choices
    choices |= {key(override): override.value() for override in parse(lines) if key(override) in {*choices, *GROUPS}}
    groups = {name for entry in today["defaults"] if isinstance(entry, dict) for name in entry if " " not in str(name)}
    if lacking := (today.keys() | groups) - config.keys() - {"defaults", "hydra", *DELTAS}:
        print(f"run={folder}: began without {', '.join(sorted(lacking))} and uses today's", flush=True)
        config = yamls.compose()[0] | config
    return config | {name: today[name] for name in OF_PROCESS if name in today}, choices, lines


def _is_given(override: Override, config: dict[str, Any], choices: dict[str, Any]) -> bool:
    """Whether a configuration, or its choices of groups, already has the value of an override."""
    if key(override) in choices:
        return choices[key(override)] == override.value()
    stored = at(config, key(override), ...)
    if override.is_delete():
        return stored is ...
    return bool(stored == override.value()) and type(stored) is type(override.value())


def _check_places(config: dict[str, Any], by_key: Collection[str], folder: Path, yamls: Yamls) -> None:
    """Raises ConfigError for a stored setting that writes outside of the run, unless a yaml of today has it too."""
    for name, text in leaves({group: config.get(group) for group in WRITING}):
        if leads_out(name, text) and not is_within(name, by_key) and not _is_todays(name, text, yamls.folder):
            harm = "may tell others what is in a variable of yours" if "oc.env" in text else "may write outside of it"
            problem = f"is stored with the run in {folder} and {harm}; to trust it, give it again too"
            raise ConfigError(name, text, problem)


def _is_todays(name: str, text: str, folder: Path) -> bool:
    """Whether one of the yamls of a folder has this text at the key of this name."""
    for file in folder.rglob("*.yaml"):
        with contextlib.suppress(Exception):  # nobody has chosen it
            if any(text == other and f".{name}".endswith(f".{key}") for key, other in leaves(configuration.load(file))):
                return True
    return False


def _use_absolute(config: dict[str, Any], folder: Path, by_key: Collection[str]) -> None:
    """Replaces relative paths of data and weights by absolute ones, if those exist, or the relative ones do not."""
    for name, path in configuration.origin(folder).absolute.items():
        relative = at(config, name)
        is_free = re.fullmatch(r"data\.\w+|init_from", name) and not is_within(name, by_key)
        if not is_free or not isinstance(relative, str) or "$" in relative:
            continue
        if Path(path).exists() or (name != "data.root" and not Path(relative).exists()):
            put(config, name, path)


def _choose(config: dict[str, Any], choices: dict[str, Any], groups: Sequence[Override], yamls: Yamls) -> None:
    """Replaces groups of the run by today's. A trainer brings only its devices and the settings that its yaml changes:
    the length of the run stays as it was.
    """
    chosen: dict[str, Any] = yamls.compose([str(override.input_line) for override in groups])[0] if groups else {}
    for override in groups:
        group = override.key_or_group
        choices[group] = override.value()
        if group != "trainer":
            config[group] = chosen[group]
            continue
        standard = yamls.compose()[0][group]
        standard = {name: ... if name in DEVICES else standard[name] for name in standard if name in chosen[group]}
        for name, setting in configuration.differences(standard, chosen[group], group).items():
            put(config, name, setting)


def _written(override: Override, config: dict[str, Any]) -> str:
    """The override as it is passed on: one that adds a key which the run already has replaces it."""
    line = str(override.input_line)
    is_there = line.startswith("+") and not line.startswith("++") and at(config, key(override)) is not None
    return f"+{line}" if is_there else line
