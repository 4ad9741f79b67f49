"""`nexus compare RUN...`."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from nexus.cli.extras import load
from nexus.cli.parsing import parse
from nexus.cli.plot import FORMATS
from nexus.core.errors import ConfigError, RunError

__all__ = ["CompareCommand", "run"]


@dataclass(frozen=True)
class CompareCommand:
    """Compare groups of runs, which differ only in their seeds: interquartile means with 95 % bootstrap intervals,
    differences, probability of improvement, steps to a threshold, and what can't be concluded from so few runs.
    """

    runs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN...")] = ()
    """Folders of runs, or folders of such folders."""
    by: str | None = None
    """The settings that make a group, as in algorithm,n_step; none for all of them but the seed."""
    score: Literal["final", "step", "window", "area", "threshold"] | None = None
    """The score that comes first: evaluation of the final weights, or at the common step, the mean over the last
    steps, the area under all evaluations, or the steps to a threshold; none: final, or step if lengths differ."""
    at_step: int | None = None
    """The step at which runs are compared; none for the end of the shortest that is finished."""
    window: float = 0.25
    """Fraction of the steps that the mean over the last steps covers."""
    threshold: float | None = None
    """A mean return to count the steps to; none for the runs' own target_return."""
    baseline: str | None = None
    """The group that the others are compared with, as its label says; none for the first."""
    normalise: tuple[str, ...] = ()
    """ENV=RANDOM,REFERENCE for each environment: the scores that become 0 and 1 in one figure over all of them."""
    same_env: bool = False
    """Treat functions with the same name as one environment."""
    out: str | None = None
    """Also draw a picture: a .png, .pdf or .svg file."""
    json: bool = False
    """Print all numbers as JSON."""

    def __post_init__(self) -> None:
        if not self.runs:
            raise ConfigError("name at least one run, as in: nexus compare runs/*")
        if self.out is not None and Path(self.out).suffix.lower() not in FORMATS:
            raise ConfigError(f"out = {self.out!r}: needs a file name that ends in {', '.join(FORMATS)}")


def run(arguments: list[str]) -> int:
    """Compare and print."""
    command = parse(CompareCommand, arguments, "nexus compare")
    from nexus.comparing import compare

    if command.out is not None:
        load("matplotlib", "plot")
        if not Path(command.out).absolute().parent.is_dir():
            raise RunError(f"can't write {command.out}: there is no folder {Path(command.out).parent}")
    comparison = compare(
        command.runs,
        by=() if command.by is None else tuple(name.strip() for name in command.by.split(",")),
        score=command.score,
        at_step=command.at_step,
        window=command.window,
        threshold=command.threshold,
        baseline=command.baseline,
        normalise=dict(map(bounds_in, command.normalise)) if command.normalise else None,
        same_env=command.same_env,
        notice=lambda line: print(f"Note: {line}", file=sys.stderr),
    )
    if command.out is not None:
        from nexus.comparing.picture import save_comparison

        save_comparison(comparison, Path(command.out))
    if command.json:
        print(json.dumps({**comparison.to_mapping(), "picture": command.out}, allow_nan=False))
        return 0
    print(comparison)
    if command.out is not None:
        print(f"\nPicture: {command.out}")
    return 0


def bounds_in(text: str) -> tuple[str, tuple[float, float]]:
    """Return environment and bounds of `ENV=RANDOM,REFERENCE`.

    Raises:
        ConfigError: it is not that.
    """
    env, _, pair = text.rpartition("=")
    try:
        random, reference = map(float, pair.split(","))
    except ValueError:
        random = reference = float("nan")
    if not env or random != random:
        raise ConfigError(f"normalise = {text!r}: needs ENV=RANDOM,REFERENCE, as in CartPole-v1=22,500")
    return env, (random, reference)
