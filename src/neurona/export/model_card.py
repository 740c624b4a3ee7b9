"""The model card: what a run has learned, how well, how sure that is, and how it was made; ``model_card.md``."""

from __future__ import annotations

import csv
import json
import shlex
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest  # type: ignore[import-untyped]

from neurona.classifier import Classifier
from neurona.runs.files import write_atomically
from neurona.runs.folder import RunFolder

OWN = "## Intended use\n"
TEMPLATE = """
*Not written yet: this is a template. What stands from the heading above on is kept when the card is made again.*

- Made for: … (who is to use it, on what, to decide what)
- Not made for: … (decisions that nobody checks; people, places or times that the data do not have)
- Known weaknesses: … (which classes are mixed up; which rows are rare in the data)

It gives one of the classes above to whatever it is shown, also to what belongs to none. The figures hold for rows
drawn as the test part was; elsewhere they have to be measured again.
"""
RESAMPLES = 2000
VERSIONS = ("onnx", "onnxscript", "onnxruntime", "safetensors")

Interval = tuple[float, float]


def write(folder: RunFolder, classifier: Classifier, exported: Mapping[str, Any]) -> None:
    """Writes the card, keeping what follows the heading "Intended use" of the one there is.

    exported: the figures of the stage. What the run's own files do not tell is left out, or said to be missing.
    """
    path = folder.path / "model_card.md"
    _, _, kept = _text(path).partition(OWN)
    lines = [*_model(folder, classifier, exported), *_data(folder, classifier), *_figures(folder), *_origin(folder)]
    write_atomically(path, "\n".join(lines) + f"\n\n{OWN}{kept or TEMPLATE}")


def wilson(correct: int, total: int) -> Interval:
    """95 % interval of a share, at any share and number (Wilson 1927, "Probable inference, the law of succession, and
    statistical inference", Journal of the American Statistical Association 22, 209–212).
    """
    found = binomtest(correct, total).proportion_ci(0.95, method="wilson")
    return float(found.low), float(found.high)


def resampled(confusion: NDArray[np.int64]) -> dict[str, Interval]:
    """95 % intervals of balanced accuracy and macro F1: percentiles over samples of as many rows, drawn with
    replacement (Efron 1979, "Bootstrap methods: another look at the jackknife", Annals of Statistics 7, 1–26).

    confusion: (num_classes, num_classes), rows by target and prediction, of which these figures are functions.
    """
    generator, total = np.random.default_rng(0), confusion.sum()
    found = np.empty((RESAMPLES, 2))
    for figures in found:
        counts = generator.multinomial(total, confusion.ravel() / total).reshape(confusion.shape)
        correct, actual, predicted = counts.diagonal(), counts.sum(1), counts.sum(0)
        figures[0] = np.mean(correct[actual > 0] / actual[actual > 0])
        occurs = actual + predicted > 0
        figures[1] = np.mean(2 * correct[occurs] / (actual + predicted)[occurs])
    low, high = np.quantile(found, [0.025, 0.975], axis=0).tolist()
    return dict(zip(("balanced_accuracy", "macro_f1"), zip(low, high, strict=True), strict=True))


def _model(folder: RunFolder, classifier: Classifier, exported: Mapping[str, Any]) -> Iterator[str]:
    settings = folder.settings()
    options = ", ".join(f"{name} {value}" for name, value in settings.model.items() if name != "_target_")
    yield f"# Model card: {folder.path.name}\n"
    yield f"- Network: `{settings.model._target_}`, {classifier.num_parameters:,} parameters ({options})"
    yield "- Gives logits and probabilities (their softmax) of the classes below; preprocessing is part of it\n"
    yield f"| file | bytes | largest difference from the network, {exported['rows']:,} test rows |\n|---|---|---|"
    for name in (name.removesuffix("/bytes") for name in exported if name.endswith("/bytes")):
        yield f"| `{name}` | {exported[f'{name}/bytes']:,} | {exported[f'{name}/max_difference']:.1e} |"


def _data(folder: RunFolder, classifier: Classifier) -> Iterator[str]:
    spec, settings = classifier.spec, folder.settings()
    yield f"\n## Data\n\n- `{settings.data._target_}`, {spec.num_features} features, {spec.num_classes} classes:"
    yield f"  {', '.join(spec.class_names)}"
    if card := _text(folder.path / "data_card.txt"):
        yield f"\n```text\n{card.rstrip()}\n```"


