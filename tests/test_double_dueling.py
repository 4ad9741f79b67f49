"""Double DQN: who picks and who values. Dueling: what the mean is taken over."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks.overestimation import LENGTH, experience, value_at_start
from nexus.core import QOutput
from nexus.models.layers import NoisyLinear
from nexus.models.rl.dqn import DQNAgent, DQNNetwork
from nexus.models.rl.dqn.double_dqn import greedy_on_online
from nexus.models.rl.dqn.dqn import DQNLoss, NextAction, greedy_on_target, squared
from nexus.models.rl.dqn.dueling_dqn import DuelingHead


class Looked(DQNNetwork):
    """A network whose Q-values are a table: the state is `[row]`."""

    def __init__(self, table: list[list[float]]) -> None:
        super().__init__(1, len(table[0]))
        self.table = torch.tensor(table)

    def output(self, states: Tensor) -> QOutput:
        values = self.table[states[:, 0].long()]
        return QOutput(values, values.unsqueeze(-1))


#                 state 0          state 1           state 2 (from here on: next states)
ONLINE = Looked([[0.0, 0.0, 0.0], [5.0, 1.0, 2.0], [1.0, 2.0, 9.0]])
TARGET = Looked([[7.0, 7.0, 7.0], [3.0, 4.0, 8.0], [6.0, -1.0, 0.5]])


def losses(next_action: NextAction) -> Tensor:
    """Targets `[3]` for s' = 1, 2 and 1 again, the last one terminal."""
    batch = {
        "states": torch.zeros(3, 1),
        "actions": torch.tensor([0, 1, 2]),
        "rewards": torch.tensor([1.0, 2.0, 3.0]),
        "discounts": torch.tensor([0.5, 0.9, 0.0]),
        "next_states": torch.tensor([[1.0], [2.0], [1.0]]),
    }
    return DQNLoss(squared)(ONLINE, TARGET, next_action, batch).metrics["target_mean"]


def test_the_online_network_picks_and_the_target_network_values() -> None:
    """Decoys: the target's own maximum 8 and 6, the online network's own value 5 and 9."""
    next_states = torch.tensor([[1.0], [2.0]])
    assert greedy_on_online(ONLINE, TARGET.output(next_states), {"next_states": next_states}).tolist() == [0, 2]
    torch.testing.assert_close(losses(greedy_on_online), torch.tensor([1 + 0.5 * 3.0, 2 + 0.9 * 0.5, 3.0]))
    torch.testing.assert_close(losses(greedy_on_target), torch.tensor([1 + 0.5 * 8.0, 2 + 0.9 * 6.0, 3.0]))


def agent_after_an_update(next_action: NextAction, apart: bool) -> tuple[Tensor, dict[str, float]]:
    agent = DQNAgent({"state_dim": 4, "action_dim": 3, "seed": 1}, next_action=next_action)
    if apart:
        noise = torch.randn(agent.learner.theta.shape, generator=torch.Generator().manual_seed(0))
        agent.learner.theta_target.add_(noise, alpha=0.3)
    rng = np.random.default_rng(0)
    batch = {
        "states": torch.tensor(rng.normal(size=(32, 4)), dtype=torch.float32),
        "actions": torch.tensor(rng.integers(3, size=32)),
        "rewards": torch.ones(32),
        "discounts": torch.full((32,), 0.99),
        "next_states": torch.tensor(rng.normal(size=(32, 4)), dtype=torch.float32),
    }
    start = agent.learner.theta.clone()
    metrics = agent.learn(batch)
    assert not torch.equal(agent.learner.theta, start)
    return agent.learner.theta.clone(), {name: float(value) for name, value in metrics.items()}


def test_with_identical_networks_it_is_dqn_to_the_bit() -> None:
    double, double_metrics = agent_after_an_update(greedy_on_online, apart=False)
    plain, plain_metrics = agent_after_an_update(greedy_on_target, apart=False)
    assert torch.equal(double, plain)
    assert double_metrics == plain_metrics


def test_with_different_networks_its_targets_are_lower() -> None:
    double, double_metrics = agent_after_an_update(greedy_on_online, apart=True)
    plain, plain_metrics = agent_after_an_update(greedy_on_target, apart=True)
    assert not torch.equal(double, plain)
    assert double_metrics["target_mean"] < plain_metrics["target_mean"]


def test_no_gradient_flows_through_the_choice() -> None:
    network = DQNNetwork(2, 3, hidden_dim=4)
    actions = greedy_on_online(network, network.output(torch.zeros(5, 2)), {"next_states": torch.randn(5, 2)})
    assert actions.shape == (5,)
    assert actions.dtype == torch.int64
    assert not actions.requires_grad


