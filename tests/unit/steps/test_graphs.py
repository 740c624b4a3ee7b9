"""Recorded steps have the bits of ordinary ones, and what cannot be recorded is computed in the ordinary way."""

from __future__ import annotations

import logging
import random
import shutil
import warnings
from types import SimpleNamespace

import pytest
import torch
from changes import Annealed, Changes, Drops, drop, evaluate, freeze, relabel, replace, smooth
from lightning.pytorch import Callback, Trainer, seed_everything
from noise import ASKING, KeepsSteps, Noise, assert_same, messages, tensors
from torch import nn

from neurona import schedule
from neurona.classifier import Classifier
from neurona.data.batches import BatchLoader
from neurona.data.preprocessing import Standardize
from neurona.data.spec import DataSpec
from neurona.errors import ConfigError
from neurona.models.embedding import Embedding
from neurona.models.linear import Linear
from neurona.models.mlp import MLP
from neurona.optimizer import Optimization, RMSprop
from neurona.steps import graphs, recorded
from neurona.steps.graphs import Graph
from neurona.steps.norms import StepNorms
from neurona.steps.steps import DirectSteps
from neurona.tables import encoding as encodings

# What torch says of itself.
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning:torch",
    "ignore::FutureWarning:torch",
    "ignore:Synchronization debug mode",
    "ignore:Mismatch dtype between input and weight",
    "ignore:TensorFloat32",
    "ignore:\nOnline",
)

ROWS, FEATURES, CLASSES, EPOCHS = 330, 12, 4, 3  # an epoch has 20 whole mini-batches of 16 rows and one of 10


class EveryStep(Callback):
    """Has every step taken by itself, through Lightning's hooks."""

    def on_train_batch_end(self, *_) -> None:
        pass


def fit(
    *callbacks,
    network,
    optimization,
    accelerator,
    kind=Classifier,
    precision="32-true",
    preprocessing=lambda data: Standardize(FEATURES),
    data_on=None,
    deterministic=None,
    **options,
):
    seed_everything(0, verbose=False)
    data = Noise(ROWS, FEATURES, CLASSES, on=data_on or accelerator)
    spec = DataSpec(FEATURES, CLASSES, tuple("abcd"))
    classifier = kind(preprocessing(data), network(), spec, optimization(), **options)
    classifier.kept = KeepsSteps()
    trainer = Trainer(
        accelerator=accelerator, devices=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        max_epochs=EPOCHS, enable_model_summary=False, precision=precision, callbacks=[*callbacks, classifier.kept],
        limit_val_batches=0, deterministic=deterministic,
    )  # fmt: skip
    try:
        trainer.fit(classifier, data)
    finally:
        torch.use_deterministic_algorithms(False)
    return classifier


def mlp(**arguments):
    return lambda: MLP(FEATURES, CLASSES, **{"hidden": [8], **arguments})


def adam(**arguments):
    return lambda: Optimization.of(torch.optim.Adam, lr=1e-2, **{"schedule": schedule.constant(), **arguments})


class Recorder:
    """Stands in for a CUDA graph on the CPU: every replay overwrites the result of the one before."""

    recordings = 0

    def __init__(self, function) -> None:
        type(self).recordings += 1
        self.function, self.result = function, []

    def replay(self) -> None:
        computed = self.function()
        for tensor in self.result:
            if tensor is not None:
                tensor.fill_(torch.nan)
        self.result[:] = computed


@pytest.fixture
def _on_the_cpu(monkeypatch):
    def recorded(function):
        made = Recorder(function)
        return made, made.result

    monkeypatch.setattr(Recorder, "recordings", 0)
    monkeypatch.setattr(graphs, "recorded", recorded)
    monkeypatch.setattr(graphs, "noting_waits", lambda function: (function(), False))
    monkeypatch.setattr(graphs, "wanted", lambda classifier: True)
    # Here, dropout draws from torch's generator on the CPU.
    monkeypatch.setattr(graphs.GraphedSteps, "_state", lambda self: (self.fixed(), random.getstate()))


