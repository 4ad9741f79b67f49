"""Potential-based shaping: bonuses by hand, whole episodes, policies that stay the best, and runs."""

from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

import nexus
from nexus.core.errors import ConfigError
from nexus.core.types import Floats
from nexus.envs.packing import Packing
from nexus.envs.shaping import Potential
from nexus.envs.stream import Step
from nexus.training.config import TrainConfig
from tests.chaos import Silent, differences, interrupt, interrupted

LINE = spaces.Box(0.0, 100.0, (1,), np.float32)


def height(state: Any) -> float:
    """Ten times the first number of a state."""
    return 10 * float(state[0])


def progress(state: Any) -> float:
    """The share of the way behind the agent, in the unit of the reward at its end."""
    return float(state[0])


def nothing(state: Any) -> float:
    return float("nan")


def several(state: Any) -> Any:
    return np.zeros(2)


def broken(state: Any) -> float:
    raise KeyError("goal")


def a_step(states: Any, next_states: Any, begins: Any, **ends: Any) -> Step:
    count = len(states)
    flags: dict[str, Any] = {name: np.array(ends.pop(name, [False] * count)) for name in ("terminated", "truncated")}
    now, then = (np.array(given, np.float32)[:, None] for given in (states, next_states))
    valid = np.array(ends.pop("valid", [True] * count))
    return Step(now, np.zeros(count, int), np.ones(count), then, **flags, valid=valid, begins=np.array(begins), **ends)


def shaping(gamma: float = 0.5) -> Potential:
    return Potential("tests.test_shaping:height", gamma, LINE)


def test_bonuses_by_hand() -> None:
    """γ = 0.5, Φ = 10 s: 0.5 · 20 - 10 = 0; at a terminal state -20; at a limit 0.5 · 50 - 40 = -15."""
    bonus = shaping()
    assert bonus(a_step([1, 4], [2, 5], [True, True])).tolist() == [0.0, -15.0]
    row = a_step([2, 5], [9, 6], [False, False], terminated=[True, False], truncated=[False, True])
    assert bonus(row).tolist() == [-20.0, -20.0]  # 0 - 20, and 0.5 · 60 - 50
    assert bonus(a_step([3, 7], [4, 8], [True, True])).tolist() == [-10.0, -30.0]  # 0.5 · 40 - 30, 0.5 · 80 - 70


def test_a_lost_life_ends_the_learning_episode_only() -> None:
    bonus = shaping()
    lost = a_step([1], [2], [True], life_lost=np.array([True]))
    assert bonus(lost).tolist() == [-10.0]
    assert bonus(a_step([2], [4], [False])).tolist() == [0.0], "the next step begins at Φ = 20, not at 0"


def test_a_step_that_only_resets_has_no_bonus() -> None:
    bonus = shaping()
    bonus(a_step([1], [2], [True], terminated=[True]))
    assert bonus(a_step([2], [6], [False], valid=[False])).tolist() == [0.0]
    assert bonus(a_step([6], [8], [True])).tolist() == [-20.0]


def test_an_episode_adds_up_to_minus_its_first_potential() -> None:
    places, gamma = [3.0, 8.0, 1.0, 6.0, 2.0], 0.9
    bonus, total = shaping(gamma), 0.0
    for time, (now, then) in enumerate(zip(places, [*places[1:], 77.0], strict=True)):
        ends = time == len(places) - 1
        total += gamma**time * bonus(a_step([now], [then], [time == 0], terminated=[ends]))[0]
    assert total == pytest.approx(-30.0)


def test_rewards_are_clipped_before_they_are_shaped() -> None:
    row = a_step([1], [2], [True])
    assert row.learned_rewards(0.25).tolist() == [0.25]
    shaped = replace(row, bonus=np.array([-3.0]))
    assert shaped.learned_rewards(0.25).tolist() == [-2.75]
    assert shaped.learned_rewards(None).tolist() == [-2.0]


def optimal(probabilities: Floats, rewards: Floats, gamma: float) -> Floats:
    """Return Q* `[S, A]` of rewards `[S, A, S + 1]`, the last place of which is a terminal state."""
    q_values = np.zeros(probabilities.shape[:2])
    for _ in range(2_000):
        following = np.append(q_values.max(1), 0.0)
        q_values = (probabilities * (rewards + gamma * following)).sum(2)
    return q_values


def test_the_best_policy_of_random_worlds_stays_the_same_and_a_naive_bonus_changes_it() -> None:
    """Ten worlds of six states, three actions and a terminal state, with Φ = 10 s."""
    gamma, count, changed = 0.9, 6, 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        probabilities = rng.dirichlet(np.full(count + 1, 0.3), (count, 3))
        rewards = rng.normal(size=(count, 3, count + 1))
        shaped, naive = rewards.copy(), rewards.copy()
        for now in range(count):
            for then in range(count + 1):
                ends = then == count
                row = a_step([now], [then], [True], terminated=[ends])
                shaped[now, :, then] += shaping(gamma)(row)[0]
                naive[now, :, then] += 0.0 if ends else height([then])
        plain, after, other = (optimal(probabilities, each, gamma) for each in (rewards, shaped, naive))
        assert np.array_equal(plain.argmax(1), after.argmax(1))
        assert after == pytest.approx(plain - 10 * np.arange(count)[:, None], abs=1e-6)
        changed += not np.array_equal(plain.argmax(1), other.argmax(1))
    assert changed == 10


