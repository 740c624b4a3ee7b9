"""Hydra's and OmegaConf's errors in this project's words."""

from __future__ import annotations

import re
import shlex
import sys
import traceback
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path, PurePath
from typing import Any

import yaml
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from neurona.config import hints, own, signatures
from neurona.config.hints import key_paths
from neurona.config.make import is_within, unsuited
from neurona.config.nodes import root_of
from neurona.config.overrides import parse, unreadable, value
from neurona.errors import ConfigError, RunError, UserError, did_you_mean

REFUSALS = (HydraException, OmegaConfBaseException, yaml.MarkedYAMLError)
"""What composing raises for a mistake of the user."""

EXTRAS = {"joblib": "joblib", "submitit_local": "slurm", "submitit_slurm": "slurm"}  # launchers of other packages


def explain(error: Exception, overrides: Sequence[str] = ()) -> UserError:
    """An error of Hydra or OmegaConf in this project's words. overrides: those that were being composed."""
    cause = error.__cause__
    if isinstance(cause, UserError):  # a launcher's, of its arguments
        return cause
    if "hydra_plugins.neurona" in str(error):  # it is known to Hydra in a sweep alone
        return ConfigError(
            "hydra.mode", "MULTIRUN", "a yaml cannot make a sweep of a run; leave it out there and add -m"
        )
    if isinstance(error, OverrideParseException):
        return unreadable(str(error.override))
    if isinstance(error, yaml.MarkedYAMLError):
        return _invalid_yaml(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        return _unknown_choice(error.missing_cfg_file, error.options)
    if (grouped := _of_group(one_line(str(error)))) is not None:
        return grouped
    if match := re.match(r"Could not delete from config\. '(.+)' does not exist", str(error)):
        is_twice = sum(line.partition("=")[0] == f"~{match[1]}" for line in overrides) > 1
        return UserError(f"~{match[1]}: " + ("is given twice; leave one out" if is_twice else "does not exist"))
    if isinstance(cause, ConfigAttributeError | ConfigKeyError) and (override := _at(cause.full_key, overrides)):
        assert cause.parent_node is not None
        composed: Any = OmegaConf.to_container(root_of(cause.parent_node))
        return _unknown_key(override.key_or_group, value(override), composed)
    if (in_list := _in_list(f"{error}: {cause}", overrides)) is not None:
        return in_list
    if isinstance(cause, OmegaConfBaseException):
        reason = str(cause).partition("\n")[0]
        return UserError(one_line(f"{error}: {reason}" if str(error) else reason))
    nameless = next(filter(_is_choice_of_no_name, parse(overrides)), None)
    if nameless and not isinstance(error, HydraException):
        there = sorted(file.stem for file in hints.CONFIG_DIR.glob(f"{nameless.key_or_group}/*.yaml"))
        return ConfigError(nameless.key_or_group, value(nameless), f"is no choice; there are {', '.join(there)}")
    if isinstance(error, UnicodeDecodeError):
        files = filter(_is_no_utf8, sorted(hints.CONFIG_DIR.rglob("*.yaml")))
        names = " or ".join(str(file).removeprefix(f"{Path.cwd()}/") for file in files)
        return UserError(f"{names or 'a yaml that is chosen'} is not in UTF-8 ({error}); save it in UTF-8")
    return UserError(one_line(str(error)).partition(" Config search path:")[0] or type(error).__name__)


def _is_no_utf8(file: Path) -> bool:
    try:
        file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return True
    return False


def _in_list(message: str, overrides: Sequence[str]) -> UserError | None:
    """Explains that a key goes on behind a list, to a place that the list does not have; None for other messages."""
    wrong = re.search(r"Index '(.+)' \(str\) is not an int|base 10: '(.+)'|list index out of range", message)
    if not wrong:
        return None
    for override in parse(overrides):
        parts, name = override.key_or_group.split("."), wrong[1] or wrong[2]
        index = next((i for i, part in enumerate(parts) if (part == name if name else part.isdigit())), 0)
        if index and (name or str(override.input_line) in message):
            whole = ".".join(parts[:index])
            problem = f"{whole} is a list without a place {parts[index]}; give the whole list, {whole}=[…]"
            return ConfigError(override.key_or_group, value(override), problem)
    return None


def _invalid_yaml(error: yaml.MarkedYAMLError) -> UserError:
    """Names the line to be changed: that where a bracket, a quote or a key begins, or else that of the error, or the
    one above it, which is no key: with it begins what yaml takes for a text of two lines.
    """
    begins = error.context_mark if re.search("scanning|flow", error.context or "") else None
    mark = begins or error.problem_mark
    assert mark is not None
    file, number = Path(mark.name), mark.line
    lines = [*(file.read_text(encoding="utf-8").splitlines() if file.is_file() else ()), *[""] * (number + 1)]
    is_text = not re.search(r":(\s|$)|^\s*(#|$)", lines[max(0, number - 1)])
    if "mapping values" in (error.problem or "") and is_text:
        number -= 1
    place = mark.name.rpartition("/sweep_configs/")[2].removeprefix(f"{Path.cwd()}/")  # a sweep's copy is not to change
    if "duplicate key" in (error.problem or ""):
        return UserError(f"{place}:{number + 1}: {error.problem}; leave one out")
    return UserError(
        f"{place}:{number + 1}: {lines[number]!r} is not valid yaml; write key: value with a blank behind the"
        " colon, keys that belong together equally far to the right, by blanks and no tab, a text with special signs"
        " such as * @ : # in quotes, and close every bracket and quote"
    )


def _of_group(message: str) -> UserError | None:
    """Explains Hydra's messages about a choice that is made in the wrong way; None for other messages."""
    if match := re.match(r"In '(\w+)/([^']+)': Could not override '[^']*@\1\.", message):
        return ConfigError(match[1], match[2], hints.NOT_GLOBAL)
    if match := re.match(r"In '(.+)/([^/']+)': Could not override '(\1/)?([^'@]+)", message):
        known = {file.parent.relative_to(hints.CONFIG_DIR).as_posix() for file in hints.CONFIG_DIR.rglob("*.yaml")}
        problem = f"its yaml must write - override {match[4]}: … as - override /{match[4]}: …"
        if not match[3] or match[4] not in known:
            hint = did_you_mean(match[4], known) if match[4] not in known else ""
            problem = f"its yaml overrides {match[4]}, which is in no defaults list{hint}"
        return ConfigError(match[1], match[2], problem)
    if match := re.match(r"Could not override '(.+)/([^/']+)'\. No match.*\+\1/\2=(.+)", message):
        lines = f"defaults: with the lines - {match[2]}: … and - _self_"
        problem = f"the yaml of the {match[1]} has no {lines}; add them, or write +{match[1]}/{match[2]}={match[3]}"
        return ConfigError(f"{match[1]}/{match[2]}", match[3], problem)
    if match := re.match(r"In '(.+)/([^/']+)': Could not load '\1/(.+?)'\.", message):
        there = sorted(file.stem for file in hints.CONFIG_DIR.glob(f"{match[1]}/*.yaml"))
        near = get_close_matches(PurePath(match[3]).stem, there, n=1, cutoff=0.5) or there
        problem = f"its yaml names {match[3]}, which {match[1]} does not have; write - {' or - '.join(near)}"
        return ConfigError(match[1], match[2], problem)
    if match := re.match(r"In '.+?': Could not load '(.+)/([^/']+)'", message):
        there = sorted(file.stem for file in hints.CONFIG_DIR.glob(f"{match[1]}/*.yaml"))
        return _unknown_choice(f"{match[1]}/{match[2]}", there)
    if match := re.match(r"Invalid defaults list in '(?:(.+)/)?([^/']+)'", message):
        problem = "the defaults of its yaml must be a list: below defaults:, lines such as - override /data: iris"
        return ConfigError(match[1] or "--config-name", match[2], problem)
    if match := re.match(r"Cannot find primary config '([^']+)'", message):
        found = [file.parent.relative_to(hints.CONFIG_DIR) for file in hints.CONFIG_DIR.rglob(f"{match[1]}.yaml")]
        remedy = f"it is chosen by {found[0]}={match[1]}" if found else "leave it out; --help shows the choices"
        return ConfigError("--config-name", match[1], f"no such configuration; {remedy}")
    if match := re.match(r"In '(.+)/([^/']+)': Could not find '\1/([^/']+)/([^']+)'", message):
        group, choice = match[3], match[4]
        if (hints.CONFIG_DIR / group).is_dir():
            line = f"- override /{group}: {choice}"
            return ConfigError(match[1], match[2], f"its yaml must write - {group}: {choice} as {line}")
    if match := re.match(r"Multiple values for ([^ ]+)\. To override a value use 'override [^ ]+: ([^']+)'", message):
        line = f"{match[1]}={match[2]} without a +, or in the defaults of a yaml - override /{match[1]}: {match[2]}"
        return ConfigError(match[1], match[2], f"{match[1]} has another choice already; write {line}")
    if match := re.match(r"Could not append to config\. .+ Either remove \+ prefix: '([^=]+)=(.*)' Or add", message):
        return ConfigError(match[1], match[2], f"is there already; write {match[1]}={match[2]} without the +")
    if match := re.match(r"force-add of config groups is not supported: '\++([^=]+)=([^']*)'", message):
        return ConfigError(match[1], match[2], f"a group takes no ++; write {match[1]}={match[2]}")
    return None


def _at(key: str | None, overrides: Sequence[str]) -> Override | None:
    """The override that sets a key, or one below it, which the configuration must have: nothing is added or deleted."""
    plain = (override for override in parse(overrides) if override.type == OverrideType.CHANGE)
    return next((override for override in plain if key and is_within(override.key_or_group, (key,))), None)


def _is_choice_of_no_name(override: Override) -> bool:
    is_group = (hints.CONFIG_DIR / override.key_or_group).is_dir()
    return is_group and not override.is_delete() and not isinstance(override.value(), str | list)


def _unknown_choice(file: str, choices: Collection[str]) -> UserError:
    group, choice = _chosen(file)
    if group == "hydra/launcher" and choice in EXTRAS:
        problem = f"is not installed; pip install -c constraints.txt -e '.[{EXTRAS[choice]}]'"
        return ConfigError(group, choice, problem)
    if group == "data" and PurePath(choice).suffix not in ("", ".yaml") and own.definition(choice) is None:
        line = f"data=table data.path={choice} data.target=<its column of labels>"
        return ConfigError(group, choice, f"no such choice; a file is read by {line}")
    hint = did_you_mean(PurePath(choice).name.removesuffix(".yaml"), choices)
    there = f"{hint} There" if hint else "; there"
    key = group.replace("/", ".")
    others = f"; {hints.OF_ONES_OWN[key]}" if key in hints.OF_ONES_OWN else ""
    return ConfigError(group, choice, f"no such choice{there} are {', '.join(choices)}{others}")


def _chosen(file: str) -> tuple[str, str]:
    """A group and the choice that was to be made, which may be a path too, of ``group/choice``."""
    group = ""
    for part in file.split("/")[:-1]:
        if not part.strip(".") or not (hints.CONFIG_DIR / group / part).is_dir():
            break
        group = f"{group}/{part}".lstrip("/")
    return (group, file.removeprefix(f"{group}/")) if group else (file.rpartition("/")[0], file.rpartition("/")[2])


def _unknown_key(key: str, text: str, composed: Mapping[str, Any]) -> UserError:
    """A key that the composed configuration does not have; composed includes the node ``hydra``."""
    parent, _, name = key.rpartition(".")
    node: Any = composed
    for part in parent.split(".") if parent else []:
        node = node.get(part, {}) if isinstance(node, dict) else {}
    target = node.get("_target_") if isinstance(node, dict) else None
    signature = None
    hidden = () if key.startswith("hydra") else ("hydra",)
    declared = [path for path in key_paths(composed) if path.split(".")[0] not in hidden]
    if hints.ELSEWHERE.get(name) in declared:
        return ConfigError(key, text, hints.unknown_key(key, declared))
    is_component = is_within(key, hints.COMPONENTS) and (name == "_target_" or text.startswith("{_target_:"))
    added = shlex.quote(f"+{key}={text}")
    if is_component and not hints.other_choice(key):
        return ConfigError(key, text, f"is not there yet: add it with {added}")
    if isinstance(target, str) and (parent == "optimizer" or signatures.is_library(target) or own.definition(target)):
        with suppress(LookupError):
            signature = signatures.at(parent, target, signatures.from_source)
    if signature and (
        name in signature.parameters or (signature.is_open and not get_close_matches(name, node, cutoff=0.65))
    ):
        strangers = [other for other in node if other not in (*hints.ATTRIBUTES, *signature.parameters)]
        if strangers and not signature.is_open:
            problem = f"{target} takes it, but not the {', '.join(strangers)} of the yaml that is chosen"
            return ConfigError(key, text, f"{problem}; {unsuited(parent, str(target))}")
        return ConfigError(key, text, f"is not in the configuration, but {target} takes it: add it with {added}")
    arguments = [f"{parent}.{other}" for other in signature.parameters] if signature else []
    error = ConfigError(key, text, hints.other_choice(key) or hints.unknown_key(key, [*declared, *arguments]))
    end = "" if str(error).endswith(("?", ".")) else "."
    return UserError(f"{error}{end} Any other argument of {target} is added with +{parent}.…") if signature else error


def show(error: Exception, full_error: str | None = None, job: str = "") -> int:
    """Prints a mistake of the user as one line, any other error with its traceback. Returns the exit status."""
    if full_error == "1" or not isinstance(error, UserError | RunError):
        traceback.print_exception(error)
    if job or full_error != "1":
        print(f"{job}{error}", file=sys.stderr)
    return 2 if isinstance(error, UserError) else 1


def one_line(text: str) -> str:
    return " ".join(text.split())