OPTIMIZATIONS = {
    "adam": adam(schedule=schedule.cosine(), clip_norm=0.5),
    "sgd": lambda: Optimization.of(
        torch.optim.SGD, lr=0.1, momentum=0.9, schedule=schedule.one_cycle(), clip_value=0.01
    ),
    "rmsprop": lambda: Optimization.of(RMSprop),
}


@pytest.mark.usefixtures("_on_the_cpu")
@pytest.mark.parametrize("name", OPTIMIZATIONS)
def test_replayed_steps_have_the_bits_of_steps_taken_one_at_a_time(name, monkeypatch):
    arguments = {"network": mlp(dropout=0.3), "optimization": OPTIMIZATIONS[name], "accelerator": "cpu"}
    replayed = fit(**arguments)
    assert Recorder.recordings == 1
    assert_same(replayed, fit(EveryStep(), **arguments))


@pytest.mark.usefixtures("_on_the_cpu")
@pytest.mark.parametrize("change", [freeze, replace, relabel, smooth, drop, evaluate])
def test_what_changes_during_a_fit_is_recorded_again(change, monkeypatch):
    arguments = {"network": mlp(dropout=0.3), "optimization": adam(), "accelerator": "cpu"}
    replayed = fit(Changes(change), **arguments)
    assert Recorder.recordings == 2
    monkeypatch.setattr("neurona.steps.choice.steps_of", DirectSteps)
    assert_same(replayed, fit(Changes(change), **arguments))


@pytest.mark.usefixtures("_on_the_cpu")
@pytest.mark.parametrize("kind", [Annealed, Drops])
def test_a_module_that_does_more_in_every_step_is_not_recorded(kind, caplog, monkeypatch):
    logging.getLogger("neurona").propagate = True
    arguments = {"optimization": adam(), "accelerator": "cpu"}
    ordinary = fit(network=lambda: kind(FEATURES, CLASSES, hidden=[8]), **arguments)
    assert Recorder.recordings == 0
    assert messages(caplog, "a module draws numbers in Python, or changes its settings, in every step") == 1
    monkeypatch.setattr("neurona.steps.choice.steps_of", DirectSteps)
    assert_same(ordinary, fit(network=lambda: kind(FEATURES, CLASSES, hidden=[8]), **arguments))


@pytest.mark.usefixtures("_on_the_cpu")
@pytest.mark.parametrize("does", ASKING)
def test_a_loss_that_asks_the_trainer_is_refused_by_name(does):
    with pytest.raises(ConfigError, match=f"classifier={ASKING[does].__name__}: its loss {does}, .*compilable = False"):
        fit(network=mlp(), optimization=adam(), accelerator="cpu", kind=ASKING[does])


WATCHED = {
    "classifier": lambda classifier, hook: classifier.register_forward_hook(hook),
    "forward": lambda classifier, hook: classifier.network.head.register_forward_hook(hook),
    "backward": lambda classifier, hook: classifier.network.head.register_full_backward_hook(hook),
    "gradient": lambda classifier, hook: classifier.network.head.weight.register_hook(hook),
    "accumulated": lambda classifier, hook: classifier.network.head.weight.register_post_accumulate_grad_hook(hook),
}


@pytest.mark.usefixtures("_on_the_cpu")
@pytest.mark.parametrize("how", WATCHED)
def test_a_hook_sees_every_step_from_the_chunk_on_in_which_it_is_there(how):
    class Watches(Callback):
        seen = 0

        def on_train_epoch_start(self, trainer, pl_module) -> None:
            if trainer.current_epoch == EPOCHS - 1:
                WATCHED[how](pl_module, self.watch)

        def watch(self, *_) -> None:
            self.seen += 1

    watches = Watches()
    fit(watches, network=mlp(), optimization=adam(), accelerator="cpu")
    assert (watches.seen, Recorder.recordings) == (21, 1)


