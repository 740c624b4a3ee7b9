"""Every module that is named as text is there, and has what is asked of it."""

from __future__ import annotations

import pytest

from neurona.config import registry


@pytest.mark.parametrize("module", sorted(set(registry.STAGES.values())))
def test_every_stage_runs(module: str) -> None:
    assert callable(registry.load(module).run)


def test_what_stands_around_the_core_is_there() -> None:
    assert callable(registry.load(registry.SWEEP).begin)
    assert callable(registry.load(registry.SWEEP).conclude)
    assert isinstance(registry.load(registry.TABLE_SPEC).TableSpec, type)


@pytest.mark.parametrize(("before", "now"), registry.MOVED.items())
def test_what_has_moved_is_found_where_it_is_now(before: str, now: str) -> None:
    assert registry.current(f"{before}.Name") == f"{now}.Name"
    assert registry.load(now).__name__ == now
    with pytest.raises(ModuleNotFoundError):
        registry.load(before)


def test_what_has_not_moved_keeps_its_name() -> None:
    assert registry.current("torch.nn.Linear") == "torch.nn.Linear"
