"""What is probably not meant is said, from Python too: ranges, schedules, targets that end nothing."""

from pathlib import Path
from typing import Any, SupportsInt

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

import nexus
from nexus.api import make_config
from nexus.cli.main import main
from nexus.cli.progress import TrainView
from nexus.cli.train import read_command
from nexus.core.errors import ConfigError
from nexus.core.types import Array
from nexus.envs.factory import EnvSpec, make_vector_env
from nexus.envs.stream import TransitionStream
from nexus.listener import Listener
from nexus.training.config import TrainConfig
from nexus.training.presets import PRESETS, settled

RANGE = "the range of returns of Arms is unknown: assuming -10 to 10"


class Arms(gym.Env[Array, SupportsInt]):
    """Five steps, each of which pays `scale` or twice that."""

    observation_space = spaces.Box(0, 10, (1,), np.float32)
    action_space = spaces.Discrete(2)
    scale = 40.0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        super().reset(seed=seed)
        self.count = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: SupportsInt) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        self.count += 1
        return np.full(1, self.count, np.float32), self.scale * (1 + int(action)), self.count == 5, False, {}


class SmallArms(Arms):
    scale = 0.1


class Losses(Arms):
    scale = -40.0


class Heard(Listener):
    def __init__(self) -> None:
        self.said: list[str] = []

    def on_notice(self, text: str) -> None:
        self.said.append(text)


def said_in(tmp_path: Path, env: Any, **settings: Any) -> list[str]:
    """What a training says; its name goes before the texts of an environment's class."""
    usual: dict[str, Any] = {"total_steps": 1500, "learning_starts": 200, "eval_episodes": 2, "checkpoint_every": None}
    heard = Heard()
    nexus.train(env, run_dir=tmp_path / "run", listener=heard, **{**usual, **settings})
    return heard.said


# The range of returns.


@pytest.mark.parametrize("algorithm", ["c51", "rainbow"])
def test_an_assumed_range_is_said_before_and_its_ends_after_a_training(algorithm: str, tmp_path: Path) -> None:
    before, after = said_in(tmp_path, Arms, algorithm=algorithm, gradient_steps=2)
    assert before.startswith(RANGE)
    assert "set v_min and v_max to the range of discounted returns" in before
    assert "% of the return probability lies on the assumed v_max = 10 after training" in after


def test_returns_below_it_lie_on_its_other_end(tmp_path: Path) -> None:
    _, after = said_in(tmp_path, Losses, algorithm="c51", gradient_steps=2)
    assert "lies on the assumed v_min = -10 after" in after


def test_returns_within_it_are_no_matter_afterwards(tmp_path: Path) -> None:
    (before,) = said_in(tmp_path, SmallArms, algorithm="c51", gradient_steps=2)
    assert before.startswith("the range of returns of SmallArms is unknown")


@pytest.mark.parametrize("settings", [{"algorithm": "c51", "v_max": 400.0}, {"algorithm": "qr-dqn"}, {}])
def test_a_range_that_was_set_or_that_nobody_needs_is_no_matter(settings: dict[str, Any], tmp_path: Path) -> None:
    assert said_in(tmp_path, Arms, **settings) == []


def test_python_warns_and_a_plan_notes(tmp_path: Path) -> None:
    with pytest.warns(RuntimeWarning, match=RANGE), pytest.warns(RuntimeWarning, match="on the assumed v_max = 10"):
        nexus.train(
            Arms, algorithm="c51", total_steps=300, learning_starts=200, eval_episodes=2, run_dir=tmp_path / "r"
        )
    notes = nexus.plan(Arms, algorithm="c51", probe_seconds=0.2).notes
    assert any(note.startswith(RANGE) for note in notes)
    notes = nexus.plan("CartPole-v1", total_steps=4000, probe_seconds=0.2).notes
    assert any(note.startswith("ε is still 0.63 at the end of the run") for note in notes)


def test_the_console_says_it_below_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with TrainView() as view:
        said = nexus.train(
            Arms,
            algorithm="c51",
            total_steps=300,
            learning_starts=200,
            eval_episodes=2,
            run_dir=tmp_path,
            listener=view,
        )
    lines = capsys.readouterr().out.splitlines()
    assert said.counters.steps >= 300
    table = next(number for number, line in enumerate(lines) if line.startswith(" run folder"))
    (note,) = (number for number, line in enumerate(lines) if line.startswith(f"Note: {RANGE}"))
    assert note > table


