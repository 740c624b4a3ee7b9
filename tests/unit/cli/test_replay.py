"""``run=`` takes the configuration of the run as it is stored, whatever has been edited since."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from neurona.cli.composing import composed, composing
from neurona.cli.replay import OF_RUN, Yamls, replay
from neurona.config.check import check
from neurona.config.hints import CONFIG_DIR
from neurona.errors import ConfigError, UserError
from neurona.runs import configuration
from neurona.runs.configuration import put
from neurona.runs.folder import RunFolder


@pytest.fixture
def yamls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the shipped ones, to be edited; the working folder is empty but for them."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(CONFIG_DIR, tmp_path / "configs"))


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The folder of a run with these overrides, stored as a fit does it, once for all tests."""
    folders: dict[tuple[str, ...], Path] = {}

    def store(*overrides: str) -> Path:
        if overrides not in folders:
            with composing(Path("configs")):
                cfg, hydra = composed("train", overrides)
            with RunFolder.create(tmp_path_factory.mktemp("stored") / "r") as folder:
                cfg.folder = "logs/r"
                folder.describe(cfg, overrides, hydra.runtime.choices)
            folders[overrides] = folder.path
        return folders[overrides]

    return store


@pytest.fixture
def begin(yamls: Path, template: Callable[..., Path]) -> Callable[..., str]:
    """Stores a run, ``logs/r`` of the working folder; gives ``run=logs/r``."""

    def store(*overrides: str) -> str:
        shutil.copytree(template(*overrides), "logs/r")
        return "run=logs/r"

    return store


@pytest.fixture
def resume(yamls: Path) -> Callable[..., Any]:
    """What a command with ``run=`` is composed to, and its node ``hydra``."""

    def compose(*overrides: str, checked: bool = False) -> Any:
        name, lines = replay(list(overrides), Yamls(yamls))
        with composing(yamls):
            cfg, hydra = composed(name, lines)
            if checked:
                check(cfg, hydra.runtime.choices, name)
        return cfg, hydra

    return compose


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def test_without_run_nothing_changes(yamls: Path) -> None:
    for lines in (["seed=1", "run=null", "run="], ["seed=1"]):
        assert replay(lines, Yamls(yamls)) == ("train", lines)


def test_a_setting_of_sweeps_alone_is_refused(begin: Any, resume: Any, yamls: Path) -> None:
    run = begin("data=iris")
    for given in (["data=iris"], [run], [run, "stage=test"]):
        assert resume(*given, "retry_failed=false")[0].retry_failed is False
        with pytest.raises(ConfigError, match=r"retry_failed=true: is for a sweep .*; a run .* by run=<its folder>"):
            resume(*given, "retry_failed=true")


def test_a_run_is_what_it_was_whatever_is_edited(begin: Any, resume: Any, yamls: Path) -> None:
    run = begin("data=iris", "optimizer/schedule=cosine", "model.hidden=[3]", "trainer.max_epochs=5", "quiet=true")
    before = configuration.read(Path("logs/r"))
    edit(yamls / "data/iris.yaml", "batch_size: 16", "batch_size: 64")
    edit(yamls / "optimizer/schedule/cosine.yaml", "warmup_fraction: 0.05", "warm: 0.5")
    edit(yamls / "trainer/auto.yaml", "precision: 32-true", "precision: 64-true")
    edit(yamls / "train.yaml", "seed: 0", "seed: 9")
    (yamls / "model/mlp.yaml").unlink()
    for given in ([run], [run, "stage=test"], ["+" + run]):
        cfg, hydra = resume(*given, checked=True)
        assert cfg.data.batch_size == 16
        now = OmegaConf.to_container(cfg)
        own = ("run", "folder", "quiet", "stage", *(["logger"] if "stage=test" in given else []))
        assert {k: v for k, v in now.items() if k not in own} == {k: v for k, v in before.items() if k not in own}
        assert (cfg.run, cfg.folder, cfg.quiet) == ("logs/r", None, False)
        assert hydra.runtime.choices["data"] == "iris"
        assert hydra.overrides.task[:2] == ["data=iris", "optimizer/schedule=cosine"]
    assert hydra.launcher._target_ == "hydra_plugins.neurona.Processes"


