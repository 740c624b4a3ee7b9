"""What goes wrong, in words for the user: mistakes, failures, ranges, near misses. Imports nothing of the project."""

from __future__ import annotations

import math
from collections.abc import Collection
from difflib import get_close_matches
from typing import Any


class UserError(ValueError):
    """A mistake of the user's: shown as one short paragraph, exit status 2."""


class RunError(RuntimeError):
    """A run that cannot go on, through no mistake in its configuration: shown as one paragraph, exit status 1."""


class HopelessRun(RunError):
    """One that would come to the same end again, from its last checkpoint too."""


class JobFailed(Exception):
    """A sweep whose launcher has failed by a fault of its own, its cause, while jobs were at work."""


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
    """Raises ConfigError unless a number is within these limits and finite; None, where it is allowed, passes."""
    if value is None or (least <= value <= most and above < value < below):
        return
    limits = {"at least": least, "above": above, "at most": most, "below": below}
    words = [f"{name} {limit}" for name, limit in limits.items() if math.isfinite(limit)]
    raise ConfigError(key, value, f"must be {' and '.join(words)}{'' if math.isfinite(value) else ', and finite'}")


def check_seed(key: str, seed: int) -> None:
    """Raises ConfigError unless the seed is one that every generator takes."""
    if not 0 <= seed < 2**32:
        raise ConfigError(key, seed, "must be from 0 to 4294967295")


def did_you_mean(word: object, known: Collection[Any]) -> str:
    """ "; did you mean …?", or nothing where no known word is close."""
    close = get_close_matches(str(word), [str(name) for name in known], n=1)
    return f"; did you mean {close[0]}?" if close else ""
