"""Rewards and observations that nobody can learn from are refused at once, with sub-environment and step."""

from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from nexus.cli.main import main
from nexus.core.errors import EnvError
from nexus.core.seeding import seed_of
from nexus.core.types import Array
from nexus.envs.checks import require_rewards
from nexus.envs.episodes import episode_seed
from nexus.envs.stream import TransitionStream
from nexus.envs.wrappers import FrameSkip

MODES = list(AutoresetMode)


class Faulty(gym.Env[Any, Any]):
    """Goes wrong in its third step, if it is the faulty one; ends each episode after `length` steps."""

    action_space = spaces.Discrete(2)

    def __init__(
        self, reward: Any = 1.0, number: Any = 0.0, faulty: bool = True, length: int = 9, dtype: Any = np.float32
    ) -> None:
        self.observation_space = spaces.Box(0, 9, (2, 2), dtype)
        self.bad = (reward, number) if faulty else (1.0, 0.0)
        self.length, self.total = length, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        self.steps = 0
        return np.zeros((2, 2), self.observation_space.dtype), {}

    def step(self, action: Any) -> tuple[Array, Any, bool, bool, dict[str, Any]]:
        self.steps, self.total = self.steps + 1, self.total + 1
        reward, number = self.bad if self.total == 3 else (1.0, 0.0)
        state = np.zeros((2, 2), self.observation_space.dtype)
        state[1, 0] = number
        return state, reward, self.steps == self.length, False, {}


def seed_of_env_2(mode: AutoresetMode) -> int:
    """Where environments reset by themselves, they are all seeded once, the second after the first."""
    return episode_seed(0, 2) if mode is AutoresetMode.DISABLED else 2


def refusal(mode: AutoresetMode, **faults: Any) -> str:
    """What is said when sub-environment 2 of 3 goes wrong."""
    makers = [partial(Faulty, faulty=index == 2, **faults) for index in range(3)]
    stream = TransitionStream(SyncVectorEnv(makers, autoreset_mode=mode), "Game-v0")
    stream.reset(seed=0)
    for _ in range(2):
        stream.step(np.zeros(3, np.int64))
    with pytest.raises(EnvError) as caught:
        stream.step(np.zeros(3, np.int64))
    said = str(caught.value)
    assert "\n" not in said
    return said


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("reward", "text"),
    [
        (np.nan, "got reward nan: needs a finite number"),
        (np.inf, "got reward inf: needs a finite number"),
        (-np.inf, "got reward -inf: needs a finite number"),
        (None, "got reward nan: needs a finite number"),  # which is what Gymnasium makes of None
        ("much", "can't be stacked with the other sub-environments': could not convert string to float: 'much'"),
        ({"a": 1}, "can't be stacked with the other sub-environments': float() argument must be"),
        (np.ones(2), "can't be stacked with the other sub-environments': setting an array element with a sequence"),
    ],
)
def test_a_reward_must_be_a_finite_number(mode: AutoresetMode, reward: Any, text: str) -> None:
    said = refusal(mode, reward=reward)
    assert said.startswith(f"Game-v0: sub-environment 2 of 3, seed {seed_of_env_2(mode)}, step 3: got ")
    assert text in said


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("length", [9, 3])  # in mid-episode, and in the last observation of one
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_observation_must_be_finite(mode: AutoresetMode, number: float, length: int, dtype: Any) -> None:
    said = refusal(mode, number=number, length=length, dtype=dtype)
    assert (
        said
        == f"Game-v0: sub-environment 2 of 3, seed {seed_of_env_2(mode)}, step 3: got an observation with {number} at "
        "[1, 0]: needs finite numbers"
    )


def test_a_first_observation_must_be_finite_too() -> None:
    class Reset(Faulty):
        def reset(self, **options: Any) -> tuple[Array, dict[str, Any]]:
            return np.full((2, 2), np.nan, np.float32), {}

    with pytest.raises(
        EnvError, match=r"Reset: sub-environment 0 of 1, step 0: got an observation with nan at \[0, 0\]"
    ):
        TransitionStream(SyncVectorEnv([Reset])).reset()


