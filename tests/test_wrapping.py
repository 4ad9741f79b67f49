"""Wrappers by name: as flags, in Python, in files, around every environment that a run makes."""

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import NormalizeReward, TransformReward

import nexus
from nexus.api import env_of_run, load_agent
from nexus.cli.main import main
from nexus.cli.train import read_command
from nexus.core.errors import ConfigError, RunError
from nexus.core.importable import import_names, import_object
from nexus.envs.factory import EnvSpec, allows_several, make_env, make_vector_env
from nexus.training import curves
from nexus.training.config import TrainConfig
from nexus.training.files import read_json, write_json
from tests.chaos import Silent

ASYNC = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # how Linux starts processes before 3.14
TINY: dict[str, Any] = {
    "total_steps": 300,
    "num_envs": 2,
    "learning_starts": 64,
    "hidden_dim": 8,
    "eval_episodes": 3,
    "target_return": None,
    "eval_every": None,
}


class Ones(gym.Env[Any, Any]):
    """Three steps, each with a reward of 1."""

    observation_space = gym.spaces.Box(0, 9, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        return np.full(2, self.t, np.float32), 1.0, self.t == 3, False, {}


class PlusOne(gym.RewardWrapper[Any, Any]):
    def reward(self, reward: Any) -> Any:
        return reward + 1


def times_ten(env: Any) -> Any:
    return TransformReward(env, lambda reward: 10 * float(reward))


class Outer:
    class Inner(PlusOne):
        """Found by a name with a dot."""


def nothing(env: Any) -> None:
    """Forgets its environment."""


def broken(env: Any) -> Any:
    raise RuntimeError("no robot\nis there")


NAMES = ("tests.test_wrapping:PlusOne", "tests.test_wrapping:times_ten")


# --- names ---


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("a:B", ("a:B",)),
        (" a.b:C , d:e.f ,", ("a.b:C", "d:e.f")),
        ("none", ()),
        ("", ()),
        ([], ()),
        (["a:B", NormalizeReward], ("a:B", "gymnasium.wrappers:NormalizeReward")),
        (PlusOne, ("tests.test_wrapping:PlusOne",)),
        ((times_ten, Outer.Inner), ("tests.test_wrapping:times_ten", "tests.test_wrapping:Outer.Inner")),
    ],
)
def test_names_classes_and_functions_are_taken(given: Any, names: tuple[str, ...]) -> None:
    assert import_names("wrappers", given) == names
    config = TrainConfig.from_mapping({"wrappers": given})
    assert config.wrappers == names
    assert json.loads(json.dumps(config.to_mapping()))["wrappers"] == list(names)
    assert TrainConfig.from_mapping(json.loads(json.dumps(config.to_mapping()))) == config
    assert hash(config) == hash(TrainConfig.from_mapping({"wrappers": names}))


def local() -> Any:
    class Local(PlusOne):
        """Gone with its function."""

    return Local


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("gymnasium.wrappers.NormalizeReward", "did you mean gymnasium.wrappers:NormalizeReward"),
        ("NormalizeReward", "needs module:Name, as in gymnasium.wrappers:NormalizeReward"),
        ("a:b:c", "wrappers has 'a:b:c': needs module:Name, as in"),
        ([3], "wrappers has 3: needs module:Name"),
        (3, "wrappers = 3: needs names as in gymnasium.wrappers:NormalizeReward, classes or functions, in a list"),
        ([lambda env: env], "wrappers has <lambda>, which can't be imported by its name"),
        ([local()], r"wrappers has local\.<locals>\.Local, which can't be imported by its name: needs a class or"),
    ],
)
def test_what_is_no_name_is_said(given: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        TrainConfig.from_mapping({"wrappers": given})


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (
            "nosuch.module:X",
            "^wrapper 'nosuch.module:X': can't import module 'nosuch.module': No module named 'nosuch'$",
        ),
        (
            "gymnasium.wrappers:NormaliseReward",
            "^wrapper 'gymnasium.wrappers:NormaliseReward': there is no 'NormaliseReward' in 'gymnasium.wrappers'; did "
            "you mean NormalizeReward, ",
        ),
        ("tests.test_wrapping:Outer.Innner", "there is no 'Innner' in 'tests.test_wrapping'; did you mean Inner"),
        ("__main__:Mine", "there is no 'Mine' in the running program; put it into a separate module"),
        ("math:pi", "^wrapper 'math:pi' is a float: needs a class or function that takes an environment$"),
        (
            "gymnasium.wrappers:TimeLimit",
            "^wrapper 'gymnasium.wrappers:TimeLimit' around Ones: .* missing 1 required positional argument: "
            r"'max_episode_steps'; write a function .* and returns TimeLimit\(env, ...\)$",
        ),
        ("tests.test_wrapping:broken", "^wrapper 'tests.test_wrapping:broken' around Ones: no robot is there$"),
        (
            "tests.test_wrapping:nothing",
            "^wrapper 'tests.test_wrapping:nothing' around Ones returned NoneType: needs a gymnasium.Env; does it end ",
        ),
        ("builtins:id", "^wrapper 'builtins:id' around Ones returned int: needs a gymnasium.Env$"),
    ],
)
def test_a_wrapper_that_is_none_is_one_line(name: str, says: str) -> None:
    spec = EnvSpec(Ones, wrappers=(name,))
    makers: list[Any] = [lambda: make_env(spec), lambda: make_vector_env(spec, 2, "async")]
    for make in makers:
        with pytest.raises(ConfigError, match=says) as caught:
            make()
        assert "\n" not in str(caught.value)


