"""The command line: Hydra's, with an existing run's settings replayed, and mistakes answered in one short paragraph.

Exit status: 0 done; 2 the user's mistake; 1 a failure; 130 Ctrl-C; 143 preempted.
"""

from __future__ import annotations

import atexit
import functools
import gc
import io
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from neurona import hints, launch, scheduler, signatures
from neurona.config import ROOT, ConfigError, RunError, UserError
from neurona.hints import did_you_mean, key_paths
from neurona.run_folder import require_run
from neurona.sweep import folder, jobs, register

BESIDE_RUN = ("run", "stage", "quiet", "threads", "inspect", "allow", "hydra")  # root keys that may be given with run=
NOT_REPLAYED = ("run", "stage", "folder", "quiet", "allow", "retry_failed", "hydra")
SINGLE = {  # root keys that do not go with a sweep
    "run": "names one run and does not go with a sweep (-m); leave out one of the two",
    "folder": "names one run's folder and does not go with a sweep (-m); a sweep's is named by hydra.sweep.dir=",
}
EXTRAS = {"joblib": "joblib", "submitit_local": "slurm", "submitit_slurm": "slurm"}  # launchers of other packages
BRACKETS = (("[", "]"), ("{", "}"), ("(", ")"))
KILLED_ERRORS = ("TerminatedWorkerError", "UncompletedJobError")  # as those call it
KILLED = "the process of a job was killed; the machine may have run out of memory"
DEVICES = ("trainer.accelerator", "trainer.devices", "trainer.num_nodes", "trainer.strategy")  # of a choice of trainer=
WRITING = ("trainer", "logger")  # root keys that may say where files go
STATUS = {"KeyboardInterrupt": 130, "SIGTERMException": 143}


def main(task: Callable[[DictConfig], Any], config_dir: Path) -> NoReturn:
    """Composes ``train`` from the command line, calls the task with it (for each job of a sweep), and exits.

    A job of a sweep that fails says so and leaves the others to go on; the sweep then ends with 1, or with the highest
    status of the jobs in this process.
    """
    scheduler.requeue_early()
    given, full_error = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    launcher, failed = os.getpid(), [0]
    atexit.register(gc.freeze)  # looking for garbage in all of torch takes a process a second that is to end at once
    sweep: Path | None = None

    @functools.wraps(task)
    def job(cfg: DictConfig) -> Any:
        sys.argv = given  # further processes are started with it
        _set_environment("HYDRA_FULL_ERROR", full_error)
        try:
            return task(cfg)
        except Exception as error:
            hydra_config = HydraConfig.get()
            if hydra_config.mode == RunMode.MULTIRUN:
                status = show(error, full_error, f"job {hydra_config.job.num}: ")
                if os.getpid() == launcher:
                    failed.append(status)
                reason = _one_line(str(error)) or type(error).__name__
                return jobs.mark_failed(Path(hydra_config.runtime.output_dir), reason, launch.given(hydra_config))
            if isinstance(error, UserError | RunError):
                sys.exit(show(error, full_error))
            raise

    try:
        arguments, sweep = _understood(given[1:])
        sys.argv = [given[0], *arguments]
        _set_environment("HYDRA_FULL_ERROR", "1")  # Hydra raises instead of printing and exiting
        hydra.main(version_base="1.3", config_path=str(config_dir.resolve()), config_name="train")(job)()
        status = max(failed)
    except (UserError, RunError) as error:
        status = show(error, full_error)
    except Exception as error:
        if any(frame.name in ("run_job", "stream") for frame in traceback.extract_tb(error.__traceback__)):
            raise  # the task had begun: a failure
        explained = RunError(KILLED) if type(error).__name__ in KILLED_ERRORS else explain(error)
        explained.__cause__ = error
        status = show(explained, full_error)
    except BaseException as end:
        ends = [STATUS[name] for name in (type(cause).__name__ for cause in (end, end.__context__)) if name in STATUS]
        if not ends and not (sweep and isinstance(end, SystemExit)):
            raise
        status = ends[0] if ends else int(end.code or 0)  # type: ignore[attr-defined]
    finally:
        _set_environment("HYDRA_FULL_ERROR", full_error)
    sys.exit(folder.conclude(sweep, given[1:], status) if sweep else status)


