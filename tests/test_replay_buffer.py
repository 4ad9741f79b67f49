"""The uniform replay: the seed's interface, the ring against a plain list, sampling, and what it refuses."""

import io
import os
import re
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nexus.core import ConfigError, Transitions
from nexus.data import memory
from nexus.data.memory import available_memory, memory_on, replay_bytes
from nexus.data.replay_buffer import ReplayBuffer
from nexus.data.rows import Rows
from nexus.data.uniform import Uniform


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


def numbers(replay: ReplayBuffer) -> list[int]:
    """The numbers of the stored rows, oldest first, after checking that their columns belong together."""
    found = []
    for state, action, reward, next_state, done in replay.buffer:
        number = int(state[0])
        assert state.tolist() == [number, -number]
        assert (action, reward, done) == (number % 5, number * 0.5, number % 3 == 0)
        assert next_state.tolist() == [number + 0.25, number]
        found.append(number)
    return found


def filled_by_push(count: int, capacity: int, seed: int = 0) -> ReplayBuffer:
    replay = ReplayBuffer(capacity, seed)
    for number in range(count):
        state, after = np.array([number, -number], np.float32), np.array([number + 0.25, number], np.float32)
        replay.push(state, number % 5, number * 0.5, after, number % 3 == 0)
    return replay


def filled_by_add(count: int, capacity: int, seed: int = 0) -> ReplayBuffer:
    replay = ReplayBuffer(capacity, seed)
    replay.add(rows(0, count))
    return replay


def arrays_of(replay: ReplayBuffer) -> list[np.ndarray[Any, Any]]:
    """All that it holds, wherever it keeps them."""
    values = {**vars(replay.storage), **vars(replay.sampler), **vars(replay)}
    nested = [part for value in values.values() if isinstance(value, dict) for part in value.values()]
    return [value for value in [*values.values(), *nested] if isinstance(value, np.ndarray)]


# --- the seed's interface ---


def test_a_new_replay_is_empty() -> None:
    replay = ReplayBuffer(4)
    assert (len(replay), list(replay.buffer), replay.nbytes, replay.reward_summary()) == (0, [], 0, {})


def test_zip_of_the_buffer_gives_five_columns() -> None:
    states, actions, rewards, next_states, dones = zip(*filled_by_push(4, 10).buffer, strict=True)
    np.testing.assert_array_equal(np.stack(states), [[0, 0], [1, -1], [2, -2], [3, -3]])
    assert actions == (0, 1, 2, 3)
    assert rewards == (0.0, 0.5, 1.0, 1.5)
    np.testing.assert_array_equal(np.stack(next_states), [[0.25, 0], [1.25, 1], [2.25, 2], [3.25, 3]])
    assert dones == (True, False, False, True)


def test_the_buffer_runs_from_the_oldest_to_the_newest_after_wrap_around() -> None:
    replay = filled_by_push(7, capacity=5)
    assert len(replay) == len(replay.buffer) == 5
    assert numbers(replay) == [2, 3, 4, 5, 6]
    assert int(replay.buffer[-1][0][0]) == 6
    assert [int(row[0][0]) for row in replay.buffer[1:3]] == [3, 4]
    with pytest.raises(IndexError):
        replay.buffer[5]


def test_a_batch_of_pushed_rows_has_dones() -> None:
    batch = filled_by_push(9, 10).sample(64)
    assert set(batch) == {"states", "actions", "rewards", "next_states", "dones", "weights", "indices"}
    number = batch["states"][:, 0]
    assert batch["dones"].tolist() == (number % 3 == 0).float().tolist()
    assert 0 < batch["dones"].sum() < 64


def test_a_batch_of_added_rows_has_discounts() -> None:
    batch = filled_by_add(9, 10).sample(64)
    assert set(batch) == {"states", "actions", "rewards", "next_states", "discounts", "weights", "indices"}
    number = batch["states"][:, 0].numpy()
    np.testing.assert_array_equal(batch["discounts"], np.where(number % 3 == 0, 0, 0.9).astype(np.float32))


def test_the_columns_of_a_sampled_row_belong_together() -> None:
    batch = filled_by_add(12, capacity=8).sample(200)
    number = batch["states"][:, 0]
    assert number.min() == 4  # 0 to 3 were overwritten
    torch.testing.assert_close(batch["states"][:, 1], -number)
    torch.testing.assert_close(batch["actions"], number.long() % 5)
    torch.testing.assert_close(batch["rewards"], number * 0.5)
    torch.testing.assert_close(batch["next_states"], torch.stack([number + 0.25, number], dim=1))
    torch.testing.assert_close(batch["indices"], number.long() % 8)
    assert batch["weights"].tolist() == [1.0] * 200


