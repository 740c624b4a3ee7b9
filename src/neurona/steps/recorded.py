"""Steps that call a recorded forward and backward pass, as long as everything it relies on stays the same."""

from __future__ import annotations

import contextlib
import copy
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from types import BuiltinFunctionType, FunctionType
from typing import Any, NamedTuple, NoReturn

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from neurona.data.batches import Chunk, MiniBatch
from neurona.errors import ConfigError
from neurona.models.dropout import drawn_by_torch
from neurona.steps import hooks
from neurona.steps.compiled import compiled
from neurona.steps.norms import StepNorms
from neurona.steps.steps import Classifier, DirectSteps, Outcome, loss_of
from neurona.steps.trace import Recording, traced

log = logging.getLogger(__name__)

MAX_RECORDINGS = 10
"""Times that a fit records a step: where more are needed, they take longer than they save."""

PLAIN = (bool, int, float, str, type(None), FunctionType, BuiltinFunctionType)

BOOKKEEPING = (vars(LightningModule()).keys() - {"training"}) | {"confusion_matrix", "num_correct", "is_fast"}
"""Names that torch, Lightning and this project keep in modules, and that decide nothing of a pass."""


class Recorded(NamedTuple):
    """The result of a recording for a mini-batch. gradients: one for each trained parameter, None if the loss does not
    depend on it.
    """

    loss: Tensor
    logits: Tensor
    gradients: list[Any]


class RecordedSteps(DirectSteps, ABC):
    """Uses recordings of forward and backward pass where possible, and direct steps elsewhere.

    compiles: whether recordings are compiled; False once the compiler has failed.
    """

    def __init__(self, classifier: Classifier, *, compiles: bool) -> None:
        super().__init__(classifier)
        self.compiles = compiles
        self.has_given_up = False
        self.trained: list[Tensor] = []
        self._fixed: tuple[Any, ...] = ()
        self._changes = 0

    @abstractmethod
    def recorded(self, batch: MiniBatch, share: float) -> Recorded | None:
        """Forward and backward pass of a mini-batch; None if there is no recording."""

    @abstractmethod
    def forget(self) -> None:
        """Drops all recordings, because something that they rely on has changed."""

    def begin(self, chunk: Chunk) -> None:
        super().begin(chunk)
        weights, clips = self.classifier.class_weights, (self.optimization.clip_norm, self.optimization.clip_value)
        changes_its_share = self.is_shared and weights is not None  # from one mini-batch to the next
        self.is_off = self.has_given_up or changes_its_share or self._is_watched() or any(obstacles(self.classifier))
        self._is_simple = clips == (None, None) and not self.is_shared and self.optimization.accumulate == 1
        if not self.is_off and self._fixed != (fixed := self.fixed()):
            self._fixed = fixed
            self.trained = [parameter for parameter in self.parameters if parameter.requires_grad]
            self.forget()
            self._changes += 1
            if self._changes > MAX_RECORDINGS:
                self.give_up(f"what it depends on has changed {MAX_RECORDINGS} times")

    def grad_mode(self) -> AbstractContextManager[Any]:
        # Quicker by a tenth, but its gradients cannot be changed elsewhere, as an optimiser of one's own might do.
        is_all_ours = self._is_simple and self.functional_update() is not None
        return torch.inference_mode() if is_all_ours else torch.no_grad()

    def step(self, batch: MiniBatch, share: float, *, completes: bool, norms: StepNorms | None = None) -> Outcome:
        recorded = None if self.is_off else self.recorded(batch, share)
        if recorded is None:
            with torch.inference_mode(False), torch.enable_grad():
                return super().step(batch, share, completes=completes, norms=norms)
        loss, logits, gradients = recorded
        if norms is None and self._is_simple and self.apply(gradients):
            self.count()
            return loss, logits, batch.targets
        for parameter, gradient in zip(self.trained, gradients, strict=True):
            if gradient is not None:
                parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        if completes:
            self.complete(norms)
        return loss, logits, batch.targets

    def recording(self, batch: MiniBatch, share: float) -> Recording | None:
        """Of the forward and backward pass for mini-batches like this one, compiled if it is to be; None where that
        cannot be.
        """
        classifier, (features, targets) = self.classifier, batch
        try:
            with without_trainer(classifier), drawn_by_torch() if self.compiles else contextlib.nullcontext():
                loss = partial(loss_of, classifier)
                recording = traced(loss, self.trained, [*classifier.buffers()], features, targets, share)
        except ConfigError:
            raise
        except Exception as error:  # of many kinds: whatever a class of one's own does
            self.give_up(" ".join(str(error).split()) or type(error).__name__)
            return None
        if self.fixed() != self._fixed:
            self.give_up("a module changes its settings in every step")
            return None
        if self.compiles:
            try:
                return recording._replace(passes=compiled(recording, features, targets))
            except Exception as error:  # no C++ compiler, a full disk, an operation that it does not know
                self.compiles, reason = False, (str(error).splitlines() or [type(error).__name__])[0]
                log.warning("compile=true has no effect, because the compiler gave up: %s", reason)
                return self.recording(batch, share)  # with the masks of a run without it
        return recording

    def give_up(self, reason: str) -> None:
        """Makes all further steps directly."""
        prefix = "compile=true: " if self.compiles else ""
        log.warning("%ssteps are not recorded: %s", prefix, reason)
        self.has_given_up = self.is_off = True

    def fixed(self) -> tuple[Any, ...]:
        """Everything that recordings rely on: addresses of tensors, which of them are trained, and settings."""
        tensors = [*self.classifier.parameters(), *self.classifier.buffers()]
        methods = (type(self.classifier).loss, type(self.classifier).forward)
        has_own = any(not method.__module__.startswith("neurona.") for method in methods)
        return (
            [(tensor.data_ptr(), tensor.stride(), tensor.requires_grad) for tensor in tensors],
            [(id(module), type(module), _settings(module)) for module in modules_of(self.classifier)],
            [id(parameter) for parameter in self.parameters],
            _settings(self.classifier) if has_own else self.classifier.label_smoothing,
        )

    def _is_watched(self) -> bool:
        """Whether hooks are to see every pass, which a recording would not call, or somebody has put another method
        into an instance.
        """
        modules = (self.classifier, *modules_of(self.classifier))
        is_replaced = any(vars(module).keys() & {"forward", "loss"} for module in modules)
        return is_replaced or hooks.watch_modules(modules) or hooks.watch_gradients(self.parameters)


