"""Who asks for Lightning's own way, and that it is plain Lightning's."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer, seed_everything
from lightning.pytorch import callbacks as lightning_callbacks
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from noise import Noise
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from neurona import schedule
from neurona.classifier import Classifier
from neurona.data.spec import DataSpec
from neurona.models.mlp import MLP
from neurona.optimizer import Optimization
from neurona.steps import ways

ROWS, FEATURES, CLASSES, BATCH = 330, 6, 3, 32


def classifier(kind: type[Classifier] = Classifier, optimization: Any = None) -> Classifier:
    seed_everything(0, verbose=False)
    optimization = optimization or Optimization.of(torch.optim.SGD, lr=0.1)
    network = MLP(FEATURES, CLASSES, hidden=[8, 8], dropout=0.2)
    return kind(nn.Identity(), network, DataSpec(FEATURES, CLASSES, tuple("abc")), optimization)


def noise() -> Noise:
    return Noise(ROWS, FEATURES, CLASSES, batch_size=BATCH)


def asked_by(module: Any = None, data: Any = None, *callbacks: Callback) -> list[str]:
    return ways.asked_by(module or classifier(), data or noise(), callbacks, Classifier)


def overriding(base: type, name: str, value: Any = lambda *_, **__: None) -> type:
    return type("Own", (base,), {name: value})


def public(base: type) -> list[str]:
    return [name for name in dir(base) if not name.startswith("_") and callable(getattr(base, name))]


def test_nobody_asks_by_default() -> None:
    assert asked_by() == []
    for name in ("loss", "forward", "metrics_class", "a_method_of_ones_own"):
        assert asked_by(classifier(overriding(Classifier, name, Classifier.metrics_class))) == []


@pytest.mark.parametrize("base", [LightningModule, LightningDataModule, Callback])
def test_whatever_is_not_known_to_be_content_asks(base: type) -> None:
    """All that Lightning has, so that a hook of a later version cannot slip through."""
    names = set(public(base))
    for name in sorted(names):
        if base is LightningModule:
            found = asked_by(classifier(overriding(Classifier, name)))
        elif base is LightningDataModule:
            found = asked_by(None, overriding(Noise, name)(ROWS, FEATURES, CLASSES))
        else:
            found = asked_by(None, None, overriding(Callback, name)())
        assert bool(found) == (name not in ways.CONTENT[base]), name
        assert all(text.endswith(f".Own.{name}") for text in found)


def test_steps_of_training_are_not_among_what_is_content() -> None:
    for words in ("train_batch", "backward", "optimizer", "gradient", "transfer", "training_step", "lr_scheduler"):
        assert not [name for names in ways.CONTENT.values() for name in names if words in name]


def test_an_instance_asks_as_its_class_would() -> None:
    module = classifier()
    module.optimizer_step = lambda *_, **__: None  # type: ignore[method-assign]
    assert asked_by(module) == ["neurona.classifier.Classifier.optimizer_step"]
    callback = Callback()
    callback.on_train_batch_end = lambda *_: None  # type: ignore[method-assign]
    assert asked_by(None, None, callback)


def test_a_class_vouches_for_what_it_inherits_and_not_for_what_is_made_of_it() -> None:
    steps = overriding(Callback, "on_train_batch_end")
    aware = type("Aware", (steps,), {"chunk_aware": True})
    assert asked_by(None, None, aware()) == []
    assert len(asked_by(None, None, overriding(aware, "on_train_batch_start")())) == 1


def test_lightnings_own_callbacks_ask_but_for_those_that_chunks_are_enough_for() -> None:
    content = {"Callback", "BaseFinetuning", "EarlyStopping", "ModelSummary", "Timer", "BackboneFinetuning"}
    content |= {"WeightAveraging", "EMAWeightAveraging"}  # which the fast way calls after every step
    for name in lightning_callbacks.__all__:
        kind = getattr(lightning_callbacks, name)
        callback = object.__new__(kind)  # their arguments do not matter here
        assert bool(asked_by(None, None, callback)) == (name not in content), name


def test_a_loader_of_ones_own_asks() -> None:
    class Loaded(LightningDataModule):
        def train_dataloader(self) -> Any: ...

    assert asked_by(None, Loaded())[0].endswith("Loaded.train_dataloader")


class Plain(LightningModule):
    """What a textbook writes."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        features, targets = batch
        loss = nn.functional.cross_entropy(self.network(features), targets)
        self.log("train/loss", loss, on_epoch=True, on_step=False)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        features, targets = batch
        loss = nn.functional.cross_entropy(self.network(features), targets)
        self.log("val/loss", loss, batch_size=len(targets))

    def configure_optimizers(self) -> Any:
        algorithm = torch.optim.SGD(self.network.parameters(), lr=0.1, fused=True)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(algorithm, 0.1, total_steps=33, cycle_momentum=False)
        return [algorithm], [{"scheduler": scheduler, "interval": "step"}]


