"""Acting and learning at the same time: the same counts, the same bits, whoever is quicker."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import nexus
from nexus.core.errors import DivergenceError
from nexus.core.types import Array, Batch, Outcome
from nexus.envs.stream import TransitionStream
from nexus.models.rl.dqn import DQNAgent
from nexus.models.rl.dqn.rainbow import make_agent
from nexus.training import loop
from nexus.training.concurrent_loop import train
from nexus.training.config import TrainConfig
from nexus.training.divergence import WatchedLearner
from nexus.training.logs import Rate
from nexus.training.loop import Counters, Progress
from nexus.training.under_way import fresh_under_way
from tests.test_loop import FiveSteps, PriorityReplay, Witness

ENVS = 2
BASE: dict[str, Any] = {
    "total_steps": 100,
    "num_envs": ENVS,
    "learning_starts": 0,
    "update_every": "1 steps",
    "batch_size": 4,
    "actor_sync_every": "20 steps",
    "checkpoint_every": None,
}


class Follower:
    """Acts, and says when it followed."""

    def __init__(self, agent: "Recorded") -> None:
        self.epsilon = self.temperature = 0.0
        self.agent = agent

    def follow(self) -> None:
        self.agent.events.append("follow")

    def begin(self, begins: Array) -> None:
        pass

    def act(self, states: Array, epsilon: float, training: bool, action_masks: Array | None) -> Array:
        assert training
        self.agent.events.append("act")
        return np.zeros(len(states), np.int64)


class Recorded(Witness):
    """A witness whose actor and learner write into one list."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[str] = []
        self.threads: set[int] = set()
        self.sampled: list[int] = []  # rows that the replay had at each update

    def follower(self) -> Follower:
        return Follower(self)

    def learn(self, batch: Batch) -> Outcome:
        self.events.append("learn")
        self.threads.add(threading.get_ident())
        return super().learn(batch)


def run(**settings: Any) -> tuple[Recorded, PriorityReplay, Counters, list[tuple[int, int, int, int]]]:
    """Train on two environments of five-step episodes; of each yield return steps, updates, and those before."""
    config = TrainConfig.from_mapping(BASE | settings)
    stream = TransitionStream(SyncVectorEnv([FiveSteps] * ENVS, autoreset_mode=AutoresetMode.SAME_STEP))
    agent, replay, counters = Recorded(), PriorityReplay(config.replay_capacity), Counters()
    yielded = []
    for progress in train(stream, agent, agent, replay, config, counters):
        agent.events.append("yield")
        yielded.append(seen(progress))
    return agent, replay, counters, yielded


def seen(progress: Progress) -> tuple[int, int, int, int]:
    """Steps and updates, now and before."""
    now, before = progress.counters, progress.before
    return now.steps, now.updates, before.steps, before.updates


def test_all_is_played_stored_and_learned_as_in_turns() -> None:
    agent, replay, counters, yielded = run()
    assert (counters.steps, counters.episodes, counters.updates) == (100, 20, 100)
    assert len(replay) == 100
    assert replay.given == 400
    assert agent.calls.count("learn") == 100
    assert [steps for steps, *_ in yielded] == list(range(2, 101, 2))


def test_an_epoch_is_learned_from_while_the_next_is_played() -> None:
    *_, yielded = run()
    after = {steps: updates for steps, updates, *_ in yielded}
    assert [after[steps] for steps in (2, 20, 22, 40, 60, 80)] == [0, 0, 20, 20, 40, 60]
    assert after[82] == after[100] == 100  # the end learns from the last epoch too
    assert [now[2:] for now in yielded[1:]] == [then[:2] for then in yielded[:-1]]  # before is what came last


def test_actors_follow_once_an_epoch_and_nobody_learns_while_something_is_yielded() -> None:
    agent, *_ = run()
    events = [event for event in agent.events if event != "learn"]
    assert events == (["follow"] + ["act"] * 10 + ["yield"] * 10) * 5
    first, last = agent.events.index("yield"), len(agent.events) - 1 - agent.events[::-1].index("yield")
    for place in range(first, last):
        if agent.events[place] == "yield" and agent.events[place + 1] == "learn":
            yields = agent.events[: place + 1].count("yield")
            assert yields % 10 == 0  # only between two epochs


def test_learning_has_a_thread_of_its_own_and_playing_goes_on_beside_it() -> None:
    met = threading.Barrier(2, timeout=20)

    class Meeting(Recorded):
        def learn(self, batch: Batch) -> Outcome:
            if len(self.calls) == 20:  # the first epoch with updates is learned from alone
                met.wait()
            return super().learn(batch)

        def follower(self) -> Follower:
            agent = self

            class Waits(Follower):
                def act(self, *arguments: Any) -> Array:
                    if agent.events.count("act") == 20:
                        met.wait()
                    return super().act(*arguments)

            return Waits(self)

    config = TrainConfig.from_mapping(
        {"total_steps": 100, "num_envs": ENVS, "learning_starts": 0, "update_every": "1 steps", "batch_size": 4}
        | {"actor_sync_every": "20 steps", "checkpoint_every": None}
    )
    stream = TransitionStream(SyncVectorEnv([FiveSteps] * ENVS, autoreset_mode=AutoresetMode.SAME_STEP))
    agent = Meeting()
    for _ in train(stream, agent, agent, PriorityReplay(100), config, Counters()):
        pass
    assert not met.broken
    assert threading.get_ident() in agent.threads  # of the last epoch
    assert len(agent.threads) == 2


