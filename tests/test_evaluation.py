"""Evaluation: the right number of full episodes, no bias towards short ones, an honest interval."""

from typing import Any, SupportsInt

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from nexus.core.types import Array
from nexus.envs.factory import EnvSpec
from nexus.training.evaluation import evaluate_policy
from nexus.training.statistics import bootstrap_interval, interquartile_mean

rng = np.random.default_rng(0)


class ShortOrLong(gym.Env[Array, SupportsInt]):
    """Episodes of 1 to 9 steps, each equally likely; a step pays 1. The mean return is 5."""

    observation_space = spaces.Box(0, 10, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        super().reset(seed=seed)
        self.left = int(self.np_random.integers(1, 10))
        return np.zeros(1, np.float32), {}

    def step(self, action: SupportsInt) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        self.left -= 1
        return np.zeros(1, np.float32), 1.0, self.left == 0, False, {}


class Endless(ShortOrLong):
    """Never ends."""

    def step(self, action: SupportsInt) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        return np.zeros(1, np.float32), 1.0, False, False, {}


class Zero:
    """Always takes action 0 and remembers with which ε it was asked."""

    def __init__(self) -> None:
        self.epsilons: set[float] = set()

    def act(self, states: Array, epsilon: float, training: bool, action_masks: Array | None) -> Array:
        assert not training
        self.epsilons.add(epsilon)
        return np.zeros(len(states), np.int64)


@pytest.mark.parametrize("episodes", [1, 7, 100, 101, 250])
def test_it_plays_exactly_as_many_episodes_as_asked(episodes: int) -> None:
    result = evaluate_policy(Zero(), EnvSpec(ShortOrLong), episodes)
    assert result.episodes == len(result.returns) == result.protocol.episodes == episodes


def test_short_episodes_are_not_counted_more_often() -> None:
    result = evaluate_policy(Zero(), EnvSpec(ShortOrLong), 2_000)
    assert result.mean == pytest.approx(5.0, abs=0.3)  # counting whoever ends first would give about 3.2
    assert result.mean_length == result.mean


class Upward(ShortOrLong):
    """Ten times as long; action 1 pays."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        given = super().reset(seed=seed)
        self.left *= 10
        return given

    def step(self, action: SupportsInt) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        state, _, *ended = super().step(action)
        return state, float(int(action)), *ended  # type: ignore[return-value]


def test_the_policy_is_greedy_unless_asked_otherwise() -> None:
    agent = Zero()
    greedy = evaluate_policy(agent, EnvSpec(Upward), 50)
    assert greedy.protocol.epsilon == 0.0
    assert greedy.returns == [0.0] * 50
    some = evaluate_policy(agent, EnvSpec(Upward), 50, epsilon=0.5)
    assert some.protocol.epsilon == 0.5
    assert some.mean / some.mean_length == pytest.approx(0.25, abs=0.08)  # half at random, half of those action 1
    assert agent.epsilons == {0.0}  # the coins are the evaluation's


def test_the_same_seed_plays_the_same_episodes() -> None:
    first, again = (evaluate_policy(Zero(), EnvSpec(ShortOrLong), 40, seed=3).returns for _ in range(2))
    other = evaluate_policy(Zero(), EnvSpec(ShortOrLong), 40, seed=4).returns
    assert first == again != other


@pytest.mark.parametrize("epsilon", [0.0, 0.3])
def test_it_does_not_matter_how_many_play_or_how_they_are_stepped(epsilon: float) -> None:
    one, few, many = (
        evaluate_policy(Zero(), EnvSpec(Upward), 20, epsilon=epsilon, seed=3, num_envs=count) for count in (1, 7, 20)
    )
    assert one == few == many
    assert len(set(one.returns)) > (1 if epsilon else 0)


def test_the_same_episodes_are_played_in_this_process_and_in_others() -> None:
    agent = Zero()
    here, there = (
        evaluate_policy(agent, EnvSpec("CartPole-v1"), 5, num_envs=2, vectorization=how) for how in ("sync", "async")
    )
    assert here == there == evaluate_policy(agent, EnvSpec("CartPole-v1"), 5)  # the vector form of its own


@pytest.mark.parametrize("num_envs", [1, 4, 6])
def test_an_endless_episode_is_cut_and_counted_once(num_envs: int) -> None:
    result = evaluate_policy(Zero(), EnvSpec(Endless), 6, max_episode_steps=50, num_envs=num_envs)
    assert result.returns == [50.0] * 6


def test_a_cut_episode_does_not_end_its_environment() -> None:
    result = evaluate_policy(Zero(), EnvSpec(ShortOrLong), 200, max_episode_steps=6, num_envs=3)
    assert result.episodes == len(result.returns) == 200
    assert max(result.returns) == 6
    assert result.mean == pytest.approx((1 + 2 + 3 + 4 + 5 + 6 * 4) / 9, abs=0.4)


def test_whoever_watches_sees_each_step_and_may_end_it() -> None:
    seen: list[tuple[int, int]] = []
    evaluate_policy(Zero(), EnvSpec(Endless), 4, max_episode_steps=3, num_envs=2, watch=lambda *now: seen.append(now))
    assert seen == [(1, 0), (2, 0), (3, 2), (4, 2), (5, 2), (6, 4)]

    def enough(steps: int, ended: int) -> None:
        raise KeyError(steps)

    with pytest.raises(KeyError, match="1"):
        evaluate_policy(Zero(), EnvSpec(Endless), 4, watch=enough)


def test_cartpole_in_its_own_vector_form_counts_no_reset_row() -> None:
    result = evaluate_policy(Zero(), EnvSpec("CartPole-v1"), 150)
    assert result.mean == result.mean_length  # a reward of 1 a step, nothing for a row that only resets
    assert 8 <= min(result.returns) <= max(result.returns) <= 12  # always pushing left falls in about ten steps


def test_the_interval_covers_the_mean_about_as_often_as_it_says() -> None:
    covered = 0
    for _ in range(200):
        low, high = bootstrap_interval(rng.exponential(size=100), resamples=500)
        covered += bool(low <= 1.0 <= high)
    assert 0.87 <= covered / 200 <= 0.99


def test_the_interval_of_equal_values_has_no_width() -> None:
    assert np.allclose(bootstrap_interval([2.0] * 10), 2.0)


def test_the_interquartile_mean_is_that_of_the_middle_half() -> None:
    assert interquartile_mean([100.0, 3.0, 1.0, 2.0]) == pytest.approx(2.5)  # the quarters at both ends are gone
    assert interquartile_mean([0.0, 30.0, 90.0]) == pytest.approx((0 * 0.25 + 30 + 90 * 0.25) / 1.5)
    assert interquartile_mean([7.0]) == pytest.approx(7.0)
    assert interquartile_mean(np.arange(8.0)) == pytest.approx(3.5)
