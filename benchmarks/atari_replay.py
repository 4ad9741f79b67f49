"""Memory of a million transitions of Breakout, raw and compressed, and the time of a batch of 32.

    pip install -r benchmarks/requirements.txt
    python -m benchmarks.atari_replay

20,000 steps of random play are recorded and fed repeatedly, through the calls of the training loop, with the
preset `nature`. Each store fills in a separate process; the recording is freed before memory is read. Random play
compresses better than good play. A batch and an update with it are timed in turn, on one thread.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.page import table_section
from benchmarks.record import fresh_process, median, record
from nexus.core.types import Array
from nexus.data.n_step import NStepAccumulator
from nexus.data.replay import Replay
from nexus.envs.atari import PROTOCOLS, make_atari
from nexus.envs.stream import TransitionStream

STORES = ("raw", "compressed")
RECORDED, BATCHES = 20_000, 200
FIELDS = ("states", "next_states", "begins", "valid", "actions", "rewards", "terminal", "truncated")


def resident() -> int:
    """Bytes of this process that are in memory."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def recorded(steps: int, game: str = "breakout") -> dict[str, Array]:
    """Return `steps` steps of random play in one game, by the fields of a `Step` that learning needs."""
    env = make_atari(game, PROTOCOLS["nature"], 1)
    stream, rng = TransitionStream(env, game), np.random.default_rng(0)
    stream.reset(0)
    # One block for each field, large enough that freeing it returns it to the system at once.
    found: dict[str, Array] = {}
    for number in range(steps):
        step = stream.step(rng.integers(stream.action_dim, size=1))
        for name in FIELDS:
            value: Array = np.asarray(getattr(step, name))
            found.setdefault(name, np.zeros((steps, *value.shape), value.dtype))[number] = value
    env.close()
    return found


def fill(replay: Replay, transitions: int) -> None:
    """Add this many transitions, as the loop does; the recording starts with a new game each time."""
    accumulator, steps = NStepAccumulator(1, 1, 0.99), recorded(min(RECORDED, transitions))
    for number in range(transitions):
        step = {name: values[number % len(values)] for name, values in steps.items()}
        states, next_states = replay.remember(step["states"], step["next_states"], step["begins"], step["valid"])
        rewards, flags = np.clip(step["rewards"], -1, 1), (step["terminal"], step["truncated"], step["valid"])
        replay.add(accumulator.push(states, step["actions"], rewards, next_states, *flags))


def measure(store: str, transitions: int) -> dict[str, Any]:
    """Fill one store in this process and measure it."""
    from nexus.api import make_config, process_for
    from nexus.runner import agent_for, replay_for

    shape = (4, 84, 84)
    config = make_config("breakout", "nature", replay_capacity=transitions, replay_store=store, device="cpu")
    agent = agent_for(shape, 4, config)
    with process_for(agent, 1):
        replay = replay_for(config, shape, np.uint8)
        assert isinstance(replay, Replay)
        before = resident()
        fill(replay, transitions)
        grown, whole = resident() - before, resident()
        samples, updates = [], []
        for _ in range(BATCHES):
            started = time.perf_counter()
            batch = replay.sample(config.batch_size)
            sampled = time.perf_counter()
            agent.learn(batch)
            samples.append(sampled - started)
            updates.append(time.perf_counter() - started)
    return {
        "store": store,
        "process_mb": round(whole / 1e6),
        "grown_by_mb": round(grown / 1e6),
        "replay_says_mb": round(replay.nbytes / 1e6),
        "batch_ms": round(1e3 * median(samples), 2),
        "update_with_batch_ms": round(1e3 * median(updates), 1),
        "batch_percent_of_update": round(100 * median(samples) / median(updates), 1),
    }


def measured(store: str, transitions: int) -> dict[str, Any]:
    """Measure one store in a separate process."""
    row: dict[str, Any] = fresh_process("benchmarks.atari_replay", "--only", store, "--transitions", transitions)
    print(row, flush=True)
    return row


def section() -> str:
    """Return this benchmark's section of docs/results.md."""
    return table_section(
        "atari_replay",
        "A replay of {transitions:,} transitions of Breakout",
        "Random play, 20,000 recorded steps fed repeatedly, each store in a separate process. Memory is resident "
        "memory: of the whole process with torch, agent and optimizer, and its growth while the replay was "
        "filled. Times are medians of {batches} batches of 32 and of the Nature update with each, one thread.",
        ["store", "process, MB", "grown by, MB", "replay says, MB", "batch, ms", "update, ms", "batch, % of it"],
    )


def main() -> None:
    """Measure both stores, one after the other, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transitions", type=int, default=1_000_000)
    parser.add_argument("--only", choices=STORES, help="measure in this process and print the row")
    options = parser.parse_args()
    if options.only:
        print(json.dumps(measure(options.only, options.transitions)))
        return
    rows = [measured(store, options.transitions) for store in STORES]
    record("atari_replay", rows, transitions=options.transitions, batches=BATCHES)


if __name__ == "__main__":
    main()
