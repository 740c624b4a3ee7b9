"""Code of the user's own beside the project: what docs/extending.md shows, and more."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

import neurona
from neurona.config.annotations import check_type
from neurona.config.hints import OF_ONES_OWN
from neurona.errors import ConfigError
from neurona.models.activations import ACTIVATIONS

SHIPPED = Path(__file__).parents[2]
PAGE = (SHIPPED / "docs" / "extending.md").read_text(encoding="utf-8")
MODULE = "".join(re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
YAMLS = dict(re.findall(r"`configs/(\S+\.yaml)`[^`]*```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
COMMANDS = re.findall(r"^```bash\npython train.py (.*?)\n```$", PAGE, re.MULTILINE)

MORE = '''
class Halved(Classifier):
    def loss(self, features, targets):
        loss, logits = super().loss(features, targets)
        return loss / 2, logits


class Steps(Callback):
    """Sees every step, though it says nothing of chunks."""

    seen = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.seen.append(trainer.global_step)
'''
pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers")  # Lightning's advice on DataLoaders


def arguments(word: str) -> list[str]:
    """Those of the page's command with this word in it."""
    (line,) = (line for line in COMMANDS if word in line)
    return shlex.split(line)


@pytest.fixture(autouse=True)
def project(tmp_path: Path) -> Iterator[Path]:
    """The working folder: train.py, the page's classes beside it in mine.py, its yamls among the shipped ones."""
    shutil.copy(SHIPPED / "train.py", tmp_path)
    shutil.copytree(SHIPPED / "configs", tmp_path / "configs")
    (tmp_path / "mine.py").write_text("\n".join(["from __future__ import annotations", MODULE, MORE]))
    for name, text in YAMLS.items():
        (tmp_path / "configs" / name).write_text(text)
    yield tmp_path
    sys.modules.pop("mine", None)
    ACTIVATIONS.pop("squared_relu", None)


