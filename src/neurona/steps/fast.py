"""The fast way: a Lightning batch is a chunk of mini-batches, stepped one after the other."""

from __future__ import annotations

from typing import NamedTuple

import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor

from neurona.data.batches import Chunk
from neurona.devices import lightning_internals
from neurona.steps.diagnosis import require_finite
from neurona.steps.steps import Classifier, DirectSteps


class StepRecord(NamedTuple):
    """One mini-batch of a chunk. loss: this process's share of it, a scalar. logits: (batch, num_classes).
    targets: (batch,). samples: rows of all processes. step: the number of the optimiser step that it belongs to.
    """

    loss: Tensor
    logits: Tensor
    targets: Tensor
    samples: int
    step: int


class FastWay:
    """steps: how each mini-batch becomes a step, or, where gradients are accumulated, a part of one."""

    def __init__(self, classifier: Classifier, steps: DirectSteps) -> None:
        self.classifier, self.steps = classifier, steps

    def step_through(self, chunk: Chunk, batch_idx: int) -> None:
        """Takes the steps of a chunk whose first mini-batch has this index in its epoch."""
        classifier, trainer = self.classifier, self.classifier.trainer
        accumulate, last = classifier.optimization.accumulate, trainer.num_training_batches - 1
        steps, norms, records = self.steps, classifier.norms, list[StepRecord]()
        mini_batches = chunk.mini_batches()
        averages = [callback for callback in trainer.callbacks if isinstance(callback, WeightAveraging)]
        steps.begin(chunk)
        first_step = trainer.global_step + 1 - batch_idx // accumulate
        with steps.grad_mode():
            for index, mini_batch in enumerate(mini_batches, start=batch_idx):
                share, step = mini_batch.share(classifier.class_weights), first_step + index // accumulate
                loss, logits, targets = steps.step(
                    mini_batch,
                    share / accumulate,
                    completes=index % accumulate == accumulate - 1 or index == last,
                    norms=norms if norms is not None and classifier.is_logged(step) else None,
                )
                for average in averages:  # which updates itself only where the optimiser has made a step
                    average.on_train_batch_end(trainer, classifier, None, mini_batch, index)
                loss = loss if share == 1 else loss * share
                records.append(StepRecord(loss, logits, targets, mini_batch.all_sizes, step))
        lightning_internals.advance(trainer, len(records))
        self._record(records)

    def end(self) -> None:
        """Called at the end of a fit."""
        self.steps.end()

    def _record(self, records: list[StepRecord]) -> None:
        """Adds a chunk's figures to the sums. Only here the fit waits for the device. Raises NonFiniteLoss at a NaN."""
        classifier, trainer = self.classifier, self.classifier.trainer
        logits, targets = torch.cat([r.logits for r in records]), torch.cat([r.targets for r in records])
        correct = (logits.argmax(1) == targets).sum()
        figures = torch.stack([*(record.loss.float() for record in records), correct.float()])
        *losses, num_correct = trainer.strategy.reduce(figures, reduce_op="sum").tolist()
        for record, loss in zip(records, losses, strict=True):
            require_finite(loss, record.step, classifier)
        classifier.figures.add(losses, [record.samples for record in records], num_correct)
        if trainer.global_step == records[-1].step and classifier.is_logged(records[-1].step):
            classifier.log_step()
