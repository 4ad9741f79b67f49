"""Errors that a user can act on: one line that says what, where, what it got and what it needs."""

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
]


class NexusError(Exception):
    """The user can mend this. The command line prints its one line and exits with its code."""

    exit_code = 2

    def __str__(self) -> str:
        """Return one line, also of what was quoted in several, such as a space with a matrix of bounds."""
        return " ".join(line.strip() for line in super().__str__().splitlines())


class ConfigError(NexusError, ValueError):
    """A setting is unknown, impossible, or does not fit the environment."""


class EnvError(NexusError):
    """An environment returned what nobody can learn from, such as a reward that is not a number."""


class RunError(NexusError):
    """A run folder is missing, incomplete or damaged, or can't be written."""


class DivergenceError(NexusError):
    """A loss, a gradient or a weight is no finite number any more: from there on nothing is learned."""

    exit_code = 3


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived: like Ctrl-C, but a shell is told another exit code."""


def interrupted(text: str, result: Any) -> KeyboardInterrupt:
    """Return what a run raises that a signal stopped, once all is saved; its `result` is what the run leaves behind.

    A plain `KeyboardInterrupt`: for that kind alone Python ends a program as Ctrl-C does, which ends a loop of a shell.
    """
    stop: Any = KeyboardInterrupt(text)
    stop.result = result
    return stop  # type: ignore[no-any-return]


def result_of(stop: KeyboardInterrupt) -> Any:
    """Return the result of the run that a signal stopped; None where it was stopped before all was saved."""
    return getattr(stop, "result", None)


def nearest(word: str, known: Iterable[str], count: int = 3) -> str:
    """Return `"; did you mean a, b?"` with the names closest to `word`, or `""` if none is close."""
    by_lower = {name.lower(): name for name in known}
    close = get_close_matches(word.lower(), by_lower, n=count, cutoff=0.55)
    return f"; did you mean {', '.join(by_lower[name] for name in close)}?" if close else ""


def one_line(error: Exception) -> str:
    """Return an error's text without its line breaks, or its kind if it has no text."""
    try:
        text = str(error)
    except Exception:  # an error of foreign code may fail at this too
        text = ""
    return " ".join(text.split()) or type(error).__name__
