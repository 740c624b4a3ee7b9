"""Training follows the textbook, the figures it reports are plain means, and a NaN is met at its step."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sklearn.metrics
import torch
from lightning.pytorch import Callback, LightningDataModule
from lightning.pytorch.loggers import Logger
from sklearn.utils.class_weight import compute_class_weight
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from neurona import schedule
from neurona.classifier import Classifier, NonFiniteLoss
from neurona.data import preprocessing
from neurona.data.batches import BatchLoader, Chunk
from neurona.errors import ConfigError
from neurona.models.linear import Linear
from neurona.models.mlp import MLP
from neurona.optimizer import Optimization

CONSTANT = schedule.constant()


def random_rows(num_rows: int, num_features: int, num_classes: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(num_rows, num_features, generator=generator)
    return features, torch.randint(0, num_classes, (num_rows,), generator=generator)


class NotedLosses(Classifier):
    """Notes the loss of every mini-batch."""

    def loss(self, features, targets):
        loss, logits = super().loss(features, targets)
        self.__dict__.setdefault("losses", []).append(loss.item())
        return loss, logits


class EveryStep(Callback):
    """Wants every step, so that nothing is chunked."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        pass


class Noted(Logger):
    """Keeps what is logged, in order."""

    name, version = "noted", ""

    def __init__(self) -> None:
        super().__init__()
        self.entries: list[tuple[int, dict[str, float]]] = []

    def log_metrics(self, metrics, step=None) -> None:
        self.entries.append((step, metrics))

    def log_hyperparams(self, params, *args, **kwargs) -> None:
        pass

    def of(self, name: str) -> list[tuple[int, float]]:
        return [(step, metrics[name]) for step, metrics in self.entries if name in metrics]


# The textbook.


def textbook(weights: list[np.ndarray], batches: list[tuple[np.ndarray, np.ndarray]]) -> list[float]:
    """Backpropagation through ReLU layers and cross-entropy, then Adam (Kingma & Ba 2015, algorithm 1), in place.

    weights: W1, b1, W2, b2, …, each W (outputs, inputs), float64. Returns the losses, each before its step.
    """
    first, second = [np.zeros_like(w) for w in weights], [np.zeros_like(w) for w in weights]
    losses = []
    for t, (x, y) in enumerate(batches, start=1):
        inputs = [x]
        for w, b in zip(weights[:-2:2], weights[1:-2:2], strict=True):
            inputs.append(np.maximum(inputs[-1] @ w.T + b, 0))
        logits = inputs[-1] @ weights[-2].T + weights[-1]
        powers = np.exp(logits - logits.max(1, keepdims=True))
        probabilities = powers / powers.sum(1, keepdims=True)
        losses.append(-np.log(probabilities[np.arange(len(y)), y]).mean())
        error = (probabilities - np.eye(logits.shape[1])[y]) / len(y)
        gradients: list[np.ndarray] = []
        for layer in reversed(range(len(inputs))):
            gradients = [error.T @ inputs[layer], error.sum(0), *gradients]
            error = (error @ weights[2 * layer]) * (inputs[layer] > 0)
        for w, m, v, g in zip(weights, first, second, gradients, strict=True):
            m += 0.1 * (g - m)
            v += 0.001 * (g**2 - v)
            w -= 1e-3 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return losses


def test_the_lessons_network_follows_the_textbook_for_twenty_steps(rows, make_trainer, make_classifier):
    torch.manual_seed(0)
    network = MLP(100, 10, hidden=[64, 64], activation="relu")
    features, targets = random_rows(20 * 32, 100, 10)
    weights = [parameter.detach().double().numpy() for parameter in network.parameters()]
    order = BatchLoader(features, targets, torch.arange(len(targets)), 32, shuffle_seed=7).order(0)
    batches = [(features[part].double().numpy(), targets[part].numpy()) for part in order.split(32)]
    losses = textbook(weights, batches)

    adam = Optimization.of(torch.optim.Adam, lr=1e-3)
    classifier = make_classifier(network, 100, 10, adam, kind=NotedLosses)
    make_trainer().fit(classifier, rows(features, targets, 32, shuffle_seed=7))

    np.testing.assert_allclose(classifier.losses, losses, atol=1e-5)
    for parameter, expected in zip(network.parameters(), weights, strict=True):
        np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=0, atol=1e-5)


