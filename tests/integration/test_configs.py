"""Every shipped yaml composes, passes the checks and runs."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import open_dict

import neurona
from neurona.config.check import check, check_imported
from neurona.errors import ConfigError
from neurona.inspection.loggers import tag

CONFIGS = Path(__file__).parents[2] / "configs"
CHOICES = sorted(
    f"{file.parent.relative_to(CONFIGS)}={file.stem}" for file in CONFIGS.rglob("*.yaml") if file.parent != CONFIGS
)
NOT_HERE = {"trainer=gpu", "trainer=ddp", "logger=wandb", "logger=mlflow", "data=arrays", "data=images"}
"""Need a device, a package, or arrays from Python."""
NOT_HERE |= {choice for choice in CHOICES if choice.startswith("hydra/")}  # a sweep
TABLES = {"data=table", "experiment=adult"}  # need a file
SHORT = ["quiet=true", "trainer.max_epochs=1", "trainer.limit_train_batches=3"]


def names(group: str) -> list[str]:
    return [file.stem for file in (CONFIGS / group).glob("*.yaml")]


def checked(*overrides: str) -> Any:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        cfg = compose("train", list(overrides), return_hydra_config=True)
        with open_dict(cfg):
            hydra = cfg.pop("hydra")
        check_imported(check(cfg, hydra.runtime.choices))
    return cfg


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of IDX files with twelve pictures of each class to train on and two to test on."""
    generator = np.random.default_rng(0)
    for part, per_class in (("train", 12), ("t10k", 2)):
        labels = np.repeat(np.arange(10, dtype=np.uint8), per_class)
        pictures = generator.integers(0, 256, (len(labels), 28, 28), dtype=np.uint8)
        for name, values in ((f"{part}-images-idx3-ubyte", pictures), (f"{part}-labels-idx1-ubyte", labels)):
            header = struct.pack(f">{1 + values.ndim}I", 0x800 + values.ndim, *values.shape)
            (tmp_path / name).write_bytes(header + values.tobytes())
    return tmp_path


@pytest.mark.parametrize("choice", sorted(NOT_HERE))
def test_a_yaml_that_cannot_run_here_is_valid(choice: str) -> None:
    checked(choice)


@pytest.mark.parametrize("choice", [choice for choice in CHOICES if choice not in NOT_HERE])
def test_every_yaml_runs(choice: str, images: Path) -> None:
    group = choice.partition("=")[0]
    overrides = [choice, *SHORT]
    if group not in ("data", "experiment"):
        overrides.append("data=iris")
    if choice == "trainer=ddp_cpu":
        overrides.append("trainer.devices=1")  # more are processes of their own
    if choice in TABLES:
        (images / "table.csv").write_text("x,y\n" + "".join(f"{i * i % 17},{'ab'[i % 2]}\n" for i in range(40)))
        overrides += [f"data.path={images}/table.csv", "data.target=y"]
    elif group in ("data", "experiment") and "root" in checked(*overrides).data:
        overrides.append(f"data.root={images}")
    figures = neurona.run(overrides)
    assert figures["status"] == "finished"
    assert 0 <= figures["test/accuracy"] <= 1
    assert not torch.distributed.is_initialized()


PAIRS = [(optimizer, schedule) for optimizer in names("optimizer") for schedule in names("optimizer/schedule")]
SHORT_PAIRS = [pair for pair in PAIRS if "adam" in pair or "one_cycle" in pair]


@pytest.mark.parametrize(
    ("optimizer", "schedule"),
    [pytest.param(*pair, marks=[] if pair in SHORT_PAIRS else pytest.mark.long) for pair in PAIRS],
)
def test_every_optimizer_runs_with_every_schedule(optimizer: str, schedule: str) -> None:
    momentum = ["optimizer.momentum=0.9"] if optimizer == "sgd" else []
    overrides = ["data=iris", f"optimizer={optimizer}", f"optimizer/schedule={schedule}", "quiet=true", *momentum]
    figures = neurona.run([*overrides, "trainer.max_epochs=3", "optimizer.clip_norm=1", "optimizer.accumulate=2"])
    assert (figures["status"], figures["epochs"], figures["steps"]) == ("finished", 3, 3 * 4)  # 7 batches, 2 a step


def test_a_network_learns_with_every_optimizer() -> None:
    for optimizer in names("optimizer"):
        rate = "0.1" if optimizer == "sgd" else "0.01"
        run = [f"optimizer={optimizer}", f"optimizer.lr={rate}", "trainer.max_epochs=15", "quiet=true", "data=iris"]
        assert neurona.run(run)["test/accuracy"] > 0.85, optimizer


def test_the_name_that_older_configurations_have_for_an_optimizer_gives_the_same_bits(fit: Any) -> None:
    run = fit("optimizer=rmsprop", "trainer.max_epochs=2")
    older = fit("optimizer=rmsprop", "trainer.max_epochs=2", "optimizer._target_=neurona.optimizer.rmsprop")
    assert older.weights() == run.weights()


@pytest.mark.parametrize("package", ["wandb", "mlflow"])
def test_a_logger_without_its_package_names_it(package: str, tmp_path: Path) -> None:
    overrides = ["data=iris", f"logger={package}", *SHORT]
    with pytest.raises(ConfigError, match=rf"^logger.*{package}") as raised:
        neurona.run(overrides)
    assert "install" in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_a_device_that_is_not_there_is_refused(tmp_path: Path) -> None:
    overrides = ["data=iris", "trainer=gpu", *SHORT]
    if torch.cuda.is_available():
        assert neurona.run(overrides)["status"] == "finished"
    else:
        with pytest.raises(ConfigError, match=r"^trainer"):
            neurona.run(overrides)
        assert list(tmp_path.iterdir()) == []


def test_the_csv_logger_keeps_the_same_figures(fit: Any, scalars: Any) -> None:
    run = fit("logger=[tensorboard,csv]")
    header, *lines = (run.folder / "metrics.csv").read_text().splitlines()
    assert header == "step,metric,value"
    steps: dict[str, list[int]] = {}
    for step, metric, value in (line.split(",") for line in lines):
        steps.setdefault(metric, []).append(int(step))
        if metric == "test/accuracy":
            assert float(value) == run.metrics[metric]
    logged = {name: seen for name, seen in scalars(run.folder).items() if "best" not in name.partition("/")[0]}
    assert {tag(name): seen for name, seen in steps.items()} == logged


def test_without_a_logger_the_figures_remain(fit: Any) -> None:
    run = fit("logger=none")
    assert list(run.folder.glob("events.*")) == []
    assert "test/accuracy" in run.metrics