def test_the_parts_of_a_structured_state_are_in_dicts_and_tuples() -> None:
    space = spaces.Dict(
        {
            "goal": spaces.Discrete(3),
            "sight": spaces.Tuple((spaces.Box(0, 9, (2,), np.float32), spaces.Box(0, 1, (1,), np.float32))),
        }
    )
    packing = Packing(space, "test")
    values = {(("goal",)): [0, 1, 0], ("sight", 0): [4, 5], ("sight", 1): [0.5]}
    row = packing.layout.pack([np.array(values[part.path], part.dtype) for part in packing.layout.parts])
    found = Potential("tests.test_shaping:height", 0.9, packing.space)._seen(row)
    assert found["goal"].tolist() == [0, 1, 0]
    assert [part.tolist() for part in found["sight"]] == [[4, 5], [0.5]]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nothing", r"potential 'tests.test_shaping:nothing' returned nan at state \[1.\]: needs a number"),
        ("several", r"potential 'tests.test_shaping:several' returned array\(\[0., 0.\]\) at state \[1.\]: needs a nu"),
        ("broken", r"potential 'tests.test_shaping:broken': 'goal', at state \[1.\]"),
        ("LINE", r"potential 'tests.test_shaping:LINE' is a Box: needs a function from a state to a number"),
        ("hight", r"there is no 'hight' in 'tests.test_shaping'; did you mean height?"),
    ],
)
def test_a_wrong_potential_is_one_line(name: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Potential(f"tests.test_shaping:{name}", 0.9, LINE)(a_step([1], [2], [True]))


# Runs.


class Corridor(gym.Env[Any, Any]):
    """Forty places in a row; the last pays 1 and ends the episode, a limit of sixty steps cuts it off."""

    observation_space = spaces.Box(0.0, 1.0, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.place, self.time = 0, 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> Any:
        self.place, self.time = max(0, self.place + (1 if action else -1)), self.time + 1
        ended = self.place == 40
        seen = np.array([self.place / 40], np.float32)
        return seen, float(ended), ended, self.time == 60 and not ended, {}


SHORT: dict[str, Any] = {
    "total_steps": 1_600,
    "num_envs": 2,
    "learning_starts": 40,
    "hidden_dim": 16,
    "batch_size": 16,
    "update_every": "8 steps",
    "epsilon_steps": 800,
    "n_step": 3,
    "eval_episodes": 2,
    "checkpoint_every": "400 steps",
    "threads": 1,
    "potential": "tests.test_shaping:height",
}


def test_a_shaped_run_resumes_exactly_and_reports_plain_returns(tmp_path: Any) -> None:
    config = TrainConfig.from_mapping(SHORT)
    whole = nexus.train(Corridor, config=config, run_dir=tmp_path / "whole", listener=Silent())
    broken_off = tmp_path / "broken"
    interrupted(lambda: nexus.train(Corridor, config=config, run_dir=broken_off, listener=Silent(1_001, interrupt)))
    nexus.resume(broken_off, env=Corridor, listener=Silent())
    assert differences(whole.run_dir, broken_off, Corridor) == []
    lines = (whole.run_dir / "episodes.csv").read_text().splitlines()
    place = lines[0].split(",").index("return")
    assert {float(line.split(",")[place]) for line in lines[1:]} <= {0.0, 1.0}
    assert whole.evaluation is not None
    assert 0 <= whole.evaluation.mean <= 1


def nearness(state: Any) -> float:
    """The place of an observation that is a Dict, as the function sees it."""
    return float(state["place"][0]) - len(state["sight"])


class Structured(Corridor):
    """The same corridor, whose observation is a Dict with a Tuple in it."""

    observation_space = spaces.Dict(  # type: ignore[assignment]
        {"place": Corridor.observation_space, "sight": spaces.Tuple((spaces.Discrete(2), spaces.Discrete(3)))}
    )

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        seen, info = super().reset(seed=seed)
        return {"place": seen, "sight": (1, 2)}, info

    def step(self, action: Any) -> Any:
        seen, *rest = super().step(action)
        return {"place": seen, "sight": (1, 2)}, *rest


def test_a_structured_state_reaches_the_potential_in_its_parts(tmp_path: Any) -> None:
    own = {**SHORT, "total_steps": 80, "potential": "tests.test_shaping:nearness", "checkpoint_every": None}
    steps: list[Step] = []
    nexus.train(Structured, config=TrainConfig.from_mapping(own), run_dir=tmp_path / "run", listener=Recorded(steps))
    assert len(steps) == 40
    for step in steps:  # γ Φ(s') - Φ(s) with Φ = the place - 2; the first four bytes are the place
        now, then = (np.ascontiguousarray(s[:, :4]).view(np.float32)[:, 0] - 2 for s in (step.states, step.next_states))
        assert step.bonus == pytest.approx(0.99 * then - now, abs=1e-6)


class Recorded(Silent):
    """Keeps every step."""

    def __init__(self, steps: list[Step]) -> None:
        super().__init__()
        self.steps = steps

    def on_step(self, progress: Any, episodes: Any) -> None:
        self.steps.append(progress.step)


@pytest.mark.slow
def test_shaping_finds_what_plain_rewards_do_not(tmp_path: Any) -> None:
    """Greedy returns on five seeds: a random walk of sixty steps rarely gets forty places ahead."""
    often = {"update_every": "2 steps", "target_update_every": "50 updates", "hidden_dim": 32, "gamma": 0.95}
    own = {**SHORT, **often, "total_steps": 4_000, "checkpoint_every": None, "doctor": "off", "verbose": False}
    scores: dict[str, list[float]] = {"progress": [], "plain": []}
    for seed in range(5):
        for name, found in scores.items():
            potential = None if name == "plain" else f"tests.test_shaping:{name}"
            result = nexus.train(
                Corridor, seed=seed, run_dir=tmp_path / f"{name} {seed}", **{**own, "potential": potential}
            )
            assert result.evaluation is not None
            found.append(result.evaluation.mean)
    assert scores["progress"] == [1.0] * 5
    assert sum(scores["plain"]) <= 2
