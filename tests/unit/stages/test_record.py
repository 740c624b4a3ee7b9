"""What ``metrics.json`` says of a run, however it ends."""

from __future__ import annotations

import errno
import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from lightning.pytorch.utilities.exceptions import SIGTERMException

from neurona.callbacks.early_stopping import EarlyStopping
from neurona.errors import HopelessRun, RunError
from neurona.runs.folder import RunFolder
from neurona.stages import record


def trainer(steps: int = 0, epochs: int = 0, callbacks: tuple[Any, ...] = (), **limits: int) -> Any:
    progress = SimpleNamespace(current=SimpleNamespace(processed=epochs))
    return SimpleNamespace(
        global_step=steps,
        fit_loop=SimpleNamespace(epoch_progress=progress),
        callbacks=callbacks,
        checkpoint_callback=SimpleNamespace(best={"epoch": 4}),
        **{"max_steps": -1, "max_epochs": 9, **limits},
    )


@pytest.fixture
def folder(tmp_path: Path) -> Any:
    with RunFolder.create(tmp_path / "run") as created:
        yield created


@pytest.fixture
def recorded(make_request: Any, folder: RunFolder) -> Callable[..., Any]:
    classifier: Any = SimpleNamespace(num_parameters=3)
    return lambda stage="fit", **state: record.recorded(
        make_request({"stage": stage}), folder, trainer(**state), classifier
    )


def written(folder: RunFolder, name: str = "metrics.json") -> dict[str, Any]:
    return json.loads((folder.path / name).read_text())


def test_a_run_is_running_until_it_is_finished(recorded: Any, folder: RunFolder) -> None:
    with recorded(steps=20, epochs=2) as figures:
        assert written(folder)["status"] == "running"
        figures |= {"test/loss": 0.5, "stopped_by": "max_epochs"}
    assert written(folder) == {
        "status": "finished",
        "stage": "fit",
        "num_parameters": 3,
        "epochs": 2,
        "steps": 20,
        "test/loss": 0.5,
        "stopped_by": "max_epochs",
    }


def test_a_trial_that_a_search_ends_is_pruned(recorded: Any, folder: RunFolder) -> None:
    with recorded("lr_find") as figures:
        figures["stopped_by"] = "pruning"
    assert written(folder, "metrics_lr_find.json")["status"] == "pruned"


@pytest.mark.parametrize(
    ("error", "raised", "status", "message"),
    [
        (ValueError("a line\nand another"), ValueError, "failed", "a line"),
        (KeyError(), KeyError, "failed", "KeyError"),
        (SystemExit(1), KeyboardInterrupt, "interrupted", "KeyboardInterrupt"),
        (SIGTERMException(143), SIGTERMException, "interrupted", "143"),
        (OSError(errno.ENOSPC, "No space left"), RunError, "failed", None),
        (OSError(errno.ENOENT, "No such file"), FileNotFoundError, "failed", "[Errno 2] No such file"),
        (RuntimeError("[/third_party/gloo/tcp/pair.cc:1] Connection closed"), RunError, "failed", None),
    ],
    ids=["error", "without_message", "ctrl_c", "preempted", "full", "missing", "lost"],
)
def test_how_a_run_ended_is_written_before_the_error_goes_on(
    recorded: Any, folder: RunFolder, error: BaseException, raised: type, status: str, message: str | None
) -> None:
    with pytest.raises(raised) as caught, recorded(steps=7):
        raise error
    figures = written(folder)
    assert (figures["status"], figures["steps"]) == (status, 7)
    assert figures["error"] == message or (message is None and figures["error"] in str(caught.value))


