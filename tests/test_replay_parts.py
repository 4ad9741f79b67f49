"""A replay is a storage and a sampler: every pair works, and what rows have beside the usual columns travels along."""

import inspect
import json
from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nexus.core.errors import ConfigError, RunError
from nexus.core.state import State
from nexus.core.types import Array, Batch, Transitions
from nexus.data import memory
from nexus.data.device_priorities import DevicePriorities
from nexus.data.frames import Frames
from nexus.data.n_step import NStepAccumulator
from nexus.data.prioritized_replay_buffer import PRIORITY_OFFSET, Priorities, PrioritizedReplayBuffer
from nexus.data.protocols import Sampler, Storage
from nexus.data.replay import Replay
from nexus.data.replay_buffer import ReplayBuffer
from nexus.data.rows import Rows
from nexus.data.uniform import Uniform
from nexus.training.files import read_tensors, write_tensors

ENVS, STACK, CAPACITY = 3, 3, 40
SHAPE = (STACK, 2, 2)
LIKE = np.zeros((ENVS, *SHAPE), np.uint8)

STORAGES: dict[str, Callable[[], Storage]] = {
    "rows": lambda: Rows(CAPACITY),
    "raw": lambda: Frames(CAPACITY, "raw", 2, LIKE),
    "compressed": lambda: Frames(CAPACITY, "compressed", 2, LIKE),
    "device": lambda: Frames(CAPACITY, "device", 2, LIKE),
}
SAMPLERS: dict[str, Callable[[int], Sampler]] = {
    "uniform": Uniform,
    "priorities": lambda seed: Priorities(CAPACITY, seed),
    "device priorities": lambda seed: DevicePriorities(CAPACITY, seed),
}
PAIRS = list(product(STORAGES, SAMPLERS))


def replay_of(storage: str, sampler: str = "uniform", seed: int = 0) -> Replay:
    return Replay(STORAGES[storage](), SAMPLERS[sampler](seed))


def play(replays: list[Replay], steps: int, seed: int = 0) -> None:
    """Feed the same made-up steps to all of them, with two extra columns that follow from the action."""
    rng, yes, no = np.random.default_rng(seed), np.ones(ENVS, bool), np.zeros(ENVS, bool)
    folds = [NStepAccumulator(ENVS, 2, 0.9) for _ in replays]
    states, begins, count = rng.integers(1, 256, (ENVS, *SHAPE), dtype=np.uint8), yes, 0
    for t in range(steps):
        newest = rng.integers(1, 256, (ENVS, 1, *SHAPE[1:]), dtype=np.uint8)
        next_states, rewards = np.concatenate([states[:, 1:], newest], 1), rng.normal(size=ENVS)
        actions, done = count + np.arange(ENVS), np.full(ENVS, t % 11 == 10)
        count += ENVS
        for replay, fold in zip(replays, folds, strict=True):
            given, following = replay.remember(states, next_states, begins, yes)
            folded = fold.push(given, actions, rewards, following, done, no, yes)
            replay.add(with_extras(folded))
        fresh = rng.integers(1, 256, (ENVS, *SHAPE), dtype=np.uint8)
        states, begins = (fresh if done[0] else next_states), done


def with_extras(rows: Transitions) -> Transitions:
    numbers = rows.actions
    extras: dict[str, Array] = {
        "bonus": (numbers / 2).astype(np.float32),
        "goal": np.stack([numbers, -numbers], 1).astype(np.int16),
    }
    return Transitions(rows.states, numbers, rows.rewards, rows.discounts, rows.next_states, extras=extras)


def require_same(one: Batch, other: Batch) -> None:
    assert one.keys() == other.keys()
    for name in one:
        assert one[name].dtype == other[name].dtype
        assert torch.equal(one[name], other[name]), name