def test_the_noise_of_the_benchmark_is_what_it_says() -> None:
    rows = experience(np.random.default_rng(0), 4_000)
    assert abs(rows.rewards.mean()) < 0.03
    assert rows.rewards.std() == pytest.approx(1, abs=0.03)
    assert (rows.states[:LENGTH] == np.eye(LENGTH)).all()
    assert (rows.next_states[: LENGTH - 1] == rows.states[1:LENGTH]).all()
    np.testing.assert_array_equal(rows.discounts[: 2 * LENGTH], [1, 1, 1, 1, 0] * 2)


def test_dqn_overestimates_and_double_dqn_far_less() -> None:
    """The true value is 0. The full picture, with 20 seeds, is docs/images/overestimation.png."""
    plain, double = (
        np.mean([value_at_start(part, seed, updates=600, every=50)[-4:].mean() for seed in range(3)])
        for part in (greedy_on_target, greedy_on_online)
    )
    assert plain > 0.4
    assert double < 0.5 * plain


def dueling(value: list[float], advantage: list[list[float]]) -> DuelingHead:
    """A head whose streams give these numbers for the features `[1]`: V `[N]`, A `[A, N]`."""
    head = DuelingHead(1, len(advantage), len(value))
    with torch.no_grad():
        for stream, numbers in ((head.value, value), (head.advantage, advantage)):
            assert isinstance(stream, nn.Linear)
            assert stream.bias is not None
            stream.weight.copy_(torch.tensor(numbers).reshape(-1, 1))
            stream.bias.zero_()
    return head


def test_the_mean_is_over_actions_for_each_atom_by_itself() -> None:
    """Three actions and two atoms. Decoys: a mean over atoms (1.5, 4, -0.5) does not even have this shape in
    the other direction, a mean over everything is 5/3, and no mean at all gives 11 first.
    """
    head = dueling([10.0, 20.0], [[1.0, 2.0], [3.0, 5.0], [-1.0, 0.0]])  # means over actions: 1 and 7/3
    out = head(torch.ones(4, 1))
    expected = [[10.0, 20 + 2 - 7 / 3], [12.0, 20 + 5 - 7 / 3], [8.0, 20 - 7 / 3]]
    torch.testing.assert_close(out, torch.tensor(expected).expand(4, 3, 2))
    torch.testing.assert_close(head(torch.ones(1)), torch.tensor(expected))


@pytest.mark.parametrize("hidden_dim", [None, 6])
def test_a_constant_added_to_all_advantages_changes_nothing(hidden_dim: int | None) -> None:
    head, features = DuelingHead(8, 3, 5, hidden_dim=hidden_dim), torch.randn(7, 8)
    before = head(features)
    last = head.advantage[-1] if isinstance(head.advantage, nn.Sequential) else head.advantage
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        last.bias.add_(torch.arange(5.0).repeat(3))  # another constant for each atom, the same for all actions
    torch.testing.assert_close(head(features), before, atol=1e-5, rtol=0)
    with torch.no_grad():
        last.bias[0] += 1
    assert (head(features) - before).abs().max() > 0.5


@pytest.mark.parametrize("hidden_dim", [None, 6])
def test_the_value_is_the_mean_of_q_over_actions(hidden_dim: int | None) -> None:
    head, features = DuelingHead(8, 3, 5, hidden_dim=hidden_dim), torch.randn(7, 8)
    torch.testing.assert_close(head(features).mean(1), head.value(features), atol=1e-5, rtol=0)


def test_one_action_has_no_advantage() -> None:
    head, features = DuelingHead(8, 1), torch.randn(7, 8)
    torch.testing.assert_close(head(features)[:, 0], head.value(features))


@pytest.mark.parametrize(
    ("settings", "parameters"),
    [
        ({}, (8 + 1) * (1 + 3)),
        ({"atoms": 5}, (8 + 1) * (5 + 15)),
        ({"linear": NoisyLinear}, 2 * (8 + 1) * (1 + 3)),
        ({"hidden_dim": 6}, 2 * (8 + 1) * 6 + (6 + 1) * (1 + 3)),
    ],
)
def test_numbers_of_parameters(settings: dict[str, Any], parameters: int) -> None:
    assert sum(parameter.numel() for parameter in DuelingHead(8, 3, **settings).parameters()) == parameters


def test_it_is_a_part_of_a_network_that_learns() -> None:
    network = DQNNetwork(4, 3, hidden_dim=8, head=DuelingHead(8, 3))
    agent = DQNAgent({"state_dim": 4, "action_dim": 3, "learning_rate": 0.01}, network=network)
    batch = {
        "states": torch.randn(32, 4),
        "actions": torch.arange(32) % 3,
        "rewards": torch.arange(32) % 3 * 1.0,
        "discounts": torch.zeros(32),
        "next_states": torch.zeros(32, 4),
    }
    losses = [float(agent.learn(batch)["loss"]) for _ in range(200)]
    assert losses[-1] < 0.05 * losses[0]
    assert agent.act(np.zeros((2, 4), np.float32), 0.0).tolist() == [2, 2]
