"""The settings of a run, combined from the environment, the preset, the algorithm and the user.

The command line and Python both call `resolve`, so the same settings give the same config.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nexus.core.checked import annotations_of, config_text
from nexus.core.errors import ConfigError
from nexus.core.importable import is_import_name
from nexus.core.names import algorithm_name, current_names
from nexus.envs.factory import EnvSource, name_of
from nexus.models.rl.dqn.rainbow import algorithm_named, require_free, with_own_settings
from nexus.training.config import TrainConfig
from nexus.training.presets import algorithm_preset, resolve_preset, settled

UNUSED_SETTINGS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "torso": (
        ("hidden_dim", "hidden_layers", "layer_norm", "channels", "standardize_images", "precision"),
        "makes all layers itself",
    ),
    "epsilon_schedule": (
        ("epsilon", "epsilon_min", "epsilon_decay", "epsilon_steps", "temperature", "temperature_min"),
        "sets the value at every step",
    ),
    "learning_rate_schedule": (
        ("learning_rate_end", "learning_rate_step", "learning_rate_factor"),
        "sets the factor at every step",
    ),
}
"""Settings that can name a part of the user's own -> the settings that it then does not use, and why."""

__all__ = ["Resolved", "resolve", "whole_or_resolved"]


@dataclass(frozen=True)
class Resolved:
    """The resolved settings of a run."""

    preset: str | None  # the name of the preset used
    config: TrainConfig
    notes: tuple[str, ...]  # what the user's settings overrode, one line each


def resolve(
    env: EnvSource, own: Mapping[str, Any], preset: str | None = None, file: Mapping[str, Any] | None = None
) -> Resolved:
    """Return the settings of a run, each layer overriding the one before.

    The layers: the range of the environment's returns, the preset's settings for the environment, the algorithm's, the
    preset's for that algorithm on that environment, and the user's. A file replaces the first two, and the
    next two as well unless the user names an algorithm.

    Args:
        env: an id or a function.
        own: the user's settings, under any of their names.
        preset: named settings; None takes those tuned for `env` if there are any, else `general`.
        file: the settings of a config file.

    Raises:
        ConfigError: the preset, the algorithm or a setting is unknown, a value is impossible, or both a preset and a
            file are given.
    """
    own, name = current_names(own), name_of(env)
    if file is None:
        preset, values = resolve_preset(preset, name)
    elif preset is None:
        values = current_names(file)
    else:
        raise ConfigError("--preset and --config each set everything: give only one")
    before = algorithm_name(values.get("algorithm", TrainConfig.algorithm))
    algorithm = algorithm_name(own.get("algorithm", before))
    chosen = algorithm_named(algorithm)
    if algorithm != before:
        values.pop("algorithm_settings", None)  # of the algorithm in the file
    if file is None or "algorithm" in own:
        values |= {**chosen.settings, **algorithm_preset(preset, name, algorithm)}
    if file is None and {**values, **own}.get("normalize_rewards") is True:
        values = {name: value for name, value in values.items() if name not in ("v_min", "v_max")}  # of plain rewards
    values, notes = settled(values, own)
    require_use(own)
    names = () if chosen.own is None else tuple(annotations_of(chosen.own))
    if chosen.own is not None:
        require_free(chosen.own, annotations_of(TrainConfig))
    whole = with_own_settings(chosen, {**values, **own})
    return Resolved(preset, TrainConfig.from_mapping(whole, names), tuple(notes))


def require_use(own: Mapping[str, Any]) -> None:
    """Raise `ConfigError` if the user gives a setting of which a part of their own, given too, makes no use."""
    for part, (unused, why) in UNUSED_SETTINGS.items():
        given = own.get(part)
        for name in unused if callable(given) or is_import_name(given) else ():
            if name in own and own[name] != getattr(TrainConfig, name):
                whose = given if isinstance(given, str) else getattr(given, "__qualname__", "of your own")
                raise ConfigError(f"{name} = {config_text(own[name])}: {part} {whose} {why}; leave {name} out")


def whole_or_resolved(
    env: EnvSource,
    preset: str | None,
    config: Any,
    settings: Mapping[str, Any],
    file: Mapping[str, Any] | None = None,
) -> Resolved:
    """Return the config if one is given, else the one that `resolve` makes from the settings.

    Raises:
        ConfigError: as in `resolve`; `config` is not a config, or comes with settings, which would be ignored.
    """
    if config is None:
        return resolve(env, settings, preset, file)
    if not isinstance(config, TrainConfig):
        kind = type(config).__name__
        raise ConfigError(f"config is a {kind}: needs a TrainConfig; pass single settings as keywords, as in gamma=0.9")
    if settings:
        raise ConfigError(f"config= contains all settings: {', '.join(settings)} would be ignored; put them into it")
    return Resolved(preset, config, ())
