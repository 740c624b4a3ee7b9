"""Every key of every group is read by a stage that works on a trained network, or refused by it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from neurona.config import reads
from neurona.config.hints import CONFIG_DIR
from neurona.config.make import import_target
from neurona.config.overrides import parse
from neurona.errors import ConfigError

DATA = sorted(path.stem for path in (CONFIG_DIR / "data").glob("*.yaml"))
GROUPS = ("model", "classifier", "optimizer", "optimizer/schedule", "logger", "inspect", "experiment", "debug", "sweep")
TABLE = ("data.path=x.csv", "data.target=y")

PROCESS = {"run", "stage", "quiet", "threads", "allow"}
DEVICES = {f"trainer.{name}" for name in ("accelerator", "devices", "num_nodes", "strategy", "precision")}
TRAINER = DEVICES | {
    *("trainer.deterministic", "trainer.benchmark", "trainer.profiler"),
    *("trainer.use_distributed_sampler", "trainer.enable_progress_bar"),
}
READ = {
    "validate": PROCESS | TRAINER | {"trainer.limit_val_batches", "trainer.overfit_batches"},
    "test": PROCESS | TRAINER | {"trainer.limit_test_batches"},
    "predict": PROCESS | TRAINER | {"trainer.limit_predict_batches"},
    "export": PROCESS,
}
SPLIT = {"val_fraction", "test_fraction", "folds", "fold", "split_seed"}
OF_TABLE = {"path", "target", "labels", "eval_batch_size"}
OF_DATA = {
    "": {"eval_batch_size", "root", "num_samples", "noise", "seed", "shape", *SPLIT},
    "the run's table": OF_TABLE | SPLIT | {"val_path", "test_path", "group", "order"},
    "a new table": OF_TABLE | {"separator", "decimal", "thousands", "missing"},
}
"""What is read of the data; ``tests/integration/test_reads.py`` sees it being read."""


def keys(node: Any, prefix: str = "") -> Iterator[str]:
    """Every dotted key of a configuration."""
    for name, child in node.items():
        if name != "_target_":
            yield f"{prefix}{name}"
            if isinstance(child, dict):
                yield from keys(child, f"{prefix}{name}.")


@pytest.fixture(scope="module")
def composed() -> dict[str, dict[str, Any]]:
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return {
            name: OmegaConf.to_container(compose("train", [f"data={name}", *(TABLE if name == "table" else ())]))
            for name in DATA
        }


@pytest.mark.parametrize("stage", READ)
def test_every_key_is_read_or_refused(composed: Any, stage: str) -> None:
    looked_at = set[str]()
    for name in DATA:
        node = composed[name]
        datamodule = import_target("data", node["data"]["_target_"])
        for kind in ("the run's table", "a new table") if name in ("table", "arrays") else ("",):
            read = READ[stage] | {f"data.{key}" for key in OF_DATA[kind]} | {"data"}
            read |= {"trainer"} if stage != "export" else set()
            for key in keys(node):
                looked_at.add(key)
                given = parse([f"{key}=1"])
                if key in read:
                    reads.check(stage, given, datamodule, is_new=kind == "a new table")
                    continue
                with pytest.raises(ConfigError, match=r"(; leave it out|: give data.path too)$") as refused:
                    reads.check(stage, given, datamodule, is_new=kind == "a new table")
                assert (refused.value.key, refused.value.value) == (key, "1")
    assert {"model.hidden", "trainer.callbacks.checkpoints.monitor", "inspect.norms", "data.decimal"} <= looked_at


@pytest.mark.parametrize("stage", READ)
def test_another_choice_of_a_group_is_read_or_refused(stage: str) -> None:
    for group in (*GROUPS, *(["trainer"] if stage == "export" else [])):
        with pytest.raises(ConfigError, match=rf"^{group}=other: is not used by stage={stage}, which takes quiet"):
            reads.check(stage, parse([f"{group}=other"]), object, is_new=False)
    allowed = ["data=iris", "hydra.verbose=true", *(["trainer=cpu"] if stage != "export" else [])]
    reads.check(stage, parse([*allowed, "data.whatever=1"]), object, is_new=False)


def test_a_fit_does_not_search_a_rate() -> None:
    reads.check_fit(parse(["optimizer.lr=1", "inspect=full"]))
    with pytest.raises(ConfigError, match=r"^lr_find.steps=5: is for stage=lr_find only"):
        reads.check_fit(parse(["lr_find.steps=5"]))
