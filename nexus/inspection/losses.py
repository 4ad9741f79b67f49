"""How the loss moved over a run, and the numbers that say more than it does."""

from dataclasses import asdict, dataclass
from typing import Any

from nexus.core.figures import figures
from nexus.doctor.chart import Chart
from nexus.inspection.words import Trend, Unknown, trend_of

__all__ = ["LossTrend", "loss_trend"]


@dataclass(frozen=True)
class LossTrend:
    """The loss over a run, next to what should be looked at instead.

    Args:
        loss: the loss.
        td_error: mean size of the TD error; None if it was not logged, like the following two.
        q_mean: mean Q-value of the batches.
        episode_return: mean return of the last hundred episodes.
        divergence: the line of the divergence that ended the run, if one did.
    """

    loss: Trend
    td_error: Trend | None
    q_mean: Trend | None
    episode_return: Trend | None
    divergence: str | None

    @property
    def relative_errors(self) -> tuple[float, float] | None:
        """TD error ÷ size of the mean Q-value, at first and at last; None if unknown."""
        if self.td_error is None or self.q_mean is None or 0 in (self.q_mean.first, self.q_mean.last):
            return None
        return self.td_error.first / abs(self.q_mean.first), self.td_error.last / abs(self.q_mean.last)

    @property
    def movement(self) -> str:
        """A sentence on the loss."""
        loss = self.loss
        first, last, low, high = figures(loss.first, loss.last, loss.low, loss.high, least=2)
        if loss.count == 1:
            return f"The loss was logged once, {first} at step {loss.first_step:,}."
        return (
            f"The loss {loss.direction}: {first} in the first fifth of the log, {last} in the last, between {low} and "
            f"{high}, over steps {loss.first_step:,} to {loss.last_step:,}."
        )

    @property
    def instead(self) -> str:
        """A sentence on the numbers to look at instead."""
        named = {"the mean return": self.episode_return, "the mean Q-value": self.q_mean}
        said = [f"{name} ({ends_text(trend.first, trend.last)})" for name, trend in named.items() if trend is not None]
        if self.relative_errors is not None:
            said.append(f"the TD error divided by the size of that ({ends_text(*self.relative_errors)})")
        *before, end = said or [""]
        return f" Look instead at {', '.join(before)}{' and ' if before else ''}{end}." if end else ""

    def to_mapping(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {**asdict(self), "relative_errors": self.relative_errors, "text": str(self)}

    def __str__(self) -> str:
        ended = "" if self.divergence is None else f" The run diverged: {self.divergence}."
        return (
            f"{self.movement} A rising loss alone is not a fault: targets grow as returns do, and errors with them."
            f"{self.instead}{ended}"
        )


def ends_text(first: float, last: float) -> str:
    """Return the two ends of a trend in words."""
    before, after = figures(first, last)
    return before if before == after else f"{before} to {after}"


def loss_trend(chart: Chart, divergence: str | None = None) -> LossTrend | Unknown:
    """Return how the loss moved over what was logged of a run."""
    loss, td_error, q_mean, episode_return = (
        trend_of(chart.steps(name), chart.series(name))
        for name in ("train/loss", "train/td_error", "train/q_mean", "rollout/ep_rew_mean")
    )
    if loss is None:
        return Unknown("no loss has been logged, so nothing has been learned yet")
    return LossTrend(loss, td_error, q_mean, episode_return, divergence)
