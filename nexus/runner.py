"""One training run: its parts, and who logs, evaluates, checkpoints and saves while the loop goes on."""

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from nexus.core.config import AgentConfig
from nexus.core.errors import ConfigError, DivergenceError, EnvError, NexusError, RunError, Terminated
from nexus.core.seeding import seed_at, seed_of
from nexus.core.state import Series, State, arrays_of, below, count_from, number_from, part, value_from
from nexus.core.types import Batch, Outcome
from nexus.data.device_replay import DeviceReplay
from nexus.data.memory import replay_bytes
from nexus.envs.atari import canonical
from nexus.envs.factory import EnvSource, EnvSpec, describe_spaces, make_vector_env, name_of, seen_by_agent
from nexus.envs.stream import TransitionStream
from nexus.envs.workers import close_env
from nexus.listener import Listener, Plan, TrainResult
from nexus.models.rl.dqn import DQNAgent
from nexus.models.rl.dqn.rainbow import make_agent
from nexus.models.setup import resolve_device
from nexus.training import concurrent_loop, loop
from nexus.training.best import BestWeights
from nexus.training.checkpoint import Checkpoint, log_damage, read_checkpoint
from nexus.training.checkpoint_writer import Checkpoints
from nexus.training.config import TrainConfig
from nexus.training.divergence import WatchedAgent, require_finite_state
from nexus.training.evaluation import Evaluation
from nexus.training.evaluation import evaluate as play
from nexus.training.files import read_json, remove, write_json
from nexus.training.logs import EpisodeTracker, Rate, RunLog, scalars
from nexus.training.replays import AnyReplay, replay_for, replay_memory
from nexus.training.run_folder import (
    AGENT_FILE,
    EVALUATION_FILE,
    FORMAT,
    RUN_FILE,
    locked,
    new_run_folder,
    require_empty,
    require_no_links_out,
    save_weights,
    versions,
    weights_of,
)
from nexus.training.signals import StopRequest, stop_requests
from nexus.training.under_way import fresh_under_way, restore_under_way, state_of
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
        agent: who learns; None makes one for the config.
    """

    def __init__(
        self,
        env: EnvSource,
        preset: str | None,
        config: TrainConfig,
        run_dir: str | os.PathLike[str] | None,
        listener: Listener,
        begun: bool = False,
        agent: DQNAgent | None = None,
    ) -> None:
        env = canonical(env)
        self.config = config
        frames = config.frame_skip, config.frame_stack
        self.spec = EnvSpec(env, *frames, protocol=config.protocol, frame_size=config.frame_size)
        self.listener = listener
        self.counters = loop.Counters()
        self.episodes = EpisodeTracker(config.num_envs)
        self.seconds = 0.0
        self.metrics: dict[str, float] = {}  # of the last update before this process
        self.update: Outcome | None = None  # the last one in it
        self.evaluation: Evaluation | None = None  # of the weights as they are
        self.owed: int | None = None  # the step of an evaluation that is due and was not played to its end
        self.checkpoint_due = False
        self.reached_target = False
        self.sound = True  # what is saved now continues exactly
        self.said_endless = False
        self.stop = StopRequest()
        self.from_checkpoint: Checkpoint | None = None
        self.rollbacks = 0  # each halves the learning rate
        self.divergence: str | None = None  # what ended the run, if that did
        with ExitStack() as stack:
            self.vector_env = make_vector_env(self.spec, config.num_envs, config.vectorization)
            stack.callback(close_env, self.vector_env)
            space = self.vector_env.single_observation_space
            self.config = config = with_channels(config, space.shape)
            shape, dtype, action_dim = describe_spaces(space, self.vector_env.single_action_space, name_of(env))
            device = resolve_device(config.device, shape)
            self.replay_bytes = memory = replay_memory(config, shape, dtype, device)
            seen = seen_by_agent(space, name_of(env), config.scale_observations)
            self.agent = agent_for(shape, action_dim, config, seen) if agent is None else agent
            if (self.agent.state_shape, self.agent.action_dim) != (shape, action_dim):
                raise ConfigError(
                    f"{name_of(env)} has states of shape {shape} and {action_dim} actions: the run was trained on "
                    f"{self.agent.state_shape} and {self.agent.action_dim}"
                )
            self.replay = replay_for(config, shape, dtype, device, self.agent.state_values)
            self.stream = TransitionStream(self.vector_env, name_of(env), config.step_timeout)
            self.under_way = fresh_under_way(config)
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
            learn: Callable[[Batch], Outcome] = self.agent.learn
            self.learned_from: AnyReplay | WholeUpdate = self.replay
            if isinstance(self.replay, DeviceReplay) and config.cuda_graph and device.type == "cuda":
                self.learned_from = WholeUpdate(self.agent, self.replay)
                learn = self.learned_from.learn
            self.watched = WatchedAgent(self.agent, self.counters, folder, at_once=at_once, learn=learn)
            self.checkpoints, self.best = Checkpoints(folder, config.keep_checkpoints), BestWeights(folder)
            self.preset = preset
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
        self.go_back_to_checkpoint()
        self.save("running")
        self.listener.on_start(self.plan)
        evaluation, stopped_by = None, None
        try:
            with stop_requests() as self.stop:
                evaluation = self.to_the_end()
            stopped_by = self.stop.signal
        except KeyboardInterrupt as stop:  # a second signal, or one that the program around turned into this
            stopped_by = signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT
        except BaseException:
            with suppress(RunError):  # on a full disk say what came first
                self.save("failed" if self.divergence is None else "diverged")
            raise
        self.save("finished" if stopped_by is None else "interrupted", evaluation)
        newest = max(self.checkpoints.kept, default=None)
        ended = stopped_by, newest, self.reached_target
        return TrainResult(self.agent, self.folder, evaluation, self.counters, self.seconds, *ended)

    def to_the_end(self) -> Evaluation | None:
        """Train and evaluate, from the last checkpoint again whenever the training diverges and may go back."""
        while True:
            try:
                with self.open_log() as log:
                    try:
                        return self.once(log)
                    except DivergenceError:
                        raise
                    except BaseException as error:
                        self.save_if_sound(log, error)
                        raise
                    finally:
                        self.seconds = log.seconds
            except DivergenceError as fault:
                self.recover(fault)

    def once(self, log: RunLog) -> Evaluation | None:
        """Train to the end and return the evaluation of the final weights, or None if a signal came before it."""
        self.follow(log)
        try:
            self.checkpoint(log)  # before the evaluation: whatever becomes of that, nothing learned is lost
        except RunError as error:
            self.listener.on_notice(f"{error}; its weights are kept, but it can't go further from here")
        if self.stop.signal is not None:
            return None
        if self.evaluation is not None and not self.reached_target:
            return self.evaluation
        # On other episodes: a run that stopped for its score is not to be reported by that score.
        evaluation = self.evaluate(log, self.counters.steps, seed_offset=10_000)
        self.best.keep_for(self.checkpoints.kept)
        return evaluation

    def save_if_sound(self, log: RunLog, error: BaseException) -> None:
        """Write a checkpoint where an error left everything as it is between two steps.

        An environment that fails does so before anything of its step is stored; a second thread may learn meanwhile.
        """
        failed_first = isinstance(error, EnvError) and self.config.actor_sync_every is None
        if self.sound or failed_first:
            with suppress(NexusError):  # say what came first
                self.checkpoint(log)

    def open_log(self) -> RunLog:
        """Open the log files, cut back to the checkpoint that the run goes on from."""
        logs = None if self.from_checkpoint is None else self.from_checkpoint.logs
        return RunLog(self.folder, logs, self.seconds)

    def follow(self, log: RunLog) -> None:
        """Iterate the loop to its end, until an evaluation reaches the target return, or to a signal."""
        rate = Rate(self.counters.steps, log.seconds)
        config = self.config.slowed(self.rollbacks)
        self.evaluate_owed(log)
        if self.reached_target:
            return
        for progress in self.steps():
            self.evaluation = None
            self.update = progress.update or self.update
            log.episodes(progress, self.episodes.add(progress))
            if progress.due(self.config.log_every):
                per_second = rate.at(self.counters.steps, log.seconds)
                values = scalars(progress, self.episodes, self.replay, config, per_second, self.last_metrics())
                values |= {"train/rollbacks": self.rollbacks} if self.rollbacks else {}
                log.scalars(self.counters.steps, values)
            if progress.due(self.config.eval_every):
                self.owed = self.counters.steps
            self.checkpoint_due |= progress.due(self.config.checkpoint_every)
            self.tell(progress)
            self.evaluate_owed(log)
            if not progress.sound:
                continue
            if self.checkpoint_due:
                self.checkpoint(log)
            if self.stop.signal is not None or self.reached_target:
                return

    def steps(self) -> Iterator[loop.Progress]:
        """Yield what the loop does, and keep in mind whether it is between two steps."""
        train = loop.train if self.config.actor_sync_every is None else concurrent_loop.train
        config = self.config.slowed(self.rollbacks)
        for progress in train(self.stream, self.watched, self.learned_from, config, self.counters, self.under_way):
            self.sound = progress.sound
            yield progress
            self.sound = False
        self.sound = True

    def tell(self, progress: loop.Progress) -> None:
        """Let the listener see a step; it may ask for a stop as Ctrl-C does."""
        try:
            self.listener.on_step(progress, self.episodes)
        except KeyboardInterrupt as stop:
            self.stop.signal = signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT
        if self.stream.cut and not self.said_endless:
            self.said_endless = True
            self.listener.on_notice(
                f"an episode of {self.plan.env} had no end within {self.stream.longest:,} steps: from there on it is "
                "taken for truncated, and so is each that gets as long"
            )

    def last_metrics(self) -> dict[str, float]:
        """Return what the last update told, as numbers: a wait for the device."""
        if self.update is not None:
            self.metrics = {name: float(value) for name, value in self.update.items()}
        return self.metrics

    def evaluate_owed(self, log: RunLog) -> None:
        """Play the evaluation that is due, unless the run is to stop: it is then played when the run goes on."""
        if self.owed is None or self.stop.signal is not None:
            return
        self.evaluation = self.evaluate(log, self.owed)
        if self.evaluation is not None:
            self.owed = None
            target = self.config.target_return
            self.reached_target = target is not None and self.evaluation.mean >= target

    def evaluate(self, log: RunLog, steps: int, seed_offset: int = 0) -> Evaluation | None:
        """Play greedy episodes on seeds that training never sees, log the result and keep the weights if they are best.

        Returns None if a signal came before they had ended.
        """
        self.watched.settle()
        config = self.config

        def watch(steps: int, ended: int) -> None:
            self.listener.on_evaluation_step(steps, ended, config.eval_episodes)
            if self.stop.signal is not None:
                raise EvaluationStopped

        try:
            evaluation = play(
                self.agent,
                self.spec,
                config.eval_episodes,
                seed=seed_of(config.seed, "evaluation") + seed_offset,
                num_envs=config.eval_copies,
                # Whoever trains in processes, because an environment may hang or die, is not to meet that in this one.
                vectorization="async" if config.vectorization == "async" else "auto",
                step_timeout=config.step_timeout,
                watch=watch,
            )
        except EvaluationStopped:
            return None
        values = {
            "eval/mean_reward": evaluation.mean,
            "eval/std_reward": evaluation.std,
            "eval/mean_ep_length": evaluation.mean_length,
        }
        log.scalars(steps, values)
        self.best.offer(steps, evaluation, arrays_of(weights_of(self.agent.networks)))
        self.listener.on_evaluation(steps, evaluation)
        return evaluation

    def checkpoint(self, log: RunLog) -> None:
        """Write all that the run needs to go on from here, unless it is there; never what has diverged."""
        periodic, self.checkpoint_due = self.checkpoint_due, False
        if self.counters.steps == 0 or self.counters.steps in self.checkpoints.kept:
            return
        self.watched.settle()
        self.seconds = log.seconds
        self.replay.seal()
        state = self.get_state()
        require_finite_state(part(state, "agent"), self.counters.steps)
        about = {"run": self.about(), "periodic": periodic}
        self.checkpoints.write(self.counters.steps, state, self.replay_series(), log.marks(), about)
        self.best.keep_for(self.checkpoints.kept)

    def go_back_to_checkpoint(self) -> None:
        """Forget what was written after the checkpoint that the run goes on from."""
        self.checkpoints.go_on_from(self.from_checkpoint)
        self.best.go_back_to(0 if self.from_checkpoint is None else self.from_checkpoint.steps)

    def recover(self, fault: DivergenceError) -> None:
        """Go back to the last checkpoint, and on from there with half the learning rate if that is wanted.

        Whoever is killed after this and resumes starts from that checkpoint too, diverges at the same place and comes
        to the same decision. Later checkpoints keep the count. Those that a signal brought about are left out: a run
        that nobody interrupts would not have them.

        Raises:
            DivergenceError: it is not wanted, or did not help, or there is no checkpoint. The agent is then that of
                the last checkpoint.
        """
        rollbacks, seconds, unwatched = self.rollbacks + 1, self.seconds, self.counters.steps
        self.from_checkpoint, _ = self.newest_whole(only_periodic=True)
        self.rollbacks, self.seconds = rollbacks, seconds
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
        self.go_back_to_checkpoint()
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
            **below("stream", self.stream.get_state()),
            **below("under_way", state_of(self.under_way)),
            **below("counters", asdict(self.counters)),
            "metrics": self.last_metrics(),
            "seconds": self.seconds,
            "rollbacks": self.rollbacks,
            "reached_target": self.reached_target,
            "evaluation": None if self.evaluation is None else self.evaluation.to_mapping(),
            "owed": self.owed,
        }

    def set_state(self, state: State) -> None:
        """Take back what `get_state` gave, but for the replay's chunks and the episodes under way.

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
        self.owed = None if state.get("owed") is None else count_from(state, "owed")
        metrics = value_from({"metrics": {}, **state}, "metrics", dict)
        self.metrics, self.update = {name: number_from(metrics, name) for name in metrics}, None
        self.checkpoint_due = False

    def go_on_with_episodes(self, state: State) -> None:
        """Bring back the episodes under way, once the replay is whole; where that fails, others begin.

        Raises:
            RunError: something is missing or does not fit.
        """
        self.under_way = fresh_under_way(self.config)
        if not part(state, "stream"):  # of a run of format 2, which let all episodes end at a checkpoint
            self.stream.reset(seed_at(self.config.seed, "environments", self.counters.steps))
            return
        restore_under_way(self.under_way, part(state, "under_way"))
        lost = self.stream.set_state(part(state, "stream"))
        if not lost.any():
            return
        assert self.under_way.next_states is not None
        masks = state.get("stream.action_masks")
        self.replay.add(self.under_way.accumulator.flush(lost, self.under_way.next_states, masks))
        self.episodes.forget(lost)
        self.listener.on_notice(
            f"{name_of(self.spec.source)} does not repeat an episode from its seed and its actions: in "
            f"{lost.sum()} of {len(lost)} environments another one begins, so the numbers differ from those of an "
            "unbroken run"
        )

    def restore(self) -> None:
        """Go on from the newest checkpoint that is whole, or from the start if nothing was learned yet.

        Raises:
            RunError: there are checkpoints, and none is whole.
        """
        self.from_checkpoint, damage = self.newest_whole()
        if damage and self.from_checkpoint is None:
            raise RunError(f"nothing to resume from: {'; '.join(damage)}")
        if self.from_checkpoint is None:
            self.listener.on_notice("it was stopped before its first checkpoint, so it begins again")
            return
        if damage:
            self.listener.on_notice(f"{'; '.join(damage)}; going on from step {self.counters.steps}")
        for text in log_damage(self.folder, self.from_checkpoint.logs):
            self.listener.on_notice(f"{text}; the run itself is whole, and goes on")
        for text in differences(self.from_checkpoint.versions):
            self.listener.on_notice(text)
        if self.counters.steps >= self.config.total_steps + self.config.num_envs:  # a last step may go a few beyond
            raise ConfigError(f"total_steps = {self.config.total_steps}: the run has {self.counters.steps} behind it")

    def newest_whole(self, only_periodic: bool = False) -> tuple[Checkpoint | None, list[str]]:
        """Take on the state of the newest checkpoint that is whole; return it, and what is wrong with newer ones."""
        damage: list[str] = []
        for steps in self.checkpoints.present():
            try:
                checkpoint = read_checkpoint(self.folder, steps)
                if checkpoint.periodic or not only_periodic:
                    return self.restored(checkpoint), damage
            except (RunError, ConfigError) as error:
                damage.append(f"checkpoint {steps}: {error}")
        return None, damage

    def restored(self, checkpoint: Checkpoint) -> Checkpoint:
        """Take on a checkpoint's whole state.

        Raises:
            RunError: a file of it is missing or damaged, or does not fit the run.
        """
        state = checkpoint.read_state(limit=self.most_state_bytes())
        self.set_state(state)
        if self.counters.steps != checkpoint.steps:
            raise RunError(f"its folder is of step {checkpoint.steps}, its state of step {self.counters.steps}")
        for series in self.replay_series():
            checkpoint.restore_series(series)
        self.go_on_with_episodes(state)
        return checkpoint

    def most_state_bytes(self) -> int:
        """Return the bytes that the arrays of a state can rightly take."""
        config, shape = self.config, self.agent.state_shape
        own = sum(value.nbytes for value in self.agent.get_state().values() if isinstance(value, np.ndarray))
        seen = config.num_envs * (replay_bytes(1, shape, self.state_dtype) + 2 * self.action_dim)
        actions = 8 * config.num_envs * (self.stream.longest + self.stream.reseed_after)
        rollout = 0 if config.trace_decay is None else self.replay_bytes  # it has no chunks
        return 4 * own + 16 * config.replay_capacity + (config.n_step + 2) * seen + actions + rollout + (1 << 20)

    def replay_series(self) -> tuple[Series, ...]:
        """What the replay saves in chunks."""
        return self.replay.series(self.agent.state_shape, self.state_dtype, self.action_dim)

    def about(self) -> dict[str, Any]:
        """What was trained, and with which settings: the part of `run.json` that every checkpoint has, too."""
        return {
            "env": name_of(self.spec.source),
            "env_is_id": isinstance(self.spec.source, str),
            "algorithm": self.config.algorithm,
            "preset": self.preset,
            "config": self.config.to_mapping(),
            "agent": self.agent.config,
        }

    def save(self, status: str, evaluation: Evaluation | None = None) -> None:
        """Write weights and `run.json`."""
        if status != "running":  # at the start `run.json` comes first: without it the weights mean nothing
            self.save_weights(evaluation)
        write_json(
            self.folder / RUN_FILE,
            {
                "format": FORMAT,
                **self.about(),
                "status": status,
                "progress": asdict(self.counters),
                "seconds": round(self.seconds, 3),
                "rollbacks": self.rollbacks,
                "divergence": self.divergence,
                "versions": versions(),
            },
        )
        if status == "running" and not (self.folder / AGENT_FILE).exists():
            self.save_weights(evaluation)  # of a run that goes on, those of its last end stay until its next

    def save_weights(self, evaluation: Evaluation | None) -> None:
        """Write all networks, unless they have diverged, and how good they are if that is known.

        An evaluation of other weights goes first: should this be killed, weights without a score are left and never
        weights beside the score of others.
        """
        if not all(value.isfinite().all() for value in weights_of(self.agent.networks).values()):
            return
        path = self.folder / EVALUATION_FILE
        if evaluation is not None or evaluated_at(path) != self.counters.steps:
            remove(path)
        save_weights(self.folder, self.agent.networks)
        if evaluation is not None:
            write_json(path, {"steps": self.counters.steps, **evaluation.to_mapping()})


