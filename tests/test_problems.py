"""The small environments: their definitions by hand, against their tables and against bsuite, and inside nexus."""

import json
import subprocess
import sys
import warnings
from itertools import product
from math import comb
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import nexus
from nexus.core import ConfigError
from nexus.envs.factory import EnvSpec, allows_several, make_vector_env
from nexus.problems import Bandit, BitFlipping, Catch, DeepSea, DiscountingChain, Numbered, UmbrellaChain
from nexus.tabular import q_learning, transition_table, value_iteration

ROOT = Path(__file__).parent.parent
IDS = [
    "nexus/Bandit-v0",
    "nexus/BitFlipping-v0",
    "nexus/Catch-v0",
    "nexus/DeepSea-v0",
    "nexus/DiscountingChain-v0",
    "nexus/UmbrellaChain-v0",
]
# Of every environment, settings with a table small enough for a test.
TABLED: list[tuple[str, dict[str, Any]]] = [
    ("nexus/Bandit-v0", {}),
    ("nexus/Bandit-v0", {"arms": 3, "mapping_seed": None, "reward_scale": 30.0}),
    ("nexus/BitFlipping-v0", {"bits": 1}),
    ("nexus/BitFlipping-v0", {"bits": 3}),
    ("nexus/Catch-v0", {}),
    ("nexus/Catch-v0", {"rows": 3, "columns": 7, "reward_scale": 0.03}),
    ("nexus/DeepSea-v0", {"size": 5}),
    ("nexus/DeepSea-v0", {"size": 1}),
    ("nexus/DeepSea-v0", {"size": 4, "mapping_seed": None, "observation": "place"}),
    ("nexus/DiscountingChain-v0", {"mapping_seed": 3}),
    ("nexus/UmbrellaChain-v0", {"length": 4, "distractors": 2}),
    ("nexus/UmbrellaChain-v0", {"length": 1, "distractors": 0}),
]


def make(name: str, **settings: Any) -> gym.Env[Any, Any]:
    return gym.make(name, **settings)


def ended(env: gym.Env[Any, Any], actions: list[int], seed: int = 0) -> tuple[list[float], list[bool], list[bool]]:
    """Play actions; return the rewards, and where it terminated and was truncated."""
    env.reset(seed=seed)
    steps = [env.step(np.int64(action))[1:4] for action in actions]
    return [float(step[0]) for step in steps], [step[1] for step in steps], [step[2] for step in steps]


# As Gymnasium's environments.


@pytest.mark.parametrize("name", IDS)
def test_gymnasium_and_nexus_find_no_fault(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(make(name).unwrapped)
    assert nexus.check(name).faults == ()


def test_they_are_registered_without_loading_gymnasium_before_it_is_needed() -> None:
    code = (
        "import sys, nexus; assert 'gymnasium' not in sys.modules; import gymnasium\n"
        "env = gymnasium.make('nexus.problems:nexus/DeepSea-v0', size=7)\n"
        "print(env.observation_space.shape, sorted(name for name in gymnasium.registry if name.startswith('nexus/')))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == f"(7, 7) {IDS}\n", done.stderr


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("nexus/Bandit-v0", {"reward_noise": 1.0}),
        ("nexus/BitFlipping-v0", {}),
        ("nexus/Catch-v0", {"reward_noise": 0.1}),
        ("nexus/DeepSea-v0", {"stochastic": True, "size": 3, "mapping_seed": None}),
        ("nexus/UmbrellaChain-v0", {}),
    ],
)
def test_a_seed_gives_an_episode_and_another_seed_another(name: str, settings: dict[str, Any]) -> None:
    def episode(seed: int) -> str:
        env = make(name, **settings)
        env.reset(seed=99)
        env.step(1)  # what came before does not count
        seen: list[Any] = [env.reset(seed=seed)]
        while len(seen) == 1 or not (seen[-1][2] or seen[-1][3]):
            seen.append(env.step(1))
        return repr(seen)

    assert episode(5) == episode(5)
    assert len({episode(seed) for seed in range(5)}) > 1


