"""Saving and restoring the state between two vector steps."""

import numpy as np

from nexus.core.errors import RunError
from nexus.core.state import State, array_from, below, part, value_from
from nexus.data.n_step import NStepAccumulator
from nexus.data.single_steps import SingleSteps
from nexus.training.config import TrainConfig
from nexus.training.loop import Counters, UnderWay

__all__ = ["fresh_under_way", "restore_under_way", "state_of"]


def fresh_under_way(config: TrainConfig) -> UnderWay:
    """Return the state before the first step."""
    if config.folds_when_drawn:
        return UnderWay(SingleSteps(config.num_envs, config.gamma))
    return UnderWay(NStepAccumulator(config.num_envs, config.n_step, config.gamma))


def state_of(under_way: UnderWay) -> State:
    """Return its open windows, the last states and actions, and the steps `[K, 4]` not yet learned from."""
    spans = [(b.steps, b.episodes, a.steps, a.episodes) for b, a in under_way.to_learn]
    optional = {"next_states": under_way.next_states, "actions": under_way.actions}
    return {
        **below("accumulator", under_way.accumulator.get_state()),
        **{name: values.copy() for name, values in optional.items() if values is not None},
        "to_learn": np.array(spans, np.int64).reshape(-1, 4),
    }


def restore_under_way(under_way: UnderWay, state: State) -> None:
    """Restore what `state_of` returned.

    Raises:
        RunError: something is missing or does not fit.
    """
    accumulator = under_way.accumulator
    accumulator.set_state(part(state, "accumulator"))
    next_states = value_from(state, "next_states", np.ndarray)
    if len(next_states) != accumulator.num_envs:
        raise RunError(f"the last states do not fit: {len(next_states)} of {accumulator.num_envs} environments")
    spans = value_from(state, "to_learn", np.ndarray)
    spans = array_from(state, "to_learn", np.empty((len(spans), 4), np.int64))
    under_way.next_states = next_states
    if "actions" in state:
        under_way.actions = array_from(state, "actions", np.empty(accumulator.num_envs, np.int64))
    under_way.to_learn = [
        (Counters(before, episodes_before), Counters(after, episodes_after))
        for before, episodes_before, after, episodes_after in spans.tolist()
    ]
