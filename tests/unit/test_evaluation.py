"""Temperatures are those that a search over all of them finds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.optimize
import sklearn.metrics
import torch
from noise import Noise

from neurona.classifier import Classifier
from neurona.evaluation import temperature
from neurona.models.mlp import MLP
from neurona.optimizer import Optimization
from neurona.runs.checkpoint import transfer


def loss_at(value: float, logits: torch.Tensor, targets: torch.Tensor) -> float:
    probabilities = torch.softmax(logits.double() / value, dim=1).numpy()
    return float(sklearn.metrics.log_loss(targets, probabilities, labels=range(logits.shape[1])))


def by_search(logits: torch.Tensor, targets: torch.Tensor) -> float:
    def penalised(logarithm: float) -> float:
        return len(targets) * loss_at(np.exp(logarithm), logits, targets) + logarithm**2 / (2 * 0.5**2)

    search = scipy.optimize.minimize_scalar(penalised, bounds=(-3, 3), method="bounded", options={"xatol": 1e-10})
    return float(np.exp(search.x))


@pytest.mark.parametrize("factor", [0.2, 1.0, 5.0])
def test_the_loss_is_least(factor: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = factor * torch.randn(3000, 4, generator=generator)
    targets = torch.multinomial(torch.softmax(logits / factor, dim=1), 1, generator=generator).flatten()
    found = temperature(logits, targets)
    assert found == pytest.approx(by_search(logits, targets), rel=1e-5)
    assert found == pytest.approx(factor, rel=0.2)  # of so many rows, the prior counts little


def test_a_few_rows_that_are_all_right_make_it_no_extreme() -> None:
    logits = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    for targets in (torch.tensor([0, 1]), torch.tensor([1, 0])):
        assert temperature(logits, targets) == pytest.approx(by_search(logits, targets), rel=1e-5)
    assert 0.5 < temperature(logits, torch.tensor([0, 1])) < 1
    assert 1 < temperature(logits, torch.tensor([1, 0])) < 2.5
    assert temperature(logits[:0], torch.tensor([], dtype=torch.int64)) == pytest.approx(1, abs=1e-6)
    assert temperature(logits * torch.inf, torch.tensor([0, 1])) == 1


def test_rows_of_other_processes_count() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, targets = torch.randn(100, 3, generator=generator), torch.randint(3, (100,), generator=generator)
    totals: list[float] = []  # what a process with the first 60 rows asks for, as those with all rows find it

    def kept(sums: torch.Tensor) -> torch.Tensor:
        totals.append(float(sums))
        return sums

    whole = temperature(logits, targets, kept)
    answers = iter(totals)
    assert temperature(logits[:60], targets[:60], lambda _: torch.tensor(next(answers), dtype=torch.float64)) == whole
    assert temperature(logits[:0], targets[:0], lambda _: torch.tensor(totals.pop(0), dtype=torch.float64)) == whole


def test_a_fit_sets_it_and_reports_with_it(make_trainer: Any, make_classifier: Any) -> None:
    torch.manual_seed(0)
    adam = Optimization.of(torch.optim.Adam, lr=1e-2)
    classifier = make_classifier(MLP(12, 4, hidden=[8]), 12, 4, adam, label_smoothing=0.2, calibrate=True)
    data = Noise(330, 12, 4)
    trainer = make_trainer(max_epochs=3, limit_val_batches=1.0)
    trainer.fit(classifier, data)
    features, targets = data.features[:100], data.targets[:100]
    classifier.eval()
    with torch.no_grad():
        logits = classifier.network(classifier.preprocessing(features))
        assert classifier.calibration.item() == pytest.approx(temperature(logits, targets), rel=1e-6)
        assert classifier.calibration.item() != 1
        torch.testing.assert_close(classifier(features), logits / classifier.calibration)
        assert torch.equal(classifier.train()(features), logits)
    expected = loss_at(classifier.calibration.item(), logits, targets)
    assert trainer.callback_metrics["val/loss"].item() == pytest.approx(expected, rel=1e-5)
    assert np.isclose(float(classifier.state_dict()["calibration"]), classifier.calibration.item())


def test_a_forward_of_ones_own_is_not_calibrated_as_it_may_not_divide(make_classifier: Any) -> None:
    class Own(Classifier):
        def forward(self, features: torch.Tensor) -> torch.Tensor:
            return 5 * self.network(features)

    assert make_classifier(MLP(12, 4, hidden=[8]), 12, 4, calibrate=True, kind=Own).calibration is None


def test_weights_of_another_run_come_without_its_temperature(make_classifier: Any) -> None:
    first, second = (make_classifier(MLP(12, 4, hidden=[8]), 12, 4, calibrate=True) for _ in range(2))
    first.calibration.fill_(3.0)
    assert transfer({"state_dict": first.state_dict()}, second) == []
    assert second.calibration.item() == 1
    assert torch.equal(second.network.head.weight, first.network.head.weight)
