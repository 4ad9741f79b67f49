"""Checking an environment: make it, inspect it, play it, replay it, and report."""

import re
import time
import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any

import gymnasium as gym
from gymnasium.wrappers import TimeLimit

from nexus.checking.of_plays import ANSWERS, PLAY_CHECKS
from nexus.checking.of_spaces import SPACE_CHECKS
from nexus.checking.of_steps import STEP_CHECKS
from nexus.checking.report import Finding, Report, fault, note, ok, under_check
from nexus.checking.sight import Sight
from nexus.checking.trial import CHECKING, MAKING, Subject, Trial, finding_from
from nexus.checking.watch import Watch, is_users, origin, own_line, place_of, watched
from nexus.core.checked import convert
from nexus.core.errors import ConfigError, EnvError, one_line
from nexus.core.importable import import_object
from nexus.envs.factory import EnvSource, EnvSpec, name_of, registered_id
from nexus.envs.layers import layers_of
from nexus.parts import with_channels
from nexus.resolver import whole_or_resolved
from nexus.training.config import TrainConfig

__all__ = ["check"]

SECONDS = 7.0
CALL_SHARE = 0.5  # fraction of the time for one reset or step; making an environment may take all of it
FIRST_PLAY_SHARE = 0.35  # of the time, for the first play
MOST_WARNINGS = 3
NEEDS = re.compile(r": (?=needs |DQN needs |write |its |all must )")  # between the problem and the cure


def check(
    env: EnvSource,
    *,
    preset: str | None = None,
    config: TrainConfig | None = None,
    seconds: float = SECONDS,
    **settings: Any,
) -> Report:
    """Report what nexus sees of an environment, play it at random, and report each problem with its cure.

    Accepts the arguments of `nexus.train`. A fault prevents learning or repeating a run; a note may be intended.

    Args:
        env: a Gymnasium id, a `module:Id`, or a function that makes an environment.
        preset: named settings; None for those tuned for `env`, if any, else `general`.
        config: all settings at once, instead of `preset` and `settings`.
        seconds: time for the check, without start-up; a call that takes half of it is abandoned.
        settings: any field of `TrainConfig`, such as `env_kwargs` or `frame_skip`.

    Raises:
        ConfigError: there is no such environment or setting, or the environment takes no such keyword argument.
    """
    seconds = convert("seconds", seconds, float)
    if seconds <= 0:
        raise ConfigError(f"seconds = {seconds:g}: needs a number of seconds above 0")
    resolved = whole_or_resolved(env, preset, config, settings)
    preset_name, config = resolved.preset, resolved.config
    spec = config.spec_of(env)
    if isinstance(spec.source, str) and spec.rules is None:
        registered_id(spec.source)
    for wrapper in spec.wrappers:
        import_object(wrapper, "wrapper")
    begun = time.monotonic()
    work = partial(looked_at, spec, config, preset_name, begun + seconds)

    def patience(doing: str) -> float:
        return seconds if doing == MAKING else CALL_SHARE * seconds

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        findings = list(watched(work, patience, hung))
    findings += under_check("warnings", warned(caught))
    return Report(name_of(spec.source), preset_name, tuple(findings), time.monotonic() - begun)


def looked_at(
    spec: EnvSpec, config: TrainConfig, preset: str | None, ends_at: float, watch: Watch
) -> Iterator[Finding]:
    """Yield all findings about an environment.

    Raises:
        ConfigError: it can't be made because of the user's input.
    """
    try:
        subject = Subject(spec, watch)
    except ConfigError as error:
        if is_input(error, spec):
            raise
        yield from under_check("spaces", [not_usable(error)])
        return
    trial = Trial(seen(subject, config, preset), spec, subject, watch, ends_at)
    for name, of_spaces in SPACE_CHECKS.items():
        yield from under_check(name, of_spaces(trial.sight))
    failed = failure_of(trial)
    yield first_play_finding(trial) if failed is None else failed
    if trial.record.steps:
        yield from of_what_was_played(trial, failed)
    yield from of_more_plays(trial) if failed is None else left_out(trial)


def failure_of(trial: Trial) -> Finding | None:
    """Play, and return the fault that ended it, None if none did."""
    try:
        trial.play(FIRST_PLAY_SHARE)
    except EnvError as error:
        return finding_from(error, trial.subject)
    return None