def test_a_name_stands_for_the_very_object() -> None:
    assert import_object("tests.test_wrapping:Outer.Inner", "wrapper") is Outer.Inner


# --- around environments ---


@pytest.mark.parametrize(("wrappers", "reward"), [(NAMES, 20.0), (NAMES[::-1], 11.0), ((), 1.0)])
def test_the_first_is_the_innermost(wrappers: tuple[str, ...], reward: float) -> None:
    with closing(make_env(EnvSpec(Ones, wrappers=wrappers))) as env:
        env.reset(seed=0)
        assert env.step(0)[1] == reward


def test_a_vector_form_of_its_own_is_not_taken() -> None:
    with closing(make_vector_env(EnvSpec("CartPole-v1", wrappers=NAMES), 2)) as envs:
        envs.reset(seed=0)
        assert envs.step(np.zeros(2, int))[1].tolist() == [20.0, 20.0]


def test_games_take_none() -> None:
    with pytest.raises(
        ConfigError, match=r"wrappers .*:PlusOne, .*: ALE/Pong-v5 is made by its protocol; leave them out"
    ):
        EnvSpec("ALE/Pong-v5", wrappers=NAMES)


def test_only_wrappers_of_gymnasium_are_known_to_do_no_harm_twice() -> None:
    assert allows_several(EnvSpec("CartPole-v1", wrappers=("gymnasium.wrappers:NormalizeReward",)))
    assert not allows_several(EnvSpec("CartPole-v1", wrappers=NAMES))


# --- runs ---


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wrapped") / "run"
    nexus.train(Ones, run_dir=folder, wrappers=[PlusOne, times_ten], listener=Silent(), **TINY)
    return folder


@ASYNC
@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_a_run_is_trained_evaluated_and_resumed_in_them(vectorization: Any, tmp_path: Path) -> None:
    settings = {**TINY, "vectorization": vectorization}
    result = nexus.train(Ones, run_dir=tmp_path / "run", wrappers=",".join(NAMES), listener=Silent(), **settings)
    assert result.evaluation is not None
    assert result.evaluation.returns == [60.0] * 3
    assert result.evaluation.protocol.wrappers == NAMES
    assert str(result.evaluation.protocol).endswith(f", in {NAMES[0]}, {NAMES[1]}")
    rows = (tmp_path / "run" / "episodes.csv").read_text().splitlines()[1:]
    assert {float(row.split(",")[2]) for row in rows} == {60.0}
    again = nexus.resume(tmp_path / "run", env=Ones, total_steps=400, listener=Silent())
    assert again.evaluation is not None
    assert again.evaluation.returns == [60.0] * 3


def test_whoever_loads_the_run_plays_in_them(run: Path) -> None:
    agent = load_agent(run)
    for given in (run, agent):
        assert nexus.evaluate(given, Ones, 2).returns == [60.0] * 2
        assert nexus.evaluate(given, Ones, 2, wrappers=[]).returns == [3.0] * 2
        assert nexus.evaluate(given, Ones, 2, wrappers=[times_ten]).returns == [30.0] * 2
    score = nexus.evaluate(run, Ones, 2)
    assert type(score).from_mapping(json.loads(json.dumps(score.to_mapping()))) == score
    assert env_of_run(run, Ones).wrappers == NAMES


def other() -> Any:
    return Ones()


def test_another_environment_is_put_into_them_too_and_that_is_said(run: Path) -> None:
    says = f"the agent was trained on Ones; playing other with wrappers {NAMES[0]}, {NAMES[1]} as in training"
    with pytest.warns(RuntimeWarning, match=says):
        assert nexus.evaluate(run, other, 2).returns == [60.0] * 2
    assert nexus.evaluate(run, other, 2, wrappers=[]).returns == [3.0] * 2


