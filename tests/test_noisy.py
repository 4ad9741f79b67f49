"""Factorised Gaussian noise: what the layer gives on average, how it is spread, and when it is quiet."""

import math
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from nexus.core import ConfigError
from nexus.models.layers import Head, NoisyLinear, flatten_parameters, resample_noise

IN, OUT = 3, 2
DRAWS = 6_000


def layer(seed: int = 0, inputs: int = IN, outputs: int = OUT) -> NoisyLinear:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return NoisyLinear(inputs, outputs)


def draws(noisy: NoisyLinear, features: Tensor, count: int) -> Tensor:
    """Outputs `[count, ..., O]` of as many draws of the noise."""
    rng = torch.Generator().manual_seed(1)
    out = []
    with torch.no_grad():
        for _ in range(count):
            noisy.resample(rng)
            out.append(noisy(features))
    return torch.stack(out)


def test_mean_and_variance_are_the_closed_form() -> None:
    """f(e) has mean 0 and E f(e)² = E|e| = √(2/π), so with c = √(2/π) an output j has variance
    c² Σ_i (σ_ji x_i)² + c σ_j² (and no covariance of the two: that has an odd moment of the inputs' noise).
    """
    noisy = layer()
    with torch.no_grad():  # no two sigmas alike
        noisy.weight_sigma.copy_(torch.tensor([[0.1, 0.7, 0.3], [0.5, 0.2, 1.1]]))
        noisy.bias_sigma.copy_(torch.tensor([0.9, 0.4]))
    features = torch.tensor([1.0, -2.0, 0.5])
    out = draws(noisy, features, DRAWS)  # [draws, O]
    c = math.sqrt(2 / math.pi)
    with torch.no_grad():
        mean = features @ noisy.weight.T + noisy.bias
        variance = c**2 * (noisy.weight_sigma * features).square().sum(1) + c * noisy.bias_sigma.square()
    error_of_mean = (variance / DRAWS).sqrt()
    assert ((out.mean(0) - mean).abs() < 4 * error_of_mean).all()
    torch.testing.assert_close(out.var(0), variance, rtol=0.1, atol=0)


