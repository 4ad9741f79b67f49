"""An environment that raises, hangs, dies or changes its shape ends the run in one line that says which and when."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

from nexus.api import resume, train
from nexus.cli.main import main
from nexus.core.errors import ConfigError, EnvError
from nexus.core.seeding import seed_of
from nexus.envs.episodes import episode_seed
from nexus.envs.factory import EnvSpec, make_vector_env
from nexus.envs.stream import TransitionStream
from nexus.envs.workers import Reporter, close_env
from nexus.training.checkpoint_writer import Checkpoints
from nexus.training.config import TrainConfig
from tests.chaos import SETTINGS, Silent, differences
from tests.probes import MatchReward

MODES = list(AutoresetMode)
NOTHING = np.zeros(3, np.int64)
ASYNC = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # how Linux starts processes before 3.14
SAME_STEP = AutoresetMode.SAME_STEP


class Awkward(Exception):
    """An error that can't be sent to another process: it holds a function and wants two arguments."""

    def __init__(self, one: Any, two: Any) -> None:
        super().__init__(one, two)
        self.keep = lambda: one


def raise_key_error(env: Any) -> Any:
    raise KeyError("door")


def raise_two_lines(env: Any) -> Any:
    raise ValueError("first\nsecond")


def raise_awkward(env: Any) -> Any:
    raise Awkward("odd", 2)


