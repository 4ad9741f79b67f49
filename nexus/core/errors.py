"""Errors that a user can act on: one line with what, where, the value given and the value needed."""

import sys
import warnings
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

__all__ = [
    "ConfigError",
    "DivergenceError",
    "EnvError",
    "NexusError",
    "RunError",
    "Terminated",
    "interrupted",
    "nearest",
    "one_line",
    "result_of",
    "unbroken",
    "warn",
]

NOT_THE_USERS = (
    "nexus",
    "torch",
    "gymnasium",
    "contextlib",
)  # packages skipped when locating the cause of a warning


class NexusError(Exception):
    """An error that the user can fix. The command line prints its one line and exits with its code."""

    exit_code = 2

    def __str__(self) -> str:
        """Return one line, even for quoted text of several lines, such as a space with a matrix of bounds."""
        return unbroken(super().__str__())


class ConfigError(NexusError, ValueError):
    """A setting is unknown, impossible, or does not fit the environment."""


class EnvError(NexusError):
    """An environment failed or returned something unusable, such as a reward that is not a number."""


class RunError(NexusError):
    """A run folder is missing, incomplete or damaged, or can't be written."""


class DivergenceError(NexusError):
    """A loss, a gradient or a weight is no longer finite, so the agent can't learn any more."""

    exit_code = 3


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived: like Ctrl-C, but with a different exit code."""


def interrupted(text: str, result: Any) -> KeyboardInterrupt:
    """Return the exception of a run stopped by a signal, raised after saving; its `result` is the run's result.

    It is a plain `KeyboardInterrupt`: only then does Python exit as after Ctrl-C, which also ends a shell loop.
    """
    stop: Any = KeyboardInterrupt(text)
    stop.result = result
    return stop  # type: ignore[no-any-return]


def result_of(stop: KeyboardInterrupt) -> Any:
    """Return the result of a run stopped by a signal; None if it stopped before everything was saved."""
    return getattr(stop, "result", None)


def nearest(word: str, known: Iterable[str], count: int = 3) -> str:
    """Return `"; did you mean a, b?"` with the names closest to `word`, or `""` if none is close."""
    by_lower = {name.lower(): name for name in known}
    close = get_close_matches(word.lower(), by_lower, n=count, cutoff=0.55)
    return f"; did you mean {', '.join(by_lower[name] for name in close)}?" if close else ""


def unbroken(text: str) -> str:
    """Return a text on one line, keeping its other spaces."""
    return " ".join(line.strip() for line in text.splitlines())


def one_line(error: BaseException) -> str:
    """Return an error's text without line breaks, or its class name if it has no text."""
    try:
        text = str(error)
    except Exception:  # an error from user code may fail even at this
        text = ""
    return " ".join(text.split()) or type(error).__name__


def warn(text: str) -> None:
    """Issue a `RuntimeWarning` located at the line of the user's program that called this package."""
    frame, level = sys._getframe(1), 2  # 1 would be this function
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).partition(".")[0] in NOT_THE_USERS:
        frame, level = frame.f_back, level + 1
    warnings.warn(text, RuntimeWarning, stacklevel=level)