@pytest.fixture
def permission(project: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """For ``neurona.run`` of another project's folder, which has the module mine from elsewhere."""
    monkeypatch.syspath_prepend(project)
    return ["allow=[mine]"]


def test_the_page_has_an_example_of_everything() -> None:
    assert set(YAMLS) == {
        *("model/bottleneck.yaml", "data/quadrants.yaml", "data/streamed.yaml", "classifier/mixup.yaml"),
        *("optimizer/adamax.yaml", "optimizer/lion.yaml", "experiment/layerwise.yaml"),
        "optimizer/schedule/warmup.yaml",
    }
    assert len(COMMANDS) == 20


def test_a_network_of_ones_own(train: Any, newest: Any) -> None:
    done = train(*arguments("model=bottleneck"), "data=iris", "trainer.max_epochs=30", "optimizer.lr=0.03")
    assert done.status == 0, done.err
    run = newest()
    assert run.metrics["num_parameters"] == 4 * 64 + 64 + 64 * 4 + 4 + 4 * 3 + 3
    assert run.metrics["test/accuracy"] > 0.85
    done = train("stage=test", f"run={run.folder}")
    assert done.status == 0, done.err
    assert run.read("metrics_test.json")["test/loss"] == run.metrics["test/loss"]


def test_data_of_ones_own(train: Any, newest: Any) -> None:
    done = train(*arguments("data=quadrants"), "trainer.max_epochs=5", "optimizer.lr=0.01")
    assert done.status == 0, done.err
    run = newest()
    assert run.metrics["steps"] == 5 * np.ceil(2000 * 0.7 / 32)
    assert run.metrics["test/accuracy"] > 0.9
    assert "test/accuracy_of/north east" in run.metrics


def test_a_metric_of_ones_own(train: Any, newest: Any) -> None:
    done = train(*arguments("mine.Top2"), "data=iris", "trainer.max_epochs=3")
    assert done.status == 0, done.err
    run = newest()
    assert re.search(r"^top2_accuracy +\d", done.out, re.MULTILINE)
    done = train("stage=predict", f"run={run.folder}")
    assert done.status == 0, done.err
    table = np.genfromtxt(run.folder / "predictions.csv", delimiter=",", skip_header=1, usecols=(1, 4, 5, 6))
    best_two = np.argsort(table[:, 1:], axis=1)[:, -2:]
    hits = (best_two == table[:, :1]).any(axis=1)
    assert run.metrics["test/top2_accuracy"] == pytest.approx(np.mean(hits))


def test_a_loss_of_ones_own_from_the_page(train: Any, newest: Any) -> None:
    done = train(*arguments("mine.Margin"), "data=iris")
    assert done.status == 0, done.err
    assert newest().metrics["train/loss"] < 0.1 < newest().metrics["test/loss"]


def test_a_loss_with_a_key_of_its_own(train: Any, newest: Any) -> None:
    smoothed = ["classifier.label_smoothing=0.1", "data=iris", "trainer.max_epochs=30", "optimizer.lr=0.01"]
    done = train(*arguments("mixup"), *smoothed)
    assert done.status == 0, done.err
    run = newest()
    classifier = {"_target_": "mine.Mixup", "alpha": 0.2, "label_smoothing": 0.1, "class_weights": None}
    classifier["calibrate"] = False
    assert OmegaConf.load(run.folder / "config.yaml").classifier == classifier
    assert run.metrics["test/accuracy"] > 0.85
    done = train(*arguments("mixup"), "data=iris", "classifier.alpha=0")
    assert (done.status, done.err.startswith("classifier.alpha=0: ")) == (2, True), done.err
    done = train(*arguments("mixup"), "+classifier.alfa=1")
    assert "did you mean classifier.alpha?" in done.err


def test_a_callback_of_ones_own(train: Any, newest: Any, scalars: Any) -> None:
    done = train(*arguments("WeightNorm"), "data=iris", "trainer.max_epochs=2", "logger=[tensorboard,csv]")
    assert done.status == 0, done.err
    weights = [tensor for name, tensor in newest().checkpoint()["state_dict"].items() if name.startswith("network.")]
    expected = torch.cat([tensor.flatten() for tensor in weights]).norm().item()
    last = next(line for line in reversed((newest().folder / "metrics.csv").read_text().splitlines()) if "norm" in line)
    assert float(last.split(",")[2]) == pytest.approx(expected, rel=1e-5)
    assert scalars(newest().folder)["weight_norm"] == [6, 13]


def test_an_optimizer_by_its_class_alone(train: Any, newest: Any) -> None:
    done = train(*arguments("optimizer=adamax"), "data=iris", "trainer.max_epochs=2")
    assert done.status == 0, done.err
    (state,) = newest().checkpoint()["optimizer_states"]
    assert {"exp_avg", "exp_inf"} <= state["state"][0].keys(), "what Adamax alone keeps"
    done = train("optimizer=adamax", "data=iris", "optimizer.bettas=[0,0]")
    assert (done.status, "did you mean optimizer.betas?" in done.err) == (2, True)


def test_an_optimizer_of_ones_own(train: Any, newest: Any) -> None:
    """One step of Lion, whose momentum is 0 at first, moves each weight by the rate, or not at all."""
    weights = []
    for rate in ("0.01", "0.03"):
        done = train("optimizer=lion", f"optimizer.lr={rate}", "data=iris", "trainer.max_steps=1", "model.hidden=[5]")
        assert done.status == 0, done.err
        weights.append(newest().checkpoint()["state_dict"]["network.linear1.weight"])
    moved = (weights[1] - weights[0]).abs()
    assert ((moved - 0.02).abs() < 1e-6).float().mean() > 0.5
    assert (((moved - 0.02).abs() < 1e-6) | (moved == 0)).all()
    assert train(*arguments("optimizer=lion"), "data=iris", "trainer.max_epochs=2").status == 0


def test_a_schedule_of_ones_own(train: Any, newest: Any) -> None:
    csv = ["logger=csv", "trainer.log_every_n_steps=1"]
    ten = [*csv, "optimizer.schedule.warmup_steps=10", "data=iris", "trainer.max_epochs=2"]
    done = train(*arguments("schedule=warmup"), *ten)
    assert done.status == 0, done.err
    rows = [line.split(",") for line in (newest().folder / "metrics.csv").read_text().splitlines()]
    rates = {int(step): float(value) for step, name, value in rows[1:] if name == "train/lr"}
    assert [rates[step] for step in range(14)] == pytest.approx([1e-3 * min((step + 1) / 10, 1) for step in range(14)])
    done = train(f"run={newest().folder}", "trainer.max_epochs=3")
    assert done.status == 0, done.err
    done = train("optimizer/schedule=warmup", "optimizer.schedule.warmup_steps=0", "data=iris")
    assert (done.status, done.err.startswith("optimizer.schedule.warmup_steps=0: ")) == (2, True), done.err


def test_an_activation_of_ones_own(train: Any, newest: Any, project: Path, permission: list[str]) -> None:
    done = train(*arguments("squared_relu"), "data=iris", "trainer.max_epochs=2", "model.hidden=[5]")
    assert done.status == 0, done.err
    state = {key: value.double() for key, value in newest().checkpoint("best")["state_dict"].items()}
    rows = torch.tensor([[5.1, 3.5, 1.4, 0.2], [6.2, 2.9, 4.3, 1.3]], dtype=torch.float64)
    scaled = rows * state["preprocessing.scale"] + state["preprocessing.shift"]
    hidden = torch.relu(scaled @ state["network.linear1.weight"].T + state["network.linear1.bias"]) ** 2
    logits = hidden @ state["network.head.weight"].T + state["network.head.bias"]
    predicted = neurona.load(newest().folder, allow=["mine"]).predict_proba(rows.float())
    np.testing.assert_allclose(predicted, logits.softmax(1).numpy(), atol=1e-5)


def test_rates_of_single_layers(train: Any, newest: Any) -> None:
    done = train(*arguments("layerwise"), "data=iris", "trainer.max_epochs=2")
    assert done.status == 0, done.err
    (state,) = newest().checkpoint()["optimizer_states"]
    groups = [(group["max_lr"], group["weight_decay"], len(group["params"])) for group in state["param_groups"]]
    assert groups == [(1e-3, 0.01, 2), (1e-4, 0.01, 2), (1e-3, 0.0, 2)]


def test_a_head_that_learns_faster_than_the_body(train: Any, newest: Any) -> None:
    done = train(*arguments("head.*"), "data=iris", "trainer.max_epochs=1", "trainer.log_every_n_steps=1", "logger=csv")
    assert done.status == 0, done.err
    (state,) = newest().checkpoint()["optimizer_states"]
    assert [(group["lr"], len(group["params"])) for group in state["param_groups"]] == [(1e-4, 4), (1e-3, 2)]
    rates = re.findall(r"^\d+,train/lr/(\w+),(.+)$", (newest().folder / "metrics.csv").read_text(), re.MULTILINE)
    assert {(name, float(rate)) for name, rate in rates} == {("pg1", 1e-4), ("pg2", 1e-3)}


def test_a_typo_in_ones_own_network_gets_a_suggestion(train: Any) -> None:
    done = train("model=bottleneck", "model.widht=16", "data=iris")
    assert done.status == 2
    assert "did you mean model.width?" in done.err


def test_ordinary_data_loaders(train: Any, newest: Any) -> None:
    done = train("data=streamed", "trainer.max_epochs=10", "optimizer.lr=0.01")
    assert done.status == 0, done.err
    run = newest()
    assert run.metrics["steps"] == 10 * 25
    assert run.metrics["test/accuracy"] > 0.9
    for stage in ("validate", "test", "predict"):
        done = train(f"stage={stage}", f"run={run.folder}")
        assert done.status == 0, done.err
    assert run.read("metrics_test.json")["test/loss"] == run.metrics["test/loss"]
    table = np.genfromtxt(run.folder / "predictions.csv", delimiter=",", skip_header=1, usecols=(1, 2))
    assert np.mean(table[:, 0] == table[:, 1]) == pytest.approx(run.metrics["test/accuracy"])


def test_a_loss_of_ones_own(fit: Any, permission: list[str]) -> None:
    plain = fit("optimizer=sgd", "optimizer.lr=0.05")
    halved = fit(*permission, "optimizer=sgd", "optimizer.lr=0.1", "classifier._target_=mine.Halved")
    for name, tensor in plain.checkpoint()["state_dict"].items():
        torch.testing.assert_close(halved.checkpoint()["state_dict"][name], tensor)
    assert halved.metrics["train/loss"] == pytest.approx(plain.metrics["train/loss"] / 2, rel=1e-5)


def test_a_callback_that_wants_every_step_gets_it_and_changes_nothing(fit: Any, permission: list[str]) -> None:
    plain = fit()
    watched = fit(*permission, "+trainer.callbacks.steps._target_=mine.Steps")
    assert sys.modules["mine"].Steps.seen == list(range(1, watched.metrics["steps"] + 1))
    assert watched.weights() == plain.weights()


def test_a_module_from_elsewhere_is_refused(train: Any, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = project / "elsewhere"
    elsewhere.mkdir()
    (project / "mine.py").rename(elsewhere / "theirs.py")
    monkeypatch.syspath_prepend(elsewhere)
    done = train("model._target_=theirs.Bottleneck", "~model.hidden", "data=iris")
    assert done.status == 2
    assert "allow=[theirs]" in done.err
    assert "theirs" not in sys.modules


KEYWORDS = """
from torch import nn


class Keywords(nn.Linear):
    def __init__(self, *, num_features, num_classes, width=3):
        super().__init__(num_features, num_classes)
"""


def test_a_network_that_the_chosen_yaml_does_not_suit_is_given_one(project: Path, train: Any, newest: Any) -> None:
    (project / "mine.py").write_text(KEYWORDS)
    done = train("data=iris", "model._target_=mine.Keywords", "model.width=32")
    remedy = "write a yaml of its own, configs/model/<name>.yaml, with _target_: mine.Keywords, and choose model=<name>"
    assert (done.status, done.err.endswith(f"; {remedy}\n")) == (2, True)
    assert train("data=iris", "model._target_=mine.Keywords").err.endswith(f"; {remedy}\n")
    (project / "configs" / "model" / "own.yaml").write_text("_target_: mine.Keywords\nwidth: 3\n")
    done = train("data=iris", "model=own", "model.width=32", "trainer.max_epochs=1")
    assert (done.status, done.err) == (0, "")
    assert {*newest().checkpoint()["state_dict"]} >= {"network.weight", "network.bias"}


def test_a_class_elsewhere_in_ones_own_code_is_found(project: Path, train: Any) -> None:
    (project / "vision").mkdir()
    (project / "vision" / "__init__.py").touch()
    (project / "vision" / "networks.py").write_text(KEYWORDS)
    (project / "mine.py").write_text(KEYWORDS)
    meant = {
        "vision.Keywords": "vision.networks",
        "vision.network.Keywords": "vision.networks",
        "mine.py.Keyword": "mine",
    }
    for target, module in meant.items():
        done = train(f"model._target_={target}")
        assert (done.status, done.err.endswith(f"; did you mean {module}.Keywords?\n")) == (2, True)
    (project / "vision" / "broken.py").write_text("(")
    (project / "star.py").write_text("from mine import *\n")
    assert train("model._target_=vision.networks.keyword").err.endswith("; did you mean vision.networks.Keywords?\n")
    assert train("model._target_=mine.Unheard").err.endswith("mine.py defines no class Unheard\n")
    for target in ("mine.nn", "star.Keywords"):
        assert f"add allow=[{target.partition('.')[0]}]" in train(f"model._target_={target}").err


def test_a_misspelled_argument_in_ones_own_yaml(project: Path, train: Any) -> None:
    (project / "mine.py").write_text(KEYWORDS)
    (project / "configs" / "model" / "own.yaml").write_text("_target_: mine.Keywords\nwidht: 32\n")
    assert train("model=own").err == "model.widht=32: no such key; did you mean model.width?\n"


WRAPPED = """
from functools import wraps

from torch import nn


def filled(function):
    @wraps(function)
    def call(*args, **kwargs):
        kwargs.setdefault("width", 5)
        return function(*args, **kwargs)

    return call


class Wrapped(nn.Linear):
    @filled
    def __init__(self, num_features, num_classes, width):
        super().__init__(num_features, num_classes)
"""


def test_a_constructor_that_is_wrapped_is_called_as_it_is(project: Path, train: Any) -> None:
    (project / "mine.py").write_text(WRAPPED)
    (project / "configs" / "model" / "own.yaml").write_text("_target_: mine.Wrapped\n")
    done = train("data=iris", "model=own", "trainer.max_epochs=1")
    assert (done.status, done.err) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "end"),
    [
        (["model=mine.Kw"], "there are bottleneck, linear, mlp, tabm, tabular"),
        (["data=mine.Quadrants"], None),
        (["optimizer/schedule=mine.sched"], OF_ONES_OWN["optimizer.schedule"]),
        (
            ["optimizer/schedule=cosine", "optimizer.schedule._target_=neurona.schedule.one_cycle"],
            "choose optimizer/schedule=one_cycle",
        ),
    ],
)
def test_a_class_in_the_place_of_a_choice(train: Any, arguments: list[str], end: str | None) -> None:
    done = train(*arguments)
    assert (done.status, "data.path" in done.err, done.err.endswith(f"{end or ''}\n")) == (2, False, True), done.err


