from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from sklearn.preprocessing import StandardScaler

from neurona.data.base import InMemoryData, Table
from neurona.data.spec import DataSpec
from neurona.errors import ConfigError, DataError


class Small(InMemoryData):
    """100 rows, 3 columns, 2 classes; counts how often it is read."""

    reads = 0

    def table(self) -> dict[str, Any]:
        features = torch.randn(100, 3, generator=torch.Generator().manual_seed(0)) * 5 + 2
        return {"features": features, "targets": torch.arange(100) % 2, "class_names": ("no", "yes")}

    def read(self) -> Table:
        self.reads += 1
        return Table(**self.table())


def changed(**changes: Any) -> InMemoryData:
    class Changed(Small):
        def table(self) -> dict[str, Any]:
            return super().table() | changes

    return Changed()


def test_reads_once_and_not_before_setup() -> None:
    data = Small()
    assert data.reads == 0
    assert data.spec == DataSpec(num_features=3, num_classes=2, class_names=("no", "yes"))
    data.setup("fit")
    data.setup("test")
    assert data.reads == 1


def test_weights_have_a_mean_of_1_and_are_the_last_training_column() -> None:
    weights = torch.rand(100)
    data, plain = changed(weights=weights), Small()
    data.setup()
    plain.setup()
    batch, taken = (next(iter(one.train_dataloader())).features for one in (data, plain))
    torch.testing.assert_close(batch[:, :3], taken)
    rows = data.train_dataloader().order(0)[:32]
    assert data.row_weights is not None
    torch.testing.assert_close(batch[:, 3], data.row_weights[rows])
    assert data.row_weights[data.train_rows].mean().item() == pytest.approx(1)
    torch.testing.assert_close(data.row_weights, weights / weights[data.train_rows].mean())
    for loader in (data.val_dataloader(), data.test_dataloader()):
        assert next(iter(loader)).features.shape[1] == 3  # type: ignore[union-attr]
    assert data.fingerprint != plain.fingerprint != changed(weights=torch.ones(100)).fingerprint


@pytest.mark.parametrize(
    "changes", [{"weights": torch.ones(99)}, {"weights": torch.ones(100), "features": torch.ones(100, 3).byte()}]
)
def test_weights_that_do_not_fit(changes: dict[str, torch.Tensor]) -> None:
    with pytest.raises(DataError, match="weights are one number a row, and need float32 features"):
        changed(**changes).setup()


def test_weights_that_are_all_0() -> None:
    with pytest.raises(DataError, match="weights of the training rows are all 0"):
        changed(weights=torch.zeros(100)).setup()


def test_scaling_is_fitted_on_the_training_rows() -> None:
    data = Small()
    data.setup()
    assert (len(data.train_rows), len(data.val_rows), len(data.test_rows)) == (70, 10, 20)
    reference = StandardScaler().fit(data.features[data.train_rows].double().numpy())
    torch.testing.assert_close(
        data.preprocessing(data.features).double(),
        torch.from_numpy(reference.transform(data.features.double().numpy())),
        rtol=0,
        atol=1e-6,
    )
    features = data.table()["features"]
    features[torch.cat((data.val_rows, data.test_rows))] = 1e9
    mutated = changed(features=features)
    mutated.setup()
    assert torch.equal(mutated.preprocessing.shift, data.preprocessing.shift)
    assert torch.equal(mutated.preprocessing.scale, data.preprocessing.scale)


def test_loaders_take_the_parts() -> None:
    data = Small(batch_size=16, eval_batch_size=8, shuffle_seed=3)
    data.setup()
    train = data.train_dataloader()
    first, second = (torch.cat([batch.features for batch in train]) for _ in range(2))
    assert not torch.equal(first, second)
    assert [len(batch.targets) for batch in train] == [16, 16, 16, 16, 6]
    expected = data.features[data.train_rows]
    assert torch.equal(first.sort(0).values, expected.sort(0).values)
    for loader, rows in (
        (data.val_dataloader(), data.val_rows),
        (data.test_dataloader(), data.test_rows),
        (data.predict_dataloader(), data.test_rows),
    ):
        batches = list(loader)
        assert len(batches[0].targets) == 8
        assert torch.equal(torch.cat([batch.features for batch in batches]), data.features[rows])
        assert torch.equal(torch.cat([batch.targets for batch in batches]), data.targets[rows])


