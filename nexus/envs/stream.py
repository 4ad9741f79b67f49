"""The one place that handles autoreset: vector environments in, true transitions out."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from gymnasium.error import AlreadyPendingCallError, ClosedEnvironmentError
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

from nexus.core.errors import ConfigError, EnvError, NexusError
from nexus.core.state import State, array_from, below, count_from, part
from nexus.core.types import Array, Flags
from nexus.envs.action_masks import KEY, read_action_masks
from nexus.envs.atari import LIFE_LOST
from nexus.envs.checks import (
    env_index_in,
    fault_from,
    misfit,
    misshapen,
    require_finite,
    require_rewards,
    require_shape,
)
from nexus.envs.edge import NOTICE
from nexus.envs.episodes import (
    ACTIONS_OPTION,
    BEGUN,
    RESET_MASK,
    STAGES_OPTION,
    STATISTICS_OPTION,
    STRAYED,
    ActionLog,
    Begun,
    EndedEpisode,
    Seeds,
    StageChooser,
    StageReport,
    episode_seed,
    seeds_for,
)
from nexus.envs.statistics import Statistics, differing, stack_statistics, statistics_from, unstack_statistics
from nexus.envs.workers import Workers

__all__ = ["LONGEST_EPISODE", "STATISTICS_BEGUN", "STATISTICS_NOW", "Step", "TransitionStream"]

STATISTICS_BEGUN, STATISTICS_NOW = "statistics", "statistics_now"  # keys of a state: running statistics
CURRICULUM = "curriculum"  # a key of a state
LONGEST_EPISODE = 100_000  # steps; a longer episode is assumed never to end


@dataclass(frozen=True, slots=True)
class Step:
    """One vector step without autoreset artefacts."""

    states: Array  # [E, *obs], the states acted on
    actions: Array  # [E]
    rewards: Array  # [E]
    next_states: Array  # [E, *obs], at the end of an episode its last observation, never that of a reset
    terminated: Array  # [E] bool
    truncated: Array  # [E] bool
    valid: Flags  # [E], False where an environment only reset: no action was taken
    begins: Flags  # [E], True where an episode begins: `states` is not the last step's `next_states`
    action_masks: Flags | None = None  # [E, A], the legal actions in `states`; None without masks
    next_action_masks: Flags | None = None  # [E, A], the legal actions in `next_states`
    life_lost: Flags | None = None  # [E], where a lost life ends the learning episode and the game continues
    bonus: Array | None = None  # [E], what shaping adds to the rewards that are learned from
    staged: StageReport | None = None  # None without a curriculum
    ended: tuple[EndedEpisode, ...] = field(
        default=(), kw_only=True
    )  # the episodes that ended here, if the stream keeps their actions

    def learned_rewards(self, clip: float | None) -> Array:
        """Return the rewards `[E]` that are learned from: clipped to a size, then shaped."""
        rewards = self.rewards if clip is None else np.clip(self.rewards, -clip, clip)
        return rewards if self.bonus is None else rewards + self.bonus

    @property
    def terminal(self) -> Array:
        """`[E]`, where learning sees a terminal state: terminated, or a life was lost if that counts."""
        return self.terminated if self.life_lost is None else self.terminated | self.life_lost


class TransitionStream:
    """Steps a Gymnasium vector environment and returns its true transitions, in every autoreset mode.

    - disabled: environments do not autoreset, so the stream resets them, with a new seed for each episode.
      Episodes in progress can then be saved and restored, and an episode of `longest` steps is truncated.
    - same-step: the last observation is in `info["final_obs"]` and the reset observation is returned.
    - next-step: the step after an end ignores its action and returns the reset state; that row is not valid.

    If the first `info` has an `action_mask`, `action_masks` `[E, A]` holds the legal actions in `states`.

    Args:
        env: the vector environment; its `metadata["autoreset_mode"]` says how it resets. If it has `reseed_after`, an
            episode gets a seed only that many steps after the last seeded one.
        name: its name in errors; None uses its id or its class.
        timeout: seconds for a step or a reset, for an environment whose sub-environments run in separate processes.
        longest: steps after which an episode is truncated if nothing else ends it.
        reseed_after: overrides that of `env`.
        shaping: gives the bonus `[E]` of a step.
        keep_ended: whether steps hold the seed and the actions of the episodes that they end; without autoreset only.
        chooser: decides the stage of each episode, for an environment in mode disabled that reads `STAGES_OPTION`.

    Raises:
        EnvError: (from `reset`, `step`) an environment raised an error, its process died or took too long, a reward or
            an observation is not finite or has the wrong shape or dtype, or an action mask is invalid. The message
            names the environment, the sub-environment, its last seed, and the steps since.
    """

    def __init__(
        self,
        env: VectorEnv[Any, Any, Any],
        name: str | None = None,
        timeout: float | None = None,
        longest: int = LONGEST_EPISODE,
        reseed_after: int | None = None,
        shaping: Callable[[Step], Array] | None = None,
        keep_ended: bool = False,
        chooser: StageChooser | None = None,
    ) -> None:
        self.env = env
        self.shaping, self.chooser = shaping, chooser
        self.name = name
        self.longest = longest
        self.keep_ended = keep_ended
        self.reseed_after = int(getattr(env, "reseed_after", 0)) if reseed_after is None else reseed_after
        self.num_envs = env.num_envs
        self.mode = AutoresetMode(env.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP))
        self.space = env.single_observation_space
        self.shape = (env.num_envs, *(self.space.shape or ()))
        self.calls = Workers(env, timeout, self._fault) if isinstance(env, AsyncVectorEnv) else env
        self.action_dim = int(getattr(env.single_action_space, "n", 0))
        self.begun = False
        self.seed: int | None = None  # the seed of all episodes
        self.states: Array = np.empty(0)
        self.action_masks: Flags | None = None
        self.cut = 0  # episodes truncated because of their length
        self.notices: list[str] = []  # notices for the user, not yet shown
        self._noted: set[str] = set()
        self._begun: list[Statistics] = [{} for _ in range(env.num_envs)]  # running statistics at the last seed of each
        self._log = ActionLog(env.num_envs, self.action_dim)
        self._lengths = np.zeros(self.num_envs, np.int64)  # steps of the episodes in progress
        self._resetting = np.zeros(self.num_envs, bool)
        self._begins = np.ones(self.num_envs, bool)
        self._given: Array = np.empty(0)  # the last observations, as returned
        self._named_seeds: Seeds = [None] * env.num_envs  # for errors: the last seed of each sub-environment
        self._since = np.zeros(self.num_envs, np.int64)

    @property
    def begins(self) -> Flags:
        """`[E]`, True where the next step will be the first of an episode."""
        return self._begins

    def reset(self, seed: int | None = None, statistics: Statistics | None = None) -> Array:
        """Begin an episode in every environment and return the first states `[E, *obs]`.

        Args:
            seed: seed of all episodes.
            statistics: running statistics `[E, ...]` for the wrappers to start from; None for their current ones.
        """
        self.begun, self.seed = True, seed
        self._log.numbers[:] = 0
        everywhere = np.ones(self.num_envs, bool)
        self.states, info = self._begin(everywhere, everywhere, statistics)
        self.action_masks = self._read(info, everywhere) if KEY in info else None
        self._resetting = np.zeros(self.num_envs, bool)
        return self.states

    def step(self, actions: Array) -> Step:
        """Take one action `[E]` in each environment."""
        states, action_masks, valid, begins = self.states, self.action_masks, ~self._resetting, self._begins
        self._since += 1
        observations, rewards, terminated, truncated, info = self._call(self.calls.step, actions)
        rewards = require_rewards(rewards, self.num_envs, self._fault)
        observations = self._taken(observations)
        next_states, reset_info, too_long = observations, info, self._too_long(terminated, truncated)
        truncated = truncated | too_long
        done = terminated | truncated
        ended: tuple[EndedEpisode, ...] = ()
        staged = None if self.chooser is None else self.chooser.observe(rewards, done, too_long, info, self._fault)
        if self.mode is AutoresetMode.DISABLED:
            self._log.add(actions)
            if self.keep_ended:
                ended = self._log.ended(done, self._lengths, self._begun)
        if self.mode is AutoresetMode.NEXT_STEP:
            self._resetting = done
        elif done.any():
            next_states = observations.copy()
            if self.mode is AutoresetMode.SAME_STEP:
                next_states[done] = self._last_of(info["final_obs"], done)
                require_finite(next_states, self._fault)
            else:
                self._log.numbers[done] += 1
                observations, reset_info = self._begin(done, done & (self._log.lengths >= self.reseed_after) | too_long)
        self._begins = ~valid if self.mode is AutoresetMode.NEXT_STEP else done
        self.states = observations
        next_action_masks = None
        if action_masks is not None or KEY in info:
            next_action_masks = self._follow_masks(info, reset_info, terminated, done)
        step = Step(
            states,
            actions,
            rewards,
            next_states,
            terminated,
            truncated,
            valid,
            begins,
            action_masks,
            next_action_masks,
            info.get(LIFE_LOST),
            staged=staged,
            ended=ended,
        )
        return step if self.shaping is None else replace(step, bonus=self.shaping(step))

    def _too_long(self, terminated: Flags, truncated: Flags) -> Flags:
        """Return which episodes `[E]` end only because they are too long."""
        self._lengths += 1
        if self.mode is not AutoresetMode.DISABLED:  # a single environment can't be reset there
            return np.zeros(self.num_envs, bool)
        too_long: Flags = (self._lengths >= self.longest) & ~(terminated | truncated)
        self.cut += int(too_long.sum())
        return too_long

    def _begin(self, which: Flags, seeded: Flags, statistics: Statistics | None = None) -> tuple[Array, dict[str, Any]]:
        """Reset some environments `[E]`, some of them with seeds; return all observations, and the infos.

        Wrappers with running statistics continue from their own, or from the given ones.
        """
        self._lengths[which] = 0
        self._begins = self._begins | which
        if self.mode is not AutoresetMode.DISABLED:
            own = isinstance(self.env.unwrapped, SyncVectorEnv | AsyncVectorEnv)
            self._named_seeds = seeds_for(self.seed, self.num_envs) if own else [self.seed] * self.num_envs
            self._since[:] = 0
            observations, info = self._call(self.calls.reset, seed=self.seed)
        else:
            seeds = self._seeds(seeded)
            for env in np.flatnonzero(seeded):
                self._named_seeds[env], self._since[env] = seeds[env], 0
            options: dict[str, Any] = {} if which.all() else {RESET_MASK: which.copy()}
            options |= {} if not statistics else {STATISTICS_OPTION: unstack_statistics(statistics, self.num_envs)}
            options |= {} if self.chooser is None else {STAGES_OPTION: self.chooser.choose(which)}
            given = {"options": options} if options else {}
            observations, info = self._call(self.calls.reset, seed=seeds, **given)
            self._log.begin(seeded, seeds)
            self._note_begun(info)
        return self._taken(observations).copy(), info

    @property
    def begun_with(self) -> Statistics:
        """The running statistics `[E, ...]` of the wrappers at the last seeded reset of each sub-environment."""
        return stack_statistics(self._begun)

    def _note_begun(self, info: dict[str, Any]) -> None:
        """Record the running statistics at the start of episodes."""
        for env, begun in enumerate(info.get(BEGUN, ())):
            if isinstance(begun, Begun):
                self._begun[env] = begun.statistics

    def _seeds(self, seeded: Flags) -> Seeds:
        """Return the seeds of the episodes that begin in these environments `[E]`, None for the others."""
        numbers = self._log.numbers * self.num_envs + np.arange(self.num_envs)
        return [
            episode_seed(self.seed, int(number)) if wanted and self.seed is not None else None
            for number, wanted in zip(numbers, seeded, strict=True)
        ]

    def get_state(self) -> State:
        """Return the episodes in progress, for `set_state`; empty before the first `reset`.

        Raises:
            ConfigError: environments can't be reset individually, or were not seeded.
        """
        if not self.begun:
            return {}
        if self.mode is not AutoresetMode.DISABLED or self.seed is None:
            raise ConfigError("only episodes with separate seeds can be saved: needs autoreset mode disabled")
        masks: State = {} if self.action_masks is None else {"action_masks": self.action_masks}
        own = {"seed": self.seed, "states": self.states, "begins": self._begins}
        seen = {**below(STATISTICS_BEGUN, self.begun_with), **below(STATISTICS_NOW, self.statistics())}
        seen |= {} if self.chooser is None else below(CURRICULUM, self.chooser.get_state())
        return {**self._log.get_state(), **own, **masks, **seen, "episode_lengths": self._lengths.copy()}

    def statistics(self) -> Statistics:
        """Return the running statistics of the sub-environments' wrappers, `[E, ...]` by name.

        Empty if there are none, or if one can't be queried because it failed or is in the middle of a step.
        """
        try:
            return stack_statistics(self._ask("nexus_statistics"))
        except (EnvError, ClosedEnvironmentError, AlreadyPendingCallError, OSError, EOFError):
            return {}

    def freeze(self, statistics: Statistics) -> list[str]:
        """Make the sub-environments' wrappers scale by these statistics, without `[E]`, and stop updating.

        Returns:
            The classes of the wrappers that keep scaling observations by their own statistics, since these do not fit.
        """
        answers: list[list[str]] = self._ask("nexus_freeze", statistics)
        return answers[0] if answers else []

    def _ask(self, name: str, *arguments: Any) -> list[Any]:
        """Call a method of our wrapper around each sub-environment, if there is one."""
        plain = self.env.unwrapped
        if not isinstance(plain, SyncVectorEnv | AsyncVectorEnv):
            return []
        call = self.calls.call if isinstance(self.calls, Workers) else plain.call
        return list(call(name, *arguments)) if all(call("has_wrapper_attr", name)) else []

    def set_state(self, state: State) -> Flags:
        """Restore the episodes in progress; return where that failed `[E]`; a new episode starts there.

        It fails if an environment is not reproducible from a seed and its actions.

        Raises:
            RunError: something is missing or does not fit.
        """
        self._log.set_state(state)
        self.seed, self.begun = count_from(state, "seed"), True
        self._lengths = array_from(state, "episode_lengths", self._lengths).copy()
        self._begins = array_from(state, "begins", self._begins).copy()
        states = array_from(state, "states", np.empty(self.shape, self.space.dtype))
        self._named_seeds, self._since = list(self._log.seeds.tolist()), self._log.lengths
        begun, now = (
            statistics_from(part(state, name), self.statistics()) for name in (STATISTICS_BEGUN, STATISTICS_NOW)
        )
        options: dict[str, Any] = {ACTIONS_OPTION: [self._log.actions_of(env) for env in range(self.num_envs)]}
        options |= {} if not begun else {STATISTICS_OPTION: unstack_statistics(begun, self.num_envs)}
        if self.chooser is not None:
            self.chooser.set_state(part(state, CURRICULUM))
            options[STAGES_OPTION] = self.chooser.stages
        observations, info = self._call(self.calls.reset, seed=self._log.seeds.tolist(), options=options)
        self._note_begun(info)
        self.states = self._taken(observations).copy()
        strayed = np.asarray(info.get(f"_{STRAYED}", np.zeros(self.num_envs)), bool)
        strayed |= (self.states != states).reshape(self.num_envs, -1).any(1)
        self.action_masks = None
        if "action_masks" in state or KEY in info:
            masks = array_from(state, "action_masks", np.empty((self.num_envs, self.action_dim), bool))
            self.action_masks = self._read(info, ~strayed)
            strayed |= (self.action_masks != masks).any(1)
        if now:
            strayed |= differing(self.statistics(), now)
        if strayed.any():
            self._log.numbers[strayed] += 1
            self.states, info = self._begin(strayed, strayed, now)
            if self.action_masks is not None:
                self.action_masks = np.where(strayed[:, None], self._read(info, strayed), self.action_masks)
        return strayed

    def _follow_masks(self, info: dict[str, Any], reset_info: dict[str, Any], terminated: Flags, done: Flags) -> Flags:
        """Return the masks of the next states; keep those of the states in which the next actions are taken."""
        if self.action_masks is None:
            index = int(np.argmax(info.get(f"_{KEY}", 0)))
            raise self._fault(index, f"got an {KEY} in its info, but had none at reset: needs one there too")
        if self.mode is AutoresetMode.NEXT_STEP or not done.any():
            self.action_masks = self._read(info, ~terminated)
            return self.action_masks
        if self.mode is AutoresetMode.SAME_STEP:
            self.action_masks = self._read(info, np.ones(self.num_envs, bool))
            last = self._read(info.get("final_info", {}), done & ~terminated)
            return np.where(done[:, None], last, self.action_masks)
        next_action_masks = self._read(info, ~terminated)
        self.action_masks = np.where(done[:, None], self._read(reset_info, done), next_action_masks)
        return next_action_masks

    def _read(self, info: dict[str, Any], needed: Flags) -> Flags:
        return read_action_masks(info, needed, self.action_dim, self._fault)

    def _call(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Call the vector environment, and turn any exception or stacking failure into one clear error."""
        try:
            answer = function(*arguments, **options)
        except NexusError as error:
            index = env_index_in(error)
            if index is None:  # the text names the sub-environment
                raise
            raise self._fault(index, str(error)) from error
        except Exception as error:
            fault = misfit(error, self._fault) if isinstance(error, TypeError | ValueError) else None
            raise fault_from(error, self._fault) if fault is None else fault from error
        if NOTICE in answer[-1]:
            self._note(answer[-1][NOTICE])
        return answer

    def pop_notices(self) -> list[str]:
        """Return notices for the user about the environment; each is returned once."""
        notices, self.notices = self.notices, []
        return notices

    def _note(self, notices: dict[str, Any]) -> None:
        """Keep the first notice of each kind."""
        for kind in notices:
            if kind not in self._noted and not kind.startswith("_"):  # `_kind` marks which sub-environments gave one
                self._noted.add(kind)
                self.notices.append(next(text for text in notices[kind] if text is not None))

    def _taken(self, observations: Array) -> Array:
        """Return validated observations `[E, *obs]` in memory that is not overwritten later."""
        require_shape(observations, self.shape, self.space.dtype, self._fault)
        require_finite(observations, self._fault)
        reused = np.may_share_memory(observations, self._given)
        self._given = observations
        return observations.copy() if reused else observations

    def _last_of(self, final: Array, done: Flags) -> Array:
        """Return the validated last observations of the episodes that ended."""
        for index in np.flatnonzero(done):
            wrong = misshapen(final[index], self.space)
            if wrong is not None:
                raise self._fault(int(index), f"got {wrong}")
        return np.stack(list(final[done]))

    def _fault(self, index: int | None, text: str) -> EnvError:
        which = "" if index is None else f" sub-environment {index} of {self.num_envs},"
        which += "" if index is None or self.chooser is None else f" stage {self.chooser.stages[index] + 1},"
        seed, steps = self._named_seeds[index or 0], int(self._since[index or 0])
        known = seed is not None and (index is not None or len(set(self._named_seeds)) == 1)
        seeded = f" seed {seed}," if known else ""
        return EnvError(f"{self.name or vector_env_name(self.env)}:{which}{seeded} step {steps}: {text}")


def vector_env_name(env: VectorEnv[Any, Any, Any]) -> str:
    """Return the id of a vector environment, or the class of its sub-environments."""
    if env.spec is not None:
        return env.spec.id
    envs = getattr(env.unwrapped, "envs", None)
    return type(envs[0].unwrapped if envs else env.unwrapped).__name__
