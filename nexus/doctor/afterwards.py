"""The diagnosis of a run from the files that it left: finished, killed, diverged, or of an older version."""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from nexus.api import config_of
from nexus.core.errors import RunError
from nexus.core.types import Floats
from nexus.doctor.chart import Chart
from nexus.doctor.diagnosis import CAUSES_FIRST, Diagnosis, diagnosis_of, first_alarms
from nexus.doctor.doctor import examined_every
from nexus.doctor.exam import LAST_EPISODES
from nexus.doctor.examiner import MOST_RANDOM, RANDOM_EPSILON
from nexus.doctor.returns import means_of
from nexus.doctor.symptom import critical
from nexus.listener import TrainResult
from nexus.training.config import TrainConfig
from nexus.training.curves import read_episodes, whole_lines
from nexus.training.run_folder import EPISODES_FILE, METRICS_FILE, read_run

__all__ = ["completed", "diagnose", "diagnosed"]


def diagnose(run: str | os.PathLike[str] | TrainResult) -> Diagnosis:
    """Say what kept a run from learning, from its logs alone.

    Works on runs that were killed or diverged. Of a run without a doctor, or of an older version, fewer checks can
    judge.

    Args:
        run: a run's folder, or the result of `nexus.train`.

    Raises:
        RunError: the folder is not a run, was written by a newer version, or has damaged logs.
    """
    folder = run.run_dir if isinstance(run, TrainResult) else Path(run)
    about = read_run(folder)
    return diagnosed(chart_of(folder, config_of(about, folder)), about)


def diagnosed(chart: Chart, about: Mapping[str, Any]) -> Diagnosis:
    """Say what kept a run from learning.

    Args:
        chart: everything that it logged, as `completed` returns it.
        about: the contents of `run.json`.
    """
    found = diagnosis_of(chart).with_history(first_alarms(chart))
    if not isinstance(about.get("divergence"), str):
        return found
    burst = critical(
        str(about["divergence"]),
        "finite losses and gradients",
        "the numbers grew beyond what a float holds",
        "a smaller --learning-rate, --reward-clip 1",
    )
    place = CAUSES_FIRST.index("divergence")
    causes = tuple(symptom for symptom in found.symptoms if CAUSES_FIRST.index(symptom.check) < place)
    symptoms = (*causes, replace(burst, check="diverged", step=chart.step), *found.symptoms[len(causes) :])
    return replace(found, symptoms=symptoms)


def chart_of(folder: Path, config: TrainConfig) -> Chart:
    """Return everything that a run logged.

    Raises:
        RunError: a log is damaged.
    """
    chart, path = Chart(config), folder / METRICS_FILE
    for number, line in enumerate(whole_lines(path) if path.exists() else [], 1):
        step, values = read_line(path, number, line)
        chart.add(step, values)
    return completed(chart, lambda: read_episodes(folder) if (folder / EPISODES_FILE).exists() else None)


def completed(chart: Chart, episodes: Callable[[], Mapping[str, Floats] | None]) -> Chart:
    """Add what a run without a doctor did not log, to a chart of everything that it did.

    Args:
        chart: is changed.
        episodes: returns a column for each of step, episode and return; None if there are none. Called if needed.
    """
    ended = None if chart.holds("doctor/recent_return") else episodes()
    if ended is not None:
        add_returns(chart, ended)
    for measure, logged in (("q_abs_max", "train/q_max"), ("reward_abs_max", "replay/reward_max")):
        if not chart.holds(f"doctor/{measure}"):
            copy_series(chart, logged, f"doctor/{measure}")
    return chart


def read_line(path: Path, number: int, line: str) -> tuple[int, Mapping[str, float]]:
    """Return step and numbers of one line."""
    try:
        values: Any = json.loads(line)
    except ValueError:
        values = None
    if isinstance(values, dict) and isinstance(values.get("step"), int):
        numbers = {str(name): value for name, value in values.items() if name != "step"}
        if all(isinstance(value, int | float) for value in numbers.values()):
            return values["step"], numbers
    raise RunError(f"{path} is damaged: line {number} needs a step and numbers, got {line[:60]!r}")


def copy_series(chart: Chart, name: str, to: str) -> None:
    """Enter the absolute values of a number under another name."""
    for step, value in zip(chart.steps(name), chart.series(name), strict=True):
        chart.add(int(step), {to: abs(float(value))})


def add_returns(chart: Chart, episodes: Mapping[str, Floats]) -> None:
    """Enter the returns of random play and of the last episodes at thirty points, as the doctor of a run would."""
    steps, returns = episodes["step"], episodes["return"]
    every = examined_every(chart.config.total_steps).count
    random = returns[: played_at_random(chart.config, steps, episodes["episode"])]
    for point in range(every, int(steps[-1]) + every if steps.size else 0, every):
        values = means_of(random, returns[steps <= point][-LAST_EPISODES:])
        chart.add(min(point, int(steps[-1])), {f"doctor/{name}": value for name, value in values.items()})


def played_at_random(config: TrainConfig, steps: Floats, numbers: Floats) -> int:
    """Return how many of the first episodes, which ended at these steps, were played at random."""
    for count, (step, number) in enumerate(zip(steps[:MOST_RANDOM], numbers, strict=False)):
        explores = config.exploration == "epsilon_greedy"
        epsilon = config.epsilon_at(int(step), int(number)) if explores else 0.0
        if step > config.learning_starts and epsilon < RANDOM_EPSILON:
            return count
    return min(len(steps), MOST_RANDOM)
