"""``neurona.run`` refuses, before anything runs, what the command line does, and puts back what it has set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import neurona
from neurona.cli import python
from neurona.errors import ConfigError, UserError


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[Any, ...]]:
    """What is handed on to be run; nothing is."""
    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr(python, "execute", lambda *arguments: calls.append(arguments) or {"status": "finished"})
    monkeypatch.chdir(tmp_path)
    return calls


def test_a_checked_configuration_is_handed_on(executed: list[tuple[Any, ...]]) -> None:
    assert python.run(["data=iris", "seed=3"]) == {"status": "finished"}
    ((cfg, choices, overrides, *_),) = executed
    assert (cfg.seed, "hydra" in cfg, choices["data"], overrides) == (3, False, "iris", ["data=iris", "seed=3"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.hiden=[3]"], "did you mean model.hidden?"),
        (["seed=1,2"], "seed=1,2: several values"),
        (["seed=-1"], "must be from 0"),
        (["model=mpl"], "did you mean mlp?"),
        (["run=nowhere"], "is not a run folder"),
        (["trainer=ddp", "trainer.devices=2"], "2 processes are started by the command line"),
    ],
)
def test_mistakes(executed: list[tuple[Any, ...]], overrides: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        python.run(overrides)
    assert message in str(caught.value)
    assert not executed


def test_torchs_number_of_threads_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert torch.get_num_threads() == 1
    figures = python.run(["data=iris", "threads=2", "trainer=cpu", "debug=fast", "logger=none", "quiet=true"])
    assert json.loads(Path(figures["folder"], "provenance.json").read_text())["hardware"]["threads"] == 2
    assert torch.get_num_threads() == 1


def test_one_text_is_no_list() -> None:
    with pytest.raises(ConfigError, match=r"must be a list: neurona\.run\(\['data=iris'\]\)"):
        python.run("data=iris")


def test_settings_by_their_keys_are_no_list() -> None:
    with pytest.raises(ConfigError, match=r"must be a list: neurona\.run\(\['seed=3', 'run=null'\]\)$"):
        python.run({"seed": 3, "run": None})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"must be a list: neurona\.fit\(X, y, \['seed=3'\]\)$"):
        python.fit([[0.0]], [0], {"seed": 3})  # type: ignore[arg-type]


def test_the_package_tells_what_it_has() -> None:
    assert {"run", "fit", "load", "NeuronaClassifier", "__version__"} <= set(dir(neurona))
    assert neurona.run is python.run
    assert neurona.fit is python.fit
    with pytest.raises(AttributeError, match=r"has no attribute 'lod'; did you mean load\?"):
        neurona.lod  # noqa: B018
    with pytest.raises(AttributeError, match=r"has no attribute '__path'$"):
        neurona.__path  # noqa: B018
