"""Fits by recorded passes have the bits of fits by autograd, whatever happens in between."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from changes import Annealed, Changes, Drops, drop, evaluate, freeze, replace, smooth
from lightning.pytorch import Callback
from noise import ASKING, assert_same, messages
from torch import nn
from torch.utils.checkpoint import checkpoint

from neurona import schedule
from neurona.classifier import Classifier
from neurona.errors import ConfigError
from neurona.models.embedding import Embedding
from neurona.models.mlp import MLP
from neurona.models.tabm import TabM
from neurona.optimizer import Muon, Optimization, RMSprop
from neurona.steps import recorded, traced
from neurona.steps.steps import DirectSteps
from neurona.steps.traced import TracedSteps

Fit = Callable[..., Classifier]


def network() -> MLP:
    return MLP(12, 4, hidden=[8], dropout=0.3)


@pytest.fixture
def functions(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The sizes of the mini-batches that were recorded; any size is worth it."""
    sizes: list[Any] = []
    record = recorded.traced

    def noted(loss: Any, parameters: Any, buffers: Any, features: Any, targets: Any, share: float) -> Any:
        sizes.append((len(targets), share))
        return record(loss, parameters, buffers, features, targets, share)

    monkeypatch.setattr(recorded, "traced", noted)
    monkeypatch.setattr(traced, "WORTHWHILE_PASSES", 1)
    return sizes


@pytest.fixture
def directly(fit_noise: Fit, monkeypatch: pytest.MonkeyPatch) -> Fit:
    def fit(*arguments: Any, **options: Any) -> Classifier:
        with monkeypatch.context() as context:
            context.setattr("neurona.steps.choice.steps_of", DirectSteps)
            return fit_noise(*arguments, **options)

    return fit


def own(kind: Any, **options: Any) -> Optimization:
    return Optimization.of(kind, lr=1e-2, **options)


@pytest.mark.parametrize(
    ("optimization", "options"),
    [
        (own(torch.optim.Adam, schedule=schedule.cosine(), clip_norm=0.5), {}),
        (own(torch.optim.AdamW, amsgrad=True), {"label_smoothing": 0.1}),
        (own(torch.optim.SGD, momentum=0.9, schedule=schedule.one_cycle(), clip_value=0.01), {}),
        (own(RMSprop), {"class_weights": [1.0, 2.0, 0.5, 0.0]}),
        (own(torch.optim.NAdam), {"class_weights": "balanced"}),
        (own(Muon), {}),
        (own(torch.optim.Adam, groups={"head.*": {"lr": 0.1}}), {}),
    ],
    ids=["adam", "adamw", "sgd", "rmsprop", "nadam", "muon", "groups"],
)
def test_optimisers(
    optimization: Optimization, options: dict[str, Any], functions: list[Any], fit_noise: Fit, directly: Fit
) -> None:
    arguments = {"network": network, "max_epochs": 2, **options}
    recorded = fit_noise(optimization, **arguments)
    assert functions == [(16, 1), (10, 1)]  # 330 rows: 20 whole mini-batches and one of 10
    assert_same(recorded, directly(optimization, **arguments))


def test_embedded_numbers_and_a_temperature(functions: list[Any], fit_noise: Fit, directly: Fit) -> None:
    def embedded() -> nn.Sequential:
        first = Embedding(12, 12, (), numbers="pbld", number_dimension=4)
        return nn.Sequential(first, MLP(first.num_outputs, 4, hidden=[8], dropout=0.3))

    settings = {"label_smoothing": 0.1, "calibrate": True, "limit_val_batches": 1.0}
    arguments = {"network": embedded, "max_epochs": 3, **settings}
    optimization = own(torch.optim.AdamW, schedule=schedule.log_cosine())
    recorded = fit_noise(optimization, **arguments)
    assert functions == [(16, 1), (10, 1)]  # once, though each validation sets a temperature
    assert recorded.calibration.item() != 1
    assert_same(recorded, directly(optimization, **arguments))