def test_a_run_in_processes_finds_them_and_so_does_one_that_is_evaluated_by_another_program(tmp_path: Path) -> None:
    run = tmp_path / "run"
    settings: dict[str, Any] = {"env_kwargs": {"size": 4}, "num_envs": 2, "vectorization": "async"}
    settings |= {"total_steps": 200, "learning_starts": 64, "hidden_dim": 8, "eval_episodes": 2}
    nexus.train("nexus/DeepSea-v0", run_dir=run, verbose=False, **settings)
    words = [sys.executable, "-m", "nexus", "evaluate", str(run), "--episodes", "3", "--json"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert -0.01 <= found["mean"] <= 0.99
    assert found["episodes"] == 3


def test_several_may_be_made_and_each_has_its_own_state() -> None:
    assert allows_several(EnvSpec("nexus/Catch-v0"))
    vector: Any = make_vector_env(EnvSpec("nexus/Catch-v0"), 3)
    observations, _ = vector.reset(seed=[0, 1, 2])
    assert observations.shape == (3, 10, 5)
    assert len({row.tobytes() for row in observations}) > 1
    vector.close()


@pytest.mark.parametrize(
    ("make_one", "message"),
    [
        (lambda: DeepSea(size=0), "size = 0: needs at least 1"),
        (lambda: DeepSea(size=2.5), "size = 2.5: needs a whole number"),  # type: ignore[arg-type]
        (lambda: DeepSea(observation="map"), "observation = 'map': needs one of grid, place"),  # type: ignore[arg-type]
        (lambda: DeepSea(stochastic=2), "stochastic = 2: needs one of True, False"),  # type: ignore[arg-type]
        (lambda: DeepSea(mapping_seed=-1), "mapping_seed = -1: needs at least 0"),
        (lambda: DeepSea(move_cost=float("nan")), "move_cost = nan: needs a finite number"),
        (lambda: Catch(rows=1), "rows = 1: needs at least 2"),
        (lambda: Catch(reward_noise=-0.1), "reward_noise = -0.1: needs at least 0"),
        (lambda: Bandit(arms=True), "arms = True: needs a whole number"),
        (lambda: Bandit(mapping_seed=2**32), "mapping_seed = 4294967296: needs at most 4294967295"),
        (lambda: UmbrellaChain(length=0), "length = 0: needs at least 1"),
        (lambda: BitFlipping(bits=0), "bits = 0: needs at least 1"),
        (lambda: BitFlipping(bits=7).P, "bits = 7: a table of 4^7 states needs at most 6 bits"),
        (lambda: Numbered(gym.make("CartPole-v1")), "CartPoleEnv does not number its states"),
    ],
)
def test_an_argument_out_of_range_is_one_clear_line(make_one: Any, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        make_one()
    assert str(raised.value).startswith(message)


# Each by hand.


def test_deep_sea_pays_for_nothing_but_moves_to_the_right_all_the_way() -> None:
    env = make("nexus/DeepSea-v0", size=4, mapping_seed=None)
    rewards, terminated, truncated = ended(env, [1, 1, 1, 1])
    assert rewards == pytest.approx([-0.0025, -0.0025, -0.0025, 0.9975])
    assert terminated == [False, False, False, True]
    assert not any(truncated)
    assert ended(env, [1, 0, 1, 1])[0] == pytest.approx([-0.0025, 0, -0.0025, -0.0025])
    assert ended(env, [1, 1, 1, 0])[0] == pytest.approx(
        [-0.0025, -0.0025, -0.0025, 0]
    )  # in its column, but to the left
    assert ended(env, [0, 0, 0, 0])[0] == [0, 0, 0, 0]


def test_only_one_way_through_the_deep_sea_pays() -> None:
    env = DeepSea(3)

    def sailed(goes_right: tuple[bool, ...]) -> float:
        env.reset()
        total = 0.0
        for wanted in goes_right:
            right = int(env.right[env.row, env.column])
            total += env.step(right if wanted else 1 - right)[1]
        return total

    returns = {way: sailed(way) for way in product((False, True), repeat=3)}
    assert returns.pop((True, True, True)) == pytest.approx(1 - 0.01)
    assert {way: round(300 * value) for way, value in returns.items()} == {way: -sum(way) for way in returns}


def test_deep_sea_shows_the_diver_and_at_the_end_nothing() -> None:
    env = make("nexus/DeepSea-v0", size=2, mapping_seed=None)
    assert env.reset(seed=0)[0].tolist() == [[1, 0], [0, 0]]
    assert env.step(1)[0].tolist() == [[0, 0], [0, 1]]
    observation, *_, info = env.step(0)
    assert observation.tolist() == [[0, 0], [0, 0]]
    assert info == {"bad_episode": True}
    place = make("nexus/DeepSea-v0", size=2, mapping_seed=None, observation="place")
    assert place.reset(seed=0)[0].tolist() == [0, 0]
    assert place.step(1)[0].tolist() == [0.5, 0.5]
    assert place.step(1)[0].tolist() == [1, 0.5]
    assert place.step is not env.step


def test_an_episode_of_deep_sea_is_bad_from_the_first_move_to_the_left_on_the_diagonal() -> None:
    env = make("nexus/DeepSea-v0", size=4, mapping_seed=None)
    env.reset(seed=0)
    assert [env.step(action)[4]["bad_episode"] for action in (1, 0, 1, 1)] == [False, True, True, True]
    env.reset(seed=0)
    assert [env.step(1)[4]["bad_episode"] for _ in range(4)] == [False] * 4
    slips = DeepSea(4, stochastic=True, mapping_seed=None)
    slips.reset(seed=0)
    slips.row, slips.column = 2, 1  # after a slip; only moves from the diagonal count
    assert slips.step(0)[4] == {"bad_episode": False}


def test_the_published_deep_sea_has_other_actions_in_other_cells() -> None:
    # np.random.RandomState(42).binomial(1, 0.5, [10, 10]), its first row as bsuite draws it
    assert DeepSea().right[0].tolist() == [0, 1, 1, 1, 0, 0, 0, 1, 1, 1]
    assert DeepSea(mapping_seed=7).right.tolist() != DeepSea().right.tolist()


def test_the_stochastic_deep_sea_slips_and_is_noisy_where_it_should_be() -> None:
    env = make("nexus/DeepSea-v0", size=2, stochastic=True, mapping_seed=None)
    slipped, noise = [], []
    for seed in range(400):
        env.reset(seed=seed)
        observation, reward, *_ = env.step(1)
        assert float(reward) == -0.005  # the first row has no noise
        slipped.append(bool(observation[1, 0]))
        noise.append(float(env.step(0)[1]))
    assert np.mean(slipped) == pytest.approx(0.5, abs=0.1)  # four standard errors
    assert np.mean(noise) == pytest.approx(0, abs=0.2)
    assert np.std(noise) == pytest.approx(1, abs=0.15)


def test_catch_pays_at_the_end_for_the_column_of_the_ball() -> None:
    env = Catch(rows=3, columns=3)
    env.reset(seed=0)
    env.ball = 2
    observation, reward, terminated, _, info = env.step(2)
    assert observation.tolist() == [[0, 0, 0], [0, 0, 1], [0, 0, 1]]
    assert (reward, terminated, info) == (0, False, {"regret": 0})
    observation, reward, terminated, truncated, info = env.step(2)  # at the wall, where it stays
    assert observation.tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, 1]]
    assert (reward, terminated, truncated, info) == (1, True, False, {"regret": 0})
    env.reset(seed=0)
    env.ball = 2
    env.step(0)
    assert env.step(1)[1:] == (-1, True, False, {"regret": 2})


