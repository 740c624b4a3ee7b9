"""The report's pictures, drawn with matplotlib for readers who may be colour-blind."""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from neurona.inspection.style import COLOURS, STYLE
from neurona.report import curves
from neurona.report.curves import Curves
from neurona.report.statistics import Group, Metric, Section, is_number, short_names, text

PARTS = {"val": "validation", "train": "training"}
INK = "#1b1f24"
LINES = ("-", "--", "-.", ":")
TICK: Any = {"fontsize": 7.5, "bbox": {"boxstyle": "round,pad=0.15", "fc": "white", "ec": "none", "alpha": 0.8}}
MOST_BARS = 30


def colours(sections: Sequence[Section]) -> dict[Group, str]:
    """A colour for each group: the same for those of one name where there are enough, else by rank in its section."""
    names = sorted({group.name for section in sections for group in section.groups})
    named = dict(zip(names, COLOURS, strict=False)) if len(names) <= len(COLOURS) else {}
    ranked = [(group, rank) for section in sections for rank, group in enumerate(section.groups)]
    return {group: named.get(group.name, COLOURS[min(rank, len(COLOURS) - 1)]) for group, rank in ranked}


def learning_curves(groups: Mapping[Group, Sequence[Curves]], colour_of: Mapping[Group, str]) -> Figure:
    """Loss and accuracy per epoch, validation beside training; mean over a group's seeds, band of one standard
    deviation.
    """
    present = {tag for runs in groups.values() for run in runs for tag in run}
    kinds = [kind for kind in ("loss", "accuracy") if present & {f"val/{kind}", f"train/{kind}"}]
    parts = [part for part in PARTS if present & {f"{part}/loss", f"{part}/accuracy"}]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.6 * len(parts), 2.9 * len(kinds) + 0.15 * len(groups) + 0.1))
        axes = figure.subplots(len(kinds), len(parts), squeeze=False, sharex=True, sharey="row")
        for (kind, part), axis in zip(itertools.product(kinds, parts), axes.flat, strict=True):
            factor = Metric(kind).factor
            for group, runs in groups.items():
                those = [run[f"{part}/{kind}"] for run in runs if f"{part}/{kind}" in run]
                if those:
                    epochs, mean, std = curves.mean_and_std(those)
                    line = {"color": colour_of[group], "ls": LINES[COLOURS.index(colour_of[group]) % len(LINES)]}
                    axis.plot(epochs, factor * mean, label=group.name, marker="." * (len(epochs) == 1), **line)
                    band = factor * (mean - std), factor * (mean + std)
                    axis.fill_between(epochs, *band, color=colour_of[group], alpha=0.15, lw=0)
            axis.set_title(f"{PARTS[part]} {kind}")
            axis.set_ylabel(Metric(kind).label)
            axis.set_xlabel("epochs")
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
            axis.label_outer()
        lines = axes.flat[0].lines
        longest = max(len(group.name) for group in groups)
        figure.legend(
            lines,
            [_shortened(str(line.get_label()), 110) for line in lines],
            loc="outside lower center",
            ncols=4 if longest < 24 else 2 if longest < 48 else 1,
        )
    return figure


def bars(sections: Sequence[Section], metric: Metric, colour_of: Mapping[Group, str]) -> Figure:
    """Each group's mean with its 95 % confidence interval, and a point for every run; a panel for each data set.

    One colour for all where a colour is not one name's: across panels it would seem to be.
    """
    is_named = len({group.name for group in colour_of}) <= len(COLOURS)
    shown = [[group for group in section.groups if group.n][:MOST_BARS] for section in sections]
    columns = min(2, len(sections))
    rows = math.ceil(len(sections) / columns)
    with mpl.rc_context(STYLE | {"axes.grid.axis": "x"}):
        figure = Figure(figsize=(max(6.4, 5.4 * columns), rows * (0.34 * max(map(len, shown)) + 1.1)))
        axes = figure.subplots(rows, columns, squeeze=False).flat
        for section, groups, axis in zip(sections, shown, axes, strict=False):
            for place, group in enumerate(groups):
                mean, values = metric.factor * group.mean, metric.factor * group.array
                axis.barh(place, mean, color=colour_of[group] if is_named else COLOURS[0], alpha=0.5, height=0.66)
                offsets = np.linspace(-0.18, 0.18, group.n) if group.n > 1 else 0.0
                axis.plot(values, np.full(group.n, place) + offsets, "o", color=INK, ms=2.8, alpha=0.7)
                if group.interval:
                    half_width = metric.factor * (group.interval[1] - group.mean)
                    axis.errorbar(mean, place, xerr=half_width, color=INK, elinewidth=1.4, capsize=4)
            axis.set_yticks(
                range(len(groups)), [textwrap.fill(g.name, 38, max_lines=2, placeholder="…") for g in groups]
            )
            axis.invert_yaxis()
            ends = [metric.factor * x for g in groups for x in (*g.array, *(g.interval or ()))]
            start = _start(ends)
            end = start + 1.05 * (max(0.0, *ends) - start or 1.0)
            axis.set_xlim(start, min(end, 100 + 0.02 * (100 - start)) if metric.factor == 100 else end)
            axis.set_xlabel(metric.label + (f", axis from {start:g}" if start > 0 else ""))
            axis.set_title(section.name)
        for axis in axes:  # those left over
            axis.set_axis_off()
    return figure


