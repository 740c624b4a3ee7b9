"""What a fit would fail at later, or have nothing to do with, is refused by its key."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    EMAWeightAveraging,
    GradientAccumulationScheduler,
    LearningRateFinder,
    ModelCheckpoint,
    ModelPruning,
    OnExceptionCheckpoint,
    StochasticWeightAveraging,
)

from neurona.classifier import Classifier
from neurona.config.check import FIGURES
from neurona.data.base import InMemoryData
from neurona.data.spec import DataSpec
from neurona.errors import ConfigError
from neurona.metrics import EvaluationMetrics
from neurona.models.linear import Linear
from neurona.optimizer import Optimization
from neurona.schedule import Schedule, constant, cosine
from neurona.stages import limits


@pytest.fixture
def data() -> InMemoryData:
    """98 rows to train, 22 to validate, 30 to test: 7, 1 and 1 mini-batches."""
    data = InMemoryData(batch_size=16)
    data.train_rows, data.val_rows, data.test_rows = torch.arange(150).split([98, 22, 30])
    return data


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("check_val_every_n_epoch", 0, "must be at least 1"),
        ("check_val_every_n_epoch", -1, "must be at least 1"),
        ("min_epochs", -2, "must be at least 0"),
        ("log_every_n_steps", -5, "must be at least 0"),
        ("val_check_interval", 0, "must be above 0"),
        ("val_check_interval", 8, "an epoch has 7 mini-batches"),
        ("limit_train_batches", 0.01, "leaves none of the 7 mini-batches of the training part"),
        ("limit_test_batches", 0, "must be above 0: a fit ends with a test"),
        ("limit_test_batches", 0.5, "leaves none of the 1 mini-batches of the test part"),
        ("limit_val_batches", 0.5, "leaves none of the 1 mini-batches of the validation part"),
        ("overfit_batches", 0.5, "leaves none of the 1 mini-batches of the validation part"),
        ("max_time", "00:00:00:00", "leaves nothing to train"),
        ("max_steps", 0, "leaves nothing to train"),
        ("max_epochs", 0, "leaves nothing to train"),
        ("max_epochs", None, "must be a number unless max_steps or max_time is set"),
        ("gradient_clip_val", 1, "optimizer.clip_norm"),
        ("accumulate_grad_batches", 2, "optimizer.accumulate"),
    ],
)
def test_values_that_would_fail_later(composed: Any, data: InMemoryData, key: str, value: Any, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        limits.check(composed({f"trainer.{key}": value}).trainer, data)
    assert caught.value.key == f"trainer.{key}"


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"trainer.val_check_interval": 7},
        {"trainer.val_check_interval": 8, "trainer.check_val_every_n_epoch": None},
        {"trainer.limit_train_batches": 1},
        {"trainer.max_epochs": None, "trainer.max_time": "00:00:01:00"},
        {"trainer.overfit_batches": 0.5, "trainer.limit_val_batches": 0},
    ],
    ids=str,
)
def test_values_that_do_not(composed: Any, data: InMemoryData, values: dict[str, Any]) -> None:
    limits.check(composed(values).trainer, data)


def test_validation_within_the_mini_batches_that_overfitting_leaves(composed: Any, data: InMemoryData) -> None:
    cfg = composed({"trainer.overfit_batches": 2, "trainer.limit_val_batches": 1, "trainer.val_check_interval": 3})
    with pytest.raises(ConfigError, match=r"trainer\.val_check_interval=3: an epoch has 2 mini-batches"):
        limits.check(cfg.trainer, data)


def test_of_data_that_do_not_tell_nothing_is_counted(composed: Any) -> None:
    other: Any = SimpleNamespace()
    limits.check(composed({"trainer.limit_train_batches": 0.01}).trainer, other)


def check_monitors(cfg: Any, kind: type[Classifier] = Classifier) -> None:
    classifier = kind(torch.nn.Identity(), Linear(4, 2), DataSpec(4, 2, ("rose", "lily")))
    limits.check_monitors(cfg.trainer, cfg.trainer.callbacks, classifier)


@pytest.mark.parametrize("callback", ["checkpoints", "early_stopping"])
@pytest.mark.parametrize("monitor", ["val/acuracy", "train/loss", "rose", "val/accuracy_of/daisy"])
def test_a_figure_that_there_will_not_be_is_not_waited_for(composed: Any, callback: str, monitor: str) -> None:
    key = f"trainer.callbacks.{callback}.monitor"
    with pytest.raises(ConfigError, match="must be one of val/loss") as caught:
        check_monitors(composed({key: monitor}))
    assert caught.value.key == key


class Own(Classifier):
    """May report figures of its own."""


@pytest.mark.parametrize(
    ("monitor", "kind"), [("val/macro_f1", Classifier), ("val/accuracy_of/rose", Classifier), ("val/mine", Own)]
)
def test_one_that_there_will_be_is(composed: Any, monitor: str, kind: type[Classifier]) -> None:
    check_monitors(composed({"trainer.callbacks.checkpoints.monitor": monitor}), kind)


def test_early_stopping_needs_a_validation_part(composed: Any) -> None:
    values = {"trainer.limit_val_batches": 0, "trainer.callbacks.early_stopping.patience": 2}
    with pytest.raises(ConfigError, match=r"early_stopping\.patience=2: needs a validation part"):
        check_monitors(composed(values))


def test_the_figures_known_beforehand_are_those_that_are_computed() -> None:
    metrics = EvaluationMetrics(2)
    metrics.update(torch.eye(2), torch.arange(2))
    assert set(FIGURES) == metrics.compute().keys() - {"class_accuracy", "confusion_matrix"}


class Configured(Classifier):
    """What configure_optimizers gives is what ``optimizers`` makes of two optimisers."""

    optimizers_of: Any

    def configure_optimizers(self) -> Any:
        pair = [torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))]) for _ in range(2)]
        return type(self).optimizers_of(*pair)


def check_optimizers(make_classifier: Any, optimizers_of: Any, *overrides: str, **arguments: Any) -> None:
    kind = type("Configured", (Configured,), {"optimizers_of": staticmethod(optimizers_of)})
    optimization = Optimization.of(torch.optim.SGD, lr=0.1, **arguments.pop("settings", {}))
    classifier = make_classifier(Linear(4, 2), 4, 2, optimization, kind=kind)
    classifier.automatic_optimization = arguments.pop("is_automatic", True)
    limits.check_optimizers(classifier, Trainer(logger=False, barebones=True), overrides)


def steps_wanted(*pair: Any) -> Any:
    raise ValueError("Expected positive integer total_steps, but got -1")


SEVERAL = [
    lambda *pair: list(pair),
    lambda *pair: pair,
    lambda *pair: (list(pair), [1, 2]),
    lambda *pair: [{"optimizer": one} for one in pair],
]
FEW = [lambda one, _: one, lambda one, _: [one], lambda one, _: ([one], [1, 2]), steps_wanted]


@pytest.mark.parametrize("optimizers_of", SEVERAL)
def test_several_optimisers_are_stepped_by_hand(make_classifier: Any, optimizers_of: Any) -> None:
    with pytest.raises(ConfigError, match=r"several optimisers, .* self\.automatic_optimization = False"):
        check_optimizers(make_classifier, optimizers_of)
    check_optimizers(make_classifier, optimizers_of, is_automatic=False)


@pytest.mark.parametrize("optimizers_of", FEW)
def test_one_optimiser_is_stepped_by_lightning(make_classifier: Any, optimizers_of: Any) -> None:
    check_optimizers(make_classifier, optimizers_of)


@pytest.mark.parametrize("override", ["optimizer.lr=5", "optimizer/schedule=cosine", "optimizer=adamw"])
def test_settings_that_ones_own_optimiser_does_not_use(make_classifier: Any, override: str) -> None:
    with pytest.raises(ConfigError, match=r"is not used: Configured\.configure_optimizers makes the optimiser"):
        check_optimizers(make_classifier, FEW[0], override)


@pytest.mark.parametrize("override", ["optimizer.clip_norm=1", "optimizer.accumulate=2", "data=iris"])
def test_settings_that_it_does(make_classifier: Any, override: str) -> None:
    check_optimizers(make_classifier, FEW[0], override)


@pytest.mark.parametrize("settings", [{"clip_norm": 1.0}, {"clip_value": 1.0}, {"accumulate": 2}], ids=str)
def test_who_steps_by_hand_clips_and_accumulates_by_hand(make_classifier: Any, settings: Any) -> None:
    with pytest.raises(ConfigError, match="has no effect: Configured optimises manually"):
        check_optimizers(make_classifier, FEW[0], is_automatic=False, settings=settings)


def test_a_schedule_beside_steps_by_hand_is_announced(make_classifier: Any, caplog: pytest.LogCaptureFixture) -> None:
    for schedule in (constant(), cosine()):
        classifier = make_classifier(Linear(4, 2), 4, 2, Optimization.of(torch.optim.SGD, lr=0.1, schedule=schedule))
        classifier.automatic_optimization = False
        limits.check_optimizers(classifier, Trainer(logger=False, barebones=True), [])
    assert caplog.text.count("the learning rate changes only where it calls self.lr_schedulers().step()") == 1


@pytest.mark.parametrize(
    ("callback", "problem"),
    [
        (StochasticWeightAveraging(0.05), "EMAWeightAveraging is validated"),
        (LearningRateFinder(), "stage=lr_find suggests a learning rate"),
        (BatchSizeFinder(), r"give data\.batch_size"),
        (ModelCheckpoint(filename="best"), r"ModelCheckpoint of best\.ckpt: is a name of the run's own"),
        (ModelCheckpoint(save_last=True), r"ModelCheckpoint of last\.ckpt"),
        (ModelCheckpoint("run/checkpoints", "previous"), r"ModelCheckpoint of previous\.ckpt"),
    ],
)
def test_callbacks_that_would_do_harm(callback: Any, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        limits.check_callbacks([callback], Path("run"), None)


def test_callbacks_that_would_not() -> None:
    elsewhere = ModelCheckpoint("elsewhere", "best", save_last=True)
    limits.check_callbacks([EMAWeightAveraging(), ModelCheckpoint(filename="{epoch}"), elsewhere], Path("run"), None)


@pytest.mark.parametrize(
    "callback",
    [
        lambda folder: ModelCheckpoint(filename="best"),
        lambda folder: ModelCheckpoint(dirpath=folder / "checkpoints", save_last=True),
        lambda folder: OnExceptionCheckpoint(folder / "checkpoints", filename="previous"),
    ],
)
def test_the_names_of_the_runs_own_checkpoints_are_reserved(callback: Any, tmp_path: Any) -> None:
    with pytest.raises(ConfigError, match="is a name of the run's own checkpoints"):
        limits.check_callbacks([callback(tmp_path)], tmp_path, None)


def test_other_names_and_places_are_not(tmp_path: Any) -> None:
    elsewhere = ModelCheckpoint(dirpath=tmp_path / "mine", filename="best", save_last=True)
    limits.check_callbacks([ModelCheckpoint(filename="mine"), elsewhere, EMAWeightAveraging()], tmp_path, None)


def test_an_average_that_is_never_validated_is_refused(tmp_path: Any) -> None:
    with pytest.raises(ConfigError, match="EMAWeightAveraging is validated"):
        limits.check_callbacks([StochasticWeightAveraging(swa_lrs=0.1)], tmp_path, None)


@pytest.mark.parametrize(
    ("schedule", "accumulate", "problem"),
    [
        (constant(), 2, "optimizer.accumulate=2: does not go with GradientAccumulationScheduler"),
        (cosine(), 1, "GradientAccumulationScheduler: changes the number of steps on the way"),
    ],
)
def test_accumulation_that_changes_on_the_way(schedule: Schedule, accumulate: int, problem: str) -> None:
    classifier: Any = type("Own", (), {"configure_optimizers": Classifier.configure_optimizers})()
    classifier.optimization = Optimization.of(torch.optim.Adam, schedule=schedule, accumulate=accumulate)
    with pytest.raises(ConfigError, match=problem):
        limits.check_callbacks([GradientAccumulationScheduler({0: 4})], Path("run"), classifier)


def test_what_pruning_keeps_in_no_checkpoint_is_told(caplog: Any) -> None:
    limits.check_callbacks([ModelPruning("l1_unstructured")], Path("run"), None)
    assert "checkpoints do not hold the masks of ModelPruning" in caplog.text
