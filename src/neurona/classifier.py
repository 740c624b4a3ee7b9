"""The LightningModule: preprocessing, network, loss, metrics and the optimiser.

features (batch, num_features) raw, float32 or uint8 · targets (batch,) int64 · logits (batch, num_classes)
"""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Sequence
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import BaseFinetuning
from lightning.pytorch.core.hooks import DataHooks
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import ReduceLROnPlateau

from neurona.config.nodes import path_of
from neurona.data import chunking
from neurona.data.batches import Batch, Chunk
from neurona.data.spec import DataSpec
from neurona.devices.lightning_internals import logged_step
from neurona.errors import ConfigError, check_range
from neurona.evaluation import Evaluation
from neurona.metrics import EvaluationMetrics, StepFigures
from neurona.models.tabm import has_members, mean_of, members_of
from neurona.optimizer import Optimization
from neurona.schedule import built
from neurona.steps import training
from neurona.steps.diagnosis import NonFiniteLoss as NonFiniteLoss
from neurona.steps.fast import FastWay
from neurona.steps.norms import StepNorms
from neurona.steps.steps import loss_of

log = logging.getLogger(__name__)

NEVER = sys.maxsize
"""A frequency, in epochs."""


class Classifier(LightningModule):
    """A network that maps preprocessed features to logits, trained with cross-entropy (natural logarithm, mean over
    samples).

    preprocessing: raw features → what the network sees, fitted on the training part. network: → logits.
    optimization: how a step is made; None for a classifier that is only evaluated.
    model_config, embedding_config: what the network was made from, stored in checkpoints so that it can be rebuilt.
    compile_steps: whether the passes of the fast way are compiled, where they can be.
    label_smoothing: share of the target spread evenly over all classes (Szegedy et al. 2016, arXiv:1512.00567,
    section 7). class_weights: None, "balanced" (num_samples / (num_classes * samples of the class), scikit-learn's
    rule, counted on the training part) or one weight per class; as in torch, the mean is weighted too. calibrate: in
    evaluation the logits are divided by a temperature, which each validation in a fit sets to what makes its loss the
    least (Guo et al. 2017, arXiv:1706.04599, section 4.2); it is stored with the weights, 1 without validation. A
    subclass with a ``forward`` of its own has none.
    """

    compilable = True
    class_weights: Tensor | None
    calibration: Tensor | None
    metrics_class = EvaluationMetrics
    """The class of the metrics that validation and test report; a subclass may name another."""

    def __init__(
        self,
        preprocessing: nn.Module,
        network: nn.Module,
        spec: DataSpec,
        optimization: Optimization | None = None,
        model_config: dict[str, Any] | None = None,
        embedding_config: dict[str, Any] | None = None,
        compile_steps: bool = False,
        *,
        label_smoothing: float = 0.0,
        class_weights: Literal["balanced"] | Sequence[float] | None = None,
        calibrate: bool = False,
    ) -> None:
        super().__init__()
        check_range("classifier.label_smoothing", label_smoothing, least=0, below=1)
        self.preprocessing = preprocessing
        self.network = network
        self.spec = spec
        self.label_smoothing = label_smoothing
        self.balanced = class_weights == "balanced"
        weights: Any = torch.ones(spec.num_classes) if self.balanced else class_weights
        self.register_buffer(
            "class_weights", None if weights is None else _weights_of_classes(weights, spec), persistent=False
        )
        calibrates = calibrate and type(self).forward is Classifier.forward  # which divides by the temperature
        self.register_buffer("calibration", torch.ones(()) if calibrates else None)
        self.uncalibrated: list[tuple[Tensor, Tensor]] = []
        """Of a validation that is to set the temperature: the network's logits and the targets of its mini-batches."""
        self.metrics = self.metrics_class(spec.num_classes)
        self.model_config, self.embedding_config = model_config, embedding_config
        self.classifier_config: dict[str, Any] | None = None
        """The configuration from which this classifier was made; None if it was made without one."""
        self.compile_steps = compile_steps
        self._optimization = optimization
        self.figures = StepFigures()
        """Of the training steps."""
        self.num_correct: Tensor | None = None
        """The number of correctly classified samples in the current mini-batch of ``training_step``, a scalar."""
        self.confusion_matrix: list[list[int]] = []
        """The confusion matrix of the last validation or test: a row per target, a column per prediction."""
        self.norms: StepNorms | None = None
        """Computes the norms at the steps whose loss is logged; None if they are switched off."""
        self.is_weighted = False
        """Whether the training rows of this fit have weights."""
        self.is_fast = False
        """Whether this fit uses chunks of mini-batches instead of Lightning's automatic optimisation."""
        self.fast_way: FastWay | None = None

    # What researchers change: the loss of one mini-batch.

    def forward(self, features: Tensor) -> Tensor:
        """Raw features (batch, num_features) → logits (batch, num_classes)."""
        logits = self.network(self.preprocessing(features))
        return logits if self.training or self.calibration is None else logits / self.calibration

    def loss(self, features: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The loss to minimise on one mini-batch, a scalar, and the logits (batch, num_classes)."""
        if self.is_weighted or (has_members(self.network) and type(self).forward is Classifier.forward):
            return self._loss_of_weights_or_members(features, targets)
        logits = self(features)
        return cross_entropy(logits, targets, self.class_weights, label_smoothing=self.label_smoothing), logits

    def _loss_of_weights_or_members(self, features: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Where rows have weights, these are the last column of the features, and each row's loss is multiplied with
        its own. Of a network with members the loss is the mean of theirs, so that each learns by itself.
        """
        weights = None
        if self.is_weighted:
            features, weights = features[:, :-1], features[:, -1]
        if has_members(self.network) and type(self).forward is Classifier.forward:
            each = members_of(self.network, self.preprocessing(features))
            logits = mean_of(each)
        else:
            logits = self(features)
            each = logits.unsqueeze(1)
        of_each, of_classes = targets.repeat_interleave(each.shape[1]), self.class_weights
        reduction = "mean" if weights is None else "none"
        loss = cross_entropy(
            each.flatten(0, 1), of_each, of_classes, reduction=reduction, label_smoothing=self.label_smoothing
        )
        if weights is not None:
            total = len(of_each) if of_classes is None else of_classes[of_each].sum()
            loss = (loss * weights.repeat_interleave(each.shape[1])).sum() / total
        return loss, logits

    # Training.

    def training_step(self, batch: Batch | Chunk | Sequence[Tensor], batch_idx: int) -> Tensor | None:
        """Returns the ``loss`` of a mini-batch; in the fast way, makes the steps of a whole chunk."""
        if isinstance(batch, Chunk):
            assert self.fast_way is not None
            self.fast_way.step_through(batch, batch_idx)
            return None
        features, targets = batch
        loss, logits = loss_of(self, features, targets)
        self.num_correct = (logits.detach().argmax(1) == targets).sum()
        return loss

    def configure_callbacks(self) -> list[Any]:
        """The project's own callbacks, which come before all others."""
        attach(self.trainer)
        return []

    def who_asks(self, trainer: Trainer, datamodule: Any) -> list[str]:
        """The code that asks for Lightning's own way in this fit; empty if the fast way will do."""
        return training.who_asks(self, trainer, datamodule, Classifier)

    def choose_way(self, asked_by: Sequence[str]) -> None:
        """Takes the fast way for this fit, or Lightning's automatic optimisation if somebody asks for it, with the
        clipping and the accumulation of ``optimizer``.
        """
        trainer: Any = self.trainer
        is_manual = not (self.automatic_optimization or self.is_fast)  # the user's own
        self.is_fast = not asked_by and not is_manual
        if is_manual:
            return
        self.automatic_optimization = not self.is_fast
        if not self.is_fast:
            trainer.accumulate_grad_batches = self.optimization.accumulate
            clips_norm = self.optimization.clip_norm is not None
            trainer.gradient_clip_val = self.optimization.clip_norm if clips_norm else self.optimization.clip_value
            trainer.gradient_clip_algorithm = "norm" if clips_norm else "value"

    def balance(self, counts: Tensor) -> None:
        """Gives all classes the same total weight. counts: training rows of each class, (num_classes,)."""
        assert self.class_weights is not None
        self.class_weights.copy_(counts.sum() / (len(counts) * counts))

    @property
    def optimization(self) -> Optimization:
        assert self._optimization is not None
        return self._optimization

    @property
    def steps_per_batch(self) -> int:
        """The largest number of optimiser steps in one Lightning batch; it depends only on the configuration."""
        trainer: Any = self.trainer
        batch_size = getattr(trainer.datamodule, "batch_size", 1)
        return chunking.most_steps(self.num_parameters, batch_size * self.optimization.accumulate, self.device.type)

    @property
    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())

    def configure_optimizers(self) -> Any:
        """The optimiser, and the scheduler over the number of steps that the data and the Trainer's limits make."""
        optimizer = self.optimization.optimizer(self.parameters_by_name(), self._left_to_callbacks())
        schedule = self.optimization.schedule
        if schedule.build is None:
            return optimizer
        total_steps = self.total_steps()
        if schedule.needs_length and math.isinf(total_steps):
            problem = "needs a known number of steps: set trainer.max_epochs or trainer.max_steps"
            raise ConfigError("trainer.max_epochs", self.trainer.max_epochs, problem)
        scheduler = built(schedule, optimizer, int(total_steps) if schedule.needs_length else 0)
        if not self.automatic_optimization:
            return [optimizer], [scheduler]
        config: dict[str, Any] = {"scheduler": scheduler, "interval": "step"}
        if isinstance(scheduler, ReduceLROnPlateau):  # ``step_plateau`` does it, before the checkpoint of the epoch
            config = {"scheduler": scheduler, "interval": "epoch", "frequency": NEVER, "monitor": "train/loss"}
        return {"optimizer": optimizer, "lr_scheduler": config}

    def parameters_by_name(self) -> list[tuple[str, nn.Parameter]]:
        """All parameters of this module; those of the network have their names in it."""
        return [(name.removeprefix("network."), parameter) for name, parameter in self.named_parameters()]

    def _left_to_callbacks(self) -> set[nn.Parameter]:
        """What a BaseFinetuning callback has frozen and will add with a rate of its own; what is frozen otherwise is in
        the optimiser, so that it trains once it no longer is.
        """
        callbacks: list[Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
        if not any(isinstance(callback, BaseFinetuning) for callback in callbacks):
            return set()
        return {parameter for parameter in self.parameters() if not parameter.requires_grad}

    def total_steps(self) -> float:
        """Optimiser steps of the whole fit; ``math.inf`` without a limit."""
        batches, epochs = self.trainer.estimated_stepping_batches, self.trainer.max_epochs
        by_steps = math.inf if self.trainer.max_steps == -1 else self.trainer.max_steps
        if math.isinf(self.trainer.num_training_batches) or math.isinf(batches) or epochs is None or epochs == -1:
            return by_steps
        steps_per_epoch = math.ceil(self.trainer.num_training_batches / self.optimization.accumulate)
        return min(steps_per_epoch * epochs, by_steps)

    def epoch_means(self) -> tuple[float, float]:
        """Mean training loss and accuracy of this epoch so far."""
        return self.figures.epoch_means()

    @property
    def samples_taken(self) -> int:
        """Training samples that all processes have used since this process started."""
        return self.figures.samples

    def is_logged(self, step: int) -> bool:
        """Whether this optimiser step, counted from 1, is logged."""
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        return bool(every) and step % every == 0

    def log_step(self) -> None:
        """Logs the step that was just made."""
        norms = self.norms.figures() if self.norms is not None else {}
        self.log_to_loggers({"train/step_loss": self.figures.logged_loss(), **self.rates(), **norms})

    def rates(self) -> dict[str, float]:
        """The learning rate that the last step was made with, as train/lr; where groups of parameters have different
        ones, that of each, as train/lr/pg1 or, of a group with a name, train/lr/<name>, as Lightning's
        LearningRateMonitor calls them.
        """
        groups = self.trainer.optimizers[0].param_groups
        rates = [float(rate) for rate in self.figures.rates or (group["lr"] for group in groups)]
        if len(set(rates)) == 1:
            return {"train/lr": rates[0]}
        names = [group.get("name", f"pg{number}") for number, group in enumerate(groups, start=1)]
        return {f"train/lr/{name}": rate for name, rate in zip(names, rates, strict=False)}

    def step_plateau(self) -> None:
        """Has a schedule of this classifier's own that follows a figure look at it, at the end of each epoch that may
        have a validation: as Lightning does, whose checkpoint of the epoch would not remember it.
        """
        trainer: Any = self.trainer
        figures, frequency = trainer.callback_metrics, trainer.check_val_every_n_epoch or 1
        for config in trainer.lr_scheduler_configs:
            is_ours = self.is_fast or config.frequency == NEVER
            if (
                is_ours
                and isinstance(config.scheduler, ReduceLROnPlateau)
                and (self.current_epoch + 1) % frequency == 0
            ):
                if trainer.enable_validation and "val/loss" not in figures and self.current_epoch < frequency:
                    log.warning("the schedule plateau follows train/loss, as validation reports no val/loss")
                self.lr_scheduler_step(config.scheduler, figures.get("val/loss", figures.get("train/loss")))

    # Evaluation.

    def validation_step(self, batch: Sequence[Tensor], batch_idx: int) -> None:
        features, targets = batch
        if self.calibration is not None and self.trainer.state.fn == "fit":
            self.uncalibrated.append((self._evaluated(features, targets) * self.calibration, targets))
        else:
            self.metrics.update(self._evaluated(features, targets), targets)

    def test_step(self, batch: Sequence[Tensor], batch_idx: int) -> None:
        features, targets = batch
        self.metrics.update(self._evaluated(features, targets), targets)

    def _evaluated(self, features: Tensor, targets: Tensor) -> Tensor:
        # A process without rows of this mini-batch asks nothing of a network, which may not take none.
        return self(features) if len(targets) else features.new_zeros((0, self.spec.num_classes), dtype=torch.float32)

    def predict_step(self, batch: Sequence[Tensor], batch_idx: int) -> tuple[Tensor, Tensor]:
        """Probabilities (batch, num_classes) float32 and targets (batch,)."""
        features, targets = batch
        return torch.softmax(self(features).float(), dim=1), targets

    # Reporting: the step axis is optimiser steps, counted from 0, everywhere.

    def report(self, figures: dict[str, float]) -> None:
        """Reports the figures of an epoch or an evaluation to callbacks and loggers."""
        if self.trainer.state.fn == "fit":
            # What self.log_dict(figures, logger=False) comes to, in a fiftieth of the time.
            self.trainer.callback_metrics.update({name: torch.tensor(value) for name, value in figures.items()})
        else:
            self.log_dict(figures, logger=False, batch_size=1)
        self.log_to_loggers(figures)

    def log_to_loggers(self, figures: dict[str, Any]) -> None:
        """Logs figures of the last optimiser step, counted from 0; does nothing in the sanity check."""
        if self.trainer.sanity_checking:
            return
        for logger in self.loggers:
            logger.log_metrics({name: float(value) for name, value in figures.items()}, step=logged_step(self.trainer))


def changes_batches(*owners: Any) -> str:
    """The hooks of a classifier or a data module that may make other batches of those of a loader, in words; none are
    called for features given to ``forward`` alone.
    """
    hooks = ("on_before_batch_transfer", "on_after_batch_transfer")
    return ", ".join(
        f"{path_of(type(one))}.{hook}" for one in owners for hook in hooks if is_overridden(hook, one, DataHooks)
    )


def _weights_of_classes(weights: Any, spec: DataSpec) -> Tensor:
    if not isinstance(weights, str) and len(weights) == spec.num_classes:
        tensor = torch.as_tensor(weights, dtype=torch.float32)
        if (tensor >= 0).all() and 0 < tensor.sum() < math.inf:
            return tensor
    problem = f"must be null, balanced or {spec.num_classes} numbers of 0 or more, not all 0"
    raise ConfigError("classifier.class_weights", weights, problem)


def attach(trainer: Trainer) -> None:
    """Puts the project's own callbacks before all others, which may want the figures of an epoch as it ends."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    if not any(isinstance(callback, training.Training) for callback in callbacks):
        callbacks[:0] = [training.Training(Classifier), Evaluation()]
