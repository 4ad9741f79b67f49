"""Running statistics that belong to the agent: one set for all environments, resumed to the bit, frozen elsewhere."""

import json
import signal
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import safetensors.numpy
import torch
from gymnasium.wrappers import NormalizeObservation, NormalizeReward
from torch.fx.experimental.proxy_tensor import make_fx

import nexus
from nexus.api import make_config
from nexus.cli.main import main
from nexus.core.errors import ConfigError, RunError
from nexus.core.types import Array, Transitions
from nexus.data.rollout_buffer import RolloutBuffer
from nexus.models.layers import Normalizer
from nexus.models.normalization import ReturnStatistics, normalizers
from nexus.models.rl.dqn import DQNAgent
from nexus.models.rl.dqn.learner_state import CapturedStep
from nexus.models.rl.dqn.rainbow import ALGORITHMS, make_agent
from nexus.models.unpacking import UnpackingTorso
from nexus.ops.running import deviation, merge_moments, moments_of, no_moments
from nexus.runner import agent_from
from nexus.training.config import TrainConfig
from nexus.training.files import write_json, write_tensors
from tests import probes
from tests.chaos import SETTINGS, Silent, differences, interrupt, interrupted, run_child
from tests.recording import OnTheCPU
from tests.rollouts import pace_of
from tests.test_statistics import Corridor

BOTH: dict[str, Any] = {"normalize_observations": True, "normalize_rewards": True}
LAYER = "q_network.torso.normalizer"
POLE = {"state_dim": 4, "action_dim": 2, "hidden_dim": 8}
CPU = torch.device("cpu")


class Recording(Silent):
    """Keeps what happened in each vector step."""

    def __init__(self) -> None:
        super().__init__()
        self.states: list[Array] = []
        self.rewards: list[Array] = []
        self.begins: list[Array] = []

    def on_step(self, progress: Any, episodes: Any) -> None:
        step = progress.step
        assert step.valid.all()
        self.states.append(step.states.copy())
        self.rewards.append(step.rewards.copy())
        self.begins.append(step.begins.copy())

    def returns(self, gamma: float) -> list[float]:
        """Every discounted return, environment by environment, in plain Python."""
        found = []
        for env in range(len(self.rewards[0])):
            so_far = 0.0
            for rewards, begins in zip(self.rewards, self.begins, strict=True):
                so_far = float(rewards[env]) + (0.0 if begins[env] else gamma * so_far)
                found.append(so_far)
        return found


# --- the maths ---


def test_moments_are_merged_as_worked_out_by_hand() -> None:
    one, other = moments_of(np.array([[1.0], [3.0]])), moments_of(np.array([[8.0]]))
    assert (one.mean.tolist(), one.var.tolist(), one.samples) == ([2.0], [1.0], 2.0)
    assert (other.mean.tolist(), other.var.tolist(), other.samples) == ([8.0], [0.0], 1.0)
    both = merge_moments(one, other)  # of 1, 3 and 8: mean 4, squared distances 9, 1 and 16
    assert both.mean == pytest.approx([4.0], rel=1e-15)
    assert both.var == pytest.approx([26 / 3], rel=1e-15)
    assert both.samples == 3.0
    first = merge_moments(no_moments(1), one)
    assert (first.mean.tolist(), first.var.tolist(), first.samples) == ([2.0], [1.0], 2.0)


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e6])
def test_a_thousand_batches_have_the_moments_of_all_values(offset: float) -> None:
    rng = np.random.default_rng(0)
    parts = [(offset + rng.normal(0, 3, (rng.integers(1, 9), 2))).astype(np.float32) for _ in range(1_000)]
    found = no_moments(2)
    for seen in parts:
        found = merge_moments(found, moments_of(seen))
    whole = np.concatenate(parts).astype(np.float64)
    np.testing.assert_allclose(found.mean, whole.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.var, whole.var(0), rtol=1e-8)
    assert found.samples == len(whole)


def test_what_never_changed_is_divided_by_one() -> None:
    assert deviation(no_moments(2)).tolist() == [1.0, 1.0]
    same = no_moments(3)
    for _ in range(1_000):
        same = merge_moments(same, moments_of(np.array([[0.0, 1000.1, 1e-9], [0.0, 1000.1, 3e-9]], np.float32)))
    assert deviation(same) == pytest.approx([1.0, 1.0, 1e-9], rel=1e-6)  # small numbers that change are numbers


