"""An episode is a seed and its actions: what was under way is brought back, wherever that is possible."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, SupportsInt

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from hypothesis import given, settings
from hypothesis import strategies as st

import nexus
from nexus.core.errors import ConfigError, EnvError, RunError
from nexus.core.seeding import seed_of
from nexus.core.types import Array
from nexus.envs.atari import PROTOCOLS, SeededGames
from nexus.envs.episodes import ACTIONS_OPTION, ActionLog, Replayable, episode_seed
from nexus.envs.factory import EnvSpec, make_vector_env
from nexus.envs.stream import TransitionStream
from nexus.envs.workers import close_env
from tests.chaos import Silent, differences, interrupt, interrupted

ASYNC = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


class Ledger(gym.Env[Array, SupportsInt]):
    """Episodes of as many steps as the seed says, 3 to 7; it notes every call. Of four actions two are legal.

    A state is (number drawn by the seed, step, last action + 1).
    """

    observation_space = spaces.Box(0, 1e6, (3,), np.float64)
    action_space = spaces.Discrete(4)

    def __init__(self, notes: list[tuple[Any, ...]], name: int = 0) -> None:
        self.notes, self.name = notes, name

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        super().reset(seed=seed)
        self.notes.append((self.name, "reset", seed, options))
        self.drawn, self.at, self.last = int(self.np_random.integers(1_000)), 0, -1
        return self.seen()

    def seen(self) -> tuple[Array, dict[str, Any]]:
        masks = np.array([self.at % 2 == 0, True, self.at % 2 == 1, False])
        return np.array([self.drawn, self.at, self.last + 1.0]), {"action_mask": masks}

    def step(self, action: SupportsInt) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        self.notes.append((self.name, "step", int(action)))
        self.at, self.last = self.at + 1, int(action)
        state, info = self.seen()
        return state, float(self.at), self.at == 3 + self.drawn % 5, False, info


def length_of(seed: int) -> int:
    """Steps of a ledger's episode."""
    return 3 + int(np.random.default_rng(seed).integers(1_000)) % 5


def ledgers(count: int, notes: list[tuple[Any, ...]]) -> VectorEnv[Any, Any, Any]:
    makers = [partial(lambda env: Replayable(Ledger(notes, env), env), env) for env in range(count)]
    return SyncVectorEnv(makers, autoreset_mode=AutoresetMode.DISABLED)


# What is asked of an environment.


def test_each_episode_is_reset_once_with_the_seed_that_its_number_says() -> None:
    notes: list[tuple[Any, ...]] = []
    stream = TransitionStream(ledgers(2, notes))
    stream.reset(7)
    for _ in range(30):
        stream.step(np.array([1, 1]))
    for env in range(2):
        mine = [note[1:] for note in notes if note[0] == env]
        expected: list[tuple[Any, ...]] = []
        episode = 0
        while len(expected) < len(mine):
            seed = episode_seed(7, 2 * episode + env)
            expected += [("reset", seed, None), *[("step", 1)] * length_of(seed)]
            episode += 1
        assert mine == expected[: len(mine)]
        assert episode >= 4
        assert sum(note[0] == "step" for note in mine) == 30


def test_seeds_differ_between_episodes_environments_and_runs() -> None:
    seeds = [episode_seed(root, number) for root in range(5) for number in range(200)]
    assert len(set(seeds)) == 1_000
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_what_was_saved_is_brought_back_by_one_reset_and_its_actions() -> None:
    notes: list[tuple[Any, ...]] = []
    stream = TransitionStream(ledgers(2, notes))
    stream.reset(7)
    rng = np.random.default_rng(0)
    for _ in range(11):
        assert stream.action_masks is not None
        stream.step(np.array([int(rng.choice(np.flatnonzero(mask))) for mask in stream.action_masks]))
    state = stream.get_state()
    under_way = []
    for env in range(2):
        mine = [note for note in notes if note[0] == env]
        last_reset = max(place for place, note in enumerate(mine) if note[1] == "reset")
        under_way.append(mine[last_reset:])
        assert state["lengths"][env] == len(mine) - last_reset - 1
    again: list[tuple[Any, ...]] = []
    other = TransitionStream(ledgers(2, again))
    assert other.set_state(state).tolist() == [False, False]
    assert [note for note in again if note[0] == 0] == under_way[0]
    assert [note for note in again if note[0] == 1] == under_way[1]
    assert np.array_equal(stream.states, other.states)
    assert stream.action_masks is not None
    assert other.action_masks is not None
    assert np.array_equal(stream.action_masks, other.action_masks)


