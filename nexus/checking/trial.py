"""Playing an environment as a training would, and repeating the play."""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
from gymnasium.vector import SyncVectorEnv, VectorEnv

from nexus.checking.record import Record
from nexus.checking.report import Finding, fault
from nexus.checking.sight import Sight
from nexus.checking.watch import Left, Watch, origin, place_of
from nexus.checking.witness import Witness
from nexus.core.errors import ConfigError, EnvError, NexusError, one_line
from nexus.core.types import Array
from nexus.envs.action_masks import checked_mask
from nexus.envs.answers import OLD_RESET, OLD_STEP, flag_in, number_in, reset_answer, step_answer
from nexus.envs.checks import LARGEST
from nexus.envs.edge import MASK_KEYS, Edge
from nexus.envs.episodes import Replayable
from nexus.envs.factory import Env, EnvSpec, as_seen, in_turn, make_raw, make_vector_env, name_of, require_env
from nexus.envs.layers import layers_of
from nexus.envs.statistics import Statistics
from nexus.envs.stream import Step, TransitionStream
from nexus.envs.workers import close_env
from nexus.envs.wrapping import wrapped
from nexus.ops.exploration import random_legal

__all__ = ["CHECKING", "MAKING", "Subject", "Trial", "finding_from"]


MAKING, CHECKING = "the call that makes it", "check_env"  # two calls with other time limits
RANDOM_STEPS = 1_000  # to play
EPISODES, MOST_STEPS = 3, 10_000  # more are played for this many episodes, up to this many steps
TAPE_BYTES = 64e6  # most bytes of states kept for the repetition
TAPE = 300  # steps that are repeated

CURES = {
    "play": "correct the line that raised it; if the action is illegal there, mask it in info['action_mask']",
    "rewards": "return one finite number; look for a division by zero, a logarithm, or a reward that was never set",
    "ends": "return terminated and truncated as True or False, after observation and reward",
    "observations": "return observations that match observation_space, or correct the space",
    "masks": "give info['action_mask'] at each reset and each step: one 0 or 1 per action, at least one of them 1",
}


class Subject:
    """One environment as in training, with a witness between it and nexus.

    Args:
        spec: the environment.
        watch: tracks the call in progress.

    Raises:
        ConfigError: it can't be made, or has spaces that DQN can't use.
    """

    def __init__(self, spec: EnvSpec, watch: Watch) -> None:
        self.name = name_of(spec.source)
        self.witness: Witness | None = None  # None for an Atari game
        self.stream = TransitionStream(self._made(spec, watch), self.name)

    def _made(self, spec: EnvSpec, watch: Watch) -> VectorEnv[Any, Any, Any]:
        if spec.rules is not None:
            vector: VectorEnv[Any, Any, Any] = watch.call(MAKING, make_vector_env, spec, 1)
            return vector
        try:
            env = watch.call(MAKING, own_env, spec)
        except Left as error:
            raise ConfigError(f"environment {self.name!r} can't be made: {error}") from error
        witness, rest = Witness(env, watch), replace(spec, wrappers=())
        self.witness = witness
        return in_turn([lambda: Replayable(as_seen(witness, rest), 0)], self.name)

    @property
    def env(self) -> Any:
        """The environment with all wrappers, None for an Atari game."""
        return self.stream.env.envs[0] if isinstance(self.stream.env, SyncVectorEnv) else None

    @property
    def edge(self) -> Edge | None:
        """The wrapper that converts the environment's answers."""
        return next((layer for layer in layers_of(self.env) if isinstance(layer, Edge)), None)

    def random_actions(self, rng: np.random.Generator) -> Array:
        """Return a random legal action `[1]`."""
        masks = self.stream.action_masks
        return random_legal(np.ones((1, self.stream.action_dim), bool) if masks is None else masks, rng)

    def close(self) -> None:
        """Close the environment."""
        close_env(self.stream.env)


def own_env(spec: EnvSpec) -> Env:
    """Return the user's environment, with the wrappers from the settings."""
    name, raw = name_of(spec.source), make_raw(spec)
    require_env(raw, name)
    try:
        return wrapped(raw, spec.wrappers, name)
    except BaseException:
        with suppress(Exception):  # report the first error
            raw.close()
        raise


