"""What a fit could not take of loaders of one's own is said in one line; what it can take, and all generators, stay."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from neurona.classifier import Classifier
from neurona.data.base import InMemoryData
from neurona.data.spec import DataSpec
from neurona.errors import ConfigError, DataError
from neurona.models.linear import Linear
from neurona.optimizer import Optimization
from neurona.schedule import cosine
from neurona.stages import first_batch
from neurona.steps import randomness

SPEC = DataSpec(4, 3, ("a", "b", "c"))


def rows(number: int = 40) -> tuple[Tensor, Tensor]:
    return torch.rand(number, 4), torch.arange(number) % 3


class Loaders(LightningDataModule):
    """Three loaders, each what a function makes; sound ones unless told otherwise."""

    def __init__(self, spec: DataSpec = SPEC, **loaders: Any) -> None:
        super().__init__()
        self.spec, self.loaders = spec, loaders

    def _loader(self, part: str) -> Any:
        return self.loaders[part]() if part in self.loaders else DataLoader(TensorDataset(*rows()), 16)

    def train_dataloader(self) -> Any:
        return self._loader("train")

    def val_dataloader(self) -> Any:
        return self._loader("val")

    def test_dataloader(self) -> Any:
        return self._loader("test")


@pytest.fixture
def check(composed: Any, make_trainer: Any, make_classifier: Any) -> Any:
    """Looks at the loaders of a data module, or at a training loader of these rows, (batch, …) tensors each."""

    def call(
        *tensors: Tensor,
        data: Any = None,
        kind: type[Classifier] = Classifier,
        network: nn.Module | None = None,
        optimization: Optimization | None = None,
        **values: Any,
    ) -> None:
        cfg = composed({f"trainer.{name}": value for name, value in values.items()})
        trainer = make_trainer(precision=values.get("precision", "32-true"))
        classifier = make_classifier(network or Linear(4, 3), 4, 3, optimization, kind=kind)
        data = data or Loaders(train=lambda: DataLoader(TensorDataset(*tensors), 16))
        first_batch.check(cfg, trainer, classifier, data)

    return call


class OwnStep(Classifier):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return None


class OwnLoss(Classifier):
    def loss(self, features: Tensor, targets: Tensor) -> Any:
        return None


class OwnForward(Classifier):
    def forward(self, features: Tensor) -> Tensor:
        return features


class OwnTransfer(Classifier):
    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return batch


FEATURES, TARGETS = rows()
BROKEN = torch.cat([FEATURES[:-1], torch.full((1, 4), torch.nan)])
ONE_HOT = torch.eye(3)[TARGETS]


@pytest.mark.parametrize(
    ("tensors", "problem", "takers"),
    [
        ((FEATURES,), "batches are features without targets; they must be .features, targets.", {OwnStep}),
        ((FEATURES, TARGETS, TARGETS), "batches are tuples of 3; .* override training_step", {OwnStep}),
        (
            (FEATURES.double(), TARGETS),
            r"features are float64; they must be float32: .*\.float\(\)",
            {OwnStep, OwnLoss},
        ),
        ((FEATURES[:, :2], TARGETS), r"features have the shape \(16, 2\); spec\.num_features=4", {OwnStep, OwnLoss}),
        ((BROKEN, TARGETS), "features are NaN or infinite in 1 of 40 rows", {OwnStep, OwnLoss}),
        ((FEATURES, ONE_HOT), r"targets are float32 of shape \(16, 3\); .* \.argmax\(1\)", {OwnStep}),
        ((FEATURES, TARGETS[:, None]), r"targets are int64 of shape \(16, 1\); .* take \[:, 0\]", {OwnStep}),
        ((FEATURES, TARGETS.int()), r"targets are int32 of .* convert with \.long\(\)", {OwnStep, OwnLoss}),
        (
            (FEATURES, TARGETS.float()),
            "targets are float32 of shape .* they must be class indices",
            {OwnStep, OwnLoss},
        ),
        ((FEATURES, TARGETS + 1), r"targets run from 1 to 3; spec\.num_classes=3 needs 0 to 2", {OwnStep, OwnLoss}),
    ],
)
def test_a_batch_is_refused_where_nothing_of_ones_own_takes_it(
    check: Any, tensors: tuple[Tensor, ...], problem: str, takers: set[type[Classifier]]
) -> None:
    for kind in (Classifier, OwnStep, OwnLoss):
        if kind in takers:
            check(*tensors, kind=kind)
        else:
            with pytest.raises(DataError, match=f"Loaders.train_dataloader: {problem}"):
                check(*tensors, kind=kind)


def test_batches_of_validation_are_the_own_steps_affair_alone(check: Any) -> None:
    dicts = [{"x": x, "y": y} for x, y in zip(FEATURES, TARGETS, strict=True)]
    with pytest.raises(DataError, match=r"val_dataloader: batches are dicts of x, y; .* override validation_step"):
        check(data=Loaders(val=lambda: DataLoader(dicts, 8)), kind=OwnStep)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [OwnForward, OwnTransfer])
def test_features_of_another_shape_are_taken_by_a_forward_or_a_transfer_of_ones_own(
    check: Any, kind: type[Classifier]
) -> None:
    check(torch.rand(40, 1, 8, 8), TARGETS, kind=kind)


def test_what_a_network_of_ones_own_takes_is_its_own_affair(check: Any) -> None:
    check(torch.rand(40, 1, 2, 2), TARGETS, network=nn.Sequential(nn.Flatten(), nn.Linear(4, 3)))


class Own(nn.Module):
    """A network of one's own, which notes how often it is asked, and draws."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width))
        self.calls = 0

    def forward(self, features: Tensor) -> Tensor:
        self.calls += 1
        return self.layers(features) + torch.rand(())