def test_the_ball_falls_in_each_column_about_as_often() -> None:
    env = Catch()
    columns = [int(np.argmax(env.reset(seed=seed)[0][0])) for seed in range(500)]
    assert np.bincount(columns, minlength=5).tolist() == pytest.approx([100] * 5, abs=40)  # four standard deviations


def test_rewards_are_scaled_and_noise_is_added_and_neither_is_in_the_regret() -> None:
    plain, scaled = Bandit(mapping_seed=None), Bandit(mapping_seed=None, reward_scale=30.0)
    noisy = Bandit(mapping_seed=None, reward_noise=3.0)
    for env in (plain, scaled, noisy):
        env.reset(seed=0)
    assert plain.step(3)[1] == pytest.approx(0.3)
    assert scaled.step(3)[1] == pytest.approx(9.0)
    assert [env.step(3)[4]["regret"] for env in (plain, scaled, noisy)] == pytest.approx([0.7] * 3)
    rewards = [noisy.step(3)[1] for _ in range(2000)]
    assert np.mean(rewards) == pytest.approx(0.3, abs=0.27)  # four standard errors
    assert np.std(rewards) == pytest.approx(3.0, abs=0.2)
    missed = Catch(rows=2, columns=5, reward_scale=30.0)
    missed.reset(seed=0)
    missed.ball = 0
    assert missed.step(1)[1::3] == (-30.0, {"regret": 2.0})
    between = Catch(reward_noise=0.5)  # also the steps without a reward, as in bsuite
    between.reset(seed=0)
    assert between.step(1)[1] != 0.0


