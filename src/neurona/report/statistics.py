"""Groups of runs that differ only in their seed, and what can be said of the differences between them."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats  # type: ignore[import-untyped]

from neurona.config.make import PACKAGES, is_within
from neurona.report.runs import EXCLUDED_KEYS, Run, Setting

TASK_KEYS = ("data", "data.path", "data.target")
"""Settings that say which data were learned: figures of different data are not compared."""
MAX_NAMED_SETTINGS = 4
"""Of more that vary, a group's name leaves out those with the value of most runs."""
ROUNDING = 1e-6
"""Figures are of float32: what differs by this share of them or less is the same."""
SHARES = ("accuracy", "f1", "auroc", "precision", "recall")
FEWEST_FOR_INTERVAL = 3
"""Student's interval of two values is 12.7 times their distance, which says nothing of them."""
Values = Mapping[tuple[Setting | None, ...], float]


@dataclass(frozen=True)
class Metric:
    """A figure of ``metrics.json`` and how it is written: accuracies in per cent."""

    key: str

    @property
    def higher_is_better(self) -> bool:
        return any(word in self.key for word in (*SHARES, "per_second"))

    @property
    def limits(self) -> tuple[float, float]:
        """What the figure cannot leave."""
        is_share = any(word in self.key for word in (*SHARES, "calibration_error"))
        return (0.0, 1.0) if is_share else (0.0 if self.key.endswith("loss") else -math.inf, math.inf)

    @property
    def factor(self) -> int:
        return 100 if "accuracy" in self.key else 1

    @property
    def label(self) -> str:
        """The name with its unit."""
        return self.key + (" (%)" if self.factor == 100 else " (nats)" if self.key.endswith("loss") else "")

    def text(self, value: float, sign: str = "") -> str:
        return f"{self.factor * value:{sign}.2f}" if self.factor == 100 else f"{value:{sign}#.4g}"


class Group:
    """Runs that differ only in their seed.

    values: the metric of those that have finished, by seed (and by the settings that vary but do not make groups).
    std: sample standard deviation, None for one value. interval: 95 % confidence interval of the mean (Student's t),
    within the limits of the metric; None for fewer than three values.
    """

    def __init__(
        self,
        name: str,
        settings: dict[str, Setting | None],
        runs: list[Run],
        values: Values,
        limits: tuple[float, float] = (-math.inf, math.inf),
    ) -> None:
        self.name, self.settings, self.runs, self.values = name, settings, runs, values
        self.array = np.array(list(values.values()), dtype=np.float64)
        self.n = len(values)
        if self.n:
            self.mean, self.median = float(self.array.mean()), float(np.median(self.array))
        self.std: float | None = None
        self.interval: tuple[float, float] | None = None
        if self.n > 1:
            self.std = float(self.array.std(ddof=1))
        if self.std is not None and self.n >= FEWEST_FOR_INTERVAL:
            half_width = float(stats.t.ppf(0.975, self.n - 1)) * self.std / self.n**0.5
            self.interval = max(limits[0], self.mean - half_width), min(limits[1], self.mean + half_width)


@dataclass(frozen=True)
class Difference:
    """A group's mean less the best's, with its 95 % confidence interval; p: two-sided, after Holm's correction."""

    mean: float
    interval: tuple[float, float]
    p: float
    is_paired: bool


@dataclass(frozen=True)
class Section:
    """The groups that learned one data set, the best first.

    varying: the settings that differ between its runs. common: those among them, with the value of most runs, that a
    group's name has only where it differs. repeats: runs not counted, as another has the same settings and seed.
    reference: the group that the others are tested against; differences: of those that could be.
    """

    name: str
    varying: dict[str, list[Setting]]
    common: dict[str, Setting | None]
    groups: list[Group]
    repeats: int
    reference: Group | None
    differences: dict[Group, Difference]


def sections(runs: Iterable[Run], metric: Metric, by: Sequence[str]) -> list[Section]:
    """by: the settings that make a group; all that vary if there are none."""
    tasks: dict[tuple[Setting | None, ...], list[Run]] = {}
    for run in runs:
        if run.settings:
            tasks.setdefault(tuple(run.settings.get(key) for key in TASK_KEYS), []).append(run)
    return [
        _section(" ".join(text(value) for value in task if value is not None), members, metric, by)
        for task, members in tasks.items()
    ]


