"""Agents that see a Dict or a Tuple: their torso, their doors, and their runs."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.wrappers import FrameStackObservation
from torch import Tensor, nn
from torch.func import vmap

import nexus
from nexus.api import process_for
from nexus.cli.main import main
from nexus.core.errors import ConfigError, RunError
from nexus.core.types import Array, Transitions
from nexus.data.replay_buffer import ReplayBuffer
from nexus.envs.factory import EnvSpec, make_env, seen_by_agent, widest_part
from nexus.envs.packing import Packing
from nexus.models.layers import MLPTorso
from nexus.models.rl.dqn import DQNAgent
from nexus.models.rl.dqn.pure import noise_of, pure_gradient
from nexus.models.rl.dqn.rainbow import ALGORITHMS, make_agent
from nexus.models.torsos import ConvolutionalTorso
from nexus.models.unpacking import UnpackingTorso
from nexus.training.files import write_json
from tests.chaos import Silent, differences, interrupt, interrupted
from tests.structured import Pair, Xor

ASYNC = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # how Linux starts processes before 3.14
TINY: dict[str, Any] = {
    "total_steps": 300,
    "num_envs": 2,
    "learning_starts": 40,
    "hidden_dim": 8,
    "batch_size": 16,
    "update_every": "4 steps",
    "target_update_every": "10 updates",
    "eval_episodes": 3,
    "epsilon_steps": 100,
    "device": "cpu",
    "threads": 1,
}
ROOM = spaces.Dict(
    {
        "camera": spaces.Box(0, 255, (4, 4, 1), np.uint8),
        "gear": spaces.Discrete(3, start=5),
        "lamps": spaces.MultiBinary((2, 2)),
        "pose": spaces.Tuple((spaces.Box(-1, 1, (2,), np.float32), spaces.Box(0, 8, (1,), np.int32))),
        "table": spaces.Box(0, 255, (2,), np.uint8),
        "wheels": spaces.MultiDiscrete([2, 3], start=[0, 7]),
    }
)


def agent_for(space: Any, scaled: bool = False, **config: Any) -> DQNAgent:
    packing = Packing(space, "x")
    seen = seen_by_agent(packing.space, "x", scaled)
    settings = {"hidden_dim": 8, "device": "cpu", "precision": "float32", **seen, **config}
    agent = make_agent(settings.pop("algorithm", "dqn"), state_dim=[packing.layout.nbytes], action_dim=16, **settings)
    random = torch.Generator().manual_seed(1)
    for parameter in agent.q_network.parameters():  # so that states differ in their best actions
        nn.init.normal_(parameter, std=0.5 if parameter.ndim > 1 else 0.0, generator=random)
    return agent


def samples(space: Any, count: int) -> list[Any]:
    space.seed(0)
    return [space.sample() for _ in range(count)]


def rows(space: Any, observations: list[Any]) -> Array:
    """The states `[E, N]` of observations, as the environment's own wrapper packs them."""
    return np.stack([Packing(space, "x").read(observation) for observation in observations])


def together(observations: list[Any]) -> Any:
    """Many observations as one whose parts have a first axis more."""
    first = observations[0]
    if isinstance(first, dict):
        return {key: together([each[key] for each in observations]) for key in first}
    if isinstance(first, tuple):
        return tuple(together([each[place] for each in observations]) for place in range(len(first)))
    return np.stack(observations)


def best(agent: DQNAgent, states: Array) -> list[int]:
    actions: list[int] = agent.q_network(states).argmax(1).tolist()
    return actions


# --- the torso ---


def torso_of(agent: DQNAgent) -> UnpackingTorso:
    torso = agent.q_network.torso
    assert isinstance(torso, UnpackingTorso)
    return torso


class Kept(nn.Module):
    """Gives on what it is given, in a row, and keeps it."""

    def forward(self, given: Tensor) -> Tensor:
        self.given = given
        return given.flatten(1)


