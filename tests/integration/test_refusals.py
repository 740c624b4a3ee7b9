"""What a fit would fail at later is refused by its key before there is a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from neurona.errors import ConfigError


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("trainer.callbacks.checkpoints.monitor=val/acuracy", None),
        ("trainer.callbacks.checkpoints.monitor=''", "trainer.callbacks.checkpoints.monitor"),
        ("trainer.callbacks.early_stopping.monitor=val/accuracy_of/rose", None),
        ("trainer.callbacks.checkpoints=null", None),
        ("~trainer.callbacks.checkpoints", "trainer.callbacks.checkpoints"),
        ("trainer.limit_train_batches=0.01", None),
        ("trainer.overfit_batches=0.5", None),
        ("data.batch_size=2147483648", None),
        ("data.eval_batch_size=99999999999999999999", None),
        ("model.hidden=[99999999999999]", None),
        ("optimizer.groups={body.*:{lr:1}}", "optimizer.groups"),
        ("optimizer.groups={head.*:{lr:0}}", "optimizer.groups.head.*.lr"),
        ("+optimizer.maximize=null", "optimizer.maximize"),
        ("folder=/", None),
        ("folder=.", None),
    ],
)
def test_values_that_would_fail_later_leave_no_folder(fit: Any, tmp_path: Path, override: str, key: str | None) -> None:
    with pytest.raises(ConfigError) as caught:
        fit(override)
    assert caught.value.key == (key or override.partition("=")[0])
    assert list(tmp_path.iterdir()) == []


def test_a_class_may_be_monitored(fit: Any) -> None:
    run = fit("trainer.callbacks.checkpoints.monitor=val/accuracy_of/setosa", "trainer.callbacks.checkpoints.mode=max")
    assert run.metrics["status"] == "finished"


def experiment(text: str, name: str = "mine") -> list[str]:
    """A folder of one's own with an experiment, as it is given."""
    file = Path("own", "experiment", f"{name}.yaml")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text + "\n")
    return ["--config-dir", "own", "data=iris", "trainer.max_epochs=1", "quiet=true", f"experiment={name}"]


@pytest.mark.parametrize(
    "text",
    [
        *(
            "optimizer: {lr: 0.01}",
            "lr: 0.01",
            "experiment: {seed: 3}",
            "",
            "# of mine",
            "# of mine\n# @package _global_",
        ),
        *("defaults: [override /model: linear]", "defaults: [override /model: linear]\nseed: 3", "- 1", "of mine"),
        *("defaults: [lesson]\nseed: 3", "defaults: [/model: linear]"),
    ],
)
def test_an_experiment_without_its_first_line(train: Any, text: str) -> None:
    message = "its yaml must begin with the line # @package _global_, so that its keys are the root's\n"
    done = train(*experiment(text))
    assert (done.status, done.err) == (2, f"experiment=mine: {message}")


def test_an_experiment_that_adds_a_choice_where_it_overrides_one(train: Any) -> None:
    done = train(*experiment("# @package _global_\ndefaults: [data: iris]"))
    remedy = "its yaml must write - data: iris as - override /data: iris"
    assert (done.status, done.err) == (2, f"experiment=mine: {remedy}\n")
    done = train(*experiment("# @package _global_\ndefaults: [override /data: iris]"))
    assert done.status == 0


def test_an_experiment_in_a_folder_and_its_first_line(train: Any) -> None:
    done = train(*experiment("defaults: [override /model: linear]", "of_mine/first"))
    assert (done.status, "experiment=of_mine/first: its yaml must begin" in done.err) == (2, True)
    arguments = experiment("# @package _global_\ndefaults: [override /model: linear]", "of_mine/first")
    done = train(*arguments[:-1], f"+{arguments[-1]}")
    assert (done.status, "write experiment=of_mine/first without a +" in done.err) == (2, True)
    done = train(*arguments)
    assert done.status == 0, done.err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "model.hidden: [32]",
            "model.hidden=[32]: is how the command line names it; in the yaml write model: {hidden: [32]}",
        ),
        (
            "trainer:\n  callbacks.early_stopping.patience: 3",
            "in the yaml write trainer: {callbacks: {early_stopping: {patience: 3}}}",
        ),
    ],
)
def test_a_key_with_dots_in_a_yaml_is_answered_with_the_nested_one(train: Any, text: str, message: str) -> None:
    done = train(*experiment(f"# @package _global_\n{text}"))
    assert (done.status, message in done.err, len(done.err.splitlines())) == (2, True, 1)
    remedy = message.rpartition("write ")[2]
    assert train(*experiment(f"# @package _global_\n{remedy}")).status == 0


def test_several_experiments_name_their_run_together(train: Any, read_run: Any) -> None:
    done = train("experiment=[lesson,two_moons]", "trainer.max_epochs=1")
    assert done.status == 0, done.err
    (folder,) = Path("logs/lesson+two_moons").iterdir()
    assert str(folder) in done.out
    assert "experiment: lesson+two_moons" in (folder / "overrides.yaml").read_text()
    assert train(f"run={folder}", "trainer.max_epochs=2").status == 0
    assert read_run(folder).metrics["epochs"] == 2
    done = train("-m", "experiment=[lesson,two_moons]", "trainer.max_epochs=1", "seed=0,1", "quiet=true")
    assert (done.status, len(list(Path("logs/lesson+two_moons").iterdir()))) == (0, 2)