def test_what_was_noticed_of_a_run_that_did_not_start_is_said_too(capsys: pytest.CaptureFixture[str]) -> None:
    with TrainView() as view:
        view.on_notice("something")
    assert capsys.readouterr().out == "Note: something\n"


# ε and how long it takes.


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({}, 20_000),
        ({"total_steps": 8_000}, 3_500),
        ({"total_steps": 8_000, "learning_starts": 0}, 4_000),
        ({"total_steps": 41_000}, 20_000),
        ({"total_steps": 10_000_000}, 20_000),
        ({"total_steps": 1_001}, 1),
        ({"total_steps": np.int64(8_000)}, 3_500),
        ({"total_steps": 8e3}, 3_500),
        ({"total_steps": 8_000, "epsilon_steps": 20_000}, 20_000),
        ({"total_steps": 8_000, "epsilon_schedule": "per_step"}, 20_000),
        ({"learning_starts": 90_000}, 20_000),
    ],
)
def test_a_short_run_explores_in_half_of_it(settings: dict[str, Any], steps: int) -> None:
    config = make_config("Unknown-v0", "plain", **settings)
    assert config.epsilon_steps == steps
    flags = [word for name, value in settings.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    assert read_command(["Unknown-v0", "--preset", "plain", *flags]).config == config


@pytest.mark.parametrize(
    ("total", "starts", "steps", "target"),
    [
        (100_000, 2_000, 40_000, "500 updates"),
        (8_000, 160, 3_200, "80 updates"),
        (1_000, 64, 400, "20 updates"),
        (50, 25, 20, "20 updates"),  # half of the run at most
        (1, 1, 1, "1 updates"),
        (10_000_000, 10_000, 4_000_000, "500 updates"),
    ],
)
def test_the_general_preset_scales_with_the_run(total: int, starts: int, steps: int, target: str) -> None:
    values, _ = settled(PRESETS["general"]["any environment"], {"total_steps": total})
    assert (values["learning_starts"], values["epsilon_steps"]) == (starts, steps)
    assert values["target_update_every"] == target
    if total > 1:
        config = make_config("Unknown-v0", total_steps=total)
        assert (config.learning_starts, config.epsilon_steps) == (starts, steps)
        assert read_command(["Unknown-v0", "-n", str(total)]).config == config
    assert make_config("Unknown-v0", total_steps=100_000, learning_starts=7).learning_starts == 7


def test_the_general_preset_is_for_what_nothing_was_tuned_for() -> None:
    """`plain` is what the settings themselves have as defaults."""
    assert make_config("Unknown-v0", "plain") == TrainConfig()
    general = make_config("Unknown-v0")
    assert general == make_config(Arms) == make_config("Unknown-v0", "general")
    assert (general.double, general.layer_norm, general.n_step) == (True, True, 3)
    assert (general.learning_rate_schedule, general.learning_rate_end) == ("linear", 0.0001)
    assert make_config("CartPole-v1") == make_config("CartPole-v1", "tuned") != make_config("CartPole-v1", "general")
    assert make_config("Unknown-v0", algorithm="pqn").n_step == 1  # an algorithm's settings count more


def test_the_settings_of_a_preset_or_a_run_stay(tmp_path: Path) -> None:
    for env in PRESETS["tuned"]:
        own = PRESETS["tuned"][env]["epsilon_steps"]
        assert make_config(env, total_steps=8_000).epsilon_steps == own
    file = tmp_path / "settings.json"
    file.write_text('{"env": "FrozenLake-v1", "total_steps": 8000}')
    assert read_command(["--config", str(file)]).config.epsilon_steps == 3_500
    assert read_command(["--config", str(file), "-n", "20000"]).config.epsilon_steps == 9_500
    file.write_text('{"env": "FrozenLake-v1", "config": {"total_steps": 30000, "epsilon_steps": 15000}}')
    assert read_command(["--config", str(file), "-n", "8000"]).config.epsilon_steps == 15_000


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"epsilon_steps": 7_000}, None),
        ({"epsilon_steps": 7_777}, None),  # a tenth of the way is left
        (
            {"epsilon_steps": 20_000},
            "ε is still 0.65 at the end of the run, but should fall to 0.01: epsilon_steps = 20,000 is more than the "
            "7,000 from learning_starts on",
        ),
        ({"epsilon_steps": 20_000, "epsilon": 0.05}, "ε is still 0.036 at the end"),
        ({"epsilon_steps": 20_000, "epsilon": 0.01}, None),
        ({"epsilon_steps": 20_000, "epsilon_schedule": "constant"}, None),
        ({"epsilon_schedule": "per_episode", "epsilon_decay": 0.99999}, None),  # nobody knows how many there will be
        (
            {"epsilon_schedule": "per_step", "epsilon_decay": 0.9999},
            "ε is still 0.5 at the end of the run, but should fall to 0.01: epsilon_decay = 0.9999 is too slow",
        ),
        ({"epsilon_steps": 20_000, "exploration": "boltzmann"}, "the temperature is still 0.69 at the end of the run"),
    ],
)
def test_an_exploration_that_does_not_come_to_its_end_is_said(settings: dict[str, Any], says: str | None) -> None:
    said = TrainConfig(total_steps=8_000, **settings).said_of_exploration
    assert said is None if says is None else str(said).startswith(says)


