"""What people bring from Lightning's documentation does what it does there, in whole runs of few steps."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule
from lightning.pytorch.callbacks import BaseFinetuning, ModelCheckpoint
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, IterableDataset, TensorDataset, WeightedRandomSampler
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassRecall

import neurona
from neurona.classifier import Classifier
from neurona.data.spec import DataSpec

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers")
OWN = f"allow=[{__name__}]"
LIGHTNINGS = "lightning.pytorch.callbacks"
SIZES = torch.tensor([16.0] * 6 + [2.0])
"""Rows of the mini-batches of an epoch of iris."""

STEPS = len(SIZES)


def own(name: str) -> list[str]:
    return [OWN, f"classifier._target_={__name__}.{name}"]


def callback(name: str) -> list[str]:
    return [OWN, f"+trainer.callbacks.own._target_={__name__}.{name}"]


@pytest.fixture(autouse=True)
def _nothing_noted() -> Iterator[None]:
    """NOTES is what the classes below have seen."""
    NOTES.clear()
    yield
    NOTES.clear()


NOTES: list[Any] = []


class PlainStep(Classifier):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        features, targets = batch
        return cross_entropy(self(features), targets)


class Inherited(Classifier):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        NOTES.append(loss.requires_grad)
        return loss


@pytest.mark.parametrize("name", ["PlainStep", "Inherited"])
def test_the_textbooks_step_trains_as_the_default_does(fit: Any, name: str) -> None:
    assert fit(*own(name)).weights() == fit().weights()
    assert NOTES in ([], [True] * 2 * STEPS)


class Loaders(LightningDataModule):
    spec = DataSpec(num_features=4, num_classes=3, class_names=("a", "b", "c"))

    def __init__(self, *, batch_size: int = 32) -> None:
        super().__init__()
        self.size = batch_size

    def _rows(self, seed: int, number: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(number, 4, generator=generator), torch.arange(number) % 3

    def train_dataloader(self) -> Any:
        return DataLoader(TensorDataset(*self._rows(0, 330)), self.size, shuffle=True)

    def val_dataloader(self) -> Any:
        return DataLoader(TensorDataset(*self._rows(1, 50)), self.size)

    def test_dataloader(self) -> Any:
        return self.val_dataloader()


class Stream(IterableDataset[Any]):
    def __init__(self, *rows: Tensor) -> None:
        self.rows = rows

    def __iter__(self) -> Iterator[Any]:
        return iter(zip(*self.rows, strict=True))


class Streaming(Loaders):
    def train_dataloader(self) -> Any:
        return DataLoader(Stream(*self._rows(0, 330)), self.size)


class Triples(Loaders):
    def train_dataloader(self) -> Any:
        features, targets = self._rows(0, 330)
        return DataLoader(TensorDataset(features, targets, torch.ones(330)), self.size)


class Weighted(Classifier):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        features, targets, weights = batch
        return (weights * cross_entropy(self(features), targets, reduction="none")).mean()


@pytest.fixture
def on_loaders(tmp_path: Any) -> Any:
    """Arguments for a data module of this file."""
    (tmp_path / "yamls" / "data").mkdir(parents=True)

    def call(name: str) -> list[str]:
        (tmp_path / "yamls/data/own.yaml").write_text(f"_target_: {__name__}.{name}\nbatch_size: 32\n")
        return ["--config-dir", str(tmp_path / "yamls"), OWN, "data=own", "quiet=true", "trainer.max_epochs=2"]

    return call


def test_a_step_of_ones_own_takes_loaders_of_ones_own(train: Any, newest: Any, on_loaders: Any) -> None:
    assert train(*on_loaders("Loaders"), *own("PlainStep")).status == 0
    assert newest().metrics["steps"] == 2 * 11
    weights = newest().weights()
    assert train(*on_loaders("Loaders")).status == 0
    assert newest().weights() == weights


def test_a_batch_of_three_is_for_a_step_of_ones_own_alone(
    train: Any, newest: Any, on_loaders: Any, tmp_path: Any
) -> None:
    done = train(*on_loaders("Triples"))
    assert (done.status, len(done.err.splitlines())) == (2, 1)
    assert "Triples.train_dataloader: batches are tuples of 3; they must be (features, targets)" in done.err
    assert not (tmp_path / "logs").exists()
    done = train(*on_loaders("Triples"), *own("Weighted"))
    assert done.status == 0, done.err
    assert newest().metrics["steps"] == 2 * 11


def test_the_last_gradients_of_a_short_stream_make_a_step(train: Any, newest: Any, on_loaders: Any) -> None:
    accumulated = ["optimizer=sgd", "optimizer.lr=0.1", "optimizer.accumulate=4"]
    weights = []
    for limit in ("50", "1.0"):
        done = train(*on_loaders("Streaming"), *accumulated, f"trainer.limit_train_batches={limit}")
        assert done.status == 0, done.err
        assert newest().metrics["steps"] == 2 * 3
        assert "val/loss" in newest().metrics
        weights.append(newest().weights())
    assert weights[0] == weights[1]


class NoLoss(Classifier):
    def training_step(self, batch: Any, batch_idx: int) -> None:
        return None


class Broken(Classifier):
    def loss(self, features: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        raise KeyError("a mistake of the user's")


@pytest.mark.filterwarnings("ignore:.*returned `None`")
def test_a_fit_without_a_step_has_failed(train: Any, newest: Any) -> None:
    done = train(*own("NoLoss"), "data=iris", "trainer.max_epochs=2")
    assert done.status == 1
    assert "NoLoss.training_step has returned None for all mini-batches" in done.err
    assert "to continue" not in done.out
    assert newest().metrics["status"] == "failed"


def test_a_mistake_in_the_users_code_stays_theirs(fit: Any, newest: Any) -> None:
    with pytest.raises(KeyError, match="a mistake of the user's"):
        fit(*own("Broken"))
    assert newest().metrics["status"] == "failed"


class StepByEpochs(Classifier):
    """Two rates, a tenth after two epochs."""

    def configure_optimizers(self) -> Any:
        parts = [self.network.head, self.network.linear1]
        groups = [{"params": list(part.parameters()), "lr": lr} for part, lr in zip(parts, (1e-3, 1e-4), strict=True)]
        optimizer = torch.optim.AdamW(groups)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.1)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "epoch"}}

    def on_train_epoch_start(self) -> None:
        NOTES.append([group["lr"] for group in self.trainer.optimizers[0].param_groups])


def test_a_schedule_of_ones_own_is_stepped_by_the_epoch(fit: Any) -> None:
    fit(*own("StepByEpochs"), "trainer.max_epochs=3", "model.hidden=[8]")
    assert [pytest.approx(rates) for rates in NOTES] == [[1e-3, 1e-4], [1e-3, 1e-4], [1e-4, 1e-5]]


class Plateau(Classifier):
    """Looks at a figure of its own after every second epoch."""

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=0.9)
        config = {"scheduler": schedule, "monitor": "mine", "frequency": 2}
        return {"optimizer": optimizer, "lr_scheduler": config}

    def on_train_epoch_end(self) -> None:
        self.log("mine", torch.tensor(1.0 / (1 + self.current_epoch)))


def test_a_plateau_of_ones_own_goes_on_exactly(fit: Any, train: Any) -> None:
    whole, begun = (fit(*own("Plateau"), f"trainer.max_epochs={epochs}") for epochs in (6, 1))
    for epochs in (2, 4, 6):
        done = train(OWN, f"run={begun.folder}", f"trainer.max_epochs={epochs}")
        assert done.status == 0, done.err
    assert begun.weights() == whole.weights()
    rates = [run.checkpoint()["optimizer_states"][0]["param_groups"][0]["lr"] for run in (begun, whole)]
    assert rates == [pytest.approx(0.01)] * 2


class NamesItsOwn(Classifier):
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", torch.tensor(1.0))


def test_a_plateau_without_the_figure_it_follows_says_so(fit: Any, capsys: Any) -> None:
    settings = [*own("NamesItsOwn"), "optimizer/schedule=plateau", "trainer.callbacks.early_stopping=null"]
    fit(*settings, "trainer.callbacks.checkpoints.monitor=val_loss")
    printed = "".join(capsys.readouterr())
    assert printed.count("the schedule plateau follows train/loss, as validation reports no val/loss") == 1


class Pair(Classifier):
    def configure_optimizers(self) -> Any:
        return [
            torch.optim.SGD(self.network.head.parameters(), lr=0.1),
            torch.optim.SGD(self.network.linear1.parameters()),
        ]


class PairByHand(Pair):
    """As on Lightning's page on manual optimization."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        features, targets = batch
        optimizers: Any = self.optimizers()
        for optimizer in optimizers:
            optimizer.zero_grad()
        self.manual_backward(cross_entropy(self(features), targets))
        for optimizer in optimizers:
            optimizer.step()