# --- the layer ---


def test_a_normalizer_gives_the_numbers_worked_out_by_hand() -> None:
    layer = Normalizer(2)
    states = torch.tensor([[1100.0, 3.0, 7.0], [900.0, 3.0, -70.0], [1600.0, 2.0, 0.0], [1000.0, -9.0, 1.0]])
    torch.testing.assert_close(layer(states)[3], torch.tensor([10.0, -9.0, 1.0]))  # clipped, and no more so far
    layer.set_to(np.array([1000.0, 3.0]), np.array([50.0, 0.5]), 9)
    by_hand = torch.tensor([[2.0, 0.0, 7.0], [-2.0, 0.0, -70.0], [10.0, -2.0, 0.0], [0.0, -10.0, 1.0]])
    torch.testing.assert_close(layer(states), by_hand, rtol=0, atol=0)
    assert list(layer.state_dict()) == ["mean", "deviation", "samples"]
    assert list(layer.parameters()) == []


def test_all_networks_of_an_agent_have_the_same_statistics_and_count_only_states_that_were_acted_on() -> None:
    agent = DQNAgent(POLE | {"state_normalized": True, "averaged_updates": 5})
    states = np.array([[0, 1, 2, 3], [2, 1, 4, 3], [90, 90, 90, 90]], np.float32)
    agent.observe(states, np.zeros(3), np.ones(3, bool), np.array([True, True, False]))
    assert set(agent.networks) == {"q_network", "target_network", "averaged_network"}
    for network in agent.networks.values():
        (layer,) = normalizers(network)
        assert layer.mean.tolist() == [1.0, 1.0, 3.0, 3.0]
        assert layer.deviation.tolist() == [1.0, 1.0, 1.0, 1.0]
    agent.observe(states, np.zeros(3), np.ones(3, bool), np.array([False, False, True]))
    assert agent.q_network.torso.normalizer.mean.tolist() == pytest.approx([92 / 3, 92 / 3, 32, 32])  # type: ignore[union-attr, operator]
    agent.observe(states, np.zeros(3), np.ones(3, bool), np.zeros(3, bool))
    assert agent.learner.observed is not None
    assert agent.learner.observed.moments.samples == 3


def test_without_the_settings_there_is_nothing_of_them() -> None:
    agent = DQNAgent(POLE)
    assert normalizers(agent.q_network) == []
    assert not [name for name in agent.get_state() if "normalizer" in name or "returns" in name or "observ" in name]
    agent.observe(np.zeros((2, 4), np.float32), np.ones(2), np.ones(2, bool), np.ones(2, bool))
    assert agent.learner.unit_of_rewards() == 1.0


# --- rewards ---


def test_returns_are_carried_from_step_to_step_as_worked_out_by_hand() -> None:
    returns = ReturnStatistics(0.5, CPU)
    yes, no = True, False
    assert returns.deviation == 1.0
    returns.follow(np.array([1.0, 0.0]), np.array([yes, yes]), np.array([yes, yes]))  # 1, 0
    returns.follow(np.array([1.0, 2.0]), np.array([no, no]), np.array([yes, yes]))  # 1.5, 2
    returns.follow(np.array([4.0, 9.0]), np.array([yes, no]), np.array([yes, no]))  # 4; the other only reset
    assert returns.moments.samples == 5  # of 1, 0, 1.5, 2 and 4: mean 1.7, squared distances 8.8 together
    assert returns.moments.mean == pytest.approx([1.7])
    assert returns.moments.var == pytest.approx([1.76])
    assert returns.deviation == pytest.approx(1.76**0.5)
    assert returns.get_state()["carried"].tolist() == [4.0, 2.0]
    batch = {"rewards": torch.tensor([3.52, 0.0]), "actions": torch.tensor([1, 0])}
    assert returns.scaled(batch)["rewards"].tolist() == pytest.approx([2 * 1.76**0.5, 0.0])
    assert batch["rewards"].tolist() == pytest.approx([3.52, 0.0])  # the replay's own stay as they are
    assert returns.scaled({"returns": torch.ones(2)}).keys() == {"returns"}


