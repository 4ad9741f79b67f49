"""Optimizers for parameters that are one flat vector; to schedulers and loggers they are torch's own."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nexus.core.settings import OptimizerSettings

__all__ = ["Adam", "CentredRMSProp", "optimizer_of"]


class OneGroup(torch.optim.Optimizer):
    """A torch optimizer with one group of parameters, made without torch's compiler."""

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Take the one group that there is; torch's own way to do it imports the compiler."""
        self.param_groups.append({**self.defaults, **param_group})

    def rate(self, learning_rate: float | Tensor | None) -> float | Tensor:
        """Return the step size that a step was given, or else the group's."""
        return self.param_groups[0]["lr"] if learning_rate is None else learning_rate


class Adam(OneGroup, torch.optim.AdamW):
    """Adam with decoupled weight decay (https://arxiv.org/abs/1412.6980, https://arxiv.org/abs/1711.05101).

    The state has the names and shapes that torch gives it, and the step is torch's own fused kernel. What differs is
    the way there: torch imports its compiler to make an optimizer and to step it, which takes longer than it takes to
    solve CartPole.

    Args:
        theta: `[P]`, all parameters; its `grad` is what `step` reads.
        lr: step size; `param_groups[0]["lr"]` changes it later.
        betas: decay of the two moments, per step.
        eps: added to the root of the second moment.
        weight_decay: each step shrinks the parameters by `lr` times this, apart from the gradient.
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
            "step": torch.zeros((), device=theta.device),  # where the kernel wants it
            "exp_avg": torch.zeros_like(theta),  # [P], first moment: of the gradient
            "exp_avg_sq": torch.zeros_like(theta),  # [P], second moment: of its square
        }

    @torch.no_grad()
    def step(  # type: ignore[override]
        self, closure: Callable[[], float] | None = None, learning_rate: float | Tensor | None = None
    ) -> None:
        """θ ← θ - lr · (m̂ / (√v̂ + ε) + weight_decay · θ), from the gradient in `theta.grad`.

        Args:
            closure: there for torch's sake; the gradient must be there already.
            learning_rate: in place of the group's; a tensor `[]` on the parameters' device where a CUDA graph is to
                read it anew each time.
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
    """The RMSProp of the released code of https://doi.org/10.1038/nature14236: ε stands inside the root.

    `torch.optim.RMSprop(centered=True)` adds it outside, which no choice of ε can make up for. The paper's "gradient
    momentum" is the decay of the mean gradient; a momentum of the steps there is not. Its ε of 0.01 is for a gradient
    summed over a batch of 32: for the mean it is 0.01 / 32².

    Args:
        theta: `[P]`, all parameters; its `grad` is what `step` reads.
        lr: step size; `param_groups[0]["lr"]` changes it later.
        decay: of both means, per step.
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
        """θ ← θ - lr · g / √(E[g²] - E[g]² + ε), from the gradient g in `theta.grad`, both means with g in them.

        Args:
            closure: there for torch's sake; the gradient must be there already.
            learning_rate: in place of the group's; a tensor `[]` on the parameters' device where a CUDA graph is to
                read it anew each time.
        """
        gradient = self.theta.grad
        if gradient is None:
            return
        group, state = self.param_groups[0], self.state[self.theta]
        mean, square = state["mean"].lerp_(gradient, 1 - group["decay"]), state["square"]
        square.mul_(group["decay"]).addcmul_(gradient, gradient, value=1 - group["decay"])
        # Rounding may leave a variance a little below 0.
        variance = torch.addcmul(square, mean, mean, value=-1, out=self._root).clamp_(min=0)
        root, rate = variance.add_(group["eps"]).sqrt_(), self.rate(learning_rate)
        if isinstance(rate, Tensor):  # as a number it would have to come from the device first
            self.theta.addcdiv_(gradient.mul(rate), root, value=-1)
        else:
            self.theta.addcdiv_(gradient, root, value=-rate)


def optimizer_of(settings: OptimizerSettings, theta: Tensor) -> Adam | CentredRMSProp:
    """Return the optimizer that the settings describe, for flat parameters `[P]`."""
    if settings.optimizer == "rmsprop":
        return CentredRMSProp(theta, settings.learning_rate, settings.rmsprop_decay, settings.rmsprop_epsilon)
    return Adam(theta, lr=settings.learning_rate, eps=settings.adam_epsilon, weight_decay=settings.weight_decay)
