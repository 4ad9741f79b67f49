"""Bonuses from networks, and which states count as the same: by hand, over time, in targets, in runs that resume."""

import json
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

import nexus
from nexus.core.config import AgentConfig
from nexus.core.errors import ConfigError, RunError
from nexus.core.types import Steps
from nexus.envs.packing import Packing
from nexus.envs.same_states import keys_for
from nexus.models.curiosity.icm import IntrinsicCuriosity, Models
from nexus.models.curiosity.rnd import RandomNetworkDistillation
from nexus.models.curiosity.unit import ErrorUnit
from nexus.sparse import normalized_states
from nexus.training.config import TrainConfig
from tests.chaos import Silent, differences, interrupt, interrupted

BOX = spaces.Box(-10.0, 10.0, (2,), np.float32)
SMALL = AgentConfig(hidden_dim=32)
CPU = torch.device("cpu")
Bonus = RandomNetworkDistillation | IntrinsicCuriosity


def made(kind: str, scale: float = 1.0, learning_rate: float = 1e-3) -> Bonus:
    states = normalized_states(BOX, "test")
    torch.manual_seed(0)
    if kind == "rnd":
        return RandomNetworkDistillation(states, SMALL, scale, learning_rate, CPU)
    return IntrinsicCuriosity(states, 2, SMALL, scale, learning_rate, CPU)


def steps(states: Any, next_states: Any, actions: Any = None) -> Steps:
    now, after = (torch.tensor(part, dtype=torch.float32) for part in (states, next_states))
    count = len(now)
    chosen = torch.zeros(count, dtype=torch.int64) if actions is None else torch.tensor(actions)
    return Steps(np.arange(count), np.zeros(count, int), now, chosen, after)


def test_the_unit_is_the_root_mean_square_of_all_errors() -> None:
    unit = ErrorUnit()
    assert unit.value == 1
    unit.follow(np.array([3.0]))
    unit.follow(np.array([4.0, 0.0]))
    assert unit.value == pytest.approx(np.sqrt(25 / 3))
    again = ErrorUnit()
    again.set_state(unit.get_state())
    assert again.value == unit.value
    with pytest.raises(RunError, match="squares"):
        again.set_state({"squares": -1.0, "count": 1})


def test_the_error_of_a_prediction_by_hand() -> None:
    """Both networks replaced by layers that are known: (2x - x)² averaged over two numbers, in a unit of 5."""
    bonus = made("rnd", scale=10.0)
    assert isinstance(bonus, RandomNetworkDistillation)

    class Times(nn.Module):
        def __init__(self, factor: float) -> None:
            super().__init__()
            self.factor = nn.Parameter(torch.tensor(factor))

        def forward(self, states: torch.Tensor) -> torch.Tensor:
            return self.factor * states

    bonus.target, bonus.predictor.network = Times(1.0), Times(2.0)  # type: ignore[assignment]
    bonus.unit.follow(np.array([5.0]))
    found = bonus.of(steps([[0, 0], [0, 0]], [[1, 3], [0, 2]]))
    assert found.tolist() == pytest.approx([10 / 5 * (1 + 9) / 2, 10 / 5 * 4 / 2])
    assert found.dtype == np.float32


def test_the_models_of_curiosity_by_hand() -> None:
    """Features are the state itself. The forward model says 0: ½(1 + 9) = 5. The inverse says nothing: ln 2."""
    models = Models(nn.Identity(), 2, 2)
    for part in (*models.onward, *models.inverse):
        if isinstance(part, nn.Linear):
            nn.init.zeros_(part.weight)
            nn.init.zeros_(part.bias)
    errors, inverse = models(torch.zeros(1, 2), torch.tensor([1]), torch.tensor([[1.0, 3.0]]))
    assert errors.tolist() == pytest.approx([5.0])
    assert inverse.tolist() == pytest.approx([np.log(2)])


def test_features_learn_from_the_inverse_model_only() -> None:
    torch.manual_seed(0)
    models = Models(nn.Linear(2, 16), 16, 2)
    states, after = torch.randn(8, 2), torch.randn(8, 2)
    errors, inverse = models(states, torch.zeros(8, dtype=torch.int64), after)
    weights = list(models.torso.parameters())
    unused = torch.autograd.grad(errors.sum(), weights, retain_graph=True, allow_unused=True)
    assert [part is None for part in unused] == [True, True]
    assert all(part.abs().sum() > 0 for part in torch.autograd.grad(inverse.sum(), weights))


