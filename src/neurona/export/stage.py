"""``stage=export``: writes the best checkpoint of an earlier run in the forms of ``neurona.export.forms``."""

from __future__ import annotations

from typing import Any

from neurona.export import forms
from neurona.stages import assembly, console, record
from neurona.stages.request import Request


def run(request: Request) -> dict[str, Any]:
    """Returns the figures of ``metrics_export.json``."""
    forms.check()
    folder = request.open_folder()
    classifier, datamodule = assembly.trained(request, folder)
    request.cfg.folder = str(folder.path)
    with console.train_log(folder), record.ends_explained(folder):
        figures = forms.write(classifier, datamodule, folder)
        folder.write_metrics(figures, "export")
        console.conclude(figures, folder.path)
    return figures
