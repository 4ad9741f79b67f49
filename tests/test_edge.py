"""What an environment answers is taken in one form and copied, whatever it does with its own arrays and its info."""

from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.wrappers import FlattenObservation, NormalizeObservation, NormalizeReward, TimeLimit

import nexus
from nexus.core.errors import ConfigError, EnvError
from nexus.envs.atari import LIFE_LOST
from nexus.envs.episodes import episode_seed
from nexus.envs.factory import EnvSpec, make_env, make_vector_env, seen_by_agent
from nexus.envs.stream import TransitionStream
from nexus.envs.workers import close_env
from tests.chaos import Silent
from tests.training import short_run

ASYNC = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # how Linux starts processes before 3.14
TWO = spaces.Box(0, 9, (2,), np.float32)


class Saying(gym.Env[Any, Any]):
    """Answers what it is told to: the reset by the first observation and info, each step by the next ones.

    It is truncated with the last observation. `seen` are the actions.
    """

    action_space = spaces.Discrete(3)

    def __init__(
        self,
        observations: Any = ((0, 0),) * 9,
        space: spaces.Space[Any] = TWO,
        reward: Any = 1.0,
        terminated: Any = False,
        infos: Any = ({},),
    ) -> None:
        self.observation_space = space
        self.observations, self.reward, self.terminated, self.infos = observations, reward, terminated, infos

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.at = 0
        return self.observations[0], self.infos[0]

    def step(self, action: Any) -> Any:
        self.at += 1
        truncated = self.at == len(self.observations) - 1
        info = self.infos[self.at % len(self.infos)]
        return self.observations[self.at], self.reward, self.terminated, truncated, info


def stream_of(make: Any, num_envs: int = 1, vectorization: Any = "sync", **spec: Any) -> TransitionStream:
    return TransitionStream(make_vector_env(EnvSpec(make, **spec), num_envs, vectorization), "Game")


def notices(make: Any, steps: int = 3, action: int = 0, **spec: Any) -> list[str]:
    """What is said of an environment as two sub-environments."""
    stream = stream_of(make, 2, **spec)
    stream.reset(0)
    for _ in range(steps):
        stream.step(np.full(2, action))
    close_env(stream.env)
    return stream.notices


def refusal(make: Any, **spec: Any) -> str:
    """What is said, in one line, when an environment's answer can't be taken."""
    stream = stream_of(make, **spec)
    with pytest.raises(EnvError) as caught:
        play(stream, 3)
    close_env(stream.env)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def play(stream: TransitionStream, steps: int) -> None:
    stream.reset(0)
    for _ in range(steps):
        stream.step(np.zeros(stream.num_envs, np.int64))


# --- arrays that change in place ---


class InPlace(gym.Env[Any, Any]):
    """Counts 0, 1, 2, 3 in one array, of which it shows a part, and is truncated. One action is legal, in one mask."""

    observation_space = spaces.Box(0, 9, (1,), np.float32)
    action_space = spaces.Discrete(3)

    def __init__(self) -> None:
        self.canvas, self.mask = np.zeros(5, np.float32), np.zeros(3, np.int8)

    def look(self) -> Any:
        self.canvas[:], self.mask[:] = self.t, 0
        self.mask[self.t % 3] = 1
        return self.canvas[2:3], {"action_mask": self.mask}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.t = 0
        return self.look()

    def step(self, action: Any) -> Any:
        assert self.mask[int(action)]
        self.t += 1
        observation, info = self.look()
        return observation, np.array(self.t), False, self.t == 3, info


@ASYNC
@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_one_array_that_changes_in_place_is_right_in_every_stack_and_at_every_end(vectorization: Any) -> None:
    stream = stream_of(InPlace, 2, vectorization, frame_stack=3)
    stream.reset(0)
    found = []
    for at in range(4):
        step = stream.step(np.full(2, at % 3))
        found.append((step.states[1].ravel().tolist(), step.next_states[1].ravel().tolist(), float(step.rewards[1])))
        assert step.action_masks is not None
        assert step.next_action_masks is not None
        assert step.action_masks[1].tolist() == [at % 3 == action for action in range(3)]
        assert step.next_action_masks[1].tolist() == [(at + 1) % 3 == action for action in range(3)]
    close_env(stream.env)
    assert found == [
        ([0, 0, 0], [0, 0, 1], 1.0),
        ([0, 0, 1], [0, 1, 2], 2.0),
        ([0, 1, 2], [1, 2, 3], 3.0),
        ([0, 0, 0], [0, 0, 1], 1.0),
    ]


def test_no_array_of_the_environment_is_given_on() -> None:
    env = make_env(EnvSpec(InPlace))
    observation, info = env.reset()
    inner: Any = env.unwrapped
    assert not np.shares_memory(observation, inner.canvas)
    assert not np.shares_memory(info["action_mask"], inner.mask)


# --- kinds of observations ---

SCALAR = spaces.Box(0, 9, (), np.float32)
BYTES = spaces.Box(0, 255, (2,), np.uint8)
LARGE = np.zeros((4, 4), np.float64) + np.arange(4)


