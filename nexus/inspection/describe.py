"""What a run holds, in words: Q-values, exploration, loss and replay."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nexus.api import Lost, agent_of, config_of, folder_of, seen_by_run, statistics_of
from nexus.core.errors import ConfigError, NexusError, RunError
from nexus.core.seeding import seed_of
from nexus.doctor.afterwards import read_line
from nexus.doctor.chart import Chart
from nexus.envs.factory import composition, name_of
from nexus.envs.stream import TransitionStream
from nexus.envs.workers import close_env
from nexus.inspection.contents import ReplayContents, contents_of
from nexus.inspection.exploring import Exploring, exploring_at
from nexus.inspection.losses import LossTrend, loss_trend
from nexus.inspection.saved_replay import saved_replay
from nexus.inspection.state_values import QValues, q_values, values_at
from nexus.inspection.words import Unknown
from nexus.listener import Listener, TrainResult
from nexus.models.rl.dqn import DQNAgent
from nexus.parts import require_shapes_of
from nexus.training.config import TrainConfig
from nexus.training.curves import whole_lines
from nexus.training.edited import read_run_or_copy
from nexus.training.evaluation import evaluation_envs
from nexus.training.run_folder import METRICS_FILE

__all__ = ["Description", "describe"]

DESCRIBED = ("q_values", "exploration", "loss", "replay")


@dataclass(frozen=True)
class Description:
    """What a run holds, each part with its numbers and, as `str`, in words; or why it is missing.

    Args:
        env: name of its environment.
        status: `running` (also of a killed run), `finished`, `interrupted`, `failed` or `diverged`.
        steps: its steps so far.
        total_steps: those that it is to have.
        q_values: the values of one state.
        exploration: how it explores now.
        loss: how its loss moved.
        replay: what its newest checkpoint has stored.
    """

    env: str
    status: str
    steps: int
    total_steps: int
    q_values: QValues | Unknown
    exploration: Exploring | Unknown
    loss: LossTrend | Unknown
    replay: ReplayContents | Unknown

    def to_mapping(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        about = {name: getattr(self, name) for name in ("env", "status", "steps", "total_steps")}
        return about | {name: getattr(self, name).to_mapping() for name in DESCRIBED}

    def __str__(self) -> str:
        title = f"{self.env}, {self.status}, step {self.steps:,} of {self.total_steps:,}"
        return "\n".join([title, *(str(getattr(self, name)) for name in DESCRIBED)])


def describe(
    run: str | os.PathLike[str] | TrainResult,
    state: Any = None,
    action_masks: Any = None,
    *,
    listener: Listener | None = None,
) -> Description:
    """Say what a run holds: Q-values of a state, exploration, the trend of its loss, and its replay.

    It works on runs that are in progress, were killed or diverged, and of older formats. What can't be read is
    described by the reason. Nothing is judged; `nexus.diagnose` does that.

    Args:
        run: a run's folder, or the result of `nexus.train`.
        state: a state or an observation `[*obs]`, as the agent acts on it; None for the first state of the run's
            environment under the seed of its evaluations, which needs the environment.
        action_masks: `[A]`, 1 where legal in `state`; None for all.
        listener: called with notices.

    Raises:
        RunError: the folder is not a run, was written by a newer version, or its settings or logs are damaged.
        ConfigError: `state` is not a state of the agent, or a mask has no legal action or lacks one entry per action.
    """
    folder = folder_of(run)
    about = read_run_or_copy(folder, (Listener() if listener is None else listener).on_notice)
    config = config_of(about, folder)
    chart = logged(folder, config)
    steps, episodes = progress_of(about, chart)
    return Description(
        str(about.get("env")),
        str(about.get("status")),
        steps,
        config.total_steps,
        described_values(folder, about, config, chart, state, action_masks),
        described_exploration(config, steps, episodes),
        loss_trend(chart, divergence_of(about)),
        described_replay(folder, about, config),
    )


def logged(folder: Path, config: TrainConfig) -> Chart:
    """Return the numbers that a run logged.

    Raises:
        RunError: the log is damaged.
    """
    chart, path = Chart(config), folder / METRICS_FILE
    for number, line in enumerate(whole_lines(path) if path.exists() else [], 1):
        chart.add(*read_line(path, number, line))
    return chart


def progress_of(about: Mapping[str, Any], chart: Chart) -> tuple[int, int]:
    """Return steps and episodes of a run: as logged, or as in `run.json` if that is later."""
    logged = chart.step, int(chart.last("time/episodes", 0.0))
    match about.get("progress"):
        case {"steps": int(steps), "episodes": int(episodes)} if steps >= logged[0] and episodes >= 0:
            return steps, episodes
    return logged


def divergence_of(about: Mapping[str, Any]) -> str | None:
    """Return what `run.json` says of the divergence that ended a run."""
    said = about.get("divergence")
    return said if isinstance(said, str) else None


def described_exploration(config: TrainConfig, steps: int, episodes: int) -> Exploring | Unknown:
    """Return how a run explores."""
    try:
        return exploring_at(config, steps, episodes)
    except NexusError as error:
        return Unknown(f"the exploration is not known: {error}")


def described_replay(folder: Path, about: Mapping[str, Any], config: TrainConfig) -> ReplayContents | Unknown:
    """Return what the newest checkpoint has stored."""
    try:
        return contents_of(saved_replay(folder, about, config), config) or Unknown(
            "the replay was still empty at the last checkpoint"
        )
    except RunError as error:
        return Unknown(str(error))


def described_values(
    folder: Path, about: Mapping[str, Any], config: TrainConfig, chart: Chart, state: Any, masks: Any
) -> QValues | Unknown:
    """Return the Q-values of a state, or of the first one of the run's environment.

    Raises:
        ConfigError: the given state or mask does not fit the agent.
    """
    try:
        agent = agent_of(about, folder, None, "cpu", Silence())
    except NexusError as error:
        return Unknown(f"the Q-values are not known: {error}")
    bound = largest_return(config, chart)
    if state is None and masks is not None:
        raise ConfigError("action_masks: needs the state in which these actions are legal")
    if state is not None:
        return replace(q_values(agent, state, masks), bound=bound)
    try:
        return replace(first_values(folder, about, config, agent), bound=bound)
    except NexusError as error:
        return Unknown(f"the Q-values of the first state are not known: {error}; those of a given state can be")


class Silence(Listener):
    """Says nothing: what could be noticed while loading the weights is said by the parts."""

    def on_notice(self, text: str) -> None:
        """Do nothing."""


def first_values(folder: Path, about: Mapping[str, Any], config: TrainConfig, agent: DQNAgent) -> QValues:
    """Return the Q-values of the first state under the seed of the evaluations."""
    seen = seen_by_run(folder, about)
    if isinstance(seen.spec.source, Lost):
        raise RunError(f"the run was trained on the function {name_of(seen.spec.source)}, which a folder can't store")
    name, seed = name_of(seen.spec.source), seed_of(config.seed, "evaluation")
    envs = evaluation_envs(seen.spec, 1, "async" if config.vectorization == "async" else "auto")
    try:
        action_dim = int(getattr(envs.single_action_space, "n", 0))
        require_shapes_of(agent, composition(envs.single_observation_space), action_dim, name, "the run was trained on")
        stream = TransitionStream(envs, name, config.step_timeout, reseed_after=0)
        stream.freeze(statistics_of(agent))
        states = stream.reset(seed)
    finally:
        close_env(envs)
    greedy = int(agent.act(states, 0.0, False, stream.action_masks)[0])
    masks = None if stream.action_masks is None else stream.action_masks[0]
    return values_at(agent, states[0], masks, greedy, f"the first state of {name} (seed {seed})")


def largest_return(config: TrainConfig, chart: Chart) -> float | None:
    """Return the largest size of a discounted return of such rewards as were logged; None if unknown."""
    if config.gamma == 1 or config.munchausen or config.normalize_rewards or config.bonus is not None:
        return None  # endless, with a bonus in the rewards, or in another unit
    sizes = [abs(float(value)) for name in ("min", "max") for value in chart.series(f"replay/reward_{name}")]
    return max(sizes, default=0.0) / (1 - config.gamma**config.stored_steps) or None
