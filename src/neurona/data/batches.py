"""The in-memory loader: whole mini-batches by row index, nothing collated per sample, no workers.

shapes   features (num_rows, num_features) float32 or uint8 · targets (num_rows,) int64 · rows (n,) int64
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from neurona.data import chunking
from neurona.devices import distributed, lightning_internals


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """The same on a device; where that is a GPU, without waiting for it."""
    is_copied = device.type == "cuda" and tensor.device.type == "cpu"
    return tensor.pin_memory().to(device, non_blocking=True) if is_copied else tensor.to(device)


class Batch(NamedTuple):
    """One mini-batch: features (batch, num_features), targets (batch,)."""

    features: Tensor
    targets: Tensor

    def to(self, device: torch.device, **_: Any) -> Batch:
        """The same on a device; Lightning calls this."""
        return Batch(*(moved(tensor, device) for tensor in self))


class MiniBatch:
    """Some rows of a chunk, (size,) int64, whose features are gathered when it is unpacked as (features, targets).

    Where processes share the rows, targets and size are of this one's part, which may be empty; all_targets and
    all_sizes are of all of them.
    """

    def __init__(self, chunk: Chunk, rows: Tensor, targets: Tensor) -> None:
        self._chunk, self._rows, self.targets, self.all_targets = chunk, rows, targets, targets
        self.size = self.all_sizes = rows.shape[0]
        if chunk.world_size > 1:
            own = distributed.part(self.size, chunk.rank, chunk.world_size)
            self._rows, self.targets = rows[own], targets[own]
            self.size = len(self._rows)

    def __iter__(self) -> Iterator[Tensor]:
        return iter((self._chunk.gathered(self._chunk.features, self._rows), self.targets))

    def share(self, weights: Tensor | None) -> float:
        """How much of the loss of all rows, their mean, these make. weights: of the classes, (num_classes,)."""
        if self.size == self.all_sizes:
            return 1.0
        if weights is None:
            return self.size / self.all_sizes
        return (weights[self.targets].sum() / weights[self.all_targets].sum()).item()


class Chunk:
    """Several mini-batches handed to Lightning as one batch.

    Each is gathered when its turn comes, into a tensor of its own: the same alignment, hence the same bits, as one at a
    time, and no more memory. rank, world_size: which part of each to take, of how many.
    """

    def __init__(
        self, features: Tensor, targets: Tensor, rows: Tensor, batch_size: int, rank: int = 0, world_size: int = 1
    ) -> None:
        self.features, self.targets, self.rows, self.batch_size = features, targets, rows, batch_size
        self.rank, self.world_size = rank, world_size
        self.device = features.device

    def __len__(self) -> int:
        return math.ceil(len(self.rows) / self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        return (Batch(*mini_batch) for mini_batch in self.mini_batches())

    def mini_batches(self) -> Iterator[MiniBatch]:
        """This process's parts, none gathered yet."""
        targets = self.gathered(self.targets, self.rows).split(self.batch_size)
        return (MiniBatch(self, *part) for part in zip(self.rows.split(self.batch_size), targets, strict=True))

    def gathered(self, tensor: Tensor, rows: Tensor) -> Tensor:
        """Rows of a tensor of the data set, on the device where the mini-batches are to be."""
        selected = tensor.index_select(0, rows)
        return selected if self.is_local else moved(selected, self.device)

    def equal_part(self) -> Batch:
        """Of the first mini-batch, this process's rows, as many as every other's: where it cannot be divided, its first
        rows come twice.
        """
        rows = self.rows[: self.batch_size]
        if self.world_size > 1:
            each = math.ceil(len(rows) / self.world_size)
            rows = rows[torch.arange(self.rank * each, (self.rank + 1) * each, device=rows.device) % len(rows)]
        return Batch(self.gathered(self.features, rows), self.gathered(self.targets, rows))

    @property
    def is_local(self) -> bool:
        """Whether the data are where the mini-batches are to be."""
        return self.device == self.features.device

    def to(self, device: torch.device, **_: Any) -> Chunk:
        """Has the mini-batches made on another device than the data, which did not fit there; Lightning calls this."""
        self.device = torch.device(device)
        return self


@dataclass(eq=False, repr=False)
class BatchLoader:
    """Yields the mini-batches of some rows of a data set held in memory, as chunks while a Trainer fits, else singly.

    Where the Trainer has several processes, each takes its part of every mini-batch.

    features, targets: the whole data set. rows: the rows to take. batch_size: rows in a mini-batch; the last one may be
    smaller and is kept. shuffle_seed: None keeps the order of ``rows``; with a seed, it is a new permutation every
    epoch, a pure function of both. trainer: the Trainer that iterates, if any; the epoch, the position within it (exact
    after a resume) and the chunk lengths come from it.
    """

    features: Tensor
    targets: Tensor
    rows: Tensor
    batch_size: int
    _: KW_ONLY
    shuffle_seed: int | None = None
    trainer: Trainer | None = None
    epoch: int = field(default=0, init=False)

    def __len__(self) -> int:
        """Number of mini-batches in an epoch."""
        return math.ceil(len(self.rows) / self.batch_size)

    def order(self, epoch: int) -> Tensor:
        """The rows in the order in which this epoch takes them, (n,) int64, on the features' device."""
        rows = self.rows
        if self.shuffle_seed is not None:
            generator = torch.Generator().manual_seed(self.shuffle_seed * 1_000_003 + epoch)
            rows = rows[torch.randperm(len(rows), generator=generator)]
        return moved(rows, self.features.device)

    def __iter__(self) -> Iterator[Batch | Chunk]:
        if self.trainer is not None and self.trainer.training:
            return self._chunks(self.trainer)
        order = self.order(self.epoch)
        self.epoch += 1
        return iter(self._chunk(order))

    def _chunk(self, rows: Tensor) -> Chunk:
        shared = (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)
        return Chunk(self.features, self.targets, rows, self.batch_size, *shared)

    def _chunks(self, trainer: Any) -> Iterator[Batch | Chunk]:
        # Lightning asks for the iterator before it has restored its counters: nothing is read before the first next().
        order = self.order(0 if trainer.overfit_batches else trainer.current_epoch)
        while (length := chunking.next_length(trainer)) > 0:
            start = lightning_internals.position(trainer) * self.batch_size
            chunk = self._chunk(order[start : start + length * self.batch_size])
            yield chunk if chunking.takes_chunks(trainer) else chunk.equal_part()

    def state_dict(self) -> dict[str, Any]:
        """Empty: the position lives in the Trainer's counters; that there is one tells Lightning of the resume."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""
