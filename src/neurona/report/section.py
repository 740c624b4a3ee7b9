"""What a report says of the groups that learned one data set: sentences, the table of results, pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from neurona.report import curves, plots
from neurona.report.page import Block, Heading, Paragraph, Picture, Table
from neurona.report.runs import Run
from neurona.report.statistics import FEWEST_FOR_INTERVAL, Group, Metric, Section, is_number, short_names, text

SIGNIFICANCE_LEVEL = 0.05
MAX_ROWS = 30
MAX_SEEDS = 20
MAX_NAMES = 12
"""Groups, or values of a setting, that a sentence lists."""
SMALLEST_SEARCH = 8


def describe(
    part: Section,
    metric: Metric,
    out: Path,
    suffix: str,
    colour_of: Mapping[Group, str],
    damaged: list[Path] | None = None,
) -> list[Block]:
    """The blocks of a section. Its pictures are written into ``out``, the suffix in their names. damaged: receives the
    runs of which no curves can be read.
    """
    return [
        Heading(part.name),
        Paragraph(_settings(part)),
        *map(Paragraph, _verdict(part, metric)),
        results_table(part, metric),
        *_search(part, metric, out / f"search{suffix}.png"),
        *_curves(part, out / f"curves{suffix}.png", colour_of, [] if damaged is None else damaged),
    ]


def searched_settings(part: Section) -> list[str]:
    """The settings that were searched; none unless several numbers vary over groups of one run."""
    counts = [group.n for group in part.groups if group.n]
    numbers = [key for key, values in part.varying.items() if len(values) > 2 and all(map(is_number, values))]
    is_search = len(counts) >= SMALLEST_SEARCH and counts.count(1) > len(counts) / 2 and len(numbers) > 1
    return list(part.varying) if is_search else []


def _settings(part: Section) -> str:
    """Which settings vary, and how the groups are named by them."""
    if not part.varying:
        return "No setting varies but the seed."
    settings = "; ".join(f"{key} ({_listed(values)})" for key, values in part.varying.items())
    common = ", ".join(f"{name}={text(part.common[key])}" for key, name in short_names(list(part.common)).items())
    naming = f" A group is named by what differs from most runs, which have {common}." if common else ""
    return f"What varies: {settings}.{naming}"


def _listed(values: Sequence[bool | int | float | str]) -> str:
    if len(values) <= MAX_NAMES:
        return ", ".join(map(text, values))
    ends = f", {text(values[0])} to {text(values[-1])}" if all(map(is_number, values)) else ""
    return f"{len(values)} values{ends}"


def _verdict(part: Section, metric: Metric) -> list[str]:
    """What the table and the tests come to."""
    words = []
    if len(part.groups) > MAX_ROWS:
        words.append(f"The best {MAX_ROWS} of {len(part.groups)} groups are shown; report.csv has every run.")
    if part.repeats:
        number = f"{part.repeats} run{'s' * (part.repeats != 1)}"
        words.append(f"Not counted, because another run has the same settings and seed: {number}.")
    others = [group for group in part.groups if group.n and group is not part.reference]
    if part.reference is None:
        caution = "No group has more than one run, so nothing is tested; more seeds show what is more than chance."
        return [*words, caution if others else f"No run has finished with {metric.key} yet."]
    if others:
        words.append(f"Among groups of at least two runs, the best mean is that of {part.reference.name}.")
    p_values = {group: difference.p for group, difference in part.differences.items()}
    equal = [group for group in others if group in p_values and p_values[group] >= SIGNIFICANCE_LEVEL]
    worse = [group for group in others if group in p_values and p_values[group] < SIGNIFICANCE_LEVEL]
    untested = [group for group in others if group not in p_values]
    for meaning, groups in (
        (f"Not significantly different from it (p ≥ {SIGNIFICANCE_LEVEL})", equal),
        (f"Significantly worse (p < {SIGNIFICANCE_LEVEL})", worse),
        ("Not tested, because there is only one run or the runs do not differ", untested),
    ):
        if groups:
            words.append(f"{meaning}: {_names(groups)}.")
    if any(1 < group.n < FEWEST_FOR_INTERVAL for group in part.groups):
        words.append("Two runs have a range only; three or more have a confidence interval.")
    return [" ".join(words)] if words else []


def results_table(part: Section, metric: Metric) -> Table:
    """A line for each group, with statistics where there are groups of several runs."""
    if part.reference is None:
        lines = [
            [group.name, metric.text(group.mean) if group.n else "–", _not_counted(group)]
            for group in part.groups[:MAX_ROWS]
        ]
        return Table(["group", metric.label, "not counted"], lines, numbers=range(1, 2))
    figures = ["mean ± std", "median", "95 % interval", "difference to the best (95 %)", "p"]
    rows = [
        [group.name, str(group.n), *_figures(group, metric), *_comparison(group, part, metric), _not_counted(group)]
        for group in part.groups[:MAX_ROWS]
    ]
    return Table(["group", "n", *figures, "not counted"], rows, numbers=range(1, 7))


def _figures(group: Group, metric: Metric) -> list[str]:
    """Mean and standard deviation, median, interval."""
    if not group.n:
        return ["–", "–", "–"]
    mean, median = metric.text(group.mean), metric.text(group.median)
    if group.std is None:
        return [mean, median, "–"]
    ends = group.interval or (group.array.min(), group.array.max())
    words = "" if group.interval else "range "
    return [f"{mean} ± {metric.text(group.std)}", median, words + _range(metric, ends)]


def _comparison(group: Group, part: Section, metric: Metric) -> list[str]:
    """The difference to the best group with its interval, and p with the test's name."""
    if group is part.reference:
        return ["best", "–"]
    difference = part.differences.get(group)
    if difference is None:
        return ["–", "–"]
    p = f"{difference.p:.3f}" if difference.p >= 0.0005 else "<0.001"
    interval = _range(metric, difference.interval, "+")
    test = "paired" if difference.is_paired else "Welch"
    return [f"{metric.text(difference.mean, '+')} ({interval})", f"{p} {test}"]


