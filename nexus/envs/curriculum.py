"""Curriculum learning (Bengio et al. 2009): stages of growing difficulty, and the rule that moves between them.

The last stage is the run's environment. A `Ladder` chooses the stage of each episode, and each `StagedEnv` changes to
it at its next reset. With stages that differ only in their reset options, such as where an episode starts, this is a
reverse curriculum (Florensa et al. 2017, https://arxiv.org/abs/1707.05300).
"""

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack, closing
from copy import deepcopy
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, NamedTuple, Self, TypeVar

import gymnasium as gym
import numpy as np

from nexus.core.checked import CheckedConfig, JsonObject, Keywords, config_text
from nexus.core.errors import ConfigError, nearest, one_line
from nexus.core.state import State, array_from, count_from, restore_generator, value_from
from nexus.core.types import Array, Flags, Floats, Ints
from nexus.envs.action_masks import KEY
from nexus.envs.answers import SUCCESS, SUCCESS_KEYS
from nexus.envs.atari import canonical, is_atari
from nexus.envs.checks import Fault
from nexus.envs.episodes import STAGES_OPTION, StageChooser, StageReport
from nexus.envs.factory import Env, EnvSpec, difference_of_spaces, make_env, name_of
from nexus.envs.statistics import Running

__all__ = ["Curriculum", "CurriculumSettings", "Ladder", "StagedEnv", "stage_specs"]

PartT = TypeVar("PartT", bound=CheckedConfig)
WHAT = "curriculum"  # at the start of each error
MOST_STAGES, LONGEST_WINDOW = 1_000, 100_000


@dataclass(frozen=True)
class Stage(CheckedConfig):
    """A stage as the user writes it."""

    env: str | None = None  # None for the run's
    kwargs: Keywords = field(default_factory=dict)  # on top of `env_kwargs` if the environment is the run's
    options: Keywords = field(default_factory=dict)  # of `reset`
    success: float | Literal["info"] | None = None  # None for that of all stages


@dataclass(frozen=True)
class Rule(CheckedConfig):
    """When to move to another stage."""

    success: float | Literal["info"] | None = None  # least return of a success, or by the info
    promote: float = 0.8  # success rate from which the next stage follows
    demote: float | None = 0.4  # success rate below which the previous one does; None for never
    window: int = 100  # episodes of the current stage that the rate is of
    revisit: float = 0.2  # share of episodes that are from earlier stages

    def check(self) -> None:
        """Raise `ConfigError` if a value is impossible."""
        self.require(0 < self.promote <= 1, "promote", "a rate in (0, 1]")
        self.require(self.demote is None or 0 <= self.demote < self.promote, "demote", "a rate below promote, or none")
        self.require(1 <= self.window <= LONGEST_WINDOW, "window", f"1 to {LONGEST_WINDOW:,} episodes")
        self.require(0 <= self.revisit < 1, "revisit", "a share in [0, 1)")


@dataclass(frozen=True)
class Curriculum:
    """Stages, easiest first, and the rule that moves between them."""

    stages: tuple[Stage, ...]
    rule: Rule

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Self:
        """Read a curriculum as it is in a config file.

        Raises:
            ConfigError: a key is unknown or missing, or a value is impossible.
        """
        rest = dict(values)
        known = ["stages", *(one.name for one in fields(Rule))]
        for key in rest:
            if key not in known:
                raise ConfigError(f"{WHAT} has an unknown key {key!r}{nearest(key, known) or among(known)}")
        listed = rest.pop("stages", None)
        if not isinstance(listed, list) or not 2 <= len(listed) <= MOST_STAGES:
            got = "none" if listed is None else len(listed) if isinstance(listed, list) else config_text(listed)
            raise ConfigError(f"{WHAT}, stages: needs a list of at least 2 and at most {MOST_STAGES:,}, got {got}")
        stages = tuple(read_part(Stage, stage, f"{WHAT}, stage {number}") for number, stage in enumerate(listed, 1))
        rule = read_part(Rule, rest, WHAT)
        without = [number for number, stage in enumerate(stages, 1) if stage.success is None]
        if without and rule.success is None:
            raise ConfigError(
                f"{WHAT}, stage {without[0]}: needs success, the least return of an episode that counts as one, or "
                '"info"; give it to the stage, or once for all'
            )
        return cls(tuple(replace(stage, success=success_of(stage, rule)) for stage in stages), rule)