# Every kind of vector.


KINDS: dict[str, tuple[EnvSpec, Any, int]] = {
    "cartpole": (EnvSpec("CartPole-v1"), "auto", 300),
    "in turn": (EnvSpec("Acrobot-v1", frame_skip=2), "sync", 300),
    "box2d": (EnvSpec("LunarLander-v3"), "sync", 300),
    "stacked": (EnvSpec("CartPole-v1", frame_stack=3), "sync", 100),
    "one-hot": (EnvSpec("Taxi-v4"), "sync", 300),  # which has masks, too
    "processes": (EnvSpec("LunarLander-v3"), "async", 150),
    "atari": (EnvSpec("breakout", 4, 4), "auto", 250),
    "sticky": (EnvSpec("pong", 4, 4, protocol="machado", frame_size=42), "auto", 250),
}


@ASYNC
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_envs", [1, 3])
def test_every_kind_of_environment_goes_on_from_the_middle_of_its_episodes(
    kind: str, num_envs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SeededGames, "reseed_after", 60)  # so that games with and without a seed of their own are met
    spec, how, count = KINDS[kind]
    rng = np.random.default_rng(1)
    envs = [make_vector_env(spec, num_envs, how) for _ in range(2)]
    one, other = map(TransitionStream, envs)
    one.reset(3)

    def actions() -> Array:
        masks = one.action_masks
        if masks is None:
            return rng.integers(one.action_dim, size=num_envs)
        return np.array([rng.choice(np.flatnonzero(mask)) for mask in masks])

    ends = 0
    for part in (count, 2, 40):  # saved three times, the last two from what was itself brought back
        for _ in range(part):
            one.step(actions())
        assert not other.set_state(one.get_state()).any()
        for _ in range(count // 2):
            given = actions()
            mine, its = one.step(given), other.step(given)
            for name in type(mine).__slots__:
                left, right = getattr(mine, name), getattr(its, name)
                assert (left is None) == (right is None)
                assert left is None or np.array_equal(left, right), name
            ends += int((mine.terminated | mine.truncated).sum())
        one, other = other, one
    assert ends > 0 or kind in ("stacked", "sticky", "in turn")
    for env in envs:
        close_env(env)


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
def test_what_resets_by_itself_can_not_be_saved(mode: AutoresetMode) -> None:
    stream = TransitionStream(SyncVectorEnv([partial(Ledger, [])], autoreset_mode=mode))
    assert stream.get_state() == {}  # nothing is under way yet
    stream.reset(1)
    with pytest.raises(ConfigError, match="needs autoreset mode disabled"):
        stream.get_state()
    unseeded = TransitionStream(ledgers(1, []))
    unseeded.reset()
    with pytest.raises(ConfigError, match="only episodes with separate seeds"):
        unseeded.get_state()


# The log of actions.


@given(
    num_envs=st.integers(1, 4),
    action_dim=st.sampled_from([1, 2, 256, 257, 70_000]),
    events=st.lists(st.tuples(st.integers(0, 15), st.integers(1, 700)), min_size=1, max_size=12),
)
@settings(max_examples=60, deadline=None)
def test_a_log_has_the_actions_since_each_seed(num_envs: int, action_dim: int, events: list[tuple[int, int]]) -> None:
    log, rng = ActionLog(num_envs, action_dim), np.random.default_rng(0)
    truth: list[list[int]] = [[] for _ in range(num_envs)]
    for bits, steps in events:
        which = np.array([bool(bits >> env & 1) for env in range(num_envs)])
        log.begin(which, [int(rng.integers(2**31)) for _ in range(num_envs)])
        for env in np.flatnonzero(which).tolist():
            truth[env] = []
        for _ in range(steps):
            actions = rng.integers(action_dim, size=num_envs)
            log.add(actions)
            for env in range(num_envs):
                truth[env].append(int(actions[env]))
        again = ActionLog(num_envs, action_dim)
        again.set_state(log.get_state())
        for env in range(num_envs):
            assert log.actions_of(env).tolist() == again.actions_of(env).tolist() == truth[env]
            assert log.actions_of(env).dtype == np.int64  # environments do sums with actions
        assert log.seeds.tolist() == again.seeds.tolist()
        log = again if bits == 15 else log


def test_a_log_forgets_what_nothing_needs() -> None:
    log, everywhere = ActionLog(2, 2), np.ones(2, bool)
    for _ in range(50_000):
        if log.lengths[0] == 90:
            log.begin(everywhere, [1, 2])
        log.add(np.zeros(2, np.int64))
    assert log._actions.nbytes <= 2 * 1_024


@pytest.mark.parametrize(
    "harm",
    [
        {"lengths": np.array([3, -3])},
        {"lengths": np.array([1, 1])},
        {"actions": np.array([0, 1, 9], np.uint8)},
        {"actions": np.array([0, 1, 1], np.int64)},
        {"seeds": np.array([-5, 1])},
        {"numbers": np.array([1])},
    ],
)
def test_a_log_that_does_not_fit_is_refused(harm: dict[str, Any]) -> None:
    log = ActionLog(2, 3)
    state = {"seeds": np.array([4, 5]), "numbers": np.array([0, 1]), "lengths": np.array([1, 2])}
    state["actions"] = np.array([0, 1, 2], np.uint8)
    log.set_state(state)
    with pytest.raises(RunError):
        log.set_state(state | harm)


# Episodes that are too long.


class Long(gym.Env[Array, SupportsInt]):
    """Episodes of so many steps, of which the last one pays 1."""

    observation_space = spaces.Box(0, 1, (1,), np.float32)
    action_space = spaces.Discrete(2)
    length = 10

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        super().reset(seed=seed)
        self.at = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: SupportsInt) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        self.at += 1
        end = self.at == self.length
        return np.array([min(1.0, self.at / self.length)], np.float32), float(end), end, False, {}


