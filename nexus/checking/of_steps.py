"""Checks of recorded steps; `nexus train` applies them to its first steps."""

from collections.abc import Callable, Iterator, Mapping
from statistics import fmean

import numpy as np

from nexus.checking.record import Record
from nexus.checking.report import Finding, fault, note, ok
from nexus.checking.sight import Facet, Sight
from nexus.core.figures import figures
from nexus.core.types import Array
from nexus.envs.factory import can_be_normalized, observation_bounds

__all__ = ["STEP_CHECKS"]

FEW = 3  # episodes needed for a pattern
LARGE, SMALL = 100.0, 1e-3  # beyond these, numbers and rewards are hard to learn
UNEVEN = 1_000.0  # ratio of two ranges
UNUSED = 0.1  # share of the declared range that is used
ENOUGH = 100  # steps within which a number of a state must change
VISIBLE = 0.005  # smallest share not rounded to 0 %
MOST_PLACES = 6  # positions listed in a line


def episodes(sight: Sight, record: Record) -> Iterator[Finding]:
    """How long episodes are, and how they end."""
    found = record.episodes
    lengths = found.lengths
    if not lengths:
        return (yield ok(f"none ended in {record.steps:,} steps", episodes=0, steps=record.steps))
    kinds = ", ".join(f"{count} {kind}" for kind, count in found.ends.items())
    evidence = {"episodes": len(lengths), "shortest": min(lengths), "longest": max(lengths), **found.ends}
    said = f"{len(lengths)} in {record.steps:,} steps, of {span_of(lengths)} steps (mean {fmean(lengths):.1f}): {kinds}"
    one_env = found.running.shape[1] == 1
    if one_env and len(lengths) > FEW and lengths[0] > 1 and set(lengths[1:]) == {1}:
        yield fault(
            f"the first had {lengths[0]} steps, all {len(lengths) - 1} later ones a single one",
            "reset everything that step changes, such as a step counter",
            **evidence,
        )
    elif len(lengths) >= FEW and len(set(lengths)) == 1 and set(found.ends) == {"terminated"} and lengths[0] > 1:
        yield note(
            f"{said}; all ended after exactly {lengths[0]} steps",
            "if that is a time limit, return truncated=True instead of terminated: what follows still has value",
            **evidence,
        )
    elif len(lengths) >= FEW and set(found.ends) == {"both"}:
        yield note(
            f"{said}; each was both terminated and truncated",
            "set truncated only at a time limit, terminated at all other ends",
            **evidence,
        )
    elif len(lengths) >= FEW and set(lengths) == {1}:
        yield note(f"{said}", "if episodes should be longer, find out why the first step ends them", **evidence)
    else:
        yield ok(said, **evidence)


def rewards(sight: Sight, record: Record) -> Iterator[Finding]:
    """The size of rewards, and whether they carry information."""
    found, returns = record.rewards, record.episodes.returns
    low, high, mean = figures(found.low, found.high, found.mean, least=0)
    said = f"{low} to {high}, mean {mean}" if low != high else f"{low} at each step"
    if returns:
        least, most = figures(min(returns), max(returns), least=0)
        said += f"; returns of episodes {least} to {most}"
    evidence = {
        "low": found.low,
        "high": found.high,
        "mean": found.mean,
        "other_than_zero": found.other_than_zero,
        "steps": found.count,
    }
    clipped = sight.config.reward_clip is not None
    normalized = sight.config.normalize_rewards
    if not found.other_than_zero and found.count >= ENOUGH:
        yield note(
            f"all {found.count:,} were 0",
            "reward progress, start episodes closer to the goal, or explore longer (--epsilon-steps)",
            **evidence,
        )
    elif found.largest > LARGE and not (clipped or normalized):
        yield note(
            said,
            f"divide rewards by about {power_of_ten(found.largest):,.0f}, set --normalize-rewards, or clip them for "
            "learning: --reward-clip 1",
            **evidence,
        )
    elif 0 < found.largest < SMALL and not normalized:
        yield note(said, f"multiply rewards by about {1 / power_of_ten(found.largest):,.0f}", **evidence)
    elif len(returns) >= FEW and len(found.counts) == 1 and len(set(returns)) == 1:
        yield note(
            f"{said}; all {len(returns)} episodes had the same return",
            "normal if random play can't reach the goal; otherwise make the reward depend on what happens",
            **evidence,
        )
    else:
        yield ok(said, **evidence)


def features(sight: Sight, record: Record) -> Iterator[Finding]:
    """Whether the numbers of a state change, and differ from each other."""
    changing = record.states.changing
    share = record.states.unchanged / record.steps
    evidence = {"numbers": int(changing.size), "changed": int(changing.sum()), "steps_without_change": share}
    if record.steps < ENOUGH:
        return
    if not changing.any():
        lengths = record.episodes.lengths
        one_step = bool(lengths) and max(lengths) == 1
        yield (note if one_step else fault)(
            f"all {record.steps:,} steps had the same observation",
            "return the current state: look for an array that is computed only once",
            **evidence,
        )
        return
    odd = list(oddities(sight, record))
    for text, cure, numbers in odd:
        yield note(text, cure, **evidence, places=numbers)
    if not odd:
        said = f"{int(changing.sum()):,} of {changing.size:,} numbers changed"
        yield ok(f"{said}; {share:.0%} of the steps changed nothing" if share >= VISIBLE else said, **evidence)


def oddities(sight: Sight, record: Record) -> Iterator[tuple[str, str, list[int]]]:
    """Yield problems with single numbers, their cures, and the numbers."""
    still = sight.singles[~record.states.changing[sight.singles]].tolist()
    if still:
        yield (
            f"{names(sight, still)} never changed",
            "leave out constant numbers, or find out why they are constant",
            still,
        )
    pairs = record.states.duplicates()
    if pairs:
        named = ", ".join(f"{sight.name_of(one)} = {sight.name_of(other)}" for one, other in pairs[:MOST_PLACES])
        others = [other for _, other in pairs]
        yield f"some numbers were always equal: {named}", "leave out one of them, or check the index", others


