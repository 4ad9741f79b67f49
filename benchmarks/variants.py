"""What each member of the family costs against plain DQN: learner updates per second, in turn, in one run.

    python -m benchmarks.variants

A 4-128-128-2 network, batch 64, eager, one torch thread; sampling and new priorities included.
"""

import time
from collections.abc import Callable

import numpy as np
import torch

from benchmarks.filling import transitions
from benchmarks.page import table_section
from benchmarks.record import median, record
from nexus.api import agent_for, make_config, replay_for
from nexus.models.rl.dqn.rainbow import ALGORITHMS

BATCH, UPDATES, ROUNDS, ROWS = 64, 100, 15, 5_000


def updates_of(algorithm: str) -> Callable[[int], None]:
    """Return a function that takes a given number of updates."""
    config = make_config("any", algorithm=algorithm)
    agent, rng, envs = agent_for((4,), 2, config), np.random.default_rng(0), config.num_envs
    replay = replay_for(config, values=agent.learner.state_values)
    for _ in range(ROWS // envs):
        rows = transitions(envs, rng)
        replay.remember(rows.states, rows.next_states, np.zeros(envs, bool), np.ones(envs, bool))
        replay.add(rows)

    def update(count: int) -> None:
        for _ in range(count):
            batch = replay.sample(BATCH)
            replay.update_priorities(batch["indices"], agent.learn(batch).priorities)

    return update


def section() -> str:
    """Return this benchmark's section of docs/results.md."""
    return table_section(
        "variants",
        "What each algorithm costs",
        "A 4-128-128-2 network, batch 64, eager, one thread, sampling and new priorities included; medians of "
        "{rounds} rounds of {updates_per_round} updates, alternating. The last column is the time of an update "
        "relative to plain DQN. beyond costs over 3 because it is IQN with every other part, and for Munchausen's "
        "policy it evaluates the target network at 32 levels for s and for s', in addition to the drawn levels.",
        ["algorithm", "updates/s", "times DQN"],
    )


def main() -> None:
    """Measure all in turn, round by round, and write the medians."""
    torch.set_num_threads(1)
    learners = {name: updates_of(name) for name in ALGORITHMS}
    for update in learners.values():
        update(UPDATES)  # warm-up
    seconds: dict[str, list[float]] = {name: [] for name in learners}
    for _ in range(ROUNDS):
        for name, update in learners.items():
            started = time.perf_counter()
            update(UPDATES)
            seconds[name].append((time.perf_counter() - started) / UPDATES)
    rows = [
        {
            "algorithm": name,
            "updates_per_second": round(1 / median(values)),
            "times_dqn": round(median([own / base for own, base in zip(values, seconds["dqn"], strict=True)]), 2),
        }
        for name, values in seconds.items()
    ]
    record("variants", rows, rounds=ROUNDS, updates_per_round=UPDATES)


if __name__ == "__main__":
    main()
