"""Playing a training episode again, from its seed and actions."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nexus.api import config_of
from nexus.core.errors import ConfigError, EnvError, RunError, one_line
from nexus.envs.episodes import GO_ON_OPTION
from nexus.envs.statistics import Running
from nexus.envs.stream import LONGEST_EPISODE
from nexus.inspection.saved_replay import dims_of
from nexus.training.curves import read_episodes
from nexus.training.kept_episodes import KeptEpisode, read_kept_episode
from nexus.training.run_folder import EPISODES_FILE

__all__ = ["StateAgain", "TrainingEpisode", "played_again", "training_episode"]


@dataclass(frozen=True)
class TrainingEpisode:
    """A training episode, and what it came to in training.

    Args:
        kept: the episode.
        episode_return: its return; None of one that has not ended.
        length: its steps.
    """

    kept: KeptEpisode
    episode_return: float | None
    length: int

    def __str__(self) -> str:
        if self.episode_return is None:
            return f"the episode in progress in sub-environment {self.kept.env} had {self.length} steps"
        return f"episode {self.kept.number} had {self.length} steps and return {self.episode_return!r} in training"


class StateAgain(NamedTuple):
    """A state of an episode that is played again."""

    state: Any
    episode_return: float  # so far
    length: int  # steps so far


def training_episode(run: Path, about: Mapping[str, Any], number: int) -> TrainingEpisode:
    """Return a training episode of a run.

    Args:
        run: the run's folder.
        about: its `run.json`.
        number: from 1, as in `episodes.csv`.

    Raises:
        ConfigError: there is no such episode; names the range.
        RunError: the run keeps no episodes, or a file is missing or damaged.
    """
    if not config_of(about, run).keep_episodes:
        raise RunError(f"{run} has not kept its training episodes: train with --keep-episodes")
    _, action_dim = dims_of(about, run)
    kept = read_kept_episode(run, number, action_dim)
    logged = read_episodes(run)
    (found,) = np.nonzero(logged["episode"] == number)
    if not len(found):
        raise RunError(f"{run / EPISODES_FILE} has no episode {number}, or not yet")
    row = {name: values[found[0]] for name, values in logged.items()}
    return TrainingEpisode(kept, float(row["return"]), int(row["length"]))


def played_again(env: Any, episode: TrainingEpisode, name: str) -> Iterator[StateAgain]:
    """Play a training episode again; yields its first state, and the state after each step.

    Args:
        env: the environment, made as in training.
        episode: the episode.
        name: of the environment, for errors.

    Raises:
        ConfigError: the environment has other actions.
        EnvError: it isn't reproducible: return or length differ from those in training, or it raised an error.
    """
    kept, most = episode.kept, int(env.action_space.n)
    if kept.actions.max() >= most:
        raise ConfigError(f"{name} has {most} actions: episode {kept.number} has action {kept.actions.max()}")

    def otherwise(what: str) -> EnvError:
        return EnvError(f"{name} isn't reproducible: {episode}; played again it {what}")

    def call(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        try:
            return function(*arguments, **options)
        except Exception as error:
            raise otherwise(f"failed: {one_line(error)}") from error

    state = begun_again(env, kept, call)
    episode_return, done = 0.0, False
    yield StateAgain(state, episode_return, 0)
    for length, action in enumerate(kept.actions.tolist(), 1):
        state, reward, terminated, truncated, _ = call(env.step, action)
        episode_return, done = episode_return + float(reward), terminated or truncated
        yield StateAgain(state, episode_return, length)
        if done and length < len(kept.actions):
            raise otherwise(f"ended after {length} steps")
    if episode.episode_return is None:
        return
    if not done and len(kept.actions) < LONGEST_EPISODE:
        raise otherwise("did not end there")
    if (episode_return, len(kept.actions)) != (episode.episode_return, episode.length):
        raise otherwise(f"had {len(kept.actions)} steps and return {episode_return!r}")


def begun_again(env: Any, kept: KeptEpisode, call: Callable[..., Any]) -> Any:
    """Begin the episode as in training, and return its first state."""
    if kept.statistics:
        running = Running(env)
        call(running.put, {**running.get(), **kept.statistics})
    state, _ = call(env.reset, seed=kept.first_seed)
    for earlier in kept.before:  # of an Atari game, which is shown only from the episode on
        for action in earlier.actions.tolist():
            call(env.unwrapped.step, action)
    if kept.before:
        state, _ = call(env.reset, options={GO_ON_OPTION: True})
    return state
