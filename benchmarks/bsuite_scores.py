"""bsuite's scores, from 0 to 1, as its analysis computes them (Osband et al. 2020, https://arxiv.org/abs/1908.03568).

A run of an experiment is summed up in a few numbers: regret or return per episode, or the episode by which deep sea was
solved. Regret is the loss against the best return, without the noise and the scale of rewards.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

__all__ = [
    "bandit_score",
    "catch_score",
    "deep_sea_score",
    "discounting_chain_score",
    "is_logged",
    "levels_score",
    "regret_score",
    "solved_by",
    "umbrella_score",
]

LOGGED = (10, 12, 14, 17, 20, 25, 30, 40, 50, 60, 70, 80, 90)  # tenths of powers of ten
FORGIVEN = 100  # episodes
SOLVED, SOLVED_STOCHASTIC = 0.9, 0.8  # share of bad episodes so far


def regret_score(regrets: Sequence[float], baseline: float) -> float:
    """Return the mean regret of an episode as a share of a baseline's, from 1 for none to 0 for the baseline's or more.

    Args:
        regrets: mean regret of an episode, of each run.
        baseline: regret that scores 0.
    """
    return clipped((baseline - float(np.mean(regrets))) / baseline)


def bandit_score(regrets: Sequence[float]) -> float:
    """Return the score of the bandit from the mean regret of each run; random arms lose 0.5."""
    return regret_score(regrets, 0.5)


def catch_score(regrets: Sequence[float]) -> float:
    """Return the score of catch from the mean regret of each run; bsuite's baseline of 1.6 is about random play."""
    return regret_score(regrets, 1.6)


def discounting_chain_score(returns: Sequence[float]) -> float:
    """Return the score of the discounting chain from the mean return of each run.

    1 always chooses the chain that pays 1.1, 0 never. Random play has 0.2.
    """
    return clipped(1 - 10 * (1.1 - float(np.mean(returns))))


def umbrella_score(regrets: Mapping[int, Sequence[float]]) -> float:
    """Return the share of settings whose mean regret is below 0.5; random play has a regret of 1.

    Args:
        regrets: mean regret of each run, by length or by number of distractors.
    """
    return float(np.mean([np.mean(runs) < 0.5 for runs in regrets.values()]))


def deep_sea_score(solved: Mapping[int, float | None]) -> float:
    """Return the share of sizes N that are solved before episode 2^N + 100, about what random play needs.

    Args:
        solved: the episode of `solved_by` for each N; None where there is none.
    """
    return float(np.mean([by is not None and by < 2**size + FORGIVEN for size, by in solved.items()]))


def solved_by(bad: Sequence[bool], stochastic: bool = False) -> int | None:
    """Return the first logged episode by which fewer than 90 % of all so far were bad; None if there is none.

    In the stochastic sea it is 80 %, from episode 100 on, since the current can carry a bad episode's luck either way.

    Args:
        bad: whether each episode left the diagonal, in order.
        stochastic: the threshold to apply.
    """
    limit, first = (SOLVED_STOCHASTIC, 100) if stochastic else (SOLVED, 1)
    shares = np.cumsum(bad) / np.arange(1, len(bad) + 1)
    return next((at for at, share in enumerate(shares, 1) if at >= first and is_logged(at) and share < limit), None)


def is_logged(episode: int) -> bool:
    """True for the episodes that bsuite logs and its analysis sees: 1, 2, 3 ..., 10, 12, 14, 17, 20, 25, 30 ..."""
    power: int = 10 ** (len(str(episode)) - 1)
    return any(10 * episode == tenths * power for tenths in LOGGED)


def levels_score(scores: Iterable[float]) -> float:
    """Return the score of a variant with noise or scale: the mean of `mean` and `mean - deviation` over its levels.

    Args:
        scores: the score of each level.
    """
    values = np.array(list(scores), np.float64)
    return (clipped(float(values.mean())) + clipped(float(values.mean() - values.std()))) / 2


def clipped(score: float) -> float:
    """Return a score within 0 and 1."""
    return min(1.0, max(0.0, score))
