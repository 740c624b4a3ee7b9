"""Reading run folders."""

from __future__ import annotations

import fcntl
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from neurona.errors import ConfigError
from neurona.report import runs
from neurona.report.runs import Run

Make = Callable[..., Path]
Read = Callable[[], list[Run]]


def test_runs_are_found_once_and_in_the_order_of_their_numbers(make_run: Make, tmp_path: Path) -> None:
    folders = [make_run(f"sweep/{number}") for number in (10, 2, 1)]
    (folders[0] / "checkpoints").mkdir()
    (tmp_path / "logs" / "sweep" / "report").mkdir()
    folders_in_order = runs.find([tmp_path / "logs", folders[0], tmp_path / "logs" / "sweep"])
    assert [path.name for path in folders_in_order] == ["1", "2", "10"]


def test_paths_without_runs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere: is not a folder"):
        runs.find([tmp_path / "nowhere"])
    with pytest.raises(ConfigError, match="holds no runs"):
        runs.find([tmp_path])


def test_settings_are_what_decides_the_result(make_run: Make, read: Read) -> None:
    passing = {"data.root": "/data", "threads": 4, "tags": ["x"], "inspect": {"norms": False}}
    make_run("a", seed=3, settings={**passing, "data.split_seed": 3})
    (run,) = read()
    assert (run.seed, run.settings) == (
        3,
        {
            "data": "neurona.data.iris.Iris",
            "data.batch_size": 16,
            "data.shuffle_seed": "${seed}",
            "data.split_seed": 3,
            "model": "neurona.models.mlp.MLP",
            "model.hidden": "[8]",
            "model.activation": "relu",
            "optimizer": "neurona.optimizer.adam",
            "optimizer.lr": 0.001,
            "init_from": "null",
        },
    )


def test_a_configuration_that_names_no_folder_keeps_all_settings(make_run: Make, read: Read) -> None:
    config = make_run("a", settings={"model.hidden": "None-like"}) / "config.yaml"
    config.write_text("".join(line for line in config.read_text().splitlines(True) if not line.startswith("folder:")))
    (run,) = read()
    assert run.settings["model.hidden"] == "None-like"


def test_an_order_of_its_own_and_an_origin_are_settings(make_run: Make, read: Read) -> None:
    for seed in (0, 1):
        make_run(f"a{seed}", seed, settings={"data.shuffle_seed": 7, "init_from": f"logs/before/{seed}"})
    assert [run.settings["data.shuffle_seed"] for run in read()] == [7, 7]
    assert [run.settings["init_from"] for run in read()] == ["logs/before", "logs/before"]


def test_a_running_run_that_nobody_holds_is_lost(make_run: Make, read: Read) -> None:
    dead, held, _ = (make_run(name, status="running") for name in ("dead", "held", "never"))
    (dead / ".lock").touch()
    with (held / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert {run.folder.name: run.status for run in read()} == {"dead": "lost", "held": "running", "never": "lost"}


def test_damaged_files_are_named(make_run: Make) -> None:
    metrics, config, listed = (make_run(name, accuracy=0.9) for name in ("metrics", "config", "listed"))
    (metrics / "metrics.json").write_text('{"status": "fini')
    (config / "config.yaml").write_text("a: [")
    (listed / "metrics.json").write_text("[]")
    damaged: list[Path] = []
    damaged_runs = [runs.read(folder, damaged) for folder in (metrics, config, listed)]
    assert [run.status for run in damaged_runs] == ["damaged"] * 3
    assert damaged == [metrics / "metrics.json", config / "config.yaml", listed / "metrics.json"]


def test_errors_are_cut_to_their_first_line(make_run: Make, read: Read) -> None:
    make_run("a", status="failed", figures={"error": "out of memory\ntraceback"})
    assert read()[0].error == "out of memory"


def test_figures_are_numbers(make_run: Make, read: Read) -> None:
    figures: dict[str, Any] = {"val/loss": None, "steps": 4, "seconds": 0.5, "stopped_by": "max_epochs", "done": True}
    make_run("a", accuracy=1.0, figures=figures)
    assert read()[0].figures == {"test/accuracy": 1.0, "steps": 4, "seconds": 0.5}


def test_a_command_can_be_pasted(make_run: Make, read: Read) -> None:
    make_run("a", overrides=["data=iris", "data.path='a b.csv'"])
    assert shlex.split(read()[0].command) == ["python", "train.py", "data=iris", "data.path='a b.csv'"]


def test_what_later_sessions_changed_is_the_runs(make_run: Make, read: Read) -> None:
    folder = make_run("0", 0, 0.9, settings={"data.name": "${oc.env:NAME}", "optimizer.lr": 1})
    entry = {
        "time": "",
        "overrides": ["run=x", "trainer.max_epochs=9"],
        "changes": {"trainer.max_epochs": 9, "optimizer.lr": 2},
    }
    (folder / "changes.yaml").write_text(yaml.safe_dump([entry]))
    (run,) = read()
    assert (run.settings["trainer.max_epochs"], run.settings["optimizer.lr"]) == (9, 2)
    assert "data.name" not in run.settings
    assert run.command == "python train.py seed=0 trainer.max_epochs=9"
    for text in ("- 3", "[{changes: 3}]", "a: ["):
        (folder / "changes.yaml").write_text(text)
        damaged: list[Path] = []
        assert runs.read(folder, damaged).status == "damaged"
        assert damaged == [folder / "changes.yaml"]