def _figures(folder: RunFolder) -> Iterator[str]:
    figures, confusion = folder.metrics(), _confusion(folder.path / "confusion_matrix_test.csv")
    tested = {name.removeprefix("test/"): value for name, value in figures.items() if name.startswith("test/")}
    yield "\n## Metrics\n"
    if figures.get("status") != "finished" or not tested:
        yield f"None: the run has not been finished and tested (status {figures.get('status')})."
        return
    names = [name for name in tested if name.startswith("accuracy_of/")]
    intervals: dict[str, Interval] = {}
    if confusion is not None and _tells(confusion, tested, names):
        intervals = {"accuracy": wilson(int(confusion.trace()), int(confusion.sum())), **resampled(confusion)}
        of_class = zip(names, confusion.diagonal().tolist(), confusion.sum(1).tolist(), strict=True)
        intervals |= {name: wilson(correct, total) for name, correct, total in of_class if total}
        yield f"On the test part, {confusion.sum():,} rows that had no part in fitting, by the best checkpoint.\n"
    else:
        yield "On the test part. `confusion_matrix_test.csv` is of other rows or missing: no intervals.\n"
    yield "| figure | value | 95 % interval |\n|---|---|---|"
    for name, value in tested.items():
        low, high = intervals.get(name, (None, None))
        words = "" if low is None else f"{low:.4f} to {high:.4f}"
        shown = name.replace("|", "\\|").replace("\n", " ")  # a class may be called anything
        yield f"| {shown} | {'' if value is None else f'{value:.4f}'} | {words} |"
    yield "\nIntervals: accuracies, Wilson's (1927); the others, bootstrap percentiles (Efron 1979, 2,000 resamples)."
    yield "They tell what another test part of this size might give, not another seed, split or source of data."
    yield "\n## Calibration\n"
    error = tested.get("calibration_error")
    yield f"The calibration error is {'unknown' if error is None else f'{error:.4f}'}: the mean gap between the"
    yield "probability of the predicted class and how often it is right, over 15 bins (Guo et al. 2017,"
    yield "arXiv:1706.04599, eq. 5); 0 is best. Probabilities are the softmax as trained, not corrected afterwards."


def _origin(folder: RunFolder) -> Iterator[str]:
    try:
        origin = json.loads(_text(folder.path / "provenance.json"))
        command, versions = origin["command"], origin["versions"]
        git, hardware, begun = origin["git"] or {}, origin["hardware"], origin["time"]
    except (ValueError, KeyError, TypeError):
        yield "\n## How it was made\n\n`provenance.json` is missing or damaged."
        return
    words = {**versions, **{name: version(name) for name in VERSIONS}}
    yield f"\n## How it was made\n\n```console\npython {shlex.join(map(str, command))}\n```\n"
    changed = ", with changes" if git.get("dirty") else ""
    yield f"- Begun {begun}, seed {origin['seed']}, commit {git.get('commit', 'unknown')}{changed}"
    yield f"- On {hardware['system']}, {hardware['cores']} cores, GPUs: {', '.join(hardware['gpus']) or 'none'}"
    yield f"- Versions: {', '.join(f'{name} {number}' for name, number in words.items())}"


def _tells(confusion: NDArray[np.int64], tested: Mapping[str, Any], names: list[str]) -> bool:
    """Whether a confusion matrix is of the rows that the figures are of: a later test may have been of others."""
    if len(confusion) != len(names) or not confusion.sum():
        return False
    totals, given = confusion.sum(1), np.array([tested[name] for name in names], dtype=float)
    shares = np.divide(confusion.diagonal(), totals, out=np.full(len(names), np.nan), where=totals > 0)
    accuracy = confusion.trace() / confusion.sum()
    return bool(np.allclose([accuracy, *shares], [tested["accuracy"], *given], atol=1e-6, equal_nan=True))


def _confusion(path: Path) -> NDArray[np.int64] | None:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return np.array([row[1:] for row in csv.reader(file)][1:], dtype=np.int64)
    except (OSError, ValueError):
        return None


def _text(path: Path) -> str:
    """A file's text, nothing where there is none."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
