"""Agent steps per second on Pong at the Nature update ratio: nexus and Stable-Baselines3, in turn, in one run.

    pip install -r benchmarks/requirements.txt
    python -m benchmarks.atari_speed

One update of 32 every 4 steps. nexus: the complete preset `nature`, replay of a million transitions; once with its
one game and once with 8. SB3: its `AtariWrapper`, four stacked frames, CnnPolicy and the settings of rl-zoo, whose
replay holds 100,000 transitions: with a million it would need 56 GB. Both explore with ε = 0.1, so that both act on the
network as often as in most of a run. Each measurement is a separate process, with the library's default number of
threads; the clock starts after the first 1,000 steps, which only fill the replay.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.page import table_section
from benchmarks.record import fresh_process, median, record

STARTS, EPSILON, GAMES = 1_000, 0.1, 8


class Clock:
    """Wall-clock and processor time of `steps` steps.

    Args:
        steps: number of steps.
        first: steps before them that do not count.
    """

    def __init__(self, steps: int, first: int = STARTS) -> None:
        self.steps, self.first = steps, first
        self.begun: tuple[int, float, float] | None = None
        self.figures: dict[str, float] = {}

    def over(self, steps: int) -> bool:
        """Record the number of steps so far; return true once all are done."""
        if self.begun is None:
            if steps >= self.first:
                self.begun = steps, time.perf_counter(), time.process_time()
            return False
        first, wall, processor = self.begun
        if steps < first + self.steps:
            return False
        taken = steps - first
        self.figures = {
            "steps_per_second": taken / (time.perf_counter() - wall),
            "processor_ms_per_step": (time.process_time() - processor) / taken * 1e3,
        }
        return True


def run_nexus(clock: Clock, games: int, device: str = "cpu", **settings: Any) -> int:
    """Train with the preset `nature` until the clock has run out; return torch's threads."""
    return trained(
        clock,
        "nature",
        device=device,
        num_envs=games,
        learning_starts=STARTS,
        epsilon=EPSILON,
        epsilon_min=EPSILON,
        **settings,
    )


def trained(clock: Clock, preset: str, **settings: Any) -> int:
    """Train on Pong until the clock has run out; return torch's threads."""
    import torch

    from nexus.api import Listener, train

    class Stop(Listener):
        threads = 0

        def on_step(self, progress: Any, episodes: Any) -> None:
            self.threads = torch.get_num_threads()
            if clock.over(progress.counters.steps):
                raise KeyboardInterrupt  # like a user stopping a run

    listener = Stop()
    with tempfile.TemporaryDirectory() as folder:
        train("pong", preset=preset, run_dir=Path(folder, "run"), listener=listener, **settings)
    return listener.threads


def run_sb3(clock: Clock) -> int:
    """Train with the settings of rl-baselines3-zoo (hyperparams/dqn.yml, atari); return torch's threads."""
    import ale_py
    import gymnasium as gym
    import torch
    from stable_baselines3 import DQN
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_atari_env
    from stable_baselines3.common.vec_env import VecFrameStack

    class StopWhenOver(BaseCallback):  # type: ignore[misc]
        def _on_step(self) -> bool:
            return not clock.over(self.num_timesteps)

    gym.register_envs(ale_py)
    # One frame a step and no sticky actions: the wrapper skips, as with rl-zoo's older ids.
    games = make_atari_env("ALE/Pong-v5", env_kwargs={"frameskip": 1, "repeat_action_probability": 0.0})
    model = DQN(
        "CnnPolicy",
        VecFrameStack(games, n_stack=4),
        learning_rate=1e-4,
        batch_size=32,
        buffer_size=100_000,
        learning_starts=STARTS,
        target_update_interval=1_000,
        train_freq=4,
        gradient_steps=1,
        exploration_initial_eps=EPSILON,
        exploration_final_eps=EPSILON,
        optimize_memory_usage=False,
        device="cpu",
    )
    model.learn(10_000_000, callback=StopWhenOver())
    return torch.get_num_threads()


LEARNERS: dict[str, Callable[[Clock], int]] = {
    "nexus, 1 game": lambda clock: run_nexus(clock, 1),
    f"nexus, {GAMES} games": lambda clock: run_nexus(clock, GAMES),
    "stable-baselines3, 1 game": run_sb3,
}


def measured(learner: str, steps: int) -> dict[str, float]:
    """Run one learner in a separate process."""
    figures: dict[str, float] = fresh_process("benchmarks.atari_speed", "--only", learner, "--steps", steps)
    print(learner, figures, flush=True)
    return figures


def section() -> str:
    """Return this benchmark's section of docs/results.md."""
    return table_section(
        "atari_speed",
        "Steps per second on Pong",
        "One update of 32 every 4 steps. nexus: the complete `--preset nature`, replay of 1,000,000 "
        "transitions; SB3: its AtariWrapper, CnnPolicy and rl-zoo's settings, replay of 100,000, since a "
        "million would need 56 GB there. ε = {epsilon} for both; each with its default number of threads. "
        "{steps:,} steps after learning began, {rounds} fresh processes each, alternating; processor time is "
        "that of all threads.",
        ["learner", "threads", "steps/s", "ratio to SB3", "processor ms a step", "each round"],
    )


def main() -> None:
    """Measure all in turn, round by round, and write the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=4_000, help="steps on the clock")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=LEARNERS, help="measure once in this process and print the figures")
    options = parser.parse_args()
    if options.only:
        clock = Clock(options.steps)
        threads = LEARNERS[options.only](clock)
        print(json.dumps({**clock.figures, "threads": threads}))
        return
    found: dict[str, list[dict[str, float]]] = {learner: [] for learner in LEARNERS}
    for number in range(options.rounds):
        for learner in LEARNERS if number % 2 == 0 else reversed(LEARNERS):  # going first may be an advantage
            found[learner].append(measured(learner, options.steps))
    base = [figures["steps_per_second"] for figures in found["stable-baselines3, 1 game"]]
    rows = []
    for learner, figures in found.items():
        rates = [row["steps_per_second"] for row in figures]
        rows.append(
            {
                "learner": learner,
                "threads": int(figures[0]["threads"]),
                "steps_per_second": round(median(rates)),
                "ratio_to_sb3": round(median([ours / theirs for ours, theirs in zip(rates, base, strict=True)]), 2),
                "processor_ms_per_step": round(median([row["processor_ms_per_step"] for row in figures]), 1),
                "one_by_one": " ".join(f"{rate:.0f}" for rate in rates),
            }
        )
    others = {name: version(name) for name in ("stable-baselines3", "ale-py")}
    record("atari_speed", rows, steps=options.steps, rounds=options.rounds, epsilon=EPSILON, others=others)


if __name__ == "__main__":
    main()