class Chunked(InMemoryData):
    spec = SPEC

    def __init__(self) -> None:
        LightningDataModule.__init__(self)


@pytest.mark.parametrize("data", [None, Chunked()])
def test_logits_of_another_width_than_the_classes_are_refused(check: Any, data: Any) -> None:
    arguments = (FEATURES, TARGETS) if data is None else ()
    for width in (2, 7):
        problem = rf"Own: gives logits of the shape \({16 if data is None else 2}, {width}\) .* return \(batch, 3\)"
        with pytest.raises(ConfigError, match=problem):
            check(*arguments, data=data, network=Own(width))
        for kind in (OwnStep, OwnLoss, OwnForward):
            check(*arguments, data=data, network=Own(width), kind=kind)
    network = Own(3)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.get_rng_state()
    check(*arguments, data=data, network=network)
    assert torch.equal(torch.get_rng_state(), state)
    assert network.calls == 0
    assert network.training
    torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)


class Silent(Own):
    def forward(self, features: Tensor) -> Any:
        super().forward(features)


def test_a_forward_without_return_is_refused(check: Any) -> None:
    with pytest.raises(ConfigError, match=r"Silent: gives None for 2 rows .* return \(batch, 3\): end it with return"):
        check(data=Chunked(), network=Silent(3))


def test_a_network_that_cannot_take_rows_alone_is_left_to_the_fit(check: Any) -> None:
    check(data=Chunked(), network=nn.Linear(5, 7))


def test_numbers_that_the_precision_converts_are_taken(check: Any) -> None:
    check(FEATURES.double(), TARGETS, precision="64-true")


