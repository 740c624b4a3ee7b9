"""``run=``: the configuration of the run that goes on, or is worked on, as it is stored, in the place of today's."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from neurona.cli.composing import composed, composing
from neurona.config.check import DELTAS, ROOT
from neurona.config.make import is_within
from neurona.config.nodes import leaves
from neurona.config.overrides import key, parse, root, value
from neurona.config.places import leads_out
from neurona.errors import ConfigError
from neurona.runs import configuration
from neurona.runs.configuration import MASK, OF_PROCESS, at, put
from neurona.runs.folder import require_run

TRAIN = "train"
OF_RUN = "of_run"
"""The name under which Hydra is given a run's configuration."""

BESIDE_RUN = ("run", "stage", "quiet", "threads", "inspect", "logger", "allow", "hydra")
"""Root keys that may be given with run=, beside those that the stage frees."""

GROUPS = ("trainer", "data", "logger", "inspect")
DEVICES = ("trainer.accelerator", "trainer.devices", "trainer.num_nodes", "trainer.strategy")
WRITING = ("trainer", "logger")
"""Root keys that may say where files go."""


class Yamls(NamedTuple):
    """Today's: their folder, and the overrides that tell Hydra of further ones."""

    folder: Path
    searched: Sequence[str] = ()

    def compose(self, overrides: Sequence[str] = ()) -> tuple[dict[str, Any], dict[str, Any]]:
        """The plain configuration that they give, interpolations as they are, and the choices of groups."""
        with composing(self.folder):
            cfg, hydra = composed(TRAIN, [*self.searched, *overrides])
        of_groups = {str(group): choice for group, choice in hydra.runtime.choices.items()}
        return OmegaConf.to_container(cfg), of_groups  # type: ignore[return-value]

    def texts(self) -> set[str]:
        """Every text that stands in one of them."""
        found = set()
        for file in self.folder.rglob("*.yaml"):
            with contextlib.suppress(Exception):  # nobody has chosen it
                found |= {text for _, text in leaves(configuration.load(file)) if isinstance(text, str)}
        return found


def replay(overrides: list[str], yamls: Yamls) -> tuple[str, list[str]]:
    """The name of the configuration to compose, and the overrides to compose it with: without ``run=``, today's with
    those given; with it, that of the run, which Hydra is given here, with those that change it.

    Raises ConfigError if the folder is not a run's, if one given changes what belongs to the run, or if a stored
    setting could make this run write elsewhere.
    """
    current = list({key(override): override for override in parse(overrides)}.values())  # the last of each key counts
    of_key = {override.key_or_group: override for override in current}
    if "run" not in of_key or not of_key["run"].value():
        return TRAIN, overrides
    if of_key["run"].is_sweep_override():
        raise ConfigError("run", value(of_key["run"]), "must be one run's folder")
    folder = Path(str(of_key["run"].value()))
    require_run(folder, "run")
    stage = of_key["stage"].value() if "stage" in of_key else "fit"
    config, choices, lines = _stored(folder, yamls)
    before = {key(override): override.input_line for override in parse(lines)}
    of_groups = {path.name for path in yamls.folder.iterdir() if path.is_dir()}
    given_before = [override for override in current if before.get(key(override)) == override.input_line]
    choices_before = [o for o in given_before if root(o) in of_groups and "." not in o.key_or_group]
    current = [override for override in current if override not in choices_before]
    changing = [o for o in current if root(o) in (*OF_PROCESS, "hydra") or not _is_value(o, config)]
    new = [o for o in changing if o not in given_before and root(o) in of_groups | config.keys()]
    _check_free(new, config, folder, () if stage == "fit" else ("data",))
    given = [key(override) for override in current]
    if stage != "fit":
        config |= {name: unused for name, unused in (("init_from", None), ("logger", {})) if name in config}
    _use_environment(config, lines, given)
    _check_places(config, given, folder, yamls)
    _use_absolute(config, folder, given)
    groups = [o for o in changing if o.key_or_group in GROUPS and not o.is_delete()]
    for override in groups:
        _choose(config, override, yamls)
        choices = {**choices, override.key_or_group: override.value()}
    _hand_over(config, choices, [*lines, *(str(o.input_line) for o in groups)], yamls)
    others = [o for o in current if o not in groups and (root(o) in (*OF_PROCESS, "hydra") or not _is_value(o, config))]
    return OF_RUN, [_written(override, config) for override in others]


def _stored(folder: Path, yamls: Yamls) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """The configuration of a run, the choices it was composed from, and its overrides. Of a run that ended before it
    had a configuration, today's. What a run of an earlier version lacks is today's, and told of.
    """
    lines, choices = configuration.overrides(folder), configuration.origin(folder).choices or {}
    today: dict[str, Any] = configuration.load(yamls.folder / f"{TRAIN}.yaml")
    if not (folder / "config.yaml").exists():
        replayed = [override for override in parse(lines) if root(override) not in (*OF_PROCESS, "hydra")]
        for override in replayed:
            is_group = "." not in override.key_or_group and override.key_or_group not in ROOT
            if is_group and leads_out(key(override), override.value(), is_choice=True):
                problem = f"is stored with the run in {folder} and may choose a yaml outside of it"
                raise ConfigError(key(override), value(override), problem)
        config, choices = yamls.compose([str(override.input_line) for override in replayed])
        return config | _of_process(today), choices, lines
    config = configuration.read(folder)
    groups = {name for entry in today["defaults"] if isinstance(entry, dict) for name in entry if " " not in str(name)}
    if lacking := (today.keys() | groups) - config.keys() - {"defaults", "hydra", *DELTAS}:
        print(f"run={folder}: began without {', '.join(sorted(lacking))} and uses today's", flush=True)
        config = yamls.compose()[0] | config
    return config | _of_process(today), choices, lines


