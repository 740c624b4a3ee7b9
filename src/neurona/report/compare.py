"""What a report says of the runs, in words, tables and pictures, and the files it is written to."""

from __future__ import annotations

import csv
import io
import os
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from neurona.errors import ConfigError, did_you_mean
from neurona.report import curves, plots, runs
from neurona.report.page import Block, Cell, Code, Heading, Link, Paragraph, Picture, Table, aligned, html, markdown
from neurona.report.runs import Run
from neurona.report.statistics import (
    Group,
    Metric,
    Section,
    importance,
    is_number,
    sections,
    short_names,
    text,
    varying,
)

METRICS = ("test/accuracy", "val/accuracy", "val/loss", "train/loss")
"""Compared unless another is asked for: the first that there is."""
LEVEL = 0.05
MOST_ROWS = 30
MOST_SEEDS = 20
SMALLEST_SEARCH = 8
TITLE = "Comparison of runs"
NOTES = (
    "A group is all runs with the same settings but for the seed. n counts those that have finished with the figure; of"
    " runs that repeat settings and seed, the last. ± is the sample standard deviation; the interval is Student's t"
    " interval of the mean, at 95 %.",
    "Every group is tested against the one with the best mean of two runs or more: a two-sided t test, paired by seed"
    " where both have the same seeds, Welch's otherwise. p is after Holm's correction over all tests of a data set; the"
    " interval of each difference stands alone. The best was picked by its mean, which flatters it, and groups that"
    " cannot be told apart need not be equal: more seeds may tell.",
)


def report(paths: Sequence[Path], metric_key: str | None, by: Sequence[str], out: Path | None) -> str:
    """Writes ``report.csv``, ``report.md``, ``report.html`` and their pictures into ``out``; returns what the terminal
    shows.

    Raises ConfigError for a path without runs, a figure or setting that no run has, and an ``out`` that is within a run
    or cannot be written.
    """
    damaged: list[Path] = []
    found = [runs.read(folder, damaged) for folder in runs.find(paths)]
    metric = Metric(_metric(found, metric_key))
    known = list(dict.fromkeys(key for run in found for key in run.settings))
    for key in by:
        if key not in known:
            raise ConfigError("--by", key, f"no run has such a setting{did_you_mean(key, known)}")
    parts = sections(found, metric, by)
    counts = ", ".join(f"{count} {status}" for status, count in Counter(run.status for run in found).items())
    better = "higher" if metric.higher_is_better else "lower"
    opening = f"{_plural(len(found), 'run')}: {counts}. Compared by {metric.label}: {better} is better."
    out = _folder(paths[0], out)
    blocks: list[Block] = [Heading(TITLE, 1), Paragraph(opening)]
    terminal = [opening]
    try:
        colour_of = plots.colours(parts)
        compared = [part for part in parts if any(group.n for group in part.groups) and not _searched(part)]
        if compared:
            plots.bars(compared, metric, colour_of).savefig(out / "results.png")
            is_cut = any(len(part.groups) > plots.MOST_BARS for part in compared)
            most = f" The best {plots.MOST_BARS} groups of each." if is_cut else ""
            caption = f"Mean {metric.label} with its 95 % confidence interval; each point is a run.{most}"
            blocks.append(Picture(out / "results.png", f"Bar chart of mean {metric.label} by group", caption))
        for index, part in enumerate(parts, 1):
            table, words = _table(part, metric), [_settings(part), *_words(part, metric)]
            pictures = _pictures(part, metric, out, f"-{index}" if len(parts) > 1 else "", colour_of)
            blocks += [Heading(part.name), *map(Paragraph, words), table, *pictures]
            terminal += [part.name, *words, aligned(table)]
        rows: list[Sequence[Cell]] = [
            (run.status, _link(run, out), _error(run)) for run in found if run.status in runs.UNFINISHED
        ]
        if rows:
            unfinished = Table(["status", "run", "error"], rows)
            blocks += [Heading("Runs that have not finished"), unfinished]
            terminal.append(aligned(unfinished, MOST_ROWS))
        blocks += [Heading("How to read this"), *map(Paragraph, NOTES), Heading("All runs")]
        blocks.append(_all_runs(found, metric, out))
        if damaged:
            warning = f"Cannot be read: {' '.join(map(str, damaged))}"
            blocks.append(Paragraph(warning))
            terminal.append(f"warning: {warning}")
        (out / "report.csv").write_text(_csv(found), encoding="utf-8")
        (out / "report.md").write_text(markdown(blocks), encoding="utf-8")
        (out / "report.html").write_text(html(TITLE, blocks), encoding="utf-8")
    except OSError as error:
        raise ConfigError("--out", out, f"cannot be written: {error.strerror}; give another folder") from error
    return "\n\n".join([*terminal, f"{out / 'report.html'}   report.md   report.csv"])


