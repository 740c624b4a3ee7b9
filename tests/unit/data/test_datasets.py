"""The embedded data sets, value by value, and the shipped configurations against the constructors."""

from __future__ import annotations

import inspect
from importlib import import_module
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from sklearn import datasets

import neurona.data
from neurona.data.base import InMemoryData
from neurona.data.breast_cancer import BreastCancer
from neurona.data.digits import Digits
from neurona.data.iris import Iris
from neurona.data.wine import Wine

CONFIGS = Path(__file__).parents[3] / "configs" / "data"
OWN = ("digits", "iris", "wine", "breast_cancer", "lesson", "two_moons", "mnist", "fashion_mnist", "table")


@pytest.mark.parametrize(
    ("data_class", "load"),
    [
        (Digits, datasets.load_digits),
        (Iris, datasets.load_iris),
        (Wine, datasets.load_wine),
        (BreastCancer, datasets.load_breast_cancer),
    ],
)
def test_every_value_is_scikit_learns(data_class: type[InMemoryData], load) -> None:
    data, reference = data_class(), load()
    assert data.spec.class_names == tuple(map(str, reference.target_names))
    assert torch.equal(data.features, torch.tensor(reference.data, dtype=torch.float32))
    assert torch.equal(data.targets, torch.tensor(reference.target))
    assert data.spec.num_features == reference.data.shape[1]
    everything = torch.cat((data.train_rows, data.val_rows, data.test_rows))
    assert len(everything) == len(reference.target)


def test_digits_are_images() -> None:
    assert Digits().spec.image_shape == datasets.load_digits().images.shape[1:]


def test_embedded_files_are_small_and_have_their_source_beside_them() -> None:
    files = list((Path(neurona.data.__file__).parent / "embedded").glob("*.*"))
    sources = next(file for file in files if file.name == "SOURCES.md").read_text()
    assert sum(file.stat().st_size for file in files) <= 100_000
    packed = [file.name for file in files if file.suffix == ".bz2"]
    assert len(packed) == 4
    assert all(f"`{name}`" in sources for name in packed)


@pytest.mark.parametrize("name", OWN)
def test_configuration_lists_every_parameter_and_builds(name: str) -> None:
    node = OmegaConf.load(CONFIGS / f"{name}.yaml")
    node = node.get("data", node)  # a table's brings its network too
    cfg = OmegaConf.to_container(OmegaConf.create({"seed": 7, "data": node}), resolve=True)["data"]
    module, class_name = cfg.pop("_target_").rsplit(".", 1)
    data_class = getattr(import_module(module), class_name)
    assert sorted(cfg) == sorted(inspect.signature(data_class).parameters)
    assert data_class(**cfg).shuffle_seed == 7
    lines = (CONFIGS / f"{name}.yaml").read_text().splitlines()
    assert all(any(key + ":" in line and "#" in line for line in lines) for key in cfg)