@pytest.mark.parametrize(("storage", "sampler"), PAIRS)
def test_every_storage_gives_every_sampler_the_rows_that_plain_rows_give(storage: str, sampler: str) -> None:
    replay, oracle = replay_of(storage, sampler), replay_of("rows", sampler)
    for seed in range(4):
        play([replay, oracle], 9, seed)
        replay.anneal(seed / 4)
        oracle.anneal(seed / 4)
        for _ in range(3):
            ours, theirs = replay.sample(16), oracle.sample(16)
            require_same(ours, theirs)
            priorities = ours["rewards"].abs()
            replay.update_priorities(ours["indices"], priorities)
            oracle.update_priorities(theirs["indices"], priorities)
    assert replay.added > CAPACITY == len(replay)
    assert replay.on_device is (storage == "device" and sampler != "priorities")
    assert len(set(ours["weights"].tolist())) > 1 or sampler == "uniform"


@pytest.mark.parametrize(("storage", "sampler"), PAIRS)
def test_the_three_steps_are_a_sample(storage: str, sampler: str) -> None:
    replay, twin = replay_of(storage, sampler), replay_of(storage, sampler)
    play([replay, twin], 20)
    draws = torch.from_numpy(replay.draw(8))
    require_same(replay.gather(*replay.pick(draws)), twin.sample(8))


def test_without_a_seed_every_sampler_draws_as_with_seed_0() -> None:
    assert Uniform().draw(8, 50).tolist() == np.random.default_rng(0).integers(50, size=8).tolist()
    segments = np.random.default_rng(0).random(8) + np.arange(8)
    assert Priorities(50).draw(8, 50).tolist() == DevicePriorities(50).draw(8, 50).tolist() == segments.tolist()


PRIORITIZED: list[type[Priorities | DevicePriorities]] = [Priorities, DevicePriorities]


def priorities_in(sampler: Sampler, size: int = 4) -> list[float]:
    """The priorities of the first rows, from their square roots."""
    return [round(float(root) ** 2 - PRIORITY_OFFSET, 9) for root in sampler.get_state(size)["leaves"]]


@pytest.mark.parametrize("kind", PRIORITIZED)
def test_new_rows_enter_at_the_highest_priority_that_ever_was_and_wrap_around(
    kind: type[Priorities | DevicePriorities],
) -> None:
    sampler = kind(4, priority_exponent=0.5)
    sampler.enter(0, 2)
    assert priorities_in(sampler, 2) == [1, 1]
    sampler.update(torch.tensor([0, 1]), torch.tensor([0.25, 9.0]))
    sampler.update(torch.tensor([1]), torch.tensor([4.0]))
    sampler.enter(2, 1)
    assert priorities_in(sampler, 3) == [0.25, 4, 9]
    sampler.update(torch.tensor([2]), torch.tensor([2.0]))
    sampler.enter(3, 2)
    assert priorities_in(sampler) == [9, 4, 2, 9]
    sampler.enter(1, 7)  # more than there are rows
    assert priorities_in(sampler) == [9, 9, 9, 9]
    assert sampler.get_state(4)["highest_priority"] == 9


@pytest.mark.parametrize(("saved_by", "kind"), [*product(PRIORITIZED, PRIORITIZED)])
def test_a_sampler_that_was_used_forgets_its_rows_for_those_of_a_state(
    saved_by: type[Priorities | DevicePriorities], kind: type[Priorities | DevicePriorities]
) -> None:
    small, used, storage = saved_by(4, 1, importance_exponent=0.5), kind(4, 2), Rows(4)
    small.enter(0, 2)
    small.update(torch.tensor([0, 1]), torch.tensor([16.0, 1.0]))
    used.enter(0, 4)
    used.set_state(small.get_state(2), 2)
    (rows, weights, _), (ours, theirs, _) = (each.pick(each.draw(60, 2), storage) for each in (small, used))
    assert set(np.asarray(ours).tolist()) == {0, 1}
    assert np.array_equal(rows, ours)
    assert torch.equal(weights, theirs)
    assert np.unique(weights).tolist() == pytest.approx([0.5, 1], rel=1e-5)  # (4 / 1) ** -0.5 and 1
    used.enter(2, 1)
    assert priorities_in(used) == [16, 1, 16, round(-PRIORITY_OFFSET, 9)]  # row 3 can't be drawn


