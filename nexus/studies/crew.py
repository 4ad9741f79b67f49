"""Working through the runs of a study, several at a time."""

import signal
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nexus.studies.plan import PlannedRun
from nexus.studies.processes import Ended, RunJob, RunPlace, RunProcess
from nexus.studies.study_folder import RunState, state_of_run
from nexus.training.signals import StopRequest

__all__ = ["Crew", "StudyProgress", "StudyRun", "StudyView"]

POLL = 0.05  # seconds between two looks at the processes
MOST_RESTARTS = 3  # of a run whose process was killed


@dataclass
class StudyRun:
    """A run of a study and how it stands.

    Args:
        planned: the run.
        folder: its folder.
        state: how it stands.
        error: why it failed; empty if it did not.
        steps: taken so far.
    """

    planned: PlannedRun
    folder: Path
    state: RunState
    error: str = ""
    steps: int = 0
    steps_before: int = field(default=0, repr=False)  # those of earlier calls
    begun_at: float = field(default=0.0, repr=False)  # by `time.perf_counter`
    restarts: int = field(default=0, repr=False)

    @property
    def name(self) -> str:
        """Name of the run's folder."""
        return self.planned.name

    @property
    def total(self) -> int:
        """Steps that are planned."""
        return self.planned.config.total_steps

    def steps_per_second(self, now: float) -> float:
        """Return the steps per second since this call began the run."""
        return (self.steps - self.steps_before) / max(now - self.begun_at, 1e-9)


@dataclass(frozen=True)
class StudyProgress:
    """How a study stands.

    Args:
        runs: all its runs in their order.
        seconds: since this call began.
    """

    runs: Sequence[StudyRun]
    seconds: float

    def those(self, *states: RunState) -> list[StudyRun]:
        """Return the runs in these states."""
        return [run for run in self.runs if run.state in states]

    @property
    def seconds_left(self) -> float | None:
        """Seconds to the end, at the steps per second of this call; None before there are any."""
        taken = sum(run.steps - run.steps_before for run in self.runs if run.begun_at)
        left = sum(max(0, run.total - run.steps) for run in self.those("left", "begun", "running"))
        return left * self.seconds / taken if taken > 0 else None


class StudyView:
    """Shows how a study stands; by default nothing."""

    def on_begin(self, progress: StudyProgress, folder: Path, jobs: int) -> None:
        """Called once, before the first run begins."""

    def on_run(self, run: StudyRun, progress: StudyProgress) -> None:
        """Called when a run begins or ends; its state says which."""

    def on_tick(self, progress: StudyProgress) -> None:
        """Called several times a second."""

    def on_stop(self) -> None:
        """Called when a signal arrives, before the runs are saved."""


class Crew:
    """Processes that work through the runs of a study.

    Args:
        env: the environment's id.
        runs: all runs of the study; those that are left or have begun are worked on.
        jobs: how many at a time.
        place: where they run.
        view: shows how they stand.
        on_end: called with each run that has ended.
    """

    def __init__(
        self,
        env: str,
        runs: Sequence[StudyRun],
        jobs: int,
        place: RunPlace,
        view: StudyView,
        on_end: Callable[[StudyRun], None],
    ) -> None:
        self.env = env
        self.runs = runs
        self.place = place
        self.view = view
        self.on_end = on_end
        self.waiting = deque(run for run in runs if run.state in ("left", "begun"))
        self.jobs = min(jobs, len(self.waiting))
        self.busy: list[tuple[RunProcess, StudyRun]] = []
        self.idle: list[RunProcess] = []
        self.began = time.perf_counter()

    def progress(self) -> StudyProgress:
        """Return how the study stands now."""
        return StudyProgress(self.runs, time.perf_counter() - self.began)

    def work(self, stop: StopRequest) -> None:
        """Work until all runs have ended, or a signal arrives: then the runs in progress are saved."""
        told = False
        at_once = True
        try:
            while self.busy or (self.waiting and stop.signal is None):
                if stop.signal is None:
                    self.fill_up()
                elif not told:
                    told = True
                    self.view.on_stop()
                    for process, _ in self.busy:
                        process.stop()
                for pair in list(self.busy):
                    self.look_at(*pair, stopping=told)
                self.view.on_tick(self.progress())
                time.sleep(POLL)
            at_once = False
        finally:
            for process in [*self.idle, *(process for process, _ in self.busy)]:
                process.end(at_once)

    def fill_up(self) -> None:
        """Begin as many runs as there are processes for."""
        while self.waiting and len(self.busy) < self.jobs:
            run = self.waiting.popleft()
            process = self.idle.pop() if self.idle else self.place.process()
            self.busy.append((process, run))
            planned = run.planned
            process.begin(RunJob(self.env, planned.preset, planned.config.to_mapping(), str(run.folder.absolute())))
            if not run.restarts:
                run.steps_before = run.steps
            run.state, run.begun_at = "running", time.perf_counter()
            self.view.on_run(run, self.progress())

    def look_at(self, process: RunProcess, run: StudyRun, stopping: bool) -> None:
        """Take note of the steps of a run, and of its end."""
        ended = process.poll()
        run.steps = max(run.steps, process.steps)
        if ended is None:
            return
        self.busy.remove((process, run))
        if process.is_usable and not stopping:
            self.idle.append(process)
        else:
            process.end(at_once=False)
        self.note(run, ended, stopping)
        self.on_end(run)
        self.view.on_run(run, self.progress())
        if run.state == "begun" and not stopping:
            self.waiting.appendleft(run)

    def note(self, run: StudyRun, ended: Ended, stopping: bool) -> None:
        """Record how a run ended, from what its process and its files say."""
        run.state, error, steps = state_of_run(run.folder.parent, run.planned, {})
        if run.state == "finished":
            run.steps = steps
        elif ended.error is not None:
            run.state, run.error = "failed", ended.error
        elif stopping or run.state == "failed":
            run.error = error
        elif run.restarts < MOST_RESTARTS:
            run.restarts += 1
            run.state = "begun"
        else:
            run.state = "failed"
            run.error = f"its process ended {MOST_RESTARTS + 1} times, the last time {said_of_code(ended.code)}"


def said_of_code(code: int) -> str:
    """Return an exit code in words."""
    if code >= 0:
        return f"with code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"by {name}{': is there enough memory for so many --jobs?' if name == 'SIGKILL' else ''}"
