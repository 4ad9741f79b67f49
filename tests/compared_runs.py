"""Folders of runs with given evaluations, for tests that compare them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nexus.training.files import write_json

__all__ = ["END", "evaluated_run"]

END = 300  # steps


def evaluated_run(
    folder: Path,
    scores: Mapping[int, float] | float = 70.0,
    *,
    env: str = "CartPole-v1",
    algorithm: str = "dqn",
    seed: int = 1,
    status: str = "finished",
    epsilon: float = 0.0,
    lines: str = "",
    env_is_id: bool = True,
    **config: Any,
) -> Path:
    """Write the folder of a run with these evaluations by step, or with one of its final weights alone.

    The last one is that of the final weights if the run is finished.
    """
    by_step = dict(scores) if isinstance(scores, Mapping) else {END: scores}
    folder.mkdir(parents=True)
    settings = {"eval_episodes": 4, "seed": seed, "total_steps": END, **config}
    end = max(by_step, default=0)
    write_json(
        folder / "run.json",
        {
            "format": 4,
            "env": env,
            "env_is_id": env_is_id,
            "algorithm": algorithm,
            "config": settings,
            "status": status,
            "progress": {"steps": end, "episodes": 3, "updates": 40},
            "seconds": 30.0,
        },
    )
    (folder / "episodes.csv").write_text("step,episode,return,length,seconds\n")
    logged = [{"step": step, "eval/mean_reward": mean, "eval/std_reward": 1.0} for step, mean in by_step.items()]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in logged) + lines)
    if status == "finished" and by_step:
        mean = by_step[end]
        protocol = {"env": env, "episodes": 4, "epsilon": epsilon, "seed": 5, "max_episode_steps": 100_000}
        protocol |= {"frame_skip": 1, "frame_stack": 1, "rules": None}
        returns = {"mean": mean, "std": 0.0, "low": mean, "high": mean, "returns": [mean] * 4, "mean_length": 1.0}
        write_json(folder / "evaluation.json", {"steps": end, "episodes": 4, **returns, "protocol": protocol})
    return folder