def long(length: int) -> Callable[[], Long]:
    return lambda: type("Long", (Long,), {"length": length})()


def test_an_episode_without_an_end_is_truncated_and_the_others_go_on() -> None:
    endless, short = long(10**9), long(4)
    makers: list[Callable[[], Any]] = [lambda: Replayable(endless(), 0), lambda: Replayable(short(), 1)]
    stream = TransitionStream(SyncVectorEnv(makers, autoreset_mode=AutoresetMode.DISABLED), longest=6)
    stream.reset(1)
    steps = [stream.step(np.zeros(2, np.int64)) for _ in range(12)]
    assert [step.truncated.tolist() for step in steps] == [[at in (6, 12), False] for at in range(1, 13)]
    assert [step.terminated.tolist() for step in steps] == [[False, at in (4, 8, 12)] for at in range(1, 13)]
    assert stream.cut == 2
    assert steps[5].next_states[0] > 0  # the true last state
    assert steps[6].states[0] == 0
    assert steps[6].begins.tolist() == [True, False]
    # An end at that very step is an end, and is not cut.
    exact = TransitionStream(
        SyncVectorEnv([lambda: Replayable(long(6)(), 0)], autoreset_mode=AutoresetMode.DISABLED), longest=6
    )
    exact.reset(1)
    last = [exact.step(np.zeros(1, np.int64)) for _ in range(6)][-1]
    assert (last.terminated.tolist(), last.truncated.tolist(), exact.cut) == ([True], [False], 0)


def test_an_endless_task_is_said_to_be_one_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = TransitionStream.__init__

    def shorter(self: TransitionStream, *given: Any, **named: Any) -> None:
        make(self, *given, **named)
        self.longest = min(self.longest, 50)

    monkeypatch.setattr(TransitionStream, "__init__", shorter)
    watch = Silent()
    settings: dict[str, Any] = {"total_steps": 1_000, "learning_starts": 100, "eval_episodes": 1, "num_envs": 2}
    result = nexus.train(long(10**9), run_dir=tmp_path / "run", listener=watch, **settings)
    (notice,) = watch.notices
    assert "did not end within 50 steps" in notice
    assert result.counters.episodes == 1_000 // 50
    assert {row.split(",")[3] for row in (tmp_path / "run" / "episodes.csv").read_text().splitlines()[1:]} == {"50"}