def success_of(stage: Stage, rule: Rule) -> float | Literal["info"] | None:
    """Return what counts as success in a stage."""
    return rule.success if stage.success is None else stage.success


def among(known: Sequence[str]) -> str:
    """Return text that lists the known keys."""
    return f": needs some of {', '.join(known)}"


def read_part(kind: type[PartT], values: Any, where: str) -> PartT:
    """Read one of a curriculum's parts, with errors that say where it is.

    Raises:
        ConfigError: it can't be read.
    """
    known = [one.name for one in fields(kind)]
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where} is {config_text(values)}: needs an object with {', '.join(known)}, or an empty one")
    for key in values:
        if key not in known:
            raise ConfigError(f"{where} has an unknown key {key!r}{nearest(str(key), known) or among(known)}")
    try:
        return kind(**values)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


@dataclass(frozen=True)
class CurriculumSettings(CheckedConfig):
    """A curriculum."""

    curriculum: JsonObject | None = field(default=None, hash=False)
    """A JSON file with stages of growing difficulty, the last of them the environment itself; none for just that."""

    def check(self) -> None:
        """Raise `ConfigError` if it can't be read."""
        if self.curriculum is not None:
            Curriculum.read(self.curriculum)


class StageSpec(NamedTuple):
    """How the episodes of a stage are made."""

    spec: EnvSpec
    options: Mapping[str, Any]


def stage_specs(curriculum: Curriculum, goal: EnvSpec) -> tuple[StageSpec, ...]:
    """Return the specs of the stages, after making each environment once, and resetting it once for each of its stages.

    Args:
        curriculum: the stages.
        goal: the run's environment.

    Raises:
        ConfigError: a stage can't be made or reset, has other spaces than the goal, has action masks that another one
            lacks, is an Atari game, or has wrappers with running statistics; or the last stage is not the goal.
    """
    stages = tuple(
        StageSpec(spec_of_stage(stage, goal, f"{WHAT}, stage {number}"), stage.options)
        for number, stage in enumerate(curriculum.stages, 1)
    )
    if stages[-1] != (goal, {}):
        raise ConfigError(
            f"{WHAT}, stage {len(stages)}: the last stage is the run's environment, {name_of(goal.source)}, in which "
            f"evaluations are played: needs {{}} there{way_to_last(stages[-1], goal)}"
        )
    masked: dict[int, bool] = {}
    with closing(make_env(goal)) as first:
        for spec in unique([stage.spec for stage in stages]):
            numbers = [number for number, stage in enumerate(stages) if stage.spec == spec]
            masked |= try_out(spec, first, {number: stages[number].options for number in numbers})
    for number, has_masks in sorted(masked.items()):
        if has_masks != masked[len(stages) - 1]:
            has, lacks = ("it", "the last stage") if has_masks else ("the last stage", "it")
            raise ConfigError(f"{WHAT}, stage {number + 1}: {has} has action masks and {lacks} none: needs all or none")
    return stages


def way_to_last(last: StageSpec, goal: EnvSpec) -> str:
    """Return text on what to train instead, if the last stage differs from the goal in its environment."""
    if last.options or last.spec.source != goal.source:
        return f", or train on {name_of(last.spec.source)}" if last.spec.source != goal.source else ""
    return ", and its arguments as env_kwargs"


def spec_of_stage(stage: Stage, goal: EnvSpec, where: str) -> EnvSpec:
    """Return the spec of a stage's environment, seen through the same wrappers as the goal.

    Raises:
        ConfigError: it is an Atari game, or takes no keyword arguments.
    """
    source = goal.source if stage.env is None else canonical(stage.env)
    kwargs = {**(dict(goal.kwargs) if source == goal.source else {}), **stage.kwargs}
    atari = next((one for one in (source, goal.source) if is_atari(one)), None)
    if atari is not None:
        raise ConfigError(
            f"{where}: {name_of(atari)} is an Atari game, and ale-py steps all games together: none can change alone; "
            "leave the curriculum out"
        )
    try:
        return replace(goal, source=source, kwargs=tuple(kwargs.items()))
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def unique(specs: Sequence[EnvSpec]) -> list[EnvSpec]:
    """Return each spec once; not a set, since keyword arguments can be lists."""
    return [spec for place, spec in enumerate(specs) if spec not in specs[:place]]


