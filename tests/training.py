"""Train in seconds: a run, or an agent that was put together by hand on a probe."""

from contextlib import closing
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import nexus
from nexus.core import AgentConfig
from nexus.core.seeding import generator
from nexus.core.types import Array
from nexus.data.replay_buffer import ReplayBuffer
from nexus.envs.factory import EnvSource, EnvSpec, make_vector_env
from nexus.envs.stream import TransitionStream
from nexus.models.rl.dqn.agent import DQNAgent
from nexus.models.rl.dqn.dqn import DQNNetwork, Loss
from nexus.training.config import TrainConfig
from nexus.training.loop import Counters, train
from tests.chaos import Silent
from tests.probes import Probe

GAMMA = 0.9
HIDDEN_DIM = 32
QUICK: dict[str, Any] = {
    "total_steps": 2_400,
    "num_envs": 8,
    "learning_starts": 100,
    "update_every": "4 steps",
    "hidden_dim": HIDDEN_DIM,
    "learning_rate": 0.005,
    "gamma": GAMMA,
    "epsilon_min": 0.2,
    "epsilon_steps": 1_000,
    "target_update_every": "20 updates",
}


def short_run(env: EnvSource, folder: Path, **settings: Any) -> nexus.TrainResult:
    """What a short run of a small network leaves that learned something; settings are fields of `TrainConfig`."""
    own: dict[str, Any] = {"preset": "plain", "learning_starts": 100, "hidden_dim": 16, "threads": 1}
    result = nexus.train(env, run_dir=folder / "run", listener=Silent(), **own | settings)
    assert result.counters.updates > 0
    return result


def trained(env: type[Probe], network: DQNNetwork | None = None, loss: Loss | None = None, **settings: Any) -> DQNAgent:
    """An agent after a run on `env`; settings are fields of `TrainConfig`."""
    config = TrainConfig.from_mapping(QUICK | settings)
    own = {field.name: getattr(config, field.name) for field in fields(AgentConfig)}
    shape = env.observation_space.shape
    assert shape is not None
    agent = DQNAgent({"state_dim": shape, "action_dim": 2, **own}, network=network, loss=loss)
    before = weights(agent.q_network)
    counters, replay = Counters(), ReplayBuffer(config.replay_capacity, generator(config.seed, "replay"))
    with closing(make_vector_env(EnvSpec(env), config.num_envs, "sync")) as envs:
        for _ in train(TransitionStream(envs), agent.policy, agent.learner, replay, config, counters):
            pass
    assert counters.updates > 0
    assert not torch.equal(weights(agent.q_network), before)
    return agent


def q_values(agent: DQNAgent, *state: float) -> Array:
    """Q(s, ·) `[A]`."""
    with torch.no_grad():
        values: Array = agent.q_network(np.array(state, np.float32)).numpy()
    return values


def weights(module: nn.Module) -> torch.Tensor:
    """All parameters in one copy `[P]`."""
    return torch.cat([parameter.detach().reshape(-1) for parameter in module.parameters()])
