"""What the maker of an environment is told: as flags, in Python, in files, in protocols and pictures."""

import json
import shutil
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.classic_control import CartPoleEnv

import nexus
from nexus.api import env_of_run, load_agent
from nexus.cli.main import main
from nexus.cli.parsing import read_keyword
from nexus.cli.train import read_command
from nexus.core.errors import ConfigError, RunError
from nexus.envs.factory import make_env
from nexus.listener import Listener
from nexus.training import curves
from nexus.training.config import TrainConfig, kwargs_for
from nexus.training.files import write_json

LAKE: dict[str, Any] = {"is_slippery": False, "map_name": "8x8"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("x=False", False),
        ("x=false", False),
        ("x=8x8", "8x8"),
        ("x=8", 8),
        ("x=1e3", 1000.0),
        ("x=none", None),
        ("x=None", None),
        ("x=null", None),
        ("x='none'", "none"),
        ('x="8"', "8"),
        ("x=a=b", "a=b"),
        ("x=", ""),
        ("x=(1, 2.5)", [1, 2.5]),
        ('x={"a": [1, {"b": null}]}', {"a": [1, {"b": None}]}),
        ("x=NaN", "NaN"),
        ("x={1: 2}", "{1: 2}"),
        ("x=" + "[" * 5000, "[" * 5000),
    ],
)
def test_values_are_read_as_json_or_python_and_else_are_text(text: str, value: Any) -> None:
    assert read_keyword(text) == ("x", value)


