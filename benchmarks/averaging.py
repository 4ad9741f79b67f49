"""The effect of acting on averaged weights: both sets of weights of the same runs play the same games.

    python -m benchmarks.averaging

Tuned settings, `--updates` averaged, several seeds, both evaluated at the same steps on the same seeds of the
environment. Learning does not depend on the average, so each pair of scores is from the same run.
"""

import argparse
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

import nexus
from benchmarks.page import load, provenance, table
from benchmarks.record import record
from nexus.core.types import Array
from nexus.envs.factory import EnvSpec
from nexus.listener import Listener, Plan
from nexus.models.rl.dqn import DQNAgent
from nexus.training.evaluation import Evaluation, evaluate_policy

ENVS = {"CartPole-v1": "5000 steps", "LunarLander-v3": "25000 steps"}  # and how often to evaluate
FIRST_SEED = 110  # no setting was chosen on these


class Newest:
    """Acts on an agent's latest weights.

    Args:
        agent: the agent.
    """

    def __init__(self, agent: DQNAgent) -> None:
        self.agent = agent

    def act(self, states: Array, epsilon: float, training: bool, action_masks: Array | None) -> Array:
        """Greedy actions `[E]`: the agent's behaviour in training, without exploration."""
        return self.agent.act(states, 0.0, True, action_masks)


class Both(Listener):
    """Evaluates the latest weights whenever the averaged ones were evaluated.

    Args:
        env: the environment.
    """

    def __init__(self, env: str) -> None:
        self.env = env
        self.pairs: list[dict[str, float]] = []

    def on_start(self, plan: Plan) -> None:
        self.agent = plan.agent

    def on_evaluation(self, steps: int, evaluation: Evaluation) -> None:
        protocol = evaluation.protocol
        newest = evaluate_policy(Newest(self.agent), EnvSpec(self.env), protocol.episodes, seed=protocol.seed)
        self.pairs.append({"steps": steps, "newest": round(newest.mean, 1), "averaged": round(evaluation.mean, 1)})


def one_run(updates: int, job: tuple[str, int]) -> list[dict[str, Any]]:
    """Train one seed and return both scores at each evaluation."""
    env, seed = job
    both = Both(env)
    with tempfile.TemporaryDirectory() as folder:
        nexus.train(
            env,
            run_dir=Path(folder, "run"),
            listener=both,
            seed=seed,
            averaged_updates=updates,
            eval_every=ENVS[env],
            target_return=None,
            checkpoint_every=None,
        )
    return [{"env": env, "seed": seed, **pair} for pair in both.pairs]


def summary(env: str, rows: list[dict[str, Any]], seeds: int) -> dict[str, Any]:
    """Return, for each set of weights, the mean score, its mean jump between evaluations, and the score at the end."""
    found: dict[str, Any] = {"env": env}
    for name in ("newest", "averaged"):
        scores = np.array([row[name] for row in rows if row["env"] == env]).reshape(seeds, -1)  # [seeds, evaluations]
        found |= {
            f"{name}_mean": round(float(scores.mean()), 1),
            f"{name}_jump": round(
                float(np.abs(np.diff(scores[:, :-1])).mean()), 1
            ),  # the last two are at the same step
            f"{name}_end": " ".join(f"{score:.0f}" for score in scores[:, -1]),
        }
    return found


def section() -> str:
    """Return this benchmark's section of docs/results.md."""
    found = load("averaging")
    if found is None:
        return ""
    rows = [
        [row["env"], name, row[f"{name}_mean"], row[f"{name}_jump"], row[f"{name}_end"]]
        for row in found["summaries"]
        for name in ("newest", "averaged")
    ]
    return "\n\n".join(
        [
            "## Acting on averaged weights",
            f"`nexus train ENV --averaged-updates {found['updates']}` without an early stop, seeds "
            f"{found['first_seed']} to {found['first_seed'] + found['seeds'] - 1}. At each evaluation the averaged and "
            "the newest weights each play 100 greedy episodes on the same seeds. The mean is over all evaluations and "
            "seeds; the jump is the mean change of the score from one evaluation to the next.",
            table(["environment", "weights", "mean", "jump", "at the end, seed by seed"], rows),
            provenance(found),
        ]
    )


def main() -> None:
    """Train all, write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--updates", type=int, default=1_000, help="that are averaged")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    jobs = [(env, FIRST_SEED + number) for env in ENVS for number in range(options.seeds)]
    with ProcessPoolExecutor(options.processes, get_context("spawn")) as pool:
        rows = [row for found in pool.map(partial(one_run, options.updates), jobs) for row in found]
    summaries = [summary(env, rows, options.seeds) for env in ENVS]
    record("averaging", rows, seeds=options.seeds, first_seed=FIRST_SEED, updates=options.updates, summaries=summaries)


if __name__ == "__main__":
    main()
