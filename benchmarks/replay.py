"""Microseconds per batch: prioritized sample and priority update against a uniform sample, in turn.

    python -m benchmarks.replay

A full replay of 1,000,000 transitions with states of four float32, batch 32, one torch thread. The agent's loss
are not included: the new priorities are computed beforehand.
"""

import time
from collections.abc import Callable

import numpy as np
import torch

from benchmarks.filling import transitions
from benchmarks.page import table_section
from benchmarks.record import median, record
from nexus.data.prioritized_replay_buffer import PrioritizedReplayBuffer
from nexus.data.replay_buffer import ReplayBuffer

CAPACITY, BATCH, CALLS, ROUNDS = 1_000_000, 32, 500, 40


def contenders() -> dict[str, Callable[[int], None]]:
    """Return the measured functions by name; each takes a number of calls."""
    uniform, prioritized = ReplayBuffer(CAPACITY), PrioritizedReplayBuffer(CAPACITY)
    rows = transitions(CAPACITY, np.random.default_rng(0))
    uniform.add(rows)
    prioritized.add(rows)
    generator = torch.Generator().manual_seed(0)
    everything = torch.empty(CAPACITY).exponential_(generator=generator)
    prioritized.update_priorities(torch.arange(CAPACITY), everything)
    new = torch.empty(CALLS, BATCH).exponential_(generator=generator).unbind()

    def sample_uniformly(calls: int) -> None:
        for _ in range(calls):
            uniform.sample(BATCH)

    def sample_by_priority(calls: int) -> None:
        for _ in range(calls):
            prioritized.sample(BATCH)

    def sample_and_update(calls: int) -> None:
        for priorities in new[:calls]:
            prioritized.update_priorities(prioritized.sample(BATCH)["indices"], priorities)

    return {
        "uniform, sample": sample_uniformly,
        "prioritized, sample": sample_by_priority,
        "prioritized, sample and update_priorities": sample_and_update,
    }


def section() -> str:
    """Return this benchmark's section of docs/results.md."""
    return table_section(
        "replay",
        "Prioritized against uniform replay",
        "{capacity:,} transitions, full, batch {batch}, one thread; medians of {rounds} rounds of "
        "{calls_per_round} calls, alternating.",
        ["call", "µs", "µs at best", "ratio to uniform"],
    )


def main() -> None:
    """Measure all in turn, round by round, and write medians and minima."""
    torch.set_num_threads(1)
    measured = contenders()
    for run in measured.values():
        run(CALLS)  # warm-up
    times: dict[str, list[float]] = {name: [] for name in measured}
    for _ in range(ROUNDS):
        for name, run in measured.items():
            started = time.perf_counter()
            run(CALLS)
            times[name].append((time.perf_counter() - started) / CALLS * 1e6)
    base = times["uniform, sample"]
    rows = [
        {
            "call": name,
            "microseconds": round(median(values), 1),
            "microseconds_at_best": round(min(values), 1),
            "ratio_to_uniform": round(median([ours / theirs for ours, theirs in zip(values, base, strict=True)]), 2),
        }
        for name, values in times.items()
    ]
    for row in rows:
        print(row)
    record("replay", rows, capacity=CAPACITY, batch=BATCH, rounds=ROUNDS, calls_per_round=CALLS)


if __name__ == "__main__":
    main()