def try_out(spec: EnvSpec, goal: Env, options: Mapping[int, Mapping[str, Any]]) -> dict[int, bool]:
    """Make an environment, compare it with the goal, and reset it with the options of each of its stages.

    Returns:
        Whether there was an action mask, by stage.

    Raises:
        ConfigError: one of it fails.
    """
    where, masked = f"{WHAT}, stage {min(options) + 1}", {}
    try:
        env = make_env(spec)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    with closing(env):
        if (unlike := difference_of_spaces(env, goal)) is not None:
            what, its, needed = unlike
            raise ConfigError(
                f"{where}: {name_of(spec.source)} has {what}s {its}, the last stage {needed}: needs equal"
            )
        if found := Running(env).layers:
            raise ConfigError(
                f"{where}: {type(found[0]).__name__} would keep statistics of each stage alone: use "
                "normalize_observations or normalize_rewards, which are of all stages"
            )
        for number, given in options.items():
            try:
                _, info = env.reset(seed=0, options=deepcopy(dict(given)) or None)
            except Exception as error:  # foreign code
                said = f" with options {dict(given)}" if given else ""
                raise ConfigError(f"{WHAT}, stage {number + 1}: reset{said} failed: {one_line(error)}") from error
            masked[number] = KEY in info
    return masked


