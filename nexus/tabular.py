"""Q* of environments small enough for a table, the reference that the agents are tested against.

Value iteration after Bellman 1957, Q-learning after Watkins and Dayan 1992 (https://doi.org/10.1007/BF00992698).
Shapes: `S` states, `A` actions.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from nexus.core.errors import ConfigError
from nexus.core.seeding import generator, seed_of
from nexus.core.types import Floats

__all__ = ["TransitionTable", "q_learning", "transition_table", "value_iteration"]

TabularEnv = gym.Env[Any, Any]


class TransitionTable(NamedTuple):
    """An environment as a table. Terminal transitions have no successor, so a row may sum to less than 1."""

    probabilities: Floats  # [S, A, S], of continuing from s' after a in s; the rest up to 1 terminates
    rewards: Floats  # [S, A], mean reward of a in s, including terminal steps


def transition_table(env: TabularEnv) -> TransitionTable:
    """Read `env.unwrapped.P`, which FrozenLake, Taxi and CliffWalking have.

    Time limits are not part of the table: they truncate, and a truncated state keeps its value.

    Raises:
        ConfigError: the environment has no such table, or its states or actions are not numbered from 0.
    """
    state_dim, action_dim = table_shape(env)
    table = getattr(env.unwrapped, "P", None)
    if table is None:
        raise ConfigError(f"{tabular_name(env)} has no transition table: needs env.unwrapped.P, as FrozenLake-v1 has")
    probabilities = np.zeros((state_dim, action_dim, state_dim))
    rewards = np.zeros((state_dim, action_dim))
    for state in range(state_dim):
        for action in range(action_dim):
            outcomes: Iterable[tuple[float, int, float, bool]] = table[state][action]
            for probability, next_state, reward, terminated in outcomes:  # the same s' may occur more than once
                rewards[state, action] += probability * reward
                probabilities[state, action, next_state] += probability * (not terminated)
    return TransitionTable(probabilities, rewards)


def value_iteration(env: TabularEnv, gamma: float, tolerance: float = 1e-8) -> Floats:
    """Apply Q(s, a) ← E[r + γ max_a' Q(s', a')] to all states at once until it converges to Q*.

    Each sweep contracts the distance to Q* by the factor γ, so the last change bounds the remaining error.

    Args:
        env: an environment with a table.
        gamma: discount factor γ, below 1.
        tolerance: largest allowed error of any entry.

    Returns:
        `[S, A]`.

    Raises:
        ConfigError: there is no table, or an argument is out of range.
    """
    require(0 <= gamma < 1, f"gamma = {gamma}: needs a discount in [0, 1), or the sweeps may never end")
    require(tolerance > 0, f"tolerance = {tolerance}: needs a distance above 0")
    probabilities, rewards = transition_table(env)
    q_values: Floats = np.zeros_like(rewards)
    change = np.inf
    while True:
        better: Floats = rewards + gamma * probabilities @ q_values.max(1)
        last, change = change, float(np.abs(better - q_values).max())
        q_values = better
        if change * gamma <= tolerance * (1 - gamma) or change >= last:  # the latter: only rounding remains
            return q_values


def q_learning(
    env: TabularEnv, episodes: int, gamma: float = 0.99, alpha: float = 0.5, epsilon: float = 0.1, seed: int = 0
) -> Floats:
    """Learn Q(s, a) ← Q(s, a) + α (r + γ max_a' Q(s', a') - Q(s, a)) from ε-greedy experience.

    A time limit keeps the bootstrap; only a termination drops it. Ties are broken at random: while all values
    are equal, always taking the first action would explore little. α is constant, so with random outcomes the
    values keep fluctuating around Q*.

    Args:
        env: any environment with discrete states and actions whose episodes end.
        episodes: number of episodes to play.
        gamma: discount factor γ.
        alpha: step size α.
        epsilon: probability ε of a random action.
        seed: seed of the environment and of the exploration.

    Returns:
        `[S, A]`.

    Raises:
        ConfigError: states or actions are not numbered from 0, or an argument is out of range.
    """
    require(episodes >= 1, f"episodes = {episodes}: needs at least 1")
    require(0 <= gamma <= 1, f"gamma = {gamma}: needs a discount in [0, 1]")
    require(0 < alpha <= 1, f"alpha = {alpha}: needs a step size in (0, 1]")
    require(0 <= epsilon <= 1, f"epsilon = {epsilon}: needs a probability in [0, 1]")
    q_values = np.zeros(table_shape(env))
    rng = generator(seed, "exploration")
    first_seed = seed_of(seed, "environments")
    for episode in range(episodes):
        state, _ = env.reset(seed=first_seed if episode == 0 else None)
        ended = False
        while not ended:
            action = epsilon_greedy_action(q_values[state], epsilon, rng)
            next_state, reward, terminated, truncated, _ = env.step(action)
            target = float(reward) + (0.0 if terminated else gamma * q_values[next_state].max())
            q_values[state, action] += alpha * (target - q_values[state, action])
            state, ended = next_state, terminated or truncated
    return q_values


def epsilon_greedy_action(q_values: Floats, epsilon: float, rng: np.random.Generator) -> int:
    """Return one action for values `[A]`: a random one with probability ε, else one of the best."""
    if rng.random() < epsilon:
        return int(rng.integers(len(q_values)))
    return int(rng.choice(np.flatnonzero(q_values == q_values.max())))


def table_shape(env: TabularEnv) -> tuple[int, int]:
    """Return the numbers of states and actions.

    Raises:
        ConfigError: they are not numbered from 0.
    """
    return space_size(env, "states", env.observation_space), space_size(env, "actions", env.action_space)


def space_size(env: TabularEnv, kind: str, space: spaces.Space[Any]) -> int:
    """Return the number of elements of a space."""
    if not isinstance(space, spaces.Discrete) or space.start != 0:
        raise ConfigError(f"{tabular_name(env)} has {kind} {space}: a table needs Discrete ones that start at 0")
    return int(space.n)


def tabular_name(env: TabularEnv) -> str:
    """Return the id, or the name of the class."""
    return type(env.unwrapped).__name__ if env.spec is None else env.spec.id


def require(possible: bool, message: str) -> None:
    """Raise `ConfigError` unless `possible`."""
    if not possible:
        raise ConfigError(message)
