"""What a valid configuration is. Imports no torch, so typos are answered at once; every ConfigError starts here."""

from __future__ import annotations

import ast
import functools
import math
from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import Any, TypeVar

from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from neurona import hints, signatures
from neurona.hints import did_you_mean, key_paths
from neurona.signatures import Signature

T = TypeVar("T")
Unread = list[tuple[str, dict[str, Any], dict[str, Any]]]

ROOT = {  # the keys of train.yaml that code reads, as annotations
    "stage": 'Literal["fit", "validate", "test", "predict", "export", "lr_find"]',
    "run": "str | None",
    "init_from": "str | None",
    "folder": "str | None",
    "seed": "int",
    "compile": "bool",
    "float32_matmul": 'Literal["highest", "high", "medium"]',
    "threads": "int | None",
    "retry_failed": "bool",
    "quiet": "bool",
    "tags": "list[str]",
    "allow": "list[str]",
}
FIGURES = ("loss", "accuracy", "balanced_accuracy", "macro_f1", "auroc", "average_precision", "calibration_error")
"""What is reported of every part of the data, as val/loss."""
COMPONENTS = ("trainer.callbacks", "logger")  # mappings of any names to nodes with a _target_
DELTAS = ("experiment", "debug", "sweep")  # groups that change values and declare none
PACKAGES = ("neurona", "torch", "lightning", "torchmetrics")  # whose classes a configuration may name without ``allow``
FUNCTIONS = ("neurona.optimizer", "neurona.schedule")  # whose functions it may name as well
MAX_THREADS = 4096
_KINDS = {bool: "bool", int: "float", float: "float", str: "str | float | bool", list: "list", dict: "dict"}


class UserError(ValueError):
    """A mistake of the user's: shown as one short paragraph, exit status 2."""


class RunError(RuntimeError):
    """A run that cannot go on, through no mistake in its configuration: shown as one paragraph, exit status 1."""


class ConfigError(UserError):
    """A configuration value that is not allowed.

    key: its dotted path (``model.hidden``); value: what was given; problem: what is allowed, and the remedy.
    """

    def __init__(self, key: str, value: object, problem: str) -> None:
        super().__init__(f"{key}={value}: {problem}")
        self.key = key
        self.value = value


class DataError(UserError):
    """Data that cannot be read or used. where: the file (and line) or data set; problem: what is wrong, the remedy."""

    def __init__(self, where: object, problem: str) -> None:
        super().__init__(f"{where}: {problem}")


def check_range(
    key: str,
    value: float | None,
    *,
    least: float = -math.inf,
    above: float = -math.inf,
    most: float = math.inf,
    below: float = math.inf,
) -> None:
    """Raises ConfigError unless a number is within these limits and finite; None, where it is allowed, passes."""
    if value is None or (least <= value <= most and above < value < below):
        return
    limits = {"at least": least, "above": above, "at most": most, "below": below}
    words = [f"{name} {limit}" for name, limit in limits.items() if math.isfinite(limit)]
    raise ConfigError(key, value, f"must be {' and '.join(words)}{'' if math.isfinite(value) else ', and finite'}")


def check_seed(key: str, seed: int) -> None:
    """Raises ConfigError unless the seed is one that every generator takes."""
    if not 0 <= seed < 2**32:
        raise ConfigError(key, seed, "must be from 0 to 4294967295")