def test_the_noise_is_the_signed_root_of_a_normal_number() -> None:
    noisy = layer(inputs=7, outputs=5)
    noisy.resample(torch.Generator().manual_seed(3))
    normal = torch.empty(12).normal_(generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(noisy.noise, normal.sign() * normal.abs().sqrt())
    assert (normal < 0).any()
    assert (normal.abs() > 1).any()


def test_the_noise_of_the_weights_has_rank_one() -> None:
    noisy = layer(inputs=6, outputs=4)
    with torch.no_grad():
        out = noisy(torch.eye(6)) - noisy(torch.zeros(6))  # [I, O], the weights alone
        noise = (out.T - noisy.weight) / noisy.weight_sigma  # [O, I]
    singular = torch.linalg.svdvals(noise)
    assert singular[0] > 0.1
    assert singular[1:].max() < 1e-4 * singular[0]


def test_another_draw_is_another_noise_and_happens_in_place() -> None:
    noisy, features = layer(), torch.ones(IN)
    place = noisy.noise.data_ptr()
    first, again = noisy(features), noisy(features)
    noisy.resample(None)
    assert torch.equal(first, again)
    assert not torch.equal(noisy(features), first)
    assert noisy.noise.data_ptr() == place


def test_the_same_generator_gives_the_same_noise_and_another_one_another() -> None:
    noises = []
    for seed in (5, 5, 6):
        noisy = layer()
        noisy.resample(torch.Generator().manual_seed(seed))
        noises.append(noisy.noise.clone())
    assert torch.equal(noises[0], noises[1])
    assert not torch.equal(noises[0], noises[2])


def test_a_generator_leaves_the_global_one_alone() -> None:
    noisy = layer()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    noisy.resample(torch.Generator().manual_seed(0))
    assert torch.equal(torch.rand(3), expected)


def test_evaluation_uses_exactly_the_means() -> None:
    noisy, features = layer(), torch.randn(4, IN)
    noisy.eval()
    expected = nn.functional.linear(features, noisy.weight, noisy.bias)
    assert torch.equal(noisy(features), expected)
    noisy.resample(None)
    assert torch.equal(noisy(features), expected)
    noisy.train()
    assert not torch.equal(noisy(features), expected)


def test_a_row_of_a_batch_is_what_it_is_alone() -> None:
    noisy, features = layer(), torch.randn(4, IN)
    torch.testing.assert_close(noisy(features)[2], noisy(features[2]))


def test_means_and_sigmas_both_get_their_gradient() -> None:
    noisy, features = layer(), torch.tensor([1.0, -2.0, 0.5])
    noisy(features).sum().backward()
    noise_in, noise_out = noisy.noise[:IN], noisy.noise[IN:]
    expected = {
        "weight": features.expand(OUT, IN),
        "bias": torch.ones(OUT),
        "weight_sigma": torch.outer(noise_out, noise_in) * features,
        "bias_sigma": noise_out,
    }
    for name, parameter in noisy.named_parameters():
        assert parameter.grad is not None, name
        torch.testing.assert_close(parameter.grad, expected[name], msg=name)
        assert (parameter.grad != 0).all(), name


def test_it_starts_as_the_paper_says() -> None:
    inputs = 400
    noisy = NoisyLinear(inputs, 50)
    bound = 1 / math.sqrt(inputs)
    for means in (noisy.weight, noisy.bias):
        assert 0.9 * bound < means.abs().max() <= bound
    assert noisy.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
    for sigmas in (noisy.weight_sigma, noisy.bias_sigma):
        torch.testing.assert_close(sigmas, torch.full_like(sigmas, 0.5 * bound))
    assert NoisyLinear(4, 2, sigma0=0.1).bias_sigma[0].item() == pytest.approx(0.05)


@pytest.mark.parametrize("sigma0", [-0.1, math.nan, math.inf])
def test_an_impossible_sigma_is_refused(sigma0: float) -> None:
    with pytest.raises(ConfigError, match="sigma0"):
        NoisyLinear(2, 2, sigma0)


def test_numbers_of_parameters_and_what_is_saved() -> None:
    noisy = layer(inputs=7, outputs=5)
    assert sum(parameter.numel() for parameter in noisy.parameters()) == 2 * (7 * 5 + 5)
    assert sorted(noisy.state_dict()) == ["bias", "bias_sigma", "weight", "weight_sigma"]


def test_a_head_can_be_made_of_it() -> None:
    head = Head(features=8, action_dim=3, atoms=5, linear=NoisyLinear)
    features = torch.randn(2, 8)
    out = head(features)
    assert out.shape == (2, 3, 5)
    assert resample_noise(head, torch.Generator().manual_seed(0))
    assert not torch.equal(head(features), out)


def test_resampling_finds_every_noisy_layer_and_says_if_there_was_none() -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.Sequential(NoisyLinear(4, 4), nn.ReLU()), NoisyLinear(4, 4))
    inner, outer = (module for module in network.modules() if isinstance(module, NoisyLinear))
    before = [inner.noise.clone(), outer.noise.clone()]
    assert resample_noise(network, torch.Generator().manual_seed(0))
    for layer_, old in zip((inner, outer), before, strict=True):
        assert not torch.equal(layer_.noise, old)
    assert not torch.equal(inner.noise, outer.noise)
    assert not resample_noise(nn.Linear(4, 4), None)


def test_flat_parameters_leave_the_noise_alone() -> None:
    noisy, features = layer(), torch.randn(IN)
    before = noisy(features)
    flat = flatten_parameters(noisy)
    assert flat.numel() == 2 * (IN * OUT + OUT)
    torch.testing.assert_close(noisy(features), before)
    flat.zero_()
    assert noisy(features).abs().max() == 0
    assert noisy.noise.abs().max() > 0


def test_a_copy_has_noise_of_its_own() -> None:
    noisy = layer()
    copy = deepcopy(noisy)
    noisy.resample(None)
    assert not torch.equal(copy.noise, noisy.noise)


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
def test_a_compiled_layer_takes_fresh_noise_without_compiling_again() -> None:
    noisy, features = layer(), torch.randn(4, IN)
    compiled = torch.compile(noisy, fullgraph=True, backend="eager")
    with torch.compiler.set_stance("default"):
        compiled(features)
    with torch.compiler.set_stance("fail_on_recompile"):
        for seed in range(3):
            noisy.resample(torch.Generator().manual_seed(seed))
            torch.testing.assert_close(compiled(features), noisy(features))