@pytest.mark.parametrize(
    ("length", "num_envs", "steps"),
    [(10, 1, 3_000), (10, 64, 6_400), (2_700, 1, 9_000), (2_700, 8, 60_000), (2_700, 64, 400_000)],
)
def test_episodes_of_any_length_end_in_training(length: int, num_envs: int, steps: int, tmp_path: Path) -> None:
    counted = of_length(length, num_envs, steps, tmp_path / "run")
    assert counted.counters.episodes == counted.counters.steps // num_envs // length * num_envs


@pytest.mark.slow
@pytest.mark.parametrize(("num_envs", "steps"), [(1, 100_000), (8, 400_000), (64, 2_000_000)])
def test_episodes_of_twenty_thousand_steps_end_in_training(num_envs: int, steps: int, tmp_path: Path) -> None:
    counted = of_length(20_000, num_envs, steps, tmp_path / "run")
    assert counted.counters.episodes == counted.counters.steps // num_envs // 20_000 * num_envs > 0


def of_length(length: int, num_envs: int, steps: int, run_dir: Path) -> Any:
    """Train with the default settings, but for how much is learned."""
    few: dict[str, Any] = {"update_every": "10000 steps", "eval_episodes": 1, "log_every": "100000 steps"}
    result = nexus.train(long(length), run_dir=run_dir, listener=Silent(), total_steps=steps, num_envs=num_envs, **few)
    rows = [row.split(",") for row in (run_dir / "episodes.csv").read_text().splitlines()[1:]]
    assert {(float(row[2]), int(row[3])) for row in rows} == {(1.0, length)}
    assert len(rows) == result.counters.episodes
    return result


def test_checkpoints_leave_no_mark_on_training(tmp_path: Path) -> None:
    """Returns are unbiased: they are those of a run without checkpoints, to the bit."""
    settings: dict[str, Any] = {"total_steps": 3_000, "num_envs": 3, "eval_episodes": 2, "n_step": 3, "seed": 4}
    settings |= {"target_return": None, "eval_every": None, "learning_starts": 200, "listener": Silent()}
    often, never = (
        nexus.train("CartPole-v1", checkpoint_every=every, run_dir=tmp_path / name, **settings)
        for name, every in (("often", "35 steps"), ("never", None))
    )
    assert often.counters == never.counters
    rows = [
        [row.rsplit(",", 1)[0] for row in (tmp_path / name / "episodes.csv").read_text().splitlines()]
        for name in ("often", "never")
    ]
    assert rows[0] == rows[1]
    assert len(rows[0]) > 20
    assert (tmp_path / "often" / "agent.safetensors").read_bytes() == (
        tmp_path / "never" / "agent.safetensors"
    ).read_bytes()


@pytest.mark.parametrize("length", [10, 270])
@pytest.mark.parametrize("num_envs", [1, 5])
def test_long_episodes_go_on_bit_for_bit(length: int, num_envs: int, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"total_steps": 2_000, "num_envs": num_envs, "eval_episodes": 1, "n_step": 3}
    settings |= {"learning_starts": 100, "checkpoint_every": "150 steps", "hidden_dim": 8, "log_every": "70 steps"}
    env = long(length)
    nexus.train(env, run_dir=tmp_path / "whole", listener=Silent(), **settings)
    stop = Silent(777, interrupt)
    interrupted(lambda: nexus.train(env, run_dir=tmp_path / "broken", listener=stop, **settings))
    nexus.resume(tmp_path / "broken", env=env, listener=Silent())
    assert differences(tmp_path / "whole", tmp_path / "broken", env) == []


# Environments that do not repeat themselves.


class Moody(Long):
    """Its second life is another one: it draws from a generator that no seed reaches."""

    length = 40
    lives = 0

    def __init__(self, how: str) -> None:
        self.how = how
        type(self).lives += 1
        self.life = type(self).lives

    def step(self, action: SupportsInt) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        state, reward, terminated, truncated, info = super().step(action)
        second = self.life > 1
        if self.how == "shows" and second:
            state = state / 2
        if self.how == "ends" and second and self.at == 3:
            terminated = True
        if self.how == "raises" and second and self.at == 2:
            raise KeyError("mood")
        return state, reward, terminated, truncated, info


