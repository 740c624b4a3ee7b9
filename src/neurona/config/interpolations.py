"""What the interpolations of a configuration come to, for checking it and for keeping it: what is taken from the
environment is told by the resolver that was asked, not by how it is written.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from omegaconf.resolvers import oc

from neurona.config.annotations import alternatives
from neurona.config.nodes import leaves
from neurona.config.overrides import parse
from neurona.errors import ConfigError, UserError

FOLDER = "<the run's folder>"
"""Stands for ``folder`` while what mentions it is looked for."""

Take = Callable[[str, str, Any, bool], Any]
"""What becomes of an interpolation: its key, itself, its plain value, and whether the environment was asked for it."""


class EnvironmentText(str):
    """A text that was taken from the environment, in whole or in part."""


def resolved(cfg: DictConfig) -> dict[str, Any]:
    """The plain values, interpolations followed, texts from the environment as ``EnvironmentText``; a folder stands in
    for the run's, which is named later. Raises ConfigError for an interpolation that cannot be followed.
    """
    if cfg.folder is None:
        cfg = OmegaConf.merge(cfg, {"folder": "logs"})  # type: ignore[assignment]

    def take(key: str, raw: str, value: Any, from_environment: bool) -> Any:
        return _mapped(value, EnvironmentText) if from_environment else value

    return _followed(cfg, take)


def storable(cfg: DictConfig) -> tuple[dict[str, Any], list[str]]:
    """The plain values to be kept in files, interpolations followed except those that mention ``folder`` or bring a
    text from the environment, and the keys of the latter. Raises ConfigError as ``resolved``.
    """
    kept: list[str] = []

    def take(key: str, raw: str, value: Any, from_environment: bool) -> Any:
        texts = [leaf for _, leaf in leaves(value) if isinstance(leaf, str)]
        if from_environment and texts:
            kept.append(key)
        is_read_again = any(FOLDER in text or "${" in text for text in texts)
        return raw if is_read_again or (from_environment and texts) else value

    values = _followed(OmegaConf.merge(cfg, {"folder": FOLDER}), take)  # type: ignore[arg-type]
    values["folder"] = cfg.folder
    return values, kept


def settle(cfg: Any, values: Any) -> None:
    """Puts into a configuration, in place, the values that texts from the environment have become by ``typed``."""
    for name, value in values.items() if isinstance(values, dict) else enumerate(values):
        if OmegaConf.is_interpolation(cfg, name):
            if isinstance(cfg[name], str) and not isinstance(value, str):
                cfg[name] = value
        elif isinstance(value, dict | list):
            settle(cfg[name], value)


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


def _followed(cfg: DictConfig, take: Take) -> dict[str, Any]:
    with _watched() as asked:

        def follow(key: str, raw: Any, node: DictConfig | ListConfig) -> Any:
            names = raw.items() if isinstance(raw, dict) else enumerate(raw)
            of_list = isinstance(raw, list)
            children = {
                name: one(f"{key}[{name}]" if of_list else f"{key}.{name}" if key else str(name), name, child, node)
                for name, child in names
            }
            return list(children.values()) if of_list else children

        def one(key: str, name: Any, raw: Any, parent: Any) -> Any:
            if not OmegaConf.is_interpolation(parent, name):
                return follow(key, raw, parent[name]) if isinstance(raw, dict | list) else raw
            asked.clear()
            try:
                value = parent[name]
                value = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
            except OmegaConfBaseException as error:
                problem = str(error).splitlines()[0]
                if asked and asked[-1] not in os.environ:
                    problem = f"needs the environment variable {asked[-1]}, which is not set: export {asked[-1]}=…"
                raise ConfigError(key, raw, problem) from None
            return take(key, raw, value, bool(asked))

        return follow("", OmegaConf.to_container(cfg), cfg)


@contextlib.contextmanager
def _watched() -> Iterator[list[str]]:
    """The names of the variables that OmegaConf's ``oc.env`` is asked for in the meantime."""
    asked: list[str] = []

    def env(key: str, *default: Any) -> Any:
        asked.append(key)
        return oc.env(key, *default)

    OmegaConf.register_new_resolver("oc.env", env, replace=True)
    try:
        yield asked
    finally:
        OmegaConf.register_new_resolver("oc.env", oc.env, replace=True)
