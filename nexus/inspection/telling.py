"""Transitions in words: what a state is, and a target term by term."""

from collections.abc import Iterator

import numpy as np

from nexus.core.types import Array
from nexus.inspection.rows import ReplayRows
from nexus.inspection.transition import TransitionTerms
from nexus.training.config import TrainConfig

__all__ = ["state_text", "target_text", "transition_in_words", "value_text"]


def transition_in_words(rows: ReplayRows, place: int, terms: TransitionTerms, room: int) -> Iterator[tuple[str, str]]:
    """Yield titles and texts: a transition, the values at both of its states, and its target; empty ones between parts.

    Args:
        rows: the replay.
        place: of the transition in the columns.
        terms: its terms.
        room: characters for a state.
    """
    batch = rows.batch_at(np.array([place]))
    state, next_state = (
        state_text(batch[name][0].numpy(), room, rows.are_packed) for name in ("states", "next_states")
    )
    yield "", ""
    yield from {"state": state, "action": str(terms.action), "next state": next_state}.items()
    if terms.next_legal is not None:
        legal = [str(action) for action, is_legal in enumerate(terms.next_legal) if is_legal]
        yield "legal there", ", ".join(legal) or "none"
    if "priority" in rows.columns:
        yield "priority", f"{rows.columns['priority'][place]:.4g} as stored"
    yield "", ""
    yield "Q(s, ·)", values_text(terms.q_values)
    yield "Q(s', ·)", f"{values_text(terms.next_online)}; best: {terms.online_choice}"
    yield "target Q(s', ·)", f"{values_text(terms.next_target)}; best: {terms.target_choice}"
    yield "", ""
    yield from terms_in_words(rows.config, terms).items()
    if "priority" in rows.columns:
        yield "new priority", f"{terms.priority:.4g}"


def state_text(state: Array, room: int, packed: bool = False) -> str:
    """Return the first numbers of a state that fit, or what kind of array it is."""
    if packed or state.ndim > 1:
        text = (
            f"{state.size:,} packed bytes" if packed else f"{state.dtype}{list(state.shape)}, mean {state.mean():.4g}"
        )
        return text if len(text) <= room else f"{text[: max(0, room - 3)]}..."
    if state.size > 1 and state.dtype.kind in "iu" and state.sum() == 1 == state.max() and state.min() == 0:
        return f"one-hot {int(state.argmax())}"
    text = ""
    for number in state.tolist():
        longer = f"{text} {number:.3g}".strip()
        if len(longer) > room - 4:
            return f"{text} ...".strip()
        text = longer
    return text


def terms_in_words(config: TrainConfig, terms: TransitionTerms) -> dict[str, str]:
    """Return what the loss computes, by name."""
    folded = f", summed over up to {config.stored_steps} steps" if config.stored_steps > 1 else ""
    changes = {
        "the bonus of Munchausen": config.munchausen,
        "the division by their deviation": config.normalize_rewards,
    }
    how = " and ".join(name for name, is_made in changes.items() if is_made)
    as_stored = f"; {terms.stored_reward:.4g} before {how}" if how else ""
    drawn = "" if terms.prediction == terms.q_values[terms.action] else ", as the loss computes it"
    return {
        "reward": f"{terms.reward:.4g}{folded}{as_stored}",
        "discount": f"{terms.discount:.4g}{'' if terms.discount else ': terminal, so no value follows'}",
        "value of s'": f"{value_text(terms)}",
        "target": target_text(terms),
        "Q(s, a)": f"{terms.prediction:.4g}{drawn}",
        "TD error": "not known" if terms.td_error is None else f"{terms.td_error:.4g}, the target minus Q(s, a)",
        "loss": f"{terms.loss:.4g}{', before the importance weight' if config.prioritized else ''}",
    }


def values_text(values: tuple[float, ...]) -> str:
    """Return values by action."""
    return ", ".join(f"{action}: {value:.4g}" for action, value in enumerate(values))


def value_text(terms: TransitionTerms) -> str:
    """Return the value of the next state, and whose it is."""
    if terms.next_value is None:
        return "the loss does not say"
    if terms.chosen is None:
        return f"{terms.next_value:.4g}, over all actions"
    return f"{terms.next_value:.4g}, of action {terms.chosen} by the target network"


def target_text(terms: TransitionTerms) -> str:
    """Return the target as a sum, and what the loss makes of it if that is something else, as C51 does at its ends."""
    if terms.target is None:
        return "the loss does not report it"
    if terms.next_value is None:
        return f"{terms.target:.4g}"
    sum_of_terms = terms.reward + terms.discount * terms.next_value
    value = f"{terms.next_value:.4g}" if terms.next_value >= 0 else f"({terms.next_value:.4g})"
    text = f"{terms.reward:.4g} + {terms.discount:.4g} · {value} = {sum_of_terms:.4g}"
    if np.isclose(sum_of_terms, terms.target, rtol=1e-4, atol=1e-5):
        return text
    return f"{terms.target:.4g}, by the loss; the terms alone give {text}"
