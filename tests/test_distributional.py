"""C51 and QR-DQN: the projection and the losses by hand and against slow loops, then known values learned."""

import math
from collections.abc import Callable
from contextlib import closing
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from nexus.core import Batch, ConfigError, Outcome
from nexus.data.replay_buffer import ReplayBuffer
from nexus.envs.factory import EnvSpec, make_vector_env
from nexus.envs.stream import TransitionStream
from nexus.models.layers import Head
from nexus.models.rl.dqn import DQNAgent, DQNNetwork
from nexus.models.rl.dqn.c51 import C51Loss, CategoricalReadout
from nexus.models.rl.dqn.dqn import DQNLoss, Loss, greedy_on_target, mean_readout
from nexus.models.rl.dqn.qr_dqn import QuantileLoss
from nexus.ops.distributional import categorical_cross_entropy, project_categorical, quantile_huber, quantile_levels
from nexus.training import loop
from nexus.training.config import TrainConfig
from tests import probes


def close(actual: Tensor, expected: Any, atol: float = 1e-6) -> None:
    expected = torch.as_tensor(expected, dtype=actual.dtype)
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


def all_of(out: Outcome) -> dict[str, Tensor]:
    """All that a loss says, before it is reduced."""
    assert out.metrics.keys() >= {"q_mean", "target_mean"}
    return {"loss": out.loss, "priorities": out.priorities, **out.metrics}


# --- the projection ---

ATOMS = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0])
MASS = [0.1, 0.2, 0.3, 0.4, 0.0]


@pytest.mark.parametrize(
    ("reward", "discount", "expected"),
    [
        (0.0, 1.0, MASS),  # nothing moves
        (0.5, 0.5, [0.05, 0.4, 0.55, 0.0, 0.0]),  # to 0.5, 1, 1.5, 2, 2.5
        (3.0, 0.5, [0.0, 0.0, 0.0, 0.2, 0.8]),  # to 3, 3.5, 4, and beyond v_max
        (-2.0, 1.0, [0.6, 0.4, 0.0, 0.0, 0.0]),  # three atoms to v_min and below, the fourth to 1
        (0.0, 0.25, [0.5, 0.5, 0.0, 0.0, 0.0]),  # to 0, 0.25, 0.5, 0.75, 1
        (1.25, 0.0, [0.0, 0.75, 0.25, 0.0, 0.0]),  # terminated: all of it at the reward
        (2.0, 0.0, [0.0, 0.0, 1.0, 0.0, 0.0]),
        (0.0, 0.0, [1.0, 0.0, 0.0, 0.0, 0.0]),
        (4.0, 0.0, [0.0, 0.0, 0.0, 0.0, 1.0]),
        (99.0, 0.0, [0.0, 0.0, 0.0, 0.0, 1.0]),
        (-99.0, 1.0, [1.0, 0.0, 0.0, 0.0, 0.0]),
    ],
)
def test_the_projection_by_hand(reward: float, discount: float, expected: list[float]) -> None:
    # The rows around it are decoys: what they hold must not matter.
    probabilities = torch.tensor([[0.0, 0.0, 0.0, 0.0, 1.0], MASS, [1.0, 0.0, 0.0, 0.0, 0.0]])
    rewards, discounts = torch.tensor([99.0, reward, -99.0]), torch.tensor([0.7, discount, 0.3])
    close(project_categorical(probabilities, rewards, discounts, ATOMS)[1], expected)


def test_a_whole_place_gives_everything_to_one_atom() -> None:
    """Exactly, at the ends too: where ⌊b⌋ = ⌈b⌉ neither nothing nor twice the mass arrives."""
    for place, atom in enumerate(ATOMS.tolist()):
        projected = project_categorical(torch.tensor([MASS]), torch.tensor([atom]), torch.zeros(1), ATOMS)
        assert projected[0].nonzero().flatten().tolist() == [place]