def parallel_coordinates(groups: Sequence[Group], keys: Sequence[str], metric: Metric) -> Figure:
    """A line for each run across its settings to its figure; the best in front."""
    names = short_names(keys)
    ranked = list(reversed(groups))
    means = np.array([metric.factor * group.mean for group in ranked])
    with mpl.rc_context(STYLE | {"axes.grid": False}):
        figure = Figure(figsize=(max(6.4, 1.5 * (len(keys) + 1)), 4.2))
        axis = figure.subplots()
        columns = [_scaled([group.settings.get(key) for group in ranked]) for key in keys]
        columns.append(_scaled(means.tolist()))
        lines = [list(enumerate(heights)) for heights in zip(*(heights for heights, _ in columns), strict=True)]
        front = len(lines) - min(20, 1 + len(lines) // 10)
        scale: Any = {"cmap": "viridis_r" if metric.higher_is_better else "viridis"}  # the best are dark
        scale["norm"] = mpl.colors.Normalize(means.min(), means.max())
        for part, width, alpha in ((slice(front), 0.9, 0.5), (slice(front, None), 2.2, 1.0)):
            collection = LineCollection(lines[part], lw=width, alpha=alpha, **scale)
            collection.set_array(means[part])
            axis.add_collection(collection)
        for place, (_, ticks) in enumerate(columns):
            axis.axvline(place, color=INK, lw=0.8)
            for height, label in ticks:
                axis.annotate(label, (place, height), (4, 0), textcoords="offset points", va="center", **TICK)
        axis.set_xticks(range(len(columns)), [*(names[key] for key in keys), metric.label])
        axis.set_xlim(-0.1, len(columns) - 0.7)
        axis.set_ylim(-0.06, 1.06)
        axis.set_yticks([])
        axis.spines[["left", "bottom"]].set_visible(False)
        figure.colorbar(collection, ax=axis, label=metric.label, pad=0.02)
    return figure


def importances(shares: Mapping[str, float]) -> Figure:
    """Share of the variance of the ranks that each setting alone explains."""
    names = short_names(list(shares))
    with mpl.rc_context(STYLE | {"axes.grid.axis": "x"}):
        figure = Figure(figsize=(6.4, 0.34 * len(shares) + 0.9))
        axis = figure.subplots()
        axis.barh([names[key] for key in shares], [100 * share for share in shares.values()], color=COLOURS[0])
        axis.invert_yaxis()
        axis.set_xlim(0, 100)
        axis.set_xlabel("variance of the ranks explained by the setting alone (%)")
    return figure


def _start(values: Sequence[float]) -> float:
    """Where an axis of bars begins: at 0, unless that would hide differences."""
    low, high = min(values), max(values)
    if low <= high / 2 or low == high:
        return min(0.0, low)
    unit = 10.0 ** math.floor(math.log10(max(high - low, 1e-3 * high)))
    return unit * math.floor((low - 0.1 * (high - low)) / unit - 1e-9)


def _scaled(values: Sequence[Any]) -> tuple[list[float], list[tuple[float, str]]]:
    """Heights from 0 to 1 and the ticks: numbers to scale (logarithmically over two decades or more), words in rows."""
    if len(set(values)) > 1 and all(map(is_number, values)):
        is_log = min(values) > 0 and max(values) >= 100 * min(values)
        numbers = np.log10(values) if is_log else np.array(values, dtype=np.float64)
        low, high = numbers.min(), numbers.max()
        heights = ((numbers - low) / (high - low)).tolist()
        marks = np.unique(numbers) if len(set(values)) <= 6 else np.linspace(low, high, 5)
        return heights, [((m - low) / (high - low), f"{10**m if is_log else m:.3g}") for m in marks]
    known = sorted({text(value) for value in values})
    places = {name: index / max(1, len(known) - 1) for index, name in enumerate(known)}
    return [places[text(value)] for value in values], [(place, _shortened(name, 18)) for name, place in places.items()]


def _shortened(name: str, length: int) -> str:
    return name if len(name) <= length else f"{name[: length - 1]}…"
