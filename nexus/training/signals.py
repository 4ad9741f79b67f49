"""SIGTERM as a way to stop, beside Ctrl-C."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from nexus.core.errors import Terminated

__all__ = ["sigterm_stops"]


@contextmanager
def sigterm_stops() -> Iterator[None]:
    """Let SIGTERM end a run as Ctrl-C does, with everything saved, unless somebody else wants that signal."""
    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if not ours:
        yield
        return
    signal.signal(signal.SIGTERM, raise_terminated)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def raise_terminated(number: int, frame: FrameType | None) -> None:
    """Stop wherever the program is."""
    raise Terminated
