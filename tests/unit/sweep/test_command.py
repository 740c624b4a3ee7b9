from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from neurona.config.hints import CONFIG_DIR
from neurona.config.overrides import parse
from neurona.errors import ConfigError
from neurona.sweep import command

CLAIM = """
import os, sys
from hydra.core.override_parser.overrides_parser import OverridesParser
from neurona.config.hints import CONFIG_DIR
from neurona.sweep import command

overrides = OverridesParser.create().parse_overrides(["data=iris", "seed=0,1"])
ready, go = os.pipe()
for _ in range(20):
    if not os.fork():
        os.close(go)
        os.read(ready, 1)  # until all are there
        os._exit(not command.begin(overrides, CONFIG_DIR)[0].is_dir())
os.close(go)
sys.exit(max(os.wait()[1] for _ in range(20)))
"""


def test_twenty_claims_at_once_make_twenty_folders(tmp_path: Path) -> None:
    assert subprocess.run([sys.executable, "-c", CLAIM], cwd=tmp_path, timeout=60).returncode == 0
    folders = list((tmp_path / "logs" / "iris").iterdir())
    assert len(folders) == 20
    assert len({path.name[:19] for path in folders}) < 20  # several within one second


def test_a_sweep_for_debugging_is_among_the_debug_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder, *_ = command.begin(parse(["data=iris", "debug=fast", "seed=0,1"]), CONFIG_DIR)
    assert folder.parent == Path("logs/debug")


def test_a_folder_of_the_users_own_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("proj/configs").mkdir(parents=True)
    Path("proj/configs/other.yaml").write_text("mine: 1\n")
    command.begin(parse(["hydra.sweep.dir=proj", "seed=0,1"]), CONFIG_DIR)
    command.conclude(Path("proj"), [], 2)
    assert Path("proj/configs/other.yaml").read_text() == "mine: 1\n"
    with pytest.raises(ConfigError, match="must name a folder of the sweep's own"):
        command.begin(parse(["hydra.sweep.dir='${now:%Y}'"]), CONFIG_DIR)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("trainer/auto.yaml", "callbacks:", "callbacks:\n  x: {_target_: x.Y, dirpath: /tmp/out}"),
        ("train.yaml", "hydra:", "hydra:\n  hydra_logging: {handlers: {f: {filename: /tmp/out}}}"),
        ("train.yaml", "allow: []", "allow: [evil]"),
        ("experiment/lesson.yaml", "# @package _global_", "# @package _global_\nlogger: {csv: {save_dir: /tmp}}"),
    ],
)
def test_a_strangers_sweep_writes_nothing_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, old: str, new: str
) -> None:
    monkeypatch.chdir(tmp_path)
    sweep = parse(["hydra.sweep.dir=s", "seed=0,1"])
    command.begin(sweep, CONFIG_DIR)
    file = Path("s", command.CONFIGS, name)
    text = file.read_text()
    file.write_text(text + "# edited\n")
    command.begin(sweep, CONFIG_DIR)
    assert old in text
    file.write_text(text.replace(old, new, 1))
    with pytest.raises(ConfigError, match="may write outside of the sweep"):
        command.begin(sweep, CONFIG_DIR)


