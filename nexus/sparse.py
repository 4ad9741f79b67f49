"""The parts for rewards that hardly ever come, as the settings choose them: other goals, and bonuses for novelty."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import fields
from typing import Any

import torch
from gymnasium import spaces
from gymnasium.vector import VectorEnv

from nexus.core.config import AgentConfig
from nexus.core.errors import ConfigError
from nexus.core.seeding import generator, seeded_initialisation
from nexus.data.counts import Counts, EpisodicCounts
from nexus.data.folding import Bonus, Goals
from nexus.data.hindsight import Hindsight
from nexus.envs.edge import Edge
from nexus.envs.factory import EnvSpec, composition, make_env, name_of, seen_by_agent
from nexus.envs.goals import EnvGoals
from nexus.envs.layers import layers_of
from nexus.envs.same_states import keys_for
from nexus.models.curiosity.icm import IntrinsicCuriosity
from nexus.models.curiosity.rnd import RandomNetworkDistillation
from nexus.models.states import PackedStates, PlainStates, pop_states
from nexus.training.config import TrainConfig

__all__ = ["bonus_for", "goals_for"]


def goals_for(config: TrainConfig, spec: EnvSpec, env: VectorEnv[Any, Any, Any], stack: ExitStack) -> Goals | None:
    """Return the part that gives rows other goals, if the settings want it.

    Args:
        config: the settings.
        spec: the environment.
        env: the vector that is trained on; the first of its environments computes rewards if it is in this process.
        stack: closes an environment made for that.

    Raises:
        ConfigError: the environment has no goals that can be used.
    """
    if config.her is None:
        return None
    name, alone = name_of(spec.source), getattr(env, "envs", None)
    if alone is None or config.curriculum is not None:  # the goals are those of the last stage, the run's environment
        alone = [make_env(spec)]
        stack.callback(alone[0].close)
    inside = next((layer.env for layer in layers_of(alone[0]) if isinstance(layer, Edge)), alone[0])
    goals = EnvGoals(inside, env.single_observation_space, config.reward_clip, name)
    return Hindsight(goals, config.her, config.her_share, config.gamma, generator(config.seed, "goals"))


def bonus_for(
    config: TrainConfig, name: str, observed: spaces.Space[Any], action_dim: int, device: torch.device
) -> Bonus | None:
    """Return the bonus for novelty that the settings choose, if any.

    Args:
        config: the settings.
        name: of the environment.
        observed: the space of states.
        action_dim: actions `A`.
        device: where networks compute.

    Raises:
        ConfigError: the states can't be counted in the way that the settings say.
    """
    match config.bonus:
        case None:
            return None
        case "counts" | "episodic-counts":
            rng = generator(config.seed, "novelty")
            keys = keys_for(observed, config.bonus_states, config.bonus_bins, rng)
            if config.bonus == "counts":
                return Counts(keys, config.bonus_scale)
            return EpisodicCounts(keys, config.bonus_scale, config.replay_capacity, config.num_envs)
    settings = AgentConfig.from_mapping({field.name: getattr(config, field.name) for field in fields(AgentConfig)})
    states = normalized_states(observed, name)
    scale, learning_rate = config.bonus_scale, config.bonus_learning_rate
    with seeded_initialisation(config.seed, "novelty"):
        if config.bonus == "icm":
            return IntrinsicCuriosity(states, action_dim, settings, scale, learning_rate, device)
        return RandomNetworkDistillation(states, settings, scale, learning_rate, device)


def normalized_states(observed: spaces.Space[Any], name: str) -> PlainStates | PackedStates:
    """Return how a bonus reads states: with their numbers normalised, where they have any."""
    try:
        seen: Mapping[str, Any] = seen_by_agent(observed, name, False, True)
    except ConfigError:  # images and one-hot vectors, which are scaled already
        seen = seen_by_agent(observed, name, False)
    shape = composition(observed)
    return pop_states(dict(seen), shape if isinstance(shape, tuple) else (shape.nbytes,))
