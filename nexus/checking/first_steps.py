"""The cheap part of a check, on the first steps of a training: no extra steps or random draws."""

from collections.abc import Callable, Iterable

import gymnasium as gym

from nexus.checking.of_spaces import SPACE_CHECKS
from nexus.checking.of_steps import STEP_CHECKS
from nexus.checking.record import Record
from nexus.checking.report import Finding
from nexus.checking.sight import Sight
from nexus.core.installation import nexus_command
from nexus.listener import Listener, Plan
from nexus.training.logs import EpisodeTracker
from nexus.training.loop import Progress

__all__ = ["FirstSteps"]

LOOKED_AT = 1_000  # steps
OF_SPACES = ("observations", "actions")  # the other space checks are covered at the start of a run


class FirstSteps(Listener):
    """Notes problems of the environment, at the start and after 1,000 steps of a new run.

    Args:
        notice: called with each note.
    """

    def __init__(self, notice: Callable[[str], None]) -> None:
        self.notice = notice
        self.sight: Sight | None = None  # None before and after the check
        self.record: Record | None = None  # likewise
        self.said = False

    def on_start(self, plan: Plan) -> None:
        """Check the spaces."""
        if plan.first_step or plan.space is None:
            return
        self.sight = Sight(plan.env, plan.preset, plan.config, plan.space, plan.agent.action_dim)
        self.record = Record(plan.config.num_envs, self.sight)
        for name in OF_SPACES:
            self._say(name, SPACE_CHECKS[name](self.sight))

    def on_step(self, progress: Progress, episodes: EpisodeTracker) -> None:
        """Record a step; after the last one, check them all."""
        if self.sight is None or self.record is None:
            return
        self.record.add(progress.step)
        if self.record.steps < LOOKED_AT:
            return
        for name, check in STEP_CHECKS.items():
            self._say(name, check(self.sight, self.record))
        env, self.sight, self.record = self.sight.name, None, None
        if self.said and env.rpartition(":")[2] in gym.registry:
            self.notice(f"for a full check: {nexus_command('check', env)}")

    def _say(self, name: str, findings: Iterable[Finding]) -> None:
        for finding in findings:
            if finding.verdict != "ok":
                self.said = True
                self.notice(f"{name}: {finding.text}; {finding.cure}")
