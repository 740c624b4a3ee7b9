"""A short fit on random numbers, for what is asked of a fit's steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from lightning.pytorch import seed_everything
from noise import KeepsSteps, Noise
from torch import nn

from neurona.classifier import Classifier
from neurona.models.mlp import MLP


def small() -> MLP:
    return MLP(12, 4, hidden=[8])


@pytest.fixture
def fit_noise(make_trainer: Callable[..., Any], make_classifier: Callable[..., Any]) -> Callable[..., Classifier]:
    """The classifier after a fit on 330 rows of 12 features and 4 classes, in mini-batches of 16."""

    def fit(
        optimization: Any,
        *callbacks: Any,
        network: Callable[[], nn.Module] = small,
        max_epochs: int = 1,
        limit_val_batches: float = 0,
        **options: Any,
    ) -> Classifier:
        seed_everything(0, verbose=False)
        classifier = make_classifier(network(), 12, 4, optimization, **options)
        classifier.kept = KeepsSteps()
        trainer = make_trainer(*callbacks, classifier.kept, max_epochs=max_epochs, limit_val_batches=limit_val_batches)
        trainer.fit(classifier, Noise(330, 12, 4))
        return classifier

    return fit