def _metric(found: Sequence[Run], given: str | None) -> str:
    known = list(dict.fromkeys(name for run in found for name in run.figures))
    if given is None:
        return next((name for name in METRICS if name in known), METRICS[0])
    if given not in known:
        shown = ", ".join(name for name in known if "/accuracy_of/" not in name) or "none yet"
        hint = did_you_mean(given, known)
        raise ConfigError(
            "--metric", given, f"no run has such a figure{hint}{' There' if hint else '; there'} are {shown}"
        )
    return given


def _folder(first: Path, given: Path | None) -> Path:
    """The folder to write into, made."""
    out = given or (first.resolve().parent if runs.is_run(first) else first) / "report"
    for folder in (out.absolute(), *out.absolute().parents):
        if runs.is_run(folder):
            raise ConfigError("--out", out, f"is within the run {folder}; give a folder outside of it")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError("--out", out, f"cannot be made: {error.strerror}; give another folder with --out") from error
    return out


def _settings(part: Section) -> str:
    described = []
    for key, values in part.varying.items():
        shown = ", ".join(map(text, values))
        if len(values) > 12:
            ends = f", {text(values[0])} to {text(values[-1])}" if all(map(is_number, values)) else ""
            shown = f"{len(values)} values{ends}"
        described.append(f"{key} ({shown})")
    if not described:
        return "No setting varies but the seed."
    common = ", ".join(f"{name}={text(part.common[key])}" for key, name in short_names(list(part.common)).items())
    named = f" A group is named by what differs from most runs, which have {common}." if common else ""
    return f"What varies: {'; '.join(described)}.{named}"


def _words(part: Section, metric: Metric) -> list[str]:
    """What the table and the tests come to."""
    words = []
    if len(part.groups) > MOST_ROWS:
        words.append(f"The best {MOST_ROWS} of {len(part.groups)} groups are shown; report.csv has every run.")
    if part.repeats:
        words.append(f"Not counted, as another run has the same settings and seed: {_plural(part.repeats, 'run')}.")
    others = [group for group in part.groups if group.n and group is not part.reference]
    tested = part.differences
    if part.reference is None:
        tells = "No group has more than one run, so nothing is tested: differences may be chance, more seeds tell more."
        return [*words, tells if others else f"No run has finished with {metric.key} yet."]
    if others:
        words.append(f"The best mean of several runs is that of {part.reference.name}.")
    for meaning, those in (
        (f"Cannot be told from it (p ≥ {LEVEL})", [g for g in others if g in tested and tested[g].p >= LEVEL]),
        (f"Worse (p < {LEVEL})", [g for g in others if g in tested and tested[g].p < LEVEL]),
        ("Not tested, for a single run or no spread", [g for g in others if g not in tested]),
    ):
        if those:
            words.append(f"{meaning}: {_names(those)}.")
    return [" ".join(words)] if words else []


def _table(part: Section, metric: Metric) -> Table:
    figure_names = ["mean ± std", "median", "95 % interval", "difference to the best (95 %)", "p"]
    rows = []
    for group in part.groups[:MOST_ROWS]:
        figures = ["–"] * 5
        if group.n:
            figures[:2] = [metric.text(group.mean), metric.text(group.median)]
        if group.interval and group.std is not None:
            figures[0] += f" ± {metric.text(group.std)}"
            figures[2] = _range(metric, group.interval)
        if group is part.reference:
            figures[3] = "best"
        elif tested := part.differences.get(group):
            figures[3] = f"{metric.text(tested.mean, '+')} ({_range(metric, tested.interval, '+')})"
            figures[4] = f"{tested.p:.3f}" if tested.p >= 0.0005 else "<0.001"
            figures[4] += " paired" if tested.is_paired else " Welch"
        statuses = Counter(run.status for run in group.runs if run.status != "finished")
        others = ", ".join(f"{count} {status}" for status, count in statuses.items())
        rows.append([group.name, str(group.n), *figures, others])
    if part.reference is None:  # only single runs: a figure and no statistics
        return Table(["group", metric.label, "not counted"], [[r[0], r[2], r[7]] for r in rows], numbers=range(1, 2))
    return Table(["group", "n", *figure_names, "not counted"], rows, numbers=range(1, 7))


