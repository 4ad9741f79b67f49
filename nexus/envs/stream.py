"""The one place that knows autoreset: vector environments in, true transitions out."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from numpy.typing import NDArray

from nexus.core.errors import EnvError, NexusError
from nexus.core.types import Array
from nexus.envs.action_masks import KEY, read_action_masks
from nexus.envs.atari import LIFE_LOST
from nexus.envs.checks import misfit, misshapen, raised, require_finite, require_rewards, require_shape
from nexus.envs.workers import Workers

__all__ = ["Step", "TransitionStream"]

Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Step:
    """One vector step as it truly happened."""

    states: Array  # [E, *obs], what was acted on
    actions: Array  # [E]
    rewards: Array  # [E]
    next_states: Array  # [E, *obs], the last observation of an episode where it ended, never a reset one
    terminated: Array  # [E] bool
    truncated: Array  # [E] bool
    valid: Flags  # [E], False where an environment only reset itself: nothing was decided there
    begins: Flags  # [E], True where `states` is no `next_states` of the step before: an episode begins
    action_masks: Flags | None = None  # [E, A], the legal actions in `states`; None where no environment tells
    next_action_masks: Flags | None = None  # [E, A], those in `next_states`
    life_lost: Flags | None = None  # [E], where a lost life ends what is learned from, and the game goes on

    @property
    def terminal(self) -> Array:
        """`[E]`, what learning takes for an end: terminated, or a life was lost where that counts."""
        return self.terminated if self.life_lost is None else self.terminated | self.life_lost


class TransitionStream:
    """Step a Gymnasium vector environment and get its true transitions, whatever its autoreset mode.

    - next-step: the step after an end ignores its action and returns the reset state; that row is not valid.
    - same-step: the last observation is in `info["final_obs"]` and the reset one in its place.
    - disabled: nothing resets by itself, so it is done here, at once.

    Where the first `info` has an `action_mask`, `action_masks` `[E, A]` tells the legal actions in `states`.

    Args:
        env: the vector environment; its `metadata["autoreset_mode"]` says how it resets.
        name: what errors call it; None takes its id or its class.
        timeout: seconds for a step or a reset, of an environment whose copies are in processes of their own.

    Raises:
        EnvError: (`reset`, `step`) an environment raised an error, its process died or took too long, a reward or an
            observation is no finite number or has another shape or dtype, or an action mask is impossible. Names the
            environment, the copy, the seed that it was last given, and the vector steps since.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any], name: str | None = None, timeout: float | None = None) -> None:
        self.env = env
        self.name = name
        self.num_envs = env.num_envs
        self.mode = AutoresetMode(env.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP))
        self.space = env.single_observation_space
        self.shape = (env.num_envs, *(self.space.shape or ()))
        self.calls = Workers(env, timeout, self._fault) if isinstance(env, AsyncVectorEnv) else env
        self.seed: int | None = None  # of the last reset
        self.action_dim = int(getattr(env.single_action_space, "n", 0))
        self.states: Array = np.empty(0)
        self.action_masks: Flags | None = None
        self.steps = 0  # vector steps since the last reset
        self._resetting = np.zeros(self.num_envs, bool)
        self._begins = np.ones(self.num_envs, bool)
        self._finished: Flags | None = None  # [E], whose last episode before a reset is over; None while all play on
        self._patience = 0  # vector steps that the others still have

    def reset(self, seed: int | None = None) -> Array:
        """Start every environment anew and return the first states `[E, *obs]`."""
        self.steps, self.seed = 0, seed
        self.states, info = self._call(self.calls.reset, seed=seed)
        self._require(self.states)
        self.action_masks = self._read(info, np.ones(self.num_envs, bool)) if KEY in info else None
        self._resetting = np.zeros(self.num_envs, bool)
        self._begins = np.ones(self.num_envs, bool)
        self._finished = None
        return self.states

    def finish_episodes(self, patience: int) -> None:
        """Let each copy play its episode to the end, but no longer than so many vector steps, and then no other.

        Rows of a copy that is done are not valid until the next `reset`. Asking again before it changes nothing.
        """
        if self._finished is None:
            self._finished = self._resetting | self._begins
            self._patience = patience

    @property
    def finishing(self) -> bool:
        """True from `finish_episodes` to the next `reset`."""
        return self._finished is not None

    @property
    def finished(self) -> bool:
        """True once episodes were to be finished and are, or their time is over."""
        return self._finished is not None and (self._patience <= 0 or bool(self._finished.all()))

    def step(self, actions: Array) -> Step:
        """Take one action `[E]` in each environment."""
        states, action_masks, valid, begins = self.states, self.action_masks, ~self._resetting, self._begins
        self.steps += 1
        observations, rewards, terminated, truncated, info = self._call(self.calls.step, actions)
        rewards = require_rewards(rewards, self.num_envs, self._fault)
        self._require(observations)
        done = terminated | truncated
        next_states, reset_info = observations, info
        if self.mode is AutoresetMode.NEXT_STEP:
            self._resetting = done
        elif done.any():
            next_states = observations.copy()
            if self.mode is AutoresetMode.SAME_STEP:
                next_states[done] = self._last_of(info["final_obs"], done)
            else:
                observations, reset_info = self._call(self.calls.reset, options={"reset_mask": done})
                self._require(observations)
            require_finite(next_states, self._fault)
        self._begins = ~valid if self.mode is AutoresetMode.NEXT_STEP else done
        self.states = observations
        life_lost = info.get(LIFE_LOST)
        if self._finished is not None:
            playing = ~self._finished
            valid, terminated, truncated = valid & playing, terminated & playing, truncated & playing
            life_lost = None if life_lost is None else life_lost & playing
            self._finished = self._finished | done
            self._patience -= 1
        next_action_masks = None
        if action_masks is not None or KEY in info:
            next_action_masks = self._follow_masks(info, reset_info, terminated, done)
        return Step(
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
            life_lost,
        )

    def _follow_masks(self, info: dict[str, Any], reset_info: dict[str, Any], terminated: Flags, done: Flags) -> Flags:
        """Return the masks of the next states; keep those of the states that the next actions are for."""
        if self.action_masks is None:
            raise self._fault(0, f"got an {KEY} in its info, but there was none at reset: needs one there too")
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
        """Call the vector environment; what it raises, or can't stack of its copies' answers, is one clear error."""
        try:
            return function(*arguments, **options)
        except NexusError:
            raise
        except Exception as error:
            fault = misfit(error, self._fault) if isinstance(error, TypeError | ValueError) else None
            raise raised(error, self._fault) if fault is None else fault from error

    def _require(self, observations: Array) -> None:
        require_shape(observations, self.shape, self.space.dtype, self._fault)
        require_finite(observations, self._fault)

    def _last_of(self, final: Array, done: Flags) -> Array:
        """Return the last observations of the episodes that ended; their shapes were not looked at yet."""
        for copy in np.flatnonzero(done):
            wrong = misshapen(final[copy], self.space)
            if wrong is not None:
                raise self._fault(int(copy), f"got {wrong}")
        return np.stack(list(final[done]))

    def _fault(self, copy: int | None, text: str) -> EnvError:
        which = "" if copy is None else f" copy {copy} of {self.num_envs},"
        own_seeds = copy is not None and isinstance(self.env.unwrapped, SyncVectorEnv | AsyncVectorEnv)
        seed = None if self.seed is None else self.seed + (copy or 0) * own_seeds  # of copy 3: three more
        seeded = "" if seed is None else f" seed {seed},"
        return EnvError(f"{self.name or name_of(self.env)}:{which}{seeded} step {self.steps}: {text}")


def name_of(env: VectorEnv[Any, Any, Any]) -> str:
    """Return the id of a vector environment, or the class of its copies."""
    if env.spec is not None:
        return env.spec.id
    copies = getattr(env.unwrapped, "envs", None)
    return type(copies[0].unwrapped if copies else env.unwrapped).__name__
