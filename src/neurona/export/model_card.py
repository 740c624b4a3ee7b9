"""The model card, ``model_card.md``: what a run has learned, how well, and how it was made."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from neurona.classifier import Classifier
from neurona.runs.files import write_atomically
from neurona.runs.folder import RunFolder

CARD = """\
# Model card: {run}

- Network: `{network}`, {parameters:,} parameters ({options})
- Gives logits and probabilities (their softmax) of the classes below; preprocessing is part of it

| file | bytes | largest difference from the network, {rows:,} test rows |
|---|---|---|
{files}

## Data

- `{data}`, {features} features, {classes} classes:
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
    spec, settings, metrics = classifier.spec, folder.settings(), folder.metrics()
    files = [name.removesuffix("/bytes") for name in exported if name.endswith("/bytes")]
    is_finished = metrics.get("status") == "finished"
    tested = {name: value for name, value in metrics.items() if name.startswith("test/") and is_finished}
    card = CARD.format(
        run=folder.path.name,
        network=settings.model["_target_"],
        parameters=classifier.num_parameters,
        options=", ".join(f"{name} {value}" for name, value in settings.model.items() if name != "_target_"),
        rows=exported["rows"],
        files="\n".join(
            f"| `{f}` | {exported[f'{f}/bytes']:,} | {exported[f'{f}/max_difference']:.1e} |" for f in files
        ),
        data=settings.data["_target_"],
        features=spec.num_features,
        classes=spec.num_classes,
        class_names=", ".join(spec.class_names),
        data_card=f"\n```text\n{data_card.read_text(encoding='utf-8').rstrip()}\n```\n" if data_card.exists() else "",
        status=metrics.get("status", "unknown"),
        figures="\n".join(_row(name.removeprefix("test/"), value) for name, value in tested.items()),
        origin=_origin(folder),
    )
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    write_atomically(path, card + HEADING + (old.partition(HEADING)[2] or INTENDED_USE))


def _row(name: str, value: float | None) -> str:
    """Of a table of figures. A class, whose name stands in some, may be called anything."""
    cell = name.replace("|", "\\|").replace("\n", " ")
    return f"| {cell} | {'' if value is None else f'{value:.4f}'} |"


def _origin(folder: RunFolder) -> str:
    try:
        origin = json.loads((folder.path / "provenance.json").read_text(encoding="utf-8"))
        command, git, versions = (
            shlex.join(origin["command"]),
            origin["git"] or {"commit": "unknown"},
            origin["versions"],
        )
        begun = f"Begun {origin['time']}, seed {origin['seed']}, commit {git['commit']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "`provenance.json` is missing or damaged."
    begun += ", with changes" if git.get("dirty") else ""
    versions |= {name: version(name) for name in ("onnx", "onnxscript", "onnxruntime", "safetensors")}
    words = ", ".join(f"{name} {number}" for name, number in versions.items())
    return f"```console\npython {command}\n```\n\n- {begun}\n- Versions: {words}"
