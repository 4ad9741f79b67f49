"""Runs that differ only in their seed become a group, named by the settings that tell the groups apart."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from nexus.core.errors import ConfigError, nearest
from nexus.training.curves import ScoredRun

__all__ = ["Grouping", "grouped"]

Key: TypeAlias = tuple[str, ...]

ALL_RUNS = "all runs"  # the label where nothing differs
FIRST_KEY = "algorithm"  # says the most, so it comes first in a label
LONGEST_IN_LABEL = 40  # characters of a value in a label


@dataclass(frozen=True)
class Grouping:
    """Runs by environment and group.

    Args:
        groups: for each environment its groups, by label and in the order of their settings; runs by seed and folder.
        named_by: the settings in the labels.
        also: settings that differ between groups of an environment and are in no label.
        mixed: settings that differ within a group, since it was asked for by other settings.
    """

    groups: Mapping[str, Mapping[str, Sequence[ScoredRun]]]
    named_by: tuple[str, ...]
    also: tuple[str, ...]
    mixed: tuple[str, ...]


def grouped(runs: Sequence[ScoredRun], by: Sequence[str] = ()) -> Grouping:
    """Group runs.

    Args:
        runs: of any environments.
        by: the settings that make a group; none for all of them but the seed.

    Raises:
        ConfigError: there is no such setting.
    """
    envs: dict[str, list[ScoredRun]] = {}
    for run in sorted(runs, key=lambda run: (run.env, run.seed is None, run.seed or 0, str(run.folder))):
        envs.setdefault(run.env, []).append(run)
    known = sorted({name for run in runs for name in run.settings})
    for name in by:
        if name not in known:
            reason = "runs are grouped without it" if name == "seed" else f"no run has it{nearest(name, known)}"
            raise ConfigError(f"by = {name!r}: needs a setting in which runs differ; {reason}")
    differing = {
        env: [name for name in known if len(distinct_settings(group, (name,))) > 1] for env, group in envs.items()
    }
    anywhere = [name for name in known if any(name in names for names in differing.values())]
    chosen = tuple(by) or shortest(list(envs.values()), anywhere)
    groups = {env: by_label(group, chosen) for env, group in envs.items()}
    rest = [name for name in anywhere if name not in chosen]
    mixed = tuple(name for name in rest if any(differs_within(of_env, name) for of_env in groups.values()))
    return Grouping(groups, chosen, tuple(name for name in rest if name not in mixed), mixed)


def shortest(envs: Sequence[Sequence[ScoredRun]], names: Sequence[str]) -> tuple[str, ...]:
    """Return the fewest settings found that tell all groups of every environment apart."""
    names = sorted(names, key=lambda name: (name != FIRST_KEY, name))

    def apart(chosen: tuple[str, ...]) -> int:
        return sum(len(distinct_settings(group, chosen)) for group in envs)

    chosen: tuple[str, ...] = ()
    while apart(chosen) < apart(tuple(names)):
        chosen = max(((*chosen, name) for name in names if name not in chosen), key=apart)
    return chosen


def distinct_settings(runs: Sequence[ScoredRun], names: Sequence[str]) -> set[Key]:
    """Return the different values that some settings have together."""
    return {key_of(run, names) for run in runs}


def key_of(run: ScoredRun, names: Sequence[str]) -> Key:
    """Return the values of some settings, in a form that can be compared."""
    return tuple(repr(run.settings.get(name)) for name in names)


def by_label(runs: Sequence[ScoredRun], names: Sequence[str]) -> dict[str, list[ScoredRun]]:
    """Return the groups of one environment by label, in the order of their settings."""
    groups: dict[Key, list[ScoredRun]] = {}
    for run in runs:
        groups.setdefault(key_of(run, names), []).append(run)
    ordered = sorted(groups.values(), key=lambda group: [order_of(group[0].settings.get(name)) for name in names])
    labels: dict[str, list[ScoredRun]] = {}
    for group in ordered:
        label = ", ".join(f"{name}={in_label(group[0].settings.get(name))}" for name in names) or ALL_RUNS
        while label in labels:  # long values that begin alike
            label += "'"
        labels[label] = group
    return labels


def in_label(value: Any) -> str:
    """Return a setting's value on one short line."""
    text = "none" if value is None else f"{value:g}" if isinstance(value, float) else " ".join(str(value).split())
    return text if len(text) <= LONGEST_IN_LABEL else f"{text[: LONGEST_IN_LABEL - 3]}..."


def order_of(value: Any) -> tuple[bool, float, str]:
    """Return a key by which numbers come in their order, and everything else after them in that of its text."""
    is_number = isinstance(value, int | float)
    return (not is_number, float(value) if is_number else 0.0, str(value))


def differs_within(groups: Mapping[str, Sequence[ScoredRun]], name: str) -> bool:
    """True if a setting differs between runs of one group."""
    return any(len(distinct_settings(group, (name,))) > 1 for group in groups.values())
