"""The LightningModule: preprocessing, network, loss, metrics and the optimiser step.

features (batch, num_features) raw, float32 or uint8 · targets (batch,) int64 · logits (batch, num_classes)
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import ReduceLROnPlateau

from neurona.data import chunking
from neurona.data.batches import Batch, Chunk, Part
from neurona.data.spec import DataSpec
from neurona.devices import distributed, lightning_internals
from neurona.errors import ConfigError, RunError, check_range
from neurona.metrics import EvaluationMetrics
from neurona.optimizer import Optimization
from neurona.steps import choice, randomness
from neurona.steps.norms import StepNorms
from neurona.steps.steps import Steps

Tensors = tuple[Tensor, ...]
Counts = tuple[int, ...]

SUMS = ("loss", "correct", "samples")
REMEDIES = "a lower optimizer.lr, optimizer.clip_norm=1 or data on another scale are the usual remedies"


class NonFiniteLoss(RunError):
    """The training loss became NaN or infinite."""


class Classifier(LightningModule):
    """A network that maps preprocessed features to logits, trained with cross-entropy (natural logarithm, mean over
    samples).

    preprocessing: raw features → what the network sees, fitted on the training part. network: → logits.
    optimization: how a step is made; None for a classifier that is only evaluated.
    model_config, embedding_config: what the network was made from, stored in checkpoints so that it can be rebuilt.
    compile_steps: see ``neurona.steps.compiled``.
    label_smoothing: share of the target spread evenly over all classes (Szegedy et al. 2016, arXiv:1512.00567,
    section 7). class_weights: None, "balanced" (num_samples / (num_classes * samples of the class), scikit-learn's
    rule, counted on the training part) or one weight per class; as in torch, the mean is weighted too.
    """

    metrics_class = EvaluationMetrics
    """Of what validation and test report; a subclass of the classifier may name another."""

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
    ) -> None:
        super().__init__()
        check_range("classifier.label_smoothing", label_smoothing, least=0, below=1)
        self.automatic_optimization = False
        self.preprocessing = preprocessing
        self.network = network
        self.spec = spec
        self.label_smoothing = label_smoothing
        self.balanced = class_weights == "balanced"
        weights = None if class_weights in (None, "balanced") else _weights_of_classes(class_weights, spec)
        self.register_buffer("class_weights", weights, persistent=False)
        self.metrics = self.metrics_class(spec.num_classes)
        self.model_config, self.embedding_config = model_config, embedding_config
        self.compile_steps = compile_steps
        self._optimization = optimization
        self._epoch_sums = dict.fromkeys(SUMS, 0.0)
        self._log_sums = dict.fromkeys(SUMS, 0.0)
        self.confusion_matrix: list[list[int]] = []
        """Of the last validation or test: samples by target (row) and prediction (column)."""
        self.samples_taken = 0
        """Training samples taken since this process was started, by all processes."""
        self.norms: StepNorms | None = None
        """What takes the norms of the steps whose loss is logged, if anything is to."""
        self._rng: dict[str, Any] | None = None
        self._steps: Steps | None = None

    # What researchers change: the loss of one mini-batch.

    def forward(self, features: Tensor) -> Tensor:
        """Raw features (batch, num_features) → logits (batch, num_classes)."""
        return self.network(self.preprocessing(features))

    def loss(self, features: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The loss to minimise on one mini-batch, a scalar, and the logits (batch, num_classes)."""
        logits = self(features)
        return cross_entropy(logits, targets, self.class_weights, label_smoothing=self.label_smoothing), logits

    # Training.

    def setup(self, stage: str) -> None:
        """Counts the classes of the training part where the weights are to balance them."""
        if stage == "fit" and self.balanced:
            counts = self.trainer.datamodule.class_counts  # type: ignore[attr-defined]
            self.class_weights = (counts.sum() / (len(counts) * counts)).float().to(self.device)

    def on_train_start(self) -> None:
        if self.optimization.accumulate > 1 and math.isinf(self.trainer.num_training_batches):
            problem = "needs a training loader of known length, to make a step of the epoch's last mini-batches"
            raise ConfigError("optimizer.accumulate", self.optimization.accumulate, problem)
        clips = self.optimization.clip_norm is not None or self.optimization.clip_value is not None
        if clips and getattr(self.trainer.precision_plugin, "scaler", None) is not None:
            problem = "scales the gradients, which cannot be clipped then; bf16-mixed does not"
            raise ConfigError("trainer.precision", self.trainer.precision, problem)
        if self.trainer.global_rank and self._rng is None:
            torch.manual_seed(torch.initial_seed() + self.trainer.global_rank)  # other dropout masks for other rows
        self.take_steps(choice.steps_of(self, Classifier))

    def take_steps(self, steps: Steps) -> None:
        """Has the steps from the next Lightning batch on taken in this way."""
        self._steps = steps

    def on_fit_end(self) -> None:
        if self._steps is not None:
            self._steps.end()
            self._steps = None

    @property
    def optimization(self) -> Optimization:
        assert self._optimization is not None
        return self._optimization

    @property
    def steps_per_batch(self) -> int:
        """Most optimiser steps in one Lightning batch, a pure function of the configuration."""
        trainer: Any = self.trainer
        batch_size = getattr(trainer.datamodule, "batch_size", 1)
        return chunking.most_steps(self.num_parameters, batch_size * self.optimization.accumulate, self.device.type)

    @property
    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.network.parameters())

    def configure_optimizers(self) -> Any:
        """The optimiser, and the scheduler over the number of steps that the data and the Trainer's limits make."""
        optimizer = self.optimization.algorithm(self.network.parameters())
        schedule = self.optimization.schedule
        if schedule.build is None:
            return optimizer
        total_steps = self.total_steps()
        if schedule.needs_length and math.isinf(total_steps):
            problem = "needs a known number of steps: set trainer.max_epochs or trainer.max_steps"
            raise ConfigError("trainer.max_epochs", self.trainer.max_epochs, problem)
        return [optimizer], [schedule.build(optimizer, int(total_steps) if schedule.needs_length else 0)]

    def total_steps(self) -> float:
        """Optimiser steps of the whole fit, ``math.inf`` where nothing limits them."""
        batches, epochs = self.trainer.estimated_stepping_batches, self.trainer.max_epochs
        by_steps = math.inf if self.trainer.max_steps == -1 else self.trainer.max_steps
        if math.isinf(self.trainer.num_training_batches) or math.isinf(batches) or epochs is None or epochs == -1:
            return by_steps
        steps_per_epoch = math.ceil(self.trainer.num_training_batches / self.optimization.accumulate)
        return min(steps_per_epoch * epochs, by_steps)

    def epoch_means(self) -> tuple[float, float]:
        """Mean training loss and accuracy of this epoch so far."""
        return _means(self._epoch_sums)

    def training_step(self, batch: Batch | Chunk | Sequence[Tensor], batch_idx: int) -> None:
        """Takes one mini-batch, or a chunk of them one after the other."""
        if self._rng is not None:
            randomness.restore_rng(self._rng)
            self._rng = None
        mini_batches: Iterable[Any] = batch.picked() if isinstance(batch, Chunk) else (batch,)
        accumulate, last = self.optimization.accumulate, self.trainer.num_training_batches - 1
        steps = self._steps
        assert steps is not None
        steps.begin(batch)
        first_step = self.trainer.global_step + 1 - batch_idx // accumulate
        records = []
        for index, mini_batch in enumerate(mini_batches, start=batch_idx):
            first = index - index % accumulate
            share = 1 / min(accumulate, last + 1 - first)
            own, samples = self._own_part(mini_batch)
            completes = index % accumulate == accumulate - 1 or index == last
            step = first_step + index // accumulate
            norms = self.norms if self._is_logged(step) else None
            loss, logits, y = steps.take(mini_batch, share * own, completes=completes, norms=norms)
            records.append((loss if own == 1 else loss * own, logits, y, len(y) if samples is None else samples, step))
        lightning_internals.advance(self.trainer, len(records), steps.uncounted)
        self._record(*zip(*records, strict=True))

    def _own_part(self, batch: Iterable[Tensor]) -> tuple[float, int | None]:
        """How much of the loss of a mini-batch, the mean over all processes' rows, this process's rows make; and the
        number of all rows, None where there are no other processes.
        """
        processes = self.trainer.world_size
        if processes == 1:
            return 1.0, None
        _, own = batch
        if not isinstance(batch, Part):  # an ordinary DataLoader, sharded by Lightning into equal parts
            return 1 / processes, len(own) * processes
        if self.class_weights is None:
            return len(own) / len(batch.whole), len(batch.whole)
        weights = self.class_weights
        return (weights[own].sum() / weights[batch.whole].sum()).item(), len(batch.whole)

    def _record(self, losses: Tensors, logits: Tensors, targets: Tensors, samples: Counts, steps: Counts) -> None:
        """Adds a chunk's figures to the sums, the only place that waits for the device; stops at a NaN.

        losses: this process's parts of the mini-batches' losses. samples: rows of the mini-batches, all processes'.
        steps: the number of the optimiser step that each mini-batch belongs to; the last may not be complete.
        """
        correct = (torch.cat(logits).argmax(1) == torch.cat(targets)).sum()
        figures = torch.stack([*(loss.float() for loss in losses), correct.float()])
        *values, num_correct = self.trainer.strategy.reduce(figures, reduce_op="sum").tolist()
        for step, value in zip(steps, values, strict=True):
            if not math.isfinite(value):
                where = f"at optimiser step {step} (epoch {self.current_epoch})"
                raise NonFiniteLoss(f"the training loss became {value} {where}; {REMEDIES}")
        loss_sum = sum(value * n for value, n in zip(values, samples, strict=True))
        for sums in (self._epoch_sums, self._log_sums):
            for name, value in zip(SUMS, (loss_sum, num_correct, sum(samples)), strict=True):
                sums[name] += value
        self.samples_taken += sum(samples)
        if self.trainer.global_step == steps[-1] and self._is_logged(steps[-1]):
            loss, _ = _means(self._log_sums)
            _clear(self._log_sums)
            norms = self.norms.figures() if self.norms is not None else {}
            self.log_to_loggers({"train/step_loss": loss, "train/lr": self.learning_rate, **norms})

    def _is_logged(self, step: int) -> bool:
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        return bool(every) and step % every == 0

    @property
    def learning_rate(self) -> float:
        """The rate the next step takes (the first parameter group's)."""
        return self.trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_epoch_end(self) -> None:
        loss, accuracy = self.epoch_means()
        _clear(self._epoch_sums)
        self._report({"train/loss": loss, "train/accuracy": accuracy, "train/lr": self.learning_rate})
        self.log_to_loggers({"epoch": self.current_epoch})
        for logger in self.loggers:
            logger.save()
        if not self.trainer.enable_validation:
            self._step_plateau(loss)

    def _step_plateau(self, monitored: float) -> None:
        scheduler = self.lr_schedulers()
        if isinstance(scheduler, ReduceLROnPlateau):
            scheduler.step(monitored)

    # Evaluation.

    def on_validation_start(self) -> None:
        distributed.share(self.network.buffers())  # running averages are of each process's rows: rank 0's count

    def on_test_start(self) -> None:
        distributed.share(self.state_dict().values())  # another host may still see the checkpoint before the best

    def validation_step(self, batch: Sequence[Tensor], batch_idx: int) -> None:
        features, targets = batch
        # A process without rows of this mini-batch asks nothing of a network, which may not take none.
        logits = self(features) if len(targets) else features.new_zeros((0, self.spec.num_classes), dtype=torch.float32)
        self.metrics.update(logits, targets)

    test_step = validation_step

    def on_validation_epoch_end(self) -> None:
        figures = self._finish_evaluation("val")
        if self.trainer.state.fn == "fit" and not self.trainer.sanity_checking:
            self._step_plateau(figures["val/loss"])

    def on_test_epoch_end(self) -> None:
        self._finish_evaluation("test")

    def _finish_evaluation(self, part: str) -> dict[str, float]:
        computed = self.metrics.compute()
        self.metrics.reset()
        self.confusion_matrix = computed.pop("confusion_matrix").tolist()
        class_accuracy = computed.pop("class_accuracy")
        figures = {f"{part}/{name}": value.item() for name, value in computed.items()}
        if not math.isfinite(figures[f"{part}/loss"]):
            raise NonFiniteLoss(f"{part}/loss is {figures[f'{part}/loss']}: {REMEDIES}")
        for name, value in zip(self.spec.class_names, class_accuracy.tolist(), strict=True):
            figures[f"{part}/accuracy_of/{name}"] = value
        self._report(figures)
        return figures

    def predict_step(self, batch: Sequence[Tensor], batch_idx: int) -> tuple[Tensor, Tensor]:
        """Probabilities (batch, num_classes) float32 and targets (batch,)."""
        features, targets = batch
        return torch.softmax(self(features).float(), dim=1), targets

    # Reporting: the step axis is optimiser steps, everywhere.

    def _report(self, figures: dict[str, float]) -> None:
        if self.trainer.state.fn == "fit":
            # What self.log_dict(figures, logger=False) comes to, in a fiftieth of the time.
            self.trainer.callback_metrics.update({name: torch.tensor(value) for name, value in figures.items()})
        else:
            self.log_dict(figures, logger=False, batch_size=1)
        self.log_to_loggers(figures)

    def log_to_loggers(self, figures: dict[str, Any]) -> None:
        """Figures at the present optimiser step; nothing in the sanity check."""
        if self.trainer.sanity_checking:
            return
        for logger in self.loggers:
            logger.log_metrics({name: float(value) for name, value in figures.items()}, step=self.trainer.global_step)

    # Checkpoints hold plain containers and tensors only.

    def on_save_checkpoint(self, state: dict[str, Any]) -> None:
        state["neurona"] = {
            **blueprint(self),
            "sums": [self._epoch_sums, self._log_sums],
            "rng": distributed.gathered(randomness.rng_state()),
        }

    def on_load_checkpoint(self, state: dict[str, Any]) -> None:
        self._epoch_sums, self._log_sums = state["neurona"]["sums"]
        generators, rank = state["neurona"]["rng"], self.trainer.global_rank
        self._rng = generators[rank] if rank < len(generators) else None