def check(cfg: DictConfig, choices: Mapping[str, Any], config_name: str = "train") -> Unread:
    """Raises ConfigError at the first key, type or ``_target_`` of a composed configuration that is not allowed.

    Every key must be declared by the configuration composed from the same choices of groups alone (without experiment,
    values from the command line, and what ``+`` adds), or by the signature of the ``_target_`` it belongs to.
    choices: as in ``hydra.runtime.choices``. Hydra must be initialised.

    Returns the nodes whose signatures cannot be read without importing them, for ``check_imported``.
    """
    declared = from_groups(choices, config_name)
    for key in declared:
        if key not in cfg:
            raise ConfigError(key, "", "must be given; python train.py --help shows the choices")
    values = _resolved(cfg)
    for key, value in values.items():
        if key not in declared:
            if key in DELTAS:
                problem = "its yaml must begin with the line # @package _global_, so that its keys are the root's"
                raise ConfigError(key, choices.get(key), problem)
            raise ConfigError(key, value, hints.unknown_key(key, [*key_paths(declared)]))
        if key in ROOT:
            _check_type(key, value, ast.Constant(ROOT[key]), __name__)
    check_seed("seed", values["seed"])
    if values["threads"] is not None and not 1 <= values["threads"] <= MAX_THREADS:
        raise ConfigError("threads", values["threads"], f"must be from 1 to {MAX_THREADS}, or null")
    if values["run"] is not None and from_groups(choices, config_name, ()).get("run") is not None:
        raise ConfigError("run", values["run"], "belongs on the command line, not into a yaml")
    for key, node in targets("", values):
        _check_permitted(key, node, values["allow"])
    unread: Unread = []
    for key, value in values.items():
        _check_node(key, value, declared[key], unread)
    return unread


def check_imported(unread: Unread) -> None:
    """Checks what ``check`` left, importing it. Raises ConfigError."""
    for key, node, base in unread:
        signature = signatures.from_object(_import(key, node["_target_"]))
        if signature is not None:
            check_arguments(key, node, base, signature)


def instantiate(node: DictConfig, base_class: type[T], /, **arguments: Any) -> T:
    """The object that a node with a ``_target_`` describes, as ``make`` does: what ``allow`` is at the root of the
    node's configuration is allowed. arguments: what the code, not the yaml, provides.
    """
    allow = OmegaConf.select(node._get_root(), "allow", default=[])
    plain: Any = OmegaConf.to_container(node, resolve=True)
    return make(str(node._get_full_key(None)), plain, base_class, allow, **arguments)


def make(key: str, node: Mapping[str, Any], base_class: type[T], allow: Collection[str] = (), /, **arguments: Any) -> T:
    """The object that a plain node with a ``_target_`` describes; what is described further in is made first.

    A stranger's configuration could name anything, so nothing is called but subclasses of ``base_class`` (further in:
    of networks and Lightning's components), the functions of ``FUNCTIONS``, and what the modules under ``allow``
    define. Raises ConfigError for anything else, or if a library's constructor refuses its arguments.
    """
    instance = _make(key, node, base_class, allow, arguments)
    if not isinstance(instance, base_class):
        raise ConfigError(_join(key, "_target_"), node["_target_"], f"must make a {base_class.__qualname__}")
    return instance