def test_members(functions: list[Any], fit_noise: Fit, directly: Fit) -> None:
    arguments = {"network": lambda: TabM(12, 4, hidden=[8, 8], members=3, dropout=0.3), "max_epochs": 2}
    recorded = fit_noise(own(torch.optim.AdamW), **arguments)
    assert functions == [(16, 1), (10, 1)]
    assert_same(recorded, directly(own(torch.optim.AdamW), **arguments))


def test_accumulated_gradients(functions: list[Any], fit_noise: Fit, directly: Fit) -> None:
    arguments = {"optimization": own(torch.optim.Adam, accumulate=4, clip_norm=0.1), "network": network}
    recorded = fit_noise(**arguments, max_epochs=2)
    assert functions == [(16, 0.25), (10, 0.25)]
    assert_same(recorded, directly(**arguments, max_epochs=2))


def test_a_size_that_comes_rarely_is_not_recorded(
    functions: list[Any], fit_noise: Fit, monkeypatch: pytest.MonkeyPatch
) -> None:
    for worthwhile, sizes in ((40, [(16, 1)]), (43, []), (1, [(16, 1), (10, 1)])):
        monkeypatch.setattr(traced, "WORTHWHILE_PASSES", worthwhile)
        fit_noise(own(torch.optim.Adam), max_epochs=2)
        assert functions == sizes
        functions.clear()


@pytest.mark.parametrize("change", [freeze, replace, smooth, drop, evaluate])
def test_what_changes_during_a_fit_is_recorded_again(
    change: Any, functions: list[Any], fit_noise: Fit, directly: Fit
) -> None:
    arguments = {"network": network, "max_epochs": 3}
    recorded = fit_noise(own(torch.optim.Adam), Changes(change), **arguments)
    assert functions == [(16, 1), (10, 1)] * 2
    assert_same(recorded, directly(own(torch.optim.Adam), Changes(change), **arguments))


class Scaled(Classifier):
    """A loss with a setting of its own."""

    compilable = True
    factor = 1.0

    def loss(self, features: Any, targets: Any) -> Any:
        loss, logits = super().loss(features, targets)
        return loss * self.factor, logits


class Odd(Classifier):
    """Parameters whose gradients come in another layout, or shared, or as the loss's own."""

    compilable = True

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.matrix = nn.Parameter(torch.ones(5, 3))
        self.single = nn.Parameter(torch.tensor(1.0))
        self.pair = nn.ParameterList([torch.zeros(4), torch.zeros(4)])

    def forward(self, features: Any) -> Any:
        return super().forward(features) + (self.pair[0] + self.pair[1])

    def loss(self, features: Any, targets: Any) -> Any:
        loss, logits = super().loss(features, targets)
        return loss + 0.01 * self.matrix.sum() + self.single, logits


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.SGD, RMSprop])
def test_gradients_are_the_parameters_own(kind: Any, functions: list[Any], fit_noise: Fit, directly: Fit) -> None:
    optimization = own(kind, clip_norm=0.1)
    recorded = fit_noise(optimization, kind=Odd, max_epochs=2)
    assert functions == [(16, 1), (10, 1)]
    assert_same(recorded, directly(optimization, kind=Odd, max_epochs=2))


class Recurrent(nn.Module):
    compilable = True

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(12, 6, batch_first=True), nn.Linear(6, 4)

    def forward(self, features: Any) -> Any:
        return self.head(self.lstm(features[:, None])[0][:, 0])


class Saving(nn.Module):
    compilable = True

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(12, 8), nn.Dropout(0.5), nn.Linear(8, 4))

    def forward(self, features: Any) -> Any:
        return checkpoint(self.network, features, use_reentrant=False)


class Tempered(nn.Module):
    compilable = True

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(12, 4)
        self.register_buffer("temperature", torch.tensor(2.0))

    def forward(self, features: Any) -> Any:
        return self.head(features) / float(self.temperature)