def _of_process(today: dict[str, Any]) -> dict[str, Any]:
    return {name: today[name] for name in OF_PROCESS if name in today}


def _is_value(override: Override, config: dict[str, Any]) -> bool:
    """Whether an override gives a key, not a group, what a configuration has."""
    node, _, name = key(override).rpartition(".")
    parent = at(config, node) if node else config
    if override.is_delete() or override.is_sweep_override() or not isinstance(parent, dict) or name not in parent:
        return False
    stored = parent[name]
    is_same = override.value() == stored and type(override.value()) is type(stored)
    return is_same and not isinstance(stored, dict)


def _check_free(changing: Iterable[Override], config: Any, folder: Path, freed: tuple[str, ...]) -> None:
    """Raises ConfigError for a setting that is another than the run's, unless it may be."""
    free = ("trainer", *freed)
    for override in changing:
        is_lacking = any(leaf == MASK for _, leaf in leaves(at(config, key(override))))
        if root(override) not in (*BESIDE_RUN, *free) and not is_lacking:
            raise ConfigError(
                str(override.key_or_group),
                value(override),
                f"belongs to the run in {folder} and stays as it is; run= takes {', '.join((*free, *BESIDE_RUN[1:-1]))}"
                f" beside it. For a new run from its weights give init_from={folder} instead of run=",
            )


def _use_environment(config: dict[str, Any], lines: Sequence[str], given: Sequence[str]) -> None:
    """Puts what was given back where an earlier version has not stored it, as it was from the environment."""
    for override in parse(lines):
        is_masked = any(leaf == MASK for _, leaf in leaves(at(config, key(override))))
        if is_masked and ("." in override.key_or_group or override.key_or_group in ROOT):
            put(config, key(override), override.value())
    for name, leaf in leaves(config):
        if leaf == MASK and name not in given:
            problem = f"came from the environment, and an earlier version did not store it; give it too: {name}=…"
            raise ConfigError(name, MASK, problem)


def _check_places(config: dict[str, Any], given: Sequence[str], folder: Path, yamls: Yamls) -> None:
    """Raises ConfigError for a stored setting that writes outside of the run, unless a yaml of today has it too."""
    for name, text in leaves({group: config.get(group) for group in WRITING}):
        is_trusted = not leads_out(name, text) or is_within(name, given)
        if not is_trusted and text not in yamls.texts():
            problem = f"is stored with the run in {folder} and may write outside of it; to trust it, give it again too"
            raise ConfigError(name, text, problem)


def _use_absolute(config: dict[str, Any], folder: Path, given: Sequence[str]) -> None:
    """Has data and weights be found where they were, if they are there, or nowhere else."""
    for name, path in configuration.origin(folder).absolute.items():
        relative = at(config, name)
        is_free = re.fullmatch(r"data\.\w+|init_from", name) and not is_within(name, given)
        if is_free and isinstance(relative, str) and "$" not in relative:
            is_lost = name != "data.root" and not Path(relative).exists()
            if Path(path).exists() or is_lost:
                put(config, name, path)


def _choose(config: dict[str, Any], override: Override, yamls: Yamls) -> None:
    """Puts a group of today's in the place of the run's. Of a trainer, its devices and what else it decides itself:
    how long the run is to be stays as it was.
    """
    group = override.key_or_group
    chosen = yamls.compose([f"{group}={value(override)}"])[0][group]
    if group != "trainer":
        config[group] = chosen
        return
    standard = {name: node for name, node in yamls.compose()[0][group].items() if name in chosen}
    own = configuration.differences(standard, chosen, group)
    devices = {name: at({group: chosen}, name) for name in DEVICES if name.partition(".")[2] in chosen}
    for name, setting in (own | devices).items():
        put(config, name, setting)


def _hand_over(config: dict[str, Any], choices: Any, lines: Sequence[str], yamls: Yamls) -> None:
    """Gives Hydra a configuration that it can compose, with its own settings as today."""
    today = configuration.load(yamls.folder / f"{TRAIN}.yaml")
    own = [entry for entry in today["defaults"] if isinstance(entry, dict) and "override hydra/" in str(entry)]
    told = {"overrides": {"task": list(lines)}, "runtime": {"choices": choices}}
    node = {**config, "defaults": ["_self_", *own], "hydra": {**today.get("hydra", {}), **told}}
    ConfigStore.instance().store(OF_RUN, node)


def _written(override: Override, config: dict[str, Any]) -> str:
    """As it was given; what adds a key that the run has already replaces it."""
    line = str(override.input_line)
    is_there = line.startswith("+") and not line.startswith("++") and at(config, key(override)) is not None
    return f"+{line}" if is_there else line
