"""The one place that knows autoreset: vector environments in, true transitions out."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray

from nexus.core.errors import EnvError
from nexus.core.types import Array
from nexus.envs.action_masks import KEY, read_action_masks
from nexus.envs.atari import LIFE_LOST
from nexus.envs.checks import misfit, require_finite, require_rewards

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

    Raises:
        EnvError: (`reset`, `step`) a reward or an observation is no finite number, or an action mask is impossible;
            names the environment, the copy and the step.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any], name: str | None = None) -> None:
        self.env = env
        self.name = name
        self.num_envs = env.num_envs
        self.mode = AutoresetMode(env.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP))
        self.action_dim = int(getattr(env.single_action_space, "n", 0))
        self.states: Array = np.empty(0)
        self.action_masks: Flags | None = None
        self.steps = 0  # vector steps since the last reset
        self._resetting = np.zeros(self.num_envs, bool)
        self._begins = np.ones(self.num_envs, bool)

    def reset(self, seed: int | None = None) -> Array:
        """Start every environment anew and return the first states `[E, *obs]`."""
        self.steps = 0
        self.states, info = self._call(self.env.reset, seed=seed)
        require_finite(self.states, self._fault)
        self.action_masks = self._read(info, np.ones(self.num_envs, bool)) if KEY in info else None
        self._resetting = np.zeros(self.num_envs, bool)
        self._begins = np.ones(self.num_envs, bool)
        return self.states

    def step(self, actions: Array) -> Step:
        """Take one action `[E]` in each environment."""
        states, action_masks, valid, begins = self.states, self.action_masks, ~self._resetting, self._begins
        self.steps += 1
        observations, rewards, terminated, truncated, info = self._call(self.env.step, actions)
        rewards = require_rewards(rewards, self.num_envs, self._fault)
        require_finite(observations, self._fault)
        done = terminated | truncated
        next_states, reset_info = observations, info
        if self.mode is AutoresetMode.NEXT_STEP:
            self._resetting = done
        elif done.any():
            next_states = observations.copy()
            if self.mode is AutoresetMode.SAME_STEP:
                next_states[done] = np.stack(list(info["final_obs"][done]))
            else:
                observations, reset_info = self._call(self.env.reset, options={"reset_mask": done})
            require_finite(next_states, self._fault)
            require_finite(observations, self._fault)
        self._begins = ~valid if self.mode is AutoresetMode.NEXT_STEP else done
        self.states = observations
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
            info.get(LIFE_LOST),
        )

    def _follow_masks(self, info: dict[str, Any], reset_info: dict[str, Any], terminated: Flags, done: Flags) -> Flags:
        """Return the masks of the next states; keep those of the states that the next actions are for."""
        if self.action_masks is None:
            raise self._fault(0, f"an {KEY} in its info, but there was none at reset: needs one there too")
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
        """Call the vector environment; what it can't stack of its copies' answers is one clear error."""
        try:
            return function(*arguments, **options)
        except (TypeError, ValueError) as error:
            fault = misfit(error, self._fault)
            if fault is None:
                raise
            raise fault from error

    def _fault(self, copy: int | None, text: str) -> EnvError:
        which = "" if copy is None else f" copy {copy} of {self.num_envs},"
        return EnvError(f"{self.name or name_of(self.env)}:{which} step {self.steps}: got {text}")


def name_of(env: VectorEnv[Any, Any, Any]) -> str:
    """Return the id of a vector environment, or the class of its copies."""
    if env.spec is not None:
        return env.spec.id
    copies = getattr(env.unwrapped, "envs", None)
    return type(copies[0].unwrapped if copies else env.unwrapped).__name__