@pytest.mark.parametrize(("kind", "reason"), [(Recurrent, ""), (Saving, "gives other bits"), (Tempered, "at a value")])
def test_what_cannot_be_recorded_rightly_goes_on_directly(
    kind: Any, reason: str, functions: list[Any], fit_noise: Fit, directly: Fit, caplog: Any
) -> None:
    logging.getLogger("neurona").propagate = True
    goes_on = fit_noise(own(torch.optim.Adam), network=kind, max_epochs=2)
    assert len(functions) == messages(caplog, "steps are not recorded: ") == 1
    assert reason in caplog.text
    assert_same(goes_on, directly(own(torch.optim.Adam), network=kind, max_epochs=2))


def wrap(classifier: Any) -> None:
    forward = classifier.network.forward
    classifier.network.forward = lambda features: forward(features) * 0.3


class Halved(nn.Linear):
    def forward(self, inputs: Any) -> Any:
        return super().forward(inputs) / 2


def recast(classifier: Any) -> None:
    classifier.network.head.__class__ = Halved


def transpose(classifier: Any) -> None:
    classifier.network.linear2.weight.data = classifier.network.linear2.weight.data.t()


@pytest.mark.parametrize("change", [wrap, recast, transpose])
@pytest.mark.usefixtures("functions")
def test_other_code_and_layouts_in_mid_fit_are_noticed(change: Any, fit_noise: Fit, directly: Fit) -> None:
    arguments = {"network": lambda: MLP(12, 4, hidden=[8, 8]), "max_epochs": 3}
    recorded = fit_noise(own(torch.optim.SGD), Changes(change), **arguments)
    plain = directly(own(torch.optim.SGD), Changes(change), **arguments)
    assert_same(recorded, plain)


def rescale(classifier: Any) -> None:
    classifier.factor = 0.1


def test_a_setting_of_ones_own_loss_that_changes_is_noticed(
    functions: list[Any], fit_noise: Fit, directly: Fit
) -> None:
    arguments = {"kind": Scaled, "max_epochs": 3}
    recorded = fit_noise(own(torch.optim.SGD), Changes(rescale), **arguments)
    assert functions == [(16, 1), (10, 1)] * 2
    assert_same(recorded, directly(own(torch.optim.SGD), Changes(rescale), **arguments))


def frozen() -> MLP:
    made = network()
    made.linear1.requires_grad_(False)
    return made


def unfreeze(classifier: Any) -> None:
    classifier.network.linear1.requires_grad_(True)


def test_a_layer_is_trained_from_some_step_on(functions: list[Any], fit_noise: Fit, directly: Fit) -> None:
    arguments = {"network": frozen, "max_epochs": 3}
    recorded = fit_noise(own(torch.optim.Adam), Changes(unfreeze), **arguments)
    assert functions == [(16, 1), (10, 1)] * 2
    assert_same(recorded, directly(own(torch.optim.Adam), Changes(unfreeze), **arguments))


def test_hooks_see_every_pass(functions: list[Any], fit_noise: Fit, directly: Fit) -> None:
    passes: list[Any] = []

    def watch(classifier: Any) -> None:
        classifier.network.head.register_forward_hook(lambda *_: passes.append(None))

    recorded = fit_noise(own(torch.optim.Adam), Changes(watch), max_epochs=3)
    assert (functions, len(passes)) == ([(16, 1), (10, 1)], 2 * 21)
    assert_same(recorded, directly(own(torch.optim.Adam), Changes(watch), max_epochs=3))


class Counts(MLP):
    """A network that counts its calls."""

    compilable = True
    calls = 0

    def forward(self, features: Any) -> Any:
        self.calls = self.calls + 1
        return super().forward(features)


