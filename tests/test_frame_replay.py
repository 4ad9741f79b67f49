"""Replay of frames: every store against a replay that keeps every stack whole."""

import json
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
import zstandard
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import FrameStackObservation
from hypothesis import given, settings
from hypothesis import strategies as st

import nexus
from nexus.api import agent_for
from nexus.core.errors import ConfigError, RunError
from nexus.core.state import Series, State
from nexus.core.types import Array, Transitions
from nexus.data import frame_memory
from nexus.data.device_priorities import DevicePriorities
from nexus.data.film import Film
from nexus.data.frame_index import GROUP, FrameIndex
from nexus.data.frame_memory import frame_replay_bytes, require_memory_for_frames
from nexus.data.frame_store import CompressedFrames, Kind
from nexus.data.frames import Frames
from nexus.data.n_step import NStepAccumulator
from nexus.data.prioritized_replay_buffer import Priorities, PrioritizedReplayBuffer
from nexus.data.protocols import Sampler
from nexus.data.replay import Replay
from nexus.data.replay_buffer import ReplayBuffer
from nexus.data.rows import Rows
from nexus.data.uniform import Uniform
from nexus.envs.stream import Step, TransitionStream
from nexus.training import replays
from nexus.training.config import TrainConfig
from nexus.training.loop import Counters, train
from nexus.training.replays import replay_for, saved_bytes, store_for
from tests.probes import Flicker

STORES: tuple[Kind, ...] = ("raw", "compressed", "device")


def stream_of(num_envs: int, stack: int, mode: AutoresetMode, padding: str, mean_length: float) -> TransitionStream:
    def make() -> gym.Env[Any, Any]:
        return FrameStackObservation(Flicker(mean_length), stack, padding_type=padding)

    return TransitionStream(SyncVectorEnv([make] * num_envs, autoreset_mode=mode))


def rows_of(capacity: int, prioritized: bool, seed: int = 0) -> ReplayBuffer:
    return PrioritizedReplayBuffer(capacity, seed) if prioritized else ReplayBuffer(capacity, seed)


def frames_of(
    kind: Kind, capacity: int, prioritized: bool = False, seed: int = 0, n: int = 1, like: Array | None = None
) -> Replay:
    """A replay of frames; that on a device draws by priorities that are there."""
    sampler: Sampler = Uniform(seed)
    if prioritized:
        sampler = DevicePriorities(capacity, seed) if kind == "device" else Priorities(capacity, seed)
    return Replay(Frames(capacity, kind, n, like), sampler)


def film_of(replay: Replay) -> Film:
    """What knows which frames there are, and where."""
    assert isinstance(replay.storage, Frames)
    film = replay.storage._film
    assert film is not None
    return film


