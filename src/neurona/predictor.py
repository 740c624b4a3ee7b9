"""``neurona.load``: a trained run as an object that predicts, with scikit-learn's conventions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from neurona import checkpoint
from neurona.classifier import Classifier
from neurona.config import DataError
from neurona.run_folder import best_checkpoint

BATCH_ROWS = 4096


class Predictor:
    """The best checkpoint of a run. Features are raw, as the data set holds them: scaling is part of the model.

    features: anything that ``numpy.asarray`` makes numbers of, (rows, num_features) or, images, (rows, height, width).
    classes_: the class names, (num_classes,), in the order of the probabilities' columns.
    """

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier.eval()
        self.classes_: NDArray[Any] = np.array(classifier.spec.class_names)

    def predict_proba(self, features: ArrayLike) -> NDArray[np.float32]:
        """Probabilities, (rows, num_classes). Raises DataError for another number of features than the run's."""
        rows = self._rows(features)
        with torch.inference_mode():
            parts = [torch.softmax(self.classifier(part).float(), dim=1) for part in rows.split(BATCH_ROWS)]
        return torch.cat(parts).numpy()

    def predict(self, features: ArrayLike) -> NDArray[Any]:
        """The name of the most probable class of each row, (rows,)."""
        return self.classes_[self.predict_proba(features).argmax(axis=1)]

    def score(self, features: ArrayLike, targets: ArrayLike) -> float:
        """Accuracy. targets: class names, or integers that count from 0 in ``classes_``; (rows,)."""
        wanted = np.asarray(targets)
        if np.issubdtype(wanted.dtype, np.integer):
            wanted = self.classes_[wanted]
        return float(np.mean(self.predict(features) == wanted))

    def _rows(self, features: ArrayLike) -> torch.Tensor:
        given = np.asarray(features)
        rows = given.reshape(len(given), -1) if given.ndim > 1 else given
        wanted = self.classifier.spec.num_features
        if rows.ndim != 2 or rows.shape[1] != wanted:
            raise DataError("features", f"have the shape {given.shape}; the run was trained with (rows, {wanted})")
        return torch.from_numpy(np.ascontiguousarray(rows, dtype=np.uint8 if rows.dtype == np.uint8 else np.float32))


def load(run: str | Path, *, allow: Sequence[str] = ()) -> Predictor:
    """The predictor of a run's best checkpoint, on the CPU. allow: modules of your own whose classes the run names.

    Raises ConfigError if the folder is not a run's or its checkpoint is missing or damaged.
    """
    contents = checkpoint.read(best_checkpoint(Path(run)))
    preprocessing, network = checkpoint.modules(contents, allow)
    return Predictor(Classifier(preprocessing, network, checkpoint.spec(contents)))