@pytest.mark.parametrize(
    ("target", "remedy"),
    [
        ("torch.optim.SGD", "choose optimizer=sgd"),
        ("torch.optim.Adagrad", "with _target_: torch.optim.Adagrad, and choose optimizer=<name>"),
        ("mine.Lion", "with _target_: mine.Lion, and choose optimizer=<name>"),
    ],
)
def test_an_optimiser_that_the_chosen_yaml_does_not_suit_names_what_does(train: Any, target: str, remedy: str) -> None:
    done = train(f"optimizer._target_={target}")
    assert (done.status, done.err.endswith(f"{remedy}\n")) == (2, True)


def test_a_schedule_for_an_optimiser_whose_yaml_names_none(project: Path, train: Any, newest: Any) -> None:
    (project / "configs" / "optimizer" / "short.yaml").write_text("_target_: torch.optim.Adamax\nlr: 1e-3\n")
    arguments = ["data=iris", "optimizer=short", "trainer.max_epochs=1"]
    done = train(*arguments, "optimizer/schedule=cosine")
    assert (done.status, done.err.endswith("; add them, or write +optimizer/schedule=cosine\n")) == (2, True)
    done = train(*arguments, "+optimizer/schedule=cosine")
    assert (done.status, done.err) == (0, "")
    assert OmegaConf.load(newest().folder / "config.yaml").optimizer.schedule._target_ == "neurona.schedule.cosine"


