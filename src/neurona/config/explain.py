"""What Hydra and OmegaConf refuse, in this project's words."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from neurona.config import hints, signatures
from neurona.config.hints import key_paths
from neurona.errors import ConfigError, RunError, UserError, did_you_mean

EXTRAS = {"joblib": "joblib", "submitit_local": "slurm", "submitit_slurm": "slurm"}  # launchers of other packages
BRACKETS = (("[", "]"), ("{", "}"), ("(", ")"))


def explain(error: Exception) -> UserError:
    """What Hydra or OmegaConf could not compose, in this project's words."""
    cause = error.__cause__
    if isinstance(cause, UserError):  # a launcher's, of its arguments
        return cause
    if isinstance(error, OverrideParseException):
        given = str(error.override)
        if given.endswith(",") and "[" in given:
            return UserError(f"{given}: a list has no spaces in it, or stands in quotes: 'model.hidden=[128, 64]'")
        if "=~" in given:
            return UserError(f"{given}: cannot be read; no shell replaces a ~ there: write $HOME")
        if any(given.count(opening) != given.count(closing) for opening, closing in BRACKETS):
            return UserError(f"{given}: cannot be read; a bracket is not closed, or not opened")
        return UserError(
            f"{given}: cannot be read; write key=value. A value with commas, quotes, =, brackets or accents"
            " in it goes into quotes of its own inside the shell's: \"data.path='a=b, c.csv'\""
        )
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, choice = error.missing_cfg_file.rpartition("/")
        if group == "hydra/launcher" and choice in EXTRAS:
            problem = f"is not installed; pip install -c constraints.txt -e '.[{EXTRAS[choice]}]'"
            return ConfigError(group, choice, problem)
        hint = did_you_mean(choice, error.options)
        there = f"{hint} There" if hint else "; there"
        return ConfigError(group, choice, f"no such choice{there} are {', '.join(error.options)}")
    if isinstance(cause, OmegaConfBaseException) and str(error).startswith("Could not override"):
        key = str(error).split("'")[1]
        value = str(error).rpartition("use +")[2].partition("=")[2]
        assert cause.parent_node is not None
        return _unknown(key, value, OmegaConf.to_container(cause.parent_node._get_root()))  # type: ignore[arg-type]
    if isinstance(cause, OmegaConfBaseException):
        reason = str(cause).partition("\n")[0]
        return UserError(one_line(f"{error}: {reason}" if str(error) else reason))
    if str(error).startswith("Ambiguous value"):
        key, _, value = str(error).split("'")[1].partition("=")
        return ConfigError(key, value, f"several values; for a list write [{value}], for a sweep add -m")
    if str(error).startswith("Config group override must be"):
        return UserError(f"a group takes the name of one of its choices, as in model=mlp. {error}")
    return UserError(one_line(str(error)) or type(error).__name__)


def _unknown(key: str, value: str, composed: Mapping[str, Any]) -> UserError:
    """A key that the composed configuration does not have; composed includes the node ``hydra``."""
    parent, _, name = key.rpartition(".")
    node: Any = composed
    for part in parent.split(".") if parent else []:
        node = node.get(part, {}) if isinstance(node, dict) else {}
    target = node.get("_target_") if isinstance(node, dict) else None
    signature = signatures.from_source(target) if target and signatures.is_library(target) else None
    if signature and (
        name in signature.parameters or (signature.is_open and not get_close_matches(name, node, cutoff=0.65))
    ):
        return ConfigError(
            key, value, f"is not in the configuration, but {target} takes it: add it with +{key}={value}"
        )
    hidden = () if key.startswith("hydra") else ("hydra",)
    declared = [path for path in key_paths(composed) if path.split(".")[0] not in hidden]
    taken = [f"{parent}.{other}" for other in signature.parameters] if signature else []
    error = ConfigError(key, value, hints.other_choice(key) or hints.unknown_key(key, [*declared, *taken]))
    end = "" if str(error).endswith(("?", ".")) else "."
    return UserError(f"{error}{end} Any other argument of {target} is added with +{parent}.…") if signature else error


def show(error: Exception, full_error: str | None = None, job: str = "") -> int:
    """Prints a mistake as one line, a defect with its traceback. Returns the exit status."""
    if full_error == "1" or not isinstance(error, UserError | RunError):
        traceback.print_exception(error)
    if job or full_error != "1":
        print(f"{job}{error}", file=sys.stderr)
    return 2 if isinstance(error, UserError) else 1


def one_line(text: str) -> str:
    return " ".join(text.split())
