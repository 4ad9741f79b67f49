"""Checks of the environment's raw answers, and checks that play it again."""

import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import NamedTuple

import numpy as np
from gymnasium.utils.env_checker import check_env

from nexus.checking.report import Finding, fault, note, ok
from nexus.checking.trial import CHECKING, Subject, Trial, alike, finding_from
from nexus.core.errors import ConfigError, EnvError, one_line
from nexus.core.types import Array
from nexus.envs.action_masks import KEY
from nexus.envs.checks import describe_error as one_line_on
from nexus.envs.factory import allows_several, name_of
from nexus.envs.statistics import out_of_reach
from nexus.envs.stream import LONGEST_EPISODE

__all__ = ["ANSWERS", "PLAY_CHECKS"]

TOLERANCE = 1e-5  # largest difference counted as rounding
BEYOND = 0.05  # fraction of the range between two bounds
SLOW = 0.005  # seconds of a step above which a process for each sub-environment pays off
BLOCK = 100  # steps between two readings of the clock
PLAY_SHARE = 0.3  # of the time left, for one more play
LONG_SHARE = 0.5  # likewise, to find an end
WORDS = 240  # characters of a quoted text

# Gymnasium's warnings about how it is called here, or that another check covers more exactly.
LEFT_OUT = ("is different from the unwrapped version", "alternative render modes")


def bounds(trial: Trial) -> Iterator[Finding]:
    """Whether states were within the bounds of their space."""
    low, high = trial.sight.bounds()
    least, most = (values.astype(np.float64) for values in (trial.record.states.low, trial.record.states.high))
    width = np.where(np.isfinite(low) & np.isfinite(high), high - low, 1.0)
    excess = np.maximum(low - least, most - high) / np.maximum(width, 1e-9)  # below 0 within, -inf without bounds
    worst, unbounded = int(excess.argmax()), int((np.isinf(low) | np.isinf(high)).sum())
    if excess[worst] <= TOLERANCE:
        without = f", {unbounded} of {low.size} have no bounds" if unbounded else ""
        return (yield ok(f"all within the space{without}", unbounded=unbounded))
    text = (
        f"{trial.sight.name_of(worst)} was {least[worst]:g} to {most[worst]:g}, "
        f"but its space says {low[worst]:g} to {high[worst]:g}"
    )
    cure = "widen the space to the values that occur, or clip the observation; --scale-observations uses these bounds"
    make = fault if excess[worst] > BEYOND else note
    yield make(text, cure, excess=float(excess[worst]), numbers_beyond=int((excess > TOLERANCE).sum()))


def arrays(trial: Trial) -> Iterator[Finding]:
    """Whether the environment overwrites observations that it has returned."""
    witness = trial.subject.witness
    if witness is None:
        return
    if witness.arrays.changed:
        yield note(
            f"{witness.arrays.changed:,} observations were overwritten by the next call, which returned the same array",
            "return a copy, as in self.state.copy(): nexus copies each observation, other libraries do not",
            overwritten=witness.arrays.changed,
        )
    else:
        yield ok("each observation keeps its values after the next call", overwritten=0)


def infos(trial: Trial) -> Iterator[Finding]:
    """Whether info entries keep their shape."""
    witness = trial.subject.witness
    if witness is None:
        return
    changing = witness.infos.changing
    if changing:
        key, forms = next(iter(changing.items()))
        more = f", and {len(changing) - 1} more" if len(changing) > 1 else ""
        yield note(
            f"info[{key!r}] was {', '.join(forms[:4])}{', ...' if len(forms) > 4 else ''}{more}",
            "keep its shape fixed, or leave it out: vector environments stack infos; nexus reads only masks there",
            changing=changing,
        )
    else:
        keys = ", ".join(list(witness.infos.forms)[:6])
        yield ok(f"{keys}: the same shape at each step" if keys else "empty", entries=len(witness.infos.forms))