class Shelf:
    """The chunks of a replay in memory, written and dropped as the checkpoints of a run do it with files."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self.chunks: dict[str, list[tuple[int, int, dict[str, Array]]]] = {"frames": [], "rows": []}

    def series(self, replay: Replay) -> tuple[Series, ...]:
        return replay.series(self.shape, np.uint8, 2)

    def save(self, replay: Replay) -> None:
        for series in self.series(replay):
            chunks = [chunk for chunk in self.chunks[series.name] if chunk[1] > series.first]
            first = max(series.first, chunks[-1][1] if chunks else 0)
            if first < series.last:
                chunks.append((first, series.last, series.get(first, series.last)))
            self.chunks[series.name] = chunks

    def restore(self, replay: Replay, state: State) -> Replay:
        """Fill a replay; a state goes through JSON but for its arrays."""
        arrays = {name: value for name, value in state.items() if isinstance(value, np.ndarray)}
        replay.set_state({**json.loads(json.dumps({k: v for k, v in state.items() if k not in arrays})), **arrays})
        for series in self.series(replay):
            for first, last, columns in self.chunks[series.name]:
                series.put(first, last, max(first, series.first), columns)
        return replay


def content(replay: Replay, shelf: Shelf) -> State:
    """All that a replay holds, to the byte."""
    found = {
        f"{series.name}.{name}": values
        for series in shelf.series(replay)
        for name, values in series.get(series.first, series.last).items()
    }
    return {**replay.get_state(), **found}


def require_equal(one: State, other: State) -> None:
    assert one.keys() == other.keys()
    for name in one:
        assert np.array_equal(one[name], other[name]), name


class Fed:
    """A replay behind an accumulator of its own, as in the loop."""

    def __init__(self, replay: Any, num_envs: int, n: int) -> None:
        self.replay, self.accumulator, self.next_states = replay, NStepAccumulator(num_envs, n, 0.9), np.empty(0)

    def add(self, step: Any) -> None:
        states, self.next_states = self.replay.remember(step.states, step.next_states, step.begins, step.valid)
        flags = step.terminal, step.truncated, step.valid
        self.replay.add(self.accumulator.push(states, step.actions, step.rewards, self.next_states, *flags))

    def seal(self) -> None:
        self.replay.seal()


@pytest.mark.parametrize("kind", STORES)
@given(
    num_envs=st.integers(1, 4),
    stack=st.integers(2, 5),
    n=st.integers(1, 5),
    capacity=st.integers(1, 60),
    mode=st.sampled_from(AutoresetMode),
    padding=st.sampled_from(["zero", "reset"]),
    mean_length=st.sampled_from([2.0, 6.0, 40.0]),
    prioritized=st.booleans(),
    seal_every=st.sampled_from([7, 31, 1000]),
    resumes=st.booleans(),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_stacks_come_back_as_they_were(
    kind: Kind,
    num_envs: int,
    stack: int,
    n: int,
    capacity: int,
    mode: AutoresetMode,
    padding: str,
    mean_length: float,
    prioritized: bool,
    seal_every: int,
    resumes: bool,
    seed: int,
) -> None:
    """They do so, too, where the replay is a new one after each seal, filled from chunks, in the midst of episodes."""
    stream = stream_of(num_envs, stack, mode, padding, mean_length)
    frames, unbroken = (Fed(frames_of(kind, capacity, prioritized, seed, n), num_envs, n) for _ in range(2))
    shelf, like = Shelf((stack, 3, 5)), np.zeros((num_envs, stack, 3, 5), np.uint8)
    oracle = Fed(rows_of(capacity, prioritized, seed), num_envs, n)
    rng = np.random.default_rng(seed)
    stream.reset(seed)
    sampled = 0
    for t in range(1, 70):
        step = stream.step(rng.integers(0, 2, num_envs))
        for fed in (frames, unbroken, oracle):
            fed.add(step)
        if t % seal_every == 0:
            for fed in (frames, unbroken, oracle):
                fed.seal()
            if resumes:
                shelf.save(frames.replay)
                fresh = frames_of(kind, capacity, prioritized, seed + 1, n, like)
                frames.replay = shelf.restore(fresh, frames.replay.get_state())
            require_equal(content(frames.replay, shelf), content(unbroken.replay, shelf))
        assert len(frames.replay) == len(oracle.replay)
        if t % 3 == 0 and len(oracle.replay):
            ours, theirs = frames.replay.sample(8), oracle.replay.sample(8)
            assert ours.keys() == theirs.keys()
            for name in theirs:
                assert ours[name].dtype == theirs[name].dtype
                assert torch.equal(ours[name], theirs[name]), name
            unbroken.replay.sample(8)
            priorities = torch.from_numpy(rng.random(8))
            for fed in (frames, unbroken, oracle):
                fed.replay.update_priorities(ours["indices"], priorities)
            sampled += 1
    stream.env.close()
    assert sampled > 0


@pytest.mark.parametrize("kind", STORES)
@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_stacks_come_back_long_after_the_first_frames_are_forgotten(kind: Kind, mode: AutoresetMode) -> None:
    stream = stream_of(3, 3, mode, "zero", 12.0)
    replay = frames_of(kind, 600, n=3)
    frames, oracle = Fed(replay, 3, 3), Fed(rows_of(600, False), 3, 3)
    stream.reset(0)
    for t in range(900):
        step = stream.step(np.zeros(3, int))
        frames.add(step)
        oracle.add(step)
        if t % 10 == 9:
            ours, theirs = frames.replay.sample(32), oracle.replay.sample(32)
            assert all(torch.equal(ours[name], theirs[name]) for name in theirs), t
    stream.env.close()
    assert film_of(replay).index.released > 100


@pytest.mark.parametrize("kind", STORES)
def test_a_replay_that_is_restored_again_and_again_is_the_one_that_never_was(kind: Kind) -> None:
    stream, shelf, like = (
        stream_of(3, 3, AutoresetMode.NEXT_STEP, "zero", 12.0),
        Shelf((3, 3, 5)),
        np.zeros((3, 3, 3, 5), np.uint8),
    )
    frames, unbroken = (Fed(frames_of(kind, 600, True, n=3), 3, 3) for _ in range(2))
    oracle = Fed(rows_of(600, True), 3, 3)
    stream.reset(0)
    dropped = 0
    for t in range(1, 900):
        step = stream.step(np.zeros(3, int))
        for fed in (frames, unbroken, oracle):
            fed.add(step)
        if t % 97 in (0, 5):  # soon after one another, too: then groups are short, and rows of the index old
            for fed in (frames, unbroken, oracle):
                fed.seal()
            before = shelf.chunks["frames"][:1]
            shelf.save(frames.replay)
            dropped += shelf.chunks["frames"][:1] != before
            frames.replay = shelf.restore(frames_of(kind, 600, True, n=3, like=like), frames.replay.get_state())
            require_equal(content(frames.replay, shelf), content(unbroken.replay, shelf))
        if t % 10 == 0:
            ours, others, theirs = (fed.replay.sample(32) for fed in (frames, unbroken, oracle))
            assert all(torch.equal(ours[name], theirs[name]) for name in theirs), t
            assert all(torch.equal(ours[name], others[name]) for name in theirs), t
            for fed in (frames, unbroken, oracle):
                fed.replay.update_priorities(ours["indices"], ours["rewards"].abs())
    stream.env.close()
    assert dropped > 3  # chunks of which no frame is left
    assert frames.replay.get_state()["frames.released"] > 100


def released(fed: Fed) -> int:
    return int(fed.replay.get_state()["frames.released"])


@pytest.mark.parametrize("forgotten", [False, True])
def test_leaving_out_how_far_windows_ever_reached_back_shows(forgotten: bool) -> None:
    """Right after a restart nothing has reached back yet, and without that number frames would go too early."""
    frames, unbroken = (Fed(frames_of("compressed", 900, n=9), 3, 9) for _ in range(2))
    stream, shelf, same = stream_of(3, 3, AutoresetMode.NEXT_STEP, "zero", 3.0), Shelf((3, 3, 5)), True
    stream.reset(0)
    for t in range(600):
        step = stream.step(np.zeros(3, int))
        frames.add(step)
        unbroken.add(step)
        same &= released(frames) == released(unbroken)
        if t == 500:
            frames.seal()
            unbroken.seal()
            shelf.save(frames.replay)
            state = frames.replay.get_state() | ({"frames.lag": 0} if forgotten else {})
            fresh = frames_of("compressed", 900, n=9, like=np.zeros((3, 3, 3, 5), np.uint8))
            frames.replay = shelf.restore(fresh, state)
            before = released(unbroken)
    stream.env.close()
    assert released(unbroken) > before > 0
    assert same is not forgotten


@pytest.mark.parametrize("with_size", [True, False])
def test_a_group_that_opens_to_far_more_than_eight_frames_is_not_opened(with_size: bool) -> None:
    bomb = zstandard.ZstdCompressor(level=3, write_content_size=with_size).compress(bytes(300 << 20))
    store = CompressedFrames(84 * 84)
    assert len(bomb) < store.most_bytes
    columns = {"packed": np.frombuffer(bomb, np.uint8), "sizes": np.array([len(bomb)])}
    tracemalloc.start()
    try:
        with pytest.raises(RunError, match="can't be opened"):
            store.put(0, 1, 0, columns)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


def test_a_packed_group_has_the_size_of_zstandards_bound_at_most() -> None:
    store = CompressedFrames(84 * 84)  # 8 · 7,056 bytes a group, and a 128th and 512 bytes more
    assert store.most_bytes == 56_448 + 441 + 512
    noise = np.random.default_rng(0).integers(0, 256, (8, 7_056), dtype=np.uint8)
    store.write(np.arange(8), noise)
    packed = store.get(0, 1)
    assert 56_448 < packed["sizes"][0] <= 57_401
    for size in (0, 57_402):
        wrong = {"packed": np.zeros(size, np.uint8), "sizes": np.array([size])}
        with pytest.raises(RunError, match="impossible sizes"):
            CompressedFrames(84 * 84).put(0, 1, 0, wrong)


def test_groups_under_way_count_whole_and_full_ones_packed() -> None:
    store, frames = CompressedFrames(7), np.full((9, 7), 5, np.uint8)
    store.write(np.arange(3), frames[:3])
    assert store.nbytes == 8 * 7
    store.write(np.array([8]), frames[3:4])  # of another environment
    assert store.nbytes == 2 * 8 * 7
    store.write(np.arange(3, 8), frames[4:])
    packed = store.nbytes - 8 * 7
    assert len(store._packed[0]) < packed == sys.getsizeof(store._packed[0])
    store.release(0, 1)
    assert store.nbytes == 8 * 7


@pytest.mark.parametrize("kind", STORES)
def test_groups_of_a_file_are_eight_frames_that_follow_older_groups(kind: Kind) -> None:
    """Three environments of two frames a state: 3 groups, sealed, and then one of each that follows none."""
    like = np.zeros((3, 2, 5), np.uint8)
    replay, fresh = frames_of(kind, 9, like=like), frames_of(kind, 9, like=like)
    rng, yes = np.random.default_rng(0), np.ones(3, bool)
    states = rng.integers(1, 256, (3, 2, 5), dtype=np.uint8)
    for t in range(9):
        next_states = np.concatenate([states[:, 1:], rng.integers(1, 256, (3, 1, 5), dtype=np.uint8)], 1)
        kept, following = replay.remember(states, next_states, yes & (t == 0), yes)
        replay.add(Transitions(kept, np.arange(3), np.ones(3), np.ones(3), following))
        states = next_states
    replay.seal()
    fresh.set_state(replay.get_state())
    (stored, _), (series, _) = (each.series((2, 5), np.uint8, 2) for each in (replay, fresh))
    columns = stored.get(0, 6)
    assert columns["ages"].shape == (6, 8)
    assert columns["ages"][0].tolist() == [0, 1, 1, 1, 1, 1, 1, 1]
    assert columns["ages"][3].tolist() == [1, 1, 1, 0, 0, 0, 0, 0]
    assert columns["previous"].tolist() == [-1, -1, -1, 0, 1, 2]
    rest = film_of(replay).store.read(np.arange(8 * 3 + 3, 8 * 4))
    assert rest.tolist() == [[0] * 5] * 5  # closed with zeros
    previous, ages = columns["previous"].copy(), columns["ages"].copy()
    for wrong in (3, 4, -2):  # itself, a later one, and none at all
        previous[3] = wrong
        with pytest.raises(RunError, match="follow impossible ones"):
            series.put(0, 6, 0, {**columns, "previous": previous})
    ages[3, 2] = 2
    with pytest.raises(RunError, match="follow impossible ones"):
        series.put(0, 6, 0, {**columns, "ages": ages})
    series.put(0, 6, 0, columns)


@pytest.mark.parametrize("kind", STORES)
def test_a_replay_of_frames_that_holds_none_comes_back(kind: Kind) -> None:
    replay, fresh = frames_of(kind, 9), frames_of(kind, 9, seed=1)
    replay.seal()
    state = replay.get_state()
    assert {name: state[name] for name in state if name != "rng"} == {
        "added": 0,
        "holds_dones": None,
        "frames.opened": 0,
        "frames.released": 0,
        "frames.lag": 0,
    }
    fresh.set_state(state)
    assert [(each.name, each.first, each.last) for each in fresh.series((4, 16, 16), np.uint8, 2)] == [
        ("frames", 0, 0),
        ("rows", 0, 0),
    ]
    play(fresh, 20, frame=(16, 16))
    play(replay, 20, frame=(16, 16))
    assert torch.equal(fresh.sample(8)["states"], replay.sample(8)["states"])


@pytest.mark.parametrize("kind", STORES)
def test_rows_of_a_file_refer_to_frames_that_are_there(kind: Kind) -> None:
    like = np.zeros((1, 4, 16, 16), np.uint8)
    replay, fresh, empty = (frames_of(kind, 9, like=like) for _ in range(3))
    play(replay, 9, num_envs=1, frame=(16, 16))
    replay.seal()
    shelf, state = Shelf((4, 16, 16)), replay.get_state()
    frames, stored = shelf.series(replay)
    with pytest.raises(ConfigError, match="only if it was made with like="):
        frames_of(kind, 9).set_state(state)
    rows = stored.get(0, 9)
    assert rows["states"].tolist() == list(range(9))  # and the last next state is number 9, of 16
    with pytest.raises(RunError, match="its states are not numbers of stored frames"):
        shelf.series(empty)[1].put(0, 9, 0, rows)
    fresh.set_state(state)
    new_frames, series = shelf.series(fresh)
    new_frames.put(0, 2, 0, frames.get(0, 2))
    unknown = rows["next_states"].copy()
    unknown[4] = 16
    for name, wrong in (
        ("states", rows["states"].astype(np.int32)),
        ("states", rows["states"][:, None]),
        ("states", rows["states"][:8]),
        ("next_states", unknown),
        ("next_states", -rows["next_states"]),
    ):
        with pytest.raises(RunError, match=f"its {name} are not numbers of stored frames"):
            series.put(0, 9, 0, {**rows, name: wrong})
    series.put(0, 9, 0, rows)
    assert torch.equal(fresh.sample(8)["next_states"], replay.sample(8)["next_states"])


def test_what_a_replay_on_a_device_takes_is_its_frames_its_records_and_its_rows() -> None:
    replay = frames_of("device", 100)
    frames, yes, ones = np.arange(1, 55, dtype=np.uint8).reshape(3, 3, 6), np.ones(3, bool), np.ones(3, np.float32)
    kept, following = replay.remember(frames[:, :2], frames[:, 1:], yes, yes)
    replay.add(Transitions(kept, np.arange(3), ones, ones, following, extras={"bonus": ones}))
    # Of a row two numbers of 8 bytes, action 8, reward 4, discount 4 and its bonus 4; and its record on the device:
    # 2 · 2 places, action, reward and discount of 4 bytes each, and the bonus again.
    host, device = 100 * (2 * 8 + 8 + 4 + 4 + 4), 100 * (7 * 4 + 4)
    # Each environment has begun a group of 8 frames of 6 bytes.
    assert replay.nbytes == host + device + 3 * 8 * 6 + film_of(replay).index.nbytes


def test_stacks_are_found_after_the_index_has_grown() -> None:
    """It begins with room for 16 groups, and doubles twice once none are dropped any more."""
    index, episodes, seen = FrameIndex(num_envs=2, stack=3, groups=1), [list[int](), list[int]()], {}
    for t in range(8 * 30):
        if t < 8 * 15:
            index.release(index.opened - 10)
        for env in range(2):
            begins = t % (11 + 6 * env) == 0
            (number,) = index.append(np.array([env]), begins).tolist()
            episodes[env] = [*([] if begins else episodes[env]), number]
            seen[number] = episodes[env][-3:]
    assert (index.opened, index.released) == (60, 20)
    kept = [number for number in seen if min(seen[number]) >= 8 * 20]
    assert len(kept) > 8 * 39
    stacks, missing = index.stacks(np.array(kept))
    for stack, absent, number in zip(stacks, missing, kept, strict=True):
        assert stack[~absent].tolist() == seen[number]
    assert index.nbytes == 64 * (8 + 8)
    assert index.holds(np.array(kept))
    assert [index.holds(np.array([number])) for number in seen if number not in kept] == [False] * (
        len(seen) - len(kept)
    )


def test_a_number_is_held_if_its_whole_stack_is() -> None:
    index = FrameIndex(num_envs=1, stack=3, groups=4)
    for number in range(24):
        index.append(np.array([0]), begins=number in (0, 16))
    assert index.holds(np.arange(24))
    assert not index.holds(np.array([-1]))
    assert not index.holds(np.array([24]))
    index.release(1)  # numbers 0 to 7: the first whole stack after it is 8, 9, 10
    assert [index.holds(np.array([number])) for number in (7, 8, 9, 10, 23)] == [False, False, False, True, True]
    many = np.full(65_538, 10)
    assert index.holds(many)
    many[65_536] = 9
    assert not index.holds(many)
    index.release(2)  # at 16 an episode begins
    assert index.holds(np.arange(16, 24))
    assert not index.holds(np.array([15]))


def test_more_groups_than_rows_and_windows_can_need_are_no_state() -> None:
    """A replay of 4 reserves (1 + 2 + 16) · 3 // 8 + 2 = 9 groups for windows: at most 3 · (4 + 9) in all."""
    replay = frames_of("compressed", 4, like=np.zeros((1, 2, 5), np.uint8))
    state = replay.get_state() | {"frames.opened": 50, "frames.released": 11}
    replay.set_state(state)
    assert film_of(replay).index.opened == 50
    with pytest.raises(RunError, match="has 40 groups of frames: needs at most 39"):
        replay.set_state(state | {"frames.released": 10})


