"""Whether a plain value (number, text, list, mapping) is what an annotation asks for, and the annotation in words."""

from __future__ import annotations

import json
from collections import abc
from collections.abc import Callable
from enum import Enum
from os import PathLike
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Protocol, Union, get_args, get_origin

from neurona.config import hints
from neurona.errors import ConfigError, did_you_mean

LISTS = (list, tuple, abc.Sequence, abc.MutableSequence, abc.Iterable, abc.Collection)
MAPPINGS = (dict, abc.Mapping, abc.MutableMapping)


class Alternative(NamedTuple):
    """One member of a union: the test of a plain value, its name in words, and the values where it is a closed set."""

    accepts: Callable[[Any], bool]
    words: str
    choices: tuple[Any, ...] = ()


def check_type(key: str, value: Any, annotation: Any) -> None:
    """Raises ConfigError unless a plain value is what an annotation asks for; one not understood asks for nothing."""
    kinds = alternatives(annotation)
    if any(kind.accepts(value) for kind in kinds):
        return
    choices = list(dict.fromkeys(str(choice) for kind in kinds for choice in kind.choices))
    words = dict.fromkeys(kind.words for kind in kinds if not kind.choices)
    allowed = " or ".join([*(["one of " + ", ".join(choices)] if choices else []), *words])
    wrong = next((entry for entry in value if entry not in choices), value) if isinstance(value, list) else value
    hint = hints.choice(key, value) or did_you_mean(wrong, choices)
    if key in hints.OF_ONES_OWN and (not hint or "." in str(value)):
        hint = f"; {hints.OF_ONES_OWN[key]}"
    if isinstance(value, bool | float | None) and any(kind.accepts("text") for kind in kinds):
        hint = f"; \"{key}='{json.dumps(value)}'\" is that as text"
    raise ConfigError(key, "null" if value is None else value, f"must be {allowed}{hint}")


def closed(annotation: Any) -> Any:
    """An annotation with the names in ``Annotated[str, names]`` as the only choices, which it leaves open by itself."""
    outer, inner = get_origin(annotation), get_args(annotation)
    if outer is Annotated:
        return Literal[inner[1]]
    if outer in (Union, UnionType):
        return Union[tuple(map(closed, inner))]  # noqa: UP007  (of any objects)
    return list[closed(inner[0])] if outer is list and inner else annotation  # type: ignore[misc]


def alternatives(annotation: Any) -> list[Alternative]:
    """The members of the union that an annotation is, or itself as the only one."""
    outer, inner = get_origin(annotation) or annotation, get_args(annotation)
    if outer in (Union, UnionType):
        members = [member for member in inner if not _is_tensor(member)] or inner
        return [alternative for member in members for alternative in alternatives(member)]
    if outer is Annotated:
        return alternatives(inner[0])
    if outer is Literal:
        return [Alternative(lambda value: _is_among(value, inner), "one of the choices", inner)]
    if outer in LISTS and inner:
        return [_list([alternative for member in inner if member is not ... for alternative in alternatives(member)])]
    for types, alternative in _SIMPLE.items():
        if outer in types:
            return [alternative]
    is_class = isinstance(outer, type) and outer.__module__ not in ("typing", "builtins", "collections.abc")
    return [_object(outer) if is_class else _ANYTHING]


def _is_among(value: Any, choices: tuple[Any, ...]) -> bool:
    """1, 1.0 and true are equal, but not the same choice."""
    return any(type(value) is type(choice) and value == choice for choice in choices)


def _is_tensor(annotation: Any) -> bool:
    """Which no configuration can write, such as the learning rate that may be a number, too."""
    return getattr(annotation, "__module__", "") == "torch" and getattr(annotation, "__name__", "") == "Tensor"


def _is_number(value: Any, types: type | UnionType) -> bool:
    return isinstance(value, types) and not isinstance(value, bool)


def _list(kinds: list[Alternative]) -> Alternative:
    def accepts(value: Any) -> bool:
        return isinstance(value, list) and all(any(kind.accepts(entry) for kind in kinds) for entry in value)

    return Alternative(accepts, f"a list (each entry {' or '.join(dict.fromkeys(kind.words for kind in kinds))})")


def _object(kind: type) -> Alternative:
    if issubclass(kind, Enum | PathLike) or Protocol in kind.__mro__:  # texts stand for many of those
        return _ANYTHING
    words = f"a mapping whose _target_ makes a {kind.__name__}"
    return Alternative(lambda value: isinstance(value, dict | kind), words)


_ANYTHING = Alternative(lambda value: True, "anything")
_SIMPLE: dict[tuple[Any, ...], Alternative] = {
    (None, NoneType): Alternative(lambda value: value is None, "null"),
    (int,): Alternative(lambda value: _is_number(value, int), "a whole number"),
    (float,): Alternative(lambda value: _is_number(value, int | float), "a number"),
    (bool,): Alternative(lambda value: isinstance(value, bool), "true or false"),
    (str,): Alternative(lambda value: isinstance(value, str), "text"),
    (Path,): Alternative(lambda value: isinstance(value, str), "a path"),
    (abc.Callable,): Alternative(lambda value: isinstance(value, dict), "a mapping with a _target_"),
    LISTS: Alternative(lambda value: isinstance(value, list), "a list"),
    MAPPINGS: Alternative(lambda value: isinstance(value, dict), "a mapping"),
}
