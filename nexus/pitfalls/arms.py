"""An arm made of the library's own parts: its environments, agent, replay and loop."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from gymnasium.vector import VectorEnv

from nexus.core.types import Ints
from nexus.envs.factory import EnvSource, EnvSpec, make_vector_env
from nexus.envs.workers import close_env
from nexus.models.rl.dqn import DQNAgent
from nexus.parts import Parts
from nexus.pitfalls.pitfall import Trace
from nexus.training.config import TrainConfig
from nexus.training.evaluation import evaluate_policy
from nexus.training.loop import train

__all__ = ["DQNArm", "Measure", "measured_at", "played"]

POINTS = 20  # of a trace
EVALUATION_SEED = 10_000  # training draws its seeds otherwise

Measure: TypeAlias = Callable[[DQNAgent], float]
"""Measures an agent without changing it."""


@dataclass(frozen=True)
class DQNArm:
    """Trains an agent with `nexus.training.loop` and measures it at 20 points.

    Args:
        env: the environment.
        settings: those of `TrainConfig` that differ from its defaults.
        measuring: makes the measure; what it opens is closed with the stack.
        patch: replaces a part before the training begins.
    """

    env: EnvSource
    settings: Mapping[str, Any]
    measuring: Callable[[ExitStack], Measure]
    patch: Callable[[Parts], None] | None = None

    def __call__(self, seed: int, steps: int) -> Trace:
        """Return the measure over `steps` steps of training."""
        at = measured_at(steps)
        config = TrainConfig.from_mapping({**self.settings, "seed": seed, "total_steps": steps})
        with ExitStack() as stack:
            parts, measure = Parts(self.env, config, stack), self.measuring(stack)
            if self.patch is not None:
                self.patch(parts)
            values: list[float] = []
            agent = parts.agent
            for progress in train(
                parts.stream, agent.policy, agent.learner, parts.learned_from, config, parts.counters
            ):
                while len(values) < len(at) and progress.counters.steps >= at[len(values)]:
                    values.append(measure(agent))
        return Trace(at, np.array(values))


def measured_at(steps: int) -> Ints:
    """Return the steps at which an arm is measured: `[K]`, evenly spaced, the last one included."""
    return np.unique(np.linspace(0, steps, POINTS + 1).round().astype(np.int64)[1:])


def played(env: EnvSource, episodes: int, stack: ExitStack) -> Measure:
    """Return a measure: the mean return of greedy episodes, the same ones each time."""
    spec = EnvSpec(env)
    envs = make_vector_env(spec, episodes)
    stack.callback(close_env, envs)
    return partial(mean_return, spec, envs, episodes)


def mean_return(spec: EnvSpec, envs: VectorEnv[Any, Any, Any], episodes: int, agent: DQNAgent) -> float:
    """Return the mean return of greedy episodes."""
    return evaluate_policy(agent, spec, episodes, seed=EVALUATION_SEED, vector_env=envs).mean
