"""An agent knows how it saw the environment that it was trained on, and is evaluated in it so."""

import json
import shutil
from copy import deepcopy
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

import nexus
from nexus.core.errors import ConfigError, NexusError, RunError
from nexus.listener import Listener, TrainResult
from nexus.training.files import write_json

SETTINGS: dict[str, Any] = {
    "total_steps": 300,
    "num_envs": 2,
    "learning_starts": 64,
    "hidden_dim": 8,
    "eval_every": None,
    "target_return": None,
    "eval_episodes": 2,
    "scale_observations": False,
    "frame_skip": 3,
    "frame_stack": 2,
}


def pole() -> Any:
    return gym.make("CartPole-v1")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    return nexus.train("CartPole-v1", run_dir=tmp_path_factory.mktemp("seen") / "run", **SETTINGS)


@pytest.fixture(scope="module")
def on_function(tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    settings = SETTINGS | {"seed": 3}
    return nexus.train(pole, run_dir=tmp_path_factory.mktemp("seen") / "run", **settings)


def test_an_agent_a_result_and_a_folder_are_evaluated_alike(trained: TrainResult) -> None:
    score = nexus.evaluate(trained.run_dir, episodes=5)
    assert (score.protocol.frame_skip, score.protocol.frame_stack) == (3, 2)
    loaded = nexus.load_agent(trained.run_dir)
    for agent in (trained, trained.agent, loaded, deepcopy(trained.agent)):
        assert nexus.evaluate(agent, episodes=5) == score
        assert nexus.evaluate(agent, "CartPole-v1", 5) == score


def test_so_is_one_that_went_further(trained: TrainResult, tmp_path: Path) -> None:
    copy = shutil.copytree(trained.run_dir, tmp_path / "copy")
    with pytest.warns(RuntimeWarning, match="the learning rate goes"):
        resumed = nexus.resume(copy, total_steps=320)
    assert nexus.evaluate(resumed, episodes=5) == nexus.evaluate(copy, episodes=5)


def test_an_agent_that_was_trained_on_a_function_is_evaluated_on_it(on_function: TrainResult) -> None:
    score = nexus.evaluate(on_function, episodes=5)
    assert (score.protocol.env, score.protocol.frame_skip) == ("pole", 3)
    assert nexus.evaluate(on_function.run_dir, pole, 5) == score
    loaded = nexus.load_agent(on_function.run_dir)
    assert nexus.evaluate(loaded, pole, 5) == score
    for lost in (loaded, on_function.run_dir):
        with pytest.raises(
            RunError, match="was trained on the function pole, which a folder can't store: pass env=, or use module:Id"
        ):
            nexus.evaluate(lost, episodes=5)


def test_another_environment_is_wrapped_alike_and_that_is_said(trained: TrainResult) -> None:
    for given in (trained, trained.run_dir):
        with pytest.warns(
            RuntimeWarning,
            match="^the agent was trained on CartPole-v1; playing pole with frame_skip = 3, frame_stack = 2 as ",
        ) as caught:
            score = nexus.evaluate(given, pole, 2)
        assert caught[0].filename == __file__  # the user's line, not one of ours
        assert (score.protocol.env, score.protocol.frame_skip, score.protocol.frame_stack) == ("pole", 3, 2)
    with pytest.warns(RuntimeWarning, match="playing Acrobot-v1"), pytest.raises(ConfigError, match="made for"):
        nexus.evaluate(trained, "Acrobot-v1", 2)


def test_nothing_is_said_where_nothing_is_carried_over(tmp_path: Path) -> None:
    plain = nexus.train("CartPole-v1", run_dir=tmp_path / "run", **(SETTINGS | {"frame_skip": 1, "frame_stack": 1}))
    assert nexus.evaluate(plain, pole, 2).protocol.env == "pole"


def test_an_agent_of_ones_own_needs_its_environment() -> None:
    agent = nexus.DQNAgent({"state_dim": 4, "action_dim": 2})
    with pytest.raises(ConfigError, match="evaluating this agent needs env=: an id or a function"):
        nexus.evaluate(agent)
    assert nexus.evaluate(agent, "CartPole-v1", 2).protocol.frame_skip == 1


def test_a_run_that_names_its_own_module_gives_weights_and_no_environment(trained: TrainResult, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(trained.run_dir, tmp_path / "brought_run"))
    (copy / "brought.py").write_text(f"open({str(tmp_path / 'witness')!r}, 'w').close()\n")
    about = json.loads((copy / "run.json").read_text())
    write_json(copy / "run.json", {**about, "env": "brought_run.brought:CartPole-v1"})
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        agent = nexus.load_agent(copy)
        for given in (agent, copy):
            with pytest.raises(NexusError):
                nexus.evaluate(given)
    assert not (tmp_path / "witness").exists()


def test_a_listener_hears_of_it_in_place_of_a_warning(trained: TrainResult, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    listener = Listener()
    monkeypatch.setattr(listener, "on_notice", said.append)
    nexus.evaluate(trained, pole, 2, listener=listener)
    assert len(said) == 1