def _weights_of_classes(weights: Any, spec: DataSpec) -> Tensor:
    if not isinstance(weights, str) and len(weights) == spec.num_classes:
        tensor = torch.tensor(weights, dtype=torch.float32)
        if (tensor >= 0).all() and 0 < tensor.sum() < math.inf:
            return tensor
    problem = f"must be null, balanced or {spec.num_classes} numbers of 0 or more, not all 0"
    raise ConfigError("classifier.class_weights", weights, problem)


def _means(sums: dict[str, float]) -> tuple[float, float]:
    samples = sums["samples"] or math.nan
    return sums["loss"] / samples, sums["correct"] / samples


def _clear(sums: dict[str, float]) -> None:
    sums.update(dict.fromkeys(SUMS, 0.0))


def blueprint(classifier: Classifier) -> dict[str, Any]:
    """What rebuilding the classifier needs besides its tensors, as plain data."""
    preprocessing = type(classifier.preprocessing)
    datamodule: Any = getattr(classifier.trainer, "datamodule", None)
    return {
        "model": classifier.model_config,
        "embedding": classifier.embedding_config,
        "fingerprint": getattr(datamodule, "fingerprint", None),
        "spec": dataclasses.asdict(classifier.spec),
        "preprocessing": f"{preprocessing.__module__}.{preprocessing.__qualname__}",
        "preprocessing_settings": getattr(classifier.preprocessing, "settings", None),
    }