def test_each_part_comes_where_it_belongs_in_its_own_scale() -> None:
    camera = np.arange(16, dtype=np.uint8).reshape(4, 4, 1)
    observation = {
        "camera": camera,
        "gear": 6,
        "lamps": np.array([[0, 1], [1, 0]]),
        "pose": (np.array([0.5, -1], np.float32), np.array([2])),
        "table": np.array([51, 255], np.uint8),
        "wheels": np.array([1, 8]),
    }
    agent = agent_for(ROOM)
    torso = torso_of(agent)
    assert isinstance(torso.numbers, MLPTorso)
    image, numbers = Kept(), Kept()
    torso.images[0], torso.joint = image, nn.Identity()
    torso.numbers.add_module("layers", numbers)
    states = rows(ROOM, [observation, observation])
    torso(torch.from_numpy(states))
    assert image.given.dtype == torch.uint8
    assert image.given[1].tolist() == camera.tolist()
    expected = [0.5, -1, 0.25, *(0, 1, 0), *(0, 1, 1, 0), *(0, 1, 0, 1, 0), 0.2, 1.0]
    torch.testing.assert_close(numbers.given, torch.tensor([expected] * 2))
    scaled = torso_of(agent_for(ROOM, scaled=True))
    assert isinstance(scaled.numbers, MLPTorso)
    scaled.numbers.add_module("layers", numbers)
    with pytest.raises(RuntimeError):  # there are not as many features any more
        scaled(torch.from_numpy(states))
    expected = [0.5, -1, -0.5, *(-1, 1, -1), *(-1, 1, 1, -1), *(-1, 1, -1, 1, -1), 0.2, 1.0]
    torch.testing.assert_close(numbers.given, torch.tensor([expected] * 2))


def test_features_are_those_of_both_entries_joined() -> None:
    torso = torso_of(agent_for(ROOM))
    states = torch.from_numpy(rows(ROOM, samples(ROOM, 5)))
    camera, numbers = torso.frames[0].of(states), torch.cat([run.of(states).float() for run in torso.runs], 1)
    assert isinstance(torso.images[0], ConvolutionalTorso)
    assert torso.numbers is not None
    assert torso.joint is not None
    halves = torch.cat([torso.images[0](camera), torso.numbers(numbers)], 1)
    assert halves.shape == (5, 16)
    features = torso.joint(halves)
    assert features.shape == (5, 8)
    torch.testing.assert_close(torso(states), features)
    stacked = torso(torch.stack([states, states.flip(0)]))  # whatever is before a state is one batch
    torch.testing.assert_close(stacked, torch.stack([features, features.flip(0)]))
    assert len(torso.runs) == 3  # of float32, int8 and uint8: parts that lie side by side are read at once


def test_an_image_of_floats_between_other_floats_is_read_by_itself() -> None:
    frame = spaces.Box(-1, 1, (3, 3, 1), np.float32)
    space = spaces.Dict(
        {"a": spaces.Box(-9, 9, (2,), np.float32), "b": frame, "c": spaces.Box(-9, 9, (1,), np.float32)}
    )
    torso = torso_of(agent_for(space))
    image = np.arange(9, dtype=np.float32).reshape(3, 3, 1) / 9
    observation = {"a": np.array([1, 2], np.float32), "b": image, "c": np.array([3], np.float32)}
    states = torch.from_numpy(rows(space, [observation]))
    assert [run.of(states).tolist() for run in torso.runs] == [[[1, 2]], [[3]]]
    np.testing.assert_array_equal(torso.frames[0].of(states)[0].numpy(), image)


def test_gradient_flows_to_both_entries() -> None:
    agent = agent_for(Xor.observation_space)
    states = torch.from_numpy(rows(Xor.observation_space, samples(Xor.observation_space, 32)))
    agent.q_network(states)[:, 0].sum().backward()
    for name, parameter in torso_of(agent).named_parameters():
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0, name
    assert {name.split(".")[0] for name, _ in torso_of(agent).named_parameters()} == {"images", "numbers", "joint"}


def test_each_image_has_a_torso_of_its_own_and_numbers_alone_need_no_joint_layer() -> None:
    large, small = spaces.Box(0, 255, (36, 36, 3), np.uint8), spaces.Box(0, 255, (3, 5, 5), np.uint8)
    numbers = spaces.Box(-1, 1, (3,), np.float32)
    two = agent_for(spaces.Tuple((large, small, numbers)), hidden_dim=None)
    torso = torso_of(two)
    assert two.states.torsos(two.settings) == ["mlp", "nature_cnn", "minatar_cnn"]
    shapes = [each.images.shape for each in torso.images if isinstance(each, ConvolutionalTorso)]
    assert shapes == [(3, 36, 36), (3, 5, 5)]
    assert isinstance(torso.joint, nn.Sequential)
    assert torso.joint[0].weight.shape == (512, 512 + 128 + 128)
    assert str(two.states) == "3 + 36x36x3 + 3x5x5"
    assert two.states.widest == (36, 36, 3)
    alone = torso_of(agent_for(spaces.Dict({"a": numbers, "b": numbers})))
    assert (len(alone.images), alone.joint) == (0, None)
    assert isinstance(alone.numbers, MLPTorso)
    assert alone.numbers.layers[0].weight.shape == (8, 6)
    picture = torso_of(agent_for(spaces.Dict({"a": small})))
    assert (len(picture.images), picture.numbers, picture.joint) == (1, None, None)


