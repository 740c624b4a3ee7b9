"""The objects of a run from its configuration: the same weights whatever the data do, and what does not fit refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from neurona.data.iris import Iris
from neurona.errors import ConfigError
from neurona.stages import assembly


def test_the_first_weights_do_not_depend_on_what_the_data_draw(composed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    one, _ = assembly.untrained(composed({}))
    read = Iris.read

    def draw(self: Iris) -> Any:
        torch.rand(3)
        return read(self)

    monkeypatch.setattr(Iris, "read", draw)
    same, _ = assembly.untrained(composed({}))
    other, _ = assembly.untrained(composed({"seed": 1}))
    weights = [nn.utils.parameters_to_vector(c.network.parameters()) for c in (one, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_sizes_come_from_the_data(composed: Any) -> None:
    classifier, datamodule = assembly.untrained(composed({"model.hidden": [5]}))
    assert datamodule.spec.class_names == ("setosa", "versicolor", "virginica")
    assert [tuple(p.shape) for p in classifier.network.parameters()] == [(5, 4), (5,), (3, 5), (3,)]


def test_weights_that_no_memory_holds_are_refused_before_data_are_read(
    composed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(Iris, "read")
    with pytest.raises(ConfigError, match=r"^model=.*: its weights take .* GiB of"):
        assembly.untrained(composed({"model.hidden": [16777215, 16777215]}))


@pytest.mark.parametrize("size", [1, 97])
def test_batch_normalization_cannot_take_a_mini_batch_of_one(composed: Any, size: int) -> None:
    values = {"model.normalization": "batch", "data.batch_size": size}
    with pytest.raises(ConfigError, match=f"data.batch_size={size}: of 98 rows leaves a mini-batch of one"):
        assembly.untrained(composed(values))
    assembly.untrained(composed({**values, "model.normalization": "layer"}))


def test_data_of_ones_own_need_a_spec(composed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Iris, "spec", None)
    with pytest.raises(ConfigError, match=r"^data=neurona\.data\.iris\.Iris: needs a `spec`"):
        assembly.untrained(composed({}))


class Listed(nn.Module):
    def __init__(self, num_features: int, num_classes: int) -> None:
        super().__init__()
        self.layers = [nn.Linear(num_features, num_classes)]


def test_layers_in_a_plain_list_are_no_parameters(composed: Any) -> None:
    cfg = composed({"allow": [__name__]})
    cfg.model = {"_target_": f"{__name__}.Listed"}
    with pytest.raises(ConfigError, match=r"model\._target_=.*Listed: has no parameters to train; .*ModuleList"):
        assembly.untrained(cfg)


def nothing() -> None:
    """A schedule without return."""


def test_a_schedule_is_checked_before_a_fit(composed: Any) -> None:
    cfg = composed({"allow": [__name__]})
    cfg.optimizer.schedule = {"_target_": f"{__name__}.nothing"}
    with pytest.raises(ConfigError, match=r"optimizer\.schedule\._target_=.*\.nothing: returns None"):
        assembly.untrained(cfg)