def test_a_discounting_chain_pays_once_at_its_step() -> None:
    env = make("nexus/DiscountingChain-v0", mapping_seed=6)  # 6 mod 5: the second chain, after three steps
    rewards, terminated, truncated = ended(env, [1] + [4] * 99)
    assert [(step, reward) for step, reward in enumerate(rewards, 1) if reward] == [(3, 1.1)]
    assert terminated == [False] * 99 + [True]
    assert not any(truncated)
    for chain, step in enumerate((1, 3, 10, 30, 100)):
        paid = ended(env, [chain] + [0] * 99)[0]
        assert [at for at, reward in enumerate(paid, 1) if reward] == [step]
    env.reset(seed=0)
    assert env.reset(seed=0)[0].tolist() == [-1, 0]
    assert env.step(2)[0].tolist() == pytest.approx([2, 0.01])


@pytest.mark.parametrize(("rain", "action", "reward"), [(0, 0, 1), (0, 1, -1), (1, 0, -1), (1, 1, 1)])
def test_the_umbrella_is_taken_at_the_first_step_only(rain: int, action: int, reward: float) -> None:
    env = UmbrellaChain(length=3, distractors=2)
    env.reset(seed=0)
    env.rain, env.umbrella = rain, 1 - action
    observation, first, *_ = env.step(action)
    assert observation[:3].tolist() == pytest.approx([rain, action, 2 / 3])
    assert abs(first) == 1
    env.step(1 - action)
    observation, last, terminated, truncated, info = env.step(1 - action)
    assert observation[:3].tolist() == [rain, action, 0]
    assert (last, terminated, truncated) == (reward, True, False)
    assert info == {"regret": 1 - reward}


def test_bits_are_flipped_until_they_equal_the_goal() -> None:
    env = BitFlipping(bits=3)
    env.reset(seed=0)
    env.bits, env.goal = np.array([0, 1, 1], np.float32), np.array([1, 1, 0], np.float32)
    observation, reward, terminated, truncated, info = env.step(0)
    assert observation["observation"].tolist() == observation["achieved_goal"].tolist() == [1, 1, 1]
    assert observation["desired_goal"].tolist() == [1, 1, 0]
    assert (reward, terminated, truncated, info) == (-1, False, False, {"steps": 1, "is_success": False})
    assert env.step(2)[1:] == (0, True, False, {"steps": 2, "is_success": True})


def test_an_episode_of_n_flips_is_truncated_unless_the_last_one_reaches_the_goal() -> None:
    env = BitFlipping(bits=2)
    env.reset(seed=0)
    env.bits, env.goal = np.zeros(2, np.float32), np.ones(2, np.float32)
    env.step(0)
    assert env.step(0)[1:4] == (-1, False, True)
    env.reset(seed=0)
    env.bits, env.goal = np.zeros(2, np.float32), np.ones(2, np.float32)
    env.step(0)
    assert env.step(1)[1:4] == (0, True, False)


