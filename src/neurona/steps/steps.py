"""What happens to one mini-batch in training: forward, backward and, where it completes a step, the update."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.optim.adam import adam
from torch.optim.lr_scheduler import ReduceLROnPlateau

from neurona.data.batches import Part, Picked
from neurona.devices import distributed, lightning_internals
from neurona.errors import ConfigError
from neurona.steps import hooks
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


class DirectSteps:
    """Takes mini-batches one after the other on the tensors themselves, where no hook listens between chunks' ends."""

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier
        self.optimization = classifier.optimization
        self.optimizer: torch.optim.Optimizer = classifier.trainer.optimizers[0]
        scheduler: Any = classifier.lr_schedulers()
        self.scheduler = None if isinstance(scheduler, ReduceLROnPlateau) else scheduler
        self.is_shared = classifier.trainer.world_size > 1
        self._adam_state: tuple[list[Tensor], ...] | None = None

    def begin(self, batch: object) -> None:
        """Called before the mini-batches of a Lightning batch; a callback may have added parameters before it."""
        self.parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        _begin_momentum(self.optimizer)
        self._adam_state = None

    def take(self, batch: Batch, share: float, *, completes: bool, norms: StepNorms | None = None) -> Taken:
        """Adds a mini-batch's gradient, its share of the step's; makes the step if it ``completes`` it, watched by
        ``norms``.

        Where several processes share the mini-batch, it is this one's part, which may be empty. Returns the loss, a
        scalar, and the logits (batch, num_classes), both detached, and the targets (batch,); the next Lightning batch
        may overwrite them.
        """
        features, targets = batch
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
        if self.scheduler is not None:
            self.scheduler.step()

    def end(self) -> None:
        """The fit is over: what was kept for it may go."""

    def passes(self, features: Tensor, targets: Tensor, share: float) -> tuple[Tensor, Tensor]:
        """Forward and backward: loss and logits, detached; the gradients are added to the parameters' ``grad``."""
        loss, logits = self.classifier.loss(features, targets)
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
        return (
            [(tensor.data_ptr(), tensor.requires_grad) for tensor in tensors],
            [(id(module), _settings(module)) for module in self._modules()],
            [id(parameter) for parameter in self.parameters],
            self.classifier.label_smoothing,
        )

    def is_watched(self) -> bool:
        """Whether hooks are to see every pass, which such a function would not call."""
        return hooks.watch_modules((self.classifier, *self._modules())) or hooks.watch_gradients(self.parameters)

    def _modules(self) -> list[nn.Module]:
        return [*self.classifier.preprocessing.modules(), *self.classifier.network.modules()]

    def update(self) -> None:
        gradients = [parameter.grad for parameter in self.parameters]
        if self._adam_state is None:  # looked for anew in every chunk: who listens may have changed in between
            self._adam_state = _adam_state(self.optimizer, self.parameters)
        if not self._adam_state or any(gradient is None for gradient in gradients):
            self.optimizer.step()
        else:
            self._adam(gradients, *self._adam_state)
        for parameter in self.parameters:
            parameter.grad = None
        lightning_internals.count_step(self.classifier.trainer)

    @torch.no_grad()
    def _adam(self, gradients: list[Any], means: list[Tensor], squares: list[Tensor], steps: list[Tensor]) -> None:
        """What ``Optimizer.step`` comes to, without its wrapping, which takes two thirds as long as the update."""
        group = self.optimizer.param_groups[0]
        adam(
            self.parameters,
            gradients,
            means,
            squares,
            [],
            steps,
            fused=True,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
            decoupled_weight_decay=group["decoupled_weight_decay"],
        )


def _begin_momentum(optimizer: torch.optim.Optimizer) -> None:
    """That of a parameter trained later than others, at 0 as ever: torch 2.13's fused SGD fails without."""
    if type(optimizer) is not torch.optim.SGD or not optimizer.state:
        return
    for group in optimizer.param_groups:
        if group["fused"] and group["momentum"] and not group["dampening"]:
            for parameter in group["params"]:
                if parameter.requires_grad and parameter not in optimizer.state:
                    optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def _settings(module: nn.Module) -> dict[str, Any]:
    """Such as ``training``, a dropout's ``p``, or where a tensor lies that is no buffer."""

    def is_plain(value: Any) -> bool:
        return isinstance(value, PLAIN) or (isinstance(value, tuple) and all(map(is_plain, value)))

    return {
        name: value.data_ptr() if isinstance(value, Tensor) else value
        for name, value in vars(module).items()
        if name[0] != "_" and (isinstance(value, Tensor) or is_plain(value))
    }


def _adam_state(optimizer: torch.optim.Optimizer, parameters: list[Tensor]) -> tuple[list[Tensor], ...]:
    """Means, squares and step counts, if torch's fused Adam or AdamW has made them and nobody watches its steps."""
    group = optimizer.param_groups[0]
    if type(optimizer) not in (torch.optim.Adam, torch.optim.AdamW) or len(optimizer.param_groups) > 1:
        return ()
    if not group["fused"] or group["amsgrad"] or group["maximize"] or not all(p in optimizer.state for p in parameters):
        return ()
    if hooks.watch_updates(optimizer):
        return ()
    states = [optimizer.state[parameter] for parameter in parameters]
    return tuple([state[name] for state in states] for name in ("exp_avg", "exp_avg_sq", "step"))