@pytest.mark.parametrize(
    ("settings", "torsos"),
    [
        ({"torso": "mlp"}, ["mlp"]),
        ({"torso": "minatar_cnn"}, ["mlp", "minatar_cnn"]),
        (
            {"channels": "last", "hidden_layers": 1, "layer_norm": True, "standardize_images": True},
            ["mlp", "minatar_cnn"],
        ),
        ({"precision": "bfloat16", "hidden_layers": 3}, ["mlp", "minatar_cnn"]),
    ],
)
def test_settings_go_to_the_parts_that_have_a_use_for_them(settings: dict[str, Any], torsos: list[str]) -> None:
    agent = agent_for(ROOM, **settings)
    assert agent.states.torsos(agent.settings) == torsos
    assert agent.q_network(rows(ROOM, samples(ROOM, 2))).shape == (2, 16)
    torso = torso_of(agent)
    assert isinstance(torso.numbers, MLPTorso)
    layers = [layer for layer in torso.numbers.layers if isinstance(layer, nn.Linear)]
    assert len(layers) == settings.get("hidden_layers", 2)
    norms = [layer for layer in torso.modules() if isinstance(layer, nn.LayerNorm)]
    assert len(norms) == (3 if "layer_norm" in settings else 0)  # of the image, the numbers and what joins them
    images = [layer for layer in torso.modules() if isinstance(layer, ConvolutionalTorso)]
    assert [layer.images.standardize for layer in images] == [settings.get("standardize_images", False)] * len(images)


NUMBERS = spaces.Dict({"a": spaces.Box(-1, 1, (3,), np.float32), "b": spaces.Discrete(2)})


