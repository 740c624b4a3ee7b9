"""How the fast way takes its steps: traced, compiled, as CUDA graphs, or directly."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import partial

import torch

from neurona.steps import compiled, graphs
from neurona.steps.steps import Classifier, DirectSteps, is_compilable, modules_of
from neurona.steps.traced import TracedSteps

log = logging.getLogger(__name__)


def steps_of(classifier: Classifier) -> DirectSteps:
    """How a fit takes its steps, compiled if that was asked for and is possible."""
    if classifier.compile_steps:
        if obstacles := list(obstacles_to_compiling(classifier)):
            log.warning("compile=true: going on without, as %s", "; ".join(obstacles))
        else:
            return compiled.CompiledSteps(classifier, partial(_uncompiled, classifier))
    return _uncompiled(classifier)


def _uncompiled(classifier: Classifier) -> DirectSteps:
    """Recorded, on a GPU as a graph, if that is possible without being asked for; else directly."""
    if list(obstacles_to_tracing(classifier)):
        return DirectSteps(classifier)
    if graphs.wanted(classifier) and not list(obstacles_to_graphs(classifier)):
        return graphs.GraphedSteps(classifier)
    return TracedSteps(classifier) if classifier.device.type == "cpu" else DirectSteps(classifier)


def obstacles_to_compiling(classifier: Classifier) -> Iterable[str]:
    """Why a fit cannot be compiled, if it cannot."""
    if classifier.trainer.world_size > 1:
        yield "several devices are not compiled"
    for owner, name in _unpromised_methods(classifier):
        kind = owner.__name__
        yield f"{kind}.{name} may do more than compute with tensors; {kind}.compilable = True says that it does not"
    if torch.is_anomaly_enabled():
        yield "trainer.detect_anomaly looks at every operation"
    if classifier.optimization.accumulate > 1:
        yield "optimizer.accumulate above 1 is not compiled"
    yield from compiled.obstacles(classifier.trainer.optimizers[0])


def obstacles_to_graphs(classifier: Classifier) -> Iterable[str]:
    """Why steps that can be traced cannot be a GPU's graphs, if they cannot."""
    if classifier.trainer.world_size > 1:
        yield "there are several devices"
    if classifier.optimization.accumulate > 1:
        yield "optimizer.accumulate is above 1"


def obstacles_to_tracing(classifier: Classifier) -> Iterable[str]:
    """Why the steps of a fit cannot be recorded without being asked, if they cannot."""
    if torch.is_anomaly_enabled():
        yield "trainer.detect_anomaly looks at every operation"
    own = {type(module).__qualname__ for module in modules_of(classifier) if not is_compilable(type(module))}
    own |= {owner.__qualname__ for owner, _ in _unpromised_methods(classifier)}
    if own:
        yield f"{', '.join(sorted(own))} may do more in Python than compute with tensors"


def _unpromised_methods(classifier: Classifier) -> Iterable[tuple[type, str]]:
    """What a step calls of a classifier whose class does not promise that it but computes with tensors."""
    for name in ("loss", "forward"):
        owner = next(kind for kind in type(classifier).__mro__ if name in vars(kind))
        if name in vars(classifier) or not is_compilable(owner):
            yield owner, name
