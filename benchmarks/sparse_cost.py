"""What the parts for sparse rewards cost: updates per second of each, in turn, against plain DQN.

    python -m benchmarks.sparse_cost

One process, one torch thread, a 2-128-128-3 network on MountainCar and, for hindsight, one of 10 bits; batches of 64.
Sampling counts, acting does not.
"""

import argparse
import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import torch

from benchmarks.page import table_section
from benchmarks.record import median, record
from nexus.parts import Parts
from nexus.training.config import TrainConfig
from nexus.training.loop import Counters, learn, train

ROUNDS, UPDATES, FILLED = 15, 40, 3_000
CAR: tuple[str, dict[str, Any]] = ("MountainCar-v0", {})
BITS: tuple[str, dict[str, Any]] = ("nexus/BitFlipping-v0", {"bits": 10})
ARMS: Mapping[str, tuple[tuple[str, dict[str, Any]], dict[str, Any], str]] = {
    "plain": (CAR, {}, "plain"),
    "n-step 3": (CAR, {"n_step": 3}, "n-step 3"),
    "counts": (CAR, {"bonus": "counts"}, "plain"),
    "counts, n-step 3": (CAR, {"bonus": "counts", "n_step": 3}, "n-step 3"),
    "episodic counts": (CAR, {"bonus": "episodic-counts"}, "plain"),
    "rnd": (CAR, {"bonus": "rnd"}, "plain"),
    "rnd, n-step 3": (CAR, {"bonus": "rnd", "n_step": 3}, "n-step 3"),
    "icm": (CAR, {"bonus": "icm"}, "plain"),
    "goals, plain": (BITS, {}, "goals, plain"),
    "hindsight": (BITS, {"her": "future"}, "goals, plain"),
    "hindsight, n-step 3": (BITS, {"her": "future", "n_step": 3}, "goals, plain"),
}


def rates() -> list[dict[str, Any]]:
    """Return updates per second of each arm: medians of rounds in turn, and their ratio to the arm without the part."""
    with ExitStack() as stack:
        filled: dict[str, Parts] = {}
        for name, ((env, env_kwargs), own, _) in ARMS.items():
            settings = {**own, "env_kwargs": env_kwargs, "total_steps": FILLED, "learning_starts": FILLED - 400}
            filled[name] = parts = Parts(env, TrainConfig.from_mapping(settings), stack)
            agent, under_way = parts.agent, parts.under_way
            for _ in train(
                parts.stream, agent.policy, agent.learner, parts.replay, parts.config, parts.counters, under_way
            ):
                pass
        seconds: dict[str, list[float]] = {name: [] for name in ARMS}
        for _ in range(ROUNDS):
            for name, parts in filled.items():
                before, after = Counters(FILLED), Counters(FILLED + 4 * UPDATES)
                started = time.perf_counter()
                learn(parts.agent.learner, parts.replay, parts.config, before, after)
                seconds[name].append((time.perf_counter() - started) / UPDATES)
    rows = []
    for name, (_, _, against) in ARMS.items():
        ratios = [one / other for one, other in zip(seconds[name], seconds[against], strict=True)]
        rows.append(
            {"part": name, "updates_per_s": round(1 / median(seconds[name])), "times": round(median(ratios), 2)}
        )
    return rows


def section() -> str:
    """Return this benchmark's section of docs/results.md."""
    return table_section(
        "sparse_cost",
        "What the parts for sparse rewards cost",
        "Updates per second, sampling included, in turn on one thread; `times` is the time of an update as a multiple "
        "of the same one without the part (medians of rounds). Networks of two layers of 128, batches of 64.",
        ["part", "updates/s", "times"],
    )


def main() -> None:
    """Measure, print and record."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    torch.set_num_threads(1)
    rows = rates()
    for row in rows:
        print(row)
    record("sparse_cost", rows, rounds=ROUNDS, updates_per_round=UPDATES)


if __name__ == "__main__":
    main()