class _NoTrainer:
    """Stands in for the Trainer while a loss is recorded; every access raises an error."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def __getattr__(self, name: str) -> NoReturn:
        does = "logs" if name == "barebones" else f"reads the Trainer's {name}"  # which self.log asks for first
        problem = f"its loss {does}, once and not in every step: say compilable = False in the class"
        raise ConfigError("classifier", self._kind, problem)


@contextlib.contextmanager
def without_trainer(classifier: Classifier) -> Iterator[None]:
    """A context for recording a loss, which holds for all steps. Raises ConfigError if the loss uses the Trainer."""
    trainer: Any = classifier.trainer
    classifier.trainer = _NoTrainer(type(classifier).__qualname__)
    try:
        yield
    finally:
        classifier.trainer = trainer


def modules_of(classifier: Classifier) -> list[nn.Module]:
    """The modules that a loss may call: the classifier's own, without metrics."""
    children = [child for name, child in classifier.named_children() if name != "metrics"]
    return [
        module for child in children for module in child.modules() if not isinstance(module, Metric | MetricCollection)
    ]


def obstacles(classifier: Classifier) -> Iterable[str]:
    """The reasons why the steps of a fit cannot be recorded; empty if they can."""
    if torch.is_anomaly_enabled():
        yield "trainer.detect_anomaly looks at every operation"
    kinds = {type(module) for module in modules_of(classifier)} | {*_owners(classifier)}
    if own := sorted(kind.__qualname__ for kind in kinds if not is_compilable(kind)):
        does = "may do more in Python than compute with tensors; compilable = True in the class says that it does not"
        yield f"{', '.join(own)} {does}"


def _owners(classifier: Classifier) -> Iterable[type]:
    """The classes whose methods a step calls of the classifier itself."""
    for name in ("loss", "forward"):
        if name in vars(classifier):  # put into the instance
            yield type(f"{type(classifier).__qualname__}.{name}", (), {})
        else:
            yield next(kind for kind in type(classifier).__mro__ if name in vars(kind))


def is_compilable(kind: type) -> bool:
    """Whether a class itself, not its parent, promises with ``compilable`` that it only computes with tensors."""
    return kind.__module__.partition(".")[0] == "torch" or vars(kind).get("compilable", False)


def _settings(module: nn.Module) -> dict[str, Any]:
    """Such as ``training``, a dropout's ``p``, a function that is called, or where a tensor lies that is no buffer."""

    def is_plain(value: Any) -> bool:
        children = value.values() if isinstance(value, dict) else value
        return all(map(is_plain, children)) if isinstance(value, list | tuple | dict) else isinstance(value, PLAIN)

    return {
        name: value.data_ptr() if isinstance(value, Tensor) else copy.deepcopy(value)
        for name, value in vars(module).items()
        if name not in BOOKKEEPING and (isinstance(value, Tensor) or is_plain(value))
    }
