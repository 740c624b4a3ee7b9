"""The space of a search: Hydra's grammar against the distributions that Optuna is to draw from."""

from __future__ import annotations

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from neurona.errors import ConfigError
from neurona.sweep import space


def read(*overrides: str) -> tuple[list[str], space.Space]:
    return space.read(OverridesParser.create().parse_overrides(list(overrides)))


@pytest.mark.parametrize(
    ("override", "distribution"),
    [
        ("a.b=relu,tanh", CategoricalDistribution(("relu", "tanh"))),
        ("a.b=[64,64],[8],null,'x y'", CategoricalDistribution(("[64,64]", "[8]", "null", "'x y'"))),
        ("a.b=shuffle(3,1,2)", CategoricalDistribution(("3", "1", "2"))),
        ("a.b=1,2,1", CategoricalDistribution(("1", "2"))),
        ("a.b=range(1,5)", IntDistribution(1, 4)),
        ("a.b=range(16,65,16)", IntDistribution(16, 64, step=16)),
        ("a.b=range(9,0,-4)", IntDistribution(1, 9, step=4)),
        ("a.b=range(0.1,0.5,0.1)", FloatDistribution(0.1, 0.4, step=0.1)),
        ("a.b=float(range(1,3))", FloatDistribution(1.0, 2.0, step=1.0)),
        ("a.b=tag(log,range(1,1001))", IntDistribution(1, 1000, log=True)),
        ("a.b=interval(0,1)", FloatDistribution(0.0, 1.0)),
        ("a.b=tag(log,interval(1e-4,1e-1))", FloatDistribution(1e-4, 1e-1, log=True)),
        ("a.b=int(interval(2,5))", IntDistribution(2, 5)),
        ("a.b=tag(log,int(interval(8,512)))", IntDistribution(8, 512, log=True)),
        ("+a.b=interval(0,1)", FloatDistribution(0.0, 1.0)),
    ],
)
def test_overrides_become_distributions(override: str, distribution: BaseDistribution) -> None:
    assert read(override) == ([], {override.partition("=")[0]: distribution})


def test_the_last_of_a_key_counts() -> None:
    fixed, searched = read("a=1,2", "b=interval(0,1)", "c='x, y'", "a=3", "c=4,5")
    assert (fixed, list(searched)) == (["a=3"], ["b", "c"])


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("a=interval(1,0)", "low <= high"),
        ("a=tag(log,interval(0,1))", "low > 0"),
        ("a=interval(0,inf)", "finite"),
        ("a=range(3,3)", "empty"),
        ("a=range(1,3,0)", "step is 0"),
        ("a=tag(log,range(1,9,2))", "step"),
        ("a=tag(lgo,interval(0,1))", "the tag lgo"),
    ],
)
def test_what_cannot_be_searched_is_refused(override: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        read(override)


def test_samples_have_every_category_and_both_ends() -> None:
    _, searched = read("a=x,y,z", "b=int(interval(0,1000))", "c=interval(0,1)")
    points = list(space.samples(searched))
    assert [point["a"] for point in points] == ["x", "y", "z"]
    assert {point["b"] for point in points} == {0, 1000}
    assert {point["c"] for point in points} == {0.0, 1.0}
    assert space.lines(points[0]) == ["a=x", "b=0", "c=0.0"]


def test_a_grid_has_every_point_once() -> None:
    import optuna

    _, searched = read("a=x,y", "b=range(0.1,0.4,0.1)", "c=int(interval(3,4))")
    study = optuna.create_study(sampler=space.sampler("grid", {}, searched, 0, 0))
    drawn = [tuple(study.ask(searched).params.values()) for _ in range(12)]
    assert space.size(searched) == 12
    assert sorted(drawn) == [(a, b, c) for a in "xy" for b in (0.1, 0.2, 0.3) for c in (3, 4)]


def test_a_grid_takes_no_interval() -> None:
    _, searched = read("a=interval(0,1)")
    assert space.size(searched) == float("inf")
    with pytest.raises(ConfigError, match="sampler=grid"):
        space.sampler("grid", {}, searched, 0, 0)


@pytest.mark.parametrize("name", ["tpe", "gp", "cmaes", "random"])
def test_a_trial_is_drawn_the_same_whoever_asks(name: space.SamplerName) -> None:
    """Two studies told the same draw the same, one by one sampler from the start, the other by a new one each time."""
    import optuna

    _, searched = read("a=interval(0,1)", "b=interval(0,1)")

    def draws(seed: int, trials: int = 12) -> list[dict[str, float]]:
        study = optuna.create_study()
        for number in range(trials):
            study.sampler = space.sampler(name, {}, searched, seed, number)
            trial = study.ask(searched)
            study.tell(trial, trial.params["a"] ** 2 + trial.params["b"])
        return [trial.params for trial in study.trials]

    first = draws(0)
    assert draws(0) == first
    assert draws(1, trials=1) != first[:1]
    assert len({params["a"] for params in first}) == 12
