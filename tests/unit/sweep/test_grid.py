"""The sweeper on hydra-core's BasicSweeper, which this fails for if it asks other things of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus, filter_overrides
from omegaconf import OmegaConf

from neurona.errors import ConfigError
from neurona.sweep.launcher import Processes
from neurona.sweep.names import folder_of


@pytest.fixture
def folders() -> list[str]:
    """The names of the folders of all jobs that a launcher got."""
    return []


@pytest.fixture
def sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folders: list[str]
) -> Callable[..., list[tuple[list[list[str]], int]]]:
    """The batches, and the number of the first job of each, that a launcher of a class gets."""
    Plugins.instance()  # imports hydra-core's sweeper anew: a class that is made of it must be so afterwards
    from neurona.sweep.grid import Grid

    def run(kind: type, params: dict[str, str], *arguments: str, size: int | None = None) -> list[tuple[Any, int]]:
        batches: list[tuple[Any, int]] = []

        def launch(self: Any, batch: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
            numbered = enumerate(batch, initial_job_idx)
            folders.extend(folder_of(Path(), number, lines).name for number, lines in numbered)
            batches.append(([filter_overrides(lines) for lines in batch], initial_job_idx))
            return [JobReturn(status=JobStatus.COMPLETED, _return_value=None) for _ in batch]

        monkeypatch.setattr(kind, "launch", launch, raising=False)
        grid = Grid(max_batch_size=size, params=params)
        grid.config = OmegaConf.create({"quiet": True, "hydra": {"sweep": {"dir": str(tmp_path / "sweep")}}})
        grid.hydra_context = SimpleNamespace(config_loader=None)  # type: ignore[assignment]
        grid.launcher = kind.__new__(kind)
        grid.sweep(list(arguments))
        return batches

    return run


def test_every_combination_the_last_of_a_key_counting(sweep: Callable[..., Any]) -> None:
    batches = sweep(Processes, {"a": "1,2", "b": "5"}, "c=x,y", "b=6")
    assert batches == [
        ([["a=1", "b=6", "c=x"], ["a=1", "b=6", "c=y"], ["a=2", "b=6", "c=x"], ["a=2", "b=6", "c=y"]], 0)
    ]
    assert sweep(Processes, {}, "a=1,2,3", size=2) == [([["a=1"], ["a=2"]], 0), ([["a=3"]], 2)]


def test_jobs_are_named_by_what_varies_and_keep_their_folders(
    sweep: Callable[..., Any], folders: list[str], tmp_path: Path
) -> None:
    sweep(Processes, {"model.activation": "relu,tanh"}, "data=iris", "seed=0,1", size=3)
    assert folders == ["0_relu_seed0", "1_relu_seed1", "2_tanh_seed0", "3_tanh_seed1"]
    folders.clear()
    sweep(Processes, {}, "data=iris", "seed=5")
    assert folders == ["0"]
    folders.clear()
    (tmp_path / "sweep" / "0").mkdir()
    (tmp_path / "sweep" / "1_x").mkdir()
    sweep(Processes, {}, "seed=5,6,7")
    assert folders == ["0", "1_x", "2_seed7"]


def test_jobs_of_launchers_that_check_nothing_are_checked_before_the_first(
    sweep: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from neurona.sweep import grid

    composed: list[Any] = []
    monkeypatch.setattr(grid, "checked", lambda loader, config, overrides: composed.append(filter_overrides(overrides)))
    sweep(Processes, {}, "a=1,2")
    assert composed == []
    sweep(type("Other", (), {}), {}, "a=1,2")
    assert composed == [["a=1"], ["a=2"]]


@pytest.mark.parametrize(
    ("override", "problem"),
    [("a=range(3,3)", "gives no job"), ("a=interval(0,1)", "is for a search: add sweep=optuna")],
)
def test_what_is_no_grid_is_refused(sweep: Callable[..., Any], override: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        sweep(Processes, {}, override)