class StagedEnv(gym.Wrapper[Any, Any, Any, Any]):
    """An environment that changes its stage when it is reset, and plays the last one unless told otherwise.

    Args:
        stages: as `stage_specs` returns them.
        index: its index among the vector's sub-environments.
    """

    def __init__(self, stages: Sequence[StageSpec], index: int) -> None:
        self.stages = stages
        self.index = index
        specs = [stage.spec for stage in stages]
        self._places = [specs.index(spec) for spec in specs]  # stages that differ in their options share one
        self._made = {0: make_env(specs[0])}
        super().__init__(self._made[0])

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset to its stage in the option `STAGES_OPTION`; an environment is made when it is first needed."""
        rest = dict(options or {})
        told = rest.pop(STAGES_OPTION, None)
        number = len(self.stages) - 1 if told is None else int(told[self.index])
        stage, place = self.stages[number], self._places[number]
        if place not in self._made:
            self._made[place] = make_env(stage.spec)
        self.env = self._made[place]
        return self.env.reset(seed=seed, options={**deepcopy(dict(stage.options)), **rest} or None)

    def close(self) -> None:
        """Close all environments made so far, even if one fails to."""
        with ExitStack() as stack:
            for env in self._made.values():
                stack.callback(env.close)


class Ladder(StageChooser):
    """Moves up and down the stages by the success rate of the last episodes.

    An episode counts if it is of the current stage when it ends. After `window` of them, a rate of at least `promote`
    leads to the next stage, a rate below `demote` to the previous one; either way the counting starts again. A share
    of `revisit` of the episodes is from earlier stages, each equally likely, against forgetting.

    Args:
        curriculum: the stages and the rule.
        num_envs: environments `E`.
        rng: chooses the episodes from earlier stages.
    """

    def __init__(self, curriculum: Curriculum, num_envs: int, rng: np.random.Generator) -> None:
        self.curriculum = curriculum
        self.rng = rng
        self.current = 0
        self.outcomes: deque[bool] = deque(maxlen=curriculum.rule.window)
        self.success: float | None = None  # rate of the outcomes; None if there are none
        self.stages: Ints = np.zeros(num_envs, np.int64)
        self._returns: Floats = np.zeros(num_envs)  # of the episodes in progress

    def observe(self, rewards: Array, ended: Flags, too_long: Flags, info: dict[str, Any], fault: Fault) -> StageReport:
        """Count the episodes that ended, and change the stage if that is due.

        Raises:
            EnvError: success is judged by the info, and an episode's last one says nothing of it.
        """
        stages, news = self.stages.copy(), []
        returns = self._returns + rewards
        won = {env: self._succeeded(env, returns, too_long, info, fault) for env in map(int, np.flatnonzero(ended))}
        self._returns = returns  # only now: a run that a fault ends can be resumed before this step
        for env, success in won.items():
            if stages[env] == self.current:
                self.outcomes.append(success)
                self.success = rate_of(self.outcomes)
                news += self._moved()
        return StageReport(stages, self.current, self.success, tuple(news))

    def _succeeded(self, env: int, returns: Floats, too_long: Flags, info: dict[str, Any], fault: Fault) -> bool:
        needed = self.curriculum.stages[self.stages[env]].success
        if needed != "info":
            return bool(returns[env] >= needed)
        if too_long[env]:  # cut off by the stream, so the environment did not know of an end
            return False
        if SUCCESS in info and info[f"_{SUCCESS}"][env]:
            return bool(info[SUCCESS][env])
        needs = "needs true or false there, since the curriculum judges by it"
        raise fault(env, f"ended an episode without {' or '.join(SUCCESS_KEYS)} in its info: {needs}")

    def _moved(self) -> list[str]:
        """Change the stage if that is due, and return a line that says so."""
        rule, rate = self.curriculum.rule, self.success
        if rate is None or len(self.outcomes) < rule.window:
            return []
        up = rate >= rule.promote and self.current < len(self.curriculum.stages) - 1
        down = rule.demote is not None and rate < rule.demote and self.current > 0
        if not up and not down:
            return []
        why = f"{sum(self.outcomes)} of the last {rule.window} episodes of stage {self.current + 1} succeeded"
        self.current += 1 if up else -1
        self.outcomes.clear()
        self.success = None
        where = f"stage {self.current + 1} of {len(self.curriculum.stages)}"
        what = text_of_stage(self.curriculum.stages[self.current])
        return [f"{'up' if up else 'back'} to {where}{what}: {why}"]

    def choose(self, which: Flags) -> Ints:
        """Choose the stages of the episodes that begin in these environments `[E]`; return those of all `[E]`."""
        revisit = self.curriculum.rule.revisit
        for env in np.flatnonzero(which):
            coin = self.rng.random()
            # Below `revisit`, the coin is still uniform: it also says which of the earlier stages.
            self.stages[env] = int(coin / revisit * self.current) if coin < revisit else self.current
        self._returns[which] = 0.0
        return self.stages

    def get_state(self) -> State:
        """Return the current stage, the outcomes that count, the episodes in progress and the generator."""
        return {
            "current": self.current,
            "outcomes": np.array(self.outcomes, bool),
            "stages": self.stages.copy(),
            "returns": self._returns.copy(),
            "rng": self.rng.bit_generator.state,
        }

    def set_state(self, state: State) -> None:
        """Restore what `get_state` returned.

        Raises:
            RunError: something is missing or does not fit.
        """
        last = len(self.curriculum.stages) - 1
        self.current = count_from(state, "current", 0, last)
        count = min(value_from(state, "outcomes", np.ndarray).size, self.curriculum.rule.window)
        outcomes = array_from(state, "outcomes", np.empty(count, bool))
        stages = array_from(state, "stages", self.stages)
        for stage in (int(stages.min()), int(stages.max())):
            count_from({"stages": stage}, "stages", 0, last)
        self._returns = array_from(state, "returns", self._returns).copy()
        self.stages = stages.copy()
        self.outcomes.clear()
        self.outcomes.extend(outcomes.tolist())
        self.success = rate_of(self.outcomes)
        restore_generator(self.rng, state, "rng")


def rate_of(outcomes: Collection[bool]) -> float | None:
    """Return the share of successes; None of no outcomes."""
    return sum(outcomes) / len(outcomes) if outcomes else None


def text_of_stage(stage: Stage) -> str:
    """Return in words how a stage differs from the run's environment, to be appended to its number."""
    given = [f"{name}={config_text(value)}" for name, value in {**stage.kwargs, **stage.options}.items()]
    return "".join(f", {text}" for text in [*([] if stage.env is None else [stage.env]), *given])
