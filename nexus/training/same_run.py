"""Checking that the files in a run folder belong together: an undamaged file may be from another run."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from nexus.core.checked import config_text
from nexus.core.errors import ConfigError, RunError
from nexus.training.checkpoint_writer import Checkpoints
from nexus.training.config import TrainConfig
from nexus.training.files import Mark, mark_of
from nexus.training.run_folder import AGENT_FILE, RUN_FILE

__all__ = ["has_final_weights", "mark_of_weights", "require_same_run", "require_score_of_weights"]

WEIGHTS = "weights"  # in `run.json` and `evaluation.json`: the mark of `agent.safetensors`
SHAPES = ("state_dim", "action_dim")  # shapes of an agent
CHANGED_BY_RESUME = {"total_steps", "on_divergence", "device", "target_return", "doctor"}


def require_same_run(ours: Mapping[str, Any], theirs: Mapping[str, Any], name: str) -> None:
    """Raise `RunError` unless a file was written by the run whose folder it is in.

    Skips the environment and other settings that `resume` can change, and those that only one of the two
    has, since another version may have written it.

    Args:
        ours: `config` and `agent` from `run.json`.
        theirs: the same from the file; empty if an older version wrote none.
        name: name of the file.
    """
    our, their = settings_and_shapes(ours), settings_and_shapes(theirs)
    for key in sorted(named_in(ours) & named_in(theirs) & our.keys() & their.keys() - CHANGED_BY_RESUME):
        if our[key] != their[key]:
            raise RunError(
                f"{name} is from another run: its {key} is {config_text(their[key])}, "
                f"{RUN_FILE} has {config_text(our[key])}"
            )


def named_in(about: Mapping[str, Any]) -> set[str]:
    """Return the named settings and the shapes."""
    config, agent = (about.get(kind) for kind in ("config", "agent"))
    shapes = {key for key in SHAPES if key in agent} if isinstance(agent, Mapping) else set()
    return {*config, *shapes} if isinstance(config, Mapping) else shapes


def settings_and_shapes(about: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings and shapes as this version reads them; those that it can't read unchanged."""
    config, agent = (value if isinstance(value := about.get(kind), Mapping) else {} for kind in ("config", "agent"))
    with suppress(ConfigError, TypeError):
        config = TrainConfig.from_mapping(config).to_mapping()
    return {**config, **{key: agent[key] for key in SHAPES if key in agent}}


def has_final_weights(about: Mapping[str, Any], run: Path) -> bool:
    """True if `agent.safetensors` matches `run.json`; false during a run, or after a kill."""
    return about.get("status") != "running" or not Checkpoints(run, keep=1).present()


def mark_of_weights(values: Mapping[str, Any]) -> Mark | None:
    """Return the mark of the weights in `run.json` or `evaluation.json`; None from an older version.

    Raises:
        RunError: it can't be read.
    """
    return None if values.get(WEIGHTS) is None else mark_of(values[WEIGHTS], AGENT_FILE)


def require_score_of_weights(about: Mapping[str, Any], evaluation: Mapping[str, Any], path: Path) -> None:
    """Raise `RunError` if an evaluation scores other weights than those named in `run.json`.

    Args:
        about: contents of `run.json`.
        evaluation: contents of `evaluation.json`.
        path: path of `evaluation.json`.
    """
    of_run, scored = mark_of_weights(about), mark_of_weights(evaluation)
    if of_run is not None and scored is not None and of_run != scored and has_final_weights(about, path.parent):
        raise RunError(f"{path} scores other weights than those in this run's {AGENT_FILE}")
