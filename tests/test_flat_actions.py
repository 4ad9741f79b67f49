"""Several discrete actions as one: which number stands for which, and what is refused."""

import itertools
import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

import nexus
from nexus.cli.main import main
from nexus.core.errors import ConfigError, RunError
from nexus.core.types import Array
from nexus.envs.factory import EnvSpec, make_env
from nexus.envs.flat_actions import FlatActions
from nexus.training.files import write_json
from tests.chaos import Silent, differences, interrupt, interrupted
from tests.structured import Levers, Switches

SETTINGS: dict[str, Any] = {
    "flatten_actions": True,
    "total_steps": 2_000,
    "num_envs": 4,
    "learning_starts": 100,
    "update_every": "4 steps",
    "hidden_dim": 32,
    "learning_rate": 0.003,
    "gamma": 0.5,
    "epsilon_steps": 600,
    "epsilon_min": 0.1,
    "target_update_every": "20 updates",
    "eval_episodes": 20,
    "device": "cpu",
    "threads": 1,
}


class Recording(gym.Env[Any, Any]):
    """Keeps what it was told to do."""

    observation_space = spaces.Box(0, 1, (1,), np.float32)

    def __init__(self, actions: spaces.Space[Any], mask: Any = None) -> None:
        self.action_space, self.told = actions, list[Array]()
        self.info = {} if mask is None else {"action_mask": mask}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        return np.zeros(1, np.float32), self.info

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action)
        self.told.append(action)
        return np.zeros(1, np.float32), 0.0, False, False, self.info


def told(actions: spaces.Space[Any]) -> list[Any]:
    """What the environment is told for each number, in their order."""
    inner = Recording(actions)
    env = make_env(EnvSpec(lambda: inner, flatten_actions=True))
    assert isinstance(env.action_space, spaces.Discrete)
    env.reset()
    for number in range(int(env.action_space.n)):
        env.step(np.int64(number))
    return [action.tolist() for action in inner.told]


# --- by hand ---


def test_the_last_entry_changes_fastest() -> None:
    assert told(spaces.MultiDiscrete([2, 3])) == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]
    assert told(spaces.MultiDiscrete([2, 2], start=[5, -1])) == [[5, -1], [5, 0], [6, -1], [6, 0]]
    assert told(spaces.MultiBinary(2)) == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert told(spaces.MultiDiscrete(np.array([[2], [2]]))) == [[[0], [0]], [[0], [1]], [[1], [0]], [[1], [1]]]
    assert told(spaces.MultiBinary((1, 2))) == [[[0, 0]], [[0, 1]], [[1, 0]], [[1, 1]]]
    assert told(spaces.MultiDiscrete([3, 2, 4])) == list(map(list, itertools.product(range(3), range(2), range(4))))


def test_a_user_turns_a_number_into_the_action() -> None:
    env = nexus.FlatActions(Levers())
    assert env.action_space == spaces.Discrete(6)
    assert env.action(5).tolist() == [1, 1]
    assert env.action(np.array(3)).tolist() == [1, -1]
    env.action(5)[:] = 0  # is an array of its own
    assert env.action(5).tolist() == [1, 1]
    env.reset(seed=0)
    assert env.step(0)[1] in (0.0, 0.25)


def test_a_mask_has_an_entry_for_each_combination() -> None:
    mask = np.array([1, 0, 0, 1, 1, 1])
    env = make_env(EnvSpec(partial(Recording, spaces.MultiDiscrete([2, 3]), mask), flatten_actions=True))
    assert env.reset()[1]["action_mask"].tolist() == mask.astype(bool).tolist()


def test_as_many_as_a_thousand_and_twenty_four_are_numbered() -> None:
    env = FlatActions(Recording(spaces.MultiBinary(10)))
    assert env.action_space == spaces.Discrete(1_024)
    assert env.action(1_023).tolist() == [1] * 10
    assert env.action(512).tolist() == [1] + [0] * 9


# --- what is refused, and what needs nothing ---


