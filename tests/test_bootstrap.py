"""Who values the next state: the Munchausen bootstrap under scalar, quantile and implicit-quantile losses alike."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nexus.core import Batch, QOutput
from nexus.models.layers import Head
from nexus.models.rl.dqn.dqn import DQNLoss, DQNNetwork, Loss, greedy_on_target, mean_readout
from nexus.models.rl.dqn.iqn import IQNLoss, IQNNetwork
from nexus.models.rl.dqn.munchausen_dqn import MunchausenBootstrap
from nexus.models.rl.dqn.qr_dqn import QuantileLoss
from nexus.ops.munchausen import soft_value

LN3, LN4 = math.log(3), math.log(4)
WARM = MunchausenBootstrap(alpha=0.5, temperature=2.0, clip=-2.0)
SIZE, ACTIONS = 6, 3


def close(actual: Tensor, expected: Any, atol: float = 1e-5) -> None:
    torch.testing.assert_close(actual, torch.as_tensor(expected), rtol=0, atol=atol)


def nobody(q_network: DQNNetwork, target_output: QOutput, batch: Batch) -> Tensor:
    raise AssertionError("a soft value asks nobody for the next action")


def levels() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def iqn(seed: int) -> IQNNetwork:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return IQNNetwork(2, ACTIONS, 16, acting_levels=4)


def qr(seed: int, quantiles: int) -> DQNNetwork:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return DQNNetwork(2, ACTIONS, 16, head=Head(16, ACTIONS, quantiles), readout=mean_readout)


def random_batch() -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(3)
    return {
        "states": torch.randn(SIZE, 2, generator=random),
        "actions": torch.randint(ACTIONS, (SIZE,), generator=random),
        "rewards": 3 * torch.randn(SIZE, generator=random),
        "discounts": torch.tensor([0.9, 0.0, 0.81] * SIZE)[:SIZE],
        "next_states": torch.randn(SIZE, 2, generator=random),
        "weights": torch.full((SIZE,), 99.0),  # the agent's business
    }


def test_each_sample_is_weighed_by_the_policy_and_gets_the_same_entropy() -> None:
    # π = (¼, ¾) by the Q-values, whatever the samples are.
    entropy = LN4 / 4 + (LN4 - LN3) * 3 / 4
    values = soft_value(torch.tensor([[0.0, 2 * LN3]]), torch.tensor([[[4.0, 8.0], [0.0, 16.0]]]), 2.0)
    close(values, [[1 + 2 * entropy, 14 + 2 * entropy]])


class Rows(DQNNetwork):
    """A state is the number of a row of quantiles, `[A, N]` each."""

    def __init__(self, *rows: list[list[float]]) -> None:
        table = torch.tensor(rows)  # [S, A, N]
        head = nn.Sequential(nn.Linear(len(rows), table[0].numel(), bias=False), nn.Unflatten(-1, table.shape[1:]))
        with torch.no_grad():
            head[0].weight.copy_(table.flatten(1).T)  # type: ignore[operator]
        super().__init__(len(rows), table.shape[1], torso=nn.Identity(), head=head, readout=mean_readout)


def test_the_quantile_target_by_hand() -> None:
    """State 0, action 0 leads to state 1 for 1. Everything that must not be read is a decoy of ±99."""
    online = Rows([[0.5, 1.5], [99.0, -99.0]], [[99.0, 99.0], [-99.0, 99.0]])
    # At s the means are 0 and 2 ln 3: π(0|s) = ¼ and τ log π = -2 ln 4 is clipped to -2. At s' they are the same.
    target = Rows([[-99.0, 99.0], [LN3, 3 * LN3]], [[-4.0, 4.0], [2 * LN3 - 8, 2 * LN3 + 8]])
    batch = {
        "states": torch.tensor([[1.0, 0.0]]),
        "actions": torch.tensor([0]),
        "rewards": torch.tensor([1.0]),
        "discounts": torch.tensor([0.5]),
        "next_states": torch.tensor([[0.0, 1.0]]),
    }
    out = QuantileLoss(bootstrap=WARM)(online, target, nobody, batch)
    low, high = (1 - 1 + 0.5 * (2 * LN4 + spread) for spread in (-7.0, 7.0))
    close(out.metrics["target_mean"], [(low + high) / 2])
    errors = [[y - q for y in (low, high)] for q in (0.5, 1.5)]
    huber = [[u * u / 2 if abs(u) <= 1 else abs(u) - 0.5 for u in row] for row in errors]
    weights = [[abs(level - (u < 0)) for u in row] for level, row in zip((0.25, 0.75), errors, strict=True)]
    loss = sum(weights[i][j] * huber[i][j] / 2 for i in range(2) for j in range(2))
    close(out.loss, [loss])
    close(out.priorities, [abs((low + high) / 2 - 1.0)])


@pytest.mark.parametrize("bootstrap", [WARM, MunchausenBootstrap(), MunchausenBootstrap(0.0, 1.0)], ids=str)
def test_the_implicit_quantile_loss_is_the_definition_with_explicit_loops(bootstrap: MunchausenBootstrap) -> None:
    """α = 0 is soft IQN; the others are M-IQN."""
    online, target, batch, drawn = iqn(0), iqn(1), random_batch(), levels()
    out = IQNLoss(levels(), 3, 5, bootstrap=bootstrap)(online, target, nobody, batch)
    u, v = torch.rand(SIZE, 3, generator=drawn), torch.rand(SIZE, 5, generator=drawn)  # predictions draw first
    alpha, tau, clip = bootstrap.alpha, bootstrap.temperature, bootstrap.clip
    for b in range(SIZE):
        one = {key: value[[b]] for key, value in batch.items()}
        action, discount = int(one["actions"]), float(one["discounts"])
        with torch.no_grad():
            predicted = online.quantiles(one["states"], u[[b]])[0, action].double()
            samples = target.quantiles(one["next_states"], v[[b]])[0].double()  # [A, M]
            here, there = (target(one[key])[0].double() for key in ("states", "next_states"))  # at the acting levels
        log_here, log_there = (q / tau - torch.logsumexp(q / tau, 0) for q in (here, there))
        bonus = alpha * min(max(tau * float(log_here[action]), clip), 0.0)
        loss, mean_target = 0.0, 0.0
        for j in range(5):
            soft = sum(math.exp(log_there[a]) * float(samples[a, j] - tau * log_there[a]) for a in range(ACTIONS))
            y = float(one["rewards"]) + bonus + discount * soft
            mean_target += y / 5
            for i in range(3):
                error = y - float(predicted[i])
                size = error**2 / 2 if abs(error) <= 1 else abs(error) - 0.5
                loss += abs(float(u[b, i]) - (error < 0)) * size / 5
        assert float(out.metrics["target_mean"][b]) == pytest.approx(mean_target, abs=1e-4)
        assert float(out.loss[b].detach()) == pytest.approx(loss, abs=1e-4)
        assert float(out.priorities[b]) == pytest.approx(abs(mean_target - float(predicted.mean())), abs=1e-4)


COLD = MunchausenBootstrap(alpha=0.0, temperature=1e-7)
KINDS: dict[str, tuple[Any, Any]] = {
    "scalar": (lambda seed: qr(seed, 1), lambda **parts: DQNLoss(**parts)),
    "quantile": (lambda seed: qr(seed, 4), lambda **parts: QuantileLoss(**parts)),
    "implicit": (iqn, lambda **parts: IQNLoss(levels(), **parts)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_without_alpha_and_temperature_it_is_greedy(kind: str) -> None:
    network, loss = KINDS[kind]
    cold: Loss = loss(bootstrap=COLD)
    ours = cold(network(0), network(1), nobody, random_batch())
    theirs = loss()(network(0), network(1), greedy_on_target, random_batch())
    torch.testing.assert_close(ours.loss, theirs.loss)
    torch.testing.assert_close(ours.metrics["target_mean"], theirs.metrics["target_mean"])
    warm = loss(bootstrap=WARM)(network(0), network(1), nobody, random_batch())
    assert not torch.allclose(warm.metrics["target_mean"], theirs.metrics["target_mean"])


def test_one_quantile_backs_up_as_a_scalar_does() -> None:
    online, target, batch = qr(0, 1), qr(1, 1), random_batch()
    quantile = QuantileLoss(bootstrap=WARM)(online, target, nobody, batch)
    scalar = DQNLoss(bootstrap=WARM)(online, target, nobody, batch)
    torch.testing.assert_close(quantile.metrics["target_mean"], scalar.metrics["target_mean"])
    torch.testing.assert_close(2 * quantile.loss, scalar.loss)  # |½ - [u < 0]| is ½


def test_a_certain_return_backs_up_as_a_scalar_does() -> None:
    """An embedding that ignores the level makes every quantile the same number."""
    networks = [iqn(0), iqn(1)]
    for network in networks:
        with torch.no_grad():
            network.head.embedding.weight.zero_()
            network.head.embedding.bias.fill_(1.0)
    batch = random_batch()
    implicit = IQNLoss(levels(), bootstrap=WARM)(networks[0], networks[1], nobody, batch)
    scalar = DQNLoss(bootstrap=WARM)(networks[0], networks[1], nobody, batch)
    torch.testing.assert_close(implicit.metrics["target_mean"], scalar.metrics["target_mean"])
    torch.testing.assert_close(implicit.priorities, scalar.priorities)


@pytest.mark.parametrize("kind", KINDS)
def test_no_gradient_reaches_the_target_network(kind: str) -> None:
    network, loss = KINDS[kind]
    online, target = network(0), network(1)
    out = loss(bootstrap=WARM)(online, target, nobody, random_batch())
    ours, theirs = list(online.parameters()), list(target.parameters())
    gradients = torch.autograd.grad(out.loss.sum(), ours + theirs, allow_unused=True)
    assert all(map(torch.any, gradients[: len(ours)]))
    assert set(gradients[len(ours) :]) == {None}
