"""Evaluation: how good an agent is, under a protocol that is said with every score."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Protocol, Self

import numpy as np

from nexus.core.errors import RunError, one_line
from nexus.core.types import Array
from nexus.envs.atari import AtariProtocol
from nexus.envs.factory import EnvSpec, make_vector_env, name_of
from nexus.envs.stream import TransitionStream
from nexus.envs.workers import close_env
from nexus.training.statistics import bootstrap_interval

__all__ = ["Evaluation", "EvaluationProtocol", "evaluate"]


class Actor(Protocol):
    """What an evaluation needs of an agent."""

    def act(self, states: Array, epsilon: float, training: bool, action_masks: Array | None) -> Array:
        """Return legal actions `[E]` for states `[E, *obs]`; not training means no noise beside ε."""


@dataclass(frozen=True)
class EvaluationProtocol:
    """How the episodes were played; scores under different protocols can't be compared."""

    env: str
    episodes: int
    epsilon: float
    seed: int
    max_episode_steps: int
    frame_skip: int
    frame_stack: int
    rules: AtariProtocol | None = None  # of an Atari game
    frame_size: int | None = None  # likewise; None is 84

    def __str__(self) -> str:
        policy = "greedy" if self.epsilon == 0 else f"ε = {self.epsilon:g}"
        seen = "" if self.frame_size is None else f", {self.frame_size} x {self.frame_size} pixels"
        played = f"{policy}, {self.episodes} full episodes, unclipped rewards, seed {self.seed}{seen}"
        return played if self.rules is None else f"{self.rules}; {played}"


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

    def to_mapping(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_mapping(cls, values: Any) -> Self:
        """Read what `to_mapping` gave.

        Raises:
            RunError: it is none.
        """
        try:
            protocol = EvaluationProtocol(**values["protocol"])
            if protocol.rules is not None:
                protocol = replace(protocol, rules=AtariProtocol(**values["protocol"]["rules"]))
            read = cls(**{**values, "protocol": protocol})
        except (TypeError, KeyError) as error:
            raise RunError(f"can't read an evaluation: {one_line(error)}") from None
        return read

    def __str__(self) -> str:
        return f"{self.mean:.1f} ± {self.std:.1f}, 95 % interval of the mean {self.low:.1f} to {self.high:.1f}"


def evaluate(
    agent: Actor,
    env: EnvSpec,
    episodes: int | None = None,
    *,
    epsilon: float | None = None,
    seed: int = 0,
    max_episode_steps: int = 100_000,
    num_envs: int = 100,
    vectorization: Literal["auto", "sync", "async"] = "auto",
    step_timeout: float | None = None,
) -> Evaluation:
    """Play full episodes and return their statistics.

    Each copy of the environment plays a fixed share of the episodes, so that short ones are not
    counted more often than long ones. An episode that passes `max_episode_steps` counts as it stands,
    and its copy plays no more.

    Args:
        agent: who acts.
        env: the environment as the agent was trained on.
        episodes: how many; None for 100, of an Atari game as many as its protocol says.
        epsilon: probability of a random action; None for 0, the greedy policy, or what the protocol says.
        seed: of the environments; never the one that training uses.
        max_episode_steps: for environments without a time limit of their own.
        num_envs: copies at most; none is made that would have no episode to play.
        vectorization: how they are stepped, as in `make_vector_env`.
        step_timeout: seconds for a step or reset of all copies together, where they are in processes.

    Raises:
        EnvError: the environment failed, or gave no answer in time.
    """
    rules = env.rules
    if episodes is None:
        episodes = 100 if rules is None else rules.eval_episodes
    if epsilon is None:
        epsilon = 0.0 if rules is None else rules.eval_epsilon
    if rules is not None:
        max_episode_steps = min(max_episode_steps, rules.eval_frames // env.frame_skip)
    num_envs = min(episodes, num_envs)
    vector_env = make_vector_env(env, num_envs, vectorization)
    stream = TransitionStream(vector_env, name_of(env.source), step_timeout)
    share = np.array([len(part) for part in np.array_split(np.arange(episodes), num_envs)])
    running_return, running_length = np.zeros(num_envs), np.zeros(num_envs, int)
    returns: list[float] = []
    lengths: list[int] = []
    try:
        stream.reset(seed)
        while share.any():
            step = stream.step(agent.act(stream.states, epsilon, False, stream.action_masks))
            running_return += step.rewards * step.valid
            running_length += step.valid
            too_long = running_length >= max_episode_steps
            ended = (step.terminated | step.truncated | too_long) & (share > 0)
            returns += running_return[ended].tolist()
            lengths += running_length[ended].tolist()
            share[ended] -= 1
            share[too_long] = 0
            running_return[step.terminated | step.truncated] = 0.0
            running_length[step.terminated | step.truncated] = 0
    finally:
        close_env(vector_env)
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
    )
