from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.optim import SGD, Optimizer

from neurona.config import hints, own
from neurona.config.make import instantiate
from neurona.errors import ConfigError


def node(**keys: object) -> DictConfig:
    return OmegaConf.create({"allow": [], "model": keys}).model


def test_instantiate_hands_over_plain_containers_and_the_very_objects_given() -> None:
    parameters = [nn.Parameter(nn.Linear(1, 1).weight)]
    optimizer = instantiate(node(_target_="torch.optim.SGD", lr=0.5), Optimizer, params=parameters)
    assert isinstance(optimizer, SGD)
    assert optimizer.param_groups[0]["params"][0] is parameters[0]
    assert optimizer.defaults["lr"] == 0.5
    parts = instantiate(node(_target_="torch.nn.Unflatten", dim=1, unflattened_size=[2, 3]), nn.Module)
    assert type(parts.unflattened_size) is list
    linear = {"_target_": "torch.nn.Linear", "in_features": 3, "out_features": 2}
    listed = instantiate(node(_target_="torch.nn.ModuleList", modules=[linear]), nn.Module)
    assert listed[0].weight.shape == (2, 3)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"_target_": "torch.optim.SGD"}, "model._target_=torch.optim.SGD: must be a Module"),
        ({"_target_": "os.system"}, r"model._target_=os.system: is none of"),
        ({"_target_": "torch.hub.load_state_dict_from_url"}, "must be a class, or a function of your own"),
        (
            {"_target_": "torch.nn.Linear", "bias": {"_target_": "subprocess.Popen"}},
            "model.bias._target_=subprocess.Popen",
        ),
        ({"_target_": "neurona.schedule.constant"}, "must make a Module"),
        (
            {"_target_": "torch.nn.Dropout", "p": 1.5},
            "model=torch.nn.Dropout: dropout probability has to be between 0 and 1",
        ),
        ({"_target_": "torch.nn.Linear", "in_features": 1}, "missing 1 required positional argument: 'out_features'"),
        ({"_target_": "torch.nn.Nope"}, "torch.nn has no class Nope"),
        ({"_target_": "torch.nope.X"}, "cannot be imported"),
        (
            {"_target_": "torch.nn.ModuleList", "modules": [{"_target_": "torch.nn.Dropout", "p": 2}]},
            r"model.modules.0=torch.nn.Dropout: .*between 0 and 1",
        ),
        *(
            ({"_target_": "torch.nn.ReLU", name: 1}, f"model.{name}=1: has no meaning here")
            for name in hints.ATTRIBUTES[1:]
        ),
    ],
)
def test_instantiate_refuses(keys: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        instantiate(node(**keys), nn.Module)


HANDLER = "torch.distributed.elastic.multiprocessing.subprocess_handler.subprocess_handler.SubprocessHandler"


@pytest.fixture
def hostile(tmp_path: Path) -> Iterator[dict[str, object]]:
    """A node whose class, of a permitted package, runs a program when it is made."""
    marker = tmp_path / "executed"
    none = dict.fromkeys(("stdout", "stderr", "numa_options"))
    yield {"_target_": HANDLER, "entrypoint": "touch", "args": [str(marker)], "env": {}, "local_rank_id": 0, **none}
    time.sleep(0.05)
    assert not marker.exists()


@pytest.mark.parametrize(
    "place",
    [
        lambda bad: bad,
        lambda bad: {"_target_": "torch.nn.Linear", "bias": bad},
        lambda bad: {"_target_": "torch.nn.ModuleList", "modules": [{"_target_": "torch.nn.ReLU", "inplace": bad}]},
        lambda bad: {"_target_": "torch.nn.ModuleDict", "modules": {"a": {"b": bad}}},
        lambda bad: {"_target_": "torch.nn.Linear", "bias": "${other}"},
        lambda bad: {"_target_": "torch.nn.Linear", "bias": "${oc.decode:'${text}'}"},
    ],
)
def test_a_class_that_runs_a_program_is_not_made(hostile: dict[str, object], place: Any) -> None:
    cfg = OmegaConf.create({"allow": [], "model": place(hostile), "other": hostile, "text": f"{{_target_: {HANDLER}}}"})
    with pytest.raises(ConfigError, match=r"must be (a|one of) .*Module"):
        instantiate(cfg.model, nn.Module)


@pytest.mark.parametrize(
    "target",
    [
        "neurona.cli.python.run",
        "neurona.config.own.import_module",
        "neurona.schedule.check_range",
        "neurona.runs.folder.Path",
        "neurona.runs.checkpoint.make",
        "torch.hub.load_state_dict_from_url",
        "torch.load",
        "torch.os.system",
    ],
)
def test_what_a_permitted_module_has_only_imported_is_not_called(target: str) -> None:
    with pytest.raises(ConfigError, match=r"must be|cannot be imported"):
        instantiate(node(_target_="torch.nn.ModuleList", modules=[{"_target_": target}]), nn.Module)


def test_an_allowed_module_may_define_anything_but_not_lend_others_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_parts.py").write_text("from os import mkdir\nfrom fractions import Fraction\nclass Part: pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for target, is_allowed in (("my_parts.Part", True), ("my_parts.mkdir", False), ("my_parts.Fraction", False)):
        nodes = {"_target_": "torch.nn.ModuleDict", "modules": {"part": {"_target_": target}}}
        # torch refuses the part in words of its own, once it has been made
        message = r"model=torch\.nn\.ModuleDict: .*Part is not a Module" if is_allowed else f"{target}: must be"
        with pytest.raises(ConfigError, match=message):
            instantiate(OmegaConf.create({"allow": ["my_parts"], "model": nodes}).model, nn.Module)


def test_instantiate_lets_errors_of_ones_own_code_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"num_features": 2, "num_classes": 2}
    with pytest.raises(ConfigError, match=r"^model.hidden=\[\]"):
        instantiate(node(_target_="neurona.models.mlp.MLP", hidden=[]), nn.Module, **sizes)
    with pytest.raises(ConfigError, match=r"^model\._target_=neurona.*: missing a required argument: 'num_classes'"):
        instantiate(node(_target_="neurona.models.mlp.MLP"), nn.Module, num_features=2)
    (tmp_path / "my_parts.py").write_text(
        "from torch.nn import Module\nclass Part(Module):\n  def __init__(self): 1 + ''"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_parts", raising=False)
    with pytest.raises(TypeError, match="unsupported operand"):
        instantiate(OmegaConf.create({"allow": ["my_parts"], "model": {"_target_": "my_parts.Part"}}).model, nn.Module)


def test_a_folder_without_init_is_named_with_what_makes_it_a_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "my nets").mkdir()
    (tmp_path / "nets").mkdir()
    for name in ("train.py", "configs/train.yaml", "nets/res.py"):
        (tmp_path / name).touch()
    monkeypatch.setattr(own, "CONFIG_DIR", tmp_path / "configs")
    for place, file in ((tmp_path, "nets/__init__.py"), (tmp_path / "my nets", f"{tmp_path}/nets/__init__.py")):
        monkeypatch.chdir(place)
        with pytest.raises(ConfigError, match=r"without an __init__\.py, nets is no package") as caught:
            instantiate(node(_target_="nets.res.Res"), nn.Module)
        assert str(caught.value).endswith(f"make it one: touch {file}")


class NoSizes(nn.Module):
    def __init__(self, num_features: int = 4, *, width: int = 8) -> None:
        super().__init__()


class AnySizes(nn.Module):
    def __init__(self, **sizes: int) -> None:
        super().__init__()


def test_a_constructor_that_does_not_take_the_sizes_is_told_which() -> None:
    sizes = {"num_features": 2, "num_classes": 2}

    def made(name: str) -> nn.Module:
        cfg = OmegaConf.create({"allow": [__name__], "model": {"_target_": f"{__name__}.{name}"}})
        return instantiate(cfg.model, nn.Module, **sizes)

    problem = "does not take num_classes, .* give it the parameters num_features, num_classes"
    with pytest.raises(ConfigError, match=rf"^model\._target_=.*NoSizes: its constructor {problem}$"):
        made("NoSizes")
    assert type(made("AnySizes")).__name__ == "AnySizes"
