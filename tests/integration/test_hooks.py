"""Whoever overrides a hook of the classifier without ``super()`` loses what Lightning does in it: nothing."""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import LightningModule

import neurona

FIT = ["data=iris", "quiet=true", "logger=csv", "inspect=none", "trainer.log_every_n_steps=1"]
OUTCOME = ("seconds", "samples_per_second")


def is_empty(method: Any) -> bool:
    """Whether a method of Lightning's does nothing, or gives an empty list."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(method))).body
    assert isinstance(tree, ast.FunctionDef)
    _, *body = tree.body  # after the docstring
    return {ast.unparse(statement) for statement in body} <= {"pass", "return []"}


HOOKS = sorted(
    name
    for name, method in inspect.getmembers(LightningModule, inspect.isfunction)
    if name.startswith(("on_", "setup", "teardown", "prepare_data", "configure_"))
    and not name.startswith(("on_predict", "configure_sharded_model"))  # not of a fit; deprecated
    and is_empty(method)
)
MODULE = "from neurona.classifier import Classifier\n" + "".join(
    f"class Without_{hook}(Classifier):\n    def {hook}(self, *args, **kwargs):\n        return []\n" for hook in HOOKS
)


def outcome(read_run: Any, folder: Path) -> dict[str, Any]:
    """What is left of a run: its figures, what was logged, its weights, and the names in its checkpoint."""
    run = read_run(folder)
    figures = {name: value for name, value in run.metrics.items() if name not in OUTCOME}
    last = run.checkpoint()
    contents = {"callbacks": last["callbacks"], "names": set(last), "neurona": set(last["neurona"])}
    logged = [line for line in (folder / "metrics.csv").read_text().splitlines() if "per_second" not in line]
    return {"figures": figures, "best": run.weights("best"), "last": run.weights(), "logged": logged, **contents}


def fit_and_extend(read_run: Any, folder: Path, *overrides: str) -> list[dict[str, Any]]:
    neurona.run([*FIT, "trainer.max_epochs=2", f"folder={folder}", *overrides])
    after_two = outcome(read_run, folder)
    allowed = [override for override in overrides if override.startswith("allow=")]
    neurona.run([f"run={folder}", "trainer.max_epochs=3", *allowed])
    return [after_two, outcome(read_run, folder)]


@pytest.fixture(scope="session")
def expected(read_run: Any, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return fit_and_extend(read_run, tmp_path_factory.mktemp("hooks") / "run")


@pytest.fixture(autouse=True)
def _own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "hooked.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("hooked", None)


def test_the_hooks_are_all_there() -> None:
    named = {"setup", "teardown", "prepare_data", "configure_callbacks", "on_save_checkpoint", "on_load_checkpoint"}
    assert {*named, "on_fit_start", "on_train_epoch_end", "on_train_batch_end", "on_validation_epoch_end"} <= set(HOOKS)


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_that_does_nothing_costs_nothing(
    hook: str, read_run: Any, expected: list[dict[str, Any]], tmp_path: Path
) -> None:
    own = ["allow=[hooked]", f"classifier._target_=hooked.Without_{hook}"]
    assert fit_and_extend(read_run, tmp_path / "run", *own) == expected
    assert neurona.load(tmp_path / "run", allow=["hooked"]).spec.num_classes == 3