@pytest.mark.parametrize(
    ("settings", "updates", "syncs"),
    [
        ({"update_every": "4 steps", "target_update_every": "10 updates"}, 25, 2),
        ({"update_every": "4 steps", "target_update_every": "25 steps"}, 25, 4),
        ({"update_every": "2 episodes", "target_update_every": "3 episodes"}, 10, 6),
        ({"update_every": "50 steps", "gradient_steps": 4, "target_update_every": "2 updates"}, 8, 4),
        ({"actor_sync_every": "7 steps", "update_every": "3 steps"}, 33, 0),
        ({"actor_sync_every": "1000 steps"}, 100, 0),
        ({"checkpoint_every": "30 steps"}, 100, 0),
    ],
)
def test_updates_and_syncs_come_as_often_as_in_turns(settings: dict[str, Any], updates: int, syncs: int) -> None:
    agent, _, counters, _ = run(**{"target_update_every": "1000 updates", **settings})
    assert agent.calls.count("learn") == counters.updates == updates
    assert agent.calls.count("sync") == syncs


def test_the_replay_is_told_how_far_the_training_has_come_after_each_step() -> None:
    class Told(PriorityReplay):
        fractions: list[float]

        def anneal(self, fraction: float) -> None:
            self.fractions.append(fraction)

    config, replay = TrainConfig.from_mapping(BASE), Told(1_000)
    replay.fractions = []
    stream = TransitionStream(SyncVectorEnv([FiveSteps] * ENVS, autoreset_mode=AutoresetMode.SAME_STEP))
    agent = Recorded()
    for _ in train(stream, agent, agent, replay, config, Counters()):
        pass
    assert replay.fractions == [steps / 100 for steps in range(2, 101, 2)]


def test_what_is_saved_continues_exactly_only_with_the_last_step_of_an_epoch() -> None:
    config = TrainConfig.from_mapping(BASE | {"actor_sync_every": "30 steps"})
    stream = TransitionStream(SyncVectorEnv([FiveSteps] * ENVS, autoreset_mode=AutoresetMode.SAME_STEP))
    under_way, sound = fresh_under_way(config), {}
    agent = Recorded()
    for progress in train(stream, agent, agent, PriorityReplay(1_000), config, Counters(), under_way):
        if progress.sound:
            spans = [(before.steps, after.steps) for before, after in under_way.to_learn]
            sound[progress.counters.steps] = progress.counters.updates, spans
    # Of each epoch nothing is learned before the next one, but for the last.
    assert sound == {
        30: (0, [(steps, steps + 2) for steps in range(0, 30, 2)]),
        60: (30, [(steps, steps + 2) for steps in range(30, 60, 2)]),
        90: (60, [(steps, steps + 2) for steps in range(60, 90, 2)]),
        100: (100, []),
    }


# Real agents.


SMALL: dict[str, Any] = {
    "total_steps": 600,
    "num_envs": 4,
    "hidden_dim": 16,
    "learning_starts": 50,
    "update_every": "4 steps",
    "batch_size": 16,
    "actor_sync_every": "100 steps",
    "eval_every": "200 steps",
    "eval_episodes": 2,
    "target_return": None,
    "checkpoint_every": "300 steps",
    "log_every": "100 steps",
}
OTHERS: dict[str, dict[str, Any]] = {
    "dqn": {},
    "rainbow": {"algorithm": "rainbow", "v_min": 0.0, "v_max": 100.0},
    "iqn": {"algorithm": "iqn"},
    "pqn": {
        "algorithm": "pqn",
        "rollout_steps": 100,
        "update_every": None,
        "target_update_every": "100 steps",
        "gradient_steps": 8,
    },
}


def slowed(method: Callable[..., Any], seconds: float) -> Callable[..., Any]:
    """The same, a little later."""

    def late(*arguments: Any, **options: Any) -> Any:
        time.sleep(seconds)
        return method(*arguments, **options)

    return late


