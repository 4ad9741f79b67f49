"""How long a run stands still for a checkpoint: 100,000 CartPole transitions in the replay, few or all of them new.

    python -m benchmarks.checkpoint
    python -m benchmarks.checkpoint --folder /a/disk    elsewhere than in the system's folder for temporary files

What is timed is all that the training waits for: the state, its files, checksums, fsyncs, and removing what is old.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.filling import transitions
from benchmarks.record import median, record
from nexus.api import Listener, make_config
from nexus.runner import Run

ENV = "CartPole-v1"
ALGORITHMS = {"uniform": "dqn", "prioritized": "prioritized"}


def pauses(algorithm: str, folder: Path, held: int, new: int, count: int) -> tuple[float, list[float]]:
    """Return the seconds of the first checkpoint, where all is new, and of `count` more with `new` transitions each."""
    rng = np.random.default_rng(0)
    config = make_config(ENV, algorithm=algorithm, replay_capacity=held, total_steps=held + new * count)
    seconds = []
    with Run(ENV, None, config, folder, Listener()) as run, run.open_log() as log:
        for added in (held, *[new] * count):
            run.replay.add(transitions(added, rng))
            run.counters.steps += added
            run.agent.learn(run.replay.sample(config.batch_size))  # so that the optimizer has a state
            started = time.perf_counter()
            run.checkpoint(log)
            seconds.append(time.perf_counter() - started)
    return seconds[0], seconds[1:]


def main() -> None:
    """Measure both replays in turn, round by round, and write the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--held", type=int, default=100_000, help="transitions in the replay")
    parser.add_argument("--new", type=int, default=10_000, help="of them new")
    parser.add_argument("--rounds", type=int, default=7, help="runs of each kind")
    parser.add_argument("--checkpoints", type=int, default=6, help="of each run, after the first")
    parser.add_argument("--folder", help="where the runs are written; None takes a temporary one")
    options = parser.parse_args()
    whole: dict[str, list[float]] = {name: [] for name in ALGORITHMS}
    few: dict[str, list[float]] = {name: [] for name in ALGORITHMS}
    for _ in range(options.rounds):
        for name, algorithm in ALGORITHMS.items():
            with tempfile.TemporaryDirectory(dir=options.folder) as folder:
                first, others = pauses(algorithm, Path(folder, "run"), options.held, options.new, options.checkpoints)
            whole[name].append(first)
            few[name] += others
    rows: list[dict[str, Any]] = [
        {
            "replay": name,
            "new": count,
            "milliseconds": round(1e3 * median(found), 1),
            "most": round(1e3 * max(found), 1),
        }
        for name in ALGORITHMS
        for count, found in ((options.new, few[name]), (options.held, whole[name]))
    ]
    record("checkpoint", rows, held=options.held, rounds=options.rounds, checkpoints=options.checkpoints)


if __name__ == "__main__":
    main()
