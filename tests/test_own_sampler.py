"""A sampler of one's own is one file: hindsight, which needs a column that no replay has and changes what is learned.

A row of an episode that failed is drawn as if the place that a later row of it reached had been its goal
(Andrychowicz et al. 2017, https://arxiv.org/abs/1707.01495).
"""

import json
from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from nexus import DQNAgent
from nexus.core.errors import RunError
from nexus.core.state import State, restore_generator
from nexus.core.types import Array, Transitions
from nexus.data.frames import Frames
from nexus.data.protocols import NOTHING, ArrayOrTensor, Sampler, Storage, host_array
from nexus.data.replay import Replay
from nexus.data.rows import Rows
from nexus.data.uniform import Uniform


class Hindsight:
    """Draws rows uniformly. The goal of each is a place that it or a later row of its episode reached.

    Rows need two extra columns: `episode`, a number of its own for each, and `reached`, the place where a step ended.
    Where `relabel` is given it makes the states of the new goals.

    Args:
        seed: of the draws.
        relabel: from states `[B, *obs]` and goals `[B]` to states with these goals.
    """

    on_device, changes, nbytes = False, NOTHING, 0

    def __init__(self, seed: int, relabel: Callable[[Tensor, Tensor], Tensor] | None = None) -> None:
        self.rng = np.random.default_rng(seed)
        self.relabel = relabel

    def draw(self, batch_size: int, size: int) -> Array:
        """Return a row, and which of the rows that follow, as parts of 1: `[B]` in one number, `row + part`."""
        return self.rng.integers(size, size=batch_size) + self.rng.random(batch_size)

    def pick(self, draws: ArrayOrTensor, storage: Storage) -> tuple[ArrayOrTensor, Tensor, Mapping[str, Tensor]]:
        """Return rows, weights of 1, and the rewards and discounts that their new goals bring."""
        numbers = host_array(draws)
        rows = numbers.astype(np.int64)
        later = np.array(
            [self.later(int(row), float(number % 1), storage) for row, number in zip(rows, numbers, strict=True)]
        )
        goals, reached = (storage.columns["reached"][which] for which in (later, rows))
        met, weights = torch.from_numpy(reached == goals), torch.ones(len(rows))
        stored = storage.gather(rows, weights)
        instead = {
            "rewards": met.float(),
            "discounts": stored["discounts"].cpu() * ~met,
            "goals": torch.from_numpy(goals),
        }
        if self.relabel is not None:
            for name in ("states", "next_states"):
                instead[name] = self.relabel(stored[name], instead["goals"])
        return rows, weights, instead

    def later(self, row: int, part: float, storage: Storage) -> int:
        """Return a row of the same episode, this one or one behind it, by a part of 1."""
        ages = (storage.added - 1 - np.arange(storage.capacity)) % storage.capacity  # steps since each was written
        same = storage.columns["episode"] == storage.columns["episode"][row]
        found = np.flatnonzero(same & (ages <= ages[row]) & (ages < storage.added))
        return int(found[int(part * len(found))])

    def enter(self, first: int, count: int) -> None: ...

    def update(self, indices: Tensor, priorities: Tensor) -> None: ...

    def anneal(self, fraction: float) -> None: ...

    def get_state(self, size: int) -> State:
        return {"rng": self.rng.bit_generator.state}

    def set_state(self, state: State, size: int) -> None:
        restore_generator(self.rng, state, "rng")


# --- on a line: step to the left or to the right; the goal is a place ---

LENGTH, SIZE, NOWHERE = 8, 7, 99


