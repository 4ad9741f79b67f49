"""What tests of the whole family need to let an algorithm without a replay take part."""

from typing import Any

from nexus.core.types import Batch
from nexus.models.rl.dqn.rainbow import ALGORITHMS

NOISY_OR_NOT = [
    (name, noisy)
    for name, algorithm in ALGORITHMS.items()
    for noisy in (False, True)
    if not noisy or "noisy" not in algorithm.refuses
]
REPLAYED = [name for name in ALGORITHMS if name != "pqn"]

PACE: dict[str, Any] = {
    "num_envs": 2,
    "rollout_steps": 64,
    "update_every": None,
    "target_update_every": "64 steps",
    "gradient_steps": 16,
    "batch_size": 16,
}  # small rollouts


def pace_of(algorithm: str) -> dict[str, Any]:
    """Settings over those of a test for all."""
    return PACE if algorithm == "pqn" else {}


def with_returns(batch: Batch) -> Batch:
    """A batch for whoever looks ahead himself and for whoever is told the return."""
    return {**batch, "returns": batch["rewards"]}
