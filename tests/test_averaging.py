"""The mean of the weights over updates: what it is, who acts on it, and that it is saved."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import nexus
from nexus.core.errors import ConfigError
from nexus.models.averaging import WeightAverage
from nexus.models.rl.dqn import DQNAgent
from tests.chaos import SETTINGS, Silent

TWO_ACTIONS: dict[str, Any] = {"state_dim": 1, "action_dim": 2, "hidden_dim": 8, "learning_rate": 0.01}


def average_of(updates: int) -> tuple[WeightAverage[nn.Linear], nn.Linear]:
    layer = nn.Linear(3, 1)
    return WeightAverage(layer, updates), layer


def weights(network: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.flatten() for parameter in network.parameters()])


def test_by_hand() -> None:
    """Over two updates: 1; (1 + 3) / 2 = 2; then 2 + (5 - 2) / 2 = 3.5 and 3.5 + (1 - 3.5) / 2 = 2.25."""
    average, _ = average_of(2)
    means = []
    for value in (1.0, 3.0, 5.0, 1.0):
        average.follow(torch.full((4,), value))
        means.append(weights(average.network).tolist())
    assert means == [[mean] * 4 for mean in (1.0, 2.0, 3.5, 2.25)]


@pytest.mark.parametrize("updates", [1, 7, 1000])
def test_it_is_what_a_slow_loop_says(updates: int) -> None:
    average, layer = average_of(updates)
    draws = np.random.default_rng(0).normal(size=(50, 4))
    mean = np.zeros(4)
    for n, drawn in enumerate(draws, 1):
        average.follow(torch.from_numpy(drawn).float())
        mean += (drawn - mean) / min(n, updates)
    np.testing.assert_allclose(weights(average.network).numpy(), mean, rtol=1e-5, atol=1e-6)
    if updates >= len(draws):
        np.testing.assert_allclose(mean, draws.mean(0))
    assert not np.allclose(weights(layer).detach().numpy(), mean)  # the layer itself stays


def disagreeing() -> DQNAgent:
    """An agent whose weights prefer action 0, and their average action 1."""
    agent = DQNAgent({**TWO_ACTIONS, "averaged_updates": 10, "epsilon": 0.0, "epsilon_min": 0.0})
    average = agent.learner.average
    assert average is not None
    with torch.no_grad():
        for network, preferred in ((agent.q_network, 0), (average.network, 1)):
            *_, weight, bias = network.parameters()  # of the last layer
            weight.zero_()
            bias.copy_(torch.eye(2)[preferred])
    return agent


def test_training_acts_on_the_weights_and_all_else_on_their_average() -> None:
    agent, states = disagreeing(), np.zeros((4, 1), np.float32)
    assert agent.act(states, 0.0).tolist() == [0] * 4
    assert agent.act(states, 0.0, training=False).tolist() == [1] * 4
    assert (agent.select_action(states[0]), agent.select_action(states[0], training=False)) == (0, 1)
    assert agent.predict(states)[0].tolist() == [1] * 4
    assert agent.predict(states, deterministic=False)[0].tolist() == [0] * 4
    actor = agent.policy.follower()  # who plays on while the agent learns
    actor.follow()
    assert actor.act(states, 0.0).tolist() == [0] * 4


def test_without_it_there_is_one_set_of_weights_to_act_on() -> None:
    agent = DQNAgent(TWO_ACTIONS)
    assert agent.learner.average is None
    assert agent.networks.keys() == {"q_network", "target_network"}


@pytest.mark.parametrize("algorithm", ["dqn", "rainbow", "iqn"])
def test_learning_is_the_same_and_the_average_is_that_of_its_weights(algorithm: str) -> None:
    made = {"algorithm": algorithm, "v_min": -5.0, "v_max": 5.0, **TWO_ACTIONS}
    plain, averaged = nexus.make_agent(**made), nexus.make_agent(**made, averaged_updates=4)
    rng, mean = np.random.default_rng(1), torch.zeros(())
    for n in range(1, 9):
        batch = {
            "states": torch.from_numpy(rng.normal(size=(8, 1))).float(),
            "next_states": torch.from_numpy(rng.normal(size=(8, 1))).float(),
            "actions": torch.from_numpy(rng.integers(2, size=8)),
            "rewards": torch.from_numpy(rng.normal(size=8)).float(),
            "discounts": torch.full((8,), 0.9),
        }
        for agent in (plain, averaged):
            agent.learn(batch)
        mean = mean + (weights(plain.q_network).detach() - mean) / min(n, 4)
    average = averaged.learner.average
    assert average is not None
    assert torch.equal(weights(averaged.q_network), weights(plain.q_network))
    torch.testing.assert_close(weights(average.network), mean)


def test_a_saved_agent_acts_as_the_one_that_was_evaluated(tmp_path: Path) -> None:
    settings = {**SETTINGS, "num_envs": 2, "epsilon_min": 0.01, "averaged_updates": 25, "learning_rate": 0.05}
    result = nexus.train("CartPole-v1", run_dir=tmp_path / "run", listener=Silent(), **settings)
    states = np.random.default_rng(0).normal(size=(500, 4)).astype(np.float32)
    acted, _ = result.agent.predict(states)
    newest = result.agent.q_network(states).argmax(1).numpy()
    assert (acted != newest).any()  # or this test would say nothing
    for checkpoint in (None, "latest"):
        loaded = nexus.load_agent(tmp_path / "run", checkpoint=checkpoint)
        assert np.array_equal(loaded.predict(states)[0], acted), checkpoint
    again = nexus.evaluate(result.run_dir, episodes=3, seed=5)
    assert again.returns == nexus.evaluate(result.agent, "CartPole-v1", episodes=3, seed=5).returns


def test_fewer_than_one_is_refused() -> None:
    with pytest.raises(ConfigError, match="averaged_updates = 0: needs at least 1, or none"):
        DQNAgent({**TWO_ACTIONS, "averaged_updates": 0})