def test_two_atoms_are_enough() -> None:
    probabilities = torch.tensor([[0.5, 0.5]])
    projected = project_categorical(probabilities, torch.tensor([0.5]), torch.tensor([0.5]), torch.tensor([-1.0, 1.0]))
    close(projected, [[0.25, 0.75]])  # to 0 and 1


def test_a_reward_that_is_no_number_reaches_the_target() -> None:
    projected = project_categorical(torch.tensor([MASS]), torch.tensor([math.nan]), torch.ones(1), ATOMS)
    assert projected.isnan().any()


def slow_projection(probabilities: Tensor, rewards: Tensor, discounts: Tensor, atoms: Tensor) -> Tensor:
    """Item by item, atom by atom, in double precision: each gives its mass to the atoms by a triangle around it."""
    points = atoms.tolist()
    spacing = (points[-1] - points[0]) / (len(points) - 1)
    projected = [[0.0] * len(points) for _ in probabilities]
    for row, masses, reward, discount in zip(
        projected, probabilities.tolist(), rewards.tolist(), discounts.tolist(), strict=True
    ):
        for point, mass in zip(points, masses, strict=True):
            moved = min(max(reward + discount * point, points[0]), points[-1])
            for atom, centre in enumerate(points):
                row[atom] += max(0.0, 1 - abs(moved - centre) / spacing) * mass
    return torch.tensor(projected, dtype=torch.float64)


