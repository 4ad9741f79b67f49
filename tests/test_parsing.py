"""Flags and names as people type them: other spellings, other libraries' words, and typing errors."""

import re
from typing import Any

import pytest

from nexus.cli.train import read_command
from nexus.core.config import AgentConfig
from nexus.core.errors import ConfigError, RunError
from nexus.core.names import CALLED, PARTS, algorithm_name
from nexus.models.rl.dqn.rainbow import ALGORITHMS


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("DQN", "dqn"),
        ("Rainbow", "rainbow"),
        ("ddqn", "double"),
        ("double-dqn", "double"),
        ("Double DQN", "double"),
        ("qrdqn", "qr-dqn"),
        ("QR_DQN", "qr-dqn"),
        ("c-51", "c51"),
        ("nstep", "n-step"),
        ("ppo", "ppo"),  # is said to be none by whoever looks it up
    ],
)
def test_an_algorithm_is_found_however_it_is_written(typed: str, name: str) -> None:
    assert algorithm_name(typed) == name
    assert AgentConfig(algorithm=typed).algorithm == name


def test_every_algorithm_has_its_own_name_and_no_other() -> None:
    assert set(CALLED.values()) == set(ALGORITHMS)
    assert {name: algorithm_name(name) for name in ALGORITHMS} == {name: name for name in ALGORITHMS}
    assert not CALLED.keys() & PARTS.keys()


@pytest.mark.parametrize(("name", "flags"), [("PER", "--prioritized"), ("D3QN", "--double --dueling")])
def test_a_part_that_is_called_an_algorithm_elsewhere_names_its_flags(name: str, flags: str) -> None:
    with pytest.raises(ConfigError, match=f"algorithm '{name}' is a combination of flags here: {flags}"):
        read_command(["CartPole-v1", "--algo", name])


@pytest.mark.parametrize("name", [["dqn"], 51, None])
def test_an_algorithm_of_a_file_is_text(name: Any) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"algorithm = {name}: needs text")):
        AgentConfig(algorithm=name)
    with pytest.raises(ConfigError, match="needs text"):
        algorithm_name(name)


def test_an_algorithm_brings_its_settings_under_any_of_its_names() -> None:
    for words in (["--algo", "QRDQN"], ["--algorithm=qr_dqn"]):
        command = read_command(["CartPole-v1", *words])
        assert command == read_command(["CartPole-v1", "--algorithm", "qr-dqn"])
        assert command.config.algorithm == "qr-dqn"
    assert read_command(["CartPole-v1", "--algo", "Rainbow"]).config.noisy


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--unit 3", "unknown option --unit;"),
        ("--foo 3", "unknown option --foo;"),
        ("--update-every.unit 3", "unknown option --update-every.unit; did you mean --update-every"),
        ("--bufer_size=3", "unknown option --bufer-size; did you mean --buffer-size"),
        ("--no-duble", "unknown option --no-duble; did you mean --no-double"),
        # The unknown flag first: without it another setting is wrong.
        ("--learning-start 5 -n 10", "unknown option --learning-start; did you mean --learning-starts"),
        ("--double yes", "--double takes no value, got 'yes': --double turns it on, --no-double off;"),
        ("--seed 1 Acrobot-v1", "'Acrobot-v1' does not belong to any option;"),
        ("-x", "unknown option -x;"),
    ],
)
def test_what_nobody_knows_is_named_with_what_was_meant(flags: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read_command(["CartPole-v1", *flags.split()])
    assert str(refused.value).startswith(message)
    assert str(refused.value).endswith("; see nexus train --help")
    assert "--unit" not in str(refused.value).removeprefix("unknown option --unit").replace(".unit", "")


def test_a_flag_may_have_underscores_whoever_reads_it() -> None:
    with pytest.raises(RunError, match=r"can't read missing\.json"):
        read_command(["CartPole-v1", "--config_file", "missing.json"])
    assert read_command(["--env_id", "CartPole-v1", "--buffer_size=5000"]).config.replay_capacity == 5000