def test_several_optimisers_are_stepped_by_hand(train: Any, newest: Any, tmp_path: Any) -> None:
    small = ["data=iris", "model.hidden=[8]", "trainer.max_epochs=2", "quiet=true"]
    done = train(*own("Pair"), *small)
    assert (done.status, len(done.err.splitlines())) == (2, 1)
    assert "makes several optimisers, which are stepped by hand: set self.automatic_optimization = False" in done.err
    assert not (tmp_path / "logs").exists()
    done = train(*own("PairByHand"), *small)
    assert done.status == 0, done.err
    assert newest().metrics["steps"] == 2 * 2 * STEPS  # Lightning counts the steps of each


class NoGradients(Classifier):
    def configure_gradient_clipping(self, optimizer: Any, *_: Any, **__: Any) -> None:
        NOTES.append("clip")
        for parameter in self.parameters():
            if parameter.grad is not None:
                parameter.grad.zero_()


class Warmup(Classifier):
    """Lightning's own example."""

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        optimizer.step(closure=optimizer_closure)
        NOTES.append(self.trainer.global_step)
        for group in optimizer.param_groups:
            group["lr"] = min(1.0, (self.trainer.global_step + 1) / 500.0) * 1e-3


def test_clipping_of_ones_own_is_called_at_every_step(fit: Any) -> None:
    run = fit(*own("NoGradients"), "optimizer=sgd")
    assert NOTES == ["clip"] * 2 * STEPS
    assert run.metrics["train/accuracy"] == fit("optimizer=sgd", "optimizer.lr=1e-30").metrics["train/accuracy"]


