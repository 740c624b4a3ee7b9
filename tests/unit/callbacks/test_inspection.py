"""Each switch tells TensorBoard its own, and nothing else."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from neurona.callbacks.inspection import Inspection
from neurona.classifier import Classifier
from neurona.data.digits import Digits
from neurona.errors import ConfigError
from neurona.inspection.loggers import TensorBoard
from neurona.models.mlp import MLP
from neurona.optimizer import Optimization

SWITCHES = (
    *("norms", "units", "speed", "histograms"),
    *("curves", "confusion", "examples", "weights", "embeddings", "graph"),
)


def inspection(*switches: str, **arguments: Any) -> Inspection:
    usual: dict[str, Any] = {"every_n_epochs": None, "max_rows": 50}
    return Inspection(**{name: name in switches for name in SWITCHES}, **usual | arguments)


def events(folder: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return accumulator


@pytest.fixture
def data() -> Digits:
    digits = Digits()
    digits.setup()
    return digits


@pytest.fixture
def classifier(data: Digits) -> Classifier:
    optimization = Optimization.of(torch.optim.SGD, lr=0.1)
    return Classifier(data.preprocessing, MLP(64, 10, hidden=[4]), data.spec, optimization)


@pytest.fixture
def tested(classifier: Classifier, tmp_path: Path) -> Any:
    """What lies in the logger's folder once a network has been tested: tags by kind, and whether there is a graph."""

    def end(callback: Inspection, datamodule: Any) -> dict[str, Any]:
        logger = TensorBoard(save_dir=str(tmp_path))
        trainer = SimpleNamespace(
            is_global_zero=True,
            loggers=[logger],
            datamodule=datamodule,
            global_step=7,
            state=SimpleNamespace(fn="test"),
        )
        callback.on_test_end(trainer, classifier.eval())  # type: ignore[arg-type]
        logger.save()
        return {kind: tags for kind, tags in events(tmp_path).Tags().items() if tags}

    return end


def of_parts(*names: str) -> list[str]:
    return [f"{name}/{part}" for part in ("val", "test") for name in names]


CURVES = [f"precision_recall_{part}/{digit}" for part in ("val", "test") for digit in range(10)]


@pytest.mark.parametrize(
    ("switch", "tags"),
    [
        ("curves", {"images": of_parts("roc", "reliability"), "tensors": CURVES}),
        ("confusion", {"images": of_parts("confusion")}),
        ("examples", {"images": of_parts("most_wrong")}),
        ("weights", {"images": ["weights/linear1"]}),
        ("embeddings", {}),
        ("graph", {"graph": True}),
        ("histograms", {}),
    ],
)
def test_of_the_best_network(tested: Any, data: Digits, tmp_path: Path, switch: str, tags: dict[str, Any]) -> None:
    assert tested(inspection(switch), data) == tags
    files = {path.name for path in tmp_path.rglob("*.*") if not path.name.startswith("events.")}
    projector = {"projector_config.pbtxt", "tensors.tsv", "metadata.tsv", "sprite.png"}
    assert files == (projector if switch == "embeddings" else set())


def test_during_the_fit(make_trainer: Any, classifier: Classifier, data: Digits, tmp_path: Path) -> None:
    callback = inspection("norms", "units", "speed", "histograms", every_n_epochs=2)
    logger = TensorBoard(save_dir=str(tmp_path))
    arguments = {"max_epochs": 2, "limit_val_batches": 1.0, "log_every_n_steps": 30}
    make_trainer(callback, logger=logger, **arguments).fit(classifier, data)
    logger.save()
    board = events(tmp_path)
    steps = {tag: [event.step for event in board.Scalars(tag)] for tag in board.Tags()["scalars"]}
    for layer in ("linear1", "head"):
        assert steps[f"vitals/gradient_norm/{layer}"] == steps[f"vitals/update_ratio/{layer}"] == [29, 59]
    assert steps["vitals/dead_units/activation1"] == [39, 79]
    assert steps["vitals/speed/samples_per_second"] == steps["vitals/speed/peak_memory_mb"] == [39, 79]
    names = {
        f"{kind}/{layer}.{part}"
        for kind in ("weights", "gradients")
        for layer in ("linear1", "head")
        for part in ("weight", "bias")
    }
    assert set(board.Tags()["histograms"]) == names | {"activations/activation1"}
    assert [event.step for event in board.Histograms("gradients/head.bias")] == [79]


def test_what_does_not_apply_is_left_out_and_named_in_one_line(tested: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "neurona"):
        assert tested(inspection("confusion", "embeddings", "graph"), object()) == {}
    assert caplog.messages == [
        "inspect: without the val part's pictures (it is empty, or its rows are not in memory); "
        "the test part's pictures (it is empty, or its rows are not in memory)"
    ]


@pytest.mark.parametrize("key", ["every_n_epochs", "max_rows"])
def test_values_out_of_range_are_refused(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"inspect\.{key}=0"):
        inspection(**{key: 0})
