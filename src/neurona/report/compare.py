"""Compares runs, and writes what there is to say of them as a CSV, a Markdown and an HTML file."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from neurona.config.overrides import in_shell
from neurona.errors import ConfigError, did_you_mean
from neurona.report import plots, runs
from neurona.report.page import Block, Cell, Code, Heading, Link, Paragraph, Picture, Table, html, markdown, plain
from neurona.report.runs import Run
from neurona.report.section import MAX_ROWS, describe, searched_settings
from neurona.report.statistics import Group, Metric, Section, sections, varying
from neurona.runs.files import as_csv

DEFAULT_METRICS = ("test/accuracy", "val/accuracy", "val/loss", "train/loss")
"""Compared unless another is asked for: the first that there is."""
FORMATS = (".csv", ".md", ".html", ".png")
MAX_SHOWN_RUNS = 12
"""The table of all runs is folded where there are more."""
TITLE = "Comparison of runs"
NOTES = (
    "Runs that differ only in their seed form a group. n is the number of its finished runs that have the figure;"
    " if runs repeat settings and seed, only the last one counts. ± is the sample standard deviation, and the"
    " interval is Student's 95 % interval of the mean.",
    "The best group is the one with the best mean among those of at least two runs. Every other group of at least"
    " two runs is compared with it by a two-sided t test: paired if both have the same seeds, Welch's otherwise. The"
    " p values have Holm's correction for all tests of a data set; the intervals of the differences have none. The"
    " best group was chosen by its mean, so its mean is probably a little too good. A difference that is not"
    " significant does not mean that two groups are equal; more seeds may show one.",
)


def report(paths: Sequence[Path], metric_key: str | None, by: Sequence[str], out: Path | None) -> str:
    """Writes ``report.csv``, ``report.md``, ``report.html`` and their pictures into ``out``; returns what the terminal
    shows.

    Raises ConfigError for a path without runs, a figure or setting that no run has, and an ``out`` that is within a run
    or cannot be written.
    """
    damaged: list[Path] = []
    found = [runs.read(folder, damaged) for folder in runs.find(paths)]
    all_runs = [run for run in found if not run.is_debug]
    if not all_runs:
        raise ConfigError(
            "path", " ".join(map(str, paths)), "has only debug runs, which are left out; give another path"
        )
    metric = _metric(all_runs, metric_key)
    _check_settings(all_runs, by)
    parts = sections(all_runs, metric, by)
    out = _folder(paths[0], out)
    try:
        colour_of = plots.colours(parts)
        opening = _opening(all_runs, metric, num_debug=len(found) - len(all_runs))
        overview = _overview(parts, metric, out, colour_of)
        results: list[Block] = []
        for index, part in enumerate(parts, 1):
            results += describe(part, metric, out, f"-{index}" if len(parts) > 1 else "", colour_of, damaged)
        unfinished = _unfinished(all_runs, out)
        warnings = [Paragraph(f"Cannot be read: {' '.join(dict.fromkeys(map(str, damaged)))}")] if damaged else []
        blocks = [Heading(TITLE, 1), opening, *overview, *results]
        blocks += [Heading("Runs that have not finished"), *unfinished] if unfinished else []
        blocks += [Heading("How to read this"), *map(Paragraph, NOTES)]
        blocks += [Heading("All runs"), _list_of(all_runs, metric, out), *warnings]
        for name, text in (("csv", _csv(all_runs)), ("md", markdown(blocks)), ("html", html(TITLE, blocks))):
            (out / f"report.{name}").write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError("--out", out, f"cannot be written: {error.strerror}; give another folder") from error
    shown = plain([opening, *results, *unfinished], MAX_ROWS) + [f"warning: {warning.text}" for warning in warnings]
    return "\n\n".join([*shown, f"{out / 'report.html'}   report.md   report.csv"])


def _metric(all_runs: Sequence[Run], key: str | None) -> Metric:
    names = list(dict.fromkeys(name for run in all_runs for name in run.figures))
    if key is None:
        return Metric(next((name for name in DEFAULT_METRICS if name in names), DEFAULT_METRICS[0]))
    if key not in names:
        shown = ", ".join(name for name in names if "/accuracy_of/" not in name) or "none yet"
        hint = did_you_mean(key, names)
        problem = f"no run has such a figure{hint}{' There' if hint else '; there'} are {shown}"
        raise ConfigError("--metric", key, problem)
    return Metric(key)


def _check_settings(all_runs: Sequence[Run], by: Sequence[str]) -> None:
    settings = list(dict.fromkeys(key for run in all_runs for key in run.settings))
    for key in by:
        if key == "seed":
            problem = "a seed never makes a group, as runs that differ only in it form one; give settings, or none"
            raise ConfigError("--by", key, problem)
        if key not in settings:
            raise ConfigError("--by", key, f"no run has such a setting{did_you_mean(key, settings)}")


def _folder(first: Path, asked: Path | None) -> Path:
    """The folder to write into, made."""
    out = asked or (first.resolve().parent if runs.is_run(first) else first) / "report"
    for folder in (out.absolute(), *out.absolute().parents):
        if runs.is_run(folder):
            raise ConfigError("--out", out, f"is within the run {folder}; give a folder outside of it")
    try:
        out.mkdir(parents=True, exist_ok=True)
        links = [file for file in (*([] if asked else [out]), *out.iterdir()) if file.is_symlink()]
        if written := [file for file in links if file == out or file.suffix in FORMATS]:
            problem = "is a link, which writing would follow; remove it, or give another folder with --out"
            raise ConfigError("--out", written[0], problem)
    except OSError as error:
        raise ConfigError("--out", out, f"cannot be made: {error.strerror}; give another folder with --out") from error
    return out


def _opening(all_runs: Sequence[Run], metric: Metric, num_debug: int) -> Paragraph:
    number = f"{len(all_runs)} run{'s' * (len(all_runs) != 1)}"
    counts = ", ".join(f"{count} {status}" for status, count in Counter(run.status for run in all_runs).items())
    better = "higher" if metric.higher_is_better else "lower"
    left_out = f" Left out: {num_debug} debug run{'s' * (num_debug != 1)}." if num_debug else ""
    return Paragraph(f"{number}: {counts}.{left_out} Compared by {metric.label}: {better} is better.")


def _overview(parts: Sequence[Section], metric: Metric, out: Path, colour_of: Mapping[Group, str]) -> list[Picture]:
    """The means of all groups but those of searches."""
    compared = [part for part in parts if any(group.n for group in part.groups) and not searched_settings(part)]
    if not compared:
        return []
    plots.means(compared, metric, colour_of).savefig(out / "results.png")
    is_cut = any(len(part.groups) > plots.MAX_GROUPS for part in compared)
    limit = f" The best {plots.MAX_GROUPS} groups of each." if is_cut else ""
    caption = f"Mean {metric.label} with its 95 % confidence interval; each point is a run.{limit}"
    return [Picture(out / "results.png", f"Dots: mean {metric.label} by group", caption)]


def _unfinished(all_runs: Sequence[Run], out: Path) -> list[Table]:
    """A table of the runs that have not finished, if there are any."""
    rows = [(run.status, _link(run, out), _error(run)) for run in all_runs if run.status in runs.UNFINISHED_STATUSES]
    return [Table(["status", "run", "error"], rows)] if rows else []


def _list_of(all_runs: Sequence[Run], metric: Metric, out: Path) -> Table:
    rows: list[Sequence[Cell]] = []
    for run in all_runs:
        figure = metric.text(run.figures[metric.key]) if metric.key in run.figures else "–"
        rows.append((_link(run, out), run.status, figure, Code(run.command)))
    header = ["run", "status", metric.label, "command"]
    return Table(header, rows, numbers=range(2, 3), is_long=len(rows) > MAX_SHOWN_RUNS)


def _csv(all_runs: Sequence[Run]) -> str:
    """A line for every run: the settings that vary, seed, status, every figure, error, folder and command."""
    settings = list(varying([run for run in all_runs if run.settings]))
    figures = list(dict.fromkeys(name for run in all_runs for name in run.figures))
    header = [*settings, "seed", "status", *figures, "error", "folder", "command"]
    rows = [
        [
            *(*map(run.settings.get, settings), run.seed, run.status),
            *(*map(run.figures.get, figures), run.error, run.folder, run.command),
        ]
        for run in all_runs
    ]
    return as_csv([header, *rows])


def _link(run: Run, out: Path) -> Link:
    return Link(str(run.folder), os.path.relpath(run.folder, out))


def _error(run: Run) -> str:
    if run.status == "lost":
        return f"its process is gone; to continue: python train.py {in_shell('run', run.folder)}"
    return run.error
