"""Environments put together at random for `test_fuzz.py`, each with its script: all that it answers is known by hand.

A `Recipe` is what one environment is made of. It gives the script (what is seen, paid, legal and over at each step of
an episode), makes the environments that play it, and says what nexus owes it: a training, or a refusal.
"""

import itertools
import os
import signal
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from math import prod
from types import MappingProxyType
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.utils.seeding import np_random
from gymnasium.wrappers import Autoreset, OrderEnforcing, RecordEpisodeStatistics, TimeLimit

from nexus.core.errors import ConfigError, EnvError
from nexus.core.types import Array

__all__ = [
    "FOR_SEVERAL",
    "IN_PROCESSES",
    "NAME",
    "PATIENCE",
    "RIGHT",
    "ROLLS",
    "Dice",
    "Maker",
    "Recipe",
    "number_of",
    "recipe_of",
    "taken",
]

RIGHT = "right"  # a reward of 1 for the action that what is seen asks for
PATIENCE = 1.0  # seconds for an answer from another process
NAME = "Made"  # what the functions that make them are called
LARGE = 1e6  # a bound beyond it stands for none
MOST = 1_000_000  # numbers that are told apart
REFUSED_SPACES = (spaces.Text, spaces.Graph, spaces.Sequence, spaces.OneOf)

Generator = np.random.Generator


class Refused(NamedTuple):
    """How an environment is refused: by which error, about which step, and with which words."""

    error: type[Exception]
    text: str
    at_step: bool = False  # and not when it is made


@dataclass(frozen=True)
class Recipe:
    """One environment. An episode is decided by the number `drawn` that its seed gives, and by the step `t` in it."""

    space: spaces.Space[Any]
    actions: Any
    length: int = 3  # steps of the shortest episodes
    spread: int = 1  # episodes have up to so many steps more, less one
    end: str = "terminated"  # or truncated, both, either, never, time limit
    reward: str = "float"
    info: str = "empty"
    masks: str | None = None  # or info, list, method, observation
    given: str = "own"  # in which form arrays are handed out
    flags: str = "bool"
    answers: str = "tuple"
    wrapper: str | None = None
    nature: str | None = None  # something odd about the object itself
    beyond: bool = False  # whether some of what is seen is out of bounds
    huge: bool = False  # whether what is seen is so large that a network diverges on it
    flatten: bool = False  # whether several actions at once are to be one
    seeded: bool = True  # whether a seed decides an episode; else the number of episodes before it does
    fault: str | None = None
    at: int = 0  # of a fault: from which of its steps on, 0 for its resets
    copy: int | None = None  # of a fault: the one that has it, None for all

    @property
    def flat(self) -> bool:
        """Whether several discrete actions at once are to be numbered, and each number is an action."""
        return isinstance(self.actions, spaces.MultiDiscrete | spaces.MultiBinary) and self.flatten

    @property
    def action_dim(self) -> int:
        return prod(sizes_of(self.actions)) if self.flat else int(self.actions.n)

    @property
    def in_parts(self) -> bool:
        """Whether what is seen is a Dict or a Tuple, which becomes one row of bytes."""
        return isinstance(self.space, spaces.Dict | spaces.Tuple)

    @property
    def verdict(self) -> Refused | None:
        """How it is refused; None if it trains."""
        if not self.flat and (not isinstance(self.actions, spaces.Discrete) or self.actions.start != 0):
            return Refused(ConfigError, f"has actions {in_one_line(self.actions)}: ")
        if not self.flat and self.actions.n > MOST:
            return Refused(ConfigError, f"has actions {self.actions}, ")
        if isinstance(self.space, REFUSED_SPACES):
            return Refused(ConfigError, f"has {type(self.space).__name__} observations: needs ")
        if type(self.space) is OwnSpace:
            return Refused(ConfigError, "has observations OwnSpace(): needs an array that Gymnasium can flatten")
        if self.space in TOO_MANY:
            return Refused(ConfigError, f"has observations {in_one_line(self.space)}, ")
        if isinstance(self.space, spaces.Box) and 0 in self.space.shape:
            return Refused(ConfigError, "needs at least one number")
        return None if self.fault is None else FAULTS[self.fault].refused(self)

    # The script.

    def drawn_by(self, seed: int) -> int:
        """What the seed of an episode draws."""
        return int(np_random(seed)[0].integers(1 << 16))

    def length_of(self, drawn: int) -> int | None:
        """Steps of an episode, None for one without an end."""
        return None if self.end == "never" else self.length + drawn % self.spread

    def over(self, drawn: int, t: int) -> tuple[bool, bool]:
        """Whether an episode is terminated and whether it is truncated at step `t`."""
        ends = t == self.length_of(drawn)
        by_kind = {"terminated": (1, 0), "truncated": (0, 1), "time limit": (0, 1), "both": (1, 1), "never": (0, 0)}
        terminated, truncated = by_kind.get(self.end, (drawn % 2, 1 - drawn % 2))
        return ends and bool(terminated), ends and bool(truncated)

    def seen(self, drawn: int, t: int) -> Any:
        """What is observed, an element of the space."""
        if self.reward == RIGHT:
            return element(self.space, np.random.default_rng(self.right(drawn, t)))
        seen = element(self.space, np.random.default_rng([drawn, t]))
        if self.huge:
            return seen * seen.dtype.type(1e30)
        return (self.space.high + 1).astype(seen.dtype) if self.beyond and t % 3 == 2 else seen  # type: ignore[attr-defined]

    def with_mask(self, seen: Any, mask: Any) -> Any:
        """What is observed where the legal actions are one of its parts: next to the others, if there are several."""
        return {"action_mask": mask, **seen} if several_names(self.space) else {"action_mask": mask, "seen": seen}

    def observed(self, drawn: int, t: int) -> Any:
        """What is observed in the form of its space."""
        seen = self.seen(drawn, t)
        return self.with_mask(seen, self.legal(drawn, t).astype(np.int8)) if self.masks == "observation" else seen

    def number_of(self, action: Any) -> int:
        """The number of an action as the environment takes it."""
        if not self.flat:
            return int(action)
        places = np.ravel(action) - np.ravel(getattr(self.actions, "start", 0))
        return int(np.ravel_multi_index(tuple(places), sizes_of(self.actions)))

    def paid(self, drawn: int, t: int, action: int) -> Any:
        """What the step to `t` pays, in the form in which it is answered."""
        if self.reward == RIGHT:
            return float(action == self.right(drawn, t - 1))
        return REWARDS[self.reward]((drawn % 5 - 2) / 2 + t % 3 + action / 4)

    def right(self, drawn: int, t: int) -> int:
        """The one action that pays where the reward is `RIGHT`; all that is seen there depends on it alone."""
        return drawn // (t + 1) % self.action_dim

    def legal(self, drawn: int, t: int) -> Array:
        """Legal actions `[A]`: none where the episode is terminated, else at least one."""
        if self.over(drawn, t)[0]:
            return np.zeros(self.action_dim, bool)
        mask: Array = np.random.default_rng([drawn, t, 1]).random(self.action_dim) < 0.5
        mask[(drawn + t) % self.action_dim] = True
        return mask