@pytest.mark.parametrize(
    ("given", "key", "value"),
    [
        (["trainer.max_epochs=9"], "trainer.max_epochs", 9),
        (["trainer.max_epochs=9", "trainer.max_epochs=5"], "trainer.max_epochs", 5),
        (["+trainer.callbacks.d._target_=lightning.pytorch.callbacks.DeviceStatsMonitor"], "trainer.callbacks.d", {}),
        (["trainer.callbacks.early_stopping=null"], "trainer.callbacks.early_stopping", None),
        (["model.hidden=[3]"], "model.hidden", [3]),
        (["seed=0"], "seed", 0),
        (["+trainer.barebones=false"], "trainer.barebones", False),
        (["data=iris"], "data._target_", "neurona.data.iris.Iris"),
        (["quiet=true"], "quiet", True),
        (["allow=[mine]"], "allow", ["mine"]),
        (["inspect=none"], "inspect.norms", False),
        (["logger=[csv,tensorboard]"], "logger.csv.save_dir", "${folder}"),
        (["stage=test", "data=wine", "data.split_seed=1"], "data._target_", "neurona.data.wine.Wine"),
        (["stage=test", "data=table", "data.path=x"], "data.path", "x"),
        (["stage=test", "data=table", "data.path=x"], "model.hidden", [3]),
        (["stage=predict", "data.split_seed=4"], "data.split_seed", 4),
        (["stage=test"], "logger", {}),
    ],
)
def test_what_may_be_given_beside_run(begin: Any, resume: Any, given: list[str], key: str, value: Any) -> None:
    run = begin("data=iris", "model.hidden=[3]", "+trainer.barebones=true", "quiet=true")
    if "data.path=x" in given:
        given = [*given, "data.target=y"]
    cfg, _ = resume(run, *given)
    found = configuration.at(OmegaConf.to_container(cfg), key)
    assert found == value or (value == {} and found.keys() == {"_target_"})


