"""Sub-environments and evaluations have environments of their own, or one line says what to pass."""

import gc
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv
from gymnasium.wrappers import TimeLimit

from nexus.core.errors import ConfigError
from nexus.envs.factory import EnvSpec, allows_several, make_env, make_vector_env
from nexus.envs.layers import InUse
from nexus.envs.stream import TransitionStream
from nexus.envs.workers import close_env

ASYNC = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # how Linux starts processes before 3.14


class Count(gym.Env[Any, Any]):
    """Its state is the step, 0 to 3."""

    observation_space = spaces.Box(0, 3, (1,), np.float32)
    action_space = spaces.Discrete(2)
    closed = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.t = 0
        return np.array([0], np.float32), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        return np.array([self.t], np.float32), 1.0, self.t == 3, False, {}

    def close(self) -> None:
        self.closed += 1


class OwnSpace(spaces.Space[Any]):
    """One that only its author knows."""

    def __init__(self) -> None:
        super().__init__((3,), np.float32)


class Needing(Count):
    """Can't be made without an argument."""

    def __init__(self, size: int) -> None:
        self.size = size


class OwnWrapper(gym.Env[Any, Any]):
    """A wrapper that is none of Gymnasium's, and keeps what it wraps under a name of its own."""

    observation_space, action_space = Count.observation_space, Count.action_space

    def __init__(self, game: Count) -> None:
        self.game = game

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        return self.game.reset(seed=seed)

    def step(self, action: Any) -> Any:
        return self.game.step(action)


def lengths_of(make: Any, num_envs: int, vectorization: Any) -> list[list[float]]:
    """The states that sub-environments see in four steps."""
    stream = TransitionStream(make_vector_env(EnvSpec(make), num_envs, vectorization))
    stream.reset(0)
    found = [stream.step(np.zeros(num_envs, np.int64)).next_states.ravel().tolist() for _ in range(4)]
    close_env(stream.env)
    return found


COUNT, NEEDING = Count(), Needing(3)
REGISTERED = gym.make("Acrobot-v1")
SHARED: dict[str, tuple[Any, str]] = {
    "itself": (lambda: COUNT, "lambda: Count()"),
    "wrapped": (lambda: TimeLimit(COUNT, 3), "lambda: Count()"),
    "wrapped otherwise": (lambda: OwnWrapper(COUNT), "lambda: Count()"),
    "wrapped twice": (lambda: TimeLimit(OwnWrapper(COUNT), 3), "lambda: Count()"),
    "with arguments": (lambda: NEEDING, "lambda: Needing(...)"),
    "registered": (lambda: REGISTERED, "lambda: gymnasium.make('Acrobot-v1')"),
}


@pytest.mark.parametrize("kind", SHARED)
def test_one_object_for_several_is_refused(kind: str) -> None:
    make, call = SHARED[kind]
    with pytest.raises(ConfigError) as caught:
        make_vector_env(EnvSpec(make), 8)
    name = call.removeprefix("lambda: ").partition("(")[0].replace("gymnasium.make", "AcrobotEnv")
    assert str(caught.value) == (
        f"<lambda> returned the same {name} again while it is in use: each sub-environment, and the evaluation, "
        f"needs its own; pass a function that makes a new one at each call, {call}, or set num_envs = 1 if there "
        "can be only one"
    )


@pytest.mark.parametrize("kind", SHARED)
def test_one_may_have_it_and_others_once_that_is_closed(kind: str) -> None:
    make, _ = SHARED[kind]
    for _ in range(2):
        first = make_vector_env(EnvSpec(make), 1)
        with pytest.raises(ConfigError, match="while it is in use"):  # such as an evaluation of one episode
            make_vector_env(EnvSpec(make), 1)
        with pytest.raises(ConfigError, match="while it is in use"):
            make_env(EnvSpec(make))
        close_env(first)


def test_one_that_was_forgotten_is_in_use_no_more() -> None:
    make, _ = SHARED["itself"]
    forgotten = make_vector_env(EnvSpec(make), 1)
    del forgotten
    gc.collect()
    close_env(make_vector_env(EnvSpec(make), 1))


def test_what_was_made_before_a_refusal_is_closed() -> None:
    made: list[Count] = []

    def make() -> Count:
        if len(made) == 3:
            raise RuntimeError("no more than three")
        made.append(Count())
        return made[-1]

    with pytest.raises(ConfigError, match="environment 'make' can't be made: no more than three"):
        make_vector_env(EnvSpec(make), 8)
    assert [env.closed for env in made] == [1, 1, 1]


@pytest.mark.parametrize(
    "attributes",
    [
        {"action_space": spaces.Box(0, 1)},
        {"action_space": None},
        {"observation_space": spaces.Text(3)},
        {"observation_space": spaces.Discrete(10**9)},
        {"observation_space": OwnSpace()},
    ],
)
def test_one_that_can_not_be_used_is_closed(attributes: dict[str, Any]) -> None:
    env = Count()
    vars(env).update(attributes)
    with pytest.raises(ConfigError):
        make_env(EnvSpec(lambda: env))
    assert env.closed == 1


def test_one_that_can_be_closed_as_little_as_used_is_refused_for_what_came_first() -> None:
    class Stuck(Count):
        action_space: Any = None

        def close(self) -> None:
            raise KeyError("door")

    with pytest.raises(ConfigError, match=r"^Stuck has no action_space"):
        make_env(EnvSpec(Stuck))


