"""``neurona.load``: a trained run as an object that predicts, with scikit-learn's conventions."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from omegaconf import OmegaConf
from torch import Tensor

from neurona.classifier import Classifier, changes_batches
from neurona.data.spec import is_whole
from neurona.errors import ConfigError
from neurona.runs import checkpoint, configuration
from neurona.runs.folder import best_checkpoint, read_metrics

BATCH_ROWS = 4096


class Predictor:
    """A trained run that predicts, from its best checkpoint. Features are raw: scaling is part of the model.

    features: numbers, (rows, num_features), or images, (rows, height, width), as anything that ``numpy.asarray`` takes.
    For a run on a table: a polars or pandas frame, a mapping of columns, or a list of mappings that has the run's
    columns, in any order; or an array (rows, columns) of the columns used (``columns``).
    classes_: the class names, (num_classes,), in the order of the probabilities; integers if all names are.
    feature_shape: the shape of one row in the run's loader, if it is not (num_features,). folder: the run's. metrics:
    the contents of its ``metrics.json``.
    """

    def __init__(
        self,
        classifier: Classifier,
        feature_shape: Sequence[int] | None = None,
        folder: Path | None = None,
        metrics: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder, self.metrics = folder, dict(metrics or {})
        self.classifier = classifier.eval()
        self.spec = classifier.spec
        self.columns = self.spec.columns
        self.feature_shape = feature_shape
        self.classes_: NDArray[Any] = np.array(self.spec.class_names)
        if all(map(is_whole, self.spec.class_names)):
            self.classes_ = self.classes_.astype(np.int64)

    def predict_proba(self, features: Any) -> NDArray[Any]:
        """Probabilities, (rows, num_classes). Raises DataError, naming columns, if the features are not the run's."""
        rows = torch.from_numpy(self.spec.rows(features))
        rows = rows if self.feature_shape is None else rows.reshape(-1, *self.feature_shape)
        with torch.inference_mode():
            parts = [torch.softmax(at_least_float32(self.classifier(part)), dim=1) for part in rows.split(BATCH_ROWS)]
        return torch.cat(parts).numpy()

    def predict(self, features: Any) -> NDArray[Any]:
        """The name of the most probable class of each row, (rows,)."""
        return self.classes_[self.predict_proba(features).argmax(axis=1)]

    def score(self, features: Any, targets: ArrayLike) -> float:
        """Accuracy among the rows that have a label. targets: (rows,) or (rows, 1), class names; a table's as it holds
        them, numbers and booleans too; of other data, whose class names are text, also integers that count from 0 in
        ``classes_``. Raises DataError for labels that are no class.
        """
        return float(np.mean(self.spec.matches(self.predict(features), targets)))


def at_least_float32(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def load(run: str | Path, *, allow: Sequence[str] = ()) -> Predictor:
    """A run's best checkpoint as a predictor on the CPU, with the run's own classifier, network and preprocessing.

    allow: modules of your own whose classes the run names. Raises ConfigError if the folder is not a run's, its
    checkpoint is missing or damaged, or it names a class that is not allowed.
    """
    contents = checkpoint.read(best_checkpoint(Path(run)))
    try:
        classifier = checkpoint.rebuild(contents, allow, _stored_config(contents, Path(run)))
    except ConfigError as error:
        words = re.sub(r"add allow=\[(.+?)\]", rf'neurona.load("{run}", allow=["\1"])', str(error))
        raise ConfigError(error.key, error.value, words.removeprefix(f"{error.key}={error.value}: ")) from error
    if hooks := changes_batches(classifier):
        problem = "is not called for what is predicted from here: give features as it leaves them, or make it forward's"
        warnings.warn(f"{hooks} {problem}", stacklevel=2)
    return Predictor(classifier, contents["neurona"].get("feature_shape"), Path(run), read_metrics(Path(run)))


def _stored_config(contents: dict[str, Any], run: Path) -> dict[str, Any] | None:
    """The configuration of a run whose checkpoint, of an earlier version, does not describe its classifier."""
    if "classifier_config" in contents["neurona"] or not (run / "config.yaml").is_file():
        return None
    settings: Any = OmegaConf.to_container(OmegaConf.create(configuration.read(run)).classifier, resolve=True)
    return settings