def test_that_fit_was_one_chunk_of_twenty_steps(rows, make_trainer, make_classifier):
    seen = []

    class Spy(EveryStep):
        chunk_aware = True

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
            seen.append((type(batch), len(batch), trainer.global_step))

    classifier = make_classifier(MLP(100, 10, hidden=[64, 64]), 100, 10, Optimization.of(torch.optim.Adam))
    make_trainer(Spy()).fit(classifier, rows(*random_rows(20 * 32, 100, 10), 32))
    assert seen == [(Chunk, 20, 20)]


# The loss of one mini-batch.


@pytest.mark.parametrize("class_weights", [None, [0.5, 2.0, 1.0]])
def test_the_loss_of_a_row_is_multiplied_with_its_weight(make_classifier, class_weights):
    network = Linear(4, 3)
    classifier = make_classifier(network, 4, 3, class_weights=class_weights, label_smoothing=0.1)
    classifier.is_weighted = True
    features, targets = random_rows(20, 4, 3)
    weights = torch.rand(20)
    loss, logits = classifier.loss(torch.cat([features, weights[:, None]], dim=1), targets)
    torch.testing.assert_close(logits, network(features))
    of_class = np.array(class_weights or [1.0] * 3)
    smoothed = 0.9 * np.eye(3)[targets] + 0.1 / 3
    losses = -(smoothed * of_class * log_softmax(logits)).sum(1)
    expected = (losses * weights.numpy()).sum() / of_class[targets].sum()
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_equal_weights_change_nothing(rows, make_trainer, make_classifier):
    features, targets = random_rows(20 * 32, 10, 4)
    trained = []
    for weights in (None, torch.ones(len(targets))):
        torch.manual_seed(0)
        network = MLP(10, 4, hidden=[16])
        data = rows(features if weights is None else torch.cat([features, weights[:, None]], dim=1), targets, 32)
        data.row_weights = weights
        make_trainer().fit(make_classifier(network, 10, 4, Optimization.of(torch.optim.Adam)), data)
        trained.append([parameter.detach().clone() for parameter in network.parameters()])
    torch.testing.assert_close(*trained, rtol=0, atol=2e-7)


def log_softmax(logits: torch.Tensor) -> np.ndarray:
    values = logits.detach().double().numpy()
    return values - np.log(np.exp(values).sum(1, keepdims=True))


def test_label_smoothing_spreads_its_share_over_all_classes(make_classifier):
    features, targets = random_rows(50, 6, 4)
    classifier = make_classifier(MLP(6, 4, hidden=[8]), 6, 4, label_smoothing=0.2)
    loss, logits = classifier.loss(features, targets)
    log_p = log_softmax(logits)
    expected = -(0.8 * log_p[np.arange(50), targets] + 0.2 * log_p.mean(1)).mean()
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_given_class_weights_make_a_weighted_mean(make_classifier):
    features, targets = random_rows(50, 6, 3)
    weights = [0.5, 2.0, 0.0]
    classifier = make_classifier(MLP(6, 3, hidden=[8]), 6, 3, class_weights=weights)
    loss, logits = classifier.loss(features, targets)
    of_rows = np.array(weights)[targets]
    expected = -(of_rows * log_softmax(logits)[np.arange(50), targets]).sum() / of_rows.sum()
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_balanced_class_weights_are_scikit_learns(rows, make_trainer, make_classifier):
    features, _ = random_rows(60, 6, 3)
    targets = torch.tensor([0] * 40 + [1] * 15 + [2] * 5)
    classifier = make_classifier(Linear(6, 3), 6, 3, class_weights="balanced")
    make_trainer().fit(classifier, rows(features, targets, 20))
    expected = compute_class_weight("balanced", classes=np.arange(3), y=targets.numpy())
    np.testing.assert_allclose(classifier.class_weights.numpy(), expected, rtol=1e-6)