@pytest.mark.parametrize("how", ["shows", "ends", "raises"])
def test_where_an_environment_does_not_repeat_itself_an_episode_begins(how: str) -> None:
    kind = type("Moody", (Moody,), {"lives": 0})

    def vector() -> TransitionStream:
        makers: list[Callable[[], Any]] = [lambda: Replayable(kind(how), 0), lambda: Replayable(long(40)(), 1)]
        return TransitionStream(SyncVectorEnv(makers, autoreset_mode=AutoresetMode.DISABLED))

    one = vector()
    one.reset(5)
    for _ in range(7):
        one.step(np.zeros(2, np.int64))
    other = vector()
    assert other.set_state(one.get_state()).tolist() == [True, False]
    assert other.states.tolist() == [[0.0], [np.float32(7 / 40)]]
    assert other._log.seeds.tolist() == [episode_seed(5, 2), episode_seed(5, 1)]  # the next of its own
    step = other.step(np.zeros(2, np.int64))
    assert step.begins.tolist() == [True, False]
    assert other.get_state()["episode_lengths"].tolist() == [1, 8]


def test_a_run_in_such_an_environment_says_so_and_loses_nothing(tmp_path: Path) -> None:
    kind = type("Moody", (Moody,), {"lives": 0})
    settings: dict[str, Any] = {"total_steps": 400, "num_envs": 1, "eval_episodes": 1, "n_step": 5, "gamma": 0.5}
    settings |= {"learning_starts": 50, "hidden_dim": 8}
    stop = Silent(210, interrupt)  # at the tenth step of the sixth episode
    result = interrupted(
        lambda: nexus.train(lambda: kind("shows"), run_dir=tmp_path / "run", listener=stop, **settings)
    )
    assert result.counters.episodes == 5
    watch = Silent()
    go_on = nexus.resume(tmp_path / "run", env=lambda: kind("shows"), listener=watch)
    (notice,) = watch.notices
    assert "does not repeat an episode" in notice
    assert ": 1 of 1 environments start a new one" in notice
    rows = [row.split(",") for row in (tmp_path / "run" / "episodes.csv").read_text().splitlines()[1:]]
    ends = (40, 80, 120, 160, 200, 250, 290, 330, 370)
    # The episode that was lost is not counted, nor is its length added to that of the next.
    assert [(int(row[0]), int(row[3])) for row in rows] == [(at, 40) for at in ends]
    assert go_on.counters.episodes == 9


def test_a_stray_episode_leaves_its_open_windows_as_truncations(tmp_path: Path) -> None:
    from nexus.runner import Run
    from nexus.training.config import TrainConfig

    kind = type("Moody", (Moody,), {"lives": 0})
    config = TrainConfig.from_mapping(
        {"total_steps": 100, "num_envs": 1, "n_step": 3, "gamma": 0.5, "learning_starts": 90, "eval_episodes": 1}
    )
    env = lambda: kind("shows")  # noqa: E731
    interrupted(lambda: nexus.train(env, config=config, run_dir=tmp_path / "run", listener=Silent(7, interrupt)))
    with Run(env, None, config, tmp_path / "run", Silent(), begun=True) as run:
        (series,) = run.parts.series()
        rows = series.get(series.first, series.last)
    # Seven steps of one episode, cut behind the seventh: the last two look less far ahead, and keep their bootstrap.
    assert np.allclose(rows["states"][:, 0] * 40, np.arange(7))
    assert np.allclose(rows["next_states"][:, 0] * 40, [3, 4, 5, 6, 7, 7, 7])
    assert rows["discounts"].tolist() == [0.125] * 5 + [0.25, 0.5]


class Masked(Moody):
    """Allows the first action on even steps and the second on odd ones; both in the first of an episode."""

    action_space = spaces.Discrete(2)

    def told(self) -> dict[str, Any]:
        masks = [self.at % 2 == 0 or self.at == 0, self.at % 2 == 1 or self.at == 0]
        return {"action_mask": np.array(masks)}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        state, _ = super().reset(seed=seed)
        return state, self.told()

    def step(self, action: SupportsInt) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        *rest, _ = super().step(action)
        return *rest, self.told()  # type: ignore[return-value]


