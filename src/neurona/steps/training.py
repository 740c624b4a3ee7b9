"""The project's own work at the hooks of a fit.

It sits in an object of its own, so that whoever overrides a hook of the classifier, without ``super()`` too, loses
nothing of it.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from neurona.config.nodes import path_of
from neurona.data import chunking
from neurona.devices import distributed, lightning_internals
from neurona.steps import choice, randomness, ways
from neurona.steps.diagnosis import require_finite
from neurona.steps.fast import FastWay
from neurona.steps.steps import Classifier

log = logging.getLogger(__name__)

RULES = 1
"""Of how mini-batches become steps: 0 were those of checkpoints without this number, which took what accumulation
leaves at the end of an epoch as a mean of its own, and had a plateau looked at after every validation.
"""

MOST_PENDING = 50
"""Mini-batches whose figures may wait on a GPU, so that not every step waits for them."""


class Pending(NamedTuple):
    """Figures of a mini-batch that are still on the device. correct: None where the step does not tell."""

    loss: Tensor
    correct: Tensor | None
    samples: int
    step: int


class Training(Callback):
    """Has a fit take its steps, and keeps their figures. shipped: the project's own classifier."""

    chunk_aware = True

    def __init__(self, shipped: type) -> None:
        self.shipped = shipped
        self._rng: dict[str, Any] | None = None
        self._epoch_rng: dict[str, Any] | None = None  # where a loader of one's own draws its order from
        self._asked_by = ""
        self._frozen: list[str] | None = None  # names of parameters, in the checkpoint of a run that goes on
        self._reported: dict[str, float] = {}  # the latest figures, there
        self._feature_shape: list[int] | None = None  # of a row as the loader has it, where that is not a vector
        self._pending: list[Pending] = []

    def setup(self, trainer: Trainer, pl_module: Classifier, stage: str) -> None:
        if stage != "fit":
            return
        if pl_module.balanced:
            pl_module.balance(trainer.datamodule.class_counts)  # type: ignore[attr-defined]
        pl_module.is_weighted = getattr(trainer.datamodule, "row_weights", None) is not None  # type: ignore[attr-defined]
        asked_by = who_asks(pl_module, trainer, trainer.datamodule, self.shipped)  # type: ignore[attr-defined]
        self._asked_by = ", ".join(asked_by)
        pl_module.choose_way(asked_by)

    def on_train_start(self, trainer: Trainer, pl_module: Classifier) -> None:
        if trainer.global_rank and self._rng is None:
            torch.manual_seed(torch.initial_seed() + trainer.global_rank)  # other dropout masks for other rows
        lightning_internals.look_ahead(trainer)
        # What ends an epoch looks at its last validation, which may have been before the checkpoint.
        trainer.callback_metrics.update({name: torch.tensor(value) for name, value in self._reported.items()})
        if pl_module.automatic_optimization and not pl_module.is_fast:
            lightning_internals.catch_up_plateaus(trainer)
        if self._epoch_rng is not None and trainer.fit_loop.restarted_mid_epoch and draws_its_order(trainer):
            randomness.restore_rng(self._epoch_rng)
            lightning_internals.begin_epoch_again(trainer, lightning_internals.position(trainer))
        if self._frozen is not None:  # a finetuning callback has frozen all that it had at the beginning
            for name, parameter in pl_module.named_parameters():
                parameter.requires_grad_(name not in self._frozen)
            self._frozen = None
        if pl_module.is_fast:
            pl_module.fast_way = FastWay(pl_module, choice.steps_of(pl_module))
        elif trainer.world_size > 1 and ways.hands_out_chunks(type(trainer.datamodule)):  # type: ignore[attr-defined]
            log.info(
                "of a mini-batch that %d processes cannot share evenly, its first rows come twice", trainer.world_size
            )
        if pl_module.compile_steps and not pl_module.is_fast:
            log.warning("compile=true has no effect, because %s asks for one mini-batch at a time", self._asked_by)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Classifier) -> None:
        pl_module.figures.begin_epoch()
        self._restore_rng()
        if draws_its_order(trainer):
            self._epoch_rng = randomness.rng_state()
            if trainer.fit_loop.is_resuming:  # Lightning has begun the epoch before the random numbers were there
                lightning_internals.begin_epoch_again(trainer, 0)

    def _restore_rng(self) -> None:
        """Goes on with the random numbers of the checkpoint, once."""
        if self._rng is not None:
            randomness.restore_rng(self._rng)
            self._rng = None

    def on_train_batch_start(self, trainer: Trainer, pl_module: Classifier, batch: Any, batch_idx: int) -> None:
        self._restore_rng()
        features = batch[0] if isinstance(batch, list | tuple) and batch else None
        if isinstance(features, Tensor) and features.ndim != 2:
            self._feature_shape = list(features.shape[1:])

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Classifier, optimizer: Any) -> None:
        if optimizer is trainer.optimizers[0]:
            pl_module.figures.rates = [group["lr"] for group in optimizer.param_groups]
        if pl_module.norms is not None and pl_module.is_logged(trainer.global_step + 1):
            pl_module.norms.before()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Classifier, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Records a mini-batch that Lightning has taken."""
        if pl_module.is_fast:
            return
        if not outputs or "loss" not in outputs:
            if not pl_module.automatic_optimization:  # a step by hand need not tell its loss
                pl_module.figures.samples += _rows(batch) * trainer.world_size
            return
        completes = chunking.is_step_complete(trainer)
        step = trainer.global_step + (not completes)
        loss = outputs["loss"] * trainer.accumulate_grad_batches
        self._pending.append(Pending(loss, pl_module.num_correct, _rows(batch) or 1, step))
        pl_module.num_correct = None
        is_logged = completes and pl_module.is_logged(step)
        if is_logged and pl_module.norms is not None:
            pl_module.norms.after()
        if is_logged or loss.device.type == "cpu" or len(self._pending) >= MOST_PENDING:
            self._flush(trainer, pl_module, [(batch_idx, batch)])
        if is_logged:
            pl_module.log_step()

    def _flush(self, trainer: Trainer, pl_module: Classifier, batches: Sequence[tuple[int, Any]] = ()) -> None:
        """Adds the figures that are pending to the sums; stops at a NaN. batches: the mini-batch at hand."""
        pending, self._pending = self._pending, []
        if not pending:
            return
        counts = [one.correct for one in pending if one.correct is not None]
        correct = torch.stack(counts).sum() if counts else torch.tensor(math.nan, device=pending[0].loss.device)
        figures = torch.stack([*(one.loss.float() for one in pending), correct.float()])
        *losses, mean_correct = trainer.strategy.reduce(figures, reduce_op="mean").tolist()  # all have as many rows
        for one, loss in zip(pending, losses, strict=True):
            require_finite(loss, one.step, pl_module, batches)
        samples = [one.samples * trainer.world_size for one in pending]
        pl_module.figures.add(losses, samples, mean_correct * trainer.world_size)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Classifier) -> None:
        self._flush(trainer, pl_module)
        loss, accuracy = pl_module.figures.epoch_means()
        figures = {"train/loss": loss, "train/accuracy": accuracy, **pl_module.rates()}
        pl_module.report({name: value for name, value in figures.items() if not math.isnan(value)})
        pl_module.log_to_loggers({"epoch": trainer.current_epoch})
        for logger in trainer.loggers:
            logger.save()
        pl_module.step_plateau()

    def on_validation_start(self, trainer: Trainer, pl_module: Classifier) -> None:
        _restore_constants(trainer, pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: Classifier) -> None:
        if pl_module.fast_way is not None:
            pl_module.fast_way.end()
            pl_module.fast_way = None

    # Checkpoints hold plain containers and tensors only.

    def on_save_checkpoint(self, trainer: Trainer, pl_module: Classifier, checkpoint: dict[str, Any]) -> None:
        self._flush(trainer, pl_module)
        _restore_constants(trainer, pl_module)
        checkpoint["neurona"] = {
            **blueprint(pl_module),
            "rules": RULES,
            "feature_shape": self._feature_shape,
            "sums": pl_module.figures.state(),
            "reported": scalars(trainer),
            "rng": distributed.gathered(randomness.rng_state()),
            "epoch_rng": distributed.gathered(self._epoch_rng),
            "frozen": [name for name, parameter in pl_module.named_parameters() if not parameter.requires_grad],
        }

    def on_load_checkpoint(self, trainer: Trainer, pl_module: Classifier, checkpoint: dict[str, Any]) -> None:
        pl_module.figures.restore(checkpoint["neurona"]["sums"])
        self._reported = checkpoint["neurona"].get("reported", {})
        self._feature_shape = checkpoint["neurona"].get("feature_shape")
        lightning_internals.count_steps_of_either_way(checkpoint["loops"], automatic=pl_module.automatic_optimization)
        stored, rank = checkpoint["neurona"], trainer.global_rank
        self._frozen = stored.get("frozen")
        if rank < len(stored["rng"]):
            self._rng = stored["rng"][rank]
            self._epoch_rng = stored.get("epoch_rng", [None] * (rank + 1))[rank]


def scalars(trainer: Trainer) -> dict[str, float]:
    """Those of the Trainer's figures that are one number each."""
    figures = {name: torch.as_tensor(value) for name, value in trainer.callback_metrics.items()}
    return {name: value.item() for name, value in figures.items() if value.numel() == 1}