def test_smoothing_and_weights_leave_the_loss_of_validation_alone(rows, make_trainer, make_classifier):
    features, targets = random_rows(80, 6, 3)
    classifier = make_classifier(Linear(6, 3), 6, 3, label_smoothing=0.3, class_weights=[1.0, 2.0, 3.0])
    trainer = make_trainer(limit_val_batches=1.0)
    trainer.validate(classifier, rows(features, targets, 20), verbose=False)
    expected = sklearn.metrics.log_loss(targets, np.exp(log_softmax(classifier(features))))
    assert trainer.callback_metrics["val/loss"].item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("value", [-0.1, 1.0])
def test_label_smoothing_out_of_range_is_refused(make_classifier, value):
    with pytest.raises(ConfigError, match=r"classifier\.label_smoothing"):
        make_classifier(Linear(6, 3), 6, 3, label_smoothing=value)


@pytest.mark.parametrize("weights", [[1.0, 2.0], [1.0, 2.0, -1.0], "balance", []], ids=str)
def test_class_weights_that_do_not_fit_are_refused(make_classifier, weights):
    with pytest.raises(ConfigError, match=r"classifier\.class_weights=.*balanced or 3 numbers"):
        make_classifier(Linear(6, 3), 6, 3, class_weights=weights)


# What a fit reports.

ROWS, BATCH = 1030, 8  # 129 mini-batches, the last of 6 rows: chunks of 50, 50 and 29
STANDING = 1e-30  # a learning rate that moves no weight: the figures of an epoch are those of one network


@pytest.mark.parametrize("callbacks", [[], [EveryStep()]], ids=["chunked", "single steps"])
def test_training_figures_are_the_means_over_the_epochs_samples(rows, make_trainer, make_classifier, callbacks):
    features, targets = random_rows(ROWS, 6, 4)
    targets[-6:] = features[-6:].argmax(1) % 4  # the odd batch differs from the others
    # Biases of zero would move, and decide between the classes of a row that no hidden unit answers to.
    network, noted = MLP(6, 4, hidden=[8], initialization="torch"), Noted()
    classifier = make_classifier(network, 6, 4, Optimization.of(torch.optim.SGD, lr=STANDING))
    trainer = make_trainer(*callbacks, logger=noted, max_epochs=2)
    trainer.fit(classifier, rows(features, targets, BATCH, shuffle_seed=0))

    logits = network(features)
    loss = sklearn.metrics.log_loss(targets, np.exp(log_softmax(logits)))
    accuracy = sklearn.metrics.accuracy_score(targets, logits.argmax(1))
    assert trainer.callback_metrics["train/loss"].item() == pytest.approx(loss, rel=1e-6)
    assert trainer.callback_metrics["train/accuracy"].item() == pytest.approx(accuracy, rel=1e-6)
    assert [step for step, _ in noted.of("train/loss")] == [128, 257]  # counted from 0
    assert [value for _, value in noted.of("train/loss")] == pytest.approx([loss, loss], rel=1e-6)
    assert [value for _, value in noted.of("train/accuracy")] == pytest.approx([accuracy, accuracy], rel=1e-6)
    assert classifier.samples_taken == 2 * ROWS


@pytest.mark.parametrize("callbacks", [[], [EveryStep()]], ids=["chunked", "single steps"])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_step_figures_are_logged_once_at_their_steps(rows, make_trainer, make_classifier, callbacks, accumulate):
    """The mean since the figure before, over the mini-batches of whole optimiser steps."""
    noted = Noted()
    optimization = Optimization.of(torch.optim.SGD, lr=0.01, accumulate=accumulate)
    classifier = make_classifier(MLP(6, 4, hidden=[8]), 6, 4, optimization, kind=NotedLosses)
    trainer = make_trainer(*callbacks, logger=noted, log_every_n_steps=10)
    trainer.fit(classifier, rows(*random_rows(40 * BATCH * accumulate, 6, 4), BATCH))
    means = np.array(classifier.losses).reshape(4, -1).mean(1)
    assert [step for step, _ in noted.of("train/step_loss")] == [9, 19, 29, 39]
    np.testing.assert_allclose([value for _, value in noted.of("train/step_loss")], means, rtol=1e-6)


