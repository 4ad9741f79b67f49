"""bsuite's experiments on the environments of `nexus.problems`, scored by its formulas.

    python -m benchmarks.small_problems         DQN as in bsuite, all settings, one seed: hours
    python -m benchmarks.small_problems --algorithms dqn rainbow beyond --experiments catch bandit --most-settings 6
    python -m benchmarks.small_problems --label slow --set learning_rate=0.0001     other settings, under a name

Each setting of an experiment is a run of as many episodes as in bsuite, or of `--episodes`: one environment, the
settings of bsuite's DQN, and no evaluation, since scores count all episodes of training. `--most-settings` takes evenly
spaced ones of each experiment; their score is comparable with published ones only as far as they stand for all. Deep
sea stops as soon as it counts as solved. Rows are written after each run, and a run that is there already is not
repeated.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from benchmarks import bsuite_scores
from benchmarks.page import load, provenance, table
from benchmarks.record import record, rows_of
from benchmarks.untuned import setting
from nexus.api import train
from nexus.listener import Listener, Plan
from nexus.models.rl.dqn.rainbow import algorithm_named
from nexus.training.logs import EpisodeTracker
from nexus.training.loop import Progress

NAME = "small_problems"

# bsuite/baselines/jax/dqn/agent.py: default_agent
BSUITE_DQN: dict[str, Any] = {
    "num_envs": 1,
    "torso": "mlp",
    "hidden_dim": 64,
    "hidden_layers": 2,
    "loss": "squared",
    "learning_rate": 0.001,
    "max_grad_norm": None,
    "gamma": 0.99,
    "batch_size": 32,
    "replay_capacity": 10_000,
    "learning_starts": 100,
    "update_every": "1 steps",
    "target_update_every": "4 updates",
    "epsilon": 0.05,
    "epsilon_min": 0.05,
}
NOISE, SCALE = (0.1, 0.3, 1.0, 3.0, 10.0), (0.001, 0.03, 1.0, 30.0, 1000.0)
LENGTHS = (*range(1, 11), 12, 14, 17, 20, 25, *range(30, 101, 10))  # also the numbers of distractors
SIZES = tuple(range(10, 51, 2))

Settings = dict[str, Any]
Rows = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Experiment:
    """One experiment of bsuite.

    Args:
        env: id of the environment.
        settings: arguments of the environment, of each run.
        steps: steps of an episode, given those arguments.
        score: from the rows of its runs to the score.
        returns: the range of returns, for the atoms of distributional algorithms, given those arguments.
        episodes: as in bsuite.
        published: bsuite's score of its DQN, read off a plot to about 0.02.
    """

    env: str
    settings: tuple[Settings, ...]
    steps: Callable[[Settings], int]
    score: Callable[[Rows], float]
    returns: Callable[[Settings], tuple[float, float]]
    episodes: int = 10_000
    published: float | None = field(default=None, kw_only=True)


def numbers(rows: Rows, name: str) -> list[float]:
    """Return one number of each row."""
    return [row[name] for row in rows]


def by_setting(rows: Rows, name: str) -> dict[Any, Rows]:
    """Return the rows for each value of one argument of the environment."""
    values = sorted({row["env_kwargs"][name] for row in rows})
    return {value: [row for row in rows if row["env_kwargs"][name] == value] for value in values}


def of_levels(name: str, score: Callable[[Sequence[float]], float]) -> Callable[[Rows], float]:
    """Return the score of a variant with noise or scale."""
    return lambda rows: bsuite_scores.levels_score(
        score(numbers(group, "regret")) for group in by_setting(rows, name).values()
    )


def of_umbrellas(name: str) -> Callable[[Rows], float]:
    """Return the score of an umbrella chain in which one argument varies."""
    return lambda rows: bsuite_scores.umbrella_score(
        {value: numbers(group, "regret") for value, group in by_setting(rows, name).items()}
    )


def of_seas(rows: Rows) -> float:
    """Return the mean over seeds of the score of deep sea."""
    scores = [
        bsuite_scores.deep_sea_score(
            {row["env_kwargs"]["size"]: row["solved_by"] for row in rows if row["seed"] == seed}
        )
        for seed in sorted({row["seed"] for row in rows})
    ]
    return float(np.mean(scores))


def paid(low: float, high: float) -> Callable[[Settings], tuple[float, float]]:
    """Return the range of returns with an environment's noise and scale."""

    def returns(given: Settings) -> tuple[float, float]:
        scale, noise = given.get("reward_scale", 1.0), 3 * given.get("reward_noise", 0.0)
        return low * scale - noise, high * scale + noise

    return returns