@pytest.mark.parametrize("kind", PRIORITIZED)
def test_priorities_of_a_file_are_numbers_that_can_be_summed_up(kind: type[Priorities | DevicePriorities]) -> None:
    sampler, most = kind(4), 1.7976931348623157e308 / 8
    sampler.enter(0, 2)
    state = sampler.get_state(2)
    for name, wrong, says in (
        ("leaves", np.array([1.0, -1e-9]), r"a priority below 0 or above 2e\+307"),
        ("leaves", np.array([1.0, most * 1.01]), r"a priority below 0 or above 2e\+307"),
        ("leaves", np.zeros(2), "every priority of the replay is 0"),
        ("leaves", np.array([1.0, np.nan]), "leaves contains NaN"),
        ("leaves", np.ones(3), r"leaves is float64 of shape \(3,\): needs float64 of shape \(2,\)"),
        ("highest_priority", -0.5, r"highest_priority = -0.5: needs 0 to 2.24712e\+307"),
        ("highest_priority", most * 1.01, "highest_priority = 2.26.*: needs 0 to"),
        ("importance_exponent", -0.1, "importance_exponent = -0.1: needs 0 to 1"),
        ("importance_exponent", 1.1, "importance_exponent = 1.1: needs 0 to 1"),
        ("rng", None, "has no dict 'rng'"),
    ):
        with pytest.raises(RunError, match=says):
            kind(4).set_state(state | {name: wrong}, 2)
    for edge in (0.0, 1.0):
        at_the_edge = state | {"leaves": np.array([most, 1.0]), "highest_priority": most, "importance_exponent": edge}
        again = kind(4)
        again.set_state(at_the_edge, 2)
        saved = again.get_state(2)
        assert saved["leaves"].tolist() == [most, 1.0]
        assert (saved["highest_priority"], saved["importance_exponent"]) == (most, edge)


# --- extra columns ---


@pytest.mark.parametrize(("storage", "sampler"), PAIRS)
def test_extra_columns_stay_with_their_rows(storage: str, sampler: str) -> None:
    replay = replay_of(storage, sampler)
    play([replay], 30)
    batch = replay.sample(64)
    numbers = batch["actions"]
    assert numbers.min() >= 90 - CAPACITY - ENVS
    assert len(set(numbers.tolist())) > 20
    assert (batch["bonus"].dtype, batch["goal"].dtype) == (torch.float32, torch.int16)
    assert torch.equal(batch["bonus"], numbers / 2)
    assert torch.equal(batch["goal"].long(), torch.stack([numbers, -numbers], 1))


def saved(replay: Replay, folder: Path, shape: tuple[int, ...] = SHAPE, dtype: Any = np.uint8) -> State:
    """Write what a checkpoint writes, in chunks of 7 items; return the state."""
    replay.seal()
    for series in replay.series(shape, dtype, 2):
        for first in range(series.first, series.last, 7):
            columns = series.get(first, min(first + 7, series.last))
            write_tensors(folder / f"{series.name}-{first:04d}", columns)
    return replay.get_state()


def restored(
    replay: Replay, folder: Path, state: State, shape: tuple[int, ...] = SHAPE, dtype: Any = np.uint8
) -> Replay:
    """Fill a new replay; the state goes through JSON but for its arrays, and no file may be larger than is said."""
    arrays = {name: value for name, value in state.items() if isinstance(value, np.ndarray)}
    replay.set_state({**json.loads(json.dumps({k: v for k, v in state.items() if k not in arrays})), **arrays})
    for series in replay.series(shape, dtype, 2):
        for first in range(series.first, series.last, 7):
            last = min(first + 7, series.last)
            columns = read_tensors(folder / f"{series.name}-{first:04d}", (last - first) * series.most_bytes)
            series.put(first, last, first, columns)
    return replay


