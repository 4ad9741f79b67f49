"""Every algorithm against a table: FrozenLake's Q* by value iteration, or Munchausen's own fixed point."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from nexus.api import agent_for, make_config, replay_for
from nexus.core.types import Transitions
from nexus.models.rl.dqn import DQNAgent
from nexus.tabular import transition_table, value_iteration
from nexus.training.config import TrainConfig
from tests.rollouts import REPLAYED
from tests.test_tabular import frozen_lake, value_of_policy

GAMMA, STATES = 0.9, 16
GOING = [0, 1, 2, 3, 4, 6, 8, 9, 10, 13, 14]  # no hole and not the goal
SOFT = {"munchausen_alpha": 0.5, "munchausen_temperature": 0.05, "munchausen_clip": -1.0}
Floats = NDArray[np.float64]


def every_outcome(env: gym.Env[Any, Any]) -> Transitions:
    """All that can happen, once for each of its equal chances: a replay of it is the environment itself."""
    table = env.unwrapped.P  # type: ignore[attr-defined]
    rows = [(s, a, *outcome[1:]) for s in GOING for a in range(4) for outcome in table[s][a]]
    states, actions, next_states, rewards, ended = (np.array(column) for column in zip(*rows, strict=True))
    one_hot = np.eye(STATES, dtype=np.float32)
    discounts = np.where(ended, 0.0, GAMMA).astype(np.float32)
    return Transitions(one_hot[states], actions, rewards.astype(np.float32), discounts, one_hot[next_states])


def taught(algorithm: str, env: gym.Env[Any, Any], updates: int, **settings: Any) -> DQNAgent:
    """An agent after so many updates from a replay of every outcome, its learning rate falling to 0."""
    common: dict[str, Any] = {"hidden_dim": 64, "hidden_layers": 1, "gamma": GAMMA, "atoms": 51, "quantiles": 8, **SOFT}
    common["boot_mask"] = 1.0  # each outcome is in the replay once, and every head needs it
    config: TrainConfig = make_config("FrozenLake-v1", algorithm=algorithm, **{**common, **settings})
    agent, replay = agent_for((STATES,), 4, config), replay_for(config)
    replay.add(every_outcome(env))
    for update in range(updates):
        agent.optimizer.param_groups[0]["lr"] = 0.01 * (1 - update / updates)
        replay.anneal(update / updates)
        batch = replay.sample(64)
        replay.update_priorities(batch["indices"], agent.learn(batch).priorities)
        if update % 10 == 0:
            agent.update_target_network()
    agent.q_network.eval()
    return agent


def table_of(agent: DQNAgent) -> Floats:
    """Q(s, ·) of every state `[S, A]`."""
    with torch.no_grad():
        values: Floats = agent.q_network(torch.eye(STATES)).double().numpy()
    return values


def munchausen_iteration(env: gym.Env[Any, Any], sweeps: int = 2_000) -> Floats:
    """Q ← r + α [τ log π]_{l₀}^0 + γ P τ log Σ exp(Q / τ) with π = softmax(Q / τ), until it stands still."""
    probabilities, rewards = transition_table(env)
    alpha, tau, clip = SOFT.values()
    q_values: Floats = np.zeros_like(rewards)
    for _ in range(sweeps):
        soft = tau * np.log(np.exp(q_values / tau).sum(1))  # [S], = τ log Σ exp(Q / τ)
        bonus = alpha * np.clip(q_values - soft[:, None], clip, 0)  # τ log π = Q - V
        q_values = rewards + bonus + GAMMA * probabilities @ soft
    return q_values


@pytest.mark.parametrize("algorithm", REPLAYED)
def test_every_algorithm_recovers_the_table(algorithm: str) -> None:
    """Also: in no state does any of them prefer an action that is not a best one, so their policies agree."""
    env = frozen_lake()
    agent = taught(algorithm, env, updates=500)
    soft = agent.settings.munchausen
    learned, q_star = table_of(agent)[GOING], value_iteration(env, GAMMA)[GOING]
    expected = munchausen_iteration(env)[GOING] if soft else q_star
    np.testing.assert_allclose(learned, expected, atol=0.08)
    chosen = learned.argmax(1)
    np.testing.assert_allclose(q_star[range(len(GOING)), chosen], q_star.max(1))


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", REPLAYED)
def test_every_algorithm_finds_a_best_policy_where_the_ice_is_slippery(algorithm: str) -> None:
    env = frozen_lake(slippery=True)
    agent = taught(algorithm, env, updates=3_000, munchausen_temperature=0.003)
    policy = np.zeros(STATES, np.int64)
    policy[GOING] = table_of(agent)[GOING].argmax(1)
    best = value_iteration(env, GAMMA).max(1)
    values = value_of_policy(env, policy, GAMMA)
    np.testing.assert_allclose(values[GOING], best[GOING], atol=0.02)