def test_a_loss_sees_rewards_in_units_of_the_deviation() -> None:
    agents = [DQNAgent(POLE | {"normalize_rewards": given, "loss": "squared"}) for given in (True, False)]
    for rewards in ([2.0, 6.0], [2.0, 6.0]):  # two episodes of one step each: the deviation is 2
        agents[0].observe(np.zeros((2, 4), np.float32), np.array(rewards), np.ones(2, bool), np.ones(2, bool))
    assert agents[0].learner.unit_of_rewards() == pytest.approx(2.0)
    batch = {
        "states": torch.ones(3, 4),
        "actions": torch.tensor([0, 1, 1]),
        "rewards": torch.tensor([2.0, -4.0, 7.0]),  # folded or not: all in the same unit
        "discounts": torch.tensor([0.9, 0.0, 0.729]),
        "next_states": torch.zeros(3, 4),
    }
    halved = {**batch, "rewards": batch["rewards"] / 2}
    one, other = agents[0].learn(batch), agents[1].learn(halved)
    torch.testing.assert_close(one.loss, other.loss, rtol=0, atol=0)
    torch.testing.assert_close(one.priorities, other.priorities, rtol=0, atol=0)
    torch.testing.assert_close(agents[0].learner.theta, agents[1].learner.theta, rtol=0, atol=0)


def test_a_rollout_adds_rewards_in_the_unit_of_its_values() -> None:
    buffer = RolloutBuffer(2, 1, 1.0, 0, lambda states, masks: np.full(len(states), 3.0, np.float32), lambda: 4.0)
    for state in (0.0, 1.0):
        states, flags = np.array([[state]], np.float32), np.array([True])
        buffer.remember(states, states, flags & (state == 0), flags)
        buffer.add(Transitions(states, np.array([0]), np.array([8.0]), np.array([0.5]), states))
    batch = buffer.sample(2)
    returns = dict(zip(batch["states"][:, 0].tolist(), batch["returns"].tolist(), strict=True))
    assert returns == {1.0: 3.5, 0.0: 3.75}  # 8/4 + 0.5 · 3, and 8/4 + 0.5 · 3.5


def test_values_in_another_unit_have_no_use_for_the_range_of_plain_returns() -> None:
    plain = make_config("CartPole-v1", algorithm="c51")
    assert (plain.v_min, plain.v_max) == (0.0, 500.0)
    normalized = make_config("CartPole-v1", algorithm="c51", normalize_rewards=True)
    assert (normalized.v_min, normalized.v_max) == (-10.0, 10.0)
    own = make_config("CartPole-v1", algorithm="c51", normalize_rewards=True, v_min=-3.0, v_max=7.0)
    assert (own.v_min, own.v_max) == (-3.0, 7.0)


# --- runs ---

QUICK: dict[str, Any] = SETTINGS | BOTH | {"total_steps": 300, "eval_every": "70 steps", "checkpoint_every": "60 steps"}
WAYS: list[dict[str, Any]] = [
    {"num_envs": 3},
    {"actor_sync_every": "16 steps"},
    {"n_step": 3, "prioritized": True, "averaged_updates": 10},
    {"algorithm": "pqn", **pace_of("pqn"), "trace_lambda": 0.65},
]


@pytest.mark.parametrize("settings", [{"num_envs": 3}, {"actor_sync_every": "16 steps"}], ids=str)
def test_a_run_has_the_statistics_of_all_that_its_environments_showed(settings: Any, tmp_path: Path) -> None:
    """In two passes over what was recorded: one set for all environments, not one for each."""
    seen = Recording()
    config = TrainConfig.from_mapping(QUICK | settings | {"gamma": 0.9})
    result = nexus.train("CartPole-v1", config=config, run_dir=tmp_path / "run", listener=seen)
    states = np.concatenate(seen.states).astype(np.float64)
    assert len(states) == result.counters.steps >= 300
    returns = np.array(seen.returns(0.9))
    assert sum(begins.sum() for begins in seen.begins) > 5  # episodes, each of which starts from 0
    observed, own = result.agent.learner.observed, result.agent.learner.returns
    assert observed is not None
    assert own is not None
    np.testing.assert_allclose(observed.moments.mean, states.mean(0), rtol=1e-9)
    np.testing.assert_allclose(observed.moments.var, states.var(0), rtol=1e-9)
    np.testing.assert_allclose(own.moments.var, returns.var(), rtol=1e-9)
    assert observed.moments.samples == own.moments.samples == len(states) == len(returns)
    stored = safetensors.numpy.load_file(tmp_path / "run" / "agent.safetensors")
    for network in ("q_network", "target_network"):
        np.testing.assert_allclose(stored[f"{network}.torso.normalizer.mean"], states.mean(0), rtol=1e-5)
        np.testing.assert_allclose(stored[f"{network}.torso.normalizer.deviation"], states.std(0), rtol=1e-5)
    lines = (tmp_path / "run" / "episodes.csv").read_text().splitlines()[1:]
    assert {float(line.split(",")[2]) for line in lines} <= set(map(float, range(1, 501)))  # logged as they were paid


