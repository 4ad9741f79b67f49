"""What an update of the Nature network takes on this processor, and what its arithmetic alone would.

    pip install -e ".[atari]" -c constraints.txt
    python -m benchmarks.atari_update

The preset `nature`, a batch of 32, no sampling. The arithmetic is what torch counts in matrix products and
convolutions; the best rate is that of a product of two square float32 matrices, the fastest of several sizes.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.record import median, record
from nexus.api import make_config, process_for
from nexus.runner import agent_for

SHAPE, ACTIONS, BATCH, SIZES = (4, 84, 84), 6, 32, (512, 1024, 1536)


def milliseconds(function: Callable[[], Any], rounds: int) -> float:
    """Return the median of so many calls, after a few that warm up."""
    for _ in range(5):
        function()
    taken = []
    for _ in range(rounds):
        started = time.perf_counter()
        function()
        taken.append(1e3 * (time.perf_counter() - started))
    return median(taken)


def best_rate(rounds: int) -> float:
    """Return the GFLOP/s of the fastest matrix product."""
    rates = []
    for size in SIZES:
        matrix = torch.randn(size, size)
        rates.append(2e-6 * size**3 / milliseconds(lambda factor=matrix: factor @ factor, rounds))  # type: ignore[misc]
    return max(rates)


def main() -> None:
    """Measure with one thread and with two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=50)
    rounds = parser.parse_args().rounds
    agent = agent_for(SHAPE, ACTIONS, make_config("pong", "nature"))
    draws = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (2, BATCH, *SHAPE), generator=draws, dtype=torch.uint8)
    batch = {
        "states": pixels[0],
        "next_states": pixels[1],
        "actions": torch.randint(0, ACTIONS, (BATCH,), generator=draws),
        "rewards": torch.randn(BATCH, generator=draws),
        "discounts": torch.full((BATCH,), 0.99),
    }
    with FlopCounterMode(display=False) as counted:
        agent.learn(batch)
    gflop = counted.get_total_flops() / 1e9
    rows = []
    with process_for(agent, None):
        for threads in (1, 2):
            torch.set_num_threads(threads)
            update = milliseconds(lambda: agent.learn(batch), rounds)
            optimizer = milliseconds(agent.optimizer.step, rounds)
            rate = best_rate(rounds // 5)
            rows.append(
                {
                    "threads": threads,
                    "update_ms": round(update, 1),
                    "optimizer_ms": round(optimizer, 1),
                    "best_gflop_per_second": round(rate),
                    "arithmetic_alone_ms": round(1e3 * gflop / rate, 1),
                }
            )
    record("atari_update", rows, gflop=round(gflop, 2), rounds=rounds)


if __name__ == "__main__":
    main()
