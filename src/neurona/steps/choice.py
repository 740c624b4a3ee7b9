"""How the fast way takes its steps: by recordings, on a GPU as CUDA graphs, or directly."""

from __future__ import annotations

import logging

from neurona.steps import graphs, recorded
from neurona.steps.steps import Classifier, DirectSteps
from neurona.steps.traced import TracedSteps

log = logging.getLogger(__name__)


def steps_of(classifier: Classifier) -> DirectSteps:
    """The way in which a fit takes its steps. Logs the reason if compile=true was given and they cannot be compiled."""
    obstacles = [*recorded.obstacles(classifier)]
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