@pytest.mark.parametrize("settings", WAYS, ids=str)
def test_a_run_goes_on_with_them_bit_for_bit(settings: dict[str, Any], tmp_path: Path) -> None:
    config = TrainConfig.from_mapping(QUICK | settings)
    nexus.train(Corridor, config=config, run_dir=tmp_path / "whole", listener=Silent())
    stop, run = Silent(160, interrupt), tmp_path / "run"
    interrupted(lambda: nexus.train(Corridor, config=config, run_dir=run, listener=stop))
    nexus.resume(run, env=Corridor, listener=Silent())
    assert differences(tmp_path / "whole", run, Corridor) == []


def test_a_run_that_was_killed_goes_on_with_them_bit_for_bit(tmp_path: Path) -> None:
    settings = QUICK | {"env": "CartPole-v1", "num_envs": 3}
    assert run_child(tmp_path / "whole", settings) == 0
    assert run_child(tmp_path / "run", settings, ("step", 170)) == -signal.SIGKILL
    assert run_child(tmp_path / "run", settings) == 0
    assert differences(tmp_path / "whole", tmp_path / "run") == []


def test_evaluating_changes_no_bit_of_the_training(tmp_path: Path) -> None:
    ends = []
    for name, eval_every in (("often", "40 steps"), ("never", None)):
        config = TrainConfig.from_mapping(QUICK | {"num_envs": 1, "eval_every": eval_every})
        nexus.train(Corridor, config=config, run_dir=tmp_path / name, listener=Silent())
        ends.append((tmp_path / name / "agent.safetensors").read_bytes())
    assert ends[0] == ends[1]
    assert f"{LAYER}.deviation".encode() in ends[0]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_runs_with_them(algorithm: str, tmp_path: Path) -> None:
    settings = (
        SETTINGS | BOTH | {"total_steps": 200, "eval_every": None, "atoms": 5, "quantiles": 4, "eval_episodes": 1}
    )
    settings |= pace_of(algorithm)
    result = nexus.train("CartPole-v1", algorithm=algorithm, run_dir=tmp_path / "run", listener=Silent(), **settings)
    fresh = agent_from({**result.agent.config})
    assert result.counters.updates > 10
    assert not torch.equal(result.agent.learner.theta, fresh.learner.theta)
    assert result.agent.learner.theta.isfinite().all()
    layers = normalizers(result.agent.q_network)
    assert len(layers) == (2 if algorithm == "bootstrapped" else 1)  # its priors have one as well
    assert all((layer.deviation != 1).all() for layer in layers)
    assert result.agent.learner.unit_of_rewards() != 1.0


# --- learning ---

LEARNING: dict[str, Any] = {
    "total_steps": 4_000,
    "learning_starts": 200,
    "epsilon_steps": 2_000,
    "epsilon_min": 0.0,
    "hidden_dim": 32,
    "gamma": 0.0,
    "eval_every": None,
    "eval_episodes": 200,
}


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> nexus.TrainResult:
    run = tmp_path_factory.mktemp("learned") / "run"
    return nexus.train(Corridor, run_dir=run, listener=Silent(), normalize_observations=True, **LEARNING)


def test_heights_around_a_thousand_are_learned(learned: nexus.TrainResult) -> None:
    """Without it 2.6 of 5, which is what answers at random get."""
    assert learned.evaluation is not None
    assert learned.evaluation.mean > 4.95
    lines = (learned.run_dir / "episodes.csv").read_text().splitlines()[1:]
    assert np.mean([float(line.split(",")[2]) for line in lines[-100:]]) > 4.9