def test_validation_figures_have_the_steps_axis_and_the_classes_names(rows, make_trainer, make_classifier):
    features, targets = random_rows(100, 6, 3)
    noted, network = Noted(), Linear(6, 3)
    classifier = make_classifier(network, 6, 3)
    trainer = make_trainer(logger=noted, limit_val_batches=1.0, max_epochs=2, log_every_n_steps=10)
    trainer.fit(classifier, rows(features, targets, 10))
    assert [step for step, _ in noted.of("val/loss")] == [9, 19]
    predictions = network(features).argmax(1)
    for label in range(3):
        recall = sklearn.metrics.recall_score(targets == label, predictions == label)
        assert trainer.callback_metrics[f"val/accuracy_of/class {label}"].item() == pytest.approx(recall)
    matrix = sklearn.metrics.confusion_matrix(targets, predictions)
    np.testing.assert_array_equal(classifier.confusion_matrix, matrix)


def test_testing_and_predicting_apply_the_preprocessing(rows, make_trainer, make_classifier):
    features, targets = random_rows(100, 6, 3)
    features = 5 * features + 3
    network = Linear(6, 3)
    classifier = make_classifier(network, 6, 3)
    classifier.preprocessing = preprocessing.fit(features, torch.arange(100), "standard")
    standardised = (features - features.mean(0)) / features.std(0, correction=0)
    log_p = log_softmax(network(standardised))
    trainer = make_trainer()
    trainer.test(classifier, rows(features, targets, 10), verbose=False)
    expected = sklearn.metrics.log_loss(targets, np.exp(log_p))
    assert trainer.callback_metrics["test/loss"].item() == pytest.approx(expected, rel=1e-5)
    batches = trainer.predict(classifier, rows(features, targets, 10))
    np.testing.assert_allclose(torch.cat([p for p, _ in batches]), np.exp(log_p), rtol=1e-4, atol=1e-7)
    assert torch.cat([y for _, y in batches]).tolist() == targets.tolist()


# A NaN.


@pytest.mark.parametrize("callbacks", [[], [EveryStep()]], ids=["chunked", "single steps"])
@pytest.mark.parametrize(
    ("accumulate", "batch", "step"),
    [
        (1, 0, 1),
        (1, 16, 17),
        (1, 60, 61),  # in the second chunk
        (2, 0, 1),
        (2, 1, 1),
        (2, 31, 16),
        (2, 32, 17),
        (2, 70, 36),  # the remainder at the end of the epoch: one mini-batch alone
        (2, 69, 35),
        (2, 68, 35),
    ],
)
def test_a_nan_is_named_by_its_optimiser_step(rows, make_trainer, make_classifier, callbacks, accumulate, batch, step):
    features, targets = random_rows(71 * 4, 6, 3)
    features[4 * batch + 2, 1] = math.nan
    optimization = Optimization.of(torch.optim.SGD, lr=0.01, accumulate=accumulate)
    trainer = make_trainer(*callbacks)
    with pytest.raises(NonFiniteLoss, match=rf"became nan at optimiser step {step} \(epoch 0\)"):
        trainer.fit(make_classifier(Linear(6, 3), 6, 3, optimization), rows(features, targets, 4))


def test_a_nan_in_a_later_epoch_is_counted_from_the_start(rows, make_trainer, make_classifier):
    class Breaks(Callback):
        def on_train_epoch_start(self, trainer, pl_module) -> None:
            if trainer.current_epoch == 1:
                with torch.no_grad():
                    pl_module.network.weight.fill_(math.inf)

    network = nn.Linear(6, 3)
    trainer = make_trainer(Breaks(), max_epochs=3)
    with pytest.raises(NonFiniteLoss, match=r"at optimiser step 11 \(epoch 1\)"):
        trainer.fit(make_classifier(network, 6, 3), rows(*random_rows(40, 6, 3), 4))


# Other loaders, and accumulation.


class Ordinary(LightningDataModule):
    """What a user writes: a TensorDataset in a DataLoader."""

    def __init__(self, features, targets, batch_size) -> None:
        super().__init__()
        self.data, self.batch_size = TensorDataset(features, targets), batch_size

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.data, self.batch_size)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.data, self.batch_size)


