"""Alternative names of algorithms, such as `DDQN`, `double_dqn` and `C-51`, and of settings, such as `lr`."""

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from nexus.core.errors import ConfigError
from nexus.core.importable import is_import_name

__all__ = ["ALIASES", "REGISTERED", "TrackerName", "algorithm_name", "current_names", "is_taken"]

TrackerName: TypeAlias = Literal["wandb", "mlflow", "trackio"]
"""Here, so that the command line's help need not import a run's code."""

# Names of a setting in other libraries, and its earlier names here -> its present name. They work as flags (with
# dashes), in config files, in run.json and as keyword arguments.
ALIASES: Mapping[str, str] = {
    "algo": "algorithm",
    "buffer_size": "replay_capacity",
    "lr": "learning_rate",
    "n_timesteps": "total_steps",
    "total_timesteps": "total_steps",
    "trace_decay": "trace_lambda",  # until format 3
    "updates_each": "gradient_steps",  # likewise
}

# Name without case, dashes and blanks -> name used here.
CALLED: Mapping[str, str] = {
    "dqn": "dqn",
    "double": "double",
    "ddqn": "double",
    "doubledqn": "double",
    "dueling": "dueling",
    "duelingdqn": "dueling",
    "prioritized": "prioritized",
    "prioritizeddqn": "prioritized",
    "nstep": "n-step",
    "nstepdqn": "n-step",
    "noisy": "noisy",
    "noisydqn": "noisy",
    "noisynet": "noisy",
    "munchausen": "munchausen",
    "munchausendqn": "munchausen",
    "mdqn": "munchausen",
    "bootstrapped": "bootstrapped",
    "bootstrappeddqn": "bootstrapped",
    "bootdqn": "bootstrapped",
    "c51": "c51",
    "categorical": "c51",
    "categoricaldqn": "c51",
    "qrdqn": "qr-dqn",
    "iqn": "iqn",
    "pqn": "pqn",
    "rainbow": "rainbow",
    "rainbowdqn": "rainbow",
    "beyond": "beyond",
    "beyondtherainbow": "beyond",
    "btr": "beyond",
}
# Algorithm names that are combinations of parts here, and the flags that choose them.
PARTS: Mapping[str, str] = {
    "per": "--prioritized, with any algorithm",
    "prioritizedreplay": "--prioritized, with any algorithm",
    "prioritizedexperiencereplay": "--prioritized, with any algorithm",
    "d3qn": "--double --dueling",
    "duelingdoubledqn": "--double --dueling",
    "doubleduelingdqn": "--double --dueling",
    "miqn": "--algo iqn --munchausen",
}
# Names of algorithms that users have registered -> `module:name`, under which another process finds them.
REGISTERED: dict[str, str] = {}


def algorithm_name(name: Any) -> str:
    """Return the name used here for an algorithm; unknown names are returned unchanged.

    Raises:
        ConfigError: it is not text, or it is a combination of flags here; the message names them.
    """
    if not isinstance(name, str):
        raise ConfigError(f"algorithm = {name}: needs text")
    if is_import_name(name):
        return name
    if bare(name) in PARTS:
        raise ConfigError(f"algorithm {name!r} is a combination of flags here: {PARTS[bare(name)]}")
    return CALLED.get(bare(name), REGISTERED.get(name, name))


def is_taken(name: str) -> bool:
    """True if an algorithm or a combination of flags has this name here."""
    return bare(name) in CALLED or bare(name) in PARTS


def bare(name: str) -> str:
    """Return a name without case, dashes and blanks."""
    return "".join(filter(str.isalnum, name.casefold()))


def current_names(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings under their current names.

    Until format 3, `replay_capacity` and `update_every` together gave the length of a PQN rollout.

    Raises:
        ConfigError: a setting is given under two of its names.
    """
    given: dict[str, str] = {}  # name now -> name used
    for name in settings:
        now = ALIASES.get(name, name)
        if now in given:
            raise ConfigError(f"{given[now]} and {name} are the same setting, {now}: give it once")
        given[now] = name
    current = {now: settings[name] for now, name in given.items()}
    said_before = "rollout_steps" not in current and "replay_capacity" in current and is_pqn(current)
    if said_before and str(current.get("update_every")) == f"{current['replay_capacity']} steps":
        current |= {"rollout_steps": current["replay_capacity"], "update_every": None}
    return current


def is_pqn(settings: Mapping[str, Any]) -> bool:
    """True if settings name the algorithm PQN."""
    name = settings.get("algorithm")
    return isinstance(name, str) and algorithm_name(name) == "pqn"