@pytest.mark.parametrize(
    ("observation", "space", "taken"),
    [
        ([1, 2], TWO, [1, 2]),
        ((1.5, 2), TWO, [1.5, 2]),
        (np.array([1.5, 2]), TWO, [1.5, 2]),  # float64
        (np.array([True, False]), TWO, [1, 0]),
        (LARGE[1, ::-2], TWO, [3, 1]),  # a view, backwards
        (torch.tensor([1.5, 2]), TWO, [1.5, 2]),
        (3.5, SCALAR, 3.5),
        (np.float64(3.5), SCALAR, 3.5),
        ([3], SCALAR, 3),
        (3, spaces.Box(0, 9, (1,), np.float32), [3]),
        ([0, 255], BYTES, [0, 255]),
        (np.array([7, 8]), BYTES, [7, 8]),  # int64
        (np.array([[1, 0], [0, 1]]), spaces.MultiBinary((2, 2)), [1, 0, 0, 1]),
        ([1.0, 0.0], spaces.MultiBinary(2), [1, 0]),
        (np.array([1, 2]), spaces.MultiDiscrete([2, 4]), [0, 1, 0, 0, 1, 0]),
        ((1, 5), spaces.MultiDiscrete([2, 4], start=[0, 3]), [0, 1, 0, 0, 1, 0]),
        (np.array([2]), spaces.Discrete(3), [0, 0, 1]),
        (2.0, spaces.Discrete(3), [0, 0, 1]),
        (np.uint8(0), spaces.Discrete(3), [1, 0, 0]),
        (-1, spaces.Discrete(3, start=-2), [0, 1, 0]),
    ],
)
def test_what_is_meant_is_taken_in_the_dtype_of_its_space(observation: Any, space: Any, taken: Any) -> None:
    env = make_env(EnvSpec(lambda: Saying([observation] * 3, space)))
    for found in (env.reset()[0], env.step(0)[0]):
        assert type(found) is np.ndarray
        assert found.dtype == env.observation_space.dtype
        assert found.tolist() == taken


@pytest.mark.parametrize(
    ("dtype", "taken"),
    [(">f4", "float32"), (">f8", "float64"), (">i2", "int16"), (">u4", "uint32"), ("longdouble", "float64")],
)
def test_a_dtype_that_torch_lacks_becomes_the_nearest_that_it_has(dtype: str, taken: str, tmp_path: Any) -> None:
    space = spaces.Box(0, 9, (2,), np.dtype(dtype))
    make = partial(Saying, [np.array([at, 7], dtype) for at in range(5)], space)
    env = make_env(EnvSpec(make))
    assert env.observation_space == spaces.Box(0, 9, (2,), np.dtype(taken).type)
    np.testing.assert_array_equal(env.reset()[0], np.array([0, 7], taken), strict=True)
    np.testing.assert_array_equal(env.step(0)[0], np.array([1, 7], taken), strict=True)
    few: dict[str, Any] = {"total_steps": 60, "learning_starts": 20, "batch_size": 8, "eval_episodes": 1}
    result = nexus.train(make, run_dir=tmp_path / "run", listener=Silent(), threads=1, **few)
    assert result.counters.updates > 0


def test_a_number_that_the_nearest_dtype_can_not_hold_is_refused() -> None:
    longest = spaces.Box(-np.inf, np.inf, (1,), np.longdouble)
    too_large = np.array([np.finfo(np.longdouble).max])
    said = refusal(lambda: Saying([np.zeros(1), np.zeros(1), too_large], longest))
    assert said.endswith("at [0]: float64 can't represent it")


@pytest.mark.parametrize(
    ("observation", "space", "text"),
    [
        ([1, 2, 3], TWO, "an observation int64[3]: needs float32[2]"),
        ([[1], [2, 3]], TWO, "an observation that is not an array: "),
        (None, TWO, "an observation of type NoneType: needs float32[2]"),
        ({"a": 1}, TWO, "an observation of type dict: needs float32[2]"),
        ("12", TWO, "an observation of type str: needs float32[2]"),
        ([1j, 2], TWO, "an observation complex128[2]: needs float32[2]"),
        ([1e300, 2], TWO, "an observation with 1e+300 at [0]: float32 can't represent it"),
        ([0.0, np.nan], TWO, "an observation with nan at [1]: needs finite numbers"),
        ([0.0, np.inf], TWO, "an observation with inf at [1]: needs finite numbers"),
        ([0.5, 2], BYTES, "an observation float64[2]: needs uint8[2]"),
        ([7, 256], BYTES, "an observation with 256 at [1]: uint8 can't represent it"),
        ([-1, 7], BYTES, "an observation with -1 at [0]: uint8 can't represent it"),
        ([7, 300], spaces.Box(-9, 9, (2,), np.int8), "an observation with 300 at [1]: int8 can't represent it"),
        (3, spaces.Discrete(3), "observation 3: its space has 0 to 2"),
        (-1, spaces.Discrete(3), "observation -1: its space has 0 to 2"),  # the last one, for who counts from the end
        (0, spaces.Discrete(3, start=1), "observation 0: its space has 1 to 3"),
        (0.5, spaces.Discrete(3), "an observation with 0.5: needs whole numbers"),
        ([0, 1], spaces.Discrete(3), "an observation int64[2]: needs int64[]"),
        ([1, 4], spaces.MultiDiscrete([2, 4]), "an observation with 4 at [1]: its space has 0 to 3 there"),
        ([1, -1], spaces.MultiDiscrete([2, 4]), "an observation with -1 at [1]: its space has 0 to 3 there"),
        ([0, 2], spaces.MultiBinary(2), "an observation with 2 at [1]: its space has 0 and 1"),
    ],
)
def test_what_can_not_be_meant_is_refused(observation: Any, space: Any, text: str) -> None:
    zero = space.start if isinstance(space, spaces.Discrete) else np.zeros(space.shape, space.dtype)
    said = refusal(lambda: Saying([zero, zero, observation], space))
    assert said.startswith("Game: sub-environment 0 of 1, seed ")
    assert f", step 2: got {text}" in said


