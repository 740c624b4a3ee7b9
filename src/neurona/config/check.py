"""What a valid configuration is. Imports no torch, so typos are answered at once."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from neurona.config import hints, registry, signatures
from neurona.config.annotations import check_type, closed
from neurona.config.hints import COMPONENTS, key_paths
from neurona.config.interpolations import resolved, settle, typed
from neurona.config.make import PACKAGES, check_permitted, import_target, is_within, join, targets, unsuited
from neurona.config.signatures import Reader, Signature
from neurona.errors import ConfigError, check_seed

Unread = list[tuple[str, dict[str, Any], dict[str, Any]]]
"""Nodes with a ``_target_`` that is not imported yet: the key, the node, and what the yaml declares there."""

ROOT: dict[str, Any] = {  # the types of keys that code reads before any import, above all those of train.yaml itself
    "stage": Literal[tuple(registry.STAGES)],
    "run": str | None,
    "init_from": str | None,
    "folder": str | None,
    "seed": int,
    "compile": bool,
    "float32_matmul": Literal["highest", "high", "medium"],
    "threads": int | None,
    "retry_failed": bool,
    "quiet": bool,
    "debugging": bool,
    "tags": list[str],
    "allow": list[str],
    "trainer.devices": list[int] | str | int,
    "trainer.num_nodes": int,
}
FIGURES = ("loss", "accuracy", "balanced_accuracy", "macro_f1", "auroc", "average_precision", "calibration_error")
"""What is reported of every part of the data, as val/loss."""
SIZES = ("num_features", "num_classes", "num_rows", "num_numbers", "cardinalities")
PROVIDED = {"model": SIZES, "embedding": SIZES}  # arguments that code gives, keyword-only ones too
MADE = ("data", "model", "classifier", "optimizer", "trainer")  # groups whose yamls name a class
PATTERNS = ("optimizer.groups", "data.labels")  # mappings whose keys may have dots
DELTAS = ("experiment", "debug", "sweep")  # groups that change values and declare none
OF_RUN = "of_run"  # the name under which Hydra is given the configuration of a run that goes on
TABLES = "neurona.models.activations"  # whose dictionaries of names whoever has imported it may have added to
MAX_THREADS = 4096
_KINDS = {bool: bool, int: float, float: float, str: str | float | bool, list: list, dict: dict}  # by the yaml's own


def check(cfg: DictConfig, choices: Mapping[str, Any], config_name: str = "train") -> Unread:
    """Raises ConfigError at the first key or ``_target_`` of a composed configuration that is not allowed, or missing.

    Every key must be declared by the configuration composed from the same choices of groups alone (without experiment,
    values from the command line, and what ``+`` adds), or by the signature of the ``_target_`` it belongs to.
    choices: as in ``hydra.runtime.choices``. Hydra must be initialised. A text from the environment becomes, in
    ``cfg``, the number that its key takes.

    Returns the nodes whose arguments ``check_imported`` looks at again, as their types are not known before.
    """
    declared = from_groups(choices, config_name)
    for key in declared:
        if key not in cfg:
            raise ConfigError(key, "", "must be given; python train.py --help shows the choices")
    values = resolved(cfg)
    _check_nested("", values, declared)
    for key, value in values.items():
        if key not in declared:
            if key in DELTAS:
                raise ConfigError(key, choices.get(key) or "", hints.NOT_GLOBAL)
            raise ConfigError(key, value, hints.unknown_key(str(key), [*key_paths(declared)]))
        values[key] = typed(value, ROOT.get(key, Any))
        check_type(key, values[key], ROOT.get(key, Any))
    for key in MADE:
        node = values.get(key, {"_target_": None})
        if isinstance(node, dict | list) and "_target_" not in node:
            nested = f"; leave out its line {key}: and begin those below at the margin" if key in node else ""
            problem = f"is missing: the yaml of {key} must name the class to make, as those in configs/{key} do{nested}"
            raise ConfigError(f"{key}._target_", "", problem)
    check_seed("seed", values["seed"])
    if values["threads"] is not None and not 1 <= values["threads"] <= MAX_THREADS:
        raise ConfigError("threads", values["threads"], f"must be from 1 to {MAX_THREADS}, or null")
    if values["run"] is not None and from_groups(choices, config_name, ()).get("run") is not None:
        raise ConfigError("run", values["run"], "belongs on the command line, not into a yaml")
    is_shipped = TABLES not in sys.modules
    for key, node in targets("", values):
        check_permitted(key, node, values["allow"])
        is_shipped &= is_within(node["_target_"], PACKAGES)
    nodes = Nodes([], _with_closed_tables if is_shipped else signatures.from_source)
    for key, value in values.items():
        _check_node(key, value, declared[key], nodes)
    settle(cfg, values)
    return nodes.unread


def _check_nested(key: str, mapping: dict[str, Any], base: Any) -> None:
    """Raises ConfigError for a key of a yaml that is a path, such as ``model.hidden``, and should be nested."""
    for name, child in mapping.items() if isinstance(base, dict) and key not in PATTERNS else ():
        path = join(key, str(name))
        if "." in str(name) and str(name).partition(".")[0] in base:
            problem = f"is how the command line names it; in the yaml write {hints.nested(path, child)}"
            raise ConfigError(path, child, problem)
        if isinstance(child, dict):
            _check_nested(path, child, base.get(name))


class Nodes(NamedTuple):
    """unread: the nodes to be looked at again. read: how the signatures of their targets are found."""

    unread: Unread
    read: Reader


def _with_closed_tables(target: str) -> Signature | None:
    """As the source tells, where no code of one's own can have added a name to ``ACTIVATIONS``, or is to do so."""
    signature = signatures.from_source(target)
    if signature is None:
        return None
    parameters = {name: closed(kind) for name, kind in signature.parameters.items()}
    return Signature(parameters, signature.required, signature.is_open)


