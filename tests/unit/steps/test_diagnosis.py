"""What is said of a loss that is NaN or infinite: where in the data, else which precision, else the rate."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import sklearn.datasets
import torch
from lightning.pytorch import Callback, LightningDataModule, seed_everything
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from neurona.models.mlp import MLP
from neurona.optimizer import Optimization
from neurona.steps.diagnosis import NonFiniteData, NonFiniteLoss

RATE = "a lower optimizer.lr, optimizer.clip_norm=1 or data on another scale are the usual remedies"


class EveryStep(Callback):
    """Asks for Lightning's own way."""

    def on_train_batch_end(self, *_: Any) -> None: ...


class Own(LightningDataModule):
    """A loader of one's own, and nothing else."""

    def __init__(self, features: Tensor, targets: Tensor, valid: Tensor | None = None) -> None:
        super().__init__()
        self.parts = [TensorDataset(part, targets) for part in (features, features if valid is None else valid)]

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.parts[0], 16)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.parts[1], 16)


class FillsIn(nn.Module):
    """A preprocessing that has a number for what is missing, in the precision that its buffers have."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("fill", torch.zeros(()))

    def forward(self, features: Tensor) -> Tensor:
        features = features.to(self.fill.dtype)
        return torch.where(features.isnan(), self.fill, features)


@pytest.fixture
def fails(make_trainer: Any, make_classifier: Any) -> Callable[..., str]:
    """What a fit ends with."""

    def fit(
        data: Any,
        *callbacks: Any,
        sizes: tuple[int, int] = (6, 3),
        optimization: Any = None,
        kind: Any = NonFiniteLoss,
        **arguments: Any,
    ) -> str:
        seed_everything(0, verbose=False)
        classifier = make_classifier(MLP(*sizes, hidden=[32]), *sizes, optimization)
        classifier.preprocessing = FillsIn()
        with pytest.raises(kind) as caught:
            make_trainer(*callbacks, **arguments).fit(classifier, data)
        assert type(caught.value) is kind
        return str(caught.value)

    return fit


def numbers() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(100, 6, generator=generator), torch.randint(0, 3, (100,), generator=generator)


@pytest.mark.parametrize("callbacks", [[], [EveryStep()]], ids=["fast", "Lightning's"])
def test_an_infinity_in_the_data_is_named_by_row_and_column(rows: Any, fails: Any, callbacks: list[Any]) -> None:
    features, targets = numbers()
    features[20, 1] = math.nan  # which the preprocessing fills in
    features[70, 4] = -math.inf
    words = fails(rows(features, targets, 16, shuffle_seed=5), *callbacks, kind=NonFiniteData)
    assert words.endswith(
        "(epoch 0); row 70 of the data set has -inf in column 4 (both counted from 0):"
        " leave the row out, or fill the value in"
    )


def test_of_a_loader_of_ones_own_the_mini_batch_is_named(fails: Any) -> None:
    features, targets = numbers()
    features[70, 4] = math.inf
    words = fails(Own(features, targets), kind=NonFiniteData)
    assert "at optimiser step 5 (epoch 0); row 6 of mini-batch 4 has inf in column 4" in words


@pytest.mark.parametrize("is_own", [False, True])
def test_validation_looks_at_its_own_rows(rows: Any, fails: Any, is_own: bool) -> None:
    features, targets = numbers()
    broken = features.clone()
    broken[70, 4] = math.inf
    data = Own(features, targets, broken) if is_own else rows(features, targets, 16)
    if not is_own:
        data.val_dataloader = lambda: rows(broken, targets, 16).train_dataloader()
    words = fails(data, kind=NonFiniteData, limit_val_batches=1.0)
    where = "row 6 of mini-batch 4" if is_own else "row 70 of the data set"
    assert words.startswith("val/loss is ")
    assert f"; {where} has inf in column 4" in words


@pytest.mark.parametrize("callbacks", [[], [EveryStep()]], ids=["fast", "Lightning's"])
def test_in_half_precision_the_epsilon_of_adam_is_to_blame(
    rows: Any, fails: Any, make_trainer: Any, make_classifier: Any, callbacks: list[Any]
) -> None:
    digits = sklearn.datasets.load_digits()
    features, targets = torch.tensor(digits.data[:320] / 16).float(), torch.tensor(digits.target[:320])

    def data() -> Any:
        return rows(features, targets, 32)

    adam = Optimization.of(torch.optim.Adam, lr=1e-3)
    words = fails(data(), *callbacks, sizes=(64, 10), optimization=adam, precision="16-true", max_epochs=5)
    assert words.endswith(
        "; in half precision (trainer.precision=16-true) the squares of small gradients are 0, and optimizer.eps=1e-08,"
        " all that Adam then divides by, is too small: use trainer.precision=bf16-true or bf16-mixed, or"
        " optimizer.eps=1e-4"
    )
    for precision, epsilon in (("bf16-true", 1e-8), ("bf16-mixed", 1e-8), ("16-true", 1e-4)):  # the remedies
        adam = Optimization.of(torch.optim.Adam, lr=1e-3, eps=epsilon)
        classifier = make_classifier(MLP(64, 10, hidden=[32]), 64, 10, adam)
        classifier.preprocessing = FillsIn()
        trainer = make_trainer(*callbacks, precision=precision, max_epochs=5)
        trainer.fit(classifier, data())
        assert trainer.global_step == 50


def test_what_else_half_precision_may_do_is_said(rows: Any, fails: Any) -> None:
    features, targets = numbers()
    words = fails(rows(1e5 * features, targets, 16), precision="16-true")  # SGD has no epsilon
    assert words.endswith(
        f"; half precision (trainer.precision=16-true) ends at 65504, trainer.precision=bf16-true does not; else {RATE}"
    )


@pytest.mark.parametrize("callbacks", [[], [EveryStep()]], ids=["fast", "Lightning's"])
def test_else_it_is_the_rate(rows: Any, fails: Any, callbacks: list[Any]) -> None:
    features, targets = numbers()
    sgd = Optimization.of(torch.optim.SGD, lr=1e30)
    words = fails(rows(features, targets, 16), *callbacks, optimization=sgd)
    assert words.startswith("the training loss became ")
    assert words.endswith(f"(epoch 0); {RATE}")
