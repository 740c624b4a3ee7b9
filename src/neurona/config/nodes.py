"""Nodes of a configuration: the class that they name, their contents, and their key, for which OmegaConf has only
private methods.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.base import Container


def path_of(kind: type) -> str:
    """The dotted path of a class, by which a node names it."""
    return f"{kind.__module__}.{kind.__qualname__}"


def plain(node: DictConfig) -> dict[str, Any]:
    """The values of a node, interpolations followed."""
    return OmegaConf.to_container(node, resolve=True)  # type: ignore[return-value]


def root_of(node: Container) -> DictConfig:
    """The whole configuration that a node belongs to. Relies on OmegaConf 2.3's ``_get_root``."""
    return node._get_root()  # type: ignore[return-value]


def key_of(node: Container) -> str:
    """The dotted path of a mapping's node from its root. Relies on OmegaConf 2.3's ``_get_full_key``."""
    return str(node._get_full_key(None))


def leaves(value: Any, key: str = "", *, into_lists: bool = True) -> Iterator[tuple[str, Any]]:
    """The dotted key of each value in a plain configuration, and the value; of an entry of a list, the list's, unless a
    list is to be one value.
    """
    if isinstance(value, dict):
        for name, child in value.items():
            yield from leaves(child, f"{key}.{name}" if key else str(name), into_lists=into_lists)
    elif isinstance(value, list) and into_lists:
        for child in value:
            yield from leaves(child, key)
    else:
        yield key, value
