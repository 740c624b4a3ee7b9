"""A run that goes on is the run that began, whatever has changed around it; and runs side by side."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra.core.plugins import Plugins
from omegaconf import OmegaConf

import neurona
from neurona.config.hints import CONFIG_DIR
from neurona.errors import ConfigError
from neurona.report import runs
from neurona.runs import configuration

TRAIN = Path(__file__).parents[2] / "train.py"
SMALL = ["data=iris", "logger=none", "inspect=none", "quiet=true"]
ENV = """# @package _global_
seed: ${oc.decode:${oc.env:MY_SEED,5}}
data:
  batch_size: ${oc.decode:${oc.env:MY_BATCH,8}}
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The working folder as somebody's clone: train.py and the yamls, to be edited."""
    shutil.copy(TRAIN, tmp_path)
    (configs := Path(shutil.copytree(CONFIG_DIR, tmp_path / "configs")))
    (configs / "experiment" / "env.yaml").write_text(ENV)
    return configs


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def test_an_edited_yaml_changes_no_run_that_has_begun(train: Any, read_run: Any, project: Path) -> None:
    run, reference = read_run("logs/y"), read_run("logs/whole")
    assert train(*SMALL, "folder=logs/whole", "trainer.max_epochs=4").status == 0
    assert train(*SMALL, "folder=logs/y", "trainer.max_epochs=2").status == 0
    before = (run.folder / "config.yaml").read_bytes(), (run.folder / "overrides.yaml").read_bytes()
    edit(project / "data/iris.yaml", "batch_size: 16", "batch_size: 64")
    edit(project / "optimizer/adam.yaml", "clip_norm: null", "clip_norm: 0.01")
    edit(project / "classifier/default.yaml", "label_smoothing: 0.0", "label_smoothing: 0.3")
    (run.folder).rename("moved")
    assert train("run=moved", "trainer.max_epochs=4", "quiet=true").status == 0
    moved = read_run("moved")
    assert moved.weights() == reference.weights()
    assert moved.weights("best") == reference.weights("best")
    assert ((moved.folder / "config.yaml").read_bytes(), (moved.folder / "overrides.yaml").read_bytes()) == before
    (entry,) = configuration.changes(moved.folder)
    assert (entry["overrides"], entry["changes"]) == (
        ["trainer.max_epochs=4", "quiet=true"],
        {"trainer.max_epochs": 4},
    )
    assert not Path("logs/y").exists()
    assert train("run=moved", "stage=test").status == 0


