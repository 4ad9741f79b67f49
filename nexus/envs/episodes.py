"""An episode is a seed and its actions: enough to restore an environment without access to its internal state.

Each episode is reset with a separate seed, and `ActionLog` records the actions since. A checkpoint saves both. To
resume, `reset` gets the seeds and, as the option `ACTIONS_OPTION`, the actions to replay at once: `Replayable` replays
them inside each sub-environment, in whichever process it runs. Vector environments that step all of theirs together use
`play_aligned`. Wrappers with running statistics start from those at that reset, option `STATISTICS_OPTION`.

In a curriculum an episode has a stage as well, option `STAGES_OPTION`; the stream asks a `StageChooser` for it.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import gymnasium as gym
import numpy as np
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from gymnasium.vector import AutoresetMode

from nexus.core.errors import RunError
from nexus.core.state import State, array_from, value_from
from nexus.core.types import Array, Flags, Ints
from nexus.envs.checks import Fault
from nexus.envs.statistics import Running, Statistics, of_rewards

__all__ = [
    "ACTIONS_OPTION",
    "BEGUN",
    "GO_ON_OPTION",
    "RESET_MASK",
    "STAGES_OPTION",
    "STATISTICS_OPTION",
    "STRAYED",
    "ActionLog",
    "Begun",
    "EndedEpisode",
    "Replayable",
    "SeededCartPole",
    "StageChooser",
    "StageReport",
    "episode_seed",
    "play_aligned",
    "seeds_for",
]

RESET_MASK = "reset_mask"  # Gymnasium's option of `reset`: which sub-environments to reset, [E]
ACTIONS_OPTION = "nexus_actions"  # our option of `reset`: the actions [T_i] to replay in each sub-environment
STATISTICS_OPTION = "nexus_statistics"  # likewise: the running statistics to start from
GO_ON_OPTION = "nexus_go_on"  # of a single Atari game: begin the game that follows the last one, without a seed
STAGES_OPTION = "nexus_stages"  # likewise: the stage of a curriculum [E] that the next episode is from
BEGUN = "nexus_begun"  # in the info of a reset with a seed: a `Begun`
STRAYED = "nexus_strayed"  # in the info of such a reset: the episode ended or raised before its actions were replayed
ROOM = 1_024  # initial capacity of a log in steps

Seeds = list[int | None]


def episode_seed(root: int, number: int) -> int:
    """Return the 31-bit seed of an episode, derived from the common seed and the episode's number."""
    return int(np.random.SeedSequence(root, spawn_key=(number,)).generate_state(1)[0] >> 1)


def seeds_for(seed: int | Seeds | None, num_envs: int) -> Seeds:
    """Return a seed or None for each sub-environment, as Gymnasium interprets the argument of `reset`."""
    if seed is None or isinstance(seed, int):
        return [None if seed is None else seed + env for env in range(num_envs)]
    return seed


class Begun(NamedTuple):
    """The running statistics at the start of an episode; an object, so that vectors do not split it."""

    statistics: Statistics


class EndedEpisode(NamedTuple):
    """An episode that has ended: what it takes to play it again."""

    env: int  # its sub-environment
    seed: int | None  # None if it continues with the generator of the episode before it in this sub-environment
    actions: Ints  # [T]
    statistics: Statistics  # the running statistics that scaled rewards at its start; empty without such a wrapper


class StageReport(NamedTuple):
    """A vector step in a curriculum. Stages are counted from 0."""

    stages: Ints  # [E], of the episodes the step belongs to
    current: int  # after the step
    success: float | None  # of the last episodes of the current stage; None before the first
    news: tuple[str, ...]  # a line for each change of stage


class StageChooser(Protocol):
    """Decides which stage of a curriculum the next episodes are from."""

    stages: Ints  # [E], of the episodes in progress

    def observe(self, rewards: Array, ended: Flags, too_long: Flags, info: dict[str, Any], fault: Fault) -> StageReport:
        """See a vector step: rewards, where an episode ended, where only for its length, `[E]` each, and the info.

        It can raise `fault`.
        """

    def choose(self, which: Flags) -> Ints:
        """Choose the stages of the episodes that begin in these environments `[E]`; return those of all `[E]`."""

    def get_state(self) -> State:
        """Return the state needed to resume exactly."""

    def set_state(self, state: State) -> None:
        """Restore what `get_state` returned."""


