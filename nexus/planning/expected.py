"""Scores of committed results, and whether a run may expect them. `expected.json` is written by `benchmarks.report`."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from nexus.api import make_config
from nexus.envs.factory import EnvSpec
from nexus.training.config import TrainConfig

__all__ = [
    "EXPECTED",
    "IGNORED",
    "Band",
    "Expectation",
    "differences",
    "expectation",
    "learning_settings",
    "protocol_of",
]

SHOWN = 4  # differences that are spelled out
EXPECTED = Path(__file__).with_name("expected.json")

# Settings that change how a run is watched, saved or computed, but not what is learned: a record with others still
# counts. Every setting that is not named here must be the recorded one, a new one too.
IGNORED = frozenset(
    {
        "seed",
        "device",
        "compile",
        "cuda_graph",
        "threads",
        "vectorization",
        "step_timeout",
        "replay_store",
        "log_every",
        "eval_every",
        "eval_episodes",
        "checkpoint_every",
        "keep_checkpoints",
        "on_divergence",
    }
)


@dataclass(frozen=True)
class Band:
    """Final scores of the seeds of one committed result: the mean return of each seed's last evaluation."""

    env: str
    protocol: str | None  # of an Atari game
    preset: str | None
    algorithm: str
    settings: Mapping[str, Any]  # those that differ from the preset's
    total_steps: int
    seeds: Sequence[int]
    mean: float
    median: float
    low: float  # the worst seed
    high: float  # the best one
    record: str
    date: str

    @property
    def config(self) -> TrainConfig:
        """The settings that it was recorded with, but for those that don't move learning."""
        return make_config(self.env, self.preset, algorithm=self.algorithm, **self.settings)

    def __str__(self) -> str:
        under = "" if self.protocol is None else f" under {self.protocol}"
        return (
            f"{self.low:g} to {self.high:g} over {len(self.seeds)} seeds{under}, median {self.median:g}, mean "
            f"{self.mean:g} ({self.record}, {self.date})"
        )


@dataclass(frozen=True)
class Expectation:
    """What committed results say of a run's final score."""

    band: Band | None  # of the same settings
    nearest: Band | None = None  # of the same environment under the same protocol, where there is no band
    differing: tuple[str, ...] = ()  # how the nearest differs, a setting each
    other_protocols: tuple[str, ...] = ()  # that this game has results under, which can't be compared

    def __str__(self) -> str:
        if self.band is not None:
            return str(self.band)
        none = "no committed result for these settings"
        if self.nearest is not None:
            shown, more = ", ".join(self.differing[:SHOWN]), len(self.differing) - SHOWN
            rest = f" and {more} more" if more > 0 else ""
            return f"{none}; the nearest differs in {shown}{rest}: {self.nearest}"
        if self.other_protocols:
            others = ", ".join(self.other_protocols)
            return f"{none}; those under {others} can't be compared with scores under another protocol"
        return none


def expectation(env: Any, config: TrainConfig, bands: Sequence[Band] | None = None) -> Expectation:
    """Return what committed results say of a run.

    Args:
        env: its id; a function has no results, whatever its name.
        config: its settings.
        bands: the results; None for those that come with the package.
    """
    if not isinstance(env, str):
        return Expectation(None)
    name, protocol = str(EnvSpec(env).source), protocol_of(env, config)
    of_env = [band for band in (committed() if bands is None else bands) if band.env == name]
    comparable = [
        (differences(config, band.config), band)
        for band in of_env
        if band.protocol == protocol and band.config.env_kwargs == config.env_kwargs  # else it is another environment
    ]
    if not comparable:
        others = {str(band.protocol) for band in of_env} - {str(protocol)}
        return Expectation(None, other_protocols=tuple(sorted(others)))
    differing, band = min(comparable, key=lambda pair: (len(pair[0]), -len(pair[1].seeds)))
    return Expectation(None, band, tuple(differing)) if differing else Expectation(band)


def differences(config: TrainConfig, recorded: TrainConfig) -> list[str]:
    """Say in which settings that move learning a config is not the recorded one."""
    ours, theirs = learning_settings(config), learning_settings(recorded)
    return [
        f"{name} ({plain(theirs[name])} there, {plain(ours[name])} here)" for name in ours if ours[name] != theirs[name]
    ]


def plain(value: Any) -> str:
    """Return a value as a flag would say it."""
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def learning_settings(config: TrainConfig) -> dict[str, Any]:
    """Return the settings that move learning, as plain values; not the protocol, which the environment completes."""
    unread = "replay_capacity" if config.has_rollouts else "rollout_steps"
    own = {field.name for field in fields(TrainConfig)} - IGNORED - {"protocol", unread}
    values = {**config.to_mapping(), "update_every": str(config.update_period)}  # the period, not how it was given
    return {name: value for name, value in values.items() if name in own}


def protocol_of(env: str, config: TrainConfig) -> str | None:
    """Return the name of the protocol that an Atari game is played under, None for all others."""
    rules = EnvSpec(env, protocol=config.protocol).rules
    return None if rules is None else rules.name


@cache
def committed() -> tuple[Band, ...]:
    """Return the results that come with the package."""
    return tuple(Band(**entry) for entry in json.loads(EXPECTED.read_text(encoding="utf-8")))