def test_whole_numbers_are_not_searched_and_large_ones_are_no_error() -> None:
    stream = TransitionStream(SyncVectorEnv([partial(Faulty, 3e38, 7, dtype=np.uint8)] * 2))
    stream.reset()
    rewards = [stream.step(np.zeros(2, np.int64)).rewards.max() for _ in range(4)]
    assert rewards == [1, 1, 3e38, 1]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("large", [1e300, -4e38])
def test_what_float32_can_not_hold_is_refused_as_that(mode: AutoresetMode, large: float) -> None:
    """It would be infinite in the agent, whose training then seems to diverge."""
    where = f"Game-v0: sub-environment 2 of 3, seed {seed_of_env_2(mode)}, step 3: got "
    holds = "agents compute in float32, which holds at most 3.4e+38"
    assert refusal(mode, reward=large) == f"{where}reward {large}: {holds}"
    assert refusal(mode, number=large, dtype=np.float64) == f"{where}an observation with {large} at [1, 0]: {holds}"


@pytest.mark.parametrize(
    "rewards", [np.ones((2, 1)), np.ones(3), np.array(["a", "b"]), np.array([1, None]), 1.0, np.ones(2, complex)]
)
def test_a_vector_form_of_its_own_gives_one_number_per_environment(rewards: Any) -> None:
    with pytest.raises(EnvError, match=r"needs one number per sub-environment, \[2\]"):
        require_rewards(rewards, 2, lambda index, text: EnvError(text))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # how Linux starts the processes before 3.14
@pytest.mark.parametrize(
    ("reward", "text"), [(np.nan, "sub-environment 0 of 2, seed 0, step 3: got reward nan"), ("x", "step 3: got an")]
)
def test_environments_in_processes_of_their_own_are_checked_too(reward: Any, text: str) -> None:
    stream = TransitionStream(AsyncVectorEnv([partial(Faulty, reward)] * 2, autoreset_mode=AutoresetMode.SAME_STEP))
    stream.reset(seed=0)
    for _ in range(2):
        stream.step(np.zeros(2, np.int64))
    with pytest.raises(EnvError, match=text):
        stream.step(np.zeros(2, np.int64))
    stream.env.close()


def test_a_reward_that_is_repeated_is_refused_too() -> None:
    stream = TransitionStream(SyncVectorEnv([lambda: FrameSkip(Faulty(None), 3)]))
    stream.reset()
    with pytest.raises(EnvError, match="Faulty: sub-environment 0 of 1, step 1: got an answer that can't be stacked"):
        stream.step(np.zeros(1, np.int64))


def test_four_answers_instead_of_five_are_refused() -> None:
    class Old(Faulty):
        def step(self, action: Any) -> Any:
            return super().step(action)[:4]

    stream = TransitionStream(SyncVectorEnv([Old]))
    stream.reset()
    with pytest.raises(EnvError, match=r"Old: sub-environment 0 of 1, step 1: got .* not enough values"):
        stream.step(np.zeros(1, np.int64))


FAULTY_MODULE = """
import gymnasium as gym
from tests.test_action_masks import Masked
from tests.test_env_checks import Faulty
import numpy as np

class Nan(Faulty):
    def __init__(self): super().__init__(float("nan"))

class NoAction(Masked):
    def look(self):
        state, _ = super().look()
        return state, {"action_mask": np.zeros(4, np.int8)}

gym.register("Nan-v0", entry_point=Nan)
gym.register("NoAction-v0", entry_point=NoAction)
"""


@pytest.mark.parametrize(
    ("env", "text"),
    [
        ("Nan-v0", "sub-environment 0 of 8, seed SEED, step 3: got reward nan: needs a finite number"),
        (
            "NoAction-v0",
            "sub-environment 0 of 8, seed SEED, step 0: got an action_mask without a legal action: needs at least "
            "one 1",
        ),
    ],
)
def test_the_command_line_says_it_in_one_line_and_exits_with_2(
    env: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "faulty_envs.py").write_text(FAULTY_MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["train", f"faulty_envs:{env}", "--run-dir", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    text = text.replace("SEED", str(episode_seed(seed_of(0, "environments"), 0)))
    assert said == f"nexus: error: faulty_envs:{env}: {text}\n"
