"""A checkpoint is plain data, gives the classifier back to the bit, and is written whole or not at all."""

from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from torch import nn

from neurona.classifier import Classifier
from neurona.data import preprocessing
from neurona.data.spec import DataSpec
from neurona.errors import ConfigError, HopelessRun, RunError
from neurona.models.mlp import MLP
from neurona.runs import checkpoint
from neurona.runs.checkpoint import AtomicCheckpointIO

NETWORK = {"_target_": "neurona.models.mlp.MLP", "hidden": [8, 8], "normalization": "batch", "activation": "tanh"}
STORED_NETS = """
from neurona.models.mlp import MLP

class Part:
    pass

class Net(MLP):
    def __init__(self, *args, part: Part, **kwargs):
        super().__init__(*args, **kwargs)
"""
FEATURES = 4 * torch.randn(60, 6, generator=torch.Generator().manual_seed(0)) + 2
TARGETS = torch.arange(60) % 3


@pytest.fixture
def written(rows, make_trainer, make_classifier, tmp_path) -> tuple[Path, Classifier]:
    """A checkpoint of a classifier that has trained an epoch, and that classifier."""
    classifier = make_classifier(MLP(6, 3, hidden=[8, 8], normalization="batch", activation="tanh"), 6, 3)
    classifier.preprocessing = preprocessing.fit(FEATURES, torch.arange(60), "standard")
    classifier.model_config = NETWORK
    trainer = make_trainer(plugins=[AtomicCheckpointIO(tmp_path)])
    trainer.fit(classifier, rows(FEATURES, TARGETS, 20))
    trainer.save_checkpoint(tmp_path / "deep" / "last.ckpt")
    return tmp_path / "deep" / "last.ckpt", classifier.eval()


def assert_plain(value: object, where: str = "checkpoint") -> None:
    if isinstance(value, dict):
        for key, child in value.items():
            assert isinstance(key, str | int), f"{where}: key {key!r}"
            assert_plain(child, f"{where}[{key!r}]")
    elif isinstance(value, list | tuple):
        for index, child in enumerate(value):
            assert_plain(child, f"{where}[{index}]")
    else:
        assert value is None or type(value) in (bool, int, float, str, torch.Tensor), f"{where} is a {type(value)}"


def test_a_checkpoint_loads_as_plain_containers_and_tensors(written):
    contents = torch.load(written[0], weights_only=True)
    assert_plain({name: value for name, value in contents.items() if name != "state_dict"})
    assert all(type(tensor) is torch.Tensor for tensor in contents["state_dict"].values())
    assert contents["global_step"] == 3


def test_the_classifier_rebuilt_gives_the_same_bits(written):
    path, classifier = written
    contents = checkpoint.read(path)
    rebuilt = checkpoint.rebuild(contents).eval()
    torch.testing.assert_close(rebuilt(FEATURES), classifier(FEATURES), rtol=0, atol=0)
    assert not torch.equal(rebuilt(FEATURES), MLP(6, 3, **_arguments()).eval()(FEATURES))
    assert rebuilt.spec == DataSpec(6, 3, ("class 0", "class 1", "class 2"))
    assert type(rebuilt.preprocessing) is preprocessing.Standardize


def _arguments() -> dict:
    return {name: value for name, value in NETWORK.items() if name != "_target_"}


def test_a_classifier_of_ones_own_is_rebuilt_with_all_its_parameters(written):
    contents = checkpoint.read(written[0])
    own = {"temperature": torch.tensor(0.5), "centres": torch.ones(4, 2)}
    contents["neurona"]["classifier_config"] = {"_target_": f"{__name__}.Tempered", "centres": 4}
    with pytest.raises(ConfigError, match=rf"classifier\._target_={__name__}\.Tempered.*add allow="):
        checkpoint.rebuild(contents)
    with pytest.raises(ConfigError, match=r"Missing key.*temperature"):
        checkpoint.rebuild(contents, [__name__])
    contents["state_dict"] |= own
    rebuilt = checkpoint.rebuild(contents, [__name__])
    for name, tensor in own.items():
        assert torch.equal(getattr(rebuilt, name), tensor)
    with pytest.raises(ConfigError, match=r"Unexpected key.*temperature"):
        checkpoint.rebuild(contents, node=checkpoint.SHIPPED)


# What cannot be read.


