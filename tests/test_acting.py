"""Acting outside training changes nothing: no generator moves, and what follows is as if nobody had looked."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nexus.core.types import Array
from nexus.models.rl.dqn import DQNAgent, DQNNetwork
from nexus.models.rl.dqn.rainbow import make_agent
from tests.rollouts import NOISY_OR_NOT, with_returns

SETTINGS: dict[str, Any] = {"state_dim": 4, "action_dim": 3, "hidden_dim": 8, "atoms": 5, "quantiles": 4}
STATES = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)


def agent_of(algorithm: str, **settings: Any) -> DQNAgent:
    return make_agent(algorithm, **SETTINGS, averaged_updates=3, **settings)


def learn(agent: DQNAgent) -> None:
    agent.learn(
        with_returns(
            {
                "states": torch.from_numpy(STATES),
                "actions": torch.tensor([0, 1, 2, 0, 1, 2]),
                "rewards": torch.arange(6.0),
                "discounts": torch.full((6,), 0.9),
                "next_states": torch.from_numpy(STATES[::-1].copy()),
            }
        )
    )


def everything(agent: DQNAgent) -> dict[str, Any]:
    """All that acting could change: the state, the noise that lies in the layers, and each module's mode."""
    noise = {f"{name}.{key}": b for name, net in agent.networks.items() for key, b in net.named_buffers()}
    modes = {f"{name}.{key}": m.training for name, net in agent.networks.items() for key, m in net.named_modules()}
    return {**agent.get_state(), **{key: b.numpy().copy() for key, b in noise.items()}, "modes": modes}


def require_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_equal(one[name], other[name], err_msg=name)


@pytest.mark.parametrize(("algorithm", "noisy"), NOISY_OR_NOT)
def test_acting_outside_training_draws_nothing_and_leaves_every_mode(algorithm: str, noisy: bool) -> None:
    agent = agent_of(algorithm, noisy=noisy)
    learn(agent)
    before = everything(agent)
    agent.act(STATES, 0.0, training=False)
    agent.select_action(STATES[0], training=False)
    agent.predict(STATES)
    require_same(everything(agent), before)
    agent.act(STATES, 1.0, training=True)
    if noisy:
        assert not np.array_equal(agent.get_state()["generators.noise"], before["generators.noise"])


@pytest.mark.parametrize(("algorithm", "noisy"), NOISY_OR_NOT)
def test_what_follows_is_as_if_nobody_had_evaluated(algorithm: str, noisy: bool) -> None:
    watched, alone = agent_of(algorithm, noisy=noisy), agent_of(algorithm, noisy=noisy)
    for _ in range(3):
        for agent in (watched, alone):
            learn(agent)
        watched.act(STATES, 0.0, training=False)
        acted = [agent.act(STATES, 0.3).tolist() for agent in (watched, alone)]
        assert acted[0] == acted[1]
        watched.act(STATES[:1], 0.0, training=False)
    watched.act(STATES, 0.0, training=False)
    np.testing.assert_array_equal(watched.learner.state_values(STATES), alone.learner.state_values(STATES))
    require_same(everything(watched), everything(alone))


def test_epsilon_outside_training_tosses_the_agents_own_coins_and_no_other() -> None:
    agent = agent_of("rainbow")
    before = agent.get_state()
    agent.act(STATES, 0.5, training=False)
    after = agent.get_state()
    assert after.pop("exploration") != before.pop("exploration")
    require_same(after, before)


class Falters(nn.Module):
    """A torso that a wrong state makes fail in the middle of acting."""

    def forward(self, states: Tensor) -> Tensor:
        if not self.training:
            raise RuntimeError("no")
        return states


def test_a_failure_outside_training_leaves_the_mode_too() -> None:
    agent = DQNAgent({"state_dim": 4, "action_dim": 3}, network=DQNNetwork(4, 3, 4, torso=Falters()))
    with pytest.raises(RuntimeError, match="no"):
        agent.act(STATES, 0.0, training=False)
    assert all(module.training for module in agent.q_network.modules())


class Dropping(nn.Module):
    """A user's torso with dropout; it counts what it sees in evaluation and in training."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def forward(self, states: Tensor) -> Tensor:
        out: Tensor = self.drop(states)
        return out


def test_layers_that_only_training_disturbs_are_quiet_outside_of_it() -> None:
    """Dropout draws from torch's global generator: outside training it must not, in a user's network either."""
    agent = DQNAgent({"state_dim": 4, "action_dim": 3}, network=DQNNetwork(4, 3, 4, torso=Dropping()))
    before = torch.get_rng_state()
    acted: list[Array] = [agent.act(STATES, 0.0, training=False) for _ in range(3)]
    assert torch.equal(torch.get_rng_state(), before)
    assert acted[0].tolist() == acted[1].tolist() == acted[2].tolist()
    agent.act(STATES, 0.0, training=True)
    assert not torch.equal(torch.get_rng_state(), before)
