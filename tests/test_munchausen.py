"""Munchausen DQN by numbers that can be computed by hand. Every entry that must not be read is a decoy of ±99."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from nexus.core import Batch, ConfigError, QOutput
from nexus.models.layers import Head
from nexus.models.rl.dqn.agent import DQNAgent
from nexus.models.rl.dqn.dqn import DQNLoss, DQNNetwork, greedy_on_target, huber, squared
from nexus.models.rl.dqn.munchausen_dqn import MunchausenBootstrap
from nexus.ops.munchausen import log_policy, munchausen_bonus, soft_value
from tests import probes
from tests.training import GAMMA, q_values, trained, weights

LN3, LN4 = math.log(3), math.log(4)


def close(actual: Tensor, expected: list[float] | list[list[float]], atol: float = 1e-6) -> None:
    torch.testing.assert_close(actual, torch.tensor(expected), rtol=0, atol=atol)


def nobody(q_network: DQNNetwork, target_output: QOutput, batch: Batch) -> Tensor:
    raise AssertionError("a soft value asks nobody for the next action")


def twice(q_values: Tensor) -> tuple[Tensor, Tensor]:
    """Q-values that decide and are what is weighed."""
    return q_values, q_values


def of_scalars(
    alpha: float = 0.9, temperature: float = 0.03, clip: float = -1.0, of_error: Callable[..., Tensor] = huber
) -> DQNLoss:
    return DQNLoss(of_error, MunchausenBootstrap(alpha, temperature, clip))


# --- log-policy, soft value, bonus ---


def test_the_log_policy_is_that_of_a_softmax() -> None:
    # At temperature 2 the odds are exp(2 ln 3 / 2) = 3 to 1.
    close(log_policy(torch.tensor([[0.0, 2 * LN3], [7.0, 7.0]]), 2.0), [[-LN4, LN3 - LN4], [-math.log(2)] * 2])


def test_the_soft_value_is_the_scaled_log_of_a_sum_of_exponentials() -> None:
    close(soft_value(*twice(torch.tensor([[0.0, 2 * LN3], [7.0, 7.0]])), 2.0), [2 * LN4, 7 + 2 * math.log(2)])


@pytest.mark.parametrize("temperature", [0.03, 1.0, 20.0])
def test_the_soft_value_of_any_q_values_is_that_log_too(temperature: float) -> None:
    q_values = torch.randn(16, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = temperature * torch.logsumexp(q_values / temperature, 1)
    torch.testing.assert_close(soft_value(q_values, q_values, temperature), expected)


@pytest.mark.parametrize("temperature", [1e-1, 1e-3, 1e-6])
def test_the_soft_value_tends_to_the_maximum_from_above(temperature: float) -> None:
    q_values = torch.tensor([[1.0, 3.0, 2.0], [-4.0, -4.0, -4.0]], dtype=torch.float64)
    excess = soft_value(q_values, q_values, temperature) - q_values.amax(1)
    assert (excess >= 0).all()
    assert (excess <= 1.001 * temperature * LN3).all()


@pytest.mark.parametrize("size", [1e4, -1e4])
def test_large_values_and_a_small_temperature_stay_finite_and_exact(size: float) -> None:
    q_values = torch.tensor([[size, size - 0.25, size - 9.0]])
    close(soft_value(q_values, q_values, 0.03), [size])
    close(0.03 * log_policy(q_values, 0.03), [[0.0, -0.25, -9.0]], atol=1e-4)


def test_the_bonus_is_that_of_the_action_taken_clipped_and_then_scaled() -> None:
    q_values = torch.tensor([[0.0, 2 * LN3], [99.0, 0.0], [-99.0, 99.0], [5.0, 5.0]])
    bonus = munchausen_bonus(q_values, torch.tensor([0, 1, 1, 0]), temperature=2.0, alpha=0.5, clip=-3.0)
    # 2 ln ¼ = -2.77 is inside of the clip, -99 is not; the best action by far gets nothing.
    close(bonus, [-LN4, -1.5, 0.0, -math.log(2)])


# --- the loss ---


def tables(*rows: list[float]) -> DQNNetwork:
    """A network whose state is a one-hot row number: a table of Q-values."""
    head = Head(len(rows), len(rows[0]))
    with torch.no_grad():
        head.linear.weight.copy_(torch.tensor(rows).T)  # type: ignore[operator]
        head.linear.bias.zero_()  # type: ignore[operator]
    return DQNNetwork(len(rows), len(rows[0]), torso=torch.nn.Identity(), head=head)


STATES = torch.eye(3)
BATCH = {
    "states": STATES[[0, 0, 1]],
    "actions": torch.tensor([0, 1, 0]),
    "rewards": torch.tensor([1.0, -2.0, 0.5]),
    "discounts": torch.tensor([0.5, 0.0, 0.25]),
    "next_states": STATES[[2, 2, 0]],
    "weights": torch.tensor([99.0, 99.0, 99.0]),  # the agent's business
}
Q_NETWORK = tables([0.25, -1.0], [4.0, 99.0], [99.0, -99.0])
TARGET = tables([0.0, 2 * LN3], [50.0, 50.0], [2.0, 2.0])
LOSS = of_scalars(alpha=0.5, temperature=2.0, clip=-2.0)


def test_the_target_is_reward_plus_bonus_plus_the_discounted_soft_value() -> None:
    out = LOSS(Q_NETWORK, TARGET, nobody, BATCH)
    ln2 = math.log(2)
    expected = [
        1 - 1 + 0.5 * (2 + 2 * ln2),  # 2 ln ¼ is clipped to -2
        -2 + (LN3 - LN4),  # terminal: the bonus stays, the soft value goes
        0.5 - ln2 + 0.25 * 2 * LN4,
    ]
    close(out.metrics["target_mean"], expected)
    errors = torch.tensor(expected) - torch.tensor([0.25, -1.0, 4.0])
    torch.testing.assert_close(out.priorities, errors.abs())
    torch.testing.assert_close(out.loss, huber(errors, torch.zeros(3)))
    torch.testing.assert_close(out.metrics["q_mean"], torch.tensor([[0.25, -1.0], [0.25, -1.0], [4.0, 99.0]]))
    torch.testing.assert_close(
        replace(LOSS, of_error=squared)(Q_NETWORK, TARGET, nobody, BATCH).loss, errors.square() / 2
    )


def test_without_alpha_it_is_soft_q_learning() -> None:
    loss = of_scalars(alpha=0.0, temperature=2.0)
    expected = BATCH["rewards"] + BATCH["discounts"] * 2 * torch.logsumexp(TARGET(BATCH["next_states"]) / 2, 1)
    torch.testing.assert_close(loss(Q_NETWORK, TARGET, nobody, BATCH).metrics["target_mean"], expected.detach())


def test_without_alpha_and_temperature_it_is_dqn() -> None:
    batch = BATCH | {"next_states": STATES[[0, 2, 0]]}
    cold = of_scalars(alpha=0.0, temperature=1e-6)(Q_NETWORK, TARGET, nobody, batch)
    torch.testing.assert_close(cold.loss, DQNLoss()(Q_NETWORK, TARGET, greedy_on_target, batch).loss)


def test_one_item_and_many_agree() -> None:
    many = LOSS(Q_NETWORK, TARGET, nobody, BATCH).loss
    one = [LOSS(Q_NETWORK, TARGET, nobody, {k: v[i : i + 1] for k, v in BATCH.items()}).loss for i in range(3)]
    torch.testing.assert_close(many, torch.cat(one))


def test_the_gradient_goes_to_the_action_taken_and_never_to_the_target_network() -> None:
    out = LOSS(Q_NETWORK, TARGET, nobody, BATCH)
    assert not out.metrics["target_mean"].requires_grad
    assert not out.priorities.requires_grad
    ours, theirs = (list(network.parameters()) for network in (Q_NETWORK, TARGET))
    gradients = torch.autograd.grad(out.loss.sum(), ours + theirs, allow_unused=True)
    assert gradients[0].count_nonzero() == 3  # three different pairs of state and action
    assert set(gradients[2:]) == {None}


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("alpha", 1.5),
        ("alpha", -0.1),
        ("temperature", 0.0),
        ("temperature", math.nan),
        ("clip", 1.0),
        ("clip", -math.inf),
    ],
)
def test_an_impossible_setting_is_named(setting: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"{setting} = {value}: needs"):
        replace(MunchausenBootstrap(), **{setting: value})


# --- learning ---

# Both actions are worth the same in these, so π = ½ and the bonus is α τ ln ½.
WARM = of_scalars(alpha=0.5, temperature=1.0)
BONUS = 0.5 * math.log(0.5)


def test_constant_reward() -> None:
    agent = trained(probes.ConstantReward, loss=WARM, total_steps=1_600)
    np.testing.assert_allclose(q_values(agent, 0, 1), [1 + BONUS] * 2, atol=0.05)


def test_delayed_reward() -> None:
    agent = trained(probes.DelayedReward, loss=WARM)
    last = 1 + BONUS
    np.testing.assert_allclose(q_values(agent, 1, 1), [last] * 2, atol=0.07)
    first = BONUS + GAMMA * (last + math.log(2))
    np.testing.assert_allclose(q_values(agent, 0, 1), [first] * 2, atol=0.07)


def test_the_gap_between_actions_grows_by_one_over_one_minus_alpha() -> None:
    """Q(a) = r(a) + α τ log π(a) without a clip: the gap of 2 becomes 2 / (1 - α), as the paper says."""
    agent = trained(probes.ActionReward, loss=of_scalars(alpha=0.5, temperature=1.0, clip=-10.0))
    worse, better = q_values(agent, 0, 1)
    assert better - worse == pytest.approx(4, abs=0.2)
    assert better == pytest.approx(1 + 0.5 * math.log(1 / (1 + math.exp(-4))), abs=0.1)


def test_the_settings_of_the_paper_find_the_best_actions() -> None:
    agent = trained(probes.MatchReward, loss=of_scalars())
    for signal in (-1, 1):
        assert [q_values(agent, at, signal).argmax() for at in (0, 1)] == [int(signal > 0)] * 2


def test_the_same_seed_gives_the_same_run_and_another_another() -> None:
    def run(seed: int) -> Tensor:
        agent: DQNAgent = trained(probes.MatchReward, loss=of_scalars(), seed=seed, total_steps=400)
        return weights(agent.q_network)

    first = run(0)
    assert torch.equal(first, run(0))
    assert not torch.equal(first, run(1))