def variants(**levels: Sequence[float]) -> tuple[Settings, ...]:
    """Return four runs at each level of one argument."""
    return tuple({name: level} for name, values in levels.items() for level in values for _ in range(4))


def mapped(settings: Sequence[Settings]) -> tuple[Settings, ...]:
    """Return settings with the mapping seeds 0 to 3 in turn, as bsuite's bandits have."""
    return tuple({**given, "mapping_seed": place % 4} for place, given in enumerate(settings))


def walked(given: Settings) -> tuple[float, float]:
    """Return the range of returns of an umbrella chain: each step pays 1 or -1."""
    return -float(given["length"]), float(given["length"])


BANDIT, CATCH = (
    ("nexus/Bandit-v0", lambda given: 1, paid(0.0, 1.0)),
    ("nexus/Catch-v0", lambda given: 9, paid(-1.0, 1.0)),
)


def experiment(
    kind: tuple[str, Callable[[Settings], int], Callable[[Settings], tuple[float, float]]],
    settings: tuple[Settings, ...],
    score: Callable[[Rows], float],
    published: float | None = None,
) -> Experiment:
    """Return an experiment with a bandit or with catch."""
    env, steps, returns = kind
    return Experiment(env, settings, steps, score, returns, published=published)


EXPERIMENTS = {
    "bandit": experiment(
        BANDIT,
        tuple({"mapping_seed": seed} for seed in range(20)),
        lambda rows: bsuite_scores.bandit_score(numbers(rows, "regret")),
        0.88,
    ),
    "bandit_noise": experiment(
        BANDIT, mapped(variants(reward_noise=NOISE)), of_levels("reward_noise", bsuite_scores.bandit_score), 0.60
    ),
    "bandit_scale": experiment(
        BANDIT, mapped(variants(reward_scale=SCALE)), of_levels("reward_scale", bsuite_scores.bandit_score), 0.60
    ),
    "catch": experiment(CATCH, ({},) * 20, lambda rows: bsuite_scores.catch_score(numbers(rows, "regret")), 0.91),
    "catch_noise": experiment(
        CATCH, variants(reward_noise=NOISE), of_levels("reward_noise", bsuite_scores.catch_score), 0.47
    ),
    "catch_scale": experiment(
        CATCH, variants(reward_scale=SCALE), of_levels("reward_scale", bsuite_scores.catch_score), 0.59
    ),
    "deep_sea": Experiment(
        "nexus/DeepSea-v0",
        tuple({"size": size} for size in SIZES),
        lambda given: int(given["size"]),
        of_seas,
        lambda given: (-0.01, 1.0),
        published=0.0,
    ),
    "deep_sea_stochastic": Experiment(
        "nexus/DeepSea-v0",
        tuple({"size": size, "stochastic": True} for size in SIZES),
        lambda given: int(given["size"]),
        of_seas,
        lambda given: (-3.0, 4.0),
        published=0.0,
    ),
    "discounting_chain": Experiment(
        "nexus/DiscountingChain-v0",
        tuple({"mapping_seed": seed} for seed in range(20)),
        lambda given: 100,
        lambda rows: bsuite_scores.discounting_chain_score(numbers(rows, "return")),
        lambda given: (0.0, 1.1),
        episodes=1000,
        published=0.26,
    ),
    "umbrella_length": Experiment(
        "nexus/UmbrellaChain-v0",
        tuple({"length": length, "distractors": 20} for length in LENGTHS),
        lambda given: int(given["length"]),
        of_umbrellas("length"),
        walked,
        published=0.48,
    ),
    "umbrella_distract": Experiment(
        "nexus/UmbrellaChain-v0",
        tuple({"length": 20, "distractors": count} for count in LENGTHS),
        lambda given: 20,
        of_umbrellas("distractors"),
        walked,
        published=0.48,
    ),
}


