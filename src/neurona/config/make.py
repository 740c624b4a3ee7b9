"""Objects made from nodes with a ``_target_``: one check of what a configuration may name, then the call."""

from __future__ import annotations

import ast
import inspect
import re
import shlex
import sys
from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf

from neurona.config import hints, own, signatures
from neurona.config.nodes import key_of, plain, root_of
from neurona.config.registry import current
from neurona.errors import ConfigError, UserError, did_you_mean

T = TypeVar("T")

PACKAGES = ("neurona", "torch", "lightning", "torchmetrics")  # whose classes a configuration may name without ``allow``
FUNCTIONS = ("neurona.schedule", "neurona.models.tabular")  # whose functions it may name as well


class Unbound(ConfigError, TypeError):
    """A class or function does not take the arguments of its node, or needs others."""


def instantiate(node: DictConfig, base_class: type[T], /, **arguments: Any) -> T:
    """The object that a node with a ``_target_`` describes, as ``make`` does: what ``allow`` is at the root of the
    node's configuration is allowed. arguments: what the code, not the yaml, provides.
    """
    allow = OmegaConf.select(root_of(node), "allow", default=[])
    return make(key_of(node), plain(node), base_class, allow, **arguments)


def make(key: str, node: Mapping[str, Any], base_class: type[T], allow: Collection[str] = (), /, **arguments: Any) -> T:
    """The object that a plain node with a ``_target_`` describes; what is described further in is made first.

    A stranger's configuration could name anything, so nothing is called but subclasses of ``base_class`` (further in:
    of networks and Lightning's components), the functions of ``FUNCTIONS``, and what the modules under ``allow`` and
    those beside ``train.py`` define. Raises ConfigError for anything else, or if a library's constructor refuses its
    arguments.
    """
    instance = _make(key, node, base_class, allow, arguments)
    if not isinstance(instance, base_class):
        raise ConfigError(join(key, "_target_"), node["_target_"], f"must make a {base_class.__qualname__}")
    return instance


def described(node: DictConfig, base_class: type) -> tuple[Any, dict[str, Any]]:
    """What a node with a ``_target_`` names, and the arguments it is described with, made: for code that calls it
    itself, later and as often as it likes. It is a subclass of ``base_class`` or a function that ``allow`` allows.
    """
    allow = OmegaConf.select(root_of(node), "allow", default=[])
    key, values = key_of(node), plain(node)
    return _permitted_target(key, values, base_class, allow), _arguments(key, values, allow)