def test_rewards_and_ends_of_many_goals_are_computed_at_once() -> None:
    env = BitFlipping(bits=2)
    achieved = np.array([[[0, 0], [0, 1]], [[1, 0], [1, 1]]], np.float32)  # [2, 2, n]
    goals = np.array([[[0, 0], [1, 1]], [[0, 0], [1, 1]]], np.float32)
    rewards = env.compute_reward(achieved, goals, {})
    assert rewards.tolist() == [[0, -1], [-1, 0]]
    assert rewards.dtype == np.float32
    assert env.compute_terminated(achieved, goals, {}).tolist() == [[True, False], [False, True]]
    assert env.compute_truncated(achieved, goals, {"steps": 2}).tolist() == [[False, True], [True, False]]
    assert env.compute_truncated(achieved, goals, {"steps": np.array([[1, 1], [2, 2]])}).tolist() == [
        [False, False],
        [True, False],
    ]
    assert env.compute_truncated(achieved, goals, {}).tolist() == [[False, False], [False, False]]


def test_what_a_step_returns_is_what_the_goals_compute() -> None:
    env, rng = BitFlipping(bits=3), np.random.default_rng(0)
    reached = 0
    for seed in range(30):
        env.reset(seed=seed)
        over = False
        while not over:
            observation, reward, terminated, truncated, info = env.step(rng.integers(3))
            goals = observation["achieved_goal"], observation["desired_goal"], info
            assert reward == env.compute_reward(*goals)
            assert terminated == env.compute_terminated(*goals)
            assert truncated == env.compute_truncated(*goals)
            reached, over = reached + terminated, terminated or truncated
    assert reached > 3


@pytest.mark.parametrize("bits", [1, 2, 12])
def test_an_episode_never_begins_at_its_goal(bits: int) -> None:
    env = BitFlipping(bits=bits)
    firsts = [env.reset(seed=seed)[0] for seed in range(50)]
    assert all((first["achieved_goal"] != first["desired_goal"]).any() for first in firsts)
    assert len({first["desired_goal"].tobytes() for first in firsts}) > 1


def test_the_grids_have_pictures() -> None:
    sea = make("nexus/DeepSea-v0", size=3, render_mode="rgb_array")
    sea.reset(seed=0)
    picture: Any = sea.render()
    assert picture.shape == (48, 48, 3)
    assert picture.dtype == np.uint8
    assert picture[8, 8].tolist() == [80, 170, 250]  # the diver
    assert picture[40, 40].tolist() == [240, 200, 60]  # the treasure
    board = make("nexus/Catch-v0", rows=3, columns=4, render_mode="rgb_array")
    board.reset(seed=0)
    board.step(1)
    picture = board.render()
    assert picture.shape == (48, 64, 3)
    assert picture[40, 40].tolist() == [80, 170, 250]  # the paddle, in the middle
    assert [row for row in range(3) if (picture[16 * row + 8, 8::16] == [240, 200, 60]).all(-1).any()] == [1]
    assert make("nexus/Catch-v0").unwrapped.render() is None


# Tables.


@pytest.mark.parametrize(("name", "settings"), TABLED)
def test_steps_agree_with_the_table(name: str, settings: dict[str, Any]) -> None:
    env = Numbered(make(name, **settings))
    table = env.problem.P
    assert sorted(table) == list(range(len(table)))
    for outcomes in (row[action] for row in table.values() for action in row):
        assert sum(outcome[0] for outcome in outcomes) == pytest.approx(1)
    rng, steps = np.random.default_rng(0), 0
    for seed in range(150):
        state, _ = env.reset(seed=seed)
        over = False
        while not over:
            action = int(rng.integers(len(table[0])))
            following, reward, terminated, truncated, _ = env.step(action)
            possible: list[Any] = [outcome[1:] for outcome in table[state][action]]
            assert (following, pytest.approx(float(reward)), terminated) in possible
            assert terminated == (following == len(table) - 1)
            state, over, steps = following, terminated or truncated, steps + 1
    assert steps >= 150