def test_numbers_from_the_environment_are_the_runs(
    train: Any, read_run: Any, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_SEED", "9")
    monkeypatch.setenv("MY_BATCH", "4")
    for folder, epochs in (("logs/whole", 3), ("logs/e", 2)):
        done = train(*SMALL, "experiment=env", f"folder={folder}", f"trainer.max_epochs={epochs}")
        assert done.status == 0, done.err
    monkeypatch.setenv("MY_SEED", "1")
    monkeypatch.delenv("MY_BATCH")
    assert train("run=logs/e", "trainer.max_epochs=3", "quiet=true").status == 0
    run = read_run("logs/e")
    assert run.weights() == read_run("logs/whole").weights()
    assert run.metrics["steps"] == 3 * 25  # 98 rows, 4 at a time
    config = configuration.read(run.folder)
    assert (config["seed"], config["data"]["batch_size"]) == (9, 4)


def test_a_report_sees_seeds_from_the_environment(train: Any, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in (0, 1, 2):
        monkeypatch.setenv("MY_SEED", str(seed))
        given = ["experiment=env"] if seed else ["seed=${oc.env:MY_SEED}", "data.batch_size=8"]
        given.append("tags=['${oc.env:MY_SEED}']")
        assert train(*SMALL, *given, f"folder=logs/{seed}", "trainer.max_epochs=1").status == 0
    damaged: list[Path] = []
    found = [runs.read(folder, damaged) for folder in runs.find([Path("logs")])]
    assert [run.seed for run in found] == [0, 1, 2]
    assert found[0].settings == found[1].settings == found[2].settings
    assert not damaged


def test_no_file_of_a_run_holds_a_text_of_the_environment(
    train: Any, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [f"{x / 7 % 3},{x % 5},{'ab'[x % 2]}" for x in range(200)]
    Path("s3cr3t.csv").write_text("\n".join(["one,two,target", *rows]))
    monkeypatch.setenv("S", "s3cr3t")
    settings = ["data=table", "data.path=${oc.env:S}.csv", "data.target=target", "tags=['${ oc.env:S}','a']"]
    done = train(*settings, "folder=logs/r", "trainer.max_epochs=1", "logger=[tensorboard,csv]")
    assert done.status == 0, done.err
    assert "texts from the environment, which are not stored:" in done.out
    assert "data.path, tags[0]" in done.out
    holding = [path for path in Path("logs").rglob("*") if path.is_file() and b"s3cr3t" in path.read_bytes()]
    assert not holding
    assert train("run=logs/r", "trainer.max_epochs=2", "quiet=true", "logger=tensorboard").status == 0
    assert train("run=logs/r", "stage=test", "quiet=true").status == 0
    holding = [path for path in Path("logs").rglob("*") if path.is_file() and b"s3cr3t" in path.read_bytes()]
    assert not holding
    sweep = ["-m", "seed=0,1", "hydra/launcher=basic", "hydra.sweep.dir=logs/sweep", "logger=none"]
    done = train(*sweep, "data=table", "data.path=${oc.env:S}.parquet", "data.target=target")
    assert (done.status, "s3cr3t.parquet: does not exist" in done.err) == (2, True)
    assert "${oc.env:S}.parquet: does" in Path("logs/sweep/1_seed1/metrics.json").read_text()
    holding = [path for path in Path("logs").rglob("*") if path.is_file() and b"s3cr3t" in path.read_bytes()]
    assert not holding
    monkeypatch.delenv("S")
    before = sorted(Path("logs").rglob("*"))
    done = train("run=logs/r", "trainer.max_epochs=3", "logger=tensorboard")
    assert (done.status, done.err) == (
        2,
        "data.path=${oc.env:S}.csv: needs the environment variable S, which is not set: export S=…\n",
    )
    assert sorted(Path("logs").rglob("*")) == before


def test_a_text_of_a_number_is_one_where_a_number_belongs(fit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"SEED": "3", "LR": "1e-2", "WIDTH": "7", "NESTEROV": "true", "FOLDS": "5", "DROPOUT": "0.1"}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    run = fit(
        *(
            "logger=none",
            "seed=${oc.env:SEED}",
            "model.hidden=['${oc.env:WIDTH}',4]",
            "model.dropout=${oc.env:DROPOUT}",
        ),
        *("optimizer=sgd", "optimizer.lr=${oc.env:LR}", "optimizer.nesterov=${oc.env:NESTEROV}"),
        *("optimizer.momentum=0.9", "data.folds=${oc.env:FOLDS}", "data.fold=${oc.env:SEED}"),
    )
    same = fit(
        *("logger=none", "seed=3", "model.hidden=[7,4]", "model.dropout=0.1", "optimizer=sgd", "optimizer.lr=1e-2"),
        *("optimizer.nesterov=true", "optimizer.momentum=0.9", "data.folds=5", "data.fold=3"),
    )
    assert run.weights() == same.weights()
    ours, theirs = (configuration.load(one.folder / "config.yaml") for one in (run, same))
    assert {**ours, "folder": ""} == {**theirs, "folder": ""}
    monkeypatch.setenv("SEED", "nine")
    with pytest.raises(ConfigError, match="seed=nine: must be a whole number"):
        fit("seed=${oc.env:SEED}")


def test_what_gives_other_bits_is_told(
    iris_run: Any, train: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    provenance = iris_run.read("provenance.json")
    provenance["versions"]["torch"] = "2.0.1"
    (iris_run.folder / "provenance.json").write_text(json.dumps(provenance))
    contents = iris_run.checkpoint()
    contents["neurona"]["rng"] *= 2
    contents["neurona"]["rules"] = 0
    import torch

    for name in ("last", "best"):
        torch.save(contents, iris_run.folder / "checkpoints" / f"{name}.ckpt")
    given = ["trainer.max_epochs=3", "trainer.precision=bf16-mixed"]
    done = train(f"run={iris_run.folder}", *given, "quiet=false")
    assert done.status == 0, done.err
    for line in (
        "trainer.max_epochs: 2 before, 3 from now on",
        "trainer.precision: 32-true before, bf16-mixed from now on",
        f"torch: 2.0.1 when the run began or was last stopped, {torch.__version__} now",
        "devices: 2 when",
    ):
        assert line in done.out
    assert "rules of steps: 0 when" in done.out


def test_a_class_that_a_run_names_where_it_was_is_found(fit: Any, read_run: Any) -> None:
    reference = fit("trainer.max_epochs=4", "folder=logs/whole")
    run = fit("folder=logs/old")
    config: Any = configuration.load(run.folder / "config.yaml")
    config["optimizer"]["_target_"] = "neurona.optimizer.adam"
    OmegaConf.save(OmegaConf.create(config), run.folder / "config.yaml")
    for stage in ("test", "predict", "validate"):
        neurona.run(["run=logs/old", f"stage={stage}", "quiet=true"])
    neurona.run(["run=logs/old", "trainer.max_epochs=4", "quiet=true"])
    assert read_run("logs/old").weights() == reference.weights()
    assert configuration.overrides(run.folder)[-2:] == ["trainer.max_epochs=4", "quiet=true"]


# Sweeps.


def test_a_sweep_goes_on_with_the_yamls_it_began_with(train: Any, read_run: Any, project: Path) -> None:
    sweep = ["-m", *SMALL[:-1], "trainer.max_epochs=1", "hydra/launcher=basic", "hydra.sweep.dir=logs/s"]
    assert train(*sweep, "seed=0").status == 0
    edit(project / "data/iris.yaml", "batch_size: 16", "batch_size: 64")
    interrupted = read_run("logs/s/0")
    (interrupted.folder / "metrics.json").write_text('{"status": "interrupted"}')
    (interrupted.folder / "checkpoints" / "best.ckpt").rename(interrupted.folder / "checkpoints" / "last.ckpt")
    done = train(*sweep, "seed=0,1")
    assert done.status == 0, done.err
    assert "these have changed since: data/iris.yaml\n" in done.out
    assert [configuration.read(Path("logs/s", job))["data"]["batch_size"] for job in ("0", "1_seed1")] == [16, 16]
    assert read_run("logs/s/0").metrics["status"] == "finished"
    assert train(*[line.replace("logs/s", "logs/t") for line in sweep], "seed=1").status == 0
    assert configuration.read(Path("logs/t/0"))["data"]["batch_size"] == 64


def test_so_it_does_with_yamls_from_elsewhere(train: Any, project: Path) -> None:
    Path("mine", "optimizer").mkdir(parents=True)
    (slow := Path("mine", "optimizer", "slow.yaml")).write_text("defaults: [adam]\nlr: 0.01\n")
    sweep = [*SMALL[:-1], "optimizer=slow", "trainer.max_epochs=1", "hydra/launcher=basic", "hydra.sweep.dir=logs/s"]
    for place in (["--config-dir", "mine"], ["hydra.searchpath=[file://mine]"]):
        shutil.rmtree("logs", ignore_errors=True)
        assert train("-m", *place, *sweep, "seed=0").status == 0
        edit(slow, "lr: 0.01", "lr: 0.02")
        done = train("-m", *place, *sweep, "seed=0,1")
        assert done.status == 0, done.err
        assert "these have changed since: optimizer/slow.yaml\n" in done.out
        assert [configuration.read(Path("logs/s", job))["optimizer"]["lr"] for job in ("0", "1_seed1")] == [0.01, 0.01]
        edit(slow, "lr: 0.02", "lr: 0.01")


def test_a_sweep_is_asked_for_on_the_command_line(train: Any, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = Plugins.instance().class_name_to_class.items()  # a sweep in this process has added the project's
    others = {name: plugin for name, plugin in known if not name.startswith("hydra_plugins.neurona.")}
    monkeypatch.setattr(Plugins.instance(), "class_name_to_class", others)
    (project / "experiment" / "many.yaml").write_text("# @package _global_\nhydra: {mode: MULTIRUN}\n")
    done = train(*SMALL, "experiment=many", "seed=0")
    assert (done.status, done.err) == (
        2,
        "hydra.mode=MULTIRUN: a yaml cannot make a sweep of a run; leave it out there and add -m\n",
    )
    assert not Path("logs").exists()


# Runs side by side.

APPLICATION = """
import asyncio, sys, threading
from pathlib import Path
import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
import neurona

SMALL = ["data=iris", "logger=none", "inspect=none", "quiet=true", "trainer.max_epochs=1"]

def fit(name):
    neurona.run([*SMALL, f"seed={name}", f"folder=runs/{name}"])

@hydra.main(version_base="1.2", config_path="conf", config_name="app")
def main(cfg: DictConfig) -> None:
    fit(1)
    fit(2)
    neurona.run(["run=runs/1", "trainer.max_epochs=2", "quiet=true"])
    threads = [threading.Thread(target=fit, args=(name,)) for name in (3, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    async def cell():  # of a notebook, in which a loop is running
        fit(5)
    asyncio.run(cell())
    try:
        neurona.run(["data=irs"])
    except neurona.errors.ConfigError as error:
        print(error)
    assert HydraConfig.get().job.config_name == "app"
    assert hydra.compose("app", ["mine=4"]).mine == 4
    assert hydra.utils.instantiate({"_target_": "fractions.Fraction", "_args_": [cfg.mine]}) == 3

if __name__ == "__main__":
    main()
"""


@pytest.mark.long
def test_runs_within_another_hydra_application_in_threads_and_again_and_again(
    tmp_path: Path, read_run: Callable[..., Any], fit: Any
) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "app.yaml").write_text("mine: 3\nhydra: {run: {dir: out}}\n")
    (tmp_path / "app.py").write_text(APPLICATION)
    environment = {**os.environ, "PYTHONPATH": str(CONFIG_DIR.parent / "src")}
    done = subprocess.run(
        [sys.executable, "app.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "did you mean iris?" in done.stdout
    for name in range(1, 6):
        own = fit("logger=none", "inspect=none", f"trainer.max_epochs={2 if name == 1 else 1}", f"seed={name}")
        assert read_run(f"runs/{name}").weights() == own.weights(), name
