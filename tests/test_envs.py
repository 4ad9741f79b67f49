"""Making environments: wrappers by number, and one clear line for everything that can't be used."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

from nexus.core import ConfigError
from nexus.core.types import Array
from nexus.envs.factory import EnvSpec, describe_spaces, make_env, make_vector_env, observation_bounds
from nexus.envs.wrappers import FrameSkip

NUMBER = spaces.Box(0, 255, (1,), np.float64)
IMAGE = spaces.Box(0, 255, (1, 2), np.uint8)


class Scripted(gym.Env[Any, Any]):
    """Shows `frames` one after the other (the first at reset), pays `rewards`, ends with the last frame."""

    def __init__(
        self,
        frames: Any = ((0,), (1,), (2,), (3,), (4,), (5,)),
        rewards: Any = (1.0, 10.0, 100.0, 1_000.0, 10_000.0),
        observations: spaces.Space[Any] = NUMBER,
        actions: spaces.Space[Any] | None = None,
        truncates: bool = False,
    ) -> None:
        self.observation_space = observations
        self.action_space = spaces.Discrete(2) if actions is None else actions
        self.frames, self.rewards, self.truncates = frames, rewards, truncates
        self.now = 0
        self.taken: list[Any] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.now = 0
        return self.frame(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.taken.append(action)
        self.now += 1
        ended = self.now == len(self.frames) - 1
        return (
            self.frame(),
            self.rewards[self.now - 1],
            ended and not self.truncates,
            ended and self.truncates,
            {},
        )

    def frame(self) -> Any:
        shown, space = self.frames[self.now], self.observation_space
        return np.array(shown, space.dtype) if isinstance(space, spaces.Box) else shown


# --- FrameSkip ---


def test_frame_skip_repeats_the_action_and_sums_the_rewards() -> None:
    scripted = Scripted()
    env = FrameSkip(scripted, 3)
    env.reset()
    observation, reward, terminated, truncated, _ = env.step(1)
    assert (observation.tolist(), reward, terminated, truncated) == ([3], 111.0, False, False)
    assert scripted.taken == [1, 1, 1]


@pytest.mark.parametrize("truncates", [False, True])
def test_frame_skip_stops_where_the_episode_ends(truncates: bool) -> None:
    scripted = Scripted(truncates=truncates)
    env = FrameSkip(scripted, 3)
    env.reset()
    env.step(0)
    observation, reward, terminated, truncated, _ = env.step(1)
    assert (observation.tolist(), reward, terminated, truncated) == ([5], 11_000.0, not truncates, truncates)
    assert scripted.taken == [0, 0, 0, 1, 1]


FLICKER = (((0, 0),), ((200, 200),), ((9, 5),), ((4, 7),), ((1, 2),), ((3, 1),))


def test_images_show_the_maximum_of_the_last_two_raw_frames() -> None:
    env = FrameSkip(Scripted(FLICKER, observations=IMAGE), 3)
    env.reset()
    observation = env.step(0)[0]
    np.testing.assert_array_equal(observation, np.array([[9, 7]], np.uint8), strict=True)


def test_an_episode_that_ends_with_the_first_repeat_shows_its_one_frame() -> None:
    env = FrameSkip(Scripted(FLICKER[:5], observations=IMAGE), 3)
    env.reset()
    env.step(0)
    assert env.step(0)[0].tolist() == [[1, 2]]  # not mixed with the frame of the step before


class Reusing(Scripted):
    """Draws every frame into the same array."""

    def frame(self) -> Any:
        if self.now == 0:
            self.canvas: Array = np.zeros((1, 2), np.uint8)
        self.canvas[:] = self.frames[self.now]
        return self.canvas


def test_the_maximum_is_right_for_an_environment_that_reuses_its_frame() -> None:
    env = FrameSkip(Reusing(FLICKER, observations=IMAGE), 3)
    env.reset()
    assert env.step(0)[0].tolist() == [[9, 7]]


@pytest.mark.parametrize(
    "observations",
    [
        spaces.Box(0, 255, (1, 2), np.float32),  # shaped as an image, but of numbers
        spaces.Box(0, 255, (2,), np.uint8),  # bytes, but a vector: the RAM of a console
    ],
)
def test_what_is_no_image_shows_its_last_frame(observations: spaces.Box) -> None:
    frames = [np.reshape(frame, observations.shape) for frame in FLICKER]
    env = FrameSkip(Scripted(frames, observations=observations), 3)
    env.reset()
    assert env.step(0)[0].ravel().tolist() == [4, 7]


# --- make_env ---


def test_frames_are_stacked_oldest_first_after_zeros_at_the_start_of_each_episode() -> None:
    env = make_env(EnvSpec(lambda: Scripted([(7,), (1,), (2,), (3,)]), frame_stack=3))
    for _ in range(2):
        shown = [env.reset()[0]] + [env.step(0)[0] for _ in range(3)]
        assert [stack.ravel().tolist() for stack in shown] == [[0, 0, 7], [0, 7, 1], [7, 1, 2], [1, 2, 3]]
    assert env.observation_space.shape == (3, 1)


def test_skipped_frames_are_not_in_the_stack() -> None:
    env = make_env(EnvSpec(Scripted, frame_skip=2, frame_stack=2))
    env.reset()
    shown = [env.step(0)[0].ravel().tolist() for _ in range(3)]
    assert shown == [[0, 2], [2, 4], [4, 5]]


def test_discrete_observations_become_one_hot() -> None:
    env = make_env(EnvSpec(lambda: Scripted((2, 4, 3), observations=spaces.Discrete(3, start=2))))
    shown = [env.reset()[0], env.step(0)[0], env.step(0)[0]]
    assert [list(row) for row in shown] == [[1, 0, 0], [0, 0, 1], [0, 1, 0]]
    assert isinstance(env.observation_space, spaces.Box)


def test_keyword_arguments_reach_gymnasium() -> None:
    env = make_env(EnvSpec("CartPole-v1", kwargs=(("sutton_barto_reward", True),)))
    env.reset(seed=0)
    assert env.step(0)[1] == 0.0
    vector = make_vector_env(EnvSpec("CartPole-v1", kwargs=(("sutton_barto_reward", True),)), 2)
    vector.reset(seed=0)
    assert vector.step(np.zeros(2, np.int64))[1].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("spec", [EnvSpec("CartPole-v1", frame_skip=2), EnvSpec("CartPole-v1", frame_stack=2)])
def test_a_wrapper_that_is_wanted_is_there_in_the_vector_form_too(spec: EnvSpec) -> None:
    stack, skip = spec.frame_stack, spec.frame_skip
    vector = make_vector_env(spec, 2)
    states, _ = vector.reset(seed=0)
    assert states.shape == ((2, 2, 4) if stack == 2 else (2, 4))
    assert vector.step(np.zeros(2, np.int64))[1].tolist() == [skip] * 2
    assert vector.metadata["autoreset_mode"] is AutoresetMode.DISABLED


@pytest.fixture
def tiny_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module that registers an environment when it is imported."""
    (tmp_path / "tiny_worlds.py").write_text(
        "import gymnasium as gym\n"
        "from gymnasium.envs.classic_control import CartPoleEnv\n"
        "gym.register('TinyWorld-v0', entry_point=CartPoleEnv, max_episode_steps=7)\n"
    )
    (tmp_path / "broken_worlds.py").write_text("raise RuntimeError('no display\\nanywhere')\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "tiny_worlds"
    gym.registry.pop("TinyWorld-v0", None)
    sys.modules.pop("tiny_worlds", None)


def test_the_module_in_front_of_an_id_is_imported(tiny_module: str) -> None:
    assert "TinyWorld-v0" not in gym.registry
    env = make_env(EnvSpec(f"{tiny_module}:TinyWorld-v0"))
    assert env.spec is not None
    assert env.spec.max_episode_steps == 7
    assert make_vector_env(EnvSpec(f"{tiny_module}:TinyWorld-v0"), 2).num_envs == 2


# --- what can't be used: one line that names what it got and what it needs ---


def refusal(spec: EnvSpec) -> str:
    with pytest.raises(ConfigError) as caught:
        make_env(spec)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("CartPoel-v1", "CartPole-v1"), ("cartpole-v1", "CartPole-v1"), ("LunarLander-v99", "LunarLander-v3")],
)
def test_an_unknown_id_gives_the_nearest(name: str, nearest: str) -> None:
    text = refusal(EnvSpec(name))
    assert text.startswith(f"no environment {name!r}; did you mean ")
    assert nearest in text
    with pytest.raises(ConfigError, match=nearest):
        make_vector_env(EnvSpec(name), 2)


