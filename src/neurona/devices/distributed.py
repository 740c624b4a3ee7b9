"""Several processes that train one model: who they are, how they are connected, what they share.

Each has the whole data set and network, and takes its part of the rows of every mini-batch. Its gradient counts as
much as its part does, so that any number of processes learns what one does. The batch size is that of all together.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from datetime import timedelta

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins import environments
from lightning.pytorch.strategies import DDPStrategy
from omegaconf import DictConfig
from torch import Tensor

from neurona.devices import launch
from neurona.devices.launch import rank as rank
from neurona.errors import ConfigError, check_range

START_TIME = timedelta(minutes=30)
"""Longest wait for the other processes to start: one may be downloading the data."""


class DataParallel(DDPStrategy):
    """Lightning's, without torch's DistributedDataParallel, which takes a mean over the processes as though all had as
    many rows, and costs a small network as much time as its step.

    timeout_seconds: longest wait for another process of the run, which then fails and can be resumed.
    process_group_backend: null for gloo on CPUs, nccl on GPUs.
    """

    def __init__(self, *, timeout_seconds: float = 45.0, process_group_backend: str | None = None) -> None:
        check_range("trainer.strategy.timeout_seconds", timeout_seconds, above=0)
        super().__init__(process_group_backend=process_group_backend, timeout=START_TIME)
        self.timeout_seconds = timeout_seconds

    @property
    def launcher(self) -> None:
        """None: ``launch.start``, torchrun or srun has started the processes."""
        return None

    def setup_distributed(self) -> None:
        attempt, agents = (os.environ.get(f"TORCHELASTIC_{name}") for name in ("RESTART_COUNT", "USE_AGENT_STORE"))
        # After a restart, torchrun's store still has the addresses of the processes that are gone.
        if attempt not in (None, "0") and agents == "True" and not torch.distributed.is_initialized():
            store, rank, size = next(torch.distributed.rendezvous("env://", timeout=START_TIME))
            torch.distributed.init_process_group(
                self.process_group_backend or torch.distributed.get_default_backend_for_device(self.root_device),
                store=torch.distributed.PrefixStore(f"attempt {attempt}", store),
                rank=rank,
                world_size=size,
                timeout=START_TIME,
            )
        super().setup_distributed()
        assert torch.distributed.group.WORLD is not None
        torch.distributed.group.WORLD.set_timeout(timedelta(seconds=self.timeout_seconds))

    def configure_ddp(self) -> None:
        assert self.model is not None
        share(self.model.state_dict().values())  # whatever made the weights, they are the same everywhere


class WrappedDataParallel(DataParallel):
    """Lightning's DDPStrategy, in processes that are there already: for Lightning's own way to take a step."""

    def configure_ddp(self) -> None:
        DDPStrategy.configure_ddp(self)


def environment() -> environments.ClusterEnvironment:
    """How the processes of this run were started, asked without guessing: no cluster for a run of one process."""
    if launch.in_torchrun():
        return environments.TorchElasticEnvironment()
    if launch.in_slurm_step():
        # Absent with srun --ntasks, which is as good.
        os.environ.setdefault("SLURM_NTASKS_PER_NODE", str(local_world_size()))
        return environments.SLURMEnvironment(auto_requeue=False)
    return environments.LightningEnvironment()


def world_size() -> int:
    """Number of processes of this run."""
    return environment().world_size() if launch.is_launched() else 1


def local_world_size() -> int:
    """Number of processes of this run on this host."""
    if not launch.is_launched():
        return 1
    if size := os.environ.get("LOCAL_WORLD_SIZE"):
        return int(size)
    tasks = os.environ["SLURM_STEP_TASKS_PER_NODE"]  # "2", "2(x3)" for three hosts, or "2,1"
    if "," in tasks:
        raise ConfigError(
            "trainer.num_nodes", tasks, "every host needs the same number of tasks: srun --ntasks-per-node=…"
        )
    return int(tasks.partition("(")[0])


def follow_launcher(trainer: DictConfig) -> None:
    """Sets ``devices`` and ``num_nodes`` of the node ``trainer`` to what torchrun or srun has started."""
    if launch.is_launched():
        if isinstance(trainer.devices, int | str):
            trainer.devices = local_world_size()
        trainer.num_nodes = world_size() // local_world_size()


def check(trainer: Trainer, node: DictConfig) -> None:
    """Raises ConfigError unless the Trainer of a node ``trainer`` trains with all processes, started by others."""
    several, strategy = max(trainer.world_size, world_size()), node.strategy
    start = str(strategy.get("start_method", "popen") if isinstance(strategy, DictConfig) else strategy)
    starts_others = any(word in start for word in ("auto", "None", "spawn", "fork", "notebook"))
    if several > 1 and (starts_others or not isinstance(trainer.strategy, DDPStrategy)):
        problem = f"does not make {several} processes train together: use trainer=ddp, or trainer=ddp_cpu"
        raise ConfigError("trainer.strategy", node.strategy, problem)


def part(total: int, rank: int, num_parts: int) -> slice:
    """The ``rank``-th of so many parts of ``total`` rows, which differ by one row at most; the first are the larger."""
    size, larger = divmod(total, num_parts)
    start = rank * size + min(rank, larger)
    return slice(start, start + size + (rank < larger))


def share(tensors: Iterable[Tensor]) -> None:
    """Makes the tensors those of rank 0, in place; nothing where there is one process."""
    if torch.distributed.is_initialized():
        for tensor in tensors:
            torch.distributed.broadcast(tensor, src=0)


@torch.no_grad()
def sum_gradients(parameters: Sequence[Tensor]) -> None:
    """Replaces the gradients by their sum over all processes; a parameter without one has contributed zeros."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    for parameter in trained:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    gradients = [parameter.grad for parameter in trained if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    torch.distributed.all_reduce(flat)
    for gradient, summed in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(summed.view_as(gradient))


def disconnect() -> None:
    """Ends the connection to the other processes, for whatever this one does next."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def is_lost(error: RuntimeError) -> bool:
    """Whether it tells that another process does not answer; gloo's have no class of their own."""
    return isinstance(error, torch.distributed.DistError) or "/gloo/" in str(error)


def gathered(value: object) -> list[object]:
    """Every process's value, by rank."""
    if not torch.distributed.is_initialized():
        return [value]
    values: list[object] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values
