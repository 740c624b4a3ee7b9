"""The command line: Hydra's, with an existing run's settings replayed, and mistakes answered in one short paragraph.

Exit status: 0 done; 2 the user's mistake; 1 a failure; 130 Ctrl-C; 143 preempted.
"""

from __future__ import annotations

import atexit
import functools
import gc
import io
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from neurona.cli.replay import TRAIN, Yamls, replay
from neurona.cli.usage import usage
from neurona.config import registry
from neurona.config.explain import explain, one_line, show
from neurona.config.interpolations import masked
from neurona.config.overrides import check_of_run, parse, task_overrides, value, written
from neurona.devices import launch, scheduler
from neurona.errors import ConfigError, JobFailed, RunError, UserError
from neurona.runs import jobs

SINGLE = {  # root keys that do not go with a sweep
    "run": "names one run and cannot be used in a sweep (-m); leave out one of the two",
    "folder": "names one run's folder and cannot be used in a sweep (-m); hydra.sweep.dir= names a sweep's",
}
KILLED = "the process of a job was killed; the machine may have run out of memory"


def main(task: Callable[[DictConfig], Any], config_dir: Path) -> NoReturn:
    """Composes ``train`` from the command line, calls the task with it (for each job of a sweep), and exits.

    A job of a sweep that fails says so and leaves the others to go on; the sweep then ends with 1, or with the highest
    status of the jobs in this process.
    """
    launch.open_streams()
    scheduler.requeue_early()
    atexit.register(gc.freeze)  # looking for garbage in all of torch takes a process a second that is to end at once
    argv, full_error = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    job = Job(task, argv, full_error)
    line = CommandLine([], [])
    try:
        line = read(argv[1:], config_dir)
        sys.argv = [argv[0], *line.options, *line.overrides]
        _set_environment("HYDRA_FULL_ERROR", "1")  # Hydra raises instead of printing and exiting
        hydra.main(version_base="1.3", config_path=str(config_dir.resolve()), config_name=line.config_name)(job)()
        status = max(job.statuses)
    except (UserError, RunError) as error:
        status = show(error, full_error)
    except JobFailed as failure:
        raise (failure.__cause__ or failure) from None
    except Exception as error:
        if error is job.defect:
            raise
        explained = RunError(KILLED) if isinstance(error, _killed()) else explain(error, line.overrides)
        explained.__cause__ = error
        status = show(explained, full_error)
    except BaseException as end:
        asked = _status(end)
        if asked is None and not (line.sweep and isinstance(end, SystemExit)):
            raise
        status = int(end.code or 0) if asked is None else asked  # type: ignore[attr-defined]
    finally:
        _set_environment("HYDRA_FULL_ERROR", full_error)
    sys.exit(registry.load(registry.SWEEP).conclude(line.sweep, argv[1:], status) if line.sweep else status)


class Job:
    """The task as Hydra calls it, with the command line and the environment as they were before Hydra's.

    defect: what it has raised that is neither a mistake nor a failure explained. statuses: of jobs of a sweep in this
    process.
    """

    def __init__(self, task: Callable[[DictConfig], Any], argv: Sequence[str], full_error: str | None) -> None:
        functools.update_wrapper(self, task)  # Hydra asks a task for its name and its file
        self.task, self.argv, self.full_error = task, argv, full_error
        self.launcher = os.getpid()
        self.defect: Exception | None = None
        self.statuses = [0]

    def __call__(self, cfg: DictConfig) -> Any:
        sys.argv = list(self.argv)  # further processes are started with it
        _set_environment("HYDRA_FULL_ERROR", self.full_error)
        chosen = next((argument for argument in self.argv if argument.startswith("sweep=")), None)
        if chosen and HydraConfig.get().mode == RunMode.RUN and not (cfg.quiet or launch.is_launched()):
            print(f"one run, with the settings of {chosen}; -m on the command line makes several", flush=True)
        try:
            return self.task(cfg)
        except Exception as error:
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                return self._note_failure(error, cfg)
            if isinstance(error, UserError | RunError):
                sys.exit(show(error, self.full_error))
            self.defect = error
            raise

    def _note_failure(self, error: Exception, cfg: DictConfig) -> dict[str, Any]:
        """Says that a job of a sweep has failed. Returns its figures."""
        node = HydraConfig.get()
        status = show(error, self.full_error, f"job {node.job.num}: ")
        if os.getpid() == self.launcher:
            self.statuses.append(status)
        reason = masked(one_line(str(error)) or type(error).__name__, str(OmegaConf.to_container(cfg)))
        return jobs.mark_failed(Path(node.runtime.output_dir), reason, task_overrides(node))