class ActionLog:
    """The last seed of each sub-environment, and every action since.

    Args:
        num_envs: sub-environments `E`.
        action_dim: number of actions `A`.
    """

    def __init__(self, num_envs: int, action_dim: int) -> None:
        self.num_envs = num_envs
        self.action_dim = action_dim
        self.seeds: Ints = np.zeros(num_envs, np.int64)
        self.numbers: Ints = np.zeros(num_envs, np.int64)  # episodes begun by each, minus one
        self._begins: Ints = np.zeros(num_envs, np.int64)  # each one's first row of `_actions`
        self._rows = 0
        self._actions = np.zeros((ROOM, num_envs), np.min_scalar_type(max(action_dim - 1, 1)))

    @property
    def lengths(self) -> Ints:
        """Actions `[E]` since the last seed."""
        return self._rows - self._begins

    def begin(self, which: Flags, seeds: Seeds) -> None:
        """Record that these sub-environments were reset with these seeds, `[E]` each."""
        for env in np.flatnonzero(which):
            seed = seeds[env]
            self.seeds[env] = -1 if seed is None else seed
        self._begins[which] = self._rows

    def add(self, actions: Array) -> None:
        """Record one action `[E]` in each."""
        if self._rows == len(self._actions):
            self._make_room()
        self._actions[self._rows] = actions
        self._rows += 1

    def actions_of(self, env: int) -> Array:
        """Return the actions `[T]` since the last seed of one sub-environment."""
        return self._actions[self._begins[env] : self._rows, env].astype(np.int64)

    def ended(self, done: Flags, lengths: Ints, begun: Sequence[Statistics]) -> tuple[EndedEpisode, ...]:
        """Return the episodes that end now; call it before `begin`.

        Args:
            done: `[E]`, where an episode ends.
            lengths: `[E]`, the steps of each sub-environment's episode.
            begun: `[E]`, the running statistics at each one's last seed.
        """
        found = []
        for env in np.flatnonzero(done).tolist():
            since, length = self.actions_of(env), int(lengths[env])
            seed = int(self.seeds[env]) if len(since) == length else None
            found.append(EndedEpisode(env, seed, since[len(since) - length :], of_rewards(begun[env])))
        return tuple(found)

    def _make_room(self) -> None:
        """Drop rows no longer needed, or double the capacity if half of them are needed."""
        oldest = int(self._begins.min())
        kept = self._actions[oldest:]
        room = len(self._actions) * (2 if len(kept) > len(self._actions) // 2 else 1)
        self._actions = np.zeros((room, self.num_envs), self._actions.dtype)
        self._actions[: len(kept)] = kept
        self._begins -= oldest
        self._rows -= oldest

    def get_state(self) -> State:
        """Return seeds, numbers and actions, concatenated over sub-environments."""
        actions = [self.actions_of(env) for env in range(self.num_envs)]
        return {
            "seeds": self.seeds.copy(),
            "numbers": self.numbers.copy(),
            "lengths": self.lengths,
            "actions": np.concatenate(actions).astype(self._actions.dtype),  # the smallest dtype that holds them
        }

    def set_state(self, state: State) -> None:
        """Restore what `get_state` returned.

        Raises:
            RunError: something is missing or does not fit.
        """
        seeds, numbers, lengths = (array_from(state, name, self.seeds) for name in ("seeds", "numbers", "lengths"))
        size = value_from(state, "actions", np.ndarray).size
        actions = array_from(state, "actions", np.empty(size, self._actions.dtype))
        if min(seeds.min(), numbers.min(), lengths.min()) < 0 or lengths.sum() != actions.size:
            raise RunError("the unfinished episodes do not fit: the number of their actions differs from their lengths")
        if actions.size and not 0 <= actions.min() <= actions.max() < self.action_dim:
            raise RunError(f"the unfinished episodes have actions beyond 0 to {self.action_dim - 1}")
        self._rows = int(lengths.max())
        self._actions = np.zeros((max(ROOM, self._rows), self.num_envs), self._actions.dtype)
        self.seeds, self.numbers, self._begins = seeds.copy(), numbers.copy(), self._rows - lengths
        ends = np.cumsum(lengths)
        for env, (end, length) in enumerate(zip(ends, lengths, strict=True)):
            self._actions[self._rows - length : self._rows, env] = actions[end - length : end]


class Replayable(gym.Wrapper[Any, Any, Any, Any]):
    """A sub-environment that can be restored to the middle of an episode.

    Args:
        env: the environment.
        index: its index among the vector's sub-environments.
    """

    def __init__(self, env: gym.Env[Any, Any], index: int) -> None:
        super().__init__(env)
        self.index = index
        self.running = Running(env)

    def nexus_statistics(self) -> Statistics:
        """Return the current running statistics; vectors call this by name."""
        return self.running.get()

    def nexus_freeze(self, statistics: Statistics) -> list[str]:
        """Make wrappers scale by these; return the classes that still scale observations by their own statistics."""
        self.running.freeze(statistics)
        return self.running.kinds("observation")

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset to the option's `STATISTICS_OPTION`, and replay this sub-environment's `ACTIONS_OPTION`.

        After a reset with a seed, the info holds the running statistics it started from, if any.
        """
        rest = dict(options or {})
        actions, statistics = rest.pop(ACTIONS_OPTION, None), rest.pop(STATISTICS_OPTION, None)
        if statistics is not None:
            self.running.put(statistics[self.index])
        begun = {BEGUN: Begun(self.running.get())} if seed is not None and self.running.layers else {}
        observation, info = self.env.reset(seed=seed, options=rest or None)
        if actions is not None:
            observation, info = self._played(observation, info, actions[self.index])
        return observation, {**info, **begun} if begun else info

    def _played(self, observation: Any, info: dict[str, Any], actions: Array) -> tuple[Any, dict[str, Any]]:
        """Replay actions that did not end the episode; if one now does, begin a new episode and report it."""
        try:
            for action in actions:
                observation, _, terminated, truncated, info = self.env.step(action)
                if terminated or truncated:
                    break
            else:
                return observation, info
        except Exception:
            pass  # an environment that is not reproducible may also receive an action it rejects
        observation, info = self.env.reset()
        return observation, {**info, STRAYED: True}


def play_aligned(
    actions: list[Array], seeds: Seeds, begin: Callable[[Flags, Seeds], object], step: Callable[[Array], object]
) -> None:
    """Replay episodes so that all finish at the same vector step, in a vector that steps all sub-environments together.

    Each begins when the remaining steps equal its number of actions. Until then action 0 is played and discarded.

    Args:
        actions: actions `[T_i]` of each sub-environment.
        seeds: `[E]`, the seeds of their resets.
        begin: resets some of them, given a mask `[E]` and the seeds `[E]`.
        step: takes one action `[E]` in each.
    """
    lengths = np.array([len(own) for own in actions])
    for left in range(int(lengths.max()), -1, -1):
        if (lengths == left).any():
            begin(lengths == left, seeds)
        if left:
            step(np.array([own[-left] if len(own) >= left else 0 for own in actions], np.int64))


class SeededCartPole(CartPoleVectorEnv):
    """Gymnasium's vectorised CartPole, with each pole resettable by a separate seed.

    Its episodes are identical to those of a single `CartPole-v1` with the same seed.
    """

    metadata: dict[str, Any] = {**CartPoleVectorEnv.metadata, "autoreset_mode": AutoresetMode.DISABLED}  # noqa: RUF012
    state: Any

    def reset(
        self,
        *,
        seed: int | Seeds | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """Reset the poles of the option `RESET_MASK`, or all, and replay their `ACTIONS_OPTION` if given."""
        rest = dict(options or {})
        which, actions = rest.pop(RESET_MASK, np.ones(self.num_envs, bool)), rest.pop(ACTIONS_OPTION, None)
        if self.state is None:
            super().reset(seed=None, options=rest)
        seeds = seeds_for(seed, self.num_envs)
        if actions is None:
            self._begin(which, seeds)
        else:
            play_aligned(actions, seeds, self._begin, self.step)
        return self.state.T.astype(np.float32), {}

    def _begin(self, which: Flags, seeds: Seeds) -> None:
        for pole in np.flatnonzero(which):
            rng = self.np_random if seeds[pole] is None else np.random.default_rng(seeds[pole])
            self.state[:, pole] = rng.uniform(self.low, self.high, size=4)
        self.steps[which] = 0
        self.prev_done[which] = False
