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
        "CartPole-v1": {},
        "Acrobot-v1": {},
        "MountainCar-v0": {},
        "LunarLander-v3": {},
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
