"""Errors with messages for the user, checks of values, and suggestions. Imports nothing from the project."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Collection
from difflib import get_close_matches
from typing import Any


class UserError(ValueError):
    """A mistake of the user, which is shown as one short paragraph; exit status 2."""


class RunError(RuntimeError):
    """A run fails although its configuration is right, which is shown as one paragraph; exit status 1."""


class HopelessRun(RunError):
    """A failure that would happen again, also from the last checkpoint."""


class JobFailed(Exception):
    """The launcher of a sweep has a defect, which is the cause; jobs may have been running."""


class ConfigError(UserError):
    """A configuration value that is not allowed.

    key: its dotted path (``model.hidden``); value: what was given; problem: what is allowed, and the remedy.
    """

    def __init__(self, key: str, value: object, problem: str) -> None:
        super().__init__(f"{key}={value}: {problem}")
        self.key = key
        self.value = value


class DataError(UserError):
    """Data that cannot be read or used. where: the file (and line) or data set; problem: what is wrong, the remedy."""

    def __init__(self, where: object, problem: str) -> None:
        super().__init__(f"{where}: {problem}")


def check_range(
    key: str,
    value: float | None,
    *,
    least: float = -math.inf,
    above: float = -math.inf,
    most: float = math.inf,
    below: float = math.inf,
) -> None:
    """Raises ConfigError unless a number is finite and within these limits. None passes if it is allowed."""
    if value is None or (least <= value <= most and above < value < below):
        return
    limits = {"at least": least, "above": above, "at most": most, "below": below}
    words = [f"{name} {limit}" for name, limit in limits.items() if math.isfinite(limit)]
    raise ConfigError(key, value, f"must be {' and '.join(words)}{'' if math.isfinite(value) else ', and finite'}")


def check_seed(key: str, seed: int) -> None:
    """Raises ConfigError unless every random generator accepts the seed."""
    if not 0 <= seed < 2**32:
        raise ConfigError(key, seed, "must be from 0 to 4294967295")


def takes(function: Any, *arguments: Any) -> bool:
    """Whether a function can be called with so many arguments; of a function without a signature, False."""
    try:
        inspect.signature(function, follow_wrapped=False).bind(*arguments)
    except (TypeError, ValueError):
        return False
    return True


def did_you_mean(word: object, known: Collection[Any], written: Callable[[str], str] = str) -> str:
    """The words "; did you mean …?", or nothing if no known word is close: the shortest of those that the word begins
    within the same part of a path, else the most similar. Capitals count as small letters. written: how it is printed.
    """
    names = {str(name).casefold(): str(name) for name in reversed(list(known))}
    start = str(word).casefold()
    longer = [name for name in names if len(start) > 2 and name.startswith(start) and "/" not in name[len(start) :]]
    close = sorted(longer, key=len) or get_close_matches(start, names, n=1)
    return f"; did you mean {written(names[close[0]])}?" if close else ""
