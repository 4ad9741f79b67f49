"""Seconds from an empty process to a solved CartPole-v1: nexus and Stable-Baselines3, in turn, in one run.

    pip install -r benchmarks/requirements.txt
    python -m benchmarks.wall_clock --seeds 5

Both train on the CPU with their own published settings (the tuned preset; rl-zoo's for DQN) and are evaluated
by the same function every 2,500 steps: 100 greedy episodes, solved at a mean of 475. The clock is that of the
whole process, imports and evaluations included.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.page import load, provenance, table
from benchmarks.record import fresh_process, median, record

EVERY, EPISODES, SOLVED, LIMIT = 2_500, 100, 475.0, 100_000
LIBRARIES = ("nexus", "sb3")
FIRST_SEED = 100  # nothing was tuned on these


def solve_nexus(seed: int) -> int | None:
    """Train until solved; return the steps taken."""
    import nexus

    with tempfile.TemporaryDirectory() as folder:
        result = nexus.train(
            "CartPole-v1",
            run_dir=Path(folder, "run"),
            seed=seed,
            total_steps=LIMIT,
            eval_every=f"{EVERY} steps",
            eval_episodes=EPISODES,
            target_return=SOLVED,
        )
    return result.counters.steps if result.counters.steps < LIMIT else None


def solve_sb3(seed: int) -> int | None:
    """Train with the settings of rl-baselines3-zoo (hyperparams/dqn.yml) until solved; return the steps taken."""
    import numpy as np
    from stable_baselines3 import DQN
    from stable_baselines3.common.callbacks import BaseCallback

    from nexus.envs.factory import EnvSpec
    from nexus.training.evaluation import evaluate_policy

    class Actor:
        def act(self, states: Any, epsilon: float, training: bool, action_masks: Any) -> Any:
            return np.asarray(model.predict(states, deterministic=True)[0])

    class StopWhenSolved(BaseCallback):  # type: ignore[misc]
        solved_at: int | None = None

        def _on_step(self) -> bool:
            if self.num_timesteps % EVERY:
                return True
            mean = evaluate_policy(Actor(), EnvSpec("CartPole-v1"), EPISODES, seed=1_000_000 + seed).mean
            if mean < SOLVED:
                return True
            self.solved_at = self.num_timesteps
            return False

    model = DQN(
        "MlpPolicy",
        "CartPole-v1",
        learning_rate=2.3e-3,
        batch_size=64,
        buffer_size=100_000,
        learning_starts=1_000,
        gamma=0.99,
        target_update_interval=10,
        train_freq=256,
        gradient_steps=128,
        exploration_fraction=0.16 * 50_000 / LIMIT,  # rl-zoo anneals over 16 % of its 50,000 steps
        exploration_final_eps=0.04,
        policy_kwargs={"net_arch": [256, 256]},
        seed=seed,
        device="cpu",
    )
    callback = StopWhenSolved()
    model.learn(LIMIT, callback=callback)
    return callback.solved_at


def timed(library: str, seed: int) -> dict[str, Any]:
    """Run one library in a separate process, from start to end."""
    started = time.perf_counter()
    found = fresh_process("benchmarks.wall_clock", "--only", library, "--seed", seed)
    seconds = time.perf_counter() - started
    return {
        "library": library,
        "seed": seed,
        "seconds": round(seconds, 2),
        "solved_at": found["solved_at"],
    }


def section() -> str:
    """Return this benchmark's section of docs/results.md."""
    found = load("wall_clock")
    if found is None:
        return ""
    seeds = sorted({row["seed"] for row in found["rows"]})
    by_key = {(row["library"], row["seed"]): row for row in found["rows"]}
    rows = []
    for seed in seeds:
        ours, theirs = by_key["nexus", seed], by_key["sb3", seed]
        rows.append([seed, ours["seconds"], ours["solved_at"], theirs["seconds"], theirs["solved_at"] or "not solved"])
    medians = found["median_seconds"]
    rows.append(["median", f"{medians['nexus']:.1f}", "", f"{medians['sb3']:.1f}", ""])
    head = ["seed", "nexus, s", "steps", "SB3 2.9.2, rl-zoo settings, s", "steps"]
    return "\n\n".join(
        [
            "## Seconds to a solved CartPole-v1",
            "Wall-clock time of the whole process: imports, training, and an evaluation of 100 greedy episodes every "
            "2,500 steps by the same code for both libraries, until one reaches 475 or 100,000 steps are done. The two "
            f"alternate, seed by seed, on the CPU. Ratio of the medians: **{found['ratio']}**.",
            table(head, rows),
            provenance(found),
        ]
    )


def main() -> None:
    """Time both libraries in turn and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", choices=LIBRARIES, help="solve once in this process, with --seed")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.only:
        solve = {"nexus": solve_nexus, "sb3": solve_sb3}[arguments.only]
        print(json.dumps({"solved_at": solve(arguments.seed)}))
        return
    rows = []
    for seed in range(FIRST_SEED, FIRST_SEED + arguments.seeds):
        for library in LIBRARIES:
            rows.append(timed(library, seed))
            print(rows[-1], flush=True)
    medians = {name: median([row["seconds"] for row in rows if row["library"] == name]) for name in LIBRARIES}
    record("wall_clock", rows, median_seconds=medians, ratio=round(medians["sb3"] / medians["nexus"], 1))


if __name__ == "__main__":
    main()
