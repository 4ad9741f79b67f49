"""Train, evaluate and load from Python: the place that wires everything together."""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch

from nexus.core.config import AgentConfig
from nexus.core.errors import ConfigError, RunError
from nexus.core.seeding import generator, seed_of
from nexus.data.prioritized_replay_buffer import PrioritizedReplayBuffer
from nexus.data.replay_buffer import ReplayBuffer, replay_bytes, require_memory
from nexus.envs.factory import EnvSource, EnvSpec, bounds_of, describe_spaces, make_env, make_vector_env, name_of
from nexus.envs.stream import TransitionStream
from nexus.models.layers import Bounds
from nexus.models.rl.dqn import DQNAgent
from nexus.models.rl.dqn.rainbow import algorithm_named, make_agent
from nexus.training import loop
from nexus.training.config import TrainConfig
from nexus.training.evaluation import Evaluation
from nexus.training.evaluation import evaluate as play
from nexus.training.logs import EpisodeTracker, RunLog, scalars
from nexus.training.presets import algorithm_preset, resolve_preset
from nexus.training.run_folder import (
    FORMAT,
    RUN_FILE,
    load_weights,
    new_run_folder,
    read_run,
    save_weights,
    versions,
    write_json,
)

__all__ = ["Listener", "Plan", "TrainResult", "evaluate", "load_agent", "make_config", "train"]


@dataclass(frozen=True)
class Plan:
    """What a run is about to do."""

    env: str
    preset: str | None
    config: TrainConfig
    agent: DQNAgent
    replay_bytes: int
    run_dir: Path


class Listener:
    """Watches a run. Every method does nothing; a progress bar or a plot fills those that it needs."""

    def on_start(self, plan: Plan) -> None:
        """Called before the first step."""

    def on_step(self, progress: loop.Progress, episodes: EpisodeTracker) -> None:
        """Called after each vector step; it must be quick and must not wait for the device."""

    def on_evaluation(self, steps: int, evaluation: Evaluation) -> None:
        """Called after each evaluation."""


@dataclass(frozen=True)
class TrainResult:
    """What a run leaves behind."""

    agent: DQNAgent
    run_dir: Path
    evaluation: Evaluation | None  # of the final weights; None if the run was interrupted
    counters: loop.Counters
    seconds: float
    interrupted: bool


def make_config(env: EnvSource, preset: str | None = None, **settings: Any) -> TrainConfig:
    """Return the preset's settings for `env`, over them what the algorithm brings and what the preset has for both.

    `settings` go over all of them.

    Raises:
        ConfigError: the preset or a setting is unknown, or a value is impossible.
    """
    name, values = resolve_preset(preset, name_of(env))
    algorithm = settings.get("algorithm", values.get("algorithm", "dqn"))
    values |= {**algorithm_named(algorithm).settings, **algorithm_preset(name, name_of(env), algorithm)}
    return TrainConfig.from_mapping({**values, **settings})


def train(
    env: EnvSource,
    *,
    preset: str | None = None,
    config: TrainConfig | None = None,
    run_dir: str | os.PathLike[str] | None = None,
    listener: Listener | None = None,
    **settings: Any,
) -> TrainResult:
    """Train an agent and save its run.

    Args:
        env: a Gymnasium id, a `module:Id`, or a function that makes an environment.
        preset: named settings; None takes those tuned for `env` if there are any.
        config: all settings at once, in place of `preset` and `settings`.
        run_dir: a new or empty folder for the run, in place of one below `runs/`.
        listener: told of the start, each step and each evaluation.
        settings: any field of `TrainConfig`.

    Raises:
        ConfigError: the environment or a setting can't be used.
        RunError: the folder can't be written to.
    """
    if config is not None and settings:
        raise ConfigError(f"config= brings all settings: {', '.join(settings)} would be ignored; put them into it")
    preset_name, _ = resolve_preset(preset, name_of(env)) if config is None else (preset, {})
    config = config if config is not None else make_config(env, preset, **settings)
    listener = listener if listener is not None else Listener()
    with torch_threads(config.threads):
        return Run(env, preset_name, config, run_dir, listener).run()