@pytest.mark.parametrize(
    ("actions", "flatten", "text"),
    [
        (
            spaces.MultiDiscrete([3, 4]),
            False,
            "partial has actions MultiDiscrete([3 4]): DQN needs one Discrete action space; --flatten-actions "
            "(flatten_actions=True) numbers their 12 combinations",
        ),
        (
            spaces.MultiBinary(10),
            False,
            "partial has actions MultiBinary(10): DQN needs one Discrete action space; --flatten-actions "
            "(flatten_actions=True) numbers their 1,024 combinations",
        ),
        *(
            (
                spaces.MultiDiscrete([25, 41]),
                flatten,
                "partial has actions MultiDiscrete([25 41]): DQN needs one Discrete action space, and 1,025 "
                "combinations are too many to number: at most 1,024",
            )
            for flatten in (False, True)
        ),
        (
            spaces.MultiBinary(20_000),
            True,
            "partial has actions MultiBinary(20000): DQN needs one Discrete action space, and more than a billion "
            "combinations are too many to number: at most 1,024",
        ),
        (
            spaces.Box(-1, 1, (2,), np.float32),
            True,
            "partial has actions Box(-1.0, 1.0, (2,), float32): DQN needs one Discrete action space; for continuous "
            "actions use SAC, TD3 or PPO",
        ),
    ],
)
def test_actions_that_can_not_be_numbered_are_refused(actions: Any, flatten: bool, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_env(EnvSpec(partial(Recording, actions), flatten_actions=flatten))
    assert str(caught.value) == text


def test_the_wrapper_alone_refuses_what_has_no_combinations() -> None:
    with pytest.raises(ConfigError, match=r"^Recording has actions Discrete\(3\): needs MultiDiscrete or MultiBinary"):
        FlatActions(Recording(spaces.Discrete(3)))
    with pytest.raises(ConfigError, match=r"^Recording has actions MultiBinary\(11\): DQN needs .* 2,048 combinations"):
        FlatActions(Recording(spaces.MultiBinary(11)))


def test_one_discrete_action_stays_as_it_is() -> None:
    env = make_env(EnvSpec("CartPole-v1", flatten_actions=True))
    assert env.action_space == spaces.Discrete(2)


# --- runs ---


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> nexus.TrainResult:
    folder = tmp_path_factory.mktemp("levers") / "run"
    return nexus.train("tests.structured:Levers-v0", run_dir=folder, listener=Silent(), **SETTINGS)


def test_the_best_combinations_are_learned(trained: nexus.TrainResult) -> None:
    assert trained.evaluation is not None
    assert trained.evaluation.mean == 8.0
    env = nexus.FlatActions(Levers())
    for sign, right in Levers.right.items():
        number, _ = trained.agent.predict([float(sign)])
        assert tuple(env.action(number)) == right


def test_so_are_those_of_switches(tmp_path: Path) -> None:
    result = nexus.train(Switches, run_dir=tmp_path / "run", listener=Silent(), **SETTINGS)
    assert result.evaluation is not None
    assert result.evaluation.mean == 8.0


def test_a_run_knows_that_its_actions_are_numbered(trained: nexus.TrainResult, tmp_path: Path) -> None:
    for known in (trained, trained.run_dir, nexus.load_agent(trained.run_dir)):
        assert nexus.evaluate(known, episodes=2).mean == 8.0
    assert nexus.evaluate(trained, lambda: FlatActions(Levers()), 2, listener=Silent()).mean == 8.0
    with pytest.raises(ConfigError, match=r"Switches has states of shape \(1,\) and 4 actions: the agent was made for"):
        nexus.evaluate(trained, Switches, 2, listener=Silent())
    assert main(["evaluate", str(trained.run_dir), "--episodes", "2"]) == 0
    again = ["train", "--config", str(trained.run_dir), "--run-dir", str(tmp_path / "again"), "--total-steps", "200"]
    assert main(again) == 0


def test_a_run_that_does_not_tell_whether_they_are_is_refused(trained: nexus.TrainResult, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(trained.run_dir, tmp_path / "copy"))
    about = json.loads((copy / "run.json").read_text())
    write_json(copy / "run.json", {**about, "config": {**about["config"], "flatten_actions": 1}})
    with pytest.raises(RunError, match=r"run\.json .*(was wrapped|flatten_actions = 1)"):
        nexus.evaluate(copy, episodes=2)


def test_the_command_line_takes_the_flag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny = [
        "--total-steps",
        "200",
        "--learning-starts",
        "40",
        "--eval-episodes",
        "2",
        "--run-dir",
        str(tmp_path / "run"),
    ]
    assert main(["train", "tests.structured:Levers-v0", *tiny]) == 2
    assert "--flatten-actions (flatten_actions=True) numbers their 6 combinations" in capsys.readouterr().err
    assert main(["train", "tests.structured:Levers-v0", "--flatten-actions", *tiny]) == 0
    assert "6 actions" in capsys.readouterr().out


def test_a_run_that_was_broken_goes_on_bit_for_bit(tmp_path: Path) -> None:
    values = SETTINGS | {"total_steps": 300, "checkpoint_every": "60 steps", "log_every": "30 steps", "num_envs": 2}
    nexus.train(Levers, run_dir=tmp_path / "whole", listener=Silent(), **values)
    interrupted(lambda: nexus.train(Levers, run_dir=tmp_path / "broken", listener=Silent(157, interrupt), **values))
    nexus.resume(tmp_path / "broken", env=Levers, listener=Silent())
    assert differences(tmp_path / "whole", tmp_path / "broken", Levers) == []