@st.composite
def projections(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Supports as people set them; rewards anywhere, on an atom, at the ends and far beyond; all kinds of discounts."""
    count = draw(st.sampled_from([2, 3, 11, 51]))
    v_min, v_max = draw(st.sampled_from([(-10.0, 10.0), (-1.0, 1.0), (0.0, 200.0), (-21.0, 0.3)]))
    atoms = torch.linspace(v_min, v_max, count)
    rewards = st.one_of(
        st.floats(2 * v_min - 1, 2 * v_max + 1),
        st.sampled_from(atoms.tolist()),
        st.sampled_from([v_min, v_max, v_max + 1e6, v_min - 1e6]),
    )
    discounts = st.one_of(st.sampled_from([0.0, 1.0, 0.99, 0.99**3, 0.9**10]), st.floats(0, 1))
    items = draw(st.integers(1, 4))
    logits = 5 * torch.randn(items, count, generator=torch.Generator().manual_seed(draw(st.integers(0, 1000))))
    return (
        logits.softmax(1),
        torch.tensor(draw(st.lists(rewards, min_size=items, max_size=items))),
        torch.tensor(draw(st.lists(discounts, min_size=items, max_size=items))),
        atoms,
    )


@settings(deadline=None, max_examples=150)
@given(projections())
def test_the_projection_conserves_mass_and_agrees_with_a_slow_loop(case: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    projected = project_categorical(*case)
    assert projected.min() >= 0
    close(projected.double().sum(1), case[0].double().sum(1), atol=1e-6)
    close(projected.double(), slow_projection(*case), atol=2e-5)  # float32 at 200, in units of a spacing


@pytest.mark.parametrize("count", [2, 7, 51, 101])
def test_mass_is_conserved_for_every_reward_at_an_atom(count: int) -> None:
    for v_min, v_max in [(-10.0, 10.0), (-0.7, 0.1), (0.0, 1000.0)]:
        atoms = torch.linspace(v_min, v_max, count)
        probabilities = torch.randn(count, count, generator=torch.Generator().manual_seed(count)).softmax(1)
        for discount in (0.0, 0.99, 0.99**3, 1.0):
            projected = project_categorical(probabilities, atoms, torch.full((count,), discount), atoms)
            close(projected.double().sum(1), torch.ones(count), atol=1e-6)


# --- the losses ---


def test_the_cross_entropy_is_torchs() -> None:
    random = torch.Generator().manual_seed(0)
    logits, target = 3 * torch.randn(6, 5, generator=random), torch.randn(6, 5, generator=random).softmax(1)
    close(categorical_cross_entropy(logits, target), F.cross_entropy(logits, target, reduction="none"))


def test_the_cross_entropy_by_hand() -> None:
    logits = torch.tensor([[0.0, math.log(3.0)], [0.0, 0.0]])  # p = (1/4, 3/4) and (1/2, 1/2)
    target = torch.tensor([[1.0, 0.0], [0.25, 0.75]])
    close(categorical_cross_entropy(logits, target), [math.log(4.0), math.log(2.0)])


def test_the_levels_are_the_middles_of_equal_parts() -> None:
    close(quantile_levels(1), [0.5])
    close(quantile_levels(4), [0.125, 0.375, 0.625, 0.875])


def slow_quantile_huber(predicted: Tensor, targets: Tensor, levels: Tensor, kappa: float) -> list[float]:
    """The definition, term by term."""
    losses = []
    for item in range(len(predicted)):
        total = 0.0
        for i in range(predicted.shape[1]):
            level = float(levels[i] if levels.dim() == 1 else levels[item, i])
            for j in range(targets.shape[1]):
                error = float(targets[item, j]) - float(predicted[item, i])
                if kappa == 0:
                    size = abs(error)
                elif abs(error) <= kappa:
                    size = 0.5 * error**2 / kappa
                else:
                    size = abs(error) - 0.5 * kappa
                total += abs(level - (1.0 if error < 0 else 0.0)) * size / targets.shape[1]
        losses.append(total)
    return losses


@pytest.mark.parametrize("kappa", [0.0, 0.3, 1.0, 5.0])
@pytest.mark.parametrize(("count", "target_count"), [(1, 1), (4, 4), (3, 7), (5, 1)])
@pytest.mark.parametrize("own_levels", [False, True])
def test_the_quantile_loss_is_its_definition(count: int, target_count: int, own_levels: bool, kappa: float) -> None:
    random = torch.Generator().manual_seed(count)
    predicted = 2 * torch.randn(3, count, generator=random)
    targets = 2 * torch.randn(3, target_count, generator=random)
    levels = torch.rand(3, count, generator=random) if own_levels else quantile_levels(count)
    expected = slow_quantile_huber(predicted, targets, levels, kappa)
    close(quantile_huber(predicted, targets, levels, kappa), expected, atol=1e-5)


def test_the_quantile_loss_by_hand() -> None:
    predicted, targets = torch.tensor([[0.0, 1.0]]), torch.tensor([[0.5, 3.0]])
    levels = torch.tensor([0.25, 0.75])
    # u = 0.5 and 3 for the first; -0.5 and 2 for the second. Huber: 0.125, 2.5; 0.125, 1.5.
    first, second = 0.25 * (0.125 + 2.5) / 2, (0.25 * 0.125 + 0.75 * 1.5) / 2
    close(quantile_huber(predicted, targets, levels), [first + second])
    # Pinball: 0.25 · (0.5 + 3) / 2 and (0.25 · 0.5 + 0.75 · 2) / 2.
    close(quantile_huber(predicted, targets, levels, kappa=0.0), [0.4375 + 0.8125])


def test_the_slope_of_the_pinball_loss_is_the_level_or_the_level_less_one() -> None:
    predicted = torch.tensor([[0.0, 0.0]], requires_grad=True)
    loss = quantile_huber(predicted, torch.tensor([[5.0]]), torch.tensor([0.1, 0.7]), kappa=0.0)
    (above,) = torch.autograd.grad(loss.sum(), predicted)
    loss = quantile_huber(predicted, torch.tensor([[-5.0]]), torch.tensor([0.1, 0.7]), kappa=0.0)
    (below,) = torch.autograd.grad(loss.sum(), predicted)
    close(above, [[-0.1, -0.7]])
    close(below, [[0.9, 0.3]])


@pytest.mark.parametrize("level", [0.1, 0.5, 0.9])
def test_the_pinball_loss_is_lowest_at_the_quantile(level: float) -> None:
    sample = torch.tensor([[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 50.0, 100.0]])  # the mean is a decoy
    grid = torch.arange(0, 101.0).unsqueeze(1)  # [101, 1]
    losses = quantile_huber(grid, sample.expand(101, -1), torch.tensor([level]), kappa=0.0)
    assert float(grid[losses.argmin()]) == np.quantile(sample.numpy(), level)


# --- the loss objects, on networks whose output is their input ---


class Given(DQNNetwork):
    """States are what the network says: `[B, A * N]`, laid out as `[B, A, N]`."""

    def __init__(self, action_dim: int, atoms: int, readout: Callable[[Tensor], Any]) -> None:
        head = nn.Unflatten(-1, (action_dim, atoms))
        super().__init__(action_dim * atoms, action_dim, torso=nn.Identity(), head=head, readout=readout)


def sharp(places: Tensor, atoms: int) -> Tensor:
    """Logits whose softmax is exactly one-hot: `[...] -> [..., N]`."""
    return 300.0 * F.one_hot(places, atoms).float()


def make_batch(states: Tensor, next_states: Tensor, actions: Any, rewards: Any, discounts: Any) -> dict[str, Tensor]:
    return {
        "states": states.flatten(1),
        "next_states": next_states.flatten(1),
        "actions": torch.as_tensor(actions),
        "rewards": torch.as_tensor(rewards),
        "discounts": torch.as_tensor(discounts),
        "weights": torch.ones(len(states)),
    }


def test_the_c51_loss_by_hand() -> None:
    """Two actions, three atoms -1, 0, 1. Action 0 was taken; at s' action 1 is the best; the rest are decoys."""
    network = Given(2, 3, CategoricalReadout(-1.0, 1.0, 3))
    states = torch.tensor([[[0.0, 0.0, math.log(2.0)], [99.0, -99.0, 99.0]]])  # p = (1/4, 1/4, 1/2)
    next_states = torch.log(torch.tensor([[[0.9, 0.05, 0.05], [0.1, 0.1, 0.8]]]))
    batch = make_batch(states, next_states, [0], [0.5], [0.5])
    out = C51Loss()(network, network, greedy_on_target, batch)
    # Atoms move to 0, 0.5 and 1: m_0 = 0.1 + 0.05, m_1 = 0.05 + 0.8.
    cross_entropy = 0.15 * math.log(4.0) + 0.85 * math.log(2.0)
    entropy = -0.15 * math.log(0.15) - 0.85 * math.log(0.85)
    close(out.loss, [cross_entropy])
    close(out.priorities, [cross_entropy - entropy])
    close(out.metrics["target_mean"], [0.85])
    close(out.metrics["q_mean"], [[0.25, 0.0]])


def test_sharp_atoms_back_up_as_scalars_do() -> None:
    random = torch.Generator().manual_seed(0)
    network = Given(3, 11, CategoricalReadout(-5.0, 5.0, 11))
    states, next_states = (sharp(torch.randint(11, (200, 3), generator=random), 11) for _ in range(2))
    rewards = 6 * torch.rand(200, generator=random) - 3
    discounts = torch.tensor([0.0, 1.0, 0.9, 0.9**3]).repeat(50)
    batch = make_batch(states, next_states, torch.randint(3, (200,), generator=random), rewards, discounts)
    out = C51Loss()(network, network, greedy_on_target, batch)
    scalar = DQNLoss()(network, network, greedy_on_target, batch)
    targets = scalar.metrics["target_mean"]
    assert ((targets.abs() > 5).sum() > 10) & ((targets.abs() < 5).sum() > 100)  # both kinds
    close(out.metrics["target_mean"], targets.clamp(-5, 5), atol=1e-5)
    close(out.metrics["q_mean"], scalar.metrics["q_mean"])


def test_any_distribution_backs_up_its_mean_while_nothing_is_clipped() -> None:
    network = Given(2, 21, CategoricalReadout(-4.0, 4.0, 21))
    random = torch.Generator().manual_seed(1)
    states, next_states = torch.randn(2, 50, 2, 21, generator=random)
    rewards, discounts = 0.4 * torch.rand(50, generator=random) - 0.2, torch.full((50,), 0.9)
    batch = make_batch(states, next_states, torch.zeros(50, dtype=torch.int64), rewards, discounts)
    targets = C51Loss()(network, network, greedy_on_target, batch).metrics["target_mean"]
    close(targets, DQNLoss()(network, network, greedy_on_target, batch).metrics["target_mean"], atol=1e-5)


def test_the_priority_is_zero_where_nothing_is_left_to_learn_and_never_below() -> None:
    network = Given(1, 5, CategoricalReadout(0.0, 4.0, 5))
    logits = torch.randn(500, 1, 5, generator=torch.Generator().manual_seed(2))
    batch = make_batch(logits, logits, [0] * 500, [0.0] * 500, [1.0] * 500)
    out = C51Loss()(network, network, greedy_on_target, batch)
    assert out.priorities.min() >= 0
    assert out.priorities.max() < 1e-6
    assert out.loss.min() > 0.1  # the entropy stays


def test_the_quantile_loss_object_by_hand() -> None:
    """Two actions, two quantiles. Action 1 was taken; at s' action 0 is the best by its mean; the rest are decoys."""
    network = Given(2, 2, mean_readout)
    states = torch.tensor([[[99.0, -99.0], [0.0, 1.0]]])
    next_states = torch.tensor([[[1.0, 6.0], [3.0, 3.0]]])
    batch = make_batch(states, next_states, [1], [0.0], [0.5])
    out = QuantileLoss()(network, network, greedy_on_target, batch)
    # Targets 0.5 and 3, levels 1/4 and 3/4: the numbers of the test above.
    close(out.loss, [0.25 * (0.125 + 2.5) / 2 + (0.25 * 0.125 + 0.75 * 1.5) / 2])
    close(out.priorities, [1.75 - 0.5])
    close(out.metrics["target_mean"], [1.75])
    close(out.metrics["q_mean"], [[0.0, 0.5]])


@pytest.mark.parametrize("kind", ["c51", "qr"])
def test_who_picks_the_next_action_is_asked(kind: str) -> None:
    """Where the one asked says action 1, the values of action 1 are used, whatever is greedy."""
    readout = CategoricalReadout(0.0, 4.0, 5) if kind == "c51" else mean_readout
    network, loss = Given(2, 5, readout), C51Loss() if kind == "c51" else QuantileLoss()
    states = sharp(torch.tensor([[4, 1]]), 5)
    next_states = states if kind == "c51" else torch.tensor([[[4.0] * 5, [1.0] * 5]])
    seen: list[Any] = []

    def always_one(q_network: DQNNetwork, target_output: Any, asked: Batch) -> Tensor:
        seen.append((q_network, target_output.q_values.tolist(), asked))
        return torch.ones(len(asked["actions"]), dtype=torch.int64)

    online = deepcopy(network)
    batch = make_batch(states, next_states, [0], [0.5], [0.5])
    close(loss(online, network, always_one, batch).metrics["target_mean"], [1.0])
    close(loss(online, network, greedy_on_target, batch).metrics["target_mean"], [2.5])
    assert len(seen) == 1
    assert seen[0][0] is online
    assert seen[0][1] == [[4.0, 1.0]]
    assert seen[0][2] is batch


# --- with networks that learn ---


def c51_network(atoms: int = 11, v_min: float = -5.0, v_max: float = 5.0) -> DQNNetwork:
    return DQNNetwork(2, 2, 32, head=Head(32, 2, atoms), readout=CategoricalReadout(v_min, v_max, atoms))


def qr_network(atoms: int = 4) -> DQNNetwork:
    return DQNNetwork(2, 2, 32, head=Head(32, 2, atoms), readout=mean_readout)


KINDS: dict[str, tuple[Callable[[], DQNNetwork], Loss]] = {
    "c51": (c51_network, C51Loss()),
    "qr": (qr_network, QuantileLoss()),
}
every_kind = pytest.mark.parametrize(("network", "loss"), KINDS.values(), ids=KINDS)
CONFIG: dict[str, Any] = {"state_dim": 2, "action_dim": 2, "hidden_dim": 32, "device": "cpu"}


def random_batch(size: int = 32) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(3)
    return {
        "states": torch.randn(size, 2, generator=random),
        "next_states": torch.randn(size, 2, generator=random),
        "actions": torch.randint(2, (size,), generator=random),
        "rewards": 3 * torch.randn(size, generator=random),
        "discounts": torch.tensor([0.0, 0.9, 0.81, 0.9]).repeat(size)[:size],
        "weights": torch.ones(size),
    }


def greedy_online(q_network: DQNNetwork, target_output: Any, batch: Batch) -> Tensor:
    return q_network.output(batch["next_states"]).q_values.argmax(1)


@every_kind
def test_gradients_reach_the_online_network_and_no_other(network: Callable[[], DQNNetwork], loss: Loss) -> None:
    online, target = network(), network()
    out = loss(online, target, greedy_online, random_batch())
    for logged in (out.priorities, out.metrics["q_mean"], out.metrics["target_mean"]):
        assert not logged.requires_grad
    out.loss.sum().backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in online.parameters())
    assert all(parameter.grad is None for parameter in target.parameters())


