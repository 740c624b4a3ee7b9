"""``neurona.NeuronaClassifier``: runs on tables in memory as an estimator of scikit-learn's."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.utils import assert_all_finite, check_consistent_length, check_random_state
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import _check_sample_weight, check_is_fitted, column_or_1d, validate_data
except ImportError as error:
    raise ImportError("neurona.NeuronaClassifier needs scikit-learn: pip install 'scikit-learn>=1.9'") from error

from neurona.classifier import Classifier
from neurona.cli.python import fit_arrays, listed
from neurona.config.overrides import key, parse, written
from neurona.predictor import Predictor
from neurona.runs import checkpoint

ALL_ROWS = ("data.test_fraction=0", "trainer.enable_progress_bar=false", "quiet=true")
"""The test is whoever calls ``score``'s."""

WITHOUT_TRACES = ("logger=none", "inspect=none", "trainer.callbacks.checkpoints.keep_last=false")
"""Of a run whose folder is temporary."""

ONE_EPOCH = (
    *("trainer.max_epochs=1", "trainer.limit_train_batches=1.0"),
    *("trainer.callbacks.early_stopping.patience=null", "data.val_fraction=0"),
)


class NeuronaClassifier(ClassifierMixin, BaseEstimator):
    """A multilayer perceptron for tables. X is an array of numbers (rows, columns), NaN or infinite where missing, or a
    pandas or polars frame, whose columns are typed as those of a file. A missing number is imputed, and columns that
    had missing values in training get an indicator.

    hidden, activation: of ``model=mlp``; if both are None, the network of ``data=arrays``. lr: learning rate.
    max_epochs: at most; a share ``data.val_fraction`` of the rows validates and may end the fit earlier. random_state:
    seed of weights, dropout and order of rows. folder: where to keep the run; without it, the run is temporary.
    overrides: as on the command line; they win over all other parameters. None leaves a setting to the configuration.

    After ``fit``: classes_, n_features_in_, feature_names_in_ (of a frame), n_iter_ (epochs), metrics_ (what
    ``metrics.json`` has), folder_ (None if it was temporary).
    """

    def __init__(
        self,
        hidden: Sequence[int] | int | None = (128, 64),
        activation: str | None = "relu",
        lr: float | None = 1e-3,
        max_epochs: int | None = 200,
        overrides: Sequence[str] = (),
        folder: str | None = None,
        random_state: Any = 0,
    ) -> None:
        self.hidden, self.activation, self.lr, self.max_epochs = hidden, activation, lr, max_epochs
        self.overrides, self.folder, self.random_state = overrides, folder, random_state

    def fit(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None) -> NeuronaClassifier:
        """sample_weight: factors for the training loss of each row, scaled to a mean of 1; rows of weight 0 are left
        out. Raises ValueError for what cannot be fitted.
        """
        X, y, sample_weight = self._validated(X, y, sample_weight)
        self.classes_ = np.unique(y)
        if len(self.classes_) < 2:
            problem = "needs samples of at least 2 classes in the data, but the data contains only one class"
            raise ValueError(f"{type(self).__name__} {problem}: {self.classes_[0]}")
        return self._run(X, y, sample_weight)

    def partial_fit(
        self, X: Any, y: ArrayLike, classes: ArrayLike | None = None, sample_weight: ArrayLike | None = None
    ) -> NeuronaClassifier:
        """Trains one epoch from the present weights, without validation; the optimiser starts afresh. Columns, encoding
        and classes are those of the first call, which must name all classes.
        """
        is_first = not hasattr(self, "network_")
        if is_first and classes is None:
            raise ValueError("classes must be passed on the first call to partial_fit.")
        X, y, sample_weight = self._validated(X, y, sample_weight, reset=is_first)
        known = np.unique(np.asarray(classes)) if classes is not None else self.classes_
        if not is_first and not np.array_equal(known, self.classes_):
            raise ValueError(f"classes={classes!r} is not the same as on the first call, {self.classes_}")
        if unknown := sorted(set(np.unique(y)) - set(known)):
            raise ValueError(f"y has {unknown[0]}, which is none of the classes {known}")
        self.classes_ = known
        return self._run(X, y, sample_weight, ONE_EPOCH, start=None if is_first else self._rebuilt())

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """(rows, num_classes), in the order of ``classes_``."""
        check_is_fitted(self)
        return self._predictor.predict_proba(self._validated(X, reset=False))

    def predict(self, X: Any) -> NDArray[Any]:
        """The most probable class of each row, (rows,)."""
        check_is_fitted(self)  # before ``classes_`` is asked for
        return self.classes_[self.predict_proba(X).argmax(axis=1)]

    def _validated(self, X: Any, y: Any = None, sample_weight: Any = None, *, reset: bool = True) -> Any:
        """X, with y and the weights if there are any, after scikit-learn's checks."""
        is_frame = hasattr(X, "columns")
        checks: dict[str, Any] = {"skip_check_array": True} if is_frame else {"ensure_all_finite": False}
        if y is None and not reset:
            return validate_data(self, X, reset=reset, **checks)
        X, y = validate_data(self, X, y, reset=reset, **checks)
        if is_frame:
            y = column_or_1d(y, warn=True)
            assert_all_finite(y, input_name="y")
            check_consistent_length(X, y)
        check_classification_targets(y)
        if sample_weight is None:
            return X, y, None
        sample_weight = _check_sample_weight(sample_weight, X, ensure_non_negative=True)
        counts = sample_weight > 0
        rows = counts.nonzero()[0]
        X = (X.iloc[rows] if hasattr(X, "iloc") else X[rows]) if is_frame else X[counts]
        return X, y[counts], sample_weight[counts]

    def _run(
        self, X: Any, y: Any, sample_weight: Any, more: Sequence[str] = (), start: Any = None
    ) -> NeuronaClassifier:
        arrays = {
            "X": X,
            "y": np.searchsorted(self.classes_, y),
            "classes": list(map(str, self.classes_)),
            "sample_weight": sample_weight,
            "start": start,
        }
        target = "y"
        while target in getattr(X, "columns", ()):
            target += "_"
        more = [written("data.target", target), *more]
        with tempfile.TemporaryDirectory() as temporary:
            predictor = fit_arrays(arrays, self._lines(str(Path(temporary) / "run"), more))
            assert predictor.folder is not None
            contents = checkpoint.read(predictor.folder / "checkpoints" / "best.ckpt")
        self.network_ = {
            "neurona": {name: part for name, part in contents["neurona"].items() if name not in ("rng", "epoch_rng")},
            "state_dict": {name: tensor.numpy() for name, tensor in contents["state_dict"].items()},
        }
        self.metrics_, self.n_iter_ = dict(predictor.metrics), predictor.metrics["epochs"]
        folder = self.metrics_.pop("folder")
        self.folder_ = None if self.folder is None else folder
        self._prepare()
        return self

    def _lines(self, temporary: str, more: Sequence[str]) -> list[str]:
        """All settings as on the command line; the overrides replace settings of the same key."""
        state = self.random_state
        seed = state if isinstance(state, int | np.integer) else check_random_state(state).randint(2**31)
        hidden = None if self.hidden is None else [int(width) for width in np.atleast_1d(self.hidden)]
        overrides = listed(self.overrides, "NeuronaClassifier(overrides={})")
        settings = {
            "model": None if self.hidden is None and self.activation is None else "mlp",
            "model.hidden": hidden,
            "model.activation": self.activation,
            "optimizer.lr": self.lr,
            "trainer.max_epochs": self.max_epochs,
            "seed": seed,
        }
        lines = [f"{name}={value}" for name, value in settings.items() if value is not None]
        traces = WITHOUT_TRACES if self.folder is None else ()
        lines += [*ALL_ROWS, *traces, written("folder", str(self.folder or temporary))]
        if self.folder is None:
            lines.append("trainer.callbacks.importance=null")
        own_keys = {key(override) for override in parse([*more, *overrides])}
        is_own = "model" in own_keys  # which may have other settings
        names = [(line, line.partition("=")[0]) for line in lines]
        kept = [line for line, name in names if name not in own_keys and not (is_own and name.startswith("model."))]
        return [*kept, *overrides, *more]

    def _prepare(self) -> None:
        """Predictions are in float64, as in float32 a row's probabilities depend on the rows beside it."""
        self._predictor = Predictor(self._rebuilt().double())

    def _rebuilt(self) -> Classifier:
        state = {name: torch.tensor(array) for name, array in self.network_["state_dict"].items()}
        allow: Any = next((line.value() for line in parse(self.overrides) if key(line) == "allow"), ())
        return checkpoint.rebuild({**self.network_, "state_dict": state}, allow)

    def __getstate__(self) -> dict[str, Any]:
        """Settings and arrays."""
        return {name: value for name, value in super().__getstate__().items() if name != "_predictor"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if hasattr(self, "network_"):
            self._prepare()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags
