"""Hindsight: goals, rewards and ends by hand, on a line; runs that resume exactly; environments that can't."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

import nexus
from nexus.core.errors import ConfigError, EnvError
from nexus.core.types import Array, Transitions
from nexus.data.folding import FoldingSampler
from nexus.data.hindsight import Hindsight
from nexus.data.replay import Replay
from nexus.data.rows import Rows
from nexus.data.single_steps import EPISODE
from nexus.envs.edge import Edge
from nexus.envs.goals import EnvGoals
from nexus.training.config import TrainConfig
from tests.chaos import Silent, differences, interrupt, interrupted
from tests.test_folding import Given

GAMMA = 0.5
PLACE = spaces.Box(-9.0, 9.0, (1,), np.float32)


class Line(gym.Env[Any, Any]):
    """Steps to the left and right; the goal is a place, and ends the episode. A limit of eight steps."""

    observation_space: spaces.Space[Any] = spaces.Dict(
        {"observation": PLACE, "achieved_goal": PLACE, "desired_goal": PLACE}
    )
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.place, self.time = 0.0, 0
        self.goal = float(self.np_random.integers(1, 8))
        return self.seen(), {}

    def step(self, action: Any) -> Any:
        self.place, self.time = self.place + (1 if action else -1), self.time + 1
        achieved, desired = np.array([self.place]), np.array([self.goal])
        reward = float(self.compute_reward(achieved, desired, {}))
        ended = bool(self.compute_terminated(achieved, desired, {}))
        return self.seen(), reward, ended, self.time == 8 and not ended, {}

    def seen(self) -> dict[str, Array]:
        return {
            "observation": np.array([10 * self.place / 20], np.float32),
            "achieved_goal": np.array([self.place], np.float32),
            "desired_goal": np.array([self.goal], np.float32),
        }

    def compute_reward(self, achieved: Any, desired: Any, info: Any) -> Any:
        return np.where(np.abs(achieved - desired)[..., 0] < 0.5, 0.0, -1.0)

    def compute_terminated(self, achieved: Any, desired: Any, info: Any) -> Any:
        return np.abs(achieved - desired)[..., 0] < 0.5


def goals_of(env: Any, clip: float | None = None) -> EnvGoals:
    edge = Edge(env, "Line")
    return EnvGoals(env, edge.observation_space, clip, "Line")


def packed(places: list[float], goal: float) -> Array:
    """States `[K, 12]` at these places: achieved, desired, observation, in the order of the space's keys."""
    edge = Edge(Line(), "Line")
    env = edge.unwrapped
    assert isinstance(env, Line)
    env.reset()
    rows = []
    for place in places:
        env.place, env.goal = place, goal
        rows.append(edge.read(env.seen()))
    return np.stack(rows)


def replay_of(episodes: list[tuple[list[float], float]], sampler: Any, capacity: int = 100) -> Replay:
    """Episodes, each its places and its goal; one that ends at its goal has terminated, others were cut."""
    replay = Replay(Rows(capacity), sampler)
    for number, (places, goal) in enumerate(episodes):
        states, count = packed(places, goal), len(places) - 1
        reached = np.array(places[1:]) == goal
        replay.add(
            Transitions(
                states[:-1],
                np.ones(count, int),
                np.where(reached, 0, -1).astype(np.float32),
                np.where(reached, 0, GAMMA).astype(np.float32),
                states[1:],
                extras={EPISODE: np.full(count, number)},
            )
        )
    return replay


class Chosen:
    """Random numbers that a test chooses: the same for every row."""

    def __init__(self, relabels: float, part: float) -> None:
        self.answers = [relabels, part]

    def random(self, count: int) -> Array:
        number = self.answers.pop(0)
        self.answers.append(number)
        return np.full(count, number)


def hindsight(strategy: Any = "future", part: float = 0.0, relabels: float = 0.0, share: float = 0.8) -> Hindsight:
    found = Hindsight(goals_of(Line()), strategy, share, GAMMA, np.random.default_rng(0))
    found.rng = Chosen(relabels, part)  # type: ignore[assignment]
    return found