@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler")
@pytest.mark.usefixtures("_on_the_cpu")
@pytest.mark.long
@pytest.mark.parametrize("name", ["adam", "rmsprop"])
def test_compiled_steps_are_recorded_whole(name, monkeypatch):
    arguments = {"network": mlp(normalization="layer"), "optimization": OPTIMIZATIONS[name], "accelerator": "cpu"}
    replayed = fit(compile_steps=True, **arguments)
    assert Recorder.recordings == 1
    monkeypatch.setattr(graphs, "wanted", lambda classifier: False)
    torch.testing.assert_close(tensors(replayed), tensors(fit(**arguments)), rtol=1e-4, atol=2e-5)


@pytest.mark.usefixtures("_on_the_cpu")
def test_loss_and_accuracy_of_the_epochs_are_those_of_ordinary_steps(monkeypatch):
    class Notes(Callback):
        def on_train_epoch_end(self, trainer, pl_module) -> None:
            pl_module.noted = [*getattr(pl_module, "noted", []), pl_module.epoch_means()]

    arguments = {"network": mlp(), "optimization": adam(), "accelerator": "cpu"}
    replayed = fit(Notes(), **arguments)
    monkeypatch.setattr(graphs, "wanted", lambda classifier: False)
    assert Recorder.recordings == 1
    assert replayed.noted == fit(Notes(), **arguments).noted
    assert len(replayed.noted) == EPOCHS


@pytest.mark.usefixtures("_on_the_cpu")
def test_what_changes_all_the_time_is_not_recorded_for_ever(caplog, monkeypatch):
    logging.getLogger("neurona").propagate = True
    monkeypatch.setattr(recorded, "MAX_RECORDINGS", 2)

    class Schedule(Callback):
        def on_train_epoch_start(self, trainer, pl_module) -> None:
            pl_module.network.dropout1.p = 0.1 * trainer.current_epoch

    arguments = {"network": mlp(dropout=0.3), "optimization": adam(), "accelerator": "cpu"}
    replayed = fit(Schedule(), **arguments)
    assert Recorder.recordings == 2
    assert messages(caplog, "what it depends on has changed 2 times") == 1
    monkeypatch.setattr("neurona.steps.choice.steps_of", DirectSteps)
    assert_same(replayed, fit(Schedule(), **arguments))


class Shared(MLP):
    """Two parameters that are only ever added up, and one that a sum takes: their gradients share memory."""

    compilable = True

    def __init__(self) -> None:
        super().__init__(FEATURES, CLASSES, hidden=[8])
        self.more = nn.Parameter(torch.zeros(CLASSES, 8))
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, features):
        hidden = self[:-1](features)
        return nn.functional.linear(hidden, self.head.weight + self.more, self.head.bias) * self.scale.sum()


@pytest.mark.usefixtures("_on_the_cpu")
@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_gradients_of_one_memory_are_not_clipped_twice(name, monkeypatch):
    arguments = {"network": Shared, "optimization": OPTIMIZATIONS[name], "accelerator": "cpu"}
    replayed = fit(**arguments)
    assert Recorder.recordings == 1
    monkeypatch.setattr("neurona.steps.choice.steps_of", DirectSteps)
    assert_same(replayed, fit(**arguments))


@pytest.mark.usefixtures("_on_the_cpu")
def test_gradients_that_are_kept_are_those_of_their_step(monkeypatch):
    class Looks(Callback):
        def on_train_start(self, trainer, pl_module) -> None:
            pl_module.norms = StepNorms(pl_module.network, keeps_gradients=True)
            pl_module.is_logged = lambda step: step == 30

        def on_train_end(self, trainer, pl_module) -> None:
            self.found = pl_module.norms.gradients

    kept, expected = Looks(), Looks()
    arguments = {"network": mlp(), "optimization": OPTIMIZATIONS["adam"], "accelerator": "cpu"}
    fit(kept, **arguments)
    assert Recorder.recordings == 1
    monkeypatch.setattr(graphs, "wanted", lambda classifier: False)
    fit(expected, **arguments)
    assert len(kept.found) == 4
    assert all(torch.equal(gradient, expected.found[name]) for name, gradient in kept.found.items())


