from __future__ import annotations

from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from neurona.cli.replay import replay
from neurona.errors import ConfigError, UserError


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
    replayed = replay([run, *given])
    assert sorted(replayed) == sorted([*result, run])
    assert replayed[-len(given) - 1 :] == [run, *given]
    assert replay(replayed) == replayed


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
        replay([run, *given])
    assert caught.value.key == key


def test_of_another_trainer_the_devices_are_its_own(tmp_path: Path) -> None:
    several = ["trainer.devices=4", "+trainer.strategy.x=1"]
    run = f"run={stored_run(tmp_path / 'r', 'trainer=ddp', *several, 'trainer.max_epochs=5')}"
    assert replay([run]) == ["trainer=ddp", *several, "trainer.max_epochs=5", run]
    assert replay([run, "trainer=cpu"]) == ["trainer.max_epochs=5", run, "trainer=cpu"]


def test_without_run_nothing_changes() -> None:
    assert replay(["seed=1", "run=null", "run="]) == ["seed=1", "run=null", "run="]


@pytest.mark.parametrize("run_key", ["run", "+run", "++run"])
def test_however_run_is_written_its_settings_are_replayed(run: str, run_key: str) -> None:
    given = run.replace("run", run_key, 1)
    assert replay([given]) == [*replay([run])[:-1], given]


@pytest.mark.parametrize("given", ["trainer.max_epochs=4", "trainer.max_epochs=2"])
def test_of_a_repeated_key_the_last_counts(tmp_path: Path, given: str) -> None:
    stored_run(tmp_path / "r", "trainer.max_epochs=4", "trainer.max_epochs=2")
    run = f"run={tmp_path / 'r'}"
    assert replay([run, given]) == [run, given]
    assert replay([run])[-2:] == ["trainer.max_epochs=2", run]
    assert replay([run, "trainer.max_epochs=7", given]) == [run, "trainer.max_epochs=7", given]


def test_a_run_started_from_anothers_weights_remembers_it_while_it_fits(tmp_path: Path) -> None:
    first = stored_run(tmp_path / "first")
    stored_run(tmp_path / "r", "data=iris", "init_from=first", init_from=str(first))
    run = f"run={tmp_path / 'r'}"
    assert replay([run]) == ["data=iris", f"init_from='{first}'", run]
    assert replay([run, "stage=test"]) == ["data=iris", run, "stage=test"]


@pytest.mark.parametrize("key", ["hydra.launcher._target_", "allow", "database", "model.hidden", "init_from.x@hydra"])
def test_only_data_and_weights_are_among_a_runs_paths(tmp_path: Path, key: str) -> None:
    stored_run(tmp_path / "r", "seed=1", **{key: str(tmp_path)})
    run = f"run={tmp_path / 'r'}"
    assert replay([run]) == ["seed=1", run]


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
    lines = replay(["run=r"])
    (path,) = (o.value() for o in OverridesParser.create().parse_overrides(lines) if o.key_or_group == "data.path")
    assert path == (str(absolute) if is_absolute else "t.csv")


def test_a_default_path_is_made_absolute_only_while_it_exists(tmp_path: Path) -> None:
    stored_run(tmp_path / "r", "data=mnist", **{"data.root": str(tmp_path / "mnist")})
    run = f"run={tmp_path / 'r'}"
    assert replay([run]) == ["data=mnist", run]
    (tmp_path / "mnist").mkdir()
    assert replay([run]) == ["data=mnist", f"data.root='{tmp_path / 'mnist'}'", run]
    assert replay([run, "stage=test", "data=iris"]) == [run, "stage=test", "data=iris"]


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
        replay([given])
    assert message in str(caught.value)


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
        ("logger.mlflow.tracking_uri=sqlite:///logs/other.db", "logger.mlflow.tracking_uri"),
        ("logger.csv.save_dir=logs/other", "logger.csv.save_dir"),
        ("+trainer.callbacks.x={dirpath: logs/other/checkpoints}", "trainer.callbacks.x"),
        ("+trainer.callbacks.x.dirpath=${trainer.callbacks.x.name}", "trainer.callbacks.x.dirpath"),
        ("+trainer.callbacks.x.where=here", "trainer.callbacks.x.where"),
        ("+trainer.callbacks.x.dirpath=..", "trainer.callbacks.x.dirpath"),
        ("+trainer.callbacks.x={dirpath: /etc}", "trainer.callbacks.x"),
        ("+trainer.callbacks.x={filenames: [a, '../b']}", "trainer.callbacks.x"),
        ("+trainer.default_root_dir=/", "trainer.default_root_dir"),
        ("experiment=../../logs/r/evil", "experiment"),
        ("+debug@trainer.x=../evil", "debug@trainer.x"),
        ("optimizer/schedule='${oc.env:HOME}/evil'", "optimizer/schedule"),
    ],
)
def test_a_stored_place_outside_of_the_run_is_refused_unless_given_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored: str, key: str
) -> None:
    folder = stored_run(tmp_path / "r", "seed=1", stored)
    monkeypatch.chdir(tmp_path)
    Path("here").touch()  # whatever the key is called
    with pytest.raises(ConfigError, match="outside of it; to trust it, give it again") as caught:
        replay([f"run={folder}"])
    assert caught.value.key == key
    given = [f"run={folder}", stored]
    assert replay(given) == ["seed=1", *given]


@pytest.mark.parametrize(
    "stored",
    [
        "logger.csv.save_dir=${folder}",
        "logger.csv.save_dir=${folder}/csv",
        "logger.mlflow.tracking_uri=sqlite:///${folder}/mlflow.db",
        "trainer.check_val_every_n_epoch=${trainer.max_epochs}",
        "trainer.max_time=00:01:00:00",
        "trainer.callbacks.checkpoints.monitor=val/accuracy",
        "+trainer.callbacks.x={dirpath: '${folder}/sub', filename: 'a..b'}",
        "data.root=/home/me/data",
        "init_from=/home/me/logs/a",
        "experiment=mine/a",
    ],
)
def test_a_stored_place_within_the_run_is_replayed(tmp_path: Path, stored: str) -> None:
    run = f"run={stored_run(tmp_path / 'r', stored)}"
    assert replay([run]) == [stored, run]
