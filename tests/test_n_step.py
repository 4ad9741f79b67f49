"""Folding steps: small cases by hand, then a slow and obviously right oracle on random sequences."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nexus.core.types import Transitions
from nexus.data.n_step import NStepAccumulator


class Cell(NamedTuple):
    """One environment's part of one vector step."""

    reward: float
    terminated: bool = False
    truncated: bool = False
    valid: bool = True


class Folded(NamedTuple):
    """One folded transition; states are named by the environment and the time of their step."""

    env: int
    start: int
    action: int
    reward: float
    discount: float
    end: int  # the step whose next_state it bootstraps from
    emitted: int  # the step whose push returned it


PHANTOM = Cell(reward=99.0, valid=False)


def action_of(env: int, time: int) -> int:
    return 10 * time + env


def fold(rows: Sequence[Sequence[Cell]], n: int, gamma: float) -> list[Folded]:
    """What `NStepAccumulator` makes of `rows[time][env]`, in the order in which it gives it."""
    accumulator = NStepAccumulator(len(rows[0]), n, gamma)
    return [folded for time, row in enumerate(rows) for folded in unpack(push(accumulator, time, row), time)]


def push(accumulator: NStepAccumulator, time: int, row: Sequence[Cell]) -> Transitions:
    envs = range(len(row))
    return accumulator.push(
        states=np.array([[env, time] for env in envs], np.float64),
        actions=np.array([action_of(env, time) for env in envs]),
        rewards=np.array([cell.reward for cell in row]),
        next_states=np.array([[env, time + 0.5] for env in envs], np.float64),  # no state equals a next_state
        terminated=np.array([cell.terminated for cell in row]),
        truncated=np.array([cell.truncated for cell in row]),
        valid=np.array([cell.valid for cell in row]),
    )


def unpack(out: Transitions, emitted: int) -> list[Folded]:
    assert out.next_states[:, 0].tolist() == out.states[:, 0].tolist(), "a transition spans two environments"
    columns = zip(out.states, out.actions, out.rewards, out.discounts, out.next_states, strict=True)
    return [
        Folded(int(s[0]), int(s[1]), int(a), float(r), float(d), int(after[1] - 0.5), emitted)
        for s, a, r, d, after in columns
    ]


def oracle(rows: Sequence[Sequence[Cell]], n: int, gamma: float) -> list[Folded]:
    """The same by plain loops over whole episodes, one environment after the other."""
    folded = []
    for env in range(len(rows[0])):
        for episode in episodes([row[env] for row in rows]):
            last = rows[episode[-1]][env]
            ended = last.terminated or last.truncated
            for i, start in enumerate(episode):
                window = episode[i : i + n]
                if len(window) < n and not ended:
                    continue  # still open
                reward = sum(gamma**k * rows[time][env].reward for k, time in enumerate(window))
                discount = 0.0 if rows[window[-1]][env].terminated else gamma ** len(window)
                action = action_of(env, start)
                folded.append(Folded(env, start, action, reward, discount, window[-1], window[-1]))
    return folded


def episodes(cells: Sequence[Cell]) -> list[list[int]]:
    """The times of each episode's steps; the last episode may be unfinished."""
    found: list[list[int]] = [[]]
    for time, cell in enumerate(cells):
        if cell.valid:
            found[-1].append(time)
        if cell.terminated or cell.truncated:
            found.append([])
    return [episode for episode in found if episode]


@st.composite
def vector_steps(draw: st.DrawFn) -> list[list[Cell]]:
    """`rows[time][env]`, with or without the phantom row after an end that next-step autoreset produces."""
    num_envs, length = draw(st.integers(1, 5)), draw(st.integers(1, 25))
    next_step = draw(st.booleans())
    ends = st.sampled_from([(False, False)] * 4 + [(True, False), (False, True), (True, True)])
    columns = []
    for _ in range(num_envs):
        column: list[Cell] = []
        for _ in range(length):
            if next_step and column and (column[-1].terminated or column[-1].truncated):
                column.append(PHANTOM)
            else:
                column.append(Cell(float(draw(st.integers(-9, 9))), *draw(ends)))
        columns.append(column)
    return [list(row) for row in zip(*columns, strict=True)]


