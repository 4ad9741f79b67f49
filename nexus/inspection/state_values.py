"""The Q-values of one state, and what they say."""

import math
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from nexus.core.errors import ConfigError
from nexus.core.figures import figures
from nexus.core.types import Array
from nexus.inspection.words import percent
from nexus.models.layers import in_mode
from nexus.models.rl.dqn import DQNAgent

__all__ = ["QValues", "q_values"]

EQUAL = 1e-3  # a difference below this fraction of the values' size counts as none


@dataclass(frozen=True)
class QValues:
    """Q(s, ·) of one state. All numbers are of its legal actions only.

    Args:
        values: `[A]`, Q(s, a) of every action, in units of the return (with normalised rewards, of its deviation).
        legal: `[A]`, whether each action is legal.
        greedy: the action with the highest value, as the agent takes it outside training.
        bound: the largest size that a discounted return can have in the run; None if unknown.
        state: what state it is.
    """

    values: tuple[float, ...]
    legal: tuple[bool, ...]
    greedy: int
    bound: float | None = None
    state: str = "this state"

    @cached_property
    def of_legal(self) -> tuple[float, ...]:
        """The values of the legal actions."""
        return tuple(value for value, legal in zip(self.values, self.legal, strict=True) if legal)

    @property
    def low(self) -> float:
        """The lowest value."""
        return min(self.of_legal)

    @property
    def high(self) -> float:
        """The highest value."""
        return max(self.of_legal)

    @property
    def mean(self) -> float:
        """The mean value."""
        return float(np.mean(self.of_legal))

    @property
    def spread(self) -> float:
        """How far the highest value is above the mean."""
        return self.high - self.mean

    @property
    def second(self) -> int | None:
        """The best action but one; None if only one is legal."""
        others = [action for action, legal in enumerate(self.legal) if legal and action != self.greedy]
        return max(others, key=lambda action: self.values[action], default=None)

    @property
    def gap(self) -> float | None:
        """How far the highest value is above the second highest; None if only one action is legal."""
        return None if self.second is None else self.values[self.greedy] - self.values[self.second]

    @property
    def meaning(self) -> str:
        """A sentence on what the values say."""
        size, gap = max(map(abs, self.of_legal)), self.gap
        if not math.isfinite(size):
            return "They are not finite: the network has diverged."
        if gap is None:
            return "Only one action is legal, so there is nothing to choose."
        if self.high - self.low <= EQUAL * size:
            return (
                "They are all equal: the network does not tell the actions apart, and which one is greedy is chance. "
                "That is right only where the action makes no difference."
            )
        if gap <= EQUAL * size:
            return (
                f"The best two, actions {self.greedy} and {self.second}, are worth the same to the network: between "
                "them it makes no difference which is taken."
            )
        return (
            f"The network prefers action {self.greedy} to action {self.second}, by {percent(gap / size)} of the "
            "largest value."
        )

    @property
    def said_of_bound(self) -> str:
        """A sentence on whether returns can be so large; empty if unknown."""
        size = max(map(abs, self.of_legal))
        if self.bound is None or not math.isfinite(size):
            return ""
        most, fits = figures(self.bound)[0], size <= self.bound
        return (
            f" With the rewards logged so far, no return exceeds {most} in size, "
            f"{'nor does a value' if fits else 'but a value does: it is larger than a real one can be'}."
        )

    def to_mapping(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        derived = ("low", "high", "mean", "spread", "gap")
        return {**asdict(self), **{name: getattr(self, name) for name in derived}, "text": str(self)}

    def __str__(self) -> str:
        gap = 0.0 if self.gap is None else self.gap
        *shown, low, high, mean, spread, between = figures(
            *self.values, self.low, self.high, self.mean, self.spread, gap, least=2
        )
        each = ", ".join(
            f"{action}: {text}" if legal else f"{action}: illegal"
            for action, (text, legal) in enumerate(zip(shown, self.legal, strict=True))
        )
        best = f"action {self.greedy} is greedy, {spread} above the mean of {mean}"
        above = "" if self.gap is None else f" and {between} above the second best"
        return (
            f"Q-values of {self.state} by action: {each}. They range from {low} to {high}; {best}{above}. "
            f"{self.meaning}{self.said_of_bound}"
        )


def q_values(agent: DQNAgent, state: Any, action_masks: Any = None) -> QValues:
    """Return Q(s, ·) of one state, with its range, the gap between the best two actions and what they say.

    The values are those that the agent acts on outside training: of the averaged network if it has one, and without
    noise in noisy layers. Nothing about the agent changes.

    Args:
        agent: the agent.
        state: `[*obs]`, or the environment's observation: whole numbers, a Dict, a Tuple.
        action_masks: `[A]`, 1 where legal, as in Gymnasium's `info["action_mask"]`; None for all, or for the mask in a
            Dict observation.

    Raises:
        ConfigError: this is not an agent or not one of its states; no action is legal, or a mask lacks one entry per
            action.
    """
    if not isinstance(agent, DQNAgent):
        raise ConfigError(f"agent = {agent!r}: needs an agent, as nexus.load_agent returns")
    masks = agent.states.masks(state) if action_masks is None else action_masks
    greedy = agent.select_action(state, training=False, action_masks=masks)
    return values_at(agent, agent.states.read(state, many=False), masks, greedy)


def values_at(agent: DQNAgent, state: Array, masks: Any, greedy: int, of: str = "this state") -> QValues:
    """Return the Q-values of a state that was read, `[*obs]`, and of its greedy action."""
    network = agent.policy.at_rest
    with in_mode(network.modules(), False), torch.inference_mode():
        values = network(state[None])[0].cpu().tolist()
    legal = [True] * len(values) if masks is None else np.asarray(masks).astype(bool).tolist()
    return QValues(tuple(values), tuple(legal), greedy, state=of)
