"""Notices for the user, in addition to a command's output."""

import sys

from nexus.listener import Listener

__all__ = ["Notes"]


class Notes(Listener):
    """Prints notices on stderr, so that stdout contains only the requested output."""

    def __init__(self) -> None:
        self.said: set[str] = set()

    def on_notice(self, text: str) -> None:
        """Print the notice, unless it was already printed."""
        if text not in self.said:
            self.said.add(text)
            print(f"Note: {text}", file=sys.stderr)