def drawn(rows: list[int], n: int, goals: Hindsight, episodes: list[tuple[list[float], float]]) -> dict[str, Any]:
    """What a batch of these rows says: rewards, discounts, the goals of both states, the places of the next ones."""
    batch = replay_of(episodes, FoldingSampler(Given(rows), n, goals=goals)).sample(len(rows))
    space = goals_of(Line())
    return {
        "rewards": batch["rewards"].tolist(),
        "discounts": batch["discounts"].tolist(),
        "goals": space.desired(batch["states"].numpy())[:, 0].tolist(),
        "next goals": space.desired(batch["next_states"].numpy())[:, 0].tolist(),
        "next places": space.achieved(batch["next_states"].numpy())[:, 0].tolist(),
    }


FAILED = [([0.0, 1.0, 2.0, 3.0, 2.0], 7.0)]


def test_the_goal_that_the_step_itself_reached() -> None:
    """future, part 0: each row's goal is its own next place: reward 0, and the episode ends there."""
    assert drawn([0, 1, 3], 1, hindsight(), FAILED) == {
        "rewards": [0.0, 0.0, 0.0],
        "discounts": [0.0, 0.0, 0.0],
        "goals": [1.0, 2.0, 2.0],
        "next goals": [1.0, 2.0, 2.0],
        "next places": [1.0, 2.0, 2.0],
    }


def test_the_goal_that_the_last_step_reached() -> None:
    """final: the goal is place 2, which the second step reaches too: -1, 0 and end; -1; 0 and end."""
    assert drawn([0, 1, 2, 3], 1, hindsight("final"), FAILED) == {
        "rewards": [-1.0, 0.0, -1.0, 0.0],
        "discounts": [0.5, 0.0, 0.5, 0.0],
        "goals": [2.0] * 4,
        "next goals": [2.0] * 4,
        "next places": [1.0, 2.0, 3.0, 2.0],
    }


def test_three_steps_are_folded_up_to_the_new_goal() -> None:
    """final, n = 3. Row 0: -1 + ½·0, ended at place 2. Row 2: -1 + ½·0, ended. Row 1 reaches it at once."""
    found = drawn([0, 1, 2], 3, hindsight("final"), FAILED)
    assert found["rewards"] == [-1.0, 0.0, -1.0]
    assert found["discounts"] == [0.0, 0.0, 0.0]
    assert found["next places"] == [2.0, 2.0, 2.0]


def test_three_steps_towards_a_goal_further_on() -> None:
    """future, part 0.99: the last place, 4, which four steps reach: -1 - ½ - ¼, and the bootstrap counts ⅛."""
    found = drawn([0, 1], 3, hindsight(part=0.99), [([0.0, 1.0, 2.0, 3.0, 4.0], 7.0)])
    assert found["rewards"] == [-1.75, -1.5]
    assert found["discounts"] == [0.125, 0.0]
    assert found["goals"] == [4.0, 4.0]
    assert found["next places"] == [3.0, 4.0]


def test_an_end_at_the_old_goal_is_no_end_for_another_goal() -> None:
    """The episode reached its goal, place 2. For the goal 1 its last step has reward -1 and a bootstrap."""
    goals = hindsight("episode", part=0.0)  # the first place reached: 1
    found = drawn([1], 1, goals, [([0.0, 1.0, 2.0], 2.0)])
    assert found == {"rewards": [-1.0], "discounts": [0.5], "goals": [1.0], "next goals": [1.0], "next places": [2.0]}


def test_rows_that_keep_their_goal_are_as_they_were_stored() -> None:
    found = drawn([0, 1], 2, hindsight(relabels=0.8), [([0.0, 1.0, 2.0], 2.0)])
    assert found["rewards"] == [-1.0, 0.0]  # -1 + ½·0; 0
    assert found["discounts"] == [0.0, 0.0]
    assert found["goals"] == [2.0, 2.0]


def test_about_the_share_asked_for_gets_another_goal() -> None:
    goals = Hindsight(goals_of(Line()), "future", 0.8, GAMMA, np.random.default_rng(0))
    found = drawn([0] * 4_000, 1, goals, FAILED)["goals"]
    assert 0.77 < np.mean(np.array(found) != 7) < 0.83
    shares = [np.mean(np.array(found) == place) for place in (1.0, 2.0, 3.0)]
    assert shares == pytest.approx([0.2, 0.4, 0.2], abs=0.03), "each later step is as likely; two of four reach 2"