def test_the_stochastic_sea_agrees_with_its_table_on_average() -> None:
    env = Numbered(make("nexus/DeepSea-v0", size=3, stochastic=True))
    table = transition_table(env)
    counts, sums = np.zeros((10, 2, 10)), np.zeros((10, 2))
    ends = np.zeros((10, 2))
    rng = np.random.default_rng(0)
    for seed in range(4000):
        state, _ = env.reset(seed=seed)
        for _ in range(3):
            action = int(rng.integers(2))
            following, reward, terminated, _, _ = env.step(action)
            counts[state, action, following] += not terminated
            ends[state, action] += terminated
            sums[state, action] += float(reward)
            state = following
    visits = counts.sum(-1) + ends  # [S, A]
    seen = visits > 100
    assert seen.sum() == 12  # of 9 cells, the 6 that can be reached
    np.testing.assert_allclose((counts[seen].T / visits[seen]).T, table.probabilities[seen], atol=0.08)
    np.testing.assert_allclose(sums[seen] / visits[seen], table.rewards[seen], atol=0.25)


def value_at_start(env: gym.Env[Any, Any], gamma: float) -> float:
    numbered = Numbered(env)
    state, _ = numbered.reset(seed=0)
    return float(value_iteration(numbered, gamma)[state].max())


@pytest.mark.parametrize(
    ("env", "gamma", "value"),
    [
        # 0.9² for the treasure less 0.01 / 3 at each of three steps
        (DeepSea(3), 0.9, 0.81 - 0.01 / 3 * (1 + 0.9 + 0.81)),
        (DeepSea(3, mapping_seed=None), 0.9, 0.81 - 0.01 / 3 * (1 + 0.9 + 0.81)),
        (DeepSea(3, move_cost=3.0), 0.9, 0.0),  # not worth it
        # Half of the moves slip; then nothing can be won, else 1 - 0.005.
        (DeepSea(2, stochastic=True), 0.9, -0.005 + 0.9 * 0.5 * 0.995),
        (Catch(), 0.9, 0.9**8),
        (Catch(reward_scale=1000.0), 0.9, 1000 * 0.9**8),
        (Bandit(), 0.9, 1.0),
        (Bandit(reward_scale=0.03), 0.9, 0.03),
        (DiscountingChain(2), 0.99, 1.1 * 0.99**9),
        (DiscountingChain(4), 0.99, 1.0),  # 1.1 after 100 steps is worth 0.41
        (DiscountingChain(4), 0.9995, 1.1 * 0.9995**99),
        (UmbrellaChain(3), 0.9, 0.81),
    ],
)
def test_the_best_value_of_the_start_is_known(env: gym.Env[Any, Any], gamma: float, value: float) -> None:
    assert value_at_start(env, gamma) == pytest.approx(value, abs=1e-6)


def test_q_of_a_ball_out_of_reach_of_the_wrong_choice_and_of_distances_to_a_goal() -> None:
    catch = Catch(rows=3, columns=7)  # two steps; the paddle begins in column 3
    values = value_iteration(Numbered(catch), 0.9).max(1)
    assert [values[catch.number(0, ball, 3)] for ball in range(7)] == pytest.approx([-0.9, *[0.9] * 5, -0.9])
    umbrella = UmbrellaChain(length=2)
    q_star = value_iteration(Numbered(umbrella), 0.5)
    assert q_star[umbrella.number(0, 1, 0)] == pytest.approx([-0.5, 0.5])
    assert q_star[umbrella.number(0, 0, 0)] == pytest.approx([0.5, -0.5])
    assert q_star[umbrella.number(1, 1, 0)] == pytest.approx([-1, -1])
    flipping = BitFlipping(bits=3)
    q_star = value_iteration(Numbered(flipping), 0.9)
    assert q_star[flipping.number(0b000, 0b001)] == pytest.approx([0, -1.9, -1.9])
    assert q_star[flipping.number(0b000, 0b011)].max() == pytest.approx(-1)
    assert q_star[flipping.number(0b000, 0b111)].max() == pytest.approx(-1 - 0.9)


def test_greedy_play_by_the_table_gets_the_best_return() -> None:
    env = Numbered(make("nexus/DeepSea-v0", size=20))
    q_star = value_iteration(env, 0.999)
    state, _ = env.reset(seed=0)
    rewards = []
    for _ in range(20):
        state, reward, *_ = env.step(int(q_star[state].argmax()))
        rewards.append(float(reward))
    assert sum(rewards) == pytest.approx(0.99)