def test_what_plays_an_agent_uses_the_frozen_statistics_and_leaves_them(learned: nexus.TrainResult) -> None:
    stored = (learned.run_dir / "agent.safetensors").read_bytes()
    loaded = nexus.load_agent(learned.run_dir)
    before = {name: value.numpy().tobytes() for name, value in loaded.q_network.state_dict().items()}
    assert learned.evaluation is not None
    for given in (learned, learned.agent, loaded, deepcopy(loaded)):
        seed = learned.evaluation.protocol.seed
        assert nexus.evaluate(given, Corridor, 200, seed=seed, listener=Silent()).returns == learned.evaluation.returns
    assert (loaded.predict(np.array([950.0]))[0], loaded.predict(np.array([1050.0]))[0]) == (0, 1)
    assert loaded.select_action(np.array([1050.0], np.float32), training=False) == 1
    assert loaded.policy.copy().act(np.array([[950.0], [1050.0]], np.float32), 0.0, False).tolist() == [0, 1]
    assert {name: value.numpy().tobytes() for name, value in loaded.q_network.state_dict().items()} == before
    assert (learned.run_dir / "agent.safetensors").read_bytes() == stored


def test_statistics_go_on_from_those_of_loaded_weights(learned: nexus.TrainResult) -> None:
    loaded = nexus.load_agent(learned.run_dir)
    for agent in (loaded, deepcopy(loaded)):
        agent.observe(np.array([[5000.0]], np.float32), np.zeros(1), np.ones(1, bool), np.ones(1, bool))
        (layer,) = normalizers(agent.q_network)
        assert layer.samples == 4_001
        assert layer.mean.tolist() == pytest.approx([1001], abs=3)  # one of 4,001


def test_each_file_with_weights_has_those_of_its_moment(tmp_path: Path) -> None:
    run = tmp_path / "run"
    nexus.train("CartPole-v1", config=TrainConfig.from_mapping(QUICK), run_dir=run, listener=Silent())
    means = {}
    for checkpoint in (None, "best", "latest"):
        agent = nexus.load_agent(run, checkpoint=checkpoint)
        means[checkpoint] = normalizers(agent.q_network)[0].mean.tolist()
        assert normalizers(agent.target_network)[0].mean.tolist() == means[checkpoint]
    assert means[None] == means["latest"]
    best = nexus.training.best.BestWeights(run, json.loads((run / "run.json").read_text())).present()[0]
    assert (means["best"] == means[None]) is (best.steps == 300)


