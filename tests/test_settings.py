"""Settings as people hand them over: NumPy's numbers, torch's devices, numbers as people write them, other names."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nexus.api import make_config
from nexus.cli.train import read_command
from nexus.core.errors import ConfigError
from nexus.core.names import ALIASES
from nexus.core.period import whole_number
from nexus.models.rl.dqn.rainbow import make_agent
from nexus.training.config import TrainConfig


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("seed", np.arange(3)[1], 1),
        ("batch_size", np.int32(32), 32),
        ("total_steps", np.float64(3e5), 300_000),
        ("hidden_dim", np.uint8(64), 64),
        ("gamma", np.float32(0.5), 0.5),
        ("max_grad_norm", np.float64(2.0), 2.0),
        ("double", np.bool_(True), True),
        ("loss", np.str_("squared"), "squared"),
        ("log_every", np.str_("10 steps"), "10 steps"),
        ("device", torch.device("cpu"), "cpu"),
        ("device", torch.device("cuda", 1), "cuda:1"),
    ],
)
def test_numbers_of_numpy_and_devices_of_torch_are_settings(name: str, value: Any, expected: Any) -> None:
    read = TrainConfig.from_mapping({name: value}).to_mapping()[name]
    assert read == expected
    assert type(read) is type(expected)
    json.dumps(read)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("seed", np.float32(1.5), "seed = 1.5: needs a whole number"),
        ("seed", np.bool_(True), "seed = True: needs a whole number"),
        ("gamma", np.float32("nan"), "gamma = nan: needs a finite number"),
        ("double", np.int64(1), "double = 1: needs true or false"),
        ("seed", np.arange(3), "needs a whole number"),
    ],
)
def test_what_loses_something_is_refused_still(name: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainConfig.from_mapping({name: value})


@pytest.mark.parametrize(
    ("text", "number"),
    [("8", 8), ("1_000_000", 1_000_000), ("1e6", 1_000_000), ("2.5e3", 2500), ("-3", -3), ("5.0", 5)]
    + [(text, None) for text in ("1.5", "1e-3", "1e999", "nan", "100k", "", "9" * 5000)],
)
def test_whole_numbers_are_read_as_people_write_them(text: str, number: int | None) -> None:
    assert whole_number(text) == number


def test_whole_numbers_and_periods_may_have_an_exponent_on_the_command_line() -> None:
    flags = ["--total-steps", "1e6", "--seed=1_0", "--hidden-dim", "1e2", "--log-every", "1e4 steps"]
    config = read_command(["CartPole-v1", *flags]).config
    assert (config.total_steps, config.seed, config.hidden_dim) == (1_000_000, 10, 100)
    assert str(config.log_every) == "10000 steps"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--total-steps 1.5", "--total-steps: '1.5' is not a whole number; needs one as in 8, 100_000 or 1e6"),
        ("--hidden-dim 100k", "--hidden-dim: '100k' is not a whole number; needs one as in 8, 100_000 or 1e6"),
        ("--learning-rate fast", "--learning-rate: 'fast' is not a number; needs one as in 0.001 or 1e-3"),
        ("--max-grad-norm big", "--max-grad-norm: 'big' is not a number; needs one as in 0.001 or 1e-3"),
    ],
)
def test_what_is_no_number_is_said_without_programmers_words(flags: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read_command(["CartPole-v1", *flags.split()])
    assert str(refused.value) == f"{message}; see nexus train --help"


# A name of a setting that people bring or that it had before, a value, and the present name, worked out by hand.
OTHER_NAMES: list[tuple[str, Any, str]] = [
    ("algo", "c51", "algorithm"),
    ("buffer_size", 5_000, "replay_capacity"),
    ("lr", 0.002, "learning_rate"),
    ("n_timesteps", 7_000, "total_steps"),
    ("total_timesteps", 8_000, "total_steps"),
    ("trace_decay", 0.3, "trace_lambda"),
    ("updates_each", 3, "gradient_steps"),
]


@pytest.mark.parametrize(("other", "value", "name"), OTHER_NAMES)
def test_another_name_of_a_setting_is_taken_wherever_settings_are(
    other: str, value: Any, name: str, tmp_path: Path
) -> None:
    beside = {"algorithm": "pqn"} if name == "trace_lambda" else {}
    given = {**beside, other: value}
    whole = make_config("CartPole-v1", **beside).to_mapping()
    whole.pop(name)
    file = tmp_path / "settings.json"
    file.write_text(json.dumps({"env": "CartPole-v1", **whole, **given}))
    flags = [word for key, text in given.items() for word in (f"--{key.replace('_', '-')}", str(text))]
    for config in (
        make_config("CartPole-v1", **given),
        read_command(["CartPole-v1", *flags]).config,
        read_command(["--config", str(file)]).config,
        TrainConfig.from_mapping({**whole, **given}),
    ):
        assert getattr(config, name) == value


def test_no_other_name_goes_without_a_test() -> None:
    assert {other: name for other, _, name in OTHER_NAMES} == dict(ALIASES)


def test_an_agent_takes_other_names_too() -> None:
    agent = make_agent("dqn", state_dim=2, action_dim=2, lr=0.002)
    assert agent.settings.learning_rate == 0.002
    assert agent.config["learning_rate"] == 0.002


def test_a_flag_goes_over_what_a_file_says_under_another_name(tmp_path: Path) -> None:
    file = tmp_path / "settings.json"
    file.write_text(json.dumps({"env": "CartPole-v1", "algo": "c51", "lr": 0.5}))
    config = read_command(["--config", str(file), "--algorithm", "qr-dqn", "--learning-rate", "0.25"]).config
    assert (config.algorithm, config.learning_rate) == ("qr-dqn", 0.25)


def test_one_setting_under_two_names_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"^updates_each and gradient_steps are the same setting, gradient_steps: give it"
    ):
        TrainConfig.from_mapping({"updates_each": 2, "gradient_steps": 3})
    with pytest.raises(ConfigError, match=r"^lr and learning_rate are the same setting, learning_rate: give it once$"):
        make_config("CartPole-v1", lr=0.1, learning_rate=0.2)