@pytest.mark.parametrize("name", OTHERS)
def test_who_is_quicker_does_not_matter(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {**SMALL, **OTHERS[name], "total_steps": 400}
    learn, step = DQNAgent.learn, TransitionStream.step
    results = []
    for place, (learning, playing) in enumerate([(0.0, 0.0), (0.002, 0.0), (0.0, 0.002)]):
        monkeypatch.setattr(DQNAgent, "learn", slowed(learn, learning))
        monkeypatch.setattr(TransitionStream, "step", slowed(step, playing))
        result = nexus.train("CartPole-v1", run_dir=tmp_path / str(place), seed=3, **settings)
        assert result.evaluation is not None
        results.append((result.agent.q_network.state_dict(), result.evaluation.returns, result.counters))
    (weights, returns, counters), *others = results
    assert counters.updates > 15
    for other, theirs, counted in others:
        assert all(torch.equal(weights[key], other[key]) for key in weights)
        assert (returns, counters) == (theirs, counted)


def test_an_actor_stays_as_it_was_until_it_follows() -> None:
    agent = make_agent("dqn", state_dim=3, action_dim=5, hidden_dim=8, learning_rate=0.5)
    actor, states = agent.policy.follower(), np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    actor.follow()
    before = actor.act(states, 0.0)
    assert np.array_equal(before, agent.act(states, 0.0))
    draws = torch.Generator().manual_seed(0)
    batch = {
        "states": torch.randn(16, 3, generator=draws),
        "next_states": torch.randn(16, 3, generator=draws),
        "actions": torch.randint(5, (16,), generator=draws),
        "rewards": torch.randn(16, generator=draws),
        "discounts": torch.full((16,), 0.9),
    }
    for _ in range(5):
        agent.learn(batch)
    assert np.array_equal(actor.act(states, 0.0), before)
    assert not np.array_equal(agent.act(states, 0.0), before)
    actor.follow()
    assert np.array_equal(actor.act(states, 0.0), agent.act(states, 0.0))


def test_the_noise_of_an_actor_is_its_own() -> None:
    agents = [make_agent("noisy", state_dim=3, action_dim=5, hidden_dim=8, seed=1) for _ in range(2)]
    states = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    actors = [agent.policy.follower() for agent in agents]
    for actor in actors:
        actor.follow()
    agents[1].act(states, 0.0)  # draws from the agent's own stream in between
    first, second = ([actor.act(states, 0.0) for _ in range(4)] for actor in actors)
    assert all(np.array_equal(one, two) for one, two in zip(first, second, strict=True))
    assert any(not np.array_equal(first[0], later) for later in first[1:])
    actors[0].follow()
    assert any(not np.array_equal(one, actors[0].act(states, 0.0)) for one in first)


def test_the_update_that_diverged_in_the_thread_is_named(tmp_path: Path) -> None:
    class Diverging(Recorded):
        def learn(self, batch: Batch) -> Outcome:
            priorities = super().learn(batch).priorities
            loss = torch.tensor(float("nan") if len(self.calls) == 33 else 1.0)
            return Outcome(loss, priorities, {"grad_norm": loss})

    config = TrainConfig.from_mapping(
        {"total_steps": 100, "num_envs": ENVS, "learning_starts": 0, "update_every": "1 steps", "batch_size": 4}
        | {"actor_sync_every": "20 steps", "checkpoint_every": None}
    )
    stream = TransitionStream(SyncVectorEnv([FiveSteps] * ENVS, autoreset_mode=AutoresetMode.SAME_STEP))
    counters = Counters()
    diverging = Diverging()
    watched = WatchedLearner(diverging, counters, tmp_path, at_once=True)
    with pytest.raises(DivergenceError, match="update 33: loss nan"):
        for _ in train(stream, diverging, watched, PriorityReplay(100), config, counters):
            pass


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_an_actor_has_a_stream_of_its_own(tmp_path: Path) -> None:
    agent = make_agent("dqn", state_dim=3, action_dim=5, hidden_dim=8, device="cuda")
    actor, states = agent.policy.follower(), np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    actor.follow()
    assert np.array_equal(actor.act(states, 0.0), agent.act(states, 0.0))
    result = nexus.train("CartPole-v1", run_dir=tmp_path / "run", device="cuda", **SMALL)
    assert result.counters.updates > 100


def test_it_learns(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"eval_every": None, "target_return": None, "eval_episodes": 20}
    result = nexus.train(
        "CartPole-v1", total_steps=20_000, actor_sync_every="64 steps", run_dir=tmp_path / "run", seed=2, **settings
    )
    assert result.evaluation is not None
    assert result.evaluation.mean > 150  # a random player gets 22


def test_without_the_setting_the_plain_loop_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[Counters] = []
    plain = loop.train

    def noted(*arguments: Any) -> Any:
        ran.append(arguments[-1])
        return plain(*arguments)

    monkeypatch.setattr(loop, "train", noted)
    for place, every in (("turns", None), ("together", "100 steps")):
        nexus.train("CartPole-v1", run_dir=tmp_path / place, **{**SMALL, "total_steps": 200, "actor_sync_every": every})
        assert len(ran) == 1  # of the first


def test_steps_that_come_in_bursts_are_not_counted_by_the_time_within_them() -> None:
    rate = Rate(100, 10.0)
    assert rate.at(600, 15.0) == pytest.approx(100)
    assert [rate.at(steps, 15.0 + steps / 1e6) for steps in (700, 800, 1100)] == pytest.approx([100] * 3)
    assert rate.at(1600, 20.0) == pytest.approx(200)  # all since the burst began
    assert rate.at(1700, 21.0) == pytest.approx(100)
