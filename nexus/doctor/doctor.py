"""The doctor of a run in progress: it examines the agent now and then, logs what it measures and reports symptoms."""

from collections import deque
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from nexus.core.errors import NexusError, one_line
from nexus.core.period import Period
from nexus.core.state import State, below, part, value_from
from nexus.core.types import Array
from nexus.doctor.chart import Chart
from nexus.doctor.diagnosis import Diagnosis, diagnosis_of
from nexus.doctor.exam import Exam, Networks, Tally, read_rows
from nexus.doctor.exploration import exploration_measures
from nexus.doctor.network import network_measures
from nexus.doctor.returns import return_measures
from nexus.doctor.scale import scale_measures
from nexus.doctor.starts import EpisodeStarts
from nexus.doctor.storage import storage_measures
from nexus.doctor.symptom import Gravity
from nexus.doctor.targets import target_measures
from nexus.doctor.values import value_measures
from nexus.listener import Listener, Plan
from nexus.models.rl.dqn.learner import Learner
from nexus.ops.action_values import values_of_actions
from nexus.training import loop
from nexus.training.evaluation import Evaluation
from nexus.training.files import write_json
from nexus.training.logs import EpisodeTracker

__all__ = ["FINDINGS_FILE", "Doctor", "examined_every"]

FINDINGS_FILE = "findings.json"
MEASURES = (
    value_measures,
    target_measures,
    storage_measures,
    scale_measures,
    exploration_measures,
    network_measures,
    return_measures,
)
MOST_RANDOM = 100  # first episodes that stand for random play
RANDOM = 0.9  # ε from which on an episode counts as random
RANKS: tuple[Gravity | None, ...] = (None, "note", "warning", "critical")