@pytest.mark.parametrize(
    ("space", "settings", "text"),
    [
        (ROOM, {"torso": "nature_cnn"}, "torso = 'nature_cnn': needs images of 36 x 36 or more, got (4, 4, 1)"),
        (NUMBERS, {"torso": "minatar_cnn"}, "torso = 'minatar_cnn': needs images of 3 x 3 or more, got (3,)"),
        (NUMBERS, {"channels": "first"}, "channels = 'first': is "),
        (NUMBERS, {"precision": "bfloat16"}, "precision = 'bfloat16': "),
        (NUMBERS, {"standardize_images": True}, "standardize_images: "),
        (spaces.Dict({"a": ROOM["camera"]}), {"hidden_layers": 3}, "hidden_layers = 3: minatar_cnn has 1 "),
    ],
)
def test_a_setting_for_which_nothing_has_a_use_is_refused(space: Any, settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        agent_for(space, **settings)
    assert str(caught.value).startswith(text)


def test_a_state_that_is_not_packed_is_refused() -> None:
    agent = agent_for(NUMBERS)
    for states in (np.zeros((1, 14), np.float32), np.zeros((1, 13), np.uint8)):
        with pytest.raises(ConfigError, match=r"^got states .*\[1, 1.\]: needs packed ones, uint8\[\.\.\., 14\]"):
            agent.q_network(states)


def batch_for(agent: DQNAgent, seed: int) -> dict[str, Tensor]:
    states = rows(ROOM, [ROOM.sample() for _ in range(16)])
    rng = torch.Generator().manual_seed(seed)
    return {
        "states": torch.from_numpy(states),
        "actions": torch.randint(16, (16,), generator=rng),
        "rewards": torch.randn(16, generator=rng),
        "discounts": torch.full((16,), 0.9),
        "next_states": torch.from_numpy(states[::-1].copy()),
        "weights": torch.rand(16, generator=rng),
    }


def test_agents_that_see_several_parts_learn_through_one_vmapped_gradient() -> None:
    agents = [agent_for(ROOM, seed=seed, max_grad_norm=None) for seed in (0, 1)]
    ROOM.seed(0)
    batches = [batch_for(agent, seed) for seed, agent in enumerate(agents)]
    learners = [agent.learner for agent in agents]
    for learner in learners:
        learner.theta.add_(0.1 * torch.randn(learner.theta.shape))
    thetas, targets = (torch.stack([getattr(each, name) for each in learners]) for name in ("theta", "theta_target"))
    stacked = {name: torch.stack([each[name] for each in batches]) for name in batches[0]}
    noise = torch.stack([noise_of(learner) for learner in learners])
    found = vmap(pure_gradient(learners[0]))(thetas, targets, stacked, noise)
    for learner, batch, gradient in zip(learners, batches, found, strict=True):
        torch.testing.assert_close(gradient, learner.gradient(batch)[0], atol=1e-4, rtol=1e-3)
    assert not torch.allclose(found[0], found[1])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
def test_a_compiled_update_is_the_eager_one() -> None:
    ROOM.seed(0)
    batches = [batch_for(agent_for(ROOM), seed) for seed in range(5)]
    eager, compiled = agent_for(ROOM), agent_for(ROOM, compile=True)
    start = eager.learner.theta.clone()
    for batch in batches:
        eager.update(batch)
        compiled.update(batch)
    assert (eager.learner.theta - start).abs().max() > 1e-3
    torch.testing.assert_close(compiled.learner.theta, eager.learner.theta, rtol=0, atol=1e-4)


@pytest.mark.parametrize("algorithm", [name for name in ALGORITHMS if name != "pqn"])
def test_every_algorithm_takes_them(algorithm: str) -> None:
    agent = agent_for(ROOM, algorithm=algorithm)
    ROOM.seed(0)
    before = agent.learner.theta.clone()
    outcome = agent.update(batch_for(agent, 0))
    assert torch.isfinite(outcome.loss)
    assert not torch.equal(agent.learner.theta, before)


# --- predict and select_action ---


WITHOUT_AXES: Any = spaces.Tuple(
    [spaces.Box(-9, 9, (), np.float32), spaces.Box(0, 255, (), np.uint8), spaces.Box(-9, 9, (3,), np.float32)]
)


@pytest.mark.parametrize("space", [ROOM, Pair.observation_space, NUMBERS, WITHOUT_AXES])
def test_an_observation_is_taken_as_the_environment_gives_it(space: Any) -> None:
    agent, observations = agent_for(space), samples(space, 40)
    expected = best(agent, rows(space, observations))
    assert len(set(expected)) > 1
    for observation, action in zip(observations, expected, strict=True):
        found, state = agent.predict(observation)
        assert (np.ndim(found), int(found), state) == (0, action, None)
        assert agent.select_action(observation, training=False) == action
    assert agent.predict(together(observations))[0].tolist() == expected
    assert agent.predict(together(observations[:1]))[0].tolist() == expected[:1]


def test_so_is_one_in_other_forms() -> None:
    agent, (observation,) = agent_for(ROOM), samples(ROOM, 1)
    expected = best(agent, rows(ROOM, [observation]))
    as_lists = {
        "camera": observation["camera"].tolist(),
        "gear": np.int64(observation["gear"]),
        "lamps": observation["lamps"].astype(bool),
        "pose": [observation["pose"][0].astype(np.float64), torch.from_numpy(observation["pose"][1])],
        "table": observation["table"].astype(np.int64),
        "wheels": observation["wheels"].tolist(),
        "unseen": "a word",  # what the agent does not see is not looked at
    }
    assert [agent.predict(as_lists)[0]] == expected
    one_hot = {**observation, "gear": np.eye(3)[observation["gear"] - 5]}
    assert [agent.predict(one_hot)[0]] == expected


def test_packed_states_are_taken_too() -> None:
    agent = agent_for(ROOM)
    states = rows(ROOM, samples(ROOM, 5))
    assert agent.predict(states)[0].tolist() == best(agent, states)
    assert agent.predict(torch.from_numpy(states[2]))[0] == best(agent, states)[2]
    assert agent.select_action(states[2], training=False) == best(agent, states)[2]


def refused(act: Callable[..., Any], given: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        act(given)
    assert "\n" not in str(caught.value)
    return str(caught.value)


FINE = samples(ROOM, 1)[0]


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({}, "observation has no 'pose', it is empty"),
        (
            {("camra" if key == "camera" else key): value for key, value in FINE.items()},
            "observation has no 'camera', only 'camra', 'gear', 'lamps', 'pose', 'table', 'wheels'; did you mean "
            "camra?",
        ),
        (FINE["camera"].astype(float), "observation is of type ndarray: needs a mapping with 'pose'"),
        ([FINE, FINE], "observation is of type list: needs a mapping with 'pose'"),
        ((FINE, {}), "observation is the whole result of env.reset(): pass env.reset()[0]"),
        ((FINE, 0.0, False, False, {}), "observation is the whole result of env.step(): pass its first element"),
        ({**FINE, "pose": FINE["pose"][:1]}, "observation['pose'] has 1 entries: needs at least 2"),
        ({**FINE, "pose": 3}, "observation['pose'] is of type int: needs a tuple"),
        (
            {**FINE, "pose": (np.zeros(3), [1])},
            "observation['pose'][0] of shape (3,): needs (2,), or (E, 2) for E of them",
        ),
        ({**FINE, "pose": ([0, np.nan], [1])}, "observation['pose'][0] contains nan: needs finite numbers"),
        ({**FINE, "gear": 8}, "observation['gear'] 8: needs a whole number from 5 to 7"),
        ({**FINE, "gear": "up"}, "observation['gear'] of type str: needs numbers of shape (3,)"),
        (
            {**FINE, "gear": 5.5},
            "observation['gear'] of shape (): needs (3,), or (E, 3) for E of them, or whole numbers from 5 to 7",
        ),
        ({**FINE, "wheels": [0, 6]}, "observation['wheels'] 6: needs a whole number from 7 to 9"),
        (
            {**FINE, "wheels": [0, 7, 0]},
            "observation['wheels'] of shape (3,): needs (5,), or (E, 5) for E of them, or whole numbers of shape (2,)",
        ),
        ({**FINE, "lamps": np.full((2, 2), 300)}, "observation['lamps'] contains 300: int8 can't represent it"),
        (
            {**FINE, "camera": FINE["camera"] / 255},
            "observation['camera'] has dtype float64: needs bytes from 0 to 255, as from the environment",
        ),
        (
            {**FINE, "camera": FINE["camera"][..., 0]},
            "observation['camera'] of shape (4, 4): needs (4, 4, 1), or (E, 4, 4, 1) for E of them; pass "
            "x.reshape((4, 4, 1))",
        ),
        (
            {**FINE, "camera": FINE["camera"][None]},
            "observation has 1 in observation['camera'] and a single one in observation['pose'][0]: needs the same "
            "number in each part",
        ),
        (
            together([FINE, FINE]) | {"gear": [5, 6, 7]},
            "observation has 3 in observation['gear'] and 2 in observation['pose'][0]: needs the same "
            "number in each part",
        ),
    ],
)
def test_what_is_no_such_observation_is_one_line(given: Any, text: str) -> None:
    assert refused(agent_for(ROOM).predict, given) == text