def test_warm_up_in_a_step_of_the_optimiser_is_called_at_every_step(fit: Any) -> None:
    run = fit(*own("Warmup"))
    assert list(range(2 * STEPS)) == NOTES  # counted by Lightning once the hook returns
    assert run.metrics["train/lr"] == pytest.approx((2 * STEPS - 1) / 500 * 1e-3)  # of the last step, not the next


class Penalty(Classifier):
    """Logs a term of its loss."""

    def loss(self, features: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        loss, logits = super().loss(features, targets)
        self.log("train/rows", torch.tensor(float(len(targets))), on_step=True, on_epoch=True)
        return loss, logits


class Everything(Callback):
    """Asks for every mini-batch."""

    def on_train_batch_end(self, *_: Any) -> None:
        pass


class Last(Callback):
    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        NOTES.append(float(trainer.callback_metrics["train/rows_epoch"]))


def test_what_a_loss_logs_is_weighted_by_the_rows_of_each_mini_batch_in_both_ways(fit: Any) -> None:
    last = f"+trainer.callbacks.last._target_={__name__}.Last"
    fit(*own("Penalty"), last)
    fit(*own("Penalty"), last, f"+trainer.callbacks.own._target_={__name__}.Everything")
    assert pytest.approx([(6 * 16 * 16 + 2 * 2) / 98] * 2, rel=1e-6) == NOTES


class Outputs(Callback):
    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        NOTES.append(outputs["loss"].item())


class History(Callback):
    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        NOTES.append(float(trainer.callback_metrics["train/loss"]))


def test_callbacks_see_the_loss_of_each_batch_and_of_each_epoch_at_its_end(fit: Any) -> None:
    fit(*callback("Outputs"))
    losses = torch.tensor(NOTES).reshape(2, STEPS)
    NOTES.clear()
    fit(*callback("History"))
    assert pytest.approx(((losses * SIZES).sum(1) / SIZES.sum()).tolist(), rel=1e-5) == NOTES


class Checkpoints(ModelCheckpoint):
    """A checkpoint of one's own that looks at every step."""

    def __init__(self) -> None:
        super().__init__(every_n_train_steps=5, save_top_k=-1, filename="{step}")

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        super().on_train_batch_end(trainer, *args)
        NOTES.append(trainer.global_step)


def test_a_checkpoint_of_ones_own_sees_every_step(fit: Any) -> None:
    run = fit(*callback("Checkpoints"))
    assert list(range(1, 2 * STEPS + 1)) == NOTES
    assert (run.folder / "checkpoints" / "step=5.ckpt").exists()


class Way(Callback):
    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        NOTES.append(pl_module.is_fast)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_an_average_of_every_second_step_is_the_same_in_both_ways(fit: Any, accumulate: int) -> None:
    ema = f"+trainer.callbacks.ema._target_={LIGHTNINGS}.EMAWeightAveraging"
    settings = [ema, "+trainer.callbacks.ema.decay=0.9", "+trainer.callbacks.ema.update_every_n_steps=2"]
    settings += [f"optimizer.accumulate={accumulate}", f"+trainer.callbacks.way._target_={__name__}.Way"]
    runs = [fit(*settings, OWN), fit(*settings, *callback("Everything"))]
    assert NOTES == [True, False]
    for part in ("state_dict", "current_model_state"):
        one, other = (run.checkpoint()[part] for run in runs)
        assert all(torch.equal(one[name], other[name]) for name in one)
    now, average = (runs[0].checkpoint()[part] for part in ("current_model_state", "state_dict"))
    assert not torch.equal(now["network.linear1.weight"], average["network.linear1.weight"])


def test_averaging_after_the_last_validation_is_refused(train: Any, tmp_path: Any) -> None:
    swa = "lightning.pytorch.callbacks.StochasticWeightAveraging"
    done = train("data=iris", f"+trainer.callbacks.swa._target_={swa}", "+trainer.callbacks.swa.swa_lrs=0.05")
    assert (done.status, len(done.err.splitlines())) == (2, 1)
    assert "lightning.pytorch.callbacks.EMAWeightAveraging is validated" in done.err
    assert not (tmp_path / "logs").exists()


class Collection(Classifier):
    @staticmethod
    def metrics_class(num_classes: int) -> Any:
        return MetricCollection({"accuracy": MulticlassAccuracy(num_classes, average="micro")})


class PerClass(Classifier):
    @staticmethod
    def metrics_class(num_classes: int) -> Any:
        return MetricCollection({"recall": MulticlassRecall(num_classes, average=None)})


def test_a_collection_of_torchmetrics_reports_its_figures_alone(fit: Any) -> None:
    monitor = ["trainer.callbacks.checkpoints.monitor=val/accuracy", "trainer.callbacks.checkpoints.mode=max"]
    run = fit(*own("Collection"), *monitor)
    assert {name for name in run.metrics if name.startswith(("val/", "test/"))} == {"val/accuracy", "test/accuracy"}
    assert run.metrics["test/accuracy"] == fit(*monitor).metrics["test/accuracy"]
    assert not (run.folder / "confusion_matrix_test.csv").exists()


def test_a_metric_of_several_numbers_is_refused_by_name(train: Any) -> None:
    done = train("data=iris", "quiet=true", *own("PerClass"))
    assert done.status == 2
    assert "computes recall of shape [3]: a figure is one number" in done.err


class Late(Callback):
    """Has something to store from the end of the first epoch on that a checkpoint cannot hold."""

    seen: Any = None

    def on_train_epoch_end(self, *args: Any) -> None:
        self.seen = object()

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.seen}