def of_what_was_played(trial: Trial, failed: Finding | None) -> Iterator[Finding]:
    """Yield the findings from the steps, except for the check that an error belongs to."""
    for name, of_steps in STEP_CHECKS.items():
        if failed is None or failed.check != name:
            yield from under_check(name, of_steps(trial.sight, trial.record))
    for name, of_answers in ANSWERS.items():
        yield from under_check(name, of_answers(trial))


def of_more_plays(trial: Trial) -> Iterator[Finding]:
    """Yield the findings from further plays, as time allows."""
    for name, play in PLAY_CHECKS.items():
        needed, left = trial.seconds_of(play.resets, play.steps), max(trial.left, 0.0)
        if needed > left:
            text = f"skipped: needs {needed:.1f} s or more, and {left:.1f} s are left"
            yield from under_check(name, [note(text, "check with more --seconds")])
            continue
        try:
            yield from under_check(name, play.look(trial))
        except EnvError as error:
            yield finding_from(error, trial.subject)


def left_out(trial: Trial) -> Iterator[Finding]:
    """Yield a note that a failed environment is not played again, and close it."""
    names = ", ".join(name for name in PLAY_CHECKS if name != "close")
    yield from under_check("play", [note(f"{names} were skipped", "correct the fault, and check again")])
    yield from under_check("close", PLAY_CHECKS["close"].look(trial))


def seen(subject: Subject, config: TrainConfig, preset: str | None) -> Sight:
    """Return what nexus sees of an environment."""
    space = subject.stream.env.single_observation_space
    own = None if subject.witness is None else subject.witness.env.observation_space
    config = with_channels(config, space.shape)
    return Sight(subject.name, preset, config, space, subject.stream.action_dim, own, episode_limit(subject, config))


def episode_limit(subject: Subject, config: TrainConfig) -> int | None:
    """Return the steps of the agent after which a time limit ends an episode, None if there is none."""
    found = [layer._max_episode_steps for layer in layers_of(subject.env) if isinstance(layer, TimeLimit)]
    return -(-min(found) // config.frame_skip) if found else None


def first_play_finding(trial: Trial) -> Finding:
    """Return the finding of a first play without errors."""
    steps, ended = trial.record.steps, len(trial.record.episodes.lengths)
    finding = ok(f"{steps:,} random steps and {ended:,} full episodes without an error", steps=steps, episodes=ended)
    return next(under_check("play", [finding]))


def is_input(error: ConfigError, spec: EnvSpec) -> bool:
    """True if an environment can't be made because of the user's input, not its code."""
    first = origin(error)
    if spec.rules is not None or isinstance(first, gym.error.Error | ImportError):
        return True
    return bool(spec.kwargs) and isinstance(first, TypeError)


def not_usable(error: ConfigError) -> Finding:
    """Return the fault that prevents making or using an environment."""
    first = origin(error)
    if first is error:
        text, *cure = NEEDS.split(str(error), maxsplit=1)
        return fault(text, *cure or ["correct the environment, or the function that makes it"])
    place = place_of(first)
    return fault(f"{one_line(error)} ({place})", "correct the line that raised it", place=place)


def hung(doing: str, seconds: float, place: str) -> Finding:
    """Return the finding for a call that did not return in time."""
    if doing == CHECKING:  # many calls at once; each returned before
        finding = note(f"{doing} skipped: it takes more than {seconds:.1f} s", "check with more --seconds")
        return next(under_check("gymnasium", [finding]))
    finding = fault(
        f"{doing} did not return within {seconds:.1f} s ({place})",
        "make it return; if it needs that long, check with more --seconds and train with --vectorization async and a "
        "--step-timeout",
        place=place,
    )
    return next(under_check("hangs", [finding]))


def warned(caught: list[warnings.WarningMessage]) -> Iterator[Finding]:
    """Yield the warnings from the environment's code."""
    found = {
        place: f"{warning.category.__name__}: {one_line(Exception(warning.message))}"
        for warning in caught
        if is_users(warning.filename) and (place := own_line([warning]))
    }
    for place, text in list(found.items())[:MOST_WARNINGS]:
        yield note(f"{text} ({place})", "check that the numbers there are what you expect", place=place)
