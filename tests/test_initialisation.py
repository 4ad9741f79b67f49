"""Initial weights: those of the seed and of nobody else, drawn without torch's global generator."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nexus.core.seeding import seeded_initialisation
from nexus.models.rl.dqn import DQNAgent, DQNNetwork
from nexus.models.rl.dqn.rainbow import ALGORITHMS, make_agent

SHAPES: dict[str, tuple[int, ...]] = {
    "mlp": (4,),
    "nature_cnn": (2, 36, 36),
    "nips_cnn": (2, 20, 20),
    "impala_cnn": (3, 8, 8),
    "minatar_cnn": (4, 10, 10),
}

# The first, the middle and the last of the drawn weights, by what torch's global generator gave when it was seeded for
# them: an agent that was made before must have the same ones today.
CASES: list[tuple[str, dict[str, Any], list[float]]] = [
    ("dqn", {"torso": "mlp"}, [0.261847, -0.060943, 0.103008]),
    ("dqn", {"torso": "mlp", "seed": 1}, [-0.49438, 0.200029, -0.23758]),
    ("dueling", {"torso": "nature_cnn", "layer_norm": True}, [0.046289, 0.008568, 0.184033]),
    ("noisy", {"torso": "mlp"}, [0.261847, -0.060943, 0.103008]),
    ("iqn", {"torso": "minatar_cnn"}, [0.087282, -0.0078, -0.090082]),
    ("rainbow", {"torso": "nips_cnn"}, [0.046289, 0.028108, -0.014837]),
    ("beyond", {"torso": "impala_cnn"}, [0.100785, 0.025917, -0.136819]),
]


def agent_of(algorithm: str, settings: Mapping[str, Any]) -> DQNAgent:
    shape = SHAPES[settings["torso"]]
    return make_agent(algorithm, **{"state_dim": shape, "action_dim": 3, "hidden_dim": 16, "device": "cpu", **settings})


def drawn(agent: DQNAgent) -> Tensor:
    """All weights that a random number decides, `[P]`; the noise's σ are alike."""
    weights = {name: value.detach() for name, value in agent.q_network.named_parameters() if "sigma" not in name}
    return torch.cat([value.flatten() for value in weights.values()])


@pytest.mark.parametrize(("algorithm", "settings", "expected"), CASES, ids=str)
def test_a_seed_gives_the_weights_that_it_always_gave(
    algorithm: str, settings: dict[str, Any], expected: list[float]
) -> None:
    weights = drawn(agent_of(algorithm, settings))
    found = weights[[0, len(weights) // 2, -1]]
    torch.testing.assert_close(found, torch.tensor(expected), rtol=0, atol=1e-6)


@pytest.mark.parametrize("torso", SHAPES)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_weights_are_those_of_a_global_generator_that_was_seeded_for_them(algorithm: str, torso: str) -> None:
    """And they come from elsewhere: the global one stays where it is, whatever it was."""
    settings = {"torso": torso, "dueling": True, "layer_norm": True}
    torch.manual_seed(4)
    before = torch.get_rng_state()
    first = drawn(agent_of(algorithm, settings))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(5)
    assert torch.equal(drawn(agent_of(algorithm, settings)), first)
    assert not torch.equal(drawn(agent_of(algorithm, settings | {"seed": 1})), first)


@pytest.mark.parametrize("algorithm", ["dqn", "rainbow"])
def test_agents_that_threads_make_at_once_have_the_weights_of_their_seeds(algorithm: str) -> None:
    threads, each = 8, 5
    together = Barrier(threads)

    def make(thread: int) -> list[Tensor]:
        together.wait()
        return [drawn(agent_of(algorithm, {"torso": "mlp", "seed": thread * each + at})) for at in range(each)]

    with ThreadPoolExecutor(threads) as pool:
        made = [weights for some in pool.map(make, range(threads)) for weights in some]
    alone = [drawn(agent_of(algorithm, {"torso": "mlp", "seed": seed})) for seed in range(threads * each)]
    assert [torch.equal(one, other) for one, other in zip(made, alone, strict=True)] == [True] * threads * each


def every_way_to_draw() -> list[Tensor]:
    """Numbers by each of torch's ways to draw them."""
    empty, third = torch.empty(3, 3), torch.full((3, 3), 1 / 3)
    in_place = ("bernoulli_", "cauchy_", "exponential_", "geometric_", "log_normal_", "normal_", "random_", "uniform_")
    return [
        *(getattr(torch.empty(3, 3), name)(*((0.3,) if name == "geometric_" else ())) for name in in_place),
        torch.rand(3),
        torch.randn(3),
        torch.randint(9, (3,)),
        torch.randperm(9),
        torch.bernoulli(third),
        torch.multinomial(third, 2),
        torch.normal(0.0, third),
        torch.poisson(third),
        *(
            draw(empty.clone())
            for draw in (
                nn.init.uniform_,
                nn.init.normal_,
                nn.init.trunc_normal_,
                nn.init.xavier_uniform_,
                nn.init.xavier_normal_,
                nn.init.kaiming_uniform_,
                nn.init.kaiming_normal_,
                nn.init.orthogonal_,
            )
        ),
    ]


def test_whatever_torch_draws_inside_is_the_seeds() -> None:
    """Layers that somebody else wrote may draw in other ways than those here."""
    torch.manual_seed(4)
    before = torch.get_rng_state()
    with seeded_initialisation(0):
        first = every_way_to_draw()
    assert torch.equal(torch.get_rng_state(), before)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        with seeded_initialisation(0):
            again = every_way_to_draw()
        with seeded_initialisation(1):
            other = every_way_to_draw()
    assert [torch.equal(one, two) for one, two in zip(first, again, strict=True)] == [True] * len(first)
    many = [(one, two) for one, two in zip(first, other, strict=True) if len(set(one.flatten().tolist())) > 3]
    assert len(many) > 15
    assert not any(torch.equal(one, two) for one, two in many)


def test_a_generator_that_somebody_brings_is_the_one_that_is_used() -> None:
    expected = torch.rand(3, generator=torch.Generator().manual_seed(2))
    with seeded_initialisation(0):
        assert torch.equal(torch.rand(3, generator=torch.Generator().manual_seed(2)), expected)


def test_a_network_that_somebody_made_is_left_alone() -> None:
    network = DQNNetwork(4, 2, 8)
    before = torch.cat([parameter.detach().flatten() for parameter in network.parameters()])
    agent = DQNAgent({"state_dim": 4, "action_dim": 2}, network=network)
    assert agent.q_network is network
    assert torch.equal(agent.learner.theta, before)
