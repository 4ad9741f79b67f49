"""What a terminal and a notebook show of a run as it trains, as plain numbers."""

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nexus.doctor.symptom import Symptom
from nexus.listener import Plan
from nexus.training.curves import read_episodes
from nexus.training.logs import EpisodeTracker, Rate
from nexus.training.loop import Progress

__all__ = ["Gauge", "ReturnCurve", "Standing", "clock"]

POINTS_KEPT = 128  # of a curve of returns; more than a line of text or a small picture can show
PACE_WINDOW = 60.0  # seconds over which the time left is estimated, to cover learning and evaluations alike
STALE = 0.2  # fraction of a run after which a return is marked as old


class ReturnCurve:
    """The returns of all episodes so far, in order: at most 128 means, each of equally many episodes."""

    def __init__(self) -> None:
        self.per_point = 1  # episodes; doubles when the curve is full
        self._steps: list[int] = []  # of each mean, the step at which its last episode ended
        self._means: list[float] = []
        self._step, self._sum, self._count = 0, 0.0, 0  # of the point in progress

    def add(self, step: int, value: float) -> None:
        """Add the return of an episode that ended at a step; after a rollback what came later is dropped."""
        if step < self._step:
            self._sum, self._count = 0.0, 0
            while self._steps and self._steps[-1] > step:
                self._steps.pop()
                self._means.pop()
        self._step, self._sum, self._count = step, self._sum + value, self._count + 1
        if self._count == self.per_point:
            self._steps.append(step)
            self._means.append(self._sum / self._count)
            self._sum, self._count = 0.0, 0
        if len(self._means) == POINTS_KEPT:
            self._steps = self._steps[1::2]
            self._means = [(first + second) / 2 for first, second in zip(self._means[::2], self._means[1::2])]  # noqa: B905
            self.per_point *= 2

    @property
    def steps(self) -> list[int]:
        """The step of each point, in order."""
        return [*self._steps, *([self._step] if self._count else [])]

    @property
    def means(self) -> list[float]:
        """The mean return of each point; the last one may be of fewer episodes."""
        return [*self._means, *([self._sum / self._count] if self._count else [])]


@dataclass(frozen=True)
class Standing:
    """How a run stands.

    Args:
        steps: taken so far.
        total: planned.
        per_second: steps per second.
        seconds_left: until the last step, at the pace of the last minute; None if unknown.
        return_steps: the steps of the curve of returns.
        returns: its means.
        mean_return: of the last training episodes; None before the first has ended.
        age: steps since an episode ended, if that is long ago.
        explores: ε or the temperature, with its name.
        loss: of the last update; None before the first.
        q_mean: mean Q-value of its batch.
        predicted: value predicted for the first states of the last episodes, as the doctor measured it last.
        realised: the discounted return of these episodes.
        symptoms: what the doctor found at its last examination.
    """

    steps: int
    total: int
    per_second: float
    seconds_left: float | None
    return_steps: Sequence[int]
    returns: Sequence[float]
    mean_return: float | None
    age: int | None
    explores: str
    loss: float | None
    q_mean: float | None
    predicted: float | None
    realised: float | None
    symptoms: Sequence[Symptom]

    @property
    def findings(self) -> list[Symptom]:
        """The symptoms, alarms first, else causes first."""
        return sorted(self.symptoms, key=lambda symptom: not symptom.alarms)


class Gauge:
    """Follows a run at little cost, and says how it stands when asked.

    Args:
        plan: the run's plan.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.curve = ReturnCurve()
        self.ended_at = plan.first_step  # step at which the last episode ended
        self.start_values: dict[str, float] = {}
        now = time.perf_counter()
        self._rate = Rate(plan.first_step, now)
        self._pace: deque[tuple[float, int]] = deque([(now, plan.first_step)])
        if plan.first_step:
            self._read_on()

    def _read_on(self) -> None:
        """Begin with the episodes of the run's earlier part, as far as they can be read."""
        episodes = read_episodes(self.plan.run_dir, lambda error: None)
        before = episodes["step"] <= self.plan.first_step
        for step, value in zip(episodes["step"][before], episodes["return"][before], strict=True):
            self.curve.add(int(step), float(value))

    def follow(self, progress: Progress, episodes: EpisodeTracker) -> None:
        """Add a vector step."""
        ended = progress.counters.episodes - progress.before.episodes
        if ended:
            self.ended_at = progress.counters.steps
            for place in range(-min(ended, len(episodes.returns)), 0):
                self.curve.add(self.ended_at, episodes.returns[place])

    def note(self, values: Mapping[str, float]) -> None:
        """Take from a line of scalars what the doctor measured."""
        if "doctor/predicted_start" in values and "doctor/realised_start" in values:
            self.start_values = {name: values[f"doctor/{name}_start"] for name in ("predicted", "realised")}

    def standing(self, progress: Progress, episodes: EpisodeTracker) -> Standing:
        """Return how the run stands; this waits for the device."""
        config, steps, now = self.plan.config, progress.counters.steps, time.perf_counter()
        by_temperature = config.exploration == "boltzmann"
        age = steps - self.ended_at
        update = {} if progress.update is None else dict(progress.update.items())
        return Standing(
            min(steps, config.total_steps),
            config.total_steps,
            self._rate.at(steps, now),
            self._seconds_left(steps, now),
            self.curve.steps,
            self.curve.means,
            episodes.mean_return,
            age if age > STALE * config.total_steps else None,
            f"temperature {progress.temperature:.3g}" if by_temperature else f"ε {progress.epsilon:.2f}",
            float(update["loss"]) if update else None,
            float(update["q_mean"]) if update else None,
            self.start_values.get("predicted"),
            self.start_values.get("realised"),
            () if self.plan.live is None else self.plan.live.symptoms,
        )

    def _seconds_left(self, steps: int, now: float) -> float | None:
        self._pace.append((now, steps))
        while len(self._pace) > 2 and now - self._pace[1][0] >= PACE_WINDOW:
            self._pace.popleft()
        then, before = self._pace[0]
        left = max(self.plan.config.total_steps - steps, 0)
        return left * (now - then) / (steps - before) if steps > before else None


def clock(seconds: float | None) -> str:
    """Return a duration as hours, minutes and seconds."""
    if seconds is None or not np.isfinite(seconds):
        return "-:--:--"
    minutes, second = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{second:02}"