def _pictures(part: Section, metric: Metric, out: Path, suffix: str, colour_of: Mapping[Group, str]) -> list[Picture]:
    """Of a search its parallel coordinates and the importance of the settings; learning curves."""
    pictures = []
    if keys := _searched(part):
        groups = [group for group in part.groups if group.n]
        file = out / f"search{suffix}.png"
        plots.parallel_coordinates(groups, keys, metric).savefig(file)
        caption = "Every line is a run, from its settings to its figure; the best are drawn thick."
        pictures.append(Picture(file, f"Parallel coordinates of {', '.join(keys)} and {metric.key}", caption))
        if shares := importance(groups, keys):
            file = out / f"importance{suffix}.png"
            plots.importances(shares).savefig(file)
            caption = (
                "Eta squared of the Kruskal-Wallis test, numbers cut at their quartiles: what a setting explains by"
                " itself, without its interplay with others. A search that draws some values more often distorts it."
            )
            found = "; ".join(f"{key} {100 * share:.0f} %" for key, share in shares.items())
            pictures.append(Picture(file, f"Importance of the settings: {found}", caption))
    shown = {group: [curves.read(run.folder) for run in _drawn(group)] for group in part.groups[: len(plots.COLOURS)]}
    shown = {group: those for group, those in shown.items() if any(those)}
    if shown:
        file = out / f"curves{suffix}.png"
        plots.learning_curves(shown, colour_of).savefig(file)
        caption = "Mean over the seeds up to the last epoch that all have reached; the band is one standard deviation."
        if len(part.groups) > len(shown):
            caption += f" The best {len(shown)} of {len(part.groups)} groups."
        if any(len(group.runs) > MOST_SEEDS for group in shown):
            caption += f" At most {MOST_SEEDS} runs of each."
        pictures.append(Picture(file, f"Learning curves of {_names(list(shown))}", caption))
    return pictures


def _searched(part: Section) -> list[str]:
    """The settings that were searched; none unless several numbers vary over groups of one run."""
    counted = [group.n for group in part.groups if group.n]
    numbers = [key for key, values in part.varying.items() if len(values) > 2 and all(map(is_number, values))]
    is_search = len(counted) >= SMALLEST_SEARCH and counted.count(1) > len(counted) / 2 and len(numbers) > 1
    return list(part.varying) if is_search else []


def _drawn(group: Group) -> list[Run]:
    finished = [run for run in group.runs if run.status == "finished"]
    return (finished or group.runs)[:MOST_SEEDS]


def _all_runs(found: Sequence[Run], metric: Metric, out: Path) -> Table:
    rows: list[Sequence[Cell]] = []
    for run in found:
        figure = metric.text(run.figures[metric.key]) if metric.key in run.figures else "–"
        rows.append((_link(run, out), run.status, figure, Code(run.command)))
    return Table(["run", "status", metric.label, "command"], rows, numbers=range(2, 3), is_long=len(rows) > 12)


def _csv(found: Sequence[Run]) -> str:
    """A line for every run: the settings that vary, seed, status, every figure, error, folder and command."""
    settings = list(varying([run for run in found if run.settings]))
    figures = list(dict.fromkeys(name for run in found for name in run.figures))
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*settings, "seed", "status", *figures, "error", "folder", "command"])
    for run in found:
        values = [*map(run.settings.get, settings), run.seed, run.status, *map(run.figures.get, figures)]
        writer.writerow([*values, run.error, run.folder, run.command])
    return file.getvalue()


def _link(run: Run, out: Path) -> Link:
    return Link(str(run.folder), os.path.relpath(run.folder, out))


def _error(run: Run) -> str:
    if run.status == "lost":
        return f"its process is gone; to continue: python train.py run={shlex.quote(str(run.folder))}"
    return run.error


def _names(groups: Sequence[Group]) -> str:
    left = len(groups) - 12
    return "; ".join(group.name for group in groups[:12]) + (f"; and {left} more" if left > 0 else "")


def _range(metric: Metric, interval: tuple[float, float], sign: str = "") -> str:
    return " to ".join(metric.text(end, sign) for end in interval)


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
