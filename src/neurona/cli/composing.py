"""Hydra made ready to compose this project's configuration, whatever else in the process uses Hydra."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.version import VersionBase
from omegaconf import DictConfig, open_dict

from neurona.config.explain import REFUSALS, explain

LOCK = threading.RLock()
"""Held while something is composed: Hydra's state, and OmegaConf's, is one for the whole process."""


@contextlib.contextmanager
def composing(config_dir: Path) -> Iterator[None]:
    """Hydra initialised for a folder of yamls; what it was initialised for before is put back at the end."""
    with LOCK:
        before = GlobalHydra.instance().hydra, HydraConfig.instance().cfg, VersionBase.instance().version_base
        GlobalHydra.instance().hydra = HydraConfig.instance().cfg = None
        try:
            with initialize_config_dir(str(config_dir.resolve()), version_base="1.3"):
                yield
        finally:
            GlobalHydra.instance().hydra, HydraConfig.instance().cfg, VersionBase.instance().version_base = before


def composed(name: str, overrides: Sequence[str]) -> tuple[DictConfig, Any]:
    """The configuration of that name, and its node ``hydra``. Hydra must be initialised.

    Raises UserError for what cannot be composed.
    """
    try:
        cfg = compose(name, list(overrides), return_hydra_config=True)
    except REFUSALS as error:
        raise explain(error, overrides) from error
    with open_dict(cfg):
        hydra = cfg.pop("hydra")
    return cfg, hydra