class Mute(Exception):
    """An error that can't be printed."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


def raise_mute(env: Any) -> Any:
    raise Mute


def hang(env: Any) -> Any:
    time.sleep(600)


def die(env: Any) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def leave(env: Any) -> Any:
    os._exit(7)


def wrong_shape(env: Any) -> Any:
    return np.zeros((2, 2), np.float32)


def wrong_size(env: Any) -> Any:
    return np.zeros(3, np.float32)


def wrong_dtype(env: Any) -> Any:
    return np.array([1j, 0, 0, 0])


def a_list(env: Any) -> Any:
    return [0.0, 0.0, 0.0, 0.0]


class Failing(gym.Env[Any, Any]):
    """Does something in its third step, or in its reset; ends each episode after `length` steps."""

    observation_space: spaces.Box = spaces.Box(0, 9, (4,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(
        self, act: Callable[[Any], Any] | None = None, length: int = 9, in_reset: bool = False, at: int = 3
    ) -> None:
        self.act, self.length, self.in_reset, self.at, self.total = act, length, in_reset, at, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self.steps = 0
        state = np.zeros(4, np.float32)
        return (self.act(self) if self.act is not None and self.in_reset else state), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps, self.total = self.steps + 1, self.total + 1
        state: Any = np.zeros(4, np.float32)
        if self.act is not None and not self.in_reset and self.total == self.at:
            state = self.act(self)
        return state, 1.0, self.steps == self.length, False, {}


def makers(act: Callable[[Any], Any], **options: Any) -> list[Callable[[], Failing]]:
    return [partial(Failing, act if index == 2 else None, **options) for index in range(3)]


def reported(make: Callable[[], Failing]) -> Reporter:
    return Reporter(make())


def in_processes(mode: AutoresetMode, act: Callable[[Any], Any], **options: Any) -> VectorEnv[Any, Any, Any]:
    return AsyncVectorEnv([partial(reported, make) for make in makers(act, **options)], autoreset_mode=mode)


def in_turn(mode: AutoresetMode, act: Callable[[Any], Any], **options: Any) -> VectorEnv[Any, Any, Any]:
    return SyncVectorEnv(makers(act, **options), autoreset_mode=mode)


def refusal(env: VectorEnv[Any, Any, Any], steps: int = 5, timeout: float | None = None) -> str:
    """What is said, within seconds, when sub-environment 2 of 3 goes wrong."""
    started = time.monotonic()
    stream = TransitionStream(env, "Game-v0", timeout)
    with pytest.raises(EnvError) as caught:
        play(stream, steps)
    close_env(env)
    assert time.monotonic() - started < 20
    said = str(caught.value)
    assert "\n" not in said
    return said


def seed_of_env_2(mode: AutoresetMode) -> int:
    """Where environments reset by themselves, they are all seeded once, the second after the first."""
    return episode_seed(100, 2) if mode is AutoresetMode.DISABLED else 102


def play(stream: TransitionStream, steps: int) -> None:
    stream.reset(seed=100)
    for _ in range(steps):
        stream.step(NOTHING)


RAISING = [
    (raise_key_error, r"raised KeyError: 'door' (test_env_faults.py, line "),
    (raise_two_lines, r"raised ValueError: first second (test_env_faults.py, line "),
    (raise_awkward, r"raised Awkward: ('odd', 2) (test_env_faults.py, line "),
    (raise_mute, r"raised Mute: Mute (test_env_faults.py, line "),
]


@ASYNC
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("make", [in_turn, in_processes])
@pytest.mark.parametrize(("act", "text"), RAISING)
def test_an_environment_that_raises_is_named(make: Any, mode: AutoresetMode, act: Any, text: str) -> None:
    assert refusal(make(mode, act)).startswith(
        f"Game-v0: sub-environment 2 of 3, seed {seed_of_env_2(mode)}, step 3: {text}"
    )


@ASYNC
@pytest.mark.parametrize("make", [in_turn, in_processes])
@pytest.mark.parametrize(("act", "text"), RAISING)
def test_one_that_raises_in_reset_is_named_too(make: Any, act: Any, text: str) -> None:
    assert refusal(make(SAME_STEP, act, in_reset=True)).startswith(
        f"Game-v0: sub-environment 2 of 3, seed 102, step 0: {text}"
    )


@pytest.mark.filterwarnings("ignore:.*:UserWarning")  # Gymnasium tells of the sub-environment too
@ASYNC
def test_processes_without_a_reporter_are_named_as_far_as_known() -> None:
    said = refusal(AsyncVectorEnv(makers(raise_key_error), autoreset_mode=SAME_STEP))
    assert said.startswith("Game-v0: sub-environment 2 of 3, seed 102, step 3: raised KeyError: ")


def test_what_was_raised_stays_behind_the_line() -> None:
    stream = TransitionStream(in_turn(SAME_STEP, raise_key_error))
    stream.reset()
    stream.step(NOTHING)
    stream.step(NOTHING)
    with pytest.raises(EnvError, match=r"^Failing: sub-environment 2 of 3, step 3: raised KeyError") as caught:
        stream.step(NOTHING)  # without a seed none is told
    assert isinstance(caught.value.__cause__, KeyError)


@ASYNC
@pytest.mark.parametrize("make", [in_turn, in_processes])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("length", [9, 3])  # in mid-episode, and in the last observation of one
@pytest.mark.parametrize(
    ("act", "text"), [(wrong_shape, "2"), (wrong_size, "3"), (wrong_dtype, "complex"), (raise_key_error, "KeyError")]
)
def test_another_shape_or_dtype_is_refused(make: Any, mode: AutoresetMode, length: int, act: Any, text: str) -> None:
    said = refusal(make(mode, act, length=length))
    assert said.startswith(f"Game-v0: sub-environment 2 of 3, seed {seed_of_env_2(mode)}, step 3: ")
    if make is in_processes or (length == 3 and mode is SAME_STEP):
        assert text in said


@ASYNC
def test_a_float_is_not_cut_to_bytes_on_its_way_from_a_process() -> None:
    class Image(Failing):
        observation_space: spaces.Box = spaces.Box(0, 255, (4,), np.uint8)

    with pytest.raises(
        EnvError, match=r"sub-environment 0 of 1, step 0: got an observation float32\[4\]: needs uint8\[4\]"
    ):
        TransitionStream(AsyncVectorEnv([lambda: Reporter(Image())])).reset()


@pytest.mark.parametrize("make", [in_turn, in_processes])
@ASYNC
def test_a_list_is_an_observation_if_it_fits(make: Any) -> None:
    env = make(SAME_STEP, a_list)
    stream = TransitionStream(env)
    stream.reset()
    for _ in range(5):
        stream.step(NOTHING)
    close_env(env)


class Own(VectorEnv[Any, Any, Any]):
    """A vector form of its own that can't keep its shape."""

    num_envs = 2
    single_observation_space = spaces.Box(0, 9, (4,), np.float32)
    single_action_space = spaces.Discrete(2)

    def __init__(self, given: Any) -> None:
        self.given = given

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        return np.zeros((2, 4), np.float32), {}

    def step(self, actions: Any) -> Any:
        if isinstance(self.given, Exception):
            raise self.given
        return self.given, np.zeros(2), np.zeros(2, bool), np.zeros(2, bool), {}


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (np.zeros((2, 3), np.float32), r"got observations float32\[2, 3\]: needs float32\[2, 4\]"),
        (np.zeros((3, 4), np.float32), r"got observations float32\[3, 4\]: needs float32\[2, 4\]"),
        (np.zeros((2, 4), complex), r"got observations complex128\[2, 4\]: needs float32\[2, 4\]"),
        (RuntimeError("stuck"), "raised RuntimeError: stuck"),
    ],
)
def test_a_vector_form_of_its_own_is_checked(given: Any, text: str) -> None:
    stream = TransitionStream(Own(given), "Own-v0")
    stream.reset(seed=5)
    with pytest.raises(EnvError, match=rf"^Own-v0: seed 5, step 1: {text}"):
        stream.step(np.zeros(2, np.int64))