def test_another_process_evaluates_with_them(tmp_path: Path) -> None:
    run = tmp_path / "run"
    config = TrainConfig.from_mapping(QUICK | {"eval_every": None, "eval_episodes": 5})
    nexus.train("CartPole-v1", config=config, run_dir=run, listener=Silent())
    stored, said = (run / "agent.safetensors").read_bytes(), json.loads((run / "evaluation.json").read_text())
    words = ["evaluate", str(run), "--episodes", "5", "--seed", str(said["protocol"]["seed"]), "--json"]
    done = subprocess.run([sys.executable, "-m", "nexus", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["returns"] == said["returns"]
    assert (run / "agent.safetensors").read_bytes() == stored


# --- copies, and other ways to run the same ---


def moved(agent: DQNAgent, seed: int) -> dict[str, Any]:
    """The agent's state after a step, an update and a look."""
    rng = np.random.default_rng(seed)
    states = rng.normal(1000, 50, (3, 4)).astype(np.float32)
    agent.observe(states, rng.normal(size=3), rng.random(3) < 0.3, np.ones(3, bool))
    batch = {
        "states": torch.from_numpy(states),
        "actions": torch.tensor([0, 1, 1]),
        "rewards": torch.from_numpy(rng.normal(size=3).astype(np.float32)),
        "discounts": torch.full((3,), 0.9),
        "next_states": torch.from_numpy(states[::-1].copy()),
    }
    outcome = agent.learn(batch)
    return {**agent.get_state(), "loss": outcome.loss.item(), "actions": agent.act(states, 0.0, False)}


def settled(**settings: Any) -> DQNAgent:
    agent = make_agent("dqn", **POLE, state_normalized=True, normalize_rewards=True, **settings)
    for seed in range(5):
        moved(agent, seed)
    return agent


def require_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_equal(value, other[name], err_msg=name)


def test_a_copy_goes_on_as_the_original_would_and_neither_moves_the_other() -> None:
    agent = settled(averaged_updates=3)
    copy, then = deepcopy(agent), agent.get_state()
    require_same(copy.get_state(), then)
    later = moved(agent, 7)
    require_same(copy.get_state(), then)
    require_same(moved(copy, 7), later)
    with pytest.raises(AssertionError):
        require_same(later, then)


def test_an_agent_that_takes_on_a_state_goes_on_as_the_other_would() -> None:
    agent, other = (
        settled(averaged_updates=3),
        make_agent("dqn", **POLE, state_normalized=True, normalize_rewards=True, averaged_updates=3),
    )
    other.set_state(agent.get_state())
    require_same(moved(other, 7), moved(agent, 7))


def test_a_follower_and_a_policy_elsewhere_act_by_the_statistics_of_their_weights() -> None:
    agent = settled()
    follower, elsewhere = agent.policy.follower(), settled(seed=3).policy
    follower.follow()
    weights = agent.policy.get_weights()
    assert len(weights) == len(agent.policy.theta) + 2 * 4
    elsewhere.set_weights(weights)
    for policy in (follower.policy, elsewhere):
        (layer,) = normalizers(policy.network)
        assert layer.mean.tolist() == agent.q_network.torso.normalizer.mean.tolist()  # type: ignore[union-attr, operator]
        assert layer.deviation.tolist() == agent.q_network.torso.normalizer.deviation.tolist()  # type: ignore[union-attr, operator]
    before = normalizers(follower.policy.network)[0].mean.tolist()
    moved(agent, 9)
    assert normalizers(follower.policy.network)[0].mean.tolist() == before
    follower.follow()
    assert normalizers(follower.policy.network)[0].mean.tolist() != before


def test_a_recording_reads_the_statistics_as_they_are_now() -> None:
    eager, recorded = settled(), settled()
    recorder = OnTheCPU()
    recorded.learner.take_step = CapturedStep(recorded.learner, recorder)
    for seed in range(10, 14):
        one, other = moved(eager, seed), moved(recorded, seed)
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-6)
    assert recorder.replayed == 4
    torch.testing.assert_close(recorded.learner.theta, eager.learner.theta, rtol=1e-6, atol=1e-7)


def test_what_was_recorded_once_follows_the_statistics() -> None:
    """A number that was read while recording would stay in the recording for ever."""
    agent = make_agent("dqn", **POLE, state_normalized=True, normalize_rewards=True)
    (layer,), batch = normalizers(agent.q_network), {"rewards": torch.tensor([6.0])}
    recorded = make_fx(lambda states: (layer(states), agent.learner.scaled(batch)["rewards"]))(torch.ones(2, 4))
    agent.observe(np.array([[0, 0, 0, 0], [4, 4, 4, 4]]), np.array([2.0, 6.0]), np.ones(2, bool), np.ones(2, bool))
    states, rewards = recorded(torch.ones(2, 4))
    assert states.tolist() == [[-0.5] * 4] * 2
    assert rewards.tolist() == [3.0]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_graph_on_a_gpu_reads_the_statistics_as_they_are_now() -> None:
    eager, recorded = (settled(device="cuda", cuda_graph=given) for given in (False, True))
    for seed in range(10, 30):
        one, other = moved(eager, seed), moved(recorded, seed)
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-3)
    torch.testing.assert_close(recorded.learner.theta, eager.learner.theta, rtol=1e-3, atol=1e-4)


# --- Dict observations ---


class Mixed(gym.Env[Any, Any]):
    """A choice, heights, a small image, bytes, and a whole number."""

    observation_space = gym.spaces.Dict(
        {
            "choice": gym.spaces.Discrete(3),
            "height": gym.spaces.Box(-np.inf, np.inf, (2,), np.float32),
            "image": gym.spaces.Box(0, 255, (6, 6, 3), np.uint8),
            "memory": gym.spaces.Box(0, 255, (2,), np.uint8),
            "wind": gym.spaces.Box(0, 50, (1,), np.int32),
        }
    )
    action_space = gym.spaces.Discrete(2)

    def look(self) -> dict[str, Any]:
        self.observation_space.seed(int(self.np_random.integers(1 << 30)))
        heights = self.np_random.uniform(900, 1100, 2).astype(np.float32)
        return {**self.observation_space.sample(), "height": heights}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.t = 0
        return self.look(), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        return self.look(), 1.0, False, self.t == 5, {}


