"""CUDA graphs: the kernels of a step recorded once, and from then on launched as one.

A small network's kernels take a GPU a microsecond or two each, and Python many times as long to launch one by one.
"""

from __future__ import annotations

import functools
import logging
import random
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neurona.data.batches import Chunk, size
from neurona.steps.norms import StepNorms
from neurona.steps.steps import MAX_RECORDINGS, Batch, Classifier, DirectSteps, Taken, without_trainer

log = logging.getLogger(__name__)

WARM_UP = 3
"""Calls that run as they are, so that libraries are loaded and have chosen their kernels before one is recorded."""

WAIT_WARNING = "called a synchronizing CUDA operation"
"""What torch says of one, if told to."""


class Graph:
    """A function without arguments whose work is done by a GPU, recorded after its first calls and replayed.

    What it reads and changes stays where it is; what it does must depend on no value, and not wait for the GPU.
    state: of what it could change in Python. Where it does so in its first calls, waits in the last of them, or cannot
    be recorded, the function is called as it is, and a warning says why.

    Called, it returns the function's result, whose tensors the next call overwrites.
    """

    def __init__(self, function: Callable[[], Any], state: Callable[[], Any] = lambda: None) -> None:
        self._function, self._state = function, state
        self._calls = 0
        self._graph: Any = None
        self._result: Any = None
        self.is_refused = False

    def __call__(self) -> Any:
        if self._graph is None and not self.is_refused:
            if self._calls < WARM_UP:
                return self._warm_up()
            self._record()
        if self._graph is None:
            return self._function()
        self._graph.replay()
        return self._result

    def _warm_up(self) -> Any:
        self._calls += 1
        before, waits = self._state(), False
        if self._calls < WARM_UP:  # a module may read something once and for all
            result = self._function()
        else:
            result, waits = noting_waits(self._function)
        if waits:
            self._refuse("a module waits for the GPU")
        elif self._state() != before:
            self._refuse("a module draws numbers in Python, or changes its settings, in every step")
        return result

    def _record(self) -> None:
        """Nothing is computed: the step that this call is for is the first replay."""
        try:
            self._graph, self._result = recorded(self._function)
        except RuntimeError as error:
            self._refuse(str(error.__context__ or error).partition("\n")[0])

    def _refuse(self, reason: str) -> None:
        self.is_refused = True
        log.warning("going on without a CUDA graph: %s", reason)


def noting_waits(function: Callable[[], Any]) -> tuple[Any, bool]:
    """The function's result, and whether torch notices that it waits for the GPU; see ``set_sync_debug_mode``."""
    mode, waits = torch.cuda.get_sync_debug_mode(), False
    with warnings.catch_warnings():
        show = warnings.showwarning

        def note(message: Any, *others: Any, **named: Any) -> None:
            nonlocal waits
            if WAIT_WARNING in str(message):
                waits = True
            else:
                show(message, *others, **named)

        warnings.filterwarnings("ignore", ".*Synchronization debug mode")
        warnings.filterwarnings("always", f".*{WAIT_WARNING}")
        warnings.showwarning = note
        torch.cuda.set_sync_debug_mode("warn")
        try:
            result = function()
        finally:
            torch.cuda.set_sync_debug_mode(mode)
    return result, waits


def recorded(function: Callable[[], Any]) -> tuple[Any, Any]:
    """The function's kernels as a CUDA graph, and what a replay writes its result to."""
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
    try:
        with torch.cuda.graph(graph, stream=_recording_stream(stream.device_index)):
            result = function()
    finally:
        torch.cuda.set_stream(stream)  # torch 2.13 leaves another one after a failure
    return graph, result


@functools.cache
def _recording_stream(device: int) -> Any:
    """Torch's own would be the first device's, for all of them."""
    return torch.cuda.Stream(device)


def drawn() -> tuple[Any, ...]:
    """The state of the generators on the CPU, which a replay does not draw from."""
    of_numpy: Any = np.random.get_state()  # noqa: NPY002  (a module may draw from the global one)
    return random.getstate(), of_numpy[1].tobytes(), of_numpy[2], torch.get_rng_state().numpy().tobytes()


