"""The doctor's share of a run's processor time.

Measured twice: by runs with and without it, in turn, each in a process of its own; and by a clock around each of its
calls in the runs with it. On a machine whose runs differ by more than the doctor costs, the clock says more.

    python -m benchmarks.doctor_cost

CartPole is trained as by `nexus train CartPole-v1`, with a seed for each pair, and stops when it is solved. Pong's run
is cut to a length at which it is examined every 1,000 steps, without evaluations; a whole run of the preset, 250,000
steps, is examined every 8,333.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.record import fresh_process, median, record, rows_of
from nexus.doctor.doctor import Doctor

NAME = "doctor_cost"
RUNS: Mapping[str, Mapping[str, Any]] = {
    "CartPole-v1": {},
    "ALE/Pong-v5": {"preset": "fast", "total_steps": 6_000, "eval_every": None},
}
PAIRS = 10


def one(env: str, doctor: str, seed: int) -> tuple[float, float]:
    """Train and return the processor time of the training, and of the doctor's calls in it, in seconds."""
    import nexus

    inside = 0.0

    def clocked(call: Callable[..., None]) -> Callable[..., None]:
        def timed(*arguments: Any) -> None:
            nonlocal inside
            begun = time.thread_time()
            call(*arguments)
            inside += time.thread_time() - begun

        return timed

    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        for name in ("on_start", "on_step", "on_evaluation", "on_end"):
            stack.enter_context(patch.object(Doctor, name, clocked(getattr(Doctor, name))))
        started = time.process_time()
        settings = {**RUNS[env], "threads": 1, "seed": seed, "doctor": doctor}
        nexus.train(env, run_dir=Path(folder) / "run", verbose=False, **settings)
        return time.process_time() - started, inside


def done(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the environments with rows."""
    return [env for env in RUNS if any(row["env"] == env for row in rows)]


def main() -> None:
    """Run the pairs, or one of them for a number."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("one", nargs="*", help="an environment, on or off, and a seed; used by the script itself")
    words = parser.parse_args()
    if words.one:
        env, doctor, seed = words.one
        print(json.dumps(one(env, doctor, int(seed))))
        return
    rows = rows_of(NAME)
    for env in RUNS:
        for pair in range(sum(row["env"] == env for row in rows), PAIRS):
            order = ("on", "off") if pair % 2 else ("off", "on")
            spent = {doctor: fresh_process("benchmarks.doctor_cost", env, doctor, pair) for doctor in order}
            (on, inside), (off, _) = spent["on"], spent["off"]
            rows.append({"env": env, "pair": pair, "on": on, "off": off, "share": on / off - 1, "inside": inside / on})
            print(json.dumps(rows[-1]), flush=True)
            medians = {
                name: {env: median([row[name] for row in rows if row["env"] == env]) for env in done(rows)}
                for name in ("share", "inside")
            }
            record(NAME, rows, runs=RUNS, medians=medians)


if __name__ == "__main__":
    main()