@every_kind
def test_the_target_is_no_function_of_the_online_network(network: Callable[[], DQNNetwork], loss: Loss) -> None:
    """With one network in both roles the gradient is that of the prediction alone."""
    online = network()
    batch = random_batch()
    shared = loss(online, online, greedy_on_target, batch).loss.sum()
    apart = loss(online, deepcopy(online), greedy_on_target, batch).loss.sum()
    for one, other in zip(
        torch.autograd.grad(shared, list(online.parameters())),
        torch.autograd.grad(apart, list(online.parameters())),
        strict=True,
    ):
        close(one, other)


@every_kind
def test_a_batch_of_one_and_a_batch_of_many_agree(network: Callable[[], DQNNetwork], loss: Loss) -> None:
    online, target, batch = network(), network(), random_batch()
    many = loss(online, target, greedy_on_target, batch)
    assert many.loss.shape == many.priorities.shape == many.metrics["target_mean"].shape == (32,)
    for item in range(32):
        one = loss(online, target, greedy_on_target, {key: value[item : item + 1] for key, value in batch.items()})
        for name, value in all_of(many).items():
            close(all_of(one)[name], value[item : item + 1], atol=1e-5)


def test_the_slope_on_the_logits_is_the_difference_of_the_distributions() -> None:
    network = Given(2, 5, CategoricalReadout(0.0, 4.0, 5))
    states = torch.tensor([[[0.0, 1.0, 0.5, -1.0, 2.0], [99.0, 0.0, 0.0, 0.0, 0.0]]], requires_grad=True)
    batch = make_batch(states, torch.zeros(1, 2, 5), [0], [1.25], [0.0])
    (slope,) = torch.autograd.grad(C51Loss()(network, network, greedy_on_target, batch).loss.sum(), states)
    close(slope[0, 0], states[0, 0].detach().softmax(0) - torch.tensor([0.0, 0.75, 0.25, 0.0, 0.0]))
    close(slope[0, 1], torch.zeros(5))


