"""Settings as readable data: the original specification's tables, and settings tuned for known environments.

A run's settings, each overriding the ones before: the range of the environment's returns, the preset's settings for the
environment, the algorithm's settings, the preset's settings for that algorithm there, and the user's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nexus.core.errors import ConfigError, nearest
from nexus.core.period import whole_number
from nexus.envs.atari import canonical, is_atari
from nexus.training.config import TrainConfig

__all__ = [
    "ALGORITHM_PRESETS",
    "ANY",
    "ATARI",
    "PRESETS",
    "RETURN_RANGES",
    "Share",
    "algorithm_preset",
    "resolve_preset",
    "settled",
]

ANY = "any environment"
ATARI = "any Atari game"


@dataclass(frozen=True)
class Share:
    """A number that is a fraction of the run's steps, from `least` to `most`, and at most half of them.

    With a unit it is a period, as in `"500 updates"`.
    """

    fraction: float
    least: int = 1
    most: int | None = None
    unit: str = ""

    def of(self, steps: int) -> int | str:
        """Return the value for a run of this many steps."""
        wanted = max(self.least, int(self.fraction * steps))
        number = max(1, min(wanted, wanted if self.most is None else self.most, steps // 2))
        return f"{number} {self.unit}" if self.unit else number


# Shared by all Atari presets: Mnih et al. 2015, doi.org/10.1038/nature14236, extended data table 1, in steps of
# four frames. `docs/atari.md` explains the units, and where the paper and its released code disagree.
NATURE: Mapping[str, Any] = {
    "total_steps": 50_000_000,
    "num_envs": 1,
    "protocol": "nature",
    "frame_skip": 4,
    "frame_stack": 4,
    "torso": "nature_cnn",
    "reward_clip": 1.0,
    "gamma": 0.99,
    "learning_rate": 0.00025,
    "replay_capacity": 1_000_000,
    "batch_size": 32,
    "learning_starts": 50_000,
    "update_every": "4 steps",
    "target_update_every": "10000 steps",
    "epsilon": 1.0,
    "epsilon_min": 0.1,
    "epsilon_schedule": "linear",
    "epsilon_steps": 1_000_000,
    "log_every": "10000 steps",
    "eval_episodes": 30,
    "checkpoint_every": "250000 steps",  # each writes tens of megabytes
}

EXPLORING = 0.5  # fraction of a short run, from `learning_starts` on, over which ε decays by default
USUAL_STEPS = {"total_steps": TrainConfig.total_steps, "learning_starts": TrainConfig.learning_starts}

RETURN_RANGES: Mapping[str, tuple[float, float]] = {
    # Range of discounted returns at the γ of the presets below, for the atoms of c51 and rainbow. It is the reward per
    # step divided by 1 - γ, since a time limit truncates and keeps its bootstrap.
    "CartPole-v1": (0.0, 500.0),
    "Acrobot-v1": (-100.0, 0.0),
    "MountainCar-v0": (-200.0, 0.0),
    "LunarLander-v3": (-500.0, 300.0),  # worse crashes are clipped; they occur only in early random flights
    "FrozenLake-v1": (0.0, 1.0),
    "Blackjack-v1": (-1.0, 1.5),
}

PRESETS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    # For an environment that none of the others was tuned on, unless the user names another. Chosen on seeds 1000 and
    # 1001 of the twelve environments of `benchmarks/worlds.py`; docs/results.md reports other seeds.
    "general": {
        ANY: {
            "layer_norm": True,
            "double": True,
            "n_step": 3,
            "learning_rate_schedule": "linear",
            "learning_rate_end": 0.0001,
            "learning_starts": Share(0.02, least=64, most=10_000),
            "epsilon_steps": Share(0.4),
            "target_update_every": Share(0.01, least=20, most=500, unit="updates"),
        },
    },
    # The defaults of the settings themselves: DQN as published, without any of the later improvements.
    "plain": {ANY: {}},
    # The original specification's "For simpler environments" table. One environment, one update per step.
    "seed": {
        ANY: {
            "num_envs": 1,
            "learning_rate": 0.001,
            "hidden_dim": 128,
            "replay_capacity": 10_000,
            "batch_size": 64,
            "learning_starts": 64,
            "update_every": "1 steps",
            "target_update_every": "10 episodes",
            "epsilon_schedule": "per_episode",
            "epsilon_decay": 0.995,
        },
        ATARI: NATURE,  # its Atari table, with Adam; where the table is silent, the paper's values
    },
    # The paper's released code, whose RMSProp differs from torch's.
    "nature": {ATARI: {**NATURE, "optimizer": "rmsprop", "max_grad_norm": None}},
    # For a CPU: a small network on few pixels, so that updates are cheap; standardized, without which Pong's ball is
    # too faint to be found soon. It learns without a replay, see below; the replay settings here are for the other
    # algorithms and aim at few steps. Tuned on Pong, seeds 1001 to 1003.
    "fast": {
        ATARI: {
            **NATURE,
            "algorithm": "pqn",
            "total_steps": 250_000,
            "threads": 1,  # a second one gains little on such small layers, and loses much on a busy machine
            "num_envs": 8,
            "frame_size": 44,
            "torso": "nips_cnn",
            "standardize_images": True,
            "layer_norm": True,
            "double": True,
            "dueling": True,
            "prioritized": True,
            "n_step": 5,
            "learning_rate": 0.0005,
            "learning_rate_schedule": "linear",
            "learning_rate_end": 0.0001,
            "replay_capacity": 250_000,
            "replay_store": "raw",  # half a gigabyte of frames; compressed ones would cost time at each update
            "learning_starts": 5_000,
            "update_every": "1 steps",
            "target_update_every": "1 updates",
            "tau": 0.005,
            "epsilon_min": 0.01,
            "epsilon_steps": 30_000,
            "eval_every": "50000 steps",
            "checkpoint_every": "100000 steps",
        },
    },
    "paper": {ANY: {}, ATARI: NATURE},  # the rest of its settings is below, by algorithm
    # Tuned on seeds from 1000 on; docs/results.md reports other seeds.
    "tuned": {
        # Positions and angles scaled like speeds, layer norm to keep values stable under a fast target, and a learning
        # rate that decays to almost zero, so that the learned policy stays.
        "CartPole-v1": {
            "total_steps": 100_000,
            "num_envs": 8,
            "hidden_dim": 64,
            "scale_observations": True,
            "layer_norm": True,
            "double": True,
            "gamma": 0.995,
            "loss": "squared",
            "n_step": 5,
            "batch_size": 64,
            "update_every": "4 steps",
            "target_update_every": "1 updates",
            "tau": 0.02,
            "learning_rate": 0.001,
            "learning_rate_schedule": "linear",
            "learning_starts": 1_000,
            "epsilon_min": 0.02,
            "epsilon_steps": 8_000,
            "eval_every": "2500 steps",
            "target_return": 475.0,
        },
        "Acrobot-v1": {
            "total_steps": 40_000,
            "num_envs": 8,
            "hidden_dim": 128,
            "layer_norm": True,
            "n_step": 5,
            "batch_size": 128,
            "update_every": "4 steps",
            "target_update_every": "1 updates",
            "tau": 0.02,
            "learning_rate": 0.001,
            "learning_rate_schedule": "linear",
            "learning_starts": 1_000,
            "epsilon_min": 0.05,
            "epsilon_steps": 10_000,
        },
        "MountainCar-v0": {
            "total_steps": 150_000,
            "num_envs": 16,
            "hidden_dim": 128,
            "scale_observations": True,  # its largest speed is 0.07
            "layer_norm": True,
            "gamma": 0.995,
            "double": True,
            "replay_capacity": 200_000,
            "batch_size": 128,
            "update_every": "4 steps",
            "target_update_every": "1 updates",
            "tau": 0.02,
            "learning_rate": 0.002,
            "learning_rate_schedule": "linear",
            "learning_starts": 5_000,
            "epsilon_min": 0.05,
            "epsilon_steps": 100_000,  # the goal is found by chance, so exploration gets two thirds of the run
        },
        "LunarLander-v3": {
            "total_steps": 150_000,
            "num_envs": 8,
            "hidden_dim": 128,
            "layer_norm": True,
            "gamma": 0.995,  # a landing takes some 300 steps: at 0.99 its reward is invisible from the start
            "double": True,
            "n_step": 3,
            "replay_capacity": 200_000,  # the whole run, so that early crashes are not forgotten
            "batch_size": 128,
            "update_every": "2 steps",
            "target_update_every": "1 updates",
            "tau": 0.02,
            "learning_rate": 0.001,
            "learning_rate_schedule": "linear",
            "learning_starts": 1_000,
            "epsilon_min": 0.05,
            "epsilon_steps": 20_000,
        },
    },
}

ALGORITHM_PRESETS: Mapping[str, Mapping[str, Mapping[str, Mapping[str, Any]]]] = {
    # Without a replay a step costs a tenth of an update or less, so there can be ten times as many. Longer returns than
    # the paper's: a point in Pong comes some 25 steps after the hit that won it.
    "fast": {
        ATARI: {
            "pqn": {
                "total_steps": 2_500_000,
                "num_envs": 32,
                "actor_sync_every": "1024 steps",
                "frame_size": 60,  # at 44 Breakout's ball is hard to see
                "learning_rate": 0.00025,  # with twice that Breakout makes little progress
                "frame_stack": 2,  # enough for the direction of the ball, and saves half the first convolution
                "dueling": False,
                "trace_lambda": 0.9,
                "gradient_steps": 48,  # three passes
                "learning_rate_end": 0.00001,  # values after a mistake become accurate late
                "epsilon_min": 0.05,  # as in the evaluation: returns are those of the policy that acts
                "epsilon_steps": 100_000,
                "log_every": "50000 steps",
                "eval_every": "500000 steps",
                "checkpoint_every": "500000 steps",
            },
        },
        # As tuned and measured before the other games' settings were fixed on Breakout.
        "ALE/Pong-v5": {"pqn": {"frame_size": 44, "actor_sync_every": None, "learning_rate": 0.0005}},
    },
    "paper": {
        # Table 1 of https://arxiv.org/abs/1710.02298, in steps of 4 frames, without settings specific to Atari images.
        ANY: {
            "rainbow": {
                "num_envs": 1,
                "learning_rate": 6.25e-5,
                "adam_epsilon": 1.5e-4,
                "batch_size": 32,
                "update_every": "4 steps",
                "target_update_every": "8000 steps",  # 32,000 frames
                "learning_starts": 20_000,  # 80,000 frames
                "replay_capacity": 1_000_000,
                "gamma": 0.99,
                "n_step": 3,
                "priority_exponent": 0.5,
                "importance_exponent": 0.4,
                "noisy_sigma": 0.5,
                "epsilon": 0.0,
                "epsilon_min": 0.0,
                "reward_clip": 1.0,  # the range below is for clipped rewards
                "atoms": 51,
                "v_min": -10.0,
                "v_max": 10.0,
            },
            # https://arxiv.org/abs/2411.03820 and its code, in steps of 4 frames.
            "beyond": {
                "total_steps": 50_000_000,
                "num_envs": 64,
                "learning_rate": 1e-4,
                "adam_epsilon": 0.005 / 256,
                "batch_size": 256,
                "update_every": "64 steps",
                "target_update_every": "500 updates",
                "learning_starts": 200_000,
                "replay_capacity": 1_048_576,
                "gamma": 0.997,
                "n_step": 3,
                "priority_exponent": 0.2,
                "quantile_samples": 8,
                "epsilon_min": 0.01,
                "epsilon_steps": 2_000_000,
                "reward_clip": 1.0,
            },
            # https://arxiv.org/abs/2407.04811 and its code's settings for Atari, in steps of 4 frames.
            "pqn": {
                "total_steps": 10_000_000,
                "num_envs": 128,
                "rollout_steps": 4096,  # 32 of each
                "target_update_every": "4096 steps",
                "gradient_steps": 64,  # two passes
                "batch_size": 128,
                "learning_rate": 0.00025,
                "gamma": 0.99,
                "trace_lambda": 0.65,
                "epsilon_min": 0.001,
                "epsilon_steps": 1_000_000,
                "reward_clip": 1.0,
            },
        },
        ATARI: {"beyond": {"torso": "impala_cnn", "hidden_dim": 512}},
    },
    # Untuned first choices, except for CartPole and LunarLander's qr-dqn and beyond. Distributional losses need a
    # smaller step size than scalars with the squared loss.
    "tuned": {
        # Noise alone, or a fifth of it, gets stuck at 130; with ε added, CartPole is solved. Rainbow needs no ε.
        "CartPole-v1": {"noisy": {"epsilon": 1.0, "epsilon_min": 0.02}},
        "Acrobot-v1": {
            "rainbow": {"learning_rate": 0.0005, "n_step": 5},
            "beyond": {"learning_rate": 0.0005, "n_step": 5},
        },
        "MountainCar-v0": {
            # Noise in the last layer alone hardly ever finds the goal, so ε is kept as well.
            "noisy": {"epsilon": 1.0, "epsilon_min": 0.05},
            "rainbow": {"epsilon": 1.0, "epsilon_min": 0.05, "learning_rate": 0.001, "n_step": 5},
            "beyond": {"learning_rate": 0.001, "n_step": 5},
            **{name: {"learning_rate": 0.001} for name in ("c51", "qr-dqn", "iqn")},
        },
        "LunarLander-v3": {
            **{name: {"learning_rate": 0.0005} for name in ("c51", "iqn", "rainbow")},
            # Q-values are in the hundreds here and those of two actions are close: their order changes with each noise
            # draw, and Munchausen's bonus, which depends on it, would cost up to 0.9 a step at random.
            "beyond": {"noisy": False},
        },
    },
}


def resolve_preset(name: str | None, env: str) -> tuple[str, dict[str, Any]]:
    """Return the preset's name and its settings for an environment, including the range of its returns if known.

    Without a name, a tuned environment gets `tuned`, an Atari game `fast`, any other `general`.

    Raises:
        ConfigError: there is no such preset, or it has no settings for this environment.
    """
    if name is None:
        name = "tuned" if env in PRESETS["tuned"] else "fast" if is_atari(env) else "general"
    if not isinstance(name, str):
        raise ConfigError(f"preset = {name!r}: needs one of {', '.join(PRESETS)}, or none")
    if name not in PRESETS:
        raise ConfigError(f"no preset {name!r}: there are {', '.join(PRESETS)}{nearest(name, PRESETS)}")
    settings = PRESETS[name]
    kind = ATARI if is_atari(env) and ATARI in settings else ANY
    if env not in settings and kind not in settings:
        raise ConfigError(f"preset {name!r} has no settings for {env}: it has them for {', '.join(settings)}")
    return name, {**range_of_returns(env), **settings.get(env, settings.get(kind, {}))}


def settled(values: Mapping[str, Any], own: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return settings adjusted to the user's, and a line for each one dropped for that.

    Args:
        values: the settings from a preset, an algorithm or a file.
        own: the user's settings, as values or as the text of flags; they override the others.
    """
    changed, said = dict(values), []
    for name, off, text in (("eval_every", None, "none"), ("eval_episodes", 0, "0")):
        if name not in own or own[name] != off:
            continue
        if name == "eval_episodes" and "eval_every" not in own:
            changed["eval_every"] = None
        if changed.get("target_return") is not None and "target_return" not in own:
            said.append(
                f"{name} {text}: without evaluations before the end, the target return of "
                f"{changed['target_return']:g} can't end the run"
            )
            changed["target_return"] = None
    each_rollout = changed.get("target_update_every") == f"{changed.get('rollout_steps')} steps"
    if each_rollout and "rollout_steps" in own:
        changed["target_update_every"] = f"{own['rollout_steps']} steps"  # the target network still follows each
    changed = in_steps(changed, own)
    known = {"epsilon_schedule": TrainConfig.epsilon_schedule, **changed, **own}
    if "total_steps" in known and "epsilon_steps" not in known and known["epsilon_schedule"] == "linear":
        total, starts = (whole_number(str(known.get(name, usual))) for name, usual in USUAL_STEPS.items())
        if total is not None and starts is not None:  # otherwise parsing reports the error
            changed["epsilon_steps"] = max(1, min(TrainConfig.epsilon_steps, int(EXPLORING * (total - starts))))
    return changed, said