@pytest.mark.parametrize("kind", STORES)
def test_what_is_written_costs_what_is_new(kind: Kind) -> None:
    """Groups are written once, and never change."""
    replay, shelf = frames_of(kind, 2_000), Shelf((4, 16, 16))
    copies: list[dict[str, Array]] = []
    for _ in range(8):
        play(replay, 151, num_envs=2, frame=(16, 16))
        replay.seal()
        shelf.save(replay)
        first, last, columns = shelf.chunks["frames"][-1]
        assert (last - first) * GROUP == pytest.approx(2 * 151, abs=2 * GROUP + 2)
        copies.append({name: values.copy() for name, values in columns.items()})
        (series, _) = shelf.series(replay)
        for chunk, copy in zip(reversed(shelf.chunks["frames"]), reversed(copies), strict=False):
            start = max(chunk[0], series.first)
            now = series.get(start, chunk[1])
            assert np.array_equal(now["ages"], copy["ages"][start - chunk[0] :])
            assert kind == "raw" or np.array_equal(now["sizes"], copy["sizes"][start - chunk[0] :])
            assert kind != "raw" or np.array_equal(now["frames"], copy["frames"][start - chunk[0] :])


@pytest.mark.parametrize("kind", STORES)
def test_the_frames_of_open_windows_stay_while_other_environments_fill_the_replay(kind: Kind) -> None:
    n, rng = 60, np.random.default_rng(0)
    replay = frames_of(kind, 6, n=n)
    frames, oracle = Fed(replay, 3, n), Fed(rows_of(6, False), 3, n)
    done = np.array([True, True, False])  # two with episodes of one step, and one without an end
    states, valid = rng.integers(1, 256, (3, 2, 4), dtype=np.uint8), np.ones(3, bool)
    for t in range(n + 20):
        next_states = np.concatenate([states[:, 1:], rng.integers(1, 256, (3, 1, 4), dtype=np.uint8)], 1)
        begins = done | (t == 0)
        step = Step(states, np.zeros(3, int), np.zeros(3), next_states, done, np.zeros(3, bool), valid, begins)
        frames.add(step)
        oracle.add(step)
        ours, theirs = frames.replay.sample(16), oracle.replay.sample(16)
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs), t
        states = np.where(done[:, None, None], rng.integers(1, 256, (3, 2, 4), dtype=np.uint8), next_states)
    assert film_of(replay).index.opened > 0


