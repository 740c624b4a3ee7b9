"""The size of a table's network goes by its training rows and classes, wherever it is not given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from torch import nn

from neurona.data.spec import DataSpec
from neurona.errors import ConfigError
from neurona.models.mlp import MLP
from neurona.models.tabm import TabM
from neurona.models.tabular import network
from neurona.runs.checkpoint import make_network


def sizes(made: Any) -> tuple[type, list[int], int, float]:
    layers: Any = made.layers if isinstance(made, TabM) else made
    widths = [layer.weight.shape[0] for name, layer in layers.named_children() if name.startswith("linear")]
    return type(made), widths, len(layers.head.weight) if isinstance(made, TabM) else 1, layers.dropout1.p


SHIPPED = yaml.safe_load(Path(__file__).parents[3].joinpath("configs/model/tabular.yaml").read_text(encoding="utf-8"))[
    "sizes"
]


@pytest.mark.parametrize(
    ("rows", "classes", "given", "expected"),
    [
        (1499, 2, {}, (TabM, [128, 128], 8, 0.1)),
        (1499, 3, {}, (TabM, [128, 128], 8, 0.1)),
        (1500, 2, {}, (TabM, [128, 128], 4, 0.1)),
        (49_999, 2, {}, (TabM, [128, 128], 4, 0.1)),
        (1500, 3, {}, (TabM, [256, 256], 2, 0.2)),
        (50_000, 2, {}, (MLP, [256, 256], 1, 0.2)),
        (None, 2, {}, (MLP, [256, 256], 1, 0.2)),
        (1500, 3, {"members": 3, "dropout": 0.5}, (TabM, [256, 256], 3, 0.5)),
        (10, 2, {"hidden": 7}, (TabM, [7], 8, 0.1)),
        (10, 2, {"members": 1}, (MLP, [128, 128], 1, 0.1)),
    ],
)
def test_size_goes_by_rows_and_classes_unless_given(
    rows: int | None, classes: int, given: dict[str, Any], expected: Any
) -> None:
    assert sizes(network(5, classes, rows, sizes=SHIPPED, **given)) == expected


@pytest.mark.parametrize(("rows", "expected"), [(1499, (TabM, [64, 64], 8, 0.1)), (1500, (MLP, [256, 256], 1, 0.2))])
def test_a_run_that_began_before_there_were_sizes_has_its_network(rows: int, expected: Any) -> None:
    assert sizes(network(5, 3, rows)) == expected
    assert sizes(network(5, 3, rows, ensemble_classes=2)) == expected


def test_a_run_that_began_when_its_settings_had_classes_has_its_network() -> None:
    assert sizes(network(5, 2, 1500, ensemble_classes=2)) == (TabM, [128, 128], 4, 0.1)


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        [{"members": 1, "hidden": [3]}],
        [{"members": 1, "hidden": [3], "dropout": 0, "row": 10}],
        [{"members": 1, "hidden": [3], "dropout": 0, "rows": 10}],
        [{"members": 1, "hidden": [3], "dropout": 0, "classes": 2}],
        [3],
        [{"members": "x", "hidden": [3], "dropout": 0}],
        [{"members": 1, "hidden": None, "dropout": 0}],
        [{"members": 1, "hidden": "3", "dropout": 0}],
        [{"members": 1, "hidden": [3], "dropout": None}],
        [{"members": 1, "hidden": [3], "dropout": 0, "rows": "x"}, {"members": 1, "hidden": [3], "dropout": 0}],
    ],
)
def test_sizes_that_are_none_or_not_for_every_table_are_refused(wrong: Any) -> None:
    with pytest.raises(ConfigError) as error:
        network(5, 2, 5, sizes=wrong)
    assert error.value.key == "model.sizes"


@pytest.mark.parametrize(("rows", "kind"), [(1499, TabM), (1500, MLP)])
def test_a_network_is_made_for_the_rows_of_its_data(rows: int, kind: type) -> None:
    """Of which the checkpoint remembers the number, so that it is the same one again."""
    node = {"_target_": "neurona.models.tabular.network", "hidden": None}
    made = make_network(node, None, nn.Identity(), DataSpec(5, 3, ("a", "b", "c"), num_rows=rows))
    assert isinstance(made, kind)


def test_a_number_of_rows_in_a_models_own_settings_stays() -> None:
    node = {"_target_": "neurona.models.tabular.network", "num_rows": 1499}
    made = make_network(node, None, nn.Identity(), DataSpec(5, 3, ("a", "b", "c"), num_rows=1500))
    assert isinstance(made, TabM)
