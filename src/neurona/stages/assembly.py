"""Data, network and classifier of a run, in reading order: as they are before a fit, or from its best checkpoint."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, seed_everything
from omegaconf import DictConfig, OmegaConf
from torch import nn

from neurona import schedule
from neurona.classifier import Classifier
from neurona.config import reads
from neurona.config.make import PACKAGES, described, import_target, instantiate, is_within
from neurona.config.nodes import plain
from neurona.config.overrides import typed
from neurona.data.spec import DataSpec
from neurona.devices import cpu, distributed
from neurona.errors import ConfigError
from neurona.optimizer import Optimization
from neurona.runs import checkpoint
from neurona.runs.folder import RunFolder, best_checkpoint
from neurona.stages.request import Request

EVALUATIONS = ("validate", "test", "predict")

log = logging.getLogger("neurona")


Arrays = Mapping[str, Any]
"""The data, where Python holds them."""


def untrained(
    cfg: DictConfig, threads: int | None = None, arrays: Arrays | None = None, *, is_stored: bool = False
) -> tuple[Classifier, Any]:
    """The classifier that the configuration describes, with its first weights, and its data module, read.

    threads: CPU threads to use unless the configuration says; another number gives other bits. is_stored: whether
    ``run=`` has brought the configuration. Raises ConfigError or DataError for what cannot be fitted.
    """
    algorithm, arguments = described(cfg.optimizer, torch.optim.Optimizer)
    optimization = Optimization.of(algorithm, **arguments)
    _check_network(cfg, nn.Identity(), DataSpec(64, 10, ()))  # its ranges, before any data is read
    seed_everything(cfg.seed, verbose=False)
    start: Classifier | None = (arrays or {}).get("start")
    datamodule = _read_data(cfg, arrays, start.spec if start else None, is_stored=is_stored)
    spec = datamodule.spec
    preprocessing = start.preprocessing if start else getattr(datamodule, "preprocessing", None) or nn.Identity()
    _check_network(cfg, preprocessing, spec)
    seed_everything(cfg.seed, verbose=False)  # again: whatever the data drew, the weights are the same
    classifier = instantiate(
        cfg.classifier,
        Classifier,
        preprocessing=preprocessing,
        network=_network(cfg, preprocessing, spec),
        spec=spec,
        optimization=optimization,
        model_config=plain(cfg.model),
        embedding_config=plain(cfg.embedding),
        compile_steps=cfg.compile,
    )
    if start is not None:
        classifier.load_state_dict(start.state_dict())
    if next(classifier.parameters(), None) is None:
        problem = "has no parameters to train; layers in a list have to be a torch.nn.ModuleList or torch.nn.Sequential"
        raise ConfigError("model._target_", cfg.model["_target_"], problem)
    optimizer = optimization.optimizer(classifier.parameters_by_name())  # refuses what cannot be
    schedule.check(OmegaConf.select(cfg, "optimizer.schedule._target_"), optimization.schedule, optimizer)
    classifier.classifier_config = plain(cfg.classifier)
    cpu.set_threads(cfg.threads or threads, classifier.num_parameters * getattr(datamodule, "batch_size", 1))
    _check_fit(classifier, datamodule)
    return classifier, datamodule


def trained(request: Request, folder: RunFolder) -> tuple[Classifier, Any]:
    """The classifier of a run's best checkpoint, and the data module to work on, read.

    Raises ConfigError for an override that the stage does not read, ConfigError or DataError where checkpoint or data
    are damaged, or do not fit each other or the stage.
    """
    cfg = request.cfg
    path = OmegaConf.select(cfg, "data.path")
    is_new = path is not None and not folder.has_data(path)
    reads.check(cfg.stage, request.beside_run(folder), import_target("data", cfg.data["_target_"]), is_new=is_new)
    contents = checkpoint.read(folder.best_checkpoint)
    datamodule = _read_data(cfg, request.arrays, checkpoint.spec(contents), is_new, is_stored=True)
    _require_same_sizes(checkpoint.spec(contents), datamodule.spec)
    trained_on = contents["neurona"].get("fingerprint")
    fingerprint = None if is_new else getattr(datamodule, "fingerprint", None)
    if fingerprint is not None and trained_on not in (None, fingerprint):
        problem = "the rows may include some that the run was trained on"
        log.warning("data.fingerprint=%s: was %s when the run began; %s", fingerprint, trained_on, problem)
    if cfg.stage == "validate" and is_new and datamodule.spec.schema is not None:
        raise ConfigError("stage", "validate", "works on the run's own data; for others (data.path) use stage=test")
    if cfg.stage == "validate" and not getattr(datamodule, "has_validation", True):
        raise ConfigError("stage", "validate", "this run has no validation part (data.val_fraction=0); use stage=test")
    if cfg.stage in ("test", "predict") and not getattr(datamodule, "has_test", True):
        raise ConfigError("stage", cfg.stage, "this run has no test part (data.test_fraction=0); give other rows")
    seed_everything(cfg.seed, verbose=False)
    classifier = checkpoint.rebuild(contents, cfg.allow, plain(cfg.classifier), datamodule.spec)
    cpu.set_threads(cfg.threads, classifier.num_parameters * getattr(datamodule, "batch_size", 1))
    return classifier, datamodule


def _network(cfg: DictConfig, preprocessing: nn.Module, spec: DataSpec) -> nn.Module:
    return checkpoint.make_network(plain(cfg.model), plain(cfg.embedding), preprocessing, spec, cfg.allow)


def _check_network(cfg: DictConfig, preprocessing: nn.Module, spec: DataSpec) -> None:
    """Refuses ranges, and weights that this machine's memory cannot hold, before there are any."""
    if not cfg.model["_target_"].startswith("neurona."):
        return
    with torch.device("meta"):
        network = _network(cfg, preprocessing, spec)
    needed = sum(parameter.nbytes for parameter in network.parameters())
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > memory:
        problem = f"its weights take {needed / 2**30:,.0f} GiB of {memory / 2**30:,.0f} GiB of memory; make it smaller"
        raise ConfigError("model", cfg.model["_target_"], problem)