def play(replay: Any, steps: int, num_envs: int = 2, frame: tuple[int, ...] = (84, 84), length: int = 100) -> None:
    """Feed made-up games of a fixed length, each a block that moves over a background."""
    background = np.random.default_rng(0).integers(0, 4, frame, dtype=np.uint8) * 60
    fed = Fed(replay, num_envs, 1)
    states = np.zeros((num_envs, 4, *frame), np.uint8)
    states[:, -1] = background
    begins = np.ones(num_envs, bool)
    for t in range(steps):
        shown = background.copy()
        shown[t % (frame[0] - 4) :][:4] = t % 251
        next_states = np.concatenate([states[:, 1:], np.broadcast_to(shown, (num_envs, 1, *frame))], 1)
        done = np.full(num_envs, t % length == length - 1)
        valid = np.ones(num_envs, bool)
        kept, next_kept = replay.remember(states, next_states, begins, valid)
        rewards = np.full(num_envs, float(t))
        push = fed.accumulator.push(kept, np.zeros(num_envs, int), rewards, next_kept, done, np.zeros_like(done), valid)
        replay.add(push)
        begins, states = done, next_states
        if done.any():
            states = np.zeros_like(states)
            states[:, -1] = background


@pytest.mark.parametrize("kind", STORES)
def test_frames_are_stored_once_and_forgotten_with_their_transitions(kind: Kind) -> None:
    replay = frames_of(kind, 1_000)
    play(replay, 2_000)
    index, store = film_of(replay).index, film_of(replay).store
    living = (index.opened - index.released) * GROUP
    assert 1_000 <= living <= 1_000 * 1.01 + 150, living  # one a transition, one more an episode, groups under way
    raw = living * 84 * 84
    if kind != "compressed":
        assert raw <= store.nbytes <= raw + 150 * 84 * 84
    else:
        assert store.nbytes < raw / 10
    play(replay, 1_000, length=10)  # shorter episodes need more first frames
    living = (index.opened - index.released) * GROUP
    assert 1_100 <= living <= 1_100 + 150, living


