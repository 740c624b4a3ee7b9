from __future__ import annotations

import pytest

from neurona.errors import ConfigError, DataError, UserError, did_you_mean


def test_errors_name_key_and_value() -> None:
    error = ConfigError("model.hidden", [], "needs a width")
    assert (str(error), error.key, error.value) == ("model.hidden=[]: needs a width", "model.hidden", [])
    assert str(DataError("a.csv:3", "is empty")) == "a.csv:3: is empty"
    assert isinstance(error, UserError)


@pytest.mark.parametrize(
    ("word", "known", "meant"),
    [
        ("NAdam", ["adam", "nadam"], "nadam"),
        ("relu", ["ReLU", "GELU"], "ReLU"),
        ("test/acc", ["test/auroc", "test/accuracy_of/cat", "test/accuracy"], "test/accuracy"),
        ("fashion", ["mnist", "fashion_mnist"], "fashion_mnist"),
        ("model.activatoin", ["model.activation"], "model.activation"),
    ],
)
def test_what_somebody_may_have_meant(word: str, known: list[str], meant: str) -> None:
    assert did_you_mean(word, known) == f"; did you mean {meant}?"


@pytest.mark.parametrize("word", ["test", "zz", "", "a"])
def test_nothing_is_meant_by_too_little(word: str) -> None:
    assert did_you_mean(word, ["test/accuracy_of_all", "adam"]) == ""
