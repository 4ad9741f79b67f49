"""BuilderInput of the user's own, without a fork: a torso, an algorithm with its settings, schedules."""

import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.func import vmap

import nexus
from nexus.api import make_config
from nexus.cli.main import main
from nexus.core.checked import annotations_of
from nexus.core.errors import ConfigError, RunError
from nexus.core.importable import NAMING, ImportName, ImportNames
from nexus.core.names import REGISTERED
from nexus.core.types import Outcome
from nexus.models.layers import Normalizer
from nexus.models.own_torso import OwnTorso, Scaled, make_own_torso
from nexus.models.rl.dqn.dqn import DQNLoss
from nexus.models.rl.dqn.learner_state import tensors
from nexus.models.rl.dqn.pure import noise_of, pure_gradient
from nexus.models.rl.dqn.rainbow import ALGORITHMS, OWN, Algorithm, BuilderInput, make_agent, network_bytes
from nexus.training.config import TrainConfig
from tests import probes
from tests.chaos import Silent, differences
from tests.rollouts import pace_of
from tests.structured import Xor
from tests.test_compile import IMPORT, TOO_BUSY
from tests.test_whole_update import Learning
from tests.training import weights

HERE = "tests.test_own_parts"
TINY: dict[str, Any] = {
    "total_steps": 200,
    "num_envs": 2,
    "learning_starts": 40,
    "batch_size": 16,
    "update_every": "4 steps",
    "target_update_every": "5 updates",
    "eval_episodes": 2,
    "eval_every": None,
    "target_return": None,
    "atoms": 11,
    "v_min": -2.0,
    "v_max": 2.0,
}


class Torso(nn.Module):
    """Two layers and a buffer that stays as it is."""

    def __init__(self, state_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(state_shape[0], 12), nn.Linear(12, 7)
        self.register_buffer("gain", torch.tensor(2.0))

    def forward(self, states: Tensor) -> Tensor:
        assert states.ndim == 2  # one batch axis, however many the network was called with
        out: Tensor = torch.tanh(self.second(torch.tanh(self.gain * self.first(states))))
        return out


def lazy(state_shape: tuple[int, ...]) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(9), nn.ReLU())


def frozen(state_shape: tuple[int, ...]) -> nn.Module:
    layers = nn.Sequential(nn.Linear(state_shape[0], 6), nn.ReLU(), nn.Linear(6, 5))
    layers[0].requires_grad_(False)
    return layers


def pixels(state_shape: tuple[int, ...]) -> nn.Module:
    return nn.Sequential(nn.Conv2d(state_shape[0], 4, 3), nn.ReLU(), nn.Flatten())


def q_values(agent: nexus.DQNAgent, states: Any) -> Tensor:
    with torch.no_grad():
        values: Tensor = agent.q_network(states)
    return values


# --- a torso ---


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_torso_of_ones_own_learns_and_is_found_again_under_every_algorithm(algorithm: str, tmp_path: Path) -> None:
    settings = {**TINY, **pace_of(algorithm), "total_steps": 200, "prior_scale": 0.0}  # a prior is put around a torso
    run = tmp_path / "run"
    agent = nexus.train(probes.MatchReward, run_dir=run, algorithm=algorithm, torso=Torso, **settings).agent
    torso = agent.q_network.torso
    assert isinstance(torso, OwnTorso)
    assert isinstance(torso.torso, Torso)
    fresh = make_agent(algorithm, **{k: v for k, v in agent.config.items() if k != "algorithm"})
    for name, value in torso.named_parameters():  # every one was learned
        assert not torch.equal(value, fresh.q_network.torso.get_parameter(name)), name
    assert agent.target_network.torso.get_parameter("torso.first.weight") is not torso.torso.first.weight
    about = json.loads((run / "run.json").read_text())
    assert about["config"]["torso"] == f"{HERE}:Torso"
    loaded = nexus.load_agent(run)
    states = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)
    for each in (loaded, deepcopy(agent)):
        for network in (each.q_network, agent.q_network):
            network.eval()
        torch.testing.assert_close(q_values(each, states), q_values(agent, states), rtol=0, atol=0)
    torch.testing.assert_close(q_values(agent, states[0]), q_values(agent, states)[0])  # [*obs] and [B, *obs]
    assert (run / "agent.safetensors").exists()


def test_every_switch_goes_with_it() -> None:
    batch = {
        "states": torch.randn(8, 3),
        "actions": torch.zeros(8, dtype=torch.int64),
        "rewards": torch.randn(8),
        "discounts": torch.full((8,), 0.9),
        "next_states": torch.randn(8, 3),
    }
    for switch in ("double", "dueling", "noisy", "munchausen"):
        agent = make_agent("dqn", state_dim=3, action_dim=2, torso=Torso, **{switch: True})
        before = agent.learner.theta.clone()
        agent.learn(batch)
        assert not torch.equal(before, agent.learner.theta), switch