def test_yamls_from_elsewhere_are_copied_behind_the_projects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder, text in (("configs", "lr: 0"), ("given", "lr: 1"), ("searched", "lr: 2")):
        Path(folder, "optimizer").mkdir(parents=True)
        Path(folder, "optimizer", f"{folder}.yaml").write_text(text)
        Path(folder, "optimizer", "mine.yaml").write_text(text)
    Path("searched", "optimizer", "given.yaml").write_text("lr: 2")
    Path("configs", "train.yaml").write_text("seed: 0\n")
    sweep = parse(["hydra.searchpath=[file://searched,pkg://hydra.conf]", "hydra.sweep.dir=s", "seed=0,1"])
    for _ in range(2):
        _, copy, _ = command.begin(sweep, Path("configs"), [Path("given")])
        names = ("configs", "mine", "given", "searched")
        assert [(copy / "optimizer" / f"{name}.yaml").read_text() for name in names] == [
            f"lr: {n}" for n in (0, 0, 1, 2)
        ]
        Path("given", "optimizer", "given.yaml").write_text("lr: 3")
    Path("configs", "train.yaml").write_text("hydra: {searchpath: [searched]}\n")
    Path("logs/run").mkdir(parents=True)
    Path("logs/run/config.yaml").touch()
    _, copy, _ = command.begin(parse(["hydra.sweep.dir=u"]), Path("configs"), [Path()])
    assert not (copy / "logs").exists()
    assert not (copy / "u").exists()
    assert (copy / "given" / "optimizer" / "given.yaml").exists()
    _, copy, _ = command.begin(parse(["hydra.sweep.dir=t"]), Path("configs"))
    assert (copy / "optimizer" / "searched.yaml").exists()


def test_a_link_that_leads_nowhere_is_no_yaml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An editor's lock among today's yamls, and a yaml of the stored ones that has become a link."""
    monkeypatch.chdir(tmp_path)
    Path("configs", "model").mkdir(parents=True)
    Path("configs", "train.yaml").write_text("seed: 0\n")
    Path("configs", "model", "mine.yaml").write_text("width: 1\n")
    Path("configs", "model", ".#mine.yaml").symlink_to("user@host.1")
    sweep = parse(["hydra.sweep.dir=s", "seed=0,1"])
    _, copy, _ = command.begin(sweep, Path("configs"))
    assert sorted(str(file.relative_to(copy)) for file in copy.rglob("*.yaml")) == ["model/mine.yaml", "train.yaml"]
    (copy / "model" / "mine.yaml").unlink()
    (copy / "model" / "mine.yaml").symlink_to("gone.yaml")
    capsys.readouterr()
    command.begin(sweep, Path("configs"))
    assert "these have changed since: model/mine.yaml" in capsys.readouterr().out


def test_a_sweep_that_nothing_came_of_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "logs" / "irs" / "now"
    folder.mkdir(parents=True)
    (folder / command.SWEEP_FILE).touch()
    assert command.conclude(folder, ["-m", "data=irs"], 2) == 2
    assert not folder.parent.exists()


def test_other_files_are_not_taken_away(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    assert command.conclude(tmp_path, ["-m"], 2) == 2
    assert (tmp_path / "notes.txt").exists()


@pytest.mark.parametrize(("arguments", "has_report"), [(["-m", "seed=0"], True), (["-m", "debug=fast"], False)])
def test_what_to_look_at_next_is_said_at_the_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], has_report: bool
) -> None:
    job = tmp_path / "a b" / "0"
    job.mkdir(parents=True)
    (job / "metrics.json").write_text('{"status": "finished"}')
    commands = [f"python -m neurona.report '{job.parent}'"] * has_report
    for has_events in (False, True):
        assert command.conclude(job.parent, arguments, 0) == 0
        printed = capsys.readouterr().out.rpartition("\n\n")[2].splitlines()
        assert printed == [*commands, *[f"tensorboard --logdir '{job.parent}'"] * has_events]
        (job / "events.out.tfevents.0").touch()


@pytest.mark.parametrize("names_folder", [True, False])
def test_the_command_that_continues_is_the_one_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], names_folder: bool
) -> None:
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "metrics.json").write_text('{"status": "interrupted"}')
    arguments = ["-m", "model.hidden=[64, 64]", *([f"hydra.sweep.dir={tmp_path}"] if names_folder else [])]
    assert command.conclude(tmp_path, arguments, 130) == 130
    printed = capsys.readouterr().out.splitlines()[-1]
    assert printed == f"to continue: python train.py -m 'model.hidden=[64, 64]' hydra.sweep.dir={tmp_path}"