def targets(key: str, value: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every node with a ``_target_`` at or below a key of plain values: its path and itself."""
    if isinstance(value, dict) and "_target_" in value:
        yield key, value
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    for name, child in children:
        yield from targets(_join(key, name), child)


def is_within(path: str, modules: Collection[str]) -> bool:
    """Whether a dotted path is one of these modules or lies in one."""
    return any(f"{path}.".startswith(f"{module}.") for module in modules)


def from_groups(choices: Mapping[str, Any], config_name: str, without: Collection[str] = DELTAS) -> dict[str, Any]:
    """The plain configuration, interpolations as they are, that choices of groups give by themselves; not to be
    changed.
    """
    given = tuple((g, c) for g, c in choices.items() if c and g.split("/")[0] not in (*without, "hydra"))
    # The choices may come from there.
    searched = str([*(HydraConfig.get().searchpath or [])]) if HydraConfig.initialized() else None
    return _from_groups(GlobalHydra.instance().config_loader(), config_name, given, searched)


@functools.lru_cache(maxsize=8)
def _from_groups(
    loader: ConfigLoader, config_name: str, given: tuple[tuple[str, str], ...], searched: str | None
) -> dict[str, Any]:
    """Remembered, as the jobs of a sweep share them. given: groups and choices; searched: further places of yamls."""

    def composed(groups: Collection[str]) -> DictConfig:
        overrides = [f"{group}={choice}" for group, choice in given if group in groups]
        if searched is not None:
            overrides.append(f"hydra.searchpath={searched}")
        return loader.load_configuration(config_name, overrides, RunMode.RUN, from_shell=False)

    try:
        cfg = composed(dict(given))
    except ConfigCompositionException:  # there is a group from +group=choice, which the defaults list does not name
        cfg = composed(loader.compute_defaults_list(config_name, [], RunMode.RUN).overrides.known_choices)
    base = OmegaConf.to_container(cfg)
    return {str(key): value for key, value in base.items() if key != "hydra"}  # type: ignore[union-attr]


def _resolved(cfg: DictConfig) -> dict[str, Any]:
    """The values, interpolations followed; a folder stands in for the run's, which is named later."""
    if cfg.folder is None:
        cfg = OmegaConf.merge(cfg, {"folder": "logs"})  # type: ignore[assignment]
    try:
        return OmegaConf.to_container(cfg, resolve=True)  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        raise ConfigError(error.full_key or "", "${…}", str(error).splitlines()[0]) from None


def _check_node(key: str, value: Any, base: Any, unread: Unread, *, is_free: bool = False) -> None:
    """base: what the yaml declares at this key; is_free: whether a mapping may have other keys than those."""
    if value == "???":
        raise ConfigError(key, value, "has no value yet: set it")
    if not isinstance(value, dict):
        if key in COMPONENTS:
            raise ConfigError(key, "null" if value is None else value, "must be a mapping of names to components")
        if isinstance(base, dict) and "." not in key:
            problem = f"must be a mapping; a choice of a group is made with {key}=… on the command line"
            raise ConfigError(key, value, problem)
        if (kind := _KINDS.get(type(base))) and value is not None and not is_free:
            _check_type(key, value, ast.Constant(kind), __name__)
        for index, entry in enumerate(value if isinstance(value, list) else []):
            _check_node(f"{key}[{index}]", entry, None, unread, is_free=True)
        return
    base = base if isinstance(base, dict) else {}
    if "_target_" in value:
        _check_target(key, value, base, unread)
        return
    for name, child in value.items():
        if key in COMPONENTS and child is not None and not (isinstance(child, dict) and "_target_" in child):
            raise ConfigError(_join(key, name), child, "needs a _target_, the class to make; null leaves it out")
        if base and not is_free and key not in COMPONENTS and name not in base:
            path = _join(key, name)
            raise ConfigError(path, child, hints.unknown_key(path, [*key_paths(base, f"{key}.")]))
        _check_node(_join(key, name), child, base.get(name), unread, is_free=is_free)


def _check_target(key: str, node: dict[str, Any], base: dict[str, Any], unread: Unread) -> None:
    target = node["_target_"]
    try:
        signature = signatures.from_source(target)
    except LookupError as error:
        raise ConfigError(_join(key, "_target_"), target, str(error)) from None
    if signature is None:
        unread.append((key, node, base))
    else:
        check_arguments(key, node, base, signature)
    for name, value in node.items():
        if name not in hints.ATTRIBUTES:
            _check_node(_join(key, name), value, base.get(name), unread, is_free=True)


def check_arguments(key: str, node: dict[str, Any], base: dict[str, Any], signature: Signature) -> None:
    """Raises ConfigError unless a node at a key has the arguments that a signature takes, or base declares."""
    is_declared = base.get("_target_") == node.get("_target_")
    known = [*signature.parameters, *((base if is_declared else {} if base else node) if signature.is_open else {})]
    for name, value in node.items():
        if name in hints.ATTRIBUTES:
            continue
        path = _join(key, name)
        if name not in known:
            raise ConfigError(path, value, hints.unknown_key(path, [_join(key, other) for other in known]))
        parameter = signature.parameters.get(name)
        if parameter is None or path in COMPONENTS or value == "???" or (value is None and parameter.is_nullable):
            continue
        _check_type(path, value, parameter.annotation, parameter.module)
    for name, parameter in signature.parameters.items():
        if parameter.is_required and name not in node:
            raise ConfigError(_join(key, name), "", f"is missing: {node['_target_']} needs it")


def _check_type(key: str, value: Any, annotation: ast.expr | None, module: str) -> None:
    kinds = signatures.alternatives(annotation, module)
    if signatures.fits(value, kinds):
        return
    choices = list(dict.fromkeys(str(choice) for kind in kinds for choice in kind.choices))
    words = dict.fromkeys(kind.words for kind in kinds if not kind.choices)
    allowed = " or ".join([*(["one of " + ", ".join(choices)] if choices else []), *words])
    hint = hints.choice(key, value) or did_you_mean(value, choices)
    raise ConfigError(key, "null" if value is None else value, f"must be {allowed}{hint}")


def _check_permitted(key: str, node: Mapping[str, Any], allow: Collection[str]) -> None:
    path, target = _join(key, "_target_"), node["_target_"]
    if not isinstance(target, str) or "." not in target:
        raise ConfigError(path, target, "must be the dotted path of a class, such as neurona.models.mlp.MLP")
    for name in hints.ATTRIBUTES[1:]:
        if name in node:
            raise ConfigError(_join(key, name), node[name], "has no meaning here: beside _target_ stand its arguments")
    package = target.partition(".")[0]
    if not is_within(target, (*PACKAGES, *allow)):
        near = get_close_matches(package, PACKAGES, n=1)
        hint = f"did you mean {near[0]}?" if near else f"if you trust that module, add allow=[{package}]"
        raise ConfigError(path, target, f"is none of {', '.join(PACKAGES)}; {hint}")


def _make(
    key: str, node: Mapping[str, Any], base_class: type | None, allow: Collection[str], arguments: dict[str, Any]
) -> Any:
    """base_class: of a class at ``_target_``; None for a node further in."""
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    _check_permitted(key, node, allow)
    path, target = _join(key, "_target_"), node["_target_"]
    made = _import(key, target)
    is_own = is_within(f"{made.__module__}.{getattr(made, '__qualname__', '')}", allow)
    if isinstance(made, type) and base_class and not issubclass(made, base_class):
        raise ConfigError(path, target, f"must be a {base_class.__qualname__}")
    if isinstance(made, type) and not base_class and not is_own and not issubclass(made, _components()):
        names = ", ".join(component.__name__ for component in _components())
        raise ConfigError(path, target, f"must be one of {names}; if you trust it, add allow=[{made.__module__}]")
    if not isinstance(made, type) and not is_own and made.__module__ not in FUNCTIONS:
        raise ConfigError(path, target, "must be a class, or a function of your own")
    given = {name: _made(_join(key, name), child, allow) for name, child in node.items() if name != "_target_"}
    try:
        return made(**given | arguments)
    except (ValueError, TypeError, ImportError, OverflowError, MisconfigurationException) as error:
        if isinstance(error, UserError) or not signatures.is_library(made.__module__):
            raise
        raise ConfigError(key or "_target_", target, " ".join(str(error).split())) from error


def _made(key: str, value: Any, allow: Collection[str]) -> Any:
    """A value with the objects described in it."""
    if isinstance(value, list | tuple):
        return [_made(_join(key, index), child, allow) for index, child in enumerate(value)]
    if not isinstance(value, dict):
        return value
    if "_target_" in value:
        return _make(key, value, None, allow, {})
    return {name: _made(_join(key, name), child, allow) for name, child in value.items()}


def _components() -> tuple[type, ...]:
    """What may stand further in: parts of a network, of the Trainer or of a data module."""
    from lightning.pytorch import Callback, LightningDataModule
    from lightning.pytorch.accelerators import Accelerator
    from lightning.pytorch.loggers import Logger
    from lightning.pytorch.plugins import CheckpointIO, ClusterEnvironment, Precision
    from lightning.pytorch.profilers import Profiler
    from lightning.pytorch.strategies import Strategy
    from torch.nn import Module

    plugins = (Accelerator, CheckpointIO, ClusterEnvironment, Precision, Strategy)
    return (Module, Callback, Logger, Profiler, LightningDataModule, *plugins)


def _import(key: str, target: str) -> Any:
    module, _, name = target.rpartition(".")
    try:
        found = import_module(module)
    except ModuleNotFoundError as error:
        raise ConfigError(_join(key, "_target_"), target, f"cannot be imported: {error}") from None
    if not callable(getattr(found, name, None)):
        hint = did_you_mean(name, [other for other in dir(found) if not other.startswith("_")])
        raise ConfigError(_join(key, "_target_"), target, f"{module} has no class {name}{hint}")
    return getattr(found, name)


def _join(key: str, name: object) -> str:
    return f"{key}.{name}" if key else str(name)
