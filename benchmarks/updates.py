"""Learner updates per second, sampling included: nexus eager and compiled, and Stable-Baselines3, in turn.

    pip install -r benchmarks/requirements.txt
    python -m benchmarks.updates

A 4-128-128-2 network, batch 64, Huber loss, gradient clipping, Adam; one torch thread for all.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.filling import transitions
from benchmarks.page import table_section
from benchmarks.record import median, record
from nexus.data.replay_buffer import ReplayBuffer
from nexus.models.rl.dqn import DQNAgent

BATCH, UPDATES, ROUNDS = 64, 300, 15


def nexus_updates(compile_update: bool) -> Callable[[int], Any]:
    """Return a function that takes a given number of updates."""
    agent = DQNAgent({"state_dim": 4, "action_dim": 2, "compile": compile_update})
    replay, rng, rows = ReplayBuffer(10_000), np.random.default_rng(0), 5_000
    replay.add(transitions(rows, rng))

    def update(count: int) -> None:
        for _ in range(count):
            agent.learn(replay.sample(BATCH))

    return update


def sb3_updates() -> Callable[[int], Any]:
    """Return a function that takes a given number of updates of SB3's DQN with the same network and batch."""
    from stable_baselines3 import DQN

    model = DQN(
        "MlpPolicy",
        "CartPole-v1",
        policy_kwargs={"net_arch": [128, 128]},
        batch_size=BATCH,
        buffer_size=10_000,
        learning_starts=4_000,
        device="cpu",
    )
    model.learn(5_000)  # fills the replay
    return partial(model.train, batch_size=BATCH)


def section() -> str:
    """Return this benchmark's section of docs/results.md."""
    return table_section(
        "updates",
        "Learner updates per second",
        "A 4-128-128-2 network, batch 64, Huber loss, gradient clipping, Adam, sampling included, one thread; "
        "medians of {rounds} rounds of {updates_per_round} updates, alternating.",
        ["learner", "updates/s", "µs an update", "ratio to SB3"],
    )


def main() -> None:
    """Measure all three in turn, round by round, and write the medians."""
    torch.set_num_threads(1)
    learners = {
        "nexus, eager": nexus_updates(False),
        "nexus, --compile": nexus_updates(True),
        "stable-baselines3": sb3_updates(),
    }
    for update in learners.values():
        update(UPDATES)  # warm-up, and compilation
    rates: dict[str, list[float]] = {name: [] for name in learners}
    for _ in range(ROUNDS):
        for name, update in learners.items():
            started = time.perf_counter()
            update(UPDATES)
            rates[name].append(UPDATES / (time.perf_counter() - started))
    base = rates["stable-baselines3"]
    rows = [
        {
            "learner": name,
            "updates_per_second": round(median(values)),
            "microseconds": round(1e6 / median(values)),
            "ratio_to_sb3": round(median([ours / theirs for ours, theirs in zip(values, base, strict=True)]), 2),
        }
        for name, values in rates.items()
    ]
    record("updates", rows, rounds=ROUNDS, updates_per_round=UPDATES)


if __name__ == "__main__":
    main()