@pytest.mark.parametrize(
    ("error", "has_checkpoint", "goes_on"),
    [
        (KeyError("of the user's code"), False, False),
        (KeyError("of the user's code"), True, True),
        (HopelessRun("no step was taken"), True, False),
        (KeyboardInterrupt("2"), False, True),
        (OSError(errno.ENOSPC, "No space left"), False, True),
    ],
)
def test_to_go_on_is_offered_only_where_that_may_end_otherwise(
    recorded: Any,
    folder: RunFolder,
    caplog: pytest.LogCaptureFixture,
    error: BaseException,
    has_checkpoint: bool,
    goes_on: bool,
) -> None:
    caplog.set_level("INFO")
    if has_checkpoint:
        folder.last_checkpoint.parent.mkdir()
        folder.last_checkpoint.touch()
    with pytest.raises(BaseException, match=r"of the|no step|2|cannot be written"), recorded():
        raise error
    assert (f"; to continue: python train.py run={folder.path}" in caplog.text) == goes_on


def test_a_run_that_goes_on_keeps_its_figures_but_not_how_it_ended(recorded: Any, folder: RunFolder) -> None:
    earlier = {"status": "failed", "stage": "fit", "error": "a loss", "stopped_by": "max_steps", "val/loss": 0.25}
    folder.write_metrics(earlier, "fit")
    with recorded() as figures:
        assert figures["val/loss"] == 0.25
        assert figures.keys().isdisjoint({"error", "stopped_by"})
        figures["stopped_by"] = "max_epochs"


def test_seconds_are_added_once_the_body_is_done() -> None:
    figures: dict[str, Any] = {}
    with record.timed(figures):
        assert "seconds" not in figures
    assert 0 <= figures["seconds"] < 1


def stopped() -> EarlyStopping:
    callback = EarlyStopping(patience=3)
    callback.stopping_reason, callback.wait_count = EarlyStoppingReason.PATIENCE_EXHAUSTED, 3
    return callback


def timer() -> Timer:
    callback = Timer(duration={"seconds": 1})
    callback.load_state_dict({"time_elapsed": {"train": 2.0}})
    return callback


@pytest.mark.parametrize(
    ("state", "stopped_by", "words"),
    [
        ({"max_steps": 20}, "max_steps", "trainer.max_steps is reached"),
        ({"max_epochs": 2}, "max_epochs", "trainer.max_epochs is reached"),
        ({"max_epochs": -1, "callbacks": [timer()]}, "max_time", "the time of trainer.max_time is up"),
        (
            {"callbacks": [EarlyStopping(patience=9), stopped()]},
            "early_stopping",
            "early stopping: val/loss has not improved for 3 validations",
        ),
        ({"callbacks": [SimpleNamespace(ended_fit=("pruning", "pruned"))]}, "pruning", "pruned"),
        ({}, "callback", "a callback has ended the fit"),
    ],
)
def test_what_ended_a_fit(state: dict[str, Any], stopped_by: str, words: str) -> None:
    assert record.why_ended(trainer(20, 2, **state)) == (stopped_by, words)


def fitted(batches: int, steps: int, samples: int, *, is_automatic: bool = True, loss: float = math.nan) -> Any:
    loop = SimpleNamespace(batch_progress=SimpleNamespace(total=SimpleNamespace(ready=batches)))
    ended = SimpleNamespace(global_step=steps, fit_loop=SimpleNamespace(epoch_loop=loop))
    classifier = SimpleNamespace(
        is_fast=False, automatic_optimization=is_automatic, samples_taken=samples, epoch_means=lambda: (loss, math.nan)
    )
    return ended, classifier


@pytest.mark.parametrize(
    ("state", "problem"),
    [
        (fitted(0, 0, 0), "the training loader gave no mini-batch"),
        (fitted(9, 9, 0), "training_step has returned None for all mini-batches"),
        (fitted(9, 0, 0, is_automatic=False), "called step\\(\\) of no optimiser"),
    ],
)
def test_a_fit_without_a_step_is_a_failure(state: Any, problem: str) -> None:
    with pytest.raises(HopelessRun, match=f"no step was taken: .*{problem}"):
        record.require_steps(*state)


@pytest.mark.parametrize(
    "state",
    [fitted(9, 9, 288), fitted(9, 9, 0, is_automatic=False), fitted(9, 9, 0, loss=0.5)],
    ids=["samples", "by hand", "loss"],
)
def test_one_with_steps_is_none(state: Any) -> None:
    """Be they of the process before this one, which has ended with the last of them."""
    record.require_steps(*state)
