"""How well defaults learn what nobody tuned: nexus without a preset, and Stable-Baselines3's DQN as it comes.

    pip install -r benchmarks/requirements.txt minigrid
    python -m benchmarks.untuned                           all of `worlds.py`, five seeds, 50,000 steps
    python -m benchmarks.untuned --seeds 1000 1001 --only trading --set n_step=1    a trial on tuning seeds

Each run ends with 100 greedy episodes, never the best checkpoint; both libraries play the same seeds. Random play is
shown beside them. Rows are written after each run, and a run that is there already is not repeated.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.page import load, provenance, table
from benchmarks.record import record, rows_of
from benchmarks.worlds import WORLDS
from nexus.core.types import Floats

STEPS, EPISODES = 50_000, 100
NAME = "untuned"


def nexus_score(world: str, seed: int, settings: dict[str, Any]) -> float:
    """Train with the settings of an environment without a preset, and return the mean of the last evaluation."""
    import nexus

    with tempfile.TemporaryDirectory() as folder:
        own = {"total_steps": STEPS, "eval_every": None, "eval_episodes": EPISODES, "threads": 1, **settings}
        result = nexus.train(WORLDS[world], run_dir=Path(folder) / "run", seed=seed, verbose=False, **own)
    assert result.evaluation is not None
    return result.evaluation.mean


def sb3_score(world: str, seed: int, settings: dict[str, Any]) -> float:
    """Train Stable-Baselines3's DQN with its defaults, and return the mean of greedy episodes."""
    import gymnasium as gym
    import torch
    from stable_baselines3 import DQN
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.evaluation import evaluate_policy

    torch.set_num_threads(1)

    def make() -> Any:
        env = WORLDS[world]()
        # It takes no Tuple, and its network for images needs 36 x 36 pixels.
        flat = isinstance(env.observation_space, gym.spaces.Tuple) or len(env.observation_space.shape or ()) == 3
        return gym.wrappers.FlattenObservation(env) if flat else env

    kind = "MultiInputPolicy" if isinstance(make().observation_space, gym.spaces.Dict) else "MlpPolicy"
    model = DQN(kind, make_vec_env(make, seed=seed), seed=seed, device="cpu", **settings)
    model.learn(STEPS)
    mean, _ = evaluate_policy(model, make_vec_env(make, seed=seed + 10_000), EPISODES, deterministic=True)
    return float(mean)


def random_score(world: str, seed: int, settings: dict[str, Any]) -> float:
    """Return the mean return of random play, by legal actions where there are masks."""
    env, returns = WORLDS[world](), []
    env.action_space.seed(seed)
    for episode in range(EPISODES):
        _, info = env.reset(seed=seed * EPISODES + episode)
        total, over = 0.0, False
        while not over:
            _, reward, terminated, truncated, info = env.step(env.action_space.sample(info.get("action_mask")))
            total, over = total + float(reward), terminated or truncated
        returns.append(total)
    return float(np.mean(returns))


SCORES = {"nexus": nexus_score, "sb3": sb3_score, "random": random_score}


def run(library: str, world: str, seed: int, settings: dict[str, Any]) -> dict[str, Any]:
    """Do one run in a process of its own; return its row."""
    words = [library, world, str(seed), json.dumps(settings)]
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.untuned", "--run", *words],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
    )
    lines = done.stdout.splitlines()
    score = float(lines[-1]) if done.returncode == 0 else None
    error = {} if score is not None else {"error": done.stderr.strip().splitlines()[-1:]}
    seconds = round(time.perf_counter() - started, 1)
    return {
        "world": world,
        "library": library,
        "seed": seed,
        "settings": settings,
        "score": score,
        "s": seconds,
    } | error


def difference(ours: Floats, theirs: Floats) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the difference of two means, over independent seeds."""
    rng = np.random.default_rng(0)
    means = [rng.choice(values, (10_000, len(values))).mean(1) for values in (ours, theirs)]
    low, high = np.percentile(means[0] - means[1], [2.5, 97.5])
    return float(low), float(high)


def verdict(low: float, high: float) -> str:
    """Return what an interval of our score minus theirs says."""
    return "better" if low > 0 else "worse" if high < 0 else "level"


def section() -> str:
    """Return this benchmark's section of docs/results.md."""
    found = load(NAME)
    if found is None:
        return ""
    cells, verdicts = [], []
    for world in dict.fromkeys(row["world"] for row in found["rows"]):
        rows = [row for row in found["rows"] if row["world"] == world]
        of = {name: np.array([row["score"] for row in rows if row["library"] == name]) for name in SCORES}
        low, high = difference(of["nexus"], of["sb3"])
        verdicts.append(verdict(low, high))
        scores = [f"{of[library].mean():.3g}" for library in SCORES]
        each = " ".join(f"{score:.3g}" for score in of["nexus"]), " ".join(f"{score:.3g}" for score in of["sb3"])
        cells.append([world, *scores, f"{low:.3g} to {high:.3g}", verdicts[-1], *each])
    counts = ", ".join(f"{verdicts.count(word)} {word}" for word in ("better", "level", "worse"))
    seeds = len({row["seed"] for row in found["rows"]})
    head = ["environment", "nexus", "SB3", "random", "difference, 95 %", "nexus is", "each seed of nexus", "of SB3"]
    return "\n\n".join(
        [
            "## Defaults on twelve environments that nothing was tuned for",
            f"The preset `general` against Stable-Baselines3's DQN as it comes: {found['steps']:,} steps, {seeds} "
            f"seeds, the mean of {found['episodes']} greedy episodes of the last weights. The difference of the means "
            f"has a bootstrap interval over seeds; without 0 it counts as better or worse: {counts}. The preset was "
            "chosen on seeds 1000 and 1001. Environments: `benchmarks/worlds.py`. Legal actions of noughts and "
            "crosses are masked in nexus only; SB3's network for images needs 36 × 36 pixels, so smaller ones are "
            "flattened for it. In DoorKey chance rarely opens the door, and neither library learns to within these "
            "steps: its greedy policies score 0, below random play.",
            table(head, cells),
            provenance(found),
        ]
    )


def others() -> dict[str, str]:
    """Return the versions of the packages that only this comparison needs."""
    return {name: version(name) for name in ("stable-baselines3", "minigrid", "MinAtar")}


def setting(text: str) -> tuple[str, Any]:
    """Read NAME=VALUE, the value as JSON where it is."""
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def main() -> None:
    """Run what is missing, and print and record every score."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--only", nargs="*", default=list(WORLDS), choices=list(WORLDS))
    parser.add_argument("--libraries", nargs="*", default=list(SCORES), choices=list(SCORES))
    parser.add_argument("--set", nargs="*", type=setting, default=[], help="settings of nexus, as NAME=VALUE")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--name", default=NAME, help="of the record; one of trials is not committed")
    parser.add_argument("--run", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.run:
        library, world, seed, settings = given.run
        print(SCORES[library](world, int(seed), json.loads(settings)))
        return
    rows, own = rows_of(given.name), dict(given.set)
    jobs = [
        (library, world, seed, own if library == "nexus" else {})
        for world in given.only
        for seed in given.seeds
        for library in given.libraries
    ]
    known = [(row["library"], row["world"], row["seed"], row["settings"]) for row in rows if row["score"] is not None]
    with ThreadPoolExecutor(given.processes) as pool:
        for row in pool.map(lambda job: run(*job), [job for job in jobs if job not in known]):
            rows = [*(old for old in rows if old["score"] is not None), row]
            record(given.name, rows, steps=STEPS, episodes=EPISODES, processes=given.processes, others=others())
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
