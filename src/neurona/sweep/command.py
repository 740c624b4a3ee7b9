"""The command line's part in a sweep: its folder, and the table at its end."""

from __future__ import annotations

import contextlib
import json
import shlex
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins

from neurona.config.nodes import leaves
from neurona.config.overrides import choice, written
from neurona.config.places import leads_out
from neurona.devices import scheduler
from neurona.errors import ConfigError
from neurona.report.summary import summary
from neurona.runs import configuration, jobs
from neurona.runs.files import is_below, make_new, write_atomically
from neurona.runs.folder import read_metrics

SWEEP_FILE = "sweep.json"
CONFIGS = "sweep_configs"
"""In the folder of a sweep: the yamls that it is composed from."""

WRITING = ("trainer", "logger", "hydra", "allow")
"""Settings of those yamls that may say where files go, or what code may run."""


def begin(
    overrides: Sequence[Override], config_dir: Path, further: Sequence[Path] = ()
) -> tuple[Path, Path, list[str]]:
    """The folder of a sweep, made before Hydra composes anything (two sweeps of one second are not to share it); the
    folder of the yamls to compose its jobs from; and the overrides that tell Hydra of the sweep's.

    Those yamls are the sweep's own copy of what is in ``config_dir`` when it begins, in ``further`` folders, which come
    after it, and on ``hydra.searchpath``, so that jobs which begin later are what they would have been. Raises
    ConfigError for a folder that cannot be a sweep's.
    """
    _register()
    folders = [str(override.value()) for override in overrides if override.key_or_group == "hydra.sweep.dir"]
    path = Path(folders[-1]) if folders else _claim(overrides)
    if path.name in ("", "..") or "$" in str(path):
        raise ConfigError("hydra.sweep.dir", path, "must name a folder of the sweep's own")
    if (path / "overrides.yaml").exists():
        raise ConfigError("hydra.sweep.dir", path, "is a run's folder; name one of the sweep's own")
    is_quiet = any(override.key_or_group == "quiet" and override.value() is True for override in overrides)
    try:
        path.mkdir(parents=True, exist_ok=True)
        edited = _copy(sources := [config_dir, *further, *_searched(overrides, config_dir)], path / CONFIGS)
    except OSError as error:
        raise ConfigError("hydra.sweep.dir", path, f"cannot be made ({error.strerror}); name another") from error
    _check_places(path, sources, edited)
    if edited and not is_quiet:
        print(
            f"the sweep uses the yamls with which it began; these have changed since: {', '.join(edited)}", flush=True
        )
    return path, (path / CONFIGS).resolve(), [] if folders else [written("hydra.sweep.dir", str(path))]


def _searched(overrides: Sequence[Override], config_dir: Path) -> list[Path]:
    """The folders of ``hydra.searchpath``; of what is in installed packages, nothing is taken."""
    lists: list[Any] = [override.value() for override in overrides if override.key_or_group == "hydra.searchpath"]
    of_yaml = configuration.load(config_dir / "train.yaml").get("hydra", {}).get("searchpath")
    places = [str(place).removeprefix("file://") for place in (lists[-1] if lists else of_yaml) or ()]
    return [Path(place) for place in places if "://" not in place]


def _copy(sources: Sequence[Path], copy: Path) -> list[str]:
    """Copies the yamls of folders, of the first of those that have one of a name, unless a copy is there. Returns the
    names of those that are other than its. What runs and sweeps have left in such a folder, if it is the working
    folder, is none of it.
    """
    yamls: dict[str, bytes] = {}
    for source in reversed(sources):
        names = {str(file.relative_to(source)): file for file in _yamls(source) if not is_below(file, copy.parent)}
        yamls |= {name: file.read_bytes() for name, file in names.items() if not name.startswith("logs/")}
    if not copy.exists():
        part = copy.with_name(f".{copy.name}.tmp")
        shutil.rmtree(part, ignore_errors=True)
        for name, contents in yamls.items():
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            (part / name).write_bytes(contents)
        with contextlib.suppress(FileExistsError):  # another worker of a search was faster
            part.rename(copy)
    stored = {str(file.relative_to(copy)): file.read_bytes() for file in _yamls(copy)}
    return sorted(name for name in stored.keys() | yamls.keys() if stored.get(name) != yamls.get(name))


def _yamls(folder: Path) -> Iterator[Path]:
    """The yamls in a folder, without links that lead nowhere, as an editor leaves while a file is open in it."""
    return (file for file in folder.rglob("*.yaml") if file.is_file())