def test_rewards_are_clipped_as_those_of_steps_are() -> None:
    rewards, ended = goals_of(Line(), clip=0.25).outcomes(np.array([[1.0], [2.0]]), np.array([[2.0], [2.0]]))
    assert rewards.tolist() == [-0.25, 0.0]
    assert ended.tolist() == [False, True]


def test_what_is_stored_is_not_changed() -> None:
    replay = replay_of(FAILED, FoldingSampler(Given([0, 1, 2, 3]), 3, goals=hindsight("final")))
    before = {name: column[:4].copy() for name, column in replay.storage.columns.items()}
    replay.sample(4)
    assert all(np.array_equal(column, replay.storage.columns[name][:4]) for name, column in before.items())


# Environments that can't.


class Other(Line):
    """Says another reward for goals than its steps do."""

    def compute_reward(self, achieved: Any, desired: Any, info: Any) -> Any:
        return np.where(np.ndim(achieved) > 1, 1.0, super().compute_reward(achieved, desired, info))


class Undecided(Line):
    """Goals end no episode, says its method; its steps end them."""

    def step(self, action: Any) -> Any:
        seen, reward, _, cut, info = super().step(action)
        return seen, reward, bool(self.place == 1), cut and self.place != 1, info

    def compute_terminated(self, achieved: Any, desired: Any, info: Any) -> Any:
        return False


class OneByOne(Line):
    """Takes a single goal."""

    def compute_reward(self, achieved: Any, desired: Any, info: Any) -> Any:
        return 0.0 if float(achieved[0]) == float(desired[0]) else -1.0


class Mixed(Line):
    """Looks at the first goal only."""

    def compute_reward(self, achieved: Any, desired: Any, info: Any) -> Any:
        found = super().compute_reward(achieved, desired, info)
        return np.broadcast_to(found.flat[0], np.shape(found))


class Unequal(Line):
    observation_space = spaces.Dict(
        {"observation": PLACE, "achieved_goal": PLACE, "desired_goal": spaces.Box(-9.0, 9.0, (2,), np.float32)}
    )

    def seen(self) -> dict[str, Array]:
        return {**super().seen(), "desired_goal": np.array([self.goal, 0], np.float32)}


class Numbered(Line):
    observation_space = spaces.Dict(
        {"observation": PLACE, "achieved_goal": spaces.Discrete(30), "desired_goal": spaces.Discrete(30)}
    )


class Mute(gym.Wrapper[Any, Any, Any, Any]):
    """Goals to see, and no method that says what they pay."""

    def __init__(self) -> None:
        super().__init__(Line())

    def get_wrapper_attr(self, name: str) -> Any:
        if name == "compute_reward":
            raise AttributeError(name)
        return super().get_wrapper_attr(name)


SHORT: dict[str, Any] = {
    "total_steps": 1_200,
    "learning_starts": 50,
    "hidden_dim": 16,
    "batch_size": 16,
    "update_every": "4 steps",
    "num_envs": 2,
    "n_step": 3,
    "gamma": 0.9,
    "eval_episodes": 2,
    "checkpoint_every": "300 steps",
    "threads": 1,
    "her": "future",
}


@pytest.mark.parametrize(
    ("env", "error", "says"),
    [
        ("CartPole-v1", ConfigError, "her: CartPole-v1 has observations Box"),
        (Numbered, ConfigError, r"her: Numbered has Discrete\(30\) as achieved_goal: needs a Box or MultiBinary"),
        (Unequal, ConfigError, "as achieved_goal and .* as desired_goal: needs the same shape and dtype"),
        (Mute, ConfigError, "her: Mute has no method compute_reward: needs goals"),
        (OneByOne, EnvError, "her: compute_reward of OneByOne: .* it must take goals"),
        (Mixed, EnvError, "her: compute_reward of Mixed: it returned .* for a goal among others and .* for it alone"),
        (
            Other,
            EnvError,
            "her: compute_reward of Other: it returned 1.0 for a goal among others and -1.0 for it alone",
        ),
        (Undecided, EnvError, "her: compute_terminated returns (True|False) for achieved_goal .*, but step returned"),
    ],
)
def test_an_environment_that_has_no_goals_is_refused_in_one_line(
    env: Any, error: Any, says: str, tmp_path: Any
) -> None:
    with pytest.raises(error, match=says) as raised:
        nexus.train(env, config=TrainConfig.from_mapping(SHORT), run_dir=tmp_path / "run", listener=Silent())
    assert "\n" not in str(raised.value)