def test_a_state_that_turns_unreadable_later_is_named_and_costs_no_checkpoint(train: Any, newest: Any) -> None:
    done = train("data=iris", *callback("Late"))
    assert done.status == 2
    assert "at callbacks.Late.seen is a builtins.object, which a checkpoint cannot hold" in done.err
    assert "to continue" not in done.out
    assert newest().checkpoint("best")["epoch"] == 0


class Sampled(Loaders):
    def train_dataloader(self) -> Any:
        rows = TensorDataset(*self._rows(0, 330))
        return DataLoader(rows, self.size, sampler=WeightedRandomSampler(torch.arange(330.0), 330), num_workers=1)


class Interrupts(Callback):
    at: int | None = None

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        if trainer.global_step == self.at:
            signal.raise_signal(signal.SIGINT)


class Remembers:
    """A loader that keeps its place itself, as Lightning's page on stateful loaders has it."""

    def __init__(self, *rows: Tensor) -> None:
        self.rows, self.place = rows, 0

    def __len__(self) -> int:
        return 11

    def __iter__(self) -> Iterator[Any]:
        batches = list(zip(*(part.split(30) for part in self.rows), strict=True))
        for batch in batches[self.place :]:
            self.place = (self.place + 1) % 11
            yield batch

    def state_dict(self) -> dict[str, int]:
        return {"place": self.place}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.place = state["place"]