@settings(deadline=None, max_examples=150)
@given(rows=vector_steps(), n=st.integers(1, 6), gamma=st.sampled_from([0.0, 0.5, 0.9, 1.0]))
def test_random_sequences_fold_as_the_oracle_folds_them(rows: list[list[Cell]], n: int, gamma: float) -> None:
    actual, expected = sorted(fold(rows, n, gamma)), sorted(oracle(rows, n, gamma))
    keys = [(row.env, row.start, row.action, row.end, row.emitted) for row in actual]
    assert keys == [(row.env, row.start, row.action, row.end, row.emitted) for row in expected]
    np.testing.assert_allclose([r.reward for r in actual], [r.reward for r in expected], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose([r.discount for r in actual], [r.discount for r in expected], rtol=1e-6)


@settings(deadline=None, max_examples=50)
@given(rows=vector_steps(), n=st.integers(1, 6))
def test_what_one_push_returns_is_ordered_oldest_first(rows: list[list[Cell]], n: int) -> None:
    order = [(row.emitted, row.start) for row in fold(rows, n, 0.5)]
    assert order == sorted(order)


def test_a_termination_closes_every_open_window_without_bootstrap() -> None:
    rows = [[Cell(1.0)], [Cell(2.0)], [Cell(4.0)], [Cell(8.0, terminated=True)], [Cell(99.0)]]
    assert fold(rows, n=3, gamma=0.5) == [
        Folded(0, 0, 0, 1 + 1 + 1, 0.125, end=2, emitted=2),
        Folded(0, 1, 10, 2 + 2 + 2, 0.0, end=3, emitted=3),
        Folded(0, 2, 20, 4 + 4, 0.0, end=3, emitted=3),
        Folded(0, 3, 30, 8, 0.0, end=3, emitted=3),
    ]


def test_a_truncation_closes_every_open_window_and_keeps_the_bootstrap_of_its_true_length() -> None:
    rows = [[Cell(1.0)], [Cell(2.0)], [Cell(4.0)], [Cell(8.0, truncated=True)], [Cell(99.0)]]
    assert fold(rows, n=3, gamma=0.5) == [
        Folded(0, 0, 0, 1 + 1 + 1, 0.125, end=2, emitted=2),
        Folded(0, 1, 10, 2 + 2 + 2, 0.125, end=3, emitted=3),
        Folded(0, 2, 20, 4 + 4, 0.25, end=3, emitted=3),
        Folded(0, 3, 30, 8, 0.5, end=3, emitted=3),
    ]


def test_an_episode_shorter_than_n_is_kept_whole() -> None:
    rows = [[Cell(1.0)], [Cell(2.0, terminated=True)]]
    assert fold(rows, n=5, gamma=0.5) == [
        Folded(0, 0, 0, 2.0, 0.0, end=1, emitted=1),
        Folded(0, 1, 10, 2.0, 0.0, end=1, emitted=1),
    ]


def test_a_step_that_terminates_and_is_truncated_at_once_has_no_bootstrap() -> None:
    rows = [[Cell(1.0, terminated=True, truncated=True)]]
    assert fold(rows, n=3, gamma=0.5) == [Folded(0, 0, 0, 1.0, 0.0, end=0, emitted=0)]


def test_an_end_in_one_environment_leaves_the_windows_of_its_neighbour_open() -> None:
    rows = [[Cell(1.0), Cell(1.0)], [Cell(2.0, terminated=True), Cell(2.0)], [Cell(9.0), Cell(4.0)]]
    neighbour = [row for row in fold(rows, n=3, gamma=0.5) if row.env == 1]
    assert neighbour == [Folded(1, 0, 1, 1 + 1 + 1, 0.125, end=2, emitted=2)]


def test_a_phantom_row_is_neither_a_start_nor_part_of_the_next_episode() -> None:
    rows = [[Cell(1.0, truncated=True)], [PHANTOM], [Cell(2.0)], [Cell(4.0)]]
    assert fold(rows, n=2, gamma=0.5) == [
        Folded(0, 0, 0, 1.0, 0.5, end=0, emitted=0),
        Folded(0, 2, 20, 2 + 2, 0.25, end=3, emitted=3),
    ]


def test_one_step_is_the_step_itself_to_the_bit() -> None:
    rng = np.random.default_rng(0)
    accumulator = NStepAccumulator(4, n=1, gamma=0.99)
    for _ in range(20):
        states, next_states = rng.normal(size=(2, 4, 3)).astype(np.float32)
        actions, rewards = rng.integers(5, size=4), rng.normal(size=4)
        terminated, truncated = rng.random((2, 4)) < 0.3
        out = accumulator.push(states, actions, rewards, next_states, terminated, truncated, np.ones(4, bool))
        np.testing.assert_array_equal(out.states, states)
        np.testing.assert_array_equal(out.actions, actions)
        np.testing.assert_array_equal(out.rewards, rewards.astype(np.float32))
        np.testing.assert_array_equal(out.discounts, np.where(terminated, 0, 0.99).astype(np.float32))
        np.testing.assert_array_equal(out.next_states, next_states)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_states_keep_their_dtype_and_the_numbers_are_single_precision(dtype: type[np.generic]) -> None:
    states = np.arange(6).reshape(2, 3).astype(dtype)
    flags = np.zeros(2, bool)
    out = NStepAccumulator(2, 1, 0.9).push(states, np.zeros(2), np.zeros(2), states, flags, flags, ~flags)
    assert out.states.dtype == out.next_states.dtype == dtype
    assert out.actions.dtype == np.int64
    assert out.rewards.dtype == out.discounts.dtype == np.float32


def test_what_was_returned_does_not_change_with_later_pushes() -> None:
    accumulator = NStepAccumulator(1, 2, 0.5)
    push(accumulator, 0, [Cell(1.0)])
    out = push(accumulator, 1, [Cell(2.0)])
    before = unpack(out, 1)
    push(accumulator, 2, [Cell(4.0)])
    push(accumulator, 3, [Cell(8.0)])
    assert unpack(out, 1) == before
