"""What a study asks: an environment, settings, those that vary, and seeds. From them follow its runs."""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Self

from nexus.core.checked import config_text, convert, keyword
from nexus.core.errors import ConfigError, NexusError
from nexus.core.names import current_names
from nexus.core.period import whole_number
from nexus.envs.atari import canonical
from nexus.own_modules import said_of_programs
from nexus.resolver import Resolved, resolve
from nexus.training.config import TrainConfig

__all__ = [
    "PlannedRun",
    "StudyPlan",
    "plan_of",
    "planned_runs",
    "said_with_setting",
    "seeds_from",
    "setting_label",
]

USUAL_SEEDS = 10  # docs/compare.md: how far to trust an interval
MOST_SEEDS = 100_000
MOST_RUNS_PLANNED = 10_000
UNSAFE = re.compile(r"[^A-Za-z0-9.+_-]+")  # in the name of a folder
LONGEST_IN_NAME = 24  # characters of a value in a run's name
NAME_DIGITS = 6  # of a checksum, where a value had to be changed for a name
SEED_RANGE = re.compile(r"(\d+)-(\d+)")


@dataclass(frozen=True)
class StudyPlan:
    """What a study asks, in the form that `study.json` stores.

    Args:
        env: the environment's id.
        seeds: of the runs.
        vary: the values of each varied setting.
        settings: of all runs, on top of the preset.
        preset: named settings; None for those tuned for the environment, else `general`.
    """

    env: str
    seeds: tuple[int, ...]
    vary: Mapping[str, tuple[Any, ...]]
    settings: Mapping[str, Any]
    preset: str | None = None

    def to_mapping(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "env": self.env,
            "preset": self.preset,
            "settings": dict(self.settings),
            "vary": {name: list(values) for name, values in self.vary.items()},
            "seeds": list(self.seeds),
        }

    def with_more(self, asked: Self, where: str) -> Self:
        """Return this plan with the seeds and values that another one adds.

        Args:
            asked: a plan for the same folder.
            where: the folder, for errors.

        Raises:
            ConfigError: it contradicts this plan.
        """
        way = "name another folder with --folder"
        if asked.env != self.env:
            raise ConfigError(f"{where} has a study of {self.env}, not of {asked.env}: {way}")
        if asked.preset != self.preset:
            ours, theirs = (plan.preset or "none" for plan in (self, asked))
            raise ConfigError(f"{where} has a study with preset {ours}, not {theirs}: {way}")
        for name in sorted({*self.settings, *asked.settings}):
            ours, theirs = (
                config_text(plan.settings[name]) if name in plan.settings else "as the preset has it"
                for plan in (self, asked)
            )
            if ours != theirs:
                raise ConfigError(f"{where} has a study with {name} = {ours}, not {theirs}: {way}")
        if asked.vary.keys() != self.vary.keys():
            ours, theirs = (", ".join(plan.vary) or "no setting" for plan in (self, asked))
            raise ConfigError(f"{where} has a study that varies {ours}, not {theirs}: {way}")
        vary = {name: united(values, asked.vary[name]) for name, values in self.vary.items()}
        return replace(self, vary=vary, seeds=united(self.seeds, asked.seeds))


