"""Every module that is named as text is there, and has what is asked of it."""

from __future__ import annotations

import pytest
import torch

from neurona.config import registry


@pytest.mark.parametrize("module", sorted(set(registry.STAGES.values())))
def test_every_stage_runs(module: str) -> None:
    assert callable(registry.load(module).run)


def test_what_stands_around_the_core_is_there() -> None:
    assert callable(registry.load(registry.SWEEP).begin)
    assert callable(registry.load(registry.SWEEP).conclude)
    assert isinstance(registry.load(registry.TABLE_SPEC).TableSpec, type)


MODULES = {before: now for before, now in registry.MOVED.items() if now.rpartition(".")[2].islower()}


@pytest.mark.parametrize(("before", "now"), MODULES.items())
def test_what_has_moved_is_found_where_it_is_now(before: str, now: str) -> None:
    assert registry.current(f"{before}.Name") == f"{now}.Name"
    assert registry.load(now).__name__ == now
    with pytest.raises(ModuleNotFoundError):
        registry.load(before)


@pytest.mark.parametrize(("before", "now"), sorted(registry.MOVED.items() - MODULES.items()))
def test_a_function_that_has_gone_is_a_class_now(before: str, now: str) -> None:
    assert registry.current(before) == now
    module, _, name = now.rpartition(".")
    assert issubclass(getattr(registry.load(module), name), torch.optim.Optimizer)
    module, _, name = before.rpartition(".")
    assert not hasattr(registry.load(module), name)


def test_what_has_not_moved_keeps_its_name() -> None:
    assert registry.current("torch.nn.Linear") == "torch.nn.Linear"
