"""The fast way's usual step: what was recorded of forward and backward pass, called without autograd."""

from __future__ import annotations

import torch

from neurona.data import chunking
from neurona.data.batches import Chunk, MiniBatch
from neurona.steps.recorded import Recorded, RecordedSteps
from neurona.steps.steps import Classifier
from neurona.steps.trace import Passes

WORTHWHILE_PASSES, FLOPS_OF_PASS = 50, 1e7
"""Passes that save the time of recording one, a hundredth of a second, and the arithmetic for which it takes one
more: to record a pass is to make it four times.
"""


class TracedSteps(RecordedSteps):
    """Steps of mini-batches of each size by what was recorded of one; of a size that comes too rarely, directly."""

    def __init__(self, classifier: Classifier, *, compiles: bool = False) -> None:
        super().__init__(classifier, compiles=compiles)
        self._functions: dict[tuple[int, float], Passes | None] = {}
        self._batch_size = 0

    def forget(self) -> None:
        self._functions.clear()

    def begin(self, chunk: Chunk) -> None:
        super().begin(chunk)
        self._batch_size = chunk.batch_size

    def recorded(self, batch: MiniBatch, share: float) -> Recorded | None:
        key = batch.size, share
        if key not in self._functions and self._is_worthwhile(*key):
            with torch.inference_mode(False):
                self._functions[key] = self.passes(batch, share)
        function = self._functions.get(key)
        if function is None:
            return None
        loss, logits, *gradients = function(*batch)
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