class Stateful(Loaders):
    def train_dataloader(self) -> Any:
        return Remembers(*self._rows(0, 330))


@pytest.mark.parametrize("name", ["Loaders", "Sampled", "Stateful"])
def test_a_fit_on_a_loader_of_ones_own_goes_on_with_the_same_rows(
    name: str, train: Any, newest: Any, on_loaders: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [*on_loaders(name), *callback("Interrupts"), "model.dropout=0.2", "trainer.max_epochs=3"]
    again = ["--config-dir", arguments[1], OWN]
    assert train(*arguments).status == 0
    whole = newest().weights()
    assert train(*arguments, "trainer.max_epochs=1").status == 0
    assert train(*again, f"run={newest().folder}", "trainer.max_epochs=3").status == 0
    assert newest().weights() == whole
    monkeypatch.setattr(Interrupts, "at", 14)  # of 11 mini-batches in an epoch
    assert train(*arguments).status == 130
    interrupted = newest()
    for step, status in ((20, 130), (None, 0)):
        monkeypatch.setattr(Interrupts, "at", step)
        assert train(*again, f"run={interrupted.folder}").status == status
    assert interrupted.weights() == whole


class Thaws(BaseFinetuning):
    def freeze_before_training(self, pl_module: Any) -> None:
        self.freeze(pl_module.network.linear1)

    def finetune_function(self, pl_module: Any, epoch: int, optimizer: Any) -> None:
        if epoch == 1:
            self.unfreeze_and_add_param_group(pl_module.network.linear1, optimizer)


def test_what_a_finetuning_callback_has_thawed_stays_so(fit: Any, train: Any) -> None:
    whole, begun = fit(*callback("Thaws"), "trainer.max_epochs=4"), fit(*callback("Thaws"), "trainer.max_epochs=3")
    assert train(f"run={begun.folder}", OWN, "trainer.max_epochs=4").status == 0
    assert begun.weights() == whole.weights()


class EachSecond(PairByHand):
    def training_step(self, batch: Any, batch_idx: int) -> None:
        if batch_idx % 2:
            super().training_step(batch, batch_idx)


def test_optimisers_that_step_now_and_then_leave_norms_alone(train: Any, newest: Any) -> None:
    done = train("data=iris", *own("EachSecond"), "trainer.log_every_n_steps=1", "trainer.max_epochs=2")
    assert done.status == 0, done.err
    assert "train/loss" not in newest().metrics  # nobody has told it


class LossAlone(Classifier):
    def loss(self, features: Tensor, targets: Tensor) -> Any:
        return cross_entropy(self(features), targets)


class LossSwapped(Classifier):
    def loss(self, features: Tensor, targets: Tensor) -> Any:
        return super().loss(features, targets)[::-1]


class LossOfEach(Classifier):
    def loss(self, features: Tensor, targets: Tensor) -> Any:
        logits = self(features)
        return cross_entropy(logits, targets, reduction="none"), logits


class LossAsNumber(Classifier):
    compilable = True

    def loss(self, features: Tensor, targets: Tensor) -> Any:
        loss, logits = super().loss(features, targets)
        return loss.item(), logits


class Criterion(Classifier):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.loss = torch.nn.CrossEntropyLoss()  # type: ignore[assignment,method-assign]


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("LossAlone", "its loss must return two tensors"),
        ("LossSwapped", "its loss must return two tensors"),
        ("LossOfEach", "its loss must return two tensors"),
        ("LossAsNumber", "its loss must return two tensors"),
        ("Criterion", "sets self.loss to a module, and has a method"),
    ],
)
def test_a_loss_that_cannot_be_one_is_refused_in_a_line(name: str, problem: str, train: Any) -> None:
    done = train("data=iris", "quiet=true", *own(name))
    assert (done.status, len(done.err.splitlines())) == (2, 1)
    assert f"classifier={name}: {problem}" in done.err


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (["trainer.gradient_clip_val=0.5"], "no such key; here it is optimizer.clip_norm"),
        (["trainer.accumulate_grad_batches=2"], "no such key; here it is optimizer.accumulate"),
        (["+trainer.gradient_clip_val=0.5"], "is not the Trainer's here: give optimizer.clip_norm"),
        (["+trainer.logger=false"], "is not the Trainer's here: give logger\n"),
        (["+trainer.default_root_dir=here"], "is not the Trainer's here: give folder"),
        (["trainer.enable_checkpointing=false"], "must be true: a run is tested, and continued, from its checkpoints"),
        (["+trainer.plugins=[]"], "trainer.plugins=[]: is set by the project itself"),
        (
            [f"+trainer.callbacks.e._target_={LIGHTNINGS}.EarlyStopping", "+trainer.callbacks.e.monitor=val_loss"],
            "trainer.callbacks.e.monitor=val_loss: must be one of val/loss",
        ),
        ([f"+trainer.callbacks.b._target_={LIGHTNINGS}.BackboneFinetuning"], "BackboneFinetuning: needs a classifier"),
        (
            [f"+trainer.callbacks.r._target_={LIGHTNINGS}.LearningRateMonitor", "logger=none"],
            "Cannot use `LearningRateMonitor` callback with `Trainer` that has no logger.",
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)  # fmt: skip
def test_settings_that_lightning_takes_elsewhere_are_refused_in_a_line(
    overrides: list[str], problem: str, train: Any
) -> None:
    done = train("data=iris", *overrides)
    assert (done.status, len(done.err.splitlines())) == (2, 1)
    assert problem in done.err


