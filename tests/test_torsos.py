"""Torsos for images: the seed's shapes and numbers, any place of the channels, and every algorithm on top."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from nexus.core import AgentConfig, ConfigError
from nexus.models.layers import MLPTorso
from nexus.models.rl.dqn import DQNAgent
from nexus.models.rl.dqn.rainbow import ALGORITHMS, make_agent, network_bytes
from nexus.models.states import PlainStates
from nexus.models.torsos import (
    ConvolutionalTorso,
    Images,
    channels_before,
    image_form,
    impala_cnn,
    make_torso,
    minatar_cnn,
    nature_cnn,
    nips_cnn,
    standardized,
    torso_of,
)
from tests.rollouts import with_returns

ATARI = (4, 84, 84)


def torso_for(**settings: Any) -> ConvolutionalTorso:
    torch.manual_seed(0)
    torso, _ = make_torso(AgentConfig(torso="nips_cnn", **settings), ATARI)
    assert isinstance(torso, ConvolutionalTorso)
    return torso


def shapes_along(torso: nn.Module, states: torch.Tensor) -> list[tuple[int, ...]]:
    seen: list[tuple[int, ...]] = []
    for layer in torso.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(lambda _, __, out: seen.append(tuple(out.shape[1:])))
    torso(states)
    return seen


def test_nature_cnn_is_the_network_that_the_seed_draws() -> None:
    agent = make_agent("dqn", state_dim=ATARI, action_dim=4, device="cpu")
    torso = agent.q_network.torso
    convolutions = [layer for layer in torso.modules() if isinstance(layer, nn.Conv2d)]
    drawn = [(c.in_channels, c.out_channels, c.kernel_size, c.stride, c.padding) for c in convolutions]
    assert drawn == [
        (4, 32, (8, 8), (4, 4), (0, 0)),
        (32, 64, (4, 4), (2, 2), (0, 0)),
        (64, 64, (3, 3), (1, 1), (0, 0)),
    ]
    assert shapes_along(torso, torch.zeros(1, *ATARI)) == [(32, 20, 20), (64, 9, 9), (64, 7, 7), (512,)]
    by_hand = (4 * 64 * 32 + 32) + (32 * 16 * 64 + 64) + (64 * 9 * 64 + 64) + (3136 * 512 + 512) + (512 * 4 + 4)
    assert agent.q_network.num_parameters == by_hand == 1_686_180


def test_there_is_a_relu_behind_each_layer_of_nature_cnn() -> None:
    torso = nature_cnn(ATARI)
    assert [type(layer) for layer in torso.convolutions.children()] == [nn.Conv2d, nn.ReLU] * 3
    features = torso(torch.randint(0, 256, (3, *ATARI), dtype=torch.uint8))
    assert features.min() == 0
    assert features.max() > 0


def test_nips_cnn_is_the_network_of_2013() -> None:
    torso = nips_cnn(ATARI)
    assert shapes_along(torso, torch.zeros(1, *ATARI)) == [(16, 20, 20), (32, 9, 9), (256,)]
    assert [type(layer) for layer in torso.convolutions.children()] == [nn.Conv2d, nn.ReLU] * 2
    by_hand = (4 * 64 * 16 + 16) + (16 * 16 * 32 + 32) + (2592 * 256 + 256)
    assert sum(parameter.numel() for parameter in torso.parameters()) == by_hand
    nips_cnn((4, 20, 20))(torch.zeros(1, 4, 20, 20))  # the least that its convolutions can take


@pytest.mark.parametrize(("torso", "kernels"), [(nature_cnn, (8, 4, 3)), (nips_cnn, (8, 4)), (minatar_cnn, (3,))])
@pytest.mark.parametrize("shape", [(2, 36, 36), (2, 42, 42), (2, 61, 84), (2, 84, 96), (2, 37, 55)])
def test_no_pixel_is_unseen(torso: Callable[..., ConvolutionalTorso], kernels: tuple[int, ...], shape: Any) -> None:
    convolutions = list(torso(shape).convolutions.children())
    whole = nn.Sequential(*convolutions)
    for parameter in whole.parameters():
        nn.init.ones_(parameter)  # no ReLU stops anything
    image = torch.ones(1, *shape, requires_grad=True)
    outputs = whole(image)
    outputs.sum().backward()
    assert image.grad is not None
    assert image.grad.min() > 0
    # And no more is added than a last stride of the layers needs.
    layers = [layer for layer in convolutions if isinstance(layer, nn.Conv2d)]
    assert [layer.kernel_size[0] for layer in layers] == list(kernels)
    bare = nn.Sequential(*(layer for layer in convolutions if not isinstance(layer, nn.ZeroPad2d)))
    assert outputs.shape[-1] - bare(image).shape[-1] in (0, 1)


@pytest.mark.parametrize("make", [nature_cnn, nips_cnn])
def test_what_is_seen_whole_gets_no_zeros(make: Callable[..., ConvolutionalTorso]) -> None:
    for side in (36, 44, 84):
        assert isinstance(next(make((4, side, side)).convolutions.children()), nn.Conv2d)
    padded = next(make((4, 42, 84)).convolutions.children())
    assert isinstance(padded, nn.ZeroPad2d)
    assert padded.padding == (0, 0, 0, 2)  # below, and nothing else


def test_standardized_images_have_mean_0_and_deviation_1() -> None:
    images = torch.randint(0, 256, (3, *ATARI), dtype=torch.uint8)
    images[1] //= 8
    images[2] = 90
    torso = torso_for(standardize_images=True)
    found = torso.images(images)
    torch.testing.assert_close(found.mean((1, 2, 3)), torch.zeros(3), rtol=0, atol=1e-5)
    torch.testing.assert_close(found.std((1, 2, 3)), torch.tensor([1.0, 1.0, 0.0]), rtol=0, atol=1e-2)
    x = images[0] / 255
    torch.testing.assert_close(found[0], (x - x.mean()) / x.std(), rtol=0, atol=1e-3)
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(standardized((images / 255).contiguous()), found, rtol=0, atol=1e-4)


def test_an_even_background_counts_for_nothing_once_standardized() -> None:
    scene = torch.randint(0, 100, (1, *ATARI), dtype=torch.uint8)
    plain, standard = torso_for(), torso_for(standardize_images=True)
    for torso, same in ((plain, False), (standard, True)):
        one, other = torso(scene), torso(scene + 120)
        assert torch.allclose(one, other, rtol=0, atol=1e-4) == same


def test_impala_cnn_has_the_parameters_of_its_paper() -> None:
    def section(inputs: int, outputs: int) -> int:
        return (inputs * 9 * outputs + outputs) + 4 * (outputs * 9 * outputs + outputs)

    torso = impala_cnn(ATARI)
    by_hand = section(4, 16) + section(16, 32) + section(32, 32) + (32 * 11 * 11 * 256 + 256)
    assert sum(parameter.numel() for parameter in torso.parameters()) == by_hand
    wide = [layer.out_channels for layer in impala_cnn(ATARI, width=2).modules() if isinstance(layer, nn.Conv2d)]
    assert wide == [32] * 5 + [64] * 10


def test_a_residual_part_adds_to_what_came() -> None:
    torso = impala_cnn(ATARI)
    part = torso.convolutions[2]  # type: ignore[index]
    x = torch.randn(2, 16, 5, 5)
    for parameter in part.second.parameters():
        nn.init.zeros_(parameter)
    torch.testing.assert_close(part(x), x)


@pytest.mark.parametrize(
    ("shape", "seen", "channels", "guessed"),
    [
        ((4, 84, 84), (4, 84, 84), "first", False),
        ((84, 84, 3), (3, 84, 84), "last", False),
        ((10, 10, 4), (4, 10, 10), "last", False),
        ((1, 10, 10), (1, 10, 10), "first", False),
        ((8, 8, 12), (12, 8, 8), "last", False),  # more channels than pixels on a side
        ((12, 8, 8), (12, 8, 8), "first", False),
        ((7, 7, 20), (20, 7, 7), "last", False),
        ((4, 10, 12), (4, 10, 12), "first", True),
        ((10, 12, 4), (4, 10, 12), "last", True),
        ((210, 160, 3), (3, 210, 160), "last", True),
        ((10, 10, 10), (10, 10, 10), "last", True),  # as Gymnasium, MiniGrid and MinAtar have it
        ((4, 9, 4), (4, 4, 9), "last", True),
        ((4, 84, 84, 3), (12, 84, 84), "last", False),
        ((4, 3, 84, 84), (12, 84, 84), "first", False),
        ((5, 8, 8, 12), (60, 8, 8), "last", False),
    ],
)
def test_channels_are_found_first_or_last_and_stacks_of_images_are_joined(
    shape: tuple[int, ...], seen: tuple[int, ...], channels: str, guessed: bool
) -> None:
    assert image_form(shape) == (seen, channels, guessed)
    images = Images(shape)
    assert images.shape == seen
    assert images(torch.zeros(2, *shape)).shape == (2, *seen)


@pytest.mark.parametrize(("shape", "axis"), [((10, 10, 10), 2), ((4, 9, 4), 2), ((8, 8, 12), 2), ((12, 8, 8), 0)])
def test_a_channel_that_was_found_is_read_as_one(shape: tuple[int, ...], axis: int) -> None:
    state = torch.zeros(shape)
    state.select(axis, 1).fill_(1.0)
    assert Images(shape)(state[None])[0].sum((1, 2)).nonzero().flatten().tolist() == [1]


def test_whoever_says_where_channels_are_is_followed() -> None:
    assert image_form((8, 8, 12), "first") == ((8, 8, 12), "first", False)
    assert image_form((12, 8, 8), "last") == ((8, 12, 8), "last", False)
    assert image_form((10, 10, 10), "first") == ((10, 10, 10), "first", False)
    last = torch.rand(3, 6, 5, 9)  # [B, H, W, C]
    first = last.movedim(-1, 1)
    settings = {"action_dim": 2, "device": "cpu", "precision": "float32", "torso": "minatar_cnn"}
    one = make_agent("dqn", state_dim=(6, 5, 9), channels="last", **settings)
    other = make_agent("dqn", state_dim=(9, 6, 5), channels="first", **settings)
    torch.testing.assert_close(one.q_network(last), other.q_network(first))
    guessing = make_agent("dqn", state_dim=(6, 5, 9), **settings)  # the smaller of 6 and 9
    assert guessing.q_network.torso.images.shape == (6, 5, 9)
    assert one.q_network.torso.images.shape == (9, 6, 5)


@pytest.mark.parametrize(("channels", "torso"), [("auto", "minatar_cnn"), ("first", "minatar_cnn"), ("last", "mlp")])
def test_the_torso_that_auto_stands_for_goes_by_the_sides(channels: str, torso: str) -> None:
    """2 channels of 3 x 40 pixels, or 40 channels of 2 x 3, for which no convolution is small enough."""
    assert torso_of(AgentConfig.from_mapping({"channels": channels}), (2, 3, 40)) == torso


def test_agents_made_before_read_images_as_they_did() -> None:
    """They took the shorter of the first and the last axis for the channels, and the first of two alike."""
    rng = np.random.default_rng(0)
    for stack in ((), (4,)):
        for sides in rng.integers(1, 7, (200, 3)).tolist():
            channels = channels_before((*stack, *sides))
            assert channels == ("last" if sides[2] < sides[0] else "first")
    assert channels_before((4,)) == channels_before((3, 4)) == channels_before(()) == "auto"


def test_a_place_of_channels_needs_images() -> None:
    with pytest.raises(ConfigError, match=r"channels = 'last': is only for images, got states of shape \(4,\)"):
        make_agent("dqn", state_dim=4, action_dim=2, channels="last")
    with pytest.raises(ConfigError, match="channels = 'middle': needs one of auto, first, last"):
        make_agent("dqn", state_dim=ATARI, action_dim=2, channels="middle")
    make_agent("dqn", state_dim=(2, 3, 3), action_dim=2, channels="last", torso="mlp")  # to which it is all one


def test_a_channel_stays_the_same_image_wherever_it_stands() -> None:
    first = torch.randint(0, 256, (2, 4, 10, 12), dtype=torch.uint8)
    wanted = first.float() / 255
    torch.testing.assert_close(Images((4, 10, 12))(first), wanted)
    torch.testing.assert_close(Images((10, 12, 4))(first.permute(0, 2, 3, 1)), wanted)
    stack = torch.randint(0, 256, (2, 5, 10, 12, 3), dtype=torch.uint8)  # [B, S, H, W, C]
    joined = Images((5, 10, 12, 3))(stack)
    torch.testing.assert_close(joined[1, 3 * 2 + 1], stack[1, 2, :, :, 1].float() / 255)


@pytest.mark.parametrize("make", [nature_cnn, nips_cnn, impala_cnn, minatar_cnn])
def test_bytes_are_scaled_inside_and_states_come_alone_or_in_batches(make: Any) -> None:
    torso = make((36, 36, 3), features=7)
    states = torch.randint(0, 256, (2, 5, 36, 36, 3), dtype=torch.uint8)
    batch = torso(states)
    assert batch.shape == (2, 5, 7)
    torch.testing.assert_close(torso(states.float() / 255), batch)
    torch.testing.assert_close(torso(states[1, 3]), batch[1, 3])


@pytest.mark.parametrize(
    ("shape", "torso"),
    [
        ((4, 84, 84), "nature_cnn"),
        ((3, 36, 36), "nature_cnn"),
        ((3, 35, 36), "minatar_cnn"),
        ((10, 10, 4), "minatar_cnn"),
        ((2, 3, 3), "minatar_cnn"),
        ((2, 2, 3), "mlp"),
        ((4,), "mlp"),
        ((84, 84), "mlp"),
        ((), "mlp"),
        ((4, 84, 84, 3), "nature_cnn"),
    ],
)
def test_auto_goes_by_the_shape_of_a_state(shape: tuple[int, ...], torso: str) -> None:
    assert torso_of(AgentConfig(), shape) == torso


def test_the_last_layer_is_as_wide_as_asked_or_as_in_its_paper() -> None:
    widths = {"mlp": 128, "nature_cnn": 512, "nips_cnn": 256, "impala_cnn": 256, "minatar_cnn": 128}
    for name, width in widths.items():
        for asked in (None, 33):
            settings = AgentConfig.from_mapping({"torso": name, "hidden_dim": asked, "layer_norm": True})
            torso, features = make_torso(settings, (2, 36, 36))
            assert features == (width if asked is None else asked)
            assert torso(torch.zeros(3, 2, 36, 36)).shape == (3, features)
            assert any(isinstance(layer, nn.LayerNorm) for layer in torso.modules())
    assert isinstance(make_torso(AgentConfig(torso="mlp"), ATARI)[0], MLPTorso)


@pytest.mark.parametrize(
    ("settings", "shape", "complaint"),
    [
        ({"torso": "nature_cnn"}, (4, 35, 84), r"torso = 'nature_cnn': needs images of 36 x 36 or more, got \(4, 35"),
        ({"torso": "nature_cnn"}, (4,), "needs images of 36 x 36 or more, got"),
        ({"torso": "nips_cnn"}, (4, 84, 19), "needs images of 20 x 20 or more"),
        ({"torso": "impala_cnn"}, (7, 7, 3), "needs images of 8 x 8 or more"),
        ({"torso": "minatar_cnn"}, (4, 4), "needs images of 3 x 3 or more"),
        ({"torso": "nature"}, ATARI, "torso = 'nature': needs one of auto, mlp, nature_cnn"),
        (
            {"standardize_images": True, "torso": "mlp"},
            ATARI,
            "standardize_images: applies only to image torsos; for the mlp",
        ),
        ({"standardize_images": True}, (4,), "standardize_images: applies only to image torsos"),
        ({"hidden_layers": 2}, ATARI, "hidden_layers = 2: nature_cnn has 1 after its convolutions"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(
    settings: dict[str, Any], shape: tuple[int, ...], complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint) as caught:
        make_agent("dqn", state_dim=shape, action_dim=2, device="cpu", **settings)
    assert "\n" not in str(caught.value)


def test_bounds_are_for_the_mlp() -> None:
    numbers = 2 * 3 * 3
    bounds = ([0.0] * numbers, [2.0] * numbers)
    with pytest.raises(ConfigError, match="scale_observations: minatar_cnn does not scale images this way"):
        make_agent("dqn", state_dim=(2, 3, 3), action_dim=2, state_bounds=bounds)


@pytest.mark.parametrize("shape", [(3, 4), (2, 10, 10)])
def test_states_are_scaled_by_what_their_space_says(shape: tuple[int, ...]) -> None:
    settings = {"state_dim": shape, "action_dim": 2, "device": "cpu", "precision": "float32"}
    plain, pixels, board, signed = (
        make_agent("dqn", **settings, **scaled)
        for scaled in ({}, {"state_scale": [0, 255]}, {"state_scale": [0, 1]}, {"state_scale": [-2, 2]})
    )
    numbers = np.random.default_rng(0).integers(0, 2, (5, *shape))
    expected = plain.q_network(numbers.astype(np.float32))
    assert torch.equal(board.q_network(numbers.astype(np.uint8)), expected)  # and not of 0 and 0.004
    assert torch.equal(board.q_network(numbers.astype(np.float32)), expected)
    assert torch.equal(signed.q_network((4 * numbers - 2).astype(np.int8)), expected)
    bytes_ = np.random.default_rng(1).integers(0, 256, (5, *shape), np.uint8)
    assert torch.equal(pixels.q_network(bytes_), plain.q_network(bytes_))  # as ever
    assert torch.equal(pixels.q_network(bytes_.astype(np.int64)), plain.q_network(bytes_))
    assert pixels.predict(bytes_.tolist())[0].tolist() == plain.predict(bytes_)[0].tolist()
    assert board.config["state_scale"] == [0, 1]
    spans = [
        agent.states.span
        for agent in (board, plain, DQNAgent(settings | {"state_scale": None}))
        if isinstance(agent.states, PlainStates)
    ]
    assert spans == [(0, 1), None, None]
    own = DQNAgent(settings | {"state_scale": [0, 1]})
    assert torch.equal(own.q_network(numbers.astype(np.uint8)), own.q_network(numbers.astype(np.float32)))


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"state_scale": [0, 0]}, r"state_scale = \[0, 0\]: needs two finite numbers, low < high"),
        ({"state_scale": [1, 0]}, "needs two finite numbers, low < high"),
        ({"state_scale": [0, float("inf")]}, "needs two finite numbers, low < high"),
        ({"state_scale": [float("nan"), 1]}, "needs two finite numbers, low < high"),
        ({"state_scale": [0]}, "needs two finite numbers, low < high"),
        ({"state_scale": 255}, "state_scale = 255: needs two finite numbers, low < high"),
        ({"state_scale": ["a", "b"]}, "needs two finite numbers, low < high"),
        (
            {"state_scale": [0, 1], "state_bounds": ([0.0] * 2, [1.0] * 2)},
            r"state_scale = \[0, 1\]: state_bounds already scale the states; leave one out",
        ),
    ],
)
def test_an_impossible_scale_is_refused(given: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        make_agent("dqn", state_dim=2, action_dim=2, **given)
    with pytest.raises(ConfigError, match=complaint):
        DQNAgent({"state_dim": 2, "action_dim": 2, **given})


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("torso", ["nature_cnn", "nips_cnn", "impala_cnn", "minatar_cnn"])
def test_every_algorithm_learns_on_every_torso(algorithm: str, torso: str) -> None:
    agent = make_agent(
        algorithm, state_dim=(2, 36, 36), action_dim=3, torso=torso, hidden_dim=16, atoms=5, quantiles=4, device="cpu"
    )
    rng = np.random.default_rng(0)
    states = rng.integers(0, 256, (6, 2, 36, 36), dtype=np.uint8)
    batch = {
        "states": torch.from_numpy(states),
        "actions": torch.tensor([0, 1, 2, 0, 1, 2]),
        "rewards": torch.randn(6),
        "discounts": torch.full((6,), 0.9),
        "next_states": torch.from_numpy(states[::-1].copy()),
    }
    before = [parameter.detach().clone() for parameter in agent.q_network.parameters()]
    update = agent.learn(with_returns(batch))
    assert torch.isfinite(update["loss"])
    moved = [not torch.equal(a, b) for a, b in zip(before, agent.q_network.parameters(), strict=True)]
    assert all(moved[:2]), "the first convolution did not learn"
    assert agent.act(states, 0.0).shape == (6,)
    assert agent.select_action(states[0], training=False) in range(3)


def test_the_size_of_a_network_is_known_without_making_it() -> None:
    made = DQNAgent({"state_dim": ATARI, "action_dim": 4, "device": "cpu"})
    assert network_bytes("dqn", state_dim=ATARI, action_dim=4) == 4 * made.q_network.num_parameters


def test_the_same_seed_gives_the_same_torso_and_another_seed_another() -> None:
    one, same, other = (
        make_agent("dqn", state_dim=(2, 36, 36), action_dim=2, seed=seed, device="cpu").learner.theta
        for seed in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
