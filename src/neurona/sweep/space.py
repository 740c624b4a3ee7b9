"""The space of a search, in Hydra's grammar of overrides, and the samplers that draw from it."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal

import optuna
from hydra.core.override_parser.types import ChoiceSweep, Override, RangeSweep
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from neurona.errors import ConfigError

Distribution = CategoricalDistribution | FloatDistribution | IntDistribution
Space = dict[str, Distribution]
SamplerName = Literal["tpe", "gp", "cmaes", "random", "grid"]
SAMPLERS = {"tpe": "TPESampler", "gp": "GPSampler", "cmaes": "CmaEsSampler", "random": "RandomSampler"}


def read(overrides: Sequence[Override]) -> tuple[list[str], Space]:
    """The overrides with one value, as they are given, and the distribution of each of the others; the last of a key
    counts.

    ``a,b``, ``choice(a,b)`` and ``glob(*)`` become categories, which are kept as Hydra writes them; ``range(a,b,c)``
    has its steps, without b, as in Hydra; ``interval(a,b)`` is continuous, ``int(interval(a,b))`` includes both ends;
    ``tag(log, …)`` takes the last two in the logarithm. Raises ConfigError for one that is empty or not possible.
    """
    last = {override.get_key_element(): override for override in overrides}
    fixed = [str(override.input_line) for override in last.values() if not override.is_sweep_override()]
    return fixed, {key: _distribution(key, o) for key, o in last.items() if o.is_sweep_override()}


def lines(params: Mapping[str, Any]) -> list[str]:
    """The overrides that a trial's parameters come to."""
    return [f"{key}={value}" for key, value in params.items()]


def samples(space: Space) -> Iterator[dict[str, Any]]:
    """A few points that have every category, and both ends of everything else."""
    values = {
        key: one.choices if isinstance(one, CategoricalDistribution) else (one.low, one.high)
        for key, one in space.items()
    }
    for index in range(max(map(len, values.values()))):
        yield {key: column[index % len(column)] for key, column in values.items()}


def size(space: Space) -> float:
    """Number of points, infinite where something is continuous."""
    return math.prod(len(values) if (values := _values(one)) else math.inf for one in space.values())


def sampler(
    name: SamplerName, arguments: Mapping[str, Any], space: Space, seed: int, number: int
) -> optuna.samplers.BaseSampler:
    """The sampler for a trial. arguments: of Optuna's class. number: the trial's.

    Each trial has random numbers of its own, so that one asked for by another worker, or after a restart, is drawn as
    it would have been. Raises ConfigError for a space that the sampler cannot take.
    """
    if name == "grid":  # its order is the seed's; the trial's number is the point's
        grid = {key: _values(distribution) for key, distribution in space.items()}
        for key, values in grid.items():
            if not values:
                problem = "has no end of values, but sampler=grid needs a list: give choices, or range(start,stop,step)"
                raise ConfigError(key, space[key], problem)
        return optuna.samplers.GridSampler(grid, seed=seed)
    try:
        own_seed = random.Random(f"{seed}/{number}").getrandbits(32)
        return getattr(optuna.samplers, SAMPLERS[name])(seed=own_seed, **arguments)
    except (TypeError, ValueError) as error:
        raise ConfigError("hydra.sweeper.sampler_arguments", dict(arguments), str(error)) from error


def _distribution(key: str, override: Override) -> Distribution:
    sweep: Any = override.value()
    tags: set[str] = getattr(sweep, "tags", set())
    try:
        if unknown := tags - {"log"}:
            raise ValueError(f"the tag {unknown.pop()} has no meaning here; log has")
        if override.is_choice_sweep():
            if isinstance(sweep, ChoiceSweep):
                sweep.shuffle = False  # the order tells one space from another
            return CategoricalDistribution(list(dict.fromkeys(override.sweep_string_iterator())))
        low, high, step = _of_range(sweep) if isinstance(sweep, RangeSweep) else (sweep.start, sweep.end, None)
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError("its ends must be finite")
        if isinstance(low, int):
            return IntDistribution(low, high, log="log" in tags, step=step or 1)
        return FloatDistribution(low, high, log="log" in tags, step=step)
    except ValueError as error:
        raise ConfigError(key, override.get_value_string(), f"cannot be searched: {error}") from error


def _of_range(sweep: RangeSweep) -> tuple[Any, Any, Any]:
    """Lowest and highest value, and the step between two."""
    numbers = (sweep.start, sweep.stop, sweep.step)
    start, stop, step = (Decimal(str(number)) for number in numbers)  # 0.1 is to be a tenth
    if not step:
        raise ValueError("its step is 0")
    if (count := math.ceil((stop - start) / step)) < 1:
        raise ValueError("it is empty")
    kind = int if all(isinstance(number, int) for number in numbers) else float
    low, high = sorted((start, start + (count - 1) * step))
    return kind(low), kind(high), kind(abs(step))


def _values(distribution: Distribution) -> list[Any]:
    """All values, none of a continuous distribution."""
    match distribution:
        case CategoricalDistribution():
            return list(distribution.choices)
        case IntDistribution():
            return list(range(distribution.low, distribution.high + 1, distribution.step))
        case FloatDistribution(step=float()):
            low, high, step = (Decimal(str(end)) for end in (distribution.low, distribution.high, distribution.step))
            return [float(low + index * step) for index in range(int((high - low) / step) + 1)]
    return []