def test_it_starts_from_the_seed_and_its_size_is_found() -> None:
    one, same, other = (make_agent(state_dim=3, action_dim=2, torso=lazy, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one.learner.theta, same.learner.theta)
    assert not torch.equal(one.learner.theta, other.learner.theta)
    assert one.q_network.head.get_parameter("linear.weight").shape == (2, 9)
    assert network_bytes(state_dim=3, action_dim=2, torso=lazy) == 4 * (3 * 9 + 9 + 9 * 2 + 2)


def test_frozen_parameters_are_saved_and_not_learned(tmp_path: Path) -> None:
    run = tmp_path / "run"
    agent = nexus.train(probes.MatchReward, run_dir=run, torso=frozen, **TINY).agent
    fresh = make_agent(**{k: v for k, v in agent.config.items() if k != "algorithm"})
    before, after = fresh.q_network.state_dict(), agent.q_network.state_dict()
    assert torch.equal(before["torso.torso.0.weight"], after["torso.torso.0.weight"])
    assert not torch.equal(before["torso.torso.2.weight"], after["torso.torso.2.weight"])
    assert agent.learner.theta.numel() == 6 * 5 + 5 + 5 * 2 + 2
    loaded = nexus.load_agent(run)
    assert all(torch.equal(value, loaded.q_network.state_dict()[name]) for name, value in after.items())


def test_bytes_are_scaled_and_bounds_too() -> None:
    torso, features = make_own_torso(f"{HERE}:pixels", Scaled((2, 5, 6)), 3)
    assert features == 4 * 3 * 4
    states = torch.full((3, 2, 5, 6), 255, dtype=torch.uint8)
    torch.testing.assert_close(torso.prepare(states), torch.ones(3, 2, 5, 6))
    torch.testing.assert_close(torso(states[None]), torso(states)[None])
    bounded, _ = make_own_torso(f"{HERE}:Torso", Scaled((2,), ([0, -4], [2, 4])), 1)
    torch.testing.assert_close(bounded.prepare(torch.tensor([[0.0, 4.0]])), torch.tensor([[-1.0, 1.0]]))
    normal = Scaled((2,), normalized=2)
    assert normal.normalizer is not None
    normal.normalizer.set_to(np.array([10.0, -1.0]), np.array([2.0, 0.5]), 7)
    torch.testing.assert_close(normal(torch.tensor([[13.0, -2.0]])), torch.tensor([[1.5, -2.0]]))


@pytest.mark.parametrize("torso", [Torso, frozen])
def test_two_seeds_learn_through_one_vmapped_gradient(torso: Any) -> None:
    agents = [
        make_agent(state_dim=3, action_dim=2, torso=torso, seed=seed, max_grad_norm=None, device="cpu")
        for seed in (0, 0)
    ]
    rng = torch.Generator().manual_seed(0)
    batch = {
        "states": torch.randn(2, 16, 3, generator=rng),
        "actions": torch.randint(2, (2, 16), generator=rng),
        "rewards": torch.randn(2, 16, generator=rng),
        "discounts": torch.full((2, 16), 0.9),
        "next_states": torch.randn(2, 16, 3, generator=rng),
        "weights": torch.rand(2, 16, generator=rng),
    }
    learners = [agent.learner for agent in agents]
    for learner in learners:
        learner.theta.add_(0.1 * torch.randn(learner.theta.shape, generator=rng))
    thetas, targets = (torch.stack([getattr(each, name) for each in learners]) for name in ("theta", "theta_target"))
    noise = torch.stack([noise_of(learner) for learner in learners])
    together = vmap(pure_gradient(learners[0]))(thetas, targets, batch, noise)
    for place, learner in enumerate(learners):
        own = {name: values[place] for name, values in batch.items()}
        torch.testing.assert_close(together[place], learner.gradient(own)[0], atol=1e-6, rtol=1e-4)
    assert not torch.allclose(together[0], together[1])


def norm(shape: tuple[int, ...]) -> nn.Module:
    return nn.Sequential(nn.Linear(shape[0], 4), nn.BatchNorm1d(4))


def dropout(shape: tuple[int, ...]) -> nn.Module:
    return nn.Sequential(nn.Linear(shape[0], 4), nn.Dropout(0.5))


class Fails(nn.Module):
    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()

    def forward(self, states: Tensor) -> Tensor:
        raise RuntimeError("no\nwings")


class Says(nn.Module):
    """Says the same, whatever it is asked."""

    def __init__(self, answer: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, states: Tensor) -> Any:
        return self.answer(states)


class Unused(Torso):
    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__(shape)
        self.third = nn.Linear(2, 2)


class Halves(Torso):
    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__(shape)
        self.second.double()

    def forward(self, states: Tensor) -> Tensor:
        out: Tensor = self.second(self.first(states).double()).float()
        return out


def flat(shape: tuple[int, ...]) -> nn.Module:
    return nn.Flatten(0)


def pairs(shape: tuple[int, ...]) -> nn.Module:
    return Says(lambda states: (states, states))


def whole(shape: tuple[int, ...]) -> nn.Module:
    return Says(Tensor.long)


def forgets(shape: tuple[int, ...]) -> None:
    nn.Linear(shape[0], 3)


def picky(shape: tuple[int, ...]) -> nn.Module:
    raise ValueError(f"{len(shape)} axes are too few")


def no_argument() -> nn.Module:
    return nn.Identity()


MADE, NUMBER = nn.Linear(4, 3), 3


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("norm", "changes its buffer '1.num_batches_tracked' in each forward pass, .*: use LayerNorm or GroupNorm"),
        ("dropout", "gives other features for the same states each time: .*; leave out .* such as Dropout"),
        ("Fails", r"fails on 3 states of shape \(4,\): no wings$"),
        ("flat", r"returned features of shape \[12\] for 3 states: needs \[3, D\], a row for each$"),
        ("pairs", r"returned a tuple: needs a tensor of features \[B, D\]$"),
        ("whole", "returned features of int64: needs float32$"),
        ("Unused", "has the parameter 'third.weight', on which no feature depends: leave it out, or freeze it"),
        ("Halves", "has the parameter 'second.weight' of float64: needs float32$"),
        ("forgets", r"returned a NoneType: needs a torch.nn.Module; does it end with return\?$"),
        ("picky", r"can't be made for states of shape \(4,\): 1 axes are too few$"),
        ("no_argument", r"can't be made for states of shape \(4,\): no_argument\(\) takes 0 positional arguments"),
        ("MADE", "is a module, made already: name its class, or a function that makes it$"),
        (
            "NUMBER",
            "is a int: needs a class or function that takes the shape of a state and returns a torch.nn.Module$",
        ),
        ("Torsos", "there is no 'Torsos' in 'tests.test_own_parts'; did you mean Torso"),
    ],
)
def test_a_torso_that_can_not_be_used_is_one_line(name: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match=f"^torso '{HERE}:{name}':? {says}"):
        make_agent(state_dim=4, action_dim=2, torso=f"{HERE}:{name}")
    assert main(["train", "CartPole-v1", "--torso", f"{HERE}:{name}", "--run-dir", "never"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"nexus: error: torso '{HERE}:{name}'")
    assert error.count("\n") == 1
    assert not Path("never").exists()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("natur_cnn", "torso = 'natur_cnn': needs one of auto, .* or your own as module:Name; did you mean nature_cnn"),
        (lambda shape: nn.Flatten(), "torso has <lambda>, which can't be imported by its name: needs a class or func"),
        (nn.Flatten(), "torso has an object of the type Flatten, which can't be imported by its name"),
        (3, "torso = 3: needs one of auto, mlp"),
    ],
)
def test_what_names_no_torso_is_one_line(given: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        make_config("CartPole-v1", torso=given)


def test_settings_of_built_in_torsos_are_refused_with_it() -> None:
    given: list[dict[str, Any]] = [{"hidden_dim": 8}, {"layer_norm": True}, {"channels": "first"}]
    for settings in given:
        (name,) = settings
        with pytest.raises(ConfigError, match=f"^{name} = .*: torso Torso makes all layers itself; leave {name} out$"):
            make_config("CartPole-v1", torso=Torso, **settings)
    assert make_config("CartPole-v1", torso=Torso, layer_norm=False).torso == f"{HERE}:Torso"


class Sees(nn.Module):
    """Reads a picture and a switch, as `Xor` shows them, or two parts of a Tuple."""

    def __init__(self, shape: Any) -> None:
        super().__init__()
        camera, switch = self.parts(shape)
        self.features = nn.Linear(math.prod(camera) + math.prod(switch), 16)

    @staticmethod
    def parts(given: Any) -> Any:
        return given if isinstance(given, tuple) else (given["camera"], given["panel"]["switch"])

    def forward(self, states: Any) -> Tensor:
        out: Tensor = self.features(torch.cat([part.flatten(1) for part in self.parts(states)], 1)).relu()
        return out


class Two(Xor):
    """The same in a Tuple."""

    observation_space = spaces.Tuple((Xor.observation_space["camera"], spaces.Box(-1, 1, (1,))))  # type: ignore[index]

    def look(self) -> Any:
        seen = super().look()
        return seen["camera"], np.array([seen["panel"]["switch"]], np.float32)


@pytest.mark.parametrize("env", [Xor, Two])
def test_observations_of_several_parts_have_their_structure(env: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"
    agent = nexus.train(env, run_dir=run, torso=Sees, listener=Silent(), **TINY).agent
    torso = agent.q_network.torso
    assert isinstance(torso, OwnTorso)
    shape: Any = torso.prepare.shape
    expected = {"camera": (4, 4, 1), "panel": {"switch": (2,)}} if env is Xor else ((4, 4, 1), (1,))
    assert shape == expected
    seen = env().reset(seed=3)[0]
    camera, switch = Sees.parts(torso.prepare(torch.from_numpy(agent.states.read(seen))))
    assert torch.equal(camera[0], torch.from_numpy(Sees.parts(seen)[0]) / 255)
    assert switch.tolist() == [
        [1.0 - seen["panel"]["switch"], seen["panel"]["switch"]] if env is Xor else seen[1].tolist()
    ]
    loaded = nexus.load_agent(run)
    assert torch.equal(loaded.learner.theta, agent.learner.theta)
    assert loaded.predict(seen)[0] == agent.predict(seen)[0]


def test_of_several_parts_it_gets_the_vectors_normalised_and_the_images_as_they_are(tmp_path: Path) -> None:
    own = TINY | {"normalize_observations": True}
    agent = nexus.train(Two, run_dir=tmp_path / "run", torso=Sees, listener=Silent(), **own).agent
    layers = [layer for layer in agent.q_network.modules() if isinstance(layer, Normalizer)]
    assert [(len(layer.mean), int(layer.samples) > 0) for layer in layers] == [(1, True)]
    layers[0].set_to(np.array([0.25]), np.array([0.5]), 10)
    seen = Two().reset(seed=3)[0]
    torso = agent.q_network.torso
    assert isinstance(torso, OwnTorso)
    camera, switch = torso.prepare(torch.from_numpy(agent.states.read(seen)))
    assert torch.equal(camera[0], torch.from_numpy(seen[0]) / 255)
    assert switch.tolist() == [[(float(seen[1][0]) - 0.25) / 0.5]]


def test_every_setting_that_can_have_a_name_to_import_is_looked_at() -> None:
    kinds = annotations_of(TrainConfig)
    named = {name for name, kind in kinds.items() if kind is ImportNames or ImportName in getattr(kind, "__args__", ())}
    assert {*named, "algorithm", "curriculum"} == set(NAMING)  # whose stages have ids of environments


# --- an algorithm ---


class Asymmetry(nexus.Settings):
    """Of the lopsided loss."""

    asymmetry: float = 0.9
    """Weight of errors above 0."""
    power: Literal[1, 2] = 2
    """Of the error."""
    scale: int | None = None
    """Of the loss."""
    centred: bool = False
    """Has no effect."""

    def check(self) -> None:
        self.require(0 < self.asymmetry < 1, "asymmetry", "a fraction between 0 and 1")


def lopsided(parts: BuilderInput) -> Any:
    """Build a loss that weighs errors above 0 more."""

    def error(predictions: Tensor, targets: Tensor) -> Tensor:
        weight = torch.where(targets > predictions, parts.own.asymmetry, 1 - parts.own.asymmetry)
        errors: Tensor = weight * (targets - predictions).abs() ** parts.own.power
        return errors

    return parts.network(), DQNLoss(error, parts.bootstrap)


nexus.register_algorithm("lopsided", lopsided, own=Asymmetry, settings={"double": True, "gamma": 0.9})
PLAIN = Algorithm("nothing", "no paper", "here.py", lambda parts: (parts.network(), DQNLoss()))


def outcome_of(loss: Any, priorities: Any, metrics: Any = ()) -> Any:
    """Return a family whose loss returns these, from a loss `[B]`."""

    def family(parts: BuilderInput) -> Any:
        def own(q_network: Any, target_network: Any, next_action: Any, batch: Any) -> Any:
            values = q_network.output(batch["states"]).q_values[:, 0]
            return Outcome(loss(values), priorities(values.detach()), dict(metrics))

        return parts.network(), own

    return family


def fails_in_its_loss(parts: BuilderInput) -> Any:
    return parts.network(), lambda *_: 1 / 0


def has_no_loss(parts: BuilderInput) -> Any:
    return parts.network()


def can_not_be_built(parts: BuilderInput) -> Any:
    return parts.nothing  # type: ignore[attr-defined]


nexus.register_algorithm("mean_loss", outcome_of(Tensor.mean, Tensor.abs))
nexus.register_algorithm("wide_priorities", outcome_of(Tensor.abs, lambda values: values[:, None]))
nexus.register_algorithm("no_gradient", outcome_of(Tensor.detach, Tensor.abs))
nexus.register_algorithm("odd_metrics", outcome_of(Tensor.abs, Tensor.abs, {"mine": 3.0}))
for one in (fails_in_its_loss, has_no_loss, can_not_be_built):
    nexus.register_algorithm(one.__name__, one)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("mean_loss", r"its loss returned as loss a tensor of shape \[\] for 3 transitions: needs one value for each"),
        ("wide_priorities", r"its loss returned as priorities a tensor of shape \[3, 1\] for 3 transitions: needs one"),
        ("no_gradient", "its loss returned a loss without a gradient"),
        ("odd_metrics", r"its loss returned as metrics {'mine': 3.0}: needs tensors by name"),
        ("fails_in_its_loss", "its loss fails on 3 transitions: division by zero"),
        ("has_no_loss", "was built as DQNNetwork: needs a DQNNetwork and a loss"),
        ("can_not_be_built", "can't be built: 'BuilderInput' object has no attribute 'nothing'"),
    ],
)
def test_an_algorithm_that_can_not_learn_is_one_line(name: str, says: str) -> None:
    with pytest.raises(ConfigError, match=f"^algorithm '{HERE}:{name}':? {says}"):
        make_agent(name, state_dim=2, action_dim=2)


