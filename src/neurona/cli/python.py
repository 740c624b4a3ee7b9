"""``neurona.run``: what the command line does, called from Python."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import open_dict

from neurona.cli.replay import replay
from neurona.config.check import check
from neurona.config.explain import explain
from neurona.config.hints import CONFIG_DIR
from neurona.config.overrides import check_single, parse, task_overrides
from neurona.errors import ConfigError
from neurona.stages import processes
from neurona.stages.execute import execute


def run(overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Does what ``python train.py *overrides`` does. Returns the figures of ``metrics.json`` and, as ``folder``, where
    they are.

    Raises ConfigError or DataError for a mistake, before a run folder exists.
    """
    if isinstance(overrides, str):
        raise ConfigError("overrides", overrides, f"must be a list: neurona.run([{overrides!r}])")
    replayed = replay(list(overrides))
    check_single(parse(replayed))
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        try:
            cfg = compose("train", replayed, return_hydra_config=True)
        except HydraException as error:
            raise explain(error, replayed) from error
        with open_dict(cfg):
            hydra = cfg.pop("hydra")
        unread = check(cfg, hydra.runtime.choices)
        if number := processes.count(cfg):
            problem = f"{number} processes are started by the command line: python train.py …"
            raise ConfigError("trainer.devices", cfg.trainer.devices, problem)
        return execute(cfg, hydra.runtime.choices, task_overrides(hydra), unread)