def sizes_of(actions: Any) -> tuple[int, ...]:
    """How many values each of several actions has."""
    return tuple(np.ravel(actions.nvec)) if isinstance(actions, spaces.MultiDiscrete) else (2,) * prod(actions.shape)


def several_names(space: spaces.Space[Any]) -> bool:
    return isinstance(space, spaces.Dict) and len(space.spaces) > 1


def in_one_line(space: spaces.Space[Any]) -> str:
    """A space as an error names it."""
    return " ".join(line.strip() for line in str(space).splitlines())


# What is seen.


def element(space: spaces.Space[Any], rng: Generator) -> Any:
    """An element of a space, of modest size where there is no bound; often at a bound."""
    match space:
        case spaces.Box():
            low, high = reach(space)
            at = rng.choice([0.0, 1.0, rng.random()], space.shape)
            numbers = low + at * (high - low)
            if space.dtype.kind != "f":
                numbers = np.round(numbers)
            return np.array(np.clip(np.asarray(numbers).astype(space.dtype), space.low, space.high), space.dtype)
        case spaces.Discrete():
            return int(space.start + rng.integers(space.n))
        case spaces.MultiBinary():
            return rng.integers(2, size=space.shape).astype(np.int8)
        case spaces.MultiDiscrete():
            return (space.start + rng.integers(space.nvec)).astype(space.dtype)
        case spaces.Dict():
            return {name: element(part, rng) for name, part in space.spaces.items()}
        case spaces.Tuple():
            return tuple(element(part, rng) for part in space.spaces)
    return space.sample()


def reach(space: spaces.Box) -> tuple[Array, Array]:
    """Within which numbers observations lie: those of the space, or 20 where it has no bound."""
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    has_low, has_high = np.abs(low) < LARGE, np.abs(high) < LARGE
    lowest = np.where(has_low, low, np.where(has_high, high - 20, -10.0))
    return lowest, np.where(has_high, high, lowest + 20)


def taken(space: spaces.Space[Any], seen: Any, stacked: bool) -> Array:
    """The array that nexus is to make of what is seen, worked out by other means than its own."""
    match space:
        case spaces.Box():
            kept = np.array(seen, space.dtype)
            kept = kept.astype(kept.dtype.newbyteorder("=") if kept.itemsize <= 8 else np.float64)
            return kept[None] if is_picture(space) and not stacked else kept
        case spaces.Discrete():
            return np.array([number == seen for number in range(space.start, space.start + space.n)], np.int8)
        case spaces.MultiBinary():
            return np.array(seen, np.int8).reshape(-1)
        case spaces.MultiDiscrete():
            parts = zip(np.ravel(seen), np.ravel(space.nvec), np.ravel(space.start), strict=True)
            return np.concatenate([np.arange(start, start + size) == number for number, size, start in parts]).astype(
                np.int8
            )
    return packed([taken(part, value, False) for part, value in parts_of(space, seen)])


def parts_of(space: spaces.Space[Any], seen: Any) -> Iterator[tuple[spaces.Space[Any], Any]]:
    """The parts of a Dict or a Tuple that are none themselves, in order, each with what is seen there."""
    match space:
        case spaces.Dict():
            for name, part in space.spaces.items():
                yield from parts_of(part, seen[name])
        case spaces.Tuple():
            for part, value in zip(space.spaces, seen, strict=True):
                yield from parts_of(part, value)
        case _:
            yield space, seen


def packed(parts: list[Array]) -> Array:
    """One row of bytes: first what is float32 or becomes it, then what has a byte for each number."""
    kinds = ("float32", "int8", "bool", "uint8")
    kept = [part if part.dtype.name in kinds else part.astype(np.float32) for part in parts]
    rows = [part.ravel().view(np.uint8) for kind in kinds for part in kept if part.dtype.name == kind]
    return np.concatenate(rows)


