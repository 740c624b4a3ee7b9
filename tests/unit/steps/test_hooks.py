"""Every kind of hook, registered as torch documents it, is noticed. What fails here has changed in torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.modules import module as global_hooks
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from neurona.steps import hooks


def pass_by(*_: Any) -> None:
    """A hook that changes nothing."""


def assert_noticed(register: Callable[..., Any], is_watched: Callable[[], bool]) -> None:
    assert not is_watched()
    handle = register(pass_by)
    try:
        assert is_watched(), f"torch {torch.__version__} keeps the hooks of {register} elsewhere"
    finally:
        handle.remove()
    assert not is_watched()


@pytest.mark.parametrize(
    "kind",
    ["forward_pre_hook", "forward_hook", "full_backward_pre_hook", "full_backward_hook", "backward_hook"],
)
def test_hooks_of_a_module(kind: str) -> None:
    module = nn.Linear(2, 2)
    assert_noticed(getattr(module, f"register_{kind}"), lambda: hooks.watch_modules([nn.Linear(2, 2), module]))


@pytest.mark.parametrize("kind", ["forward_pre_hook", "forward_hook", "full_backward_pre_hook", "full_backward_hook"])
def test_hooks_of_all_modules(kind: str) -> None:
    assert_noticed(getattr(global_hooks, f"register_module_{kind}"), lambda: hooks.watch_modules([]))


@pytest.mark.parametrize("kind", ["hook", "post_accumulate_grad_hook"])
def test_hooks_of_a_parameter(kind: str) -> None:
    others, parameter = nn.Linear(2, 2).parameters(), nn.Parameter(torch.zeros(2))
    parameters = [*others, parameter]
    assert_noticed(getattr(parameter, f"register_{kind}"), lambda: hooks.watch_gradients(parameters))


@pytest.mark.parametrize("kind", ["pre", "post"])
def test_hooks_of_an_optimizer(kind: str) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(2))])
    assert_noticed(getattr(optimizer, f"register_step_{kind}_hook"), lambda: hooks.watch_updates(optimizer))


@pytest.mark.parametrize("register", [register_optimizer_step_pre_hook, register_optimizer_step_post_hook])
def test_hooks_of_all_optimizers(register: Callable[..., Any]) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(2))])
    assert_noticed(register, lambda: hooks.watch_updates(optimizer))
