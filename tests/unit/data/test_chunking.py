"""Chunks give the bits of one step at a time, and Lightning's settings keep their meaning in optimiser steps."""

from __future__ import annotations

import hashlib
from functools import partial

import pytest
import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from noise import Noise

from neurona import schedule
from neurona.classifier import Classifier
from neurona.data import chunking
from neurona.data.batches import BatchLoader
from neurona.data.preprocessing import Standardize
from neurona.data.spec import DataSpec
from neurona.models.mlp import MLP
from neurona.optimizer import Muon, Optimization, RMSprop

ROWS, FEATURES, CLASSES, BATCH = 700, 20, 5, 16
BATCHES = 44  # ceil(700 / 16); the last has 12 rows


class EveryStep(Callback):
    """Wants every step, and notes what it is shown."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.batch_types: set[str] = set()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        self.steps.append(trainer.global_step)
        self.batch_types.add(type(batch).__name__)


class Recorder(EveryStep):
    """Content with chunks: notes where they end and where validation takes place."""

    chunk_aware = True

    def __init__(self) -> None:
        super().__init__()
        self.validated: list[int] = []

    def on_validation_start(self, trainer, pl_module) -> None:
        self.validated.append(trainer.global_step)


def fit(*callbacks, optimization=None, network=None, tmp_path=None, **trainer_arguments):
    """Fits a small network; returns the trainer and a hash of the final weights."""
    seed_everything(0, verbose=False)
    network = network or MLP(FEATURES, CLASSES, hidden=[16, 16], dropout=0.2)
    spec = DataSpec(FEATURES, CLASSES, tuple("abcde"))
    classifier = Classifier(Standardize(FEATURES), network, spec, optimization or Optimization.of(torch.optim.Adam))
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=list(callbacks),
        **{"max_epochs": 2, **trainer_arguments},
    )
    trainer.fit(classifier, Noise(ROWS, FEATURES, CLASSES, batch_size=BATCH))
    weights = b"".join(tensor.numpy().tobytes() for tensor in network.state_dict().values())
    return trainer, hashlib.sha256(weights).hexdigest()


OPTIMIZERS = {
    "adam": partial(Optimization.of, torch.optim.Adam),
    "adamw": partial(Optimization.of, torch.optim.AdamW),
    "nadam": partial(Optimization.of, torch.optim.NAdam),
    "muon": partial(Optimization.of, Muon, groups={"*.bias": {"lr": 1e-2}}),
    "sgd": lambda **arguments: Optimization.of(torch.optim.SGD, momentum=0.9, nesterov=True, **arguments),
    "rmsprop": lambda **arguments: Optimization.of(RMSprop, momentum=0.5, centered=True, **arguments),
}
SCHEDULES = {
    "constant": schedule.constant,
    "cosine": schedule.cosine,
    "one_cycle": schedule.one_cycle,
    "plateau": lambda: schedule.plateau(patience=0, threshold=1.0),
}


@pytest.mark.parametrize("schedule_name", SCHEDULES)
@pytest.mark.parametrize("optimizer_name", OPTIMIZERS)
def test_chunked_weights_are_bit_identical_to_single_steps(optimizer_name, schedule_name):
    def optimization():
        return OPTIMIZERS[optimizer_name](schedule=SCHEDULES[schedule_name]())

    chunked, chunked_hash = fit(optimization=optimization())  # two epochs: one chunk each
    single, single_hash = fit(EveryStep(), optimization=optimization())
    assert chunked.global_step == single.global_step == 2 * BATCHES
    assert chunked_hash == single_hash
    assert chunked.optimizers[0].param_groups[0]["lr"] == single.optimizers[0].param_groups[0]["lr"]


def test_a_hook_on_the_optimizer_is_called_at_every_step():
    calls = []

    class Hooked(Recorder):
        def on_train_start(self, trainer, pl_module) -> None:
            trainer.optimizers[0].register_step_post_hook(lambda *_: calls.append(trainer.global_step))

    fit(Hooked())
    assert len(calls) == 2 * BATCHES


@pytest.mark.parametrize(
    "arguments",
    [
        {"optimization": {"clip_norm": 0.1}},
        {"optimization": {"clip_value": 0.01}},
        {"optimization": {"accumulate": 3}},
        {"optimization": {"accumulate": 5, "clip_norm": 0.1}, "max_steps": 13},
        {"precision": "bf16-mixed"},
        {"precision": "64-true"},
        {"val_check_interval": 7},
        {"limit_train_batches": 10},
        {"max_steps": 51},
    ],
    ids=str,
)
def test_options_change_nothing_between_chunks_and_single_steps(arguments):
    options = arguments.pop("optimization", {})

    def both():
        yield fit(optimization=Optimization.of(torch.optim.Adam, schedule=schedule.cosine(), **options), **arguments)
        yield fit(
            EveryStep(),
            optimization=Optimization.of(torch.optim.Adam, schedule=schedule.cosine(), **options),
            **arguments,
        )

    (chunked, chunked_hash), (single, single_hash) = both()
    assert chunked_hash == single_hash
    assert chunked.global_step == single.global_step
    assert chunked.fit_loop.total_batch_idx == single.fit_loop.total_batch_idx


def test_batch_norm_statistics_are_bit_identical_too():
    hashes = {fit(*callbacks, network=_batch_norm_network())[1] for callbacks in ([], [EveryStep()])}
    assert len(hashes) == 1


def _batch_norm_network() -> MLP:
    torch.manual_seed(1)
    return MLP(FEATURES, CLASSES, hidden=[16], normalization="batch")


def test_a_plain_lightning_loop_gives_the_same_bits():
    """The reference: forward, backward, Adam and zero_grad on the same batches, without any of Lightning."""
    _, expected = fit(network=_plain_network(), max_epochs=2)
    network, data = _plain_network(), Noise(ROWS, FEATURES, CLASSES, batch_size=BATCH)
    adam = torch.optim.Adam(network.parameters(), fused=True)
    loader = BatchLoader(data.features, data.targets, torch.arange(ROWS), BATCH, shuffle_seed=0)
    for _ in range(2):
        for features, targets in loader:
            torch.nn.functional.cross_entropy(network(features), targets).backward()
            adam.step()
            adam.zero_grad()
    weights = b"".join(tensor.numpy().tobytes() for tensor in network.state_dict().values())
    assert hashlib.sha256(weights).hexdigest() == expected


def _plain_network() -> MLP:
    torch.manual_seed(2)
    return MLP(FEATURES, CLASSES, hidden=[16, 16])


def test_max_steps_is_counted_in_optimiser_steps():
    trainer, _ = fit(max_steps=30, max_epochs=-1)
    assert trainer.global_step == 30
    accumulating, _ = fit(max_steps=30, max_epochs=-1, optimization=Optimization.of(torch.optim.Adam, accumulate=4))
    assert accumulating.global_step == 30
    # 11 steps an epoch (44 / 4): two whole epochs and 8 steps of 4 mini-batches.
    assert accumulating.fit_loop.total_batch_idx + 1 == 2 * BATCHES + 8 * 4


def test_validation_takes_place_where_the_trainer_is_told_to():
    recorder = Recorder()
    fit(recorder, val_check_interval=10, max_epochs=1)
    assert recorder.validated == [10, 20, 30, 40]
    across_epochs = Recorder()
    fit(across_epochs, val_check_interval=30, check_val_every_n_epoch=None, max_epochs=2)
    assert across_epochs.validated == [30, 60]


def test_chunks_end_at_every_boundary_and_are_long_in_between():
    recorder = Recorder()
    fit(recorder, val_check_interval=20, max_epochs=1)
    assert recorder.steps == [20, 40, 44]
    assert recorder.batch_types == {"Chunk"}


def test_chunks_end_at_the_interval_that_a_callback_has():
    recorder = Recorder()
    recorder.every_n_steps = 15
    fit(recorder, max_epochs=1)
    assert recorder.steps == [15, 30, 44]


def test_a_callback_that_needs_every_step_gets_plain_batches_one_by_one():
    callback = EveryStep()
    fit(callback, max_epochs=1)
    assert callback.steps == list(range(1, BATCHES + 1))
    assert callback.batch_types == {"Batch"}


def test_lightnings_own_checkpoint_callback_fires_at_its_steps(tmp_path):
    saver = ModelCheckpoint(dirpath=tmp_path, filename="{step}", every_n_train_steps=15, save_top_k=-1)
    fit(saver, max_epochs=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step=15.ckpt", "step=30.ckpt"]


def test_the_chunk_length_is_a_function_of_the_work_alone():
    assert chunking.most_steps(11_000, 32, "cpu") == chunking.MAX_LENGTH
    assert chunking.most_steps(6_000_000, 1024, "cpu") == 1
    assert chunking.most_steps(6_000_000, 1024, "cuda") > 1
