"""The loop in slow motion: a made environment, an agent that writes down what it is asked, exact counts."""

from typing import Any, SupportsInt

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torch import Tensor

from nexus.core.period import Period
from nexus.core.types import Array, Batch, Outcome
from nexus.data.replay_buffer import ReplayBuffer
from nexus.envs.stream import TransitionStream
from nexus.training.config import TrainConfig
from nexus.training.loop import Counters, Progress, train

EPISODE = 5


class FiveSteps(gym.Env[Array, SupportsInt]):
    """Episodes of five steps that pay 7 each."""

    observation_space = spaces.Box(0, 100, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        super().reset(seed=seed)
        self.at = 0
        return np.array([0], np.float32), {}

    def step(self, action: SupportsInt) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        self.at += 1
        return np.array([self.at], np.float32), 7.0, self.at == EPISODE, False, {}


def result(count: int) -> Outcome:
    return Outcome(torch.zeros(()), torch.full((count,), 3.0), {})


class Witness:
    """An agent that learns nothing and remembers every call."""

    def __init__(self) -> None:
        self.epsilon = self.temperature = 0.0
        self.optimizer: torch.optim.Optimizer = torch.optim.SGD([torch.zeros(1)], lr=9.0)
        self.calls: list[str] = []
        self.begun: list[list[bool]] = []
        self.observed: list[tuple[Array, Array, Array, Array]] = []
        self.epsilons: list[float] = []
        self.learning_rates: list[float] = []

    def begin(self, begins: Array) -> None:
        self.begun.append(begins.tolist())

    def act(self, states: Array, epsilon: float, training: bool, action_masks: Array | None) -> Array:
        assert training
        self.epsilons.append(epsilon)
        return np.zeros(len(states), np.int64)

    def observe(self, states: Array, rewards: Array, begins: Array, valid: Array) -> None:
        self.observed.append((states.copy(), rewards.copy(), begins.copy(), valid.copy()))

    def learn(self, batch: Batch) -> Outcome:
        self.calls.append("learn")
        self.learning_rates.append(self.optimizer.param_groups[0]["lr"])
        return result(len(batch["actions"]))

    def update_target_network(self) -> None:
        self.calls.append("sync")


class PriorityReplay(ReplayBuffer):
    """A replay that counts the priorities it is given."""

    given = 0

    def update_priorities(self, indices: Tensor, priorities: Tensor) -> None:
        assert len(indices) == len(priorities)
        self.given += len(priorities)


def run(
    mode: AutoresetMode = AutoresetMode.SAME_STEP, **settings: Any
) -> tuple[Witness, PriorityReplay, Counters, list[Progress]]:
    base = {
        "total_steps": 100,
        "num_envs": 2,
        "learning_starts": 0,
        "update_every": "1 steps",
        "batch_size": 4,
    }
    config = TrainConfig.from_mapping({**base, **settings})
    stream = TransitionStream(SyncVectorEnv([FiveSteps] * config.num_envs, autoreset_mode=mode))
    agent, replay, counters = Witness(), PriorityReplay(config.replay_capacity), Counters()
    yielded = list(train(stream, agent, agent, replay, config, counters))
    return agent, replay, counters, yielded


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED])
def test_every_decision_is_counted_and_stored_once(mode: AutoresetMode) -> None:
    _, replay, counters, _ = run(mode)
    assert counters.steps == 100
    assert len(replay) == 100
    assert counters.episodes == 100 // EPISODE


def test_it_yields_once_per_vector_step() -> None:
    _, _, _, yielded = run()
    assert len(yielded) == 100 / 2


@pytest.mark.parametrize(
    ("settings", "updates"),
    [
        ({"update_every": "1 steps"}, 100),
        ({"update_every": "4 steps"}, 25),
        ({"update_every": "3 steps"}, 33),
        ({"update_every": "10 steps", "gradient_steps": 7}, 70),
        ({"update_every": "2 episodes"}, 10),
        ({"update_every": "4 steps", "learning_starts": 50}, 12),  # at 52, 56, ... 96: and 100
        ({"update_every": "4 steps", "num_envs": 16, "total_steps": 96}, 24),
    ],
)
def test_updates_come_as_often_as_asked(settings: dict[str, Any], updates: int) -> None:
    agent, replay, counters, _ = run(**settings)
    if "learning_starts" in settings:
        updates = sum(step % 4 == 0 for step in range(51, 101))
    assert agent.calls.count("learn") == counters.updates == updates
    assert replay.given == 4 * updates


@pytest.mark.parametrize(
    ("period", "syncs"),
    [
        ("10 updates", 10),
        ("25 steps", 4),
        ("3 episodes", 6),
        ("1 episodes", 20),
        ("1 updates", 100),
        ("1 steps", 100),  # each vector step is two
    ],
)
def test_the_target_follows_in_its_own_unit(period: str, syncs: int) -> None:
    agent, *_ = run(target_update_every=period)
    assert agent.calls.count("sync") == syncs


def test_a_target_that_counts_updates_follows_between_them() -> None:
    agent, *_ = run(update_every="50 steps", gradient_steps=4, target_update_every="2 updates")
    assert agent.calls == ["learn", "learn", "sync"] * 4


