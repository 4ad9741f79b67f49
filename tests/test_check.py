"""`nexus check` on environments with one fault each, which it names with the cure, and on sound ones."""

import importlib
import itertools
import json
import math
import random
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import pytest
import safetensors.torch
import torch
from gymnasium import spaces
from gymnasium.wrappers import (
    FlattenObservation,
    FrameStackObservation,
    GrayscaleObservation,
    NormalizeObservation,
    RescaleObservation,
    TimeLimit,
    TransformReward,
)

import nexus
from nexus.api import make_config
from nexus.checking import Report
from nexus.checking.checker import seen
from nexus.checking.first_steps import FirstSteps
from nexus.checking.of_plays import ANSWERS, PLAY_CHECKS
from nexus.checking.of_spaces import SPACE_CHECKS
from nexus.checking.of_steps import STEP_CHECKS
from nexus.checking.trial import Subject, Trial
from nexus.checking.watch import Watch
from nexus.cli.main import main
from nexus.core.errors import ConfigError
from nexus.listener import Listener
from tests.probes import ActionReward, MatchReward

SECONDS = 20.0  # at most; nearly all take less than one
pytestmark = pytest.mark.filterwarnings("ignore:Gym has been unmaintained")


class Walk(gym.Env[Any, Any]):
    """A sound environment: a point that is pushed left and right, paid for staying near the middle."""

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012
    observation_space: spaces.Space[Any] = spaces.Box(-2, 2, (3,), np.float32)
    action_space: spaces.Space[Any] = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.t = 0
        self.at, self.speed = self.np_random.uniform(-0.5, 0.5, 2)
        return self.look(), self.info()

    def step(self, action: Any) -> Any:
        self.t += 1
        self.move(action)
        return self.look(), self.pay(), self.over(), self.t >= 40, self.info()

    def move(self, action: Any) -> None:
        self.speed = float(np.clip(self.speed + (0.1 if action == 1 else -0.1), -1, 1))
        self.at = float(np.clip(self.at + 0.3 * self.speed, -2, 2))

    def look(self) -> Any:
        return np.array([self.at, self.speed, math.sin(self.t / 3)], np.float32)

    def pay(self) -> Any:
        return 1.0 - abs(self.at)

    def over(self) -> Any:
        return abs(self.at) > 1

    def info(self) -> dict[str, Any]:
        return {}


def walk(base: type = Walk, **parts: Any) -> type:
    """A walk with some parts replaced."""
    return type("MyEnv", (base,), parts)


class Fault(NamedTuple):
    """An environment with one known fault, and what must be said of it."""

    name: str
    make: Any
    check: str
    verdict: str
    text: str
    cure: str
    settings: dict[str, Any] = {}  # noqa: RUF012
    also: tuple[str, ...] = ()  # checks that the same fault makes fail


# --- environments with a fault that takes more than a line ---