@pytest.mark.parametrize(
    ("kappa", "of_error"),
    [
        (0.0, lambda prediction, target: 0.5 * (target - prediction).abs()),
        (1.0, lambda prediction, target: 0.5 * F.smooth_l1_loss(prediction, target, reduction="none")),
    ],
)
def test_one_quantile_is_the_median_and_half_of_the_scalar_loss(kappa: float, of_error: Any) -> None:
    online, target = qr_network(1), qr_network(1)
    quantile = QuantileLoss(kappa)(online, target, greedy_on_target, random_batch())
    scalar = DQNLoss(of_error)(online, target, greedy_on_target, random_batch())
    for name, value in all_of(scalar).items():
        close(all_of(quantile)[name], value)
    parameters = list(online.parameters())
    for one, other in zip(
        torch.autograd.grad(quantile.loss.sum(), parameters),
        torch.autograd.grad(scalar.loss.sum(), parameters),
        strict=True,
    ):
        close(one, other, atol=1e-5)


def test_the_slope_of_one_exact_quantile_is_half_the_sign_of_its_error() -> None:
    network = Given(1, 1, mean_readout)
    states = torch.tensor([[0.0], [0.0], [0.0]], requires_grad=True)
    batch = make_batch(states, torch.zeros(3, 1), [0, 0, 0], [7.0, -0.2, 0.01], [0.0, 0.0, 0.0])
    (slope,) = torch.autograd.grad(QuantileLoss(0.0)(network, network, greedy_on_target, batch).loss.sum(), states)
    close(slope, [[-0.5], [0.5], [-0.5]])