@pytest.mark.parametrize("text", ["target: mine.Bottleneck", "model: {_target_: mine.Bottleneck}", "[mine.Bottleneck]"])
def test_a_yaml_that_names_no_class(project: Path, train: Any, text: str) -> None:
    (project / "configs" / "model" / "own.yaml").write_text(text)
    done = train("model=own")
    assert (done.status, done.err.startswith("model._target_=: is missing: the yaml of model must name")) == (2, True)
    assert ("leave out its line model:" in done.err) == text.startswith("model:")


def test_what_a_dotted_path_does_not_bring_names_the_part_of_a_page(train: Any) -> None:
    done = train("optimizer.schedule._target_=torch.optim.lr_scheduler.StepLR")
    assert (done.status, done.err.endswith(f": {OF_ONES_OWN['optimizer.schedule']}\n")) == (2, True)
    with pytest.raises(ConfigError, match="one of your own is an entry in ACTIVATIONS"):
        check_type("model.activation", "mine.Snake", Literal["relu", "tanh"])
    headings = re.findall(r"^## (.+)$", PAGE, re.MULTILINE)
    places = [f"docs/extending.md#{heading.lower().replace(' ', '-')}" for heading in headings]
    assert all(remedy.rpartition(" ")[2] in places for remedy in OF_ONES_OWN.values())