def is_picture(space: spaces.Box) -> bool:
    """Whether two axes are a grey picture: 36 pixels or more on a side, of 0 to 1 or to 255."""
    shades = {(float(low), float(high)) for low, high in zip(space.low.flat, space.high.flat, strict=True)}
    return len(space.shape) == 2 and min(space.shape) >= 36 and shades in ({(0.0, 1.0)}, {(0.0, 255.0)})


class Lazy:
    """Something that only becomes an array when it is asked to, as stacks of frames do."""

    def __init__(self, array: Array) -> None:
        self.array = array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.array(self.array, dtype)


def apart(array: Array) -> Array:
    """The same numbers, that do not lie side by side in memory."""
    wide = np.zeros((*array.shape, 2), array.dtype)
    wide[..., 0] = array
    return wide[..., 0]


def locked(array: Array) -> Array:
    array.flags.writeable = False
    return array


def wider(array: Array) -> Array:
    """The same numbers in another dtype that holds them too."""
    if array.dtype.kind == "f":
        return array.astype(np.float64 if array.itemsize < 8 else np.longdouble)
    return array.astype(np.uint64 if array.dtype.kind == "u" else np.int64)


def swapped(array: Array) -> Array:
    """The same numbers with their bytes in the other order."""
    return array.astype(array.dtype.newbyteorder())


FORMS: dict[str, Callable[[Array], Any]] = {
    "own": np.array,
    "in place": np.array,  # see `MadeEnv.handed_out`
    "read only": lambda array: locked(array.copy()),
    "apart": apart,
    "backwards": lambda array: np.flip(np.flip(array).copy()),
    "by columns": np.asfortranarray,
    "list": lambda array: array.tolist(),
    "wider": wider,
    "swapped": swapped,
    "lazy": Lazy,
    "masked": np.ma.masked_array,
    "torch": torch.tensor,
}

REWARDS: dict[str, Callable[[float], Any]] = {
    "float": float,
    "int": round,
    "bool": lambda reward: reward > 0,
    "float32": np.float32,
    "float64": np.float64,
    "bool_": lambda reward: np.bool_(reward > 0),
    "array []": np.array,
    "array [1]": lambda reward: np.array([reward], np.float32),
    "list": lambda reward: [reward],
    "torch": torch.tensor,
    "fraction": Fraction,
    "tiny": lambda reward: reward * 1e-30,
    "huge": lambda reward: reward * 1e30,
    "zero": lambda reward: 0,
    "float16": np.float16,
    "decimal": Decimal,
}
PLAIN_REWARDS = ("float", "int", "float32", "float64", "tiny", "huge", "zero")  # with which Gymnasium's wrappers count

FLAGS: dict[str, Callable[[bool], Any]] = {
    "bool": bool,
    "bool_": np.bool_,
    "int": int,
    "float": float,
    "array []": np.array,
    "array [1]": lambda flag: np.array([flag]),
}


def infos(kind: str) -> Iterator[Any]:
    """Infos without end, as one environment answers them one after the other."""
    own: dict[Any, Any] = {}
    for t in itertools.count():
        own["t"] = np.arange(t % 3)
        yield {
            "empty": {},
            "none": None,
            "changing": {"x": (1, None, np.ones(t % 4), {"a": [t]}, "text")[t % 5], f"key {t % 2}": t},
            "lives": {"life_lost": (True, 1, "yes", None)[t % 4], "lives": 3 - t % 3},
            "odd keys": {1: 2, None: 3, ("a", t): object()},
            "reserved": {"final_obs": t, "final_info": [t], "episode": "x", "_action_mask": 3, "reset_mask": {}},
            "nexus": {"nexus_strayed": True, "nexus_fault": "x", "nexus_notice": 3, "nexus_actions": [1]},
            "one object": own,
            "read only": MappingProxyType({"t": t}),
            "large": {"id": 2**70, "path": np.zeros((t % 3, 2))},
        }[kind]


PLAIN_INFOS = ("empty", "changing", "lives", "odd keys", "nexus", "large")  # to which Gymnasium's wrappers can add
INFOS = ("empty", "none", "changing", "lives", "odd keys", "reserved", "nexus", "one object", "read only", "large")