class Run:
    """One training run: its parts, and who logs, evaluates and saves while the loop goes on."""

    def __init__(
        self,
        env: EnvSource,
        preset: str | None,
        config: TrainConfig,
        run_dir: str | os.PathLike[str] | None,
        listener: Listener,
    ) -> None:
        self.config = config
        self.spec = EnvSpec(env, config.frame_skip, config.frame_stack)
        self.listener = listener
        self.vector_env = make_vector_env(self.spec, config.num_envs, config.vectorization)
        space = self.vector_env.single_observation_space
        shape, dtype, action_dim = describe_spaces(space, self.vector_env.single_action_space, name_of(env))
        require_memory(config.replay_capacity, shape, dtype)
        bounds = bounds_of(space, name_of(env)) if config.scale_observations else None
        self.agent = agent_for(shape, action_dim, config, bounds)
        self.replay = replay_for(config)
        self.counters = loop.Counters()
        self.episodes = EpisodeTracker(config.num_envs)
        folder = new_run_folder(name_of(env), config.seed, run_dir)
        memory = replay_bytes(config.replay_capacity, shape, dtype)
        self.plan = Plan(name_of(env), preset, config, self.agent, memory, folder)
        self.started = time.time()

    def run(self) -> TrainResult:
        """Train to the end, to the target return, or to Ctrl-C; save in each case."""
        self.save("running")
        self.listener.on_start(self.plan)
        status, evaluation = "failed", None  # what stands if an error ends the run
        try:
            with RunLog(self.plan.run_dir) as log:
                last = self.follow(log)
                # Other seeds than before: a run that stopped for its score is not reported by that score.
                evaluation = last if last is not None else self.evaluate(log, seed_offset=10_000)
            status = "finished"
        except KeyboardInterrupt:
            status = "interrupted"
        finally:
            self.vector_env.close()
            self.save(status, evaluation)
        return TrainResult(
            self.agent,
            self.plan.run_dir,
            evaluation,
            self.counters,
            time.time() - self.started,
            status == "interrupted",
        )

    def follow(self, log: RunLog) -> Evaluation | None:
        """Iterate the loop; return an evaluation of the final weights, if there is one that ended nothing."""
        evaluation, logged_at, logged_steps = None, time.time(), 0
        stream = TransitionStream(self.vector_env, self.plan.env)
        for progress in loop.train(stream, self.agent, self.replay, self.config, self.counters):
            evaluation = None
            ended = self.episodes.add(progress)
            log.episodes(progress, ended)
            if progress.due(self.config.log_every):
                now = time.time()
                rate = (self.counters.steps - logged_steps) / max(now - logged_at, 1e-9)
                logged_at, logged_steps = now, self.counters.steps
                values = scalars(progress, self.episodes, self.replay, self.config, rate)
                log.scalars(self.counters.steps, values)
            self.listener.on_step(progress, self.episodes)
            if progress.due(self.config.eval_every):
                evaluation = self.evaluate(log)
                target = self.config.target_return
                if target is not None and evaluation.mean >= target:
                    return None
        return evaluation

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

    def save(self, status: str, evaluation: Evaluation | None = None) -> None:
        """Write weights and `run.json`."""
        folder = self.plan.run_dir
        save_weights(folder, networks_of(self.agent))
        if evaluation is not None:
            write_json(folder / "evaluation.json", evaluation.to_mapping())
        write_json(
            folder / RUN_FILE,
            {
                "format": FORMAT,
                "env": self.plan.env,
                "env_is_id": isinstance(self.spec.source, str),
                "algorithm": self.config.algorithm,
                "preset": self.plan.preset,
                "status": status,
                "progress": asdict(self.counters),
                "seconds": round(time.time() - self.started, 3),
                "config": self.config.to_mapping(),
                "agent": self.agent.config,
                "versions": versions(),
            },
        )


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


