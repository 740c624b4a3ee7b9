"""A search's pictures, drawn by Optuna from a study made of its groups, whatever has run it."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import matplotlib as mpl
import optuna
from matplotlib import pyplot
from matplotlib.figure import Figure
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.visualization import matplotlib as visualization

from neurona.inspection.style import STYLE
from neurona.report.runs import Setting
from neurona.report.statistics import Group, Metric, is_number, text

LOG_RATIO = 100
"""Positive numbers that differ by this factor or more are drawn in the logarithm."""

EVALUATOR = PedAnovaImportanceEvaluator(target_quantile=0.5)

optuna.logging.set_verbosity(optuna.logging.ERROR)


def study_of(groups: Sequence[Group], keys: Sequence[str], metric: Metric) -> optuna.Study:
    """A study, in memory, with a trial for each group: its settings, those that it has, and its mean."""
    columns = {key: [group.settings.get(key) for group in groups] for key in keys}
    distributions = {
        key: _distribution([value for value in column if value is not None]) for key, column in columns.items()
    }
    as_study = optuna.create_study(direction="maximize" if metric.higher_is_better else "minimize")
    for group in groups:
        present = {key: value for key in keys if (value := group.settings.get(key)) is not None}
        params = {
            key: float(value) if isinstance(distributions[key], FloatDistribution) else text(value)
            for key, value in present.items()
        }
        drawn_from = {key: distributions[key] for key in params}
        trial = optuna.trial.create_trial(params=params, distributions=drawn_from, value=metric.factor * group.mean)
        as_study.add_trial(trial)
    return as_study


def _distribution(values: Sequence[Setting]) -> BaseDistribution:
    numbers = [float(value) for value in values if is_number(value)]
    if len(numbers) < len(values):
        return CategoricalDistribution(sorted({text(value) for value in values}))
    low, high = min(numbers), max(numbers)
    return FloatDistribution(low, high, log=low > 0 and high >= LOG_RATIO * low)


def importances(study: optuna.Study) -> dict[str, float]:
    """How much each setting tells the better half of the runs from all, as shares of 1, largest first; none where the
    runs are the same.

    Source: PED-ANOVA (Watanabe, Bansal & Hutter 2023, "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in
    Arbitrary Subspaces"); of the better half, as the best tenth of a search of twenty is two runs.
    """
    if len({trial.value for trial in study.trials}) == 1:
        return {}
    return optuna.importance.get_param_importances(study, evaluator=EVALUATOR)


def parallel_coordinates(study: optuna.Study, metric: Metric) -> Figure:
    """A line for each trial from its figure across its settings."""
    with _style():
        axis = visualization.plot_parallel_coordinate(study, target_name=metric.label)
        return _released(axis, max(6.4, 1.5 * len(axis.get_xticks())), 4.2)


def importance_bars(study: optuna.Study, metric: Metric) -> Figure:
    """A bar for each setting."""
    with _style():
        axis = visualization.plot_param_importances(study, evaluator=EVALUATOR, target_name=metric.label)
        axis.set_ylabel("")
        if legend := axis.get_legend():  # it names the one figure that there is
            legend.remove()
        return _released(axis, 6.4, 0.34 * len(axis.get_yticks()) + 0.9)


@contextlib.contextmanager
def _style() -> Iterator[None]:
    with mpl.rc_context(STYLE | {"axes.grid": False}), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna calls its own pictures experimental
        yield


def _released(axis: Any, width: float, height: float) -> Figure:
    """The figure without its title, the caller's from now on, not pyplot's."""
    for place in ("left", "center"):
        axis.set_title("", loc=place)
    axis.figure.set_size_inches(width, height)
    pyplot.close(axis.figure)
    return axis.figure
