"""How well a preset learns: seeds in parallel processes, greedy evaluations along the way.

    python -m benchmarks.learning cartpole          tuned CartPole-v1, 10 seeds, 100,000 steps
    python -m benchmarks.learning cartpole_seed     the seed preset, 10 seeds
    python -m benchmarks.learning cartpole_seed_per_step    the same with ε decaying per step
    python -m benchmarks.learning lunarlander       tuned LunarLander-v3, 5 seeds
    python -m benchmarks.learning acrobot
    python -m benchmarks.learning mountaincar
    python -m benchmarks.learning cartpole_family       every algorithm on CartPole-v1, 5 seeds, 50,000 steps
    python -m benchmarks.learning lunarlander_family    eight of them on LunarLander-v3, 3 seeds, 150,000 steps
    python -m benchmarks.learning minatar_family        DQN and Rainbow on MinAtar's Breakout, 3 seeds, 500,000 steps
    python -m benchmarks.learning atari_pong            `--preset fast` under the protocol nature, 3 seeds
    python -m benchmarks.learning atari_breakout        likewise, 1 seed; and _qbert, _seaquest, _spaceinvaders

The record is written after every seed. A stopped study continues with `--resume`.

Tuning used seeds from 1000 on. Results use seeds 0 to 9; for CartPole and LunarLander those from 100 on, since their
settings were revised after 0 to 9 had been seen.
"""

import argparse
import json
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.record import RESULTS, record, rows_of
from nexus.api import make_config
from nexus.envs.factory import name_of

STUDIES: dict[str, dict[str, Any]] = {
    "cartpole": {
        "env": "CartPole-v1",
        "first_seed": 100,
        "seeds": 10,
        "settings": {"total_steps": 100_000, "eval_every": "5000 steps", "target_return": None},
    },
    "cartpole_seed": {
        "env": "CartPole-v1",
        "preset": "seed",
        "seeds": 10,
        "settings": {"total_steps": 40_000, "eval_every": "10000 steps"},
    },
    "cartpole_seed_per_step": {
        "env": "CartPole-v1",
        "preset": "seed",
        "seeds": 10,
        "settings": {"total_steps": 40_000, "eval_every": "10000 steps", "epsilon_schedule": "per_step"},
    },
    "lunarlander": {
        "env": "LunarLander-v3",
        "first_seed": 100,
        "seeds": 5,
        "settings": {"eval_every": "25000 steps", "target_return": None},
    },
    "acrobot": {
        "env": "Acrobot-v1",
        "seeds": 5,
        "settings": {"eval_every": "5000 steps", "target_return": None},
    },
    "mountaincar": {
        "env": "MountainCar-v0",
        "seeds": 5,
        "settings": {"eval_every": "25000 steps", "target_return": None},
    },
}

# As with `--algo NAME`, but without CartPole's Double, which would be in all.
STUDIES["cartpole_family"] = {
    "env": "CartPole-v1",
    "first_seed": 100,
    "seeds": 5,
    "settings": {"total_steps": 50_000, "eval_every": "5000 steps", "target_return": None},
    "algorithms": {
        "dqn": {"double": False},
        "double": {},
        "dueling": {"double": False, "dueling": True},
        "prioritized": {"double": False},
        "n-step": {"double": False},
        "noisy": {"double": False},
        "munchausen": {},
        "c51": {"double": False},
        "qr-dqn": {"double": False},
        "iqn": {"double": False},
        "rainbow": {},
        "beyond": {},
    },
}
PLAIN: dict[str, Any] = {"double": False}  # LunarLander's settings have both
ONE_STEP: dict[str, Any] = {"n_step": 1}
STUDIES["lunarlander_family"] = {
    "env": "LunarLander-v3",
    "first_seed": 100,
    "seeds": 3,
    "settings": {"eval_every": "50000 steps", "target_return": None},
    "algorithms": {
        "dqn": PLAIN | ONE_STEP,
        "double": ONE_STEP,
        "dueling": ONE_STEP,  # and Double
        "prioritized": PLAIN | ONE_STEP,
        "n-step": PLAIN,
        "qr-dqn": {},
        "rainbow": {},
        "beyond": {},
    },
}


def minatar_breakout() -> Any:
    """Return Breakout on 10 x 10 pixels (https://arxiv.org/abs/1903.03176), with its sticky actions."""
    import gymnasium
    from minatar.gym import register_envs

    if "MinAtar/Breakout-v1" not in gymnasium.registry:
        register_envs()
    return gymnasium.make("MinAtar/Breakout-v1", max_episode_steps=5_000)