def _section(title: str, runs: list[Run], metric: Metric, by: Sequence[str]) -> Section:
    differing = varying(runs)
    keys = list(by) or list(differing)
    common = _common(runs, keys) if len(keys) > MAX_NAMED_SETTINGS and not by else {}
    members: dict[tuple[Setting | None, ...], list[Run]] = {}
    for run in runs:
        members.setdefault(tuple(run.settings.get(key) for key in keys), []).append(run)
    groups, repeats = [], 0
    for values, alike in members.items():
        settings = dict(zip(keys, values, strict=True))
        counted = [run for run in alike if run.status == "finished" and metric.key in run.figures]
        counted.sort(key=lambda run: run.written)
        rest = [key for key in differing if key not in keys]
        figures = {(r.seed, *(r.settings.get(key) for key in rest)): r.figures[metric.key] for r in counted}
        repeats += len(counted) - len(figures)
        name = _group_name(settings, common, alike)
        groups.append(Group(name, settings, alike, figures, metric.limits))
    sign = -1 if metric.higher_is_better else 1
    groups.sort(key=lambda group: (0, sign * group.mean) if group.n else (1, 0.0))
    reference = next((group for group in groups if group.n > 1), None)
    return Section(title, differing, common, groups, repeats, reference, _differences(groups, reference))


def _group_name(
    settings: Mapping[str, Setting | None], common: Mapping[str, Setting | None], runs: Sequence[Run]
) -> str:
    names = short_names(list(settings))
    parts = [f"{names[key]}={text(value)}" for key, value in settings.items() if (key, value) not in common.items()]
    if parts:
        return ", ".join(parts)
    keys = (line.lstrip("+~").partition("=")[0] for run in runs for line in run.overrides)
    is_default = all(key == "data" or is_within(key, EXCLUDED_KEYS) for key in keys)
    return "default settings" if is_default else "the settings of most runs" if common else "all runs"


def _differences(groups: Sequence[Group], reference: Group | None) -> dict[Group, Difference]:
    """Of all groups that can be tested against the reference, with their p corrected."""
    if reference is None:
        return {}
    pairs = [(group, compare(group.values, reference.values)) for group in groups if group is not reference]
    tested = [(group, difference) for group, difference in pairs if difference]
    corrected = holm([difference.p for _, difference in tested])
    return {group: replace(difference, p=p) for (group, difference), p in zip(tested, corrected, strict=True)}


def _common(runs: Sequence[Run], keys: Sequence[str]) -> dict[str, Setting | None]:
    """The settings that more than half of the runs share."""
    most = {key: Counter(run.settings.get(key) for run in runs).most_common(1)[0] for key in keys}
    return {key: value for key, (value, count) in most.items() if 2 * count > len(runs)}


def varying(runs: Sequence[Run]) -> dict[str, list[Setting]]:
    """The settings that differ, and their values in order; not those that only other components of a kind have."""
    keys = dict.fromkeys(itertools.chain.from_iterable(run.settings for run in runs))
    values = {key: {run.settings.get(key) for run in runs} for key in keys}
    differing = {key: several - {None} for key, several in values.items() if len(several) > 1}
    return {
        key: sorted(several, key=lambda value: (isinstance(value, str), value))  # type: ignore[arg-type]
        for key, several in differing.items()
        if len(several) > 1 or not any(is_within(key, (other,)) for other in differing if other != key)
    }


def compare(values: Values, reference: Values) -> Difference | None:
    """The t test of the difference of two means: paired where both have the same seeds, else Welch's, which does not
    take the variances to be equal. p is not corrected. None with fewer than two values in one of them, or where they
    do not spread.
    """
    if min(len(values), len(reference)) < 2:
        return None
    a, b = (np.array(list(figures.values()), dtype=np.float64) for figures in (values, reference))
    mean, is_paired = float(a.mean() - b.mean()), values.keys() == reference.keys()
    if is_paired:
        b = np.array([reference[seed] for seed in values])
    spread = np.ptp(a - b) if is_paired else np.ptp(a) + np.ptp(b)
    if spread <= (rounding := ROUNDING * max(abs(a).max(), abs(b).max())):
        return None if abs(mean) > rounding else Difference(0.0, (0.0, 0.0), 1.0, is_paired)
    test = stats.ttest_rel(a, b) if is_paired else stats.ttest_ind(a, b, equal_var=False)
    interval = test.confidence_interval(0.95)
    return Difference(mean, (float(interval.low), float(interval.high)), float(test.pvalue), is_paired)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (1979, "A simple sequentially rejective multiple test procedure")."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    raised = [min(1.0, (len(order) - rank) * p_values[index]) for rank, index in enumerate(order)]
    corrected = dict(zip(order, itertools.accumulate(raised, max), strict=True))
    return [corrected[index] for index in range(len(order))]


def is_number(value: Setting | None) -> bool:
    """Whether a setting can be put on a scale."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """The last parts of dotted keys where they tell them apart."""
    leaves = Counter(key.rpartition(".")[2] for key in keys)
    return {key: key.rpartition(".")[2] if leaves[key.rpartition(".")[2]] == 1 else key for key in keys}


def text(value: Setting | None) -> str:
    """A setting as people write it; a component's class without its module."""
    if value is None or isinstance(value, bool):
        return "–" if value is None else str(value).lower()
    if isinstance(value, str) and is_within(value, PACKAGES):
        return value.rpartition(".")[2]
    return f"{value:.4g}" if isinstance(value, float) else str(value)
