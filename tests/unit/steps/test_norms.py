"""Norms of a step agree with plain tensors'."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from neurona.steps.norms import StepNorms


def test_norms_of_a_step_are_those_of_its_gradient_and_its_change() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    norms = StepNorms(network)
    assert norms.figures() == {}
    network(torch.randn(5, 4)).square().sum().backward()
    gradients = {name: p.grad.clone() for name, p in network.named_parameters()}
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    norms.before()
    torch.optim.SGD(network.parameters(), lr=0.1).step()
    norms.after()
    network.zero_grad()

    flat = {layer: torch.cat([gradients[f"{layer}.weight"].flatten(), gradients[f"{layer}.bias"]]) for layer in "02"}
    expected = {f"gradient_norm/{layer}": gradient.norm().item() for layer, gradient in flat.items()}
    expected["gradient_norm/all"] = torch.cat([*flat.values()]).norm().item()
    for layer in "02":
        change = 0.1 * gradients[f"{layer}.weight"].norm() / before[f"{layer}.weight"].norm()
        expected[f"update_ratio/{layer}"] = change.item()
    assert norms.figures() == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(norms.gradients["0.weight"], gradients["0.weight"])


def test_without_gradients_the_change_alone_is_known_and_weights_of_zero_have_no_ratio() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    nn.init.zeros_(network[0].weight)
    nn.init.ones_(network[1].weight)
    norms = StepNorms(network)
    norms.before()
    with torch.no_grad():
        network[0].weight += 1
        network[1].weight *= 1.5
    norms.after()
    assert norms.figures() == pytest.approx({"update_ratio/1": 0.5})