class MadeEnv(gym.Env[Any, Any]):
    """Plays a recipe, and does not bear to be misused.

    Args:
        recipe: what it plays.
        faulty: whether it has the recipe's fault.
    """

    def __init__(self, recipe: Recipe, faulty: bool = True) -> None:
        self.recipe, self.faulty = recipe, faulty
        self.observation_space, self.action_space = recipe.space, recipe.actions
        if recipe.masks == "observation":
            mask = spaces.Box(0, 1, (recipe.action_dim,), np.int8)
            space: Any = recipe.space
            self.observation_space = spaces.Dict(
                recipe.with_mask(space.spaces if several_names(space) else space, mask)
            )
        self.infos = infos(recipe.info)
        self.canvas: Any = None
        self.drawn, self.t, self.begun, self.is_over = 0, 0, False, False
        self.episodes, self.total, self.closed = 0, 0, 0
        self.played: dict[int | None, list[float]] = {}  # rewards, by the seed of an episode

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        assert seed is None or type(seed) is int
        self.drawn = int(self.np_random.integers(1 << 16)) if self.recipe.seeded else self.episodes
        self.episodes, self.t, self.begun, self.is_over = self.episodes + 1, 0, True, False
        self.rewards = self.played[seed] = []
        answer = [self.observed(), self.info()]
        return self.spoilt(answer) if self.recipe.at == 0 else self.answered(answer)

    def step(self, action: Any) -> Any:
        assert self.begun, "stepped before its first reset"
        assert not self.is_over, "stepped after an end"
        assert self.action_space.contains(action), f"an action that is none: {action!r}"
        number = self.recipe.number_of(action)
        assert self.recipe.masks is None or self.recipe.legal(self.drawn, self.t)[number], "an illegal action"
        self.t, self.total = self.t + 1, self.total + 1
        reward = self.recipe.paid(self.drawn, self.t, number)
        ends = (False, False) if self.recipe.end == "time limit" else self.recipe.over(self.drawn, self.t)
        self.is_over = any(ends)
        self.rewards.append(number_of(reward))
        answer = [self.observed(), reward, *map(FLAGS[self.recipe.flags], ends), self.info()]
        return self.spoilt(answer) if 0 < self.recipe.at <= self.total else self.answered(answer)

    def close(self) -> None:
        self.closed += 1
        if self.faulty and self.recipe.fault == "raises in close":
            raise KeyError("door")

    def answered(self, answer: list[Any]) -> Any:
        return tuple(answer) if self.recipe.answers == "tuple" else answer

    def spoilt(self, answer: list[Any]) -> Any:
        if not self.faulty or self.recipe.fault is None:
            return self.answered(answer)
        spoil = FAULTS[self.recipe.fault].spoil
        return self.answered(answer) if spoil is None else spoil(self, answer)

    def observed(self) -> Any:
        seen = self.handed_out(self.recipe.seen(self.drawn, self.t))
        if self.recipe.masks != "observation":
            return seen
        return self.recipe.with_mask(seen, self.recipe.legal(self.drawn, self.t).astype(np.int8))

    def handed_out(self, seen: Any) -> Any:
        """What is seen, in the recipe's form; in place, what was given before becomes another observation first."""
        form = self.recipe.given
        if self.recipe.in_parts or form == "own":
            return seen
        if form != "in place":
            return FORMS[form](np.asarray(seen, self.recipe.space.dtype))
        if self.canvas is None:
            self.canvas = np.array(seen)
        self.canvas[...] = seen
        return self.canvas

    def info(self) -> Any:
        info = next(self.infos)
        if self.recipe.masks not in ("info", "list"):
            return info
        mask = self.recipe.legal(self.drawn, self.t)
        return {**(info or {}), "action_mask": mask.tolist() if self.recipe.masks == "list" else mask}


class MaskedByMethod(MadeEnv):
    """Tells its legal actions when it is asked."""

    def action_masks(self) -> Any:
        assert self.begun, "asked before its first reset"
        assert not self.recipe.over(self.drawn, self.t)[0], "asked where nothing is to be done"
        mask = self.recipe.legal(self.drawn, self.t)
        if self.faulty and self.recipe.fault in MASK_FAULTS and self.total >= self.recipe.at:
            return MASK_FAULTS[self.recipe.fault](mask)
        return mask


class Empty(MadeEnv):
    """Is false."""

    def __len__(self) -> int:
        return 0


class Incomparable(MadeEnv):
    """Can't be compared, and so is in no set."""

    __hash__: Any = None

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("not to be compared")


class Cyclic(MadeEnv):
    """Holds itself."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.env, self.game = self, [self]


class Greedy(MadeEnv):
    """Takes every attribute that it lacks for a key."""

    def __getattr__(self, name: str) -> Any:
        raise KeyError(name)


class Bottomless(MadeEnv):
    """Looks for every attribute that it lacks in what it lacks too."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.nowhere, name)


class NewSpaces(MadeEnv):
    """Makes its spaces each time that it is asked for them."""

    @property
    def observation_space(self) -> Any:
        return deepcopy(self._observation_space)

    @observation_space.setter
    def observation_space(self, space: Any) -> None:
        self._observation_space = space


NATURES: dict[str | None, type[MadeEnv]] = {
    None: MadeEnv,
    "empty": Empty,
    "incomparable": Incomparable,
    "cyclic": Cyclic,
    "greedy": Greedy,
    "bottomless": Bottomless,
    "new spaces": NewSpaces,
}


class OwnSpace(spaces.Space[Any]):
    """A space that only its author knows."""

    def __init__(self) -> None:
        super().__init__((3,), np.float32)

    def sample(self, *_: Any, **__: Any) -> Any:
        return np.zeros(3, np.float32)

    def __repr__(self) -> str:
        return "OwnSpace()"


TOO_MANY: tuple[spaces.Space[Any], ...] = (
    spaces.Discrete(10**9),
    spaces.Discrete(2**63 - 1),
    spaces.MultiDiscrete([3, 2**62]),
    spaces.MultiBinary(10**10),
)


class Unseeded(MadeEnv):
    """Its reset takes no seed."""

    def reset(self) -> Any:  # type: ignore[override]
        return super().reset()


class WithoutOptions(MadeEnv):
    """Its reset takes no options."""

    def reset(self, seed: int | None = None) -> Any:  # type: ignore[override]
        return super().reset(seed=seed)


def number_of(reward: Any) -> float:
    """A reward as a number, in whichever form it was answered."""
    return float(np.asarray(reward).item())


# What can be wrong.


class Fault(NamedTuple):
    """Something wrong with an environment, and how it is refused."""

    text: str | Callable[[Recipe], str]
    spoil: Callable[[MadeEnv, list[Any]], Any] | None = None  # an answer: of five parts, or of two
    fits: Callable[[Recipe], bool] = lambda recipe: True
    place: str = "answer"  # or step, reset, maker
    error: type[Exception] = EnvError

    def refused(self, recipe: Recipe) -> Refused | None:
        if not self.text:
            return None
        text = self.text if isinstance(self.text, str) else self.text(recipe)
        return Refused(self.error, text, self.place != "maker")