def targets(key: str, value: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every node with a ``_target_`` at or below a key of plain values: its path and itself."""
    if isinstance(value, dict) and "_target_" in value:
        yield key, value
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    for name, child in children:
        yield from targets(join(key, name), child)


def unsuited(key: str, target: str, other: str = "") -> str:
    """What to do where the yaml that is chosen for a group has arguments that a class does not take. other: the class
    of that yaml.
    """
    group = key.replace(".", "/")
    for file in sorted(hints.CONFIG_DIR.glob(f"{group}/*.yaml")):
        if re.search(rf"^_target_: {re.escape(target)}\s*(#|$)", file.read_text(encoding="utf-8"), re.MULTILINE):
            return f"choose {group}={file.stem}"
    definition = own.definition(target)
    parents = [ast.unparse(base).rpartition(".")[2] for base in getattr(definition, "bases", ())]
    inherits = other.rpartition(".")[2] in parents
    remedies = ["give its constructor *args and **kwargs that go on to its parent's"] if inherits else []
    if (hints.CONFIG_DIR / group).is_dir():
        place = f"configs/{group}/<name>.yaml"
        remedies.append(f"write a yaml of its own, {place}, with _target_: {target}, and choose {group}=<name>")
    return ", or ".join(remedies) or "leave it out"


def is_within(path: str, modules: Collection[str]) -> bool:
    """Whether a dotted path is one of these modules or lies in one."""
    return any(f"{path}.".startswith(f"{module}.") for module in modules)


def check_permitted(key: str, node: Mapping[str, Any], allow: Collection[str]) -> None:
    path, target = join(key, "_target_"), node["_target_"]
    if not isinstance(target, str) or "." not in target:
        raise ConfigError(path, target, "must be the dotted path of a class, such as neurona.models.mlp.MLP")
    for name in hints.ATTRIBUTES[1:]:
        if name in node:
            raise ConfigError(
                join(key, name), node[name], "has no meaning here: only arguments of the class stand beside _target_"
            )
    if not is_within(target, PACKAGES) and not is_own(key, target, allow):
        raise ConfigError(path, target, _refusal(target))


def is_own(key: str, target: str, allow: Collection[str]) -> bool:
    """Whether a target is code of the user's own that a node at a key may name: anything in a module under ``allow``;
    of those beside ``train.py`` a class that is defined there or, for an optimiser, a function.
    """
    return is_within(target, allow) or isinstance(own.definition(target), _definitions(key))


def _definitions(key: str) -> tuple[type[ast.stmt], ...]:
    return (ast.ClassDef, ast.FunctionDef) if key.partition(".")[0] == "optimizer" else (ast.ClassDef,)


def _refusal(target: str) -> str:
    module, _, name = target.rpartition(".")
    package = target.partition(".")[0]
    if module == "__main__":
        return _of_cell(name)
    if folders := own.unmarked(module):
        project = own.folder()
        assert project is not None
        bare = " and ".join(str(folder.relative_to(project)) for folder in folders)
        files = shlex.join(str(_from_here(folder / "__init__.py")) for folder in folders)
        return f"without an __init__.py, {bare} is no package of your own; make it one: touch {files}"
    trust = f"if you trust that module, add allow=[{package}]"
    is_here = own.source(package) is not None or package in sys.modules or not package or find_spec(package) is not None
    if not is_here:
        trust = f"there is no package {package} here; install it, or go on in the checkout that has it"
    if own.source(package) is not None:
        file = own.source(module)
        known = {path.rpartition(".")[2].casefold(): path for path in own.classes(package)}
        near = get_close_matches(name.casefold(), known, n=1)
        hint = f"; did you mean {known[near[0]]}?" if near else ""
        if file is None:
            return f"there is no {module} beside train.py{hint}"
        names = own.statements(file)
        return f"{file} defines no class {name}{f'; {trust}' if {name, '*'} & names.keys() else hint}"
    near = get_close_matches(package, [*PACKAGES, *own.modules()], n=1)
    hint = f"did you mean {near[0]}?" if near and near[0] != package else trust
    project = own.folder()
    beside = f", nor code of your own beside train.py in {project}" if project else ""
    return f"is none of {', '.join(PACKAGES)}{beside}; {hint}"


def _from_here(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _of_cell(name: str) -> str:
    """What to do with a class that a notebook's cell defines, which no other process knows."""
    project = own.folder()
    place = "" if project is None or project == Path.cwd() else f"{project}/"
    problem = "no later run or process finds what a notebook's cell defines"
    return f"{problem}; make %%writefile {place}mine.py the cell's first line, run it, and name mine.{name}"


def _make(
    key: str, node: Mapping[str, Any], base_class: type | None, allow: Collection[str], arguments: dict[str, Any]
) -> Any:
    """base_class: of a class at ``_target_``; None for a node further in."""
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    target = _permitted_target(key, node, base_class, allow)
    for name in arguments.keys() & node.keys():
        raise ConfigError(join(key, name), node[name], "is set by the project itself; leave it out")
    if missing := _not_taken(target, arguments):
        problem = f"its constructor does not take {', '.join(missing)}, which the project gives"
        takes = ", ".join(arguments)
        raise ConfigError(join(key, "_target_"), node["_target_"], f"{problem}; give it the parameters {takes}")
    values = _arguments(key, node, allow) | arguments
    if problem := _unbound(target, values):
        page = f"; {hints.OF_ONES_OWN[key]}" if key in hints.OF_ONES_OWN else ""
        raise Unbound(join(key, "_target_"), node["_target_"], f"{problem}{page}")
    try:
        return target(**values)
    except (ValueError, TypeError, ImportError, OverflowError, MisconfigurationException) as error:
        if isinstance(error, UserError) or not signatures.is_library(target.__module__):
            raise
        raise ConfigError(key or "_target_", node["_target_"], " ".join(str(error).split())) from error


def _not_taken(target: Any, names: Collection[str]) -> list[str]:
    """Those of these names that a class or function does not take as arguments."""
    try:
        parameters = inspect.signature(target).parameters
    except (ValueError, TypeError):  # of what is written in C
        return []
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return []
    return [name for name in names if name not in parameters]


def _unbound(target: Any, values: Mapping[str, Any]) -> str:
    """In which way these arguments are not those of a class or function; nothing where they are, or Python does not
    tell.
    """
    try:
        inspect.signature(target, follow_wrapped=False).bind(**values)
    except ValueError:
        return ""
    except TypeError as error:
        return "" if signatures.is_library(target.__module__) else str(error)
    return ""


def _arguments(key: str, node: Mapping[str, Any], allow: Collection[str]) -> dict[str, Any]:
    """The arguments of a node, with the objects that are described in it."""
    return {name: _with_objects(join(key, name), child, allow) for name, child in node.items() if name != "_target_"}


def _permitted_target(key: str, node: Mapping[str, Any], base_class: type | None, allow: Collection[str]) -> Any:
    """The class or function that a node names, imported, if the node may call it."""
    check_permitted(key, node, allow)
    path, name = join(key, "_target_"), node["_target_"]
    target = import_target(key, name)
    is_users = is_own(key, f"{target.__module__}.{getattr(target, '__qualname__', '')}", allow)
    if not isinstance(target, type):
        if not is_users and target.__module__ not in FUNCTIONS:
            raise ConfigError(path, name, "must be a class, or a function of your own")
    elif base_class:
        if not issubclass(target, base_class):
            raise ConfigError(path, name, f"must be a {base_class.__qualname__}")
    elif not is_users and not issubclass(target, _components()):
        if key in hints.OF_ONES_OWN:
            raise ConfigError(path, name, hints.OF_ONES_OWN[key])
        names = ", ".join(component.__name__ for component in _components())
        raise ConfigError(path, name, f"must be one of {names}; if you trust it, add allow=[{target.__module__}]")
    return target


def _with_objects(key: str, value: Any, allow: Collection[str]) -> Any:
    """A value, with the objects that are described in it."""
    if isinstance(value, list | tuple):
        return [_with_objects(join(key, index), child, allow) for index, child in enumerate(value)]
    if not isinstance(value, dict):
        return value
    if "_target_" in value:
        return _make(key, value, None, allow, {})
    return {name: _with_objects(join(key, name), child, allow) for name, child in value.items()}


def _components() -> tuple[type, ...]:
    """The classes that nodes further in may name: parts of a network, of the Trainer or of a data module."""
    from lightning.pytorch import Callback, LightningDataModule
    from lightning.pytorch.accelerators import Accelerator
    from lightning.pytorch.loggers import Logger
    from lightning.pytorch.plugins import CheckpointIO, ClusterEnvironment, Precision
    from lightning.pytorch.profilers import Profiler
    from lightning.pytorch.strategies import Strategy
    from torch.nn import Module

    plugins = (Accelerator, CheckpointIO, ClusterEnvironment, Precision, Strategy)
    return (Module, Callback, Logger, Profiler, LightningDataModule, *plugins)


def import_target(key: str, target: str) -> Any:
    module, _, name = current(target).rpartition(".")
    try:
        imported = own.load(module)
    except ImportError as error:
        raise ConfigError(join(key, "_target_"), target, f"cannot be imported: {error}") from None
    if not callable(getattr(imported, name, None)):
        if module == "__main__":
            raise ConfigError(join(key, "_target_"), target, _of_cell(name))
        hint = did_you_mean(name, [other for other in dir(imported) if not other.startswith("_")])
        raise ConfigError(join(key, "_target_"), target, f"{module} has no class {name}{hint}")
    return getattr(imported, name)


def join(key: str, name: object) -> str:
    return f"{key}.{name}" if key else str(name)
