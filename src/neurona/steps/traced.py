"""The fast way's usual step: what was recorded of forward and backward pass, called without autograd."""

from __future__ import annotations

import contextlib

import torch

from neurona.data import chunking
from neurona.data.batches import Chunk, MiniBatch
from neurona.devices import cpu, waiting
from neurona.steps.norms import StepNorms
from neurona.steps.recorded import Recorded, RecordedSteps
from neurona.steps.steps import Classifier, Outcome
from neurona.steps.trace import Recording

WORTHWHILE_PASSES, FLOPS_OF_PASS = 50, 1e7
"""Passes that save the time of recording one, a hundredth of a second, and the arithmetic for which it takes one
more: to record a pass is to make it five times.
"""


class TracedSteps(RecordedSteps):
    """Steps of mini-batches of each size by what was recorded of one; of a size that comes too rarely, directly.

    While the machine is busy, half of the threads make a step whose bits do not depend on it: fewer threads, which
    would have to wait for one another.
    """

    def __init__(self, classifier: Classifier, *, compiles: bool = False) -> None:
        super().__init__(classifier, compiles=compiles)
        self._recordings: dict[tuple[int, float], Recording | None] = {}
        self._batch_size = 0
        self._may_halve = False

    def forget(self) -> None:
        self._recordings.clear()

    def begin(self, chunk: Chunk) -> None:
        super().begin(chunk)
        self._batch_size = chunk.batch_size
        # The updates' kernels work on each number by itself, other ways to make a step sum them up.
        self._may_halve = waiting.is_busy() and self._is_simple and self.functional_update() is not None

    def step(self, batch: MiniBatch, share: float, *, completes: bool, norms: StepNorms | None = None) -> Outcome:
        recording = self._recordings.get((batch.size, share)) if self._may_halve and norms is None else None
        is_halved = recording is not None and not recording.needs_threads
        with cpu.half_the_threads() if is_halved else contextlib.nullcontext():
            return super().step(batch, share, completes=completes, norms=norms)

    def recorded(self, batch: MiniBatch, share: float) -> Recorded | None:
        key = batch.size, share
        if key not in self._recordings and self._is_worthwhile(*key):
            with torch.inference_mode(False):
                self._recordings[key] = self.recording(batch, share)
        recording = self._recordings.get(key)
        if recording is None:
            return None
        loss, logits, *gradients = recording.passes(*batch)
        return Recorded(loss, logits, gradients)

    def _is_worthwhile(self, rows: int, share: float) -> bool:
        """Whether so many mini-batches of this size are to come, or those of the usual size are to be compiled."""
        if not rows or not share:
            return False
        trainer, flops = self.classifier.trainer, chunking.flops(self.classifier.num_parameters, rows)
        to_come = (self.classifier.total_steps() - trainer.global_step) * self.optimization.accumulate
        worthwhile = WORTHWHILE_PASSES + flops / FLOPS_OF_PASS
        is_rare = rows != self._batch_size and not self.is_shared  # once in an epoch
        if is_rare:
            return not self.compiles and to_come / trainer.num_training_batches >= worthwhile
        return self.compiles or to_come >= worthwhile
