"""The model card, ``model_card.md``: what a run has learned, how well, and how it was made."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from neurona.classifier import Classifier
from neurona.report.page import escaped, fenced
from neurona.runs.files import read_json, read_text, write_atomically
from neurona.runs.folder import RunFolder

CARD = """\
# Model card: {title}

- Network: `{settings.model[_target_]}`, {classifier.num_parameters:,} parameters ({options})
- Gives logits and probabilities (their softmax) of the classes below; preprocessing is part of it

| file | bytes | largest difference from the network, {exported[rows]:,} test rows |
|---|---|---|
{files}

## Data

- `{settings.data[_target_]}`, {spec.num_features} features, {spec.num_classes} classes:
  {class_names}
{data_card}
## Metrics

Of the best checkpoint, on the test part, which had no part in fitting. Status of the run: {status}.

| figure | value |
|---|---|
{figures}

## How it was made

{origin}

"""
HEADING = "## Intended use\n"
INTENDED_USE = """
*Not written yet: this is a template. What stands from the heading above on is kept when the card is made again.*

- Made for: … (who is to use it, on what, to decide what)
- Not made for: … (decisions that nobody checks; people, places or times that the data do not have)
- Known weaknesses: … (which classes are mixed up; which rows are rare in the data)

It gives one of the classes above to whatever it is shown, also to what belongs to none. The figures hold for rows
drawn as the test part was; elsewhere they have to be measured again.
"""


def write(folder: RunFolder, classifier: Classifier, exported: Mapping[str, Any]) -> None:
    """Writes the card, keeping what follows the heading "Intended use" of the one there is.

    exported: the figures of the stage. Figures of a run that has not been finished and tested are left out.
    """
    path, data_card = folder.path / "model_card.md", folder.path / "data_card.txt"
    settings, metrics = folder.settings(), folder.metrics()
    files = [name.removesuffix("/bytes") for name in exported if name.endswith("/bytes")]
    sizes = [(f"`{x}`", f"{exported[f'{x}/bytes']:,}", f"{exported[f'{x}/max_difference']:.1e}") for x in files]
    tested = [name for name in metrics if name.startswith("test/") and metrics.get("status") == "finished"]
    figures = [
        (_words(x.removeprefix("test/")), f"{metrics[x]:.4f}" if isinstance(metrics[x], int | float) else "")
        for x in tested
    ]
    card = CARD.format(
        folder=folder,
        settings=settings,
        classifier=classifier,
        spec=classifier.spec,
        exported=exported,
        options=", ".join(_words(f"{name} {value}") for name, value in settings.model.items() if name != "_target_"),
        files=_table(sizes),
        title=_words(folder.path.name),
        class_names=", ".join(map(_words, classifier.spec.class_names)),
        data_card=f"\n{fenced('text', read_text(data_card).rstrip())}\n" if data_card.exists() else "",
        status=metrics.get("status", "unknown"),
        figures=_table(figures),
        origin=_origin(folder),
    )
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    write_atomically(path, card + HEADING + (old.partition(HEADING)[2] or INTENDED_USE))


def _words(text: str) -> str:
    """A text that may be anything, as Markdown; an underscore within a word is one anyway."""
    return re.sub(r"(?<=[^\W_])\\_(?=[^\W_])", "_", escaped(text))


def _table(rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _origin(folder: RunFolder) -> str:
    try:
        origin = read_json(folder.path / "provenance.json")
        git = origin["git"] or {"commit": "unknown", "dirty": False}
        changes = ", with changes" if git["dirty"] else ""
        versions = origin["versions"] | {
            name: version(name) for name in ("onnx", "onnxscript", "onnxruntime", "safetensors")
        }
        return (
            f"{fenced('console', shlex.join(['python', *origin['command']]))}\n\n"
            f"- Begun {origin['time']}, seed {origin['seed']}, commit {git['commit']}{changes}\n"
            f"- Versions: {', '.join(f'{name} {number}' for name, number in versions.items())}"
        )
    except (KeyError, TypeError):
        return "`provenance.json` is missing or damaged."
