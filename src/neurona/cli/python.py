"""``neurona.run``: what the command line does, called from Python."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from neurona.cli.composing import LOCK, composed, composing
from neurona.cli.replay import Yamls, replay
from neurona.config.check import check
from neurona.config.hints import CONFIG_DIR
from neurona.config.overrides import task_overrides
from neurona.errors import ConfigError
from neurona.stages import processes
from neurona.stages.execute import execute


def run(overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Does what ``python train.py *overrides`` does. Returns the figures of ``metrics.json`` and, as ``folder``, where
    they are.

    It may be called again and again, in a notebook, within another Hydra application, and from several threads: then
    one run is done after the other, as random generators, signals and numbers of threads are the whole process's.

    Raises ConfigError or DataError for a mistake, before a run folder exists.
    """
    if isinstance(overrides, str):
        raise ConfigError("overrides", overrides, f"must be a list: neurona.run([{overrides!r}])")
    with LOCK:
        name, lines = replay(list(overrides), Yamls(CONFIG_DIR))
        with composing(CONFIG_DIR):
            cfg, hydra = composed(name, lines)
            unread = check(cfg, hydra.runtime.choices, name)
        if number := processes.count(cfg):
            problem = f"{number} processes are started by the command line: python train.py …"
            raise ConfigError("trainer.devices", cfg.trainer.devices, problem)
        return execute(cfg, hydra.runtime.choices, task_overrides(hydra), unread)
