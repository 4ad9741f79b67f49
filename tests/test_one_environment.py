"""Where only one environment can be, it is trained on and evaluated in, and the training goes on as if alone in it."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

import nexus
from nexus import parts
from nexus.planning import plan
from tests.chaos import Silent, differences

ASYNC = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # how Linux starts processes before 3.14
RUN: dict[str, Any] = {
    "num_envs": 1,
    "total_steps": 600,
    "learning_starts": 60,
    "batch_size": 16,
    "hidden_dim": 16,
    "eval_every": "100 steps",
    "eval_episodes": 7,
    "checkpoint_every": "150 steps",
    "n_step": 3,
    "threads": 1,
}


class Walk(gym.Env[Any, Any]):
    """A random walk of 13 steps that the seed decides; pays where it is. `alive` counts those that are."""

    observation_space = spaces.Box(-60, 60, (2,), np.float32)
    action_space = spaces.Discrete(3)
    alive = most = 0
    limit = 10**6
    repeats = True

    def __init__(self) -> None:
        kind = type(self)
        if kind.alive >= kind.limit:
            raise RuntimeError("there can be only one")
        kind.alive += 1
        kind.most = max(kind.most, kind.alive)
        self.begun = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.at, self.t, self.begun = 0.0, 0, self.begun + 1
        return self.look(), {}

    def look(self) -> Any:
        return np.array([self.at, self.t if self.repeats else self.begun], np.float32)

    def step(self, action: Any) -> Any:
        self.t += 1
        self.at += float(self.np_random.normal()) + int(action) - 1
        return self.look(), self.at, False, self.t == 13, {}

    def close(self) -> None:
        type(self).alive -= 1


class Told(nexus.Listener):
    def __init__(self) -> None:
        self.notices: list[str] = []

    def on_notice(self, text: str) -> None:
        self.notices.append(text)


@pytest.fixture
def walk() -> type[Walk]:
    return type("Walk", (Walk,), {})


def trained(make: Any, folder: Path, listener: nexus.Listener | None = None, **settings: Any) -> Any:
    return nexus.train(make, run_dir=folder, listener=listener or Silent(), **{**RUN, **settings})


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"vectorization": "async"},
        {"actor_sync_every": "60 steps"},
        {"algorithm": "rainbow", "frame_stack": 2},
        {"algorithm": "pqn", "rollout_steps": 32, "n_step": 1, "learning_starts": 32},
    ],
)
@ASYNC
def test_only_one_is_ever_alive_and_all_comes_out_as_with_others(
    walk: type[Walk], settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    walk.limit = 1
    one = trained(walk, tmp_path / "one", **settings)
    assert (walk.most, walk.alive) == (1, 0)
    walk.limit = 10**6
    monkeypatch.setattr(parts, "allows_several", lambda spec: True)
    many = trained(walk, tmp_path / "many", **settings)
    assert walk.most == (1 if settings.get("vectorization") == "async" else 7 + 1)
    assert one.evaluation.returns == many.evaluation.returns
    assert differences(tmp_path / "one", tmp_path / "many", walk) == []


def test_one_object_is_enough(walk: type[Walk], tmp_path: Path) -> None:
    env = walk()
    one, fresh = trained(lambda: env, tmp_path / "one"), trained(walk, tmp_path / "fresh")
    assert one.evaluation.returns == fresh.evaluation.returns
    again = [nexus.evaluate(run.run_dir, make, 7) for run, make in ((one, lambda: env), (fresh, walk))]
    assert again[0].returns == again[1].returns


def test_what_does_not_repeat_itself_is_said_once(walk: type[Walk], tmp_path: Path) -> None:
    walk.repeats, told = False, Told()
    trained(walk, tmp_path / "one", told)
    (said,) = [text for text in told.notices if "repeat" in text]
    assert said == (
        "Walk does not repeat an episode from its seed and actions: with one environment for both, each evaluation "
        "ends the current training episode"
    )


def test_a_plan_needs_no_second_one_either(walk: type[Walk], tmp_path: Path) -> None:
    walk.limit = 1
    found = plan(walk, run_dir=tmp_path / "run", probe_seconds=1.0, **RUN)
    assert found.time.evaluating > 0
    assert walk.alive == 0


class Masked(Walk):
    def action_masks(self) -> Any:
        return np.ones(3)


def test_notices_of_an_environment_are_told_once(tmp_path: Path) -> None:
    told, text = Told(), "Masked: takes the legal actions from its action_masks()"
    run = trained(Masked, tmp_path / "one", told, num_envs=3)
    assert told.notices.count(text) == 1
    nexus.evaluate(run.run_dir, Masked, 3, listener=told)
    assert told.notices.count(text) == 2
