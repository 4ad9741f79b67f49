"""One stored transition taken apart: the terms of its target and its TD error.

The run's own loss computes them. It is called on a batch of this one transition, with parts around its bootstrap and
around the choice of the next action that note what they return; nothing is computed a second time.
"""

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from nexus.api import agent_of
from nexus.core.state import part
from nexus.core.types import Batch, Outcome, QOutput
from nexus.inspection.rows import ReplayRows
from nexus.listener import Listener
from nexus.models.layers import in_mode
from nexus.models.rl.dqn.bootstrapped_dqn import BootstrappedLoss
from nexus.models.rl.dqn.double_dqn import greedy_on_online
from nexus.models.rl.dqn.dqn import Bootstrap, DQNLoss, DQNNetwork, Loss, NextAction, greedy_on_target
from nexus.models.rl.dqn.iqn import IQNLoss
from nexus.models.rl.dqn.learner import Learner
from nexus.models.rl.dqn.qr_dqn import QuantileLoss

__all__ = ["TransitionTerms", "learner_in_run", "terms_in_run", "terms_of"]

WITH_BOOTSTRAP = (DQNLoss, QuantileLoss, IQNLoss, BootstrappedLoss)


@dataclass(frozen=True)
class TransitionTerms:
    """What a loss makes of one transition (s, a, r, d, s').

    Args:
        action: a.
        stored_reward: r as stored, folded over n steps.
        reward: the reward in the target: r in the learner's unit, and with Munchausen its bonus.
        discount: d, γ^k or 0.
        q_values: `[A]`, Q(s, ·; θ).
        next_online: `[A]`, Q(s', ·; θ).
        next_target: `[A]`, Q(s', ·; θ⁻).
        next_legal: `[A]`, which actions are legal in s'; None if the environment reports none.
        online_choice: the best legal action in s' by θ.
        target_choice: the same by θ⁻.
        chosen: a', whose value the loss takes; None if it averages over all actions, its heads choose separately, or it
            does not say.
        next_value: the value of s' that the loss takes, for quantiles and heads their mean; None if it does not say.
        prediction: Q(s, a; θ) that the loss compares; of IQN at drawn levels.
        target: y; None if the loss does not report it.
        loss: loss of this transition, before its weight.
        priority: the priority that the loss gives it.
    """

    action: int
    stored_reward: float
    reward: float
    discount: float
    q_values: tuple[float, ...]
    next_online: tuple[float, ...]
    next_target: tuple[float, ...]
    next_legal: tuple[bool, ...] | None
    online_choice: int
    target_choice: int
    chosen: int | None
    next_value: float | None
    prediction: float
    target: float | None
    loss: float
    priority: float

    @property
    def td_error(self) -> float | None:
        """y - Q(s, a; θ); None if the loss does not report y."""
        return None if self.target is None else self.target - self.prediction


@dataclass
class Noted:
    """What was returned while a loss was computed; of K heads, one row for each."""

    actions: Tensor | None = None  # [1], or [K]
    target_output: QOutput | None = None
    rewards: Tensor | None = None  # [1], or [K]
    next_values: Tensor | None = None  # [1] or [1, N], or [K]


@dataclass(frozen=True)
class NotedBootstrap:
    """A bootstrap that notes what another one returns."""

    own: Bootstrap
    noted: Noted = field(default_factory=Noted)

    def rewards(self, target_network: DQNNetwork, batch: Batch) -> Tensor:
        """`[B]`, as the other one returns them."""
        self.noted.rewards = self.own.rewards(target_network, batch)
        return self.noted.rewards

    def next_values(
        self, q_network: DQNNetwork, next_action: NextAction, batch: Batch, next_output: QOutput, values: Tensor
    ) -> Tensor:
        """`[B, ...]`, as the other one returns them."""
        self.noted.next_values = self.own.next_values(q_network, next_action, batch, next_output, values)
        return self.noted.next_values


