"""What a checkpoint can hold is made plain or named, with whose state it is in."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule
from omegaconf import OmegaConf
from torch import nn

from neurona.errors import ConfigError
from neurona.runs.plain import copied, plain, require_readable


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float64(0.1), 0.1),
        (np.float32(0.5), 0.5),
        (np.longdouble(2), 2.0),
        (np.int16(-3), -3),
        (np.bool_(True), True),
        (np.str_("rose"), "rose"),
        (np.array(["rose", "lily"]), ["rose", "lily"]),
        (Path("a") / "b", "a/b"),
        ({Path("a"): [np.int64(1), (np.float32(2), "x")]}, {"a": [1, (2.0, "x")]}),
    ],
    ids=str,
)
def test_numbers_of_numpys_and_paths_become_plain(value: Any, expected: Any, tmp_path: Path) -> None:
    contents = plain({"mine": value})
    assert contents == {"mine": expected}
    torch.save(contents, tmp_path / "file")
    assert torch.load(tmp_path / "file", weights_only=True) == {"mine": expected}
    assert type(contents["mine"]) is type(expected)


@pytest.mark.parametrize("kind", ["<i2", ">f4", "bool", "float16", "complex64"])
def test_arrays_become_tensors_of_their_own(kind: str) -> None:
    array = np.arange(6).reshape(2, 3).astype(kind)[:, ::-1]
    tensor = plain({"mine": array})["mine"]
    np.testing.assert_array_equal(tensor.numpy(), array)
    array[:] = 0
    assert tensor.any()


def test_what_is_plain_stays_the_object_that_it_is() -> None:
    state = OrderedDict(weight=torch.ones(2))
    contents: dict[str, Any] = {"state_dict": state, "callbacks": {"a": [1, (2, None)], "b": defaultdict(int)}}
    assert all(plain(contents)[name] is value for name, value in contents.items())


@pytest.mark.parametrize("collect", [dict, OmegaConf.create])
def test_of_collected_arguments_values_stay_and_objects_go(collect: Any) -> None:
    values = {"lr": np.float32(0.5), "hidden": [3, 4], "weights": None, "root": "data"}
    objects = {} if collect is not dict else {"network": nn.Linear(2, 2), "inner": {"spec": object()}, "kind": int}
    contents = {
        "hyper_parameters": collect({**values, "lr": 0.5, **objects}),
        "hparams_type": dict,
        "hparams_name": "kwargs",
    }
    assert plain(contents) == {"hyper_parameters": {**values, "lr": 0.5}, "hparams_name": "kwargs"}


class Thing:
    pass


class Adds(Callback):
    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None: ...


@pytest.mark.parametrize(
    ("contents", "words"),
    [
        (
            {"callbacks": {"Mine{'a': 1}": {"best": [0.5, Thing()]}}},
            "trainer.callbacks=Mine: its state has at best.1 a ",
        ),
        ({"callbacks": {"Mine": Thing()}}, "trainer.callbacks=Mine: its state is a "),
        ({"LightningDataModule": {"order": Thing()}}, "data=LightningDataModule: its state has at order a "),
        ({"state_dict": OrderedDict(_extra_state=Thing())}, "classifier=state_dict: it has at _extra_state a "),
        ({"note": {"x": Thing()}}, "checkpoint=note: what on_save_checkpoint of Adds puts there has at x a "),
    ],
    ids=["callback", "callback itself", "data module", "module", "hook"],
)
def test_what_cannot_be_read_is_named(contents: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        require_readable(contents, LightningModule(), LightningDataModule(), [Callback(), Adds()])
    assert str(caught.value).startswith(f"{words}{__name__}.Thing, which a checkpoint cannot hold: keep numbers")


def test_what_can_is_not() -> None:
    contents = {"state_dict": {"weight": torch.ones(2)}, "callbacks": {"Mine": {"best": np.float64(1), "seen": {1, 2}}}}
    require_readable(contents, LightningModule(), None, [])


def test_a_copy_stays_as_it_is_and_keeps_kinds_and_what_is_shared():
    module, steps = nn.Linear(2, 2), torch.zeros(2)
    ordered: Any = OrderedDict(a=torch.ones(2))
    ordered._metadata = {"version": 2}
    sparse = torch.eye(2).to_sparse()
    contents = {"same": [steps, steps], "part": steps[1], "state": ordered, "weight": module.weight}
    contents |= {"sparse": sparse, "set": {1}}
    made = copied(contents)
    steps += 1
    ordered["a"] += 1
    with torch.no_grad():
        module.weight.zero_()
    assert made["same"][0] is made["same"][1]
    assert (made["same"][0].tolist(), made["part"].item(), made["state"]["a"].tolist()) == ([0, 0], 0, [1, 1])
    assert type(made["state"]) is OrderedDict
    assert made["state"]._metadata == {"version": 2}
    assert isinstance(made["weight"], nn.Parameter)
    assert made["weight"].any()
    assert made["sparse"].is_sparse
    assert made["set"] == {1}
