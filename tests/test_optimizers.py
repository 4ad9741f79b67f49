"""Adam and RMSProp on one flat vector, held to the written definition and to torch's."""

import subprocess
import sys
from copy import deepcopy

import pytest
import torch

from nexus.models.rl.dqn.rainbow import make_agent
from nexus.ops.optimizers import Adam, CentredRMSProp


def test_the_first_steps_by_hand() -> None:
    theta = torch.tensor([1.0, -2.0])
    optimizer = Adam(theta, lr=0.1, betas=(0.5, 0.75), eps=1.0)
    theta.grad = torch.tensor([3.0, 0.0])
    optimizer.step()  # m̂ = 3, v̂ = 9: 3 / (3 + 1)
    torch.testing.assert_close(theta, torch.tensor([1.0 - 0.1 * 0.75, -2.0]))
    theta.grad = torch.tensor([-1.0, 0.0])
    optimizer.step()  # m = 0.5 · 1.5 - 0.5 = 0.25 over 0.75; v = 0.75 · 2.25 + 0.25 = 1.9375 over 0.4375
    wanted = 0.925 - 0.1 * (0.25 / 0.75) / ((1.9375 / 0.4375) ** 0.5 + 1.0)
    torch.testing.assert_close(theta, torch.tensor([wanted, -2.0]))


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_it_is_the_adam_of_torch(weight_decay: float) -> None:
    start = torch.randn(500, generator=torch.Generator().manual_seed(1))
    mine, theirs = start.clone(), start.clone()
    ours = Adam(mine, lr=3e-3, eps=1e-5, weight_decay=weight_decay)
    reference = torch.optim.AdamW([theirs], lr=3e-3, eps=1e-5, weight_decay=weight_decay)
    source = torch.Generator().manual_seed(2)
    for step in range(200):
        gradient = torch.randn(500, generator=source) * (0.0 if step == 50 else 10.0 ** (step % 5 - 2))
        mine.grad, theirs.grad = gradient.clone(), gradient.clone()
        for each in (ours, reference):
            each.param_groups[0]["lr"] = 3e-3 * (1 - step / 400)
            each.step()
    torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


def test_without_a_gradient_nothing_moves() -> None:
    theta = torch.ones(3)
    optimizer = Adam(theta, weight_decay=0.5)
    theta.grad = torch.ones(3)
    optimizer.zero_grad()
    optimizer.step()
    assert optimizer.state[theta]["step"] == 0
    torch.testing.assert_close(theta, torch.ones(3))


def test_its_state_comes_back_to_the_bit_and_is_read_by_torch() -> None:
    theta, other, third = torch.ones(4), torch.ones(4), torch.ones(4)
    first, second = Adam(theta, lr=0.1, weight_decay=0.01), Adam(other, lr=0.7)
    for _ in range(3):
        theta.grad = torch.tensor([1.0, -2.0, 3.0, 0.5])
        first.step()
    reference = torch.optim.AdamW([third])
    optimizer: torch.optim.Optimizer
    for copy, optimizer in ((other, second), (third, reference)):
        copy.copy_(theta)
        optimizer.load_state_dict(deepcopy(first.state_dict()))
    for each, optimizer in ((theta, first), (other, second), (third, reference)):
        each.grad = torch.tensor([0.1, 0.2, -0.3, 4.0])
        optimizer.step()
    assert torch.equal(theta, other)
    torch.testing.assert_close(theta, third)