class EvaluationStopped(Exception):
    """A signal came while an evaluation was played."""


def evaluated_at(path: Path) -> int | None:
    """Return the step of the weights that an `evaluation.json` is of; None if it does not say, or there is none."""
    try:
        steps = read_json(path).get("steps")
    except RunError:
        return None
    return steps if isinstance(steps, int) else None


def differences(then: Mapping[str, Any]) -> list[str]:
    """Say which versions are others than those of a checkpoint."""
    now = versions()
    changed = [f"{name} {then[name]} is now {now[name]}" for name in now if then.get(name, now[name]) != now[name]]
    return [f"{', '.join(changed)}: the numbers may differ from those of an unbroken run"] if changed else []


def with_channels(config: TrainConfig, state_shape: tuple[int, ...] | None) -> TrainConfig:
    """Return the settings for states of this shape: frames that are stacked here are channels, and come first."""
    stacked = config.frame_stack > 1 and len(state_shape or ()) == 3 and config.channels == "auto"
    return replace(config, channels="first") if stacked else config


def agent_for(
    state_shape: tuple[int, ...], action_dim: int, config: TrainConfig, seen: Mapping[str, Any] | None = None
) -> DQNAgent:
    """Return a fresh agent for these shapes, and for what `seen_by_agent` says of its observations."""
    settings = {field.name: getattr(config, field.name) for field in fields(AgentConfig)}
    return agent_from({"state_dim": list(state_shape), "action_dim": action_dim, **settings, **(seen or {})})


def agent_from(settings: Mapping[str, Any]) -> DQNAgent:
    """Return a fresh agent from all its settings, its algorithm among them."""
    return make_agent(settings.get("algorithm", "dqn"), **{k: v for k, v in settings.items() if k != "algorithm"})
