"""``neurona.load``: a trained run as an object that predicts, with scikit-learn's conventions."""

from __future__ import annotations

import re
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
    Of a run on a table: a polars or pandas frame, a mapping of columns, or a list of mappings, with the run's columns
    in any order among others; or an array (rows, columns) of the columns used (``columns``).
    classes_: the class names, (num_classes,), in the order of the probabilities' columns; a table's are integers where
    all of its labels were.
    """

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier.eval()
        self.classes_: NDArray[Any] = np.array(classifier.spec.class_names)
        self.columns: list[str] = []
        if classifier.spec.schema is not None:
            from neurona.data.schema import Schema

            self._schema = Schema.from_dict(classifier.spec.schema)
            self.columns = self._schema.names
            if all(re.fullmatch(r"0|-?[1-9]\d{,17}", name) for name in classifier.spec.class_names):
                self.classes_ = self.classes_.astype(np.int64)

    def predict_proba(self, features: Any) -> NDArray[np.float32]:
        """Probabilities, (rows, num_classes). Raises DataError for other features than the run's, naming columns."""
        rows = self._rows(features)
        with torch.inference_mode():
            parts = [torch.softmax(self.classifier(part).float(), dim=1) for part in rows.split(BATCH_ROWS)]
        return torch.cat(parts).numpy()

    def predict(self, features: Any) -> NDArray[Any]:
        """The name of the most probable class of each row, (rows,)."""
        return self.classes_[self.predict_proba(features).argmax(axis=1)]

    def score(self, features: Any, targets: ArrayLike) -> float:
        """Accuracy. targets: class names, (rows,); a table's as it holds them, numbers and booleans too; of other data
        also integers that count from 0 in ``classes_``.
        """
        predicted, wanted = self.predict(features).astype(str), np.asarray(targets)
        if self.columns:
            import polars as pl

            from neurona.data.schema import words

            if wanted.dtype == bool:  # True in a frame may have been True or true in the file
                predicted = np.char.lower(predicted)
            wanted = words(pl.Series(wanted.tolist(), strict=False), self._schema.rules).to_numpy()
        elif np.issubdtype(wanted.dtype, np.integer):
            wanted = self.classes_[wanted]
        return float(np.mean(predicted == wanted.astype(str)))

    def _rows(self, features: Any) -> torch.Tensor:
        if self.columns:
            from neurona.data import reading, schema

            table = reading.from_python(features, self.columns)
            return torch.from_numpy(schema.encode(table, self._schema, "features"))
        given = np.asarray(features)
        rows = given.reshape(len(given), -1) if given.ndim > 1 else given
        wanted = self.classifier.spec.num_features
        if rows.ndim != 2 or rows.shape[1] != wanted:
            raise DataError("features", f"have the shape {given.shape}; the run was trained with (rows, {wanted})")
        try:
            numbers = np.ascontiguousarray(rows, dtype=np.uint8 if rows.dtype == np.uint8 else np.float32)
        except (TypeError, ValueError) as error:
            raise DataError("features", f"must be numbers: {error}") from error
        return torch.from_numpy(numbers)


def load(run: str | Path, *, allow: Sequence[str] = ()) -> Predictor:
    """The predictor of a run's best checkpoint, on the CPU. allow: modules of your own whose classes the run names.

    Raises ConfigError if the folder is not a run's or its checkpoint is missing or damaged.
    """
    contents = checkpoint.read(best_checkpoint(Path(run)))
    preprocessing, network = checkpoint.modules(contents, allow)
    return Predictor(Classifier(preprocessing, network, checkpoint.spec(contents)))