@pytest.mark.parametrize(
    ("given", "key"),
    [
        (["model.hidden=[1]"], "model.hidden"),
        (["data=wine"], "data"),
        (["stage=fit", "data.split_seed=1"], "data.split_seed"),
        (["stage=test", "seed=3"], "seed"),
        (["stage=test", "init_from=logs/x"], "init_from"),
        (["experiment=keras_mnist"], "experiment"),
        (["optimizer/schedule=cosine"], "optimizer/schedule"),
        (["~model.hidden"], "model.hidden"),
        (["compile=true"], "compile"),
    ],
)
def test_what_belongs_to_the_run_cannot_be_changed(begin: Any, resume: Any, given: list[str], key: str) -> None:
    run = begin("data=iris")
    with pytest.raises(ConfigError, match=r"belongs to the run in logs/r.*init_from=logs/r") as caught:
        resume(run, *given)
    assert caught.value.key == key


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("quite=true", "did you mean quiet?"),
        ("trainer.max_epoch=3", "did you mean trainer.max_epochs?"),
        ("+trainer.callbacks.early_stopping.patiense=3", "did you mean trainer.callbacks.early_stopping.patience?"),
        ("trainer=ddpp", "did you mean ddp"),
        ("logger.csv.save_dir=x", "no such key"),
    ],
)
def test_a_misspelt_key_is_answered_as_without_run(begin: Any, resume: Any, given: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        resume(begin("data=iris"), given, checked=True)
    assert message in str(caught.value)


def test_of_another_trainer_the_devices_and_what_it_decides_itself_are_taken(
    begin: Any, resume: Any, yamls: Path
) -> None:
    (yamls / "trainer/mine.yaml").write_text("defaults: [auto, _self_]\ndetect_anomaly: true\n")
    run = begin(
        "trainer=ddp", "trainer.devices=4", "trainer.max_epochs=5", "trainer.callbacks.progress.every_seconds=1"
    )
    cfg, hydra = resume(run, "trainer=cpu")
    found = cfg.trainer
    assert (found.accelerator, found.devices, found.strategy, found.max_epochs) == ("cpu", 1, "auto", 5)
    assert (found.callbacks.progress.every_seconds, hydra.overrides.task[-1]) == (1, "run=logs/r")
    assert ("trainer=cpu" in hydra.overrides.task, hydra.runtime.choices["trainer"]) == (True, "cpu")
    assert resume(run, "trainer=mine")[0].trainer.detect_anomaly
    cfg, _ = resume(run, "trainer=ddp", "trainer.devices=2")
    assert (cfg.trainer.devices, cfg.trainer.strategy.timeout_seconds) == (2, 45)
    assert resume(run, "trainer=ddp")[0].trainer.devices == 4  # as it was begun


def test_a_session_goes_on_with_what_the_one_before_has_changed(begin: Any, resume: Any) -> None:
    run = begin("data=iris", "trainer.max_epochs=3")
    cfg, hydra = resume(run, "trainer.max_epochs=7", "trainer=cpu")
    cfg.folder = "logs/r"
    with RunFolder.open(Path("logs/r")) as folder:
        folder.describe(cfg, hydra.overrides.task, hydra.runtime.choices)
    (entry,) = configuration.changes(Path("logs/r"))
    assert entry["overrides"] == ["trainer=cpu", "trainer.max_epochs=7"]
    assert entry["changes"] == {"trainer.max_epochs": 7, "trainer.accelerator": "cpu"}
    assert resume(run)[0].trainer.max_epochs == 7
    assert resume(run, "trainer.max_epochs=3")[0].trainer.max_epochs == 3  # it is for the fit to refuse it
    assert resume(run, "trainer=auto")[0].trainer.accelerator == "auto"


def test_a_run_started_from_anothers_weights_remembers_it_while_it_fits(begin: Any, resume: Any) -> None:
    run = begin("data=iris", "init_from=first")
    assert resume(run)[0].init_from.endswith("/first")
    assert resume(run, "stage=test")[0].init_from is None


@pytest.mark.parametrize(
    ("absolute_exists", "relative_exists", "is_absolute"),
    [(True, False, True), (True, True, True), (False, True, False), (False, False, True)],
)
def test_relative_data_are_found_again(
    resume: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    absolute_exists: bool,
    relative_exists: bool,
    is_absolute: bool,
) -> None:
    (there := tmp_path / "it's = here, \\'now\\'").mkdir()
    monkeypatch.chdir(there)
    lines = ["data=table", "data.path=t.csv", "data.target=y"]
    with composing(tmp_path / "configs"):
        cfg, _ = composed("train", lines)
    with RunFolder.create(tmp_path / "r") as folder:
        folder.describe(cfg, lines, {})
    monkeypatch.chdir(tmp_path)
    for path, exists in ((there / "t.csv", absolute_exists), (Path("t.csv"), relative_exists)):
        if exists:
            path.touch()
    assert resume("run=r")[0].data.path == (str(there / "t.csv") if is_absolute else "t.csv")
    given = resume("run=r", "stage=test", "data.path=t.csv")[0].data.path
    assert given == "t.csv"


def test_a_default_path_is_made_absolute_only_while_it_exists(begin: Any, resume: Any, tmp_path: Path) -> None:
    run = begin("data=mnist")
    told = configuration.load(Path("logs/r/overrides.yaml"))
    assert told["absolute"]["data.root"].endswith("/data/mnist")
    told["absolute"]["data.root"] = str(tmp_path / "data/mnist")
    OmegaConf.save(OmegaConf.create(told), "logs/r/overrides.yaml")
    assert resume(run)[0].data.root == "data/mnist"
    (tmp_path / "data/mnist").mkdir(parents=True)
    assert resume(run)[0].data.root == str(tmp_path / "data/mnist")
    assert "root" not in resume(run, "stage=test", "data=iris")[0].data


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("run=logs/q", "run=logs/q: is not a run folder: it has no overrides.yaml"),
        ("run=logs", "the latest run in it is logs/r"),
        ("run=nowhere/at/all", "is not a run folder"),
        ("run=logs/broken", "its overrides.yaml is damaged"),
        ("run=logs/partial", "its overrides.yaml is damaged"),
        ("run=[", "cannot be read"),
        ("run=logs/r,logs/other", "run=logs/r,logs/other: several values"),
    ],
)
def test_what_is_no_run(begin: Any, resume: Any, given: str, message: str) -> None:
    begin("data=iris")
    for name, text in (("broken", "overrides: ["), ("partial", "overrides: 3")) if given != "run=logs" else ():
        Path("logs", name).mkdir()
        Path("logs", name, "overrides.yaml").write_text(text)
    with pytest.raises(UserError) as caught:
        resume(given)
    assert message in str(caught.value)


