"""What a user should know, beside what a command prints."""

import sys

from nexus.listener import Listener

__all__ = ["Notes"]


class Notes(Listener):
    """Prints notices on stderr, so that stdout has nothing but what was asked for."""

    def __init__(self) -> None:
        self.said: set[str] = set()

    def on_notice(self, text: str) -> None:
        """Print it, unless it was said already."""
        if text not in self.said:
            self.said.add(text)
            print(f"Note: {text}", file=sys.stderr)