def env_notices(trial: Trial) -> Iterator[Finding]:
    """How nexus interprets observations and actions, where that is not obvious."""
    edge = trial.subject.edge
    for kind, text in ({} if edge is None else edge.notices).items():
        said = text.removeprefix(f"{trial.subject.name}: ")
        if kind == "bounds" or said.startswith(("takes the legal actions from", "observations ")):
            continue  # reported by `bounds`, or interpreted as intended
        said, _, cure = said.rpartition("; " if "statistics" in kind else ": ")
        yield note(said or text, cure or text)


def ends(trial: Trial) -> Iterator[Finding]:
    """Whether episodes end."""
    lengths, limit = trial.record.episodes.lengths, trial.sight.limit
    said = "no time limit" if limit is None else f"a time limit of {limit:,} steps"
    if lengths:
        return (yield ok(f"the first end came after {lengths[0]:,} steps; {said}", limit=limit))
    if limit is not None or trial.subject.env is None:
        return (yield ok(f"none in {trial.record.steps:,} steps; {said}", limit=limit))
    steps, ended = played_on(trial)
    if ended:
        yield ok(f"the first end came after {steps:,} steps; {said}", limit=limit, steps=steps)
        return
    text = f"no episode ended in {steps:,} random steps, and there is {said}"
    cure = "return truncated=True after a number of steps, or set it: --env-kwargs max_episode_steps=1000 for an id"
    make = fault if steps >= LONGEST_EPISODE else note
    yield make(text, cure, limit=limit, steps=steps)


def played_on(trial: Trial) -> tuple[int, bool]:
    """Play the first episode on up to nexus's limit; return its steps and whether it ended."""
    env, steps = trial.subject.env, trial.record.steps
    if trial.subject.witness is not None:
        trial.subject.witness.records = False  # 100,000 steps must be quick
    until = time.monotonic() + LONG_SHARE * trial.left
    every, masks = list(range(trial.sight.action_dim)), trial.subject.stream.action_masks
    legal = every if masks is None else np.flatnonzero(masks[0]).tolist()
    while steps < LONGEST_EPISODE and time.monotonic() < until:
        for coin in trial.rng.random(BLOCK).tolist():
            steps += 1
            try:
                _, _, terminated, truncated, info = env.step(legal[int(coin * len(legal))])
            except Exception as error:
                raise EnvError(f"step {steps}: {one_line_on(error)}") from error
            if terminated or truncated:
                return steps, True
            mask = info.get(KEY)
            legal = every if mask is None else np.flatnonzero(mask).tolist()
    return steps, False


def speed(trial: Trial) -> Iterator[Finding]:
    """How many steps per second the environment takes by itself."""
    witness = trial.subject.witness
    if witness is None:
        return
    step, reset = witness.steps.mean, witness.resets.mean
    evidence = {"steps_per_second": 1 / step, "reset_seconds": reset, "longest_step": witness.steps.longest}
    said = f"{1 / step:,.0f} steps/s of one environment, a reset takes {1000 * reset:.2g} ms"
    if step > SLOW and trial.sight.config.vectorization != "async":
        yield note(said, "give each sub-environment a process: --vectorization async", **evidence)
    else:
        yield ok(said, **evidence)


def seeds(trial: Trial) -> Iterator[Finding]:
    """Whether the same seed and the same actions give the same episode."""
    tape = trial.tape
    trial.differs_at, compared, largest = trial.repeated(trial.subject, PLAY_SHARE)
    if trial.differs_at is None:
        return (yield ok(f"the same seed and actions gave the same {compared:,} steps", compared=compared))
    where = "reset" if trial.differs_at == 0 else f"step {trial.differs_at} of {len(tape)}"
    text = f"the same seed and actions gave a different episode, from the {where} on"
    evidence = {"differs_at": trial.differs_at, "largest_difference": largest}
    if largest <= TOLERANCE:
        yield note(
            f"{text}, by {largest:.1g}",
            "avoid anything that depends on threads or time; exact resume needs the same bits",
            **evidence,
        )
    elif "observation" in out_of_reach(trial.subject.env):
        yield note(f"{text}: running statistics change the observations", "leave out the wrapper", **evidence)
    elif declared_random(trial):
        yield note(f"{text}, as its registration declares", "a resumed run can't continue exactly", **evidence)
    else:
        yield fault(
            text,
            "call super().reset(seed=seed), draw all randomness from self.np_random, and reset all that "
            "an episode changes",
            **evidence,
        )