PLACES = [
    ("logger.tensorboard.save_dir", "/tmp/elsewhere"),
    ("logger.tensorboard.save_dir", "~/elsewhere"),
    ("logger.tensorboard.save_dir", "${folder}/../../elsewhere"),
    ("logger.tensorboard.save_dir", "${oc.env:HOME}"),
    ("logger.tensorboard.save_dir", "${trainer.precision}${trainer.accelerator}"),
    ("logger.tensorboard.save_dir", "$HOME/x"),
    ("logger.x.tracking_uri", "file:///etc/x"),
    ("logger.x.tracking_uri", "sqlite:////etc/x"),
    ("logger.x.tracking_uri", "https://elsewhere.org"),
    ("logger.x.tracking_uri", "sqlite:///logs/other.db"),
    ("logger.tensorboard.save_dir", "logs/other"),
    ("trainer.callbacks.x", {"dirpath": "logs/other/checkpoints"}),
    ("trainer.callbacks.x.dirpath", "${trainer.callbacks.x.name}"),
    ("trainer.callbacks.x.dirpath", ".."),
    ("trainer.callbacks.x", {"dirpath": "/etc"}),
    ("trainer.callbacks.x.filenames", ["a", "../b"]),
    ("trainer.default_root_dir", "/"),
]


@pytest.mark.parametrize(("key", "stored"), PLACES, ids=str)
def test_a_stored_place_outside_of_the_run_is_refused_unless_given_again(
    begin: Any, yamls: Path, key: str, stored: Any
) -> None:
    run = begin("data=iris")
    entries = [{"time": "", "overrides": [], "changes": {key: stored}}]
    OmegaConf.save(OmegaConf.create(entries), "logs/r/changes.yaml")
    with pytest.raises(ConfigError, match=r"(outside of it|variable of yours); to trust it, give it again") as caught:
        replay([run], Yamls(yamls))
    assert caught.value.key.startswith(key)
    assert replay([run, f"++{key}=x"], Yamls(yamls)) == (OF_RUN, [run, f"++{key}=x"])


@pytest.mark.parametrize(
    ("key", "stored"),
    [
        ("logger.tensorboard.save_dir", "${folder}/csv"),
        ("logger.x.tracking_uri", "sqlite:///${folder}/mlflow.db"),
        ("trainer.max_time", "00:01:00:00"),
        ("trainer.callbacks.x.filename", "a..b"),
    ],
)
def test_a_stored_place_within_the_run_is_its_own(begin: Any, yamls: Path, key: str, stored: str) -> None:
    run = begin("data=iris")
    for value, is_own in ((stored, True), (f"/{stored}", False)):
        config = configuration.load(Path("logs/r/config.yaml"))
        put(config, key, value)
        OmegaConf.save(OmegaConf.create(config), "logs/r/config.yaml")
        if is_own:
            assert replay([run], Yamls(yamls)) == (OF_RUN, [run])
        else:
            with pytest.raises(ConfigError, match="may write outside of it"):
                replay([run], Yamls(yamls))