def resident() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) * 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells what a process takes")
@pytest.mark.parametrize("kind", STORES)
def test_the_process_takes_what_the_replay_says(kind: Kind) -> None:
    replay = frames_of(kind, 8_000)
    play(replay, 100)
    before, said = resident(), replay.nbytes
    play(replay, 4_000)
    grown, said = resident() - before, replay.nbytes - said
    assert said > (1_000_000 if kind == "compressed" else 50_000_000)
    assert grown < said + 8_000_000  # a part of what a compressor may leave behind: 40 MB


def test_a_million_raw_transitions_take_less_than_7_2_gb() -> None:
    assert 7_056_000_000 < frame_replay_bytes(1_000_000, (4, 84, 84), np.uint8, "raw") < 7_200_000_000
    # Of 7,056 bytes 3 % and 16 remain, with 3 of the index, 1.01 frames a row; and 32 bytes of the row.
    assert frame_replay_bytes(1_000_000, (4, 84, 84), np.uint8, "compressed") == 1_010_000 * (211 + 16 + 3) + 32_000_000


def test_what_is_said_in_advance_is_what_raw_frames_take() -> None:
    replay = frames_of("raw", 20_000)
    play(replay, 11_000, num_envs=2, frame=(16, 16), length=200)
    assert replay.nbytes == pytest.approx(frame_replay_bytes(20_000, (4, 16, 16), np.uint8, "raw"), rel=0.02)