@every_kind
def test_the_agent_keeps_its_atoms_and_syncs(network: Callable[[], DQNNetwork], loss: Loss) -> None:
    agent = DQNAgent(CONFIG, network=network(), loss=loss)
    start = [parameter.detach().clone() for parameter in agent.q_network.parameters()]
    for _ in range(3):
        agent.update(random_batch())
    assert not any(map(torch.equal, agent.q_network.parameters(), start))
    assert all(map(torch.equal, agent.target_network.parameters(), start))
    agent.update_target_network()
    states = random_batch()["states"]
    close(agent.target_network(states), agent.q_network(states).detach())
    for one in (agent.q_network, agent.target_network):
        if isinstance(one.readout, CategoricalReadout):
            close(one.readout.atoms, torch.linspace(-5, 5, 11))


def test_the_atoms_travel_with_the_state_dict() -> None:
    saved, loaded = c51_network(), c51_network(v_min=-1.0, v_max=1.0)
    loaded.load_state_dict(saved.state_dict())
    states = random_batch()["states"]
    close(loaded(states).detach(), saved(states).detach())


# torch's own import of the compiler warns, and nothing here can change it.
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
@every_kind
def test_the_update_is_one_graph(network: Callable[[], DQNNetwork], loss: Loss) -> None:
    import torch._dynamo as dynamo

    if not hasattr(dynamo.config, "trace_autograd_ops"):
        pytest.skip("needs torch 2.13")
    agent = DQNAgent(CONFIG, network=network(), loss=loss)
    one_graph: Any = torch.compile(agent.learner.gradient, fullgraph=True, backend="eager")
    (gradient, expected), batch = agent.learner.gradient(random_batch()), random_batch()
    with dynamo.config.patch(trace_autograd_ops=True):
        compiled, told = one_graph(batch)
    close(compiled, gradient, atol=1e-5)
    for name, value in all_of(expected).items():
        close(all_of(told)[name], value, atol=1e-5)