def replay(overrides: list[str]) -> list[str]:
    """The overrides of the run that ``run=`` names, then those given, which replace them; as given without ``run=``.

    Values in ``absolute`` of its ``overrides.yaml`` stand for relative paths unless only the relative one exists.
    Raises ConfigError if the folder is not a run's, if a given override is not one of the stage, the trainer and (for
    the stages that work on a trained network) the data, or if a stored one could make this run write elsewhere or
    choose a yaml from there.
    """
    given = _parsed(overrides)
    named = [override for override in given if override.key_or_group == "run"]
    if not named or not named[-1].value():
        return overrides
    if named[-1].is_sweep_override():
        raise ConfigError("run", _value(named[-1]), "must be one run's folder")
    folder = Path(str(named[-1].value()))
    lines, absolute = _stored(folder)
    stage = next((o.value() for o in reversed(given) if o.key_or_group == "stage"), "fit")
    free = ("trainer",) if stage == "fit" else ("trainer", "data")
    skipped = NOT_REPLAYED if stage == "fit" else (*NOT_REPLAYED, "init_from")
    stored = [override for override in _parsed(lines) if _root(override) not in skipped]
    before, now = ({_key(o): o.input_line for o in those} for those in (stored, given))
    for override in given:
        is_changed = before.get(_key(override)) != override.input_line
        if is_changed and _root(override) not in (*BESIDE_RUN, *free):
            raise ConfigError(
                str(override.key_or_group),
                _value(override),
                f"belongs to the run in {folder} and stays as it is; run= takes {', '.join((*free, *BESIDE_RUN[1:-1]))}"
                f" beside it. For a new run from its weights give init_from={folder} instead of run=",
            )
    other_data, other_trainer = (group in now and now[group] != before.get(group) for group in ("data", "trainer"))
    kept = [
        override
        for override in stored
        if _key(override) not in now
        and not (other_data and _root(override) == "data")
        and not (other_trainer and _key(override).startswith(DEVICES))
    ]
    for override in kept:
        is_group = "." not in override.key_or_group and override.key_or_group not in ROOT
        does = "choose a yaml from" if is_group else "write"
        if (is_group or _root(override) in WRITING) and any(_is_outside(text) for text in _strings(override.value())):
            problem = f"is stored with the run in {folder} and may {does} outside of it; to trust it, give it again too"
            raise ConfigError(_key(override), _value(override), problem)
    paths = []
    for key, path in absolute.items():
        relative = [str(override.value()) for override in kept if _key(override) == key]
        is_asked_for = not other_data if key.startswith("data.") else key not in skipped
        if key in now or not is_asked_for or not re.fullmatch(r"data\.\w+|init_from", key):
            continue
        if not (Path(path).exists() or (relative and not Path(relative[-1]).exists())):
            continue
        kept = [override for override in kept if _key(override) != key]
        paths.append(f"{key}={QuotedString(path, Quote.single).with_quotes()}")
    return [*(str(override.input_line) for override in kept), *paths, *overrides]


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
        return UserError(_one_line(f"{error}: {reason}" if str(error) else reason))
    if str(error).startswith("Ambiguous value"):
        key, _, value = str(error).split("'")[1].partition("=")
        return ConfigError(key, value, f"several values; for a list write [{value}], for a sweep add -m")
    if str(error).startswith("Config group override must be"):
        return UserError(f"a group takes the name of one of its choices, as in model=mlp. {error}")
    return UserError(_one_line(str(error)) or type(error).__name__)


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


