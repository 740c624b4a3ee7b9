"""compile=true gives the eager weights to float rounding, whatever the optimiser, schedule, network and loss option."""

from __future__ import annotations

import logging
import math
import os
import shutil

import pytest
import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from noise import ASKING, KeepsSteps, Noise
from torch import nn

from neurona import schedule
from neurona.classifier import Classifier
from neurona.data.preprocessing import Standardize
from neurona.data.spec import DataSpec
from neurona.errors import ConfigError
from neurona.models.dropout import LEAST_NUMBERS
from neurona.models.linear import Linear
from neurona.models.mlp import MLP
from neurona.optimizer import Optimization, RMSprop
from neurona.steps.graphs import GraphedSteps

os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # a pool of compiling processes takes longer to start

needs_compiler = pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler")
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning:torch", "ignore::FutureWarning:torch", "ignore:TensorFloat32", "ignore:\nOnline"
)

ROWS, FEATURES, CLASSES, BATCH = 330, 12, 4, 16  # 20 whole mini-batches and one of 10 rows


def fit(
    *,
    compiled,
    optimization,
    network=lambda: MLP(FEATURES, CLASSES, hidden=[8], activation="tanh"),
    callbacks=(),
    accelerator="cpu",
    **options,
):
    """Fits two epochs; returns the classifier."""
    seed_everything(0, verbose=False)
    precision = options.pop("precision", "32-true")
    spec = DataSpec(FEATURES, CLASSES, tuple("abcd"))
    classifier = options.pop("kind", Classifier)(
        Standardize(FEATURES), network(), spec, optimization(), compile_steps=compiled, **options
    )
    classifier.kept = KeepsSteps()
    trainer = Trainer(
        accelerator=accelerator, devices=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        max_epochs=2, enable_model_summary=False, precision=precision, callbacks=[*callbacks, classifier.kept],
    )  # fmt: skip
    trainer.fit(classifier, Noise(ROWS, FEATURES, CLASSES, batch_size=BATCH, on=accelerator))
    assert trainer.global_step == trainer.max_epochs * math.ceil(21 / optimization().accumulate)
    return classifier


def assert_agrees(rtol=1e-4, atol=2e-5, **arguments):
    eager, compiled = fit(compiled=False, **arguments), fit(compiled=True, **arguments)
    assert_has_compiled(compiled)
    assert_close(compiled, eager, rtol, atol)


def assert_has_compiled(classifier):
    """A step has been compiled and used, and the compiler has not given up."""
    steps = classifier.kept.steps
    assert steps.compiles
    assert not steps.has_given_up
    if classifier.device.type == "cuda":
        assert isinstance(steps, GraphedSteps)
        assert classifier.kept.graph._graph is not None
    else:
        assert [recording for recording in steps._recordings.values() if recording is not None]


def assert_close(compiled, eager, rtol=1e-4, atol=2e-5):
    for (name, expected), actual in zip(eager.state_dict().items(), compiled.state_dict().values(), strict=True):
        torch.testing.assert_close(actual, expected, rtol=rtol, atol=atol, msg=lambda m, name=name: f"{name}: {m}")
    states = [list(c.trainer.optimizers[0].state.values()) for c in (eager, compiled)]
    torch.testing.assert_close(states[1], states[0], rtol=rtol, atol=atol)


OPTIMIZERS = {
    "adam": lambda **a: Optimization.of(torch.optim.Adam, lr=1e-2, weight_decay=1e-2, **a),
    "adamw": lambda **a: Optimization.of(torch.optim.AdamW, lr=1e-2, weight_decay=0.1, **a),
    "sgd": lambda **a: Optimization.of(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-2, **a),
    "rmsprop": lambda **a: Optimization.of(RMSprop, momentum=0.5, centered=True, weight_decay=1e-2, **a),
}
SCHEDULES = {
    "constant": schedule.constant,
    "cosine": schedule.cosine,
    "one_cycle": schedule.one_cycle,
    "plateau": lambda: schedule.plateau(patience=0, threshold=0.9),
}