def test_shapes_and_dtypes_of_a_batch() -> None:
    batch = filled_by_add(3, 10).sample(6)
    found = {key: (tuple(value.shape), value.dtype) for key, value in batch.items()}
    assert found == {
        "states": ((6, 2), torch.float32),
        "actions": ((6,), torch.int64),
        "rewards": ((6,), torch.float32),
        "discounts": ((6,), torch.float32),
        "next_states": ((6, 2), torch.float32),
        "weights": ((6,), torch.float32),
        "indices": ((6,), torch.int64),
    }


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_states_keep_the_dtype_of_the_environment(dtype: type[np.generic]) -> None:
    state = np.array([[0, 128], [255, 3]]).astype(dtype)
    replay = ReplayBuffer(3)
    replay.push(state, 0, 0.0, state, False)
    assert replay.buffer[0][0].dtype == replay.buffer[0][3].dtype == dtype
    batch = replay.sample(1)
    np.testing.assert_array_equal(batch["states"].numpy()[0], state, strict=True)
    np.testing.assert_array_equal(batch["next_states"].numpy()[0], state, strict=True)


def test_a_sampled_batch_and_a_stored_state_share_no_memory_with_the_replay() -> None:
    state = np.zeros(2, np.float32)
    replay = ReplayBuffer(2)
    replay.push(state, 0, 0.0, state, False)
    state += 1
    batch = replay.sample(1)
    assert batch["states"].sum() == 0
    batch["states"].add_(5)
    assert replay.sample(1)["states"].sum() == 0


# --- the ring ---


@settings(deadline=None, max_examples=100)
@given(capacity=st.integers(1, 8), counts=st.lists(st.integers(0, 20), max_size=8))
def test_the_ring_holds_what_a_list_of_the_last_rows_holds(capacity: int, counts: list[int]) -> None:
    replay, oracle = ReplayBuffer(capacity), list[int]()
    for count in counts:
        replay.add(rows(len(oracle), count))
        oracle += range(len(oracle), len(oracle) + count)
        assert len(replay) == min(len(oracle), capacity)
        assert numbers(replay) == oracle[-capacity:]


def test_of_more_rows_than_capacity_the_last_stay() -> None:
    assert numbers(filled_by_add(13, capacity=5)) == [8, 9, 10, 11, 12]


def test_adding_nothing_decides_nothing() -> None:
    replay = ReplayBuffer(3)
    replay.add(rows(0, 0))
    replay.push(np.zeros(7), 0, 0.0, np.zeros(7), False)
    assert len(replay) == 1


def test_the_reward_summary_reads_the_stored_rewards_and_no_others() -> None:
    assert filled_by_add(4, 100).reward_summary() == {"min": 0.0, "mean": 0.75, "max": 1.5}
    assert filled_by_add(7, 3).reward_summary() == {"min": 2.0, "mean": 2.5, "max": 3.0}


# --- sampling ---


def test_every_stored_row_is_drawn_equally_often() -> None:
    counts = torch.bincount(filled_by_add(10, 16).sample(20_000)["indices"], minlength=16)
    assert counts[10:].sum() == 0  # never an unwritten row
    assert (counts[:10] - 2_000).abs().max() < 5 * (20_000 * 0.1 * 0.9) ** 0.5


def test_the_same_seed_draws_the_same_batches_and_another_seed_others() -> None:
    def draws(seed: int) -> list[list[int]]:
        replay = filled_by_add(50, 50, seed)
        return [replay.sample(8)["indices"].tolist() for _ in range(3)]

    assert draws(1) == draws(1)
    assert draws(1) != draws(2)
    assert draws(1)[0] != draws(1)[1]


def test_a_generator_in_place_of_a_seed_is_used_as_it_is() -> None:
    rng = np.random.default_rng(5)
    replay = ReplayBuffer(50, rng)
    replay.add(rows(0, 50))
    expected = np.random.default_rng(5).integers(50, size=8)
    assert replay.sample(8)["indices"].tolist() == expected.tolist()


def test_rows_and_weights_are_on_the_device_that_gathers_the_batch() -> None:
    replay, draws = Rows(4), np.array([3, 0, 1])
    picked, weights, _ = Uniform(0).pick(draws, replay)
    assert picked is draws  # main memory: not even a copy
    assert weights.tolist() == [1.0, 1.0, 1.0]
    elsewhere = torch.device("meta")  # a device without numbers, which every machine has
    picked, weights, _ = Uniform(0, elsewhere).pick(torch.from_numpy(draws), replay)
    assert isinstance(picked, torch.Tensor)
    assert (picked.device, picked.shape, weights.device, weights.shape) == (elsewhere, (3,), elsewhere, (3,))


def test_new_priorities_change_nothing() -> None:
    replay, untouched = filled_by_add(50, 50), filled_by_add(50, 50)
    replay.update_priorities(torch.arange(50), torch.arange(50.0) * 1e6)
    assert replay.sample(64)["indices"].tolist() == untouched.sample(64)["indices"].tolist()
    assert numbers(replay) == list(range(50))


# --- memory ---


