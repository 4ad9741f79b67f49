"""Settings as readable data: the seed's table, and what was tuned here for known environments."""

from collections.abc import Mapping
from typing import Any

from nexus.core.errors import ConfigError, nearest

__all__ = ["ANY", "PRESETS", "resolve_preset"]

ANY = "any environment"

PRESETS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    # The seed's "For simpler environments" table. One environment, one update a step, as in its training loop.
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
    },
    # Tuned on seeds from 1000 on; docs/results.md reports other seeds.
    "tuned": {
        # Positions and angles that count as much as speeds, a layer norm that keeps what a fast target would blow up,
        # and a learning rate that falls to nothing, so that what was learned stays.
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
            "layer_norm": True,
            "gamma": 0.995,
            "n_step": 5,
            "replay_capacity": 200_000,
            "batch_size": 128,
            "update_every": "4 steps",
            "target_update_every": "1 updates",
            "tau": 0.02,
            "learning_rate": 0.002,
            "learning_rate_schedule": "linear",
            "learning_starts": 5_000,
            "epsilon_min": 0.05,
            "epsilon_steps": 100_000,  # the goal is found by chance, so chance gets two thirds of the run
        },
        "LunarLander-v3": {
            "total_steps": 150_000,
            "num_envs": 8,
            "hidden_dim": 128,
            "layer_norm": True,
            "gamma": 0.995,  # a landing takes some 300 steps: at 0.99 its reward is out of sight from the start
            "n_step": 3,
            "replay_capacity": 200_000,  # all of the run: what early crashes taught is not forgotten
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


def resolve_preset(name: str | None, env: str) -> tuple[str | None, dict[str, Any]]:
    """Return the preset's name and its settings for an environment.

    Without a name, an environment that was tuned gets `tuned`, any other None and the plain defaults.

    Raises:
        ConfigError: there is no such preset, or it has nothing for this environment.
    """
    if name is None:
        return ("tuned", dict(PRESETS["tuned"][env])) if env in PRESETS["tuned"] else (None, {})
    if name not in PRESETS:
        raise ConfigError(f"no preset {name!r}: there are {', '.join(PRESETS)}{nearest(name, PRESETS)}")
    settings = PRESETS[name]
    if env not in settings and ANY not in settings:
        raise ConfigError(f"preset {name!r} has no settings for {env}: it has them for {', '.join(settings)}")
    return name, dict(settings.get(env, settings.get(ANY, {})))