KNOW_NO_WEIGHTS = ("loss", "training_step", "on_before_batch_transfer", "on_after_batch_transfer")
"""Methods that, as somebody's own, would take the weights of rows for a column of the features."""


def _check_fit(classifier: Classifier, datamodule: Any) -> None:
    """Refuses what the data cannot give the classifier."""
    if classifier.balanced and not hasattr(datamodule, "class_counts"):
        problem = "needs data that count their classes (class_counts); give one weight per class"
        raise ConfigError("classifier.class_weights", "balanced", problem)
    if (classifier.classifier_config or {}).get("calibrate") and classifier.calibration is None:
        log.info("without calibration, as %s has a forward of its own", type(classifier).__qualname__)
    if getattr(datamodule, "row_weights", None) is not None:
        for name in KNOW_NO_WEIGHTS:
            if getattr(type(classifier), name) is not getattr(Classifier, name):
                problem = (
                    f"has a {name} of its own, which knows no weights of rows (data.weight); leave one of them out"
                )
                raise ConfigError("classifier", type(classifier).__qualname__, problem)
    for name, _ in classifier.named_children():
        if callable(getattr(type(classifier), name, None)):
            kind = type(classifier).__qualname__
            problem = f"sets self.{name} to a module, and has a method of this name; give the module another name"
            raise ConfigError("classifier", kind, problem)
    normalized = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in classifier.network.modules())
    if normalized and hasattr(datamodule, "train_rows"):
        rows, size, processes = len(datamodule.train_rows), datamodule.batch_size, distributed.world_size()
        # Of parts that differ by one row at most, some have one row if there are fewer than two for every process.
        if any(0 < part < 2 * processes for part in (size, rows % size)):
            shared = f"for one of {processes} processes " if processes > 1 else ""
            problem = f"of {rows} rows leaves {shared}a mini-batch of one, which batch normalization cannot use"
            raise ConfigError("data.batch_size", size, f"{problem}; use another")


def _read_data(
    cfg: DictConfig,
    arrays: Arrays | None,
    trained: DataSpec | None = None,
    is_new: bool = False,
    *,
    is_stored: bool = False,
) -> Any:
    """The data module, read: its ``spec`` tells the sizes. trained, is_new: see ``InMemoryData.follow``. is_stored: a
    library's is not to prepare its data, as it would write to wherever the stored settings say.
    """
    if arrays is None and not is_new and getattr(import_target("data", cfg.data["_target_"]), "takes_arrays", False):
        stage = f', "stage={cfg.stage}"' if cfg.stage != "fit" else ""
        lines = f', ["{typed("run", cfg.run)}"{stage}]' if cfg.run else ""
        problem = f"is in memory, in Python: neurona.fit(X, y{lines})"
        raise ConfigError("data", cfg.data["_target_"].rpartition(".")[2], problem)
    datamodule: Any = instantiate(cfg.data, LightningDataModule, **({} if arrays is None else {"arrays": arrays}))
    if trained is not None and hasattr(datamodule, "follow"):
        datamodule.follow(trained, is_new=is_new)
    if not (is_stored and is_within(type(datamodule).__module__, PACKAGES)):
        datamodule.prepare_data()
    datamodule.setup(cfg.stage if cfg.stage in EVALUATIONS else "fit")
    if not _has_spec(datamodule) and cfg.stage in EVALUATIONS:
        datamodule.setup("fit")  # which may be what tells it
    if not _has_spec(datamodule):
        raise ConfigError("data", cfg.data["_target_"], "needs a `spec`, a neurona.data.spec.DataSpec, after setup()")
    if datamodule.spec.schema is not None and cfg.trainer.precision in ("16-true", "bf16-true"):
        problem = "rounds a table's values and the numbers of its categories; trainer.precision=bf16-mixed does not"
        raise ConfigError("trainer.precision", cfg.trainer.precision, problem)
    return datamodule


def _has_spec(datamodule: Any) -> bool:
    return isinstance(getattr(datamodule, "spec", None), DataSpec)


def _require_same_sizes(trained: DataSpec, spec: DataSpec) -> None:
    for name in ("num_features", "num_classes", "class_names"):
        before, now = getattr(trained, name), getattr(spec, name)
        if before != now:
            problem = f"{name} is {now}, but the run was trained with {before}; use data like the run's"
            raise ConfigError("data", "", problem)


def start_from(folder: str, classifier: Classifier) -> None:
    """Gives a classifier the weights of another run's best checkpoint, wherever the sizes are the same."""
    contents = checkpoint.read(best_checkpoint(Path(folder).expanduser(), "init_from"))
    new = checkpoint.transfer(contents, classifier)
    log.info("weights from %s%s", folder, f"; new, because the sizes differ: {', '.join(new)}" if new else "")
