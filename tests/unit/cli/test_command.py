from __future__ import annotations

import json
import os
import resource
import runpy
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hydra._internal.utils import get_args_parser
from omegaconf import OmegaConf


def stored_run(folder: Path, *overrides: str) -> None:
    """The run of ``CONFIGS`` with a few settings of its own."""
    folder.mkdir(parents=True)
    OmegaConf.save({"overrides": list(overrides), "absolute": {}, "choices": {}}, folder / "overrides.yaml")
    config = {"model": {"hidden": [3], "activation": "relu"}, "end": "done", "seed": 0, "run": None}
    config |= {"trainer": {"_target_": "lightning.pytorch.Trainer", "max_epochs": 3}}
    OmegaConf.save(OmegaConf.merge(config, OmegaConf.from_dotlist(list(overrides))), folder / "config.yaml")


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
            assert "torch" not in sys.modules or "pytest" in sys.modules
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


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    status: int
    out: str
    err: str


def started(script: Path, *arguments: str, **environment: str) -> Done:
    """The command in a process of its own."""
    inherited = {name: value for name, value in os.environ.items() if name != "HYDRA_FULL_ERROR"}
    done = subprocess.run(
        [sys.executable, script.name, *arguments],
        cwd=script.parent,
        env=inherited | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def call(
    script: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Done]]:
    """The command in this process, for all but what only a process of its own can show."""

    def run(*arguments: str) -> Done:
        monkeypatch.chdir(script.parent)
        monkeypatch.setattr(sys, "argv", [script.name, *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(script), run_name="__main__")
        assert isinstance(end.value.code, int)
        return Done(end.value.code, *capsys.readouterr())

    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    before = sorted(script.parent.rglob("*"))
    yield run
    assert sorted(script.parent.rglob("*")) == before


Call = Callable[..., Done]


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("model.hiden=[5]", "model.hiden=[5]: no such key; did you mean model.hidden?"),
        ("hidden=5", "hidden=5: no such key; did you mean model.hidden?"),
        ("modle.hidden=5", "modle.hidden=5: no such key; did you mean model.hidden?"),
        ("hydra.verbos=true", "hydra.verbos=true: no such key; did you mean hydra.verbose?"),
        ("trainer.max_epoch=1", "did you mean trainer.max_epochs? Any other argument of lightning.pytorch.Trainer"),
        ("trainer.epochs=1", "here it is trainer.max_epochs"),
        ("trainer.devices=2", "lightning.pytorch.Trainer takes it: add it with +trainer.devices=2"),
        ("model=mpl", "model=mpl: no such choice; did you mean mlp? There are broken, linear, mlp"),
        ("model=5", "model=5: is no choice; there are linear, mlp"),
        ("model=broken", "broken.yaml"),
        ("seed=1,2", "seed=1,2: several values; for a list write [1,2], for a sweep add -m on the command line"),
        ("model.hidden=[1", "model.hidden=[1: cannot be read; a bracket is not closed, or not opened"),
        ("model.hidden=1]", "model.hidden=1]: cannot be read; a bracket is not closed, or not opened"),
        ("run=~/mine", "run=~/mine: cannot be read; the shell does not replace ~ there: write $HOME"),
        ("model.hidden=[1,", "model.hidden=[1,: a list must have no spaces, or be in quotes"),
        ("seed", "seed: cannot be read; write key=value"),
        ("--lr=3", "--lr=3; settings are given as key=value"),
        ("~nothing", "~nothing: does not exist"),
        ("~model.hidden ~model.hidden", "~model.hidden: is given twice; leave one out"),
        ("run=elsewhere", "run=elsewhere: is not a run folder"),
        ("end=mistake", "seed=0: is wrong"),
        ("--config-dir=/nope", "--config-dir=/nope: is not a folder"),
        ("-m run=old,old", "run=old,old: names one run and cannot be used in a sweep"),
        ("seed=range(1,3)", "seed=range(1,3): several values; for a sweep add -m on the command line"),
        ("-m folder=x seed=1,2", "folder=x: names one run's folder and cannot be used in a sweep"),
    ],
)
def test_a_mistake_is_one_line_and_exit_status_2(call: Call, argument: str, message: str) -> None:
    done = call(*argument.split())
    assert done.status == 2, done.err
    assert message in done.err
    assert len(done.err.splitlines()) == 1


def test_a_process_ends_with_that_status_and_without_torch(script: Path) -> None:
    mistake = "model.hiden=[5]: no such key; did you mean model.hidden?\n"
    assert started(script, "model.hiden=[5]") == Done(2, "", mistake)


