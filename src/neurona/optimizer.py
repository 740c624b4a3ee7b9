"""Optimisers: any of torch's or of one's own, and what goes with a step: schedule, clipping, accumulation, groups.

To add one: a yaml in ``configs/optimizer`` that names its class and its arguments. Two are here that torch does not
have.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from neurona.errors import ConfigError, check_range, did_you_mean
from neurona.schedule import Schedule, constant

RANGES: dict[str, dict[str, float]] = {
    "lr": {"above": 0},
    "eps": {"above": 0},
    "weight_decay": {"least": 0},
    "momentum": {"least": 0, "below": 1},
    "rho": {"least": 0, "below": 1},
}
"""Of arguments with one meaning in every optimiser that has them."""

FUSED: tuple[type[Optimizer], ...] = (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD)
"""Classes that update in one kernel by default."""


@dataclass(frozen=True, kw_only=True)
class Optimization:
    """How one optimiser step is made.

    kind: the optimiser's class, or a function that makes it; arguments: what it takes beside the parameters.
    schedule: of the learning rate. clip_norm: largest global L2 norm of the gradient (Pascanu et al. 2013,
    arXiv:1211.5063, algorithm 1). clip_value: largest absolute value of each gradient component. accumulate:
    mini-batches whose mean gradient makes one step; the remainder at the end of an epoch makes one too. groups:
    arguments for the parameters whose names match a pattern (``fnmatch``), the first that does, in place of those that
    hold for all (layer-wise rates: Howard & Ruder 2018, arXiv:1801.06146, section 3.2).
    """

    kind: Callable[..., Optimizer]
    arguments: Mapping[str, Any]
    schedule: Schedule = field(default_factory=constant)
    clip_norm: float | None = None
    clip_value: float | None = None
    accumulate: int = 1
    groups: Mapping[str, Mapping[str, Any]] | None = None

    @classmethod
    def of(cls, kind: Callable[..., Optimizer], **arguments: Any) -> Self:
        """arguments: those of the optimiser and of this class, as in the yaml."""
        own = {each.name for each in fields(cls)} & arguments.keys()
        rest = {name: value for name, value in arguments.items() if name not in own}
        return cls(kind=kind, arguments=rest, **{name: arguments[name] for name in own})

    def __post_init__(self) -> None:
        check_range("optimizer.clip_norm", self.clip_norm, above=0)
        check_range("optimizer.clip_value", self.clip_value, above=0)
        check_range("optimizer.accumulate", self.accumulate, least=1, below=2**31)
        if self.clip_norm is not None and self.clip_value is not None:
            problem = "clip by norm or by value, not both: set one to null"
            raise ConfigError("optimizer.clip_value", self.clip_value, problem)
        self._check("optimizer", self.arguments)
        for pattern, options in (self.groups or {}).items():
            if not isinstance(pattern, str):
                raise ConfigError("optimizer.groups", pattern, "must be a pattern for names of parameters, as head.*")
            if not isinstance(options, Mapping):
                problem = "must be a mapping of the optimiser's arguments, such as {lr: 1e-4}"
                raise ConfigError(f"optimizer.groups.{pattern}", options, problem)
            self._check(f"optimizer.groups.{pattern}", options)

    def optimizer(
        self, parameters: Sequence[tuple[str, nn.Parameter]], without: Collection[nn.Parameter] = ()
    ) -> Optimizer:
        """The optimiser of parameters with names; the group of those that match no pattern is the first.

        without: a set of those that patterns may match, but that are left to others. Raises ConfigError for what
        its constructor refuses, and for a pattern or an argument of a group that would be without effect.
        """
        groups = self._grouped(parameters, without)
        is_chosen = bool({"fused", "foreach"} & self.arguments.keys())
        defaults = {"fused": True} if self.kind in FUSED and not is_chosen else {}
        try:
            optimizer = self.kind(groups, **defaults, **_plain(self.arguments))
        except (ValueError, TypeError, IndexError, KeyError, RuntimeError) as error:
            raise ConfigError("optimizer", self.name, " ".join(str(error).split())) from error
        if not isinstance(optimizer, Optimizer):
            raise ConfigError("optimizer", self.name, "must make a torch.optim.Optimizer of the parameters it is given")
        for pattern, options in (self.groups or {}).items():
            for name in options:
                if name not in optimizer.defaults and any(name in group for group in optimizer.param_groups):
                    hint = did_you_mean(name, optimizer.defaults)
                    problem = f"{self.name} has no argument of this name for a group{hint}"
                    raise ConfigError(f"optimizer.groups.{pattern}.{name}", options[name], problem)
        return optimizer

    @property
    def name(self) -> str:
        """The dotted path of the optimiser's class in its usual form."""
        name = getattr(self.kind, "__qualname__", str(self.kind))
        is_torch = getattr(torch.optim, name, None) is self.kind
        return f"{'torch.optim' if is_torch else self.kind.__module__}.{name}"

    @property
    def needs_closure(self) -> bool:
        """Whether a step evaluates the loss itself, as L-BFGS does, and therefore needs a function for it."""
        step = getattr(self.kind, "step", None)
        closure = inspect.signature(step).parameters.get("closure") if step is not None else None
        return closure is not None and closure.default is closure.empty

    def _grouped(self, parameters: Sequence[tuple[str, nn.Parameter]], without: Collection[nn.Parameter]) -> list[Any]:
        """Plain parameters where there are no patterns, else torch's groups, those without parameters left out."""
        if not self.groups:
            return [parameter for _, parameter in parameters if parameter not in without]
        patterns = [*self.groups]
        names: dict[str | None, list[str]] = {pattern: [] for pattern in (None, *patterns)}
        members: dict[str | None, list[nn.Parameter]] = {pattern: [] for pattern in names}
        for name, parameter in parameters:
            pattern = next((each for each in patterns if fnmatchcase(name, each)), None)
            names[pattern].append(name)
            if parameter not in without:
                members[pattern].append(parameter)
        for pattern in patterns:
            if not names[pattern]:
                there = ", ".join(name for name, _ in parameters)
                is_shadowed = any(fnmatchcase(name, pattern) for name, _ in parameters)
                problem = f"matches none of {there}"
                if is_shadowed:
                    problem = "an earlier pattern already matches these parameters"
                elif any(name.startswith(f"{pattern}.") for name, _ in parameters):
                    problem += f"; {pattern}.* matches all parameters below {pattern}"
                raise ConfigError("optimizer.groups", pattern, problem)
        return [
            {"params": members[pattern], **(_plain(self.groups[pattern]) if pattern is not None else {})}
            for pattern in (None, *patterns)
            if members[pattern]
        ]

    def _check(self, key: str, arguments: Mapping[str, Any]) -> None:
        for name, limits in RANGES.items():
            value = arguments.get(name)
            if isinstance(value, int | float):
                check_range(f"{key}.{name}", value, **limits)
        if isinstance(betas := arguments.get("betas"), Sequence):
            default = inspect.signature(self.kind).parameters.get("betas")
            number = len(default.default) if default and isinstance(default.default, tuple) else len(betas)
            if len(betas) != number or not all(0 <= beta < 1 for beta in betas):
                problem = f"must be {'two' if number == 2 else number} numbers in [0, 1)"
                raise ConfigError(f"{key}.betas", list(betas), problem)
        if arguments.get("nesterov") and arguments.get("momentum") == 0:
            raise ConfigError(f"{key}.nesterov", arguments["nesterov"], f"needs {key}.momentum above 0")