def input_scale(sight: Sight, record: Record) -> Iterator[Finding]:
    """Whether the network's inputs have a size that it learns well from."""
    found = [of_facet(facet, sight, record) for facet in sight.facets]
    odd = [finding for finding in found if finding.verdict != "ok"]
    if odd or len(found) == 1:
        yield from odd or found
    else:
        yield ok("; ".join(finding.text for finding in found))


def of_facet(facet: Facet, sight: Sight, record: Record) -> Finding:
    """Return whether one array of the observation has a size that a network learns well from."""
    of_it = slice(facet.begin, facet.end)
    low, high = (values[of_it].astype(np.float64) for values in (record.states.low, record.states.high))
    changing = record.states.changing[of_it]
    label = f"{facet.label} " if len(sight.facets) > 1 else ""
    if facet.is_normalized(sight.config):
        least, most = figures(float(low.min()), float(high.max()), least=0)
        said = f"{label}{least} to {most}, normalised by running statistics"
        return ok(said, low=float(low.min()), high=float(high.max()))
    span = facet.span(sight.config)
    if span is not None:
        return scaled_by_span(f"{label}{low.min():g} to {high.max():g}", facet, span, low, high)
    by_bounds = ""
    if sight.config.scale_observations and facet.has_bounds:
        low, high = (scaled(values, facet) for values in (low, high))
        by_bounds = ", scaled by their bounds"
    largest, ranges = np.maximum(np.abs(low), np.abs(high)), (high - low)[changing]
    least, most = figures(float(low.min()), float(high.max()), least=0)
    said = f"{label}{least} to {most}{by_bounds}"
    numbers = {"low": float(low.min()), "high": float(high.max())}
    large = (facet.begin + np.flatnonzero(largest > LARGE)).tolist()
    if large:
        which = f"{names(sight, large)} " if facet.is_vector else ""
        return note(
            f"{said}: {which}beyond {LARGE:g}, where networks learn badly", way_to_scale(facet, largest), **numbers
        )
    if facet.is_vector and ranges.size > 1 and ranges.max() > UNEVEN * ranges.min():
        small = (facet.begin + np.flatnonzero(changing & ((high - low) * UNEVEN < ranges.max()))).tolist()
        text = f"{said}: {names(sight, small)} changed {UNEVEN:,.0f} times less than others"
        return note(text, way_to_scale(facet, largest), **numbers)
    return ok(said, **numbers)


def scaled_by_span(said: str, facet: Facet, span: list[float], low: Array, high: Array) -> Finding:
    """Return whether whole numbers use the range they are scaled by."""
    least, most, width = float(low.min()), float(high.max()), span[1] - span[0]
    share = (most - least) / width
    said += "" if span == [0, 1] else f", scaled so that {span[0]:g} to {span[1]:g} becomes 0 to 1"
    numbers = {"low": least, "high": most, "share": share}
    if least < most and most - span[0] < UNUSED * width:
        cure = f"declare the actual range, as in Box({least:g}, {most:g}, dtype={facet.dtype})"
        return note(f"{said}: {share:.1%} of that range is used", cure, **numbers)
    return ok(said, **numbers)


def scaled(values: Array, facet: Facet) -> Array:
    """Return the numbers of an array after `scale_observations`."""
    low, high = map(np.array, observation_bounds(facet.space, facet.label))
    found: Array = 2 * (values - low) / (high - low) - 1
    return found


def way_to_scale(facet: Facet, largest: Array) -> str:
    """Return the cure for numbers of very different size."""
    if facet.has_bounds and facet.is_vector:
        return "set --scale-observations, which maps each number to -1 to 1 by its bounds"
    factor = power_of_ten(float(largest.max()))
    divide = f"divide them by a typical size ({factor:,.0f})"
    return f"{divide}, or set --normalize-observations" if can_be_normalized(facet.space) else divide


def legal(sight: Sight, record: Record) -> Iterator[Finding]:
    """The number of legal actions."""
    found = record.choices
    if not found.masked:
        return (yield ok("none, so all actions are legal", masked=0))
    mean = sum(count * states for count, states in found.legal.items()) / found.masked
    evidence = {"masked": found.masked, "fewest": min(found.legal), "most": max(found.legal), "mean": mean}
    said = f"{span_of(list(found.legal))} of {sight.action_dim} actions are legal (mean {mean:.1f})"
    if max(found.legal) == 1:
        yield note(said, "check the masks: with one legal action there is no choice", **evidence)
    else:
        yield ok(said, **evidence)


def span_of(values: list[int]) -> str:
    """Return the smallest and the largest number as text."""
    return f"{min(values):,}" if min(values) == max(values) else f"{min(values):,} to {max(values):,}"


def names(sight: Sight, numbers: list[int]) -> str:
    """Return text such as `observation[3], observation[5] and 2 more`."""
    shown = ", ".join(map(sight.name_of, numbers[:MOST_PLACES]))
    return shown + (f" and {len(numbers) - MOST_PLACES} more" if len(numbers) > MOST_PLACES else "")


def power_of_ten(value: float) -> float:
    """Return the power of ten at or below a number."""
    return float(10.0 ** np.floor(np.log10(value)))


STEP_CHECKS: Mapping[str, Callable[[Sight, Record], Iterator[Finding]]] = {
    "episodes": episodes,
    "rewards": rewards,
    "features": features,
    "scale": input_scale,
    "masks": legal,
}