class Looks(MLP):
    """A network that looks at what it computes."""

    compilable = True

    def forward(self, features: Any) -> Any:
        logits = super().forward(features)
        return logits / 2 if logits.max() > 100 else logits


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (Annealed, "what was recorded gives other bits"),
        (Counts, "a module changes its settings in every step"),
        (Drops, "numbers are drawn in Python"),
        (Looks, "it looks at a value"),
    ],
)
def test_a_network_that_does_more_goes_on_directly(
    kind: type[MLP], reason: str, functions: list[Any], fit_noise: Fit, directly: Fit, caplog: Any
) -> None:
    logging.getLogger("neurona").propagate = True
    arguments: dict[str, Any] = {"network": lambda: kind(12, 4, hidden=[8]), "max_epochs": 2}
    goes_on = fit_noise(own(torch.optim.Adam), **arguments)
    assert len(functions) == 1
    assert messages(caplog, "steps are not recorded: ") == messages(caplog, reason) == 1
    if kind is not Annealed:  # which has been called once more
        assert_same(goes_on, directly(own(torch.optim.Adam), **arguments))


@pytest.mark.parametrize("does", ASKING)
@pytest.mark.usefixtures("functions")
def test_a_loss_that_asks_the_trainer_is_refused_by_name(does: str, fit_noise: Fit) -> None:
    with pytest.raises(ConfigError, match=f"classifier={ASKING[does].__name__}: its loss {does}, .*compilable = False"):
        fit_noise(own(torch.optim.Adam), kind=ASKING[does])


def test_what_changes_all_the_time_is_not_recorded_for_ever(
    functions: list[Any], fit_noise: Fit, caplog: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Cools(Callback):
        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            pl_module.network.dropout1.p /= 2

    logging.getLogger("neurona").propagate = True
    monkeypatch.setattr(recorded, "MAX_RECORDINGS", 3)
    fit = fit_noise(own(torch.optim.Adam), Cools(), network=network, max_epochs=5)
    assert functions == [(16, 1), (10, 1)] * 3
    assert messages(caplog, "what it depends on has changed 3 times") == 1
    assert isinstance(fit.kept.steps, TracedSteps)
    assert isinstance(fit.network.dropout1, nn.Dropout)


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, list[int]]]:
    """How many made each recorded pass and each update; two are there."""
    noted: dict[str, list[int]] = {"passes": [], "updates": []}
    apply, recording = DirectSteps.apply, TracedSteps.recording

    def noting(steps: Any, batch: Any, share: float) -> Any:
        made = recording(steps, batch, share)

        def passes(*batch: Any) -> Any:
            noted["passes"].append(torch.get_num_threads())
            return made.passes(*batch)

        return made and made._replace(passes=passes)

    def updating(steps: Any, gradients: Any) -> bool:
        noted["updates"].append(torch.get_num_threads())
        return apply(steps, gradients)

    monkeypatch.setattr(TracedSteps, "recording", noting)
    monkeypatch.setattr(DirectSteps, "apply", updating)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield noted
    torch.set_num_threads(before)


@pytest.fixture
def busy(fit_noise: Fit, monkeypatch: pytest.MonkeyPatch) -> Fit:
    """A fit during which other processes keep the cores busy, from the second chunk on."""

    def fit(*arguments: Any, **options: Any) -> Classifier:
        with monkeypatch.context() as context:
            begun: list[None] = []
            context.setattr(traced.waiting, "is_busy", lambda: len(begun) > 1 or begun.append(None))
            return fit_noise(*arguments, **options)

    return fit


@pytest.mark.usefixtures("functions")
def test_half_the_threads_make_the_same_steps_on_a_busy_machine(
    threads: dict[str, list[int]], busy: Fit, fit_noise: Fit, directly: Fit
) -> None:
    arguments = {"network": network, "max_epochs": 4}
    halved = busy(own(torch.optim.Adam), **arguments)
    trial = [2, 1]  # of each size
    assert threads["passes"] == [*[2] * 42, *trial, *[1] * 20, *trial, *[1] * 22]
    assert threads["updates"][-42:] == [1] * 42
    assert torch.get_num_threads() == 2
    for one in threads.values():
        one.clear()
    alone = fit_noise(own(torch.optim.Adam), **arguments)
    assert {*threads["passes"], *threads["updates"]} == {2}
    assert_same(halved, alone)
    assert_same(halved, directly(own(torch.optim.Adam), **arguments))