def observing(make: Callable[[Recipe, Any], Any]) -> Callable[[MadeEnv, list[Any]], Any]:
    """Spoil what is seen."""

    def spoil(env: MadeEnv, answer: list[Any]) -> Any:
        seen = make(env.recipe, env.recipe.seen(env.drawn, env.t))
        masked = env.recipe.masks == "observation"
        answer[0] = env.recipe.with_mask(seen, answer[0]["action_mask"]) if masked else seen
        return tuple(answer)

    return spoil


def answering(place: int, value: Any) -> Callable[[MadeEnv, list[Any]], Any]:
    """Put another value in one place of an answer."""

    def spoil(env: MadeEnv, answer: list[Any]) -> Any:
        answer[place] = value
        return tuple(answer)

    return spoil


def raising(kind: Callable[..., Exception], *arguments: Any) -> Callable[[MadeEnv, list[Any]], Any]:
    def spoil(env: MadeEnv, answer: list[Any]) -> Any:
        raise kind(*arguments)

    return spoil


def masking(make: Callable[[Array], Any]) -> Callable[[MadeEnv, list[Any]], Any]:
    """Spoil the mask of an answer, wherever it is."""

    def spoil(env: MadeEnv, answer: list[Any]) -> Any:
        if env.is_over:
            return tuple(answer)
        mask = make(env.recipe.legal(env.drawn, env.t))
        if env.recipe.masks == "observation":
            answer[0] = {**answer[0], "action_mask": mask}
        elif env.recipe.masks in ("info", "list"):
            answer[-1] = {**answer[-1], "action_mask": mask}
        return tuple(answer)

    return spoil


class Mute(Exception):
    """An error that can't even be printed."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


class Unsendable(Exception):
    """An error that can't be sent to another process."""

    def __init__(self, one: Any, two: Any) -> None:
        super().__init__(one, two)
        self.keep = lambda: one


def with_last(seen: Array, number: Any, dtype: Any = None) -> Array:
    """A copy with another last number."""
    changed = np.array(seen, dtype)
    changed[(-1,) * changed.ndim] = number
    return changed


def is_box(recipe: Recipe, kinds: str) -> bool:
    return isinstance(recipe.space, spaces.Box) and recipe.space.dtype.kind in kinds


def is_float(space: spaces.Space[Any]) -> bool:
    return isinstance(space, spaces.Box) and space.dtype.kind == "f"


def is_array(recipe: Recipe) -> bool:
    return isinstance(recipe.space, spaces.Box | spaces.MultiBinary | spaces.MultiDiscrete)


def is_simple(recipe: Recipe) -> bool:
    return is_array(recipe) or isinstance(recipe.space, spaces.Discrete)


def is_masked(recipe: Recipe) -> bool:
    return recipe.masks is not None


def many(recipe: Recipe) -> bool:
    return is_array(recipe) and prod(recipe.space.shape or ()) > 1


MASK_FAULTS: dict[str, Callable[[Array], Any]] = {
    "mask of zeros": np.zeros_like,
    "mask too long": lambda mask: np.append(mask, True),
    "mask of other numbers": lambda mask: mask + 2,
    "mask of two axes": lambda mask: mask[None],
}