def declared_random(trial: Trial) -> bool:
    """True if the environment is registered as nondeterministic."""
    spec = getattr(trial.subject.env, "spec", None)
    return bool(getattr(spec, "nondeterministic", False))


def sub_environments(trial: Trial) -> Iterator[Finding]:
    """Whether a second environment behaves like the first, and does not affect it."""
    if trial.spec.rules is not None:
        return
    several = trial.sight.config.num_envs > 1
    if not several and not allows_several(trial.spec):
        return (yield ok("only one is made, as --num-envs 1 says"))
    try:
        other = Subject(trial.spec, trial.watch)
    except ConfigError as error:
        text = one_line(error).removeprefix(f"{name_of(trial.spec.source)} ")
        cure = "make a new environment at each call, or train on a single one: --num-envs 1"
        return (yield (fault if several else note)(f"a second one can't be made: {text}", cure))
    try:
        yield from compared(trial, other)
    except EnvError as error:
        yield fault(
            f"a second one alongside the first failed: {finding_from(error, other).text}",
            "keep all state in the object, use separate files and ports, or train on a single one: --num-envs 1",
        )
    finally:
        with suppress(Exception):
            other.close()


def compared(trial: Trial, other: Subject) -> Iterator[Finding]:
    """Compare two environments, first one after the other, then step by step."""
    its, needed = other.stream.env.single_observation_space, trial.subject.stream.env.single_observation_space
    if its != needed or other.stream.action_dim != trial.sight.action_dim:
        yield fault(
            f"a second one has observations {its}, the first {needed}",
            "give every sub-environment the same spaces: the largest needed",
        )
        return
    differs, steps, _ = trial.repeated(other, PLAY_SHARE)
    if trial.differs_at is not None:  # the check of seeds says so
        if differs is None:
            way = "reset all that an episode changes"
            yield note("a new environment follows the seed, one that has already played does not", way)
        else:
            yield ok("a second one can be made next to the first")
        return
    if differs is not None:
        where = "the reset" if differs == 0 else f"step {differs}"
        yield fault(
            f"a second one played a different episode for the same seed and actions, from {where} on",
            "draw in reset, from self.np_random, what __init__ draws now; keep all state in the object, not in the "
            "class or the module",
            differs_at=differs,
        )
        return
    other.stream.reset(trial.seed + 1)
    disturbed, steps, _ = trial.repeated(
        trial.subject, PLAY_SHARE, lambda: other.stream.step(other.random_actions(trial.rng))
    )
    if disturbed is not None:
        yield fault(
            f"stepping a second one changed the episode of the first, at step {disturbed}",
            "keep all state in the object, not in the class, the module or a generator that both draw from",
            disturbed_at=disturbed,
        )
    elif shares_memory(trial.subject, other):
        yield note(
            "two sub-environments return the same array",
            "make the array in __init__, not in the class, or return a copy of it",
        )
    else:
        yield ok(f"a second one alongside the first behaves the same, independently, for {steps:,} steps", steps=steps)


def shares_memory(one: Subject, other: Subject) -> bool:
    """True if the last observations of two environments share memory."""
    assert one.witness is not None
    assert other.witness is not None
    pairs = zip(one.witness.arrays.last, other.witness.arrays.last, strict=False)
    return any(np.may_share_memory(mine, its) for mine, its in pairs)


