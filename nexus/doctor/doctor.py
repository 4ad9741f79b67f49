"""The doctor of a run in progress: it has the run examined now and then, logs the numbers and reports symptoms."""

from collections.abc import Mapping

import numpy as np

from nexus.core.errors import NexusError, RunError, one_line
from nexus.core.period import Period
from nexus.core.state import State, below, part, value_from
from nexus.doctor.chart import Chart
from nexus.doctor.diagnosis import Diagnosis, diagnosis_of
from nexus.doctor.examiner import Examiner
from nexus.doctor.symptom import Gravity
from nexus.listener import Listener, Plan
from nexus.training import loop
from nexus.training.evaluation import Evaluation
from nexus.training.files import write_json
from nexus.training.logs import EpisodeTracker
from nexus.training.run_folder import FINDINGS_FILE

__all__ = ["Doctor", "examined_every"]

TRIAL = 5_000  # steps; a shorter run is a trial of which nobody expects that it learns
ACTIONS_WATCHED = 8  # to look at between two examinations
SAID_BY_THE_RUN = ("exploration-plan",)
RANKS: tuple[Gravity | None, ...] = (None, "note", "warning", "critical")
OWN_FAULTS = (NexusError, RuntimeError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError)


def examined_every(total_steps: int) -> Period:
    """Return how often a run is examined: thirty times, but every 100,000 steps at least and every 1,000 at most."""
    return Period(min(max(total_steps // 30, 1_000), 100_000), "steps")


class Doctor(Listener):
    """Examines a run thirty times: measures, checks, and reports.

    It reads copies of the networks and rows of the replay; nothing that it does changes what is learned. It writes
    `findings.json` into the run's folder, logs its numbers as `doctor/...`, and says each alarm once, except in a run
    that is too short to learn anything.
    """

    def __init__(self) -> None:
        self.plan: Plan | None = None
        self.restored: State = {}
        self.said: dict[str, Gravity] = {}  # check -> the severity that was said
        self.first: dict[str, int] = {}  # check -> the step at which it alarmed first
        self.diagnosis: Diagnosis | None = None  # the last one
        self.due = False
        self.gave_up = False

    def on_start(self, plan: Plan) -> None:
        """Check the settings."""
        assert plan.live is not None
        self.plan, self.live = plan, plan.live
        self.period = examined_every(plan.config.total_steps)
        looks = max(1, ACTIONS_WATCHED // plan.config.num_envs)
        self.often = Period(max(1, self.period.count // looks), self.period.unit)
        self.set_state(self.restored)
        if not self.restored:
            self.examiner, self.chart = Examiner(plan.config, self.live), Chart(plan.config)
        self.report(diagnosis_of(self.chart))

    def on_step(self, progress: loop.Progress, episodes: EpisodeTracker) -> None:
        """Follow a step; examine the agent if it is time. A fault of the doctor's own never ends a run."""
        if self.gave_up or self.plan is None:
            return
        try:
            self.examiner.count(progress, episodes)
            if progress.due(self.often):
                self.examiner.watch(progress)
            self.due |= progress.due(self.period)
            if self.due and progress.sound:
                self.due = False
                self.examine(progress, episodes)
        except OWN_FAULTS as error:
            self.give_up(error)

    def give_up(self, error: Exception) -> None:
        """Say why, and examine no more."""
        self.gave_up = True
        self.live.notice(f"the doctor can't examine this run and stops: {one_line(error)}; --doctor off hides this")

    def on_evaluation(self, steps: int, evaluation: Evaluation) -> None:
        """Enter an evaluation into the chart."""
        self.chart.add(steps, {"eval/mean_reward": evaluation.mean})

    def on_end(self, status: str) -> None:
        """Report once more, now with the last evaluation."""
        try:
            self.report(diagnosis_of(self.chart), True)
        except OWN_FAULTS as error:  # such as a full disk
            self.give_up(error)

    def examine(self, progress: loop.Progress, episodes: EpisodeTracker) -> None:
        """Measure, log and check."""
        values = {f"doctor/{name}": value for name, value in self.examiner.examine(progress, episodes).items()}
        if not values:
            return
        self.chart.add(progress.counters.steps, {**values, **self.of_the_run(progress, episodes)})
        diagnosis = diagnosis_of(self.chart)
        self.live.log({**values, "doctor/alarms": len(diagnosis.alarms)})
        self.report(diagnosis)

    def of_the_run(self, progress: loop.Progress, episodes: EpisodeTracker) -> Mapping[str, float]:
        """Return the numbers of now that the run logs anyway, under the names that it uses."""
        assert self.plan is not None
        counters = progress.counters
        values = {
            "rollout/exploration_rate": progress.epsilon,
            "train/n_updates": counters.updates,
            "train/learning_rate": self.plan.config.learning_rate_at(counters.steps, counters.updates),
        }
        lengths = {"rollout/ep_len_mean": float(np.mean(episodes.lengths))} if episodes.lengths else {}
        return {**values, **lengths}

    def report(self, diagnosis: Diagnosis, ended: bool = False) -> None:
        """Write the findings if they have changed, and say each alarm once for each severity."""
        assert self.plan is not None
        for symptom in diagnosis.alarms:
            self.first.setdefault(symptom.check, symptom.step)
        last, self.diagnosis = self.diagnosis, diagnosis.with_history(self.first)
        if self.plan.config.total_steps >= TRIAL:
            self.live.symptoms = self.diagnosis.symptoms
        changed = last is None or last.step == 0 or last.names != diagnosis.names
        said = self.said
        worse = [new for new in diagnosis.symptoms if RANKS.index(new.severity) > RANKS.index(said.get(new.check))]
        said.update({symptom.check: symptom.severity for symptom in worse})
        for symptom in worse if self.plan.config.total_steps >= TRIAL else ():
            if symptom.alarms:
                self.live.notice(str(symptom))
            elif diagnosis.step == 0 and symptom.check not in SAID_BY_THE_RUN:
                self.live.notice(symptom.told)
        if ended or (diagnosis.step and (worse or changed)):
            write_json(self.plan.run_dir / FINDINGS_FILE, self.diagnosis.to_mapping())

    def get_state(self) -> State:
        """Return everything that an exact resume needs."""
        if self.plan is None:
            return {}
        own = {
            "chart": self.chart.to_mapping(),
            "said": dict(self.said),
            "first": dict(self.first),
            "due": self.due,
        }
        return {**own, **below("examiner", self.examiner.get_state())}

    def set_state(self, state: State) -> None:
        """Restore what `get_state` returned, now or when the run starts.

        What an older version saved may lack something; then the doctor begins with this step.
        """
        self.restored = state
        if self.plan is None or not state:
            return
        try:
            self.restore(state)
        except RunError:
            self.restored = {}
            self.said, self.first, self.due = {}, {}, False
            self.live.notice("the doctor can't continue what an older version saved, and begins with this step")

    def restore(self, state: State) -> None:
        """Take over what was saved."""
        assert self.plan is not None
        self.examiner, self.chart = Examiner(self.plan.config, self.live), Chart(self.plan.config)
        self.chart.restore(value_from(state, "chart", dict))
        self.said, self.first = (dict(value_from(state, name, dict)) for name in ("said", "first"))
        self.due = value_from(state, "due", bool)
        self.examiner.set_state(part(state, "examiner"))
