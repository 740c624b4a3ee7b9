"""What happens to one mini-batch in training: forward, backward and, where it completes a step, the update."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from types import BuiltinFunctionType, FunctionType
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torchmetrics import Metric, MetricCollection

from neurona.data.batches import Part, Picked
from neurona.devices import distributed, lightning_internals
from neurona.errors import ConfigError
from neurona.steps import hooks, updates
from neurona.steps.norms import StepNorms

Classifier = Any  # neurona.classifier.Classifier, which takes its steps through these

Batch = Picked | Part | Sequence[Tensor]
"""A mini-batch; unpacks as (features, targets)."""

Taken = tuple[Tensor, Tensor, Tensor]
"""(loss, logits, targets)"""

MAX_RECORDINGS = 10
"""Times that a fit records or compiles a step: where more are needed, they take longer than they save."""

PLAIN = (bool, int, float, str, type(None))


class _NoTrainer:
    """Stands for the Trainer where a loss is to compute with tensors only: whatever it is asked for is refused."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def __getattr__(self, name: str) -> NoReturn:
        does = "logs" if name == "barebones" else f"reads the Trainer's {name}"  # which self.log asks for first
        problem = f"its loss {does}, once and not in every step: say compilable = False in the class"
        raise ConfigError("classifier", self._kind, problem)


@contextlib.contextmanager
def without_trainer(classifier: Classifier) -> Iterator[None]:
    """What is recorded of a loss here holds for all later steps. Raises ConfigError if it asks for the Trainer."""
    trainer: Any = classifier.trainer
    classifier.trainer = _NoTrainer(type(classifier).__qualname__)
    try:
        yield
    finally:
        classifier.trainer = trainer


def loss_of(classifier: Classifier, features: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """What the classifier's ``loss`` gives. Raises ConfigError unless that is a loss and logits."""
    pair = classifier.loss(features, targets)
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        problem = "its loss must return two tensors: the loss, a scalar, and the logits (batch, num_classes)"
        raise ConfigError("classifier", type(classifier).__qualname__, problem)
    loss, logits = pair
    return loss, logits


class DirectSteps:
    """Takes mini-batches one after the other on the tensors themselves, where no hook listens between chunks' ends."""

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
        """What the mini-batches of a Lightning batch are taken within."""
        return contextlib.nullcontext()

    def begin(self, batch: object) -> None:
        """Called before the mini-batches of a Lightning batch; a callback may have added parameters before it, or have
        put another optimiser in place.
        """
        if self.optimizer is not self.classifier.trainer.optimizers[0]:
            self.optimizer, self._has_stepped = self.classifier.trainer.optimizers[0], False
        self.parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        updates.begin_momentum(self.optimizer)
        self._update = None  # looked for anew in every chunk: who listens may have changed in between

    def take(self, batch: Batch, share: float, *, completes: bool, norms: StepNorms | None = None) -> Taken:
        """Adds a mini-batch's gradient, its share of the step's; makes the step if it ``completes`` it, watched by
        ``norms``.

        Where several processes share the mini-batch, it is this one's part, which may be empty. Returns the loss, a
        scalar, and the logits (batch, num_classes), both detached, and the targets (batch,); the next Lightning batch
        may overwrite them.
        """
        features, targets = batch
        lightning_internals.begin_mini_batch(self.classifier.trainer, len(targets))
        if len(targets) and share:
            loss, logits = self.passes(features, targets, share)
        else:  # other processes have all rows of this mini-batch, or all that count
            loss = torch.zeros((), device=targets.device)
            logits = loss.new_zeros((len(targets), self.classifier.spec.num_classes))
        if completes:
            self.complete(norms)
        return loss, logits, targets

    def complete(self, norms: StepNorms | None) -> None:
        """Makes a step of the gradients."""
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
        """An optimiser step has been made."""
        lightning_internals.count_step(self.classifier.trainer)
        if self.scheduler is not None:
            self.scheduler.step()

    def end(self) -> None:
        """The fit is over: what was kept for it may go."""

    def passes(self, features: Tensor, targets: Tensor, share: float) -> tuple[Tensor, Tensor]:
        """Forward and backward: loss and logits, detached; the gradients are added to the parameters' ``grad``."""
        loss, logits = loss_of(self.classifier, features, targets)
        (loss * share if share != 1 else loss).backward()
        return loss.detach(), logits.detach()

    def clip(self) -> None:
        if self.optimization.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.optimization.clip_norm)
        elif self.optimization.clip_value is not None:
            nn.utils.clip_grad_value_(self.parameters, self.optimization.clip_value)

    def fixed(self) -> tuple[Any, ...]:
        """What a function made of the passes takes for fixed: where tensors lie, which are trained, and settings."""
        tensors = [*self.classifier.parameters(), *self.classifier.buffers()]
        methods = (type(self.classifier).loss, type(self.classifier).forward)
        has_own = any(not method.__module__.startswith("neurona.") for method in methods)
        return (
            [(tensor.data_ptr(), tensor.stride(), tensor.requires_grad) for tensor in tensors],
            [(id(module), type(module), _settings(module)) for module in modules_of(self.classifier)],
            [id(parameter) for parameter in self.parameters],
            _settings(self.classifier) if has_own else self.classifier.label_smoothing,
        )

    def is_watched(self) -> bool:
        """Whether hooks are to see every pass, which such a function would not call, or somebody has put another method
        into an instance.
        """
        modules = (self.classifier, *modules_of(self.classifier))
        is_replaced = any(vars(module).keys() & {"forward", "loss"} for module in modules)
        return is_replaced or hooks.watch_modules(modules) or hooks.watch_gradients(self.parameters)

    def update(self) -> None:
        gradients: list[Any] = [parameter.grad for parameter in self.parameters]
        update = self.functional_update()
        if update is None or any(gradient is None for gradient in gradients):
            with torch.inference_mode(False):
                self.optimizer.step()
            self._has_stepped = True
        else:
            with torch.no_grad():
                update(gradients)
        for parameter in self.parameters:
            parameter.grad = None

    def functional_update(self) -> updates.Update | None:
        """The optimiser's step as one function, if that is possible yet. The first step of a fit is its own: a schedule
        of torch's asks whether there was one.
        """
        if self._update is None and self._has_stepped:
            self._update = updates.functional(self.optimizer, self.parameters)
        return self._update


def modules_of(classifier: Classifier) -> list[nn.Module]:
    """All that a loss may call: the classifier's own, but for metrics."""
    children = [child for name, child in classifier.named_children() if name != "metrics"]
    return [
        module for child in children for module in child.modules() if not isinstance(module, Metric | MetricCollection)
    ]


def is_compilable(kind: type) -> bool:
    """Whether a class, not one that it is derived from, promises that it but computes with tensors."""
    return kind.__module__.partition(".")[0] == "torch" or vars(kind).get("compilable", False)


def _settings(module: nn.Module) -> dict[str, Any]:
    """Such as ``training``, a dropout's ``p``, a function that is called, or where a tensor lies that is no buffer."""

    def is_plain(value: Any) -> bool:
        if isinstance(value, list | tuple):
            return all(map(is_plain, value))
        return isinstance(value, (*PLAIN, FunctionType, BuiltinFunctionType))

    return {
        name: value.data_ptr() if isinstance(value, Tensor) else copy.copy(value)
        for name, value in vars(module).items()
        if name[0] != "_" and (isinstance(value, Tensor) or is_plain(value))
    }
