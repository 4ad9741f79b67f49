"""Training episodes as seed and actions, one a line of `actions.jsonl`; `docs/runs.md` describes the file."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from nexus.core.errors import ConfigError, RunError
from nexus.core.types import Ints
from nexus.envs.episodes import EndedEpisode
from nexus.envs.statistics import Statistics, require_statistics
from nexus.training.files import file_in
from nexus.training.run_folder import ACTIONS_FILE

__all__ = ["KeptEpisode", "actions_line", "kept_episodes", "read_kept_episode"]

LETTERS = np.frombuffer(
    b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_", np.uint8
)  # digits, base 64
DIGITS = np.full(256, 255, np.uint8)  # the digit that a byte stands for; 255 for none
DIGITS[LETTERS] = np.arange(len(LETTERS))
LARGEST_LINE = 1 << 24  # bytes; far more than nexus writes


@dataclass(frozen=True)
class KeptEpisode:
    """A training episode as its seed and actions."""

    number: int  # from 1, as in `episodes.csv`
    env: int
    seed: int | None  # None if it continues with the generator of the episode before it in this sub-environment
    actions: Ints  # [T]
    statistics: Statistics = field(default_factory=dict)  # what scaled its rewards at its start
    before: tuple["KeptEpisode", ...] = ()  # the episodes between the last seed and this one, oldest first

    @property
    def first_seed(self) -> int | None:
        """The last seed of its sub-environment: its own, or that of an earlier episode."""
        return self.before[0].seed if self.before else self.seed


def digits_of(action_dim: int) -> int:
    """Return how many letters stand for an action."""
    width = 1
    while len(LETTERS) ** width < action_dim:
        width += 1
    return width


def letters_of(actions: Ints, action_dim: int) -> str:
    """Return actions `[T]` as text: each is a number in base 64."""
    powers = len(LETTERS) ** np.arange(digits_of(action_dim))[::-1]
    letters: bytes = LETTERS[actions[:, None] // powers % len(LETTERS)].tobytes()
    return letters.decode("ascii")


def actions_of(text: str, action_dim: int) -> Ints:
    """Undo `letters_of`.

    Raises:
        ValueError: it is no such text.
    """
    width = digits_of(action_dim)
    digits = DIGITS[np.frombuffer(text.encode("ascii"), np.uint8)]
    if (digits == 255).any() or len(digits) % width:
        raise ValueError("letters that stand for no action")
    powers = len(LETTERS) ** np.arange(width)[::-1]
    actions: Ints = digits.reshape(-1, width).astype(np.int64) @ powers
    if not len(actions) or actions.max() >= action_dim:
        raise ValueError(f"actions beyond 0 to {action_dim - 1}")
    return actions


def actions_line(number: int, episode: EndedEpisode, action_dim: int) -> str:
    """Return the line of an episode: `[number, env, seed, actions]`, and running statistics if there are any."""
    entries: list[Any] = [number, episode.env, episode.seed, letters_of(episode.actions, action_dim)]
    if episode.statistics:
        entries.append({name: values.tolist() for name, values in episode.statistics.items()})
    return json.dumps(entries, separators=(",", ":")) + "\n"


def episode_in(line: bytes, action_dim: int) -> KeptEpisode:
    """Read a line.

    Raises:
        ValueError: it is none.
    """
    match json.loads(line):
        case [int(number), int(env), int() | None as seed, str(text), *rest] if number > 0 <= env and len(rest) < 2:
            given = rest[0] if rest else {}
            if not isinstance(given, dict) or (seed is not None and seed < 0):
                raise ValueError("neither a seed nor statistics")
            statistics = {str(name): np.array(values, np.float64) for name, values in given.items()}
            return KeptEpisode(
                number, env, seed, actions_of(text, action_dim), require_statistics(statistics, ACTIONS_FILE)
            )
    raise ValueError("not an episode")


def kept_episodes(run: Path, action_dim: int) -> Iterator[KeptEpisode]:
    """Yield the kept episodes of a run in order, without those `before` them; an unfinished last line is skipped.

    Raises:
        RunError: the file is missing or damaged; names the line.
    """
    path = file_in(run, ACTIONS_FILE)
    try:
        with path.open("rb") as file:
            for number in range(1, 1 << 62):
                line = file.readline(LARGEST_LINE)
                if not line.endswith(b"\n") and len(line) < LARGEST_LINE:
                    return
                try:
                    yield episode_in(line, action_dim)
                except (ValueError, TypeError, RecursionError, OverflowError, RunError) as error:
                    raise RunError(f"{path} is damaged in line {number}: {error}") from None
    except OSError as error:
        raise RunError(f"can't read {path}: {error.strerror or error}") from None


def read_kept_episode(run: Path, number: int, action_dim: int) -> KeptEpisode:
    """Return a training episode of a run, with those that its generator has been through since the last seed.

    Args:
        run: the run's folder.
        number: from 1, as in `episodes.csv`.
        action_dim: number of actions.

    Raises:
        ConfigError: there is no such episode; names the range.
        RunError: the file is missing or damaged.
    """
    path, chains, last = run / ACTIONS_FILE, dict[int, tuple[KeptEpisode, ...]](), 0
    for episode in kept_episodes(run, action_dim):
        if episode.number != last + 1:
            raise RunError(f"{path} is damaged: after episode {last} comes {episode.number}")
        last = episode.number
        before = () if episode.seed is not None else chains.get(episode.env, ())
        if episode.seed is None and not before:
            raise RunError(f"{path} is damaged: episode {last} continues one that is missing")
        if last == number:
            return replace(episode, before=before)
        chains[episode.env] = (*before, episode)
    has = f"the run has kept episodes 1 to {last}" if last else "none has ended yet"
    raise ConfigError(f"episode = {number}: {has}")
