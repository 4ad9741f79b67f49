"""Tables: hand-computed values, values against another way of computing them, and agents against tables."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from numpy.typing import NDArray

from nexus.core import ConfigError
from nexus.tabular import q_learning, transition_table, value_iteration
from tests.training import short_run

GAMMA = 0.9
Floats = NDArray[np.float64]
Outcomes = list[tuple[float, int, float, bool]]


class Tabled(gym.Env[Any, Any]):
    """Two states. In 0, action 0 stays for 1, action 1 goes to 1 half of the time and ends for 4 the other half,
    which is listed in two parts. In 1, action 0 goes back for 2 and action 1 ends for 10 in the state 0.
    """

    observation_space: spaces.Space[Any] = spaces.Discrete(2)
    action_space: spaces.Space[Any] = spaces.Discrete(2)

    def __init__(self) -> None:
        self.P: dict[int, dict[int, Outcomes]] = {
            0: {0: [(1.0, 0, 1.0, False)], 1: [(0.5, 1, 0.0, False), (0.25, 1, 4.0, True), (0.25, 1, 4.0, True)]},
            1: {0: [(1.0, 0, 2.0, False)], 1: [(1.0, 0, 10.0, True)]},
        }


class Cut(gym.Env[Any, Any]):
    """One state that pays 1; each episode is truncated after three steps, or terminates after its first."""

    observation_space = spaces.Discrete(1)
    action_space = spaces.Discrete(1)

    def __init__(self, terminates: bool = False) -> None:
        self.terminates = terminates

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return 0, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        return 0, 1.0, self.terminates, self.steps == 3, {}


def newest(name: str) -> str:
    """The id of the newest version: gymnasium takes old ones away."""
    return max(key for key in gym.registry if key.startswith(f"{name}-v"))


def frozen_lake(slippery: bool = False) -> gym.Env[Any, Any]:
    return gym.make("FrozenLake-v1", is_slippery=slippery)


def value_of_policy(env: gym.Env[Any, Any], policy: NDArray[np.int64], gamma: float) -> Floats:
    """V of a policy `[S]` by solving its linear equations, from the environment's own lists."""
    table: dict[int, dict[int, Outcomes]] = env.unwrapped.P  # type: ignore[attr-defined]
    size = len(policy)
    matrix, constant = np.eye(size), np.zeros(size)
    for state in range(size):
        for probability, next_state, reward, terminated in table[state][int(policy[state])]:
            constant[state] += probability * reward
            if not terminated:
                matrix[state, next_state] -= gamma * probability
    return np.asarray(np.linalg.solve(matrix, constant), float)


def greedy_path(env: gym.Env[Any, Any], q_star: Floats) -> list[int]:
    """The states that a best policy visits."""
    state, _ = env.reset(seed=0)
    path, ended = [state], False
    while not ended:
        state, _, terminated, truncated, _ = env.step(int(q_star[state].argmax()))
        ended = terminated or truncated
        path.append(state)
    return path[:-1]


def test_the_table_drops_what_terminates_and_adds_up_what_is_listed_twice() -> None:
    probabilities, rewards = transition_table(Tabled())
    np.testing.assert_array_equal(rewards, [[1, 2], [2, 10]])
    np.testing.assert_array_equal(probabilities[0], [[1, 0], [0, 0.5]])
    np.testing.assert_array_equal(probabilities[1], [[1, 0], [0, 0]])


def test_value_iteration_by_hand() -> None:
    """V(1) = 10 by ending; from 0: staying for ever is worth 1 / (1 - γ) = 2 with γ = ½, going 2 + ½ · ½ · 10 = 4.5.

    So Q*(0, 0) = 1 + ½ · 4.5 and Q*(1, 0) = 2 + ½ · 4.5. With the bootstrap kept after a termination Q*(1, 1)
    would be 12.25.
    """
    np.testing.assert_allclose(value_iteration(Tabled(), 0.5, 1e-10), [[3.25, 4.5], [4.25, 10]], atol=1e-10)
    np.testing.assert_allclose(value_iteration(Tabled(), 0.0), [[1, 2], [2, 10]])


@pytest.mark.parametrize("tolerance", [1.0, 1e-2, 1e-6])
def test_value_iteration_is_as_close_as_asked(tolerance: float) -> None:
    env = frozen_lake(slippery=True)
    error = np.abs(value_iteration(env, 0.99, tolerance) - value_iteration(env, 0.99, 1e-12)).max()
    assert error <= tolerance


def test_value_iteration_ends_where_only_rounding_is_left() -> None:
    np.testing.assert_allclose(value_iteration(Tabled(), 0.999, 1e-300)[0, 0], 1000, rtol=1e-9)


