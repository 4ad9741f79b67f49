"""`nexus describe RUN`."""

import json
import shutil
import textwrap
from dataclasses import dataclass
from typing import Annotated

import tyro

from nexus.cli.here import look_here
from nexus.cli.parsing import WIDEST, parse

__all__ = ["run"]

NO_BREAK = "\u00a0"  # a space at which no line is broken


@dataclass(frozen=True)
class DescribeCommand:
    """Say in words what a run holds: the Q-values of its environment's first state, how it explores now and when that
    ends, how its loss moved, and what its replay contains. Works on runs in progress, and on those that were killed or
    diverged. Judging is up to `nexus doctor`.
    """

    run: Annotated[str, tyro.conf.Positional]
    """A run's folder."""
    json: bool = False
    """Print all numbers as JSON."""


def run(arguments: list[str]) -> int:
    """Describe and print."""
    command = parse(DescribeCommand, arguments, "nexus describe")
    look_here(None, command.run, None)
    from nexus.cli.notes import Notes
    from nexus.inspection.describe import describe

    found = describe(command.run, listener=Notes())
    if command.json:
        print(json.dumps(found.to_mapping()))
        return 0
    width = min(WIDEST, shutil.get_terminal_size().columns)
    kept = str(found).replace(" %", f"{NO_BREAK}%")
    print("\n\n".join(textwrap.fill(line, width) for line in kept.splitlines()).replace(NO_BREAK, " "))
    return 0
