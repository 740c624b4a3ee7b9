"""What is read from the source is what Python itself says of the imported class."""

from __future__ import annotations

import inspect
import sys
import textwrap
from importlib import import_module
from pathlib import Path

import pytest

from neurona.config import signatures

TARGETS = [
    "neurona.data.iris.Iris",
    "neurona.data.lesson.Lesson",
    "neurona.data.mnist.Mnist",
    "neurona.models.mlp.MLP",
    "neurona.optimizer.adamw",
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


@pytest.fixture
def read_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "read_here.py").write_text(textwrap.dedent(MODULE))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "read_here", raising=False)


@pytest.mark.usefixtures("read_here")
@pytest.mark.parametrize("target", TARGETS)
def test_the_parameters_are_those_that_python_tells(target: str) -> None:
    found = signatures.from_source(target)
    assert found is not None
    module, _, name = target.rpartition(".")
    told = inspect.signature(getattr(import_module(module), name)).parameters
    assert set(found.parameters) == told.keys()
    required = {name for name, p in told.items() if p.default is p.empty and p.kind is p.KEYWORD_ONLY}
    assert required <= {n for n, parameter in found.parameters.items() if parameter.is_required}
