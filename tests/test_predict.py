"""What `predict` and `select_action` take, and what they refuse in one line that names the nearest right thing."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import nn

from nexus.core import ConfigError
from nexus.core.types import Array
from nexus.models.rl.dqn import DQNAgent

rng = np.random.default_rng(0)
STATES = rng.normal(size=(64, 4)).astype(np.float32)
IMAGES = rng.integers(0, 256, (8, 4, 40, 40), np.uint8)


def agent_of(*shape: int, **config: Any) -> DQNAgent:
    agent = DQNAgent(
        {"state_dim": shape, "action_dim": 16, "hidden_dim": 16, "device": "cpu", "precision": "float32", **config}
    )
    random = torch.Generator().manual_seed(1)
    for parameter in agent.q_network.parameters():  # so that states differ in their best actions
        nn.init.normal_(parameter, std=float(parameter.ndim > 1), generator=random)
    return agent


def best(agent: DQNAgent, states: Array) -> list[int]:
    """The oracle: what the network prefers in each of `[E, *obs]`."""
    actions: list[int] = agent.q_network(np.ascontiguousarray(states)).argmax(1).tolist()
    return actions


# --- what is taken ---


def test_the_states_of_these_tests_ask_for_different_actions() -> None:
    assert len(set(best(agent_of(4), STATES))) > 2
    assert len(set(best(agent_of(4, 40, 40), IMAGES))) > 2
    assert len(set(best(agent_of(), np.array([2.5, -2.5], np.float32)))) > 1


@pytest.mark.parametrize(
    "given",
    [
        STATES[3],
        STATES[3].astype(np.float64),
        STATES[3].tolist(),
        tuple(STATES[3].tolist()),
        torch.from_numpy(STATES[3]),
        torch.from_numpy(STATES[3]).requires_grad_(),
        STATES[3].astype(">f4"),  # big-endian, as files have it
        STATES[3][::-1].copy()[::-1],
        np.repeat(STATES[3], 2)[::2],
    ],
)
def test_one_state_in_any_form_is_the_same_state(given: Any) -> None:
    agent = agent_of(4)
    (expected,) = best(agent, STATES[3:4])
    action, state = agent.predict(given)
    assert (np.ndim(action), int(action), state) == (0, expected, None)
    assert agent.select_action(given, training=False) == expected


@pytest.mark.parametrize(
    "given", [STATES, STATES.tolist(), list(STATES), STATES[::-1][::-1], np.asfortranarray(STATES)]
)
def test_many_states_in_any_form_are_the_same_states(given: Any) -> None:
    agent = agent_of(4)
    assert agent.predict(given)[0].tolist() == best(agent, STATES)


def test_views_run_backwards() -> None:
    agent = agent_of(4)
    assert agent.predict(STATES[::-1])[0].tolist() == best(agent, STATES)[::-1]
    backwards = STATES[0][::-1]
    assert [agent.predict(backwards)[0]] == best(agent, backwards[None])
    flipped = IMAGES[:, :, :, ::-1]
    assert agent_of(4, 40, 40).predict(flipped)[0].tolist() == best(agent_of(4, 40, 40), flipped)


def test_whole_numbers_are_numbers_and_bytes_stay_bytes() -> None:
    agent = agent_of(4)
    whole = np.array([[3, -2, 0, 5], [0, 1, 1, 0]])
    for kind in (np.int8, np.int32, np.int64, np.float16):
        assert agent.predict(whole.astype(kind))[0].tolist() == best(agent, whole.astype(np.float32))
    assert agent.predict(np.array([True, False, True, True]))[0] == best(agent, np.array([[1, 0, 1, 1]], np.float32))[0]
    images = agent_of(4, 40, 40)
    frozen = IMAGES.copy()
    frozen.flags.writeable = False
    assert images.predict(frozen)[0].tolist() == best(images, IMAGES)  # bytes are scaled, and read-only ones are copied
    assert images.predict(IMAGES / 255)[0].tolist() == best(images, (IMAGES / 255).astype(np.float32))


def test_states_without_a_dimension_come_alone_or_in_a_row() -> None:
    agent = agent_of()
    assert np.ndim(agent.predict(2.5)[0]) == 0
    assert agent.predict([2.5, -2.5])[0].tolist() == best(agent, np.array([2.5, -2.5], np.float32))


# --- what is refused ---


def refused(act: Any, given: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        act(given)
    assert "\n" not in str(caught.value)
    return str(caught.value)


LAST, FIRST = (
    "; its channels are last: pass np.moveaxis(x, -1, -3)",
    "; its channels are first: pass np.moveaxis(x, -3, -1)",
)


@pytest.mark.parametrize(
    ("shape", "given", "hint"),
    [
        ((4,), (8,), "; for 2 pass x.reshape((-1, 4))"),
        ((4,), (3,), ""),
        ((4,), (0,), ""),
        ((4,), (), ""),
        ((4,), (4, 1), "; pass x.reshape((4,))"),
        ((4,), (2, 3, 4), "; for 6 pass x.reshape((-1, 4))"),
        ((4,), (3, 5), ""),
        ((), (2, 3), "; for 6 pass x.reshape((-1,))"),
        ((4, 40, 40), (40, 40, 4), LAST),
        ((4, 40, 40), (9, 40, 40, 4), LAST),
        ((40, 40, 3), (3, 40, 40), FIRST),
        ((2, 40, 40, 3), (2, 3, 40, 40), FIRST),
        ((4, 40, 40), (1, 40, 160), ""),
        ((4, 40, 40), (6400,), "; pass x.reshape((4, 40, 40))"),
        ((1, 40, 40), (40, 40), "; pass x.reshape((1, 40, 40))"),
        ((4, 40, 40), (40, 40), ""),
    ],
)
def test_another_shape_is_refused_with_what_would_fit(
    shape: tuple[int, ...], given: tuple[int, ...], hint: str
) -> None:
    agent = agent_of(*shape)
    for dtype in (np.uint8, np.float64):
        message = refused(agent.predict, np.zeros(given, dtype))
        assert message.startswith(f"observation of shape {given}: needs {shape}, or (E")
        assert message.partition(" of them")[2] == hint


def test_a_refusal_is_one_whole_line() -> None:
    assert refused(agent_of(4).predict, np.zeros(8)) == (
        "observation of shape (8,): needs (4,), or (E, 4) for E of them; for 2 pass x.reshape((-1, 4))"
    )
    assert refused(agent_of().predict, np.zeros((2, 3))) == (
        "observation of shape (2, 3): needs (), or (E,) for E of them; for 6 pass x.reshape((-1,))"
    )


def test_select_action_takes_one_state() -> None:
    agent = agent_of(4)
    assert refused(agent.select_action, STATES) == "observation of shape (64, 4): needs (4,); use predict for many"
    assert refused(agent.select_action, STATES[:1]).endswith("needs (4,); use predict for many")
    assert refused(agent.select_action, STATES[0, :3]) == "observation of shape (3,): needs (4,)"
    assert refused(agent.select_action, STATES[:1].T) == "observation of shape (4, 1): needs (4,); pass x.reshape((4,))"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (np.nan, "nan"),
        (np.inf, "inf"),
        (-np.inf, "-inf"),
        (1e300, "inf"),  # in float32, which the network computes in
    ],
)
def test_what_is_not_finite_is_refused(given: float, says: str) -> None:
    agent = agent_of(4)
    for states in (np.array([0.0, given, 0.0, 0.0]), np.array([[0.0] * 4, [given] * 4]), [0, 0, 0, given]):
        assert refused(agent.predict, states) == f"observation contains {says}: needs finite numbers"
    assert refused(agent.select_action, [0, given, 0, 0]) == f"observation contains {says}: needs finite numbers"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("left", "observation of type str: needs numbers of shape (4,)"),
        (None, "observation of type NoneType: needs numbers of shape (4,)"),
        ({"x": STATES[0]}, "observation of type dict: needs numbers of shape (4,)"),
        (["1", "2", "3", "4"], "observation of type list: needs numbers of shape (4,)"),
        ([None] * 4, "observation of type list: needs numbers of shape (4,)"),
        (np.array([object()] * 4), "observation of type object: needs numbers of shape (4,)"),
        (np.zeros(4, complex), "observation of type complex128: needs numbers of shape (4,)"),
        ([[0.0, 1.0], [2.0]], "observation of type list: needs numbers of shape (4,)"),
        ([], "observation of shape (0,): needs (4,), or (E, 4) for E of them"),
    ],
)
def test_what_is_no_numbers_is_refused(given: Any, expected: str) -> None:
    agent = agent_of(4)
    assert refused(agent.predict, given) == expected


def test_what_reset_and_step_return_is_refused_with_the_part_to_pass() -> None:
    agent, env = agent_of(4), gym.make("CartPole-v1")
    assert refused(agent.predict, env.reset(seed=0)) == (
        "observation is the whole result of env.reset(): pass env.reset()[0]"
    )
    assert refused(agent.select_action, env.reset(seed=0)).endswith("pass env.reset()[0]")
    assert (
        refused(agent.predict, env.step(0)) == "observation is the whole result of env.step(): pass its first element"
    )
    env.close()


# --- numbers that stand for one-hot states ---


def lake(start: int = 0) -> DQNAgent:
    return agent_of(16, discrete_start=start)


def test_a_whole_number_is_its_one_hot_state() -> None:
    agent = lake()
    expected = best(agent, np.eye(16, dtype=np.float32))
    assert len(set(expected)) > 2
    for number in (3, np.int64(3), np.array(3), np.uint8(3), torch.tensor(3)):
        action, _ = agent.predict(number)
        assert (np.ndim(action), int(action)) == (0, expected[3])
        assert agent.select_action(number, training=False) == expected[3]


def test_a_row_of_whole_numbers_is_as_many_observations() -> None:
    agent = lake()
    expected = best(agent, np.eye(16, dtype=np.float32))
    assert agent.predict(np.arange(16))[0].tolist() == expected  # as many as there are states, and still 16
    assert agent.predict([15, 0, 15])[0].tolist() == [expected[15], expected[0], expected[15]]
    assert agent.predict(np.eye(16, dtype=int)[3])[0].tolist() == [expected[0]] * 3 + [expected[1]] + [expected[0]] * 12


def test_one_hot_states_are_still_taken() -> None:
    agent = lake()
    states = np.eye(16, dtype=np.float32)
    expected = best(agent, states)
    assert agent.predict(states[3])[0] == expected[3]
    assert agent.predict(states)[0].tolist() == expected
    assert agent.predict(states.astype(int))[0].tolist() == expected
    assert agent.select_action(states[3].astype(int), training=False) == expected[3]  # one state, so no row of numbers


def test_numbers_may_begin_elsewhere() -> None:
    agent = lake(start=5)
    expected = best(agent, np.eye(16, dtype=np.float32))
    assert agent.predict([5, 20])[0].tolist() == [expected[0], expected[15]]
    assert refused(agent.predict, 4) == "observation 4: needs a whole number from 5 to 20"


@pytest.mark.parametrize("given", [16, -1, [0, 16], [-1, 3]])
def test_a_number_of_no_state_is_refused(given: Any) -> None:
    wrong = given if isinstance(given, int) else next(number for number in given if number in (-1, 16))
    assert refused(lake().predict, given) == f"observation {wrong}: needs a whole number from 0 to 15"


def test_a_fraction_is_no_state() -> None:
    assert refused(lake().predict, 3.0) == (
        "observation of shape (): needs (16,), or (E, 16) for E of them, or whole numbers from 0 to 15"
    )


def test_the_entry_stays_in_the_config_and_is_checked() -> None:
    agent = lake()
    assert agent.config["discrete_start"] == 0
    again = DQNAgent(agent.config)
    assert again.predict(np.arange(16))[0].tolist() == best(again, np.eye(16, dtype=np.float32))
    assert "needs (16,), or (E, 16)" in refused(agent_of(16, discrete_start=None).predict, 3)
    with pytest.raises(ConfigError, match="discrete_start = 'a': needs a whole number"):
        agent_of(16, discrete_start="a")
    with pytest.raises(ConfigError, match=r"discrete_start = 0: needs states of shape \(n,\), got \(4, 16\)"):
        agent_of(4, 16, discrete_start=0)
