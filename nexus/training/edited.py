"""Handling a `run.json` that was edited: its original contents are also in the checkpoints."""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from nexus.core.checked import config_text
from nexus.core.errors import ConfigError, RunError
from nexus.core.installation import nexus_command
from nexus.core.names import current_names
from nexus.core.settings import NetworkSettings
from nexus.training.checkpoint import Checkpoint, read_checkpoint
from nexus.training.checkpoint_writer import Checkpoints
from nexus.training.config import TrainConfig
from nexus.training.files import JSON_LIMIT, file_in, read_json
from nexus.training.run_folder import EVALUATION_FILE, FORMAT, RUN_FILE, read_run

__all__ = ["named_now", "read_run_or_copy", "read_unedited_run"]

COPIED_SINCE = 3  # the first format whose checkpoints contain the settings
NAMED = 3  # number of changes listed
OF_NETWORK = {"algorithm", "noisy", "atoms", "quantiles", *(field.name for field in fields(NetworkSettings))}
LONGEST_VALUE = 60  # characters of a listed value


def read_run_or_copy(folder: str | os.PathLike[str], notice: Callable[[str], object]) -> dict[str, Any]:
    """Return the contents of `run.json`, or those in the newest checkpoint if `run.json` fails its checksum.

    Args:
        folder: the run's folder.
        notice: called with the settings that differ in `run.json`.

    Raises:
        RunError: the folder is missing, is not a run, has a newer format, or has no such checkpoint.
    """
    try:
        return read_run(folder)
    except RunError:
        found, changes = edits_of(Path(folder))
        if found is None:
            raise
    path, where = Path(folder) / RUN_FILE, f"checkpoint {found.steps}"
    how = f"was changed by hand: {changes_text(changes)}" if changes else "differs from its checksum, but in no setting"
    notice(f"{path} {how}; reading the run from {where}")
    return as_run(found)


def read_unedited_run(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the contents of `run.json`, to continue the run.

    Raises:
        RunError: as in `read_run`; if settings were edited by hand, the message says what to do.
    """
    try:
        return read_run(folder)
    except RunError:
        found, changes = edits_of(Path(folder))
        if found is None or not changes:
            raise
    flags = [word for name, (value, _) in changes.items() for word in setting_arguments(name, value)]
    # Its weights fit another learning rate, but not another network.
    own = any(name in OF_NETWORK or name.startswith("agent.") for name in changes)
    fits = not own and bool(Checkpoints(Path(folder), keep=1).present())
    command = nexus_command("train", "--from" if fits else "--config", folder, *flags)
    what = "start another run with its weights" if fits else "train again"
    raise RunError(
        f"{Path(folder) / RUN_FILE} was changed by hand: {changes_text(changes)}. A run resumes with its original "
        f"settings: undo the change, or {what}: {command}"
    )


def edits_of(folder: Path) -> tuple[Checkpoint | None, dict[str, tuple[Any, Any]]]:
    """Return the newest checkpoint with the settings of a run, and how a damaged `run.json` differs.

    The checkpoint is None unless `run.json` is JSON in a format with such checkpoints.
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
            ours, theirs = settings_by_name(checkpoint.about), settings_by_name(said)
            names = [name for name in ours if name not in theirs or theirs[name] != ours[name]]
            # A setting that did not exist when the checkpoint was written had its default.
            names += [name for name in theirs if name not in ours and theirs[name] != usual.get(name, MISSING)]
            return checkpoint, {name: (theirs.get(name, MISSING), ours.get(name, MISSING)) for name in names}
    return None, {}


class Missing:
    """Stands for a missing setting."""

    def __str__(self) -> str:
        return "missing"


MISSING = Missing()


def readable(folder: Path) -> dict[str, Any] | None:
    """Return the contents of a `run.json`, ignoring its checksum, if checkpoints can have its settings; else None."""
    try:
        path = file_in(folder, RUN_FILE)
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


def settings_by_name(about: Mapping[str, Any]) -> dict[str, Any]:
    """Return environment and settings by name; those only of the agent as `agent.NAME`."""
    config, agent = about.get("config"), about.get("agent")
    settings = {"env": about.get("env"), **(named_now(config) if isinstance(config, dict) else {})}
    own = {name: value for name, value in agent.items() if name not in settings} if isinstance(agent, dict) else {}
    return {**settings, **{f"agent.{name}": value for name, value in own.items()}}


def named_now(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings under their current names; unchanged if one would occur twice."""
    try:
        return current_names(config)
    except ConfigError:
        return dict(config)


def changes_text(changes: Mapping[str, tuple[Any, Any]]) -> str:
    """Return text on the settings that differ."""
    said = [
        f"{name} is {short_value(value)} in the file, {short_value(own)} in the run"
        for name, (value, own) in changes.items()
    ]
    more = f", and {len(said) - NAMED} more" if len(said) > NAMED else ""
    return ", ".join(said[:NAMED]) + more


def short_value(value: Any) -> str:
    """Return a value as in a config, on one line."""
    text = " ".join(config_text(value).split())
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}..."


def setting_arguments(name: str, value: Any) -> list[str]:
    """Return the arguments that pass a setting to `nexus train`, if there are any."""
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no-{flag}"]
    if value is None or isinstance(value, int | float | str):
        return [] if name.startswith("agent.") else [f"--{flag}", "none" if value is None else str(value)]
    return []


def as_run(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return `run.json` as it was at a checkpoint; the status is finished if the run was evaluated there."""
    values = checkpoint.values
    progress = {name: values.get(f"counters.{name}") for name in ("steps", "episodes", "updates")}
    try:
        evaluation = read_json(file_in(checkpoint.run, EVALUATION_FILE))
    except RunError:
        evaluation = {}
    return {
        **checkpoint.about,
        "format": FORMAT,
        "status": "finished" if evaluation.get("steps") == checkpoint.steps else "running",
        "weights": evaluation.get("weights"),
        "progress": progress,
        "seconds": values.get("seconds"),
        "versions": checkpoint.versions,
    }
