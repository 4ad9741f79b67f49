"""Scores of committed results, and whether they apply to a run. `benchmarks.report` writes `expected.json`."""

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
    "protocol_name",
]

MOST_DIFFERENCES = 4  # differences that are listed
EXPECTED = Path(__file__).with_name("expected.json")

# Settings that change how a run is observed, saved or computed, but not what is learned: records may differ in them.
# Every setting not named here must equal the recorded one, including new settings.
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
        "doctor",
        "keep_episodes",
    }
)


@dataclass(frozen=True)
class Band:
    """Final scores of the seeds of one committed result: the mean return of each seed's last evaluation."""

    env: str
    protocol: str | None  # for an Atari game
    preset: str | None
    algorithm: str
    settings: Mapping[str, Any]  # settings that differ from the preset's
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
        """The settings of the record, except those that don't affect learning."""
        return make_config(self.env, self.preset, algorithm=self.algorithm, **self.settings)

    def __str__(self) -> str:
        under = "" if self.protocol is None else f" under {self.protocol}"
        return (
            f"{self.low:g} to {self.high:g} over {len(self.seeds)} seeds{under}, median {self.median:g}, mean "
            f"{self.mean:g} ({self.record}, {self.date})"
        )


@dataclass(frozen=True)
class Expectation:
    """The expected final score of a run, from committed results."""

    band: Band | None  # with the same settings
    nearest: Band | None = None  # same environment and protocol, if there is no band
    differing: tuple[str, ...] = ()  # how the nearest differs, one entry per setting
    other_protocols: tuple[str, ...] = ()  # protocols of this game's other, incomparable results

    def __str__(self) -> str:
        if self.band is not None:
            return str(self.band)
        none = "no committed result for these settings"
        if self.nearest is not None:
            shown, more = ", ".join(self.differing[:MOST_DIFFERENCES]), len(self.differing) - MOST_DIFFERENCES
            rest = f" and {more} more" if more > 0 else ""
            return f"{none}; the nearest differs in {shown}{rest}: {self.nearest}"
        if self.other_protocols:
            others = ", ".join(self.other_protocols)
            return f"{none}; those under {others} can't be compared with scores under another protocol"
        return none


def expectation(env: Any, config: TrainConfig, bands: Sequence[Band] | None = None) -> Expectation:
    """Return the committed results that apply to a run.

    Args:
        env: its id; for a function there are no results.
        config: its settings.
        bands: the results; None for those shipped with the package.
    """
    if not isinstance(env, str):
        return Expectation(None)
    name, protocol = str(EnvSpec(env).source), protocol_name(env, config)
    of_env = [band for band in (committed() if bands is None else bands) if band.env == name]
    comparable = [
        (differences(config, band.config), band)
        for band in of_env
        if band.protocol == protocol and made_by(band.config) == made_by(config)  # else the environment differs
    ]
    if not comparable:
        others = {str(band.protocol) for band in of_env} - {str(protocol)}
        return Expectation(None, other_protocols=tuple(sorted(others)))
    differing, band = min(comparable, key=lambda pair: (len(pair[0]), -len(pair[1].seeds)))
    return Expectation(None, band, tuple(differing)) if differing else Expectation(band)


def made_by(config: TrainConfig) -> tuple[Any, ...]:
    """Return the settings that change an environment of the same name."""
    return config.env_kwargs, config.wrappers


def differences(config: TrainConfig, recorded: TrainConfig) -> list[str]:
    """Return how a config differs from the recorded one in settings that affect learning."""
    ours, theirs = learning_settings(config), learning_settings(recorded)
    return [
        f"{name} ({flag_value(theirs[name])} there, {flag_value(ours[name])} here)"
        for name in ours
        if ours[name] != theirs[name]
    ]


def flag_value(value: Any) -> str:
    """Return a value as written in a flag."""
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def learning_settings(config: TrainConfig) -> dict[str, Any]:
    """Return the settings that affect learning, as plain values, without the protocol, which follows from the game."""
    unread = "replay_capacity" if config.has_rollouts else "rollout_steps"
    own = {field.name for field in fields(TrainConfig)} - IGNORED - {"protocol", unread}
    values = {**config.to_mapping(), "update_every": str(config.update_period)}  # the period, not how it was given
    return {name: value for name, value in values.items() if name in own}


def protocol_name(env: str, config: TrainConfig) -> str | None:
    """Return the name of an Atari game's protocol, None for other environments."""
    rules = EnvSpec(env, protocol=config.protocol).rules
    return None if rules is None else rules.name


@cache
def committed() -> tuple[Band, ...]:
    """Return the results shipped with the package."""
    return tuple(Band(**entry) for entry in json.loads(EXPECTED.read_text(encoding="utf-8")))
