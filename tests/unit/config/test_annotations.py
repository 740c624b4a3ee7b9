"""Values as a yaml gives them against annotations as constructors have them."""

from __future__ import annotations

import re
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from numbers import Number
from pathlib import Path
from typing import Annotated, Any, Literal, Optional, Protocol, TypeVar, Union

import pytest

from neurona.config.annotations import check_type, closed
from neurona.errors import ConfigError


class Colour(Enum):
    RED = "red"


class Shape(Protocol):
    def area(self) -> float: ...


class Network:
    pass


NODE = {"_target_": "somewhere.Network"}
VALUES = (None, True, 1, 1.5, "a", [], [1], ["a"], {}, NODE)


@pytest.mark.parametrize(
    ("annotation", "accepted"),
    [
        (int, [1]),
        (float, [1, 1.5]),
        (bool, [True]),
        (str, ["a"]),
        (Path, ["a"]),
        (None, [None]),
        (int | None, [None, 1]),
        (Optional[str], [None, "a"]),  # noqa: UP045
        (Union[bool, float], [True, 1, 1.5]),  # noqa: UP007
        (Literal[1, "a"], [1, "a"]),
        (Literal[True], [True]),
        (Annotated[int, "a size"], [1]),
        (list[int], [[], [1]]),
        (tuple[str, ...], [[], ["a"]]),
        (Sequence[int] | int, [1, [], [1]]),
        (typing.List[Any], [[], [1], ["a"]]),  # noqa: UP006
        (Iterable, [[], [1], ["a"]]),
        (dict[str, int], [{}, NODE]),
        (Mapping, [{}, NODE]),
        (Callable[[int], int], [{}, NODE]),
        (Network, [{}, NODE]),
        (Number, [True, 1, 1.5, {}, NODE]),
    ],
)
def test_which_values_an_annotation_takes(annotation: Any, accepted: list[Any]) -> None:
    fitting = []
    for value in VALUES:
        try:
            check_type("key", value, annotation)
            fitting.append(value)
        except ConfigError:
            pass
    assert [(type(value), value) for value in fitting] == [(type(value), value) for value in accepted]


@pytest.mark.parametrize("annotation", [Any, object, Colour, Shape, TypeVar("T"), "Unknown"])
def test_what_is_not_understood_takes_anything(annotation: Any) -> None:
    for value in VALUES:
        check_type("key", value, annotation)


@pytest.mark.parametrize(
    ("value", "annotation", "message"),
    [
        ("abc", Sequence[int] | int, "key=abc: must be a list (each entry a whole number) or a whole number"),
        (None, float, "key=null: must be a number"),
        (1.5, int | None, "key=1.5: must be a whole number or null"),
        ("bach", Literal["none", "batch"], "key=bach: must be one of none, batch; did you mean batch?"),
        (3, Literal["warn"] | bool | None, "key=3: must be one of warn or true or false or null"),
        ("x", Network, "key=x: must be a mapping whose _target_ makes a Network"),
    ],
)
def test_the_message_says_what_is_taken(value: Any, annotation: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_type("key", value, annotation)
    assert str(caught.value) == message


def test_what_yaml_takes_for_no_text_is_said_how_to_write() -> None:
    with pytest.raises(ConfigError, match=re.escape("key=True: must be text; \"key='true'\" is that as text")):
        check_type("key", True, str)


def test_a_table_of_names_is_open_until_it_is_closed() -> None:
    names = Annotated[str, ("relu", "tanh")]
    for value in ("tahn", ["relu", "tahn"]):
        check_type("key", value, names | list[names])
        with pytest.raises(ConfigError, match=r"must be one of relu, tanh or a list .*; did you mean tanh\?"):
            check_type("key", value, closed(names | list[names]))
    assert closed(int | None) == int | None
