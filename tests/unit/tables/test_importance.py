from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.inspection import permutation_importance as reference
from torch import nn

from neurona.errors import ConfigError
from neurona.tables.importance import MOST_BARS, Importance, bars, permutation_importance

COLUMNS = {"a": [0], "b": [1], "date": [2, 3], "noise": [4]}


def problem() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """A network that does not look at the last column, and 3,000 rows of which it knows the classes rather well."""
    features = torch.randn(3000, 5)
    network = nn.Linear(5, 3)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[3.0, 0, 1, -1, 0], [-3, 1, 0, 0, 0], [0, -1, -1, 1, 0]]))
    targets = (2 * network(features)).softmax(1).multinomial(1).flatten()
    return network, features, targets


class Fitted(ClassifierMixin, BaseEstimator):
    """The network as scikit-learn knows classifiers."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.classes_ = np.arange(3)

    def fit(self, features, targets):
        return self

    def predict_proba(self, features):
        with torch.inference_mode():
            return self.network(torch.from_numpy(features)).double().softmax(1).numpy()

    def predict(self, features):
        return self.predict_proba(features).argmax(1)


def test_it_agrees_with_scikit_learn() -> None:
    network, features, targets = problem()
    rises = permutation_importance(
        network, features, targets, {str(i): [i] for i in range(5)}, 10, torch.Generator().manual_seed(0)
    )
    scorings = ["neg_log_loss", "accuracy"]
    importances = reference(
        Fitted(network), features.numpy(), targets.numpy(), scoring=scorings, n_repeats=10, random_state=0
    )
    for place, scoring in enumerate(scorings):
        ours = np.stack([rises[str(i)][:, place] for i in range(5)])
        theirs = importances[scoring].importances_mean
        spread = importances[scoring].importances_std
        assert (abs(ours.mean(1) - theirs) <= 4 * spread / np.sqrt(10) + 1e-6).all()
        assert theirs[0] > 0.1


def test_a_column_that_the_network_ignores_has_none_and_grouped_ones_move_together() -> None:
    network, features, targets = problem()
    features[:, 3] = features[:, 2]  # the network takes their difference: moved together, nothing changes
    rises = permutation_importance(network, features, targets, COLUMNS, 3, torch.Generator().manual_seed(0))
    assert not rises["noise"].any()
    np.testing.assert_allclose(rises["date"], np.zeros((3, 2)), atol=1e-6)
    assert (rises["a"] > rises["b"]).all()
    assert {name: x.shape for name, x in rises.items()} == dict.fromkeys(COLUMNS, (3, 2))


def test_bars_show_the_most_important_at_the_top() -> None:
    ranked = [(f"c${i}", np.full(2, 40.0 - i)) for i in range(40)]
    (axes,) = bars(ranked).axes
    widths = [bar.get_width() for bar in axes.patches]
    assert widths == sorted(widths)
    assert (len(widths), widths[-1]) == (MOST_BARS, 40)
    assert axes.get_yticklabels()[-1].get_text() == r"c\$0"


def test_a_single_repeat_has_no_spread_and_is_shown() -> None:
    (axes,) = bars([("a", np.array([0.5]))]).axes
    (lines,) = axes.collections
    np.testing.assert_array_equal(lines.get_segments()[0][:, 0], [0.5, 0.5])


@pytest.mark.parametrize("name", ["repeats", "max_rows"])
def test_mistakes(name: str) -> None:
    with pytest.raises(ConfigError, match="must be 1 or more") as error:
        Importance(**{name: 0})
    assert error.value.key == f"trainer.callbacks.importance.{name}"
