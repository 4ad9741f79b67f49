"""Evaluation: how well an agent plays, with every score tied to its protocol."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, Literal, Protocol, Self

import numpy as np
from gymnasium.vector import VectorEnv

from nexus.core.errors import ConfigError, RunError, one_line
from nexus.core.figures import figures
from nexus.core.types import Array
from nexus.envs.atari import AtariProtocol
from nexus.envs.factory import EnvSpec, make_vector_env, name_of
from nexus.envs.statistics import Statistics
from nexus.envs.stream import LONGEST_EPISODE, TransitionStream
from nexus.envs.workers import close_env
from nexus.ops.exploration import epsilon_greedy
from nexus.training.statistics import bootstrap_interval

__all__ = ["Evaluation", "EvaluationProtocol", "evaluate_policy", "long_evaluation", "said_of_gathering"]

LONG = 10_000  # steps of an evaluation after which a notice explains its length


class Actor(Protocol):
    """The part of an agent that an evaluation needs."""

    def act(self, states: Array, epsilon: float, training: bool, action_masks: Array | None) -> Array:
        """Return legal actions `[E]` for states `[E, *obs]`; greedy ones if not training and ε = 0."""


@dataclass(frozen=True)
class EvaluationProtocol:
    """The conditions under which episodes were played; scores under different protocols can't be compared."""

    env: str
    episodes: int
    epsilon: float
    seed: int
    max_episode_steps: int
    frame_skip: int
    frame_stack: int
    rules: AtariProtocol | None = None  # for an Atari game
    frame_size: int | None = None  # likewise; None is 84
    env_kwargs: Mapping[str, Any] = field(default_factory=dict)
    wrappers: tuple[str, ...] = ()

    def __str__(self) -> str:
        policy = "greedy" if self.epsilon == 0 else f"ε = {self.epsilon:g}"
        seen = "" if self.frame_size is None else f", {self.frame_size} x {self.frame_size} pixels"
        kwargs = "".join(f", {name}={value}" for name, value in self.env_kwargs.items())
        around = f", in {', '.join(self.wrappers)}" if self.wrappers else ""
        played = f"{policy}, {self.episodes} full episodes, unclipped rewards, seed {self.seed}{seen}{kwargs}{around}"
        if self.rules is not None:
            return f"{self.rules}; {played}"
        return (
            played
            if self.max_episode_steps == LONGEST_EPISODE
            else f"{played}, at most {self.max_episode_steps:,} steps each"
        )