class Slots:
    """Where the steps of every chunk find their rows, one mini-batch after the other, and leave loss and logits.

    length: most mini-batches of a chunk. dtype: of loss and logits. tensors: what ``in_slots`` takes.
    """

    def __init__(self, chunk: Chunk, length: int, num_classes: int, dtype: torch.dtype) -> None:
        self.features, self.targets, self.batch_size = chunk.features, chunk.targets, chunk.batch_size
        self._length = length
        device = chunk.features.device
        self._rows = torch.zeros(length, self.batch_size, dtype=torch.int64, device=device)
        self._number = torch.zeros(1, dtype=torch.int64, device=device)
        losses = torch.zeros(length, dtype=dtype, device=device)
        logits = torch.zeros(length, self.batch_size, num_classes, dtype=dtype, device=device)
        self._kept = list(zip(losses.unbind(), logits.unbind(), strict=True))
        self.tensors = (self.features, self.targets, self._rows, self._number, losses, logits)

    def fit(self, chunk: Chunk) -> bool:
        """Whether the chunk is of the same data, in mini-batches of the same size, and no longer than there is room."""
        is_same = chunk.features is self.features and chunk.targets is self.targets
        return is_same and chunk.batch_size == self.batch_size and len(chunk) <= self._length

    def begin(self, chunk: Chunk) -> None:
        """Has the whole mini-batches of a chunk taken next."""
        number = len(chunk.rows) // self.batch_size
        rows = chunk.rows[: number * self.batch_size]
        self._rows[:number].copy_(rows.view(number, self.batch_size))
        self._number.zero_()
        self._targets = self.targets.index_select(0, rows).split(self.batch_size)
        self._next = 0

    def skip(self) -> None:
        """The next mini-batch has been taken in another way."""
        self._number.add_(1)
        self._next += 1

    def taken(self) -> Taken:
        """Loss, logits and targets of the mini-batch that has just been taken."""
        self._next += 1
        return *self._kept[self._next - 1], self._targets[self._next - 1]


def in_slots(function: Callable[..., Any]) -> Callable[..., list[Any]]:
    """A function of a mini-batch, (…, features, targets) → (loss, logits, …), as one of slots' tensors, (tensors, …),
    that takes their next mini-batch. Returns what else the function does.
    """

    def step(tensors: tuple[Tensor, ...], *others: Any) -> list[Any]:
        features, targets, rows, number, losses, logits = tensors
        picked = rows.index_select(0, number).flatten()
        loss, made, *rest = function(*others, features.index_select(0, picked), targets.index_select(0, picked))
        losses.index_copy_(0, number, loss.to(losses.dtype).reshape(1))
        logits.index_copy_(0, number, made.to(logits.dtype).unsqueeze(0))
        number.add_(1)
        return rest

    return step


def wanted(classifier: Classifier) -> bool:
    """Whether there is a GPU that records graphs."""
    return classifier.device.type == "cuda"


def slots_for(batch: object, classifier: Classifier, slots: Slots | None) -> Slots | None:
    """Slots that begin with this Lightning batch, the same as before if they can be; None for one that is no chunk, or
    whose data are elsewhere.
    """
    if not wanted(classifier) or not isinstance(batch, Chunk) or not batch.is_local or batch.world_size > 1:
        return None
    if slots is None or not slots.fit(batch):
        parameter = next(classifier.network.parameters())
        dtype = torch.promote_types(parameter.dtype, torch.float32)
        length = max(len(batch), classifier.steps_per_batch)
        slots = Slots(batch, length, classifier.spec.num_classes, dtype)
    slots.begin(batch)
    return slots


class GraphedSteps(DirectSteps):
    """Replays forward and backward of whole mini-batches as a CUDA graph; the update follows in its usual way.

    The same kernels in the same order: the same bits.
    """

    def __init__(self, classifier: Classifier) -> None:
        super().__init__(classifier)
        self._slots: Slots | None = None
        self._graph: Graph | None = None
        self._fixed: tuple[Any, ...] = ()
        self._number = 0

    def begin(self, batch: object) -> None:
        super().begin(batch)
        is_off = (
            self._number > MAX_RECORDINGS or (self._graph is not None and self._graph.is_refused) or self.is_watched()
        )
        self._slots = None if is_off else slots_for(batch, self.classifier, self._slots)
        if self._slots is None:
            return
        fixed = (*self.fixed(), self._slots)
        if self._graph is None or self._fixed != fixed:  # something that was recorded has changed: record again
            self._number += 1
            if self._number > MAX_RECORDINGS:
                log.warning("going on without CUDA graphs: what they depend on has changed %d times", MAX_RECORDINGS)
                self._slots = None
                return
            self._trained = [parameter for parameter in self.parameters if parameter.requires_grad]
            self._graph = Graph(partial(in_slots(self._gradients), self._slots.tensors), self._state)
            self._fixed = fixed

    def take(self, batch: Batch, share: float, *, completes: bool, norms: StepNorms | None = None) -> Taken:
        if self._slots is None or size(batch) != self._slots.batch_size:
            return super().take(batch, share, completes=completes, norms=norms)
        assert self._graph is not None
        for parameter, gradient in zip(self._trained, self._graph(), strict=True):
            parameter.grad = gradient
        self.complete(norms)
        return self._slots.taken()

    def end(self) -> None:
        self._graph = self._slots = None

    def _gradients(self, features: Tensor, targets: Tensor) -> list[Any]:
        """Loss, logits, and the gradient of each trained parameter, None for one that the loss does not depend on."""
        for parameter in self._trained:
            parameter.grad = None  # what a recording that failed has left is no gradient
        with without_trainer(self.classifier):
            taken = self.passes(features, targets, 1)
        gradients = [parameter.grad for parameter in self._trained]
        for parameter in self._trained:
            parameter.grad = None
        return [*taken, *gradients]

    def _state(self) -> tuple[Any, ...]:
        return self.fixed(), drawn()
