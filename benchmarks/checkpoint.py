"""How long a checkpoint pauses a run: 100,000 CartPole transitions in the replay, few or all of them new.

    python -m benchmarks.checkpoint
    python -m benchmarks.checkpoint --folder /a/disk    instead of the system's temporary folder
    python -m benchmarks.checkpoint --frames 0          without the second part

The second part does the same with 1,000,000 compressed frames of Breakout: a random player's first 20,000 steps are
recorded and fed to the replay repeatedly.

The timing covers everything that training waits for: the state, its files, checksums, fsyncs, and removing old files.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from benchmarks.filling import transitions
from benchmarks.page import table_section
from benchmarks.record import median, record
from nexus.api import Listener, make_config
from nexus.data.n_step import NStepAccumulator
from nexus.envs.factory import EnvSpec, make_vector_env
from nexus.envs.stream import Step, TransitionStream
from nexus.runner import Run

ENV, GAME = "CartPole-v1", "breakout"
ALGORITHMS = {"uniform": "dqn", "prioritized": "prioritized"}
FRAMES = "compressed frames"

Pause: TypeAlias = tuple[float, int]
"""Seconds, and bytes of the replay that were written."""


def recorded(steps: int) -> list[Step]:
    """Return `steps` random steps of consecutive games."""
    env, rng = make_vector_env(EnvSpec(GAME, 4, 4), 1), np.random.default_rng(0)
    stream = TransitionStream(env)
    stream.reset(0)
    taken = [stream.step(rng.integers(stream.action_dim, size=1)) for _ in range(steps)]
    env.close()
    return taken


def feed(run: Run, steps: Sequence[Step], count: int) -> None:
    """Add this many transitions to the replay, as the loop does, and seal it."""
    accumulator = NStepAccumulator(1, 1, run.config.gamma)
    for step in islice(cycle(steps), count):
        states, next_states = run.parts.replay.remember(step.states, step.next_states, step.begins, step.valid)
        flags = step.terminal, step.truncated, step.valid
        run.parts.replay.add(accumulator.push(states, step.actions, np.sign(step.rewards), next_states, *flags))
    run.parts.replay.seal()


def pauses(
    env: str, algorithm: str, folder: Path, held: int, new: int, count: int, add: Callable[[Run, int], None]
) -> tuple[Pause, list[Pause]]:
    """Return the first checkpoint, where everything is new, and `count` more with `new` transitions each."""
    settings: dict[str, Any] = {"replay_capacity": held, "total_steps": held + new * count, "learning_starts": 0}
    config = make_config(env, algorithm=algorithm, **settings)
    found: list[Pause] = []
    before: set[str] = set()
    with Run(env, None, config, folder, Listener()) as run, run.open_log() as log:
        for added in (held, *[new] * count):
            add(run, added)
            run.parts.counters.steps += added
            run.parts.agent.learn(run.parts.replay.sample(config.batch_size))  # so that the optimizer has a state
            started = time.perf_counter()
            run.checkpoint(log)
            seconds = time.perf_counter() - started
            chunks = {chunk.name: chunk.mark.bytes for chunk in run.files.checkpoints.chunks}
            found.append((seconds, sum(chunks[name] for name in chunks.keys() - before)))
            before = set(chunks)
    return found[0], found[1:]


def section() -> str:
    """Return this benchmark's section of docs/results.md."""
    return table_section(
        "checkpoint",
        "The pause of a checkpoint",
        "{held:,} CartPole transitions in the replay, and everything that training waits for; medians over "
        "{rounds} alternating runs, with {checkpoints} checkpoints each after the first. Likewise {frames:,} "
        "transitions of Breakout, {recorded:,} recorded steps of random play repeated, over {frame_rounds} runs.",
        ["replay", "new transitions", "MB of replay", "ms", "ms at most"],
    )


def main() -> None:
    """Measure both replays in turn, round by round, and write the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--held", type=int, default=100_000, help="transitions in the replay")
    parser.add_argument("--new", type=int, default=10_000, help="of them new")
    parser.add_argument("--rounds", type=int, default=7, help="runs of each kind")
    parser.add_argument("--checkpoints", type=int, default=6, help="of each run, after the first")
    parser.add_argument("--frames", type=int, default=1_000_000, help="transitions of the second part; 0 leaves it out")
    parser.add_argument("--frame-rounds", type=int, default=3, help="runs of the second part")
    parser.add_argument("--recorded", type=int, default=20_000, help="steps that are recorded for it")
    parser.add_argument("--folder", help="where the runs are written; None takes a temporary one")
    options = parser.parse_args()
    names = [*ALGORITHMS, *([FRAMES] if options.frames else [])]
    held = {name: options.frames if name == FRAMES else options.held for name in names}
    whole: dict[str, list[Pause]] = {name: [] for name in names}
    few: dict[str, list[Pause]] = {name: [] for name in names}

    def measure(env: str, name: str, add: Callable[[Run, int], None]) -> None:
        algorithm = ALGORITHMS.get(name, "dqn")
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            run = Path(folder, "run")
            first, others = pauses(env, algorithm, run, held[name], options.new, options.checkpoints, add)
        whole[name].append(first)
        few[name] += others

    rng = np.random.default_rng(0)
    for _ in range(options.rounds):
        for name in ALGORITHMS:
            measure(ENV, name, lambda run, count: run.parts.replay.add(transitions(count, rng)))
    if options.frames:
        steps = recorded(options.recorded)
        for _ in range(options.frame_rounds):
            measure(GAME, FRAMES, lambda run, count: feed(run, steps, count))
    rows: list[dict[str, Any]] = [
        {
            "replay": name,
            "new": count,
            "megabytes": round(median([written for _, written in found]) / 1e6, 2),
            "milliseconds": round(1e3 * median([seconds for seconds, _ in found]), 1),
            "most": round(1e3 * max(seconds for seconds, _ in found), 1),
        }
        for name in names
        for count, found in ((options.new, few[name]), (held[name], whole[name]))
    ]
    about = {
        name: vars(options)[name] for name in ("held", "rounds", "checkpoints", "frames", "frame_rounds", "recorded")
    }
    record("checkpoint", rows, game=GAME, **about)


if __name__ == "__main__":
    main()
