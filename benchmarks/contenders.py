"""Who is timed. Each contender trains one network on the same rows; its libraries are imported when it is made."""

from __future__ import annotations

import itertools
import os
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from clock import Clock
from networks import Network


@dataclass(frozen=True)
class Job:
    """folder: holds ``features.npy`` and ``targets.npy``, and takes what a run writes. threads: None is the library's
    own choice. device: cpu or cuda.
    """

    network: Network
    folder: Path
    threads: int | None = None
    device: str = "cpu"


class Outcome(NamedTuple):
    """steps: optimiser steps taken in the timed epochs, as the library counts them. loss: training loss of the last
    epoch, which shows that it learns. threads: of its arithmetic.
    """

    steps: int
    loss: float
    threads: int


Repeat = Callable[[int, Clock], Outcome]
"""(epochs, clock): new weights, one untimed epoch, then so many timed ones."""


class Contender(NamedTuple):
    words: str
    make: Callable[[Job], Repeat]
    requires: tuple[str, ...] = ()
    devices: tuple[str, ...] = ("cpu", "cuda")
    precision: str = "float32"  # of its matrix products: float32, tf32 or bfloat16


def rows(job: Job) -> tuple[np.ndarray, np.ndarray]:
    """The training rows: features (n, num_features) float32, scaled; targets (n,) int64."""
    return np.load(job.folder / "features.npy"), np.load(job.folder / "targets.npy")