def test_shuffling_and_splitting_have_separate_seeds() -> None:
    one, other = Small(shuffle_seed=1), Small(shuffle_seed=2)
    one.setup()
    other.setup()
    assert torch.equal(one.train_rows, other.train_rows)
    assert one.train_dataloader().order(0).tolist() != other.train_dataloader().order(0).tolist()


def test_class_counts() -> None:
    data = changed(targets=torch.tensor([0] * 80 + [1] * 20))
    data.setup()
    assert data.class_counts.tolist() == [56, 14]


def test_fingerprint_tells_the_data_as_used() -> None:
    reference = Small().fingerprint
    assert len(reference) == 16
    torch.manual_seed(99)
    assert Small(batch_size=7, shuffle_seed=9, scaling="none").fingerprint == reference
    features = Small().table()["features"]
    features[17, 1] += 1e-6
    others = [Small(split_seed=1), changed(features=features), changed(targets=1 - torch.arange(100) % 2)]
    others.append(changed(class_names=("yes", "no")))
    assert len({reference, *(data.fingerprint for data in others)}) == 5


class Counting(LightningModule):
    """Counts the rows that validation and training hand it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(3))
        self.validated = self.trained = 0

    def training_step(self, batch: Any) -> torch.Tensor:
        self.trained += len(batch.targets)
        return (batch.features @ self.weight).square().mean()

    def validation_step(self, batch: Any) -> None:
        self.validated += len(batch.targets)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 1e-4)


@pytest.mark.parametrize(
    ("settings", "train", "val"),
    [({"val_fraction": 0.0}, 80, 0), ({}, 70, 10), ({"val_fraction": 0.0, "folds": 4, "fold": 1}, 60, 20)],
)
@pytest.mark.filterwarnings("ignore:Total length of `list` across ranks is zero")  # what Lightning makes of []
def test_the_trainer_skips_an_empty_validation(settings: dict[str, Any], train: int, val: int) -> None:
    module, data = Counting(), Small(**settings)
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    assert data.has_validation == (val > 0)
    trainer.fit(module, data)
    assert (module.trained, module.validated) == (train, val)


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"batch_size": 0}, "data.batch_size"),
        ({"eval_batch_size": -1}, "data.eval_batch_size"),
        ({"val_fraction": 1.0}, "data.val_fraction"),
        ({"val_fraction": -0.1}, "data.val_fraction"),
        ({"val_fraction": float("nan")}, "data.val_fraction"),
        ({"test_fraction": 1.0}, "data.test_fraction"),
        ({"val_fraction": 0.5, "test_fraction": 0.5}, "data.val_fraction"),
        ({"folds": 5}, "data.folds"),
        ({"fold": 0}, "data.fold"),
        ({"folds": 1, "fold": 0}, "data.folds"),
        ({"folds": 5, "fold": 5}, "data.fold"),
        ({"folds": 5, "fold": -1}, "data.fold"),
        ({"split_seed": -1}, "data.split_seed"),
        ({"shuffle_seed": 2**32}, "data.shuffle_seed"),
    ],
)
def test_values_out_of_range_are_refused_by_the_constructor(settings: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Small(**settings)
    assert caught.value.key == key
    assert caught.value.value == settings[key.removeprefix("data.")] or settings["val_fraction"] != 0.5


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"features": torch.zeros(100)}, "features must be"),
        ({"features": torch.zeros(100, 3, dtype=torch.float64)}, "features must be .*float64"),
        ({"features": torch.zeros(3, 100).T}, "features must be contiguous"),
        ({"targets": torch.zeros(99, dtype=torch.int64)}, "there are 99 targets for 100 rows; give one for each"),
        ({"targets": torch.zeros(100)}, r"targets are float32 .*: convert with \.long\(\)"),
        ({"targets": torch.linspace(0, 1, 100)}, "amounts, which is regression; this is for classification"),
        ({"targets": torch.rand(100, 3)}, "several numbers a row, which is regression"),
        ({"targets": torch.ones(100, 3, dtype=torch.int64)}, "several classes a row, which is multi-label class"),
        ({"targets": torch.arange(100) % 3}, "targets must be from 0 to 1"),
        ({"targets": torch.arange(100) % 2 - 1}, "targets must be from 0 to 1"),
        ({"class_names": ("no", "yes", "maybe")}, "no row to train on of class 'maybe'"),
        ({"targets": (torch.arange(100) >= 90).long(), "num_test": 10}, "no row to train on of class 'yes'"),
    ],
)
def test_a_table_that_breaks_its_promise_is_refused(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        changed(**changes).setup()