def test_rewards_are_clipped_for_learning_before_they_are_folded() -> None:
    agent, replay, _, yielded = run(reward_clip=1.0, n_step=2, gamma=1.0)
    assert {reward for _, _, reward, _, _ in replay.buffer} == {1.0, 2.0}
    assert {rewards.tolist() == [1.0, 1.0] for _, rewards, _, _ in agent.observed} == {True}
    assert yielded[0].step.rewards.tolist() == [7.0, 7.0]  # what happened stays unclipped


def test_a_learner_observes_each_step_once_as_it_was_played() -> None:
    agent, _, _, yielded = run()
    assert len(agent.observed) == len(yielded)
    for (states, rewards, begins, valid), progress in zip(agent.observed, yielded, strict=True):
        step = progress.step
        assert (states == step.states).all()
        assert rewards.tolist() == step.rewards.tolist() == [7.0, 7.0]
        assert (begins == step.begins).all()
        assert (valid == step.valid).all()


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED])
def test_the_loop_passes_on_where_episodes_begin_before_each_act(mode: AutoresetMode) -> None:
    agent, _, _, yielded = run(mode)
    period = EPISODE + (mode is AutoresetMode.NEXT_STEP)  # there a step only resets
    assert agent.begun == [[at % period == 0] * 2 for at in range(len(yielded))]
    assert agent.begun == [progress.step.begins.tolist() for progress in yielded]


def test_without_clipping_rewards_stay() -> None:
    _, replay, *_ = run()
    assert {reward for _, _, reward, _, _ in replay.buffer} == {7.0}


def test_replay_capacity_bounds_the_replay() -> None:
    _, replay, *_ = run(replay_capacity=30)
    assert len(replay) == 30


def test_epsilon_follows_its_linear_schedule_from_learning_starts() -> None:
    agent, *_ = run(epsilon=1.0, epsilon_min=0.2, epsilon_steps=40, learning_starts=20)
    assert agent.epsilons[: 20 // 2 + 1] == [1.0] * 11
    assert agent.epsilons[(20 + 20) // 2] == pytest.approx(0.6)
    assert agent.epsilons[-1] == 0.2


def test_epsilon_shrinks_per_episode() -> None:
    agent, *_ = run(epsilon_schedule="per_episode", epsilon_decay=0.5, epsilon_min=0.1)
    assert agent.epsilons[:5] == [1.0] * 5
    assert agent.epsilons[5:10] == [0.25] * 5  # two environments ended an episode each
    assert agent.epsilons[-1] == 0.1


@pytest.mark.parametrize(
    ("settings", "first", "last"),
    [
        ({"learning_rate_schedule": "constant"}, 0.1, 0.1),
        ({"learning_rate_schedule": "step", "learning_rate_step": 40}, 0.1, 0.025),
        ({"learning_rate_schedule": "linear"}, 0.098, 0.0),
        ({"learning_rate_schedule": "cosine", "learning_rate_end": 0.05}, 0.1, 0.05),
    ],
)
def test_the_learning_rate_reaches_the_optimizer(settings: dict[str, Any], first: float, last: float) -> None:
    agent, *_ = run(learning_rate=0.1, **settings)
    assert agent.learning_rates[0] == pytest.approx(first, abs=1e-3)
    assert agent.learning_rates[-1] == pytest.approx(last, abs=1e-3)


def test_progress_tells_when_a_period_is_due() -> None:
    config = TrainConfig(total_steps=100, num_envs=4, learning_starts=0)
    stream = TransitionStream(SyncVectorEnv([FiveSteps] * 4, autoreset_mode=AutoresetMode.SAME_STEP))
    witness = Witness()
    due = [
        progress.counters.steps
        for progress in train(stream, witness, witness, ReplayBuffer(100), config, Counters())
        if progress.due(Period(30, "steps"))
    ]
    assert due == [32, 60, 92]  # the first steps at or past 30, 60 and 90


def test_the_replay_is_told_how_far_the_training_has_come_after_each_step() -> None:
    class Told(ReplayBuffer):
        fractions: list[float]

        def anneal(self, fraction: float) -> None:
            self.fractions.append(fraction)

    config, replay = TrainConfig(total_steps=100, num_envs=4, learning_starts=0), Told(1_000)
    replay.fractions = []
    stream = TransitionStream(SyncVectorEnv([FiveSteps] * 4, autoreset_mode=AutoresetMode.SAME_STEP))
    witness = Witness()
    for _ in train(stream, witness, witness, replay, config, Counters()):
        pass
    assert replay.fractions == [steps / 100 for steps in range(4, 101, 4)]


def test_training_stops_when_the_iterator_is_closed() -> None:
    config = TrainConfig(total_steps=100, num_envs=1, learning_starts=0)
    stream = TransitionStream(SyncVectorEnv([FiveSteps], autoreset_mode=AutoresetMode.SAME_STEP))
    counters, witness = Counters(), Witness()
    for _ in train(stream, witness, witness, ReplayBuffer(100), config, counters):
        if counters.steps == 17:
            break
    assert counters.steps == 17


def test_progress_offers_the_last_batch_and_what_came_of_it() -> None:
    _, _, _, yielded = run(learning_starts=50, update_every="4 steps")
    before, after = [each for each in yielded if each.before.steps < 50], yielded[-1]
    assert {(each.batch, each.update) for each in before} == {(None, None)}
    assert after.batch is not None
    assert after.update is not None
    assert after.batch["actions"].shape == after.update.priorities.shape == (4,)
    assert after.update.priorities.tolist() == [3.0] * 4
