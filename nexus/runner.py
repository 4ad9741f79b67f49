"""One training run: its parts, and who logs, evaluates, checkpoints and saves while the loop goes on."""

import os
import signal
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from nexus.core.config import AgentConfig
from nexus.core.errors import ConfigError, DivergenceError, RunError, Terminated
from nexus.core.seeding import seed_of
from nexus.core.state import Series, State, below, number_from, part, value_from
from nexus.core.types import Batch
from nexus.data.device_replay import DeviceReplay
from nexus.envs.atari import canonical
from nexus.envs.factory import EnvSource, EnvSpec, bounds_of, describe_spaces, make_vector_env, name_of
from nexus.envs.stream import TransitionStream
from nexus.envs.workers import close_env
from nexus.listener import Listener, Plan, TrainResult
from nexus.models.layers import Bounds
from nexus.models.rl.dqn import DQNAgent
from nexus.models.rl.dqn.rainbow import make_agent
from nexus.models.setup import resolve_device
from nexus.training import concurrent_loop, loop
from nexus.training.checkpoint import Checkpoint, check_logs, read_checkpoint
from nexus.training.checkpoint_writer import Checkpoints
from nexus.training.config import TrainConfig
from nexus.training.divergence import WatchedAgent, require_finite_state
from nexus.training.evaluation import Evaluation
from nexus.training.evaluation import evaluate as play
from nexus.training.files import write_json
from nexus.training.logs import EpisodeTracker, Rate, RunLog, scalars
from nexus.training.replays import AnyReplay, replay_for, replay_memory
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
from nexus.whole_update import WholeUpdate

__all__ = ["Run", "agent_for", "agent_from", "replay_for"]

