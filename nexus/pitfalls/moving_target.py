"""A moving target: without a target network each update moves the values that it is aimed at."""

from contextlib import ExitStack

import numpy as np

from nexus.models.rl.dqn import DQNAgent
from nexus.pitfalls.arms import DQNArm, Measure
from nexus.pitfalls.cart_pole import CART_POLE, CART_POLE_SETTINGS
from nexus.pitfalls.pitfall import Pitfall, Reference

__all__ = ["MOVING_TARGET"]

# A fast learner, and no clipping that would hide what its targets do.
FAST_GAMMA = 0.99
FAST_SETTINGS = {**CART_POLE_SETTINGS, "gamma": FAST_GAMMA, "learning_rate": 0.01, "max_grad_norm": None}
UPRIGHT = np.zeros(4, np.float32)


def value_of_upright(stack: ExitStack) -> Measure:
    """Return a measure: max_a Q(s, a) of the upright pole at rest."""
    return best_upright


def best_upright(agent: DQNAgent) -> float:
    """Return max_a Q(s, a) of the upright pole at rest."""
    return float(agent.q_network(UPRIGHT[None]).detach().max())


MOVING_TARGET = Pitfall(
    name="moving-target",
    problem="Without a target network each update also moves its target, and the values can run away.",
    cure="A target network that is copied only now and then.",
    paper="Mnih et al. 2015, https://doi.org/10.1038/nature14236",
    world=CART_POLE,
    broken_by="a target copied at every update",
    cured_by="one copied every 50 updates",
    broken=DQNArm(CART_POLE, {**FAST_SETTINGS, "target_update_every": "1 updates"}, value_of_upright),
    cured=DQNArm(CART_POLE, {**FAST_SETTINGS, "target_update_every": "50 updates"}, value_of_upright),
    steps=6_000,
    measure="value of the upright pole",
    better="lower",
    reference=Reference(1 / (1 - FAST_GAMMA), "the largest possible"),
    log_scale=True,
)
