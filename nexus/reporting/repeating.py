"""The command line that trains a run again, from its settings alone."""

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from nexus.core.errors import ConfigError, NexusError
from nexus.core.importable import is_import_name
from nexus.lineage import lineage_text
from nexus.resolver import resolve
from nexus.training.config import TrainConfig
from nexus.training.edited import setting_arguments

__all__ = ["command_to_repeat", "limits_of_command"]

OTHERWISE = "plain"  # the preset that a run of no preset is compared with: it adds nothing


def command_to_repeat(about: Mapping[str, Any], config: TrainConfig | None, folder: Path) -> str | None:
    """Return a command that trains with exactly a run's settings; None if its environment was a function.

    It needs only this version of nexus and the environment, unless the settings can't be given as flags: then it names
    the run's folder.

    Args:
        about: the contents of `run.json`.
        config: the run's settings; None if they can't be read.
        folder: the run's folder.
    """
    env, preset = about.get("env"), about.get("preset")
    if not isinstance(env, str) or not about.get("env_is_id", True):
        return None
    from_folder = shlex.join(["nexus", "train", "--config", str(folder)])
    # A part of the user's own would have to be imported, which reading a run never does.
    if config is None or is_import_name(config.algorithm):
        return from_folder
    preset = preset if isinstance(preset, str) else OTHERWISE
    try:
        own = settings_to_give(env, preset, config)
    except NexusError:  # such as a preset of another version
        return from_folder
    values = {name: value for name, value in config.to_mapping().items() if name in own}
    words = [word for name, value in values.items() for word in arguments_of(name, value)]
    return shlex.join(["nexus", "train", env, "--preset", preset, *words])


def settings_to_give(env: str, preset: str, config: TrainConfig) -> dict[str, Any]:
    """Return the settings that make a preset into a config.

    A setting that is given can change others, as a short run shortens the decay of ε; those are then given, too.

    Raises:
        ConfigError: the preset is unknown, or no settings make it into this config.
    """
    wanted = values_of_settings(config)
    own: dict[str, Any] = {"algorithm": config.algorithm}
    for _ in wanted:
        found = values_of_settings(resolve(env, own, preset).config)
        missing = {name: value for name, value in wanted.items() if found[name] != value}
        if not missing:
            return own
        if missing.keys() <= own.keys():
            break
        own |= missing
    raise ConfigError(f"preset {preset} can't be made into these settings")


def values_of_settings(config: TrainConfig) -> dict[str, Any]:
    """Return all settings by name, as the config has them."""
    return {field.name: getattr(config, field.name) for field in fields(config)}


def arguments_of(name: str, value: Any) -> list[str]:
    """Return the arguments that pass a setting to `nexus train`, given its value as in `run.json`."""
    if isinstance(value, Mapping):
        return [f"--{name.replace('_', '-')}", *(f"{key}={json.dumps(given)}" for key, given in value.items())]
    if isinstance(value, list):
        return [f"--{name.replace('_', '-')}", ",".join(value) if value else "none"]
    return setting_arguments(name, value)


def limits_of_command(about: Mapping[str, Any]) -> Iterator[str]:
    """Yield what the command does not repeat."""
    if not about.get("env_is_id", True):
        yield (
            f"The environment was the Python function {about.get('env')}, which a folder does not store: pass it to "
            "nexus.train with the settings above."
        )
    start = lineage_text(about.get("from"))
    if start is not None:
        yield f"The run started with {start}; the command starts with fresh weights."
