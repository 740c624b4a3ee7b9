"""A search's settings, and what it asks of launchers that know nothing of it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from neurona.errors import ConfigError
from neurona.sweep.search import Search, _check_metric

OURS = "neurona.classifier.Classifier"


@pytest.fixture
def search(tmp_path: Path) -> Search:
    search = Search.__new__(Search)
    search.folder, search.max_batch_size = tmp_path, 3
    return search


@pytest.mark.parametrize(
    ("metric", "direction"),
    [("val/loss", "minimize"), ("val/accuracy", "maximize"), ("val/accuracy_of/cat", "maximize")],
)
def test_an_objective_that_runs_have(metric: str, direction: str) -> None:
    _check_metric(metric, direction, OURS)
    with pytest.raises(ConfigError, match=f"the best {metric} takes hydra.sweeper.direction={direction}"):
        _check_metric(metric, "maximize" if direction == "minimize" else "minimize", OURS)


@pytest.mark.parametrize("metric", ["loss", "test/loss", "val/los"])
def test_an_objective_that_only_a_classifier_of_ones_own_may_have(metric: str) -> None:
    _check_metric(metric, "minimize", "mine.Classifier")
    with pytest.raises(ConfigError, match="must be one of val/loss"):
        _check_metric(metric, "minimize", OURS)


def test_other_launchers_get_trials_of_consecutive_numbers(search: Search) -> None:
    launches: list[tuple[list[Any], int]] = []

    def launch(overrides: Sequence[Any], initial_job_idx: int) -> None:
        launches.append((list(overrides), initial_job_idx))
        for number in range(initial_job_idx, initial_job_idx + len(overrides)):
            (search.folder / str(number)).mkdir()
            (search.folder / str(number) / "metrics.json").write_text(json.dumps({"val/loss": number}))

    search.jobs = SimpleNamespace(launch=launch)
    ended = list(search._in_batches((number, [f"n={number}"]) for number in (0, 1, 4, 5)))
    assert launches == [([["n=0"], ["n=1"]], 0), ([["n=4"]], 4), ([["n=5"]], 5)]
    assert ended == [(number, {"val/loss": number}) for number in (0, 1, 4, 5)]


def test_a_trial_that_leaves_nothing_has_failed_for_the_launchers_reason(search: Search) -> None:
    def launch(overrides: Sequence[Any], initial_job_idx: int) -> None:
        if initial_job_idx:
            raise MemoryError("no room")

    search.jobs = SimpleNamespace(launch=launch)
    assert list(search._in_batches((number, []) for number in (0, 5))) == [
        (0, {"status": "failed", "error": "has left no metrics.json"}),
        (5, {"status": "failed", "error": "no room"}),
    ]


def test_the_best_trials_command_can_be_typed(search: Search) -> None:
    sources = [
        SimpleNamespace(provider=provider, schema="file", path=f"/{provider}")
        for provider in ("hydra", "main", "command-line", "schema")
    ]
    search.root = SimpleNamespace(hydra=SimpleNamespace(runtime=SimpleNamespace(config_sources=sources)))
    command = search._command({"model.hidden": "[8, 8]", "optimizer.lr": 0.01}, ["data=iris", "tags=['a b']"])
    assert shlex.split(command) == [
        *("python", "train.py", "hydra.searchpath=[file:///command-line]", "data=iris", "tags=['a b']"),
        *("model.hidden=[8, 8]", "optimizer.lr=0.01"),
    ]
