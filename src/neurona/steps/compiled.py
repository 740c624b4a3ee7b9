"""``compile=true``: forward, backward, clipping and the optimiser's update of a mini-batch as one compiled function.

Most of what a small network's step costs is Python; compiled, it takes half the time or less. The function changes the
very tensors of the network and of the optimiser's state, so that a mini-batch of another size, or the first one, which
makes that state, can take the ordinary way in between. On a GPU the function is launched as a CUDA graph.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value

from neurona.data.batches import size
from neurona.optimizer import Optimization, RMSprop
from neurona.steps import foreach, hooks, randomness
from neurona.steps.graphs import Graph, Slots, in_slots, slots_for
from neurona.steps.norms import StepNorms
from neurona.steps.steps import MAX_RECORDINGS, Batch, Classifier, DirectSteps, Taken, loss_of, without_trainer

log = logging.getLogger(__name__)

VARYING = ("params", "lr", "betas", "momentum", "initial_lr", "max_lr", "min_lr", "base_momentum", "max_momentum")
"""Keys of a parameter group that are handed to the compiled function, or mean nothing to it."""

State = dict[str, Tensor]
Update = Callable[[Tensor, Tensor, State, Tensor, Tensor], None]
"""(parameter, gradient, its optimiser state, learning rate, momentum), changed in place."""


class CompiledSteps(DirectSteps):
    """Takes steps through one compiled function wherever it applies, for the length of a fit.

    otherwise: makes the steps to go on with where the compiler gives up.
    """

    def __init__(self, classifier: Classifier, otherwise: Callable[[], DirectSteps]) -> None:
        super().__init__(classifier)
        self._otherwise = otherwise
        self._function: Callable[..., Any] | None = None
        self._slots: Slots | None = None
        self._rate_tensors: list[Tensor] = []
        trainer: Any = classifier.trainer
        self._batch_size: int | None = getattr(trainer.datamodule, "batch_size", None)
        self._rates = (math.nan, math.nan)
        self._is_stateless = type(self.optimizer) is torch.optim.SGD and not _momentum(self.optimizer.param_groups[0])
        # Stateless from the start, or resumed: then the first step is a compiled one too, as it was before.
        self._ready = bool(self.optimizer.state) or self._is_stateless
        self._fixed: tuple[Any, ...] = ()
        self._number = 0
        self._has_given_up = False

    def begin(self, batch: object) -> None:
        super().begin(batch)
        self._slots = slots_for(batch, self.classifier, self._slots)
        is_other = any(obstacles(self.optimizer))  # one that a callback has put in place
        self._is_off = self._has_given_up or is_other or self.is_watched() or hooks.watch_updates(self.optimizer)
        if self._function is not None and self._fixed != self.fixed():
            self._function = None  # something that was compiled in has changed: compile again

    def fixed(self) -> tuple[Any, ...]:
        group = {key: value for key, value in self.optimizer.param_groups[0].items() if key not in VARYING}
        group["beta2"] = self.optimizer.param_groups[0].get("betas", (0, 0))[1]
        states = [
            v.data_ptr() for state in self.optimizer.state.values() for v in state.values() if isinstance(v, Tensor)
        ]
        return *super().fixed(), group, states, self._slots

    def take(self, batch: Batch, share: float, *, completes: bool, norms: StepNorms | None = None) -> Taken:
        if self._slots is not None:
            self._batch_size = self._slots.batch_size
        is_whole = size(batch) == (self._batch_size or size(batch))
        applies = self._ready and is_whole and not self._is_off
        self._ready, self._batch_size = True, self._batch_size or size(batch)
        if applies and self._function is None:
            self._compile(batch)
        if not applies or self._function is None:
            if self._slots is not None and is_whole:
                self._slots.skip()
            return super().take(batch, share, completes=completes, norms=norms)
        group = self.optimizer.param_groups[0]
        if self._rates != (rates := (group["lr"], _momentum(group))):
            self._rates = rates
            for tensor, rate in zip(self._rate_tensors, rates, strict=True):
                tensor.fill_(rate)
        if norms is not None:
            norms.before()
        taken: Taken
        if self._slots is not None:
            self._function()
            taken = self._slots.taken()
        else:
            features, targets = batch
            taken = *self._function(features, targets), targets
        if norms is not None:
            norms.after()
        self.count()
        return taken

    def end(self) -> None:
        self._function = self._slots = None

    def _give_up(self, reason: str) -> None:
        log.warning("compile=true: going on without, as %s", reason)
        self._has_given_up = self._is_off = True
        self.classifier.take_steps(self._otherwise())  # from the next chunk on

    def _compile(self, batch: Batch) -> None:
        """Makes the function for mini-batches like this one, ahead of time: no step is taken. No function where the
        optimiser has yet to make the state of a parameter, in an ordinary step.
        """
        features, targets = batch
        loss = _Loss(self.classifier)
        wanted = {id(parameter) for parameter in self.parameters if parameter.requires_grad}
        trained = {name: parameter for name, parameter in loss.named_parameters() if id(parameter) in wanted}
        with without_trainer(self.classifier):
            trained = _with_gradient(loss, trained, features, targets)
        if not self._is_stateless and not all(parameter in self.optimizer.state for parameter in trained.values()):
            return
        self._number += 1
        if self._number > MAX_RECORDINGS:
            self._give_up(f"what a step depends on has changed {MAX_RECORDINGS} times")
            return
        for state in self.optimizer.state.values():  # some count their steps on the CPU, where no graph would
            state.update({k: v.to(features.device) for k, v in state.items() if isinstance(v, Tensor)})
        states = {
            name: {k: v for k, v in self.optimizer.state.get(parameter, {}).items() if isinstance(v, Tensor)}
            for name, parameter in trained.items()
        }
        parameters = {name: parameter.detach() for name, parameter in trained.items()}
        # One element, not none: the compiler would take a float64 scalar for a number that may become a constant.
        precise = torch.promote_types(self.parameters[0].dtype, torch.float32)
        self._rate_tensors = [torch.zeros(1, dtype=precise, device=self.parameters[0].device) for _ in range(2)]
        self._rates, self._fixed = (math.nan, math.nan), self.fixed()
        inputs: tuple[Any, ...] = (parameters, dict(loss.named_buffers()), states, *self._rate_tensors)
        update = _RULES[type(self.optimizer)](self.optimizer.param_groups[0])
        function: Callable[..., Any] = _step_function(loss, self.optimization, update)
        if self._slots is not None:
            function, inputs = in_slots(function), (self._slots.tensors, *inputs)
        # No guards and assertions: all that they would look at in every step is fixed for the length of a fit.
        unsafe = torch.compiler.skip_all_guards_unsafe
        options: Any = {"guard_filter_fn": unsafe, "size_asserts": False, "alignment_asserts": False}
        options["cpp_wrapper"] = features.device.type == "cpu"  # Python between kernels took a sixth of a step
        try:
            _allow_ahead_of_time()
            compiled: Any = torch.compile(function, dynamic=False, fullgraph=True, options=options)
            if self._slots is None:
                self._function = partial(compiled.aot_compile(((*inputs, features, targets), {})).fn, *inputs)
            else:
                self._function = Graph(partial(compiled.aot_compile((inputs, {})).fn, *inputs))
        except Exception as error:  # of many kinds: a network that cannot be traced, no C++ compiler, a full disk
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            self._give_up(f"the compiler gave up: {reason}")


def _allow_ahead_of_time() -> None:
    """Torch has ``aot_compile`` switched off in 2.11, and on from 2.12 on."""
    config: Any = torch._dynamo.config
    if not getattr(config, "enable_aot_compile", True):  # the switch is to go
        config.enable_aot_compile = True


class _Loss(nn.Module):
    """The classifier's loss as a module's forward, for ``functional_call``."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, features: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return loss_of(self.classifier, features, targets)


