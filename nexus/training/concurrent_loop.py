"""The training loop with concurrent acting and learning, and reproducible results.

Daley and Amato 2021, https://arxiv.org/abs/2111.01264: a copy of the network keeps playing while the agent learns
in a second thread from earlier steps. The two synchronise after every `actor_sync_every` steps. In between, neither
reads what the other writes, so the result does not depend on timing.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

from nexus.envs.stream import Step, TransitionStream
from nexus.training.config import TrainConfig
from nexus.training.loop import (
    Counters,
    LearnerProtocol,
    PolicyProtocol,
    Progress,
    ReplayProtocol,
    StepSpan,
    Taken,
    UnderWay,
    begun,
    crossings,
    learn,
    play,
    store,
)

__all__ = ["FollowedPolicy", "FollowerProtocol", "train"]


class FollowerProtocol(PolicyProtocol, Protocol):
    """A policy that acts as another one did at the last `follow`."""

    def follow(self) -> None:
        """Copy the followed policy's current behaviour; called while its learner waits."""


class FollowedPolicy(PolicyProtocol, Protocol):
    """The interface of a policy that this loop needs."""

    def follower(self) -> FollowerProtocol:
        """Return a follower, which shares no data that learning reads or writes."""


@dataclass(frozen=True, slots=True)
class Played:
    """A vector step, not stored yet."""

    before: Counters
    after: Counters
    step: Step
    epsilon: float
    temperature: float


class EpochUpdates(NamedTuple):
    """The number of updates so far, and the last update of an epoch, if any."""

    updates: int
    last: Taken | None


def train(
    stream: TransitionStream,
    policy: FollowedPolicy,
    learner: LearnerProtocol,
    replay: ReplayProtocol,
    config: TrainConfig,
    counters: Counters,
    under_way: UnderWay | None = None,
) -> Iterator[Progress]:
    """Train for `config.total_steps` steps; yields once per vector step, an epoch's steps together.

    Like `loop.train` with the same number of updates, but each epoch is learned while the next one is played, and the
    last one at the end. No learning happens during a yield; a run saved at an epoch's last step resumes
    exactly.
    """
    under_way = begun(stream, config, under_way)
    follower = policy.follower()
    last: Taken | None = None
    alone = True  # the first updates may record or compile, so nothing else may use the device meanwhile
    with ThreadPoolExecutor(1, "learner") as thread:
        while counters.steps < config.total_steps:
            follower.follow()
            learning = thread.submit(learn_from, under_way.to_learn, learner, replay, config, counters.updates)
            if alone:
                alone = learning.result().last is None
            played = epoch(stream, follower, config, counters, under_way)
            learned = learning.result()
            last = learned.last or last

            for each in played:
                store(each.step, under_way, learner, replay, config)
                replay.anneal(each.after.steps / config.total_steps)
            under_way.to_learn = [(each.before, each.after) for each in played]
            if played[-1].after.steps >= config.total_steps:
                learned = learn_from(under_way.to_learn, learner, replay, config, learned.updates)
                last, under_way.to_learn = learned.last or last, []

            for each in played:
                before = replace(counters)
                counters.steps, counters.episodes = each.after.steps, each.after.episodes
                counters.updates = learned.updates
                policy.epsilon, policy.temperature = each.epsilon, each.temperature
                sound = each is played[-1]
                yield Progress(counters, before, each.step, each.epsilon, each.temperature, last, sound)


def epoch(
    stream: TransitionStream, policy: PolicyProtocol, config: TrainConfig, counters: Counters, under_way: UnderWay
) -> list[Played]:
    """Play until the next synchronisation or the end of training; leave the counters unchanged."""
    assert config.actor_sync_every is not None
    played: list[Played] = []
    now = replace(counters)
    while True:
        before = replace(now)
        step = play(stream, policy, config, now, under_way)
        played.append(Played(before, replace(now), step, policy.epsilon, policy.temperature))
        if now.steps >= config.total_steps or crossings(config.actor_sync_every, before, now):
            return played


def learn_from(
    spans: Sequence[StepSpan], learner: LearnerProtocol, replay: ReplayProtocol, config: TrainConfig, updates: int
) -> EpochUpdates:
    """Take the updates due in each of these spans, starting from this count of earlier ones."""
    last = None
    for before, after in spans:
        now = replace(after, updates=updates)
        last = learn(learner, replay, config, replace(before, updates=updates), now) or last
        updates = now.updates
    return EpochUpdates(updates, last)
