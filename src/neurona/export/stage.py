"""``stage=export``: writes the best checkpoint of an earlier run in the forms of ``neurona.export.forms``."""

from __future__ import annotations

import logging
from typing import Any

from neurona.classifier import changes_batches
from neurona.export import forms
from neurona.stages import assembly, console, record
from neurona.stages.request import Request

log = logging.getLogger(__name__)


def run(request: Request) -> dict[str, Any]:
    """Returns the figures of ``metrics_export.json``."""
    forms.check()
    folder = request.open_folder()
    classifier, datamodule = assembly.trained(request, folder)
    request.cfg.folder = str(folder.path)
    if hooks := changes_batches(classifier, datamodule):
        log.warning("%s is not in the files: give them features as it leaves them, or make it forward's", hooks)
    with console.train_log(folder), record.ends_explained(folder):
        figures = forms.write(classifier, datamodule, folder)
        folder.write_metrics(figures, "export")
        console.conclude(figures, folder.path)
    return figures
