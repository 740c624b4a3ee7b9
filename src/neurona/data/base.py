"""The datamodule behind every data set held in memory: split, scaling, loaders. A new data set implements ``read``."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor, nn

from neurona.data import preprocessing
from neurona.data.batches import BatchLoader
from neurona.data.preprocessing import Scaling
from neurona.data.spec import DataSpec
from neurona.data.split import Split, split
from neurona.errors import ConfigError, DataError, check_range, check_seed


@dataclass(frozen=True)
class Table:
    """A data set as read. The last num_test rows are its published test part, if it has one.

    features: (N, num_features) float32 or uint8, contiguous. targets: (N,) int64, indices into class_names. parts: how
    it is split, where that had to be known before; rows in none of them are not used. weights: (N,) float32, of
    the rows in the training loss, at least 0; None where all count the same.
    """

    features: Tensor
    targets: Tensor
    class_names: tuple[str, ...]
    image_shape: tuple[int, ...] | None = None
    num_test: int = 0
    parts: Split | None = None
    weights: Tensor | None = None


@dataclass(kw_only=True, eq=False, repr=False)
class InMemoryData(LightningDataModule):
    """A data set in memory, once; its parts are row indices. Nothing is read before ``setup``. A data set with settings
    of its own is a dataclass too.

    batch_size, eval_batch_size: rows in a mini-batch of training, and of everything else. val_fraction, test_fraction:
    shares of the rows that are not in a published test part; test_fraction is ignored where there is one. folds, fold:
    cross-validation in place of val_fraction, see ``neurona.data.split.split``. split_seed alone decides the split,
    shuffle_seed the order in which training takes its rows. scaling: see ``neurona.data.preprocessing.fit``.

    After setup: features, targets (the whole data set), train_rows, val_rows, test_rows ((n,) int64, ascending),
    row_weights, of mean 1 over the training rows, and preprocessing, fitted on these. Raises ConfigError for a value
    out of range.
    """

    chunk_aware: ClassVar[bool] = True
    """In the fast way the training loader yields chunks of mini-batches."""

    takes_arrays: ClassVar[bool] = False
    """Whether the data are in memory, as ``arrays`` that Python gives."""

    batch_size: int = 32
    eval_batch_size: int = 4096
    val_fraction: float = 0.1
    test_fraction: float = 0.2
    folds: int | None = None
    fold: int | None = None
    split_seed: int = 0
    shuffle_seed: int = 0
    scaling: Scaling = "standard"

    def __post_init__(self) -> None:
        super().__init__()
        check_range("data.batch_size", self.batch_size, least=1, below=2**31)
        check_range("data.eval_batch_size", self.eval_batch_size, least=1, below=2**31)
        check_range("data.val_fraction", self.val_fraction, least=0, below=1)
        check_range("data.test_fraction", self.test_fraction, least=0, below=1)
        if self.val_fraction + self.test_fraction >= 1:
            problem = f"leaves nothing to train on: it and data.test_fraction={self.test_fraction} must sum to below 1"
            raise ConfigError("data.val_fraction", self.val_fraction, problem)
        if (self.folds is None) != (self.fold is None):
            key, value = ("folds", self.folds) if self.fold is None else ("fold", self.fold)
            raise ConfigError(f"data.{key}", value, "cross-validation needs both, as in data.folds=5 data.fold=0")
        check_range("data.folds", self.folds, least=2)
        check_range("data.fold", self.fold, least=0, below=self.folds or 0)
        check_seed("data.split_seed", self.split_seed)
        check_seed("data.shuffle_seed", self.shuffle_seed)
        self._spec: DataSpec | None = None
        self.row_weights: Tensor | None = None

    def read(self) -> Table:
        """Reads the whole data set into memory. Raises DataError if it is damaged."""
        raise NotImplementedError

    def setup(self, stage: str | None = None) -> None:
        """Reads the data, splits them and fits the scaling; does nothing the second time. The stage is ignored."""
        if self._spec is not None:
            self._follow_trainer()
            return
        table = self.read()
        _check(table, type(self).__name__)
        parts = table.parts or self.split(table.targets, table.class_names, table.num_test)
        self.features, self.targets = table.features, table.targets
        self.train_rows, self.val_rows, self.test_rows = parts.train, parts.val, parts.test
        if table.weights is not None:
            self.row_weights = table.weights / table.weights[self.train_rows].mean()
            if not self.row_weights.isfinite().all():
                raise DataError(type(self).__name__, "the weights of the training rows are all 0; leave such rows out")
        self._spec = self.describe(table)

    def describe(self, table: Table) -> DataSpec:
        """Fits the preprocessing on the training rows. Returns the sizes and names of its output."""
        fitted = preprocessing.fit(table.features, self.train_rows, self.scaling)
        self.preprocessing: nn.Module = fitted
        names = table.class_names
        return DataSpec(table.features.shape[1], len(names), names, table.image_shape)

    def split(self, targets: Tensor, class_names: tuple[str, ...], num_test: int, **further: Any) -> Split:
        """The split that the constructor's arguments describe. further: arguments of ``neurona.data.split.split``."""
        return split(
            targets,
            class_names,
            num_test=num_test,
            val_fraction=self.val_fraction,
            test_fraction=self.test_fraction,
            folds=self.folds,
            fold=self.fold,
            seed=self.split_seed,
            **further,
        )

    @classmethod
    def unused(cls, *, is_new: bool) -> dict[str, str]:
        """Settings that have no effect on a trained network, with the reasons. is_new: see ``follow``."""
        return dict.fromkeys(("batch_size", "shuffle_seed", "scaling"), "is only for fitting; leave it out")

    def follow(self, trained: DataSpec, *, is_new: bool) -> None:
        """Called before setup where the data are for a network trained earlier. trained: what it was trained on.
        is_new: whether they are others than those; a data set that has but its own parts makes no difference.
        """

    def _follow_trainer(self) -> None:
        """Moves the data to the Trainer's GPU if at least as much memory remains free there."""
        trainer: Any = self.trainer
        if trainer is None or trainer.strategy.root_device.type != "cuda" or self.features.is_cuda:
            return
        free, _ = torch.cuda.mem_get_info(trainer.strategy.root_device)
        if 2 * (self.features.nbytes + self.targets.nbytes) <= free:
            self.features = self.features.to(trainer.strategy.root_device)
            self.targets = self.targets.to(trainer.strategy.root_device)

    @property
    def spec(self) -> DataSpec:
        """Sizes and names of the data. Calls ``setup`` if necessary."""
        self.setup()
        assert self._spec is not None
        return self._spec

    @property
    def has_validation(self) -> bool:
        """Whether there is a validation part. This is known before ``setup``, which refuses an empty part."""
        return self.folds is not None or self.val_fraction > 0

    @property
    def has_test(self) -> bool:
        """Whether there is a test part, as far as that is known: after setup, of the data set's own rows."""
        rows = getattr(self, "test_rows", None)
        return rows is None or len(rows) > 0

    @property
    def class_counts(self) -> Tensor:
        """Training rows of each class, (num_classes,) int64."""
        return self.targets[self.train_rows].bincount(minlength=self.spec.num_classes)

    @cached_property
    def fingerprint(self) -> str:
        """Identifies the values, names and split of the data: 16 hexadecimal digits of a SHA-256."""
        sizes_and_names = DataSpec(**asdict(self.spec))  # by their values, whatever class has them
        digest = hashlib.sha256(repr((sizes_and_names, self.features.dtype)).encode())
        parts = (self.features, self.targets, self.train_rows, self.val_rows, self.test_rows)
        for part in parts if self.row_weights is None else (*parts, self.row_weights):
            digest.update(repr(tuple(part.shape)).encode())
            digest.update(part.cpu().numpy().data)
        return digest.hexdigest()[:16]

    def train_dataloader(self) -> BatchLoader:
        """Where rows have weights, these are the last column of its features, for ``Classifier.loss``."""
        features = self.features
        if self.row_weights is not None:
            features = torch.cat([features, self.row_weights[:, None].to(features)], dim=1)
        return self._loader(self.train_rows, self.batch_size, self.shuffle_seed, features)

    def val_dataloader(self) -> BatchLoader | list[BatchLoader]:
        # Lightning skips an empty list.
        return self._loader(self.val_rows, self.eval_batch_size) if self.has_validation else []

    def test_dataloader(self) -> BatchLoader:
        return self._loader(self.test_rows, self.eval_batch_size)

    predict_dataloader = test_dataloader

    def _loader(self, rows: Tensor, size: int, seed: int | None = None, features: Tensor | None = None) -> BatchLoader:
        features = self.features if features is None else features
        return BatchLoader(features, self.targets, rows, size, shuffle_seed=seed, trainer=self.trainer)


