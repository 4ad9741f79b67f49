"""The replay of a run's newest checkpoint, read without the run's environment."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nexus.core.errors import ConfigError, RunError, one_line
from nexus.core.state import State, part, value_from
from nexus.core.types import Ints
from nexus.data.replay import Replay
from nexus.models.setup import pop_dims
from nexus.training.checkpoint import FRAMES, Checkpoint, read_checkpoint
from nexus.training.checkpoint_writer import Checkpoints
from nexus.training.config import TrainConfig
from nexus.training.replays import replay_for
from nexus.training.run_folder import RUN_FILE
from nexus.training.same_run import require_same_run

__all__ = ["AT_ONCE", "SavedReplay", "saved_replay", "saved_size"]

AT_ONCE = 256  # rows whose states are unpacked at a time


@dataclass(frozen=True)
class SavedReplay:
    """A replay as it was at a checkpoint.

    Args:
        replay: the replay, in main memory.
        steps: steps of the run at the checkpoint.
        action_dim: number of actions `A`.
        state: everything else that the checkpoint has of the run.
    """

    replay: Replay
    steps: int
    action_dim: int
    state: State

    @property
    def numbers(self) -> Ints:
        """`[K]`, how many transitions the run had stored before each that is held, oldest first."""
        return np.arange(self.replay.added - len(self.replay), self.replay.added)


def saved_replay(run: Path, about: Mapping[str, Any], config: TrainConfig) -> SavedReplay:
    """Read the replay of the newest undamaged checkpoint.

    Args:
        run: the run's folder.
        about: its `run.json`.
        config: its settings.

    Raises:
        RunError: no replay was saved, or what was is damaged or does not fit into memory.
    """
    if config.has_rollouts:
        raise RunError("no replay was saved: pqn learns from each rollout once and keeps none")
    tried: list[int] = []
    damage: list[str] = []
    while True:
        present = Checkpoints(run, keep=1).present()
        if not present:
            raise RunError("no replay was saved: the run has no checkpoint")
        if present == tried:
            raise RunError(f"the replay can't be read: {'; '.join(damage)}")
        # A run in progress may replace a checkpoint while it is being read; then there is a newer one.
        tried, damage = present, []
        for steps in present:
            try:
                return replay_at(read_checkpoint(run, steps), about, config)
            except (RunError, ConfigError) as error:
                damage.append(f"checkpoint {steps}: {error}")


def saved_size(run: Path) -> tuple[int, int] | None:
    """Return the steps of a run's newest checkpoint and the bytes of its replay's files; None without a checkpoint.

    Raises:
        RunError: it is damaged.
    """
    present = Checkpoints(run, keep=1).present()
    if not present:
        return None
    return present[0], sum(chunk.mark.bytes for chunk in read_checkpoint(run, present[0]).chunks)


def replay_at(checkpoint: Checkpoint, about: Mapping[str, Any], config: TrainConfig) -> SavedReplay:
    """Return the replay of a checkpoint.

    Raises:
        RunError: it is of another run, or a file is missing or damaged.
        ConfigError: it does not fit into memory.
    """
    require_same_run(about, checkpoint.about, "it")
    shape, action_dim = dims_of(about, checkpoint.run)
    state = checkpoint.read_state(limit=checkpoint.arrays.bytes)
    dtype = state_dtype(checkpoint, state)
    on_host = replace(config, replay_store="compressed") if config.replay_store == "device" else config
    replay = replay_for(on_host, shape, dtype)
    assert isinstance(replay, Replay)
    replay.set_state(part(state, "replay"))
    for series in replay.series(shape, dtype, action_dim):
        checkpoint.restore_series(series)
    return SavedReplay(replay, checkpoint.steps, action_dim, state)


def dims_of(about: Mapping[str, Any], run: Path) -> tuple[tuple[int, ...], int]:
    """Return the shape of a run's states and its number of actions.

    Raises:
        RunError: `run.json` does not say.
    """
    try:
        return pop_dims(dict(value_from(dict(about), "agent", dict)))
    except (RunError, ConfigError, TypeError, ValueError) as error:
        raise RunError(f"{run / RUN_FILE} does not describe its agent: {one_line(error)}") from None


def state_dtype(checkpoint: Checkpoint, state: State) -> np.dtype[Any]:
    """Return the dtype of a checkpoint's states: of those being acted on, which older formats lack.

    Plain rows have the dtype of their chunks; there this one only bounds the size of a chunk.
    """
    acted_on = state.get("stream.states")
    if isinstance(acted_on, np.ndarray):
        return np.dtype(acted_on.dtype)
    are_frames = any(chunk.series == FRAMES for chunk in checkpoint.chunks)
    return np.dtype(np.uint8 if are_frames else np.float64)
