"""Several processes on one machine, connected by gloo, learn and report what one does."""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import forks
import pytest
import torch

import neurona
from neurona.devices import launch
from neurona.errors import ConfigError

ROOT = Path(__file__).parents[2]
EVALUATE = Path(__file__).parent / "ranks" / "evaluate.py"

# 1,168 rows for training: the last mini-batch has 16, which three processes share unevenly.
SETTINGS = [
    "data=digits",
    "model.hidden=[32]",
    "optimizer.accumulate=2",
    "optimizer.clip_norm=1",
    "optimizer/schedule=cosine",
    "classifier.class_weights=balanced",
    "classifier.label_smoothing=0.1",
    "trainer.max_epochs=3",
    "quiet=true",
]
COUNTED = ("accuracy", "balanced_accuracy", "macro_f1")
DISCRETE = ("auroc", "average_precision", "calibration_error")  # a probability may pass another, or the edge of a bin


def train(*overrides: str, **options) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, ROOT / "train.py", *overrides], text=True, **options)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def figures(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text())


@pytest.fixture(scope="module")
def one(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("one") / "run"
    neurona.run([*SETTINGS, f"folder={folder}"])
    return folder


@pytest.fixture(scope="module")
def three(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("three") / "working" / "run"
    folder.parent.mkdir()
    command = ["trainer=ddp_cpu", *SETTINGS, f"folder={folder}"]
    with forks.ranks(3, folder.parent, str(ROOT / "train.py"), *command) as processes:
        assert [process.wait() for process in processes] == [0, 0, 0]
    return folder


def test_three_processes_learn_what_one_does(one, three):
    expected = weights(one)
    assert weights(three).keys() == expected.keys()
    for name, tensor in weights(three).items():
        torch.testing.assert_close(tensor, expected[name], atol=2e-6, rtol=1e-5)


def test_three_processes_report_what_one_does(one, three):
    expected, ours = figures(one), figures(three)
    assert ours.keys() == expected.keys()
    assert ours["steps"] == expected["steps"]
    for name in expected:
        if name.partition("/")[0] in ("train", "val", "test"):
            figure = name.split("/")[1]
            tolerance = 0 if figure in (*COUNTED, "accuracy_of") else 1e-4 if figure in DISCRETE else 1e-6
            assert ours[name] == pytest.approx(expected[name], abs=tolerance)
    assert (three / "confusion_matrix_test.csv").read_text() == (one / "confusion_matrix_test.csv").read_text()


PLAIN = ["data=digits", "model.hidden=[32]", "optimizer.clip_norm=1", "trainer.max_epochs=2", "quiet=true"]


@pytest.fixture(scope="module")
def lightnings(tmp_path_factory) -> Callable[[int], Path]:
    """The run of so many processes in Lightning's own way, which a strategy of Lightning's asks for."""

    def call(number: int) -> Path:
        folder = tmp_path_factory.mktemp("lightnings") / "working" / "run"
        folder.parent.mkdir()
        command = ["trainer=cpu", "trainer.strategy=ddp", *PLAIN, "quiet=false", f"folder={folder}"]
        with forks.ranks(number, folder.parent, str(ROOT / "train.py"), *command) as processes:
            assert [process.wait() for process in processes] == [0] * number
        return folder

    return call


@pytest.mark.long
def test_lightnings_own_ddp_learns_what_one_process_does(lightnings, tmp_path):
    neurona.run([*PLAIN, f"folder={tmp_path / 'run'}"])
    folder = lightnings(2)
    assert "trainer.strategy=DDPStrategy" in (folder / "train.log").read_text()
    expected = weights(tmp_path / "run")
    for name, tensor in weights(folder).items():
        torch.testing.assert_close(tensor, expected[name], atol=2e-6, rtol=1e-5)
    assert figures(folder)["test/accuracy"] == figures(tmp_path / "run")["test/accuracy"]


@pytest.mark.long
def test_lightnings_own_ddp_says_which_rows_come_twice(lightnings):
    folder = lightnings(3)
    assert "that 3 processes cannot share evenly, its first rows come twice" in (folder / "train.log").read_text()
    assert figures(folder)["steps"] == 2 * 37


def test_one_process_writes_the_run_folder(one, three):
    def names(folder):
        return sorted(path.name.partition(".tfevents")[0] for path in folder.rglob("*"))

    assert names(three) == names(one)
    assert [path.name for path in three.parent.iterdir()] == ["run"]


@pytest.mark.parametrize(
    "numbers",
    [
        # around a batch of 16 and its multiples; some processes have one row more than others, or none
        pytest.param([1, 2, 3, 4, 5, 15, 16, 17, 32, 33, 40], id="some"),
        pytest.param(list(range(1, 41)), id="all", marks=pytest.mark.many),
    ],
)
def test_every_row_is_counted_once_whatever_their_number(tmp_path, numbers):
    runpy.run_path(str(EVALUATE))["main"](tmp_path / "1", numbers)
    one = json.loads((tmp_path / "1").read_text())
    assert [figures["rows"] for figures in one] == numbers
    for processes in (2, 3):
        file = tmp_path / str(processes)
        with forks.ranks(processes, tmp_path, str(EVALUATE), str(file), *map(str, numbers)) as ranks:
            assert [rank.wait(600) for rank in ranks] == [0] * processes
        for expected, ours in zip(one, json.loads(file.read_text()), strict=True):
            rows = ours["rows"]
            assert sum(map(sum, ours["confusion"])) == rows
            assert ours["confusion"] == expected["confusion"]
            for name in expected.keys() - {"confusion"}:
                assert ours[name] == pytest.approx(expected[name], abs=1e-6, nan_ok=True), (processes, rows, name)


LONG = ["data=digits", "trainer.max_epochs=3000", "trainer.callbacks.checkpoints.every_n_steps=20", "quiet=true"]


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def ranks(folder: Path) -> list[int]:
    """Process ids of the run's ranks, by rank."""
    processes = {}
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            variables = dict(line.split("=", 1) for line in path.read_text().split("\0") if "=" in line)
            if str(folder) in path.with_name("cmdline").read_text() and "RANK" in variables:
                processes[int(variables["RANK"])] = int(path.parent.name)
        except OSError:
            continue
    return [processes[rank] for rank in sorted(processes)]


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc").exists(), reason="reads process ids from /proc")
def test_a_dead_process_ends_the_run_which_goes_on_with_another_number(tmp_path):
    run = tmp_path / "run"
    process = train("trainer=ddp_cpu", *LONG, f"folder={run}", stderr=subprocess.PIPE)
    wait_for(run / "checkpoints" / "last.ckpt")
    begun = time.monotonic()
    os.kill(ranks(run)[1], signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert time.monotonic() - begun < launch.GRACE_SECONDS  # a second, unless the machine is busy
    assert process.returncode == 1
    assert "process 1 of 2 was killed by signal 9" in errors
    assert "another process of this run has ended or cannot be reached" in errors
    assert figures(run)["status"] == "failed"

    steps = figures(run)["steps"]
    neurona.run([f"run={run}", "trainer=cpu", "trainer.max_epochs=-1", f"trainer.max_steps={steps + 60}", "quiet=true"])
    assert figures(run)["status"] == "finished"
    assert figures(run)["steps"] == steps + 60


def test_processes_that_would_train_alone_are_refused(monkeypatch, tmp_path):
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    with pytest.raises(ConfigError, match=r"trainer\.strategy.*2 processes.*trainer=ddp"):
        neurona.run([*SETTINGS, f"folder={tmp_path / 'run'}"])
    assert not (tmp_path / "run").exists()


@pytest.mark.long
def test_that_a_sweep_is_but_one_run_is_said_once(tmp_path):
    settings = ["sweep=optuna", "data=iris", "trainer.max_epochs=1", "logger=none"]
    process = train("trainer=ddp_cpu", *settings, cwd=tmp_path, stdout=subprocess.PIPE)
    assert process.communicate(timeout=60)[0].count("one run, with the settings of sweep=optuna") == 1


def test_several_processes_are_not_started_from_within_python(tmp_path):
    with pytest.raises(ConfigError, match=r"trainer\.devices.*train\.py"):
        neurona.run(["trainer=ddp_cpu", f"folder={tmp_path / 'run'}"])


@pytest.mark.parametrize(("size", "processes"), [(3, 2), (5, 3), (1, 1), (1167, 2)])
def test_one_row_mini_batches_are_refused_with_batch_normalization(monkeypatch, tmp_path, size, processes):
    monkeypatch.setattr("neurona.devices.distributed.world_size", lambda: processes)
    with pytest.raises(ConfigError, match=r"data\.batch_size.*mini-batch of one"):
        neurona.run(["model.normalization=batch", f"data.batch_size={size}", f"folder={tmp_path / 'run'}"])