def test_a_vector_form_may_be_more_exact_than_it_says() -> None:
    stream = TransitionStream(Own(np.zeros((2, 4), np.float64)))
    stream.reset()
    stream.step(np.zeros(2, np.int64))


# Which sub-environment it was.


def a_vector_inside(env: Any) -> Any:
    """What goes wrong in a vector that the environment steps for itself: in its sub-environment 1."""

    def fail() -> Failing:
        return Failing(raise_key_error, at=1)

    inner = SyncVectorEnv([Failing, fail, Failing])
    inner.reset()
    inner.step(NOTHING)


class First(Failing):
    """Answers in a way of its own, where it is the first sub-environment: known by its seed."""

    def __init__(self, observation: Any = None, mask: Any = None) -> None:
        super().__init__()
        self.other, self.mask = observation, mask

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        observation, _ = super().reset(seed=seed)
        if seed is not None:
            self.first = seed == episode_seed(100, 0)
        return self.told(observation)

    def told(self, observation: Any) -> tuple[Any, dict[str, Any]]:
        mask = {} if self.mask is None else {"action_mask": self.mask if self.first else np.ones(2)}
        return (self.other if self.first and self.other is not None else observation), mask

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, *rest, _ = super().step(action)
        observation, info = self.told(observation)
        return observation, *rest, info


@ASYNC
@pytest.mark.parametrize("make", [in_turn, in_processes])
def test_a_vector_inside_an_environment_does_not_name_its_own(make: Any) -> None:
    said = refusal(make(AutoresetMode.DISABLED, a_vector_inside))
    assert said.startswith(
        f"Game-v0: sub-environment 2 of 3, seed {episode_seed(100, 2)}, step 3: raised KeyError: 'door' ("
    )


@ASYNC
@pytest.mark.parametrize("how", ["sync", "async"])
@pytest.mark.parametrize(
    ("odd", "text"),
    [
        (partial(First, np.zeros(3, np.float32)), "got an observation float32[3]: needs float32[4]"),
        (partial(First, [[1], [2, 3]]), "got an observation that is not an array: "),
        (partial(First, None, np.ones(3)), "got an action_mask of shape (3,): needs (2,), one entry per action"),
        (partial(First, None, np.array([0.5, 1])), "got an action_mask with entries other than 0 and 1"),
    ],
)
def test_the_first_one_is_named_where_the_others_do_not_fit_to_it(odd: Any, text: str, how: Any) -> None:
    said = refusal(make_vector_env(EnvSpec(odd), 3, how))
    assert said.startswith(f"Game-v0: sub-environment 0 of 3, seed {episode_seed(100, 0)}, step 0: {text}")


def test_an_observation_that_fits_no_vector_is_found_among_all() -> None:
    """Without our own wrappers, too: Gymnasium fails once all have answered, when its loop is at the last."""
    env = SyncVectorEnv([First, partial(First, np.zeros(3)), First], autoreset_mode=AutoresetMode.DISABLED)
    envs: Any = env.envs
    stream = TransitionStream(env, "Game-v0")
    with pytest.raises(
        EnvError, match=rf"^Game-v0: sub-environment 1 of 3, seed {episode_seed(100, 1)}, step 1: got an answer"
    ):
        once_odd(stream, envs[1])


def once_odd(stream: TransitionStream, env: First) -> None:
    stream.reset(100)
    env.first = True
    stream.step(NOTHING)


