"""An update that is recorded from the draw to the new priorities is the three calls of the loop."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor

from nexus.api import train
from nexus.core.errors import ConfigError, DivergenceError
from nexus.core.types import Transitions
from nexus.data.replay import Replay
from nexus.listener import Listener
from nexus.models.graph import Captured
from nexus.models.rl.dqn import DQNAgent
from nexus.models.rl.dqn.learner_state import tensors
from nexus.runner import Run, agent_for
from nexus.training import loop
from nexus.training.config import TrainConfig
from nexus.training.divergence import BATCH_FILE, WatchedLearner
from nexus.training.files import read_tensors
from nexus.training.loop import Counters
from nexus.training.replays import replay_for
from nexus.whole_update import BatchToCome, WholeUpdate
from tests.recording import OnTheCPU
from tests.test_frame_replay import stream_of

SHAPE = (3, 3, 5)
QUICK: dict[str, Any] = {
    "total_steps": 300,
    "num_envs": 3,
    "frame_stack": 3,
    "n_step": 3,
    "replay_store": "device",
    "replay_capacity": 150,
    "learning_starts": 60,
    "update_every": "3 steps",
    "target_update_every": "5 updates",
    "batch_size": 8,
    "hidden_dim": 16,
    "learning_rate": 2**-10,  # the same number in float32
    "checkpoint_every": None,
    "torso": "mlp",
}
RAINBOW: dict[str, Any] = {"algorithm": "rainbow", "noisy": True, "prioritized": True, "v_min": -5.0, "v_max": 5.0}
BEYOND: dict[str, Any] = {"algorithm": "beyond", "noisy": True, "munchausen": True, "prioritized": True}
FAMILY: list[dict[str, Any]] = [
    {},
    {"prioritized": True},
    {**RAINBOW, "dueling": True, "double": True},
    {"algorithm": "iqn"},
    {**BEYOND, "learning_rate_schedule": "linear"},
    {"optimizer": "rmsprop"},
    {"averaged_updates": 20},
]


class Learning:
    """An agent and its replay on a device, and the loop over both, by parts or as a whole."""

    def __init__(self, whole: bool, **settings: Any) -> None:
        self.config = TrainConfig.from_mapping(QUICK | settings)
        self.agent: DQNAgent = agent_for(SHAPE, 2, self.config)
        replay = replay_for(self.config, SHAPE, np.uint8)
        assert isinstance(replay, Replay)
        assert replay.on_device
        self.replay, self.recorder, self.counters = replay, OnTheCPU(), Counters()
        self.whole = WholeUpdate(self.agent.learner, replay, self.recorder) if whole else None

    def watched(self, folder: Path, kind: type[WatchedLearner] = WatchedLearner) -> WatchedLearner:
        """The agent as a run has it."""
        learn = None if self.whole is None else self.whole.learn
        return kind(self.agent.learner, self.counters, folder, at_once=False, learn=learn)

    def run(self, watched: WatchedLearner | None = None) -> "Learning":
        stream = stream_of(self.config.num_envs, 3, AutoresetMode.SAME_STEP, "zero", 12.0)
        replay = self.replay if self.whole is None else self.whole
        watched = self.watched(Path()) if watched is None else watched
        for _ in loop.train(stream, self.agent.policy, watched, replay, self.config, self.counters):
            pass
        watched.settle()
        stream.env.close()
        return self


@pytest.mark.parametrize("settings", FAMILY, ids=str)
def test_a_run_of_whole_updates_is_the_run_by_parts(settings: dict[str, Any]) -> None:
    parts, whole = Learning(False, **settings).run(), Learning(True, **settings).run()
    assert parts.counters.updates == whole.counters.updates == whole.recorder.replayed == 80
    assert whole.recorder.recorded == 1
    for name, tensor in tensors(parts.agent.learner).items():
        torch.testing.assert_close(tensors(whole.agent.learner)[name], tensor, rtol=1e-4, atol=1e-6, msg=name)
    state, other = parts.replay.get_state(), whole.replay.get_state()
    assert state["rng"] == other["rng"]
    if settings.get("prioritized"):
        assert len(set(state["leaves"])) > 50
        np.testing.assert_allclose(other["leaves"], state["leaves"], rtol=1e-3)
        assert other["highest_priority"] == pytest.approx(state["highest_priority"], rel=1e-3)
        assert other["importance_exponent"] == pytest.approx(1.0)


def filled(**settings: Any) -> Learning:
    """One that has taken its 80 updates."""
    return Learning(True, **settings).run()


def updated(learning: Learning) -> BatchToCome:
    assert learning.whole is not None
    batch = learning.whole.sample(8)
    learning.whole.learn(batch)
    return batch


@pytest.mark.parametrize("prioritized", [False, True])
def test_a_batch_can_be_looked_at_once_its_update_has_drawn_it(prioritized: bool) -> None:
    learning, twin = filled(prioritized=prioritized), filled(prioritized=prioritized)
    expected, batch = twin.replay.sample(8), updated(learning)
    assert batch.keys() == expected.keys()
    assert len(batch) == len(expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(batch[name], tensor, msg=name)


def test_an_evaluation_before_it_changes_nothing() -> None:
    """Noisy layers evaluate with their means, and must not learn with them after that."""
    learning, evaluated = filled(**RAINBOW), filled(**RAINBOW)
    for each in (learning, evaluated):
        if each is evaluated:
            each.agent.act(np.zeros((1, *SHAPE), np.uint8), 0.0, training=False)
        updated(each)
    assert torch.equal(evaluated.agent.learner.theta, learning.agent.learner.theta)


@pytest.mark.parametrize("name", ["frames", "records"])
def test_what_is_stored_after_the_recording_is_drawn(name: str) -> None:
    learning = filled()
    before = {key: tensor.data_ptr() for key, tensor in learning.replay.reads.items()}
    learning.replay.reads[name].zero_()  # as new rows would, in place
    batch = updated(learning)
    assert {key: tensor.data_ptr() for key, tensor in learning.replay.reads.items()} == before
    assert not batch["states"].any() if name == "frames" else not batch["rewards"].any()
    assert learning.recorder.recorded == 1


def test_a_replay_that_was_restored_is_recorded_anew() -> None:
    learning = filled(prioritized=True)
    replay, state = learning.replay, learning.replay.get_state()
    before = dict(replay.reads)  # kept alive: at the same place in memory the recording would be right as it is
    chunks = [
        (series.first, series.last, series.get(series.first, series.last))
        for series in replay.series(SHAPE, np.uint8, 2)
    ]
    expected = replay.gather(torch.arange(150), torch.ones(150))
    replay.set_state(state)
    for series, (first, last, columns) in zip(replay.series(SHAPE, np.uint8, 2), chunks, strict=True):
        series.put(first, last, first, columns)
    found = replay.gather(torch.arange(150), torch.ones(150))
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name
    assert all(tensor is not before[name] for name, tensor in replay.reads.items())
    updated(learning)
    assert learning.recorder.recorded == 2


def test_what_diverged_is_saved_as_it_was_drawn(tmp_path: Path) -> None:
    learning = Learning(True, prioritized=True, replay_capacity=400)
    assert learning.whole is not None
    seen: list[Mapping[str, Tensor]] = []

    class Spoiled(WatchedLearner):
        def learn(self, batch: Any) -> Any:
            if learning.counters.updates == 40:
                with torch.no_grad():
                    learning.agent.learner.theta.fill_(torch.nan)
            update = super().learn(batch)
            if learning.counters.updates == 40:
                seen.append({name: tensor.clone() for name, tensor in batch.items()})
            return update

    watched = learning.watched(tmp_path, Spoiled)
    with pytest.raises(DivergenceError, match=r"update 41: loss nan, gradient norm nan; its batch was saved in"):
        learning.run(watched)
    saved = read_tensors(tmp_path / BATCH_FILE, 1 << 20)
    (batch,) = seen
    assert saved.keys() == batch.keys() >= {"states", "actions", "rewards", "weights", "indices"}
    assert all(np.array_equal(saved[name], tensor.numpy()) for name, tensor in batch.items())


def test_rows_that_are_added_get_the_highest_priority_also_around_the_end() -> None:
    learning = filled(prioritized=True)
    replay = learning.replay
    replay.update_priorities(torch.tensor([7]), torch.tensor([50.0]))
    before, start = replay.get_state()["leaves"], replay.added % replay.capacity
    count = replay.capacity - start + 4  # over the end
    numbers = replay.storage.columns["states"][(start - 1) % replay.capacity].repeat(count)
    ones = np.ones(count, np.float32)
    replay.add(Transitions(numbers, np.ones(count, np.int64), ones, ones, numbers))
    after, new = replay.get_state()["leaves"], (start + np.arange(count)) % replay.capacity
    assert after[new] == pytest.approx(np.full(count, (50.0 + 1e-6) ** 0.5))
    old = np.setdiff1d(np.arange(replay.capacity), new)
    assert np.array_equal(after[old], before[old])


def test_a_priority_that_is_no_number_draws_rows_that_are_there() -> None:
    """Nobody looks before the divergence is found."""
    replay = filled(prioritized=True, replay_capacity=1_000).replay  # not full
    for given in (torch.inf, torch.nan):
        replay.update_priorities(torch.tensor([3, 149]), torch.tensor([given, 1.0]))
        assert (replay.sample(32)["indices"] < len(replay)).all()


def test_a_device_without_float64_is_refused() -> None:
    config = TrainConfig.from_mapping(QUICK | {"prioritized": True})
    with pytest.raises(ConfigError, match="replay_store device needs float64, which mps lacks; use compressed"):
        replay_for(config, SHAPE, np.uint8, torch.device("mps"))


def test_a_run_takes_whole_updates_on_a_gpu_only(tmp_path: Path) -> None:
    settings = {**QUICK, "env": "tests.probes:Flicker-v0"}
    config = TrainConfig.from_mapping({name: value for name, value in settings.items() if name != "env"})
    with Run(settings["env"], None, config, tmp_path / "run", Listener()) as run:
        assert isinstance(run.parts.replay, Replay)
        assert run.parts.replay.on_device
        assert run.parts.learned_from is run.parts.replay


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("settings", FAMILY, ids=str)
@pytest.mark.parametrize("concurrent", [False, True])
def test_a_gpu_takes_whole_updates_and_warns_of_nothing(
    settings: dict[str, Any], concurrent: bool, tmp_path: Path
) -> None:
    every = {"actor_sync_every": "30 steps"} if concurrent else {}
    config = TrainConfig.from_mapping({**QUICK, "device": "cuda", **settings, **every})
    with Run("tests.probes:Flicker-v0", None, config, tmp_path / "run", Listener()) as run:
        assert isinstance(run.parts.learned_from, WholeUpdate)
        result = run.run()  # a fallback would warn, and a warning is an error here
        assert result.counters.updates == 80
        assert isinstance(run.parts.learned_from._captured, Captured)
        assert run.parts.learned_from._captured._recording is not None
    plain = train("tests.probes:Flicker-v0", config=config, cuda_graph=False, run_dir=tmp_path / "plain")
    for name, tensor in plain.agent.q_network.state_dict().items():
        torch.testing.assert_close(result.agent.q_network.state_dict()[name], tensor, rtol=0.1, atol=0.05)