@pytest.mark.usefixtures("_on_the_cpu")
def test_a_parameter_that_the_loss_does_not_depend_on_keeps_its_value():
    class Unused(Linear):
        compilable = True

        def __init__(self) -> None:
            super().__init__(FEATURES, CLASSES)
            self.unused = nn.Parameter(torch.ones(3))

    classifier = fit(network=Unused, optimization=adam(), accelerator="cpu")
    assert Recorder.recordings == 1
    assert torch.equal(classifier.network.unused, torch.ones(3))
    assert not torch.equal(classifier.network.head.weight, torch.zeros(CLASSES, FEATURES))


def test_a_function_that_cannot_be_recorded_is_called_as_it_is(monkeypatch):
    def refuses(function):
        raise RuntimeError("operation not permitted\nand more")

    monkeypatch.setattr(graphs, "recorded", refuses)
    monkeypatch.setattr(graphs, "noting_waits", lambda function: (function(), False))
    calls, reasons = iter(range(4)), []
    graph = Graph(lambda: next(calls), reasons.append)
    assert [graph() for _ in range(4)] == [0, 1, 2, 3]
    assert reasons == ["operation not permitted"]


@pytest.mark.parametrize("waits", [True, False])
def test_what_waits_in_the_last_of_the_first_calls_is_not_recorded(waits, monkeypatch):
    noted = []

    def noting_waits(function):
        noted.append(function())
        return noted[-1], waits

    monkeypatch.setattr(graphs, "noting_waits", noting_waits)
    monkeypatch.setattr(graphs, "recorded", lambda function: (SimpleNamespace(replay=lambda: None), "replayed"))
    calls, reasons = iter(range(3)), []
    graph = Graph(lambda: next(calls), reasons.append)
    assert [graph() for _ in range(3)] == [0, 1, 2]
    assert (noted, reasons) == ([2], ["a module waits for the GPU"] * waits)
    if not waits:
        assert [graph(), graph()] == ["replayed"] * 2


def test_warnings_of_a_function_are_heard_as_ever_but_for_those_that_say_that_it_waits(monkeypatch):
    modes = ["default"]
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: modes[-1])
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)

    def function():
        warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
        warnings.warn("of mine", stacklevel=1)
        warnings.warn("Synchronization debug mode is a prototype feature", stacklevel=1)
        return 1

    with pytest.warns(UserWarning, match="of mine") as heard:
        assert graphs.noting_waits(function) == (1, True)
    assert [str(warning.message) for warning in heard] == ["of mine"]
    assert heard[0].filename == __file__
    assert modes == ["default", "warn", "default"]
    assert graphs.noting_waits(lambda: 2) == (2, False)
    with pytest.raises(KeyError):
        graphs.noting_waits(lambda: {}[0])
    assert modes[-1] == "default"


class FailsWhileRecorded(torch.autograd.Function):
    """The identity, whose backward pass fails while it is recorded."""

    is_recorded = False

    @staticmethod
    def forward(ctx, features):
        return features.clone()

    @staticmethod
    def backward(ctx, gradient):
        if FailsWhileRecorded.is_recorded:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return gradient


class Fails(MLP):
    compilable = True

    def forward(self, features):
        return self.head(FailsWhileRecorded.apply(self[:-1](features)))


@pytest.mark.usefixtures("_on_the_cpu")
def test_a_recording_that_fails_on_its_way_leaves_no_gradients(caplog, monkeypatch):
    def recorded(function):
        monkeypatch.setattr(FailsWhileRecorded, "is_recorded", True)
        try:
            return Recorder(function), function()
        finally:
            monkeypatch.setattr(FailsWhileRecorded, "is_recorded", False)

    monkeypatch.setattr(graphs, "recorded", recorded)
    logging.getLogger("neurona").propagate = True
    arguments = {"optimization": adam(), "accelerator": "cpu"}
    refused = fit(network=lambda: Fails(FEATURES, CLASSES, hidden=[8]), **arguments)
    assert messages(caplog, "going on without recording a step: CUDA out of memory") == 1
    monkeypatch.setattr("neurona.steps.choice.steps_of", DirectSteps)
    assert_same(refused, fit(network=lambda: Fails(FEATURES, CLASSES, hidden=[8]), **arguments))