@pytest.mark.parametrize(
    ("v_min", "v_max", "atoms", "named"),
    [
        (10.0, -10.0, 51, "v_min"),
        (1.0, 1.0, 51, "v_min"),
        (0.0, math.inf, 51, "v_max"),
        (math.nan, 1.0, 51, "v_min"),
        (-1.0, 1.0, 1, "atoms"),
        (-1.0, 1.0, 0, "atoms"),
    ],
)
def test_an_impossible_support_is_refused(v_min: float, v_max: float, atoms: int, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        CategoricalReadout(v_min, v_max, atoms)


@pytest.mark.parametrize("kappa", [-1.0, math.nan, math.inf])
def test_an_impossible_kappa_is_refused(kappa: float) -> None:
    with pytest.raises(ConfigError, match="kappa"):
        QuantileLoss(kappa)


def test_qr_dqn_refuses_logits_and_reads_a_scalar_as_the_median() -> None:
    """Logits have the shape of quantiles, so that nothing else would say that they are none."""
    batch = random_batch()
    with pytest.raises(ConfigError, match="this one outputs no quantiles"):
        QuantileLoss()(c51_network(), c51_network(), greedy_on_target, batch)
    scalar, one = DQNNetwork(2, 2, 32), qr_network(1)
    one.load_state_dict(scalar.state_dict())
    out, same = (QuantileLoss()(network, network, greedy_on_target, batch) for network in (scalar, one))
    torch.testing.assert_close(out.loss, same.loss)
    torch.testing.assert_close(out.metrics["q_mean"], same.metrics["q_mean"])


def test_c51_refuses_a_network_without_atoms() -> None:
    with pytest.raises(ConfigError, match="CategoricalReadout"):
        C51Loss()(qr_network(), qr_network(), greedy_on_target, random_batch())


# --- learning ---

GAMMA = 0.9
QUICK: dict[str, Any] = {
    "total_steps": 1_500,
    "num_envs": 4,
    "learning_starts": 100,
    "learning_rate": 0.005,
    "learning_rate_schedule": "linear",
    "gamma": GAMMA,
    "epsilon_schedule": "constant",
    "target_update_every": "20 updates",
}


def trained(env: type[probes.Probe], network: DQNNetwork, loss: Loss, **more: Any) -> DQNNetwork:
    config = TrainConfig(**(QUICK | more))
    agent = DQNAgent(CONFIG | {"learning_rate": config.learning_rate}, network=network, loss=loss)
    counters = loop.Counters()
    with closing(make_vector_env(EnvSpec(env), config.num_envs)) as vector_env:
        replay = ReplayBuffer(config.replay_capacity, seed=0)
        for _ in loop.train(TransitionStream(vector_env), agent, agent, replay, config, counters):
            pass
    assert counters.updates > 300
    return agent.q_network


@pytest.fixture(autouse=True)
def _same_networks() -> None:
    torch.manual_seed(0)


STATES = torch.tensor([[0.0, 1.0], [0.0, -1.0]])  # both signals at the start


@every_kind
def test_constant_reward(network: Callable[[], DQNNetwork], loss: Loss) -> None:
    learned = trained(probes.ConstantReward, network(), loss)
    close(learned(STATES).detach(), [[1.0, 1.0], [1.0, 1.0]], atol=0.05)


@every_kind
@pytest.mark.parametrize("n_step", [1, 3])
def test_delayed_reward_is_discounted(network: Callable[[], DQNNetwork], loss: Loss, n_step: int) -> None:
    learned = trained(probes.DelayedReward, network(), loss, n_step=n_step)
    close(learned(STATES).detach(), [[GAMMA, GAMMA], [GAMMA, GAMMA]], atol=0.05)
    close(learned(torch.tensor([[1.0, 1.0]])).detach(), [[1.0, 1.0]], atol=0.05)


@every_kind
def test_reward_of_action_and_state(network: Callable[[], DQNNetwork], loss: Loss) -> None:
    learned = trained(probes.MatchReward, network(), loss)
    close(learned(STATES).detach(), [[GAMMA, 1 + GAMMA], [1 + GAMMA, GAMMA]], atol=0.15)


def test_c51_finds_both_rewards_and_their_mean() -> None:
    learned = trained(probes.NoisyReward, c51_network(), C51Loss(), batch_size=256)
    output = learned.output(STATES)
    probabilities = output.distribution.detach().softmax(-1)  # [2, A, N], atoms -5 to 5
    low, high = probabilities[..., 4], probabilities[..., 8]  # at -1 and at 3
    close(low, torch.full((2, 2), 0.5), atol=0.08)  # a few hundred draws each
    close(low + high, torch.ones(2, 2), atol=0.02)  # and nowhere else
    close(output.q_values.detach(), 3 * high - low, atol=0.02)
    close(output.q_values.detach().mean(), 1.0, atol=0.15)


def test_qr_dqn_finds_both_rewards_and_their_mean() -> None:
    """With Huber's bend at 1 the inner quantiles would be pulled together; a small κ leaves them at the rewards."""
    learned = trained(probes.NoisyReward, qr_network(), QuantileLoss(0.1), batch_size=256)
    output = learned.output(STATES)
    close(output.distribution.detach(), torch.tensor([-1.0, -1.0, 3.0, 3.0]).expand(2, 2, 4), atol=0.15)
    close(output.q_values.detach(), torch.ones(2, 2), atol=0.05)
