from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from neurona import command
from neurona.config import ConfigError, UserError


def stored_run(folder: Path, *overrides: str, **absolute: str) -> Path:
    folder.mkdir(parents=True)
    OmegaConf.save({"overrides": list(overrides), "absolute": absolute}, folder / "overrides.yaml")
    return folder


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    stored = ["experiment=lesson", "data=table", "data.target='a=b, \"c\"'", "model.hidden=[3,4]", "trainer=gpu"]
    process = ["stage=fit", "init_from=logs/other", "folder=logs/x", "allow=[mine]", "hydra.verbose=true", "run=null"]
    stored_run(tmp_path / "logs" / "first", *stored, "trainer.max_epochs=5", *process)
    return "run=logs/first"


KEPT = ["experiment=lesson", "data=table", "data.target='a=b, \"c\"'", "model.hidden=[3,4]", "trainer=gpu"]
FIT = [*KEPT, "init_from=logs/other"]


@pytest.mark.parametrize(
    ("given", "result"),
    [
        ([], [*FIT, "trainer.max_epochs=5"]),
        (["trainer.max_epochs=9"], [*FIT, "trainer.max_epochs=9"]),
        (["+trainer.devices=2", "quiet=true"], [*FIT, "trainer.max_epochs=5", "+trainer.devices=2", "quiet=true"]),
        (["trainer=cpu"], [*FIT[:4], FIT[5], "trainer.max_epochs=5", "trainer=cpu"]),
        (["model.hidden=[3,4]", "trainer=gpu"], [*FIT, "trainer.max_epochs=5"]),
        (["init_from=logs/other"], [*FIT, "trainer.max_epochs=5"]),
        (["allow=[mine]"], [*FIT, "trainer.max_epochs=5", "allow=[mine]"]),
        (["hydra.verbose=true"], [*FIT, "trainer.max_epochs=5", "hydra.verbose=true"]),
        (
            ["stage=test", "data=iris", "data.split_seed=1"],
            ["experiment=lesson", *KEPT[3:], "trainer.max_epochs=5", "stage=test", "data=iris", "data.split_seed=1"],
        ),
        (
            ["stage=predict", "data.target=y"],
            [*KEPT[:2], *KEPT[3:], "trainer.max_epochs=5", "stage=predict", "data.target=y"],
        ),
    ],
)
def test_replay_puts_the_stored_overrides_first(run: str, given: list[str], result: list[str]) -> None:
    replayed = command.replay([run, *given])
    assert sorted(replayed) == sorted([*result, run])
    assert replayed[-len(given) - 1 :] == [run, *given]
    assert command.replay(replayed) == replayed


@pytest.mark.parametrize(
    ("given", "key"),
    [
        (["model.hidden=[1]"], "model.hidden"),
        (["data=iris"], "data"),
        (["stage=fit", "data.target=x"], "data.target"),
        (["stage=test", "seed=3"], "seed"),
        (["stage=test", "init_from=logs/x"], "init_from"),
        (["experiment=keras_mnist"], "experiment"),
        (["optimizer/schedule=cosine"], "optimizer/schedule"),
        (["~model.hidden"], "model.hidden"),
    ],
)
def test_what_belongs_to_the_run_cannot_be_changed(run: str, given: list[str], key: str) -> None:
    with pytest.raises(ConfigError, match=r"belongs to the run in logs/first.*init_from=logs/first") as caught:
        command.replay([run, *given])
    assert caught.value.key == key


def test_of_another_trainer_the_devices_are_its_own(tmp_path: Path) -> None:
    several = ["trainer.devices=4", "+trainer.strategy.x=1"]
    run = f"run={stored_run(tmp_path / 'r', 'trainer=ddp', *several, 'trainer.max_epochs=5')}"
    assert command.replay([run]) == ["trainer=ddp", *several, "trainer.max_epochs=5", run]
    assert command.replay([run, "trainer=cpu"]) == ["trainer.max_epochs=5", run, "trainer=cpu"]


def test_without_run_nothing_changes() -> None:
    assert command.replay(["seed=1", "run=null", "run="]) == ["seed=1", "run=null", "run="]