def test_a_profiler_by_its_name_reports_in_the_runs_folder(fit: Any) -> None:
    run = fit("trainer.profiler=simple", "trainer.max_epochs=1")
    assert "run_training_epoch" in (run.folder / "fit-profile.txt").read_text()


class SetUp(Loaders):
    def setup(self, stage: str) -> None:
        NOTES.append(stage)


class Rates(Classifier):
    def __init__(self, *args: Any, learning_rate: float = 0.1, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.learning_rate = learning_rate

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        features, targets = batch
        self.log("val_loss", cross_entropy(self(features), targets))


def test_a_test_sets_up_the_test_alone(train: Any, newest: Any, on_loaders: Any) -> None:
    arguments = on_loaders("SetUp")
    monitor = "trainer.callbacks.checkpoints.monitor=val_loss"
    assert train(*arguments, *own("Rates"), monitor).status == 0
    NOTES.clear()
    done = train("--config-dir", arguments[1], OWN, f"run={newest().folder}", "stage=validate")
    assert done.status == 0, done.err
    assert set(NOTES) == {"validate"}
    assert "val_loss" in done.out


class Gated(Classifier):
    def configure_model(self) -> None:
        if not hasattr(self, "gate"):
            self.gate = torch.nn.Parameter(torch.ones(()))

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features) * self.gate