def test_an_agent_is_made_and_taught_without_the_compiler_of_torch() -> None:
    code = """
import sys, torch
from nexus.models.rl.dqn import DQNAgent
agent = DQNAgent({"state_dim": 2, "action_dim": 2})
ones, states = torch.ones(4), torch.ones(4, 2)
agent.update({"states": states, "actions": ones.long(), "rewards": ones, "next_states": states, "dones": ones})
sys.exit("torch._dynamo" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_rmsprop_by_hand_has_its_epsilon_inside_the_root() -> None:
    theta = torch.tensor([1.0, -2.0])
    optimizer = CentredRMSProp(theta, lr=0.1, decay=0.75, eps=0.25)
    theta.grad = torch.tensor([2.0, 0.0])
    optimizer.step()  # E[g] = 0.5, E[g²] = 1: 2 / √(1 - 0.25 + 0.25) = 2; with ε outside 2 / (√0.75 + 0.25) = 1.79
    torch.testing.assert_close(theta, torch.tensor([0.8, -2.0]))
    theta.grad = torch.tensor([-4.0, 0.0])
    optimizer.step()  # E[g] = 0.375 - 1 = -0.625, E[g²] = 0.75 + 4 = 4.75: -4 / √(4.75 - 0.390625 + 0.25)
    torch.testing.assert_close(theta, torch.tensor([0.8 + 0.4 / 4.609375**0.5, -2.0]))


@pytest.mark.parametrize("make", [Adam, CentredRMSProp])
def test_a_step_size_in_a_tensor_is_one_in_a_number(make: type[Adam] | type[CentredRMSProp]) -> None:
    """A CUDA graph reads it from a tensor."""
    number, tensor = torch.tensor([0.1, -0.2]), torch.tensor([0.1, -0.2])
    with_number, with_tensor = make(number), make(tensor)
    for step in range(3):
        number.grad = tensor.grad = torch.tensor([0.5, -1.0 - step])
        with_number.step(learning_rate=0.01)
        with_tensor.step(learning_rate=torch.tensor(0.01))
    torch.testing.assert_close(tensor, number)
    assert (number - torch.tensor([0.1, -0.2])).abs().min() > 0.01


def test_the_defaults_of_adam_are_those_of_torch() -> None:
    ours, theirs = Adam(torch.zeros(2)).param_groups[0], torch.optim.AdamW([torch.zeros(2)]).param_groups[0]
    assert all(ours[name] == theirs[name] for name in ("lr", "betas", "eps"))
    assert ours["weight_decay"] == 0.0


def test_the_defaults_of_rmsprop_are_those_of_the_nature_paper() -> None:
    group = CentredRMSProp(torch.zeros(2)).param_groups[0]
    assert (group["lr"], group["decay"], group["eps"]) == (2.5e-4, 0.95, 0.01 / 1024)


def test_rmsprop_is_the_one_of_torch_but_for_epsilon() -> None:
    start = torch.randn(50, generator=torch.Generator().manual_seed(1))
    mine, theirs = start.clone(), start.clone()
    ours, reference = (
        CentredRMSProp(mine, 1e-3, 0.9, 1e-12),
        torch.optim.RMSprop([theirs], 1e-3, 0.9, 1e-12, centered=True),
    )
    source = torch.Generator().manual_seed(2)
    for _ in range(100):
        mine.grad = torch.randn(50, generator=source)
        theirs.grad = mine.grad.clone()
        ours.step()
        reference.step()
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_a_constant_gradient_leaves_no_variance_and_no_nan() -> None:
    theta = torch.zeros(1)
    optimizer = CentredRMSProp(theta, lr=0.01, decay=0.5, eps=1e-4)
    for _ in range(60):
        theta.grad = torch.tensor([0.1])
        optimizer.step()
    assert torch.isfinite(theta).all()
    before = theta.clone()
    optimizer.step()  # the mean is the gradient: 0.1 / √1e-4 = 10
    torch.testing.assert_close(before - theta, torch.tensor([0.1]), rtol=1e-3, atol=0)


def test_an_agent_takes_rmsprop_and_saves_its_state() -> None:
    agent, again = (
        make_agent("dqn", state_dim=3, action_dim=2, optimizer="rmsprop", learning_rate=0.02, seed=seed)
        for seed in (0, 1)
    )
    batch = {"states": torch.randn(4, 3), "actions": torch.tensor([0, 1, 0, 1]), "rewards": torch.ones(4),
             "discounts": torch.ones(4), "next_states": torch.randn(4, 3)}  # fmt: skip
    agent.learn(batch)
    assert agent.optimizer.state[agent.learner.theta]["square"].max() > 0
    again.set_state(agent.get_state())
    for each in (agent, again):
        each.learn(batch)
    assert torch.equal(agent.learner.theta, again.learner.theta)