@pytest.mark.parametrize(
    ("shape", "dtype"), [((4,), np.float32), ((4, 84, 84), np.uint8), ((3,), np.float64), ((), np.int64)]
)
def test_nbytes_is_what_the_arrays_take(shape: tuple[int, ...], dtype: type[np.generic]) -> None:
    replay = ReplayBuffer(11)
    replay.push(np.zeros(shape, dtype), 0, 0.0, np.zeros(shape, dtype), False)
    real = sum(array.nbytes for array in arrays_of(replay))
    assert replay.nbytes == real == replay_bytes(11, shape, dtype)


def test_the_bytes_of_a_million_atari_transitions() -> None:
    assert replay_bytes(1_000_000, (4, 84, 84), np.uint8) == 1_000_000 * (2 * 28_224 + 16)


def test_a_replay_that_does_not_fit_is_refused_before_anything_is_allocated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def allocate(*_: Any, **__: Any) -> NoReturn:
        pytest.fail("allocated before the check")

    monkeypatch.setattr(memory, "available_memory", lambda: 3_200)
    monkeypatch.setattr(np, "empty", allocate)
    replay = ReplayBuffer(101)
    with pytest.raises(ConfigError, match=r"replay_capacity = 101 .*at most 100 transitions fit"):
        replay.push(np.zeros(2, np.float32), 0, 0.0, np.zeros(2, np.float32), False)  # 32 bytes a row
    assert (len(replay), replay.nbytes, arrays_of(replay)) == (0, 0, [])


@pytest.mark.parametrize("free", [3_200, None])
def test_a_replay_that_just_fits_or_whose_room_is_unknown_is_made(
    free: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "available_memory", lambda: free)
    assert len(filled_by_push(1, capacity=100)) == 1


def test_the_free_memory_is_some_number_of_bytes() -> None:
    free = available_memory()
    assert free is None or 1e6 < free < 1e15


def test_the_free_memory_is_what_the_system_says_in_kibibytes(monkeypatch: pytest.MonkeyPatch) -> None:
    said = "MemTotal:       9000 kB\nMemFree:        5 kB\nMemAvailable:       2048 kB\n"
    monkeypatch.setattr(memory, "open", lambda *_, **__: io.StringIO(said), raising=False)
    assert available_memory() == memory_on(torch.device("cpu")) == 2_097_152


def test_without_that_file_the_free_memory_is_that_of_the_machine_or_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any, **__: Any) -> NoReturn:
        raise FileNotFoundError

    monkeypatch.setattr(memory, "open", missing, raising=False)
    monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": 1_000, "SC_PAGE_SIZE": 4_096}.__getitem__)
    assert available_memory() == 4_096_000
    monkeypatch.delattr(os, "sysconf")  # as on Windows
    assert available_memory() is None


def test_the_free_memory_of_a_gpu_is_asked_of_it_and_that_of_other_devices_is_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (3_000, 8_000))  # free and total
    assert memory_on(torch.device("cuda")) == 3_000
    assert memory_on(torch.device("mps")) is None


# --- what is refused ---


def test_a_capacity_below_one_is_refused() -> None:
    with pytest.raises(ConfigError, match="capacity = 0: needs at least 1"):
        ReplayBuffer(0)


def test_sampling_an_empty_replay_is_refused() -> None:
    with pytest.raises(ConfigError, match="empty"):
        ReplayBuffer(3).sample(1)


def test_mixing_push_and_add_is_refused_and_writes_nothing() -> None:
    pushed, added = filled_by_push(2, 5), filled_by_add(2, 5)
    with pytest.raises(ConfigError, match="push or by add"):
        pushed.add(rows(2, 1))
    with pytest.raises(ConfigError, match="push or by add"):
        added.push(np.zeros(2, np.float32), 0, 0.0, np.zeros(2, np.float32), False)
    assert numbers(pushed) == numbers(added) == [0, 1]


@pytest.mark.parametrize("shape", [(3,), (1,), (), (2, 2)])
def test_a_state_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    replay = filled_by_push(2, 5)
    with pytest.raises(ConfigError, match="shape"):
        replay.push(np.zeros(shape, np.float32), 0, 0.0, np.zeros(shape, np.float32), False)
    assert numbers(replay) == [0, 1]


@pytest.mark.parametrize("stored", [0, 2])
@pytest.mark.parametrize("shape", [(3,), (1,), ()])  # (1,) and () would broadcast in silence
def test_a_next_state_of_another_shape_than_the_state_is_refused(shape: tuple[int, ...], stored: int) -> None:
    replay = filled_by_push(stored, 5)
    with pytest.raises(ConfigError, match=re.escape(f"needs the shape of its state, (2,), got {shape}")):
        replay.push(np.zeros(2, np.float32), 0, 0.0, np.zeros(shape, np.float32), False)
    assert len(replay) == stored


def test_a_state_that_the_dtype_of_the_first_one_would_cut_is_refused() -> None:
    replay = ReplayBuffer(5)
    replay.push([0, 0], 0, 0.0, [0, 1], False)  # whole numbers, by chance
    with pytest.raises(ConfigError, match="float64"):
        replay.push([0.5, 0.7], 0, 0.0, [0.5, 0.9], False)