class Trial:
    """A check in progress.

    Args:
        sight: the environment as nexus sees it.
        spec: the environment.
        subject: the environment, made.
        watch: tracks the call in progress.
        ends_at: the time, by `time.monotonic`, when the check should end.
    """

    def __init__(self, sight: Sight, spec: EnvSpec, subject: Subject, watch: Watch, ends_at: float) -> None:
        self.sight = sight
        self.spec = spec
        self.subject = subject
        self.watch = watch
        self.ends_at = ends_at
        self.record = Record(1, sight)
        self.tape: list[Step] = []
        self.statistics: Statistics = {}  # the wrappers' running statistics at the start of the tape
        self.differs_at: int | None = None  # first step at which the tape did not repeat, 0 for the reset
        self.rng = np.random.default_rng(sight.config.seed)

    @property
    def seed(self) -> int:
        """The seed of the episodes played."""
        return self.sight.config.seed

    @property
    def left(self) -> float:
        """Seconds left for the check."""
        return self.ends_at - time.monotonic()

    def seconds_of(self, resets: int, steps: int) -> float:
        """Return the seconds that this many resets and steps take."""
        witness = self.subject.witness
        return 0.0 if witness is None else resets * witness.resets.mean + steps * witness.steps.mean

    def play(self, share: float) -> None:
        """Play random legal actions: `RANDOM_STEPS`, more if few episodes have ended, fewer if time is short.

        Args:
            share: fraction of the remaining time to spend.

        Raises:
            EnvError: the environment failed.
        """
        until = time.monotonic() + share * self.left
        room = TAPE_BYTES
        self.subject.stream.reset(self.seed)
        self.statistics = self.subject.stream.begun_with
        while not self.record.steps or (not self.played_enough and time.monotonic() < until):
            step = self.subject.stream.step(self.subject.random_actions(self.rng))
            self.record.add(step)
            room -= 2 * step.states.nbytes
            if not self.tape or (len(self.tape) < TAPE and room > 0):
                self.tape.append(step)

    @property
    def played_enough(self) -> bool:
        """True after enough steps and episodes; if none ends, the check of ends plays on."""
        steps, episodes = self.record.steps, len(self.record.episodes.lengths)
        return steps >= RANDOM_STEPS and (episodes == 0 or episodes >= EPISODES or steps >= MOST_STEPS)

    def repeated(
        self, subject: Subject, share: float, between: Callable[[], object] = lambda: None
    ) -> tuple[int | None, int, float]:
        """Replay the tape from its seed and actions.

        Args:
            subject: the environment to play in.
            share: fraction of the remaining time to spend.
            between: called before each step.

        Returns:
            The first step that differed (0 for the reset, None for none), the steps compared, and the largest
            difference of a number there.
        """
        until = time.monotonic() + share * self.left
        states = subject.stream.reset(self.seed, self.statistics)
        if not np.array_equal(states, self.tape[0].states) or not same(
            subject.stream.action_masks, self.tape[0].action_masks
        ):
            return 0, 0, distance(states, self.tape[0].states)
        number = 0
        for number, old in enumerate(self.tape, 1):
            between()
            new = subject.stream.step(old.actions)
            if not alike(new, old):
                largest = max(distance(new.next_states, old.next_states), distance(new.rewards, old.rewards))
                ends = same(new.terminated, old.terminated) and same(new.truncated, old.truncated)
                return number, number, largest if ends else np.inf
            if time.monotonic() > until:
                break
        return None, number, 0.0


def alike(one: Step, other: Step) -> bool:
    """True if two steps are equal."""
    return all(
        same(getattr(one, name), getattr(other, name))
        for name in ("states", "next_states", "rewards", "terminated", "truncated", "action_masks", "next_action_masks")
    )


def same(one: Array | None, other: Array | None) -> bool:
    """True if two arrays are equal, or both absent."""
    return one is other if one is None or other is None else np.array_equal(one, other)


def distance(one: Array, other: Array) -> float:
    """Return the largest difference of two arrays."""
    return float(np.abs(one.astype(np.float64) - other.astype(np.float64)).max()) if one.size else 0.0


def finding_from(error: EnvError, subject: Subject) -> Finding:
    """Return the fault for an error of the environment, under the name of its check."""
    text, first = str(error).removeprefix(f"{subject.name}: sub-environment 0 of 1, "), origin(error)
    old_api = next((cure for cure in (OLD_RESET, OLD_STEP) if cure in text), None)
    if old_api is not None:
        return replace(fault(text.removesuffix(f"; {old_api}"), old_api), check="play")
    answered = subject.witness is not None and subject.witness.answer is not None
    if answered or isinstance(first, NexusError):
        check = part_at_fault(subject)
        return replace(fault(text, CURES[check]), check=check)
    where, place = text.partition("raised ")[0], place_of(first)
    said = f"{where}{error_line(first)} ({place})"
    return replace(fault(said, CURES["play"], place=place), check="play")


def error_line(error: BaseException) -> str:
    """Return kind and text of an error on one line."""
    kind, text = type(error).__name__, one_line(error)
    return f"raised {kind}" if text == kind else f"raised {kind}: {text}"


def part_at_fault(subject: Subject) -> str:
    """Return the check that an environment's last answer fails, by reading it part by part."""
    answer = None if subject.witness is None else subject.witness.answer
    if answer is None or subject.edge is None:
        return "play"
    try:
        if subject.witness is not None and subject.witness.since_reset == 0:
            observation, info = reset_answer(answer)
            parts: tuple[Any, ...] = (observation, 0.0, False, False, info)
        else:
            parts = step_answer(answer)
    except EnvError:
        return "play"
    observation, reward, terminated, truncated, info = parts
    readers: dict[str, Callable[[], object]] = {
        "ends": lambda: (flag_in(terminated, "terminated"), flag_in(truncated, "truncated")),
        "rewards": lambda: within(np.float64(number_in(reward))),
        "observations": lambda: within(read(subject.edge, observation)),
        "masks": lambda: [checked_mask(info[key], subject.stream.action_dim) for key in MASK_KEYS if key in info],
    }
    for name, reader in readers.items():
        try:
            reader()
        except (EnvError, KeyError, TypeError, IndexError):
            return name
    return "masks"  # one is missing, or has no legal action


def read(edge: Edge | None, observation: Any) -> Array:
    """Return an observation as nexus reads it."""
    assert edge is not None
    return edge.read(observation if edge.parts is None else edge.split(observation)[1])


def within(numbers: Any) -> None:
    """Raise `EnvError` unless all numbers are finite in float32."""
    if not (np.abs(np.asarray(numbers, np.float64)) <= LARGEST).all():
        raise EnvError("beyond float32")
