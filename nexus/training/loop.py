"""The training loop: env -> transition -> replay -> batch -> loss -> update -> target sync."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from nexus.core.period import Period
from nexus.core.seeding import seed_of
from nexus.core.types import Array, Batch, Outcome, Transitions
from nexus.data.n_step import NStepAccumulator
from nexus.data.protocols import Accumulator
from nexus.envs.stream import Step, TransitionStream
from nexus.training.config import TrainConfig

__all__ = [
    "Counters",
    "LearnerProtocol",
    "PolicyProtocol",
    "Progress",
    "ReplayProtocol",
    "StepSpan",
    "Taken",
    "UnderWay",
    "begun",
    "crossings",
    "learn",
    "play",
    "store",
    "train",
]


class PolicyProtocol(Protocol):
    """The interface of a policy that the loop needs."""

    epsilon: float
    temperature: float

    def begin(self, begins: Array) -> None:
        """Note where `[E]` the states of the next `act` are the first of an episode."""

    def act(self, states: Array, epsilon: float, training: bool, action_masks: Array | None) -> Array:
        """Return actions `[E]` for states `[E, *obs]`, legal ones if masks `[E, A]` are given."""


class LearnerProtocol(Protocol):
    """The interface of a learner that the loop needs."""

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The optimizer whose learning rate the loop sets."""

    def observe(self, states: Array, rewards: Array, begins: Array, valid: Array) -> None:
        """See a vector step before it is learned from: states `[E, *obs]`, rewards, which began, which acted `[E]`."""

    def learn(self, batch: Batch) -> Outcome:
        """Take one optimizer step."""

    def update_target_network(self) -> None:
        """Let θ⁻ follow θ."""


class ReplayProtocol(Protocol):
    """The interface of a replay that the loop needs."""

    def __len__(self) -> int: ...

    def remember(self, states: Array, next_states: Array, begins: Array, valid: Array) -> tuple[Array, Array]:
        """Return states and next states `[E, *obs]`, or numbers `[E]` that stand for them until they are stored."""

    def add(self, transitions: Transitions) -> None:
        """Store."""

    def sample(self, batch_size: int) -> Batch:
        """Draw a batch with its weights and indices."""

    def update_priorities(self, indices: Tensor, priorities: Tensor) -> None:
        """Set the new priorities of sampled transitions."""

    def anneal(self, fraction: float) -> None:
        """Update schedules to the progress of the training, from 0 to 1."""


@dataclass
class Counters:
    """How far a run has got."""

    steps: int = 0
    episodes: int = 0
    updates: int = 0


StepSpan = tuple[Counters, Counters]  # before and after a vector step


@dataclass
class UnderWay:
    """Unfinished work between two vector steps; needed to resume a training exactly."""

    accumulator: Accumulator
    next_states: Array | None = None  # [E, ...], the replay's form of the stream's states
    actions: Array | None = None  # [E], chosen but not taken, because an environment failed
    to_learn: list[StepSpan] = field(
        default_factory=list
    )  # stored but not learned from, in concurrent acting and learning


class Taken(NamedTuple):
    """An update: its batch and its outcome."""

    batch: Batch
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Progress:
    """What the loop yields after each vector step."""

    counters: Counters  # the loop's own counters, which keep changing
    before: Counters  # a snapshot before this step
    step: Step
    epsilon: float
    temperature: float
    last: Taken | None  # last update since the loop began
    sound: bool = True  # a run saved now resumes exactly

    @property
    def update(self) -> Outcome | None:
        """The outcome of the last update; None before the first."""
        return None if self.last is None else self.last.outcome

    @property
    def batch(self) -> Batch | None:
        """The batch of the last update; None before the first."""
        return None if self.last is None else self.last.batch

    def due(self, period: Period | None) -> bool:
        """True if a multiple of the period was reached by this step."""
        return period is not None and crossings(period, self.before, self.counters) > 0


