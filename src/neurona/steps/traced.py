"""The fast way's usual step: what was recorded of forward and backward pass, called without autograd."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from typing import Any

import torch

from neurona.data import chunking
from neurona.data.batches import Chunk, MiniBatch
from neurona.devices import cpu, waiting
from neurona.steps import threads
from neurona.steps.recorded import Recorded, RecordedSteps
from neurona.steps.steps import Classifier
from neurona.steps.trace import Recording

WORTHWHILE_PASSES, FLOPS_OF_PASS = 50, 1e7
"""Passes that save the time of recording one, a hundredth of a second, and the arithmetic for which it takes one
more: to record a pass is to make it four times.
"""


class TracedSteps(RecordedSteps):
    """Steps of mini-batches of each size by what was recorded of one; of a size that comes too rarely, directly.

    While the machine is busy, half of the threads make passes whose bits do not depend on it, and updates: of two that
    wait for each other, each also waits for a core.
    """

    def __init__(self, classifier: Classifier, *, compiles: bool = False) -> None:
        super().__init__(classifier, compiles=compiles)
        self._recordings: dict[tuple[int, float], Recording | None] = {}
        self._half_will_do: dict[tuple[int, float, int], bool] = {}
        self._batch_size = 0
        self._is_busy = False

    def forget(self) -> None:
        self._recordings.clear()
        self._half_will_do.clear()

    def begin(self, chunk: Chunk) -> None:
        super().begin(chunk)
        self._batch_size = chunk.batch_size
        self._is_busy = waiting.is_busy()

    def recorded(self, batch: MiniBatch, share: float) -> Recorded | None:
        key = batch.size, share
        if key not in self._recordings and self._is_worthwhile(*key):
            with torch.inference_mode(False):
                self._recordings[key] = self.recording(batch, share)
        recording = self._recordings.get(key)
        if recording is None:
            return None
        with self._threads(self._is_busy and self._is_halved(recording, batch, share)):
            loss, logits, *gradients = recording.passes(*batch)
        return Recorded(loss, logits, gradients)

    def apply(self, gradients: list[Any]) -> bool:
        with self._threads(self._is_busy):  # each number is updated by itself
            return super().apply(gradients)

    def _threads(self, is_halved: bool) -> AbstractContextManager[None]:
        return cpu.half_the_threads() if is_halved else contextlib.nullcontext()

    def _is_halved(self, recording: Recording, batch: MiniBatch, share: float) -> bool:
        """Whether half of the threads give the bits of this recording; found out when it is first asked for."""
        key = batch.size, share, torch.get_num_threads()
        if key not in self._half_will_do:
            with torch.inference_mode(False):
                features, targets = batch
                tensors = self.trained, [*self.classifier.buffers()]
                will_do = not self.compiles and threads.half_will_do(recording, features, targets, *tensors)
                self._half_will_do[key] = will_do
        return self._half_will_do[key]

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
