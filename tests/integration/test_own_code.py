"""Code of the user's own beside the project: what docs/extending.md shows, and more."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

PAGE = (Path(__file__).parents[2] / "docs" / "extending.md").read_text(encoding="utf-8")
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
CONFIGS = ["--config-dir", "own_configs"]
pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers")  # Lightning's advice on DataLoaders


def arguments(word: str) -> list[str]:
    """Those of the page's command with this word in it."""
    (line,) = (line for line in COMMANDS if word in line)
    return shlex.split(line)


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The module mine, and its yamls in the folder own_configs."""
    (tmp_path / "mine.py").write_text("\n".join(["from __future__ import annotations", MODULE, MORE]))
    for name, text in YAMLS.items():
        file = tmp_path / "own_configs" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    yield ["allow=[mine]"]
    sys.modules.pop("mine", None)


def test_the_page_has_an_example_of_everything() -> None:
    assert set(YAMLS) == {
        *("model/bottleneck.yaml", "data/quadrants.yaml", "data/streamed.yaml"),
        *("optimizer/adamax.yaml", "experiment/layerwise.yaml"),
    }
    assert len(COMMANDS) == 8


def test_a_network_of_ones_own(train: Any, newest: Any, own: list[str]) -> None:
    done = train(*CONFIGS, *arguments("model=bottleneck"), "data=iris", "trainer.max_epochs=30", "optimizer.lr=0.03")
    assert done.status == 0, done.err
    run = newest()
    assert run.metrics["num_parameters"] == 4 * 64 + 64 + 64 * 4 + 4 + 4 * 3 + 3
    assert run.metrics["test/accuracy"] > 0.85
    done = train(*CONFIGS, *own, "stage=test", f"run={run.folder}")
    assert done.status == 0, done.err
    assert run.read("metrics_test.json")["test/loss"] == run.metrics["test/loss"]


def test_data_of_ones_own(train: Any, newest: Any) -> None:
    done = train(*CONFIGS, *arguments("data=quadrants"), "trainer.max_epochs=5", "optimizer.lr=0.01")
    assert done.status == 0, done.err
    run = newest()
    assert run.metrics["steps"] == 5 * np.ceil(2000 * 0.7 / 32)
    assert run.metrics["test/accuracy"] > 0.9
    assert "test/accuracy_of/north east" in run.metrics


def test_a_metric_of_ones_own(train: Any, newest: Any, own: list[str]) -> None:
    done = train(*CONFIGS, *arguments("mine.Top2"), "data=iris", "trainer.max_epochs=3")
    assert done.status == 0, done.err
    run = newest()
    assert re.search(r"^top2_accuracy +\d", done.out, re.MULTILINE)
    done = train(*CONFIGS, *own, "stage=predict", f"run={run.folder}")
    assert done.status == 0, done.err
    table = np.genfromtxt(run.folder / "predictions.csv", delimiter=",", skip_header=1, usecols=(1, 4, 5, 6))
    best_two = np.argsort(table[:, 1:], axis=1)[:, -2:]
    hits = (best_two == table[:, :1]).any(axis=1)
    assert run.metrics["test/top2_accuracy"] == pytest.approx(np.mean(hits))


def test_a_loss_of_ones_own_from_the_page(train: Any, newest: Any) -> None:
    done = train(*CONFIGS, *arguments("mine.Margin"), "data=iris")
    assert done.status == 0, done.err
    assert newest().metrics["train/loss"] < 0.1 < newest().metrics["test/loss"]


def test_a_callback_of_ones_own(train: Any, newest: Any, scalars: Any) -> None:
    done = train(*CONFIGS, *arguments("WeightNorm"), "data=iris", "trainer.max_epochs=2", "logger=[tensorboard,csv]")
    assert done.status == 0, done.err
    weights = [tensor for name, tensor in newest().checkpoint()["state_dict"].items() if name.startswith("network.")]
    expected = torch.cat([tensor.flatten() for tensor in weights]).norm().item()
    last = next(line for line in reversed((newest().folder / "metrics.csv").read_text().splitlines()) if "norm" in line)
    assert float(last.split(",")[2]) == pytest.approx(expected, rel=1e-5)
    assert len(scalars(newest().folder)["weight_norm"]) == 2


def test_an_optimizer_by_its_class_alone(train: Any, newest: Any) -> None:
    done = train(*CONFIGS, *arguments("optimizer=adamax"), "data=iris", "trainer.max_epochs=2")
    assert done.status == 0, done.err
    (state,) = newest().checkpoint()["optimizer_states"]
    assert {"exp_avg", "exp_inf"} <= state["state"][0].keys(), "what Adamax alone keeps"
    done = train(*CONFIGS, "optimizer=adamax", "data=iris", "optimizer.bettas=[0,0]")
    assert (done.status, "did you mean optimizer.betas?" in done.err) == (2, True)


def test_rates_of_single_layers(train: Any, newest: Any) -> None:
    done = train(*CONFIGS, *arguments("layerwise"), "data=iris", "trainer.max_epochs=2")
    assert done.status == 0, done.err
    (state,) = newest().checkpoint()["optimizer_states"]
    groups = [(group["max_lr"], group["weight_decay"], len(group["params"])) for group in state["param_groups"]]
    assert groups == [(1e-3, 0.01, 2), (1e-4, 0.01, 2), (1e-3, 0.0, 2)]


def test_a_typo_in_ones_own_network_gets_a_suggestion(train: Any, own: list[str]) -> None:
    done = train(*CONFIGS, *own, "model=bottleneck", "model.widht=16", "data=iris")
    assert done.status == 2
    assert "did you mean model.width?" in done.err


def test_ordinary_data_loaders(train: Any, newest: Any, own: list[str]) -> None:
    done = train(*CONFIGS, *own, "data=streamed", "trainer.max_epochs=10", "optimizer.lr=0.01")
    assert done.status == 0, done.err
    run = newest()
    assert run.metrics["steps"] == 10 * 25
    assert run.metrics["test/accuracy"] > 0.9
    for stage in ("validate", "test", "predict"):
        done = train(*CONFIGS, *own, f"stage={stage}", f"run={run.folder}")
        assert done.status == 0, done.err
    assert run.read("metrics_test.json")["test/loss"] == run.metrics["test/loss"]
    table = np.genfromtxt(run.folder / "predictions.csv", delimiter=",", skip_header=1, usecols=(1, 2))
    assert np.mean(table[:, 0] == table[:, 1]) == pytest.approx(run.metrics["test/accuracy"])


def test_a_loss_of_ones_own(fit: Any, own: list[str]) -> None:
    plain = fit("optimizer=sgd", "optimizer.lr=0.05")
    halved = fit(*own, "optimizer=sgd", "optimizer.lr=0.1", "classifier._target_=mine.Halved")
    for name, tensor in plain.checkpoint()["state_dict"].items():
        torch.testing.assert_close(halved.checkpoint()["state_dict"][name], tensor)
    assert halved.metrics["train/loss"] == pytest.approx(plain.metrics["train/loss"] / 2, rel=1e-5)


def test_a_callback_that_wants_every_step_gets_it_and_changes_nothing(fit: Any, own: list[str]) -> None:
    plain = fit()
    watched = fit(*own, "+trainer.callbacks.steps._target_=mine.Steps")
    assert sys.modules["mine"].Steps.seen == list(range(1, watched.metrics["steps"] + 1))
    assert watched.weights() == plain.weights()


def test_a_module_that_is_not_allowed_is_refused(train: Any, own: list[str]) -> None:
    done = train(*CONFIGS, "model=bottleneck", "data=iris")
    assert done.status == 2
    assert "allow=[mine]" in done.err
    assert "mine" not in sys.modules


def test_classes_are_not_balanced_where_the_data_do_not_count_them(train: Any, own: list[str]) -> None:
    done = train(*CONFIGS, *own, "data=streamed", "classifier.class_weights=balanced")
    assert done.status == 2
    assert done.err.startswith("classifier.class_weights=balanced: needs data that count their classes")
    assert not Path("logs").exists()
