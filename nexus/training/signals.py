"""Ctrl-C and SIGTERM as requests to stop at a point where nothing is lost."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from nexus.core.errors import Terminated

__all__ = ["StopRequest", "sigterm_stops", "stop_requests"]


class StopRequest:
    """Records the signal that asked a run to stop, if any."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def take(self, number: int, frame: FrameType | None = None) -> None:
        """Record the first signal; a second one stops the program at once."""
        first, self.signal = self.signal is None, signal.Signals(number)
        if not first:
            self.raise_if_asked()

    def raise_if_asked(self) -> None:
        """Raise `Terminated` or `KeyboardInterrupt` if a signal arrived."""
        if self.signal is not None:
            raise Terminated if self.signal is signal.SIGTERM else KeyboardInterrupt


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Treat SIGINT and SIGTERM as requests to stop, except those the surrounding program handles itself."""
    request = StopRequest()
    defaults = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    main = threading.current_thread() is threading.main_thread()
    ours = {number: default for number, default in defaults.items() if main and signal.getsignal(number) is default}
    for number in ours:
        signal.signal(number, request.take)
    try:
        yield request
    finally:
        for number, default in ours.items():
            signal.signal(number, default)


@contextmanager
def sigterm_stops() -> Iterator[None]:
    """Make SIGTERM raise `Terminated`, so that resources are closed, unless the signal already has a handler."""
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, raise_terminated)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def raise_terminated(number: int, frame: FrameType | None) -> None:
    """Stop the program at once."""
    raise Terminated
