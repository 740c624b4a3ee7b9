"""``neurona.run`` and ``neurona.fit``: what the command line does, called from Python."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from neurona.cli.composing import LOCK, composed, composing
from neurona.cli.replay import Yamls, replay
from neurona.config.check import ROOT, check
from neurona.config.hints import COMMON, CONFIG_DIR, ELSEWHERE, NO_KEY
from neurona.config.overrides import check_of_run, key, parse, task_overrides, value
from neurona.errors import ConfigError, UserError, did_you_mean
from neurona.predictor import Predictor, load
from neurona.stages import processes
from neurona.stages.execute import execute

OF_ARRAYS = ("data", "data._target_", "data.path")
"""Keys that X and y decide."""


SHORT = {
    "max_epochs": "trainer.max_epochs",
    "hidden": "model.hidden",
    "activation": "model.activation",
    "dropout": "model.dropout",
    "lr": "optimizer.lr",
    "weight_decay": "optimizer.weight_decay",
    "class_weight": "classifier.class_weights",
    "class_weights": "classifier.class_weights",
}
"""Keys by the last of their names, which keywords of ``fit`` may be mistaken for."""


def run(overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Does what ``python train.py *overrides`` does. Returns the figures of ``metrics.json`` and, as ``folder``, where
    they are.

    It may be called again and again, in a notebook, within another Hydra application, and from several threads: then
    one run is done after the other, as random generators, signals and numbers of threads are the whole process's.

    Raises ConfigError or DataError for a mistake, before a run folder exists.
    """
    return _run(overrides, "run")[1]


def fit(
    X: Any,
    y: Any,
    overrides: Sequence[str] = (),
    *,
    X_val: Any = None,
    y_val: Any = None,
    sample_weight: Any = None,
    **settings: Any,
) -> Predictor:
    """A run on arrays in memory: fits, tests, and leaves a run folder. Returns its predictor, as ``neurona.load`` does,
    with the run's ``metrics`` and ``folder``.

    X: a polars or pandas frame, a mapping of columns, a list of mappings, or an array or tensor of numbers: rows of
    columns (rows, columns), read as a file's are (``data=table``), or images (rows, height, width). y: a label for each
    row. X_val, y_val: what validates; without them it is drawn from X and y. sample_weight: what the training loss of
    each row of a table is multiplied with. overrides: as on the command line;
    ``run=`` goes on with such a run, which takes the same arrays again, or works on it (``stage=``).

    Raises ConfigError and DataError as ``run`` does, and UserError for any other keyword, such as Keras' ``epochs``.
    """
    if settings:
        name, setting = next(iter(settings.items()))
        raise UserError(f"{name}: fit has no such argument; {_instead(name, setting)}")
    arrays = {"X": X, "y": y, "X_val": X_val, "y_val": y_val, "sample_weight": sample_weight}
    if y_val is not None and X_val is None:
        raise ConfigError("X_val", None, "is missing beside y_val")
    return fit_arrays(arrays, overrides)


def _instead(name: str, setting: Any) -> str:
    """How ``fit`` is given what a keyword of other libraries, or a key of the configuration, stands for."""
    if name in NO_KEY:
        return NO_KEY[name]
    if near := did_you_mean(name, ("X_val", "y_val", "sample_weight")):
        return near.removeprefix("; ")
    key = {**SHORT, **COMMON, **ELSEWHERE}.get(name, name if name in ROOT else None)
    text = str(setting).replace(" ", "") if isinstance(setting, bool | int | float | str | list) else "…"
    line = f"{key}={text}" if key else "trainer.max_epochs=10"
    return f"settings are a list, as on the command line: neurona.fit(X, y, [{line!r}])"


def fit_arrays(arrays: Mapping[str, Any], overrides: Sequence[str]) -> Predictor:
    """What ``fit`` does. arrays: its arguments by name, None where there is none; besides, ``classes``: the names of
    all classes, of which y then holds indices; and ``start``: a classifier whose columns, encoding and weights to begin
    with.
    """
    cfg, figures = _run(overrides, "fit", arrays)
    predictor = load(figures["folder"], allow=cfg.allow)
    predictor.metrics = figures
    return predictor


def listed(overrides: Sequence[str], call: str) -> list[str]:
    """Overrides as a list. call: where to give it, in place of {}. Raises ConfigError for a text or a mapping."""
    if not isinstance(overrides, str | Mapping):
        return list(overrides)
    if isinstance(overrides, str):
        lines = [overrides]
    else:
        lines = [f"{name}={'null' if setting is None else setting}" for name, setting in overrides.items()]
    raise ConfigError("overrides", overrides, f"must be a list: {call.format(lines)}")


@contextlib.contextmanager
def _frozen() -> Iterator[None]:
    """What is there before a run is not looked through for garbage meanwhile: of all that torch has, that takes longer
    than a short fit.
    """
    if gc.get_freeze_count():  # the caller's, which is to stay
        yield
        return
    gc.collect(1)  # what has come since the last run
    gc.freeze()
    try:
        yield
    finally:
        gc.collect()  # what the run leaves
        gc.unfreeze()


def _run(overrides: Sequence[str], name: str, arrays: Mapping[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
    """The configuration and the figures. arrays: X, y, X_val and y_val, as far as they were given."""
    lines = listed(overrides, f"neurona.{name}({{}})" if arrays is None else f"neurona.{name}(X, y, {{}})")
    if arrays is not None:
        for override in parse(lines):
            if key(override) in OF_ARRAYS:
                raise ConfigError(key(override), value(override), "does not go with X and y, which are the data")
        lines.insert(0, f"data={'images' if getattr(arrays.get('X'), 'ndim', 2) == 3 else 'arrays'}")
    check_of_run(parse(lines))
    with LOCK, _frozen():
        config_name, lines = replay(lines, Yamls(CONFIG_DIR))
        with composing(CONFIG_DIR):
            cfg, hydra = composed(config_name, lines)
            unread = check(cfg, hydra.runtime.choices, config_name)
        if number := processes.count(cfg):
            problem = f"{number} processes are started by the command line: python train.py …"
            raise ConfigError("trainer.devices", cfg.trainer.devices, problem)
        if arrays is not None and cfg.stage == "fit" and cfg.data.get("path") is not None:  # an experiment's
            raise ConfigError("data.path", cfg.data.path, "does not go with X and y, which are the data")
        if arrays is not None and cfg.stage == "lr_find":
            raise ConfigError("stage", cfg.stage, "leaves no network to return; it is of neurona.run, on a file")
        return cfg, execute(cfg, hydra.runtime.choices, task_overrides(hydra), unread, arrays)
