"""Stored settings that point outside of their run's folder."""

from __future__ import annotations

import os
import re
from typing import Any

PLACE = re.compile(r"dir|path|root|folder|location|(^|_)ur[il]$")
"""In the last word of a key whose value is a path or URI."""


def leads_out(key: str, value: Any) -> bool:
    """Whether a stored value may name a place outside of the run: one that leads upwards or is absolute, a URI or from
    elsewhere; or, without ``${folder}`` before it, where the key is a place's or something of that name is there.
    """
    if not isinstance(value, str) or not value:
        return False
    is_place = bool(PLACE.search(key.rpartition(".")[2]))
    if re.fullmatch(r"\$\{(trainer|logger)\.[\w.]+\}", value):  # another of the values looked at
        return is_place
    inside = re.match(r"(sqlite:///)?\$\{folder\}(/|$)", value)
    rest = value[inside.end() :] if inside else value
    if rest.startswith(("/", "~")) or ".." in rest.split("/") or "$" in rest or "://" in rest:
        return True
    return inside is None and (is_place or os.path.lexists(value))
