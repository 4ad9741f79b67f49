"""The time of an update of the Nature network on this processor, and of its arithmetic alone.

    pip install -e ".[atari]" -c constraints.txt
    python -m benchmarks.atari_update

The preset `nature`, a batch of 32, no sampling. The arithmetic is torch's count for matrix products and
convolutions; the best rate is that of a product of two square float32 matrices, the fastest of several sizes.

Two things that make an update faster are then turned off: the order of images in memory, and keeping freed memory.
Separate processes in turn, on one thread, processor time.
"""

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.page import load, provenance, table
from benchmarks.record import fresh_process, median, record
from benchmarks.replacing import replace
from nexus.api import make_config, process_for
from nexus.models.layers import scale
from nexus.models.rl.dqn import DQNAgent
from nexus.models.torsos import Images
from nexus.runner import agent_for

SHAPE, ACTIONS, BATCH, SIZES = (4, 84, 84), 6, 32, (512, 1024, 1536)
ROUNDS = 5  # processes of each way
CHANNELS_FIRST, CHANNELS_LAST, ALL = "channels first", "channels last", "and freed memory is kept"


class ChannelsFirst(Images):
    """Images in the given memory order."""

    def forward(self, states: Tensor) -> Tensor:
        """`[B, C, H, W]`, unchanged."""
        return scale(states)


def milliseconds(function: Callable[[], Any], rounds: int, clock: Callable[[], float] = time.perf_counter) -> float:
    """Return the median time of a call over `rounds`, after a few warm-up calls."""
    for _ in range(5):
        function()
    taken = []
    for _ in range(rounds):
        started = clock()
        function()
        taken.append(1e3 * (clock() - started))
    return median(taken)


def best_rate(rounds: int) -> float:
    """Return the GFLOP/s of the fastest matrix product."""
    rates = []
    for size in SIZES:
        matrix = torch.randn(size, size)
        rates.append(2e-6 * size**3 / milliseconds(lambda factor=matrix: factor @ factor, rounds))  # type: ignore[misc]
    return max(rates)


def learner() -> tuple[DQNAgent, dict[str, Tensor]]:
    """Return an agent and a batch."""
    agent = agent_for(SHAPE, ACTIONS, make_config("pong", "nature"))
    draws = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (2, BATCH, *SHAPE), generator=draws, dtype=torch.uint8)
    return agent, {
        "states": pixels[0],
        "next_states": pixels[1],
        "actions": torch.randint(0, ACTIONS, (BATCH,), generator=draws),
        "rewards": torch.randn(BATCH, generator=draws),
        "discounts": torch.full((BATCH,), 0.99),
    }


def keep_order(agent: DQNAgent) -> None:
    """Make both networks compute on images in the given memory order.

    Raises:
        AttributeError: a torso's attribute that prepares images has been renamed.
    """
    for network in (agent.q_network, agent.target_network):
        replace(network.torso, "images", ChannelsFirst(SHAPE))


def processor_milliseconds(way: str, rounds: int) -> float:
    """Measure one way in this process, which must be fresh: its memory settings can't be undone."""
    agent, batch = learner()
    if way == CHANNELS_FIRST:
        keep_order(agent)
    if way != ALL:
        torch.set_num_threads(1)
        return milliseconds(lambda: agent.learn(batch), rounds, time.process_time)
    with process_for(agent, 1):
        return milliseconds(lambda: agent.learn(batch), rounds, time.process_time)


def section() -> str:
    """Return this benchmark's section of docs/results.md."""
    found = load("atari_update")
    if found is None:
        return ""
    heads = ["threads", "update, ms", "of which optimizer, ms", "best rate, GFLOP/s", "arithmetic alone, ms"]
    return "\n\n".join(
        [
            "## What an update of the Nature network takes",
            f"`--preset nature`, a batch of 32, sampling excluded, medians of {found['rounds']}. Its "
            f"{found['gflop']} GFLOP count convolutions and matrix products; the best rate is that of multiplying "
            "large square matrices.",
            table(heads, [list(row.values()) for row in found["rows"]]),
            f"Processor time on one thread, medians of {found['processes']} processes each, alternating:",
            table(["images and memory", "update, ms"], [list(row.values()) for row in found["ways"]]),
            provenance(found),
        ]
    )


def main() -> None:
    """Measure with one thread and with two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--way", choices=(CHANNELS_FIRST, CHANNELS_LAST, ALL), help="measure this one, in this process")
    arguments = parser.parse_args()
    rounds = arguments.rounds
    if arguments.way is not None:
        print(json.dumps(processor_milliseconds(arguments.way, rounds)))
        return
    agent, batch = learner()
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
    taken: dict[str, list[float]] = {CHANNELS_FIRST: [], CHANNELS_LAST: [], ALL: []}
    for _ in range(ROUNDS):
        for way, times in taken.items():
            times.append(fresh_process("benchmarks.atari_update", "--rounds", rounds, "--way", way))
    ways = [{"way": way, "processor_ms": round(median(times), 1)} for way, times in taken.items()]
    record("atari_update", rows, gflop=round(gflop, 2), rounds=rounds, processes=ROUNDS, ways=ways)


if __name__ == "__main__":
    main()