def test_what_goes_with_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"potential = .*: needs no her: another goal would change"):
        TrainConfig.from_mapping({"her": "future", "potential": "tests.test_shaping:height"})
    pqn = {"algorithm": "pqn", "trace_lambda": 0.5}
    with pytest.raises(ConfigError, match="her = 'future': needs none with pqn: it keeps no replay whose goals"):
        TrainConfig.from_mapping({**pqn, "her": "future"})
    with pytest.raises(ConfigError, match=r"her_share = 0.0: needs a share in \(0, 1\]"):
        TrainConfig.from_mapping({"her": "future", "her_share": 0})


# Runs.


@pytest.mark.parametrize(
    "settings", [{}, {"prioritized": True, "double": True, "her": "episode"}, {"vectorization": "async"}]
)
def test_a_run_resumes_exactly(tmp_path: Any, settings: Any) -> None:
    config = TrainConfig.from_mapping({**SHORT, **settings})
    whole = nexus.train(Line, config=config, run_dir=tmp_path / "whole", listener=Silent())
    broken_off = tmp_path / "broken"
    interrupted(lambda: nexus.train(Line, config=config, run_dir=broken_off, listener=Silent(701, interrupt)))
    nexus.resume(broken_off, env=Line, listener=Silent())
    assert differences(whole.run_dir, broken_off, Line) == []


def test_hindsight_changes_what_is_learned(tmp_path: Any) -> None:
    config = TrainConfig.from_mapping(SHORT)
    weights = []
    for name in ("future", None):
        own = TrainConfig.from_mapping({**config.to_mapping(), "her": name})
        result = nexus.train(Line, config=own, run_dir=tmp_path / str(name), listener=Silent())
        weights.append(result.agent.learner.theta.clone())
    assert not torch.equal(*weights)


@pytest.mark.slow
def test_bit_flipping_is_learned_with_hindsight_and_not_without(tmp_path: Any) -> None:
    """Ten bits, 12,000 steps: three seeds with and one without."""
    own: dict[str, Any] = {
        "total_steps": 12_000,
        "gamma": 0.9,
        "hidden_dim": 128,
        "batch_size": 128,
        "double": True,
        "num_envs": 4,
    }
    own |= {"learning_rate": 1e-3, "epsilon_steps": 4_000, "epsilon_min": 0.1, "learning_starts": 500, "doctor": "off"}
    own |= {"target_update_every": "250 updates", "threads": 1, "checkpoint_every": None}
    scores: dict[str | None, list[float]] = {"future": [], None: []}
    for name, seeds in (("future", 3), (None, 1)):
        for seed in range(seeds):
            config = TrainConfig.from_mapping({**own, "her": name, "seed": seed})
            result = nexus.train(TenBits, config=config, run_dir=tmp_path / f"{name} {seed}", listener=Silent())
            assert result.evaluation is not None
            scores[name].append(float(np.mean([done > -10 for done in result.evaluation.returns])))
    assert min(scores["future"]) > 0.9
    assert max(scores[None]) < 0.2


class TenBits(gym.Env[Any, Any]):
    """Ten bits, of which each action flips one; the goal is another state."""

    bits = spaces.MultiBinary(10)
    observation_space = spaces.Dict({"observation": bits, "achieved_goal": bits, "desired_goal": bits})
    action_space = spaces.Discrete(10)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.state, self.goal = (self.np_random.integers(0, 2, 10).astype(np.int8) for _ in range(2))
        self.goal[0] = 1 - self.state[0]
        self.time = 0
        return self.seen(), {}

    def seen(self) -> dict[str, Array]:
        return {"observation": self.state.copy(), "achieved_goal": self.state.copy(), "desired_goal": self.goal.copy()}

    def compute_reward(self, achieved: Any, desired: Any, info: Any) -> Any:
        return np.where((achieved == desired).all(-1), 0.0, -1.0)

    def compute_terminated(self, achieved: Any, desired: Any, info: Any) -> Any:
        return (achieved == desired).all(-1)

    def step(self, action: Any) -> Any:
        self.state[action] ^= 1
        self.time += 1
        ended = bool(self.compute_terminated(self.state, self.goal, {}))
        return self.seen(), float(ended) - 1.0, ended, self.time == 10 and not ended, {}
