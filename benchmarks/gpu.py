"""Benchmarks for a GPU: the learner alone, agent steps per second, and the seed's five games for ten minutes each.

    pip install -e ".[atari]" -c constraints.txt     with a CUDA build of torch
    python -m benchmarks.gpu                         repeat until it reports that all is done

Nothing is downloaded. A call takes up to `--minutes`; figures already in docs/results/gpu.json are not measured again,
and an interrupted game resumes from its last checkpoint, in `runs/gpu`.

- learner: updates of the preset `nature`, batch 32, from a full replay on the GPU, drawn uniformly and by priority; as
  one CUDA graph from the draw to the new priorities, and without it.
- agent: training with that preset, one update every 4 steps, with ε = 0.1, as `benchmarks.atari_speed` does; steps
  per second once it learns, in turns and with `--actor-sync-every`.
- a game: `--preset paper --algo pqn`, for `--train-seconds` of training, then 30 games under the
  protocol `nature` with the weights at that point. A run's clock excludes evaluations and time lost to
  interruptions.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.atari_speed import STARTS, Clock, run_nexus
from benchmarks.learning import ATARI_GAMES
from benchmarks.page import SEED_SCORES, load, provenance, table
from benchmarks.record import median, record, rows_of
from nexus.api import evaluate, make_config, process_for, resume, train
from nexus.core.types import Batch, Outcome, Transitions
from nexus.data.replay import Replay
from nexus.listener import Listener, Plan
from nexus.runner import agent_for, replay_for
from nexus.training.loop import ReplayProtocol
from nexus.training.replays import AnyReplay
from nexus.whole_update import WholeUpdate

NAME = "gpu"
SHAPE = (4, 84, 84)
ROUNDS, FILL = 5, 50_000
GAMES_AT_ONCE = (16, 64, 256)
EPOCH = "1000 steps"  # for concurrent acting and learning
WARM_UP = 4_000  # steps after the first update that do not count: it records the graph
# The paper's settings: none have been tuned for ten minutes yet, and none of these depends on a run's length.
GAME: dict[str, Any] = {
    "preset": "paper",
    "algorithm": "pqn",
    "checkpoint_every": "500000 steps",
    "log_every": "50000 steps",
}


def wait(device: torch.device) -> None:
    """Wait until the device has finished all its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def filled(replay: AnyReplay) -> Replay:
    """Fill a replay on a device with noise, as the loop does: 50 environments, an episode without end."""
    assert isinstance(replay, Replay)
    assert replay.on_device
    rng, envs = np.random.default_rng(0), 50
    states = rng.integers(0, 256, (envs, *SHAPE), dtype=np.uint8)
    begins, valid = np.ones(envs, bool), np.ones(envs, bool)
    for _ in range(replay.capacity // envs):
        newest = rng.integers(0, 256, (envs, 1, *SHAPE[1:]), dtype=np.uint8)
        following = np.concatenate([states[:, 1:], newest], axis=1)
        numbers, next_numbers = replay.remember(states, following, begins, valid)
        rewards, discounts = rng.normal(size=envs).astype(np.float32), np.full(envs, 0.99, np.float32)
        replay.add(Transitions(numbers, rng.integers(4, size=envs), rewards, discounts, next_numbers))
        states, begins = following, np.zeros(envs, bool)
    return replay


def learner(device: str, updates: int, prioritized: bool) -> list[dict[str, Any]]:
    """Measure updates per second with and without the CUDA graph, in turn."""
    rates: dict[str, list[float]] = {}
    settings = {"replay_capacity": FILL, "replay_store": "device", "device": device, "prioritized": prioritized}
    config = make_config("breakout", "nature", cuda_graph=False, **settings)
    agents = [agent_for(SHAPE, 4, config) for _ in range(2)]
    replays = [filled(replay_for(config, SHAPE, np.uint8, agent.device)) for agent in agents]
    whole = WholeUpdate(agents[0].learner, replays[0])
    ways: dict[str, tuple[Callable[[Batch], Outcome], ReplayProtocol]] = {
        "as one CUDA graph": (whole.learn, whole),
        "without a graph": (agents[1].learn, replays[1]),
    }
    with process_for(agents[0], None):
        for _ in range(ROUNDS + 1):  # the first one warms up
            for way, (learn, replay) in ways.items():
                wait(agents[0].device)
                started = time.perf_counter()
                for _ in range(updates):
                    batch = replay.sample(32)
                    update = learn(batch)
                    replay.update_priorities(batch["indices"], update.priorities)
                wait(agents[0].device)
                rates.setdefault(way, []).append(updates / (time.perf_counter() - started))
    drawn = "by priority" if prioritized else "uniformly"
    return [
        {
            "what": f"learner, drawn {drawn}, {way}",
            "updates_per_second": round(median(found[1:])),
            "one_by_one": " ".join(f"{rate:.0f}" for rate in found[1:]),
        }
        for way, found in rates.items()
    ]


class Until(Listener):
    """Stops a run like Ctrl-C: at a deadline, or after enough training.

    Args:
        deadline: time by `time.perf_counter`.
        seconds: seconds of training by the run's clock.
    """

    def __init__(self, deadline: float, seconds: float) -> None:
        self.deadline, self.seconds = deadline, seconds
        self.enough = False

    def on_start(self, plan: Plan) -> None:
        self.enough_at = time.perf_counter() + self.seconds - plan.seconds

    def on_step(self, progress: Any, episodes: Any) -> None:
        now = time.perf_counter()
        self.enough = now >= self.enough_at
        if self.enough or now >= self.deadline:
            raise KeyboardInterrupt


def agent_steps(games: int, device: str, steps: int) -> list[dict[str, Any]]:
    """Measure one number of games, in turns and at the same time, starting shortly after the first update."""
    rows = []
    for way, every in (("in turns", None), ("acting beside learning", EPOCH)):
        clock = Clock(steps, first=STARTS + WARM_UP)
        run_nexus(clock, games, device, actor_sync_every=every)
        rate = round(clock.figures["steps_per_second"])
        rows.append({"what": f"agent, {games} games, {way}", "steps_per_second": rate})
    return rows


def game(name: str, options: argparse.Namespace, deadline: float) -> list[dict[str, Any]]:
    """Train on one game, from where an earlier call left it; None if the deadline came first."""
    folder = Path("runs", NAME, name)
    until = Until(deadline, options.train_seconds)
    if (folder / "run.json").exists():
        result = resume(folder, listener=until)
    else:
        result = train(name, run_dir=folder, listener=until, device=options.device, seed=100, **GAME)
    if result.interrupted and not until.enough:
        return []
    evaluation = evaluate(result.agent, name)
    return [
        {
            "what": name,
            "steps": result.counters.steps,
            "updates": result.counters.updates,
            "train_seconds": round(result.seconds),
            "score": round(evaluation.mean, 1),
            "low": round(evaluation.low, 1),
            "high": round(evaluation.high, 1),
            "protocol": str(evaluation.protocol),
        }
    ]


def section() -> str:
    """Return this benchmark's section of docs/results.md."""
    found = load("gpu")
    if found is None:
        return ""
    units = {"updates_per_second": "updates/s", "steps_per_second": "steps/s"}
    rates = [
        [row["what"], f"{row[name]:,}", unit] for row in found["rows"] for name, unit in units.items() if name in row
    ]
    games = [
        [
            row["what"],
            f"{row['steps']:,}",
            f"{4 * row['steps']:,}",
            row["train_seconds"],
            f"{row['score']:.1f}",
            f"{row['low']:.1f} to {row['high']:.1f}",
            *SEED_SCORES[row["what"]],
        ]
        for row in found["rows"]
        if "score" in row
    ]
    settings = " ".join(f"--{name.replace('_', '-')} {value!r}" for name, value in found["game"].items())
    parts = [
        f"## On a GPU: {found['gpu']}",
        "The learner alone: `--preset nature`, a batch of 32, from a full replay on the GPU. An agent: the whole "
        "preset on Pong, one update every 4 steps, ε = 0.1, once learning has started.",
        table(["what", "rate", "unit"], rates),
    ]
    head = ["game", "steps", "frames", "seconds", "score", "95 % interval", "specification: random", "human", "DQN"]
    if games:
        parts += [
            f"Games: `{settings}`, protocol `nature`, one seed: 30 games with the weights at the named second of "
            "training by the run's clock, evaluations not counted.",
            table(head, games),
        ]
    return "\n\n".join([*parts, provenance(found)])


def main() -> None:
    """Measure what is missing, while time lasts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8.0, help="after which to stop; the next call continues")
    parser.add_argument("--train-seconds", type=float, default=600.0, help="training time of each game")
    parser.add_argument("--updates", type=int, default=5_000, help="in each of the rounds of the learner")
    parser.add_argument("--steps", type=int, default=100_000, help="steps over which an agent's rate is measured")
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    deadline = time.perf_counter() + 60 * options.minutes
    jobs: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "learner": partial(learner, options.device, options.updates, False),
        "learner, prioritized": partial(learner, options.device, options.updates, True),
        **{
            f"agent, {games} games": partial(agent_steps, games, options.device, options.steps)
            for games in GAMES_AT_ONCE
        },
        **{name: partial(game, f"ALE/{name}-v5", options, deadline) for name in ATARI_GAMES},
    }
    rows = rows_of(NAME)
    for job, measure in jobs.items():
        if any(row["job"] == job for row in rows) or time.perf_counter() >= deadline:
            continue
        rows += [{"job": job, **row} for row in measure()]
        record(NAME, rows, gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None, game=GAME)
    missing = [job for job in jobs if all(row["job"] != job for row in rows)]
    print(f"still to do, call again: {'; '.join(missing)}" if missing else "all is done")


if __name__ == "__main__":
    main()
