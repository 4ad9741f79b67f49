"""A wrong loss: a target with an error trains without complaint, towards the wrong values."""

from dataclasses import dataclass

import torch

from nexus.core.types import Batch, Outcome
from nexus.models.rl.dqn.dqn import DQNNetwork, Loss, NextAction
from nexus.parts import Parts
from nexus.pitfalls.arms import DQNArm
from nexus.pitfalls.cart_pole import CART_POLE, CART_POLE_RETURN, CART_POLE_SETTINGS
from nexus.pitfalls.pitfall import Pitfall

__all__ = ["WRONG_LOSS", "WithoutTerminals"]


@dataclass(frozen=True)
class WithoutTerminals:
    """A loss whose targets continue after the end: y = r + γ max Q(s', ·), also where s' is terminal.

    Args:
        loss: the right one.
        gamma: γ.
    """

    loss: Loss
    gamma: float

    def __call__(
        self, q_network: DQNNetwork, target_network: DQNNetwork, next_action: NextAction, batch: Batch
    ) -> Outcome:
        """Return the loss of the batch with every discount set to γ."""
        discounts = torch.full_like(batch["discounts"], self.gamma)
        return self.loss(q_network, target_network, next_action, {**batch, "discounts": discounts})


def forget_terminals(parts: Parts) -> None:
    """Replace the loss."""
    learner = parts.agent.learner
    learner.loss = WithoutTerminals(learner.loss, parts.config.gamma)


WRONG_LOSS = Pitfall(
    name="wrong-loss",
    problem="A mistake in the target, here a missing terminal mask, still trains, but towards the wrong values.",
    cure="Bootstrap with 0 after a termination, and with γ everywhere else.",
    paper="Mnih et al. 2015, https://doi.org/10.1038/nature14236",
    world=CART_POLE,
    broken_by="the mask left out",
    cured_by="the right loss",
    broken=DQNArm(CART_POLE, CART_POLE_SETTINGS, CART_POLE_RETURN, forget_terminals),
    cured=DQNArm(CART_POLE, CART_POLE_SETTINGS, CART_POLE_RETURN),
    steps=8_000,
    measure="greedy return",
    better="higher",
)