def test_select_action_takes_one() -> None:
    assert refused(agent_for(ROOM).select_action, together([FINE, FINE])) == (
        "observation['pose'][0] of shape (2, 2): needs (2,); use predict for many"
    )
    assert refused(agent_for(ROOM).predict, np.zeros(3, np.uint8)).startswith(
        "observation of shape (3,): needs (42,), or"
    )


def test_a_grey_picture_comes_as_it_was_observed() -> None:
    space = spaces.Dict(
        {"screen": spaces.Box(0, 255, (36, 40), np.uint8), "speed": spaces.Box(-1, 1, (1,), np.float32)}
    )
    agent, observations = agent_for(space, torso="mlp"), samples(space, 5)
    expected = best(agent, rows(space, observations))
    assert agent.predict(together(observations))[0].tolist() == expected
    assert agent.predict(together(observations[:1]))[0].tolist() == expected[:1]  # (1, 36, 40) is one of (36, 40)


def test_a_mask_in_the_observation_is_kept_to() -> None:
    agent = agent_for(NUMBERS, mask_entry="action_mask")
    observations = samples(NUMBERS, 16)
    masks = np.eye(16, dtype=np.int8)
    with_masks = [{**observation, "action_mask": mask} for observation, mask in zip(observations, masks, strict=True)]
    assert agent.predict(together(with_masks))[0].tolist() == list(range(16))
    assert agent.predict(with_masks[3])[0] == 3
    assert agent.select_action(with_masks[3], training=False) == 3
    assert {agent.select_action(with_masks[3]) for _ in range(20)} == {3}
    assert agent.predict(with_masks[3], action_masks=masks[5])[0] == 5  # what is said apart from it counts
    assert [agent.predict(observations[3])[0]] == best(agent, rows(NUMBERS, observations[3:4]))
    assert "needs 16 entries, at least one of them 1" in refused(
        agent.predict, {**observations[0], "action_mask": [0] * 16}
    )


# --- one array, as it was observed ---


@pytest.mark.parametrize(
    "space",
    [
        spaces.MultiDiscrete([3, 4], start=[2, -1]),
        spaces.MultiDiscrete(np.array([[3, 2], [2, 2]])),
        spaces.MultiBinary((2, 3)),
        spaces.MultiBinary(5),
        spaces.Box(0, 255, (36, 37), np.uint8),
    ],
)
def test_one_array_alone_is_taken_as_it_was_observed(space: Any) -> None:
    class Seeing(Xor):
        observation_space = space

        def look(self) -> Any:
            super().look()
            return space.sample()

    env = make_env(EnvSpec(Seeing))
    shape, seen = env.observation_space.shape, seen_by_agent(env.observation_space, "x", False)
    agent = make_agent(
        "dqn", state_dim=list(shape or ()), action_dim=16, hidden_dim=16, device="cpu", torso="mlp", **seen
    )
    nn.init.normal_(agent.q_network.head.linear.weight, generator=torch.Generator().manual_seed(0))  # type: ignore[union-attr, arg-type]
    space.seed(3)
    observations = [space.sample() for _ in range(30)]
    states = states_of(env, observations)
    expected = best(agent, states)
    assert len(set(expected)) > 1
    assert agent.predict(np.stack(observations))[0].tolist() == expected
    assert [agent.predict(observation)[0] for observation in observations] == expected
    assert agent.predict(states)[0].tolist() == expected
    assert [agent.select_action(state, training=False) for state in states] == expected