@pytest.mark.parametrize("wrong", ["a", 3, ["a"], [None], {"a": 1}])
def test_a_run_whose_wrappers_are_no_names_is_damaged(wrong: Any, run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    about = read_json(copy / "run.json")
    about["config"]["wrappers"] = wrong
    write_json(copy / "run.json", about)
    with pytest.raises(RunError, match=r"a config that can't be used: wrappers"):
        nexus.evaluate(copy, Ones, 2)


def test_a_run_of_before_there_were_any_has_none(run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    about = read_json(copy / "run.json")
    del about["config"]["wrappers"]
    write_json(copy / "run.json", about)
    assert nexus.evaluate(copy, Ones, 2).returns == [3.0] * 2


def test_runs_in_other_wrappers_get_a_panel_each(run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    about = read_json(copy / "run.json")
    about["config"]["wrappers"] = []
    write_json(copy / "run.json", about)
    wrapped, plain = curves.read_runs([str(run), str(copy)])
    assert (wrapped.env, plain.env) == (f"Ones, in {NAMES[0]}, {NAMES[1]}", "Ones")


# --- the command line ---


MODULE = """
import gymnasium as gym
class Doubled(gym.RewardWrapper):
    def reward(self, reward):
        return 2 * reward
"""
WORDS = ["--total-steps=300", "--num-envs=2", "--learning-starts=64", "--hidden-dim=8", "--eval-episodes=2"]
WORDS += ["--target-return=none", "--eval-every=none"]


def test_the_flag_takes_names_with_commas() -> None:
    assert read_command(["FrozenLake-v1", "--wrappers", "a:B,c.d:e"]).config.wrappers == ("a:B", "c.d:e")
    assert read_command(["FrozenLake-v1", "--wrappers=a:B", "--seed", "3"]).config.wrappers == ("a:B",)
    assert read_command(["FrozenLake-v1", "--wrappers", "none"]).config.wrappers == ()
    assert read_command(["FrozenLake-v1"]).config.wrappers == ()
    with pytest.raises(ConfigError, match=r"--wrappers: .*did you mean gymnasium\.wrappers:NormalizeReward"):
        read_command(["FrozenLake-v1", "--wrappers", "gymnasium.wrappers.NormalizeReward"])


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with a module of one's own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_wrappers.py").write_text(MODULE)
    yield tmp_path
    forget()


def forget() -> None:
    """As a new process begins."""
    for name in [name for name in sys.modules if name.partition(".")[0] in ("own_wrappers", "brought", "run")]:
        del sys.modules[name]


def test_every_command_finds_them_in_the_current_folder(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = "own_wrappers:Doubled"
    for words in (
        ["train", "CartPole-v1", "--wrappers", own, *WORDS, "--run-dir", "first"],
        ["evaluate", "first", "--episodes", "2"],
        ["resume", "first", "--total-steps", "400"],
        ["train", "--config", "first", "--run-dir", "second"],
        ["plan", "--config", "first", "--probe-seconds", "0.2"],
        ["evaluate", "first", "--episodes", "2", "--wrappers", f"{own},{own}"],
    ):
        assert main(words) == 0, words
        forget()
        assert f"in {own}" in " ".join(capsys.readouterr().out.split()), words
    assert read_json(here / "second" / "run.json")["config"]["wrappers"] == [own]
    assert main(["evaluate", "first", "--episodes", "2", "--wrappers", "none"]) == 0
    assert own not in capsys.readouterr().out
    if find_spec("imageio_ffmpeg") is not None:
        assert main(["watch", "first", "--episodes", "1", "--video", "out.mp4"]) == 0
        episode = capsys.readouterr().out.partition("return ")[2].split()
        assert float(episode[0].strip(",")) == 2 * int(episode[1])  # CartPole pays 1 a step


def test_one_that_is_missing_ends_in_one_line(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "CartPole-v1", "--wrappers", "own_wrappers:Double", *WORDS, "--run-dir", "first"]) == 2
    said = capsys.readouterr().err
    assert "wrapper 'own_wrappers:Double': there is no 'Double' in 'own_wrappers'; did you mean Doubled?" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [
        ["evaluate", "run"],
        ["resume", "run", "--total-steps", "400"],
        ["watch", "run", "--video", "out.mp4"],
        ["train", "--config", "run"],
        ["train", "--config", "run/run.json", "--env", "CartPole-v1"],
    ],
)
def test_a_run_brings_no_wrapper_from_its_own_folder(
    words: list[str], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("imageio_ffmpeg")
    assert main(["train", "CartPole-v1", *WORDS, "--run-dir", "run"]) == 0
    (here / "run" / "brought.py").write_text(f"open({str(here / 'witness')!r}, 'w').close()\n" + MODULE)
    about = read_json(here / "run" / "run.json")
    about["config"]["wrappers"] = ["run.brought:Doubled"]
    write_json(here / "run" / "run.json", about)
    capsys.readouterr()
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "run names a module in its folder, run.brought, which is not imported: pass another wrappers=" in said
    assert not (here / "witness").exists()