def test_what_the_readme_shows_of_ones_own_runs(project: Path, train: Any, newest: Any) -> None:
    page = (SHIPPED / "README.md").read_text(encoding="utf-8")
    (module,) = (b for b in re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL) if "class Wide" in b)
    (text,) = re.findall(r"`configs/model/wide.yaml`[^`]*```yaml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (command,) = re.findall(r"`python train.py (model=wide [^`]*)`", page)
    (project / "mine.py").write_text(module)
    (project / "configs" / "model" / "wide.yaml").write_text(text)
    done = train(*shlex.split(command), "trainer.max_epochs=3")
    assert (done.status, done.err) == (0, "")
    assert "mine.Wide" in done.out
    assert newest().metrics["test/accuracy"] > 0.9


def test_a_strangers_run_brings_no_code(train: Any, iris_run: Any) -> None:
    (iris_run.folder / "evil.py").write_text("open('executed', 'w')\nclass X: pass\n")
    for folder in (iris_run.folder, *iris_run.folder.parents):
        if folder.name:
            (folder / "__init__.py").touch()
    config = (iris_run.folder / "config.yaml").read_text()
    for target in ("logs.iris.run.evil.X", "mine.nn"):
        (iris_run.folder / "config.yaml").write_text(config.replace("neurona.classifier.Classifier", target))
        done = train(f"run={iris_run.folder}", "stage=test")
        assert done.status == 2
        assert done.err.startswith(f"classifier._target_={target}: ")
    assert not Path("executed").exists()
    assert "mine" not in sys.modules


def test_python_finds_what_lies_beside_train_py_wherever_it_runs(
    project: Path, monkeypatch: pytest.MonkeyPatch, newest: Any
) -> None:
    for module in ("neurona.cli.python", "neurona.config.own"):
        monkeypatch.setattr(f"{module}.CONFIG_DIR", project / "configs")
    monkeypatch.chdir(project / "configs")
    path = list(sys.path)
    figures = neurona.run(["model=bottleneck", "classifier=mixup", "data=iris", "trainer.max_epochs=1", "quiet=true"])
    assert len(neurona.load(figures["folder"]).predict([[5.1, 3.5, 1.4, 0.2]])) == 1
    assert sys.modules["mine"].__file__ == str(project / "mine.py")
    assert sys.path == path


def test_classes_are_not_balanced_where_the_data_do_not_count_them(train: Any) -> None:
    done = train("data=streamed", "classifier.class_weights=balanced")
    assert done.status == 2
    assert done.err.startswith("classifier.class_weights=balanced: needs data that count their classes")
    assert not Path("logs").exists()


def test_a_callback_per_step_from_the_page(train: Any) -> None:
    done = train(*arguments("mine.Jumps"), "data=iris", "trainer.max_epochs=2", "data.batch_size=1")
    assert done.status == 0, done.err
    (number,) = re.findall(r"^jumps of the loss: (\d+)$", done.out, re.MULTILINE)
    assert 0 < int(number) < 2 * 98


def test_a_training_step_of_ones_own_from_the_page(train: Any, newest: Any, scalars: Any) -> None:
    done = train(*arguments("mine.Noisy"), "data=iris", "trainer.max_epochs=20", "optimizer.lr=0.03")
    assert done.status == 0, done.err
    assert newest().metrics["test/accuracy"] > 0.85
    assert len(scalars(newest().folder)["train/noisy_accuracy"]) == 20


def test_two_optimisers_from_the_page(train: Any, newest: Any, tmp_path: Path) -> None:
    done = train(*arguments("mine.HeadApart"), "data=iris", "trainer.max_epochs=20")
    assert done.status == 0, done.err
    metrics = newest().metrics
    assert metrics["steps"] == 2 * 20 * 7
    assert metrics["test/accuracy"] > 0.85
    assert metrics["samples_per_second"] > 0
    assert len(newest().checkpoint()["optimizer_states"]) == 2


def test_what_is_logged_on_the_page(train: Any, newest: Any, scalars: Any) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    done = train(*arguments("mine.Watched"), "data=iris", "trainer.max_epochs=3", "trainer.log_every_n_steps=1")
    assert done.status == 0, done.err
    assert len(scalars(newest().folder)["train/confidence"]) == 3 * 7
    events = EventAccumulator(str(newest().folder))
    events.Reload()
    assert [image.step for image in events.Images("weights")] == [6, 13, 20]
    for logger in ("csv", "none"):
        done = train(*arguments("mine.Watched"), "data=iris", "trainer.max_epochs=1", f"logger={logger}")
        assert done.status == 0, done.err


EMA = "EMAWeightAveraging"


@pytest.mark.parametrize(("word", "name"), [("mine.Tempered", "temperature"), ("mine.Projected", "projection.weight")])
def test_parameters_of_ones_own_are_trained_stored_and_loaded(train: Any, newest: Any, word: str, name: str) -> None:
    done = train(*arguments(word), "data=iris", "trainer.max_epochs=3")
    assert done.status == 0, done.err
    run = newest()
    best = run.checkpoint("best")["state_dict"]
    assert not torch.equal(best[name], torch.full_like(best[name], 3.0))
    assert train("stage=test", f"run={run.folder}").status == 0
    assert run.read("metrics_test.json")["test/loss"] == run.metrics["test/loss"]
    classifier = neurona.load(run.folder).classifier
    assert type(classifier).__name__ == word.removeprefix("mine.")
    assert all(torch.equal(tensor, best[key]) for key, tensor in classifier.state_dict().items())
    done = train(*arguments(word), "data=iris", "trainer.max_epochs=1", "optimizer.lr=1e-30", f"init_from={run.folder}")
    assert done.status == 0, done.err
    torch.testing.assert_close(newest().checkpoint()["state_dict"][name], best[name])


def test_an_average_is_validated_kept_tested_and_goes_on(fit: Any, train: Any) -> None:
    ema = [*arguments(EMA), "+trainer.callbacks.ema.update_starting_at_epoch=1", "classifier.class_weights=balanced"]
    plain, whole = fit(), fit(*ema, "trainer.max_epochs=4")
    for stage, part in (("validate", "val"), ("test", "test")):
        assert train(f"stage={stage}", f"run={whole.folder}").status == 0
        assert whole.read(f"metrics_{stage}.json")[f"{part}/loss"] == whole.metrics[f"{part}/loss"]
    begun = fit(*ema, "trainer.max_epochs=2")
    assert train(f"run={begun.folder}", "trainer.max_epochs=4").status == 0
    assert begun.weights() == whole.weights()
    for name in ("preprocessing.shift", "preprocessing.scale"):
        assert torch.equal(whole.checkpoint("best")["state_dict"][name], plain.checkpoint()["state_dict"][name])
    now, before = (run.checkpoint()["current_model_state"] for run in (begun, whole))
    assert all(torch.equal(now[name], before[name]) for name in before)


SWAPPED = """
import torch
from torch.nn.functional import cross_entropy
from neurona.classifier import Classifier

class Named(Classifier):
    def validation_step(self, batch, batch_idx):
        features, targets = batch
        logits = self(features)
        self.log("val_loss", cross_entropy(logits, targets))
        self.log("val_accuracy", (logits.argmax(1) == targets).float().mean())


class Swapped(Classifier):
    def __init__(self, *arguments, **keywords):
        super().__init__(*arguments, **keywords)
        self.average = [p.detach().clone() for p in self.network.parameters()]

    def on_train_batch_end(self, outputs, batch, batch_idx):
        torch._foreach_lerp_(self.average, [p.detach() for p in self.network.parameters()], 0.05)

    def swap(self):
        if self.trainer.state.fn == "fit":
            for parameter, other in zip(self.network.parameters(), self.average):
                parameter.data, other.data = other.data.clone(), parameter.data.clone()

    def on_validation_start(self):
        self.swap()

    def on_validation_end(self):
        self.swap()


class Standardised(Classifier):
    def on_after_batch_transfer(self, batch, dataloader_idx):
        features, targets = batch
        return (features - 3) / 2, targets
"""


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        (
            "Named",
            ["trainer.val_check_interval=0.3", "trainer.callbacks.checkpoints.monitor=val_loss", "data.batch_size=10"],
        ),
        ("Swapped", ["trainer.max_epochs=5"]),
    ],
)
def test_figures_by_whatever_name_are_of_the_best_checkpoint_the_network_that_was_validated(
    train: Any, newest: Any, project: Path, name: str, settings: list[str]
) -> None:
    (project / "mine.py").write_text(SWAPPED)
    common = ["data=iris", "data.batch_size=10", "trainer.max_epochs=2", "optimizer.lr=0.08", "inspect=none"]
    assert train(f"classifier._target_=mine.{name}", *common, *settings).status == 0
    run = newest()
    assert train("stage=validate", f"run={run.folder}").status == 0
    validated = {key: value for key, value in run.read("metrics_validate.json").items() if key.startswith("val")}
    assert validated
    assert {key: run.metrics[key] for key in validated} == validated


@pytest.mark.filterwarnings("ignore:You have overridden `on_after_batch_transfer` in `LightningModule`")
def test_hooks_of_batches_that_a_prediction_does_not_call_are_named(train: Any, newest: Any, project: Path) -> None:
    (project / "mine.py").write_text(SWAPPED)
    assert train("data=iris", "trainer.max_epochs=1", "classifier._target_=mine.Standardised").status == 0
    run = newest()
    with pytest.warns(UserWarning, match=r"mine\.Standardised\.on_after_batch_transfer is not called for what is pre"):
        neurona.load(run.folder, allow=["mine"])
    done = train("stage=export", f"run={run.folder}")
    assert "mine.Standardised.on_after_batch_transfer is not in the files" in done.out


def test_a_run_goes_on_exactly_in_the_other_way(fit: Any, train: Any) -> None:
    settings = ["optimizer.accumulate=3", "optimizer/schedule=plateau", "optimizer.schedule.patience=0"]
    whole, begun = fit(*settings, "trainer.max_epochs=6"), fit(*settings, "trainer.max_epochs=2")
    target = "+trainer.callbacks.steps._target_=mine.Steps"
    for epochs, change in ((4, target), (6, "trainer.callbacks.steps=null")):
        done = train(f"run={begun.folder}", f"trainer.max_epochs={epochs}", change)
        assert done.status == 0, done.err
    assert begun.weights() == whole.weights()
    assert begun.metrics["steps"] == whole.metrics["steps"]


WEIGHTED = """
import torch

from neurona.classifier import Classifier
from neurona.data.base import InMemoryData, Table


class Weighted(InMemoryData):
    def __init__(self, *, flipped: bool = False, **settings):
        super().__init__(**settings)
        self.flipped = flipped

    def read(self):
        features = torch.randn(300, 2, generator=torch.Generator().manual_seed(0))
        targets = (features[:, 0] > 0).long()
        weights = (torch.arange(300) % 3 > 0).float()
        if self.flipped:
            targets = torch.where(weights == 0, 1 - targets, targets)
        return Table(features, targets, ("left", "right"), weights=weights)


class Before(Classifier):
    def on_before_batch_transfer(self, batch, dataloader_idx):
        return batch


class After(Classifier):
    def on_after_batch_transfer(self, batch, dataloader_idx):
        return batch
"""


def test_weights_of_rows_of_a_data_set_of_ones_own(train: Any, newest: Any, project: Path) -> None:
    """Rows of weight 0 may have any label; batch hooks of one's own would take the weights for features."""
    (project / "mine.py").write_text(WEIGHTED)
    (project / "configs" / "data" / "weighted.yaml").write_text(
        "_target_: mine.Weighted\nbatch_size: 16\neval_batch_size: 64\nval_fraction: 0\ntest_fraction: 0.2\n"
        "folds: null\nfold: null\nsplit_seed: 0\nshuffle_seed: ${seed}\nflipped: false\n"
    )
    settings = ["data=weighted", "trainer.max_epochs=3", "quiet=true", "model.hidden=[4]"]
    weights = []
    for flipped in ("false", "true"):
        done = train(*settings, f"data.flipped={flipped}", "data.test_fraction=0")
        assert done.status == 0, done.err
        weights.append(newest().weights())
    assert weights[0] == weights[1]
    assert newest().checkpoint()["state_dict"]["network.linear1.weight"].shape == (4, 2)
    for kind, hook in (("Before", "on_before_batch_transfer"), ("After", "on_after_batch_transfer")):
        done = train(*settings, f"classifier._target_=mine.{kind}")
        assert (done.status, f"has a {hook} of its own, which knows no weights of rows" in done.err) == (2, True)
