"""What safety costs: steps per second of whole CartPole-v1 runs with all checks and with none, in turn.

    python -m benchmarks.safety

On: a checkpoint every 10,000 steps with all its checksums, a check of the loss and gradient of every update, and of
every observation and reward. Off: no checkpoints, no checks, no checksums of the logs. Each run is a separate process;
its imports are not timed.

The two runs of a round take turns of a quarter of a second, one stopped while the other runs: other load on the machine
then affects both. Differences between processes, such as memory addresses, remain; they amount to
some 2 % of a run, so many rounds are needed.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.page import table_section
from benchmarks.record import median, record
from benchmarks.replacing import replace
from nexus.training.statistics import bootstrap_interval

MODES = ("on", "off")
TURN = 0.25  # seconds


def take_off() -> None:
    """Remove every check; no setting does this, since no run should go without.

    Raises:
        AttributeError: a check has been renamed.
    """
    from nexus import parts
    from nexus.envs import stream
    from nexus.training import logs

    def unwatched(learner: Any, *_: Any, **__: Any) -> Any:
        learner.settle = lambda: None
        return learner

    def count(file: Any, content: bytes) -> None:
        file.size += len(content)

    replace(parts, "WatchedLearner", unwatched)
    replace(stream, "require_finite", lambda states, fault: None)
    replace(stream, "require_shape", lambda states, shape, dtype, fault: None)
    replace(stream, "require_rewards", lambda given, num_envs, fault: np.asarray(given))
    replace(logs.LogFile, "_count", count)


def train_once(mode: str, steps: int) -> None:
    """Train in this process; it stops when ready and continues on a signal."""
    from nexus.api import Listener, train

    if mode == "off":
        take_off()
    with tempfile.TemporaryDirectory() as folder:
        signal.raise_signal(signal.SIGSTOP)
        train(
            "CartPole-v1",
            run_dir=Path(folder, "run"),
            listener=Listener(),
            total_steps=steps,
            eval_every=None,
            eval_episodes=1,
            target_return=None,
            checkpoint_every="10000 steps" if mode == "on" else None,
        )


class Run:
    """A run in a separate process that advances in turns."""

    def __init__(self, mode: str, steps: int) -> None:
        own = [sys.executable, "-m", "benchmarks.safety", "--only", mode, "--steps", str(steps)]
        self.process = subprocess.Popen(own)
        os.waitpid(self.process.pid, os.WUNTRACED)  # until it has stopped itself
        self.seconds = 0.0

    def turn(self) -> bool:
        """Let it run for a turn; return whether it ended."""
        self.process.send_signal(signal.SIGCONT)
        started = time.perf_counter()
        while time.perf_counter() - started < TURN and self.process.poll() is None:
            time.sleep(0.002)
        ended = self.process.poll() is not None
        if not ended:
            self.process.send_signal(signal.SIGSTOP)
        self.seconds += time.perf_counter() - started
        if ended and self.process.returncode != 0:
            raise SystemExit("a run failed")
        return ended


def in_turn(steps: int) -> dict[str, float]:
    """Return the steps per second of one run of each mode."""
    runs = {mode: Run(mode, steps) for mode in MODES}
    left = list(runs)
    while left:
        random.shuffle(left)  # so that neither is always second
        left = [mode for mode in left if not runs[mode].turn()]
    return {mode: steps / run.seconds for mode, run in runs.items()}


def section() -> str:
    """Return this benchmark's section of docs/results.md."""
    return table_section(
        "safety",
        "What safety costs",
        "Whole CartPole-v1 runs of {steps:,} steps. On: a checkpoint every 10,000 steps with its checksums, and "
        "a check of every loss, gradient, observation and reward. Off: none of these. {rounds} fresh processes "
        "each; the two of a round alternate every quarter of a second. Ratio within a round: median **{ratio}**, "
        "mean {mean} with a 95 % bootstrap interval of {low} to {high}.",
        ["safety", "steps/s, median", "each round"],
    )


def main() -> None:
    """Measure both, round by round, and write the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=50_000, help="steps of each run")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", choices=MODES, help="train once in this process, after a signal to continue")
    options = parser.parse_args()
    if options.only:
        train_once(options.only, options.steps)
        return
    rates: dict[str, list[float]] = {mode: [] for mode in MODES}
    for _ in range(options.rounds):
        for mode, rate in in_turn(options.steps).items():
            rates[mode].append(rate)
    rows = [
        {
            "safety": mode,
            "steps_per_second": round(median(found)),
            "one_by_one": " ".join(f"{rate:.0f}" for rate in found),
        }
        for mode, found in rates.items()
    ]
    ratios = [on / off for on, off in zip(rates["on"], rates["off"], strict=True)]
    low, high = (round(float(bound), 3) for bound in bootstrap_interval(ratios))  # of the mean
    about = {"ratio": round(median(ratios), 3), "mean": round(float(np.mean(ratios)), 3), "low": low, "high": high}
    record("safety", rows, steps=options.steps, rounds=options.rounds, **about)


if __name__ == "__main__":
    main()
