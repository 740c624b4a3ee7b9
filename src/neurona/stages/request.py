"""What a stage is asked to do."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from omegaconf import DictConfig

from neurona.devices.preemption import Preemption


@dataclass(frozen=True)
class Request:
    """cfg: the configuration, checked. choices: of its groups. overrides: as they were given. on_exit: what is to be
    closed once the stage has ended. preemption: the signals of this process.
    """

    cfg: DictConfig
    choices: Mapping[str, str]
    overrides: Sequence[str]
    on_exit: contextlib.ExitStack
    preemption: Preemption