def test_its_settings_are_keywords_and_travel_with_the_run(tmp_path: Path) -> None:
    run = tmp_path / "run"
    result = nexus.train(probes.MatchReward, run_dir=run, algorithm="lopsided", asymmetry=0.7, **TINY)
    about = json.loads((run / "run.json").read_text())["config"]
    assert about["algorithm"] == f"{HERE}:lopsided"
    assert about["algorithm_settings"] == {"asymmetry": 0.7, "power": 2, "scale": None, "centred": False}
    assert (about["double"], about["gamma"]) == (True, 0.9)  # as it was registered
    same = nexus.train(probes.MatchReward, run_dir=tmp_path / "b", algorithm=f"{HERE}:lopsided", asymmetry=0.7, **TINY)
    other = nexus.train(probes.MatchReward, run_dir=tmp_path / "c", algorithm="lopsided", **TINY)
    assert torch.equal(weights(result.agent.q_network), weights(same.agent.q_network))
    assert not torch.equal(weights(result.agent.q_network), weights(other.agent.q_network))
    assert torch.equal(weights(nexus.load_agent(run).q_network), weights(result.agent.q_network))


def test_the_loss_is_the_users() -> None:
    agent = make_agent("lopsided", state_dim=1, action_dim=1, asymmetry=0.75, power=1)
    batch = {
        "states": torch.zeros(2, 1),
        "actions": torch.zeros(2, dtype=torch.int64),
        "rewards": torch.tensor([4.0, -4.0]),
        "discounts": torch.zeros(2),
        "next_states": torch.zeros(2, 1),
    }
    with torch.no_grad():
        agent.learner.theta.zero_()
    out = agent.learner.loss(agent.q_network, agent.target_network, agent.learner.next_action, batch)
    assert out.loss.tolist() == [0.75 * 4, 0.25 * 4]


