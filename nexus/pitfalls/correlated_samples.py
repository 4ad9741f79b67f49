"""Correlated samples: without a replay each batch is the last few steps, which resemble each other."""

from nexus.pitfalls.arms import DQNArm
from nexus.pitfalls.cart_pole import CART_POLE, CART_POLE_RETURN, CART_POLE_SETTINGS
from nexus.pitfalls.pitfall import Pitfall

__all__ = ["CORRELATED_SAMPLES"]

BATCH = 64
BATCH_SETTINGS = {**CART_POLE_SETTINGS, "batch_size": BATCH}

CORRELATED_SAMPLES = Pitfall(
    name="correlated-samples",
    problem="Consecutive steps resemble each other, so a batch of them says little and pulls the network one way.",
    cure="Draw batches at random from a replay much larger than a batch.",
    paper="Mnih et al. 2015, https://doi.org/10.1038/nature14236",
    world=CART_POLE,
    broken_by=f"batches from the last {BATCH} steps",
    cured_by="batches from the last 20,000 steps",
    broken=DQNArm(CART_POLE, {**BATCH_SETTINGS, "replay_capacity": BATCH}, CART_POLE_RETURN),
    cured=DQNArm(CART_POLE, BATCH_SETTINGS, CART_POLE_RETURN),
    steps=8_000,
    measure="greedy return",
    better="higher",
)
