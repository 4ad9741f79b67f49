"""What stands in for a CUDA graph where there is no GPU."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from nexus.models.graph import Recording


class OnTheCPU:
    """Does what a CUDA graph does: runs to warm up, fixed memory for the results, only recorded work in a replay."""

    def __init__(self, spoil: Callable[[Sequence[Tensor]], object] | None = None) -> None:
        self.spoil = spoil
        self.recorded = 0
        self.replayed = 0

    def __call__(self, function: Callable[[], Sequence[Tensor]], generators: Sequence[torch.Generator]) -> Recording:
        self.recorded += 1
        for _ in range(3):
            results = [result.clone() for result in function()]

        def replay() -> None:
            self.replayed += 1
            for result, fresh in zip(results, function(), strict=True):
                result.copy_(fresh)
            if self.spoil is not None:
                self.spoil(results)

        return Recording(replay, results)