def _understood(arguments: list[str]) -> tuple[list[str], Path | None]:
    """The arguments of the command line, those of a run named by ``run=`` included, the settings last; the folder of a
    sweep.
    """
    parser = get_args_parser()
    parser.error = _refuse  # type: ignore[method-assign]
    parsed = parser.parse_intermixed_args(arguments)
    if parsed.shell_completion:
        sys.stderr = io.StringIO()  # what is being typed is no mistake yet
        return arguments, None
    if parsed.config_dir and not Path(parsed.config_dir).is_dir():
        raise ConfigError("--config-dir", parsed.config_dir, "is not a folder; give the one of your own yamls")
    options = [argument for argument in arguments if argument not in parsed.overrides]
    overrides = _parsed(parsed.overrides)
    for override in overrides:
        if override.key_or_group == "hydra.run.dir":
            raise ConfigError("hydra.run.dir", _value(override), "has no meaning here: a run's folder is folder=…")
    if not parsed.multirun:
        return options + replay(parsed.overrides), None
    for override in overrides:
        if override.key_or_group in SINGLE and override.value():
            raise ConfigError(str(override.key_or_group), _value(override), SINGLE[str(override.key_or_group)])
        if override.key_or_group == "stage" and override.value() != "fit":
            raise ConfigError("stage", _value(override), jobs.ONLY_FITS)
    if parsed.cfg or parsed.info or parsed.help or parsed.hydra_help:
        return arguments, None
    register()
    named = [override for override in overrides if override.key_or_group == "hydra.sweep.dir"]
    path = Path(str(named[-1].value())) if named else folder.claim(overrides)
    if path.name in ("", ".."):
        raise ConfigError("hydra.sweep.dir", path, "must name a folder of the sweep's own")
    if (path / "overrides.yaml").exists():
        raise ConfigError("hydra.sweep.dir", path, "is a run's folder; name one of the sweep's own")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError("hydra.sweep.dir", path, f"cannot be made ({error.strerror}); name another") from error
    if not named and not any(o.key_or_group == "quiet" and o.value() is True for o in overrides):
        print(f"sweep in {path}", flush=True)
    quoted = QuotedString(str(path), Quote.single).with_quotes()
    return [*options, *parsed.overrides, *([] if named else [f"hydra.sweep.dir={quoted}"])], path


def _refuse(message: str) -> NoReturn:
    raise UserError(f"{message}; settings are given as key=value, for example optimizer.lr=3e-4. --help shows them")


def _stored(folder: Path) -> tuple[list[str], dict[str, str]]:
    require_run(folder, "run")
    try:
        stored: Any = OmegaConf.to_container(OmegaConf.load(folder / "overrides.yaml"), resolve=False)
        return [str(line) for line in stored["overrides"]], {
            str(key): str(path) for key, path in stored["absolute"].items()
        }
    except Exception as error:
        raise ConfigError("run", folder, f"its overrides.yaml is damaged ({type(error).__name__})") from error


def _parsed(overrides: list[str]) -> list[Override]:
    try:
        return OverridesParser.create().parse_overrides(overrides)
    except OverrideParseException as error:
        raise explain(error) from error


def _root(override: Override) -> str:
    return override.key_or_group.replace("/", ".").partition(".")[0]


def _key(override: Override) -> str:
    return override.get_key_element().lstrip("+~")


def _strings(value: Any) -> Iterator[str]:
    """All strings within a value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for child in value.values() if isinstance(value, dict) else value:
            yield from _strings(child)


def _is_outside(text: str) -> bool:
    """Whether a text, as a path or URI, may name a place that is neither in the run nor below the working folder."""
    if re.fullmatch(r"\$\{(trainer|logger)\.[\w.]+\}", text):  # another of the values looked at
        return False
    rest = re.sub(r"^(\$\{folder\}|sqlite://)(/|$)", "", text)
    return rest.startswith(("/", "~")) or ".." in rest.split("/") or "$" in rest or "://" in rest


def _value(override: Override) -> str:
    return str(override.input_line).partition("=")[2]


def show(error: Exception, full_error: str | None = None, job: str = "") -> int:
    """Prints a mistake as one line, a defect with its traceback. Returns the exit status."""
    if full_error == "1" or not isinstance(error, UserError | RunError):
        traceback.print_exception(error)
    if job or full_error != "1":
        print(f"{job}{error}", file=sys.stderr)
    return 2 if isinstance(error, UserError) else 1


def _set_environment(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


def _one_line(text: str) -> str:
    return " ".join(text.split())
