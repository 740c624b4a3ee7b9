"""Dead and saturated units, counted by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from neurona.inspection.units import Units
from neurona.models.activations import ACTIVATIONS


def test_a_rectifier_unit_is_dead_if_it_is_zero_for_every_row_of_every_mini_batch() -> None:
    network = nn.Sequential(nn.Identity(), nn.ReLU())
    units = Units(network, keeps_outputs=True)
    units.start()
    network(torch.tensor([[-1.0, 1.0, -1.0, 0.0], [-2.0, -1.0, -1.0, 0.0]]))
    network(torch.tensor([[-1.0, -1.0, 3.0, 0.0]]))
    units.stop()
    network(torch.ones(1, 4))  # no longer looked at
    assert units.figures() == {"dead_units/1": 0.5}
    assert units.outputs["1"].tolist() == [[0, 1, 0, 0], [0, 0, 0, 0]]
    units.start()
    network(torch.ones(1, 4))
    units.stop()
    assert units.figures() == {"dead_units/1": 0.0}


@pytest.mark.parametrize(("name", "limit"), [("sigmoid", 4.3567), ("tanh", 2.1783), ("softsign", 3.4721)])
def test_a_unit_is_saturated_where_its_slope_is_below_a_twentieth_of_the_steepest(name: str, limit: float) -> None:
    """limit: where the derivative is a twentieth of that at 0, by solving for it."""
    inputs = torch.tensor([[0.0, limit - 0.01], [limit + 0.01, -limit - 0.01]], requires_grad=True)
    function = ACTIVATIONS[name].make()
    (slopes,) = torch.autograd.grad(function(inputs).sum(), inputs)
    steepest = slopes[0, 0]
    assert ((slopes / steepest) < 0.05).tolist() == [[False, False], [True, True]]
    units = Units(nn.Sequential(function))
    units.start()
    function(inputs)
    units.stop()
    assert units.figures() == {"saturated_units/0": 0.5}


def test_the_gate_of_a_gated_unit_is_looked_at_and_other_activations_are_not() -> None:
    network = nn.Sequential(ACTIVATIONS["reglu"].make(), nn.GELU())
    units = Units(network)
    units.start()
    network(torch.tensor([[1.0, 1.0, -1.0, 2.0]]))
    units.stop()
    assert units.figures() == {"dead_units/0.function": 0.5}
