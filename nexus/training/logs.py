"""Scalars to `metrics.jsonl` and TensorBoard, episodes to `episodes.csv` and, if they are kept, `actions.jsonl`."""

import hashlib
import json
import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from nexus.core.state import State, array_from, value_from
from nexus.core.types import Array
from nexus.envs.episodes import StageReport
from nexus.training.config import TrainConfig
from nexus.training.files import LogMarks, Mark, remove, wants_disk
from nexus.training.kept_episodes import actions_line
from nexus.training.loop import Progress
from nexus.training.replays import AnyReplay
from nexus.training.run_folder import ACTIONS_FILE, EPISODES_FILE, METRICS_FILE

__all__ = ["EpisodeTracker", "Rate", "RunLog", "scalars", "stage_scalars"]

BURST = 0.05  # seconds within which steps count as simultaneous


class EpisodeTracker:
    """Returns and lengths of training episodes, undiscounted and unclipped.

    Args:
        num_envs: environments `E`.
        window: number of last episodes that means cover.
    """

    def __init__(self, num_envs: int, window: int = 100) -> None:
        self._return = np.zeros(num_envs)
        self._length = np.zeros(num_envs, int)
        self.returns: deque[float] = deque(maxlen=window)
        self.lengths: deque[int] = deque(maxlen=window)

    def add(self, progress: Progress) -> list[tuple[float, int]]:
        """Add one vector step; return `(return, length)` of each episode that ended."""
        step = progress.step
        self._return += step.rewards * step.valid
        self._length += step.valid
        done = step.terminated | step.truncated
        if not done.any():
            return []
        ended = list(zip(self._return[done].tolist(), self._length[done].tolist(), strict=True))
        self.returns += [episode_return for episode_return, _ in ended]
        self.lengths += [length for _, length in ended]
        self.forget(done)
        return ended

    def forget(self, which: Array) -> None:
        """Begin new episodes in these environments `[E]`, without counting the unfinished ones."""
        self._return[which] = 0.0
        self._length[which] = 0

    @property
    def under_way(self) -> float:
        """Mean number of steps of the unfinished episodes."""
        return float(self._length.mean())

    def get_state(self) -> State:
        """Return the last episodes, and the returns and lengths of unfinished ones so far."""
        return {
            "returns": np.array(self.returns, np.float64),
            "lengths": np.array(self.lengths, np.int64),
            "return_so_far": self._return.copy(),
            "length_so_far": self._length.copy(),
        }

    def set_state(self, state: State) -> None:
        """Restore what `get_state` returned; older runs have no unfinished episodes.

        Raises:
            RunError: something is missing or does not fit.
        """
        count = value_from(state, "returns", np.ndarray).size
        self.returns.clear()
        self.lengths.clear()
        self.returns.extend(array_from(state, "returns", np.empty(count), finite=False).tolist())
        self.lengths.extend(array_from(state, "lengths", np.empty(count, np.int64)).tolist())
        self.forget(np.ones(len(self._return), bool))
        if "length_so_far" in state:
            self._return[:] = array_from(state, "return_so_far", self._return, finite=False)
            self._length[:] = array_from(state, "length_so_far", self._length)

    @property
    def mean_return(self) -> float | None:
        """Mean return of the last episodes; None before the first has ended."""
        return float(np.mean(self.returns)) if self.returns else None


class LogFile:
    """An append-only text file that tracks the checksum of its contents.

    Args:
        path: path of the file.
        keep: bytes of an older file to keep; the rest is cut off. If the file is shorter, its complete lines are kept.
    """

    def __init__(self, path: Path, keep: int = 0) -> None:
        self.path = path
        self.size = 0
        self._digest = hashlib.sha256()
        with wants_disk(path):
            kept = b""
            if keep and path.exists():
                with path.open("rb") as file:
                    kept = file.read(keep)
                kept = kept[: kept.rfind(b"\n") + 1]
                os.truncate(path, len(kept))
            self._count(kept)
            self._file = path.open("ab" if kept else "wb")

    def write(self, text: str) -> None:
        """Append text."""
        content = text.encode()
        self._count(content)
        with wants_disk(self.path):
            self._file.write(content)

    def flush(self) -> None:
        """Flush to the operating system."""
        with wants_disk(self.path):
            self._file.flush()

    def mark(self) -> Mark:
        """Wait until everything is on disk, and return its mark."""
        self.flush()
        with wants_disk(self.path):
            os.fsync(self._file.fileno())
        return Mark(self.size, self._digest.hexdigest())

    def close(self) -> None:
        """Close the file."""
        with wants_disk(self.path):
            self._file.close()

    def _count(self, content: bytes) -> None:
        self.size += len(content)
        self._digest.update(content)


