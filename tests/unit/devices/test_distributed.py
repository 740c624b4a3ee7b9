"""Parts of rows, and what the environment says about the processes of a run."""

from __future__ import annotations

import pytest
from lightning.pytorch.plugins.environments import LightningEnvironment, SLURMEnvironment, TorchElasticEnvironment
from omegaconf import OmegaConf

from neurona.devices import distributed
from neurona.errors import ConfigError

TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "none",
    "RANK": "3",
    "LOCAL_RANK": "1",
    "WORLD_SIZE": "4",
    "LOCAL_WORLD_SIZE": "2",
    "GROUP_RANK": "1",
}
SRUN = {
    "SLURM_JOB_ID": "7",
    "SLURM_JOB_NAME": "mine",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
}


@pytest.mark.parametrize("total", range(12))
@pytest.mark.parametrize("num_parts", [1, 2, 3, 5])
def test_parts_are_disjoint_cover_everything_and_differ_by_one(total, num_parts):
    parts = [range(total)[distributed.part(total, rank, num_parts)] for rank in range(num_parts)]
    assert [row for part in parts for row in part] == list(range(total))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize(
    ("variables", "kind", "rank", "world_size"),
    [({}, LightningEnvironment, 0, 1), (TORCHRUN, TorchElasticEnvironment, 3, 4), (SRUN, SLURMEnvironment, 3, 4)],
    ids=["alone", "torchrun", "srun"],
)
def test_the_launcher_says_which_process_this_is(monkeypatch, variables, kind, rank, world_size):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    trainer = OmegaConf.create({"devices": -1, "num_nodes": 1})
    distributed.follow_launcher(trainer)
    assert type(distributed.environment()) is kind
    assert (distributed.rank(), distributed.world_size()) == (rank, world_size)
    assert (trainer.devices, trainer.num_nodes) == ((2, 2) if variables else (-1, 1))


def test_a_batch_script_without_srun_is_one_process(monkeypatch):
    for name in ("SLURM_JOB_ID", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_JOB_NAME"):
        monkeypatch.setenv(name, SRUN[name])
    assert type(distributed.environment()) is LightningEnvironment
    assert distributed.world_size() == 1


def test_slurm_does_not_requeue_by_lightnings_handler(monkeypatch):
    for name, value in SRUN.items():
        monkeypatch.setenv(name, value)
    environment = distributed.environment()
    assert isinstance(environment, SLURMEnvironment)
    assert not environment.auto_requeue


def test_a_timeout_is_above_zero():
    with pytest.raises(ConfigError, match=r"trainer\.strategy\.timeout_seconds"):
        distributed.DataParallel(timeout_seconds=0)