def _not_counted(group: Group) -> str:
    statuses = Counter(run.status for run in group.runs if run.status != "finished")
    return ", ".join(f"{count} {status}" for status, count in statuses.items())


def _search(part: Section, metric: Metric, file: Path) -> list[Block]:
    """Of a search, the importance of its settings and their parallel coordinates, written to ``file``."""
    keys = searched_settings(part)
    if not keys:
        return []
    from neurona.report import search  # Optuna takes half a second

    study = search.study_of([group for group in part.groups if group.n], keys, metric)
    search.parallel_coordinates(study, metric).savefig(file)
    caption = "Each line connects the figure and the settings of a run; the best runs are dark."
    picture = Picture(file, f"Parallel coordinates of {', '.join(keys)} and {metric.key}", caption)
    shares = ", ".join(f"{key} {100 * share:.0f} %" for key, share in search.importances(study).items())
    meaning = "How well each setting alone separates the better half of the runs from all of them (PED-ANOVA)"
    return [*([Paragraph(f"{meaning}: {shares}.")] if shares else []), picture]


def _curves(part: Section, file: Path, colour_of: Mapping[Group, str], damaged: list[Path]) -> list[Picture]:
    curves_of: dict[Group, list[curves.Curves]] = {}
    for group in part.groups[: len(plots.COLOURS)]:
        curves_of[group] = []
        for run in _runs_with_curves(group):
            try:
                curves_of[group].append(curves.read(run.folder))
            except Exception:  # of damaged events
                damaged.append(run.folder)
    curves_of = {group: recorded for group, recorded in curves_of.items() if any(recorded)}
    if not curves_of:
        return []
    plots.learning_curves(curves_of, colour_of).savefig(file)
    caption = "Mean over the seeds up to the last epoch that all have reached; the band is one standard deviation."
    if len(part.groups) > len(curves_of):
        caption += f" The best {len(curves_of)} of {len(part.groups)} groups."
    if any(len(group.runs) > MAX_SEEDS for group in curves_of):
        caption += f" At most {MAX_SEEDS} runs of each."
    return [Picture(file, f"Learning curves of {_names(list(curves_of))}", caption)]


def _runs_with_curves(group: Group) -> list[Run]:
    finished = [run for run in group.runs if run.status == "finished"]
    return (finished or group.runs)[:MAX_SEEDS]


def _names(groups: Sequence[Group]) -> str:
    hidden = len(groups) - MAX_NAMES
    return "; ".join(group.name for group in groups[:MAX_NAMES]) + (f"; and {hidden} more" if hidden > 0 else "")


def _range(metric: Metric, interval: tuple[float, float], sign: str = "") -> str:
    return " to ".join(metric.text(end, sign) for end in interval)
