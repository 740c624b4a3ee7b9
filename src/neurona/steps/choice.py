"""How the fast way takes its steps: by recordings, on a GPU as CUDA graphs, or directly."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import torch

from neurona.steps import graphs
from neurona.steps.recorded import is_compilable, modules_of
from neurona.steps.steps import Classifier, DirectSteps
from neurona.steps.traced import TracedSteps

log = logging.getLogger(__name__)


def steps_of(classifier: Classifier) -> DirectSteps:
    """How a fit takes its steps. Says so where they cannot be compiled, if that was asked for."""
    obstacles = [*obstacles_to_recording(classifier)]
    against = [*obstacles, *(["several devices are not compiled"] if classifier.trainer.world_size > 1 else [])]
    compiles = classifier.compile_steps and not against
    if classifier.compile_steps and against:
        log.warning("compile=true has no effect, because %s", "; ".join(against))
    if obstacles:
        return DirectSteps(classifier)
    if graphs.wanted(classifier):
        return graphs.GraphedSteps(classifier, compiles=compiles)
    is_recorded = compiles or classifier.device.type == "cpu"
    return TracedSteps(classifier, compiles=compiles) if is_recorded else DirectSteps(classifier)


def obstacles_to_recording(classifier: Classifier) -> Iterable[str]:
    """Why the steps of a fit cannot be recorded, if they cannot."""
    if torch.is_anomaly_enabled():
        yield "trainer.detect_anomaly looks at every operation"
    kinds = {type(module) for module in modules_of(classifier)} | {*_owners(classifier)}
    if own := sorted(kind.__qualname__ for kind in kinds if not is_compilable(kind)):
        does = "may do more in Python than compute with tensors; compilable = True in the class says that it does not"
        yield f"{', '.join(own)} {does}"


def _owners(classifier: Classifier) -> Iterable[type]:
    """The classes whose methods a step calls of the classifier itself."""
    for name in ("loss", "forward"):
        own = type(f"{type(classifier).__qualname__}.{name}", (), {})  # put into the instance
        yield own if name in vars(classifier) else next(k for k in type(classifier).__mro__ if name in vars(k))