MOST_ROLLBACKS = 5  # the learning rate is then a 32nd of what it was: the cause is another
TO_TRY = "a smaller --learning-rate, --reward-clip 1, a smaller --max-grad-norm"


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
        frames = config.frame_skip, config.frame_stack
        self.spec = EnvSpec(env, *frames, protocol=config.protocol, frame_size=config.frame_size)
        self.listener = listener
        self.counters = loop.Counters()
        self.episodes = EpisodeTracker(config.num_envs)
        self.seconds = 0.0
        self.evaluation: Evaluation | None = None  # of the weights as they are
        self.score: float | None = None  # of the last evaluation since the last checkpoint
        self.reached_target = False
        self.from_checkpoint: Checkpoint | None = None
        self.rollbacks = 0  # each halves the learning rate
        self.divergence: str | None = None  # what ended the run, if that did
        with ExitStack() as stack:
            self.vector_env = make_vector_env(self.spec, config.num_envs, config.vectorization)
            stack.callback(close_env, self.vector_env)
            space = self.vector_env.single_observation_space
            shape, dtype, action_dim = describe_spaces(space, self.vector_env.single_action_space, name_of(env))
            device = resolve_device(config.device, shape)
            self.replay_bytes = memory = replay_memory(config, shape, dtype, device)
            bounds = bounds_of(space, name_of(env)) if config.scale_observations else None
            self.agent = agent_for(shape, action_dim, config, bounds)
            self.replay = replay_for(config, shape, dtype, device, self.agent.state_values)
            folder = (
                Path(run_dir) if begun and run_dir is not None else new_run_folder(name_of(env), config.seed, run_dir)
            )
            # After the environment: processes that it started must not hold the lock, should this one be killed.
            stack.enter_context(locked(folder))
            self.folder = folder
            self.state_dtype, self.action_dim = dtype, action_dim
            on_device = isinstance(self.replay, DeviceReplay)
            # Priorities in main memory bring the numbers of every update there anyway.
            at_once = self.agent.device.type == "cpu" or (config.prioritized and not on_device)
            learn: Callable[[Batch], loop.UpdateResult] = self.agent.learn
            self.learned_from: AnyReplay | WholeUpdate = self.replay
            if isinstance(self.replay, DeviceReplay) and config.cuda_graph and device.type == "cuda":
                self.learned_from = WholeUpdate(self.agent, self.replay)
                learn = self.learned_from.learn
            self.watched = WatchedAgent(self.agent, self.counters, folder, at_once=at_once, learn=learn)
            self.checkpoints = Checkpoints(folder, config.keep_checkpoints)
            if begun:
                require_no_links_out(folder)
                self.restore()
            else:
                require_empty(folder)  # again: another process may have been quicker
            about = name_of(env), preset, config, self.agent, memory, folder
            self.plan = Plan(*about, self.counters.steps, self.seconds, self.spec.rules)
            self.stack = stack.pop_all()

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def run(self) -> TrainResult:
        """Train to the end, to the target return, or to a signal; save in each case, and if an error ends it too."""
        self.checkpoints.go_on_from(self.from_checkpoint)
        self.save("running")
        self.listener.on_start(self.plan)
        status, evaluation, stopped_by = "finished", None, None
        try:
            with sigterm_stops():
                evaluation = self.to_the_end()
        except KeyboardInterrupt as stop:
            status, stopped_by = "interrupted", signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT
        except BaseException:
            with suppress(RunError):  # on a full disk say what came first
                self.save("failed" if self.divergence is None else "diverged")
            raise
        self.save(status, evaluation)
        newest = max(self.checkpoints.kept, default=None)
        return TrainResult(self.agent, self.folder, evaluation, self.counters, self.seconds, stopped_by, newest)

    def to_the_end(self) -> Evaluation:
        """Train and evaluate, from the last checkpoint again whenever the training diverges and may go back."""
        while True:
            try:
                with self.open_log() as log:
                    try:
                        return self.once(log)
                    finally:
                        self.seconds = log.seconds
            except DivergenceError as fault:
                self.recover(fault)

    def once(self, log: RunLog) -> Evaluation:
        """Train to the end and return the evaluation of the final weights."""
        self.follow(log)
        # Other seeds than before: a run that stopped for its score is not reported by that score.
        ended_at = None if self.reached_target else self.evaluation
        return ended_at if ended_at is not None else self.evaluate(log, seed_offset=10_000)

    def open_log(self) -> RunLog:
        """Open the log files, cut back to the checkpoint that the run goes on from."""
        logs = None if self.from_checkpoint is None else self.from_checkpoint.logs
        return RunLog(self.folder, logs, self.seconds)

    def follow(self, log: RunLog) -> None:
        """Iterate the loop to its end, or until an evaluation reaches the target return."""
        if self.reached_target:
            return
        rate = Rate(self.counters.steps, log.seconds)
        stream = TransitionStream(self.vector_env, self.plan.env, self.config.step_timeout)
        config = self.config.slowed(self.rollbacks)
        train = loop.train if config.actor_sync_every is None else concurrent_loop.train
        for progress in train(stream, self.watched, self.learned_from, config, self.counters):
            self.evaluation = None
            ended = self.episodes.add(progress)
            log.episodes(progress, ended)
            if progress.due(self.config.log_every):
                per_second = rate.at(self.counters.steps, log.seconds)
                values = scalars(progress, self.episodes, self.replay, config, per_second)
                values |= {"train/rollbacks": self.rollbacks} if self.rollbacks else {}
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
        self.watched.settle()
        seed = seed_of(self.config.seed, "evaluation") + seed_offset
        config = self.config
        evaluation = play(
            self.agent,
            self.spec,
            config.eval_episodes,
            seed=seed,
            num_envs=config.eval_copies,
            # Whoever trains in processes, because an environment may hang or die, is not to meet that in this one.
            vectorization="async" if config.vectorization == "async" else "auto",
            step_timeout=config.step_timeout,
        )
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
        """Write all that the run needs to go on from here; never what has diverged."""
        self.watched.settle()
        self.seconds = log.seconds
        state = self.get_state()
        require_finite_state(part(state, "agent"), self.counters.steps)
        score = self.score if self.score is not None and np.isfinite(self.score) else None
        self.checkpoints.write(self.counters.steps, state, self.replay_series(), log.marks(), score)
        self.score = None

    def recover(self, fault: DivergenceError) -> None:
        """Go back to the last checkpoint, and on from there with half the learning rate if that is wanted.

        Whoever is killed after this and resumes starts from that checkpoint too, diverges at the same place and comes
        to the same decision. Later checkpoints keep the count.

        Raises:
            DivergenceError: it is not wanted, or did not help, or there is no checkpoint. The agent is then that of
                the last checkpoint.
        """
        rollbacks, seconds, unwatched = self.rollbacks + 1, self.seconds, self.counters.steps
        self.from_checkpoint, _ = self.newest_whole()
        self.rollbacks, self.seconds, self.score = rollbacks, seconds, None
        if self.from_checkpoint is None:
            last = "no checkpoint was written before"
        else:
            last = f"the last good checkpoint is of step {self.from_checkpoint.steps}"
        wanted = self.config.on_divergence == "rollback"
        if not wanted or self.from_checkpoint is None or rollbacks > MOST_ROLLBACKS:
            again = f"{MOST_ROLLBACKS} rollbacks did not help" if rollbacks > MOST_ROLLBACKS else last
            self.rollbacks = rollbacks - 1
            self.divergence = f"{fault}; {again}; try {TO_TRY}{'' if wanted else ', --on-divergence rollback'}"
            raise DivergenceError(self.divergence) from None
        self.checkpoints.go_on_from(self.from_checkpoint)
        rate = self.config.slowed(rollbacks).learning_rate_at(self.counters.steps, self.counters.updates)
        self.listener.on_notice(
            f"{fault}; rollback {rollbacks} of at most {MOST_ROLLBACKS}: from step {unwatched} back to step "
            f"{self.counters.steps}, learning rate {rate:g}"
        )

    def get_state(self) -> State:
        """Return everything that training has changed, but for what the replay saves in chunks."""
        return {
            **below("agent", self.agent.get_state()),
            **below("replay", self.replay.get_state()),
            **below("episodes", self.episodes.get_state()),
            **below("counters", asdict(self.counters)),
            "seconds": self.seconds,
            "rollbacks": self.rollbacks,
            "reached_target": self.reached_target,
            "evaluation": None if self.evaluation is None else self.evaluation.to_mapping(),
        }

    def set_state(self, state: State) -> None:
        """Take back what `get_state` gave; the replay's chunks are still to come.

        Raises:
            RunError: something is missing or does not fit.
        """
        self.agent.set_state(part(state, "agent"))
        self.replay.set_state(part(state, "replay"))
        self.episodes.set_state(part(state, "episodes"))
        for name in vars(self.counters):
            setattr(self.counters, name, int(number_from(state, f"counters.{name}", low=0)))
        self.seconds = number_from(state, "seconds", low=0)
        self.rollbacks = int(number_from({"rollbacks": 0, **state}, "rollbacks", 0, MOST_ROLLBACKS))  # older runs: none
        self.reached_target = value_from(state, "reached_target", bool)
        saved = state.get("evaluation")
        self.evaluation = None if saved is None else Evaluation.from_mapping(saved)

    def restore(self) -> None:
        """Go on from the newest checkpoint that is whole, or from the start if none was written yet.

        Raises:
            RunError: there are checkpoints, and none is whole.
        """
        self.from_checkpoint, damage = self.newest_whole()
        if damage and self.from_checkpoint is None:
            raise RunError(f"nothing to resume from: {'; '.join(damage)}")
        if self.from_checkpoint is None:
            self.listener.on_notice("no checkpoint was written yet: the run begins anew")
        if damage:
            self.listener.on_notice(f"{'; '.join(damage)}; going on from step {self.counters.steps}")
        if self.counters.steps > self.config.total_steps:
            raise ConfigError(f"total_steps = {self.config.total_steps}: the run has {self.counters.steps} behind it")

    def newest_whole(self) -> tuple[Checkpoint | None, list[str]]:
        """Take on the state of the newest checkpoint that is whole; return it, and what is wrong with newer ones."""
        damage: list[str] = []
        for steps in self.checkpoints.present():
            try:
                return self.restored(read_checkpoint(self.folder, steps)), damage
            except (RunError, ConfigError) as error:
                damage.append(f"checkpoint {steps}: {error}")
        return None, damage

    def restored(self, checkpoint: Checkpoint) -> Checkpoint:
        """Take on a checkpoint's whole state.

        Raises:
            RunError: a file of it is missing or damaged, or does not fit the run.
        """
        check_logs(self.folder, checkpoint.logs)
        own = sum(value.nbytes for value in self.agent.get_state().values() if isinstance(value, np.ndarray))
        under_way = 0 if self.config.trace_decay is None else self.replay_bytes  # a rollout has no chunks
        self.set_state(checkpoint.read_state(limit=4 * own + 16 * self.config.replay_capacity + under_way))
        if self.counters.steps != checkpoint.steps:
            raise RunError(f"its folder is of step {checkpoint.steps}, its state of step {self.counters.steps}")
        for series in self.replay_series():
            checkpoint.restore_series(series)
        return checkpoint

    def replay_series(self) -> tuple[Series, ...]:
        """What the replay saves in chunks."""
        return self.replay.series(self.agent.state_shape, self.state_dtype, self.action_dim)

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
                "rollbacks": self.rollbacks,
                "divergence": self.divergence,
                "config": self.config.to_mapping(),
                "agent": self.agent.config,
                "versions": versions(),
            },
        )
        if status == "running":
            self.save_weights(evaluation)

    def save_weights(self, evaluation: Evaluation | None) -> None:
        """Write all networks, unless they have diverged, and how good they are if that is known."""
        if all(value.isfinite().all() for net in self.agent.networks.values() for value in net.state_dict().values()):
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
