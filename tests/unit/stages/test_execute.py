"""One stage, and what is put back after it."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from neurona.config import registry
from neurona.stages.execute import execute
from neurona.stages.request import Request


@pytest.fixture
def run_stage(composed: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """What ``execute`` returns of a stage that does this."""
    monkeypatch.setattr("neurona.devices.launch.end_with_parent", lambda: None)
    monkeypatch.setattr("neurona.stages.console.quieten", lambda quiet: None)

    def call(stage: Callable[[Request], dict[str, Any]], **values: Any) -> dict[str, Any]:
        modules = {registry.STAGES["test"]: SimpleNamespace(run=stage)}
        monkeypatch.setattr(registry, "load", modules.__getitem__)
        cfg = composed({"stage": "test", "folder": "mine", **values})
        return execute(cfg, {"data": "iris"}, ["stage=test"], [])

    yield call
    torch.set_float32_matmul_precision("highest")


def test_the_stage_of_that_name_gets_what_was_asked_for(run_stage: Any) -> None:
    def stage(request: Request) -> dict[str, Any]:
        assert (request.cfg.stage, request.choices, request.overrides) == ("test", {"data": "iris"}, ["stage=test"])
        assert torch.get_float32_matmul_precision() == "high"
        return {"test/loss": 0.5}

    assert run_stage(stage, float32_matmul="high") == {"test/loss": 0.5, "folder": "mine"}


def test_what_a_stage_holds_is_let_go_however_it_ends(run_stage: Any) -> None:
    closed: list[str] = []

    def stage(request: Request) -> dict[str, Any]:
        request.on_exit.callback(closed.append, "a folder")
        raise KeyError

    with pytest.raises(KeyError):
        run_stage(stage)
    assert closed == ["a folder"]