def test_of_several_parts_the_vectors_are_normalised_and_the_others_stay(tmp_path: Path) -> None:
    seen = Recording()
    config = TrainConfig.from_mapping(QUICK | {"eval_episodes": 1})
    agent = nexus.train(Mixed, config=config, run_dir=tmp_path / "run", listener=seen).agent
    parts = {part["path"][0]: part for part in agent.config["state_parts"]}
    assert {name for name, part in parts.items() if part.get("state_normalized")} == {"height", "memory", "wind"}
    torso = agent.q_network.torso
    assert isinstance(torso, UnpackingTorso)
    states = np.concatenate(seen.states)
    unpacked = dict(zip(parts, agent.states.composition.unpack(states), strict=True))  # type: ignore[union-attr]
    order = [name for name in parts if name in ("height", "memory", "wind")]
    assert list(parts).index("choice") < list(parts).index("memory")  # so that the torso has to change their order
    numbers = np.concatenate([unpacked[name].astype(np.float64) for name in order], 1)
    (layer,) = normalizers(agent.q_network)
    np.testing.assert_allclose(layer.mean.numpy(), numbers.mean(0), rtol=1e-5)
    np.testing.assert_allclose(layer.deviation.numpy(), numbers.std(0), rtol=1e-5)
    taken: list[torch.Tensor] = []
    torso.numbers.layers[0].register_forward_pre_hook(lambda module, given: taken.append(given[0]))  # type: ignore[union-attr, index]
    agent.q_network(states)
    expected = np.concatenate([(numbers - numbers.mean(0)) / numbers.std(0), unpacked["choice"]], 1)
    np.testing.assert_allclose(taken[0].detach().numpy(), expected, atol=1e-3)


@pytest.mark.parametrize("shape", [(), (2, 3)])
def test_bytes_and_numbers_of_any_shape_below_an_image_are_normalised_as_they_are(shape: tuple[int, ...]) -> None:
    agent = DQNAgent({"state_dim": shape or 1, "action_dim": 2, "hidden_dim": 4, "state_normalized": True})
    states = np.random.default_rng(0).integers(0, 256, (50, *(shape or (1,)))).astype(np.uint8)
    agent.observe(states, np.zeros(50), np.ones(50, bool), np.ones(50, bool))
    numbers = states.reshape(50, -1).astype(np.float64)
    taken: list[torch.Tensor] = []
    agent.q_network.torso.layers[0].register_forward_pre_hook(lambda module, given: taken.append(given[0]))  # type: ignore[union-attr, index]
    agent.q_network(states)
    np.testing.assert_allclose(taken[0].detach().numpy(), (numbers - numbers.mean(0)) / numbers.std(0), atol=1e-4)


# --- refused ---


class Pictures(probes.ConstantReward):
    observation_space = gym.spaces.Box(0, 255, (10, 10, 3), np.uint8)  # type: ignore[arg-type]


class OnlyPictures(probes.ConstantReward):
    observation_space = gym.spaces.Dict({"a": gym.spaces.Box(0, 255, (10, 10, 3), np.uint8)})  # type: ignore[assignment]


def normalized_pole() -> gym.Env[Any, Any]:
    return NormalizeObservation(gym.make("CartPole-v1"))


def paid_in_units() -> gym.Env[Any, Any]:
    return NormalizeReward(gym.make("CartPole-v1"))


IMAGES_STAY = "needs vectors of numbers, since images and discrete states are scaled already; leave it out"


@pytest.mark.parametrize(
    ("env", "says"),
    [
        (Pictures, rf"normalize_observations: Pictures has observations Box.*{IMAGES_STAY}"),
        (OnlyPictures, rf"normalize_observations: OnlyPictures has observations .*{IMAGES_STAY}"),
        ("FrozenLake-v1", r"normalize_observations: FrozenLake-v1 has observations .*needs vectors of numbers"),
        (
            normalized_pole,
            "normalize_observations: a wrapper of the environment normalises them already, by its obs_rms",
        ),
        (paid_in_units, "normalize_rewards: a wrapper of the environment normalises them already, by its return_rms"),
    ],
)
def test_what_can_not_be_normalised_is_refused(env: Any, says: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=says):
        nexus.train(env, run_dir=tmp_path / "run", listener=Silent(), **SETTINGS | BOTH)