@pytest.mark.parametrize("kind", ["rnd", "icm"])
def test_what_was_seen_often_pays_less_than_what_is_new(kind: str) -> None:
    """Two actions lead from the left corner to two states nearby; then a corner never seen."""
    bonus, rng = made(kind), np.random.default_rng(0)
    now = rng.normal(-3, 0.3, (256, 2))
    actions = rng.integers(2, size=256)
    after = now + np.stack([0.5 * (2 * actions - 1), np.zeros(256)], 1)
    known, new = steps(now, after, actions), steps(now + 6, after + 9, actions)
    bonus.enter(known)
    bonus.learn(known)  # the first error, which makes the unit
    before = bonus.of(known).mean()
    for _ in range(600):
        bonus.learn(known)
    assert before == pytest.approx(1.0, abs=0.6), "in its unit"
    assert bonus.of(known).mean() < 0.2 * before
    assert bonus.of(new).mean() > 5 * bonus.of(known).mean()


@pytest.mark.parametrize("kind", ["rnd", "icm"])
def test_a_restored_bonus_goes_on_to_the_bit(kind: str) -> None:
    given = steps(np.random.default_rng(0).normal(size=(32, 2)), np.random.default_rng(1).normal(size=(32, 2)))
    one, other = made(kind), made(kind)
    for bonus in (one, other):
        bonus.enter(given)
    one.learn(given)
    assert not np.array_equal(one.of(given), other.of(given))
    other.set_state(one.get_state(32), 32)
    for _ in range(3):
        assert np.array_equal(one.of(given), other.of(given))
        one.learn(given)
        other.learn(given)
    with pytest.raises(RunError, match="has no array"):
        other.set_state({}, 32)


def test_the_random_network_is_not_the_agents_first_one() -> None:
    """Were it drawn from the same seed, the agent would begin with what the bonus is the error of."""
    config = TrainConfig.from_mapping({"bonus": "rnd", "hidden_dim": 32, "device": "cpu"})
    from nexus.parts import agent_for
    from nexus.sparse import bonus_for

    bonus = bonus_for(config, "test", BOX, 2, CPU)
    assert isinstance(bonus, RandomNetworkDistillation)
    theirs = [weights for weights in bonus.target.state_dict().values() if weights.shape == (32, 2)]
    own = [
        weights for weights in agent_for((2,), 2, config).q_network.state_dict().values() if weights.shape == (32, 2)
    ]
    assert len(theirs) == len(own) == 1
    assert not torch.allclose(theirs[0] / theirs[0].norm(), own[0] / own[0].norm(), atol=0.1)


# Which states count as the same.


def same(space: spaces.Space[Any], way: str, *states: Any, bins: int = 20) -> list[int]:
    """A number for each state: of the first that counts as the same."""
    found = list(keys_for(space, way, bins, np.random.default_rng(0))(np.stack(states)))
    return [found.index(key) for key in found]


def test_a_grid_cuts_each_number_between_its_bounds() -> None:
    """From -10 to 10 in four: [-10, -5), [-5, 0), [0, 5), [5, 10]."""
    places = [[-10, 0], [-5.1, 4.9], [-4.9, 0], [-10, 5], [10, 10], [9, 5]]
    assert same(BOX, "grid", *np.array(places, np.float32), bins=4) == [0, 0, 2, 3, 4, 4]


def test_numbers_without_bounds_are_cut_up_too() -> None:
    """x / (1 + |x|) in four: below -1, to 0, to 1, above 1."""
    space = spaces.Box(-np.inf, np.inf, (1,), np.float32)
    huge = spaces.Box(-3.4e38, 3.4e38, (1,), np.float32)  # as of CartPole's velocities
    assert same(huge, "grid", *np.array([[-50], [-0.9], [0.5], [1.5]], np.float32), bins=4) == [0, 1, 2, 3]
    assert same(
        space, "grid", *np.array([[-50], [-1.1], [-0.9], [-0.1], [0.5], [1.5], [1e30]], np.float32), bins=4
    ) == [
        *(0, 0, 2, 2, 4, 5, 5),
    ]