def test_an_id_like_no_other_gives_no_guess() -> None:
    assert "did you mean" not in refusal(EnvSpec("zzzzqqqq"))


@pytest.mark.parametrize(
    ("name", "needed"),
    [
        ("no_such_module:CartPole-v1", ["'no_such_module'", "import"]),
        ("tiny_worlds:TinyWrold-v0", ["'TinyWrold-v0'", "TinyWorld-v0"]),
        ("broken_worlds:TinyWorld-v0", ["'broken_worlds'", "no display anywhere"]),  # fails in its own way
        (".relative:TinyWorld-v0", ["'.relative'", "import"]),
    ],
)
def test_a_module_or_its_id_that_can_not_be_found_is_named(tiny_module: str, name: str, needed: list[str]) -> None:
    text = refusal(EnvSpec(name))
    assert [word for word in needed if word not in text] == []


@pytest.mark.parametrize(
    ("actions", "needed"),
    [
        (spaces.Box(-1, 1, (2,)), ["Box(", "needs one Discrete", "SAC, TD3 or PPO"]),
        (spaces.MultiDiscrete([3, 4]), ["MultiDiscrete(", "needs one Discrete", "12 combinations"]),
        (spaces.MultiDiscrete(np.array([[2, 3], [4, 1]])), ["MultiDiscrete([[2 3] [4 1]])", "24 combinations"]),
        (spaces.Discrete(3, start=1), ["Discrete(3, start=1)", "needs them to start at 0"]),
    ],
)
def test_actions_that_dqn_can_not_use_are_refused(actions: spaces.Space[Any], needed: list[str]) -> None:
    def custom() -> gym.Env[Any, Any]:
        return Scripted(actions=actions)

    text = refusal(EnvSpec(custom))
    assert text.startswith("custom has actions")
    assert [word for word in needed if word not in text] == []