@ASYNC
@pytest.mark.parametrize("how", ["sync", "async"])
def test_one_that_fails_when_it_is_brought_back_is_named(how: Any) -> None:
    """The second of three raises at the reset of a seed that it has had before."""
    seeds: list[int | None] = []

    class Once(Failing):
        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
            if seed == episode_seed(100, 1) and seed in seeds:
                raise KeyError("door")
            seeds.append(seed)
            return super().reset(seed=seed)

    stream = TransitionStream(make_vector_env(EnvSpec(Once), 3, how), "Game-v0")
    play(stream, 2)
    with pytest.raises(
        EnvError, match=rf"^Game-v0: sub-environment 1 of 3, seed {episode_seed(100, 1)}, .*raised KeyError: 'door'"
    ):
        stream.set_state(stream.get_state())
    close_env(stream.env)


# Processes.


@ASYNC
@pytest.mark.parametrize("in_reset", [False, True])
def test_a_process_that_gives_no_answer_in_time_is_named_and_ended(in_reset: bool) -> None:
    env = in_processes(SAME_STEP, hang, in_reset=in_reset)
    said = refusal(env, timeout=1.5)
    step = 0 if in_reset else 3
    assert said == f"Game-v0: sub-environment 2 of 3, seed 102, step {step}: did not answer within 1.5 s"
    assert isinstance(env, AsyncVectorEnv)
    assert not any(process.is_alive() for process in env.processes)


@ASYNC
@pytest.mark.parametrize("timeout", [None, 15.0])
@pytest.mark.parametrize(("act", "how"), [(die, "was killed by SIGKILL"), (leave, "ended with exit code 7")])
def test_a_process_that_dies_is_not_waited_for(act: Any, how: str, timeout: float | None) -> None:
    env = in_processes(SAME_STEP, act)
    said = refusal(env, timeout=timeout)
    assert said == f"Game-v0: sub-environment 2 of 3, seed 102, step 3: lost its process, which {how}"
    assert isinstance(env, AsyncVectorEnv)
    assert not any(process.is_alive() for process in env.processes)


@ASYNC
@pytest.mark.parametrize("timeout", [None, 15.0])
def test_a_process_that_is_killed_between_two_steps_is_named(timeout: float | None) -> None:
    env = in_processes(SAME_STEP, hang)
    assert isinstance(env, AsyncVectorEnv)
    stream = TransitionStream(env, "Game-v0", timeout)
    stream.reset(seed=100)
    stream.step(NOTHING)
    env.processes[1].kill()
    env.processes[1].join()
    with pytest.raises(
        EnvError, match="sub-environment 1 of 3, seed 101, step 2: lost its process, which was killed by SIGKILL"
    ):
        stream.step(NOTHING)


@ASYNC
def test_a_process_that_dies_as_it_begins_is_refused() -> None:
    parent = os.getpid()

    def make() -> Failing:
        return Failing() if os.getpid() == parent else leave(None)

    with pytest.raises(ConfigError, match="died at once"):
        make_vector_env(EnvSpec(make), 2, "async")


def test_a_time_limit_needs_processes() -> None:
    with pytest.raises(ConfigError, match=r"step_timeout = 1\.0: needs vectorization async"):
        TrainConfig(step_timeout=1.0)
    with pytest.raises(ConfigError, match="step_timeout"):
        TrainConfig(step_timeout=0.0, vectorization="async")


# Whole runs.

RUN: dict[str, Any] = SETTINGS | {"total_steps": 300, "vectorization": "async", "eval_every": None}


class Once(MatchReward):
    """Does something at its 70th step, unless that was done before: `spent` says so on disk."""

    def __init__(self, act: Callable[[Any], Any], spent: Path) -> None:
        self.act, self.spent, self.total = act, spent, 0

    def step(self, action: Any) -> Any:
        self.total += 1
        if self.total == 70 and not self.spent.exists():
            self.spent.touch()
            self.act(self)
        return super().step(action)