def test_tabular_q_learning_reads_the_numbers() -> None:
    env = Numbered(Bandit(arms=4, mapping_seed=None))
    assert q_learning(env, 400, epsilon=1.0)[0] == pytest.approx([0, 1 / 3, 2 / 3, 1], abs=1e-6)


# bsuite, where it is installed: the same configuration and the same random numbers give the same steps.


class Drawn:
    """What bsuite draws, from a generator like Gymnasium's."""

    def __init__(self, seed: int) -> None:
        self.generator = np.random.default_rng(seed)

    def rand(self) -> float:
        return self.generator.random()

    def randn(self) -> float:
        return self.generator.normal()

    def randint(self, below: int) -> int:
        return int(self.generator.integers(below))

    def binomial(self, trials: int, share: float, size: int | None = None) -> Any:
        assert (trials, share) == (1, 0.5)
        return self.generator.integers(2, size=size)


def bsuite_problem(name: str, settings: dict[str, Any], **noise: float) -> Any:
    """One of bsuite's environments; with the settings of one of its wrappers, in that."""
    module, _, kind = name.partition(":")
    env = getattr(pytest.importorskip(f"bsuite.environments.{module}"), kind)(**settings)
    wrappers = pytest.importorskip("bsuite.utils.wrappers")
    if "noise_scale" in noise:
        return wrappers.RewardNoise(env, **noise)
    return wrappers.RewardScale(env, **noise) if noise else env


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:Environment is in debug mode")
@pytest.mark.parametrize(
    ("ours", "kind", "settings", "noise"),
    [
        *((Bandit(mapping_seed=seed), "bandit:SimpleBandit", {"mapping_seed": seed}, {}) for seed in range(20)),
        (Bandit(7, 3), "bandit:SimpleBandit", {"mapping_seed": 3, "num_actions": 7}, {}),
        (Bandit(reward_noise=3.0), "bandit:SimpleBandit", {"mapping_seed": 0}, {"noise_scale": 3.0}),
        (Bandit(reward_scale=30.0), "bandit:SimpleBandit", {"mapping_seed": 0}, {"reward_scale": 30.0}),
        (Catch(), "catch:Catch", {}, {}),
        (Catch(6, 8), "catch:Catch", {"rows": 6, "columns": 8}, {}),
        (Catch(reward_noise=0.3), "catch:Catch", {}, {"noise_scale": 0.3}),
        (Catch(reward_scale=0.001), "catch:Catch", {}, {"reward_scale": 0.001}),
        *(
            (DeepSea(size, stochastic), "deep_sea:DeepSea", {"size": size, "deterministic": not stochastic}, {})
            for size in (1, 2, 10, 20)
            for stochastic in (False, True)
        ),
        (DeepSea(5, mapping_seed=None, move_cost=0.5), "deep_sea:DeepSea", {"size": 5, "unscaled_move_cost": 0.5}, {}),
        *(
            (DiscountingChain(seed), "discounting_chain:DiscountingChain", {"mapping_seed": seed}, {})
            for seed in range(20)
        ),
        *(
            (
                UmbrellaChain(length, 20),
                "umbrella_chain:UmbrellaChain",
                {"chain_length": length, "n_distractor": 20},
                {},
            )
            for length in (1, 2, 20)
        ),
        (UmbrellaChain(20, 0), "umbrella_chain:UmbrellaChain", {"chain_length": 20}, {}),
    ],
)
def test_steps_are_those_of_bsuite(ours: Any, kind: str, settings: dict[str, Any], noise: dict[str, float]) -> None:
    if isinstance(ours, DeepSea):
        mapping = {"mapping_seed": 42} if ours.right.min() == 0 or ours.size == 1 else {"randomize_actions": False}
        settings = settings | mapping
    theirs = bsuite_problem(kind, settings, **noise)
    ours.np_random = np.random.default_rng(3)
    theirs._rng = getattr(theirs, "raw_env", theirs)._rng = Drawn(3)  # one stream, as ours has
    regret, bad, actions = 0.0, 0, np.random.default_rng(1)
    for _ in range(100):
        observation, _ = ours.reset()
        timestep, over = theirs.reset(), False
        np.testing.assert_allclose(observation, timestep.observation.reshape(observation.shape), atol=1e-7)
        while not over:
            action = int(actions.integers(theirs.action_spec().num_values))
            observation, reward, over, truncated, info = ours.step(action)
            timestep = theirs.step(action)
            np.testing.assert_allclose(observation, timestep.observation.reshape(observation.shape), atol=1e-7)
            assert float(reward) == pytest.approx(timestep.reward, abs=1e-9)
            assert over == timestep.last()
            assert not truncated
            regret += info.get("regret", 0.0)
        bad += info.get("bad_episode", 0)
    counted = theirs.bsuite_info()
    assert regret == pytest.approx(counted.get("total_regret", 0))
    assert bad == counted.get("total_bad_episodes", 0)


