"""Does it learn? Reinforcement learning fails silently, so these compare Q-values with what they must be."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

import nexus
from nexus.core.types import Array
from nexus.models.rl.dqn import DQNAgent
from tests import probes

GAMMA = 0.9
QUICK: dict[str, Any] = {
    "preset": "plain",
    "total_steps": 3_000,
    "num_envs": 4,
    "learning_starts": 100,
    "update_every": "4 steps",
    "hidden_dim": 32,
    "learning_rate": 0.005,
    "gamma": GAMMA,
    "epsilon_min": 0.2,
    "epsilon_steps": 1_000,
    "target_update_every": "20 updates",
    "eval_episodes": 20,
}


def trained(env: type[probes.Probe], tmp_path: Path, **settings: Any) -> DQNAgent:
    result = nexus.train(env, run_dir=tmp_path / "run", **{**QUICK, **settings})
    assert result.counters.updates > 0
    return result.agent


def q_values(agent: DQNAgent, *state: float) -> Array:
    with torch.no_grad():
        values: Array = agent.q_network(np.array(state, np.float32)).numpy()
    return values


def test_constant_reward(tmp_path: Path) -> None:
    agent = trained(probes.ConstantReward, tmp_path)
    np.testing.assert_allclose(q_values(agent, 0, 1), [1, 1], atol=0.05)


def test_reward_of_a_signal(tmp_path: Path) -> None:
    agent = trained(probes.SignalReward, tmp_path)
    np.testing.assert_allclose(q_values(agent, 0, 1), [1, 1], atol=0.05)
    np.testing.assert_allclose(q_values(agent, 0, -1), [-1, -1], atol=0.05)


@pytest.mark.parametrize("n_step", [1, 3])
def test_delayed_reward_is_discounted(tmp_path: Path, n_step: int) -> None:
    agent = trained(probes.DelayedReward, tmp_path, n_step=n_step)
    np.testing.assert_allclose(q_values(agent, 1, 1), [1, 1], atol=0.05)
    np.testing.assert_allclose(q_values(agent, 0, 1), [GAMMA, GAMMA], atol=0.05)


def test_reward_of_an_action(tmp_path: Path) -> None:
    agent = trained(probes.ActionReward, tmp_path)
    np.testing.assert_allclose(q_values(agent, 0, 1), [-1, 1], atol=0.05)


def test_reward_of_action_and_state(tmp_path: Path) -> None:
    agent = trained(probes.MatchReward, tmp_path)
    np.testing.assert_allclose(q_values(agent, 1, 1), [0, 1], atol=0.1)
    np.testing.assert_allclose(q_values(agent, 1, -1), [1, 0], atol=0.1)
    np.testing.assert_allclose(q_values(agent, 0, 1), [GAMMA, 1 + GAMMA], atol=0.15)
    np.testing.assert_allclose(q_values(agent, 0, -1), [1 + GAMMA, GAMMA], atol=0.15)


def test_noisy_reward_is_averaged(tmp_path: Path) -> None:
    settings = {
        "loss": "squared",
        "learning_rate": 0.002,
        "learning_rate_schedule": "linear",
        "batch_size": 256,
    }
    agent = trained(probes.NoisyReward, tmp_path, **settings)
    np.testing.assert_allclose(q_values(agent, 0, 1), [1, 1], atol=0.25)


def test_truncation_keeps_its_future(tmp_path: Path) -> None:
    # The doctor would rightly warn that all rewards are the same.
    agent = trained(probes.CutOff, tmp_path, gamma=0.8, total_steps=6_000, doctor="off")
    np.testing.assert_allclose(q_values(agent, 0, 0), [5, 5], atol=0.3)


def test_frozen_lake_is_solved_by_exploring(tmp_path: Path) -> None:
    """The goal is six steps away and pays once: without exploration it is never found."""

    def frozen_lake() -> gym.Env[Any, Any]:
        return gym.make("FrozenLake-v1", is_slippery=False)

    result = nexus.train(
        frozen_lake,
        run_dir=tmp_path / "run",
        **{**QUICK, "total_steps": 12_000, "epsilon_steps": 8_000, "learning_rate": 0.002},
    )
    assert result.evaluation is not None
    assert result.evaluation.mean == 1.0
    start = np.eye(16, dtype=np.float32)[0]
    assert q_values(result.agent, *start).max() == pytest.approx(GAMMA**5, abs=0.06)


def test_cartpole_gets_far_in_seconds(tmp_path: Path) -> None:
    result = nexus.train("CartPole-v1", run_dir=tmp_path / "run", seed=1, target_return=400.0, total_steps=30_000)
    assert result.evaluation is not None
    assert result.evaluation.mean > 350
    assert result.counters.steps < 30_000


def test_same_seed_same_run_other_seed_other_run(tmp_path: Path) -> None:
    def weights(seed: int, name: str) -> torch.Tensor:
        result = nexus.train(
            "CartPole-v1",
            run_dir=tmp_path / name,
            seed=seed,
            total_steps=1_500,
            target_return=None,
            eval_episodes=2,
        )
        assert result.counters.updates > 0
        return torch.cat([parameter.detach().reshape(-1) for parameter in result.agent.q_network.parameters()])

    first, again, other = weights(0, "a"), weights(0, "b"), weights(1, "c")
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