@ASYNC
@pytest.mark.parametrize(
    ("act", "settings", "text"),
    [
        (raise_key_error, {}, "raised KeyError: 'door'"),
        (raise_key_error, {"vectorization": "sync"}, "raised KeyError: 'door'"),
        (die, {}, "lost its process, which was killed by SIGKILL"),
        (hang, {"step_timeout": 2.0}, "did not answer within 2 s"),
    ],
)
def test_a_run_whose_environment_fails_can_be_resumed(
    act: Any, settings: dict[str, Any], text: str, tmp_path: Path
) -> None:
    config = TrainConfig.from_mapping(RUN | settings)
    with pytest.raises(EnvError) as caught:
        train(partial(Once, act, tmp_path / "spent"), config=config, run_dir=tmp_path / "broken", listener=Silent())
    said = str(caught.value)
    assert text in said
    # It was the 70th step of one of two, and episodes have two steps: the second one of its episode number 34.
    seeds = [episode_seed(seed_of(0, "environments"), 34 * 2 + index) for index in range(2)]
    assert any(f"sub-environment {index} of 2, seed {seeds[index]}, step 2: " in said for index in range(2))
    assert Checkpoints(tmp_path / "broken", 1).present()[0] == 138  # nothing is lost: it is the step before
    assert json.loads((tmp_path / "broken" / "run.json").read_text())["status"] == "failed"
    env = partial(Once, act, tmp_path / "spent")  # that was done, so it does not happen again
    resume(tmp_path / "broken", env=env, listener=Silent())
    (tmp_path / "other").touch()
    train(partial(Once, act, tmp_path / "other"), config=config, run_dir=tmp_path / "whole", listener=Silent())
    assert [name for name in differences(tmp_path / "whole", tmp_path / "broken") if name != "evaluation.json"] == []


class InEvaluation(MatchReward):
    """Does something in its second step, but only in an evaluation: there the seed of a reset is another."""

    def __init__(self, act: Callable[[Any], Any]) -> None:
        self.act, self.evaluating, self.total = act, False, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        if seed is not None:
            trained_on = {episode_seed(seed_of(0, "environments"), number) for number in range(100)}
            self.evaluating, self.total = seed not in trained_on, 0
        return super().reset(seed=seed, options=options)

    def step(self, action: Any) -> Any:
        self.total += 1
        if self.evaluating and self.total == 2:
            self.act(self)
        return super().step(action)


@ASYNC
@pytest.mark.parametrize(
    ("act", "text"), [(die, "killed by SIGKILL"), (hang, "did not answer within 2 s"), (raise_key_error, "'door'")]
)
def test_an_evaluation_is_not_waited_for_either(act: Any, text: str, tmp_path: Path) -> None:
    settings = RUN | {"step_timeout": 2.0, "checkpoint_every": None, "total_steps": 60}
    with pytest.raises(EnvError, match=f"sub-environment 0 of 2, .*step 2: .*{text}"):
        train(
            partial(InEvaluation, act),
            config=TrainConfig.from_mapping(settings),
            run_dir=tmp_path / "run",
            listener=Silent(),
        )


@ASYNC
def test_the_command_line_says_it_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    module = "import gymnasium as gym\nfrom tests.test_env_faults import Failing, raise_two_lines\n"
    module += "gym.register('Failing-v0', entry_point=lambda: Failing(raise_two_lines))\n"
    (tmp_path / "failing_envs.py").write_text(module)
    monkeypatch.syspath_prepend(tmp_path)
    for mode in ("sync", "async"):
        words = ["--num-envs", "2", "--vectorization", mode, "--run-dir", str(tmp_path / mode)]
        assert main(["train", "failing_envs:Failing-v0", *words]) == 2
        said = capfd.readouterr().err
        assert len(said.splitlines()) == 1, said
        assert "raised ValueError: first second (test_env_faults.py, line" in said


def test_ctrl_c_that_reaches_the_processes_too_saves_and_ends(tmp_path: Path) -> None:
    run = tmp_path / "run"
    program = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    program += "from nexus.cli.main import main; sys.exit(main(sys.argv[1:]))"
    words = ["--total-steps", "1000000", "--num-envs", "2", "--hidden-dim", "16", "--checkpoint-every", "200 steps"]
    words += ["--vectorization", "async", "--run-dir", str(run), "--target-return", "none"]
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program, "train", "CartPole-v1", *words]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        started = time.monotonic()
        while not list(run.glob("checkpoints/*/state.json")):
            assert time.monotonic() - started < 60
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)
        out, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert said == ""
    assert "nexus resume" in out
    assert json.loads((run / "run.json").read_text())["status"] == "interrupted"
