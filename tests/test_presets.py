"""What a user gets by naming an environment and an algorithm, before any other setting."""

from typing import Any

import pytest
from torch import nn

from nexus.api import agent_for, make_config
from nexus.cli.main import main
from nexus.cli.train import read_command
from nexus.core import ConfigError
from nexus.envs.atari import is_atari
from nexus.models.rl.dqn.rainbow import ALGORITHMS
from nexus.models.torsos import ConvolutionalTorso, make_torso
from nexus.training.presets import ALGORITHM_PRESETS, ANY, ATARI, PRESETS, RETURN_RANGES

PER_STEP = {"CartPole-v1": 1.0, "Acrobot-v1": -1.0, "MountainCar-v0": -1.0}  # the same reward in every step
ENVIRONMENTS = [*PRESETS["tuned"], "Unknown-v0"]


@pytest.mark.parametrize("env", ENVIRONMENTS)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_is_sound_in_every_environment(env: str, algorithm: str) -> None:
    config = make_config(env, algorithm=algorithm)
    assert agent_for((4,), 2, config).settings.algorithm == algorithm  # refuses nothing that a preset brought
    assert config.noisy or algorithm == "bootstrapped" or config.epsilon == 1.0
    assert config.algorithm == algorithm
    if env in PER_STEP:
        for_ever = PER_STEP[env] / (1 - config.gamma)
        assert config.v_min <= for_ever + 1e-9
        assert config.v_max >= for_ever - 1e-9


