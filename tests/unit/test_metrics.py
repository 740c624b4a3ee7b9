"""The figures of validation and test are scikit-learn's on the same predictions, however the rows are batched; those of
training steps are means over samples.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import sklearn.metrics
import torch

from neurona.metrics import EvaluationMetrics, StepFigures

UNEVEN = (1, 7, 64, 3, 425)


def evaluated(logits: np.ndarray, targets: np.ndarray, sizes: tuple[int, ...] = UNEVEN) -> dict[str, torch.Tensor]:
    metrics = EvaluationMetrics(logits.shape[1])
    batches = zip(torch.tensor(logits).split(sizes), torch.tensor(targets).split(sizes), strict=True)
    for batch_logits, batch_targets in batches:
        metrics.update(batch_logits, batch_targets)
    return metrics.compute()


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def expected_calibration_error(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """Guo et al. 2017, eq. 3–5: 15 intervals ((m - 1) / 15, m / 15], so that a confidence of 1 is in the last."""
    confidence, correct = probabilities.max(1), probabilities.argmax(1) == targets
    error = 0.0
    for above, up_to in pairwise(np.linspace(0, 1, 16)):
        inside = (confidence > above) & (confidence <= up_to)
        if inside.any():
            error += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    return error


def _random(num_classes: int, scale: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """500 rows whose logits favour the target a little: every figure lies well between its extremes."""
    generator = np.random.default_rng(num_classes)
    targets = generator.integers(0, num_classes, 500)
    logits = scale * generator.standard_normal((500, num_classes))
    logits[np.arange(500), targets] += 1.5
    return logits.astype(np.float32), targets


def _ties() -> tuple[np.ndarray, np.ndarray]:
    """Only six different rows: each score is shared by some eighty samples of all classes."""
    generator = np.random.default_rng(0)
    pool = generator.standard_normal((6, 4)).astype(np.float32)
    pool[0] = 0.5  # all classes equally likely: the first one is predicted
    return pool[generator.integers(0, 6, 500)], generator.integers(0, 4, 500)


def _missing() -> tuple[np.ndarray, np.ndarray]:
    """Class 2 has no sample, but is predicted; class 5 neither."""
    logits, targets = _random(6)
    logits[:, 5] = -20
    targets[targets == 2] = 1
    targets[targets == 5] = 0
    return logits, targets


CASES = {
    "five classes": _random(5),
    "binary": _random(2),
    "ties": _ties(),
    "classes missing": _missing(),
    "saturated": _random(5, scale=40.0),
}


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def case(request) -> tuple[np.ndarray, np.ndarray]:
    return request.param


def test_figures_are_those_of_scikit_learn(case):
    logits, targets = case
    figures, predictions = evaluated(logits, targets), logits.argmax(1)
    # scikit-learn's log_loss clips probabilities, which saturated logits would feel; the definition does not.
    log_probabilities = logits - logits.max(1, keepdims=True).astype(np.float64)
    log_probabilities -= np.log(np.exp(log_probabilities).sum(1, keepdims=True))
    present = np.unique(targets)
    recall = sklearn.metrics.recall_score(targets, predictions, labels=present, average=None, zero_division=0)
    expected = {
        "loss": -log_probabilities[np.arange(len(targets)), targets].mean(),
        "accuracy": sklearn.metrics.accuracy_score(targets, predictions),
        "balanced_accuracy": recall.mean(),
        "macro_f1": sklearn.metrics.f1_score(targets, predictions, average="macro", zero_division=0),
    }
    for name, value in expected.items():
        assert figures[name].item() == pytest.approx(value, rel=1e-6), name
    torch.testing.assert_close(figures["class_accuracy"][torch.from_numpy(present)].double(), torch.from_numpy(recall))
    matrix = sklearn.metrics.confusion_matrix(targets, predictions, labels=range(logits.shape[1]))
    np.testing.assert_array_equal(figures["confusion_matrix"].numpy(), matrix)


@pytest.mark.parametrize("name", ["five classes", "binary"])
def test_loss_and_balanced_accuracy_are_scikit_learns_own(name):
    logits, targets = CASES[name]
    figures = evaluated(logits, targets)
    assert figures["loss"].item() == pytest.approx(sklearn.metrics.log_loss(targets, softmax(logits)), rel=1e-6)
    balanced = sklearn.metrics.balanced_accuracy_score(targets, logits.argmax(1))
    assert figures["balanced_accuracy"].item() == pytest.approx(balanced, rel=1e-6)


@pytest.mark.parametrize("name", ["five classes", "ties"])
def test_auroc_is_scikit_learns_one_versus_rest_macro_mean(name):
    logits, targets = CASES[name]
    expected = sklearn.metrics.roc_auc_score(targets, softmax(logits), multi_class="ovr", average="macro")
    assert evaluated(logits, targets)["auroc"].item() == pytest.approx(expected, abs=1e-6)


def test_auroc_of_two_classes_is_the_usual_one():
    logits, targets = CASES["binary"]
    expected = sklearn.metrics.roc_auc_score(targets, softmax(logits)[:, 1])
    assert evaluated(logits, targets)["auroc"].item() == pytest.approx(expected, abs=1e-6)


def test_auroc_is_the_mean_over_the_classes_that_have_samples():
    logits, targets = CASES["classes missing"]
    probabilities = softmax(logits)
    scores = [sklearn.metrics.roc_auc_score(targets == label, probabilities[:, label]) for label in np.unique(targets)]
    assert evaluated(logits, targets)["auroc"].item() == pytest.approx(np.mean(scores), abs=1e-6)


def test_average_precision_is_scikit_learns_mean_over_the_classes_that_have_samples(case):
    logits, targets = case
    # In its own precision: rounding makes ties, which count.
    probabilities = torch.log_softmax(torch.tensor(logits), 1).exp().numpy()
    score = sklearn.metrics.average_precision_score
    scores = [score(targets == label, probabilities[:, label]) for label in np.unique(targets)]
    assert evaluated(logits, targets)["average_precision"].item() == pytest.approx(np.mean(scores), abs=1e-6)


def test_one_class_alone_has_no_auroc_and_full_precision():
    figures = evaluated(CASES["binary"][0], np.ones(500, dtype=np.int64))
    assert figures["auroc"].isnan()
    assert figures["average_precision"] == 1


def test_calibration_error_follows_its_definition(case):
    logits, targets = case
    probabilities = torch.softmax(torch.tensor(logits), 1).numpy()
    expected = expected_calibration_error(probabilities, targets)
    assert evaluated(logits, targets)["calibration_error"].item() == pytest.approx(expected, abs=1e-6)


def test_a_confidence_of_exactly_one_belongs_to_the_last_bin():
    """Two rows in one bin, their errors of opposite sign: confidence 1 and wrong, confidence 0.95 and right."""
    logits = np.array([[200.0, 0.0], [np.log(0.95 / 0.05), 0.0]], dtype=np.float32)
    targets = np.array([1, 0])
    assert evaluated(logits, targets, sizes=(2,))["calibration_error"].item() == pytest.approx(0.975 - 0.5, abs=1e-6)


def test_a_loss_that_is_none_in_one_batch_is_none():
    logits, targets = CASES["binary"]
    broken = logits.copy()
    broken[3, 0] = np.nan
    assert evaluated(broken, targets)["loss"].isnan()
    assert not evaluated(logits, targets)["loss"].isnan()


def test_a_class_without_samples_has_no_accuracy():
    logits, targets = CASES["classes missing"]
    assert evaluated(logits, targets)["class_accuracy"].isnan().tolist() == [False, False, True, False, False, True]


def test_batching_changes_counts_by_nothing_and_the_loss_by_rounding_only():
    logits, targets = CASES["five classes"]
    one, many = evaluated(logits, targets, sizes=(500,)), evaluated(logits, targets)
    assert one.pop("loss").item() == pytest.approx(many.pop("loss").item(), rel=1e-6)
    for name, value in one.items():
        torch.testing.assert_close(value, many[name], rtol=0, atol=0)


def test_reset_forgets_everything():
    metrics = EvaluationMetrics(2)
    metrics.update(torch.tensor([[9.0, 0.0]]), torch.tensor([1]))
    metrics.reset()
    metrics.update(torch.tensor([[9.0, 0.0], [0.0, 9.0]]), torch.tensor([0, 1]))
    figures = metrics.compute()
    assert figures["accuracy"] == 1
    assert figures["confusion_matrix"].tolist() == [[1, 0], [0, 1]]
    assert figures["auroc"] == 1


def test_half_precision_logits_are_evaluated_in_single_precision():
    logits, targets = CASES["five classes"]
    half = torch.tensor(logits).bfloat16()
    metrics = EvaluationMetrics(5)
    metrics.update(half, torch.tensor(targets))
    expected = evaluated(half.float().numpy(), targets, sizes=(500,))
    torch.testing.assert_close(metrics.compute()["loss"], expected["loss"], rtol=0, atol=0)


def test_means_are_over_samples_not_over_mini_batches() -> None:
    figures = StepFigures()
    figures.add([1.0, 4.0], [30, 10], correct=20)
    assert figures.epoch_means() == (pytest.approx((30 * 1 + 10 * 4) / 40), 0.5)
    figures.add([2.0], [40], correct=40)
    assert figures.epoch_means() == (pytest.approx((30 + 40 + 80) / 80), 60 / 80)
    assert figures.samples == 80


def test_the_next_epoch_and_the_next_logged_step_begin_anew() -> None:
    figures = StepFigures()
    figures.add([1.0], [10], correct=5)
    assert figures.logged_loss() == 1
    figures.begin_epoch()
    figures.add([3.0], [10], correct=10)
    assert (figures.epoch_means(), figures.logged_loss()) == ((3, 1), 3)
    assert math.isnan(figures.logged_loss())


def test_what_is_stored_goes_on() -> None:
    figures, resumed = StepFigures(), StepFigures()
    figures.add([1.0], [10], correct=5)
    resumed.restore(figures.state())
    resumed.add([3.0], [10], correct=5)
    assert resumed.epoch_means() == (2, 0.5)