class CommandLine(NamedTuple):
    """The command line, understood: what to give Hydra. config_name: as ``replay`` tells. sweep: the folder of one."""

    options: list[str]
    overrides: list[str]
    config_name: str = TRAIN
    sweep: Path | None = None


def read(arguments: list[str], config_dir: Path) -> CommandLine:
    """Raises ConfigError for what the command line alone shows to be a mistake. A sweep's folder is made."""
    parser = get_args_parser()  # hydra.main's own, which it has in no public module
    parser.error = _refuse  # type: ignore[method-assign]
    parsed = parser.parse_intermixed_args(arguments)
    if parsed.shell_completion:
        sys.stderr = io.StringIO()  # what is being typed is no mistake yet
        return CommandLine(arguments, [])
    if parsed.config_dir and not Path(parsed.config_dir).is_dir():
        raise ConfigError("--config-dir", parsed.config_dir, "is not a folder; give the one of your own yamls")
    options = [argument for argument in arguments if argument not in parsed.overrides]
    overrides = parse(parsed.overrides)
    for override in overrides:
        if override.key_or_group == "hydra.run.dir":
            raise ConfigError("hydra.run.dir", value(override), "has no meaning here: a run's folder is folder=…")
    if any(override.key_or_group == "hydra.mode" and value(override) == "MULTIRUN" for override in overrides):
        parsed.multirun, options = True, [*options, "--multirun"]
        overrides = [override for override in overrides if override.key_or_group != "hydra.mode"]
    lines = [str(override.input_line) for override in overrides]
    if parsed.config_path and "://" not in parsed.config_path:
        config_dir = config_dir.parent / parsed.config_path
    if parsed.help or not parsed.multirun:
        searched = [line for line in lines if line.lstrip("+").startswith("hydra.searchpath=")]
        if parsed.config_dir and not searched:
            place = written("", f"file://{Path(parsed.config_dir).resolve()}")
            searched = [f"hydra.searchpath=[{place[1:]}]"]
        if not (parsed.cfg or parsed.info or parsed.help or parsed.hydra_help):
            check_of_run(overrides)
        name, lines = replay(lines, Yamls(config_dir, searched))
        if parsed.config_name and name != TRAIN:
            problem = "cannot be used with run=, which has its own configuration; leave it out"
            raise ConfigError("--config-name", parsed.config_name, problem)
        if parsed.help:
            print(usage(parsed.config_name or name, [*searched, *lines], config_dir))
            sys.exit(0)
        return CommandLine(options, lines, name)
    _check_sweep(overrides)
    if parsed.cfg or parsed.info or parsed.help or parsed.hydra_help:
        return CommandLine(options, lines)
    further = [Path(parsed.config_dir)] if parsed.config_dir else []
    path, copy, more = registry.load(registry.SWEEP).begin(overrides, config_dir, further)
    return CommandLine([*options, f"--config-path={copy}"], [*lines, *more], sweep=path)


def _check_sweep(overrides: list[Override]) -> None:
    """Raises ConfigError for what does not go with a sweep."""
    for override in overrides:
        if override.key_or_group in SINGLE and override.value():
            raise ConfigError(override.key_or_group, value(override), SINGLE[override.key_or_group])
        if override.key_or_group == "stage" and override.value() != "fit":
            raise ConfigError("stage", value(override), jobs.ONLY_FITS)


def _refuse(message: str) -> NoReturn:
    raise UserError(f"{message}; settings are given as key=value, for example optimizer.lr=3e-4. --help shows them")


def _killed() -> tuple[type[Exception], ...]:
    """What Hydra's other launchers raise where the process of a job was killed: joblib's and submitit's."""
    submitit = sys.modules.get("submitit.core.utils")
    return (BrokenExecutor, *([submitit.UncompletedJobError] if submitit else []))


def _status(end: BaseException) -> int | None:
    """The exit status that Ctrl-C or a preemption asks for; None for another end."""
    for cause in (end, end.__context__):
        if isinstance(cause, KeyboardInterrupt):
            return 130
        if isinstance(cause, SystemExit) and cause.code == 143:
            return 143
    return None


def _set_environment(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value
