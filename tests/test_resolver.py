"""One resolver of settings: the same words give the same config on the command line and in Python."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

import nexus
from nexus.api import make_config
from nexus.cli.train import read_command
from nexus.core.errors import ConfigError
from nexus.listener import Listener
from nexus.models.rl.dqn.rainbow import ALGORITHMS
from nexus.resolver import resolve
from nexus.training.config import TrainConfig
from nexus.training.presets import PRESETS
from nexus.training.run_folder import read_run

ENVIRONMENTS = [*PRESETS["tuned"], "FrozenLake-v1", "Unknown-v0", "pong", "ALE/Breakout-v5"]
# What a user may say besides, as Python has it; some of these decide over other settings.
OWN: list[dict[str, Any]] = [
    {},
    {"seed": 3, "gamma": 0.9, "double": True, "dueling": False, "max_grad_norm": None},
    {"total_steps": 30_000, "learning_starts": 600},
    {"n_timesteps": 9_000, "lr": 0.002, "epsilon_schedule": "per_step"},
    {"eval_every": None},
    {"eval_episodes": 0},
    {"rollout_steps": 2_048},
    {"v_min": 20.0, "v_max": 30.0},  # above the largest return that is usual
    {"env_kwargs": {"a": 1, "b": "x"}, "log_every": "500 steps"},
]


def flags_for(settings: dict[str, Any]) -> list[str]:
    """The words of a command line that say the same as keyword arguments."""
    words: list[str] = []
    for name, value in settings.items():
        flag = name.replace("_", "-")
        match value:
            case bool():
                words.append(f"--{flag}" if value else f"--no-{flag}")
            case dict():
                words += [f"--{flag}", *(f"{key}={entry}" for key, entry in value.items())]
            case _:
                words += [f"--{flag}", "none" if value is None else str(value)]
    return words


def answer(ask: Callable[[], Any]) -> Any:
    """What a call returns, or the line with which it is refused."""
    try:
        return ask()
    except ConfigError as error:
        return str(error)


def both_ways(env: str, preset: str | None, settings: dict[str, Any]) -> list[Any]:
    """The config and the preset of a command line, and of the same words in Python."""
    words = [*flags_for(settings), *(["--preset", preset] if preset else [])]
    command = answer(lambda: read_command([env, *words]))
    python = answer(lambda: resolve(env, settings, preset))
    return [each if isinstance(each, str) else (each.config, each.preset) for each in (command, python)]


@pytest.mark.parametrize("env", ENVIRONMENTS)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_flags_and_keywords_come_to_the_same_config(env: str, algorithm: str) -> None:
    command, python = both_ways(env, None, {"algorithm": algorithm})
    assert command == python
    assert make_config(env, algorithm=algorithm) == python[0]


@pytest.mark.parametrize("preset", PRESETS)
def test_so_they_do_under_every_preset(preset: str) -> None:
    for env in ("CartPole-v1", "Unknown-v0", "pong"):
        for settings in ({}, {"algorithm": "rainbow"}, {"algorithm": "pqn"}):
            command, python = both_ways(env, preset, settings)
            assert command == python


@pytest.mark.parametrize("own", OWN, ids=str)
def test_so_they_do_with_settings_that_decide_over_others(own: dict[str, Any]) -> None:
    for env, algorithm in (("CartPole-v1", "rainbow"), ("Unknown-v0", "dqn"), ("pong", "pqn")):
        for settings in (own, {"algorithm": algorithm, **own}):
            command, python = both_ways(env, None, settings)
            assert command == python
            if "env_kwargs" not in own:
                assert make_config(env, **settings) == python[0]


def test_layers_lie_over_each_other_as_they_are_told() -> None:
    assert resolve("CartPole-v1", {}).preset == "tuned"
    assert resolve("CartPole-v1", {}).config.v_max == 500.0  # the range of its returns
    assert resolve("CartPole-v1", {}).config.n_step == 5  # tuned
    assert resolve("CartPole-v1", {"algorithm": "n-step"}).config.n_step == 3  # what the algorithm brings
    assert resolve("CartPole-v1", {"algorithm": "noisy"}).config.epsilon_min == 0.02  # tuned for it
    assert resolve("CartPole-v1", {"algorithm": "noisy", "epsilon_min": 0.5}).config.epsilon_min == 0.5
    assert resolve("pong", {}).config.algorithm == "pqn"
    assert resolve("Unknown-v0", {}) == resolve(lambda: gym.make("CartPole-v1"), {})


def test_a_file_stands_in_for_all_but_the_users_own_settings(tmp_path: Path) -> None:
    values = {"n_step": 2, "gamma": 0.5, "algorithm": "noisy", "noisy": False}
    found = resolve("CartPole-v1", {"gamma": 0.25}, file=values)
    assert (found.config.n_step, found.config.gamma, found.config.noisy) == (2, 0.25, False)
    assert (found.config.v_max, found.preset) == (10.0, None)
    assert resolve("CartPole-v1", {"algorithm": "noisy"}, file=values).config.noisy  # named again: it brings its own
    file = tmp_path / "settings.json"
    file.write_text(json.dumps({"env": "CartPole-v1", **values}))
    assert read_command(["--config", str(file), "--gamma", "0.25"]).config == found.config
    with pytest.raises(ConfigError, match="--preset and --config each set everything"):
        read_command(["--config", str(file), "--preset", "seed"])
    assert resolve("CartPole-v1", {}, file=resolve("CartPole-v1", {}).config.to_mapping()).config == make_config(
        "CartPole-v1"
    )


def test_what_was_given_up_is_noted_in_training_plan_and_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    says = "eval_every none: without evaluations before the end, the target return of 475 can't end the run"
    assert resolve("CartPole-v1", {"eval_every": None}).notes == (says,)
    assert resolve("CartPole-v1", {}).notes == ()
    read_command(["CartPole-v1", "--eval-every", "none"])
    assert capsys.readouterr().out == f"Note: {says}\n"
    assert nexus.plan("CartPole-v1", probe_seconds=0.2, eval_every=None).notes[0] == says


def test_a_run_is_trained_with_what_was_resolved(tmp_path: Path) -> None:
    own: dict[str, Any] = {"total_steps": 300, "learning_starts": 64, "eval_episodes": 1, "hidden_dim": 8}
    nexus.train("CartPole-v1", algorithm="double", run_dir=tmp_path / "run", listener=Listener(), **own)
    expected = read_command(["CartPole-v1", "--algo", "double", *flags_for(own)]).config
    assert TrainConfig.from_mapping(read_run(tmp_path / "run")["config"]) == expected
