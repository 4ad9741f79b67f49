"""The training loop: env -> transition -> replay -> batch -> loss -> update -> target sync."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from nexus.core.period import Period
from nexus.core.seeding import seed_at
from nexus.core.types import Array, Batch, Transitions
from nexus.data.n_step import NStepAccumulator
from nexus.envs.stream import Step, TransitionStream
from nexus.training.config import TrainConfig

__all__ = [
    "Actor",
    "Agent",
    "Counters",
    "Progress",
    "Replay",
    "UpdateResult",
    "crossings",
    "ends_here",
    "learn",
    "play",
    "store",
    "train",
]


class UpdateResult(Protocol):
    """What an update tells: the new priorities of its batch `[B]`, and metrics as scalar tensors."""

    priorities: Tensor

    def __getitem__(self, name: str) -> Tensor:
        """Return one metric, `loss` and `grad_norm` among them."""

    def items(self) -> Iterable[tuple[str, Tensor]]:
        """Return the metrics by name."""


class Actor(Protocol):
    """Who acts."""

    epsilon: float
    temperature: float

    def act(self, states: Array, epsilon: float, training: bool, action_masks: Array | None) -> Array:
        """Return actions `[E]` for states `[E, *obs]`, legal ones where masks `[E, A]` tell which they are."""


class Agent(Actor, Protocol):
    """What the loop needs of an agent."""

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """Whose learning rate the loop sets."""

    def learn(self, batch: Batch) -> UpdateResult:
        """Take one optimizer step."""

    def update_target_network(self) -> None:
        """Let θ⁻ follow θ."""


class Replay(Protocol):
    """What the loop needs of a replay."""

    def __len__(self) -> int: ...

    def remember(self, states: Array, next_states: Array, begins: Array, valid: Array) -> tuple[Array, Array]:
        """Return states and next states `[E, *obs]`, or numbers `[E]` that stand for them on their way."""

    def add(self, transitions: Transitions) -> None:
        """Store."""

    def barrier(self) -> None:
        """Take note that all environments begin anew and no window is open: what is stored now stays as it is."""

    def sample(self, batch_size: int) -> Batch:
        """Draw a batch with its weights and indices."""

    def update_priorities(self, indices: Tensor, priorities: Tensor) -> None:
        """Tell how surprising each sampled transition was."""

    def anneal(self, fraction: float) -> None:
        """Tell how far the training has come, from 0 to 1."""


@dataclass
class Counters:
    """How far a run has come."""

    steps: int = 0
    episodes: int = 0
    updates: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """What the loop yields after each vector step."""

    counters: Counters  # the loop's own: it moves on
    before: Counters  # as they were before this step
    step: Step
    epsilon: float
    temperature: float
    update: UpdateResult | None  # the last one since the last barrier
    barrier: bool = False  # nothing is under way: what is saved now continues exactly

    def due(self, period: Period | None) -> bool:
        """True if a multiple of the period was reached by this step."""
        return period is not None and crossings(period, self.before, self.counters) > 0


def train(
    stream: TransitionStream, agent: Agent, replay: Replay, config: TrainConfig, counters: Counters
) -> Iterator[Progress]:
    """Train for `config.total_steps` steps; yields once per vector step.

    Evaluating, logging and saving belong to whoever iterates. Closing the generator stops the training.
    Counters that begin at a barrier, with what was saved there, go on as if nothing had happened.
    """
    accumulator = NStepAccumulator(stream.num_envs, config.n_step, config.gamma)
    update = None
    stream.reset(seed_at(config.seed, "environments", counters.steps))
    while counters.steps < config.total_steps:
        before = replace(counters)
        step = play(stream, agent, config, counters)
        next_states = store(step, accumulator, replay, config)
        replay.anneal(counters.steps / config.total_steps)
        update = learn(agent, replay, config, before, counters) or update

        # Barrier: no environment can save its inner state, so all begin anew; whoever resumes begins here likewise.
        barrier = ends_here(stream, config, before, counters)
        if barrier:
            replay.add(accumulator.flush(next_states, step.next_action_masks))
            replay.barrier()
            stream.reset(seed_at(config.seed, "environments", counters.steps))

        yield Progress(counters, before, step, agent.epsilon, agent.temperature, update, barrier)
        update = None if barrier else update


def play(stream: TransitionStream, actor: Actor, config: TrainConfig, counters: Counters) -> Step:
    """Act and step every environment once; each draws its own coin."""
    actor.epsilon = config.epsilon_at(counters.steps, counters.episodes)
    actor.temperature = config.temperature_at(counters.steps, counters.episodes)
    step = stream.step(actor.act(stream.states, actor.epsilon, True, stream.action_masks))
    counters.steps += int(step.valid.sum())
    counters.episodes += int((step.terminated | step.truncated).sum())
    return step


def store(step: Step, accumulator: NStepAccumulator, replay: Replay, config: TrainConfig) -> Array:
    """Fold a step into n-step transitions and store them; return what stands for its next states.

    A replay of frames keeps the frames and lets numbers go on in their place.
    """
    states, next_states = replay.remember(step.states, step.next_states, step.begins, step.valid)
    replay.add(
        accumulator.push(
            states,
            step.actions,
            clip(step.rewards, config.reward_clip),
            next_states,
            step.terminal,
            step.truncated,
            step.valid,
            step.action_masks,
            step.next_action_masks,
        )
    )
    return next_states


def learn(
    agent: Agent, replay: Replay, config: TrainConfig, before: Counters, counters: Counters
) -> UpdateResult | None:
    """Take the updates that are due between two moments, and let the target network follow; return the last update."""
    update = None
    for _ in range(updates_due(config, before, counters) if len(replay) else 0):
        set_learning_rate(agent.optimizer, config.learning_rate_at(counters.steps, counters.updates))
        batch = replay.sample(config.batch_size)
        update = agent.learn(batch)
        replay.update_priorities(batch["indices"], update.priorities)
        counters.updates += 1
        # A target network that counts updates follows in between.
        if config.target_update_every.unit == "updates" and counters.updates % config.target_update_every.count == 0:
            agent.update_target_network()

    # One that counts steps or episodes follows here.
    if config.target_update_every.unit != "updates" and crossings(config.target_update_every, before, counters):
        agent.update_target_network()
    return update


def ends_here(stream: TransitionStream, config: TrainConfig, before: Counters, counters: Counters) -> bool:
    """Ask for a barrier where a checkpoint is due, and return whether one is reached.

    Episodes under way are finished first, as far as one more period allows: long ones would else never end.
    """
    if config.checkpoint_every is not None and crossings(config.checkpoint_every, before, counters) > 0:
        stream.finish_episodes(patience=config.checkpoint_every.count // stream.num_envs)
    return stream.finished or (stream.finishing and counters.steps >= config.total_steps)


def crossings(period: Period, before: Counters, after: Counters) -> int:
    """How many multiples of the period lie between two moments, in its own unit."""
    return period.crossings(getattr(before, period.unit), getattr(after, period.unit))


def updates_due(config: TrainConfig, before: Counters, after: Counters) -> int:
    """How many updates this step brings: none until `learning_starts`."""
    return crossings(config.update_every, before, after) * config.updates_each * (after.steps > config.learning_starts)


def clip(rewards: Array, size: float | None) -> Array:
    """Clip each reward before it is folded, so that an n-step reward can reach n times the size."""
    return rewards if size is None else np.clip(rewards, -size, size)


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Set the step size of every parameter group."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