class PlainData(LightningDataModule):
    """The mini-batches of the loader in memory, as a DataLoader's."""

    def __init__(self, data: Noise) -> None:
        super().__init__()
        self.data = data

    def train_dataloader(self) -> Any:
        order = self.data.train_dataloader().order(self.trainer.current_epoch)  # type: ignore[union-attr]
        rows = TensorDataset(self.data.features[order], self.data.targets[order])
        return DataLoader(rows, BATCH, generator=torch.Generator())  # draws nothing of dropout's

    def val_dataloader(self) -> Any:
        return DataLoader(
            TensorDataset(self.data.features[:100], self.data.targets[:100]), 64, generator=torch.Generator()
        )


class Counting(Callback):
    """Counts what is called, and notes figures and rates."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.rates: list[float] = []
        self.figures: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        assert outputs["loss"].item() > 0
        assert len(batch) == 2
        self.calls["on_train_batch_end"] += 1
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.calls["on_train_epoch_end"] += 1
        self.figures.append(
            {name: float(value) for name, value in trainer.callback_metrics.items() if name == "val/loss"}
        )


for _hook in ("on_train_batch_start", "on_before_zero_grad", "on_before_backward", "on_after_backward"):
    setattr(Counting, _hook, lambda self, *_, hook=_hook: self.calls.update([hook]))
for _hook in ("on_before_optimizer_step", "on_validation_start", "on_validation_epoch_end", "on_train_start"):
    setattr(Counting, _hook, lambda self, *_, hook=_hook: self.calls.update([hook]))


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.parametrize(
    "settings", [{}, {"clip_norm": 0.1}, {"clip_value": 0.01}, {"accumulate": 4}], ids=lambda one: next(iter(one), "")
)
def test_lightnings_own_way_is_plain_lightning(make_trainer: Any, settings: dict[str, Any]) -> None:
    results = []
    for module, data in (
        (
            classifier(
                optimization=Optimization.of(torch.optim.SGD, lr=0.1, schedule=schedule.one_cycle(), **settings)
            ),
            noise(),
        ),
        (None, PlainData(noise())),
    ):
        counting = Counting()
        arguments: dict[str, Any] = {"max_epochs": 3, "limit_val_batches": 1.0}
        if module is None:
            module = Plain(classifier().network)  # type: ignore[assignment]
            key = "clip_norm" if "clip_norm" in settings else "clip_value"
            arguments |= {
                "gradient_clip_val": settings.get(key),
                "gradient_clip_algorithm": "norm" if key == "clip_norm" else "value",
                "accumulate_grad_batches": settings.get("accumulate", 1),
                "reload_dataloaders_every_n_epochs": 1,
            }
        if "accumulate" in settings:
            arguments["max_epochs"] = 11  # as many steps as the schedule has
        trainer: Trainer = make_trainer(counting, **arguments)
        seed_everything(1, verbose=False)  # dropout's
        trainer.fit(module, data)  # type: ignore[arg-type]
        weights = nn.utils.parameters_to_vector(module.network.parameters()).detach()  # type: ignore[union-attr,arg-type]
        results.append((weights, trainer.global_step, counting))
    (weights, steps, counting), (expected, expected_steps, plain) = results
    assert steps == expected_steps
    assert counting.calls == plain.calls
    assert counting.rates == pytest.approx(plain.rates)
    for ours, theirs in zip(counting.figures, plain.figures, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)
    torch.testing.assert_close(weights, expected, rtol=1e-5, atol=1e-6)


def test_a_schedule_of_accumulation_has_its_effect(make_trainer: Any) -> None:
    trainer = make_trainer(GradientAccumulationScheduler({0: 1, 1: 4}), max_epochs=2)
    trainer.fit(classifier(), noise())
    assert trainer.global_step == 11 + 3