class Tally(gym.Wrapper[Any, Any, Any, Any]):
    """Sums up each episode.

    Args:
        env: one of `nexus.problems`.
        episodes: receives (return, regret, bad) of each episode.
    """

    def __init__(self, env: gym.Env[Any, Any], episodes: list[tuple[float, float, bool]]) -> None:
        super().__init__(env)
        self.episodes = episodes
        self.total = self.regret = 0.0

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step, and add an episode that ends."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self.total += float(reward)
        self.regret += info.get("regret", 0.0)
        if terminated or truncated:
            self.episodes.append((self.total, self.regret, info.get("bad_episode", False)))
            self.total = self.regret = 0.0
        return observation, reward, terminated, truncated, info


class UntilSolved(Listener):
    """Stops a run in deep sea that counts as solved.

    Args:
        episodes: filled by `Tally`.
        stochastic: which sea it is.
    """

    def __init__(self, episodes: list[tuple[float, float, bool]], stochastic: bool) -> None:
        self.episodes, self.stochastic = episodes, stochastic
        self.seen = 0

    def on_start(self, plan: Plan) -> None:
        """Keep what stops the run."""
        self.live = plan.live

    def on_step(self, progress: Progress, episodes: EpisodeTracker) -> None:
        """Stop after an episode that solves it."""
        count = len(self.episodes)
        if count > self.seen and bsuite_scores.is_logged(count) and self.solved() and self.live is not None:
            self.live.stop("solved")
        self.seen = count

    def solved(self) -> int | None:
        """Return the episode by which it is solved, if it is."""
        return bsuite_scores.solved_by([bad for *_, bad in self.episodes], self.stochastic)


def whole(settings: Settings, returns: tuple[float, float]) -> Settings:
    """Return all settings of an agent: those of bsuite's DQN, over them what the algorithm adds, and then our own."""
    added = algorithm_named(settings["algorithm"]).settings
    low, high = returns
    return {**BSUITE_DQN, "v_min": low, "v_max": high, **added, **settings}


def measured(name: str, given: Settings, seed: int, episodes: int, settings: Settings) -> dict[str, Any]:
    """Train once; return what the scores are computed from."""
    of = EXPERIMENTS[name]
    counted: list[tuple[float, float, bool]] = []
    sea = UntilSolved(counted, given.get("stochastic", False))
    with tempfile.TemporaryDirectory() as folder:
        train(
            lambda: Tally(gym.make(of.env, **given), counted),
            preset="plain",
            run_dir=Path(folder) / "run",
            seed=seed,
            listener=sea if "size" in given else Listener(),
            verbose=False,
            eval_episodes=0,
            checkpoint_every=None,
            doctor="off",
            threads=1,
            total_steps=episodes * of.steps(given),
            **whole(settings, of.returns(given)),
        )
    returns, regrets, _ = zip(*counted, strict=True)
    found = {"episodes": len(counted), "return": float(np.mean(returns)), "regret": float(np.mean(regrets))}
    return found | ({"solved_by": sea.solved()} if "size" in given else {})


def in_process(job: Settings) -> dict[str, Any]:
    """Do one run in a process of its own; return its row."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.small_problems", "--run", json.dumps(job)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
    )
    lines = done.stdout.splitlines()
    found = json.loads(lines[-1]) if done.returncode == 0 else {"error": done.stderr.strip().splitlines()[-1:]}
    return {**job, **found, "s": round(time.perf_counter() - started, 1)}


def jobs(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return what identifies each run, as the beginning of its row."""
    return [
        {
            "experiment": name,
            "algorithm": options.label or algorithm,
            "env_kwargs": given,
            "seed": 1000 * seed + place,  # runs with equal arguments differ
            "asked": min(options.episodes or EXPERIMENTS[name].episodes, EXPERIMENTS[name].episodes),
            "settings": {"algorithm": algorithm, **dict(options.set)},
        }
        for seed in options.seeds
        for name in options.experiments
        for place, given in chosen(EXPERIMENTS[name].settings, options.most_settings)
        for algorithm in options.algorithms
    ]