def test_the_job_sees_the_users_command_line_and_environment(call: Call) -> None:
    seen = "['run=old', 'trainer.max_epochs=9'] None {'hidden': [9], 'activation': 'relu'} 7\n"
    assert call("run=old", "trainer.max_epochs=9") == Done(0, seen, "")


def test_a_sweep_of_one_run_is_refused(call: Call) -> None:
    done = call("-m", "run=old", "trainer.max_epochs=1,2")
    assert (done.status, len(done.err.splitlines())) == (2, 1)
    assert "cannot be used in a sweep" in done.err


def test_hydra_full_error_shows_the_traceback(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    for argument, shown in (("end=mistake", "ConfigError: seed=0"), ("model.hiden=5", "ConfigCompositionException")):
        done = call(argument)
        assert done.status == 2
        assert "Traceback" in done.err
        assert shown in done.err


@pytest.mark.parametrize(("end", "status"), [("sigterm", 143), ("graceful", 130), ("run", 1)])
def test_other_ends_have_their_exit_status(call: Call, end: str, status: int) -> None:
    done = call(f"end={end}")
    assert done.status == status
    assert "Traceback" not in done.err


def test_a_defect_shows_its_traceback(script: Path) -> None:
    done = started(script, "end=failure")
    assert done.status == 1
    assert "ValueError: a defect" in done.err


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
def test_hydras_own_options_go_on_working(call: Call, arguments: list[str], shown: str) -> None:
    done = call(*arguments)
    assert done.status == 0, done.err
    assert shown in done.out


def test_help_imports_no_torch(script: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    done = started(script, "--help")  # the script itself asserts it
    assert done.status == 0, done.err
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 5
    assert "groups and their choices" in done.out


def test_shell_completion(script: Path) -> None:
    done = started(script, "-sc", "query=bash", COMP_LINE="python train.py model=", COMP_POINT="22", _HYDRA_COMP_="1")
    assert "model=linear" in done.out


def test_hydra_has_the_parser_that_the_command_line_is_read_with() -> None:
    parsed = get_args_parser().parse_intermixed_args(["seed=1", "-m", "--cfg", "job"])
    assert (parsed.overrides, parsed.multirun, parsed.cfg) == (["seed=1"], True, "job"), "hydra-core has changed"
    wanted = {"shell_completion", "config_dir", "info", "help", "hydra_help"}
    assert wanted <= vars(parsed).keys(), "hydra-core has changed"


@pytest.fixture
def sweep(call: Call, tmp_path: Path) -> Call:
    """A sweep into an empty folder."""
    return lambda *arguments: call(*arguments, f"hydra.sweep.dir={tmp_path}", "hydra.sweep.subdir=${hydra:job.num}")


@pytest.mark.parametrize(
    "arguments",
    [["-m", "seed=1,2"], ["end=done", "-m", "seed=1,2"], ["seed=1,2", "-m"], ["hydra.mode=MULTIRUN", "seed=1,2"]],
)
def test_a_sweep_runs_every_job(sweep: Call, arguments: list[str]) -> None:
    done = sweep(*arguments)
    assert done.status == 0, done.err
    assert [line[-1] for line in done.out.splitlines() if line.startswith("[")] == ["1", "2"]


@pytest.mark.parametrize(
    ("ends", "status", "lines"),
    [
        ("mistake,done", 2, ["job 0: seed=0: is wrong"]),
        ("run,mistake,run,done", 2, ["job 0: a loss", "job 1: seed=0: is wrong", "job 2: a loss"]),
        ("done,run", 1, ["job 1: a loss that turned NaN"]),
    ],
)
def test_a_failing_job_leaves_the_others_to_go_on(
    sweep: Call, tmp_path: Path, ends: str, status: int, lines: list[str]
) -> None:
    done = sweep("-m", f"end={ends}")
    assert done.status == status
    assert len([line for line in done.out.splitlines() if line.startswith("[")]) == len(ends.split(","))
    shown = done.err.splitlines()
    assert len(shown) == len(lines)
    assert all(line.startswith(start) for line, start in zip(shown, lines, strict=True))
    failed = [json.loads(file.read_text())["status"] for file in (tmp_path).glob("*/metrics.json")]
    assert failed == ["failed"] * len(lines)


def test_a_defect_in_a_job_shows_its_traceback_and_leaves_the_others_to_go_on(sweep: Call) -> None:
    done = sweep("-m", "end=failure,done")
    assert done.status == 1
    assert len([line for line in done.out.splitlines() if line.startswith("[")]) == 2
    assert "ValueError: a defect" in done.err
    assert done.err.splitlines()[-1] == "job 0: a defect"
    assert done.err.count("Traceback") == 1