# On a GPU.

NETWORKS = {
    "dropout": mlp(hidden=[8, 8], dropout=0.3),
    "batch_norm": mlp(normalization="batch", activation="tanh"),
    "gated_rms_residual": mlp(hidden=[8, 8], activation=["swiglu", "gelu"], normalization="rms", residual=True),
    "layer_norm": mlp(normalization="layer", activation="selu", dropout=0.1),
    "linear": lambda: Linear(FEATURES, CLASSES),
}
SCHEDULES = {
    "constant": schedule.constant,
    "cosine": schedule.cosine,
    "one_cycle": schedule.one_cycle,
    "plateau": lambda: schedule.plateau(patience=0, threshold=0.9),
}
OPTIMIZERS = {
    "adam": lambda **a: Optimization.of(torch.optim.Adam, lr=1e-2, weight_decay=1e-2, **a),
    "adamw": lambda **a: Optimization.of(torch.optim.AdamW, lr=1e-2, clip_norm=0.5, **a),
    "sgd": lambda **a: Optimization.of(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True, clip_value=0.01, **a),
    "rmsprop": lambda **a: Optimization.of(RMSprop, momentum=0.5, centered=True, **a),
}


def assert_recorded_with_the_same_bits(**arguments):
    recorded = fit(accelerator="gpu", **arguments)
    assert recorded.kept.graph._graph is not None
    one_at_a_time = fit(EveryStep(), accelerator="gpu", **arguments)
    assert one_at_a_time.kept.steps is None
    assert_same(recorded, one_at_a_time)


@pytest.mark.gpu
@pytest.mark.parametrize("schedule_name", SCHEDULES)
@pytest.mark.parametrize("optimizer_name", OPTIMIZERS)
def test_every_optimizer_and_schedule(optimizer_name, schedule_name):
    made = OPTIMIZERS[optimizer_name]
    assert_recorded_with_the_same_bits(
        network=mlp(dropout=0.3), optimization=lambda: made(schedule=SCHEDULES[schedule_name]())
    )


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "64-true", "bf16-true"])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_and_precision(name, precision):
    assert_recorded_with_the_same_bits(network=NETWORKS[name], optimization=adam(), precision=precision)


@pytest.mark.gpu
@pytest.mark.parametrize("numeric", ["standard", "quantile", "piecewise"])
def test_the_network_of_a_table(numeric):
    def encoding(data):
        data.features[:, -1].trunc_().abs_()  # ids
        return encodings.fit(data.features.cpu(), torch.arange(ROWS), [20], numeric=numeric, max_one_hot=2)

    def network():
        encoded = encoding(Noise(ROWS, FEATURES, CLASSES))
        numbers = "none" if numeric == "piecewise" else "periodic"
        embedding = Embedding(encoded.num_outputs, encoded.num_numbers, encoded.embedded, numbers=numbers)
        return nn.Sequential(embedding, MLP(embedding.num_outputs, CLASSES, hidden=[8]))

    assert_recorded_with_the_same_bits(network=network, optimization=adam(), preprocessing=encoding)