def terms_of(learner: Learner, batch: Batch) -> TransitionTerms:
    """Return the terms of a batch of one transition, as a replay gathers it.

    Noisy layers use their mean weights, since the noise of an update is not stored. The levels of IQN are drawn.

    Args:
        learner: with the weights to use; only the generator of its loss's levels changes.
        batch: B = 1.
    """
    ready = learner.prepared(batch)
    scaled = learner.scaled(ready)
    q_network, target_network = learner.q_network, learner.target_network
    modules = [*q_network.modules(), *target_network.modules()]
    with in_mode(modules, False):
        outcome, noted = noted_outcome(learner, scaled)  # with a gradient, which a loss may use itself
    with in_mode(modules, False), torch.no_grad():
        next_output = target_network.output(scaled["next_states"])
        q_values = q_network.output(scaled["states"]).q_values[0]
        next_online = q_network.output(scaled["next_states"]).q_values[0]
        online_choice = int(greedy_on_online(q_network, next_output, scaled)[0])
        target_choice = int(greedy_on_target(q_network, next_output, scaled)[0])
    action, legal = int(scaled["actions"][0]), scaled.get("next_action_masks")
    predicted, target = (metric_numbers(outcome.metrics.get(name)) for name in ("q_mean", "target_mean"))
    chosen = None if noted.actions is None or len(noted.actions) > 1 else int(noted.actions[0])
    next_value = None if noted.next_values is None else float(noted.next_values.mean())
    if next_value is None and chosen is not None and noted.target_output is not None:
        next_value = float(noted.target_output.q_values[0, chosen])
    return TransitionTerms(
        action,
        float(ready["rewards"][0]),
        float((scaled["rewards"] if noted.rewards is None else noted.rewards).mean()),
        float(scaled["discounts"][0]),
        tuple(q_values.tolist()),
        tuple(next_online.tolist()),
        tuple(next_output.q_values[0].tolist()),
        None if legal is None else tuple(legal[0].tolist()),
        online_choice,
        target_choice,
        chosen,
        next_value,
        predicted[action] if len(predicted) == len(q_values) else float(q_values[action]),
        target[0] if len(target) == 1 else None,
        float(outcome.loss.detach()[0]),
        float(outcome.priorities[0]),
    )


def metric_numbers(metric: Tensor | None) -> list[float]:
    """Return the numbers of a metric that a loss reports; none if it reports no such metric."""
    return [] if metric is None else metric.detach().reshape(-1).tolist()


def noted_outcome(learner: Learner, batch: Batch) -> tuple[Outcome, Noted]:
    """Return what the learner's loss makes of a batch, and what its parts returned meanwhile."""
    noted = Noted()

    def next_action(q_network: DQNNetwork, target_output: QOutput, batch: Batch) -> Tensor:
        noted.actions, noted.target_output = learner.next_action(q_network, target_output, batch), target_output
        return noted.actions

    loss: Loss = learner.loss
    if (
        isinstance(loss, DQNLoss | QuantileLoss | IQNLoss | BootstrappedLoss) and type(loss) in WITH_BOOTSTRAP
    ):  # a subclass differs
        loss = replace(loss, bootstrap=NotedBootstrap(loss.bootstrap, noted))
    return loss(learner.q_network, learner.target_network, next_action, batch), noted


def learner_in_run(rows: ReplayRows, listener: Listener) -> Learner:
    """Return a run's learner as it was at the replay's checkpoint.

    Args:
        rows: the replay.
        listener: called with notices.

    Raises:
        RunError: the agent's settings or weights are damaged, or name a module that is not here.
    """
    agent = agent_of(rows.about, rows.run, rows.saved.steps, "cpu", listener)
    agent.set_state(part(rows.saved.state, "agent"))
    return agent.learner


def terms_in_run(rows: ReplayRows, place: int, listener: Listener) -> TransitionTerms:
    """Return the terms of the transition at a place of the columns, with the weights of the replay's checkpoint.

    Raises as `learner_in_run`.
    """
    return terms_of(learner_in_run(rows, listener), rows.batch_at(np.array([place])))