def plain_loop(job: Job, *, threads: int | None = None, validates: bool = False) -> Repeat:
    """validates: an epoch ends with loss and accuracy of as many rows as neurona takes."""
    import torch
    from torch import nn
    from torch.nn.functional import cross_entropy

    if threads := threads or job.threads:
        torch.set_num_threads(threads)
    features, targets = (torch.from_numpy(array).to(job.device) for array in rows(job))
    held_out = slice(len(features) // 7)
    batch_size = job.network.batch_size

    def repeat(epochs: int, clock: Clock) -> Outcome:
        torch.manual_seed(0)
        layers = [[nn.Linear(before, after), nn.ReLU()] for before, after in pairwise(job.network.widths)]
        network = nn.Sequential(*itertools.chain(*layers))[:-1].to(job.device)
        optimizer = torch.optim.Adam(network.parameters(), fused=True)

        @torch.no_grad()
        def validate() -> tuple[float, float]:
            logits = torch.cat([network(block) for block in features[held_out].split(4096)])
            correct = (logits.argmax(1) == targets[held_out]).float().mean()
            return cross_entropy(logits, targets[held_out]).item(), correct.item()

        def train(epochs: int) -> None:
            for _ in range(epochs):
                clock.resume()
                order = torch.randperm(len(features), device=job.device)
                for start in range(0, len(features), batch_size):
                    batch = order[start : start + batch_size]
                    loss = cross_entropy(network(features[batch]), targets[batch])
                    loss.backward()
                    optimizer.step()
                    optimizer.zero_grad()
                if validates:
                    if job.device == "cuda":
                        torch.cuda.synchronize()
                    clock.pause()
                    validate()
            if job.device == "cuda":
                torch.cuda.synchronize()

        train(1)
        untimed = _adam_steps(optimizer)
        clock.start()
        train(epochs)
        clock.stop()
        with torch.no_grad():
            loss = cross_entropy(network(features[:10_000]), targets[:10_000]).item()
        return Outcome(_adam_steps(optimizer) - untimed, loss, torch.get_num_threads())

    return repeat


def validated_loop(job: Job) -> Repeat:
    from neurona.devices import cpu

    cpu.set_threads(job.threads, job.network.num_parameters * job.network.batch_size)
    return plain_loop(job, validates=True)


def prepared_loop(job: Job) -> Repeat:
    from neurona.devices import cpu

    cpu.set_threads(job.threads, job.network.num_parameters * job.network.batch_size)
    return cpu.prepared()(plain_loop(job))


def _adam_steps(optimizer: Any) -> int:
    return int(next(iter(optimizer.state.values()))["step"])


def neurona_run(job: Job, *overrides: str) -> Repeat:
    from callbacks import EpochClock

    import neurona

    given = [
        *job.network.overrides,
        f"trainer={'gpu' if job.device == 'cuda' else 'cpu'}",
        f"threads={job.threads or 'null'}",
        "+trainer.callbacks.clock._target_=callbacks.EpochClock",
        *overrides,
    ]
    folder = job.folder / "run"

    def repeat(epochs: int, clock: Clock) -> Outcome:
        EpochClock.clock = clock
        neurona.run([*given, f"folder={folder}", f"trainer.max_epochs={epochs + 1}"])
        shutil.rmtree(folder)
        return Outcome(EpochClock.steps, EpochClock.loss, EpochClock.threads)

    return repeat


def usual_lightning(job: Job) -> Repeat:
    import torch
    from callbacks import EpochClock
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar
    from lightning.pytorch.loggers import TensorBoardLogger
    from torch import Tensor, nn
    from torch.utils.data import DataLoader, TensorDataset
    from torchmetrics import MaxMetric, MeanMetric
    from torchmetrics.classification import MulticlassAccuracy

    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    if job.threads:
        torch.set_num_threads(job.threads)
    data = TensorDataset(*map(torch.from_numpy, rows(job)))
    validation = TensorDataset(*data[: len(data) // 7])
    batch_size = job.network.batch_size

    class Usual(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            layers = [[nn.Linear(before, after), nn.ReLU()] for before, after in pairwise(job.network.widths)]
            self.network = nn.Sequential(*itertools.chain(*layers))[:-1]
            self.criterion = nn.CrossEntropyLoss()
            self.train_loss, self.val_loss = MeanMetric(), MeanMetric()
            self.train_accuracy, self.val_accuracy = (MulticlassAccuracy(10, average="micro") for _ in range(2))
            self.best_accuracy = MaxMetric()

        def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
            features, targets = batch
            logits = self.network(features)
            loss = self.criterion(logits, targets)
            self.train_loss(loss)
            self.train_accuracy(logits.argmax(1), targets)
            self.log("train/loss", self.train_loss, on_step=False, on_epoch=True, prog_bar=True)
            self.log("train/accuracy", self.train_accuracy, on_step=False, on_epoch=True, prog_bar=True)
            return loss

        def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
            features, targets = batch
            logits = self.network(features)
            self.val_loss(self.criterion(logits, targets))
            self.val_accuracy(logits.argmax(1), targets)
            self.log("val/loss", self.val_loss, on_step=False, on_epoch=True, prog_bar=True)
            self.log("val/accuracy", self.val_accuracy, on_step=False, on_epoch=True, prog_bar=True)

        def on_validation_epoch_end(self) -> None:
            self.best_accuracy(self.val_accuracy.compute())
            self.log("val/best_accuracy", self.best_accuracy.compute(), prog_bar=True)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), lr=1e-3)

    folder = job.folder / "run"

    def repeat(epochs: int, clock: Clock) -> Outcome:
        EpochClock.clock = clock
        trainer = Trainer(
            accelerator="gpu" if job.device == "cuda" else "cpu",
            devices=1,
            max_epochs=epochs + 1,
            logger=TensorBoardLogger(folder),
            callbacks=[
                TQDMProgressBar(),
                ModelCheckpoint(folder / "checkpoints", monitor="val/accuracy", mode="max", save_last=True),
                EpochClock(),
            ],
        )
        trainer.fit(
            Usual(),
            DataLoader(data, batch_size=batch_size, shuffle=True),
            DataLoader(validation, batch_size=batch_size),
        )
        shutil.rmtree(folder)
        return Outcome(EpochClock.steps, EpochClock.loss, EpochClock.threads)

    return repeat


def keras_fit(job: Job, *, steps_per_execution: int = 1) -> Repeat:
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    import keras  # type: ignore[import-not-found]
    import tensorflow as tf  # type: ignore[import-untyped]

    if job.threads:
        tf.config.threading.set_intra_op_parallelism_threads(job.threads)
        tf.config.threading.set_inter_op_parallelism_threads(job.threads)
    features, targets = rows(job)

    class EpochClock(keras.callbacks.Callback):
        def __init__(self, clock: Clock) -> None:
            super().__init__()
            self.clock = clock

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch == 1:
                self.untimed = int(self.model.optimizer.iterations.numpy())
                self.clock.start()

        def on_train_end(self, logs: Any = None) -> None:
            self.clock.stop()

    def repeat(epochs: int, clock: Clock) -> Outcome:
        keras.utils.clear_session()
        keras.utils.set_random_seed(0)
        _, *hidden, num_classes = job.network.widths
        layers = [keras.layers.Dense(width, activation="relu") for width in hidden]
        model = keras.Sequential(
            [keras.Input((job.network.num_features,)), *layers, keras.layers.Dense(num_classes, activation="softmax")]
        )
        model.compile(
            "adam", "sparse_categorical_crossentropy", metrics=["accuracy"], steps_per_execution=steps_per_execution
        )
        timed = EpochClock(clock)
        history = model.fit(
            features, targets, batch_size=job.network.batch_size, epochs=epochs + 1, callbacks=[timed]
        ).history
        steps = int(model.optimizer.iterations.numpy()) - timed.untimed
        threads = tf.config.threading.get_intra_op_parallelism_threads() or os.cpu_count() or 1
        return Outcome(steps, history["loss"][-1], threads)

    return repeat


def scikit_learn(job: Job) -> Repeat:
    from sklearn.exceptions import ConvergenceWarning  # type: ignore[import-untyped]
    from sklearn.neural_network import MLPClassifier  # type: ignore[import-untyped]
    from threadpoolctl import threadpool_info, threadpool_limits  # type: ignore[import-untyped]

    warnings.filterwarnings("ignore", category=ConvergenceWarning)
    if job.threads:
        threadpool_limits(job.threads)
    features, targets = rows(job)

    def repeat(epochs: int, clock: Clock) -> Outcome:
        classifier = MLPClassifier(
            job.network.hidden,
            batch_size=job.network.batch_size,
            alpha=0.0,
            max_iter=1,
            n_iter_no_change=epochs + 2,
            warm_start=True,
            random_state=0,
        )
        classifier.fit(features, targets)
        classifier.set_params(max_iter=epochs)
        clock.start()
        classifier.fit(features, targets)
        clock.stop()
        threads = max((library["num_threads"] for library in threadpool_info()), default=1)
        return Outcome(classifier._optimizer.t, classifier.loss_, threads)

    return repeat


def _neurona(words: str, *overrides: str, **further: Any) -> Contender:
    return Contender(words, lambda job: neurona_run(job, *overrides), ("neurona",), **further)


_DEFAULTS = "progress bar, metrics, validation, checkpoints, TensorBoard"
_KERAS = ("keras", "tensorflow")

CONTENDERS = {
    "loop": Contender(
        "plain torch loop: slices of float32 tensors, randperm each epoch, fused Adam, nothing logged", plain_loop
    ),
    "loop-1-thread": Contender(
        "the same with torch.set_num_threads(1)", partial(plain_loop, threads=1), devices=("cpu",)
    ),
    "loop-validated": Contender(
        "the plain loop with neurona's number of threads, and a validation of loss and accuracy every epoch",
        validated_loop,
        ("neurona",),
    ),
    "loop-prepared": Contender(
        "the plain loop with neurona's number of threads, its flushing of subnormal numbers and its use of memory",
        prepared_loop,
        ("neurona",),
        devices=("cpu",),
    ),
    "neurona": _neurona(f"neurona's default run: {_DEFAULTS}"),
    "neurona-compile": _neurona("the same with compile=true", "compile=true"),
    "neurona-bf16": _neurona(
        "the default run with trainer.precision=bf16-mixed", "trainer.precision=bf16-mixed", precision="bfloat16"
    ),
    "neurona-compile-bf16": _neurona(
        "compile=true trainer.precision=bf16-mixed",
        "compile=true",
        "trainer.precision=bf16-mixed",
        precision="bfloat16",
    ),
    "neurona-compile-tf32": _neurona(
        "compile=true float32_matmul=high",
        "compile=true",
        "float32_matmul=high",
        devices=("cuda",),
        precision="tf32",
    ),
    "lightning": Contender(
        "the usual Lightning pattern, as in lightning-hydra-template: DataLoader over TensorDataset, automatic "
        "optimisation, torchmetrics objects logged every step, TQDM bar, ModelCheckpoint, TensorBoardLogger",
        usual_lightning,
    ),
    "keras": Contender(
        "Keras on TensorFlow, fit with its defaults and metrics=['accuracy']", keras_fit, _KERAS, ("cpu",)
    ),
    "keras-50": Contender(
        "the same with compile(steps_per_execution=50)", partial(keras_fit, steps_per_execution=50), _KERAS, ("cpu",)
    ),
    "sklearn": Contender(
        "scikit-learn's MLPClassifier (Adam, no early stopping, alpha=0)", scikit_learn, ("sklearn",), ("cpu",)
    ),
}
