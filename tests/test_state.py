"""What has state gives it and takes it back; a twin that got it goes on bit for bit."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nexus.core.errors import RunError
from nexus.core.state import State
from nexus.core.types import Transitions
from nexus.data.n_step import NStepAccumulator
from nexus.data.prioritized_replay_buffer import PrioritizedReplayBuffer
from nexus.data.replay_buffer import ReplayBuffer
from nexus.data.sum_tree import SumTree
from nexus.models.rl.dqn.agent import DQNAgent
from nexus.models.rl.dqn.rainbow import ALGORITHMS, make_agent
from tests.rollouts import with_returns


def rows(count: int, seed: int = 0) -> Transitions:
    rng = np.random.default_rng(seed)
    return Transitions(
        states=rng.normal(size=(count, 3)).astype(np.float32),
        actions=rng.integers(2, size=count),
        rewards=rng.normal(size=count).astype(np.float32),
        discounts=np.full(count, 0.9, np.float32),
        next_states=rng.normal(size=(count, 3)).astype(np.float32),
    )


def agent_of(algorithm: str, **config: Any) -> DQNAgent:
    return make_agent(algorithm, state_dim=3, action_dim=2, hidden_dim=8, **config)


def go_on(agent: DQNAgent, replay: ReplayBuffer | PrioritizedReplayBuffer, count: int = 5) -> None:
    for at in range(count):
        replay.add(rows(2, seed=at))
        batch = replay.sample(4)
        replay.update_priorities(batch["indices"], agent.learn(with_returns(batch)).priorities)
        agent.act(np.ones((3, 3), np.float32), 0.5)
    agent.update_target_network()


def through_json(state: State) -> State:
    """As a checkpoint keeps it: arrays apart, the rest by way of text."""
    arrays = {name: value for name, value in state.items() if isinstance(value, np.ndarray)}
    plain = {name: value for name, value in state.items() if name not in arrays}
    return {**arrays, **json.loads(json.dumps(plain))}


def same(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_twin_of_an_agent_goes_on_bit_for_bit(algorithm: str) -> None:
    agent, replay = agent_of(algorithm), PrioritizedReplayBuffer(3_000, 1)  # so that its tree has two levels
    replay.add(rows(200))
    go_on(agent, replay)
    state, of_replay = through_json(agent.get_state()), through_json(replay.get_state())
    stored = replay.rows(0, replay.added)
    go_on(agent, replay)
    twin, twin_replay = agent_of(algorithm, seed=9), PrioritizedReplayBuffer(3_000, 9)
    go_on(twin, twin_replay, 2)  # so that it differs in everything
    twin.set_state(state)
    twin_replay.set_state(of_replay)
    twin_replay.set_rows(0, stored)
    go_on(twin, twin_replay)
    assert same(twin.get_state(), agent.get_state())
    assert same(twin_replay.get_state(), replay.get_state())


def test_a_state_is_a_copy() -> None:
    agent, replay = agent_of("rainbow"), ReplayBuffer(50)
    go_on(agent, replay)
    state = agent.get_state()
    before = {name: np.copy(value) for name, value in state.items() if isinstance(value, np.ndarray)}
    go_on(agent, replay)
    assert before
    assert all(np.array_equal(state[name], value) for name, value in before.items())
    assert not same(state, agent.get_state())


def test_an_agent_that_had_learned_nothing_has_no_moments_again() -> None:
    fresh, trained = agent_of("dqn"), agent_of("dqn")
    go_on(trained, ReplayBuffer(50))
    trained.set_state(through_json(fresh.get_state()))
    assert same(trained.get_state(), fresh.get_state())
    assert all(not moment.any() for moment in trained.optimizer.state[trained.learner.theta].values())


@pytest.mark.parametrize("added", [0, 3, 7, 8, 21])
def test_a_replay_comes_back_in_chunks_whether_it_has_wrapped_or_not(added: int) -> None:
    replay, twin = ReplayBuffer(8, 1), ReplayBuffer(8, 2)
    replay.add(rows(added))
    twin.set_state(through_json(replay.get_state()))
    first = max(0, added - 8)
    for start in range(first, added, 3):
        twin.set_rows(start, replay.rows(start, min(start + 3, added)))
    assert len(twin) == len(replay) == min(added, 8)
    replay.add(rows(2, seed=5))
    twin.add(rows(2, seed=5))
    for one, other in zip(replay.sample(20).values(), twin.sample(20).values(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("change", "needs"),
    [
        (lambda r: r | {"states": r["states"][:2]}, "actions"),
        (lambda r: r | {"states": r["states"].astype(np.float64), "evil": r["states"]}, "evil"),
        (lambda r: {name: values for name, values in r.items() if name != "rewards"}, "rewards"),
        (lambda r: r | {"rewards": r["rewards"][:, None]}, "rewards"),
    ],
)
def test_rows_that_do_not_fit_are_refused(change: Any, needs: str) -> None:
    replay = ReplayBuffer(8)
    replay.add(rows(4))
    with pytest.raises(RunError, match=needs):
        replay.set_rows(0, change(replay.rows(0, 4)))


def test_as_many_rows_as_the_capacity_come_back_at_once_and_more_are_refused() -> None:
    large, twin = ReplayBuffer(5), ReplayBuffer(4)
    large.add(rows(5))
    with pytest.raises(RunError, match="do not fit"):
        twin.set_rows(0, large.rows(0, 5))
    twin.set_rows(0, large.rows(1, 5))
    assert twin.columns["rewards"].tolist() == large.columns["rewards"][1:].tolist()


def test_masks_of_legal_actions_come_back_with_their_rows() -> None:
    replay, twin = ReplayBuffer(4), ReplayBuffer(4)
    for at in range(3):
        state, mask = np.full(3, at, np.float32), [at == 0, True]
        replay.push(state, 1, 0.0, state, False, action_masks=mask, next_action_masks=mask[::-1])
    twin.set_state(through_json(replay.get_state()))
    stored = replay.rows(0, 3)
    for name in ("action_masks", "next_action_masks"):
        with pytest.raises(RunError, match=f"{name} does not fit: bool of shape"):
            twin.set_rows(0, stored | {name: stored[name][:, 0]})
    twin.set_rows(0, stored)
    assert twin.columns["action_masks"][:3].tolist() == [[True, True], [False, True], [False, True]]
    assert twin.columns["next_action_masks"][:3].tolist() == [[True, True], [True, False], [True, False]]


def test_fewer_rows_than_none_are_no_state() -> None:
    state = ReplayBuffer(4).get_state()
    with pytest.raises(RunError, match="added = -1: needs 0 to"):
        ReplayBuffer(4).set_state(state | {"added": -1})


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40_000), st.integers(0, 2**32 - 1))
def test_the_sums_of_a_tree_follow_from_its_leaves_bit_for_bit(capacity: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    tree, twin = SumTree(capacity), SumTree(capacity)
    for size in rng.integers(1, capacity + 1, size=6):
        tree.set(rng.integers(capacity, size=size), rng.random(size) ** 3)
    for _ in range(20):
        tree.set(rng.integers(capacity, size=3), rng.random(3))
    twin.set(np.arange(capacity), tree.get(np.arange(capacity)))
    assert twin.total == tree.total
    for one, other in zip(tree._above, twin._above, strict=True):
        assert np.array_equal(one, other)
    assert np.array_equal(tree._running, twin._running)


@pytest.mark.parametrize("algorithm", ["rainbow", "iqn"])
def test_each_entry_of_an_agents_state_is_needed_and_checked(algorithm: str) -> None:
    agent = agent_of(algorithm)
    go_on(agent, ReplayBuffer(50))
    state = agent.get_state()
    for name in state:
        with pytest.raises(RunError, match=name.rpartition(".")[2]):
            agent.set_state({key: value for key, value in state.items() if key != name})
        with pytest.raises(RunError):
            agent.set_state(state | {name: "nonsense"})
        if isinstance(state[name], np.ndarray):
            with pytest.raises(RunError):
                agent.set_state(state | {name: state[name].reshape(-1)[:-1]})
        if isinstance(state[name], np.ndarray) and state[name].dtype.kind == "f":
            with pytest.raises(RunError, match="NaN"):
                agent.set_state(state | {name: np.full_like(state[name], np.nan)})
    agent.set_state(state)


def test_open_windows_leave_as_truncations_with_the_discount_of_their_true_length() -> None:
    fold = NStepAccumulator(num_envs=2, n=3, gamma=0.5)
    valid, no = np.ones(2, bool), np.zeros(2, bool)
    for at in range(2):
        state = np.array([[at], [10 + at]], np.float32)
        ended = np.array([False, at == 1])  # the second environment ends at the last step: nothing of it is open
        fold.push(state, np.zeros(2, int), np.array([1.0, 9.0]), state + 1, ended, no, valid)
    left = fold.flush(valid, np.array([[2.0], [99.0]], np.float32))
    assert left.states.tolist() == [[0], [1]]
    assert left.rewards.tolist() == [1.5, 1.0]
    assert left.discounts.tolist() == [0.25, 0.5]
    assert left.next_states.tolist() == [[2], [2]]
    assert len(fold.flush(valid, np.array([[2.0], [99.0]], np.float32))) == 0


def test_windows_of_one_environment_are_closed_and_those_of_others_stay_open() -> None:
    fold, valid, no = NStepAccumulator(num_envs=2, n=3, gamma=0.5), np.ones(2, bool), np.zeros(2, bool)
    masks = np.array([[True, False], [False, True]])
    state = np.array([[0.0], [10.0]], np.float32)
    fold.push(state, np.array([1, 0]), np.array([4.0, 6.0]), state + 1, no, no, valid, masks, masks)
    left = fold.flush(np.array([False, True]), np.array([[-1.0], [11.0]], np.float32), masks[::-1])
    assert (left.states.tolist(), left.next_states.tolist(), left.rewards.tolist()) == ([[10.0]], [[11.0]], [6.0])
    assert (left.action_masks.tolist(), left.next_action_masks.tolist()) == ([[False, True]], [[True, False]])  # type: ignore[union-attr]
    rest = fold.flush(valid, np.array([[1.0], [-1.0]], np.float32), masks)
    assert (rest.states.tolist(), rest.rewards.tolist(), rest.discounts.tolist()) == ([[0.0]], [4.0], [0.5])


@pytest.mark.parametrize("masked", [False, True])
def test_open_windows_that_were_saved_go_on_as_those_that_were_not(masked: bool) -> None:
    rng = np.random.default_rng(0)
    fold = NStepAccumulator(num_envs=3, n=4, gamma=0.9)
    for at in range(60):
        if at % 7 == 3:
            again = NStepAccumulator(num_envs=3, n=4, gamma=0.9)
            again.set_state(fold.get_state())
            with pytest.raises(RunError):
                NStepAccumulator(num_envs=2, n=4, gamma=0.9).set_state(fold.get_state())
            with pytest.raises(RunError):
                NStepAccumulator(num_envs=3, n=3, gamma=0.9).set_state(fold.get_state())
        state, actions, rewards = rng.normal(size=(3, 2)), rng.integers(2, size=3), rng.normal(size=3)
        ended, cut, masks = rng.random(3) < 0.2, rng.random(3) < 0.2, rng.random((3, 2)) < 0.5
        legal = (masks, masks[::-1]) if masked else ()
        given = state, actions, rewards, state + 1, ended, cut, np.ones(3, bool), *legal
        one = fold.push(*given)
        if at >= 3:
            other = again.push(*given)
            for name in Transitions.__slots__:
                left, right = getattr(one, name), getattr(other, name)
                assert (left is None) == (right is None)
                assert left is None or np.array_equal(left, right)


def test_after_a_flush_an_accumulator_is_as_new() -> None:
    used, new = (NStepAccumulator(num_envs=1, n=3, gamma=0.5) for _ in range(2))
    step = np.ones(1, bool), np.zeros(1, bool)

    def push(fold: NStepAccumulator, at: int) -> Transitions:
        state = np.array([[at]], np.float32)
        return fold.push(state, np.array([at]), np.array([float(at)]), state + 1, step[1], step[1], step[0])

    push(used, 100)
    push(used, 200)
    used.flush(step[0], np.zeros((1, 1), np.float32))
    for at in range(7):
        one, other = push(used, at), push(new, at)
        assert all(np.array_equal(getattr(one, name), getattr(other, name)) for name in Transitions.__slots__)
