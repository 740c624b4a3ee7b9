"""``run=``: the settings of the run that goes on, or is worked on, before those that are given."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from neurona.config.check import ROOT
from neurona.config.overrides import key, parse, root, value, written
from neurona.config.places import leads_out
from neurona.errors import ConfigError
from neurona.runs.files import read_yaml
from neurona.runs.folder import require_run

BESIDE_RUN = ("run", "stage", "quiet", "threads", "inspect", "allow", "hydra")  # root keys that may be given with run=
NOT_REPLAYED = ("run", "stage", "folder", "quiet", "allow", "retry_failed", "hydra")
DEVICES = ("trainer.accelerator", "trainer.devices", "trainer.num_nodes", "trainer.strategy")  # of a choice of trainer=
WRITING = ("trainer", "logger")  # root keys that may say where files go


def replay(overrides: list[str]) -> list[str]:
    """The overrides of the run that ``run=`` names, then those given, which replace them; as given without ``run=``.

    Values in ``absolute`` of its ``overrides.yaml`` stand for relative paths unless only the relative one exists.
    Raises ConfigError if the folder is not a run's, if a given override is not one of the stage, the trainer and (for
    the stages that work on a trained network) the data, or if a stored one could make this run write elsewhere or
    choose a yaml from there.
    """
    current = parse(overrides)
    named = [override for override in current if override.key_or_group == "run"]
    if not named or not named[-1].value():
        return overrides
    if named[-1].is_sweep_override():
        raise ConfigError("run", value(named[-1]), "must be one run's folder")
    folder = Path(str(named[-1].value()))
    lines, absolute = _stored(folder)
    stage = next((o.value() for o in reversed(current) if o.key_or_group == "stage"), "fit")
    skipped = NOT_REPLAYED if stage == "fit" else (*NOT_REPLAYED, "init_from")
    stored = [override for override in parse(lines) if root(override) not in skipped]
    before, now = ({key(o): o.input_line for o in those} for those in (stored, current))
    changed = [override for override in current if before.get(key(override)) != override.input_line]
    _check_free(changed, folder, ("trainer",) if stage == "fit" else ("trainer", "data"))
    other_data, other_trainer = (group in now and now[group] != before.get(group) for group in ("data", "trainer"))
    kept = [
        override
        for override in stored
        if key(override) not in now
        and not (other_data and root(override) == "data")
        and not (other_trainer and key(override).startswith(DEVICES))
    ]
    _check_places(kept, folder)
    of_today = {*now, *skipped, *(name for name in absolute if other_data and name.startswith("data."))}
    paths = _paths({name: path for name, path in absolute.items() if name not in of_today}, kept)
    settings = [str(override.input_line) for override in kept if key(override) not in paths]
    return [*settings, *(written(name, path) for name, path in paths.items()), *overrides]


def _check_free(changed: list[Override], folder: Path, free: tuple[str, ...]) -> None:
    """Raises ConfigError for a setting that is another than the run's, unless it may be. free: groups that may."""
    for override in changed:
        if root(override) not in (*BESIDE_RUN, *free):
            raise ConfigError(
                str(override.key_or_group),
                value(override),
                f"belongs to the run in {folder} and stays as it is; run= takes {', '.join((*free, *BESIDE_RUN[1:-1]))}"
                f" beside it. For a new run from its weights give init_from={folder} instead of run=",
            )


def _check_places(stored: list[Override], folder: Path) -> None:
    """Raises ConfigError for a stored setting that writes, or reads a yaml, outside of the run."""
    for override in stored:
        is_group = "." not in override.key_or_group and override.key_or_group not in ROOT
        does = "choose a yaml from" if is_group else "write"
        is_looked_at = is_group or root(override) in WRITING
        if is_looked_at and leads_out(key(override), override.value(), is_choice=is_group):
            problem = f"is stored with the run in {folder} and may {does} outside of it; to trust it, give it again too"
            raise ConfigError(key(override), value(override), problem)


def _paths(absolute: dict[str, str], stored: list[Override]) -> dict[str, str]:
    """The absolute paths, of data and weights, that stand in for what is stored: not where the relative one alone
    exists, nor, where the path is a default's, without a file there.
    """
    relative = {key(override): str(override.value()) for override in stored}
    return {
        name: path
        for name, path in absolute.items()
        if re.fullmatch(r"data\.\w+|init_from", name)
        and (Path(path).exists() or (name in relative and not Path(relative[name]).exists()))
    }


def _stored(folder: Path) -> tuple[list[str], dict[str, str]]:
    require_run(folder, "run")
    try:
        stored: Any = OmegaConf.to_container(OmegaConf.create(read_yaml(folder / "overrides.yaml")), resolve=False)
        return [str(line) for line in stored["overrides"]], {
            str(key): str(path) for key, path in stored["absolute"].items()
        }
    except Exception as error:
        raise ConfigError("run", folder, f"its overrides.yaml is damaged ({type(error).__name__})") from error