def replay_for(config: TrainConfig) -> ReplayBuffer | PrioritizedReplayBuffer:
    """Return the empty replay that the config asks for."""
    rng = generator(config.seed, "replay")
    if not config.prioritized:
        return ReplayBuffer(config.replay_capacity, rng)
    return PrioritizedReplayBuffer(config.replay_capacity, rng, config.priority_exponent, config.importance_exponent)


def networks_of(agent: DQNAgent) -> dict[str, torch.nn.Module]:
    """The networks that a run saves, by name."""
    return {"q_network": agent.q_network, "target_network": agent.target_network}


def load_agent(run: str | os.PathLike[str], *, device: str | None = None) -> DQNAgent:
    """Return the agent of a run folder, with its weights.

    Args:
        run: the folder.
        device: where to, instead of where it was trained.

    Raises:
        RunError: the folder is no run, or its files are damaged or don't fit each other.
    """
    settings = read_run(run).get("agent")
    if not isinstance(settings, Mapping):
        raise RunError(f"{Path(run) / RUN_FILE} does not describe its agent")
    settings = dict(settings) | {"compile": False} | ({} if device is None else {"device": device})
    try:
        agent = agent_from(settings)
    except ConfigError as error:
        raise RunError(f"{Path(run) / RUN_FILE} describes an agent that can't be made: {error}") from None
    load_weights(Path(run), networks_of(agent))
    return agent


def evaluate(
    agent: DQNAgent | str | os.PathLike[str],
    env: EnvSource | None = None,
    episodes: int = 100,
    *,
    epsilon: float = 0.0,
    seed: int = 0,
) -> Evaluation:
    """Play full episodes with an agent, or with the agent of a run folder.

    Args:
        agent: the agent, or the folder of a run.
        env: an id or a function; None takes the environment that the run was trained on.
        episodes: how many.
        epsilon: probability of a random action, never the one left from training unless you pass it.
        seed: of the environments.

    Raises:
        RunError: the folder is no run, or its environment was a function, which a folder can't keep.
    """
    if isinstance(agent, DQNAgent):
        if env is None:
            raise ConfigError("evaluating an agent needs its env: an id or a function")
        player, spec = agent, EnvSpec(env)
    else:
        player, spec = load_agent(agent), env_of_run(agent, env)
    if env is not None:
        with closing(make_env(spec)) as one:
            require_fit(player, one)
    return play(player, spec, episodes, epsilon=epsilon, seed=seed)


def require_fit(agent: DQNAgent, env: gym.Env[Any, Any]) -> None:
    """Raise `ConfigError` unless the environment has the states and actions that the agent was made for."""
    name = type(env.unwrapped).__name__ if env.spec is None else env.spec.id
    shape, _, action_dim = describe_spaces(env.observation_space, env.action_space, name)
    if (shape, action_dim) != (agent.state_shape, agent.action_dim):
        raise ConfigError(
            f"{name} has states of shape {shape} and {action_dim} actions: "
            f"the agent was made for {agent.state_shape} and {agent.action_dim}"
        )


def env_of_run(run: str | os.PathLike[str], env: EnvSource | None = None) -> EnvSpec:
    """Return the environment that a run was trained on, wrapped as it was then."""
    about = read_run(run)
    if env is None:
        if not about.get("env_is_id"):
            raise RunError(f"{run} was trained on the function {about.get('env')}: pass env=, or use module:Id")
        env = str(about["env"])
    config = about.get("config", {})
    return EnvSpec(env, config.get("frame_skip", 1), config.get("frame_stack", 1))


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """Set torch's threads for a while: one by default, since small networks only wait for a second."""
    before = torch.get_num_threads()
    torch.set_num_threads(1 if count is None else count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