def test_the_way_that_fits_is_taken() -> None:
    close = np.array([[1.0, 1.0], [1.001, 1.0]], np.float32)
    assert same(BOX, "auto", *close) == [0, 0], "few real numbers: a grid"
    assert same(BOX, "exact", *close) == [0, 1]
    wide = spaces.Box(-1.0, 1.0, (100,), np.float32)
    assert same(wide, "auto", *np.eye(100, dtype=np.float32)[:50]) == list(range(50)), "one-hot states stay apart"
    point = np.random.default_rng(0).normal(size=100).astype(np.float32)
    assert same(wide, "auto", point, point + 1e-4) == [0, 0], "many real numbers: a hash"
    grid = spaces.Box(0, 255, (7, 7, 3), np.uint8)
    one = np.zeros((7, 7, 3), np.uint8)
    other = one.copy()
    other[3, 3, 0] = 1
    assert same(grid, "auto", one, other, one) == [0, 1, 0], "small pictures: exact"
    picture = spaces.Box(0, 255, (84, 84, 1), np.uint8)
    image = np.random.default_rng(0).integers(0, 255, (84, 84, 1)).astype(np.uint8)
    flipped = image.copy()
    flipped[0, 0, 0] ^= 1
    assert same(picture, "auto", image, flipped) == [0, 0], "large ones: a hash"


def room(state: Any) -> Any:
    return int(state[0] > 0), "room"


def parts_of(state: Any) -> Any:
    return tuple(int(number) for number in state["where"])


def lost(state: Any) -> Any:
    return {"room": 1}


def broken(state: Any) -> Any:
    raise KeyError("room")


def test_a_function_of_ones_own() -> None:
    states = np.array([[1, 2], [3, 4], [-1, 2]], np.float32)
    assert same(BOX, "tests.test_curiosity:room", *states) == [0, 0, 2]
    space = spaces.Dict({"where": spaces.Box(0, 9, (2,), np.float32), "noise": spaces.Box(0, 1, (1,), np.float32)})
    packing = Packing(space, "test")
    rows = [
        packing.read({"where": np.array(where, np.float32), "noise": np.array([noise], np.float32)})
        for where, noise in (([1, 2], 0.1), ([1, 2], 0.9), ([2, 2], 0.1))
    ]
    assert same(packing.space, "tests.test_curiosity:parts_of", *rows) == [0, 0, 2]


@pytest.mark.parametrize(
    ("space", "way", "says"),
    [
        (
            BOX,
            "tests.test_curiosity:lost",
            r"bonus_states 'tests.test_curiosity:lost' returned {'room': 1}: needs text",
        ),
        (BOX, "tests.test_curiosity:broken", "bonus_states 'tests.test_curiosity:broken': 'room'"),
        (BOX, "tests.test_curiosity:BOX", "is a Box: needs a function of a state"),
        (BOX, "tests.test_curiosity:roam", "there is no 'roam' in 'tests.test_curiosity'; did you mean room"),
        (spaces.Box(0, 255, (2,), np.uint8), "grid", "has no real numbers to cut up; use exact or hash"),
    ],
)
def test_a_way_that_cannot_be_is_one_line(space: Any, way: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        keys_for(space, way, 20, np.random.default_rng(0))(np.zeros((2, 2), space.dtype))


# Runs.


class Cells(gym.Env[Any, Any]):
    """A square of nine cells by nine; the far corner pays 1 and ends the episode, a limit of thirty steps cuts it."""

    observation_space = spaces.Box(0.0, 8.0, (2,), np.float32)
    action_space = spaces.Discrete(4)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.place, self.time = np.zeros(2), 0
        return self.place.astype(np.float32), {}

    def step(self, action: Any) -> Any:
        self.place = np.clip(self.place + ((1, 0), (0, 1), (-1, 0), (0, -1))[int(action)], 0, 8)
        self.time += 1
        ended = bool(self.place.sum() == 16)
        return self.place.astype(np.float32), float(ended), ended, self.time == 30 and not ended, {}


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
    "bonus_scale": 0.5,
    "log_every": "250 steps",
}
KINDS = ["counts", "episodic-counts", "rnd", "icm"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_with_a_bonus_resumes_exactly_and_reports_plain_returns(kind: str, tmp_path: Any) -> None:
    config = TrainConfig.from_mapping({**SHORT, "bonus": kind, "prioritized": kind in ("counts", "rnd")})
    whole = nexus.train(Cells, config=config, run_dir=tmp_path / "whole", listener=Silent())
    broken_off = tmp_path / "broken"
    interrupted(lambda: nexus.train(Cells, config=config, run_dir=broken_off, listener=Silent(701, interrupt)))
    nexus.resume(broken_off, env=Cells, listener=Silent())
    assert differences(whole.run_dir, broken_off, Cells) == []
    lines = (whole.run_dir / "episodes.csv").read_text().splitlines()
    place = lines[0].split(",").index("return")
    assert {float(line.split(",")[place]) for line in lines[1:]} <= {0.0, 1.0}
    logged = [json.loads(line) for line in (broken_off / "metrics.jsonl").read_text().splitlines()]
    assert all(0 < line["replay/bonus"] < 5 for line in logged if "replay/size" in line and line["step"] > 60)
    assert any("replay/bonus" in line for line in logged)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [1, 3])