def examined_every(total_steps: int) -> Period:
    """Return how often a run is examined: fifty times, but at most every 1,000 steps and at least every 100,000."""
    return Period(min(max(total_steps // 50, 1_000), 100_000), "steps")


class Doctor(Listener):
    """Examines a run fifty times: measures, checks, and reports.

    It reads copies of the networks and rows of the replay; nothing that it does changes what is learned. It writes
    `findings.json` into the run's folder, logs its measures as `doctor/...`, and says each alarm once.
    """

    def __init__(self) -> None:
        self.plan: Plan | None = None
        self.tally = Tally()
        self.before: dict[str, Array] = {}
        self.probes: Tensor | None = None  # [P, *obs]
        self.said: dict[str, Gravity] = {}
        self.restored: State = {}
        self.written: set[str] = set()  # names of the checks in `findings.json`
        self.gave_up = False

    def on_start(self, plan: Plan) -> None:
        """Check the settings."""
        assert plan.live is not None
        self.plan, self.live = plan, plan.live
        self.config = plan.config
        self.period = examined_every(plan.config.total_steps)
        self.chart = Chart(plan.config)
        self.networks = Networks(plan.agent.learner)
        self.starts = EpisodeStarts(plan.config.gamma)
        self.recent: deque[float] = deque(maxlen=20)
        self.due = False
        self._restore()
        self.report(diagnosis_of(self.chart))

    def on_step(self, progress: loop.Progress, episodes: EpisodeTracker) -> None:
        """Count the ends of episodes; examine the agent if it is time. A fault of its own never ends a run."""
        if self.gave_up:
            return
        try:
            self.follow(progress, episodes)
        except (NexusError, RuntimeError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
            self.gave_up = True
            self.live.notice(f"the doctor can't examine this run and stops: {one_line(error)}; --doctor off hides this")

    def follow(self, progress: loop.Progress, episodes: EpisodeTracker) -> None:
        """Count the ends of episodes; examine the agent if it is time."""
        step, ended = progress.step, progress.counters.episodes != progress.before.episodes
        self.starts.follow(step, loop.clip(step.rewards, self.config.reward_clip), ended)
        if ended:
            self.count(progress, episodes)
        self.due |= progress.due(self.period)
        if self.due and progress.sound:
            self.due = False
            self.examine(progress, episodes)

    def on_evaluation(self, steps: int, evaluation: Evaluation) -> None:
        """Enter an evaluation into the chart."""
        self.chart.add(steps, {"eval/mean_reward": evaluation.mean})

    def on_end(self, status: str) -> None:
        """Report once more, now with the last evaluation."""
        self.report(diagnosis_of(self.chart), True)

    def count(self, progress: loop.Progress, episodes: EpisodeTracker) -> None:
        """Count the episodes that ended with this vector step."""
        tally, step = self.tally, progress.step
        tally.terminated += int(step.terminal.sum())
        tally.truncated += int((step.truncated & ~step.terminated).sum())
        ended = list(episodes.returns)[-(progress.counters.episodes - progress.before.episodes) :]
        self.recent.extend(ended)
        explores_at_random = self.config.exploration == "epsilon_greedy" and progress.epsilon >= RANDOM
        if (explores_at_random or progress.counters.updates == 0) and len(tally.at_random) < MOST_RANDOM:
            tally.at_random = (*tally.at_random, *ended)

    def examine(self, progress: loop.Progress, episodes: EpisodeTracker) -> None:
        """Measure, log and check."""
        learner, replay, counters = self.live.agent.learner, self.live.replay, progress.counters
        rows, newest = read_rows(learner, replay, self.config.seed + counters.steps)
        if self.probes is None:
            self.probes = first_probes(learner, rows, progress)
        if self.probes is None:
            return
        self.networks.follow()
        self.tally.recent = tuple(self.recent)
        with torch.no_grad():
            exam = Exam(
                self.config,
                learner,
                self.networks,
                self.probes,
                rows,
                newest,
                replay,
                progress.last,
                self.tally,
                self.before,
            )
            measured = {name: value for measure in MEASURES for name, value in measure(exam).items()}
            measured |= self.start_values(exam)
        self.before = {"greedy": exam.q.argmax(1), "q_target": exam.q_target.copy(), "theta": exam.theta}
        measured["tallied_steps"] = counters.steps
        measured["longest_episode"] = max(episodes.lengths, default=0)
        logged = {f"doctor/{name}": float(value) for name, value in measured.items() if np.isfinite(value)}
        self.chart.add(counters.steps, {**logged, **self.of_the_run(progress, episodes)})
        diagnosis = diagnosis_of(self.chart)
        self.live.log({**logged, "doctor/alarms": len(diagnosis.alarms)})
        self.report(diagnosis)

    def of_the_run(self, progress: loop.Progress, episodes: EpisodeTracker) -> Mapping[str, float]:
        """Return what the run logs itself and the checks need, as of now."""
        counters = progress.counters
        values = {
            "rollout/exploration_rate": progress.epsilon,
            "train/n_updates": counters.updates,
            "train/learning_rate": self.config.learning_rate_at(counters.steps, counters.updates),
        }
        if episodes.lengths:
            values["rollout/ep_len_mean"] = float(np.mean(episodes.lengths))
        return values

    def start_values(self, exam: Exam) -> Mapping[str, float]:
        """Return predicted value and realised discounted return of the last episodes' first states."""
        starts = self.starts
        if len(starts.returns) < 5 or self.config.trace_lambda is not None:
            return {}
        states = torch.as_tensor(np.stack(starts.states), device=exam.probes.device)
        actions = torch.tensor(list(starts.actions), device=exam.probes.device)
        predicted = values_of_actions(exam.networks.online(states), actions)
        unit = exam.learner.unit_of_rewards()
        return {"predicted_start": float(predicted.mean()) * unit, "realised_start": float(np.mean(starts.returns))}

    def report(self, diagnosis: Diagnosis, ended: bool = False) -> None:
        """Write the findings if there are new ones, and say each alarm once for each severity."""
        assert self.plan is not None
        self.diagnosis = diagnosis
        names = {symptom.check for symptom in diagnosis.symptoms}
        worse = [
            symptom
            for symptom in diagnosis.symptoms
            if RANKS.index(symptom.severity) > RANKS.index(self.said.get(symptom.check))
        ]
        self.said |= {symptom.check: symptom.severity for symptom in worse}
        for symptom in worse:
            if symptom.alarms or diagnosis.step == 0:
                self.live.notice(str(symptom))
        if ended or (diagnosis.step and (worse or names != self.written)):
            write_json(self.plan.run_dir / FINDINGS_FILE, diagnosis.to_mapping())
            self.written = names

    def get_state(self) -> State:
        """Return everything that an exact resume needs."""
        if self.plan is None:
            return {}
        return {
            "chart": self.chart.to_mapping(),
            "tally": {"terminated": self.tally.terminated, "truncated": self.tally.truncated},
            "at_random": list(self.tally.at_random),
            "recent": list(self.recent),
            "said": dict(self.said),
            "due": self.due,
            **below("before", dict(self.before)),
            **below("starts", self.starts.get_state()),
            **({} if self.probes is None else {"probes": self.probes.cpu().numpy()}),
        }

    def set_state(self, state: State) -> None:
        """Restore what `get_state` returned, now or when the run starts; empty for a run of an older version."""
        self.restored = state
        if self.plan is not None:  # a rollback
            self._restore()

    def _restore(self) -> None:
        """Take over a restored state.

        Raises:
            RunError: something is missing or of another type.
        """
        state, self.restored = self.restored, {}
        if not state:
            return
        tally = value_from(state, "tally", dict)
        self.chart.restore(value_from(state, "chart", dict))
        self.tally = Tally(tally["terminated"], tally["truncated"], tuple(value_from(state, "at_random", list)))
        self.recent.extend(value_from(state, "recent", list))
        self.said = value_from(state, "said", dict)
        self.due = value_from(state, "due", bool)
        self.before = part(state, "before")
        self.starts.set_state(part(state, "starts"))
        if "probes" in state:
            self.probes = torch.from_numpy(state["probes"]).to(self.live.agent.device)


def first_probes(learner: Learner, rows: Mapping[str, Tensor], progress: loop.Progress) -> Tensor | None:
    """Return the states that every examination looks at: random ones of the first examination, if there are enough."""
    if rows:
        return rows["states"] if len(rows["states"]) >= 16 else None
    batch = progress.batch
    return None if batch is None or "states" not in batch else learner.prepared(batch)["states"].clone()
