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
from omegaconf import OmegaConf


def stored_run(folder: Path, *overrides: str, **absolute: str) -> Path:
    folder.mkdir(parents=True)
    OmegaConf.save({"overrides": list(overrides), "absolute": absolute}, folder / "overrides.yaml")
    return folder


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
    from neurona.cli import command
    from neurona.errors import ConfigError, RunError

    def train(cfg):
        print(sys.argv[1:], os.environ.get("HYDRA_FULL_ERROR"), dict(cfg.model), cfg.seed)
        if cfg.end == "mistake":
            raise ConfigError("seed", cfg.seed, "is wrong")
        if cfg.end == "failure":
            raise ValueError("a defect")
        if cfg.end == "run":
            raise RunError("a loss that turned NaN")
        if cfg.end == "sigterm":
            raise SystemExit(143)
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
