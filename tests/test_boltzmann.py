"""Boltzmann exploration: how often each action is drawn, by hand, and a problem that it solves."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nexus
from nexus.cli.progress import exploration
from nexus.core import ConfigError
from nexus.models.rl.dqn import DQNAgent
from nexus.models.rl.dqn.rainbow import make_agent
from nexus.ops.exploration import boltzmann
from nexus.training.config import TrainConfig
from tests import probes
from tests.test_learning import QUICK

DRAWS = 40_000
LN3 = math.log(3)


def frequencies(q_values: list[float], temperature: float, seed: int = 0) -> list[float]:
    actions = boltzmann(np.tile(np.array(q_values, np.float32), (DRAWS, 1)), temperature, np.random.default_rng(seed))
    found: list[float] = (np.bincount(actions, minlength=len(q_values)) / DRAWS).tolist()
    return found


@pytest.mark.parametrize(
    ("q_values", "temperature", "expected"),
    [
        ([0.0, LN3], 1.0, [1 / 4, 3 / 4]),
        ([0.0, 2 * LN3], 2.0, [1 / 4, 3 / 4]),
        ([0.0, LN3], 0.5, [1 / 10, 9 / 10]),
        ([1_000.0, 1_000.0 + LN3], 1.0, [1 / 4, 3 / 4]),  # only differences count
        ([7.0, 7.0, 7.0], 0.01, [1 / 3, 1 / 3, 1 / 3]),
        ([0.0, -math.inf, LN3], 1.0, [1 / 4, 0, 3 / 4]),
        ([1e6, -1e6], 1e-300, [1, 0]),
        ([1.0, 3.0, 2.0], 0.0, [0, 1, 0]),
    ],
)
def test_actions_are_drawn_as_often_as_the_softmax_says(
    q_values: list[float], temperature: float, expected: list[float]
) -> None:
    found = frequencies(q_values, temperature)
    for share, odds in zip(found, expected, strict=True):
        assert abs(share - odds) <= 5 * (odds * (1 - odds) / DRAWS) ** 0.5


def test_rows_are_drawn_apart_from_each_other_and_by_the_generator() -> None:
    q_values = np.zeros((DRAWS, 2))
    first, again, other = (boltzmann(q_values, 1.0, np.random.default_rng(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert abs((first[::2] == first[1::2]).mean() - 0.5) < 5 * (0.25 / (DRAWS / 2)) ** 0.5


def agent_of(*values: float, **settings: Any) -> DQNAgent:
    """An agent with these Q-values everywhere."""
    agent = make_agent("dqn", state_dim=1, action_dim=len(values), exploration="boltzmann", device="cpu", **settings)
    with torch.no_grad():
        agent.learner.theta.zero_()
        agent.learner.theta[-len(values) :] = torch.tensor(values)
    return agent


def test_an_agent_draws_while_training_and_is_greedy_otherwise() -> None:
    agent, states = agent_of(0.0, LN3, epsilon=1.0), np.zeros((DRAWS, 1), np.float32)
    for epsilon in (0.0, 1.0):  # ε is not looked at
        assert agent.act(states, epsilon, True).mean() == pytest.approx(0.75, abs=0.011)
    assert agent.act(states, 0.0, False).mean() == 1
    assert agent.act(states, 1.0, False).mean() == pytest.approx(0.5, abs=0.013)  # an evaluation with ε = 1
    agent.temperature = 0.5
    assert agent.act(states, 0.0, True).mean() == pytest.approx(0.9, abs=0.008)
    assert agent.select_action(states[0], training=False) == 1
    assert {int(agent.predict(states[0], deterministic=False)[0]) for _ in range(100)} == {0, 1}


def test_what_is_illegal_is_never_drawn() -> None:
    agent, states = agent_of(0.0, 99.0, LN3), np.zeros((DRAWS, 1), np.float32)
    actions = agent.act(states, 0.0, True, np.tile([True, False, True], (DRAWS, 1)))
    shares = np.bincount(actions, minlength=3) / DRAWS
    np.testing.assert_allclose(shares, [0.25, 0, 0.75], atol=0.011)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"temperature": 0.0}, "temperature = 0.0: needs a temperature above 0"),
        ({"temperature": -1.0}, "temperature = -1.0"),
        ({"temperature": math.nan}, "temperature = nan: needs a finite number"),
        ({"temperature": 0.01}, "temperature_min = 0.1: needs [0, temperature = 0.01]"),
        ({"temperature_min": -0.1}, "temperature_min = -0.1"),
        ({"exploration": "softmax"}, "exploration = 'softmax': needs one of epsilon_greedy, boltzmann"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TrainConfig.from_mapping({"exploration": "boltzmann", **settings})
    assert text in str(caught.value)


def test_the_temperature_follows_its_schedule() -> None:
    line = TrainConfig(temperature=2.0, temperature_min=1.0, learning_starts=100, epsilon_steps=200)
    assert [line.temperature_at(steps, 0) for steps in (0, 100, 200, 300, 400)] == [2, 2, 1.5, 1, 1]
    falling = TrainConfig(temperature=2.0, temperature_min=0.5, epsilon_schedule="per_episode", epsilon_decay=0.5)
    assert [falling.temperature_at(0, episodes) for episodes in (0, 1, 2, 9)] == [2, 1, 0.5, 0.5]
    assert TrainConfig(temperature=3.0, epsilon_schedule="constant").temperature_at(10**6, 0) == 3


def test_a_run_learns_by_it_and_logs_the_temperature(tmp_path: Path) -> None:
    """Two steps whose best action depends on the state; ε stays at 1 all the time and must not matter."""
    result = nexus.train(
        probes.MatchReward,
        run_dir=tmp_path / "run",
        **{**QUICK, "exploration": "boltzmann", "epsilon_min": 1.0, "temperature_min": 0.2, "log_every": "500 steps"},
    )
    assert result.evaluation is not None
    assert result.evaluation.mean == 2
    lines = (result.run_dir / "metrics.jsonl").read_text()
    assert '"rollout/temperature": 0.2' in lines
    assert "exploration_rate" not in lines
    episodes = (result.run_dir / "episodes.csv").read_text().splitlines()[1:]
    late = [float(line.split(",")[2]) for line in episodes[-300:]]
    assert np.mean(late) > 1.7  # 1 if every action were random
    again = nexus.load_agent(result.run_dir)
    assert again.policy.exploration is result.agent.policy.exploration


def test_the_plan_says_the_temperature() -> None:
    class Plan:
        config = TrainConfig(exploration="boltzmann", temperature=0.5, epsilon_steps=2_000)

    plan: Any = Plan()
    assert exploration(plan) == "Boltzmann, temperature 0.5 to 0.1 over 2,000 steps"