def test_a_stored_configuration_chooses_no_yaml_and_none_of_hydras_settings(begin: Any, resume: Any) -> None:
    run = begin("data=iris")
    config = configuration.load(Path("logs/r/config.yaml"))
    Path("evil.yaml").write_text("quiet: true\n")
    evil = {"defaults": ["_self_", {"model": "../../evil"}], "hydra": {"searchpath": ["file://."], "verbose": True}}
    OmegaConf.save(OmegaConf.create({**config, **evil}), "logs/r/config.yaml")
    cfg, hydra = resume(run, checked=True)
    assert (hydra.verbose, hydra.searchpath, "defaults" in cfg) == (False, [], False)


def test_a_place_outside_that_a_yaml_of_todays_names_is_trusted(begin: Any, resume: Any, yamls: Path) -> None:
    (yamls / "logger/lab.yaml").write_text(
        "board:\n  _target_: neurona.inspection.loggers.TensorBoard\n  save_dir: /lab\n"
    )
    run = begin("data=iris", "logger=lab")
    assert resume(run)[0].logger.board.save_dir == "/lab"
    (yamls / "logger/lab.yaml").rename(yamls / "data/lab.yaml")
    (yamls / "data/lab.yaml").write_text("root: /lab\n")  # the same text at another key
    with pytest.raises(ConfigError, match=r"logger\.board\.save_dir=/lab: is stored"):
        resume(run)


def test_what_a_run_lacks_as_there_was_none_when_it_began_is_todays(
    begin: Any, resume: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run = begin("data=iris", "seed=4")
    config: Any = configuration.load(Path("logs/r/config.yaml"))
    del config["embedding"], config["inspect"]
    config["optimizer"]["_target_"] = "neurona.optimizer.adam"  # where it was
    OmegaConf.save(OmegaConf.create(config), "logs/r/config.yaml")
    cfg, _ = resume(run, checked=True)
    assert "began without embedding, inspect and uses today's" in capsys.readouterr().out
    assert (cfg.seed, cfg.embedding.dimension) == (4, 8)


def test_a_number_from_the_environment_is_the_runs_though_it_is_given_again(
    yamls: Path, resume: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_SEED", "4")
    lines = [
        "data=iris",
        "seed='${oc.decode:${oc.env:MY_SEED}}'",
        "logger=[csv,tensorboard]",
        "~trainer.callbacks.progress",
    ]
    with composing(yamls):
        cfg, hydra = composed("train", lines)
    with RunFolder.create(Path("logs/r")) as folder:
        folder.describe(cfg, lines, hydra.runtime.choices)
    monkeypatch.setenv("MY_SEED", "5")
    edit(yamls / "logger/csv.yaml", "_target_", "name: x\n  _target_")
    cfg, hydra = resume("run=logs/r", *lines[:3])
    assert (cfg.seed, "name" in cfg.logger.csv) == (4, False)
    assert hydra.overrides.task == [*lines, "run=logs/r"]


def test_what_is_given_beside_a_group_is_laid_over_it(begin: Any, resume: Any) -> None:
    run = begin("data=iris", "trainer.callbacks.early_stopping.patience=5")
    assert resume(run, "trainer=ddp_cpu", "trainer.devices=1")[0].trainer.devices == 1
    assert resume(run, "inspect=full", "inspect.histograms=false")[0].inspect.histograms is False
    entry = {"time": "", "overrides": [], "changes": {"trainer.callbacks.early_stopping": None}}
    OmegaConf.save(OmegaConf.create([entry]), "logs/r/changes.yaml")
    with pytest.raises(UserError):  # it is null by now: what is given is not passed over
        resume(run, "trainer.callbacks.early_stopping.patience=5")


def test_what_a_run_has_may_be_given_again_null_too(begin: Any, resume: Any) -> None:
    run = begin("data=iris", "model=linear")
    assert resume(run, "init_from=null", "data=iris", "model=linear", "seed=0")[0].init_from is None


def test_changes_change_only_what_may(begin: Any, resume: Any) -> None:
    run = begin("data=iris")
    entry = {"time": "", "overrides": [], "changes": {"optimizer.lr": 9.0}}
    OmegaConf.save(OmegaConf.create([entry]), "logs/r/changes.yaml")
    with pytest.raises(ConfigError, match=r"its changes\.yaml changes optimizer\.lr, which stays"):
        resume(run)
