"""What each part for sparse rewards does where a reward hardly ever comes, with plain DQN beside it.

    pip install -r benchmarks/requirements.txt minigrid
    python -m benchmarks.sparse_rewards                                    everything, its own seeds: hours
    python -m benchmarks.sparse_rewards --only deep-sea-20 --arms counts --seeds 1000 1001 --name trial

Arms of one problem differ in nothing but the part. Each run ends with 100 greedy episodes of the last weights, and
scores what they return or how many of them succeed; deep sea, where one greedy episode says all, is played greedily
every hundred episodes and stops when it reaches the treasure. Rows are written after each run, and a run that is
there already is not repeated.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.learning_sections import interval_of_iqm
from benchmarks.page import load, provenance, save, table
from benchmarks.record import record, rows_of
from benchmarks.untuned import setting
from nexus.training.statistics import interquartile_mean

NAME = "sparse_rewards"
Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Problem:
    """An environment, settings that all arms share, and the arms.

    Args:
        env: its id.
        settings: of all arms.
        arms: what each arm adds, by name.
        success: an episode that returns more than this has succeeded; None scores the mean return.
        reaches: the return at which a run counts as solved and stops; None runs to its end.
        seeds: how many, from 0 on.
    """

    env: str
    settings: Settings
    arms: Mapping[str, Settings]
    success: float | None = None
    reaches: float | None = None
    seeds: int = 5
    env_kwargs: Settings = field(default_factory=dict)


PICTURE = (
    "![Deep sea: episodes until a greedy one finds the treasure, by size and arm](images/deep_sea.png)\n\n"
    "*Each seed a dot, a cross where 10,000 episodes were not enough; the lines join medians.*"
)
PLAIN: Settings = {}
OFTEN: Settings = {"preset": "plain", "double": True, "num_envs": 4, "batch_size": 128, "learning_rate": 1e-3}


def bits(n: int, steps: int) -> Problem:
    """Bit flipping, which plain DQN has never been seen to learn beyond 13 bits."""
    settings = {**OFTEN, "total_steps": steps, "gamma": 0.9, "hidden_dim": 256, "epsilon_steps": 10_000}
    settings |= {"epsilon_min": 0.1, "target_update_every": "500 updates"}
    arms = {"her": {"her": "future"}, "plain": PLAIN}
    return Problem("nexus/BitFlipping-v0", settings, arms, success=-n, seeds=5, env_kwargs={"bits": n})


def sea(size: int) -> Problem:
    """Deep sea, where a random episode finds the treasure once in 2^size."""
    settings = {**OFTEN, "total_steps": 10_000 * size, "num_envs": 1, "hidden_dim": 64, "batch_size": 32}
    settings |= {"replay_capacity": 100_000, "learning_starts": 100, "update_every": "1 steps", "epsilon": 0.05}
    settings |= {"epsilon_min": 0.05, "eval_every": f"{100 * size} steps", "eval_episodes": 1, "gamma": 0.99}
    arms: dict[str, Settings] = {
        "counts": {"bonus": "counts", "bonus_scale": 0.1},
        "rnd": {"bonus": "rnd", "bonus_scale": 0.05},
        "bootstrapped": {"algorithm": "bootstrapped", "double": False},
        "plain": PLAIN,
    }
    return Problem("nexus/DeepSea-v0", settings, arms, reaches=0.9, env_kwargs={"size": size})


CAR: Settings = {
    **OFTEN,
    "total_steps": 100_000,
    "num_envs": 1,
    "update_every": "2 steps",
    "epsilon_steps": 20_000,
    "epsilon_min": 0.05,
    "gamma": 0.99,
    "n_step": 3,
}
DOOR: Settings = {**OFTEN, "n_step": 3, "gamma": 0.99, "hidden_dim": 256, "epsilon_steps": 20_000, "epsilon_min": 0.05}
BONUSES: Mapping[str, Settings] = {
    "counts": {"bonus": "counts", "bonus_scale": 0.1},
    "episodic-counts": {"bonus": "episodic-counts", "bonus_scale": 0.01},
    "rnd": {"bonus": "rnd", "bonus_scale": 0.01},
    "icm": {"bonus": "icm", "bonus_scale": 0.01},
}

PROBLEMS: Mapping[str, Problem] = {
    "bits-15": bits(15, 60_000),
    "bits-20": bits(20, 600_000),
    "deep-sea-10": sea(10),
    "deep-sea-20": sea(20),
    "deep-sea-30": sea(30),
    "mountain-car": Problem("MountainCar-v0", CAR, {**BONUSES, "plain": PLAIN}),
    "door-key-5": Problem(
        "MiniGrid-DoorKey-5x5-v0", {**DOOR, "total_steps": 100_000}, {**BONUSES, "plain": PLAIN}, success=0.0
    ),
    "door-key-6": Problem(
        "MiniGrid-DoorKey-6x6-v0", {**DOOR, "total_steps": 300_000}, {**BONUSES, "plain": PLAIN}, success=0.0
    ),
    "cart-pole": Problem("CartPole-v1", {}, {**BONUSES, "plain": PLAIN}, seeds=10),
    "lunar-lander": Problem("LunarLander-v3", {}, {"counts": BONUSES["counts"], "rnd": BONUSES["rnd"], "plain": PLAIN}),
}


def score(problem: str, arm: str, seed: int, more: Settings) -> dict[str, Any]:
    """Train one run and return what it scored."""
    import nexus

    given = PROBLEMS[problem]
    own: dict[str, Any] = {"eval_every": None, "eval_episodes": 100, "threads": 1, "doctor": "off"}
    own |= {**given.settings, **given.arms[arm], **more}
    if given.env_kwargs:
        own["env_kwargs"] = dict(given.env_kwargs)
    own["target_return"] = given.reaches
    if given.env.startswith("MiniGrid"):
        import minigrid  # noqa: F401  registers them
    with tempfile.TemporaryDirectory() as folder:
        result = nexus.train(given.env, run_dir=Path(folder) / "run", seed=seed, verbose=False, **own)
    assert result.evaluation is not None
    returns = result.evaluation.returns
    found: dict[str, Any] = {
        "mean": float(np.mean(returns)),
        "steps": result.counters.steps,
        "episodes": result.counters.episodes,
    }
    if given.success is not None:
        found["success"] = float(np.mean([value > given.success for value in returns]))
    if given.reaches is not None:
        found["solved"] = bool(found["mean"] >= given.reaches)
    return found


def run(problem: str, arm: str, seed: int, more: Settings) -> dict[str, Any]:
    """Do one run in a process of its own; return its row."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.sparse_rewards", "--run", problem, arm, str(seed), json.dumps(more)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
    )
    row: dict[str, Any] = {"problem": problem, "arm": arm, "seed": seed, "settings": dict(more)}
    if done.returncode == 0:
        row |= json.loads(done.stdout.splitlines()[-1])
    else:
        row["error"] = done.stderr.strip().splitlines()[-1:]
    return {**row, "s": round(time.perf_counter() - started, 1)}