def test_one_that_another_uses_stays_open() -> None:
    env = Count()
    first = make_env(EnvSpec(lambda: env))
    for make in (lambda: env, lambda: TimeLimit(env, 3)):
        with pytest.raises(ConfigError, match="while it is in use"):
            make_env(EnvSpec(make))
    assert env.closed == 0
    first.close()
    assert env.closed == 1


@pytest.mark.parametrize("make", [Count, lambda: TimeLimit(OwnWrapper(Count()), 9)])
@ASYNC
@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_fresh_ones_are_taken(make: Any, vectorization: Any) -> None:
    assert lengths_of(make, 2, vectorization) == [[1, 1], [2, 2], [3, 3], [1, 1]]


@ASYNC
def test_in_processes_each_has_a_copy_of_one_object() -> None:
    make, _ = SHARED["wrapped"]
    assert lengths_of(make, 2, "async") == [[1, 1], [2, 2], [3, 3], [1, 1]]


def test_a_part_that_is_made_anew_at_each_reset_is_free_when_it_is_gone() -> None:
    """Memory is used again, so an object may have the number of one that is gone."""

    class Renewing(Count):
        def reset(self, **options: Any) -> Any:
            self.env = Count()
            return super().reset(**options)

    outer = make_env(EnvSpec(Renewing))
    for _ in range(50):
        outer.reset()
        others = [make_env(EnvSpec(Count)) for _ in range(20)]
        del others


def test_environments_of_different_spaces_are_refused() -> None:
    sizes = iter([2, 2, 3, 2, 2, 3])

    class Growing(Count):
        def __init__(self) -> None:
            self.action_space = spaces.Discrete(next(sizes))

    with pytest.raises(ConfigError) as caught:
        make_vector_env(EnvSpec(Growing), 3)
    assert (
        str(caught.value)
        == "Growing: sub-environment 2 has actions Discrete(3), sub-environment 0 has Discrete(2): all must be equal"
    )


# --- what a run is asked to be of ---


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (Count(), ", or a function that makes a new environment at each call: lambda: Count()"),
        (REGISTERED, "got an environment, AcrobotEnv: needs an id"),
        (REGISTERED, ": lambda: gymnasium.make('Acrobot-v1')"),
        (gym.spec("Acrobot-v1"), "got the spec of an environment: needs an id, or a function that makes "),
        (SyncVectorEnv([Count]), "got SyncVectorEnv, a vector of environments: needs an id, or a function that makes "),
        (None, "got NoneType as the environment: needs an id, or a function that makes "),
        (3, "got int as the environment: needs an id, or a function that makes "),
    ],
)
def test_what_is_neither_an_id_nor_a_function_is_refused(given: Any, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        EnvSpec(given)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Count, "the class Count: needs a gymnasium.Env: pass Count itself, or return Count()"),
        (lambda: None, "NoneType: needs a gymnasium.Env; does the function end with return?"),
        (
            lambda: SyncVectorEnv([Count]),
            "SyncVectorEnv: needs a gymnasium.Env, a single one, since the function is called num_envs times",
        ),
    ],
)
def test_what_a_function_makes_must_be_one_environment(make: Any, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_env(EnvSpec(make))
    assert str(caught.value) == f"<lambda>() returned {text}"


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (Count, "kwargs size, depth: Count is not made by gymnasium.make; let the function set them"),
        ("breakout", "kwargs size, depth: ALE/Breakout-v5 is not made by gymnasium.make; a game takes protocol and "),
    ],
)
def test_arguments_for_what_takes_none_are_refused(source: Any, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        EnvSpec(source, kwargs=(("size", 3), ("depth", 2)))
    assert str(caught.value).startswith(text)


def test_gymnasiums_own_arguments_are_passed_too() -> None:
    kwargs: Any = {"max_episode_steps": 3, "disable_env_checker": True}
    env = make_env(EnvSpec("Acrobot-v1", kwargs=kwargs))
    env.reset(seed=0)
    assert [env.step(0)[3] for _ in range(3)] == [False, False, True]


@pytest.mark.parametrize(
    ("source", "can"),
    [("CartPole-v1", True), ("Acrobot-v1", True), ("pong", True), (Count, False), ("test_shared_envs/Count-v0", False)],
)
def test_a_second_one_beside_the_first_is_known_to_be_harmless_of_gymnasiums_own_only(source: Any, can: bool) -> None:
    gym.register("test_shared_envs/Count-v0", "tests.test_shared_envs:Count")
    try:
        assert allows_several(EnvSpec(source)) is can
    finally:
        gym.registry.pop("test_shared_envs/Count-v0")


# --- the book of who uses what ---


def test_what_is_released_or_gone_is_free() -> None:
    book, env = InUse(), TimeLimit(Count(), 3)
    owners = [Count(), Count(), Count()]
    assert book.claim(env, owners[0]) is None
    assert book.claim(TimeLimit(env.env, 5), owners[1]) is env.env  # the innermost that is shared
    book.release(owners[1])
    assert book.claim(env, owners[1]) is env.env
    book.release(owners[0])
    assert book.claim(env, owners[1]) is None
    del owners[1]
    gc.collect()
    assert book.claim(env, owners[1]) is None