@pytest.mark.parametrize("run_key", ["run", "+run", "++run"])
def test_however_run_is_written_its_settings_are_replayed(run: str, run_key: str) -> None:
    given = run.replace("run", run_key, 1)
    assert command.replay([given]) == [*command.replay([run])[:-1], given]


@pytest.mark.parametrize("given", ["trainer.max_epochs=4", "trainer.max_epochs=2"])
def test_of_a_repeated_key_the_last_counts(tmp_path: Path, given: str) -> None:
    stored_run(tmp_path / "r", "trainer.max_epochs=4", "trainer.max_epochs=2")
    run = f"run={tmp_path / 'r'}"
    assert command.replay([run, given]) == [run, given]
    assert command.replay([run])[-2:] == ["trainer.max_epochs=2", run]
    assert command.replay([run, "trainer.max_epochs=7", given]) == [run, "trainer.max_epochs=7", given]


def test_a_run_started_from_anothers_weights_remembers_it_while_it_fits(tmp_path: Path) -> None:
    first = stored_run(tmp_path / "first")
    stored_run(tmp_path / "r", "data=iris", "init_from=first", init_from=str(first))
    run = f"run={tmp_path / 'r'}"
    assert command.replay([run]) == ["data=iris", f"init_from='{first}'", run]
    assert command.replay([run, "stage=test"]) == ["data=iris", run, "stage=test"]


@pytest.mark.parametrize("key", ["hydra.launcher._target_", "allow", "database", "model.hidden", "init_from.x@hydra"])
def test_only_data_and_weights_are_among_a_runs_paths(tmp_path: Path, key: str) -> None:
    stored_run(tmp_path / "r", "seed=1", **{key: str(tmp_path)})
    run = f"run={tmp_path / 'r'}"
    assert command.replay([run]) == ["seed=1", run]


@pytest.mark.parametrize(
    ("absolute_exists", "relative_exists", "is_absolute"),
    [(True, False, True), (True, True, True), (False, True, False), (False, False, True)],
)
def test_replay_finds_relative_data_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, absolute_exists: bool, relative_exists: bool, is_absolute: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    absolute = tmp_path / "it's = here, \\'now\\'" / "t.csv"
    for path, exists in ((absolute, absolute_exists), (Path("t.csv"), relative_exists)):
        if exists:
            path.parent.mkdir(exist_ok=True)
            path.touch()
    stored_run(tmp_path / "r", "data=table", "data.path=t.csv", **{"data.path": str(absolute)})
    lines = command.replay(["run=r"])
    (path,) = (o.value() for o in OverridesParser.create().parse_overrides(lines) if o.key_or_group == "data.path")
    assert path == (str(absolute) if is_absolute else "t.csv")


def test_a_default_path_is_made_absolute_only_while_it_exists(tmp_path: Path) -> None:
    stored_run(tmp_path / "r", "data=mnist", **{"data.root": str(tmp_path / "mnist")})
    run = f"run={tmp_path / 'r'}"
    assert command.replay([run]) == ["data=mnist", run]
    (tmp_path / "mnist").mkdir()
    assert command.replay([run]) == ["data=mnist", f"data.root='{tmp_path / 'mnist'}'", run]
    assert command.replay([run, "stage=test", "data=iris"]) == [run, "stage=test", "data=iris"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("run=logs/frist", "run=logs/frist: is not a run folder: it has no overrides.yaml; did you mean first?"),
        ("run=logs", "the latest run in it is logs/first"),
        ("run=nowhere/at/all", "is not a run folder"),
        ("run=logs/broken", "its overrides.yaml is damaged"),
        ("run=logs/partial", "its overrides.yaml is damaged"),
        ("run=[", "cannot be read"),
        ("run=logs/first,logs/other", "run=logs/first,logs/other: must be one run's folder"),
    ],
)
@pytest.mark.usefixtures("run")
def test_what_is_no_run(given: str, message: str) -> None:
    for name, text in (("broken", "overrides: ["), ("partial", "overrides: [seed=1]")):
        Path("logs", name).mkdir()
        Path("logs", name, "overrides.yaml").write_text(text)
    for name in ("broken", "partial") if given == "run=logs" else ():
        Path("logs", name, "overrides.yaml").unlink()
    with pytest.raises(UserError) as caught:
        command.replay([given])
    assert message in str(caught.value)


