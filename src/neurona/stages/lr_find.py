"""``stage=lr_find``: a learning-rate range test with its own folder; it draws the curve and suggests a rate."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from neurona.config.make import instantiate
from neurona.config.overrides import in_shell
from neurona.devices import distributed
from neurona.errors import ConfigError, RunError
from neurona.inspection.loggers import boards
from neurona.inspection.style import COLOURS, STYLE
from neurona.runs.files import as_csv, replacing, write_atomically
from neurona.stages import assembly, console, first_batch, record
from neurona.stages.range_test import LEAST_STEPS, RangeTest
from neurona.stages.request import Request
from neurona.stages.trainer import build_for_range_test, loggers
from neurona.steps import randomness

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger("neurona")


def run(request: Request) -> dict[str, Any]:
    """Returns the figures of ``metrics_lr_find.json``. Raises RunError where the curve suggests no rate."""
    cfg = request.cfg
    if cfg.run is not None:
        weights = in_shell("init_from", cfg.run)
        problem = f"lr_find begins with new weights; give the run's settings, and {weights} for its weights"
        raise ConfigError("run", cfg.run, problem)
    if distributed.world_size() > 1:
        raise ConfigError("stage", "lr_find", "works on one device: start one process, with trainer=auto")
    test = instantiate(cfg.lr_find, RangeTest)
    request.on_exit.callback(randomness.restore_rng, randomness.rng_state())
    cfg.folder = request.place()
    test_cfg = test.of_fit(cfg)
    classifier, datamodule = assembly.untrained(test_cfg)
    if cfg.init_from is not None:
        assembly.start_from(cfg.init_from, classifier)
    trainer = build_for_range_test(test_cfg, datamodule, test)
    first_batch.check(test_cfg, trainer, classifier, datamodule, ("train",))
    folder = request.create_folder(trainer)
    cfg.folder = str(folder.path)
    with console.train_log(folder), record.recorded(request, folder, trainer, classifier) as figures:
        folder.describe(cfg, request.overrides, request.choices)
        console.introduce(cfg, classifier, trainer, datamodule, folder.path)
        with record.timed(figures):
            test.fit(trainer, classifier, datamodule)
            suggestion = test.suggestion()
            figures |= {"suggested_lr": suggestion, "lowest_lr": test.rates[0], "highest_lr": test.rates[-1]}
            figures["stopped_by"] = "divergence" if test.has_diverged else "max_steps"
        _write_curve(test, suggestion, cfg)
        if suggestion is None:
            raise RunError(test.why_none())
        log.info("%s\noptimizer.lr=%.1e", folder.path / "lr_find.png", suggestion)
    return figures


def _write_curve(test: RangeTest, suggestion: float | None, cfg: DictConfig) -> None:
    """``lr_find.csv`` and ``lr_find.png`` in the run's folder, and the picture in TensorBoard."""
    rows = zip(test.rates, test.losses, test.smoothed, strict=True)
    write_atomically(Path(cfg.folder) / "lr_find.csv", as_csv([("lr", "loss", "smoothed_loss"), *rows]))
    figure = draw(test, suggestion)
    with replacing(Path(cfg.folder) / "lr_find.png") as file:
        figure.savefig(file, format="png")
    for board in boards(loggers(cfg).values()):
        board.experiment.add_figure("lr_find", figure)
        board.finalize("success")


def draw(test: RangeTest, suggestion: float | None) -> Figure:
    """The curve, with the suggestion marked."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 4.0))
        axis = figure.subplots()
        axis.plot(test.rates, test.losses, color=COLOURS[4], lw=0.8, alpha=0.7, label="loss of each step")
        axis.plot(test.rates, test.smoothed, color=COLOURS[0], lw=2, label="moving average")
        if suggestion is not None:
            axis.axvline(suggestion, color=COLOURS[3], ls="--", label=f"optimizer.lr={suggestion:.1e}")
        axis.set_xscale("log")
        low, high = min(test.losses), max(test.losses[:LEAST_STEPS])
        axis.set_ylim(low - 0.05 * (high - low), high + 0.5 * (high - low))
        axis.set_xlabel("learning rate")
        axis.set_ylabel("training loss (nats)")
        axis.legend()
    return figure