def test_an_algorithm_that_is_an_attribute_is_found_too() -> None:
    agent = make_agent(f"{HERE}:PLAIN", state_dim=2, action_dim=2, seed=3)
    assert torch.equal(agent.learner.theta, make_agent("dqn", state_dim=2, action_dim=2, seed=3).learner.theta)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"asymmetry": "high"}, "^asymmetry = 'high': needs a number$"),
        ({"asymmetry": 1.5}, "^asymmetry = 1.5: needs a fraction between 0 and 1$"),
        ({"power": 3}, "^power = 3: needs one of 1, 2$"),
        ({"asymetry": 0.5}, r"^unknown setting 'asymetry'; did you mean asymmetry\?$"),
        (
            {"algorithm": "lopside"},
            r"^no algorithm 'lopside'; did you mean lopsided\?; there are dqn, .* as module:",
        ),
        (
            {"algorithm": f"{HERE}:lopside"},
            rf"^no algorithm 'lopside' in {HERE}; did you mean lopsided\?; there are",
        ),
        ({"algorithm": "math:pi"}, "^no algorithm 'pi' in math; nothing calls nexus.register_algorithm there$"),
        ({"algorithm": "nosuch:x"}, "^algorithm 'nosuch:x': can't import module 'nosuch': No module named 'nosuch'$"),
        ({"algorithm": "dqn", "asymmetry": 0.5}, "^unknown setting 'asymmetry'$"),
        (
            {"algorithm": "dqn", "algorithm_settings": {"a": 1}},
            "^algorithm_settings = {'a': 1}: this algorithm adds no",
        ),
    ],
)
def test_a_setting_or_a_name_that_is_wrong_is_one_line(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        make_config("CartPole-v1", **{"algorithm": "lopsided", **settings})


class Nameless(nexus.Settings):
    gamma: float = 0.5


class Trains(nexus.Settings):
    total_steps: int = 5


class Reserved(nexus.Settings):
    listener: str = ""


class Lists(nexus.Settings):
    sizes: list[int] = ()  # type: ignore[assignment]


class Needed(nexus.Settings):
    mine: float


@pytest.mark.parametrize(
    ("name", "own", "says"),
    [
        ("rainbow", None, f"^algorithm 'rainbow' of {HERE}: nexus has one of that name; choose another$"),
        ("Double_DQN", None, "nexus has one of that name"),
        ("per", None, "nexus has one of that name"),
        ("my-loss", None, "^algorithm 'my-loss': needs a name as Python has them, such as my_algorithm$"),
        ("taken", None, f"^algorithm 'taken' of {HERE}: elsewhere:taken has that name already; choose another$"),
        ("mine", Nameless, "^own setting gamma of Nameless: nexus has one of that name; choose another$"),
        ("mine", Reserved, "^own setting listener of Reserved: nexus has one of that name; choose another$"),
        ("mine", Lists, "^own setting sizes of Lists is of the type .*: needs int, float, bool, str or Literal"),
        ("mine", Needed, "^own settings Needed: .*; each needs a default$"),
        ("mine", dict, "^own settings <class 'dict'>: needs a subclass of nexus.Settings$"),
    ],
)
def test_what_can_not_be_registered_is_one_line(
    name: str, own: Any, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(REGISTERED, "taken", "elsewhere:taken")
    before = dict(OWN)
    with pytest.raises(ConfigError, match=says):
        nexus.register_algorithm(name, lopsided, own=own)
    assert before == OWN


def test_what_it_refuses_is_refused_with_the_reason_and_must_be_a_setting() -> None:
    with pytest.raises(ConfigError, match="refuses 'doubel', which is not a setting of an agent; did you mean double"):
        nexus.register_algorithm("picky", lopsided, refuses={"doubel": "no reason"})
    nexus.register_algorithm("picky", lopsided, own=Asymmetry, refuses={"double": "it is simple"})
    try:
        with pytest.raises(ConfigError, match=f"^{HERE}:picky can't take double: it is simple; set double to false$"):
            make_agent("picky", state_dim=2, action_dim=2, double=True)
    finally:
        del OWN[REGISTERED.pop("picky")]


def test_a_setting_of_a_run_is_refused_when_it_is_used() -> None:
    nexus.register_algorithm("trains", lopsided, own=Trains)
    try:
        with pytest.raises(ConfigError, match=r"^own setting total_steps of Trains: nexus has one of that name"):
            make_config("CartPole-v1", algorithm="trains")
    finally:
        del OWN[REGISTERED.pop("trains")]


def test_another_algorithm_drops_the_settings_of_that_in_a_file(tmp_path: Path) -> None:
    from nexus.resolver import resolve

    file = make_config("CartPole-v1", algorithm="lopsided", asymmetry=0.7).to_mapping()
    assert resolve("CartPole-v1", {}, file=file).config.algorithm_settings["asymmetry"] == 0.7
    assert resolve("CartPole-v1", {"asymmetry": 0.6}, file=file).config.algorithm_settings["asymmetry"] == 0.6
    assert resolve("CartPole-v1", {"algorithm": "dqn"}, file=file).config.algorithm_settings == {}


# --- schedules ---


def falling(progress: float) -> float:
    return 0.1 + 0.4 * (1 - progress)


def warm(progress: float) -> float:
    return min(1.0, 4 * progress)


def beyond(progress: float) -> float:
    return 3 * progress


def fails_late(progress: float) -> float:
    return 0.5 / (progress < 0.5)


def not_a_number(progress: float) -> float:
    return float("nan")


def words(progress: float) -> Any:
    return "0.5"


def test_schedules_are_functions_of_progress() -> None:
    own: dict[str, Any] = {"epsilon_schedule": falling, "total_steps": 1_000, "learning_starts": 10}
    config = make_config("CartPole-v1", **own, learning_rate_schedule=warm, lr=0.2)
    assert (config.epsilon_schedule, config.learning_rate_schedule) == (f"{HERE}:falling", f"{HERE}:warm")
    assert [config.epsilon_at(steps, 9) for steps in (0, 500, 1_000, 1_007)] == [0.5, 0.1 + 0.4 * 0.5, 0.1, 0.1]
    assert [config.learning_rate_at(steps, 9) for steps in (0, 125, 250, 900)] == [0.0, 0.1, 0.2, 0.2]
    assert config.temperature_at(500, 0) == config.temperature
    assert config.slowed(1).learning_rate_at(900, 0) == 0.1  # after a divergence
    boltzmann = make_config("CartPole-v1", **own, exploration="boltzmann")
    assert boltzmann.temperature_at(500, 0) == 0.1 + 0.4 * 0.5


def test_a_run_explores_and_learns_by_them(tmp_path: Path) -> None:
    seen: list[tuple[int, float, float]] = []

    class Looks(Silent):
        def on_start(self, plan: Any) -> None:
            self.live = plan.live

        def on_step(self, progress: Any, episodes: Any) -> None:
            rate = self.live.agent.optimizer.param_groups[0]["lr"]
            seen.append((progress.before.steps, progress.epsilon, rate))

    settings = {**TINY, "epsilon_schedule": falling, "learning_rate_schedule": warm, "learning_rate": 0.01}
    nexus.train(probes.MatchReward, run_dir=tmp_path / "run", listener=Looks(), **settings)
    assert all(epsilon == falling(steps / 200) for steps, epsilon, _ in seen)
    assert [rate for steps, _, rate in seen if steps in (42, 98, 198)] == [0.01 * 0.88, 0.01, 0.01]


@pytest.mark.parametrize(
    ("setting", "function", "says"),
    [
        ("epsilon_schedule", beyond, r"at step 67 of 200 returned 1.005\d*: needs a probability in \[0, 1\]$"),
        ("epsilon_schedule", fails_late, "at step 100 of 200, progress 0.5: float division by zero$"),
        ("epsilon_schedule", not_a_number, "at step 0 of 200 returned nan: needs a probability"),
        ("epsilon_schedule", words, "at step 0 of 200 returned '0.5': needs a probability"),
        ("learning_rate_schedule", not_a_number, "at step 0 of 200 returned nan: needs a factor for learning_rate, 0 "),
        ("learning_rate_schedule", f"{HERE}:NUMBER", "is a int: needs a function from the progress of a run, 0 to 1$"),
        ("learning_rate_schedule", f"{HERE}:wram", r"there is no 'wram' in '.*'; did you mean warm"),
    ],
)
def test_a_schedule_that_is_out_of_range_is_named_with_its_step_before_the_run(
    setting: str, function: Any, says: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=f"^{setting} '{HERE}:.*':? {says}"):
        nexus.train(probes.MatchReward, run_dir=tmp_path / "run", **{**TINY, setting: function})
    assert not (tmp_path / "run").exists()


def test_settings_of_built_in_schedules_are_refused_with_them() -> None:
    with pytest.raises(ConfigError, match=r"^epsilon_min = 0.2: epsilon_schedule falling sets the value at every step"):
        make_config("CartPole-v1", epsilon_schedule=falling, epsilon_min=0.2)
    with pytest.raises(ConfigError, match=r"^learning_rate_end = 0.2: learning_rate_schedule warm sets the factor at"):
        make_config("CartPole-v1", learning_rate_schedule=warm, learning_rate_end=0.2)
    with pytest.raises(ConfigError, match=r"epsilon_schedule has .*<lambda>, which can't be imported by its name"):
        make_config("CartPole-v1", epsilon_schedule=lambda progress: 0.1)


# --- together ---


def test_an_update_of_own_parts_is_recorded_as_a_whole() -> None:
    settings = {"torso": f"{HERE}:pixels", "algorithm": f"{HERE}:lopsided", "prioritized": True}
    parts, whole = Learning(False, **settings).run(), Learning(True, **settings).run()
    assert parts.counters.updates == whole.counters.updates == whole.recorder.replayed == 80
    for name, tensor in tensors(parts.agent.learner).items():
        torch.testing.assert_close(tensors(whole.agent.learner)[name], tensor, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.filterwarnings(IMPORT, TOO_BUSY)
def test_own_parts_can_be_compiled() -> None:
    plain, compiled = (
        make_agent("lopsided", state_dim=3, action_dim=2, torso=Torso, compile=each, device="cpu")
        for each in (False, True)
    )
    batch = {
        "states": torch.randn(8, 3),
        "actions": torch.zeros(8, dtype=torch.int64),
        "rewards": torch.randn(8),
        "discounts": torch.full((8,), 0.9),
        "next_states": torch.randn(8, 3),
    }
    for agent in (plain, compiled):
        agent.learn(batch)
    torch.testing.assert_close(compiled.learner.theta, plain.learner.theta)


# --- from the command line, in an empty folder ---

MINE = '''
import torch
from torch import nn
import nexus


class Net(nn.Module):
    def __init__(self, state_shape):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(state_shape[0], 16), nn.Tanh())

    def forward(self, states):
        return self.layers(states)


class Own(nexus.Settings):
    asymmetry: float = 0.9
    """Weight of errors above 0."""
    clip: bool = False
    """Whether errors are clipped."""


def lopsided(parts):
    def error(predictions, targets):
        errors = targets - predictions
        errors = errors.clamp(-1, 1) if parts.own.clip else errors
        return torch.where(errors > 0, parts.own.asymmetry, 1 - parts.own.asymmetry) * errors.square()
    return parts.network(), nexus.DQNLoss(error, parts.bootstrap)


nexus.register_algorithm("tilted", lopsided, own=Own)


def my_epsilon(progress):
    return 0.05 + 0.5 * (1 - progress) ** 2


def warmup(progress):
    return min(1.0, 5 * progress)


class Stop(nexus.Listener):
    def on_step(self, progress, episodes):
        if progress.counters.steps >= 450:
            raise KeyboardInterrupt
'''
PARTS = [
    *("--torso", "own_of_this_test:Net", "--algo", "own_of_this_test:tilted", "--asymmetry", "0.7", "--clip"),
    *("--epsilon-schedule", "own_of_this_test:my_epsilon"),
    *("--learning-rate-schedule", "own_of_this_test:warmup"),
]
QUICK = [
    *("--total-steps", "600", "--num-envs", "2", "--learning-starts", "50", "--eval-episodes", "2"),
    *("--eval-every", "300 steps", "--target-return", "none", "--checkpoint-every", "200 steps"),
]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder but for a module, and the current one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_of_this_test.py").write_text(MINE)
    yield tmp_path
    forget()


def forget() -> None:
    """As a new process begins."""
    sys.modules.pop("own_of_this_test", None)
    OWN.pop("own_of_this_test:tilted", None)
    REGISTERED.pop("tilted", None)


def in_a_new_process(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    start = [sys.executable, "-P", "-c", "from nexus.cli.main import main; raise SystemExit(main())"]
    return subprocess.run([*start, *words], cwd=cwd, capture_output=True, text=True, check=False)


def test_a_run_of_own_parts_is_stopped_resumed_to_the_bit_and_evaluated_in_a_new_process(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = ["train", "CartPole-v1", *QUICK, *PARTS]
    assert main([*whole, "--run-dir", "whole"]) == 0
    assert main([*whole, "--run-dir", "broken", "--listener", "own_of_this_test:Stop"]) == 130
    forget()
    done = in_a_new_process("resume", "broken", cwd=here)
    assert done.returncode == 0, done.stderr
    monkeypatch.syspath_prepend(here)
    assert differences(here / "whole", here / "broken") == []
    about = json.loads((here / "whole" / "run.json").read_text())["config"]
    assert about["algorithm_settings"] == {"asymmetry": 0.7, "clip": True}
    done = in_a_new_process("evaluate", "whole", "--episodes", "2", "--json", cwd=here)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["returns"] == nexus.evaluate("whole", episodes=2).returns
    plain = nexus.train("CartPole-v1", run_dir=here / "plain", verbose=False, **{**TINY, "hidden_dim": 16})
    assert plain.agent.q_network.num_parameters != nexus.load_agent("whole").q_network.num_parameters


def test_every_command_finds_them(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("imageio_ffmpeg")
    for words_ in (
        ["train", "CartPole-v1", *QUICK, *PARTS, "--run-dir", "first"],
        ["evaluate", "first", "--episodes", "1"],
        ["watch", "first", "--episodes", "1", "--video", "out.mp4"],
        ["verify", "first"],
        ["train", "--config", "first", "--run-dir", "second", "--asymmetry", "0.8", "--no-clip"],
        ["plan", "CartPole-v1", *QUICK, *PARTS, "--probe-seconds", "0.2"],
        ["plan", "--config", "first", "--probe-seconds", "0.2"],
        ["check", "CartPole-v1", "--seconds", "1", *PARTS],
        ["plot", "first", "second"],
        ["resume", "second", "--total-steps", "700"],
    ):
        assert main(words_) == 0, words_
        forget()
    said = capsys.readouterr().out
    assert "own_of_this_test:tilted, asymmetry=0.7, clip=True" in said
    assert "ε by own_of_this_test:my_epsilon" in said
    about = json.loads((here / "second" / "run.json").read_text())["config"]
    assert about["algorithm_settings"] == {"asymmetry": 0.8, "clip": False}


def test_a_file_of_settings_names_them_too(here: Path) -> None:
    own = {"algo": "own_of_this_test:tilted", "torso": "own_of_this_test:Net", "asymmetry": 0.6}
    (here / "mine.json").write_text(json.dumps({"env": "CartPole-v1", **TINY, **own}))
    assert main(["train", "--config", "mine.json", "--run-dir", "run", "--clip"]) == 0
    about = json.loads((here / "run" / "run.json").read_text())["config"]
    assert about["algorithm_settings"] == {"asymmetry": 0.6, "clip": True}


def test_the_help_has_a_box_for_its_settings(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "CartPole-v1", "--algo", "own_of_this_test:tilted", "--asymmetry", "0.6", "--help"])
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "tilted options" in said
    assert "--asymmetry FLOAT Weight of errors above 0. (default: 0.6)" in said
    assert "--clip, --no-clip Whether errors are clipped. (default: False)" in said
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    assert "asymmetry" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("--asymetry 0.5", "unknown option --asymetry; did you mean --asymmetry?; see nexus train --help"),
        (
            "--asymmetry high",
            "--asymmetry: 'high' is not a number; needs one as in 0.001 or 1e-3; see nexus train --help",
        ),
        ("--clip yes", "--clip takes no value, got 'yes': --clip turns it on, --no-clip off; see nexus train"),
        (
            "--hidden-dim 8",
            "hidden_dim = 8: torso own_of_this_test:Net makes all layers itself; leave hidden_dim out",
        ),
        ("--epsilon 0.5", "epsilon = 0.5: epsilon_schedule own_of_this_test:my_epsilon sets the value at every step"),
        ("--torso own_of_this_test:Nett", "there is no 'Nett' in 'own_of_this_test'; did you mean Net"),
        ("--torso mine_of_this_tset:Net", "torso 'mine_of_this_tset:Net': can't import module 'mine_of_this_tset'"),
        ("--torso mlpp", "--torso: 'mlpp': needs one of auto, mlp, "),
        ("--algo own_of_this_test:titled", "no algorithm 'titled' in own_of_this_test; did you mean tilted?"),
        ("--algo own_of_this_test:Own", "no algorithm 'Own' in own_of_this_test; there are tilted"),
        ("--algo nosuch:x", "algorithm 'nosuch:x': can't import module 'nosuch': No module named 'nosuch'"),
        ("--algo", "--algorithm"),
    ],
)
def test_what_is_misspelt_is_one_line_and_leaves_nothing(
    more: str, says: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "CartPole-v1", *QUICK, *PARTS, "--run-dir", "run", *more.split()]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
    assert not (here / "run").exists()


def test_a_module_that_is_gone_is_named_with_where_it_is(
    here: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "CartPole-v1", *QUICK, *PARTS, "--run-dir", "runs/first"]) == 0
    forget()
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for verb in (["evaluate"], ["resume"]):
        done = in_a_new_process(*verb, str(here / "runs" / "first"), cwd=elsewhere)
        assert done.returncode == 2
        if verb == ["evaluate"]:
            assert done.stderr == (
                f"nexus: error: {here}/runs/first was trained with algorithm own_of_this_test:tilted, and there is "
                f"no module 'own_of_this_test' here; it is in {here}: run this there, or add that folder to "
                "PYTHONPATH\n"
            )
    assert in_a_new_process("verify", str(here / "runs" / "first"), cwd=elsewhere).returncode == 0  # needs no code
    (here / "own_of_this_test.py").unlink()
    capsys.readouterr()
    assert main(["evaluate", "runs/first"]) == 2
    assert "run this in the folder that has own_of_this_test.py, or add that to PYTHONPATH" in capsys.readouterr().err


SCRIPT = """
import nexus
from torch import nn


def net(state_shape):
    return nn.Linear(state_shape[0], 8)


def plain(parts):
    return parts.network(), nexus.DQNLoss()


nexus.register_algorithm("of_a_script", plain)
if __name__ == "__main__":
    settings = dict(total_steps=200, learning_starts=40, eval_every=None, target_return=None, epsilon_steps=9)
    nexus.train("CartPole-v1", torso=net, algorithm="of_a_script", run_dir="run", eval_episodes=1, **settings)
    print(len(nexus.evaluate("run", episodes=3).returns))
"""


def test_parts_of_a_script_are_found_by_the_script_alone_and_that_is_said(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "script.py").write_text(SCRIPT)
    done = subprocess.run([sys.executable, "script.py"], cwd=here, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "3"), done.stderr
    for part in ("torso __main__:net", "algorithm __main__:of_a_script"):
        assert f"{part} is defined in the program that runs now, so only this program can evaluate" in done.stderr
    assert main(["evaluate", "run"]) == 2
    said = "run was trained with algorithm __main__:of_a_script, which was defined in the program that trained it: run"
    assert said in capsys.readouterr().err


def test_a_run_is_played_without_its_schedules(here: Path) -> None:
    assert main(["train", "CartPole-v1", *QUICK, *PARTS[-4:], "--run-dir", "first"]) == 0
    forget()
    (here / "own_of_this_test.py").unlink()
    with pytest.warns(
        RuntimeWarning, match="its exploration at the end of the training is not known: epsilon_schedule"
    ):
        assert len(nexus.evaluate("first", episodes=2).returns) == 2
    with pytest.raises(RunError, match="was trained with epsilon_schedule own_of_this_test:my_epsilon"):
        nexus.resume("first", total_steps=700)


def test_a_run_brings_no_part_from_within_its_folder(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from nexus.training.files import write_json

    assert main(["train", "CartPole-v1", *QUICK, *PARTS, "--run-dir", "run"]) == 0
    forget()
    (here / "run" / "brought.py").write_text(f"open({str(here / 'witness')!r}, 'w').close()\n{MINE}")
    about = json.loads((here / "run" / "run.json").read_text())
    for setting in ("torso", "algorithm", "epsilon_schedule", "learning_rate_schedule"):
        name = about["config"][setting].partition(":")[2]
        for module, cwd, run in (("run.brought", here, "run"), ("brought", here / "run", ".")):
            changed = {**about, "config": {**about["config"], setting: f"{module}:{name}"}}
            write_json(here / "run" / "run.json", changed)
            monkeypatch.chdir(cwd)
            for words_ in (["evaluate", run], ["resume", run, "--total-steps", "700"], ["train", "--config", run]):
                assert main(words_) == 2, (setting, words_)
                assert "nexus: error: " in capsys.readouterr().err
                assert not (here / "witness").exists()
                forget()