def check_imported(unread: Unread, cfg: DictConfig | None = None) -> None:
    """Checks types, and what the source did not tell ``check``, importing each ``_target_``. Raises ConfigError.

    cfg: where texts from the environment become the numbers that their keys take.
    """
    for key, node, base in unread:
        read = functools.partial(_from_object, key)
        signature = signatures.at(key, node["_target_"], read)
        if signature is not None:
            check_arguments(key, node, base, signature)
            if cfg is not None:
                settle(OmegaConf.select(cfg, key), node)


def _from_object(key: str, target: str) -> Signature | None:
    return signatures.from_object(import_target(key, target))


def from_groups(choices: Mapping[str, Any], config_name: str, without: Collection[str] = DELTAS) -> dict[str, Any]:
    """The plain configuration, interpolations as they are, that choices of groups give by themselves; not to be
    changed. A run that goes on has none: what it is stored with declares its keys.
    """
    if config_name == OF_RUN:
        return _plain(ConfigStore.instance().load(f"{config_name}.yaml").node)
    pairs = tuple((g, c) for g, c in choices.items() if c and g.split("/")[0] not in (*without, "hydra"))
    # The choices may come from there.
    places = [*(HydraConfig.get().searchpath or [])] if HydraConfig.initialized() else []
    searched = str(places) if places else None
    loader = GlobalHydra.instance().config_loader()
    yamls: tuple[Any, ...] = (loader,)
    if searched is None:  # else there are more of them than the loader knows
        folders = [str(place.path) for place in loader.get_search_path().get_path()]
        yamls = tuple((folder, _files(folder.removeprefix("file://"))) for folder in folders)
    return _from_groups(yamls, config_name, pairs, searched)


def _files(place: str) -> tuple[tuple[str, tuple[int, int]], ...]:
    """The yamls in a folder, with time and size of each; empty if it is not a folder, as ``pkg://``."""
    files = {}
    for file in Path(place).rglob("*.yaml"):
        with contextlib.suppress(FileNotFoundError):  # a link that an editor has left, or one removed just now
            status = file.stat()
            files[str(file)] = status.st_mtime_ns, status.st_size
    return tuple(sorted(files.items()))


@functools.lru_cache(maxsize=8)
def _from_groups(
    yamls: tuple[Any, ...], config_name: str, pairs: tuple[tuple[str, str], ...], searched: str | None
) -> dict[str, Any]:
    """Remembered, as the jobs of a sweep share them, and the runs of a process. yamls: changes when one of them does;
    pairs: groups and choices; searched: further places of yamls.
    """
    loader = GlobalHydra.instance().config_loader()

    def composed(groups: Collection[str]) -> DictConfig:
        overrides = [f"{group}={choice}" for group, choice in pairs if group in groups]
        if searched is not None:
            overrides.append(f"hydra.searchpath={searched}")
        return loader.load_configuration(config_name, overrides, RunMode.RUN, from_shell=False)

    def known(overrides: list[str]) -> Collection[str]:
        return loader.compute_defaults_list(config_name, overrides, RunMode.RUN).overrides.known_choices

    try:
        cfg = composed(dict(pairs))
    except ConfigCompositionException:  # there is a group from +group=choice, which the defaults list does not name
        first = known([])
        cfg = composed(known([f"{group}={choice}" for group, choice in pairs if "/" not in group and group in first]))
    return _plain(cfg)


def _plain(cfg: Any) -> dict[str, Any]:
    """As containers, without what is Hydra's."""
    container: Any = OmegaConf.to_container(cfg)
    return {str(key): value for key, value in container.items() if key not in ("defaults", "hydra")}


def _check_node(key: str, value: Any, base: Any, nodes: Nodes, *, is_free: bool = False) -> None:
    """base: what the yaml declares at this key; is_free: whether a mapping may have other keys than those."""
    if value == "???":
        raise ConfigError(key, value, "has no value yet: set it")
    if not isinstance(value, dict):
        _check_leaf(key, value, base, nodes, is_free)
    elif "_target_" in value:
        _check_target(key, value, base if isinstance(base, dict) else {}, nodes)
    elif key in COMPONENTS:
        _check_components(key, value, base if isinstance(base, dict) else {}, nodes)
    else:
        _check_mapping(key, value, base if isinstance(base, dict) else {}, nodes, is_free)


