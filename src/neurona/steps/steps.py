"""What happens to one mini-batch in training: forward, backward and, where it completes a step, the update."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from neurona.data.batches import Chunk, MiniBatch
from neurona.devices import distributed, lightning_internals
from neurona.errors import ConfigError
from neurona.steps import updates
from neurona.steps.norms import StepNorms

Classifier = Any  # neurona.classifier.Classifier, which takes its steps through these

Outcome = tuple[Tensor, Tensor, Tensor]
"""Of a mini-batch: its loss, a scalar, its logits (batch, num_classes), both detached, and its targets (batch,)."""


def loss_of(classifier: Classifier, features: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The loss and the logits of the classifier's ``loss``. Raises ConfigError if it returns anything else."""
    match classifier.loss(features, targets):
        case [Tensor(ndim=0) as loss, Tensor(ndim=2) as logits]:
            return loss, logits
    problem = "its loss must return two tensors: the loss, a scalar, and the logits (batch, num_classes)"
    raise ConfigError("classifier", type(classifier).__qualname__, problem)


class DirectSteps:
    """Makes the steps of a chunk one after the other, without Lightning's hooks, which only run between chunks."""

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier
        self.optimization = classifier.optimization
        self.optimizer: torch.optim.Optimizer = classifier.trainer.optimizers[0]
        scheduler: Any = classifier.lr_schedulers()
        self.scheduler = None if isinstance(scheduler, ReduceLROnPlateau) else scheduler
        self.is_shared = classifier.trainer.world_size > 1
        self._update: updates.Update | None = None
        self._has_stepped = False

    def grad_mode(self) -> AbstractContextManager[Any]:
        """The context in which the steps of a chunk run."""
        return contextlib.nullcontext()

    def begin(self, chunk: Chunk) -> None:
        """Called before each chunk, as a callback may have added parameters or replaced the optimiser."""
        if self.optimizer is not self.classifier.trainer.optimizers[0]:
            self.optimizer, self._has_stepped = self.classifier.trainer.optimizers[0], False
        self._note_rates()  # which stay as they are until the end of the chunk, unless a scheduler moves them
        self.parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        updates.begin_momentum(self.optimizer)
        self._update = None  # looked for anew in every chunk: who listens may have changed in between

    def step(self, batch: MiniBatch, share: float, *, completes: bool, norms: StepNorms | None = None) -> Outcome:
        """Adds a mini-batch's gradient, its share of the step's; makes the step if it ``completes`` it, watched by
        ``norms``. The next chunk may overwrite what is returned.
        """
        features, targets = batch
        lightning_internals.begin_mini_batch(self.classifier.trainer, batch.size)
        if batch.size and share:
            loss, logits = self.forward_and_backward(features, targets, share)
        else:  # other processes have all rows of this mini-batch, or all that count
            loss = torch.zeros((), device=targets.device)
            logits = loss.new_zeros((batch.size, self.classifier.spec.num_classes))
        if completes:
            self.complete(norms)
        return loss, logits, targets

    def complete(self, norms: StepNorms | None) -> None:
        """Clips the gradients and updates the parameters."""
        if self.is_shared:
            distributed.sum_gradients(self.parameters)
        if norms is not None:
            norms.before()
        self.clip()
        self.update()
        if norms is not None:
            norms.after()
        self.count()

    def count(self) -> None:
        """Counts an optimiser step and moves the schedule on."""
        lightning_internals.count_step(self.classifier.trainer)
        if self.scheduler is not None:
            self._note_rates()
            self.scheduler.step()

    def _note_rates(self) -> None:
        self.classifier.figures.rates = [group["lr"] for group in self.optimizer.param_groups]

    def end(self) -> None:
        """Called at the end of a fit, to free memory."""

    def forward_and_backward(self, features: Tensor, targets: Tensor, share: float) -> tuple[Tensor, Tensor]:
        """Loss and logits, detached; the gradients are added to the parameters' ``grad``."""
        loss, logits = loss_of(self.classifier, features, targets)
        (loss * share if share != 1 else loss).backward()
        return loss.detach(), logits.detach()

    def clip(self) -> None:
        if self.optimization.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.optimization.clip_norm)
        elif self.optimization.clip_value is not None:
            nn.utils.clip_grad_value_(self.parameters, self.optimization.clip_value)

    def update(self) -> None:
        with torch.no_grad():
            is_made = self.apply([parameter.grad for parameter in self.parameters])
        if not is_made:
            with torch.inference_mode(False):
                self.optimizer.step()
            self._has_stepped = True
        for parameter in self.parameters:
            parameter.grad = None

    def apply(self, gradients: list[Any]) -> bool:
        """Makes the optimiser's step with ``functional_update``, if there is one and every parameter has a gradient.
        Returns whether it was made. To be called without autograd.
        """
        update = self.functional_update()
        is_complete = len(gradients) == len(self.parameters) and not any(gradient is None for gradient in gradients)
        if update is None or not is_complete:
            return False
        update(gradients)
        return True

    def functional_update(self) -> updates.Update | None:
        """The optimiser's step as one function, or None. The first step of a fit is always the optimiser's own, because
        torch's schedules check for it.
        """
        if self._update is None and self._has_stepped:
            self._update = updates.functional(self.optimizer, self.parameters)
        return self._update
