"""Implicit quantile networks: shapes, numbers by explicit loops, and distributions that must be recovered."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nexus.core import Batch, ConfigError, QOutput
from nexus.core.seeding import seed_of
from nexus.models.layers import Head, MLPTorso
from nexus.models.rl.dqn.agent import DQNAgent
from nexus.models.rl.dqn.dqn import DQNNetwork, greedy_on_target
from nexus.models.rl.dqn.iqn import ImplicitQuantileHead, IQNLoss, IQNNetwork
from tests import probes
from tests.training import GAMMA, HIDDEN_DIM, q_values, trained, weights


def noise(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed_of(seed, "noise"))


def network(seed: int = 0, state_dim: int | tuple[int, ...] = 2, action_dim: int = 2, **parts: Any) -> IQNNetwork:
    with torch.random.fork_rng():
        torch.manual_seed(seed_of(seed, "initialisation"))
        return IQNNetwork(state_dim, action_dim, HIDDEN_DIM, **parts)


def batch(size: int = 6, seed: int = 0) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(seed)
    return {
        "states": torch.randn(size, 2, generator=random),
        "actions": torch.randint(3, (size,), generator=random),
        "rewards": 3 * torch.randn(size, generator=random),
        "discounts": torch.tensor([0.9, 0.0, 0.81] * size)[:size],
        "next_states": torch.randn(size, 2, generator=random),
        "weights": torch.full((size,), 99.0),  # the agent's business
    }


# --- the network ---


def test_quantiles_are_given_for_every_state_action_and_level() -> None:
    iqn, states = network(action_dim=3), torch.randn(5, 2)
    levels = torch.rand(5, 7)
    quantiles = iqn.quantiles(states, levels)
    assert quantiles.shape == (5, 3, 7)
    one_by_one = torch.cat([iqn.quantiles(states[[i]], levels[[i]]) for i in range(5)])
    torch.testing.assert_close(quantiles, one_by_one)
    backwards = iqn.quantiles(states, levels.flip(1))
    torch.testing.assert_close(backwards.flip(2), quantiles)  # a quantile depends on its own level only


def test_one_row_of_levels_serves_all_states() -> None:
    iqn, states, levels = network(), torch.randn(5, 2), torch.rand(7)
    torch.testing.assert_close(iqn.quantiles(states, levels), iqn.quantiles(states, levels.expand(5, 7)))


def test_a_quantile_by_the_formula_of_the_paper() -> None:
    head = ImplicitQuantileHead(2, Head(2, 1), cosines=3, acting_levels=1)
    with torch.no_grad():
        head.embedding.weight.copy_(torch.tensor([[1.0, 2.0, 3.0], [-9.0, 1.0, 0.0]]))
        head.embedding.bias.copy_(torch.tensor([0.5, 0.0]))
        head.head.linear.weight.copy_(torch.tensor([[2.0, 99.0]]))  # type: ignore[operator, union-attr]
        head.head.linear.bias.fill_(-1.0)  # type: ignore[operator, union-attr]
    # Cosines at ⅓ are cos 0, cos π/3, cos 2π/3 = 1, ½, -½: embedded 1, and -8½ which ReLU makes 0.
    quantile = head.at(torch.tensor([[3.0, 5.0]]), torch.tensor([1 / 3]))
    torch.testing.assert_close(quantile, torch.tensor([[[2 * 3 * 1.0 - 1]]]))


def test_q_values_are_the_mean_over_evenly_spaced_levels() -> None:
    iqn, states = network(acting_levels=4), torch.randn(5, 2)
    out = iqn.output(states)
    quantiles = iqn.quantiles(states, torch.tensor([0.125, 0.375, 0.625, 0.875]))
    torch.testing.assert_close(out.distribution, quantiles)
    torch.testing.assert_close(out.q_values, quantiles.mean(2))
    assert torch.equal(iqn(states), iqn(states))  # acting draws nothing


def test_it_fits_where_a_dqn_network_fits() -> None:
    iqn = network(state_dim=(2, 3), action_dim=4)
    assert isinstance(iqn, DQNNetwork)
    assert (iqn.state_shape, iqn.action_dim) == ((2, 3), 4)
    assert isinstance(iqn.torso, MLPTorso)
    states = np.random.default_rng(0).integers(256, size=(5, 2, 3), dtype=np.uint8)
    many = iqn(states)
    assert many.shape == (5, 4)
    torch.testing.assert_close(torch.stack([iqn(state) for state in states]), many)
    torch.testing.assert_close(iqn(states[:1]), many[:1])


def test_another_head_may_follow_the_product() -> None:
    hidden = nn.Sequential(nn.Linear(HIDDEN_DIM, 8), nn.ReLU(), nn.Linear(8, 3), nn.Unflatten(-1, (3, 1)))
    iqn = network(action_dim=3, head=hidden)
    assert iqn.quantiles(torch.randn(5, 2), torch.rand(5, 7)).shape == (5, 3, 7)
    assert iqn(torch.randn(2)).shape == (3,)


def test_what_is_saved_fits_a_network_that_acts_on_other_levels() -> None:
    iqn, other = network(seed=0), network(seed=1, acting_levels=5)
    other.load_state_dict(iqn.state_dict())
    states, levels = torch.randn(5, 2), torch.rand(5, 7)
    assert torch.equal(other.quantiles(states, levels), iqn.quantiles(states, levels))


# --- the loss ---


def test_the_loss_is_the_definition_with_explicit_loops() -> None:
    online, target, data = network(0, action_dim=3), network(1, action_dim=3), batch()
    kappa, samples, target_samples = 0.5, 3, 5
    out = IQNLoss(noise(), samples, target_samples, kappa)(online, target, greedy_on_target, data)
    same = noise()  # predictions draw first
    levels, target_levels = torch.rand(6, samples, generator=same), torch.rand(6, target_samples, generator=same)
    with torch.no_grad():
        for b in range(6):
            action = data["actions"][b]
            predicted = online.quantiles(data["states"][[b]], levels[[b]])[0]  # [A, N]
            next_action = target(data["next_states"][b]).argmax()
            following = target.quantiles(data["next_states"][[b]], target_levels[[b]])[0, next_action]
            loss, errors = 0.0, []
            for i in range(samples):
                for j in range(target_samples):
                    y = data["rewards"][b] + data["discounts"][b] * following[j]
                    error = float(y - predicted[action, i])
                    errors.append(error)
                    size = error**2 / 2 if abs(error) <= kappa else kappa * (abs(error) - kappa / 2)
                    loss += abs(float(levels[b, i]) - (error < 0)) * size / kappa / target_samples
            assert float(out.loss[b]) == pytest.approx(loss, abs=1e-5)
            assert float(out.priorities[b]) == pytest.approx(abs(np.mean(errors)), abs=1e-5)
            y = data["rewards"][b] + data["discounts"][b] * following.mean()
            assert float(out.metrics["target_mean"][b]) == pytest.approx(float(y), abs=1e-5)
            torch.testing.assert_close(out.metrics["q_mean"][b], predicted.mean(1))


def test_the_next_action_is_whose_it_is_asked_of() -> None:
    online, target, data = network(0, action_dim=3), network(1, action_dim=3), batch()
    seen = []

    def last(q_network: DQNNetwork, target_output: QOutput, asked: Batch) -> Tensor:
        seen.append((q_network is online, torch.equal(target_output.q_values, target(asked["next_states"]))))
        assert asked is data
        return torch.full((6,), 2)

    out = IQNLoss(noise(), 1, 500)(online, target, last, data)
    assert seen == [(True, True)]
    expected = data["rewards"] + data["discounts"] * target(data["next_states"])[:, 2]
    torch.testing.assert_close(
        out.metrics["target_mean"], expected.detach(), atol=0.05, rtol=0
    )  # means over drawn levels


def test_levels_are_uniform_fresh_and_the_generators() -> None:
    loss, rewards = IQNLoss(noise()), torch.zeros(2_000)
    first, second = loss.draw(rewards, 8), loss.draw(rewards, 8)
    assert first.shape == (2_000, 8)
    assert not torch.equal(first, second)
    assert first.min() >= 0
    assert first.max() < 1
    assert float(first.mean()) == pytest.approx(0.5, abs=5 * math.sqrt(1 / 12 / 16_000))  # 5 standard errors
    assert float(first.var()) == pytest.approx(1 / 12, abs=0.004)
    assert torch.equal(first, IQNLoss(noise()).draw(rewards, 8))
    assert not torch.equal(first, IQNLoss(noise(1)).draw(rewards, 8))


def test_no_gradient_reaches_the_target_network() -> None:
    online, target = network(0, action_dim=3), network(1, action_dim=3)
    out = IQNLoss(noise())(online, target, greedy_on_target, batch())
    assert not out.metrics["target_mean"].requires_grad
    assert not out.priorities.requires_grad
    assert not out.metrics["q_mean"].requires_grad
    ours, theirs = list(online.parameters()), list(target.parameters())
    gradients = torch.autograd.grad(out.loss.sum(), ours + theirs, allow_unused=True)
    assert all(map(torch.any, gradients[: len(ours)]))
    assert set(gradients[len(ours) :]) == {None}


def test_another_network_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="IQNLoss needs an IQNNetwork, got a DQNNetwork"):
        IQNLoss(noise())(DQNNetwork(2, 3), DQNNetwork(2, 3), greedy_on_target, batch())


@pytest.mark.parametrize(("setting", "value"), [("samples", 0), ("target_samples", 0), ("kappa", math.nan)])
def test_an_impossible_setting_of_the_loss_is_named(setting: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"{setting} = {value}: needs"):
        IQNLoss(noise(), **{setting: value})


@pytest.mark.parametrize("setting", ["cosines", "acting_levels"])
def test_an_impossible_setting_of_the_network_is_named(setting: str) -> None:
    with pytest.raises(ConfigError, match=f"{setting} = 0: needs at least 1"):
        network(**{setting: 0})


# --- learning ---


def taught(env: type[probes.Probe], *, seed: int = 0, kappa: float = 1.0, **settings: Any) -> DQNAgent:
    return trained(env, network(seed), IQNLoss(noise(seed), kappa=kappa), seed=seed, **settings)


def test_constant_reward() -> None:
    agent = taught(probes.ConstantReward, total_steps=1_200)
    np.testing.assert_allclose(q_values(agent, 0, 1), [1, 1], atol=0.05)


def test_delayed_reward() -> None:
    agent = taught(probes.DelayedReward, total_steps=1_600)
    np.testing.assert_allclose(q_values(agent, 1, 1), [1, 1], atol=0.05)
    np.testing.assert_allclose(q_values(agent, 0, 1), [GAMMA, GAMMA], atol=0.05)


def test_noisy_reward_is_known_by_its_quantiles() -> None:
    """Half of the mass at -1, half at 3: a small κ keeps the quantiles on it, where κ = 1 would smear them by 1."""
    agent = taught(probes.NoisyReward, kappa=0.1, learning_rate_schedule="linear", total_steps=1_600)
    np.testing.assert_allclose(q_values(agent, 0, 1), [1, 1], atol=0.3)
    assert isinstance(agent.q_network, IQNNetwork)
    with torch.no_grad():
        quantiles = agent.q_network.quantiles(torch.tensor([[0.0, 1.0]]), torch.tensor([0.1, 0.25, 0.75, 0.9]))
    np.testing.assert_allclose(quantiles[0].numpy(), [[-1, -1, 3, 3]] * 2, atol=0.35)


def test_iqn_and_dqn_come_to_the_same_greedy_policy() -> None:
    states = [(at, signal) for at in (0, 1) for signal in (-1, 1)]
    policies = [
        [q_values(agent, *state).argmax() for state in states]
        for agent in (taught(probes.MatchReward, total_steps=1_200), trained(probes.MatchReward, total_steps=1_200))
    ]
    assert policies[0] == policies[1] == [0, 1, 0, 1]


def test_the_same_seed_gives_the_same_run_and_another_another() -> None:
    def run(of_network: int, of_levels: int) -> Tensor:
        agent = trained(probes.MatchReward, network(of_network), IQNLoss(noise(of_levels)), total_steps=300)
        return weights(agent.q_network)

    first = run(0, 0)
    assert torch.equal(first, run(0, 0))
    assert not torch.equal(first, run(0, 1))  # the levels alone
    assert not torch.equal(first, run(1, 0))
