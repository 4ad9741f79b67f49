"""Catastrophic forgetting: a short replay holds only what the present policy does, and the rest is unlearned."""

from nexus.pitfalls.arms import DQNArm
from nexus.pitfalls.cart_pole import CART_POLE, CART_POLE_RETURN, CART_POLE_SETTINGS
from nexus.pitfalls.pitfall import Pitfall

__all__ = ["CATASTROPHIC_FORGETTING"]

CATASTROPHIC_FORGETTING = Pitfall(
    name="catastrophic-forgetting",
    problem="A network trained only on recent experience unlearns what it no longer sees.",
    cure="A larger replay, which keeps old experience among the new.",
    paper="Lin 1992, https://doi.org/10.1007/BF00992699",
    world=CART_POLE,
    broken_by="a replay of 200 transitions",
    cured_by="a replay of 20,000",
    broken=DQNArm(CART_POLE, {**CART_POLE_SETTINGS, "replay_capacity": 200}, CART_POLE_RETURN),
    cured=DQNArm(CART_POLE, CART_POLE_SETTINGS, CART_POLE_RETURN),
    steps=8_000,
    measure="greedy return",
    better="higher",
)