STUDIES["minatar_family"] = {
    "env": minatar_breakout,
    "first_seed": 100,
    "seeds": 3,
    "settings": {
        "total_steps": 500_000,
        "num_envs": 8,
        "batch_size": 32,
        "update_every": "4 steps",
        "learning_rate": 0.00025,
        "target_update_every": "1000 updates",
        "learning_starts": 5_000,
        "eval_every": "50000 steps",
    },
    "algorithms": {
        "dqn": {"epsilon_steps": 100_000, "epsilon_min": 0.05},
        "rainbow": {"v_min": 0.0, "v_max": 20.0},
    },
}

ATARI_GAMES = ("Pong", "Breakout", "SpaceInvaders", "Qbert", "Seaquest")  # the seed's table
for game in ATARI_GAMES:
    STUDIES[f"atari_{game.lower()}"] = {
        "env": f"ALE/{game}-v5",
        "preset": "fast",
        "first_seed": 100,
        "seeds": 3 if game == "Pong" else 1,
        "settings": {},  # the preset's
        "algorithms": {"pqn": {}},
    }


def one_seed(name: str, algorithm: str | None, seed: int) -> dict[str, Any]:
    """Train one seed in a separate process and return its evaluations and episode returns."""
    import nexus
    from nexus.api import Listener
    from nexus.training.curves import read_episodes
    from nexus.training.evaluation import Evaluation

    class Evaluations(Listener):
        def __init__(self) -> None:
            self.points: list[tuple[int, float, float, float]] = []

        def on_evaluation(self, steps: int, evaluation: Evaluation) -> None:
            self.points.append((steps, evaluation.mean, evaluation.low, evaluation.high))

    study, seen = STUDIES[name], Evaluations()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        result = nexus.train(
            study["env"],
            preset=study.get("preset"),
            run_dir=Path(folder, "run"),
            listener=seen,
            seed=seed,
            **study["settings"],
            **({} if algorithm is None else {"algorithm": algorithm, **study["algorithms"][algorithm]}),
        )
        episodes = read_episodes(result.run_dir)
    return {
        **({} if algorithm is None else {"algorithm": algorithm}),
        "seed": seed,
        "seconds": round(time.perf_counter() - started, 1),
        "cpu_seconds": round(time.process_time(), 1),  # not affected by other processes
        "evaluations": [[steps, *(round(value, 1) for value in rest)] for steps, *rest in seen.points],
        "episode_returns": [round(value, 1) for value in episodes["return"].tolist()],
        "updates": result.counters.updates,
    }


def main() -> None:
    """Run one study and write its record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--processes", type=int, default=2, help="seeds at a time (1 for undisturbed times)")
    parser.add_argument("--resume", action="store_true", help="keep the rows of the record and run what is missing")
    arguments = parser.parse_args()
    study = STUDIES[arguments.study]
    rows, configs = (rows_of(arguments.study) if arguments.resume else []), configs_of(arguments.study)
    if rows and configs_recorded(arguments.study) not in (None, configs):
        parser.error(f"the settings of {arguments.study} have changed since its record was started: omit --resume")
    done = {(row.get("algorithm"), row["seed"]) for row in rows}
    first = study.get("first_seed", 0)
    jobs = [(name, seed) for seed in range(first, first + study["seeds"]) for name in study.get("algorithms", [None])]
    # A fresh process for each: it counts its imports, and inherits no threads or processor time.
    with ProcessPoolExecutor(arguments.processes, get_context("spawn"), max_tasks_per_child=1) as pool:
        running = [pool.submit(one_seed, arguments.study, *job) for job in jobs if job not in done]
        for job in as_completed(running):
            rows.append(job.result())
            rows.sort(key=lambda row: jobs.index((row.get("algorithm"), row["seed"])))
            about = {"processes": arguments.processes, "env": name_of(study["env"]), "configs": configs}
            record(arguments.study, rows, **about)


def configs_recorded(name: str) -> Any:
    """Return the settings that a record was started with; None if unknown."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8")).get("configs")


def configs_of(name: str) -> dict[str, dict[str, Any]]:
    """Return all settings of a study, by algorithm, as of now."""
    study = STUDIES[name]
    made = [
        make_config(study["env"], study.get("preset"), **study["settings"], **own)
        for own in ({"algorithm": key, **values} for key, values in study.get("algorithms", {"dqn": {}}).items())
    ]
    return {config.algorithm: config.to_mapping() for config in made}


if __name__ == "__main__":
    main()