def test_it_is_said_in_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (said,) = said_in(tmp_path, Arms, epsilon_steps=5_000)
    assert said.startswith("ε is still 0.74")
    words = ["-n", "1500", "--epsilon-steps", "5000", "--eval-episodes", "2", "--run-dir", str(tmp_path / "b")]
    assert main(["train", "FrozenLake-v1", "--preset", "plain", *words]) == 0
    assert "\nNote: ε is still 0.9 at the end of the run" in capsys.readouterr().out
    assert said_in(tmp_path / "c", Arms) == []


# A target that ends nothing.


@pytest.mark.parametrize(("name", "value", "text"), [("eval_every", None, "none"), ("eval_episodes", 0, "0")])
def test_who_wants_no_evaluations_has_no_target(
    name: str, value: Any, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = make_config("CartPole-v1", **{name: value})
    assert (config.eval_every, config.target_return) == (None, None)
    says = f"{name} {text}: without evaluations before the end, the target return of 475 can't end the run"
    command = read_command(["CartPole-v1", f"--{name.replace('_', '-')}", text])
    assert command.config == config
    assert capsys.readouterr().out == f"Note: {says}\n"
    if name == "eval_every":
        usual: dict[str, Any] = {"total_steps": 1100, "eval_episodes": 2, "eval_every": None}
        heard = Heard()
        nexus.train("CartPole-v1", run_dir=tmp_path / "run", listener=heard, **usual)
        assert heard.said[0] == says


def test_who_names_a_target_is_told_that_it_needs_evaluations() -> None:
    for own in ({"eval_every": None}, {"eval_episodes": 0}):
        with pytest.raises(ConfigError, match=r"target_return = 300\.0: needs eval_every"):
            make_config("CartPole-v1", target_return=300.0, **own)
    with pytest.raises(ConfigError, match="eval_episodes = 0: needs at least 1 with eval_every = 500 steps"):
        make_config("CartPole-v1", eval_episodes=0, eval_every="500 steps")


def test_nothing_is_given_up_that_nobody_has() -> None:
    assert settled({"gamma": 0.9}, {"eval_every": None}) == ({"gamma": 0.9}, [])
    assert settled({"target_return": 3.0, "eval_every": "5 steps"}, {"eval_every": "7 steps"}) == (
        {"target_return": 3.0, "eval_every": "5 steps"},
        [],
    )


def test_what_a_step_shows_is_said_at_that_step() -> None:
    """Not at the next reset: an episode can be long."""

    class Leaving(Arms):
        observation_space = spaces.Box(0, 1, (1,), np.float32)

    stream = TransitionStream(make_vector_env(EnvSpec(Leaving), 2, "sync"), "Leaving")
    stream.reset(0)
    stream.step(np.zeros(2, np.int64))
    assert stream.pop_notices() == []
    stream.step(np.zeros(2, np.int64))
    (said,) = stream.pop_notices()
    assert "2" in said
    assert "Leaving" in said
    stream.step(np.zeros(2, np.int64))
    assert stream.pop_notices() == []
