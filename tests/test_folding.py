"""Folding when drawn: windows by hand, the same numbers as folding when stored, and bonuses that reach the target."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from nexus.core.errors import RunError
from nexus.core.state import State
from nexus.core.types import Array, Steps, Transitions
from nexus.data.counts import Counts, EpisodicCounts
from nexus.data.folding import FoldingSampler, fold
from nexus.data.n_step import NStepAccumulator
from nexus.data.prioritized_replay_buffer import Priorities
from nexus.data.protocols import NOTHING
from nexus.data.replay import Replay
from nexus.data.rows import Rows
from nexus.data.single_steps import EPISODE, SingleSteps
from nexus.data.uniform import Uniform

GAMMA = 0.5


def floats(*values: float) -> Array:
    return np.array(values, np.float32)


def test_a_fold_by_hand() -> None:
    """γ = ½. To the end: 1 + ½·2 + ¼·4 = 3; terminated at the second: 1 + ½·2 = 2; cut after the first: 1."""
    rewards = np.tile(floats(1, 2, 4), (3, 1))
    discounts = np.array([[0.5, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0.5]], np.float32)
    there = np.array([[True, True, True], [True, True, True], [True, False, False]])
    total, ahead, last = fold(rewards, discounts, there)
    assert total.tolist() == [3.0, 2.0, 1.0]
    assert ahead.tolist() == [0.125, 0.0, 0.5]
    assert last.tolist() == [2, 1, 0]


def steps_of(count: int, num_envs: int, seed: int) -> list[dict[str, Any]]:
    """Random vector steps: states count up in each environment, episodes end either way, some rows only reset."""
    rng = np.random.default_rng(seed)
    found, ended = [], np.zeros(num_envs, bool)
    for time in range(count):
        states = (1_000 * np.arange(num_envs) + time)[:, None].astype(np.float32)
        valid = ~ended  # after an end, as with Gymnasium's next-step autoreset
        terminated, truncated = ((rng.random(num_envs) < share) & valid for share in (0.1, 0.05))
        found.append(
            {
                "states": states,
                "actions": rng.integers(3, size=num_envs),
                "rewards": rng.normal(size=num_envs).astype(np.float32),
                "next_states": states + 0.5,
                "terminated": terminated,
                "truncated": truncated & ~terminated,
                "valid": valid,
            }
        )
        ended = terminated | truncated
    return found


def by_start(transitions: Transitions) -> dict[float, tuple[float, ...]]:
    """Each transition by the state it begins in, which is unique: action, reward, discount, next state."""
    columns = (transitions.actions, transitions.rewards, transitions.discounts, transitions.next_states[:, 0])
    return {
        float(start): tuple(map(float, row))
        for start, row in zip(transitions.states[:, 0], zip(*columns, strict=True), strict=True)
    }


@pytest.mark.parametrize("n", [1, 3, 5])
def test_folding_when_drawn_gives_the_bits_of_folding_when_stored(n: int) -> None:
    """Each row of a replay of single steps, folded when drawn, is the one that an n-step accumulator emits."""
    num_envs, given = 3, steps_of(200, 3, n)
    stored, single = NStepAccumulator(num_envs, n, GAMMA), SingleSteps(num_envs, GAMMA)
    expected: dict[float, tuple[float, ...]] = {}
    replay = Replay(Rows(1_000), FoldingSampler(Uniform(0), n))
    for step in given:
        expected |= by_start(stored.push(**step))
        replay.add(single.push(**step))
    everything = np.arange(len(replay))
    _, _, instead = replay.sampler.pick(everything, replay.storage)
    columns = replay.storage.columns
    names = ("rewards", "discounts", "next_states")
    rewards, discounts, following = (instead[name].numpy() for name in names)
    found = by_start(
        Transitions(columns["states"][everything], columns["actions"][everything], rewards, discounts, following)
    )
    assert len(expected) > 500
    assert {start: found[start] for start in expected} == expected
    assert len(found) - len(expected) <= num_envs * (n - 1), "but for those not complete yet"


def test_episodes_are_numbered_and_rows_that_only_reset_are_left_out() -> None:
    single = SingleSteps(2, GAMMA)
    flags = {name: np.zeros(2, bool) for name in ("terminated", "truncated")}
    step: dict[str, Any] = {"states": np.zeros((2, 1), np.float32), "next_states": np.ones((2, 1), np.float32)}
    step |= {"actions": np.zeros(2, np.int64), "rewards": floats(1, 1), **flags, "valid": np.array([True, True])}

    def numbers(**changed: Any) -> list[int]:
        extras = single.push(**{**step, **changed}).extras
        assert extras is not None
        return list(map(int, extras[EPISODE]))

    assert numbers() == [0, 1]
    assert numbers(terminated=np.array([True, False])) == [0, 1]
    assert numbers(valid=np.array([False, True]), truncated=np.array([False, True])) == [1]
    assert numbers() == [2, 3]
    assert len(single.flush(np.array([True, False]), step["next_states"])) == 0
    again = SingleSteps(2, GAMMA)
    again.set_state(single.get_state())
    single = again
    assert numbers() == [4, 3], "what was flushed goes on as another episode"


def replay_of(episodes: list[list[float]], sampler: Any, capacity: int = 100) -> Replay:
    """A replay of episodes, each a list of places: rewards 1, γ = ½, the last step terminates."""
    replay = Replay(Rows(capacity), sampler)
    for number, places in enumerate(episodes):
        states, following = (np.array(part, np.float32)[:, None] for part in (places[:-1], places[1:]))
        count = len(states)
        discounts = np.full(count, GAMMA, np.float32)
        discounts[-1] = 0
        extras = {EPISODE: np.full(count, number)}
        replay.add(
            Transitions(states, np.zeros(count, int), np.ones(count, np.float32), discounts, following, extras=extras)
        )
    return replay


class Given:
    """Draws the rows that a test wants."""

    on_device, changes, nbytes = False, NOTHING, 0

    def __init__(self, rows: list[int]) -> None:
        self.rows = np.array(rows)
        self.updated: list[list[int]] = []

    def draw(self, batch_size: int, size: int) -> Array:
        return self.rows

    def pick(self, draws: Any, storage: Any) -> Any:
        return draws, torch.ones(len(draws)), {}

    def enter(self, first: int, count: int) -> None: ...

    def update(self, indices: Any, priorities: Any) -> None:
        self.updated.append(indices.tolist())

    def anneal(self, fraction: float) -> None: ...

    def get_state(self, size: int) -> State:
        return {}

    def set_state(self, state: State, size: int) -> None: ...


def keys(states: Array) -> list[bytes]:
    """Sixteen bytes for the place, rounded."""
    return [round(float(state[0])).to_bytes(16, "little") for state in states]


def test_counts_by_hand_reach_the_folded_reward() -> None:
    """Places 0 1 2 1 and 0 1: place 1 was reached three times, 2 once.

    Row 0, two steps: 1 + β/√3 + ½ (1 + β/√1); row 2 ends: 1 + β/√3; row 3: the same.
    """
    bonus = Counts(keys, scale=2.0)
    replay = replay_of([[0, 1, 2, 1], [0, 1]], FoldingSampler(Given([0, 2, 3]), 2, bonus=bonus))
    batch = replay.sample(3)
    third = 2 / np.sqrt(3)
    assert batch["rewards"].tolist() == pytest.approx([1 + third + 0.5 * (1 + 2), 1 + third, 1 + third])
    assert batch["bonuses"].tolist() == pytest.approx([third, third, third])
    assert batch["discounts"].tolist() == [0.25, 0.0, 0.0]
    assert batch["next_states"][:, 0].tolist() == [2.0, 1.0, 1.0]
    assert (replay.storage.columns["rewards"][:4] == 1).all(), "what is stored stays as it was"


def test_a_bonus_is_that_of_the_moment_it_is_drawn() -> None:
    bonus = Counts(keys, scale=1.0)
    replay = replay_of([[0, 1]], FoldingSampler(Given([0]), 1, bonus=bonus))
    seen = [float(replay.sample(1)["bonuses"][0])]
    for _ in range(3):
        single = replay_of([[0, 1]], Given([0]))
        replay.add(
            Transitions(
                **{
                    name: single.storage.columns[name][:1]
                    for name in ("states", "actions", "rewards", "discounts", "next_states")
                },
                extras={EPISODE: np.array([len(replay) + 5])},
            )
        )
        seen.append(float(replay.sample(1)["bonuses"][0]))
    assert seen == pytest.approx([1, 1 / np.sqrt(2), 1 / np.sqrt(3), 1 / np.sqrt(4)])


def test_episodic_counts_are_of_the_episode_and_stay_with_the_row() -> None:
    bonus = EpisodicCounts(keys, 1.0, capacity=100, num_envs=1)
    replay = replay_of([[0, 1, 2, 1, 1], [0, 1]], FoldingSampler(Given([0, 1, 2, 3, 4]), 1, bonus=bonus))
    expected = [1, 1, 1 / np.sqrt(2), 1 / np.sqrt(3), 1]
    assert replay.sample(5)["bonuses"].tolist() == pytest.approx(expected)


def test_episodic_counts_of_several_environments_are_kept_apart_and_restored() -> None:
    """Two environments in turn; an ended episode is forgotten, an open one goes on after a restart."""

    def entered(bonus: EpisodicCounts, row: int, episode: int, place: int) -> float:
        state = torch.tensor([[float(place)]])
        steps = Steps(np.array([row]), np.array([episode]), state, torch.zeros(1, dtype=torch.int64), state)
        bonus.enter(steps)
        return float(bonus.of(steps)[0])

    bonus = EpisodicCounts(keys, 1.0, capacity=10, num_envs=2)
    assert [entered(bonus, 0, 7, 1), entered(bonus, 1, 8, 1), entered(bonus, 2, 7, 1)] == pytest.approx(
        [1, 1, 0.5**0.5]
    )
    again = EpisodicCounts(keys, 1.0, capacity=10, num_envs=2)
    again.set_state(bonus.get_state(3), 3)
    assert again._bonuses[:3].tolist() == pytest.approx([1, 1, 0.5**0.5])
    assert entered(again, 3, 8, 1) == pytest.approx(0.5**0.5)
    assert entered(again, 4, 9, 1) == 1, "7 has ended"
    assert list(again._episodes) == [8, 9]
    assert [entered(again, 5, 8, 1), entered(again, 6, 10, 1), entered(again, 7, 8, 1)] == pytest.approx(
        [3**-0.5, 1, 0.5]
    )
    with pytest.raises(RunError, match="don't fit the episodes"):
        again.set_state({**bonus.get_state(3), "states": np.array([1, 5])}, 3)


def test_each_step_is_counted_once_however_often_it_is_drawn() -> None:
    bonus = Counts(keys, scale=1.0)
    replay = replay_of([[0, 1, 2, 3]], FoldingSampler(Given([0, 1]), 3, bonus=bonus))
    for _ in range(5):
        batch = replay.sample(2)
        replay.update_priorities(batch["indices"], torch.ones(2))
    assert sorted(bonus.visits.values()) == [1, 1, 1]


def test_a_restored_sampler_goes_on_with_the_counts_and_counts_nothing_twice() -> None:
    def fresh() -> Replay:
        return Replay(Rows(100), FoldingSampler(Uniform(3), 2, bonus=Counts(keys, 1.0)))

    whole, half = (replay_of([[0, 1, 2, 1, 4]], fresh().sampler) for _ in range(2))
    for replay in (whole, half):
        replay.sample(4)
    restored = fresh()
    restored.set_state(half.get_state())
    (series,), (into,) = (each.series((1,), np.float32, 1) for each in (half, restored))
    into.put(series.first, series.last, series.first, series.get(series.first, series.last))
    for _ in range(3):
        one, other = whole.sample(4), restored.sample(4)
        assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("often", [True, False])
def test_an_index_forgets_what_is_overwritten(often: bool) -> None:
    """Seven rows, three of an episode of nine steps overwritten: the others are still in order."""
    sampler = FoldingSampler(Given([0]), 3)
    replay = Replay(Rows(7), sampler)
    whole = replay_of([[0, 1], list(range(10, 20))], Given([0])).storage.columns
    for row in range(10):  # as they are played, one by one
        columns = {name: whole[name][row : row + 1] for name in whole}
        replay.add(Transitions(extras={EPISODE: columns.pop(EPISODE)}, **columns))
        if often:
            sampler.index.follow(replay.storage)
    sampler.index.follow(replay.storage)
    assert sampler.index.nbytes == 3 * 7 * 8 + 8 * (9 if often else 7), "the first episode is forgotten"
    places = replay.storage.columns["states"][:, 0]
    ahead = sampler.index.ahead(np.arange(7), 3)
    seen = {
        places[row]: [float(places[at]) for at in following if at >= 0]
        for row, following in zip(range(7), ahead, strict=True)
    }
    assert seen == {
        12: [12, 13, 14],
        13: [13, 14, 15],
        14: [14, 15, 16],
        15: [15, 16, 17],
        16: [16, 17, 18],
        17: [17, 18],
        18: [18],
    }
    anything = {
        float(places[row])
        for part in np.linspace(0, 0.999, 50)
        for row in sampler.index.any_of(np.array([0]), np.array([part]))
    }
    assert anything == {12, 13, 14, 15, 16, 17, 18}
    row = int(np.flatnonzero(places == 16)[0])
    later = [float(places[sampler.index.later(np.array([row]), np.array([part]))[0]]) for part in (0, 0.34, 0.67, 0.99)]
    assert later == [16, 17, 18, 18]
    assert places[sampler.index.last(np.array([row]))[0]] == 18


def test_a_goal_is_of_what_is_still_stored_of_an_episode() -> None:
    """Of six steps three are overwritten by another episode, whose rows must not be taken for theirs."""
    sampler = FoldingSampler(Given([0]), 1)
    replay = replay_of([[0, 1, 2, 3, 4, 5, 6]], sampler, capacity=7)
    sampler.index.follow(replay.storage)
    replay.add(
        Transitions(
            np.array([[10], [11], [12], [13]], np.float32),
            np.zeros(4, int),
            np.ones(4, np.float32),
            np.full(4, GAMMA, np.float32),
            np.array([[11], [12], [13], [14]], np.float32),
            extras={EPISODE: np.full(4, 1)},
        )
    )
    sampler.index.follow(replay.storage)
    places = replay.storage.columns["states"][:, 0]
    row = int(np.flatnonzero(places == 4)[0])
    found = {
        float(places[sampler.index.any_of(np.array([row]), np.array([part]))[0]]) for part in (0, 0.34, 0.67, 0.99)
    }
    assert found == {3, 4, 5}


def test_priorities_go_to_the_sampler_that_chooses() -> None:
    priorities = Priorities(100, 0, 1.0, 0.4)
    replay = replay_of([[0, 1, 2, 3]], FoldingSampler(priorities, 2, bonus=Counts(keys, 1.0)))
    batch = replay.sample(64)
    assert set(batch["indices"].tolist()) == {0, 1, 2}
    replay.update_priorities(torch.tensor([0, 1, 2]), torch.tensor([0.0, 0.0, 1.0]))
    assert set(replay.sample(64)["indices"].tolist()) == {2}


def test_a_bonus_learns_from_the_first_step_of_each_row_once_an_update() -> None:
    learned: list[list[float]] = []

    class Recording(Counts):
        def learn(self, steps: Steps) -> None:
            learned.append(steps.states[:, 0].tolist())

    bonus = Recording(keys, 1.0)
    replay = replay_of([[0, 1, 2, 3]], FoldingSampler(Given([2, 0]), 3, bonus=bonus))
    batch: Mapping[str, Any] = replay.sample(2)
    assert learned == []
    replay.update_priorities(batch["indices"], torch.ones(2))
    replay.update_priorities(batch["indices"], torch.ones(2))
    assert learned == [[2.0, 0.0]]