def _check(table: Table, name: str) -> None:
    """Raise DataError where the table is not what ``Table`` promises, or a class has no row to train on."""
    features, targets, num_classes = table.features, table.targets, len(table.class_names)
    if features.ndim != 2 or features.dtype not in (torch.float32, torch.uint8) or not features.is_contiguous():
        kind = f"{features.dtype} of shape {tuple(features.shape)}"
        raise DataError(name, f"features must be contiguous (rows, columns) of float32 or uint8, not {kind}")
    if table.weights is not None and (features.dtype != torch.float32 or table.weights.shape != targets.shape):
        raise DataError(name, "weights are one number a row, and need float32 features: convert those with .float()")
    if problem := no_class_indices(targets):
        raise DataError(name, problem)
    if len(targets) != len(features):
        raise DataError(name, f"there are {len(targets)} targets for {len(features)} rows; give one for each")
    if len(targets) and not 0 <= int(targets.min()) <= int(targets.max()) < num_classes:
        problem = f"targets must be from 0 to {num_classes - 1}, the indices of its {num_classes} class names"
        raise DataError(name, problem)
    counts = targets[: len(targets) - table.num_test].bincount(minlength=num_classes)
    if table.parts is None and not counts.all():
        raise DataError(name, f"no row to train on of class {table.class_names[counts.argmin()]!r}")


def no_class_indices(targets: Tensor, *, any_number: bool = False) -> str:
    """Why targets are not the index of one class a row, (rows,) int64, and what to do; empty where they are.

    any_number: of any type, one a row, as a loss of one's own may want them.
    """
    shown = f"targets are {str(targets.dtype).removeprefix('torch.')} of shape {tuple(targets.shape)}"
    wanted = "; they must be class indices, (batch,) int64: "
    if targets.ndim == 2 and targets.shape[1] > 1:
        if not ((targets == 0) | (targets == 1)).all():
            return f"{shown}, several numbers a row, which is regression; this is for classification, one class a row"
        if (targets.sum(1) == 1).all():
            return f"{shown}{wanted}of one-hot rows take .argmax(1)"
        problem = "several classes a row, which is multi-label classification; here each row has one class"
        return f"{shown}, {problem}: train on one column at a time"
    if targets.ndim != 1:
        return f"{shown}{wanted}take [:, 0]" if targets.shape[1:] == (1,) else f"{shown}{wanted}one number a row"
    if any_number or targets.dtype == torch.int64:
        return ""
    if targets.is_floating_point() and (targets % 1 != 0).any():
        problem = "amounts, which is regression; this is for classification"
        return f"{shown}, {problem}: make classes of them, as torch.bucketize does"
    return f"{shown}{wanted}convert with .long()"
