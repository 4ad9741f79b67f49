"""The learner: from a batch to a gradient, to the weights, and to the target network.

Mnih et al. 2015, https://doi.org/10.1038/nature14236. The losses are in `dqn.py` and the variants.
"""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from nexus.core import AgentConfig, Batch
from nexus.core.types import Array, Outcome
from nexus.models.averaging import WeightAverage
from nexus.models.layers import awake, flatten_parameters, noisy_layers
from nexus.models.normalization import ObservationStatistics, ReturnStatistics
from nexus.models.rl.dqn.dqn import DQNNetwork, Loss, NextAction
from nexus.models.rl.dqn.own_parts import OwnParts
from nexus.models.setup import compiled
from nexus.ops.action_values import only_legal
from nexus.ops.optimizers import optimizer_of
from nexus.ops.target_update import hard_update, soft_update

__all__ = ["Learner"]

MASK_COLUMNS = ("action_masks", "next_action_masks")


TakeStep = Callable[[Batch, float], Outcome]


class Learner:
    """Minimises the loss over θ, and updates θ⁻.

    Args:
        settings: step size, clipping, γ, τ and the like.
        q_network: θ.
        target_network: θ⁻.
        loss: from a batch to one loss per item.
        next_action: chooses a'.
        noise: source of the noise in noisy layers.
        average: a running mean of θ, if any.
        observed: the statistics that the networks normalise observations by, if they do.
        returns: the statistics that rewards are divided by, if they are.
    """

    def __init__(
        self,
        settings: AgentConfig,
        q_network: DQNNetwork,
        target_network: DQNNetwork,
        loss: Loss,
        next_action: NextAction,
        noise: torch.Generator,
        average: WeightAverage[DQNNetwork] | None = None,
        observed: ObservationStatistics | None = None,
        returns: ReturnStatistics | None = None,
    ) -> None:
        self.settings = settings
        self.gamma = settings.gamma  # for batches with `dones`
        self.q_network, self.target_network = q_network, target_network
        self.loss, self.next_action = loss, next_action
        self.noise = noise
        self.average = average
        self.observed, self.returns = observed, returns
        if observed is not None:
            observed.feed([q_network, target_network, *([] if average is None else [average.network])])
        self.theta = flatten_parameters(q_network)  # [P], θ
        self.theta_target = flatten_parameters(target_network)  # [P], θ⁻
        self.optimizer = optimizer_of(settings, self.theta)
        self.own = OwnParts(loss, self.theta.device)
        self._parameters = list(q_network.parameters())
        self._noisy = noisy_layers(q_network) + noisy_layers(target_network)
        self._gradient = compiled(self.gradient) if settings.compile else self.gradient
        self.take_step: TakeStep = self.step
        self._recorded_by: Callable[[Learner], TakeStep] | None = None

    def record_by(self, recorded: "Callable[[Learner], TakeStep]") -> None:
        """Take steps with the function that `recorded` makes for this learner, or again for a copy of it."""
        self._recorded_by, self.take_step = recorded, recorded(self)

    def observe(self, states: Array, rewards: Array, begins: Array, valid: Array) -> None:
        """Let running statistics follow a vector step, if there are any; between updates only.

        Args:
            states: `[E, *obs]`, acted on.
            rewards: `[E]`, as they are learned from.
            begins: `[E]`, True where an episode began.
            valid: `[E]`, False where no action was taken.
        """
        if self.observed is not None:
            self.observed.follow(states[valid])
        if self.returns is not None:
            self.returns.follow(rewards, begins, valid)

    def learn(self, batch: Batch) -> Outcome:
        """Take one optimizer step on a batch from a replay."""
        return self.take_step(self.prepared(batch), self.optimizer.param_groups[0]["lr"])

    def step(self, batch: Batch, learning_rate: float | Tensor) -> Outcome:
        """Take one optimizer step on a batch that is on the device: fresh noise, the gradient, the step.

        It changes only what `learner_state.changes` names and draws only from `learner_state.generators`, so that a
        CUDA graph can record it; there the learning rate is a tensor `[]`.
        """
        with awake(self._noisy, self.noise):
            self.theta.grad, outcome = self._gradient(batch)
        self.optimizer.step(learning_rate=learning_rate)
        self.own.after_update()
        if self.average is not None:
            self.average.follow(self.theta)
        return outcome

    def gradient(self, batch: Batch) -> tuple[Tensor, Outcome]:
        """Return ∇θ `[P]` of the weighted mean loss, clipped, and the loss's output; change nothing."""
        out = self.loss(self.q_network, self.target_network, self.next_action, self.scaled(batch))
        loss = (batch["weights"] * out.loss).mean()  # the one place that weights and reduces
        gradients = torch.autograd.grad(loss, self._parameters)
        gradient = torch.cat([part.reshape(-1) for part in gradients])
        norm = torch.linalg.vector_norm(gradient)
        if self.settings.max_grad_norm is not None:
            gradient.mul_((self.settings.max_grad_norm / (norm + 1e-6)).clamp(max=1.0))  # in place: fresh from cat
        return gradient, Outcome(loss.detach(), out.priorities, {**out.metrics, "grad_norm": norm})

    def scaled(self, batch: Batch) -> Batch:
        """Return a batch whose rewards are divided by `unit_of_rewards`."""
        return batch if self.returns is None else self.returns.scaled(batch)

    def unit_of_rewards(self) -> float:
        """What rewards are divided by: the deviation of returns, or 1."""
        return 1.0 if self.returns is None else self.returns.deviation

    def prepared(self, batch: Batch) -> dict[str, Tensor]:
        """Move a batch to the device; the only place where the original `dones` become discounts."""
        ready = {key: value for key, value in batch.items() if key not in ("dones", *MASK_COLUMNS)}
        if "dones" in batch:
            ready["discounts"] = self.gamma * (1.0 - batch["dones"])
        ready |= {key: batch[key].bool() for key in MASK_COLUMNS if key in batch}
        ready.setdefault("weights", torch.ones(len(batch["actions"])))
        if self.theta.is_cpu:
            return ready
        return {key: value.to(self.theta.device, non_blocking=True) for key, value in ready.items()}

    def update_target_network(self) -> None:
        """θ⁻ ← τθ + (1-τ)θ⁻; with the default τ = 1 a plain copy."""
        if self.settings.tau == 1.0:
            hard_update(self.theta_target, self.theta)
        else:
            soft_update(self.theta_target, self.theta, self.settings.tau)

    def state_values(self, states: Array, action_masks: Array | None = None) -> Array:
        """Return max_a Q(s, a; θ⁻) `[K]` for `[K, *obs]`, over all actions or those legal under masks `[K, A]`."""
        legal = None if action_masks is None else torch.as_tensor(action_masks, device=self.theta.device).bool()
        with awake(noisy_layers(self.target_network), self.noise), torch.inference_mode():
            values: Array = only_legal(self.target_network(states), legal).amax(1).cpu().numpy()
        return values

    def __deepcopy__(self, memo: dict[int, Any]) -> "Learner":
        """Return an independent copy that keeps learning exactly as this one would."""
        copy = Learner(
            self.settings,
            deepcopy(self.q_network, memo),
            deepcopy(self.target_network, memo),
            deepcopy(self.loss, memo),
            self.next_action,
            deepcopy(self.noise, memo),
            deepcopy(self.average, memo),
            deepcopy(self.observed, memo),
            deepcopy(self.returns, memo),
        )
        copy.gamma = self.gamma
        if self._recorded_by is not None:
            copy.record_by(self._recorded_by)
        memo |= {id(self): copy, id(self.theta): copy.theta, id(self.optimizer): copy.optimizer}
        if self.average is not None and copy.average is not None:
            memo[id(self.average.network)] = copy.average.network
        group = self.optimizer.param_groups[0]
        copy.optimizer.param_groups[0] |= {name: value for name, value in group.items() if name != "params"}
        for name, moment in self.optimizer.state[self.theta].items():
            copy.optimizer.state[copy.theta][name].copy_(moment)
        return copy