def walk(rng: np.random.Generator, episode: int) -> Transitions:
    """An episode of random steps from the middle, with a goal that is nowhere: its rewards are all 0."""
    actions = rng.integers(2, size=LENGTH)
    places = np.zeros(LENGTH + 1, np.float32)
    for t, action in enumerate(actions):
        places[t + 1] = np.clip(places[t] + 2 * action - 1, -SIZE // 2 + 1, SIZE // 2)
    states = np.stack([places, np.full(LENGTH + 1, NOWHERE, np.float32)], 1)
    extras: dict[str, Array] = {"episode": np.full(LENGTH, episode), "reached": places[1:]}
    nothing, discounts = np.zeros(LENGTH, np.float32), np.full(LENGTH, 0.8, np.float32)
    return Transitions(states[:-1], actions, nothing, discounts, states[1:], extras=extras)


def with_goals(states: Tensor, goals: Tensor) -> Tensor:
    return torch.stack([states[:, 0], goals], 1)


def filled(sampler: Sampler, capacity: int = 800, episodes: int = 130) -> Replay:
    replay, rng = Replay(Rows(capacity), sampler), np.random.default_rng(0)
    for episode in range(episodes):
        replay.add(walk(rng, episode))
    return replay


def test_a_row_gets_the_goal_that_a_later_row_of_its_episode_reached() -> None:
    replay = filled(Hindsight(0, with_goals), capacity=83)  # old rows are overwritten in the middle of an episode
    columns, seen = replay.storage.columns, set()
    order = (np.arange(83) - replay.added) % 83  # from the oldest on
    for _ in range(20):
        batch = replay.sample(32)
        for at, row in enumerate(batch["indices"].tolist()):
            goal, met = float(batch["goals"][at]), bool(batch["rewards"][at])
            assert batch["states"][at].tolist() == [columns["states"][row, 0], goal]
            assert batch["next_states"][at].tolist() == [columns["reached"][row], goal]
            assert met == (columns["reached"][row] == goal)
            assert batch["discounts"][at] == (0.0 if met else np.float32(0.8))
            same = (columns["episode"] == columns["episode"][row]) & (order >= order[row])
            assert goal in columns["reached"][same]
            assert batch["episode"][at] == columns["episode"][row]
            seen.add((row, goal))
    assert len(seen) > 150
    assert not columns["rewards"].any()  # what is stored is as it was


def score(sampler: Sampler) -> float:
    """Learn from episodes that never were rewarded; return how many goals a greedy walk then reaches."""
    replay = filled(sampler)
    agent = DQNAgent(
        {"state_dim": 2, "action_dim": 2, "hidden_dim": 32, "learning_rate": 3e-3, "device": "cpu", "seed": 1}
    )
    for update in range(400):
        batch = replay.sample(64)
        replay.update_priorities(batch["indices"], agent.learn(batch).priorities)
        if update % 25 == 0:
            agent.update_target_network()
    goals = [goal for goal in range(-SIZE // 2 + 1, SIZE // 2 + 1) if goal]
    states = np.array([[0, goal] for goal in goals], np.float32)
    met: NDArray[np.bool_] = np.zeros(len(goals), bool)
    for _ in range(SIZE // 2):
        states[:, 0] += 2 * agent.act(states, 0.0, training=False) - 1
        met |= states[:, 0] == states[:, 1]
    return float(met.mean())


def test_it_learns_from_failures_what_uniform_draws_can_not() -> None:
    assert score(Hindsight(0, with_goals)) == 1.0
    assert score(Uniform(0)) <= 0.5  # at best one direction


# --- with every storage, and in a checkpoint ---

STACKS = np.zeros((1, 3, 2, 2), np.uint8)
STORAGES: dict[str, Callable[[], Storage]] = {
    "rows": lambda: Rows(50),
    "raw": lambda: Frames(50, "raw", like=STACKS),
    "compressed": lambda: Frames(50, "compressed", like=STACKS),
    "device": lambda: Frames(50, "device", like=STACKS),
}


def film(replay: Replay, steps: int = 70) -> None:
    """Add steps of one environment that shows stacks of frames."""
    rng, one, yes = np.random.default_rng(0), np.ones(1, np.float32), np.ones(1, bool)
    states, begins = rng.integers(1, 256, (1, 3, 2, 2), dtype=np.uint8), yes
    for t in range(steps):
        next_states = np.concatenate([states[:, 1:], rng.integers(1, 256, (1, 1, 2, 2), dtype=np.uint8)], 1)
        given, following = replay.remember(states, next_states, begins, yes)
        extras: dict[str, Array] = {"episode": np.array([t // 9]), "reached": np.array([t % 4])}
        replay.add(Transitions(given, np.array([t]), 0 * one, one, following, extras=extras))
        states, begins = next_states, ~yes


@pytest.mark.parametrize("kind", STORAGES)
def test_it_goes_with_every_storage_and_is_saved(kind: str) -> None:
    replay, plain = Replay(STORAGES[kind](), Hindsight(3)), Replay(Rows(50), Hindsight(3))
    film(replay)
    film(plain)
    assert not replay.on_device
    replay.seal()
    state = json.loads(json.dumps(replay.get_state()))
    twin = Replay(STORAGES[kind](), Hindsight(4))
    with pytest.raises(RunError, match="rng"):
        twin.set_state({name: value for name, value in state.items() if name != "rng"})
    twin.set_state(state)
    for old, new in zip(
        replay.series(STACKS.shape[1:], np.uint8, 1), twin.series(STACKS.shape[1:], np.uint8, 1), strict=True
    ):
        for first in range(old.first, old.last, 8):
            last = min(first + 8, old.last)
            new.put(first, last, first, old.get(first, last))
    for _ in range(5):
        batch, unsaved, whole = twin.sample(16), replay.sample(16), plain.sample(16)
        assert batch.keys() == unsaved.keys() == whole.keys() >= {"goals", "episode", "reached"}
        for name in batch:
            assert torch.equal(batch[name], unsaved[name]), name
            assert torch.equal(batch[name], whole[name]), name
    assert 0 < batch["rewards"].sum() < 16