PAIRS = [("adam", name) for name in SCHEDULES]
PAIRS += [(name, other) for name in OPTIMIZERS if name != "adam" for other in ("constant", "one_cycle")]


@needs_compiler
@pytest.mark.parametrize("name", ["adam", pytest.param("rmsprop", marks=pytest.mark.long)])
def test_optimizers(name):
    assert_agrees(optimization=lambda: OPTIMIZERS[name](schedule=schedule.one_cycle()))


@pytest.mark.long
@needs_compiler
def test_clipped_and_accumulated_gradients():
    assert_agrees(optimization=lambda: Optimization.of(torch.optim.Adam, clip_norm=0.05, accumulate=2))


@pytest.mark.gpu
@pytest.mark.parametrize(("optimizer_name", "schedule_name"), PAIRS)
def test_every_optimizer_and_schedule_on_a_gpu(optimizer_name, schedule_name):
    make = OPTIMIZERS[optimizer_name]
    assert_agrees(accelerator="gpu", optimization=lambda: make(schedule=SCHEDULES[schedule_name](), clip_norm=0.5))


def sgd():
    return Optimization.of(torch.optim.SGD, lr=0.1, momentum=0.9)


def adam():
    return Optimization.of(torch.optim.Adam, lr=1e-2, weight_decay=1e-2)


NETWORKS = {
    "linear": lambda: Linear(FEATURES, CLASSES),
    "gated_rms_residual": lambda: MLP(
        FEATURES, CLASSES, hidden=[8, 8], activation=["swiglu", "gelu"], normalization="rms", residual=True
    ),
    "batch_norm": lambda: MLP(FEATURES, CLASSES, hidden=[8], activation="sigmoid", normalization="batch"),
    "layer_norm": lambda: MLP(FEATURES, CLASSES, hidden=[8], activation="silu", normalization="layer"),
}


@needs_compiler
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "batch_norm" else pytest.mark.long) for name in NETWORKS]
)
def test_networks(name):
    assert_agrees(optimization=sgd, network=NETWORKS[name])


@pytest.mark.gpu
def test_double_precision_on_a_gpu():
    assert_agrees(accelerator="gpu", optimization=adam, precision="64-true", rtol=1e-6, atol=1e-8)


@pytest.mark.gpu
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_networks_on_a_gpu(name, precision):
    tolerances = {"rtol": 0.05, "atol": 0.02} if precision == "bf16-mixed" else {}
    assert_agrees(accelerator="gpu", optimization=sgd, network=NETWORKS[name], precision=precision, **tolerances)


@pytest.mark.long
@needs_compiler
@pytest.mark.parametrize(
    "options",
    [{"label_smoothing": 0.1, "class_weights": "balanced"}, {"class_weights": [1, 2, 3, 4]}],
    ids=str,
)
def test_loss_options(options):
    assert_agrees(optimization=sgd, **options)


@pytest.mark.long
@needs_compiler
def test_double_and_bfloat16_precision():
    assert_agrees(optimization=sgd, precision="64-true", rtol=1e-6, atol=1e-8)
    # bfloat16 has 8 bits: one rounding differs by 2 ** -8 relative
    assert_agrees(optimization=sgd, precision="bf16-mixed", rtol=0.05, atol=0.02)


@pytest.mark.long
@needs_compiler
def test_dropout_draws_masks_and_repeats_them_for_the_same_seed():
    def fitted(dropout):
        return fit(
            compiled=True, optimization=sgd, network=lambda: MLP(FEATURES, CLASSES, hidden=[256], dropout=dropout)
        )

    assert BATCH * 256 >= LEAST_NUMBERS
    first = fitted(0.5)
    calls = {node.target for recording in first.kept.steps._recordings.values() for node in recording.graph.nodes}
    assert torch.ops.aten.bernoulli_.float in calls  # for which the compiler has a kernel
    one, same, without = first.state_dict(), fitted(0.5).state_dict(), fitted(0.0).state_dict()
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.allclose(one["network.linear1.weight"], without["network.linear1.weight"], atol=1e-3)