def test_the_start_of_deterministic_frozen_lake_is_six_steps_from_the_goal() -> None:
    q_star = value_iteration(frozen_lake(), GAMMA)
    assert q_star[0].max() == pytest.approx(GAMMA**5)
    assert q_star[14, 2] == pytest.approx(1.0)  # the step onto the goal
    assert q_star[15].max() == 0  # the goal itself
    assert q_star[0, 0] == pytest.approx(GAMMA**6)  # against the wall, and then the same way


@pytest.mark.parametrize(
    "make",
    [
        lambda: frozen_lake(slippery=True),
        lambda: gym.make(newest("Taxi")),
        lambda: gym.make(newest("CliffWalking")),
    ],
    ids=["slippery FrozenLake", "Taxi", "CliffWalking"],
)
def test_the_greedy_policy_is_worth_what_value_iteration_says_and_no_change_of_it_more(make: Any) -> None:
    env, gamma = make(), 0.97
    q_star = value_iteration(env, gamma, 1e-10)
    policy = q_star.argmax(1)
    values = value_of_policy(env, policy, gamma)
    np.testing.assert_allclose(values, q_star.max(1), atol=1e-8)
    rng = np.random.default_rng(0)
    for _ in range(5):  # Q* is of the best policy: one that differs in some states is nowhere better
        other = np.where(rng.random(len(policy)) < 0.2, rng.integers(q_star.shape[1], size=len(policy)), policy)
        assert (value_of_policy(env, other, gamma) <= values + 1e-8).all()


def test_the_start_of_cliff_walking_is_thirteen_steps_from_the_goal() -> None:
    q_star = value_iteration(gym.make(newest("CliffWalking")), GAMMA)
    assert q_star[36].max() == pytest.approx(-(1 - GAMMA**13) / (1 - GAMMA))
    assert q_star[36, 1] == pytest.approx(-100 + GAMMA * q_star[36].max())  # over the edge and back to the start


@pytest.mark.parametrize(
    ("make", "episodes"),
    [(frozen_lake, 3_000), (lambda: gym.make(newest("CliffWalking")), 800)],
    ids=["FrozenLake", "CliffWalking"],
)
def test_q_learning_converges_where_a_best_policy_goes(make: Any, episodes: int) -> None:
    env = make()
    q_star = value_iteration(env, GAMMA)
    learned = q_learning(env, episodes, gamma=GAMMA, alpha=0.5, epsilon=0.3, seed=0)
    path = greedy_path(env, q_star)
    assert len(path) >= 6
    np.testing.assert_allclose(learned[path].max(1), q_star[path].max(1), atol=1e-3)
    assert len(greedy_path(env, learned)) == len(path)


def test_q_learning_keeps_the_future_of_a_truncated_episode() -> None:
    np.testing.assert_allclose(q_learning(Cut(), episodes=200, gamma=0.8), 5.0, atol=1e-6)
    np.testing.assert_allclose(q_learning(Cut(terminates=True), episodes=200, gamma=0.8), 1.0, atol=1e-6)


def test_q_learning_is_a_function_of_its_seed() -> None:
    first, again, other = (q_learning(frozen_lake(slippery=True), 200, seed=seed, epsilon=0.5) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_an_environment_without_a_table_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="CartPole-v1 has states"):
        transition_table(gym.make("CartPole-v1"))
    with pytest.raises(ConfigError, match="Cut has no transition table"):
        value_iteration(Cut(), GAMMA)
    shifted = Tabled()
    shifted.action_space = spaces.Discrete(2, start=1)
    with pytest.raises(ConfigError, match="start at 0"):
        transition_table(shifted)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("episodes", 0), ("gamma", 1.1), ("alpha", 0.0), ("epsilon", -0.1)],
)
def test_impossible_numbers_of_q_learning_are_refused(setting: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{setting} = {value}"):
        q_learning(Cut(), **{"episodes": 1, setting: value})  # type: ignore[arg-type]


def test_impossible_numbers_of_value_iteration_are_refused() -> None:
    with pytest.raises(ConfigError, match="gamma = 1"):
        value_iteration(Tabled(), 1.0)
    with pytest.raises(ConfigError, match="tolerance = 0"):
        value_iteration(Tabled(), GAMMA, 0.0)


def test_dqn_finds_the_table_along_the_best_path(tmp_path: Path) -> None:
    result = short_run(
        frozen_lake,
        tmp_path,
        total_steps=12_000,
        hidden_dim=32,
        learning_rate=0.002,
        gamma=GAMMA,
        epsilon_min=0.2,
        epsilon_steps=8_000,
        target_update_every="20 updates",
        eval_episodes=1,
    )
    q_star = value_iteration(frozen_lake(), GAMMA)
    path = greedy_path(frozen_lake(), q_star)
    assert len(path) == 6
    with torch.no_grad():
        learned = result.agent.q_network(np.eye(16, dtype=np.float32)[path]).numpy()
    np.testing.assert_allclose(learned.max(1), q_star[path].max(1), atol=0.06)