# --- rewards and ends ---


@pytest.mark.parametrize(
    ("reward", "taken"),
    [
        (2, 2.0),
        (True, 1.0),
        (np.float32(0.5), 0.5),
        (np.array(0.5), 0.5),
        (np.array([0.5]), 0.5),
        ([0.5], 0.5),
        (torch.tensor([[0.5]]), 0.5),
        (Fraction(1, 2), 0.5),
    ],
)
def test_a_reward_may_be_an_array_of_one_number(reward: Any, taken: float) -> None:
    *_, info = answer = make_env(EnvSpec(lambda: started(Saying(reward=reward)))).step(0)
    assert (answer[1], type(answer[1]), info) == (taken, float, {})


def started(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    env.reset()
    return env


@pytest.mark.parametrize(
    ("reward", "text"),
    [
        (None, "reward None: needs a number"),
        ("1", "reward '1': needs a number"),
        (np.zeros(2), "reward array([0., 0.]): needs a number"),
        (2**2000, "reward of type int: needs a number"),
        (np.array([np.nan]), "reward nan: needs a finite number"),
        (1e39, "reward 1e+39: agents compute in float32, which holds at most 3.4e+38"),
    ],
)
def test_a_reward_that_is_no_number_is_refused(reward: Any, text: str) -> None:
    assert refusal(lambda: Saying(reward=reward)).endswith(f", step 1: got {text}")


@pytest.mark.parametrize(("flag", "taken"), [(np.True_, True), (1, True), (0, False), (np.array([True]), True)])
def test_an_end_may_be_any_truth_value(flag: Any, taken: bool) -> None:
    answer = make_env(EnvSpec(lambda: started(Saying(terminated=flag)))).step(0)
    assert answer[2] is taken


@pytest.mark.parametrize(
    ("flag", "text"),
    [
        (None, "terminated None: needs True or False"),
        (0.37, "terminated 0.37: needs True or False"),  # the reward, in an answer of another order
        ("False", "terminated 'False': needs True or False"),
        (np.zeros(2, bool), "terminated array([False, False]): needs True or False"),
    ],
)
def test_an_end_that_is_neither_true_nor_false_is_refused(flag: Any, text: str) -> None:
    assert refusal(lambda: Saying(terminated=flag)).endswith(f", step 1: got {text}")


# --- infos ---

INFOS: list[tuple[Any, ...]] = [
    ({"winner": None}, {"winner": 1}),
    ({"path": np.arange(1)}, {"path": np.arange(2)}),
    ({"stats": {"a": 1}}, {"stats": None}),
    ({"x": 1.0}, {"x": np.ones(2)}),
    ({"id": 2**70},),
    ({"final_obs": 1, "final_info": 2, "episode": "x", "nexus_strayed": True, "nexus_fault": "x"},),
    (None, {}),
]


@ASYNC
@pytest.mark.parametrize("vectorization", ["sync", "async"])
@pytest.mark.parametrize("infos", INFOS)
def test_an_info_that_nobody_reads_ends_no_run(infos: Any, vectorization: Any) -> None:
    stream = stream_of(lambda: Saying(infos=infos), 3, vectorization)
    stream.reset(0)
    for _ in range(10):
        assert stream.step(np.zeros(3, np.int64)).rewards.tolist() == [1.0] * 3
    close_env(stream.env)
    assert stream.notices == []


def test_of_an_info_stays_what_is_read() -> None:
    info = {"action_mask": [0, 1, 1], LIFE_LOST: np.int64(1), "other": 3}
    env = make_env(EnvSpec(lambda: Saying(infos=[info])))
    _, told = env.reset()
    assert {name: np.asarray(value).tolist() for name, value in told.items()} == {
        "action_mask": [False, True, True],
        LIFE_LOST: True,
    }
    assert info["other"] == 3


# --- answers of the old API ---


class OldReset(Saying):
    def reset(self, **options: Any) -> Any:
        return super().reset(**options)[0]


class NoSeed(Saying):
    def reset(self) -> Any:  # type: ignore[override]
        return super().reset()


class OldStep(Saying):
    def step(self, action: Any) -> Any:
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward, terminated or truncated, info


class ListInfo(Saying):
    def step(self, action: Any) -> Any:
        return (*super().step(action)[:4], [])


OLD_RESET = "instead of gym's old API, let reset(self, *, seed=None, options=None) return (observation, info)"
OLD_STEP = "instead of gym's old API, let step return (observation, reward, terminated, truncated, info)"
NO_PAIR = f"needs (observation, info); {OLD_RESET}"
OLD: list[tuple[Any, str]] = [
    (partial(OldReset, [np.zeros(2)] * 3), f"step 0: its reset returned one ndarray: {NO_PAIR}"),
    (partial(OldReset, [(0.0, 1.0)] * 3), f"step 0: its reset returned 2 values (float, float): {NO_PAIR}"),
    (NoSeed, f"step 0: its reset does not accept 'seed'; {OLD_RESET}"),
    (OldStep, f"step 1: its step returned 4 values (tuple, float, bool, dict): needs 5; {OLD_STEP}"),
    (lambda: TimeLimit(OldStep(), 5), f"step 1: its step did not return five values; {OLD_STEP}"),
    (ListInfo, "step 1: its step returned an info of type list: needs a dict"),
]


@ASYNC
@pytest.mark.parametrize("vectorization", ["sync", "async"])
@pytest.mark.parametrize(("make", "text"), OLD)
def test_answers_of_the_old_api_are_named(make: Any, text: str, vectorization: Any) -> None:
    said = refusal(make, vectorization=vectorization)
    assert said.startswith("Game: sub-environment 0 of 1, seed ")
    assert text in said


def test_an_error_in_unpacking_something_else_is_the_environments_own() -> None:
    class Own(Saying):
        def step(self, action: Any) -> Any:
            _, _ = (1, 2, 3)  # type: ignore[misc]

    assert ", step 1: raised ValueError: too many values to unpack (expected 2) (test_edge.py, line" in refusal(Own)


def like_gym(name: str, module: str, *bases: type, **body: Any) -> type:
    """A class that seems to be of the package gym, which is not installed."""
    return type(name, bases, {**body, "__module__": module})


def test_an_environment_of_the_old_package_is_named() -> None:
    old = like_gym("Env", "gym.core", object, reset=None, step=None)

    class Mine(old):  # type: ignore[misc, valid-type]
        pass

    with pytest.raises(ConfigError) as caught:
        make_env(EnvSpec(Mine))
    said = str(caught.value)
    assert said.startswith("Mine() returned Mine, which is from the package gym, which Gymnasium replaced: write ")
    assert "`import gymnasium as gym`" in said
    assert "shimmy" in said
    assert "GymV26Environment-v0" in said


@pytest.mark.parametrize("place", ["action_space", "observation_space"])
def test_a_space_of_the_old_package_is_named(place: str) -> None:
    class Mine(Saying):
        pass

    setattr(Mine, place, like_gym("Discrete", "gym.spaces.discrete", object, n=2)())

    def make() -> Mine:
        env = Mine()
        if place == "observation_space":
            del vars(env)[place]
        return env

    for act in (make_env, lambda spec: make_vector_env(spec, 2)):
        with pytest.raises(ConfigError) as caught:
            act(EnvSpec(make))
        said = str(caught.value)
        assert said.startswith(
            f"make has an {place} gym.spaces.discrete.Discrete: it is from the package gym, which Gym"
        )
        assert "SAC" not in said


@pytest.mark.parametrize(
    ("space", "text"),
    [
        (None, "Mine has no action_space: its __init__ must set one, as gymnasium.spaces.Discrete(number of actions)"),
        (3, "Mine has an action_space that is int: needs one from gymnasium.spaces, such as Discrete(number of act"),
        (spaces.Discrete, "Mine has an action_space that is the class Discrete: needs one from gymnasium.spaces"),
    ],
)
def test_what_is_no_space_is_named(space: Any, text: str) -> None:
    class Mine(Saying):
        action_space = space

    with pytest.raises(ConfigError) as caught:
        make_env(EnvSpec(Mine))
    assert str(caught.value).startswith(text)


def test_there_must_be_something_to_see() -> None:
    with pytest.raises(ConfigError, match=r"has observations Box\(.*\): needs at least one number"):
        make_env(EnvSpec(lambda: Saying(space=spaces.Box(0, 1, (0,)))))


def test_a_space_that_was_forgotten_is_named() -> None:
    class Mine(gym.Env[Any, Any]):
        action_space = spaces.Discrete(2)

    with pytest.raises(ConfigError, match=r"^Mine has no observation_space: its __init__ must set one, as gymnasium\."):
        make_env(EnvSpec(Mine))


@pytest.mark.parametrize(
    ("space", "count"),
    [
        (spaces.Discrete(2_000_000), "2,000,000"),
        (spaces.Discrete(2**63 - 1), "9,223,372,036,854,775,807"),
        (spaces.MultiDiscrete([2, 2**62]), "4,611,686,018,427,387,906"),
        (spaces.MultiBinary((100_000, 100_000)), "10,000,000,000"),
        (spaces.Dict({"action_mask": spaces.Box(0, 1, (3,), np.int8), "at": spaces.Discrete(10**9)}), "1,000,000,000"),
    ],
)
def test_more_numbers_than_a_network_can_tell_apart_are_refused(space: Any, count: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_env(EnvSpec(partial(Saying, space=space)))
    seen = space["at"] if isinstance(space, spaces.Dict) else space  # the mask is taken out
    assert str(caught.value) == (
        f"partial has observations {seen}, which needs {count} inputs or outputs of a network: needs at most "
        "1,000,000; encode the number in parts, such as its digits"
    )


def test_more_actions_than_a_network_can_tell_apart_are_refused() -> None:
    class Mine(Saying):
        action_space = spaces.Discrete(10**12)

    with pytest.raises(
        ConfigError, match=r"^Mine has actions Discrete\(1000000000000\), which needs 1,000,000,000,000 inputs"
    ):
        make_env(EnvSpec(Mine))


def test_as_many_numbers_as_that_are_taken() -> None:
    assert make_env(EnvSpec(lambda: Saying(space=spaces.Discrete(1_000_000)))).observation_space.shape == (1_000_000,)


# --- objects that answer oddly when they are asked for what they lack ---


class Greedy(Saying):
    """Takes every attribute that it lacks for a key."""

    def __getattr__(self, name: str) -> Any:
        raise KeyError(name)


class Bottomless(Saying):
    """Looks for every attribute that it lacks in what it lacks too."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.nowhere, name)


class OwnWrapper(Saying):
    """Keeps one of them where wrappers keep what they wrap."""

    def __init__(self, kept: Any) -> None:
        super().__init__()
        self.env = kept


@pytest.mark.parametrize("make", [Greedy, Bottomless, lambda: OwnWrapper(Greedy()), lambda: OwnWrapper(Bottomless())])
def test_an_environment_may_raise_anything_where_it_lacks_an_attribute(make: Any) -> None:
    assert notices(make) == []


# --- closing ---


class StuckDoor(Saying):
    """Can't be closed."""

    def close(self) -> None:
        raise KeyError("door")


STUCK = r"^Game: its close raised KeyError: 'door' \(test_edge.py, line \d+\)$"


def named(make: Callable[[], Any]) -> Any:
    def game() -> Any:
        return make()

    game.__name__ = "Game"
    return game


@ASYNC
@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_one_that_can_not_be_closed_is_a_warning_once_all_is_done(vectorization: Any, tmp_path: Any) -> None:
    few: dict[str, Any] = {"total_steps": 60, "learning_starts": 20, "batch_size": 8, "eval_episodes": 1, "num_envs": 2}
    with pytest.warns(RuntimeWarning, match=STUCK):
        result = nexus.train(
            named(StuckDoor), run_dir=tmp_path / "run", listener=Silent(), vectorization=vectorization, **few
        )
    assert result.evaluation is not None
    assert result.evaluation.returns == [8.0]


def test_one_that_can_not_be_closed_keeps_none_of_the_others_open() -> None:
    closed: list[int] = []

    class Closing(Saying):
        def close(self) -> None:
            closed.append(1)

    made = iter([StuckDoor(), Closing(), Closing()])
    envs = make_vector_env(EnvSpec(named(lambda: next(made))), 3, "sync")
    with pytest.warns(RuntimeWarning, match=STUCK):
        close_env(envs)
    assert closed == [1, 1]


def test_an_error_is_not_hidden_by_one_that_follows_in_closing(tmp_path: Any) -> None:
    make = named(lambda: StuckDoor(reward=None))
    with pytest.warns(RuntimeWarning, match=STUCK), pytest.raises(EnvError, match="got reward None: needs a number"):
        nexus.train(make, run_dir=tmp_path / "run", listener=Silent(), num_envs=1)


# --- legal actions as other libraries tell them ---


class ByMethod(gym.Env[Any, Any]):
    """sb3-contrib's way. Only action `3 t mod 8` is legal, another raises; after ten steps of reward 1 none is."""

    observation_space: spaces.Space[Any] = spaces.Box(0, 10, (1,), np.float32)
    action_space = spaces.Discrete(8)

    def action_masks(self) -> Any:
        assert self.t < 10, "a terminal state is not asked"
        return np.arange(8) == (3 * self.t) % 8

    def look(self) -> Any:
        return np.array([self.t], np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.t = 0
        return self.look(), {}

    def step(self, action: Any) -> Any:
        assert action == (3 * self.t) % 8, f"{action} is illegal"
        self.t += 1
        return self.look(), 1.0, self.t == 10, False, {}


class InDict(ByMethod):
    """RLlib's and PettingZoo's way, in one array that changes in place."""

    action_masks: Any = None
    names = ("action_mask", "observations")
    seen: spaces.Space[Any] = spaces.Box(0, 10, (1,), np.float32)

    def __init__(self) -> None:
        self.mask = np.zeros(8, np.int8)
        mask, seen = self.names
        self.observation_space = spaces.Dict({mask: spaces.Box(0, 1, (8,), np.int8), seen: self.seen})

    def look(self) -> Any:
        self.mask[:] = 0
        self.mask[(3 * self.t) % 8] = self.t < 10
        seen = np.array([self.t], np.float32) if isinstance(self.seen, spaces.Box) else self.t
        return dict(zip(self.names, (self.mask, seen), strict=True))


class OtherNames(InDict):
    names = ("action_masks", "a_state")
    seen = spaces.Discrete(11)


class InPlural(ByMethod):
    """Nearly Gymnasium's way."""

    action_masks: Any = None

    def reset(self, **options: Any) -> Any:
        state, _ = super().reset(**options)
        return state, {"action_masks": [action == 0 for action in range(8)]}

    def step(self, action: Any) -> Any:
        *rest, _ = super().step(action)
        return (*rest, {"action_masks": [self.t < 10 and action == (3 * self.t) % 8 for action in range(8)]})


class Masker(gym.Wrapper[Any, Any, Any, Any]):
    """As sb3-contrib's ActionMasker: the method is the wrapper's."""

    def action_masks(self) -> Any:
        return np.arange(8) == (3 * self.get_wrapper_attr("t")) % 8


class ByProperty(ByMethod):
    @property
    def action_masks(self) -> Any:
        return ByMethod.action_masks(self)


class Unmasked(ByMethod):
    action_masks: Any = None


MASKS: list[tuple[Any, str]] = [
    (ByMethod, "ByMethod: takes the legal actions from its action_masks()"),
    (ByProperty, "ByProperty: takes the legal actions from its action_masks()"),
    (lambda: TimeLimit(ByMethod(), 99), "<lambda>: takes the legal actions from its action_masks()"),
    (lambda: TimeLimit(Masker(Unmasked()), 99), "<lambda>: takes the legal actions from its action_masks()"),
    (
        InDict,
        "InDict: takes the legal actions from observation['action_mask'], and observation['observations'] as the "
        "observation",
    ),
    (
        OtherNames,
        "OtherNames: takes the legal actions from observation['action_masks'], and observation['a_state'] as the "
        "observation",
    ),
    (InPlural, "InPlural: takes the legal actions from info['action_masks']"),
]


@ASYNC
@pytest.mark.parametrize("vectorization", ["sync", "async"])
@pytest.mark.parametrize(("make", "notice"), MASKS)
def test_masks_of_other_libraries_are_taken_and_said(make: Any, notice: str, vectorization: Any) -> None:
    stream = stream_of(make, 2, vectorization)
    stream.reset(0)
    for at in range(12):
        assert stream.action_masks is not None
        assert stream.action_masks.tolist() == [[action == 3 * (at % 10) % 8 for action in range(8)]] * 2
        step = stream.step(stream.action_masks.argmax(1))
        number = step.next_states[0].argmax() if len(step.next_states[0]) > 1 else step.next_states[0, 0]
        assert number == at % 10 + 1
        assert step.next_action_masks is not None
        assert step.next_action_masks.any() == (at != 9)
    close_env(stream.env)
    assert stream.notices == [notice]


@pytest.mark.parametrize("algorithm", ["dqn", "rainbow"])
@pytest.mark.parametrize("make", [ByMethod, InDict])
def test_no_illegal_action_is_ever_taken(make: Any, algorithm: str, tmp_path: Any) -> None:
    """The environments raise at the first one."""
    settings = {"algorithm": algorithm, "total_steps": 1_200, "update_every": "16 steps", "eval_episodes": 20}
    result = short_run(make, tmp_path, **settings)
    assert result.counters.updates > 50
    assert result.evaluation is not None
    assert result.evaluation.returns == [10.0] * 20
    assert nexus.evaluate(result.run_dir, make, 5, epsilon=0.5, listener=Silent()).returns == [10.0] * 5


def test_a_repeated_action_stops_where_such_a_mask_forbids_it() -> None:
    class Once(ByMethod):
        def action_masks(self) -> Any:
            return np.arange(8) == self.t // 2

        def step(self, action: Any) -> Any:
            self.t += 1
            return self.look(), 1.0, False, False, {}

    env = make_env(EnvSpec(Once, frame_skip=4))
    env.reset()
    assert env.step(0)[0] == 2


def test_a_mask_that_was_flattened_away_is_said() -> None:
    class Free(InDict):
        def step(self, action: Any) -> Any:
            self.t += 1
            return self.look(), 1.0, self.t == 10, False, {}

    assert notices(lambda: FlattenObservation(Free())) == [
        "<lambda>: its action_mask is flattened into the observation, so illegal actions are not excluded: "
        "leave the Dict unflattened, and the mask is read"
    ]


def test_legal_actions_under_another_name_are_said() -> None:
    class Valid(Saying):
        def valid_action_mask(self) -> Any:
            return np.ones(3)

    for make, unread in (
        (lambda: Saying(infos=[{"legal_actions": [0, 2]}]), "<lambda>: info['legal_actions']"),
        (Valid, "Valid: its valid_action_mask()"),
    ):
        assert notices(make) == [
            f"{unread} is not read: return legal actions in info['action_mask'] or from action_masks(), an array of 3 "
            "with 1 where legal"
        ]


def test_a_mask_of_gymnasiums_own_kind_needs_no_word() -> None:
    assert notices(lambda: Saying(infos=[{"action_mask": [1, 1, 1]}])) == []


@pytest.mark.parametrize(
    ("mask", "text"),
    [
        (np.ones(3), "an action_mask of shape (3,): needs (8,), one entry per action"),
        (np.arange(8), "an action_mask with entries other than 0 and 1: needs 1 where legal, else 0"),
        (np.zeros(8), "an action_mask without a legal action: needs at least one 1"),
    ],
)
@ASYNC
@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_an_impossible_mask_of_a_method_is_refused_with_its_index(mask: Any, text: str, vectorization: Any) -> None:
    class Odd(ByMethod):
        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
            self.odd = seed == episode_seed(0, 1)
            return super().reset(seed=seed)

        def action_masks(self) -> Any:
            return mask if self.odd else np.ones(8)

    stream = stream_of(Odd, 3, vectorization)
    with pytest.raises(EnvError) as caught:
        stream.reset(0)
    close_env(stream.env)
    assert str(caught.value) == f"Game: sub-environment 1 of 3, seed {episode_seed(0, 1)}, step 0: got {text}"


@ASYNC
@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_the_sub_environment_is_named_that_tells_its_legal_actions_too_late(vectorization: Any) -> None:
    class Late(Saying):
        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
            self.late = seed == episode_seed(0, 1)
            return super().reset(seed=seed)

        def step(self, action: Any) -> Any:
            return (*super().step(action)[:4], {"action_mask": [1, 1, 1]} if self.late else {})

    stream = stream_of(Late, 3, vectorization)
    with pytest.raises(EnvError) as caught:
        play(stream, 1)
    close_env(stream.env)
    assert str(caught.value) == (
        f"Game: sub-environment 1 of 3, seed {episode_seed(0, 1)}, step 1: got an action_mask in its info, "
        "but had none at reset: needs one there too"
    )


@pytest.mark.parametrize(
    ("observations", "places"),
    [
        ({"action_mask": TWO}, "observation['action_mask']"),
        (
            {"action_mask": TWO, "action_masks": TWO, "more": TWO},
            "observation['action_mask'] and observation['action_masks']",
        ),
        ({"action_mask": TWO, "one": spaces.Dict({"action_mask": TWO})}, "observation['one']['action_mask']"),
        ({"one": spaces.Dict({"action_mask": TWO}), "other": TWO}, "observation['one']['action_mask']"),
    ],
)
def test_a_dict_with_more_than_a_mask_at_its_top_or_with_nothing_else_is_refused(
    observations: Any, places: str
) -> None:
    class Odd(InDict):
        def __init__(self) -> None:
            super().__init__()
            self.observation_space = spaces.Dict(observations)

    with pytest.raises(ConfigError) as caught:
        make_env(EnvSpec(Odd))
    assert str(caught.value) == f"Odd has {places}: needs a single mask, at the top level of a Dict with other entries"


def test_a_dict_that_lacks_an_entry_is_refused() -> None:
    class Lacking(InDict):
        def look(self) -> Any:
            return {"observations": np.zeros(1)}

    assert refusal(Lacking).endswith("step 0: got an observation with observations: needs action_mask and observations")


# --- numbers that count something, and grey pictures ---


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(5, start=-2),
        spaces.MultiDiscrete(np.array([[2, 3], [4, 1]])),
        spaces.MultiDiscrete([2, 3], start=[5, -1]),
        spaces.MultiBinary((2, 3)),
    ],
)
def test_one_hot_vectors_are_those_of_gymnasium_in_single_bytes(space: Any) -> None:
    space.seed(0)
    for _ in range(20):
        number = space.sample()
        env = make_env(EnvSpec(partial(Saying, [number] * 3, space)))
        found = env.reset()[0]
        np.testing.assert_array_equal(found, np.array(spaces.flatten(space, number), np.int8), strict=True)
        assert env.observation_space == spaces.Box(0, 1, found.shape, np.int8)


def test_a_one_hot_vector_tells_its_bounds_and_its_first_number() -> None:
    space = make_env(EnvSpec(lambda: Saying([3] * 3, spaces.Discrete(3, start=2)))).observation_space
    assert seen_by_agent(space, "x", False) == {"state_scale": [0.0, 1.0], "discrete_start": 2}
    assert seen_by_agent(space, "x", True)["state_bounds"] == ([0.0] * 3, [1.0] * 3)


GREY = spaces.Box(0, 255, (40, 60), np.uint8)


def grey(space: spaces.Box = GREY) -> Saying:
    return Saying([np.full(space.shape, at, space.dtype) for at in range(5)], space)


def test_a_grey_picture_gets_its_channel() -> None:
    env = make_env(EnvSpec(grey))
    assert env.observation_space == spaces.Box(0, 255, (1, 40, 60), np.uint8)
    env.reset()
    np.testing.assert_array_equal(env.step(0)[0], np.ones((1, 40, 60), np.uint8), strict=True)
    assert notices(grey) == ["grey: observations (40, 60) are taken as grey images, (1, 40, 60)"]


def test_stacked_grey_pictures_are_channels_as_they_are() -> None:
    env = make_env(EnvSpec(grey, frame_stack=3))
    assert env.observation_space.shape == (3, 40, 60)
    env.reset()
    assert env.step(0)[0][:, 0, 0].tolist() == [0, 0, 1]
    assert notices(grey, frame_stack=3) == []


def test_a_small_table_of_bytes_stays_and_is_said() -> None:
    board = partial(grey, spaces.Box(0, 2, (3, 3), np.uint8))
    assert make_env(EnvSpec(board)).observation_space.shape == (3, 3)
    (said,) = notices(board, steps=1)
    assert said == "partial: observations (3, 3) are taken as 9 numbers; for images, add an axis, as in (1, 3, 3)"


@pytest.mark.parametrize("space", [spaces.Box(0, 1, (40, 60), np.float32), spaces.Box(0, 255, (40, 60), np.int32)])
def test_a_picture_may_be_of_other_numbers_than_bytes(space: spaces.Box) -> None:
    assert make_env(EnvSpec(partial(grey, space))).observation_space.shape == (1, 40, 60)


def test_a_large_table_stays_and_is_said() -> None:
    (said,) = notices(partial(grey, spaces.Box(0, 9, (40, 60), np.float32)), steps=1)
    assert (
        said == "partial: observations (40, 60) are taken as 2400 numbers; for images, add an axis, as in (1, 40, 60)"
    )


def test_an_image_with_its_channel_and_a_small_table_are_no_matter() -> None:
    assert notices(partial(grey, spaces.Box(0, 255, (40, 60, 1), np.uint8))) == []
    assert notices(partial(grey, spaces.Box(0, 9, (4, 60), np.float32))) == []


def test_a_grey_picture_is_seen_by_convolutions(tmp_path: Any) -> None:
    result = short_run(grey, tmp_path, total_steps=80, learning_starts=40, batch_size=8, eval_episodes=2)
    assert result.agent.state_shape == (1, 40, 60)
    assert any(isinstance(layer, torch.nn.Conv2d) for layer in result.agent.q_network.modules())


# --- bounds ---


@pytest.mark.parametrize(
    ("observations", "space", "said"),
    [
        ([(0, 0), (0, 9.5), (0, 8), (-2, 0)], TWO, "observation[1] was 9.5, its space says at most 9"),
        ([(0, 0), (0, 1), (-2, 0)], TWO, "observation[0] was -2, its space says at least 0"),
        ([(0, 0), (0, 5), (0, 0)], spaces.Box(0, 1, (2,), np.uint8), "observation[1] was 5, its space says at most 1"),
        ([[[1.5]]] * 3, spaces.Box(0, 1, (1, 1), np.float64), "observation[0, 0] was 1.5, its space says at most 1"),
        ([1.5] * 3, spaces.Box(0, 1, (), np.float32), "observation was 1.5, its space says at most 1"),
    ],
)
@ASYNC
@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_an_observation_beyond_its_bounds_is_said_once(
    observations: Any, space: Any, said: str, vectorization: Any
) -> None:
    stream = stream_of(lambda: Saying(observations, space), 3, vectorization)
    stream.reset(0)
    for _ in range(9):
        stream.step(np.zeros(3, np.int64))
    close_env(stream.env)
    assert stream.notices == [f"<lambda>: {said}; states may be scaled by these bounds: correct the space"]


@pytest.mark.parametrize(
    ("observations", "space"),
    [
        ([(0, 9), (9, 0)], TWO),
        ([(0, 9.000001), (-1e-7, 0)], TWO),  # by rounding
        ([(0, 1e30)] * 2, spaces.Box(-np.inf, np.inf, (2,), np.float32)),
        ([(0, 255)] * 2, BYTES),
    ],
)
def test_within_its_bounds_nothing_is_said(observations: Any, space: Any) -> None:
    assert notices(lambda: Saying(observations, space)) == []


def test_bounds_are_looked_at_in_the_first_steps_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nexus.envs.edge.CHECKED", 2)
    assert notices(lambda: Saying([(0, 0), (0, 0), (0, 10), (0, 0)])) == []
    assert len(notices(lambda: Saying([(0, 0), (0, 10), (0, 0)]))) == 1


# --- running statistics ---


class RunningScale(gym.Wrapper[Any, Any, Any, Any]):
    """After the pattern of Stable-Baselines3's VecNormalize."""

    def __init__(self, env: gym.Env[Any, Any], training: bool = True) -> None:
        super().__init__(env)
        self.obs_rms, self.ret_rms, self.training = [0.0, 1.0], [0.0, 1.0], training


@pytest.mark.parametrize(
    ("wrap", "kinds"),
    [
        (NormalizeObservation, []),  # which evaluations take over
        (NormalizeReward, ["rewards"]),
        (lambda env: TimeLimit(NormalizeReward(NormalizeObservation(env)), 9), ["rewards"]),
        (RunningScale, ["observations", "rewards"]),
        (partial(RunningScale, training=False), []),
        (partial(TimeLimit, max_episode_steps=9), []),
    ],
)
def test_running_statistics_are_said(wrap: Callable[[Any], Any], kinds: list[str]) -> None:
    def make() -> gym.Env[Any, Any]:
        return wrap(Saying())  # type: ignore[no-any-return]

    said = notices(make)
    assert [text.split(" scales ")[1].split(" by ")[0] for text in said] == kinds
    assert all(text.startswith("make: ") for text in said)


def test_frozen_statistics_are_not_running() -> None:
    def make() -> gym.Env[Any, Any]:
        env: Any = NormalizeObservation(Saying())
        env.update_running_mean = False
        return env  # type: ignore[no-any-return]

    assert notices(make) == []
