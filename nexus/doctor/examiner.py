"""Measuring a run in progress: what it counts at every step, and what it computes at an examination."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from nexus.core.state import State, below, part
from nexus.core.types import Array
from nexus.doctor.exam import Exam, Networks, Tally, read_rows
from nexus.doctor.exploration import exploration_measures
from nexus.doctor.network import network_measures
from nexus.doctor.returns import return_measures
from nexus.doctor.scale import scale_measures
from nexus.doctor.starts import EpisodeStarts
from nexus.doctor.storage import storage_measures
from nexus.doctor.targets import target_measures
from nexus.doctor.values import value_measures
from nexus.listener import LiveRun
from nexus.models.rl.dqn.learner import Learner
from nexus.ops.action_values import only_legal, values_of_actions
from nexus.training import loop
from nexus.training.config import TrainConfig
from nexus.training.logs import EpisodeTracker

__all__ = ["MOST_RANDOM", "RANDOM_EPSILON", "Examiner"]

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
RANDOM_EPSILON = 0.9  # ε from which on an episode counts as random
FEWEST_PROBES = 16


class Examiner:
    """Measures a run.

    Args:
        config: the run's settings.
        live: the run.
    """

    def __init__(self, config: TrainConfig, live: LiveRun) -> None:
        self.config = config
        self.live = live
        self.networks = Networks(live.agent.learner)
        self.starts = EpisodeStarts(config.gamma, config.reward_clip)
        self.tally = Tally()
        self.probes: Tensor | None = None  # [P, *obs]
        self.before: dict[str, Array] = {}  # what the next examination compares with

    def count(self, progress: loop.Progress, episodes: EpisodeTracker) -> None:
        """Follow a vector step: its rewards, and the ends of episodes."""
        step, ended = progress.step, progress.counters.episodes - progress.before.episodes
        self.starts.follow(step)
        if not ended:
            return
        tally = self.tally
        tally.terminated += int(step.terminal.sum())
        tally.truncated += int((step.truncated & ~step.terminated).sum())
        returns = [episodes.returns[place] for place in range(-min(ended, len(episodes.returns)), 0)]
        tally.recent.extend(returns)
        tally.lengths.extend(episodes.lengths[place] for place in range(-len(returns), 0))
        explores = self.config.exploration == "epsilon_greedy" and progress.epsilon >= RANDOM_EPSILON
        if (explores or progress.counters.updates == 0) and len(tally.at_random) < MOST_RANDOM:
            tally.at_random = (*tally.at_random, *returns)

    def watch(self, progress: loop.Progress) -> None:
        """Count how many of the actions just taken are those of the highest values."""
        if self.config.exploration != "epsilon_greedy" or self.config.noisy or progress.counters.updates == 0:
            return
        step = progress.step
        self.networks.follow()
        with torch.no_grad():
            q = self.networks.online(torch.as_tensor(step.states, device=self.live.agent.device))
        legal = None if step.action_masks is None else torch.as_tensor(step.action_masks, device=q.device)
        greedy = only_legal(q, legal).argmax(1).cpu().numpy()
        self.tally.acted += int(step.valid.sum())
        self.tally.greedy += int((greedy == step.actions)[step.valid].sum())

    def examine(self, progress: loop.Progress, episodes: EpisodeTracker) -> Mapping[str, float]:
        """Return everything measured now, by name; nothing before there are states to look at."""
        learner, replay, steps = self.live.agent.learner, self.live.replay, progress.counters.steps
        rows, newest = read_rows(learner, replay, self.config.seed + steps, progress.step.states[0].nbytes)
        if self.probes is None:
            self.probes = first_probes(learner, rows, progress)
        if self.probes is None:
            return {}
        self.networks.follow()
        about, material = (self.config, learner, self.networks), (self.probes, rows, newest)
        with torch.no_grad():
            exam = Exam(*about, *material, replay, progress.last, self.tally, self.before)
            values = {name: float(value) for measure in MEASURES for name, value in measure(exam).items()}
            values |= self.start_values(exam)
        self.before = {"greedy": exam.q.argmax(1), "q_target": exam.q_target.copy(), "theta": exam.theta}
        self.tally.acted = self.tally.greedy = 0
        values |= {"tallied_steps": steps, "longest_episode": max(episodes.lengths, default=0)}
        return {name: value for name, value in values.items() if np.isfinite(value)}

    def start_values(self, exam: Exam) -> Mapping[str, float]:
        """Return the mean value predicted for the last episodes' first states, and the mean discounted return."""
        starts = self.starts
        if len(starts.returns) < 5 or self.config.trace_lambda is not None:
            return {}
        device, unit = exam.probes.device, exam.learner.unit_of_rewards()
        states, lasts = (torch.as_tensor(np.stack(kept), device=device) for kept in (starts.states, starts.lasts))
        predicted = values_of_actions(exam.networks.online(states), torch.tensor(list(starts.actions), device=device))
        rest = torch.tensor(list(starts.rests), device=device) * exam.networks.online(lasts).amax(1) * unit
        realised = float(np.mean(starts.returns)) + float(rest.mean())
        return {"predicted_start": float(predicted.mean()) * unit, "realised_start": realised}

    def get_state(self) -> State:
        """Return everything that an exact resume needs."""
        return {
            **below("tally", self.tally.get_state()),
            **below("before", dict(self.before)),
            **below("starts", self.starts.get_state()),
            **({} if self.probes is None else {"probes": self.probes.cpu().numpy()}),
        }

    def set_state(self, state: State) -> None:
        """Restore what `get_state` returned.

        Raises:
            RunError: something is missing or of another type.
        """
        self.tally.set_state(part(state, "tally"))
        self.before = part(state, "before")
        self.starts.set_state(part(state, "starts"))
        self.probes = torch.from_numpy(state["probes"]).to(self.live.agent.device) if "probes" in state else None


def first_probes(learner: Learner, rows: Mapping[str, Tensor], progress: loop.Progress) -> Tensor | None:
    """Return the states that every examination looks at: random ones of the first examination, if there are enough."""
    if rows:
        return rows["states"] if len(rows["states"]) >= FEWEST_PROBES else None
    batch = progress.batch
    return None if batch is None or "states" not in batch else learner.prepared(batch)["states"].clone()
