"""Overrides of the command line, parsed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hydra.conf import HydraConf
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString, ValueType
from hydra.errors import OverrideParseException
from omegaconf import OmegaConf

from neurona.config.hints import CONFIG_DIR
from neurona.errors import ConfigError, UserError

BRACKETS = (("[", "]"), ("{", "}"), ("(", ")"))


def parse(overrides: Sequence[str]) -> list[Override]:
    """The overrides, parsed. Raises UserError for one that cannot be read."""
    try:
        return OverridesParser.create().parse_overrides(list(overrides))
    except OverrideParseException as error:
        raise unreadable(str(error.override)) from error


def unreadable(text: str) -> UserError:
    """What is wrong with an override that cannot be read."""
    if text.endswith(",") and "[" in text:
        return UserError(f"{text}: a list must have no spaces, or be in quotes: 'model.hidden=[128, 64]'")
    if "=~" in text:
        return UserError(f"{text}: cannot be read; the shell does not replace ~ there: write $HOME")
    if any(text.count(opening) != text.count(closing) for opening, closing in BRACKETS):
        return UserError(f"{text}: cannot be read; a bracket is not closed, or not opened")
    return UserError(
        f"{text}: cannot be read; write key=value. A value with commas, quotes, =, brackets or accents"
        " in it goes into quotes of its own inside the shell's: \"data.path='a=b, c.csv'\""
    )


def check_single(overrides: Iterable[Override]) -> None:
    """Raises ConfigError for one with several values, which only a sweep takes."""
    for override in overrides:
        if override.is_sweep_override():
            text = value(override)
            is_choice = override.value_type == ValueType.SIMPLE_CHOICE_SWEEP
            hint = f"for a list write [{text}], for a sweep add -m" if is_choice else "for a sweep add -m"
            raise ConfigError(override.get_key_element(), text, f"several values; {hint}")


def task_overrides(hydra: HydraConf) -> list[str]:
    """The overrides in the node ``hydra``. Interpolations stay as they are: no value of the environment is stored."""
    return list(OmegaConf.to_container(hydra.overrides.task, resolve=False))  # type: ignore[arg-type]


def choice(override: Override) -> str:
    """The name of a choice; a+b for experiment=[a,b]."""
    chosen = override.value()
    return "+".join(map(str, chosen)) if isinstance(chosen, list) else str(chosen)


def with_lists(choices: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Hydra's choices of groups, with those made by a list, which Hydra leaves out."""
    lists = [override for override in parse(overrides) if isinstance(override.value(), list)]
    return {**choices, **{o.key_or_group: choice(o) for o in lists if (CONFIG_DIR / o.key_or_group).is_dir()}}


def root(override: Override) -> str:
    """The first part of its key: of a group, the group."""
    return override.key_or_group.replace("/", ".").partition(".")[0]


def key(override: Override) -> str:
    """Its key, without the marks of what is added or deleted."""
    return override.get_key_element().lstrip("+~")


def value(override: Override) -> str:
    """The text after its =."""
    return str(override.input_line).partition("=")[2]


def written(key: str, text: str) -> str:
    """The override that gives a key a text, whatever characters are in it."""
    return f"{key}={QuotedString(text, Quote.single).with_quotes()}"