def chosen(settings: Sequence[Settings], most: int | None) -> list[tuple[int, Settings]]:
    """Return at most so many settings, evenly spaced, the first and the last included, each with its place."""
    count = len(settings) if most is None else min(most, len(settings))
    places = np.unique(np.linspace(0, len(settings) - 1, count).round().astype(int)).tolist()
    return [(place, settings[place]) for place in places]


def scores(rows: Rows) -> dict[tuple[str, str], tuple[float, int]]:
    """Return score and number of runs of each experiment and algorithm; a run that failed does not count."""
    rows = [row for row in rows if "error" not in row]
    groups = dict.fromkeys((row["experiment"], row["algorithm"]) for row in rows)
    found = {group: [row for row in rows if (row["experiment"], row["algorithm"]) == group] for group in groups}
    return {group: (EXPERIMENTS[group[0]].score(of), len(of)) for group, of in found.items()}


def section() -> str:
    """Return this benchmark's section of docs/results.md."""
    found = load(NAME)
    if found is None:
        return ""
    scored = scores(found["rows"])
    algorithms = list(dict.fromkeys(algorithm for _, algorithm in scored))
    lines = []
    for name, of in EXPERIMENTS.items():
        cells = [scored.get((name, algorithm)) for algorithm in algorithms]
        if any(cells):
            said = ["" if cell is None else f"{cell[0]:.2f} ({cell[1]})" for cell in cells]
            lines.append([name, of.published, *said])
    return "\n\n".join(
        [
            "## Small problems with one difficulty each",
            "[bsuite's experiments](problems.md), scored from 0 to 1 by its formulas (`benchmarks/bsuite_scores.py`), "
            "with the number of runs. All algorithms have the settings of bsuite's DQN, except those that define them: "
            "two layers of 64 units, Adam at 0.001, batches of 32, γ = 0.99, a replay of 10,000, an update per step, a "
            "copy of the target every four updates, ε = 0.05. The first column is bsuite's published DQN, read off a "
            "plot to about 0.02.",
            table(["experiment", "bsuite's DQN", *algorithms], lines),
            provenance(found),
        ]
    )


def main() -> None:
    """Run what is missing, record each run, and print the scores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algorithms", nargs="*", default=["dqn"], help="as in `nexus algorithms`")
    parser.add_argument("--experiments", nargs="*", default=list(EXPERIMENTS), choices=list(EXPERIMENTS))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0])
    parser.add_argument("--most-settings", type=int, help="runs of an experiment; all without")
    parser.add_argument("--episodes", type=int, help="most episodes of a run; those of bsuite without")
    parser.add_argument("--set", nargs="*", type=setting, default=[], help="settings of nexus, as NAME=VALUE")
    parser.add_argument("--label", help="name of the algorithm in the rows, needed for other settings")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--name", default=NAME, help="of the record; one of trials is not committed")
    parser.add_argument("--run", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        job = options.run
        print(json.dumps(measured(job["experiment"], job["env_kwargs"], job["seed"], job["asked"], job["settings"])))
        return
    if options.label and len(options.algorithms) > 1:
        parser.error("--label names one algorithm")
    rows = [row for row in rows_of(options.name) if "error" not in row]
    wanted = jobs(options)
    known = [{name: row[name] for name in wanted[0]} for row in rows]
    with ThreadPoolExecutor(options.processes) as pool:
        under_way = [pool.submit(in_process, job) for job in wanted if job not in known]
        for done in as_completed(under_way):
            rows.append(done.result())
            record(options.name, rows, agent=BSUITE_DQN, processes=options.processes)
            print(json.dumps(rows[-1]), flush=True)
    for (name, algorithm), (score, count) in scores(rows).items():
        print(f"{name:20} {algorithm:12} {score:.2f}  {count} runs")


if __name__ == "__main__":
    main()
