"""The graph has the layers of the network and the ways between them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from neurona.inspection.graph import graph
from neurona.models.mlp import MLP


def test_layers_their_order_and_sizes() -> None:
    definition = graph(MLP(4, 3, hidden=[8]).eval(), torch.zeros(2, 4))
    assert [(node.name, list(node.input)) for node in definition.node] == [
        ("features", []),
        ("linear1", ["features"]),
        ("activation1", ["linear1"]),
        ("head", ["activation1"]),
    ]
    sizes = [dim.size for dim in definition.node[1].attr["_output_shapes"].list.shape[0].dim]
    assert sizes == [-1, 8]
    assert definition.node[1].op == "Linear"


def test_a_sum_that_a_module_makes_itself_joins_both_ways() -> None:
    definition = graph(MLP(4, 3, hidden=[8, 8], residual=True).eval(), torch.zeros(2, 4))
    ways = {node.name: set(node.input) for node in definition.node}
    assert ways["residual2/result"] == {"residual2/activation2", "activation1"}
    assert ways["head"] == {"residual2/result"}


def test_hooks_are_taken_off_even_if_the_network_fails() -> None:
    class Failing(nn.Module):
        def forward(self, features: Tensor) -> Tensor:
            raise ValueError("cannot")

    network = nn.Sequential(nn.Linear(4, 4), Failing())
    try:
        graph(network, torch.zeros(2, 4))
    except ValueError:
        assert not any(module._forward_hooks for module in network.modules())
    else:
        raise AssertionError("the network's error was lost")
