"""What safety costs: steps per second of whole CartPole-v1 runs with all of it, and with none of it, in turn.

    python -m benchmarks.safety

On: a checkpoint every 10,000 steps with all its checksums, a look at the loss and gradient of every update, and at
every observation and reward. Off: no checkpoints, no looks, no checksums of the logs. Each run is a process of its own;
its imports are not timed.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import fresh_process, median, record

MODES = ("on", "off")


def take_off() -> None:
    """Replace every check by nothing; there is no setting for it, since nobody should want it."""
    from nexus import runner
    from nexus.envs import stream
    from nexus.training import logs

    def unwatched(agent: Any, counters: Any, folder: Path, *, at_once: bool) -> Any:
        agent.settle = lambda: None
        return agent

    def count(file: Any, content: bytes) -> None:
        file.size += len(content)

    vars(runner)["WatchedAgent"] = unwatched
    vars(stream)["require_finite"] = lambda states, fault: None
    vars(stream)["require_shape"] = lambda states, shape, dtype, fault: None
    vars(stream)["require_rewards"] = lambda given, num_envs, fault: np.asarray(given)
    setattr(logs.LogFile, "_count", count)  # noqa: B010 - mypy knows it as a method


def steps_per_second(mode: str, steps: int) -> float:
    """Train once, in this process."""
    from nexus.api import Listener, train

    if mode == "off":
        take_off()
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        result = train(
            "CartPole-v1",
            run_dir=Path(folder, "run"),
            listener=Listener(),
            total_steps=steps,
            eval_every=None,
            eval_episodes=1,
            target_return=None,
            checkpoint_every="10000 steps" if mode == "on" else None,
        )
        return result.counters.steps / (time.perf_counter() - started)


def measured(mode: str, steps: int) -> float:
    """Train once, in a fresh process."""
    return float(fresh_process("benchmarks.safety", "--only", mode, "--steps", steps))


def main() -> None:
    """Measure both in turn, round by round, and write the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=50_000, help="of each run")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", choices=MODES, help="train once in this process and print the rate")
    options = parser.parse_args()
    if options.only:
        print(json.dumps(steps_per_second(options.only, options.steps)))
        return
    rates: dict[str, list[float]] = {mode: [] for mode in MODES}
    for number in range(options.rounds):
        for mode in MODES if number % 2 == 0 else MODES[::-1]:  # whoever comes first may have it warmer
            rates[mode].append(measured(mode, options.steps))
    rows = [
        {
            "safety": mode,
            "steps_per_second": round(median(found)),
            "one_by_one": " ".join(f"{rate:.0f}" for rate in found),
        }
        for mode, found in rates.items()
    ]
    ratio = median([on / off for on, off in zip(rates["on"], rates["off"], strict=True)])
    record("safety", rows, steps=options.steps, rounds=options.rounds, ratio=round(ratio, 3))


if __name__ == "__main__":
    main()
