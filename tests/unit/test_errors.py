from __future__ import annotations

from neurona.errors import ConfigError, DataError, UserError


def test_errors_name_key_and_value() -> None:
    error = ConfigError("model.hidden", [], "needs a width")
    assert (str(error), error.key, error.value) == ("model.hidden=[]: needs a width", "model.hidden", [])
    assert str(DataError("a.csv:3", "is empty")) == "a.csv:3: is empty"
    assert isinstance(error, UserError)