class _Trap:
    """Runs a command when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def _truncated(path: Path, written: Path) -> None:
    path.write_bytes(written.read_bytes()[:-500])


def _flipped(path: Path, written: Path) -> None:
    contents = bytearray(written.read_bytes())
    contents[len(contents) // 2 :] = bytes(len(contents) - len(contents) // 2)
    path.write_bytes(contents)


DAMAGES = {
    "missing": lambda path, written: None,
    "a folder": lambda path, written: path.mkdir(),
    "empty": lambda path, written: path.touch(),
    "truncated": _truncated,
    "overwritten with zeros from the middle": _flipped,
    "text": lambda path, written: path.write_text("epoch: 3\n"),
    "another project's": lambda path, written: torch.save({"state_dict": {}, "epoch": 3}, path),
    "a tensor": lambda path, written: torch.save(torch.zeros(3), path),
    "a list": lambda path, written: torch.save([1, 2], path),
    "a whole module": lambda path, written: torch.save(nn.Linear(2, 2), path),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_what_is_no_checkpoint_is_refused(written, damage, tmp_path):
    path = tmp_path / "other.ckpt"
    damage(path, written[0])
    with pytest.raises(ConfigError, match=r"does not exist|damaged or not one of neurona's") as caught:
        checkpoint.read(path)
    assert caught.value.value == path


@pytest.mark.parametrize("save", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_nothing_in_a_checkpoint_is_executed(save, tmp_path):
    save({"neurona": {"model": {}}, "state_dict": _Trap(tmp_path / "executed")}, tmp_path / "trap.ckpt")
    with pytest.raises(ConfigError, match="cannot be read as plain data and tensors") as caught:
        checkpoint.read(tmp_path / "trap.ckpt")
    assert "weights_only" not in str(caught.value)
    assert not (tmp_path / "executed").exists()


def _without(*path):
    def damage(contents):
        for key in path[:-1]:
            contents = contents[key]
        del contents[path[-1]]

    return damage


def _set(value, *path):
    def damage(contents):
        for key in path[:-1]:
            contents = contents[key]
        contents[path[-1]] = value

    return damage


INCOMPLETE = {
    "no rng": _without("neurona", "rng"),
    "no preprocessing": _without("neurona", "preprocessing"),
    "no step": _without("global_step"),
    "no optimiser": _without("optimizer_states"),
    "no loops": _without("loops"),
    "loops of nothing": _set({}, "loops"),
    "a number for rng": _set(5, "neurona", "rng"),
    "no callbacks": _without("callbacks"),
    "an empty spec": _set({}, "neurona", "spec"),
    "a list for a model": _set([1], "neurona", "model"),
    "a schema of nothing": _set({"columns": [1]}, "neurona", "spec", "schema"),
}
MISFITS = {
    "a missing weight": _without("state_dict", "network.head.weight"),
    "another shape": _set(torch.zeros(2, 2), "state_dict", "network.head.weight"),
    "no tensor": _set("text", "state_dict", "network.head.weight"),
    "another preprocessing": _set("torch.nn.Identity", "neurona", "preprocessing"),
    "no class": _without("neurona", "model", "_target_"),
    "an unknown argument": _set(1, "neurona", "model", "hiden"),
    "an argument of another type": _set([None], "neurona", "model", "hidden"),
    "a size of another type": _set("six", "neurona", "spec", "num_features"),
}


@pytest.mark.parametrize("damage", INCOMPLETE.values(), ids=INCOMPLETE.keys())
def test_an_incomplete_checkpoint_is_refused(written, damage):
    contents = torch.load(written[0], weights_only=True)
    damage(contents)
    torch.save(contents, written[0])
    with pytest.raises(ConfigError, match="damaged or not one of neurona's"):
        checkpoint.read(written[0])


@pytest.mark.parametrize("damage", MISFITS.values(), ids=MISFITS.keys())
def test_weights_that_do_not_fit_their_description_are_refused(written, damage):
    contents = checkpoint.read(written[0])
    damage(contents)
    with pytest.raises(ConfigError, match="do not fit together"):
        checkpoint.rebuild(contents)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("hidden", {"_target_": "torch.nn.GELU"}, r"model\.hidden\._target_=.*add allow=\[torch\.nn\.GELU\]"),
        ("hidden", [{"_target_": "neurona.cli.python.run"}], r"model\.hidden\.0\._target_="),
        ("hidden", ({"_target_": "neurona.cli.python.run"},), r"model\.hidden\.0\._target_="),
        ("_target_", "os.system", r"is none of neurona"),
        ("_target_", "neurona.cli.python.run", r"must be a class"),
        ("_target_", "torch.optim.SGD", r"must be a Module"),
        ("_args_", [1], r"has no meaning here"),
        ("_partial_", True, r"has no meaning here"),
        ("activation", "${oc.env:HOME}", r"\$\{oc\.env:HOME\}"),
        ("embedding", {"_target_": "os.system"}, r"embedding\._target_=os\.system: is none of neurona"),
        ("embedding", {"dimension": {"_target_": "torch.nn.GELU"}}, r"embedding\.dimension\._target_=.*add allow="),
        ("preprocessing_settings", {"x": {"_target_": "torch.nn.GELU"}}, r"preprocessing\.x\._target_=.*add allow="),
    ],
)
def test_a_checkpoint_names_its_network_and_nothing_else(written, key, value, message):
    contents = checkpoint.read(written[0])
    (contents["neurona"] if key in contents["neurona"] else contents["neurona"]["model"])[key] = value
    with pytest.raises(ConfigError, match=message):
        checkpoint.rebuild(contents)


def test_a_checkpoint_may_name_what_lies_beside_train_py(written, tmp_path, monkeypatch):
    (tmp_path / "configs").mkdir()
    for name, text in {"train.py": "", "configs/train.yaml": "", "stored_nets.py": STORED_NETS}.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr("neurona.config.own.CONFIG_DIR", tmp_path / "configs")
    contents = checkpoint.read(written[0])
    contents["neurona"]["model"] |= {"_target_": "stored_nets.Net", "part": {"_target_": "stored_nets.Part"}}
    assert type(checkpoint.rebuild(contents).network).__module__ == "stored_nets"
    contents["neurona"]["model"]["part"] = {"_target_": "stored_nets.MLP"}
    with pytest.raises(ConfigError, match=r"add allow=\[stored_nets\.MLP\]"):
        checkpoint.rebuild(contents)


# Another run's weights.


def test_transfer_copies_all_but_the_head_where_the_classes_differ(written, make_classifier):
    contents = checkpoint.read(written[0])
    network = MLP(6, 5, **_arguments())
    head = {name: tensor.clone() for name, tensor in network.head.state_dict().items()}
    assert checkpoint.transfer(contents, make_classifier(network, 6, 5)) == ["head.bias", "head.weight"]
    for name, tensor in network.state_dict().items():
        expected = contents["state_dict"][f"network.{name}"] if not name.startswith("head.") else head[name[5:]]
        torch.testing.assert_close(tensor, expected, rtol=0, atol=0)


def test_transfer_between_equal_networks_leaves_nothing_and_keeps_the_scaling_of_the_new_data(written, make_classifier):
    path, classifier = written
    other = make_classifier(MLP(6, 3, **_arguments()), 6, 3).eval()
    other.preprocessing = preprocessing.fit(2 * FEATURES, torch.arange(60), "standard")
    scale = other.preprocessing.scale.clone()
    assert checkpoint.transfer(checkpoint.read(path), other) == []
    prepared = classifier.preprocessing(FEATURES)
    torch.testing.assert_close(other.network(prepared), classifier.network(prepared), rtol=0, atol=0)
    torch.testing.assert_close(other.preprocessing.scale, scale, rtol=0, atol=0)


def test_transfer_between_networks_that_share_nothing_is_refused(written, make_classifier):
    network = nn.Sequential(nn.Linear(6, 3))
    before = network[0].weight.clone()
    with pytest.raises(ConfigError, match="init_from"):
        checkpoint.transfer(checkpoint.read(written[0]), make_classifier(network, 6, 3))
    torch.testing.assert_close(network[0].weight, before, rtol=0, atol=0)


class Tempered(Classifier):
    """Has parameters of its own."""

    def __init__(self, *args, centres: int = 3, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.temperature = nn.Parameter(torch.tensor(2.0))
        self.centres = nn.Parameter(torch.zeros(centres, 2))


def test_transfer_takes_a_classifiers_own_parameters_where_they_fit(written, make_classifier):
    contents = checkpoint.read(written[0])
    contents["state_dict"] |= {"temperature": torch.tensor(0.5), "centres": torch.ones(5, 2)}
    classifier = make_classifier(MLP(6, 3, **_arguments()), 6, 3, kind=Tempered)
    assert checkpoint.transfer(contents, classifier) == ["centres"]
    assert classifier.temperature.item() == 0.5
    assert not classifier.centres.any()


# Writing.


def test_a_failure_while_writing_leaves_the_checkpoint_that_was_there(tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO(tmp_path).save_checkpoint({"epoch": 1}, path)

    def fails_midway(contents, file) -> None:
        file.write(b"half of a checkpoint")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", fails_midway)
    with pytest.raises(RunError, match="No space left"):
        AtomicCheckpointIO(tmp_path).save_checkpoint({"epoch": 2}, path)
    assert torch.load(path, weights_only=True) == {"epoch": 1}
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_one_that_cannot_be_read_back_does_not_take_the_place_of_the_one_before(tmp_path):
    path, writer = tmp_path / "last.ckpt", AtomicCheckpointIO(tmp_path)
    writer.save_checkpoint({"epoch": 1}, path)
    problem = r"could not be read back.*: at callbacks\.Mine\.seen is a builtins\.object, which"
    with pytest.raises(ConfigError, match=problem):
        writer.save_checkpoint({"callbacks": {"Mine": {"seen": object()}}}, path)
    assert torch.load(path, weights_only=True) == {"epoch": 1}
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_checkpoint_replaces_the_one_before_and_leaves_nothing_else(tmp_path):
    for epoch in (1, 2):
        AtomicCheckpointIO(tmp_path).save_checkpoint({"epoch": epoch}, tmp_path / "last.ckpt")
    assert torch.load(tmp_path / "last.ckpt", weights_only=True) == {"epoch": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


def test_only_what_is_in_its_places_is_removed(tmp_path):
    names = ("run/a.ckpt", "other/b.ckpt", "third/c.ckpt", "run2/d.ckpt")
    files = [tmp_path / name for name in names]
    for file in files:
        file.parent.mkdir()
        file.touch()
    writer = AtomicCheckpointIO(tmp_path / "run", lambda: [tmp_path / "other"])
    (tmp_path / "run" / "out").symlink_to(tmp_path / "third")
    named = [*files[2:], f"local://{files[2]}", tmp_path / "run", tmp_path / "run/../third/c.ckpt"]
    for path in [*named, tmp_path / "run/out/c.ckpt"]:
        with pytest.raises(HopelessRun, match="is not in the run's folder"):
            writer.remove_checkpoint(path)
    for path in (*files[:2], tmp_path / "run/missing.ckpt"):
        writer.remove_checkpoint(path)
    assert [file.exists() for file in files] == [False, False, True, True]


def test_a_run_folder_that_is_gone_does_not_come_back(tmp_path):
    writer = AtomicCheckpointIO(tmp_path / "run")
    with pytest.raises(RunError, match="cannot be written"):
        writer.save_checkpoint({"a": 1}, tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert not list(tmp_path.iterdir())


HELD = {AtomicCheckpointIO.HOLD: True}


def test_what_is_held_is_written_before_the_next_as_it_was_when_it_was_saved(tmp_path):
    writer, tensor = AtomicCheckpointIO(tmp_path), torch.zeros(2)
    writer.save_checkpoint({"a": tensor, "b": {"c": 1}}, tmp_path / "best", HELD)
    tensor += 1
    assert list(tmp_path.iterdir()) == []
    writer.save_checkpoint({"a": tensor}, tmp_path / "last")
    assert torch.load(tmp_path / "best")["a"].tolist() == [0, 0]
    assert torch.load(tmp_path / "last")["a"].tolist() == [1, 1]
    assert not writer.write_held()


def test_what_is_held_is_given_up_for_the_next_of_its_path_once_that_is_written(tmp_path, monkeypatch):
    writer = AtomicCheckpointIO(tmp_path)
    writer.save_checkpoint({"a": 1}, tmp_path / "best", HELD)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", Mock(side_effect=OSError(errno.ENOSPC, "No space left on device")))
        with pytest.raises(RunError):
            writer.save_checkpoint({"a": 2}, tmp_path / "best")
    assert writer.write_held()
    assert torch.load(tmp_path / "best") == {"a": 1}
    writer.save_checkpoint({"a": 3}, tmp_path / "best", HELD)
    writer.save_checkpoint({"a": 4}, tmp_path / "best")
    assert not writer.write_held()
    assert torch.load(tmp_path / "best") == {"a": 4}