def states_of(env: Any, observations: list[Any]) -> Array:
    """What the edge makes of observations."""
    return np.stack([env.read(observation) for observation in observations])


def test_an_array_next_to_a_mask_is_taken_with_its_dict() -> None:
    agent = make_agent("dqn", state_dim=4, action_dim=3, path=["seen"], mask_entry="action_mask", device="cpu")
    state = np.ones(4, np.float32)
    for legal in range(3):
        observation = {"action_mask": np.eye(3)[legal], "seen": state}
        assert agent.predict(observation)[0] == legal
        assert agent.select_action(observation) == legal
    assert agent.predict(state)[0] == agent.predict({"seen": state})[0]
    assert refused(agent.predict, {"sen": state}) == "observation has no 'seen', only 'sen'; did you mean sen?"


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"state_parts": 3}, "state_parts = 3: needs a list of mappings"),
        ({"state_parts": []}, "state_parts = []: needs a list of mappings"),
        ({"state_parts": ["a"]}, "state_parts = ['a']: needs a list of mappings"),
        ({"state_parts": [{}]}, "state_dim = None: needs a whole number"),
        (
            {"state_parts": [{"path": [], "state_dim": [4], "dtype": "uint8"}]},
            "state_parts has observation of dtype 'uint8' and shape (4,): needs a path, one of float32, int8, bool, "
            "uint8, and sizes of at least 1",
        ),
        (
            {"state_parts": [{"path": ["a"], "state_dim": [4], "dtype": "object"}]},
            "state_parts has observation['a'] of dtype",
        ),
        (
            {"state_parts": [{"path": ["a"], "state_dim": [0], "dtype": "int8"}]},
            "state_parts has observation['a'] of dtype",
        ),
        (
            {"state_parts": [{"path": [1.5], "state_dim": [4], "dtype": "int8"}]},
            "path = [1.5]: needs a list of keys and",
        ),
        (
            {"state_parts": [{"path": ["a"], "state_dim": [3], "dtype": "uint8"}]},
            "state_parts take 3 bytes: needs as many as a state (4,) has",
        ),
        (
            {"state_parts": [{"path": ["a"], "state_dim": [4], "dtype": "uint8", "odd": 1}]},
            "state_parts has unknown entries 'odd' for observation['a']",
        ),
        (
            {"state_parts": [{"path": ["a"], "state_dim": [4], "dtype": "uint8", "state_scale": [1, 0]}]},
            "state_scale = [1, 0]: needs two finite numbers",
        ),
        ({"observed_dim": [3]}, "observed_dim = [3]: needs as many numbers as a state of shape (4,)"),
        (
            {"discrete_sizes": [2, 2], "discrete_start": [0]},
            "discrete_sizes = [2, 2]: needs sizes of at least 1, one per",
        ),
        ({"discrete_sizes": [2, 3], "discrete_start": [0, 0]}, "discrete_sizes = [2, 3]: needs sizes of at least 1"),
        (
            {"discrete_sizes": [[2], [2, 2]], "discrete_start": [0, 0]},
            "discrete_sizes = [[2], [2, 2]]: needs whole numbers",
        ),
        ({"discrete_sizes": [2, 2]}, "discrete_start = None: needs whole numbers"),
        ({"mask_entry": 3}, "mask_entry = 3: needs text"),
        ({"path": "a"}, "path = 'a': needs a list of keys and indices"),
    ],
)
def test_an_impossible_description_of_states_is_refused(config: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        DQNAgent({"state_dim": 4, "action_dim": 2, **config})
    assert str(caught.value).startswith(text)


# --- runs ---


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> nexus.TrainResult:
    folder = tmp_path_factory.mktemp("structured") / "run"
    return nexus.train("tests.structured:LongXor-v0", run_dir=folder, listener=Silent(), **TINY)


def test_a_run_says_what_it_sees_and_gives_its_agent_back(trained: nexus.TrainResult, tmp_path: Path) -> None:
    about = json.loads((trained.run_dir / "run.json").read_text())
    assert about["agent"]["state_dim"] == [18]
    assert about["agent"]["state_parts"] == [
        {
            "path": ["panel", "switch"],
            "state_dim": [2],
            "dtype": "int8",
            "state_scale": [0.0, 1.0],
            "discrete_start": 0,
        },
        {"path": ["camera"], "state_dim": [4, 4, 1], "dtype": "uint8", "state_scale": [0.0, 255.0]},
    ]
    observations = samples(Xor.observation_space, 20)
    expected = trained.agent.predict(together(observations))[0].tolist()
    assert nexus.load_agent(trained.run_dir).predict(together(observations))[0].tolist() == expected
    code = (
        "import sys, json, numpy as np, nexus\n"
        "agent = nexus.load_agent(sys.argv[1])\n"
        "for seen in json.load(sys.stdin):\n"
        "    camera = np.array(seen['camera'], np.uint8)\n"
        "    print(agent.predict({'camera': camera, 'panel': seen['panel']})[0])\n"
    )
    plain = [{"camera": o["camera"].tolist(), "panel": {"switch": int(o["panel"]["switch"])}} for o in observations]
    done = subprocess.run(
        [sys.executable, "-c", code, str(trained.run_dir)],
        input=json.dumps(plain),
        capture_output=True,
        text=True,
        check=True,
    )
    assert [int(line) for line in done.stdout.split()] == expected
    assert nexus.evaluate(trained, episodes=5) == nexus.evaluate(trained.run_dir, episodes=5)


def test_the_command_line_plans_trains_again_evaluates_and_watches(
    trained: nexus.TrainResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = tmp_path / "again"
    assert main(["train", "--config", str(trained.run_dir), "--run-dir", str(again)]) == 0
    assert "2 + 4x4x1-minatar_cnn-8-8-8-8-2" in capsys.readouterr().out
    assert (again / "agent.safetensors").read_bytes() == (trained.run_dir / "agent.safetensors").read_bytes()
    assert main(["evaluate", str(again), "--episodes", "2"]) == 0
    flags = ["--probe-seconds", "0.3", "--learning-starts", "40", "--run-dir", str(tmp_path / "planned")]
    assert main(["plan", "tests.structured:LongXor-v0", *flags]) == 0
    pytest.importorskip("imageio_ffmpeg")
    assert main(["watch", str(again), "--episodes", "1", "--video", str(tmp_path / "out.mp4")]) == 0


@pytest.mark.parametrize(
    ("env", "settings"),
    [
        ("LongXor-v0", {"n_step": 3, "prioritized": True}),
        ("MaskedXor-v0", {"algorithm": "rainbow", "replay_capacity": 90}),
        ("Pair-v0", {"algorithm": "pqn", "num_envs": 4, "replay_capacity": 64, "update_every": "64 steps"}),
        ("LongXor-v0", {"actor_sync_every": "20 steps", "scale_observations": True}),
    ],
)
def test_a_run_that_was_broken_goes_on_bit_for_bit(env: str, settings: dict[str, Any], tmp_path: Path) -> None:
    values = TINY | {"checkpoint_every": "60 steps", "eval_every": "100 steps", "log_every": "30 steps"} | settings
    name = f"tests.structured:{env}"
    whole = nexus.train(name, run_dir=tmp_path / "whole", listener=Silent(), **values)
    assert whole.counters.updates > 3
    interrupted(lambda: nexus.train(name, run_dir=tmp_path / "broken", listener=Silent(157, interrupt), **values))
    silent = Silent()
    nexus.resume(tmp_path / "broken", listener=silent)
    assert not any("does not repeat" in notice for notice in silent.notices)
    assert differences(tmp_path / "whole", tmp_path / "broken") == []


@ASYNC
def test_environments_in_processes_see_the_same(tmp_path: Path) -> None:
    weights = []
    for vectorization in ("sync", "async"):
        run = tmp_path / vectorization
        nexus.train("tests.structured:LongXor-v0", run_dir=run, listener=Silent(), **TINY, vectorization=vectorization)
        weights.append((run / "agent.safetensors").read_bytes())
    assert weights[0] == weights[1]


def test_an_environment_of_other_parts_is_refused(trained: nexus.TrainResult, tmp_path: Path) -> None:
    class Other(Xor):
        """As many bytes, and the same ones."""

        observation_space = spaces.Dict({"camera": ROOM["camera"], "knob": spaces.Discrete(2)})

        def look(self) -> Any:
            return {"camera": super().look()["camera"], "knob": 0}

    parts = "observation['knob'] int8[2], observation['camera'] uint8[4, 4, 1]"
    with pytest.raises(ConfigError) as caught:
        nexus.evaluate(trained, Other)
    assert str(caught.value) == (
        f"Other has states of shape {parts} and 2 actions: the agent was made for "
        "observation['panel']['switch'] int8[2], observation['camera'] uint8[4, 4, 1] and 2"
    )
    plain = nexus.make_agent("dqn", state_dim=18, action_dim=2)
    with pytest.raises(ConfigError, match=r"has states of shape observation.* the agent was made for \(18,\) and 2"):
        nexus.evaluate(plain, Xor)


def test_a_hostile_description_of_parts_is_refused(trained: nexus.TrainResult) -> None:
    about = json.loads((trained.run_dir / "run.json").read_text())
    kept = (trained.run_dir / "run.json").read_bytes()
    try:
        for entry, value in (("state_dim", [4, 4, 2]), ("path", 3), ("state_bounds", 3), ("dtype", "object")):
            parts = [dict(part) for part in about["agent"]["state_parts"]]
            parts[1][entry] = value
            write_json(trained.run_dir / "run.json", {**about, "agent": {**about["agent"], "state_parts": parts}})
            with pytest.raises(RunError, match="describes an agent"):
                nexus.load_agent(trained.run_dir)
    finally:
        (trained.run_dir / "run.json").write_bytes(kept)


def test_frames_are_stacked_by_gymnasiums_wrapper_and_not_here(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"^frame_stack: Xor has Dict observations, which nexus does not stack: wrap it in"
    ):
        nexus.train(Xor, frame_stack=4, run_dir=tmp_path / "refused")

    def stacked() -> Any:
        return FrameStackObservation(Xor(), 3)

    result = nexus.train(stacked, run_dir=tmp_path / "run", listener=Silent(), **TINY)
    assert str(result.agent.states) == "6 + 3x4x4x1"
    assert result.agent.predict(samples(stacked().observation_space, 1)[0])[0] in (0, 1)


def test_a_run_with_an_image_among_the_parts_is_one_with_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its device and torch's threads are chosen by the image and not by the row of bytes."""
    asked, freed = list[Any](), list[bool]()

    def device_for(name: str, shape: tuple[int, ...]) -> torch.device:
        asked.append(shape)
        return torch.device("cpu")

    for module in ("parts", "models.rl.dqn.agent", "models.rl.dqn.rainbow"):
        monkeypatch.setattr(f"nexus.{module}.resolve_device", device_for)
    monkeypatch.setattr("nexus.api.keep_freed_memory", lambda: freed.append(True))
    nexus.train(Pair, run_dir=tmp_path / "run", listener=Silent(), **TINY, algorithm="iqn")
    assert asked == [(4, 4, 1)] * 3
    assert freed == []
    space = spaces.Dict({"image": spaces.Box(0, 255, (36, 36, 1), np.uint8), "a": spaces.Discrete(2)})
    with process_for(agent_for(space), None):
        assert freed == [True] * (sys.platform == "linux")


def test_an_image_among_the_parts_decides_where_auto_goes() -> None:
    packed = Packing(ROOM, "x").space
    assert widest_part(packed) == agent_for(ROOM).states.widest == (4, 4, 1)
    assert widest_part(Packing(NUMBERS, "x").space) == agent_for(NUMBERS).states.widest == (3,)
    assert widest_part(spaces.Box(0, 1, (2, 3))) == (2, 3)


def test_rows_of_a_replay_are_states() -> None:
    states = rows(ROOM, samples(ROOM, 4))
    replay = ReplayBuffer(4, seed=0)
    ones = np.ones(4, np.float32)
    replay.add(Transitions(states, np.arange(4), ones, ones, states[::-1]))
    batch = replay.sample(64)
    np.testing.assert_array_equal(batch["states"].numpy(), states[batch["actions"].numpy()])
    assert batch["states"].dtype == torch.uint8


# --- learning ---

LEARNING: dict[str, Any] = {
    "total_steps": 4_000,
    "num_envs": 8,
    "learning_starts": 200,
    "update_every": "8 steps",
    "hidden_dim": 32,
    "batch_size": 64,
    "learning_rate": 0.003,
    "epsilon_steps": 1_000,
    "epsilon_min": 0.2,
    "eval_episodes": 200,
    "device": "cpu",
    "threads": 1,
}


def test_what_needs_both_parts_is_learned_to_its_known_value(tmp_path: Path) -> None:
    result = nexus.train("tests.structured:Xor-v0", run_dir=tmp_path / "run", listener=Silent(), **LEARNING)
    assert result.evaluation is not None
    assert result.evaluation.mean == 1.0  # one part alone: 0.5
    env = Xor()
    env.reset(seed=9)
    seen = [(env.look(), env.lamp ^ env.switch) for _ in range(64)]
    states = result.agent.states.read(together([observation for observation, _ in seen]))
    values = result.agent.q_network(states).detach().numpy()
    np.testing.assert_allclose(values, np.eye(2)[[answer for _, answer in seen]], atol=0.25)  # 1 if right, else 0
