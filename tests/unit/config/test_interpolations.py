"""What interpolations come to: numbers from the environment are values, its texts are never written down."""

from __future__ import annotations

from typing import Any

import pytest
from omegaconf import OmegaConf
from omegaconf.resolvers import oc

from neurona.config.interpolations import EnvironmentText, resolved, settle, storable, typed
from neurona.errors import ConfigError


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SECRET": "s3cr3t", "NUMBER": "9", "WIDTHS": "[3,4]"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("ABSENT", raising=False)


@pytest.mark.parametrize(
    ("raw", "value", "kept"),
    [
        ("${oc.env:SECRET}", "s3cr3t", True),
        ("${ oc.env:SECRET}", "s3cr3t", True),
        ("${oc.env:SECRET}.csv", "s3cr3t.csv", True),
        ("a/${oc.env:ABSENT,${oc.env:SECRET}}", "a/s3cr3t", True),
        ("${oc.decode:${oc.env:SECRET}}", "s3cr3t", True),
        ("${other}", "s3cr3t", True),
        ("${folder}/x", "logs/r/x", True),
        ("${place}/y", "logs/r/x/y", True),
        (r"\${literal}", "${literal}", True),
        ("${oc.decode:${oc.env:NUMBER,5}}", 9, False),
        ("${oc.decode:${oc.env:ABSENT,5}}", 5, False),
        ("${oc.decode:${oc.env:WIDTHS}}", [3, 4], False),
        ("${oc.env:ABSENT,null}", None, False),
        ("${seed}", 1, False),
        ("${tags}", ["a"], False),
        ("plain", "plain", False),
    ],
)
def test_a_value(raw: str, value: Any, kept: bool) -> None:
    rest = {"folder": "logs/r", "seed": 1, "tags": ["a"], "other": "${oc.env:SECRET}", "place": "${folder}/x"}
    for at in (lambda leaf: leaf, lambda leaf: {"a.b": [leaf]}):
        cfg = OmegaConf.create({**rest, "x": at(raw)})
        assert resolved(cfg)["x"] == at(value)
        stored, _ = storable(cfg)
        assert stored["x"] == at(raw if kept else value)
        assert "s3cr3t" not in str(stored)
        assert stored["folder"] == "logs/r"
        assert OmegaConf.to_container(OmegaConf.create(stored), resolve=True)["x"] == at(value)


def test_what_is_kept_is_named() -> None:
    cfg = OmegaConf.create(
        {"folder": None, "tags": ["a", "${oc.env:SECRET}"], "data": {"path": "${tags[1]}.csv", "seed": "${n}"}}
        | {"n": "${oc.decode:${oc.env:NUMBER}}", "logger": {"dir": "${folder}"}}
    )
    assert storable(cfg)[1] == ["tags[1]", "data.path"]


def test_a_variable_that_is_missing_is_asked_for_by_name() -> None:
    cfg = OmegaConf.create({"folder": None, "data": {"path": ["${oc.env:ABSENT}.csv"]}})
    for read in (resolved, storable):
        with pytest.raises(ConfigError, match="needs the environment variable ABSENT, which is not set") as caught:
            read(cfg)
        assert caught.value.key == "data.path[0]"
    with pytest.raises(ConfigError, match=r"x=\$\{nothing\}: .*'nothing' not found"):
        resolved(OmegaConf.create({"folder": None, "x": "${nothing}"}))


@pytest.mark.parametrize(
    ("text", "annotation", "value"),
    [
        ("9", int, 9),
        ("1e-3", float | None, 0.001),
        ("null", float | None, None),
        ("true", bool, True),
        ("[3,4]", list[int], [3, 4]),
        ("9", str, "9"),
        ("9", str | None, "9"),
        ("9", Any, "9"),
        ("nine", int, "nine"),
        ("[3,", list[int], "[3,"),
    ],
)
def test_the_type_of_a_key_decides_what_a_text_is(text: str, annotation: Any, value: Any) -> None:
    assert typed(EnvironmentText(text), annotation) == value
    assert type(typed(EnvironmentText(text), annotation)) in (type(value), EnvironmentText)
    assert typed([EnvironmentText(text)], list[annotation]) == [value]
    assert typed(text, annotation) == text


def test_what_a_text_has_become_takes_its_place() -> None:
    cfg = OmegaConf.create(
        {"folder": None, "seed": "${oc.env:NUMBER}", "model": {"hidden": [1, "${oc.env:NUMBER}"]}, "tag": "${seed}"}
    )
    OmegaConf.set_struct(cfg, True)
    values = resolved(cfg)
    values["seed"], values["model"]["hidden"] = typed(values["seed"], int), typed(values["model"]["hidden"], list[int])
    settle(cfg, values)
    assert OmegaConf.to_container(cfg) == {"folder": None, "seed": 9, "model": {"hidden": [1, 9]}, "tag": "${seed}"}


def test_a_resolver_of_the_users_own_is_asked_and_stays_registered() -> None:
    OmegaConf.register_new_resolver("oc.env", lambda name, default=None: f"vault's {name}", replace=True)
    try:
        cfg = OmegaConf.create({"folder": None, "x": "${oc.env:SECRET}"})
        assert resolved(cfg)["x"] == "vault's SECRET"
        assert storable(cfg) == ({"folder": None, "x": "${oc.env:SECRET}"}, ["x"])
        assert cfg.x == "vault's SECRET"
    finally:
        OmegaConf.register_new_resolver("oc.env", oc.env, replace=True)
