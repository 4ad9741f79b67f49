"""The deadly triad: function approximation, bootstrapping and off-policy data together can diverge.

Baird 1995, https://doi.org/10.1016/B978-1-55860-377-6.50013-X, as in Sutton and Barto 2018, section 11.2. This is the
textbook's example with linear values, not DQN: with eight weights one can see what diverges.
"""

from dataclasses import dataclass

import numpy as np

from nexus.core.seeding import generator
from nexus.core.types import Floats
from nexus.pitfalls.arms import measured_at
from nexus.pitfalls.pitfall import Pitfall, Trace

__all__ = ["DEADLY_TRIAD", "StarArm", "star_features", "td_gradient"]

TIPS, CENTRE = 6, 6  # six states at the tips of the star; the seventh, number 6, is its centre
STEP_SIZE, DISCOUNT = 0.01, 0.99


def star_features() -> Floats:
    """Return the features `[7, 8]`: v(tip i) = 2 w_i + w_8 and v(centre) = w_7 + 2 w_8, so that all can be 0."""
    features = np.zeros((TIPS + 1, TIPS + 2))
    features[:TIPS, :TIPS] = 2 * np.eye(TIPS)
    features[:TIPS, -1] = 1
    features[CENTRE, -2:] = 1, 2
    return features


def td_gradient(weights: Floats, features: Floats, next_features: Floats) -> Floats:
    """Return (γ v(s') - v(s)) ∇v(s), `[8]`, for a step from s to s' without reward."""
    return np.asarray((DISCOUNT * next_features @ weights - features @ weights) * features)


@dataclass(frozen=True)
class StarArm:
    """Learns the values of Baird's star, all of them 0, by TD(0) with importance ratios.

    The target policy always takes the solid action, which leads to the centre; the dashed one leads to a random tip.

    Args:
        solid: probability with which the data take the solid action: 1 is on-policy.
    """

    solid: float

    def __call__(self, seed: int, steps: int) -> Trace:
        """Return the largest weight, in size, over the steps."""
        rng, features = generator(seed, "environments"), star_features()
        weights, state, largest = np.ones(TIPS + 2), int(rng.integers(TIPS + 1)), np.empty(steps)
        weights[CENTRE] = 10.0  # the textbook's start
        for step in range(steps):
            is_solid = rng.random() < self.solid
            next_state = CENTRE if is_solid else int(rng.integers(TIPS))
            ratio = 1 / self.solid if is_solid else 0.0
            weights += STEP_SIZE * ratio * td_gradient(weights, features[state], features[next_state])
            largest[step], state = np.abs(weights).max(), next_state
        at = measured_at(steps)
        return Trace(at, largest[at - 1])


DEADLY_TRIAD = Pitfall(
    name="deadly-triad",
    problem="Function approximation, bootstrapping and off-policy data together can make the values diverge.",
    cure="Give up one of the three, or weaken it: here the data are on-policy.",
    paper="Baird 1995, https://doi.org/10.1016/B978-1-55860-377-6.50013-X",
    world="Baird's star, seven states with linear values (no DQN)",
    broken_by="off-policy data",
    cured_by="on-policy data",
    broken=StarArm(solid=1 / 7),
    cured=StarArm(solid=1.0),
    steps=1_000,
    measure="largest weight",
    better="lower",
    log_scale=True,
)
