"""Scalars to `metrics.jsonl` and TensorBoard, episodes to `episodes.csv`."""

import json
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from nexus.core.errors import RunError
from nexus.core.state import State, array_from, value_from
from nexus.data.prioritized_replay_buffer import PrioritizedReplayBuffer
from nexus.data.replay_buffer import ReplayBuffer
from nexus.training.config import TrainConfig
from nexus.training.loop import Progress

__all__ = ["EpisodeTracker", "RunLog", "scalars"]


class EpisodeTracker:
    """Returns and lengths of training episodes: undiscounted, unclipped, whatever the agent learns from.

    Args:
        num_envs: environments `E`.
        window: episodes that the means look back on.
    """

    def __init__(self, num_envs: int, window: int = 100) -> None:
        self._return = np.zeros(num_envs)
        self._length = np.zeros(num_envs, int)
        self.returns: deque[float] = deque(maxlen=window)
        self.lengths: deque[int] = deque(maxlen=window)

    def add(self, progress: Progress) -> list[tuple[float, int]]:
        """Take one vector step; return `(return, length)` of each episode that it ended."""
        step = progress.step
        self._return += step.rewards * step.valid
        self._length += step.valid
        done = step.terminated | step.truncated
        if not (progress.barrier or done.any()):
            return []
        ended = list(zip(self._return[done].tolist(), self._length[done].tolist(), strict=True))
        self.returns += [episode_return for episode_return, _ in ended]
        self.lengths += [length for _, length in ended]
        begins = done | progress.barrier  # an episode that a barrier cuts is not counted
        self._return[begins] = 0.0
        self._length[begins] = 0
        return ended

    def get_state(self) -> State:
        """Return the last episodes; at a barrier no other is under way."""
        return {"returns": np.array(self.returns, np.float64), "lengths": np.array(self.lengths, np.int64)}

    def set_state(self, state: State) -> None:
        """Take back what `get_state` gave.

        Raises:
            RunError: something is missing or does not fit.
        """
        count = value_from(state, "returns", np.ndarray).size
        self.returns.clear()
        self.lengths.clear()
        self.returns.extend(array_from(state, "returns", np.empty(count), finite=False).tolist())
        self.lengths.extend(array_from(state, "lengths", np.empty(count, np.int64)).tolist())

    @property
    def mean_return(self) -> float | None:
        """Mean over the last episodes; None before the first has ended."""
        return float(np.mean(self.returns)) if self.returns else None


class RunLog:
    """The open log files of one run. Use as a context manager.

    Args:
        folder: the run's folder.
    """

    def __init__(self, folder: Path) -> None:
        from tensorboard.summary import Writer  # costs a third of a second, so only who logs pays

        self._started = time.time()
        self._metrics = (folder / "metrics.jsonl").open("w", encoding="utf-8")
        self._episodes = (folder / "episodes.csv").open("w", encoding="utf-8")
        self._episodes.write("step,episode,return,length,seconds\n")
        self._board = Writer(str(folder / "tensorboard"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._metrics.close()
        self._episodes.close()
        self._board.close()

    def episodes(self, progress: Progress, ended: list[tuple[float, int]]) -> None:
        """Write a row for each episode that just ended."""
        seconds = time.time() - self._started
        first = progress.counters.episodes - len(ended) + 1
        for number, (episode_return, length) in enumerate(ended, first):
            self._write(
                self._episodes,
                f"{progress.counters.steps},{number},{episode_return:g},{length},{seconds:.2f}\n",
            )

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write one line of scalars, at a step."""
        self._write(self._metrics, json.dumps({"step": step, **values}) + "\n")
        self._metrics.flush()
        self._episodes.flush()
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def _write(self, file: Any, text: str) -> None:
        try:
            file.write(text)
        except OSError as error:
            raise RunError(f"can't write {file.name}: {error.strerror or error}") from None


def scalars(
    progress: Progress,
    episodes: EpisodeTracker,
    replay: ReplayBuffer | PrioritizedReplayBuffer,
    config: TrainConfig,
    steps_per_second: float,
) -> dict[str, float]:
    """Return every scalar of this moment under the names that people grep for; `docs/dqn.md` explains each.

    This is where metrics become numbers: a wait for the device, once per log line.
    """
    counters = progress.counters
    values = {
        "time/fps": steps_per_second,
        "time/total_timesteps": counters.steps,
        "time/episodes": counters.episodes,
        "rollout/exploration_rate": progress.epsilon,
        "train/n_updates": counters.updates,
        "train/learning_rate": config.learning_rate_at(counters.steps, counters.updates),
        "replay/size": len(replay),
    }
    if episodes.returns:
        values["rollout/ep_rew_mean"] = float(np.mean(episodes.returns))
        values["rollout/ep_len_mean"] = float(np.mean(episodes.lengths))
    if progress.update is not None:
        values |= {f"train/{name}": float(value) for name, value in progress.update.items()}
    return values | {f"replay/reward_{name}": value for name, value in replay.reward_summary().items()}
