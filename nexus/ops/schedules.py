"""Schedules of ε and of the learning rate: pure functions of a run's progress."""

import math

__all__ = ["cosine", "exponential", "linear", "step_decay"]


def linear(start: float, end: float, duration: float, now: float) -> float:
    """Go from `start` to `end` in a straight line over `duration`, then stay at `end` (Mnih et al. 2015 for ε)."""
    return end if now >= duration else start + (end - start) * now / duration


def exponential(start: float, end: float, decay: float, now: float) -> float:
    """Return `start * decay**now`, never below `end`; `now` counts episodes or updates."""
    return max(end, float(start * decay**now))


def cosine(start: float, end: float, duration: float, now: float) -> float:
    """Go from `start` to `end` along half a cosine over `duration` (https://arxiv.org/abs/1608.03983)."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * min(now / duration, 1.0)))


def step_decay(start: float, factor: float, every: float, now: float) -> float:
    """Multiply `start` by `factor` after each interval of `every`, as `torch.optim.lr_scheduler.StepLR` does."""
    return float(start * factor ** (now // every))
