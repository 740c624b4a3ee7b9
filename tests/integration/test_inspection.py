"""Everything that TensorBoard is told is read back through its own HTTP API."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import neurona
from neurona.errors import ConfigError

STEPS = 37  # in an epoch of the digits
OVERRIDES = (
    "trainer.max_epochs=4",
    "trainer.log_every_n_steps=20",
    "model.activation=[relu,tanh]",
    "model.dropout=0.1",
    "quiet=true",
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs that differ in what is inspected, in one folder, as those of a sweep are."""
    folder = tmp_path_factory.mktemp("inspected")
    neurona.run([*OVERRIDES, f"folder='{folder}/full'", "inspect=full", "inspect.every_n_epochs=2"])
    neurona.run([*OVERRIDES, f"folder='{folder}/none'", "inspect=none", "trainer.precision=32"])
    return folder


@pytest.fixture(scope="module")
def ask(runs: Path) -> Iterator[Callable[..., Any]]:
    """A question to TensorBoard's API about the run ``full``: plugin/route and parameters, or a body."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(runs), "--host", "127.0.0.1", "--port", "0"]
    with subprocess.Popen([*command, "--load_fast", "false"], stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        address = next(match[0] for line in server.stderr if (match := re.search(r"http://\S+/", line)))
        yield lambda route, body=None, **parameters: _answer(f"{address}data/plugin/{route}", body, parameters)
        server.terminate()


def _answer(address: str, body: Any, parameters: dict[str, Any]) -> Any:
    query = "" if "?" in address else f"?{urlencode({'run': 'full', **parameters})}"
    data = None if body is None else json.dumps(body).encode()
    with urlopen(Request(address + query, data, {"Content-Type": "application/json"}), timeout=60) as answer:
        content = answer.read()
        return json.loads(content) if "json" in answer.headers["Content-Type"] else content


def test_inspection_changes_no_bit(runs: Path, read_run: Any) -> None:
    assert read_run(runs / "full").weights() == read_run(runs / "none").weights()


def test_scalars(ask: Any, runs: Path) -> None:
    tags = ask("scalars/tags")
    steps = {tag: [step for _, step, _ in ask("scalars/scalars", tag=tag)] for tag in tags["full"]}
    logged, epochs = list(range(19, 4 * STEPS, 20)), list(range(STEPS - 1, 4 * STEPS, STEPS))  # counted from 0
    for layer in ("linear1", "linear2", "head"):
        assert steps[f"vitals/gradient_norm/{layer}"] == steps[f"vitals/update_ratio/{layer}"] == logged
    assert steps["vitals/gradient_norm/all"] == steps["train/step_loss"] == logged
    vitals = ("dead_units/activation1", "saturated_units/activation2", "speed/samples_per_second")
    for tag in (*(f"vitals/{name}" for name in vitals), "train/lr"):
        assert set(epochs) <= set(steps[tag]), tag
    for _, _, share in ask("scalars/scalars", tag="vitals/dead_units/activation1"):
        assert 0 <= share < 1
    ratios = [ratio for _, _, ratio in ask("scalars/scalars", tag="vitals/update_ratio/linear2")]
    assert all(1e-4 < ratio < 0.1 for ratio in ratios)
    assert [tag for tag in tags["none"] if tag.startswith("vitals/")] == ["vitals/epoch"]


def test_training_and_validation_are_on_one_chart(ask: Any) -> None:
    layout = ask("custom_scalars/layout")
    charts = {chart["title"]: chart["multiline"]["tag"] for part in layout["category"] for chart in part["chart"]}
    assert charts["loss"] == ["^train/loss$", "^val/loss$"]
    tags = ask("scalars/tags")["full"]
    for chart in charts.values():
        for pattern in chart:
            assert any(re.search(pattern, tag) for tag in tags), pattern


def test_one_row_of_hyperparameters_for_each_run(ask: Any, runs: Path, read_run: Any) -> None:
    statuses = ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING"]
    names = ("best/val/loss", "best/test/accuracy", "val/loss")
    columns = [{"metric": {"tag": name, "group": ""}} for name in names]
    groups = ask("hparams/session_groups", {"sliceSize": 100, "allowedStatuses": statuses, "colParams": columns})
    assert len(groups["sessionGroups"]) == 2
    for group in groups["sessionGroups"]:
        (session,) = group["sessions"]
        metrics = read_run(runs / session["name"]).metrics
        values = {value["name"]["tag"]: value["value"] for value in group["metricValues"]}
        assert group["hparams"]["optimizer.lr"] == 1e-3
        for name in ("val/loss", "test/accuracy"):
            assert values[f"best/{name}"] == pytest.approx(metrics[name], abs=1e-6)
        (last,) = [value for _, step, value in ask("scalars/scalars", tag="val/loss") if step == 4 * STEPS - 1]
        assert values["val/loss"] == pytest.approx(last, abs=1e-6)


def test_the_table_of_hyperparameters_begins_with_what_differs(ask: Any) -> None:
    """And with the results, of which TensorBoard shows the first five."""
    experiment = ask("hparams/experiment", {"experimentName": "", "includeMetrics": True, "hparamsLimit": 1000})
    columns = [info["name"] for info in experiment["hparamInfos"]]
    differing = [info["name"] for info in experiment["hparamInfos"] if info["differs"]]
    assert columns[: len(differing)] == differing == ["precision"]
    assert not {"data.eval_batch_size", "data.root", "data.shuffle_seed"} & set(columns)
    metrics = [info["name"]["tag"] for info in experiment["metricInfos"]]
    assert metrics[:4] == ["best/test/accuracy", "best/test/loss", "best/val/accuracy", "best/val/loss"]


def test_precision_and_recall_of_each_class(ask: Any) -> None:
    tags = ask("pr_curves/tags")["full"]
    assert set(tags) == {f"precision_recall_{part}/{digit}" for part in ("val", "test") for digit in range(10)}
    (curve,) = ask("pr_curves/pr_curves", tag="precision_recall_test/3")["full"]
    assert curve["step"] == 4 * STEPS
    assert curve["recall"][0] == 1  # every row is taken for a 3
    assert curve["precision"][0] == pytest.approx(37 / 359, abs=1e-3)  # so many of the test part are
    assert [c["step"] for c in ask("pr_curves/pr_curves", tag="precision_recall_val/3")["full"]] == [73, 147, 148]


def test_pictures(ask: Any) -> None:
    tags = ask("images/tags")["full"]
    pictures = ("confusion", "roc", "reliability", "most_wrong")
    assert set(tags) == {f"{name}/{part}" for name in pictures for part in ("val", "test")} | {"weights/linear1"}
    (picture,) = ask("images/images", tag="confusion/test", sample=0)
    assert picture["step"] == 4 * STEPS
    assert ask(f"images/individualImage?{picture['query']}").startswith(b"\x89PNG")


def test_histograms_of_weights_gradients_and_activations(ask: Any) -> None:
    tags = ask("histograms/tags")["full"]
    expected = {f"weights/{layer}.{kind}" for layer in ("linear1", "linear2", "head") for kind in ("weight", "bias")}
    expected |= {name.replace("weights", "gradients") for name in expected}
    assert set(tags) == expected | {"activations/activation1", "activations/activation2"}
    histograms = ask("histograms/histograms", tag="weights/linear1.weight")
    assert [step for _, step, _ in histograms] == [73, 147]
    assert sum(count for _, _, count in histograms[0][2]) == pytest.approx(64 * 128)


def test_projector(ask: Any, runs: Path) -> None:
    (embedding,) = ask("projector/info")["embeddings"]
    assert embedding["tensorShape"] == [270, 64]
    name = embedding["tensorName"]
    vectors = np.frombuffer(ask("projector/tensor", name=name), dtype=np.float32)
    assert vectors.reshape(270, 64).std() > 0
    labels = ask("projector/metadata", name=name).decode().splitlines()
    assert labels[0] == "target\tprediction"
    assert len(labels) == 271
    right = [target == prediction for target, prediction in (line.split("\t") for line in labels[1:])]
    assert np.mean(right) > 0.8
    assert ask("projector/sprite_image", name=name).startswith(b"\x89PNG")


def test_graph_and_texts(ask: Any, runs: Path) -> None:
    definition = ask("graphs/graph").decode()
    assert re.findall(r'^  name: "([a-z0-9]+)"', definition, re.MULTILINE) == [
        *("features", "linear1", "activation1", "dropout1", "linear2", "activation2", "dropout2", "head")
    ]
    tags = ask("text/tags")["full"]
    assert {tag.removesuffix("/text_summary") for tag in tags} == {"summary", "command", "config"}
    (command,) = ask("text/text", tag="command/text_summary")
    assert "python train.py trainer.max_epochs=4" in command["text"]
    (summary,) = ask("text/text", tag="summary/text_summary")
    assert "17,226 parameters" in summary["text"]


def test_nothing_is_inspected_unless_asked_for(runs: Path, ask: Any) -> None:
    assert ask("images/tags").get("none", {}) == {}
    assert not (runs / "none" / "projector").exists()


def test_rows_of_other_data_than_images_are_shown_as_text(fit: Any) -> None:
    run = fit("data=breast_cancer", "quiet=false", "inspect=standard", "inspect.every_n_epochs=1")
    log = (run.folder / "train.log").read_text()
    assert log.count("inspect: without weights as images (the features are not pixels)") == 1
    events = EventAccumulator(str(run.folder))
    events.Reload()
    tags = events.Tags()
    assert not any(tag.startswith(("weights", "most_wrong")) for tag in tags["images"])
    assert "most_wrong/val/text_summary" in tags["tensors"]


def test_refused(fit: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"inspect\.max_rows=0"):
        fit("inspect.max_rows=0")
    assert list(tmp_path.iterdir()) == []