FAULTS: dict[str, Fault] = {
    # observations
    "nan": Fault("nan", observing(lambda r, seen: with_last(seen, np.nan)), lambda r: is_box(r, "f")),
    "infinite": Fault("-inf", observing(lambda r, seen: with_last(seen, -np.inf)), lambda r: is_box(r, "f")),
    "beyond float32": Fault(
        "1e+300",
        observing(lambda r, seen: with_last(seen, 1e300, np.float64)),
        lambda r: is_box(r, "f"),
    ),
    "beyond its dtype": Fault(
        "can't represent it",
        observing(lambda r, seen: with_last(seen, np.iinfo(r.space.dtype).max + 1, np.int64)),
        lambda r: is_box(r, "iu") and r.space.dtype.itemsize < 8,  # type: ignore[union-attr]
    ),
    "fractions": Fault("float64", observing(lambda r, seen: seen + 0.5), lambda r: is_box(r, "iu")),
    "half a number": Fault(
        "needs whole numbers",
        observing(lambda r, seen: seen + 0.5),
        lambda r: is_simple(r) and not isinstance(r.space, spaces.Box),
    ),
    "complex": Fault("complex", observing(lambda r, seen: seen + 0j), lambda r: is_box(r, "fiub")),
    "larger": Fault(
        "got an observation",
        observing(lambda r, seen: np.append(np.ravel(seen), np.ravel(seen)[:1])),
        many,
    ),
    "two numbers": Fault(
        "[2]", observing(lambda r, seen: [seen, seen]), lambda r: isinstance(r.space, spaces.Discrete)
    ),
    "no number": Fault("got an observation", observing(lambda r, seen: np.zeros(0)), is_simple),
    "past the last": Fault(
        lambda r: f"got observation {r.space.start + r.space.n}: its space has",  # type: ignore[attr-defined]
        observing(lambda r, seen: r.space.start + r.space.n),  # type: ignore[attr-defined]
        lambda r: isinstance(r.space, spaces.Discrete),
    ),
    "past one of the last": Fault(
        "its space has",
        observing(lambda r, seen: seen + (r.space.nvec if isinstance(r.space, spaces.MultiDiscrete) else 2)),
        lambda r: isinstance(r.space, spaces.MultiDiscrete | spaces.MultiBinary),
    ),
    "none": Fault("NoneType", observing(lambda r, seen: None), is_simple),
    "text": Fault("of type str", observing(lambda r, seen: "spam"), is_simple),
    "objects": Fault("of type ndarray", observing(lambda r, seen: np.full(r.space.shape, None)), is_simple),
    "ragged": Fault("array: ", observing(lambda r, seen: [[1], [2, 3]]), is_simple),
    "no parts": Fault(
        "observation is of type int: needs a ",
        observing(lambda r, seen: 3),
        lambda r: r.in_parts and r.masks != "observation",
    ),
    "a part of a name less": Fault(
        " has no ",
        observing(lambda r, seen: dict(list(seen.items())[1:])),
        lambda r: isinstance(r.space, spaces.Dict),
    ),
    "a part less": Fault(
        ": needs at least ", observing(lambda r, seen: seen[:-1]), lambda r: isinstance(r.space, spaces.Tuple)
    ),
    "a part that is nan": Fault(
        "needs finite numbers",
        observing(lambda r, seen: {**seen, "b": with_last(seen["b"], np.nan)}),
        lambda r: isinstance(r.space, spaces.Dict) and is_float(r.space["b"]),
    ),
    # rewards
    "reward nan": Fault("got reward nan: needs a finite number", answering(1, np.nan), place="step"),
    "reward inf": Fault("got reward inf: needs a finite number", answering(1, np.float32(np.inf)), place="step"),
    "reward none": Fault("got reward None: needs a number", answering(1, None), place="step"),
    "reward text": Fault("got reward '1': needs a number", answering(1, "1"), place="step"),
    "reward of two": Fault("needs a number", answering(1, np.ones(2)), place="step"),
    "reward complex": Fault("got reward 1j: needs a number", answering(1, 1j), place="step"),
    "reward too large": Fault("got reward 1e+39: agents compute in float32", answering(1, 1e39), place="step"),
    "reward too long": Fault("got reward of type int: needs a number", answering(1, 10**400), place="step"),
    # ends
    "end none": Fault("got terminated None: needs True or False", answering(2, None), place="step"),
    "end half": Fault("got truncated 0.5: needs True or False", answering(3, 0.5), place="step"),
    "end text": Fault("got terminated 'False': needs True or False", answering(2, "False"), place="step"),
    "ends of two": Fault("needs True or False", answering(3, np.zeros(2, bool)), place="step"),
    # infos and the answers as wholes
    "info list": Fault("needs a dict", answering(4, []), place="step"),
    "info text": Fault("needs (observation, info)", answering(1, "info"), place="reset"),
    "four values": Fault("returned 4 values", lambda env, answer: tuple(answer[:4]), place="step"),
    "six values": Fault("returned 6 values", lambda env, answer: (*answer, {}), place="step"),
    "nothing": Fault("returned one NoneType", lambda env, answer: None),
    "an observation alone": Fault("reset returned ", lambda env, answer: answer[0], is_array, place="reset"),
    # what it raises
    "raises": Fault("raised KeyError: 'door' (", raising(KeyError, "door")),
    "raises two lines": Fault("raised ValueError: first second (", raising(ValueError, "first\nsecond")),
    "raises without words": Fault("raised RuntimeError: RuntimeError (", raising(RuntimeError)),
    "raises what is mute": Fault("raised Mute: Mute (", raising(Mute)),
    "raises what can't be sent": Fault("raised Unsendable: ('one', 'two') (", raising(Unsendable, "one", "two")),
    "raises the end of an iterator": Fault("raised StopIteration: 3 (", raising(StopIteration, 3)),
    "raises a warning": Fault("raised UserWarning: careful (", raising(UserWarning, "careful")),
    "takes no seed": Fault("its reset does not accept 'seed'", None, lambda r: r.masks != "method", "reset"),
    "takes no options": Fault("its reset does not accept 'options'", None, lambda r: r.masks != "method", "reset"),
    "raises in close": Fault("", place="reset"),  # it is closed when all is done
    "dies": Fault(
        "lost its process, which was killed by SIGKILL", lambda env, answer: os.kill(os.getpid(), signal.SIGKILL)
    ),
    "hangs": Fault(f"did not answer within {PATIENCE:g} s", lambda env, answer: time.sleep(600)),
    # masks
    "mask of zeros": Fault("an action_mask without a legal action", masking(np.zeros_like), is_masked),
    "mask too long": Fault("got an action_mask of shape", masking(MASK_FAULTS["mask too long"]), is_masked),
    "mask of other numbers": Fault("other than 0 and 1", masking(MASK_FAULTS["mask of other numbers"]), is_masked),
    "mask of two axes": Fault("got an action_mask of shape (1, ", masking(MASK_FAULTS["mask of two axes"]), is_masked),
    "mask gone": Fault(
        "got no action_mask in its info",
        masking(lambda mask: None),
        lambda r: r.masks in ("info", "list"),
        place="step",
    ),
    "mask late": Fault(
        "but had none at reset",
        lambda env, answer: (*answer[:4], {"action_mask": np.ones(env.recipe.action_dim)}),
        lambda r: r.masks is None,
        place="step",
    ),
    # making it
    "can't be made": Fault("can't be made: no door", place="maker", error=ConfigError),
    "nothing is made": Fault("returned NoneType", place="maker", error=ConfigError),
    "a class is made": Fault("returned the class MadeEnv", place="maker", error=ConfigError),
    "one for all": Fault("returned the same ", place="maker", error=ConfigError),
    "the second can't be made": Fault("can't be made: no second door", place="maker", error=ConfigError),
    "the second is another": Fault("sub-environment 1 has actions Discrete(", place="maker", error=ConfigError),
}
IN_PROCESSES = ("dies", "hangs")  # which only those survive who did not share the process
FOR_SEVERAL = ("one for all", "the second can't be made", "the second is another")  # in one process


