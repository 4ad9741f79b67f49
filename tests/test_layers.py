"""Torsos, heads and flat parameters."""

from typing import Any

import pytest
import torch
from torch import nn

from nexus.models.layers import Head, MLPTorso, ScaleToBounds, flatten_parameters, scale
from nexus.models.rl.dqn import DQNAgent, DQNNetwork


@pytest.mark.parametrize("shape", [(), (4,), (3, 2), (4, 6, 6)])
def test_a_torso_takes_states_of_any_shape_alone_or_in_a_batch(shape: tuple[int, ...]) -> None:
    torso = MLPTorso(shape, hidden_dim=8)
    states = torch.randn(5, *shape)
    batched = torso(states)
    assert batched.shape == (5, 8)
    torch.testing.assert_close(torso(states[2]), batched[2])


def test_bytes_are_scaled_and_other_numbers_are_not() -> None:
    torso = MLPTorso((2,), hidden_dim=4)
    torch.testing.assert_close(torso(torch.tensor([255, 0], dtype=torch.uint8)), torso(torch.tensor([1.0, 0.0])))
    torch.testing.assert_close(torso(torch.tensor([3, 0])), torso(torch.tensor([3.0, 0.0])))


@pytest.mark.parametrize(
    ("dtype", "span", "seen", "wanted"),
    [
        (torch.uint8, (0, 1), [0, 1], [0.0, 1.0]),
        (torch.uint8, (0, 255), [0, 51, 255], [0.0, 0.2, 1.0]),
        (torch.uint8, (10, 20), [10, 15, 20], [0.0, 0.5, 1.0]),
        (torch.int8, (-5, 5), [-5, 0, 5], [0.0, 0.5, 1.0]),
        (torch.int64, (0, 8), [0, 2, 8], [0.0, 0.25, 1.0]),
        (torch.float32, (-5, 5), [-5, 0, 2.5], [0.0, 0.5, 0.75]),  # as `predict` hands on a list
        (torch.bool, (0, 1), [0, 1], [0.0, 1.0]),
        (torch.uint8, None, [0, 1, 255], [0.0, 1 / 255, 1.0]),
        (torch.int64, None, [0, 2, 8], [0.0, 2.0, 8.0]),
    ],
)
def test_a_span_is_mapped_to_0_and_1(dtype: torch.dtype, span: Any, seen: list[float], wanted: list[float]) -> None:
    states = torch.tensor(seen, dtype=dtype)
    before = states.clone()
    scaled = scale(states, span)
    assert scaled.dtype == torch.float32
    torch.testing.assert_close(scaled, torch.tensor(wanted), rtol=0, atol=1e-7)
    assert torch.equal(states, before)  # they may lie in a replay


def test_bytes_from_0_to_255_are_what_they_are_without_a_span_bit_for_bit() -> None:
    states = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(scale(states, (0, 255)), scale(states))
    assert torch.equal(scale(states), states.float() / 255)


def test_an_mlp_scales_by_its_span() -> None:
    spanned, plain = MLPTorso((2, 2), 4, span=(0, 4)), MLPTorso((2, 2), 4)
    plain.load_state_dict(spanned.state_dict())
    states = torch.tensor([[[0, 1], [2, 4]]], dtype=torch.uint8)
    torch.testing.assert_close(spanned(states), plain(states.float() / 4))


def test_bounds_are_mapped_to_one() -> None:
    scaled = ScaleToBounds([-4.8, 0.0, -1.0], [4.8, 10.0, 1.0])
    states = torch.tensor([[-4.8, 0.0, -1.0], [4.8, 10.0, 1.0], [0.0, 2.5, 30.0]])
    wanted = torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0], [0.0, -0.5, 30.0]])
    torch.testing.assert_close(scaled(states), wanted)
    assert not scaled.state_dict()


def test_a_torso_scales_what_it_sees_by_its_bounds() -> None:
    scaled, plain = MLPTorso((2, 1), 4, bounds=([0.0, -1.0], [10.0, 1.0])), MLPTorso((2, 1), 4)
    plain.load_state_dict(scaled.state_dict())
    torch.testing.assert_close(scaled(torch.tensor([[[5.0], [0.5]]])), plain(torch.tensor([[[0.0], [0.5]]])))


def test_hidden_layers_and_layer_norm_are_built_as_asked() -> None:
    plain, normed = MLPTorso((4,), 8, hidden_layers=3), MLPTorso((4,), 8, hidden_layers=3, layer_norm=True)
    kinds = [type(layer) for layer in normed.layers]
    assert [type(layer) for layer in plain.layers] == [nn.Linear, nn.ReLU] * 3
    assert kinds == [nn.Linear, nn.LayerNorm, nn.ReLU] * 3
    features = normed.layers[:-1](torch.randn(6, 4) * 100)
    torch.testing.assert_close(features.mean(-1), torch.zeros(6), atol=1e-5, rtol=0)


def test_a_head_gives_atoms_per_action() -> None:
    head = Head(features=8, action_dim=3, atoms=5)
    out = head(torch.randn(2, 8))
    assert out.shape == (2, 3, 5)
    assert head(torch.randn(8)).shape == (3, 5)


def test_the_network_of_the_seed_has_its_parameters() -> None:
    network = DQNNetwork(4, 2, hidden_dim=128)
    assert network.num_parameters == (4 * 128 + 128) + (128 * 128 + 128) + (128 * 2 + 2)
    assert network(torch.randn(7, 4)).shape == (7, 2)


def test_flat_parameters_are_the_parameters() -> None:
    network = DQNNetwork(4, 2, hidden_dim=8)
    states = torch.randn(3, 4)
    before = network(states)
    flat = flatten_parameters(network)
    assert flat.numel() == network.num_parameters
    torch.testing.assert_close(network(states), before)
    flat.zero_()
    assert network(states).abs().max() == 0
    with torch.no_grad():
        next(network.parameters()).fill_(2.0)
    assert flat[0] == 2.0


def test_loading_a_state_dict_keeps_the_parameters_flat() -> None:
    agent, other = (DQNAgent({"state_dim": 4, "action_dim": 2, "seed": seed}) for seed in (0, 1))
    states = torch.randn(5, 4)
    agent.load_state_dict(other.state_dict())
    torch.testing.assert_close(agent.q_network(states), other.q_network(states))
    assert agent.learner.theta.data_ptr() == next(agent.q_network.parameters()).data_ptr()


def test_seeds_make_different_networks_and_leave_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, again, other = (DQNAgent({"state_dim": 4, "action_dim": 2, "seed": seed}) for seed in (0, 0, 1))
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(first.learner.theta, again.learner.theta)
    assert not torch.equal(first.learner.theta, other.learner.theta)