def test_the_windows_of_a_stray_episode_keep_their_masks(tmp_path: Path) -> None:
    from nexus.runner import Run
    from nexus.training.config import TrainConfig

    kind = type("Masked", (Masked,), {"lives": 0})
    settings = {"total_steps": 100, "num_envs": 1, "n_step": 3, "gamma": 0.5, "learning_starts": 90, "eval_episodes": 1}
    config = TrainConfig.from_mapping(settings)
    env = lambda: kind("shows")  # noqa: E731
    interrupted(lambda: nexus.train(env, config=config, run_dir=tmp_path / "run", listener=Silent(7, interrupt)))
    with Run(env, None, config, tmp_path / "run", Silent(), begun=True) as run:
        (series,) = run.parts.series()
        rows = series.get(series.first, series.last)
    even, odd, both = [True, False], [False, True], [True, True]
    assert rows["action_masks"].tolist() == [both, odd, even, odd, even, odd, even]
    assert rows["next_action_masks"].tolist() == [
        odd,
        even,
        odd,
        even,
        odd,
        odd,
        odd,
    ]  # of steps 3 to 7


# What arrives at an environment.


def test_an_environment_sees_no_option_of_ours() -> None:
    notes: list[tuple[Any, ...]] = []
    stream = TransitionStream(ledgers(1, notes))
    stream.reset(1)
    stream.step(np.array([1]))
    again = TransitionStream(ledgers(1, notes))
    again.set_state(stream.get_state())
    assert {note[3] for note in notes if note[1] == "reset"} == {None}
    env = Replayable(Ledger(notes), 0)
    env.reset(seed=1, options={"own": 5, ACTIONS_OPTION: [np.array([1])]})
    assert notes[-2][3] == {"own": 5}


def test_a_game_that_is_cut_gets_a_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PROTOCOLS, "nature", PROTOCOLS["nature"])
    env = make_vector_env(EnvSpec("pong", 4, 4), 2)
    stream = TransitionStream(env, longest=30)
    stream.reset(seed_of(0, "environments"))
    steps = [stream.step(np.zeros(2, np.int64)) for _ in range(31)]
    assert steps[29].truncated.all()
    assert not steps[30].states[:, :-1].any()  # black before the start of a game
    env.close()


def test_a_game_is_seeded_again_only_after_many_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SeededGames, "reseed_after", 500)
    env = make_vector_env(EnvSpec("breakout", 4, 4), 1)
    seeded: list[int] = []
    reset = env.reset

    def told(**given: Any) -> Any:
        seeded.append(given["seed"][0] is not None)
        return reset(**given)

    monkeypatch.setattr(env, "reset", told)
    stream, rng, ends, since = TransitionStream(env), np.random.default_rng(0), [], 0
    stream.reset(1)
    expected = [True]
    for _ in range(2_000):
        step = stream.step(rng.integers(4, size=1))
        since += 1
        if step.terminated[0] or step.truncated[0]:
            ends.append(since)
            expected.append(since >= 500)
            since = 0 if since >= 500 else since
    assert seeded == expected
    assert seeded.count(False) > seeded.count(True) > 2  # a game of a random player has some 180 steps
    env.close()


def test_an_error_names_the_seed_that_makes_it_again(tmp_path: Path) -> None:
    class Fragile(Ledger):
        def step(self, action: SupportsInt) -> tuple[Array, float, bool, bool, dict[str, Any]]:
            if self.at == 4:
                raise ValueError("broke")
            return super().step(action)

    makers: list[Callable[[], Any]] = [lambda: Replayable(Fragile([]), 0)]
    stream = TransitionStream(SyncVectorEnv(makers, autoreset_mode=AutoresetMode.DISABLED), "Fragile")
    stream.reset(11)
    with pytest.raises(EnvError) as caught:
        list(map(stream.step, [np.array([1])] * 1_000))
    text = str(caught.value)
    seed, step = (int(text.partition(word)[2].split(",")[0].split(":")[0]) for word in ("seed ", "step "))
    env = Fragile([])
    env.reset(seed=seed)
    for _ in range(step - 1):
        env.step(1)
    with pytest.raises(ValueError, match="broke"):
        env.step(1)