# The page.


def mean_returns(env: gym.Env[Any, Any]) -> tuple[float, float]:
    """The best mean return and that of random play, by the table and without a discount; each state comes once."""
    numbered = Numbered(env)
    table = transition_table(numbered)
    best, random = np.zeros(len(table.rewards)), np.zeros(len(table.rewards))
    for _ in range(150):  # more than an episode has steps
        best = (table.rewards + table.probabilities @ best).max(1)
        random = (table.rewards + table.probabilities @ random).mean(1)
    firsts = sorted({numbered.reset(seed=seed)[0] for seed in range(100)})
    return float(best[firsts].mean()), float(random[firsts].mean())


@pytest.mark.parametrize(
    ("env", "best", "random"),
    [
        (Bandit(), "1", "0.5"),
        (Catch(), "1", "-0.6"),
        (DeepSea(10), "0.99", "-0.0040"),
        (DeepSea(10, stochastic=True), "0.381", "-0.0046"),
        (DiscountingChain(3), "1.1", "1.02"),
        (UmbrellaChain(7), "1", "0"),
    ],
)
def test_the_returns_on_the_page_are_those_of_the_tables(env: gym.Env[Any, Any], best: str, random: str) -> None:
    found = mean_returns(env)
    assert [abs(value - float(shown)) < 1e-4 for value, shown in zip(found, (best, random), strict=True)] == [True] * 2
    page = (ROOT / "docs" / "problems.md").read_text("utf-8")
    name = f"| `nexus/{type(env).__name__}-v0` |"
    _, returns = [line.split("|") for line in page.splitlines() if line.startswith(name)]
    assert best in returns[4].replace(";", "").split()
    assert random in returns[5].replace(";", "").split()


def test_the_returns_of_bit_flipping_on_the_page_follow_from_the_distances() -> None:
    size = 10
    start = np.array([0.0, *(comb(size, distance) for distance in range(1, size + 1))]) / (2**size - 1)
    now, reached, random = start, 0.0, 0.0
    for _ in range(size):
        after = np.zeros(size + 2)
        for distance in range(1, size + 1):
            after[distance - 1] += now[distance] * distance / size
            after[distance + 1] += now[distance] * (size - distance) / size
        reached += after[0]
        random -= after[1:].sum()
        now = np.array([0.0, *after[1 : size + 1]])
    best = (start * (1 - np.arange(size + 1))).sum()
    page = (ROOT / "docs" / "problems.md").read_text("utf-8")
    assert (
        f"{best:.2f} on average for n = 10 | {random:.2f} for n = 10, with the goal in {reached:.1%}"
        in page.replace(" %", "%")
    )
    played = BitFlipping()
    rng, returns = np.random.default_rng(0), []
    for seed in range(2000):
        played.reset(seed=seed)
        total, over = 0.0, False
        while not over:
            _, reward, terminated, truncated, _ = played.step(rng.integers(size))
            total, over = total + reward, terminated or truncated
        returns.append(total)
    assert np.mean(returns) == pytest.approx(random, abs=0.08)  # deviation about 0.6, of the mean 0.014