@pytest.mark.parametrize(
    ("observations", "way"),
    [
        (spaces.Text(5), "encode it as numbers, such as a MultiDiscrete of words"),
        (spaces.Sequence(NUMBER), "pad it to a Box of a fixed shape"),
        (spaces.Graph(NUMBER, None), "pad it to a Box of a fixed shape"),
    ],
)
def test_observations_of_no_fixed_shape_are_refused(observations: spaces.Space[Any], way: str) -> None:
    def custom() -> gym.Env[Any, Any]:
        return Scripted(observations=observations)

    kind = type(observations).__name__
    assert refusal(EnvSpec(custom)) == (
        f"custom has {kind} observations: needs numbers of a fixed shape; {way} in an ObservationWrapper"
    )


def test_the_spaces_of_a_state_are_described() -> None:
    assert describe_spaces(IMAGE, spaces.Discrete(4), "x") == ((1, 2), np.dtype(np.uint8), 4)


def test_a_number_without_two_sensible_bounds_keeps_its_scale() -> None:
    low = np.array([-4.8, -np.inf, 0.0, -1e7, 2.0, -1e7, 0.0])
    high = np.array([4.8, 3.0, 10.0, 1e7, 2.0, 3.0, 1e7])
    assert observation_bounds(spaces.Box(low, high, dtype=np.float64), "x") == (
        [-4.8, -1.0, 0.0, -1.0, -1.0, -1.0, -1.0],
        [4.8, 1.0, 10.0, 1.0, 1.0, 1.0, 1.0],
    )


@pytest.mark.parametrize(
    ("observations", "line"),
    [
        (spaces.Box(-np.inf, np.inf, (3,)), "scale_observations: the observations of x have no bounds to scale by"),
        (IMAGE, r"scale_observations: x has observations Box\(0, 255, \(1, 2\), uint8\), which need no scaling"),
        (spaces.Discrete(3), r"scale_observations: x has observations Discrete\(3\), which need no scaling"),
    ],
)
def test_what_can_not_be_scaled_is_refused(observations: spaces.Space[Any], line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        observation_bounds(observations, "x")


def raises() -> gym.Env[Any, Any]:
    raise RuntimeError("no display\n  anywhere")


def raises_without_a_word() -> gym.Env[Any, Any]:
    raise KeyboardInterruptLike


class KeyboardInterruptLike(Exception):
    pass


def gives_no_env() -> Any:
    return {"not": "one"}


@pytest.mark.parametrize(
    ("maker", "line"),
    [
        (raises, "environment 'raises' can't be made: no display anywhere"),
        (raises_without_a_word, "environment 'raises_without_a_word' can't be made: KeyboardInterruptLike"),
        (gives_no_env, "gives_no_env() returned dict: needs a gymnasium.Env"),
    ],
)
def test_a_maker_that_fails_is_one_line(maker: Callable[[], gym.Env[Any, Any]], line: str) -> None:
    assert refusal(EnvSpec(maker)) == line


def test_an_argument_that_the_environment_does_not_take_is_one_line() -> None:
    text = refusal(EnvSpec("CartPole-v1", kwargs=(("gravitas", 1),)))
    assert text.startswith("environment 'CartPole-v1' can't be made:")
    assert "gravitas" in text