def test_the_command_line_refuses_images_in_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ["train", "FrozenLake-v1", "--normalize-observations", "--run-dir", str(tmp_path / "run")]
    assert main(words) == 2
    said = capsys.readouterr().err.strip()
    assert said.count("\n") == 0
    assert "normalize_observations: FrozenLake-v1 has observations" in said


@pytest.mark.parametrize(
    ("config", "network", "says"),
    [
        ({"state_normalized": "yes"}, False, "state_normalized = 'yes': needs"),
        ({"normalize_rewards": 3}, False, "normalize_rewards = 3: needs"),
        (
            {"state_normalized": True, "state_bounds": ([0] * 4, [1] * 4)},
            False,
            "state_bounds scale the states already",
        ),
        ({"state_normalized": True}, True, "the given network has no Normalizer"),
    ],
)
def test_an_agent_refuses_what_does_not_fit(config: dict[str, Any], network: bool, says: str) -> None:
    given = DQNAgent(POLE).q_network if network else None
    with pytest.raises(ConfigError, match=says):
        DQNAgent(POLE | config, network=given)


# --- hostile files ---


@pytest.fixture(scope="module")
def pole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("pole") / "run"
    nexus.train("CartPole-v1", config=TrainConfig.from_mapping(QUICK), run_dir=run, listener=Silent())
    return run


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        (f"{LAYER}.mean", [np.nan, 0, 0, 0], "mean contains NaN or infinity"),
        (f"{LAYER}.deviation", [1, 1, np.inf, 1], "deviation contains NaN or infinity"),
        (f"{LAYER}.deviation", [1, 1, 0, 1], "a deviation of observations is 0: needs a number above 0"),
        (f"{LAYER}.deviation", [1, 1, -2, 1], "a deviation of observations is -2: needs a number above 0"),
        (f"{LAYER}.mean", [0, 0, 0], "needs float32 of shape"),
        (f"{LAYER}.samples", -1, "statistics of -1 observations: needs 0 or more"),
    ],
)
def test_what_can_be_no_statistics_is_refused(name: str, value: Any, says: str, pole: Path, tmp_path: Path) -> None:
    about, weights = (
        json.loads((pole / "run.json").read_text()),
        safetensors.numpy.load_file(pole / "agent.safetensors"),
    )
    assert name in weights
    run = tmp_path / "run"
    run.mkdir()
    write_json(run / "run.json", {**about, "weights": None})
    write_tensors(run / "agent.safetensors", {**weights, name: np.array(value, weights[name].dtype)})
    with pytest.raises(RunError, match=says) as error:
        nexus.load_agent(run)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("observations.mean", np.array([0, 0, np.nan, 0]), "mean contains NaN or infinity"),
        ("observations.var", np.array([0, 0, -1.0, 0]), "var = -1: a variance is 0 or more"),
        ("observations.samples", float("inf"), "no finite number 'samples'"),
        ("observations.samples", -1.0, "samples = -1"),
        ("observations.mean", np.zeros(3), "mean is float64 of shape"),
        ("returns.var", np.array([np.inf]), "var contains NaN or infinity"),
        ("returns.carried", np.array([np.nan, 0]), "carried contains NaN or infinity"),
        ("returns.carried", np.zeros((2, 2)), "carried is float64 of shape"),
        ("returns.carried", None, "no ndarray 'carried'"),
    ],
)
def test_a_state_with_impossible_statistics_is_refused(name: str, value: Any, says: str) -> None:
    state = settled().get_state()
    assert name in state
    with pytest.raises(RunError, match=says):
        settled().set_state(state | {name: value})


@pytest.mark.parametrize("setting", BOTH)
def test_config_and_agent_of_a_run_must_agree_on_them(setting: str, pole: Path, tmp_path: Path) -> None:
    about, weights = (
        json.loads((pole / "run.json").read_text()),
        safetensors.numpy.load_file(pole / "agent.safetensors"),
    )
    run = tmp_path / "run"
    run.mkdir()
    write_json(run / "run.json", {**about, "config": {**about["config"], setting: False}, "weights": None})
    write_tensors(run / "agent.safetensors", weights)
    with pytest.raises(RunError, match=f"config and agent differ in {setting}"):
        nexus.load_agent(run)
