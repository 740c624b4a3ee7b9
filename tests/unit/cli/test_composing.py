"""Hydra is made ready for this project whatever else uses it, and left as it was."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.version import VersionBase

from neurona.cli.composing import composed, composing
from neurona.config.hints import CONFIG_DIR
from neurona.errors import UserError


@pytest.fixture
def other(tmp_path: Path) -> Path:
    (tmp_path / "app.yaml").write_text("mine: 1\n")
    return tmp_path


def test_another_application_goes_on_as_it_was(other: Path) -> None:
    with initialize_config_dir(str(other), version_base="1.2"):
        HydraConfig.instance().set_config(compose("app", return_hydra_config=True))
        before = HydraConfig.get(), VersionBase.instance().version_base
        with composing(CONFIG_DIR):
            assert not HydraConfig.initialized()
            with composing(CONFIG_DIR):
                cfg, hydra = composed("train", ["data=iris"])
            assert composed("train", ["data=iris"])[0] == cfg
        assert (hydra.runtime.choices["data"], "hydra" in cfg) == ("iris", False)
        assert (HydraConfig.get(), VersionBase.instance().version_base) == before
        assert compose("app") == {"mine": 1}
    HydraConfig.instance().cfg = None
    assert not GlobalHydra.instance().is_initialized()


def test_a_mistake_leaves_nothing_behind() -> None:
    with pytest.raises(UserError, match="did you mean mlp"), composing(CONFIG_DIR):
        composed("train", ["model=mpl"])
    assert not GlobalHydra.instance().is_initialized()


def test_threads_compose_one_after_the_other() -> None:
    seeds = []

    def work(seed: int) -> None:
        with composing(CONFIG_DIR):
            seeds.append(composed("train", [f"seed={seed}"])[0].seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seeds) == [0, 1, 2]
