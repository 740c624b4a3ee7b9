"""A search for the best hyper-parameters: an Optuna study as a sweeper of Hydra's, shared by any number of workers."""

from __future__ import annotations

import contextlib
import itertools
import math
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from neurona.config import signatures
from neurona.config.check import FIGURES, check_arguments
from neurona.errors import ConfigError, RunError
from neurona.runs.files import write_atomically
from neurona.runs.folder import read_metrics
from neurona.runs.jobs import CHANGEABLE_KEYS, SEARCH, folders
from neurona.sweep import names
from neurona.sweep.launcher import Processes, announce, checked

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

    from neurona.sweep.study import Worker

Jobs = Iterator[tuple[int, Sequence[str]]]
PRUNING = "neurona.sweep.pruning.Pruning"
BEST_FILE = "best.txt"
ERROR_FIGURES = ("loss", "calibration_error")


class Search(Sweeper):
    """params: overrides of an experiment, as on the command line, which come before those. trials: number of all, but
    those that fail. metric: the objective, of ``metrics.json``. sampler_arguments, pruner_arguments: of Optuna's
    classes. seed: of the sampler. storage: a URL of Optuna's; None for a journal in the sweep's folder. study: its
    name; None for that folder's. max_batch_size: trials that a launcher other than ``processes`` is given at a time.
    """

    def __init__(
        self,
        *,
        params: dict[str, Any],
        trials: int,
        metric: str,
        direction: Literal["minimize", "maximize"],
        sampler: Literal["tpe", "gp", "cmaes", "random", "grid"],
        sampler_arguments: dict[str, Any],
        pruner: Literal["none", "median", "percentile", "hyperband"],
        pruner_arguments: dict[str, Any],
        seed: int,
        storage: str | None,
        study: str | None,
        max_batch_size: int,
    ) -> None:
        self.metric, self.max_batch_size = metric, max_batch_size

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.root: Any = config
        self.loader: Any = hydra_context.config_loader
        self.folder = Path(str(config.hydra.sweep.dir))
        self.jobs: Any = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Runs trials until there are enough. Raises ConfigError before the first, RunError if none has finished."""
        from neurona.sweep import space, study

        node = self._settings()
        lines = [f"{key}={value}" for key, value in node["params"].items() if value is not None]
        parser = OverridesParser.create(config_loader=self.loader)
        fixed, searched = space.read(parser.parse_overrides([*lines, *arguments]))
        if not searched:
            problem = "has nothing to search; add values, as in model.activation=relu,tanh 'optimizer.lr=interval(0,1)'"
            raise ConfigError("--multirun", " ".join(arguments), problem)

        def sampler(number: int) -> BaseSampler:
            return space.sampler(node["sampler"], node["sampler_arguments"], searched, node["seed"], number)

        sampler(0), study.pruner(node["pruner"], node["pruner_arguments"])
        for params in space.samples(searched):
            composed = checked(self.loader, self.root, [*fixed, *space.lines(params)])
        _check_metric(node["metric"], node["direction"], composed.classifier._target_)
        lasting = [line for line in fixed if line.partition("=")[0] not in CHANGEABLE_KEYS]
        points = space.size(searched) if node["sampler"] == "grid" else math.inf

        def claims() -> Jobs:
            while claimed := worker.claim(node["trials"], points, sampler):
                number, varying = claimed[0], space.lines(claimed[1])
                yield number, names.with_folder(number, [*fixed, *varying], varying, folders(self.folder))

        is_sweep = any((folder / "overrides.yaml").exists() for folder in folders(self.folder).values())
        if is_sweep and not (self.folder / SEARCH).exists():
            raise ConfigError("hydra.sweep.dir", self.folder, "holds a sweep that is not a search; give another folder")
        stream: Any = self.jobs.stream if isinstance(self.jobs, Processes) else self._in_batches
        with study.Worker(self.folder, node, searched, lasting) as worker:
            announce(self.root)
            while first := next(jobs := claims(), None):  # again, for those to replace trials that failed at the end
                with contextlib.closing(stream(itertools.chain([first], jobs))) as ended:
                    for number, figures in ended:
                        worker.tell(number, figures)
                        self._write_best(worker, lasting)
            self._write_best(worker, lasting)
            self._conclude(worker, lasting)

    def _settings(self) -> dict[str, Any]:
        """The node ``hydra.sweeper``, checked. What comes from the environment stays as it is written."""
        raw: Any = OmegaConf.to_container(self.root.hydra.sweeper)
        node: Any = OmegaConf.to_container(self.root.hydra.sweeper, resolve=True)
        node["params"] = raw["params"]
        if "${oc.env:" in str(raw["storage"]):
            node["storage"] = raw["storage"]
        del node["_target_"]
        signature = signatures.from_object(type(self))
        assert signature is not None
        check_arguments("hydra.sweeper", node, node, signature)
        for key in ("trials", "max_batch_size"):
            if node[key] < 1:
                raise ConfigError(f"hydra.sweeper.{key}", node[key], "must be 1 or more")
        node["callbacks"] = {} if node["pruner"] == "none" else {"pruning": {"_target_": PRUNING}}
        return node

    def _in_batches(self, jobs: Jobs) -> Iterator[tuple[int, dict[str, Any]]]:
        """As ``Processes.stream``, for Hydra's other launchers, which take jobs of consecutive numbers and wait."""
        while batch := list(itertools.islice(jobs, self.max_batch_size)):
            for _, group in itertools.groupby(enumerate(batch), lambda pair: pair[1][0] - pair[0]):
                numbers, overrides = zip(*(job for _, job in group), strict=True)
                problem = "has left no metrics.json"
                try:
                    self.jobs.launch(overrides, initial_job_idx=numbers[0])
                except Exception as error:
                    problem = str(error) or type(error).__name__
                for number, lines in zip(numbers, overrides, strict=True):
                    folder = names.folder_of(self.folder, number, lines)
                    yield number, read_metrics(folder) or {"status": "failed", "error": problem}

    def _write_best(self, worker: Worker, fixed: Sequence[str]) -> None:
        """Writes ``best.txt``: the best trial so far and the command that fits with its settings once more."""
        with worker.alone():
            if best := worker.best:
                origin = f"# {self.metric} {best.value:.6g}, trial {best.number} of {self.folder}"
                write_atomically(self.folder / BEST_FILE, f"{origin}\n{self._command(best.params, fixed)}\n")

    def _command(self, params: Mapping[str, Any], fixed: Sequence[str]) -> str:
        """A run with a trial's settings, as it is typed."""
        from neurona.sweep import space

        sources = self.root.hydra.runtime.config_sources
        own = [f"{one.schema}://{one.path}" for one in sources if one.provider not in ("hydra", "main", "schema")]
        searchpath = [f"hydra.searchpath=[{','.join(own)}]"] if own else []
        lasting = [line for line in fixed if not line.startswith("retry_failed=")]  # which is a sweep's alone
        return shlex.join(["python", "train.py", *searchpath, *lasting, *space.lines(params)])

    def _conclude(self, worker: Worker, fixed: Sequence[str]) -> None:
        best, trials = worker.best, worker.study.get_trials(deepcopy=False)
        if best is None:
            errors = [trial.user_attrs["error"] for trial in trials if "error" in trial.user_attrs]
            raise RunError(
                f"no trial of {self.folder} has finished: {errors[0] if errors else 'they are still at work'}"
            )
        if not self.root.quiet:
            counts = Counter(trial.state.name.lower() for trial in trials)
            print(f"\n{len(trials)} trials: " + ", ".join(f"{number} {state}" for state, number in counts.items()))
            print(f"best: trial {best.number}, {worker.metric} {best.value:.6g}")
            for key, value in best.params.items():
                print(f"  {key}={value}")
            print(self._command(best.params, fixed))


def _check_metric(metric: str, direction: str, classifier: str) -> None:
    if classifier != "neurona.classifier.Classifier":  # one's own may report figures of its own
        return
    name = metric.removeprefix("val/")
    if name == metric or not (name in FIGURES or name.startswith("accuracy_of/")):
        figures = ", ".join(f"val/{figure}" for figure in FIGURES)
        raise ConfigError("hydra.sweeper.metric", metric, f"must be one of {figures}, or val/accuracy_of/<class>")
    if (direction == "minimize") != (name in ERROR_FIGURES):
        right = "minimize" if name in ERROR_FIGURES else "maximize"
        raise ConfigError(
            "hydra.sweeper.direction", direction, f"the best {metric} takes hydra.sweeper.direction={right}"
        )
