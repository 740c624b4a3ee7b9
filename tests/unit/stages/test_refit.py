"""A refit is the run that its settings describe, begun from an earlier one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

import neurona
from neurona.errors import ConfigError

SHORT = ("data=iris", "trainer.max_epochs=4", "logger=none", "inspect=none", "quiet=true")


def fit(folder: Path, *overrides: str) -> dict[str, Any]:
    return neurona.run([*SHORT, f"folder={folder}", *overrides])


def weights(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]


def test_it_is_the_run_with_its_settings_typed(tmp_path: Path) -> None:
    first = fit(tmp_path / "first")
    refit = neurona.run(["stage=refit", f"run={tmp_path}/first", "quiet=true"])
    steps = first["steps"] // first["epochs"] * (first["best_epoch"] + 1)
    typed = ["data.val_fraction=0", f"trainer.max_steps={steps}", "trainer.callbacks.early_stopping.patience=null"]
    alone = fit(tmp_path / "alone", *typed)
    assert refit["folder"] == f"{tmp_path}/first/refit"
    assert (refit["steps"], refit["test/loss"]) == (alone["steps"], alone["test/loss"]) == (steps, refit["test/loss"])
    ours, others = weights(tmp_path / "first" / "refit"), weights(tmp_path / "alone")
    assert ours.keys() == others.keys()
    assert all(map(torch.equal, ours.values(), others.values()))


@pytest.mark.parametrize("validation", [["data.val_fraction=0"], ["data.folds=4", "data.fold=0"]])
def test_validation_rows_must_have_been_drawn(tmp_path: Path, validation: list[str]) -> None:
    fit(tmp_path / "run", "trainer.callbacks.early_stopping.patience=null", *validation)
    with pytest.raises(ConfigError, match=re.escape(f"has {validation[0]}")):
        neurona.run(["stage=refit", f"run={tmp_path}/run"])
    assert not (tmp_path / "run" / "refit").exists()


def test_it_needs_a_run() -> None:
    with pytest.raises(ConfigError, match="add run="):
        neurona.run(["stage=refit"])
