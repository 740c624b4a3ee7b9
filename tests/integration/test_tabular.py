"""The network for tables: its defaults, its embeddings in checkpoints and compiled, the importance of the columns."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from lightning.pytorch import Callback
from omegaconf import OmegaConf

import neurona
from neurona.errors import ConfigError
from neurona.runs import checkpoint

ROWS = 800
CITIES = [f"city {i}" for i in range(30)]


class SeesEveryStep(Callback):
    """Has every Lightning batch be one mini-batch."""

    def on_train_batch_end(self, *args: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The label depends on the city, on a number that is missing in places, and not at all on another."""
    rng = np.random.default_rng(0)
    city, size, noise = rng.integers(0, 30, ROWS), rng.normal(0, 1, ROWS), rng.normal(0, 1, ROWS)
    label = 1.5 * np.sin(np.arange(30.0) * 5)[city] + size > 0
    path = tmp_path_factory.mktemp("cities") / "cities.csv"
    sizes = [None if i % 9 == 0 else value for i, value in enumerate(size)]
    columns = {"noise": noise, "city": [CITIES[i] for i in city], "size": sizes, "label": label}
    pl.DataFrame(columns, strict=False).write_csv(path)
    return path


@pytest.fixture(scope="module")
def run(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    data = [f"data.path={table}", "data.target=label", "data.max_one_hot=29"]  # of 30 cities
    neurona.run(["data=table", *data, f"folder={folder}", "quiet=true"])
    return folder


def short(table: Path, folder: Path, *overrides: str) -> Path:
    data = ["data=table", f"data.path={table}", "data.target=label", "data.max_one_hot=29", "trainer.max_epochs=3"]
    rest = ["logger=none", "quiet=true", "trainer.callbacks.importance=null"]
    neurona.run([*data, *rest, f"folder={folder}", *overrides])
    return folder


def test_the_table_alone_brings_its_defaults(run: Path) -> None:
    cfg, figures = OmegaConf.load(run / "config.yaml"), json.loads((run / "metrics.json").read_text())
    assert (cfg.model.hidden, cfg.model.members, cfg.classifier.calibrate) == (None, None, True)
    first = checkpoint.rebuild(checkpoint.read(run / "checkpoints" / "best.ckpt")).network.network.layers.linear1
    assert first.s.shape == (8, 128)  # members and width of a table of so few rows
    assert figures["stopped_by"] == "early_stopping"
    assert figures["test/accuracy"] > 0.8


def test_what_is_given_comes_before_the_tables_defaults(table: Path, tmp_path: Path) -> None:
    choices = ["model=linear", "optimizer=sgd", "trainer.callbacks.early_stopping.patience=7"]
    cfg = OmegaConf.load(short(table, tmp_path / "run", *choices) / "config.yaml")
    assert cfg.model._target_ == "neurona.models.linear.Linear"
    assert cfg.optimizer._target_ == "torch.optim.SGD"
    assert (cfg.trainer.callbacks.early_stopping.patience, cfg.trainer.max_epochs) == (7, 3)


def test_embeddings_are_rebuilt_from_the_checkpoint(run: Path) -> None:
    contents = checkpoint.read(run / "checkpoints" / "best.ckpt")
    classifier = checkpoint.rebuild(contents)
    preprocessing, network = classifier.preprocessing, classifier.network
    assert preprocessing.embedded == [31]
    assert network.embedding.categories.shape == (31, 8)
    inputs = 2 + 1 + 8  # two numbers, an indicator, the city's vector
    assert network.network.layers.linear1.weight.shape[1] == inputs
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, contents["state_dict"][f"network.{name}"])
    model = neurona.load(run)
    rows = {"noise": [0.1, 0.1], "size": [None, 3.0], "city": ["Atlantis", "city 3"]}
    with pytest.warns(
        UserWarning, match="column 'city': 1 of 2 values are not known from training, such as 'Atlantis'"
    ):
        first = model.predict_proba(rows)
    rows["noise"], rows["city"] = [0.1, 0.1], [None, "city 3"]
    np.testing.assert_array_equal(model.predict_proba(rows), first)  # unknown is as missing