def in_steps(values: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with every `Share` replaced by its number of steps."""
    total = whole_number(str({**USUAL_STEPS, **values, **own}["total_steps"]))
    steps = USUAL_STEPS["total_steps"] if total is None else total  # parsing reports what is no number
    return {name: value.of(steps) if isinstance(value, Share) else value for name, value in values.items()}


def range_of_returns(env: str) -> dict[str, Any]:
    """Return `v_min` and `v_max` of an environment, or nothing if they are unknown."""
    return dict(zip(("v_min", "v_max"), RETURN_RANGES[env], strict=True)) if env in RETURN_RANGES else {}


def algorithm_preset(name: str | None, env: str, algorithm: str) -> dict[str, Any]:
    """Return a resolved preset's settings for an algorithm in an environment, which override the algorithm's.

    Raises:
        ConfigError: the preset is organised by algorithm and has no settings for this one.
    """
    by_environment = ALGORITHM_PRESETS.get(name, {}) if name is not None else {}
    if ANY in by_environment and algorithm not in by_environment[ANY]:
        known = ", ".join(by_environment[ANY])
        raise ConfigError(f"preset {name!r} has no settings for the algorithm {algorithm!r}: it has them for {known}")
    kinds = [ANY, *([ATARI] if is_atari(env) else []), canonical(env)]
    return {key: value for kind in kinds for key, value in by_environment.get(kind, {}).get(algorithm, {}).items()}
