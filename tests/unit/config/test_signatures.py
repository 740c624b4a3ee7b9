"""What is read from the source is what Python itself says of the imported class."""

from __future__ import annotations

import inspect
import sys
import textwrap
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from neurona.config import signatures
from neurona.config.signatures import Signature
from neurona.data.lesson import Lesson
from neurona.models.activations import ACTIVATIONS
from neurona.models.initialization import Scheme
from neurona.models.mlp import MLP
from neurona.schedule import one_cycle

TARGETS = [
    "neurona.data.iris.Iris",
    "neurona.data.lesson.Lesson",
    "neurona.data.mnist.Mnist",
    "neurona.models.mlp.MLP",
    "neurona.schedule.one_cycle",
    "neurona.optimizer.Optimization",
    "torch.optim.NAdam",
    "neurona.callbacks.checkpoints.BestAndLast",
    "lightning.pytorch.Trainer",
    "read_here.Child",
]
MODULE = """
    import dataclasses
    from dataclasses import dataclass, field
    from typing import ClassVar

    @dataclass
    class Parent:
        size: int
        rate: float = 0.1
        hidden: int = field(default=1)

    @dataclasses.dataclass(kw_only=True)
    class Child(Parent):
        names: ClassVar[tuple[str, ...]] = ()
        depth: int | None = None
        hidden: int = field(default=2, init=False)
"""
HANDING = """
    from neurona.models.mlp import MLP as Base
    import neurona.models.mlp as library

    class Mixin:
        pass

    class Deep(Mixin, Base):
        def __init__(self, *args, gamma: float = 2.0, **kwargs):
            super().__init__(*args, **kwargs)

    class Deeper(Deep):
        def __init__(self, *args, depth: int, **kwargs):
            Deep.__init__(self, *args, gamma=1.0, dropout=0.5, **kwargs)

    class Placed(Base):
        def __init__(self, inputs, classes, **kwargs):
            super().__init__(inputs, classes, **kwargs)

    class Kept(Base):
        def __init__(self, size, **kwargs):
            super().__init__(size, 2)
            self.more = kwargs

    class Taken(Base):
        def __init__(self, *args, **kwargs):
            self.rate = kwargs.pop("rate", 0.1)
            super().__init__(*args, **kwargs)

    class Elsewhere(library.MLP):
        def __init__(self, *args, size=1, **kwargs):
            super().__init__(*args, **kwargs)
"""


@pytest.fixture
def read_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "read_here.py").write_text(textwrap.dedent(MODULE))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "read_here", raising=False)


@pytest.mark.usefixtures("read_here")
@pytest.mark.parametrize("target", TARGETS)
def test_the_parameters_are_those_that_python_tells(target: str) -> None:
    signature = signatures.from_source(target)
    assert signature is not None
    module, _, name = target.rpartition(".")
    imported = getattr(import_module(module), name)
    parameters = inspect.signature(imported).parameters
    assert signature.parameters.keys() == parameters.keys()
    required = {name for name, p in parameters.items() if p.default is p.empty and p.kind is p.KEYWORD_ONLY}
    assert required <= signature.required
    asked = signatures.from_object(imported)
    assert asked is not None
    assert (asked.parameters.keys(), asked.required) == (parameters.keys(), required)
    assert asked.is_open == signature.is_open


def test_an_annotation_that_cannot_be_read_asks_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = """
        from __future__ import annotations
        from dataclasses import dataclass
        from typing import Union

        Nested = Union[str, list["Nested"]]

        @dataclass
        class Odd:
            nested: Nested
            words: "how many words" = 1
            pair: tuple[()] = ()
            width: int = None
    """
    (tmp_path / "odd.py").write_text(textwrap.dedent(source))
    monkeypatch.syspath_prepend(str(tmp_path))
    signature = signatures.from_source("odd.Odd")
    assert signature is not None
    assert signature.parameters == {"nested": Any, "words": Any, "pair": Any, "width": int | None}


def test_what_a_constructor_hands_on_its_parent_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hands_on.py").write_text(textwrap.dedent(HANDING))
    monkeypatch.syspath_prepend(str(tmp_path))
    inherited = set(inspect.signature(MLP).parameters)
    expected = {
        "Deep": ({"gamma", *inherited}, set(), False),
        "Deeper": ({"depth", *inherited} - {"dropout"}, {"depth"}, False),
        "Placed": ({"inputs", "classes", *inherited} - {"num_features", "num_classes"}, set(), False),
        "Kept": ({"size"}, set(), True),
        "Taken": (inherited, set(), True),
        "Elsewhere": ({"size", *inherited}, set(), False),
    }
    module = import_module("hands_on")
    for name, (parameters, required, is_open) in expected.items():
        asked = signatures.from_object(getattr(module, name))
        assert asked is not None
        assert (set(asked.parameters), set(asked.required), asked.is_open) == (parameters, required, is_open), name
        signature = signatures.from_source(f"hands_on.{name}")
        if name == "Elsewhere":
            assert signature is None  # until it is imported
        else:
            assert signature is not None
            assert (signature.parameters.keys(), signature.is_open) == (asked.parameters.keys(), is_open), name
            assert required <= signature.required
    deep = signatures.from_object(module.Deep)
    assert deep is not None
    assert deep.parameters["hidden"] == Sequence[int] | int


def test_annotations_are_found_wherever_a_parameter_comes_from() -> None:
    """A field that a dataclass of another module inherits, a function's own, a constructor that the parent has."""
    for target, name, annotation in (
        (Lesson, "scaling", Literal["standard", "unit", "none"]),
        (Lesson, "noise", float),
        (one_cycle, "cycle_momentum", bool),
        (type("Deep", (MLP,), {}), "hidden", Sequence[int] | int),
    ):
        signature = signatures.from_object(target)
        assert signature is not None
        assert signature.parameters[name] == annotation
    assert signatures.from_object(lambda x=None, **more: x) == Signature({"x": Any}, is_open=True)


def test_types_and_closed_choices_are_read_from_the_source() -> None:
    """What the source tells is what Python tells; what it does not tell is anything."""
    parameters = {}
    for target in ("neurona.models.mlp.MLP", "neurona.data.lesson.Lesson", "torch.optim.Adam"):
        signature = signatures.from_source(target)
        assert signature is not None
        parameters |= signature.parameters
    names = Annotated[str, tuple(ACTIVATIONS)]
    assert parameters["activation"] == names | list[names]
    assert parameters["hidden"] == list[int] | int
    assert parameters["normalization"] == Literal["none", "batch", "layer", "rms"]
    assert parameters["initialization"] == Scheme  # an alias in another file
    assert parameters["scaling"] == Literal["standard", "unit", "none"]  # a dataclass's field
    assert parameters["noise"] is float
    assert parameters["fold"] == int | None
    assert parameters["lr"] is Any  # float | Tensor


def test_what_no_signature_can_be_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "of_cells", type(sys)("of_cells"))  # as __main__ is in a notebook
    assert signatures.from_source("of_cells.Net") is None
    assert signatures.from_source("json.loads") is not None
    assert signatures.from_source("sys.exit") is None
    assert signatures.from_object(dict) is None
    with pytest.raises(LookupError, match=r"neurona\.optimizer has no Muom; did you mean neurona\.optimizer\.Muon\?"):
        signatures.from_source("neurona.optimizer.Muom")
