"""What Optuna shows of a search: a study made of its groups, whatever has run them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import optuna
from matplotlib import pyplot
from matplotlib.figure import Figure
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.visualization.matplotlib import plot_parallel_coordinate

from neurona.inspection.style import STYLE
from neurona.report.statistics import Group, Metric, is_number, text

LOG_RATIO = 100
"""Positive numbers that differ by this factor or more are drawn in the logarithm."""

optuna.logging.set_verbosity(optuna.logging.ERROR)


def study_of(groups: Sequence[Group], keys: Sequence[str], metric: Metric) -> optuna.Study:
    """A study, in memory, with a trial for each group: its settings, those that it has, and its mean, if finite."""
    columns = {key: [group.settings[key] for group in groups if group.settings.get(key) is not None] for key in keys}
    distributions = {key: _distribution(values) for key, values in columns.items() if values}
    study = optuna.create_study(direction="maximize" if metric.higher_is_better else "minimize")
    for group in (group for group in groups if math.isfinite(group.mean)):
        present = {key: value for key, value in group.settings.items() if key in distributions and value is not None}
        own = {key: distributions[key] for key in present}
        params = {key: v if isinstance(own[key], FloatDistribution) else text(v) for key, v in present.items()}
        mean = metric.factor * group.mean
        study.add_trial(optuna.trial.create_trial(params=params, distributions=own, value=mean))
    return study


def _distribution(values: Sequence[Any]) -> BaseDistribution:
    if not all(map(is_number, values)):
        return CategoricalDistribution(sorted(set(map(text, values))))
    low, high = min(values), max(values)
    return FloatDistribution(low, high, log=low > 0 and high >= LOG_RATIO * low)


def importances(study: optuna.Study) -> dict[str, float]:
    """How much each setting tells the better half of the runs from all, as shares of 1, largest first; none where the
    runs are the same.

    Source: PED-ANOVA (Watanabe, Bansal & Hutter 2023, "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in
    Arbitrary Subspaces"); of the better half, as the best tenth of a search of twenty is two runs.
    """
    if len({trial.value for trial in study.trials}) < 2:
        return {}
    return get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(target_quantile=0.5))


def parallel_coordinates(study: optuna.Study, metric: Metric) -> Figure:
    """A line for each trial from its figure across its settings; the best are dark."""
    with mpl.rc_context(STYLE | {"axes.grid": False}), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna calls its own pictures experimental
        axis = plot_parallel_coordinate(study, target_name=metric.label)
    axis.set_title("")
    figure: Any = axis.figure
    figure.set_size_inches(max(6.4, 1.5 * len(axis.get_xticks())), 4.2)
    pyplot.close(figure)  # it is the caller's from now on
    return figure
