"""What an examination looks at: copies of the networks, fixed probe states, rows of the replay, and the last update.

Nothing here changes the run: the networks are copies, rows are read without the run's generators, and nothing is drawn.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np
import torch
from torch import Tensor, nn

from nexus.core.state import State, value_from
from nexus.core.types import Array, Batch, QOutput
from nexus.data.replay import Replay
from nexus.models.layers import flatten_parameters
from nexus.models.rl.dqn.learner import Learner
from nexus.ops.action_values import only_legal, values_of_actions
from nexus.training.config import TrainConfig
from nexus.training.loop import Taken
from nexus.training.replays import AnyReplay

__all__ = ["LAST_EPISODES", "RANDOM_ROWS", "Exam", "Networks", "Tally", "read_rows"]

RANDOM_ROWS = 256  # random rows of the replay that an examination reads
NEWEST_ROWS = 512  # rows of the newest block, in the order in which they were stored
LAST_EPISODES = 20  # episodes whose returns count as those of now
MOST_BYTES = 2_000_000  # of states in either; fewer rows of large images


@dataclass
class Tally:
    """Counts that grow with every episode."""

    terminated: int = 0  # episodes that ended by themselves, or where learning saw a terminal state
    truncated: int = 0  # episodes cut off by a limit
    acted: int = 0  # actions looked at since the last examination
    greedy: int = 0  # those among them that were greedy by the weights of then
    at_random: tuple[float, ...] = ()  # returns of the first episodes, played at random
    recent: deque[float] = field(default_factory=partial(deque, maxlen=LAST_EPISODES))  # returns of the last ones
    lengths: deque[int] = field(default_factory=partial(deque, maxlen=LAST_EPISODES))  # and their steps

    def get_state(self) -> State:
        """Return all counts."""
        return {name: list(value) if isinstance(value, deque | tuple) else value for name, value in vars(self).items()}

    def set_state(self, state: State) -> None:
        """Restore what `get_state` returned.

        Raises:
            RunError: something is missing or of another type.
        """
        for name in ("terminated", "truncated", "acted", "greedy"):
            setattr(self, name, value_from(state, name, int))
        self.at_random = tuple(value_from(state, "at_random", list))
        self.recent = deque(value_from(state, "recent", list), LAST_EPISODES)
        self.lengths = deque(value_from(state, "lengths", list), LAST_EPISODES)


class Networks:
    """Copies of an agent's networks in evaluation mode, which follow them from one examination to the next.

    Args:
        learner: the agent's learner.
    """

    def __init__(self, learner: Learner) -> None:
        self.learner = learner
        self.online, self.target = (
            deepcopy(network).requires_grad_(False).train(False)
            for network in (learner.q_network, learner.target_network)
        )
        self._followed = [
            (flatten_parameters(self.online), learner.theta),
            (flatten_parameters(self.target), learner.theta_target),
            *zip(self.online.buffers(), learner.q_network.buffers(), strict=True),
            *zip(self.target.buffers(), learner.target_network.buffers(), strict=True),
        ]
        self.activations: list[Tensor] = []  # [P, ...] of each ReLU in the last watched pass
        self.is_watched = False
        for module in self.online.modules():
            if isinstance(module, nn.ReLU):
                module.register_forward_hook(self._keep)

    def follow(self) -> None:
        """Take over the weights of now."""
        with torch.no_grad():
            for own, theirs in self._followed:
                own.copy_(theirs)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Keep the activations of the passes in this block."""
        self.activations, self.is_watched = [], True
        try:
            yield
        finally:
            self.is_watched = False

    def _keep(self, _: nn.Module, __: object, output: Tensor) -> None:
        if self.is_watched:
            self.activations.append(output)


@dataclass(frozen=True)
class Exam:
    """The material of one examination. Everything derived is computed once, when a measure first asks for it."""

    config: TrainConfig
    learner: Learner
    networks: Networks
    probes: Tensor  # [P, *obs], the same at every examination
    rows: Mapping[str, Tensor]  # random rows of the replay, on the device; empty without a replay
    newest: Mapping[str, Tensor]  # the newest rows in order; likewise
    replay: AnyReplay
    taken: Taken | None  # the last update
    tally: Tally
    before: Mapping[str, Array]  # what the last examination kept

    @cached_property
    def output(self) -> QOutput:
        """The online network's output at the probes."""
        with self.networks.watched():
            return self.networks.online.output(self.probes)

    @cached_property
    def q(self) -> Array:
        """`[P, A]`, Q(s, ·; θ) of the probes."""
        values: Array = self.output.q_values.cpu().numpy()
        return values

    @cached_property
    def q_target(self) -> Array:
        """`[P, A]`, Q(s, ·; θ⁻) of the probes."""
        values: Array = self.networks.target(self.probes).cpu().numpy()
        return values

    @cached_property
    def targets(self) -> Tensor:
        """`[K]`, the targets of the random rows."""
        return self.targets_of(self.rows)

    @cached_property
    def predictions(self) -> Tensor:
        """`[K]`, Q(s, a; θ) of the random rows."""
        return values_of_actions(self.networks.online(self.rows["states"]), self.rows["actions"])

    def targets_of(self, batch: Batch | Mapping[str, Tensor]) -> Tensor:
        """Return r + d · Q(s', a'; θ⁻) `[B]` from the settings alone, in the reward unit that is learned."""
        scaled = self.learner.scaled(dict(batch))
        legal = scaled.get("next_action_masks")
        at_next = self.networks.target(scaled["next_states"])
        chooser = self.networks.online(scaled["next_states"]) if self.config.double else at_next
        next_values = values_of_actions(at_next, only_legal(chooser, legal).argmax(1))
        targets = scaled["rewards"] + scaled["discounts"] * next_values
        return targets if self.value_range is None else targets.clamp(*self.value_range)

    @cached_property
    def value_range(self) -> tuple[float, float] | None:
        """The range of the atoms of a categorical network; None for others."""
        atoms = getattr(self.learner.q_network.readout, "atoms", None)
        return None if atoms is None else (self.config.v_min, self.config.v_max)

    @cached_property
    def theta(self) -> Array:
        """Every so many-th weight, at most 10,000 of them."""
        every = max(1, len(self.learner.theta) // 10_000)
        values: Array = self.learner.theta.detach()[::every].cpu().numpy().copy()
        return values


def read_rows(
    learner: Learner, replay: AnyReplay, seed: int, state_bytes: int
) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
    """Return random rows and the newest ones of a replay, ready for the networks; empty if there is none.

    Args:
        learner: moves them to its device.
        replay: the replay.
        seed: of the choice, which is repeatable.
        state_bytes: of one state.
    """
    held = len(replay) if isinstance(replay, Replay) else 0
    if not held or not isinstance(replay, Replay):
        return {}, {}
    most = most_rows(state_bytes)
    chosen = np.random.default_rng(seed).integers(held, size=min(RANDOM_ROWS, most))
    count = min(NEWEST_ROWS, 2 * most, held)
    last = np.arange(replay.added - count, replay.added) % replay.capacity
    return ready(learner, replay, chosen), ready(learner, replay, last)


def ready(learner: Learner, replay: Replay, at: Array) -> Mapping[str, Tensor]:
    """Return rows `[K]` of a replay on the learner's device."""
    indices = torch.from_numpy(at).to(replay.device)
    return learner.prepared(replay.gather(indices, torch.ones(len(at), device=replay.device)))


def most_rows(state_bytes: int) -> int:
    """Return how many rows may be read at once, for their states."""
    return max(16, MOST_BYTES // max(state_bytes, 1))
