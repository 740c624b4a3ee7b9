"""Whether a module, a parameter or an optimiser has hooks.

Torch takes hooks by public methods and lists them under private names; all that the project knows of those is here.
They are those of torch 2.11 to 2.14: an empty list, or None, while there is no hook.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks


def watch_modules(modules: Iterable[nn.Module]) -> bool:
    """Whether any of these modules has hooks on its passes, or hooks on all modules are registered."""
    return bool(_has_any_global_hook()) or any(
        module._forward_pre_hooks or module._forward_hooks or module._backward_pre_hooks or module._backward_hooks
        for module in modules
    )


def watch_gradients(parameters: Iterable[Tensor]) -> bool:
    """Whether any of these parameters has hooks on its gradient."""
    return any(parameter._backward_hooks or parameter._post_accumulate_grad_hooks for parameter in parameters)


def watch_updates(optimizer: torch.optim.Optimizer) -> bool:
    """Whether this optimiser, or all of them, have hooks on their steps."""
    own = optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks
    return bool(own or _global_optimizer_pre_hooks or _global_optimizer_post_hooks)