@pytest.mark.parametrize("kind", STORES)
def test_frames_of_any_dtype_and_shape_come_back(kind: Kind) -> None:
    replay = frames_of(kind, 10)
    states = np.arange(2 * 3 * 5 * 2, dtype=np.float32).reshape(2, 3, 5, 2) - 7.5
    next_states = np.concatenate([states[:, 1:], states[:, :1] * 3], 1)
    yes = np.ones(2, bool)
    numbers, next_numbers = replay.remember(states, next_states, yes, yes)
    assert numbers.dtype == np.int64
    assert numbers.shape == (2,)
    ones = np.ones(2, np.float32)
    replay.add(Transitions(numbers, np.array([0, 1]), ones, ones, next_numbers))
    batch = replay.sample(16)
    for state, next_state, action in zip(batch["states"], batch["next_states"], batch["actions"], strict=True):
        np.testing.assert_array_equal(state, states[int(action)])
        np.testing.assert_array_equal(next_state, next_states[int(action)])


def test_states_that_are_no_stack_are_refused() -> None:
    yes = np.ones(1, bool)
    states = np.arange(12, dtype=np.uint8).reshape(1, 4, 3)
    with pytest.raises(
        ConfigError, match="needs states that are stacks of frames, each the previous one shifted by one frame"
    ):
        frames_of("raw", 4).remember(states, states, yes, yes)
    with pytest.raises(ConfigError, match=r"stacks of 2 to 9 frames, got shape \(1, 3\); set frame_stack"):
        frames_of("raw", 4).remember(states[:, :1], states[:, :1], yes, yes)
    with pytest.raises(ConfigError, match=r"got shape \(4,\)"):
        frames_of("raw", 4).remember(states[:, :, 0], states[:, :, 0], yes, yes)


