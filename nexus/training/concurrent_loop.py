"""The training loop with acting and learning at the same time, and the same result each time.

Daley and Amato 2021, https://arxiv.org/abs/2111.01264: a copy of the network plays on while the agent learns,
in a second thread, from what was played before. The two meet after every `actor_sync_every` steps. Neither reads
what the other writes in between, so nothing depends on which of them is quicker.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

from nexus.core.seeding import seed_at
from nexus.data.n_step import NStepAccumulator
from nexus.envs.stream import Step, TransitionStream
from nexus.training.config import TrainConfig
from nexus.training.loop import (
    Actor,
    Agent,
    Counters,
    Progress,
    Replay,
    UpdateResult,
    crossings,
    ends_here,
    learn,
    play,
    store,
)

__all__ = ["ConcurrentAgent", "FollowingActor", "train"]


class FollowingActor(Actor, Protocol):
    """Who acts as the agent did when it last followed it."""

    def follow(self) -> None:
        """Act as the agent would now; called while it does not learn."""


class ConcurrentAgent(Agent, Protocol):
    """What this loop needs of an agent."""

    def actor(self) -> FollowingActor:
        """Return an actor of the agent's own, which shares nothing with what learning reads or writes."""


@dataclass(frozen=True, slots=True)
class Played:
    """A vector step, not stored yet."""

    before: Counters
    after: Counters
    step: Step
    epsilon: float
    temperature: float
    barrier: bool


Span = tuple[Counters, Counters]  # before and after a vector step


class Learned(NamedTuple):
    """Updates so far, and the last one that an epoch brought, if any."""

    updates: int
    last: UpdateResult | None


def train(
    stream: TransitionStream, agent: ConcurrentAgent, replay: Replay, config: TrainConfig, counters: Counters
) -> Iterator[Progress]:
    """Train for `config.total_steps` steps; yields once per vector step, an epoch's steps together.

    As `loop.train`, and with as many updates, but that each epoch is learned from while the next one is played. While
    something is yielded, nobody learns; the last epoch before a barrier or the end is learned from before that.
    """
    accumulator = NStepAccumulator(stream.num_envs, config.n_step, config.gamma)
    actor = agent.actor()
    update: UpdateResult | None = None
    to_learn: list[Span] = []  # of the epoch before
    alone = True  # the first updates may record or compile, and must not meet another's work on a device
    stream.reset(seed_at(config.seed, "environments", counters.steps))
    with ThreadPoolExecutor(1, "learner") as thread:
        while counters.steps < config.total_steps:
            actor.follow()
            learning = thread.submit(learn_from, to_learn, agent, replay, config, counters.updates)
            if alone:
                alone = learning.result().last is None
            played = epoch(stream, actor, config, counters)
            learned = learning.result()
            update = learned.last or update

            for each in played:
                next_states = store(each.step, accumulator, replay, config)
                replay.anneal(each.after.steps / config.total_steps)
            to_learn, last = [(each.before, each.after) for each in played], played[-1]
            if last.barrier or last.after.steps >= config.total_steps:
                learned = learn_from(to_learn, agent, replay, config, learned.updates)
                update = learned.last or update
            if last.barrier:
                replay.add(accumulator.flush(next_states, last.step.next_action_masks))
                replay.barrier()
                stream.reset(seed_at(config.seed, "environments", last.after.steps))

            for each in played:
                before = replace(counters)
                counters.steps, counters.episodes = each.after.steps, each.after.episodes
                counters.updates = learned.updates
                agent.epsilon, agent.temperature = each.epsilon, each.temperature
                yield Progress(counters, before, each.step, each.epsilon, each.temperature, update, each.barrier)
            if last.barrier:
                to_learn, update = [], None


def epoch(stream: TransitionStream, actor: Actor, config: TrainConfig, counters: Counters) -> list[Played]:
    """Play until actors are to follow, a barrier is reached or the training ends; the counters stay as they are."""
    assert config.actor_sync_every is not None
    played: list[Played] = []
    now = replace(counters)
    while True:
        before = replace(now)
        step = play(stream, actor, config, now)
        barrier = ends_here(stream, config, before, now)
        played.append(Played(before, replace(now), step, actor.epsilon, actor.temperature, barrier))
        if barrier or now.steps >= config.total_steps or crossings(config.actor_sync_every, before, now):
            return played


def learn_from(spans: Sequence[Span], agent: Agent, replay: Replay, config: TrainConfig, updates: int) -> Learned:
    """Take the updates that fell due in each of these, after so many before."""
    update = None
    for before, after in spans:
        now = replace(after, updates=updates)
        update = learn(agent, replay, config, replace(before, updates=updates), now) or update
        updates = now.updates
    return Learned(updates, update)