def test_the_layers_go_over_each_other_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Range of returns, preset, algorithm, preset for the algorithm, user: each decides what those after it leave."""
    preset = {"v_max": 1.0, "n_step": 1, "gamma": 0.1, "batch_size": 11, "double": False}
    monkeypatch.setitem(RETURN_RANGES, "Mine-v0", (-7.0, 70.0))
    monkeypatch.setitem(PRESETS["tuned"], "Mine-v0", preset)
    monkeypatch.setitem(ALGORITHM_PRESETS["tuned"], "Mine-v0", {"rainbow": {"n_step": 4, "gamma": 0.2}})
    config = make_config("Mine-v0", algorithm="rainbow", gamma=0.3)
    assert (config.v_min, config.v_max) == (-7.0, 1.0)
    assert (config.n_step, config.gamma, config.batch_size, config.double) == (4, 0.3, 11, True)
    other = make_config("Mine-v0", algorithm="c51")
    assert (other.n_step, other.gamma) == (1, 0.1)


def test_the_range_belongs_to_the_environment_whatever_the_preset() -> None:
    assert make_config("CartPole-v1", "seed", algorithm="c51").v_max == 500.0
    assert make_config("FrozenLake-v1", algorithm="rainbow").v_max == 1.0
    assert make_config("Unknown-v0", algorithm="rainbow").v_max == 10.0


def test_the_paper_preset_is_rainbows_table() -> None:
    config = make_config("CartPole-v1", "paper", algorithm="rainbow")
    expected: dict[str, Any] = {
        "learning_rate": 6.25e-5,
        "adam_epsilon": 1.5e-4,
        "epsilon": 0.0,
        "noisy_sigma": 0.5,
        "priority_exponent": 0.5,
        "importance_exponent": 0.4,
        "n_step": 3,
        "atoms": 51,
        "v_min": -10.0,
        "v_max": 10.0,
        "double": True,
        "dueling": True,
        "prioritized": True,
    }
    assert {name: getattr(config, name) for name in expected} == expected
    assert str(config.target_update_every) == "8000 steps"
    with pytest.raises(
        ConfigError, match="'paper' has no settings for the algorithm 'dqn': it has them for rainbow, beyond, pqn"
    ):
        make_config("CartPole-v1", "paper")


def test_the_paper_preset_is_beyonds_table_with_its_torso_for_images_alone() -> None:
    config = make_config("CartPole-v1", "paper", algorithm="beyond")
    expected: dict[str, Any] = {
        "num_envs": 64,
        "batch_size": 256,
        "learning_rate": 1e-4,
        "adam_epsilon": 0.005 / 256,
        "gamma": 0.997,
        "n_step": 3,
        "priority_exponent": 0.2,
        "learning_starts": 200_000,
        "replay_capacity": 2**20,
        "munchausen_alpha": 0.9,
        "munchausen_temperature": 0.03,
        "noisy": True,
        "epsilon": 1.0,
        "torso": "auto",
    }
    assert {name: getattr(config, name) for name in expected} == expected
    assert (str(config.update_every), str(config.target_update_every)) == ("64 steps", "500 updates")
    pixels = make_config("ALE/Pong-v5", "paper", algorithm="beyond")
    assert (pixels.torso, pixels.hidden_dim, pixels.num_envs, pixels.protocol) == ("impala_cnn", 512, 64, "nature")
    assert make_config("ALE/Pong-v5", "paper", algorithm="rainbow").torso == "nature_cnn"


def test_the_paper_preset_is_pqns_settings_for_atari() -> None:
    config = make_config("ALE/Pong-v5", "paper", algorithm="pqn")
    expected: dict[str, Any] = {
        "total_steps": 10_000_000,
        "num_envs": 128,
        "gradient_steps": 2 * 32,
        "batch_size": 4096 // 32,
        "learning_rate": 0.00025,
        "learning_rate_schedule": "constant",
        "trace_lambda": 0.65,
        "max_grad_norm": 10.0,
        "layer_norm": True,
        "loss": "squared",
        "epsilon_min": 0.001,
        "learning_starts": 0,
        "torso": "nature_cnn",
        "frame_stack": 4,
        "protocol": "nature",
    }
    assert {name: getattr(config, name) for name in expected} == expected
    assert str(config.update_period) == str(config.target_update_every) == f"{128 * 32} steps"
    assert config.rollout_steps == 128 * 32


def test_the_fast_preset_is_pqn_and_has_a_replay_for_the_others() -> None:
    assert make_config("pong", "fast") == make_config("pong", "fast", algorithm="pqn")
    assert read_command(["pong", "--preset", "fast"]).config == make_config("pong", "fast")
    replayed = make_config("pong", "fast", algorithm="dqn")
    assert (replayed.algorithm, replayed.trace_lambda, replayed.replay_capacity) == ("dqn", None, 250_000)
    assert (replayed.prioritized, replayed.n_step, replayed.total_steps) == (True, 5, 250_000)
    assert read_command(["pong", "--preset", "fast", "--algo", "dqn"]).config == replayed


def test_settings_for_one_game_go_over_those_for_all_whatever_its_name() -> None:
    names = ("pong", "ALE/Pong-v5", "breakout", "ALE/Breakout-v5")
    short, full, *others = (make_config(name, "fast") for name in names)
    assert short == full == read_command(["pong"]).config
    assert (full.frame_size, full.actor_sync_every, full.learning_rate) == (44, None, 0.0005)
    for other in (*others, read_command(["breakout"]).config):
        assert (other.frame_size, str(other.actor_sync_every), other.learning_rate) == (60, "1024 steps", 0.00025)


@pytest.mark.parametrize("game", ["pong", "breakout"])
def test_the_fast_preset_adds_no_zeros_to_its_frames(game: str) -> None:
    config = make_config(game, "fast")
    assert config.frame_size is not None
    torso, _ = make_torso(config, (config.frame_stack, config.frame_size, config.frame_size))
    assert isinstance(torso, ConvolutionalTorso)
    assert torso.images.standardize
    assert isinstance(next(torso.convolutions.children()), nn.Conv2d)


def test_a_preset_by_algorithm_names_known_algorithms_and_settings() -> None:
    for preset, environments in ALGORITHM_PRESETS.items():
        for env, by_algorithm in environments.items():
            assert env == ANY or env in PRESETS[preset] or (is_atari(env) and ATARI in PRESETS[preset])
            for algorithm in by_algorithm:
                make_config({ANY: "CartPole-v1", ATARI: "ALE/Pong-v5"}.get(env, env), preset, algorithm=algorithm)


SMALL = "-n 60 --learning-starts 50 --num-envs 2 --eval-episodes 1 --hidden-dim 8 --target-return none"


@pytest.mark.parametrize(
    ("flags", "says", "warns"),
    [
        ("CartPole-v1 --algo rainbow", "0 to 500, 51 atoms", False),
        ("FrozenLake8x8-v1 --algo c51", "-10 to 10, 51 atoms", True),
        ("FrozenLake8x8-v1 --algo c51 --v-min -1000 --v-max 20", "-1000 to 20, 51 atoms", False),
        ("FrozenLake8x8-v1 --algo qr-dqn", "qr-dqn", False),
    ],
)
def test_the_plan_says_which_range_of_returns_it_takes(
    tmp_path: Any, capsys: pytest.CaptureFixture[str], flags: str, says: str, warns: bool
) -> None:
    assert main(["train", *f"{flags} {SMALL}".split(), "--run-dir", str(tmp_path / "run")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert says in said
    assert ("range of returns" in said and "is unknown" in said) == warns
    assert ("atoms" in said) == ("atoms" in says)


def test_the_help_names_every_preset(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert f"Named settings: {', '.join(PRESETS)}." in said
