"""A `run.json` that was changed after it was written: what it said is in the checkpoints, too."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nexus.core.checked import show
from nexus.core.errors import ConfigError, RunError
from nexus.core.installation import nexus_command
from nexus.core.names import current_names
from nexus.training.checkpoint import Checkpoint, read_checkpoint
from nexus.training.checkpoint_writer import Checkpoints
from nexus.training.config import TrainConfig
from nexus.training.files import JSON_LIMIT, inside, read_json
from nexus.training.run_folder import EVALUATION_FILE, FORMAT, RUN_FILE, read_run

__all__ = ["named_now", "read_run_or_copy", "read_unedited_run"]

COPIED_SINCE = 3  # the first format whose checkpoints tell the settings
NAMED = 3  # changes that are spelled out
LONGEST = 60  # characters of a value that are


def read_run_or_copy(folder: str | os.PathLike[str], notice: Callable[[str], object]) -> dict[str, Any]:
    """Return what `run.json` says; if it fails its checksum, what the newest checkpoint says of the run instead.

    Args:
        folder: the run's.
        notice: told which settings are others in `run.json`.

    Raises:
        RunError: the folder is missing, is no run, was written by a newer format, or has no such checkpoint.
    """
    try:
        return read_run(folder)
    except RunError:
        found, changes = edits_of(Path(folder))
        if found is None:
            raise
    path, where = Path(folder) / RUN_FILE, f"checkpoint {found.steps}"
    how = f"was changed by hand: {named(changes)}" if changes else "differs from its checksum, in none of its settings"
    notice(f"{path} {how}; the run is read as {where} has it")
    return as_run(found)


def read_unedited_run(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what `run.json` says, for whoever goes on with the run.

    Raises:
        RunError: as `read_run` does; of settings that were changed by hand it says what to do with them.
    """
    try:
        return read_run(folder)
    except RunError:
        found, changes = edits_of(Path(folder))
        if found is None or not changes:
            raise
    flags = [word for name, (value, _) in changes.items() for word in flag_of(name, value)]
    anew = nexus_command("train", "--config", folder, *flags)
    raise RunError(
        f"{Path(folder) / RUN_FILE} was changed by hand: {named(changes)}. A run goes on as it began: undo that, or "
        f"train again: {anew}"
    )


def edits_of(folder: Path) -> tuple[Checkpoint | None, dict[str, tuple[Any, Any]]]:
    """Return the newest checkpoint that tells the settings of a run, and what a damaged `run.json` says instead.

    There is none unless that is JSON, and of a format that has such checkpoints.
    """
    said, usual = readable(folder), TrainConfig().to_mapping()
    if said is None:
        return None, {}
    for steps in Checkpoints(folder, keep=1).present():
        try:
            checkpoint = read_checkpoint(folder, steps)
        except RunError:
            continue
        if isinstance(checkpoint.about.get("config"), dict):
            ours, theirs = settings_in(checkpoint.about), settings_in(said)
            names = [name for name in ours if name not in theirs or theirs[name] != ours[name]]
            # A setting that there was not yet when the checkpoint was written had its default.
            names += [name for name in theirs if name not in ours and theirs[name] != usual.get(name, MISSING)]
            return checkpoint, {name: (theirs.get(name, MISSING), ours.get(name, MISSING)) for name in names}
    return None, {}


class Missing:
    """Stands for a setting that is not there."""

    def __str__(self) -> str:
        return "missing"


MISSING = Missing()


def readable(folder: Path) -> dict[str, Any] | None:
    """Return what a `run.json` says whatever its checksum, if there may be copies of its settings; else None."""
    try:
        path = inside(folder, RUN_FILE)
        size = path.stat().st_size
        if size > JSON_LIMIT:
            return None
        with path.open("rb") as file:
            values = json.loads(file.read(size).decode("utf-8"))
    except (RunError, OSError, ValueError, RecursionError):
        return None
    format_there = values.get("format") if isinstance(values, dict) else None
    is_run = isinstance(format_there, int) and COPIED_SINCE <= format_there <= FORMAT
    return values if is_run and isinstance(values.get("config"), dict) else None


def settings_in(about: Mapping[str, Any]) -> dict[str, Any]:
    """Return environment and settings by name; those that the agent alone has as `agent.NAME`."""
    config, agent = about.get("config"), about.get("agent")
    settings = {"env": about.get("env"), **(named_now(config) if isinstance(config, dict) else {})}
    own = {name: value for name, value in agent.items() if name not in settings} if isinstance(agent, dict) else {}
    return {**settings, **{f"agent.{name}": value for name, value in own.items()}}


def named_now(config: dict[str, Any]) -> dict[str, Any]:
    """Return settings under the names that they have now; as they are where one is there twice."""
    try:
        return current_names(config)
    except ConfigError:
        return config


def named(changes: Mapping[str, tuple[Any, Any]]) -> str:
    """Say which settings are others."""
    said = [f"{name} is {short(value)} there, the run has {short(own)}" for name, (value, own) in changes.items()]
    more = f", and {len(said) - NAMED} more" if len(said) > NAMED else ""
    return ", ".join(said[:NAMED]) + more


def short(value: Any) -> str:
    """Print a value as a config has it, on one line."""
    text = " ".join(show(value).split())
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def flag_of(name: str, value: Any) -> list[str]:
    """Return the words that give a setting to `nexus train`, if there are any."""
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no-{flag}"]
    if value is None or isinstance(value, int | float | str):
        return [] if name.startswith("agent.") else [f"--{flag}", "none" if value is None else str(value)]
    return []


def as_run(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return what `run.json` would say had the run come as far as a checkpoint; finished if it was evaluated there."""
    values = checkpoint.values
    progress = {name: values.get(f"counters.{name}") for name in ("steps", "episodes", "updates")}
    try:
        evaluated = read_json(inside(checkpoint.run, EVALUATION_FILE)).get("steps")
    except RunError:
        evaluated = None
    return {
        **checkpoint.about,
        "format": FORMAT,
        "status": "finished" if evaluated == checkpoint.steps else "running",
        "progress": progress,
        "seconds": values.get("seconds"),
        "versions": checkpoint.versions,
    }
