"""A run's stored configuration: what it began with and, over it, what has been changed since."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from neurona.errors import ConfigError
from neurona.runs import configuration

CONFIG = {
    "folder": "logs/old",
    "seed": 3,
    "model": {"_target_": "neurona.models.mlp.MLP", "hidden": [3]},
    "optimizer": {"_target_": "neurona.optimizer.adam"},
    "trainer": {"max_epochs": 2, "strategy": {"_target_": "a.B", "x": 1}, "callbacks": {"a": {"every": 1}}},
    "logger": {"csv": {"save_dir": "logs/old"}, "board": {"save_dir": "logs/old/board", "name": "logs/older"}},
}


def run(folder: Path, *changes: dict[str, Any], **told: Any) -> Path:
    folder.mkdir()
    OmegaConf.save(OmegaConf.create(CONFIG), folder / "config.yaml")
    OmegaConf.save({"overrides": ["seed=3"], "absolute": {}, **told}, folder / "overrides.yaml")
    if changes:
        entries = [{"time": "", "overrides": ["run=x", "a=1"], "changes": one} for one in changes]
        OmegaConf.save(OmegaConf.create(entries), folder / "changes.yaml")
    return folder


def test_changes_lie_over_what_a_run_began_with_in_their_order(tmp_path: Path) -> None:
    first = {"trainer.max_epochs": 5, "trainer.strategy": "auto"}
    folder = run(tmp_path / "r", first, {"trainer.max_epochs": 7, "trainer.callbacks.b": {"c": 1}})
    trainer = {"max_epochs": 7, "strategy": "auto", "callbacks": {"a": {"every": 1}, "b": {"c": 1}}}
    assert configuration.read(folder) == {**CONFIG, "trainer": trainer}
    assert configuration.overrides(folder) == ["seed=3", "a=1", "a=1"]


@pytest.mark.parametrize("file", ["config.yaml", "changes.yaml", "overrides.yaml"])
@pytest.mark.parametrize("text", ["a: [", "3", "[3]"])
def test_a_damaged_one_is_refused(tmp_path: Path, file: str, text: str) -> None:
    folder = run(tmp_path / "r", {"trainer.max_epochs": 1})
    (folder / file).write_text(text)
    with pytest.raises(ConfigError, match=rf"its {file} is damaged \(\w+\); start a new run with init_from="):
        configuration.read(folder) if file == "config.yaml" else configuration.overrides(folder)


def test_one_that_is_missing_was_not_begun(tmp_path: Path) -> None:
    (folder := run(tmp_path / "r") / "config.yaml").unlink()
    with pytest.raises(ConfigError, match=r"has no config\.yaml, as it ended before it had begun: give the command"):
        configuration.read(folder.parent)


@pytest.mark.parametrize(
    ("before", "now", "changed"),
    [
        ({"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"c": 3}}, {"b.c": 3}),
        ({"a": 1}, {"a": 1, "b": {"c": 3}}, {"b": {"c": 3}}),
        ({"b": {"c": 1, "d": 1}}, {"b": {"c": 1}}, {"b": {"c": 1}}),
        ({"a": {"x": 1}}, {"a": "auto"}, {"a": "auto"}),
        ({"a": 1, "b": 1}, {"a": 1.0, "b": True}, {"a": 1.0, "b": True}),
        ({"a": {"b": {"head.*": 1}}}, {"a": {"b": {"head.*": 2}}}, {"a.b": {"head.*": 2}}),
        ({"a": [1, 2]}, {"a": [1, 2]}, {}),
    ],
)
def test_differences_put_in_place_make_the_one_of_the_other(before: Any, now: Any, changed: dict[str, Any]) -> None:
    assert configuration.differences(before, now) == changed
    assert configuration.overlaid(before, [{"changes": changed}]) == now


def test_a_configuration_becomes_the_runs(tmp_path: Path) -> None:
    folder = run(tmp_path / "r", {"trainer.max_epochs": 5})
    now = {**CONFIG, "seed": 4, "quiet": True, "run": None, "trainer": {"max_epochs": 9}, "folder": "other"}
    cfg = OmegaConf.create(now)
    OmegaConf.set_struct(cfg, True)
    configuration.take_over(cfg, folder)
    assert (cfg.seed, cfg.quiet, cfg.run, cfg.folder) == (3, True, str(folder), "other")
    assert (cfg.trainer.max_epochs, cfg.trainer.strategy.x) == (5, 1)