def _plain(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """With the tuples that constructors ask for where a yaml has lists; torch wants betas to be float."""
    plain = {name: tuple(value) if isinstance(value, list) else value for name, value in arguments.items()}
    if isinstance(plain.get("betas"), tuple):
        plain["betas"] = tuple(float(beta) for beta in plain["betas"])
    return plain


class RMSprop(torch.optim.RMSprop):
    """RMSprop (Tieleman & Hinton 2012, lecture 6.5) with Keras' names and defaults; rho is what torch calls alpha."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        rho: float = 0.9,
        eps: float = 1e-7,
        momentum: float = 0.0,
        centered: bool = False,
        weight_decay: float = 0.0,
        foreach: bool | None = True,
    ) -> None:
        super().__init__(params, lr, rho, eps, weight_decay, momentum, centered, foreach=foreach)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        if "rho" in param_group:
            param_group["alpha"] = param_group.pop("rho")
        super().add_param_group(param_group)


class Muon(Optimizer):
    """Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon) for matrices and AdamW for all else: torch's
    own of both, as one optimiser.

    One rate and one weight decay serve both, as the updates of matrices are scaled to the size of AdamW's (Liu et al.
    2025, arXiv:2502.16982, eq. 4). betas: of AdamW. momentum, nesterov, ns_steps: of Muon.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        weight_decay: float = 1e-2,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_steps: int = 5,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        stand_in = [nn.Parameter(torch.zeros(1, 1))]
        self._muon = torch.optim.Muon(
            stand_in, lr, weight_decay, momentum, nesterov, eps=eps, ns_steps=ns_steps, adjust_lr_fn="match_rms_adamw"
        )
        self._adamw = torch.optim.AdamW(stand_in, lr, betas, eps, weight_decay, fused=True)
        super().__init__(params, {**self._adamw.defaults, **self._muon.defaults})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds the matrices of a group and the rest of it as groups of their own."""
        params = param_group["params"]
        params = [params] if isinstance(params, Tensor) else list(params)
        for are_matrices in (True, False):
            if members := [parameter for parameter in params if (parameter.ndim == 2) == are_matrices]:
                super().add_param_group({**param_group, "params": members})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part, are_matrices in ((self._muon, True), (self._adamw, False)):
            part.state = self.state  # both are other objects after a checkpoint is loaded
            part.param_groups = [group for group in self.param_groups if (group["params"][0].ndim == 2) == are_matrices]
            part.step()
        return loss
