"""The maths, by numbers that can be computed by hand. Every entry that must not be read is a decoy of ±99."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from nexus.models.rl.dqn.dqn import huber, squared, td_target
from nexus.ops.action_values import values_of_actions
from nexus.ops.exploration import epsilon_greedy
from nexus.ops.schedules import cosine, exponential, linear, step_decay
from nexus.ops.target_update import hard_update, soft_update


def exactly(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


# --- td ---


def test_the_td_target_bootstraps_by_the_stored_discount_and_not_at_all_after_a_termination() -> None:
    rewards = torch.tensor([1.0, -2.0, 0.5, 4.0])
    discounts = torch.tensor([0.5, 0.25, 0.0, 1.0])
    next_values = torch.tensor([10.0, 8.0, 99.0, -3.0])
    exactly(td_target(rewards, discounts, next_values), torch.tensor([6.0, 0.0, 0.5, 1.0]))


def test_the_values_of_the_actions_taken_are_picked_row_by_row() -> None:
    q_values = torch.tensor([[1.0, 99.0, 99.0], [-99.0, -99.0, 2.0], [99.0, -3.0, 99.0]])
    exactly(values_of_actions(q_values, torch.tensor([0, 2, 1])), torch.tensor([1.0, 2.0, -3.0]))


def test_the_values_of_the_actions_taken_keep_every_atom() -> None:
    q_values = torch.full((2, 3, 4), 99.0)  # [B, A, N]
    q_values[0, 2] = torch.tensor([1.0, 2.0, 3.0, 4.0])
    q_values[1, 0] = torch.tensor([5.0, 6.0, 7.0, 8.0])
    expected = torch.tensor([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]])
    exactly(values_of_actions(q_values, torch.tensor([2, 0])), expected)


@pytest.mark.parametrize("shape", [(1, 3), (1, 3, 2), (1, 1), (3, 1, 1)])
def test_one_row_one_action_or_one_atom_loses_no_dimension(shape: tuple[int, ...]) -> None:
    actions = torch.zeros(shape[0], dtype=torch.int64)
    assert values_of_actions(torch.zeros(shape), actions).shape == (shape[0], *shape[2:])


def test_only_the_action_taken_gets_a_gradient() -> None:
    q_values = torch.zeros(2, 3, requires_grad=True)
    picked = values_of_actions(q_values, torch.tensor([1, 0]))
    (slope,) = torch.autograd.grad((picked * torch.tensor([5.0, 7.0])).sum(), q_values)
    exactly(slope, torch.tensor([[0.0, 5.0, 0.0], [7.0, 0.0, 0.0]]))


# --- losses ---

PREDICTIONS = torch.tensor([0.0, 1.5, 2.0, 5.0, -4.0])
TARGETS = torch.tensor([0.0, 1.0, 3.0, 2.0, 0.0])  # prediction - target = 0, 0.5, -1, 3, -4
Loss = Callable[[Tensor, Tensor], Tensor]


@pytest.mark.parametrize(
    ("loss", "values"),
    [(huber, [0.0, 0.125, 0.5, 2.5, 3.5]), (squared, [0.0, 0.125, 0.5, 4.5, 8.0])],
)
def test_a_loss_is_one_value_per_item(loss: Loss, values: list[float]) -> None:
    exactly(loss(PREDICTIONS, TARGETS), torch.tensor(values))


@pytest.mark.parametrize(
    ("loss", "slopes"),
    [(huber, [0.0, 0.5, -1.0, 1.0, -1.0]), (squared, [0.0, 0.5, -1.0, 3.0, -4.0])],
)
def test_the_slope_is_the_td_error_and_hubers_is_clipped_to_one(loss: Loss, slopes: list[float]) -> None:
    predictions = PREDICTIONS.clone().requires_grad_()
    (slope,) = torch.autograd.grad(loss(predictions, TARGETS).sum(), predictions)
    exactly(slope, torch.tensor(slopes))


# --- schedules ---


@pytest.mark.parametrize(("now", "expected"), [(0, 1.0), (25, 0.8), (50, 0.6), (100, 0.2), (101, 0.2), (10**9, 0.2)])
def test_linear_goes_straight_to_its_end_and_stays(now: int, expected: float) -> None:
    assert linear(1.0, 0.2, 100, now) == pytest.approx(expected)


def test_linear_can_rise() -> None:
    assert [linear(0.4, 1.0, 10, now) for now in (0, 5, 10, 20)] == pytest.approx([0.4, 0.7, 1.0, 1.0])


@pytest.mark.parametrize(("now", "expected"), [(0, 1.0), (1, 0.5), (2, 0.25), (3, 0.2), (4, 0.2), (10**6, 0.2)])
def test_exponential_shrinks_by_a_factor_and_never_below_its_end(now: int, expected: float) -> None:
    assert exponential(1.0, 0.2, 0.5, now) == expected


@pytest.mark.parametrize(
    ("now", "expected"), [(0, 1.0), (25, 0.6 + 0.4 * 0.5**0.5), (50, 0.6), (100, 0.2), (150, 0.2), (200, 0.2)]
)
def test_cosine_follows_half_a_wave_and_stays(now: int, expected: float) -> None:
    assert cosine(1.0, 0.2, 100, now) == pytest.approx(expected)


def test_step_decay_is_torchs_step_lr() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.8)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=3, gamma=0.5)
    rates = []
    for _ in range(10):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates[2:4] == [0.8, 0.4]
    assert [step_decay(0.8, 0.5, 3, now) for now in range(10)] == rates


# --- exploration ---

GREEDY: NDArray[np.int64] = np.full(20_000, 7)  # an action that no random draw below 4 gives


def test_without_epsilon_every_action_is_greedy() -> None:
    greedy = np.arange(50) % 4
    np.testing.assert_array_equal(epsilon_greedy(greedy, 4, 0.0, np.random.default_rng(0)), greedy)


def test_epsilon_one_is_uniform_over_all_actions_and_never_greedy() -> None:
    actions = epsilon_greedy(GREEDY, 4, 1.0, np.random.default_rng(0))
    counts = np.bincount(actions, minlength=8)
    assert counts[4:].sum() == 0
    assert np.abs(counts[:4] - 5_000).max() < 5 * (20_000 * 0.25 * 0.75) ** 0.5


def test_each_environment_draws_its_own_coin_with_probability_epsilon() -> None:
    actions = epsilon_greedy(GREEDY, 4, 0.3, np.random.default_rng(1))
    explored = actions != 7
    assert abs(explored.mean() - 0.3) < 5 * (0.3 * 0.7 / 20_000) ** 0.5
    # Neighbours decide apart from each other: both explore in ε² of the pairs, not in ε.
    both = (explored[::2] & explored[1::2]).mean()
    assert abs(both - 0.09) < 5 * (0.09 * 0.91 / 10_000) ** 0.5


def test_the_coins_do_not_decide_which_random_action_is_taken() -> None:
    actions = epsilon_greedy(GREEDY, 4, 0.3, np.random.default_rng(2))
    counts = np.bincount(actions[actions != 7], minlength=4)
    assert np.abs(counts - counts.mean()).max() < 5 * (6_000 * 0.25 * 0.75) ** 0.5


def test_the_generator_moves_on_equally_far_whatever_epsilon_is() -> None:
    states = []
    for epsilon in (0.0, 0.3, 1.0):
        rng = np.random.default_rng(3)
        epsilon_greedy(np.zeros(5, np.int64), 4, epsilon, rng)
        states.append(rng.bit_generator.state)
    assert states[0] == states[1] == states[2]
    assert states[0] != np.random.default_rng(3).bit_generator.state


def test_exploration_does_not_write_into_the_greedy_actions() -> None:
    greedy = np.full(100, 7)
    epsilon_greedy(greedy, 4, 1.0, np.random.default_rng(0))
    assert (greedy == 7).all()


# --- target update ---


@pytest.mark.parametrize(
    ("tau", "expected"), [(None, [1.0, -2.0, 8.0]), (1.0, [1.0, -2.0, 8.0]), (0.25, [3.25, -0.5, 2.0])]
)
def test_a_target_update_writes_into_the_targets_own_storage_and_leaves_the_source(
    tau: float | None, expected: list[float]
) -> None:
    source, target = torch.tensor([1.0, -2.0, 8.0]), torch.tensor([4.0, 0.0, 0.0])
    view = target[:2]
    if tau is None:
        hard_update(target, source)
    else:
        soft_update(target, source, tau)
    exactly(target, torch.tensor(expected))
    exactly(view, torch.tensor(expected[:2]))
    exactly(source, torch.tensor([1.0, -2.0, 8.0]))


def test_a_hard_update_is_a_copy_and_no_tie() -> None:
    source, target = torch.tensor([1.0]), torch.tensor([4.0])
    hard_update(target, source)
    source.add_(1.0)
    exactly(target, torch.tensor([1.0]))