def _with_gradient(
    loss: nn.Module, parameters: dict[str, nn.Parameter], features: Tensor, targets: Tensor
) -> dict[str, nn.Parameter]:
    """Those that the loss depends on: torch's optimisers leave others as they are, without weight decay."""
    state = randomness.rng_state()
    buffers = {name: buffer.clone() for name, buffer in loss.named_buffers()}
    value, _ = functional_call(loss, buffers, (features, targets))
    gradients = torch.autograd.grad(value, list(parameters.values()), allow_unused=True)
    randomness.restore_rng(state)
    return {name: p for (name, p), gradient in zip(parameters.items(), gradients, strict=True) if gradient is not None}


def _step_function(loss: nn.Module, optimization: Optimization, update: Update) -> Callable[..., tuple[Tensor, Tensor]]:
    clip_norm, clip_value = optimization.clip_norm, optimization.clip_value

    def step(
        parameters: dict[str, Tensor],
        buffers: dict[str, Tensor],
        states: dict[str, State],
        lr: Tensor,
        momentum: Tensor,
        features: Tensor,
        targets: Tensor,
    ) -> tuple[Tensor, Tensor]:
        def loss_of(parameters: dict[str, Tensor], buffers: dict[str, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
            value, logits = functional_call(loss, {**parameters, **buffers}, (features, targets))
            return value, (value.detach(), logits.detach())

        gradients, (_, taken) = grad_and_value(loss_of, has_aux=True)(parameters, buffers)
        if clip_norm is not None:
            norm = torch.stack([gradient.norm() for gradient in gradients.values()]).norm()
            factor = (clip_norm / (norm + 1e-6)).clamp(max=1.0)  # as torch.nn.utils.clip_grad_norm_
            gradients = {name: gradient * factor for name, gradient in gradients.items()}
        elif clip_value is not None:
            gradients = {name: gradient.clamp(-clip_value, clip_value) for name, gradient in gradients.items()}
        counts = [state["step"] for state in states.values() if "step" in state and state["step"].is_cuda]
        if counts:
            foreach.add_one(counts)
        for name, parameter in parameters.items():
            state = {key: value if key == "step" else torch.atleast_1d(value) for key, value in states[name].items()}
            update(torch.atleast_1d(parameter), torch.atleast_1d(gradients[name]), state, lr, momentum)
        return taken

    return step


# The optimisers' updates of one parameter, with the tensors and the result of torch's own optimiser of that name.


def _adam(group: dict[str, Any]) -> Update:
    beta2, eps, weight_decay = group["betas"][1], group["eps"], group["weight_decay"]
    decoupled = group["decoupled_weight_decay"]

    def update(parameter: Tensor, gradient: Tensor, state: State, lr: Tensor, beta1: Tensor) -> None:
        if weight_decay and decoupled:
            parameter.mul_(1 - lr * weight_decay)
        elif weight_decay:
            gradient = gradient + weight_decay * parameter
        step = _counted(state)
        mean = state["exp_avg"]
        mean.copy_(mean + (gradient - mean) * (1 - beta1))
        square = state["exp_avg_sq"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        root2 = _one_minus_power(beta2, step, lr.dtype).sqrt()
        rate = lr * root2 / _one_minus_power(beta1, step, lr.dtype)
        parameter.sub_(rate.to(lr.dtype) * mean / (square.sqrt() + (eps * root2).to(lr.dtype)))

    return update


def _one_minus_power(beta: Tensor | float, step: Tensor, dtype: torch.dtype) -> Tensor:
    """1 - beta ** step, as precise as the type, at the first steps too.

    On a CPU in float64 and by ``exp``, which the compiler takes for costly: it keeps what follows from it, where
    ``expm1`` would be computed anew for every few elements of a parameter.
    """
    exact = step.to(torch.float64 if step.device.type == "cpu" else dtype)
    exponent = exact * (beta.to(exact.dtype).log() if isinstance(beta, Tensor) else math.log(beta))
    return 1 - torch.exp(exponent) if exact.dtype == torch.float64 else -torch.expm1(exponent)


def _counted(state: State) -> Tensor:
    """The count of steps, this one among them: on a GPU all have been counted before."""
    return state["step"] if state["step"].is_cuda else state["step"].add_(1)


def _sgd(group: dict[str, Any]) -> Update:
    has_momentum, nesterov, weight_decay = group["momentum"] > 0, group["nesterov"], group["weight_decay"]

    def update(parameter: Tensor, gradient: Tensor, state: State, lr: Tensor, momentum: Tensor) -> None:
        if weight_decay:
            gradient = gradient + weight_decay * parameter
        if has_momentum:
            velocity = state["momentum_buffer"].mul_(momentum).add_(gradient)
            gradient = gradient + momentum * velocity if nesterov else velocity
        parameter.sub_(lr * gradient)

    return update


def _rmsprop(group: dict[str, Any]) -> Update:
    alpha, eps, weight_decay = group["alpha"], group["eps"], group["weight_decay"]
    has_momentum, centered = group["momentum"] > 0, group["centered"]

    def update(parameter: Tensor, gradient: Tensor, state: State, lr: Tensor, momentum: Tensor) -> None:
        if weight_decay:
            gradient = gradient + weight_decay * parameter
        _counted(state)
        square = state["square_avg"].mul_(alpha).addcmul_(gradient, gradient, value=1 - alpha)
        if centered:
            mean = state["grad_avg"].lerp_(gradient, 1 - alpha)
            square = square - mean * mean
        scaled = gradient / (square.sqrt() + eps)
        if has_momentum:
            scaled = state["momentum_buffer"].mul_(momentum).add_(scaled)
        parameter.sub_(lr * scaled)

    return update


_RULES = {
    torch.optim.Adam: _adam,
    torch.optim.AdamW: _adam,
    torch.optim.SGD: _sgd,
    torch.optim.RMSprop: _rmsprop,
    RMSprop: _rmsprop,
}


def _momentum(group: dict[str, Any]) -> float:
    """What a one-cycle schedule moves against the learning rate: Adam's first beta, or the momentum."""
    return group["betas"][0] if "betas" in group else group["momentum"]


def obstacles(optimizer: torch.optim.Optimizer) -> Iterable[str]:
    """Why the updates of an optimiser cannot be compiled, if they cannot."""
    name, group = type(optimizer).__name__, optimizer.param_groups[0]
    if type(optimizer) not in _RULES or len(optimizer.param_groups) > 1:
        yield f"{name} has no compiled update, or several parameter groups"
    elif options := [option for option in ("amsgrad", "maximize", "dampening") if group.get(option)]:
        yield f"{name} has no compiled update with {', '.join(options)}"
