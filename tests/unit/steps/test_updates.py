"""Updates by torch's kernels have the bits of ``Optimizer.step``."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim import Optimizer

from neurona.steps import updates

RULES: dict[str, Any] = {
    "adam": lambda p: torch.optim.Adam(p, lr=0.1, betas=(0.8, 0.99), weight_decay=0.1, fused=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.1, fused=True),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.1, fused=True),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, fused=True),
    "dampening": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.5, fused=True),
}


def parameters() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(3, 4, generator=generator).requires_grad_(),
        torch.randn(3, generator=generator).requires_grad_(),
    ]


def stepped(optimizer: Optimizer, tensors: list[Tensor], factor: float) -> None:
    for tensor in tensors:
        tensor.grad = tensor.detach() * factor
    optimizer.step()


@pytest.mark.parametrize("name", RULES)
def test_updates_have_the_bits_of_the_optimisers_step(name: str) -> None:
    ours, theirs = parameters(), parameters()
    our_optimizer, their_optimizer = RULES[name](ours), RULES[name](theirs)
    for factor, lr in ((1.0, 0.1), (0.5, 0.05), (-2.0, 0.2)):
        for optimizer in (our_optimizer, their_optimizer):
            optimizer.param_groups[0]["lr"] = lr
        update = updates.functional(our_optimizer, ours)
        if update is None:  # its first step makes its state
            assert factor == 1.0
            stepped(our_optimizer, ours, factor)
        else:
            with torch.no_grad():
                update([tensor * factor for tensor in ours])
        stepped(their_optimizer, theirs, factor)
        assert all(map(torch.equal, ours, theirs))
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(our_optimizer.state[one], their_optimizer.state[other], rtol=0, atol=0)


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.Adam(p, fused=True, amsgrad=True),
        lambda p: torch.optim.Adam(p, foreach=True),
        lambda p: torch.optim.SGD(p, fused=True, maximize=True),
        lambda p: torch.optim.Adam([{"params": p[:1]}, {"params": p[1:]}], fused=True),
        torch.optim.RMSprop,
        type("Own", (torch.optim.Adam,), {}),
    ],
    ids=["amsgrad", "foreach", "maximize", "groups", "rmsprop", "own"],
)
def test_other_optimisers_make_their_steps_themselves(make: Any) -> None:
    tensors = parameters()
    optimizer = make(tensors)
    stepped(optimizer, tensors, 1.0)
    assert updates.functional(optimizer, tensors) is None


def test_an_optimiser_with_hooks_makes_its_steps_itself() -> None:
    tensors = parameters()
    optimizer = RULES["adam"](tensors)
    stepped(optimizer, tensors, 1.0)
    assert updates.functional(optimizer, tensors) is not None
    optimizer.register_step_pre_hook(lambda *_: None)
    assert updates.functional(optimizer, tensors) is None


@pytest.mark.parametrize("name", RULES)
def test_updates_have_the_same_bits_on_any_number_of_threads(name: str) -> None:
    before, outcomes = torch.get_num_threads(), []
    for threads in (1, 2, 3, 6):
        generator = torch.Generator().manual_seed(0)
        tensors = [torch.randn(size, generator=generator).requires_grad_() for size in (200_003, 65_537, 70_000)]
        optimizer = RULES[name](tensors)
        torch.set_num_threads(threads)
        try:
            stepped(optimizer, tensors, 1.0)
            update = updates.functional(optimizer, tensors)
            assert update is not None
            with torch.no_grad():
                for factor in (0.5, -2.0):
                    update([tensor * factor for tensor in tensors])
        finally:
            torch.set_num_threads(before)
        outcomes.append(tensors)
    for others in outcomes[1:]:
        assert all(map(torch.equal, outcomes[0], others))