class RunLog:
    """The open log files of one run. Use as a context manager.

    Args:
        folder: the run's folder.
        kept: what `marks` returned at the checkpoint the run resumes from; None starts new files.
        seconds: duration of the run so far.
        told: called with each line of scalars.
        action_dim: number of actions, to keep the seed and the actions of episodes; None keeps none.
        staged: whether the episodes have a stage, as in a curriculum.
    """

    def __init__(
        self,
        folder: Path,
        kept: LogMarks | None = None,
        seconds: float = 0.0,
        told: Callable[[int, Mapping[str, float]], None] | None = None,
        action_dim: int | None = None,
        staged: bool = False,
    ) -> None:
        from tensorboard.summary import Writer  # takes a third of a second, so only imported for logging

        kept = LogMarks({}, {}) if kept is None else kept
        nothing = Mark(0, "")
        self._started = time.time() - seconds
        self._told = told
        self._boards = folder / "tensorboard"
        cut_boards(self._boards, kept.boards)
        self._action_dim = action_dim
        names = [METRICS_FILE, EPISODES_FILE, *([] if action_dim is None else [ACTIONS_FILE])]
        self._files = {name: LogFile(folder / name, kept.files.get(name, nothing).bytes) for name in names}
        self._metrics, self._episodes = self._files[METRICS_FILE], self._files[EPISODES_FILE]
        if not self._episodes.size:
            self._episodes.write(f"step,episode,return,length,{'stage,' if staged else ''}seconds\n")
        self._board = Writer(str(self._boards))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with ExitStack() as stack:  # closes all of them even on a full disk
            stack.callback(self._close_board)
            for file in self._files.values():
                stack.callback(file.close)

    def _close_board(self) -> None:
        with wants_disk(self._boards):
            self._board.close()

    @property
    def seconds(self) -> float:
        """Duration of the run in seconds, including its earlier parts."""
        return time.time() - self._started

    def episodes(self, progress: Progress, ended: list[tuple[float, int]]) -> None:
        """Write a row for each episode that has just ended."""
        seconds, step = self.seconds, progress.step
        first = progress.counters.episodes - len(ended) + 1
        stages = [""] * len(ended)
        if step.staged is not None:
            stages = [f"{stage + 1}," for stage in step.staged.stages[step.terminated | step.truncated]]
        for number, ((episode_return, length), stage) in enumerate(zip(ended, stages, strict=True), first):
            row = f"{progress.counters.steps},{number},{episode_return!r},{length},{stage}{seconds:.2f}\n"
            self._episodes.write(row)
        if self._action_dim is not None:
            for number, episode in enumerate(progress.step.ended, first):
                self._files[ACTIONS_FILE].write(actions_line(number, episode, self._action_dim))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write one line of scalars for a step."""
        self._metrics.write(json.dumps({"step": step, **values}) + "\n")
        for file in self._files.values():
            file.flush()
        with wants_disk(self._boards):
            for name, value in values.items():
                self._board.add_scalar(name, value, step)
        if self._told is not None:
            self._told(step, values)

    def marks(self) -> LogMarks:
        """Return what a checkpoint needs to truncate the files to this point: marks, and sizes for TensorBoard."""
        with wants_disk(self._boards):
            self._board.flush()
        sizes = {path.name: path.stat().st_size for path in self._boards.glob("events.*")}
        return LogMarks({name: file.mark() for name, file in self._files.items()}, sizes)


def stage_scalars(staged: StageReport) -> dict[str, float]:
    """Return the current stage, counted from 1, and its success rate, if an episode of it has ended."""
    values: dict[str, float] = {"curriculum/stage": staged.current + 1}
    return values if staged.success is None else values | {"curriculum/success": staged.success}


def cut_boards(folder: Path, sizes: Mapping[str, int]) -> None:
    """Truncate TensorBoard's files to these sizes, and remove newer ones."""
    for path in folder.glob("events.*"):
        if path.name not in sizes:
            remove(path)
        elif path.stat().st_size > sizes[path.name]:
            os.truncate(path, sizes[path.name])


class Rate:
    """Steps per second since the last query.

    With concurrent acting and learning an epoch's steps arrive all at once: a second query within such a burst returns
    the same rate.

    Args:
        steps: steps so far.
        seconds: seconds so far, by any clock.
    """

    def __init__(self, steps: int, seconds: float) -> None:
        self._steps, self._seconds = steps, seconds
        self._rate: float | None = None

    def at(self, steps: int, seconds: float) -> float:
        """Return the rate at this number of steps and seconds."""
        passed = seconds - self._seconds
        if self._rate is None or passed >= BURST:
            self._rate = (steps - self._steps) / max(passed, 1e-9)
            self._steps, self._seconds = steps, seconds
        return self._rate


def scalars(
    progress: Progress,
    episodes: EpisodeTracker,
    replay: AnyReplay,
    config: TrainConfig,
    steps_per_second: float,
    metrics: Mapping[str, float],
) -> dict[str, float]:
    """Return all current scalars under their usual names; `docs/dqn.md` explains each.

    `metrics` are those of the last update, as numbers.
    """
    counters = progress.counters
    values = {
        "time/fps": steps_per_second,
        "time/total_timesteps": counters.steps,
        "time/episodes": counters.episodes,
        "train/n_updates": counters.updates,
        "train/learning_rate": config.learning_rate_at(counters.steps, counters.updates),
        "replay/size": len(replay),
    }
    if config.exploration == "boltzmann":
        values["rollout/temperature"] = progress.temperature
    else:
        values["rollout/exploration_rate"] = progress.epsilon
    if progress.step.staged is not None:
        values |= stage_scalars(progress.step.staged)
    if episodes.returns:
        values["rollout/ep_rew_mean"] = float(np.mean(episodes.returns))
        values["rollout/ep_len_mean"] = float(np.mean(episodes.lengths))
    values |= {f"train/{name}": value for name, value in metrics.items()}
    return values | {f"replay/reward_{name}": value for name, value in replay.reward_summary().items()}