def _check_leaf(key: str, value: Any, base: Any, nodes: Nodes, is_free: bool) -> None:
    if key in COMPONENTS:
        raise ConfigError(key, "null" if value is None else value, "must be a mapping of names to components")
    if isinstance(base, dict) and "." not in key:
        problem = f"must be a mapping: it has {', '.join(key_paths(base))}, each given as {key}.…=…"
        if (hints.CONFIG_DIR / key).is_dir():
            name = value if isinstance(value, str) else "…"
            problem = f"must be a mapping; a choice is {key}={name}, or in a yaml's defaults - override /{key}: {name}"
        raise ConfigError(key, "null" if value is None else value, problem)
    if value is not None and not is_free:
        check_type(key, value, _kind(base))
    for index, entry in enumerate(value if isinstance(value, list) else []):
        _check_node(f"{key}[{index}]", entry, None, nodes, is_free=True)


def _kind(base: Any) -> Any:
    """The type of a value that a yaml declares; a text may stand for several."""
    return _KINDS.get(type(base), Any)


def _check_components(key: str, components: dict[str, Any], base: dict[str, Any], nodes: Nodes) -> None:
    for name, component in components.items():
        path = join(key, name)
        if component is not None and not (isinstance(component, dict) and "_target_" in component):
            is_choice = (hints.CONFIG_DIR / key / f"{name}.yaml").is_file()
            hint = f"; {name} is chosen by {key}=[{name}]" if is_choice else ""
            raise ConfigError(path, component, f"needs a _target_, the class to make; null leaves it out{hint}")
        _check_node(path, component, base.get(name), nodes, is_free=True)


def _check_mapping(key: str, mapping: dict[str, Any], base: dict[str, Any], nodes: Nodes, is_free: bool) -> None:
    for name, child in mapping.items():
        path = join(key, name)
        if base and not is_free and name not in base:
            raise ConfigError(path, child, hints.unknown_key(path, [*key_paths(base, f"{key}.")]))
        if not is_free:
            mapping[name] = child = typed(child, _kind(base.get(name)))
        _check_node(path, child, base.get(name), nodes, is_free=is_free)


def _check_target(key: str, node: dict[str, Any], base: dict[str, Any], nodes: Nodes) -> None:
    target = node["_target_"]
    try:
        signature = signatures.at(key, registry.current(target), nodes.read)
    except LookupError as error:
        raise ConfigError(join(key, "_target_"), target, str(error)) from None
    nodes.unread.append((key, node, base))
    if signature is not None:
        check_arguments(key, node, base, signature)
    for name, value in node.items():
        if name not in hints.ATTRIBUTES:
            _check_node(join(key, name), value, base.get(name), nodes, is_free=True)


def check_arguments(key: str, node: dict[str, Any], base: dict[str, Any], signature: Signature) -> None:
    """Raises ConfigError unless a node at a key has the arguments that a signature takes, or base declares."""
    names = [*signature.parameters, *(_further_names(node, base) if signature.is_open else [])]
    for name, value in node.items():
        if name in hints.ATTRIBUTES:
            continue
        path = join(key, name)
        if name not in names:
            problem = hints.unknown_key(path, [join(key, other) for other in names], is_of_yaml=name in base)
            if name in base and base.get("_target_") not in (None, node["_target_"]):  # which nobody has typed
                problem = f"{node['_target_']} does not take it, as {base['_target_']} does; "
                problem += unsuited(key, node["_target_"], base["_target_"])
            raise ConfigError(path, value, problem)
        if path not in COMPONENTS and value != "???":
            kind = ROOT.get(path, signature.parameters.get(name, Any))
            node[name] = typed(typed(value, kind), _kind(base.get(name)) if kind is Any else Any)
            check_type(path, node[name], kind)
    for name in signature.parameters:
        if name in signature.required and name not in (*node, *PROVIDED.get(key, ())):
            raise ConfigError(join(key, name), "", f"is missing: {node['_target_']} needs it")
    if key == "optimizer":
        _check_groups(node, signature)


def _check_groups(node: dict[str, Any], signature: Signature) -> None:
    """Checks that groups of parameters have only arguments that the optimiser takes."""
    own = signatures.from_source(registry.OPTIMIZATION)
    assert own is not None
    names = {name: kind for name, kind in signature.parameters.items() if name not in own.parameters}
    of_group = Signature(names, is_open=signature.is_open)
    groups = node.get("groups")
    for pattern, options in groups.items() if isinstance(groups, dict) else ():
        if isinstance(options, dict):
            check_arguments(f"optimizer.groups.{pattern}", options, {}, of_group)


def _further_names(node: dict[str, Any], base: dict[str, Any]) -> Collection[str]:
    """What a node may give beside the parameters, where there are ``**kwargs``: what the yaml declares for that class;
    where no yaml declares the node, anything.
    """
    if not base:
        return node
    return base if base.get("_target_") == node.get("_target_") else ()