def at_step(number: int, wrong: Any, right: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A part that is wrong at one step of each episode."""
    return lambda self: (wrong(self) if callable(wrong) else wrong) if self.t == number else right(self)


def raise_door(self: Any) -> Any:
    rooms: dict[str, int] = {}
    return rooms["door"]


class Mute(Exception):
    """An error that can't be printed."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


def raise_mute(self: Any) -> Any:
    raise Mute


def raise_in_numpy(self: Any) -> Any:
    return np.zeros(3).reshape(2, 2)


def hang(self: Any) -> Any:
    time.sleep(600)


def slow(self: Any) -> Any:
    time.sleep(0.006)
    return Walk.pay(self)


def spin(self: Any) -> Any:
    while True:
        pass


class OldReset(Walk):
    def reset(self, **options: Any) -> Any:
        return super().reset(**options)[0]


class NoSeed(Walk):
    def reset(self) -> Any:  # type: ignore[override]
        return super().reset()


class OldStep(Walk):
    def step(self, action: Any) -> Any:
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward, terminated or truncated, info


class KeepsCount(Walk):
    """Does not set back its counter of steps, so that its time limit ends every later episode at once."""

    count = 0

    def over(self) -> Any:
        return False

    def step(self, action: Any) -> Any:
        observation, reward, terminated, _, info = super().step(action)
        self.count += 1
        return observation, reward, terminated, self.count >= 40, info


class KeepsPlace(Walk):
    """Begins where the last episode ended."""

    def reset(self, **options: Any) -> Any:
        before = getattr(self, "at", 0.25)
        super().reset(**options)
        self.at = before if abs(before) < 0.9 else -0.9
        return self.look(), self.info()


class OwnCoins(Walk):
    """Draws from Python's generator, which no seed reaches."""

    def reset(self, **options: Any) -> Any:
        super().reset(**options)
        self.at = random.uniform(-0.5, 0.5)
        return self.look(), self.info()


class Shared(Walk):
    """Keeps its speed in the class."""

    speeds: list[float] = [0.0]  # noqa: RUF012

    def reset(self, **options: Any) -> Any:
        answer = super().reset(**options)
        self.speeds[0] = self.speed
        return answer

    def move(self, action: Any) -> None:
        self.speed = self.speeds[0]
        super().move(action)
        self.speeds[0] = self.speed


class DrawnOnce(Walk):
    """Draws its wind when it is made."""

    def __init__(self) -> None:
        self.wind = random.uniform(0.01, 0.1)

    def move(self, action: Any) -> None:
        super().move(action)
        self.at += self.wind


class InPlace(Walk):
    def __init__(self) -> None:
        self.array = np.zeros(3, np.float32)

    def look(self) -> Any:
        self.array[:] = super().look()
        return self.array


class OneArray(Walk):
    array = np.zeros(3, np.float32)

    def look(self) -> Any:
        self.array[:] = super().look()
        return self.array[:]


class FewSpaces(Walk):
    made = itertools.count()

    def __init__(self) -> None:
        size = 3 + next(self.made) % 2
        self.observation_space = spaces.Box(-2, 2, (size,), np.float32)

    def look(self) -> Any:
        return np.resize(super().look(), self.observation_space.shape or ())


class OnlyOne(Walk):
    """There is one robot."""

    taken = False

    def __init__(self) -> None:
        if OnlyOne.taken:
            raise RuntimeError("the robot is in use")
        OnlyOne.taken = True

    def close(self) -> None:
        OnlyOne.taken = False


class BadClose(Walk):
    def close(self) -> None:
        raise RuntimeError("no window")


THE_ONE = Walk()


def give_the_one() -> Any:
    return THE_ONE


def fails_to_begin() -> Any:
    return Walk(size=3)  # type: ignore[call-arg]


class Pixels(Walk):
    """Shows where the point is in a picture of floats up to 255."""

    observation_space = spaces.Box(0, 255, (40, 40, 3), np.float32)

    def look(self) -> Any:
        picture = np.zeros(self.observation_space.shape or (), self.observation_space.dtype)
        picture[:, int(10 * (self.at + 2)) % 40] = 255
        return picture


class Masked(Walk):
    """Two of three actions are legal."""

    action_space = spaces.Discrete(3)

    def info(self) -> dict[str, Any]:
        return {"action_mask": np.array([1, 1, 0], np.int8)}

    def move(self, action: Any) -> None:
        if action == 2:
            raise ValueError("an illegal action")
        super().move(action)


class OwnScale(gym.ObservationWrapper[Any, Any, Any]):
    """Scales by what it has seen, and keeps that under names of its own."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self.obs_rms, self.count = np.zeros(3), 0

    def observation(self, observation: Any) -> Any:
        self.count += 1
        self.obs_rms += (observation - self.obs_rms) / self.count
        return np.float32(np.clip(observation - self.obs_rms, -2, 2))


class Dividing(gym.Wrapper[Any, Any, Any, Any]):
    def step(self, action: Any) -> Any:
        observation, _, *rest = self.env.step(action)
        return observation, 1 // 0, *rest


FOUR = spaces.Box(-2, 2, (4,), np.float32)


def more(*numbers: Any) -> Callable[[Any], Any]:
    """An observation with further numbers."""
    return lambda self: np.append(Walk.look(self), [n(self) if callable(n) else n for n in numbers]).astype(np.float32)


FAULTS = [
    Fault(
        "reward nan",
        walk(pay=at_step(3, math.nan, Walk.pay)),
        "rewards",
        "fault",
        "step 3: got reward nan",
        "finite number",
    ),
    Fault(
        "reward None", walk(pay=lambda self: None), "rewards", "fault", "got reward None", "return one finite number"
    ),
    Fault(
        "two rewards", walk(pay=lambda self: np.ones(2)), "rewards", "fault", "got reward array", "one finite number"
    ),
    Fault("reward beyond float32", walk(pay=lambda self: 1e39), "rewards", "fault", "reward 1e+39", "finite number"),
    Fault(
        "observation nan",
        walk(look=at_step(2, np.full(3, np.nan, np.float32), Walk.look)),
        "observations",
        "fault",
        "step 2: got an observation with nan at [0]",
        "return observations that match observation_space",
    ),
    Fault(
        "observation too short",
        walk(look=lambda self: Walk.look(self)[:2]),
        "observations",
        "fault",
        "got an observation float32[2]: needs float32[3]",
        "or correct the space",
    ),
    Fault(
        "observation None",
        walk(look=at_step(5, None, Walk.look)),
        "observations",
        "fault",
        "step 5: got an observation of type NoneType",
        "return observations that match observation_space",
    ),
    Fault(
        "floats for bytes",
        walk(observation_space=spaces.Box(0, 255, (3,), np.uint8)),
        "observations",
        "fault",
        "needs uint8[3]",
        "correct the space",
    ),
    Fault(
        "number beyond Discrete",
        walk(observation_space=spaces.Discrete(40), look=lambda self: self.t, over=lambda self: False),
        "observations",
        "fault",
        "got observation 40: its space has 0 to 39",
        "correct the space",
    ),
    Fault(
        "observation beyond its bounds",
        walk(observation_space=spaces.Box(-0.1, 0.1, (3,), np.float32)),
        "bounds",
        "fault",
        "its space says -0.1 to 0.1",
        "widen the space",
    ),
    Fault(
        "mask too short",
        walk(info=lambda self: {"action_mask": np.ones(3)}),
        "masks",
        "fault",
        "of shape (3,): needs (2,)",
        "one 0 or 1 per action",
    ),
    Fault(
        "no mask at a step",
        walk(Masked, info=lambda self: {} if self.t == 4 else Masked.info(self)),
        "masks",
        "fault",
        "step 4: got no action_mask",
        "at each reset and each step",
    ),
    Fault(
        "no legal action",
        walk(info=lambda self: {"action_mask": np.full(2, self.t != 4)}),
        "masks",
        "fault",
        "step 4: got an action_mask without a legal action",
        "at least one of them 1",
    ),
    Fault(
        "mask under another name",
        walk(info=lambda self: {"legal_actions": np.ones(2)}),
        "notices",
        "note",
        "info['legal_actions'] is not read",
        "return legal actions in info['action_mask']",
    ),
    Fault(
        "raises in a step",
        walk(pay=at_step(7, raise_door, Walk.pay)),
        "play",
        "fault",
        "step 7: raised KeyError: 'door' (tests/test_check.py:",
        "correct the line",
    ),
    Fault(
        "raises what can't be printed",
        walk(pay=at_step(7, raise_mute, Walk.pay)),
        "play",
        "fault",
        "step 7: raised Mute (tests/test_check.py:",
        "correct the line",
    ),
    Fault(
        "raises within NumPy",
        walk(look=at_step(4, raise_in_numpy, Walk.look)),
        "play",
        "fault",
        "raised ValueError: cannot reshape array of size 3 into shape (2,2) (tests/test_check.py:",
        "correct the line",
    ),
    Fault(
        "raises in reset",
        walk(look=at_step(0, raise_door, Walk.look)),
        "play",
        "fault",
        "step 0: raised KeyError: 'door' (tests/test_check.py:",
        "correct the line",
    ),
    Fault(
        "raises for one action",
        walk(action_space=spaces.Discrete(3), move=lambda self, action: [0, 1][action]),
        "play",
        "fault",
        "raised IndexError: list index out of range (tests/test_check.py:",
        "info['action_mask']",
    ),
    Fault(
        "ends the program",
        walk(pay=at_step(3, lambda self: sys.exit(3), Walk.pay)),
        "play",
        "fault",
        "step 3: raised SystemExit",
        "correct the line",
    ),
    Fault("reset of the old API", OldReset, "play", "fault", "its reset returned one ndarray", "(observation, info)"),
    Fault(
        "reset without seed", NoSeed, "play", "fault", "its reset does not accept 'seed'", "reset(self, *, seed=None"
    ),
    Fault("step of the old API", OldStep, "play", "fault", "its step returned 4 values", "truncated, info)"),
    Fault(
        "step of the old API in a wrapper",
        lambda: TimeLimit(OldStep(), 9),
        "play",
        "fault",
        "its step did not return five values",
        "truncated, info)",
    ),
    Fault(
        "end is no truth value",
        walk(over=lambda self: 0.3),
        "ends",
        "fault",
        "got terminated 0.3",
        "terminated and truncated as True or False",
    ),
    Fault(
        "never ends",
        walk(step=lambda self, action: (*Walk.step(self, action)[:2], False, False, {})),
        "ends",
        "fault",
        "no episode ended in 100,000 random steps",
        "truncated=True after a number of steps",
        {"seconds": 90.0},
    ),
    Fault(
        "hangs",
        walk(pay=at_step(3, hang, Walk.pay)),
        "hangs",
        "fault",
        "step 3 of an episode did not return within 0.5 s (tests/test_check.py:",
        "--step-timeout",
        {"seconds": 1.0},
    ),
    Fault(
        "hangs in a loop in reset",
        walk(look=at_step(0, spin, Walk.look)),
        "hangs",
        "fault",
        "reset did not return within 0.5 s (tests/test_check.py:",
        "make it return",
        {"seconds": 1.0},
    ),
    Fault(
        "counter not set back",
        KeepsCount,
        "episodes",
        "fault",
        "all 960 later ones a single one",
        "reset everything that step changes",
        also=("seeds",),
    ),
    Fault(
        "begins where it ended",
        KeepsPlace,
        "seeds",
        "fault",
        "gave a different episode, from the reset on",
        "reset all that an episode changes",
    ),
    Fault(
        "draws without the seed", OwnCoins, "seeds", "fault", "a different episode, from the reset on", "self.np_random"
    ),
    Fault(
        "draws when made",
        DrawnOnce,
        "sub-environments",
        "fault",
        "a second one played a different episode",
        "what __init__ draws",
    ),
    Fault(
        "state in the class",
        Shared,
        "sub-environments",
        "fault",
        "changed the episode of the first",
        "not in the class",
    ),
    Fault(
        "one environment for all", give_the_one, "sub-environments", "fault", "the same Walk again", "a new environment"
    ),
    Fault("only one at a time", OnlyOne, "sub-environments", "fault", "the robot is in use", "--num-envs 1"),
    Fault("spaces differ", FewSpaces, "sub-environments", "fault", "a second one has observations", "the same spaces"),
    Fault("array overwritten", InPlace, "arrays", "note", "were overwritten by the next call", "self.state.copy()"),
    Fault(
        "array of the class",
        OneArray,
        "sub-environments",
        "note",
        "two sub-environments return the same array",
        "not in the class",
    ),
    Fault(
        "observation stands still",
        walk(look=lambda self: np.zeros(3, np.float32)),
        "features",
        "fault",
        "had the same observation",
        "return the current state",
    ),
    Fault(
        "a number stands still",
        walk(observation_space=FOUR, look=more(0.5)),
        "features",
        "note",
        "observation[3] never changed",
        "leave out constant numbers",
    ),
    Fault(
        "a number twice",
        walk(observation_space=FOUR, look=more(lambda self: self.at)),
        "features",
        "note",
        "observation[0] = observation[3]",
        "leave out one of them",
    ),
    Fault(
        "a number too large",
        walk(observation_space=spaces.Box(-np.inf, np.inf, (4,), np.float32), look=more(lambda self: 900 + self.at)),
        "scale",
        "note",
        "observation[3] beyond 100",
        "divide them by a typical size (100)",
    ),
    Fault(
        "a large number with bounds",
        walk(observation_space=spaces.Box(-999, 999, (4,), np.float32), look=more(lambda self: 900 + self.at)),
        "scale",
        "note",
        "observation[3] beyond 100",
        "--scale-observations",
    ),
    Fault(
        "bytes that use little of their range",
        walk(observation_space=spaces.Box(0, 255, (3,), np.uint8), look=lambda self: np.array([self.t % 5] * 3)),
        "scale",
        "note",
        "1.6% of that range is used",
        "Box(0, 4, dtype=uint8)",
    ),
    Fault(
        "action without effect",
        walk(move=lambda self, action: Walk.move(self, self.t % 2)),
        "effect",
        "fault",
        "other actions gave the same",
        "make step use its action",
    ),
    Fault("one action", walk(action_space=spaces.Discrete(1)), "actions", "fault", "one action", "all actions"),
    Fault(
        "continuous actions",
        walk(action_space=spaces.Box(-1, 1, (2,))),
        "spaces",
        "fault",
        "has actions Box",
        "needs one Discrete",
    ),
    Fault("actions from 1", walk(action_space=spaces.Discrete(2, start=1)), "spaces", "fault", "start=1", "start at 0"),
    Fault(
        "no action space",
        walk(action_space=None),
        "spaces",
        "fault",
        "has no action_space",
        "its __init__ must set one",
    ),
    Fault(
        "fails to be made",
        fails_to_begin,
        "spaces",
        "fault",
        "Walk() takes no arguments (tests/test_check.py:",
        "correct the line",
    ),
    Fault(
        "info changes shape",
        walk(info=lambda self: {"path": np.arange(self.t)}),
        "infos",
        "note",
        "info['path'] was an array [0]",
        "keep its shape fixed",
    ),
    Fault(
        "time limit as an end",
        walk(over=lambda self: self.t == 20),
        "episodes",
        "note",
        "all ended after exactly 20 steps",
        "return truncated=True instead of terminated",
    ),
    Fault("no reward", walk(pay=lambda self: 0.0), "rewards", "note", "all 1,0", "reward progress"),
    Fault(
        "rewards too large",
        walk(pay=lambda self: 5000 * Walk.pay(self)),
        "rewards",
        "note",
        "mean",
        "divide rewards by about 1,000",
    ),
    Fault(
        "rewards too small",
        walk(pay=lambda self: 2e-5 * Walk.pay(self)),
        "rewards",
        "note",
        "mean",
        "multiply rewards by",
    ),
    Fault(
        "floats as pixels",
        Pixels,
        "observations",
        "note",
        "as floats up to 255",
        "Box(0, 255, dtype=uint8)",
        {"replay_capacity": 1000},
    ),
    Fault(
        "replay too large",
        walk(Pixels, observation_space=spaces.Box(0, 255, (40, 40, 3), np.uint8)),
        "memory",
        "fault",
        "replay_capacity = 1000000000 needs",
        "lower --replay-capacity",
        {"replay_capacity": 10**9},
    ),
    Fault(
        "running statistics",
        lambda: OwnScale(Walk()),
        "notices",
        "note",
        "OwnScale scales observations",
        "scale by fixed numbers",
    ),
    Fault(
        "no bounds to scale by",
        walk(observation_space=spaces.Box(-np.inf, np.inf, (3,), np.float32)),
        "settings",
        "fault",
        "the observations of MyEnv have no bounds to scale by",
        "leave the setting out",
        {"scale_observations": True},
    ),
    Fault(
        "slow", walk(pay=slow), "speed", "note", "steps/s of one environment", "--vectorization async", {"seconds": 2.0}
    ),
    Fault(
        "warns",
        walk(pay=lambda self: np.clip(np.log(np.zeros(1)), -1, 0)[0] - self.at),
        "warnings",
        "note",
        "RuntimeWarning: divide by zero encountered in log (tests/test_check.py:",
        "check that the numbers there",
    ),
    Fault(
        "a part too large",
        lambda: walk(Parts, speeds=lambda self: np.array([self.at, 900 + self.at, self.speed]))(),
        "bounds",
        "fault",
        "observation['panel']['speed'][1] was 89",
        "widen the space",
        {"replay_capacity": 1_000},
    ),
    Fault(
        "a part missing",
        lambda: walk(Parts, look=lambda self: {"camera": picture_of(self, (40, 48, 3))})(),
        "observations",
        "fault",
        "observation has no 'panel', only 'camera'",
        "return observations that match observation_space",
        {"replay_capacity": 1_000},
    ),
    Fault(
        "a part stands still",
        lambda: walk(Parts, speeds=lambda self: np.array([self.at, 0.5, self.speed]))(),
        "features",
        "note",
        "observation['panel']['speed'][1] never changed",
        "leave out",
        {"replay_capacity": 1_000},
    ),
    Fault(
        "a wrapper raises",
        Walk,
        "play",
        "fault",
        "step 1: raised ZeroDivisionError: integer division or modulo by zero (tests/test_check.py:",
        "correct the line",
        {"wrappers": [f"{__name__}:Dividing"]},
    ),
    Fault("close raises", BadClose, "close", "note", "close raised RuntimeError: no window", "make close work"),
    Fault(
        "a seed by default",
        walk(reset=lambda self, *, seed=3, options=None: Walk.reset(self, seed=seed)),
        "gymnasium",
        "note",
        "The default seed argument",
        "other libraries",
    ),
]


# --- sound environments ---


class Picture(Walk):
    """Shows where the point is, as bytes."""

    observation_space: spaces.Space[Any] = spaces.Box(0, 255, (40, 48, 3), np.uint8)

    def look(self) -> Any:
        return picture_of(self, self.observation_space.shape or ())


def picture_of(point: Walk, shape: tuple[int, ...]) -> Any:
    """A line where the point is, across the side of 48, and a corner as bright as it is fast."""
    picture = np.zeros(shape, np.uint8)
    line: list[Any] = [slice(None)] * len(shape)
    line[shape.index(48)] = int(12 * (point.at + 2)) % 48
    picture[tuple(line)] = 255
    picture[(0,) * len(shape)] = int(100 * (point.speed + 1))
    return picture


class MaskInside(Masked):
    observation_space = spaces.Dict({"seen": Walk.observation_space, "action_mask": spaces.MultiBinary(3)})

    def look(self) -> Any:
        return {"seen": Walk.look(self), "action_mask": np.array([1, 1, 0], np.int8)}

    def info(self) -> dict[str, Any]:
        return {}


class MaskByMethod(Masked):
    def action_masks(self) -> Any:
        return [True, True, False]

    def info(self) -> dict[str, Any]:
        return {}


class Parts(Walk):
    """Shows an image, numbers and a switch, nested."""

    observation_space: spaces.Space[Any] = spaces.Dict(
        {
            "camera": Picture.observation_space,
            "panel": spaces.Dict({"speed": spaces.Box(-2, 2, (3,), np.float64), "switch": spaces.Discrete(2)}),
        }
    )

    def look(self) -> Any:
        camera = picture_of(self, (40, 48, 3))
        return {"camera": camera, "panel": {"speed": self.speeds(), "switch": self.t % 2}}

    def speeds(self) -> Any:
        return np.array([self.at, self.speed, math.sin(self.t / 3)])


class Levers(Walk):
    """Takes two actions at once."""

    action_space = spaces.MultiDiscrete([2, 3])

    def move(self, action: Any) -> None:
        super().move(int(action[0]))
        self.at += 0.1 * (int(action[1]) - 1)


class Long(Walk):
    """Ends after 5,000 steps, by itself."""

    def over(self) -> Any:
        return False

    def step(self, action: Any) -> Any:
        *rest, _, info = super().step(action)
        return (*rest, self.t >= 5_000, info)


class Trading(Long):
    """Shows a price that no action changes; what is held pays by its change. An episode is a window of one series."""

    observation_space = spaces.Box(-np.inf, np.inf, (10,), np.float64)

    def __init__(self) -> None:
        self.prices = np.random.default_rng(7).normal(0, 1, 20_000).cumsum() / 40
        self.held = 0

    def move(self, action: Any) -> None:
        self.held = int(action)

    def look(self) -> Any:
        begin = int(1_000 * (self.at + 0.5)) + self.t
        return self.prices[begin : begin + 10]

    def pay(self) -> Any:
        window = self.look()
        return self.held * (window[-1] - window[-2])


def place(self: Any, low: int = 0, size: int = 11) -> int:
    return low + min(size - 1, max(0, int((size - 1) * (self.at + 2) / 4)))


def from_five(self: Any) -> Any:
    return place(self, 5)


def two_places(self: Any) -> Any:
    return np.array([place(self), place(self, 0, 7)])


def bits(self: Any) -> Any:
    return np.array([self.at > 0, self.speed > 0, self.t % 2 == 0], np.int8)


GREY = spaces.Box(0, 255, (40, 48), np.uint8)
FIRST = spaces.Box(0, 255, (3, 48, 48), np.uint8)
TAXI = max(name for name in gym.registry if name.startswith("Taxi-v"))
gym.register("Shaky-v0", entry_point=f"{__name__}:OwnCoins", nondeterministic=True)


def made(name: str, wrapper: Any = lambda env: env, **settings: Any) -> Callable[[], Any]:
    return lambda: wrapper(gym.make(name, **settings))


SOUND: list[tuple[str, Any, dict[str, Any]]] = [
    *((name, name, {}) for name in ("CartPole-v1", "Acrobot-v1", "MountainCar-v0", "LunarLander-v3")),
    *((name, name, {}) for name in ("FrozenLake-v1", TAXI, "CliffWalking-v1")),
    ("FrozenLake with kwargs", "FrozenLake-v1", {"env_kwargs": {"is_slippery": False, "map_name": "8x8"}}),
    ("CartPole, action repeated", "CartPole-v1", {"frame_skip": 3}),
    ("CartPole, observations stacked", "CartPole-v1", {"frame_stack": 4, "preset": "seed"}),
    ("CartPole, one alone", made("CartPole-v1"), {"num_envs": 1}),
    ("Blackjack, flattened", made("Blackjack-v1", FlattenObservation), {}),
    ("MountainCar, longer", made("MountainCar-v0", max_episode_steps=3_000), {"scale_observations": True}),
    (
        "Acrobot, rescaled",
        made("Acrobot-v1", partial(RescaleObservation, min_obs=np.float32(-1), max_obs=np.float32(1))),
        {},
    ),
    ("rewards transformed", lambda: TransformReward(Walk(), lambda reward: float(reward) / 2), {}),
    ("a limit by a wrapper", lambda: TimeLimit(Walk(), 20), {}),
    ("stacked by a wrapper", lambda: FrameStackObservation(Walk(), 3), {}),
    ("grey by a wrapper", lambda: GrayscaleObservation(Picture()), {"replay_capacity": 1_000}),
    ("scaled by what was seen", lambda: NormalizeObservation(Walk()), {}),
    ("a vector", Walk, {}),
    ("an image, channels last", Picture, {"replay_capacity": 1_000}),
    ("an image, channels first", walk(Picture, observation_space=FIRST), {"replay_capacity": 1_000}),
    ("a grey image", walk(Picture, observation_space=GREY), {"replay_capacity": 1_000}),
    ("masks in the info", Masked, {}),
    ("masks in the observation", MaskInside, {}),
    ("masks by a method", MaskByMethod, {}),
    ("numbers from 5 on", walk(observation_space=spaces.Discrete(11, start=5), look=from_five), {}),
    ("two numbers", walk(observation_space=spaces.MultiDiscrete([11, 7]), look=two_places), {}),
    ("bits", walk(observation_space=spaces.MultiBinary(3), look=bits), {}),
    ("one number", walk(observation_space=spaces.Box(-2, 2, (), np.float64), look=lambda self: self.at), {}),
    ("parts of a Dict", Parts, {"replay_capacity": 1_000, "scale_observations": True}),
    ("a Tuple", "Blackjack-v1", {}),
    ("several actions", Levers, {"flatten_actions": True}),
    ("episodes of 5,000 steps", Long, {}),
    ("trading", Trading, {}),
    ("episodes of one step", ActionReward, {}),
    ("episodes of two steps", MatchReward, {}),
    ("one at a time, one wanted", OnlyOne, {"num_envs": 1}),
    ("registered as not repeatable", "Shaky-v0", {}),
]


def checked(make: Any, **settings: Any) -> Report:
    OnlyOne.taken = False
    return nexus.check(make, **{"seconds": SECONDS, **settings})


@pytest.mark.parametrize("known", FAULTS, ids=[known.name for known in FAULTS])
def test_a_fault_is_named_with_its_cure_and_no_other_is_claimed(known: Fault) -> None:
    report = checked(known.make, **known.settings)
    found = [finding for finding in report.findings if (finding.check, finding.verdict) == (known.check, known.verdict)]
    sys.stdout.write(f"{known.name:<40}{'; '.join(str(finding) for finding in found)}\n")
    assert any(known.text in finding.text and known.cure in finding.cure for finding in found), str(report)
    assert [finding for finding in report.faults if finding not in found and finding.check not in known.also] == []
    json.dumps(report.to_mapping(), allow_nan=False)


@pytest.mark.parametrize(("name", "make", "settings"), SOUND, ids=[name for name, _, _ in SOUND])
def test_no_fault_is_claimed_of_a_sound_environment(name: str, make: Any, settings: dict[str, Any]) -> None:
    report = checked(make, **settings)
    sys.stdout.write(f"{name:<40}{', '.join(finding.check for finding in report.notes) or 'ok'}\n")
    assert report.faults == (), str(report)
    assert {finding.check for finding in report.findings} >= {
        *SPACE_CHECKS,
        *STEP_CHECKS,
        "play",
        "ends",
        "seeds",
        "gymnasium",
    }
    json.dumps(report.to_mapping(), allow_nan=False)


def test_large_numbers_and_rewards_are_as_good_as_others_where_they_are_normalised() -> None:
    boundless = spaces.Box(-np.inf, np.inf, (4,), np.float32)
    make = walk(observation_space=boundless, look=more(lambda self: 900 + self.at), pay=lambda self: 5000.0 * self.at)
    plain = {finding.check: finding for finding in checked(make).findings}
    assert (plain["scale"].verdict, plain["rewards"].verdict) == ("note", "note")
    assert "--normalize-observations" in plain["scale"].cure
    assert "--normalize-rewards" in plain["rewards"].cure
    report = checked(make, normalize_observations=True, normalize_rewards=True)
    found = {finding.check: finding for finding in report.findings}
    assert (found["scale"].verdict, found["rewards"].verdict) == ("ok", "ok")
    assert found["scale"].text.endswith("normalised by running statistics")
    assert report.faults == ()


def test_enough_environments_are_checked() -> None:
    assert len({known.name for known in FAULTS}) == len(FAULTS) >= 30
    assert len({name for name, _, _ in SOUND}) == len(SOUND) >= 20
    of_which = {known.check for known in FAULTS}
    assert of_which == {*SPACE_CHECKS, *STEP_CHECKS, *ANSWERS, *PLAY_CHECKS, "spaces", "play", "hangs", "warnings"}


# --- the command line and Python ---


class Chatty(Walk):
    def __init__(self, size: int = 3) -> None:
        sys.stdout.write("hello from the simulator\n")


class StandsStill(Walk):
    def look(self) -> Any:
        return np.zeros(3, np.float32)


gym.register("Chatty-v0", entry_point=f"{__name__}:Chatty")
gym.register("StandsStill-v0", entry_point=f"{__name__}:StandsStill")


def test_the_command_prints_each_finding_and_says_by_its_exit_code_whether_one_is_a_fault(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["check", "CartPole-v1", "--frame-skip", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "ok    observations      float32[4]: 4 numbers in a row"
    assert lines[-1].startswith("CartPole-v1: no faults, 2 notes, checked in ")
    assert main(["check", "StandsStill-v0"]) == 1
    out = capsys.readouterr().out
    assert "\nfault features          all 1,000 steps had the same observation\n" in out
    assert "\n                        cure: return the current state: look for an array" in out
    assert "StandsStill-v0: 1 fault, no notes, checked in " in out


def test_json_has_every_finding_and_nothing_that_the_environment_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "Chatty-v0", "--json", "--num-envs", "1"]) == 0
    said = capsys.readouterr()
    report = json.loads(said.out)
    assert report["env"] == "Chatty-v0"
    assert report["faults"] == 0
    by_check = {finding["check"]: finding for finding in report["findings"]}
    assert by_check["play"]["numbers"]["steps"] == 1_000
    assert by_check["actions"] == {
        "check": "actions",
        "verdict": "ok",
        "text": "2 actions",
        "cure": "",
        "numbers": {"actions": 2},
    }
    assert "hello from the simulator" in said.err


def test_kwargs_reach_the_environment(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "FrozenLake-v1", "--env-kwargs", "map_name=8x8", "max_episode_steps=7"]) == 0
    out = capsys.readouterr().out
    assert "Discrete(64) as int8[64]: 64 numbers in a row" in out
    assert "a time limit of 7 steps" in out


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["CartPol-v1"], "no environment 'CartPol-v1'; did you mean CartPole-v1"),
        (["CartPole-v1", "--wrappers", "gymnasium.wrappers:TimLimit"], "did you mean TimeLimit"),
        (["nowhere:Env-v0"], "can't import module 'nowhere'"),
        (["Chatty-v0", "--env-kwargs", "siez=3"], "it has no argument 'siez'"),
        (["CartPole-v1", "--second", "3"], "unknown option --second; did you mean --seconds"),
        (["CartPole-v1", "--seconds", "0"], "seconds = 0: needs a number of seconds above 0"),
        (["CartPole-v1", "--gamma", "2"], "gamma = 2.0: needs"),
        ([], "name an environment first, as in: nexus check CartPole-v1"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(words: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", *words]) == 2
    said = capsys.readouterr().err
    assert text in said
    assert said.count("\n") == 1


def test_python_takes_what_train_takes() -> None:
    report = nexus.check(Walk, frame_skip=4, num_envs=2)
    assert report.faults == ()
    lengths = next(finding for finding in report.findings if finding.check == "episodes").numbers
    assert lengths["longest"] == 10  # 40 steps, four at once
    assert "2 in parallel" in str(report)
    with pytest.raises(ConfigError, match="unknown setting 'gama'; did you mean gamma"):
        nexus.check(Walk, gama=0.9)
    with pytest.raises(ConfigError, match="got an environment, Walk: needs an id, or a function"):
        nexus.check(Walk())  # type: ignore[arg-type]


def test_a_finding_is_on_one_line_whatever_space_it_quotes() -> None:
    matrix = spaces.MultiDiscrete(np.array([[2, 3], [4, 1]]))
    walks: list[Any] = [
        walk(observation_space=matrix, look=lambda self: np.array([[self.t % 2, 0], [0, 0]])),
        walk(action_space=matrix),
    ]
    for make in walks:
        texts = [finding.text for finding in nexus.check(make, seconds=1.0).findings]
        assert any("MultiDiscrete([[2 3] [4 1]])" in text for text in texts)
        assert not [text for text in texts if len(text.splitlines()) > 1]


def test_a_thread_that_was_given_up_ends() -> None:
    before = threading.active_count()
    report = nexus.check(walk(look=at_step(0, spin, Walk.look)), seconds=0.4)
    assert report.faults[0].numbers["place"].startswith("tests/test_check.py:")
    until = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < until:
        time.sleep(0.01)
    assert threading.active_count() == before


def test_an_expensive_environment_is_checked_in_time() -> None:
    class Expensive(Walk):
        def reset(self, **options: Any) -> Any:
            time.sleep(0.2)
            return super().reset(**options)

    begun = time.monotonic()
    report = nexus.check(Expensive, seconds=2.0)
    assert time.monotonic() - begun < 6
    assert report.faults == ()
    left_out = {finding.check for finding in report.notes if finding.text.startswith("skipped: needs ")}
    assert "gymnasium" in left_out


def test_without_time_one_step_is_played_and_repeated() -> None:
    config, watch = make_config(Walk), Watch()
    subject = Subject(config.spec_of(Walk), watch)
    trial = Trial(seen(subject, config, None), config.spec_of(Walk), subject, watch, time.monotonic())
    trial.play(0.35)
    assert (trial.record.steps, len(trial.tape)) == (1, 1)
    assert trial.repeated(subject, 0.3) == (None, 1, 0.0)
    subject.close()


def test_a_slow_check_of_gymnasium_is_no_fault() -> None:
    class SlowFor456(Walk):
        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
            time.sleep(60 if seed == 456 else 0)  # a seed that only check_env takes
            return super().reset(seed=seed)

    report = nexus.check(SlowFor456, seconds=2.0)
    assert report.faults == ()
    assert report.findings[-1].check == "gymnasium"
    assert report.findings[-1].text == "check_env skipped: it takes more than 1.0 s"


def test_the_users_line_is_named_wherever_the_error_comes_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(
        "import numpy as np\n\n\ndef shape(array):\n    return np.reshape(array, (2, 2))  # of three numbers\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    shape = importlib.import_module("mine").shape
    report = checked(walk(look=at_step(4, lambda self: shape(Walk.look(self)), Walk.look)))
    (fault,) = report.faults
    assert fault.text.endswith("step 4: raised ValueError: cannot reshape array of size 3 into shape (2,2) (mine.py:5)")


# --- what train says ---

SHORT: dict[str, Any] = {
    "total_steps": 1_300,
    "learning_starts": 64,
    "eval_episodes": 1,
    "eval_max_steps": 50,
    "num_envs": 4,
}


def trained(make: Any, folder: Path, **options: Any) -> dict[str, torch.Tensor]:
    random.seed(7)
    nexus.train(make, run_dir=folder, **SHORT, **options)
    return safetensors.torch.load_file(folder / "agent.safetensors")


def episodes_of(folder: Path) -> list[str]:
    """The lines of a run's episodes, without the seconds."""
    return [line.rpartition(",")[0] for line in (folder / "episodes.csv").read_text().splitlines()[1:]]


def test_train_notes_what_its_first_steps_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [f"--{name.replace('_', '-')}={value}" for name, value in SHORT.items()]
    assert main(["train", "StandsStill-v0", f"--run-dir={tmp_path / 'run'}", *words]) == 0
    out = capsys.readouterr().out
    assert out.count("Note: features: all 1,000 steps had the same observation; return the current") == 1
    assert out.count("Note: for a full check: ") == 1
    assert out.count("check StandsStill-v0\n") == 1
    assert main(["resume", str(tmp_path / "run"), "--total-steps=2600"]) == 0
    assert "Note: features" not in capsys.readouterr().out
    assert main(["train", "CartPole-v1", f"--run-dir={tmp_path / 'other'}", *words, "--target-return=none"]) == 0
    assert "a full check" not in capsys.readouterr().out


def test_what_train_notes_changes_no_bit_and_makes_no_environment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = []

    def still_with_own_coins() -> Any:
        made.append(walk(OwnCoins, pay=lambda self: 0.0)())
        return made[-1]

    silent = trained(still_with_own_coins, tmp_path / "silent", listener=Listener())
    count = len(made)
    watched = trained(still_with_own_coins, tmp_path / "watched", verbose=True)
    assert "Note: rewards: all 1,000 were 0" in capsys.readouterr().out
    assert len(made) == 2 * count
    assert silent.keys() == watched.keys()
    assert all(torch.equal(silent[name], watched[name]) for name in silent)
    assert episodes_of(tmp_path / "silent") == episodes_of(tmp_path / "watched") != []


@pytest.mark.parametrize("make", [Walk, Picture])
def test_the_look_at_the_first_steps_is_cheap(make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spent = []

    def timed(function: Any) -> Any:
        def call(*arguments: Any) -> None:
            begun = time.thread_time()
            function(*arguments)
            spent.append(time.thread_time() - begun)

        return call

    for name in ("on_start", "on_step"):
        monkeypatch.setattr(FirstSteps, name, timed(getattr(FirstSteps, name)))
    trained(make, tmp_path / "run", verbose=True, replay_capacity=2_000, update_every="1000 steps")
    assert len(spent) > SHORT["total_steps"] // SHORT["num_envs"]
    assert sum(spent) < 0.2
