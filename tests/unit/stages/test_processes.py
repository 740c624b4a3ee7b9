from __future__ import annotations

import pytest
from hydra.conf import HydraConf
from omegaconf import OmegaConf

from neurona.errors import ConfigError
from neurona.stages import processes


def composed(**trainer):
    strategy = {"_target_": "neurona.devices.distributed.DataParallel"}
    node = {"strategy": strategy, "devices": 2, "num_nodes": 1, "accelerator": "cpu", **trainer}
    return OmegaConf.create({"stage": "fit", "trainer": node})


@pytest.mark.parametrize(
    ("trainer", "number"),
    [
        ({}, 2),
        ({"devices": [0, 2, 3]}, 3),
        ({"devices": "4"}, 4),
        ({"devices": 1}, 0),
        ({"strategy": "ddp"}, 2),
        ({"strategy": "auto"}, 0),
    ],
    ids=str,
)
def test_processes_are_started_for_the_strategy_of_several_devices(trainer, number):
    assert processes.count(composed(**trainer)) == number


def test_a_run_of_several_devices_is_exported_by_one_process():
    cfg = composed()
    cfg.stage = "export"
    assert processes.count(cfg) == 0


@pytest.mark.parametrize(
    "variables",
    [{"TORCHELASTIC_RUN_ID": "none", "RANK": "0"}, {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2"}],
    ids=["torchrun", "srun"],
)
def test_none_are_started_where_a_launcher_has_done_it(monkeypatch, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert processes.count(composed()) == 0


def test_several_hosts_need_a_launcher():
    with pytest.raises(ConfigError, match=r"trainer\.num_nodes.*torchrun or srun"):
        processes.count(composed(num_nodes=2))


def test_all_devices_of_the_cpu_is_no_number():
    with pytest.raises(ConfigError, match=r"trainer\.devices.*number of processes"):
        processes.count(composed(devices=-1))


def test_predict_works_on_one_device():
    cfg = composed()
    cfg.stage = "predict"
    with pytest.raises(ConfigError, match=r"trainer\.devices.*trainer=auto"):
        processes.count(cfg)


def test_a_job_of_a_sweep_becomes_a_run_without_what_is_the_sweeps_alone(monkeypatch):
    commands = []
    monkeypatch.setattr(processes, "start", lambda number, command: commands.append(command) or 0)
    source = {"provider": "main", "schema": "file", "path": "/yamls"}
    task = ["seed=1", "retry_failed=true"]
    node = {"mode": "MULTIRUN", "overrides": {"task": task}, "runtime": {"config_sources": [source]}}
    hydra = OmegaConf.merge(OmegaConf.structured(HydraConf), node)
    processes.run(2, OmegaConf.create({"run": None, "folder": "logs/s/1"}), hydra)
    assert commands[0][2:] == ["--config-path=/yamls", "seed=1", "folder='logs/s/1'"]