def _check_places(path: Path, sources: Sequence[Path], edited: Sequence[str]) -> None:
    """Raises ConfigError where the yamls of a sweep, which may be a stranger's, write outside of it and today's do not.
    edited: the names of those that are other than today's.
    """
    today = {text for source in sources for file in source.rglob("*.yaml") for _, text in _writing(file, source)}
    for file in (path / CONFIGS / name for name in edited if (path / CONFIGS / name).is_file()):
        for key, value in _writing(file, path / CONFIGS):
            if value not in today and (leads_out(key, value) or key.startswith(("hydra.", "allow"))):
                problem = f"is in {file} and may write outside of the sweep; replace that file by today's"
                raise ConfigError(key, value, problem)


def _writing(file: Path, folder: Path) -> Iterator[tuple[str, Any]]:
    """The keys and values of a yaml among those of ``WRITING``."""
    try:
        contents = configuration.load(file)
    except Exception:  # who chooses it is told
        return
    group = "" if file.parent == folder else str(file.relative_to(folder).parts[0])
    is_global = group in ("", "experiment", "debug", "sweep", "data")  # whose keys are the root's
    for key, value in leaves(contents, "" if is_global else group):
        if key.partition(".")[0].partition("@")[0] in WRITING:
            yield key, value


def _register() -> None:
    """Registers this project's launcher and sweepers with Hydra, which only accepts plugins of its own namespace."""
    plugins = Plugins.instance().class_name_to_class  # imports Hydra's own plugins anew: theirs must come first
    from neurona.sweep.grid import Grid
    from neurona.sweep.launcher import Processes
    from neurona.sweep.search import Search

    plugins |= {f"hydra_plugins.neurona.{plugin.__name__}": plugin for plugin in (Grid, Processes, Search)}


def _claim(overrides: Sequence[Override]) -> Path:
    """Makes ``logs/<experiment or data>/<date and time>``, of ``debug=`` one in ``logs/debug``; or finds the sweep of
    this job that Slurm has restarted.
    """
    choices = {override.key_or_group: override for override in overrides if not override.is_sweep_override()}
    chosen = choices.get("experiment") or choices.get("data")
    swept = any(
        override.key_or_group in ("data", "experiment") for override in overrides if override.is_sweep_override()
    )
    name = choice(chosen) if chosen else "sweep" if swept else "digits"
    if any(override.key_or_group == "debug" for override in overrides):
        name = "debug"
    parent = Path("logs", name)
    lines = [str(override.input_line) for override in overrides]
    job = scheduler.job()
    if job and scheduler.was_restarted():
        for file in sorted(parent.glob(f"*/{SWEEP_FILE}"), reverse=True):
            with contextlib.suppress(OSError, ValueError, KeyError):  # it is damaged
                stored = json.loads(file.read_text(encoding="utf-8"))
                if (stored["job"], stored["overrides"]) == (job, lines):
                    return file.parent
    folder = make_new(parent / time.strftime("%Y-%m-%d_%H-%M-%S"), "hydra.sweep.dir")
    write_atomically(folder / SWEEP_FILE, json.dumps({"overrides": lines, "job": job}, indent=2) + "\n")
    return folder


def conclude(folder: Path, arguments: Sequence[str], status: int) -> int:
    """Shows the jobs of a sweep that has ended with ``status``. Returns its exit status, 1 if a job is not over; a
    search goes on without those that fail, and its other workers may still be at theirs.

    arguments: those the sweep was begun with. A folder in which no job has begun is removed.
    """
    if not folder.is_dir():
        return status
    figures = {file.parent: read_metrics(file.parent) for file in sorted(folder.glob("*/metrics.json"))}
    if not figures:
        if {path.name for path in folder.iterdir()} <= {SWEEP_FILE, CONFIGS, ".lock", ".search.lock", "multirun.yaml"}:
            shutil.rmtree(folder, ignore_errors=True)
            with contextlib.suppress(OSError):
                folder.parent.rmdir()  # of an experiment that there is not
        return status
    if status == 2:  # the command, not the sweep, is at fault
        return status
    print(f"\n{summary(folder)}\n")
    if not any(argument.startswith("debug=") for argument in arguments):  # whose runs a report leaves out
        print(f"python -m neurona.report {shlex.quote(str(folder))}")
    if any(folder.glob("*/events.out.tfevents.*")):
        print(f"tensorboard --logdir {shlex.quote(str(folder))}")
    undone = [path for path, job in figures.items() if job.get("status") not in jobs.FINAL_STATUSES]
    if (folder / jobs.SEARCH).is_file():
        undone = []
    if undone or status:
        again = list(arguments)
        if not any(argument.startswith("hydra.sweep.dir=") for argument in arguments):
            again.append(f"hydra.sweep.dir={folder}")
        if any(job.get("status") == "failed" for job in figures.values()):
            again.append("retry_failed=true")
        print(f"\nto continue: python train.py {shlex.join(dict.fromkeys(again))}")
    return status or int(bool(undone))
