"""The moving parts of a training run: its environments, agent and replay, and their state between two steps."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from gymnasium.vector import VectorEnv

from nexus.core.config import AgentConfig
from nexus.core.errors import ConfigError
from nexus.core.seeding import generator, seed_at
from nexus.core.state import Series, State, below, number_from, part
from nexus.core.types import Batch, Outcome
from nexus.data.folding import FoldingSampler
from nexus.data.memory import replay_bytes
from nexus.data.replay import Replay
from nexus.envs.curriculum import Curriculum, Ladder, StagedEnv, stage_specs
from nexus.envs.factory import (
    EnvSource,
    allows_several,
    composition,
    describe_spaces,
    make_vector_env,
    name_of,
    seen_by_agent,
    widest_part,
)
from nexus.envs.shaping import Potential
from nexus.envs.statistics import Statistics, merged
from nexus.envs.stream import TransitionStream
from nexus.envs.workers import close_env
from nexus.models.rl.dqn import DQNAgent
from nexus.models.rl.dqn.rainbow import make_agent
from nexus.models.setup import resolve_device
from nexus.sparse import bonus_for, goals_for
from nexus.training import concurrent_loop, loop
from nexus.training.config import TrainConfig
from nexus.training.divergence import WatchedLearner
from nexus.training.logs import EpisodeTracker
from nexus.training.replays import AnyReplay, replay_for, replay_memory
from nexus.training.under_way import fresh_under_way, restore_under_way, state_of
from nexus.whole_update import WholeUpdate

__all__ = ["Parts", "agent_for", "agent_from", "require_shapes_of"]


class SettlingLearner(loop.LearnerProtocol, Protocol):
    """A learner that looks at the results of its updates later than it takes them."""

    def settle(self) -> None:
        """Look at those not looked at yet; what is found is raised."""


class Parts:
    """The parts of one run, built from its settings.

    Args:
        env: the environment.
        config: the settings.
        stack: closes the environments.
        agent: the agent to train; None makes one for the config.

    Raises:
        ConfigError: the environment or a setting can't be used, or the agent has other states or actions.
    """

    def __init__(self, env: EnvSource, config: TrainConfig, stack: ExitStack, agent: DQNAgent | None = None) -> None:
        for schedule in config.own_schedules.values():
            schedule.try_out()
        self.spec = config.spec_of(env)
        make, ladder = None, None
        if config.curriculum is not None:
            curriculum = Curriculum.read(config.curriculum)
            make = partial(StagedEnv, stage_specs(curriculum, self.spec))
            ladder = Ladder(curriculum, config.num_envs, generator(config.seed, "curriculum"))
        vector_env = make_vector_env(self.spec, config.num_envs, config.vectorization, make)
        stack.callback(close_env, vector_env)
        space = vector_env.single_observation_space
        self.config = config = with_channels(config, space.shape)
        shape, self.state_dtype, action_dim = describe_spaces(space, vector_env.single_action_space, self.name)
        device = resolve_device(config.device, widest_part(space))
        self.replay_bytes = replay_memory(config, shape, self.state_dtype, device)
        seen = seen_by_agent(space, self.name, config.scale_observations, config.normalize_observations)
        self.agent = agent_for(shape, action_dim, config, seen) if agent is None else agent
        require_shapes_of(self.agent, composition(space), action_dim, self.name, "the run was trained on")
        learner = self.agent.learner
        goals = goals_for(config, self.spec, vector_env, stack)
        self.bonus = bonus_for(config, self.name, space, action_dim, device)
        self.replay: AnyReplay = replay_for(
            config,
            shape,
            self.state_dtype,
            device,
            learner.state_values,
            learner.unit_of_rewards,
            goals=goals,
            bonus=self.bonus,
        )
        shaping = None if config.potential is None else Potential(config.potential, config.gamma, space)
        self.stream = TransitionStream(
            vector_env,
            self.name,
            config.step_timeout,
            shaping=shaping,
            keep_ended=config.keep_episodes,
            chooser=ladder,
        )
        require_no_wrapper_alike(self.stream.statistics(), config)
        self.under_way = fresh_under_way(config)
        self.counters = loop.Counters()
        self.episodes = EpisodeTracker(config.num_envs)
        self.learned_from: loop.ReplayProtocol = self.replay
        self._statistics: Statistics = {}  # the last ones read successfully
        self.learner: SettlingLearner

    @property
    def name(self) -> str:
        """Name of the environment."""
        return name_of(self.spec.source)

    def statistics(self) -> Statistics:
        """Return the running statistics of the environments' wrappers, those of all together.

        If one can't be queried, the last known ones.
        """
        self._statistics = merged(self.stream.statistics()) or self._statistics
        return self._statistics

    def watch(self, folder: Path) -> None:
        """Stop the training when a loss or gradient is not finite, and save the batch in a folder."""
        config, replay, learner = self.config, self.replay, self.agent.learner
        on_device = isinstance(replay, Replay) and replay.on_device
        # With priorities in main memory, every update's numbers are copied there anyway.
        at_once = self.agent.device.type == "cpu" or (config.prioritized and not on_device)
        learn: Callable[[Batch], Outcome] = learner.learn
        if isinstance(replay, Replay) and on_device and config.cuda_graph and self.agent.device.type == "cuda":
            self.learned_from = whole = WholeUpdate(learner, replay)
            learn = whole.learn
        self.learner = WatchedLearner(learner, self.counters, folder, at_once=at_once, learn=learn)

    def steps(self, config: TrainConfig) -> Iterator[loop.Progress]:
        """Train, and yield as the loop does."""
        train = loop.train if config.actor_sync_every is None else concurrent_loop.train
        policy, replay = self.agent.policy, self.learned_from
        return train(self.stream, policy, self.learner, replay, config, self.counters, self.under_way)

    @property
    def mean_bonus(self) -> float | None:
        """The mean bonus of the last batch, if there is a bonus."""
        sampler = self.replay.sampler if isinstance(self.replay, Replay) else None
        return sampler.mean_bonus if isinstance(sampler, FoldingSampler) else None

    def series(self) -> tuple[Series, ...]:
        """The data that the replay saves in chunks."""
        return self.replay.series(self.agent.state_shape, self.state_dtype, self.agent.action_dim)

    def get_state(self) -> State:
        """Return everything that training has changed, except what the replay saves in chunks."""
        return {
            **below("agent", self.agent.get_state()),
            **below("replay", self.replay.get_state()),
            **below("episodes", self.episodes.get_state()),
            **below("stream", self.stream.get_state()),
            **below("under_way", state_of(self.under_way)),
            **below("counters", asdict(self.counters)),
        }

    def set_state(self, state: State) -> None:
        """Restore the result of `get_state`, except the replay's chunks and the running episodes.

        Raises:
            RunError: something is missing or does not fit.
        """
        self.agent.set_state(part(state, "agent"))
        self.replay.set_state(part(state, "replay"))
        self.episodes.set_state(part(state, "episodes"))
        for name in vars(self.counters):
            setattr(self.counters, name, int(number_from(state, f"counters.{name}", low=0)))

    def go_on_with_episodes(self, state: State) -> int:
        """Restore the running episodes, after the replay; where that fails, start new ones.

        Returns:
            The number of environments where it failed.

        Raises:
            RunError: something is missing or does not fit.
        """
        self.under_way = fresh_under_way(self.config)
        if not part(state, "stream"):  # from a run of format 2, which ended all episodes at a checkpoint
            self.stream.reset(seed_at(self.config.seed, "environments", self.counters.steps))
            return 0
        restore_under_way(self.under_way, part(state, "under_way"))
        return self.bring_back(part(state, "stream"))

    def bring_back(self, episodes: State) -> int:
        """Restore the stream's `get_state`; where that fails, start new episodes.

        Returns:
            The number of environments where it failed.

        Raises:
            RunError: something is missing or does not fit.
        """
        lost = self.stream.set_state(episodes)
        if lost.any():
            assert self.under_way.next_states is not None
            masks = episodes.get("action_masks")
            self.replay.add(self.under_way.accumulator.flush(lost, self.under_way.next_states, masks))
            self.episodes.forget(lost)
        return int(lost.sum())

    @property
    def one_alone(self) -> VectorEnv[Any, Any, Any] | None:
        """The training environment if evaluations must share it, None if they may make another."""
        alone = self.config.num_envs == 1 and not allows_several(self.spec)
        return self.stream.env if alone else None

    def most_state_bytes(self) -> int:
        """Return the most bytes that the arrays of a valid state can take."""
        config, shape, action_dim = self.config, self.agent.state_shape, self.agent.action_dim
        own = sum(value.nbytes for value in self.agent.get_state().values() if isinstance(value, np.ndarray))
        seen = config.num_envs * (replay_bytes(1, shape, self.state_dtype) + 2 * action_dim)
        actions = 8 * config.num_envs * (self.stream.longest + self.stream.reseed_after)
        rollout = 0 if config.trace_lambda is None else self.replay_bytes  # a rollout has no chunks
        if self.bonus is not None:
            own += self.bonus.nbytes + 32 * config.total_steps  # a digest and a count for each state visited
        seen += 4 * sum(values.nbytes for values in self.stream.statistics().values())
        return 4 * own + 16 * config.replay_capacity + (config.n_step + 2) * seen + actions + rollout + (1 << 20)


def require_no_wrapper_alike(statistics: Statistics, config: TrainConfig) -> None:
    """Raise `ConfigError` if a wrapper normalises what the agent is to normalise."""
    for name, places in {
        "normalize_observations": ("obs_rms",),
        "normalize_rewards": ("return_rms", "ret_rms"),
    }.items():
        found = [place for place in places if any(f".{place}." in key for key in statistics)]
        if getattr(config, name) and found:
            raise ConfigError(
                f"{name}: a wrapper of the environment normalises them already, by its {found[0]}; leave one out"
            )


def require_shapes_of(agent: DQNAgent, states: Any, action_dim: int, name: str, whose: str) -> None:
    """Raise `ConfigError` unless an environment has the states and actions of an agent.

    Args:
        agent: the agent.
        states: `composition` of the environment's observations.
        action_dim: its number of actions.
        name: of the environment.
        whose: what the agent's shapes are those of, such as "the run was trained on".
    """
    if (states, action_dim) != (agent.states.composition, agent.action_dim):
        raise ConfigError(
            f"{name} has states of shape {states} and {action_dim} actions: "
            f"{whose} {agent.states.composition} and {agent.action_dim}"
        )


def with_channels(config: TrainConfig, state_shape: tuple[int, ...] | None) -> TrainConfig:
    """Return the settings for states of this shape: stacked frames are channels, and come first."""
    stacked = config.frame_stack > 1 and len(state_shape or ()) == 3 and config.channels == "auto"
    return replace(config, channels="first") if stacked else config


def agent_for(
    state_shape: tuple[int, ...], action_dim: int, config: TrainConfig, seen: Mapping[str, Any] | None = None
) -> DQNAgent:
    """Return a fresh agent for these shapes and for the observations that `seen_by_agent` describes."""
    settings = {field.name: getattr(config, field.name) for field in fields(AgentConfig)}
    seen = {**(seen or {}), **({"normalize_rewards": True} if config.normalize_rewards else {})}
    return agent_from({"state_dim": list(state_shape), "action_dim": action_dim, **settings, **seen})


def agent_from(settings: Mapping[str, Any]) -> DQNAgent:
    """Return a fresh agent from all its settings, including its algorithm."""
    return make_agent(settings.get("algorithm", "dqn"), **{k: v for k, v in settings.items() if k != "algorithm"})