CONFIGS = {
    "train": "defaults: [{model: mlp}, {trainer: plain}, _self_, {override hydra/job_logging: disabled},"
    " {override hydra/hydra_logging: disabled}]\nhydra: {run: {dir: .}, output_subdir: null}\n"
    "end: done\nseed: 0\nrun: null\n",
    "model/mlp": "hidden: [3]\nactivation: relu",
    "model/linear": "bias: true",
    "model/broken": "hidden: [3",
    "trainer/plain": "_target_: lightning.pytorch.Trainer\nmax_epochs: 3",
}
SCRIPT = """
    import os, signal, sys, time
    from pathlib import Path
    from neurona import command
    from neurona.config import ConfigError, RunError

    class SIGTERMException(SystemExit):
        pass

    def train(cfg):
        print(sys.argv[1:], os.environ.get("HYDRA_FULL_ERROR"), dict(cfg.model), cfg.seed)
        if cfg.end == "mistake":
            raise ConfigError("seed", cfg.seed, "is wrong")
        if cfg.end == "failure":
            raise ValueError("a defect")
        if cfg.end == "run":
            raise RunError("a loss that turned NaN")
        if cfg.end == "sigterm":
            raise SIGTERMException
        if cfg.end == "interrupt":
            print("ready", flush=True)
            time.sleep(30)
        if cfg.end == "graceful":
            try:
                raise KeyboardInterrupt
            except KeyboardInterrupt:
                sys.exit(1)

    if __name__ == "__main__":
        try:
            command.main(train, Path(__file__).parent / "configs")
        finally:
            assert "torch" not in sys.modules
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("project")
    for name, text in CONFIGS.items():
        file = root / "configs" / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (root / "train.py").write_text(textwrap.dedent(SCRIPT))
    stored_run(root / "old", "seed=7", "model.hidden=[9]")
    return root / "train.py"


def call(script: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    before = sorted(script.parent.rglob("*"))
    inherited = {name: value for name, value in os.environ.items() if name != "HYDRA_FULL_ERROR"}
    done = subprocess.run(
        [sys.executable, script.name, *arguments],
        cwd=script.parent,
        env=inherited | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert sorted(script.parent.rglob("*")) == before
    return done


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("model.hiden=[5]", "model.hiden=[5]: no such key; did you mean model.hidden?"),
        ("hidden=5", "hidden=5: no such key; did you mean model.hidden?"),
        ("modle.hidden=5", "modle.hidden=5: no such key; did you mean model.hidden?"),
        ("hydra.verbos=true", "hydra.verbos=true: no such key; did you mean hydra.verbose?"),
        ("trainer.max_epoch=1", "did you mean trainer.max_epochs? Any other argument of lightning.pytorch.Trainer"),
        ("trainer.epochs=1", "here it is trainer.max_epochs. Any other argument of lightning.pytorch.Trainer"),
        ("trainer.devices=2", "lightning.pytorch.Trainer takes it: add it with +trainer.devices=2"),
        ("model=mpl", "model=mpl: no such choice; did you mean mlp? There are broken, linear, mlp"),
        ("model=5", "a group takes the name of one of its choices"),
        ("model=broken", "broken.yaml"),
        ("seed=1,2", "seed=1,2: several values; for a list write [1,2], for a sweep add -m"),
        ("model.hidden=[1", "model.hidden=[1: cannot be read; a bracket is not closed, or not opened"),
        ("model.hidden=1]", "model.hidden=1]: cannot be read; a bracket is not closed, or not opened"),
        ("run=~/mine", "run=~/mine: cannot be read; no shell replaces a ~ there: write $HOME"),
        ("model.hidden=[1,", "model.hidden=[1,: a list has no spaces in it, or stands in quotes"),
        ("seed", "seed: cannot be read; write key=value"),
        ("--lr=3", "--lr=3; settings are given as key=value"),
        ("~nothing", "does not exist"),
        ("run=elsewhere", "run=elsewhere: is not a run folder"),
        ("end=mistake", "seed=0: is wrong"),
        ("--config-dir=/nope", "--config-dir=/nope: is not a folder"),
        ("-m run=old,old", "run=old,old: names one run and does not go with a sweep"),
        ("-m folder=x seed=1,2", "folder=x: names one run's folder and does not go with a sweep"),
    ],
)
def test_a_mistake_is_one_line_and_exit_status_2(script: Path, argument: str, message: str) -> None:
    done = call(script, *argument.split())
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_job_sees_the_users_command_line_and_environment(script: Path) -> None:
    done = call(script, "run=old", "trainer.max_epochs=9")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "['run=old', 'trainer.max_epochs=9'] None {'hidden': [9], 'activation': 'relu'} 7\n"


def test_a_sweep_of_one_run_is_refused(script: Path) -> None:
    done = call(script, "-m", "run=old", "trainer.max_epochs=1,2")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "does not go with a sweep" in done.stderr


def test_hydra_full_error_shows_the_traceback(script: Path) -> None:
    for argument, shown in (("end=mistake", "ConfigError: seed=0"), ("model.hiden=5", "ConfigCompositionException")):
        done = call(script, argument, HYDRA_FULL_ERROR="1")
        assert done.returncode == 2
        assert "Traceback" in done.stderr
        assert shown in done.stderr


@pytest.mark.parametrize(("end", "status"), [("failure", 1), ("sigterm", 143), ("graceful", 130)])
def test_other_ends_have_their_exit_status(script: Path, end: str, status: int) -> None:
    done = call(script, f"end={end}")
    assert done.returncode == status
    assert ("ValueError: a defect" in done.stderr) == (end == "failure")


def test_ctrl_c_exits_130(script: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, script.name, "end=interrupt"], cwd=script.parent, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert any(line == "ready\n" for line in process.stdout)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 130
    process.stdout.close()


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["--help"], "model: broken, linear, mlp"),
        (["--hydra-help"], "--multirun"),
        (["--cfg", "job"], "max_epochs: 3"),
        (["--cfg", "job", "run=old"], "seed: 7"),
        (["--info", "defaults"], "Defaults List"),
    ],
)
def test_hydras_own_options_go_on_working(script: Path, arguments: list[str], shown: str) -> None:
    started = time.monotonic()
    done = call(script, *arguments)
    assert done.returncode == 0, done.stderr
    assert shown in done.stdout
    assert time.monotonic() - started < 5


def test_shell_completion(script: Path) -> None:
    done = call(script, "-sc", "query=bash", COMP_LINE="python train.py model=", COMP_POINT="22", _HYDRA_COMP_="1")
    assert "model=linear" in done.stdout


def sweep(script: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, script.name, *arguments, f"hydra.sweep.dir={folder}", "hydra.sweep.subdir=${hydra:job.num}"],
        cwd=script.parent,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("arguments", [["-m", "seed=1,2"], ["end=done", "-m", "seed=1,2"], ["seed=1,2", "-m"]])
def test_a_sweep_runs_every_job(script: Path, tmp_path: Path, arguments: list[str]) -> None:
    done = sweep(script, tmp_path / "sweep", *arguments)
    assert done.returncode == 0, done.stderr
    assert [line[-1] for line in done.stdout.splitlines() if line.startswith("[")] == ["1", "2"]


@pytest.mark.parametrize(
    ("ends", "status", "lines"),
    [
        ("mistake,done", 2, ["job 0: seed=0: is wrong"]),
        ("run,mistake,run,done", 2, ["job 0: a loss", "job 1: seed=0: is wrong", "job 2: a loss"]),
        ("done,run", 1, ["job 1: a loss that turned NaN"]),
    ],
)
def test_a_failing_job_leaves_the_others_to_go_on(
    script: Path, tmp_path: Path, ends: str, status: int, lines: list[str]
) -> None:
    done = sweep(script, tmp_path / "sweep", "-m", f"end={ends}")
    assert done.returncode == status
    assert len([line for line in done.stdout.splitlines() if line.startswith("[")]) == len(ends.split(","))
    shown = done.stderr.splitlines()
    assert len(shown) == len(lines)
    assert all(line.startswith(start) for line, start in zip(shown, lines, strict=True))
    failed = [json.loads(file.read_text())["status"] for file in (tmp_path / "sweep").glob("*/metrics.json")]
    assert failed == ["failed"] * len(lines)


def test_a_defect_in_a_job_shows_its_traceback_and_leaves_the_others_to_go_on(script: Path, tmp_path: Path) -> None:
    done = sweep(script, tmp_path / "sweep", "-m", "end=failure,done")
    assert done.returncode == 1
    assert len([line for line in done.stdout.splitlines() if line.startswith("[")]) == 2
    assert "ValueError: a defect" in done.stderr
    assert done.stderr.splitlines()[-1] == "job 0: a defect"
    assert done.stderr.count("Traceback") == 1


# What a run folder from someone else must not do.


@pytest.mark.parametrize(
    ("stored", "key"),
    [
        ("logger.csv.save_dir=/tmp/elsewhere", "logger.csv.save_dir"),
        ("logger.csv.save_dir='~/elsewhere'", "logger.csv.save_dir"),
        ("logger.csv.save_dir='${folder}/../../elsewhere'", "logger.csv.save_dir"),
        ("logger.csv.save_dir=${oc.env:HOME}", "logger.csv.save_dir"),
        ("logger.csv.save_dir='${trainer.x}${trainer.y}'", "logger.csv.save_dir"),
        ("+logger.csv.save_dir='$HOME/x'", "logger.csv.save_dir"),
        ("logger.mlflow.tracking_uri=file:///etc/x", "logger.mlflow.tracking_uri"),
        ("logger.mlflow.tracking_uri=sqlite:////etc/x", "logger.mlflow.tracking_uri"),
        ("logger.mlflow.tracking_uri=https://elsewhere.org", "logger.mlflow.tracking_uri"),
        ("+trainer.callbacks.x.dirpath=..", "trainer.callbacks.x.dirpath"),
        ("+trainer.callbacks.x={dirpath: /etc}", "trainer.callbacks.x"),
        ("+trainer.callbacks.x={filenames: [a, '../b']}", "trainer.callbacks.x"),
        ("+trainer.default_root_dir=/", "trainer.default_root_dir"),
        ("experiment=../../logs/r/evil", "experiment"),
        ("+debug@trainer.x=../evil", "debug@trainer.x"),
        ("optimizer/schedule='${oc.env:HOME}/evil'", "optimizer/schedule"),
    ],
)
def test_a_stored_place_outside_of_the_run_is_refused_unless_given_again(tmp_path: Path, stored: str, key: str) -> None:
    folder = stored_run(tmp_path / "r", "seed=1", stored)
    with pytest.raises(ConfigError, match="outside of it; to trust it, give it again") as caught:
        command.replay([f"run={folder}"])
    assert caught.value.key == key
    given = [f"run={folder}", stored]
    assert command.replay(given) == ["seed=1", *given]


@pytest.mark.parametrize(
    "stored",
    [
        "logger.csv.save_dir=${folder}",
        "logger.csv.save_dir=${folder}/csv",
        "logger.mlflow.tracking_uri=sqlite:///logs/mlflow.db",
        "trainer.check_val_every_n_epoch=${trainer.max_epochs}",
        "trainer.max_time=00:01:00:00",
        "trainer.callbacks.checkpoints.monitor=val/accuracy",
        "+trainer.callbacks.x={dirpath: sub/folder, filename: 'a..b'}",
        "data.root=/home/me/data",
        "init_from=/home/me/logs/a",
        "experiment=mine/a",
    ],
)
def test_a_stored_place_within_the_run_is_replayed(tmp_path: Path, stored: str) -> None:
    run = f"run={stored_run(tmp_path / 'r', stored)}"
    assert command.replay([run]) == [stored, run]
