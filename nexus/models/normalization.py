"""Running statistics of an agent: what its observations and returns are divided by.

A network has a `Normalizer` in front of its layers, so that acting, targets, evaluations and saved weights all see the
same numbers. The statistics behind it are gathered here, once for all environments, in float64.
"""

from collections.abc import Callable, Iterable
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from nexus.core.errors import RunError
from nexus.core.state import State, array_from, number_from, value_from
from nexus.core.types import Array, Batch
from nexus.models.layers import Normalizer
from nexus.ops.running import Moments, deviation, merge_moments, moments_of, no_moments

__all__ = ["ObservationStatistics", "ReturnStatistics", "normalizers", "require_positive"]


class ObservationStatistics:
    """Mean and deviation of each number that an agent acted on, for the `Normalizer`s of its networks.

    Args:
        numbers: from states `[K, *obs]` to the numbers `[K, D]` that the networks normalise.
        size: `D`.
    """

    def __init__(self, numbers: Callable[[Array], Array], size: int) -> None:
        self.numbers = numbers
        self.moments = no_moments(size)
        self._layers: list[Normalizer] = []

    def feed(self, networks: Iterable[nn.Module]) -> None:
        """Keep the normalizers of these networks at the present statistics from now on."""
        self._layers = [layer for network in networks for layer in normalizers(network)]
        if self.moments.samples:
            self._pass_on()

    def follow(self, states: Array) -> None:
        """Count states `[K, *obs]`, each once."""
        if len(states):
            before = self.moments if self.moments.samples else self._of_weights()
            self.moments = merge_moments(before, moments_of(self.numbers(states)))
            self._pass_on()

    def _of_weights(self) -> Moments:
        """Return the statistics that came with loaded weights, to go on from: in float32, so not to the bit."""
        for layer in self._layers:
            mean, spread = (tensor.cpu().numpy().astype(np.float64) for tensor in (layer.mean, layer.deviation))
            return Moments(mean, np.square(spread), float(layer.samples))
        return self.moments

    def _pass_on(self) -> None:
        """Write to the networks, in place: a CUDA graph reads this memory."""
        spread = deviation(self.moments)
        for layer in self._layers:
            layer.set_to(self.moments.mean, spread, int(self.moments.samples))

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return statistics that go on separately, and feed no network yet."""
        copy = type(self)(self.numbers, len(self.moments.mean))
        copy.moments = self.moments  # never changed in place
        return copy

    def get_state(self) -> State:
        """Return the moments."""
        return self.moments._asdict()

    def set_state(self, state: State) -> None:
        """Restore what `get_state` returned.

        Raises:
            RunError: something is missing, does not fit, is not finite or is below 0.
        """
        self.moments = moments_from(state, self.moments)
        self._pass_on()


class ReturnStatistics:
    """The deviation of discounted returns, for rewards to be divided by.

    Each environment carries G ← γG + r from step to step of an episode, as `NormalizeReward` of Gymnasium does; the
    variance is one for all of them. Rewards are divided and not shifted: a shift would change what is optimal.

    Args:
        gamma: γ.
        device: where batches are.
    """

    def __init__(self, gamma: float, device: torch.device) -> None:
        self.gamma = gamma
        self.moments = no_moments(1)
        self.unit = torch.ones((), device=device)  # the deviation; the same memory always: a CUDA graph reads it
        self._carried = np.zeros(0)  # [E], G

    @property
    def deviation(self) -> float:
        """The deviation, 1 before the first reward."""
        return float(deviation(self.moments)[0])

    def follow(self, rewards: Array, begins: NDArray[np.bool_], valid: NDArray[np.bool_]) -> None:
        """Count the returns up to a vector step.

        Args:
            rewards: `[E]`, as they are learned from.
            begins: `[E]`, True where the step was the first of an episode.
            valid: `[E]`, False where no action was taken.
        """
        before = self._carried if len(self._carried) else np.zeros(len(rewards))
        returns = np.where(begins, 0.0, self.gamma * before) + rewards
        self._carried = np.where(valid, returns, before)
        if valid.any():
            self.moments = merge_moments(self.moments, moments_of(returns[valid][:, None]))
            self._pass_on()

    def scaled(self, batch: Batch) -> Batch:
        """Return a batch whose rewards `[B]` are divided by the deviation; that of a rollout has none."""
        return {**batch, "rewards": batch["rewards"] / self.unit} if "rewards" in batch else batch

    def _pass_on(self) -> None:
        self.unit.copy_(torch.tensor(self.deviation, dtype=torch.float32), non_blocking=True)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return statistics that go on separately."""
        copy = type(self)(self.gamma, self.unit.device)
        copy.moments, copy._carried = self.moments, self._carried  # never changed in place
        copy._pass_on()
        return copy

    def get_state(self) -> State:
        """Return the moments, and the returns under way `[E]`."""
        return {**self.moments._asdict(), "carried": self._carried.copy()}

    def set_state(self, state: State) -> None:
        """Restore what `get_state` returned.

        Raises:
            RunError: something is missing, does not fit, is not finite or is below 0.
        """
        self.moments = moments_from(state, self.moments)
        environments = value_from(state, "carried", np.ndarray).shape[:1]
        self._carried = array_from(state, "carried", np.empty(environments))
        self._pass_on()


def moments_from(state: State, like: Moments) -> Moments:
    """Return moments from a checkpoint.

    Raises:
        RunError: one is missing, does not fit, is not finite, or is below 0.
    """
    mean, var = array_from(state, "mean", like.mean), array_from(state, "var", like.var)
    if (var < 0).any():
        raise RunError(f"var = {var.min():g}: a variance is 0 or more")
    return Moments(mean, var, number_from(state, "samples", low=0))


def normalizers(network: nn.Module) -> list[Normalizer]:
    """Return every `Normalizer` in a network."""
    return [layer for layer in network.modules() if isinstance(layer, Normalizer)]


def require_positive(networks: Iterable[nn.Module], where: str) -> None:
    """Raise `RunError` if a network came from a file with a deviation that is not above 0, or a count below 0."""
    for layer in (layer for network in networks for layer in normalizers(network)):
        if not (layer.deviation > 0).all():
            raise RunError(f"{where}: a deviation of observations is {layer.deviation.min():g}: needs a number above 0")
        if layer.samples < 0:
            raise RunError(f"{where}: statistics of {int(layer.samples)} observations: needs 0 or more")
