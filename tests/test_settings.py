"""Settings as people hand them over: numbers of NumPy's, devices of torch's, numbers as they are written."""

import json
from typing import Any

import numpy as np
import pytest
import torch

from nexus.cli.train import read_command
from nexus.core.errors import ConfigError
from nexus.core.period import whole_number
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
        ("--total-steps 1.5", "--total-steps: '1.5' is no whole number; needs one as in 8, 100_000 or 1e6"),
        ("--hidden-dim 100k", "--hidden-dim: '100k' is no whole number; needs one as in 8, 100_000 or 1e6"),
        ("--learning-rate fast", "--learning-rate: 'fast' is no number; needs one as in 0.001 or 1e-3"),
        ("--max-grad-norm big", "--max-grad-norm: 'big' is no number; needs one as in 0.001 or 1e-3"),
    ],
)
def test_what_is_no_number_is_said_without_programmers_words(flags: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read_command(["CartPole-v1", *flags.split()])
    assert str(refused.value) == f"{message}; see nexus train --help"
