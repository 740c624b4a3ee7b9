"""What a stage on a trained network takes of the data's settings is what it reads; another file is read by its own."""

from __future__ import annotations

import csv
import dataclasses
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from lightning.pytorch import LightningDataModule

import neurona
from neurona.config.hints import CONFIG_DIR
from neurona.data.base import InMemoryData
from neurona.data.lesson import Lesson
from neurona.errors import ConfigError
from neurona.stages import assembly
from neurona.stages.trainer import build_for_evaluation
from neurona.tables.table import TableData

PREPARED = {
    "decimal": "rules",
    "thousands": "rules",
    "missing": "rules",
    **{name: f"_{name}" for name in ("target", "labels", "group", "order")},
}
"""Settings that a table keeps in another form."""

QUIET = ("quiet=true", "inspect=none", "logger=none", "trainer.max_epochs=3")


def write(path: Path, decimal: str, separator: str) -> None:
    """300 rows of two classes that two columns tell apart."""
    numbers = random.Random(5)
    with path.open("w", newline="") as file:
        lines = csv.writer(file, delimiter=separator)
        lines.writerow(["x", "y", "label"])
        for row in range(300):
            values = (f"{numbers.gauss(3 * (row % 2), 1):.4f}" for _ in range(2))
            lines.writerow([*(value.replace(".", decimal) for value in values), "ab"[row % 2]])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A run on the lesson's data and one on a table; ``new``: the table written with commas."""
    folder = tmp_path_factory.mktemp("runs")
    write(folder / "own.csv", ".", ",")
    write(folder / "new.csv", ",", ";")
    no_importance = "trainer.callbacks.importance=null"
    table = ["data=table", f"data.path={folder}/own.csv", "data.target=label", no_importance]
    for name, data in (("lesson", ["data=lesson", "data.num_samples=300"]), ("table", table)):
        neurona.run([*data, f"folder={folder}/{name}", *QUIET])
    return {name: f"run={folder}/{name}" for name in ("lesson", "table")} | {"new": f"data.path={folder}/new.csv"}


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The attributes of a data module that are read once it has been made."""
    names, made = set[str](), list[Any]()

    def read(data: Any, name: str) -> Any:
        if any(data is one for one in made):
            names.add(name)
        return object.__getattribute__(data, name)

    def instantiate(node: Any, kind: Any, **arguments: Any) -> Any:
        result = original(node, kind, **arguments)
        made.extend([result] * (kind is LightningDataModule))
        return result

    original = assembly.instantiate
    monkeypatch.setattr(assembly, "instantiate", instantiate)
    monkeypatch.setattr(InMemoryData, "__getattribute__", read, raising=False)
    return names


@pytest.mark.parametrize(
    ("kind", "stage"),
    [
        *(("lesson", stage) for stage in ("validate", "test", "predict")),
        *(("table", stage) for stage in ("validate", "test", "predict")),
        *(("new", stage) for stage in ("test", "predict", "export")),  # an export is slow, and takes the test's rows
    ],
)
def test_what_is_not_refused_is_read(runs: Any, seen: set[str], kind: str, stage: str) -> None:
    is_new = kind == "new"
    overrides = [runs["table"], runs["new"], "data.decimal=','"] if is_new else [runs[kind]]
    neurona.run([f"stage={stage}", "quiet=true", *overrides])
    datamodule = Lesson if kind == "lesson" else TableData
    settings = {field.name for field in dataclasses.fields(datamodule) if field.init}
    accepted = settings - datamodule.unused(is_new=is_new).keys()
    assert len(accepted) > 7
    assert accepted <= {name for name in settings if PREPARED.get(name, name) in seen}


def test_another_file_is_read_by_its_own_rules(runs: Any, caplog: pytest.LogCaptureFixture) -> None:
    own = neurona.run(["stage=test", runs["table"], "quiet=true"])["test/accuracy"]
    commas = ["stage=test", runs["table"], runs["new"], "quiet=true"]
    assert neurona.run([*commas, "data.decimal=','"])["test/accuracy"] > 0.9
    assert own > 0.9
    assert neurona.run(commas)["test/accuracy"] < 0.7  # nothing can be read


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["data.decimal=','"], r"^data.decimal=',': .*give data.path too"),
        (["NEW", "data.numeric=[x]"], r"^data.numeric=\[x\]: is fixed by the training of the run; leave it out"),
        (["NEW", "data.test_path=x.csv"], r"^data.test_path=x.csv: splits the run's own rows"),
        (["NEW", "data.target=nothing"], r"^data.target=nothing: no such column"),
        (["trainer.max_epochs=9"], r"^trainer.max_epochs=9: is not used by stage=predict"),
        (["inspect=full"], r"^inspect=full: is not used by stage=predict"),
    ],
)
def test_what_is_not_read_is_refused_before_anything_happens(runs: Any, given: list[str], words: str) -> None:
    folder = Path(runs["table"].removeprefix("run="))
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.name != ".lock"}
    with pytest.raises(ConfigError, match=words):
        neurona.run(["stage=predict", runs["table"], *(runs["new"] if one == "NEW" else one for one in given)])
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.name != ".lock"}


def test_the_keys_of_the_trainer_that_are_taken_do_something(make_evaluating_trainer: Callable[[str], Any]) -> None:
    for name in ("limit_val_batches", "limit_test_batches", "limit_predict_batches"):
        assert getattr(make_evaluating_trainer(f"trainer.{name}=3"), name) == 3
    assert make_evaluating_trainer("trainer.overfit_batches=2").limit_val_batches == 2
    assert make_evaluating_trainer("trainer.precision=bf16-true").precision == "bf16-true"
    assert type(make_evaluating_trainer("trainer.profiler=simple").profiler).__name__ == "SimpleProfiler"
    assert make_evaluating_trainer("trainer.enable_progress_bar=true").progress_bar_callback is not None


@pytest.fixture
def make_evaluating_trainer(tmp_path: Path) -> Callable[[str], Any]:
    def make(override: str) -> Any:
        with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
            return build_for_evaluation(compose("train", ["data=iris", f"folder={tmp_path}", override]), [])

    return make


def test_what_a_run_was_begun_with_may_be_given_again(runs: Any) -> None:
    same = ["data.num_samples=300", "trainer.max_epochs=3", "inspect=none"]
    assert neurona.run(["stage=test", runs["lesson"], "quiet=true", *same])["status"] == "finished"
