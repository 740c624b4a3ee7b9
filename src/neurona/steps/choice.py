"""How the fast way takes its steps: compiled, as CUDA graphs, or directly."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import partial

import torch

from neurona.steps import compiled, graphs
from neurona.steps.steps import Classifier, DirectSteps

log = logging.getLogger(__name__)


def steps_of(classifier: Classifier, shipped: type) -> DirectSteps:
    """How a fit takes its steps, compiled if that was asked for and is possible. shipped: the project's own classifier,
    whose methods compute with tensors only.
    """
    if classifier.compile_steps:
        if obstacles := list(obstacles_to_compiling(classifier, shipped)):
            log.warning("compile=true: going on without, as %s", "; ".join(obstacles))
        else:
            return compiled.CompiledSteps(classifier, partial(_uncompiled, classifier, shipped))
    return _uncompiled(classifier, shipped)


def _uncompiled(classifier: Classifier, shipped: type) -> DirectSteps:
    """On a GPU as a graph if that is possible, else directly."""
    if graphs.wanted(classifier) and not list(obstacles_to_recording(classifier, shipped)):
        return graphs.GraphedSteps(classifier)
    return DirectSteps(classifier)


def obstacles_to_compiling(classifier: Classifier, shipped: type) -> Iterable[str]:
    """Why a fit cannot be compiled, if it cannot."""
    trainer, kind = classifier.trainer, type(classifier)
    if trainer.world_size > 1:
        yield "several devices are not compiled"
    own = [name for name in ("loss", "forward") if getattr(kind, name) is not getattr(shipped, name)]
    if own and not getattr(kind, "compilable", False):
        name = kind.__name__
        yield f"{name}.{own[0]} may do more than compute with tensors; {name}.compilable = True says that it does not"
    if torch.is_anomaly_enabled():
        yield "trainer.detect_anomaly looks at every operation"
    if classifier.optimization.accumulate > 1:
        yield "optimizer.accumulate above 1 is not compiled"
    yield from compiled.obstacles(trainer.optimizers[0])


def obstacles_to_recording(classifier: Classifier, shipped: type) -> Iterable[str]:
    """Why the steps of a fit cannot be recorded without being asked, if they cannot."""
    if classifier.trainer.world_size > 1:
        yield "there are several devices"
    if classifier.optimization.accumulate > 1:
        yield "optimizer.accumulate is above 1"
    if torch.is_anomaly_enabled():
        yield "trainer.detect_anomaly looks at every operation"
    modules = [*classifier.preprocessing.modules(), *classifier.network.modules()]
    own = {type(module).__qualname__ for module in modules if not is_compilable(type(module))}
    if type(classifier) is not shipped:
        own.add(type(classifier).__qualname__)
    if own and not getattr(type(classifier), "compilable", False):
        yield f"{', '.join(sorted(own))} may do more in Python than compute with tensors"


def is_compilable(kind: type) -> bool:
    """Whether a class, not one that it is derived from, promises that ``forward`` but computes with tensors."""
    return kind.__module__.partition(".")[0] == "torch" or vars(kind).get("compilable", False)
