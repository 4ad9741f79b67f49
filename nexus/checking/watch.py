"""Calling an environment in a thread that can be abandoned, and finding the user's line behind an error."""

import ctypes
import os
import queue
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from traceback import StackSummary, extract_tb, walk_stack
from typing import Any, TypeVar

from nexus.core.errors import NexusError
from nexus.core.installation import short_path

__all__ = ["Left", "Watch", "is_users", "origin", "own_line", "place_of", "user_line", "watched"]

Item = TypeVar("Item")

LOOK = 0.05  # seconds between two checks of a silent thread
PATIENCE_AT_END = 1.0  # seconds for a finished thread to end
LIBRARIES = tuple(
    str(Path(path).resolve())
    for name in ("stdlib", "platstdlib", "purelib", "platlib")
    if (path := sysconfig.get_paths().get(name)) is not None
)
NEXUS = str(Path(__file__).resolve().parents[1]) + os.sep
GIVEN = ("gymnasium", "numpy", "torch")  # packages that never contain the user's environment


class Left(Exception):
    """The environment tried to end the program."""


class GivenUp(SystemExit):
    """Raised in an abandoned thread. As a `SystemExit` it ends the thread without a message."""


class Watch:
    """Tracks the call in progress and its start time."""

    def __init__(self) -> None:
        self.doing = ""
        self.since: float | None = None

    def call(self, doing: str, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Call user code.

        Raises:
            Left: it called `sys.exit`.
        """
        self.doing, self.since = doing, time.monotonic()
        try:
            return function(*arguments, **options)
        except GivenUp:
            raise
        except (SystemExit, KeyboardInterrupt) as error:
            raise Left(f"{type(error).__name__}: it tried to end the program") from error
        finally:
            self.since = None


def watched(
    work: Callable[[Watch], Iterable[Item]],
    patience: Callable[[str], float],
    given_up: Callable[[str, float, str], Item],
) -> Iterator[Item]:
    """Run `work` in a thread and yield its items; abandon it if one of its calls takes too long.

    Args:
        work: receives the watch for its calls of user code.
        patience: returns the seconds allowed for one call, given its description.
        given_up: makes the last item from the call's description, its seconds, and the line where it hangs.
    """
    watch = Watch()
    found: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()

    def run() -> None:
        try:
            for item in work(watch):
                found.put(("item", item))
            found.put(("end", None))
        except BaseException as error:
            found.put(("error", error))

    thread = threading.Thread(target=run, daemon=True, name="nexus check")
    thread.start()
    try:
        while True:
            try:
                kind, item = found.get(timeout=LOOK)
            except queue.Empty:
                since, limit = watch.since, patience(watch.doing)
                if since is not None and time.monotonic() - since > limit:
                    yield given_up(watch.doing, limit, user_line(thread))
                    return
                continue
            if kind == "item":
                yield item
                continue
            thread.join(PATIENCE_AT_END)
            if kind == "error":
                raise item
            return
    finally:
        if thread.is_alive():
            stop(thread)


def stop(thread: threading.Thread) -> None:
    """Ask a thread to end. If it is waiting in user code, it ends when that returns."""
    if thread.ident is not None:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(GivenUp))


def user_line(thread: threading.Thread) -> str:
    """Return the user's line that a thread is executing, as `file:line`."""
    frame = sys._current_frames().get(thread.ident or 0)
    return "" if frame is None else own_line(StackSummary.extract(walk_stack(frame))[::-1])


def place_of(error: BaseException) -> str:
    """Return the user's line that raised an error, as `file:line`."""
    return own_line(extract_tb(origin(error).__traceback__))


def origin(error: BaseException) -> BaseException:
    """Return the exception from user code behind a nexus error."""
    while isinstance(error, NexusError | Left) and error.__cause__ is not None:
        error = error.__cause__
    return error


def own_line(frames: Iterable[Any]) -> str:
    """Return the innermost line of user code; if there is none, that of another package, or the last."""
    lines = [(str(Path(frame.filename).resolve()), frame.lineno) for frame in frames if frame.filename[0] != "<"]
    foreign = [line for line in lines if not line[0].startswith(NEXUS)]
    users = [line for line in lines if is_users(line[0])]
    packages = [line for line in foreign if "site-packages" in line[0] and not is_given(line[0])]
    for found in (users, packages, foreign, lines):
        if found:
            return f"{short_path(Path(found[-1][0]))}:{found[-1][1]}"
    return ""


def is_users(path: str) -> bool:
    """True for a file outside all libraries."""
    return not str(Path(path).resolve()).startswith((NEXUS, *LIBRARIES)) and not path.startswith("<")


def is_given(path: str) -> bool:
    """True for a file of a library that environments are built on."""
    return any(f"site-packages/{name}/" in Path(path).as_posix() for name in GIVEN)
