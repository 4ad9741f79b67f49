"""Optimizers for one flat vector of parameters; schedulers and loggers see ordinary torch optimizers."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nexus.core.settings import OptimizerSettings

__all__ = ["Adam", "CentredRMSProp", "optimizer_of"]


class OneGroup(torch.optim.Optimizer):
    """A torch optimizer with one group of parameters, constructed without importing torch's compiler."""

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add the single group; torch's own method imports the compiler."""
        self.param_groups.append({**self.defaults, **param_group})

    def rate(self, learning_rate: float | Tensor | None) -> float | Tensor:
        """Return the given step size, or the group's if it is None."""
        return self.param_groups[0]["lr"] if learning_rate is None else learning_rate


class Adam(OneGroup, torch.optim.AdamW):
    """Adam with decoupled weight decay (https://arxiv.org/abs/1412.6980, https://arxiv.org/abs/1711.05101).

    The state has torch's names and shapes, and the step is torch's fused kernel, called directly: torch imports its
    compiler to construct an optimizer and to step it, which takes longer than solving CartPole.

    Args:
        theta: `[P]`, all parameters; `step` reads the gradient from its `grad`.
        lr: step size; set `param_groups[0]["lr"]` to change it later.
        betas: decay rates of the two moments, per step.
        eps: added to the square root of the second moment.
        weight_decay: each step shrinks the parameters by `lr` times this, independently of the gradient.
    """

    def __init__(
        self,
        theta: Tensor,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__([theta], lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
        self.theta = theta
        self.state[theta] = {
            "step": torch.zeros((), device=theta.device),  # on the device, as the kernel requires
            "exp_avg": torch.zeros_like(theta),  # [P], first moment, of the gradient
            "exp_avg_sq": torch.zeros_like(theta),  # [P], second moment: of its square
        }

    @torch.no_grad()
    def step(  # type: ignore[override]
        self, closure: Callable[[], float] | None = None, learning_rate: float | Tensor | None = None
    ) -> None:
        """θ ← θ - lr · (m̂ / (√v̂ + ε) + weight_decay · θ), from the gradient in `theta.grad`.

        Args:
            closure: ignored, part of torch's signature; the gradient must already be in `theta.grad`.
            learning_rate: overrides the group's; a tensor `[]` on the parameters' device lets a CUDA graph read a new
                value at each replay.
        """
        gradient = self.theta.grad
        if gradient is None:
            return
        group, state = self.param_groups[0], self.state[self.theta]
        beta1, beta2 = group["betas"]
        state["step"] += 1
        torch._fused_adamw_(
            [self.theta],
            [gradient],
            [state["exp_avg"]],
            [state["exp_avg_sq"]],
            [],
            [state["step"]],
            lr=self.rate(learning_rate),
            beta1=beta1,
            beta2=beta2,
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            amsgrad=False,
            maximize=False,
        )


class CentredRMSProp(OneGroup):
    """The RMSProp of the released code of https://doi.org/10.1038/nature14236: ε is inside the root.

    `torch.optim.RMSprop(centered=True)` adds it outside, and no choice of ε can compensate for that. The paper's
    "gradient momentum" is the decay of the mean gradient; the steps have no momentum. Its ε of 0.01 is for a gradient
    summed over a batch of 32; for the mean it is 0.01 / 32².

    Args:
        theta: `[P]`, all parameters; `step` reads the gradient from its `grad`.
        lr: step size; set `param_groups[0]["lr"]` to change it later.
        decay: decay rate of both means, per step.
        eps: added to the variance.
    """

    def __init__(self, theta: Tensor, lr: float = 2.5e-4, decay: float = 0.95, eps: float = 0.01 / 32**2) -> None:
        super().__init__([theta], {"lr": lr, "decay": decay, "eps": eps})
        self.theta = theta
        self.state[theta] = {
            "mean": torch.zeros_like(theta),  # [P], of the gradient
            "square": torch.zeros_like(theta),  # [P], of its square
        }
        self._root = torch.empty_like(theta)

    @torch.no_grad()
    def step(  # type: ignore[override]
        self, closure: Callable[[], float] | None = None, learning_rate: float | Tensor | None = None
    ) -> None:
        """θ ← θ - lr · g / √(E[g²] - E[g]² + ε), from the gradient g in `theta.grad`, which both means include.

        Args:
            closure: ignored, part of torch's signature; the gradient must already be in `theta.grad`.
            learning_rate: overrides the group's; a tensor `[]` on the parameters' device lets a CUDA graph read a new
                value at each replay.
        """
        gradient = self.theta.grad
        if gradient is None:
            return
        group, state = self.param_groups[0], self.state[self.theta]
        mean, square = state["mean"].lerp_(gradient, 1 - group["decay"]), state["square"]
        square.mul_(group["decay"]).addcmul_(gradient, gradient, value=1 - group["decay"])
        # Rounding can make a variance slightly negative.
        variance = torch.addcmul(square, mean, mean, value=-1, out=self._root).clamp_(min=0)
        root, rate = variance.add_(group["eps"]).sqrt_(), self.rate(learning_rate)
        if isinstance(rate, Tensor):  # converting it to a number would wait for the device
            self.theta.addcdiv_(gradient.mul(rate), root, value=-1)
        else:
            self.theta.addcdiv_(gradient, root, value=-rate)


def optimizer_of(settings: OptimizerSettings, theta: Tensor) -> Adam | CentredRMSProp:
    """Return the optimizer that the settings describe, for flat parameters `[P]`."""
    if settings.optimizer == "rmsprop":
        return CentredRMSProp(theta, settings.learning_rate, settings.rmsprop_decay, settings.rmsprop_epsilon)
    return Adam(theta, lr=settings.learning_rate, eps=settings.adam_epsilon, weight_decay=settings.weight_decay)