@pytest.mark.parametrize(("storage", "sampler"), PAIRS)
def test_what_was_saved_goes_on_as_what_was_not(storage: str, sampler: str, tmp_path: Path) -> None:
    replay = replay_of(storage, sampler)
    play([replay], 25)
    replay.update_priorities(torch.arange(20), torch.arange(20.0))
    state = saved(replay, tmp_path)
    assert {name: state[name] for name in state if name.startswith("extras.")} == {
        "extras.bonus": ["float32"],
        "extras.goal": ["int16", 2],
    }
    twin = restored(replay_of(storage, sampler, seed=9), tmp_path, state)
    assert len(twin) == len(replay) == CAPACITY
    require_same(twin.sample(32), replay.sample(32))
    play([replay, twin], 5, seed=1)
    require_same(twin.sample(32), replay.sample(32))


def wide(count: int, **extras: Array) -> Transitions:
    states, ones = np.arange(2.0 * count, dtype=np.float32).reshape(count, 2), np.ones(count, np.float32)
    return Transitions(states, np.arange(count), ones, ones, states, extras=extras or None)


def test_an_extra_column_may_be_wider_than_all_the_others(tmp_path: Path) -> None:
    replay, goals = ReplayBuffer(9), np.random.default_rng(0).normal(size=(9, 5, 300))
    replay.add(wide(9, goals=goals))
    (series,) = replay.series((2,), np.float32, 2)
    assert series.most_bytes == 2 * (2 * 8 + 16 + 2 * 2 + 5 * 300 * 8)  # states, numbers, two masks, goals; twice that
    state = saved(replay, tmp_path, (2,), np.float32)
    twin = restored(ReplayBuffer(9), tmp_path, state, (2,), np.float32)
    np.testing.assert_array_equal(twin.storage.columns["goals"], goals, strict=True)


def test_a_replay_without_extra_columns_saves_no_word_of_them() -> None:
    replay = ReplayBuffer(4)
    replay.add(wide(2))
    assert list(replay.get_state()) == ["added", "holds_dones", "rng"]


@pytest.mark.parametrize(
    ("first", "then", "complaint"),
    [
        ({"bonus": np.ones(2)}, {}, "got none, this replay needs bonus"),
        ({}, {"bonus": np.ones(2)}, "got bonus, this replay needs none"),
        ({"bonus": np.ones(2)}, {"malus": np.ones(2)}, "got malus, this replay needs bonus"),
        ({"bonus": np.ones(2)}, {"bonus": np.ones((2, 1))}, r"bonus has shape \(2, 1\): needs \(2,\)"),
        ({"bonus": np.ones(2)}, {"bonus": np.ones(1)}, r"bonus has shape \(1,\): needs \(2,\)"),
        ({"bonus": np.ones(2, int)}, {"bonus": np.full(2, 0.5)}, "holds bonus of dtype int64, got float64"),
    ],
)
def test_extra_columns_that_do_not_fit_are_refused(first: Any, then: Any, complaint: str) -> None:
    replay = ReplayBuffer(4)
    replay.add(wide(2, **first))
    with pytest.raises(ConfigError, match=f"^extras: .*{complaint}"):
        replay.add(wide(2, **then))
    assert replay.added == 2


@pytest.mark.parametrize(
    "name", ["rewards", "weights", "indices", "dones", "extras", "a b", "", "_hidden", "1st", "a.b"]
)
def test_an_extra_column_has_a_name_of_its_own(name: str) -> None:
    with pytest.raises(ConfigError, match=f"^extras: {name!r} can't be the name"):
        ReplayBuffer(4).add(wide(2, **{name: np.ones(2)}))


@pytest.mark.parametrize(
    "values", [np.ones(2, complex), np.array(["a", "b"]), np.ones(2, object), np.ones(2, np.uint64)]
)
def test_an_extra_column_holds_numbers_that_torch_has(values: Array) -> None:
    with pytest.raises(ConfigError, match=r"^extras: bonus is .*, which a replay can't store"):
        ReplayBuffer(4).add(wide(2, bonus=values))


def test_bytes_of_either_order_come_back_as_numbers() -> None:
    replay = ReplayBuffer(4)
    replay.add(wide(2, bonus=np.array([1.5, 2.5], ">f4")))
    assert set(replay.sample(30)["bonus"].tolist()) == {1.5, 2.5}