def draw(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Draw the episodes that deep sea took against its size, for each arm; return whether there were any."""
    import matplotlib.pyplot as plt

    seas = [row for row in rows if row["problem"].startswith("deep-sea-") and "error" not in row]
    if not seas:
        return False
    figure, axes = plt.subplots(figsize=(6.4, 3.6))
    for place, arm in enumerate(dict.fromkeys(row["arm"] for row in seas)):
        sizes = sorted({int(row["problem"].rsplit("-", 1)[1]) for row in seas if row["arm"] == arm})
        of_size = {
            size: [row for row in seas if (row["arm"], row["problem"]) == (arm, f"deep-sea-{size}")] for size in sizes
        }
        color, shift = f"C{place}", 0.15 * (place - 1.5)
        for size, found in of_size.items():
            for row in found:
                axes.plot(size + shift, row["episodes"], "o" if row["solved"] else "x", color=color, ms=4, alpha=0.6)
        medians = [float(np.median([row["episodes"] for row in of_size[size]])) for size in sizes]
        axes.plot([size + shift for size in sizes], medians, color=color, label=arm)
    axes.set(yscale="log", xlabel="N", ylabel="episodes to the first greedy treasure", xticks=[10, 20, 30])
    axes.legend(frameon=False)
    save(figure, "deep_sea")
    return True


def section() -> str:
    """Draw the picture and return this benchmark's section of docs/results.md."""
    found = load(NAME)
    if found is None:
        return ""
    drawn = draw(found["rows"])
    cells = []
    for problem, arm in dict.fromkeys((row["problem"], row["arm"]) for row in found["rows"]):
        rows = [row for row in found["rows"] if (row["problem"], row["arm"]) == (problem, arm) and "error" not in row]
        given = PROBLEMS[problem]
        name = "episodes" if given.reaches is not None else "mean" if given.success is None else "success"
        values = [float(row[name]) for row in rows]
        low, high = interval_of_iqm(np.array(values))
        solved = f"{sum(row['solved'] for row in rows)} of {len(rows)}" if given.reaches is not None else ""
        each = " ".join(f"{value:.4g}" for value in values)
        cells.append(
            [problem, arm, name, f"{interquartile_mean(values):.4g}", f"{low:.4g} to {high:.4g}", solved, each]
        )
    head = ["problem", "arm", "score", "IQM", "95 %", "solved", "each seed"]
    return "\n\n".join(
        [
            "## Sparse rewards",
            "Arms of a problem differ in one part; settings: `benchmarks/sparse_rewards.py`. Success is the share "
            "of 100 greedy episodes of the last weights; deep sea counts the episodes until a greedy one finds the "
            "treasure, 10,000 at most. Scores are interquartile means over seeds with a bootstrap interval. What each "
            "part is for, and what failed: [sparse rewards](sparse_rewards.md).",
            table(head, cells),
            *([PICTURE] if drawn else []),
            provenance(found),
        ]
    )


def main() -> None:
    """Run what is missing, and print and record every row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=list(PROBLEMS), choices=list(PROBLEMS))
    parser.add_argument("--arms", nargs="*", help="of the problems; all of them if left out")
    parser.add_argument("--seeds", nargs="*", type=int, help="instead of the problem's own")
    parser.add_argument("--set", nargs="*", type=setting, default=[], help="settings of all arms, as NAME=VALUE")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--name", default=NAME, help="of the record; one of trials is not committed")
    parser.add_argument("--run", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.run:
        problem, arm, seed, more = given.run
        print(json.dumps(score(problem, arm, int(seed), json.loads(more))))
        return
    rows, more = rows_of(given.name), dict(given.set)
    jobs = [
        (problem, arm, seed, more)
        for problem in given.only
        for seed in given.seeds or range(PROBLEMS[problem].seeds)
        for arm in PROBLEMS[problem].arms
        if given.arms is None or arm in given.arms
    ]
    known = [(row["problem"], row["arm"], row["seed"], row["settings"]) for row in rows if "error" not in row]
    with ThreadPoolExecutor(given.processes) as pool:
        for row in pool.map(lambda job: run(*job), [job for job in jobs if job not in known]):
            rows = [*(old for old in rows if "error" not in old), row]
            record(given.name, rows, processes=given.processes)
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
