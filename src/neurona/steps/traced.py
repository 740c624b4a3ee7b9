"""The fast way's usual step: what was recorded of forward and backward pass, called without autograd."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from neurona.data.batches import Chunk, size
from neurona.errors import ConfigError
from neurona.steps.norms import StepNorms
from neurona.steps.steps import (
    MAX_RECORDINGS,
    Batch,
    Classifier,
    DirectSteps,
    Taken,
    is_compilable,
    loss_of,
    modules_of,
    without_trainer,
)
from neurona.steps.trace import Passes, traced
from neurona.steps.updates import Update

log = logging.getLogger(__name__)

WORTHWHILE_PASSES = 1000
"""Passes that save the time of recording one, a tenth of a second."""


class TracedSteps(DirectSteps):
    """Steps of whole mini-batches by what was recorded of one; those of a size that comes too rarely, and those that
    hooks watch, directly. Both have the same bits.
    """

    def __init__(self, classifier: Classifier) -> None:
        super().__init__(classifier)
        self._functions: dict[tuple[int, float], Passes] = {}
        self._fixed: tuple[Any, ...] = ()
        self._number = 0
        self._has_given_up = False

    def begin(self, batch: object) -> None:
        super().begin(batch)
        self._batch_size = batch.batch_size if isinstance(batch, Chunk) else 0
        is_own = any(not is_compilable(type(module)) for module in modules_of(self.classifier))  # come in mid-fit
        self._is_off = self._has_given_up or is_own or self.is_watched()
        clips = self.optimization.clip_norm is not None or self.optimization.clip_value is not None
        self._is_simple = not (clips or self.is_shared) and self.optimization.accumulate == 1
        if not self._is_off and self._fixed != (fixed := self.fixed()):
            self._fixed = fixed
            self._functions.clear()
            self._number += 1
            if self._number > MAX_RECORDINGS:
                self._give_up(f"what it depends on has changed {MAX_RECORDINGS} times")

    def grad_mode(self) -> AbstractContextManager[Any]:
        # Quicker by a tenth, but its gradients cannot be changed elsewhere, as an optimiser of one's own might do.
        is_all_ours = self._is_simple and self.functional_update() is not None
        return torch.inference_mode() if is_all_ours else torch.no_grad()

    def take(self, batch: Batch, share: float, *, completes: bool, norms: StepNorms | None = None) -> Taken:
        key = size(batch), share
        if key not in self._functions and not self._is_off and self._is_worthwhile(*key):
            with torch.inference_mode(False):
                self._trace(batch, share)
        if self._is_off or key not in self._functions:
            with torch.inference_mode(False), torch.enable_grad():
                return super().take(batch, share, completes=completes, norms=norms)
        features, targets = batch
        loss, logits, *gradients = self._functions[key](features, targets)
        if norms is None and self._is_simple and (update := self._update_of_all(gradients)) is not None:
            update(gradients)
            self.count()
            return loss, logits, targets
        for parameter, gradient in zip(self._trained, gradients, strict=True):
            parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        if completes:
            self.complete(norms)
        return loss, logits, targets

    def _update_of_all(self, gradients: list[Tensor | None]) -> Update | None:
        """The optimiser's step as one function, where that is possible and every parameter has a gradient."""
        is_complete = len(gradients) == len(self.parameters) and not any(gradient is None for gradient in gradients)
        return self.functional_update() if is_complete else None

    def _is_worthwhile(self, rows: int, share: float) -> bool:
        """Whether so many mini-batches of this size are to come."""
        if not rows or not share:
            return False
        trainer = self.classifier.trainer
        to_come = (self.classifier.total_steps() - trainer.global_step) * self.optimization.accumulate
        is_rare = rows != self._batch_size and not self.is_shared  # once in an epoch
        return to_come / (trainer.num_training_batches if is_rare else 1) >= WORTHWHILE_PASSES

    def _trace(self, batch: Batch, share: float) -> None:
        features, targets = batch
        self._trained = [parameter for parameter in self.parameters if parameter.requires_grad]
        try:
            with without_trainer(self.classifier):
                loss = partial(loss_of, self.classifier)
                function = traced(loss, self._trained, [*self.classifier.buffers()], features, targets, share)
        except ConfigError:
            raise
        except Exception as error:  # of many kinds: whatever a class of one's own does
            self._give_up(" ".join(str(error).split()) or type(error).__name__)
            return
        if self.fixed() != self._fixed:
            self._give_up("a module changes its settings in every step")
        else:
            self._functions[len(targets), share] = function

    def _give_up(self, reason: str) -> None:
        log.warning("going on without recording a step: %s", reason)
        self._has_given_up = self._is_off = True
