"""Overrides as they are written on the command line: parsed, and taken apart."""

from __future__ import annotations

from collections.abc import Sequence

from hydra.conf import HydraConf
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import OverrideParseException
from omegaconf import OmegaConf

from neurona.config.explain import explain


def parse(overrides: Sequence[str]) -> list[Override]:
    """Raises UserError for one that cannot be read."""
    try:
        return OverridesParser.create().parse_overrides(list(overrides))
    except OverrideParseException as error:
        raise explain(error) from error


def task_overrides(hydra: HydraConf) -> list[str]:
    """The overrides that the node ``hydra`` tells of, as they were given: what they take from the environment is looked
    up anew, and kept in no file.
    """
    return list(OmegaConf.to_container(hydra.overrides.task, resolve=False))  # type: ignore[arg-type]


def root(override: Override) -> str:
    """The first part of its key: of a group, the group."""
    return override.key_or_group.replace("/", ".").partition(".")[0]


def key(override: Override) -> str:
    """Its key, without the marks of what is added or deleted."""
    return override.get_key_element().lstrip("+~")


def value(override: Override) -> str:
    """What stands behind its =, as it is written."""
    return str(override.input_line).partition("=")[2]


def written(key: str, text: str) -> str:
    """The override that gives a key a text, whatever characters are in it."""
    return f"{key}={QuotedString(text, Quote.single).with_quotes()}"
