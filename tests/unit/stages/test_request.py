"""Where a run goes, and the run that is there."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from neurona.errors import ConfigError
from neurona.runs.folder import RunFolder


def trainer(rank: int, broadcast: Any = lambda path: path) -> Any:
    return SimpleNamespace(is_global_zero=rank == 0, strategy=SimpleNamespace(broadcast=broadcast))


def test_a_new_run_goes_where_it_is_asked_to_go(make_request: Any) -> None:
    assert make_request({"folder": "mine", "debugging": True}).place() == "mine"


@pytest.mark.parametrize(
    ("values", "choices", "name"),
    [({}, {}, "iris"), ({}, {"experiment": "lesson"}, "lesson"), ({"debugging": True}, {"debug": "fast"}, "debug")],
)
def test_else_it_is_named_after_experiment_or_data_and_the_time(
    make_request: Any, values: dict[str, Any], choices: dict[str, str], name: str
) -> None:
    place = make_request(values, **choices).place()
    assert re.fullmatch(rf"logs/{name}/\d{{4}}-\d\d-\d\d_\d\d-\d\d-\d\d", place)


def test_the_first_process_makes_the_folder_and_the_others_learn_its_name(
    make_request: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "a file").touch()
    names: list[str] = []
    request = make_request({"folder": str(tmp_path / "run")})
    folder = request.create_folder(trainer(0, lambda path: names.append(path) or path))
    assert folder.path == tmp_path / "run-2"
    assert names == [str(folder.path)]
    monkeypatch.setattr("neurona.runs.folder.rank", lambda: 1)
    other = request.create_folder(trainer(1, lambda path: names[0]))
    assert (other.path, other.is_written) == (folder.path, False)


def test_a_stage_that_works_on_a_run_needs_one(make_request: Any) -> None:
    with pytest.raises(ConfigError, match=r"^stage=test: works on an earlier run: add run="):
        make_request({"stage": "test"}).open_folder()


def test_the_run_is_held_until_the_stage_has_ended(make_request: Any, tmp_path: Path) -> None:
    (tmp_path / "overrides.yaml").touch()
    request = make_request({"run": str(tmp_path)})
    assert request.open_folder().path == tmp_path
    with pytest.raises(ConfigError, match="another process is working on it"):
        request.open_folder()
    request.on_exit.close()
    assert request.open_folder().path == tmp_path


def test_what_is_given_beside_a_run_is_what_it_was_not_begun_with(make_request: Any, tmp_path: Path) -> None:
    request = make_request({"run": str(tmp_path)})
    own = ["data=iris", "data.path=here.csv"]
    with RunFolder(tmp_path) as folder:
        folder.write_overrides(own, {"data.path": "/there/here.csv"})
        replayed = [*own, "stage=test", "data.fold=1"]
        request = dataclasses.replace(request, overrides=replayed)
        assert [override.input_line for override in request.beside_run(folder)] == ["stage=test", "data.fold=1"]
    assert [override.input_line for override in request.beside_run(None)] == replayed