def test_a_bonus_reaches_the_target(kind: str, n: int, tmp_path: Any) -> None:
    """From the same seed, up to the first update: the same rows, other targets."""
    targets = []
    for bonus in (kind, None):
        batches: list[dict[str, Any]] = []
        own = {**SHORT, "total_steps": 60, "bonus": bonus, "n_step": n, "checkpoint_every": None}
        nexus.train(
            Cells, config=TrainConfig.from_mapping(own), run_dir=tmp_path / f"{bonus}", listener=Batches(batches)
        )
        targets.append(batches[0])
    with_bonus, without = targets
    assert "bonuses" not in without
    assert (with_bonus["bonuses"] > 0).all()
    if n == 1:
        assert torch.equal(with_bonus["indices"], without["indices"])
        assert torch.allclose(with_bonus["rewards"], without["rewards"] + with_bonus["bonuses"])
        assert torch.equal(with_bonus["next_states"], without["next_states"])
    else:  # rewards are all 0 but for bonuses, of which a window has three
        assert (with_bonus["rewards"] >= with_bonus["bonuses"] - 1e-6).all()
        assert (with_bonus["rewards"] > 1.5 * with_bonus["bonuses"]).float().mean() > 0.5


class Batches(Silent):
    """Keeps the batches that were learned from."""

    def __init__(self, batches: list[dict[str, Any]]) -> None:
        super().__init__()
        self.batches = batches

    def on_step(self, progress: Any, episodes: Any) -> None:
        if progress.batch is not None:
            self.batches.append(dict(progress.batch))


def test_the_settings_of_a_bonus_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"bonus = 'count': needs one of counts, episodic-counts, rnd, icm"):
        TrainConfig.from_mapping({"bonus": "count"})
    with pytest.raises(ConfigError, match=r"bonus_scale = 0.0: needs above 0"):
        TrainConfig.from_mapping({"bonus": "rnd", "bonus_scale": 0})
    with pytest.raises(ConfigError, match=r"bonus = 'rnd': needs none with pqn: it keeps no replay to add it to"):
        TrainConfig.from_mapping({"algorithm": "pqn", "trace_lambda": 0.5, "bonus": "rnd"})


@pytest.mark.parametrize("settings", [{"bonus": "counts"}, {"bonus": "rnd", "bonus_scale": 3.0}, {}])
def test_the_doctor_finds_no_fault_in_rewards_that_change(settings: Any, tmp_path: Any) -> None:
    """At the end of a run that is long enough to be judged, what it has learned from is not called mixed up."""
    own = {**SHORT, "total_steps": 6_000, "log_every": "200 steps", "checkpoint_every": None, **settings}
    result = nexus.train(Cells, config=TrainConfig.from_mapping(own), run_dir=tmp_path / "run", listener=Silent())
    found = nexus.diagnose(result.run_dir)
    wrong = {"batch", "divergence", "target", "transitions", "fit", "overestimation", "output", "terminals"}
    assert found.names & wrong == set()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["counts", "rnd"])
def test_a_bonus_finds_the_treasure_of_deep_sea_and_plain_play_does_not(kind: str, tmp_path: Any) -> None:
    """Ten rows, 1,000 episodes at most, two seeds: a random episode finds it once in 1,024."""
    own: dict[str, Any] = {"total_steps": 10_000, "learning_starts": 100, "update_every": "1 steps", "batch_size": 32}
    own |= {"hidden_dim": 64, "double": True, "learning_rate": 1e-3, "epsilon": 0.05, "epsilon_min": 0.05, "n_step": 3}
    own |= {"eval_every": "500 steps", "eval_episodes": 1, "target_return": 0.9, "checkpoint_every": None, "threads": 1}
    scale = {"counts": 0.1, "rnd": 0.05}[kind]
    scores: dict[str | None, list[bool]] = {kind: [], None: []}
    for bonus, found in scores.items():
        for seed in range(2):
            given = {**own, "bonus": bonus, "bonus_scale": scale, "seed": seed, "env_kwargs": {"size": 10}}
            config = TrainConfig.from_mapping({**given, "doctor": "off"})
            folder = tmp_path / f"{bonus} {seed}"
            result = nexus.train("nexus/DeepSea-v0", config=config, run_dir=folder, listener=Silent())
            found.append(result.reached_target)
    assert sum(scores[kind]) >= {"counts": 2, "rnd": 1}[kind]
    assert scores[None] == [False, False]
