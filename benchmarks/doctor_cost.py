"""The doctor's share of a run's processor time: runs with and without it, in turn, each in a process of its own.

    python -m benchmarks.doctor_cost

Trained as users would, without evaluations, which the doctor does not take part in. Pong's run is cut to a length at
which it is examined every 1,000 steps; a whole run of the preset, 250,000 steps, is examined every 8,333.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.record import fresh_process, median, record, rows_of

NAME = "doctor_cost"
RUNS: Mapping[str, Mapping[str, Any]] = {
    "CartPole-v1": {"total_steps": 50_000, "target_return": None},
    "ALE/Pong-v5": {"preset": "fast", "total_steps": 6_000},
}
PAIRS = 10


def one(env: str, doctor: str) -> float:
    """Train and return the processor time of the training, in seconds."""
    import nexus

    with tempfile.TemporaryDirectory() as folder:
        started = time.process_time()
        settings = {**RUNS[env], "eval_every": None, "threads": 1, "seed": 0, "doctor": doctor}
        nexus.train(env, run_dir=Path(folder) / "run", verbose=False, **settings)
        return time.process_time() - started


def main() -> None:
    """Run the pairs, or one of them for a number."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("one", nargs="*", help="an environment, and on or off; used by the script itself")
    words = parser.parse_args()
    if words.one:
        print(json.dumps(one(*words.one)))
        return
    rows = rows_of(NAME)
    for env in RUNS:
        for pair in range(sum(row["env"] == env for row in rows), PAIRS):
            order = ("on", "off") if pair % 2 else ("off", "on")
            seconds = {doctor: fresh_process("benchmarks.doctor_cost", env, doctor) for doctor in order}
            rows.append({"env": env, "pair": pair, **seconds, "share": seconds["on"] / seconds["off"] - 1})
            print(json.dumps(rows[-1]), flush=True)
            shares = {env: median([row["share"] for row in rows if row["env"] == env]) for env in RUNS}
            record(NAME, rows, runs=RUNS, median_share={env: share for env, share in shares.items() if share == share})


if __name__ == "__main__":
    main()