def test_a_loaded_run_scores_labels_as_a_frame_holds_them(table: Path, run: Path) -> None:
    model, frame = neurona.load(run), pl.read_csv(table)
    truth = frame["label"].to_numpy()
    assert truth.dtype == bool
    right = np.mean((model.predict(frame) == "true") == truth)
    assert 0.8 < right < 1
    for labels in (frame["label"], truth, truth.tolist(), np.where(truth, "true", "false")):
        assert model.score(frame, labels) == right


def test_chunks_and_single_steps_give_the_same_bits(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent)
    alone = "+trainer.callbacks.each._target_=test_tabular.SeesEveryStep"
    small = (
        "embedding.numbers=periodic",
        "data.numeric_encoding=quantile",
        "model.hidden=[16]",
        "trainer.max_epochs=2",
    )
    chunks = short(table, tmp_path / "chunks", *small)
    single = short(table, tmp_path / "single", *small, alone, "allow=[test_tabular]")
    one, other = (checkpoint.read(run / "checkpoints" / "last.ckpt")["state_dict"] for run in (chunks, single))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    assert one["network.embedding.frequencies"].shape == (2, 16)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch", "ignore::FutureWarning:torch")
def test_compiled_it_learns_the_same(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ("model.dropout=0", "model.hidden=[8]", "optimizer=sgd", "trainer.max_epochs=2")
    runs = [short(table, tmp_path / on, *small, f"compile={on}") for on in ("false", "true")]
    assert "going on without" not in capsys.readouterr().out
    eager, compiled = (json.loads((run / "metrics.json").read_text()) for run in runs)
    assert compiled["train/loss"] == pytest.approx(eager["train/loss"], rel=1e-4)
    assert compiled["test/loss"] == pytest.approx(eager["test/loss"], rel=1e-4)


def test_the_importance_of_the_columns_is_kept_and_shown(run: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with (run / "importance.csv").open(newline="") as lines:
        records = list(csv.DictReader(lines))
    assert list(records[0]) == ["column", "loss", "loss_std", "accuracy", "accuracy_std"]
    assert [row["column"] for row in records][-1] == "noise"
    assert {row["column"] for row in records} == {"city", "size", "noise"}
    assert float(records[0]["accuracy"]) > 0.1 > abs(float(records[-1]["accuracy"]))
    assert (run / "importance.png").read_bytes().startswith(b"\x89PNG")
    events = EventAccumulator(str(run))
    events.Reload()
    assert "importance" in events.Tags()["images"]  # among those of the inspection


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (["embedding.numbers=periodic", "data.numeric_encoding=piecewise"], r"data\.numeric_encoding=quantile"),
        (["trainer.precision=bf16-true"], "rounds a table's values"),
        (["data.batch_size=0"], r"data\.batch_size=0"),
        (["data.val_fraction=0"], "patience=null"),
    ],
)
def test_mistakes_leave_nothing_behind(table: Path, tmp_path: Path, overrides: list[str], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        short(table, tmp_path / "run", *overrides)
    assert not (tmp_path / "run").exists()


def test_a_refit_trains_on_the_validation_rows_too_for_as_many_steps(run: Path) -> None:
    first = json.loads((run / "metrics.json").read_text())
    neurona.run(["stage=refit", f"run={run}", "quiet=true"])
    refit = run / "refit"
    figures = json.loads((refit / "metrics.json").read_text())
    assert figures["steps"] == first["steps"] // first["epochs"] * (first["best_epoch"] + 1)
    assert "test/accuracy" in figures
    assert "val/accuracy" not in figures
    rows = [json.loads((folder / "data_card.json").read_text())["rows"] for folder in (run, refit)]
    assert rows[1]["train"] == rows[0]["train"] + rows[0]["val"]
    assert rows[1]["test"] == rows[0]["test"]
    again = neurona.run([f"run={refit}", f"trainer.max_steps={figures['steps'] + 10}", "quiet=true"])
    assert again["steps"] == figures["steps"] + 10


def test_a_validation_part_of_its_own_is_not_trained_on(table: Path, tmp_path: Path) -> None:
    run = short(table, tmp_path / "run", f"data.val_path={table}")
    with pytest.raises(ConfigError, match=r"has data\.val_path="):
        neurona.run(["stage=refit", f"run={run}", "quiet=true"])
    assert not (run / "refit").exists()