def test_what_configure_model_makes_is_trained_tested_and_loaded(fit: Any, train: Any) -> None:
    run = fit(*own("Gated"))
    assert run.checkpoint("best")["state_dict"]["gate"] != 1
    done = train(f"run={run.folder}", OWN, "stage=test")
    assert done.status == 0, done.err
    gate = neurona.load(run.folder, allow=[__name__]).classifier.gate
    assert gate == run.checkpoint("best")["state_dict"]["gate"]


class Notes(Callback):
    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        pl_module.log("mine", float(trainer.current_epoch))


def test_what_ones_own_callback_logs_may_be_followed(fit: Any) -> None:
    stops = f"+trainer.callbacks.e._target_={LIGHTNINGS}.EarlyStopping"
    followed = [stops, "+trainer.callbacks.e.monitor=mine", "+trainer.callbacks.e.patience=1"]
    assert fit(*callback("Notes"), *followed, "trainer.max_epochs=9").metrics["epochs"] < 9


def test_a_checkpoint_of_lightnings_may_follow_the_step(fit: Any) -> None:
    keeps = f"+trainer.callbacks.c._target_={LIGHTNINGS}.ModelCheckpoint"
    run = fit(keeps, "+trainer.callbacks.c.monitor=step", "+trainer.callbacks.c.mode=max")
    assert len(list((run.folder / "checkpoints").glob("epoch=*.ckpt"))) == 1


def test_the_rates_that_are_logged_are_those_of_the_steps(fit: Any) -> None:
    """Both ways of stepping, and what Lightning's own monitor logs before each step."""
    settings = ["optimizer/schedule=one_cycle", "trainer.log_every_n_steps=1", "logger=csv"]
    settings += ["optimizer.groups={head.*:{lr:0.01}}", "trainer.max_epochs=2"]
    monitor = (
        "+trainer.callbacks.rates={_target_:lightning.pytorch.callbacks.LearningRateMonitor,logging_interval:step}"
    )
    figures = []
    for more in ([], [monitor]):
        run = fit(*settings, *more)
        rows = [line.split(",") for line in (run.folder / "metrics.csv").read_text().splitlines()]
        figures.append([(int(step), name, float(value)) for step, name, value in rows[1:] if "lr" in name])
        assert run.metrics["train/lr/pg2"] == pytest.approx(10 * run.metrics["train/lr/pg1"])
    fast, lightnings = figures
    assert {name for _, name, _ in fast} == {"train/lr/pg1", "train/lr/pg2"}
    assert fast == [row for row in lightnings if row[1] in ("train/lr/pg1", "train/lr/pg2")]
    for group in ("pg1", "pg2"):
        monitored = {step: rate for step, name, rate in lightnings if name == f"lr-Adam/{group}"}
        assert monitored == {step: rate for step, name, rate in fast if name == f"train/lr/{group}"}
        assert len(monitored) == 2 * STEPS