@pytest.mark.gpu
def test_deterministic_algorithms(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # Lightning would, for good
    assert_recorded_with_the_same_bits(network=mlp(dropout=0.3), optimization=adam(), deterministic=True)


@pytest.mark.gpu
def test_loss_options():
    assert_recorded_with_the_same_bits(
        network=mlp(), optimization=adam(), label_smoothing=0.1, class_weights="balanced"
    )


@pytest.mark.gpu
@pytest.mark.parametrize("change", [freeze, replace, relabel, smooth, drop])
def test_what_changes_during_a_fit_on_a_gpu(change, monkeypatch):
    arguments = {"network": mlp(dropout=0.3), "optimization": adam(), "accelerator": "gpu"}
    recorded = fit(Changes(change), **arguments)
    monkeypatch.setattr("neurona.steps.choice.steps_of", DirectSteps)
    assert_same(recorded, fit(Changes(change), **arguments))


class Waits(MLP):
    """A network that waits for the GPU, which no graph can."""

    compilable = True

    def forward(self, features):
        return super().forward(features) * (1 if features.sum().item() > -1e9 else 2)


class WaitsOnce(MLP):
    """A network that waits for the GPU in its first step."""

    compilable = True

    _is_new = True

    def forward(self, features):
        if self._is_new:
            self._is_new = bool(features.isnan().any())
        return super().forward(features)


@pytest.mark.gpu
@pytest.mark.parametrize(("kind", "is_recorded"), [(Waits, False), (WaitsOnce, True)])
def test_what_waits_for_the_gpu_in_every_step_goes_on_without(kind, is_recorded, caplog, monkeypatch):
    logging.getLogger("neurona").propagate = True
    arguments = {"optimization": adam(), "accelerator": "gpu"}

    def network():
        return kind(FEATURES, CLASSES, hidden=[8], dropout=0.3)

    waiting = fit(network=network, **arguments)
    assert messages(caplog, "going on without recording a step: a module waits for the GPU") == (not is_recorded)
    assert (waiting.kept.graph._graph is not None) == is_recorded
    monkeypatch.setattr("neurona.steps.choice.steps_of", DirectSteps)
    assert_same(waiting, fit(network=network, **arguments))


@pytest.mark.gpu
def test_waits_are_noted():
    one = torch.ones(1, device="cuda")
    assert graphs.noting_waits(one.item) == (1.0, True)
    assert graphs.noting_waits(lambda: one.add_(1))[1] is False
    assert torch.cuda.get_sync_debug_mode() == 0


@pytest.mark.gpu
def test_the_order_of_an_epoch_does_not_wait_for_the_gpu():
    data = Noise(ROWS, FEATURES, CLASSES, on="gpu")
    loader = BatchLoader(data.features, data.targets, torch.arange(ROWS), 16, shuffle_seed=0)
    order, waits = graphs.noting_waits(lambda: loader.order(1))
    assert not waits
    assert torch.equal(order.sort().values.cpu(), torch.arange(ROWS))


@pytest.mark.gpu
def test_a_recording_that_fails_leaves_stream_and_generator_as_they_were():
    def draw():
        return torch.rand(3, device="cuda")

    torch.cuda.manual_seed(0)
    expected, stream = draw(), torch.cuda.current_stream()
    torch.cuda.manual_seed(0)
    with pytest.raises(RuntimeError):
        graphs.recorded(lambda: draw().sum().item())
    assert torch.cuda.current_stream() == stream
    assert torch.equal(draw(), expected)
    graph, drawn = graphs.recorded(draw)
    torch.cuda.manual_seed(0)
    graph.replay()
    assert torch.equal(drawn, expected)


@pytest.mark.gpu
@pytest.mark.parametrize(("compiled", "data_on"), [(False, "gpu"), (False, "cpu"), (True, "gpu")])
def test_the_steps_of_a_chunk_do_not_wait_for_the_gpu(compiled, data_on):
    class Watched(Classifier):
        compilable = True

        def training_step(self, batch, batch_idx) -> None:
            if self.current_epoch > 0:  # all has been compiled and recorded
                torch.cuda.set_sync_debug_mode("error")
            try:
                super().training_step(batch, batch_idx)
            finally:
                torch.cuda.set_sync_debug_mode("default")

        def _record(self, *arguments) -> None:
            torch.cuda.set_sync_debug_mode("default")
            super()._record(*arguments)

    classifier = fit(
        network=mlp(),
        optimization=OPTIMIZATIONS["adam"],
        accelerator="gpu",
        kind=Watched,
        compile_steps=compiled,
        data_on=data_on,
    )
    assert classifier.trainer.global_step == EPOCHS * 21
    if data_on == "gpu":
        assert classifier.kept.graph._graph is not None
