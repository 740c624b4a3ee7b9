"""CUDA graphs: the kernels of a step are recorded once and then launched together.

Each kernel of a small network takes a GPU a microsecond or two; launching them one by one takes Python much longer.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from neurona.data.batches import Chunk, MiniBatch
from neurona.steps import randomness
from neurona.steps.recorded import Recorded, RecordedSteps, without_trainer
from neurona.steps.steps import Classifier
from neurona.steps.trace import Passes

WARM_UP = 3
"""Calls that run as they are, so that libraries are loaded and have chosen their kernels before one is recorded."""

WAIT_WARNING = "called a synchronizing CUDA operation"
"""What torch says of one, if told to."""


class Graph:
    """A function without arguments whose work is done by a GPU, recorded after its first calls and replayed.

    What it reads and changes stays where it is; what it does must depend on no value, and not wait for the GPU.
    state: of what it could change in Python. give_up: called with the reason where it does so in its first calls, waits
    in the last of them, or cannot be recorded; it is not to be called again then.

    Called, it returns the function's result, whose tensors the next call overwrites.
    """

    def __init__(
        self, function: Callable[[], Any], give_up: Callable[[str], None], state: Callable[[], Any] = lambda: None
    ) -> None:
        self._function, self._give_up, self._state = function, give_up, state
        self._calls = 0
        self._graph: Any = None
        self._result: Any = None

    def __call__(self) -> Any:
        if self._graph is None:
            if self._calls < WARM_UP:
                return self._warm_up()
            try:  # nothing is computed: the step that this call is for is the first replay
                self._graph, self._result = recorded(self._function)
            except RuntimeError as error:
                self._give_up(str(error.__context__ or error).partition("\n")[0])
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
            self._give_up("a module waits for the GPU")
        elif self._state() != before:
            self._give_up("a module draws numbers in Python, or changes its settings, in every step")
        return result


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
    """A stream of the present device; torch's default one belongs to the first device."""
    return torch.cuda.Stream(device)


class Slots:
    """Buffers from which the steps of a chunk read their rows, and to which they write loss and logits.

    length: largest number of mini-batches in a chunk. dtype: of loss and logits.
    """

    def __init__(self, chunk: Chunk, length: int, num_classes: int, dtype: torch.dtype) -> None:
        self.features, self.targets, self.batch_size = chunk.features, chunk.targets, chunk.batch_size
        self._length = length
        device = chunk.features.device
        self._rows = torch.zeros(length, self.batch_size, dtype=torch.int64, device=device)
        self._number = torch.zeros(1, dtype=torch.int64, device=device)
        self._losses = torch.zeros(length, dtype=dtype, device=device)
        self._logits = torch.zeros(length, self.batch_size, num_classes, dtype=dtype, device=device)

    def suits(self, chunk: Chunk) -> bool:
        """Whether a chunk has the same data and batch size, and fits into the buffers."""
        is_same = chunk.features is self.features and chunk.targets is self.targets
        return is_same and chunk.batch_size == self.batch_size and len(chunk) <= self._length

    def begin(self, chunk: Chunk) -> None:
        """Prepares for the whole mini-batches of a chunk."""
        number = len(chunk.rows) // self.batch_size
        rows = chunk.rows[: number * self.batch_size]
        self._rows[:number].copy_(rows.view(number, self.batch_size))
        self._number.zero_()
        self._next = zip(self._losses.unbind(), self._logits.unbind(), strict=True)

    def call(self, passes: Passes) -> list[Tensor | None]:
        """Calls a function with the mini-batch that is next on the device. Returns its gradients; reads no value."""
        rows = self._rows.index_select(0, self._number).flatten()
        loss, logits, *gradients = passes(self.features.index_select(0, rows), self.targets.index_select(0, rows))
        self._losses.index_copy_(0, self._number, loss.to(self._losses.dtype).reshape(1))
        self._logits.index_copy_(0, self._number, logits.to(self._logits.dtype).unsqueeze(0))
        self._number.add_(1)
        return gradients

    def results(self) -> tuple[Tensor, Tensor]:
        """Loss and logits of the mini-batch of the last ``call``, or of its replay."""
        return next(self._next)


def wanted(classifier: Classifier) -> bool:
    """Whether a GPU that records graphs is this process's alone, and each mini-batch makes a step."""
    trainer: Any = classifier.trainer
    is_one_to_one = trainer.world_size == 1 and classifier.optimization.accumulate == 1
    return classifier.device.type == "cuda" and is_one_to_one


class GraphedSteps(RecordedSteps):
    """Replays forward and backward of whole mini-batches as a CUDA graph; the update follows in its usual way.

    The same kernels in the same order, hence the same bits, unless they are compiled.
    """

    _graph: Graph | None = None
    _slots: Slots | None = None

    def begin(self, chunk: Chunk) -> None:
        if not chunk.is_local or self.has_given_up:
            self._slots = None
        elif self._slots is None or not self._slots.suits(chunk):
            dtype = torch.promote_types(next(self.classifier.network.parameters()).dtype, torch.float32)
            length = max(len(chunk), self.classifier.steps_per_batch)
            self._slots = Slots(chunk, length, self.classifier.spec.num_classes, dtype)
        if self._slots is not None:
            self._slots.begin(chunk)
        super().begin(chunk)

    def grad_mode(self) -> AbstractContextManager[Any]:
        return contextlib.nullcontext()

    def fixed(self) -> tuple[Any, ...]:
        return *super().fixed(), self._slots

    def forget(self) -> None:
        self._graph = None

    def end(self) -> None:
        self._graph = self._slots = None

    def recorded(self, batch: MiniBatch, share: float) -> Recorded | None:
        if self._slots is None or batch.size != self._slots.batch_size:
            return None
        if self._graph is None:
            recording = self.recording(batch, share) if self.compiles else None
            passes = recording.passes if recording is not None else self._gradients
            self._graph = Graph(partial(self._slots.call, passes), self.give_up, self._state)
        gradients = self._graph()
        return Recorded(*self._slots.results(), gradients)

    def _gradients(self, features: Tensor, targets: Tensor) -> list[Any]:
        """Loss, logits, and the gradient of each trained parameter, None for one that the loss does not depend on."""
        for parameter in self.trained:
            parameter.grad = None  # what a recording that failed has left is no gradient
        with without_trainer(self.classifier):
            loss_and_logits = self.forward_and_backward(features, targets, 1)
        gradients = [parameter.grad for parameter in self.trained]
        for parameter in self.trained:
            parameter.grad = None
        return [*loss_and_logits, *gradients]

    def _state(self) -> tuple[Any, ...]:
        of_cpu = torch.get_rng_state().numpy().tobytes()  # which a replay does not draw from
        return self.fixed(), randomness.drawn(), of_cpu