def test_too_little_memory_is_said_before_anything_is_allocated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_memory, "memory_on", lambda device: 2_000_000_000)
    replay = frames_of("raw", 1_000_000)
    states, yes = np.zeros((1, 4, 84, 84), np.uint8), np.ones(1, bool)
    with pytest.raises(
        ConfigError, match=r"needs 7,162 MB for raw frames .* at most 279267 transitions fit, or .*compr"
    ):
        replay.remember(states, states, yes, yes)


def test_frames_that_just_fit_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = 10_100 * (64 + 3) + 32 * 10_000  # 10,000 rows of frames of 8 x 8
    monkeypatch.setattr(frame_memory, "memory_on", lambda device: needed)
    require_memory_for_frames(10_000, (4, 8, 8), np.uint8, "raw")
    monkeypatch.setattr(frame_memory, "memory_on", lambda device: needed - 1)
    with pytest.raises(ConfigError, match="at most 9999 transitions fit"):
        require_memory_for_frames(10_000, (4, 8, 8), np.uint8, "raw")


def test_episodes_too_short_for_raw_are_refused_and_fit_compressed() -> None:
    with pytest.raises(ConfigError, match=r"episodes have fewer than 4 steps on average, or .*; use compressed"):
        play(frames_of("raw", 4_000), 2_000, frame=(8, 8), length=1)
    replay = frames_of("compressed", 4_000)
    play(replay, 2_500, frame=(8, 8), length=1)
    assert len(replay) == 4_000


def test_a_missing_package_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr("nexus.data.frame_store.importlib.import_module", missing)
    for kind in ("compressed", "device"):  # which packs checkpoints
        with pytest.raises(ConfigError, match=r'zstandard is not installed; get it with: .*pip install .*\[atari\]"'):
            frames_of(kind, 4)
    frames_of("raw", 4)


def trained(tmp_path: Path, **changes: Any) -> dict[str, torch.Tensor]:
    settings = {
        "total_steps": 400, "num_envs": 3, "frame_stack": 3, "replay_capacity": 150, "learning_starts": 50, "n_step": 3,
        "batch_size": 8, "hidden_dim": 16, "prioritized": True, "eval_episodes": 2, "checkpoint_every": None,
    }  # fmt: skip
    result = nexus.train(lambda: Flicker(12.0), run_dir=tmp_path, **settings | changes)
    assert result.counters.updates == 88
    return dict(result.agent.q_network.state_dict())


def test_a_run_ends_with_the_same_weights_however_its_states_are_stored(tmp_path: Path) -> None:
    full = trained(tmp_path / "full", replay_store="full")
    for store in (*STORES, "auto"):
        other = trained(tmp_path / store, replay_store=store)
        for name, weights in full.items():
            assert torch.equal(weights, other[name]), (store, name)
    another = trained(tmp_path / "seed", replay_store="raw", seed=1)
    assert not torch.equal(full["head.linear.weight"], another["head.linear.weight"])


@pytest.mark.parametrize(
    ("settings", "dtype", "shape", "store"),
    [
        ({}, np.uint8, (4, 84, 84), "compressed"),
        ({"checkpoint_every": "10000 steps"}, np.uint8, (4, 84, 84), "compressed"),
        ({}, np.float32, (4, 84, 84), "full"),
        ({}, np.uint8, (4, 84), "full"),
        ({"frame_stack": 1}, np.uint8, (1, 84, 84), "full"),
        ({"frame_stack": 10}, np.uint8, (10, 84, 84), "full"),
        ({"replay_store": "raw"}, np.float32, (4, 8), "raw"),
    ],
)
def test_auto_compresses_stacked_images_of_bytes(
    settings: dict[str, Any], dtype: Any, shape: tuple[int, ...], store: str
) -> None:
    config = TrainConfig.from_mapping({"frame_stack": 4, "checkpoint_every": None, **settings})
    assert store_for(config, shape, dtype) == store
    replay = replay_for(config, shape, dtype)
    assert isinstance(replay, Replay)
    assert type(replay.storage) is (Rows if store == "full" else Frames)
    assert not replay.on_device
    config = replace(config, replay_store="device") if store == "compressed" else config
    replay = replay_for(config, shape, dtype)
    assert isinstance(replay, Replay)
    assert replay.on_device is (config.replay_store == "device")


@pytest.mark.parametrize(
    ("free", "store"), [(None, "compressed"), (10_000_000_000, "compressed"), (20_000_000_000, "device")]
)
def test_auto_takes_a_gpu_that_has_room(monkeypatch: pytest.MonkeyPatch, free: int | None, store: str) -> None:
    monkeypatch.setattr(replays, "memory_on", lambda device: free if device.type == "cuda" else None)
    config = TrainConfig(frame_stack=4, replay_capacity=1_000_000, checkpoint_every=None)
    assert store_for(config, (4, 84, 84), np.uint8, torch.device("cuda")) == store
    assert store_for(config, (4, 84, 84), np.float32, torch.device("cuda")) == "full"
    assert store_for(config, (4, 84, 84), np.uint8, torch.device("cpu")) == "compressed"


