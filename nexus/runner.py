"""One training run: its parts, and who logs, evaluates, checkpoints and saves while the loop goes on."""

import os
import signal
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from nexus.core.config import AgentConfig
from nexus.core.errors import ConfigError, RunError, Terminated
from nexus.core.seeding import seed_of
from nexus.core.state import State, below, number_from, part, value_from
from nexus.data.replay_buffer import replay_bytes
from nexus.envs.atari import canonical
from nexus.envs.factory import EnvSource, EnvSpec, bounds_of, describe_spaces, make_vector_env, name_of
from nexus.envs.stream import TransitionStream
from nexus.listener import Listener, Plan, TrainResult
from nexus.models.layers import Bounds
from nexus.models.rl.dqn import DQNAgent
from nexus.models.rl.dqn.rainbow import make_agent
from nexus.training import loop
from nexus.training.checkpoint import Checkpoint, check_logs, read_checkpoint
from nexus.training.checkpoint_writer import Checkpoints
from nexus.training.config import TrainConfig
from nexus.training.evaluation import Evaluation
from nexus.training.evaluation import evaluate as play
from nexus.training.files import write_json
from nexus.training.logs import EpisodeTracker, RunLog, scalars
from nexus.training.replays import replay_for, replay_memory
from nexus.training.run_folder import (
    FORMAT,
    RUN_FILE,
    locked,
    new_run_folder,
    require_empty,
    require_no_links_out,
    save_weights,
    versions,
)
from nexus.training.signals import sigterm_stops

__all__ = ["Run", "agent_for", "agent_from", "replay_for"]