class Maker:
    """The function that a user passes: makes one environment of a recipe at each call.

    Args:
        recipe: of which.
        bare: whether to leave the wrappers to `gymnasium.make`.
    """

    def __init__(self, recipe: Recipe, bare: bool = False) -> None:
        self.__name__ = NAME
        self.recipe, self.bare = recipe, bare
        self.made: list[MadeEnv] = []

    def __call__(self, **_: Any) -> Any:
        recipe, count = self.recipe, len(self.made)
        match recipe.fault:
            case "can't be made":
                raise OSError("no door")
            case "nothing is made":
                return None
            case "a class is made":
                return MadeEnv
            case "one for all" if self.made:
                return self.made[0]
            case "the second can't be made" if self.made:
                raise OSError("no\nsecond door")
            case "the second is another" if self.made:
                recipe = replace(recipe, actions=spaces.Discrete(recipe.action_dim + 1))
        kinds = {"takes no seed": Unseeded, "takes no options": WithoutOptions}
        faulty = recipe.copy in (None, count)
        usual = MaskedByMethod if recipe.masks == "method" else NATURES[recipe.nature]
        env = (kinds.get(str(recipe.fault), usual) if faulty else usual)(recipe, faulty)
        self.made.append(env)
        if self.bare:
            return env
        wrapped: Any = TimeLimit(env, recipe.length) if recipe.end == "time limit" else env
        return wrapped if recipe.wrapper is None else WRAPPERS[recipe.wrapper](wrapped)


WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "order": OrderEnforcing,
    "statistics": RecordEpisodeStatistics,
    "autoreset": Autoreset,
    "limit": lambda env: TimeLimit(env, 1_000),
}


# Putting them together.


class Dice:
    """Choices among options, one for each byte. Hypothesis makes bytes smaller until a failure is simple.

    A strategy for each choice would do that as well. But of many alike Hypothesis makes many that nearly are the same.
    """

    def __init__(self, rolls: bytes) -> None:
        self.rolls = iter(rolls)

    def among(self, *options: Any) -> Any:
        """One of them; the first is the simplest."""
        return options[next(self.rolls) % len(options)]