def effect(trial: Trial) -> Iterator[Finding]:
    """Whether actions make a difference."""
    count, tape = trial.sight.action_dim, trial.tape
    if trial.differs_at is not None or count == 1:
        return
    stream, until = trial.subject.stream, time.monotonic() + PLAY_SHARE * trial.left
    stream.reset(trial.seed)
    ended = 0
    for number, old in enumerate(tape, 1):
        new = stream.step(other_actions(old.actions, old.action_masks, count, trial.rng))
        if not alike(new, old):
            return (yield ok(f"other actions made a difference at step {number}", step=number))
        ended += int((old.terminated | old.truncated).sum())
        if time.monotonic() > until:
            break
    text = f"other actions gave the same observations, rewards and ends for {number:,} steps"
    cure = "make step use its action; if the effect comes later, show or reward it sooner"
    yield (fault if ended >= 2 else note)(text, cure, steps=number, episodes=ended)


def other_actions(actions: Array, masks: Array | None, count: int, rng: np.random.Generator) -> Array:
    """Return legal actions `[1]` that differ from these, if there are any."""
    legal = np.arange(count) if masks is None else np.flatnonzero(masks[0])
    others = legal[legal != actions[0]]
    return actions if not len(others) else np.array([others[int(rng.integers(len(others)))]], np.int64)


def gymnasium(trial: Trial) -> Iterator[Finding]:
    """The result of Gymnasium's check."""
    witness = trial.subject.witness
    if witness is None:
        return
    failure = None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            trial.watch.call(CHECKING, check_env, trial.subject.env.unwrapped, None, True, True)
        except Exception as error:
            failure = error
    texts = dict.fromkeys(warning_text(str(warning.message)) for warning in caught)
    said = [text for text in texts if not any(part in text for part in LEFT_OUT)]
    for text in said:
        yield note(f"check_env warns: {text}", "nexus can train on it; other libraries may not")
    masked = bool(trial.record.choices.masked)
    if failure is not None and (isinstance(failure, AssertionError) or not masked):
        yield note(
            f"check_env fails: {warning_text(one_line(failure))}",
            "nexus can train on it unless there is a fault above; other libraries may not",
        )
    elif not said:
        left_out = "" if failure is None else " until it takes an illegal action"
        yield ok(f"check_env passes without a warning{left_out}")


def warning_text(text: str) -> str:
    """Return a warning of Gymnasium without colours and without its prefix, on one line of limited length."""
    bare = " ".join(text.replace("\x1b[33m", "").replace("\x1b[0m", "").split()).removeprefix("WARN: ")
    return bare if len(bare) <= WORDS else f"{bare[:WORDS]}..."


def close(trial: Trial) -> Iterator[Finding]:
    """Whether the environment can be closed."""
    trial.subject.close()  # an error only warns there
    error = None if trial.subject.witness is None else trial.subject.witness.close_error
    if error is not None:
        yield note(f"close raised {type(error).__name__}: {one_line(error)}", "make close work, also when called twice")


ANSWERS: Mapping[str, Callable[[Trial], Iterator[Finding]]] = {
    "bounds": bounds,
    "notices": env_notices,
    "arrays": arrays,
    "infos": infos,
    "speed": speed,
}
"""Checks of the answers so far."""


class Play(NamedTuple):
    """A check that plays again, and the least it plays."""

    look: Callable[[Trial], Iterator[Finding]]
    resets: int = 0
    steps: int = 0


PLAY_CHECKS: Mapping[str, Play] = {
    "ends": Play(ends),
    "seeds": Play(seeds, 1, 1),
    "sub-environments": Play(sub_environments, 4, 4),
    "effect": Play(effect, 1, 1),
    "gymnasium": Play(gymnasium, 14, 8),
    "close": Play(close),
}
"""In this order; the last one closes the environment."""
