"""The values of a configuration's interpolations, for checking and for storing. Texts from the environment are known by
the resolver that was called, not by the way they are written.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.basecontainer import BaseContainer
from omegaconf.errors import OmegaConfBaseException

from neurona.config.annotations import alternatives
from neurona.config.nodes import leaves
from neurona.config.overrides import parse
from neurona.errors import ConfigError, UserError

FOLDER = "<the run's folder>"
"""Stands for ``folder`` while what mentions it is looked for."""


class EnvironmentText(str):
    """A text that comes from the environment, in whole or in part."""


def resolved(cfg: DictConfig) -> dict[str, Any]:
    """The plain values, interpolations followed, texts from the environment as ``EnvironmentText``; a folder stands in
    for the run's, which is named later. Raises ConfigError for an interpolation that cannot be followed.
    """
    if not OmegaConf.is_interpolation(cfg, "folder") and cfg.folder is None:
        cfg = OmegaConf.merge(cfg, {"folder": "logs"})  # type: ignore[assignment]
    values: dict[str, Any] = OmegaConf.to_container(cfg)  # type: ignore[assignment]
    for _, plain, name, value, is_of_environment in _followed(cfg, values):
        plain[name] = _mapped(value, EnvironmentText) if is_of_environment else value
    return values


def storable(cfg: DictConfig) -> tuple[dict[str, Any], list[str]]:
    """The plain values to be kept in files, interpolations followed except those that mention ``folder`` or bring a
    text from the environment, and the keys of the latter. Raises ConfigError as ``resolved``.
    """
    kept: list[str] = []
    standing: Any = OmegaConf.merge(cfg, {"folder": FOLDER})
    values: dict[str, Any] = OmegaConf.to_container(standing)  # type: ignore[assignment]
    for key, plain, name, value, is_of_environment in _followed(standing, values):
        texts = [leaf for _, leaf in leaves(value) if isinstance(leaf, str)]
        if is_of_environment and texts:
            kept.append(key)
        elif not any(FOLDER in text or "${" in text for text in texts):  # those are read again
            plain[name] = value
    return {**values, "folder": cfg.folder}, kept


def masked(text: str, settings: str) -> str:
    """A message with the names of environment variables, which the text of some settings has, in the place of what is
    in them. Values of up to three letters stay: they would be found in any word.
    """
    for name in re.findall(r"oc\.env:\s*([^\s,}]+)", settings):
        if len(value := os.environ.get(name, "")) > 3:
            text = text.replace(value, f"${{oc.env:{name}}}")
    return text


def settle(cfg: Any, values: Any) -> None:
    """Puts into a configuration, in place, the values that texts from the environment have become by ``typed``."""
    for _, node, plain, name in _interpolations(cfg, values):
        if isinstance(node[name], str) and not isinstance(plain[name], str):
            node[name] = plain[name]


def typed(value: Any, annotation: Any) -> Any:
    """A value, where a text in it is from the environment, as the number, boolean or null that an annotation asks for;
    as it is where the annotation takes a text, or the text is no such thing.
    """
    kinds = alternatives(annotation)
    is_from_environment = any(isinstance(leaf, EnvironmentText) for _, leaf in leaves(value))
    if not is_from_environment or any(kind.accepts(value) for kind in kinds):
        return value
    read = _mapped(value, _read)
    return read if any(kind.accepts(read) for kind in kinds) else value


def _read(text: str) -> Any:
    if isinstance(text, EnvironmentText):
        with contextlib.suppress(UserError):
            return parse([f"value={text}"])[0].value()
    return text


def _mapped(value: Any, change: Callable[[str], Any]) -> Any:
    """A plain value with every text in it changed."""
    if isinstance(value, dict):
        return {key: _mapped(child, change) for key, child in value.items()}
    if isinstance(value, list):
        return [_mapped(child, change) for child in value]
    return change(value) if isinstance(value, str) else value


def _interpolations(node: Any, plain: Any, key: str = "") -> Iterator[tuple[str, Any, Any, Any]]:
    """Each interpolation: its key, the node that it is in, what that is among plain values, and its name there."""
    for name in list(plain) if isinstance(plain, dict) else range(len(plain)):
        path = f"{key}.{name}".lstrip(".") if isinstance(plain, dict) else f"{key}[{name}]"
        if OmegaConf.is_interpolation(node, name):
            yield path, node, plain, name
        elif isinstance(plain[name], dict | list):
            yield from _interpolations(node[name], plain[name], path)


def _followed(cfg: Any, values: Any) -> Iterator[tuple[str, Any, Any, Any, bool]]:
    """Each interpolation: its key, what it is in among plain values, its name there, the plain value that it comes to,
    and whether the environment was asked for that.
    """
    with _watched() as asked:
        for key, node, plain, name in _interpolations(cfg, values):
            asked.clear()
            try:
                value = node[name]
                value = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
            except OmegaConfBaseException as error:
                problem = str(error).splitlines()[0]
                if asked and asked[-1] not in os.environ:
                    problem = f"needs the environment variable {asked[-1]}, which is not set: export {asked[-1]}=…"
                raise ConfigError(key, plain[name], problem) from None
            yield key, plain, name, value, bool(asked)


@contextlib.contextmanager
def _watched() -> Iterator[list[str]]:
    """The names of the variables that the resolver ``oc.env``, whosever it is, is asked for in the meantime. Relies on
    OmegaConf 2.3's ``_resolvers``: it has no public way to put back what was registered.
    """
    asked: list[str] = []
    resolvers = BaseContainer._resolvers
    before = resolvers["oc.env"]

    def env(config: Any, parent: Any, node: Any, args: tuple[Any, ...], texts: tuple[str, ...]) -> Any:
        asked.append(str(args[0]))
        return before(config, parent, node, args, texts)

    resolvers["oc.env"] = env
    try:
        yield asked
    finally:
        resolvers["oc.env"] = before