ROLLS = 64  # that one environment and its training take at most
DTYPES = ("float32", "float64", "float16", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
ODD_DTYPES = ("bool", "longdouble", ">f4", ">f8", ">i2", ">u4")
SHAPES = ((3,), (), (1,), (2, 2), (1, 3), (2, 5, 5), (5, 5, 3), (1, 4, 4), (2, 3, 4), (3, 3, 3), (2, 2, 4, 4))
PICTURES = ((36, 36), (40, 36), (1, 36, 36), (36, 37, 3))


def box(dice: Dice) -> spaces.Box:
    """Numbers of any kind, with bounds on both sides, on one, on some, or on none."""
    dtype, shape = np.dtype(dice.among(*DTYPES, *DTYPES, *ODD_DTYPES)), dice.among(*SHAPES)
    low, more = dice.among(0, 0, 0, -1, -5, 3, 100), dice.among(1, 1, 2, 9, 27, 0)
    bounded = dice.among("both", "both", "none", "low", "high", "some")
    if dtype.kind == "b":
        return spaces.Box(0, 1, shape, dtype)
    whole = dtype.kind != "f"
    least, most = (np.iinfo(dtype).min, np.iinfo(dtype).max) if whole else (-np.inf, np.inf)
    low = max(low, least)
    lows = np.full(shape, low if bounded in ("both", "low", "some") else least, dtype)
    highs = np.full(shape, low + more if bounded in ("both", "high", "some") else most, dtype)
    if bounded == "some" and shape and not whole:
        highs[..., -1] = most
    return spaces.Box(lows, highs, shape, dtype)


def picture(dice: Dice) -> spaces.Box:
    """An image large enough for the convolutions of Atari games."""
    dtype, high = dice.among((np.uint8, 255), (np.uint8, 1), (np.float32, 1), (np.int32, 255))
    return spaces.Box(0, high, dice.among(*PICTURES), dtype)


def discrete(dice: Dice) -> spaces.Discrete:
    """One whole number."""
    return spaces.Discrete(dice.among(2, 3, 1, 7, 300, np.int64(4)), start=dice.among(0, 0, 1, -3, np.int64(5)))


def multi_binary(dice: Dice) -> spaces.MultiBinary:
    """Zeros and ones."""
    return spaces.MultiBinary(dice.among(4, 1, (2, 2)))


def multi_discrete(dice: Dice) -> spaces.MultiDiscrete:
    """Several whole numbers."""
    sizes = np.array(dice.among([2], [2, 4], [[2, 3], [4, 1]]))
    return spaces.MultiDiscrete(sizes, start=np.full_like(sizes, dice.among(0, 0, -2)))


def simple(dice: Dice) -> spaces.Space[Any]:
    """Anything that is no Dict and no Tuple."""
    kinds = (box, box, box, box, box, discrete, multi_binary, multi_discrete, picture)
    return dice.among(*kinds)(dice)  # type: ignore[no-any-return]


def composite(dice: Dice) -> spaces.Space[Any]:
    """A Dict or a Tuple, perhaps with another in it."""
    parts = [dice.among(box, discrete, multi_binary, multi_discrete)(dice) for _ in range(dice.among(1, 2, 3))]
    named = spaces.Dict(dict(zip(("b", "a", "goal"), parts, strict=False)))
    return dice.among(named, spaces.Tuple(parts), spaces.Tuple([named, parts[0]]))  # type: ignore[no-any-return]


SEVERAL_ACTIONS = (
    spaces.MultiDiscrete([2, 3]),
    spaces.MultiDiscrete(np.array([[2, 1], [1, 2]]), start=np.array([[3, 0], [0, -1]])),
    spaces.MultiBinary(2),
)
UNUSABLE: tuple[dict[str, Any], ...] = (
    {"space": spaces.Text(4)},
    {"space": spaces.Graph(spaces.Box(0, 1, (2,)), None)},
    {"space": spaces.Sequence(spaces.Discrete(2))},
    {"space": spaces.Box(0, 1, (0,), np.float32)},
    {"space": spaces.Box(0, 255, (3, 0, 2), np.uint8)},
    {"space": OwnSpace()},
    *({"space": space} for space in TOO_MANY),
    {"actions": spaces.Discrete(10**12)},
    {"actions": spaces.Box(-1, 1, (2,), np.float32)},
    {"actions": spaces.MultiDiscrete([2, 3])},
    {"actions": spaces.MultiDiscrete(np.array([[2, 3], [4, 1]]))},
    {"actions": spaces.MultiBinary(2)},
    {"actions": spaces.Discrete(3, start=1)},
    {"actions": spaces.Discrete(3, start=-1)},
    {"actions": spaces.Dict({"a": spaces.Discrete(2)})},
    {"actions": spaces.Tuple([spaces.Discrete(2)])},
)


def recipe_of(dice: Dice) -> Recipe:
    """Any environment: sound, or with one thing about it that nexus has to refuse."""
    wanted = dice.among("sound", "sound", "sound", "sound", "sound", "faulty", "faulty", "faulty", "faulty", "unusable")
    recipe = Recipe(
        dice.among(*[simple] * 7, composite)(dice),
        dice.among(*(spaces.Discrete(n) for n in (2, 3, 1, np.int64(3), np.int32(2), 9)), *SEVERAL_ACTIONS),
        flatten=True,
        length=dice.among(4, 1, 2, 7, 12),
        spread=dice.among(1, 3),
        end=dice.among("terminated", "truncated", "both", "either", "never", "time limit"),
        reward=dice.among(*REWARDS),
        info=dice.among(*INFOS),
        masks=dice.among(None, None, None, None, "info", "list", "method", "observation"),
        given=dice.among("own", "in place", *FORMS),
        flags=dice.among(*FLAGS),
        answers=dice.among("tuple", "tuple", "list"),
        wrapper=dice.among(None, *WRAPPERS),
        nature=dice.among(*[None] * 8, *NATURES),
        beyond=dice.among(False, False, False, True),
        huge=dice.among(*[False] * 7, True),
        seeded=dice.among(True, True, True, False),
    )
    recipe = replace(
        recipe,
        spread=1 if recipe.end == "time limit" else recipe.spread,
        given=recipe.given if recipe.given in forms_for(recipe.space) else "own",
        wrapper=recipe.wrapper if recipe.reward in PLAIN_REWARDS and recipe.info in PLAIN_INFOS else None,
        nature=recipe.nature if recipe.masks != "method" else None,
        beyond=recipe.beyond and has_room(recipe.space),
        huge=recipe.huge and is_boundless(recipe.space),
    )
    if wanted == "faulty":
        return with_fault(recipe, dice)
    if wanted == "unusable":
        return replace(recipe, masks=None, flatten=False, **dice.among(*UNUSABLE))
    return recipe


def with_fault(recipe: Recipe, dice: Dice) -> Recipe:
    """A recipe with one fault that its space and its masks allow, and nothing around it that would speak first."""
    end = "terminated" if recipe.end == "time limit" else recipe.end
    recipe = replace(recipe, seeded=True, end=end, wrapper=None, beyond=False, huge=False)
    name = dice.among(*[name for name, fault in FAULTS.items() if fault.fits(recipe)])
    if name.startswith("mask"):  # they are seen where a mask is needed, which it is not at an end
        recipe = replace(recipe, end="never", info="empty")
    first, last = {"answer": (0, 9), "step": (1, 9)}.get(FAULTS[name].place, (0, 0))
    return replace(
        recipe,
        fault=name,
        at=dice.among(*range(first, last + 1)),
        copy=None if name in IN_PROCESSES else dice.among(None, None, 0, 1),
    )


def has_room(space: spaces.Space[Any]) -> bool:
    """Whether a number can be 1 beyond its upper bound and still be what it is, in this dtype."""
    if not isinstance(space, spaces.Box) or space.dtype.kind == "b" or not space.shape:
        return False
    most = float(space.high.max())
    return most < LARGE and (space.dtype.kind == "f" or most < np.iinfo(space.dtype).max)


def is_boundless(space: spaces.Space[Any]) -> bool:
    """Whether numbers of 32 bits or more have no bounds."""
    if not isinstance(space, spaces.Box) or space.dtype.kind != "f" or space.dtype.itemsize < 4:
        return False
    return not np.isfinite([space.low, space.high]).any()


def forms_for(space: spaces.Space[Any]) -> list[str]:
    """In which forms observations of a space can be handed out."""
    dtype = space.dtype
    if dtype is None:
        return ["own"]
    forms = [form for form in FORMS if form != "torch" or dtype in (np.float32, np.float64, np.int64, np.uint8)]
    return forms if dtype.kind != "b" else [form for form in forms if form != "wider"]
