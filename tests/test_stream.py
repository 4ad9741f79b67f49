"""Autoreset: whatever a vector environment does at an end, the stream gives the steps that truly happened."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import accumulate, cycle, islice, takewhile
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

from nexus.core.types import Array
from nexus.data.n_step import NStepAccumulator
from nexus.data.replay_buffer import ReplayBuffer
from nexus.envs.episodes import episode_seed
from nexus.envs.factory import EnvSpec, make_env, make_vector_env
from nexus.envs.stream import Step, TransitionStream

LENGTHS = ((3, 1, 4), (5,), (1,), (2, 7))  # of the episodes of each environment, over and over
STEPS = 40
GAMMA = 0.5


class Counting(gym.Env[Any, Any]):
    """Its state is (environment, episode, step); episodes end in turn by termination and by truncation."""

    def __init__(self, name: int) -> None:
        self.observation_space = spaces.Box(0, 1_000, (3,), np.float64)
        self.action_space = spaces.Discrete(1_000)
        self.name = name
        self.episode = -1
        self.steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        self.episode += 1
        self.steps = 0
        return self.state(), {}

    def step(self, action: Any) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        lengths = LENGTHS[self.name]
        self.steps += 1
        ended = self.steps >= lengths[self.episode % len(lengths)]
        by_termination = self.episode % 2 == 0
        return self.state(), float(self.steps), ended and by_termination, ended and not by_termination, {}

    def state(self) -> Array:
        return np.array([self.name, self.episode, self.steps], np.float64)


class Row(NamedTuple):
    """One step of one environment."""

    episode: int
    step: int
    reward: float
    next_episode: int
    next_step: int
    terminated: bool
    truncated: bool


def truth(name: int) -> Iterator[Row]:
    """Every step of an environment, in order, without end."""
    for episode, length in enumerate(cycle(LENGTHS[name])):
        for step in range(length):
            ended, by_termination = step + 1 == length, episode % 2 == 0
            yield Row(
                episode,
                step,
                step + 1.0,
                episode,
                step + 1,
                ended and by_termination,
                ended and not by_termination,
            )


def makers() -> list[Callable[[], gym.Env[Any, Any]]]:
    return [partial(Counting, name) for name in range(len(LENGTHS))]


def run(vector: VectorEnv[Any, Any, Any], steps: int = STEPS) -> list[Step]:
    """Step with actions that tell the time."""
    stream = TransitionStream(vector)
    stream.reset(seed=0)
    found = [stream.step(np.full(stream.num_envs, time)) for time in range(steps)]
    vector.close()
    return found


def valid_rows(steps: list[Step], name: int) -> list[Row]:
    """The rows of one environment that count; its states must be its own."""
    rows = []
    for step in steps:
        if not step.valid[name]:
            continue
        state, after = step.states[name], step.next_states[name]
        assert state[0] == after[0] == name
        rows.append(
            Row(
                int(state[1]),
                int(state[2]),
                float(step.rewards[name]),
                int(after[1]),
                int(after[2]),
                bool(step.terminated[name]),
                bool(step.truncated[name]),
            )
        )
    return rows


def phantoms(mode: AutoresetMode, name: int) -> int:
    """How many of `STEPS` calls an environment spends on resetting itself."""
    if mode is not AutoresetMode.NEXT_STEP:
        return 0
    calls = accumulate(length + 1 for length in cycle(LENGTHS[name]))  # each episode, then its reset
    return sum(1 for _ in takewhile(lambda taken: taken <= STEPS, calls))


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_every_valid_row_is_a_true_step_and_none_is_missing(mode: AutoresetMode) -> None:
    steps = run(SyncVectorEnv(makers(), autoreset_mode=mode))
    for name in range(len(LENGTHS)):
        rows = valid_rows(steps, name)
        assert len(rows) == STEPS - phantoms(mode, name)
        assert rows == list(islice(truth(name), len(rows)))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # how Linux starts the processes before 3.14
def test_environments_in_processes_of_their_own_give_the_same_rows() -> None:
    steps = run(AsyncVectorEnv(makers(), autoreset_mode=AutoresetMode.SAME_STEP))
    for name in range(len(LENGTHS)):
        assert valid_rows(steps, name) == list(islice(truth(name), STEPS))


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_no_row_changes_after_it_was_given(mode: AutoresetMode) -> None:
    stream = TransitionStream(SyncVectorEnv(makers(), autoreset_mode=mode))
    stream.reset(seed=0)
    kept: list[tuple[Step, list[Array]]] = []
    for time in range(12):
        step = stream.step(np.full(4, time))
        kept.append((step, [step.states.copy(), step.next_states.copy(), step.rewards.copy(), step.valid.copy()]))
    for step, copies in kept:
        for now, then in zip((step.states, step.next_states, step.rewards, step.valid), copies, strict=True):
            np.testing.assert_array_equal(now, then)


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_the_action_stored_is_the_action_taken(mode: AutoresetMode) -> None:
    steps = run(SyncVectorEnv(makers(), autoreset_mode=mode))
    assert [step.actions.tolist() for step in steps] == [[time] * 4 for time in range(STEPS)]


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_a_reset_in_the_middle_of_an_episode_starts_cleanly(mode: AutoresetMode) -> None:
    vector = SyncVectorEnv(makers(), autoreset_mode=mode)
    stream = TransitionStream(vector)
    stream.reset(seed=0)
    while not (step := stream.step(np.zeros(4, np.int64))).terminated.all():
        if step.terminated.any():
            break  # some environments are now about to reset themselves, others are in mid-episode
    stream.reset(seed=1)
    after = stream.step(np.zeros(4, np.int64))
    assert after.valid.all()
    assert after.states[:, 2].tolist() == [0] * 4
    assert after.next_states[:, 2].tolist() == [1] * 4
    np.testing.assert_array_equal(after.states[:, 1], after.next_states[:, 1])


# --- the whole path: stream -> accumulator -> replay ---


class Stored(NamedTuple):
    """One folded transition in the replay."""

    env: int
    episode: int
    step: int
    next_episode: int
    next_step: int
    reward: float
    discount: float


def folded_truth(name: int, count: int, n: int) -> Iterator[Stored]:
    """The folded transitions that the first `count` steps of an environment complete."""
    rows = list(islice(truth(name), count))
    for i, first in enumerate(rows):
        window = [row for row in rows[i : i + n] if row.episode == first.episode]
        last = window[-1]
        if len(window) < n and not (last.terminated or last.truncated):
            continue  # still open
        reward = sum(GAMMA**k * row.reward for k, row in enumerate(window))
        discount = 0.0 if last.terminated else GAMMA ** len(window)
        yield Stored(name, first.episode, first.step, last.next_episode, last.next_step, reward, discount)


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("n", [1, 3])
def test_the_replay_holds_every_true_window_once_and_nothing_else(mode: AutoresetMode, n: int) -> None:
    accumulator = NStepAccumulator(len(LENGTHS), n, GAMMA)
    replay = ReplayBuffer(1_000)
    steps = run(SyncVectorEnv(makers(), autoreset_mode=mode))
    for step in steps:
        replay.add(
            accumulator.push(
                step.states,
                step.actions,
                step.rewards,
                step.next_states,
                step.terminated,
                step.truncated,
                step.valid,
            )
        )
    # Every row's discount, by way of a batch; 4,000 draws of at most 160 rows leave none out.
    batch = replay.sample(4_000)
    discounts = dict(zip(batch["indices"].tolist(), batch["discounts"].tolist(), strict=True))
    stored = [
        Stored(int(s[0]), int(s[1]), int(s[2]), int(after[1]), int(after[2]), reward, discounts[index])
        for index, (s, _, reward, after, _) in enumerate(replay.buffer)
    ]
    expected = [
        row
        for name in range(len(LENGTHS))
        for row in folded_truth(name, sum(bool(step.valid[name]) for step in steps), n)
    ]
    assert sorted(stored) == sorted(expected)


# --- CartPole's own vector form ---


def balancing(states: Array) -> Array:
    """A hand-made policy that keeps the pole up without end."""
    lean: Array = states @ np.array([0.1, 0.3, 3.0, 1.0])
    return (lean > 0).astype(np.int64)


def test_cartpole_is_stepped_in_its_own_vector_form() -> None:
    assert isinstance(make_vector_env(EnvSpec("CartPole-v1"), 2).unwrapped, CartPoleVectorEnv)


def test_cartpoles_vector_form_steps_as_its_scalar_form() -> None:
    vector = make_vector_env(EnvSpec("CartPole-v1"), 4)
    inner: Any = vector.unwrapped
    scalar: Any = make_env(EnvSpec("CartPole-v1")).unwrapped
    scalar.reset(seed=0)
    stream = TransitionStream(vector)
    stream.reset(seed=0)
    rng = np.random.default_rng(0)
    ends = compared = 0
    for _ in range(150):
        before, actions = inner.state.T.copy(), rng.integers(2, size=4)
        step = stream.step(actions)
        for env in np.flatnonzero(step.valid):
            scalar.state, scalar.steps_beyond_terminated = tuple(before[env]), None
            observation, reward, terminated, truncated, _ = scalar.step(int(actions[env]))
            np.testing.assert_allclose(step.next_states[env], observation, rtol=1e-6)
            assert (step.rewards[env], step.terminated[env]) == (reward, terminated)
            assert not truncated
            compared += 1
        ends += int(step.terminated.sum())
    assert ends > 10
    assert compared == 150 * 4


def test_a_pole_of_many_is_the_pole_alone_with_the_same_seeds() -> None:
    """Gymnasium's own CartPole-v1, reset with each episode's seed, gives the very numbers of the vector form."""
    stream = TransitionStream(make_vector_env(EnvSpec("CartPole-v1"), 3))
    stream.reset(seed=5)
    alone = [make_env(EnvSpec("CartPole-v1")) for _ in range(3)]
    shown = [alone[pole].reset(seed=episode_seed(5, pole))[0] for pole in range(3)]
    episodes = [0, 0, 0]
    rng = np.random.default_rng(0)
    for _ in range(300):
        np.testing.assert_allclose(stream.states, shown, rtol=1e-6)
        actions = rng.integers(2, size=3)
        step = stream.step(actions)
        for pole in range(3):
            shown[pole], _, terminated, _, _ = alone[pole].step(int(actions[pole]))
            np.testing.assert_allclose(step.next_states[pole], shown[pole], rtol=1e-6)
            assert step.terminated[pole] == terminated
            if terminated:
                episodes[pole] += 1
                shown[pole], _ = alone[pole].reset(seed=episode_seed(5, 3 * episodes[pole] + pole))
    assert min(episodes) > 5


@pytest.mark.parametrize("vectorization", ["auto", "sync"])
def test_cartpole_is_cut_at_exactly_500_steps_in_every_episode(vectorization: Any) -> None:
    stream = TransitionStream(make_vector_env(EnvSpec("CartPole-v1"), 2, vectorization))
    states = stream.reset(seed=0)
    length, lengths = np.zeros(2, np.int64), []
    for _ in range(1_002):
        step = stream.step(balancing(states))
        states = stream.states
        length += step.valid
        done = step.terminated | step.truncated
        assert not step.terminated.any()
        assert step.rewards[step.valid].tolist() == [1.0] * int(step.valid.sum())
        lengths += length[done].tolist()
        length[done] = 0
    assert lengths == [500] * 4


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_a_vector_that_writes_into_the_same_array_again_is_copied(mode: AutoresetMode) -> None:
    steps = run(SyncVectorEnv(makers(), copy=False, autoreset_mode=mode))
    for name in range(len(LENGTHS)):
        rows = valid_rows(steps, name)
        assert rows == list(islice(truth(name), len(rows)))