class Run:
    """One training run, new or gone on with. Use as a context manager.

    Args:
        env: the environment.
        preset: the name that its settings came from.
        config: its settings.
        run_dir: its folder; None makes one below `runs/`.
        listener: who watches.
        begun: whether the folder holds the run already, and it goes on from its newest checkpoint.
    """

    def __init__(
        self,
        env: EnvSource,
        preset: str | None,
        config: TrainConfig,
        run_dir: str | os.PathLike[str] | None,
        listener: Listener,
        begun: bool = False,
    ) -> None:
        env = canonical(env)
        self.config = config
        self.spec = EnvSpec(env, config.frame_skip, config.frame_stack, protocol=config.protocol)
        self.listener = listener
        self.counters = loop.Counters()
        self.episodes = EpisodeTracker(config.num_envs)
        self.seconds = 0.0
        self.evaluation: Evaluation | None = None  # of the weights as they are
        self.score: float | None = None  # of the last evaluation since the last checkpoint
        self.reached_target = False
        self.from_checkpoint: Checkpoint | None = None
        with ExitStack() as stack:
            self.vector_env = make_vector_env(self.spec, config.num_envs, config.vectorization)
            stack.callback(self.vector_env.close)
            space = self.vector_env.single_observation_space
            shape, dtype, action_dim = describe_spaces(space, self.vector_env.single_action_space, name_of(env))
            memory = replay_memory(config, shape, dtype)
            bounds = bounds_of(space, name_of(env)) if config.scale_observations else None
            self.agent = agent_for(shape, action_dim, config, bounds)
            self.replay = replay_for(config, shape, dtype)
            folder = (
                Path(run_dir) if begun and run_dir is not None else new_run_folder(name_of(env), config.seed, run_dir)
            )
            # After the environment: processes that it started must not hold the lock, should this one be killed.
            stack.enter_context(locked(folder))
            self.folder = folder
            self.row_bytes = (
                replay_bytes(1, shape, dtype) + 2 * action_dim
            )  # with room for a mask of each state's actions
            self.checkpoints = Checkpoints(folder, config.keep_checkpoints)
            if begun:
                require_no_links_out(folder)
                self.restore()
            else:
                require_empty(folder)  # again: another process may have been quicker
            self.plan = Plan(
                name_of(env), preset, config, self.agent, memory, folder, self.counters.steps, self.spec.rules
            )
            self.stack = stack.pop_all()

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def run(self) -> TrainResult:
        """Train to the end, to the target return, or to a signal; save in each case."""
        self.checkpoints.go_on_from(self.from_checkpoint)
        self.save("running")
        self.listener.on_start(self.plan)
        status, evaluation, stopped_by = "failed", None, None  # what stands if an error ends the run
        try:
            with sigterm_stops(), self.open_log() as log:
                try:
                    self.follow(log)
                    # Other seeds than before: a run that stopped for its score is not reported by that score.
                    ended_at = None if self.reached_target else self.evaluation
                    evaluation = ended_at if ended_at is not None else self.evaluate(log, seed_offset=10_000)
                finally:
                    self.seconds = log.seconds
            status = "finished"
        except KeyboardInterrupt as stop:
            status, stopped_by = "interrupted", signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT
        finally:
            self.save(status, evaluation)
        newest = max(self.checkpoints.kept, default=None)
        return TrainResult(self.agent, self.folder, evaluation, self.counters, self.seconds, stopped_by, newest)

    def open_log(self) -> RunLog:
        """Open the log files, cut back to the checkpoint that the run goes on from."""
        logs = None if self.from_checkpoint is None else self.from_checkpoint.logs
        return RunLog(self.folder, logs, self.seconds)

    def follow(self, log: RunLog) -> None:
        """Iterate the loop to its end, or until an evaluation reaches the target return."""
        if self.reached_target:
            return
        logged_seconds, logged_steps = log.seconds, self.counters.steps
        stream = TransitionStream(self.vector_env, self.plan.env)
        for progress in loop.train(stream, self.agent, self.replay, self.config, self.counters):
            self.evaluation = None
            ended = self.episodes.add(progress)
            log.episodes(progress, ended)
            if progress.due(self.config.log_every):
                now = log.seconds
                rate = (self.counters.steps - logged_steps) / max(now - logged_seconds, 1e-9)
                logged_seconds, logged_steps = now, self.counters.steps
                values = scalars(progress, self.episodes, self.replay, self.config, rate)
                log.scalars(self.counters.steps, values)
            self.listener.on_step(progress, self.episodes)
            if progress.due(self.config.eval_every):
                self.evaluation = self.evaluate(log)
                self.score = self.evaluation.mean
                target = self.config.target_return
                self.reached_target = target is not None and self.evaluation.mean >= target
            if progress.barrier:
                self.checkpoint(log)
            if self.reached_target:
                return

    def evaluate(self, log: RunLog, seed_offset: int = 0) -> Evaluation:
        """Play greedy episodes on seeds that training never sees, and log the result."""
        seed = seed_of(self.config.seed, "evaluation") + seed_offset
        evaluation = play(self.agent, self.spec, self.config.eval_episodes, seed=seed)
        log.scalars(
            self.counters.steps,
            {
                "eval/mean_reward": evaluation.mean,
                "eval/std_reward": evaluation.std,
                "eval/mean_ep_length": evaluation.mean_length,
            },
        )
        self.listener.on_evaluation(self.counters.steps, evaluation)
        return evaluation

    def checkpoint(self, log: RunLog) -> None:
        """Write all that the run needs to go on from here."""
        self.seconds = log.seconds
        score = self.score if self.score is not None and np.isfinite(self.score) else None
        self.checkpoints.write(self.counters.steps, self.get_state(), self.replay, log.marks(), score)
        self.score = None

    def get_state(self) -> State:
        """Return everything that training has changed, but for the rows of the replay."""
        return {
            **below("agent", self.agent.get_state()),
            **below("replay", self.replay.get_state()),
            **below("episodes", self.episodes.get_state()),
            **below("counters", asdict(self.counters)),
            "seconds": self.seconds,
            "reached_target": self.reached_target,
            "evaluation": None if self.evaluation is None else self.evaluation.to_mapping(),
        }

    def set_state(self, state: State) -> None:
        """Take back what `get_state` gave; the replay's rows are still to come.

        Raises:
            RunError: something is missing or does not fit.
        """
        self.agent.set_state(part(state, "agent"))
        self.replay.set_state(part(state, "replay"))
        self.episodes.set_state(part(state, "episodes"))
        for name in vars(self.counters):
            setattr(self.counters, name, int(number_from(state, f"counters.{name}", low=0)))
        self.seconds = number_from(state, "seconds", low=0)
        self.reached_target = value_from(state, "reached_target", bool)
        saved = state.get("evaluation")
        self.evaluation = None if saved is None else Evaluation.from_mapping(saved)

    def restore(self) -> None:
        """Go on from the newest checkpoint that is whole, or from the start if none was written yet.

        Raises:
            RunError: there are checkpoints, and none is whole.
        """
        damage = []
        for steps in self.checkpoints.present():
            try:
                self.from_checkpoint = self.restored(read_checkpoint(self.folder, steps))
                break
            except (RunError, ConfigError) as error:
                damage.append(f"checkpoint {steps}: {error}")
        if damage and self.from_checkpoint is None:
            raise RunError(f"nothing to resume from: {'; '.join(damage)}")
        if self.from_checkpoint is None:
            self.listener.on_notice("no checkpoint was written yet: the run begins anew")
        if damage:
            self.listener.on_notice(f"{'; '.join(damage)}; going on from step {self.counters.steps}")
        if self.counters.steps > self.config.total_steps:
            raise ConfigError(f"total_steps = {self.config.total_steps}: the run has {self.counters.steps} behind it")

    def restored(self, checkpoint: Checkpoint) -> Checkpoint:
        """Take on a checkpoint's whole state.

        Raises:
            RunError: a file of it is missing or damaged, or does not fit the run.
        """
        check_logs(self.folder, checkpoint.logs)
        own = sum(value.nbytes for value in self.agent.get_state().values() if isinstance(value, np.ndarray))
        self.set_state(checkpoint.read_state(limit=4 * own + 16 * self.config.replay_capacity))
        if self.counters.steps != checkpoint.steps:
            raise RunError(f"its folder is of step {checkpoint.steps}, its state of step {self.counters.steps}")
        checkpoint.restore_rows(self.replay, self.agent.state_shape, self.row_bytes)
        return checkpoint

    def save(self, status: str, evaluation: Evaluation | None = None) -> None:
        """Write weights and `run.json`."""
        if status != "running":  # at the start `run.json` comes first: without it the weights mean nothing
            self.save_weights(evaluation)
        write_json(
            self.folder / RUN_FILE,
            {
                "format": FORMAT,
                "env": self.plan.env,
                "env_is_id": isinstance(self.spec.source, str),
                "algorithm": self.config.algorithm,
                "preset": self.plan.preset,
                "status": status,
                "progress": asdict(self.counters),
                "seconds": round(self.seconds, 3),
                "config": self.config.to_mapping(),
                "agent": self.agent.config,
                "versions": versions(),
            },
        )
        if status == "running":
            self.save_weights(evaluation)

    def save_weights(self, evaluation: Evaluation | None) -> None:
        """Write both networks, and how good they are if that is known."""
        save_weights(self.folder, self.agent.networks)
        if evaluation is not None:
            write_json(self.folder / "evaluation.json", evaluation.to_mapping())


def agent_for(
    state_shape: tuple[int, ...], action_dim: int, config: TrainConfig, state_bounds: Bounds | None = None
) -> DQNAgent:
    """Return a fresh agent for these shapes, and bounds if states are to be scaled by them."""
    settings = {field.name: getattr(config, field.name) for field in fields(AgentConfig)}
    if state_bounds is not None:
        settings["state_bounds"] = state_bounds
    return agent_from({"state_dim": list(state_shape), "action_dim": action_dim, **settings})


def agent_from(settings: Mapping[str, Any]) -> DQNAgent:
    """Return a fresh agent from all its settings, its algorithm among them."""
    return make_agent(settings.get("algorithm", "dqn"), **{k: v for k, v in settings.items() if k != "algorithm"})