def united(some: tuple[Any, ...], more: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the values of both, each once, in the order in which they came."""
    return (*some, *(value for value in more if not is_among(value, some)))


def is_among(value: Any, values: Sequence[Any]) -> bool:
    """True if a value is among others; True is not 1 here."""
    return config_text(value) in map(config_text, values)


@dataclass(frozen=True)
class PlannedRun:
    """A run of a study.

    Args:
        name: of its folder.
        seed: its seed.
        values: of the varied settings.
        preset: the name of the preset of its settings.
        config: all its settings.
    """

    name: str
    seed: int
    values: Mapping[str, Any]
    preset: str | None
    config: TrainConfig


def plan_of(
    env: Any,
    seeds: Any = None,
    vary: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    preset: str | None = None,
) -> StudyPlan:
    """Check what is asked, every combination of settings included, and return it in the form that is stored.

    Args:
        env: an id or a `module:Id`.
        seeds: their number, from 0 on, or the seeds; None for ten.
        vary: the values of each varied setting.
        settings: of all runs.
        preset: named settings.

    Raises:
        ConfigError: a combination can't be used, a setting is both varied and given, or something is missing.
    """
    if not isinstance(env, str) or not env:
        what = "nothing" if not env else f"a {type(env).__name__}"
        raise ConfigError(f"env: a study needs an id or a module:Id, which its processes can make; it got {what}")
    own, varied = current_names(settings or {}), current_names(vary or {})
    for name in own.keys() | varied.keys():
        if name == "seed":
            raise ConfigError("seed: a study has several; give them as seeds, as in --seeds 10")
        if name in own and name in varied:
            raise ConfigError(f"{name} is varied and given as well: give it once")
    listed = {name: values_listed(name, values) for name, values in varied.items()}
    chosen = seeds_from(USUAL_SEEDS if seeds is None else seeds)
    asked = StudyPlan(canonical(env), chosen, listed, own, preset)
    found = list(resolved_settings(asked))
    count = len(found) * len(chosen)
    if count > MOST_RUNS_PLANNED:
        raise ConfigError(f"{count:,} runs: a study has at most {MOST_RUNS_PLANNED:,}")
    in_file = found[0][1].config.to_mapping()
    stored = {name: in_file.get(name, value) for name, value in own.items()}
    return replace(asked, settings=json_values(stored), vary=values_in_use(listed, found))


def values_listed(name: str, values: Any) -> tuple[Any, ...]:
    """Return the values of a varied setting.

    Raises:
        ConfigError: they are not several, or there are none.
    """
    if isinstance(values, str | Mapping) or not isinstance(values, Sequence):
        raise ConfigError(f"vary: {name} = {config_text(values)}: needs a list of values, as in [1, 3, 5]")
    if not values:
        raise ConfigError(f"vary: {name} has no values")
    return tuple(values)


def values_in_use(
    listed: Mapping[str, tuple[Any, ...]], found: Sequence[tuple[Mapping[str, Any], Resolved]]
) -> dict[str, tuple[Any, ...]]:
    """Return the values of the varied settings as the runs have them, so that 1 and 1.0 are one number.

    Raises:
        ConfigError: one is there twice.
    """
    used: dict[str, tuple[Any, ...]] = {}
    for name, values in listed.items():
        of_config = [
            next(
                resolved.config.to_mapping().get(name, value)
                for combination, resolved in found
                if combination[name] is value
            )
            for value in values
        ]
        plain = tuple(json_values({name: value})[name] for value in of_config)
        for place, value in enumerate(plain):
            if is_among(value, plain[:place]):
                raise ConfigError(f"vary: {name} has {config_text(value)} twice")
        used[name] = plain
    return used


def json_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as JSON has them."""
    plain = {name: keyword("settings", name, value) for name, value in values.items()}
    return {name: json.loads(json.dumps(value)) for name, value in plain.items()}


def resolved_settings(plan: StudyPlan) -> Iterator[tuple[Mapping[str, Any], Resolved]]:
    """Yield each combination of the varied settings, the first one varying slowest, and the settings it makes.

    Raises:
        ConfigError: one can't be used; the message says which.
    """
    for values in product(*plan.vary.values()):
        combination = dict(zip(plan.vary, values, strict=True))
        try:
            resolved = resolve(plan.env, {**plan.settings, **combination}, plan.preset)
        except NexusError as error:
            raise ConfigError(said_with_setting(str(error), combination)) from None
        for text in said_of_programs(resolved.config.to_mapping()):
            raise ConfigError(f"a study runs in other processes: {text}")
        yield combination, resolved


def planned_runs(plan: StudyPlan) -> list[PlannedRun]:
    """Return the runs of a study in their order: all settings with the first seed, then with the next.

    So a study that was stopped early has as many seeds of each setting as it can.

    Raises:
        ConfigError: as in `resolved_settings`.
    """
    settings = list(resolved_settings(plan))
    return [
        PlannedRun(run_name(combination, seed), seed, combination, resolved.preset, replace(resolved.config, seed=seed))
        for seed in plan.seeds
        for combination, resolved in settings
    ]


def setting_label(values: Mapping[str, Any]) -> str:
    """Return varied settings as text, as in `algorithm=dqn, n_step=3`."""
    return ", ".join(f"{name}={said_value(value)}" for name, value in values.items())


def said_with_setting(error: str, values: Mapping[str, Any]) -> str:
    """Return an error with the combination of settings that it is of, unless it names the only one itself."""
    named_already = not values or (len(values) == 1 and next(iter(values)) in error)
    return error if named_already else f"{setting_label(values)}: {error}"


def said_value(value: Any) -> str:
    """Return a value as on the command line."""
    return value if isinstance(value, str) else "none" if value is None else json.dumps(value, default=str)


def run_name(values: Mapping[str, Any], seed: int) -> str:
    """Return the name of a run's folder, as in `algorithm=dqn-n_step=3-seed=0`."""
    return "-".join([*(f"{name}={safe(value)}" for name, value in values.items()), f"seed={seed}"])


def safe(value: Any) -> str:
    """Return a value for the name of a folder; with a checksum if it had to be changed, so that names differ."""
    text = said_value(value).replace(" ", "_")
    short = UNSAFE.sub("_", text).strip("_")[:LONGEST_IN_NAME]
    return text if short == text else f"{short}+{hashlib.sha256(text.encode()).hexdigest()[:NAME_DIGITS]}"


def seeds_from(given: Any) -> tuple[int, ...]:
    """Return seeds: of a number that many from 0 on, of a text such as `300-309,400` those, of a list its entries.

    Raises:
        ConfigError: it is none of these, there are none, or one is there twice.
    """
    refusal = f"seeds = {config_text(given)}: needs their number, as in 10, or the seeds, as in 300-309 or 1,5,7"
    count = whole_or_none(given)
    if count is not None:
        if not 1 <= count <= MOST_SEEDS:
            raise ConfigError(f"seeds = {count}: needs 1 to {MOST_SEEDS:,} of them, or the seeds themselves in a list")
        return tuple(range(count))
    if isinstance(given, str):
        listed = [seed for part in given.split(",") for seed in seeds_in(part.strip())]
    elif isinstance(given, Iterable) and not isinstance(given, Mapping):
        listed = [whole_or_none(seed) for seed in given]
    else:
        raise ConfigError(refusal)
    seeds = [seed for seed in listed if seed is not None and seed >= 0]
    if not seeds or len(seeds) < len(listed) or len(seeds) > MOST_SEEDS:
        raise ConfigError(refusal)
    twice = [seed for place, seed in enumerate(seeds) if seed in seeds[:place]]
    if twice:
        raise ConfigError(f"seeds: {twice[0]} is there twice")
    return tuple(seeds)


def seeds_in(part: str) -> Sequence[int | None]:
    """Return the seeds of one part of a text, such as 5 or 300-309; None for one that can't be read."""
    found = SEED_RANGE.fullmatch(part)
    if found is not None and 0 <= int(found[2]) - int(found[1]) < MOST_SEEDS:
        return range(int(found[1]), int(found[2]) + 1)
    return [whole_number(part)]


def whole_or_none(value: Any) -> int | None:
    """Return a whole number, given as such or as text; None for everything else."""
    if isinstance(value, str):
        return whole_number(value)
    try:
        number: int = convert("seeds", value, int)
    except ConfigError:
        return None
    return number
