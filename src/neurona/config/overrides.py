"""Overrides of the command line, parsed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hydra.conf import HydraConf
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString, ValueType
from hydra.errors import OverrideParseException
from omegaconf import OmegaConf

from neurona.config import registry
from neurona.config.hints import CONFIG_DIR
from neurona.errors import ConfigError, UserError

OF_SWEEPS = ("hydra.sweep.", "hydra.sweeper.", "hydra.launcher.")
"""How the keys begin that a single run has no use for."""

BRACKETS = (("[", "]"), ("{", "}"), ("(", ")"))


def parse(overrides: Sequence[str]) -> list[Override]:
    """The overrides, parsed. Raises UserError for one that cannot be read."""
    try:
        return OverridesParser.create().parse_overrides(list(overrides))
    except OverrideParseException as error:
        raise unreadable(str(error.override)) from error


def unreadable(text: str) -> UserError:
    """What is wrong with an override that cannot be read."""
    return UserError(f"{text}: {_problem(text)}")


def _problem(text: str) -> str:
    key, equals, value = text.partition("=")
    if text.startswith("-") and equals:
        return f"cannot be read; write {text.lstrip('-')}"
    if text.startswith("-"):
        return f"options, and sweeps by -m, are the command line's: python train.py {text} …"
    if key != key.strip():
        return f"no blanks go beside the =; write {key.strip()}={value.strip()}"
    if text.endswith(",") and "[" in text:
        return "a list must have no spaces, or be in quotes: 'model.hidden=[128, 64]'"
    if text.endswith(",") and value.strip(","):
        return f"a blank behind a comma begins another argument; leave it out: {text}…"
    if equals and "/" in key and "." in key:
        return f"a key has dots, a slash is for a choice; write {key.replace('/', '.')}={value}"
    if value.startswith("(") and value.endswith(")"):
        return f"a list has square brackets; write {key}=[{value[1:-1].rstrip(',')}]"
    if "=~" in text:
        return "cannot be read; the shell does not replace ~ there: write $HOME"
    if any(text.count(opening) != text.count(closing) for opening, closing in BRACKETS):
        return "cannot be read; a bracket is not closed, or not opened, or a blank is in it without quotes"
    if not equals:
        group, _, choice = text.rpartition("/")
        is_choice = bool(group) and (CONFIG_DIR / f"{text}.yaml").is_file()
        line = f"{group}={choice}" if is_choice else f"stage={text}" if text in registry.STAGES else ""
        return f"cannot be read; write {line or 'key=value, without blanks beside the ='}"
    is_key = re.fullmatch(r"(\+\+?|~)?[A-Za-z_][\w@:/-]*(\.[\w@:-]+)*", key, re.ASCII)
    if not is_key or value.startswith(("[", "{", "(", "'", '"')):
        return "cannot be read; write key=value, and a text in it with special signs in quotes of its own"
    problem = "cannot be read; a text with commas, quotes, =, brackets or accents goes into quotes of its own"
    return f"{problem} inside the shell's: {_quoted(written(key, value))}"


def check_single(overrides: Iterable[Override]) -> None:
    """Raises ConfigError for one with several values, which only a sweep takes."""
    for override in overrides:
        if override.is_sweep_override():
            text = value(override)
            is_choice = override.value_type == ValueType.SIMPLE_CHOICE_SWEEP
            hint = f"for a list write [{text}], " if is_choice else ""
            problem = f"several values; {hint}for a sweep add -m on the command line"
            raise ConfigError(override.get_key_element(), text, problem)


def check_of_run(overrides: Iterable[Override]) -> None:
    """Raises ConfigError for one that only a sweep uses."""
    for override in overrides:
        if f"{key(override).replace('/', '.')}.".startswith(OF_SWEEPS) and override.value() is not None:
            problem = "is for a sweep: add -m on the command line, or leave it out"
            raise ConfigError(key(override), value(override), problem)


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


def typed(key: str, value: object) -> str:
    """The override as it is typed in Python, with Hydra's quotes where it needs them."""
    text, line = str(value), f"{key}={value}"
    is_plain = re.fullmatch(r"[\w./@:+-]+( [\w./@:+-]+)*", text, re.ASCII) and parse([line])[0].value() == text
    return line if is_plain else written(key, text)


def in_shell(key: str, value: object) -> str:
    """The override as it is typed in a shell."""
    return _quoted(typed(key, value))


def _quoted(line: str) -> str:
    """A line in a shell's quotes where it needs them, in double ones where that leaves it readable."""
    return f'"{line}"' if "'" in line and not set('"$`\\!') & set(line) else shlex.quote(line)


def written(key: str, text: str) -> str:
    """The override that gives a key a text, whatever characters are in it."""
    return f"{key}={QuotedString(text, Quote.single).with_quotes()}"