@dataclass(frozen=True)
class Evaluation:
    """Undiscounted, unclipped returns of full episodes."""

    mean: float
    std: float
    low: float  # 95 % bootstrap interval of the mean
    high: float
    episodes: int
    mean_length: float
    returns: list[float]
    protocol: EvaluationProtocol
    cut: int = 0  # episodes cut off after the protocol's steps, counted with their return so far

    def to_mapping(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_mapping(cls, values: Any) -> Self:
        """Read the output of `to_mapping`.

        Raises:
            RunError: it is not an evaluation.
        """
        try:
            protocol = EvaluationProtocol(**values["protocol"])
            protocol = replace(protocol, wrappers=tuple(protocol.wrappers))  # JSON has lists only
            if protocol.rules is not None:
                protocol = replace(protocol, rules=AtariProtocol(**values["protocol"]["rules"]))
            read = cls(**{**values, "protocol": protocol})
        except (TypeError, KeyError) as error:
            raise RunError(f"can't read an evaluation: {one_line(error)}") from None
        return read

    def __str__(self) -> str:
        mean, std, low, high = figures(self.mean, self.std, self.low, self.high)
        return f"{mean} ± {std}, 95 % interval of the mean {low} to {high}{self.said_of_cuts}"

    @property
    def said_of_cuts(self) -> str:
        """Text on how many episodes were cut off, empty if none was."""
        if not self.cut:
            return ""
        return f"; {self.cut} of {self.episodes} episodes were cut off after {self.protocol.max_episode_steps:,} steps"


def evaluate_policy(
    agent: Actor,
    env: EnvSpec,
    episodes: int | None = None,
    *,
    epsilon: float | None = None,
    seed: int = 0,
    max_episode_steps: int = LONGEST_EPISODE,
    num_envs: int = 100,
    vectorization: Literal["auto", "sync", "async"] = "auto",
    step_timeout: float | None = None,
    watch: Callable[[int, int], None] | None = None,
    vector_env: VectorEnv[Any, Any, Any] | None = None,
    notice: Callable[[str], None] | None = None,
    statistics: Statistics | None = None,
) -> Evaluation:
    """Play full episodes and return their statistics; the agent's generators are not used.

    Episode k is reset with a seed that depends only on `seed` and k, and has a separate generator for random actions,
    so the number of sub-environments and how they are stepped do not matter. Number i of n plays the
    episodes i, i + n, i + 2n and so on: short episodes are not counted more often than long ones.

    Args:
        agent: the agent that acts.
        env: the environment, wrapped as in training.
        episodes: number of episodes; None for 100, or for the number in an Atari game's protocol.
        epsilon: probability of a random action; None for 0, the greedy policy, or the protocol's ε.
        seed: seed of the episodes; never the one used in training.
        max_episode_steps: an episode of this many steps is cut off and counts with its return so far.
        num_envs: most sub-environments; at most one per episode is made.
        vectorization: how they are stepped, as in `make_vector_env`.
        step_timeout: seconds for a step or reset of all together, if they run in processes.
        watch: called after each vector step with the steps so far and the number of finished episodes; an exception
            from it ends the evaluation.
        vector_env: an existing environment to play in; its episodes in progress are lost, and it stays open.
        notice: called with notices for the user about the environment.
        statistics: running statistics by which wrappers such as `NormalizeObservation` scale; None makes them gather
            their own during the evaluation.

    Raises:
        EnvError: the environment failed, or did not answer in time.
    """
    rules = env.rules
    if episodes is None:
        episodes = 100 if rules is None else rules.eval_episodes
    if epsilon is None:
        epsilon = 0.0 if rules is None else rules.eval_epsilon
    if rules is not None:
        max_episode_steps = min(max_episode_steps, rules.eval_frames // env.frame_skip)
    envs = evaluation_envs(env, min(episodes, num_envs), vectorization) if vector_env is None else vector_env
    stream = TransitionStream(envs, name_of(env.source), step_timeout, max_episode_steps, reseed_after=0)
    try:
        gathering = stream.freeze(statistics or {})
        returns, lengths, cut = play_episodes(stream, agent, episodes, epsilon, seed, watch)
    finally:
        if vector_env is None:
            close_env(envs)
    if notice is not None:
        for text in [*stream.pop_notices(), *map(partial(said_of_gathering, name_of(env.source)), gathering)]:
            notice(text)
    low, high = bootstrap_interval(returns)
    protocol = EvaluationProtocol(
        name_of(env.source),
        episodes,
        epsilon,
        seed,
        max_episode_steps,
        env.frame_skip,
        env.frame_stack,
        rules,
        env.frame_size,
        dict(env.kwargs),
        tuple(env.wrappers),
    )
    return Evaluation(
        float(np.mean(returns)),
        float(np.std(returns)),
        float(low),
        float(high),
        len(returns),
        float(np.mean(lengths)),
        returns,
        protocol,
        cut,
    )


def said_of_gathering(env: str, wrapper: str) -> str:
    """Return a notice that a wrapper scales observations by statistics of this evaluation only."""
    return (
        f"{env}: {wrapper} scales observations by statistics of this evaluation alone, since the agent has none "
        "for it, so scores are for inputs scaled differently than in training"
    )


def evaluation_envs(
    env: EnvSpec, count: int, vectorization: Literal["auto", "sync", "async"]
) -> VectorEnv[Any, Any, Any]:
    """Return this many sub-environments, or one if only one can be made: the episodes are the same."""
    try:
        return make_vector_env(env, count, vectorization)
    except ConfigError:
        if count == 1:
            raise
    return make_vector_env(env, 1, vectorization)


def long_evaluation(
    env: EnvSpec, steps: int, ended: int, episodes: int, max_episode_steps: int, setting: str = "eval_max_steps"
) -> str | None:
    """Return the notice, shown once, for an evaluation that takes long although no protocol requires it.

    Args:
        env: the environment.
        steps: vector steps so far.
        ended: episodes that have ended.
        episodes: episodes of the evaluation.
        max_episode_steps: steps after which an episode is cut off.
        setting: name of the setting for it.
    """
    if steps != LONG or steps >= max_episode_steps or env.rules is not None:
        return None
    return (
        f"the evaluation has taken {steps:,} steps, and {ended} of {episodes} episodes have ended: one without an end "
        f"is cut off after {max_episode_steps:,} steps; {setting} sets this limit"
    )


def play_episodes(
    stream: TransitionStream,
    agent: Actor,
    episodes: int,
    epsilon: float,
    seed: int,
    watch: Callable[[int, int], None] | None,
) -> tuple[list[float], list[int], int]:
    """Return the returns and lengths of the episodes, in order, and how many were cut off."""
    returns, lengths = np.zeros(episodes), np.zeros(episodes, int)
    numbers = np.arange(stream.num_envs)  # the episode that each sub-environment plays
    ended = steps = cut = 0
    coins = [coin_of(seed, number) for number in range(episodes)] if epsilon > 0 else []
    stream.reset(seed)
    while (numbers < episodes).any():
        actions = agent.act(stream.states, 0.0, False, stream.action_masks)
        if epsilon > 0:
            actions = explored(actions, epsilon, numbers, coins, stream)
        cut_before = stream.cut
        step = stream.step(actions)
        counted = numbers < episodes
        returns[numbers[counted]] += step.rewards[counted]
        lengths[numbers[counted]] += 1
        done = step.terminated | step.truncated
        if stream.cut > cut_before:
            cut += int((step.truncated & counted)[counted][lengths[numbers[counted]] == stream.longest].sum())
        numbers[done] += stream.num_envs
        steps, ended = steps + 1, ended + int((done & counted).sum())
        if watch is not None:
            watch(steps, ended)
    return returns.tolist(), lengths.tolist(), cut


def coin_of(seed: int, number: int) -> np.random.Generator:
    """Return the generator of one episode's random actions."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(number, 0)))


def explored(
    actions: Array, epsilon: float, numbers: Array, coins: list[np.random.Generator], stream: TransitionStream
) -> Array:
    """Return the actions `[E]`, replaced by random ones where the episode's coin decides so."""
    chosen = actions.copy()
    for index in np.flatnonzero(numbers < len(coins)):
        masks = None if stream.action_masks is None else stream.action_masks[index, None]
        rng = coins[numbers[index]]
        chosen[index] = epsilon_greedy(actions[index, None], stream.action_dim, epsilon, rng, masks)[0]
    return chosen