@pytest.mark.parametrize("text", ["x", "=3", "8x=3", "is slippery=3"])
def test_what_is_no_keyword_argument_is_said_with_one_that_is(text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read_command(["FrozenLake-v1", "--env-kwargs", text])
    assert f"--env-kwargs: {text!r} is not a keyword argument; needs name=value, as in is_slippery=False" in str(
        refused.value
    )


def test_the_flag_takes_several_and_ends_at_the_next_one() -> None:
    words = ["FrozenLake-v1", "--env-kwargs", "is_slippery=False", "map_name=8x8", "--seed", "3"]
    config = read_command(words).config
    assert (config.env_kwargs, config.seed) == (LAKE, 3)
    assert read_command(["FrozenLake-v1", "--env_kwargs=map_name=8x8"]).config.env_kwargs == {"map_name": "8x8"}
    assert read_command(["FrozenLake-v1"]).config.env_kwargs == {}


def test_a_config_holds_what_json_can() -> None:
    given = {"size": np.int64(3), "p": np.float32(0.5), "at": (1, 2), "deep": {"x": [np.bool_(True)]}}
    config = TrainConfig.from_mapping({"env_kwargs": given})
    assert config.env_kwargs == {"size": 3, "p": 0.5, "at": [1, 2], "deep": {"x": [True]}}
    assert TrainConfig.from_mapping(json.loads(json.dumps(config.to_mapping()))) == config
    assert {config: 1}[TrainConfig(env_kwargs=given)] == 1
    for wrong in ({"f": len}, {"x": float("nan")}, {"x": {"y": np.zeros(2)}}, {3: 1}, ["a"], "a=1", None):
        with pytest.raises(ConfigError, match="env_kwargs"):
            TrainConfig.from_mapping({"env_kwargs": wrong})


def test_who_takes_none_says_so() -> None:
    with pytest.raises(ConfigError, match=r"env_kwargs = {'mode': 1}: ALE/Pong-v5 is made by its protocol: leave them"):
        kwargs_for("ALE/Pong-v5", {"mode": 1})
    with pytest.raises(ConfigError, match=r"env_kwargs = {'mode': 1}: make is a function: set them in it"):
        kwargs_for(make, {"mode": 1})
    assert kwargs_for(make, {}) == ()


def make() -> Any:
    """Never called."""


@pytest.mark.parametrize(
    ("env", "word", "says"),
    [
        ("FrozenLake-v1", "is_slipery", "it has no argument 'is_slipery'; did you mean is_slippery?"),
        ("CartPole-v1", "zzz", "it has no argument 'zzz'; it has sutton_barto_reward, render_mode"),
        ("tests.test_env_kwargs:Open-v0", "zzz", "Open takes no 'zzz'"),  # it would take any name
        ("FrozenLake-v1", "map_name", "'3x3'"),  # a wrong value
    ],
)
def test_an_unknown_one_is_named_with_the_nearest(env: str, word: str, says: str) -> None:
    spec = TrainConfig(env_kwargs={word: "3x3"}).spec_of(env)
    with pytest.raises(ConfigError) as refused:
        make_env(spec)
    assert str(refused.value).startswith(f"environment {env!r} can't be made: {says}")


class Open(CartPoleEnv):
    """Takes any argument, and then not."""

    def __init__(self, **given: Any) -> None:
        unknown = given.keys() - {"render_mode"}
        if unknown:
            raise TypeError(f"Open takes no {unknown.pop()!r}")
        super().__init__(**given)


gym.register("Open-v0", entry_point="tests.test_env_kwargs:Open", max_episode_steps=20)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a lake that does not slip."""
    folder = tmp_path_factory.mktemp("lake") / "run"
    settings: dict[str, Any] = {"total_steps": 1200, "hidden_dim": 16, "eval_episodes": 2}
    nexus.train("FrozenLake-v1", run_dir=folder, **settings)
    about = json.loads((folder / "run.json").read_text())
    about["config"]["env_kwargs"] = {"is_slippery": False}
    write_json(folder / "run.json", about)
    return folder


def test_a_run_is_evaluated_where_it_was_trained(run: Path) -> None:
    own = nexus.evaluate(run, episodes=4)
    assert own.protocol.env_kwargs == {"is_slippery": False}
    assert str(own.protocol).endswith("seed 0, is_slippery=False")
    assert len(set(own.returns)) == 1  # nothing slips, so all episodes are the same
    assert nexus.evaluate(load_agent(run), episodes=4) == own
    other = nexus.evaluate(run, episodes=4, env_kwargs={"is_slippery": True})
    assert str(other.protocol).endswith("seed 0, is_slippery=True")
    assert nexus.evaluate(run, episodes=4, env_kwargs={}).protocol.env_kwargs == {}
    assert type(other).from_mapping(json.loads(json.dumps(other.to_mapping()))) == other


def test_another_environment_goes_without_them_and_that_is_said(run: Path) -> None:
    agent = load_agent(run)
    with pytest.warns(RuntimeWarning, match="trained on FrozenLake-v1; playing own_lake without the env_kwargs"):
        score = nexus.evaluate(agent, own_lake, 2)
    assert score.protocol.env_kwargs == {}
    assert env_of_run(run, "FrozenLake-v1").kwargs == (("is_slippery", False),)


def own_lake() -> Any:
    import gymnasium as gym

    return gym.make("FrozenLake-v1")


def test_the_command_line_passes_them_on(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["evaluate", str(run), "--episodes", "2"]) == 0
    assert "seed 0, is_slippery=False\n" in capsys.readouterr().out
    assert main(["evaluate", str(run), "--episodes", "2", "--env-kwargs", "is_slippery=True"]) == 0
    assert "seed 0, is_slippery=True\n" in capsys.readouterr().out
    assert main(["evaluate", str(run), "--episodes", "2", "--env-kwargs", "is_slipery=True"]) == 2
    assert "is_slipery" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [["a"], "a", {"x": None}, 3])
def test_a_run_whose_keywords_are_none_is_damaged(wrong: Any, run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    about = json.loads((copy / "run.json").read_text())
    about["config"]["env_kwargs"] = wrong
    write_json(copy / "run.json", about)
    kind = ConfigError if isinstance(wrong, dict) else RunError
    with pytest.raises(
        kind, match="FrozenLake-v1" if isinstance(wrong, dict) else "a config that can't be used: env_kwargs"
    ):
        nexus.evaluate(copy, episodes=2, listener=Listener())


def test_runs_of_environments_made_otherwise_get_a_panel_each(run: Path, tmp_path: Path) -> None:
    from nexus.cli.plot import draw

    plain, old = (Path(shutil.copytree(run, tmp_path / name)) for name in ("plain", "old"))
    for folder in (plain, old):
        about = json.loads((folder / "run.json").read_text())
        about["config"]["env_kwargs"] = {}
        if folder is old:  # from before there was the setting
            about["config"] |= {"seed": 1}
            del about["config"]["env_kwargs"], about["config"]["eval_max_steps"]
        write_json(folder / "run.json", about)
    figure = draw(curves.read_runs([str(run), str(plain), str(old)]), "steps", 5)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["FrozenLake-v1, is_slippery=False", "FrozenLake-v1"]
    assert len(curves.same_settings(curves.read_runs([str(plain), str(old)]))) == 1
