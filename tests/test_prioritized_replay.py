"""Prioritized replay: the sum tree against a plain running sum, what is drawn, its weights, and what is refused."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nexus.core import ConfigError, Transitions
from nexus.data import memory
from nexus.data.prioritized_replay_buffer import PRIORITY_OFFSET, PrioritizedReplayBuffer
from nexus.data.replay_buffer import ReplayBuffer
from nexus.data.sum_tree import SumTree

Array = np.ndarray[Any, Any]

HOSTILE = [0.0, 5e-324, 1e-300, 1e-20, 0.1, 1.0, 3.0, 1e16, 1e300]


def rows(first: int, count: int) -> Transitions:
    """`count` transitions whose every column tells their number."""
    number = np.arange(first, first + count)
    return Transitions(
        states=np.stack([number, -number], axis=1).astype(np.float32),
        actions=number % 5,
        rewards=(number * 0.5).astype(np.float32),
        discounts=np.where(number % 3 == 0, 0.0, 0.9).astype(np.float32),
        next_states=np.stack([number + 0.25, number], axis=1).astype(np.float32),
    )


def filled(count: int, capacity: int | None = None, **settings: Any) -> PrioritizedReplayBuffer:
    replay = PrioritizedReplayBuffer(count if capacity is None else capacity, **settings)
    replay.add(rows(0, count))
    return replay


def prioritized(priorities: list[float], **settings: Any) -> PrioritizedReplayBuffer:
    replay = filled(len(priorities), **settings)
    replay.update_priorities(torch.arange(len(priorities)), torch.tensor(priorities))
    return replay


def in_tree(replay: PrioritizedReplayBuffer) -> Array:
    """What every row, written or not, is drawn in proportion to."""
    return replay.priorities._tree.get(np.arange(replay.capacity))


def tree_of(values: Array, fan_out: int = 32) -> SumTree:
    tree = SumTree(len(values), fan_out)
    tree.set(np.arange(len(values)), values)
    return tree


# --- the sum tree ---


@settings(deadline=None, max_examples=200)
@given(
    capacity=st.integers(1, 80),
    fan_out=st.sampled_from([2, 3, 4, 32]),
    changes=st.lists(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 9)), max_size=30), max_size=8),
    shares=st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=20),
)
def test_the_tree_finds_what_a_running_sum_over_all_numbers_finds(
    capacity: int, fan_out: int, changes: list[list[tuple[int, int]]], shares: list[float]
) -> None:
    tree, oracle = SumTree(capacity, fan_out), np.zeros(capacity)
    for change in changes:
        indices = np.array([index % capacity for index, _ in change], np.int64)
        tree.set(indices, np.array([value for _, value in change], np.float64))
        for index, (_, value) in zip(indices, change, strict=True):
            oracle[index] = value
        np.testing.assert_array_equal(tree.get(np.arange(capacity)), oracle)
        assert tree.total == oracle.sum()  # whole numbers: every sum is exact
        if oracle.any():
            masses = np.array([*shares, 0.0]) * oracle.sum()
            masses = np.concatenate([masses, oracle.cumsum()[oracle.cumsum() < oracle.sum()]])  # and every border
            np.testing.assert_array_equal(tree.find(masses), oracle.cumsum().searchsorted(masses, side="right"))


@settings(deadline=None, max_examples=200)
@given(
    values=st.lists(st.sampled_from(HOSTILE), min_size=1, max_size=120).filter(any),
    fan_out=st.sampled_from([2, 3, 8]),
    shares=st.lists(st.floats(0, 1), max_size=20),
)
def test_a_number_of_0_is_never_found(values: list[float], fan_out: int, shares: list[float]) -> None:
    oracle = np.array(values)
    tree = tree_of(oracle, fan_out)
    ends = oracle.cumsum()
    masses = np.array([*shares, 0.0, 1.0]) * tree.total
    found = tree.find(np.concatenate([masses, ends, np.nextafter(ends, 0), np.nextafter(ends, math.inf)]))
    assert (oracle[found] > 0).all()


@pytest.mark.parametrize("seed", range(5))
def test_a_mass_at_the_very_end_of_a_node_finds_no_0_at_its_borders(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.exponential(size=(2_000, 32)) * (rng.random((2_000, 1)) < 0.2)
    values[:, [0, 1, -1]] = 0
    tree = tree_of(values.reshape(-1))
    ends = values.sum(axis=1).cumsum()
    for near in (np.nextafter(ends, 0), ends, np.nextafter(ends, math.inf), ends * (1 + 1e-13)):
        assert (values.reshape(-1)[tree.find(near)] > 0).all()


def test_a_million_numbers_take_three_levels_and_little_more_than_their_own_bytes() -> None:
    tree = SumTree(1_000_000)
    assert len(tree._levels) + 1 == 3
    assert 8_000_000 <= tree.nbytes < 8_300_000
    arrays = [*tree._levels, tree._top, tree._running]
    assert tree.nbytes == sum(array.nbytes for array in arrays)
    assert [len(SumTree(width)._levels) + 1 for width in (1, 1_024, 1_025, 32_768, 32_769)] == [1, 1, 2, 2, 3]


def test_after_millions_of_changes_every_sum_is_that_of_a_new_tree() -> None:
    rng, tree, oracle = np.random.default_rng(0), SumTree(40_000), np.zeros(40_000)
    for _ in range(2_000):
        indices, values = rng.integers(40_000, size=1_000), rng.choice([1e-9, 1.0, 1e9], 1_000) * rng.random(1_000)
        tree.set(indices, values)
        oracle[indices] = values
    new = tree_of(oracle)
    for ours, theirs in zip([*tree._levels, tree._running], [*new._levels, new._running], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert tree.total == pytest.approx(math.fsum(oracle), rel=1e-14)
    tree.set(np.arange(40_000), np.zeros(40_000))
    assert tree.total == 0.0


def test_a_tree_of_nothing_but_0_finds_nothing() -> None:
    with pytest.raises(ValueError, match="every number is 0"):
        SumTree(100).find(np.zeros(1))


# --- what is drawn ---


@pytest.mark.parametrize("priority_exponent", [0.0, 0.5, 1.0])
def test_rows_are_drawn_as_often_as_the_closed_form_says(priority_exponent: float) -> None:
    priorities = [0.1, 5.0, 1.0, 0.0, 2.0, 40.0, 1.0]
    replay = prioritized(priorities, priority_exponent=priority_exponent)
    draws = torch.cat([replay.sample(50)["indices"] for _ in range(1_000)])
    scaled = (np.array(priorities) + PRIORITY_OFFSET) ** priority_exponent
    expected = 50_000 * scaled / scaled.sum()
    counts = np.bincount(draws, minlength=7)
    assert (np.abs(counts - expected) <= 5 * np.sqrt(expected) + 1).all(), (counts, expected)


@pytest.mark.parametrize("seed", range(20))
def test_each_equal_segment_of_the_total_is_hit_exactly_once(seed: int) -> None:
    indices = filled(512, seed=seed).sample(32)["indices"]
    assert (indices // 16).tolist() == list(range(32))
    assert len(set((indices % 16).tolist())) > 4  # and not always at the same place


def test_each_segment_is_hit_once_whatever_the_priorities() -> None:
    replay = prioritized([float(number % 7) ** 3 for number in range(200)])
    ends = in_tree(replay).cumsum()
    for _ in range(50):
        indices = replay.sample(16)["indices"].numpy()
        segment = ends[-1] / 16 * np.arange(17)
        assert (ends[indices] > segment[:-1]).all()
        assert ((ends - in_tree(replay))[indices] < segment[1:]).all()


def test_an_unwritten_row_is_never_drawn_and_the_newest_is() -> None:
    replay = filled(10, capacity=5_000)
    indices = torch.cat([replay.sample(40)["indices"] for _ in range(100)])
    assert set(indices.tolist()) == set(range(10))


def test_equal_priorities_draw_uniformly_with_weights_of_1() -> None:
    replay = prioritized([0.7] * 10)
    batches = [replay.sample(64) for _ in range(400)]
    assert all(batch["weights"].tolist() == [1.0] * 64 for batch in batches)
    counts = torch.bincount(torch.cat([batch["indices"] for batch in batches]))
    assert (counts - 2_560).abs().max() < 5 * (25_600 * 0.1 * 0.9) ** 0.5


def test_the_same_seed_draws_the_same_batches_and_another_seed_others() -> None:
    def draws(seed: int | np.random.Generator) -> list[list[int]]:
        replay = filled(500, seed=seed)
        return [replay.sample(8)["indices"].tolist() for _ in range(3)]

    assert draws(1) == draws(1) == draws(np.random.default_rng(1))
    assert draws(1) != draws(2)
    assert draws(1)[0] != draws(1)[1]


# --- importance weights ---

# By hand, for p = 1, 2, 4 and 1/4 at β = 1: the lowest p of the batch over each. Over the whole replay
# instead, row 0 would weigh 1/4 in the first batch.
BY_HAND = {
    (0, 2): [1, 1 / 4],
    (1, 2): [1, 1 / 2],
    (2, 2): [1, 1],
    (0, 3): [1 / 4, 1],
    (1, 3): [1 / 8, 1],
    (2, 3): [1 / 16, 1],
}


@pytest.mark.parametrize("importance_exponent", [0.0, 0.5, 1.0])
def test_the_weights_are_those_computed_by_hand(importance_exponent: float) -> None:
    replay = prioritized([1.0, 4.0, 16.0, 0.0625], importance_exponent=importance_exponent)
    seen = set()
    for _ in range(800):
        batch = replay.sample(2)
        pair = (int(batch["indices"][0]), int(batch["indices"][1]))
        expected = np.array(BY_HAND[pair]) ** importance_exponent
        np.testing.assert_allclose(batch["weights"], expected, rtol=2e-5)
        seen.add(pair)
    assert seen == set(BY_HAND)


def test_at_full_correction_the_expected_gradient_is_the_uniform_one() -> None:
    rng = np.random.default_rng(3)
    gradients = rng.normal(size=12)
    replay = prioritized(list(np.exp(gradients)), priority_exponent=0.8, importance_exponent=1.0)
    batch = replay.sample(20_000)
    weights = np.zeros(12)
    weights[batch["indices"].numpy()] = batch["weights"].numpy()
    assert (weights > 0).all()  # all were drawn
    chance = in_tree(replay) / in_tree(replay).sum()
    expected = (chance * weights * gradients).sum() / (chance * weights).sum()
    assert expected == pytest.approx(gradients.mean(), rel=1e-6)
    drawn = np.average(gradients[batch["indices"].numpy()], weights=batch["weights"].numpy())
    assert drawn == pytest.approx(gradients.mean(), abs=0.002)
    assert abs((chance * gradients).sum() - gradients.mean()) > 0.1  # without weights it is another


def test_the_correction_moves_in_a_straight_line_to_1() -> None:
    replay = prioritized([1.0, 4.0], importance_exponent=0.4)
    for fraction, importance_exponent in ((0.0, 0.4), (0.5, 0.7), (0.25, 0.55), (1.0, 1.0), (1.3, 1.0)):
        replay.anneal(fraction)
        assert replay.priorities.importance_exponent == pytest.approx(importance_exponent)
        weights = next(batch for _ in range(99) if (batch := replay.sample(2))["indices"].tolist() == [0, 1])["weights"]
        np.testing.assert_allclose(weights, [1, 0.5**importance_exponent], rtol=1e-5)


def test_a_uniform_replay_has_nothing_to_anneal() -> None:
    replay = ReplayBuffer(5)
    replay.add(rows(0, 5))
    replay.anneal(1.0)
    assert replay.sample(3)["weights"].tolist() == [1.0] * 3


# --- priorities of rows ---


def scaled(*priorities: float) -> Array:
    return np.sqrt(np.array(priorities) + PRIORITY_OFFSET)


def test_new_rows_enter_at_the_highest_priority_that_ever_was() -> None:
    replay = PrioritizedReplayBuffer(8)
    replay.add(rows(0, 2))
    np.testing.assert_array_equal(in_tree(replay)[:2], scaled(1, 1))
    replay.update_priorities(torch.tensor([0, 1]), torch.tensor([0.25, 0.5]))
    replay.add(rows(2, 1))
    np.testing.assert_array_equal(in_tree(replay)[:3], scaled(0.25, 0.5, 1))  # rows 0 and 1 were once at 1
    replay.update_priorities(torch.tensor([1, 2]), torch.tensor([9.0, 3.0]))
    replay.update_priorities(torch.tensor([1, 0]), torch.tensor([2.0, 0.0]))
    replay.add(rows(3, 2))
    np.testing.assert_array_equal(in_tree(replay), [*scaled(0, 2, 3, 9, 9), 0, 0, 0])


def test_a_row_that_is_overwritten_loses_its_priority() -> None:
    replay = prioritized([0.0, 1.0, 2.0, 3.0])
    replay.add(rows(4, 2))
    np.testing.assert_array_equal(in_tree(replay), scaled(3, 3, 2, 3))
    assert [int(row[0][0]) for row in replay.buffer] == [2, 3, 4, 5]
    replay.add(rows(6, 11))  # more than fit
    np.testing.assert_array_equal(in_tree(replay), scaled(3, 3, 3, 3))
    assert [int(row[0][0]) for row in replay.buffer] == [13, 14, 15, 16]


def test_where_a_row_comes_twice_its_last_priority_stays() -> None:
    replay = prioritized([1.0, 1.0, 1.0])
    replay.update_priorities(torch.tensor([2, 0, 2, 2]), torch.tensor([7.0, 2.0, 9.0, 4.0]))
    np.testing.assert_array_equal(in_tree(replay), scaled(2, 1, 4))


@pytest.mark.parametrize(
    "as_given",
    [
        lambda values: values.double(),
        lambda values: values.bfloat16(),
        lambda values: values.clone().requires_grad_(),
        lambda values: values.repeat_interleave(2)[::2],
        pytest.param(
            lambda values: values.cuda(), marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
        ),
    ],
    ids=["float64", "bfloat16", "with gradient", "strided", "on the GPU"],
)
def test_priorities_come_as_any_tensor(as_given: Callable[[torch.Tensor], torch.Tensor]) -> None:
    replay = filled(3)
    priorities = as_given(torch.tensor([4.0, 0.25]))
    replay.update_priorities(torch.tensor([2, 0], device=priorities.device), priorities)
    np.testing.assert_array_equal(in_tree(replay), scaled(0.25, 1, 4))
    replay.update_priorities(torch.tensor([1], dtype=torch.int32), torch.tensor([2.0]))
    np.testing.assert_array_equal(in_tree(replay), scaled(0.25, 2, 4))
    replay.update_priorities(torch.empty(0, dtype=torch.int64), torch.empty(0))
    np.testing.assert_array_equal(in_tree(replay), scaled(0.25, 2, 4))


# --- the interface of the uniform replay ---


def test_a_batch_of_added_rows_belongs_together() -> None:
    batch = filled(12, capacity=8).sample(200)
    assert list(batch) == ["states", "actions", "rewards", "discounts", "next_states", "weights", "indices"]
    number = batch["states"][:, 0]
    assert number.min() == 4
    assert number.max() == 11
    torch.testing.assert_close(batch["indices"], number.long() % 8)
    torch.testing.assert_close(batch["next_states"], torch.stack([number + 0.25, number], dim=1))
    assert (batch["weights"].dtype, batch["indices"].dtype) == (torch.float32, torch.int64)


def test_pushed_rows_come_back_with_dones_and_priorities() -> None:
    replay = PrioritizedReplayBuffer(3)
    for number in range(4):
        replay.push(np.full(2, number, np.float32), number, 0.5 * number, np.full(2, number + 1), number == 2)
    assert len(replay) == 3
    states, actions, rewards, _, dones = zip(*replay.buffer, strict=True)
    assert [state[0] for state in states] == [1, 2, 3]
    assert (actions, rewards, dones) == ((1, 2, 3), (0.5, 1.0, 1.5), (False, True, False))
    batch = replay.sample(30)
    torch.testing.assert_close(batch["dones"], (batch["actions"] == 2).float())
    np.testing.assert_array_equal(in_tree(replay), scaled(1, 1, 1))
    assert replay.reward_summary() == {"min": 0.5, "mean": 1.0, "max": 1.5}


def test_push_and_add_are_not_mixed_and_a_refused_row_gets_no_priority() -> None:
    replay = filled(2, capacity=5)
    before = in_tree(replay)
    with pytest.raises(ConfigError, match="push or by add"):
        replay.push(np.zeros(2, np.float32), 0, 0.0, np.zeros(2, np.float32), False)
    replay.add(rows(0, 0))
    np.testing.assert_array_equal(in_tree(replay), before)


def test_nbytes_counts_the_rows_and_the_priorities() -> None:
    plain = ReplayBuffer(5_000)
    plain.add(rows(0, 1))
    tree = SumTree(5_000).nbytes
    assert PrioritizedReplayBuffer(5_000).nbytes == tree >= 40_000
    assert filled(1, capacity=5_000).nbytes == plain.nbytes + tree


# --- what is refused ---


@pytest.mark.parametrize("name", ["priority_exponent", "importance_exponent"])
@pytest.mark.parametrize("value", [-0.1, 1.01, math.nan, math.inf])
def test_an_exponent_outside_0_to_1_is_refused(name: str, value: float) -> None:
    exponent: dict[str, Any] = {name: value}
    with pytest.raises(ConfigError, match=f"^{name} = {value}: needs a number from 0 to 1"):
        PrioritizedReplayBuffer(4, **exponent)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf, -math.inf, 1e308])
def test_a_priority_that_no_sum_can_hold_is_refused_and_nothing_is_changed(bad: float, dtype: torch.dtype) -> None:
    replay = filled(4)
    bad = torch.tensor(bad, dtype=dtype).item()  # 1e308 is infinite in float32
    before = in_tree(replay)
    with pytest.raises(ConfigError, match=rf"finite number from 0 .* got {bad} for row 3".replace("+", r"\+")):
        replay.update_priorities(torch.tensor([0, 3, 1]), torch.tensor([5.0, bad, 6.0], dtype=dtype))
    np.testing.assert_array_equal(in_tree(replay), before)
    replay.add(rows(4, 1))
    np.testing.assert_array_equal(in_tree(replay), before)


def test_of_several_priorities_the_one_that_is_wrong_is_named() -> None:
    with pytest.raises(ConfigError, match=r"got -0\.5 for row 1$"):
        filled(4).update_priorities(torch.tensor([2, 3, 1, 0]), torch.tensor([0.0, 7.0, -0.5, -9.0]))


def test_the_largest_priority_is_half_of_what_the_sum_of_all_could_hold() -> None:
    replay = filled(4, priority_exponent=1.0)
    most = 1.7976931348623157e308 / 8
    replay.update_priorities(torch.arange(4), torch.full((4,), most, dtype=torch.float64))
    assert replay.priorities._tree.total == 4 * most
    assert set(replay.sample(4)["weights"].tolist()) == {1.0}
    more = math.nextafter(most, math.inf)
    with pytest.raises(ConfigError, match=r"from 0 to 2e\+307, got 2\.24711641857789\d*e\+307 for row 2$"):
        replay.update_priorities(torch.tensor([2]), torch.tensor([more], dtype=torch.float64))


@pytest.mark.parametrize("row", [-1, 3, 4, 10**9])
def test_a_row_that_the_replay_does_not_hold_is_refused(row: int) -> None:
    replay = filled(3, capacity=4)
    with pytest.raises(ConfigError, match=rf"{row}.* the replay holds 0 to 2"):
        replay.update_priorities(torch.tensor([1, row]), torch.ones(2))


@pytest.mark.parametrize("shape", [(2, 1), (3,), ()])
def test_other_than_one_priority_a_row_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="one priority per row"):
        filled(3).update_priorities(torch.tensor([0, 1]), torch.ones(shape))


def test_an_empty_replay_an_empty_batch_and_no_capacity_are_refused() -> None:
    with pytest.raises(ConfigError, match="empty replay"):
        PrioritizedReplayBuffer(3).sample(1)
    with pytest.raises(ConfigError, match="batch_size = 0"):
        filled(3).sample(0)
    with pytest.raises(ConfigError, match="capacity = 0"):
        PrioritizedReplayBuffer(0)


def test_priorities_that_do_not_fit_into_memory_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_memory", lambda: 8 * 10**6)
    with pytest.raises(ConfigError, match=r"replay_capacity = 2000000 needs 16 MB for priorities, 8 MB are free"):
        PrioritizedReplayBuffer(2_000_000)
    assert PrioritizedReplayBuffer(1_000_000).nbytes > 8 * 10**6  # with its sums a little more than is asked for