@pytest.fixture
def fitted(make_trainer, make_classifier):
    """The weights and the final figures of a small network after a fit on a data module."""

    def run(data: LightningDataModule, optimization: Optimization, **trainer_arguments):
        torch.manual_seed(0)
        network = MLP(6, 3, hidden=[16, 8])
        trainer = make_trainer(**{"limit_val_batches": 1.0} | trainer_arguments)
        trainer.fit(make_classifier(network, 6, 3, optimization), data)
        return nn.utils.parameters_to_vector(network.parameters()).detach(), trainer

    return run


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.parametrize("accumulate", [1, 2])
def test_an_ordinary_dataloader_gives_the_weights_of_the_loader_in_memory(rows, fitted, accumulate):
    features, targets = random_rows(203, 6, 3)

    def optimization():
        return Optimization.of(torch.optim.Adam, lr=1e-2, schedule=schedule.cosine(), accumulate=accumulate)

    ours, our_trainer = fitted(rows(features, targets, 10), optimization(), max_epochs=2)
    theirs, their_trainer = fitted(Ordinary(features, targets, 10), optimization(), max_epochs=2)
    torch.testing.assert_close(theirs, ours, rtol=0, atol=0)
    assert their_trainer.global_step == our_trainer.global_step == 2 * math.ceil(21 / accumulate)
    for name, value in our_trainer.callback_metrics.items():
        torch.testing.assert_close(their_trainer.callback_metrics[name], value, msg=name)


@pytest.mark.parametrize("k", [2, 5])
def test_accumulating_k_mini_batches_is_one_of_k_times_the_size(rows, fitted, k):
    features, targets = random_rows(200, 6, 3)
    sgd = {"lr": 0.5, "momentum": 0.9, "schedule": CONSTANT}
    large, _ = fitted(rows(features, targets, 20), Optimization.of(torch.optim.SGD, **sgd), max_epochs=3)
    small, trainer = fitted(
        rows(features, targets, 20 // k), Optimization.of(torch.optim.SGD, **sgd, accumulate=k), max_epochs=3
    )
    assert trainer.global_step == 30
    torch.testing.assert_close(small, large, rtol=1e-4, atol=1e-5)  # float32 sums in another order


def test_the_remainder_of_an_epoch_counts_as_much_as_each_of_its_mini_batches_does(rows, fitted):
    """Three mini-batches, two to a step: the second step is half of the third mini-batch's mean gradient, as in
    Lightning.
    """
    features, targets = random_rows(30, 6, 3)
    taken, _ = fitted(rows(features, targets, 10), Optimization.of(torch.optim.SGD, lr=0.5, accumulate=2))
    torch.manual_seed(0)
    network = MLP(6, 3, hidden=[16, 8])
    for part, share in ((slice(0, 20), 1), (slice(20, 30), 0.5)):
        gradients = torch.autograd.grad(
            nn.functional.cross_entropy(network(features[part]), targets[part]), list(network.parameters())
        )
        with torch.no_grad():
            for parameter, gradient in zip(network.parameters(), gradients, strict=True):
                parameter -= 0.5 * share * gradient
    expected = nn.utils.parameters_to_vector(network.parameters()).detach()
    torch.testing.assert_close(taken, expected, rtol=1e-5, atol=1e-6)


def test_changing_the_loss_takes_one_method(rows, make_trainer, make_classifier):
    class SquaredError(Classifier):
        def loss(self, features, targets):
            logits = self(features)
            return nn.functional.mse_loss(logits, nn.functional.one_hot(targets, 3).float()), logits

    features, targets = random_rows(30, 6, 3)
    network = nn.Linear(6, 3)
    with torch.no_grad():
        gradient = 2 * (network(features) - nn.functional.one_hot(targets)).T @ features / (30 * 3)
        expected = network.weight - 0.1 * gradient
    make_trainer().fit(make_classifier(network, 6, 3, kind=SquaredError), rows(features, targets, 30))
    torch.testing.assert_close(network.weight.detach(), expected)
