"""The shipped configuration, composed once, and a request for a stage."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf, open_dict

from neurona.config.hints import CONFIG_DIR
from neurona.stages.request import Request


@pytest.fixture(scope="session")
def shipped() -> DictConfig:
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return compose("train", ["data=iris"])


@pytest.fixture
def composed(shipped: DictConfig) -> Callable[..., DictConfig]:
    """The configuration of a fit of iris, with values of its own, by dotted keys."""

    def change(values: dict[str, Any]) -> DictConfig:
        cfg = copy.deepcopy(shipped)
        with open_dict(cfg):
            for key, value in values.items():
                OmegaConf.update(cfg, key, value)
        return cfg

    return change


@pytest.fixture
def make_request(composed: Callable[..., DictConfig]) -> Iterator[Callable[..., Request]]:
    """A request for a stage; what it opens is closed after the test."""
    preemption: Any = SimpleNamespace(kept_from_workers=contextlib.nullcontext, name="")
    with contextlib.ExitStack() as on_exit:
        yield lambda values, **choices: Request(
            composed(values), {"data": "iris", **choices}, ["data=iris"], on_exit, preemption
        )