def test_a_device_without_room_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_memory, "memory_on", lambda device: 8_000_000_000 if device.type == "cuda" else 0)
    with pytest.raises(ConfigError, match=r"needs 8,952 MB for frames on cuda of shape .* or replay_store compressed"):
        require_memory_for_frames(1_000_000, (4, 84, 84), np.uint8, "device", torch.device("cuda"))
    require_memory_for_frames(800_000, (4, 84, 84), np.uint8, "device", torch.device("cuda"))


@pytest.mark.parametrize(("one", "other"), [("device", "compressed"), ("compressed", "device"), ("device", "device")])
def test_what_lay_on_a_device_goes_on_compressed_and_back(one: Kind, other: Kind) -> None:
    like = np.zeros((3, 4, 16, 16), np.uint8)
    replay, shelf = frames_of(one, 600, like=like), Shelf((4, 16, 16))
    for steps in (150, 90):  # of the first chunk a part is forgotten by the second
        play(replay, steps, num_envs=3, frame=(16, 16))
        replay.seal()
        shelf.save(replay)
    resumed = shelf.restore(frames_of(other, 600, like=like), replay.get_state())
    require_equal(content(replay, shelf), content(resumed, shelf))
    if other == "device":
        living = film_of(resumed).index.opened - film_of(resumed).index.released
        assert film_of(resumed).store.nbytes == living * GROUP * 16 * 16
    before, after = replay.sample(64), resumed.sample(64)
    for name, values in before.items():
        assert torch.equal(values, after[name]), name


def test_a_checkpoint_of_packed_frames_is_said_packed() -> None:
    config = TrainConfig(frame_stack=4, replay_capacity=1_000_000)
    packed = saved_bytes(replace(config, replay_store="compressed"), (4, 84, 84), np.uint8)
    assert saved_bytes(replace(config, replay_store="device"), (4, 84, 84), np.uint8) == packed < 500_000_000
    assert saved_bytes(replace(config, replay_store="raw"), (4, 84, 84), np.uint8) > 7_000_000_000


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"replay_store": "raw"}, "needs frame_stack to be 2 or more"),
        ({"replay_store": "zip"}, "needs one of auto, full, raw, compressed, device"),
    ],
)
def test_a_store_that_can_not_work_is_refused(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        TrainConfig.from_mapping(settings)


def test_the_loop_takes_a_lost_life_for_an_end_and_counts_whole_games() -> None:
    config = TrainConfig(
        total_steps=600, num_envs=3, learning_starts=599, n_step=1, hidden_dim=4, checkpoint_every=None
    )
    replay = ReplayBuffer(1_000)
    stream, agent = stream_of(3, 2, AutoresetMode.SAME_STEP, "zero", 30.0), agent_for((2, 3, 5), 2, config)
    terminal = terminated = games = 0
    counters = Counters()
    for progress in train(stream, agent, agent, replay, config, counters):
        terminal += int(progress.step.terminal.sum())
        terminated += int(progress.step.terminated.sum())
        games += int((progress.step.terminated | progress.step.truncated).sum())
    stream.env.close()
    assert terminal > terminated + 20
    assert int((replay.storage.columns["discounts"][: len(replay)] == 0).sum()) == terminal
    assert counters.episodes == games


@pytest.mark.parametrize("kind", STORES)
def test_masks_of_legal_actions_come_back_with_their_stacks(kind: Kind) -> None:
    rng, yes = np.random.default_rng(0), np.ones(2, bool)
    replay, begins = frames_of(kind, 12), yes
    states, seen = rng.integers(1, 256, (2, 3, 4), dtype=np.uint8), []
    for t in range(10):  # 20 rows: the first 8 are overwritten
        next_states = np.concatenate([states[:, 1:], rng.integers(1, 256, (2, 1, 4), dtype=np.uint8)], 1)
        numbers, next_numbers = replay.remember(states, next_states, begins, yes)
        masks, next_masks = rng.random((2, 5)) < 0.5, rng.random((2, 5)) < 0.5
        ones = np.ones(2, np.float32)
        replay.add(Transitions(numbers, np.array([2 * t, 2 * t + 1]), ones, ones, next_numbers, masks, next_masks))
        seen += [*zip(masks, next_masks, states, strict=True)]
        states, begins = next_states, ~yes
    batch = replay.sample(64)
    for row, action in enumerate(batch["actions"].tolist()):
        mask, next_mask, state = seen[action]
        assert action >= 8
        assert batch["action_masks"][row].tolist() == mask.tolist()
        assert batch["next_action_masks"][row].tolist() == next_mask.tolist()
        assert batch["states"][row].tolist() == state.tolist()
    assert batch["action_masks"].dtype == batch["next_action_masks"].dtype == torch.bool
