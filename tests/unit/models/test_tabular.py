"""The size of a table's network goes by its training rows and classes, wherever it is not given."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from neurona.data.spec import DataSpec
from neurona.models.mlp import MLP
from neurona.models.tabm import TabM
from neurona.models.tabular import FEW_ROWS, MANY_ROWS, network
from neurona.runs.checkpoint import make_network


def sizes(made: Any) -> tuple[type, list[int], int, float]:
    layers: Any = made.layers if isinstance(made, TabM) else made
    widths = [layer.weight.shape[0] for name, layer in layers.named_children() if name.startswith("linear")]
    return type(made), widths, len(layers.head.weight) if isinstance(made, TabM) else 1, layers.dropout1.p


@pytest.mark.parametrize(
    ("rows", "classes", "given", "expected"),
    [
        (FEW_ROWS - 1, 3, {}, (TabM, [64, 64], 8, 0.1)),
        (FEW_ROWS - 1, 2, {}, (TabM, [64, 64], 8, 0.1)),
        (FEW_ROWS, 2, {}, (TabM, [128, 128], 4, 0.1)),
        (MANY_ROWS - 1, 2, {}, (TabM, [128, 128], 4, 0.1)),
        (MANY_ROWS, 2, {}, (MLP, [256, 256], 1, 0.2)),
        (FEW_ROWS, 3, {}, (MLP, [256, 256], 1, 0.2)),
        (None, 2, {}, (MLP, [256, 256], 1, 0.2)),
        (FEW_ROWS, 3, {"members": 3, "dropout": 0.5}, (TabM, [256, 256], 3, 0.5)),
        (10, 3, {"hidden": 7}, (TabM, [7], 8, 0.1)),
        (10, 3, {"members": 1}, (MLP, [64, 64], 1, 0.1)),
    ],
)
def test_size_goes_by_rows_and_classes_unless_given(
    rows: int | None, classes: int, given: dict[str, Any], expected: Any
) -> None:
    assert sizes(network(5, classes, rows, ensemble_classes=2, **given)) == expected


def test_a_run_that_began_before_classes_counted_has_its_network() -> None:
    assert sizes(network(5, 2, FEW_ROWS)) == (MLP, [256, 256], 1, 0.2)


@pytest.mark.parametrize(("rows", "kind"), [(FEW_ROWS - 1, TabM), (FEW_ROWS, MLP)])
def test_a_network_is_made_for_the_rows_of_its_data(rows: int, kind: type) -> None:
    """Of which the checkpoint remembers the number, so that it is the same one again."""
    node = {"_target_": "neurona.models.tabular.network", "hidden": None}
    made = make_network(node, None, nn.Identity(), DataSpec(5, 3, ("a", "b", "c"), num_rows=rows))
    assert isinstance(made, kind)


def test_a_number_of_rows_in_a_models_own_settings_stays() -> None:
    node = {"_target_": "neurona.models.tabular.network", "num_rows": FEW_ROWS - 1}
    made = make_network(node, None, nn.Identity(), DataSpec(5, 3, ("a", "b", "c"), num_rows=FEW_ROWS))
    assert isinstance(made, TabM)