def test_targets_that_cross_entropy_ignores_are_taken_for_training_alone(check: Any, caplog: Any) -> None:
    ignored = torch.where(TARGETS == 2, -100, TARGETS)
    check(FEATURES, ignored)
    assert "train/accuracy counts a target of -100, which the loss leaves out, as wrong" in caplog.text
    loader = DataLoader(TensorDataset(FEATURES, ignored), len(FEATURES))
    with pytest.raises(DataError, match=r"test_dataloader: targets are -100 in \d+ of \d+ rows, which no figure can"):
        check(data=Loaders(test=lambda: loader))


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (Loaders(val=lambda: [1, 2]), "val_dataloader: gives 2 loaders; one is needed: .*ConcatDataset"),
        (
            Loaders(val=lambda: DataLoader(TensorDataset(*rows(0)), 8)),
            r"val_dataloader: has no mini-batch; .* return \[\]",
        ),
        (Loaders(train=lambda: DataLoader(TensorDataset(*rows(5)), 8, drop_last=True)), "has no mini-batch"),
        (Loaders(DataSpec(4, 3, ("a", "b"))), "Loaders.spec: has 2 class_names for num_classes=3"),
        (type("Bare", (LightningDataModule,), {"spec": SPEC})(), "Bare.train_dataloader: is missing"),
    ],
)
def test_loaders_that_there_are_too_few_or_too_many_of(check: Any, data: Any, problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        check(data=data)


@pytest.mark.parametrize("value", [[], None])
def test_there_need_be_no_validation(check: Any, value: Any) -> None:
    data = Loaders(val=lambda: value)
    if value is None:
        data = type("Two", (Loaders,), {"val_dataloader": LightningDataModule.val_dataloader})()
    check(data=data)


class AsDocumented(LightningDataModule):
    """Makes its test part when it is to be tested, as in Lightning's documentation."""

    spec = SPEC
    train_dataloader = Loaders.train_dataloader
    _loader, loaders = Loaders._loader, {}

    def setup(self, stage: str | None) -> None:
        if stage == "test":
            self.test_rows = TensorDataset(FEATURES.double(), TARGETS)

    def test_dataloader(self) -> Any:
        return DataLoader(self.test_rows, 16)


def test_a_test_part_made_for_the_test_is_looked_at(check: Any) -> None:
    with pytest.raises(DataError, match=r"AsDocumented.test_dataloader: features are float64"):
        check(data=AsDocumented())


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter(zip(FEATURES, TARGETS, strict=True))


def streaming() -> Loaders:
    return Loaders(train=lambda: DataLoader(Stream(), 16))


@pytest.mark.parametrize(
    ("key", "value"), [("val_check_interval", 0.5), ("limit_train_batches", 0.5), ("overfit_batches", 0.1)]
)
def test_shares_of_a_stream(check: Any, key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=r"is a share of the mini-batches of .*, which has no length; give a number"):
        check(data=streaming(), **{key: value})
    check(data=streaming(), **{key: 3})


def test_a_schedule_laid_out_for_the_length_of_a_stream(check: Any) -> None:
    optimization = Optimization.of(torch.optim.SGD, lr=0.1, schedule=cosine())
    for limits in ({}, {"limit_train_batches": 3, "max_epochs": -1}):
        with pytest.raises(ConfigError, match=r"needs the number of steps, .* trainer\.max_steps=1000"):
            check(data=streaming(), optimization=optimization, **limits)
    for limits in ({"max_steps": 9}, {"limit_train_batches": 3}):
        check(data=streaming(), optimization=optimization, **limits)


class Noisy(Dataset[Any]):
    """Draws from every generator there is."""

    def __init__(self) -> None:
        self.own = np.random.default_rng(0)

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> Any:
        noise = random.random() + np.random.rand() + self.own.random()  # noqa: NPY002
        return torch.rand(4) + noise, index % 3


def test_looking_moves_no_generator(check: Any) -> None:
    shuffled = torch.Generator().manual_seed(1)
    loader = DataLoader(Noisy(), 16, shuffle=True, generator=shuffled)
    dataset: Any = loader.dataset

    def states() -> list[Any]:
        state = randomness.rng_state()
        of_all = [*(state[name] for name in ("python", "numpy", "torch"))]
        return [repr(of_all), repr(shuffled.get_state().tolist()), dataset.own.bit_generator.state]

    before = states()
    check(data=Loaders(train=lambda: loader))
    assert states() == before


class Once(IterableDataset[Any]):
    """Rows that can be read but once, drawn as they are read."""

    def __init__(self) -> None:
        self.rows = ((torch.rand(4), index % 3) for index in range(40))

    def __iter__(self) -> Iterator[Any]:
        return self.rows


@pytest.mark.parametrize(
    "make",
    [
        lambda: DataLoader(Once(), 16),
        lambda: ((torch.rand(16, 4), torch.arange(16) % 3) for _ in range(3)),
    ],
    ids=["dataset", "generator"],
)
def test_a_stream_that_can_be_read_but_once_is_not_read(check: Any, make: Any) -> None:
    loader = make()
    torch.manual_seed(1)
    expected = list(make())
    data = Loaders(train=lambda: loader)
    check(data=data)
    torch.manual_seed(1)
    for batch, other in zip(data.train_dataloader(), expected, strict=True):
        assert torch.equal(batch[0], other[0])
