"""The card's intervals against the rows themselves."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from sklearn.metrics import balanced_accuracy_score, f1_score

from neurona.export.model_card import _figures, resampled
from neurona.runs.folder import RunFolder


def test_resampled_intervals_are_those_of_resampled_rows() -> None:
    confusion, rng = np.array([[50, 3, 2], [4, 30, 6], [0, 2, 23]]), np.random.default_rng(1)
    targets, predictions = (index.ravel().repeat(confusion.ravel()) for index in np.indices(confusion.shape))
    draws = [rng.integers(0, len(targets), len(targets)) for _ in range(300)]
    found = resampled(confusion)
    for name, score, options in (
        ("balanced_accuracy", balanced_accuracy_score, {}),
        ("macro_f1", f1_score, {"average": "macro"}),
    ):
        scores = [score(targets[rows], predictions[rows], **options) for rows in draws]
        np.testing.assert_allclose(found[name], np.quantile(scores, [0.025, 0.975]), atol=0.015)


def test_a_class_may_be_called_anything_in_the_table_of_figures(tmp_path: Path) -> None:
    figures = {"status": "finished", "test/accuracy": 0.5, "test/accuracy_of/a|b\nc": 0.25}
    (tmp_path / "metrics.json").write_text(json.dumps(figures))
    with RunFolder(tmp_path) as folder:
        lines = "\n".join(_figures(folder)).splitlines()
    assert "| accuracy_of/a\\|b c | 0.2500 |  |" in lines
    table = [line.replace("\\|", "") for line in lines if line.startswith("|")]
    assert {line.count("|") for line in table} == {4}
