"""A run folder is its run's alone, explains itself, keeps secrets, and its files are whole at every moment."""

from __future__ import annotations

import fcntl
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from neurona.devices import launch
from neurona.errors import ConfigError
from neurona.runs.folder import RunFolder, absolute_paths, begun_before, best_checkpoint


@pytest.fixture(autouse=True)
def _no_scheduler(monkeypatch) -> None:
    monkeypatch.setenv("NEURONA_TEST_SECRET", "hunter2")
    for name in list(os.environ):
        if name.startswith(("SLURM_", "TORCHELASTIC_")):
            monkeypatch.delenv(name)


@pytest.fixture
def run(tmp_path) -> Path:
    """What is there once a run has begun: its overrides."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "overrides.yaml").write_text("overrides: []\n")
    return tmp_path / "run"


# Making one.


# Holding one.

HOLD = """
import sys
from pathlib import Path
from neurona.runs.folder import RunFolder
folder = RunFolder.open(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_a_folder_another_process_works_on_is_refused_until_that_one_ends(run):
    command = [sys.executable, "-c", HOLD, str(run)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(ConfigError, match="another process is working on it") as caught:
            RunFolder.open(run)
        assert caught.value.key == "run"
        holder.kill()
    RunFolder.open(run)


def test_a_look_at_whether_a_folder_is_held_does_not_get_a_run_refused(run):
    with (run / ".lock").open("w") as look:
        fcntl.flock(look, fcntl.LOCK_SH)
        threading.Timer(0.02, fcntl.flock, (look, fcntl.LOCK_UN)).start()
        RunFolder.open(run)


def test_a_folder_that_cannot_be_written_is_refused(run, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: not (path == run and mode & os.W_OK))
    with pytest.raises(ConfigError, match="cannot be written"):
        RunFolder.open(run)


# Finding one again.


@pytest.mark.parametrize(
    ("text", "threads"),
    [('{"hardware": {"threads": 3}}', 3), ('{"hardware": [1]}', None), ('{"hardware": {"threads": 1000000000}}', None)],
)
def test_the_threads_that_a_run_began_with_are_taken_if_they_are_some(run, text, threads):
    (run / "provenance.json").write_text(text)
    assert RunFolder.open(run).threads() == threads


@pytest.mark.parametrize("name", ["train.log", ".lock", ".metrics.json.tmp", "checkpoints"])
def test_nothing_is_written_through_a_link_out_of_the_folder(run, name):
    (run / name).symlink_to(run.parent / "outside")
    with pytest.raises(ConfigError, match=rf"{name}: is a link out of the run's folder"):
        RunFolder.open(run)
    assert not (run.parent / "outside").exists()
    (run / name).unlink()
    (run / "again").symlink_to("overrides.yaml")
    RunFolder.open(run)


def test_a_folder_without_overrides_is_no_run(tmp_path):
    for find in (RunFolder.open, best_checkpoint):
        with pytest.raises(ConfigError, match="is not a run folder"):
            find(tmp_path)
        with pytest.raises(ConfigError, match="is not a run folder"):
            find(tmp_path / "nowhere")
    assert list(tmp_path.iterdir()) == []


def test_the_best_checkpoint_is_the_last_while_there_is_no_best(run):
    folder = RunFolder.open(run)
    with pytest.raises(ConfigError, match="has no checkpoint yet"):
        _ = folder.best_checkpoint
    with pytest.raises(ConfigError) as caught:
        best_checkpoint(run, "init_from")
    assert caught.value.key == "init_from"
    (run / "checkpoints").mkdir()
    folder.last_checkpoint.touch()
    assert folder.best_checkpoint == folder.last_checkpoint == run / "checkpoints" / "last.ckpt"
    (run / "checkpoints" / "best.ckpt").touch()
    assert folder.best_checkpoint == run / "checkpoints" / "best.ckpt"


def test_the_last_does_not_stand_for_a_best_that_a_finished_run_has_lost(run):
    folder = RunFolder.open(run)
    (run / "checkpoints").mkdir()
    folder.last_checkpoint.touch()
    folder.write_metrics({"status": "finished"}, "fit")
    with pytest.raises(ConfigError, match=r"has lost its checkpoints/best\.ckpt"):
        best_checkpoint(run, "init_from")


# What it holds.


def test_figures_of_fitting_and_of_other_stages_have_files_of_their_own(run):
    folder = RunFolder.open(run)
    folder.write_metrics({"status": "finished", "val/loss": 0.1}, "fit")
    folder.write_metrics({"status": "finished", "test/loss": 0.2}, "test")
    assert folder.metrics() == {"status": "finished", "val/loss": 0.1}
    assert json.loads((run / "metrics_test.json").read_text()) == {"status": "finished", "test/loss": 0.2}


@pytest.mark.parametrize("damage", [None, "", '{"status": "fini', "[1]", "\xff"])
def test_damaged_figures_are_none(run, damage):
    if damage is not None:
        (run / "metrics.json").write_text(damage, encoding="latin-1")
    assert RunFolder.open(run).metrics() == {}


@pytest.mark.parametrize("damage", [None, "", "a: [", "seed: 1\n"])
def test_a_damaged_configuration_is_refused(run, damage):
    if damage is not None:
        (run / "config.yaml").write_text(damage)
    with pytest.raises(ConfigError, match=r"its config\.yaml is damaged|has no config\.yaml"):
        RunFolder.open(run).settings()


def test_figures_that_are_not_finite_are_null(run):
    folder = RunFolder.open(run)
    folder.write_metrics({"a": float("nan"), "b": float("inf"), "c": -float("inf"), "d": 1.5, "e": 2, "f": "x"}, "fit")
    assert folder.metrics() == {"a": None, "b": None, "c": None, "d": 1.5, "e": 2, "f": "x"}


def configuration(**data):
    return OmegaConf.create(
        {
            "folder": None,
            "seed": 7,
            "init_from": "earlier",
            "data": {"_target_": "neurona.data.mnist.Mnist", "batch_size": 32, **data},
            "model": {"hidden": [8], "inputs": "${data.batch_size}"},
            "trainer": {"max_epochs": 3},
            "logger": {"token": "${oc.env:NEURONA_TEST_SECRET}", "entity": "${oc.env:NEURONA_TEST_UNSET,nobody}"},
        }
    )


SECRET_PATH = "${ oc.env:NEURONA_TEST_SECRET}.csv"
OVERRIDES = ["model.hidden=[8]", "logger.token=${oc.env:NEURONA_TEST_SECRET}"]
CHOICES = {"data": "mnist", "hydra/launcher": "processes"}


@pytest.fixture
def described(tmp_path, monkeypatch) -> Path:
    monkeypatch.delenv("NEURONA_TEST_UNSET", raising=False)
    monkeypatch.chdir(tmp_path)
    folder = RunFolder.create(tmp_path / "run")
    cfg = configuration(root="data", train_path="~/a.csv", target="label", image_path=None, test_path=SECRET_PATH)
    assert folder.describe(cfg, OVERRIDES, CHOICES) == ["data.test_path", "logger.token", "logger.entity"]
    return folder.path


def test_the_configuration_is_resolved_except_for_the_environment(described):
    stored = OmegaConf.to_container(OmegaConf.load(described / "config.yaml"), resolve=False)
    assert stored["model"] == {"hidden": [8], "inputs": 32}
    assert stored["logger"] == {
        "token": "${oc.env:NEURONA_TEST_SECRET}",
        "entity": "${oc.env:NEURONA_TEST_UNSET,nobody}",
    }
    assert stored["data"]["test_path"] == SECRET_PATH


def test_no_file_holds_a_value_of_the_environment(described):
    names = {path.name for path in described.iterdir()}
    assert names >= {"config.yaml", "overrides.yaml", "provenance.json"}
    for name in names:
        assert "hunter2" not in (described / name).read_text(), name
    assert json.loads((described / "provenance.json").read_text())["seed"] == 7


def test_overrides_are_stored_as_given_and_data_paths_absolute(described, tmp_path):
    stored = OmegaConf.to_container(OmegaConf.load(described / "overrides.yaml"), resolve=False)
    assert stored["overrides"] == OVERRIDES
    assert stored["absolute"] == {
        "init_from": str(tmp_path / "earlier"),
        "data.root": str(tmp_path / "data"),
        "data.train_path": str(Path.home() / "a.csv"),
    }
    assert stored["choices"] == {"data": "mnist"}


def test_what_a_run_began_with_is_never_written_over(described):
    before = {path.name: path.read_text() for path in described.iterdir()}
    folder = RunFolder.open(described)
    extended = configuration(root="data", train_path="~/a.csv", target="label", image_path=None, test_path=SECRET_PATH)
    folder.describe(extended, OVERRIDES, CHOICES)
    assert {path.name: path.read_text() for path in described.iterdir()} == before
    extended.logger.token = "${oc.env:NEURONA_TEST_SECRET}!"
    extended.seed = 8  # which belongs to the run
    for given, entity in (("logger.entity=a", "a"), ("logger.entity=b", "b")):
        extended.logger.entity = entity
        folder.describe(extended, [*OVERRIDES, *([] if entity == "a" else ["logger.entity=a"]), "run=run", given], {})
    assert {name: (described / name).read_text() for name in before} == before
    entries = OmegaConf.to_container(OmegaConf.load(described / "changes.yaml"))
    assert [(entry["overrides"], entry["changes"]) for entry in entries] == [
        (["logger.entity=a"], {"logger.token": "${oc.env:NEURONA_TEST_SECRET}!", "logger.entity": "a"}),
        (["logger.entity=b"], {"logger.entity": "b"}),
    ]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d.*", entry["time"]) for entry in entries)


def test_an_absolute_path_stays(tmp_path):
    assert absolute_paths(configuration(root="/somewhere/else"))["data.root"] == "/somewhere/else"


# A job that its scheduler has started again.

SCHEDULERS = {
    "slurm 7": {"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "1"},
    "slurm 5_3": {
        "SLURM_JOB_ID": "8",
        "SLURM_ARRAY_JOB_ID": "5",
        "SLURM_ARRAY_TASK_ID": "3",
        "SLURM_RESTART_COUNT": "2",
    },
    "torchelastic host:29400": {
        "RANK": "0",
        "TORCHELASTIC_RUN_ID": "none",
        "MASTER_ADDR": "host",
        "MASTER_PORT": "29400",
        "TORCHELASTIC_RESTART_COUNT": "1",
    },
}


def begun(folder: Path, overrides: list[str]) -> Path:
    RunFolder.create(folder).describe(configuration(), overrides, {})
    return folder


@pytest.mark.parametrize(("job", "environment"), SCHEDULERS.items(), ids=SCHEDULERS.keys())
def test_a_restarted_job_finds_its_newest_run_of_the_same_overrides(tmp_path, monkeypatch, job, environment):
    begun(tmp_path / "of nobody", ["seed=1"])
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for name, number in (("older", 1), ("newer", 2)):
        run = begun(tmp_path / name, ["seed=1", "logger.token=${oc.env:NEURONA_TEST_SECRET}"])
        os.utime(run / "provenance.json", (number, number))
    begun(tmp_path / "other overrides", ["seed=2"])
    assert json.loads((tmp_path / "newer" / "provenance.json").read_text())["job"] == job
    overrides = ["seed=1", "logger.token=${oc.env:NEURONA_TEST_SECRET}"]
    assert begun_before(tmp_path / "would be", overrides) == tmp_path / "newer"
    assert begun_before(tmp_path / "would be", ["seed=1"]) is None
    assert begun_before(tmp_path / "elsewhere" / "would be", overrides) is None
    for damaged in ("overrides.yaml", "provenance.json"):
        (tmp_path / "newer" / damaged).write_text("[")
        assert begun_before(tmp_path / "would be", overrides) == tmp_path / "older"
    monkeypatch.setenv(next(name for name in environment if name.endswith("RESTART_COUNT")), "0")
    assert begun_before(tmp_path / "would be", overrides) is None


@pytest.mark.parametrize(("status", "is_found"), [("running", True), ("interrupted", True), ("finished", False)])
def test_an_unfinished_run_of_a_torchrun_with_an_id_is_found_without_a_count(tmp_path, monkeypatch, status, is_found):
    for name, value in {"RANK": "0", "TORCHELASTIC_RUN_ID": "mine", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    run = begun(tmp_path / "mine", ["seed=1"])
    (run / "metrics.json").write_text(json.dumps({"status": status}))
    monkeypatch.setenv("MASTER_PORT", "2")  # another host may be the first one now
    assert begun_before(tmp_path / "would be", ["seed=1"]) == (run if is_found else None)


def test_processes_of_this_command_are_no_schedulers_job(tmp_path, monkeypatch):
    for name, value in {"RANK": "0", "TORCHELASTIC_RUN_ID": "neurona-7", launch.LIFELINE: "3"}.items():
        monkeypatch.setenv(name, value)
    begun(tmp_path / "mine", ["seed=1"])
    assert begun_before(tmp_path / "would be", ["seed=1"]) is None


def test_outside_a_scheduler_nothing_is_found(tmp_path):
    begun(tmp_path / "mine", ["seed=1"])
    assert json.loads((tmp_path / "mine" / "provenance.json").read_text())["job"] is None
    assert begun_before(tmp_path / "would be", ["seed=1"]) is None