class Summed(MLP):
    """Its logits depend on a sum of 400,000 products, each thread adding up some of them."""

    compilable = True

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        offset = (self.many * features.mean()).sum()
        return super().forward(features) + torch.stack([offset, -offset, offset, -offset])


def summed(kind: type[MLP] = Summed) -> MLP:
    network = kind(12, 4, hidden=[8])
    network.register_buffer("many", torch.randn(400_000, generator=torch.Generator().manual_seed(0)))
    return network


class Unrecorded(Summed):
    """The same, and nobody says that it may be recorded."""


def replace_by_one_that_is_not_recorded(classifier: Any) -> None:
    network = summed(Unrecorded)
    network.load_state_dict(classifier.network.state_dict(), strict=False)
    for name, child in classifier.network.named_children():
        setattr(network, name, child)
    classifier.network = network


def hook(classifier: Any) -> None:
    def adds(module: Any, inputs: Any, outputs: Any) -> Any:
        return outputs + (many * outputs.mean()).sum()

    many = torch.randn(400_000, generator=torch.Generator().manual_seed(0))
    classifier.network.linear1.register_forward_hook(adds)


@pytest.mark.parametrize("change", [replace_by_one_that_is_not_recorded, hook])
@pytest.mark.usefixtures("functions", "threads")
def test_a_step_made_directly_has_all_threads(change: Any, busy: Fit, directly: Fit) -> None:
    arguments = {"network": network, "max_epochs": 6}
    assert_same(
        busy(own(torch.optim.Adam), Changes(change), **arguments),
        directly(own(torch.optim.Adam), Changes(change), **arguments),
    )


@pytest.mark.parametrize("make", [summed, network])
@pytest.mark.usefixtures("functions")
def test_a_pass_whose_bits_depend_on_the_threads_keeps_them(
    make: Any, threads: dict[str, list[int]], busy: Fit, fit_noise: Fit
) -> None:
    optimization = own(torch.optim.Adam, clip_norm=0.5)
    halved = busy(optimization, network=make, max_epochs=3)
    assert ({*threads["passes"]} == {2}) == (make is summed)
    assert_same(halved, fit_noise(optimization, network=make, max_epochs=3))


@pytest.mark.usefixtures("functions", "threads")
def test_another_number_of_threads_is_tried_anew(busy: Fit, fit_noise: Fit) -> None:
    def more(classifier: Any) -> None:
        torch.set_num_threads(2)

    fits = []
    for fit in (busy, fit_noise):
        torch.set_num_threads(1)
        fits.append(fit(own(torch.optim.Adam), Changes(more), network=summed, max_epochs=4))
    assert_same(*fits)
    assert fits[0].kept.steps._half_will_do == {(16, 1, 2): False, (10, 1, 2): False}


def test_where_the_compiler_gives_up_the_run_is_the_one_without_it(
    functions: list[Any], fit_noise: Fit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its masks too, which are drawn otherwise for a compiler."""

    def fail(*arguments: Any) -> None:
        raise RuntimeError("no compiler")

    monkeypatch.setattr(recorded, "compiled", fail)
    arguments = {"network": lambda: MLP(12, 4, hidden=[256], dropout=0.5), "max_epochs": 2}
    given_up = fit_noise(own(torch.optim.Adam), compile_steps=True, **arguments)
    assert functions[:2] == [(16, 1), (16, 1)]  # recorded again
    assert_same(given_up, fit_noise(own(torch.optim.Adam), **arguments))