def test_extra_columns_count_where_memory_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_memory", lambda: 10 * (32 + 40))
    ReplayBuffer(10).add(wide(2, goals=np.ones((2, 10), np.float32)))
    with pytest.raises(ConfigError, match="at most 10 transitions fit"):
        ReplayBuffer(11).add(wide(2, goals=np.ones((2, 10), np.float32)))


@pytest.mark.parametrize(
    "entry",
    [
        [],
        ["object"],
        ["float32", -1],
        ["float32", True],
        ["float32", "9"],
        ["float32", 2**31],
        ["float32", *[1] * 32],  # with the rows one dimension more than all of NumPy has
        "float32",
        3,
        None,
    ],
)
def test_an_extra_column_that_can_not_be_is_no_state(entry: Any) -> None:
    replay = ReplayBuffer(4)
    replay.add(wide(2, bonus=np.ones(2, np.float32)))
    state = replay.get_state()
    with pytest.raises(RunError, match="invalid extra column 'bonus'"):
        ReplayBuffer(4).set_state(state | {"extras.bonus": entry})
    with pytest.raises(RunError, match="invalid extra column 'rewards'"):
        ReplayBuffer(4).set_state(state | {"extras.rewards": ["float32"]})


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda rows: {name: rows[name] for name in rows if name != "bonus"}, "do not fit: needs .*bonus"),
        (lambda rows: rows | {"malus": rows["bonus"]}, "malus do not fit"),
        (lambda rows: rows | {"bonus": rows["bonus"].astype(np.float64)}, "bonus does not fit: float64"),
        (lambda rows: rows | {"bonus": rows["bonus"][:, None]}, r"bonus does not fit: .*\(2, 1\)"),
        (lambda rows: rows | {"rewards": rows["rewards"][:, None]}, r"rewards does not fit: .*\(2, 1\)"),
        (lambda rows: rows | {"actions": rows["actions"].astype(np.int8)}, "actions does not fit: int8"),
        (lambda rows: rows | {"next_states": rows["next_states"][:, :1]}, r"next_states does not fit: .*\(2, 1\)"),
    ],
)
def test_rows_of_a_file_that_are_no_rows_of_this_replay_are_refused(
    change: Callable[[Mapping[str, Array]], dict[str, Array]], complaint: str
) -> None:
    replay, fresh = ReplayBuffer(4), ReplayBuffer(4)
    replay.add(wide(2, bonus=np.ones(2, np.float32)))
    fresh.set_state(replay.get_state())
    (series,), stored = fresh.series((2,), np.float32, 2), replay.series((2,), np.float32, 2)[0].get(0, 2)
    with pytest.raises(RunError, match=complaint):
        series.put(0, 2, 0, change(stored))
    series.put(0, 2, 0, stored)


# --- one class ---


@pytest.mark.parametrize("kind", [ReplayBuffer, PrioritizedReplayBuffer])
def test_the_names_of_the_seed_choose_parts_and_change_nothing(kind: type[Replay]) -> None:
    own = {name for each in inspect.getmro(kind) if each not in (Replay, object) for name in vars(each)}
    assert own & vars(Replay).keys() - vars(object).keys() <= {"__init__", "__module__", "__doc__"}
    assert "sample" in vars(Replay)


@pytest.mark.parametrize("name", ["actions", "rewards", "discounts"])
@pytest.mark.parametrize("count", [1, 2, 4])  # one would be repeated in silence
def test_a_column_of_another_length_than_the_others_is_refused(name: str, count: int) -> None:
    rows = wide(3)
    given = {key: getattr(rows, key) for key in ("states", "actions", "rewards", "discounts", "next_states")}
    if name == "actions":  # they say how many there are
        given |= {key: np.concatenate([given[key]] * 2)[:count] for key in given if key != "actions"}
    else:
        given[name] = np.ones(count, np.float32)
    replay = ReplayBuffer(4)
    with pytest.raises(ConfigError, match=rf"\w+: got {count} for 3 transitions"):
        replay.add(Transitions(**given))
    assert (len(replay), replay.nbytes) == (0, 0)
