from __future__ import annotations

import shlex

import pytest

from neurona.config import overrides
from neurona.errors import ConfigError, UserError


@pytest.mark.parametrize(
    ("text", "root", "key", "value"),
    [
        ("model.hidden=[1,2]", "model", "model.hidden", "[1,2]"),
        ("+a.b='x=y'", "a", "a.b", "'x=y'"),
        ("~seed", "seed", "seed", ""),
        ("++x=1", "x", "x", "1"),
        ("optimizer/schedule=cosine", "optimizer", "optimizer/schedule", "cosine"),
    ],
)
def test_the_parts_of_an_override(text: str, root: str, key: str, value: str) -> None:
    (override,) = overrides.parse([text])
    assert (overrides.root(override), overrides.key(override), overrides.value(override)) == (root, key, value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "plain",
        "a=b, 'c'",
        "it's",
        "\\'",
        "\\\\",
        "${x}",
        "[1",
        "a\nb",
        "é ü",
        "a b",
        "~/x",
        "it's !",
        "true",
        "2026",
        "True",
        "1_000",
        "wow!",
    ],
)
def test_a_text_that_is_written_is_read_again(text: str) -> None:
    in_python = [overrides.written("key", text), overrides.typed("key", text)]
    for line in [*in_python, *shlex.split(overrides.in_shell("key", text))]:
        (override,) = overrides.parse([line])
        assert override.value() == text
    assert overrides.in_shell("run", "logs/a_1/2026-11-30") == "run=logs/a_1/2026-11-30"
    assert overrides.in_shell("key", "é!") == """'key='"'"'é!'"'"''"""  # bash repeats a command by ! within "


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a=[1,", "a list must have no spaces"),
        ("a=~/x", "write $HOME"),
        ("a=(1", "a bracket is not closed"),
        ("a", "write key=value, without blanks beside the ="),
        ("a=é b,c", "goes into quotes of its own inside the shell's: \"a='é b,c'\""),
        ("a=(1,2)", "write a=[1,2]"),
        ("a = 1", "write a=1"),
        ("a=1,", "a blank behind a comma begins another argument"),
        ("a/b.c=1", "write a.b.c=1"),
    ],
)
def test_what_cannot_be_read(text: str, message: str) -> None:
    with pytest.raises(UserError, match="^" + "a") as caught:
        overrides.parse([text])
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optimizer/sgd", "write optimizer=sgd"),
        ("fit", "write stage=fit"),
        ("--optimizer.lr=3", "write optimizer.lr=3"),
        ("é=3", "write key=value, and a text in it"),
        ("3=4", "write key=value, and a text in it"),
        ("-m", "sweeps by -m, are the command line's: python train.py -m"),
    ],
)
def test_a_word_that_is_no_setting(text: str, message: str) -> None:
    with pytest.raises(UserError, match=f"^{text}: ") as caught:
        overrides.parse(["seed=1", text])
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("+a=1,2", "for a list write [1,2], for a sweep add -m on the command line"),
        ("a=range(1,3)", "several values; for a sweep add -m on the command line"),
    ],
)
def test_several_values_are_a_sweeps(text: str, hint: str) -> None:
    overrides.check_single(overrides.parse(["a=[1,2]", "b='1,2'"]))
    with pytest.raises(ConfigError) as caught:
        overrides.check_single(overrides.parse([text]))
    assert str(caught.value).startswith(f"{text}: ")
    assert str(caught.value).endswith(hint)
