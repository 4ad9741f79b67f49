"""How soon Bootstrapped DQN and DQN solve DeepSea, and what an update of each costs.

    python -m benchmarks.deep_sea

bsuite's deterministic DeepSea (https://arxiv.org/abs/1908.03568) of `--size` 10, one process, one torch thread. It is
solved after the first episode at which the treasure was found in at least half of the last 50 episodes.
"""

import argparse
import time
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch

from benchmarks.page import table_section
from benchmarks.record import median, record
from nexus.models.rl.dqn.rainbow import ALGORITHMS
from nexus.parts import Parts
from nexus.problems.deep_sea import DeepSea
from nexus.training.config import TrainConfig
from nexus.training.loop import learn, train

FIRST_SEED, WINDOW, ROUNDS, UPDATES = 100, 50, 9, 20  # no setting was chosen on seeds from 100 on

SETTINGS: Mapping[str, Any] = {  # bsuite's, but for a batch of 128 and DQN's loss, which is Huber's here by default
    "num_envs": 1,
    "hidden_dim": 50,
    "batch_size": 32,
    "loss": "squared",
    "max_grad_norm": None,
    "replay_capacity": 10_000,
    "learning_starts": 128,
    "update_every": "1 steps",
    "target_update_every": "4 updates",
}
AGENTS: Mapping[str, Mapping[str, Any]] = {
    "bootstrapped": {"algorithm": "bootstrapped"},
    "dqn, ε = 0.05": {"algorithm": "dqn", "epsilon": 0.05, "epsilon_min": 0.05},
}


def parts_of(name: str, size: int, seed: int, episodes: int, stack: ExitStack) -> Parts:
    """Return the parts of a run of so many episodes."""
    own = AGENTS[name]
    settings = {**SETTINGS, **ALGORITHMS[own["algorithm"]].settings, **own, "seed": seed}
    config = TrainConfig.from_mapping({**settings, "total_steps": episodes * size})
    return Parts(partial(DeepSea, size), config, stack)


def solved_after(name: str, size: int, seed: int, episodes: int) -> tuple[int | None, int]:
    """Return after how many episodes DeepSea is solved, None for not within `episodes`, and how often it was found."""
    found: list[bool] = []
    with ExitStack() as stack:
        parts = parts_of(name, size, seed, episodes, stack)
        policy, learner = parts.agent.policy, parts.agent.learner
        for progress in train(parts.stream, policy, learner, parts.replay, parts.config, parts.counters):
            if progress.step.terminated[0]:
                found.append(bool(progress.step.rewards[0] > 0.5))
                if len(found) >= WINDOW and sum(found[-WINDOW:]) >= WINDOW / 2:
                    return len(found), sum(found)
    return None, sum(found)


def rates(size: int) -> dict[str, float]:
    """Return updates per second by agent, sampling included: medians of rounds in turn."""
    with ExitStack() as stack:
        filled = {name: parts_of(name, size, 0, 30, stack) for name in AGENTS}
        for parts in filled.values():
            policy, learner = parts.agent.policy, parts.agent.learner
            for _ in train(parts.stream, policy, learner, parts.replay, parts.config, parts.counters):
                pass
        seconds: dict[str, list[float]] = {name: [] for name in AGENTS}
        for _ in range(ROUNDS):
            for name, parts in filled.items():
                before, after = type(parts.counters)(1_000), type(parts.counters)(1_000 + UPDATES)
                started = time.perf_counter()
                learn(parts.agent.learner, parts.replay, parts.config, before, after)
                seconds[name].append((time.perf_counter() - started) / UPDATES)
    return {name: 1 / median(values) for name, values in seconds.items()}


def section() -> str:
    """Return this benchmark's section of docs/results.md."""
    return table_section(
        "deep_sea",
        "DeepSea of {size} rows",
        "Episodes until the treasure was found in half of the last {window}, by seed, and - where it was not within "
        "{episodes} episodes; behind it how often it was found. Two layers of 50 units, batch 32, one thread; updates "
        "per second are medians of {rounds} rounds of {updates_per_round}, alternating, sampling included.",
        ["agent", "solved", "episodes by seed", "found", "updates/s", "times DQN"],
    )


def main() -> None:
    """Train all agents on several seeds, and write what was counted."""
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--episodes", type=int, default=1_000)
    asked = parser.parse_args()
    speeds, rows = rates(asked.size), []
    for name in AGENTS:
        solved, counts = [], []
        for seed in range(FIRST_SEED, FIRST_SEED + asked.seeds):
            after, found = solved_after(name, asked.size, seed, asked.episodes)
            print(name, seed, after, found, flush=True)
            solved.append(after)
            counts.append(found)
        rows.append(
            {
                "agent": name,
                "solved": f"{sum(after is not None for after in solved)} of {asked.seeds}",
                "episodes": ", ".join("-" if after is None else str(after) for after in solved),
                "found": ", ".join(map(str, counts)),
                "updates_per_second": round(speeds[name]),
                "times_dqn": round(speeds["dqn, ε = 0.05"] / speeds[name], 1),
            }
        )
    about = {"size": asked.size, "episodes": asked.episodes, "window": WINDOW}
    record("deep_sea", rows, **about, rounds=ROUNDS, updates_per_round=UPDATES)


if __name__ == "__main__":
    main()
