"""The report's pictures, drawn with matplotlib for readers who may be colour-blind."""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from neurona.inspection.style import COLOURS, STYLE
from neurona.report import curves
from neurona.report.curves import Curves
from neurona.report.statistics import Group, Metric, Section

PARTS = {"val": "validation", "train": "training"}
INK = "#1b1f24"
LINES = ("-", "--", "-.", ":")
MAX_GROUPS = 30


def colours(sections: Sequence[Section]) -> dict[Group, str]:
    """A colour for each group: the same for those of one name where there are enough, else by rank in its section."""
    names = sorted({group.name for section in sections for group in section.groups})
    by_name = dict(zip(names, COLOURS, strict=False)) if len(names) <= len(COLOURS) else {}
    ranked = [(group, rank) for section in sections for rank, group in enumerate(section.groups)]
    return {group: by_name.get(group.name, COLOURS[min(rank, len(COLOURS) - 1)]) for group, rank in ranked}


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
                drawn = [run[f"{part}/{kind}"] for run in runs if f"{part}/{kind}" in run]
                if drawn:
                    epochs, mean, std = curves.mean_and_std(drawn)
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


def means(sections: Sequence[Section], metric: Metric, colour_of: Mapping[Group, str]) -> Figure:
    """Each group's mean with its 95 % confidence interval, and a point for every run; a panel for each data set.

    One colour for all where a colour is not one name's: across panels it would seem to be.
    """
    has_own_colours = len({group.name for group in colour_of}) <= len(COLOURS)
    shown = [[group for group in section.groups if group.n][:MAX_GROUPS] for section in sections]
    columns = min(2, len(sections))
    rows = math.ceil(len(sections) / columns)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(max(6.4, 5.4 * columns), rows * (0.34 * max(map(len, shown)) + 1.1)))
        axes = figure.subplots(rows, columns, squeeze=False).flat
        for section, groups, axis in zip(sections, shown, axes, strict=False):
            for place, group in enumerate(groups):
                colour = colour_of[group] if has_own_colours else COLOURS[0]
                values = metric.factor * group.array
                offsets = np.linspace(-0.18, 0.18, group.n) if group.n > 1 else 0.0
                axis.plot(values, np.full(group.n, place) + offsets, "o", color=INK, ms=2.8, alpha=0.4)
                if group.interval:
                    axis.plot([metric.factor * end for end in group.interval], [place, place], "|-", color=colour)
                axis.plot(metric.factor * group.mean, place, "o", color=colour, ms=7)
            names = [textwrap.fill(group.name, 38, max_lines=2, placeholder="…") for group in groups]
            axis.set_yticks(range(len(groups)), names)
            axis.set_ylim(len(groups) - 0.5, -0.5)
            axis.set_xlabel(metric.label)
            axis.set_title(section.name)
        for axis in axes:  # those left over
            axis.set_axis_off()
    return figure


def _shortened(name: str, length: int) -> str:
    return name if len(name) <= length else f"{name[: length - 1]}…"
