"""What the barriers of checkpoints cost learning: every 5,000 steps all episodes end and begin anew, or never.

    python -m benchmarks.barriers cartpole       CartPole-v1, 10 seeds, 50,000 steps
    python -m benchmarks.barriers lunarlander    LunarLander-v3, 10 seeds, as long as its settings say

A score is the mean of 100 greedy episodes with the final weights. The record is written after every run; a study that
was stopped goes on where it was with `--resume`.
"""

import argparse
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import record, rows_of

EVERY = "5000 steps"
FIRST_SEED = 200  # neither tuned on nor reported before
RESAMPLES = 10_000
STUDIES: dict[str, dict[str, Any]] = {
    "cartpole": {"env": "CartPole-v1", "settings": {"total_steps": 50_000}},
    "lunarlander": {"env": "LunarLander-v3", "settings": {}},
}


def one_run(study: str, barriers: bool, seed: int, settings: dict[str, Any]) -> dict[str, Any]:
    """Train one seed in a process of its own and return its final score."""
    import nexus
    from nexus.api import Listener

    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        result = nexus.train(
            STUDIES[study]["env"],
            run_dir=Path(folder, "run"),
            listener=Listener(),
            seed=seed,
            checkpoint_every=EVERY if barriers else None,
            **{"eval_every": None, "target_return": None, **STUDIES[study]["settings"], **settings},
        )
    if result.evaluation is None:
        raise KeyboardInterrupt
    return {
        "barriers": barriers,
        "seed": seed,
        "score": round(result.evaluation.mean, 2),
        "episodes": result.counters.episodes,
        "updates": result.counters.updates,
        "seconds": round(time.perf_counter() - started, 1),
    }


def difference(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Return the mean score with barriers less that without, and its 95 % percentile bootstrap interval over seeds."""
    rng = np.random.default_rng(0)
    drawn, means = [], []
    for barriers in (True, False):
        scores = np.array([row["score"] for row in rows if row["barriers"] is barriers])
        if not len(scores):
            return {}
        means.append(scores.mean())
        drawn.append(scores[rng.integers(len(scores), size=(RESAMPLES, len(scores)))].mean(1))
    low, high = np.percentile(drawn[0] - drawn[1], [2.5, 97.5])
    return {
        "difference": round(float(means[0] - means[1]), 2),
        "low": round(float(low), 2),
        "high": round(float(high), 2),
    }


def main() -> None:
    """Run one study and write its record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--steps", type=int, help="train for so many steps instead")
    parser.add_argument("--processes", type=int, default=2, help="runs at a time")
    parser.add_argument("--resume", action="store_true", help="keep the rows of the record and run what is missing")
    options = parser.parse_args()
    name = f"barriers_{options.study}"
    rows = rows_of(name) if options.resume else []
    done = {(row["barriers"], row["seed"]) for row in rows}
    seeds = range(FIRST_SEED, FIRST_SEED + options.seeds)
    jobs = [(barriers, seed) for seed in seeds for barriers in (True, False) if (barriers, seed) not in done]
    settings = {} if options.steps is None else {"total_steps": options.steps}
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        running = [pool.submit(one_run, options.study, *job, settings) for job in jobs]
        for job in as_completed(running):
            rows.append(job.result())
            rows.sort(key=lambda row: (row["seed"], not row["barriers"]))
            env = STUDIES[options.study]["env"]
            record(name, rows, env=env, every=EVERY, processes=options.processes, **difference(rows))


if __name__ == "__main__":
    main()
