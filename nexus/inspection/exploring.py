"""How a run explores at one of its steps, and where that ends."""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from nexus.core.importable import is_import_name
from nexus.inspection.words import percent
from nexus.training.config import TrainConfig

__all__ = ["Exploring", "exploring_at"]


@dataclass(frozen=True)
class Exploring:
    """Exploration after some steps of a run: ε, or the temperature of Boltzmann exploration.

    Args:
        what: "epsilon" or "temperature".
        noisy: whether noisy layers explore as well.
        value: its value now.
        schedule: the setting `epsilon_schedule`.
        steps: steps so far.
        episodes: episodes so far.
        total_steps: steps of the run.
        end: the value at which the schedule ends; None for a schedule of the user's own.
        end_step: the step from which on it has that value; None if it depends on the episodes, or lies beyond the run.
        end_episode: likewise the episode, of a schedule per episode.
        last: the value at the last step; None if it depends on the episodes.
    """

    what: Literal["epsilon", "temperature"]
    noisy: bool
    value: float
    schedule: str
    steps: int
    episodes: int
    total_steps: int
    end: float | None
    end_step: int | None
    end_episode: int | None
    last: float | None

    @property
    def now(self) -> str:
        """A clause on its value now."""
        is_epsilon = self.what == "epsilon"
        means = f", so {percent(self.value)} of the actions are drawn at random" if is_epsilon and self.value else ""
        return f"{'ε' if is_epsilon else 'The temperature'} is {self.value:.3g} at step {self.steps:,}{means}"

    @property
    def later(self) -> str:
        """A clause on how it goes on."""
        if self.schedule == "constant" or 0 in (self.end_step, self.end_episode):
            return "it is the same in the whole run"
        if self.end is None:
            return f"it follows {self.schedule} to {self.last:.3g} at step {self.total_steps:,}, the last"
        if self.end_step is not None:
            verb, share = "reached" if self.steps >= self.end_step else "reaches", self.end_step / self.total_steps
            return f"it {verb} {self.end:.3g} at step {self.end_step:,}, {percent(share)} of the run"
        if self.end_episode is not None:
            verb = "reached" if self.episodes >= self.end_episode else "reaches"
            return (
                f"it {verb} {self.end:.3g} after {self.end_episode:,} episodes, of which {self.episodes:,} have ended"
            )
        if self.last is None:
            return f"it falls with each episode, too slowly to reach {self.end:.3g} in this run"
        return f"it ends at {self.last:.3g} with step {self.total_steps:,}, the last, before it reaches {self.end:.3g}"

    def to_mapping(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {**asdict(self), "text": str(self)}

    def __str__(self) -> str:
        noise = "Noisy layers explore, with learned noise that has no schedule. " if self.noisy else ""
        drawn = "" if self.what == "epsilon" else "Actions are drawn from softmax(Q / temperature) (Boltzmann). "
        return f"{noise}{drawn}{self.now}; {self.later}."


def exploring_at(config: TrainConfig, steps: int, episodes: int) -> Exploring:
    """Return how a run explores after some steps and episodes.

    Raises:
        ConfigError: its schedule is the user's own, and can't be imported or called.
    """
    boltzmann = config.exploration == "boltzmann"
    at = config.temperature_at if boltzmann else config.epsilon_at
    schedule, total = config.epsilon_schedule, config.total_steps
    own, by_episode = is_import_name(schedule), schedule == "per_episode"
    end = config.temperature_min if boltzmann else config.epsilon_min
    end_step = end_episode = None
    if schedule in ("linear", "per_step"):
        end_step = first_at(end, lambda step: at(step, 0), total)
    elif by_episode:
        end_episode = first_at(end, lambda episode: at(0, episode), total)  # no run has more episodes than steps
    return Exploring(
        "temperature" if boltzmann else "epsilon",
        config.noisy,
        at(steps, episodes),
        schedule,
        steps,
        episodes,
        total,
        None if own else at(steps, episodes) if schedule == "constant" else end,
        end_step,
        end_episode,
        None if by_episode else at(total, episodes),
    )


def first_at(end: float, value: Callable[[int], float], most: int) -> int | None:
    """Return the first number from 0 to `most` at which a schedule is at its end; None if there is none."""
    first = bisect_left(range(most + 1), True, key=lambda number: value(number) == end)
    return first if first <= most else None