def draws_its_order(trainer: Any) -> bool:
    """Whether the training loader is one of the user's own that keeps no state, which Lightning would restore."""
    is_ours = ways.hands_out_chunks(type(trainer.datamodule))
    return not is_ours and not hasattr(trainer.train_dataloader, "load_state_dict")


def _restore_constants(trainer: Trainer, classifier: Classifier) -> None:
    """Makes averages of scaling and class weights what they are averages of, which rounding has moved them from."""
    for average in lightning_internals.averages(trainer):
        sources = dict(classifier.named_buffers())
        for name, buffer in average.named_buffers():
            if name == "class_weights" or name.startswith("preprocessing."):
                buffer.copy_(sources[name])


def _rows(batch: Any) -> int:
    """Those of the first tensor in a batch of whatever kind; 0 where there is none."""
    if isinstance(batch, Tensor):
        return len(batch) if batch.ndim else 1
    parts = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, list | tuple) else ()
    return next(filter(None, map(_rows, parts)), 0)


def who_asks(classifier: Classifier, trainer: Trainer, datamodule: Any, shipped: type) -> list[str]:
    """Who asks for Lightning's own way in a fit with this Trainer; nobody where the fast one will do."""
    asked_by = ways.asked_by(classifier, datamodule, trainer.callbacks, shipped)  # type: ignore[attr-defined]
    optimization = classifier.optimization
    if optimization.needs_closure:
        asked_by.append(f"{optimization.name} needs a closure")
    if changes := ways.scales_or_wraps(trainer):
        asked_by.append(changes)
    return asked_by


def blueprint(classifier: Classifier) -> dict[str, Any]:
    """What rebuilding the classifier needs besides its tensors, as plain data."""
    datamodule: Any = getattr(classifier.trainer, "datamodule", None)
    return {
        "model": classifier.model_config,
        "embedding": classifier.embedding_config,
        "classifier_config": classifier.classifier_config,
        "fingerprint": getattr(datamodule, "fingerprint", None),
        "spec": {field.name: getattr(classifier.spec, field.name) for field in dataclasses.fields(classifier.spec)},
        "preprocessing": path_of(type(classifier.preprocessing)),
        "preprocessing_settings": getattr(classifier.preprocessing, "settings", None),
    }