class Changes(Callback):
    """Changes something between the first and the second epoch."""

    def __init__(self, change) -> None:
        self.change = change

    def on_train_epoch_start(self, trainer, pl_module) -> None:
        if trainer.current_epoch == 1:
            self.change(trainer, pl_module)


def freeze(trainer, classifier):
    classifier.network.linear1.requires_grad_(False)


def replace(trainer, classifier):
    classifier.network.head.weight.data = classifier.network.head.weight.data.clone() * 0.5


def smooth(trainer, classifier):
    classifier.label_smoothing = 0.5


def unfreeze(trainer, classifier):
    classifier.network.linear1.requires_grad_(True)


class Frozen(MLP):
    """A network whose first layer is not trained at first."""

    compilable = True

    def __init__(self) -> None:
        super().__init__(FEATURES, CLASSES, hidden=[8])
        self.linear1.requires_grad_(False)


@needs_compiler
@pytest.mark.parametrize(
    "change",
    [*(pytest.param(change, marks=pytest.mark.long) for change in (freeze, smooth)), replace],
)
def test_what_changes_during_a_fit_is_noticed(change):
    assert_agrees(optimization=sgd, callbacks=[Changes(change)])


@pytest.mark.long
@needs_compiler
def test_a_layer_is_trained_from_some_step_on():
    assert_agrees(optimization=sgd, network=Frozen, callbacks=[Changes(unfreeze)])


class Unused(MLP):
    """A network with a parameter that its output does not depend on."""

    compilable = True

    def __init__(self) -> None:
        super().__init__(FEATURES, CLASSES, hidden=[8])
        self.unused = nn.Parameter(torch.ones(3))


@pytest.mark.long
@needs_compiler
def test_a_parameter_without_a_gradient_stays_as_it_is():
    assert_agrees(optimization=lambda: Optimization.of(torch.optim.SGD, lr=0.01, weight_decay=0.1), network=Unused)


@pytest.mark.long
@needs_compiler
def test_a_parameter_that_is_a_single_number():
    assert_agrees(optimization=adam, network=lambda: MLP(FEATURES, CLASSES, hidden=[8], activation="swish"))


@needs_compiler
def test_a_hook_of_the_optimizer_sees_every_step():
    seen = []

    def watch(trainer, classifier):
        trainer.optimizers[0].register_step_post_hook(lambda *_: seen.append(trainer.global_step))

    fit(compiled=True, optimization=sgd, callbacks=[Changes(watch)])
    assert len(seen) == 21


@pytest.mark.long
@needs_compiler
def test_two_fits_in_one_process_do_not_share_a_function():
    for decay in (0.0, 0.5):
        assert_agrees(optimization=lambda d=decay: Optimization.of(torch.optim.Adam, weight_decay=d))


class Untraceable(MLP):
    """A network whose forward depends on a value, which no single graph can."""

    compilable = True

    def forward(self, features):
        return super().forward(features) * (1 if features.sum().item() > -1e9 else 2)


def test_a_network_the_compiler_refuses_goes_on_without(caplog):
    logging.getLogger("neurona").propagate = True

    def network():
        return Untraceable(FEATURES, CLASSES, hidden=[8])

    compiled = fit(compiled=True, optimization=sgd, network=network)
    assert "compile=true: steps are not recorded: it looks at a value" in caplog.text
    eager = fit(compiled=False, optimization=sgd, network=network)
    assert all(
        torch.equal(a, b) for a, b in zip(compiled.state_dict().values(), eager.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("does", ASKING)
def test_a_loss_that_asks_the_trainer_is_refused_by_name(does):
    with pytest.raises(ConfigError, match=f"classifier={ASKING[does].__name__}: its loss {does}, .*compilable = False"):
        fit(compiled=True, optimization=sgd, kind=ASKING[does])