def train(
    stream: TransitionStream,
    policy: PolicyProtocol,
    learner: LearnerProtocol,
    replay: ReplayProtocol,
    config: TrainConfig,
    counters: Counters,
    under_way: UnderWay | None = None,
) -> Iterator[Progress]:
    """Train for `config.total_steps` steps; yields once per vector step.

    Evaluating, logging and saving are left to the caller. Closing the generator stops the training.
    Given the saved stream, counters and unfinished work, it continues as if never interrupted.
    """
    under_way = begun(stream, config, under_way)
    last = None
    while counters.steps < config.total_steps:
        before = replace(counters)
        step = play(stream, policy, config, counters, under_way)
        store(step, under_way, learner, replay, config)
        replay.anneal(counters.steps / config.total_steps)
        last = learn(learner, replay, config, before, counters) or last
        yield Progress(counters, before, step, policy.epsilon, policy.temperature, last)


def begun(stream: TransitionStream, config: TrainConfig, under_way: UnderWay | None) -> UnderWay:
    """Begin the first episodes unless some are in progress; return the unfinished work."""
    if not stream.begun:
        stream.reset(seed_of(config.seed, "environments"))
    return under_way or UnderWay(NStepAccumulator(stream.num_envs, config.n_step, config.gamma))


def play(
    stream: TransitionStream, policy: PolicyProtocol, config: TrainConfig, counters: Counters, under_way: UnderWay
) -> Step:
    """Act and step every environment once; each draws its own coin."""
    policy.epsilon = config.epsilon_at(counters.steps, counters.episodes)
    policy.temperature = config.temperature_at(counters.steps, counters.episodes)
    if under_way.actions is None:
        policy.begin(stream.begins)
        under_way.actions = policy.act(stream.states, policy.epsilon, True, stream.action_masks)
    step = stream.step(under_way.actions)
    under_way.actions = None
    counters.steps += int(step.valid.sum())
    counters.episodes += int((step.terminated | step.truncated).sum())
    return step


def store(
    step: Step, under_way: UnderWay, learner: LearnerProtocol, replay: ReplayProtocol, config: TrainConfig
) -> None:
    """Show a step to the learner, fold it into n-step transitions and store them.

    A replay of frames stores the frames and passes on numbers in their place.
    """
    rewards = step.learned_rewards(config.reward_clip)
    learner.observe(step.states, rewards, step.begins, step.valid)
    states, under_way.next_states = replay.remember(step.states, step.next_states, step.begins, step.valid)
    replay.add(
        under_way.accumulator.push(
            states,
            step.actions,
            rewards,
            under_way.next_states,
            step.terminal,
            step.truncated,
            step.valid,
            step.action_masks,
            step.next_action_masks,
        )
    )


def learn(
    learner: LearnerProtocol, replay: ReplayProtocol, config: TrainConfig, before: Counters, counters: Counters
) -> Taken | None:
    """Take the updates that are due between two moments, and update the target network; return the last update."""
    last = None
    for _ in range(updates_due(config, before, counters) if len(replay) else 0):
        set_learning_rate(learner.optimizer, config.learning_rate_at(counters.steps, counters.updates))
        batch = replay.sample(config.batch_size)
        outcome = learner.learn(batch)
        replay.update_priorities(batch["indices"], outcome.priorities)
        last = Taken(batch, outcome)
        counters.updates += 1
        # A target network with a period in updates follows in between.
        if config.target_update_every.unit == "updates" and counters.updates % config.target_update_every.count == 0:
            learner.update_target_network()

    # One with a period in steps or episodes follows here, possibly several times: a vector step counts as many steps.
    if config.target_update_every.unit != "updates":
        for _ in range(crossings(config.target_update_every, before, counters)):
            learner.update_target_network()
    return last


def crossings(period: Period, before: Counters, after: Counters) -> int:
    """Return how many multiples of the period lie between two moments, in the period's unit."""
    return period.crossings(getattr(before, period.unit), getattr(after, period.unit))


def updates_due(config: TrainConfig, before: Counters, after: Counters) -> int:
    """Return the number of updates due in this step: none until `learning_starts`."""
    if after.steps <= config.learning_starts:
        return 0
    return crossings(config.update_period, before, after) * config.gradient_steps


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Set the step size of every parameter group."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
