"""What a seed costs an Atari game: a reset with one, without one, and a step.

    python -m benchmarks.seeding

One of four games at a time is reset while the others wait, like the start of an episode in training.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.page import table_section
from benchmarks.record import median, record
from nexus.envs.atari import PROTOCOLS, canonical, make_atari
from nexus.envs.episodes import RESET_MASK, Seeds

GAMES, ENVS, ROUNDS, STEPS = ("pong", "breakout", "seaquest"), 4, 40, 20


def seconds(function: Callable[[], Any]) -> float:
    """Return the seconds of a call."""
    begun = time.perf_counter()
    function()
    return time.perf_counter() - begun


def measured(game: str) -> dict[str, Any]:
    """Return medians of one game in milliseconds; the three take turns."""
    env, rng = make_atari(canonical(game), PROTOCOLS["nature"], ENVS), np.random.default_rng(0)
    env.reset(seed=0)
    which = np.arange(ENVS) == 1
    times: dict[str, list[float]] = {"step": [], "plain": [], "seeded": []}
    for number in range(ROUNDS):
        for _ in range(STEPS):
            actions = rng.integers(4, size=ENVS)
            times["step"].append(seconds(lambda actions=actions: env.step(actions)))  # type: ignore[misc]
        for name, seed in (("plain", None), ("seeded", number)):
            seeds: Seeds = [None, seed, None, None]
            given: Any = {"seed": seeds, "options": {RESET_MASK: which.copy()}}
            times[name].append(seconds(lambda given=given: env.reset(**given)))  # type: ignore[misc]
    env.close()
    medians = {name: 1e3 * median(values) for name, values in times.items()}
    return {
        "game": game,
        **{f"{name}_ms": round(value, 2) for name, value in medians.items()},
        "steps": round((medians["seeded"] - medians["plain"]) / medians["step"]),
    }


def section() -> str:
    """Return this benchmark's section of docs/results.md."""
    return table_section(
        "seeding",
        "What a seed costs an Atari game",
        "One of {envs} games is reset while the others wait; medians of {rounds} resets, alternating with steps of "
        "all. The last column is the extra cost of the seed, in steps.",
        ["game", "step, ms", "reset, ms", "with a seed, ms", "steps"],
    )


def main() -> None:
    """Measure and record."""
    record("seeding", [measured(game) for game in GAMES], envs=ENVS, rounds=ROUNDS)


if __name__ == "__main__":
    main()
